"""Rules and their targets.

Source: Amazon EventBridge API Reference, PutRule, PutTargets, Target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, each, pages, tags_of
from bastide.kernel.kind import Given
from bastide.kernel.pattern import Pattern
from bastide.services.events.bus import DEFAULT, bus_arn, bus_name
from bastide.services.events.schedule import Schedule
from bastide.services.events.target import checked
from bastide.store import Row, Transaction, View

RULE: Final = Kind(
    "Rule",
    service="events",
    arn="rule/{}",
    named_by="Name",
    missing=("ResourceNotFoundException", "Rule {name} does not exist.", 400),
)
"""A rule of another bus than the default one is named ``BUS/RULE``, as its ARN is."""
SCHEDULES: Final = "events:ScheduleIndex"
"""Under account "": ARNs of rules with a schedule, and when each was last due."""
WITH_READS: Final = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
"""The state of a rule that gets calls, too, that only read."""
_STATES: Final = (None, "ENABLED", "DISABLED", WITH_READS)
_MOST_RULES: Final = 300
_MOST_TARGETS: Final = 5


def _key(bus: str, name: str) -> str:
    return name if bus == DEFAULT else f"{bus}/{name}"


def _this(member: str) -> Any:
    def about(asked: Asked) -> Iterable[str]:
        _, _, bus = bus_arn(asked, asked.input.get("EventBusName")).partition("event-bus/")
        name = _key(bus, str(asked.input.get(member) or "*"))
        return (RULE.arn(asked.call.account, asked.call.region, name),)

    return about


_CREATOR: Final[dict[str, Given]] = {"events:creatorAccount": lambda asked: asked.call.account}
"""Rules are made in their own account alone."""


def _row(a: Authorised, view: View, name: str) -> Row:
    bus = bus_name(a, view, a.input.get("EventBusName"))
    row = RULE.get(view, a.account, a.region, _key(bus, name))
    if row is None:
        raise Refused("ResourceNotFoundException", f"Rule {name} does not exist on EventBus {bus}.")
    return row


def _of_pattern(*path: str) -> Any:
    """Texts that a rule's pattern wants at a place."""

    def read(asked: Asked) -> Sequence[str] | None:
        try:
            held: Any = orjson.loads(asked.input.get("EventPattern") or "{}")
        except orjson.JSONDecodeError:
            return None
        for part in path:
            held = held.get(part) if isinstance(held, dict) else None
        return [one for one in held if isinstance(one, str)] if isinstance(held, list) else None

    return read


