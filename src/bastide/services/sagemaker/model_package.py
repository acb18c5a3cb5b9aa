"""Model packages: the versions of a group, who approved them, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import (
    Ask,
    Asked,
    Authorised,
    Facts,
    Kind,
    Output,
    fill,
    fills,
    member,
    once,
    pages,
    regular,
    tags_of,
)
from bastide.protocol import codec
from bastide.services.sagemaker import lineage_record, model_scan
from bastide.services.sagemaker.asking import keys, otherwise, tagging, unsupported
from bastide.services.sagemaker.model_package_content import additional, card, inference, looked
from bastide.services.sagemaker.model_package_group import MODEL_PACKAGE_GROUP, policy_of, who
from bastide.store import Row, Transaction, View

MODEL_PACKAGE = Kind(
    "ModelPackage",
    service="sagemaker",
    arn="model-package/{}",
    missing=("ValidationException", "ModelPackage {arn} does not exist.", 400),
    fills=(
        "sagemaker:CurrentModelLifeCycleStage",
        "sagemaker:CurrentModelLifeCycleStageStatus",
        "sagemaker:CurrentCustomerMetadataProperties/${MetadataKey}",
        # Not AWS's: let a guardrail refuse the approval of what nobody can tell the origin of, or what runs code when
        # it is loaded.
        "bastide:LineageStatus",
        "bastide:ModelScanStatus",
    ),
)
"""A version's row is named ``GROUP/VERSION``, as its ARN is."""

_UNSUPPORTED: Final = (
    "ModelPackageName",
    "ValidationSpecification",
    "SourceAlgorithmSpecification",
    "CertifyForMarketplace",
    "SecurityConfig",
    "ManagedStorageType",
)
_MOST_EXAMINED: Final = 1000


def facts(view: View, arn: Arn) -> Facts:
    """Tags of the version, policy of its group: also of a version that is yet to be made."""
    name = arn.resource.removeprefix(MODEL_PACKAGE.type)
    group = MODEL_PACKAGE_GROUP.get(view, arn.account, arn.region, name.partition("/")[0])
    row = MODEL_PACKAGE.get(view, arn.account, arn.region, name)
    doc = {} if group is None else group.doc
    return Facts(
        arn.account, {} if row is None else row.tags, policy_of(group), type="ModelPackage",
        keys={} if row is None else _current(row), text=doc.get("_policy", ""), principals=doc.get("_principals", {}),
    )  # fmt: skip


def _current(row: Row) -> dict[str, str]:
    stage = row.doc.get("ModelLifeCycle") or {}
    found = {
        "sagemaker:currentmodellifecyclestage": stage.get("Stage"),
        "sagemaker:currentmodellifecyclestagestatus": stage.get("StageStatus"),
        "bastide:lineagestatus": row.doc.get("_lineage"),
        "bastide:modelscanstatus": row.doc.get("_scan"),
    }
    for key, value in (row.doc.get("CustomerMetadataProperties") or {}).items():
        found[f"sagemaker:currentcustomermetadataproperties/{key.lower()}"] = value
    return {key: str(value) for key, value in found.items() if value}


def _group(given: str, account: str, region: str) -> tuple[str, str, str]:
    return MODEL_PACKAGE_GROUP.locate(given, account, region)


def _next(asked: Asked) -> Iterable[str]:
    """The version that the group would get."""
    given = asked.input.get("ModelPackageGroupName")
    if not given:
        return (
            MODEL_PACKAGE.arn(asked.call.account, asked.call.region, str(asked.input.get("ModelPackageName") or "*")),
        )
    account, region, name = _group(str(given), asked.call.account, asked.call.region)
    row = MODEL_PACKAGE_GROUP.get(asked.view, account, region, name)
    version = 1 + (row.doc["_versions"] if row is not None else 0)
    return (MODEL_PACKAGE.arn(account, region, f"{name}/{version}"),)


_PENDING: Final = "PendingManualApproval"
_STAGE: Final = keys(
    ModelLifeCycle__Stage="ModelLifeCycle.Stage", ModelLifeCycle__StageStatus="ModelLifeCycle.StageStatus"
)


@fills("sagemaker:CustomerMetadataProperties/${MetadataKey}")
def _properties(asked: Asked) -> dict[str, str]:
    given = asked.input.get("CustomerMetadataProperties") or {}
    return {f"sagemaker:CustomerMetadataProperties/{key}": str(value) for key, value in given.items()}


