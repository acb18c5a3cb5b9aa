"""Secrets Manager through boto3: versions and stages, deletion and its recovery, keys, policies across accounts."""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import REGION, Account, allow


def refused(wanted: str, call: Any, **given: Any) -> str:
    """The message of a call that must be refused with that code."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    assert error.value.response["Error"]["Code"] == wanted, error.value
    return str(error.value.response["Error"]["Message"])


def test_versions_and_their_stages(account: Account) -> None:
    secrets = account.client("secretsmanager")
    made = secrets.create_secret(Name="app/db", SecretString="one", Description="the database")
    arn, first = made["ARN"], made["VersionId"]
    assert (
        arn.startswith(f"arn:aws:secretsmanager:{REGION}:{account.id}:secret:app/db-")
        and len(arn.rpartition("-")[2]) == 6
    )
    for name in ("app/db", arn, arn[:-7]):
        assert secrets.get_secret_value(SecretId=name)["SecretString"] == "one"
    second = secrets.put_secret_value(SecretId=arn, SecretString="two")["VersionId"]
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "two"
    assert secrets.get_secret_value(SecretId=arn, VersionStage="AWSPREVIOUS")["SecretString"] == "one"
    assert secrets.get_secret_value(SecretId=arn, VersionId=first)["VersionStages"] == ["AWSPREVIOUS"]
    pending = secrets.put_secret_value(SecretId=arn, SecretBinary=b"\x00three", VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    assert secrets.get_secret_value(SecretId=arn)["VersionId"] == second
    assert secrets.get_secret_value(SecretId=arn, VersionStage="AWSPENDING")["SecretBinary"] == b"\x00three"
    move = {"SecretId": arn, "VersionStage": "AWSCURRENT", "MoveToVersionId": pending}
    refused("InvalidParameterException", secrets.update_secret_version_stage, **move)
    secrets.update_secret_version_stage(**move, RemoveFromVersionId=second)
    assert secrets.describe_secret(SecretId=arn)["VersionIdsToStages"] == {
        pending: ["AWSPENDING", "AWSCURRENT"],
        second: ["AWSPREVIOUS"],
    }
    assert "Tags" not in secrets.describe_secret(SecretId=arn)
    [shown] = secrets.list_secrets(Filters=[{"Key": "description", "Values": ["data the"]}])["SecretList"]
    assert shown["ARN"] == arn and "RotationEnabled" not in shown
    told = secrets.list_secret_version_ids(SecretId=arn, IncludeDeprecated=True)["Versions"]
    assert [one["VersionId"] for one in told] == [pending, second, first]
    refused("ResourceNotFoundException", secrets.get_secret_value, SecretId=arn, VersionStage="NONE")
    refused(
        "InvalidRequestException", secrets.get_secret_value, SecretId=arn, VersionId=first, VersionStage="AWSCURRENT"
    )
    refused("ResourceNotFoundException", secrets.get_secret_value, SecretId="none")
    refused("ResourceNotFoundException", secrets.get_secret_value, SecretId=arn[:-6] + "AAAAAA")


def test_a_token_is_good_for_one_content(account: Account) -> None:
    secrets = account.client("secretsmanager")
    token = str(uuid.uuid4())
    made = secrets.create_secret(Name="t", SecretString="one", ClientRequestToken=token)
    again = secrets.create_secret(Name="t", SecretString="one", ClientRequestToken=token)
    assert again["VersionId"] == made["VersionId"] == token and again["ARN"] == made["ARN"]
    refused("ResourceExistsException", secrets.create_secret, Name="t", SecretString="two", ClientRequestToken=token)
    refused("ResourceExistsException", secrets.create_secret, Name="t", SecretString="one")
    refused(
        "ResourceExistsException", secrets.put_secret_value, SecretId="t", SecretString="x", ClientRequestToken=token
    )
    assert secrets.put_secret_value(SecretId="t", SecretString="one", ClientRequestToken=token)["VersionId"] == token
    refused("InvalidParameterException", secrets.create_secret, Name="u", SecretString="a", SecretBinary=b"b")
    refused("ValidationException", secrets.create_secret, Name="u", SecretString="a" * 65537)
    refused("ValidationException", secrets.create_secret, Name="u v", SecretString="a")
    refused("ValidationException", secrets.describe_secret, SecretId="u v")


def test_deleted_and_restored(account: Account) -> None:
    secrets = account.client("secretsmanager")
    arn = secrets.create_secret(Name="d", SecretString="v")["ARN"]
    refused("InvalidParameterException", secrets.delete_secret, SecretId="d", RecoveryWindowInDays=6)
    secrets.delete_secret(SecretId="d", RecoveryWindowInDays=7)
    refused("InvalidRequestException", secrets.get_secret_value, SecretId="d")
    refused("InvalidRequestException", secrets.put_secret_value, SecretId="d", SecretString="w")
    refused("InvalidRequestException", secrets.create_secret, Name="d", SecretString="w")
    assert "DeletedDate" in secrets.describe_secret(SecretId="d")
    assert secrets.list_secrets()["SecretList"] == []
    assert [one["Name"] for one in secrets.list_secrets(IncludePlannedDeletion=True)["SecretList"]] == ["d"]
    secrets.restore_secret(SecretId="d")
    assert secrets.get_secret_value(SecretId=arn)["SecretString"] == "v"
    secrets.delete_secret(SecretId="d", ForceDeleteWithoutRecovery=True)
    refused("ResourceNotFoundException", secrets.describe_secret, SecretId="d")
    assert secrets.delete_secret(SecretId="d", ForceDeleteWithoutRecovery=True)["Name"] == "d"  # as if it were there
    assert secrets.create_secret(Name="d", SecretString="new")["ARN"] != arn
    refused("ResourceNotFoundException", secrets.get_secret_value, SecretId=arn)


def test_who_may_not_use_the_key_cannot_read(account: Account) -> None:
    secrets, kms = account.client("secretsmanager"), account.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    arn = secrets.create_secret(Name="k", SecretString="correct-horse-battery", KmsKeyId=key)["ARN"]
    policy = allow("secretsmanager:GetSecretValue", resource=arn)
    account.role("reader", policy)
    mine = account.client("secretsmanager", account.as_role("reader"))
    assert "kms:Decrypt" in refused("AccessDeniedException", mine.get_secret_value, SecretId="k")
    context = {
        "StringEquals": {
            "kms:EncryptionContext:SecretARN": arn,
            "kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com",
        }
    }
    policy["Statement"].append({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key, "Condition": context})
    account.client("iam").put_role_policy(RoleName="reader", PolicyName="inline", PolicyDocument=json.dumps(policy))
    assert mine.get_secret_value(SecretId="k")["SecretString"] == "correct-horse-battery"
    kms.disable_key(KeyId=key)
    refused("DecryptionFailure", secrets.get_secret_value, SecretId="k")
    refused("EncryptionFailure", secrets.put_secret_value, SecretId="k", SecretString="w")
    with sqlite3.connect(f"file:{account.platform.data}/bastide.db?mode=ro", uri=True) as database:
        kept = b"".join(
            bytes(value) if isinstance(value, bytes) else str(value).encode()
            for table in ("resource", "history", "event", "event_new")
            for row in database.execute(f"SELECT * FROM {table}")
            for value in row
        )
    assert arn.encode() in kept and b"correct-horse" not in kept


def test_a_policy_of_the_secret_opens_it_to_another_account_and_to_nobody_else(
    account: Account, neighbour: Account
) -> None:
    secrets, kms = account.client("secretsmanager"), account.client("kms")
    mine = f"arn:aws:iam::{account.id}:root"
    reader = neighbour.role("reader", allow("secretsmanager:GetSecretValue", "kms:Decrypt"))
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": mine}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": reader}, "Action": "kms:Decrypt", "Resource": "*"},
    ]
    key = kms.create_key(Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))["KeyMetadata"]["Arn"]
    arn = secrets.create_secret(Name="shared", SecretString="v", KmsKeyId=key)["ARN"]
    foreign = neighbour.client("secretsmanager", neighbour.as_role("reader"))
    refused("AccessDeniedException", foreign.get_secret_value, SecretId=arn)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": reader},
                "Action": "secretsmanager:GetSecretValue",
                "Resource": "*",
            }
        ],
    }
    secrets.put_resource_policy(SecretId=arn, ResourcePolicy=json.dumps(policy), BlockPublicPolicy=True)
    assert json.loads(secrets.get_resource_policy(SecretId=arn)["ResourcePolicy"]) == policy
    assert foreign.get_secret_value(SecretId=arn)["SecretString"] == "v"
    refused("AccessDeniedException", foreign.describe_secret, SecretId=arn)
    refused("AccessDeniedException", neighbour.client("secretsmanager").get_secret_value, SecretId=arn)
    policy["Statement"][0]["Principal"] = "*"  # type: ignore[index]
    given = {"SecretId": arn, "ResourcePolicy": json.dumps(policy), "BlockPublicPolicy": True}
    refused("PublicPolicyException", secrets.put_resource_policy, **given)
    checked = secrets.validate_resource_policy(ResourcePolicy=given["ResourcePolicy"])
    assert checked["PolicyValidationPassed"] is False
    own = secrets.create_secret(Name="own", SecretString="v")["ARN"]  # under the account's own key
    policy["Statement"][0]["Principal"] = {"AWS": reader}  # type: ignore[index]
    secrets.put_resource_policy(SecretId=own, ResourcePolicy=json.dumps(policy))
    assert "default KMS service key" in refused("InvalidRequestException", foreign.get_secret_value, SecretId=own)
    secrets.delete_secret(SecretId=own)
    secrets.delete_secret(SecretId=own, ForceDeleteWithoutRecovery=True)
    refused("ResourceNotFoundException", secrets.describe_secret, SecretId=own)
    refused(
        "MalformedPolicyDocumentException", secrets.put_resource_policy, SecretId=arn, ResourcePolicy='{"Version":1}'
    )
    secrets.delete_resource_policy(SecretId=arn)
    refused("AccessDeniedException", foreign.get_secret_value, SecretId=arn)


def test_who_may(account: Account) -> None:
    secrets = account.client("secretsmanager")
    for team in ("alpha", "bravo"):
        secrets.create_secret(Name=f"{team}/x", SecretString=team, Tags=[{"Key": "team", "Value": team}])
    account.role(
        "alpha", allow("secretsmanager:*", resource=f"arn:aws:secretsmanager:{REGION}:{account.id}:secret:alpha/*")
    )
    account.role(
        "tagged",
        allow(
            "secretsmanager:GetSecretValue", Condition={"StringEquals": {"secretsmanager:ResourceTag/team": "bravo"}}
        ),
    )
    account.role(
        "current",
        allow(
            "secretsmanager:GetSecretValue", Condition={"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}
        ),
    )
    account.role(
        "keep",
        allow(
            "secretsmanager:DeleteSecret",
            Condition={"NumericGreaterThanEquals": {"secretsmanager:RecoveryWindowInDays": "14"}},
        ),
    )
    alpha = account.client("secretsmanager", account.as_role("alpha"))
    alpha.create_secret(Name="alpha/y", SecretString="v")
    refused("AccessDeniedException", alpha.create_secret, Name="bravo/y", SecretString="v")
    refused("AccessDeniedException", alpha.get_secret_value, SecretId="bravo/x")
    refused("AccessDeniedException", alpha.get_secret_value, SecretId="bravo/none")  # as one that is there
    refused("AccessDeniedException", alpha.list_secrets)
    tagged = account.client("secretsmanager", account.as_role("tagged"))
    assert tagged.get_secret_value(SecretId="bravo/x")["SecretString"] == "bravo"
    refused("AccessDeniedException", tagged.get_secret_value, SecretId="alpha/x")
    secrets.tag_resource(SecretId="alpha/x", Tags=[{"Key": "team", "Value": "bravo"}])
    assert tagged.get_secret_value(SecretId="alpha/x")["SecretString"] == "alpha"
    secrets.untag_resource(SecretId="alpha/x", TagKeys=["team"])
    refused("AccessDeniedException", tagged.get_secret_value, SecretId="alpha/x")
    secrets.put_secret_value(SecretId="alpha/x", SecretString="newer")
    current = account.client("secretsmanager", account.as_role("current"))
    assert current.get_secret_value(SecretId="alpha/x")["SecretString"] == "newer"
    refused("AccessDeniedException", current.get_secret_value, SecretId="alpha/x", VersionStage="AWSPREVIOUS")
    keep = account.client("secretsmanager", account.as_role("keep"))
    refused("AccessDeniedException", keep.delete_secret, SecretId="alpha/x", RecoveryWindowInDays=7)
    refused("AccessDeniedException", keep.delete_secret, SecretId="alpha/x", ForceDeleteWithoutRecovery=True)
    keep.delete_secret(SecretId="alpha/x", RecoveryWindowInDays=14)


def test_lists_batches_and_passwords(account: Account) -> None:
    secrets = account.client("secretsmanager")
    for number in range(5):
        secrets.create_secret(
            Name=f"l/{number}",
            SecretString=str(number),
            Description=f"Number {number}",
            Tags=[{"Key": "odd", "Value": str(number % 2)}],
        )

    def names(**given: Any) -> list[str]:
        pages = secrets.get_paginator("list_secrets").paginate(PaginationConfig={"PageSize": 2}, **given)
        return [one["Name"] for page in pages for one in page["SecretList"]]

    assert names() == [f"l/{number}" for number in range(5)]
    assert names(SortOrder="desc")[0] == "l/4"
    assert names(Filters=[{"Key": "tag-value", "Values": ["1"]}]) == ["l/1", "l/3"]
    assert names(Filters=[{"Key": "name", "Values": ["l/2"]}]) == ["l/2"]
    assert names(Filters=[{"Key": "name", "Values": ["!l/2"]}]) == ["l/0", "l/1", "l/3", "l/4"]
    assert names(Filters=[{"Key": "all", "Values": ["number"]}]) == [f"l/{number}" for number in range(5)]
    both = secrets.batch_get_secret_value(SecretIdList=["l/1", "l/none"])
    assert (
        both["SecretValues"][0]["SecretString"] == "1" and both["Errors"][0]["ErrorCode"] == "ResourceNotFoundException"
    )
    for _ in range(20):
        word = secrets.get_random_password(PasswordLength=8, ExcludePunctuation=True, ExcludeCharacters="0O1l")[
            "RandomPassword"
        ]
        assert len(word) == 8 and word.isalnum() and not set("0O1l") & set(word)
        assert any(one.isdigit() for one in word) and any(one.isupper() for one in word)
    refused("InvalidParameterException", secrets.get_random_password, PasswordLength=2)
