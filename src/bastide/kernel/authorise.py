"""The guard: every question of an operation is put to the policy engine, and no handler runs without its proof."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bastide import policy
from bastide.domain import Arn, Refused
from bastide.domain.arn import PARTITION
from bastide.kernel import context as contexts
from bastide.kernel import encoded, principals
from bastide.kernel.call import _MADE_BY_AUTHORISE, Authorised, Call, Question
from bastide.kernel.identity import SIGNED, Caller, Endpoint
from bastide.kernel.kind import Ask, Asked
from bastide.store import View

if TYPE_CHECKING:
    from bastide.kernel.calls import Calls

_HERE: Final = f"arn:{PARTITION}:"
"""How every ARN begins. Policies speak of no other, so another one must not find anything either."""
_DENIED = {"query": "AccessDenied", "rest-xml": "AccessDenied", "ec2": "UnauthorizedOperation"}


def denied_code(protocol: str, service: str) -> str:
    """The error code of a refusal by policy, as each protocol and service has it."""
    if service == "sns":
        return "AuthorizationError"
    return _DENIED.get(protocol, "AccessDeniedException")


def authorise(calls: Calls, view: View, call: Call) -> Authorised:
    """Asks every question of the call; returns the proof, or raises Refused with AWS's words for the first no."""
    operation = call.operation
    caller = call.caller
    if caller.account:
        _open(calls, view, call)
    service = calls.registry.services[operation.service]
    _bar(call)
    signed = caller.kind in SIGNED
    place = calls.organisation.place(view, caller.account) if caller.account else None
    endpoint = _endpoint(calls, view, call)
    base = contexts.base(
        call, place, endpoint, calls.organisation.place(view, endpoint.account) if endpoint is not None else None
    )
    asked = Asked(call, view)
    tags = contexts.given_tags(call.input) if operation.mutates and not operation.name.startswith(_REMOVE) else ()
    questions: list[Question] = []
    layers: policy.Layers | None = None
    principal = caller.principal()
    for ask in operation.asks:
        if ask.when is not None and not ask.when(asked):
            continue
        if ask.needless and (signed or caller.kind == "IdentityCenterUser"):
            questions.append(Question(ask.action, "*", caller.account, base, "Allowed", "needless"))
            continue
        for resource in ask.about(asked):
            if resource.startswith("arn:") and not resource.startswith(_HERE):
                raise Refused(
                    denied_code(call.request.protocol, operation.service),
                    f"User: {caller.arn or 'anonymous'} is not authorized to perform: {ask.action} on resource: "
                    f"{resource[:300]} because there is nothing of another partition here",
                    403,
                    kept={"questions": questions},
                )
            facts = calls.registry.facts(view, resource, caller.account, ask.action)
            if facts.account not in ("", caller.account) and calls.organisation.suspended(view, facts.account):
                # It gives nothing to anybody; why is nobody's business who is not of that account.
                facts = replace(facts, policy=None, grants=None)
            context = _context(ask, asked, base, resource, facts.account, facts.tags)
            context.update(facts.keys)
            if facts.account and facts.account != caller.account:
                owner = calls.organisation.place(view, facts.account)
                if owner is not None:
                    context["aws:resourceorgid"] = owner[0]
                    context["aws:resourceorgpaths"] = (owner[1],)
            elif place is not None:
                context["aws:resourceorgid"] = place[0]
                context["aws:resourceorgpaths"] = (place[1],)
            if layers is None:
                layers = _layers(calls, view, call, endpoint)
            request = policy.Request(principal, ask.action, resource, facts.account or None, context)
            decision = policy.decide(
                request,
                policy.Layers(
                    identity=layers.identity,
                    boundary=layers.boundary,
                    session=layers.session,
                    resource=principals.meant(facts, caller),
                    scps=layers.scps,
                    rcps=_rcps(calls, view, caller, ask.action, facts.account),
                    endpoint=layers.endpoint,
                    resource_kind=facts.policy_kind,
                    grants=facts.grants(view, caller) if facts.grants is not None else (),
                ),
            )
            question = Question(
                ask.action, resource, facts.account, context, decision.verdict,
                decision.layer, decision.source or "", decision.statement, decision.sid or "",
            )  # fmt: skip
            questions.append(question)
            if not decision.allowed and facts.hidden is not None and facts.account != caller.account:
                told = facts.hidden
                raise Refused(told.code, told.message, told.status, kept={"questions": questions})
            if not decision.allowed:
                raise Refused(
                    denied_code(call.request.protocol, operation.service),
                    _told(calls, call, policy.message(request, decision), questions),
                    403 if call.request.protocol in ("query", "rest-xml", "ec2", "rest-json") else 400,
                    kept={"questions": questions},
                )
            if tags:
                _tags(calls, view, call, question, tags)
    if not questions:
        # Nothing that the call names could be asked about: what is not asked is not allowed.
        raise Refused(
            denied_code(call.request.protocol, operation.service),
            f"User: {caller.arn or 'anonymous'} is not authorized to perform: {service.prefix}:{operation.name}",
            403,
        )
    return Authorised(_MADE_BY_AUTHORISE, call, calls, questions)


