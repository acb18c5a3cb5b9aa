"""Tunnels of the engine alone: the daemon's language, and what becomes of it and of its tunnels."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastide.domain import Tags
from bastide.engines.network import Far, Joint, Transit, TransitPlan, Way
from bastide.engines.network.transits import Transits
from bastide.engines.network.vici import decoded, encoded
from bastide.services.ec2 import vpn_tunnel
from bastide.store import Row
from tests.stories.ec2.device import GATEWAY, Device, device

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=255)
TEXTS = st.text(max_size=300)
MESSAGES = st.recursive(
    st.dictionaries(NAMES, TEXTS | st.lists(TEXTS, max_size=4), max_size=4),
    lambda below: st.dictionaries(NAMES, below | TEXTS, max_size=4),
    max_leaves=8,
)
GATE = Transit("111122223333", "us-east-1", "vgw-1")


@given(MESSAGES)
def test_what_is_said_to_the_daemon_is_read_again(message: dict[str, Any]) -> None:
    assert decoded(encoded(message)) == message


@given(st.binary(max_size=80))
def test_what_is_no_message_is_refused_with_one_error(said: bytes) -> None:
    try:
        found = decoded(said)
    except ValueError:
        return
    assert isinstance(found, dict)


class _Plain:
    """Seals nothing."""

    def seal(self, data: bytes, purpose: str) -> str:
        return data.decode()

    def open(self, token: str, purpose: str) -> bytes:
        return token.encode()


def _connection() -> Row:
    tunnels = [
        {
            **vpn_tunnel.checked({}),
            "TunnelInsideCidr": f"169.254.{number}.0/30",
            "Outside": f"240.0.0.{number}",
            "Key": "a_key.of_ours",
        }
        for number in (11, 12)
    ]
    doc = {"CustomerGatewayId": "cgw-1", "Vgw": "vgw-1", "Tgw": "", "StaticOnly": True, "Tunnels": tunnels}
    tags: Tags = {}
    return Row("ec2:VpnConnection", GATE.account, GATE.region, "vpn-1", doc, "", tags)


async def _until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.02)


def _daemons(namespace: str) -> list[int]:
    """The processes of the daemon in a network namespace."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            here = str((one / "ns/net").readlink()) == namespace
            if here and (one / "comm").read_text().startswith("charon"):
                found.append(int(one.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def office(tmp_path: Path) -> Any:
    with device(tmp_path) as made:
        yield made


def test_a_daemon_that_ends_is_started_again_and_ends_with_its_connection(office: Device) -> None:
    row = _connection()
    far = Far("office", office.links[0]["namespace"], ("10.200.0.0/16",))
    ways = (Way("10.1.0.0/16", "vgw-1"),)
    joint = Joint(far.ranges, ways, None, far, "vgw-1", vpn_tunnel.ipsec(row, GATEWAY, _Plain()))
    told = vpn_tunnel.configuration(row, GATEWAY, _Plain())
    assert ElementTree.fromstring(told.encode()).get("id") == "vpn-1" and "a_key.of_ours" in told
    assert "a_key.of_ours" not in repr(joint)

    async def story() -> None:
        plan = TransitPlan({"vpn-1": joint})
        transits = Transits(lambda _: plan)

        def up() -> list[bool]:
            return [one.up for one in transits.tunnels("vpn-1").values()]

        await transits.settle(GATE)
        reached = transits._gates[GATE].far["vpn-1"].device
        assert reached is not None
        namespace = str(Path(f"/proc/self/fd/{reached.namespace}").readlink())
        assert up() == [False, False]
        assert await asyncio.to_thread(office.connect, told, "10.200.0.0/15")
        await _until(lambda: up() == [True, False])
        assert transits.tunnels("vpn-1")["240.0.0.11"].since > 0
        [daemon] = _daemons(namespace)
        os.kill(daemon, signal.SIGKILL)
        await _until(lambda: up() == [False, False])
        await _until(lambda: _daemons(namespace) not in ([], [daemon]))
        await asyncio.to_thread(office.disconnect)
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(office.connect, told, "10.200.0.0/15"):
                await asyncio.sleep(0.1)
        await _until(lambda: up() == [True, False])
        plan = TransitPlan({})
        await transits.settle(GATE)
        assert up() == []
        await _until(lambda: _daemons(namespace) == [])
        await transits.close()

    asyncio.run(story())
