"""Second stage: which operation is meant.

The signature's scope only nominates a service; the target header, the path and the form choose the operation within it.
Without a signature it is S3, a call of an API, or an operation whose model needs no signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, unquote_to_bytes

from bastide.domain import Refused
from bastide.frontdoor.body import unpacked
from bastide.frontdoor.form import Form
from bastide.frontdoor.origins import bucket_in
from bastide.frontdoor.receive import MOST_BODY_BYTES, MOST_UNSIGNED_BYTES, Received, too_large
from bastide.kernel import Operation, Registry
from bastide.protocol import Codec, Head, OperationCodec, codec, is_call, services_for_signing_name
from bastide.sigv4 import Presented


@dataclass(slots=True)
class Target:
    """The operation a request is for, and the wire protocol it speaks."""

    operation: Operation
    codec: OperationCodec
    service: Codec
    protocol: str
    head: Head
    body: bytes | None


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string, decoded; raises Refused for bytes that are no UTF-8."""
    pairs = []
    for part in raw.split(b"&") if raw else ():
        if not part:
            continue
        key, _, value = part.partition(b"=")
        if b"%" in part or b"+" in part:
            key, value = (unquote_to_bytes(one.replace(b"+", b" ")) for one in (key, value))
        try:
            pairs.append((key.decode(), value.decode()))
        except UnicodeDecodeError:
            raise Refused("InvalidURI", "The query string is not UTF-8.", 400) from None
    return pairs


