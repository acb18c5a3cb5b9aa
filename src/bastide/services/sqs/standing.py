"""How messages stand in a queue: rows whose names are in the order in which they become due, so that a call costs what it
takes, whatever else stands there.

Of a standard queue a message is named by when it is to be seen: never received (``r``), or received and hidden until then
(``f``). Of a FIFO queue messages are named by their group, and a second row says when the group's first message is due. The
kinds carry the queue's id: emptying a queue gives it another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bastide.domain import Instant
from bastide.store import Row, Transaction, View

GARBAGE: Final = "sqs:Garbage"
"""Under account "": ids of queues that are no more, whose messages are to be swept away."""
MESSAGE: Final = "sqs:Message:"
GROUP: Final = "sqs:Group:"
MOVED: Final = "sqs:Moved:"
"""Of a standard queue: where a received message stands whose visibility was changed, by its number and receives."""
DEDUPLICATION: Final = "sqs:Deduplication:"
KINDS: Final = (MESSAGE, GROUP, MOVED, DEDUPLICATION)
MOST_HELD: Final = 10
"""Messages that one call receives, and so those of a group that may be in flight together."""
_MOST_COUNTED: Final = 1_000_000
_END: Final = "~"


class _Numbers:
    """Sequence numbers: of twenty digits, greater than every one before, also after a start."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: Instant) -> str:
        self._last = max(self._last + 1, now * 1000)
        return f"{self._last:020d}"


_numbers = _Numbers()


@dataclass(frozen=True, slots=True)
class Place:
    """Whose messages: account, region and the queue's id."""

    account: str
    region: str
    id: str

    def row(self, kind: str, name: str, doc: dict[str, Any], created: Instant = 0) -> Row:
        """A new row of the queue."""
        return Row(f"{kind}{self.id}", self.account, self.region, name, doc, created=created)


def place_of(queue: Row) -> Place:
    """Where a queue's messages are."""
    return Place(queue.account, queue.region, str(queue.doc["id"]))


def discard(tx: Transaction, queue: Row) -> None:
    """Leaves what stands in a queue to be swept away."""
    tx.insert(Row(GARBAGE, "", "", queue.doc["id"], {"account": queue.account, "region": queue.region}), keep=False)


class Standing(Protocol):
    """What a queue can do with its messages. Rows: doc has ``n`` (number), ``d`` (due), ``r`` (receives)."""

    def counts(self, now: Instant) -> dict[str, int]:
        """How many are visible, hidden and delayed."""
        ...

    def soonest(self) -> Instant | None:
        """When the first one is due."""
        ...

    def due(self, now: Instant, limit: int) -> list[Row]:
        """Messages that may be received now, in their order."""
        ...

    def find(self, name: str, number: str, receives: int) -> Row | None:
        """The message that was received as that, if nobody received it since."""
        ...

    def add(self, doc: dict[str, Any], now: Instant, due: Instant, created: Instant) -> str:
        """A new message; its number."""
        ...

    def hold(self, row: Row, until: Instant) -> Row:
        """It was received: hidden until then."""
        ...

    def postpone(self, row: Row, until: Instant) -> None:
        """A received message is hidden until another moment."""
        ...

    def drop(self, row: Row) -> None:
        """It is gone."""
        ...


def standing(view: View, queue: Row) -> Standing:
    """How a queue's messages stand; what changes them needs a transaction."""
    return Grouped(view, place_of(queue)) if queue.doc["fifo"] else Loose(view, place_of(queue))


class _Base:
    def __init__(self, view: View, place: Place) -> None:
        self._view = view
        self._at = place

    @property
    def _tx(self) -> Transaction:
        assert hasattr(self._view, "insert"), "messages change in transactions"
        return self._view  # type: ignore[return-value]

    def _scan(self, kind: str, **how: Any) -> list[Row]:
        return self._view.scan(f"{kind}{self._at.id}", self._at.account, self._at.region, **how)

    def _count(self, low: str, high: str, kind: str = MESSAGE) -> int:
        at = self._at
        return self._view.count(
            f"{kind}{at.id}", at.account, at.region, at_or_after=low, before=high, limit=_MOST_COUNTED
        )

    def _get(self, kind: str, name: str) -> Row | None:
        return self._view.get(f"{kind}{self._at.id}", self._at.account, self._at.region, name)

    def _renamed(self, row: Row, name: str, doc: dict[str, Any]) -> Row:
        self._tx.delete(row, keep=False)
        made = self._at.row(MESSAGE, name, doc, row.created)
        self._tx.insert(made, keep=False)
        return made


