"""Role sessions. A session is whole inside its own token, so that taking on a role changes nothing here.

Source: STS API reference, "AssumeRole"; IAM User Guide, "Passing session tags in AWS STS".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, member
from bastide.kernel.kind import each
from bastide.policy import Document, Form
from bastide.store import View

SESSION = Kind("Session", service="sts", arn="assumed-role/{}", tags=False, history=False)

_ROLE: Final = "iam:Role"
_DEFAULT: Final = 3600
_CHAINED: Final = 3600
_IDENTITY_CENTER: Final = "arn:aws:iam::aws:contextProvider/IdentityCenter"
_PACKED: Final = 4096
"""Bytes of session policies and tags that fill a session's allowance: what the token, a header, can carry."""
_MOST_TAGS: Final = 50


@dataclass(frozen=True, slots=True)
class _Role:
    name: str
    id: str
    longest: int


def _role(view: View, arn: Arn) -> _Role | None:
    """What STS needs to know of a role."""

    def load() -> _Role | None:
        name = arn.resource.rpartition("/")[2]
        row = view.get(_ROLE, arn.account, "", name.lower())
        if row is None or row.doc["Arn"] != str(arn):
            return None
        return _Role(row.doc["RoleName"], row.doc["RoleId"], int(row.doc["MaxSessionDuration"]))

    return view.memo(("sts:role", arn.account, arn.resource), ((_ROLE, arn.account),), load)


def _invalid(message: str) -> Refused:
    return Refused("ValidationError", message)


# -- who asks ----------------------------------------------------------------------------------------------------------


@SESSION.reads("GetCallerIdentity", asks=[Ask("sts:GetCallerIdentity", anything, needless=True)])
def caller_identity(a: Authorised, view: View) -> Output:
    return {"UserId": a.caller.user_id, "Account": a.caller.account, "Arn": a.caller.arn}


@SESSION.reads("GetAccessKeyInfo", asks=[Ask("sts:GetAccessKeyInfo", anything)])
def access_key_info(a: Authorised, view: View) -> Output:
    key = str(a.input["AccessKeyId"])
    if not re.fullmatch(r"(AKIA|ASIA)[A-Z2-7]{16}", key):
        raise _invalid("The access key ID is not valid.")
    if key.startswith("ASIA"):
        raise _invalid("Access keys of sessions are not supported by Bastide yet.")
    row = view.get("iam:AccessKeyOwner", "", "", key)
    if row is None:
        raise _invalid("The access key ID is not valid.")
    return {"Account": row.doc["account"]}


# -- taking on a role --------------------------------------------------------------------------------------------------


def _inherited(asked: Asked) -> Mapping[str, str]:
    """Tags that the calling session hands on."""
    session = asked.call.caller.session
    if session is None or not session.transitive:
        return {}
    handed = {key.lower() for key in session.transitive}
    return {key: value for key, value in session.tags.items() if key.lower() in handed}


def _source_identity(asked: Asked) -> str | None:
    session = asked.call.caller.session
    return str(asked.input.get("SourceIdentity") or (session.source_identity if session else "")) or None


def _tagged(asked: Asked) -> bool:
    return bool(asked.input.get("Tags") or _inherited(asked))


def _given() -> dict[str, Any]:
    return {
        "sts:ExternalId": each("ExternalId"),
        "sts:RoleSessionName": each("RoleSessionName"),
        "sts:SourceIdentity": _source_identity,
        "sts:TransitiveTagKeys": each("TransitiveTagKeys"),
    }


def _tags(a: Authorised, handed: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The session's tags and the keys of those that it hands on."""
    tags: dict[str, str] = {}
    seen: set[str] = set()
    before = {key.lower() for key in handed}
    for tag in a.input.get("Tags") or ():
        key = str(tag["Key"])
        if key.lower() in seen:
            raise Refused(
                "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
            )
        if key.lower().startswith("aws:"):
            raise Refused("InvalidParameterValue", f"The tag key {key} begins with the reserved prefix aws:.")
        if key.lower() in before:
            raise Refused(
                "InvalidParameterValue",
                f"One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key "
                f"from the calling session: {key}",
            )
        seen.add(key.lower())
        tags[key] = str(tag["Value"])
    if len(tags) > _MOST_TAGS:
        raise _invalid(f"A session may have at most {_MOST_TAGS} tags.")
    transitive = tuple(str(key) for key in a.input.get("TransitiveTagKeys") or ())
    for key in transitive:
        if key.lower() not in seen:
            raise Refused(
                "InvalidParameterValue",
                "The specified transitive tag key must be included in the requested tags.",
            )
    return {**tags, **handed}, (*transitive, *handed)


def _seconds(a: Authorised, role: _Role, chained: bool) -> int:
    seconds = int(a.input.get("DurationSeconds") or _DEFAULT)
    if chained and seconds > _CHAINED:
        raise _invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
        )
    if seconds > role.longest:
        raise _invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    return seconds


