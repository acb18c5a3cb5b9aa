"""What operations ask is what the published Service Authorization Reference documents, or it is named with its reason."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from bastide.domain import MICROS
from bastide.kernel import Ask, Call, Caller, Endpoint, Kind, Operation, Registry, Request, Service, Session
from bastide.kernel.context import FORWARDED, GLOBAL, base, resource_keys
from bastide.main.catalogue import SERVICES
from tests.guard.reference import authorization

REGISTRY = Registry(SERVICES)
DOCUMENTED_GLOBALLY = [
    "aws:AssumedRoot", "aws:CalledVia", "aws:CalledViaAWSMCP", "aws:CalledViaFirst", "aws:CalledViaLast",
    "aws:ChatbotSourceArn", "aws:CurrentTime", "aws:Ec2InstanceSourcePrivateIPv4", "aws:Ec2InstanceSourceVpc",
    "aws:EpochTime", "aws:FederatedProvider", "aws:IsMcpServiceAction", "aws:MultiFactorAuthAge",
    "aws:MultiFactorAuthPresent", "aws:PrincipalAccount", "aws:PrincipalArn", "aws:PrincipalIsAWSService",
    "aws:PrincipalOrgID", "aws:PrincipalOrgPaths", "aws:PrincipalServiceName", "aws:PrincipalServiceNamesList",
    "aws:PrincipalTag/${TagKey}", "aws:PrincipalType", "aws:referer", "aws:RequestedRegion",
    "aws:RequestTag/${TagKey}", "aws:ResourceAccount", "aws:ResourceOrgID", "aws:ResourceOrgPaths",
    "aws:ResourceTag/${TagKey}", "aws:SecureTransport", "aws:SourceAccount", "aws:SourceArn", "aws:SourceIdentity",
    "aws:SourceIp", "aws:SourceOrgID", "aws:SourceOrgPaths", "aws:SourceVpc", "aws:SourceVpcArn", "aws:SourceVpce",
    "aws:TagKeys", "aws:TokenIssueTime", "aws:UserAgent", "aws:userid", "aws:username", "aws:ViaAWSMCPService",
    "aws:ViaAWSService", "aws:VpceAccount", "aws:VpceOrgID", "aws:VpceOrgPaths", "aws:VpcSourceIp",
    "codebuild:BuildArn", "codebuild:ProjectArn", "ec2:RoleDelivery", "ec2:SourceInstanceArn",
    "glue:CredentialIssuingService", "glue:RoleAssumedBy", "identitystore:UserId", "lambda:SourceFunctionArn",
    "ssm:SourceInstanceArn",
]  # fmt: skip
"""IAM User Guide, "AWS global condition context keys"."""
SECTIONS = {
    "gaps": "the reference documents a key that is not filled",
    "extensions": "a key is filled that the reference does not document",
    "resources": "the resource types are not the reference's",
    "actions": "the reference does not know the action",
    "dependent": "a dependent action is not asked",
}


@cache
def _compared() -> tuple[list[authorization.Entry], list[authorization.Difference]]:
    """The lines of `docs/authorization.yaml`, of which those are marked that are used, and the differences."""
    told = authorization.entries()
    return told, authorization.differences(REGISTRY, told)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_difference_is_silent(section: str) -> None:
    silent = [
        f"{one.question.name} ({one.question.action}): {one.what}"
        for one in _compared()[1]
        if one.section == section and one.entry is None
    ]
    assert not silent, f"{SECTIONS[section]}, and docs/authorization.yaml does not say why:\n" + "\n".join(silent)


def test_every_question_declares_what_it_fills() -> None:
    assert not authorization.undeclared(REGISTRY)


def test_no_reason_is_idle() -> None:
    idle = [f"{one.section}: {one.where} {one.what}" for one in _compared()[0] if not one.used]
    assert not idle, "docs/authorization.yaml explains what is no difference (any more):\n" + "\n".join(idle)


def test_every_reason_is_a_sentence() -> None:
    for reason in [one.reason for one in authorization.entries()] + list(authorization.global_gaps().values()):
        assert len(reason.split()) >= 3 and reason[-1] in ".)", reason


def test_every_operation_is_there() -> None:
    asked = {one.name for one in authorization.everything(REGISTRY)}
    assert asked == {f"{service}:{name}" for service, name in REGISTRY.operations}
    unknown = [f"{one.name} ({one.action})" for one in authorization.everything(REGISTRY) if not one.types]
    assert not unknown, f"no example (scripts/authorization.py) names their resources: {unknown}"


def _without(operation: Operation, number: int, ask: Ask) -> Registry:
    """A registry of one operation, one of whose questions is another one."""
    kind = Kind("Example", service=operation.service, arn="example/{}")
    kind.operations.append(
        replace(operation, asks=(*operation.asks[:number], ask, *operation.asks[number + 1 :]), global_=False)
    )
    prefix = REGISTRY.services[operation.service].prefix
    return Registry([Service(operation.service, kinds=[kind], prefix=prefix)])


def test_the_comparison_sees_what_is_missing() -> None:
    told = authorization.entries()
    operation = REGISTRY.operations["sagemaker", "CreateTrainingJob"]
    ask = operation.asks[0]
    lost = {key: given for key, given in ask.given.items() if key != "sagemaker:VolumeKmsKey"}
    cases = {
        ("gaps", "sagemaker:VolumeKmsKey"): replace(ask, given=lost),
        ("extensions", "sagemaker:VolumeKey"): replace(ask, given={**ask.given, "sagemaker:VolumeKey": lambda _: "x"}),
        ("resources", "training-job"): replace(ask, about=lambda _: ("*",)),
        ("resources", "model"): replace(ask, about=lambda _: ("arn:aws:sagemaker:us-east-1:111122223333:model/m",)),
        ("actions", "sagemaker:CreateTrainJob"): replace(ask, action="sagemaker:CreateTrainJob"),
    }
    for (section, what), changed in cases.items():
        found = authorization.differences(_without(operation, 0, changed), told)
        assert any((one.section, one.what, one.entry) == (section, what, None) for one in found), (section, what)
    asks_less = replace(operation, asks=operation.asks[:1])
    found = authorization.differences(_without(asks_less, 0, ask), told)
    assert {one.what for one in found if one.section == "dependent"} == {"iam:PassRole", "sagemaker:AddTags"}


# -- global keys -------------------------------------------------------------------------------------------------------


def test_every_global_key_is_filled_or_named() -> None:
    gaps = authorization.global_gaps()
    assert not set(GLOBAL) & set(gaps)
    assert {*GLOBAL, *gaps} == set(DOCUMENTED_GLOBALLY)


ACCOUNT = "111122223333"


def _call(caller: Caller, **request: object) -> Call:
    operation = REGISTRY.operations["sagemaker", "CreateModelPackageGroup"]
    given = {"ModelPackageGroupName": "g", "Tags": [{"Key": "team", "Value": "red"}]}
    made = Request("id", 1_000_000 * MICROS, "192.0.2.1", "client", True, "json", **{"referer": "there", **request})  # type: ignore[arg-type]
    return Call(operation, given, caller, ACCOUNT, "us-east-1", made)


def _contexts() -> dict[str, dict[str, object]]:
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/role/session"
    own = {
        "x:sub": "ann", "lambda:sourcefunctionarn": "arn", "codebuild:projectarn": "arn", "codebuild:buildarn": "arn"
    }  # fmt: skip
    session = Session(
        "id", "ASIA", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/role", "AROA", "session", 0, 9, source_identity="ann",
        mfa=999_000 * MICROS, provider="arn:aws:iam::111122223333:oidc-provider/x", keys=own,
    )  # fmt: skip
    role = Caller("AssumedRole", ACCOUNT, arn, session.role, "AROA:session", "session", "", {"Team": "red"}, session)
    user = Caller("User", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/u", f"arn:aws:iam::{ACCOUNT}:user/u", "AIDA", "u")
    service = "sagemaker.amazonaws.com"
    machine = Caller("Service", ACCOUNT, service, service, service, service, source_arn="arn:aws:sagemaker:::x")
    place = ("o-x", "o-x/r-y/")
    endpoint = Endpoint("vpce-1", "vpc-1", ACCOUNT, frozenset({"sagemaker"}), None, "us-east-1")
    return {
        "session": dict(base(_call(role, vpce="vpce-1"), place, endpoint, place)),
        "user": dict(base(_call(user), None)),
        "service": dict(base(_call(machine), place)),
        "forwarded": dict(base(_call(user, via=("a.amazonaws.com", "b.amazonaws.com")), place, endpoint, place)),
    }


def test_the_list_of_global_keys_is_what_is_filled() -> None:
    found: set[str] = set()
    contexts = _contexts()
    for context in contexts.values():
        found |= {authorization.plain(key.replace("tag/team", "tag/${TagKey}")) for key in context}
    by_authorise = {"aws:resourceorgid", "aws:resourceorgpaths"}
    resource: dict[str, object] = {}
    resource_keys(resource, "arn:aws:sagemaker:::x", ACCOUNT, {"team": "red"}, "sagemaker")  # type: ignore[arg-type]
    found |= {key.replace("tag/team", "tag/*") for key in resource if key.startswith("aws:")}
    assert found - {"x:sub"} | by_authorise == {authorization.plain(key) for key in GLOBAL}
    assert not any(key.lower() in found for key in FORWARDED)


def test_global_keys_have_the_values_that_the_user_guide_says() -> None:
    contexts = _contexts()
    assert contexts["session"]["aws:sourcevpcarn"] == f"arn:aws:ec2:us-east-1:{ACCOUNT}:vpc/vpc-1"
    assert contexts["session"]["aws:multifactorauthage"] == "1000"
    assert contexts["session"]["aws:principalarn"] == f"arn:aws:iam::{ACCOUNT}:role/role"
    assert (contexts["user"]["aws:sourceip"], contexts["user"]["aws:referer"]) == ("192.0.2.1", "there")
    assert "aws:sourceip" not in contexts["session"]
    forwarded = contexts["forwarded"]
    assert (forwarded["aws:calledviafirst"], forwarded["aws:calledvialast"]) == ("a.amazonaws.com", "b.amazonaws.com")
    assert not {"aws:sourceip", "aws:sourcevpce", "aws:vpcsourceip"} & forwarded.keys()
    assert contexts["service"]["aws:sourcearn"] == "arn:aws:sagemaker:::x"
    assert contexts["service"]["aws:sourceaccount"] == ACCOUNT
    assert "aws:principalarn" not in contexts["service"]
