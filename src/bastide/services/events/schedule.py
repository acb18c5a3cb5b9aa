"""When a rule's schedule is due. Source: EventBridge User Guide, "Creating a rule that runs on a schedule"."""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo

from bastide.domain import Instant, Refused
from bastide.domain.schedule import NoSchedule
from bastide.domain.schedule import Schedule as Expression

_UTC: Final = ZoneInfo("UTC")


class Schedule:
    """A checked ``rate(...)`` or ``cron(...)``; raises Refused."""

    def __init__(self, text: str) -> None:
        try:
            self._held = Expression.of(text)
        except NoSchedule as wrong:
            raise Refused("ValidationException", f"Parameter ScheduleExpression is not valid. {wrong}") from None
        if self._held.once:
            raise Refused("ValidationException", "Parameter ScheduleExpression is not valid. at() is of schedules.")

    def due(self, last: Instant, now: Instant) -> bool:
        """Whether it became due between the moment it was looked at last and now."""
        following = self._held.following(last, start=last + self._held.every, zone=_UTC)
        return following is not None and following <= now
