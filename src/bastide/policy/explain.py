"""Decisions in words: AWS's message of a refusal, and what every policy said.

Source: IAM User Guide, "Troubleshoot access denied error messages".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bastide.policy.decide import Attached, Decision, Layers, Request, Verdict, decide
from bastide.policy.documents import Document, Form, Statement
from bastide.policy.principals import Named, Principal, chosen, not_chosen
from bastide.policy.variables import Context, Value

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

    How the findings make the decision is what `decide` does; this shows its material. Each part of a statement is put to
    the evaluator as a policy of its own, so that what is shown is what decides.
    """
    bounded = layers.boundary is not None
    return [
        _finding(layer, level, attached, request, bounded) for layer, level, attached in in_order(layers)
    ]  # fmt: skip


def in_order(layers: Layers) -> Iterator[tuple[str, int | None, Attached]]:
    """Every policy in force with its layer and, of an SCP or RCP, its level."""
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
    document = attached.document
    considered: list[Considered] = []
    for statement in document.statements:
        if not concerns(statement, request.action):
            continue
        principal = names(document, statement, request, bounded)
        resource = covers(document, statement, request)
        conditions = tuple(
            Seen(one.operator, one.key, one.wanted, request.context.get(one.key.lower()), held)
            for one, held in zip(statement.conditions, meets(document, statement, request), strict=True)
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


# One part of a statement at a time

_SOMEBODY: Final = Principal("User", "000000000000", "arn:aws:iam::000000000000:user/somebody")
_Part = tuple[str, str, tuple[str, ...]]


def concerns(statement: Statement, action: str) -> bool:
    """Whether Action or NotAction matches an action, in any letter case."""
    element = "NotAction" if statement.not_action else "Action"
    return _holds("2012-10-17", False, (element, "", statement.actions), action, "*", {})


def covers(document: Document, statement: Statement, request: Request) -> bool:
    """Whether Resource or NotResource matches."""
    if statement.resources is None:
        return True
    element = "NotResource" if statement.not_resource else "Resource"
    part = (element, "", statement.resources)
    return _holds(document.version, False, part, request.action, request.resource, request.context)


def meets(document: Document, statement: Statement, request: Request) -> list[bool]:
    """Of each condition, whether it holds; what a list of values has to meet depends on the effect."""
    return [
        _holds(
            document.version, statement.deny, (one.operator, one.key, one.wanted), request.action, "*", request.context
        )
        for one in statement.conditions
    ]


def names(document: Document, statement: Statement, request: Request, bounded: bool) -> bool:
    """Whether Principal or NotPrincipal means the one who asks; true where the form has none."""
    return strength(document, statement, request.principal, bounded) is not Named.NOT


def strength(document: Document, statement: Statement, who: Principal, bounded: bool) -> Named:
    """How Principal or NotPrincipal names somebody; DIRECT where the form has none.

    bounded: the principal has a permissions boundary, which matters to a Deny with NotPrincipal alone.
    """
    if statement.principals is None:
        return Named.DIRECT
    compiled = not_chosen if statement.not_principal else chosen
    named = compiled(statement.principals, "", deny=statement.deny, through=document.form is Form.ENDPOINT)
    return named(who, bounded and statement.deny)


def meets_alone(version: str, part: _Part, context: Context) -> bool:
    """Whether one condition, given as operator, key and values, holds; where there is no effect, that of an Allow."""
    return _holds(version, False, part, "s3:GetObject", "*", context)


def _holds(version: str, deny: bool, part: _Part, action: str, resource: str, context: Context) -> bool:
    request = Request(_SOMEBODY, action, resource, None, context)
    alone = Layers((Attached(_alone(version, deny, part), ""),), None, None, None, (), ())
    return decide(request, alone).verdict == ("ExplicitlyDenied" if deny else "Allowed")


@lru_cache(maxsize=2048)
def _alone(version: str, deny: bool, part: _Part) -> Document:
    """A document whose only statement has this part and matches everything else."""
    element, key, texts = part
    statement: dict[str, object] = {"Effect": "Deny" if deny else "Allow", "Action": "*", "Resource": "*"}
    if key:
        statement["Condition"] = {element: {key: list(texts)}}
    else:
        del statement[element.removeprefix("Not")]
        statement[element] = list(texts)
    return Document.parse({"Version": version, "Statement": statement}, Form.IDENTITY)
