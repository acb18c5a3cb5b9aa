"""A service's operations on the wire, as its botocore model describes them, seen from the server."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import botocore
import cbor2
import orjson
from botocore.exceptions import UnknownServiceError
from botocore.loaders import JSONFileLoader, Loader
from botocore.model import ServiceModel

from bastide.domain import Refused
from bastide.protocol import cbor, forms, refusals, rest, routing
from bastide.protocol import xml as xml_
from bastide.protocol.head import Answer, Head, Malformed
from bastide.protocol.rules import Rules
from bastide.protocol.values import ValueReaders, ValueWriters

CBOR = "smithy-rpc-v2-cbor"
_RPC_PATH = re.compile(rb"(?:/.*)?/service/([^/]+)/operation/([^/]+)")
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

_STRUCTURED = ("json", CBOR)
_SQS_CODES = {
    "QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    "AccessDeniedException": "AccessDenied",
    "KmsAccessDenied": "KMS.AccessDeniedException",
    "KmsDisabled": "KMS.DisabledException",
    "KmsInvalidKeyUsage": "KMS.InvalidKeyUsageException",
    "KmsInvalidState": "KMS.InvalidStateException",
    "KmsNotFound": "KMS.NotFoundException",
    **{
        name: f"AWS.SimpleQueueService.{name}"
        for name in (
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidBatchEntryId",
            "MessageNotInflight",
            "PurgeQueueInProgress",
            "QueueDeletedRecently",
            "TooManyEntriesInBatchRequest",
            "UnsupportedOperation",
        )
    },
}
"""Codes that clients of SQS knew when it spoke query, from its API reference; its model does not have them."""

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
        shape = self._error_shape(refused.code)
        status = refused.status
        trait: Mapping[str, Any] = {}
        if shape is not None:
            trait = shape.metadata.get("error") or {}
            modelled = trait.get("httpStatusCode")
            if modelled is not None:
                status = int(modelled)
            elif xml_.declared(shape).get("fault") and status < 500:
                status = 500
            if (
                self.service.query_compatible
                and trait.get("code", shape.name) != shape.name
                and protocol in _STRUCTURED
            ):
                # The modelled status of a custom code is the former query service's.
                status = 400 if status < 500 else 500
        xml_code = str(trait.get("code") or (shape.name if shape is not None else refused.code))
        if self.service.service == "sqs":
            xml_code = _SQS_CODES.get(xml_code, xml_code)
        headers: list[tuple[str, str]] = []
        members: dict[str, Any] = dict(refused.members)
        if shape is not None and protocol.startswith("rest-"):
            members = rest.HeadWriters(shape).write(members, headers.append)
        if protocol in ("json", "rest-json", CBOR):
            answer = self._structured_error(protocol, refused, shape, members, status, request_id)
            if self.service.query_compatible and protocol in _STRUCTURED:
                blame = "Receiver" if status >= 500 else "Sender"
                answer.headers.append(("x-amzn-query-error", f"{xml_code};{blame}"))
        else:
            inner = self._xml_members(shape, members)
            if protocol == "ec2":
                answer = refusals.ec2_error(xml_code, refused.message, inner, status, request_id)
            elif protocol == "rest-xml" and self.service.service == "s3":
                host = host_id or request_id
                answer = refusals.s3_error(xml_code, refused.message, inner, status, request_id, host)
                if self.method == "HEAD":
                    answer.body = b""
            else:
                blame = "Receiver" if status >= 500 else "Sender"
                answer = refusals.query_error(
                    xml_code, refused.message, inner, status, request_id, self.service.xmlns, blame
                )
        answer.headers.extend(headers)
        return answer

    def _error_shape(self, code: str) -> Any:
        for shape in self.model.error_shapes:
            trait = shape.metadata.get("error") or {}
            if code in (shape.name, trait.get("code")):
                return shape
        return self.service.error_shape(code)

    def _structured_error(
        self, protocol: str, refused: Refused, shape: Any, members: dict[str, Any], status: int, request_id: str
    ) -> Answer:
        content: dict[str, Any]
        if shape is None:
            content = {"message": refused.message, **members}
            code = refused.code
        else:
            named = next((name for name in shape.members if name.lower() == "message"), None)
            if named is not None and refused.message:
                members.setdefault(named, refused.message)
            content = self.service.writers(protocol == CBOR).structure(shape)(members)
            if named is None and refused.message:
                content.setdefault("message", refused.message)
            code = shape.name
        if protocol == CBOR:
            return refusals.cbor_error(code, content, status, request_id)
        return refusals.json_error(protocol, code, content, status, request_id, self.service.json_version)

    def _xml_members(self, shape: Any, members: dict[str, Any]) -> str:
        members = {name: value for name, value in members.items() if name.lower() != "message"}
        if shape is None or any(name not in shape.members for name in members):
            return refusals.plain_members(members)
        pieces: list[str] = []
        self.service.xml_writers.content(shape)(members, pieces.append)
        return "".join(pieces)


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


class _Operations(Mapping[str, OperationCodec]):
    """The operations of a service, each compiled when it is first asked for."""

    def __init__(self, service: Codec) -> None:
        self._service = service
        self._made: dict[str, OperationCodec] = {}

    def __getitem__(self, name: str) -> OperationCodec:
        found = self._made.get(name)
        if found is None:
            if name not in self._service.names:
                raise KeyError(name)
            found = self._made[name] = self._service.compiled(self._service, self._service.model.operation_model(name))
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._service.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._service.names)

    def __len__(self) -> int:
        return len(self._service.names)


class Codec:
    """One service as botocore names it.

    signing_name: its name in credential scopes. endpoint_prefix, api_version, target_prefix, json_version: as in the
    model. protocols: those that clients may speak, the first preferred. global_: has one endpoint for all regions.
    """

    compiled = OperationCodec
    """What an operation becomes."""
    anonymous = False
    """Whether nobody may ask, too: what is asked about says who may."""

    def __init__(self, service: str, model: Any, *, global_: bool = False) -> None:
        self.service = service
        self.model = model
        metadata = model.metadata
        self.endpoint_prefix = str(metadata.get("endpointPrefix", service))
        self.signing_name = str(metadata.get("signingName") or self.endpoint_prefix)
        self.api_version = str(metadata.get("apiVersion", ""))
        self.target_prefix = str(metadata.get("targetPrefix", ""))
        self.json_version = str(metadata.get("jsonVersion", "1.0"))
        self.protocols: tuple[str, ...] = tuple(dict.fromkeys([metadata["protocol"], *metadata.get("protocols", ())]))
        self.protocol = self.protocols[0]
        self.query_compatible = "awsQueryCompatible" in metadata
        self.global_ = global_
        self.anonymous = self.anonymous or service == "s3"
        self.names: frozenset[str] = frozenset(model.operation_names)
        self.operations: Mapping[str, OperationCodec] = _Operations(self)
        namespace = metadata.get("xmlNamespace")
        if namespace is None and service == "ec2":
            namespace = f"http://ec2.amazonaws.com/doc/{self.api_version}/"
        if namespace is None and service == "s3":
            namespace = f"http://s3.amazonaws.com/doc/{self.api_version}/"
        if isinstance(namespace, Mapping):
            namespace = namespace.get("uri")
        self.xmlns = f' xmlns="{xml_.escape(namespace)}"' if namespace else ""
        self.rules = Rules(service, "query" in self.protocols)
        self.xml_readers = xml_.XmlReaders()
        self.xml_writers = xml_.XmlWriters()
        self._readers: dict[bool, ValueReaders] = {}
        self._writers: dict[bool, ValueWriters] = {}
        self._forms: dict[bool, forms.FormReaders] = {}
        self._templates: dict[str, routing.Template] = {}
        self._routes: routing.Routes | None = None
        self._errors: dict[str, Any] | None = None
        self._rest = next((one for one in self.protocols if one.startswith("rest-")), None)
        self._form = next((one for one in self.protocols if one in ("query", "ec2")), None)

    def readers(self, binary: bool) -> ValueReaders:
        """The readers of JSON, or of CBOR if `binary`."""
        found = self._readers.get(binary)
        if found is None:
            found = self._readers[binary] = ValueReaders(binary=binary)
        return found

    def writers(self, binary: bool) -> ValueWriters:
        """The writers of JSON, or of CBOR if `binary`."""
        found = self._writers.get(binary)
        if found is None:
            found = self._writers[binary] = ValueWriters(binary=binary)
        return found

    def forms(self, ec2: bool) -> forms.FormReaders:
        """The readers of form fields."""
        found = self._forms.get(ec2)
        if found is None:
            found = self._forms[ec2] = forms.FormReaders(ec2=ec2)
        return found

    def template(self, name: str) -> routing.Template:
        """The compiled request line of an operation."""
        found = self._templates.get(name)
        if found is None:
            found = self._templates[name] = routing.template(self.model.operation_model(name))
        return found

    def error_shape(self, code: str) -> Any:
        """The service's error of that name or code, or None."""
        if self._errors is None:
            self._errors = {}
            for shape in self.model.error_shapes:
                trait = shape.metadata.get("error") or {}
                self._errors.setdefault(shape.name, shape)
                if trait.get("code"):
                    self._errors.setdefault(trait["code"], shape)
        return self._errors.get(code)

    def needs_body(self, head: Head) -> bool:
        """Whether `route` has to see the body: a form that names its action there."""
        if self._form is None or head.method != "POST":
            return False
        headers = head.headers
        if "x-amz-target" in headers or "smithy-protocol" in headers:
            return False
        return not any(key == "Action" for key, _ in head.query)

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        """The operation and protocol that a request means.

        Raises Refused in the words of the protocol it seems to speak; ``kept["protocol"]`` names that.
        """
        headers = head.headers
        if CBOR in self.protocols and (
            headers.get("smithy-protocol") == "rpc-v2-cbor" or b"/service/" in head.raw_path
        ):
            found = _RPC_PATH.fullmatch(head.raw_path)
            if found is not None and head.method == "POST":
                name = found[2].decode("latin-1")
                if found[1].decode("latin-1") == self.target_prefix and name in self.names:
                    return name, CBOR
            if found is not None or "smithy-protocol" in headers:
                raise _unknown(CBOR, 404)
        target = headers.get("x-amz-target")
        if target is not None and "json" in self.protocols:
            prefix, _, name = target.rpartition(".")
            if prefix == self.target_prefix and name in self.names and head.method == "POST":
                return name, "json"
            raise _unknown("json", 400)
        if self._rest is not None:
            return self._route_rest(head, self._rest), self._rest
        if self._form is not None:
            return self._route_form(head, body, self._form), self._form
        raise _unknown(self.protocol, 404)

    def _route_rest(self, head: Head, protocol: str) -> str:
        if self._routes is None:
            self._routes = routing.Routes([self.template(name) for name in self.model.operation_names])
        found = self._routes.find(head)
        s3 = self.service == "s3"
        if found is None:
            if s3:
                raise Refused(
                    "MethodNotAllowed",
                    "The specified method is not allowed against this resource.",
                    405,
                    kept={"protocol": protocol},
                )
            raise _unknown(protocol, 404)
        if s3 and head.method not in ("GET", "HEAD"):
            for key, value in head.query:
                # A subresource that nobody knows must not become a change of the whole bucket or object.
                if not value and key not in found.known and not key.lower().startswith("x-"):
                    raise Refused(
                        "NotImplemented",
                        "A query parameter you provided implies functionality that is not implemented",
                        501,
                        kept={"protocol": protocol},
                    )
        return found.name

    def _route_form(self, head: Head, body: bytes | None, protocol: str) -> str:
        action = version = None
        fields = head.query
        if body and head.method == "POST":
            try:
                fields = fields + forms.pairs(body)
            except Malformed as malformed:
                code = "InvalidParameterValue" if protocol == "ec2" else "MalformedQueryString"
                raise Refused(code, malformed.text, kept={"protocol": protocol}) from None
        for key, value in fields:
            if key == "Action":
                action = value
            elif key == "Version":
                version = value
        if not action:
            raise Refused(
                "MissingAction",
                "The request is missing an action or a required parameter.",
                kept={"protocol": protocol},
            )
        if action not in self.names or (version is not None and version != self.api_version):
            shown, wanted = action[:128], (version or self.api_version)[:32]
            if protocol == "ec2":
                text = f"The action {shown} is not valid for this web service."
            else:
                text = f"Could not find operation {shown} for version {wanted}"
            raise Refused("InvalidAction", text, kept={"protocol": protocol})
        return action


