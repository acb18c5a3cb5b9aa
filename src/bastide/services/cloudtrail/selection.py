"""Which recorded events a trail is of."""

from __future__ import annotations

from typing import Any

from bastide.domain import Arn
from bastide.kernel import Calls
from bastide.store import Event

PRINCIPAL = "cloudtrail.amazonaws.com"


class Selection:
    """What a trail takes, by its document."""

    def __init__(self, calls: Calls, trail: Arn, doc: dict[str, Any]) -> None:
        self._calls = calls
        self._trail = trail
        self._doc = doc
        self._accounts = {trail.account: True}

    def takes(self, event: Event, record: dict[str, Any]) -> bool:
        """Whether an event, whose entry is `record`, is one of the trail's."""
        if not self._member(event.account) or own(record):
            return False
        if any(start < event.at and (until is None or event.at < until) for start, until in self._doc["Silent"]):
            return False
        if not self._doc["IsMultiRegionTrail"] and record["awsRegion"] != self._trail.region:
            return False
        return _selected(record, self._doc["Selectors"])

    def _member(self, account: str) -> bool:
        if account not in self._accounts:
            whole = self._doc["IsOrganizationTrail"]
            with self._calls.store.reading() as view:
                self._accounts[account] = whole and self._calls.organisation.place(view, account) is not None
        return self._accounts[account]


def own(record: dict[str, Any]) -> bool:
    """Whether it is what delivering did: delivered itself, that would never come to an end."""
    return PRINCIPAL in (record["userIdentity"].get("invokedBy"), record.get("sourceIPAddress"))


def _selected(record: dict[str, Any], selectors: list[dict[str, Any]]) -> bool:
    for selector in selectors:
        wanted = selector.get("ReadWriteType") or "All"
        if wanted != "All" and (wanted == "ReadOnly") != bool(record["readOnly"]):
            continue
        if record["managementEvent"]:
            if selector.get("IncludeManagementEvents", True) and record["eventSource"] not in (
                selector.get("ExcludeManagementEventSources") or ()
            ):
                return True
            continue
        for resource in selector.get("DataResources") or ():
            values = tuple(resource.get("Values") or ())
            for one in record["resources"]:
                if one.get("type") == resource["Type"] and str(one["ARN"]).startswith(values):
                    return True
    return False
