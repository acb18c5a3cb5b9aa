"""What the public suite asks of S3, told as stories of our own: each was once answered otherwise than AWS does."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import uuid
import zlib
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow

LEAST = 5 * 1024 * 1024


@pytest.fixture
def client(account: Account) -> Any:
    return account.client("s3")


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"b-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=name)
    return name


def begun(client: Any, bucket: str, *texts: bytes, **said: Any) -> dict[str, Any]:
    """An upload whose parts have been sent: what completes it."""
    id = client.create_multipart_upload(Bucket=bucket, Key="whole", **said)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(Bucket=bucket, Key="whole", UploadId=id, PartNumber=number, Body=text)["ETag"],
        }
        for number, text in enumerate(texts, 1)
    ]
    return {"Bucket": bucket, "Key": "whole", "UploadId": id, "MultipartUpload": {"Parts": parts}}


def test_an_upload_may_be_completed_twice(client: Any, bucket: str) -> None:
    complete = begun(client, bucket, b"text")
    first = client.complete_multipart_upload(**complete)
    again = client.complete_multipart_upload(**complete)
    assert again["ETag"] == first["ETag"]
    other = {**complete, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": '"0"'}]}}
    with pytest.raises(ClientError, match="NoSuchUpload"):
        client.complete_multipart_upload(**other)
    client.delete_object(Bucket=bucket, Key="whole")
    with pytest.raises(ClientError, match="NoSuchUpload"):
        client.complete_multipart_upload(**complete)


def test_whoever_completes_says_the_checksum_of_the_object(client: Any, bucket: str) -> None:
    texts = (b"a" * LEAST, b"b" * 10)
    sum = base64.b64encode(zlib.crc32(b"".join(texts)).to_bytes(4, "big")).decode()
    complete = begun(client, bucket, *texts, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    with pytest.raises(ClientError, match="BadDigest"):
        client.complete_multipart_upload(**complete, ChecksumCRC32="AAAAAA==", ChecksumType="FULL_OBJECT")
    made = client.complete_multipart_upload(**complete, ChecksumCRC32=sum, ChecksumType="FULL_OBJECT")
    assert (made["ChecksumCRC32"], made["ChecksumType"]) == (sum, "FULL_OBJECT")


def test_a_part_is_not_copied_from_beyond_its_source(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="small", Body=b"12345")
    id = client.create_multipart_upload(Bucket=bucket, Key="whole")["UploadId"]
    given = {"Bucket": bucket, "Key": "whole", "UploadId": id, "PartNumber": 1, "CopySource": f"{bucket}/small"}
    with pytest.raises(ClientError, match="InvalidRange"):
        client.upload_part_copy(**given, CopySourceRange="bytes=0-5")
    assert client.upload_part_copy(**given, CopySourceRange="bytes=0-4")["CopyPartResult"]["ETag"]


def test_a_tag_without_a_value_has_an_empty_one(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a", Tagging="foo=bar&bar")
    tags = client.get_object_tagging(Bucket=bucket, Key="a")["TagSet"]
    assert tags == [{"Key": "bar", "Value": ""}, {"Key": "foo", "Value": "bar"}]
    with pytest.raises(ClientError, match="InvalidArgument"):
        client.put_object(Bucket=bucket, Key="a", Tagging="foo=bar&foo=baz")


def test_where_versioning_is_suspended_puts_name_no_version_and_markers_do(client: Any, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "VersionId" not in client.put_object(Bucket=bucket, Key="a", Body=b"1")
    assert "VersionId" not in client.complete_multipart_upload(**begun(client, bucket, b"text"))
    assert client.get_object(Bucket=bucket, Key="a")["VersionId"] == "null"
    assert client.delete_object(Bucket=bucket, Key="a")["VersionId"] == "null"
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert client.put_object(Bucket=bucket, Key="a", Body=b"2")["VersionId"] != "null"


def test_the_transfers_own_coding_is_not_the_objects(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a", ContentEncoding="deflate, gzip, aws-chunked")
    assert client.head_object(Bucket=bucket, Key="a")["ContentEncoding"] == "deflate, gzip"


def test_who_reads_does_not_ask_for_an_encryption(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a", Body=b"1", ServerSideEncryption="AES256")

    def ask(request: Any, **_: Any) -> None:
        request.headers["x-amz-server-side-encryption"] = "AES256"

    client.meta.events.register("before-sign.s3.GetObject", ask)
    client.meta.events.register("before-sign.s3.HeadObject", ask)
    with pytest.raises(ClientError, match="InvalidArgument"):
        client.get_object(Bucket=bucket, Key="a")
    with pytest.raises(ClientError, match="400"):
        client.head_object(Bucket=bucket, Key="a")


def test_an_empty_continuation_token_begins_the_list(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="a")
    page = client.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert ([one["Key"] for one in page["Contents"]], page["ContinuationToken"]) == (["a"], "")
    with pytest.raises(ClientError, match="InvalidArgument"):
        client.list_objects_v2(Bucket=bucket, ContinuationToken="forged")


def test_a_policy_that_was_put_has_no_content(account: Account, client: Any, bucket: str) -> None:
    statement = {
        **allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*")["Statement"][0],
        "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"},
    }

    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    answer = client.put_bucket_policy(Bucket=bucket, Policy=text)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204


@pytest.mark.parametrize("chosen", ["text/\u7d62", "text/plain\r\nset-cookie: a=b", "a\x7f"])
def test_what_no_header_holds_is_not_chosen(client: Any, bucket: str, chosen: str) -> None:
    client.put_object(Bucket=bucket, Key="a", Body=b"1")
    with pytest.raises(ClientError, match="InvalidArgument"):
        client.get_object(Bucket=bucket, Key="a", ResponseContentType=chosen)


def test_metadata_that_no_header_holds_is_written_as_rfc_2047_has_it(client: Any, bucket: str) -> None:
    meant = "\u7d62 text"
    form = client.generate_presigned_post(
        Bucket=bucket, Key="a", Fields={"x-amz-meta-m": meant}, Conditions=[{"x-amz-meta-m": meant}]
    )
    fields = {name: (None, value.encode()) for name, value in form["fields"].items()}
    fields["file"] = ("f", b"1")
    boundary = "b0undary"
    body = b"".join(
        b'--%s\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (boundary.encode(), name.encode(), b'; filename="f"' if file else b"", value)
        for name, (file, value) in fields.items()
    )
    where = urlsplit(form["url"])
    sent = http.client.HTTPSConnection(
        where.netloc, context=ssl.create_default_context(cafile=client._endpoint.http_session._verify)
    )
    sent.request(
        "POST", where.path, body + f"--{boundary}--\r\n".encode(),
        {"content-type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    assert sent.getresponse().status == 204
    sent.close()
    told = client.head_object(Bucket=bucket, Key="a")["ResponseMetadata"]["HTTPHeaders"]
    assert told["x-amz-meta-m"] == f"=?UTF-8?B?{base64.b64encode(meant.encode()).decode()}?="
