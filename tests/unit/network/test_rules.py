"""A plan as rules of nftables: which rule lets which packet through is shown by real packets in tests/stories/ec2."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.engines.network import Entrance, Group, Interface, Plan, Rule
from bastide.engines.network.rules import ruleset

SERVED = Interface("eni-1", "10.0.1.9", "10.0.1.1", ("sg-a",))
PLUG = Interface("eni-2", "10.0.1.50", "10.0.1.1", ("sg-b", "sg-c"))
ANYWHERE = Rule("-1", networks=("0.0.0.0/0",))

PEERS = ((), ("0.0.0.0/0",), ("10.0.0.0/16",), ("10.0.0.1/32", "198.19.1.0/24"))
rules = st.builds(
    lambda protocol, ports, networks, group: Rule(protocol, *ports, networks, group),
    st.sampled_from(("tcp", "udp", "icmp", "icmpv6", "-1", "50", "255")),
    st.sampled_from(((-1, -1), (0, 0), (3, 3), (3, 200), (8, -1), (0, 255))),
    st.sampled_from(PEERS),
    st.sampled_from(("", "sg-a", "sg-b", "sg-nobody")),
)
groups = st.builds(Group, st.lists(rules, max_size=20).map(tuple), st.lists(rules, max_size=20).map(tuple))


def plan(**groups: Group) -> Plan:
    entrances = (
        Entrance("vpce-1", ("sts",), interfaces=(SERVED,)),
        Entrance("vpce-2", ("s3",), routed=("10.0.1.0/24", "10.0.2.0/24"), outside="198.19.1.0/24"),
        Entrance("vpce-3", ("s3",), outside="198.19.1.0/24"),
    )
    held = {f"sg-{name}": group for name, group in groups.items()}
    return Plan("10.0.0.2", {}, entrances, {"eni-2": PLUG}, held)


@settings(max_examples=10)
@given(a=groups, b=groups, c=groups)
def test_the_kernel_takes_every_ruleset(a: Group, b: Group, c: Group) -> None:
    text = ruleset(plan(a=a, b=b, c=c), {"p1": PLUG}, {"vpce-2": "169.254.171.1", "vpce-3": "169.254.171.2"})
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin")
    assert nft is not None
    done = subprocess.run([nft, "--check", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_nothing_attached_means_that_nothing_passes() -> None:
    text = ruleset(plan(a=Group((ANYWHERE,), (ANYWHERE,))), {}, {})
    assert text.count("policy drop") == 3 and '"p' not in text
    assert "iifname . ip saddr != @plugs drop" in text


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Rule("tcp", 443, 443, ("10.0.0.0/16",)), "ip saddr { 10.0.0.0/16 } tcp dport 443 accept"),
        (Rule("tcp", 80, 90, ("0.0.0.0/0",)), "tcp dport 80-90 accept"),
        (Rule("udp", 0, 65535, ("0.0.0.0/0",)), "meta l4proto udp accept"),
        (Rule("icmp", 8, -1, ("0.0.0.0/0",)), "icmp type 8 accept"),
        (Rule("50", -1, -1, ("0.0.0.0/0",)), "meta l4proto 50 accept"),
        (Rule("tcp", 443, 443, group="sg-b"), "ip saddr @g1 tcp dport 443 accept"),
    ],
)
def test_what_a_rule_matches(rule: Rule, match: str) -> None:
    text = ruleset(plan(a=Group((rule,), ()), b=Group((), ()), c=Group((), ())), {"p1": PLUG}, {})
    assert f"chain in_0 {{\n{match}\ndrop\n}}" in text


@pytest.mark.parametrize("rule", [Rule("tcp", 443, 443), Rule("tcp", 443, 443, group="sg-nobody")])
def test_a_rule_whose_peer_is_nobody_here_lets_nothing_through(rule: Rule) -> None:
    text = ruleset(plan(a=Group((rule,), ()), b=Group((), ()), c=Group((), ())), {"p1": PLUG}, {})
    assert "chain in_0 {\ndrop\n}" in text
