"""Projects: what a product of Service Catalog sets up for a piece of work, launched as whoever makes the project may.

Source: API Reference, CreateProject; developer guide, "SageMaker Projects", "Create Custom Project Templates".
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused, tag_list, tag_map
from bastide.kernel import Ask, Authorised, Calls, Kind, Output, anything, fill, page, tags_of
from bastide.kernel.outbox import Outbox
from bastide.protocol import codec
from bastide.services.sagemaker.asking import tagging, unsupported
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.session import SAGEMAKER
from bastide.store import Row, Transaction, View

PROJECT: Final = Kind(
    "Project",
    service="sagemaker",
    arn="project/{}",
    missing=("ValidationException", "Project {name} does not exist.", 400),
    taken=("ValidationException", "Project {name} already exists.", 400),
)
RECORDS: Final = "sagemaker:ProjectRecord"
"""Under the id of a record of Service Catalog: the project that waits for it."""
RECORD: Final = "servicecatalog:Record"
_OWN: Final = ("SageMakerProjectName", "SageMakerProjectId")
"""Parameters that every template of projects has, and that are filled in."""


def _catalog(a: Authorised, tx: Transaction, operation: str, input: Mapping[str, Any]) -> Output:
    """A call to Service Catalog for whoever asked; its refusals of the input are SageMaker's."""
    try:
        return a.forward(tx, "servicecatalog", operation, dict(input), SAGEMAKER)
    except Refused as refused:
        if refused.code.startswith("AccessDenied"):
            raise
        raise Refused("ValidationException", f"Service Catalog: {refused.message}", kept=refused.kept) from None


def _parameters(name: str, id: str, given: Mapping[str, str]) -> list[dict[str, str]]:
    found = {**given, **dict(zip(_OWN, (name, id), strict=True))}
    return [{"Key": key, "Value": value} for key, value in found.items()]


def _given(parameters: Any) -> dict[str, str]:
    return {one["Key"]: one.get("Value") or "" for one in parameters or () if one.get("Key")}


def _own_tags(name: str, id: str) -> dict[str, str]:
    return {"sagemaker:project-name": name, "sagemaker:project-id": id}


def _version(a: Authorised, tx: Transaction, details: Mapping[str, Any]) -> str:
    """The version that is given, or else the newest that is not deprecated."""
    if details.get("ProvisioningArtifactId"):
        return str(details["ProvisioningArtifactId"])
    told = _catalog(a, tx, "DescribeProduct", {"Id": details["ProductId"]})
    found = [one["Id"] for one in told["ProvisioningArtifacts"] if one["Guidance"] == "DEFAULT"]
    if not found:
        raise Refused("ValidationException", "The product has no version that could be used; please name one.")
    return str(found[-1])


def _waits(a: Authorised, tx: Transaction, row: Row, answer: Output) -> None:
    """Notes that a project waits for a record."""
    record = answer["RecordDetail"]["RecordId"]
    tx.insert(Row(RECORDS, row.account, row.region, record, {"project": row.name}), keep=False)


@PROJECT.operation(
    "CreateProject", asks=[Ask("sagemaker:CreateProject", PROJECT.this), tagging(PROJECT, "CreateProject")]
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "TemplateProviders")
    details = a.input.get("ServiceCatalogProvisioningDetails")
    if not details:
        raise Refused("ValidationException", "ServiceCatalogProvisioningDetails must be given.")
    name = a.input["ProjectName"]
    id = f"p-{base64.b32encode(secrets.token_bytes(10)).decode().lower()[:12]}"
    tags = tags_of(a)
    version = _version(a, tx, details)
    asked = {
        "ProductId": details["ProductId"], "ProvisioningArtifactId": version,
        "ProvisionedProductName": f"{name}-{id}", "ProvisionToken": id,
        "ProvisioningParameters": _parameters(name, id, _given(details.get("ProvisioningParameters"))),
        "Tags": tag_list({**tags, **_own_tags(name, id)}),
    }  # fmt: skip
    if details.get("PathId"):
        asked["PathId"] = details["PathId"]
    doc: dict[str, Any] = {
        "ProjectId": id, "ProjectDescription": a.input.get("ProjectDescription"), "CreatedBy": who(a),
        "ServiceCatalogProvisioningDetails": {**details, "ProvisioningArtifactId": version}, "_doing": "Create",
    }  # fmt: skip
    row = PROJECT.create(a, tx, name, doc, status="CreateInProgress", tags=tags)
    answer = _catalog(a, tx, "ProvisionProduct", asked)
    product = answer["RecordDetail"]["ProvisionedProductId"]
    row.doc["ServiceCatalogProvisionedProductDetails"] = {"ProvisionedProductId": product}
    PROJECT.change(tx, row, "Provisioning", a.request.id)
    _waits(a, tx, row, answer)
    return {"ProjectArn": PROJECT.arn(a.account, a.region, name), "ProjectId": id}


def _idle(row: Row) -> None:
    if row.status.endswith("InProgress"):
        raise Refused("ConflictException", f"The project {row.name} is {row.status}; please wait until that is over.")


