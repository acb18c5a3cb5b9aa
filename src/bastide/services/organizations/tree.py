"""The organisation's tree: where an account stands and which service control policies bind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from bastide.policy import Attached, Document, Form
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    FULL_ACCESS_ARN,
    POLICY,
    ROOT,
    SCOPES,
    SCP,
    UNIT,
    organisation,
    root,
)
from bastide.store import Row, View

FULL_ACCESS_TEXT: Final = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}, indent=2
)
_FULL: Final = Attached(Document.parse(FULL_ACCESS_TEXT, Form.SCP), FULL_ACCESS_ARN)


def node(view: View, id: str) -> Row | None:
    """A root, unit or account, fresh, or None."""
    kind = ROOT if id.startswith("r-") else UNIT if id.startswith("ou-") else ACCOUNT
    return kind.row(view, id)


def path(view: View, id: str) -> list[Row]:
    """The nodes from the root down to `id`, both included; empty if there is no such node."""
    found: list[Row] = []
    here: str = id
    while here:
        row = node(view, here)
        if row is None:
            return []
        found.append(row)
        here = row.doc.get("parent", "")
    found.reverse()
    return found


def enabled(view: View) -> bool:
    """Whether service control policies are."""
    top = root(view)
    return top is not None and any(one["Type"] == SCP for one in top.doc["PolicyTypes"])


class OrganisationTree:
    """`bastide.kernel.Organisation` over the rows of Organizations."""

    def __init__(self, management_account: str) -> None:
        self._management = management_account

    def scps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Service control policies in force, a list a level, root first; empty for the management account, outside of
        the organisation, and while they are not enabled."""
        if account == self._management:
            return ()
        return view.memo(("organizations:scps", account), SCOPES, lambda: self._scps(view, account))

    @staticmethod
    def _scps(view: View, account: str) -> Sequence[Sequence[Attached]]:
        if not enabled(view):
            return ()
        return tuple(tuple(_attached(view, policy) for policy in row.doc["policies"]) for row in path(view, account))

    def rcps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Resource control policies in force: none, while Organizations has no such policy type."""
        return ()

    def place(self, view: View, account: str) -> tuple[str, str] | None:
        """Organisation id and the account's path (``o-x/r-y/ou-z/``); None outside an organisation."""
        return view.memo(("organizations:place", account), SCOPES, lambda: self._place(view, account))

    @staticmethod
    def _place(view: View, account: str) -> tuple[str, str] | None:
        held = organisation(view)
        rows = path(view, account) if held is not None else []
        if held is None or not rows:
            return None
        above = "/".join(row.name for row in rows[:-1])
        return held.doc["Id"], f"{held.doc['Id']}/{above}/"


def _attached(view: View, policy: str) -> Attached:
    if policy == FULL_ACCESS:
        return _FULL
    row = POLICY.row(view, policy)
    if row is None:
        raise LookupError(f"the attached policy {policy} is not there")  # refuses the call: what it denied is unknown
    return Attached(Document.parse_cached(row.doc["Content"], Form.SCP), row.doc["Arn"])
