"""What the kernel and the engines may ask of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from bastide.domain import Instant, Tags

T = TypeVar("T")


class Taken(Exception):  # noqa: N818
    """A row of that kind and name exists already."""


class Stale(Exception):  # noqa: N818
    """The row was changed or removed since it was read (its generation moved on)."""


@dataclass(slots=True)
class Row:
    """One resource as it is kept. `doc` is JSON; `generation` grows by one with every change."""

    kind: str
    account: str
    region: str
    name: str
    doc: dict[str, Any]
    status: str = ""
    tags: Tags = field(default_factory=dict)
    created: Instant = 0
    modified: Instant = 0
    generation: int = 0


@dataclass(slots=True)
class Event:
    """One audit entry in the form it is searched by; `body` is the whole record as JSON."""

    account: str
    at: Instant
    id: str
    name: str
    source: str
    user: str
    access_key: str
    read_only: bool
    category: str
    error: str
    request_id: str
    resources: tuple[str, ...]
    body: bytes
    seq: int = 0


@dataclass(slots=True)
class LogLine:
    """One line of a log stream. `at` is the line's own time, `ingested` when it was stored; `message` as it was given."""

    seq: int
    at: Instant
    ingested: Instant
    message: str | bytes


Order = Literal["name", "created"]


class View(Protocol):
    """A consistent reading of the state."""

    changes: int
    """Grows whenever something may have been written: two views with the same number see the same state."""

    def get(self, kind: str, account: str, region: str, name: str) -> Row | None:
        """One row, or None."""
        ...

    def scan(
        self,
        kind: str,
        account: str,
        region: str,
        *,
        order: Order = "name",
        descending: bool = False,
        prefix: str = "",
        after: tuple[Instant, str] | str | None = None,
        at_or_after: str | None = None,
        status: str | None = None,
        created_from: Instant | None = None,
        created_to: Instant | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """Rows in order of name (bytes of UTF-8) or of creation, at most `limit`, behind the position `after`
        (a name, or creation time and name). Every call is a walk along an index: its cost is that of the rows returned.
        """
        ...

    def count(self, kind: str, account: str, region: str, *, at_or_after: str = "", before: str, limit: int) -> int:
        """How many rows have a name in a range, counted up to `limit`: along an index, no row is read."""
        ...

    def tagged(
        self,
        kind: str,
        account: str,
        region: str,
        *,
        key: str | None = None,
        value: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Row]:
        """Resources that have tags, or a tag of that key, or that very tag, by name, at most `limit` behind `after`. Every
        call is a walk along an index. Only rows that keep history are resources here."""
        ...

    def tag_keys(self, account: str, region: str, *, after: str = "", limit: int = 100) -> list[str]:
        """Keys of the tags of resources, in order, each once."""
        ...

    def tag_values(
        self, account: str, region: str, key: str, *, after: str | None = None, limit: int = 100
    ) -> list[str]:
        """Values that resources have under a tag key, in order, each once."""
        ...

    def history(self, kind: str, account: str, region: str, name: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """What happened to one resource, newest first."""
        ...

    def token(self, account: str, operation: str, token: str) -> tuple[bytes, bytes] | None:
        """Hash of the parameters and the answer kept under an idempotency token."""
        ...

    def events(
        self,
        account: str,
        *,
        before: tuple[Instant, int] | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        where: tuple[str, str] | None = None,
        category: str | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """Audit entries of an account, newest first; `where` is a column of Event and the value wanted."""
        ...

    def unsettled(self) -> bool:
        """Whether recorded entries wait to be made searchable."""
        ...

    def events_after(self, seq: int, *, limit: int = 1000) -> list[Event]:
        """Audit entries of all accounts in the order they were stored, for delivery."""
        ...

    def log_lines(
        self,
        stream: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        after: tuple[Instant, int] | None = None,
        before: tuple[Instant, int] | None = None,
        forward: bool = True,
        limit: int = 10_000,
    ) -> list[LogLine]:
        """Lines of one stream, oldest first. `forward` takes the first `limit` behind `after`, otherwise the last
        `limit` before `before`; both are a line's time and sequence."""
        ...

    def blob(self, id: str) -> bytes | None:
        """A few bytes kept in the store itself, because a file of their own would cost more than they do."""
        ...

    def meta(self, key: str) -> str | None:
        """A named value of the platform itself."""
        ...

    def outbox(self, after: int, *, limit: int = 500) -> list[tuple[int, str, dict[str, Any]]]:
        """Events that wait to leave: sequence, topic, body."""
        ...

    def executions(self, *, due: Instant, limit: int = 100) -> list[dict[str, Any]]:
        """Workflow executions that may be taken up at that time."""
        ...

    def execution(self, id: str) -> dict[str, Any] | None:
        """One workflow execution."""
        ...

    def steps(self, execution: str) -> list[dict[str, Any]]:
        """History of one workflow execution, oldest first."""
        ...

    def memo(self, key: Any, scopes: Sequence[tuple[str, str]], load: Callable[[], T], *, by_rows: bool = False) -> T:
        """`load()`, remembered until a row of one of the (kind, account) `scopes` changes.

        by_rows: it is remembered until one of the rows changes that `load` got, or one of the scopes loses a row; for what
        is read from few rows among many that change.
        """
        ...


class Transaction(View, Protocol):
    """A reading that may also change. Everything in it happens, on the disk, or nothing does."""

    now: Instant

    def insert(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        """A new row; raises Taken. `keep` writes history."""
        ...

    def update(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        """Replaces the row whose generation it was read at; raises Stale. The row's generation moves on."""
        ...

    def delete(self, row: Row, *, event: str = "", request_id: str = "", keep: bool = True) -> None:
        """Removes the row whose generation it was read at; raises Stale."""
        ...

    def keep_token(self, account: str, operation: str, token: str, digest: bytes, answer: bytes) -> None:
        """Remembers an answer under an idempotency token."""
        ...

    def emit(self, topic: str, body: dict[str, Any]) -> None:
        """Puts an event into the outbox; it leaves after the commit."""
        ...

    def record(self, events: Iterable[Event]) -> None:
        """Stores audit entries; `settle` makes them searchable."""
        ...

    def settle(self, events: Iterable[Event]) -> None:
        """Makes what was recorded so far searchable, and `events` with it; one whose id and account are there already
        is left alone."""
        ...

    def put_blob(self, id: str, data: bytes) -> None:
        """Keeps a few bytes (at most 64 KiB) under a new id."""
        ...

    def drop_blob(self, id: str) -> None:
        """Forgets them."""
        ...

    def append_log(self, stream: str, lines: Iterable[tuple[Instant, str | bytes]]) -> None:
        """Appends lines (their time, what is kept of them) to a log stream."""
        ...

    def expire_log(self, stream: str, before: Instant, limit: int) -> int:
        """Removes at most `limit` lines older than `before`; how many there were."""
        ...

    def drop_log(self, stream: str) -> None:
        """Removes a stream's lines."""
        ...

    def set_meta(self, key: str, value: str) -> None:
        """Sets a named value of the platform itself."""
        ...

    def trim_outbox(self, upto: int) -> None:
        """Forgets events that have left."""
        ...

    def put_execution(self, execution: dict[str, Any]) -> None:
        """Inserts or replaces a workflow execution."""
        ...

    def add_step(self, execution: str, step: str, event: str, detail: dict[str, Any]) -> None:
        """Adds a line to an execution's history."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """What is done inside is undone if it ends with an exception."""
        ...


class Store(Protocol):
    """A database that holds all accounts."""

    def reading(self) -> AbstractContextManager[View]:
        """The last committed state. The view must not be kept over an await."""
        ...

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Runs `work` and returns its result once it is on the disk. Concurrent calls share one commit, each
        undone alone if it raises."""
        ...

    def close(self) -> None:
        """Ends after the last commit."""
        ...