@PROJECT.operation("UpdateProject", asks=[Ask("sagemaker:UpdateProject", PROJECT.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "TemplateProvidersToUpdate")
    row = PROJECT.named(a, tx)
    _idle(row)
    if a.input.get("ProjectDescription") is not None:
        row.doc["ProjectDescription"] = a.input["ProjectDescription"]
    row.doc["LastModifiedBy"] = who(a)
    details, given = (
        row.doc["ServiceCatalogProvisioningDetails"],
        a.input.get("ServiceCatalogProvisioningUpdateDetails"),
    )
    tags = tag_map(a.input.get("Tags"))
    if given is None and not tags:
        PROJECT.change(tx, row, a.operation.name, a.request.id)
        return {"ProjectArn": PROJECT.arn(row.account, row.region, row.name)}
    given = given or {}
    version = given.get("ProvisioningArtifactId") or details["ProvisioningArtifactId"]
    values = {**_given(details.get("ProvisioningParameters")), **_given(given.get("ProvisioningParameters"))}
    asked = {
        "ProvisionedProductId": row.doc["ServiceCatalogProvisionedProductDetails"]["ProvisionedProductId"],
        "ProvisioningArtifactId": version, "UpdateToken": a.request.id,
        "ProvisioningParameters": _parameters(row.name, row.doc["ProjectId"], values),
    }  # fmt: skip
    if tags:
        asked["Tags"] = tag_list(tags)
        row.tags = {**row.tags, **tags}
    answer = _catalog(a, tx, "UpdateProvisionedProduct", asked)
    parameters = [{"Key": key, "Value": value} for key, value in values.items()]
    row.doc["ServiceCatalogProvisioningDetails"] = {
        **details, "ProvisioningArtifactId": version, "ProvisioningParameters": parameters,
    }  # fmt: skip
    row.doc["_doing"], row.status = "Update", "UpdateInProgress"
    PROJECT.change(tx, row, a.operation.name, a.request.id)
    _waits(a, tx, row, answer)
    return {"ProjectArn": PROJECT.arn(row.account, row.region, row.name)}


@PROJECT.operation("DeleteProject", asks=[Ask("sagemaker:DeleteProject", PROJECT.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = PROJECT.named(a, tx)
    _idle(row)
    product = row.doc["ServiceCatalogProvisionedProductDetails"]["ProvisionedProductId"]
    if tx.get("servicecatalog:ProvisionedProduct", row.account, row.region, product) is None:
        PROJECT.remove(tx, row, a.operation.name, a.request.id)  # somebody terminated it
        return {}
    asked = {"ProvisionedProductId": product, "TerminateToken": a.request.id}
    answer = _catalog(a, tx, "TerminateProvisionedProduct", asked)
    row.doc["_doing"], row.status = "Delete", "DeleteInProgress"
    PROJECT.change(tx, row, a.operation.name, a.request.id)
    _waits(a, tx, row, answer)
    return {}


@PROJECT.reads("DescribeProject", asks=[Ask("sagemaker:DescribeProject", PROJECT.this)])
def describe(a: Authorised, view: View) -> Output:
    return fill(PROJECT, codec("sagemaker").operations["DescribeProject"].output_shape, PROJECT.named(a, view))


@PROJECT.reads("ListProjects", asks=[Ask("sagemaker:ListProjects", anything)])
def listed(a: Authorised, view: View) -> Output:
    rows, token = page(PROJECT, a, view)
    summary = codec("sagemaker").operations["ListProjects"].output_shape.members["ProjectSummaryList"].member
    return {"ProjectSummaryList": [fill(PROJECT, summary, row) for row in rows], "NextToken": token}


def subscribe(outbox: Outbox, calls: Calls) -> None:
    """A project ends as the record that it waits for does."""

    async def record(body: dict[str, Any]) -> None:
        if body["status"] not in ("SUCCEEDED", "FAILED"):
            return

        def work(tx: Transaction) -> None:
            waits = tx.get(RECORDS, body["account"], body["region"], body["name"])
            if waits is None:
                return
            tx.delete(waits, keep=False)
            row = PROJECT.get(tx, body["account"], body["region"], waits.doc["project"])
            told = tx.get(RECORD, body["account"], body["region"], body["name"])
            if row is None:
                return
            doing = row.doc["_doing"]
            if body["status"] == "SUCCEEDED" and doing == "Delete":
                PROJECT.remove(tx, row, "ProjectDeleted")
                return
            errors = told.doc.get("errors") or [] if told is not None else []
            row.status = f"{doing}{'Completed' if body['status'] == 'SUCCEEDED' else 'Failed'}"
            row.doc["ServiceCatalogProvisionedProductDetails"]["ProvisionedProductStatusMessage"] = (
                " ".join(str(one["Description"]) for one in errors)[:1000] or None
            )
            PROJECT.change(tx, row, "ProjectEnded")

        with calls.store.reading() as view:
            if view.get(RECORDS, body["account"], body["region"], body["name"]) is None:
                return
        await calls.store.write(work)

    outbox.subscribe(RECORD, record)
