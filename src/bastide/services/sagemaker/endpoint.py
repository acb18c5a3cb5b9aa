"""Endpoints: their operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, regular, tags_of
from bastide.services.sagemaker.asking import tagging, unsupported
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.store import Row, Transaction

ENDPOINT = Kind(
    "Endpoint",
    service="sagemaker",
    arn="endpoint/{}",
    states=("Creating", "Updating", "InService", "OutOfService", "Failed", "Deleting"),
    missing=("ValidationException", 'Could not find endpoint "{arn}".', 400),
    taken=("ValidationException", 'Cannot create already existing endpoint "{arn}".', 400),
)
"""Beside what the API shows a row keeps `_live` and `_next`: ids of the executions that serve and that are to."""


def _config(asked: Asked) -> Iterable[str]:
    name = str(asked.input["EndpointConfigName"])
    return (ENDPOINT_CONFIG.arn(asked.call.account, asked.call.region, name),)


def execution(row_arn: str, request_id: str) -> str:
    """The id of the execution that brings up what a request asked for."""
    return f"{row_arn}#{request_id}"


def shown(variants: list[dict[str, Any]], digests: dict[str, tuple[str, str, int]], now: int) -> list[dict[str, Any]]:
    """ProductionVariants of DescribeEndpoint; `digests`: image, digest and time of deployment, by variant."""
    found = []
    for one in variants:
        count, weight = one["InitialInstanceCount"], one["InitialVariantWeight"]
        shape: dict[str, Any] = {"VariantName": one["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight}
        shape |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
        image = digests.get(one["VariantName"])
        if image is not None:
            shape["DeployedImages"] = [
                {"SpecifiedImage": image[0], "ResolvedImage": f"{image[0]}@{image[1]}", "ResolutionTime": image[2]}
            ]
        found.append(shape)
    return found


@ENDPOINT.operation(
    "CreateEndpoint",
    asks=[
        Ask("sagemaker:CreateEndpoint", ENDPOINT.this),
        Ask("sagemaker:CreateEndpoint", _config),
        tagging(ENDPOINT, "CreateEndpoint"),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "DeploymentConfig")
    config = ENDPOINT_CONFIG.find(tx, a.account, a.region, a.input["EndpointConfigName"])
    name = a.input["EndpointName"]
    arn = ENDPOINT.arn(a.account, a.region, name)
    doc = {"EndpointConfigName": config.name, "_next": execution(arn, a.request.id)}
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
    unsupported(a, "DeploymentConfig", "RetainAllVariantProperties", "ExcludeRetainedVariantProperties")
    row = ENDPOINT.named(a, tx)
    settled(row)
    config = ENDPOINT_CONFIG.find(tx, a.account, a.region, a.input["EndpointConfigName"])
    arn = ENDPOINT.arn(row.account, row.region, row.name)
    row.status = "Updating"
    row.doc["_next"] = execution(arn, a.request.id)
    row.doc["_config"] = config.name
    row.doc.pop("FailureReason", None)
    ENDPOINT.change(tx, row, a.operation.name, a.request.id)
    return {"EndpointArn": arn}


@ENDPOINT.operation("DeleteEndpoint", asks=[Ask("sagemaker:DeleteEndpoint", ENDPOINT.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = ENDPOINT.named(a, tx)
    settled(row)
    row.status = "Deleting"
    ENDPOINT.change(tx, row, a.operation.name, a.request.id)
    return {}
