"""What was measured, by minute, for whoever decides by it.

The port is narrow on purpose: services record single values and read sums of minutes. The driver here remembers a few hours
in memory; nothing of it survives the process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from bastide.domain import MICROS, Instant

_MINUTE: Final = 60 * MICROS
_MOST_MINUTES: Final = 180


@dataclass(slots=True)
class Minute:
    """What came in during one minute. at: its beginning."""

    at: Instant
    count: int = 0
    sum: float = 0.0
    least: float = 0.0
    most: float = 0.0


class Meter(Protocol):
    """Takes values and tells what it took."""

    def record(
        self, namespace: str, dimensions: Mapping[str, str], name: str, value: float, unit: str, at: Instant
    ) -> None:
        """Takes a value. Must be quick: it is called for every invocation."""
        ...

    def minutes(
        self, namespace: str, dimensions: Mapping[str, str], name: str, since: Instant, until: Instant
    ) -> list[Minute]:
        """The minutes that began within [since, until) and in which something came in, in their order."""
        ...


class Recent:
    """A Meter that remembers three hours."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, frozenset[tuple[str, str]]], OrderedDict[Instant, Minute]] = {}

    def record(
        self, namespace: str, dimensions: Mapping[str, str], name: str, value: float, unit: str, at: Instant
    ) -> None:
        """See the port."""
        series = self._series.setdefault((namespace, name, frozenset(dimensions.items())), OrderedDict())
        begin = at - at % _MINUTE
        minute = series.get(begin)
        if minute is None:
            minute = series[begin] = Minute(begin, least=value, most=value)
            while len(series) > _MOST_MINUTES:
                series.popitem(last=False)
        minute.count += 1
        minute.sum += value
        minute.least = min(minute.least, value)
        minute.most = max(minute.most, value)

    def minutes(
        self, namespace: str, dimensions: Mapping[str, str], name: str, since: Instant, until: Instant
    ) -> list[Minute]:
        """See the port."""
        series = self._series.get((namespace, name, frozenset(dimensions.items())))
        return [one for begin, one in sorted((series or {}).items()) if since <= begin < until]
