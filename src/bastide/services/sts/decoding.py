"""DecodeAuthorizationMessage: what was refused, to those who may know.

Source: STS API reference, "DecodeAuthorizationMessage". The answer tells what the refused request asked and the condition
values it came with. Of a policy that denied, it tells the statement's id; what a policy says is for who may read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything, encoded
from bastide.services.sts.session import SESSION
from bastide.store import View


async def _searchable(a: Authorised) -> None:
    """What was refused before this call is found by it."""
    await a.calls.journal.flush()


def _items(found: Iterable[Any]) -> dict[str, Any]:
    return {"items": list(found)}


def _conditions(context: dict[str, Any]) -> dict[str, Any]:
    return _items(
        {"key": key, "values": _items({"value": one} for one in ([value] if isinstance(value, str) else value))}
        for key, value in sorted(context.items())
    )


@SESSION.reads("DecodeAuthorizationMessage", asks=[Ask("sts:DecodeAuthorizationMessage", anything)], before=_searchable)
def decode(a: Authorised, view: View) -> Output:
    """Only messages of refusals in the caller's own account are decoded."""
    found = encoded.decode(a.calls, view, str(a.input["EncodedMessage"]))
    if found["account"] != a.account:
        raise Refused("InvalidAuthorizationMessageException", "The message is not valid.")
    question, who = found["question"], found["record"]["userIdentity"]
    explicit = question["verdict"] == "ExplicitlyDenied"
    statement = {
        "statementId": question.get("sid", ""),
        "effect": "DENY",
        "principals": _items([]),
        "principalGroups": _items([]),
        "actions": _items([]),
        "resources": _items([]),
        "conditions": _items([]),
    }
    principal = {"id": who.get("principalId", ""), "arn": who.get("arn") or who.get("identityProvider", "")}
    if who.get("userName"):
        principal["name"] = who["userName"]
    told = {
        "allowed": False,
        "explicitDeny": explicit,
        "matchedStatements": _items([statement] if explicit else []),
        "failures": _items([]),
        "context": {
            "principal": principal,
            "action": question["action"],
            "resource": question["resource"],
            "conditions": _conditions(question["context"]),
        },
    }
    return {"DecodedMessage": orjson.dumps(told).decode()}
