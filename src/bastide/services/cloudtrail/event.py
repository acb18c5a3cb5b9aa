"""Events: the management events of an account, by attribute and time.

Source: CloudTrail API reference, LookupEvents. Data events are not looked up: a trail delivers them.
"""

from __future__ import annotations

from typing import Any

import orjson

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, pages
from bastide.store import Event, View

EVENT = Kind("Event", service="cloudtrail", arn="event/{}", tags=False, history=False)

_COLUMNS = {
    "EventId": "id",
    "EventName": "name",
    "ReadOnly": "read_only",
    "Username": "user",
    "ResourceName": "resources",
    "EventSource": "source",
    "AccessKeyId": "access_key",
}
_INDEXED = frozenset({"id", "name", "user"})
_MOST_EXAMINED = 5000
"""Events that one page looks at where no index leads to what is asked for."""
_KEPT_SECONDS = 90 * 24 * 3600


async def _searchable(a: Authorised) -> None:
    """What was answered before this call is found by it."""
    await a.calls.journal.flush()


@EVENT.reads("LookupEvents", asks=[Ask("cloudtrail:LookupEvents", anything)], before=_searchable)
def lookup(a: Authorised, view: View) -> Output:
    """The newest events first."""
    attributes = a.input.get("LookupAttributes") or []
    if len(attributes) > 1:
        raise Refused("InvalidLookupAttributesException", "Only one lookup attribute can be given.")
    if a.input.get("EventCategory"):
        raise Refused("InvalidEventCategoryException", "Bastide records no insight events.")
    where = None
    if attributes:
        key, value = attributes[0]["AttributeKey"], attributes[0]["AttributeValue"]
        if key not in _COLUMNS:
            raise Refused("InvalidLookupAttributesException", f"Events cannot be looked up by {key} here yet.")
        where = (_COLUMNS[key], value)
    start, end = a.input.get("StartTime"), a.input.get("EndTime")
    if start is not None and end is not None and start > end:
        raise Refused("InvalidTimeRangeException", "The start time is after the end time.")
    oldest = a.now - _KEPT_SECONDS * MICROS
    limit = int(a.input.get("MaxResults") or 50)
    place = pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException")
    found, last = _page(
        view,
        a.account,
        where,
        limit,
        before=tuple(place) if place else None,
        start=max(start, oldest) if start is not None else oldest,
        end=end,
        category="Management",
    )
    return {"Events": [_shown(one) for one in found], "NextToken": pages.seal(a, last) if last else None}


def _page(
    view: View, account: str, where: tuple[str, str] | None, limit: int, **within: Any
) -> tuple[list[Event], list[int] | None]:
    """The newest events of a page and the position (time, sequence) that the next one goes on behind, None at the end.

    What no index leads to is looked for among a bounded number of events; a page may then have few of them, or none, and
    another behind it, as AWS's has.
    """
    indexed = where is None or where[0] in _INDEXED
    found: list[Event] = []
    examined, count = 0, limit + 1
    while examined < _MOST_EXAMINED:
        events = view.events(account, where=where if indexed else None, limit=count, **within)
        for event in events:
            if len(found) == limit:
                return found, list(within["before"])
            within["before"] = (event.at, event.seq)
            if indexed or (where is not None and _is(event, *where)):
                found.append(event)
        if len(events) < count:
            return found, None
        examined += count
        count = min(1000, count * 4)
    return found, list(within["before"])


def _is(event: Event, column: str, value: str) -> bool:
    if column == "resources":
        return value in event.resources
    if column == "read_only":
        return value == ("true" if event.read_only else "false")
    return bool(getattr(event, column) == value)


def _shown(event: Event) -> dict[str, object]:
    record = orjson.loads(event.body)
    return {
        "EventId": event.id,
        "EventName": event.name,
        "ReadOnly": "true" if event.read_only else "false",
        "AccessKeyId": event.access_key or None,
        "EventTime": event.at,
        "EventSource": event.source,
        "Username": event.user or None,
        "Resources": [
            {"ResourceType": one.get("type"), "ResourceName": one.get("ARN")} for one in record.get("resources", ())
        ],
        "CloudTrailEvent": event.body.decode(),
    }
