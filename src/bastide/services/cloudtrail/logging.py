"""Whether trails log what happens somewhere."""

from __future__ import annotations

from bastide.domain import Arn
from bastide.kernel import Calls
from bastide.services.cloudtrail.trail import INDEX, TRAIL
from bastide.store import View


class Logging:
    """Asked of an account and region, within whatever transaction."""

    def __init__(self, calls: Calls) -> None:
        self._organisation = calls.organisation
        self._home = calls.home

    def __call__(self, view: View, account: str, region: str) -> bool:
        """Whether a trail logs management events there: one of the account's own, or of its organisation."""
        if _logs(view, account, region, organisation=False):
            return True
        member = account == self._home or self._organisation.place(view, account) is not None
        return member and _logs(view, self._home, region, organisation=True)


def _logs(view: View, account: str, region: str, *, organisation: bool) -> bool:
    def load() -> bool:
        for found in view.scan(INDEX, "", "", limit=10_000):
            arn = Arn.parse(found.name)
            if arn.account != account:
                continue
            row = TRAIL.get(view, arn.account, arn.region, arn.name)
            if row is None or not row.doc["IsLogging"]:
                continue
            if organisation and not row.doc["IsOrganizationTrail"]:
                continue
            manages = any(one.get("IncludeManagementEvents", True) for one in row.doc["Selectors"])
            if manages and (arn.region == region or row.doc["IsMultiRegionTrail"]):
                return True
        return False

    return view.memo(("cloudtrail:logs", account, region, organisation), ((INDEX, ""), (TRAIL.key, account)), load)
