"""Log groups and their tags."""

from __future__ import annotations

from collections.abc import Iterable

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, pages
from bastide.services.logs.metric_filter import drop
from bastide.services.logs.sealing import associate
from bastide.services.logs.stream import LOG_STREAM, missing_group
from bastide.services.logs.stream import group_of as named_group
from bastide.store import Row, Transaction, View

LOG_GROUP = Kind(
    "LogGroup",
    service="logs",
    arn="log-group:{}",
    named_by="logGroupName",
    missing=("ResourceNotFoundException", "The specified log group does not exist.", 400),
    taken=("ResourceAlreadyExistsException", "The specified log group already exists", 400),
)
_MOST = 50


def group_of(arn: Arn) -> str:
    """The group's name in the ARN of a group or of one of its streams."""
    return arn.resource.removeprefix("log-group:").split(":", 1)[0]


def this(asked: Asked) -> Iterable[str]:
    """The group's ARN as policies write it: with ``:log-stream:`` behind, so that ``log-group:NAME:*`` matches."""
    name = str(asked.input.get("logGroupName", ""))
    return (f"{LOG_GROUP.arn(asked.call.account, asked.call.region, name)}:log-stream:",)


def _made(asked: Asked) -> Iterable[str]:
    return (LOG_GROUP.arn(asked.call.account, asked.call.region, str(asked.input.get("logGroupName", ""))),)


def _unsupported(a: Authorised, *members: str) -> None:
    for member in members:
        if a.input.get(member):
            raise Refused("InvalidParameterException", f"{member} is not supported by Bastide yet.")


@LOG_GROUP.operation(
    "CreateLogGroup",
    asks=[
        Ask("logs:CreateLogGroup", this),
        # API Reference, CreateLogGroup, "tags".
        Ask("logs:TagResource", _made, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    _unsupported(a, "deletionProtectionEnabled")
    if a.input.get("logGroupClass", "STANDARD") != "STANDARD":
        raise Refused("InvalidParameterException", "Log groups are of the class STANDARD.")
    tags = dict(a.input.get("tags") or {})
    if any(key.lower().startswith("aws:") for key in tags):
        raise Refused("InvalidParameterException", "Tag keys that begin with aws: are reserved.")
    row = Row(LOG_GROUP.key, a.account, a.region, a.input["logGroupName"], {})
    if a.input.get("kmsKeyId"):
        associate(a, tx, row, a.input["kmsKeyId"])
    LOG_GROUP.create(a, tx, row.name, row.doc, tags=tags)
    return {}


def _shown(row: Row) -> Output:
    arn = LOG_GROUP.arn(row.account, row.region, row.name)
    told: Output = {name: row.doc[name] for name in ("kmsKeyId", "retentionInDays") if name in row.doc}
    return {
        **told,
        "logGroupName": row.name,
        "creationTime": row.created // 1000,
        "metricFilterCount": row.doc.get("filters", 0),
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "logGroupClass": "STANDARD",
        "deletionProtectionEnabled": False,
    }


def _any(asked: Asked) -> Iterable[str]:
    prefix = str(asked.input.get("logGroupNamePrefix") or "")
    return (f"{LOG_GROUP.arn(asked.call.account, asked.call.region, prefix)}:log-stream:",)


@LOG_GROUP.reads("DescribeLogGroups", asks=[Ask("logs:DescribeLogGroups", _any)])
def describe(a: Authorised, view: View) -> Output:
    _unsupported(a, "accountIdentifiers", "includeLinkedAccounts", "logGroupIdentifiers")
    limit = int(a.input.get("limit") or _MOST)
    pattern = str(a.input.get("logGroupNamePattern") or "").lower()
    if pattern and a.input.get("logGroupNamePrefix"):
        raise Refused(
            "InvalidParameterException",
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        )
    found: list[Output] = []
    after = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    for _ in range(20):
        rows = view.scan(
            LOG_GROUP.key,
            a.account,
            a.region,
            prefix=a.input.get("logGroupNamePrefix") or "",
            after=after,
            limit=limit + 1,
        )
        for row in rows:
            if len(found) == limit:
                return {"logGroups": found, "nextToken": pages.seal(a, after)}
            after = row.name
            if pattern in row.name.lower():
                found.append(_shown(row))
        if len(rows) <= limit:
            return {"logGroups": found}
    return {"logGroups": found, "nextToken": pages.seal(a, after)}


@LOG_GROUP.operation("DeleteLogGroup", asks=[Ask("logs:DeleteLogGroup", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = LOG_GROUP.named(a, tx)
    drop(tx, row, a.operation.name, a.request.id)
    prefix = f"{row.name}:log-stream:"
    while streams := tx.scan(LOG_STREAM.key, a.account, a.region, prefix=prefix, limit=500):
        for stream in streams:
            tx.drop_log(stream.doc["lines"])
            LOG_STREAM.remove(tx, stream, a.operation.name, a.request.id)
    LOG_GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {}


# -- keys --------------------------------------------------------------------------------------------------------------


def _keyed(a: Authorised, tx: Transaction) -> Row:
    name, identifier = a.input.get("logGroupName"), a.input.get("resourceIdentifier")
    if identifier or not name:
        raise Refused("InvalidParameterException", "logGroupName is needed; resourceIdentifier is not supported yet.")
    return LOG_GROUP.named(a, tx)


@LOG_GROUP.operation("AssociateKmsKey", asks=[Ask("logs:AssociateKmsKey", this)])
def associate_key(a: Authorised, tx: Transaction) -> Output:
    row = _keyed(a, tx)
    associate(a, tx, row, a.input["kmsKeyId"])
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


@LOG_GROUP.operation("DisassociateKmsKey", asks=[Ask("logs:DisassociateKmsKey", this)])
def disassociate_key(a: Authorised, tx: Transaction) -> Output:
    row = _keyed(a, tx)
    row.doc.pop("kmsKeyId", None)
    row.doc["current"] = 0
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- tags --------------------------------------------------------------------------------------------------------------


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input.get("resourceArn", "")).removesuffix(":*"),)


def _row(a: Authorised, view: View) -> Row:
    arn = named_group(a.input["resourceArn"])
    row = LOG_GROUP.get(view, arn.account, arn.region, arn.name) if arn is not None else None
    if row is None or row.account != a.account:
        raise missing_group()
    return row


@LOG_GROUP.operation("TagResource", asks=[Ask("logs:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    added = a.input["tags"]
    if any(key.lower().startswith("aws:") for key in added):
        raise Refused("InvalidParameterException", "Tag keys that begin with aws: are reserved.")
    row.tags = {**row.tags, **added}
    if len(row.tags) > 50:
        raise Refused("TooManyTagsException", "A resource may have at most 50 tags.")
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


@LOG_GROUP.operation("UntagResource", asks=[Ask("logs:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    LOG_GROUP.change(tx, row, a.operation.name, a.request.id)
    return {}


@LOG_GROUP.reads("ListTagsForResource", asks=[Ask("logs:ListTagsForResource", _tagged)])
def list_tags(a: Authorised, view: View) -> Output:
    return {"tags": dict(_row(a, view).tags)}
