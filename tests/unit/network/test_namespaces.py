"""The driver, with the kernel it drives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.network import Entrance, Group, Interface, NetworkError, Plan, Rule, Vpc
from bastide.engines.network.kernel import enter
from bastide.engines.network.namespaces import Namespaces

VPC = Vpc("111122223333", "us-east-1", "vpc-1")
ALL = Rule("-1", networks=("0.0.0.0/0",))
OPEN = {"sg-a": Group((ALL,), (ALL,))}
SERVED = Interface("eni-1", "10.0.1.9", "10.0.1.1", ("sg-a",))
FREE = Interface("eni-2", "10.0.1.50", "10.0.1.1", ("sg-a",))


class Opened:
    """Says hello to whoever connects."""

    def __init__(self, bound: socket.socket) -> None:
        self.bound = bound
        self.dropped = 0
        bound.listen()
        bound.setblocking(False)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            link, _ = await asyncio.get_running_loop().sock_accept(self.bound)
            link.send(b"hello")
            link.close()

    def drop(self) -> None:
        self.dropped += 1

    def close(self) -> None:
        self.task.cancel()
        self.bound.close()


class Bench:
    """Networks whose plan a test writes."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.opened: list[Opened] = []
        self.networks = Namespaces(lambda vpc: self.plan)
        self.networks.door = self._door

    async def _door(self, bound: socket.socket, id: str, names: Sequence[str], public: str) -> Any:
        self.opened.append(Opened(bound))
        return self.opened[-1]

    async def hello(self, namespace: str, address: str, patience: float = 60.0) -> bool:
        """Whether somebody answers at an address, from a namespace, within some seconds."""

        def body() -> None:
            handle = os.open(namespace, os.O_RDONLY)
            try:
                enter(handle)
                with socket.create_connection((address, 443), patience) as link:
                    found.append(link.recv(10) == b"hello")
            except OSError:
                found.append(False)
            finally:
                os.close(handle)

        found: list[bool] = []
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.005)
        return found[0]

    async def lost(self, namespace: str, address: str) -> bool:
        """Whether nobody answers."""
        return not await self.hello(namespace, address, 0.3)


def planned(**more: Any) -> Plan:
    entrance = Entrance("vpce-1", ("sts",), interfaces=(SERVED,))
    return Plan(
        **{"resolver": "", "names": {}, "entrances": (entrance,), "interfaces": {"eni-2": FREE}, "groups": OPEN, **more}
    )


def test_packets_go_as_planned_and_nothing_is_left() -> None:
    async def story() -> None:
        before = _held()
        bench = Bench()
        bench.plan = planned()
        await bench.networks.settle(VPC)
        held = await bench.networks.attach(VPC, "eni-2")
        assert bench.networks.attached("eni-2")
        assert await bench.hello(held.namespace, "10.0.1.9")
        with pytest.raises(ValueError, match="already"):
            await bench.networks.attach(VPC, "eni-2")
        with pytest.raises(KeyError):
            await bench.networks.attach(VPC, "eni-3")
        bench.plan = planned(groups={"sg-a": Group((), (ALL,))})
        await bench.networks.settle(VPC)
        assert await bench.lost(held.namespace, "10.0.1.9")
        bench.plan = planned(entrances=())
        await bench.networks.settle(VPC)
        assert await bench.lost(held.namespace, "10.0.1.9")
        bench.plan = planned()
        await bench.networks.settle(VPC)
        assert await bench.hello(held.namespace, "10.0.1.9")
        await held.close()
        await held.close()
        assert not bench.networks.attached("eni-2")
        bench.plan = None
        await bench.networks.settle(VPC)
        await bench.networks.close()
        await asyncio.sleep(0)
        assert _held() == before

    asyncio.run(story())


def _held() -> set[str]:
    """The network namespaces that this process holds descriptors of."""
    found: set[str] = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(one.readlink()))
    return {one for one in found if one.startswith("net:")}


def test_a_gateway_leads_only_from_the_subnets_with_the_route() -> None:
    async def story() -> None:
        bench = Bench()
        gateway = Entrance("vpce-2", ("s3",), routed=("10.0.1.0/24",), outside="198.19.7.0/24")
        bench.plan = planned(entrances=(gateway,))
        held = await bench.networks.attach(VPC, "eni-2")
        assert await bench.hello(held.namespace, "198.19.7.1") and await bench.hello(held.namespace, "198.19.7.200")
        # Where it listens inside is reached by the route alone.
        assert await bench.lost(held.namespace, "169.254.171.1")
        assert await bench.lost(held.namespace, "198.19.8.1")
        bench.plan = planned(entrances=(Entrance("vpce-2", ("s3",), routed=("10.0.2.0/24",), outside="198.19.7.0/24"),))
        await bench.networks.settle(VPC)
        assert bench.opened[0].dropped == 1
        assert await bench.lost(held.namespace, "198.19.7.1")
        await bench.networks.close()

    asyncio.run(story())


def test_what_cannot_be_made_is_cut_off_and_made_again_later() -> None:
    async def story() -> None:
        bench = Bench()
        bench.plan = planned()
        held = await bench.networks.attach(VPC, "eni-2")
        assert await bench.hello(held.namespace, "10.0.1.9")
        bench.plan = planned(groups={"sg-a": Group((Rule("tcp", 1, 1, ("no network",)),), (ALL,))})
        with pytest.raises(NetworkError, match="vpc-1"):
            await bench.networks.settle(VPC)
        assert await bench.lost(held.namespace, "10.0.1.9") and not bench.networks.attached("eni-2")
        bench.plan = planned()
        again = await bench.networks.attach(VPC, "eni-2")
        assert await bench.hello(again.namespace, "10.0.1.9")
        assert await bench.lost(held.namespace, "10.0.1.9")
        await bench.networks.close()

    asyncio.run(story())


def test_what_is_attached_goes_by_its_interface_as_planned_now() -> None:
    async def story() -> None:
        bench = Bench()
        bench.plan = planned()
        held = await bench.networks.attach(VPC, "eni-2")
        assert await bench.hello(held.namespace, "10.0.1.9")
        other = Interface("eni-2", "10.0.1.50", "10.0.1.1", ("sg-shut",))
        bench.plan = planned(interfaces={"eni-2": other}, groups={**OPEN, "sg-shut": Group((), ())})
        await bench.networks.settle(VPC)
        assert await bench.lost(held.namespace, "10.0.1.9")
        bench.plan = planned()
        await bench.networks.settle(VPC)
        assert await bench.hello(held.namespace, "10.0.1.9")
        bench.plan = planned(interfaces={})
        await bench.networks.settle(VPC)
        assert not bench.networks.attached("eni-2")
        assert not await bench.hello(held.namespace, "10.0.1.9", 0.3)
        await held.close()
        await bench.networks.close()

    asyncio.run(story())


def test_a_forged_source_address_gets_nowhere() -> None:
    """A packet's source must be the address of the interface it comes from, whatever the program inside sets up."""

    async def story() -> None:
        bench = Bench()
        bench.plan = planned()
        held = await bench.networks.attach(VPC, "eni-2")
        for words in ("address add 10.0.1.51/32 dev eth0", "route replace default via 10.0.1.1 dev eth0 src 10.0.1.51"):
            process = await asyncio.create_subprocess_exec(
                "nsenter", f"--net={held.namespace}", "ip", *words.split(), env={"PATH": "/usr/sbin:/usr/bin"}
            )
            assert await process.wait() == 0
        assert await bench.lost(held.namespace, "10.0.1.9")
        await bench.networks.close()

    asyncio.run(story())
