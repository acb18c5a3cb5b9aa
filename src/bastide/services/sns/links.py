"""What lies behind the links in messages: the signing certificate, confirming a subscription, ending it.

Source: Amazon SNS Developer Guide, "Subscribing an HTTP or HTTPS endpoint to a topic".
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

from bastide.domain import Refused, timed_id
from bastide.kernel import ANONYMOUS, Calls, Unforeseen
from bastide.kernel.call import Call, Request
from bastide.protocol import codec, error_for
from bastide.services.sns.signing import Signer

_ACTIONS: Final = ("ConfirmSubscription", "Unsubscribe")
_MOST_QUERY: Final = 8192
_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Links:
    """Pages of SNS on the platform's public listeners."""

    inside = False

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def takes(self, scope: Any) -> bool:
        """A link is a GET that nobody signed."""
        if scope["method"] not in ("GET", "HEAD"):
            return False
        if scope["path"] == self._calls.engine(Signer).path:
            return True
        query = scope["query_string"]
        return (
            scope["path"] == "/"
            and len(query) <= _MOST_QUERY
            and query.startswith(tuple(b"Action=" + one.encode() for one in _ACTIONS))
            and b"X-Amz-Signature" not in query
            and not any(name == b"authorization" for name, _ in scope["headers"])
        )

    async def serve(self, scope: Any, _source: Any, send: Any, listener: Any) -> None:
        """Answers it."""
        if scope["path"] != "/":
            certificate = self._calls.engine(Signer).certificate
            await _answer(send, 200, b"application/x-pem-file", certificate, scope["method"])
            return
        if scope["method"] != "GET":
            await _answer(send, 405, b"text/xml", b"", "HEAD")
            return
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=20))
        name = given.pop("Action")
        now = self._calls.clock()
        client = scope.get("client") or ("", 0)
        request = Request(timed_id(now), now, str(client[0]), "", listener.secure, "query")
        held = codec("sns").operations[name]
        try:
            known = {member: given[member] for member in held.input_shape.members if member in given}
            held.validate(known)
            region = str(known.get("TopicArn") or known.get("SubscriptionArn") or "").split(":")
            operation = self._calls.registry.operations["sns", name]
            if len(region) < 6:
                raise Refused("InvalidParameter", "Invalid parameter: the link is not whole")
            output = await self._calls.run(Call(operation, known, ANONYMOUS, "", region[3], request))
            answer = held.answer("query", output, request.id)
        except Refused as refused:
            answer = error_for("query", refused, request.id)
        except Unforeseen:
            answer = error_for("query", Refused("InternalError", "An internal error occurred.", 500), request.id)
        await _answer(send, answer.status, b"text/xml", answer.body, "GET")


async def _answer(send: Any, status: int, content: bytes, body: bytes, method: str) -> None:
    headers = [*_HEADERS, (b"content-type", content), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
