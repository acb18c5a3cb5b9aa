"""A plan as a ruleset of nftables. Pure: text from a plan.

Both ends decide, as with security groups: what a source may send is decided where its packets come in (``outward``,
before addresses are translated), what a target may get is decided where they arrive (``inward`` for endpoints, ``across``
for whatever else is attached). A packet must pass both. Drops are silent, so that clients time out as they do in a VPC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from bastide.engines.network import Group, Interface, Plan, Rule, acls, flows

HTTPS = 443
_PORTS = 65535


def ruleset(plan: Plan, plugs: Mapping[str, Interface], gateways: Mapping[str, str], joints: Sequence[str] = ()) -> str:
    """The whole ruleset, to be loaded as one transaction.

    plugs: what is attached, by the name of its link. gateways: the inner address of each gateway endpoint. joints: the
    names of the links to transit gateways.
    """
    beyond = f"{{ {', '.join(json.dumps(link) for link in joints)} }}"
    members: dict[str, list[str]] = {}
    served = [interface for entrance in plan.entrances for interface in entrance.interfaces]
    for interface in (*served, *plugs.values()):
        for group in interface.groups:
            members.setdefault(group, []).append(interface.address)
    sets = {group: f"g{number}" for number, group in enumerate(sorted(members))}
    lines = ["flush ruleset", "table ip vpc {"]
    for group, name in sets.items():
        lines.append(f"set {name} {{ type ipv4_addr; elements = {{ {', '.join(sorted(set(members[group])))} }}; }}")
    lines.append("set plugs {")
    lines.append("type ifname . ipv4_addr")
    if plugs:
        lines.append("elements = { " + ", ".join(f'"{link}" . {one.address}' for link, one in plugs.items()) + " }")
    lines.append("}")

    if plan.watched:
        lines += flows.declared()
        lines += flows.passed(
            [link for link, one in plugs.items() if one.id in plan.watched],
            [one.address for one in served if one.id in plan.watched],
        )
    for link, interface in plugs.items():
        seen = interface.id in plan.watched
        allowed = _allowed(plan.groups, interface.groups, sets, "daddr", outward=True)
        lines += _chain(f"out_{link}", allowed, flows.OUT_NO if seen else "")
        inward = _allowed(plan.groups, interface.groups, sets, "saddr", outward=False)
        lines += _chain(f"in_{link}", inward, flows.IN_NO if seen else "")
    for number, interface in enumerate(served):
        inward = _allowed(plan.groups, interface.groups, sets, "saddr", outward=False)
        lines += _chain(f"in_{number}", inward, flows.IN_NO if interface.id in plan.watched else "")

    lines += acls.chains(plan)
    lines.append("chain outward {")
    lines.append("type filter hook prerouting priority -150; policy drop;")
    if joints:
        # Nobody outside has an address of the VPC, and its DNS answers inside only.
        lines.append(f"iifname {beyond} ip saddr {plan.cidr} drop")
        if plan.resolver:
            lines.append(f"iifname {beyond} ip daddr {plan.resolver} drop")
        lines.append(f"iifname {beyond} accept")
    lines.append("iifname . ip saddr != @plugs drop")
    lines.append("ct state established,related accept")
    if plan.resolver:
        lines.append(f"ip daddr {plan.resolver} udp dport 53 accept")
    lines += _verdicts("iifname", ((f'"{link}"', f"out_{link}") for link in plugs))
    lines.append("}")

    lines.append("chain translated {")
    lines.append("type nat hook prerouting priority -100;")
    for entrance in plan.entrances:
        if entrance.routed and entrance.outside and entrance.id in gateways:
            sources = ", ".join(entrance.routed)
            lines.append(
                f"ip saddr {{ {sources} }} ip daddr {entrance.outside} tcp dport {HTTPS} dnat to {gateways[entrance.id]}"
            )
    lines += _out(plan, gateways)
    lines.append("}")

    lines.append("chain inward {")
    lines.append("type filter hook input priority 0; policy drop;")
    lines.append("ct state established,related accept")
    if plan.resolver:
        lines.append(f"ip daddr {plan.resolver} udp dport 53 accept")
    lines += [f"ip daddr {address} ct status dnat accept" for address in gateways.values()]
    lines += _verdicts("ip daddr", ((one.address, f"in_{number}") for number, one in enumerate(served)))
    lines.append("}")

    lines.append("chain across {")
    lines.append("type filter hook forward priority 0; policy drop;")
    if joints:
        lines.append(f"iifname {beyond} oifname {beyond} drop")  # a VPC passes nothing on
    lines.append("ct state established,related accept")
    if joints:
        lines.append(f"oifname {beyond} accept")
    lines += _verdicts("ip daddr", ((one.address, f"in_{link}") for link, one in plugs.items()))
    lines.append("}")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _out(plan: Plan, gateways: Mapping[str, str]) -> list[str]:
    """What leads to the services' public addresses, by the routes of each subnet; the longest comes first."""
    served = {one.id: one for one in plan.entrances if one.public}
    lines: list[str] = []
    for subnet, network, exit in acls.exits(plan):
        ways = [(subnet, exit)]
        if exit.startswith("igw-"):
            ways = [(address, id) for address, id in sorted(plan.publics.items()) if within(address, subnet)]
        for source, id in ways:
            if id in gateways and id in served:
                there = f"ip daddr {network} ip daddr {{ {', '.join(served[id].addresses)} }}"
                lines.append(f"ip saddr {source} {there} tcp dport {HTTPS} dnat to {gateways[id]}")
        lines.append(f"ip saddr {subnet} ip daddr {network} return")
    return lines


