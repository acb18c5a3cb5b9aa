"""What IAM tells the guard of callers. Everything is remembered until a row that it was read from changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bastide.domain import MICROS, Arn, Instant
from bastide.kernel import Caller, Sealer, Session
from bastide.policy import Attached, Document, Form
from bastide.services.iam import mfa, service_credential
from bastide.services.iam.access_key import ACCESS_KEY, OWNER, PURPOSE
from bastide.services.iam.attachment import held
from bastide.services.iam.group import GROUP, groups_of
from bastide.services.iam.last_use import LastUse
from bastide.services.iam.policy import POLICY, text_of
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, Transaction, View

REVOKED: Final = "sts:RevokedSession"
"""Rows whose name is the id of a session that ended before its time, under the session's account; or the ARN of
what a service did (`Session.work`), under its account: of that, the sessions until the row's `At`."""
_LONGEST_SESSION: Final = 12 * 3600 * MICROS

_NOTHING: Final = Attached(
    Document.parse(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}, Form.BOUNDARY
    ),
    "a principal that does not exist any more",
)


def _of_work(session: Session) -> tuple[tuple[str, str], ...]:
    """Where it is kept whether that is over which a session was begun for."""
    return ((REVOKED, Arn.parse(session.work).account),) if session.work else ()


class _Unknown(Exception):  # noqa: N818
    """Leaves `View.memo` without anything remembered: unknown key ids must not crowd out known ones."""


def _attached(view: View, account: str, arn: str, form: Form) -> Attached | None:
    text = text_of(view, account, arn)
    return None if text is None else Attached(Document.parse_cached(text, form), arn)


def _granted(view: View, row: Row) -> list[Attached]:
    """The inline and attached policies of an entity; one that cannot be read might hold a Deny."""
    return [
        _NOTHING if one.text is None else Attached(Document.parse_cached(one.text, Form.IDENTITY), one.source)
        for one in held(view, row)
    ]


