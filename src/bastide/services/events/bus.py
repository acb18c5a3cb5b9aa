"""Event buses: their policies, and what is put on them.

Every account has a bus `default` in every region, which needs no row; it has one when it has a policy or tags.
Source: Amazon EventBridge API Reference, CreateEventBus, PutEvents, PutPermission.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused, iso, new_id, tag_list
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages, principals, tags_of
from bastide.kernel.happened import EVENTS
from bastide.policy import Attached, Document, Form
from bastide.store import Row, Transaction, View

DEFAULT: Final = "default"
BUS: Final = Kind(
    "EventBus",
    service="events",
    arn="event-bus/{}",
    named_by="Name",
    missing=("ResourceNotFoundException", "Event bus {name} does not exist.", 400),
    taken=("ResourceAlreadyExistsException", "Event bus {name} already exists.", 400),
)
RULE_KEY: Final = "events:Rule"
FORWARDED: Final = "bastide:event"
"""In the context of a call by a rule that sends on: the event as it is."""
_NAME: Final = re.compile(r"[.\-_A-Za-z0-9]{1,256}")
_MOST_BUSES: Final = 100
_MOST_POLICY: Final = 10_240
_MOST_EVENT: Final = 262_144


def _policy_of(_: View, row: Row) -> Attached | None:
    text = row.doc.get("_policy")
    if not text:
        return None
    return Attached(
        Document.parse(text, Form.RESOURCE, max_bytes=_MOST_POLICY), BUS.arn(row.account, row.region, row.name)
    )


BUS.policy_of = _policy_of


def bus_arn(asked: Asked, given: str | None) -> str:
    """The ARN of the bus that a request names by name, by ARN or not at all."""
    name = given or DEFAULT
    return name if name.startswith("arn:") else BUS.arn(asked.call.account, asked.call.region, name)


def bus_name(a: Authorised, view: View, given: str | None) -> str:
    """The name of a bus of the caller's own that exists; raises Refused."""
    account, region, name = BUS.locate(given or DEFAULT, a.account, a.region)
    if (account, region) != (a.account, a.region):
        raise Refused("ValidationException", "The event bus is of another account or region.")
    if name != DEFAULT:
        BUS.find(view, account, region, name)
    return name


def _named(asked: Asked) -> Iterable[str]:
    return (bus_arn(asked, asked.input.get("Name")),)


@BUS.operation("CreateEventBus", asks=[Ask("events:CreateEventBus", _named)])
def create(a: Authorised, tx: Transaction) -> Output:
    for member in ("EventSourceName", "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig"):
        if a.input.get(member):
            raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
    name = a.input["Name"]
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise Refused("ValidationException", "A bus's name has letters, digits, . - and _, and is not `default`.")
    if len(tx.scan(BUS.key, a.account, a.region, limit=_MOST_BUSES)) >= _MOST_BUSES:
        raise Refused("LimitExceededException", f"An account has at most {_MOST_BUSES} event buses in a region.")
    doc = {"Description": a.input["Description"]} if a.input.get("Description") else {}
    BUS.create(a, tx, name, doc, tags=tags_of(a))
    return {"EventBusArn": BUS.arn(a.account, a.region, name), **doc}


def _shown(view: View, account: str, region: str, name: str, row: Row | None) -> Output:
    told: Output = {"Name": name, "Arn": BUS.arn(account, region, name)}
    if row is not None:
        told |= {"CreationTime": row.created, "LastModifiedTime": row.modified}
        if "Description" in row.doc:
            told["Description"] = row.doc["Description"]
        if row.doc.get("_policy"):
            told["Policy"] = principals.shown(view, row.doc["_policy"], row.doc.get("_principals", {}))
    return told


@BUS.operation("UpdateEventBus", asks=[Ask("events:UpdateEventBus", _named)])
def update(a: Authorised, tx: Transaction) -> Output:
    for member in ("KmsKeyIdentifier", "DeadLetterConfig", "LogConfig"):
        if a.input.get(member):
            raise Refused("ValidationException", f"{member} is not supported by Bastide yet.")
    row = _row(a, tx, a.input.get("Name"))
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    BUS.change(tx, row, a.operation.name, a.request.id)
    told: Output = {"Arn": BUS.arn(row.account, row.region, row.name), "Name": row.name}
    return told | ({"Description": row.doc["Description"]} if row.doc.get("Description") else {})


