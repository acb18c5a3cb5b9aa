"""Scaling policies: what the load is to be."""

from __future__ import annotations

import uuid
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.application_autoscaling import step
from bastide.services.application_autoscaling.target import KEYS, found, of_resource, page, shown, this
from bastide.store import Row, Transaction, View

METRIC: Final = "SageMakerVariantInvocationsPerInstance"

TRACKING: Final = "TargetTrackingScaling"
STEPS: Final = "StepScaling"
_CONFIGS: Final = {
    TRACKING: "TargetTrackingScalingPolicyConfiguration",
    STEPS: "StepScalingPolicyConfiguration",
}
ACTIONS: Final = {"OK": "OKActions", "ALARM": "AlarmActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
"""Of an alarm, by its state: what it asks for."""
_ALARM_KEY: Final = "cloudwatch:Alarm"
_MOST_ALARMS: Final = 5000

POLICY = Kind(
    "ScalingPolicy",
    service="application-autoscaling",
    arn="scalingPolicy:{}",
    arn_service="autoscaling",
    named_by="PolicyName",
    tags=False,
    history=False,
    missing=("ObjectNotFoundException", "No scaling policy found for this name, service namespace and resource.", 400),
)


"""Beside what the API shows a row of steps keeps `_asked`, the states of alarms that are still to be followed; `_heard`,
when each alarm was followed last; `_last`, what the policy did last."""


@POLICY.operation("PutScalingPolicy", asks=[Ask("application-autoscaling:PutScalingPolicy", this, given=KEYS)])
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    target = found(a, tx)
    row = POLICY.get(tx, a.account, a.region, f"{target.name}/{given['PolicyName']}")
    kind = given.get("PolicyType") or (row.doc["PolicyType"] if row is not None else "StepScaling")
    if kind not in _CONFIGS:
        raise Refused("ValidationException", f"The PolicyType {kind} is not supported by Bastide yet.")
    for other, member in _CONFIGS.items():
        if other != kind and given.get(member):
            raise Refused("ValidationException", f"{member} is for policies of the PolicyType {other}.")
    member = _CONFIGS[kind]
    config = given.get(member)
    if not config:
        raise Refused("ValidationException", f"{member} is needed.")
    _check(config) if kind == TRACKING else step.check(config)
    if row is not None:
        if row.doc["PolicyType"] != kind:
            raise Refused(
                "ValidationException", f"The policy is of the PolicyType {row.doc['PolicyType']}, and stays so."
            )
        row.doc[member] = config
        tx.update(row, event=a.operation.name, request_id=a.request.id, keep=False)
        return {"PolicyARN": row.doc["PolicyARN"], "Alarms": _shown(tx, row)}
    resource = f"{uuid.uuid4()}:resource/sagemaker/{target.doc['ResourceId']}:policyName/{given['PolicyName']}"
    doc = {
        "PolicyARN": POLICY.arn(a.account, a.region, resource),
        "PolicyName": given["PolicyName"],
        **{member: target.doc[member] for member in ("ServiceNamespace", "ResourceId", "ScalableDimension")},
        "PolicyType": kind,
        member: config,
    }
    POLICY.create(a, tx, f"{target.name}/{given['PolicyName']}", doc)
    return {"PolicyARN": doc["PolicyARN"], "Alarms": []}


def alarms(view: View, policy: Row) -> list[Row]:
    """The alarms that name a policy in their actions."""
    arn = policy.doc["PolicyARN"]
    return [
        one
        for one in view.scan(_ALARM_KEY, policy.account, policy.region, limit=_MOST_ALARMS)
        if any(arn in (one.doc.get(member) or ()) for member in ACTIONS.values())
    ]


def _shown(view: View, policy: Row) -> list[dict[str, str]]:
    where = f"arn:aws:cloudwatch:{policy.region}:{policy.account}:alarm:"
    found = alarms(view, policy) if policy.doc["PolicyType"] == STEPS else []
    return [{"AlarmName": one.name, "AlarmARN": where + one.name} for one in found]


def _check(config: dict[str, Any]) -> None:
    predefined = config.get("PredefinedMetricSpecification")
    if config.get("CustomizedMetricSpecification") or not predefined:
        raise Refused("ValidationException", "Bastide scales by a PredefinedMetricSpecification only, yet.")
    if predefined["PredefinedMetricType"] != METRIC:
        raise Refused("ValidationException", f"The metric of a variant's load is {METRIC}.")
    if predefined.get("ResourceLabel"):
        raise Refused("ValidationException", "ResourceLabel is not for this metric.")
    if config["TargetValue"] <= 0:
        raise Refused("ValidationException", "TargetValue is more than 0.")


@POLICY.reads("DescribeScalingPolicies", asks=[Ask("application-autoscaling:DescribeScalingPolicies", anything)])
def described(a: Authorised, view: View) -> Output:
    names = a.input.get("PolicyNames")
    rows, token = page(
        a, view, POLICY, lambda doc: of_resource(a.input, doc) and (not names or doc["PolicyName"] in names)
    )
    return {
        "ScalingPolicies": [{**shown(row), "Alarms": _shown(view, row)} for row in rows],
        "NextToken": token,
    }


@POLICY.operation("DeleteScalingPolicy", asks=[Ask("application-autoscaling:DeleteScalingPolicy", this, given=KEYS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    target = found(a, tx)
    row = POLICY.find(tx, a.account, a.region, f"{target.name}/{a.input['PolicyName']}")
    tx.delete(row, event=a.operation.name, request_id=a.request.id, keep=False)
    return {}
