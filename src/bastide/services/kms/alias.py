"""Aliases: names for keys within an account and region."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages
from bastide.services.kms.asking import ALIAS_OF, CALLER, about, alias_arn, alias_target, ask
from bastide.services.kms.noun import MANAGED_SERVICES, find, locate, managed_id
from bastide.store import Row, Transaction, View

ALIAS = Kind(
    "Alias",
    service="kms",
    arn="{}",
    named_by="AliasName",
    tags=False,
    taken=("AlreadyExistsException", "An alias with the name {arn} already exists", 400),
    missing=("NotFoundException", "Alias {arn} is not found.", 400),
)
_NAME = re.compile(r"alias/[a-zA-Z0-9/_-]{1,250}")


_MOST: Final = 50
_MANAGED: Final = "alias/aws/"
"""Aliases of one key (KMS Developer Guide, "Resource quotas")."""


def _this(asked: Asked) -> Iterable[str]:
    return (alias_arn(asked, str(asked.input["AliasName"])),)


def _link(tx: Transaction, account: str, region: str, key: str, name: str) -> None:
    if len(tx.scan(ALIAS_OF, account, region, prefix=f"{key}|", limit=_MOST)) == _MOST:
        raise Refused("LimitExceededException", f"A key may have at most {_MOST} aliases.")
    tx.insert(Row(ALIAS_OF, account, region, f"{key}|{name}", {}), keep=False)


def _unlink(tx: Transaction, row: Row) -> None:
    link = tx.get(ALIAS_OF, row.account, row.region, f"{row.doc['TargetKeyId']}|{row.name}")
    if link is not None:
        tx.delete(link, keep=False)


def end_all(tx: Transaction, key: Row) -> None:
    """Ends the aliases of a key that is deleted."""
    for link in tx.scan(ALIAS_OF, key.account, key.region, prefix=f"{key.name}|", limit=_MOST):
        row = tx.get(ALIAS.key, key.account, key.region, link.name.partition("|")[2])
        if row is not None:
            ALIAS.remove(tx, row, "DeleteAlias")
        tx.delete(link, keep=False)


def _legal(name: str) -> str:
    if not name.startswith("alias/"):
        raise Refused(
            "ValidationException",
            'Alias must start with the prefix "alias/". Please see '
            "https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
        )
    if not _NAME.fullmatch(name) or name.startswith(_MANAGED):
        raise Refused("InvalidAliasNameException", "An alias begins with alias/ and may not begin with alias/aws/.")
    return name


@ALIAS.operation("CreateAlias", asks=[Ask("kms:CreateAlias", _this, CALLER), ask("CreateAlias", about("TargetKeyId"))])
def create(a: Authorised, tx: Transaction) -> Output:
    """A name for a key of this account."""
    account, region, key = locate(tx, str(a.input["TargetKeyId"]), a.account, a.region)
    if account != a.account:
        raise Refused("NotFoundException", "An alias names a key of its own account.")
    find(tx, account, region, key)
    row = ALIAS.create(a, tx, _legal(str(a.input["AliasName"])), {"TargetKeyId": key})
    _link(tx, account, region, key, row.name)
    return {}


@ALIAS.operation(
    "UpdateAlias",
    asks=[
        Ask("kms:UpdateAlias", _this, CALLER),
        ask("UpdateAlias", alias_target),
        ask("UpdateAlias", about("TargetKeyId")),
    ],
)
def update(a: Authorised, tx: Transaction) -> Output:
    """The name stands for another key from now on."""
    row = ALIAS.find(tx, a.account, a.region, str(a.input["AliasName"]))
    account, region, key = locate(tx, str(a.input["TargetKeyId"]), a.account, a.region)
    if account != a.account:
        raise Refused("NotFoundException", "An alias names a key of its own account.")
    find(tx, account, region, key)
    if row.doc["TargetKeyId"] != key:
        _unlink(tx, row)
        _link(tx, account, region, key, row.name)
    row.doc["TargetKeyId"] = key
    ALIAS.change(tx, row, "UpdateAlias", a.request.id)
    return {}


@ALIAS.operation("DeleteAlias", asks=[Ask("kms:DeleteAlias", _this, CALLER), ask("DeleteAlias", alias_target)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """The name is gone, the key stays."""
    row = ALIAS.find(tx, a.account, a.region, str(a.input["AliasName"]))
    _unlink(tx, row)
    ALIAS.remove(tx, row, "DeleteAlias", a.request.id)
    return {}


def _told(row: Row) -> dict[str, object]:
    return {
        "AliasName": row.name,
        "AliasArn": f"arn:aws:kms:{row.region}:{row.account}:{row.name}",
        "TargetKeyId": row.doc["TargetKeyId"],
        "CreationDate": row.created or None,
        "LastUpdatedDate": row.modified or None,
    }


@ALIAS.reads("ListAliases", asks=[Ask("kms:ListAliases", anything, CALLER)])
def list_aliases(a: Authorised, view: View) -> Output:
    """The account's aliases, those of AWS managed keys first."""
    limit = int(a.input.get("Limit") or 50)
    after = pages.position(a, a.input.get("Marker"), code="InvalidMarkerException")
    wanted = locate(view, str(a.input["KeyId"]), a.account, a.region)[2] if a.input.get("KeyId") else None
    managed = [f"{_MANAGED}{service}" for service in MANAGED_SERVICES]
    behind = managed.index(after) + 1 if after in managed else len(managed) if after else 0
    rows = [
        Row(
            ALIAS.key,
            a.account,
            a.region,
            name,
            {"TargetKeyId": managed_id(a.account, a.region, name[len(_MANAGED) :])},
        )
        for name in managed[behind : behind + limit + 1]
    ]
    if len(rows) <= limit:
        place = None if after in managed else after
        rows += view.scan(ALIAS.key, a.account, a.region, after=place, limit=limit + 1 - len(rows))
    more = len(rows) > limit
    rows = rows[:limit]
    return {
        "Aliases": [_told(row) for row in rows if wanted is None or row.doc["TargetKeyId"] == wanted],
        "Truncated": more,
        "NextMarker": pages.seal(a, rows[-1].name) if more else None,
    }
