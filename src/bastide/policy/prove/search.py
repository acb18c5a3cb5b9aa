"""The search for a request that is allowed and should not be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from bastide.policy.decide import Attached, Decision, Layers, Request, decide
from bastide.policy.documents import Document, Form
from bastide.policy.explain import in_order
from bastide.policy.principals import Principal
from bastide.policy.prove.encode import Encoder
from bastide.policy.prove.solver import Inexact, z3
from bastide.policy.variables import Value

Outcome = Literal["proved", "refuted", "not proved"]
SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Situation:
    """Who asks, and the policies in force.

    name: for whoever reads the answer. beside: other policies under which the same request must not be allowed for it to
    count; a request that they allow, too, is nothing new.
    """

    name: str
    principal: Principal
    layers: Layers
    resource_account: str | None = None
    beside: Layers | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests are meant.

    actions, resources: patterns, None for all. when: a Condition element that the requests meet. unless: one that they
    do not meet. context: values that keys have, None for keys that are absent; all others are free.
    """

    actions: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    when: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unless: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context: Mapping[str, Value | None] = field(default_factory=dict)

    def documents(self) -> tuple[Document | None, Document | None]:
        """The scope as policies: one that allows what is in it, and one that allows what `unless` says.

        Raises Refused (MalformedPolicyDocument) for a scope that no policy could say.
        """
        inside = _policy(self.actions, self.resources, self.when)
        outside = _policy(None, None, self.unless) if self.unless else None
        return inside, outside


def _policy(actions: Sequence[str] | None, resources: Sequence[str] | None, condition: Mapping[str, Any]) -> Document:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Action": list(actions) if actions is not None else "*",
        "Resource": list(resources) if resources is not None else "*",
    }
    if condition:
        statement["Condition"] = condition
    return Document.parse({"Version": "2012-10-17", "Statement": statement}, Form.IDENTITY)


@dataclass(frozen=True, slots=True)
class Proof:
    """An answer.

    proved: no request in the scope is allowed. refuted: `request` is, and the evaluator says so (`decision`). not proved:
    `why` tells what stood in the way. inexact: constructs that the proof left open.
    """

    outcome: Outcome
    why: str = ""
    situation: Situation | None = None
    request: Request | None = None
    decision: Decision | None = None
    inexact: tuple[str, ...] = ()
    seconds: float = 0.0


def search(
    situations: Iterable[Situation], scope: Scope, *, seconds: float = SECONDS, known_actions: Iterable[str] = ()
) -> Proof:
    """Looks for a request in the scope that one of the situations allows.

    seconds: for all of it. known_actions: names that a counterexample should prefer to invented ones.
    Raises Unavailable without z3, Refused (MalformedPolicyDocument) for a scope that no policy could say.
    """
    start = time.monotonic()
    inside, outside = scope.documents()
    actions = tuple(known_actions)
    open_reasons: list[str] = []
    inexact: list[str] = []
    encoders: dict[tuple[int, ...], Encoder] = {}
    for situation in situations:
        left = seconds - (time.monotonic() - start)
        if left <= 0:
            open_reasons.append(f"{situation.name}: the time of {seconds:g} s is up")
            break
        found = _one(situation, scope, inside, outside, left, actions, encoders)
        inexact += [one for one in found.inexact if one not in inexact]
        if found.outcome == "refuted":
            return replace(found, inexact=tuple(inexact), seconds=time.monotonic() - start)
        if found.outcome == "not proved":
            open_reasons.append(f"{situation.name}: {found.why}")
    spent = time.monotonic() - start
    if open_reasons:
        return Proof("not proved", "; ".join(dict.fromkeys(open_reasons)), inexact=tuple(inexact), seconds=spent)
    return Proof("proved", inexact=tuple(inexact), seconds=spent)


def _one(
    situation: Situation,
    scope: Scope,
    inside: Document | None,
    outside: Document | None,
    seconds: float,
    known_actions: tuple[str, ...],
    encoders: dict[tuple[int, ...], Encoder],
) -> Proof:
    z = z3()
    layers = [situation.layers, *([situation.beside] if situation.beside is not None else [])]
    documents = [attached.document for held in layers for _, _, attached in in_order(held)]
    documents += [one for one in (inside, outside) if one is not None]
    try:
        # Principals who are asked about under the same policies share their encoding; it keeps the documents.
        same = tuple(id(one) for one in documents)
        encoder = encoders.get(same) or encoders.setdefault(same, Encoder(documents))
        problem = z.Solver()
        problem.set("timeout", max(1, int(seconds * 1000)))
        problem.add(*encoder.axioms, *encoder.fixed(scope.context))
        who, account = situation.principal, situation.resource_account
        problem.add(encoder.allowed(who, situation.layers, account))
        if situation.beside is not None:
            problem.add(z.Not(encoder.allowed(who, situation.beside, account)))
        if inside is not None:
            problem.add(encoder.applies(inside, inside.statements[0]))
        if outside is not None:
            problem.add(z.Not(encoder.applies(outside, outside.statements[0])))
        answer = problem.check()
    except Inexact as found:
        return Proof("not proved", f"this cannot be encoded: {found}")
    except z.Z3Exception as error:
        return Proof("not proved", f"the solver failed: {str(error)[:200]}")
    inexact = tuple(encoder.inexact)
    if answer == z.unsat:
        return Proof("proved", inexact=inexact)
    if answer != z.sat:
        return Proof("not proved", f"the solver does not know: {problem.reason_unknown()}", inexact=inexact)

    def counts(request: Request) -> bool:
        return _counts(request, situation, inside, outside)

    model = problem.model()
    context = {**encoder.context(model), **{key: one for key, one in scope.context.items() if one is not None}}
    action = encoder.action_of(model)
    request = Request(who, action, encoder.resource(model), account, context)
    if not counts(request):
        blame = "; ".join(inexact) or "the encoding and the evaluator differ (a fault of the prover)"
        return Proof(
            "not proved", f"a request that the solver found is not confirmed; left open: {blame}", inexact=inexact
        )
    request = _plainer(request, counts, scope, known_actions, documents)
    return Proof("refuted", "", situation, request, decide(request, situation.layers), inexact)


