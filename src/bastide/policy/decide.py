"""The decision: may this principal do this action to this resource?

Source: IAM User Guide, "Policy evaluation logic", "How AWS enforcement code logic evaluates requests", "Cross-account
policy evaluation logic", "Permissions boundaries for IAM entities"; AWS KMS Developer Guide, "Key policies"; IAM User
Guide, "Update a role trust policy". In the order of this module:

1. A Deny that applies in any policy of any layer refuses.
2. Every level of service control policies has to allow, and the policy of the VPC endpoint if the call came through one.
   (Resource control policies can only deny: RCPFullAWSAccess is attached everywhere and cannot be detached.)
3. What grants is the policy of the resource, the identity-based policies, or both:

   - A principal without identity-based policies (a service, a federated identity, nobody) needs the resource's policy.
   - Within one account, a grant of the resource's policy to the user, to the session or to everybody is enough; a grant
     to the role of a session is enough within the role's boundary and the session's policies; otherwise the
     identity-based policies, the boundary and the session's policies all have to allow.
   - A KMS key and a role's trust policy have the first word also in their own account: without any statement that names
     the caller or the account, identity-based policies grant nothing.
   - Between accounts both sides have to allow. A grant of a KMS key is the exception: it gives its grantee the key also
     from another account, without an identity-based policy (that is how service-linked roles come by a foreign key; EC2
     Auto Scaling User Guide, "Required AWS KMS key policy for use with encrypted volumes").

The account's root user needs no identity-based policy; service control policies and resource policies bind it. A federated
user session (GetFederationToken) has what its user's identity-based policies and its session policies both allow; without
session policies, only what the policy of a resource grants to the session itself (IAM User Guide, "Permissions for
GetFederationToken").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bastide.policy.documents import Document, Statement
from bastide.policy.principals import Named, Principal
from bastide.policy.select import NOTHING
from bastide.policy.variables import Context

Verdict = Literal["Allowed", "ImplicitlyDenied", "ExplicitlyDenied"]

_OWN_WORD = frozenset({"key", "trust"})
"""Kinds of resources whose policy is needed in their own account, too."""
_POLICYLESS = frozenset({"Service", "Federated", "Anonymous"})
"""Kinds of principals that have no identity-based policies."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A policy where it is attached. source: its ARN, or a name such as ``role X inline policy Y``."""

    document: Document
    source: str


Policies = Sequence[Attached]


@dataclass(slots=True)
class Request:
    """What is asked.

    action: ``service:Action`` in any letter case. resource: an ARN, or ``*`` for actions that take none.
    resource_account: the account that owns it; None counts as the caller's own. context: its keys in lower case, tuples
    for multivalued keys only; see `context`.
    """

    principal: Principal
    action: str
    resource: str
    resource_account: str | None
    context: Context


@dataclass(slots=True)
class Layers:
    """The policies in force for a request.

    session: None if there are no session policies. scps, rcps: levels, root first, of the principal's and of the
    resource's account; no levels where none apply (no organisation, the management account, a service-linked role).
    resource_kind: "trust" for a role's trust policy, "key" for a KMS key, else "".
    """

    identity: Policies
    boundary: Attached | None
    session: Policies | None
    resource: Attached | None
    scps: Sequence[Policies]
    rcps: Sequence[Policies]
    endpoint: Attached | None = None
    resource_kind: str = ""
    grants: Policies = ()
    """Grants of a KMS key, each as a policy that allows its grantee: beside the key's policy, never against it."""


class Decision(NamedTuple):
    """The answer and what decided it.

    layer: "identity", "boundary", "session", "resource", "trust", "scp", "rcp" or "endpoint". source, statement, sid:
    the policy and the statement that denied or granted; None if what decided is that no statement allows. When the
    action is refused because a single policy does not allow it (boundary, endpoint, resource), source names that policy.
    """

    allowed: bool
    verdict: Verdict
    layer: str
    source: str | None = None
    statement: int | None = None
    sid: str | None = None


def decide(request: Request, layers: Layers) -> Decision:
    """Decides a request; never raises for a request or a document that exists."""
    action = request.action.lower()
    denied = _denied(request, layers, action)
    if denied is not None:
        return denied
    for level in layers.scps:
        if _allow(level, request, action) is None:
            return _no("scp")
    if layers.endpoint is not None and _resource_allow(layers.endpoint, request, action)[0] is Named.NOT:
        return _no("endpoint", layers.endpoint)
    return _granted(request, layers, action)


# The first step: explicit denies


