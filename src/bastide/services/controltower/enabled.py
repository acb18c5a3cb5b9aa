"""Controls are enabled on units and disabled: all of a unit's are statements of one policy that is attached to it.

The caller's own permissions change that policy, through the service (API Reference, EnableControl; User Guide, "Permissions
required for AWS Control Tower APIs").
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused, new_id, tag_map
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.services.controltower.controls import named, wrong
from bastide.services.controltower.noun import AT, CONTROL, POLICY, PRINCIPAL, begun, management, unit
from bastide.store import Row, Transaction, View

_MOST: Final = 500
_FILTERS: Final = ("controlIdentifiers", "statuses")


def _settle(a: Authorised, tx: Transaction, where: str, *, again: bool = False) -> None:
    """Makes a unit's policy say what its controls are. again: also has it attached, if somebody detached it."""

    def organizations(operation: str, *unless: str, **given: Any) -> Output | None:
        """The answer of Organizations; None if it is refused with one of these codes."""
        try:
            return a.forward(tx, "organizations", operation, given, PRINCIPAL)
        except Refused as refused:
            if refused.code in unless:
                return None
            if refused.code == "AccessDeniedException":
                raise
            if refused.code == "ConstraintViolationException":
                raise Refused("ServiceQuotaExceededException", f"The unit's policy: {refused.message}", 402) from None
            raise wrong(f"The unit's policy could not be changed: {refused.code}: {refused.message}") from None

    rows = tx.scan(AT, a.account, "", prefix=f"{where}/", limit=_MOST)
    statements = [one.doc["Statement"] for one in rows]
    content = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    held = tx.get(POLICY, a.account, "", where)
    if held is not None and not statements:
        id = held.doc["Id"]
        organizations(
            "DetachPolicy", "PolicyNotAttachedException", "PolicyNotFoundException", "TargetNotFoundException",
            PolicyId=id, TargetId=where,
        )  # fmt: skip
        organizations("DeletePolicy", "PolicyNotFoundException", PolicyId=id)
        tx.delete(held, keep=False)
        return
    if held is not None:
        if organizations("UpdatePolicy", "PolicyNotFoundException", PolicyId=held.doc["Id"], Content=content):
            if again:
                asked = {"PolicyId": held.doc["Id"], "TargetId": where}
                organizations("AttachPolicy", "DuplicatePolicyAttachmentException", **asked)
            return
        tx.delete(held, keep=False)  # somebody removed it
    told = organizations(
        "CreatePolicy", Content=content, Name=f"aws-guardrails-{where.rpartition('-')[2]}",
        Description="Controls of Control Tower", Type="SERVICE_CONTROL_POLICY",
    )  # fmt: skip
    assert told is not None
    id = told["Policy"]["PolicySummary"]["Id"]
    organizations("AttachPolicy", PolicyId=id, TargetId=where)
    tx.insert(Row(POLICY, a.account, "", where, {"Id": id}), keep=False)


def _new(asked: Asked) -> Iterable[str]:
    return (CONTROL.arn(asked.call.account, asked.call.region, "*"),)


