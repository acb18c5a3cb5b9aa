"""Addresses that functions answer to and that release wait conditions: a sealed one each, good for one purpose only.

AWS presigns an object of a bucket of its own. There is no such bucket here, and no key of anybody's that could sign: the
address itself is sealed, says which stack and resource it is for, and ends.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from bastide.domain import MICROS, new_id
from bastide.kernel import Calls
from bastide.kernel.address import Address
from bastide.services.cloudformation.record import SIGNAL, STACK, seal
from bastide.services.cloudformation.resource import Stack
from bastide.store import Row, Transaction

PATH: Final = "/_bastide/cloudformation/"
_PURPOSE: Final = "cloudformation-signal"
_MOST_BYTES: Final = 16 * 1024
_MOST_SIGNALS: Final = 200
_TOKEN: Final = re.compile(r"[A-Za-z0-9_=.-]{20,4096}")


def address(calls: Calls, stack: Stack, logical: str, request: str, *, days: float = 0.25) -> str:
    """The URL that an answer to `request` is PUT to."""
    ends = calls.clock() + int(days * 86400) * MICROS
    told = [stack.account, stack.region, stack.name, logical, request, ends]
    token = calls.sealer.seal(orjson.dumps(told), _PURPOSE)
    return f"{calls.engine(Address).url}{PATH}{token}"


def meant(calls: Calls, url: str) -> tuple[str, str]:
    """The stack's row and the resource that an address is for, both empty if it is none."""
    try:
        told = orjson.loads(calls.sealer.open(url.rpartition(PATH)[2], _PURPOSE))
    except Exception:
        return "", ""
    return str(told[2]), str(told[3])


class Signals:
    """The page that takes answers."""

    inside = True

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def takes(self, scope: Any) -> bool:
        """Whether a request is an answer."""
        return str(scope["path"]).startswith(PATH)

    async def serve(self, scope: Any, source: Any, send: Any, listener: Any) -> None:
        """Keeps an answer; 200 once it is on the disk."""
        status, told = await self._serve(scope, source)
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": told if scope["method"] != "HEAD" else b""})

    async def _serve(self, scope: Any, source: Any) -> tuple[int, bytes]:
        if scope["method"] != "PUT":
            return 405, b"PUT the answer here.\n"
        body = b""
        more = True
        while more:
            event = await source()
            if event["type"] == "http.disconnect":
                return 400, b""
            body += event.get("body", b"")
            more = event.get("more_body", False)
            if len(body) > _MOST_BYTES:
                return 413, b"The answer is too long.\n"
        token = str(scope["path"])[len(PATH) :]
        try:
            if not _TOKEN.fullmatch(token):
                raise ValueError
            account, region, name, logical, request, ends = orjson.loads(self._calls.sealer.open(token, _PURPOSE))
        except Exception:
            return 403, b"This is no address that was given out.\n"
        if self._calls.clock() > ends:
            return 403, b"This address has ended.\n"
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or answer.get("Status") not in ("SUCCESS", "FAILURE", "FAILED"):
            return 400, b"The answer is JSON with a Status of SUCCESS or FAILURE.\n"
        kept = await self._calls.store.write(
            lambda tx: keep(self._calls, tx, Row(STACK.key, account, region, name, {}), logical, request, answer)
        )
        return (200, b"") if kept else (404, b"The stack is not there any more.\n")


def keep(calls: Calls, tx: Transaction, stack: Row, logical: str, request: str, answer: dict[str, Any]) -> bool:
    """Keeps an answer, in a transaction; False if the stack is gone. The first answer to a request of a custom resource
    counts, and each UniqueId of a wait condition once."""
    held = tx.get(STACK.key, stack.account, stack.region, stack.name)
    if held is None or held.status == "DELETE_COMPLETE":
        return False
    uuid = stack.name.partition("/")[2]
    handle = request.startswith("handle-")
    unique = str(answer.get("UniqueId") or new_id()).encode().hex()[:128] if handle else "answer"
    place = f"{uuid}/{logical}/{unique}" if handle else f"{uuid}/{logical}/{request}/{unique}"
    if tx.get(SIGNAL, stack.account, stack.region, place) is not None:
        return True
    if (
        len(tx.scan(SIGNAL, stack.account, stack.region, prefix=f"{uuid}/{logical}/", limit=_MOST_SIGNALS))
        >= _MOST_SIGNALS
    ):
        return True
    tx.insert(Row(SIGNAL, stack.account, stack.region, place, {"sealed": seal(calls, answer)}), keep=False)
    return True
