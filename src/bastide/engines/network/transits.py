"""Transit gateways, and a VPC's virtual private gateway: a namespace each, with links to the attached VPCs that stand, and
to what the operator declared, in the clear or by IPsec.

A packet is routed by the table that the attachment it came from is associated with (``ip rule iif``), and by nothing
else; what no route takes is lost. Routes are changed without a moment in which packets go another way: the new tables are
complete before the rules lead to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bastide.domain import Clock, wall
from bastide.engines.network import Far, Ipsec, NetworkError, Telemetry, Transit, TransitPlan, Way, kernel
from bastide.engines.network.ipsec import NEAR, THERE, Device

INNER: Final = "169.254.172.2"
"""Of every link, the end at the VPC or beyond; the gateway's end is `OUTER`. No route of a user leads to either."""
OUTER: Final = "169.254.172.1"
_RULES: Final = 200

_log = logging.getLogger("bastide.network")

Routes = Mapping[str, tuple[Way, ...]]
"""By the selector of an ``ip rule`` (``from 10.0.1.0/24``, ``iif v3``)."""


@dataclass(slots=True)
class Routing:
    """The routes of a namespace as they are. tables: the number of the table for each selector."""

    text: str = ""
    tables: dict[str, int] = field(default_factory=dict)


async def route(
    namespace: int, routing: Routing, wanted: Routes, links: Mapping[str, str], numbers: Iterator[int], to: str
) -> None:
    """Puts routes in force. links: of each joint that stands, the name of its link; a route by another one loses its
    packets. to: the address at a link's other end. Raises NetworkError."""
    lines: dict[str, list[str]] = {}
    for selector, ways in sorted(wanted.items()):
        if ways:
            lines[selector] = [
                f"{one.network} via {to} dev {links[one.joint]} onlink"
                if one.joint in links
                else f"blackhole {one.network}"
                for one in sorted(ways, key=lambda one: one.network)
            ]
    text = repr(lines)
    if text == routing.text:
        return
    routing.text = ""
    tables = {selector: next(numbers) for selector in lines}
    told = [f"route add {one} table {tables[selector]}" for selector, held in lines.items() for one in held]
    told += [f"rule add {selector} lookup {number} prio {_RULES}" for selector, number in tables.items()]
    told += [f"rule del {selector} lookup {number} prio {_RULES}" for selector, number in routing.tables.items()]
    await kernel.ip(namespace, *told)
    old, routing.tables, routing.text = routing.tables, tables, text
    for number in old.values():
        with contextlib.suppress(NetworkError):  # with its link a table may have gone already
            await kernel.ip(namespace, f"route flush table {number}")


async def stand(*ends: tuple[int, str]) -> None:
    """Until links carry packets; raises TimeoutError."""
    async with asyncio.timeout(kernel.SECONDS):
        while not all(kernel.running(*end) for end in ends):
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class _Reached:
    """What a link leads to. handle: its namespace; name: of the link there. told: the networks that it is told of. device:
    what encrypts on the way, if anything does."""

    far: Far
    handle: int
    name: str
    told: str = ""
    device: Device | None = None

    def close(self) -> None:
        os.close(self.handle)
        if self.device is not None:
            self.device.close()


