"""The encoded authorization failure message of a refusal: a sealed pointer to the question in the record.

Source: STS API reference, "DecodeAuthorizationMessage". The message tells nothing by itself; what was asked and decided
stands in the record of the account that was refused.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from bastide.domain import Refused
from bastide.kernel.call import Call
from bastide.store import View

if TYPE_CHECKING:
    from bastide.kernel.calls import Calls

_PURPOSE: Final = "authorization-message"
_POINTER: Final = struct.Struct(">16sQHI")
"""Request id, account, question, checksum of the event's name: short, for it ends every refusal that people read."""


def encode(calls: Calls, call: Call, index: int) -> str:
    """The message of the refusal of a call's question `index` (from 0)."""
    account = int(call.caller.account or calls.home)
    event = call.operation.event_name or call.operation.name
    told = _POINTER.pack(UUID(call.request.id).bytes, account, min(index, 0xFFFF), zlib.crc32(event.encode()))
    return calls.sealer.seal(told, _PURPOSE)


def decode(calls: Calls, view: View, message: str) -> dict[str, Any]:
    """What a message points to: ``account`` whose record it is, ``record`` (CloudTrail's shape), ``question`` in it.

    Raises Refused (InvalidAuthorizationMessageException) for what is no message of this platform, or one whose record is
    gone. Whether the asker may know is the asker's question: compare ``account``.
    """
    invalid = Refused("InvalidAuthorizationMessageException", "The message is not valid.")
    try:
        raw, number, index, name = _POINTER.unpack(calls.sealer.open(message, _PURPOSE))
    except (ValueError, struct.error, Refused):
        raise invalid from None
    request, account = UUID(bytes=raw), f"{number:012}"
    at = (request.int >> 80) * 1000  # a request's id tells the millisecond
    found = view.events(account, start=at, end=at + 999, where=("request_id", str(request)), limit=100)
    for event in found:
        if zlib.crc32(event.name.encode()) != name or not event.error:
            continue
        record = orjson.loads(event.body)
        questions = record["additionalEventData"]["bastide"]["questions"]
        if index < len(questions) and questions[index]["verdict"] != "Allowed":
            return {"account": account, "record": record, "question": questions[index]}
    raise invalid
