"""The default blueprint's landing zone, rendered once for all tests of a process."""

from __future__ import annotations

from functools import cache

from bastide.landing.access import Claim, Landscape, Step, claims, landscape, refusals, steps
from bastide.landing.blueprint import Blueprint, default, parse
from bastide.landing.rendering import Stack, rendered


@cache
def blueprint() -> Blueprint:
    """The default."""
    return parse(default())


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
