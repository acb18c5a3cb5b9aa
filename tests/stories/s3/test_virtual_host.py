"""A bucket in the host name, as S3 has it beside the path."""

from __future__ import annotations

import http.client
import uuid
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from tests.platform import REGION, Account


def ask(account: Account, method: str, host: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """A signed request whose Host says more than its address."""
    port = urlsplit(account.platform.http).port
    keys = account.keys
    request = botocore.awsrequest.AWSRequest(method=method, url=f"http://{host}:{port}{path}", data=body)
    botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token), "s3", REGION
    ).add_auth(request)
    headers = {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {**headers, "Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("suffix", ["s3.localhost", "localhost"])
def test_both_styles_name_the_same_object(account: Account, suffix: str) -> None:
    bucket = f"host-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    assert ask(account, "PUT", f"{bucket}.{suffix}", "/a/b", b"hello")[0] == 200
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"hello"
    assert ask(account, "GET", f"{bucket}.{suffix}", "/a/b") == (200, b"hello")
    status, listed = ask(account, "GET", f"{bucket}.{suffix}", "/?list-type=2")
    assert status == 200 and b"<Key>a/b</Key>" in listed
    # Signed for one host, sent to another: the bucket a signature names is the bucket that is asked.
    other = f"other-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=other)
    assert ask(account, "GET", f"{other}.{suffix}", "/a/b")[0] == 404


def test_presigned_urls_open_one_object_for_a_while(account: Account) -> None:
    bucket = f"url-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3", signature_version="s3v4")
    s3.create_bucket(Bucket=bucket)
    put = urlsplit(s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=60))
    get = urlsplit(s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=60))

    def send(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        import ssl

        context = ssl.create_default_context(cafile=account.platform.authority)
        connection = http.client.HTTPSConnection(
            "localhost", urlsplit(account.platform.url).port, timeout=60, context=context
        )
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    assert send("PUT", f"{put.path}?{put.query}", b"by url")[0] == 200
    assert send("GET", f"{get.path}?{get.query}") == (200, b"by url")
    for method, path in (
        ("DELETE", f"{get.path}?{get.query}"),
        ("GET", f"{get.path}x?{get.query}"),
        ("GET", f"{get.path}?{get.query}&versionId=null"),
    ):
        status, answer = send(method, path)
        assert status == 403 and b"SignatureDoesNotMatch" in answer
