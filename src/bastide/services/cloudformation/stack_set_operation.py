"""Operations on stack sets: their instances made, changed and removed, some at once, within a tolerance.

Source: CloudFormation User Guide, "Stack set operation options".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.kernel import Ask, Authorised, Calls, Output, pages
from bastide.services.cloudformation import record
from bastide.services.cloudformation.stack import invalid
from bastide.services.cloudformation.stack_set import (
    GIVEN,
    INSTANCE,
    MOST_INSTANCES,
    OPERATION,
    PASS_ROLE,
    STACK_SET,
    TARGETS,
    content,
    found,
    roles,
    template_of,
    this,
)
from bastide.store import Row, Transaction, View
from bastide.store.directory import Configuration

ACCOUNT: Final = "organizations:Account"
_PAGE: Final = 100
_ID: Final = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")


def below(calls: Calls, view: View, units: Iterable[str]) -> dict[str, str]:
    """The active member accounts below organisational units or the root, and by which of these."""
    wanted = list(units)
    found_: dict[str, str] = {}
    for row in view.scan(ACCOUNT, "", "", limit=10_000):
        if row.status != "ACTIVE" or row.name == calls.home:
            continue
        place = calls.organisation.place(view, row.name)
        for unit in wanted:
            if place is not None and f"/{unit}/" in place[1]:
                found_[row.name] = unit
                break
    return found_


def targets(a: Authorised, view: View, row: Row) -> list[dict[str, str]]:
    """The accounts and Regions that a call names; raises Refused."""
    given = a.input
    regions = list(dict.fromkeys(given.get("Regions") or ()))
    deploy = given.get("DeploymentTargets") or {}
    units, accounts = deploy.get("OrganizationalUnitIds") or [], given.get("Accounts") or []
    if deploy.get("AccountsUrl"):
        raise invalid("DeploymentTargets.AccountsUrl is not supported yet; name the accounts.")
    if row.doc["model"] == "SELF_MANAGED":
        if units:
            raise invalid("OrganizationalUnitIds are for the permission model SERVICE_MANAGED.")
        chosen = dict.fromkeys(accounts or deploy.get("Accounts") or [], "")
    else:
        if accounts or not units:
            raise invalid("Service managed stack sets go by DeploymentTargets.OrganizationalUnitIds.")
        chosen = below(a.calls, view, units)
        listed, how = set(deploy.get("Accounts") or ()), deploy.get("AccountFilterType") or "NONE"
        if how == "UNION":
            chosen |= dict.fromkeys(listed - set(chosen), "")
        elif how in ("INTERSECTION", "DIFFERENCE"):
            chosen = {one: unit for one, unit in chosen.items() if (one in listed) == (how == "INTERSECTION")}
        elif listed:
            raise invalid("DeploymentTargets.Accounts needs an AccountFilterType beside OrganizationalUnitIds.")
    if not regions or (not chosen and not units):
        raise invalid("Accounts and Regions must be given.")
    known = [one for one in regions if one not in _regions(a)]
    if known:
        raise invalid(f"Region {known[0]} does not exist here.")
    return [{"account": one, "region": region, "unit": unit} for region in regions for one, unit in chosen.items()]


def _regions(a: Authorised) -> tuple[str, ...]:
    return a.engine(Configuration).regions


def begin(
    calls: Calls, tx: Transaction, row: Row, action: str, where: list[dict[str, str]], *, id: str = "", **more: Any
) -> str:
    """Notes an operation, which the outbox starts; raises Refused while another one runs."""
    if row.doc.get("running"):
        raise Refused("OperationInProgressException", f"Another Operation on StackSet {row.name} is in progress", 409)
    id = id or new_id()
    if not _ID.fullmatch(id):
        raise invalid("The OperationId is not legal.")
    results = [{**one, "status": "PENDING", "reason": ""} for one in where]
    doc = {"action": action, "results": results, "set": row.name, **more}
    if tx.get(OPERATION, row.account, row.region, f"{row.name}/{id}") is not None:
        raise Refused("OperationIdAlreadyExistsException", f"OperationId {id} exists already.", 409)
    tx.insert(Row(OPERATION, row.account, row.region, f"{row.name}/{id}", doc, "RUNNING"), keep=False)
    row.doc["running"] = id
    STACK_SET.change(tx, row, "Begin")
    return id


def _preferences(a: Authorised) -> dict[str, Any]:
    given = a.input.get("OperationPreferences") or {}
    if given.get("ConcurrencyMode") not in (None, "STRICT_FAILURE_TOLERANCE", "SOFT_FAILURE_TOLERANCE"):
        raise invalid("OperationPreferences.ConcurrencyMode is not known.")
    return dict(given)


def _overrides(a: Authorised) -> str:
    told = {
        one["ParameterKey"]: str(one.get("ParameterValue") or "") for one in a.input.get("ParameterOverrides") or ()
    }
    return record.seal(a.calls, told)


# -- the operations ----------------------------------------------------------------------------------------------------


@STACK_SET.operation("CreateStackInstances", asks=[Ask("cloudformation:CreateStackInstances", this, given=TARGETS)])
def create(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    where = targets(a, tx, row)
    held = tx.scan(INSTANCE, row.account, row.region, prefix=f"{row.name}/", limit=MOST_INSTANCES)
    if len(held) + len(where) > MOST_INSTANCES:
        raise Refused("LimitExceededException", f"A stack set has {MOST_INSTANCES} instances at most.")
    id = begin(a.calls, tx, row, "CREATE", where, id=a.input.get("OperationId") or "", preferences=_preferences(a))
    units = (a.input.get("DeploymentTargets") or {}).get("OrganizationalUnitIds") or []
    _remember(tx, row, units, list(a.input.get("Regions") or ()))
    add(a.calls, tx, row, where, id, _overrides(a))
    return {"OperationId": id}


def _remember(tx: Transaction, row: Row, units: list[str], regions: list[str]) -> None:
    """Which units and Regions a set goes to by itself from now on."""
    if units:
        row.doc["units"] = list(dict.fromkeys([*row.doc.get("units", []), *units]))
        row.doc["regions"] = list(dict.fromkeys([*row.doc.get("regions", []), *regions]))
        STACK_SET.change(tx, row, "Remembered")


def add(calls: Calls, tx: Transaction, row: Row, where: list[dict[str, str]], id: str, overrides: str) -> None:
    """Instances that are to be made."""
    for one in where:
        name = f"{row.name}/{one['account']}/{one['region']}"
        if tx.get(INSTANCE, row.account, row.region, name) is None:
            doc = {"unit": one["unit"], "operation": id, "overrides": overrides, "detailed": "PENDING"}
            tx.insert(Row(INSTANCE, row.account, row.region, name, doc, "OUTDATED"), keep=False)


@STACK_SET.operation("UpdateStackInstances", asks=[Ask("cloudformation:UpdateStackInstances", this, given=TARGETS)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    where = targets(a, tx, row)
    for one in where:
        held = tx.get(INSTANCE, row.account, row.region, f"{row.name}/{one['account']}/{one['region']}")
        if held is None:
            raise Refused("StackInstanceNotFoundException", f"Stack instance not found for StackSet: {row.name}", 404)
        if a.input.get("ParameterOverrides") is not None:
            held.doc["overrides"] = _overrides(a)
            held.status = "OUTDATED"
            tx.update(held, keep=False)
    id = begin(a.calls, tx, row, "UPDATE", where, id=a.input.get("OperationId") or "", preferences=_preferences(a))
    return {"OperationId": id}


@STACK_SET.operation("DeleteStackInstances", asks=[Ask("cloudformation:DeleteStackInstances", this, given=TARGETS)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    where = [
        one
        for one in targets(a, tx, row)
        if tx.get(INSTANCE, row.account, row.region, f"{row.name}/{one['account']}/{one['region']}") is not None
    ]
    units = (a.input.get("DeploymentTargets") or {}).get("OrganizationalUnitIds") or []
    row.doc["units"] = [one for one in row.doc.get("units", []) if one not in units]
    id = begin(
        a.calls, tx, row, "DELETE", where, id=a.input.get("OperationId") or "", preferences=_preferences(a),
        retain=bool(a.input.get("RetainStacks")),
    )  # fmt: skip
    return {"OperationId": id}


async def _before_update(a: Authorised) -> Any:
    with a.calls.store.reading() as view:
        row = found(a, view)
    return await template_of(a, record.opened(a.calls, row.doc["template"]))


@STACK_SET.operation(
    "UpdateStackSet",
    asks=[Ask("cloudformation:UpdateStackSet", this, given={**GIVEN, **TARGETS}), PASS_ROLE],
    before=_before_update,
)
def update_set(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    if row.doc.get("running"):
        raise Refused("OperationInProgressException", f"Another Operation on StackSet {row.name} is in progress", 409)
    row.doc |= {**content(a, a.staged, row.doc), **roles(a, tx, row)}
    if a.input.get("Tags") is not None:
        row.tags = {one["Key"]: one["Value"] for one in a.input["Tags"]}
    where = targets(a, tx, row) if a.input.get("Regions") else []
    chosen = {(one["account"], one["region"]) for one in where}
    reached = []
    for held in tx.scan(INSTANCE, row.account, row.region, prefix=f"{row.name}/", limit=MOST_INSTANCES):
        _, account, region = held.name.rsplit("/", 2)
        held.status = "OUTDATED"
        tx.update(held, keep=False)
        if not chosen or (account, region) in chosen:
            reached.append({"account": account, "region": region, "unit": held.doc.get("unit", "")})
    id = begin(a.calls, tx, row, "UPDATE", reached, id=a.input.get("OperationId") or "", preferences=_preferences(a))
    return {"OperationId": id}


@STACK_SET.operation("StopStackSetOperation", asks=[Ask("cloudformation:StopStackSetOperation", this)])
def stop(a: Authorised, tx: Transaction) -> Output:
    row = found(a, tx)
    held = _operation(tx, row, a.input["OperationId"])
    if held.status != "RUNNING":
        raise Refused("InvalidOperationException", "Operation is not running", 400)
    held.status = "STOPPING"
    tx.update(held, keep=False)
    return {}


# -- looking -----------------------------------------------------------------------------------------------------------


def _operation(view: View, row: Row, id: str) -> Row:
    held = view.get(OPERATION, row.account, row.region, f"{row.name}/{id}")
    if held is None:
        raise Refused("OperationNotFoundException", f"Operation {id} not found", 404)
    return held


def _told(held: Row) -> Output:
    set_, _, id = held.name.rpartition("/")
    told: Output = {
        "OperationId": id,
        "StackSetId": set_,
        "Action": held.doc["action"],
        "Status": held.status,
        "CreationTimestamp": held.created,
        "OperationPreferences": held.doc.get("preferences") or {},
        "StatusDetails": {"FailedStackInstancesCount": sum(one["status"] == "FAILED" for one in held.doc["results"])},
    }
    if held.doc.get("ended"):
        told["EndTimestamp"] = held.doc["ended"]
    if held.doc["action"] == "DELETE":
        told["RetainStacks"] = bool(held.doc.get("retain"))
    return told


@STACK_SET.reads("DescribeStackSetOperation", asks=[Ask("cloudformation:DescribeStackSetOperation", this)])
def describe(a: Authorised, view: View) -> Output:
    return {"StackSetOperation": _told(_operation(view, found(a, view), a.input["OperationId"]))}


@STACK_SET.reads("ListStackSetOperations", asks=[Ask("cloudformation:ListStackSetOperations", this)])
def listed(a: Authorised, view: View) -> Output:
    row = found(a, view)
    rows = view.scan(OPERATION, row.account, row.region, prefix=f"{row.name}/", limit=1000)
    rows.sort(key=lambda one: -one.created)
    after = int(pages.position(a, a.input.get("NextToken")) or 0)
    size = int(a.input.get("MaxResults") or _PAGE)
    kept = (
        "OperationId",
        "Action",
        "Status",
        "CreationTimestamp",
        "EndTimestamp",
        "StatusDetails",
        "OperationPreferences",
    )
    told = [{name: one for name, one in _told(held).items() if name in kept} for held in rows[after : after + size]]
    answer: Output = {"Summaries": told}
    if len(rows) > after + size:
        answer["NextToken"] = pages.seal(a, after + size)
    return answer


@STACK_SET.reads("ListStackSetOperationResults", asks=[Ask("cloudformation:ListStackSetOperationResults", this)])
def results(a: Authorised, view: View) -> Output:
    held = _operation(view, found(a, view), a.input["OperationId"])
    after = int(pages.position(a, a.input.get("NextToken")) or 0)
    size = int(a.input.get("MaxResults") or _PAGE)
    told = []
    for one in held.doc["results"][after : after + size]:
        entry: Output = {"Account": one["account"], "Region": one["region"], "Status": one["status"]}
        if one["reason"]:
            entry["StatusReason"] = one["reason"]
        if one["unit"]:
            entry["OrganizationalUnitId"] = one["unit"]
        told.append(entry)
    answer: Output = {"Summaries": told}
    if len(held.doc["results"]) > after + size:
        answer["NextToken"] = pages.seal(a, after + size)
    return answer
