"""What happens to jobs, models and endpoints is told, status by status."""

from __future__ import annotations

from typing import Any

import pytest

from tests.moved import until
from tests.platform import Account
from tests.stories.events.test_events import arrived, watched
from tests.stories.sagemaker.conftest import IMAGE, archive, workshop_of
from tests.stories.sagemaker.test_metrics import SERVER
from tests.stories.sagemaker.test_tuning import config, tune, tuned

MODEL = "open('/opt/ml/model/m.txt','w').write('m')"


def of(events: list[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    """Events of one thing in the order they happened."""
    found = [one for one in events if one["detail-type"] == f"SageMaker {kind} State Change"]
    return [one for one in found if any(arn.endswith(f"/{name}") for arn in one["resources"])]


@pytest.mark.control("MON-06", lacking="labeling jobs")
def test_a_job_s_statuses_are_told_as_they_are_described(account: Account, neighbour: Account) -> None:
    workshop = workshop_of(account)
    watched(account, "jobs", {"source": ["aws.sagemaker"]})
    watched(account, "failed", {"source": ["aws.sagemaker"], "detail": {"TrainingJobStatus": ["Failed"]}})
    watched(neighbour, "jobs", {"source": ["aws.sagemaker"]})
    good = workshop.train(MODEL, Environment={"TOKEN": "a-secret-of-mine"})
    job = workshop.trained(good)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    bad = workshop.train("raise ValueError('boom')")
    reason = workshop.trained(bad)["FailureReason"]
    until(lambda: any(one["detail"]["TrainingJobName"] == bad for one in arrived(account, "failed")))
    until(lambda: len(of(arrived(account, "jobs"), "Training Job", good)) == 5)
    told = of(arrived(account, "jobs"), "Training Job", good)
    assert sorted(one["detail"]["SecondaryStatus"] for one in told) == sorted(
        one["Status"] for one in job["SecondaryStatusTransitions"]
    )
    last = next(one for one in told if one["detail"]["TrainingJobStatus"] == "Completed")
    detail = last["detail"]
    assert last["resources"] == [job["TrainingJobArn"]] and detail["TrainingJobName"] == good
    assert detail["CreationTime"] == int(job["CreationTime"].timestamp() * 1000)
    assert detail["ModelArtifacts"] == job["ModelArtifacts"] and detail["HyperParameters"]["lr"] == "0.1"
    assert "a-secret-of-mine" not in str(told)
    [failed] = arrived(account, "failed")
    assert failed["detail"]["FailureReason"] == reason
    assert arrived(neighbour, "jobs") == []


@pytest.mark.control("MON-06", lacking="labeling jobs")
def test_an_endpoint_s_life_is_told(account: Account) -> None:
    workshop = workshop_of(account)
    watched(account, "all", {"source": ["aws.sagemaker"]})
    client = workshop.sagemaker
    workshop.s3.put_object(Bucket=workshop.bucket, Key="m.tar.gz", Body=archive(**{"code/inference.py": SERVER}))
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{workshop.bucket}/m.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    client.create_model_package_group(ModelPackageGroupName="g")
    package = client.create_model_package(
        ModelPackageGroupName="g",
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/plain"],
            "SupportedResponseMIMETypes": ["text/plain"],
        },
    )["ModelPackageArn"]
    client.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    client.create_model(ModelName="m", ExecutionRoleArn=workshop.role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "VolumeSizeInGB": 1}
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[{**variant, "InitialInstanceCount": 1}])
    client.create_endpoint(EndpointName="e", EndpointConfigName="c", Tags=[{"Key": "team", "Value": "red"}])
    assert workshop.endpoint("e", "InService", "Failed")["EndpointStatus"] == "InService"
    # Tags are no change of a status.
    client.add_tags(
        ResourceArn=client.describe_endpoint(EndpointName="e")["EndpointArn"], Tags=[{"Key": "a", "Value": "b"}]
    )
    client.delete_endpoint(EndpointName="e")

    def statuses() -> set[str]:
        return {one["detail"]["EndpointStatus"] for one in of(arrived(account, "all"), "Endpoint", "e")}

    until(lambda: statuses() == {"CREATING", "IN_SERVICE", "DELETING", "DELETED"}, 30)
    events = arrived(account, "all")
    assert len(of(events, "Endpoint", "e")) == 4
    assert of(events, "Endpoint", "e")[0]["detail"]["Tags"]["team"] == "red"
    assert len(of(events, "Model", "m")) == len(of(events, "Endpoint Config", "c")) == 1
    approvals = [one["detail"]["ModelApprovalStatus"] for one in of(events, "Model Package", "1")]
    assert sorted(approvals)[0] == "Approved" and "PendingManualApproval" in approvals


@pytest.mark.control("MON-06", lacking="labeling jobs")
def test_tuning_and_processing_jobs_are_told_status_by_status(account: Account) -> None:
    workshop = workshop_of(account)
    watched(account, "jobs", {"source": ["aws.sagemaker"]})
    client = workshop.sagemaker
    client.create_processing_job(
        ProcessingJobName="process",
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "-c", "raise SystemExit('no rows')"]},
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    )
    name = tune(workshop, config(most=1, parallel=1))
    assert tuned(workshop, name)["HyperParameterTuningJobStatus"] == "Completed"

    def statuses(kind: str, job: str, member: str) -> list[str]:
        """In the order of the statuses, each as often as it was told."""
        return sorted(one["detail"][member] for one in of(arrived(account, "jobs"), kind, job))

    tuning = ("HyperParameter Tuning Job", name, "HyperParameterTuningJobStatus")
    until(lambda: "Completed" in statuses(*tuning))
    assert sorted(set(statuses(*tuning))) == ["Completed", "InProgress"]
    processing = ("Processing Job", "process", "ProcessingJobStatus")
    until(lambda: statuses(*processing) == ["Failed", "InProgress"], 30)
    reason = client.describe_processing_job(ProcessingJobName="process")["FailureReason"]
    [failed] = [
        one for one in of(arrived(account, "jobs"), *processing[:2]) if one["detail"]["ProcessingJobStatus"] == "Failed"
    ]
    assert failed["detail"]["FailureReason"] == reason
