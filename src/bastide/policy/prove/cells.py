"""Keys compared as numbers, dates, addresses or bytes: finitely many values stand for all.

The values of a family are ordered, and a policy compares them with constants alone. Between two neighbouring constants
all values are alike, so one of each stretch is enough. Which of them meet a condition is asked of the evaluator itself.
"""

from __future__ import annotations

import base64
import ipaddress
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from bastide.policy.prove.solver import Inexact

FAMILIES: Final = ("Numeric", "Date", "Ip", "Binary")
_WRONG: Final = "no such value"
"""A text that is of no family."""


def family_of(base: str) -> str:
    """The family of an operator: one of `FAMILIES`, "Text" or "Null"."""
    if base == "Null":
        return "Null"
    for name in ("Numeric", "Date", "Binary"):
        if base.startswith(name):
            return name
    return "Ip" if base in ("IpAddress", "NotIpAddress") else "Text"


def representatives(family: str, constants: Iterable[str]) -> list[str]:
    """Texts of which every other text of the family behaves like one; the last two are a text that is none, and "".

    Raises Inexact for a constant that this module does not read.
    """
    texts = list(constants)
    if family == "Numeric":
        found = [_decimal(one) for one in _between({Decimal(one) for one in texts})]
    elif family == "Date":
        found = [_instant(one) for one in _between({_moment(one) for one in texts})]
    elif family == "Ip":
        found = _addresses(texts)
    else:
        known = {base64.b64decode(one) for one in texts}
        other = next(bytes([n]) for n in range(256) if bytes([n]) not in known)
        found = [base64.b64encode(one).decode() for one in (*sorted(known), other)]
    return [*found, _WRONG, ""]


def _between(constants: set[Decimal]) -> list[Decimal]:
    known = sorted(constants)
    found = [known[0] - 1]
    for low, high in itertools.pairwise(known):
        found += [low, (low + high) / 2]
    return [*found, known[-1], known[-1] + 1]


def _decimal(number: Decimal) -> str:
    text = format(number, "f")
    if len(text) > 40:
        raise Inexact(f"the number {text[:40]}... is too long")
    return text


def _moment(text: str) -> Decimal:
    if len(text) != 4 and text.lstrip("-").replace(".", "", 1).isdigit():
        return Decimal(text)
    whole = {4: f"{text}-01-01", 7: f"{text}-01"}.get(len(text), text)
    try:
        found = datetime.fromisoformat(whole)
    except ValueError:
        raise Inexact(f"the date {text}") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    return Decimal(since.days * 86400 + since.seconds) + Decimal(since.microseconds) / 1_000_000


def _instant(moment: Decimal) -> str:
    text = format(moment, "f")
    try:
        found = datetime.fromtimestamp(float(moment), UTC)
    except (ValueError, OverflowError, OSError):
        return text
    if found.microsecond or Decimal(found.timestamp()) != moment or not 1000 <= found.year <= 9998:
        if len(text) == 4:  # four digits would be a year
            return f"{text}.0"
        return text
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


_MAPPED: Final = (0xFFFF << 32, 0x10000 << 32)
"""IPv4 addresses spelled as IPv6: the evaluator takes them for what they are."""


def _addresses(ranges: list[str]) -> list[str]:
    starts: dict[int, set[int]] = {4: {0}, 6: {0, *_MAPPED}}
    for text in ranges:
        network = ipaddress.ip_network(text, strict=False)
        first, last, version = int(network.network_address), int(network.broadcast_address), network.version
        if version == 6 and _MAPPED[0] <= first and last < _MAPPED[1]:
            first, last, version = first - _MAPPED[0], last - _MAPPED[0], 4
        starts[version] |= {first, last + 1}
    found = [str(ipaddress.IPv4Address(one)) for one in sorted(starts[4]) if one < 2**32]
    beyond = [one for one in sorted(starts[6]) if one < 2**128 and not _MAPPED[0] <= one < _MAPPED[1]]
    return found + [str(ipaddress.IPv6Address(one)) for one in beyond]