@dataclass(slots=True)
class _Gate:
    """A gateway as it is. links: of each joint, the name of its link here. far: what a link leads to."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    namespace: int = -1
    links: dict[str, str] = field(default_factory=dict)
    far: dict[str, _Reached] = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    loaded: str = ""


class Transits:
    """All transit gateways. planner: how one is to be now, None for one that is gone."""

    def __init__(self, planner: Callable[[Transit], TransitPlan | None], now: Clock = wall) -> None:
        self.planner = planner
        self._now = now
        self._gates: dict[Transit, _Gate] = {}
        self.numbers = itertools.count(1000)
        self._links = itertools.count(1)

    async def settle(self, transit: Transit) -> None:
        """Makes the gateway as planned now; raises NetworkError, and then nothing passes."""
        gate = self._gates.setdefault(transit, _Gate())
        async with gate.lock:
            try:
                plan = self.planner(transit)
                if plan is None or not (gate.links or any(one.far is not None for one in plan.joints.values())):
                    self._cut(gate)  # nothing to lead to
                    return
                await self._make(gate, plan)
            except (OSError, TimeoutError, NetworkError) as error:
                self._cut(gate)
                _log.exception("transit gateway %s is cut off: it could not be made as planned", transit.id)
                raise NetworkError(f"transit gateway {transit.id}: {error}") from error
            except BaseException:
                self._cut(gate)
                raise

    async def join(self, transit: Transit, joint: str, vpc: int) -> str:
        """A link from a VPC's namespace to the gateway; its name there. What passes, `settle` says. Raises NetworkError."""
        gate = self._gates.setdefault(transit, _Gate())
        async with gate.lock:
            number = next(self._links)
            inner, outer = f"t{number}", f"v{number}"
            await self._stand(gate)
            await stand(*await self._link(gate.namespace, outer, vpc, inner))
            old = gate.links.pop(joint, None)
            gate.links[joint] = outer
            if old is not None:
                with contextlib.suppress(NetworkError):  # it went with the namespace of the VPC
                    await kernel.ip(gate.namespace, f"link del {old}")
            return inner

    def left(self, transit: Transit, joint: str) -> None:
        """The link of a VPC is gone, or about to."""
        gate = self._gates.get(transit)
        if gate is not None:
            gate.links.pop(joint, None)

    def stands(self, transit: Transit, joint: str) -> bool:
        """Whether a joint has its link."""
        gate = self._gates.get(transit)
        return gate is not None and joint in gate.links

    def linked(self, joint: str) -> bool:
        """Whether a joint of any gateway has its link."""
        return any(joint in gate.links for gate in self._gates.values())

    def tunnels(self, joint: str) -> Mapping[str, Telemetry]:
        """See the port."""
        for gate in self._gates.values():
            held = gate.far.get(joint)
            if held is not None and held.device is not None:
                return held.device.telemetry
        return {}

    async def _stand(self, gate: _Gate) -> None:
        if gate.namespace < 0:
            gate.namespace = kernel.new_namespace(forwards=True)
            await kernel.ip(gate.namespace, "link set lo up", "route add blackhole default")
            await kernel.run(gate.namespace, "nft", "-f", "-", given=filters({}))

    async def _link(
        self, here: int, name: str, there: int, other: str, addresses: tuple[str, str] = (OUTER, INNER)
    ) -> tuple[tuple[int, str], ...]:
        """Its two ends; soon they carry packets."""
        await kernel.ip(here, f"link add {name} type veth peer name {other} netns {kernel.shown(there)}")
        await kernel.ip(here, f"address add {addresses[0]}/32 dev {name}", f"link set {name} up")
        await kernel.ip(there, f"address add {addresses[1]}/32 dev {other}", f"link set {other} up")
        return (here, name), (there, other)

    async def _make(self, gate: _Gate, plan: TransitPlan) -> None:
        await self._stand(gate)
        for joint in [one for one in gate.links if one not in plan.joints]:
            await self._part(gate, joint)
        for joint, one in plan.joints.items():
            held = gate.far.get(joint)
            if held is not None and (held.far, held.device and held.device.ipsec) != (one.far, one.ipsec):
                await self._part(gate, joint)
            if one.far is not None and joint not in gate.far:
                try:
                    await self._reach(gate, joint, one.far, one.ipsec)
                except FileNotFoundError:
                    pass  # declared, and not there: down, and packets are lost
                except (OSError, TimeoutError, NetworkError, asyncio.IncompleteReadError):
                    if one.ipsec is None:
                        raise
                    _log.exception("the VPN to %s is down: its tunnels could not be made", one.ipsec.gateway)
        standing = {joint: one for joint, one in plan.joints.items() if joint in gate.links}
        wanted = filters({gate.links[joint]: one.ranges for joint, one in standing.items()})
        if wanted != gate.loaded:
            gate.loaded = ""
            await kernel.run(gate.namespace, "nft", "-f", "-", given=wanted)
            gate.loaded = wanted
        routes = {f"iif {gate.links[joint]}": one.ways for joint, one in standing.items()}
        await route(gate.namespace, gate.routing, routes, gate.links, self.numbers, INNER)
        for joint, one in standing.items():
            if one.far is not None:
                await self._advertise(gate, joint, [way.network for way in one.ways if way.joint])

    async def _reach(self, gate: _Gate, joint: str, far: Far, ipsec: Ipsec | None) -> None:
        """The link to what is declared. The namespace is the operator's: only the link and its routes are put there."""
        handle = os.open(far.namespace, os.O_RDONLY | os.O_CLOEXEC)
        number = next(self._links)
        name, other = f"v{number}", f"bastide{os.getpid() % 10000}-{number}"[:15]
        made = _Reached(far, handle, other)
        try:
            if ipsec is None:
                await stand(*await self._link(gate.namespace, name, handle, other))
            else:
                made.device = Device(ipsec, self._now)
                ends = await self._link(gate.namespace, name, made.device.namespace, "in0")
                ends += await self._link(made.device.namespace, "out0", handle, other, (NEAR, THERE))
                await made.device.start(OUTER)
                await stand(*ends)
                # What the peer finds this side at; what is behind it, its own routes and its policy say.
                await kernel.ip(
                    handle, *(f"route replace {one.outside}/32 via {NEAR} dev {other} onlink" for one in ipsec.tunnels)
                )
        except BaseException:
            made.close()
            raise
        gate.links[joint] = name
        gate.far[joint] = made

    async def _advertise(self, gate: _Gate, joint: str, networks: Sequence[str]) -> None:
        """What is beyond a link in the clear knows the way to what its attachment's table leads to, as by BGP."""
        held = gate.far[joint]
        wanted = sorted(one for one in set(networks) if one != "0.0.0.0/0")
        if held.device is not None:
            await held.device.lead(wanted)
        elif repr(wanted) != held.told:
            lines = [f"route replace {one} via {OUTER} dev {held.name} onlink" for one in wanted]
            with contextlib.suppress(NetworkError):  # there was none
                await kernel.ip(held.handle, f"route flush dev {held.name} proto boot")
            await kernel.ip(held.handle, *lines)
            held.told = repr(wanted)

    async def _part(self, gate: _Gate, joint: str) -> None:
        name = gate.links.pop(joint)
        held = gate.far.pop(joint, None)
        if held is not None:
            held.close()
        with contextlib.suppress(NetworkError):  # it went with the other end
            await kernel.ip(gate.namespace, f"link del {name}")

    def _cut(self, gate: _Gate) -> None:
        for held in gate.far.values():
            held.close()
        if gate.namespace >= 0:
            os.close(gate.namespace)
        gate.namespace, gate.loaded, gate.routing = -1, "", Routing()
        gate.links.clear()
        gate.far.clear()

    async def close(self) -> None:
        """Takes all gateways away."""
        for gate in self._gates.values():
            async with gate.lock:
                self._cut(gate)
        self._gates.clear()


def filters(ranges: Mapping[str, tuple[str, ...]]) -> str:
    """What may come and go by each link: nothing but the addresses behind it. Pure: nftables' text."""
    lines = [
        "flush ruleset",
        "table ip transit {",
        "chain passes {",
        "type filter hook forward priority 0; policy drop;",
    ]
    for link, networks in ranges.items():
        if "0.0.0.0/0" not in networks:
            behind = f"{{ {', '.join(networks)} }}"
            lines += [f'iifname "{link}" ip saddr != {behind} drop', f'oifname "{link}" ip daddr != {behind} drop']
    if ranges:
        links = f"{{ {', '.join(json.dumps(link) for link in ranges)} }}"
        lines.append(f"iifname {links} oifname {links} accept")
    lines += ["}", "chain inward {", "type filter hook input priority 0; policy drop;", "}", "}"]
    return "\n".join(lines) + "\n"
