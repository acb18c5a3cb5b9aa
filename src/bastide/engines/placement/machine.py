"""Bookings on this machine."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from bastide.domain import Refused
from bastide.engines.placement import Claim, Grant, Place, quota_of
from bastide.engines.placement.types import GIB, gpus_here, instance_type, lacks_gpus


class Machine:
    """The driver: this machine's capacity. Bookings are this process's, as the sandboxes that use them are."""

    def __init__(
        self,
        *,
        memory_bytes: int | None = None,
        cpus: int | None = None,
        times: float = 4.0,
        keep_bytes: int | None = None,
        quotas: Mapping[str, int] | None = None,
        gpus: Sequence[int] | None = None,
    ) -> None:
        """memory_bytes, cpus: the machine's, found out by default. times: how often memory may be booked. keep_bytes:
        memory that no job gets, an eighth by default. quotas: see `quota`. gpus: the numbers of
        the machine's, found out by default."""
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = memory_bytes or found
        self._most = memory - (memory // 8 if keep_bytes is None else keep_bytes)
        self._cpus = cpus or os.cpu_count() or 1
        self._total = self._free = int(self._most * times)
        self._held: dict[str, Claim] = {}
        self._waiting: deque[tuple[Grant, asyncio.Future[None]]] = deque()
        self._quotas = dict(quotas or {})
        self._gpus = len(gpus_here() if gpus is None else gpus)
        self._free_gpus = list(gpus_here() if gpus is None else gpus)
        self._kept_gpus = 0  # of these, for those whose turn has come and who have not taken them yet
        self._generation = 0
        self._yielding: dict[str, Callable[[], None]] = {}

    def quota(self, what: str, type_name: str) -> int | None:
        """See the port."""
        return quota_of(self._quotas, what, type_name)

    def grant(self, type_name: str, *, here: bool = False) -> Grant:
        """See the port."""
        found = instance_type(type_name)
        if found.gpus > self._gpus:
            raise lacks_gpus(found, self._gpus)
        return Grant(float(min(found.cpus, self._cpus)), min(found.memory_bytes, self._most), found.gpus)

    def part(self, memory_bytes: int, cpus: float) -> Grant:
        """See the port."""
        return Grant(min(cpus, float(self._cpus)), min(memory_bytes, self._most))

    def _grants(self, wanted: Sequence[str | Grant]) -> list[Grant]:
        return [self.grant(one) if isinstance(one, str) else one for one in wanted]

    def _wanted(self, grants: Sequence[Grant]) -> Grant:
        # Who wants more than there is gets it alone.
        memory = min(sum(one.memory_bytes for one in grants), self._total)
        gpus = sum(one.gpus for one in grants)
        if gpus > self._gpus:
            raise Refused("ResourceLimitExceeded", f"The job wants {gpus} GPUs, and this machine has {self._gpus}.")
        return Grant(sum(one.cpus for one in grants), memory, gpus)

    def _fits(self, wanted: Grant) -> bool:
        return wanted.memory_bytes <= self._free and wanted.gpus <= len(self._free_gpus) - self._kept_gpus

    async def busy(self, *wanted: str | Grant, here: bool = False) -> str:
        """See the port."""
        grant = self._wanted(self._grants(wanted))
        if self.waiting:
            return f"{self.waiting} that asked before"
        if grant.gpus > len(self._free_gpus):
            return f"{grant.gpus} GPUs, of which {len(self._free_gpus)} are free"
        if not self._fits(grant):
            return f"{grant.memory_bytes / GIB:.1f} GiB of memory, of which {self._free / GIB:.1f} GiB are free"
        return ""

    async def claim(
        self, holder: str, *wanted: str | Grant, yields: Callable[[], None] | None = None, here: bool = False
    ) -> Claim:
        """See the port."""
        grants = self._grants(wanted)
        grant = self._wanted(grants)
        earlier = self._held.get(holder)
        if earlier is not None:
            self.release(earlier)
        if self._waiting or not self._fits(grant):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((grant, turn))
            if yields is None:
                self._press(grant.memory_bytes)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free += grant.memory_bytes
                    self._kept_gpus -= grant.gpus
                self._next()
                raise
            self._kept_gpus -= grant.gpus
        else:
            self._free -= grant.memory_bytes
        self._generation += 1
        places = tuple(Place(one, gpus=tuple(self._free_gpus.pop(0) for _ in range(one.gpus))) for one in grants)
        claim = Claim(holder, self._generation, grant, places)
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
        """See the port."""
        if self._held.get(claim.holder) != claim:
            return None
        del self._held[claim.holder]
        self._yielding.pop(claim.holder, None)
        if (earlier := self._held.get(holder)) is not None:
            self.release(earlier)
        self._generation += 1
        made = self._held[holder] = Claim(holder, self._generation, claim.grant, claim.places)
        return made

    def release(self, claim: Claim) -> bool:
        """See the port."""
        if self._held.get(claim.holder) != claim:
            return False
        del self._held[claim.holder]
        self._yielding.pop(claim.holder, None)
        self._free += claim.grant.memory_bytes
        self._free_gpus = sorted([*self._free_gpus, *(gpu for place in claim.places for gpu in place.gpus)])
        self._next()
        return True

    def _next(self) -> None:
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._fits(wanted):
                self._waiting.popleft()
                self._free -= wanted.memory_bytes
                self._kept_gpus += wanted.gpus
                turn.set_result(None)
            else:
                return

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return sum(not turn.done() for _, turn in self._waiting)
