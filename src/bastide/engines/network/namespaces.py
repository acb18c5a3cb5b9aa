"""The driver: network namespaces, veth pairs and nftables of the Linux kernel.

A VPC is a namespace without a name: only descriptors of this process hold it, so when the process ends, however it ends,
the kernel takes namespace, links and rules away, and a start finds nothing to clear. It has no link to the machine's
own network. In it live the addresses of endpoints, on its loopback; the platform listens on them with sockets made
inside. Each attachment is a further namespace, and a veth pair between the two. docs/network.md has the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bastide.domain import Clock, wall
from bastide.engines.network import (
    Attachment,
    Door,
    Entrance,
    Flow,
    Hop,
    Interface,
    Joined,
    NetworkError,
    Opened,
    Packet,
    Plan,
    Telemetry,
    Transit,
    TransitPlan,
    Vpc,
    kernel,
)
from bastide.engines.network.flows import Counts
from bastide.engines.network.ipsec import lacking
from bastide.engines.network.peers import Peers
from bastide.engines.network.resolver import Resolver
from bastide.engines.network.rules import ruleset
from bastide.engines.network.transits import OUTER, Routing, Transits, route
from bastide.engines.network.why import explain

_AGAIN: Final = 5.0
"""Seconds until a VPC that was cut off is tried again."""
_GATEWAYS: Final = "169.254.171."
"""Where gateway endpoints listen inside a VPC. Packets get there by translation alone, from a subnet with the route."""
_MOST_GATEWAYS: Final = 250

_log = logging.getLogger("bastide.network")


@dataclass(slots=True)
class _Served:
    entrance: Entrance
    doors: dict[str, Opened] = field(default_factory=dict)


@dataclass(slots=True)
class _Network:
    """A VPC as it is. namespace: -1 while there is none."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    namespace: int = -1
    addresses: set[str] = field(default_factory=set)
    served: dict[str, _Served] = field(default_factory=dict)
    gateways: dict[str, str] = field(default_factory=dict)
    plugs: dict[str, Interface] = field(default_factory=dict)
    resolver: Resolver | None = None
    resolves: str = ""
    loaded: str = ""
    joints: dict[str, tuple[Transit, str]] = field(default_factory=dict)
    routing: Routing = field(default_factory=Routing)
    counts: Counts = field(default_factory=Counts.none)
    watched: dict[str, str] = field(default_factory=dict)


def _shown(entrance: Entrance) -> tuple[object, ...]:
    """What a door shows and tells; another one needs another door."""
    return entrance.names, entrance.public


def _resolving(plan: Plan) -> str:
    """The resolv.conf of what is attached."""
    if plan.dns is not None:
        return plan.dns
    return f"nameserver {plan.resolver}\n" if plan.resolver else ""


class _Attached:
    def __init__(self, owner: Namespaces, vpc: Vpc, link: str, interface: Interface, namespace: int) -> None:
        self._owner = owner
        self._vpc = vpc
        self._link = link
        self._namespace = namespace
        self.interface = interface
        self.resolver = ""

    @property
    def namespace(self) -> str:
        return kernel.shown(self._namespace)

    async def close(self) -> None:
        if self._namespace >= 0:
            held, self._namespace = self._namespace, -1
            os.close(held)
            await self._owner.detach(self._vpc, self._link)


