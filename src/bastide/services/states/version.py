"""Versions and aliases of state machines: a version never changes, an alias leads to one version or shares between two.

Source: Step Functions developer guide, "Manage continuous deployments with versions and aliases".
"""

from __future__ import annotations

import random
import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, pages
from bastide.services.states.noun import ALIAS, MACHINE, REVISION, VERSION, ask, machine, machine_arn, own, split
from bastide.store import Row, Transaction, View

_MOST_VERSIONS: Final = 1000
_MOST_ALIASES: Final = 100
_NAME: Final = re.compile(r"(?=.*[a-zA-Z_\-.])[a-zA-Z0-9_\-.]{1,80}\Z")


def _under(row: Row) -> str:
    return f"{row.account}/{row.name}"


def _number(number: int) -> str:
    return f"{number:010d}"


def version_arn(row: Row, number: int) -> str:
    """``...:stateMachine:NAME:3``."""
    return f"{machine_arn(row.account, row.region, row.name)}:{number}"


def publish(a: Authorised, tx: Transaction, row: Row, description: str | None) -> str:
    """A version of the current revision; the one that there is already, if nothing changed. Its ARN."""
    held = tx.scan(VERSION, _under(row), row.region, descending=True, limit=1)
    if held and held[0].doc["revision"] == row.doc["revisionId"]:
        if description is not None and held[0].doc.get("description") != description:
            raise Refused(
                "ConflictException", f"Version {held[0].doc['number']} of this revision has another description."
            )
        return version_arn(row, held[0].doc["number"])
    if len(tx.scan(VERSION, _under(row), row.region, limit=_MOST_VERSIONS)) >= _MOST_VERSIONS:
        raise Refused("ServiceQuotaExceededException", f"A state machine has at most {_MOST_VERSIONS} versions.")
    number = int(row.doc["versions"]) + 1
    row.doc["versions"] = number
    doc = {"revision": row.doc["revisionId"], "number": number, "description": description}
    tx.insert(Row(VERSION, _under(row), row.region, _number(number), doc), keep=False)
    MACHINE.change(tx, row, a.operation.name, a.request.id)
    return version_arn(row, number)


def _version(view: View, row: Row, number: str) -> Row:
    found = view.get(VERSION, _under(row), row.region, _number(int(number)) if number.isdigit() else number)
    if found is None:
        arn = f"{machine_arn(row.account, row.region, row.name)}:{number}"
        raise Refused("ResourceNotFound", f"Version not found: '{arn}'", members={"resourceName": arn})
    return found


def chosen(a: Authorised, view: View, row: Row, given: str) -> tuple[Row, Row | None]:
    """The revision that an ARN of a machine, a version or an alias means, and the version's or alias's row."""
    _, _, qualifier = split(given)
    id_, found = row.doc["revisionId"], None
    if qualifier:
        missing = Refused("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{given[:300]}'")
        if qualifier.isdigit():
            found = view.get(VERSION, _under(row), row.region, _number(int(qualifier)))
        else:
            found = view.get(ALIAS, _under(row), row.region, qualifier)
        if found is None:
            raise missing
        held = found
        if not qualifier.isdigit():
            held = _version(view, row, pick(found))
        id_ = held.doc["revision"]
    revision = view.get(REVISION, row.account, row.region, f"{row.name}/{id_}")
    assert revision is not None
    return revision, found


def pick(alias: Row) -> str:
    """The number of the version that an alias leads to this time."""
    ways = alias.doc["routing"]
    if len(ways) == 2 and random.uniform(0, 100) >= ways[0]["weight"]:  # noqa: S311 - a share of the load
        return str(ways[1]["number"])
    return str(ways[0]["number"])


@MACHINE.operation("PublishStateMachineVersion", asks=[ask("PublishStateMachineVersion", "stateMachineArn")])
def publish_version(a: Authorised, tx: Transaction) -> Output:
    row = machine(a, tx, a.input["stateMachineArn"], standing=True)
    wanted = a.input.get("revisionId")
    if wanted and wanted != row.doc["revisionId"]:
        raise Refused("ConflictException", "The given revision is not the current one of the state machine.")
    arn = publish(a, tx, row, a.input.get("description"))
    number = arn.rpartition(":")[2]
    return {"stateMachineVersionArn": arn, "creationDate": _version(tx, row, number).created}