def _provided(a: Authorised) -> dict[str, Any]:
    """What a session knows of the person it is for: the caller's own origin, or what Identity Center provides."""
    before = a.caller.session
    contexts = a.input.get("ProvidedContexts")
    if not contexts:
        return {"origin": before.origin} if before is not None else {}
    if a.caller.kind != "Service" or len(contexts) != 1 or contexts[0].get("ProviderArn") != _IDENTITY_CENTER:
        raise _invalid("ProvidedContexts are taken from IAM Identity Center only.")
    try:
        told = a.calls.sealer.open(str(contexts[0].get("ContextAssertion")), "sts/provided-context")
    except ValueError:
        raise _invalid("The context assertion is not valid.") from None
    origin = tuple(str(one) for one in orjson.loads(told))
    return {"origin": origin, "keys": {"identitystore:userid": origin[0]}}


def _known(arn: str) -> Arn:
    try:
        found = Arn.parse(arn)
    except ValueError:
        raise _invalid(f"{arn} is invalid") from None
    if found.service != "iam" or found.type != "role":
        raise _invalid(f"{arn} is invalid")
    return found


def _role_arn(asked: Asked) -> Iterable[str]:
    return member("RoleArn")(asked)


@SESSION.reads(
    "AssumeRole",
    tells=True,
    asks=[
        Ask("sts:AssumeRole", _role_arn, given=_given()),
        Ask("sts:TagSession", _role_arn, given=_given(), when=_tagged),
        Ask("sts:SetSourceIdentity", _role_arn, given=_given(), when=lambda asked: bool(_source_identity(asked))),
        Ask("sts:SetContext", _role_arn, given=_given(), when=lambda asked: bool(asked.input.get("ProvidedContexts"))),
    ],
)
def assume_role(a: Authorised, view: View) -> Output:
    """A read as CloudTrail has it (readOnly is true): everything it makes is in its answer."""
    for name in ("SerialNumber", "TokenCode", "MinimumSessionTokenSize"):
        if a.input.get(name):
            raise _invalid(f"{name} is not supported by Bastide yet.")
    arn = _known(a.input["RoleArn"])
    if a.caller.kind == "Root":
        raise Refused("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    role = _role(view, arn)
    if role is None:  # a trust policy allowed it, so this is not reached but by a change in the same moment
        raise Refused("AccessDenied", f"User: {a.caller.arn} is not authorized to perform: sts:AssumeRole", 403)
    before = a.caller.session
    chained = before is not None
    asked = Asked(a.call, view)
    source_identity = _source_identity(asked) or ""
    if before is not None and before.source_identity and source_identity != before.source_identity:
        raise Refused(
            "AccessDenied", "A source identity cannot be changed once it is set in a chain of role sessions.", 403
        )
    tags, transitive = _tags(a, _inherited(asked))
    policy = a.input.get("Policy")
    policies = (str(policy),) if policy else ()
    for text in policies:
        Document.parse(text, Form.SESSION)
    policy_arns = tuple(str(one["arn"]) for one in a.input.get("PolicyArns") or ())
    packed = sum(len(text.encode()) for text in (*policies, *policy_arns)) + sum(
        len(key.encode()) + len(value.encode()) for key, value in tags.items()
    )
    used = -(-100 * packed // _PACKED)
    if used > 100:
        raise Refused(
            "PackedPolicyTooLarge",
            f"Packed size of session policies and session tags consumes {used}% of allotted space.",
        )
    expires = a.now + _seconds(a, role, chained) * MICROS
    session, secret, token = a.calls.sessions.issue(
        account=arn.account,
        role=str(arn),
        role_id=role.id,
        name=a.input["RoleSessionName"],
        issued=a.now,
        expires=expires,
        policies=policies,
        policy_arns=policy_arns,
        tags=tags,
        transitive=transitive,
        source_identity=source_identity,
        chained=chained,
        **_provided(a),
    )
    caller = a.calls.directory.by_session(view, session)
    if caller is None:
        raise Refused("AccessDenied", f"User: {a.caller.arn} is not authorized to perform: sts:AssumeRole", 403)
    if policy_arns:
        held = a.calls.directory.session_policies(view, caller) or ()
        if len(held) != len(policies) + len(policy_arns):
            raise _invalid("A session policy named by PolicyArns does not exist in the account of the role.")
    a.touched.append(caller.arn)
    output: Output = {
        "Credentials": {
            "AccessKeyId": session.access_key,
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
        },
        "AssumedRoleUser": {"AssumedRoleId": f"{role.id}:{session.name}", "Arn": caller.arn},
    }
    if packed:
        output["PackedPolicySize"] = used
    if source_identity:
        output["SourceIdentity"] = source_identity
    return output
