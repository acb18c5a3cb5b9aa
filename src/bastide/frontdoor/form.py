"""Uploads by a browser's form: POST of ``multipart/form-data`` to a bucket, with a signed policy of what the form may hold.

The policy says who let the form be sent, until when and with which fields; every field has to be named by it. What is left
is a PutObject like any other: the same questions, the same record, the body streamed. Without a policy the sender is
Anonymous.

Source: S3 API Reference, "POST Object", "Authenticating Requests: Browser-Based Uploads Using POST (AWS Signature Version
4)", "POST Policy", and for Signature Version 2 the S3 User Guide's page of the same name.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit
from xml.sax.saxutils import escape

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from bastide import sigv4
from bastide.domain import Refused
from bastide.frontdoor.body import MOST_UPLOAD_BYTES
from bastide.frontdoor.receive import Received
from bastide.protocol import Answer
from bastide.sigv4 import Checksums, Presented

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_FORM_BYTES: Final = 64 * 1024
"""Of all fields before the file; S3's own limit is 20 KB."""
_MOST_BEFORE_FILE: Final = 2 * _MOST_FORM_BYTES
"""Of all that comes before the file, heads of parts and what divides them included: nobody has been asked who they are
yet."""
_MOST_PART_HEAD: Final = 4096
_UNNAMED: Final = frozenset({"awsaccesskeyid", "signature", "policy", "file", "x-amz-signature"})
"""Fields that a policy does not name."""
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
_PASSED: Final = frozenset(
    {"cache-control", "content-type", "content-disposition", "content-encoding", "content-language", "expires"}
)
"""Fields that are handed on as the headers of that name, beside those that begin with ``x-amz-``."""


def is_form(received: Received) -> bool:
    """Whether a request is such an upload."""
    return received.method == "POST" and received.named.get("content-type", "").startswith("multipart/form-data")


def _refused(text: str, code: str = "InvalidArgument") -> Refused:
    return Refused(code, text, 400, kept={"protocol": "rest-xml"})


def _denied(text: str) -> Refused:
    return Refused("AccessDenied", f"Invalid according to Policy: {text}", 403, kept={"protocol": "rest-xml"})


