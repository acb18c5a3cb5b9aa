"""MLflow tracking servers.

Their status says what is being done; what is done for it is `tracking_host`'s. Source: Amazon SageMaker API Reference,
developer guide "Experiment tracking using MLflow".
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.kernel import Ask, Authorised, Kind, Output, anything, fill, pages, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker.asking import passing, tagging, unsupported
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.objects import split
from bastide.services.sagemaker.session import check_role
from bastide.store import Row, Transaction, View

ENVIRONMENT: Final = "mlflow"
PASSING: Final = frozenset(("Creating", "Updating", "Starting", "Stopping", "Deleting"))
_UNSUPPORTED: Final = (
    "AutomaticModelRegistration",
    "WeeklyMaintenanceWindowStart",
    "S3BucketOwnerVerification",
    "S3BucketOwnerAccountId",
)
_MOST: Final = 100
"""Servers of an account in a region."""

TRACKING_SERVER: Final = Kind(
    "TrackingServer",
    service="sagemaker",
    arn="mlflow-tracking-server/{}",
    missing=("ResourceNotFound", "Could not find the tracking server {name}.", 400),
    taken=("ValidationException", "A tracking server with the name {name} already exists.", 400),
)
INDEX: Final = "sagemaker:TrackingServerIndex"
"""A row for each server of all accounts, named by its ARN."""
THIS = TRACKING_SERVER.this


def arn_of(row: Row) -> str:
    """The server's ARN."""
    return TRACKING_SERVER.arn(row.account, row.region, row.name)


def version() -> str:
    """The one release of MLflow that is here."""
    return images.packages(ENVIRONMENT)["mlflow"]


async def _check(a: Authorised) -> None:
    arn = TRACKING_SERVER.arn(a.account, a.region, a.input["TrackingServerName"])
    await check_role(a.calls, a.input["RoleArn"], account=a.account, region=a.region, source_arn=arn)


def _store(uri: str) -> str:
    split(uri)
    return uri.rstrip("/")


