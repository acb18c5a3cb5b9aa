"""Proactive controls: what a template would make is looked at before it is made.

Rules that have a guardrail's name are its other half, and off when it is. What a template leaves to a parameter without a
default, or to another resource, is not judged here: the guardrail is asked when the call is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.engines.templates import LATER, checked, preview
from bastide.landing.blueprint import Blueprint
from bastide.landing.rendering import Stack

_Found = Iterator[str]
_Rule = Callable[[Mapping[str, Any], Blueprint], _Found]


@dataclass(frozen=True, slots=True)
class Violation:
    """A resource that a rule refuses, and why."""

    stack: str
    account: str
    resource: str
    type: str
    rule: str
    why: str


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _encrypted(p: Mapping[str, Any], _: Blueprint) -> _Found:
    rules = (p.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration", ())
    kinds = [(one.get("ServerSideEncryptionByDefault") or {}).get("SSEAlgorithm") for one in rules]
    if not kinds or any(kind not in ("aws:kms", "aws:kms:dsse", LATER) for kind in kinds):
        yield "BucketEncryption has no default of aws:kms"


def _private(p: Mapping[str, Any], _: Blueprint) -> _Found:
    held = p.get("PublicAccessBlockConfiguration") or {}
    names = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    lacking = [name for name in names if held.get(name) not in (True, "true", LATER)]
    if lacking:
        yield f"PublicAccessBlockConfiguration lacks {', '.join(lacking)}"
    if p.get("AccessControl") not in (None, "Private", "LogDeliveryWrite"):
        yield f"AccessControl is {p['AccessControl']}"


def _versioned(p: Mapping[str, Any], _: Blueprint) -> _Found:
    if (p.get("VersioningConfiguration") or {}).get("Status") != "Enabled":
        yield "VersioningConfiguration is not Enabled"


def _rotated(p: Mapping[str, Any], _: Blueprint) -> _Found:
    if p.get("KeySpec", "SYMMETRIC_DEFAULT") == "SYMMETRIC_DEFAULT" and p.get("EnableKeyRotation") not in (
        True,
        "true",
    ):
        yield "EnableKeyRotation is not true"


def _open(p: Mapping[str, Any], _: Blueprint) -> _Found:
    for one in (*(p.get("SecurityGroupIngress") or ()), p):
        for name in ("CidrIp", "CidrIpv6"):
            if one.get(name) in ("0.0.0.0/0", "::/0"):
                yield f"{one[name]} may come in"


def _endpoint(p: Mapping[str, Any], _: Blueprint) -> _Found:
    if not p.get("PolicyDocument"):
        yield "PolicyDocument is missing: everything passes"


def _statements(document: Any) -> list[Mapping[str, Any]]:
    return [one for one in _listed((document or {}).get("Statement")) if isinstance(one, Mapping)]


def _documents(p: Mapping[str, Any]) -> Iterator[Any]:
    yield p.get("PolicyDocument")
    for one in p.get("Policies") or ():
        yield one.get("PolicyDocument")
    yield p.get("InlinePolicy")


def _administrator(p: Mapping[str, Any], _: Blueprint) -> _Found:
    for document in _documents(p):
        if not isinstance(document, Mapping):
            continue
        for one in _statements(document):
            if (
                one.get("Effect") == "Allow"
                and "*" in _listed(one.get("Action"))
                and "*" in _listed(one.get("Resource"))
            ):
                yield "a statement allows everything"
    for arn in (*(p.get("ManagedPolicyArns") or ()), *(p.get("ManagedPolicies") or ())):
        if isinstance(arn, str) and arn.endswith(("/AdministratorAccess", "/PowerUserAccess", "/IAMFullAccess")):
            yield f"{arn.rpartition('/')[2]} is attached"


def _trusting(p: Mapping[str, Any], _: Blueprint) -> _Found:
    for one in _statements(p.get("AssumeRolePolicyDocument")):
        given = one.get("Principal")
        named = _listed(given.get("AWS")) if isinstance(given, Mapping) else _listed(given)
        if one.get("Effect") == "Allow" and "*" in named and not one.get("Condition"):
            yield "anybody may assume the role"


def _never(why: str) -> _Rule:
    def rule(_: Mapping[str, Any], __: Blueprint) -> _Found:
        yield why

    return rule


def _immutable(p: Mapping[str, Any], _: Blueprint) -> _Found:
    excluded = p.get("ImageTagMutabilityExclusionFilters") or ()
    filters = [one.get("ImageTagMutabilityExclusionFilterValue") for one in excluded]
    stable = p.get("ImageTagMutability") == "IMMUTABLE_WITH_EXCLUSION" and not any("*" in str(one) for one in filters)
    if not stable and p.get("ImageTagMutability") not in ("IMMUTABLE", LATER):
        yield "ImageTagMutability is not IMMUTABLE: a tag could be moved after its approval"


def _types(kind: str, *names: str) -> _Rule:
    def rule(p: Mapping[str, Any], blueprint: Blueprint) -> _Found:
        found = [p.get(name) for name in names]
        found += [one.get("InstanceType") for one in p.get("ProductionVariants") or () if isinstance(one, Mapping)]
        for one in found:
            if isinstance(one, str) and one not in blueprint.instances[kind]:
                yield f"{one} is not among {', '.join(blueprint.instances[kind])}"

    return rule


def _given(*names: str, wanted: str = "") -> _Rule:
    def rule(p: Mapping[str, Any], _: Blueprint) -> _Found:
        for name in names:
            if p.get(name) is None or (wanted and p[name] not in (wanted, LATER)):
                yield f"{name} is not {wanted or 'given'}"

    return rule


def _tags(p: Mapping[str, Any], blueprint: Blueprint) -> _Found:
    held = {one.get("Key") for one in p.get("Tags") or () if isinstance(one, Mapping)}
    lacking = [key for key in blueprint.required_tags if key not in held]
    if lacking:
        yield f"the tags {', '.join(lacking)} are missing"


_MAKING: Final = ("Model", "EndpointConfig", "Endpoint", "NotebookInstance", "Domain")
_RULES: Final[tuple[tuple[str, tuple[str, ...], _Rule], ...]] = (
    ("bucket-encryption", ("AWS::S3::Bucket",), _encrypted),
    ("public-buckets", ("AWS::S3::Bucket",), _private),
    ("bucket-versions", ("AWS::S3::Bucket",), _versioned),
    ("key-rotation", ("AWS::KMS::Key",), _rotated),
    ("open-groups", ("AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupIngress"), _open),
    ("endpoint-policies", ("AWS::EC2::VPCEndpoint",), _endpoint),
    ("internet", ("AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::EgressOnlyInternetGateway",
     "AWS::EC2::EIP"), _never("nothing here has a way to the internet")),
    ("administrators", ("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy",
     "AWS::IAM::Group", "AWS::SSO::PermissionSet"), _administrator),
    ("trust", ("AWS::IAM::Role",), _trusting),
    ("users", ("AWS::IAM::User", "AWS::IAM::AccessKey"), _never("people sign in, and programs take on roles")),
    ("immutable-images", ("AWS::ECR::Repository",), _immutable),
    ("vpc-only", ("AWS::SageMaker::Model",), _given("VpcConfig")),
    ("vpc-only", ("AWS::SageMaker::NotebookInstance",), _given("SubnetId", "SecurityGroupIds")),
    ("notebook-encryption", ("AWS::SageMaker::NotebookInstance", "AWS::SageMaker::Domain"), _given("KmsKeyId")),
    ("job-encryption", ("AWS::SageMaker::EndpointConfig",), _given("KmsKeyId")),
    ("notebook-internet", ("AWS::SageMaker::NotebookInstance",),
     _given("DirectInternetAccess", "RootAccess", wanted="Disabled")),
    ("notebook-internet", ("AWS::SageMaker::Domain",), _given("AppNetworkAccessType", wanted="VpcOnly")),
    ("instance-types", ("AWS::SageMaker::NotebookInstance",), _types("notebooks", "InstanceType")),
    ("instance-types", ("AWS::SageMaker::EndpointConfig",), _types("endpoints")),
    ("required-tags", tuple(f"AWS::SageMaker::{one}" for one in _MAKING), _tags),
)  # fmt: skip
RULES: Final = {
    rule: ", ".join(sorted({one.removeprefix("AWS::") for name, types, _ in _RULES if name == rule for one in types}))
    for rule, _, _ in _RULES
}
"""The names of all rules, and the types that each looks at."""


def violations(stacks: Iterable[Stack], blueprint: Blueprint) -> list[Violation]:
    """What the rules refuse in templates; raises Refused for one that is no template."""
    found = []
    for stack in stacks:
        template = checked(dict(stack.template))
        defaults = {name: one["Default"] for name, one in template.parameters.items() if "Default" in one}
        pseudo = {"AWS::Region": blueprint.region, "AWS::Partition": "aws"}
        scope = template.scope({**defaults, **pseudo})
        # Known as little as the id of a resource:
        scope.resources |= (set(template.parameters) - set(defaults)) | {
            "AWS::AccountId",
            "AWS::StackId",
            "AWS::StackName",
        }
        tags = [{"Key": key, "Value": one} for key, one in stack.tags.items()]
        for logical, one in template.resources.items():
            properties = preview(dict(one.properties), scope)
            properties = {**properties, "Tags": [*_listed(properties.get("Tags")), *tags]}
            for rule, types, look in _RULES:
                if one.type in types and rule not in blueprint.off:
                    found += [
                        Violation(stack.name, stack.account, logical, one.type, rule, why)
                        for why in look(properties, blueprint)
                    ]
    return found
