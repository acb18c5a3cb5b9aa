"""Decisions in words: AWS's message of a refusal, and what every policy said.

Source: IAM User Guide, "Troubleshoot access denied error messages".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bastide.policy.decide import Attached, Decision, Layers, Request, Verdict
from bastide.policy.principals import Named
from bastide.policy.variables import Value

_KINDS: Final = {
    "identity": ("an identity-based policy", "identity-based policy"),
    "boundary": ("a permissions boundary", "permissions boundary"),
    "session": ("a session policy", "session policy"),
    "resource": ("a resource-based policy", "resource-based policy"),
    "trust": ("the role trust policy", "role trust policy"),
    "scp": ("a service control policy", "service control policy"),
    "rcp": ("a resource control policy", "resource control policy"),
    "endpoint": ("a VPC endpoint policy", "VPC endpoint policy"),
}


def message(request: Request, decision: Decision) -> str:
    """AWS's text for a refusal.

    The deciding policy's ARN follows its kind when an explicit deny was found in a policy that has an ARN.
    """
    who = request.principal.arn or "anonymous"
    article, kind = _KINDS[decision.layer]
    asked = f"User: {who} is not authorized to perform: {request.action} on resource: {request.resource}"
    if decision.verdict == "ExplicitlyDenied":
        named = f": {decision.source}" if decision.source is not None and decision.source.startswith("arn:") else ""
        return f"{asked} with an explicit deny in {article}{named}"
    return f"{asked} because no {kind} allows the {request.action} action"


@dataclass(frozen=True, slots=True)
class Seen:
    """A condition and the request. seen: the request's value, None if the key is missing."""

    operator: str
    key: str
    wanted: tuple[str, ...]
    seen: Value | None
    held: bool


@dataclass(frozen=True, slots=True)
class Considered:
    """A statement that concerns the action, and why it applied or did not."""

    statement: int
    sid: str | None
    effect: str
    applied: bool
    principal: bool
    resource: bool
    conditions: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one policy says to the request. level: of an SCP or RCP, 0 for the root; else None."""

    layer: str
    level: int | None
    source: str
    verdict: Verdict
    statements: tuple[Considered, ...]


def explain(request: Request, layers: Layers) -> list[Finding]:
    """What every policy in force says by itself, in the order of evaluation.

    How the findings make the decision is what `decide` does; this shows its material.
    """
    bounded = layers.boundary is not None
    return [
        _finding(layer, level, attached, request, bounded) for layer, level, attached in _in_order(layers)
    ]  # fmt: skip


def _in_order(layers: Layers) -> Iterator[tuple[str, int | None, Attached]]:
    for layer, levels in (("scp", layers.scps), ("rcp", layers.rcps)):
        for depth, level in enumerate(levels):
            for attached in level:
                yield layer, depth, attached
    if layers.endpoint is not None:
        yield "endpoint", None, layers.endpoint
    if layers.resource is not None:
        yield "trust" if layers.resource_kind == "trust" else "resource", None, layers.resource
    for attached in layers.grants:
        yield "resource", None, attached
    for attached in layers.identity:
        yield "identity", None, attached
    if layers.boundary is not None:
        yield "boundary", None, layers.boundary
    for attached in layers.session or ():
        yield "session", None, attached


def _finding(layer: str, level: int | None, attached: Attached, request: Request, bounded: bool) -> Finding:
    denies, allows = attached.document.candidates(request.action.lower(), request.resource)
    considered: list[Considered] = []
    for statement in sorted((*denies, *allows), key=lambda one: one.index):
        chosen = statement.chosen
        principal = chosen is None or chosen(request.principal, bounded and statement.deny) is not Named.NOT
        resource = statement.resource is None or statement.resource(request.resource, request.context)
        conditions = tuple(
            Seen(one.operator, one.key, one.wanted, one.seen(request.context), one.holds(request.context))
            for one in statement.conditions
        )
        considered.append(
            Considered(
                statement.index,
                statement.sid,
                "Deny" if statement.deny else "Allow",
                principal and resource and all(one.held for one in conditions),
                principal,
                resource,
                conditions,
            )
        )
    applied = {one.effect for one in considered if one.applied}
    verdict: Verdict = "ImplicitlyDenied"
    if "Deny" in applied:
        verdict = "ExplicitlyDenied"
    elif "Allow" in applied:
        verdict = "Allowed"
    return Finding(layer, level, attached.source, verdict, tuple(considered))
