"""Where a job runs: what an instance type grants, and who has booked what.

The port. Drivers: this machine (``machine.py``), and a cluster's nodes beside it (``nodes.py``). An instance type is a
limit and not a computer: memory is bounded by the type and by the machine, whichever is less; processors likewise; GPUs it
has or has not. Who finds no room waits in line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bastide.engines.placement.types import InstanceType, instance_type


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job on a type may use. gpus: how many."""

    cpus: float
    memory_bytes: int
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance runs. node: empty for the platform's own machine. name: what the node is called. gpus: which
    ones, by the numbers that the machine gives them."""

    grant: Grant
    node: str = ""
    name: str = ""
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A booking. generation: grows with every booking; a claim whose generation is not the holder's newest is stale and
    frees nothing. grant: of all instances together. places: of each instance, in the order they were asked for."""

    holder: str
    generation: int
    grant: Grant
    places: tuple[Place, ...] = ()


class Placement(Protocol):
    """What may be booked."""

    def quota(self, what: str, type_name: str) -> int | None:
        """How many instances of a type an account's jobs may have at a time; None for as many as it likes. what: the kind
        of job, whose quota is ``training/ml.m5.large``; one for all kinds is ``ml.m5.large``, one for all types ``*``."""
        ...

    def grant(self, type_name: str, *, here: bool = False) -> Grant:
        """What a type grants at most; raises Refused for a type that is not there. here: on the platform's own machine."""
        ...

    def part(self, memory_bytes: int, cpus: float) -> Grant:
        """What a piece of the platform's own machine grants that is no instance type."""
        ...

    async def busy(self, *wanted: str | Grant, here: bool = False) -> str:
        """Why a claim would have to wait now; empty if it would not."""
        ...

    async def claim(
        self, holder: str, *wanted: str | Grant, yields: Callable[[], None] | None = None, here: bool = False
    ) -> Claim:
        """Books types, or what `part` gave, for all of a holder's instances or none, in the order of asking, when there is
        room. The holder's earlier claim becomes stale.

        yields: the booking may be taken back. It is called when somebody whose booking may not waits for the room, and the
        holder then is to release it soon. here: the platform's own machine only.
        """
        ...

    def hand_over(self, claim: Claim, holder: str) -> Claim | None:
        """Makes somebody else the holder of a booking, ahead of all who wait; None if it is stale, or on a machine that is
        gone. It no longer yields."""
        ...

    def release(self, claim: Claim) -> bool:
        """Frees a booking; False, and nothing happens, if it is stale."""
        ...


def quota_of(quotas: Mapping[str, int], what: str, type_name: str) -> int | None:
    """See ``Placement.quota``."""
    for name in (f"{what}/{type_name}", type_name, f"{what}/*", "*"):
        if name in quotas:
            return quotas[name]
    return None


__all__ = ["Claim", "Grant", "InstanceType", "Place", "Placement", "instance_type", "quota_of"]
