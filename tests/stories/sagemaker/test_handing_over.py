"""What is handed over is asked about: roles to services, keys by way of them, packages to other accounts; and the record
says on whose behalf."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudtrail.test_trail import Records
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.test_guardrails import RESOURCES, processing, refused, role
from tests.stories.sagemaker.test_job_role import SERVICE, policy


def _job(account: Account, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:{account.id}:training-job/{name}"


def test_a_role_may_trust_sagemaker_for_some_jobs_alone(workshop: Workshop) -> None:
    """The confused deputy's guard of the developer guide: aws:SourceArn and aws:SourceAccount in the trust policy."""
    account = workshop.account
    account.role("Bounded", allow("s3:*", "logs:*", "kms:*"), trust=SERVICE)
    workshop.role = f"arn:aws:iam::{account.id}:role/Bounded"

    def trust(source: str, owner: str) -> None:
        condition = {"ArnLike": {"aws:SourceArn": source}, "StringEquals": {"aws:SourceAccount": owner}}
        statement = {"Effect": "Allow", "Principal": SERVICE, "Action": "sts:AssumeRole", "Condition": condition}
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        account.client("iam").update_assume_role_policy(RoleName="Bounded", PolicyDocument=text)

    trust(_job(account, "credit-*"), account.id)
    model = {"ModelName": "credit-m", "ExecutionRoleArn": workshop.role, "PrimaryContainer": {"Image": IMAGE}}
    for call, given in (
        (workshop.train, {"script": "", "TrainingJobName": "other-1"}),
        (workshop.sagemaker.create_processing_job, processing(workshop)),
        (workshop.sagemaker.create_model, model),
    ):
        with pytest.raises(ClientError, match="Could not assume role"):
            call(**given)
    workshop.train("", TrainingJobName="credit-1")
    job = workshop.trained("credit-1")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    trust(f"arn:aws:sagemaker:*:{account.id}:model/credit-*", account.id)
    workshop.sagemaker.create_model(**model)
    trust(_job(account, "*"), "999988887777")
    with pytest.raises(ClientError, match="Could not assume role"):
        workshop.train("", TrainingJobName="credit-2")


def test_a_role_is_passed_for_the_jobs_it_was_meant_for(workshop: Workshop) -> None:
    account = workshop.account
    condition = {
        "StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"},
        "ArnLike": {"iam:AssociatedResourceArn": _job(account, "credit-*")},
    }
    passing = allow("iam:PassRole", resource=workshop.role, Condition=condition)
    workshop.sagemaker = role(account, "Bound", free=allow("sagemaker:*"), passing=passing)
    message = refused(workshop.train, script="", TrainingJobName="other-1")
    assert "iam:PassRole" in message and workshop.role in message
    refused(workshop.sagemaker.create_processing_job, **processing(workshop, ProcessingJobName="credit-p"))
    workshop.train("", TrainingJobName="credit-1")


def test_a_volumes_key_serves_by_way_of_sagemaker_alone(workshop: Workshop) -> None:
    account = workshop.account
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    for region, status in (("us-east-1", "Completed"), ("eu-west-1", "Failed")):
        way = {"StringEquals": {"kms:ViaService": f"sagemaker.{region}.amazonaws.com"}}
        use = allow("kms:GenerateDataKey", "kms:Decrypt", resource=key, Condition=way)
        name = f"Via-{region}"
        workshop.role = account.role(name, use, trust=SERVICE)
        account.client("iam").put_role_policy(
            RoleName=name, PolicyName="data", PolicyDocument=json.dumps(allow("s3:*", "logs:*"))
        )
        job = workshop.trained(workshop.train("", ResourceConfig={**RESOURCES, "VolumeKmsKeyId": key}))
        assert job["TrainingJobStatus"] == status, job.get("FailureReason")
        assert status == "Completed" or "kms:GenerateDataKey" in job["FailureReason"]