def _told(calls: Calls, call: Call, message: str, questions: Sequence[Question]) -> str:
    """AWS's words for the refusal of the last question, and the encoded message that the refused may have decoded."""
    caller = call.caller
    if caller.kind == "Federated":
        message = f"Not authorized to perform {questions[-1].action}"
    if call.request.protocol == "ec2":
        message = f"You are not authorized to perform this operation. {message}"
    if not caller.account:
        return message
    return f"{message} Encoded authorization failure message: {encoded.encode(calls, call, len(questions) - 1)}"


_STS_OF = {"user": frozenset({"GetCallerIdentity", "AssumeRole"}), "federated": frozenset({"GetCallerIdentity"})}


def _bar(call: Call) -> None:
    """Refuses what a kind of session may never do, whatever policies say (IAM User Guide, "Compare AWS STS credentials"):
    only a user's own key gets a user's session; such a session without a second factor, or of a federated user, cannot
    use IAM, nor STS for more than to tell who it is (and a user's to take on a role)."""
    session, operation = call.caller.session, call.operation
    if session is None:
        return
    if operation.service == "sts":
        allowed = _STS_OF.get(session.kind)
        own = ("GetSessionToken", "GetFederationToken")
        if operation.name in own if allowed is None else operation.name not in allowed:
            raise Refused("AccessDenied", f"Cannot call {operation.name} with session credentials", 403)
    elif operation.service == "iam" and session.kind != "role" and (session.kind == "federated" or not session.mfa):
        raise Refused("InvalidClientTokenId", "The security token included in the request is invalid", 403)


def _open(calls: Calls, view: View, call: Call) -> None:
    """Raises Refused for a caller whose account was closed."""
    account = call.caller.account
    if calls.organisation.suspended(view, account):
        raise Refused(
            denied_code(call.request.protocol, call.operation.service),
            f"User: {call.caller.arn or 'anonymous'} is not authorized to perform this action: the account {account} is "
            "suspended.",
            403,
        )


_REMOVE = ("Delete", "Remove", "Untag")
"""Some of these operations name what they take away as tags."""
_NOUN = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


_TYPELESS: Final = {"codecommit": "repository", "codepipeline": "pipeline", "sns": "topic", "sqs": "queue"}
"""What an ARN is of where it does not say so itself, as tag policies name it."""


