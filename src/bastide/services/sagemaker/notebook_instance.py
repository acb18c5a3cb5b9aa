"""Notebook instances: what is asked for, and their status. What is done for it is `notebook_host`'s, how people get in
`notebook_url`'s.

Source: Amazon SageMaker API Reference; developer guide, "SageMaker notebook instances".
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.placement import Placement
from bastide.kernel import Ask, Authorised, Kind, Output, anything, fill, pages, tags_of
from bastide.kernel.address import Address
from bastide.protocol import codec
from bastide.services.sagemaker import job_network
from bastide.services.sagemaker.asking import keys, otherwise, passing, tagging, unsupported
from bastide.services.sagemaker.code_repository import cloned
from bastide.services.sagemaker.notebook_lifecycle_config import LIFECYCLE_CONFIG
from bastide.services.sagemaker.session import check_role
from bastide.store import Row, Transaction, View

ENVIRONMENT: Final = "notebook"
PASSING: Final = frozenset(("Pending", "Stopping", "Updating", "Deleting"))
_MOST: Final = 200
"""Instances of an account in a region."""
_PLATFORMS: Final = ("notebook-al2-v3", "notebook-al2023-v1", "notebook-al2023-v2")
"""Those with JupyterLab 4, as ours is."""

NOTEBOOK: Final = Kind(
    "NotebookInstance",
    service="sagemaker",
    arn="notebook-instance/{}",
    missing=("ValidationException", "RecordNotFound: could not find the notebook instance {name}.", 400),
    taken=("ValidationException", "Cannot create a duplicate notebook instance ({arn}).", 400),
)
INDEX: Final = "sagemaker:NotebookInstanceIndex"
"""A row for each instance of all accounts, named by the first part of its host's name."""
THIS = NOTEBOOK.this


def arn_of(row: Row) -> str:
    """The instance's ARN."""
    return NOTEBOOK.arn(row.account, row.region, row.name)


def host_of(a: Authorised, row: Row) -> str:
    """Where a browser reaches it from where the call comes: in a VPC AWS's name of it, by the endpoint for notebooks."""
    rest = "sagemaker.aws" if a.request.vpce else a.engine(Address).host
    return f"{row.doc['_label']}.notebook.{row.region}.{rest}"


def vpc_of(doc: dict[str, Any]) -> dict[str, Any] | None:
    """Its network, as jobs' VpcConfig says it."""
    if not doc.get("SubnetId"):
        return None
    return {"Subnets": [doc["SubnetId"]], "SecurityGroupIds": list(doc["SecurityGroups"])}


def repositories(doc: dict[str, Any]) -> list[str]:
    """Names and URLs of its repositories, the default one first."""
    default = [doc["DefaultCodeRepository"]] if doc.get("DefaultCodeRepository") else []
    return [*default, *(doc.get("AdditionalCodeRepositories") or ())]


async def _check(a: Authorised) -> None:
    given = a.input
    where = {"account": a.account, "region": a.region}
    arn = NOTEBOOK.arn(a.account, a.region, given["NotebookInstanceName"])
    if given.get("RoleArn"):
        await check_role(a.calls, given["RoleArn"], **where, source_arn=arn)
    if given.get("SubnetId") and given.get("SecurityGroupIds"):
        config = {"Subnets": [given["SubnetId"]], "SecurityGroupIds": given["SecurityGroupIds"]}
        await job_network.check(a.calls, given["RoleArn"], config, **where, source_arn=arn)


def _names(a: Authorised, tx: Transaction, given: dict[str, Any]) -> dict[str, Any]:
    """Members that both Create and Update have, checked."""
    unsupported(a, "AcceleratorTypes")
    if given.get("IpAddressType", "ipv4") != "ipv4":
        raise Refused("ValidationException", "IpAddressType dualstack is not supported by Bastide yet.")
    if given.get("PlatformIdentifier", _PLATFORMS[1]) not in _PLATFORMS:
        raise Refused(
            "ValidationException",
            f"PlatformIdentifier {given['PlatformIdentifier']} is not supported by Bastide, whose notebook instances have "
            f"JupyterLab 4, as {', '.join(_PLATFORMS)} do.",
        )
    if given.get("InstanceType"):
        a.engine(Placement).grant(given["InstanceType"], here=True)
    found = {
        name: given[name]
        for name in (
            "InstanceType", "RoleArn", "VolumeSizeInGB", "RootAccess", "PlatformIdentifier", "IpAddressType",
            "DefaultCodeRepository", "AdditionalCodeRepositories", "InstanceMetadataServiceConfiguration",
        )
        if given.get(name)
    }  # fmt: skip
    if given.get("LifecycleConfigName"):
        LIFECYCLE_CONFIG.find(tx, a.account, a.region, given["LifecycleConfigName"])
        found["NotebookInstanceLifecycleConfigName"] = given["LifecycleConfigName"]
    folders = [cloned(tx, a.account, a.region, one).folder for one in repositories(found)]
    if len(set(folders)) < len(folders):
        raise Refused("ValidationException", "Two of the repositories would be cloned into the same folder.")
    return found


