"""The registry: versions, who decided what and why, what stands on a version, and what it would do when it is loaded."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved, until
from tests.platform import HOME, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive

SKLEARN = """
import os, joblib
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=5, random_state=7)).fit(X, y)
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "packed.joblib"), compress=3)
"""


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def _spec(url: str, **more: Any) -> dict[str, Any]:
    return {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
        **more,
    }


def _put(workshop: Workshop, key: str, data: bytes) -> str:
    workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=data)
    return f"s3://{workshop.bucket}/{key}"


def _scan(workshop: Workshop, arn: str) -> dict[str, Any]:
    told = workshop.sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageStatusDetails"]
    found: dict[str, Any] = next(one for one in told["ValidationStatuses"] if one["Name"] == "ModelScan")
    return found


@pytest.mark.control("INV-02", "PIP-06")
def test_what_is_registered_is_looked_into_and_a_guardrail_knows(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    job = workshop.trained(workshop.train(SKLEARN))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")

    def register(url: str) -> str:
        arn: str = client.create_model_package(ModelPackageGroupName="credit", InferenceSpecification=_spec(url))[
            "ModelPackageArn"
        ]
        return arn

    clean = register(job["ModelArtifacts"]["S3ModelArtifacts"])
    assert _scan(workshop, clean) == {"Name": "ModelScan", "Status": "Completed"}
    dangerous = register(_put(workshop, "evil.tar.gz", archive(model__pkl=pickle.dumps(Evil()))))
    told = _scan(workshop, dangerous)
    assert told["Status"] == "Failed" and told["FailureReason"].startswith("Dangerous: model.pkl imports posix.system")
    unknown = register(_put(workshop, "plain.tar.gz", b"not an archive"))
    assert _scan(workshop, unknown)["FailureReason"].startswith("NotScanned")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("model")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(info)
    with pytest.raises(ClientError, match="link or a device"):
        register(_put(workshop, "link.tar.gz", packed.getvalue()))

    approve = allow("sagemaker:UpdateModelPackage")
    approve["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "sagemaker:UpdateModelPackage",
            "Resource": "*",
            "Condition": {
                "StringEquals": {"sagemaker:ModelApprovalStatus": "Approved"},
                "StringNotEquals": {"bastide:ModelScanStatus": "Clean"},
            },
        }
    )
    workshop.account.role("Approver", approve)
    approver = workshop.account.client("sagemaker", workshop.account.as_role("Approver"))
    for arn in (dangerous, unknown):
        with pytest.raises(ClientError, match="explicit deny"):
            approver.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    approver.update_model_package(ModelPackageArn=clean, ModelApprovalStatus="Approved")


@pytest.mark.control("INV-02", "PIP-06")
@pytest.mark.control("LIN-06")
def test_a_version_holds_what_was_said_of_it_and_who_decided(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_model_package_group(ModelPackageGroupName="credit")
    url = _put(workshop, "a.tar.gz", archive(m__txt=b"A"))
    source = {"ContentType": "application/json", "S3Uri": f"s3://{workshop.bucket}/metrics.json"}
    said: dict[str, Any] = {
        "ModelPackageDescription": "d",
        "ModelMetrics": {"ModelQuality": {"Statistics": source}},
        "DriftCheckBaselines": {"ModelQuality": {"Statistics": source}},
        "CustomerMetadataProperties": {"owner": "risk"},
        "MetadataProperties": {"CommitId": "0123456", "GeneratedBy": "pipeline"},
        "Domain": "MACHINE_LEARNING",
        "Task": "CLASSIFICATION",
        "SourceUri": url,
        "ModelCard": {"ModelCardContent": json.dumps({"model_overview": {}}), "ModelCardStatus": "Draft"},
        "ModelLifeCycle": {"Stage": "Development", "StageStatus": "InProgress"},
    }
    arns = [
        client.create_model_package(
            ModelPackageGroupName="credit",
            InferenceSpecification=_spec(url),
            AdditionalInferenceSpecifications=[
                {"Name": "small", "Containers": [{"Image": IMAGE, "ModelDataUrl": url}]}
            ],
            Tags=[{"Key": "model", "Value": "credit"}, {"Key": "version", "Value": str(number)}],
            **said,
        )["ModelPackageArn"]
        for number in (1, 2, 3)
    ]
    assert [one.rsplit("/", 1)[-1] for one in arns] == ["1", "2", "3"]
    tags = {one["Key"]: one["Value"] for one in client.list_tags(ResourceArn=arns[1])["Tags"]}
    assert tags == {"model": "credit", "version": "2"}
    found = client.describe_model_package(ModelPackageName=arns[0])
    assert {key: found[key] for key in said} == said
    [container] = found["AdditionalInferenceSpecifications"][0]["Containers"]
    assert container["ModelDataETag"] and container["ImageDigest"].startswith("sha256:")
    with pytest.raises(ClientError, match="Could not access model data"):
        client.create_model_package(
            ModelPackageGroupName="credit", InferenceSpecification=_spec(f"s3://{workshop.bucket}/nothing")
        )
    with pytest.raises(ClientError, match="JSON object"):
        client.create_model_package(ModelPackageGroupName="credit", ModelCard={"ModelCardContent": "[]"})
    with pytest.raises(ClientError, match="does not exist"):
        client.create_model_package(ModelPackageGroupName="nothing", InferenceSpecification=_spec(url))

    client.update_model_package(ModelPackageArn=arns[0], ModelApprovalStatus="Approved", ApprovalDescription="fine")
    client.update_model_package(
        ModelPackageArn=arns[0], ModelLifeCycle={"Stage": "Production", "StageStatus": "Approved"}
    )  # fmt: skip
    client.update_model_package(ModelPackageArn=arns[1], ModelApprovalStatus="Rejected")
    for change in (
        {"InferenceSpecification": _spec(url)},
        {"ModelApprovalStatus": "Rejected", "InferenceSpecification": _spec(url)},
        {"AdditionalInferenceSpecificationsToAdd": [{"Name": "x", "Containers": [{"Image": IMAGE}]}]},
    ):
        with pytest.raises(ClientError, match="approved cannot be changed"):
            client.update_model_package(ModelPackageArn=arns[0], **change)
    listed = client.list_model_packages(ModelPackageGroupName="credit", ModelApprovalStatus="Approved")
    assert [one["ModelPackageArn"] for one in listed["ModelPackageSummaryList"]] == arns[:1]
    both = client.batch_describe_model_package(ModelPackageArnList=[arns[0], arns[0][:-1] + "9"])
    assert both["ModelPackageSummaries"][arns[0]]["ModelApprovalStatus"] == "Approved"
    assert both["BatchDescribeModelPackageErrorMap"][arns[0][:-1] + "9"]["ErrorCode"] == "ValidationException"
    # Who decided what stays, beside the version, whatever happens to it.
    decided = client.list_actions(SourceUri=arns[0], SortOrder="Ascending")["ActionSummaries"]
    assert [one["ActionType"] for one in decided] == ["Approval", "ModelLifeCycle"]
    told = client.describe_action(ActionName=decided[0]["ActionName"])["Properties"]
    assert told["ApprovalDescription"] == "fine" and told["DecidedBy"].startswith("arn:aws:sts:")
    with pytest.raises(ClientError, match="recorded by the service"):
        client.update_action(ActionName=decided[0]["ActionName"], Properties={"DecidedBy": "nobody"})
    # What serves says so, and a policy keeps it; whoever keeps the registry cannot say that it serves no more.
    client.add_tags(ResourceArn=arns[0], Tags=[{"Key": "serves", "Value": "production"}])
    keeps = allow("sagemaker:*")
    serving = {"StringEquals": {"aws:ResourceTag/serves": "production"}}
    keeps["Statement"].append(
        {
            "Effect": "Deny", "Action": ["sagemaker:DeleteModelPackage", "sagemaker:DeleteTags", "sagemaker:AddTags"],
            "Resource": "*", "Condition": serving,
        }
    )  # fmt: skip
    workshop.account.role("Registrar", keeps)
    registrar = workshop.account.client("sagemaker", workshop.account.as_role("Registrar"))
    for attempt in (
        lambda: registrar.delete_model_package(ModelPackageName=arns[0]),
        lambda: registrar.delete_tags(ResourceArn=arns[0], TagKeys=["serves"]),
        lambda: registrar.add_tags(ResourceArn=arns[0], Tags=[{"Key": "serves", "Value": "no"}]),
    ):
        with pytest.raises(ClientError, match="AccessDeniedException"):
            attempt()
    registrar.delete_model_package(ModelPackageName=arns[2])
    with pytest.raises(ClientError, match="does not exist"):
        client.describe_model_package(ModelPackageName=arns[2])
    again = client.create_model_package(ModelPackageGroupName="credit", InferenceSpecification=_spec(url))
    assert again["ModelPackageArn"].endswith("/4")
    with pytest.raises(ClientError, match="holds model packages"):
        client.delete_model_package_group(ModelPackageGroupName="credit")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("moved"))


@pytest.mark.control("INV-02")
def test_a_state_change_is_told_as_aws_tells_it(timed: Moved) -> None:
    client = timed.client("sagemaker")
    client.create_model_package_group(ModelPackageGroupName="credit")
    arn = client.create_model_package(ModelPackageGroupName="credit")["ModelPackageArn"]
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="fine")
    until(lambda: len(timed.told) >= 2)
    first, message = timed.told[-2:]
    assert message["account"] == HOME
    assert (message["source"], message["detail-type"]) == ("aws.sagemaker", "SageMaker Model Package State Change")
    assert message["resources"] == [arn]
    assert first["detail"]["ModelApprovalStatus"] == "PendingManualApproval"
    assert message["detail"]["ModelApprovalStatus"] == "Approved"
    assert message["detail"]["ApprovalDescription"] == "fine"
    # Who decided is recorded, and not for everybody on the bus.
    assert "LastModifiedBy" not in message["detail"]
    assert client.describe_model_package(ModelPackageName=arn)["LastModifiedBy"]["IamIdentity"]["Arn"]
