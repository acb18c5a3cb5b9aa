"""The prover against the evaluator: what is proved holds for every request that is tried, what is refuted is confirmed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide
from bastide.policy.prove import Scope, Situation, no_more_permissive, search
from tests.laws.generated_policies import ACTIONS, HOME, RESOURCES, USER, asked, contexts, documents, questions
from tests.reference.decider import Question, verdict

ANN = Principal("User", HOME, USER, USER)
REQUESTS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from(RESOURCES), contexts()), min_size=20, max_size=20
)


def alone(document: Document) -> Layers:
    return Layers((Attached(document, "it"),), None, None, None, (), ())


def read(policy: dict[str, Any]) -> Document:
    return Document.parse(json.dumps(policy), Form.IDENTITY)


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=60, deadline=None)
@given(documents(Form.IDENTITY))
def test_a_policy_is_no_more_permissive_than_itself(policy: Any) -> None:
    assert no_more_permissive(read(policy), read(policy), seconds=2).outcome != "refuted"
