"""The encoded authorization failure message of a refusal: a sealed pointer to the question in the record.

Source: STS API reference, "DecodeAuthorizationMessage". The message tells nothing by itself; what was asked and decided
stands in the record of the account that was refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel.call import Call
from bastide.store import View

if TYPE_CHECKING:
    from bastide.kernel.calls import Calls

_PURPOSE: Final = "authorization-message"


def encode(calls: Calls, call: Call, index: int) -> str:
    """The message of the refusal of a call's question `index` (from 0)."""
    told = {
        "request": call.request.id,
        "account": call.caller.account or calls.home,
        "at": call.request.at,
        "question": index,
        "event": call.operation.event_name or call.operation.name,
    }
    return calls.sealer.seal(orjson.dumps(told), _PURPOSE)


def decode(calls: Calls, view: View, message: str) -> dict[str, Any]:
    """What a message points to: ``account`` whose record it is, ``record`` (CloudTrail's shape), ``question`` in it.

    Raises Refused (InvalidAuthorizationMessageException) for what is no message of this platform, or one whose record is
    gone. Whether the asker may know is the asker's question: compare ``account``.
    """
    invalid = Refused("InvalidAuthorizationMessageException", "The message is not valid.")
    try:
        told = orjson.loads(calls.sealer.open(message, _PURPOSE))
    except (ValueError, Refused):
        raise invalid from None
    at, index = told["at"], told["question"]
    found = view.events(told["account"], start=at, end=at, where=("request_id", told["request"]), limit=100)
    for event in found:
        if event.name != told["event"] or not event.error:
            continue
        record = orjson.loads(event.body)
        questions = record["additionalEventData"]["bastide"]["questions"]
        if index < len(questions) and questions[index]["verdict"] != "Allowed":
            return {"account": told["account"], "record": record, "question": questions[index]}
    raise invalid
