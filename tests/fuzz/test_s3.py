"""Hostile requests to S3 over raw sockets: names, queries, ranges, bodies, framing, checksums, headers. Every one gets an
answer of HTTP, and none an internal error. `FUZZ_INPUTS` says how many (`make fuzz`: ten thousand), `FUZZ_SEED` which.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import random
import re
import socket
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest

from tests.platform import REGION, Account, Keys, Running

INPUTS = int(os.environ.get("FUZZ_INPUTS", "300"))
SEED = int(os.environ.get("FUZZ_SEED", "20261125"))
SUBRESOURCES = (
    "acl", "attributes", "cors", "delete", "encryption", "legal-hold", "lifecycle", "location", "logging", "metrics",
    "notification", "object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "retention",
    "tagging", "torrent", "uploads", "versioning", "versions", "website", "list-type=2", "partNumber=1", "uploadId=x",
)  # fmt: skip
ROOTS = (
    "LifecycleConfiguration", "NotificationConfiguration", "VersioningConfiguration", "Tagging", "Delete",
    "CompleteMultipartUpload", "CreateBucketConfiguration", "ServerSideEncryptionConfiguration", "OwnershipControls",
    "PublicAccessBlockConfiguration", "ObjectLockConfiguration", "Retention", "LegalHold", "AccessControlPolicy",
)  # fmt: skip
ELEMENTS = (
    "Rule", "ID", "Status", "Filter", "Prefix", "Tag", "Key", "Value", "And", "Expiration", "Days", "Date", "TagSet",
    "ObjectSizeGreaterThan", "NoncurrentVersionExpiration", "NoncurrentDays", "NewerNoncurrentVersions", "Object",
    "VersionId", "Quiet", "Part", "PartNumber", "ETag", "ChecksumCRC32", "QueueConfiguration", "Queue", "Event", "S3Key",
    "FilterRule", "Name", "EventBridgeConfiguration", "LocationConstraint", "Mode", "RetainUntilDate", "Size",
    "ApplyServerSideEncryptionByDefault", "SSEAlgorithm", "ExpiredObjectDeleteMarker", "DaysAfterInitiation", "Grant",
    "AbortIncompleteMultipartUpload", "ObjectOwnership", "BlockPublicAcls", "LastModifiedTime", "Tags", "Bucket",
)  # fmt: skip
TEXTS = (
    "", "0", "-1", "1", "99999999999999999999999999", "1e309", "NaN", "true", "TRUE", "Enabled", "a", "x" * 300,
    "2026-01-01T00:00:00Z", "0000-00-00", "9999-12-31T23:59:59Z", "275760-09-13T00:00:01Z", "null", "*", "é", "\U0001f600",
    "&#0;", "&#xD800;", "&amp;", "&unknown;", "]]>", "bytes=0-1", "<![CDATA[a]]>", "\x0b", "arn:aws:sqs:us-east-1:1:q",
    "s3:ObjectCreated:*", "AES256", "aws:kms", "'\"", "..", "%00", "prefix", "COMPLIANCE",
)  # fmt: skip
HEADERS = (
    "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "content-md5", "content-type",
    "content-encoding", "content-length", "transfer-encoding", "expect", "x-amz-copy-source", "x-amz-copy-source-range",
    "x-amz-copy-source-if-match", "x-amz-metadata-directive", "x-amz-tagging", "x-amz-tagging-directive", "x-amz-acl",
    "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context", "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key", "x-amz-server-side-encryption-customer-key-md5", "x-amz-checksum-crc32",
    "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme", "x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-trailer",
    "x-amz-sdk-checksum-algorithm", "x-amz-decoded-content-length", "x-amz-object-lock-mode", "x-amz-mp-object-size",
    "x-amz-object-lock-retain-until-date", "x-amz-meta-a", "x-amz-mfa", "x-amz-object-attributes", "x-amz-max-parts",
    "x-amz-expected-bucket-owner", "x-amz-bypass-governance-retention", "x-amz-if-match-size", "x-amz-request-payer",
    "x-amz-skip-destination-validation", "x-amz-write-offset-bytes", "x-amz-security-token", "host", "cache-control",
)  # fmt: skip
VALUES = (
    "", " ", "*", "0", "-1", "18446744073709551616", "bytes=0-", "bytes=-0", "bytes=5-1", "bytes=0-1,3-4", "bytes=a-b",
    "bytes=99999999999999999999-", "bytes=-99999999999999999999", '"', '"a', "W/\"x\"", "a,b", "%zz", "a=b&a=c", "=&=",
    "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:60 GMT", "yesterday", "AAAA", "AAAAAA==", "====", "identity",
    "COMPOSITE", "FULL_OBJECT", "SHA256", "CRC32", "XXHASH64", "x-amz-checksum-crc32", "aws-chunked", "chunked",
    "gzip, aws-chunked", "100-continue", "/nowhere/a", "nowhere", "/", "//", "arn:aws:s3:::a", "COPY", "REPLACE",
    "\xe9\xff", "\x7f", "aws:kms", "AES256", "GLACIER", "e30=", "eyJhIjogMX0=", "bm90IGpzb24=", "x" * 3000, "true", "1.5",
    "application/xml", "multipart/form-data; boundary=x", "multipart/form-data", "2030-01-01T00:00:00Z", "ETag,ObjectParts",
)  # fmt: skip


@dataclass
class Hostile:
    """One request as it is about to be sent. method, path and query as they stand on the wire."""

    method: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    payload: str = "UNSIGNED-PAYLOAD"


def signed(one: Hostile, host: str, keys: Keys) -> bytes:
    """The request on the wire, signed, so that what lies behind the signature is met (SigV4, without good manners)."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    held = {"host": host, "x-amz-content-sha256": one.payload, "x-amz-date": now}
    if keys.token:
        held["x-amz-security-token"] = keys.token
    own = [(name, value) for name, value in one.headers if name not in held]
    together = dict(held)
    for name, value in own:
        if name.startswith("x-amz-"):
            together[name] = f"{together[name]},{value.strip()}" if name in together else value.strip()
    names = ";".join(sorted(together))
    lines = "".join(f"{name}:{' '.join(together[name].split())}\n" for name in sorted(together))
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in one.query.split("&") if part))
    canonical = f"{one.method}\n{one.path}\n{query}\n{lines}\n{names}\n{one.payload}"
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}"
    key = f"AWS4{keys.secret}".encode()
    for part in (now[:8], REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    credential = f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    head = [f"{one.method} {one.path}{'?' + one.query if one.query else ''} HTTP/1.1", f"authorization: {credential}"]
    head += [f"{name}: {value}" for name, value in (*held.items(), *own)]
    if not any(name in ("content-length", "transfer-encoding") for name, _ in own):
        head.append(f"content-length: {len(one.body)}")
    return "\r\n".join([*head, "connection: close", "", ""]).encode("latin-1") + one.body


class Sender:
    """Makes hostile requests about a bucket that has an object and an upload."""

    def __init__(self, random: random.Random, bucket: str, upload: str) -> None:
        self.random = random
        self.bucket = bucket
        self.upload = upload

    def text(self) -> str:
        one = self.random
        kind = one.randrange(5)
        if kind == 0:
            return one.choice(TEXTS)
        if kind == 1:
            return "".join(
                chr(one.choice((one.randrange(1, 0x80), one.randrange(0x80, 0xD800)))) for _ in range(one.randrange(12))
            )
        if kind == 2:
            return str(one.randrange(-(2**70), 2**70))
        if kind == 3:
            return one.choice(("../", "a/", "%2e%2e/", "//", "\\", "?", "#", " ", "+")) * one.randrange(1, 40)
        return "k" * one.choice((1, 255, 256, 1023, 1024, 1025, 4000))

    def path(self) -> str:
        one = self.random
        kind = one.randrange(9)
        name = self.bucket if kind < 6 else quote(one.choice(TEXTS)[:80], safe="%")
        if kind in (0, 1):
            return f"/{name}"
        if kind == 2:
            return f"/{name}/a"
        if kind == 3:
            return "/" + name + "/" + "".join(f"%{one.randrange(256):02X}" for _ in range(one.randrange(1, 30)))
        if kind == 8:
            return one.choice(("/", "//", "/%", "/%2", "/%2F", "/a%zz", f"/{name}/%C0%80", f"/{name}//", f"/{name}/."))
        return f"/{name}/{quote(self.text(), safe=one.choice(('', '/', '/%')), errors='replace')}"

    def query(self) -> str:
        one = self.random
        parts = [one.choice(SUBRESOURCES)] if one.random() < 0.7 else []
        names = (
            "prefix", "delimiter", "max-keys", "marker", "continuation-token", "start-after", "encoding-type", "versionId",
            "key-marker", "version-id-marker", "upload-id-marker", "max-uploads", "uploadId", "partNumber", "max-parts",
            "part-number-marker", "response-content-type", "response-expires", "fetch-owner", "x-id", "list-type",
        )  # fmt: skip
        for _ in range(one.randrange(3)):
            name = one.choice(names)
            value = self.upload if name == "uploadId" and one.random() < 0.8 else quote(self.text(), safe="")
            parts.append(f"{name}={value}")
        if one.random() < 0.05:
            parts.append(one.choice(("%zz", "=", "&&", "a=%ff", "x" * 200, "a=b=c")))
        return "&".join(parts)

    def xml(self, depth: int = 0) -> str:
        one = self.random
        if depth > 4 or one.random() < 0.3:
            return one.choice(TEXTS) if one.random() < 0.8 else self.text()
        return "".join(
            f"<{name}>{self.xml(depth + 1)}</{name}>"
            for name in (one.choice(ELEMENTS) for _ in range(one.randrange(1, 4)))
        )

    def document(self) -> bytes:
        one = self.random
        root = one.choice(ROOTS)
        kind = one.randrange(12)
        if kind == 0:
            return one.randbytes(one.randrange(200))
        if kind == 1:
            return b"<" * one.randrange(1, 5000)
        if kind == 2:
            return (f"<{root}>" + "<a>" * 3000 + "</a>" * 3000 + f"</{root}>").encode()
        if kind == 3:
            return f'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><{root}>&c;</{root}>'.encode()
        if kind == 4:
            return (
                f'<?xml version="1.0" encoding="{one.choice(("utf-16", "utf-7", "cp037", "none"))}"?><{root}/>'.encode()
            )
        space = one.choice(("", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ' xmlns:x="y" x:a="b"'))
        whole = f"<{root}{space}>{self.xml()}</{root}>".encode("utf-8", "replace")
        return whole if kind < 11 else whole[: one.randrange(len(whole) + 1)]

    def headers(self) -> list[tuple[str, str]]:
        one = self.random
        found = []
        for _ in range(one.choice((0, 1, 1, 2, 4, 8))):
            name = one.choice(HEADERS)
            if (
                name in ("content-length", "transfer-encoding", "expect", "host", "x-amz-security-token")
                and one.random() < 0.7
            ):
                continue
            value = one.choice(VALUES) if one.random() < 0.8 else self.text()
            if name == "x-amz-copy-source" and one.random() < 0.5:
                value = f"/{self.bucket}/a{one.choice(('', '?versionId=null', '?versionId=', '?x', '%00', '%ff'))}"
            found.append((name, re.sub(r"[\r\n\0]", "", value).encode("utf-8", "replace").decode("latin-1")))
        return found

    def chunks(self) -> Hostile:
        """A body in aws-chunked framing that is wrong somewhere."""
        one = self.random
        data = one.randbytes(one.randrange(40))
        size = one.choice((f"{len(data):x}", "-1", "0x5", "ffffffffffffffff", "", "zz", f"{len(data) + 3:x}", "1" * 50))
        extension = one.choice(("", ";chunk-signature=" + "0" * 64, ";chunk-signature=", ";a=b", ";" * 500))
        last = one.choice(
            (
                "0\r\n\r\n",
                "0\r\n",
                "",
                "0;chunk-signature=00\r\n\r\n",
                "0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n",
                "0\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:00\r\n\r\n",
                "\r\n" * 50,
            )
        )
        body = f"{size}{extension}\r\n".encode() + data + one.choice((b"\r\n", b"\n", b"")) + last.encode()
        kind = one.choice(
            (
                "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "STREAMING-X",
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            )
        )
        headers = [
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", one.choice((str(len(data)), "", "-5", "9" * 30, "x"))),
        ]
        if one.random() < 0.6:
            headers.append(("x-amz-trailer", one.choice(("x-amz-checksum-crc32", "x-amz-checksum-md5", "a,b", ""))))
        return Hostile(
            "PUT",
            f"/{self.bucket}/chunked",
            one.choice(("", f"partNumber=1&uploadId={self.upload}")),
            headers,
            body,
            kind,
        )

    def form(self) -> Hostile:
        """A browser's upload that is wrong somewhere."""
        one = self.random
        policy = base64.b64encode(one.choice((b"{}", b"[]", b'{"expiration": 1}', b"\xff", b"", b"null"))).decode()
        fields = {
            "key": self.text(),
            "policy": policy,
            "x-amz-algorithm": "AWS4-HMAC-SHA256",
            "x-amz-date": one.choice(VALUES),
            "x-amz-credential": one.choice(("a/b/c/d/e", "", "x")),
            "x-amz-signature": one.choice(VALUES),
            "tagging": "<a>",
        }
        body = b""
        for name in one.sample(list(fields), one.randrange(len(fields) + 1)):
            body += f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n'.encode(
                "utf-8", "replace"
            )
        body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc\r\n--x--\r\n'
        cut = one.randrange(len(body) + 1) if one.random() < 0.3 else len(body)
        return Hostile("POST", f"/{self.bucket}", "", [("content-type", "multipart/form-data; boundary=x")], body[:cut])

    def anything(self) -> Hostile:
        """The next request."""
        one = self.random
        kind = one.randrange(10)
        if kind == 0:
            return self.chunks()
        if kind == 1:
            return self.form()
        chance = one.choice(("OPTIONS", "PATCH", "TRACE", "get", "X"))
        method = one.choice((*("GET", "PUT") * 4, "POST", "POST", "DELETE", "HEAD", "HEAD", chance))
        body = self.document() if method in ("PUT", "POST") or one.random() < 0.05 else b""
        headers = self.headers()
        if body and one.random() < 0.7:
            headers.append(
                ("content-md5", base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode())
            )
        payload = one.choice(("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD", "0" * 64, ""))
        return Hostile(method, self.path(), self.query(), headers, body, payload or "UNSIGNED-PAYLOAD")