@MODEL_PACKAGE.operation(
    "CreateModelPackage",
    asks=[
        Ask(
            "sagemaker:CreateModelPackage",
            _next,
            given={**_STAGE, **keys(ModelApprovalStatus=otherwise("ModelApprovalStatus", _PENDING))},
            more=_properties,
        ),
        tagging(MODEL_PACKAGE, "CreateModelPackage", _next),
    ],
    before=model_scan.before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, *_UNSUPPORTED)
    if not a.input.get("ModelPackageGroupName"):
        raise Refused(
            "ValidationException", "ModelPackageGroupName is needed: packages without versions are not supported."
        )

    def make() -> Output:
        group = MODEL_PACKAGE_GROUP.find(tx, *_group(a.input["ModelPackageGroupName"], a.account, a.region))
        version = group.doc["_versions"] + 1
        group.doc["_versions"] = version
        # The registry's counter is no change of the group that anybody would want to see in its history.
        tx.update(group, keep=False)
        doc = {k: v for k, v in a.input.items() if k not in ("Tags", "ClientToken", "ModelPackageGroupName")}
        _content(a, tx, doc)
        doc |= {
            "ModelPackageGroupName": group.name,
            "ModelPackageVersion": version,
            "ModelApprovalStatus": a.input.get("ModelApprovalStatus") or _PENDING,
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CreatedBy": who(a),
        }
        name = f"{group.name}/{version}"
        row = Row(MODEL_PACKAGE.key, group.account, group.region, name, doc, "Completed", tags_of(a))
        arn = MODEL_PACKAGE.arn(group.account, group.region, name)
        looked(a, tx, row)
        MODEL_PACKAGE.insert(tx, row, a.operation.name, a.request.id)
        lineage_record.of_package(tx, a.account, arn, row)
        a.touched.append(arn)
        return {"ModelPackageArn": arn}

    return once(a, tx, a.input.get("ClientToken"), make)


def _content(a: Authorised, view: View, doc: dict[str, Any]) -> None:
    """Pins what a request registers, in the version's own members."""
    given = a.input
    if given.get("InferenceSpecification"):
        doc["InferenceSpecification"] = inference(a, view, given["InferenceSpecification"])
    if given.get("AdditionalInferenceSpecifications"):
        doc["AdditionalInferenceSpecifications"] = additional(a, view, [], given["AdditionalInferenceSpecifications"])
    if given.get("AdditionalInferenceSpecificationsToAdd"):
        held = doc.get("AdditionalInferenceSpecifications") or []
        added = given["AdditionalInferenceSpecificationsToAdd"]
        doc["AdditionalInferenceSpecifications"] = additional(a, view, held, added)
    if given.get("ModelCard"):
        doc["ModelCard"] = card({**(doc.get("ModelCard") or {}), **given["ModelCard"]})


def _described(row: Row, members: Any) -> Output:
    return fill(MODEL_PACKAGE, members, row)


@MODEL_PACKAGE.reads("DescribeModelPackage", asks=[Ask("sagemaker:DescribeModelPackage", MODEL_PACKAGE.this)])
def describe(a: Authorised, view: View) -> Output:
    row = MODEL_PACKAGE.named(a, view)
    found = _described(row, codec("sagemaker").operations["DescribeModelPackage"].output_shape)
    if "LastModifiedBy" not in row.doc:
        found.pop("LastModifiedTime", None)
    return found


def _listed(asked: Asked) -> Iterable[str]:
    """Of one's own registry ``*``, as AWS asks; of another account's, its group's versions."""
    given = str(asked.input.get("ModelPackageGroupName") or "")
    if not given.startswith("arn:"):
        return ("*",)
    account, region, name = _group(given, asked.call.account, asked.call.region)
    return (MODEL_PACKAGE.arn(account, region, f"{name}/*"),)


