"""The organisation's tree: where an account stands and which policies bind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bastide.policy import Attached, Document, Form
from bastide.services.organizations import tag_policy
from bastide.services.organizations.noun import (
    ACCOUNT,
    FULL_ACCESS,
    POLICY,
    RCP,
    ROOT,
    SCOPES,
    SCP,
    TAG,
    TAKEN,
    UNIT,
    organisation,
    root,
)
from bastide.store import Row, View

FORMS: Final = {SCP: Form.SCP, RCP: Form.RCP}
"""What the documents of a type are, where they take part in decisions."""

UNTRUSTED: Final = "bastide:untrusted-code"
"""The key of a tag: whether code of an account is trusted to share the machine's kernel."""


def _full(statement: dict[str, str]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2)


FULL_ACCESS_TEXT: Final = {
    FULL_ACCESS[SCP]: _full({"Effect": "Allow", "Action": "*", "Resource": "*"}),
    FULL_ACCESS[RCP]: _full({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}),
}
_FULL: Final = {
    id: Attached(
        Document.parse(FULL_ACCESS_TEXT[id], FORMS[type]), f"arn:aws:organizations::aws:policy/{type.lower()}/{id}"
    )
    for type, id in FULL_ACCESS.items()
}


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


def attached(row: Row, type: str) -> list[str]:
    """Ids of the policies of a type that are attached to a node, in the order they came."""
    return list(row.doc["policies"].get(type, ()))


def enabled(view: View, type: str) -> bool:
    """Whether a policy type is."""
    top = root(view)
    return top is not None and any(one["Type"] == type for one in top.doc["PolicyTypes"])


class OrganisationTree:
    """`bastide.kernel.Organisation` over the rows of Organizations."""

    def __init__(self, management_account: str) -> None:
        self._management = management_account

    def scps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Service control policies in force, a list a level, root first; empty for the management account, outside of
        the organisation, and while they are not enabled."""
        if account == self._management:
            return ()
        return view.memo(("organizations:scps", account), SCOPES, lambda: _levels(view, account, SCP))

    def rcps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Resource control policies in force for what the account owns, likewise."""
        if account == self._management:
            return ()
        return view.memo(("organizations:rcps", account), SCOPES, lambda: _levels(view, account, RCP))

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

    def suspended(self, view: View, account: str) -> bool:
        """Whether the account was closed."""

        def load() -> bool:
            row = ACCOUNT.row(view, account)
            return row is not None and row.status != "ACTIVE"

        return view.memo(("organizations:suspended", account), _ACCOUNTS, load)

    def untrusted(self, view: View, account: str) -> bool:
        """See `untrusted`."""
        return view.memo(("organizations:untrusted", account), _SAID, lambda: untrusted(view, account))

    def noncompliant(self, view: View, account: str, type: str, key: str, value: str) -> bool:
        """Whether the account's effective tag policy forbids this tag on resources of the type (``s3:bucket``)."""
        rules = _rules(view, account)
        return bool(rules) and tag_policy.forbids(rules, type, key, value)

    def tag_faults(self, view: View, account: str, tags: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Of a resource's tags, what the policy would have otherwise: keys of the wrong case, keys with a wrong value."""
        return tag_policy.faults(_rules(view, account), tags)


def _rules(view: View, account: str) -> dict[str, tag_policy.Rule]:
    return view.memo(("organizations:tags", account), SCOPES, lambda: tag_policy.rules(effective(view, account)))


_ACCOUNTS: Final = ((ACCOUNT.key, ""),)
_SAID: Final = (*SCOPES, (TAKEN, ""))


def untrusted(view: View, account: str) -> bool:
    """Whether the nearest tag `UNTRUSTED` says so, of the account, the units above it and the root; without one, no. A
    value that is not ``false`` says yes, whatever it is. Of an account that has left, what was so when it did."""
    rows = path(view, account)
    if not rows:
        left = view.get(TAKEN, "", "", f"account/{account}")
        return left is not None and bool(left.doc.get("Untrusted"))
    said = [row.tags[UNTRUSTED] for row in rows if UNTRUSTED in row.tags]
    return bool(said) and said[-1].strip().lower() != "false"


def effective(view: View, id: str) -> dict[str, Any]:
    """The tag policy that is in force for a node, without its operators; empty if there is none."""
    if not enabled(view, TAG):
        return {}
    levels: list[list[dict[str, Any]]] = []
    for row in path(view, id):
        rows = [POLICY.row(view, one) for one in attached(row, TAG)]
        levels.append([json.loads(one.doc["Content"]) for one in rows if one is not None])
    return tag_policy.merged(levels)


def _levels(view: View, account: str, type: str) -> Sequence[Sequence[Attached]]:
    if not enabled(view, type):
        return ()
    return tuple(
        tuple(_attached(view, policy, FORMS[type]) for policy in attached(row, type)) for row in path(view, account)
    )


def _attached(view: View, policy: str, form: Form) -> Attached:
    if policy in _FULL:
        return _FULL[policy]
    row = POLICY.row(view, policy)
    if row is None:
        raise LookupError(f"the attached policy {policy} is not there")  # refuses the call: what it denied is unknown
    return Attached(Document.parse_cached(row.doc["Content"], form), row.doc["Arn"])