def _denied(request: Request, layers: Layers, action: str) -> Decision | None:
    bounded = layers.boundary is not None
    for level in layers.scps:
        for attached in level:
            if (found := _deny(attached, request, action, bounded)) is not None:
                return _explicit("scp", attached, found)
    for level in layers.rcps:
        for attached in level:
            if (found := _deny(attached, request, action, bounded)) is not None:
                return _explicit("rcp", attached, found)
    if layers.endpoint is not None and (found := _deny(layers.endpoint, request, action, bounded)) is not None:
        return _explicit("endpoint", layers.endpoint, found)
    if layers.resource is not None and (found := _deny(layers.resource, request, action, bounded)) is not None:
        return _explicit(_resource_layer(layers), layers.resource, found)
    for attached in layers.identity:
        if (found := _deny(attached, request, action, bounded)) is not None:
            return _explicit("identity", attached, found)
    if layers.boundary is not None and (found := _deny(layers.boundary, request, action, bounded)) is not None:
        return _explicit("boundary", layers.boundary, found)
    for attached in layers.session or ():
        if (found := _deny(attached, request, action, bounded)) is not None:
            return _explicit("session", attached, found)
    return None


def _deny(attached: Attached, request: Request, action: str, bounded: bool) -> Statement | None:
    selection = attached.document.plan(action).deny
    if selection is NOTHING:
        return None
    resource, context = request.resource, request.context
    if not attached.document.naming:
        return selection.first(resource, context)
    for statement in selection.candidates(resource, context):
        chosen = statement.chosen
        if (
            chosen is None or chosen(request.principal, bounded) is not Named.NOT
        ) and statement.applies(resource, context):  # fmt: skip
            return statement
    return None


# The second step: what grants


def _granted(request: Request, layers: Layers, action: str) -> Decision:
    who = request.principal
    layer = _resource_layer(layers)
    named, grantor, granting = Named.NOT, layers.resource, None
    if grantor is not None:
        named, granting = _resource_allow(grantor, request, action)
    granted = Named.NOT
    for grant in layers.grants:
        strength, statement = _resource_allow(grant, request, action)
        if strength > granted:
            granted = strength
            by_grant = _yes(layer, grant, statement)
    by_resource = _yes(layer, grantor, granting) if named >= granted else by_grant
    named = max(named, granted)
    if who.kind in _POLICYLESS:
        # Nobody assumes a role or uses a key without signing, even if the policy says "*".
        if named is Named.NOT or (who.kind == "Anonymous" and layers.resource_kind in _OWN_WORD):
            return _no(layer, layers.resource)
        return by_resource

    same_account = request.resource_account is None or request.resource_account == who.account
    if same_account:
        if named is Named.DIRECT:
            return by_resource
        if named is Named.ROLE:
            return _within(request, layers, action) or by_resource
        if named is Named.NOT and layers.resource_kind in _OWN_WORD:
            return _no(layer, layers.resource)
    elif granted is Named.DIRECT:
        # In another account the policy of a resource is never enough; a grant is.
        return by_grant
    elif granted is Named.ROLE:
        return _within(request, layers, action) or by_grant
    found = None
    if who.kind != "Root":
        found = _allow(layers.identity, request, action)
        if found is None:
            return _no("identity")
    if not same_account and named is Named.NOT:
        return _no(layer, layers.resource)
    limited = _within(request, layers, action)
    if limited is not None:
        return limited
    return Decision(True, "Allowed", "identity") if found is None else _yes("identity", *found)


def _within(request: Request, layers: Layers, action: str) -> Decision | None:
    """None if the boundary and the session's policies, where there are any, allow; else the refusal."""
    if layers.boundary is not None and _allow((layers.boundary,), request, action) is None:
        return _no("boundary", layers.boundary)
    session = layers.session
    if session is None and request.principal.kind != "FederatedUser":
        return None
    return _no("session") if _allow(session or (), request, action) is None else None


def _allow(policies: Policies, request: Request, action: str) -> tuple[Attached, Statement] | None:
    """The first statement that allows, of policies that name no principal."""
    resource, context = request.resource, request.context
    for attached in policies:
        selection = attached.document.plan(action).allow
        statement = selection.always
        if statement is None and selection is not NOTHING:
            statement = selection.first(resource, context)
        if statement is not None:
            return attached, statement
    return None


def _resource_allow(attached: Attached, request: Request, action: str) -> tuple[Named, Statement | None]:
    """The strongest way in which the policy of a resource or an endpoint allows, and the statement that does."""
    strongest, granting = Named.NOT, None
    selection = attached.document.plan(action).allow
    for statement in selection.candidates(request.resource, request.context):
        named = Named.NOT if statement.chosen is None else statement.chosen(request.principal, False)
        if named > strongest and statement.applies(request.resource, request.context):
            strongest, granting = named, statement
            if named is Named.DIRECT:
                break
    return strongest, granting


def _resource_layer(layers: Layers) -> str:
    return "trust" if layers.resource_kind == "trust" else "resource"


def _yes(layer: str, attached: Attached | None, statement: Statement | None) -> Decision:
    if attached is None or statement is None:
        return Decision(True, "Allowed", layer)
    return Decision(True, "Allowed", layer, attached.source, statement.index, statement.sid)


def _no(layer: str, attached: Attached | None = None) -> Decision:
    return Decision(False, "ImplicitlyDenied", layer, None if attached is None else attached.source)


def _explicit(layer: str, attached: Attached, statement: Statement) -> Decision:
    return Decision(False, "ExplicitlyDenied", layer, attached.source, statement.index, statement.sid)
