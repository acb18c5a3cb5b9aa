"""SVR-04: what a job may do is its own role's, and users do not hold it."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import Workshop

SCRIPT = """
total = sum(int(x) for line in open('/opt/ml/input/data/train/part/a.csv') for x in line.split(','))
open('/opt/ml/model/m.txt', 'w').write(str(total))
"""
SERVICE = {"Service": "sagemaker.amazonaws.com"}


def policy(mission: Path, name: str, **placeholders: str) -> dict[str, Any]:
    """A sample policy with its placeholders filled in; none may be left."""
    text = (mission / "policies" / name).read_text()
    for key, value in placeholders.items():
        text = text.replace(f"<{key}>", value)
    assert "<" not in text, f"a placeholder is left in {name}"
    found: dict[str, Any] = json.loads(text)
    return found


@dataclass
class Study:
    """An input bucket under a key, an output bucket, a notebook role and a job role."""

    account: Account
    mission: Path
    key: str
    shop: Workshop
    notebook: Any

    @property
    def output(self) -> str:
        return f"out-{self.account.id}"

    def job_role(self, name: str, key: str) -> str:
        given = policy(
            self.mission,
            "09-job-role-training-tuning-processing.json",
            DATA_KMS_KEY_ARN=key,
            INPUT_BUCKET_NAME=self.shop.bucket,
            OUTPUT_BUCKET_NAME=self.output,
            PATH_NAME="models",
            ECR_ACCOUNT_ID=self.account.id,
        )
        return self.account.role(name, given, trust=SERVICE)

    def train(self, **more: Any) -> str:
        return self.shop.train(SCRIPT, OutputDataConfig={"S3OutputPath": f"s3://{self.output}/models"}, **more)


@pytest.fixture
def study(account: Account, mission: Path) -> Study:
    s3 = account.client("s3")
    key = account.client("kms").create_key()["KeyMetadata"]["Arn"]
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    for bucket in (f"in-{account.id}", f"out-{account.id}"):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    shop = Workshop(account, bucket=f"in-{account.id}", s3=s3)
    made = Study(account, mission, key, shop, None)
    shop.role = made.job_role("TrainingJob", key)
    notebook = policy(
        mission,
        "06-notebook-execution-role-run-jobs.json",
        ACCOUNT_ID=account.id,
        SAGEMAKER_TRAINING_EXECUTION_ROLE_ARN=shop.role,
    )
    account.role("Notebook", notebook)
    look = policy(mission, "01-console-read-only.json")
    account.client("iam").put_role_policy(RoleName="Notebook", PolicyName="look", PolicyDocument=json.dumps(look))
    keys = account.as_role("Notebook")
    made.notebook, shop.sagemaker = account.client("s3", keys), account.client("sagemaker", keys)
    return made


@pytest.mark.control("SVR-04")
def test_a_job_reads_what_its_user_may_not(study: Study) -> None:
    name = study.train()
    job = study.shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    key = f"models/{name}/output/model.tar.gz"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{study.output}/{key}"
    answer = study.shop.s3.get_object(Bucket=study.output, Key=key)
    assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", study.key)
    with tarfile.open(fileobj=io.BytesIO(answer["Body"].read())) as tar:
        packed = tar.extractfile("m.txt")
        assert packed is not None and packed.read() == b"10"
    for bucket, one in ((study.shop.bucket, "data/part/a.csv"), (study.output, key)):
        with pytest.raises(ClientError) as refused:
            study.notebook.get_object(Bucket=bucket, Key=one)
        assert refused.value.response["Error"]["Code"] == "AccessDenied"
    with pytest.raises(ClientError) as refused:
        study.notebook.list_objects_v2(Bucket=study.shop.bucket)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"


@pytest.mark.control("SVR-04")
def test_a_job_role_that_may_not_use_the_inputs_key_fails_the_job(study: Study) -> None:
    other = study.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    study.shop.sagemaker = study.account.client("sagemaker")
    job = study.shop.trained(study.train(RoleArn=study.job_role("Keyless", other)))
    assert job["TrainingJobStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith("ClientError: Data download failed: AccessDenied")
    assert "kms:Decrypt" in reason and f"s3://{study.shop.bucket}/" in reason
    assert "ModelArtifacts" not in job
    listed = study.shop.s3.list_objects_v2(Bucket=study.output)
    assert listed["KeyCount"] == 0


@pytest.mark.control("SVR-04")
def test_who_may_not_pass_the_job_role_starts_no_job(study: Study) -> None:
    study.account.role("Starter", allow("sagemaker:*"))
    study.shop.sagemaker = study.account.client("sagemaker", study.account.as_role("Starter"))
    with pytest.raises(ClientError) as refused:
        study.train()
    error = refused.value.response["Error"]
    assert error["Code"] == "AccessDeniedException"
    assert "iam:PassRole" in error["Message"] and study.shop.role in error["Message"]


@pytest.mark.control("SVR-04")
def test_the_notebook_role_passes_the_one_role_it_was_given(study: Study) -> None:
    richer = study.account.role("Richer", allow("s3:*", "kms:*"), trust=SERVICE)
    with pytest.raises(ClientError) as refused:
        study.train(RoleArn=richer)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    assert study.shop.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
