"""Event source mappings: functions that are given what lies in a queue.

Source: AWS Lambda API Reference, CreateEventSourceMapping; Lambda Developer Guide, "Using Lambda with Amazon SQS".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Calls, Output, anything, pages
from bastide.services.lambda_.asynchronous import queue_url
from bastide.services.lambda_.noun import MAPPING, Named, find, invalid, limit_of, read, resolved
from bastide.services.lambda_.session import RoleSession
from bastide.store import Row, Transaction, View

INDEX: Final = "lambda:Mapping"
"""Rows of no account, named by the ARN: all mappings there are."""
_UNSUPPORTED: Final = (
    "FilterCriteria", "KMSKeyArn", "MetricsConfig", "LoggingConfig", "ParallelizationFactor", "StartingPosition",
    "StartingPositionTimestamp", "DestinationConfig", "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError",
    "MaximumRetryAttempts", "TumblingWindowInSeconds", "Topics", "Queues", "SourceAccessConfigurations",
    "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig", "ProvisionedPollerConfig",
)  # fmt: skip
_MOST_TAGS: Final = 50


def _function(asked: Asked) -> str | None:
    """The function's ARN that a request names, or the mapping that it names has."""
    given = asked.input.get("FunctionName")
    if given:
        return read(str(given), asked.call.account, asked.call.region).arn
    id = asked.input.get("UUID")
    row = MAPPING.get(asked.view, asked.call.account, asked.call.region, str(id)) if id else None
    return str(row.doc["FunctionArn"]) if row is not None else None


def _any_mapping(asked: Asked) -> Iterable[str]:
    """A mapping that has no id yet."""
    return (MAPPING.arn(asked.call.account, asked.call.region, "*"),)


_GIVEN: Final = {"lambda:FunctionArn": _function}


def queue(given: Any) -> Arn:
    """The queue of a mapping; raises Refused for another source."""
    try:
        arn = Arn.parse(str(given or ""))
    except ValueError:
        raise invalid("EventSourceArn is needed: the ARN of a queue of SQS.") from None
    if arn.service != "sqs":
        raise invalid(f"Unrecognized event source: {arn.service} is not supported by Bastide yet, queues of SQS are.")
    return arn


def session_of(calls: Calls, what: Named, role: str) -> RoleSession:
    """The function's role."""
    return RoleSession(calls, role, what.name, account=what.account, region=what.region, source_arn=what.function)


async def _look(a: Authorised) -> None:
    """The queue must be there, the role able to read it, and messages hidden as long as the function may take."""
    arn = queue(a.input.get("EventSourceArn"))
    what = read(str(a.input["FunctionName"]), a.account, a.region)
    with a.calls.store.reading() as view:
        _, doc, _ = resolved(view, what)
    if ("sqs", "ReceiveMessage") not in a.calls.registry.operations:
        raise invalid("There are no queues here: SQS does not exist in Bastide yet.")
    if arn.region != a.region:
        raise invalid("The queue is of another region.")
    try:
        asked = {"QueueUrl": queue_url(arn), "AttributeNames": ["VisibilityTimeout"]}
        found = await session_of(a.calls, what, str(doc["Role"])).act("sqs", "GetQueueAttributes", asked)
    except Refused as refused:
        if "NonExistentQueue" in refused.code or "QueueDoesNotExist" in refused.code:
            raise invalid(
                "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error "
                f"Message: {refused.message}"
            ) from None
        raise invalid(
            f"The provided execution role does not have permissions to call ReceiveMessage on SQS: {refused.message}"
        ) from None
    hidden = int((found.get("Attributes") or {}).get("VisibilityTimeout") or 30)
    if hidden < int(doc["Timeout"]):
        raise invalid(
            f"Queue visibility timeout: {hidden} seconds is less than Function timeout: {doc['Timeout']} seconds"
        )


def _put(doc: dict[str, Any], given: Mapping[str, Any]) -> None:
    for member in _UNSUPPORTED:
        if given.get(member):
            raise invalid(f"{member} is not supported by Bastide for queues of SQS.")
    for member in ("BatchSize", "MaximumBatchingWindowInSeconds", "FunctionResponseTypes"):
        if given.get(member) is not None:
            doc[member] = given[member]
    if given.get("ScalingConfig") is not None:
        doc["ScalingConfig"] = dict(given["ScalingConfig"])
    if int(doc["BatchSize"]) > 10 and not doc["MaximumBatchingWindowInSeconds"]:
        raise invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
    if queue(doc["EventSourceArn"]).resource.endswith(".fifo") and (
        int(doc["BatchSize"]) > 10 or doc["MaximumBatchingWindowInSeconds"]
    ):
        raise invalid("Batching window is not supported for FIFO queues, and BatchSize is at most 10.")


def _shown(row: Row, *, state: str = "") -> Output:
    told = {"FunctionResponseTypes": [], **{name: value for name, value in row.doc.items() if name[0] != "_"}}
    told |= {
        "UUID": row.name,
        "State": state or row.status,
        "LastModified": row.modified,
        "EventSourceMappingArn": MAPPING.arn(row.account, row.region, row.name),
    }
    return told


