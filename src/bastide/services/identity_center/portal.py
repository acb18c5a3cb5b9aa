"""sso: the access portal. Who signed in sees the accounts and roles they are assigned, and gets sessions there.

Source: IAM Identity Center Portal API reference.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Call, Caller, Calls, Output, anything, pages, service_caller
from bastide.services.identity_center import people, sign_in
from bastide.services.identity_center.assignment import groups_of, held_by
from bastide.services.identity_center.instance import PRINCIPAL, Noun, instance, session_tags
from bastide.services.identity_center.oidc import portal_caller
from bastide.services.identity_center.permission_set import PERMISSION_SET, PROVISIONED, TAKEN
from bastide.services.identity_center.user import USER
from bastide.store import Row, Transaction, View

PORTAL: Final = Noun("Portal", service="sso", arn="portal/{}")
_PAGE: Final = 100
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


def _unauthorized() -> Refused:
    return Refused("UnauthorizedException", "Session token not found or invalid", 401)


def _no_access() -> Refused:
    return Refused("ForbiddenException", "No access", 403)


def _sign_in(view: View, call: Call) -> Row:
    found = sign_in.of_access_token(view, str(call.input["accessToken"]), call.request.at)
    if found is None:
        raise _unauthorized()
    return found


def _person(calls: Calls, view: View, call: Call) -> Caller:
    user = USER.row(view, _sign_in(view, call).doc["user"])
    if user is None:
        raise _unauthorized()
    return portal_caller(calls, user.name, user.doc["UserName"])


def _ask(action: str) -> list[Ask]:
    return [Ask(f"sso:{action}", anything, needless=True)]


def held(view: View, user: str, account: str = "") -> list[tuple[str, str]]:
    """Account and permission set of everything that a user is assigned, by name or through groups, in order."""
    found = set(held_by(view, user, account))
    for group in groups_of(view, user):
        found |= set(held_by(view, group, account))
    return sorted(found)


def _page(a: Authorised, member: str, found: list[Output]) -> Output:
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidRequestException") or 0)
    end = start + int(a.input.get("maxResults") or _PAGE)
    output: Output = {member: found[start:end]}
    if end < len(found):
        output["nextToken"] = pages.seal(a, end)
    return output


def accounts(view: View, user: str) -> list[Output]:
    """The accounts that a user is assigned something in."""
    found = []
    for account in sorted({account for account, _ in held(view, user)}):
        row = view.get("organizations:Account", "", "", account)
        if row is not None and row.status == "ACTIVE":
            found.append({"accountId": account, "accountName": row.doc["Name"], "emailAddress": row.doc["Email"]})
    return found


def roles(view: View, user: str, account: str) -> list[Output]:
    """The permission sets that a user is assigned in an account."""
    found = []
    for _, id in held(view, user, account):
        row = PERMISSION_SET.row(view, id)
        if row is not None:
            found.append({"roleName": row.doc["Name"], "accountId": account})
    return sorted(found, key=lambda one: str(one["roleName"]))


@PORTAL.reads("ListAccounts", asks=_ask("ListAccounts"), identify=_person)
def list_accounts(a: Authorised, view: View) -> Output:
    return _page(a, "accountList", accounts(view, a.caller.user_id))


@PORTAL.reads("ListAccountRoles", asks=_ask("ListAccountRoles"), identify=_person)
def list_account_roles(a: Authorised, view: View) -> Output:
    found = roles(view, a.caller.user_id, _account(a)) if _account(a) else []
    if not found:
        raise _no_access()
    return _page(a, "roleList", found)


def _account(a: Authorised) -> str:
    given = str(a.input["accountId"])
    return given if re.fullmatch(r"[0-9]{12}", given) else ""


@PORTAL.reads("GetRoleCredentials", asks=_ask("GetRoleCredentials"), identify=_person, tells=True)
def get_role_credentials(a: Authorised, view: View) -> Output:
    """A session of the role that the permission set is in the account. Identity Center itself takes the role on, through
    STS, and tells it who it is for; so the trust policy, the organization and the record see what they see on AWS."""
    account = _account(a)
    user = USER.row(view, a.caller.user_id)
    here = instance(view)
    name = view.get(TAKEN, "", "", str(a.input["roleName"]))
    if not account or user is None or here is None or name is None:
        raise _no_access()
    id = name.doc["id"]
    role = view.get(PROVISIONED, "", "", f"{account}/{id}")
    member = view.get("organizations:Account", "", "", account)
    if member is None or member.status != "ACTIVE":
        raise _no_access()
    if role is None or not people.assigned(view, user.name, account, id):
        raise _no_access()
    given = {
        "RoleArn": role.doc["arn"],
        "RoleSessionName": _session_name(user),
        "DurationSeconds": role.doc["seconds"],
        "ProvidedContexts": [
            {
                "ProviderArn": "arn:aws:iam::aws:contextProvider/IdentityCenter",
                "ContextAssertion": a.calls.sealer.seal(orjson.dumps([user.name, account, id]), "sts/provided-context"),
            }
        ],
    }
    tags = session_tags(view, here, user)
    if tags:
        given["Tags"] = tags
    acting = service_caller(PRINCIPAL, account, here.arn)
    issued = a.calls.forward(a, view, "sts", "AssumeRole", given, PRINCIPAL, {}, caller=acting)["Credentials"]
    a.touched.append(role.doc["arn"])
    return {
        "roleCredentials": {
            "accessKeyId": issued["AccessKeyId"],
            "secretAccessKey": issued["SecretAccessKey"],
            "sessionToken": issued["SessionToken"],
            "expiration": issued["Expiration"] // 1000,
        }
    }


def _session_name(user: Row) -> str:
    """The user's name, by which the session is known; the user's id where STS would not take the name as it is."""
    name = str(user.doc["UserName"])
    return name if _SESSION_NAME.fullmatch(name) else user.name


@PORTAL.operation("Logout", asks=_ask("Logout"), identify=_person)
def logout(a: Authorised, tx: Transaction) -> Output:
    sign_in.end(tx, _sign_in(tx, a.call).name)
    return {}
