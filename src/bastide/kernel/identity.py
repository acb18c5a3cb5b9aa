"""Who asks: callers, sessions, and the two directories the kernel reads them from."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

import orjson

from bastide.domain import Instant, Refused
from bastide.policy import Attached, Principal
from bastide.store import Transaction, View

CallerKind = Literal[
    "User", "AssumedRole", "FederatedUser", "Root", "Service", "Federated", "IdentityCenterUser", "Anonymous"
]
"""Federated: whom an identity provider asserts, while a role is taken on. IdentityCenterUser: who signed in to the access
portal; what they may do there is decided by their assignments, so no policy speaks of them."""
SIGNED = frozenset({"User", "AssumedRole", "FederatedUser", "Root"})
"""Kinds of callers that have policies and belong to an account."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session, whole inside its own session token; the platform keeps no row for it.

    kind: "role" (AssumeRole and its like), "user" (GetSessionToken) or "federated" (GetFederationToken). role, role_id:
    of a role session; of the others the user's ARN and id. mfa: when a second factor was shown, 0 if none was. provider:
    the identity provider that a federated session began at. keys: further condition keys of the session, lower case.
    origin: of a session that began at the access portal, and of those taken on from it: user, account and permission set;
    it lasts no longer than they do.
    work: the resource that a service took the role on for, of its session and of those taken on from it; they end with it.
    parent: the access key that a user's session was got with; it ends with that key.
    """

    id: str
    access_key: str
    account: str
    role: str
    role_id: str
    name: str
    issued: Instant
    expires: Instant
    policies: tuple[str, ...] = ()
    policy_arns: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive: tuple[str, ...] = ()
    source_identity: str = ""
    chained: bool = False
    kind: Literal["role", "user", "federated"] = "role"
    mfa: Instant = 0
    provider: str = ""
    keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    parent: str = ""
    origin: tuple[str, ...] = ()
    work: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, after the signature was verified.

    arn: the user's ARN or ``arn:aws:sts::...:assumed-role/ROLE/SESSION``. principal_arn: the role's ARN for a session,
    otherwise `arn`. user_id: ``AIDA...`` or ``AROA...:session``, as ``aws:userid`` has it.
    """

    kind: CallerKind
    account: str
    arn: str
    principal_arn: str
    user_id: str
    name: str
    access_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    session: Session | None = None
    source_arn: str = ""
    """For a service acting by itself: the resource it acts for, as ``aws:SourceArn``."""

    def principal(self) -> Principal:
        """The same in the policy engine's words."""
        if self.kind == "IdentityCenterUser":
            return Principal("Anonymous", None, "", "")
        return Principal(self.kind, self.account or None, self.arn, self.principal_arn, self.user_id)


ANONYMOUS = Caller("Anonymous", "", "", "", "ANONYMOUS_PRINCIPAL", "anonymous")


def service_caller(principal: str, account: str, source_arn: str = "") -> Caller:
    """An AWS service acting by itself, for something in `account`: ``sagemaker.amazonaws.com``.

    source_arn: the resource it acts for, as ``aws:SourceArn``.
    """
    return Caller("Service", account, principal, principal, principal, principal, source_arn=source_arn)


class Sealer(Protocol):
    """Authenticated encryption under the platform's root key; the keys engine is one."""

    def seal(self, data: bytes, purpose: str) -> str:
        """A token nobody else can read or make."""
        ...

    def open(self, token: str, purpose: str) -> bytes:
        """What was sealed; raises ValueError for anything else."""
        ...


class Directory(Protocol):
    """What IAM knows of callers."""

    def by_access_key(self, view: View, access_key: str) -> tuple[Caller, str] | None:
        """A long-term access key's user and secret; None if the key is unknown or inactive."""
        ...

    def by_service_credential(self, view: View, service: str, name: str, password: str) -> Caller | None:
        """The user who has this name and password for a service (``codecommit.amazonaws.com``); None for what is wrong or
        inactive."""
        ...

    def by_session(self, view: View, session: Session) -> Caller | None:
        """The caller of a session; None when its role is gone or was made anew, or the session was revoked."""
        ...

    def end_sessions(self, tx: Transaction, work: str) -> None:
        """Ends every session that was begun until now for what a service did (its ARN): whoever kept one has nothing."""
        ...

    def policies(self, view: View, caller: Caller) -> tuple[Sequence[Attached], Attached | None]:
        """Identity policies and permissions boundary of a caller."""
        ...

    def session_policies(self, view: View, caller: Caller) -> Sequence[Attached] | None:
        """Session policies; None if the session has none."""
        ...

    def second_factor(self, tx: Transaction, caller: Caller, serial: str, code: str, now: Instant) -> bool:
        """Whether `code` is good for a device of the calling user now. A code is good once; whoever guesses too often
        waits. Writes either way, so the answer must not be raised out of the transaction."""
        ...

    def used(self, caller: Caller, service: str, region: str, at: Instant) -> None:
        """Keeps, in memory, that a caller made a request of a service (by its prefix in policies)."""
        ...


