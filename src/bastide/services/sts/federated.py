"""Taking on a role as somebody whom an identity provider vouches for: what both kinds of providers have in common.

The caller brings no signature; who asks follows from the verified assertion, before the first question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bastide.domain import Arn, Refused
from bastide.engines.idp import Rejected
from bastide.kernel import Ask, Asked, Authorised, Call, Caller, Calls, Output, member
from bastide.kernel.context import tag_keys
from bastide.services.sts import role as roles
from bastide.store import View

_CODES: Final = {
    "invalid": ("InvalidIdentityToken", 400),
    "expired": ("ExpiredTokenException", 400),
    "refused": ("IDPRejectedClaim", 403),
    "unreachable": ("IDPCommunicationError", 400),
}


def refused(rejected: Rejected) -> Refused:
    """The refusal that STS has for an assertion that is not believed."""
    code, status = _CODES[rejected.why]
    return Refused(code, rejected.message, status)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a verified assertion names, and what it asks for the session.

    caller: of the kind Federated, in the account of provider and role. context: condition keys for the questions.
    name: the session's. keys: condition keys that stay with the session. told: the answer's members about the assertion.
    """

    caller: Caller
    name: str
    context: Mapping[str, str | tuple[str, ...]]
    tags: Mapping[str, str]
    transitive: tuple[str, ...]
    source_identity: str
    provider: str
    keys: Mapping[str, str | tuple[str, ...]]
    told: Mapping[str, str]
    most_seconds: int | None = None
    ends: int | None = None


def identify(calls: Calls, view: View, call: Call) -> Caller:
    """The caller that `prepare` found; raises Refused where it did not run."""
    found = call.prepared
    if not isinstance(found, Identity):
        raise Refused("InvalidIdentityToken", "The identity token was not verified.")
    context: dict[str, str | tuple[str, ...]] = dict(found.context)
    context["sts:rolesessionname"] = found.name
    if found.tags:
        context.update(tag_keys("aws:requesttag/", found.tags.items()))
        context["aws:tagkeys"] = tuple(found.tags)
    if found.transitive:
        context["sts:transitivetagkeys"] = found.transitive
    if found.source_identity:
        context["sts:sourceidentity"] = found.source_identity
    call.context.update(context)
    return found.caller


def asks(action: str) -> list[Ask]:
    """The questions of taking on a role with an assertion; who calls and what they bring stands in the context."""
    arn = member("RoleArn")

    def of(asked: Asked) -> Identity:
        found: Identity = asked.call.prepared
        return found

    return [
        Ask(action, arn),
        Ask("sts:TagSession", arn, when=lambda asked: bool(of(asked).tags)),
        Ask("sts:SetSourceIdentity", arn, when=lambda asked: bool(of(asked).source_identity)),
    ]


def taken_on(a: Authorised, view: View) -> Output:
    """The session, with what the answer tells of the assertion."""
    if a.input.get("MinimumSessionTokenSize"):
        raise roles.invalid("MinimumSessionTokenSize is not supported by Bastide yet.")
    found: Identity = a.call.prepared
    arn = roles.role_arn(a.input["RoleArn"])
    role = roles.role_of(view, arn)
    if role is None:
        raise not_authorised(a.operation.name)
    length = roles.seconds(a, role)
    if found.most_seconds is not None:
        length = min(length, found.most_seconds)
    expires = roles.after(a, length)
    if found.ends is not None:
        expires = min(expires, found.ends)
    output = roles.begin(
        a,
        view,
        arn,
        role,
        found.name,
        expires=expires,
        tags=found.tags,
        transitive=found.transitive,
        source_identity=found.source_identity,
        provider=found.provider,
        keys=found.keys,
    )
    return {**output, **found.told}


def not_authorised(operation: str) -> Refused:
    """AWS's only word to whom a role does not trust."""
    return Refused("AccessDenied", f"Not authorized to perform sts:{operation}", 403)


def role_of_call(call: Call) -> Arn:
    """The ARN of the role that a call names; raises Refused (ValidationError)."""
    arn = roles.role_arn(str(call.input["RoleArn"]))
    if not arn.account:
        raise roles.invalid(f"{arn} is invalid")
    return arn
