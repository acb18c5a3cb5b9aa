"""Object Lock with a real client: what holds a version, who may let it go, and that nothing else does."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import time
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Running, allow
from tests.stories.s3.test_forms import send
from tests.waiting import until

DAY = datetime.timedelta(days=1)
DENIED = (403, "AccessDenied")
MISSING = (400, "InvalidRequest")


def refused(call: Any, **given: Any) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def later(**by: float) -> datetime.datetime:
    """A moment in whole seconds, as they are kept."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(**by)).replace(microsecond=0)


def rule(**default: Any) -> dict[str, Any]:
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": default}}


@pytest.fixture(scope="module")
def home(platform: Running) -> Account:
    return platform.account()


@pytest.fixture(scope="module")
def s3(home: Account) -> Any:
    return home.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"locked-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture(scope="module")
def plain(s3: Any) -> str:
    """A bucket without Object Lock."""
    name = f"plain-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


def put(s3: Any, bucket: str, mode: str = "COMPLIANCE", key: str = "k", **more: Any) -> dict[str, Any]:
    """A retained version; returns what names it."""
    lock = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": later(days=1)}
    answer = s3.put_object(Bucket=bucket, Key=key, Body=b"kept", **{**lock, **more})
    return {"Bucket": bucket, "Key": key, "VersionId": answer["VersionId"]}


# -- what an administrator can do ----------------------------------------------------------------------------------------


