"""Who asks, and whom a Principal or NotPrincipal element names.

Source: IAM User Guide, "AWS JSON policy elements: Principal", "AWS JSON policy elements: NotPrincipal" and
"Permissions boundaries for IAM entities".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final, Literal

from bastide.policy.faults import malformed, shown

Kind = Literal["User", "AssumedRole", "FederatedUser", "Role", "Root", "Service", "Federated", "Anonymous"]


@dataclass(slots=True)
class Principal:
    """Who asks.

    arn: of the user, of the session (``arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION``), of the account's root, the
    provider of a federated identity or the name of a service; "" for nobody. principal_arn: the role's ARN for a
    session, the user's for a federated user session (GetFederationToken), else the same as arn. account: None where the
    principal belongs to none. user_id: ``AIDA...`` or ``AROA...:SESSION``, "" where it is not known.
    """

    kind: Kind
    account: str | None
    arn: str
    principal_arn: str = ""
    user_id: str = ""


class Named(IntEnum):
    """How a Principal element names somebody; a later one includes what the earlier ones give."""

    NOT = 0
    ACCOUNT = 1
    """The account: it may pass the permission on by its own identity policies."""
    ROLE = 2
    """The role of a session: granted, within the role's boundary and the session's policies."""
    DIRECT = 3
    """The user, the session itself, a service, or everybody: granted."""


@dataclass(frozen=True, slots=True)
class Names:
    """A compiled Principal element."""

    everybody: bool
    accounts: frozenset[str]
    arns: frozenset[str]
    services: frozenset[str]
    federated: frozenset[str]
    canonical: frozenset[str] = frozenset()
    """Canonical user ids, which stand for accounts."""
    ids: frozenset[str] = frozenset()
    """Unique ids of users and roles: what AWS keeps in the place of an ARN whose bearer was deleted. They name whoever has
    the id, so a user or role made anew under the old name is not meant."""

    def names(self, who: Principal) -> Named:
        """How the element names `who`.

        "*" means all users, anonymous ones included, and grants without further permissions within the account.
        """
        if self.everybody:
            return Named.DIRECT
        kind = who.kind
        if kind == "Service":
            return Named.DIRECT if who.arn in self.services else Named.NOT
        if kind == "Federated":
            return Named.DIRECT if who.arn in self.federated else Named.NOT
        if kind == "Anonymous":
            return Named.NOT
        if kind == "Role":
            if who.arn in self.arns:
                return Named.ROLE
        elif who.arn in self.arns:
            return Named.DIRECT
        elif kind in ("AssumedRole", "FederatedUser") and who.principal_arn in self.arns:
            return Named.ROLE
        if self.ids and who.user_id and who.user_id.partition(":")[0] in self.ids:
            return Named.DIRECT if kind == "User" else Named.ROLE
        return Named.ACCOUNT if self._account(who) else Named.NOT

    def _account(self, who: Principal) -> bool:
        account = who.account
        if account is None:
            return False
        return account in self.accounts or (bool(self.canonical) and canonical_id(account) in self.canonical)

    def grants(self, who: Principal) -> Named:
        """The same in an Allow: what a foreign provider asserts counts only where the provider is named."""
        if who.kind == "Federated" and who.arn not in self.federated:
            return Named.NOT
        return self.names(who)

    def exempts(self, who: Principal, bounded: bool) -> bool:
        """Whether a NotPrincipal with Deny leaves `who` alone.

        Its account has to be listed beside it, and for a session its role too. "NotPrincipal with a Deny effect will
        always deny any IAM principal that has a permissions boundary policy attached, regardless of the values".
        """
        if self.everybody:
            return True
        if who.kind in ("Service", "Federated", "Anonymous"):
            return self.names(who) is not Named.NOT
        if bounded or not self._account(who):
            return False
        if who.kind == "Root":
            return True
        return who.arn in self.arns and (
            who.kind not in ("AssumedRole", "FederatedUser") or who.principal_arn in self.arns
        )


Chosen = Callable[[Principal, bool], Named]
"""How a statement names a principal; the flag says that the principal has a permissions boundary."""

_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_ROOT: Final = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}):root")
_ENTITY: Final = re.compile(
    r"arn:aws[a-z-]*:(iam::[0-9]{12}:(user|role)/[!-~]+"
    r"|sts::[0-9]{12}:(assumed-role/[\w+=,.@-]+/[\w+=,.@-]+|federated-user/[\w+=,.@-]+))",
    re.ASCII,
)
_CANONICAL: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"A(?:ID|RO)A[A-Z0-9]{12,124}")
_SERVICE: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_PROVIDER: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(saml-provider|oidc-provider)/[!-~]+|[a-z0-9][a-z0-9.-]*")


@lru_cache(maxsize=10_000)
def canonical_id(account: str) -> str:
    """The canonical user id of an account, as S3 names owners and grantees."""
    return hashlib.sha256(f"canonical:{account}".encode()).hexdigest()


EVERYBODY: Final = Names(True, frozenset(), frozenset(), frozenset(), frozenset())


def names(element: object, place: str) -> Names:
    """Compiles a Principal element: ``"*"`` or a map from AWS, Service, Federated and CanonicalUser to one name or several.

    Raises Refused (MalformedPolicyDocument) for a name that is not one; a part of a name cannot be a wildcard.
    """
    if element == "*":
        return EVERYBODY
    if not isinstance(element, Mapping) or not element:
        raise malformed(place, f"Invalid principal in policy: {shown(element)}")
    everybody = False
    accounts: set[str] = set()
    found: dict[str, set[str]] = {kind: set() for kind in _FORMS}
    ids: set[str] = set()
    for kind, listed in element.items():
        where = f"{place}.{shown(kind)}"
        if kind not in found:
            raise malformed(
                where, f"Invalid principal in policy: principals of the kind {shown(kind)} are not supported"
            )
        values = listed if isinstance(listed, (list, tuple)) else [listed]
        if not values:
            raise malformed(where, "Invalid principal in policy: no principal is named")
        for name in values:
            if type(name) is not str:  # a number as written in JSON is a text of its own type
                raise malformed(where, f"Invalid principal in policy: {shown(name)}")
            if kind == "AWS" and name == "*":
                everybody = True
            elif kind == "AWS" and (_ACCOUNT.fullmatch(name) or _ROOT.fullmatch(name)):
                accounts.add(name if len(name) == 12 else name.split(":")[4])
            elif kind == "AWS" and _ID.fullmatch(name):
                ids.add(name)
            elif _FORMS[kind].fullmatch(name) and "*" not in name and "?" not in name:
                found[kind].add(name)
            else:
                raise malformed(where, f'Invalid principal in policy: "{shown(kind)}":"{shown(name)}"')
    return Names(
        everybody,
        frozenset(accounts),
        frozenset(found["AWS"]),
        frozenset(found["Service"]),
        frozenset(found["Federated"]),
        frozenset(found["CanonicalUser"]),
        frozenset(ids),
    )


_FORMS: Final = {"AWS": _ENTITY, "Service": _SERVICE, "Federated": _PROVIDER, "CanonicalUser": _CANONICAL}


def chosen(element: object, place: str, *, deny: bool, through: bool = False) -> Chosen:
    """The test of a Principal element.

    through: the policy only lets requests through, as that of an endpoint does; it grants nothing.
    """
    listed = names(element, place)
    if deny or through:
        return lambda who, bounded: listed.names(who)
    return lambda who, bounded: listed.grants(who)


def not_chosen(element: object, place: str, *, deny: bool, through: bool = False) -> Chosen:
    """The test of a NotPrincipal element.

    In a Deny it names everybody who is not exempt. In an Allow, which AWS advises against, it names everybody of whom
    no form (user or session, role, account) is listed: both ways a doubt is a refusal.
    """
    listed = names(element, place)
    if deny:
        return lambda who, bounded: Named.NOT if listed.exempts(who, bounded) else Named.DIRECT
    return lambda who, bounded: (
        Named.DIRECT if listed.names(who) is Named.NOT and (through or who.kind != "Federated") else Named.NOT
    )
