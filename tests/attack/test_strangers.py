"""What anybody on the network can make the platform do before it knows who they are, and what they learn by asking."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from bastide.protocol import forms
from bastide.protocol.head import Malformed
from bastide.signin import relying
from bastide.signin.relying import Relying, Unreachable
from bastide.store.identities import Provider
from tests.platform import Account, Running, allow


def _whole(answer: bytes) -> bool:
    """Whether everything is there that the head of an answer promises."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _pour(platform: Running, head: str, body: bytes) -> tuple[bytes, int]:
    """Sends a body until there is an answer; the answer, and how many bytes were taken until then."""
    netloc = urlsplit(platform.http).netloc
    host, port = netloc.split(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(f"{head}Host: {netloc}\r\n\r\n".encode())
        raw.setblocking(False)
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            try:
                answer = raw.recv(65536)
                raw.settimeout(60)
                while not _whole(answer) and (more := raw.recv(65536)):
                    answer += more
                return answer, sent
            except BlockingIOError:
                pass
            if sent < len(body):
                try:
                    sent += raw.send(body[sent : sent + 65536])
                    continue
                except BlockingIOError:
                    pass
                except ConnectionError:  # closed before the rest came; what it said first can be read
                    body = body[:sent]
            time.sleep(0.002)
    raise AssertionError("no answer")


def test_a_form_that_never_comes_to_its_file_is_not_read_into_memory(platform: Running) -> None:
    """Fields without content cost nothing by their content; their names are bounded, too."""
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % one for one in range(500_000))
    head = "POST /bucket HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000000\r\n"
    answer, sent = _pour(platform, head, parts)
    assert answer.startswith(b"HTTP/1.1 400") and b"MaxPostPreDataLengthExceeded" in answer
    assert sent < 16 << 20  # what lies in the buffers of two sockets


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("operation", ["AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"])
def test_who_brings_no_signature_brings_little(platform: Running, operation: str, signed: bool) -> None:
    """A signature that nobody looks at does not make room."""
    body = f"Action={operation}&Version=2011-06-15&SAMLAssertion=".encode() + b"A" * (2 << 20)
    head = "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    if signed:
        head += (
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/sts/aws4_request, "
            "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64 + "\r\nX-Amz-Date: 20260101T000000Z\r\n"
        )
    answer, _ = _pour(platform, f"{head}Content-Length: {len(body)}\r\n", body)
    assert answer.startswith(b"HTTP/1.1 413"), answer


def test_a_form_of_ampersands_is_not_made_a_list_of(account: Account) -> None:
    began = time.thread_time()
    with pytest.raises(Malformed):
        forms.pairs(b"a&" * (8 << 20))
    assert time.thread_time() - began < 0.5
    with pytest.raises(Malformed):
        forms.tree((f"{number}" + ".a" * 60, "") for number in range(20_000))


# -- what a refusal tells ------------------------------------------------------------------------------------------------


def _refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**given)
    return str(refused.value).partition(" Encoded authorization")[0]


def test_a_closed_account_looks_like_any_that_grants_nothing(
    platform: Running, account: Account, neighbour: Account
) -> None:
    """That an account was closed, or whose a bucket is, is not told to whoever asks."""
    s3, kms = account.client("s3"), account.client("kms")
    bucket = f"closed-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps(allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*", Principal="*"))
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    key = kms.create_key(Policy=json.dumps(allow("kms:*", Principal={"AWS": [account.id, neighbour.id]})))
    arn = key["KeyMetadata"]["Arn"]
    there = neighbour.client("kms")
    there.describe_key(KeyId=arn)
    private = arn.rpartition("/")[0] + f"/{uuid.uuid4()}"
    strange = _refused(there.describe_key, KeyId=private)
    platform.client("organizations").close_account(AccountId=account.id)
    assert _refused(there.describe_key, KeyId=arn) == strange.replace(private, arn)
    answer, _ = _pour(platform, f"GET /{bucket}/k HTTP/1.1\r\nContent-Length: 0\r\n", b"")
    assert answer.startswith(b"HTTP/1.1 403"), answer
    assert account.id.encode() not in answer.replace(bucket.encode(), b"") and b"suspended" not in answer


# -- providers that do not answer ------------------------------------------------------------------------------------------


def test_a_silent_provider_is_asked_by_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may open the portal; a provider that is down must not take every thread of the platform with it."""
    held = socket.create_server(("127.0.0.1", 0), backlog=64)
    reached = 0

    def take() -> None:
        nonlocal reached
        while True:
            try:
                connection, _ = held.accept()
            except OSError:
                return
            reached += 1
            time.sleep(0.3)
            connection.close()

    threading.Thread(target=take, daemon=True).start()
    told = Relying(Provider(f"https://127.0.0.1:{held.getsockname()[1]}", "c"), "", "https://here/callback")

    async def many() -> list[Any]:
        return await asyncio.gather(*(told.metadata() for _ in range(50)), return_exceptions=True)

    monkeypatch.setattr(relying, "_SECONDS", 2.0)
    found = asyncio.run(many())
    held.close()
    assert all(isinstance(one, Unreachable) for one in found)
    assert reached == 1