def _counts(request: Request, situation: Situation, inside: Document | None, outside: Document | None) -> bool:
    """Whether the evaluator says of a request what the search wants."""
    if not decide(request, situation.layers).allowed:
        return False
    if situation.beside is not None and decide(request, situation.beside).allowed:
        return False
    if inside is not None and not _allows(inside, request):
        return False
    return outside is None or not _allows(outside, request)


def _allows(document: Document, request: Request) -> bool:
    somebody = Principal("User", "000000000000", "arn:aws:iam::000000000000:user/somebody")
    alone = Layers((Attached(document, ""),), None, None, None, (), ())
    return decide(replace(request, principal=somebody, resource_account=None), alone).allowed


# A plainer counterexample


def _plainer(
    request: Request,
    counts: Callable[[Request], bool],
    scope: Scope,
    known_actions: tuple[str, ...],
    documents: Sequence[Document],
) -> Request:
    """The same counterexample in words that people use; every step is confirmed."""
    for action in _names(request.action, known_actions, documents, scope):
        other = replace(request, action=action)
        if counts(other):
            request = other
            break
    for key in list(request.context):
        if scope.context.get(key) is None:
            less = {name: value for name, value in request.context.items() if name != key}
            if counts(replace(request, context=less)):
                request = replace(request, context=less)
    for key, value in list(request.context.items()):
        if scope.context.get(key) is None:
            request = _plainer_value(request, key, value, counts)
    return _plainer_resource(request, counts)


def _names(action: str, known: tuple[str, ...], documents: Sequence[Document], scope: Scope) -> Iterable[str]:
    """Actions that a counterexample may have instead, liked best first."""
    same = [one for one in known if one.lower() == action]
    yield from same
    if same:
        return
    written = [
        *(scope.actions or ()),
        *(text for document in documents for statement in document.statements for text in statement.actions),
    ]
    yield from (text for text in dict.fromkeys(written) if "*" not in text and "?" not in text)
    service = action.partition(":")[0]
    mine = [one for one in known if one.lower().startswith(f"{service}:")]
    yield from mine[:400]
    yield from [one for one in known if one not in mine][:400]


def _plainer_value(request: Request, key: str, value: Value, counts: Callable[[Request], bool]) -> Request:
    candidates: list[Value] = []
    if isinstance(value, tuple):
        candidates += [value[:number] + value[number + 1 :] for number in range(len(value))]
        if len(value) == 1 and not value[0].isprintable():
            candidates.append(("other",))
    elif not value or not value.isprintable() or not value.isascii() or " " in value:
        candidates += ["other", f"another-{key.rpartition('/')[2].rpartition(':')[2]}"]
    for candidate in candidates:
        other = replace(request, context={**request.context, key: candidate})
        if counts(other):
            return _plainer_value(other, key, candidate, counts) if isinstance(candidate, tuple) else other
    return request


def _plainer_resource(request: Request, counts: Callable[[Request], bool]) -> Request:
    if request.resource == "*":
        return request
    service = request.action.partition(":")[0].lower()
    parts = request.resource.split(":", 5)
    named = "000000000000" if request.resource_account is None else request.resource_account
    wishes = [
        ("aws",), (service,), ("us-east-1", ""), (named, ""),
        ("bucket/object", "bucket") if service == "s3" else ("resource/name", "name"),
    ]  # fmt: skip
    for number, wanted in enumerate(wishes, 1):
        if number == 3 and service in ("s3", "iam"):
            wanted = ("",)  # noqa: PLW2901
        if number == 4 and service == "s3":
            wanted = ("",)  # noqa: PLW2901
        for text in wanted:
            other = [*parts[:number], text, *parts[number + 1 :]]
            if counts(replace(request, resource=":".join(other))):
                parts = other
                break
    return replace(request, resource=":".join(parts))
