"""Sign-ins: a person that an identity provider vouched for, and the tokens that clients hold for them.

Nothing that opens anything is kept: of codes, tokens and the browser's secret only digests. A token is worth what its
sign-in is: it ends with it, with the person, and by itself. Registering a client keeps nothing at all, since everybody may:
the client's id is what it said of itself, sealed, and its secret the proof that it was given that id.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused, new_id
from bastide.kernel import Sealer, Session
from bastide.services.identity_center import people
from bastide.store import Row, Transaction, View

SIGN_IN: Final = "sso-oidc:SignIn"
"""Rows by id: whose it is, which provider vouched, until when it lasts, the digest of the browser's secret. They are kept
beyond that, as long as role sessions may last that began in them: so long the provider is asked about their person."""
SIGN_IN_OF: Final = "sso-oidc:SignInOf"
"""Rows ``USER/ID``: the same, to be walked from the person."""
ENDED: Final = "sso-oidc:Ended"
"""Rows by user: when the identity provider took back what it had vouched for; what began before then is over."""
TOKEN: Final = "sso-oidc:Token"  # noqa: S105 - a kind of row
"""Rows by digest: access and refresh tokens."""
DEVICE: Final = "sso-oidc:Device"
"""Rows by digest of the device code: who asks, and what the person said."""
USER_CODE: Final = "sso-oidc:UserCode"
"""Rows by digest of the code that the person types: the device code's digest."""
CODE: Final = "sso-oidc:Code"
"""Rows by digest: authorization codes."""

SCOPE: Final = "sso:account:access"
SIGN_IN_SECONDS: Final = 8 * 3600
"""As AWS's access portal has it unless configured."""
_LONGEST_ROLE_SECONDS: Final = 12 * 3600
ACCESS_SECONDS: Final = 3600
DEVICE_SECONDS: Final = 600
CODE_SECONDS: Final = 60
CLIENT_SECONDS: Final = 90 * 24 * 3600
_PURGED: Final = 20
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""Of codes that people type: no vowels, so that no words come about (RFC 8628, 6.1)."""


def digest(secret: str) -> str:
    """What is kept of a secret with at least 128 random bits, or of a code that lives for minutes."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _purge(tx: Transaction, kind: str, now: Instant) -> None:
    """Forgets the oldest rows that have expired: a few at every addition keep up with all additions."""
    for row in tx.scan(kind, "", "", order="created", limit=_PURGED):
        if row.doc["expires"] <= now:
            tx.delete(row, keep=False)


def _put(tx: Transaction, kind: str, name: str, doc: dict[str, Any], now: Instant) -> None:
    _purge(tx, kind, now)
    tx.insert(Row(kind, "", "", name, doc, created=now, modified=now), keep=False)


def _drop(tx: Transaction, kind: str, name: str) -> None:
    row = tx.get(kind, "", "", name)
    if row is not None:
        tx.delete(row, keep=False)


def fault(code: str, error: str, text: str, status: int = 400) -> Refused:
    """An error of sso-oidc, which says it in OAuth's words too."""
    return Refused(code, text, status, members={"error": error, "error_description": text})


# -- clients -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client, as it told of itself. digest: stands for it where tokens are kept."""

    name: str
    scopes: tuple[str, ...]
    redirects: tuple[str, ...]
    grants: tuple[str, ...]
    expires: Instant
    digest: str

    @property
    def refreshes(self) -> bool:
        """Whether it is given refresh tokens."""
        return "refresh_token" in self.grants or bool(self.scopes and not self.grants)


def register(
    sealer: Sealer, name: str, scopes: Sequence[str], redirects: Sequence[str], grants: Sequence[str], now: Instant
) -> tuple[str, str, Instant]:
    """A new client's id and secret, and when they expire."""
    expires = now + CLIENT_SECONDS * MICROS
    told = orjson.dumps([name, list(scopes), list(redirects), list(grants), expires])
    id = sealer.seal(told, "sso-oidc/client")
    return id, sealer.seal(digest(id).encode(), "sso-oidc/client-secret"), expires


def client(sealer: Sealer, id: str, now: Instant) -> Client:
    """The client of an id; raises Refused (InvalidClientException)."""
    try:
        name, scopes, redirects, grants, expires = orjson.loads(sealer.open(id, "sso-oidc/client"))
    except (ValueError, Refused):
        raise fault("InvalidClientException", "invalid_client", "Invalid client provided", 401) from None
    if now >= expires:
        raise fault("InvalidClientException", "invalid_client", "The client registration has expired", 401)
    return Client(name, tuple(scopes), tuple(redirects), tuple(grants), expires, digest(id))


