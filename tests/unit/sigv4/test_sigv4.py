"""Signatures as botocore makes them are read and verified, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import io
import time
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide import sigv4
from bastide.domain import MICROS, Refused

KEYS = botocore.credentials.Credentials("AKIAEXAMPLE", "secret/of+forty", None)
SESSION = botocore.credentials.Credentials("ASIAEXAMPLE", "another", "a/token+here==")

Parts = tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]


def now() -> int:
    return int(time.time() * MICROS)


def wire(request: Any) -> Parts:
    prepared = request.prepare()
    split = urlsplit(prepared.url)
    headers = [
        (k.lower().encode(), (v if isinstance(v, bytes) else v.encode("latin-1"))) for k, v in prepared.headers.items()
    ]
    headers.append((b"host", split.netloc.encode()))
    return prepared.method, split.path.encode() or b"/", split.query.encode(), headers


def check(parts: Parts, secret: str, payload: str, at: int | None = None) -> sigv4.Presented:
    presented = sigv4.read(*parts)
    assert presented is not None
    sigv4.verify(presented, secret, *parts, payload, at if at is not None else now())
    return presented


text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12
)


@given(key=text, body=st.binary(max_size=50), session=st.booleans(), params=st.dictionaries(text, text, max_size=4))
def test_s3_as_botocore_signs_it(key: str, body: bytes, session: bool, params: dict[str, str]) -> None:
    from botocore.utils import percent_encode, percent_encode_sequence

    url = (
        "http://localhost:4566/bucket/"
        + percent_encode(key, safe="/~")
        + ("?" + percent_encode_sequence(params) if params else "")
    )
    request = botocore.awsrequest.AWSRequest("PUT", url, data=body, headers={"x-amz-meta-a": "  two   spaces "})
    keys = SESSION if session else KEYS
    botocore.auth.S3SigV4Auth(keys, "s3", "eu-west-1").add_auth(request)
    parts = wire(request)
    claimed = request.headers["X-Amz-Content-SHA256"]
    presented = check(parts, keys.secret_key, claimed)
    assert (presented.service, presented.region, presented.session_token) == ("s3", "eu-west-1", keys.token)
    with pytest.raises(Refused) as refused:
        check(parts, keys.secret_key + "x", claimed)
    assert refused.value.code == "SignatureDoesNotMatch"


@given(path=text, body=st.binary(max_size=50))
def test_other_services_as_botocore_signs_them(path: str, body: bytes) -> None:
    from botocore.utils import percent_encode

    request = botocore.awsrequest.AWSRequest(
        "POST", "http://localhost:4566/" + percent_encode(path, safe="~"), data=body
    )
    botocore.auth.SigV4Auth(KEYS, "sagemaker", "us-east-1").add_auth(request)
    check(wire(request), KEYS.secret_key, hashlib.sha256(body).hexdigest())
    with pytest.raises(Refused):
        check(wire(request), KEYS.secret_key, hashlib.sha256(body + b"x").hexdigest())


@given(key=text, seconds=st.integers(1, 604800))
def test_presigned(key: str, seconds: int) -> None:
    from botocore.utils import percent_encode

    request = botocore.awsrequest.AWSRequest("GET", "http://localhost/b/" + percent_encode(key, safe="/~"))
    botocore.auth.S3SigV4QueryAuth(SESSION, "s3", "us-east-1", expires=seconds).add_auth(request)
    parts = wire(request)
    presented = check(parts, SESSION.secret_key, "UNSIGNED-PAYLOAD")
    assert presented.form == "query" and presented.expires == seconds
    with pytest.raises(Refused) as refused:
        check(parts, SESSION.secret_key, "UNSIGNED-PAYLOAD", presented.signed_at + (seconds + 1) * MICROS)
    assert refused.value.message == "Request has expired"


def signed(service: str = "sagemaker", **headers: str) -> Parts:
    request = botocore.awsrequest.AWSRequest("POST", "http://localhost/", data=b"", headers=headers)
    botocore.auth.SigV4Auth(KEYS, service, "us-east-1").add_auth(request)
    return wire(request)


@pytest.mark.parametrize("minutes", [-16, 16])
def test_the_clock_window(minutes: int) -> None:
    parts = signed()
    with pytest.raises(Refused, match=r"expired|not yet current"):
        check(parts, KEYS.secret_key, hashlib.sha256(b"").hexdigest(), now() + minutes * 60 * MICROS)
    check(parts, KEYS.secret_key, hashlib.sha256(b"").hexdigest(), now() + 14 * 60 * MICROS)


def test_the_published_example() -> None:
    """Amazon S3 API Reference, "Example: GET Object": byte for byte."""
    headers = [
        (b"host", b"examplebucket.s3.amazonaws.com"),
        (b"range", b"bytes=0-9"),
        (b"x-amz-content-sha256", hashlib.sha256(b"").hexdigest().encode()),
        (b"x-amz-date", b"20130524T000000Z"),
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            b"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            b"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
    ]
    parts: Parts = ("GET", b"/test.txt", b"", headers)
    check(parts, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", hashlib.sha256(b"").hexdigest(), 1369353600 * MICROS)


def change(parts: Parts, name: bytes, value: bytes | None) -> Parts:
    headers = [(k, v) for k, v in parts[3] if k != name]
    return (*parts[:3], headers + ([(name, value)] if value is not None else []))


def test_what_is_not_whole_is_refused() -> None:
    parts = signed()
    authorization = dict(parts[3])[b"authorization"]
    cases = [
        (change(parts, b"x-amz-date", None), "IncompleteSignature"),
        (change(parts, b"x-amz-date", b"20260101T000000Z"), "IncompleteSignature"),
        (change(parts, b"x-amz-date", b"yesterday"), "IncompleteSignature"),
        (change(parts, b"authorization", b"Basic abc"), "IncompleteSignature"),
        (
            change(parts, b"authorization", authorization.replace(b"aws4_request", b"aws5_request")),
            "IncompleteSignature",
        ),
        (
            change(parts, b"authorization", authorization.replace(b"SignedHeaders=host;", b"SignedHeaders=")),
            "IncompleteSignature",
        ),
        (change(parts, b"x-amz-target", b"SageMaker.X"), "AccessDenied"),
        ((*parts[:3], [*parts[3], (b"authorization", authorization)]), "IncompleteSignature"),
        ((parts[0], parts[1], b"X-Amz-Signature=" + b"0" * 64, parts[3]), "InvalidArgument"),
    ]
    for case, code in cases:
        with pytest.raises(Refused) as refused:
            sigv4.read(*case)
        assert refused.value.code == code
    assert sigv4.read("GET", b"/", b"", [(b"host", b"x")]) is None


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_any_bytes_are_refused_or_nothing(header: bytes, query: bytes) -> None:
    for headers, raw in (([(b"authorization", header)], b""), ([], b"X-Amz-Signature=" + query), ([], query)):
        try:
            sigv4.read("GET", b"/", raw, headers)
        except Refused as refused:
            assert refused.status in (400, 403)


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_the_published_chunked_example() -> None:
    """Amazon S3 API Reference, "Example of chunked upload": seed and chunk signatures, byte for byte."""
    headers = [
        (b"host", b"s3.amazonaws.com"),
        (b"x-amz-date", b"20130524T000000Z"),
        (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        (b"content-encoding", b"aws-chunked"),
        (b"x-amz-decoded-content-length", b"66560"),
        (b"content-length", b"66824"),
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            b"SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
            b"x-amz-decoded-content-length;x-amz-storage-class,"
            b"Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        ),
    ]
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    parts: Parts = ("PUT", b"/examplebucket/chunkObject.txt", b"", headers)
    presented = check(parts, secret, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", 1369353600 * MICROS)
    named = {k.decode(): v.decode() for k, v in headers}
    signatures = (
        b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    )
    body = b"".join(
        b"%x;chunk-signature=%s\r\n%s\r\n" % (size, signature, b"a" * size)
        for size, signature in zip((65536, 1024, 0), signatures, strict=True)
    )
    for step in (1, 7, 4096, len(body)):
        decoder = sigv4.Chunked(presented, secret, named)
        pieces = [piece for at in range(0, len(body), step) for piece in decoder.feed(body[at : at + step])]
        assert b"".join(pieces) == b"a" * 66560
        assert decoder.finish() == {}
        if step == 1:
            break
    spoiled = body.replace(b"a" * 100, b"a" * 99 + b"b", 1)
    with pytest.raises(Refused) as refused:
        sigv4.Chunked(presented, secret, named).feed(spoiled)
    assert refused.value.code == "SignatureDoesNotMatch"
    with pytest.raises(Refused) as refused:
        short = sigv4.Chunked(presented, secret, named)
        short.feed(body[:-90])
        short.finish()
    assert refused.value.code == "IncompleteBody"


@given(data=st.binary(max_size=300).map(lambda some: some * 90), step=st.integers(1, 7000))
def test_unsigned_chunks_with_a_trailing_checksum_as_botocore_frames_them(data: bytes, step: int) -> None:
    from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum

    body = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=8192
    ).read()
    named = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-trailer": "x-amz-checksum-crc32"}
    decoder, sums = sigv4.Chunked(None, "", named), sigv4.Checksums(named)
    found = b""
    for at in range(0, len(body), step):
        for piece in decoder.feed(body[at : at + step]):
            sums.update(piece)
            found += piece
    assert found == data
    sums.finish(decoder.finish())
    assert set(sums.values()) == {"crc32"}
    spoiled = sigv4.Checksums(named)
    spoiled.update(data + b"x")
    with pytest.raises(Refused) as refused:
        spoiled.finish({"x-amz-checksum-crc32": sums.values()["crc32"]})
    assert refused.value.code == "BadDigest"


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"])
def test_every_checksum(algorithm: str) -> None:
    # The check values that the catalogues of CRCs give for "123456789"; the hashes from hashlib.
    known = {"crc32": 0xCBF43926, "crc32c": 0xE3069283, "crc64nvme": 0xAE8B14860A799888}
    size = 8 if algorithm == "crc64nvme" else 4
    raw = (
        known[algorithm].to_bytes(size, "big") if algorithm in known else hashlib.new(algorithm, b"123456789").digest()
    )
    value = base64.b64encode(raw).decode()
    sums = sigv4.Checksums({f"x-amz-checksum-{algorithm}": value})
    sums.update(b"12345")
    sums.update(b"6789")
    sums.finish({})
    assert sums.values() == {algorithm: value}
    other = sigv4.Checksums({f"x-amz-checksum-{algorithm}": value})
    other.update(b"12345678")
    with pytest.raises(Refused, match="did not match"):
        other.finish({})


# -- more of what clients send -----------------------------------------------------------------------------------------

EMPTY = hashlib.sha256(b"").hexdigest()
EXAMPLE_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def refusal(call: Any, *arguments: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        call(*arguments)
    return refused.value


def test_the_published_chunked_example_with_a_trailer() -> None:
    """Amazon S3 API Reference, "Transferring Payload ... Including Trailing Headers", its example byte for byte."""
    headers = [
        (b"host", b"s3.amazonaws.com"),
        (b"x-amz-date", b"20130524T000000Z"),
        (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        (b"content-encoding", b"aws-chunked"),
        (b"x-amz-decoded-content-length", b"66560"),
        (b"x-amz-trailer", b"x-amz-checksum-crc32c"),
        (b"content-length", b"66824"),
        (
            b"authorization",
            b"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            b"SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;"
            b"x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer,"
            b"Signature=106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        ),
    ]
    parts: Parts = ("PUT", b"/examplebucket/chunkObject.txt", b"", headers)
    presented = check(parts, EXAMPLE_SECRET, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", 1369353600 * MICROS)
    named = {k.decode(): v.decode() for k, v in headers}
    signatures = (
        b"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    )
    chunks = [
        b"%x;chunk-signature=%s\r\n%s" % (size, signature, b"a" * size + b"\r\n" if size else b"")
        for size, signature in zip((65536, 1024, 0), signatures, strict=True)
    ]
    signed = b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    for end in (b"\r\n", b"\n\r\n"):
        body = b"".join(chunks) + b"x-amz-checksum-crc32c:sOO8/Q==" + end + signed
        decoder, sums = sigv4.Chunked(presented, EXAMPLE_SECRET, named), sigv4.Checksums(named)
        for piece in decoder.feed(body):
            sums.update(piece)
        sums.finish(decoder.finish())
        assert sums.values() == {"crc32c": "sOO8/Q=="}

    def decode(body: bytes) -> None:
        decoder = sigv4.Chunked(presented, EXAMPLE_SECRET, named)
        decoder.feed(body)
        decoder.finish()

    assert refusal(decode, body.replace(b"sOO8", b"sOO9")).code == "SignatureDoesNotMatch"
    assert refusal(decode, body.replace(b"d81f82", b"d81f83")).code == "SignatureDoesNotMatch"
    # A signature of bytes that are no text at all is wrong like any other, and no fault of ours.
    assert refusal(decode, body.replace(b"d81f82", b"\xe9\xff\x00")).code == "SignatureDoesNotMatch"
    assert refusal(decode, b"".join(chunks) + b"x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n").code == "SignatureDoesNotMatch"
    assert refusal(decode, b"".join(chunks) + signed).code == "MalformedTrailerError"
    assert refusal(decode, body[:-4] + b"\r\nx-amz-meta-a:b\r\n\r\n").code == "MalformedTrailerError"


@given(
    sizes=st.lists(st.integers(8192, 20_000), max_size=4),
    last=st.integers(1, 20_000),
    step=st.integers(1, 30_000),
    cut=st.integers(1, 200),
)
def test_unsigned_chunks_pass_as_they_come(sizes: list[int], last: int, step: int, cut: int) -> None:
    sizes = [*sizes, last]
    data = bytes(number % 251 for number in range(sum(sizes)))
    body, at = b"", 0
    for size in sizes:
        body += b"%X;an=extension\r\n%s\r\n" % (size, data[at : at + size])
        at += size
    body += b"0\r\nX-Amz-Checksum-Sha256: %s\r\n\r\n" % base64.b64encode(hashlib.sha256(data).digest())
    named = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-trailer": "x-amz-checksum-sha256",
        "x-amz-decoded-content-length": str(len(data)),
    }

    def decode(what: bytes, named: dict[str, str] = named) -> bytes:
        decoder, sums, found = sigv4.Chunked(None, "", named), sigv4.Checksums(named), b""
        for at in range(0, len(what), step):
            for piece in decoder.feed(what[at : at + step]):
                sums.update(piece)
                found += piece
        sums.finish(decoder.finish())
        return found

    assert decode(body) == data
    for off in (1, -1):
        wrong = named | {"x-amz-decoded-content-length": str(len(data) + off)}
        assert refusal(decode, body, wrong).code == "IncompleteBody"
    assert refusal(decode, body[: -min(cut, len(body)) - 2]).status == 400
    assert refusal(decode, body.replace(b"\r\n0\r\n", b"x\n0\r\n")).status == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", "InvalidChunkSizeError"),
        (b"-5\r\nhello\r\n0\r\n\r\n", "IncompleteBody"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", "IncompleteBody"),
        (b"5\nhello\n0\n\n", "IncompleteBody"),
        (b"f" * 2000, "IncompleteBody"),
        (b"ffffffffffff\r\n", "InvalidChunkSizeError"),
        (b"0\r\n", "IncompleteBody"),
        (b"0\r\n" + b"a" * 20_000, "MalformedTrailerError"),
        (b"0\r\nx-amz-meta-a: b\r\n\r\n", "MalformedTrailerError"),
        (b"0\r\nnothing\r\n\r\n", "MalformedTrailerError"),
        (b"", "IncompleteBody"),
    ],
)
def test_framing_that_is_wrong(body: bytes, code: str) -> None:
    def decode() -> None:
        decoder = sigv4.Chunked(None, "", {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"})
        decoder.feed(body)
        decoder.finish()

    assert refusal(decode).code == code


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_no_body_or_a_refusal(body: bytes, step: int) -> None:
    presented = sigv4.read(*signed_s3())
    for form in ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
        decoder = sigv4.Chunked(presented, "secret", {"x-amz-content-sha256": form})
        try:
            for at in range(0, len(body), step):
                decoder.feed(body[at : at + step])
            decoder.finish()
        except Refused as refused:
            assert refused.status in (400, 403)


def signed_s3() -> Parts:
    request = botocore.awsrequest.AWSRequest("PUT", "http://localhost/b/k", data=b"")
    botocore.auth.S3SigV4Auth(KEYS, "s3", "us-east-1").add_auth(request)
    return wire(request)


class Piped:
    """A stream that cannot go back."""

    def __init__(self, source: io.BytesIO) -> None:
        self.read = source.read


class Answer(io.BytesIO):
    """An empty body, in the shape that botocore takes from urllib3."""

    def stream(self) -> list[bytes]:
        return [self.read()]


def sent(operation: str, body: bytes, **arguments: Any) -> tuple[Parts, bytes]:
    """What boto3 would have put on the wire."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3", region_name="eu-west-1", endpoint_url="https://localhost:4566", aws_access_key_id=KEYS.access_key,
        aws_secret_access_key=KEYS.secret_key, config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
    )  # fmt: skip
    caught: list[tuple[Parts, bytes]] = []

    def catch(request: Any, **_: Any) -> Any:
        split = urlsplit(request.url)
        named = {k.lower().encode(): v if isinstance(v, bytes) else v.encode() for k, v in request.headers.items()}
        headers = list((named | {b"host": split.netloc.encode()}).items())
        raw = request.body.read() if hasattr(request.body, "read") else (request.body or b"")
        caught.append(((request.method, split.path.encode(), split.query.encode(), headers), raw))
        return botocore.awsrequest.AWSResponse(request.url, 200, {}, Answer())

    client.meta.events.register("before-send.s3", catch)
    getattr(client, operation)(**arguments)
    return caught[0]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("seekable", [True, False])