def test_no_administrator_removes_what_compliance_holds(home: Account, s3: Any, bucket: str) -> None:
    it = put(s3, bucket)
    assert refused(s3.delete_object, **it) == DENIED
    assert refused(s3.delete_object, **it, BypassGovernanceRetention=True) == DENIED
    one = {"Key": it["Key"], "VersionId": it["VersionId"]}
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [one]}, BypassGovernanceRetention=True)
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("k", "AccessDenied")]
    assert "Deleted" not in answer
    # Writing over it, by all ways, puts something beside it.
    s3.put_object(Bucket=bucket, Key="k", Body=b"over")
    s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k"}, MetadataDirective="REPLACE")
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"parts")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True and refused(s3.get_object, Bucket=bucket, Key="k") == (404, "NoSuchKey")
    # The bucket can neither forget its versions, nor its lock, nor go.
    suspended = {"Bucket": bucket, "VersioningConfiguration": {"Status": "Suspended"}}
    assert refused(s3.put_bucket_versioning, **suspended) == (409, "InvalidBucketState")
    disabled = {"ObjectLockEnabled": "Disabled"}
    given = {"Bucket": bucket, "ObjectLockConfiguration": disabled}
    assert refused(s3.put_object_lock_configuration, **given) == (400, "MalformedXML")
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    assert refused(s3.delete_bucket, Bucket=bucket) == (409, "BucketNotEmpty")
    # A bucket policy allows nothing that the lock forbids.
    arn = f"arn:aws:s3:::{bucket}"
    everything = {
        "Effect": "Allow", "Principal": {"AWS": home.id}, "Action": "s3:*", "Resource": [arn, f"{arn}/*"],
    }  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everything]}))
    assert refused(s3.delete_object, **it, BypassGovernanceRetention=True) == DENIED
    # Its retention is neither shortened, nor weakened, nor taken away.
    for retention in (
        {"Mode": "COMPLIANCE", "RetainUntilDate": later(hours=1)},
        {"Mode": "GOVERNANCE", "RetainUntilDate": later(days=9)},
        {},
    ):
        given = {**it, "Retention": retention, "BypassGovernanceRetention": True}
        assert refused(s3.put_object_retention, **given) == DENIED, retention
    # What is not locked goes, and the locked version is the current one again.
    for found in s3.list_object_versions(Bucket=bucket)["Versions"]:
        if found["VersionId"] != it["VersionId"]:
            s3.delete_object(Bucket=bucket, Key="k", VersionId=found["VersionId"])
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"
    longer = later(days=3)
    s3.put_object_retention(**it, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": longer})
    assert s3.get_object_retention(**it)["Retention"] == {"Mode": "COMPLIANCE", "RetainUntilDate": longer}


def test_retention_ends_by_itself(s3: Any, bucket: str) -> None:
    it = put(s3, bucket, "GOVERNANCE")
    assert refused(s3.delete_object, **it) == DENIED

    def shortened() -> bool:
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": soon}
        try:  # a moment that is over by now is refused
            s3.put_object_retention(**it, Retention=retention, BypassGovernanceRetention=True)
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidArgument", error
            return False
        return True

    until(shortened)
    end = s3.get_object_retention(**it)["Retention"]["RetainUntilDate"]
    time.sleep(max(0.0, (end - datetime.datetime.now(datetime.UTC)).total_seconds()) + 0.05)
    s3.put_object_legal_hold(**it, LegalHold={"Status": "ON"})
    assert refused(s3.delete_object, **it) == DENIED
    s3.put_object_legal_hold(**it, LegalHold={"Status": "OFF"})
    s3.delete_object(**it)
    assert refused(s3.get_object, **it) == (404, "NoSuchVersion")


# -- who may let go ------------------------------------------------------------------------------------------------------


def test_governance_yields_to_a_permission_that_is_used(home: Account, s3: Any, bucket: str) -> None:
    it, other = put(s3, bucket, "GOVERNANCE"), put(s3, bucket, "GOVERNANCE", "other")
    free = s3.put_object(Bucket=bucket, Key="free", Body=b"")["VersionId"]
    deletes = ("s3:DeleteObject*", "s3:PutObjectRetention")
    home.role("cleaner", allow(*deletes))
    home.role("officer", allow(*deletes, "s3:BypassGovernanceRetention"))
    cleaner, officer = (home.client("s3", home.as_role(name)) for name in ("cleaner", "officer"))
    assert refused(officer.delete_object, **it) == DENIED  # allowed, but not said
    assert refused(cleaner.delete_object, **it, BypassGovernanceRetention=True) == DENIED
    cleaner.delete_object(Bucket=bucket, Key="free", VersionId=free, BypassGovernanceRetention=True)
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": later(hours=1)}
    longer = {"Mode": "GOVERNANCE", "RetainUntilDate": later(days=5)}
    assert refused(officer.put_object_retention, **it, Retention=shorter) == DENIED
    assert refused(cleaner.put_object_retention, **it, Retention=shorter, BypassGovernanceRetention=True) == DENIED
    cleaner.put_object_retention(**it, Retention=longer)
    assert refused(officer.put_object_retention, **it, Retention={}) == DENIED
    officer.put_object_retention(**it, Retention=shorter, BypassGovernanceRetention=True)
    officer.put_object_retention(**it, Retention={}, BypassGovernanceRetention=True)
    assert refused(s3.get_object_retention, **it) == (404, "NoSuchObjectLockConfiguration")
    cleaner.delete_object(**it)
    both = {"Objects": [{"Key": "other", "VersionId": other["VersionId"]}]}
    assert cleaner.delete_objects(Bucket=bucket, Delete=both, BypassGovernanceRetention=True)["Errors"]
    s3.put_object_legal_hold(**other, LegalHold={"Status": "ON"})
    assert officer.delete_objects(Bucket=bucket, Delete=both, BypassGovernanceRetention=True)["Errors"]
    s3.put_object_legal_hold(**other, LegalHold={"Status": "OFF"})
    done = officer.delete_objects(Bucket=bucket, Delete=both, BypassGovernanceRetention=True)
    assert [one["Key"] for one in done["Deleted"]] == ["other"] and "Errors" not in done


def test_locking_and_looking_are_permissions(home: Account, s3: Any, bucket: str) -> None:
    home.role("writer", allow("s3:PutObject", "s3:GetObject*"))
    home.role("reader", allow("s3:GetObject", "s3:GetObjectVersion"))
    writer, reader = (home.client("s3", home.as_role(name)) for name in ("writer", "reader"))
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(days=1)}
    for more in (lock, {"ObjectLockLegalHoldStatus": "ON"}):
        assert refused(writer.put_object, Bucket=bucket, Key="k", Body=b"", **more) == DENIED
        assert refused(writer.create_multipart_upload, Bucket=bucket, Key="k", **more) == DENIED
    it = put(s3, bucket, "GOVERNANCE", ObjectLockLegalHoldStatus="ON")
    copied = {"Bucket": bucket, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "k"}}
    assert refused(writer.copy_object, **copied, **lock) == DENIED
    names = ("ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus")
    shown = writer.head_object(**it)
    assert [shown[name] for name in names] == [
        "GOVERNANCE",
        s3.get_object_retention(**it)["Retention"]["RetainUntilDate"],
        "ON",
    ]
    assert not any(name in reader.head_object(**it) or name in reader.get_object(**it) for name in names)
    assert refused(reader.get_object_retention, **it) == DENIED
    assert refused(reader.get_object_legal_hold, **it) == DENIED