def proven(sealer: Sealer, id: str, secret: str, now: Instant) -> Client:
    """The client that has the secret of its id; raises Refused (InvalidClientException)."""
    found = client(sealer, id, now)
    try:
        told = sealer.open(secret, "sso-oidc/client-secret").decode()
    except (ValueError, Refused):
        told = ""
    if not hmac.compare_digest(told.encode(), found.digest.encode()):
        raise fault("InvalidClientException", "invalid_client", "Invalid client secret provided", 401)
    return found


# -- sign-ins ----------------------------------------------------------------------------------------------------------


def begin(
    tx: Transaction, sealer: Sealer, user: str, issuer: str, subject: str, refresh: str, now: Instant
) -> tuple[str, str]:
    """A new sign-in: its id, and the browser's secret. refresh: the provider's refresh token, by which it is asked later
    whether it still vouches."""
    id, secret = new_id(), secrets.token_urlsafe(32)
    until = now + SIGN_IN_SECONDS * MICROS
    expires = until + _LONGEST_ROLE_SECONDS * MICROS
    doc = {
        "user": user,
        "issuer": issuer,
        "subject": subject,
        "refresh": sealer.seal(refresh.encode(), "sso-oidc/provider-token") if refresh else "",
        "secret": digest(secret),
        "until": until,
        "expires": expires,
    }
    _put(tx, SIGN_IN, id, doc, now)
    _put(tx, SIGN_IN_OF, f"{user}/{id}", {"expires": expires}, now)
    return id, secret


def signed_in(view: View, id: str, now: Instant) -> Row | None:
    """The sign-in, while it lasts and its person may sign in."""
    row = view.get(SIGN_IN, "", "", id)
    if row is None or now >= row.doc["until"] or not people.enabled(view, row.doc["user"]):
        return None
    return row


def of_browser(view: View, id: str, secret: str, now: Instant) -> Row | None:
    """The sign-in of whoever has its secret."""
    row = signed_in(view, id, now)
    if row is None or not hmac.compare_digest(digest(secret), row.doc["secret"]):
        return None
    return row


def end(tx: Transaction, id: str) -> None:
    """Ends a sign-in and with it every token that came of it. Role sessions last as long as they were given, as AWS has
    it, unless the provider takes them back."""
    row = tx.get(SIGN_IN, "", "", id)
    if row is not None:
        row.doc["until"] = 0
        tx.update(row, keep=False)


def take_back(tx: Transaction, user: str, now: Instant) -> int:
    """Ends all sign-ins of a person and every role session that began in one, whether the person signed out of it or not,
    because the provider vouches no more; returns how many sign-ins there were."""
    rows = tx.scan(SIGN_IN_OF, "", "", prefix=f"{user}/", limit=10_000)
    for row in rows:
        _drop(tx, SIGN_IN, row.name.rpartition("/")[2])
        tx.delete(row, keep=False)
    _drop(tx, ENDED, user)
    _put(tx, ENDED, user, {"at": now, "expires": now + _LONGEST_ROLE_SECONDS * MICROS}, now)
    return len(rows)


def _ended(view: View, user: str) -> Instant:
    row = view.get(ENDED, "", "", user)
    return -1 if row is None else int(row.doc["at"])


def stands(view: View, session: Session) -> bool:
    """Whether a role session may go on: the provider has not taken back what it began with, and its person is still
    enabled and assigned. Sessions that did not begin at the portal may."""
    if not session.origin:
        return True
    user = session.origin[0]
    ended = view.memo(("sso-oidc:ended", user), ((ENDED, ""),), lambda: _ended(view, user))
    return session.issued > ended and people.stands(view, *session.origin)


# -- what clients are given --------------------------------------------------------------------------------------------


