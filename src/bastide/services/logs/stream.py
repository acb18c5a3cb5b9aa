"""Log streams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, pages
from bastide.store import Row, Transaction, View

GROUP_KEY = "logs:LogGroup"

LOG_STREAM = Kind(
    "LogStream",
    service="logs",
    arn="log-group:{}",
    named_by="logStreamName",
    tags=False,
    missing=("ResourceNotFoundException", "The specified log stream does not exist.", 400),
    taken=("ResourceAlreadyExistsException", "The specified log stream already exists", 400),
)
"""A stream's row is named ``GROUP:log-stream:STREAM``, as its ARN is; neither name may hold a colon."""

_MOST = 50
_MOST_SORTED = 10_000


def missing_group() -> Refused:
    """AWS's words for a group that is not there."""
    return Refused("ResourceNotFoundException", "The specified log group does not exist.")


def group_of(given: str) -> Arn | None:
    """The ARN of a group, read from that or from one with ``:*`` behind; None for everything else. Only ARNs that are
    written as policies write them name a group: a question about another spelling would be about nothing."""
    try:
        arn = Arn.parse(given.removesuffix(":*"))
    except ValueError:
        return None
    before, _, name = arn.resource.partition(":")
    plain = (arn.partition, arn.service, before) == ("aws", "logs", "log-group")
    return arn if plain and name and ":" not in name and arn.account and arn.region else None


def group_name(given: dict[str, Any], account: str, region: str) -> str:
    """The group that `logGroupName` or `logGroupIdentifier` (a name or an ARN) names; raises Refused for both, neither,
    or a group of another account or region."""
    name, identifier = given.get("logGroupName"), given.get("logGroupIdentifier")
    if name and identifier:
        raise Refused("ValidationException", "LogGroup name and LogGroup ARN are mutually exclusive parameters.")
    if not name and not identifier:
        raise Refused("InvalidParameterException", "Exactly one of logGroupName and logGroupIdentifier is needed.")
    if name:
        return str(name)
    if not str(identifier).startswith("arn:"):
        return str(identifier)
    arn = group_of(str(identifier))
    if arn is None or (arn.account, arn.region) != (account, region):
        raise missing_group()
    return arn.name


def group_asked(asked: Asked) -> Iterable[str]:
    """The group in a policy's words."""
    given = asked.input.get("logGroupName") or asked.input.get("logGroupIdentifier") or ""
    if str(given).startswith("arn:"):
        return (f"{str(given).removesuffix(':*')}:log-stream:",)
    return (f"arn:aws:logs:{asked.call.region}:{asked.call.account}:log-group:{given}:log-stream:",)


def stream_asked(asked: Asked) -> Iterable[str]:
    """The stream in a policy's words."""
    stream = asked.input.get("logStreamName", "")
    return tuple(group + str(stream) for group in group_asked(asked))


def need_group(view: View, account: str, region: str, name: str) -> None:
    """Raises Refused if the group is not there."""
    if view.get(GROUP_KEY, account, region, name) is None:
        raise missing_group()


def group_row(a: Authorised, view: View, name: str) -> Row:
    """The group's row; raises Refused if it is not there."""
    row = view.get(GROUP_KEY, a.account, a.region, name)
    if row is None:
        raise missing_group()
    return row


def find(a: Authorised, view: View, group: str, stream: str) -> Row:
    """The stream's row; raises Refused, in AWS's order: group first."""
    need_group(view, a.account, a.region, group)
    return LOG_STREAM.find(view, a.account, a.region, f"{group}:log-stream:{stream}")


@LOG_STREAM.operation("CreateLogStream", asks=[Ask("logs:CreateLogStream", stream_asked)])
def create(a: Authorised, tx: Transaction) -> Output:
    group, stream = a.input["logGroupName"], a.input["logStreamName"]
    need_group(tx, a.account, a.region, group)
    # Lines are kept under the request that made the stream: one made anew under the same name begins empty.
    doc = {"lines": f"{a.account}/{a.region}/{group}/{stream}/{a.request.id}"}
    LOG_STREAM.create(a, tx, f"{group}:log-stream:{stream}", doc)
    return {}


@LOG_STREAM.operation("DeleteLogStream", asks=[Ask("logs:DeleteLogStream", stream_asked)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = find(a, tx, a.input["logGroupName"], a.input["logStreamName"])
    tx.drop_log(row.doc["lines"])
    LOG_STREAM.remove(tx, row, a.operation.name, a.request.id)
    return {}


def _shown(row: Row) -> Output:
    doc = row.doc
    found: Output = {
        "logStreamName": row.name.split(":log-stream:", 1)[1],
        "creationTime": row.created // 1000,
        "arn": LOG_STREAM.arn(row.account, row.region, row.name),
        "storedBytes": 0,  # AWS: always zero since 2019
    }
    if "first" in doc:
        found |= {
            "firstEventTimestamp": doc["first"],
            "lastEventTimestamp": doc["last"],
            "lastIngestionTime": doc["ingested"],
            "uploadSequenceToken": "0",
        }
    return found


@LOG_STREAM.reads("DescribeLogStreams", asks=[Ask("logs:DescribeLogStreams", group_asked)])
def describe(a: Authorised, view: View) -> Output:
    group = group_name(a.input, a.account, a.region)
    need_group(view, a.account, a.region, group)
    limit = int(a.input.get("limit") or _MOST)
    backwards = bool(a.input.get("descending"))
    prefix = f"{group}:log-stream:"
    wanted = a.input.get("logStreamNamePrefix") or ""
    after = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    if a.input.get("orderBy") == "LastEventTime":
        if wanted:
            raise Refused("InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
        every = view.scan(LOG_STREAM.key, a.account, a.region, prefix=prefix, limit=_MOST_SORTED)
        every.sort(key=lambda row: (row.doc.get("last", 0), row.name), reverse=backwards)
        start = int(after or 0)
        found = {"logStreams": [_shown(row) for row in every[start : start + limit]]}
        if start + limit < len(every):
            found["nextToken"] = pages.seal(a, start + limit)  # type: ignore[assignment]
        return found
    rows = view.scan(
        LOG_STREAM.key, a.account, a.region, prefix=prefix + wanted, after=after, descending=backwards, limit=limit + 1
    )
    answer: Output = {"logStreams": [_shown(row) for row in rows[:limit]]}
    # A token only where there is more: clients ask again for as long as there is one.
    if len(rows) > limit:
        answer["nextToken"] = pages.seal(a, rows[limit - 1].name)
    return answer
