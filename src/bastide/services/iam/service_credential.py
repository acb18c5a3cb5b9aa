"""Credentials of users for one service: the git credentials of CodeCommit, a name and a password.

The password is shown once; what is kept is its digest: it has 256 random bits, so there is nothing to guess. Source: IAM
API Reference, CreateServiceSpecificCredential; IAM User Guide, "Using IAM with CodeCommit".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Caller, Kind, Output, each, unique_id
from bastide.services.iam.entity import limit, no_entity
from bastide.services.iam.user import HOLDING, MOVING, USER, own_or_named, user_name
from bastide.store import Row, Transaction, View

CREDENTIAL: Final = Kind(
    "ServiceSpecificCredential", service="iam", arn="service-specific-credential/{}", global_=True, tags=False,
    history=False,
)  # fmt: skip
"""Rows ``USER/ID`` of an account."""
_NAMED: Final = "iam:ServiceUserName"
"""Rows of no account, by the name that clients send: whose credential it is."""
_SERVICES: Final = ("codecommit.amazonaws.com",)
_MOST: Final = 2
_SERVICE: Final = "iam:ServiceSpecificCredentialServiceName"


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _new_password() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _rows(view: View, user: Row) -> list[Row]:
    return view.scan(CREDENTIAL.key, user.account, "", prefix=f"{user.name}/", limit=100)


def _shown(row: Row) -> Output:
    doc = row.doc
    return {
        "UserName": doc["UserName"], "Status": doc["Status"], "ServiceUserName": doc["ServiceUserName"],
        "CreateDate": row.created, "ServiceSpecificCredentialId": doc["id"], "ServiceName": doc["ServiceName"],
    }  # fmt: skip


def _found(a: Authorised, tx: Transaction) -> Row:
    user = USER.need(tx, a.account, user_name(a))
    id = str(a.input["ServiceSpecificCredentialId"])
    row = tx.get(CREDENTIAL.key, a.account, "", f"{user.name}/{id}")
    if row is None:
        raise no_entity(f"No such credential {id} exists")
    return row


def _service(asked: Asked) -> str | None:
    """The service of the credential that the call names."""
    user = str(asked.input.get("UserName") or asked.call.caller.name).lower()
    id = str(asked.input["ServiceSpecificCredentialId"])
    row = asked.view.get(CREDENTIAL.key, asked.call.account, "", f"{user}/{id}")
    return None if row is None else str(row.doc["ServiceName"])


def _known(service: str) -> None:
    if service not in _SERVICES:
        raise no_entity(f"No such service {service} is supported for Service Specific Credentials")


@CREDENTIAL.operation(
    "CreateServiceSpecificCredential",
    asks=[
        Ask(
            "iam:CreateServiceSpecificCredential",
            own_or_named,
            given={_SERVICE: each("ServiceName"), "iam:ServiceSpecificCredentialAgeDays": each("CredentialAgeDays")},
        ),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    user = USER.need(tx, a.account, user_name(a))
    service = str(a.input["ServiceName"])
    _known(service)
    if a.input.get("CredentialAgeDays"):
        raise Refused("ValidationError", "CredentialAgeDays is not for CodeCommit; its credentials do not expire.")
    if len(_rows(tx, user)) >= _MOST:
        raise limit(f"Cannot exceed quota for ServiceSpecificCredentialsPerUser: {_MOST}")
    plain = f"{user.doc['UserName']}-at-{a.account}"
    name, count = plain, 0
    while tx.get(_NAMED, "", "", name) is not None:
        count += 1
        name = f"{plain}+{count}"
    id, password = unique_id("ACCA"), _new_password()
    doc = {
        "UserName": user.doc["UserName"], "Status": "Active", "ServiceUserName": name, "ServiceName": service, "id": id,
        "digest": _digest(password),
    }  # fmt: skip
    row = Row(CREDENTIAL.key, a.account, "", f"{user.name}/{id}", doc, created=a.now)
    tx.insert(row, keep=False)
    tx.insert(Row(_NAMED, "", "", name, {"account": a.account, "row": row.name}), keep=False)
    return {"ServiceSpecificCredential": {**_shown(row), "ServicePassword": password}}


@CREDENTIAL.reads("ListServiceSpecificCredentials", asks=[Ask("iam:ListServiceSpecificCredentials", own_or_named)])
def listed(a: Authorised, view: View) -> Output:
    if a.input.get("AllUsers"):
        raise Refused("ValidationError", "AllUsers is not supported by Bastide yet; name a user.")
    user = USER.need(view, a.account, user_name(a))
    if a.input.get("ServiceName"):
        _known(str(a.input["ServiceName"]))
    rows = [row for row in _rows(view, user) if a.input.get("ServiceName") in (None, row.doc["ServiceName"])]
    return {"ServiceSpecificCredentials": [_shown(row) for row in rows]}


@CREDENTIAL.operation(
    "UpdateServiceSpecificCredential",
    asks=[Ask("iam:UpdateServiceSpecificCredential", own_or_named, given={_SERVICE: _service})],
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    if a.input["Status"] not in ("Active", "Inactive"):
        raise Refused("ValidationError", "Status is Active or Inactive.")
    row.doc["Status"] = a.input["Status"]
    CREDENTIAL.change(tx, row, a.operation.name, a.request.id)
    return {}


@CREDENTIAL.operation(
    "ResetServiceSpecificCredential",
    asks=[Ask("iam:ResetServiceSpecificCredential", own_or_named, given={_SERVICE: _service})],
)
def reset(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    password = _new_password()
    row.doc["digest"] = _digest(password)
    CREDENTIAL.change(tx, row, a.operation.name, a.request.id)
    return {"ServiceSpecificCredential": {**_shown(row), "ServicePassword": password}}


@CREDENTIAL.operation(
    "DeleteServiceSpecificCredential",
    asks=[Ask("iam:DeleteServiceSpecificCredential", own_or_named, given={_SERVICE: _service})],
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    named = tx.get(_NAMED, "", "", row.doc["ServiceUserName"])
    if named is not None:
        tx.delete(named, keep=False)
    CREDENTIAL.remove(tx, row, a.operation.name, a.request.id)
    return {}


def caller_of(view: View, service: str, name: str, password: str) -> Caller | None:
    """The user whom a name and a password stand for at a service; None for what is wrong or inactive."""
    named = view.get(_NAMED, "", "", name[:200]) if name else None
    row = view.get(CREDENTIAL.key, named.doc["account"], "", named.doc["row"]) if named is not None else None
    # Also without such a name a digest is made and compared.
    right = hmac.compare_digest(_digest(password), row.doc["digest"] if row is not None else "0" * 64)
    if row is None or not right or row.doc["Status"] != "Active" or row.doc["ServiceName"] != service:
        return None
    user = view.get(USER.key, row.account, "", row.name.rpartition("/")[0])
    if user is None:
        return None
    arn = user.doc["Arn"]
    return Caller("User", row.account, arn, arn, user.doc["UserId"], user.doc["UserName"], row.doc["id"], user.tags)


def _move(a: Authorised, tx: Transaction, before: Row, after: Row) -> None:
    """Credentials go with their user's new name; what clients send stays."""
    for row in _rows(tx, before):
        tx.delete(row, keep=False)
        doc = {**row.doc, "UserName": after.doc["UserName"]}
        moved = Row(CREDENTIAL.key, row.account, "", f"{after.name}/{doc['id']}", doc, created=row.created)
        tx.insert(moved, keep=False)
        named = tx.get(_NAMED, "", "", doc["ServiceUserName"])
        if named is not None:
            named.doc["row"] = moved.name
            tx.update(named, keep=False)


def _held(view: View, user: Row) -> str:
    told = "Cannot delete entity, must remove referenced objects first: its service specific credentials."
    return told if _rows(view, user) else ""


MOVING.append(_move)
HOLDING.append(_held)
