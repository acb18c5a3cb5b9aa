"""What a packet would meet on its way, hop by hop, said from the same plans that the packets go by.

Pure but for its arguments. tests/unit/network/test_why.py holds it against real packets on generated networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from bastide.engines.network import (
    Entrance,
    Group,
    Hop,
    Interface,
    Ipsec,
    Joint,
    Packet,
    Plan,
    Rule,
    Telemetry,
    Transit,
    TransitPlan,
    Vpc,
    Way,
    acls,
)
from bastide.engines.network.resolver import addresses

_HTTPS: Final = 443
_DNS: Final = 53
_POLICY: Final = "the endpoint's policy decides each call: bastide why REQUEST-ID"


class _Refused(Exception):  # noqa: N818
    """The way ends."""


class _Told:
    def __init__(self) -> None:
        self.hops: list[Hop] = []

    def on(self, what: str, where: str, why: str) -> None:
        self.hops.append(Hop(what, where, True, why))

    def end(self, what: str, where: str, why: str) -> _Refused:
        self.hops.append(Hop(what, where, False, why))
        return _Refused()


def explain(
    vpc: Vpc,
    interface: str,
    packet: Packet,
    *,
    plans: Callable[[Vpc], Plan | None],
    transits: Callable[[Transit], TransitPlan | None],
    attached: Callable[[str], bool],
    linked: Callable[[str], bool],
    tunnels: Callable[[str], Mapping[str, Telemetry]] = lambda _: {},
) -> list[Hop]:
    """How a packet from an interface of a VPC fares. packet.destination: an address, or a name that the VPC's DNS knows.
    attached, linked: whether something is attached to an interface, whether an attachment of a gateway has its link.
    tunnels: those of an attachment."""
    walk = _Walk(plans, transits, attached, linked, tunnels)
    with contextlib.suppress(_Refused):
        walk.go(vpc, interface, packet)
    return walk.told.hops


class _Walk:
    def __init__(
        self,
        plans: Callable[[Vpc], Plan | None],
        transits: Callable[[Transit], TransitPlan | None],
        attached: Callable[[str], bool],
        linked: Callable[[str], bool],
        tunnels: Callable[[str], Mapping[str, Telemetry]],
    ) -> None:
        self.told = _Told()
        self._plans = plans
        self._transits = transits
        self._attached = attached
        self._linked = linked
        self._tunnels = tunnels

    def go(self, vpc: Vpc, id: str, packet: Packet) -> None:
        plan = self._plans(vpc)
        source = plan.interfaces.get(id) if plan is not None else None
        if plan is None or source is None:
            raise self.told.end("interface", id, "there is no such interface that something can be attached to")
        packet = self._named(vpc, plan, packet, source)
        there = IPv4Address(packet.destination)
        if plan.resolver and packet.destination == plan.resolver and (packet.protocol, packet.port) == ("udp", _DNS):
            self.told.on("dns", vpc.id, "the VPC's DNS answers whatever groups say")
            return
        self._groups(plan, source, packet, there, outward=True)
        here = IPv4Address(source.address)
        self._acl(plan, here, there, packet, outward=True)
        for entrance in plan.entrances:
            meant = bool(entrance.outside) and there in IPv4Network(entrance.outside) and _https(packet)
            if meant and _inside(source.address, entrance.routed):
                self.told.on("route", entrance.id, f"the subnet's table leads {entrance.outside} to {entrance.id}")
                self.told.on("endpoint", entrance.id, _POLICY)
                self._acl(plan, here, there, packet, outward=False, back=True)
                return
        if there in IPv4Network(plan.cidr):
            self.told.on("route", vpc.id, f"{plan.cidr} is local")
            self._arrive(vpc, plan, packet, there)
        elif exit := _exit(plan, source.address, there):
            self._out(plan, source, packet, there, *exit)
        else:
            joint = self._way(vpc.id, _ways(plan, source.address), there, "route")
            transit = plan.joints[joint]
            self._cross(transit, joint, packet, there, vpc, plan, source)
        self._acl(plan, here, there, packet, outward=False, back=True)

    def _out(self, plan: Plan, source: Interface, packet: Packet, there: IPv4Address, network: str, exit: str) -> None:
        """By an internet gateway or a NAT gateway to what the internet has: the services' public addresses."""
        kind = "nat gateway" if exit.startswith("nat-") else "internet gateway"
        found = acls.via(plan, source.address, exit)
        if found is None:
            why = (
                f"{network} leads to {exit}, and {source.id} has no public address" if kind[0] == "i" else "it is gone"
            )
            raise self.told.end(kind, exit, why)
        self.told.on("route", exit, f"{network} leads to {exit}")
        if str(there) not in found.addresses:
            raise self.told.end(
                kind, exit, f"of the internet, there are the services' addresses alone, and {there} is none"
            )
        here = IPv4Address(source.address)
        if found.subnet:
            self._acl(plan, IPv4Network(found.subnet)[0], here, packet, outward=False)
            self._acl(plan, IPv4Network(found.subnet)[0], there, packet, outward=True)
        if not _https(packet):
            raise self.told.end(kind, exit, f"the services answer tcp {_HTTPS} alone")
        self.told.on(kind, exit, f"calls come from {found.public}, through no endpoint; policies decide each")
        if found.subnet:
            self._acl(plan, IPv4Network(found.subnet)[0], there, packet, outward=False, back=True)
            self._acl(plan, IPv4Network(found.subnet)[0], here, packet, outward=True, back=True)

    def _acl(
        self, plan: Plan, here: IPv4Address, peer: IPv4Address, packet: Packet, *, outward: bool, back: bool = False
    ) -> None:
        """The network ACL of the subnet of `here`, for a packet out of it or into it. back: it is the answer."""
        found = acls.of(plan, here)
        if found is None or peer in IPv4Network(found[0]) or plan.resolver in (str(here), str(peer)):
            return
        cidr, acl = found
        protocol = {"tcp": acls.TCP, "udp": acls.UDP, "icmp": acls.ICMP}[packet.protocol]
        first, last = acls.EPHEMERAL if back else (packet.port, packet.port)
        if packet.protocol == "icmp":
            first = last = 0 if back else 8
        passes, number, ports = acls.decides(acl.outward if outward else acl.inward, peer, protocol, first, last)
        what = "network acl back" if back else "network acl"
        told = (
            f"{packet.protocol} {ports[0]}" if ports[0] == ports[1] else f"{packet.protocol} {ports[0]} to {ports[1]}"
        )
        told = packet.protocol if packet.protocol == "icmp" else told
        way = f"{told} {'out of' if outward else 'into'} {cidr}, {'to' if outward else 'from'} {peer}"
        if not passes:
            rule = "no rule of it allows" if number is None else f"rule {number} denies"
            raise self.told.end(what, acl.id, f"{rule} {way}" + (": it keeps no state" if back else ""))
        self.told.on(what, acl.id, f"rule {number} allows {way}")

    def _named(self, vpc: Vpc, plan: Plan, packet: Packet, source: Interface) -> Packet:
        try:
            IPv4Address(packet.destination)
        except ValueError:
            name = packet.destination.lower().rstrip(".")
            found = addresses(name, plan.names, plan.zones) if plan.resolver else None
            if not found:
                why = f"{name} has no address there" if plan.resolver else "the VPC has no DNS (enableDnsSupport)"
                raise self.told.end("dns", vpc.id, why) from None
            self.told.on("dns", vpc.id, f"{name} is {', '.join(found)}")
            return Packet(source.address, found[0], packet.protocol, packet.port)
        return Packet(source.address, packet.destination, packet.protocol, packet.port)

    # -- groups --------------------------------------------------------------------------------------------------------

    def _groups(self, plan: Plan, interface: Interface, packet: Packet, peer: IPv4Address, *, outward: bool) -> None:
        way = "out" if outward else "in"
        for id in interface.groups:
            held = plan.groups.get(id, Group((), ()))
            for rule in held.outward if outward else held.inward:
                if self._matches(plan, rule, packet, peer):
                    self.told.on("security group", id, f"a rule of {id} lets {_shown(packet)} {way}")
                    return
        groups = ", ".join(interface.groups)
        whom = f"to {peer}" if outward else f"from {peer}"
        raise self.told.end("security group", groups, f"no rule of {groups} lets {_shown(packet)} {way} {whom}")

    def _matches(self, plan: Plan, rule: Rule, packet: Packet, peer: IPv4Address) -> bool:
        if rule.protocol == "icmpv6":
            return False
        if rule.group:
            members = {one.address for one in self._standing(plan) if rule.group in one.groups}
            if str(peer) not in members:
                return False
        elif not _inside(str(peer), rule.networks):
            return False
        if rule.protocol == "-1":
            return True
        if rule.protocol in ("tcp", "udp"):
            last = rule.last if rule.last >= 0 else 65535
            return packet.protocol == rule.protocol and max(rule.first, 0) <= packet.port <= last
        if rule.protocol == "icmp":
            return packet.protocol == "icmp" and rule.first in (-1, 8) and (rule.first < 0 or rule.last in (-1, 0))
        return {"tcp": "6", "udp": "17", "icmp": "1"}[packet.protocol] == rule.protocol

    def _standing(self, plan: Plan) -> Iterable[Interface]:
        yield from (one for entrance in plan.entrances for one in entrance.interfaces)
        yield from (one for one in plan.interfaces.values() if self._attached(one.id))

    # -- routes --------------------------------------------------------------------------------------------------------

    def _way(self, where: str, ways: Iterable[Way], there: IPv4Address, what: str) -> str:
        """The joint by which packets to an address leave; raises _Refused where none does."""
        found = [one for one in ways if there in IPv4Network(one.network)]
        if not found:
            raise self.told.end(what, where, f"no route of it leads to {there}")
        best = max(found, key=lambda one: IPv4Network(one.network).prefixlen)
        if not best.joint:
            raise self.told.end(what, where, best.reason or f"the route {best.network} is a blackhole")
        if not self._linked(best.joint):
            raise self.told.end(what, where, f"{best.network} leads to {best.joint}, which leads nowhere now")
        self.told.on(what, where, f"{best.network} leads to {best.joint}")
        return best.joint

    def _joint(self, transit: Transit, plan: TransitPlan, joint: str) -> Joint:
        held = plan.joints.get(joint)
        if held is None:
            raise self.told.end("attachment", joint, f"{joint} is no attachment of {transit.id} any more")
        if not held.table:
            raise self.told.end("attachment", joint, f"{joint} is associated with no route table of {transit.id}")
        return held

    def _cross(
        self, transit: Transit, joint: str, packet: Packet, there: IPv4Address, vpc: Vpc, plan: Plan, source: Interface
    ) -> None:
        gate = self._transits(transit)
        if gate is None:
            raise self.told.end("transit gateway", transit.id, "it is gone")
        here = self._joint(transit, gate, joint)
        ahead = self._way(here.table, here.ways, there, "transit route table")
        target = gate.joints[ahead]
        self._behind(ahead, target, there)
        back = IPv4Address(source.address)
        if target.vpc is not None:
            other = self._plans(target.vpc)
            if other is None:
                raise self.told.end("vpc", target.vpc.id, "it is gone")
            if back in IPv4Network(other.cidr):
                raise self.told.end("vpc", target.vpc.id, f"{back} is an address of its own, and comes from outside")
            if str(there) == other.resolver:
                raise self.told.end("dns", target.vpc.id, "a VPC's DNS answers inside of it only")
            self._arrive(target.vpc, other, packet, there)
            returned = self._way(target.vpc.id, _ways(other, str(there)), back, "route back")
            if other.joints[returned] != transit:
                raise self.told.end("route back", target.vpc.id, f"answers leave by {returned}, another gateway's")
        elif target.far is not None:
            returned = ahead
            if target.ipsec is not None:
                self._tunnelled(ahead, target.ipsec)
            self.told.on(
                "link", target.far.name, f"{there} is declared to be there; what becomes of it is up to the operator"
            )
            if target.ipsec is None and not _answered(target, back):
                raise self.told.end("link", target.far.name, f"it is told of no way back to {back} by {target.table}")
        again = self._joint(transit, gate, returned)
        last = self._way(again.table, again.ways, back, "transit route table back")
        self._behind(last, gate.joints[last], back)
        if gate.joints[last].vpc != vpc:
            raise self.told.end("transit route table back", again.table, f"answers to {back} go to {last}")

    def _tunnelled(self, id: str, ipsec: Ipsec) -> None:
        held = self._tunnels(id)
        up = [one.outside for one in ipsec.tunnels if one.outside in held and held[one.outside].up]
        if not up:
            raise self.told.end("vpn", id, f"no tunnel to {ipsec.gateway} is up")
        self.told.on("vpn", id, f"it is encrypted between {' and '.join(up)} and {ipsec.gateway}")

    def _behind(self, id: str, joint: Joint, address: IPv4Address) -> None:
        if not _inside(str(address), joint.ranges):
            raise self.told.end(
                "attachment", id, f"{address} is not behind {id} ({', '.join(joint.ranges) or 'nothing'})"
            )

    # -- the target ----------------------------------------------------------------------------------------------------

    def _arrive(self, vpc: Vpc, plan: Plan, packet: Packet, there: IPv4Address) -> None:
        entrance = _entrance(plan, there)
        target = entrance[1] if entrance is not None else _at(plan, there)
        if target is None:
            raise self.told.end("interface", vpc.id, f"nothing has the address {there}")
        if entrance is None and not self._attached(target.id):
            raise self.told.end("interface", target.id, f"nothing is attached to {target.id}")
        peer = IPv4Address(packet.source)
        self._acl(plan, there, peer, packet, outward=False)
        self._groups(plan, target, packet, peer, outward=False)
        if entrance is None:
            self.told.on("interface", target.id, f"{there} is reached; whether somebody listens, it says itself")
        elif _https(packet):
            self.told.on("endpoint", entrance[0].id, _POLICY)
        else:
            self.told.on("endpoint", entrance[0].id, f"it is reached, and serves tcp {_HTTPS} alone")
        self._acl(plan, there, peer, packet, outward=True, back=True)


