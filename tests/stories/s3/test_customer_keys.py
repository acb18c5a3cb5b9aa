"""SSE-C: objects under keys that come with the request, and are kept nowhere."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, lies_in, on_disk

PLAIN = b"customers-keep-their-key " * 40_000


def refused(wanted: str, call: Any, **given: Any) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    assert error.value.response["Error"]["Code"] == wanted, error.value


@pytest.fixture
def bucket(account: Account) -> str:
    name = f"sse-c-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=name)
    return name


def under(key: bytes, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}SSECustomerAlgorithm": "AES256", f"{prefix}SSECustomerKey": key}


@pytest.mark.parametrize("size", [20, len(PLAIN)])
def test_only_the_key_reads(account: Account, bucket: str, size: int) -> None:
    s3, key, other = account.client("s3"), os.urandom(32), os.urandom(32)
    put = s3.put_object(Bucket=bucket, Key="k", Body=PLAIN[:size], **under(key))
    digest = base64.b64encode(hashlib.md5(key).digest()).decode()
    assert put["SSECustomerAlgorithm"] == "AES256" and put["SSECustomerKeyMD5"] == digest
    assert put["ETag"].strip('"') != hashlib.md5(PLAIN[:size]).hexdigest()
    where = {"Bucket": bucket, "Key": "k"}
    read = s3.get_object(**where, **under(key))
    assert read["Body"].read() == PLAIN[:size] and read["SSECustomerKeyMD5"] == digest
    assert s3.get_object(**where, Range="bytes=3-9", **under(key))["Body"].read() == PLAIN[3:10]
    assert s3.head_object(**where, **under(key))["ContentLength"] == size
    refused("InvalidRequest", s3.get_object, **where)
    refused("AccessDenied", s3.get_object, **where, **under(other))
    refused("400", s3.head_object, **where)
    refused("403", s3.head_object, **where, **under(other))
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    refused("InvalidRequest", s3.get_object, Bucket=bucket, Key="plain", **under(key))


def test_a_key_that_is_not_whole(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    key = os.urandom(32)
    where: dict[str, Any] = {"Bucket": bucket, "Key": "k", "Body": b"x"}
    text, digest = (base64.b64encode(one).decode() for one in (key, hashlib.md5(key).digest()))
    refused("InvalidArgument", s3.put_object, **where, SSECustomerKey=text, SSECustomerKeyMD5=digest)
    refused("InvalidArgument", s3.put_object, **where, SSECustomerAlgorithm="AES256")
    weak = {"SSECustomerAlgorithm": "AES128", "SSECustomerKey": text, "SSECustomerKeyMD5": digest}
    refused("InvalidEncryptionAlgorithmError", s3.put_object, **where, **weak)
    refused("InvalidArgument", s3.put_object, **where, **under(key[:16]))
    other = {**weak, "SSECustomerAlgorithm": "AES256", "SSECustomerKeyMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    refused("InvalidArgument", s3.put_object, **where, **other)
    refused("InvalidArgument", s3.put_object, **where, **under(key), ServerSideEncryption="aws:kms")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    plain = account.client("s3", plain=True)
    with pytest.raises((botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError)):
        plain.put_object(**where, **under(key))


def test_copies_and_parts(account: Account, bucket: str) -> None:
    s3, one, two = account.client("s3"), os.urandom(32), os.urandom(32)
    s3.put_object(Bucket=bucket, Key="a", Body=PLAIN, **under(one))
    source = {"Bucket": bucket, "Key": "a"}
    refused("InvalidRequest", s3.copy_object, Bucket=bucket, Key="b", CopySource=source)
    refused("AccessDenied", s3.copy_object, Bucket=bucket, Key="b", CopySource=source, **under(two, "CopySource"))
    s3.copy_object(Bucket=bucket, Key="b", CopySource=source, **under(one, "CopySource"), **under(two))
    assert s3.get_object(Bucket=bucket, Key="b", **under(two))["Body"].read() == PLAIN
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, **under(one, "CopySource"))
    assert s3.get_object(Bucket=bucket, Key="c")["Body"].read() == PLAIN

    where = {"Bucket": bucket, "Key": "m"}
    id = s3.create_multipart_upload(**where, **under(one))["UploadId"]
    part = b"p" * (5 * 1024 * 1024)
    first = s3.upload_part(**where, UploadId=id, PartNumber=1, Body=part, **under(one))
    refused("InvalidRequest", s3.upload_part, **where, UploadId=id, PartNumber=2, Body=b"tail")
    refused("AccessDenied", s3.upload_part, **where, UploadId=id, PartNumber=2, Body=b"tail", **under(two))
    second = s3.upload_part(**where, UploadId=id, PartNumber=2, Body=b"tail", **under(one))
    parts = [{"PartNumber": number, "ETag": told["ETag"]} for number, told in ((1, first), (2, second))]
    s3.complete_multipart_upload(**where, UploadId=id, MultipartUpload={"Parts": parts})
    assert s3.get_object(**where, **under(one))["Body"].read() == part + b"tail"
    refused("InvalidRequest", s3.get_object, **where)


def test_the_key_is_kept_nowhere(account: Account, bucket: str) -> None:
    s3, key = account.client("s3"), os.urandom(32)
    s3.put_object(Bucket=bucket, Key="k", Body=PLAIN, **under(key))
    s3.get_object(Bucket=bucket, Key="k", **under(key))
    data = Path(account.platform.data)
    for path in [*on_disk(data), data.parent / "up.log"]:
        assert not lies_in(path, key, base64.b64encode(key), PLAIN[:100]), path
