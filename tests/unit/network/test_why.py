"""What `why` says is what a packet does: on generated networks, with real packets."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.engines.network import (
    Acl,
    Entry,
    Group,
    Hop,
    Interface,
    Joint,
    Packet,
    Plan,
    Rule,
    Transit,
    TransitPlan,
    Vpc,
    Way,
    kernel,
)
from bastide.engines.network.namespaces import Namespaces
from bastide.engines.network.why import explain

A, B = (Vpc("111122223333", "us-east-1", f"vpc-{name}") for name in "ab")
GATE = Transit("111122223333", "us-east-1", "tgw-1")
CIDR = {A: "10.1.0.0/16", B: "10.2.0.0/16"}
HELD = {
    A: [
        Interface("eni-a1", "10.1.1.10", "10.1.1.1", ("sg-x",)),
        Interface("eni-a2", "10.1.2.10", "10.1.2.1", ("sg-y",)),
    ],
    B: [Interface("eni-b1", "10.2.1.10", "10.2.1.1", ("sg-x",))],
}
JOINT = {A: "tgw-attach-a", B: "tgw-attach-b"}
SUBNETS = {A: ("10.1.1.0/24", "10.1.2.0/24"), B: ("10.2.1.0/24",)}


@dataclass
class World:
    """Two VPCs and a gateway whose plans a test writes; what is attached and linked stands through all examples."""

    plans: dict[Vpc, Plan] = field(default_factory=dict)
    gate: TransitPlan = field(default_factory=lambda: TransitPlan({}))

    def __post_init__(self) -> None:
        self.networks = Namespaces(self.plans.get, transits=lambda _: self.gate)
        self.places: dict[str, Any] = {}

    async def start(self) -> None:
        self.plans |= {vpc: plan(vpc) for vpc in (A, B)}
        self.gate = gate()
        for vpc, held in HELD.items():
            for one in held:
                self.places[one.id] = await self.networks.attach(vpc, one.id)

    async def settle(self) -> None:
        for one in (A, B, GATE):
            await self.networks.settle(one)


def plan(
    vpc: Vpc,
    groups: dict[str, Group] | None = None,
    ways: dict[str, tuple[Way, ...]] | None = None,
    acls: dict[str, Acl] | None = None,
) -> Plan:
    return Plan(
        "", {}, (), {one.id: one for one in HELD[vpc]}, groups or {"sg-x": Group((), ()), "sg-y": Group((), ())},
        CIDR[vpc], ways or {}, {JOINT[vpc]: GATE}, acls=acls or {},
    )  # fmt: skip


def gate(tables: dict[Vpc, tuple[str, tuple[Way, ...]]] | None = None) -> TransitPlan:
    held = tables or {A: ("", ()), B: ("", ())}
    return TransitPlan({JOINT[vpc]: Joint((CIDR[vpc],), ways, vpc, table=name) for vpc, (name, ways) in held.items()})


NETWORKS = st.sampled_from(
    [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.2.0.0/16",
        "10.1.1.0/24",
        "10.2.1.10/32",
        "10.2.1.0/24",
        "192.0.2.0/24",
    ]
)
RULES = st.one_of(
    st.builds(Rule, st.sampled_from(["-1", "tcp", "tcp", "6", "udp"]), networks=st.tuples(NETWORKS)),
    st.builds(lambda first, more, where: Rule("tcp", first, first + more, (where,)),
              st.sampled_from([80, 442, 443, 444]), st.sampled_from([0, 1, 363]), NETWORKS),
    st.builds(Rule, st.just("-1"), group=st.sampled_from(["sg-x", "sg-y"])),
)  # fmt: skip
GROUP = st.builds(Group, *[st.lists(RULES, max_size=3).map(tuple)] * 2)
GROUPS = st.fixed_dictionaries({"sg-x": GROUP, "sg-y": GROUP})


def ways(joints: list[str]) -> st.SearchStrategy[tuple[Way, ...]]:
    held = st.dictionaries(NETWORKS, st.sampled_from([*joints, *joints, ""]), max_size=4)
    return held.map(lambda found: tuple(Way(network, joint) for network, joint in found.items()))


def routes(vpc: Vpc) -> st.SearchStrategy[dict[str, tuple[Way, ...]]]:
    # As CreateRoute has it: no route is more specific than the local one.
    outward = ways([JOINT[vpc]]).map(
        lambda found: tuple(one for one in found if not one.network.startswith(CIDR[vpc][:5]))
    )
    return st.fixed_dictionaries(dict.fromkeys(SUBNETS[vpc], outward))


ENTRIES = st.lists(
    st.builds(
        lambda allows, protocol, network, ports: (allows, protocol, network, *(ports if protocol == "6" else (-1, -1))),
        st.sampled_from([True, True, False]), st.sampled_from(["-1", "6", "6", "17"]), NETWORKS,
        st.sampled_from([(443, 443), (80, 443), (0, 65535), (1024, 65535), (444, 1023)]),
    ),
    max_size=4,
).map(lambda found: tuple(Entry(number, *one) for number, one in enumerate(found)))  # fmt: skip


def acls(vpc: Vpc) -> st.SearchStrategy[dict[str, Acl]]:
    held = st.dictionaries(st.sampled_from(SUBNETS[vpc]), st.tuples(ENTRIES, ENTRIES))
    return held.map(lambda found: {subnet: Acl(f"acl-{subnet}", *ways) for subnet, ways in found.items()})


TABLES = st.tuples(st.sampled_from(["", "tgw-rtb-1", "tgw-rtb-1"]), ways(list(JOINT.values()))).map(
    lambda found: (found[0], found[1] if found[0] else ())
)
WORLDS = st.tuples(
    st.fixed_dictionaries({vpc: st.tuples(GROUPS, routes(vpc), acls(vpc)) for vpc in (A, B)}),
    st.fixed_dictionaries({A: TABLES, B: TABLES}),
    st.sampled_from(["eni-a1", "eni-a2", "eni-b1"]),
    st.sampled_from(["10.2.1.10", "10.2.1.10", "10.1.1.10", "10.1.2.10", "10.2.1.77", "192.0.2.1"]),
    st.sampled_from([443, 443, 80]),
)


def arrives(namespace: str, packet: Packet, patience: float) -> bool:
    """Whether an answer comes: nobody listens, so it is a refusal."""

    def probe() -> bool:
        handle = os.open(namespace, os.O_RDONLY)
        try:
            kernel.enter(handle)
            with socket.socket() as asked:
                asked.settimeout(patience)
                asked.connect((packet.destination, packet.port))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        finally:
            os.close(handle)
        return True

    return kernel.apart(probe)


@pytest.fixture(scope="module")
def world() -> Any:
    loop = asyncio.new_event_loop()
    made = World()
    loop.run_until_complete(made.start())
    yield made, loop
    loop.run_until_complete(made.networks.close())
    loop.close()


def _told(made: World, source: str, packet: Packet) -> list[Hop]:
    vpc = A if source.startswith("eni-a") else B
    return explain(
        vpc, source, packet, plans=made.plans.get, transits=lambda _: made.gate, attached=made.networks.attached,
        linked=made.networks.linked,
    )  # fmt: skip


def _held(world: Any, drawn: Any) -> bool:
    """Makes a drawn network, asks both, and demands that they agree; whether the packet passed."""
    made, loop = world
    vpcs, tables, source, destination, port = drawn
    made.plans |= {vpc: plan(vpc, *held) for vpc, held in vpcs.items()}
    made.gate = gate(tables)
    loop.run_until_complete(made.settle())
    packet = Packet("", destination, "tcp", port)
    told = _told(made, source, packet)
    # What is said to pass has all the time that a loaded machine needs; what is not must not arrive at once.
    real = arrives(made.places[source].namespace, packet, 10.0 if told[-1].passes else 0.05)
    own = made.places[source].interface.address == destination
    assert own or real == told[-1].passes, told
    return told[-1].passes and not own


PARTS = st.frozensets(
    st.sampled_from(["groups a", "groups b", "ways a", "ways b", "acls a", "acls b", "acls a", "table a", "table b"]),
    max_size=3,
)
"""What is drawn of a network in which the rest lets everything pass: most of those that are drawn whole let nothing."""


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=WORLDS, parts=st.one_of(st.none(), PARTS, PARTS))
def test_what_is_said_is_what_a_packet_does(world: Any, drawn: Any, parts: frozenset[str] | None) -> None:
    if parts is not None:
        vpcs, tables = _open()
        for vpc, letter in ((A, "a"), (B, "b")):
            chosen = [drawn[0] if f"{what} {letter}" in parts else vpcs for what in ("groups", "ways", "acls")]
            vpcs[vpc] = tuple(one[vpc][at] for at, one in enumerate(chosen))
            tables[vpc] = (drawn[1] if f"table {letter}" in parts else tables)[vpc]
        drawn = (vpcs, tables, "eni-a1", "10.2.1.10", drawn[4])
    _held(world, drawn)


def _open() -> Any:
    """A network in which everything leads from A to B and back, as drawn ones are."""
    everything = Group((Rule("-1", networks=("0.0.0.0/0",)),), (Rule("-1", networks=("0.0.0.0/0",)),))
    groups = {"sg-x": everything, "sg-y": everything}
    there = {A: "10.2.0.0/16", B: "10.1.0.0/16"}
    vpcs: dict[Vpc, Any] = {
        vpc: (groups, dict.fromkeys(SUBNETS[vpc], (Way(there[vpc], JOINT[vpc]),)), {}) for vpc in (A, B)
    }
    table = ("tgw-rtb-1", (Way("10.1.0.0/16", JOINT[A]), Way("10.2.0.0/16", JOINT[B])))
    return vpcs, {A: table, B: table}


def test_each_hop_is_named_when_it_is_what_refuses(world: Any) -> None:
    shut = {"sg-x": Group((), ()), "sg-y": Group((), ())}
    outward = {"sg-x": Group((), (Rule("-1", networks=("0.0.0.0/0",)),)), "sg-y": Group((), ())}

    def refusing(change: Any) -> tuple[str, str]:
        vpcs, tables = _open()
        change(vpcs, tables)
        _held(world, (vpcs, tables, "eni-a1", "10.2.1.10", 443))
        last = _told(world[0], "eni-a1", Packet("", "10.2.1.10"))[-1]
        return ("passes" if last.passes else last.what), last.where

    def off(vpcs: Any, vpc: Vpc, groups: Any = None, ways: Any = None, acls: Any = None) -> None:
        held = vpcs[vpc]
        vpcs[vpc] = (groups or held[0], held[1] if ways is None else ways, acls or {})

    def under(vpc: Vpc, inward: tuple[Entry, ...], outward: tuple[Entry, ...]) -> dict[str, Acl]:
        return {SUBNETS[vpc][0]: Acl("acl-1", inward, outward)}

    none: dict[str, tuple[Way, ...]] = {}
    assert refusing(lambda vpcs, tables: None)[0] == "passes"
    assert refusing(lambda vpcs, tables: off(vpcs, A, groups=shut)) == ("security group", "sg-x")
    assert refusing(lambda vpcs, tables: off(vpcs, B, groups=outward)) == ("security group", "sg-x")
    https = Entry(100, True, "6", "0.0.0.0/0", 443, 443)
    answers = Entry(110, True, "6", "0.0.0.0/0", 1024, 65535)
    for vpc, inward, outward, what in (
        (A, (answers,), (), "network acl"),
        (A, (https,), (https,), "network acl back"),
        (A, (Entry(90, False, "-1", "10.2.1.0/24"), answers), (https,), "network acl back"),
        (A, (answers,), (https,), "passes"),
        (B, (), (answers,), "network acl"),
        (B, (https,), (), "network acl back"),
        (B, (https,), (answers,), "passes"),
    ):
        held = under(vpc, inward, outward)
        found = refusing(lambda vpcs, tables, vpc=vpc, held=held: off(vpcs, vpc, acls=held))
        assert found[0] == what and (what == "passes" or found[1] == "acl-1")
    assert refusing(lambda vpcs, tables: off(vpcs, A, ways=none)) == ("route", "vpc-a")
    assert refusing(lambda vpcs, tables: off(vpcs, B, ways=none)) == ("route back", "vpc-b")
    assert refusing(lambda vpcs, tables: tables.update({A: ("", ())})) == ("attachment", JOINT[A])
    assert refusing(lambda vpcs, tables: tables.update({A: ("tgw-rtb-2", ())})) == ("transit route table", "tgw-rtb-2")
    hole = ("tgw-rtb-2", (Way("10.2.0.0/16", JOINT[B]), Way("10.2.1.0/24")))
    assert refusing(lambda vpcs, tables: tables.update({A: hole})) == ("transit route table", "tgw-rtb-2")
    wrong = ("tgw-rtb-2", (Way("10.2.0.0/16", JOINT[A]),))
    assert refusing(lambda vpcs, tables: tables.update({A: wrong})) == ("attachment", JOINT[A])
    assert refusing(lambda vpcs, tables: tables.update({B: ("", ())})) == ("attachment", JOINT[B])
