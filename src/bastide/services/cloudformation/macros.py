"""Macros: which there are, and what their functions make of templates.

Source: CloudFormation User Guide, "Perform custom processing on CloudFormation templates with template macros"; Template
Reference Guide, "AWS::CloudFormation::Macro".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused, new_id
from bastide.engines import templates
from bastide.services.cloudformation.acting import Actor

MACRO: Final = "cloudformation:Macro"
"""Rows of an account and region, by name: the function, and the stack that declares it."""
_MOST_BYTES: Final = 6 << 20


class Untransformed(Refused):
    """A transform failed: a change set tells it, where other operations are refused."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationError", message)


class Macros:
    """The macros of an account, called by one actor, who needs ``lambda:InvokeFunction`` for their functions."""

    def __init__(self, actor: Actor, values: Mapping[str, Any]) -> None:
        """values: the template's parameters as they resolve."""
        self._actor = actor
        self._values = dict(values)

    async def call(self, name: str, params: dict[str, Any], fragment: Any) -> Any:
        """What a macro makes of a fragment; raises Untransformed."""
        actor = self._actor
        with actor.calls.store.reading() as view:
            row = view.get(MACRO, actor.account, actor.region, name)
        if row is None:
            raise Refused("ValidationError", f"No transform named {actor.account}::{name[:128]} found.")
        id = f"{actor.account}::{name}"
        request = new_id()
        event = {
            "accountId": actor.account, "fragment": fragment, "transformId": id, "requestId": request,
            "region": actor.region, "params": params, "templateParameterValues": self._values,
        }  # fmt: skip
        asked = {
            "FunctionName": row.doc["function"], "InvocationType": "RequestResponse", "Payload": orjson.dumps(event),
        }  # fmt: skip
        try:
            output = await actor.act("lambda", "Invoke", asked)
        except Refused as refused:
            raise Untransformed(f"Transform {id} failed with: {refused.message}") from None
        answer = await _read(output)
        if answer is None or answer.get("requestId") != request:
            raise Untransformed(f"Received malformed response from transform {id}")
        if str(answer.get("status")).lower() != "success":
            told = answer.get("errorMessage")
            raise Untransformed(
                f"Transform {id} failed with: {told}" if told else f"Transform {id} failed without an error message."
            )
        if "fragment" not in answer:
            raise Untransformed(f"Received malformed response from transform {id}")
        # A text is a value; everything else is bounded as templates are.
        made = answer["fragment"]
        return templates.parse(orjson.dumps(made).decode()) if isinstance(made, dict | list) else made


async def _read(output: Mapping[str, Any]) -> dict[str, Any] | None:
    body, found = output.get("Payload"), b""
    if isinstance(body, bytes):
        found = body
    elif body is not None:
        async for piece in body:
            found += piece
            if len(found) > _MOST_BYTES:
                return None
    if output.get("FunctionError"):
        return None
    try:
        answer = orjson.loads(found)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None
