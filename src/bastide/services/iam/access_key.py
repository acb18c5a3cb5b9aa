"""Access keys. The secret is shown once, when it is made; what is kept is sealed under the platform's root key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Instant
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, Sealer, new_secret, unique_id
from bastide.services.iam.entity import limit, no_entity, paged
from bastide.services.iam.last_use import LastUse
from bastide.services.iam.user import HOLDING, MOVING, USER, own_or_named, user_name
from bastide.store import Row, Transaction, View

ACCESS_KEY = Kind("AccessKey", service="iam", arn="access-key/{}", global_=True, tags=False, history=False)
OWNER: Final = "iam:AccessKeyOwner"
"""Rows under account "" that tell whose a key id is."""
PURPOSE: Final = "access-key"
MOST_KEYS: Final = 2
"""Access keys of one user: the one in use, and the one it is to be replaced by."""


def new_key(tx: Transaction, sealer: Sealer, user: Row, now: Instant) -> tuple[Row, str]:
    """A key for a user: its row and its secret."""
    key, secret = unique_id("AKIA", 16), new_secret()
    row = Row(
        ACCESS_KEY.key,
        user.account,
        "",
        f"{user.name}/{key}",
        {
            "UserName": user.doc["UserName"],
            "AccessKeyId": key,
            "Status": "Active",
            "secret": sealer.seal(secret.encode(), PURPOSE),
        },
        created=now,
    )
    tx.insert(row, keep=False)
    tx.insert(Row(OWNER, "", "", key, {"account": user.account, "user": user.name}, created=now), keep=False)
    return row, secret


def _shown(row: Row) -> Output:
    doc = row.doc
    return {
        "UserName": doc["UserName"],
        "AccessKeyId": doc["AccessKeyId"],
        "Status": doc["Status"],
        "CreateDate": row.created,
    }


def _found(a: Authorised, tx: Transaction) -> Row:
    user = USER.need(tx, a.account, user_name(a))
    row = tx.get(ACCESS_KEY.key, a.account, "", f"{user.name}/{a.input['AccessKeyId']}")
    if row is None:
        raise no_entity(f"The Access Key with id {a.input['AccessKeyId']} cannot be found.")
    return row


@ACCESS_KEY.operation("CreateAccessKey", asks=[Ask("iam:CreateAccessKey", own_or_named)])
def create(a: Authorised, tx: Transaction) -> Output:
    user = USER.need(tx, a.account, user_name(a))
    if len(tx.scan(ACCESS_KEY.key, a.account, "", prefix=f"{user.name}/", limit=MOST_KEYS)) >= MOST_KEYS:
        raise limit(f"Cannot exceed quota for AccessKeysPerUser: {MOST_KEYS}")
    row, secret = new_key(tx, a.calls.sealer, user, a.now)
    return {"AccessKey": {**_shown(row), "SecretAccessKey": secret}}


@ACCESS_KEY.reads("ListAccessKeys", asks=[Ask("iam:ListAccessKeys", own_or_named)])
def keys(a: Authorised, view: View) -> Output:
    user = USER.need(view, a.account, user_name(a))
    return paged(a, view, ACCESS_KEY.key, "AccessKeyMetadata", _shown, prefix=f"{user.name}/")


@ACCESS_KEY.operation("UpdateAccessKey", asks=[Ask("iam:UpdateAccessKey", own_or_named)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    row.doc["Status"] = a.input["Status"]
    ACCESS_KEY.change(tx, row, a.operation.name, a.request.id)
    return {}


@ACCESS_KEY.operation("DeleteAccessKey", asks=[Ask("iam:DeleteAccessKey", own_or_named)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _found(a, tx)
    owner = tx.get(OWNER, "", "", row.doc["AccessKeyId"])
    if owner is not None:
        tx.delete(owner, keep=False)
    ACCESS_KEY.remove(tx, row, a.operation.name, a.request.id)
    a.engine(LastUse).forget(tx, a.account, row.doc["AccessKeyId"])
    return {}


def _owner(view: View, account: str, key: str) -> str | None:
    """The ARN of the user of the account who has the key."""
    owner = view.get(OWNER, "", "", key)
    if owner is None or owner.doc["account"] != account:
        return None
    user = view.get(USER.key, account, "", owner.doc["user"])
    return None if user is None else str(user.doc["Arn"])


def _owned(asked: Asked) -> Iterable[str]:
    # Of a key that another account has, this one learns no more than of one that does not exist.
    return (_owner(asked.view, asked.call.account, str(asked.input["AccessKeyId"])) or "*",)


@ACCESS_KEY.reads("GetAccessKeyLastUsed", asks=[Ask("iam:GetAccessKeyLastUsed", _owned)])
def last_used(a: Authorised, view: View) -> Output:
    key = str(a.input["AccessKeyId"])
    arn = _owner(view, a.account, key)
    if arn is None:
        raise no_entity(f"The Access Key with id {key} cannot be found.")
    use = a.engine(LastUse).latest(view, a.account, key)
    told: Output = {"ServiceName": "N/A", "Region": "N/A"}
    if use is not None:
        told = {"LastUsedDate": use.at, "ServiceName": use.service, "Region": use.region}
    return {"UserName": arn.rpartition("/")[2], "AccessKeyLastUsed": told}


def _move(a: Authorised, tx: Transaction, before: Row, after: Row) -> None:
    """Keys go with their user's new name."""
    for row in tx.scan(ACCESS_KEY.key, before.account, "", prefix=f"{before.name}/", limit=MOST_KEYS):
        tx.delete(row, keep=False)
        doc = {**row.doc, "UserName": after.doc["UserName"]}
        key = row.doc["AccessKeyId"]
        tx.insert(Row(ACCESS_KEY.key, row.account, "", f"{after.name}/{key}", doc, created=row.created), keep=False)
        owner = tx.get(OWNER, "", "", key)
        if owner is not None:
            owner.doc["user"] = after.name
            tx.update(owner, keep=False)


def _held(view: View, user: Row) -> str:
    held = view.scan(ACCESS_KEY.key, user.account, "", prefix=f"{user.name}/", limit=1)
    return "Cannot delete entity, must delete access keys first." if held else ""


MOVING.append(_move)
HOLDING.append(_held)
