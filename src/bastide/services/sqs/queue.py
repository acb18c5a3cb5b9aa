"""Queues: made, set, listed, shared, removed.

Source: Amazon SQS API Reference; Developer Guide, "Queue and message identifiers", "Basic examples of Amazon SQS policies".
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages, principals
from bastide.kernel.address import Address
from bastide.policy import Attached, Document, Form
from bastide.services.sqs.attributes import (
    DEFAULTS,
    FIFO_DEFAULTS,
    REUSE,
    checked,
    parameter,
    redrive,
    redrive_allow,
    whole,
    wrong,
)
from bastide.services.sqs.standing import discard, standing
from bastide.store import Row, Taken, Transaction, View

QUEUE: Final = Kind(
    "Queue",
    service="sqs",
    arn="{}",
    named_by="QueueName",
    missing=("QueueDoesNotExist", "The specified queue does not exist.", 400),
)
INDEX: Final = "sqs:QueueIndex"
"""Under account "": ARNs of queues, for whoever looks after all of them."""
SOURCES: Final = "sqs:Source"
"""Rows ``DEAD LETTER QUEUE|SOURCE`` of the account and region: who names a queue as the place of its dead letters."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_PATH: Final = re.compile(r"(?:.*/)?(\d{12})/([A-Za-z0-9_.-]{1,80})/?")
_MOST_POLICY: Final = 20_480
_MOST_TAGS: Final = 50
_PURGE_SECONDS: Final = 60
_PAGE: Final = 1000
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


def _policy_of(_: View, row: Row) -> Attached | None:
    text = row.doc.get("_policy")
    if not text:
        return None
    return Attached(Document.parse_cached(text, Form.RESOURCE), QUEUE.arn(row.account, row.region, row.name))


QUEUE.policy_of = _policy_of


# -- names -------------------------------------------------------------------------------------------------------------


