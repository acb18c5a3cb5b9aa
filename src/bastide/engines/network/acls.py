"""Network ACLs: as chains of nftables, and as a decision about one packet.

They keep no state: the answer to what was let out is let in by an entry, or not at all. What stays within a subnet crosses
no border, and the VPC's DNS is asked whatever they say. Source: VPC User Guide, "Control subnet traffic with network access
control lists".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from bastide.engines.network import Acl, Entrance, Entry, Plan, Way, flows

EPHEMERAL: Final = (32768, 60999)
"""Ports that a Linux client's connections come from, and answers go to."""
TCP, UDP, ICMP = "6", "17", "1"
_PORTED: Final = (TCP, UDP)
_ALL: Final = "-1"
_ANYWHERE: Final = "0.0.0.0/0"
_MARK: Final = 1
"""Of packets that came in by a link; the others are answers of the platform's own sockets."""


def is_open(entries: Sequence[Entry]) -> bool:
    """Whether entries let everything pass, because the first one does."""
    first = next(iter(entries), None)
    return first is not None and first.allows and first.protocol == _ALL and first.network == _ANYWHERE


def exits(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """In the order in which they count: a subnet, a network, and where packets between the two go: a NAT gateway's or an
    internet gateway's id, or empty where a route leads elsewhere. Of subnets from which any leads out."""
    for subnet, ways in plan.ways.items():
        if any(one.exit for one in ways):
            for way in sorted(ways, key=_length, reverse=True):
                yield subnet, way.network, way.exit


def _length(way: Way) -> int:
    return IPv4Network(way.network).prefixlen


# -- nftables ----------------------------------------------------------------------------------------------------------


def chains(plan: Plan) -> list[str]:
    """The chains that drop what the ACLs do not let pass; none without an ACL that matters."""
    if not plan.acls:
        return []
    numbers = {subnet: number for number, subnet in enumerate(plan.acls)}
    lines: list[str] = []
    for subnet, number in numbers.items():
        acl = plan.acls[subnet]
        for way, entries, peer, counted in (
            ("out", acl.outward, "daddr", flows.OUT_NO), ("in", acl.inward, "saddr", flows.IN_NO),
        ):  # fmt: skip
            drop = f"{flows.counted(counted)} drop" if plan.watched else "drop"
            lines += [f"chain acl_{way}_{number} {{", f"ip {peer} {subnet} return"]
            if plan.resolver:
                lines.append(f"ip {peer} {plan.resolver} return")
            lines += [f"{_match(one, peer)} {'return' if one.allows else drop}".strip() for one in entries]
            lines += [drop, "}"]
    outward = ", ".join(f"{subnet} : jump acl_out_{number}" for subnet, number in numbers.items())
    inward = ", ".join(f"{subnet} : jump acl_in_{number}" for subnet, number in numbers.items())
    for end, other in (("saddr", "daddr"), ("daddr", "saddr")):
        lines += [f"chain acl_nat_{end} {{", *_nat(plan, numbers, end, other), "}"]
    own = [f"ip saddr {plan.resolver} return", f"ip daddr {plan.resolver} return"] if plan.resolver else []
    # Around the chain that counts what the groups let out: what a subnet's own ACL keeps in was not sent, what another's
    # keeps out was.
    lines += [
        "chain acl_out {", "type filter hook prerouting priority -145; policy accept;", f"meta mark set {_MARK}", *own,
        f"ip saddr vmap {{ {outward} }}", "}",
        "chain acl_in {", "type filter hook prerouting priority -135; policy accept;", *own,
        "jump acl_nat_saddr", f"ip daddr vmap {{ {inward} }}", "}",
        # After the translation is undone: answers of sockets have the address by which they were asked.
        "chain acl_own {", "type filter hook postrouting priority 200; policy accept;", f"meta mark {_MARK} return", *own,
        f"ip saddr vmap {{ {outward} }}", "jump acl_nat_daddr", f"ip daddr vmap {{ {inward} }}", "}",
    ]  # fmt: skip
    return lines


def _nat(plan: Plan, numbers: dict[str, int], end: str, other: str) -> list[str]:
    """What goes by a NAT gateway crosses the border of the gateway's subnet, too: into it and out of it."""
    gateways = {one.id: one for one in plan.entrances if one.public}
    lines: list[str] = []
    for subnet, network, exit in exits(plan):
        match = f"ip {end} {subnet} ip {other} {network}"
        number = numbers.get(gateways[exit].subnet) if exit in gateways else None
        addresses = f"ip {other} {{ {', '.join(gateways[exit].addresses)} }}" if exit in gateways else ""
        if number is not None:
            lines += [f"{match} {addresses} jump acl_{way}_{number}" for way in ("in", "out")]
        lines.append(f"{match} return")
    return lines


def _match(entry: Entry, peer: str) -> str:
    words = [] if entry.network == _ANYWHERE else [f"ip {peer} {entry.network}"]
    if entry.protocol in _PORTED and entry.first >= 0:
        name = "tcp" if entry.protocol == TCP else "udp"
        words.append(f"{name} dport {entry.first}-{entry.last}")
    elif entry.protocol == ICMP and entry.first >= 0:
        words.append(f"icmp type {entry.first}")
        if entry.last >= 0:
            words.append(f"icmp code {entry.last}")
    elif entry.protocol != _ALL:
        words.append(f"meta l4proto {entry.protocol}")
    return " ".join(words)


# -- one packet --------------------------------------------------------------------------------------------------------


def of(plan: Plan, address: IPv4Address) -> tuple[str, Acl] | None:
    """The subnet that an address lies in and its ACL, if there is one that matters."""
    return next(((cidr, acl) for cidr, acl in plan.acls.items() if address in IPv4Network(cidr)), None)


def decides(
    entries: Iterable[Entry], peer: IPv4Address, protocol: str, first: int, last: int
) -> tuple[bool, int | None, tuple[int, int]]:
    """Whether packets of a protocol (its number) pass to or from a peer, with any port from first to last (of ICMP: of that
    type, and code 0); the number of the entry that decides, None where no entry fits; and the ports that it is about."""
    left = [(first, last)]
    for entry in entries:
        if entry.protocol not in (_ALL, protocol) or peer not in IPv4Network(entry.network):
            continue
        if entry.protocol == ICMP and entry.first >= 0 and (entry.first != first or entry.last > 0):
            continue
        low, high = (entry.first, entry.last) if entry.protocol in _PORTED and entry.first >= 0 else (0, 65535)
        hit = [(a, b) for a, b in left if a <= high and low <= b]
        if hit and not entry.allows:
            return False, entry.number, hit[0]
        left = [
            (a, b)
            for start, end in left
            for a, b in ((start, min(end, low - 1)), (max(start, high + 1), end))
            if a <= b
        ]
        if not left:
            return True, entry.number, (first, last)
    return False, None, left[0]


def via(plan: Plan, source: str, exit: str) -> Entrance | None:
    """Where what leaves by a gateway comes out; None for an address that has no public one."""
    id = plan.publics.get(source, "") if exit.startswith("igw-") else exit
    return next((one for one in plan.entrances if one.public and one.id == id), None)