def _unknown(protocol: str, status: int) -> Refused:
    if protocol == "rest-xml":
        return Refused("InvalidAction", "The requested operation is not known.", 404, kept={"protocol": protocol})
    return Refused(
        "UnknownOperationException", "The requested operation is not recognized by the service.", status,
        kept={"protocol": protocol},
    )  # fmt: skip


SPECIAL: dict[str, type[Codec]] = {}
"""Services that botocore does not know, each with its own codec; their models are in `MODELS`."""
MODELS: Final = Path(__file__).parent / "models"


class _Files(JSONFileLoader):  # type: ignore[misc]
    """botocore's way to a model's file, read by a quicker reader: half of a cold start was this."""

    def _load_file(self, full_path: str, open_method: Callable[[str, str], BinaryIO]) -> Any:
        if not Path(full_path).is_file():
            return None
        with open_method(full_path, "rb") as file:
            return orjson.loads(file.read())


@cache
def _loader() -> Any:
    paths = [str(_data()), str(MODELS)]
    return Loader(include_default_search_paths=False, extra_search_paths=paths, file_loader=_Files())


def _data() -> Path:
    return Path(botocore.__file__).parent / "data"


@cache
def _global_prefixes() -> frozenset[str]:
    services = _loader().load_data("endpoints")["partitions"][0]["services"]
    return frozenset(name for name, one in services.items() if one.get("isRegionalized") is False)


