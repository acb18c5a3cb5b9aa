"""The DNS of a VPC."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.network import Zone
from bastide.engines.network.resolver import answer, look

NAMES = {
    "sts.us-east-1.amazonaws.com": ("10.0.1.5", "10.0.2.5"),
    "s3.us-east-1.amazonaws.com": ("198.19.1.1",),
    "*.s3.us-east-1.amazonaws.com": ("198.19.1.1",),
}


def asked(name: str, kind: str = "A") -> tuple[dns.rcode.Rcode, list[str]]:
    told = answer(dns.message.make_query(name, kind).to_wire(), NAMES)
    assert told is not None
    found = dns.message.from_wire(told)
    return found.rcode(), sorted(item.to_text() for one in found.answer for item in one)


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("sts.us-east-1.amazonaws.com", ["10.0.1.5", "10.0.2.5"]),
        ("STS.us-east-1.AMAZONAWS.com", ["10.0.1.5", "10.0.2.5"]),
        ("bucket.s3.us-east-1.amazonaws.com", ["198.19.1.1"]),
        ("a.b.c.s3.us-east-1.amazonaws.com", ["198.19.1.1"]),
    ],
)
def test_names_that_exist(name: str, addresses: list[str]) -> None:
    assert asked(name) == (dns.rcode.NOERROR, addresses)
    assert asked(name, "AAAA") == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("name", ["example.com", "x.sts.us-east-1.amazonaws.com", "us-east-1.amazonaws.com", "."])
def test_names_that_do_not(name: str) -> None:
    assert asked(name) == (dns.rcode.NXDOMAIN, [])


@given(
    st.binary(max_size=2000)
    | st.binary(max_size=40).map(lambda tail: dns.message.make_query("a.b", "A").to_wire() + tail)
)
def test_whatever_comes_is_answered_or_ignored(data: bytes) -> None:
    told = answer(data, NAMES)
    assert told is None or dns.message.from_wire(told).flags & dns.flags.QR


def test_an_answer_is_not_answered() -> None:
    query = dns.message.make_query("sts.us-east-1.amazonaws.com", "A")
    assert answer(dns.message.make_response(query).to_wire(), NAMES) is None


ZONE = Zone(
    "bank",
    {
        ("risk.bank", "A"): (60, ("10.0.0.1",)),
        ("*.bank", "A"): (60, ("10.0.0.2",)),
        ("a.deep.bank", "TXT"): (60, ('"x"',)),
        ("credit.bank", "CNAME"): (60, ("risk.bank.",)),
        ("out.bank", "CNAME"): (60, ("sts.us-east-1.amazonaws.com.",)),
        ("one.bank", "CNAME"): (60, ("two.bank.",)),
        ("two.bank", "CNAME"): (60, ("one.bank.",)),
        ("*.test.bank", "A"): (60, ("10.0.0.3",)),
    },
)
INNER = Zone("inner.bank", {("inner.bank", "A"): (60, ("10.0.0.9",))})
PUBLIC = {
    "sts.us-east-1.amazonaws.com": ("198.18.0.7",),
    "*.inner.bank": ("198.18.0.8",),
    "*.x.inner.bank": ("198.18.0.9",),
}


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("risk.bank", "A", ["10.0.0.1"]),
        ("any.bank", "A", ["10.0.0.2"]),
        ("any.more.bank", "A", ["10.0.0.2"]),
        ("risk.bank", "AAAA", []),
        ("deep.bank", "A", []),  # it has no records, and exists, as something is below it
        ("b.deep.bank", "A", None),  # the wildcard above does not reach below a name that exists
        ("a.deep.bank", "TXT", ['"x"']),
        ("y.test.bank", "A", ["10.0.0.3"]),
        ("credit.bank", "A", ["risk.bank.", "10.0.0.1"]),
        ("credit.bank", "CNAME", ["risk.bank."]),
        ("out.bank", "A", ["sts.us-east-1.amazonaws.com.", "198.18.0.7"]),
        ("bank", "A", []),
        ("inner.bank", "A", ["10.0.0.9"]),
        ("z.inner.bank", "A", ["198.18.0.8"]),  # of two that are as long, what the plan names counts
        ("z.x.inner.bank", "A", ["198.18.0.9"]),
        ("elsewhere", "A", None),
    ],
)
def test_zones_answer_below_their_name(name: str, kind: str, found: list[str] | None) -> None:
    told = look(name, kind, PUBLIC, (ZONE, INNER))
    assert (None if told is None else [value for *_, values in told for value in values]) == found


def test_names_that_lead_to_each_other_end() -> None:
    told = look("one.bank", "A", {}, (ZONE,))
    assert told is not None and {type for _, type, _, _ in told} == {"CNAME"}
    query = dns.message.make_query("one.bank", "A").to_wire()
    assert answer(query, {}, (ZONE,)) is not None


def test_what_does_not_fit_says_so() -> None:
    many = Zone("bank", {("bank", "A"): (60, tuple(f"10.0.{one // 250}.{1 + one % 250}" for one in range(400)))})
    told = answer(dns.message.make_query("bank", "A").to_wire(), {}, (many,))
    assert told is not None and dns.message.from_wire(told).flags & dns.flags.TC
