"""What every way to a session has in common: the role, session policies, tags, and how long.

Source: STS API reference, "AssumeRole"; IAM User Guide, "Pass session tags in AWS STS" and "IAM and AWS STS quotas".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.kernel import Authorised, Output
from bastide.policy import Document, Form
from bastide.store import View

_ROLE: Final = "iam:Role"
DEFAULT_SECONDS: Final = 3600
_CHAINED: Final = 3600
_PACKED: Final = 4096
"""Bytes of session policies and tags that fill a session's allowance: what the token, a header, can carry."""
_MOST_TAGS: Final = 50
_MOST_POLICIES: Final = 10
_KEY: Final = 128
_VALUE: Final = 256


@dataclass(frozen=True, slots=True)
class Role:
    """What STS needs to know of a role. longest: seconds that a session may last."""

    name: str
    id: str
    longest: int


def role_of(view: View, arn: Arn) -> Role | None:
    """The role of that very ARN, or None."""

    def load() -> Role | None:
        name = arn.resource.rpartition("/")[2]
        row = view.get(_ROLE, arn.account, "", name.lower())
        if row is None or row.doc["Arn"] != str(arn):
            return None
        return Role(row.doc["RoleName"], row.doc["RoleId"], int(row.doc["MaxSessionDuration"]))

    return view.memo(("sts:role", arn.account, arn.resource), ((_ROLE, arn.account),), load)


def invalid(message: str) -> Refused:
    """ValidationError, as STS words what the model does not say."""
    return Refused("ValidationError", message)


def role_arn(given: str) -> Arn:
    """The ARN of a role; raises Refused (ValidationError)."""
    try:
        found = Arn.parse(given)
    except ValueError:
        raise invalid(f"{given} is invalid") from None
    if found.service != "iam" or found.type != "role":
        raise invalid(f"{given} is invalid")
    return found


# -- tags --------------------------------------------------------------------------------------------------------------


def session_tags(
    pairs: Iterable[tuple[str, str]], transitive: Sequence[str], handed: Mapping[str, str], code: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """A session's tags and the keys of those that it hands on.

    handed: tags that the calling session hands on, which nobody changes. code: of the refusal for what is wrong with them.
    """
    tags: dict[str, str] = {}
    seen: set[str] = set()
    before = {key.lower() for key in handed}
    for key, value in pairs:
        if not 0 < len(key) <= _KEY or len(value) > _VALUE:
            raise Refused(code, f"A tag key has at most {_KEY} characters, a value {_VALUE}.")
        if key.lower() in seen:
            raise Refused(code, "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
        if key.lower().startswith("aws:"):
            raise Refused(code, f"The tag key {key} begins with the reserved prefix aws:.")
        if key.lower() in before:
            raise Refused(
                code,
                f"One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key "
                f"from the calling session: {key}",
            )
        seen.add(key.lower())
        tags[key] = value
    if len(tags) > _MOST_TAGS:
        raise invalid(f"A session may have at most {_MOST_TAGS} tags.")
    for key in transitive:
        if key.lower() not in seen:
            raise Refused(code, "The specified transitive tag key must be included in the requested tags.")
    return {**tags, **handed}, (*transitive, *handed)


# -- sessions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Session policies of a call. packed: the part of the allowance that they and the tags fill, in percent."""

    policies: tuple[str, ...]
    policy_arns: tuple[str, ...]
    packed: int


def narrowed(a: Authorised, tags: Mapping[str, str]) -> Narrowed:
    """The session policies that a call brings; raises Refused (MalformedPolicyDocument, PackedPolicyTooLarge)."""
    policy = a.input.get("Policy")
    policies = (str(policy),) if policy else ()
    for text in policies:
        Document.parse(text, Form.SESSION)
    arns = tuple(str(one.get("arn") or "") for one in a.input.get("PolicyArns") or ())
    if len(arns) > _MOST_POLICIES:
        raise invalid(f"At most {_MOST_POLICIES} managed policies can be session policies.")
    packed = sum(len(text.encode()) for text in (*policies, *arns)) + sum(
        len(key.encode()) + len(value.encode()) for key, value in tags.items()
    )
    used = -(-100 * packed // _PACKED)
    if used > 100:
        raise Refused(
            "PackedPolicyTooLarge",
            f"Packed size of session policies and session tags consumes {used}% of allotted space.",
        )
    return Narrowed(policies, arns, used)


def seconds(a: Authorised, role: Role, *, chained: bool = False) -> int:
    """How long the session is to last; raises Refused (ValidationError)."""
    wanted = int(a.input.get("DurationSeconds") or DEFAULT_SECONDS)
    if chained and wanted > _CHAINED:
        raise invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
        )
    if wanted > role.longest:
        raise invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    return wanted


def begin(
    a: Authorised,
    view: View,
    arn: Arn,
    role: Role,
    name: str,
    *,
    expires: Instant,
    tags: Mapping[str, str],
    transitive: Sequence[str],
    source_identity: str,
    chained: bool = False,
    provider: str = "",
    keys: Mapping[str, str | tuple[str, ...]] | None = None,
    origin: tuple[str, ...] = (),
    work: str = "",
) -> Output:
    """A session of a role, and the answer that tells it."""
    limits = narrowed(a, tags)
    session, secret, token = a.calls.sessions.issue(
        account=arn.account,
        role=str(arn),
        role_id=role.id,
        name=name,
        issued=a.now,
        expires=expires,
        policies=limits.policies,
        policy_arns=limits.policy_arns,
        tags=dict(tags),
        transitive=tuple(transitive),
        source_identity=source_identity,
        chained=chained,
        provider=provider,
        keys=dict(keys or {}),
        origin=origin,
        work=work,
    )
    caller = a.calls.directory.by_session(view, session)
    if caller is None:
        raise Refused("AccessDenied", f"Not authorized to perform sts:{a.operation.name}", 403)
    if limits.policy_arns:
        held = a.calls.directory.session_policies(view, caller) or ()
        if len(held) != len(limits.policies) + len(limits.policy_arns):
            raise invalid("A session policy named by PolicyArns does not exist in the account of the role.")
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
    if limits.packed:
        output["PackedPolicySize"] = limits.packed
    if source_identity:
        output["SourceIdentity"] = source_identity
    return output


def after(a: Authorised, length: int) -> Instant:
    """The instant `length` seconds from the call."""
    return a.now + length * MICROS
