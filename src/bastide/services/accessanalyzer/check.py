"""CheckNoNewAccess, CheckAccessNotGranted and CheckNoPublicAccess: custom policy checks, by proof.

Source: Access Analyzer API reference; IAM User Guide, "Validate policies with IAM Access Analyzer custom policy checks".
A proof runs in a process of its own, under limits of time and memory; few run at once. What is not proved is no PASS:
it is refused as AWS refuses a policy that is too complex.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything
from bastide.policy import Document, Form
from bastide.services.accessanalyzer.noun import POLICY
from bastide.store import View

_SECONDS: Final = 20
_MEMORY: Final = 1 << 30
_AT_ONCE: Final = 2
_WAITING: Final = 16
_OF_ONE: Final = 4
"""Checks of one account: it keeps nobody else's from running."""
_FORMS: Final = {"IDENTITY_POLICY": Form.IDENTITY, "RESOURCE_POLICY": Form.RESOURCE}
_LARGEST: Final = 64 * 1024


class Room:
    """How many proofs run and wait."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(_AT_ONCE)
        self.waiting: Counter[str] = Counter()

    @contextmanager
    def place(self, account: str) -> Iterator[None]:
        """A place for one proof of an account; raises Refused (ThrottlingException) when it or all have enough."""
        if self.waiting.total() >= _WAITING or self.waiting[account] >= _OF_ONE:
            raise Refused("ThrottlingException", "Too many policy checks are running. Try again later.", 429)
        self.waiting[account] += 1
        try:
            yield
        finally:
            self.waiting[account] -= 1
            self.waiting = +self.waiting


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, Room] = WeakKeyDictionary()


def _invalid(message: str) -> Refused:
    return Refused("ValidationException", message, 400, members={"reason": "fieldValidationFailed"})


def _read(text: str, form: Form, member: str) -> None:
    """Refuses a document that cannot be read, before a process is started for it."""
    try:
        Document.parse(text, form, max_bytes=_LARGEST)
    except Refused as refused:
        raise Refused("InvalidParameterException", f"The {member} is not valid: {refused.message}", 400) from None


async def _proof(a: Authorised, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of a process of its own; raises Refused where it has none that could be given."""
    room = _rooms.setdefault(asyncio.get_running_loop(), Room())
    with room.place(a.account):
        async with room.free:
            answer = await _run({**question, "seconds": _SECONDS, "memory": _MEMORY})
    if answer["outcome"] == "unavailable":
        raise Refused("InternalServerException", "This platform has no prover: install bastide[prove].", 500)
    if answer["outcome"] == "malformed":
        raise Refused("InvalidParameterException", str(answer["why"]), 400)
    if answer["outcome"] == "not proved":
        raise Refused(
            "UnprocessableEntityException",
            f"The specified entity could not be processed: the policy is too complex ({answer['why'][:500]})",
            422,
        )
    return answer


async def _run(question: dict[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "bastide.policy.prove",
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(json.dumps(question).encode()), _SECONDS + 5)
    except TimeoutError:
        out = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        return {"outcome": "not proved", "why": "the proof was ended by its limits of time and memory"}
    return found


def _result(answer: dict[str, Any], passed: str, failed: str, where: str) -> Output:
    if answer["outcome"] == "proved":
        return {"result": "PASS", "message": passed}
    reasons = []
    for statement in answer["statements"]:
        told: Output = {"statementIndex": statement["index"]}
        if statement["sid"]:
            told["statementId"] = statement["sid"]
            told["description"] = f"{where} with sid: {statement['sid']}."
        else:
            told["description"] = f"{where} with index: {statement['index']}."
        reasons.append(told)
    return {"result": "FAIL", "message": failed, "reasons": reasons}


async def _new_access(a: Authorised) -> dict[str, Any]:
    form = _FORMS[a.input["policyType"]]
    new, existing = str(a.input["newPolicyDocument"]), str(a.input["existingPolicyDocument"])
    _read(new, form, "newPolicyDocument")
    _read(existing, form, "existingPolicyDocument")
    return await _proof(a, {"ask": "no-new-access", "form": form.value, "document": new, "existing": existing})


@POLICY.reads("CheckNoNewAccess", asks=[Ask("access-analyzer:CheckNoNewAccess", anything)], before=_new_access)
def no_new_access(a: Authorised, view: View) -> Output:
    return _result(
        a.staged,
        "The modified permissions do not grant new access compared to your existing policy.",
        "The modified permissions grant new access compared to your existing policy.",
        "New access in the statement",
    )


async def _granted(a: Authorised) -> dict[str, Any]:
    form = _FORMS[a.input["policyType"]]
    text = str(a.input["policyDocument"])
    _read(text, form, "policyDocument")
    access = a.input["access"]
    actions = [str(one) for held in access for one in held.get("actions") or ()]
    resources = [str(one) for held in access for one in held.get("resources") or ()]
    if not actions and not resources:
        raise _invalid("Specify at least one action or resource in access.")
    wanted: dict[str, Any] = {"Effect": "Allow", "Action": actions or "*", "Resource": resources or "*"}
    _read(json.dumps({"Version": "2012-10-17", "Statement": wanted}), Form.IDENTITY, "access")
    return await _proof(
        a,
        {
            "ask": "not-granted",
            "form": form.value,
            "document": text,
            "actions": actions,
            "resources": resources or None,
        },
    )


@POLICY.reads("CheckAccessNotGranted", asks=[Ask("access-analyzer:CheckAccessNotGranted", anything)], before=_granted)
def access_not_granted(a: Authorised, view: View) -> Output:
    return _result(
        a.staged,
        "The policy document does not grant access to perform the listed actions or resources.",
        "The policy document grants access to perform one or more of the listed actions or resources.",
        "One or more of the listed actions or resources in the statement",
    )


async def _public(a: Authorised) -> dict[str, Any]:
    text = str(a.input["policyDocument"])
    form = Form.TRUST if a.input["resourceType"] == "AWS::IAM::AssumeRolePolicyDocument" else Form.RESOURCE
    _read(text, form, "policyDocument")
    return await _proof(a, {"ask": "not-public", "form": Form.RESOURCE.value, "document": text})


@POLICY.reads("CheckNoPublicAccess", asks=[Ask("access-analyzer:CheckNoPublicAccess", anything)], before=_public)
def no_public_access(a: Authorised, view: View) -> Output:
    return _result(
        a.staged,
        "The resource policy does not grant public access for the given resource type.",
        "The resource policy grants public access for the given resource type.",
        "Public access granted in the following statement",
    )
