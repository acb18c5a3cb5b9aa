"""The request context: the condition keys of a call, lower-case, before any question adds its own.

Source: IAM User Guide, "AWS global condition context keys".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bastide.domain import MICROS, Arn, iso
from bastide.kernel.call import Call
from bastide.kernel.identity import SIGNED, Endpoint

Context = dict[str, "str | tuple[str, ...]"]

_AUTH_TYPES = {"query": "REST-QUERY-STRING", "header": "REST-HEADER", "form": "POST"}
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
    if call.region:
        context["aws:requestedregion"] = call.region
    if request.via:
        context["aws:calledvia"] = request.via
        context["aws:calledviafirst"] = request.via[0]
        context["aws:calledvialast"] = request.via[-1]
    elif endpoint is not None:
        context["aws:sourcevpce"] = endpoint.id
        context["aws:sourcevpc"] = endpoint.vpc
        context["aws:vpcsourceip"] = request.source_ip
        context["aws:vpceaccount"] = endpoint.account
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
    if request.signed:
        context["s3:authtype"] = _AUTH_TYPES[request.signed]
        context["s3:signatureversion"] = "AWS4-HMAC-SHA256"
        if request.signed_at:
            context["s3:signatureage"] = str(max(0, (request.at - request.signed_at) // 1000))
    tags = call.input.get("Tags") or call.input.get("tags")
    if tags:
        _request_tags(context, tags)
    if "TagKeys" in call.input:
        context["aws:tagkeys"] = tuple(str(key) for key in call.input["TagKeys"])
    context.update(call.context)
    return context


def _request_tags(context: Context, tags: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    if isinstance(tags, Mapping):
        pairs = [(str(key), str(value)) for key, value in tags.items()]
    else:
        pairs = [
            (str(tag.get("Key", tag.get("TagKey", ""))), str(tag.get("Value", tag.get("TagValue", ""))))
            for tag in tags
            if isinstance(tag, Mapping)
        ]
    context.update(tag_keys("aws:requesttag/", pairs))
    context["aws:tagkeys"] = tuple(key for key, _ in pairs)


def resource_keys(context: Context, resource: str, account: str, tags: Mapping[str, str], service: str) -> None:
    """Adds the keys of the resource that a question is about."""
    if account:
        context["aws:resourceaccount"] = account
    for key, value in tag_keys("", tags.items()).items():
        context["aws:resourcetag/" + key] = value
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