def test_a_policy_bounds_how_long(home: Account, s3: Any, bucket: str) -> None:
    policy = allow("s3:PutObject*")
    bound = {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "10"}}
    mode = {"StringEquals": {"s3:object-lock-mode": "COMPLIANCE"}}
    policy["Statement"] += [
        {"Effect": "Deny", "Action": "s3:PutObjectRetention", "Resource": "*", "Condition": one}
        for one in (bound, mode)
    ]
    home.role("bounded", policy)
    bounded = home.client("s3", home.as_role("bounded"))
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(days=5)}
    bounded.put_object(Bucket=bucket, Key="k", Body=b"", **lock)
    for more in ({"ObjectLockRetainUntilDate": later(days=12)}, {"ObjectLockMode": "COMPLIANCE"}):
        assert refused(bounded.put_object, Bucket=bucket, Key="k", Body=b"", **{**lock, **more}) == DENIED
    far = {"Mode": "GOVERNANCE", "RetainUntilDate": later(days=12)}
    assert refused(bounded.put_object_retention, Bucket=bucket, Key="k", Retention=far) == DENIED


# -- how a version comes to its lock -------------------------------------------------------------------------------------


def test_a_default_retains_what_brings_none(s3: Any, bucket: str) -> None:
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule(Mode="GOVERNANCE", Days=2))
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == rule(Mode="GOVERNANCE", Days=2)
    before = datetime.datetime.now(datetime.UTC)
    s3.put_object(Bucket=bucket, Key="put", Body=b"")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "put"})
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"parts")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    for key in ("put", "copy", "parts"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ObjectLockMode"] == "GOVERNANCE"
        assert 2 * DAY <= head["ObjectLockRetainUntilDate"] - before < 2 * DAY + datetime.timedelta(minutes=2)
        assert refused(s3.delete_object, Bucket=bucket, Key=key, VersionId=head["VersionId"]) == DENIED
    own = put(s3, bucket, "COMPLIANCE", "own")
    assert s3.head_object(**own)["ObjectLockMode"] == "COMPLIANCE"
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule(Mode="COMPLIANCE", Years=1))
    s3.put_object(Bucket=bucket, Key="year", Body=b"")
    length = s3.head_object(Bucket=bucket, Key="year")["ObjectLockRetainUntilDate"] - before
    assert datetime.timedelta(days=365) <= length <= datetime.timedelta(days=366, minutes=2)


