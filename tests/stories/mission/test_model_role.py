"""The model hosting role (10) under the service's trust policy (81), taken on by SageMaker itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of
from tests.stories.sagemaker.test_guardrails import refused
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.sagemaker.test_registry_and_endpoints import SCRIPT


@dataclass
class Hosting:
    """A model bucket under a key, and the paper's role for it."""

    mission: Path
    shop: Workshop
    key: str

    def role(self, name: str, *, trusted: str = "", key: str = "", bucket: str = "") -> str:
        """The role with the paper's two documents; its ARN. trusted: the account that the trust policy names."""
        account = self.shop.account
        trust = policy(self.mission, "81-trust-sagemaker-service-roles.json", ACCOUNT_ID=trusted or account.id)
        document = policy(
            self.mission,
            "10-model-hosting-role.json",
            DATA_KMS_KEY_ARN=key or self.key,
            MODEL_BUCKET_NAME=bucket or self.shop.bucket,
            ECR_ACCOUNT_ID=account.id,
        )
        iam = account.client("iam")
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="hosting", PolicyDocument=json.dumps(document))
        return arn

    def deploy(self, name: str, role: str) -> dict[str, Any]:
        """The endpoint when it stands or has failed."""
        client = self.shop.sagemaker
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{self.shop.bucket}/m.tar.gz",
                     "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}  # fmt: skip
        client.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        client.create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.shop.endpoint(name, "InService", "Failed")


@pytest.fixture
def hosting(account: Account, mission: Path) -> Hosting:
    shop = workshop_of(account)
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    packed = archive(**{"m.txt": b"A", "code/inference.py": SCRIPT})
    shop.s3.put_object(Bucket=shop.bucket, Key="m.tar.gz", Body=packed, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    return Hosting(mission, shop, key)


def test_a_model_is_served_under_its_role(hosting: Hosting) -> None:
    found = hosting.deploy("e", hosting.role("Hosting"))
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    account = hosting.shop.account
    answer = account.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x", ContentType="text/plain")
    assert answer["Body"].read() == b"Ax"
    arn = f"arn:aws:iam::{account.id}:role/Hosting"
    for administrator in (account.client("sts"), account.platform.client("sts")):
        refused(administrator.assume_role, RoleArn=arn, RoleSessionName="me")
    hosting.shop.sagemaker.delete_endpoint(EndpointName="e")


@pytest.mark.parametrize("lacks", ["bucket", "key"])
def test_a_model_its_role_may_not_read_is_not_served(hosting: Hosting, lacks: str) -> None:
    other = hosting.shop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    role = hosting.role("Hosting", **{lacks: other if lacks == "key" else "elsewhere"})
    found = hosting.deploy("e", role)
    assert found["EndpointStatus"] == "Failed"
    reason = found["FailureReason"]
    assert "m.tar.gz" in reason or "AccessDenied" in reason, reason
    hosting.shop.sagemaker.delete_endpoint(EndpointName="e")


def test_a_role_that_trusts_sagemaker_for_another_account_is_not_taken_on(hosting: Hosting, neighbour: Account) -> None:
    role = hosting.role("Hosting", trusted=neighbour.id)
    with pytest.raises(ClientError, match="Could not assume role") as caught:
        hosting.shop.sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE})
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    hosting.shop.account.role("Deployer", allow("sagemaker:*"))
    deployer = hosting.shop.account.client("sagemaker", hosting.shop.account.as_role("Deployer"))
    message = refused(deployer.create_model, ModelName="m", ExecutionRoleArn=hosting.role("Own"),
                      PrimaryContainer={"Image": IMAGE})  # fmt: skip
    assert "iam:PassRole" in message