class Organisation(Protocol):
    """What Organizations knows of accounts."""

    def scps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Service control policies in force, a list a level, root first; empty for the management account."""
        ...

    def rcps(self, view: View, account: str) -> Sequence[Sequence[Attached]]:
        """Resource control policies in force for resources of the account, a list a level, root first; empty for the
        management account. RCPFullAWSAccess is implied."""
        ...

    def place(self, view: View, account: str) -> tuple[str, str] | None:
        """Organisation id and the account's path (``o-x/r-y/ou-z/``); None outside an organisation."""
        ...

    def suspended(self, view: View, account: str) -> bool:
        """Whether the account was closed: nobody in it may do anything, and nobody anything to what it owns."""
        ...

    def untrusted(self, view: View, account: str) -> bool:
        """Whether the organisation says of the account that its code is not trusted."""
        ...

    def noncompliant(self, view: View, account: str, type: str, key: str, value: str) -> bool:
        """Whether the account's effective tag policy forbids this tag on resources of the type (``s3:bucket``)."""
        ...

    def tag_faults(self, view: View, account: str, tags: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Of a resource's tags, what its account's effective tag policy would have otherwise, enforced or not: keys of
        the wrong case, and keys with a wrong value."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A VPC endpoint that a call came through. services: botocore's names of those it leads to. region: the only one
    that it leads to, for services that have regions; empty for any."""

    id: str
    vpc: str
    account: str
    services: frozenset[str]
    policy: Attached | None
    region: str = ""


class Network(Protocol):
    """What EC2 knows of the ways in."""

    def endpoint(self, view: View, id: str) -> Endpoint | None:
        """The endpoint, or None when it is gone: then nothing comes through it any more."""
        ...

    def gateway(self, view: View, account: str, region: str, subnet: str) -> str:
        """The gateway endpoint by which a subnet reaches S3; empty if there is no way."""
        ...


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def unique_id(prefix: str, length: int = 17) -> str:
    """An id as IAM makes them: ``AROA`` and random letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def session_key_id(account: str) -> str:
    """An access key id of a session (``ASIA...``) from which its account can be read, as AWS's can: of the 80 bits the
    first is free, 40 are the account's number, the others random."""
    head = secrets.randbits(1) << 47 | int(account) << 7 | secrets.randbits(7)
    return "ASIA" + base64.b32encode(head.to_bytes(6, "big") + secrets.token_bytes(4)).decode()


def account_of_key(access_key: str) -> str:
    """The account that a session's access key id names; it need not exist. Raises ValueError for another kind of id."""
    if not access_key.startswith("ASIA") or len(access_key) != 20:
        raise ValueError("not an access key id of a session")
    number = (int.from_bytes(base64.b32decode(access_key[4:])[:6], "big") & 0x7FFFFFFFFF80) >> 7
    if number >= 10**12:
        raise ValueError("not an account number")
    return f"{number:012d}"


def new_secret() -> str:
    """A secret access key: 40 characters, 240 bits."""
    return secrets.token_urlsafe(30)


class Sessions:
    """Makes and reads session tokens."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._open = lru_cache(20_000)(self._opened)

    def issue(self, **known: Any) -> tuple[Session, str, str]:
        """A new session from its fields without id and access key; returns it, its secret and its token."""
        session = Session(id=secrets.token_hex(16), access_key=session_key_id(known["account"]), **known)
        secret = new_secret()
        fields = {name: getattr(session, name) for name in Session.__slots__}
        return session, secret, self._sealer.seal(orjson.dumps([fields, secret]), "session")

    def _opened(self, token: str) -> tuple[Session, str]:
        fields, secret = orjson.loads(self._sealer.open(token, "session"))
        for name in ("policies", "policy_arns", "transitive", "origin"):
            fields[name] = tuple(fields[name])
        fields["keys"] = {
            key: value if isinstance(value, str) else tuple(value) for key, value in fields.get("keys", {}).items()
        }
        return Session(**fields), secret

    def read(self, token: str, access_key: str, now: Instant) -> tuple[Session, str]:
        """Session and secret of a token; raises InvalidClientTokenId or ExpiredToken."""
        try:
            session, secret = self._open(token)
        except (ValueError, Refused):
            raise Refused(
                "InvalidClientTokenId", "The security token included in the request is invalid.", 403
            ) from None
        if session.access_key != access_key:
            raise Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        if now >= session.expires:
            raise Refused("ExpiredToken", "The security token included in the request is expired", 403)
        return session, secret
