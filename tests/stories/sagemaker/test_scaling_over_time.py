"""Variants follow alarms by steps, cool down, and shrink again: hours of it, on a clock that is moved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import Moved, moved
from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant
from tests.stories.sagemaker.test_scaling import TRACKING, WHAT

OUT = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [
        {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 10.0, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 10.0, "ScalingAdjustment": 2},
    ],
    "Cooldown": 300,
}
IN = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [{"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": -1}],
    "Cooldown": 300,
}


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moved]:
    running = moved(tmp_path_factory.mktemp("scaled"))
    platform = next(running)

    def clock(remove_tzinfo: bool = True) -> datetime:
        at = datetime.now(UTC) + timedelta(microseconds=platform.ahead)
        return at.replace(tzinfo=None) if remove_tzinfo else at

    for signer in ("botocore.auth", "botocore.crt.auth"):
        monkeypatch.setattr(f"{signer}.get_current_datetime", clock)  # callers' clocks move with the platform's
    platform.client("organizations").create_organization()
    yield platform
    yield from running


@pytest.fixture
def workshop(here: Moved) -> Iterator[Workshop]:
    made = workshop_of(here.account())
    yield made
    made.sagemaker.delete_endpoint(EndpointName="e")


@pytest.mark.control("PRM-15")
def test_steps_are_taken_for_alarms_and_cool_down(here: Moved, workshop: Workshop) -> None:
    model(workshop, "m", container(workshop, "A"))
    invoke = serve(workshop, config(workshop, "c", variant("m")))
    account = workshop.account
    scaling, watch = account.client("application-autoscaling"), account.client("cloudwatch")
    scaling.register_scalable_target(**WHAT, MinCapacity=1, MaxCapacity=3)
    arns = {}
    for name, steps in (("out", OUT), ("in", IN)):
        policy = {"PolicyName": name, "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": steps}
        arns[name] = scaling.put_scaling_policy(**WHAT, **policy)["PolicyARN"]

    def alarm(name: str, comparison: str, threshold: float, action: str) -> None:
        watch.put_metric_alarm(
            AlarmName=name, Namespace="Queue", MetricName="Depth", Statistic="Average", Period=60, EvaluationPeriods=1,
            Threshold=threshold, ComparisonOperator=comparison, AlarmActions=[arns[action]],
        )  # fmt: skip

    def minute(depth: float, then: int = 61) -> None:
        watch.put_metric_data(Namespace="Queue", MetricData=[{"MetricName": "Depth", "Value": depth}])
        here.ahead += then * 1_000_000

    def count() -> int:
        found = workshop.sagemaker.describe_endpoint(EndpointName="e")
        return found["ProductionVariants"][0]["CurrentInstanceCount"] * (found["EndpointStatus"] == "InService")

    def activities(**more: Any) -> list[dict[str, Any]]:
        return scaling.describe_scaling_activities(**WHAT, **more)["ScalingActivities"]

    alarm("deep", "GreaterThanThreshold", 10, "out")
    [shown] = [
        one for one in scaling.describe_scaling_policies(**WHAT)["ScalingPolicies"] if one["PolicyName"] == "out"
    ]
    assert [one["AlarmName"] for one in shown["Alarms"]] == ["deep"]
    assert shown["StepScalingPolicyConfiguration"] == OUT
    minute(15)
    until(lambda: count() == 2)
    until(lambda: activities()[0]["StatusCode"] == "Successful")
    [activity] = activities()
    assert activity["Cause"] == "monitor alarm deep in state ALARM triggered policy out"
    assert activity["Description"] == "Setting desired instance count to 2."
    # Two more are wanted now, and one has come while it still cools down: one comes.
    minute(30)
    until(lambda: count() == 3)
    # Low: a step down, and no second one before it has cooled down, though the alarm stays on.
    alarm("low", "LessThanThreshold", 5, "in")
    minute(0)
    until(lambda: count() == 2)
    minute(0)
    time.sleep(3)
    assert count() == 2
    here.ahead += 240_000_000
    minute(0)
    until(lambda: count() == 1)
    assert [one["Cause"].split()[2] for one in activities()] == ["low", "low", "deep", "deep"]
    # At its minimum nothing is done, and why is told to who asks for that.
    watch.set_alarm_state(AlarmName="low", StateValue="OK", StateReason="a test")
    watch.set_alarm_state(AlarmName="low", StateValue="ALARM", StateReason="a test")
    minute(0, 0)
    until(lambda: activities(IncludeNotScaledActivities=True)[0]["StatusCode"] == "NotScaled")
    [reason] = activities(IncludeNotScaledActivities=True)[0]["NotScaledReasons"]
    assert reason == {"Code": "AlreadyAtMinCapacity", "MinCapacity": 1, "CurrentCapacity": 1}
    assert len(activities()) == 4
    watch.delete_alarms(AlarmNames=["low", "deep"])
    # Without the right to read the metric nothing is scaled by it; a role that may not register policies makes none.
    account.role("Reader", allow("application-autoscaling:Describe*"))
    reader = account.client("application-autoscaling", account.as_role("Reader"))
    with pytest.raises(ClientError, match="not authorized"):
        reader.put_scaling_policy(
            **WHAT, PolicyName="out", PolicyType="StepScaling", StepScalingPolicyConfiguration=OUT
        )
    # A tracked variant shrinks after fifteen minutes below its target.
    for least in (2, 1):
        scaling.register_scalable_target(**WHAT, MinCapacity=least)
        until(lambda: count() == 2)
    policy = {"PolicyName": "load", "PolicyType": "TargetTrackingScaling"}
    scaling.put_scaling_policy(**WHAT, **policy, TargetTrackingScalingPolicyConfiguration=TRACKING)
    assert invoke(b"x") == b"Ax"
    time.sleep(2.5)
    assert count() == 2
    here.ahead += 16 * 60 * 1_000_000
    until(lambda: count() == 1)
    assert activities()[0]["Cause"] == "the load was low for fifteen minutes"
