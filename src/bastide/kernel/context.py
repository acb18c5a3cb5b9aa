"""The request context: the condition keys of a call, lower-case, before any question adds its own.

Source: IAM User Guide, "AWS global condition context keys".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import MICROS, Arn, iso
from bastide.kernel.call import Call
from bastide.kernel.identity import SIGNED, Endpoint

Context = dict[str, "str | tuple[str, ...]"]

GLOBAL: Final[Mapping[str, str]] = {
    "aws:CalledVia": "a service calls on the caller's behalf",
    "aws:CalledViaFirst": "a service calls on the caller's behalf",
    "aws:CalledViaLast": "a service calls on the caller's behalf",
    "aws:CurrentTime": "always",
    "aws:EpochTime": "always",
    "aws:FederatedProvider": "a session that began at an identity provider",
    "aws:MultiFactorAuthAge": "a session that a second factor was shown for",
    "aws:MultiFactorAuthPresent": "a session",
    "aws:PrincipalAccount": "a user, a session, the root",
    "aws:PrincipalArn": "a user, a session, the root; of a role session the role's ARN",
    "aws:PrincipalIsAWSService": "always",
    "aws:PrincipalOrgID": "the caller's account is in an organisation",
    "aws:PrincipalOrgPaths": "the caller's account is in an organisation",
    "aws:PrincipalServiceName": "a service by itself",
    "aws:PrincipalServiceNamesList": "a service by itself",
    "aws:PrincipalTag/${TagKey}": "tags of the user or role, and of the session",
    "aws:PrincipalType": "always",
    "aws:referer": "the header is sent",
    "aws:RequestTag/${TagKey}": "the request brings tags",
    "aws:RequestedRegion": "always; of a global service us-east-1",
    "aws:ResourceAccount": "the resource's owner is known",
    "aws:ResourceOrgID": "the owner's account is in an organisation",
    "aws:ResourceOrgPaths": "the owner's account is in an organisation",
    "aws:ResourceTag/${TagKey}": "tags of the resource, read where the call is handled",
    "aws:SecureTransport": "always",
    "aws:SourceAccount": "a service by itself: the account it acts for",
    "aws:SourceArn": "a service by itself, for something that has an ARN",
    "aws:SourceIdentity": "a session that has one",
    "aws:SourceIp": "the caller itself, through no VPC endpoint",
    "aws:SourceOrgID": "a service by itself, for an account of an organisation",
    "aws:SourceOrgPaths": "a service by itself, for an account of an organisation",
    "aws:SourceVpc": "through a VPC endpoint",
    "aws:SourceVpcArn": "through a VPC endpoint whose region is known",
    "aws:SourceVpce": "through a VPC endpoint",
    "aws:TagKeys": "the request brings tags, or names tags to be removed",
    "aws:TokenIssueTime": "a session",
    "aws:UserAgent": "the header is sent",
    "aws:userid": "always",
    "aws:username": "a user",
    "aws:ViaAWSService": "always",
    "aws:VpceAccount": "through a VPC endpoint",
    "aws:VpceOrgID": "through a VPC endpoint of an account in an organisation",
    "aws:VpceOrgPaths": "through a VPC endpoint of an account in an organisation",
    "aws:VpcSourceIp": "through a VPC endpoint",
    "codebuild:BuildArn": "a session that CodeBuild began for a build",
    "codebuild:ProjectArn": "a session that CodeBuild began for a project",
    "lambda:SourceFunctionArn": "a session that Lambda began for a function",
}
"""The keys that the kernel fills for every operation, and when. Source: IAM User Guide, "AWS global condition context
keys"."""
FORWARDED: Final[Mapping[str, str]] = {"kms:ViaService": "a service uses the key on the caller's behalf"}
"""Keys that a service adds when it calls another one; callers cannot."""
TAG_MEMBERS: Final = ("Tags", "tags", "TagsList")
"""Members of an input that bring tags."""
TAG_KEY_MEMBERS: Final = ("TagKeys", "tagKeys")
"""Members of an input that name tags."""
OWN_TAGS: Final = frozenset(
    {"autoscaling", "ec2", "ecr", "ecs", "elasticloadbalancing", "iam", "ram", "sagemaker", "secretsmanager", "ssm"}
)
"""Services that have their own name of a resource's tags, beside ``aws:ResourceTag``: ``sagemaker:ResourceTag/${TagKey}``.
Source: Service Authorization Reference."""

_TYPES = {
    "User": "User",
    "AssumedRole": "AssumedRole",
    "FederatedUser": "FederatedUser",
    "Federated": "FederatedUser",
    "IdentityCenterUser": "IdentityCenterUser",
    "Root": "Account",
    "Service": "AWSService",
    "Anonymous": "Anonymous",
}