@BUS.reads("DescribeEventBus", asks=[Ask("events:DescribeEventBus", _named)])
def describe(a: Authorised, view: View) -> Output:
    name = bus_name(a, view, a.input.get("Name"))
    return _shown(view, a.account, a.region, name, BUS.get(view, a.account, a.region, name))


@BUS.reads("ListEventBuses", asks=[Ask("events:ListEventBuses", anything)])
def listed(a: Authorised, view: View) -> Output:
    prefix, limit = a.input.get("NamePrefix") or "", int(a.input.get("Limit") or 100)
    after = pages.position(a, a.input.get("NextToken"))
    rows = {row.name: row for row in view.scan(BUS.key, a.account, a.region, limit=_MOST_BUSES + 1)}
    names = sorted(name for name in {DEFAULT, *rows} if name.startswith(prefix) and (after is None or name > after))
    output: Output = {"EventBuses": [_shown(view, a.account, a.region, name, rows.get(name)) for name in names[:limit]]}
    if len(names) > limit:
        output["NextToken"] = pages.seal(a, names[limit - 1])
    return output


@BUS.operation("DeleteEventBus", asks=[Ask("events:DeleteEventBus", _named)])
def delete(a: Authorised, tx: Transaction) -> Output:
    if a.input["Name"] == DEFAULT:
        raise Refused("ValidationException", "Cannot delete event bus default.")
    row = BUS.get(tx, *BUS.locate(a.input["Name"], a.account, a.region))
    if row is not None:
        if tx.scan(RULE_KEY, row.account, row.region, prefix=f"{row.name}/", limit=1):
            raise Refused("ValidationException", f"Event bus {row.name} has rules. Please delete them first.")
        BUS.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- policies ----------------------------------------------------------------------------------------------------------


def _row(a: Authorised, tx: Transaction, given: str | None) -> Row:
    name = bus_name(a, tx, given)
    return BUS.get(tx, a.account, a.region, name) or BUS.create(a, tx, name, {})


@BUS.operation("PutPermission", asks=[Ask("events:PutPermission", anything)])
def put_permission(a: Authorised, tx: Transaction) -> Output:
    row, given = _row(a, tx, a.input.get("EventBusName")), a.input
    if given.get("Policy"):
        text = given["Policy"]
    else:
        if not (given.get("StatementId") and given.get("Principal") and given.get("Action") == "events:PutEvents"):
            raise Refused(
                "ValidationException", "StatementId, Principal and the Action events:PutEvents are needed, or Policy."
            )
        who = given["Principal"]
        arn = BUS.arn(row.account, row.region, row.name)
        one: dict[str, Any] = {
            "Sid": given["StatementId"],
            "Effect": "Allow",
            "Action": given["Action"],
            "Resource": arn,
        }
        one["Principal"] = "*" if who == "*" else {"AWS": f"arn:aws:iam::{who}:root"}
        if given.get("Condition"):
            held = given["Condition"]
            one["Condition"] = {held["Type"]: {held["Key"]: held["Value"]}}
        old = json.loads(row.doc.get("_policy") or '{"Version": "2012-10-17", "Statement": []}')
        kept = [each for each in old["Statement"] if each.get("Sid") != given["StatementId"]]
        text = json.dumps({**old, "Statement": [*kept, one]})
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_MOST_POLICY)
    except Refused as refused:
        raise Refused("ValidationException", f"The policy is not valid: {refused.message}") from None
    row.doc["_policy"], row.doc["_principals"] = text, principals.kept(tx, text)
    BUS.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUS.operation("RemovePermission", asks=[Ask("events:RemovePermission", anything)])
def remove_permission(a: Authorised, tx: Transaction) -> Output:
    row, sid = _row(a, tx, a.input.get("EventBusName")), a.input.get("StatementId")
    document = json.loads(row.doc.get("_policy") or '{"Statement": []}')
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    left = [] if a.input.get("RemoveAllPermissions") else [one for one in statements if one.get("Sid") != sid]
    if not a.input.get("RemoveAllPermissions") and len(left) == len(statements):
        raise Refused("ResourceNotFoundException", "Statement with the provided id does not exist.")
    if left:
        text = json.dumps({**document, "Statement": left})
        row.doc["_policy"], row.doc["_principals"] = text, principals.kept(tx, text)
    else:
        row.doc.pop("_policy", None)
    BUS.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- events ------------------------------------------------------------------------------------------------------------


def _buses(asked: Asked) -> Iterable[str]:
    return dict.fromkeys(bus_arn(asked, one.get("EventBusName")) for one in asked.input["Entries"])


