"""The way of a request, from top to bottom. docs/request.md walks it.

receive -> route -> authenticate -> parse -> (kernel: authorise -> handle -> record) -> answer
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn, Protocol
from urllib.parse import quote

import orjson

from bastide import sigv4
from bastide.domain import Refused
from bastide.frontdoor.authenticate import authenticate, authenticate_form, worded
from bastide.frontdoor.form import Form, is_form
from bastide.frontdoor.origins import Origins, bucket_in, is_preflight, preflight
from bastide.frontdoor.receive import Listener, Receive, Received, Scope, Send, receive
from bastide.frontdoor.route import Router, Target
from bastide.frontdoor.tunnel import Tunnel
from bastide.kernel import ANONYMOUS, Bytes, Call, Calls, Request, Unforeseen
from bastide.protocol import Answer, error_for, is_call

_log = logging.getLogger("bastide.frontdoor")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_GLOBAL_REGION = "us-east-1"
_EVENTS = "application/vnd.amazon.eventstream"


class Pages(Protocol):
    """What answers others than AWS's clients, on the same listeners. inside: those of VPC endpoints, too. What has a method
    `tunnel` takes WebSockets."""

    inside: bool

    def takes(self, scope: Scope) -> bool:
        """Whether a request is for one of its pages."""
        ...

    async def serve(self, scope: Scope, source: Receive, send: Send, listener: Listener) -> None:
        """Answers it."""
        ...


class FrontDoor:
    """The ASGI application. `at(listener)` gives the application of one way in."""

    def __init__(
        self,
        calls: Calls,
        *,
        hosts: Sequence[str],
        regions: Sequence[str],
        health: Any,
        origins: Origins,
        pages: Sequence[Pages] = (),
    ) -> None:
        self.calls = calls
        self._origins = origins
        self._pages = tuple(pages)
        self._router = Router(calls.registry, hosts)
        self._regions = frozenset(regions)
        self._default_region = regions[0]
        self._health = health

    def at(self, listener: Listener) -> Any:
        """The application behind `listener`."""

        async def application(scope: Scope, source: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._serve(scope, source, send, listener)
            elif scope["type"] == "websocket":
                await self._tunnel(scope, listener)

        return application

    async def _tunnel(self, scope: Scope, listener: Listener) -> None:
        tunnel: Tunnel = scope["bastide.tunnel"]
        for pages in self._pages:
            if (pages.inside or not listener.vpce) and hasattr(pages, "tunnel") and pages.takes(scope):
                await pages.tunnel(scope, tunnel, listener)
                return
        tunnel.refuse(400, "There is no WebSocket here.")

    async def _serve(self, scope: Scope, source: Receive, send: Send, listener: Listener) -> None:
        if scope["path"] == "/_bastide/health" and scope["method"] in ("GET", "HEAD") and not listener.vpce:
            await _send(
                send,
                Answer(200, [("content-type", "application/json")], orjson.dumps(self._health())),
                "",
                scope["method"],
            )
            return
        for pages in self._pages:
            if (pages.inside or not listener.vpce) and pages.takes(scope):
                await pages.serve(scope, source, send, listener)
                return
        received: Received | None = None
        target: Target | None = None
        stream: AsyncIterator[bytes] | None = None
        try:
            received = receive(scope, source, listener, self.calls.clock)
            if is_preflight(received):
                answer = self._beforehand(received)
            else:
                target, output = await self._walk(received)
                if target.codec.streaming_output is not None:
                    stream = output.pop(target.codec.streaming_output, None)
                answer = target.codec.answer(target.protocol, output, received.id)
                if "ContentRange" in output and answer.status == 200:
                    answer = Answer(206, answer.headers, answer.body)
        except _Answered as answered:
            target, answer = answered.target, answered.answer
        except Refused as refused:
            protocol = str(refused.kept.get("protocol") or _guess(scope))
            answer = error_for(protocol, worded(refused, protocol), received.id if received is not None else "")
        except Exception:
            # What nobody foresaw says only the request's id to the caller, and everything to the log.
            _log.exception("request %s failed", received.id if received is not None else "?")
            answer = error_for(_guess(scope), _internal(), received.id if received is not None else "")
        if received is not None and target is not None and target.service.service == "s3":
            answer.headers.extend(self._cross_origin(received, target))
        close = received is None or (not received.finished and received.length != 0)
        await _send(send, answer, received.id if received is not None else "", scope["method"], stream, close=close)

    async def _walk(self, received: Received) -> tuple[Target, dict[str, Any]]:
        presented = _signature(received)
        if presented is None and is_form(received):
            await self._upload_by_form(received)
        target = await self._router.route(received, presented)
        call = _nobody(received, target, self._region(target, presented.region if presented else ""))
        try:
            try:
                who = authenticate(self.calls, received, target, presented, self._default_region)
                region = self._region(target, who.region)
                if not target.operation.global_ and region not in self._regions:
                    raise _unknown_region(region, target.protocol)
                given = target.codec.parse(target.protocol, target.head, who.body)
                target.codec.validate(given)
                _misplaced(received, target)
            except Refused as refused:
                claimed = refused.kept.get("claimed")
                if claimed is not None:
                    call.caller, call.account = claimed, claimed.account
                shown = worded(refused, target.protocol)
                await self.calls.refuse(call, shown)
                raise shown from None
            call = Call(
                target.operation,
                given,
                who.caller,
                who.caller.account,
                region,
                _request(received, target, presented),
                who.upload or (Bytes(who.body) if target.codec.streaming_input is not None else None),
            )
            return target, await self.calls.run(call)
        except Refused as refused:
            answer = target.codec.error(target.protocol, refused, received.id)
            answer.headers.extend(refused.kept.get("headers", ()))
            raise _Answered(target, answer) from None
        except Unforeseen as unforeseen:
            _log.exception("request %s failed: %s", received.id, unforeseen)
            raise _Answered(target, target.codec.error(target.protocol, _internal(), received.id)) from None

    def _beforehand(self, received: Received) -> Answer:
        with self.calls.store.reading() as view:
            return preflight(self._origins, view, received, self._router.bucket(received))

    def _cross_origin(self, received: Received, target: Target) -> list[tuple[str, str]]:
        origin = received.named.get("origin")
        if origin is None:
            return []
        with self.calls.store.reading() as view:
            bucket = bucket_in(target.head.raw_path)
            return self._origins.told(view, bucket, origin, received.method, None) or []

    async def _upload_by_form(self, received: Received) -> NoReturn:
        """A browser's upload: PutObject under the policy that somebody signed for it. Ends in its answer."""
        form = await Form.read(received)
        target, bucket = self._router.form(received, form)
        call = _nobody(received, target, self._default_region)
        try:
            try:
                caller, region = authenticate_form(self.calls, received, form, bucket, self._default_region)
                if region not in self._regions:
                    raise _unknown_region(region, target.protocol)
                given = target.codec.parse(target.protocol, target.head, b"")
                target.codec.validate(given)
            except Refused as refused:
                claimed = refused.kept.get("claimed")
                if claimed is not None:
                    call.caller, call.account = claimed, claimed.account
                shown = worded(refused, target.protocol)
                await self.calls.refuse(call, shown)
                raise shown from None
            request = _request(received, target, None)
            request.signed = "form" if caller.kind != "Anonymous" else ""
            call = Call(target.operation, given, caller, caller.account, region, request, form)
            output = await self.calls.run(call)
        except Refused as refused:
            raise _Answered(target, target.codec.error(target.protocol, refused, received.id)) from None
        except Unforeseen as unforeseen:
            _log.exception("request %s failed: %s", received.id, unforeseen)
            raise _Answered(target, target.codec.error(target.protocol, _internal(), received.id)) from None
        scheme = "https" if received.listener.secure else "http"
        place = f"{scheme}://{received.named.get('host', '')}/{quote(bucket)}/{quote(form.key)}"
        raise _Answered(target, form.answer(output, place, bucket))

    def _region(self, target: Target, region: str) -> str:
        if target.operation.global_:
            return _GLOBAL_REGION
        return region if _REGION.fullmatch(region) else self._default_region