def test_uploads_in_parts_copies_and_forms_bring_a_lock(home: Account, s3: Any, bucket: str) -> None:
    lock = {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": later(days=1),
        "ObjectLockLegalHoldStatus": "ON",
    }
    upload = {"Bucket": bucket, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **lock)["UploadId"]
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"parts")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    source = {"Bucket": bucket, "Key": "parts"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **lock)
    s3.copy_object(Bucket=bucket, Key="bare", CopySource=source)
    fields = {
        "x-amz-object-lock-mode": "COMPLIANCE",
        "x-amz-object-lock-retain-until-date": lock["ObjectLockRetainUntilDate"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-amz-object-lock-legal-hold": "ON",
    }
    form = s3.generate_presigned_post(
        bucket, "form", Fields=dict(fields), Conditions=[{k: v} for k, v in fields.items()]
    )
    status, _, told = send(home, bucket, form["fields"], b"content")
    assert status == 204, told
    for key in ("parts", "copy", "form"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert {name: head[name] for name in lock} == lock, key
        assert refused(s3.delete_object, Bucket=bucket, Key=key, VersionId=head["VersionId"]) == DENIED
    bare = s3.head_object(Bucket=bucket, Key="bare")
    assert not set(lock) & set(bare)
    s3.delete_object(Bucket=bucket, Key="bare", VersionId=bare["VersionId"])


def test_an_existing_bucket_is_locked_when_it_has_versions(s3: Any) -> None:
    name = f"grown-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="old", Body=b"null")
    given = {"Bucket": name, "ObjectLockConfiguration": rule(Mode="GOVERNANCE", Days=1)}
    for status in ("", "Suspended"):
        if status:
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
        assert refused(s3.put_object_lock_configuration, **given) == (409, "InvalidBucketState")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(**given)
    null = {"Bucket": name, "Key": "old", "VersionId": "null"}
    assert refused(s3.get_object_retention, **null) == (404, "NoSuchObjectLockConfiguration")
    s3.put_object_legal_hold(**null, LegalHold={"Status": "ON"})
    s3.put_object(Bucket=name, Key="old", Body=b"new")
    assert refused(s3.delete_object, **null) == DENIED
    assert s3.get_object(**null)["Body"].read() == b"null"
    s3.put_object_legal_hold(**null, LegalHold={"Status": "OFF"})
    s3.delete_object(**null)


# -- what is no lock -----------------------------------------------------------------------------------------------------


def test_a_bucket_without_a_lock(s3: Any, plain: str) -> None:
    s3.put_object(Bucket=plain, Key="k", Body=b"")
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(days=1)}
    it = {"Bucket": plain, "Key": "k"}
    assert refused(s3.put_object, **it, Body=b"", **lock) == MISSING
    assert refused(s3.put_object, **it, Body=b"", ObjectLockLegalHoldStatus="OFF") == MISSING
    assert refused(s3.create_multipart_upload, **it, **lock) == MISSING
    assert refused(s3.copy_object, Bucket=plain, Key="to", CopySource=it, **lock) == MISSING
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": later(days=1)}
    assert refused(s3.put_object_retention, **it, Retention=retention) == MISSING
    assert refused(s3.get_object_retention, **it) == MISSING
    assert refused(s3.put_object_legal_hold, **it, LegalHold={"Status": "ON"}) == MISSING
    assert refused(s3.get_object_legal_hold, **it) == MISSING
    assert refused(s3.get_object_lock_configuration, Bucket=plain) == (404, "ObjectLockConfigurationNotFoundError")


def test_what_is_no_lock_is_said(s3: Any, bucket: str) -> None:
    date = later(days=1)
    for wrong in (
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": date},
        {"ObjectLockMode": "governance", "ObjectLockRetainUntilDate": date},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(days=-1)},
        {"ObjectLockLegalHoldStatus": "MAYBE"},
    ):
        assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"", **wrong) == (400, "InvalidArgument"), wrong
    it = put(s3, bucket, "GOVERNANCE")
    for retention in ({"Mode": "GOVERNANCE"}, {"RetainUntilDate": date}, {"Mode": "x", "RetainUntilDate": date}):
        given = {**it, "Retention": retention, "BypassGovernanceRetention": True}
        assert refused(s3.put_object_retention, **given) == (400, "MalformedXML"), retention
    past = {"Mode": "GOVERNANCE", "RetainUntilDate": later(days=-1)}
    given = {**it, "Retention": past, "BypassGovernanceRetention": True}
    assert refused(s3.put_object_retention, **given) == (400, "InvalidArgument")
    assert refused(s3.put_object_legal_hold, **it, LegalHold={"Status": "x"}) == (400, "MalformedXML")
    for default, code in (
        ({"Mode": "GOVERNANCE"}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "x", "Days": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Days": 36501}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Years": 101}, "InvalidRetentionPeriod"),
    ):
        given = {"Bucket": bucket, "ObjectLockConfiguration": rule(**default)}
        assert refused(s3.put_object_lock_configuration, **given) == (400, code), default
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    given = {"Bucket": bucket, "Key": "k", "VersionId": marker}
    assert refused(s3.put_object_legal_hold, **given, LegalHold={"Status": "ON"}) == (405, "MethodNotAllowed")
    assert refused(s3.get_object_retention, Bucket=bucket, Key="none") == (404, "NoSuchKey")


def test_locked_content_comes_with_a_digest(home: Account, s3: Any, bucket: str) -> None:
    bare = home.client("s3", request_checksum_calculation="when_required")
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": later(days=1)}
    assert refused(bare.put_object, Bucket=bucket, Key="k", Body=b"x", **lock) == MISSING
    assert refused(s3.get_object, Bucket=bucket, Key="k") == (404, "NoSuchKey")
    md5 = base64.b64encode(hashlib.md5(b"x", usedforsecurity=False).digest()).decode()
    bare.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=md5, **lock)


# -- beside it -----------------------------------------------------------------------------------------------------------


