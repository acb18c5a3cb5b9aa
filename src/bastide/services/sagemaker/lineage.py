"""The graph of lineage: artifacts, actions and contexts, and how it grows.

What the service reads off from what ran is marked (`_own`); nobody changes, removes or contradicts it. What people add
stands beside it, under their names.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.kernel import Authorised, Kind
from bastide.services.sagemaker.experiment import EXPERIMENT, experimental
from bastide.services.sagemaker.relation import Relation
from bastide.services.sagemaker.trial_component import TRIAL_COMPONENT
from bastide.store import Row, Taken, Transaction, View


def _noun(name: str) -> Kind:
    kind = experimental(name, name.lower())
    kind.missing = ("ResourceNotFound", "{arn} does not exist.", 400)
    kind.taken = ("ValidationException", "{arn} already exists.", 400)
    return kind


ARTIFACT: Final = _noun("Artifact")
ARTIFACT.named_by = "ArtifactArn"
ACTION: Final = _noun("Action")
CONTEXT: Final = _noun("Context")
ENTITIES: Final = (ARTIFACT, ACTION, CONTEXT, TRIAL_COMPONENT, EXPERIMENT)
"""What an association can join."""

ASSOCIATION_KEY: Final = "sagemaker:Association"
"""Rows ``SOURCE|DESTINATION`` of ARNs; `_BACK` has them the other way around."""
_BACK: Final = "sagemaker:AssociationBack"
_OF_SOURCE: Final = Relation("EntityOfSource")
_MOST: Final = 10_000


def own(row: Row) -> bool:
    """Whether the service read it off from what ran."""
    return "_own" in row.doc


def kept(row: Row) -> Row:
    """The row, if a person may change it; raises Refused otherwise."""
    if own(row):
        raise Refused(
            "ValidationException",
            f"{row.doc.get('ArtifactName') or row.name} was recorded by the service from what ran: it cannot be changed or "
            "removed.",
        )
    return row


# -- entities ----------------------------------------------------------------------------------------------------------


def artifact_id(source: dict[str, Any], *, by: str) -> str:
    """An artifact's id follows from its source: the same content at the same place is the same artifact. by: whose it
    is, so that nobody can claim the service's."""
    types = sorted((one["SourceIdType"], one["Value"]) for one in source.get("SourceTypes") or ())
    told = orjson.dumps([by, source["SourceUri"].rstrip("/"), types])
    return hashlib.sha256(told).hexdigest()[:32]


def _place(uri: str) -> str:
    """A source as it is looked up; with and without the last slash a prefix is the same."""
    return hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:32]


def find_source(tx: Transaction, kind: Kind, row: Row) -> None:
    """Lets an entity be found by its source."""
    _OF_SOURCE.add(tx, row.account, row.region, _place(row.doc["Source"]["SourceUri"]), f"{kind.type}{row.name}")


def forget_source(tx: Transaction, kind: Kind, row: Row) -> None:
    """The opposite."""
    _OF_SOURCE.drop(tx, row.account, row.region, _place(row.doc["Source"]["SourceUri"]), f"{kind.type}{row.name}")


def of_source(view: View, kind: Kind, account: str, region: str, uri: str) -> list[str]:
    """Names of a kind's entities that have a source."""
    found = _OF_SOURCE.rights(view, account, region, _place(uri))
    return [one.removeprefix(kind.type) for one in found if one.startswith(kind.type)]


def entity(view: View, arn: str) -> tuple[Kind, Row] | None:
    """What an ARN of an entity names, None if there is nothing or it is no entity."""
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        return None
    for kind in ENTITIES:
        if parsed.resource.startswith(kind.type):
            try:
                row = kind.get(view, *kind.locate(arn, parsed.account, parsed.region))
            except Refused:
                return None
            return None if row is None else (kind, row)
    return None


