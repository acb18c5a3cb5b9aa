"""Condition keys that the caller words: no spelling of tags or sources slips past a Deny or into an Allow."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow


def _session(account: Account, service: str, *statements: dict[str, Any]) -> Any:
    account.role("bound", {"Version": "2012-10-17", "Statement": list(statements)})
    return account.client(service, account.as_role("bound"))


@pytest.mark.parametrize("first", [0, 1])
def test_a_tag_in_other_case_does_not_stand_in_for_the_one_that_is_asked_for(account: Account, first: int) -> None:
    bound = _session(
        account,
        "sagemaker",
        {
            "Effect": "Allow",
            "Action": ["sagemaker:CreateModelPackageGroup", "sagemaker:AddTags"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:RequestTag/team": "mine"}},
        },
    )
    tags = [{"Key": "team", "Value": "mine"}, {"Key": "Team", "Value": "theirs"}]
    with pytest.raises(ClientError, match="AccessDenied"):
        bound.create_model_package_group(ModelPackageGroupName="g", Tags=tags[first:] + tags[:first])
    bound.create_model_package_group(ModelPackageGroupName="g", Tags=tags[:1])


@pytest.mark.parametrize("first", [0, 1])
def test_a_tag_in_other_case_does_not_hide_one_that_is_denied(account: Account, first: int) -> None:
    s3 = account.client("s3")
    bucket = f"b-{account.id}"
    s3.create_bucket(Bucket=bucket)
    tags = ["class=secret", "Class=public"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="&".join(tags[first:] + tags[:first]))
    bound = _session(
        account,
        "s3",
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "s3:GetObject",
            "Resource": "*",
            "Condition": {"StringEquals": {"s3:ExistingObjectTag/class": "secret"}},
        },
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        bound.get_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("spelling", ["{}/k", "/{}/k", "{}/%6b", "/%62-{}/k"])
def test_a_denied_source_is_denied_however_it_is_encoded(account: Account, spelling: str) -> None:
    s3 = account.client("s3")
    source, target = f"b-{account.id}", f"t-{account.id}"
    for bucket in (source, target):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=source, Key="k", Body=b"x")
    bound = _session(
        account,
        "s3",
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "s3:PutObject",
            "Resource": "*",
            "Condition": {"StringEquals": {"s3:x-amz-copy-source": f"{source}/k"}},
        },
    )
    written = spelling.format(account.id if "%62-" in spelling else source)

    def reword(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-copy-source"] = written

    bound.meta.events.register("before-call.s3.CopyObject", reword)
    with pytest.raises(ClientError, match="AccessDenied"):
        bound.copy_object(Bucket=target, Key="k", CopySource=f"{source}/k")


def test_lines_of_logs_are_not_in_the_record(account: Account) -> None:
    """Who reads the record does not read every log by it."""
    logs = account.client("logs")
    logs.create_log_group(logGroupName="x")
    logs.create_log_stream(logGroupName="x", logStreamName="s")
    line = f"a secret line of {account.id}"
    events = [{"timestamp": int(time.time() * 1000), "message": line}]
    logs.put_log_events(logGroupName="x", logStreamName="s", logEvents=events)
    assert logs.get_log_events(logGroupName="x", logStreamName="s")["events"][0]["message"] == line
    data = account.platform.data
    database = sqlite3.connect(f"file:{data / 'bastide.db'}?mode=ro", uri=True)
    columns = ("event.body", "event_new.body", "history.doc", "resource.doc", "outbox.body", "token.answer")
    for column in (*columns, "log_line.message"):
        table = column.partition(".")[0]
        query = f"SELECT count(*) FROM {table} WHERE instr(CAST({column} AS TEXT), ?)"
        assert database.execute(query, (line,)).fetchone() == (0,), table
    kept = database.execute("SELECT count(*) FROM log_line WHERE stream LIKE ?", (f"{account.id}/%",)).fetchone()
    assert kept == (1,)  # where lines are, sealed
    database.close()
    assert not any(line.encode() in one.read_bytes() for one in (data / "journal").glob("*"))


def _bound(account: Account, **condition: Any) -> Any:
    """SageMaker for whom creations under a condition are denied, over everything else allowed."""
    create = ["sagemaker:CreateTrainingJob", "sagemaker:CreateEndpointConfig", "sagemaker:CreateModelPackage"]
    everything = {"Effect": "Allow", "Action": ["sagemaker:*", "iam:PassRole"], "Resource": "*"}
    return _session(
        account, "sagemaker", everything, {"Effect": "Deny", "Action": create, "Resource": "*", "Condition": condition}
    )


def _job(**more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "j",
        "RoleArn": "arn:aws:iam::111122223333:role/r",
        "AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "StoppingCondition": {},
        "ResourceConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        **more,
    }


@pytest.mark.parametrize(
    "key",
    ["sagemaker:NetworkIsolation", "sagemaker:InterContainerTrafficEncryption", "sagemaker:EnableRemoteDebug"],
)
def test_who_says_nothing_says_the_default(account: Account, key: str) -> None:
    """A guardrail as it is often published, with Bool and without IfExists, is not passed by leaving the parameter out."""
    bound = _bound(account, Bool={key: "false"})
    with pytest.raises(ClientError, match=r"AccessDenied.*CreateTrainingJob"):
        bound.create_training_job(**_job())


def test_a_longest_time_that_is_not_given_is_the_longest(account: Account) -> None:
    bound = _bound(account, NumericGreaterThan={"sagemaker:MaxRuntimeInSeconds": "3600"})
    with pytest.raises(ClientError, match=r"AccessDenied.*CreateTrainingJob"):
        bound.create_training_job(**_job())
    # It passes the guardrail, and is stopped where the example passes a role that is not its account's.
    with pytest.raises(ClientError, match="iam:PassRole"):
        bound.create_training_job(**_job(StoppingCondition={"MaxRuntimeInSeconds": 3600}))


def test_no_second_place_smuggles_an_instance_type(account: Account) -> None:
    """Wherever a request may name one, it counts: groups of instances, shadow variants."""
    wide = {"ForAnyValue:StringNotLike": {"sagemaker:InstanceTypes": ["ml.t2.*", "ml.t3.*"]}}
    bound = _bound(account, **wide)
    groups = [{"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 1, "InstanceGroupName": "g"}]
    with pytest.raises(ClientError, match=r"AccessDenied.*CreateTrainingJob"):
        bound.create_training_job(**_job(ResourceConfig={"InstanceGroups": groups, "VolumeSizeInGB": 1}))
    small = {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    large = {**small, "VariantName": "b", "InstanceType": "ml.p4d.24xlarge"}
    with pytest.raises(ClientError, match=r"AccessDenied.*CreateEndpointConfig"):
        bound.create_endpoint_config(
            EndpointConfigName="c", ProductionVariants=[small], ShadowProductionVariants=[large]
        )
    with pytest.raises(ClientError, match="ValidationException"):
        bound.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[small])


def test_a_package_is_registered_as_pending_unless_it_says_otherwise(account: Account) -> None:
    account.client("sagemaker").create_model_package_group(ModelPackageGroupName="g")
    bound = _bound(account, StringNotEquals={"sagemaker:ModelApprovalStatus": "PendingManualApproval"})
    for status in ("Approved", "Rejected"):
        with pytest.raises(ClientError, match=r"AccessDenied.*CreateModelPackage"):
            bound.create_model_package(ModelPackageGroupName="g", ModelApprovalStatus=status)
    assert bound.create_model_package(ModelPackageGroupName="g")["ModelPackageArn"].endswith("/g/1")


@pytest.mark.parametrize("key", ["SecretId", "VersionStage"])
def test_a_secret_that_is_denied_is_denied_in_a_list_of_secrets(account: Account, key: str) -> None:
    """Each secret of a list is asked about with its own condition keys, so that no key is lent by another."""
    admin = account.client("secretsmanager")
    open_, shut = (admin.create_secret(Name=name, SecretString=name)["ARN"] for name in ("open", "shut"))
    denied = {
        "Effect": "Deny",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": "*" if key == "SecretId" else shut,
        "Condition": {"StringEquals": {f"secretsmanager:{key}": shut if key == "SecretId" else "AWSCURRENT"}},
    }
    bound = _session(account, "secretsmanager", {"Effect": "Allow", "Action": "*", "Resource": "*"}, denied)
    assert len(bound.batch_get_secret_value(SecretIdList=[open_])["SecretValues"]) == 1
    for listed in ([shut], [open_, shut], [shut, open_]):
        with pytest.raises(ClientError, match="AccessDenied"):
            bound.batch_get_secret_value(SecretIdList=listed)
    document = allow("secretsmanager:GetSecretValue", Condition={"StringEquals": {"secretsmanager:SecretId": open_}})
    document["Statement"].append({"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"})
    account.client("iam").put_role_policy(RoleName="bound", PolicyName="inline", PolicyDocument=json.dumps(document))
    assert len(bound.batch_get_secret_value(SecretIdList=[open_])["SecretValues"]) == 1
    with pytest.raises(ClientError, match="AccessDenied"):
        bound.batch_get_secret_value(SecretIdList=[open_, shut])
