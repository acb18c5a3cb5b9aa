"""What holds for every assertion: changed, it says nothing new; and nothing makes the readers stumble."""

from __future__ import annotations

import base64
import json
import re
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from bastide.domain import wall
from bastide.engines.idp import Assertion, Claims, Metadata, Rejected, issuer_of, verify_response, verify_token
from bastide.kernel import account_of_key
from bastide.kernel.identity import session_key_id
from tests.identity_providers import AWS, RECIPIENT, SamlProvider

import jwt  # isort: skip

ISSUER = "https://idp.example.com"


@cache
def saml() -> tuple[Metadata, bytes, int]:
    """Metadata, a signed response and when it was made."""
    provider = SamlProvider()
    attributes = {f"{AWS}Role": ["role,provider"], f"{AWS}RoleSessionName": ["alice"]}
    response = provider.response(provider.assertion(attributes))
    return Metadata.parse(provider.metadata()), etree.tostring(response), wall()


def read(document: bytes) -> Assertion:
    metadata, _, now = saml()
    encoded = base64.b64encode(document).decode()
    return verify_response(
        encoded, metadata, audiences=[RECIPIENT], recipients=re.compile(re.escape(RECIPIENT)), now=now
    )


@given(st.integers(0, 10**9), st.integers(0, 255))
def test_a_changed_response_says_nothing_new(place: int, value: int) -> None:
    good = saml()[1]
    at = place % len(good)
    try:
        found = read(good[:at] + bytes([value]) + good[at + 1 :])
    except Rejected:
        return
    assert found == read(good)


@given(st.integers(0, 10**9), st.integers(1, 400), st.integers(0, 10**9))
def test_a_rearranged_response_says_nothing_new(start: int, length: int, to: int) -> None:
    good = saml()[1]
    start %= len(good)
    piece = good[start : start + length]
    to %= len(good)
    try:
        found = read(good[:to] + piece + good[to:])
    except Rejected:
        return
    assert found == read(good)


@cache
def token() -> tuple[str, dict[str, Any], int]:
    """A token, its key, and when it was made."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "alice", "aud": "bastide", "iat": now, "exp": now + 300}
    public = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key()))
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"}), {**public, "kid": "k"}, wall()


def claims(text: str) -> Claims:
    _, key, now = token()
    return verify_token(text, [key], issuer=ISSUER, clients=["bastide"], now=now)


@given(st.integers(0, 10**9), st.characters(codec="utf-8"))
def test_a_changed_token_says_nothing_new(place: int, char: str) -> None:
    good = token()[0]
    at = place % len(good)
    try:
        found = claims(good[:at] + char + good[at + 1 :])
    except Rejected:
        return
    assert found == claims(good)


def test_what_is_good_is_read() -> None:
    assert read(saml()[1]).subject == "alice@example.com"
    assert claims(token()[0]).subject == "alice"


@given(st.binary(max_size=300), st.text(max_size=300))
def test_nothing_makes_the_readers_stumble(data: bytes, text: str) -> None:
    for work in (
        lambda: read(data),
        lambda: verify_response(text, saml()[0], audiences=[], recipients=re.compile("x"), now=0),
        lambda: issuer_of(text),
        lambda: claims(text),
        lambda: claims(f"{token()[0].partition('.')[0]}.{base64.urlsafe_b64encode(data).decode().rstrip('=')}.AAAA"),
        lambda: Metadata.parse(text),
    ):
        try:
            work()
        except (Rejected, ValueError):
            continue
        raise AssertionError("rubbish was believed")


@given(st.integers(0, 10**12 - 1))
def test_a_sessions_key_tells_its_account(number: int) -> None:
    account = f"{number:012d}"
    keys = {session_key_id(account) for _ in range(8)}
    assert len(keys) == 8 and {account_of_key(key) for key in keys} == {account}
    assert all(re.fullmatch(r"ASIA[A-Z2-7]{16}", key) for key in keys)
