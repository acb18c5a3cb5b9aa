"""Variants follow their load, and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.serving import config, container, model, serve, until, variant

WHAT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TRACKING = {
    "TargetValue": 10.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
    "ScaleOutCooldown": 0,
}
ONE_MORE = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": [{"ScalingAdjustment": 1}]}
ACTIONS = (
    "DeleteScalingPolicy",
    "DeleteScheduledAction",
    "DeregisterScalableTarget",
    "DescribeScalableTargets",
    "DescribeScalingActivities",
    "DescribeScalingPolicies",
    "DescribeScheduledActions",
    "PutScalingPolicy",
    "PutScheduledAction",
    "RegisterScalableTarget",
)


@pytest.fixture
def endpoint(workshop: Workshop) -> Iterator[Any]:
    model(workshop, "m", container(workshop, "A"))
    yield serve(workshop, config(workshop, "c", variant("m")))
    workshop.account.client("application-autoscaling").deregister_scalable_target(**WHAT)


def _count(workshop: Workshop) -> int:
    found = workshop.sagemaker.describe_endpoint(EndpointName="e")
    if found["EndpointStatus"] != "InService":
        return 0
    return int(found["ProductionVariants"][0]["CurrentInstanceCount"])


@pytest.mark.control("PRM-15")
def test_a_variant_grows_under_load_and_shrinks_by_schedule(workshop: Workshop, endpoint: Any) -> None:
    account = workshop.account
    linked = "sagemaker.application-autoscaling.amazonaws.com"
    account.client("iam").create_service_linked_role(AWSServiceName=linked)
    account.role("Hosting", allow(*(f"application-autoscaling:{one}" for one in ACTIONS)))
    scaling = account.client("application-autoscaling", account.as_role("Hosting"))
    own = f"arn:aws:iam::{account.id}:role/Mine"  # the service's own is used, whatever role is named, as on AWS
    arn = scaling.register_scalable_target(**WHAT, MinCapacity=1, MaxCapacity=2, RoleARN=own)["ScalableTargetARN"]
    [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["ScalableTargetARN"], target["MaxCapacity"]) == (arn, 2)
    assert target["RoleARN"].endswith("/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")
    policy = {"PolicyName": "load", "PolicyType": "TargetTrackingScaling"}
    made = scaling.put_scaling_policy(**WHAT, **policy, TargetTrackingScalingPolicyConfiguration=TRACKING)
    assert ":scalingPolicy:" in made["PolicyARN"] and made["PolicyARN"].endswith(":policyName/load")
    [shown] = scaling.describe_scaling_policies(**WHAT)["ScalingPolicies"]
    assert shown["TargetTrackingScalingPolicyConfiguration"] == TRACKING

    def grown() -> bool:
        for _ in range(10):
            endpoint(b"x")
        return _count(workshop) == 2

    until(grown)
    until(lambda: scaling.describe_scaling_activities(**WHAT)["ScalingActivities"][0]["StatusCode"] == "Successful")
    [activity] = scaling.describe_scaling_activities(**WHAT)["ScalingActivities"]
    assert "policy load" in activity["Cause"] and "successfully fulfilled" in activity["StatusMessage"]
    assert activity["EndTime"] > activity["StartTime"]
    # Who scaled stands in the record, and it was not the caller.
    events = account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "UpdateEndpointWeightsAndCapacities"}]
    )["Events"]
    assert "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint" in events[0]["CloudTrailEvent"]
    soon = (datetime.now(UTC) + timedelta(seconds=2)).strftime("at(%Y-%m-%dT%H:%M:%S)")
    night = {"ScheduledActionName": "night", "Schedule": soon, "ScalableTargetAction": {"MaxCapacity": 1}}
    scaling.put_scheduled_action(**WHAT, **night)
    assert scaling.describe_scheduled_actions(**WHAT)["ScheduledActions"][0]["Schedule"] == soon
    until(lambda: _count(workshop) == 1)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"][0]["MaxCapacity"] == 1
    assert "maximum capacity" in scaling.describe_scaling_activities(**WHAT)["ScalingActivities"][0]["Cause"]
    scaling.delete_scheduled_action(**WHAT, ScheduledActionName="night")
    scaling.delete_scaling_policy(**WHAT, PolicyName="load")
    with pytest.raises(ClientError, match="ObjectNotFoundException"):
        scaling.delete_scaling_policy(**WHAT, PolicyName="load")


@pytest.mark.control("PRM-15")
def test_without_its_statement_nobody_scales(workshop: Workshop, endpoint: Any) -> None:
    account = workshop.account
    account.role("Other", allow("sagemaker:*", "application-autoscaling:Describe*"))
    other = account.client("application-autoscaling", account.as_role("Other"))
    with pytest.raises(ClientError, match="not authorized"):
        other.register_scalable_target(**WHAT, MinCapacity=1, MaxCapacity=2)
    scaling = account.client("application-autoscaling")
    # A role that may register, and may not have the service's role made, is refused by IAM's question.
    account.role("Half", allow("application-autoscaling:*"))
    half = account.client("application-autoscaling", account.as_role("Half"))
    with pytest.raises(ClientError, match="iam:CreateServiceLinkedRole"):
        half.register_scalable_target(**WHAT, MinCapacity=1, MaxCapacity=2)
    arn = scaling.register_scalable_target(**WHAT, MinCapacity=1, MaxCapacity=1, Tags={"a": "b"})["ScalableTargetARN"]
    scaling.tag_resource(ResourceARN=arn, Tags={"c": "d"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"c": "d"}
    tracking = {"PolicyName": "load", "PolicyType": "TargetTrackingScaling"}
    with pytest.raises(ClientError, match="not authorized"):
        other.put_scaling_policy(**WHAT, **tracking, TargetTrackingScalingPolicyConfiguration=TRACKING)
    scaling.put_scaling_policy(**WHAT, **tracking, TargetTrackingScalingPolicyConfiguration=TRACKING)
    # At its maximum a variant does not grow, whatever the load.
    for _ in range(30):
        endpoint(b"x")
    time.sleep(3)
    assert _count(workshop) == 1
    step = {"PolicyName": "steps", "PolicyType": "StepScaling"}
    for wrong, why in (
        (lambda: scaling.put_scaling_policy(**WHAT, **step), "StepScalingPolicyConfiguration is needed"),
        (
            lambda: scaling.put_scaling_policy(
                **WHAT, PolicyName="load", PolicyType="StepScaling", StepScalingPolicyConfiguration=ONE_MORE
            ),
            "TargetTrackingScaling, and stays so",
        ),
        (lambda: scaling.register_scalable_target(**WHAT, MinCapacity=3, MaxCapacity=2), "less than minimum"),
        (lambda: scaling.register_scalable_target(**WHAT, MinCapacity=0, MaxCapacity=2), "at least 1"),
        (
            lambda: scaling.register_scalable_target(
                **{**WHAT, "ResourceId": "endpoint/e/variant/None"}, MinCapacity=1, MaxCapacity=2
            ),
            "no endpoint e in service with the variant None",
        ),
        (
            lambda: scaling.put_scheduled_action(
                **WHAT, ScheduledActionName="n", Schedule="cron(0 1 * * * *)", ScalableTargetAction={"MaxCapacity": 1}
            ),
            "Exactly one of day-of-month and day-of-week",
        ),
    ):
        with pytest.raises(ClientError, match=why):
            wrong()
