"""What has to be delivered is a row until it is, or until it is given up; so nothing is lost by a crash, and what is
delivered may be delivered twice.

A `Deliveries` is one kind of such rows, under no account. It tries what is due, some at a time and of no account more than
its share; what fails is tried again after a pause that its owner tells, or given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel.calls import Calls
from bastide.store import Row, Taken, Transaction

_log = logging.getLogger("bastide.deliveries")
_AT_ONCE: Final = 64
_OF_AN_ACCOUNT: Final = 16
_LOOK_SECONDS: Final = 1.0

Doc = dict[str, Any]
Attempt = Callable[[Doc], Awaitable[None]]
"""Delivers once; raises Refused where that is refused."""
Pause = Callable[[Doc, Refused, Instant], float | None]
"""Seconds until the next attempt after that refusal; None gives up. ``attempts`` of the doc counts those made."""
GiveUp = Callable[[Doc, Refused], Awaitable[None]]
"""Called when it is given up, before the row goes."""


class Deliveries:
    """Deliveries of one kind. Docs have ``account`` (whose share they take), ``attempts``, ``due`` and ``since``; those
    with a ``lane`` are delivered one after the other, in the order of their names."""

    def __init__(self, calls: Calls, kind: str, attempt: Attempt, pause: Pause, give_up: GiveUp) -> None:
        self._calls = calls
        self._kind = kind
        self._attempt, self._pause, self._give_up = attempt, pause, give_up
        self._due: list[tuple[Instant, str, str, str]] = []
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flying: set[asyncio.Task[None]] = set()
        self._share: dict[str, int] = {}
        self._crowd: dict[str, deque[tuple[Instant, str, str, str]]] = {}
        self._lanes: dict[str, tuple[str, deque[tuple[Instant, str, str, str]]]] = {}

    # -- what is to be delivered -----------------------------------------------------------------------------------------

    def put(self, tx: Transaction, name: str, doc: Doc, *, due: Instant | None = None) -> tuple[str, Doc] | None:
        """Keeps a delivery; None if one of that name is there. What it returns is for `wake`, after the commit."""
        doc = {**doc, "attempts": 0, "due": tx.now if due is None else due, "since": tx.now}
        try:
            tx.insert(Row(self._kind, "", "", name, doc), keep=False)
        except Taken:
            return None
        return name, doc

    def wake(self, made: Iterable[tuple[str, Doc] | None]) -> None:
        """Those are on the disk now."""
        for one in made:
            if one is not None:
                name, doc = one
                heapq.heappush(self._due, (doc["due"], name, doc["account"], doc.get("lane", "")))
        self._more.set()

    def start(self) -> None:
        """Delivers from now on, with what an earlier run left."""
        after: str | None = None
        while True:
            with self._calls.store.reading() as view:
                rows = view.scan(self._kind, "", "", after=after, limit=500)
            for row in rows:  # in the order of names, so that each lane's first is its first again
                entry = (row.doc["due"], row.name, row.doc.get("account", ""), row.doc.get("lane", ""))
                if entry[3] and entry[3] in self._lanes:
                    self._lanes[entry[3]][1].append(entry)
                    continue
                if entry[3]:
                    self._lanes[entry[3]] = (row.name, deque())
                heapq.heappush(self._due, entry)
            if len(rows) < 500:
                break
            after = rows[-1].name
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stops; what is not delivered waits for the next start."""
        for task in [*([self._task] if self._task is not None else []), *self._flying]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- delivering ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._more.clear()
            now = self._calls.clock()
            while self._due and self._due[0][0] <= now:
                entry = heapq.heappop(self._due)
                if self._waits(entry):
                    continue
                while len(self._flying) >= _AT_ONCE:
                    await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
                self._fly(entry)
            pause = _LOOK_SECONDS
            if self._due:
                pause = min(pause, max(0.001, (self._due[0][0] - now) / MICROS))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), pause)

    def _waits(self, entry: tuple[Instant, str, str, str]) -> bool:
        """Whether others come first: of its lane, or because its account has its share."""
        _, name, account, lane = entry
        if lane:
            held = self._lanes.setdefault(lane, (name, deque()))
            if held[0] != name:
                held[1].append(entry)
                return True
        if self._share.get(account, 0) >= _OF_AN_ACCOUNT:
            self._crowd.setdefault(account, deque()).append(entry)
            return True
        return False

    def _fly(self, entry: tuple[Instant, str, str, str]) -> None:
        _, name, account, lane = entry
        self._share[account] = self._share.get(account, 0) + 1
        task = asyncio.get_running_loop().create_task(self._deliver(name))
        self._flying.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._flying.discard(done)
            self._share[account] -= 1
            if not self._share[account]:
                del self._share[account]
            crowd = self._crowd.get(account)
            if crowd:
                heapq.heappush(self._due, crowd.popleft())
            elif crowd is not None:
                del self._crowd[account]
            if done.cancelled():
                return
            again = done.result() if done.exception() is None else self._calls.clock() + _LOOK_SECONDS * MICROS
            if again is not None:
                heapq.heappush(self._due, (int(again), name, account, lane))
            elif lane:
                _, waiting = self._lanes.pop(lane)
                if waiting:
                    following = waiting.popleft()
                    self._lanes[lane] = (following[1], waiting)
                    heapq.heappush(self._due, following)
            self._more.set()

        task.add_done_callback(landed)

    async def _deliver(self, name: str) -> Any:
        """Delivers once; when again, or None when that is over."""
        with self._calls.store.reading() as view:
            row = view.get(self._kind, "", "", name)
        if row is None:
            return None
        doc = row.doc
        doc["attempts"] = doc.get("attempts", 0) + 1
        try:
            await self._attempt(doc)
        except Refused as refused:
            failed: Refused | None = refused
        except Exception:
            _log.exception("%s %s could not be delivered", self._kind, name)
            failed = Refused("InternalError", "An internal error occurred.", 500)
        else:
            failed = None
        now, again = self._calls.clock(), None
        if failed is not None:
            seconds = self._pause(doc, failed, now)
            if seconds is not None:
                again = now + int(seconds * MICROS)
            else:
                try:
                    await self._give_up(doc, failed)
                except Exception:
                    _log.exception("%s %s was given up, and that could not be told", self._kind, name)

        def settle(tx: Transaction) -> None:
            held = tx.get(self._kind, "", "", name)
            if held is None:
                return
            if again is None:
                tx.delete(held, keep=False)
                return
            held.doc |= {"attempts": doc["attempts"], "due": again}
            tx.update(held, keep=False)

        await self._calls.store.write(settle)
        return again
