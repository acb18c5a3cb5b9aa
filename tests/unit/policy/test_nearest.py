"""The nearest change: for every layer that can refuse, one that would have allowed, and whose it is."""

from __future__ import annotations

from typing import Any

import pytest

from bastide.policy import Form, Layers, Request, context, decide
from bastide.policy.nearest import is_the_callers, nearest, parameter
from tests.unit.policy.asking import HOME, OBJECT, USER, allow, attached, deny, layers

EVERYBODY = {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}
OTHER = "444455556666"


def asked(action: str = "s3:GetObject", account: str = HOME, **keys: Any) -> Request:
    return Request(USER, action, OBJECT, account, context({key.replace("__", ":"): one for key, one in keys.items()}))


def changes(request: Request, policies: Layers) -> list[tuple[str, str]]:
    assert not decide(request, policies).allowed
    found = nearest(request, policies)
    assert found is not None
    return [(one.who, one.text) for one in found]


@pytest.mark.parametrize(
    ("policies", "who", "words"),
    [
        (layers(), "identity", f"add s3:GetObject on {OBJECT} to a policy of {USER.arn}"),
        (layers([allow()], boundary=[allow("ec2:*")]), "boundary", "to the permissions boundary"),
        (layers([allow()], session=[allow("ec2:*")]), "session", "session policies that allow"),
        (layers([allow()], endpoint=[{**EVERYBODY, "Action": "ec2:*"}]), "endpoint", "the policy of the VPC endpoint"),
        (layers([allow()], scps=[[allow()], [allow("ec2:*")]]), "scp", "at level 1 below the root"),
        (layers([allow()], scps=[[allow("ec2:*")], [allow()]]), "scp", "at the root"),
        (layers([allow(), deny("s3:*", Sid="No")]), "identity", "out of the statement No"),
        (layers([allow()], scps=[[allow(), deny("s3:*", Sid="Never")]]), "scp", "out of the statement Never"),
    ],
)
def test_one_change_in_the_layer_that_refuses(policies: Layers, who: str, words: str) -> None:
    [(layer, text)] = changes(asked(), policies)
    assert layer == who and words in text


def test_between_accounts_both_sides_are_told() -> None:
    found = changes(asked(account=OTHER), layers())
    assert [who for who, _ in found] == ["identity", "resource"]
    assert f"by the policy of {OBJECT}" in found[1][1]


@pytest.mark.parametrize(
    ("condition", "keys", "words"),
    [
        ({"Null": {"sagemaker:VolumeKmsKey": "true"}}, {}, "pass ResourceConfig.VolumeKmsKeyId (sagemaker:VolumeKmsKey)"),
        ({"BoolIfExists": {"sagemaker:NetworkIsolation": "false"}}, {}, "EnableNetworkIsolation ("),
        ({"StringNotEquals": {"aws:RequestTag/team": ["a", "b"]}}, {}, "tag it with team (aws:RequestTag/team) = a or b"),
        ({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, {"aws__SourceIp": "10.0.0.1"}, "address = 192.0.2.0/24"),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws__SecureTransport": "false"}, "call over TLS"),
        ({"ForAnyValue:StringNotLike": {"sagemaker:InstanceTypes": "m5.*"}}, {"sagemaker__InstanceTypes": ["p3"]}, "m5.*"),
    ],
)  # fmt: skip
def test_a_guardrail_is_met_by_the_request(condition: dict[str, Any], keys: dict[str, Any], words: str) -> None:
    guard = deny("sagemaker:*", Sid="Guard", Condition=condition)
    [(who, text)] = changes(asked("sagemaker:CreateTrainingJob", **keys), layers([allow()], scps=[[allow(), guard]]))
    assert who == "caller" and words in text and "Guard" in text


def test_who_one_is_cannot_be_changed_by_asking_otherwise() -> None:
    guard = deny(
        "s3:*", Sid="Mine", Condition={"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/x"}}
    )
    [(who, text)] = changes(asked(), layers([allow()], scps=[[allow(), guard]]))
    assert who == "scp" and "Mine" in text
    assert is_the_callers("aws:RequestTag/x") and not is_the_callers("aws:PrincipalTag/x")
    assert not is_the_callers("s3:ExistingObjectTag/security")


def test_an_allow_that_wants_another_value() -> None:
    policies = layers(
        [allow("s3:*", Sid="Tagged", Condition={"StringEquals": {"aws:RequestTag/team": ["red", "blue"]}})]
    )
    [(who, text)] = changes(asked(), policies)
    assert who == "caller" and "= red or blue" in text and "Tagged" in text


def test_several_refusals_are_taken_away_one_by_one() -> None:
    policies = layers([deny("s3:GetObject")], scps=[[allow(), deny("s3:*")]])
    policies.identity = [attached(Form.IDENTITY, deny("s3:GetObject", Sid="No"), source="mine")]
    found = changes(asked(), policies)
    assert [who for who, _ in found] == ["scp", "identity", "identity"]


def test_words_for_keys() -> None:
    assert parameter("sagemaker:CreateProcessingJob", "sagemaker:VpcSubnets") == (
        "pass NetworkConfig.VpcConfig.Subnets (sagemaker:VpcSubnets)"
    )
    assert parameter("sagemaker:CreateModel", "sagemaker:vpcsubnets") == "pass VpcConfig.Subnets (sagemaker:vpcsubnets)"
    assert parameter("x:Y", "x:Unknown") == "ask with x:Unknown"
