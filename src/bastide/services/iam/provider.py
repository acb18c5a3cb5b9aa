"""What SAML and OpenID Connect providers have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Asked, Authorised, Kind
from bastide.services.iam.entity import limit, no_entity
from bastide.store import Row, Transaction, View

_MOST: Final = 100
"""Providers of a kind in an account (IAM User Guide, "IAM and AWS STS quotas")."""


class Provider(Kind):
    """An identity provider, named in calls by its ARN."""

    def __init__(self, name: str, *, arn: str, named_by: str, told_missing: str, told_taken: str) -> None:
        """told_missing, told_taken: messages with ``{arn}``."""
        super().__init__(
            name,
            service="iam",
            arn=arn,
            named_by=named_by,
            global_=True,
            missing=("NoSuchEntity", told_missing, 404),
            taken=("EntityAlreadyExists", told_taken, 409),
        )
        self.told_missing = told_missing

    def this(self, asked: Asked) -> Iterable[str]:
        """The ARN that the call names, where it can be one."""
        given = str(asked.input.get(self.named_by) or "")
        return (given,) if given.startswith("arn:aws:iam::") else ("*",)

    def asked_for(self, a: Authorised, view: View) -> Row:
        """The row that the call names, fresh, so that it may be changed; raises Refused (NoSuchEntity)."""
        given = str(a.input[self.named_by])
        missing = no_entity(self.told_missing.format(arn=given))
        try:
            account, _, name = self.locate(given, a.account, "")
        except Refused:
            raise missing from None
        row = self.get(view, account, "", name) if account == a.account and given.startswith("arn:") else None
        if row is None:
            raise missing
        return row

    def room(self, a: Authorised, tx: Transaction) -> None:
        """Raises Refused (LimitExceeded) if the account has all that it may have."""
        if len(tx.scan(self.key, a.account, "", limit=_MOST)) >= _MOST:
            raise limit(f"Cannot exceed quota for {self.name}sPerAccount: {_MOST}")

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row."""
        row.modified = a.now
        self.change(tx, row, a.operation.name, a.request.id)

    def all(self, a: Authorised, view: View) -> list[Row]:
        """Every one of the account: as many as there is room for."""
        return view.scan(self.key, a.account, "", limit=_MOST)
