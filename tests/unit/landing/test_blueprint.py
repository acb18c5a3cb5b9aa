"""The blueprint's file: what is wrong with it is told with line and key."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from bastide.landing.blueprint import Blueprint, Faulty, default, parse, schema
from bastide.landing.guardrails import LONGEST, packed
from bastide.landing.rendering import rendered

_TEXT = default()


def _line(text: str, word: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if word in line)


@pytest.mark.parametrize(
    ("old", "new", "key", "why"),
    [
        ("name: bank ", "name: Bank ", "name", "`Bank` is not 2 to 16 small letters"),
        ("regions: [us-east-1]", "regions: [mars]", "regions.0", "`mars` is not a Region"),
        ("regions: [us-east-1]", "regions: []", "regions", "at least 1 is needed"),
        ("regions: [us-east-1]", "regoins: [us-east-1]", "regoins", "is not known here; there are"),
        (
            "network: 10.20.0.0/16",
            "network: 10.10.128.0/17",
            "accounts.data-management.network",
            "overlaps 10.10.0.0/16",
        ),
        ("network: 10.20.0.0/16", "network: 10.20.0.1/16", "accounts.data-management.network", "has host bits set"),
        (
            "network: 10.20.0.0/16",
            "network: 10.20.0.0/28",
            "accounts.data-management.network",
            "not between /16 and /24",
        ),
        ("unit: Workloads/Data,", "unit: Data,", "accounts.data-management.unit", "there is no unit `Data`"),
        ("email: test@bank.example", "email: test", "accounts.test.email", "is not an address of mail"),
        ("email: test@bank.example", "email: production@bank.example", "accounts.production.email", "is that of test"),
        ("email: test@bank.example", "id: 12", "accounts.test.id", "is not twelve digits"),
        ("email: test@bank.example, ", "", "accounts.test", "made with an `email`, or enrolled with its `id`"),
        (
            "premises: {} ",
            "premises: {hq: {ranges: [10.10.9.0/24], accounts: [test], vpn: 1.2.3.4}} ",
            "premises.hq.ranges.0",
            "10.10.9.0/24 overlaps the network of shared-services",
        ),
        (
            "premises: {} ",
            "premises: {hq: {ranges: [10.99.0.0/16], accounts: [log-archive], vpn: 1.2.3.4}} ",
            "premises.hq.accounts.0",
            "there is no account `log-archive` with a network",
        ),
        (
            "premises: {} ",
            "premises: {hq: {ranges: [10.99.0.0/16], accounts: [test]}} ",
            "premises.hq",
            "by a `vpn` or by `direct-connect`",
        ),
        ("guardrails: {}", "guardrails: {flying: off}", "guardrails.flying", "there is no such guardrail"),
        ("guardrails: {}", "guardrails: {regions: maybe}", "guardrails.regions", "neither on nor off"),
        (
            "templates: []",
            "templates: [{account: test, name: x, file: no.yaml}]",
            "templates.0.file",
            "there is no file",
        ),
        ("ml.m5.large, ml.m5.xlarge", "m5.large, ml.m5.xlarge", "instances.jobs.0", "is not an instance type"),
        ("  auditor: auditors", "  auditors: auditors", "groups.auditors", "is not known here"),
    ],
)
def test_a_fault_names_line_and_key(old: str, new: str, key: str, why: str) -> None:
    assert old in _TEXT
    text = _TEXT.replace(old, new, 1)
    with pytest.raises(Faulty) as caught:
        parse(text, Path("my.yaml"))
    line = _line(text, "production:" if key == "accounts.production.email" else new.strip() or "  test: ")
    assert str(caught.value).startswith(f"my.yaml:{line}: {key}: ") and why in str(caught.value), str(caught.value)


def test_what_is_missing_and_what_is_no_yaml() -> None:
    with pytest.raises(Faulty, match=r"x:\d+: the blueprint: `tags` is missing"):
        parse(
            _TEXT.replace("\ntags:\n", "\n#\n").replace("  required: [", "#").replace("  environments: [", "#"),
            Path("x"),
        )
    with pytest.raises(Faulty, match="landing init"):
        parse("", Path("x"))
    with pytest.raises(Faulty, match="x:2: "):
        parse("name: bank\nregions: [", Path("x"))
    with pytest.raises(Faulty, match="is there twice"):
        parse(_TEXT + "\nname: bank\n", Path("x"))


def test_the_schema_knows_what_the_default_says() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(yaml.safe_load(_TEXT), schema())


def _with(old: str, new: str) -> Blueprint:
    assert old in _TEXT
    return parse(_TEXT.replace(old, new, 1))


def test_guardrails_fit_and_can_be_turned_off() -> None:
    regions = ", ".join(f"eu-west-{number}" for number in range(1, 9))
    many = _with("regions: [us-east-1]", f"regions: [{regions}]")
    attached: dict[tuple[tuple[str, ...], str], int] = {}
    for one in packed(many):
        text = json.dumps(one.document, separators=(",", ":"))
        assert len(text) <= LONGEST
        for unit in one.units:
            attached[unit, one.type] = attached.get((unit, one.type), 0) + 1
    # FullAWSAccess is one of the five that a target may have.
    assert max(attached.values()) <= 4
    off = _with("guardrails: {}", "guardrails: {encrypted-traffic: off}")
    for blueprint, there in ((parse(_TEXT), True), (off, False)):
        sids = {statement["Sid"] for one in packed(blueprint) for statement in one.document["Statement"]}
        assert ("TrafficBetweenContainers" in sids) is there


def test_another_account_gets_what_every_account_gets() -> None:
    line = "  development: {email: dev@bank.example, unit: Workloads, network: 10.60.0.0/16}"
    more = _with("\nteams:", f"\n{line}\n\nteams:")
    stacks = {(one.name, one.account) for one in rendered(more)}
    assert ("bank-landing-foundation", "development") in stacks
    assert ("bank-landing-roles", "development") not in stacks
