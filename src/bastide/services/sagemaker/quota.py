"""How many instances of a type an account's jobs may have at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from bastide.domain import Refused
from bastide.engines.placement import Placement
from bastide.kernel import Authorised, Kind
from bastide.store import Row, View

MOST_HOSTS: Final = 20
"""Instances of a job; AWS's default quota."""
_PAGE: Final = 500


def check(
    a: Authorised,
    view: View,
    kind: Kind,
    what: str,
    wanted: Sequence[tuple[str, int]],
    *,
    also: Iterable[Row] = (),
    keep: Callable[[Row], bool] = lambda _: True,
) -> None:
    """Raises Refused for types that there are not, for more instances than a job may have, and for more than the account
    may. what: ``training``, ``training-warm-pool``, ``processing`` or ``transform``. wanted: types and counts. also: jobs
    that hold instances though they have ended. keep: which jobs count."""
    placement = a.engine(Placement)
    asked: Counter[str] = Counter()
    for name, count in wanted:
        placement.grant(name, here=what == "transform")
        asked[name] += count
    if asked.total() > MOST_HOSTS:
        name, count = asked.most_common(1)[0]
        raise _exceeded(f"Number of instances across a {what} job", MOST_HOSTS, 0, asked.total())
    limits = {name: most for name in asked if (most := placement.quota(what, name)) is not None}
    if not limits:
        return
    held: Counter[str] = Counter()
    for row in filter(keep, itertools.chain(_going(a, view, kind), also)):
        for name, count in _instances(row):
            held[name] += count
    for name, most in limits.items():
        if held[name] + asked[name] > most:
            raise _exceeded(f"{name} for {what} job usage", most, held[name], asked[name])


def _exceeded(name: str, most: int, held: int, asked: int) -> Refused:
    return Refused(
        "ResourceLimitExceeded",
        f"The account-level service limit '{name}' is {most} Instances, with current utilization of {held} Instances and a "
        f"request delta of {asked} Instances. Please wait for jobs to end, or have the platform's operator raise it.",
    )


def _going(a: Authorised, view: View, kind: Kind) -> Iterable[Row]:
    for status in ("InProgress", "Stopping"):
        after: str | None = None
        while True:
            rows = view.scan(kind.key, a.account, a.region, status=status, after=after, limit=_PAGE)
            yield from rows
            if len(rows) < _PAGE:
                break
            after = rows[-1].name


def _instances(row: Row) -> list[tuple[str, int]]:
    doc = row.doc
    resources = (
        doc.get("ResourceConfig") or doc.get("TransformResources") or doc["ProcessingResources"]["ClusterConfig"]
    )
    every = resources.get("InstanceGroups") or [resources]
    return [(one["InstanceType"], int(one.get("InstanceCount") or 1)) for one in every]
