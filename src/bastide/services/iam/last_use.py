"""When access keys, users and roles were last used, for which service, and from which region.

Every call that was signed is noted in memory. What was noted is written in one transaction a minute, and at the end: a
request never waits for it, and a crash loses the last minute. Source: IAM User Guide, "Refine permissions in AWS using last
accessed information" (AWS itself reports activity some hours late).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bastide.domain import Instant
from bastide.kernel import Caller
from bastide.store import Row, Store, Transaction, View

LAST_USE: Final = "iam:LastUse"
"""Rows named by an access key's, a user's or a role's id: for each service, time, region and the caller's ARN."""
_SECONDS: Final = 60
_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Use:
    """One use. service: its prefix in policies; by: the ARN of who asked."""

    at: Instant
    service: str
    region: str
    by: str


_Noted = dict[str, tuple[Instant, str, str]]


class LastUse:
    """What was used when. Lives on the event loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[tuple[str, str], _Noted] = {}
        self._leaving: dict[tuple[str, str], _Noted] = {}
        """What is being written."""
        self._task: asyncio.Task[None] | None = None

    def note(self, caller: Caller, service: str, region: str, at: Instant) -> None:
        """Keeps that a caller made a request of a service."""
        session = caller.session
        if session is None:
            if caller.kind != "User":
                return
            self._put(caller.account, caller.access_key, caller.arn, service, region, at)
            self._put(caller.account, caller.user_id, caller.arn, service, region, at)
        else:
            self._put(session.account, session.role_id, caller.arn, service, region, at)

    def _put(self, account: str, id: str, by: str, service: str, region: str, at: Instant) -> None:
        held = self._noted.get((account, id))
        if held is None:
            held = self._noted[account, id] = {}
        held[service] = (at, region, by)

    def by_service(self, view: View, account: str, id: str) -> Mapping[str, Use]:
        """The last use of an id for each service that it was used for."""
        row = view.get(LAST_USE, account, "", id)
        found = {} if row is None else {**row.doc}
        found |= self._leaving.get((account, id), {})
        found |= self._noted.get((account, id), {})
        return {service: Use(at, service, region, by) for service, (at, region, by) in found.items()}

    def latest(self, view: View, account: str, id: str) -> Use | None:
        """The last use of an id, or None."""
        return max(self.by_service(view, account, id).values(), key=lambda use: use.at, default=None)

    def forget(self, tx: Transaction, account: str, id: str) -> None:
        """Nothing is known any more of an id that is gone."""
        self._noted.pop((account, id), None)
        self._leaving.pop((account, id), None)
        row = tx.get(LAST_USE, account, "", id)
        if row is not None:
            tx.delete(row, keep=False)

    async def flush(self) -> None:
        """Writes what was noted."""
        self._leaving, self._noted = self._noted, {}
        try:
            while self._leaving:
                batch = list(self._leaving)[:_BATCH]
                await self._store.write(lambda tx, batch=batch: self._write(tx, batch))  # type: ignore[misc]
                for key in batch:
                    self._leaving.pop(key, None)
        except BaseException:
            for key, uses in self._leaving.items():
                self._noted[key] = {**uses, **self._noted.get(key, {})}
            self._leaving = {}
            raise

    def _write(self, tx: Transaction, batch: list[tuple[str, str]]) -> None:
        for account, id in batch:
            uses = self._leaving.get((account, id))
            if uses is None:  # forgotten in the meantime
                continue
            row = tx.get(LAST_USE, account, "", id)
            if row is None:
                tx.insert(Row(LAST_USE, account, "", id, dict(uses)), keep=False)
            else:
                row.doc.update(uses)
                tx.update(row, keep=False)

    def start(self) -> None:
        """Writes once a minute from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            with contextlib.suppress(Exception):  # noted again next time; nothing may end this task
                await self.flush()

    async def close(self) -> None:
        """Writes what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.flush()