def record(tx: Transaction, kind: Kind, account: str, region: str, name: str, doc: dict[str, Any]) -> str:
    """An entity of the service's own; one that is there already stays as it is. Returns its ARN."""
    row = Row(kind.key, account, region, name, {**doc, "_own": True})
    try:
        tx.insert(row, event="LineageRecorded")
    except Taken:
        held = kind.get(tx, account, region, name)
        assert held is not None
        if not own(held):  # somebody took the name before: theirs is not mistaken for ours
            return record(tx, kind, account, region, f"{name[:80]}-{_place(name)[:8]}-aws", doc)
        return kind.arn(account, region, name)
    find_source(tx, kind, row)
    return kind.arn(account, region, name)


def artifact(
    tx: Transaction,
    account: str,
    region: str,
    type: str,
    uri: str,
    ids: dict[str, str],
    *,
    named: str = "",
    **more: Any,
) -> str:
    """An artifact of the service's own; its ARN. ids: what tells its content, by SourceIdType (a suffix behind a space
    tells several of one type apart); the first decides which artifact it is."""
    types = [{"SourceIdType": key.partition(" ")[0], "Value": value} for key, value in ids.items() if value]
    name = artifact_id({"SourceUri": uri, "SourceTypes": types[:1]}, by="service")
    doc = {"ArtifactName": named or uri.rstrip("/").rsplit("/", 1)[-1][:120] or uri, "ArtifactType": type, **more}
    doc["ArtifactArn"] = ARTIFACT.arn(account, region, name)
    doc["Source"] = {"SourceUri": uri, "SourceTypes": types}
    return record(tx, ARTIFACT, account, region, name, doc)


# -- associations ------------------------------------------------------------------------------------------------------


def associate(
    tx: Transaction, account: str, region: str, source: str, destination: str, type: str, **more: Any
) -> bool:
    """Joins two entities; False if they are joined already."""
    doc = {"AssociationType": type, **more}
    try:
        tx.insert(Row(ASSOCIATION_KEY, account, region, f"{source}|{destination}", doc), event="AddAssociation")
    except Taken:
        return False
    tx.insert(Row(_BACK, account, region, f"{destination}|{source}", doc), keep=False)
    return True


def part(tx: Transaction, row: Row, request_id: str) -> None:
    """Removes an association."""
    source, _, destination = row.name.partition("|")
    back = tx.get(_BACK, row.account, row.region, f"{destination}|{source}")
    if back is not None:
        tx.delete(back, keep=False)
    tx.delete(row, event="DeleteAssociation", request_id=request_id)


def following(view: View, account: str, region: str, arn: str, *, limit: int = _MOST) -> list[tuple[str, Row]]:
    """What an entity led to: destination and association."""
    prefix = f"{arn}|"
    rows = view.scan(ASSOCIATION_KEY, account, region, prefix=prefix, limit=limit)
    return [(row.name[len(prefix) :], row) for row in rows]


def preceding(view: View, account: str, region: str, arn: str, *, limit: int = _MOST) -> list[tuple[str, Row]]:
    """What led to an entity: source and association."""
    prefix = f"{arn}|"
    rows = view.scan(_BACK, account, region, prefix=prefix, limit=limit)
    return [(row.name[len(prefix) :], row) for row in rows]


def alone(view: View, kind: Kind, row: Row) -> Row:
    """The row, if nothing is associated with it; raises Refused otherwise, as AWS does before a deletion."""
    arn = kind.arn(row.account, row.region, row.name)
    if following(view, row.account, row.region, arn, limit=1) or preceding(view, row.account, row.region, arn, limit=1):
        raise Refused("ValidationException", f"{arn} has associations. Please delete them first (ListAssociations).")
    return row


def type_of(kind: Kind, row: Row) -> str:
    """An entity's own type, as vertices and associations tell it."""
    if kind is TRIAL_COMPONENT:
        return str((row.doc.get("Source") or {}).get("SourceType") or "TrialComponent")
    return str(row.doc.get(f"{kind.name}Type") or kind.name)


def touched_by(a: Authorised, properties: dict[str, str] | None, removed: list[str] | None, row: Row) -> None:
    """Merges Properties and PropertiesToRemove into a row."""
    held = {**(row.doc.get("Properties") or {}), **(properties or {})}
    for key in removed or ():
        held.pop(key, None)
    if held or "Properties" in row.doc:
        row.doc["Properties"] = held
