"""S3's condition keys with real clients: what a policy demands of a request, of an object's tags, of the way it came."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow


def refused(call: Callable[..., Any], **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    found: dict[str, str] = error.value.response["Error"]
    assert found["Code"] in ("AccessDenied", "AccessDeniedException"), found
    return found["Message"]


def deny(action: str, **conditions: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": "*", "Condition": conditions}


class Shop:
    """A bucket, its administrator, and whoever reads and writes."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.s3 = account.client("s3")
        self.s3.create_bucket(Bucket=self.bucket)

    def guard(self, *statements: dict[str, Any]) -> None:
        arns = [f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/*"]
        held = [{**one, "Resource": arns} for one in statements]
        self.s3.put_bucket_policy(Bucket=self.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": held}))

    def role(self, name: str, *documents: dict[str, Any], **more: Any) -> Any:
        self.account.role(name, **more)
        for number, document in enumerate(documents):
            self.account.client("iam").put_role_policy(
                RoleName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(document)
            )
        return self.account.client("s3", self.account.as_role(name))

    def address(self, key: str) -> str:
        """A presigned URL of an object."""
        client = self.account.client("s3", signature_version="s3v4")
        return str(client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}))

    def put(self, key: str, **more: Any) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=key.encode(), **more)


@pytest.fixture
def shop(account: Account) -> Shop:
    return Shop(account)


def _tags(**given: str) -> dict[str, Any]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in given.items()]}


@pytest.mark.control("TAG-11")
def test_only_what_is_shared_is_read(shop: Shop, mission: Path) -> None:
    shared = json.loads((mission / "policies" / "51-s3-object-security-shared.json").read_text())
    reader = shop.role("Reader", shared, allow("s3:*"))
    only = shop.role("Only", shared)
    for key, tagging in (
        ("yes", "security=shared"),
        ("case", "security=Shared"),
        ("other", "security=secret"),
        ("no", ""),
    ):
        shop.put(key, Tagging=tagging)
    for one in (reader, only):
        assert one.get_object(Bucket=shop.bucket, Key="yes")["Body"].read() == b"yes"
        for key in ("case", "other", "no"):
            refused(one.get_object, Bucket=shop.bucket, Key=key)
    message = refused(reader.put_object_tagging, Bucket=shop.bucket, Key="no", Tagging=_tags(security="shared"))
    assert "explicit deny in an identity-based policy" in message
    refused(reader.get_object, Bucket=shop.bucket, Key="no")
    shop.s3.put_object_tagging(Bucket=shop.bucket, Key="no", Tagging=_tags(security="shared"))
    assert reader.get_object(Bucket=shop.bucket, Key="no")["Body"].read() == b"no"
    shop.s3.delete_object_tagging(Bucket=shop.bucket, Key="no")
    refused(reader.get_object, Bucket=shop.bucket, Key="no")


@pytest.mark.control("TAG-04")
def test_who_is_cleared_reads_what_is_sensitive(shop: Shop) -> None:
    """By tags of objects and of jobs; the same two statements bind whoever they are attached to."""
    account = shop.account
    sensitive = {"StringEquals": {"s3:ExistingObjectTag/sensitivity": "high"}}
    groups = {"StringEquals": {"aws:ResourceTag/sensitivity": "high"}}
    uncleared = {"StringNotEquals": {"aws:PrincipalTag/clearance": "high"}}
    changing = ["s3:GetObject", "s3:PutObjectTagging", "s3:DeleteObjectTagging"]
    tagging = ["sagemaker:DescribeModelPackageGroup", "sagemaker:AddTags", "sagemaker:DeleteTags"]
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:*", "sagemaker:*"], "Resource": "*"},
            {"Effect": "Deny", "Action": changing, "Resource": "*",
             "Condition": {"StringEquals": sensitive["StringEquals"], **uncleared}},
            {"Effect": "Deny", "Action": tagging, "Resource": "*",
             "Condition": {"StringEquals": groups["StringEquals"], **uncleared}},
        ],
    }  # fmt: skip
    shop.put("secret", Tagging="sensitivity=high")
    shop.put("plain", Tagging="sensitivity=low")
    account.client("sagemaker").create_model_package_group(
        ModelPackageGroupName="g", Tags=[{"Key": "sensitivity", "Value": "high"}]
    )
    arn = f"arn:aws:sagemaker:us-east-1:{account.id}:model-package-group/g"
    cleared = shop.role("Cleared", document, Tags=[{"Key": "clearance", "Value": "high"}])
    other = shop.role("Other", document, Tags=[{"Key": "clearance", "Value": "low"}])
    assert cleared.get_object(Bucket=shop.bucket, Key="secret")["Body"].read() == b"secret"
    assert other.get_object(Bucket=shop.bucket, Key="plain")["Body"].read() == b"plain"
    refused(other.get_object, Bucket=shop.bucket, Key="secret")
    refused(other.put_object_tagging, Bucket=shop.bucket, Key="secret", Tagging=_tags(sensitivity="low"))
    refused(other.delete_object_tagging, Bucket=shop.bucket, Key="secret")
    refused(other.get_object, Bucket=shop.bucket, Key="secret")
    sagemaker = account.client("sagemaker", account.as_role("Other"))
    refused(sagemaker.describe_model_package_group, ModelPackageGroupName="g")
    refused(sagemaker.delete_tags, ResourceArn=arn, TagKeys=["sensitivity"])
    refused(sagemaker.add_tags, ResourceArn=arn, Tags=[{"Key": "sensitivity", "Value": "low"}])
    trusted = account.client("sagemaker", account.as_role("Cleared"))
    assert trusted.describe_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupName"] == "g"


def test_uploads_in_parts_pass_a_policy_that_demands_a_key(shop: Shop) -> None:
    """Parts say nothing of encryption; what was said when the upload began counts for them."""
    key = shop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    shop.guard(
        deny("s3:PutObject", StringNotEquals={"s3:x-amz-server-side-encryption-aws-kms-key-id": key}),
        deny("s3:PutObject", Null={"s3:x-amz-server-side-encryption": "true"}),
    )
    given = {"Bucket": shop.bucket, "Key": "k"}
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    refused(shop.s3.put_object, **given, Body=b"x")
    refused(shop.s3.create_multipart_upload, **given)
    refused(shop.s3.create_multipart_upload, **given, ServerSideEncryption="aws:kms")
    upload = shop.s3.create_multipart_upload(**given, **encrypted)["UploadId"]
    part = shop.s3.upload_part(**given, UploadId=upload, PartNumber=1, Body=b"whole")
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    shop.s3.complete_multipart_upload(**given, UploadId=upload, MultipartUpload=done)
    answer = shop.s3.get_object(**given)
    assert (answer["Body"].read(), answer["SSEKMSKeyId"]) == (b"whole", key)


def test_a_part_is_not_copied_from_a_denied_source(shop: Shop) -> None:
    shop.put("secret")
    shop.put("open")
    shop.guard(deny("s3:PutObject", StringLike={"s3:x-amz-copy-source": f"{shop.bucket}/secret*"}))
    given = {"Bucket": shop.bucket, "Key": "k"}
    upload = shop.s3.create_multipart_upload(**given)["UploadId"]
    part = {**given, "UploadId": upload, "PartNumber": 1}
    refused(shop.s3.upload_part_copy, **part, CopySource=f"{shop.bucket}/secret")
    assert shop.s3.upload_part_copy(**part, CopySource=f"{shop.bucket}/open")["CopyPartResult"]["ETag"]


def test_a_bucket_that_takes_new_objects_only_takes_them_in_parts_too(shop: Shop) -> None:
    """S3 User Guide, "Enforce conditional writes on Amazon S3 buckets"."""
    shop.guard(deny("s3:PutObject", Null={"s3:if-none-match": "true"}, Bool={"s3:ObjectCreationOperation": "true"}))
    given = {"Bucket": shop.bucket, "Key": "k"}
    refused(shop.s3.put_object, **given, Body=b"x")
    upload = shop.s3.create_multipart_upload(**given)["UploadId"]
    part = shop.s3.upload_part(**given, UploadId=upload, PartNumber=1, Body=b"whole")
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    refused(shop.s3.complete_multipart_upload, **given, UploadId=upload, MultipartUpload=done)
    shop.s3.complete_multipart_upload(**given, UploadId=upload, MultipartUpload=done, IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        shop.s3.put_object(**given, Body=b"x", IfNoneMatch="*")


def test_how_a_request_was_signed_is_known(shop: Shop) -> None:
    shop.put("k")
    url = shop.address("k")
    assert _fetched(shop, url) == 200
    shop.guard(deny("s3:GetObject", StringEquals={"s3:authType": "REST-QUERY-STRING"}))
    assert _fetched(shop, url) == 403
    assert shop.s3.get_object(Bucket=shop.bucket, Key="k")["Body"].read() == b"k"
    shop.guard(deny("s3:GetObject", NumericGreaterThan={"s3:signatureAge": "0"}))
    assert _fetched(shop, url) == 403
    shop.guard(deny("s3:PutObject", StringEquals={"s3:x-amz-content-sha256": "UNSIGNED-PAYLOAD"}))
    assert _fetched(shop, url) == 200
    plain = {"request_checksum_calculation": "when_required"}
    signed = shop.account.client("s3", s3={"payload_signing_enabled": True}, **plain)
    signed.put_object(Bucket=shop.bucket, Key="n", Body=b"x")
    unsigned = shop.account.client("s3", s3={"payload_signing_enabled": False}, **plain)
    refused(unsigned.put_object, Bucket=shop.bucket, Key="n", Body=b"x")


def _fetched(shop: Shop, url: str, **headers: str) -> int:
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=shop.account.platform.authority)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_where_a_page_sent_somebody_from_is_known(shop: Shop) -> None:
    shop.put("k")
    shop.guard(deny("s3:GetObject", StringNotLike={"aws:Referer": "https://bank.example/*"}))
    url = shop.address("k")
    assert _fetched(shop, url) == 403
    assert _fetched(shop, url, Referer="https://elsewhere.example/") == 403
    assert _fetched(shop, url, Referer="https://bank.example/page") == 200


def test_a_bucket_is_made_with_the_tags_that_are_demanded(shop: Shop) -> None:
    team = {"StringEquals": {"aws:RequestTag/team": "red"}}
    maker = shop.role("Maker", allow("s3:CreateBucket", Condition=team))
    tagger = shop.role("Tagger", allow("s3:CreateBucket", "s3:TagResource", Condition=team))
    red, blue = ({"Tags": [{"Key": "team", "Value": value}]} for value in ("red", "blue"))
    name = f"new-{uuid.uuid4().hex[:12]}"
    assert "s3:TagResource" in refused(maker.create_bucket, Bucket=name, CreateBucketConfiguration=red)
    refused(tagger.create_bucket, Bucket=name)
    refused(tagger.create_bucket, Bucket=name, CreateBucketConfiguration=blue)
    tagger.create_bucket(Bucket=name, CreateBucketConfiguration=red)
    assert shop.s3.get_bucket_tagging(Bucket=name)["TagSet"] == red["Tags"]


def test_a_key_that_serves_by_way_of_s3_alone(shop: Shop) -> None:
    """A forward access session: S3 asks KMS for its caller, and KMS knows by which way."""
    kms = shop.account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    way = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"},
           "ForAnyValue:StringEquals": {"aws:CalledVia": "s3.amazonaws.com"},
           "Bool": {"aws:ViaAWSService": "true"}}  # fmt: skip
    use = allow("kms:GenerateDataKey", "kms:Decrypt", resource=key, Condition=way)
    writer = shop.role("Writer", allow("s3:*"), use)
    given = {"Bucket": shop.bucket, "Key": "k"}
    writer.put_object(**given, Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert writer.get_object(**given)["Body"].read() == b"x"
    own = shop.account.client("kms", shop.account.as_role("Writer"))
    refused(own.generate_data_key, KeyId=key, KeySpec="AES_256")
    shop.account.client("iam").put_role_policy(
        RoleName="Writer", PolicyName="p1", PolicyDocument=json.dumps(allow("kms:Decrypt", resource=key,
        Condition={"StringEquals": {"kms:ViaService": "sagemaker.us-east-1.amazonaws.com"}}))
    )  # fmt: skip
    refused(writer.get_object, **given)
