"""Strategies of policies and requests over small vocabularies, so that they meet often."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context
from tests.reference.decider import Question

Json = dict[str, Any]

HOME, OTHER = "111122223333", "444455556666"
USER = f"arn:aws:iam::{HOME}:user/ann"
ROLE = f"arn:aws:iam::{HOME}:role/team/dev"
SESSION = f"arn:aws:sts::{HOME}:assumed-role/dev/s1"
ROOT = f"arn:aws:iam::{HOME}:root"
SERVICE = "sagemaker.amazonaws.com"

ACTIONS = ("s3:GetObject", "s3:PutObject", "sagemaker:CreateModel", "SAGEMAKER:createmodel")
ACTION_PATTERNS = (*ACTIONS, "*", "s3:*", "s3:Get*", "s3:?etObject", "*:*Model", "sagemaker:Create*", "s3:GetObjectx")
RESOURCES = (
    "*",
    "arn:aws:s3:::bucket/ann/a",
    "arn:aws:s3:::bucket/red*/b",
    f"arn:aws:sagemaker:eu-west-1:{HOME}:model/red:x",
)
RESOURCE_PATTERNS = (
    *RESOURCES,
    "arn:aws:s3:::bucket/*",
    "arn:aws:s3:::*/a",
    "arn:aws:s3:::bucket/${aws:username}/*",
    "arn:aws:s3:::bucket/${aws:PrincipalTag/team}${*}/?",
    "arn:aws:s3:::bucket/${aws:PrincipalTag/team, 'ann'}/a",
    "arn:aws:s3",
    "arn:*:*:*:*:*",
    f"arn:aws:sagemaker:*:{HOME}:model/*",
    "arn:aws:sagemaker:*:${aws:PrincipalAccount}:model/${aws:PrincipalTag/team}:*",
)
TEXTS = ("red", "Red", "re*", "r?d", "blue", "", "${aws:PrincipalTag/team}", "${aws:username, 'red'}", "${aws:TagKeys}")
VALUES: dict[str, tuple[str, ...]] = {
    "String": TEXTS,
    "Numeric": ("1", "2", "2.0", "10", "-1"),
    "Date": ("2026-01-01T00:00:00Z", "2026-01-01", "2026-06-01T12:00:00+02:00", "1767225600"),
    "Bool": ("true", "false", "True"),
    "Ip": ("10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0"),
    "Arn": ("arn:aws:iam::*:role/*", ROLE, "arn:aws:iam::111122223333:role/*/dev", "arn:*:*:*:*:*"),
    "Binary": ("QmluYXJ5", "b3RoZXI="),
}
KEYS: dict[str, tuple[str, ...]] = {
    "String": ("aws:PrincipalTag/team", "AWS:principaltag/TEAM", "aws:TagKeys", "aws:username"),
    "Numeric": ("s3:max-keys",),
    "Date": ("aws:CurrentTime",),
    "Bool": ("aws:SecureTransport",),
    "Ip": ("aws:SourceIp",),
    "Arn": ("aws:PrincipalArn",),
    "Binary": ("aws:PrincipalTag/cert",),
}
ORDERS = ("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
OPERATORS: dict[str, tuple[str, ...]] = {
    "String": (
        "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike",
        "StringNotLike",
    ),
    "Numeric": tuple(f"Numeric{order}" for order in ORDERS),
    "Date": tuple(f"Date{order}" for order in ORDERS),
    "Bool": ("Bool",),
    "Ip": ("IpAddress", "NotIpAddress"),
    "Arn": ("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"),
    "Binary": ("BinaryEquals",),
}  # fmt: skip


def _one_or_more(values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    some = st.lists(st.sampled_from(values), min_size=1, max_size=3)
    return st.sampled_from(values) | some


@st.composite
def conditions(draw: Callable[..., Any]) -> Json:
    """A Condition element of up to two operators."""
    found: Json = {}
    for _ in range(draw(st.integers(0, 2))):
        family = draw(st.sampled_from(sorted(OPERATORS)))
        key = draw(st.sampled_from(KEYS[family]))
        if draw(st.integers(0, 7)) == 0:
            found["Null"] = {key: draw(st.sampled_from(("true", "false")))}
            continue
        operator = draw(st.sampled_from(OPERATORS[family]))
        prefix = draw(st.sampled_from(("", "", "", "ForAllValues:", "ForAnyValue:")))
        suffix = draw(st.sampled_from(("", "", "IfExists")))
        found[f"{prefix}{operator}{suffix}"] = {key: draw(_one_or_more(VALUES[family]))}
    return found


@st.composite
def statements(draw: Callable[..., Any], form: Form, effect: str | None = None) -> Json:
    """A statement that is valid in the form."""
    found: Json = {"Effect": effect or draw(st.sampled_from(("Allow", "Allow", "Allow", "Deny")))}
    if form is Form.RCP:
        found["Effect"] = "Deny"
    negation = "" if form is Form.RCP else draw(st.sampled_from(("", "", "", "Not")))
    found[f"{negation}Action"] = draw(_one_or_more(ACTION_PATTERNS))
    negation = draw(st.sampled_from(("", "", "", "Not")))
    found[f"{negation}Resource"] = draw(_one_or_more(RESOURCE_PATTERNS))
    block = draw(conditions())
    if block:
        found["Condition"] = block
    if form is Form.RCP:
        found["Principal"] = "*"
    elif form in (Form.RESOURCE, Form.KEY, Form.ENDPOINT):
        negation = draw(st.sampled_from(("", "", "", "Not")))
        found[f"{negation}Principal"] = draw(principals())
    return found


def principals() -> st.SearchStrategy[Any]:
    """A Principal element."""
    aws = st.lists(st.sampled_from((USER, ROLE, SESSION, ROOT, HOME, OTHER)), min_size=1, max_size=4)
    return st.one_of(
        st.just("*"),
        st.just({"AWS": "*"}),
        st.builds(lambda names: {"AWS": names}, aws),
        st.just({"Service": SERVICE}),
        st.builds(lambda names: {"AWS": names, "Service": [SERVICE, "ec2.amazonaws.com"]}, aws),
    )


@st.composite
def documents(draw: Callable[..., Any], form: Form) -> Json:
    """A policy document of the form."""
    listed = draw(st.lists(statements(form), min_size=1, max_size=3))
    if form in (Form.SCP, Form.BOUNDARY, Form.SESSION, Form.IDENTITY) and draw(st.integers(0, 3)):
        listed.append({"Effect": "Allow", "Action": "*", "Resource": "*"})
    if form is Form.ENDPOINT and draw(st.booleans()):
        listed.append({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"})
    version = draw(st.sampled_from(("2012-10-17", "2012-10-17", "2008-10-17")))
    return {"Version": version, "Statement": listed[0] if len(listed) == 1 and draw(st.booleans()) else listed}


def contexts() -> st.SearchStrategy[dict[str, Any]]:
    """A request context."""
    return st.fixed_dictionaries(
        {},
        optional={
            "aws:PrincipalTag/team": st.sampled_from(("red", "Red", "blue", "")),
            "aws:TagKeys": st.lists(st.sampled_from(("red", "blue", "")), max_size=3),
            "aws:username": st.just("ann"),
            "aws:PrincipalAccount": st.just(HOME),
            "s3:max-keys": st.sampled_from(("1", "2", "10", "many")),
            "aws:CurrentTime": st.sampled_from(("2026-01-01T00:00:00Z", "2026-06-01T10:00:00Z")),
            "aws:SecureTransport": st.sampled_from(("true", "false")),
            "aws:SourceIp": st.sampled_from(("10.1.2.3", "192.0.2.77", "2001:db8::1")),
            "aws:PrincipalArn": st.sampled_from((USER, ROLE, "nonsense")),
            "aws:PrincipalTag/cert": st.sampled_from(("QmluYXJ5", "b3RoZXI=")),
        },
    )


WHO: dict[str, tuple[str | None, str, str]] = {
    "User": (HOME, USER, ""),
    "AssumedRole": (HOME, SESSION, ROLE),
    "Role": (HOME, ROLE, ""),
    "Root": (HOME, ROOT, ""),
    "Service": (None, SERVICE, ""),
    "Anonymous": (None, "", ""),
}


@st.composite
def questions(draw: Callable[..., Any]) -> Question:
    """A request with policies in any of the layers."""
    kind = draw(st.sampled_from(("User", "AssumedRole", "AssumedRole", "Role", "Root", "Service", "Anonymous")))
    account, arn, role = WHO[kind]
    resource_kind = draw(st.sampled_from(("", "", "key")))
    maybe = lambda form: st.none() | documents(form)  # noqa: E731
    return Question(
        kind=kind,
        account=account,
        arn=arn,
        role=role,
        action=draw(st.sampled_from(ACTIONS)),
        resource=draw(st.sampled_from(RESOURCES)),
        resource_account=draw(st.sampled_from((None, HOME, HOME, OTHER))),
        context=draw(contexts()),
        identity=draw(st.lists(documents(Form.IDENTITY), max_size=2)),
        boundary=draw(maybe(Form.BOUNDARY)) if kind in ("User", "AssumedRole", "Role") else None,
        session=draw(st.none() | st.lists(documents(Form.SESSION), max_size=2)) if kind == "AssumedRole" else None,
        resource_policy=draw(maybe(Form.KEY if resource_kind else Form.RESOURCE)),
        scps=draw(st.lists(st.lists(documents(Form.SCP), max_size=2), max_size=2)),
        rcps=draw(st.lists(st.lists(documents(Form.RCP), max_size=2), max_size=1)),
        endpoint=draw(st.none() | st.none() | documents(Form.ENDPOINT)),
        resource_kind=resource_kind,
    )


def asked(question: Question) -> tuple[Request, Layers]:
    """The question in the engine's words."""

    def attached(policy: Json, form: Form) -> Attached:
        return Attached(Document.parse(json.dumps(policy), form), form.value)

    def several(policies: list[Json], form: Form) -> list[Attached]:
        return [attached(policy, form) for policy in policies]

    def one(policy: Json | None, form: Form) -> Attached | None:
        return None if policy is None else attached(policy, form)

    principal = Principal(question.kind, question.account, question.arn, question.role or question.arn)  # type: ignore[arg-type]
    resource_form = {"key": Form.KEY, "trust": Form.TRUST}.get(question.resource_kind, Form.RESOURCE)
    return Request(
        principal, question.action, question.resource, question.resource_account, context(question.context)
    ), Layers(
        identity=several(question.identity, Form.IDENTITY),
        boundary=one(question.boundary, Form.BOUNDARY),
        session=None if question.session is None else several(question.session, Form.SESSION),
        resource=one(question.resource_policy, resource_form),
        scps=[several(level, Form.SCP) for level in question.scps],
        rcps=[several(level, Form.RCP) for level in question.rcps],
        endpoint=one(question.endpoint, Form.ENDPOINT),
        resource_kind=question.resource_kind,
    )
