"""Pages of other origins: what a browser is told beforehand, and with each answer."""

from __future__ import annotations

import uuid
from typing import Any

import botocore.exceptions
import pytest
import requests

from tests.platform import Account, Running

PAGE = "https://labels.example.com"
RULES: list[dict[str, Any]] = [
    {"AllowedMethods": ["PUT"], "AllowedOrigins": ["https://*.example.com"], "AllowedHeaders": ["content-*", "x-amz-*"],
     "ExposeHeaders": ["ETag", "x-amz-version-id"], "MaxAgeSeconds": 600, "ID": "uploads"},
    {"AllowedMethods": ["GET", "HEAD"], "AllowedOrigins": ["*"]},
]  # fmt: skip


def refused(call: Any, **given: Any) -> tuple[str, str]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    told = error.value.response["Error"]
    return str(told["Code"]), str(told["Message"])


def test_a_browser_is_told_what_the_rules_allow_and_no_more(platform: Running, account: Account) -> None:
    s3 = account.client("s3", signature_version="s3v4")
    bucket = f"pages-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    assert refused(s3.get_bucket_cors, Bucket=bucket)[0] == "NoSuchCORSConfiguration"

    def ask(
        origin: str = PAGE, method: str = "PUT", headers: str = "", path: str = "/image 1.png"
    ) -> requests.Response:
        sent = {"Origin": origin, "Access-Control-Request-Method": method}
        if headers:
            sent["Access-Control-Request-Headers"] = headers
        return requests.options(f"{platform.http}/{bucket}{path}", headers=sent)

    assert ask().status_code == 403
    assert "CORS is not enabled" in ask().text
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES

    told = ask(headers="Content-MD5, X-Amz-Meta-Label")
    assert told.status_code == 200
    assert told.content == b""
    assert told.headers["access-control-allow-origin"] == PAGE
    assert told.headers["access-control-allow-methods"] == "PUT"
    assert told.headers["access-control-allow-headers"] == "content-md5, x-amz-meta-label"
    assert told.headers["access-control-expose-headers"] == "ETag, x-amz-version-id"
    assert told.headers["access-control-max-age"] == "600"
    assert told.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in told.headers["vary"]
    for one in (
        ask("https://labels.example.org"), ask("https://example.com"), ask(method="DELETE"), ask(headers="x-other"),
        ask(method="put"), ask(path="-other/x"),
    ):  # fmt: skip
        assert one.status_code == 403
        assert "<Code>AccessForbidden</Code>" in one.text
        assert "access-control-allow-origin" not in one.headers
    anybody = ask("https://elsewhere.test", "GET")
    assert anybody.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in anybody.headers
    assert requests.options(f"{platform.http}/{bucket}/x").status_code == 400
    assert requests.options(f"{platform.http}/{bucket}/x", headers={"Origin": PAGE}).status_code == 400

    # A body that nobody reads is not taken for the next request of the connection.
    long = requests.options(f"{platform.http}/{bucket}/x", headers={"Origin": PAGE}, data=b"x" * 200_000)
    assert long.status_code == 400
    assert long.headers["connection"] == "close"

    # The request itself: what policies decide is shown to the page, whichever way they decide.
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "image"})
    stored = requests.put(put, data=b"pixels", headers={"Origin": PAGE}, verify=platform.authority, timeout=60)
    assert stored.status_code == 200
    assert stored.headers["access-control-allow-origin"] == PAGE
    unsigned = requests.get(f"{platform.http}/{bucket}/image", headers={"Origin": PAGE})
    assert unsigned.status_code == 403
    assert unsigned.headers["access-control-allow-origin"] == "*"
    plain = requests.get(f"{platform.http}/{bucket}/image")
    assert "access-control-allow-origin" not in plain.headers

    s3.delete_bucket_cors(Bucket=bucket)
    assert ask().status_code == 403
    assert refused(s3.get_bucket_cors, Bucket=bucket)[0] == "NoSuchCORSConfiguration"


def test_rules_that_mean_nothing_are_refused(account: Account) -> None:
    s3 = account.client("s3")
    bucket = f"pages-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    rule: dict[str, Any] = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    for change, code, words in (
        ({"AllowedMethods": ["PATCH"]}, "InvalidRequest", "Unsupported method is PATCH"),
        ({"AllowedOrigins": ["https://*.*.com"]}, "InvalidRequest", "more than one wildcard"),
        ({"AllowedHeaders": ["x-*-*"]}, "InvalidRequest", "more than one wildcard"),
        ({"ExposeHeaders": ["x-amz-*"]}, "InvalidRequest", "contains wildcard"),
        ({"ExposeHeaders": ["ETag\nSet-Cookie: a=b"]}, "InvalidRequest", "no name of a header"),
        ({"AllowedOrigins": []}, "MalformedXML", ""),
        ({"MaxAgeSeconds": -1}, "MalformedXML", ""),
    ):
        wanted = {"CORSRules": [{**rule, **change}]}
        told = refused(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration=wanted)
        assert told[0] == code, told
        assert words in told[1]
    many = {"CORSRules": [rule] * 101}
    assert refused(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration=many)[0] == "MalformedXML"
    assert refused(s3.get_bucket_cors, Bucket=bucket)[0] == "NoSuchCORSConfiguration"