def answered(address: tuple[str, int], request: bytes) -> bytes:
    """What comes back until the connection is closed."""
    with socket.create_connection(address, timeout=60) as wire:
        pieces = []
        try:
            wire.sendall(request)
            wire.settimeout(0.5)
            while True:
                try:
                    piece = wire.recv(65536)
                except TimeoutError:
                    if wire.gettimeout() != 0.5:
                        raise
                    wire.shutdown(socket.SHUT_WR)  # it waits for more than there is
                    wire.settimeout(60)
                    continue
                if not piece:
                    break
                pieces.append(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was answered, or cut off, before all was sent
        return b"".join(pieces)


def mangled(one: random.Random, request: bytes) -> bytes:
    """Some bytes changed, so that even HTTP and the signature are wrong."""
    data = bytearray(request)
    for _ in range(one.randrange(1, 8)):
        data[one.randrange(len(data))] = one.randrange(256)
    return bytes(data[: one.randrange(len(data))] if one.random() < 0.2 else data)


def test_no_input_is_an_internal_error(platform: Running, account: Account) -> None:
    client = account.client("s3")
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    place = urlsplit(platform.http)
    address = (str(place.hostname), int(place.port or 0))
    keys = account.keys
    seen: dict[int, int] = {}
    for number in range(INPUTS):
        if number % 20 == 0:  # what there is to attack, which attacks may have removed
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="a", Body=b"0123456789")
            upload = client.create_multipart_upload(Bucket=bucket, Key="chunked")["UploadId"]
        chance = random.Random(f"{SEED}/{number}")
        request = signed(Sender(chance, bucket, upload).anything(), place.netloc, keys)
        if chance.random() < 0.1:
            request = mangled(chance, request)
        answer = answered(address, request)
        told = f"input {number} of seed {SEED}: {request[:3000]!r} -> {answer[:600]!r}"
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
        if not answer:
            seen[0] = seen.get(0, 0) + 1
            continue
        assert status is not None, told
        assert int(status[1]) < 500 or int(status[1]) == 501, told
        assert b"InternalFailure" not in answer and b"InternalError" not in answer, told
        seen[int(status[1])] = seen.get(int(status[1]), 0) + 1
    # The requests got behind the signature, and were let in as well as refused; hardly any was cut off without a word.
    assert seen.get(200, 0) > INPUTS // 50, seen
    assert seen.get(400, 0) > INPUTS // 10, seen
    assert seen.get(403, 0) < INPUTS // 2, seen
    assert seen.get(0, 0) < INPUTS // 10, seen
    print(seen)


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100, b"PUT /a HTTP/1.1\r\nhost: \r\n\r\n", b"GET  HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_answered_or_cut_off(platform: Running, head: bytes) -> None:
    place = urlsplit(platform.http)
    answer = answered((str(place.hostname), int(place.port or 0)), head)
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
