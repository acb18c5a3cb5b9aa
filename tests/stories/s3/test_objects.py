"""Objects, told with boto3: bytes, conditions, versions, parts, lists."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.platform import Account, Running, allow, on_disk


def refused(call: Any, **given: Any) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


@pytest.fixture(scope="module")
def home(platform: Running) -> Account:
    return platform.account()


@pytest.fixture(scope="module")
def s3(home: Account) -> Any:
    return home.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"objects-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize("key", ["a//b", "../x", "/lead", "ü/é", "a b+c%2F", "x" * 1024, "quote'\"<&>", "."])
def test_any_legal_key_is_kept(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), ContentType="text/x", Metadata={"a": "b"})
    got = s3.get_object(Bucket=bucket, Key=key)
    assert got["Body"].read() == key.encode()
    assert (got["ContentType"], got["Metadata"]) == ("text/x", {"a": "b"})
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert refused(s3.get_object, Bucket=bucket, Key=key) == (404, "NoSuchKey")


def test_what_no_key_may_be(s3: Any, bucket: str) -> None:
    assert refused(s3.put_object, Bucket=bucket, Key="x" * 1025, Body=b"")[1] == "KeyTooLongError"
    assert refused(s3.put_object, Bucket=bucket, Key="a\0b", Body=b"")[1] == "InvalidArgument"


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 65536, 65537, 262144, 262145, 3_000_000])
def test_sizes_and_ranges(s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == size
    for start, end in ((0, 0), (0, size), (size // 2, size), (max(0, size - 3), size + 10)):
        asked = f"bytes={start}-{end}"
        if start >= size:
            assert refused(s3.get_object, Bucket=bucket, Key="k", Range=asked) == (416, "InvalidRange")
        else:
            got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
            assert got["Body"].read() == data[start : end + 1]
            assert got["ContentRange"] == f"bytes {start}-{min(end, size - 1)}/{size}"
    if size:
        assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=-2")["Body"].read() == data[-2:]


def test_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"one", IfNoneMatch="*")["ETag"]
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*") == (412, "PreconditionFailed")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"two", IfMatch='"0"') == (412, "PreconditionFailed")
    assert refused(s3.put_object, Bucket=bucket, Key="new", Body=b"two", IfMatch=etag)[1] == "NoSuchKey"
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfMatch=etag) == (412, "PreconditionFailed")
    now = s3.head_object(Bucket=bucket, Key="k")
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfUnmodifiedSince="2001-01-01T00:00:00Z")[0] == 412
    s3.get_object(Bucket=bucket, Key="k", IfMatch=now["ETag"], IfUnmodifiedSince="2001-01-01T00:00:00Z")
    assert refused(s3.head_object, Bucket=bucket, Key="k", IfNoneMatch=now["ETag"])[0] == 304
    assert refused(s3.head_object, Bucket=bucket, Key="k", IfModifiedSince=now["LastModified"])[0] == 304


def test_versions(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"null")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"two")["VersionId"]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    assert refused(s3.get_object, Bucket=bucket, Key="k") == (404, "NoSuchKey")
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId=marker["VersionId"]) == (405, "MethodNotAllowed")
    for id, body in ((one, b"one"), (two, b"two"), ("null", b"null")):
        assert s3.get_object(Bucket=bucket, Key="k", VersionId=id)["Body"].read() == body
    seen = s3.list_object_versions(Bucket=bucket)
    assert [row["VersionId"] for row in seen["Versions"]] == [two, one, "null"]
    assert [row["IsLatest"] for row in seen["DeleteMarkers"]] == [True]
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"newer null")
    rows = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert [row["VersionId"] for row in rows] == ["null", two, one]
    assert refused(s3.delete_bucket, Bucket=bucket) == (409, "BucketNotEmpty")
    paged: list[str] = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1}):
        paged += [row["VersionId"] for row in page.get("Versions", ())]
    assert paged == ["null", two, one]
    for id in paged:
        s3.delete_object(Bucket=bucket, Key="k", VersionId=id)
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId=one) == (404, "NoSuchVersion")
    s3.delete_bucket(Bucket=bucket)


def test_no_bytes_are_left(s3: Any, home: Account, bucket: str) -> None:
    def files() -> set[str]:
        return {path.name for path in on_disk(home.platform.data / "objects")}

    before = files()
    body = b"x" * 100_000  # too large to be kept in the store itself
    for _ in range(3):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert len(files() - before) == 1
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")[0] == 412
    assert len(files() - before) == 1
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"part")
    assert refused(s3.delete_bucket, Bucket=bucket)[1] == "BucketNotEmpty"
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload)
    assert refused(s3.list_parts, Bucket=bucket, Key="m", UploadId=upload) == (404, "NoSuchUpload")
    s3.delete_object(Bucket=bucket, Key="k")
    assert files() == before
    s3.delete_bucket(Bucket=bucket)


def test_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    data = os.urandom(20 * 1024 * 1024 + 7)
    path = tmp_path / "big"
    path.write_bytes(data)
    s3.upload_file(str(path), bucket, "big", ExtraArgs={"ServerSideEncryption": "aws:kms", "Tagging": "a=b"})
    assert s3.head_object(Bucket=bucket, Key="big")["ETag"].endswith('-3"')
    s3.download_file(bucket, "big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    across = s3.get_object(Bucket=bucket, Key="big", Range="bytes=8388600-8388620")["Body"].read()
    assert across == data[8388600:8388621]
    assert s3.get_object_tagging(Bucket=bucket, Key="big")["TagSet"] == [{"Key": "a", "Value": "b"}]
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big"})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == data
    summed = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/big", ChecksumAlgorithm="SHA256")
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert summed["CopyObjectResult"]["ChecksumSHA256"] == digest
    [listed_copy] = s3.list_object_versions(Bucket=bucket, Prefix="copy")["Versions"]
    assert listed_copy["ChecksumAlgorithm"] == ["SHA256"]
    for owner in ("1234", "abcd"):
        asked = refused(s3.get_object, Bucket=bucket, Key="copy", ExpectedBucketOwner=owner)
        assert asked == (400, "InvalidBucketOwnerAWSAccountID")
    given = {"Bucket": bucket, "Key": "tagged", "Body": b"x"}
    assert refused(s3.put_object, **given, Tagging="key1=val1,key2=val2") == (400, "InvalidArgument")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    parts = [
        s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=b"small") for number in (1, 2)
    ]
    listed = [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(parts, 1)]
    ask = {"Bucket": bucket, "Key": "m", "UploadId": upload}
    assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": listed})[1] == "EntityTooSmall"
    assert (
        refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": listed[::-1]})[1] == "InvalidPartOrder"
    )
    # A checksum is checked, or refused: an upload that was not begun with one has none.
    claimed = [{**listed[1], "ChecksumSHA256": digest}]
    assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": claimed})[1] == "InvalidPart"
    assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": []})[1] == "InvalidRequest"
    wrong = [{"PartNumber": 3, "ETag": "x"}]
    assert refused(s3.complete_multipart_upload, **ask, MultipartUpload={"Parts": wrong})[1] == "InvalidPart"
    s3.complete_multipart_upload(**ask, MultipartUpload={"Parts": listed[1:]})
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == b"small"


def test_the_etag_of_parts_and_of_their_object(s3: Any, bucket: str) -> None:
    """In the clear on AWS: MD5, and MD5 of the parts' MD5. Under a key it tells no digest, but a part that is sent again
    has the one that it had."""
    for size, sse in [(1000, "AES256"), (70_000, "AES256"), (1000, "aws:kms"), (70_000, "aws:kms")]:
        data = os.urandom(size)
        told = {"Bucket": bucket, "Key": f"{sse}/{size}"}
        upload = s3.create_multipart_upload(**told, ServerSideEncryption=sse)["UploadId"]
        part = {**told, "UploadId": upload, "PartNumber": 1}
        etag = s3.upload_part(**part, Body=data)["ETag"]
        assert s3.upload_part(**part, Body=data[::-1])["ETag"] != etag
        assert s3.upload_part(**part, Body=data)["ETag"] == etag
        listed = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        whole = s3.complete_multipart_upload(**told, UploadId=upload, MultipartUpload=listed)["ETag"].strip('"')
        md5 = hashlib.md5(data, usedforsecurity=False)
        known = f"{hashlib.md5(md5.digest(), usedforsecurity=False).hexdigest()}-1"
        assert (etag.strip('"') == md5.hexdigest()) == (sse == "AES256")
        assert (whole == known) == (sse == "AES256")
        assert whole.endswith("-1")
        again = s3.put_object(**told, Body=data, ServerSideEncryption=sse)["ETag"].strip('"')
        assert (again == md5.hexdigest()) == (sse == "AES256")


def test_a_full_object_checksum_is_that_of_the_whole(s3: Any, bucket: str) -> None:
    import base64
    import zlib

    pieces = [os.urandom(5 * 1024 * 1024), os.urandom(1_234_567)]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")[
        "UploadId"
    ]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=piece, ChecksumAlgorithm="CRC32"
            )["ETag"],
        }
        for number, piece in enumerate(pieces, 1)
    ]
    done = s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, ChecksumType="FULL_OBJECT"
    )
    wanted = base64.b64encode(zlib.crc32(b"".join(pieces)).to_bytes(4, "big")).decode()
    assert done["ChecksumCRC32"] == wanted
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(pieces)


@pytest.fixture(scope="module")
def many(s3: Any) -> tuple[str, list[str]]:
    name = f"many-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    keys = [f"{a}{sep}{b}" for a in ("a", "ab", "b", "é") for sep in ("", "/", "//", "-") for b in ("", "x", "y/z")]
    keys = sorted({key for key in keys if key}, key=str.encode)
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=b"")
    return name, keys


def model(keys: list[str], prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    """What a list shows: keys and common prefixes."""
    found, prefixes = [], []
    for key in keys:
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                found.append(key)
            elif key[: cut + len(delimiter)] not in prefixes:
                prefixes.append(key[: cut + len(delimiter)])
    return found, prefixes


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    prefix=st.sampled_from(["", "a", "a/", "ab", "a//", "zz", "é"]),
    delimiter=st.sampled_from(["", "/", "//", "b"]),
    size=st.sampled_from([1, 2, 3, 7, 1000]),
    operation=st.sampled_from(["list_objects_v2", "list_objects", "list_object_versions"]),
)
def test_every_list_is_the_same_in_pages(
    s3: Any, many: tuple[str, list[str]], prefix: str, delimiter: str, size: int, operation: str
) -> None:
    bucket, keys = many
    found, prefixes = [], []
    pages = s3.get_paginator(operation).paginate(
        Bucket=bucket, Prefix=prefix, Delimiter=delimiter, PaginationConfig={"PageSize": size}
    )
    for page in pages:
        assert len(page.get("Contents", ())) + len(page.get("CommonPrefixes", ())) <= size
        found += [one["Key"] for one in page.get("Versions", page.get("Contents", ()))]
        prefixes += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
    assert (found, prefixes) == model(keys, prefix, delimiter)


def test_a_token_is_for_its_list_only(s3: Any, many: tuple[str, list[str]]) -> None:
    token = s3.list_objects_v2(Bucket=many[0], MaxKeys=1)["NextContinuationToken"]
    assert refused(s3.list_objects_v2, Bucket=many[0], MaxKeys=1, Prefix="a", ContinuationToken=token)[1] == (
        "InvalidArgument"
    )


def test_tags(s3: Any, home: Account, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="open", Body=b"1", Tagging="security=public")
    s3.put_object(Bucket=bucket, Key="shut", Body=b"2", Tagging="security=secret")
    only_public = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    name = f"tags-{uuid.uuid4().hex[:8]}"
    home.role(name, allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*", Condition=only_public))
    reader = home.client("s3", home.as_role(name))
    assert reader.get_object(Bucket=bucket, Key="open")["Body"].read() == b"1"
    assert refused(reader.get_object, Bucket=bucket, Key="shut") == (403, "AccessDenied")
    s3.put_object_tagging(Bucket=bucket, Key="open", Tagging={"TagSet": [{"Key": "security", "Value": "secret"}]})
    assert refused(reader.get_object, Bucket=bucket, Key="open") == (403, "AccessDenied")
    s3.delete_object_tagging(Bucket=bucket, Key="open")
    assert s3.get_object_tagging(Bucket=bucket, Key="open")["TagSet"] == []
    assert refused(s3.put_object, Bucket=bucket, Key="x", Body=b"", Tagging="a=1&a=2")[1] == "InvalidArgument"


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    running = Running(tmp_path / "data")
    running.start()
    try:
        s3 = running.client("s3")
        name = f"kept-{uuid.uuid4().hex[:12]}"
        s3.create_bucket(Bucket=name)
        kept = {f"k{size}": os.urandom(size) for size in (0, 1000, 20_000, 300_000)}
        for key, body in kept.items():
            s3.put_object(Bucket=name, Key=key, Body=body)
        upload = s3.create_multipart_upload(Bucket=name, Key="m", ServerSideEncryption="aws:kms")["UploadId"]
        part = s3.upload_part(Bucket=name, Key="m", UploadId=upload, PartNumber=1, Body=b"part")
        running.kill()
        orphan = running.data / "objects" / "00" / ("0" * 32)
        orphan.write_bytes(b"left by a killed upload")
        running.launch()
        assert not orphan.exists()
        s3 = running.client("s3")
        for key, body in kept.items():
            assert s3.get_object(Bucket=name, Key=key)["Body"].read() == body
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        s3.complete_multipart_upload(Bucket=name, Key="m", UploadId=upload, MultipartUpload=parts)
        assert s3.get_object(Bucket=name, Key="m")["Body"].read() == b"part"
    finally:
        running.stop()


def test_checksums_are_asked_for_in_any_case(s3: Any, bucket: str) -> None:
    """AWS's C++ SDK writes `enabled`; the model knows `ENABLED` only."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="CRC32")

    def lowered(request: Any, **_: Any) -> None:
        del request.headers["x-amz-checksum-mode"]
        request.headers["x-amz-checksum-mode"] = "enabled"

    s3.meta.events.register("before-sign.s3.GetObject", lowered)
    try:
        assert "ChecksumCRC32" in s3.get_object(Bucket=bucket, Key="k")
    finally:
        s3.meta.events.unregister("before-sign.s3.GetObject", lowered)