class Router:
    """Finds operations. `hosts` are the names the platform answers to; ``BUCKET.HOST`` is a virtual-hosted bucket."""

    def __init__(self, registry: Registry, hosts: Sequence[str]) -> None:
        self._registry = registry
        self._suffixes = tuple(
            sorted({f".s3.{host}" for host in hosts} | {f".{host}" for host in hosts}, key=len, reverse=True)
        )
        self._by_name: dict[str, list[Codec]] = {}
        self._open: dict[tuple[str, bytes], tuple[Codec, frozenset[str]]] = {}
        """Unsigned REST operations by method and path: the service, and the headers they cannot do without."""
        for name in registry.services:
            found = codec(name)
            self._by_name.setdefault(found.signing_name, []).append(found)
        for operation in registry.operations.values():
            found = codec(operation.service)
            if operation.identify is not None and found.protocol == "rest-json":
                trait = found.model.operation_model(operation.name).http
                headers = _needed(found.operations[operation.name], "header")
                self._open[trait["method"], trait["requestUri"].encode()] = (found, headers)

    def _candidates(self, presented: Presented | None, received: Received) -> list[Codec]:
        target = received.named.get("x-amz-target")
        if presented is not None:
            found = self._by_name.get(presented.service)
            if found is None:
                known = (
                    "is a service that Bastide does not have"
                    if services_for_signing_name(presented.service)
                    else "is no service"
                )
                raise Refused(
                    "UnknownOperationException",
                    f"The credential scope names `{presented.service}`, which {known}. See docs/services.",
                    404,
                )
            if len(found) > 1 and target is not None:
                # The service that the target names is the one to refuse what none of them has, in its protocol.
                found = sorted(found, key=lambda one: one.target_prefix != target.rpartition(".")[0])
            return found
        if is_call(received.named.get("host", ""), received.raw_path):
            return self._by_name.get("execute-api", [])
        if target is not None:
            prefix = target.rpartition(".")[0]
            return [one for many in self._by_name.values() for one in many if one.target_prefix == prefix]
        form = received.named.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if received.method == "POST" and (form or received.raw_path.startswith(b"/service/")):
            return [
                one
                for many in self._by_name.values()
                for one in many
                if {"query", "ec2", "smithy-rpc-v2-cbor"} & set(one.protocols)
            ]
        open_ = self._open.get((received.method, received.raw_path))
        if (
            open_ is not None
            and open_[1] <= received.named.keys()
            and self._bucket_of(received.named.get("host", "")) is None
            and (received.method == "GET" or not received.raw_query)
            and not received.named.get("content-type", "").startswith("multipart/")  # a browser's upload to S3
        ):
            return [open_[0]]
        if "x-mlflow-sm-tracking-server-arn" in received.named:
            return self._by_name.get("sagemaker-mlflow", [])
        # S3 answers whoever did not sign; other services' paths are known only to be refused under their own name.
        s3 = self._by_name.get("s3", [])
        rest = [one for many in self._by_name.values() for one in many if one.protocol.startswith("rest-")]
        return [*s3, *(one for one in rest if one not in s3)]

    def _bucket_of(self, host: str) -> str | None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        for suffix in self._suffixes:
            if name.endswith(suffix) and len(name) > len(suffix):
                found = name[: -len(suffix)]
                return None if found == "s3" else found
        return None

    def bucket(self, received: Received) -> str:
        """The bucket that a request is for, by its host or its path; empty if by neither."""
        return self._bucket_of(received.named.get("host", "")) or bucket_in(received.raw_path)

    def form(self, received: Received, form: Form) -> tuple[Target, str]:
        """The PutObject that a form means, and its bucket; raises Refused if it was not sent to a bucket."""
        host = received.named.get("host", "")
        bucket = self._bucket_of(host)
        path = unquote_to_bytes(received.raw_path).decode("utf-8", "replace")
        if bucket is None:
            bucket, path = path.strip("/"), "/"
        operation = self._registry.operation("s3", "PutObject")
        if not bucket or "/" in bucket or path != "/" or received.raw_query or operation is None:
            raise Refused(
                "MethodNotAllowed", "The specified method is not allowed against this resource.", 405,
                kept={"protocol": "rest-xml"},
            )  # fmt: skip
        service = codec("s3")
        where = f"/{quote(bucket)}/{quote(form.key, safe='/')}".encode()
        head = Head("PUT", where, [("x-id", "PutObject")], form.headers(), host)
        return Target(operation, service.operations["PutObject"], service, "rest-xml", head, None), bucket

    async def route(self, received: Received, presented: Presented | None) -> Target:
        """The target of a request; raises Refused if no service has such an operation."""
        query = parse_query(received.raw_query)
        host = received.named.get("host", "")
        candidates = self._candidates(presented, received)
        refusal: Refused | None = None
        body: bytes | None = None
        most = MOST_BODY_BYTES if presented is not None else MOST_UNSIGNED_BYTES
        for service in candidates:
            raw_path = received.raw_path
            if service.service == "s3":
                bucket = self._bucket_of(host)
                if bucket is not None:
                    raw_path = b"/" + bucket.encode() + raw_path
            head = Head(received.method, raw_path, query, received.named, host)
            if body is None and service.needs_body(head):
                body = await received.body(most)
            try:
                plain = unpacked(received, body) if body and service.needs_body(head) else body
                name, protocol = service.route(head, plain)
            except Refused as refused:
                refusal = refusal or refused
                continue
            operation = self._registry.operation(service.service, name)
            if operation is None or operation.inside:
                refusal = _unknown(service, name, protocol)
                continue
            held = service.operations[name]
            if service.service == "s3" and not _needed(held, "querystring") <= {key for key, _ in query}:
                # A path and method alone do not mean an operation whose query has to say more (POST to a key).
                refusal = refusal or Refused(
                    "MethodNotAllowed", "The specified method is not allowed against this resource.", 405,
                    kept={"protocol": protocol},
                )  # fmt: skip
                continue
            if operation.identify is not None:
                most = MOST_UNSIGNED_BYTES  # a signature does not count here
                if body is not None and len(body) > most:
                    raise too_large(most)
            if body is None and not (held.streaming_input and service.service == "s3"):
                # Who did not sign, and should have, is refused without being read.
                unread = presented is None and not service.anonymous and operation.identify is None
                body = b"" if unread else await received.body(most)
            return Target(operation, held, service, protocol, head, body)
        raise refusal or Refused(
            "UnknownOperationException", "No service here has the operation that was asked for.", 404
        )


@cache
def _needed(held: OperationCodec, place: str) -> frozenset[str]:
    """Headers or query parameters that an operation cannot do without."""
    shape = held.input_shape
    if shape is None:
        return frozenset()
    found = [shape.members[name].serialization for name in shape.required_members]
    return frozenset(one["name"] for one in found if one.get("location") == place)


def _unknown(service: Codec, name: str, protocol: str) -> Refused:
    text = f"The operation {name} of {service.service} is not one that Bastide has. See docs/services/{service.service}.md."
    if protocol in ("query", "ec2"):
        return Refused("InvalidAction", text, 400, kept={"protocol": protocol})
    if protocol == "rest-xml":
        return Refused("NotImplemented", text, 501, kept={"protocol": protocol})
    return Refused("UnknownOperationException", text, 404 if protocol != "json" else 400, kept={"protocol": protocol})
