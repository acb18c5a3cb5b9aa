"""Instance types and bookings."""

from __future__ import annotations

import asyncio

import pytest

from bastide.domain import Refused
from bastide.engines.placement import instance_type
from bastide.engines.placement.machine import Machine

GIB = 1 << 30


@pytest.mark.parametrize(
    ("name", "cpus", "memory"),
    [
        ("ml.t3.medium", 2, 4),
        ("ml.t3.xlarge", 4, 16),
        ("ml.m5.large", 2, 8),
        ("ml.m5.24xlarge", 96, 384),
        ("ml.c5.xlarge", 4, 8),
        ("ml.c5.18xlarge", 72, 144),
        ("ml.c6i.32xlarge", 128, 256),
        ("ml.r5.12xlarge", 48, 384),
        ("ml.m4.10xlarge", 40, 160),
    ],
)
def test_types_have_what_ec2_says(name: str, cpus: int, memory: int) -> None:
    found = instance_type(name)
    assert (found.cpus, found.memory_bytes) == (cpus, memory * GIB)


@pytest.mark.parametrize("name", ["ml.p3.2xlarge", "ml.g5.xlarge", "ml.inf2.xlarge", "ml.nothing.large"])
def test_a_type_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="ResourceLimitExceeded"):
        Machine(gpus=()).grant(name)


def test_who_finds_no_room_waits_in_order() -> None:
    async def story() -> None:
        place = Machine(memory_bytes=16 * GIB, cpus=2, times=1, keep_bytes=0)
        order: list[str] = []

        async def job(name: str, type_name: str) -> None:
            claim = await place.claim(name, type_name)
            order.append(name)
            await asyncio.sleep(0.01)
            assert place.release(claim)
            assert not place.release(claim)

        await asyncio.gather(job("a", "ml.m5.xlarge"), job("b", "ml.m5.xlarge"), job("c", "ml.t3.medium"))
        assert order == ["a", "b", "c"]

    asyncio.run(story())


def test_a_claim_that_a_newer_one_replaced_is_stale() -> None:
    async def story() -> None:
        place = Machine(memory_bytes=16 * GIB, cpus=2, times=1, keep_bytes=0)
        old = await place.claim("a", "ml.m5.large")
        new = await place.claim("a", "ml.m5.large")
        assert not place.release(old)
        assert place.release(new)
        assert new.grant.cpus == 2

    asyncio.run(story())


def test_a_booking_is_handed_over_ahead_of_who_waits() -> None:
    async def story() -> None:
        place = Machine(memory_bytes=8 * GIB, cpus=2, times=1, keep_bytes=0)
        held = await place.claim("a", "ml.m5.large")
        waits = asyncio.create_task(place.claim("b", "ml.m5.large"))
        await asyncio.sleep(0)
        handed = place.hand_over(held, "c")
        assert handed is not None and handed.holder == "c" and place.waiting == 1
        assert not place.release(held) and place.hand_over(held, "d") is None
        assert place.release(handed)
        assert place.release(await waits)

    asyncio.run(story())


def test_who_gives_up_waiting_holds_nobody_up() -> None:
    async def story() -> None:
        place = Machine(memory_bytes=8 * GIB, cpus=2, times=1, keep_bytes=0)
        held = await place.claim("a", "ml.m5.large")
        gone = asyncio.create_task(place.claim("b", "ml.m5.large"))
        last = asyncio.create_task(place.claim("c", "ml.t3.medium"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert place.waiting == 1
        place.release(held)
        assert (await last).holder == "c"

    asyncio.run(story())
