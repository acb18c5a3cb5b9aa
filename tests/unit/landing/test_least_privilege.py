"""Least privilege, shown: each statement of the landing zone is needed by a step that it names, and no role can do the part
of another. The policy engine decides; no platform is needed. What the platform then really does is in
`tests/stories/landing`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bastide.landing.access import Landscape, Step, changes, landscape
from bastide.landing.blueprint import default, parse
from bastide.landing.guardrails import guardrails
from bastide.landing.rendering import rendered
from bastide.landing.words import camel, source
from tests.unit.landing.zone import all_claims, all_steps, blueprint, stacks, world

_ROLES = tuple(source("roles"))
_PEOPLE = tuple(source("people"))
_RESOURCES = tuple(source("resources"))
_GUARDRAILS = tuple(source("guardrails"))


def breaks(step: Step, found: Landscape) -> str:
    """What is wrong with a step: empty if its statement decides it, and without the statement it is decided otherwise."""
    actor = found.actor(*step.actor)
    who = f"{actor.shown}: {step.shown}"
    decision = found.ask(actor, step)
    if decision.allowed is not step.allowed:
        return f"{who} is {decision.verdict}, by {decision.layer} {decision.source} {decision.sid}"
    if step.allowed:
        if found.ask(actor, step, (step.source, step.sid)).allowed:
            return f"{who} is allowed without {step.sid} of {step.source}, too"
        return ""
    alone = found.ask(actor, step, alone=True)
    if (alone.verdict, alone.sid) != ("ExplicitlyDenied", step.sid):
        return f"{who} is {alone.verdict} by {alone.sid} and not by {step.sid} of {step.source}"
    if found.ask(actor, step, (step.source, step.sid), alone=True).verdict == "ExplicitlyDenied":
        return f"{who} is denied without {step.sid} of {step.source}, too"
    return ""


def _of(name: str) -> list[Step]:
    """The steps of a role or a set."""
    names = (name, *(f"{name}{camel(team.name)}" for team in blueprint().teams))
    begins = (f"{name}-", *(f"{one} in " for one in names))
    return [one for one in all_steps() if one.source.startswith(begins) or one.source == name]


@pytest.mark.control("XAC-01", "XAC-03", "XAC-05")
@pytest.mark.parametrize("name", [*_ROLES, *_PEOPLE])
def test_each_statement_of_a_role_is_needed_by_its_part(name: str) -> None:
    found = _of(name)
    assert [broken for one in found if (broken := breaks(one, world()))] == []
    entry = source("roles").get(name) or source("people")[name]
    said = {one.sid for one in found}
    # A statement without a step says which other policy allows the same: AWS asks for both, or either is enough.
    silent = {one["Sid"] for one in entry["statements"] if "by" not in one}
    assert silent == said, "every statement names what it is for"


@pytest.mark.control("XAC-08", "XVE-03", "DAT-08")
@pytest.mark.parametrize("name", _RESOURCES)
def test_each_statement_of_a_resource_is_needed(name: str) -> None:
    sids = {one["Sid"] for one in source("resources")[name]["statements"] if "by" not in one}
    account = source("resources")[name]["account"]
    kind = source("resources")[name]["kind"]
    found = [
        one
        for one in all_steps()
        if one.source
        and one.sid in sids
        and (policy := world().policy_of(one.action, one.resource)) is not None
        and policy.kind == kind
        and world().account_name(policy.account) == account
        and policy.attached.source == one.source
    ]
    assert sids <= {one.sid for one in found}, "every statement names what it is for"
    assert [broken for one in found if (broken := breaks(one, world()))] == []


@pytest.mark.control("ACC-13", "ACC-14", "ACC-16")
@pytest.mark.control("TAG-05", "TAG-07", lacking="decided; the calls are in the stories")
@pytest.mark.parametrize("name", _GUARDRAILS)
def test_each_statement_of_a_guardrail_stops_something(name: str) -> None:
    held = next(one for one in guardrails(blueprint()) if one.name == name)
    sids = {one["Sid"] for one in held.statements}
    # The policies that guardrails are packed into have names of their own; their statements keep their Sids.
    found = [one for one in all_steps() if one.sid in sids and one.source.startswith("bank-")]
    assert {one.sid for one in found if not one.allowed} == sids
    for one in found:
        actor = world().actor(*one.actor)
        if one.allowed:
            assert world().ask(actor, one).allowed, one
        else:
            assert breaks(one, world()) == ""


@pytest.mark.control("XAC-04", "XAC-06")
@pytest.mark.control("SVR-06", lacking="Glue")
@pytest.mark.control("USR-05", lacking="proved of the policies; the calls are in the stories")
@pytest.mark.parametrize("name", [*_ROLES, *_PEOPLE])
def test_nobody_can_do_the_next_ones_part(name: str) -> None:
    """For every request there can be, by proof."""
    names = (name, *(f"{name}{camel(team.name)}" for team in blueprint().teams))
    mine = [one for one in all_claims() if one.actor[0] in names or one.actor[0].startswith(f"{name}-")]
    assert mine, "every role says what it cannot do"
    if name in _PEOPLE:
        mine = list({(one.actor[0], one.what): one for one in mine}.values())
    assert [(one, proof) for one in mine if (proof := world().prove(one)).outcome != "proved"] == []


def test_a_claim_that_does_not_hold_is_refuted() -> None:
    [claim] = [one for one in all_claims() if one.actor[0] == "CrossAccountRoleB" and one.what == "pass another role"]
    found = world().prove(replace(claim, resources=(claim.resources[0].replace("StateMachineRole", "*"),)))
    assert found.outcome == "refuted" and found.request is not None
    assert found.request.resource.endswith("role/bank/StackRole")


def test_who_gains_and_who_loses_is_told() -> None:
    text = default()
    team = "  cards:\n    project: cards\n    models: [cards-fraud]\n    images: [training]\n"
    before, after = parse(text), parse(text.replace("\ngroups:", f"\n{team}\ngroups:"))
    new = landscape(rendered(after), after)
    asked = [one for one in all_steps() if one.allowed and one.source and not one.source.startswith("bank-")]
    assert changes(world(), world(), asked) == []
    assert parse(text) == before and {one.who.partition("-")[2] for one in changes(world(), new, asked)} == {
        "cards in data-science", "cards in test", "services"
    }  # fmt: skip
    assert "BuildRoleCards in shared-services" in {one.who for one in changes(world(), new, asked)}
    assert all(one.gains for one in changes(world(), new, asked))
    lost = changes(new, world(), asked)
    assert lost and not any(one.gains for one in lost)
    # A guardrail that is turned off gives nobody more than their own policies do.
    off = parse(text.replace("guardrails: {}", "guardrails: {only-pipelines: off}"))
    assert changes(world(), landscape(rendered(off), off), asked) == []


def test_stacks_come_after_what_they_need() -> None:
    given = {"OrganizationId", "ManagementAccount", "RootId", "IdentityCenterArn", "IdentityStoreId"}
    for phase in sorted({one.phase for one in stacks()}):
        now = [one for one in stacks() if one.phase == phase]
        for one in now:
            assert set(one.parameters) <= given, f"{one.name} in {one.account}"
        given |= {name for one in now for name in one.template.get("Outputs", {})}