def test_uploads_as_boto3_sends_them(algorithm: str, seekable: bool) -> None:
    data = b"0123456789" * 250_000
    source: Any = io.BytesIO(data)
    if not seekable:
        source = Piped(source)
    parts, body = sent(
        "put_object", data, Bucket="b", Key="a key/ü+%20//.", Body=source, ChecksumAlgorithm=algorithm,
        Metadata={"told": "a,  b"}, ContentLength=len(data),
    )  # fmt: skip
    named = {k.decode(): v.decode() for k, v in parts[3]}
    assert named["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    presented = sigv4.read(*parts)
    assert presented is not None
    wanted = sigv4.payload_hash_wanted(presented, "s3")
    assert wanted == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    sigv4.verify(presented, KEYS.secret_key, *parts, wanted, now())
    decoder, sums, found = sigv4.Chunked(presented, KEYS.secret_key, named), sigv4.Checksums(named), []
    for at in range(0, len(body), 65536):
        for piece in decoder.feed(body[at : at + 65536]):
            sums.update(piece)
            found.append(piece)
    assert b"".join(found) == data
    sums.finish(decoder.finish())
    assert list(sums.values()) == [algorithm.lower()]


def test_presigned_urls_as_boto3_makes_them() -> None:
    import boto3
    from botocore.config import Config

    given = {"aws_access_key_id": "ASIA", "aws_secret_access_key": "s", "aws_session_token": "t/o+k=="}
    for service, operation, arguments in (
        ("s3", "get_object", {"Bucket": "b", "Key": "ü/ +", "ResponseContentType": "a b/c+d", "VersionId": "1"}),
        ("sts", "get_caller_identity", {}),
    ):
        version = "v4" if service == "sts" else "s3v4"
        client = boto3.client(service, "eu-west-1", config=Config(signature_version=version), **given)
        split = urlsplit(client.generate_presigned_url(operation, arguments, ExpiresIn=60, HttpMethod="GET"))
        parts: Parts = ("GET", split.path.encode(), split.query.encode(), [(b"host", split.netloc.encode())])
        payload = "UNSIGNED-PAYLOAD" if service == "s3" else EMPTY
        presented = check(parts, "s", payload)
        assert presented.session_token == "t/o+k==" and presented.form == "query"
        assert sigv4.payload_hash_wanted(presented, service) == ("UNSIGNED-PAYLOAD" if service == "s3" else None)
        check(parts, "s", payload, presented.signed_at + 60 * MICROS)
        late = refusal(check, parts, "s", payload, presented.signed_at + 60 * MICROS + 1)
        early = refusal(check, parts, "s", payload, presented.signed_at - 15 * 60 * MICROS - 1)
        if service == "s3":
            assert (late.code, late.message) == ("AccessDenied", "Request has expired")
            assert (early.code, early.message) == ("AccessDenied", "Request is not yet valid")
        else:
            assert late.message.startswith(f"Signature expired: {presented.stamp} is now earlier than ")
            assert early.message.startswith(f"Signature not yet current: {presented.stamp} is still later than ")
        for change in (parts[2] + b"&extra=1", parts[2].replace(b"Expires=60", b"Expires=61")):
            assert refusal(check, (parts[0], parts[1], change, parts[3]), "s", payload).code == "SignatureDoesNotMatch"
        # The same parameters by another name, or in the value of one, are not a signature.
        assert sigv4.read("GET", b"/", b"prefix=X-Amz-Signature=1&yX-Amz-Credential=2", []) is None
        for change, code in (
            (parts[2] + b"&X-Amz-Date=20260101T000000Z", "AuthorizationQueryParametersError"),
            (parts[2].replace(b"Expires=60", b"Expires=604801"), "AuthorizationQueryParametersError"),
            (parts[2].replace(b"Expires=60", b"Expires=0"), "AuthorizationQueryParametersError"),
            (parts[2].replace(b"Expires=60", b"Expires=-1"), "AuthorizationQueryParametersError"),
            (parts[2].replace(b"X-Amz-Expires=60", b""), "AuthorizationQueryParametersError"),
            (parts[2].replace(b"SHA256", b"SHA512"), "AuthorizationQueryParametersError"),
            (parts[2].replace(b"aws4_request", b"aws5_request"), "AuthorizationQueryParametersError"),
        ):
            assert refusal(sigv4.read, parts[0], parts[1], change, parts[3]).code == code
        assert refusal(sigv4.read, *parts[:3], [*parts[3], (b"x-amz-acl", b"public-read")]).code == "AccessDenied"


def test_s3_wants_to_be_told_of_the_body_and_words_it_its_own_way() -> None:
    parts = signed_s3()
    authorization = dict(parts[3])[b"authorization"]
    for name, value, code in (
        (b"x-amz-content-sha256", None, "InvalidRequest"),
        (b"x-amz-content-sha256", b"abc", "InvalidArgument"),
        (b"x-amz-content-sha256", b"STREAMING-SOMETHING", "InvalidArgument"),
        (b"x-amz-content-sha256", EMPTY.upper().encode(), "InvalidArgument"),
        (b"authorization", authorization.replace(b"aws4_request", b"aws5_request"), "AuthorizationHeaderMalformed"),
        (b"authorization", authorization.replace(b"=host;", b"="), "AccessDenied"),
        (b"x-amz-date", b"20260101T000000Z", "AuthorizationHeaderMalformed"),
    ):
        changed = change(parts, name, value)
        assert refusal(sigv4.read, *changed).code == code, (name, value)
    skewed = refusal(check, parts, KEYS.secret_key, EMPTY, now() + 16 * 60 * MICROS)
    assert skewed.code == "RequestTimeTooSkewed"


def test_other_orders_and_the_date_header() -> None:
    parts = signed()
    kind, _, rest = dict(parts[3])[b"authorization"].partition(b" ")
    turned = change(parts, b"authorization", kind + b" " + b",".join(reversed(rest.replace(b" ", b"").split(b","))))
    check(turned, KEYS.secret_key, EMPTY)
    for damaged in (
        rest + b", Signature=" + b"0" * 64,
        rest + b", Extra=1",
        rest.split(b", Signature")[0],
        b"",
        b"=",
        b",",
    ):
        assert (
            refusal(sigv4.read, *change(parts, b"authorization", kind + b" " + damaged)).code == "IncompleteSignature"
        )
    dated = signed(Date="whatever")
    assert b"x-amz-date" not in dict(dated[3]) and dict(dated[3])[b"date"].endswith(b"-0000")
    check(dated, KEYS.secret_key, EMPTY)
    for date in (b"yesterday", b"", b"Mon, 99 Foo 2026 00:00:00 GMT"):
        assert refusal(sigv4.read, *change(dated, b"date", date)).code == "IncompleteSignature"


@given(value=st.binary(min_size=1, max_size=20), utf8=st.booleans())
def test_header_values_beyond_ascii(value: bytes, utf8: bool) -> None:
    """As clients sign that hash the bytes they send, and as botocore does, which hashes the UTF-8 of Latin-1."""
    import hmac

    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    words = b" ".join(value.split())
    shown = words.decode("latin-1").encode() if utf8 else words
    canonical = b"GET\n/\n\nhost:h\nx-amz-date:%s\nx-told:%s\n\nhost;x-amz-date;x-told\n%s" % (
        stamp.encode(), shown, EMPTY.encode(),
    )  # fmt: skip
    scope = f"{stamp[:8]}/us-east-1/sqs/aws4_request"
    key = b"AWS4secret"
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    given = f"AWS4-HMAC-SHA256 Credential=A/{scope}, SignedHeaders=host;x-amz-date;x-told, Signature=" + (
        hmac.digest(key, text.encode(), "sha256").hex()
    )
    headers = [(b"Host", b"h"), (b"X-Amz-Date", stamp.encode()), (b"X-Told", value), (b"Authorization", given.encode())]
    check(("GET", b"/", b"", headers), "secret", EMPTY)


@given(path=st.lists(st.sampled_from(["", ".", "..", "a", "%2F", "b c", "~", "é", "a.b", "..."]), max_size=6))
def test_paths_are_normalised_as_botocore_does(path: list[str]) -> None:
    from urllib.parse import quote

    raw = "/" + "/".join(quote(part, safe="%~") for part in path)
    for service, signer in (("sagemaker", botocore.auth.SigV4Auth), ("s3", botocore.auth.S3SigV4Auth)):
        request = botocore.awsrequest.AWSRequest("GET", "http://localhost" + raw, data=b"")
        if service == "s3" and "%2F" in raw:
            continue  # botocore signs what it was given; S3 sees a slash
        signer(KEYS, service, "us-east-1").add_auth(request)
        check(wire(request), KEYS.secret_key, EMPTY)


def test_a_changed_request_is_not_the_signed_one() -> None:
    parts = signed()
    stamp = dict(parts[3])[b"x-amz-date"]
    earlier = stamp[:-2] + (b"1Z" if stamp[-2:] == b"0Z" else b"0Z")
    for other in (
        ("GET", *parts[1:]),
        (parts[0], b"/other", *parts[2:]),
        (parts[0], parts[1], b"a=b", parts[3]),
        change(parts, b"host", b"elsewhere"),
        change(parts, b"x-amz-date", earlier),
    ):
        assert refusal(check, other, KEYS.secret_key, EMPTY).code == "SignatureDoesNotMatch"


def test_the_keys_in_memory_are_bounded_and_not_the_secrets() -> None:
    from bastide.sigv4 import signature

    signature._keys.clear()
    presented = sigv4.read(*signed())
    assert presented is not None
    key = sigv4.signing_key(presented, "a secret")
    assert sigv4.signing_key(presented, "another secret") != key
    assert sigv4.signing_key(presented, "a secret") == key
    assert "a secret" not in repr(signature._keys)


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({"content-md5": "abc"}, "InvalidDigest"),
        ({"content-md5": base64.b64encode(b"x" * 15).decode()}, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAA="}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "é"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
    ],
)
def test_checksums_that_cannot_be(named: dict[str, str], code: str) -> None:
    assert refusal(sigv4.Checksums, named).code == code


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_content_md5(data: bytes, other: bytes) -> None:
    sums = sigv4.Checksums({"content-md5": base64.b64encode(hashlib.md5(data).digest()).decode()})
    sums.update(other)
    if data == other:
        sums.finish({})
    else:
        assert refusal(sums.finish, {}).code == "BadDigest"
    assert sums.values() == {}
