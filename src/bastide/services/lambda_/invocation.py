"""Invoke: an event for a function, and what comes of it, now or later.

Source: AWS Lambda API Reference, Invoke.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.functions import Invocation
from bastide.kernel import Ask, Authorised, Output
from bastide.protocol import eventstream
from bastide.services.lambda_.asynchronous import Events
from bastide.services.lambda_.noun import FUNCTION, Named, named, this_qualified
from bastide.services.lambda_.runner import Runner, Target, target
from bastide.store import View

MOST_NOW: Final = 6_291_456
MOST_LATER: Final = 1_048_576
_MOST_CONTEXT: Final = 3583


def event(a: Authorised) -> bytes:
    """The event's payload: JSON, of the size that may be; raises Refused."""
    payload = bytes(a.input.get("Payload") or b"") or b"{}"
    most = MOST_LATER if a.input.get("InvocationType") == "Event" else MOST_NOW
    if len(payload) > most:
        raise Refused(
            "RequestTooLargeException",
            f"Request must be smaller than {most} bytes for the InvokeFunction operation",
            413,
            members={"Type": "User"},
        )
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Refused(
            "InvalidRequestContentException",
            f"Could not parse request body into json: {error}",
            400,
            members={"Type": "User"},
        ) from None
    return payload


def client(a: Authorised) -> str:
    """The client context, JSON on one line; raises Refused."""
    given = a.input.get("ClientContext")
    if not given:
        return ""
    try:
        if len(given) > _MOST_CONTEXT:
            raise ValueError
        found = orjson.loads(base64.b64decode(given, validate=True))
        if not isinstance(found, dict):
            raise ValueError
    except (binascii.Error, ValueError):
        raise Refused(
            "InvalidRequestContentException",
            f"Client context must be a valid Base64-encoded JSON object of at most {_MOST_CONTEXT} bytes.",
            400,
            members={"Type": "User"},
        ) from None
    return json.dumps(found)  # a header has ASCII only


async def _nothing(_: Authorised) -> list[Target]:
    return []


async def _invoke(a: Authorised, output: Output) -> Output:
    kind = a.input.get("InvocationType") or "RequestResponse"
    if kind == "DryRun":
        return {"StatusCode": 204}
    [to] = a.staged
    payload, context = event(a), client(a)
    if kind == "Event":
        await a.engine(Events).put(to.what, payload, context, a.request.id)
        return {"StatusCode": 202}
    call = Invocation(a.request.id, payload, to.what.arn, int(to.doc["Timeout"]), context)
    outcome = await a.engine(Runner).run(to, call)
    told: dict[str, Any] = {
        "StatusCode": 200,
        "Payload": outcome.payload,
        "ExecutedVersion": to.version,
        "FunctionError": outcome.error or None,
    }
    if a.input.get("LogType") == "Tail":
        told["LogResult"] = base64.b64encode(outcome.tail).decode()
    return told


def _named(kind: str, told: dict[str, Any]) -> bytes:
    """An event whose members are JSON."""
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    return eventstream.message(headers, orjson.dumps(told))


async def _stream(a: Authorised, output: Output) -> Output:
    """The answer in one piece: no runtime here streams, as AWS's own for Python does not."""
    told = await _invoke(a, output)
    if "Payload" not in told:
        return told

    async def events() -> AsyncIterator[bytes]:
        over: dict[str, Any] = {"LogResult": told["LogResult"]} if "LogResult" in told else {}
        if told["FunctionError"]:
            failed = orjson.loads(told["Payload"])
            over |= {"ErrorCode": str(failed.get("errorType") or "Unhandled"), "ErrorDetails": told["Payload"].decode()}
        else:
            yield eventstream.event("PayloadChunk", told["Payload"])
        yield _named("InvokeComplete", over)

    return {"StatusCode": 200, "ExecutedVersion": told["ExecutedVersion"], "EventStream": events()}


@FUNCTION.reads(
    "InvokeWithResponseStream",
    asks=[Ask("lambda:InvokeFunction", this_qualified)],
    data=True,
    before=_nothing,
    after=_stream,
)
def invoke_streamed(a: Authorised, view: View) -> Output:
    if a.input.get("InvocationType") == "Event":
        raise Refused("InvalidParameterValueException", "A stream is answered now: RequestResponse, or DryRun.")
    return invoke(a, view)


@FUNCTION.reads(
    "Invoke",
    asks=[Ask("lambda:InvokeFunction", this_qualified)],
    data=True,
    before=_nothing,
    after=_invoke,
)
def invoke(a: Authorised, view: View) -> Output:
    """Nothing changes by it here: what the function does is recorded where it does it."""
    for member in ("DurableExecutionName", "TenantId"):
        if a.input.get(member):
            raise Refused("InvalidParameterValueException", f"{member} is not supported by Bastide yet.")
    what: Named = named(a)
    a.staged.append(target(a.calls, view, what))
    return {}
