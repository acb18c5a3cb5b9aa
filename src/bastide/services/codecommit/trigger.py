"""Triggers: what is sent to topics and functions when references move.

Source: AWS CodeCommit User Guide, "Manage triggers for a repository"; API Reference, PutRepositoryTriggers.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from bastide.domain import MICROS, Arn, Instant, Refused, iso, new_id
from bastide.kernel import Authorised, Calls, Output, service_caller
from bastide.kernel.deliveries import Deliveries
from bastide.kernel.outbox import Outbox
from bastide.services.codecommit.noun import HEADS, PRINCIPAL, REPOSITORY, arn_of, asks, named, refused
from bastide.store import Row, Transaction, View

if TYPE_CHECKING:
    from bastide.services.codecommit.moving import Move

_log = logging.getLogger("bastide.codecommit")
_TOPIC: Final = "codecommit:Trigger"
_KIND: Final = "codecommit:Telling"
_MOST: Final = 10
_MOST_BRANCHES: Final = 10
_MOST_ATTEMPTS: Final = 20
_LONGEST_PAUSE: Final = 300
_FINAL: Final = (
    "AuthorizationError", "AccessDenied", "NotFound", "ResourceNotFound", "Invalid", "KMS", "Kms",
)  # fmt: skip
_EVENTS: Final = {"createReference": "created", "deleteReference": "deleted", "updateReference": ""}


def _checked(a: Authorised) -> list[dict[str, Any]]:
    """The triggers of the call; raises Refused for what is none."""
    given: list[dict[str, Any]] = a.input["triggers"]
    if len(given) > _MOST:
        raise refused("MaximumRepositoryTriggersExceeded", f"A repository has {_MOST} triggers at most.")
    names = set()
    for one in given:
        name, destination = str(one["name"]), str(one["destinationArn"])
        if not 1 <= len(name) <= 100 or not all(c.isalnum() or c in "-_." for c in name) or name in names:
            raise refused("InvalidRepositoryTriggerName", "Names of triggers differ, and have letters, digits and -_.")
        names.add(name)
        try:
            arn: Arn | None = Arn.parse(destination)
        except ValueError:
            arn = None
        if arn is None or arn.service not in ("sns", "lambda"):
            raise refused(
                "InvalidRepositoryTriggerDestinationArn", "destinationArn is the ARN of a topic or a function."
            )
        if arn.region != a.region:
            raise refused("InvalidRepositoryTriggerRegion", "The topic or function is in the repository's region.")
        if len(str(one.get("customData") or "")) > 1000:
            raise refused("InvalidRepositoryTriggerCustomData", "customData has 1000 characters at most.")
        if len(one.get("branches") or ()) > _MOST_BRANCHES:
            raise refused("MaximumBranchesExceeded", f"A trigger names {_MOST_BRANCHES} branches at most.")
        if not one["events"]:
            raise refused("RepositoryTriggerEventsListRequired", "A trigger needs at least one event.")
        if "all" in one["events"] and len(one["events"]) > 1:
            raise refused("InvalidRepositoryTriggerEvents", "Beside all there is no other event.")
    return given


@REPOSITORY.operation("PutRepositoryTriggers", asks=asks("PutRepositoryTriggers"))
def put(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    id = str(uuid.uuid4())
    row.doc["triggers"] = {"id": id, "list": _checked(a)}
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {"configurationId": id}


@REPOSITORY.reads("GetRepositoryTriggers", asks=asks("GetRepositoryTriggers"))
def get(a: Authorised, view: View) -> Output:
    held = named(a, view).doc.get("triggers")
    if held is None:
        return {"triggers": []}
    return {"configurationId": held["id"], "triggers": held["list"]}


# -- what is sent --------------------------------------------------------------------------------------------------------


def _message(
    row: Row, one: dict[str, Any], id: str, references: Sequence[dict[str, Any]], by: str, at: Instant
) -> Output:
    record = {
        "awsRegion": row.region,
        "codecommit": {"references": list(references)},
        "eventId": new_id(),
        "eventName": "ReferenceChanges",
        "eventPartNumber": 1,
        "eventSource": "aws:codecommit",
        "eventSourceARN": arn_of(row),
        "eventTime": f"{iso(at, fraction=True)[:23]}+0000",
        "eventTotalParts": 1,
        "eventTriggerConfigId": id,
        "eventTriggerName": one["name"],
        "eventVersion": "1.0",
        "userIdentityARN": by,
    }
    if one.get("customData"):
        record["customData"] = one["customData"]
    return {"Records": [record]}


def happened(a: Authorised, tx: Transaction, row: Row, moves: Sequence[Move]) -> None:
    """Puts what triggers are to be told into the outbox."""
    held = row.doc.get("triggers") or {"list": ()}
    for one in held["list"]:
        references = [found for found in (_reference(one, move) for move in moves) if found is not None]
        if references:
            message = _message(row, one, held["id"], references, a.caller.arn, tx.now)
            tx.emit(
                _TOPIC,
                {
                    "id": message["Records"][0]["eventId"], "account": row.account, "repository": arn_of(row),
                    "name": row.name, "destination": one["destinationArn"], "message": message,
                },
            )  # fmt: skip


def _reference(one: dict[str, Any], move: Move) -> dict[str, Any] | None:
    """What a trigger is told of a move, if it is told."""
    event = "updateReference" if move.before and move.after else "createReference" if move.after else "deleteReference"
    if "all" not in one["events"] and event not in one["events"]:
        return None
    branches = one.get("branches") or ()
    if branches and move.name.removeprefix(HEADS) not in branches:
        return None
    found: dict[str, Any] = {"commit": move.after or move.before, "ref": move.name}
    if _EVENTS[event]:
        found[_EVENTS[event]] = True
    return found


async def _send(calls: Calls, doc: dict[str, Any]) -> None:
    """Sends once; raises Refused as the destination does."""
    destination = str(doc["destination"])
    arn, text = Arn.parse(destination), orjson.dumps(doc["message"]).decode()
    given: dict[str, Any]
    if arn.service == "sns":
        operation = "Publish"
        given = {
            "TopicArn": destination,
            "Message": text,
            "Subject": f"UPDATE: AWS CodeCommit {arn.region} {doc['name']}"[:100],
        }
    else:
        operation = "Invoke"
        given = {"FunctionName": destination, "InvocationType": "Event", "Payload": text.encode()}
    caller = service_caller(PRINCIPAL, doc["account"], doc["repository"])
    await calls.act(caller, arn.service, operation, given, region=arn.region, source=PRINCIPAL)


async def _tried(a: Authorised) -> Output:
    with a.calls.store.reading() as view:
        row = named(a, view)
    failed, fine = [], []
    default = f"{HEADS}{row.doc.get('default') or 'main'}"
    for one in _checked(a):
        sample = [{"commit": "0" * 40, "ref": default}]
        message = _message(row, one, str(uuid.uuid4()), sample, a.caller.arn, a.now // MICROS * MICROS)
        doc = {
            "destination": one["destinationArn"], "message": message, "name": row.name, "account": row.account,
            "repository": arn_of(row),
        }  # fmt: skip
        try:
            await _send(a.calls, doc)
            fine.append(one["name"])
        except Refused as refusal:
            failed.append({"trigger": one["name"], "failureMessage": f"{refusal.message} ({refusal.code})"})
    return {"successfulExecutions": fine, "failedExecutions": failed}


@REPOSITORY.reads("TestRepositoryTriggers", asks=asks("TestRepositoryTriggers"), before=_tried)
def test(a: Authorised, _: View) -> Output:
    found: Output = a.staged
    return found


class Triggers:
    """Delivers what the outbox tells, in CodeCommit's own name: the policies of topics and functions decide."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._deliveries = Deliveries(calls, _KIND, self._attempt, self._pause, self._give_up)

    def subscribe(self, outbox: Outbox) -> None:
        """Hears what is to be told."""
        outbox.subscribe(_TOPIC, self._heard)

    def start(self) -> None:
        """Delivers from now on, with what an earlier run left."""
        self._deliveries.start()

    async def close(self) -> None:
        """Ends; what is not delivered waits for the next start."""
        await self._deliveries.close()

    async def _heard(self, body: dict[str, Any]) -> None:
        def work(tx: Transaction) -> Any:
            return self._deliveries.put(tx, body["id"], body)

        self._deliveries.wake([await self._calls.store.write(work)])

    async def _attempt(self, doc: dict[str, Any]) -> None:
        await _send(self._calls, doc)

    def _pause(self, doc: dict[str, Any], refused: Refused, _: Instant) -> float | None:
        if refused.code.startswith(_FINAL) or doc["attempts"] >= _MOST_ATTEMPTS:
            return None
        return float(min(2 ** min(doc["attempts"], 20), _LONGEST_PAUSE))

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        _log.warning("%s could not be told of %s: %s", doc["destination"], doc["repository"], refused)