def base(
    call: Call,
    place: tuple[str, str] | None,
    endpoint: Endpoint | None = None,
    endpoint_place: tuple[str, str] | None = None,
) -> Context:
    """Keys of the principal and of the request.

    place: organisation id and path of the principal's account (of the account it acts for, if it is a service).
    endpoint: the VPC endpoint that the call came through, and the place of its account.
    """
    caller, request = call.caller, call.request
    context: Context = {
        "aws:currenttime": iso(request.at),
        "aws:epochtime": str(request.at // MICROS),
        "aws:securetransport": "true" if request.secure else "false",
        "aws:principaltype": _TYPES[caller.kind],
        "aws:viaawsservice": "true" if request.via else "false",
        "aws:principalisawsservice": "true" if caller.kind == "Service" else "false",
    }
    if caller.user_id:
        context["aws:userid"] = caller.user_id
    if request.user_agent:
        context["aws:useragent"] = request.user_agent
    if request.referer:
        context["aws:referer"] = request.referer
    if call.region:
        context["aws:requestedregion"] = call.region
    if request.via:
        context["aws:calledvia"] = request.via
        context["aws:calledviafirst"] = request.via[0]
        context["aws:calledvialast"] = request.via[-1]
    elif endpoint is not None:
        context["aws:sourcevpce"] = endpoint.id
        context["aws:sourcevpc"] = endpoint.vpc
        if request.source_ip != request.user_agent:  # a service that acts for somebody has no address there
            context["aws:vpcsourceip"] = request.source_ip
        context["aws:vpceaccount"] = endpoint.account
        if endpoint.region:
            context["aws:sourcevpcarn"] = f"arn:aws:ec2:{endpoint.region}:{endpoint.account}:vpc/{endpoint.vpc}"
        if endpoint_place is not None:
            context["aws:vpceorgid"] = endpoint_place[0]
            context["aws:vpceorgpaths"] = (endpoint_place[1],)
    elif request.source_ip and request.source_ip[-1] != "m":  # a service's name ends in amazonaws.com, no address does
        context["aws:sourceip"] = request.source_ip
    if caller.kind == "Service":
        context["aws:principalservicename"] = caller.arn
        context["aws:principalservicenameslist"] = (caller.arn,)
        context["aws:sourceaccount"] = caller.account
        if caller.source_arn:
            context["aws:sourcearn"] = caller.source_arn
        if place is not None:
            context["aws:sourceorgid"] = place[0]
            context["aws:sourceorgpaths"] = (place[1],)
    elif caller.kind in SIGNED:
        context["aws:principalarn"] = caller.arn if caller.kind == "FederatedUser" else caller.principal_arn
        context["aws:principalaccount"] = caller.account
        if caller.kind == "User":
            context["aws:username"] = caller.name
    for key, value in caller.tags.items():
        context["aws:principaltag/" + key.lower()] = value
    session = caller.session
    if session is not None:
        context["aws:tokenissuetime"] = iso(session.issued)
        context["aws:multifactorauthpresent"] = "true" if session.mfa else "false"
        if session.mfa:
            context["aws:multifactorauthage"] = str(max(0, (request.at - session.mfa) // MICROS))
        if session.provider:
            context["aws:federatedprovider"] = session.provider
        context.update(session.keys)
        if session.source_identity:
            context["aws:sourceidentity"] = session.source_identity
    if place is not None and caller.kind in SIGNED:
        context["aws:principalorgid"] = place[0]
        context["aws:principalorgpaths"] = (place[1],)
    for member in TAG_MEMBERS:
        tags = call.input.get(member)
        if tags:
            _request_tags(context, tags)
    for member in TAG_KEY_MEMBERS:
        if call.input.get(member):
            context["aws:tagkeys"] = tuple(str(key) for key in call.input[member])
    context.update(call.context)
    return context


def _request_tags(context: Context, tags: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    pairs = _pairs(tags)
    context.update(tag_keys("aws:requesttag/", pairs))
    context["aws:tagkeys"] = tuple(key for key, _ in pairs)


def _pairs(tags: Any) -> list[tuple[str, str]]:
    if isinstance(tags, Mapping):
        return [(str(key), str(value)) for key, value in tags.items()]
    return [
        (_first(tag, ("Key", "TagKey", "key")), _first(tag, ("Value", "TagValue", "value")))
        for tag in tags
        if isinstance(tag, Mapping)
    ]


def _first(tag: Mapping[str, Any], names: Sequence[str]) -> str:
    """A part of a tag, however the service names it."""
    return str(next((tag[name] for name in names if name in tag), ""))


_TAGGED = (
    ("Tags",),
    ("tags",),
    ("TagsList",),
    ("AddTags",),
    ("Tagging", "TagSet"),
    ("CreateBucketConfiguration", "Tags"),
)
"""Where operations take tags."""


def given_tags(input: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The tags that a call brings for the resource it is about, as they were written."""
    found: list[tuple[str, str]] = []
    for path in _TAGGED:
        here: Any = input
        for member in path:
            here = here.get(member) if isinstance(here, Mapping) else None
        if here:
            found += _pairs(here)
    return found


def resource_keys(context: Context, resource: str, account: str, tags: Mapping[str, str], service: str) -> None:
    """Adds the keys of the resource that a question is about."""
    if account:
        context["aws:resourceaccount"] = account
    for key, value in tag_keys("", tags.items()).items():
        context["aws:resourcetag/" + key] = value
        if service in OWN_TAGS:
            context[service + ":resourcetag/" + key] = value


def tag_keys(prefix: str, tags: Iterable[tuple[str, str]]) -> Context:
    """Condition keys of tags. Keys of tags differ in case and condition keys do not: two tags that become one key give it
    both values, so that what is allowed holds for both and what is denied for either."""
    found: Context = {}
    for key, value in tags:
        name = prefix + key.lower()
        held = found.get(name)
        if held is None:
            found[name] = value
        elif value not in ((held,) if isinstance(held, str) else held):
            found[name] = (*((held,) if isinstance(held, str) else held), value)
    return found


def service_of(resource: str, action: str) -> str:
    """The prefix of a service's own condition keys."""
    return action.partition(":")[0].lower() if resource == "*" else Arn.parse(resource).service