@CONTROL.operation(
    "EnableControl",
    asks=[
        Ask("controltower:EnableControl", _new),
        Ask("controltower:TagResource", _new, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def enable(a: Authorised, tx: Transaction) -> Output:
    management(a)
    name, control = named(str(a.input["controlIdentifier"]), a.region)
    target = str(a.input["targetIdentifier"])
    where = unit(a, tx, target)
    if a.input.get("parameters"):
        raise wrong(f"The control {name} takes no parameters.")
    if tx.get(AT, a.account, "", f"{where}/{name}") is not None:
        raise Refused("ConflictException", f"The control {name} is enabled on {target} already.", 409)
    tags = tag_map([{"Key": key, "Value": value} for key, value in (a.input.get("tags") or {}).items()])
    doc = {"Control": a.input["controlIdentifier"], "Target": target, "At": f"{where}/{name}"}
    row = CONTROL.create(a, tx, new_id().replace("-", "")[:16].upper(), doc, status="SUCCEEDED", tags=tags)
    told = {"Statement": control.statement(name), "Region": a.region, "Name": row.name}
    tx.insert(Row(AT, a.account, "", doc["At"], told), keep=False)
    _settle(a, tx, where)
    return _done(a, tx, "ENABLE_CONTROL", row) | {"arn": CONTROL.arn(row.account, row.region, row.name)}


def _done(a: Authorised, tx: Transaction, kind: str, row: Row) -> Output:
    row.doc["LastOperation"] = id = begun(a, tx, kind, row)
    if kind == "DISABLE_CONTROL":
        CONTROL.remove(tx, row, a.operation.name, a.request.id)
    else:
        CONTROL.change(tx, row, a.operation.name, a.request.id)
    return {"operationIdentifier": id}


def _of(view: View, account: str, region: str, given: dict[str, Any]) -> str:
    """The ARN of the enabled control that a call names by itself, or by control and target; empty for none."""
    if given.get("enabledControlIdentifier"):
        return str(given["enabledControlIdentifier"])
    where = str(given.get("targetIdentifier")).rpartition("/")[2]
    held = view.get(AT, account, "", f"{where}/{str(given.get('controlIdentifier')).rpartition('/')[2]}")
    return "" if held is None else CONTROL.arn(account, held.doc["Region"], held.doc["Name"])


def _this(asked: Asked) -> Iterable[str]:
    found = _of(asked.view, asked.call.account, asked.call.region, asked.input)
    return (found or CONTROL.arn(asked.call.account, asked.call.region, "*"),)


def _found(a: Authorised, view: View) -> Row:
    management(a)
    given = a.input
    if not given.get("enabledControlIdentifier") and not (
        given.get("controlIdentifier") and given.get("targetIdentifier")
    ):
        raise wrong("Name the enabled control, or a control and its target.")
    arn = _of(view, a.account, a.region, given)
    if not arn:
        raise Refused("ResourceNotFoundException", "The control is not enabled on that target.", 404)
    account, region, name = CONTROL.locate(arn, a.account, a.region)
    return CONTROL.find(view, account if account == a.account else "", region, name)


@CONTROL.operation("DisableControl", asks=[Ask("controltower:DisableControl", _this)])
def disable(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    held = tx.get(AT, a.account, "", row.doc["At"])
    if held is not None:
        tx.delete(held, keep=False)
    _settle(a, tx, row.doc["At"].partition("/")[0])
    return _done(a, tx, "DISABLE_CONTROL", row)


@CONTROL.operation("ResetEnabledControl", asks=[Ask("controltower:ResetEnabledControl", _this)])
def reset(a: Authorised, tx: Transaction) -> Output:
    """Puts back what was changed by hand: content and attachment of the unit's policy."""
    row = _found(a, tx)
    _settle(a, tx, row.doc["At"].partition("/")[0], again=True)
    return _done(a, tx, "RESET_ENABLED_CONTROL", row)


def _shown(row: Row) -> Output:
    return {
        "arn": CONTROL.arn(row.account, row.region, row.name),
        "controlIdentifier": row.doc["Control"],
        "targetIdentifier": row.doc["Target"],
        "statusSummary": {"status": row.status, "lastOperationIdentifier": row.doc["LastOperation"]},
        "driftStatusSummary": {"driftStatus": "NOT_CHECKING"},
    }


@CONTROL.reads("GetEnabledControl", asks=[Ask("controltower:GetEnabledControl", _this)])
def get(a: Authorised, view: View) -> Output:
    return {"enabledControlDetails": _shown(_found(a, view))}


@CONTROL.reads("ListEnabledControls", asks=[Ask("controltower:ListEnabledControls", anything)])
def listed(a: Authorised, view: View) -> Output:
    management(a)
    wanted, target = a.input.get("filter") or {}, a.input.get("targetIdentifier")
    if a.input.get("includeChildren"):
        raise wrong("includeChildren is not supported by Bastide yet: controls are listed of one unit, or of all.")
    if unknown := [name for name in wanted if name not in _FILTERS]:
        raise wrong(f"The filter {unknown[0]} is not supported by Bastide yet.")
    if target:
        unit(a, view, str(target))
    after = pages.position(a, a.input.get("nextToken"))
    limit = int(a.input.get("maxResults") or 200)
    rows: list[Row] = []
    while len(rows) <= limit:
        some = view.scan(CONTROL.key, a.account, a.region, after=after, limit=_MOST)
        rows += [
            row
            for row in some
            if target in (None, row.doc["Target"])
            and row.doc["Control"] in (wanted.get("controlIdentifiers") or [row.doc["Control"]])
            and row.status in (wanted.get("statuses") or [row.status])
        ]
        if len(some) < _MOST:
            break
        after = some[-1].name
    output: Output = {"enabledControls": [_shown(row) for row in rows[:limit]]}
    if len(rows) > limit:
        output["nextToken"] = pages.seal(a, rows[limit - 1].name)
    return output