def _tags(calls: Calls, view: View, call: Call, question: Question, tags: Iterable[tuple[str, str]]) -> None:
    """Raises Refused for a tag that the tag policies in force for the resource's account forbid.

    Of what is about to be made, and has no ARN yet, the action tells the type: ``kms:CreateKey`` makes a ``kms:key``.
    Source: Organizations User Guide, "Tag policies", "Enforce tagging consistency".
    """
    account = question.account or call.caller.account
    service, _, action = question.action.partition(":")
    type = "-".join(_NOUN.split(action)[1:]).lower()
    if question.resource.startswith("arn:"):
        try:
            arn = Arn.parse(question.resource)
        except ValueError:
            return  # it names nothing; the handler says so
        type = _TYPELESS.get(arn.service, arn.type)
        if arn.service == "s3":
            type = "object" if "/" in arn.resource else "bucket"
    for key, value in tags:
        if calls.organisation.noncompliant(view, account, f"{service}:{type}", key, value):
            raise Refused(
                "TagPolicyViolation" if call.request.protocol == "ec2" else "TagPolicyException",
                f"The tag policy does not allow the specified value for the following tag key: '{key}'.",
                400,
                kept={"questions": [question]},
            )


def _context(
    ask: Ask, asked: Asked, base: contexts.Context, resource: str, account: str, tags: object
) -> contexts.Context:
    context = dict(base)
    if isinstance(tags, dict) and tags:
        contexts.resource_keys(context, resource, account, tags, contexts.service_of(resource, ask.action))
    elif account:
        context["aws:resourceaccount"] = account
    for key, given in ask.given.items():
        value = given(asked)
        if value is None or value == "" or (not isinstance(value, str) and not value):
            continue
        context[key.lower()] = value if isinstance(value, str) else tuple(value)
    if ask.more is not None:
        for key, found in ask.more(asked).items():
            context[key.lower()] = found if isinstance(found, str) else tuple(found)
    return context


_RCP_SERVICES = frozenset(
    {
        "aoss", "cognito-identity", "cognito-idp", "dynamodb", "ecr", "kms", "logs", "s3", "secretsmanager", "sqs", "sts",
    }
)  # fmt: skip
"""Services whose resources resource control policies bind (Organizations User Guide, "Resource control policies")."""
_LINKED = ":role/aws-service-role/"


def _rcps(calls: Calls, view: View, caller: Caller, action: str, account: str) -> Sequence[Sequence[policy.Attached]]:
    """The levels of resource control policies over a resource; they bind no service-linked role."""
    if not account or action.partition(":")[0] not in _RCP_SERVICES or _LINKED in caller.principal_arn:
        return ()
    return calls.organisation.rcps(view, account)


def _endpoint(calls: Calls, view: View, call: Call) -> Endpoint | None:
    """The VPC endpoint that the caller itself used; a service that calls for it does not come through it.

    Raises Refused when the endpoint is gone or leads to other services only."""
    request = call.request
    if not request.vpce or request.via:
        return None
    found = calls.network.endpoint(view, request.vpce)
    there = found is not None and (call.operation.global_ or found.region in ("", call.region))
    if found is None or not there or call.operation.service not in found.services:
        raise Refused(
            denied_code(request.protocol, call.operation.service),
            f"The VPC endpoint {request.vpce} does not lead to {call.operation.service}.",
            403,
        )
    return found


def _layers(calls: Calls, view: View, call: Call, endpoint: Endpoint | None) -> policy.Layers:
    caller = call.caller
    guard = endpoint.policy if endpoint is not None else None
    if caller.kind not in SIGNED:
        return policy.Layers(
            identity=(), boundary=None, session=None, resource=None, scps=(), rcps=(), endpoint=guard, resource_kind=""
        )
    identity, boundary = calls.directory.policies(view, caller)
    return policy.Layers(
        identity=identity,
        boundary=boundary,
        session=calls.directory.session_policies(view, caller) if caller.session is not None else None,
        resource=None,
        scps=() if _LINKED in caller.principal_arn else calls.organisation.scps(view, caller.account),
        rcps=(),
        endpoint=guard,
        resource_kind="",
    )
