"""The DNS of a VPC: it knows what the plan names and its zones hold, and asks nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from bastide.engines.network import Zone

_TTL = 60
_LONGEST = 1232


_MOST_LINKS: Final = 8
"""CNAMEs that are followed."""

Answer = list[tuple[str, str, int, tuple[str, ...]]]
"""Records in their order: name, type, seconds, values."""


class Resolver(asyncio.DatagramProtocol):
    """Answers questions. `names` and `zones` (see `Plan`) may be replaced while it serves."""

    def __init__(self, names: Mapping[str, tuple[str, ...]], zones: Sequence[Zone] = ()) -> None:
        self.names = names
        self.zones = zones
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        """Keeps the way back."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answers, or is silent to what is no question."""
        told = answer(data, self.names, self.zones)
        if told is not None and self._transport is not None:
            self._transport.sendto(told, addr)

    def close(self) -> None:
        """Answers no more."""
        if self._transport is not None:
            self._transport.close()


def addresses(name: str, names: Mapping[str, tuple[str, ...]], zones: Sequence[Zone] = ()) -> tuple[str, ...] | None:
    """The addresses of a name, lower case and without the last dot; None for one that does not exist."""
    found = look(name, "A", names, zones)
    return None if found is None else tuple(value for _, type, _, values in found if type == "A" for value in values)


def look(
    name: str, type: str, names: Mapping[str, tuple[str, ...]], zones: Sequence[Zone], links: int = _MOST_LINKS
) -> Answer | None:
    """The records of a name, with the CNAMEs that lead to them; None for a name that does not exist."""
    key, known = _named(name, names)
    zone = max((one for one in zones if _below(name, one.name)), key=lambda one: len(one.name), default=None)
    if zone is None or (known is not None and len(key) >= len(zone.name)):
        if known is None:
            return None
        return [(name, "A", _TTL, known)] if type == "A" and known else []
    held = _records(name, zone)
    if held is None:
        return None
    if "CNAME" in held and type != "CNAME":
        seconds, values = held["CNAME"]
        target = values[0].rstrip(".").lower()
        more = look(target, type, names, zones, links - 1) if links else None
        return [(name, "CNAME", seconds, (f"{target}.",)), *(more or ())]
    return [(name, type, *held[type])] if type in held else []


def _named(name: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...] | None]:
    found = names.get(name)
    while found is None and "." in name:
        _, _, name = name.partition(".")
        found = names.get(f"*.{name}")
    return name, found


def _below(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def _records(name: str, zone: Zone) -> dict[str, tuple[int, tuple[str, ...]]] | None:
    """The records of a name in a zone by type, by the closest wildcard if there are none of its own; None if the name does
    not exist. Source: RFC 4592."""
    held = {type: one for (owner, type), one in zone.records.items() if owner == name}
    if held or name == zone.name or any(_below(owner, name) for owner, _ in zone.records):
        return held
    while name != zone.name:
        _, _, name = name.partition(".")
        held = {type: one for (owner, type), one in zone.records.items() if owner == f"*.{name}"}
        if held:
            return held
        if any(_below(owner, name) and not owner.startswith("*.") for owner, _ in zone.records):
            return None
    return None


def answer(data: bytes, names: Mapping[str, tuple[str, ...]], zones: Sequence[Zone] = ()) -> bytes | None:
    """The answer to a datagram; None for what is no question. Source: RFC 1035, section 4."""
    if len(data) > _LONGEST:
        return None
    try:
        asked = dns.message.from_wire(data)
        if asked.flags & dns.flags.QR:
            return None
        told = dns.message.make_response(asked, recursion_available=True)
        if asked.opcode() != dns.opcode.QUERY or len(asked.question) != 1:
            told.set_rcode(dns.rcode.NOTIMP)
            return told.to_wire()
        question = asked.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        found = look(name, dns.rdatatype.to_text(question.rdtype), names, zones)
        if found is None or question.rdclass != dns.rdataclass.IN:
            told.set_rcode(dns.rcode.NXDOMAIN)
        for owner, type, seconds, values in found or ():
            of = question.name if owner == name else dns.name.from_text(owner)
            told.answer.append(dns.rrset.from_text_list(of, seconds, "IN", type, list(values)))
        return told.to_wire(max_size=_LONGEST)
    except dns.exception.TooBig:
        return _cut(data)
    except (dns.exception.DNSException, ValueError):
        return None


def _cut(data: bytes) -> bytes | None:
    """An answer that says that the whole does not fit."""
    told = dns.message.make_response(dns.message.from_wire(data), recursion_available=True)
    told.flags |= dns.flags.TC
    return told.to_wire()
