"""Replays: what an archive kept comes onto its bus again. Source: Amazon EventBridge API Reference, StartReplay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Calls, Kind, Output, Rounds, anything, pages
from bastide.kernel.happened import EVENTS
from bastide.services.events.archive import ARCHIVE, INDEX, KEPT, PURPOSE, end, moment
from bastide.services.events.bus import BUS, DEFAULT
from bastide.store import Row, Transaction, View

REPLAY: Final = Kind(
    "Replay",
    service="events",
    arn="replay/{}",
    named_by="ReplayName",
    tags=False,
    missing=("ResourceNotFoundException", "Replay {name} does not exist.", 400),
    taken=("ResourceAlreadyExistsException", "Replay {name} already exists.", 400),
)
GOING: Final = "events:Replaying"
"""Under account "": ARNs of replays that are to be gone on with."""
_MOST_GOING: Final = 10
_AT_A_TIME: Final = 200
_PAGE: Final = 100
_ROUND: Final = 60


def _archive(asked: Asked) -> Iterable[str]:
    return (str(asked.input["EventSourceArn"]),)


def _bus(asked: Asked) -> Iterable[str]:
    return (str(asked.input["Destination"]["Arn"]),)


@REPLAY.operation(
    "StartReplay",
    asks=[
        Ask("events:StartReplay", REPLAY.this),
        Ask("events:StartReplay", _archive),
        Ask("events:StartReplay", _bus),
    ],
)
def start(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    account, region, name = ARCHIVE.locate(given["EventSourceArn"], a.account, a.region)
    archive = ARCHIVE.get(tx, account, region, name)
    if archive is None:
        raise Refused(
            "ValidationException", f"Parameter EventSourceArn is not valid. Reason: Archive {name} does not exist."
        )
    if given["EventEndTime"] <= given["EventStartTime"]:
        raise Refused(
            "ValidationException",
            "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.",
        )
    target = given["Destination"]
    if (account, region) != (a.account, a.region) or target["Arn"] != archive.doc["EventSourceArn"]:
        bus = target["Arn"].rpartition("/")[2]
        if bus != DEFAULT and BUS.get(tx, *BUS.locate(target["Arn"], a.account, a.region)) is None:
            raise Refused("ResourceNotFoundException", f"Event bus {bus} does not exist.")
        raise Refused(
            "ValidationException",
            "Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.",
        )
    if (
        len(tx.scan(GOING, "", "", limit=1000)) >= 1000
        or sum(Arn.parse(one.name).account == a.account for one in tx.scan(GOING, "", "", limit=1000)) >= _MOST_GOING
    ):
        raise Refused("LimitExceededException", f"An account has at most {_MOST_GOING} replays at a time.")
    doc: dict[str, Any] = {
        "EventSourceArn": given["EventSourceArn"], "Destination": target, "EventStartTime": given["EventStartTime"],
        "EventEndTime": given["EventEndTime"], "ReplayStartTime": tx.now,
        "_at": f"{archive.name}/{given['EventStartTime']:016x}",
    }  # fmt: skip
    if given.get("Description"):
        doc["Description"] = given["Description"]
    row = REPLAY.create(a, tx, given["ReplayName"], doc, status="STARTING")
    tx.insert(Row(GOING, "", "", REPLAY.arn(a.account, a.region, row.name), {}), keep=False)
    return {
        "ReplayArn": REPLAY.arn(a.account, a.region, row.name), "State": "STARTING", "ReplayStartTime": tx.now,
    }  # fmt: skip


def _shown(row: Row) -> Output:
    told: Output = {
        name: row.doc[name]
        for name in ("EventSourceArn", "EventStartTime", "EventEndTime", "EventLastReplayedTime", "ReplayStartTime",
                     "ReplayEndTime")
        if name in row.doc
    }  # fmt: skip
    return {**told, "ReplayName": row.name, "State": row.status}


@REPLAY.reads("DescribeReplay", asks=[Ask("events:DescribeReplay", REPLAY.this)])
def describe(a: Authorised, view: View) -> Output:
    row = REPLAY.named(a, view)
    more: Output = {name: row.doc[name] for name in ("Description", "Destination") if name in row.doc}
    return {**_shown(row), **more, "ReplayArn": REPLAY.arn(row.account, row.region, row.name)}


@REPLAY.reads("ListReplays", asks=[Ask("events:ListReplays", anything)])
def listed(a: Authorised, view: View) -> Output:
    given, limit = a.input, int(a.input.get("Limit") or _PAGE)
    after = pages.position(a, given.get("NextToken"))
    rows = view.scan(
        REPLAY.key, a.account, a.region, prefix=given.get("NamePrefix") or "", after=after, limit=limit + 1
    )
    wanted = [
        row
        for row in rows[:limit]
        if given.get("EventSourceArn") in (None, row.doc["EventSourceArn"]) and given.get("State") in (None, row.status)
    ]
    output: Output = {"Replays": [_shown(row) for row in wanted]}
    if len(rows) > limit:
        output["NextToken"] = pages.seal(a, rows[limit - 1].name)
    return output


@REPLAY.operation("CancelReplay", asks=[Ask("events:CancelReplay", REPLAY.this)])
def cancel(a: Authorised, tx: Transaction) -> Output:
    row = REPLAY.named(a, tx)
    if row.status not in ("STARTING", "RUNNING"):
        raise Refused("IllegalStatusException", f"Replay {row.name} is not in a valid state for this operation.")
    row.status = "CANCELLING"
    REPLAY.change(tx, row, a.operation.name, a.request.id)
    return {"ReplayArn": REPLAY.arn(row.account, row.region, row.name), "State": row.status}


# -- going on ----------------------------------------------------------------------------------------------------------


class Archivist(Rounds):
    """Goes on with replays, and ends what archives need not keep."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._rounds = 0

    async def round(self) -> None:
        """See the base."""
        write = self._calls.store.write
        await self.each(GOING, lambda name: write(lambda tx: self._piece(tx, name)))
        if self._rounds % _ROUND == 0:
            await self.each(INDEX, lambda name: write(lambda tx: end(self._calls, tx, Arn.parse(name))))
        self._rounds += 1

    def _piece(self, tx: Transaction, name: str) -> bool:
        """Replays some events, in one transaction with how far it came; whether there are more."""
        arn = Arn.parse(name)
        held, row = tx.get(GOING, "", "", name), REPLAY.get(tx, arn.account, arn.region, arn.name)
        if held is None or row is None:
            return False
        archive = row.doc["EventSourceArn"].rpartition("/")[2]
        rows: list[Row] = []
        if row.status != "CANCELLING":
            bound = f"{archive}/{row.doc['EventEndTime'] + 1:016x}"
            rows = tx.scan(KEPT, row.account, row.region, prefix=f"{archive}/", after=row.doc["_at"], limit=_AT_A_TIME)
            rows = [one for one in rows if one.name < bound]
        for one in rows:
            event = orjson.loads(self._calls.sealer.open(one.doc["x"], PURPOSE))
            told = {**event, "replay-name": row.name, "_bus": row.doc["Destination"]["Arn"]}
            if row.doc["Destination"].get("FilterArns"):
                told["_rules"] = row.doc["Destination"]["FilterArns"]
            tx.emit(EVENTS, told)
            row.doc |= {"_at": one.name, "EventLastReplayedTime": moment(event)}
        more = len(rows) == _AT_A_TIME
        if more:
            row.status = "RUNNING"
        else:
            row.status = "CANCELLED" if row.status == "CANCELLING" else "COMPLETED"
            row.doc["ReplayEndTime"] = tx.now
            tx.delete(held, keep=False)
        REPLAY.change(tx, row, "ReplayStateChange")
        return more
