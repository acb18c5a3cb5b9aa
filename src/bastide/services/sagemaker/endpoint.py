"""Endpoints: their operations."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker import monitoring_execution
from bastide.services.sagemaker.asking import tagging
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG, check_count
from bastide.store import Row, Transaction

ENDPOINT = Kind(
    "Endpoint",
    service="sagemaker",
    arn="endpoint/{}",
    states=("Creating", "Updating", "InService", "OutOfService", "Failed", "Deleting"),
    missing=("ValidationException", 'Could not find endpoint "{arn}".', 400),
    taken=("ValidationException", 'Cannot create already existing endpoint "{arn}".', 400),
)
"""Beside what the API shows a row keeps `_live` and `_next`, ids of the executions that serve and that are to; `_plan`,
what the first of them serves; `_asked`, what the second was started with."""

_RETAINED: Final = ("DesiredInstanceCount", "DesiredWeight", "DataCaptureConfig")


def _config(asked: Asked) -> Iterable[str]:
    name = str(asked.input["EndpointConfigName"])
    return (ENDPOINT_CONFIG.arn(asked.call.account, asked.call.region, name),)


def execution(row_arn: str, request_id: str) -> str:
    """The id of the execution that brings up what a request asked for."""
    return f"{row_arn}#{request_id}"


def shown(variants: list[dict[str, Any]], digests: Mapping[str, list[tuple[str, str, int]]]) -> list[dict[str, Any]]:
    """ProductionVariants of DescribeEndpoint; `digests`: images, their digests and times of deployment, by variant."""
    found = []
    for one in variants:
        weight = one["InitialVariantWeight"]
        shape: dict[str, Any] = {"VariantName": one["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
        if one.get("ServerlessConfig"):
            shape |= {
                "CurrentServerlessConfig": one["ServerlessConfig"],
                "DesiredServerlessConfig": one["ServerlessConfig"],
            }
        else:
            count = one["InitialInstanceCount"]
            shape |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
        if one.get("RoutingConfig"):
            shape["RoutingConfig"] = one["RoutingConfig"]
        images = digests.get(one["VariantName"])
        if images:
            shape["DeployedImages"] = [
                {"SpecifiedImage": image, "ResolvedImage": f"{image}@{digest}", "ResolutionTime": at}
                for image, digest, at in images
            ]
        found.append(shape)
    return found


def check_deployment(config: dict[str, Any] | None) -> None:
    """Raises Refused for a deployment that could not be done as it says."""
    if not config:
        return
    if config.get("BlueGreenUpdatePolicy") and config.get("RollingUpdatePolicy"):
        raise Refused("ValidationException", "A DeploymentConfig has a BlueGreenUpdatePolicy or a RollingUpdatePolicy.")
    routing = (config.get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration")
    if routing is not None:
        needed = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(routing["Type"])
        for member in ("CanarySize", "LinearStepSize"):
            if (member == needed) != bool(routing.get(member)):
                raise Refused("ValidationException", f"{member} is given with its Type, and with no other.")
        _check_size("CanarySize", routing.get("CanarySize"), 1)
        _check_size("LinearStepSize", routing.get("LinearStepSize"), 10)
    rolling = config.get("RollingUpdatePolicy") or {}
    _check_size("MaximumBatchSize", rolling.get("MaximumBatchSize"), 5)
    back = rolling.get("RollbackMaximumBatchSize")
    if back and (back["Type"], back["Value"]) != ("CAPACITY_PERCENT", 100):
        raise Refused(
            "ValidationException",
            "RollbackMaximumBatchSize is not supported by Bastide yet, except as CAPACITY_PERCENT 100, its default: the "
            "old servers are still there, so a rollback turns all calls back at once.",
        )


def _check_size(member: str, size: dict[str, Any] | None, least: int) -> None:
    """Raises Refused for a share out of AWS's bounds (API Reference, TrafficRoutingConfig, RollingUpdatePolicy)."""
    if size and size["Type"] == "CAPACITY_PERCENT" and not least <= size["Value"] <= 50:
        raise Refused("ValidationException", f"{member} is from {least} to 50 percent, not {size['Value']}.")


