"""Artifacts, actions and contexts: their operations, which differ by little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, regular, tags_of
from bastide.services.sagemaker import lineage
from bastide.services.sagemaker.asking import tagging
from bastide.services.sagemaker.lineage import ACTION, ARTIFACT, CONTEXT
from bastide.services.sagemaker.listing import listed
from bastide.services.sagemaker.model_package_group import who
from bastide.store import Row, Transaction, View

__all__ = ["ACTION", "ARTIFACT", "CONTEXT"]

_CHANGED = {
    ARTIFACT.name: ("ArtifactName",),
    ACTION.name: ("Description", "Status"),
    CONTEXT.name: ("Description",),
}


def _artifact(asked: Asked) -> Iterable[str]:
    """The artifact that a source makes, where the request does not name one."""
    given = asked.input
    if given.get("ArtifactArn"):
        return (str(given["ArtifactArn"]),)
    if not given.get("Source"):
        return ("*",)
    name = lineage.artifact_id(given["Source"], by=asked.call.account)
    return (ARTIFACT.arn(asked.call.account, asked.call.region, name),)


def _this(kind: Kind) -> Any:
    return _artifact if kind is ARTIFACT else kind.this


def _named(kind: Kind, a: Authorised, view: View) -> Row:
    if kind is ARTIFACT and not a.input.get("ArtifactArn"):
        if not a.input.get("Source"):
            raise Refused("ValidationException", "Either ArtifactArn or Source is needed.")
        return kind.find(view, a.account, a.region, lineage.artifact_id(a.input["Source"], by=a.account))
    row = kind.named(a, view)
    if row.account != a.account:
        raise Refused("ValidationException", "The resource is in another account.")
    return row


def _declare(kind: Kind) -> None:
    noun = kind.name
    this = _this(kind)

    def create(a: Authorised, tx: Transaction) -> Output:
        given = a.input
        doc = {key: value for key, value in given.items() if key not in ("Tags", f"{noun}Name")}
        doc["CreatedBy"] = who(a)
        if kind is ARTIFACT:
            name = lineage.artifact_id(given["Source"], by=a.account)
            doc |= {
                "ArtifactName": given.get("ArtifactName") or name,
                "ArtifactArn": kind.arn(a.account, a.region, name),
            }
        else:
            name = given[f"{noun}Name"]
        if kind is ACTION:
            doc.setdefault("Status", "Unknown")
        lineage.find_source(tx, kind, kind.create(a, tx, name, doc, tags=tags_of(a)))
        return {f"{noun}Arn": kind.arn(a.account, a.region, name)}

    def update(a: Authorised, tx: Transaction) -> Output:
        row = lineage.kept(_named(kind, a, tx))
        row.doc |= {member: a.input[member] for member in _CHANGED[noun] if a.input.get(member)}
        lineage.touched_by(a, a.input.get("Properties"), a.input.get("PropertiesToRemove"), row)
        row.doc["LastModifiedBy"] = who(a)
        kind.change(tx, row, a.operation.name, a.request.id)
        return {f"{noun}Arn": kind.arn(row.account, row.region, row.name)}

    def delete(a: Authorised, tx: Transaction) -> Output:
        row = lineage.alone(tx, kind, lineage.kept(_named(kind, a, tx)))
        lineage.forget_source(tx, kind, row)
        kind.remove(tx, row, a.operation.name, a.request.id)
        return {f"{noun}Arn": kind.arn(row.account, row.region, row.name)}

    def every(a: Authorised, view: View) -> Output:
        type, uri = a.input.get(f"{noun}Type"), a.input.get("SourceUri")
        among = lineage.of_source(view, kind, a.account, a.region, uri) if uri else None
        return listed(a, view, kind, among=among, keep=lambda row: not type or row.doc[f"{noun}Type"] == type)

    tags = tagging(kind, f"Create{noun}", this)
    kind.operation(f"Create{noun}", asks=[Ask(f"sagemaker:Create{noun}", this), tags])(create)
    regular(kind, "Describe")
    kind.reads(f"List{noun}s", asks=[Ask(f"sagemaker:List{noun}s", anything)])(every)
    kind.operation(f"Update{noun}", asks=[Ask(f"sagemaker:Update{noun}", this)])(update)
    kind.operation(f"Delete{noun}", asks=[Ask(f"sagemaker:Delete{noun}", this)])(delete)


for _kind in (ARTIFACT, ACTION, CONTEXT):
    _declare(_kind)
