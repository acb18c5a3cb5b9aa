"""The DNS of a VPC: it knows what the plan names, and asks nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_TTL = 60
_LONGEST = 1232


class Resolver(asyncio.DatagramProtocol):
    """Answers questions for addresses. `names` may be replaced while it serves."""

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        self.names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        """Keeps the way back."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answers, or is silent to what is no question."""
        told = answer(data, self.names)
        if told is not None and self._transport is not None:
            self._transport.sendto(told, addr)

    def close(self) -> None:
        """Answers no more."""
        if self._transport is not None:
            self._transport.close()


def addresses(name: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The addresses of a name, lower case and without the last dot; None for one that does not exist."""
    found = names.get(name)
    while found is None and "." in name:
        _, _, name = name.partition(".")
        found = names.get(f"*.{name}")
    return found


def answer(data: bytes, names: Mapping[str, tuple[str, ...]]) -> bytes | None:
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
        found = addresses(question.name.to_text(omit_final_dot=True).lower(), names)
        if found is None or question.rdclass != dns.rdataclass.IN:
            told.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A and found:
            told.answer.append(dns.rrset.from_text_list(question.name, _TTL, "IN", "A", list(found)))
        return told.to_wire()
    except (dns.exception.DNSException, ValueError):
        return None
