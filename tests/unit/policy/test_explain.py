"""The words of a refusal and the material of a decision."""

from __future__ import annotations

from typing import Any

import pytest

from bastide.policy import Decision, Form, Layers, Principal, Request, context, decide, explain, message
from tests.unit.policy.asking import HOME, NOBODY, OBJECT, USER, allow, attached, deny, layers

SCP = "arn:aws:organizations::111122223333:policy/o-a1b2c3d4e5/service_control_policy/p-12345678"
START = f"User: {USER.arn} is not authorized to perform: s3:GetObject on resource: {OBJECT} "
GRANT: dict[str, Any] = {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}


def told(policies: Layers, who: Principal = USER, action: str = "s3:GetObject", account: str = HOME) -> str:
    request = Request(who, action, OBJECT, account, {})
    return message(request, decide(request, policies))


def test_the_words_of_a_missing_allow() -> None:
    no = "because no {} allows the s3:GetObject action"
    assert told(layers()) == START + no.format("identity-based policy")
    assert told(layers([allow()], boundary=[allow("ec2:*")])) == START + no.format("permissions boundary")
    assert told(layers([allow()], session=[])) == START + no.format("session policy")
    assert told(layers([allow()], scps=[[]])) == START + no.format("service control policy")
    assert told(layers([allow()]), account="444455556666") == START + no.format("resource-based policy")
    assert told(layers([allow()], endpoint=[{**GRANT, "Action": "ec2:*"}])) == START + no.format("VPC endpoint policy")
    assert told(layers(kind="trust"), action="sts:AssumeRole").endswith(
        "because no role trust policy allows the sts:AssumeRole action"
    )
    assert told(layers(), NOBODY).startswith("User: anonymous is not authorized to perform: s3:GetObject")


def test_the_words_of_an_explicit_deny_end_with_the_policy() -> None:
    policies = layers([allow()])
    policies.scps = [[attached(Form.SCP, allow(), deny("s3:*"), source=SCP)]]
    assert told(policies) == f"{START}with an explicit deny in a service control policy: {SCP}"
    policies = layers([allow()])
    policies.boundary = attached(Form.BOUNDARY, deny(), source=f"arn:aws:iam::{HOME}:policy/Limit")
    assert told(policies) == f"{START}with an explicit deny in a permissions boundary: arn:aws:iam::{HOME}:policy/Limit"


def test_a_policy_without_arn_is_not_named() -> None:
    policies = layers()
    policies.identity = [attached(Form.IDENTITY, deny(), source="user ann inline policy Mine")]
    assert told(policies) == f"{START}with an explicit deny in an identity-based policy"


@pytest.mark.parametrize("layer", ["identity", "boundary", "session", "resource", "trust", "scp", "rcp", "endpoint"])
def test_every_layer_has_words(layer: str) -> None:
    request = Request(USER, "s3:GetObject", OBJECT, HOME, {})
    assert "explicit deny in" in message(request, Decision(False, "ExplicitlyDenied", layer))
    assert "because no" in message(request, Decision(False, "ImplicitlyDenied", layer))


def test_an_explanation_shows_seen_and_wanted() -> None:
    statement = deny(
        "s3:*", Sid="Sealed", Condition={"Null": {"S3:Key": "true"}, "Bool": {"aws:SecureTransport": "true"}}
    )
    policies = layers([allow("s3:Get*"), allow("ec2:*")], scps=[[allow()], [allow(), statement]])
    request = Request(USER, "s3:GetObject", OBJECT, HOME, context({"aws:SecureTransport": "true"}))
    root, unit, identity = explain(request, policies)
    assert (root.layer, root.level, root.verdict) == ("scp", 0, "Allowed")
    assert (unit.layer, unit.level, unit.verdict) == ("scp", 1, "ExplicitlyDenied")
    assert (identity.layer, identity.level, identity.verdict) == ("identity", None, "Allowed")
    assert [one.statement for one in identity.statements] == [0], "what does not concern the action is left out"
    sealed = unit.statements[1]
    assert (sealed.sid, sealed.effect, sealed.applied, sealed.resource) == ("Sealed", "Deny", True, True)
    assert [(one.operator, one.key, one.wanted, one.seen, one.held) for one in sealed.conditions] == [
        ("Null", "S3:Key", ("true",), None, True),
        ("Bool", "aws:SecureTransport", ("true",), "true", True),
    ]


def test_an_explanation_covers_every_layer() -> None:
    policies = layers(
        [allow()], boundary=[allow()], session=[allow()], resource=[GRANT], endpoint=[GRANT], scps=[[allow()]],
        rcps=[[{**GRANT, "Effect": "Deny", "Action": "s3:*"}]],
    )  # fmt: skip
    found = explain(Request(USER, "s3:GetObject", OBJECT, HOME, {}), policies)
    assert [one.layer for one in found] == ["scp", "rcp", "endpoint", "resource", "identity", "boundary", "session"]
    policies = layers(resource=[{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}], kind="trust")
    (only,) = explain(Request(USER, "sts:AssumeRole", OBJECT, HOME, {}), policies)
    assert (only.layer, only.verdict) == ("trust", "Allowed")
