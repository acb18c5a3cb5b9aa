"""Experiments: what people report, what jobs record by themselves, and that nobody can rewrite the latter."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import Workshop

SCRIPT = """
for value in (0.5, 0.75, 1.0, 0.25):
    print(f"acc={value}", flush=True)
"""


def _client(account: Account) -> Any:
    return account.client("sagemaker")


def test_an_experiment_from_its_first_trial_to_its_end(account: Account) -> None:
    client = _client(account)
    made = client.create_experiment(ExperimentName="churn", Description="d", Tags=[{"Key": "team", "Value": "red"}])
    assert made["ExperimentArn"] == f"arn:aws:sagemaker:us-east-1:{account.id}:experiment/churn"
    with pytest.raises(ClientError, match="already exists") as taken:
        client.create_experiment(ExperimentName="churn")
    assert taken.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.create_trial(TrialName="t0", ExperimentName="nothing")
    for number in range(3):
        client.create_trial(TrialName=f"t{number}", ExperimentName="churn")
    client.create_experiment(ExperimentName="other")
    client.create_trial(TrialName="o", ExperimentName="other")
    first = client.list_trials(ExperimentName="churn", MaxResults=2)
    rest = client.list_trials(ExperimentName="churn", MaxResults=2, NextToken=first["NextToken"])
    assert [one["TrialName"] for one in first["TrialSummaries"] + rest["TrialSummaries"]] == ["t2", "t1", "t0"]
    by_name = client.list_experiments(SortBy="Name", SortOrder="Ascending")["ExperimentSummaries"]
    assert [one["ExperimentName"] for one in by_name] == ["churn", "other"]

    client.create_trial_component(
        TrialComponentName="c",
        Status={"PrimaryStatus": "InProgress"},
        Parameters={"lr": {"NumberValue": 0.1}, "kind": {"StringValue": "x"}},
        InputArtifacts={"data": {"Value": "s3://b/k", "MediaType": "text/csv"}},
    )
    for _ in range(2):  # the SDK associates again and again
        client.associate_trial_component(TrialComponentName="c", TrialName="t0")
    client.associate_trial_component(TrialComponentName="c", TrialName="t1")
    found = client.list_trial_components(ExperimentName="churn")["TrialComponentSummaries"]
    assert [one["TrialComponentName"] for one in found] == ["c"]
    assert [one["TrialName"] for one in client.list_trials(TrialComponentName="c")["TrialSummaries"]] == ["t1", "t0"]
    client.update_trial_component(
        TrialComponentName="c",
        Parameters={"lr": {"NumberValue": 0.2}},
        ParametersToRemove=["kind"],
        Status={"PrimaryStatus": "Completed", "Message": "done"},
    )
    found = client.describe_trial_component(TrialComponentName="c")
    assert found["Parameters"] == {"lr": {"NumberValue": 0.2}}
    assert found["Status"] == {"PrimaryStatus": "Completed", "Message": "done"}
    assert found["CreatedBy"]["IamIdentity"]["Arn"] and found["LastModifiedBy"]["IamIdentity"]["Arn"]

    with pytest.raises(ClientError, match="in a trial"):
        client.delete_trial_component(TrialComponentName="c")
    with pytest.raises(ClientError, match="has components"):
        client.delete_trial(TrialName="t0")
    with pytest.raises(ClientError, match="has trials"):
        client.delete_experiment(ExperimentName="churn")
    for name in ("t0", "t1"):
        client.disassociate_trial_component(TrialComponentName="c", TrialName=name)
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.disassociate_trial_component(TrialComponentName="c", TrialName="t0")
    client.delete_trial_component(TrialComponentName="c")
    for name in ("t0", "t1", "t2"):
        client.delete_trial(TrialName=name)
    client.delete_experiment(ExperimentName="churn")
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.describe_experiment(ExperimentName="churn")


def test_metrics_are_summed_up_and_got_back(account: Account) -> None:
    client, metrics = _client(account), account.client("sagemaker-metrics")
    arn = client.create_trial_component(TrialComponentName="c")["TrialComponentArn"]
    now = time.time()
    values = [1.0, 0.5, 0.25]
    data = [{"MetricName": "loss", "Timestamp": now + n, "Step": n, "Value": value} for n, value in enumerate(values)]
    assert metrics.batch_put_metrics(TrialComponentName="c", MetricData=data).get("Errors", []) == []
    found = client.describe_trial_component(TrialComponentName="c")["Metrics"]
    assert len(found) == 1
    assert {key: found[0][key] for key in ("MetricName", "Count", "Min", "Max", "Last")} == {
        "MetricName": "loss", "Count": 3, "Min": 0.25, "Max": 1.0, "Last": 0.25,
    }  # fmt: skip
    assert found[0]["Avg"] == pytest.approx(sum(values) / 3)
    assert found[0]["StdDev"] == pytest.approx((sum((one - 7 / 12) ** 2 for one in values) / 3) ** 0.5)
    query = {"MetricName": "loss", "ResourceArn": arn, "MetricStat": "Last"}
    by_step = {"Period": "IterationNumber", "XAxisType": "IterationNumber"}
    got = metrics.batch_get_metrics(
        MetricQueries=[
            {**query, **by_step},
            {**query, **by_step, "Start": 1},
            {**query, "MetricName": "none", **by_step},
            {**query, "Period": "OneHour", "XAxisType": "Timestamp", "MetricStat": "Count"},
        ]
    )["MetricQueryResults"]
    assert (got[0]["Status"], got[0]["XAxisValues"], got[0]["MetricValues"]) == ("Complete", [0, 1, 2], values)
    assert got[1]["MetricValues"] == values[1:]
    assert got[2]["Status"] == "ValidationError" and "no metric" in got[2]["Message"]
    assert sum(got[3]["MetricValues"]) == 3
    with pytest.raises(ClientError):
        metrics.batch_put_metrics(TrialComponentName="nobody", MetricData=data)
    reader = account.role("Reader", allow("sagemaker:Describe*"))
    keys = account.platform.assume(reader, account.keys)
    with pytest.raises(ClientError, match="not authorized"):
        account.client("sagemaker-metrics", keys).batch_put_metrics(TrialComponentName="c", MetricData=data)


@pytest.mark.control("LIN-05")
def test_a_job_records_its_own_component_and_nobody_rewrites_it(workshop: Workshop) -> None:
    client = workshop.sagemaker
    client.create_experiment(ExperimentName="churn")
    client.create_trial(TrialName="t", ExperimentName="churn")
    client.create_trial_component(TrialComponentName="run")
    with pytest.raises(client.exceptions.ResourceNotFound):
        workshop.train(SCRIPT, ExperimentConfig={"ExperimentName": "nothing"})
    config = {"ExperimentName": "churn", "TrialName": "t", "RunName": "run", "TrialComponentDisplayName": "Train"}
    name = workshop.train(SCRIPT, ExperimentConfig=config)
    # What somebody claims while the job runs gives way to what it printed.
    claim = [{"MetricName": "acc", "Timestamp": time.time(), "Value": 9.0}]
    workshop.account.client("sagemaker-metrics").batch_put_metrics(
        TrialComponentName=f"{name}-aws-training-job", MetricData=claim
    )  # fmt: skip
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed" and job["ExperimentConfig"] == config
    [found] = client.list_trial_components(SourceArn=job["TrainingJobArn"].lower())["TrialComponentSummaries"]
    assert found["TrialComponentName"] == f"{name}-aws-training-job"
    assert found["TrialComponentSource"] == {
        "SourceArn": job["TrainingJobArn"], "SourceType": "SageMakerTrainingJob",
    }  # fmt: skip
    [listed] = client.list_trial_components(TrialName="t")["TrialComponentSummaries"]
    assert listed["TrialComponentName"] == found["TrialComponentName"] and listed["DisplayName"] == "Train"
    component = client.describe_trial_component(TrialComponentName=found["TrialComponentName"])
    assert component["Status"]["PrimaryStatus"] == "Completed"
    assert component["Parameters"]["lr"] == {"NumberValue": 0.1}
    assert component["Parameters"]["SageMaker.InstanceType"] == {"StringValue": "ml.t3.medium"}
    assert component["InputArtifacts"]["train"]["Value"] == f"s3://{workshop.bucket}/data/"
    made = component["OutputArtifacts"]["SageMaker.ModelArtifact"]["Value"]
    assert made == job["ModelArtifacts"]["S3ModelArtifacts"]
    [metric] = component["Metrics"]
    assert (metric["Count"], metric["Min"], metric["Max"], metric["Last"]) == (4, 0.25, 1.0, 0.25)
    assert metric["SourceArn"] == job["TrainingJobArn"]

    # A person may add; what was read off from the run stays.
    added = {"note": {"StringValue": "x"}}
    client.update_trial_component(TrialComponentName=component["TrialComponentName"], Parameters=added)
    for forged in (
        {"Parameters": {"lr": {"NumberValue": 9}}},
        {"ParametersToRemove": ["lr"]},
        {"InputArtifacts": {"train": {"Value": "s3://other/"}}},
        {"OutputArtifacts": {"SageMaker.ModelArtifact": {"Value": "s3://other/"}}},
        {"Status": {"PrimaryStatus": "Failed"}},
    ):
        with pytest.raises(ClientError, match="read off"):
            client.update_trial_component(TrialComponentName=component["TrialComponentName"], **forged)
    errors = workshop.account.client("sagemaker-metrics").batch_put_metrics(
        TrialComponentName=component["TrialComponentName"],
        MetricData=[{"MetricName": "acc", "Timestamp": time.time(), "Value": 9.0}],
    )["Errors"]
    assert errors == [{"Code": "CONFLICT_ERROR", "MetricIndex": 0}]
    client.disassociate_trial_component(TrialComponentName=component["TrialComponentName"], TrialName="t")
    with pytest.raises(ClientError, match="is the record of"):
        client.delete_trial_component(TrialComponentName=component["TrialComponentName"])
    with pytest.raises(ClientError, match="kept for"):
        client.create_trial_component(TrialComponentName="mine-aws-training-job")
    # A job that fails says so, too, in a trial of its own where it names the experiment alone.
    failed = workshop.trained(workshop.train("raise SystemExit(3)", ExperimentConfig={"ExperimentName": "churn"}))
    component = client.describe_trial_component(TrialComponentName=f"{failed['TrainingJobName']}-aws-training-job")
    assert component["Status"]["PrimaryStatus"] == "Failed" and "exit code: 3" in component["Status"]["Message"]
    assert len(client.list_trials(ExperimentName="churn")["TrialSummaries"]) == 2
