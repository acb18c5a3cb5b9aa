"""What holds for every policy and every request."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bastide.domain import Refused
from bastide.policy import Decision, Document, Form, decide, explain, select
from tests.laws.generated_policies import (
    HOME,
    LITERALS,
    RESOURCE_FORMS,
    USER,
    Draw,
    asked,
    documents,
    questions,
    reduced,
    statement,
    statements,
)
from tests.reference import decider
from tests.reference.decider import Question

Json = dict[str, Any]
EVERYTHING: Json = {"Effect": "Allow", "Action": "*", "Resource": "*"}
BASE = settings().max_examples
NOTHING: Json = {"Effect": "Deny", "Action": "*", "Resource": "*"}


def answer(question: Question) -> Decision:
    return decide(*asked(question))


def policy(*listed: Json) -> Json:
    return {"Version": "2012-10-17", "Statement": list(listed)}


def with_statement(document: Json, *more: Json) -> Json:
    listed = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    return {**document, "Statement": [*listed, *more]}


def differs(question: Question) -> bool:
    return answer(question).verdict != decider.verdict(question)


def of_the_old_version(resource: str, condition: Json | None = None, arn: str = USER) -> Question:
    """A question that a policy without variables decides."""
    block = {} if condition is None else {"Condition": condition}
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource, **block}
    return Question(
        "User", HOME, USER, "s3:GetObject", LITERALS[1], None, {"aws:PrincipalArn": arn},
        identity=[{"Version": "2008-10-17", "Statement": [allow]}],
    )  # fmt: skip


@settings(max_examples=20 * BASE)
@example(of_the_old_version("arn:aws:sagemaker:*:${aws:PrincipalAccount}:model/${aws:PrincipalTag/team}:*"))
@example(
    of_the_old_version(
        "*",
        {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:*"}},
        "arn:aws:iam::${aws:PrincipalAccount}:role/dev",
    )
)
@given(questions())
def test_the_engine_agrees_with_the_reference(question: Question) -> None:
    if differs(question):
        small = reduced(question, differs)
        pytest.fail(
            f"{answer(small)}, the reference says {decider.verdict(small)}\n{json.dumps(vars(small), indent=1)}"
        )


@settings(max_examples=5 * BASE)
@given(questions())
def test_looked_up_and_as_functions_statements_decide_the_same(question: Question) -> None:
    plain = answer(question)
    with pytest.MonkeyPatch.context() as patch:
        # Every list of statements is looked up by value, and what is left over is a function, from the first time on.
        for name in ("_FEW", "_LONG", "_HOT"):
            patch.setattr(select, name, 0)
        request, layers = asked(question)
        assert [decide(request, layers) for _ in range(3)] == [plain] * 3


@given(questions(), st.integers(0, 2**32), st.sampled_from((Form.IDENTITY, Form.SCP, Form.RESOURCE)))
def test_many_statements_decide_as_the_reference_says(question: Question, seed: int, form: Form) -> None:
    """Documents long enough to be looked up and compiled by themselves."""
    draw = Draw(seed)
    many = policy(*(statement(draw, form) for _ in range(30)))
    if form is Form.IDENTITY:
        question = replace(question, identity=[*question.identity, many], scps=[], boundary=None)
    elif form is Form.SCP:
        question = replace(question, scps=[[many]])
    else:
        question = replace(question, resource_policy=many, resource_kind="", grants=[], action="s3:GetObject")
    request, layers = asked(question)
    wanted = decider.verdict(question)
    assert {decide(request, layers).verdict for _ in range(20)} == {wanted}


@given(questions())
def test_deny_wins_wherever_it_stands(question: Question) -> None:
    named = {**NOTHING, "Principal": "*"}
    if question.resource_kind == "trust":
        trusted = policy({"Effect": "Deny", "Action": "sts:*", "Principal": "*"})
    else:
        trusted = policy(named)
    for changed in (
        replace(question, identity=[*question.identity, policy(NOTHING)]),
        replace(question, scps=[*question.scps, [policy(NOTHING)]]),
        replace(question, rcps=[*question.rcps, [policy({**named, "Action": ["s3:*", "sagemaker:*", "sts:*"]})]]),
        replace(question, boundary=policy(EVERYTHING, NOTHING)),
        replace(question, session=[policy(EVERYTHING, NOTHING)]),
        replace(question, resource_policy=trusted),
        replace(question, endpoint=policy(named)),
    ):
        assert answer(changed).verdict == "ExplicitlyDenied"


@given(questions())
def test_nothing_is_allowed_unless_something_allows(question: Question) -> None:
    bare = replace(question, identity=[], resource_policy=None, grants=[])
    if question.kind != "Root":
        assert not answer(bare).allowed


@given(questions(), st.data())
def test_more_allows_never_turn_yes_to_no(question: Question, data: st.DataObject) -> None:
    before = answer(question)
    more = replace(question, identity=[*question.identity, policy(data.draw(statements(Form.IDENTITY, "Allow")))])
    after = answer(more)
    assert after.allowed or not before.allowed
    if question.resource_policy is not None:
        form = RESOURCE_FORMS[question.resource_kind]
        more = replace(
            question,
            resource_policy=with_statement(question.resource_policy, data.draw(statements(form, "Allow"))),
        )
        assert answer(more).allowed or not before.allowed


@given(questions(), documents(Form.BOUNDARY))
def test_boundaries_sessions_and_control_policies_never_grant(question: Question, limit: Json) -> None:
    before = answer(question)
    session = question.session
    if session is None and question.kind != "FederatedUser":  # whose session has nothing without session policies
        session = [limit]
    for changed in (
        replace(question, scps=[*question.scps, [limit]]),
        replace(question, boundary=limit if question.boundary is None else question.boundary),
        replace(question, session=session),
    ):
        assert before.allowed or not answer(changed).allowed


@given(questions())
def test_a_document_may_be_split_and_documents_joined(question: Question) -> None:
    def split(policies: list[Json]) -> list[Json]:
        return [
            {**one, "Statement": single}
            for one in policies
            for single in (one["Statement"] if isinstance(one["Statement"], list) else [one["Statement"]])
        ]

    changed = replace(
        question,
        identity=split(question.identity),
        session=None if question.session is None else split(question.session),
        scps=[split(level) for level in question.scps],
        rcps=[split(level) for level in question.rcps],
    )
    assert answer(changed).verdict == answer(question).verdict


@given(questions(), documents(Form.ENDPOINT), documents(Form.RCP))
def test_endpoints_and_resource_control_policies_never_grant(question: Question, endpoint: Json, rcp: Json) -> None:
    before = answer(question)
    for changed in (
        replace(question, endpoint=endpoint if question.endpoint is None else question.endpoint),
        replace(question, rcps=[*question.rcps, [rcp]]),
    ):
        assert before.allowed or not answer(changed).allowed


@given(questions(), statements(Form.IDENTITY, "Deny"))
def test_one_more_deny_never_turns_no_to_yes(question: Question, deny: Json) -> None:
    before = answer(question)
    for changed in (
        replace(question, identity=[*question.identity, policy(deny)]),
        replace(question, scps=[*([*level, policy(deny)] for level in question.scps)]),
    ):
        assert before.allowed or not answer(changed).allowed


@given(questions())
def test_a_layer_that_allows_everything_changes_nothing(question: Question) -> None:
    open_to_all = policy({**EVERYTHING, "Principal": "*"})
    changed = replace(question, scps=[*question.scps, [policy(EVERYTHING)]])
    if question.endpoint is None:
        changed = replace(changed, endpoint=open_to_all)
    if question.session is None and question.kind == "AssumedRole":
        changed = replace(changed, session=[policy(EVERYTHING)])
    assert answer(changed).verdict == answer(question).verdict


@given(questions(), st.sampled_from(("Allow", "Deny")))
def test_what_is_about_another_action_changes_nothing(question: Question, effect: str) -> None:
    other = {"Effect": effect, "Action": ["ec2:*", "s3:GetObjec", "s3:GetObject?"], "Resource": "*"}
    changed = replace(
        question,
        identity=[*question.identity, policy(other)],
        scps=[[*level, policy(other)] for level in question.scps],
    )
    assert answer(changed).verdict == answer(question).verdict


@given(questions())
def test_keys_that_no_policy_names_change_nothing(question: Question) -> None:
    more = {**question.context, "aws:PrincipalTag/nobody": "red", "ec2:Region": ["a", "b"]}
    assert answer(replace(question, context=more)) == answer(question)


@given(questions())
def test_a_variable_is_the_text_it_stands_for(question: Question) -> None:
    def written_out(document: Json | None) -> Json | None:
        if document is None or document.get("Version") != "2012-10-17":
            return document
        text = json.dumps(document).replace("${aws:username}", name).replace("${aws:username, 'red'}", name)
        found: Json = json.loads(text)
        return found

    name = "ann"
    question = replace(question, context={**question.context, "aws:username": name})
    changed = replace(
        question,
        identity=[written_out(one) or {} for one in question.identity],
        boundary=written_out(question.boundary),
        resource_policy=written_out(question.resource_policy),
        scps=[[written_out(one) or {} for one in level] for level in question.scps],
    )
    assert answer(changed) == answer(question)


@given(st.sampled_from(("red", "Red", "rED", "blue")), st.sampled_from(("red", "Red", "rED", "blue")))
def test_letter_case_of_values_does_matter(wanted: str, value: str) -> None:
    question = Question(
        "User", HOME, USER, "s3:GetObject", "arn:aws:s3:::bucket/a", None, {"aws:PrincipalTag/team": value}
    )
    for operator, same in (
        ("StringEquals", value == wanted),
        ("StringLike", value == wanted),
        ("StringEqualsIgnoreCase", value.lower() == wanted.lower()),
    ):
        condition = {operator: {"aws:PrincipalTag/team": wanted}}
        assert answer(replace(question, identity=[policy({**EVERYTHING, "Condition": condition})])).allowed is same
        negated = {operator.replace("String", "StringNot"): {"aws:PrincipalTag/team": wanted}}
        assert answer(replace(question, identity=[policy({**EVERYTHING, "Condition": negated})])).allowed is not same


@given(questions(), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(question: Question, random: Any) -> None:
    def shuffled(document: Json | None) -> Json | None:
        if document is None or not isinstance(document["Statement"], list):
            return document
        listed = [*document["Statement"], *document["Statement"]]
        random.shuffle(listed)
        return {**document, "Statement": listed}

    def mixed(policies: list[Json]) -> list[Json]:
        found = [shuffled(one) or {} for one in policies] * 2
        random.shuffle(found)
        return found

    changed = replace(
        question,
        identity=mixed(question.identity),
        boundary=shuffled(question.boundary),
        session=None if question.session is None else mixed(question.session),
        resource_policy=shuffled(question.resource_policy),
        scps=[mixed(level) for level in question.scps],
    )
    assert answer(changed).verdict == answer(question).verdict


def _listed(document: Any) -> Any:
    """The same document with every scalar that may be a list as a list of one."""
    found = copy.deepcopy(document)
    found["Statement"] = found["Statement"] if isinstance(found["Statement"], list) else [found["Statement"]]
    for one in found["Statement"]:
        for element in ("Action", "NotAction", "Resource", "NotResource"):
            if isinstance(one.get(element), str):
                one[element] = [one[element]]
        for block in one.get("Condition", {}).values():
            for key, value in block.items():
                block[key] = value if isinstance(value, list) else [value]
    return found


@given(questions())
def test_a_scalar_is_a_list_of_one(question: Question) -> None:
    changed = replace(
        question,
        identity=[_listed(one) for one in question.identity],
        resource_policy=None if question.resource_policy is None else _listed(question.resource_policy),
        scps=[[_listed(one) for one in level] for level in question.scps],
    )
    assert answer(changed) == answer(question)


@given(questions())
def test_letter_case_of_actions_and_keys_does_not_matter(question: Question) -> None:
    changed = replace(
        question, action=question.action.upper(), context={key.upper(): one for key, one in question.context.items()}
    )
    assert answer(changed) == answer(question)


@given(questions())
def test_asking_twice_gives_the_same_answer(question: Question) -> None:
    request, layers = asked(question)
    assert decide(request, layers) == decide(request, layers)


@given(questions())
def test_the_explanation_names_the_statement_that_decided(question: Question) -> None:
    request, layers = asked(question)
    decision = decide(request, layers)
    findings = explain(request, layers)
    if decision.verdict == "ExplicitlyDenied":
        assert any(finding.verdict == "ExplicitlyDenied" for finding in findings)
    else:
        assert all(finding.verdict != "ExplicitlyDenied" for finding in findings)
    if decision.statement is not None:
        applied = [
            one.statement
            for finding in findings
            if finding.layer == decision.layer and finding.source == decision.source
            for one in finding.statements
            if one.applied
        ]
        assert decision.statement in applied


# Documents that nobody meant well

FORMS = st.sampled_from(list(Form))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
WORDS = st.sampled_from(
    ("Version", "Id", "Statement", "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource",
     "NotResource", "Condition", "2012-10-17", "Allow", "Deny", "*", "s3:*", "StringLike", "aws:username", "AWS", "${")
)  # fmt: skip
NEARLY = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=30,
)


def _only_refused(source: Any, form: Form) -> None:
    try:
        Document.parse(source, form)
    except Refused as refused:
        assert refused.code == "MalformedPolicyDocument"
        refused.message.encode("utf-8")


@given(st.binary(max_size=400), FORMS)
def test_any_bytes_are_a_document_or_refused(source: bytes, form: Form) -> None:
    _only_refused(source, form)


@given(st.text(max_size=400), FORMS)
def test_any_text_is_a_document_or_refused(source: str, form: Form) -> None:
    _only_refused(source, form)


@settings(max_examples=300)
@given(st.dictionaries(WORDS, NEARLY | TREES, max_size=4), FORMS)
def test_any_tree_is_a_document_or_refused(source: Json, form: Form) -> None:
    _only_refused(source, form)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\xff\xfe",
        b"\x00",
        "[" * 60_000,
        '{"Statement":' * 8_000,
        '{"Version":"2012-10-17","Statement":' + "[" * 500 + "]" * 500 + "}",
        '{"Version":"2012-10-17","Statement":[{"Principal":' + "[" * 900 + "]" * 900 + "}]}",
        '{"Version":"2012-10-17","Statement":[{"Effect":' + '{"a":' * 300 + "1" + "}" * 300 + "}]}",
        "1" * 100_000,
        '{"Version": NaN}',
        '{"Version": 1e999999}',
        '{"Version":"2012-10-17","Version":"2012-10-17"}',
        '{"\ud800": 1}',
        '{"\\ud800": 1}',
        "9" * 10_000_000,
        "{" + ",".join(f'"a{index}":1' for index in range(9000)) + ',"a1":2}',
        "null",
        '"text"',
    ],
    ids=lambda source: repr(source[:30]),
)
def test_hostile_documents_are_refused(source: Any) -> None:
    for form in Form:
        with pytest.raises(Refused):
            Document.parse(source, form)