@MACHINE.reads("ListStateMachineVersions", asks=[ask("ListStateMachineVersions", "stateMachineArn")])
def list_versions(a: Authorised, view: View) -> Output:
    arn, name, _ = split(a.input["stateMachineArn"])
    own(a, arn)
    limit = int(a.input.get("maxResults") or 100) or 100
    after = pages.position(a, a.input.get("nextToken"), code="InvalidToken")
    rows = view.scan(VERSION, f"{a.account}/{name}", a.region, descending=True, after=after, limit=limit + 1)
    shown = rows[:limit]
    base = machine_arn(a.account, a.region, name)
    return {
        "stateMachineVersions": [
            {"stateMachineVersionArn": f"{base}:{row.doc['number']}", "creationDate": row.created} for row in shown
        ],
        "nextToken": pages.seal(a, shown[-1].name) if len(rows) > limit else None,
    }


@MACHINE.operation(
    "DeleteStateMachineVersion", asks=[ask("DeleteStateMachineVersion", "stateMachineVersionArn", qualified=True)]
)
def delete_version(a: Authorised, tx: Transaction) -> Output:
    arn, name, number = split(a.input["stateMachineVersionArn"])
    own(a, arn)
    if not number.isdigit():
        raise Refused("InvalidArn", f"Invalid Arn: '{arn}' is not that of a version")
    found = tx.get(VERSION, f"{a.account}/{name}", a.region, _number(int(number)))
    if found is None:
        return {}
    for alias in tx.scan(ALIAS, found.account, a.region, limit=_MOST_ALIASES):
        if any(way["number"] == int(number) for way in alias.doc["routing"]):
            raise Refused("ConflictException", f"The alias {alias.name} leads to this version.")
    tx.delete(found, keep=False)
    return {}


# -- aliases -------------------------------------------------------------------------------------------------------------


def _routing(a: Authorised, view: View, given: Any) -> tuple[Row, list[dict[str, Any]]]:
    ways = list(given or ())
    if not 1 <= len(ways) <= 2:
        raise Refused("ValidationException", "An alias leads to one or two versions.")
    if sum(int(way["weight"]) for way in ways) != 100:
        raise Refused("ValidationException", "Sum of weights must equal 100.")
    row: Row | None = None
    found: list[dict[str, Any]] = []
    for way in ways:
        arn, _, number = split(way["stateMachineVersionArn"])
        if not number.isdigit():
            raise Refused("ValidationException", f"'{arn}' is not the ARN of a version.")
        held = machine(a, view, way["stateMachineVersionArn"], standing=True)
        if row is not None and held.name != row.name:
            raise Refused("ValidationException", "An alias leads to versions of one state machine.")
        row = held
        _version(view, row, number)
        found.append({"number": int(number), "weight": int(way["weight"])})
    if len(found) == 2 and found[0]["number"] == found[1]["number"]:
        raise Refused("ValidationException", "The two versions must be different.")
    assert row is not None
    return row, found


def _alias_arn(row: Row) -> str:
    account, _, name = row.account.partition("/")
    return f"{machine_arn(account, row.region, name)}:{row.name}"


def _of_versions(asked: Asked) -> Any:
    for way in asked.input.get("routingConfiguration") or ():
        return (":".join(str(way["stateMachineVersionArn"]).split(":")[:7]),)
    return ("*",)


