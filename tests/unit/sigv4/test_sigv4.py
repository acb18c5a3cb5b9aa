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


@given(data=st.binary(max_size=3000), step=st.integers(1, 700))
def test_unsigned_chunks_with_a_trailing_checksum_as_botocore_frames_them(data: bytes, step: int) -> None:
    from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum

    body = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=1024
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
