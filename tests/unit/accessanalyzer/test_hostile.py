"""Documents made to be slow: findings come in bounded time, and a proof in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from bastide.policy import Form
from bastide.services.accessanalyzer.places import Unreadable, read
from bastide.services.accessanalyzer.validate import _Checks

SIZE = 60_000


def policy(**statement: Any) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*", **statement}}
    )


HOSTILE = {
    "stars in an action": policy(Action="*" * SIZE),
    "stars in an account": policy(Resource=f"arn:aws:s3::{'*' * SIZE}x:b"),
    "many actions": policy(Action=[f"s3:G{number}*" for number in range(SIZE // 12)]),
    "the same action": policy(Action=["s3:Get*"] * (SIZE // 12)),
    "open variables": policy(Resource="arn:aws:s3:::" + "${" * (SIZE // 2)),
    "deep": "[" * SIZE,
    "deep objects": '{"a":' * (SIZE // 5),
    "spaces": " " * SIZE + "x",
    "a long key": policy(Condition={"StringEquals": {"aws:" + "orgpaths" * 7000: "x"}}),
    "a long number": policy(Condition={"NumericEquals": {"aws:x": "9" * SIZE}}),
    "letters that look alike": policy(Action="ѕ3:Get*", Effect="Аllow"),  # noqa: RUF001
    "no text at all": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_findings_come_in_bounded_time(name: str) -> None:
    started = time.process_time()
    assert len(_Checks(HOSTILE[name], Form.IDENTITY).run()) < SIZE
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "text", ["", "{", '{"a" 1}', '{"a":1,}', "[1,]", '"\\x"', "nul", "{} x", '{"a":}', "[" * 100, "01"]
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


def ask(**question: Any) -> dict[str, Any]:
    asked = {"ask": "no-new-access", "form": "identity", "seconds": 3, "memory": 1 << 30, **question}
    command = [sys.executable, "-m", "bastide.policy.prove"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=60)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"outcome": "ended", "why": done.stderr[-200:]}
    return told


def test_a_proof_ends_by_its_limits() -> None:
    stars = policy(Action=[f"s3:*{'a*' * 40}{number}" for number in range(60)])
    assert ask(document=stars, existing=policy(Action="s3:Get*"))["outcome"] in ("refuted", "not proved", "ended")
    assert ask(document=policy(), existing=policy(), memory=1 << 20)["outcome"] in ("not proved", "ended")


def test_without_the_solver_nothing_is_claimed() -> None:
    code = (
        "import sys; sys.modules['z3'] = None\n"
        "from bastide.policy import Document, Form\n"
        "from bastide.policy.prove import Unavailable, no_more_permissive\n"
        "one = Document.parse({'Version': '2012-10-17', 'Statement': {'Effect': 'Allow', 'Action': '*', 'Resource': '*'}},"
        " Form.IDENTITY)\n"
        "try:\n    no_more_permissive(one, one)\nexcept Unavailable as missing:\n    print(missing)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "bastide[prove]" in done.stdout