@MACHINE.operation(
    "CreateStateMachineAlias",
    asks=[
        Ask(
            "states:CreateStateMachineAlias",
            _of_versions,
            given={"states:StateMachineQualifier": lambda asked: asked.input.get("name")},
        )
    ],
)
def create_alias(a: Authorised, tx: Transaction) -> Output:
    name = a.input["name"]
    if not _NAME.match(name):
        raise Refused("InvalidName", f"Invalid Name: '{name[:100]}'")
    machine_row, routing = _routing(a, tx, a.input["routingConfiguration"])
    under = _under(machine_row)
    doc = {"routing": routing, "description": a.input.get("description")}
    held = tx.get(ALIAS, under, a.region, name)
    if held is not None:
        if {key: held.doc[key] for key in doc} != doc:
            raise Refused("ConflictException", f"The alias {name} exists already, with another configuration.")
        return {"stateMachineAliasArn": _alias_arn(held), "creationDate": held.created}
    if len(tx.scan(ALIAS, under, a.region, limit=_MOST_ALIASES)) >= _MOST_ALIASES:
        raise Refused("ServiceQuotaExceededException", f"A state machine has at most {_MOST_ALIASES} aliases.")
    row = Row(ALIAS, under, a.region, name, doc)
    tx.insert(row, keep=False)
    return {"stateMachineAliasArn": _alias_arn(row), "creationDate": row.created}


def _alias(a: Authorised, view: View) -> Row:
    given = a.input["stateMachineAliasArn"]
    arn, name, alias = split(given)
    own(a, arn)
    row = view.get(ALIAS, f"{a.account}/{name}", a.region, alias)
    if row is None:
        raise Refused("ResourceNotFound", f"Alias not found: '{given}'", members={"resourceName": given})
    return row


@MACHINE.reads(
    "DescribeStateMachineAlias", asks=[ask("DescribeStateMachineAlias", "stateMachineAliasArn", qualified=True)]
)
def describe_alias(a: Authorised, view: View) -> Output:
    row = _alias(a, view)
    base = _alias_arn(row).rpartition(":")[0]
    return {
        "stateMachineAliasArn": _alias_arn(row),
        "name": row.name,
        "description": row.doc.get("description"),
        "routingConfiguration": [
            {"stateMachineVersionArn": f"{base}:{way['number']}", "weight": way["weight"]} for way in row.doc["routing"]
        ],
        "creationDate": row.created,
        "updateDate": row.modified,
    }


@MACHINE.operation(
    "UpdateStateMachineAlias", asks=[ask("UpdateStateMachineAlias", "stateMachineAliasArn", qualified=True)]
)
def update_alias(a: Authorised, tx: Transaction) -> Output:
    row = _alias(a, tx)
    if a.input.get("routingConfiguration") is None and a.input.get("description") is None:
        raise Refused("ValidationException", "Either routingConfiguration or description must be given.")
    if a.input.get("routingConfiguration") is not None:
        machine_row, routing = _routing(a, tx, a.input["routingConfiguration"])
        if _under(machine_row) != row.account:
            raise Refused("ValidationException", "The versions are of another state machine.")
        row.doc["routing"] = routing
    if a.input.get("description") is not None:
        row.doc["description"] = a.input["description"]
    tx.update(row, keep=False)
    return {"updateDate": row.modified}


@MACHINE.operation(
    "DeleteStateMachineAlias", asks=[ask("DeleteStateMachineAlias", "stateMachineAliasArn", qualified=True)]
)
def delete_alias(a: Authorised, tx: Transaction) -> Output:
    tx.delete(_alias(a, tx), keep=False)
    return {}


@MACHINE.reads("ListStateMachineAliases", asks=[ask("ListStateMachineAliases", "stateMachineArn", qualified=True)])
def list_aliases(a: Authorised, view: View) -> Output:
    _, _, number = split(a.input["stateMachineArn"])
    row = machine(a, view, a.input["stateMachineArn"])
    limit = int(a.input.get("maxResults") or 100) or 100
    after = pages.position(a, a.input.get("nextToken"), code="InvalidToken")
    rows = view.scan(ALIAS, _under(row), a.region, after=after, limit=limit + 1)
    shown = rows[:limit]
    return {
        "stateMachineAliases": [
            {"stateMachineAliasArn": _alias_arn(one), "creationDate": one.created}
            for one in shown
            if not number or any(str(way["number"]) == number for way in one.doc["routing"])
        ],
        "nextToken": pages.seal(a, shown[-1].name) if len(rows) > limit else None,
    }