@pytest.mark.control("AUD-04", lacking="Studio")
def test_what_a_job_reads_is_recorded_under_its_own_role_and_session(workshop: Workshop) -> None:
    """AUD-04 without Studio: two people, a role each for their jobs; neither passes the other's."""
    account = workshop.account
    everything = {"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{workshop.bucket}/"]}
    selector = {"ReadWriteType": "ReadOnly", "IncludeManagementEvents": True, "DataResources": [everything]}
    records = Records(account, [selector])
    jobs = {}
    for person in ("ann", "bob"):
        execution = account.role(f"Execution-{person}", allow("s3:*", "logs:*"), trust=SERVICE)
        passing = allow("iam:PassRole", resource=execution)
        workshop.sagemaker = role(account, f"Person-{person}", free=allow("sagemaker:*"), passing=passing)
        workshop.role = execution
        jobs[person] = workshop.train("")
    workshop.role = f"arn:aws:iam::{account.id}:role/Execution-ann"
    message = refused(workshop.train, script="")
    assert "iam:PassRole" in message and "Execution-ann" in message and "Person-bob" in message
    for name in jobs.values():
        assert workshop.trained(name)["TrainingJobStatus"] == "Completed"
    end = time.monotonic() + 60
    wanted = {f"arn:aws:sts::{account.id}:assumed-role/Execution-{person}/SageMaker" for person in jobs}
    while True:
        reads = [one for one in records.delivered() if one["eventName"] == "GetObject"]
        code = {
            person: {
                one["userIdentity"]["arn"]
                for one in reads
                if any(f"{name}/code.tar.gz" in part.get("ARN", "") for part in one["resources"])
            }
            for person, name in jobs.items()
        }
        if all(code.values()) or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert code == {person: {f"arn:aws:sts::{account.id}:assumed-role/Execution-{person}/SageMaker"} for person in jobs}
    data = [one for one in reads if one["requestParameters"]["key"].startswith("data/")]
    assert {one["userIdentity"]["arn"] for one in data} == wanted
    assert {one["sourceIPAddress"] for one in data} == {"sagemaker.amazonaws.com"}


def test_the_policy_of_a_group_opens_it_as_far_as_it_says(account: Account, neighbour: Account) -> None:
    """Both accounts have to allow; what the policy takes back is closed again."""
    owner = account.client("sagemaker")
    group = owner.create_model_package_group(ModelPackageGroupName="g")["ModelPackageGroupArn"]
    package = group.replace("model-package-group", "model-package")
    inference = {
        "Containers": [{"Image": IMAGE}],
        "SupportedContentTypes": ["a/b"],
        "SupportedResponseMIMETypes": ["a/b"],
    }
    owner.create_model_package(ModelPackageGroupName="g", InferenceSpecification=inference)
    version = f"{package}/1"
    free = role(neighbour, "Free", free=allow("sagemaker:*"))
    narrow = role(neighbour, "Narrow", free=allow("sagemaker:ListModelPackages"))

    def put(*actions: str, principal: str = "role/Free", **more: Any) -> None:
        statement = {
            "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{neighbour.id}:{principal}"}, "Action": list(actions),
            "Resource": [group, f"{package}/*"], **more,
        }  # fmt: skip
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        owner.put_model_package_group_policy(ModelPackageGroupName="g", ResourcePolicy=text)
        assert json.loads(owner.get_model_package_group_policy(ModelPackageGroupName="g")["ResourcePolicy"])

    refused(free.describe_model_package, ModelPackageName=version)
    refused(free.describe_model_package_group, ModelPackageGroupName=group)
    put("sagemaker:DescribeModelPackage", "sagemaker:DescribeModelPackageGroup")
    assert free.describe_model_package(ModelPackageName=version)["ModelPackageVersion"] == 1
    assert free.describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupName"] == "g"
    refused(free.list_model_packages, ModelPackageGroupName=group)
    refused(free.update_model_package, ModelPackageArn=version, ModelApprovalStatus="Approved")
    refused(free.create_model_package, ModelPackageGroupName=group, InferenceSpecification=inference)
    refused(free.delete_model_package, ModelPackageName=version)
    refused(narrow.describe_model_package, ModelPackageName=version)
    put("sagemaker:*", principal="root")
    listed = narrow.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert [one["ModelPackageArn"] for one in listed] == [version]
    # The account is let in; which of its roles may what is its own word.
    refused(narrow.describe_model_package, ModelPackageName=version)
    made = free.create_model_package(ModelPackageGroupName=group, InferenceSpecification=inference)["ModelPackageArn"]
    assert made == f"{package}/2"
    only = {"StringEquals": {"sagemaker:ModelApprovalStatus": "Rejected"}}
    put("sagemaker:UpdateModelPackage", Condition=only)
    refused(free.update_model_package, ModelPackageArn=version, ModelApprovalStatus="Approved")
    free.update_model_package(ModelPackageArn=version, ModelApprovalStatus="Rejected")
    owner.delete_model_package_group_policy(ModelPackageGroupName="g")
    refused(free.update_model_package, ModelPackageArn=version, ModelApprovalStatus="Rejected")
    with pytest.raises(ClientError, match="Cannot find resource policy"):
        owner.get_model_package_group_policy(ModelPackageGroupName="g")