@NOTEBOOK.operation(
    "CreateNotebookInstance",
    asks=[
        Ask(
            "sagemaker:CreateNotebookInstance",
            THIS,
            given=keys(
                AcceleratorTypes_="AcceleratorTypes",
                DirectInternetAccess=otherwise("DirectInternetAccess", "Enabled"),
                InstanceTypes_="InstanceType",
                MinimumInstanceMetadataServiceVersion="InstanceMetadataServiceConfiguration.MinimumInstanceMetadataServiceVersion",
                RootAccess=otherwise("RootAccess", "Enabled"),
                VolumeKmsKey="KmsKeyId",
                VpcSecurityGroupIds_="SecurityGroupIds",
                VpcSubnets_="SubnetId",
            ),
        ),
        passing(NOTEBOOK, "RoleArn"),
        tagging(NOTEBOOK, "CreateNotebookInstance"),
    ],
    before=_check,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given, name = a.input, a.input["NotebookInstanceName"]
    subnet, direct = given.get("SubnetId") or "", given.get("DirectInternetAccess") or "Enabled"
    if not subnet and (given.get("SecurityGroupIds") or direct == "Disabled"):
        raise Refused("ValidationException", "SecurityGroupIds and DirectInternetAccess Disabled need a SubnetId.")
    if subnet and not given.get("SecurityGroupIds"):
        raise Refused("ValidationException", "SecurityGroupIds are needed where there is a SubnetId.")
    if not images.is_built(ENVIRONMENT):
        raise Refused(
            "ValidationException",
            f"The environment of notebook instances is not built on this machine. Whoever runs Bastide builds it with: "
            f"bastide environments build {ENVIRONMENT}",
        )
    if a.calls.organisation.untrusted(tx, a.account):
        raise Refused(
            "ValidationException",
            "This account's code is not trusted (the organisation's tag bastide:untrusted-code) and runs under gVisor "
            "alone, where there are no notebook instances.",
        )
    if len(tx.scan(NOTEBOOK.key, a.account, a.region, limit=_MOST)) == _MOST:
        raise Refused("ResourceLimitExceeded", f"There are {_MOST} notebook instances, as many as there may be.")
    id = uuid.uuid4().hex
    label = f"{re.sub(r'[^a-z0-9-]', '', name.lower())[:50].strip('-')}-{id[:8]}"
    doc: dict[str, Any] = {
        "DirectInternetAccess": direct,
        "RootAccess": "Enabled",
        "VolumeSizeInGB": 5,
        "PlatformIdentifier": _PLATFORMS[1],
        "IpAddressType": "ipv4",
        "InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": "2"},
        **({"SubnetId": subnet, "SecurityGroups": given["SecurityGroupIds"]} if subnet else {}),
        **({"KmsKeyId": given["KmsKeyId"]} if given.get("KmsKeyId") else {}),
        **_names(a, tx, given),
        "_id": id,
        "_label": label,
    }
    NOTEBOOK.create(a, tx, name, doc, status="Pending", tags=tags_of(a))
    arn = NOTEBOOK.arn(a.account, a.region, name)
    tx.insert(Row(INDEX, "", "", label, {"arn": arn, "id": id}), keep=False)
    return {"NotebookInstanceArn": arn}


def only(row: Row, wanted: Sequence[str], to: str) -> None:
    """Raises Refused unless the instance has one of these statuses."""
    if row.status not in wanted:
        raise Refused(
            "ValidationException",
            f"Status ({row.status}) not in ([{', '.join(wanted)}]). Unable to transition to ({to}) for Notebook Instance "
            f"({arn_of(row)})",
        )


def _begin(a: Authorised, tx: Transaction, row: Row, status: str) -> Output:
    row.status = status
    row.doc.pop("FailureReason", None)
    NOTEBOOK.change(tx, row, a.operation.name, a.request.id)
    return {}


@NOTEBOOK.operation("StartNotebookInstance", asks=[Ask("sagemaker:StartNotebookInstance", THIS)])
def start(a: Authorised, tx: Transaction) -> Output:
    row = NOTEBOOK.named(a, tx)
    only(row, ("Stopped", "Failed"), "Pending")
    return _begin(a, tx, row, "Pending")