def _all(member: str) -> Any:
    def read(asked: Asked) -> Sequence[str]:
        return [one[member] for one in asked.input["Entries"] if one.get(member)]

    return read


@BUS.operation(
    "PutEvents",
    asks=[
        Ask(
            "events:PutEvents",
            _buses,
            given={
                "events:source": _all("Source"),
                "events:detail-type": _all("DetailType"),
                "events:eventBusInvocation": lambda asked: "true" if FORWARDED in asked.call.context else "false",
            },
        )
    ],
    data=True,
)
def put_events(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("EndpointId"):
        raise Refused("ValidationException", "Global endpoints are not supported by Bastide yet.")
    found = []
    if sum(map(_size, a.input["Entries"])) > _MOST_EVENT:
        raise Refused("ValidationException", "Total size of the entries in the request is over the limit.")
    for one in a.input["Entries"]:
        try:
            event = _event(a, tx, one)
        except Refused as refused:
            found.append({"ErrorCode": refused.code, "ErrorMessage": refused.message})
            continue
        tx.emit(EVENTS, event)
        found.append({"EventId": event["id"]})
    return {"FailedEntryCount": sum("ErrorCode" in one for one in found), "Entries": found}


def _size(one: dict[str, Any]) -> int:
    """Bytes of an entry, as AWS counts them. Source: User Guide, "Calculating PutEvents event entry size"."""
    texts = [str(one.get(member) or "") for member in ("Source", "DetailType", "Detail")] + (one.get("Resources") or [])
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + (14 if one.get("Time") else 0)


def _event(a: Authorised, tx: Transaction, one: dict[str, Any]) -> dict[str, Any]:
    account, region, name = BUS.locate(one.get("EventBusName") or DEFAULT, a.account, a.region)
    if region != a.region:
        raise Refused("InvalidArgument", "The event bus is of another region.")
    if name != DEFAULT and BUS.get(tx, account, region, name) is None:
        raise Refused("ResourceNotFoundException", f"Event bus {name} does not exist.")
    arn = BUS.arn(account, region, name)
    forwarded = a.call.context.get(FORWARDED)
    if isinstance(forwarded, str):
        held: dict[str, Any] = orjson.loads(forwarded)
        return held | {"_bus": arn}
    for member in ("Source", "DetailType", "Detail"):
        if not one.get(member):
            raise Refused(
                "InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument."
            )
    if one["Source"].startswith("aws."):
        raise Refused("NotAuthorizedForSourceException", "Not authorized for the source: aws. is for services.")
    try:
        detail = orjson.loads(one["Detail"])
    except orjson.JSONDecodeError:
        detail = None
    if not isinstance(detail, dict):
        raise Refused("MalformedDetail", "Detail is malformed.")
    return {
        "version": "0",
        "id": new_id(),
        "detail-type": one["DetailType"],
        "source": one["Source"],
        "account": a.account,
        "time": iso(one.get("Time") or a.now),
        "region": a.region,
        "resources": one.get("Resources") or [],
        "detail": detail,
        "_bus": arn,
    }


# -- tags of buses and rules -------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ResourceARN"]),)


def _tagged_row(a: Authorised, view: View) -> tuple[Kind, Row]:
    given = str(a.input["ResourceARN"])
    where = "/".join(given.split("/")[1:])
    bus, _, name = where.rpartition("/")
    said = f"Event bus {where} does not exist."
    if ":rule/" in given:
        said = f"Rule {name} does not exist on EventBus {bus or DEFAULT}."
    try:
        arn = Arn.parse(given)
        kind = a.calls.registry.kind(arn)
        if kind is not None and kind.service == "events" and (arn.account, arn.region) == (a.account, a.region):
            row = kind.get(view, *kind.locate(str(arn), a.account, a.region))
            if row is not None:
                return kind, row
    except (ValueError, Refused):
        pass
    raise Refused("ResourceNotFoundException", said)


@BUS.operation("TagResource", asks=[Ask("events:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged_row(a, tx)
    row.tags = {**row.tags, **tags_of(a)}
    if len(row.tags) > 50:
        raise Refused("LimitExceededException", "A resource may have at most 50 tags.")
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUS.operation("UntagResource", asks=[Ask("events:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged_row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@BUS.reads("ListTagsForResource", asks=[Ask("events:ListTagsForResource", _tagged)])
def list_tags(a: Authorised, view: View) -> Output:
    return {"Tags": tag_list(_tagged_row(a, view)[1].tags)}