def test_what_a_package_is_now_decides_what_becomes_of_it(account: Account) -> None:
    """sagemaker:CurrentModelLifeCycleStage, of the registry's staging: only who releases moves a package out of Prod."""
    owner = account.client("sagemaker")
    owner.create_model_package_group(ModelPackageGroupName="g")
    arn = owner.create_model_package(
        ModelPackageGroupName="g", ModelLifeCycle={"Stage": "Dev", "StageStatus": "Open"},
        CustomerMetadataProperties={"Owner": "ann"},
    )["ModelPackageArn"]  # fmt: skip
    locked = {"StringEquals": {"sagemaker:CurrentModelLifeCycleStage": "Prod"}}
    release = {
        "StringEquals": {"sagemaker:ModelLifeCycle:Stage": "Prod"},
        "Null": {"aws:PrincipalTag/releases": "true"},
    }
    foreign = {"StringNotEquals": {"sagemaker:CurrentCustomerMetadataProperties/Owner": "${aws:PrincipalTag/person}"}}
    change = ["sagemaker:UpdateModelPackage", "sagemaker:AddTags", "sagemaker:DeleteModelPackage"]
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"}]
        + [
            {"Effect": "Deny", "Action": change, "Resource": "*", "Condition": condition}
            for condition in (locked, release, foreign)
        ],
    }
    clients = {}
    for person in ("ann", "bob"):
        account.role(person, document, Tags=[{"Key": "person", "Value": person}])
        clients[person] = account.client("sagemaker", account.as_role(person))
    refused(clients["bob"].update_model_package, ModelPackageArn=arn, SourceUri="s3://b/x")
    clients["ann"].update_model_package(ModelPackageArn=arn, ModelLifeCycle={"Stage": "Test", "StageStatus": "Open"})
    prod = {"Stage": "Prod", "StageStatus": "Open"}
    refused(clients["ann"].update_model_package, ModelPackageArn=arn, ModelLifeCycle=prod)
    owner.update_model_package(ModelPackageArn=arn, ModelLifeCycle=prod)
    refused(clients["ann"].update_model_package, ModelPackageArn=arn, SourceUri="s3://b/x")
    refused(clients["ann"].add_tags, ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    refused(clients["ann"].delete_model_package, ModelPackageName=arn)


@pytest.mark.control("PRM-07", lacking="a notebook around the session")
def test_the_notebooks_role_reads_its_teams_data_and_no_more(account: Account, mission: Path) -> None:
    """PRM-07 as a role's session: what a notebook will read with."""
    s3 = account.client("s3")
    for name in ("team", "bravo", "features"):
        s3.create_bucket(Bucket=f"{name}-{account.id}")
        s3.put_object(Bucket=f"{name}-{account.id}", Key="k", Body=name.encode())
    own, common = (f"arn:aws:s3:::{name}-{account.id}" for name in ("team", "features"))
    run = policy(
        mission,
        "08-notebook-execution-role-create-model-endpoint.json",
        ACCOUNT_ID=account.id,
        SAGEMAKER_MODEL_EXECUTION_ROLE_ARN=account.role("Model", allow("s3:GetObject"), trust=SERVICE),
    )
    read = allow("s3:GetObject", "s3:ListBucket", resource=[own, f"{own}/*", common, f"{common}/*"])
    role(account, "Notebook", run=run, read=read)
    notebook = account.client("s3", account.as_role("Notebook"))
    assert notebook.get_object(Bucket=f"team-{account.id}", Key="k")["Body"].read() == b"team"
    assert notebook.list_objects_v2(Bucket=f"features-{account.id}")["KeyCount"] == 1
    refused(notebook.get_object, Bucket=f"bravo-{account.id}", Key="k")
    refused(notebook.put_object, Bucket=f"features-{account.id}", Key="k", Body=b"x")
