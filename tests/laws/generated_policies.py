"""Strategies of policies and requests over small vocabularies, so that they meet often."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, canonical_id, context
from tests.reference.decider import Question

Json = dict[str, Any]
T = TypeVar("T")

HOME, OTHER = "111122223333", "444455556666"
USER = f"arn:aws:iam::{HOME}:user/ann"
ROLE = f"arn:aws:iam::{HOME}:role/team/dev"
SESSION = f"arn:aws:sts::{HOME}:assumed-role/dev/s1"
GUEST = f"arn:aws:sts::{HOME}:federated-user/guest"
ROOT = f"arn:aws:iam::{HOME}:root"
SERVICE = "sagemaker.amazonaws.com"
PROVIDER = f"arn:aws:iam::{HOME}:saml-provider/corp"
USER_ID, ROLE_ID = "AIDAEXAMPLEEXAMPLE12", "AROAEXAMPLEEXAMPLE12"
CANONICAL = canonical_id(HOME)

ACTIONS = ("s3:GetObject", "s3:PutObject", "sagemaker:CreateModel", "SAGEMAKER:createmodel")
ACTION_PATTERNS = (*ACTIONS, "*", "s3:*", "s3:Get*", "s3:?etObject", "*:*Model", "sagemaker:Create*", "s3:GetObjectx")
TRUST_ACTIONS = ("sts:AssumeRole", "sts:TagSession")
TRUST_PATTERNS = (*TRUST_ACTIONS, "sts:*", "STS:assume*", "sts:AssumeRoleWithSAML")
LITERALS = (
    "arn:aws:s3:::bucket/${aws:username}/a",
    "arn:aws:sagemaker:eu-west-1:${aws:PrincipalAccount}:model/${aws:PrincipalTag/team}:x",
)
"""Resources that are called what a policy variable looks like, which only a policy without variables can mean."""
RESOURCES = (
    "*",
    "arn:aws:s3:::bucket/ann/a",
    "arn:aws:s3:::bucket/red*/b",
    f"arn:aws:sagemaker:eu-west-1:{HOME}:model/red:x",
    *LITERALS,
)
RESOURCE_PATTERNS = (
    *RESOURCES,
    "*",
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
TEXTS = (
    "red", "Red", "re*", "r?d", "*d", "blue", "", "${aws:PrincipalTag/team}", "${aws:username, 'red'}", "${aws:TagKeys}",
    "${aws:TagKeys, 'red'}", "${*}", "ann",
)  # fmt: skip
VALUES: dict[str, tuple[str, ...]] = {
    "String": TEXTS,
    "Numeric": ("1", "2", "2.0", "10", "-1"),
    "Date": ("2026-01-01T00:00:00Z", "2026-01-01", "2026-06-01T12:00:00+02:00", "1767225600"),
    "Bool": ("true", "false", "True"),
    "Ip": ("10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0", "::ffff:10.0.0.0/104"),
    "Arn": ("arn:aws:iam::*:role/*", ROLE, USER, "arn:aws:iam::111122223333:role/*/dev", "arn:*:*:*:*:*",
            "arn:aws:iam::${aws:PrincipalAccount}:*"),
    "Binary": ("QmluYXJ5", "b3RoZXI="),
}  # fmt: skip
KEYS: dict[str, tuple[str, ...]] = {
    "String": ("aws:PrincipalTag/team", "AWS:principaltag/TEAM", "aws:TagKeys", "aws:username"),
    "Numeric": ("s3:max-keys",),
    "Date": ("aws:CurrentTime",),
    "Bool": ("aws:SecureTransport",),
    "Ip": ("aws:SourceIp",),
    "Arn": ("aws:PrincipalArn",),
    "Binary": ("aws:PrincipalTag/cert",),
}
FAMILIES = ("String", "String", "String", "Numeric", "Date", "Bool", "Ip", "Arn", "Binary")
NAMES = (USER, ROLE, SESSION, GUEST, ROOT, HOME, HOME, OTHER, USER_ID, ROLE_ID)
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


class Draw(random.Random):
    """Where the choices come from: a seed that Hypothesis draws, which is a hundred times quicker than drawing each."""

    def of(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def maybe(self, chance: float) -> bool:
        return self.random() < chance

    def some(self, options: Sequence[T], least: int = 1, most: int = 3) -> list[T]:
        return [self.of(options) for _ in range(self.randint(least, most))]


def drawn(make: Callable[[Draw], T]) -> st.SearchStrategy[T]:
    """A strategy of what is made of a seed."""
    return st.integers(0, 2**48).map(lambda seed: make(Draw(seed)))


def _one_or_more(draw: Draw, values: Sequence[str]) -> Any:
    return draw.of(values) if draw.maybe(0.5) else draw.some(values)


def _conditions(draw: Draw) -> Json:
    found: Json = {}
    for _ in range(draw.of((0, 0, 1, 1, 2))):
        family = draw.of(FAMILIES)
        key = draw.of(KEYS[family])
        if draw.maybe(0.1):
            found["Null"] = {key: draw.of(("true", "false"))}
            continue
        operator = draw.of(OPERATORS[family])
        prefix = draw.of(("", "", "", "ForAllValues:", "ForAnyValue:"))
        suffix = draw.of(("", "", "IfExists"))
        found[f"{prefix}{operator}{suffix}"] = {key: _one_or_more(draw, VALUES[family])}
    return found


def statement(draw: Draw, form: Form, effect: str | None = None) -> Json:
    """A statement that is valid in the form."""
    found: Json = {"Effect": effect or draw.of(("Allow", "Allow", "Allow", "Deny"))}
    patterns = TRUST_PATTERNS if form is Form.TRUST else ACTION_PATTERNS
    if form is Form.RCP:
        found["Effect"] = "Deny"
        patterns = tuple(one for one in patterns if not one.startswith("*"))
    negation = "" if form is Form.RCP else draw.of(("", "", "", "Not"))
    found[f"{negation}Action"] = _one_or_more(draw, patterns)
    if form is not Form.TRUST and (form not in (Form.RESOURCE, Form.KEY) or draw.maybe(0.75)):
        negation = draw.of(("", "", "", "Not"))
        found[f"{negation}Resource"] = _one_or_more(draw, RESOURCE_PATTERNS)
    block = _conditions(draw)
    if block:
        found["Condition"] = block
    if form is Form.RCP:
        found["Principal"] = "*"
    elif form in (Form.RESOURCE, Form.KEY, Form.ENDPOINT, Form.TRUST):
        negation = "" if form is Form.TRUST else draw.of(("", "", "", "", "Not"))
        found[f"{negation}Principal"] = _principal(draw)
    return found


def _principal(draw: Draw) -> Any:
    aws = draw.some(NAMES, 1, 4)
    return draw.of(
        (
            "*",
            {"AWS": "*"},
            {"AWS": aws},
            {"AWS": aws},
            {"AWS": [HOME, USER, ROLE, SESSION, GUEST]},
            {"Service": SERVICE},
            {"Federated": PROVIDER},
            {"CanonicalUser": CANONICAL},
            {"AWS": aws, "Service": [SERVICE, "ec2.amazonaws.com"], "Federated": [PROVIDER]},
        )
    )


def _document(draw: Draw, form: Form) -> Json:
    listed = [statement(draw, form) for _ in range(draw.of((1, 1, 2, 3)))]
    if form in (Form.SCP, Form.BOUNDARY, Form.SESSION, Form.IDENTITY) and draw.maybe(0.75):
        listed.append({"Effect": "Allow", "Action": "*", "Resource": "*"})
    if form is Form.ENDPOINT and draw.maybe(0.75):
        listed.append({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"})
    version = draw.of(("2012-10-17", "2012-10-17", "2008-10-17"))
    return {"Version": version, "Statement": listed[0] if len(listed) == 1 and draw.maybe(0.5) else listed}


def statements(form: Form, effect: str | None = None) -> st.SearchStrategy[Json]:
    """A statement that is valid in the form."""
    return drawn(lambda draw: statement(draw, form, effect))


def documents(form: Form) -> st.SearchStrategy[Json]:
    """A policy document of the form."""
    return drawn(lambda draw: _document(draw, form))


CONTEXT: dict[str, tuple[Any, ...]] = {
    "aws:PrincipalTag/team": ("red", "Red", "blue", ""),
    "aws:TagKeys": ([], ["red"], ["blue"], ["red", "blue"], ["", "red"], [""]),
    "aws:username": ("ann",),
    "aws:PrincipalAccount": (HOME,),
    "s3:max-keys": ("1", "2", "10", "many"),
    "aws:CurrentTime": ("2026-01-01T00:00:00Z", "2026-06-01T10:00:00Z"),
    "aws:SecureTransport": ("true", "false"),
    "aws:SourceIp": ("10.1.2.3", "192.0.2.77", "2001:db8::1", "::ffff:10.1.2.3", "nowhere"),
    "aws:PrincipalArn": (USER, ROLE, "nonsense", "arn:aws:iam::${aws:PrincipalAccount}:role/dev"),
    "aws:PrincipalTag/cert": ("QmluYXJ5", "b3RoZXI="),
}

WHO: dict[str, tuple[str | None, str, str, str]] = {
    "User": (HOME, USER, "", USER_ID),
    "AssumedRole": (HOME, SESSION, ROLE, f"{ROLE_ID}:s1"),
    "FederatedUser": (HOME, GUEST, USER, f"{HOME}:guest"),
    "Role": (HOME, ROLE, "", ROLE_ID),
    "Root": (HOME, ROOT, "", HOME),
    "Service": (None, SERVICE, "", ""),
    "Federated": (None, PROVIDER, "", ""),
    "Anonymous": (None, "", "", ""),
}
KINDS = ("User", "AssumedRole", "AssumedRole", "FederatedUser", "Role", "Root", "Service", "Federated", "Anonymous")
RESOURCE_FORMS = {"": Form.RESOURCE, "key": Form.KEY, "trust": Form.TRUST}


def question(draw: Draw) -> Question:
    """A request with policies in any of the layers."""
    kind = draw.of(KINDS)
    account, arn, role, id = WHO[kind]
    resource_kind = draw.of(("", "", "key", "trust"))
    own = account is not None

    def some(form: Form, chance: float, most: int = 2) -> list[Json]:
        return [_document(draw, form) for _ in range(draw.randint(1, most))] if draw.maybe(chance) else []

    def maybe(form: Form, chance: float) -> Json | None:
        return _document(draw, form) if draw.maybe(chance) else None

    sessions = 0.5 if kind == "AssumedRole" else 0.8 if kind == "FederatedUser" else 0
    return Question(
        kind=kind,
        account=account,
        arn=arn,
        role=role,
        id=id,
        canonical=CANONICAL if account else "",
        action=draw.of(TRUST_ACTIONS if resource_kind == "trust" else ACTIONS),
        resource=ROLE if resource_kind == "trust" else draw.of(RESOURCES),
        resource_account=draw.of((None, HOME, HOME, HOME, OTHER)),
        context={key: draw.of(values) for key, values in CONTEXT.items() if draw.maybe(0.6)},
        identity=some(Form.IDENTITY, 0.85) if own else [],
        boundary=maybe(Form.BOUNDARY, 0.3) if own and kind != "Root" else None,
        session=some(Form.SESSION, 0.95) if draw.maybe(sessions) else None,
        resource_policy=maybe(RESOURCE_FORMS[resource_kind], 0.6 if own and not resource_kind else 1),
        scps=[some(Form.SCP, 1) for _ in range(draw.of((0, 0, 1, 2)))] if own else [],
        rcps=[some(Form.RCP, 1) for _ in range(draw.of((0, 0, 0, 1)))],
        endpoint=maybe(Form.ENDPOINT, 0.25),
        resource_kind=resource_kind,
        grants=[{"Statement": [statement(draw, Form.KEY, "Allow")]}]
        if resource_kind == "key" and draw.maybe(0.4)
        else [],
    )


def questions() -> st.SearchStrategy[Question]:
    """Requests with policies in any of the layers."""
    return drawn(question)


def reduced(question: Question, still: Callable[[Question], bool]) -> Question:
    """A smaller question of which the same holds: without the policies, statements and conditions that do not matter."""
    smaller = True
    while smaller:
        smaller = False
        for name in (
            "identity",
            "boundary",
            "session",
            "resource_policy",
            "scps",
            "rcps",
            "endpoint",
            "grants",
            "context",
        ):
            for value in list(_smaller(getattr(question, name))):
                changed = replace(question, **{name: value})
                with suppress(Exception):  # what is left may be no policy any more
                    if still(changed):
                        question, smaller = changed, True
                        break
    return question


def _smaller(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield {other: one for other, one in value.items() if other != key}
            for less in _smaller(value[key]):
                yield {**value, key: less}
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield [*value[:place], *value[place + 1 :]]
            for less in _smaller(one):
                yield [*value[:place], less, *value[place + 1 :]]


def asked(question: Question) -> tuple[Request, Layers]:
    """The question in the engine's words."""

    def attached(policy: Json, form: Form) -> Attached:
        return Attached(Document.parse(json.dumps(policy), form), form.value)

    def several(policies: list[Json], form: Form) -> list[Attached]:
        return [attached(policy, form) for policy in policies]

    def one(policy: Json | None, form: Form) -> Attached | None:
        return None if policy is None else attached(policy, form)

    principal = Principal(
        question.kind,  # type: ignore[arg-type]
        question.account,
        question.arn,
        question.role or question.arn,
        question.id,
    )
    return Request(
        principal, question.action, question.resource, question.resource_account, context(question.context)
    ), Layers(
        identity=several(question.identity, Form.IDENTITY),
        boundary=one(question.boundary, Form.BOUNDARY),
        session=None if question.session is None else several(question.session, Form.SESSION),
        resource=one(question.resource_policy, RESOURCE_FORMS[question.resource_kind]),
        scps=[several(level, Form.SCP) for level in question.scps],
        rcps=[several(level, Form.RCP) for level in question.rcps],
        endpoint=one(question.endpoint, Form.ENDPOINT),
        resource_kind=question.resource_kind,
        grants=several(question.grants, Form.KEY),
    )
