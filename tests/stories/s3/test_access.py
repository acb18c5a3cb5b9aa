"""Who may what in S3: policies, public access, encryption under keys, several objects in one call."""

from __future__ import annotations

import json
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow, lies_in, on_disk


def refused(call: Any, **given: Any) -> tuple[int, str]:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def statement(**given: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **given}]})


@pytest.fixture
def bucket(account: Account) -> str:
    name = f"access-{uuid.uuid4().hex[:12]}"
    account.client("s3").create_bucket(Bucket=name)
    return name


def test_names_are_one_for_all_accounts(account: Account, neighbour: Account, bucket: str) -> None:
    assert refused(neighbour.client("s3").create_bucket, Bucket=bucket) == (409, "BucketAlreadyExists")
    west = {"LocationConstraint": "eu-west-1"}
    there = account.client("s3", region="eu-west-1")
    name = f"west-{uuid.uuid4().hex[:12]}"
    there.create_bucket(Bucket=name, CreateBucketConfiguration=west)
    assert refused(there.create_bucket, Bucket=name, CreateBucketConfiguration=west) == (409, "BucketAlreadyOwnedByYou")
    assert refused(there.create_bucket, Bucket=name + "x")[1] == "IllegalLocationConstraintException"
    assert account.client("s3").get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    listed = {one["Name"]: one["BucketRegion"] for one in account.client("s3").list_buckets()["Buckets"]}
    assert listed == {bucket: "us-east-1", name: "eu-west-1"}
    for bad in ("Upper", "a", "a..b", "192.168.1.1", "xn--a"):
        assert refused(account.client("s3").create_bucket, Bucket=bad)[1] in ("InvalidBucketName", "ParamValidation")


def test_a_request_is_signed_for_the_buckets_region(account: Account) -> None:
    name = f"west-{uuid.uuid4().hex[:12]}"
    account.client("s3", region="eu-west-1").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    # boto3 is told the region by the refusal and asks again.
    account.client("s3").put_object(Bucket=name, Key="k", Body=b"x")
    assert account.client("s3", region="eu-west-1").get_object(Bucket=name, Key="k")["Body"].read() == b"x"


def test_what_is_missing_is_told_to_those_who_may_list(account: Account, bucket: str) -> None:
    account.role("reader", allow("s3:GetObject"))
    reader = account.client("s3", account.as_role("reader"))
    assert refused(reader.get_object, Bucket=bucket, Key="no") == (403, "AccessDenied")
    assert refused(reader.head_object, Bucket=bucket, Key="no")[0] == 403
    account.role("lister", allow("s3:GetObject", "s3:ListBucket"))
    assert refused(account.client("s3", account.as_role("lister")).get_object, Bucket=bucket, Key="no") == (
        404,
        "NoSuchKey",
    )
    assert refused(account.client("s3").get_object, Bucket=f"{bucket}-no", Key="no") == (404, "NoSuchBucket")


def test_both_accounts_have_to_allow(account: Account, neighbour: Account, bucket: str) -> None:
    s3, other = account.client("s3"), neighbour.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(other.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    s3.put_bucket_policy(
        Bucket=bucket,
        Policy=statement(
            Principal={"AWS": f"arn:aws:iam::{neighbour.id}:root"},
            Action=["s3:GetObject", "s3:PutObject", "s3:GetBucketPolicy"],
            Resource=[f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        ),
    )
    assert other.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert refused(other.get_bucket_policy, Bucket=bucket) == (405, "MethodNotAllowed")
    neighbour.role("nothing", allow("s3:ListAllMyBuckets"))
    nothing = neighbour.client("s3", neighbour.as_role("nothing"))
    assert refused(nothing.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    assert refused(s3.get_object, Bucket=bucket, Key="k", ExpectedBucketOwner=neighbour.id) == (403, "AccessDenied")


def test_public_access_is_blocked(account: Account, neighbour: Account, bucket: str) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    everybody = statement(Principal="*", Action="s3:GetObject", Resource=f"arn:aws:s3:::{bucket}/*")
    assert refused(s3.put_bucket_policy, Bucket=bucket, Policy=everybody) == (403, "AccessDenied")
    flags = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": True,
    }
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=flags)
    s3.put_bucket_policy(Bucket=bucket, Policy=everybody)
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    assert refused(neighbour.client("s3").get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.delete_public_access_block(Bucket=bucket)
    assert neighbour.client("s3").get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert refused(s3.get_public_access_block, Bucket=bucket)[1] == "NoSuchPublicAccessBlockConfiguration"


def test_policies_that_are_none(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    who = {"AWS": f"arn:aws:iam::{account.id}:root"}
    for policy in (
        "{}",
        "not json",
        statement(Principal=who, Action="s3:GetObject", Resource="arn:aws:s3:::another/*"),
        statement(Principal=who, Action="s3:GetObject", Resource=f"arn:aws:s3:::{bucket}-longer/*"),
        statement(Principal=who, Action="kms:Decrypt", Resource=f"arn:aws:s3:::{bucket}/*"),
        statement(Principal=who, Action="s3:GetObject"),
    ):
        assert refused(s3.put_bucket_policy, Bucket=bucket, Policy=policy)[1] == "MalformedPolicy", policy
    assert refused(s3.get_bucket_policy, Bucket=bucket) == (404, "NoSuchBucketPolicy")


def test_who_may_not_use_the_key_may_not_read(account: Account, bucket: str) -> None:
    s3, kms = account.client("s3"), account.client("kms")
    key = kms.create_key()["KeyMetadata"]
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["Arn"]}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [default]})
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"secret")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", key["Arn"])
    account.role("without", allow("s3:*"))
    without = account.client("s3", account.as_role("without"))
    assert refused(without.get_object, Bucket=bucket, Key="k") == (403, "AccessDenied")
    assert refused(without.put_object, Bucket=bucket, Key="k", Body=b"x") == (403, "AccessDenied")
    assert refused(
        without.copy_object, Bucket=bucket, Key="c", CopySource=f"{bucket}/k", ServerSideEncryption="AES256"
    ) == (403, "AccessDenied")
    assert refused(without.create_multipart_upload, Bucket=bucket, Key="m") == (403, "AccessDenied")
    via = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}
    both = allow("s3:*")
    both["Statement"] += allow("kms:Decrypt", "kms:GenerateDataKey", resource=key["Arn"], Condition=via)["Statement"]
    account.role("with", both)
    keys = account.as_role("with")
    assert account.client("s3", keys).get_object(Bucket=bucket, Key="k")["Body"].read() == b"secret"
    assert refused(account.client("kms", keys).generate_data_key, KeyId=key["Arn"], KeySpec="AES_256")[1] == (
        "AccessDeniedException"
    )
    kms.disable_key(KeyId=key["KeyId"])
    assert refused(s3.get_object, Bucket=bucket, Key="k") == (400, "KMS.DisabledException")
    kms.enable_key(KeyId=key["KeyId"])
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"", ServerSideEncryption="aws:kms", SSEKMSKeyId="no")[
        1
    ] == ("KMS.NotFoundException")


