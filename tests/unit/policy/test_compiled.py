"""What is compiled from policies: functions without a text of the policy in them, and forms that come and go."""

from __future__ import annotations

import json
from types import FunctionType
from typing import Any, cast

import pytest

from bastide.policy import Attached, Document, Form, documents
from bastide.policy.generate import first_of
from tests.unit.policy.asking import HOME, allow, ask, context, deny, document, layers

HOSTILE = [
    "x'); import os; ('",
    '"); raise SystemExit("',
    "\\",
    "'''",
    '"""',
    "{0}{value}",
    "#",
    "c1",
    "__import__('os').system('true')",
    "a\nreturn 0\n",
]
TAG = "aws:PrincipalTag/team"


def conditions(text: str) -> list[dict[str, Any]]:
    return [
        {"StringEquals": {TAG: text}},
        {"StringLike": {TAG: f"*{text}*"}},
        {"StringNotLike": {TAG: [f"{text}?", "b*"]}},
        {"StringEqualsIgnoreCase": {f"aws:PrincipalTag/{text}".replace("\n", ""): text}},
        {"ForAnyValue:StringLike": {"aws:TagKeys": [text, "?"]}},
        {"ArnLike": {"aws:SourceArn": f"arn:*:{text}*:*:*:*{text}".replace(":'", "'")}},
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_policy_becomes_code(text: str) -> None:
    statements = [allow("s3:*", "arn:aws:s3:::x", Condition=one) for one in conditions(text)]
    statements += [
        allow("s3:*", [f"arn:aws:s3:::{text}", f"arn:aws:s3:::*{text}?"]),
        deny("s3:*", f"arn:aws:s3:::{text}*x"),
    ]
    parsed = Document.parse(json.dumps({"Version": "2012-10-17", "Statement": statements}), Form.IDENTITY)
    function = cast("FunctionType", first_of(parsed.statements))
    code = function.__code__
    assert function.__globals__["__builtins__"] == {}
    assert all(one is None or isinstance(one, int) or one in ("", ":", ("",)) for one in code.co_consts), code.co_consts
    methods = {"get", "split", "startswith", "endswith", "lower", "__class__", "str", "len"}
    assert all(name in methods or name[1:].isdigit() for name in (*code.co_names, *code.co_varnames)
               if name not in ("resource", "context")), code.co_names  # fmt: skip
    for resource in (f"arn:aws:s3:::{text}", "arn:aws:s3:::x", f"arn:aws:s3:::{text}ax", "*"):
        for value in (text, "x", "", f"a{text}b", "bx", [text, "x"], []):
            keys = context({TAG: value, "aws:TagKeys": [text], f"aws:PrincipalTag/{text}": value})
            wanted = next((one.index for one in parsed.statements if one.applies(resource, keys)), -1)
            assert function(resource, keys) == wanted


def texts(count: int, statements: int = 20) -> list[str]:
    return [
        document(
            *(
                allow("s3:GetObject", f"arn:aws:s3:::b{number}-{index}/*", Sid=f"S{number}x{index}")
                for index in range(statements)
            )
        )
        for number in range(count)
    ]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> documents._Known:
    found = documents._Known(200_000, 100_000)
    monkeypatch.setattr(documents, "_KNOWN", found)
    return found


def held(text: str) -> Any:
    found = layers()
    found.identity = [Attached(Document.parse_cached(text, Form.IDENTITY), "mine")]
    return found


def test_compiled_forms_are_bounded_and_come_back(known: documents._Known) -> None:
    every = [held(text) for text in texts(60)]
    for _ in range(2):
        for number, policies in enumerate(every):
            assert ask(policies, resource=f"arn:aws:s3:::b{number}-7/x").statement == 7
            assert not ask(policies, resource=f"arn:aws:s3:::b{number + 1}-7/x").allowed
            assert known.held <= known.most
            assert known.held_texts <= known.texts
    compiled = [one for one in every if one.identity[0].document._statements is not None]
    assert 0 < len(compiled) < 30
    assert known.held == sum(one.identity[0].document.size for one in every)


def test_what_is_asked_stays_longer_than_what_is_not(known: documents._Known) -> None:
    often, *others = texts(40)
    mine = held(often)
    forms: dict[str, set[int]] = {}
    kept = []  # so that no two forms have one id
    for text in others * 4:
        other = held(text)
        for policies, name in ((other, text), (mine, often)):
            ask(policies)
            statements = policies.identity[0].document.statements
            kept.append(statements)
            forms.setdefault(name, set()).add(id(statements))
    assert len(forms[often]) <= 40, "it is asked 156 times"
    assert all(len(forms[text]) == 4 for text in others)


def test_documents_of_one_sample_are_told_apart(known: documents._Known) -> None:
    base = document(*(allow("s3:GetObject", f"arn:aws:s3:::b{index:04}/*") for index in range(30)))
    place = next(at for at in range(len(base) // 2, len(base)) if base[at] == "0" and at % (len(base) // 512 | 1))
    other = base[:place] + "9" + base[place + 1 :]
    assert len(other) // 512 > 1, "the sample leaves characters out"
    first, second = Document.parse_cached(base, Form.IDENTITY), Document.parse_cached(other, Form.IDENTITY)
    assert first is not second
    assert first is Document.parse_cached(base, Form.IDENTITY)
    assert [one.resources for one in first.statements] != [one.resources for one in second.statements]


def test_texts_made_to_be_alike_are_bounded(known: documents._Known) -> None:
    known.texts = 2**30
    base = document(allow(Sid="x" * 2000))
    at = base.index("xxx") + 1
    assert len(base) // 512 | 1 == 5
    at += (5 - at % 5) + 1  # beside the characters of the sample
    for number in range(200):
        Document.parse_cached(base[:at] + f"{number:03}" + base[at + 3 :], Form.IDENTITY)
    assert max(map(len, known._documents.values())) <= 64
    assert known.held_texts < 200 * len(base)


def test_a_role_of_two_hundred_statements_decides_like_its_parts() -> None:
    many = [
        {
            "Effect": "Deny" if index % 10 == 9 else "Allow",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::team-{index}-*",
            "Condition": {"StringEquals": {TAG: f"t{index}"}, "NumericLessThan": {"s3:max-keys": str(index)}},
        }
        for index in range(200)
    ]
    policies = layers(identity=many)
    for _ in range(20):
        for index in (3, 77, 109, 198):
            keys = {TAG: f"t{index}", "s3:max-keys": str(index - 1)}
            decision = ask(policies, resource=f"arn:aws:s3:::team-{index}-x", keys=keys, account=HOME)
            assert decision.statement == index
            assert decision.verdict == ("ExplicitlyDenied" if index % 10 == 9 else "Allowed")
            assert not ask(policies, resource=f"arn:aws:s3:::team-{index + 1}-x", keys=keys).allowed
            assert not ask(
                policies, resource=f"arn:aws:s3:::team-{index}-x", keys={**keys, "s3:max-keys": "900"}
            ).allowed
