"""One operation on the wire: its input read and checked, its output and its errors written, in each protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cbor2
import orjson

from bastide.domain import Refused
from bastide.protocol import cbor, errors, forms, refusals, rest
from bastide.protocol import xml as xml_
from bastide.protocol.errors import CBOR
from bastide.protocol.head import Answer, Head, Malformed

if TYPE_CHECKING:
    from bastide.protocol.codec import Codec

_S3_ROOTS = {
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListDirectoryBuckets": "ListAllMyDirectoryBucketsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListParts": "ListPartsResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketLifecycle": "LifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketNotification": "NotificationConfiguration",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "ListBucketAnalyticsConfigurations": "ListBucketAnalyticsConfigurationResult",
    "ListBucketInventoryConfigurations": "ListInventoryConfigurationsResult",
    "ListBucketMetricsConfigurations": "ListMetricsConfigurationsResult",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "CreateSession": "CreateSessionResult",
}
"""Root elements of S3's answers, from its API reference; the model leaves them out."""

_S3_STATUS = {"DeleteObject": 204, "PutBucketPolicy": 204}
_MALFORMED_XML = "The XML you provided was not well-formed or did not validate against our published schema"

Body = Callable[[Mapping[str, Any]], bytes]


class OperationCodec:
    """One operation, in every protocol of its service.

    input_shape, output_shape: botocore shapes or None. streaming_input, streaming_output: the member that is the body
    itself and is left to the front door. idempotency_member: what clients fill in by themselves. unsigned: needs no
    signature. http_status: of a success.
    """

    def __init__(self, service: Codec, model: Any) -> None:
        self.service = service
        self.name: str = model.name
        self.model = model
        self.input_shape = model.input_shape
        self.output_shape = model.output_shape
        http = model.http
        status = int(http.get("responseCode", 200))
        self.http_status = _S3_STATUS.get(self.name, status) if service.service == "s3" else status
        self.method = str(http.get("method", "POST"))
        self.unsigned = model.auth_type == "none" or list(model.auth or ()) == ["smithy.api#noAuth"]
        self.streaming_input = self._streamed(self.input_shape)
        self.streaming_output = self._streamed(self.output_shape)
        tokens = model.idempotent_members
        self.idempotency_member: str | None = tokens[0] if tokens else None
        self._parsers: dict[str, Callable[[Head, bytes], dict[str, Any]]] = {}
        self._answers: dict[str, Callable[[dict[str, Any], str], Answer]] = {}
        self._validate: Callable[[Any], None] | None = None

    @staticmethod
    def _streamed(shape: Any) -> str | None:
        payload = shape.serialization.get("payload") if shape is not None else None
        if payload is None:
            return None
        member = shape.members[payload]
        return str(payload) if rest.streams(member) or member.serialization.get("eventstream") else None

    # In

    def parse(self, protocol: str, head: Head, body: bytes) -> dict[str, Any]:
        """The input as handlers see it: blobs as bytes, timestamps as integer microseconds, JSON values as JSON text.

        Members that the model does not know are passed over; a streaming payload is left out. Raises Refused, and
        nothing else, for whatever the bytes may be.
        """
        parser = self._parsers.get(protocol)
        if parser is None:
            parser = self._parsers[protocol] = self._parser(protocol)
        try:
            return parser(head, body)
        except Malformed as malformed:
            raise self._malformed(protocol, malformed) from None
        except RecursionError:
            raise self._malformed(protocol, Malformed("The input is nested too deeply")) from None

    def _malformed(self, protocol: str, malformed: Malformed) -> Refused:
        if protocol == "query":
            return Refused("MalformedInput", malformed.text)
        if protocol == "ec2":
            return Refused("InvalidParameterValue", malformed.text)
        if protocol == "rest-xml":
            if malformed.place == "body":
                if self.service.service == "s3":
                    return Refused("MalformedXML", _MALFORMED_XML)
                return Refused("MalformedInput", malformed.text)
            if malformed.place == "uri":
                return Refused("InvalidURI", "Couldn't parse the specified URI.")
            return Refused("InvalidArgument", malformed.text)
        return Refused("SerializationException", malformed.text)

    def _parser(self, protocol: str) -> Callable[[Head, bytes], dict[str, Any]]:
        shape = self.input_shape
        if protocol in ("json", CBOR):
            if shape is None:
                return lambda head, body: {}
            binary = protocol == CBOR
            read = self.service.readers(binary).of(shape)
            loads = cbor.loads if binary else _load_json

            def rpc(head: Head, body: bytes) -> dict[str, Any]:
                return read(loads(body)) if body else {}

            return rpc
        if protocol in ("query", "ec2"):
            if shape is None:
                return lambda head, body: {}
            read_form = self.service.forms(protocol == "ec2").of(shape)

            def form(head: Head, body: bytes) -> dict[str, Any]:
                fields = head.query + forms.pairs(body) if body else head.query
                return read_form(forms.tree(fields))  # type: ignore[no-any-return]

            return form
        return self._rest_parser(protocol)

    def _rest_parser(self, protocol: str) -> Callable[[Head, bytes], dict[str, Any]]:
        shape = self.input_shape
        s3 = self.service.service == "s3"
        heads = rest.HeadReaders(shape, self.service.template(self.name), s3=s3)
        read_body = self._rest_body(protocol)
        payload = shape.serialization.get("payload") if shape is not None else None
        empty = payload in shape.required_members and shape.members[payload].type_name == "blob" if payload else False

        def parse(head: Head, body: bytes) -> dict[str, Any]:
            out: dict[str, Any] = {}
            if read_body is not None and (body or empty):
                read_body(body, out)
            heads.read(head, out)
            return out

        return parse

    def _rest_body(self, protocol: str) -> Callable[[bytes, dict[str, Any]], None] | None:
        shape = self.input_shape
        if shape is None or self.streaming_input is not None:
            return None
        payload = shape.serialization.get("payload")
        member = shape.members[payload] if payload is not None else None
        if member is not None and member.type_name == "blob":

            def blob(body: bytes, out: dict[str, Any]) -> None:
                out[payload] = body

            return blob
        if member is not None and member.type_name == "string":

            def string(body: bytes, out: dict[str, Any]) -> None:
                try:
                    out[payload] = body.decode()
                except UnicodeDecodeError:
                    raise Malformed("The body is not UTF-8") from None

            return string
        whole = member if member is not None else shape
        if protocol == "rest-json":
            return self._json_body(whole, payload)
        read_xml = self.service.xml_readers.of(whole)
        roots = {whole.name, whole.serialization.get("name"), xml_.declared(whole).get("locationName")}

        def xml(body: bytes, out: dict[str, Any]) -> None:
            element = xml_.parse(body)
            if xml_.local(element.tag) not in roots:
                raise Malformed("The root element is not the operation's")
            if payload is not None:
                out[payload] = read_xml(element)
            else:
                out.update(read_xml(element))

        return xml

    def _json_body(self, whole: Any, payload: str | None) -> Callable[[bytes, dict[str, Any]], None]:
        read = self.service.readers(binary=False).of(whole)
        if payload is not None:

            def member(body: bytes, out: dict[str, Any]) -> None:
                value = _load_json(body)
                if value is not None:
                    out[payload] = read(value)

            return member
        located = frozenset(name for name, below in whole.members.items() if below.serialization.get("location"))

        def members(body: bytes, out: dict[str, Any]) -> None:
            found = read(_load_json(body))
            for name in located:
                # What belongs into the head is not taken from the body.
                found.pop(name, None)
            out.update(found)

        return members

    def validate(self, params: dict[str, Any]) -> None:
        """Checks an input against the model; raises Refused in AWS's words. A streaming payload counts as given."""
        check = self._validate
        if check is None:
            check = self._validate = self._make_validate()
        check(params)

    def _make_validate(self) -> Callable[[Any], None]:
        if self.input_shape is None:
            return lambda _: None
        check = self.service.rules.of(self.input_shape)
        streamed = self.streaming_input
        if streamed is not None and streamed in self.input_shape.required_members:
            return lambda params: check({streamed: b"", **params})
        return check

    # Out

    def answer(self, protocol: str, output: dict[str, Any], request_id: str) -> Answer:
        """The response for an output; members that are None are left out.

        Raises ValueError for a member that the model does not know. A streaming payload is not in the body, unless it
        was given as bytes.
        """
        answer = self._answers.get(protocol)
        if answer is None:
            answer = self._answers[protocol] = self._answer(protocol)
        return answer(output, request_id)

    def _answer(self, protocol: str) -> Callable[[dict[str, Any], str], Answer]:
        shape, status = self.output_shape, self.http_status
        if protocol == "json":
            content = refusals.json_type(self.service.json_version)
            write = self.service.writers(False).structure(shape) if shape is not None else None

            def as_json(output: dict[str, Any], request_id: str) -> Answer:
                if write is None:
                    _nothing_in(self.name, output)
                    body = b"{}"
                else:
                    body = orjson.dumps(write(output))
                return Answer(status, [("content-type", content), ("x-amzn-requestid", request_id)], body)

            return as_json
        if protocol == CBOR:
            write_cbor = self.service.writers(True).structure(shape) if shape is not None else None

            def as_cbor(output: dict[str, Any], request_id: str) -> Answer:
                headers = [("smithy-protocol", "rpc-v2-cbor"), ("x-amzn-requestid", request_id)]
                if write_cbor is None:
                    _nothing_in(self.name, output)
                    return Answer(status, headers, b"")
                headers.append(("content-type", "application/cbor"))
                return Answer(status, headers, cbor2.dumps(write_cbor(output)))

            return as_cbor
        if protocol == "query":
            return self._query_answer()
        if protocol == "ec2":
            return self._ec2_answer()
        return self._rest_answer(protocol)

    def _query_answer(self) -> Callable[[dict[str, Any], str], Answer]:
        shape, name, status = self.output_shape, self.name, self.http_status
        before = f"<{name}Response{self.service.xmlns}>"
        after = f"<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></{name}Response>"
        content = None
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper") or f"{name}Result"
            content = self.service.xml_writers.content(shape)
            before += f"<{wrapper}>"
            after = f"</{wrapper}>" + after
        after_id = after.replace("%s</", "</")
        middle = after_id.index("</RequestId>")
        tail, end = after_id[:middle], after_id[middle:]

        def as_query(output: dict[str, Any], request_id: str) -> Answer:
            pieces = [before]
            if content is not None:
                content(output, pieces.append)
            else:
                _nothing_in(name, output)
            pieces.append(f"{tail}{request_id}{end}")
            body = "".join(pieces).encode()
            return Answer(status, [("content-type", refusals.XML), ("x-amzn-requestid", request_id)], body)

        return as_query

    def _ec2_answer(self) -> Callable[[dict[str, Any], str], Answer]:
        shape, name, status = self.output_shape, self.name, self.http_status
        content = self.service.xml_writers.content(shape) if shape is not None else None
        start = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}Response{self.service.xmlns}><requestId>'

        def as_ec2(output: dict[str, Any], request_id: str) -> Answer:
            pieces = [start, request_id, "</requestId>"]
            if content is not None:
                content(output, pieces.append)
            else:
                _nothing_in(name, output)
            pieces.append(f"</{name}Response>")
            headers = [("content-type", "text/xml;charset=UTF-8"), ("x-amzn-requestid", request_id)]
            return Answer(status, headers, "".join(pieces).encode())

        return as_ec2

    def _rest_answer(self, protocol: str) -> Callable[[dict[str, Any], str], Answer]:
        shape, name, base = self.output_shape, self.name, self.http_status
        s3 = self.service.service == "s3"
        heads = rest.HeadWriters(shape)
        head_only = self.method == "HEAD"
        write_body, content = self._rest_content(protocol)
        known = frozenset(shape.members) if shape is not None else frozenset()
        id_header = "x-amz-request-id" if s3 else "x-amzn-requestid"

        def as_rest(output: dict[str, Any], request_id: str) -> Answer:
            headers: list[tuple[str, str]] = [(id_header, request_id)]
            if s3:
                headers.append(("x-amz-id-2", request_id))
            for member in output:
                if member not in known:
                    raise ValueError(f"{name} has no output member {member}")
            status = base
            if heads.status is not None and output.get(heads.status) is not None:
                status = int(output[heads.status])
            members = heads.write(output, headers.append)
            body = b"" if head_only or write_body is None else write_body(members)
            if (body or content is _OCTETS) and status != 204 and not any(one[0] == "content-type" for one in headers):
                headers.append(("content-type", content))
            return Answer(status, headers, body)

        return as_rest

    def _rest_content(self, protocol: str) -> tuple[Body | None, str]:
        """The writer of the body and its content type."""
        shape = self.output_shape
        media = "application/json" if protocol == "rest-json" else "application/xml"
        if shape is None:
            return None, media
        payload = shape.serialization.get("payload")
        if payload is not None:
            member = shape.members[payload]
            kind = member.type_name
            if kind in ("blob", "string"):
                return _raw(payload, streamed=self.streaming_output is not None), (
                    _OCTETS if kind == "blob" else "text/plain"
                )
            if member.serialization.get("eventstream"):
                return _raw(payload, streamed=True), "application/vnd.amazon.eventstream"
            if protocol == "rest-json":
                write = self.service.writers(False).of(member)

                def json_payload(members: Mapping[str, Any]) -> bytes:
                    value = members.get(payload)
                    if value is None:
                        return b""
                    return orjson.dumps(value if write is None else write(value))

                return json_payload, media
            own = member.serialization.get("name")
            root = str((own if own != payload else None) or xml_.declared(member).get("locationName") or member.name)
            return self._xml_body(member, root, payload), media
        unlocated = [
            name for name, below in shape.members.items() if below.serialization.get("location") not in xml_.IN_HEAD
        ]
        if protocol == "rest-json":
            write_all = self.service.writers(False).structure(shape)
            if not unlocated and shape.members:
                return None, media
            return (lambda members: orjson.dumps(write_all(members))), media
        if not unlocated:
            return None, media
        if self.service.service == "s3" and self.name == "GetBucketLocation":
            return self._bucket_location, media
        root = str(shape.serialization.get("name") or shape.name)
        if self.service.service == "s3":
            root = _S3_ROOTS.get(self.name, root)
        return self._xml_body(shape, root, None), media

    def _xml_body(self, shape: Any, root: str, payload: str | None) -> Body:
        own = xml_.namespace(shape)
        if not own or "xmlns:" in own:
            own += self.service.xmlns
        write = self.service.xml_writers.element(shape, root, own)

        def body(members: Mapping[str, Any]) -> bytes:
            value = members if payload is None else members.get(payload)
            if value is None:
                return b""
            pieces = ['<?xml version="1.0" encoding="UTF-8"?>\n']
            write(value, pieces.append)
            return "".join(pieces).encode()

        return body

    def _bucket_location(self, members: Mapping[str, Any]) -> bytes:
        # S3 has the value itself as root (API reference, GetBucketLocation), unlike what the model says.
        inside = xml_.escape(members.get("LocationConstraint") or "")
        text = f"<LocationConstraint{self.service.xmlns}>{inside}</LocationConstraint>"
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()

    # Errors

    def error(self, protocol: str, refused: Refused, request_id: str, host_id: str = "") -> Answer:
        """The response for a refusal: a modelled error by its shape's name or code with the model's status, else as is."""
        return errors.answer(self, protocol, refused, request_id, host_id)


_OCTETS = "application/octet-stream"


def _raw(payload: str, *, streamed: bool) -> Body:
    def raw(members: Mapping[str, Any]) -> bytes:
        value = members.get(payload)
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        if value is None or streamed:
            return b""
        raise ValueError(f"{payload} must be bytes or text")

    return raw


def _nothing_in(name: str, output: Mapping[str, Any]) -> None:
    for member, value in output.items():
        if value is not None:
            raise ValueError(f"{name} has no output, and so no member {member}")


def _load_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Malformed("The request body is not valid JSON") from None