@dataclass(slots=True)
class Form:
    """The fields before the file, their names in lower case, and the file as a body that is read on."""

    received: Received
    fields: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    _ready: list[bytes] = field(default_factory=list)
    _whole: bool = False
    _parser: Any = None
    _least: int = 0
    _most: int = MOST_UPLOAD_BYTES
    _checks: Checksums | None = None
    length: int | None = None

    # -- reading -------------------------------------------------------------------------------------------------------

    @classmethod
    async def read(cls, received: Received) -> Form:
        """Reads up to the file's first byte; raises Refused for what is no form or holds no file."""
        form = cls(received)
        _, options = parse_options_header(received.named["content-type"].encode("latin-1"))
        boundary = options.get(b"boundary")
        if not boundary or len(boundary) > 200:
            raise _refused(
                "The body of your POST request is not well-formed multipart/form-data.", "MalformedPOSTRequest"
            )
        form._parser = MultipartParser(boundary, _Parts(form).callbacks())
        taken = 0
        while form.file is None and not form._whole:
            taken += await form._more()
            if form.file is None and taken > _MOST_BEFORE_FILE:
                raise _refused(
                    "Your POST request fields preceding the upload file were too large.", "MaxPostPreDataLengthExceeded"
                )
        if form.file is None:
            raise _refused("POST requires exactly one file upload per request.")
        return form

    async def _more(self) -> int:
        """Reads on; returns how many bytes there were."""
        data = await self.received.more()
        try:
            if data:
                self._parser.write(data)
            else:
                self._parser.finalize()
                self._whole = True
        except MultipartParseError:
            raise _refused(
                "The body of your POST request is not well-formed multipart/form-data.", "MalformedPOSTRequest"
            ) from None
        return len(data)

    # -- the kernel's Body -----------------------------------------------------------------------------------------------

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file's bytes; raises Refused outside of the policy's range, or if the form ends too soon."""
        size = 0
        checks = self._checks = Checksums(self.fields)
        while True:
            for piece in self._ready:
                size += len(piece)
                if size > self._most:
                    raise Refused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", 400)
                checks.update(piece)
                yield piece
            self._ready = []
            if self._whole:
                break
            await self._more()
        if size < self._least:
            raise Refused("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", 400)
        checks.finish({})

    def checksums(self) -> Mapping[str, str]:
        """Verified checksums by algorithm, base64."""
        return self._checks.values() if self._checks is not None else {}

    # -- who sent it ---------------------------------------------------------------------------------------------------

    def presented(self) -> Presented | None:
        """The credentials that signed the policy, unverified; None for a form without a policy."""
        fields = self.fields
        if "policy" not in fields:
            return None
        token = fields.get("x-amz-security-token")
        if "awsaccesskeyid" in fields:
            if "signature" not in fields:
                raise _refused("Bucket POST must contain a field named 'Signature'.")
            return Presented(
                fields["awsaccesskeyid"], "", "", "s3", (), fields["signature"], "header", token, 0, "", None, "",
            )  # fmt: skip
        for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"):
            if name not in fields:
                raise _refused(f"Bucket POST must contain a field named '{name}'.")
        parts = fields["x-amz-credential"].split("/")
        if fields["x-amz-algorithm"] != _ALGORITHM or len(parts) != 5 or parts[3:] != ["s3", "aws4_request"]:
            raise _refused("The credential or the algorithm of the form is not one of Signature Version 4 for s3.")
        if not _DATE.fullmatch(fields["x-amz-date"]) or not fields["x-amz-date"].startswith(parts[1]):
            raise _refused("x-amz-date does not have the form and the day that the credential says.")
        return Presented(
            parts[0], parts[1], parts[2], "s3", (), fields["x-amz-signature"], "header", token, 0, "", None, "",
        )  # fmt: skip

    def verify(self, presented: Presented, secret: str) -> None:
        """Raises SignatureDoesNotMatch unless the policy was signed with the secret."""
        text = self.fields["policy"].encode()
        if presented.date:
            key = sigv4.signing_key(presented, secret)
            wanted = hmac.digest(key, text, "sha256").hex()
        else:
            wanted = base64.b64encode(hmac.digest(secret.encode(), text, "sha1")).decode()
        if not hmac.compare_digest(wanted.encode(), presented.signature.encode()):
            raise Refused(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your key and signing "
                "method.",
                403,
            )

    # -- what the policy permits -----------------------------------------------------------------------------------------

    def check(self, bucket: str) -> None:
        """Raises Refused unless the policy is good and permits every field; takes its range of sizes over."""
        try:
            policy = json.loads(base64.b64decode(self.fields["policy"], validate=True))
        except (binascii.Error, ValueError, RecursionError):
            policy = None
        if not isinstance(policy, dict):
            raise _refused("Invalid Policy: Invalid JSON.", "InvalidPolicyDocument")
        self._expired(policy.get("expiration"))
        conditions = policy.get("conditions")
        if not isinstance(conditions, list):
            raise _refused("Invalid Policy: Invalid JSON: 'conditions' is a list.", "InvalidPolicyDocument")
        values = {**self.fields, "bucket": bucket, "key": self.key}
        named = {"bucket"}
        for condition in conditions:
            named |= self._holds(condition, values)
        extra = [
            name for name in self.fields
            if name not in named and name not in _UNNAMED and not name.startswith("x-ignore-")
        ]  # fmt: skip
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")

    def _expired(self, text: object) -> None:
        try:
            moment = datetime.datetime.fromisoformat(str(text))
        except ValueError:
            moment = None
        if not isinstance(text, str) or moment is None or moment.tzinfo is None:
            raise _refused("Invalid Policy: Invalid 'expiration' value.", "InvalidPolicyDocument")
        if moment.timestamp() * 1_000_000 <= self.received.at:
            raise _denied("Policy expired.")

    def _holds(self, condition: object, values: Mapping[str, str]) -> set[str]:
        """The fields that a condition names; raises Refused if it does not hold."""
        if isinstance(condition, dict):
            if not condition or not all(isinstance(one, str) for one in condition.values()):
                raise _refused("Invalid Policy: Invalid Simple-Condition.", "InvalidPolicyDocument")
            for name, wanted in condition.items():
                if values.get(name.lower()) != wanted:
                    raise _denied(f'Policy Condition failed: ["eq", "${name}", "{wanted}"]')
            return {name.lower() for name in condition}
        if not isinstance(condition, list) or len(condition) != 3 or not isinstance(condition[0], str):
            raise _refused("Invalid Policy: Invalid Condition.", "InvalidPolicyDocument")
        operator, first, second = condition[0].lower(), condition[1], condition[2]
        if operator == "content-length-range":
            self._range(first, second)
            return set()
        if operator not in ("eq", "starts-with") or not isinstance(first, str) or not isinstance(second, str):
            raise _refused("Invalid Policy: Invalid Condition.", "InvalidPolicyDocument")
        if not first.startswith("$"):
            raise _refused("Invalid Policy: a condition names a field as $name.", "InvalidPolicyDocument")
        name = first[1:].lower()
        value = values.get(name)
        if value is None or not (value == second if operator == "eq" else value.startswith(second)):
            raise _denied(f"Policy Condition failed: {json.dumps(condition)}")
        return {name}

    def _range(self, least: object, most: object) -> None:
        bounds = []
        for one in (least, most):
            text = str(one)
            if isinstance(one, bool) or not text.isascii() or not text.isdigit() or len(text) > 15:
                raise _refused("Invalid Policy: Invalid content-length-range.", "InvalidPolicyDocument")
            bounds.append(int(text))
        self._least, self._most = max(self._least, bounds[0]), min(self._most, bounds[1])

    # -- what it asks for ----------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """The object's key, with the file's name where the form says ``${filename}``; raises Refused."""
        key = self.fields.get("key")
        if not key:
            raise _refused(
                "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields."
            )
        name = re.split(r"[/\\]", self.file or "")[-1]
        return key.replace("${filename}", name)

    def headers(self) -> dict[str, str]:
        """The headers of the PutObject that the form means."""
        found = {
            name: value
            for name, value in self.fields.items()
            if name in _PASSED or (name.startswith("x-amz-") and name not in _SIGNING)
        }
        if "acl" in self.fields:
            found["x-amz-acl"] = self.fields["acl"]
        if "tagging" in self.fields:
            found["x-amz-tagging"] = _tagging(self.fields["tagging"])
        return found

    def answer(self, output: Mapping[str, Any], place: str, bucket: str) -> Answer:
        """What the form asked to be answered: 204, 200 or 201 with the object's address, or a redirect.

        place: where the object lies, an URL.
        """
        etag = str(output.get("ETag", ""))
        headers = [("etag", etag), ("location", place)]
        if output.get("VersionId"):
            headers.append(("x-amz-version-id", str(output["VersionId"])))
        redirect = self.fields.get("success_action_redirect") or self.fields.get("redirect") or ""
        if urlsplit(redirect).scheme in ("http", "https") and redirect.isascii() and redirect.isprintable():
            told = urlencode({"bucket": bucket, "key": self.key, "etag": etag})
            to = f"{redirect}{'&' if urlsplit(redirect).query else '?'}{told}"
            return Answer(303, [("etag", etag), ("location", to)], b"")
        status = self.fields.get("success_action_status")
        if status == "200":
            return Answer(200, headers, b"")
        if status != "201":
            return Answer(204, headers, b"")
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<PostResponse><Location>{escape(place)}</Location><Bucket>{escape(bucket)}</Bucket>"
            f"<Key>{escape(self.key)}</Key><ETag>{escape(etag)}</ETag></PostResponse>"
        )
        return Answer(201, [*headers, ("content-type", "application/xml")], body.encode())


_SIGNING: Final = frozenset(
    {"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"}
)


def _tagging(text: str) -> str:
    """The header of tags that an XML document of tags means; what is no such document is left to be refused as one."""
    pairs = re.findall(r"<Tag>\s*<Key>([^<]*)</Key>\s*<Value>([^<]*)</Value>\s*</Tag>", text)
    whole = re.sub(r"<Tag>\s*<Key>[^<]*</Key>\s*<Value>[^<]*</Value>\s*</Tag>|</?(Tagging|TagSet)>|\s", "", text)
    if whole:
        raise _refused(
            "The XML you provided was not well-formed or did not validate against our published schema", "MalformedXML"
        )
    return "&".join(f"{quote(_unescaped(key), safe='')}={quote(_unescaped(value), safe='')}" for key, value in pairs)


def _unescaped(text: str) -> str:
    for name, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")):
        text = text.replace(name, char)
    return text


class _Parts:
    """Sorts a form's parts: fields until the file, the file's bytes, and what follows it, which is not read."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._held = 0
        self._name = self._value = b""
        self._head: dict[bytes, bytes] = {}
        self._content = bytearray()
        self._field: str | None = None
        self._in_file = False

    def callbacks(self) -> MultipartCallbacks:
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._more("_name", data[start:end]),
            "on_header_value": lambda data, start, end: self._more("_value", data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _more(self, member: str, data: bytes) -> None:
        held = getattr(self, member) + data
        if len(held) > _MOST_PART_HEAD:
            raise _refused("A part of the form has a head that is too long.", "MaxPostPreDataLengthExceeded")
        setattr(self, member, held)

    def _begin(self) -> None:
        self._head = {}
        self._content = bytearray()
        self._field, self._in_file = None, False

    def _header(self) -> None:
        self._head[self._name.lower()] = self._value
        self._name = self._value = b""
        if len(self._head) > 16:
            raise _refused("A part of the form has a head that is too long.", "MaxPostPreDataLengthExceeded")

    def _headers(self) -> None:
        if self._form.file is not None:
            return
        _, options = parse_options_header(self._head.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace").lower()
        if name == "file":
            self._in_file = True
            self._form.file = options.get(b"filename", b"").decode("utf-8", "replace")
        else:
            self._field = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._form._ready.append(bytes(data[start:end]))
            return
        if self._field is None:
            return
        self._held += end - start
        if self._held > _MOST_FORM_BYTES:
            raise _refused(
                "Your POST request fields preceding the upload file were too large.", "MaxPostPreDataLengthExceeded"
            )
        self._content += data[start:end]

    def _end(self) -> None:
        if self._field:
            if self._field in self._form.fields:
                raise _refused(f"The field {self._field[:100]} stands more than once in the form.")
            try:
                self._form.fields[self._field] = self._content.decode()
            except UnicodeDecodeError:
                raise _refused(f"The field {self._field[:100]} is not UTF-8.") from None
        self._field, self._in_file = None, False