class IamDirectory:
    """`bastide.kernel.Directory` over IAM's rows."""

    def __init__(
        self,
        sealer: Sealer,
        last_use: LastUse,
        stands: Callable[[View, Session], bool] = lambda view, session: not session.origin,
    ) -> None:
        """stands: whether what a session began with at the access portal still holds."""
        self._sealer = sealer
        self._last_use = last_use
        self._stands = stands

    def used(self, caller: Caller, service: str, region: str, at: Instant) -> None:
        """Keeps that a caller made a request."""
        self._last_use.note(caller, service, region, at)

    def by_access_key(self, view: View, access_key: str) -> tuple[Caller, str] | None:
        """A long-term access key's user and secret; None if the key is unknown or inactive."""
        try:
            account, user = view.memo(("iam:owner", access_key), _OWNERS, lambda: self._owner(view, access_key))
            return view.memo(
                ("iam:key", access_key),
                ((ACCESS_KEY.key, account), (USER.key, account)),
                lambda: self._key(view, account, user, access_key),
            )
        except _Unknown:
            return None

    def by_service_credential(self, view: View, service: str, name: str, password: str) -> Caller | None:
        """The user of a service-specific credential; None for what is wrong or inactive."""
        return service_credential.caller_of(view, service, name, password)

    @staticmethod
    def _owner(view: View, access_key: str) -> tuple[str, str]:
        row = view.get(OWNER, "", "", access_key)
        if row is None:
            raise _Unknown
        return row.doc["account"], row.doc["user"]

    def _key(self, view: View, account: str, name: str, access_key: str) -> tuple[Caller, str] | None:
        key = view.get(ACCESS_KEY.key, account, "", f"{name}/{access_key}")
        user = view.get(USER.key, account, "", name)
        if key is None or user is None or key.doc["Status"] != "Active":
            return None
        doc = user.doc
        arn = doc["Arn"]
        caller = Caller("User", account, arn, arn, doc["UserId"], doc["UserName"], access_key, user.tags)
        return caller, self._sealer.open(key.doc["secret"], PURPOSE).decode()

    def by_session(self, view: View, session: Session) -> Caller | None:
        """The caller of a session; None when its role is gone or was made anew, or the session was revoked. A user's
        session ends with the user and with the access key that it was got with."""
        if session.origin and not self._stands(view, session):
            return None
        account = session.account
        if session.kind == "role":
            return view.memo(
                ("iam:session", session.id),
                ((ROLE.key, account), (REVOKED, account), *_of_work(session)),
                lambda: self._session(view, session),
            )
        return view.memo(
            ("iam:session", session.id),
            ((USER.key, account), (ACCESS_KEY.key, account), (REVOKED, account)),
            lambda: self._user_session(view, session),
        )

    @staticmethod
    def _session(view: View, session: Session) -> Caller | None:
        role = _role(view, session.account, session.role)
        if role is None or role.doc["RoleId"] != session.role_id:
            return None
        if view.get(REVOKED, session.account, "", session.id) is not None:
            return None
        for kind, place in _of_work(session):
            ended = view.get(kind, place, "", session.work)
            if ended is not None and session.issued <= ended.doc["At"]:
                return None
        return Caller(
            "AssumedRole",
            session.account,
            f"arn:aws:sts::{session.account}:assumed-role/{role.doc['RoleName']}/{session.name}",
            session.role,
            f"{session.role_id}:{session.name}",
            session.name,
            session.access_key,
            {**_unless(role.tags, session.tags), **session.tags},
            session,
        )

    @staticmethod
    def _user_session(view: View, session: Session) -> Caller | None:
        account = session.account
        user = _user(view, account, session.role)
        if user is None or user.doc["UserId"] != session.role_id:
            return None
        key = view.get(ACCESS_KEY.key, account, "", f"{user.name}/{session.parent}")
        if key is None or key.doc["Status"] != "Active":
            return None
        if view.get(REVOKED, account, "", session.id) is not None:
            return None
        arn, name = user.doc["Arn"], user.doc["UserName"]
        if session.kind == "user":
            return Caller("User", account, arn, arn, session.role_id, name, session.access_key, user.tags, session)
        return Caller(
            "FederatedUser",
            account,
            f"arn:aws:sts::{account}:federated-user/{session.name}",
            arn,
            f"{account}:{session.name}",
            session.name,
            session.access_key,
            {**_unless(user.tags, session.tags), **session.tags},
            session,
        )

    def end_sessions(self, tx: Transaction, work: str) -> None:
        """See `bastide.kernel.Directory`. What no session can outlive any more is forgotten."""
        account = Arn.parse(work).account
        for old in tx.scan(REVOKED, account, "", order="created", created_to=tx.now - 2 * _LONGEST_SESSION, limit=20):
            tx.delete(old, keep=False)
        row = tx.get(REVOKED, account, "", work)
        if row is None:
            tx.insert(Row(REVOKED, account, "", work, {"At": tx.now}), keep=False)
        else:
            row.doc["At"] = tx.now
            tx.update(row, keep=False)

    def second_factor(self, tx: Transaction, caller: Caller, serial: str, code: str, now: Instant) -> bool:
        """Whether `code` is good for a device of the calling user now; see `bastide.kernel.Directory`."""
        return mfa.spend(tx, self._sealer, caller, serial, code, now)

    def policies(self, view: View, caller: Caller) -> tuple[Sequence[Attached], Attached | None]:
        """Identity policies and permissions boundary of a caller; of one that is gone, nothing and a Deny."""
        account = caller.account
        kind = USER if caller.kind in _USERS else ROLE
        return view.memo(
            ("iam:policies", caller.principal_arn),
            ((kind.key, account), (POLICY.key, account), (GROUP.key, account)),
            lambda: self._policies(view, caller),
            by_rows=True,
        )

    @staticmethod
    def _policies(view: View, caller: Caller) -> tuple[Sequence[Attached], Attached | None]:
        account = caller.account
        if caller.kind == "Root":
            return (), None
        arn = caller.principal_arn
        row = _user(view, account, arn) if caller.kind in _USERS else _role(view, account, arn)
        if row is None or row.doc["Arn"] != arn:
            return (), _NOTHING
        found = _granted(view, row)
        if row.kind == USER.key:
            try:
                for group in groups_of(view, row):
                    found += _granted(view, group)
            except LookupError:
                found.append(_NOTHING)
        boundary = row.doc["boundary"]
        if not boundary:
            return tuple(found), None
        return tuple(found), _attached(view, account, boundary, Form.BOUNDARY) or _NOTHING

    def session_policies(self, view: View, caller: Caller) -> Sequence[Attached] | None:
        """Session policies; None if the session has none. A managed policy that is gone allows nothing, and a federated
        user to whom none was given may do nothing by policies of the user who asked for the session."""
        session = caller.session
        if session is None or not (session.policies or session.policy_arns):
            return () if session is not None and session.kind == "federated" else None
        return view.memo(
            ("iam:session-policies", session.id),
            ((POLICY.key, session.account),),
            lambda: self._session_policies(view, session),
        )

    @staticmethod
    def _session_policies(view: View, session: Session) -> Sequence[Attached]:
        found = [
            Attached(Document.parse_cached(text, Form.SESSION), "inline session policy") for text in session.policies
        ]
        for arn in session.policy_arns:
            policy = _attached(view, session.account, arn, Form.SESSION)
            if policy is not None:
                found.append(policy)
        return tuple(found)


_OWNERS: Final = ((OWNER, ""),)


def _role(view: View, account: str, arn: str) -> Row | None:
    row = ROLE.held(view, account, arn.rpartition("/")[2])
    return row if row is not None and row.doc["Arn"] == arn else None


_USERS: Final = frozenset({"User", "FederatedUser"})
"""Callers whose policies are a user's."""


def _user(view: View, account: str, arn: str) -> Row | None:
    row = USER.held(view, account, arn.rpartition("/")[2])
    return row if row is not None and row.doc["Arn"] == arn else None


def _unless(tags: dict[str, str], others: object) -> dict[str, str]:
    """Tags whose key is not among the others in any case: a session's tag takes the place of its role's."""
    lower = {str(key).lower() for key in others} if isinstance(others, dict) else set()
    return {key: value for key, value in tags.items() if key.lower() not in lower}
