"""The DNS of a VPC."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.engines.network.resolver import answer

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
