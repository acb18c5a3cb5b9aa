"""Bad input: a clear error in AWS's shape, and nothing half-done visible."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from tests.platform import REGION, Account, Keys, Running


def signed(
    running: Running,
    keys: Keys,
    service: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> dict[str, str]:
    """Headers of a correctly signed request, whatever its content."""
    request = botocore.awsrequest.AWSRequest(method=method, url=running.http + path, data=body, headers=headers or {})
    credentials = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
    signer: Any = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    if service == "s3":
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    signer(credentials, service, REGION).add_auth(request)
    return {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}


def ask(
    running: Running,
    keys: Keys,
    service: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """One request over plain HTTP; status, headers, body."""
    connection = http.client.HTTPConnection(urlsplit(running.http).netloc, timeout=30)
    try:
        connection.request(method, path, body, signed(running, keys, service, method, path, body, headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


JSON = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "SageMaker.DescribeTrainingJob"}


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff\xfe", b'{"TrainingJobName": 5}', b"null", b'{"a":' * 2000 + b"1" + b"}" * 2000]
)
def test_malformed_json(platform: Running, account: Account, body: bytes) -> None:
    status, _, answer = ask(platform, account.keys, "sagemaker", "POST", "/", body, JSON)
    told = json.loads(answer)
    assert status == 400, answer
    assert told["__type"].rpartition("#")[2] in ("SerializationException", "ValidationException")


def test_a_member_that_is_missing_is_named(platform: Running, account: Account) -> None:
    status, _, answer = ask(platform, account.keys, "sagemaker", "POST", "/", b"{}", JSON)
    told = json.loads(answer)
    assert (status, told["__type"].rpartition("#")[2]) == (400, "ValidationException")
    assert "trainingJobName" in (told.get("message") or told.get("Message"))


def test_unknown_operations(platform: Running, account: Account) -> None:
    target = {**JSON, "X-Amz-Target": "SageMaker.MakeCoffee"}
    status, _, answer = ask(platform, account.keys, "sagemaker", "POST", "/", b"{}", target)
    assert json.loads(answer)["__type"].rpartition("#")[2] == "UnknownOperationException"
    assert 400 <= status < 500
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    status, _, answer = ask(platform, account.keys, "iam", "POST", "/", b"Action=MakeCoffee&Version=2010-05-08", form)
    assert status == 400 and b"InvalidAction" in answer
    with pytest.raises(botocore.exceptions.ClientError) as error:
        account.client("sagemaker").create_feature_group(
            FeatureGroupName="x",
            RecordIdentifierFeatureName="a",
            EventTimeFeatureName="b",
            FeatureDefinitions=[{"FeatureName": "a", "FeatureType": "String"}],
        )
    assert error.value.response["Error"]["Code"] == "UnknownOperationException"


def test_a_scope_for_another_service_does_not_open_a_door(platform: Running, account: Account) -> None:
    status, _, _ = ask(platform, account.keys, "s3", "POST", "/", b"{}", JSON)
    assert status >= 400
    status, _, answer = ask(platform, account.keys, "nonsense", "POST", "/", b"{}", JSON)
    assert status >= 400 and b"nonsense" in answer


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"<!DOCTYPE x [<!ENTITY e 'x'>]><Delete><Object><Key>&e;</Key></Object></Delete>",
        b"\x00\x01",
        b"<a/>",
    ],
)
def test_malformed_xml(platform: Running, account: Account, body: bytes) -> None:
    bucket = f"bad-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=bucket)
    md5 = {"Content-MD5": __import__("base64").b64encode(hashlib.md5(body).digest()).decode()}
    status, _, answer = ask(platform, account.keys, "s3", "POST", f"/{bucket}?delete", body, md5)
    assert status == 400, answer
    assert b"<Code>MalformedXML</Code>" in answer


def test_malformed_cbor(platform: Running, account: Account) -> None:
    # No service here speaks CBOR yet in its registry, so the route itself must answer in CBOR's shape.
    headers = {"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    status, answered, _ = ask(platform, account.keys, "monitoring", "POST", path, b"\xbf\x61", headers)
    assert 400 <= status < 500
    assert "cbor" in answered.get("content-type", "")


def test_oversized_heads(platform: Running) -> None:
    host, port = urlsplit(platform.http).netloc.split(":")
    for head in (
        b"GET /" + b"a" * 20_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)),
    ):
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            raw.sendall(head + (b" HTTP/1.1\r\nHost: localhost\r\n\r\n" if b"HTTP/1.1" not in head else b"\r\n"))
            assert b" 400 " in raw.recv(4096).split(b"\r\n")[0] + b" "


def test_an_oversized_body_is_refused_unread(platform: Running, account: Account) -> None:
    host, port = urlsplit(platform.http).netloc.split(":")
    headers = signed(platform, account.keys, "sagemaker", "POST", "/", b"", JSON)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "content-length")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}Content-Length: 999999999\r\n\r\n".encode())
        answer = raw.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0] + b" "


def test_a_truncated_body_is_no_object(platform: Running, account: Account) -> None:
    """A client killed in the middle of an upload leaves nothing visible, and no file behind."""
    bucket = f"cut-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    body = b"x" * 400_000
    host, port = urlsplit(platform.http).netloc.split(":")
    headers = signed(platform, account.keys, "s3", "PUT", f"/{bucket}/half", body)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "content-length")
    files = sum(1 for path in (platform.data / "objects").rglob("*") if path.is_file())
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(
            f"PUT /{bucket}/half HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode()
        )
        raw.sendall(body[:150_000])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum(1 for path in (platform.data / "objects").rglob("*") if path.is_file()) == files:
            break
        time.sleep(0.05)
    assert sum(1 for path in (platform.data / "objects").rglob("*") if path.is_file()) == files
    assert s3.list_objects_v2(Bucket=bucket).get("Contents") is None
    with pytest.raises(botocore.exceptions.ClientError) as error:
        s3.get_object(Bucket=bucket, Key="half")
    assert error.value.response["Error"]["Code"] == "NoSuchKey"


def test_a_body_that_is_not_what_was_signed(platform: Running, account: Account) -> None:
    bucket = f"lie-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    connection = http.client.HTTPConnection(urlsplit(platform.http).netloc, timeout=30)
    connection.request(
        "PUT", f"/{bucket}/k", b"other", signed(platform, account.keys, "s3", "PUT", f"/{bucket}/k", b"truth")
    )
    answer = connection.getresponse()
    assert answer.status == 400 and b"XAmzContentSHA256Mismatch" in answer.read()
    connection.close()
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    good = b"Action=GetCallerIdentity&Version=2011-06-15"
    connection = http.client.HTTPConnection(urlsplit(platform.http).netloc, timeout=30)
    connection.request(
        "POST",
        "/",
        b"Action=GetAccessKeyInfo&Version=2011-06-15&AccessKeyId=AKIAZZZZZZZZZZZZZZZZ",
        signed(platform, account.keys, "sts", "POST", "/", good, form),
    )
    answer = connection.getresponse()
    assert answer.status == 403 and b"SignatureDoesNotMatch" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    "key", ["../../../../etc/passwd", "a//b", "./x", "..", "%2e%2e/%2e%2e/x", "ünïcode/\U0001f512", "a b+c&d=e"]
)
def test_keys_are_names_not_paths(platform: Running, account: Account, key: str) -> None:
    bucket = f"dots-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=key, Body=b"here")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"here"
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 64, "", "-x"])
def test_names_that_are_none(platform: Running, account: Account, name: str) -> None:
    body = json.dumps({"TrainingJobName": name}).encode()
    status, _, answer = ask(platform, account.keys, "sagemaker", "POST", "/", body, JSON)
    assert (status, json.loads(answer)["__type"].rpartition("#")[2]) == (400, "ValidationException")


def test_garbage_on_the_socket(platform: Running) -> None:
    host, port = urlsplit(platform.http).netloc.split(":")
    for garbage in (b"\x16\x03\x01\x02\x00", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100):
        with socket.create_connection((host, int(port)), timeout=60) as raw:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(4096)
    assert platform.client("sts").get_caller_identity()["Account"]


def test_a_head_without_end_is_cut_off(platform: Running) -> None:
    host, port = urlsplit(platform.http).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        answer = b""
        try:
            for number in range(5000):
                raw.sendall(b"X-%d: %s\r\n" % (number, b"y" * 900))
            answer = raw.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            return
    assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0] + b" "
