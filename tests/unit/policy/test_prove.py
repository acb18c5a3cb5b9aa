"""Proofs: claims about the mission's guardrails, and constructs one at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, decide
from bastide.policy.prove import (
    Proof,
    Scope,
    Situation,
    guardrail_holds,
    guardrail_of,
    no_more_permissive,
    not_granted,
    search,
)
from tests.unit.policy.asking import HOME, OTHER, allow, deny
from tests.unit.policy.test_guardrails import sample

FULL = Attached(Document.parse(json.dumps({"Version": "2012-10-17", "Statement": [allow()]}), Form.SCP), "full")


def document(*statements: dict[str, Any], form: Form = Form.IDENTITY) -> Document:
    return Document.parse(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}), form)


def guarded(number: str, **claim: Any) -> Proof:
    scp = Attached(Document.parse(sample(number), Form.SCP), number)
    guard = Layers((), None, None, None, [[FULL], [FULL, scp]], ())
    return guardrail_holds(guardrail_of(claim, guard))


JOBS = ["sagemaker:CreateTrainingJob", "sagemaker:CreateProcessingJob", "sagemaker:CreateTransformJob"]
TYPES = ["ml.c5.xlarge", "ml.m5.xlarge", "ml.t3.medium"]
NOTEBOOK = "sagemaker:CreateNotebookInstance"
NETWORK = {"Null": {"sagemaker:VpcSubnets": "false", "sagemaker:VpcSecurityGroupIds": "false"}}
CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("20", {"actions": NOTEBOOK, "unless": {"Null": {"sagemaker:VolumeKmsKey": "false"}}}),
    ("22", {"actions": JOBS, "unless": {"Null": {"sagemaker:VolumeKmsKey": "false"}}}),
    ("23", {"actions": JOBS[:1], "unless": {"Bool": {"sagemaker:InterContainerTrafficEncryption": "true"}}}),
    ("24", {"actions": JOBS[:2], "unless": NETWORK}),
    ("25", {"actions": JOBS[:1], "unless": {"Bool": {"sagemaker:NetworkIsolation": "true"}}}),
    (
        "26",
        {
            "actions": "sagemaker:InvokeEndpoint",
            "when": {"Bool": {"aws:ViaAWSService": "false"}, "Null": {"aws:SourceVpc": "true"}},
            "unless": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
        },
    ),
    ("28", {"actions": NOTEBOOK, "unless": {"StringEquals": {"sagemaker:DirectInternetAccess": "Disabled"}}}),
    ("30", {"actions": NOTEBOOK, "unless": {"StringEquals": {"sagemaker:RootAccess": "Disabled"}}}),
    (
        "31",
        {
            "actions": "sagemaker:CreateEndpoint",
            "resources": "arn:aws:sagemaker:*:*:endpoint/*",
            "unless": {"StringEquals": {"aws:RequestTag/environment": "dev"}},
        },
    ),
    ("33", {"actions": NOTEBOOK, "unless": {"ForAllValues:StringEquals": {"sagemaker:InstanceTypes": TYPES}}}),
]


@pytest.mark.parametrize(("number", "claim"), CLAIMS, ids=[number for number, _ in CLAIMS])
def test_a_guardrail_of_the_mission_holds_for_all_requests(number: str, claim: dict[str, Any]) -> None:
    proof = guarded(number, **claim)
    assert (proof.outcome, proof.inexact) == ("proved", ())
    unguarded = guardrail_holds(guardrail_of(claim, Layers((), None, None, None, [[FULL]], ())))
    assert unguarded.outcome == "refuted" and unguarded.request is not None
    beyond = {**claim, "unless": {"Null": {"aws:PrincipalTag/nobody": "false"}}}
    proof = guarded(number, **beyond)
    assert proof.outcome == "refuted", "what the guardrail lets pass is found"


def test_a_printed_guardrail_that_its_correction_closed() -> None:
    """The paper's one Null with two keys lets a job with subnets and no groups pass."""
    printed = deny(
        "sagemaker:CreateTrainingJob",
        Condition={"Null": {"sagemaker:VpcSubnets": "true", "sagemaker:VpcSecurityGroupIds": "true"}},
    )
    scp = Attached(document(printed, form=Form.SCP), "printed")
    claim = {
        "actions": "sagemaker:CreateTrainingJob",
        "unless": NETWORK,
    }
    proof = guardrail_holds(guardrail_of(claim, Layers((), None, None, None, [[FULL, scp]], ())))
    assert proof.outcome == "refuted" and proof.request is not None
    present = {"sagemaker:vpcsubnets", "sagemaker:vpcsecuritygroupids"} & set(proof.request.context)
    assert len(present) == 1


