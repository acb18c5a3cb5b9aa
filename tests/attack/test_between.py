"""What changes between the question and the deed counts: an upload that was allowed when it began is asked again."""

from __future__ import annotations

import hashlib
import socket
import uuid
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from tests.platform import REGION, Account, allow


@pytest.mark.parametrize("change", ["policy", "bucket", "nothing"])
def test_an_upload_is_asked_again_when_it_is_named(account: Account, change: str) -> None:
    bucket = f"between-{uuid.uuid4().hex[:12]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    account.role("uploader", allow("s3:PutObject", resource=f"arn:aws:s3:::{bucket}/*"))
    keys = account.as_role("uploader")
    body = b"z" * 200_000
    netloc = urlsplit(account.platform.http).netloc
    request = botocore.awsrequest.AWSRequest(method="PUT", url=f"http://{netloc}/{bucket}/k", data=body)
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    credentials = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
    botocore.auth.S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in request.headers.items() if name.lower() != "content-length"
    )
    host, port = netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        head = f"PUT /{bucket}/k HTTP/1.1\r\nHost: {netloc}\r\n{lines}Content-Length: {len(body)}\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        # The platform asks for the body only once the caller may upload.
        assert raw.recv(4096).startswith(b"HTTP/1.1 100")
        raw.sendall(body[:100_000])
        if change == "policy":
            account.client("iam").delete_role_policy(RoleName="uploader", PolicyName="inline")
        elif change == "bucket":
            s3.delete_bucket(Bucket=bucket)
        raw.sendall(body[100_000:])
        answer = raw.recv(65536)
    status = int(answer.split(b" ")[1])
    if change == "nothing":
        assert status == 200 and s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
        return
    assert status == (403 if change == "policy" else 404), answer
    if change == "policy":
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with pytest.raises(botocore.exceptions.ClientError):
        s3.get_object(Bucket=bucket, Key="k")
