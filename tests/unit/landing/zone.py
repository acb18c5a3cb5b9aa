"""The default blueprint's landing zone, rendered once for all tests of a process."""

from __future__ import annotations

from functools import cache

from bastide.landing.access import Claim, Landscape, Step, claims, landscape, refusals, steps
from bastide.landing.blueprint import Blueprint, default, parse
from bastide.landing.rendering import Stack, rendered


@cache
def blueprint() -> Blueprint:
    """The default, with premises."""
    premises = "{office: {ranges: [10.200.0.0/16], accounts: [data-science], vpn: 203.0.113.10, ports: [443, 5432]}, "
    premises += "centre: {ranges: [10.210.0.0/16], accounts: [data-management], "
    premises += "direct-connect: {location: EqDC2, bandwidth: 1Gbps, vlan: 101}}}"
    return parse(default().replace("premises: {} ", f"premises: {premises} "))


@cache
def stacks() -> tuple[Stack, ...]:
    """Its stacks."""
    return tuple(rendered(blueprint()))


@cache
def world() -> Landscape:
    """Who may do what once they stand."""
    return landscape(stacks(), blueprint())


@cache
def all_steps() -> tuple[Step, ...]:
    """What every statement is for, guardrails included."""
    return (*steps(blueprint(), world()), *refusals(blueprint(), world()))


@cache
def all_claims() -> tuple[Claim, ...]:
    """What nobody can do."""
    return tuple(claims(blueprint(), world()))