def within(address: str, network: str) -> bool:
    """Whether an address lies in a network."""
    return IPv4Address(address) in IPv4Network(network)


def _chain(name: str, allowed: Iterable[str], lost: str = "") -> list[str]:
    """lost: the set in which what is dropped is counted."""
    drop = f"{flows.counted(lost)} drop" if lost else "drop"
    return [f"chain {name} {{", *(f"{match} accept".strip() for match in allowed), drop, "}"]


def _verdicts(what: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    held = ", ".join(f"{value} : goto {chain}" for value, chain in pairs)
    return [f"{what} vmap {{ {held} }}"] if held else []


def _allowed(
    groups: Mapping[str, Group], mine: Sequence[str], sets: Mapping[str, str], peer: str, *, outward: bool
) -> list[str]:
    found: dict[str, None] = {}
    for group in mine:
        held = groups[group]
        for rule in held.outward if outward else held.inward:
            match = _match(rule, sets, peer)
            if match is not None:
                found[match] = None
    return list(found)


def _match(rule: Rule, sets: Mapping[str, str], peer: str) -> str | None:
    """What a rule matches; None for one that nothing can match here."""
    words: list[str] = []
    if rule.protocol == "icmpv6":
        return None
    if rule.group:
        if rule.group not in sets:
            return None
        words.append(f"ip {peer} @{sets[rule.group]}")
    elif rule.networks:
        if "0.0.0.0/0" not in rule.networks:
            words.append(f"ip {peer} {{ {', '.join(rule.networks)} }}")
    else:
        return None
    if rule.protocol in ("tcp", "udp"):
        first, last = max(rule.first, 0), rule.last if rule.last >= 0 else _PORTS
        ports = f"{first}-{last}" if first != last else str(first)
        words.append(
            f"{rule.protocol} dport {ports}" if (first, last) != (0, _PORTS) else f"meta l4proto {rule.protocol}"
        )
    elif rule.protocol == "icmp":
        words.append("meta l4proto icmp" if rule.first < 0 else f"icmp type {rule.first}")
        if rule.first >= 0 and rule.last >= 0:
            words.append(f"icmp code {rule.last}")
    elif rule.protocol != "-1":
        words.append(f"meta l4proto {int(rule.protocol)}")
    return " ".join(words)
