"""Lineage read off from what ran: jobs, models, versions of models and endpoints, with the digests of what went in and came
out. Nobody reports it, and nobody can leave it out: it is written in the transaction in which the thing itself is.

Source: developer guide, "lineage-tracking-auto-creation", for the entities' types and how they are associated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.engines.workflow import Run
from bastide.kernel import Kind
from bastide.services.sagemaker import lineage
from bastide.services.sagemaker.lineage import ACTION, ARTIFACT, CONTEXT, artifact, associate
from bastide.services.sagemaker.trial_component import TRIAL_COMPONENT
from bastide.store import Row, Transaction, View

_CODE: Final = frozenset({" code", "code"})
"""The archive of script mode, and the channel that SDK version 3 sends code in."""
_COMMITS: Final = ("commitid", "commit", "gitcommit", "codecommit")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


def _commit(row: Row) -> dict[str, Any]:
    """MetadataProperties with the commit that a job's tags or environment tell. It is told, not looked up."""
    for told in (row.tags, row.doc.get("Environment") or {}):
        for key, value in told.items():
            plain = key.lower().replace("-", "").replace("_", "").replace(":", "").replace("sagemaker", "")
            if plain in _COMMITS and _COMMIT.fullmatch(str(value)):
                return {"CommitId": value}
    return {}


def of_job(tx: Transaction, kind: Kind, row: Row, component: Row, run: Run) -> None:
    """What a job was given and what it made, around its trial component; nothing of a job that got nothing."""
    pinned = run.state.get("pinned")
    if pinned is None:
        return
    account, region = row.account, row.region
    here = TRIAL_COMPONENT.arn(account, region, component.name)
    generated = {"GeneratedBy": kind.arn(account, region, row.name)}
    image = _image(tx, account, region, _image_of(row), pinned["image"])
    associate(tx, account, region, image, here, "ContributedTo")
    for name, told in pinned["sources"].items():
        content = (run.state.get("digests") or {}).get(name)
        if content is None:
            continue  # it failed before this was fetched
        code = name in _CODE
        ids = {"Custom": content["sha256"], "S3ETag": content.get("etag", ""), "S3Version": content.get("version", "")}
        more: dict[str, Any] = {"Properties": {"Objects": str(told["objects"]), "Bytes": str(told["bytes"])}}
        if code and (commit := _commit(row)):
            more["MetadataProperties"] = commit
        found = artifact(tx, account, region, "Code" if code else "DataSet", told["uri"], ids, **more)
        associate(tx, account, region, found, here, "ContributedTo")
    delivered = run.state.get("delivered") or {}
    for type, uri, ids in _made(kind, row, delivered):
        found = artifact(tx, account, region, type, uri, ids, MetadataProperties=generated)
        associate(tx, account, region, here, found, "Produced")


def of_transform(tx: Transaction, kind: Kind, row: Row, component: Row, run: Run) -> None:
    """What a transform job was given, its model among it, and what it made, around its trial component."""
    pinned = run.state.get("pinned")
    if pinned is None:
        return
    account, region = row.account, row.region
    here = TRIAL_COMPONENT.arn(account, region, component.name)
    fetched = run.state.get("fetched") or {}
    given = [_image(tx, account, region, one["Image"], one["ImageDigest"]) for one in row.doc["_model"]["containers"]]
    given += [artifact(tx, account, region, "Model", url, _object(etag)) for url, etag in fetched.items()]
    given.append(artifact(tx, account, region, "DataSet", pinned["uri"], {"Custom": pinned["sha256"]}))
    for one in given:
        associate(tx, account, region, one, here, "ContributedTo")
    if run.state.get("stored"):
        generated = {"GeneratedBy": kind.arn(account, region, row.name)}
        uri, ids = row.doc["TransformOutput"]["S3OutputPath"], {"Custom": run.state["stored"]}
        found = artifact(tx, account, region, "DataSet", uri, ids, MetadataProperties=generated)
        associate(tx, account, region, here, found, "Produced")