def when(operator: str, key: str, value: Any) -> dict[str, Any]:
    return allow("s3:*", Condition={operator: {key: value}})


OWN, HOMES = allow("s3:*", "arn:aws:s3:::home/${aws:username}/*"), allow("s3:*", "arn:aws:s3:::home/*")
TAG = "aws:ResourceTag/o"
SMALL, LARGE = when("NumericLessThan", "s3:max-keys", "5"), when("NumericLessThan", "s3:max-keys", "10")
NEAR, FAR = when("IpAddress", "aws:SourceIp", "10.1.0.0/16"), when("IpAddress", "aws:SourceIp", "10.0.0.0/8")
EARLY, LATE = (when("DateLessThan", "aws:CurrentTime", year) for year in ("2026-01-01", "2027-01-01"))
ONE, TWO = (when("ForAllValues:StringEquals", "aws:TagKeys", keys) for keys in ("a", ["a", "b"]))
MINE = when("StringEquals", TAG, "${aws:userid}")


@pytest.mark.parametrize(
    ("new", "old", "outcome"),
    [
        ([allow("s3:GetObject")], [allow("s3:Get*")], "proved"),
        ([allow("s3:Get*")], [allow("s3:GetObject")], "refuted"),
        ([allow("s3:*")], [allow("s3:*"), deny("s3:Delete*")], "refuted"),
        ([allow("s3:*"), deny("s3:Delete*")], [allow("s3:*")], "proved"),
        ([OWN], [HOMES], "proved"),
        ([HOMES], [OWN], "refuted"),
        ([OWN], [OWN], "proved"),
        ([when("StringLike", "s3:prefix", "a*")], [when("StringLike", "s3:prefix", "*")], "proved"),
        ([SMALL], [LARGE], "proved"),
        ([LARGE], [SMALL], "refuted"),
        ([NEAR], [FAR], "proved"),
        ([FAR], [NEAR], "refuted"),
        ([ONE], [TWO], "proved"),
        ([TWO], [ONE], "refuted"),
        ([when("ForAnyValue:StringEquals", "aws:TagKeys", "a")], [ONE], "refuted"),
        ([MINE], [MINE], "proved"),
        ([when("StringEqualsIfExists", TAG, "a")], [when("StringEquals", TAG, "a")], "refuted"),
        ([when("StringEquals", TAG, "a")], [when("StringEqualsIfExists", TAG, "a")], "proved"),
        ([EARLY], [LATE], "proved"),
        ([LATE], [EARLY], "refuted"),
        (
            [when("ArnLike", "aws:SourceArn", "arn:aws:s3:::a*")],
            [when("ArnLike", "aws:SourceArn", "arn:aws:s3:::*")],
            "proved",
        ),
    ],
)
def test_one_construct_at_a_time(new: list[Any], old: list[Any], outcome: str) -> None:
    proof = no_more_permissive(document(*new), document(*old), known_actions=["s3:GetObject", "s3:DeleteObject"])
    assert (proof.outcome, proof.inexact) == (outcome, ()), proof.why


def test_what_has_no_encoding_is_named_and_never_skipped() -> None:
    folded = {"StringEqualsIgnoreCase": {"aws:ResourceTag/o": "${aws:username}"}}
    proof = no_more_permissive(
        document(allow("s3:*", Condition=folded), deny("s3:*", Condition=folded)), document(allow("ec2:*"))
    )
    assert proof.outcome == "not proved" and "without regard to case" in proof.why
    proof = no_more_permissive(document(allow("s3:*", Condition=folded)), document(allow("s3:*")))
    assert proof.outcome == "proved", "what holds whatever it says holds"
    assert proof.inexact and "without regard to case" in proof.inexact[0]


def test_a_counterexample_is_a_request_that_people_can_read() -> None:
    proof = not_granted(
        document({**allow("s3:Get*"), "Resource": "arn:aws:s3:::bank/*"}),
        ["s3:GetObject", "s3:PutObject"],
        None,
        known_actions=["s3:GetObject"],
    )
    assert proof.request is not None
    assert (proof.request.action, proof.request.context) == ("s3:GetObject", {})
    assert proof.request.resource.startswith("arn:aws:s3:::bank/")