def test_nothing_in_clear_on_the_disk(account: Account, bucket: str) -> None:
    marker = b"CLEAR-" + uuid.uuid4().hex.encode()
    s3 = account.client("s3")
    s3.put_object(Bucket=bucket, Key="own", Body=marker * 3)
    s3.put_object(Bucket=bucket, Key="kms", Body=marker * 9000, ServerSideEncryption="aws:kms")
    for path in on_disk(account.platform.data):
        assert not lies_in(path, marker), path


def test_a_copy_asks_both_sides(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=bucket, Key="from", Body=b"x", Tagging="a=b", ContentType="text/x")
    inside = f"arn:aws:s3:::{bucket}"
    account.role("half", allow("s3:PutObject", "s3:PutObjectTagging", resource=f"{inside}/to"))
    half = account.client("s3", account.as_role("half"))
    asked = {"Bucket": bucket, "Key": "to", "CopySource": {"Bucket": bucket, "Key": "from"}}
    assert refused(half.copy_object, **asked) == (403, "AccessDenied")
    policy = allow("s3:PutObject", resource=f"{inside}/to")
    policy["Statement"] += allow("s3:GetObject", "s3:GetObjectTagging", resource=f"{inside}/from")["Statement"]
    account.role("untagged", policy)
    untagged = account.client("s3", account.as_role("untagged"))
    assert refused(untagged.copy_object, **asked) == (403, "AccessDenied")
    untagged.copy_object(**asked, TaggingDirective="REPLACE")
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == []
    s3.copy_object(**asked)
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert s3.head_object(Bucket=bucket, Key="to")["ContentType"] == "text/x"
    assert refused(s3.copy_object, Bucket=bucket, Key="from", CopySource=f"{bucket}/from")[1] == "InvalidRequest"


def test_many_are_deleted_one_by_one(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    for key in ("mine/1", "theirs/1"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    account.role("tidy", allow("s3:DeleteObject", resource=f"arn:aws:s3:::{bucket}/mine/*"))
    tidy = account.client("s3", account.as_role("tidy"))
    both = {"Objects": [{"Key": "mine/1"}, {"Key": "theirs/1"}]}
    done = tidy.delete_objects(Bucket=bucket, Delete=both)
    assert [one["Key"] for one in done["Deleted"]] == ["mine/1"]
    assert [(one["Key"], one["Code"]) for one in done["Errors"]] == [("theirs/1", "AccessDenied")]
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["theirs/1"]
    alone = {"Objects": [{"Key": "theirs/1"}]}
    none = tidy.delete_objects(Bucket=bucket, Delete=alone)
    assert [(one["Key"], one["Code"]) for one in none["Errors"]] == [("theirs/1", "AccessDenied")]
    # Whether there is such a bucket, they do not learn.
    nowhere = tidy.delete_objects(Bucket=f"{bucket}-not", Delete=alone)
    assert (nowhere["Errors"], "Deleted" in nowhere) == (none["Errors"], False)
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["theirs/1"]


def test_acls_are_the_owners(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"", ACL="public-read") == (
        400,
        "AccessControlListNotSupported",
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"", ACL="bucket-owner-full-control")
    assert [one["Permission"] for one in s3.get_bucket_acl(Bucket=bucket)["Grants"]] == ["FULL_CONTROL"]
    rules = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_prefixes_are_conditions(account: Account, bucket: str) -> None:
    account.role("home", allow("s3:ListBucket", Condition={"StringLike": {"s3:prefix": "home/me/*"}}))
    mine = account.client("s3", account.as_role("home"))
    mine.list_objects_v2(Bucket=bucket, Prefix="home/me/x")
    assert refused(mine.list_objects_v2, Bucket=bucket, Prefix="home/you/") == (403, "AccessDenied")
    assert refused(mine.list_objects_v2, Bucket=bucket) == (403, "AccessDenied")
    rule = {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}
    policy = allow("s3:PutObject")
    policy["Statement"].append({"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*", "Condition": rule})
    account.role("strict", policy)
    strict = account.client("s3", account.as_role("strict"))
    assert refused(strict.put_object, Bucket=bucket, Key="k", Body=b"") == (403, "AccessDenied")
    strict.put_object(Bucket=bucket, Key="k", Body=b"", ServerSideEncryption="aws:kms")
