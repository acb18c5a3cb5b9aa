"""Associations between entities of lineage, and the questions that follow them.

Source: API Reference, AddAssociation, ListAssociations, QueryLineage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.services.sagemaker import lineage
from bastide.services.sagemaker.model_package_group import who
from bastide.store import Row, Transaction, View

ASSOCIATION: Final = Kind("Association", service="sagemaker", arn="association/{}", named_by="SourceArn", tags=False)
"""Not a resource: it has no ARN."""

_MOST_VISITED: Final = 5000


def _both(asked: Asked) -> Iterable[str]:
    return [str(asked.input[name]) for name in ("SourceArn", "DestinationArn")]


def _entity(a: Authorised, view: View, arn: str) -> tuple[Kind, Row]:
    found = lineage.entity(view, arn)
    if found is None:
        raise Refused("ResourceNotFound", f"{arn} does not exist, or is nothing that lineage associates.")
    if found[1].account != a.account or found[1].region != a.region:
        raise Refused("ValidationException", f"{arn} is in another account or region.")
    return found


@ASSOCIATION.operation("AddAssociation", asks=[Ask("sagemaker:AddAssociation", _both)])
def add(a: Authorised, tx: Transaction) -> Output:
    source, destination = a.input["SourceArn"], a.input["DestinationArn"]
    type = a.input.get("AssociationType") or "AssociatedWith"
    (_, first), (_, last) = _entity(a, tx, source), _entity(a, tx, destination)
    if source == destination:
        raise Refused("ValidationException", "An entity is not associated with itself.")
    if lineage.own(last) or (lineage.own(first) and type == "Produced"):
        raise Refused(
            "ValidationException",
            "What led to something that ran, and what it produced, is read off from the run: nobody adds to it.",
        )
    if not lineage.associate(tx, a.account, a.region, source, destination, type, CreatedBy=who(a)):
        raise Refused("ValidationException", f"An association of {source} and {destination} already exists.")
    return {"SourceArn": source, "DestinationArn": destination}


@ASSOCIATION.operation("DeleteAssociation", asks=[Ask("sagemaker:DeleteAssociation", _both)])
def delete(a: Authorised, tx: Transaction) -> Output:
    source, destination = a.input["SourceArn"], a.input["DestinationArn"]
    row = tx.get(lineage.ASSOCIATION_KEY, a.account, a.region, f"{source}|{destination}")
    if row is None:
        raise Refused("ResourceNotFound", f"{source} and {destination} are not associated.")
    if "CreatedBy" not in row.doc:
        raise Refused("ValidationException", "This association was recorded by the service from what ran: it stays.")
    lineage.part(tx, row, a.request.id)
    return {"SourceArn": source, "DestinationArn": destination}


def _summary(view: View, source: str, destination: str, row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"SourceArn": source, "DestinationArn": destination, "CreationTime": row.created, **row.doc}
    for side, arn in (("Source", source), ("Destination", destination)):
        held = lineage.entity(view, arn)
        if held is not None and held[1].account == row.account:
            found[f"{side}Type"] = lineage.type_of(*held)
            found[f"{side}Name"] = held[1].doc.get("ArtifactName") or held[1].name
    return found


@ASSOCIATION.reads("ListAssociations", asks=[Ask("sagemaker:ListAssociations", anything)])
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    source, destination = given.get("SourceArn"), given.get("DestinationArn")
    if source:
        found = [(source, other, row) for other, row in lineage.following(view, a.account, a.region, source)]
    elif destination:
        found = [(other, destination, row) for other, row in lineage.preceding(view, a.account, a.region, destination)]
    else:
        rows = view.scan(lineage.ASSOCIATION_KEY, a.account, a.region, order="created", limit=_MOST_VISITED)
        found = [(row.name.partition("|")[0], row.name.partition("|")[2], row) for row in rows]
    since, until = given.get("CreatedAfter"), given.get("CreatedBefore")
    summaries = [
        _summary(view, first, last, row)
        for first, last, row in found
        if (not destination or last == destination) and (since or 0) <= row.created <= (until or row.created)
    ]
    for member in ("SourceType", "DestinationType", "AssociationType"):
        if given.get(member):
            summaries = [one for one in summaries if one.get(member) == given[member]]
    by = given.get("SortBy") or "CreationTime"
    summaries.sort(
        key=lambda one: (one.get(by) or "", one["SourceArn"], one["DestinationArn"]),
        reverse=given.get("SortOrder", "Descending") == "Descending",
    )
    limit, start = int(given.get("MaxResults") or 10), int(pages.position(a, given.get("NextToken")) or 0)
    token = pages.seal(a, start + limit) if len(summaries) > start + limit else None
    return {"AssociationSummaries": summaries[start : start + limit], "NextToken": token}


# -- following ---------------------------------------------------------------------------------------------------------


@ASSOCIATION.reads("QueryLineage", asks=[Ask("sagemaker:QueryLineage", anything)])
def query(a: Authorised, view: View) -> Output:
    given = a.input
    starts = list(given.get("StartArns") or ())
    for arn in starts:
        _entity(a, view, arn)
    if not starts:
        raise Refused("ValidationException", "StartArns is needed.")
    direction, deepest = given.get("Direction") or "Both", int(given.get("MaxDepth") or 10)
    reached: dict[str, None] = {}
    edges: dict[tuple[str, str], str] = {}
    for way in ("Ascendants", "Descendants"):
        if direction not in (way, "Both"):
            continue
        seen, here = set(starts), list(starts)
        for _ in range(deepest):
            beyond: list[str] = []
            for arn in here:
                step = lineage.preceding if way == "Ascendants" else lineage.following
                for other, row in step(view, a.account, a.region, arn):
                    edges[(other, arn) if way == "Ascendants" else (arn, other)] = row.doc["AssociationType"]
                    if other not in seen:
                        seen.add(other)
                        reached[other] = None
                        beyond.append(other)
                if len(seen) > _MOST_VISITED:
                    raise Refused(
                        "ValidationException",
                        f"More than {_MOST_VISITED} entities were met. Please ask for a smaller MaxDepth.",
                    )
            here = beyond
    vertices = [
        one for arn in reached if (one := _vertex(view, a.account, arn, given.get("Filters") or {})) is not None
    ]
    limit, start = int(given.get("MaxResults") or 1000), int(pages.position(a, given.get("NextToken")) or 0)
    shown = vertices[start : start + limit]
    found: Output = {"Vertices": shown, "Edges": []}
    if len(vertices) > start + limit:
        found["NextToken"] = pages.seal(a, start + limit)
    if given.get("IncludeEdges", True):
        held = {one["Arn"] for one in vertices} | set(starts)
        found["Edges"] = [
            {"SourceArn": source, "DestinationArn": destination, "AssociationType": type}
            for (source, destination), type in edges.items()
            if source in held and destination in held
        ]
    return found


def _vertex(view: View, account: str, arn: str, filters: dict[str, Any]) -> dict[str, Any] | None:
    """A vertex, None if the filters leave it out."""
    held = lineage.entity(view, arn)
    if held is None:
        return None
    kind, row = held
    lineage_type = kind.name
    if row.account != account:  # of what ran elsewhere nothing is told but that it is the origin
        return None if filters else {"Arn": arn, "Type": "SageMakerTrainingJob", "LineageType": lineage_type}
    told = {"Arn": arn, "Type": lineage.type_of(kind, row), "LineageType": lineage_type}
    if filters.get("Types") and told["Type"] not in filters["Types"]:
        return None
    if filters.get("LineageTypes") and lineage_type not in filters["LineageTypes"]:
        return None
    for member, at in (("Created", row.created), ("Modified", row.modified)):
        if at < filters.get(f"{member}After", at) or at > filters.get(f"{member}Before", at):
            return None
    properties = row.doc.get("Properties") or {}
    if any(properties.get(key) != value for key, value in (filters.get("Properties") or {}).items()):
        return None
    return told
