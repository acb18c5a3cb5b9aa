"""Groups of schedules, and their tags. Source: EventBridge Scheduler API Reference, CreateScheduleGroup.

Every account has the group `default` in every region; it needs no row and has no tags.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Arn, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, once, pages, tags_of
from bastide.store import Row, Transaction, View

DEFAULT: Final = "default"
GROUP: Final = Kind(
    "ScheduleGroup",
    service="scheduler",
    arn="schedule-group/{}",
    named_by="Name",
    missing=("ResourceNotFoundException", "Schedule group {name} does not exist.", 404),
    taken=("ConflictException", "Schedule group {name} already exists.", 409),
)
SCHEDULES: Final = "scheduler:Schedule"
DUE: Final = "scheduler:Due"
"""Under account "": ``TIME|SCHEDULE ARN``, when each is due next."""
_MOST_GROUPS: Final = 500
_PAGE: Final = 100


def drop(tx: Transaction, row: Row, event: str, request_id: str = "") -> None:
    """Takes a schedule away, and when it would be due."""
    undo(tx, row)
    tx.delete(row, event=event, request_id=request_id)


def undo(tx: Transaction, row: Row) -> None:
    """Takes away when a schedule is due."""
    held = tx.get(DUE, "", "", row.doc["_index"]) if row.doc.get("_index") else None
    if held is not None:
        tx.delete(held, keep=False)
    row.doc["_index"] = ""


def exists(view: View, account: str, region: str, name: str) -> None:
    """Raises ResourceNotFoundException for a group that is not there."""
    if name != DEFAULT:
        GROUP.find(view, account, region, name)


@GROUP.operation(
    "CreateScheduleGroup",
    asks=[
        Ask("scheduler:CreateScheduleGroup", GROUP.this),
        Ask("scheduler:TagResource", GROUP.this, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["Name"]

    def make() -> Output:
        if name == DEFAULT:
            raise Refused("ConflictException", "Schedule group default already exists.", 409)
        if len(tx.scan(GROUP.key, a.account, a.region, limit=_MOST_GROUPS)) >= _MOST_GROUPS:
            raise Refused(
                "ServiceQuotaExceededException", f"An account has at most {_MOST_GROUPS} schedule groups.", 402
            )
        GROUP.create(a, tx, name, {}, status="ACTIVE", tags=tags_of(a))
        return {"ScheduleGroupArn": GROUP.arn(a.account, a.region, name)}

    return once(a, tx, a.input.get("ClientToken"), make)


def _shown(account: str, region: str, name: str, row: Row | None) -> Output:
    told: Output = {"Arn": GROUP.arn(account, region, name), "Name": name, "State": "ACTIVE"}
    if row is not None:
        told |= {"CreationDate": row.created, "LastModificationDate": row.modified}
    return told


@GROUP.reads("GetScheduleGroup", asks=[Ask("scheduler:GetScheduleGroup", GROUP.this)])
def get(a: Authorised, view: View) -> Output:
    name = a.input["Name"]
    exists(view, a.account, a.region, name)
    return _shown(a.account, a.region, name, GROUP.get(view, a.account, a.region, name))


@GROUP.reads("ListScheduleGroups", asks=[Ask("scheduler:ListScheduleGroups", anything)])
def listed(a: Authorised, view: View) -> Output:
    prefix, limit = a.input.get("NamePrefix") or "", int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"))
    rows = {row.name: row for row in view.scan(GROUP.key, a.account, a.region, limit=_MOST_GROUPS)}
    names = sorted(name for name in {DEFAULT, *rows} if name.startswith(prefix) and (after is None or name > after))
    output: Output = {"ScheduleGroups": [_shown(a.account, a.region, name, rows.get(name)) for name in names[:limit]]}
    if len(names) > limit:
        output["NextToken"] = pages.seal(a, names[limit - 1])
    return output


def _schedules(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:scheduler:{asked.call.region}:{asked.call.account}:schedule/{asked.input['Name']}/*",)


@GROUP.operation(
    "DeleteScheduleGroup",
    asks=[Ask("scheduler:DeleteScheduleGroup", GROUP.this), Ask("scheduler:DeleteSchedule", _schedules)],
)
def delete(a: Authorised, tx: Transaction) -> Output:
    if a.input["Name"] == DEFAULT:
        raise Refused("ValidationException", "The default schedule group cannot be deleted.")
    row = GROUP.find(tx, a.account, a.region, a.input["Name"])
    while rows := tx.scan(SCHEDULES, a.account, a.region, prefix=f"{row.name}/", limit=500):
        for one in rows:
            drop(tx, one, a.operation.name, a.request.id)
    GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ResourceArn"]),)


def _row(a: Authorised, view: View) -> Row:
    try:
        arn = Arn.parse(a.input["ResourceArn"])
        row = GROUP.get(view, *GROUP.locate(str(arn), a.account, a.region))
    except ValueError:
        row = None
    if row is None or row.account != a.account:
        raise Refused("ResourceNotFoundException", f"{a.input['ResourceArn']} does not exist or has no tags.", 404)
    return row


@GROUP.operation("TagResource", asks=[Ask("scheduler:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {**row.tags, **tag_map(a.input["Tags"])}
    if len(row.tags) > 50:
        raise Refused("ValidationException", "A resource may have at most 50 tags.")
    GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


@GROUP.operation("UntagResource", asks=[Ask("scheduler:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


@GROUP.reads("ListTagsForResource", asks=[Ask("scheduler:ListTagsForResource", _tagged)])
def list_tags(a: Authorised, view: View) -> Output:
    return {"Tags": tag_list(_row(a, view).tags)}
