"""What jobs and endpoints measure is in CloudWatch: as the job's role may put it, and no more than happened."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of

MODEL = "open('/opt/ml/model/m.txt','w').write('m')"
BUSY = f"""
import time
print('acc=0.5', flush=True)
end = time.monotonic() + 1.3
while time.monotonic() < end: pass
print('acc=0.75', flush=True)
{MODEL}
"""
SERVICE = {"Service": "sagemaker.amazonaws.com"}
SERVER = b"""
def model_fn(folder): return ''
def input_fn(body, kind):
    if body == 'bad': raise ValueError('x')
    return body
def predict_fn(data, model):
    if data == 'broken': raise ValueError('x')
    return data
def output_fn(prediction, accept): return prediction, 'text/plain'
"""


def sums(client: Any, namespace: str, name: str, dimensions: dict[str, str], *stats: str) -> dict[str, float]:
    """Of the last minutes, the statistics over all of them."""
    now = datetime.datetime.now(datetime.UTC)
    found = client.get_metric_statistics(
        Namespace=namespace, MetricName=name, Dimensions=[{"Name": k, "Value": v} for k, v in dimensions.items()],
        StartTime=now - datetime.timedelta(minutes=10), EndTime=now + datetime.timedelta(minutes=2), Period=3600,
        Statistics=list(stats or ("SampleCount",)),
    )["Datapoints"]  # fmt: skip
    return {one: found[0][one] for one in stats or ("SampleCount",)} if found else {}


@pytest.mark.control("MON-07")
@pytest.mark.control("PRM-12")
def test_a_job_s_metrics_and_its_machine_s_are_in_cloudwatch(workshop: Workshop) -> None:
    account = workshop.account
    role = account.role("Measured", allow("s3:*", "logs:*", "cloudwatch:PutMetricData"), trust=SERVICE)
    name = workshop.train(BUSY, RoleArn=role)
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    client, group = account.client("cloudwatch"), "/aws/sagemaker/TrainingJobs"
    found = sums(client, group, "acc", {"TrainingJobName": name}, "SampleCount", "Minimum", "Maximum")
    assert found == {"SampleCount": 2, "Minimum": 0.5, "Maximum": 0.75}
    assert job["FinalMetricDataList"][0]["Value"] == 0.75
    host = {"Host": f"{name}/algo-1"}
    busy = sums(client, group, "CPUUtilization", host, "Maximum")["Maximum"]
    assert 20 < busy < 1000
    assert 0 < sums(client, group, "MemoryUtilization", host, "Maximum")["Maximum"] <= 100
    assert 0 < sums(client, group, "DiskUtilization", host, "Maximum")["Maximum"] <= 100
    # The other direction: a role that may not measures nothing, and its job runs.
    other = workshop.trained(workshop.train(BUSY))
    assert other["TrainingJobStatus"] == "Completed"
    assert other["FinalMetricDataList"][0]["Value"] == 0.75
    listed = client.list_metrics(Namespace=group)["Metrics"]
    assert {pair["Value"] for one in listed for pair in one["Dimensions"]} == {name, f"{name}/algo-1"}
    account.role("Blind", allow("sagemaker:*"))
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("logs", account.as_role("Blind")).filter_log_events(logGroupName=group)


@pytest.mark.control("MON-07")
def test_a_metric_whose_expression_is_none_is_refused(workshop: Workshop) -> None:
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
    with pytest.raises(ClientError, match="ValidationException"):
        workshop.train(
            MODEL, AlgorithmSpecification={**algorithm, "MetricDefinitions": [{"Name": "acc", "Regex": "acc=([0-9"}]}
        )
    assert workshop.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


@pytest.mark.control("MON-09")
def test_an_endpoint_counts_its_calls_and_what_went_wrong(account: Account, neighbour: Account) -> None:
    workshop = workshop_of(account)
    role = account.role("Serving", allow("s3:*", "logs:*", "cloudwatch:PutMetricData"), trust=SERVICE)
    packed = archive(**{"code/inference.py": SERVER})
    workshop.s3.put_object(Bucket=workshop.bucket, Key="m.tar.gz", Body=packed)
    url = f"s3://{workshop.bucket}/m.tar.gz"
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
    client = workshop.sagemaker
    client.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "VolumeSizeInGB": 1}
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[{**variant, "InitialInstanceCount": 1}])
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")
    found = workshop.endpoint("e", "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found["FailureReason"]
    runtime = account.client("sagemaker-runtime")

    def invoke(body: bytes, by: Any = runtime) -> None:
        by.invoke_endpoint(EndpointName="e", Body=body, ContentType="text/plain")

    took = []
    for _ in range(100):
        began = time.monotonic()
        invoke(b"x")
        took.append(time.monotonic() - began)
    for body in (b"bad",) * 5 + (b"broken",) * 2:
        with pytest.raises(ClientError, match="ModelError"):
            invoke(body)
    account.role("Nobody", allow("s3:*"))
    with pytest.raises(ClientError, match="AccessDenied"):
        invoke(b"x", account.client("sagemaker-runtime", account.as_role("Nobody")))
    watch, of = account.client("cloudwatch"), {"EndpointName": "e", "VariantName": "v"}

    def total(name: str) -> float:
        return sums(watch, "AWS/SageMaker", name, of, "Sum").get("Sum", 0)

    until(lambda: total("Invocations") == 107)
    assert total("Invocation4XXErrors") == 5 and total("Invocation5XXErrors") == 2
    assert total("InvocationModelErrors") == 7 and total("InvocationsPerInstance") == 107
    latency = sums(watch, "AWS/SageMaker", "ModelLatency", of, "Minimum", "SampleCount")
    assert latency["SampleCount"] == 107 and 0 < latency["Minimum"] <= max(took) * 1e6
    assert sums(watch, "AWS/SageMaker", "OverheadLatency", of)["SampleCount"] == 107
    until(lambda: sums(watch, "/aws/sagemaker/Endpoints", "MemoryUtilization", of))
    assert sums(watch, "/aws/sagemaker/Endpoints", "CPUUtilization", of)
    assert neighbour.client("cloudwatch").list_metrics()["Metrics"] == []
    client.delete_endpoint(EndpointName="e")