@NOTEBOOK.operation("StopNotebookInstance", asks=[Ask("sagemaker:StopNotebookInstance", THIS)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = NOTEBOOK.named(a, tx)
    only(row, ("InService",), "Stopping")
    return _begin(a, tx, row, "Stopping")


@NOTEBOOK.operation("DeleteNotebookInstance", asks=[Ask("sagemaker:DeleteNotebookInstance", THIS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = NOTEBOOK.named(a, tx)
    only(row, ("Stopped", "Failed"), "Deleting")
    return _begin(a, tx, row, "Deleting")


@NOTEBOOK.operation(
    "UpdateNotebookInstance",
    asks=[
        Ask(
            "sagemaker:UpdateNotebookInstance",
            THIS,
            given=keys(
                AcceleratorTypes_="AcceleratorTypes",
                InstanceTypes_="InstanceType",
                MinimumInstanceMetadataServiceVersion="InstanceMetadataServiceConfiguration.MinimumInstanceMetadataServiceVersion",
                RootAccess="RootAccess",
            ),
        ),
        passing(NOTEBOOK, "RoleArn"),
    ],
    before=_check,
)
def update(a: Authorised, tx: Transaction) -> Output:
    row, given = NOTEBOOK.named(a, tx), a.input
    only(row, ("Stopped", "Failed"), "Updating")
    if given.get("VolumeSizeInGB", row.doc["VolumeSizeInGB"]) < row.doc["VolumeSizeInGB"]:
        raise Refused("ValidationException", "A volume can be made larger, and not smaller.")
    for flag, member in (
        ("DisassociateLifecycleConfig", "NotebookInstanceLifecycleConfigName"),
        ("DisassociateDefaultCodeRepository", "DefaultCodeRepository"),
        ("DisassociateAdditionalCodeRepositories", "AdditionalCodeRepositories"),
    ):
        if given.get(flag):
            row.doc.pop(member, None)
    row.doc |= _names(a, tx, given)
    return _begin(a, tx, row, "Updating")


@NOTEBOOK.reads("DescribeNotebookInstance", asks=[Ask("sagemaker:DescribeNotebookInstance", THIS)])
def describe(a: Authorised, view: View) -> Output:
    row = NOTEBOOK.named(a, view)
    told = fill(NOTEBOOK, codec("sagemaker").operations[a.operation.name].output_shape, row)
    return {**told, "Url": host_of(a, row)}


def _fits(given: dict[str, Any], row: Row) -> bool:
    doc, contains = row.doc, str(given.get("NameContains") or "").lower()
    return (
        contains in row.name.lower()
        and given.get("StatusEquals", row.status) == row.status
        and given.get("CreationTimeAfter", row.created) <= row.created <= given.get("CreationTimeBefore", row.created)
        and given.get("LastModifiedTimeAfter", 0) <= row.modified
        and row.modified <= given.get("LastModifiedTimeBefore", row.modified)
        and given.get("NotebookInstanceLifecycleConfigNameContains", "")
        in doc.get("NotebookInstanceLifecycleConfigName", "")
        and given.get("DefaultCodeRepositoryContains", "") in doc.get("DefaultCodeRepository", "")
        and given.get("AdditionalCodeRepositoryEquals") in (None, *(doc.get("AdditionalCodeRepositories") or ()))
    )


@NOTEBOOK.reads("ListNotebookInstances", asks=[Ask("sagemaker:ListNotebookInstances", anything)])
def every(a: Authorised, view: View) -> Output:
    given = a.input
    summary = codec("sagemaker").operations[a.operation.name].output_shape.members["NotebookInstances"].member
    limit, by = int(given.get("MaxResults") or 10), given.get("SortBy") or "Name"

    def place(row: Row) -> list[Any]:
        first: Any = {"Name": row.name, "CreationTime": row.created, "Status": row.status}[by]
        return [first, row.name]

    backwards = given.get("SortOrder") == "Descending"
    after = pages.position(a, given.get("NextToken"))
    rows = view.scan(NOTEBOOK.key, a.account, a.region, limit=_MOST)
    found = [
        row
        for row in sorted(rows, key=place, reverse=backwards)
        if (after is None or (place(row) < after if backwards else place(row) > after)) and _fits(given, row)
    ]
    token = pages.seal(a, place(found[limit - 1])) if len(found) > limit else None
    told = [{**fill(NOTEBOOK, summary, row), "Url": host_of(a, row)} for row in found[:limit]]
    return {"NotebookInstances": told, "NextToken": token}