@ENDPOINT.operation(
    "CreateEndpoint",
    asks=[
        Ask("sagemaker:CreateEndpoint", ENDPOINT.this),
        Ask("sagemaker:CreateEndpoint", _config),
        tagging(ENDPOINT, "CreateEndpoint"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    check_deployment(a.input.get("DeploymentConfig"))
    config = ENDPOINT_CONFIG.find(tx, a.account, a.region, a.input["EndpointConfigName"])
    name = a.input["EndpointName"]
    arn = ENDPOINT.arn(a.account, a.region, name)
    doc = {
        "EndpointConfigName": config.name,
        "_next": execution(arn, a.request.id),
        "_asked": {"config": config.name},
    }
    if config.doc.get("AsyncInferenceConfig"):
        doc["AsyncInferenceConfig"] = config.doc["AsyncInferenceConfig"]
    if a.input.get("DeploymentConfig"):
        doc["LastDeploymentConfig"] = a.input["DeploymentConfig"]
    ENDPOINT.create(a, tx, name, doc, status="Creating", tags=tags_of(a))
    return {"EndpointArn": arn}


regular(ENDPOINT, "Describe", "List", descending=True)


def settled(row: Row) -> None:
    """Raises Refused while something is under way."""
    if row.status in ("Creating", "Updating", "Deleting"):
        arn = ENDPOINT.arn(row.account, row.region, row.name)
        raise Refused("ValidationException", f'Cannot update in-progress endpoint "{arn}".')


@ENDPOINT.operation(
    "UpdateEndpoint", asks=[Ask("sagemaker:UpdateEndpoint", ENDPOINT.this), Ask("sagemaker:UpdateEndpoint", _config)]
)
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    row = ENDPOINT.named(a, tx)
    settled(row)
    check_deployment(given.get("DeploymentConfig"))
    config = ENDPOINT_CONFIG.find(tx, a.account, a.region, given["EndpointConfigName"])
    if bool(config.doc.get("AsyncInferenceConfig")) != bool(row.doc.get("AsyncInferenceConfig")):
        raise Refused("ValidationException", "An endpoint stays synchronous or asynchronous: make another one.")
    deployment = given.get("DeploymentConfig")
    if not deployment and given.get("RetainDeploymentConfig"):
        deployment = row.doc.get("LastDeploymentConfig")
    asked: dict[str, Any] = {"config": config.name, "deployment": deployment}
    if given.get("RetainAllVariantProperties"):
        left_out = {one["VariantPropertyType"] for one in given.get("ExcludeRetainedVariantProperties") or ()}
        asked["retained"] = _retained(row, [one for one in _RETAINED if one not in left_out])
    arn = _begin(a, tx, row, asked)
    kept = (asked.get("retained") or {}).get("variants") or {}
    row.doc["PendingDeploymentSummary"] = {
        "EndpointConfigName": config.name,
        "ProductionVariants": [
            _pending(retain(one, kept.get(one["VariantName"]) or {}), a.now) for one in config.doc["ProductionVariants"]
        ],
        "StartTime": a.now,
    }
    ENDPOINT.change(tx, row, a.operation.name, a.request.id)
    return {"EndpointArn": arn}


def _pending(variant: dict[str, Any], now: int) -> dict[str, Any]:
    """What PendingDeploymentSummary tells of a variant whose servers are coming up."""
    [shape] = shown([variant], {})
    shape["CurrentWeight"] = 0.0
    if "CurrentInstanceCount" in shape:
        shape |= {"CurrentInstanceCount": 0, "InstanceType": variant["InstanceType"]}
    shape["VariantStatus"] = [
        {"Status": "Creating", "StatusMessage": "The servers of the variant are coming up.", "StartTime": now}
    ]
    return shape


def _begin(a: Authorised, tx: Transaction, row: Row, asked: dict[str, Any]) -> str:
    """Has a new execution bring up what was asked for."""
    arn = ENDPOINT.arn(row.account, row.region, row.name)
    row.status = "Updating"
    row.doc["_next"] = execution(arn, a.request.id)
    row.doc["_asked"] = asked
    row.doc.pop("FailureReason", None)
    return arn


def _retained(row: Row, members: list[str]) -> dict[str, Any]:
    """What an update is to keep of what is being served, by variant; of the capture, whole."""
    found: dict[str, Any] = {"variants": {}}
    for one in row.doc.get("ProductionVariants") or ():
        kept = {member: one[member] for member in members if member in one}
        if kept:
            found["variants"][one["VariantName"]] = kept
    if "DataCaptureConfig" in members and row.doc.get("_plan"):
        found["capture"] = row.doc["_plan"].get("capture")
    return found


def retain(variant: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A variant with weight and count as they are kept."""
    found = dict(variant)
    if "DesiredWeight" in kept:
        found["InitialVariantWeight"] = kept["DesiredWeight"]
    if "DesiredInstanceCount" in kept and "InitialInstanceCount" in found:
        found["InitialInstanceCount"] = kept["DesiredInstanceCount"]
    return found


@ENDPOINT.operation(
    "UpdateEndpointWeightsAndCapacities", asks=[Ask("sagemaker:UpdateEndpointWeightsAndCapacities", ENDPOINT.this)]
)
def weigh(a: Authorised, tx: Transaction) -> Output:
    row = ENDPOINT.named(a, tx)
    settled(row)
    plan = row.doc.get("_plan")
    arn = ENDPOINT.arn(row.account, row.region, row.name)
    if row.status != "InService" or not plan:
        raise Refused("ValidationException", f'Cannot update endpoint "{arn}": it is not in service.')
    plan = copy.deepcopy(plan)
    variants = {one["VariantName"]: one for one in (*plan["variants"], *plan["shadows"])}
    pending: list[dict[str, Any]] = []
    for desired in a.input["DesiredWeightsAndCapacities"]:
        variant = variants.get(desired["VariantName"])
        if variant is None:
            raise Refused("ValidationException", f'Could not find variant "{desired["VariantName"]}" of "{arn}".')
        if desired in pending:
            raise Refused("ValidationException", f"The variant {desired['VariantName']} occurs twice.")
        pending.append(desired)
        _change(variant, desired)
    _begin(a, tx, row, {"plan": plan})
    for shape in (*(row.doc.get("ProductionVariants") or ()), *(row.doc.get("ShadowProductionVariants") or ())):
        wanted = variants.get(shape["VariantName"])
        if wanted is not None:
            shape["DesiredWeight"] = wanted["InitialVariantWeight"]
            if "InitialInstanceCount" in wanted:
                shape["DesiredInstanceCount"] = wanted["InitialInstanceCount"]
    ENDPOINT.change(tx, row, a.operation.name, a.request.id)
    return {"EndpointArn": arn}


def _change(variant: dict[str, Any], desired: Mapping[str, Any]) -> None:
    name = variant["VariantName"]
    if "DesiredWeight" in desired:
        variant["InitialVariantWeight"] = desired["DesiredWeight"]
    if "DesiredInstanceCount" in desired:
        if variant.get("ServerlessConfig"):
            raise Refused("ValidationException", f"The variant {name} is serverless: it has no instances to count.")
        if desired["DesiredInstanceCount"] < 1:
            raise Refused("ValidationException", f"DesiredInstanceCount of the variant {name} is at least 1.")
        check_count(desired["DesiredInstanceCount"])
        variant["InitialInstanceCount"] = desired["DesiredInstanceCount"]
    change = desired.get("ServerlessUpdateConfig")
    if change:
        if not variant.get("ServerlessConfig"):
            raise Refused("ValidationException", f"The variant {name} is not serverless.")
        variant["ServerlessConfig"] = {**variant["ServerlessConfig"], **change}
        if variant["ServerlessConfig"].get("ProvisionedConcurrency", 0) > variant["ServerlessConfig"]["MaxConcurrency"]:
            raise Refused("ValidationException", "ProvisionedConcurrency cannot be more than MaxConcurrency.")


@ENDPOINT.operation("DeleteEndpoint", asks=[Ask("sagemaker:DeleteEndpoint", ENDPOINT.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ENDPOINT.named(a, tx)
    settled(row)
    if monitoring_execution.watching(tx, row.account, row.region, row.name):
        raise Refused(
            "ValidationException",
            f'Cannot delete endpoint "{ENDPOINT.arn(row.account, row.region, row.name)}": monitoring schedules look at it. '
            "Please delete them first.",
        )
    row.status = "Deleting"
    ENDPOINT.change(tx, row, a.operation.name, a.request.id)
    return {}