@MODEL_PACKAGE.reads("ListModelPackages", asks=[Ask("sagemaker:ListModelPackages", _listed)])
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    account, region, prefix = a.account, a.region, ""
    if given.get("ModelPackageGroupName"):
        account, region, name = _group(given["ModelPackageGroupName"], a.account, a.region)
        MODEL_PACKAGE_GROUP.find(view, account, region, name)
        prefix = f"{name}/"
    elif given.get("ModelPackageType") != "Versioned":
        # Without a group AWS lists packages without versions, which do not exist here.
        return {"ModelPackageSummaryList": []}
    limit = int(given.get("MaxResults") or 10)
    approval, contains = given.get("ModelApprovalStatus"), str(given.get("NameContains") or "").lower()
    by_name = given.get("SortBy") == "Name"
    members = codec("sagemaker").operations["ListModelPackages"].output_shape.members
    summary = members["ModelPackageSummaryList"].member
    found: list[Output] = []
    after = pages.position(a, given.get("NextToken"))
    examined = 0
    while True:
        rows = view.scan(
            MODEL_PACKAGE.key,
            account,
            region,
            prefix=prefix,
            order="name" if by_name else "created",
            descending=given.get("SortOrder") == "Descending",
            after=tuple(after) if isinstance(after, list) else after,
            created_from=given.get("CreationTimeAfter"),
            created_to=given.get("CreationTimeBefore"),
            limit=limit + 1,
        )
        for row in rows:
            if len(found) == limit or examined >= _MOST_EXAMINED:
                return {"ModelPackageSummaryList": found, "NextToken": pages.seal(a, after)}
            examined += 1
            after = row.name if by_name else [row.created, row.name]
            if (approval and row.doc["ModelApprovalStatus"] != approval) or contains not in row.name.lower():
                continue
            found.append(_described(row, summary))
        if len(rows) <= limit:
            return {"ModelPackageSummaryList": found}


def _this(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ModelPackageArn"]),)


@MODEL_PACKAGE.operation(
    "UpdateModelPackage",
    asks=[
        Ask(
            "sagemaker:UpdateModelPackage",
            _this,
            given={
                **_STAGE,
                **keys(
                    ModelApprovalStatus="ModelApprovalStatus",
                    CustomerMetadataPropertiesToRemove_="CustomerMetadataPropertiesToRemove",
                ),
            },
            more=_properties,
        )
    ],
    before=model_scan.before,
)
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(a, "ModelPackageRegistrationType")
    row = MODEL_PACKAGE.find(tx, *MODEL_PACKAGE.locate(given["ModelPackageArn"], a.account, a.region))

    arn = MODEL_PACKAGE.arn(row.account, row.region, row.name)
    approved = row.doc["ModelApprovalStatus"] == "Approved"

    def make() -> Output:
        for one in ("ModelApprovalStatus", "ApprovalDescription", "ModelLifeCycle", "SourceUri"):
            if given.get(one) is not None:
                row.doc[one] = given[one]
        if given.get("InferenceSpecification") or given.get("AdditionalInferenceSpecificationsToAdd"):
            if row.doc["ModelApprovalStatus"] == "Approved" or approved:
                raise Refused(
                    "ValidationException", "What was approved cannot be changed. Please register a new version."
                )
            _content(a, tx, row.doc)
            looked(a, tx, row)
            lineage_record.of_package(tx, a.account, arn, row)
        elif given.get("ModelCard"):
            _content(a, tx, row.doc)
        properties = {
            **row.doc.get("CustomerMetadataProperties", {}),
            **(given.get("CustomerMetadataProperties") or {}),
        }
        for key in given.get("CustomerMetadataPropertiesToRemove") or ():
            properties.pop(key, None)
        if properties or "CustomerMetadataProperties" in row.doc:
            row.doc["CustomerMetadataProperties"] = properties
        row.doc["LastModifiedBy"] = who(a)
        MODEL_PACKAGE.change(tx, row, a.operation.name, a.request.id)
        if given.get("ModelApprovalStatus"):
            lineage_record.of_approval(tx, arn, row, a.caller.arn, a.request.id)
        if given.get("ModelLifeCycle"):
            lineage_record.of_stage(tx, arn, row, a.caller.arn, a.request.id)
        return {"ModelPackageArn": given["ModelPackageArn"]}

    return once(a, tx, given.get("ClientToken"), make)


@MODEL_PACKAGE.reads(
    "BatchDescribeModelPackage",
    asks=[Ask("sagemaker:BatchDescribeModelPackage", member("ModelPackageArnList"))],
)
def several(a: Authorised, view: View) -> Output:
    shape = codec("sagemaker").operations["BatchDescribeModelPackage"].output_shape
    summary = shape.members["ModelPackageSummaries"].value
    found, errors = {}, {}
    for given in a.input["ModelPackageArnList"]:
        try:
            row = MODEL_PACKAGE.find(view, *MODEL_PACKAGE.locate(given, a.account, a.region))
        except Refused as refused:
            errors[given] = {"ErrorCode": refused.code, "ErrorResponse": refused.message}
        else:
            found[given] = {"InferenceSpecification": {"Containers": []}, **_described(row, summary)}
    return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": errors}


regular(MODEL_PACKAGE, "Delete")
