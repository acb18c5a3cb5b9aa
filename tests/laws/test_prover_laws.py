"""The prover against the evaluator: what is proved holds for every request that is tried, what is refuted is confirmed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide
from bastide.policy.explain import meets_alone
from bastide.policy.matching import plain_pattern
from bastide.policy.prove import Scope, Situation, cells, classes, no_more_permissive, search
from bastide.policy.variables import template
from tests.laws.generated_policies import (
    ACTIONS,
    CONTEXT,
    GUEST,
    HOME,
    ORDERS,
    OTHER,
    RESOURCES,
    USER,
    VALUES,
    WHO,
    asked,
    documents,
    questions,
    statements,
)
from tests.reference.decider import Question, verdict

FULL: dict[str, Any] = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
OLD: dict[str, Any] = {
    "Version": "2008-10-17",
    "Statement": [
        {
            "Effect": "Deny",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:sagemaker:*:${aws:PrincipalAccount}:model/${aws:PrincipalTag/team}:*",
        },
        FULL["Statement"],
    ],
}
"""What would be variables in the new version is text in this one, and so are the colons in it."""
GRANTED = Question(
    "FederatedUser", HOME, GUEST, "s3:PutObject", "arn:aws:s3:::bucket/ann/a", OTHER, {}, USER,
    resource_kind="key",
    grants=[{"Statement": [{"Effect": "Allow", "Action": "s3:*", "Principal": {"AWS": GUEST}}]}],
)  # fmt: skip
"""A grant of a key in another account, which is enough by itself."""
ANN = Principal("User", HOME, USER, USER)
CONTEXTS = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in CONTEXT.items()})
REQUESTS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(RESOURCES), CONTEXTS), min_size=20, max_size=20)


def alone(document: Document) -> Layers:
    return Layers((Attached(document, "it"),), None, None, None, (), ())


def read(policy: dict[str, Any]) -> Document:
    return Document.parse(json.dumps(policy), Form.IDENTITY)


@example(FULL, OLD, [])
@given(documents(Form.IDENTITY), documents(Form.IDENTITY), REQUESTS)
def test_a_comparison_agrees_with_every_request(new: Any, old: Any, requests: Any) -> None:
    first, second = read(new), read(old)
    proof = no_more_permissive(first, second, seconds=2)
    if proof.outcome == "proved":
        for action, resource, keys in requests:
            request = Request(ANN, action, resource, None, context(keys))
            assert not decide(request, alone(first)).allowed or decide(request, alone(second)).allowed, request
    elif proof.outcome == "refuted":
        found = proof.request
        assert found is not None
        keys = {key: list(value) if isinstance(value, tuple) else value for key, value in found.context.items()}

        def judged(policy: Any) -> str:
            who = found.principal
            question = Question(
                who.kind, who.account, who.arn, found.action, found.resource, None, keys, identity=[policy]
            )
            return verdict(question)

        assert judged(new) == "Allowed" and judged(old) != "Allowed", "the reference decider says so, too"
    else:
        assert proof.why


@settings(max_examples=settings.default.max_examples * 4)
@given(statements(Form.IDENTITY), CONTEXTS, st.booleans())
def test_a_condition_holds_for_the_prover_as_for_the_evaluator(drawn: Any, keys: Any, deny: bool) -> None:
    """All of the request is given: it is refuted or proved exactly as it is decided."""
    if "Condition" not in drawn:
        drawn["Condition"] = {"StringNotEquals": {"aws:username": "ann"}}
    statement = {**FULL["Statement"], "Effect": "Deny" if deny else "Allow", "Condition": drawn["Condition"]}
    policy = read({"Version": "2012-10-17", "Statement": [statement, *([FULL["Statement"]] if deny else [])]})
    request = Request(ANN, "s3:GetObject", "arn:aws:s3:::bucket/a", None, context(keys))
    known = {key.lower(): request.context.get(key.lower()) for key in CONTEXT}
    scope = Scope((request.action,), (request.resource,), context=known)
    proof = search([Situation("it", ANN, alone(policy))], scope, seconds=2)
    wanted = "refuted" if decide(request, alone(policy)).allowed else "proved"
    assert proof.outcome == wanted or (proof.outcome == "not proved" and proof.inexact), proof


@example(GRANTED)
@given(questions())
def test_what_is_allowed_is_never_proved_impossible(question: Question) -> None:
    request, layers = asked(question)
    scope = Scope((request.action,))
    proof = search([Situation("it", request.principal, layers, request.resource_account)], scope, seconds=2)
    if decide(request, layers).allowed:
        assert proof.outcome != "proved", request
    if proof.outcome == "refuted":
        assert proof.request is not None and decide(proof.request, layers).allowed
        assert proof.request.action.lower() == request.action.lower()


@settings(max_examples=settings.default.max_examples * 4)
@example(GRANTED)
@given(questions())
def test_layers_allow_for_the_prover_as_for_the_evaluator(question: Question) -> None:
    """All of the request is given, so that nothing but the layers is left to prove."""
    request, layers = asked(question)
    if request.resource == "*":  # as a pattern it would mean every resource
        request = replace(request, resource="arn:aws:s3:::bucket/ann/a")
    exact = request.resource.replace("$", "${$}").replace("*", "${*}")
    known = {key.lower(): request.context.get(key.lower()) for key in CONTEXT}
    scope = Scope((request.action,), (exact,), context=known)
    proof = search([Situation("it", request.principal, layers, request.resource_account)], scope, seconds=2)
    wanted = "refuted" if decide(request, layers).allowed else "proved"
    assert proof.outcome == wanted or (proof.outcome == "not proved" and proof.inexact), (request, proof)


@given(documents(Form.IDENTITY))
def test_a_policy_is_no_more_permissive_than_itself(policy: Any) -> None:
    assert no_more_permissive(read(policy), read(policy), seconds=2).outcome != "refuted"


@given(documents(Form.RESOURCE), documents(Form.RESOURCE), REQUESTS)
def test_a_comparison_of_resource_policies_covers_every_principal(new: Any, old: Any, requests: Any) -> None:
    first, second = (Document.parse(json.dumps(one), Form.RESOURCE) for one in (new, old))
    proof = no_more_permissive(first, second, seconds=2)
    everything = Attached(Document.parse(FULL, Form.IDENTITY), "everything")

    def granted(document: Document, request: Request) -> bool:
        layers = Layers((everything,), None, None, Attached(document, "it"), (), ())
        return decide(request, layers).allowed

    for number, (action, resource, keys) in enumerate(requests):
        kind = sorted(WHO)[number % len(WHO)]
        account, arn, role, id = WHO[kind]
        who = Principal(kind, account, arn, role or arn, id)  # type: ignore[arg-type]
        request = Request(who, action, resource, "555566667777", context(keys))
        if proof.outcome == "proved":
            assert not granted(first, request) or granted(second, request), request
    if proof.outcome == "refuted":
        assert proof.request is not None
        assert granted(first, proof.request) and not granted(second, proof.request)


@given(st.lists(st.text("ab*?:", max_size=5), max_size=4), st.text("abcd:", max_size=6))
def test_every_text_is_like_one_of_a_class(patterns: list[str], text: str) -> None:
    read_all = [template(one, "", variables=False, wildcards=True) for one in patterns]
    found = classes.classes([classes.pattern(one) for one in read_all])
    known = {signature: sample for sample, signature in found}

    def signature(value: str) -> frozenset[int]:
        return frozenset(number for number, one in enumerate(read_all) if plain_pattern(one)(value))

    assert signature(text) in known
    assert all(signature(sample) == wanted for wanted, sample in known.items())


@given(st.sampled_from(["Numeric", "Date", "Ip", "Binary"]), st.data())
def test_every_value_is_like_a_representative(family: str, data: st.DataObject) -> None:
    wanted = tuple(data.draw(st.lists(st.sampled_from(VALUES[family]), min_size=1, max_size=3)))
    operators = {"Ip": "IpAddress", "Binary": "BinaryEquals"}
    operator = operators.get(family) or family + data.draw(st.sampled_from(ORDERS))
    value = data.draw(st.sampled_from((*VALUES[family], "9.9.9.9", "5", "2026-03-01", "AAAA", "x", ""))).split("/")[0]
    reached = {
        meets_alone("2012-10-17", (operator, "aws:x", wanted), {"aws:x": one})
        for one in cells.representatives(family, wanted)
    }
    assert meets_alone("2012-10-17", (operator, "aws:x", wanted), {"aws:x": value}) in reached
