"""From a registered version, over its approval, to an endpoint that answers, in one account and across two."""

from __future__ import annotations

import json
import time

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of

SCRIPT = b"""
import os
def model_fn(folder): return open(folder + '/m.txt').read()
def input_fn(body, kind): return body
def predict_fn(data, model):
    if data == 'die': os._exit(3)
    if data == 'bad': raise ValueError('x')
    return model + data
def output_fn(prediction, accept): return prediction, 'text/plain'
"""


def _data(workshop: Workshop, key: str, text: bytes) -> str:
    packed = archive(**{"m.txt": text, "code/inference.py": SCRIPT})
    workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=packed)
    return f"s3://{workshop.bucket}/{key}"


def _register(workshop: Workshop, group: str, url: str) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
    arn: str = workshop.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/plain"],
            "SupportedResponseMIMETypes": ["text/plain"],
        },
    )["ModelPackageArn"]
    return arn


def _serve(workshop: Workshop, container: dict[str, object], model: str = "m") -> None:
    client = workshop.sagemaker
    client.create_model(ModelName=model, ExecutionRoleArn=workshop.role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.t2.medium", "VolumeSizeInGB": 1}
    client.create_endpoint_config(EndpointConfigName=model, ProductionVariants=[{**variant, "InitialInstanceCount": 1}])


@pytest.mark.control("PIP-07")
def test_only_an_approved_version_becomes_a_model_and_answers(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    arn = _register(workshop, "credit", _data(workshop, "a.tar.gz", b"A"))
    assert arn.endswith(":model-package/credit/1")
    found = client.describe_model_package(ModelPackageName=arn)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["InferenceSpecification"]["Containers"][0]["ImageDigest"].startswith("sha256:")
    assert "ModelDataETag" in found["InferenceSpecification"]["Containers"][0]
    with pytest.raises(ClientError, match="PendingManualApproval"):
        _serve(workshop, {"ModelPackageName": arn})
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="fine")
    assert client.describe_model_package(ModelPackageName=arn)["LastModifiedBy"]["IamIdentity"]["Arn"]
    _serve(workshop, {"ModelPackageName": arn})
    client.create_endpoint(EndpointName="e", EndpointConfigName="m")
    found = workshop.endpoint("e", "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found["FailureReason"]
    runtime = workshop.account.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/plain")
    assert (answer["Body"].read(), answer["ContentType"]) == (b"Ax", "text/plain")
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="e", Body=b"bad", ContentType="text/plain")
    assert refused.value.response["Error"]["Code"] == "ModelError"
    assert refused.value.response["OriginalStatusCode"] == 500
    with pytest.raises(ClientError, match="ValidationError"):
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    # A server that dies is started again.
    with pytest.raises(ClientError):
        runtime.invoke_endpoint(EndpointName="e", Body=b"die", ContentType="text/plain")
    until = time.monotonic() + 60
    while True:
        try:
            assert (
                runtime.invoke_endpoint(EndpointName="e", Body=b"y", ContentType="text/plain")["Body"].read() == b"Ay"
            )
            break
        except ClientError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_an_update_answers_all_the_time_and_a_failed_one_changes_nothing(workshop: Workshop) -> None:
    client = workshop.sagemaker
    for name in ("A", "B"):
        url = _data(workshop, f"{name}.tar.gz", name.encode())
        _serve(
            workshop, {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}, name
        )
    client.create_endpoint(EndpointName="e", EndpointConfigName="A")
    workshop.endpoint("e", "InService")
    runtime = workshop.account.client("sagemaker-runtime")
    client.update_endpoint(EndpointName="e", EndpointConfigName="B")
    while client.describe_endpoint(EndpointName="e")["EndpointStatus"] == "Updating":
        assert runtime.invoke_endpoint(EndpointName="e", Body=b"", ContentType="text/plain")["Body"].read() in (
            b"A",
            b"B",
        )
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"", ContentType="text/plain")["Body"].read() == b"B"
    workshop.s3.delete_object(Bucket=workshop.bucket, Key="A.tar.gz")
    client.update_endpoint(EndpointName="e", EndpointConfigName="A")
    found = workshop.endpoint("e", "InService")
    assert found["EndpointConfigName"] == "B" and "A.tar.gz" in found["FailureReason"]
    assert runtime.invoke_endpoint(EndpointName="e", Body=b"", ContentType="text/plain")["Body"].read() == b"B"
    client.delete_endpoint(EndpointName="e")
    until = time.monotonic() + 60
    with pytest.raises(ClientError, match='Could not find endpoint "'):
        while time.monotonic() < until:
            client.describe_endpoint(EndpointName="e")
            time.sleep(0.05)


def test_what_was_registered_is_what_is_served(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    arn = _register(workshop, "credit", _data(workshop, "a.tar.gz", b"A"))
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    _serve(workshop, {"ModelPackageName": arn})
    _data(workshop, "a.tar.gz", b"tampered")
    client.create_endpoint(EndpointName="e", EndpointConfigName="m")
    found = workshop.endpoint("e", "InService", "Failed")
    assert found["EndpointStatus"] == "Failed"
    assert "not what was registered" in found["FailureReason"]


def test_another_account_deploys_what_its_policy_opens(account: Account, neighbour: Account) -> None:
    owner, user = workshop_of(account), workshop_of(neighbour)
    owner.sagemaker.create_model_package_group(ModelPackageGroupName="credit")
    arn = _register(owner, "credit", _data(owner, "a.tar.gz", b"A"))
    owner.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    with pytest.raises(ClientError, match="not authorized"):
        user.sagemaker.describe_model_package(ModelPackageName=arn)
    with pytest.raises(ClientError, match="not authorized"):
        _serve(user, {"ModelPackageName": arn})
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{neighbour.id}:root"},
        "Action": ["sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages", "sagemaker:CreateModel"],
        "Resource": arn.rsplit("/", 1)[0] + "/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    owner.sagemaker.put_model_package_group_policy(ModelPackageGroupName="credit", ResourcePolicy=policy)
    assert user.sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageVersion"] == 1
    with pytest.raises(ClientError, match="not authorized"):
        user.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected")
    _serve(user, {"ModelPackageName": arn})
    # The data is still the owner's: without the bucket's word the endpoint fails, and says why.
    user.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="m")
    assert "AccessDenied" in user.endpoint("e", "Failed")["FailureReason"]