def _signature(received: Received) -> sigv4.Presented | None:
    """What a request presents. Whoever calls an API may bring an authorization that is for what stands behind it."""
    given = received.named.get("authorization", "")
    other = given and not given.lstrip().startswith("AWS4-HMAC-SHA256")
    if other and is_call(received.named.get("host", ""), received.raw_path):
        return None
    return sigv4.read(received.method, received.raw_path, received.raw_query, received.headers)


def _internal() -> Refused:
    text = "An internal error occurred. Please give the request id to your administrator."
    return Refused("InternalFailure", text, 500)


class _Answered(Exception):  # noqa: N818
    def __init__(self, target: Target, answer: Answer) -> None:
        super().__init__()
        self.target = target
        self.answer = answer


_ENCRYPTION = "x-amz-server-side-encryption"


def _misplaced(received: Received, target: Target) -> None:
    """Refuses headers that ask for an encryption where an object is read (S3 API Reference, GetObject, "Encryption")."""
    if target.service.service == "s3" and target.operation.name in ("GetObject", "HeadObject"):
        for name in received.named:
            if name.startswith(_ENCRYPTION) and not name.startswith(f"{_ENCRYPTION}-customer-"):
                raise Refused(
                    "InvalidArgument",
                    f"{name} header is not supported for this operation.",
                    400,
                    members={"ArgumentName": name, "ArgumentValue": received.named[name][:1024]},
                )