def place(url: str, own: str = "") -> tuple[str, str]:
    """Account and name of the queue that a queue URL means, or a mere name in the account `own`; raises InvalidAddress."""
    if own and _NAME.fullmatch(url):
        return own, url
    found = _PATH.fullmatch(urlsplit(url).path) if len(url) < 1024 else None
    if found is None:
        raise Refused("InvalidAddress", f"The address {url[:200]} is not valid for this endpoint.")
    return found[1], found[2]


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the queue whose URL the call names."""
    account, name = place(str(asked.input["QueueUrl"]), asked.call.account)
    return (QUEUE.arn(account, asked.call.region, name),)


def queue_of(a: Authorised, view: View) -> Row:
    """The queue whose URL the call names; raises QueueDoesNotExist."""
    account, name = place(str(a.input["QueueUrl"]), a.account)
    return QUEUE.find(view, account, a.region, name)


def url(a: Authorised, account: str, name: str) -> str:
    """The URL of a queue."""
    return f"{a.engine(Address).url}/{account}/{name}"


def attribute(row: Row, name: str) -> str:
    """What an attribute is, also where nobody said."""
    held: dict[str, str] = row.doc["attributes"]
    return held.get(name) or DEFAULTS.get(name) or (FIFO_DEFAULTS.get(name, "") if row.doc["fifo"] else "")


def _by_name(asked: Asked) -> Iterable[str]:
    account = str(asked.input.get("QueueOwnerAWSAccountId") or asked.call.account)
    return (QUEUE.arn(account, asked.call.region, str(asked.input["QueueName"])),)


# -- making ------------------------------------------------------------------------------------------------------------


@QUEUE.operation(
    "CreateQueue",
    asks=[
        Ask("sqs:CreateQueue", QUEUE.this),
        Ask("sqs:TagQueue", QUEUE.this, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name, given = str(a.input["QueueName"]), dict(a.input.get("Attributes") or {})
    fifo = name.endswith(".fifo")
    if not _NAME.fullmatch(name):
        raise parameter(
            "QueueName",
            name,
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length; a FIFO queue's name "
            "ends in .fifo.",
        )
    said = str(given.get("FifoQueue") or "").lower()
    if fifo and said != "true":
        raise parameter("QueueName", name, "The name of a standard queue does not end in .fifo; FifoQueue is not set.")
    if said == "true" and not fifo:
        raise parameter("QueueName", name, "The name of a FIFO queue can only end in .fifo.")
    wanted = checked(given, fifo=fifo, new=True)
    row = QUEUE.get(tx, a.account, a.region, name)
    if row is not None:
        for key, value in wanted.items():
            if _held(a, tx, row, key) != value and not (key == "FifoQueue" and fifo):
                raise Refused(
                    "QueueNameExists",
                    f"A queue already exists with the same name and a different value for attribute {key}",
                )
        return {"QueueUrl": url(a, a.account, name)}
    doc: dict[str, Any] = {"id": uuid.uuid4().hex, "fifo": fifo, "attributes": {}}
    row = Row(QUEUE.key, a.account, a.region, name, doc, "", _tags(a.input.get("tags") or {}))
    _set(a, tx, row, wanted)
    try:
        QUEUE.insert(tx, row, a.operation.name, a.request.id)
        tx.insert(Row(INDEX, "", "", QUEUE.arn(a.account, a.region, name), {}), keep=False)
    except Taken:
        raise Refused("QueueNameExists", "The queue is being made by somebody else.") from None
    return {"QueueUrl": url(a, a.account, name)}


def _held(a: Authorised, view: View, row: Row, name: str) -> str:
    return str(_shown(a, view, row, [name]).get(name, ""))


def _set(a: Authorised, tx: Transaction, row: Row, wanted: dict[str, str]) -> None:
    held: dict[str, str] = dict(row.doc["attributes"])
    if "Policy" in wanted:
        _policy(tx, row, wanted.pop("Policy"))
    if wanted.get("KmsMasterKeyId"):
        wanted.setdefault("SqsManagedSseEnabled", "false")
    elif wanted.get("SqsManagedSseEnabled") == "true":
        wanted.setdefault("KmsMasterKeyId", "")
    for name, value in wanted.items():
        held[name] = value
        if not value:
            del held[name]
    whole(held | (FIFO_DEFAULTS | held if row.doc["fifo"] else {}))
    if wanted.get("RedriveAllowPolicy"):
        redrive_allow(wanted["RedriveAllowPolicy"])
    if "RedrivePolicy" in wanted:
        _redrive(tx, row, wanted["RedrivePolicy"])
    row.doc["attributes"] = held


def _redrive(tx: Transaction, row: Row, text: str) -> None:
    """Checks where dead letters are to go, and keeps the index of that."""
    before = row.doc["attributes"].get("RedrivePolicy")
    if before:
        _source(tx, row, redrive(before)[0].resource, False)
    if not text:
        return
    arn, _ = redrive(text)
    if (arn.account, arn.region) != (row.account, row.region):
        raise parameter("RedrivePolicy", text, "Dead letter target is of this account and region.")
    target = QUEUE.get(tx, arn.account, arn.region, arn.resource)
    if target is None:
        raise parameter("RedrivePolicy", text, "Dead letter target does not exist.")
    if target.doc["fifo"] != row.doc["fifo"]:
        raise parameter("RedrivePolicy", text, "Dead-letter queue must be same type of queue as the source.")
    if not may_redrive(target, QUEUE.arn(row.account, row.region, row.name)):
        raise parameter("RedrivePolicy", text, "The dead-letter queue's RedriveAllowPolicy does not name this queue.")
    _source(tx, row, arn.resource, True)


def may_redrive(target: Row, source: str) -> bool:
    """Whether a queue (ARN) may leave its dead letters in `target`, as far as that says."""
    text = target.doc["attributes"].get("RedriveAllowPolicy")
    if not text:
        return True
    held = redrive_allow(text)
    return held["redrivePermission"] == "allowAll" or source in held.get("sourceQueueArns", ())


def _source(tx: Transaction, row: Row, target: str, wanted: bool) -> None:
    name = f"{target}|{row.name}"
    held = tx.get(SOURCES, row.account, row.region, name)
    if held is not None and not wanted:
        tx.delete(held, keep=False)
    elif held is None and wanted:
        tx.insert(Row(SOURCES, row.account, row.region, name, {}), keep=False)


def _policy(tx: Transaction, row: Row, text: str) -> None:
    if not text:
        row.doc.pop("_policy", None)
        row.doc.pop("_principals", None)
        return
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_MOST_POLICY)
    except Refused as refused:
        raise wrong("Policy", text, refused.message) from None
    row.doc["_policy"], row.doc["_principals"] = text, principals.kept(tx, text)


@QUEUE.operation("SetQueueAttributes", asks=[Ask("sqs:SetQueueAttributes", this)])
def set_attributes(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    _set(a, tx, row, checked(a.input["Attributes"], fifo=row.doc["fifo"], new=False))
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- showing -----------------------------------------------------------------------------------------------------------

_COUNTS: Final = {
    "ApproximateNumberOfMessages": "visible",
    "ApproximateNumberOfMessagesNotVisible": "hidden",
    "ApproximateNumberOfMessagesDelayed": "delayed",
}
_KNOWN: Final = (
    "All", "Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds",
    "SqsManagedSseEnabled", "FifoQueue", "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn", *DEFAULTS,
    *FIFO_DEFAULTS, *_COUNTS,
)  # fmt: skip


def _shown(a: Authorised, view: View, row: Row, names: Iterable[str]) -> dict[str, str]:
    held: dict[str, str] = row.doc["attributes"]
    told = {**DEFAULTS, **(FIFO_DEFAULTS if row.doc["fifo"] else {}), **held}
    told["QueueArn"] = QUEUE.arn(row.account, row.region, row.name)
    told["CreatedTimestamp"] = str((row.created or a.now) // MICROS)
    told["LastModifiedTimestamp"] = str((row.modified or a.now) // MICROS)
    if "KmsMasterKeyId" in held:
        told.setdefault("KmsDataKeyReusePeriodSeconds", REUSE)
    else:
        told.pop("KmsDataKeyReusePeriodSeconds", None)
    told.setdefault("SqsManagedSseEnabled", "false" if "KmsMasterKeyId" in held else "true")
    if row.doc["fifo"]:
        told["FifoQueue"] = "true"
    if row.doc.get("_policy"):
        told["Policy"] = principals.shown(view, row.doc["_policy"], row.doc.get("_principals", {}))
    if "RedrivePolicy" in held:
        arn, most = redrive(held["RedrivePolicy"])
        told["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": str(arn), "maxReceiveCount": most})
    wanted = set(names)
    if wanted & {"All", *_COUNTS}:
        counts = standing(view, row).counts(a.calls.clock())
        told |= {name: str(counts[key]) for name, key in _COUNTS.items()}
    return told if "All" in wanted else {name: value for name, value in told.items() if name in wanted}


@QUEUE.reads("GetQueueAttributes", asks=[Ask("sqs:GetQueueAttributes", this)])
def get_attributes(a: Authorised, view: View) -> Output:
    row, names = queue_of(a, view), a.input.get("AttributeNames") or []
    for name in names:
        if name not in _KNOWN:
            raise Refused("InvalidAttributeName", f"Unknown Attribute {str(name)[:100]}.")
    found = _shown(a, view, row, names)
    return {"Attributes": found} if found else {}


@QUEUE.reads("GetQueueUrl", asks=[Ask("sqs:GetQueueUrl", _by_name)])
def get_url(a: Authorised, view: View) -> Output:
    account = str(a.input.get("QueueOwnerAWSAccountId") or a.account)
    QUEUE.find(view, account, a.region, str(a.input["QueueName"]))
    return {"QueueUrl": url(a, account, str(a.input["QueueName"]))}


def _page(a: Authorised) -> tuple[int, Any]:
    limit = a.input.get("MaxResults")
    if limit is not None and not 1 <= limit <= _PAGE:
        raise parameter("MaxResults", limit, f"Value must be between 1 and {_PAGE}.")
    if a.input.get("NextToken") and limit is None:
        raise parameter("NextToken", "", "MaxResults is a required parameter with it.")
    return limit or _PAGE, pages.position(a, a.input.get("NextToken"), code="InvalidParameterValue")


@QUEUE.reads("ListQueues", asks=[Ask("sqs:ListQueues", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit, after = _page(a)
    prefix = str(a.input.get("QueueNamePrefix") or "")
    rows = view.scan(QUEUE.key, a.account, a.region, prefix=prefix, after=after, limit=limit + 1)
    output: Output = {"QueueUrls": [url(a, a.account, row.name) for row in rows[:limit]]} if rows else {}
    if len(rows) > limit and a.input.get("MaxResults"):
        output["NextToken"] = pages.seal(a, rows[limit - 1].name)
    return output


@QUEUE.reads("ListDeadLetterSourceQueues", asks=[Ask("sqs:ListDeadLetterSourceQueues", this)])
def sources(a: Authorised, view: View) -> Output:
    row, (limit, after) = queue_of(a, view), _page(a)
    rows = view.scan(SOURCES, row.account, row.region, prefix=f"{row.name}|", after=after, limit=limit + 1)
    output: Output = {"queueUrls": [url(a, row.account, one.name.partition("|")[2]) for one in rows[:limit]]}
    if len(rows) > limit and a.input.get("MaxResults"):
        output["NextToken"] = pages.seal(a, rows[limit - 1].name)
    return output


# -- emptying and removing -----------------------------------------------------------------------------------------------


@QUEUE.operation("PurgeQueue", asks=[Ask("sqs:PurgeQueue", this)])
def purge(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    if tx.now - row.doc.get("purged", -(1 << 60)) < _PURGE_SECONDS * MICROS:
        raise Refused(
            "PurgeQueueInProgress",
            f"Only one PurgeQueue operation on {row.name} is allowed every {_PURGE_SECONDS} seconds.",
            403,
        )
    # The queue goes on under another id: what stood under the old one is nobody's, and is swept away.
    discard(tx, row)
    row.doc |= {"id": uuid.uuid4().hex, "purged": tx.now}
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


@QUEUE.operation("DeleteQueue", asks=[Ask("sqs:DeleteQueue", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    before = row.doc["attributes"].get("RedrivePolicy")
    if before:
        _source(tx, row, redrive(before)[0].resource, False)
    discard(tx, row)
    held = tx.get(INDEX, "", "", QUEUE.arn(row.account, row.region, row.name))
    if held is not None:
        tx.delete(held, keep=False)
    QUEUE.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- who may -----------------------------------------------------------------------------------------------------------

_SHARED: Final = (
    "*", "ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues",
    "PurgeQueue", "ReceiveMessage", "SendMessage",
)  # fmt: skip
_MOST_ACTIONS: Final = 7


@QUEUE.operation("AddPermission", asks=[Ask("sqs:AddPermission", this)])
def add_permission(a: Authorised, tx: Transaction) -> Output:
    row, label = queue_of(a, tx), str(a.input["Label"])
    if not _LABEL.fullmatch(label):
        raise parameter("Label", label, "It has 1 to 80 letters, digits, hyphens and underscores.")
    accounts, actions = a.input["AWSAccountIds"], a.input["Actions"]
    for action in actions:
        if action not in _SHARED:
            raise parameter("ActionName", action, "Only the queue owner is allowed to invoke this action.")
    for account in accounts:
        if not re.fullmatch(r"\d{12}", account):
            raise parameter("PrincipalId", account, "Unable to verify.")
    if not accounts or not actions or len(actions) > _MOST_ACTIONS:
        raise Refused("OverLimit", f"A permission has 1 to {_MOST_ACTIONS} actions and at least one account.")
    arn = QUEUE.arn(row.account, row.region, row.name)
    empty = json.dumps({"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []})
    document = json.loads(row.doc.get("_policy") or empty)
    held = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    if any(one.get("Sid") == label for one in held):
        raise parameter("Label", label, "Already exists.")
    whom, given = [f"arn:aws:iam::{account}:root" for account in accounts], [f"SQS:{action}" for action in actions]
    one = {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": whom if len(whom) > 1 else whom[0]},
        "Action": given if len(given) > 1 else given[0],
        "Resource": arn,
    }
    _policy(tx, row, json.dumps({**document, "Statement": [*held, one]}))
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


@QUEUE.operation("RemovePermission", asks=[Ask("sqs:RemovePermission", this)])
def remove_permission(a: Authorised, tx: Transaction) -> Output:
    row, label = queue_of(a, tx), str(a.input["Label"])
    document = json.loads(row.doc.get("_policy") or '{"Statement": []}')
    held = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    left = [one for one in held if one.get("Sid") != label]
    if len(left) == len(held):
        raise parameter("Label", label, "can't find label.")
    _policy(tx, row, json.dumps({**document, "Statement": left}) if left else "")
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tags(given: dict[str, str]) -> dict[str, str]:
    for key, value in given.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise parameter(
                "Tags", key, "A key has 1 to 128 characters and does not begin with aws:, a value at most 256."
            )
    if len(given) > _MOST_TAGS:
        raise parameter("Tags", len(given), f"A queue has at most {_MOST_TAGS} tags.")
    return dict(given)


@QUEUE.operation("TagQueue", asks=[Ask("sqs:TagQueue", this)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    row.tags = {**row.tags, **_tags(a.input["Tags"])}
    if len(row.tags) > _MOST_TAGS:
        raise parameter("Tags", len(row.tags), f"A queue has at most {_MOST_TAGS} tags.")
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


@QUEUE.operation("UntagQueue", asks=[Ask("sqs:UntagQueue", this)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = queue_of(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    QUEUE.change(tx, row, a.operation.name, a.request.id)
    return {}


@QUEUE.reads("ListQueueTags", asks=[Ask("sqs:ListQueueTags", this)])
def list_tags(a: Authorised, view: View) -> Output:
    row = queue_of(a, view)
    return {"Tags": row.tags} if row.tags else {}