@cache
def codec(service: str) -> Codec:
    """The codec of a service by botocore's name for it; raises KeyError for one that botocore does not know."""
    try:
        model = ServiceModel(_loader().load_service_model(service, "service-2"), service)
    except UnknownServiceError:
        raise KeyError(service) from None
    prefix = model.metadata.get("endpointPrefix", service)
    return SPECIAL.get(service, Codec)(service, model, global_=prefix in _global_prefixes())


@cache
def _signing_names() -> dict[str, tuple[str, ...]]:
    """Services by the name they sign with, read from the first bytes of each model: all of them are 100 MB."""
    found: dict[str, list[str]] = {}
    for folder in sorted(_data().iterdir()):
        versions = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
        packed = versions[-1] / "service-2.json.gz" if versions else None
        if packed is None or not packed.exists():
            continue
        with packed.open("rb") as source:
            text = zlib.decompressobj(31).decompress(source.read(4096), 16384).decode("utf-8", "replace")
        start = text.find('"metadata"')
        try:
            metadata, _ = json.JSONDecoder().raw_decode(text, text.index("{", start))
        except ValueError:
            metadata = _loader().load_service_model(folder.name, "service-2")["metadata"]
        name = metadata.get("signingName") or metadata.get("endpointPrefix") or folder.name
        found.setdefault(name, []).append(folder.name)
    return {name: tuple(many) for name, many in found.items()}


def services_for_signing_name(name: str) -> tuple[str, ...]:
    """The services, by botocore's names, whose requests are signed for `name`; the namesake first."""
    return tuple(sorted(_signing_names().get(name, ()), key=lambda one: (one != name, one)))
