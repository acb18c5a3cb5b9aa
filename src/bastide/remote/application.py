"""The ASGI application of the remote: paths below ``/v1/repos/``. Source: gitprotocol-http(5), smart clients."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import bastide
from bastide.domain import Refused
from bastide.frontdoor.receive import Listener, Received, receive
from bastide.kernel import ANONYMOUS, Call, Caller, Calls, Request, Unforeseen
from bastide.remote import identify, packets
from bastide.services.codecommit import Fetch, Push

_log = logging.getLogger("bastide.remote")

_ROUTE: Final = re.compile(
    r"(?P<path>/v1/repos/(?P<name>[\w.-]{1,100}))/(?P<what>info/refs|git-upload-pack|git-receive-pack)", re.ASCII
)
_PROTOCOL: Final = re.compile(r"version=[012](?::[a-z0-9=.-]{1,40}){0,4}")
_MOST_WANTED: Final = 16 << 20
_MOST_PUSHED: Final = (2 << 30) + (1 << 20)
_OPERATIONS: Final = {"git-upload-pack": "GitPull", "git-receive-pack": "GitPush"}
_CODES: Final = {
    "AccessDeniedException": 403,
    "RepositoryDoesNotExistException": 404,
    "InvalidRepositoryNameException": 404,
    "EncryptionKeyAccessDeniedException": 403,
    "EncryptionKeyDisabledException": 403,
}


@dataclass(slots=True)
class _Answer:
    status: int
    head: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class RemotePages:
    """Answers clients of git. regions: those that exist, the default first."""

    inside = True

    def __init__(self, calls: Calls, regions: tuple[str, ...]) -> None:
        self._calls = calls
        self._regions = regions

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for a repository: no bucket is called ``v1``."""
        path: str = scope["path"]
        return path.startswith("/v1/repos/")

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Listener) -> None:
        """Answers one request."""
        received: Received | None = None
        try:
            received = receive(scope, source, listener, self._calls.clock)
            answer = await self._answer(received)
        except Refused as refused:
            answer = _refused(refused)
        except Unforeseen:
            _log.exception("a request of git failed")
            answer = _said(500, "An internal error occurred.")
        except Exception:
            _log.exception("a request of git failed")
            answer = _said(500, "An internal error occurred.")
        close = received is None or (not received.finished and received.length != 0)
        await _send(send, answer, scope["method"], received.id if received else "", close=close)

    async def _answer(self, received: Received) -> _Answer:
        found = _ROUTE.fullmatch(unquote(received.raw_path.decode("latin-1")))
        query = received.raw_query.decode("latin-1")
        if found is None:
            return _said(404, "There is no such page: repositories are at /v1/repos/NAME.")
        what = found["what"]
        service = query.removeprefix("service=") if what == "info/refs" else what
        if service not in _OPERATIONS:
            return _said(403, "The dumb protocol is not spoken here. Please use a newer git.")
        if received.method != ("GET" if what == "info/refs" else "POST"):
            return _said(405, f"{received.method} is not supported there.")
        if what != "info/refs" and received.named.get("content-type") != f"application/x-{service}-request":
            return _said(415, "That is no request of git.")
        given = identify.presented(received)
        if given is None:
            return _challenge()
        operation = self._calls.registry.operations["codecommit", _OPERATIONS[service]]
        name = found["name"]
        call = Call(operation, {"repositoryName": name}, ANONYMOUS, "", self._regions[0], _request(received))
        try:
            caller, region = identify.identified(self._calls, received, *given, found["path"], self._regions)
        except Refused as refused:
            claimed = refused.kept.get("claimed")
            if isinstance(claimed, Caller):
                call.caller = Caller(
                    "Anonymous", claimed.account, "", "", claimed.user_id, claimed.name, claimed.access_key
                )
                call.account = claimed.account
            await self._calls.refuse(call, refused)
            raise
        call.caller, call.account, call.region = caller, caller.account, region
        if service == "git-upload-pack":
            return await self._fetch(received, call, what)
        return await self._push(received, call, what)

    async def _fetch(self, received: Received, call: Call, what: str) -> _Answer:
        protocol = received.named.get("git-protocol", "")
        fetch = Fetch(protocol=protocol if _PROTOCOL.fullmatch(protocol) else "")
        if what != "info/refs":
            fetch.body = b"".join([piece async for piece in packets.body(received, _MOST_WANTED)])
        call.prepared = fetch
        output = await self._calls.run(call)
        if fetch.body is None:
            told: bytes = output["advertised"]
            if not told.startswith(b"000eversion 2"):
                told = packets.line(b"# service=git-upload-pack\n") + packets.FLUSH + told
            return _git("git-upload-pack-advertisement", told)
        answer = _git("git-upload-pack-result", b"")
        answer.stream = output["stream"]
        return answer

    async def _push(self, received: Received, call: Call, what: str) -> _Answer:
        if what == "info/refs":
            call.prepared = Push()
            output = await self._calls.run(call)
            agent = f"bastide/{bastide.__version__}"
            return _git("git-receive-pack-advertisement", packets.advertisement(output["references"], agent))
        reading = packets.Reading(packets.body(received, _MOST_PUSHED))
        commands, able = await packets.commands(reading)
        if not commands:
            # A client asks whether it may send a large body. Who may not is told so now.
            call.prepared = Push()
            await self._calls.run(call)
            return _git("git-receive-pack-result", packets.FLUSH)
        call.input = {**call.input, "references": [one.name for one in commands]}
        call.prepared = push = Push(commands, reading.rest(), "atomic" in able)
        if "object-format=sha256" in able:
            raise packets.malformed("objects are named by SHA-1 here.")
        try:
            output = await self._calls.run(call)
        except Refused as refused:
            if refused.code != "InvalidPackException":
                raise
            results = {one.name: "unpacker error" for one in push.commands or ()}
            return _git("git-receive-pack-result", packets.report(refused.message, results, able))
        return _git("git-receive-pack-result", packets.report("", output["results"], able))


def _request(received: Received) -> Request:
    return Request(
        received.id,
        received.at,
        received.source_ip,
        received.named.get("user-agent", "")[:512],
        received.listener.secure,
        "json",
        received.named.get("host", ""),
        received.tls,
        signed="header",
        vpce=received.listener.vpce,
    )


def _git(kind: str, body: bytes) -> _Answer:
    head = {"content-type": f"application/x-{kind}", "cache-control": "no-cache, max-age=0, must-revalidate"}
    return _Answer(200, head, body)


def _said(status: int, text: str) -> _Answer:
    return _Answer(status, {"content-type": "text/plain; charset=utf-8"}, f"{text}\n".encode())


def _challenge(text: str = "Credentials are required.") -> _Answer:
    answer = _said(401, text)
    answer.head["www-authenticate"] = 'Basic realm="AWS CodeCommit"'
    return answer


def _refused(refused: Refused) -> _Answer:
    status = _CODES.get(refused.code, refused.status)
    if status == 401:
        return _challenge(refused.message)
    return _said(status, f"{refused.message} ({refused.code})")


async def _send(send: Any, answer: _Answer, method: str, request_id: str, *, close: bool) -> None:
    head = dict(answer.head)
    if request_id:
        head["x-amzn-requestid"] = request_id
    if close:
        head["connection"] = "close"
    if answer.stream is None:
        head["content-length"] = str(len(answer.body))
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.stream is not None:
        async for piece in answer.stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
