"""Bookings on a cluster's nodes, beside those on the platform's own machine.

A job goes to the cluster unless it asks for what only the platform's machine can do. Processors, memory and GPUs are
booked with Ray, once; who waits, and in which order, is settled here. A job that wants more than the largest node has gets
that node alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from bastide.domain import Refused
from bastide.engines.placement import Claim, Grant, Place, Placement, instance_type, quota_of
from bastide.engines.placement.types import GIB, InstanceType, lacks_gpus

_AGAIN_SECONDS: Final = 5.0


class Node(Protocol):
    """A node and what is free of it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def cpus(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def gpus(self) -> int: ...
    @property
    def free_cpus(self) -> float: ...
    @property
    def free_bytes(self) -> int: ...
    @property
    def free_gpus(self) -> int: ...


class Booked(Protocol):
    """A booking of parts, each on a node."""

    @property
    def id(self) -> int: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...


class Cluster(Protocol):
    """What is asked of a cluster."""

    async def nodes(self) -> Sequence[Node]: ...
    async def book(self, parts: Sequence[tuple[float, int, int]]) -> Booked: ...
    def unbook(self, number: int) -> None: ...


class Nodes:
    """The driver. machine: bookings on the platform's own machine."""

    def __init__(self, machine: Placement, cluster: Cluster, quotas: Mapping[str, int] | None = None) -> None:
        self._machine = machine
        self._cluster = cluster
        self._quotas = dict(quotas or {})
        self._turn = asyncio.Lock()
        self._line = 0
        self._generation = 0
        self._held: dict[str, tuple[Claim, int]] = {}
        self._gpus = 0
        self._names: dict[str, str] = {}
        self._there: set[str] = set()  # nodes, as they were last seen

    async def start(self) -> None:
        """Looks what nodes there are."""
        await self._nodes()

    async def _nodes(self) -> Sequence[Node]:
        nodes = await self._cluster.nodes()
        self._there = {one.id for one in nodes}
        self._names |= {one.id: one.name for one in nodes}
        self._gpus = max([one.gpus for one in nodes], default=self._gpus)
        return nodes

    def quota(self, what: str, type_name: str) -> int | None:
        """See the port."""
        return quota_of(self._quotas, what, type_name)

    def grant(self, type_name: str, *, here: bool = False) -> Grant:
        """See the port."""
        found = instance_type(type_name)
        if here or not found.gpus:
            return self._machine.grant(type_name)
        if found.gpus > self._gpus:
            with contextlib.suppress(Refused):
                return self._machine.grant(type_name)
            raise lacks_gpus(found, self._gpus)
        return Grant(float(found.cpus), found.memory_bytes, found.gpus)

    def part(self, memory_bytes: int, cpus: float) -> Grant:
        """See the port."""
        return self._machine.part(memory_bytes, cpus)

    def _types(self, wanted: Sequence[str | Grant], here: bool) -> list[InstanceType] | None:
        """Types to be booked on nodes; None for what is the platform's machine's: what asks for it, and types with more
        GPUs than any node ever had, which the machine has or nobody."""
        names = [one for one in wanted if isinstance(one, str)]
        if here or len(names) < len(wanted):
            return None
        found = [instance_type(one) for one in names]
        return None if any(one.gpus > self._gpus for one in found) else found

    @staticmethod
    def _part(wanted: InstanceType, nodes: Sequence[Node]) -> Grant | None:
        """What a type grants on the node that is best for it; None if none can."""
        able = [one for one in nodes if one.gpus >= wanted.gpus]
        if not able:
            return None
        best = max(able, key=lambda one: (min(one.memory_bytes, wanted.memory_bytes), min(one.cpus, wanted.cpus)))
        memory = min(wanted.memory_bytes, best.memory_bytes)
        return Grant(float(min(wanted.cpus, best.cpus)), memory, wanted.gpus)

    async def busy(self, *wanted: str | Grant, here: bool = False) -> str:
        """See the port."""
        types = self._types(wanted, here)
        if types is None:
            return await self._machine.busy(*wanted, here=True)
        if self._line:
            return f"{self._line} that asked before"
        nodes = await self._nodes()
        free = [[one.free_cpus, one.free_bytes, one.free_gpus] for one in nodes]
        if not free:
            return "a node of the cluster"
        for one in types:
            part = self._part(one, nodes)
            if part is None:
                return f"a node of the cluster with {one.gpus} GPUs"
            wants = (part.cpus, part.memory_bytes, part.gpus)
            room = [left for left in free if all(has >= want for has, want in zip(left, wants, strict=True))]
            if not room:
                gpus = f", {part.gpus} GPUs" if part.gpus else ""
                return (
                    f"{part.cpus:g} processors and {part.memory_bytes / GIB:.1f} GiB of memory{gpus} "
                    "that are free on a node of the cluster"
                )
            most = max(room)
            most[:] = [has - want for has, want in zip(most, wants, strict=True)]
        return ""

    async def claim(
        self, holder: str, *wanted: str | Grant, yields: Callable[[], None] | None = None, here: bool = False
    ) -> Claim:
        """See the port."""
        types = self._types(wanted, here)
        if types is None:
            return await self._machine.claim(holder, *wanted, yields=yields)
        if (earlier := self._held.get(holder)) is not None:
            self.release(earlier[0])
        self._line += 1
        try:
            async with self._turn:  # in the order of asking
                parts, booked = await self._booked(types)
        finally:
            self._line -= 1
        self._generation += 1
        places = tuple(
            Place(part, node, self._names.get(node, node)) for part, node in zip(parts, booked.nodes, strict=True)
        )
        total = Grant(
            sum(one.cpus for one in parts), sum(one.memory_bytes for one in parts), sum(one.gpus for one in parts)
        )
        claim = Claim(holder, self._generation, total, places)
        self._held[holder] = (claim, booked.id)
        return claim

    async def _booked(self, wanted: Sequence[InstanceType]) -> tuple[list[Grant], Booked]:
        """What was granted, when there is room. Nodes come and go while it waits, so it looks again from time to time."""
        while True:
            nodes = await self._nodes()
            parts = [part for one in wanted if (part := self._part(one, nodes)) is not None]
            with contextlib.suppress(TimeoutError, ConnectionError):
                if len(parts) == len(wanted):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        booked = await self._cluster.book([(one.cpus, one.memory_bytes, one.gpus) for one in parts])
                    return parts, booked
            await asyncio.sleep(0.5)

    def hand_over(self, claim: Claim, holder: str) -> Claim | None:
        """See the port."""
        held = self._held.get(claim.holder)
        if held is None or held[0] != claim:
            return self._machine.hand_over(claim, holder)
        if not self._there.issuperset(place.node for place in claim.places):
            self.release(claim)
            return None
        del self._held[claim.holder]
        if (earlier := self._held.get(holder)) is not None:
            self.release(earlier[0])
        self._generation += 1
        made = Claim(holder, self._generation, claim.grant, claim.places)
        self._held[holder] = (made, held[1])
        return made

    def release(self, claim: Claim) -> bool:
        """See the port."""
        held = self._held.get(claim.holder)
        if held is None or held[0] != claim:
            return self._machine.release(claim)
        del self._held[claim.holder]
        self._cluster.unbook(held[1])
        return True
