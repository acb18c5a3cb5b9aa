"""Bookings on this machine."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bastide.engines.placement.types import GIB, instance_type


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job on a type may use here."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A booking. generation: grows with every booking; a claim whose generation is not the holder's newest is stale and
    frees nothing."""

    holder: str
    generation: int
    grant: Grant


class Placement:
    """This machine's capacity. Bookings are this process's, as the sandboxes that use them are."""

    def __init__(
        self,
        *,
        memory_bytes: int | None = None,
        cpus: int | None = None,
        times: float = 4.0,
        keep_bytes: int | None = None,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        """memory_bytes, cpus: the machine's, found out by default. times: how often memory may be booked. keep_bytes:
        memory that no job gets, an eighth by default. quotas: see `quota`."""
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = memory_bytes or found
        self._most = memory - (memory // 8 if keep_bytes is None else keep_bytes)
        self._cpus = cpus or os.cpu_count() or 1
        self._total = self._free = int(self._most * times)
        self._held: dict[str, Claim] = {}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._quotas = dict(quotas or {})
        self._generation = 0
        self._yielding: dict[str, Callable[[], None]] = {}

    def quota(self, what: str, type_name: str) -> int | None:
        """How many instances of a type an account's jobs may have at a time; None for as many as it likes. what: the kind
        of job, whose quota is ``training/ml.m5.large``; one for all kinds is ``ml.m5.large``, one for all types ``*``."""
        for name in (f"{what}/{type_name}", type_name, f"{what}/*", "*"):
            if name in self._quotas:
                return self._quotas[name]
        return None

    def grant(self, type_name: str) -> Grant:
        """What a type grants here; raises Refused for a type that is not there."""
        found = instance_type(type_name)
        return Grant(float(min(found.cpus, self._cpus)), min(found.memory_bytes, self._most))

    def part(self, memory_bytes: int, cpus: float) -> Grant:
        """What a piece of the machine grants that is no instance type."""
        return Grant(min(cpus, float(self._cpus)), min(memory_bytes, self._most))

    def _wanted(self, wanted: Sequence[str | Grant]) -> Grant:
        grants = [self.grant(one) if isinstance(one, str) else one for one in wanted]
        # Who wants more than there is gets it alone.
        memory = min(sum(one.memory_bytes for one in grants), self._total)
        return Grant(sum(one.cpus for one in grants), memory)

    def busy(self, *wanted: str | Grant) -> str:
        """Why a claim would have to wait now; empty if it would not."""
        memory = self._wanted(wanted).memory_bytes
        if self.waiting:
            return f"{self.waiting} that asked before"
        if memory > self._free:
            return f"{memory / GIB:.1f} GiB of memory, of which {self._free / GIB:.1f} GiB are free"
        return ""

    async def claim(self, holder: str, *wanted: str | Grant, yields: Callable[[], None] | None = None) -> Claim:
        """Books types, or what `part` gave, for all of a holder's instances or none, in the order of asking, when there is
        room. The holder's earlier claim becomes stale.

        yields: the booking may be taken back. It is called when somebody whose booking may not waits for the room, and the
        holder then is to release it soon.
        """
        grant = self._wanted(wanted)
        earlier = self._held.get(holder)
        if earlier is not None:
            self.release(earlier)
        if self._waiting or grant.memory_bytes > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((grant.memory_bytes, turn))
            if yields is None:
                self._press(grant.memory_bytes)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free += grant.memory_bytes
                self._next()
                raise
        else:
            self._free -= grant.memory_bytes
        self._generation += 1
        claim = Claim(holder, self._generation, grant)
        self._held[holder] = claim
        if yields is not None:
            self._yielding[holder] = yields
        return claim

    def _press(self, wanted: int) -> None:
        """Asks holders that yield, the newest first, for the room that lacks."""
        lacking = wanted - self._free
        for holder in sorted(self._yielding, key=lambda one: -self._held[one].generation):
            if lacking <= 0:
                return
            lacking -= self._held[holder].grant.memory_bytes
            self._yielding.pop(holder)()

    def hand_over(self, claim: Claim, holder: str) -> Claim | None:
        """Makes somebody else the holder of a booking, ahead of all who wait; None if it is stale. It no longer yields."""
        if self._held.get(claim.holder) != claim:
            return None
        del self._held[claim.holder]
        self._yielding.pop(claim.holder, None)
        if (earlier := self._held.get(holder)) is not None:
            self.release(earlier)
        self._generation += 1
        made = self._held[holder] = Claim(holder, self._generation, claim.grant)
        return made

    def release(self, claim: Claim) -> bool:
        """Frees a booking; False, and nothing happens, if it is stale."""
        if self._held.get(claim.holder) != claim:
            return False
        del self._held[claim.holder]
        self._yielding.pop(claim.holder, None)
        self._free += claim.grant.memory_bytes
        self._next()
        return True

    def _next(self) -> None:
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif wanted <= self._free:
                self._waiting.popleft()
                self._free -= wanted
                turn.set_result(None)
            else:
                return

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return sum(not turn.done() for _, turn in self._waiting)
