"""Schedules: made, changed, shown, removed. Source: EventBridge Scheduler API Reference, CreateSchedule."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.domain.schedule import NoSchedule, Schedule, zone
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, anything, member, once, pages
from bastide.services.scheduler.group import DEFAULT, DUE, GROUP, SCHEDULES, drop, exists, undo
from bastide.services.scheduler.target import checked
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "scheduler.amazonaws.com"
SCHEDULE: Final = Kind(
    "Schedule",
    service="scheduler",
    arn="schedule/{}",
    named_by="Name",
    tags=False,
    fills=("aws:ResourceTag/${TagKey}",),
    missing=("ResourceNotFoundException", "Schedule {name} does not exist.", 404),
    taken=("ConflictException", "Schedule {name} already exists.", 409),
)
assert SCHEDULE.key == SCHEDULES
_LONGEST_WINDOW: Final = 1440
_PAGE: Final = 100
_MEMBERS: Final = (
    "ScheduleExpression", "ScheduleExpressionTimezone", "StartDate", "EndDate", "Description", "State", "Target",
    "FlexibleTimeWindow", "ActionAfterCompletion",
)  # fmt: skip


def facts(view: View, arn: Arn, _: str) -> Facts | None:
    """A schedule has the tags of its group."""
    kind, _, rest = arn.resource.partition("/")
    if kind != "schedule":
        return None
    group = GROUP.get(view, arn.account, arn.region, rest.partition("/")[0])
    return Facts(arn.account, group.tags if group is not None else {}, type=SCHEDULE.name)


def _this(asked: Asked) -> Iterable[str]:
    group = asked.input.get("GroupName") or asked.input.get("groupName") or DEFAULT
    return (SCHEDULE.arn(asked.call.account, asked.call.region, f"{group}/{asked.input['Name']}"),)


def _row(a: Authorised, view: View) -> Row:
    return SCHEDULE.find(view, a.account, a.region, f"{a.input.get('GroupName') or DEFAULT}/{a.input['Name']}")


_PUT: Final = [
    Ask(
        "iam:PassRole",
        member("Target.RoleArn"),
        given={
            "iam:PassedToService": lambda _: PRINCIPAL,
            "iam:AssociatedResourceArn": lambda asked: list(_this(asked)),
        },
    ),
]


def _expression(text: str, timezone: str) -> None:
    try:
        Schedule.of(text)
        zone(timezone)
    except NoSchedule as wrong:
        raise Refused("ValidationException", f"Invalid Schedule Expression {text}. {wrong}") from None


async def _trusted(a: Authorised) -> None:
    """The role must let the scheduler take it on, which is found out before anything depends on it."""
    _expression(str(a.input["ScheduleExpression"]), str(a.input.get("ScheduleExpressionTimezone") or "UTC"))
    role = str(a.input["Target"]["RoleArn"])
    group = GROUP.arn(a.account, a.region, a.input.get("GroupName") or DEFAULT)
    try:
        await a.calls.assume(
            PRINCIPAL, role, "scheduler", account=a.account, region=a.region, seconds=900, source_arn=group
        )
    except Refused as refused:
        raise Refused(
            "ValidationException",
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role.",
            kept=refused.kept,
        ) from None


def _doc(a: Authorised, now: Instant) -> dict[str, Any]:
    given = a.input
    if given.get("KmsKeyArn"):
        raise Refused("ValidationException", "KmsKeyArn is not supported by Bastide yet.")
    doc = {name: given[name] for name in _MEMBERS if given.get(name) is not None}
    doc.setdefault("State", "ENABLED")
    doc.setdefault("ScheduleExpressionTimezone", "UTC")
    doc.setdefault("ActionAfterCompletion", "NONE")
    _expression(doc["ScheduleExpression"], doc["ScheduleExpressionTimezone"])
    window = doc["FlexibleTimeWindow"]
    flexible = window["Mode"] == "FLEXIBLE"
    if flexible != (window.get("MaximumWindowInMinutes") is not None):
        raise Refused("ValidationException", "MaximumWindowInMinutes is needed in the mode FLEXIBLE, and only there.")
    if flexible and not 1 <= window["MaximumWindowInMinutes"] <= _LONGEST_WINDOW:
        raise Refused("ValidationException", f"MaximumWindowInMinutes is 1 to {_LONGEST_WINDOW}.")
    start, end = doc.get("StartDate"), doc.get("EndDate")
    if end is not None and (end <= now or (start is not None and end <= start)):
        raise Refused("ValidationException", "The EndDate must be in the future, and after the StartDate.")
    doc["Target"] = checked(a.calls.registry, doc["Target"], a.region)
    return doc


def following(doc: dict[str, Any], after: Instant, made: Instant) -> Instant | None:
    """When a schedule is due behind `after`; None if never again. made: when a rate began, without a StartDate."""
    held = Schedule.of(doc["ScheduleExpression"])
    start, end = doc.get("StartDate"), doc.get("EndDate")
    first = start if start is not None else made + held.every
    if held.clocked and start is not None:
        after = max(after, start - 1)
    due = held.following(after, start=first, zone=zone(doc["ScheduleExpressionTimezone"]))
    return due if due is not None and (end is None or due <= end) else None


def arrange(tx: Transaction, row: Row, after: Instant) -> bool:
    """Notes when a schedule is due behind `after`; False if never again. Whoever calls saves the row."""
    undo(tx, row)
    due = following(row.doc, after, row.doc["_made"])
    row.doc["_at"] = due
    if due is None or row.doc["State"] != "ENABLED":
        return due is not None
    window = row.doc["FlexibleTimeWindow"].get("MaximumWindowInMinutes") or 0
    fire = due + secrets.randbelow(window * 60 * MICROS) if window else due
    name = f"{fire:020d}|{SCHEDULE.arn(row.account, row.region, row.name)}"
    tx.insert(Row(DUE, "", "", name, {}), keep=False)
    row.doc["_index"] = name
    return True


@SCHEDULE.operation("CreateSchedule", asks=[Ask("scheduler:CreateSchedule", _this), *_PUT], before=_trusted)
def create(a: Authorised, tx: Transaction) -> Output:
    group = a.input.get("GroupName") or DEFAULT
    name = f"{group}/{a.input['Name']}"

    def make() -> Output:
        exists(tx, a.account, a.region, group)
        doc = _doc(a, tx.now) | {"_made": tx.now, "_index": ""}
        row = Row(SCHEDULE.key, a.account, a.region, name, doc)
        if SCHEDULE.get(tx, a.account, a.region, name) is not None:
            raise Refused("ConflictException", f"Schedule {a.input['Name']} already exists.", 409)
        if not arrange(tx, row, tx.now - 1 if Schedule.of(doc["ScheduleExpression"]).once else tx.now):
            raise Refused("ValidationException", "Invalid Schedule Expression: it has no time that is still to come.")
        SCHEDULE.insert(tx, row, a.operation.name, a.request.id)
        return {"ScheduleArn": SCHEDULE.arn(a.account, a.region, name)}

    return once(a, tx, a.input.get("ClientToken"), make)


@SCHEDULE.operation("UpdateSchedule", asks=[Ask("scheduler:UpdateSchedule", _this), *_PUT], before=_trusted)
def update(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)

    def make() -> Output:
        row.doc = _doc(a, tx.now) | {"_made": tx.now, "_index": row.doc.get("_index", "")}
        if not arrange(tx, row, tx.now):
            raise Refused("ValidationException", "Invalid Schedule Expression: it has no time that is still to come.")
        SCHEDULE.change(tx, row, a.operation.name, a.request.id)
        return {"ScheduleArn": SCHEDULE.arn(a.account, a.region, row.name)}

    return once(a, tx, a.input.get("ClientToken"), make)


@SCHEDULE.operation("DeleteSchedule", asks=[Ask("scheduler:DeleteSchedule", _this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    drop(tx, _row(a, tx), a.operation.name, a.request.id)
    return {}


@SCHEDULE.reads("GetSchedule", asks=[Ask("scheduler:GetSchedule", _this)])
def get(a: Authorised, view: View) -> Output:
    row = _row(a, view)
    group, _, name = row.name.partition("/")
    told = {key: value for key, value in row.doc.items() if key[0] != "_"}
    return {
        **told, "Arn": SCHEDULE.arn(row.account, row.region, row.name), "GroupName": group, "Name": name,
        "CreationDate": row.created, "LastModificationDate": row.modified,
    }  # fmt: skip


@SCHEDULE.reads("ListSchedules", asks=[Ask("scheduler:ListSchedules", anything)])
def listed(a: Authorised, view: View) -> Output:
    given, limit = a.input, int(a.input.get("MaxResults") or _PAGE)
    after, group = pages.position(a, given.get("NextToken")), given.get("GroupName")
    if group:
        exists(view, a.account, a.region, group)
    wanted, names = given.get("State"), given.get("NamePrefix") or ""
    prefix = f"{group}/{names}" if group else ""
    found: list[Output] = []
    while True:
        rows = view.scan(SCHEDULE.key, a.account, a.region, prefix=prefix, after=after, limit=limit + 1)
        for row in rows:
            if len(found) == limit:
                return {"Schedules": found, "NextToken": pages.seal(a, after)}
            after = row.name
            inside, _, name = row.name.partition("/")
            if name.startswith(names) and wanted in (None, row.doc["State"]):
                found.append(
                    {
                        "Arn": SCHEDULE.arn(row.account, row.region, row.name), "GroupName": inside, "Name": name,
                        "State": row.doc["State"], "CreationDate": row.created, "LastModificationDate": row.modified,
                        "Target": {"Arn": row.doc["Target"]["Arn"]},
                    }
                )  # fmt: skip
        if len(rows) <= limit:
            return {"Schedules": found}