SESSION = Principal(
    "AssumedRole", HOME, f"arn:aws:sts::{HOME}:assumed-role/dev/s1", f"arn:aws:iam::{HOME}:role/dev", "AROAEXAMPLE:s1"
)
GUEST = Principal(
    "FederatedUser", HOME, f"arn:aws:sts::{HOME}:federated-user/guest", f"arn:aws:iam::{HOME}:user/ann", f"{HOME}:guest"
)
USE = allow(Action="kms:*")


@pytest.mark.parametrize(
    ("who", "grantee", "session", "outcome"),
    [
        (GUEST, GUEST.arn, None, "refuted"),
        (GUEST, GUEST.principal_arn, None, "proved"),
        (GUEST, GUEST.principal_arn, [USE], "refuted"),
        (GUEST, HOME, [USE], "proved"),
        (SESSION, SESSION.arn, [allow(Action="s3:*")], "refuted"),
        (SESSION, SESSION.principal_arn, None, "refuted"),
        (SESSION, SESSION.principal_arn, [allow(Action="s3:*")], "proved"),
        (SESSION, HOME, None, "proved"),
    ],
)
@pytest.mark.parametrize("granted", [True, False])
def test_a_grant_is_enough_in_another_account_but_the_policy_of_the_key_is_not(
    who: Principal, grantee: str, session: list[Any] | None, outcome: str, granted: bool
) -> None:
    names = Attached(document({"Effect": "Allow", "Principal": {"AWS": grantee}, "Action": "kms:*"}, form=Form.KEY), "")
    layers = Layers(
        (), None, None if session is None else [Attached(document(*session, form=Form.SESSION), "")],
        None if granted else names, (), (), resource_kind="key", grants=[names] if granted else [],
    )  # fmt: skip
    key = f"arn:aws:kms:eu-west-1:{OTHER}:key/x"
    scope = Scope(("kms:Decrypt",), (key,))
    wanted = outcome if granted else "proved"
    assert search([Situation("it", who, layers, OTHER)], scope).outcome == wanted
    asked = Request(who, "kms:Decrypt", key, OTHER, {})
    assert decide(asked, layers).allowed is (wanted == "refuted")


def test_a_policy_denies_though_it_is_a_grant_too() -> None:
    key = document(allow(Principal="*"), deny(Principal="*"), form=Form.KEY)
    both = Attached(key, "")
    layers = Layers((), None, None, both, (), (), resource_kind="key", grants=[both])
    assert search([Situation("it", GUEST, layers)], Scope()).outcome == "proved"


def test_time_is_up() -> None:
    who = Principal("User", HOME, f"arn:aws:iam::{HOME}:user/ann")
    layers = Layers((Attached(document(allow()), "it"),), None, None, None, (), ())
    proof = search([Situation("ann", who, layers)], Scope(("s3:GetObject",)), seconds=0)
    assert proof.outcome == "not proved" and "time" in proof.why
    found = search([Situation("ann", who, layers)], Scope(("s3:GetObject",)))
    assert found.request is not None and decide(found.request, layers).allowed


LISTS: list[Any] = [None, (), ("",), ("red",), ("blue",), ("red", "blue"), ("", "red"), ("", ""), "red", "", "blue"]
QUANTIFIED = [f"{prefix}{operator}{suffix}" for prefix in ("", "ForAllValues:", "ForAnyValue:")
              for operator in ("StringEquals", "StringNotLike") for suffix in ("", "IfExists")]  # fmt: skip


@pytest.mark.parametrize("operator", [*QUANTIFIED, "Null"])
def test_lists_and_single_values_are_as_the_evaluator_has_them(operator: str) -> None:
    """Every form of a value under every set operator, for both effects: proved or refuted as it is decided."""
    who = Principal("User", HOME, f"arn:aws:iam::{HOME}:user/ann")
    wanted = "true" if operator == "Null" else "red"
    for effect in (allow, deny):
        policy = document(effect(Condition={operator: {"aws:TagKeys": wanted}}), *([allow()] if effect is deny else []))
        layers = Layers((Attached(policy, "it"),), None, None, None, (), ())
        for value in LISTS:
            keys = {} if value is None else {"aws:tagkeys": value}
            request = Request(who, "s3:GetObject", "arn:aws:s3:::b/a", None, keys)
            scope = Scope((request.action,), (request.resource,), context={"aws:tagkeys": value})
            proof = search([Situation("ann", who, layers)], scope)
            wanted_outcome = "refuted" if decide(request, layers).allowed else "proved"
            assert proof.outcome == wanted_outcome, (effect.__name__, value)
