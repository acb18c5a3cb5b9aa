"""Scaling policies: what the load is to be."""

from __future__ import annotations

import uuid
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.application_autoscaling.target import KEYS, found, of_resource, page, this
from bastide.store import Transaction, View

METRIC: Final = "SageMakerVariantInvocationsPerInstance"

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


@POLICY.operation("PutScalingPolicy", asks=[Ask("application-autoscaling:PutScalingPolicy", this, given=KEYS)])
def put(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    target = found(a, tx)
    row = POLICY.get(tx, a.account, a.region, f"{target.name}/{given['PolicyName']}")
    kind = given.get("PolicyType") or (row.doc["PolicyType"] if row is not None else "StepScaling")
    if kind != "TargetTrackingScaling":
        raise Refused(
            "ValidationException",
            f"The PolicyType {kind} is not supported by Bastide yet, as there are no CloudWatch alarms to set it off: "
            "use TargetTrackingScaling.",
        )
    config = given.get("TargetTrackingScalingPolicyConfiguration")
    if not config:
        raise Refused("ValidationException", "TargetTrackingScalingPolicyConfiguration is needed.")
    _check(config)
    if row is not None:
        row.doc["TargetTrackingScalingPolicyConfiguration"] = config
        tx.update(row, event=a.operation.name, request_id=a.request.id, keep=False)
        return {"PolicyARN": row.doc["PolicyARN"], "Alarms": []}
    resource = f"{uuid.uuid4()}:resource/sagemaker/{target.doc['ResourceId']}:policyName/{given['PolicyName']}"
    doc = {
        "PolicyARN": POLICY.arn(a.account, a.region, resource),
        "PolicyName": given["PolicyName"],
        **{member: target.doc[member] for member in ("ServiceNamespace", "ResourceId", "ScalableDimension")},
        "PolicyType": kind,
        "TargetTrackingScalingPolicyConfiguration": config,
    }
    POLICY.create(a, tx, f"{target.name}/{given['PolicyName']}", doc)
    return {"PolicyARN": doc["PolicyARN"], "Alarms": []}


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
        "ScalingPolicies": [{**row.doc, "Alarms": [], "CreationTime": row.created} for row in rows],
        "NextToken": token,
    }


@POLICY.operation("DeleteScalingPolicy", asks=[Ask("application-autoscaling:DeleteScalingPolicy", this, given=KEYS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    target = found(a, tx)
    row = POLICY.find(tx, a.account, a.region, f"{target.name}/{a.input['PolicyName']}")
    tx.delete(row, event=a.operation.name, request_id=a.request.id, keep=False)
    return {}