@RULE.operation(
    "PutRule",
    asks=[
        Ask(
            "events:PutRule",
            _this("Name"),
            given={
                **_CREATOR,
                "events:source": _of_pattern("source"),
                "events:detail-type": _of_pattern("detail-type"),
                "events:detail.service": _of_pattern("detail", "service"),
                "events:detail.eventTypeCode": _of_pattern("detail", "eventTypeCode"),
                "events:detail.userIdentity.principalId": _of_pattern("detail", "userIdentity", "principalId"),
            },
        ),
        Ask("events:TagResource", _this("Name"), when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def put(a: Authorised, tx: Transaction) -> Output:
    given, bus = a.input, bus_name(a, tx, a.input.get("EventBusName"))
    if given.get("RoleArn"):
        raise Refused("ValidationException", "RoleArn of a rule is not supported; each target has its own.")
    doc: dict[str, Any] = {"EventBusName": bus}
    if not given.get("EventPattern") and not given.get("ScheduleExpression"):
        raise Refused("ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified.")
    if given.get("EventPattern"):
        Pattern(given["EventPattern"])
        doc["EventPattern"] = given["EventPattern"]
    if given.get("ScheduleExpression"):
        if bus != DEFAULT:
            raise Refused("ValidationException", "ScheduleExpression is supported only on the default event bus.")
        Schedule(given["ScheduleExpression"])
        doc["ScheduleExpression"] = given["ScheduleExpression"]
    if given.get("State") not in _STATES:
        raise Refused("ValidationException", f"There is no State {given['State']} of rules.")
    if given.get("Description"):
        doc["Description"] = given["Description"]
    key, status = _key(bus, given["Name"]), given.get("State") or "ENABLED"
    row = RULE.get(tx, a.account, a.region, key)
    if row is None:
        prefix = "" if bus == DEFAULT else f"{bus}/"
        held = tx.scan(RULE.key, a.account, a.region, prefix=prefix, limit=2 * _MOST_RULES)
        if sum(one.doc["EventBusName"] == bus for one in held) >= _MOST_RULES:
            raise Refused("LimitExceededException", f"A bus has at most {_MOST_RULES} rules.")
        RULE.create(a, tx, key, {**doc, "targets": {}}, status=status, tags=tags_of(a))
    else:
        row.doc, row.status = {**doc, "targets": row.doc["targets"]}, status
        RULE.change(tx, row, a.operation.name, a.request.id)
    arn = RULE.arn(a.account, a.region, key)
    _scheduled(tx, arn, bool(doc.get("ScheduleExpression")))
    return {"RuleArn": arn}


def _scheduled(tx: Transaction, arn: str, wanted: bool) -> None:
    held = tx.get(SCHEDULES, "", "", arn)
    if held is not None:
        tx.delete(held, keep=False)
    if wanted:
        tx.insert(Row(SCHEDULES, "", "", arn, {"last": tx.now}), keep=False)


def _shown(row: Row) -> Output:
    told = {name: value for name, value in row.doc.items() if name != "targets"}
    name = row.name.rpartition("/")[2]
    return {"Name": name, "Arn": RULE.arn(row.account, row.region, row.name), "State": row.status, **told}


@RULE.reads("DescribeRule", asks=[Ask("events:DescribeRule", _this("Name"), given=_CREATOR)])
def describe(a: Authorised, view: View) -> Output:
    return {**_shown(_row(a, view, a.input["Name"])), "CreatedBy": a.account}


@RULE.reads("ListRules", asks=[Ask("events:ListRules", anything)])
def listed(a: Authorised, view: View) -> Output:
    bus, limit = bus_name(a, view, a.input.get("EventBusName")), int(a.input.get("Limit") or 100)
    after = pages.position(a, a.input.get("NextToken"))
    prefix = _key(bus, a.input.get("NamePrefix") or "")
    found: list[Output] = []
    while True:
        rows = view.scan(RULE.key, a.account, a.region, prefix=prefix, after=after, limit=limit + 1)
        for row in rows:
            if len(found) == limit:
                return {"Rules": found, "NextToken": pages.seal(a, after)}
            after = row.name
            if row.doc["EventBusName"] == bus:
                found.append(_shown(row))
        if len(rows) <= limit:
            return {"Rules": found}


def _switch(a: Authorised, tx: Transaction, status: str) -> Output:
    row = _row(a, tx, a.input["Name"])
    row.status = status
    RULE.change(tx, row, a.operation.name, a.request.id)
    return {}


@RULE.operation("EnableRule", asks=[Ask("events:EnableRule", _this("Name"), given=_CREATOR)])
def enable(a: Authorised, tx: Transaction) -> Output:
    return _switch(a, tx, "ENABLED")


@RULE.operation("DisableRule", asks=[Ask("events:DisableRule", _this("Name"), given=_CREATOR)])
def disable(a: Authorised, tx: Transaction) -> Output:
    return _switch(a, tx, "DISABLED")


@RULE.operation("DeleteRule", asks=[Ask("events:DeleteRule", _this("Name"), given=_CREATOR)])
def delete(a: Authorised, tx: Transaction) -> Output:
    bus = bus_name(a, tx, a.input.get("EventBusName"))
    row = RULE.get(tx, a.account, a.region, _key(bus, a.input["Name"]))
    if row is None:
        return {}
    if row.doc["targets"]:
        raise Refused("ValidationException", "Rule can't be deleted since it has targets.")
    _scheduled(tx, RULE.arn(row.account, row.region, row.name), False)
    RULE.remove(tx, row, a.operation.name, a.request.id)
    return {}


@RULE.reads("TestEventPattern", asks=[Ask("events:TestEventPattern", anything)])
def test(a: Authorised, view: View) -> Output:
    try:
        event = orjson.loads(a.input["Event"])
    except orjson.JSONDecodeError:
        event = None
    pattern = Pattern(a.input["EventPattern"])
    needed = ("id", "detail-type", "source", "account", "time", "region")
    if not isinstance(event, dict) or any(name not in event for name in needed):
        raise Refused("ValidationException", f"Parameter Event is not valid: it is an object with {', '.join(needed)}.")
    return {"Result": pattern.matches(event)}


# -- targets -----------------------------------------------------------------------------------------------------------


@RULE.operation(
    "PutTargets",
    asks=[
        Ask("events:PutTargets", _this("Rule"), given={**_CREATOR, "events:TargetArn": each("Targets.Arn")}),
        Ask(
            "iam:PassRole",
            lambda asked: [one["RoleArn"] for one in asked.input["Targets"] if one.get("RoleArn")],
            given={
                "iam:PassedToService": lambda _: "events.amazonaws.com",
                "iam:AssociatedResourceArn": lambda asked: list(_this("Rule")(asked)),
            },
        ),
    ],
)
def put_targets(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx, a.input["Rule"])
    targets = dict(row.doc["targets"])
    for one in a.input["Targets"]:
        targets[one["Id"]] = checked(a, one)
    if len(targets) > _MOST_TARGETS:
        raise Refused(
            "LimitExceededException",
            f"The requested resource exceeds the maximum number allowed. A rule has at most {_MOST_TARGETS} targets.",
        )
    row.doc["targets"] = targets
    RULE.change(tx, row, a.operation.name, a.request.id)
    return {"FailedEntryCount": 0, "FailedEntries": []}


@RULE.operation("RemoveTargets", asks=[Ask("events:RemoveTargets", _this("Rule"), given=_CREATOR)])
def remove_targets(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx, a.input["Rule"])
    missing = [id for id in a.input["Ids"] if row.doc["targets"].pop(id, None) is None]
    RULE.change(tx, row, a.operation.name, a.request.id)
    failed = [
        {"TargetId": id, "ErrorCode": "ResourceNotFoundException", "ErrorMessage": "There is none."} for id in missing
    ]
    return {"FailedEntryCount": len(failed), "FailedEntries": failed}


@RULE.reads("ListTargetsByRule", asks=[Ask("events:ListTargetsByRule", _this("Rule"), given=_CREATOR)])
def list_targets(a: Authorised, view: View) -> Output:
    return _page(a, "Targets", list(_row(a, view, a.input["Rule"]).doc["targets"].values()))


def _page(a: Authorised, member: str, found: list[Any]) -> Output:
    start, limit = int(pages.position(a, a.input.get("NextToken")) or 0), int(a.input.get("Limit") or 100)
    output: Output = {member: found[start : start + limit]}
    if len(found) > start + limit:
        output["NextToken"] = pages.seal(a, str(start + limit))
    return output


@RULE.reads("ListRuleNamesByTarget", asks=[Ask("events:ListRuleNamesByTarget", anything)])
def list_names(a: Authorised, view: View) -> Output:
    bus = bus_name(a, view, a.input.get("EventBusName"))
    rows = view.scan(RULE.key, a.account, a.region, prefix=_key(bus, ""), limit=2 * _MOST_RULES)
    names = [
        row.name.rpartition("/")[2]
        for row in rows
        if row.doc["EventBusName"] == bus
        and any(one["Arn"] == a.input["TargetArn"] for one in row.doc["targets"].values())
    ]
    return _page(a, "RuleNames", names)