def issue(tx: Transaction, by: Client, sign_in: Row, scopes: Sequence[str], now: Instant) -> dict[str, Any]:
    """CreateToken's answer: an access token of the sign-in, and a refresh token for clients that may have one."""
    lasts = ACCESS_SECONDS if by.refreshes else SIGN_IN_SECONDS
    expires = min(now + lasts * MICROS, sign_in.doc["until"])
    doc = {"sign_in": sign_in.name, "client": by.digest, "scopes": list(scopes)}
    access = "aoa" + secrets.token_urlsafe(48)
    _put(tx, TOKEN, digest(access), {**doc, "kind": "access", "expires": expires}, now)
    answer = {"accessToken": access, "tokenType": "Bearer", "expiresIn": (expires - now) // MICROS}
    if by.refreshes:
        refresh = "aor" + secrets.token_urlsafe(48)
        held = {**doc, "kind": "refresh", "expires": sign_in.doc["until"]}
        _put(tx, TOKEN, digest(refresh), held, now)
        answer["refreshToken"] = refresh
    return answer


def _token(view: View, token: str, kind: str, now: Instant) -> tuple[Row, Row] | None:
    """A token's row and its sign-in's, while both last."""
    row = view.get(TOKEN, "", "", digest(token))
    if row is None or row.doc["kind"] != kind or now >= row.doc["expires"]:
        return None
    sign_in = signed_in(view, row.doc["sign_in"], now)
    return None if sign_in is None else (row, sign_in)


def of_access_token(view: View, token: str, now: Instant) -> Row | None:
    """The sign-in that an access token is of."""
    found = _token(view, token, "access", now)
    if found is None or (found[0].doc["scopes"] and SCOPE not in found[0].doc["scopes"]):
        return None
    return found[1]


def of_refresh_token(view: View, token: str, by: Client, now: Instant) -> tuple[Row, Row] | None:
    """The refresh token's row and its sign-in, if that client was given it."""
    found = _token(view, token, "refresh", now)
    return found if found is not None and found[0].doc["client"] == by.digest else None


# -- device codes ------------------------------------------------------------------------------------------------------


def begin_device(tx: Transaction, by: Client, now: Instant) -> tuple[str, str]:
    """A device code and the code that the person types."""
    device = secrets.token_urlsafe(48)
    letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
    typed = f"{letters[:4]}-{letters[4:]}"
    expires = now + DEVICE_SECONDS * MICROS
    doc = {
        "client": by.digest,
        "name": by.name,
        "scopes": list(by.scopes),
        "state": "PENDING",
        "sign_in": "",
        "typed": digest(typed),
        "expires": expires,
    }
    _put(tx, DEVICE, digest(device), doc, now)
    _put(tx, USER_CODE, digest(typed), {"device": digest(device), "expires": expires}, now)
    return device, typed


def by_typed(view: View, typed: str, now: Instant) -> Row | None:
    """The device authorization that waits for a person with that code."""
    letters = "".join(one for one in typed.upper() if one in _LETTERS)
    code = view.get(USER_CODE, "", "", digest(f"{letters[:4]}-{letters[4:]}"))
    row = view.get(DEVICE, "", "", code.doc["device"]) if code is not None else None
    if row is None or now >= row.doc["expires"] or row.doc["state"] != "PENDING":
        return None
    return row


def answer_device(tx: Transaction, device: str, sign_in: str, now: Instant, *, allowed: bool) -> bool:
    """What the person said; False when there was nothing to say it to any more."""
    row = tx.get(DEVICE, "", "", device)
    if row is None or now >= row.doc["expires"] or row.doc["state"] != "PENDING":
        return False
    row.doc |= {"state": "ALLOWED" if allowed else "DENIED", "sign_in": sign_in}
    tx.update(row, keep=False)
    _drop(tx, USER_CODE, row.doc["typed"])
    return True


def spend_device(tx: Transaction, row: Row) -> None:
    """A device code is good once."""
    _drop(tx, USER_CODE, row.doc["typed"])
    tx.delete(row, keep=False)


# -- authorization codes -----------------------------------------------------------------------------------------------


def new_code(
    tx: Transaction, by: str, redirect: str, challenge: str, scopes: Sequence[str], sign_in: str, now: Instant
) -> str:
    """An authorization code for a client (by its digest), good once, for a minute, at that address, for whoever knows
    the challenge's verifier."""
    code = secrets.token_urlsafe(48)
    doc = {
        "client": by,
        "redirect": redirect,
        "challenge": challenge,
        "scopes": list(scopes),
        "sign_in": sign_in,
        "expires": now + CODE_SECONDS * MICROS,
    }
    _put(tx, CODE, digest(code), doc, now)
    return code
