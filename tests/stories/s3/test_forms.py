"""Browsers' uploads: a form that boto3 signed, sent as a browser sends it."""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.platform import Account, Keys, allow


def send(
    account: Account, bucket: str, fields: dict[str, str], content: bytes, *, name: str = "report.txt", after: str = ""
) -> tuple[int, dict[str, str], str]:
    """Posts the form; `after` is a field behind the file. Returns status, headers and body."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    named = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    head = f"--{boundary}\r\n{named}\r\nContent-Type: text/html\r\n\r\n"
    parts += [head.encode(), content, b"\r\n"]
    if after:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{after}"\r\n\r\nx\r\n'.encode())
    parts.append(f"--{boundary}--\r\n".encode())
    connection = http.client.HTTPConnection(urlsplit(account.platform.http).netloc, timeout=30)
    try:
        told = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", f"/{bucket}", b"".join(parts), told)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def bucket(account: Account) -> str:
    name = f"form-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=name)
    return name


def signed(
    account: Account, bucket: str, key: str, keys: Keys | None = None, how: str = "", **given: Any
) -> dict[str, str]:
    """The fields of a form that boto3 signs: with Signature Version 2, as it does by itself, or with "s3v4"."""
    s3 = account.client("s3", keys, **({"signature_version": how} if how else {}))
    fields: dict[str, str] = s3.generate_presigned_post(bucket, key, **given)["fields"]
    assert ("x-amz-signature" in fields) is (how == "s3v4")
    return fields


@pytest.mark.parametrize("how", ["", "s3v4"])
def test_a_signed_form_uploads(account: Account, bucket: str, how: str) -> None:
    s3 = account.client("s3")
    content = b"x" * 3_000_000  # more than fits into a piece
    status, headers, _ = send(account, bucket, signed(account, bucket, "a/b", how=how), content, after="Submit")
    assert status == 204
    read = s3.get_object(Bucket=bucket, Key="a/b")
    assert read["Body"].read() == content and headers["etag"] == read["ETag"]

    extra = {"Content-Type": "text/plain", "x-amz-meta-owner": "uma", "success_action_status": "201"}
    conditions: list[Any] = [{name: value} for name, value in extra.items()]
    fields = signed(account, bucket, "in/${filename}", how=how, Fields=extra, Conditions=[*conditions])
    status, _, body = send(account, bucket, fields, b"hello", name="C:\\folder\\q3.txt")
    assert status == 201 and "<Key>in/q3.txt</Key>" in body
    read = s3.get_object(Bucket=bucket, Key="in/q3.txt")
    assert read["ContentType"] == "text/plain" and read["Metadata"] == {"owner": "uma"}

    to = {"success_action_redirect": "https://example.com/done?a=1"}
    fields = signed(account, bucket, "r", Fields=to, Conditions=[to])
    status, headers, _ = send(account, bucket, fields, b"hello")
    assert status == 303 and parse_qs(urlsplit(headers["location"]).query)["key"] == ["r"]


def test_only_what_the_policy_permits(account: Account, bucket: str) -> None:
    ranged = {"Conditions": [["content-length-range", 3, 5]]}
    for content, wanted in ((b"ab", "EntityTooSmall"), (b"abcdef", "EntityTooLarge"), (b"abcd", "")):
        status, _, body = send(account, bucket, signed(account, bucket, "k", **ranged), content)
        assert (status, wanted in body) == ((204, True) if not wanted else (400, True)), body
    prefixed = {"Conditions": [["starts-with", "$x-amz-meta-team", "alpha"]]}
    for team, status_wanted in (("alpha-1", 204), ("bravo", 403)):
        fields = {**signed(account, bucket, "k", **prefixed), "x-amz-meta-team": team}
        assert send(account, bucket, fields, b"x")[0] == status_wanted
    fields = signed(account, bucket, "k")
    for changed in (
        {"key": "other"},
        {"x-amz-meta-extra": "1"},
        {"x-amz-tagging": "security=shared"},
        {"x-amz-server-side-encryption": "AES256"},
    ):
        status, _, body = send(account, bucket, {**fields, **changed}, b"x")
        assert status == 403 and "Invalid according to Policy" in body, changed
    assert send(account, bucket, {**fields, "x-ignore-me": "1"}, b"x")[0] == 204
    other = f"form-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=other)
    assert send(account, other, fields, b"x")[0] == 403
    status, _, body = send(account, bucket, signed(account, bucket, "late", ExpiresIn=-5), b"x")
    assert status == 403 and "expired" in body


def test_only_what_the_signer_may(account: Account, bucket: str, neighbour: Account) -> None:
    account.role("drop", allow("s3:PutObject", resource=f"arn:aws:s3:::{bucket}/in/*"))
    account.role("no-forms", allow("s3:PutObject", Condition={"StringNotEquals": {"s3:authType": "POST"}}))
    drop = account.as_role("drop")
    assert send(account, bucket, signed(account, bucket, "in/a", drop), b"x")[0] == 204
    for key, keys in (("out/a", drop), ("in/a", account.as_role("no-forms")), ("in/a", neighbour.keys)):
        status, _, body = send(account, bucket, signed(account, bucket, key, keys), b"x")
        assert status == 403 and "<Code>AccessDenied</Code>" in body
    events = account.client("cloudtrail").lookup_events()["Events"]
    assert all("in/a" not in json.dumps(one["Resources"]) for one in events)  # data events stay out of the lookup
    # Nobody's form, one whose signature is another's, and one whose policy was written anew.
    assert send(account, bucket, {"key": "in/a"}, b"x")[0] == 403
    for how, name in (("", "signature"), ("s3v4", "x-amz-signature")):
        fields = signed(account, bucket, "in/a", drop, how)
        forged = {**fields, name: fields[name][::-1]}
        status, _, body = send(account, bucket, forged, b"x")
        assert status == 403 and "SignatureDoesNotMatch" in body
    policy = json.loads(base64.b64decode(fields["policy"]))
    policy["conditions"] = [["starts-with", "$key", ""], {"bucket": bucket}]
    wider = {**fields, "policy": base64.b64encode(json.dumps(policy).encode()).decode()}
    assert send(account, bucket, wider, b"x")[0] == 403


def test_what_is_no_form(account: Account, bucket: str) -> None:
    fields = signed(account, bucket, "k")
    without_key = {name: value for name, value in fields.items() if name != "key"}
    status, _, body = send(account, bucket, without_key, b"x")
    assert status == 400 and "'key'" in body
    for policy in ("", "not base64!", base64.b64encode(b"[]").decode(), base64.b64encode(b'{"expiration":1}').decode()):
        status, _, body = send(account, bucket, {**fields, "policy": policy}, b"x")
        assert status in (400, 403), body
    assert send(account, bucket, {**fields, "x-amz-meta-large": "v" * 70_000}, b"x")[0] == 400
    netloc = urlsplit(account.platform.http).netloc
    for kind, content in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n--b--\r\n'),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A: " + b"x" * 9000 + b"\r\n\r\n"),
    ):
        connection = http.client.HTTPConnection(netloc, timeout=30)
        connection.request("POST", f"/{bucket}", content, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 400, answer.read()
        connection.close()
    assert account.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0