@TRACKING_SERVER.operation(
    "CreateMlflowTrackingServer",
    asks=[
        Ask("sagemaker:CreateMlflowTrackingServer", THIS),
        passing(TRACKING_SERVER, "RoleArn"),
        tagging(TRACKING_SERVER, "CreateMlflowTrackingServer"),
    ],
    before=_check,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, *_UNSUPPORTED)
    here, wanted = version(), given.get("MlflowVersion")
    if wanted and wanted not in (here, here.rpartition(".")[0]):
        raise Refused("ValidationException", f"MlflowVersion {wanted} is not supported by Bastide; it has {here}.")
    if not images.is_built(ENVIRONMENT):
        raise Refused(
            "ValidationException",
            f"The environment of tracking servers is not built on this machine. Whoever runs Bastide builds it with: "
            f"bastide environments build {ENVIRONMENT}",
        )
    if len(tx.scan(TRACKING_SERVER.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise Refused("ResourceLimitExceeded", f"There are {_MOST} tracking servers, which is as many as there may be.")
    name = given["TrackingServerName"]
    doc: dict[str, Any] = {
        "ArtifactStoreUri": _store(given["ArtifactStoreUri"]),
        "TrackingServerSize": given.get("TrackingServerSize") or "Small",
        "MlflowVersion": here,
        "RoleArn": given["RoleArn"],
        "AutomaticModelRegistration": False,
        "IsActive": "Inactive",
        "CreatedBy": who(a),
        "LastModifiedBy": who(a),
        "_id": uuid.uuid4().hex,
    }
    row = TRACKING_SERVER.create(a, tx, name, doc, status="Creating", tags=tags_of(a))
    tx.insert(Row(INDEX, "", "", arn_of(row), {}), keep=False)
    return {"TrackingServerArn": arn_of(row)}


@TRACKING_SERVER.reads("DescribeMlflowTrackingServer", asks=[Ask("sagemaker:DescribeMlflowTrackingServer", THIS)])
def describe(a: Authorised, view: View) -> Output:
    return fill(
        TRACKING_SERVER, codec("sagemaker").operations[a.operation.name].output_shape, TRACKING_SERVER.named(a, view)
    )


@TRACKING_SERVER.reads("ListMlflowTrackingServers", asks=[Ask("sagemaker:ListMlflowTrackingServers", anything)])
def every(a: Authorised, view: View) -> Output:
    given, found = a.input, []
    summary = codec("sagemaker").operations[a.operation.name].output_shape.members["TrackingServerSummaries"].member
    limit, by = int(given.get("MaxResults") or 10), given.get("SortBy") or "CreationTime"
    rows = view.scan(TRACKING_SERVER.key, a.account, a.region, order="name", limit=_MOST)

    def place(row: Row) -> list[Any]:
        first: Any = {"Name": row.name, "CreationTime": row.created, "Status": row.status}[by]
        return [first, row.name]

    backwards = given.get("SortOrder", "Descending") == "Descending"
    after = pages.position(a, given.get("NextToken"))
    for row in sorted(rows, key=place, reverse=backwards):
        if after is not None and (place(row) >= after if backwards else place(row) <= after):
            continue
        if not given.get("CreatedAfter", row.created) <= row.created <= given.get("CreatedBefore", row.created):
            continue
        if given.get("TrackingServerStatus", row.status) != row.status:
            continue
        if given.get("MlflowVersion", row.doc["MlflowVersion"]) != row.doc["MlflowVersion"]:
            continue
        found.append(row)
    token = pages.seal(a, place(found[limit - 1])) if len(found) > limit else None
    return {
        "TrackingServerSummaries": [fill(TRACKING_SERVER, summary, row) for row in found[:limit]],
        "NextToken": token,
    }


def _settled(a: Authorised, tx: Transaction) -> Row:
    """The row that a call names, unless something is being done to it."""
    row = TRACKING_SERVER.named(a, tx)
    if row.status in PASSING:
        raise Refused("ConflictException", f"The tracking server {row.name} is {row.status}. Please wait.", 409)
    return row


def _begin(a: Authorised, tx: Transaction, row: Row, status: str) -> Output:
    row.status = status
    row.doc["LastModifiedBy"] = who(a)
    TRACKING_SERVER.change(tx, row, a.operation.name, a.request.id)
    return {"TrackingServerArn": arn_of(row)}


@TRACKING_SERVER.operation("UpdateMlflowTrackingServer", asks=[Ask("sagemaker:UpdateMlflowTrackingServer", THIS)])
def update(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, *_UNSUPPORTED)
    row = _settled(a, tx)
    if row.doc["IsActive"] != "Active":
        raise Refused("ConflictException", f"The tracking server {row.name} is not active. Please start it first.", 409)
    if a.input.get("ArtifactStoreUri"):
        row.doc["ArtifactStoreUri"] = _store(a.input["ArtifactStoreUri"])
    if a.input.get("TrackingServerSize"):
        row.doc["TrackingServerSize"] = a.input["TrackingServerSize"]
    return _begin(a, tx, row, "Updating")


@TRACKING_SERVER.operation("StartMlflowTrackingServer", asks=[Ask("sagemaker:StartMlflowTrackingServer", THIS)])
def start(a: Authorised, tx: Transaction) -> Output:
    row = _settled(a, tx)
    if row.doc["IsActive"] == "Active":
        raise Refused("ConflictException", f"The tracking server {row.name} is active already.", 409)
    return _begin(a, tx, row, "Starting")


@TRACKING_SERVER.operation("StopMlflowTrackingServer", asks=[Ask("sagemaker:StopMlflowTrackingServer", THIS)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = _settled(a, tx)
    if row.doc["IsActive"] != "Active":
        raise Refused("ConflictException", f"The tracking server {row.name} is not active.", 409)
    row.doc["IsActive"] = "Inactive"
    return _begin(a, tx, row, "Stopping")


@TRACKING_SERVER.operation("DeleteMlflowTrackingServer", asks=[Ask("sagemaker:DeleteMlflowTrackingServer", THIS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _settled(a, tx)
    row.doc["IsActive"] = "Inactive"
    return _begin(a, tx, row, "Deleting")