class Namespaces:
    """All VPCs and transit gateways. planner, transits: how one is to be now, None for one that is gone. `door` serves what
    is opened, and is to be set before the first VPC is settled."""

    def __init__(
        self,
        planner: Callable[[Vpc], Plan | None],
        authority: Path = Path(),
        transits: Callable[[Transit], TransitPlan | None] = lambda _: None,
        now: Clock = wall,
    ) -> None:
        self._planner = planner
        self._transits = Transits(transits, now)
        self._trusted = authority
        self.door: Door | None = None
        self._networks: dict[Vpc, _Network] = {}
        self._attached: set[str] = set()
        self._lacking: str | None = None
        self._trying: dict[Vpc | Transit, asyncio.Task[None]] = {}
        self._links = 0

    def lacking(self, *, ipsec: bool = False) -> str:
        """See the port. It is looked at until nothing is lacking."""
        if self._lacking != "":
            self._lacking = self._looked()
        return self._lacking or (lacking() if ipsec else "")

    @staticmethod
    def _looked() -> str:
        for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
            if shutil.which(program, path=kernel.PATH) is None:
                return f"the program {program} (apt-get install {package})"
        try:
            os.close(kernel.new_namespace(forwards=True))
        except OSError as error:
            return f"network namespaces ({error.strerror}; start the platform as root)"
        return ""

    def attached(self, interface: str) -> bool:
        """Whether something is attached to a network interface."""
        return interface in self._attached

    def linked(self, joint: str) -> bool:
        """See the port."""
        return self._transits.linked(joint)

    def tunnels(self, joint: str) -> Mapping[str, Telemetry]:
        """See the port."""
        return self._transits.tunnels(joint)

    def explain(self, vpc: Vpc, interface: str, packet: Packet) -> list[Hop]:
        """See the port."""
        return explain(
            vpc,
            interface,
            packet,
            plans=self._planner,
            transits=self._transits.planner,
            attached=self.attached,
            linked=self.linked,
            tunnels=self.tunnels,
        )

    async def settle(self, which: Vpc | Transit) -> None:
        """Makes it as planned now (see the port)."""
        if isinstance(which, Transit):
            await self._settled_transit(which)
            return
        vpc = which
        network = self._networks.setdefault(vpc, _Network())
        async with network.lock:
            try:
                plan = self._planner(vpc)
            except BaseException:
                self._cut(network)  # who does not know how it is to be must not leave it as it was
                raise
            if plan is None or not (plan.entrances or network.plugs):
                self._cut(network)
                return
            await self._settled(vpc, network, plan)

    async def _settled_transit(self, transit: Transit) -> None:
        try:
            await self._transits.settle(transit)
        except NetworkError:
            self._again(transit)
            raise

    def _again(self, which: Vpc | Transit) -> None:
        if which not in self._trying:
            self._trying[which] = asyncio.get_running_loop().create_task(self._later(which))

    async def _later(self, which: Vpc | Transit) -> None:
        """Tries again what could not be made."""
        await asyncio.sleep(_AGAIN)
        self._trying.pop(which, None)
        joined = [vpc for vpc, one in self._networks.items() if any(held[0] == which for held in one.joints.values())]
        for one in (which, *joined):  # what a gateway that was cut off lost are the links of its VPCs
            with contextlib.suppress(NetworkError):  # logged, and tried again
                await self.settle(one)

    async def _settled(self, vpc: Vpc, network: _Network, plan: Plan) -> None:
        try:
            await self._make(network, plan)
        except (OSError, TimeoutError, NetworkError) as error:
            self._cut(network)
            _log.exception("VPC %s is cut off: it could not be made as planned", vpc.id)
            self._again(vpc)
            raise NetworkError(f"VPC {vpc.id}: {error}") from error
        except BaseException:
            self._cut(network)
            raise

    async def _make(self, network: _Network, plan: Plan) -> None:
        if network.namespace < 0:
            network.namespace = kernel.new_namespace(forwards=True)
            # Packets that no route takes are lost, not refused: a client in a VPC times out.
            lines = ["link set lo up", "route add blackhole default"]
            if plan.cidr:
                lines.append(f"rule add to {plan.cidr} lookup main prio 100")  # the local route comes first
            await kernel.ip(network.namespace, *lines)
        await self._replug(network, plan)
        self._leave(network, plan)
        for entrance in plan.entrances:
            if (entrance.outside or entrance.public) and entrance.id not in network.gateways:
                network.gateways[entrance.id] = self._gateway(network)
        await self._address(network, plan)
        joined = [
            one
            for one in plan.joints.items()
            if one[0] not in network.joints or not self._transits.stands(one[1], one[0])
        ]
        for joint, transit in joined:
            network.joints[joint] = (transit, await self._transits.join(transit, joint, network.namespace))
        links = {joint: link for joint, (_, link) in network.joints.items() if joint in plan.joints}
        wanted = ruleset(plan, network.plugs, network.gateways, sorted(links.values()))
        if wanted != network.loaded:
            await self._count(network)
            network.loaded = ""
            await kernel.run(network.namespace, "nft", "-f", "-", given=wanted)
            network.loaded = wanted
            network.counts.emptied()
        network.watched = {
            one.address: one.id
            for one in (
                *(each for entrance in plan.entrances for each in entrance.interfaces),
                *plan.interfaces.values(),
            )
            if one.id in plan.watched
        }
        ways = {f"from {subnet}": held for subnet, held in plan.ways.items()}
        await route(network.namespace, network.routing, ways, links, self._transits.numbers, OUTER)
        await self._part(network, plan)
        for transit in {transit for _, transit in joined}:
            await self._transits.settle(transit)
        await self._resolve(network, plan)
        for entrance in plan.entrances:
            await self._serve(network, entrance)

    async def _count(self, network: _Network) -> None:
        """Reads what was counted so far."""
        if network.watched and network.loaded and network.namespace >= 0:
            network.counts.read(
                await kernel.run(network.namespace, "nft", "-j", "list", "table", "ip", "vpc", given="")
            )

    async def flows(self, vpc: Vpc) -> list[Flow]:
        """See the port."""
        network = self._networks.get(vpc)
        if network is None:
            return []
        async with network.lock:
            await self._count(network)
            return network.counts.taken(network.watched)

    async def _part(self, network: _Network, plan: Plan) -> None:
        """Takes the links to transit gateways away that are not planned any more."""
        for joint in [one for one in network.joints if one not in plan.joints]:
            transit, link = network.joints.pop(joint)
            self._transits.left(transit, joint)
            with contextlib.suppress(NetworkError):  # it went with the gateway's namespace
                await kernel.ip(network.namespace, f"link del {link}")

    async def _replug(self, network: _Network, plan: Plan) -> None:
        """What is attached goes by its interface as planned now; where that is gone, the link is taken away."""
        for link, held in list(network.plugs.items()):
            now = plan.interfaces.get(held.id)
            if now is not None and now.address == held.address:
                network.plugs[link] = now
            else:
                await self._unplug(network, link)

    def _leave(self, network: _Network, plan: Plan) -> None:
        """Closes what is not planned any more, and ends connections that came by a way that is not there any more."""
        planned = {entrance.id: entrance for entrance in plan.entrances}
        for id, served in list(network.served.items()):
            entrance = planned.get(id)
            if entrance is None or _shown(entrance) != _shown(served.entrance):
                for door in served.doors.values():
                    door.close()
                del network.served[id]
                if entrance is None:
                    network.gateways.pop(id, None)
            elif entrance.routed != served.entrance.routed:
                for door in served.doors.values():
                    door.drop()
                served.entrance = entrance
            else:
                kept = {interface.address for interface in entrance.interfaces} | {network.gateways.get(id, "")}
                for address in set(served.doors) - kept:
                    served.doors.pop(address).close()
                served.entrance = entrance

    def _gateway(self, network: _Network) -> str:
        taken = set(network.gateways.values())
        for number in range(1, _MOST_GATEWAYS):
            if f"{_GATEWAYS}{number}" not in taken:
                return f"{_GATEWAYS}{number}"
        raise NetworkError("too many gateway endpoints")

    async def _address(self, network: _Network, plan: Plan) -> None:
        wanted = {one.address for entrance in plan.entrances for one in entrance.interfaces}
        wanted |= set(network.gateways.values())
        if plan.resolver:
            wanted.add(plan.resolver)
        gone, new = network.addresses - wanted, wanted - network.addresses
        lines = [f"address del {one}/32 dev lo" for one in sorted(gone)]
        lines += [f"address add {one}/32 dev lo" for one in sorted(new)]
        await kernel.ip(network.namespace, *lines)
        network.addresses = wanted

    async def _resolve(self, network: _Network, plan: Plan) -> None:
        if network.resolver is not None and network.resolves != plan.resolver:
            network.resolver.close()
            network.resolver = None
        if network.resolver is not None:
            network.resolver.names, network.resolver.zones = plan.names, plan.zones
        elif plan.resolver:
            resolver = Resolver(plan.names, plan.zones)
            bound = kernel.datagrams(network.namespace, plan.resolver)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: resolver, sock=bound)
            network.resolver, network.resolves = resolver, plan.resolver

    async def _serve(self, network: _Network, entrance: Entrance) -> None:
        served = network.served.setdefault(entrance.id, _Served(entrance))
        places = [one.address for one in entrance.interfaces]
        if entrance.outside or entrance.public:
            places.append(network.gateways[entrance.id])
        for address in places:
            if address not in served.doors:
                if self.door is None:
                    raise NetworkError("nothing serves the endpoints yet")
                bound = kernel.listening(network.namespace, address)
                served.doors[address] = await self.door(bound, entrance.id, entrance.names, entrance.public)

    def _cut(self, network: _Network) -> None:
        """Takes everything away: nothing goes in or out any more, also not of what is attached."""
        for served in network.served.values():
            for door in served.doors.values():
                door.close()
        network.served.clear()
        if network.resolver is not None:
            network.resolver.close()
            network.resolver = None
        if network.namespace >= 0:
            # The listeners' sockets go at the loop's next turn, and the namespace with them.
            os.close(network.namespace)
            network.namespace = -1
        network.addresses, network.loaded, network.routing = set(), "", Routing()
        network.counts.emptied()
        for joint, (transit, _) in network.joints.items():
            self._transits.left(transit, joint)
        network.joints.clear()
        network.gateways.clear()
        for interface in network.plugs.values():
            self._attached.discard(interface.id)
        network.plugs.clear()

    async def attach(self, vpc: Vpc, interface: str) -> Attachment:
        """A new namespace behind a planned network interface (see the port)."""
        if interface in self._attached:
            raise ValueError(f"{interface} has something attached already")
        network = self._networks.setdefault(vpc, _Network())
        async with network.lock:
            plan = self._planner(vpc)
            if plan is None or interface not in plan.interfaces:
                raise KeyError(interface)
            if interface in self._attached:
                raise ValueError(f"{interface} has something attached already")
            held = plan.interfaces[interface]
            if network.namespace < 0:
                await self._settled(vpc, network, plan)
            self._links += 1
            link = f"p{self._links}"
            namespace = kernel.new_namespace(forwards=False)
            made = _Attached(self, vpc, link, held, namespace)
            made.resolver = _resolving(plan)
            try:
                await kernel.ip(
                    network.namespace, f"link add {link} type veth peer name eth0 netns {made.namespace}",
                )  # fmt: skip
                network.plugs[link] = held
                self._attached.add(held.id)
                # Rules first, link up last.
                await self._settled(vpc, network, plan)
                await kernel.ip(
                    network.namespace,
                    f"address add {held.router}/32 dev {link}",
                    f"link set {link} up",
                    f"route add {held.address}/32 dev {link}",
                )
                await kernel.ip(
                    namespace,
                    "link set lo up",
                    "link set eth0 up",
                    f"address add {held.address}/32 dev eth0",
                    f"route add {held.router} dev eth0 scope link",
                    f"route add default via {held.router} dev eth0",
                )
                async with asyncio.timeout(kernel.SECONDS):
                    while not (kernel.running(network.namespace, link) and kernel.running(namespace, "eth0")):
                        await asyncio.sleep(0.01)
            except BaseException as error:
                os.close(namespace)
                await self._unplug(network, link)
                if isinstance(error, (TimeoutError, OSError)):
                    raise NetworkError(f"{interface} could not be attached: {error}") from error
                raise
            return made

    async def detach(self, vpc: Vpc, link: str) -> None:
        """Takes a link away, and what it alone needed."""
        network = self._networks.get(vpc)
        if network is None or link not in network.plugs:
            return
        async with network.lock:
            await self._unplug(network, link)
        with contextlib.suppress(NetworkError):
            await self.settle(vpc)

    async def _unplug(self, network: _Network, link: str) -> None:
        held = network.plugs.pop(link, None)
        if held is not None:
            self._attached.discard(held.id)
        if network.namespace >= 0:
            with contextlib.suppress(NetworkError):  # its other end was closed with the attachment's namespace
                await kernel.ip(network.namespace, f"link del {link}")

    @property
    def authority(self) -> Path:
        """See the port."""
        return self._trusted

    async def join(self, hosts: int, *, encrypted: bool, attached: Sequence[Attachment] = ()) -> Joined:
        """See the port."""
        made = Peers()
        try:
            await made.make(hosts, encrypted=encrypted, attached=attached)
        except OSError as error:
            await asyncio.shield(made.close())
            raise NetworkError(f"the hosts could not be joined: {error}") from error
        except BaseException:
            await asyncio.shield(made.close())
            raise
        return made

    def listen(self, namespace: str, port: int) -> socket.socket:
        """See the port."""
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return kernel.listening(handle, "127.0.0.1", port)
        finally:
            os.close(handle)

    def connect(self, namespace: str, port: int) -> socket.socket:
        """See the port."""
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return kernel.connected(handle, "127.0.0.1", port)
        finally:
            os.close(handle)

    async def serve(self, bound: socket.socket) -> Opened:
        """See the port."""
        if self.door is None:
            raise NetworkError("nothing serves sockets yet")
        return await self.door(bound, "", ("localhost",), "")

    async def close(self) -> None:
        """Takes all VPCs away."""
        for task in self._trying.values():
            task.cancel()
        self._trying.clear()
        for network in self._networks.values():
            async with network.lock:
                self._cut(network)
        self._networks.clear()
        await self._transits.close()
