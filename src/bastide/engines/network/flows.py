"""What really crossed watched interfaces, counted by the kernel: sets of nftables whose elements are flows.

Four sets, for packets out of an interface and into it, accepted and rejected by its groups. They are emptied whenever the
rules are loaded anew, so they are read before.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bastide.engines.network import Flow

OUT_OK, IN_OK, OUT_NO, IN_NO = "out_ok", "in_ok", "out_no", "in_no"
SETS: Final = (OUT_OK, IN_OK, OUT_NO, IN_NO)
_KEY: Final = "ip saddr . ip daddr . meta l4proto . th sport . th dport"
_TYPE: Final = "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service"
_ICMP: Final = 1


def declared() -> list[str]:
    """The sets. An element that nothing adds to for a quarter of an hour goes; when there are too many, further flows are
    not counted, and pass all the same."""
    return [f"set {one} {{ type {_TYPE}; size 65535; flags dynamic,timeout; timeout 15m; }}" for one in SETS]


def counted(name: str) -> str:
    """A statement that counts the packet in a set."""
    return f"update @{name} {{ {_KEY} counter }}"


def passed(plugs: Iterable[str], served: Iterable[str]) -> list[str]:
    """Chains that count what was accepted. plugs: names of watched links. served: addresses of watched interfaces of
    endpoints."""
    links = f"{{ {', '.join(json.dumps(one) for one in plugs)} }}" if plugs else ""
    here = f"{{ {', '.join(served)} }}" if served else ""
    lines: list[str] = []
    for name, hook, rules in (
        ("passed_out", "prerouting priority -140", [f"iifname {links} {counted(OUT_OK)}" if links else ""]),
        ("passed_in", "postrouting priority 250", [f"oifname {links} {counted(IN_OK)}" if links else ""]),
        ("served_in", "input priority 10", [f"ip daddr {here} {counted(IN_OK)}" if here else ""]),
        ("served_out", "output priority 10", [f"ip saddr {here} {counted(OUT_OK)}" if here else ""]),
    ):
        lines += [f"chain {name} {{", f"type filter hook {hook}; policy accept;", *filter(None, rules), "}"]
    return lines


@dataclass(slots=True)
class Counts:
    """What was read of the sets so far, so that only what is new is told."""

    before: dict[tuple[str, tuple[Any, ...]], tuple[int, int]]
    new: dict[tuple[str, tuple[Any, ...]], tuple[int, int]]

    @classmethod
    def none(cls) -> Counts:
        """Of sets that are empty."""
        return cls({}, {})

    def read(self, text: str) -> None:
        """Takes nft's JSON of the sets."""
        seen: dict[tuple[str, tuple[Any, ...]], tuple[int, int]] = {}
        for one in json.loads(text).get("nftables", ()):
            held = one.get("set") or {}
            if held.get("name") not in SETS:
                continue
            for element in held.get("elem") or ():
                counter = element["elem"].get("counter") or {}
                key = (held["name"], tuple(element["elem"]["val"]["concat"]))
                seen[key] = (counter.get("packets", 0), counter.get("bytes", 0))
        for key, (packets, size) in seen.items():
            had = self.before.get(key, (0, 0))
            if packets < had[0]:
                had = (0, 0)  # it went, and came again
            if packets > had[0]:
                more = self.new.get(key, (0, 0))
                self.new[key] = (more[0] + packets - had[0], more[1] + size - had[1])
        self.before = seen

    def emptied(self) -> None:
        """The sets are new."""
        self.before = {}

    def taken(self, interfaces: Mapping[str, str]) -> list[Flow]:
        """What is new, of the interfaces (ids by their addresses); and nothing is new any more."""
        found: dict[Flow, tuple[int, int]] = {}
        for (name, (source, target, protocol, sport, dport)), (packets, size) in self.new.items():
            id = interfaces.get(source if name in (OUT_OK, OUT_NO) else target)
            if id is None:
                continue
            number = _number(protocol)
            ports = (0, 0) if number == _ICMP else (_port(sport), _port(dport))
            flow = Flow(id, source, target, *ports, number, 0, 0, name in (OUT_OK, IN_OK))
            had = found.get(flow, (0, 0))
            found[flow] = (had[0] + packets, had[1] + size)
        self.new = {}
        return [replace(flow, packets=packets, size=size) for flow, (packets, size) in found.items()]


def _number(protocol: Any) -> int:
    if isinstance(protocol, int) or str(protocol).isdecimal():
        return int(protocol)
    try:
        return socket.getprotobyname(str(protocol))
    except OSError:
        return 255


def _port(told: Any) -> int:
    if isinstance(told, int) or str(told).isdecimal():
        return int(told)
    try:
        return socket.getservbyname(str(told))
    except OSError:
        return 0