def _unknown_region(region: str, protocol: str) -> Refused:
    if protocol == "rest-xml":
        return Refused(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; the region '{region}' is not one of this platform's.",
        )
    return Refused("InvalidRegion", f"The region `{region}` is not one of this platform's; see its configuration.")


def _request(received: Received, target: Target, presented: sigv4.Presented | None) -> Request:
    return Request(
        received.id,
        received.at,
        received.source_ip,
        received.named.get("user-agent", "")[:512],
        received.listener.secure,
        target.protocol,
        received.named.get("host", ""),
        received.tls,
        signed=presented.form if presented is not None else "",
        signed_at=presented.signed_at if presented is not None else 0,
        vpce=received.listener.vpce,
        referer=received.named.get("referer", "")[:2048],
        content_sha256=(presented.body if presented is not None else received.named.get("x-amz-content-sha256", ""))[
            :64
        ],
    )


def _nobody(received: Received, target: Target, region: str) -> Call:
    """The call as it stands in the record when it never became one."""
    return Call(target.operation, {}, ANONYMOUS, "", region, _request(received, target, None))


def _guess(scope: Scope) -> str:
    """The protocol to say no in, when nothing better is known."""
    headers = dict(scope["headers"])
    if b"smithy-protocol" in headers:
        return "smithy-rpc-v2-cbor"
    if b"x-amz-target" in headers:
        return "json"
    if headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
        return "query"
    return "rest-xml"


_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\u0100-\U0010ffff]")


def _on_the_wire(value: str) -> bytes:
    """A header's value. What a header cannot hold (an object's metadata may have come in a form) is written as RFC 2047
    has it, as S3 does (S3 User Guide, "Working with object metadata"): no answer is split, and none fails."""
    if _UNWRITABLE.search(value) is None:
        return value.encode("latin-1")
    return b"=?UTF-8?B?" + base64.b64encode(value.encode("utf-8", "surrogatepass")) + b"?="


async def _send(
    send: Send,
    answer: Answer,
    request_id: str,
    method: str,
    stream: AsyncIterator[bytes] | None = None,
    *,
    close: bool = False,
) -> None:
    headers = [(name.encode("latin-1"), _on_the_wire(value)) for name, value in answer.headers]
    if close:
        headers.append((b"connection", b"close"))
    if request_id and not any(name.lower() in ("x-amzn-requestid", "x-amz-request-id") for name, _ in answer.headers):
        headers.append((b"x-amzn-requestid", request_id.encode()))
    if answer.status in (204, 304):
        headers = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"content-type")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    if stream is None:
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if ("content-type", _EVENTS) in answer.headers:
        # Somebody waits for every event: none is held back until the next.
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    held = b""
    async for piece in stream:
        if held:
            await send({"type": "http.response.body", "body": held, "more_body": True})
        held = piece
    await send({"type": "http.response.body", "body": held})
