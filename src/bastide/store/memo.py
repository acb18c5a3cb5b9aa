"""Values that were computed from rows, kept while those rows stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

_LIMIT: Final = 50_000

Read = tuple[str, str, str, str, int]
"""A row that was read: kind, account, region, name, and its generation then, 0 if there was none."""


class Memo:
    """Values that hold until something they were read from changes. One for the reader and one for the writer: what
    is not yet committed must not reach a decision of somebody who reads."""

    __slots__ = ("ends", "epochs", "values")

    def __init__(self) -> None:
        self.epochs: dict[tuple[str, str], int] = {}
        self.ends: dict[tuple[str, str], int] = {}
        """How often a row of the scope was deleted: a row made anew begins to count its generations again."""
        self.values: dict[Any, tuple[tuple[int, ...], Any, Sequence[Read] | None]] = {}

    def stamp(self, scopes: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """What the scopes' rows have come to."""
        epochs = self.epochs
        return tuple([epochs.get(scope, 0) for scope in scopes])

    def kept(self, scopes: Sequence[tuple[str, str]], reads: Sequence[Read] | None) -> Sequence[Read] | None:
        """The reads, with the ends of their scopes before them."""
        if reads is None:
            return None
        return [("", "", "", "", sum(self.ends.get(scope, 0) for scope in scopes)), *reads]

    def hold(self, key: Any, stamp: tuple[int, ...], value: Any, reads: Sequence[Read] | None) -> None:
        """Remembers a value."""
        if len(self.values) >= _LIMIT:
            self.values.clear()
        self.values[key] = (stamp, value, reads)

    def touch(self, scopes: Iterable[tuple[str, str]], ended: Iterable[tuple[str, str]] = ()) -> None:
        for scope in scopes:
            self.epochs[scope] = self.epochs.get(scope, 0) + 1
        for scope in ended:
            self.ends[scope] = self.ends.get(scope, 0) + 1