class Loose(_Base):
    """A standard queue."""

    @staticmethod
    def _name(state: str, due: Instant, number: str) -> str:
        return f"{state}{due:016x}/{number}"

    def counts(self, now: Instant) -> dict[str, int]:
        edge = f"{now + 1:016x}"
        return {
            "visible": self._count("r", f"r{edge}") + self._count("f", f"f{edge}"),
            "hidden": self._count(f"f{edge}", f"f{_END}"),
            "delayed": self._count(f"r{edge}", f"r{_END}"),
        }

    def soonest(self) -> Instant | None:
        heads = [row for state in "fr" for row in self._scan(MESSAGE, prefix=state, limit=1)]
        return min((int(row.doc["d"]) for row in heads), default=None)

    def due(self, now: Instant, limit: int) -> list[Row]:
        rows = [row for state in "fr" for row in self._scan(MESSAGE, prefix=state, limit=limit)]
        return sorted((row for row in rows if row.doc["d"] <= now), key=lambda row: row.name[1:])[:limit]

    def find(self, name: str, number: str, receives: int) -> Row | None:
        row = self._get(MESSAGE, name)
        if row is None:
            moved = self._get(MOVED, f"{number}/{receives}")
            row = self._get(MESSAGE, moved.doc["name"]) if moved is not None else None
        return row if row is not None and (row.doc["n"], row.doc["r"]) == (number, receives) else None

    def add(self, doc: dict[str, Any], now: Instant, due: Instant, created: Instant) -> str:
        number = _numbers.next(now)
        doc = {**doc, "n": number, "d": due, "r": 0}
        self._tx.insert(self._at.row(MESSAGE, self._name("r", due, number), doc, created), keep=False)
        return number

    def _unmoved(self, row: Row) -> None:
        held = self._get(MOVED, f"{row.doc['n']}/{row.doc['r']}") if row.doc.get("moved") else None
        if held is not None:
            self._tx.delete(held, keep=False)

    def hold(self, row: Row, until: Instant) -> Row:
        self._unmoved(row)
        doc = {key: value for key, value in row.doc.items() if key != "moved"}
        doc |= {"d": until, "r": row.doc["r"] + 1}
        return self._renamed(row, self._name("f", until, doc["n"]), doc)

    def postpone(self, row: Row, until: Instant) -> None:
        self._unmoved(row)
        made = self._renamed(row, self._name("f", until, row.doc["n"]), {**row.doc, "d": until, "moved": True})
        self._tx.insert(self._at.row(MOVED, f"{row.doc['n']}/{row.doc['r']}", {"name": made.name}), keep=False)

    def drop(self, row: Row) -> None:
        self._unmoved(row)
        self._tx.delete(row, keep=False)


class Grouped(_Base):
    """A FIFO queue: of a group nothing is received while something of it is in flight."""

    @staticmethod
    def _of(group: str) -> str:
        return hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _ready(self, group: str) -> Instant | None:
        """When the group's first message may be received; None of a group without any."""
        rows = self._scan(MESSAGE, prefix=f"{group}/", limit=MOST_HELD)
        if not rows:
            return None
        return max([int(rows[0].doc["d"]), *(int(row.doc["d"]) for row in rows if row.doc["r"])])

    @contextmanager
    def _settling(self, group: str) -> Iterator[None]:
        before = self._ready(group)
        yield
        after = self._ready(group)
        if before == after:
            return
        if before is not None:
            held = self._get(GROUP, f"{before:016x}/{group}")
            assert held is not None
            self._tx.delete(held, keep=False)
        if after is not None:
            self._tx.insert(self._at.row(GROUP, f"{after:016x}/{group}", {}), keep=False)

    def counts(self, now: Instant) -> dict[str, int]:
        total = self._count("", _END)
        hidden = delayed = 0
        after: str | None = f"{now + 1:016x}"
        while True:
            groups = self._scan(GROUP, after=after, limit=500)
            for one in groups:
                for row in self._scan(MESSAGE, prefix=f"{one.name.partition('/')[2]}/", limit=MOST_HELD):
                    hidden += row.doc["d"] > now and row.doc["r"] > 0
                    delayed += row.doc["d"] > now and row.doc["r"] == 0
            if len(groups) < 500:
                return {"visible": max(0, total - hidden - delayed), "hidden": hidden, "delayed": delayed}
            after = groups[-1].name

    def soonest(self) -> Instant | None:
        groups = self._scan(GROUP, limit=1)
        return int(groups[0].name.partition("/")[0], 16) if groups else None

    def due(self, now: Instant, limit: int) -> list[Row]:
        found: list[Row] = []
        for one in self._scan(GROUP, limit=limit):
            ready, _, group = one.name.partition("/")
            if int(ready, 16) > now or len(found) >= limit:
                break
            for row in self._scan(MESSAGE, prefix=f"{group}/", limit=limit - len(found)):
                if row.doc["d"] > now:
                    break
                found.append(row)
        return found

    def find(self, name: str, number: str, receives: int) -> Row | None:
        row = self._get(MESSAGE, name)
        return row if row is not None and (row.doc["n"], row.doc["r"]) == (number, receives) else None

    def add(self, doc: dict[str, Any], now: Instant, due: Instant, created: Instant) -> str:
        number, group = _numbers.next(now), self._of(doc["group"])
        with self._settling(group):
            doc = {**doc, "n": number, "d": due, "r": 0}
            self._tx.insert(self._at.row(MESSAGE, f"{group}/{number}", doc, created), keep=False)
        return number

    def _changed(self, row: Row, doc: dict[str, Any]) -> Row:
        with self._settling(row.name.partition("/")[0]):
            row.doc = doc
            self._tx.update(row, keep=False)
        return row

    def hold(self, row: Row, until: Instant) -> Row:
        return self._changed(row, {**row.doc, "d": until, "r": row.doc["r"] + 1})

    def postpone(self, row: Row, until: Instant) -> None:
        self._changed(row, {**row.doc, "d": until})

    def drop(self, row: Row) -> None:
        with self._settling(row.name.partition("/")[0]):
            self._tx.delete(row, keep=False)
