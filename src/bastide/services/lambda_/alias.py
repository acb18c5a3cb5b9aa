"""Aliases: names of versions, which may share their events between two.

Source: AWS Lambda API Reference, CreateAlias, UpdateAlias; Lambda Developer Guide, "Implement Lambda canary deployments
using a weighted alias".
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.lambda_.noun import (
    ALIAS,
    FUNCTION,
    LATEST,
    Named,
    alias_row,
    find,
    invalid,
    is_number,
    limit_of,
    matches,
    named,
    this,
    version_row,
)
from bastide.store import Row, Transaction, View

_NAME: Final = re.compile(r"(?!^[0-9]+$)[a-zA-Z0-9-_]{1,128}")


def _missing(what: Named, name: str) -> Refused:
    return Refused("ResourceNotFoundException", f"Cannot find alias arn: {what.function}:{name}", 404)


def _shown(what: Named, row: Row) -> Output:
    name = row.name.partition(":")[2]
    told: Output = {
        "AliasArn": f"{what.function}:{name}",
        "Name": name,
        "FunctionVersion": row.doc["FunctionVersion"],
        "Description": row.doc["Description"],
        "RevisionId": row.doc["RevisionId"],
    }
    if row.doc.get("AdditionalVersionWeights"):
        told["RoutingConfig"] = {"AdditionalVersionWeights": row.doc["AdditionalVersionWeights"]}
    return told


def _checked(view: View, what: Named, doc: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given.get("FunctionVersion"):
        doc["FunctionVersion"] = str(given["FunctionVersion"])
    if given.get("Description") is not None:
        doc["Description"] = given["Description"]
    if given.get("RoutingConfig") is not None:
        weights = {str(one): float(part) for one, part in
                   (given["RoutingConfig"].get("AdditionalVersionWeights") or {}).items()}  # fmt: skip
        doc["AdditionalVersionWeights"] = weights
    weights = doc.get("AdditionalVersionWeights") or {}
    if doc["FunctionVersion"] != LATEST and version_row(view, what, doc["FunctionVersion"]) is None:
        raise Refused("ResourceNotFoundException", f"Function not found: {what.function}:{doc['FunctionVersion']}", 404)
    if not weights:
        return
    if len(weights) > 1:
        raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
    [(other, part)] = weights.items()
    if LATEST in (other, doc["FunctionVersion"]):
        raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
    if other == doc["FunctionVersion"]:
        raise invalid(
            f"Invalid function version {other}. Function version {other} is already included in routing configuration."
        )
    if not is_number(other) or version_row(view, what, other) is None:
        raise Refused("ResourceNotFoundException", f"Function not found: {what.function}:{other}", 404)
    if not 0.0 <= part <= 1.0:
        raise invalid("The weight of an additional version is a number from 0 to 1.")


@FUNCTION.operation("CreateAlias", asks=[Ask("lambda:CreateAlias", this)])
def create(a: Authorised, tx: Transaction) -> Output:
    what, name = named(a), str(a.input["Name"])
    find(tx, what)
    if not _NAME.fullmatch(name):
        raise invalid("The name of an alias has letters, digits, - and _, and is no number.")
    if alias_row(tx, what, name) is not None:
        raise Refused("ResourceConflictException", f"Alias already exists: {what.function}:{name}", 409)
    doc: dict[str, Any] = {"Description": "", "RevisionId": str(uuid.uuid4())}
    _checked(tx, what, doc, a.input)
    row = Row(ALIAS, what.account, what.region, f"{what.name}:{name}", doc)
    tx.insert(row, keep=False)
    return _shown(what, row)


@FUNCTION.operation("UpdateAlias", asks=[Ask("lambda:UpdateAlias", this)])
def update(a: Authorised, tx: Transaction) -> Output:
    what, name = named(a), str(a.input["Name"])
    row = alias_row(tx, what, name)
    if row is None:
        raise _missing(what, name)
    matches(a.input.get("RevisionId"), row.doc["RevisionId"])
    _checked(tx, what, row.doc, a.input)
    row.doc["RevisionId"] = str(uuid.uuid4())
    tx.update(row, keep=False)
    return _shown(what, row)


@FUNCTION.reads("GetAlias", asks=[Ask("lambda:GetAlias", this)])
def get(a: Authorised, view: View) -> Output:
    what, name = named(a), str(a.input["Name"])
    row = alias_row(view, what, name)
    if row is None:
        raise _missing(what, name)
    return _shown(what, row)


@FUNCTION.reads("ListAliases", asks=[Ask("lambda:ListAliases", this)])
def listed(a: Authorised, view: View) -> Output:
    what, limit, wanted = named(a), limit_of(a), a.input.get("FunctionVersion")
    find(view, what)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    found: list[Output] = []
    while True:
        rows = view.scan(ALIAS, what.account, what.region, prefix=f"{what.name}:", after=after, limit=limit + 1)
        for row in rows:
            if len(found) == limit:
                return {"Aliases": found, "NextMarker": pages.seal(a, after)}
            after = row.name
            if not wanted or row.doc["FunctionVersion"] == wanted:
                found.append(_shown(what, row))
        if len(rows) <= limit:
            return {"Aliases": found}


@FUNCTION.operation("DeleteAlias", asks=[Ask("lambda:DeleteAlias", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    what, name = named(a), str(a.input["Name"])
    row = alias_row(tx, what, name)
    if row is not None:
        tx.delete(row, keep=False)
        function = FUNCTION.get(tx, what.account, what.region, what.name)
        if function is not None and name in (function.doc.get("_policies") or {}):
            del function.doc["_policies"][name]
            FUNCTION.change(tx, function, a.operation.name, a.request.id)
    return {}


def routed(row: Row) -> str:
    """Which version an alias leads to now."""
    first = str(row.doc["FunctionVersion"])
    for other, part in (row.doc.get("AdditionalVersionWeights") or {}).items():
        if random.random() < part:  # noqa: S311
            return str(other)
    return first
