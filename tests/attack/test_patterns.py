"""Patterns that callers write are matched on the platform's one loop: none of them may make it stand still."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bastide.protocol.patterns import strangers

TRICKS = [
    ("a*a*a*a*a*a*b", "a" * 4096),
    ("a?" * 60 + "b", "a" * 60),
    ("(a?a?a?a?a?a?a?a?a?a?){50}b", "a" * 24),
    ("(){4000000000}(a*)*b", "a" * 30),
    ("(a|aa)+b", "a" * 5000),
    ("(a{0,200}){0,200}b", "a" * 30),
    ("(?=.*.*.*b)a", "a" * 4000),
    ("(?:(?=.*b)a)*b", "a" * 4000),
    ("(?=((a*)*(a*)*)*b)(?!((a|aa)*c)*d)(a*a*)*c", "a" * 250),
    ("(?:(?=((a?){250}b|a*)*)a|aa)*c", "a" * 250),
    (r"(a*)*\1b", "a" * 30),
    ("(((((){0,256}){0,256}){0,256}){0,256}){0,256}b", "a"),
]
PROGRAM = """
import json, sys
from bastide.protocol.patterns import strangers
from bastide.services.codecommit import rule
from bastide.services.codepipeline import conditions, work
from bastide.services.servicecatalog import paths
for pattern, text in json.load(sys.stdin):
    found = strangers(pattern)
    assert found is None or not found(text), pattern
    try:
        assert not conditions._matches(pattern, text), pattern
    except work.ActionFailed:
        pass
stars, name = "*a" * 40 + "b", "a" * 64
statement = {"Type": "Approvers", "NumberOfApprovalsNeeded": 1, "ApprovalPoolMembers": [f"arn:aws:sts::{'1' * 12}:{stars}"]}
content = rule.checked(json.dumps({"Version": "2018-11-08", "Statements": [statement]}), "Wrong")
assert not rule.satisfied(content, {f"arn:aws:sts::{'1' * 12}:assumed-role/{name}/{name}": "somebody"})
assert not paths._matches(f"arn:aws:iam:::role/{stars}", f"arn:aws:iam::{'1' * 12}:role/{name * 8}")
print("all over")
"""


def test_patterns_end() -> None:
    """In a process of its own, which can be given up."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(TRICKS),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "all over\n", ended.stderr


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"\d+", "12", "1a"),
        ("^(?!.*--)[a-z-]+$", "a-b", "a--b"),
        ("(?=.*[A-Z])(?=.*[0-9]).{8,}", "Abcdefg1", "abcdefg1"),
        ("[a-z]+(-[a-z]+)*(_[0-9]+)?", "ab-cd_1", "ab-_1"),
        ("(?=(a+)+)a+", "aaa", "ba"),
        (
            r"^$|(?=^.{3,63}$)(?!.*[.-]{2})(?!^(?:[0-9]{1,3}(\.(?!$)|$)){4}$)(^(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*"
            r"([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])$)",
            "my.bucket-1",
            "10.0.0.1",
        ),
        (r"([a-z]|(\d(?!\d{0,2}\.\d{1,3})))([a-z\d]|(\.(?!(\.|-)))|(-(?!\.))){1,61}[a-z\d.]", "a.b-c", "a..b"),
        (r"(?=.*\bno\b)[a-z ]+", "say no more", "say nothing more"),
        ("(a|b|ab)*c", "abababc", "ababab"),
        ("(?i)abc", "aBc", "abd"),
        ("5\\d{2}", "502", "200"),
    ],
)
def test_patterns_mean_what_they_say(pattern: str, yes: str, no: str) -> None:
    found = strangers(pattern)
    assert found is not None and found(yes) and not found(no)


@pytest.mark.parametrize("pattern", ["(", r"(a+)\1", "(?<=(a+))b+(c+)+(d+)+", "(?i)(a+)+(b+)+"])
def test_what_cannot_be_followed_is_no_pattern(pattern: str) -> None:
    assert strangers(pattern) is None