def _image_of(row: Row) -> str:
    doc = row.doc
    if "AppSpecification" in doc:
        return str(doc["AppSpecification"]["ImageUri"])
    return str(doc["AlgorithmSpecification"]["TrainingImage"])


def _image(tx: Transaction, account: str, region: str, uri: str, digest: str) -> str:
    return artifact(tx, account, region, "Image", uri, {"Custom": digest})


def _made(kind: Kind, row: Row, delivered: Mapping[str, Any]) -> Iterable[tuple[str, str, dict[str, str]]]:
    if kind.name == "TrainingJob":
        for name, type in (("model", "Model"), ("output", "Output")):
            told = delivered.get(f"{name} is")
            if told is not None:
                yield type, delivered[name], _object(told["ETag"], told["sha256"], told["VersionId"])
        return
    for one in (row.doc.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        content = delivered.get(f"{one['OutputName']} is")
        if content is not None:
            yield "DataSet", one["S3Output"]["S3Uri"], {"Custom": content}


def _object(etag: str, sha256: str = "", version: str = "") -> dict[str, str]:
    return {"S3ETag": etag.strip('"'), "Custom": sha256, "S3Version": version}


# -- versions ----------------------------------------------------------------------------------------------------------


def _data(tx: Transaction, account: str, region: str, container: Mapping[str, Any]) -> str:
    return artifact(
        tx, account, region, "Model", container["ModelDataUrl"], _object(container.get("ModelDataETag", ""))
    )


def _producers(view: View, account: str, region: str, container: Mapping[str, Any]) -> list[str]:
    """Components of the jobs that made a model's data, these very bytes."""
    if not container.get("ModelDataETag"):
        return []
    source = {
        "SourceUri": container["ModelDataUrl"],
        "SourceTypes": [{"SourceIdType": "S3ETag", "Value": container["ModelDataETag"]}],
    }
    name = lineage.artifact_id(source, by="service")
    if ARTIFACT.get(view, account, region, name) is None:
        return []
    before = lineage.preceding(view, account, region, ARTIFACT.arn(account, region, name))
    return [arn for arn, row in before if row.doc["AssociationType"] == "Produced" and "CreatedBy" not in row.doc]


def missing(view: View, account: str, region: str, containers: Iterable[Mapping[str, Any]]) -> list[str]:
    """What cannot be told of how models came about: of each, the job that made it, and its code, data and image."""
    found: list[str] = []
    for container in containers:
        if not container.get("ModelDataUrl"):
            found.append("the model's data is not known")
            continue
        producers = _producers(view, account, region, container)
        if not producers:
            found.append(f"no job of this platform made {container['ModelDataUrl']} as it is")
        for arn in producers[:1]:
            before = lineage.preceding(view, account, region, arn)
            types = {lineage.type_of(*held) for one, _ in before if (held := lineage.entity(view, one)) is not None}
            found += [f"the {what} of {arn} is not known" for what in ("Code", "DataSet", "Image") if what not in types]
    return found


def of_package(tx: Transaction, account: str, arn: str, row: Row) -> None:
    """A version, what it is made of, and its group. account: whoever registers it, in whose account the jobs ran."""
    there, region = row.account, row.region
    group_arn = arn.replace(":model-package/", ":model-package-group/").rsplit("/", 1)[0]
    group = lineage.record(
        tx, CONTEXT, there, region, f"{row.doc['ModelPackageGroupName']}-aws-model-group",
        {"ContextType": "ModelGroup", "Source": {"SourceUri": group_arn, "SourceType": "ModelPackageGroup"}},
    )  # fmt: skip
    package = artifact(tx, there, region, "ModelPackage", arn, {}, named=row.name)
    associate(tx, there, region, package, group, "AssociatedWith")
    for container in (row.doc.get("InferenceSpecification") or {}).get("Containers") or ():
        if container.get("Image"):
            image = _image(tx, there, region, container["Image"], container["ImageDigest"])
            associate(tx, there, region, image, package, "ContributedTo")
        if container.get("ModelDataUrl"):
            data = _data(tx, there, region, container)
            associate(tx, there, region, data, package, "ContributedTo")
            if account != there:
                for producer in _producers(tx, account, region, container):
                    associate(tx, there, region, producer, data, "Produced")


def of_approval(tx: Transaction, arn: str, row: Row, by: str, request_id: str) -> None:
    """Somebody decided over a version."""
    properties = {"ModelApprovalStatus": row.doc["ModelApprovalStatus"], "DecidedBy": by}
    if row.doc.get("ApprovalDescription"):
        properties["ApprovalDescription"] = row.doc["ApprovalDescription"]
    _decided(tx, arn, row, "Approval", properties, request_id)


def of_stage(tx: Transaction, arn: str, row: Row, by: str, request_id: str) -> None:
    """Somebody moved a version to another stage of its life: its history, which nobody rewrites."""
    properties = {key: str(value) for key, value in row.doc["ModelLifeCycle"].items()}
    _decided(tx, arn, row, "ModelLifeCycle", {**properties, "DecidedBy": by}, request_id)


def _decided(tx: Transaction, arn: str, row: Row, what: str, properties: dict[str, str], request_id: str) -> None:
    account, region = row.account, row.region
    action = lineage.record(
        tx, ACTION, account, region, f"{row.name.replace('/', '-')}-{_short(request_id)}-aws-{what.lower()}",
        {
            "ActionType": what,
            "Status": "Completed",
            "Source": {"SourceUri": arn, "SourceType": "ModelPackage"},
            "Properties": properties,
        },
    )  # fmt: skip
    associate(tx, account, region, artifact(tx, account, region, "ModelPackage", arn, {}), action, "ContributedTo")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# -- models and endpoints ----------------------------------------------------------------------------------------------


def of_model(tx: Transaction, arn: str, row: Row) -> str:
    """A model, and what it is made of; the artifact's ARN. Of data that nobody pinned, which it is tells its deployment."""
    account, region = row.account, row.region
    model = artifact(tx, account, region, "SageMakerModel", arn, {"Custom": str(row.created)}, named=row.name)
    for container in row.doc["_resolved"]:
        image = _image(tx, account, region, container["Image"], container["ImageDigest"])
        associate(tx, account, region, image, model, "ContributedTo")
        if container.get("ModelPackageArn"):
            package = artifact(tx, account, region, "ModelPackage", container["ModelPackageArn"], {})
            associate(tx, account, region, package, model, "ContributedTo")
    return model


def of_endpoint(
    tx: Transaction, arn: str, row: Row, run: Run, models: Mapping[str, str], fetched: Mapping[str, Mapping[str, str]]
) -> None:
    """An endpoint that answers, and the deployment that brought it up. models: the artifact of each variant's model;
    fetched: the URL and the ETag of the data that each variant's servers got."""
    account, region = row.account, row.region
    source = {"SourceUri": arn, "SourceType": "Endpoint"}
    endpoint = lineage.record(
        tx, CONTEXT, account, region, f"{row.name}-aws-endpoint", {"ContextType": "Endpoint", "Source": source}
    )
    action = lineage.record(
        tx, ACTION, account, region, f"{row.name}-{_short(run.id)}-aws-model-deployment",
        {"ActionType": "ModelDeployment", "Status": "Completed", "Source": source},
    )  # fmt: skip
    associate(tx, account, region, action, endpoint, "AssociatedWith")
    for name, model in models.items():
        associate(tx, account, region, model, action, "ContributedTo")
        for url, etag in (fetched.get(name) or {}).items():
            data = artifact(tx, account, region, "Model", url, _object(etag))
            associate(tx, account, region, data, action, "ContributedTo")
