"""Fetching an issuer's keys: once for many, not again for the asking, and not from everywhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from bastide.engines.idp import Issuers, Rejected
from tests.identity_providers import Issuer, own_authority


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    found = Issuer(own_authority()).start(tmp_path_factory.mktemp("issuer"))
    yield found
    found.stop()


@pytest.fixture
def issuers(issuer: Issuer, tmp_path: Path) -> Issuers:
    """One that trusts the authority of the issuer."""
    authority = tmp_path / "ca.pem"
    authority.write_bytes(issuer.authority[0].public_bytes(serialization.Encoding.PEM))
    found = Issuers(authority)
    found.loopback = True
    issuer.asked.clear()
    return found


def test_many_askers_one_fetch(issuers: Issuers, issuer: Issuer) -> None:
    async def ask() -> None:
        found = await asyncio.gather(*(issuers.keys(issuer.url, (), issuer.kid) for _ in range(20)))
        assert {tuple(key["kid"] for key in keys) for keys in found} == {(issuer.kid,)}

    asyncio.run(ask())
    assert issuer.asked[f"{issuer.path}/keys"] == 1


def test_unknown_keys_and_failures_do_not_make_it_ask_again_and_again(issuers: Issuers, issuer: Issuer) -> None:
    async def ask() -> None:
        for number in range(10):
            await issuers.keys(issuer.url, (), f"unknown-{number}")
        with pytest.raises(Rejected):
            await issuers.keys(issuer.url + "/nowhere", (), "")
        with pytest.raises(Rejected):
            await issuers.keys(issuer.url + "/nowhere", (), "")

    asyncio.run(ask())
    assert issuer.asked[f"{issuer.path}/keys"] == 2
    assert issuer.asked[f"{issuer.path}/nowhere/.well-known/openid-configuration"] == 1


def test_this_machine_is_for_development(issuers: Issuers, issuer: Issuer) -> None:
    """Where others reach the platform, an account's administrator must not make it ask what listens beside it."""
    issuers.loopback = False

    async def ask(url: str) -> None:
        with pytest.raises(Rejected) as caught:
            await issuers.keys(url, (issuer.thumbprint,), "")
        assert caught.value.why == "unreachable"

    port = issuer.server.server_port
    for url in (issuer.url, f"https://127.0.0.1:{port}/oidc", f"https://[::ffff:127.0.0.1]:{port}/oidc",
                f"http://127.0.0.1:{port}/oidc", "http://192.0.2.1/x", "https://169.254.169.254/x", "https://0.0.0.0/x",
                "https://224.0.0.1/x"):  # fmt: skip
        asyncio.run(ask(url))
    assert not issuer.asked


def test_a_silent_issuer_is_given_up_and_nobody_else_waits(tmp_path: Path, issuer: Issuer) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(issuer.authority[0].public_bytes(serialization.Encoding.PEM))
    issuers = Issuers(authority, seconds=60)
    issuers.loopback = True
    silent = socket.create_server(("127.0.0.1", 0))

    async def ask() -> None:
        await issuers.keys(issuer.url, (), "")
        waiting = asyncio.create_task(issuers.keys(f"https://localhost:{silent.getsockname()[1]}", (), ""))
        await asyncio.sleep(0.05)
        await issuers.keys(issuer.url, (), "unknown")  # fetched meanwhile
        assert not waiting.done()
        silent.close()
        with pytest.raises(Rejected):
            await waiting

    try:
        asyncio.run(ask())
    finally:
        silent.close()