def test_what_ownership_there_is(home: Account, s3: Any, plain: str) -> None:
    given = {"Bucket": plain, "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}}
    s3.put_bucket_ownership_controls(**given)
    s3.delete_bucket_ownership_controls(Bucket=plain)
    missing = (404, "OwnershipControlsNotFoundError")
    assert refused(s3.get_bucket_ownership_controls, Bucket=plain) == missing
    assert (
        refused(s3.put_object, Bucket=plain, Key="k", Body=b"", ACL="public-read")[1] == "AccessControlListNotSupported"
    )
    s3.put_bucket_ownership_controls(**given)
    assert s3.get_bucket_ownership_controls(Bucket=plain)["OwnershipControls"] == given["OwnershipControls"]
    for other in ("ObjectWriter", "BucketOwnerPreferred"):
        given["OwnershipControls"] = {"Rules": [{"ObjectOwnership": other}]}
        assert refused(s3.put_bucket_ownership_controls, **given) == (501, "NotImplemented")
    given["OwnershipControls"] = {"Rules": [{"ObjectOwnership": "Nobody"}]}
    assert refused(s3.put_bucket_ownership_controls, **given) == (400, "MalformedXML")
    assert s3.get_bucket_policy_status(Bucket=plain)["PolicyStatus"] == {"IsPublic": False}
    home.role("maker", allow("s3:CreateBucket"))
    maker = home.client("s3", home.as_role("maker"))
    name = f"made-{uuid.uuid4().hex[:12]}"
    for more in ({"ObjectLockEnabledForBucket": True}, {"ObjectOwnership": "BucketOwnerEnforced"}):
        assert refused(maker.create_bucket, Bucket=name, **more) == DENIED
    maker.create_bucket(Bucket=name)


def test_parts_are_read_one_by_one(s3: Any, plain: str) -> None:
    upload = {"Bucket": plain, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]
    bodies = {2: b"a" * 5 * 1024 * 1024, 5: b"b" * 5 * 1024 * 1024, 9: b"end"}
    parts, sums = [], {}
    for number, body in bodies.items():
        done = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256")
        sums[number] = done["ChecksumSHA256"]
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumSHA256": sums[number]})
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    it = {"Bucket": plain, "Key": "parts"}
    for number, body in bodies.items():
        got = s3.get_object(**it, PartNumber=number)
        assert got["Body"].read() == body and got["PartsCount"] == 3 and got["ChecksumSHA256"] == sums[number]
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert s3.head_object(**it, PartNumber=number)["ContentLength"] == len(body)
    assert refused(s3.get_object, **it, PartNumber=1) == (416, "InvalidPartNumber")
    assert refused(s3.get_object, **it, PartNumber=2, Range="bytes=0-1") == (400, "InvalidRequest")
    page = s3.get_object_attributes(**it, ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=2)[
        "ObjectParts"
    ]
    assert (page["TotalPartsCount"], page["IsTruncated"], page["NextPartNumberMarker"]) == (3, True, 5)
    assert page["Parts"] == [{"PartNumber": 5, "Size": len(bodies[5]), "ChecksumSHA256": sums[5]}]
    rest = s3.get_object_attributes(**it, ObjectAttributes=["ObjectParts"], PartNumberMarker=5)["ObjectParts"]
    assert [one["PartNumber"] for one in rest["Parts"]] == [9] and rest["IsTruncated"] is False
    s3.put_object(Bucket=plain, Key="whole", Body=b"whole")
    assert s3.get_object(Bucket=plain, Key="whole", PartNumber=1)["Body"].read() == b"whole"
    assert refused(s3.get_object, Bucket=plain, Key="whole", PartNumber=2) == (416, "InvalidPartNumber")


def test_another_owner_than_expected(home: Account, s3: Any, bucket: str) -> None:
    it = put(s3, bucket, "GOVERNANCE", ObjectLockLegalHoldStatus="ON")
    stranger = {"ExpectedBucketOwner": "123456789012"}
    hold = {"LegalHold": {"Status": "OFF"}}
    assert refused(s3.put_object_legal_hold, **it, **hold, **stranger) == DENIED
    assert refused(s3.get_object_lock_configuration, Bucket=bucket, **stranger) == DENIED
    assert refused(s3.get_bucket_ownership_controls, Bucket=bucket, **stranger) == DENIED
    assert s3.get_object_legal_hold(**it, ExpectedBucketOwner=home.id)["LegalHold"] == {"Status": "ON"}
