"""One resource has one name in every question: spellings that no policy speaks of reach nothing.

A Deny is about an ARN. If another spelling of the ARN found the same row, the Deny would be about nothing: guardrails
(docs/threat-model.md, "an insider who approves", "an administrator of an account") would be words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.domain import Refused
from bastide.kernel import Kind
from tests.platform import Account, Keys


def _spellings(arn: str) -> list[str]:
    parts = arn.split(":", 5)
    made = []
    for index, values in ((1, ("aws-cn", "aws-us-gov", "aws-x", "AWS")), (3, ("", "eu-west-9")), (4, ("",))):
        for value in values:
            made.append(":".join([*parts[:index], value, *parts[index + 1 :]]))
    made.append(":".join([*parts[:5], parts[5].upper()]))
    made.append(arn + "/")
    made.append(arn + ":x")
    return made


def _refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ClientError):
        call()


def _bound(account: Account, actions: list[str], arns: list[str]) -> Keys:
    """A session that may do everything but these actions on these ARNs."""
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": actions, "Resource": arns},
    ]
    account.role("bound", {"Version": "2012-10-17", "Statement": statements})
    return account.as_role("bound")


def test_a_denied_model_version_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("sagemaker")
    admin.create_model_package_group(ModelPackageGroupName="prod")
    arn = admin.create_model_package(ModelPackageGroupName="prod")["ModelPackageArn"]
    actions = ["sagemaker:UpdateModelPackage", "sagemaker:DescribeModelPackage", "sagemaker:AddTags"]
    bound = account.client("sagemaker", _bound(account, actions, [arn]), parameter_validation=False)
    for one in [arn, *_spellings(arn)]:
        _refused(lambda one=one: bound.update_model_package(ModelPackageArn=one, ModelApprovalStatus="Approved"))
        _refused(lambda one=one: bound.describe_model_package(ModelPackageName=one))
        _refused(lambda one=one: bound.add_tags(ResourceArn=one, Tags=[{"Key": "a", "Value": "b"}]))
    told = admin.describe_model_package(ModelPackageName=arn)
    assert told["ModelApprovalStatus"] == "PendingManualApproval"
    assert admin.list_tags(ResourceArn=arn)["Tags"] == []


def test_a_denied_trail_is_denied_in_every_spelling(account: Account) -> None:
    bucket = f"trail-{account.id}"
    account.client("s3").create_bucket(Bucket=bucket)
    admin = account.client("cloudtrail")
    arn = admin.create_trail(Name="guard", S3BucketName=bucket)["TrailARN"]
    admin.start_logging(Name=arn)
    bound = account.client("cloudtrail", _bound(account, ["cloudtrail:*"], [arn]), parameter_validation=False)
    for one in [arn, "guard", *_spellings(arn)]:
        _refused(lambda one=one: bound.stop_logging(Name=one))
        _refused(lambda one=one: bound.put_event_selectors(TrailName=one, EventSelectors=[]))
        _refused(lambda one=one: bound.delete_trail(Name=one))
    assert admin.get_trail_status(Name=arn)["IsLogging"] is True


def test_a_denied_log_group_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("logs")
    admin.create_log_group(logGroupName="secret")
    admin.create_log_stream(logGroupName="secret", logStreamName="s")
    arn = f"arn:aws:logs:us-east-1:{account.id}:log-group:secret"
    bound = account.client("logs", _bound(account, ["logs:*"], [arn, f"{arn}:*"]), parameter_validation=False)
    tricks = [f"arn:aws:logs:us-east-1:{account.id}:secret", f"{arn}:*", f"{arn}:log-stream:s", f"{arn}:*:*"]
    for one in [arn, *tricks, *_spellings(arn)]:
        _refused(lambda one=one: bound.filter_log_events(logGroupIdentifier=one))
        _refused(lambda one=one: bound.describe_log_streams(logGroupIdentifier=one))
        _refused(lambda one=one: bound.get_log_events(logGroupIdentifier=one, logStreamName="s"))
        _refused(lambda one=one: bound.tag_resource(resourceArn=one, tags={"a": "b"}))
    assert admin.list_tags_for_resource(resourceArn=arn)["tags"] == {}
    assert admin.filter_log_events(logGroupIdentifier=arn)["events"] == []


def test_a_denied_key_is_denied_in_every_spelling(account: Account) -> None:
    admin = account.client("kms")
    arn = admin.create_key()["KeyMetadata"]["Arn"]
    admin.create_alias(AliasName="alias/guarded", TargetKeyId=arn)
    blob = admin.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    bound = account.client("kms", _bound(account, ["kms:*"], [arn]), parameter_validation=False)
    alias = arn.rpartition(":")[0] + ":alias/guarded"
    for one in [arn, arn.rpartition("/")[2], "alias/guarded", *_spellings(arn), alias, *_spellings(alias)]:
        _refused(lambda one=one: bound.encrypt(KeyId=one, Plaintext=b"x"))
        _refused(lambda one=one: bound.schedule_key_deletion(KeyId=one))
    _refused(lambda: bound.decrypt(CiphertextBlob=blob))
    for forged in (alias, *_spellings(arn)):
        # The key that a ciphertext names stands in the clear in front of it.
        changed = blob[:4] + len(forged).to_bytes(2, "big") + blob[6:10] + forged.encode() + blob[10 + len(arn) :]
        _refused(lambda changed=changed: bound.decrypt(CiphertextBlob=changed))


@pytest.mark.parametrize("given", _spellings("arn:aws:sagemaker:us-east-1:111122223333:widget/w")[:7])
def test_a_kind_takes_its_arn_as_it_writes_it_and_no_other(given: str) -> None:
    kind = Kind("Widget", service="sagemaker", arn="widget/{}")
    if given.split(":")[3] == "eu-west-9":
        assert kind.locate(given, "111122223333", "us-east-1") == ("111122223333", "eu-west-9", "w")
        return
    if given.split(":")[3] == "":
        assert kind.locate(given, "111122223333", "us-east-1")[1] == ""
        return
    with pytest.raises(Refused):
        kind.locate(given, "111122223333", "us-east-1")
