"""What was recorded is an event, too, if a rule wants it: the call's entry, on the default bus of whom it was recorded for.

It is looked for in the transaction that records, so an event is neither lost nor told of what did not happen; where no
rule wants any, that costs a look into a memo. Source: EventBridge User Guide, "AWS service events delivered via AWS
CloudTrail", "Receiving read-only management events from AWS services".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from bastide.kernel.happened import DETAIL_TYPES, EVENTS, of_record
from bastide.kernel.pattern import Pattern
from bastide.services.events.archive import ARCHIVE
from bastide.services.events.bus import BUS, DEFAULT
from bastide.services.events.rule import RULE, WITH_READS
from bastide.store import Event, Transaction, View

_log = logging.getLogger("bastide.events")
UNTRAILED: Final = "_untrailed"
"""In the outbox: no trail logs it, so it is only for who names it."""
_OF_RECORDS: Final = frozenset(
    {"eventName", "eventSource", "eventType", "userIdentity", "errorCode", "requestParameters"}
)
_READING: Final = ("Describe", "Get", "List")
_NO_READS: Final = frozenset({"GetFederationToken", "GetSessionToken"})
_OWN: Final = "events.amazonaws.com"
_LARGEST: Final = 262_144
_REGION: Final = b'"awsRegion":"'

Logs = Callable[[View, str, str], bool]
"""Whether a trail logs what happens in an account and region."""


@lru_cache(4096)
def _parts(text: str) -> tuple[Pattern, Pattern | None, bool, bool]:
    """A pattern, what it says of sources, whether it may match a record, and whether it names records."""
    whole = Pattern(text)
    fields = whole.fields
    source = Pattern(orjson.dumps({"source": fields["source"]}).decode()) if "source" in fields else None
    able = True
    if "detail-type" in fields:
        kind = Pattern(orjson.dumps({"detail-type": fields["detail-type"]}).decode())
        able = any(kind.matches({"detail-type": one}) for one in DETAIL_TYPES.values())
    return whole, source, able, _names(fields)


def _names(fields: Mapping[str, Any]) -> bool:
    if any(one in fields.get("detail-type", ()) for one in DETAIL_TYPES.values()):
        return True
    detail = fields.get("detail")
    if isinstance(detail, dict) and not _OF_RECORDS.isdisjoint(detail):
        return True
    return any(_names(one) for one in fields.get("$or", ()))


def names(pattern: str | None) -> bool:
    """Whether a pattern means records of calls, and not just everything."""
    return pattern is not None and _parts(pattern)[3]


def hushed(event: Mapping[str, Any]) -> bool:
    """Whether it is a call that only reads, which rules get whose state says so."""
    if event["detail-type"] != DETAIL_TYPES["AwsApiCall"] or not str(event["source"]).startswith("aws."):
        return False
    detail = event["detail"]
    name = str(detail.get("eventName"))
    return bool(detail.get("readOnly")) and name.startswith(_READING) and name not in _NO_READS


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a rule or an archive wants."""

    pattern: str | None
    reads: bool

    def may(self, source: str, quiet: bool) -> bool:
        """Whether it may want an entry of which no more is known yet."""
        if quiet and not self.reads:
            return False
        about = _parts(self.pattern)[1] if self.pattern is not None else None
        return about is None or about.matches({"source": source})

    def wants(self, event: Mapping[str, Any], trailed: bool) -> bool:
        """Whether it wants an event."""
        if not trailed and not names(self.pattern):
            return False
        return self.pattern is None or _parts(self.pattern)[0].matches(event)


class Recorded:
    """Tells what was recorded."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def told(self, tx: Transaction, entries: Iterable[Event]) -> None:
        """Puts an event into the outbox for each management event that somebody wants; see `SqliteStore.tell_recorded`."""
        for entry in entries:
            if entry.category != "Management":
                continue  # data events come from trails that have them
            try:
                found = self._event(tx, entry)
            except (KeyError, ValueError, TypeError):
                _log.exception("the entry %s could not be told", entry.id)
                continue
            if found is not None:
                tx.emit(EVENTS, found)

    def _event(self, view: View, entry: Event) -> dict[str, Any] | None:
        begins = entry.body.find(_REGION) + len(_REGION)
        region = entry.body[begins : entry.body.index(b'"', begins)].decode()
        wishes = _wishes(view, entry.account, region)
        if not wishes:
            return None
        source = "aws." + entry.source.partition(".")[0]
        quiet = entry.read_only and entry.name.startswith(_READING) and entry.name not in _NO_READS
        wishes = [one for one in wishes if one.may(source, quiet)]
        if not wishes or len(entry.body) > _LARGEST:
            return None
        record = orjson.loads(entry.body)
        # What rules did is no event for rules: else one that wants everything would never come to an end.
        if record.get("sourceIPAddress") == _OWN or record["userIdentity"].get("invokedBy") == _OWN:
            return None
        event = of_record(record)
        trailed = self._logs(view, entry.account, region)
        if not any(one.wants(event, trailed) for one in wishes):
            return None
        return event if trailed else event | {UNTRAILED: True}


def _wishes(view: View, account: str, region: str) -> list[_Wish]:
    def load() -> list[_Wish]:
        rules = view.scan(RULE.key, account, region, limit=10_000)
        found = {
            _Wish(row.doc["EventPattern"], row.status == WITH_READS)
            for row in rules
            if row.doc["EventBusName"] == DEFAULT
            and row.status != "DISABLED"
            and "EventPattern" in row.doc
            and _parts(row.doc["EventPattern"])[2]
        }
        bus = BUS.arn(account, region, DEFAULT)
        for row in view.scan(ARCHIVE.key, account, region, limit=1000):
            pattern = row.doc.get("EventPattern")
            if row.doc["EventSourceArn"] == bus and (not pattern or _parts(pattern)[2]):
                found.add(_Wish(pattern or None, False))
        return list(found)

    scopes = ((RULE.key, account), (ARCHIVE.key, account))
    return view.memo(("events:recorded", account, region), scopes, load)
