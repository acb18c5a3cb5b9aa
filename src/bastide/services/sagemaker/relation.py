"""Pairs of names that are found from either side: trials of an experiment, components of a trial, jobs' components."""

from __future__ import annotations

from typing import Final

from bastide.store import Row, Taken, Transaction, View

_BETWEEN: Final = "|"
"""Stands in no name and in no ARN."""


class Relation:
    """Rows that are no resources: ``LEFT|RIGHT`` and, to be found from the other side, ``RIGHT|LEFT``."""

    def __init__(self, name: str) -> None:
        self._there, self._back = f"sagemaker:{name}", f"sagemaker:{name}Back"

    def add(self, tx: Transaction, account: str, region: str, left: str, right: str) -> bool:
        """Relates the two; False if they were already."""
        try:
            for kind, name in self._names(left, right):
                tx.insert(Row(kind, account, region, name, {}), keep=False)
        except Taken:
            return False
        return True

    def drop(self, tx: Transaction, account: str, region: str, left: str, right: str) -> bool:
        """Parts the two; False if they were not related."""
        found = [tx.get(kind, account, region, name) for kind, name in self._names(left, right)]
        for row in found:
            if row is not None:
                tx.delete(row, keep=False)
        return found[0] is not None

    def rights(self, view: View, account: str, region: str, left: str, *, limit: int = 10_000) -> list[str]:
        """What `left` is related to, by name."""
        return self._of(view, self._there, account, region, left, limit)

    def lefts(self, view: View, account: str, region: str, right: str, *, limit: int = 10_000) -> list[str]:
        """What is related to `right`, by name."""
        return self._of(view, self._back, account, region, right, limit)

    def _names(self, left: str, right: str) -> tuple[tuple[str, str], tuple[str, str]]:
        return (self._there, f"{left}{_BETWEEN}{right}"), (self._back, f"{right}{_BETWEEN}{left}")

    @staticmethod
    def _of(view: View, kind: str, account: str, region: str, name: str, limit: int) -> list[str]:
        prefix = f"{name}{_BETWEEN}"
        return [row.name[len(prefix) :] for row in view.scan(kind, account, region, prefix=prefix, limit=limit)]


TRIALS: Final = Relation("TrialOfExperiment")
"""Experiment, trial."""
COMPONENTS: Final = Relation("ComponentOfTrial")
"""Trial, component."""
SOURCES: Final = Relation("ComponentOfSource")
"""ARN of a job in lower case, as the SDK asks for it, and the job's component."""
WARM: Final = Relation("WarmPool")
"""``Available``, and the training job whose instances are kept."""