@MAPPING.operation(
    "CreateEventSourceMapping",
    asks=[
        Ask("lambda:CreateEventSourceMapping", anything, given=_GIVEN),
        Ask("lambda:TagResource", _any_mapping, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
    before=_look,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    what = read(str(given["FunctionName"]), a.account, a.region)
    if what.account != a.account:
        raise Refused("AccessDeniedException", "A mapping is of a function of the caller's own account.", 403)
    resolved(tx, what)
    arn = str(queue(given["EventSourceArn"]))
    after: str | None = None
    while rows := tx.scan(MAPPING.key, a.account, a.region, after=after, limit=500):
        for row in rows:
            if row.doc["EventSourceArn"] == arn and row.doc["FunctionArn"] == what.arn:
                raise Refused(
                    "ResourceConflictException",
                    f"An event source mapping with SQS arn ({arn}) and function ({what.arn}) already exists. Please update "
                    f"or delete the existing mapping with UUID {row.name}",
                    409,
                )
        after = rows[-1].name
    tags = {str(key): str(value) for key, value in (given.get("Tags") or {}).items()}
    if len(tags) > _MOST_TAGS:
        raise invalid(f"A resource may have at most {_MOST_TAGS} tags.")
    doc: dict[str, Any] = {
        "EventSourceArn": arn,
        "FunctionArn": what.arn,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "StateTransitionReason": "USER_INITIATED",
        "_enabled": given.get("Enabled") is not False,
    }
    _put(doc, given)
    row = MAPPING.create(a, tx, str(uuid.uuid4()), doc, status="Enabled" if doc["_enabled"] else "Disabled", tags=tags)
    tx.insert(Row(INDEX, "", "", MAPPING.arn(a.account, a.region, row.name), {}), keep=False)
    return _shown(row, state="Creating")


def _named(a: Authorised, view: View) -> Row:
    return MAPPING.find(view, a.account, a.region, str(a.input["UUID"]))


@MAPPING.reads("GetEventSourceMapping", asks=[Ask("lambda:GetEventSourceMapping", MAPPING.this, given=_GIVEN)])
def get(a: Authorised, view: View) -> Output:
    return _shown(_named(a, view))


@MAPPING.operation(
    "UpdateEventSourceMapping", asks=[Ask("lambda:UpdateEventSourceMapping", MAPPING.this, given=_GIVEN)]
)
def update(a: Authorised, tx: Transaction) -> Output:
    row, given = _named(a, tx), a.input
    if given.get("FunctionName"):
        what = read(str(given["FunctionName"]), a.account, a.region)
        if what.account != a.account:
            raise Refused("AccessDeniedException", "A mapping is of a function of the caller's own account.", 403)
        find(tx, what)
        resolved(tx, what)
        row.doc["FunctionArn"] = what.arn
    _put(row.doc, given)
    if given.get("Enabled") is not None:
        row.doc["_enabled"] = bool(given["Enabled"])
        row.status = "Enabled" if row.doc["_enabled"] else "Disabled"
    MAPPING.change(tx, row, a.operation.name, a.request.id)
    return _shown(row, state="Updating")


@MAPPING.operation(
    "DeleteEventSourceMapping", asks=[Ask("lambda:DeleteEventSourceMapping", MAPPING.this, given=_GIVEN)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _named(a, tx)
    MAPPING.remove(tx, row, a.operation.name, a.request.id)
    held = tx.get(INDEX, "", "", MAPPING.arn(row.account, row.region, row.name))
    if held is not None:
        tx.delete(held, keep=False)
    return _shown(row, state="Deleting")


def _fits(row: Row, source: str | None, function: Named | None) -> bool:
    if source and row.doc["EventSourceArn"] != source:
        return False
    if function is None:
        return True
    held = str(row.doc["FunctionArn"])
    return held == function.arn or (not function.qualifier and held.startswith(f"{function.function}:"))


@MAPPING.reads("ListEventSourceMappings", asks=[Ask("lambda:ListEventSourceMappings", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit, source = limit_of(a, 100), a.input.get("EventSourceArn")
    given = a.input.get("FunctionName")
    function = read(str(given), a.account, a.region) if given else None
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    found: list[Output] = []
    while True:
        rows = view.scan(MAPPING.key, a.account, a.region, after=after, limit=limit + 1)
        for row in rows:
            if len(found) == limit:
                return {"EventSourceMappings": found, "NextMarker": pages.seal(a, after)}
            after = row.name
            if _fits(row, source, function):
                found.append(_shown(row))
        if len(rows) <= limit:
            return {"EventSourceMappings": found}


def all_of(view: View) -> Iterable[Row]:
    """Every mapping there is."""
    after: str | None = None
    while held := view.scan(INDEX, "", "", after=after, limit=500):
        for one in held:
            row = MAPPING.get(view, *MAPPING.locate(one.name, "", ""))
            if row is not None:
                yield row
        after = held[-1].name
