"""Sessions of users: GetSessionToken (the user again, for a while), GetFederationToken (somebody a user vouches for).

Source: STS API reference, "GetSessionToken", "GetFederationToken"; IAM User Guide, "Compare AWS STS credentials",
"Permissions for GetFederationToken". What such sessions may never do is refused by `bastide.kernel.authorise`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything
from bastide.services.sts import role as roles
from bastide.services.sts.session import SESSION, second_factor, shown_factor
from bastide.store import View

_HALF_A_DAY: Final = 43_200


def _user(a: Authorised) -> None:
    """Raises Refused unless a user calls with a long-term access key."""
    if a.caller.kind != "User" or a.caller.session is not None:
        raise Refused("AccessDenied", f"Cannot call {a.operation.name} with session credentials", 403)
    if a.input.get("MinimumSessionTokenSize"):
        raise roles.invalid("MinimumSessionTokenSize is not supported by Bastide yet.")


def _begin(a: Authorised, **known: Any) -> tuple[Any, Output]:
    caller = a.caller
    expires = roles.after(a, int(a.input.get("DurationSeconds") or _HALF_A_DAY))
    session, secret, token = a.calls.sessions.issue(
        account=caller.account,
        role=caller.arn,
        role_id=caller.user_id,
        issued=a.now,
        expires=expires,
        parent=caller.access_key,
        **known,
    )
    return session, {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": secret,
        "SessionToken": token,
        "Expiration": expires,
    }


@SESSION.reads(
    "GetSessionToken",
    tells=True,
    prepare=second_factor,
    asks=[Ask("sts:GetSessionToken", anything, needless=True)],
)
def session_token(a: Authorised, view: View) -> Output:
    """Policies do not decide it: it is how a user shows a second factor."""
    _user(a)
    _, credentials = _begin(a, kind="user", name=a.caller.name, mfa=shown_factor(a))
    return {"Credentials": credentials}


def _federated(asked: Asked) -> Iterable[str]:
    return (f"arn:aws:sts::{asked.call.account}:federated-user/{asked.input['Name']}",)


@SESSION.reads(
    "GetFederationToken",
    tells=True,
    asks=[
        Ask("sts:GetFederationToken", _federated),
        Ask("sts:TagSession", _federated, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def federation_token(a: Authorised, view: View) -> Output:
    """A session that may do what both the user's policies and the session's allow; without session policies, nothing but
    what a resource's policy grants it by name."""
    _user(a)
    tags, _ = roles.session_tags(
        [(str(tag["Key"]), str(tag["Value"])) for tag in a.input.get("Tags") or ()], (), {}, "InvalidParameterValue"
    )
    limits = roles.narrowed(a, tags)
    name = str(a.input["Name"])
    session, credentials = _begin(
        a, kind="federated", name=name, policies=limits.policies, policy_arns=limits.policy_arns, tags=tags
    )
    caller = a.calls.directory.by_session(view, session)
    if caller is None:
        raise Refused("AccessDenied", "Not authorized to perform sts:GetFederationToken", 403)
    if limits.policy_arns:
        held = a.calls.directory.session_policies(view, caller) or ()
        if len(held) != len(limits.policies) + len(limits.policy_arns):
            raise roles.invalid("A session policy named by PolicyArns does not exist in the account of the user.")
    a.touched.append(caller.arn)
    return {
        "Credentials": credentials,
        "FederatedUser": {"FederatedUserId": caller.user_id, "Arn": caller.arn},
        "PackedPolicySize": limits.packed,
    }
