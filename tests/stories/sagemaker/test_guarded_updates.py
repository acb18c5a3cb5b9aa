"""An update that makes errors is turned back by its alarm, and whoever asks for what works never notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved
from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_updates import Load

HALF = {"Type": "CAPACITY_PERCENT", "Value": 50}
# The new model refuses what the old one answers, and nothing else.
WORSE = b"""
def model_fn(folder): return open(folder + '/m.txt').read()
def transform_fn(model, body, kind, accept):
    if body == 'new': raise ValueError('x')
    return model + body, 'text/plain'
"""


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("guarded"))


@pytest.fixture
def guarded(here: Moved) -> Iterator[Workshop]:
    here.client("organizations").create_organization()
    made = workshop_of(here.account())
    may = allow("s3:*", "logs:*", "kms:*", "cloudwatch:DescribeAlarms")
    made.role = made.account.role("Guarded", may, trust={"Service": "sagemaker.amazonaws.com"})
    yield made
    made.sagemaker.delete_endpoint(EndpointName="e")


def _alarm(workshop: Workshop, name: str) -> None:
    workshop.account.client("cloudwatch").put_metric_alarm(
        AlarmName=name, Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistic="Sum", Period=60,
        Dimensions=[{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "AllTraffic"}],
        Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold", EvaluationPeriods=5, DatapointsToAlarm=1,
        TreatMissingData="notBreaching",
    )  # fmt: skip


def _errors(watch: Any, began: datetime) -> float:
    """How many calls failed since then, as CloudWatch has it."""
    told = watch.get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistics=["Sum"], Period=60,
        Dimensions=[{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "AllTraffic"}],
        StartTime=began, EndTime=began + timedelta(hours=1),
    )  # fmt: skip
    return float(sum(one["Sum"] for one in told["Datapoints"]))


def test_an_alarm_that_goes_off_turns_an_update_back(here: Moved, guarded: Workshop) -> None:
    client, watch = guarded.sagemaker, guarded.account.client("cloudwatch")
    for name, script in (("A", {}), ("B", {"script": WORSE})):
        config(guarded, model(guarded, name, container(guarded, name, **script)), variant(name))
    invoke = serve(guarded, "A")
    _alarm(guarded, "errors")
    routing = {"Type": "CANARY", "CanarySize": HALF, "WaitIntervalInSeconds": 600}
    blue_green = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}
    alarms = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]}}
    update = {"EndpointName": "e", "EndpointConfigName": "B"}
    for wrong, why in (
        ({"BlueGreenUpdatePolicy": {**blue_green, "TrafficRoutingConfiguration": {
            **routing, "CanarySize": {**HALF, "Value": 60}}}}, "CanarySize is from 1 to 50"),
        ({"RollingUpdatePolicy": {"MaximumBatchSize": HALF, "WaitIntervalInSeconds": 0,
                                  "RollbackMaximumBatchSize": HALF}}, "RollbackMaximumBatchSize is not supported"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=why):
            client.update_endpoint(**update, DeploymentConfig=wrong)

    def pending(status: str) -> dict[str, Any] | None:
        found = client.describe_endpoint(EndpointName="e")
        assert found["EndpointStatus"] == "Updating" and found["EndpointConfigName"] == "A"
        [shape] = found["PendingDeploymentSummary"]["ProductionVariants"]
        return shape if shape["VariantStatus"][0]["Status"] == status else None

    with Load(invoke, 2).running() as load:
        client.update_endpoint(**update, DeploymentConfig={"BlueGreenUpdatePolicy": blue_green, **alarms})
        coming = pending("Creating")
        assert coming is None or (coming["CurrentInstanceCount"], coming["DesiredInstanceCount"]) == (0, 1)
        baking = until(lambda: pending("Baking"))
        assert (baking["CurrentInstanceCount"], baking["CurrentWeight"]) == (1, 0.5)
        assert "errors" in baking["VariantStatus"][0]["StatusMessage"]
        assert load.seen() == {b"A", b"B"}
        failed = 0
        for _ in range(40):
            try:
                assert invoke(b"new") == b"Anew"
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ModelError"
                failed += 1
        assert 0 < failed < 40  # the canary's share of them
        began = datetime.now(UTC) - timedelta(minutes=10)
        until(lambda: _errors(watch, began) >= failed)  # what was counted is on the disk
        here.ahead = 61_000_000  # the minute of the errors is over
        found = guarded.endpoint("e", "InService")
        assert found["EndpointConfigName"] == "A" and "PendingDeploymentSummary" not in found
        assert found["FailureReason"] == "The deployment was rolled back: the alarm errors is in the state ALARM."
        assert "LastDeploymentConfig" not in found
        [alarm] = watch.describe_alarms(AlarmNames=["errors"])["MetricAlarms"]
        assert alarm["StateValue"] == "ALARM" and "Threshold Crossed" in alarm["StateReason"]
        assert load.seen() == {b"A"}
        assert invoke(b"new") == b"Anew"
        # While the alarm is on, no update begins.
        client.update_endpoint(**update, DeploymentConfig=alarms)
        assert "the alarm errors is in the state ALARM" in guarded.endpoint("e", "InService")["FailureReason"]
        assert load.seen() == {b"A"}
        # Without the right to see alarms a role's endpoint does not change unwatched.
        less = json.dumps(allow("s3:*", "logs:*"))
        guarded.account.client("iam").put_role_policy(RoleName="Guarded", PolicyName="inline", PolicyDocument=less)
        client.update_endpoint(**update, DeploymentConfig=alarms)
        reason = guarded.endpoint("e", "InService")["FailureReason"]
        assert "its alarms cannot be read with the role of the model" in reason and "AccessDenied" in reason
    assert load.errors == []
