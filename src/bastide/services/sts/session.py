"""Role sessions. A session is whole inside its own token, so that taking on a role changes nothing here.

Source: STS API reference, "AssumeRole"; IAM User Guide, "Passing session tags in AWS STS".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Call, Calls, Kind, Output, account_of_key, anything
from bastide.kernel.kind import each
from bastide.services.sts import role as roles
from bastide.services.sts.role import invalid
from bastide.store import View

SESSION = Kind("Session", service="sts", arn="assumed-role/{}", tags=False, history=False)


# -- who asks ----------------------------------------------------------------------------------------------------------


@SESSION.reads("GetCallerIdentity", asks=[Ask("sts:GetCallerIdentity", anything, needless=True)])
def caller_identity(a: Authorised, view: View) -> Output:
    return {"UserId": a.caller.user_id, "Account": a.caller.account, "Arn": a.caller.arn}


@SESSION.reads("GetAccessKeyInfo", asks=[Ask("sts:GetAccessKeyInfo", anything)])
def access_key_info(a: Authorised, view: View) -> Output:
    """Whose a key id is. A session's id tells its account by itself, whether the session lives or not."""
    key = str(a.input["AccessKeyId"])
    unknown = invalid("The access key ID is not valid.")
    if not re.fullmatch(r"(AKIA|ASIA)[A-Z2-7]{16}", key):
        raise unknown
    if key.startswith("ASIA"):
        try:
            account = account_of_key(key)
        except ValueError:
            raise unknown from None
        if account != a.calls.home and a.calls.organisation.place(view, account) is None:
            raise unknown
        return {"Account": account}
    row = view.get("iam:AccessKeyOwner", "", "", key)
    if row is None:
        raise unknown
    return {"Account": row.doc["account"]}


# -- a second factor ---------------------------------------------------------------------------------------------------


async def second_factor(calls: Calls, call: Call) -> None:
    """Spends the one-time code that a call brings, if it brings one, before any question: trust policies ask for it.

    Raises Refused (AccessDenied, ValidationError).
    """
    serial, code = call.input.get("SerialNumber"), call.input.get("TokenCode")
    if serial is None and code is None:
        return
    if serial is None or code is None:
        raise invalid("SerialNumber and TokenCode belong together.")
    good = await calls.store.write(
        lambda tx: calls.directory.second_factor(tx, call.caller, str(serial), str(code), call.request.at)
    )
    if not good:
        raise Refused("AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code.", 403)
    call.prepared = call.request.at
    call.context["aws:multifactorauthpresent"] = "true"
    call.context["aws:multifactorauthage"] = "0"


def shown_factor(a: Authorised) -> int:
    """When the call's second factor was shown, 0 if none was; raises Refused if it brings one that nobody looked at."""
    if a.call.prepared is None and (a.input.get("TokenCode") or a.input.get("SerialNumber")):
        raise Refused("AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.", 403)
    return int(a.call.prepared or 0)


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


_PARTITION = re.compile(r"arn:aws(-[a-z]+)*:")


def _role_arn(asked: Asked) -> Iterable[str]:
    """The ARN that a call names; what is none at all is told before anybody is asked about it."""
    given = str(asked.input["RoleArn"])
    if not _PARTITION.match(given) or given.count(":") < 5:
        raise invalid(f"{given} is invalid")
    return (given,)


_LAMBDA: Final = "lambda.amazonaws.com"
_CODEBUILD: Final = "codebuild.amazonaws.com"
_IDENTITY_CENTER: Final = "arn:aws:iam::aws:contextProvider/IdentityCenter"


def _of_build(project: str, session: str) -> dict[str, str]:
    """Of a session that CodeBuild begins for a project: which, and which build, as the session's name says."""
    found = {"codebuild:projectarn": project}
    _, _, id = session.partition("AWSCodeBuild-")
    if id:
        found["codebuild:buildarn"] = f"{project.replace(':project/', ':build/', 1)}:{id}"
    return found


def _provided(a: Authorised) -> dict[str, Any]:
    """What a session knows of whom it is for: the caller's own origin, a person of Identity Center's, a function, a
    build."""
    before = a.caller.session
    contexts = a.input.get("ProvidedContexts")
    if not contexts:
        if a.caller.kind == "Service" and a.caller.arn == _LAMBDA and a.caller.source_arn:
            return {"keys": {"lambda:sourcefunctionarn": a.caller.source_arn}}
        if a.caller.kind == "Service" and a.caller.arn == _CODEBUILD and a.caller.source_arn:
            return {"keys": _of_build(a.caller.source_arn, str(a.input["RoleSessionName"]))}
        return {"origin": before.origin} if before is not None else {}
    if a.caller.kind != "Service" or len(contexts) != 1 or contexts[0].get("ProviderArn") != _IDENTITY_CENTER:
        raise invalid("ProvidedContexts are taken from IAM Identity Center only.")
    try:
        told = a.calls.sealer.open(str(contexts[0].get("ContextAssertion")), "sts/provided-context")
    except ValueError:
        raise invalid("The context assertion is not valid.") from None
    origin = tuple(str(one) for one in orjson.loads(told))
    return {"origin": origin, "keys": {"identitystore:userid": origin[0]}}


@SESSION.reads(
    "AssumeRole",
    tells=True,
    prepare=second_factor,
    asks=[
        Ask("sts:AssumeRole", _role_arn, given=_given()),
        Ask("sts:TagSession", _role_arn, given=_given(), when=_tagged),
        Ask("sts:SetSourceIdentity", _role_arn, given=_given(), when=lambda asked: bool(_source_identity(asked))),
        Ask("sts:SetContext", _role_arn, given=_given(), when=lambda asked: bool(asked.input.get("ProvidedContexts"))),
    ],
)
def assume_role(a: Authorised, view: View) -> Output:
    """A read as CloudTrail has it (readOnly is true): everything it makes is in its answer.

    A second factor counts for the trust policy; the session itself was got without one, as in AWS (IAM User Guide,
    "Secure API access with MFA").
    """
    if a.input.get("MinimumSessionTokenSize"):
        raise invalid("MinimumSessionTokenSize is not supported by Bastide yet.")
    shown_factor(a)
    arn = roles.role_arn(a.input["RoleArn"])
    if a.caller.kind == "Root":
        raise Refused("AccessDenied", "Roles may not be assumed by root accounts.", 403)
    role = roles.role_of(view, arn)
    if role is None:  # a trust policy allowed it, so this is not reached but by a change in the same moment
        raise Refused("AccessDenied", f"User: {a.caller.arn} is not authorized to perform: sts:AssumeRole", 403)
    before = a.caller.session
    chained = before is not None and before.kind == "role"
    asked = Asked(a.call, view)
    source_identity = _source_identity(asked) or ""
    if before is not None and before.source_identity and source_identity != before.source_identity:
        raise Refused(
            "AccessDenied", "A source identity cannot be changed once it is set in a chain of role sessions.", 403
        )
    tags, transitive = roles.session_tags(
        [(str(tag["Key"]), str(tag["Value"])) for tag in a.input.get("Tags") or ()],
        [str(key) for key in a.input.get("TransitiveTagKeys") or ()],
        _inherited(asked),
        "InvalidParameterValue",
    )
    return roles.begin(
        a,
        view,
        arn,
        role,
        str(a.input["RoleSessionName"]),
        expires=roles.after(a, roles.seconds(a, role, chained=chained)),
        tags=tags,
        transitive=transitive,
        source_identity=source_identity,
        chained=chained,
        work=before.work if before is not None else a.caller.source_arn,
        **_provided(a),
    )