def _answered(target: Joint, back: IPv4Address) -> bool:
    return any(back in IPv4Network(one.network) for one in target.ways if one.joint)


def _ways(plan: Plan, address: str) -> tuple[Way, ...]:
    """The routes of the subnet that an address is of."""
    return next((ways for subnet, ways in plan.ways.items() if _inside(address, (subnet,))), ())


def _exit(plan: Plan, address: str, there: IPv4Address) -> tuple[str, str] | None:
    """The route by which an address is reached and the gateway, if that leads to the internet."""
    for subnet, network, exit in acls.exits(plan):
        if _inside(address, (subnet,)) and there in IPv4Network(network):
            return (network, exit) if exit else None
    return None


def _inside(address: str, networks: Iterable[str]) -> bool:
    return any(IPv4Address(address) in IPv4Network(one) for one in networks)


def _https(packet: Packet) -> bool:
    return (packet.protocol, packet.port) == ("tcp", _HTTPS)


def _entrance(plan: Plan, there: IPv4Address) -> tuple[Entrance, Interface] | None:
    for entrance in plan.entrances:
        for one in entrance.interfaces:
            if one.address == str(there):
                return entrance, one
    return None


def _at(plan: Plan, there: IPv4Address) -> Interface | None:
    return next((one for one in plan.interfaces.values() if one.address == str(there)), None)


def _shown(packet: Packet) -> str:
    return packet.protocol if packet.protocol == "icmp" else f"{packet.protocol} {packet.port}"
