"""sso-oidc: clients register, ask for a person's consent, and get tokens.

Source: IAM Identity Center OIDC API reference; RFC 8628 (device codes), RFC 7636 (PKCE), RFC 8252 (loopback redirects).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Ask, Authorised, Call, Caller, Calls, Output, anything
from bastide.services.identity_center import sign_in
from bastide.services.identity_center.instance import Noun, instance
from bastide.services.identity_center.sign_in import Client, fault
from bastide.store import Row, Transaction, View

CLIENT: Final = Noun("Client", service="sso-oidc", arn="client/{}", arn_service="sso")
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_GRANTS: Final = ("authorization_code", "refresh_token", _DEVICE_GRANT)
_LOOPBACK: Final = ("127.0.0.1", "[::1]", "localhost")
_INTERVAL: Final = 1
_MOST_POLLED: Final = 20_000
_MOST_WAITING: Final = 5000
_MOST_WAITING_OF_ONE: Final = 500


@dataclass(slots=True)
class Portal:
    """Where people sign in. url: the platform's public address, without a path; hosts: the names it answers to.
    polled: when a device code was last asked for. waiting: until when clients wait for a person, and where they are."""

    hosts: tuple[str, ...]
    url: str
    polled: OrderedDict[str, Instant] = field(default_factory=OrderedDict)
    waiting: deque[tuple[Instant, str]] = field(default_factory=deque)
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def device(self) -> str:
        """The page where people type a code."""
        return f"{self.url}/_bastide/signin/device"

    def wait(self, source: str, now: Instant) -> None:
        """One more client waits; raises Refused (SlowDownException) when too many do, since everybody may begin to."""
        while self.waiting and self.waiting[0][0] <= now:
            _, gone = self.waiting.popleft()
            self.sources[gone] -= 1
            if not self.sources[gone]:
                del self.sources[gone]
        if len(self.waiting) >= _MOST_WAITING or self.sources[source] >= _MOST_WAITING_OF_ONE:
            raise fault("SlowDownException", "slow_down", "Too many clients wait to be authorized.")
        self.waiting.append((now + sign_in.DEVICE_SECONDS * MICROS, source))
        self.sources[source] += 1


def portal_caller(calls: Calls, user: str = "", name: str = "") -> Caller:
    """Who speaks to the access portal: a person who signed in, or a client that acts for nobody yet."""
    return Caller("IdentityCenterUser", calls.home, "", "", user, name)


def _needless(action: str) -> list[Ask]:
    return [Ask(f"sso:{action}", anything, needless=True)]


def _bad(text: str) -> Refused:
    return fault("InvalidRequestException", "invalid_request", text)


# -- registering -------------------------------------------------------------------------------------------------------


def loopback(url: str) -> tuple[str, str] | None:
    """Host and path of a redirect to a program on the person's own machine, the only ones there are; None for others."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for a port that is none
    except ValueError:
        return None
    host = parts.netloc.rsplit(":", 1)[0] if re.search(r":\d+$", parts.netloc) else parts.netloc
    if parts.scheme != "http" or host not in _LOOPBACK or parts.query or parts.fragment or re.search(r"[^!-~]", url):
        return None
    return host, parts.path


def _anybody(calls: Calls, view: View, call: Call) -> Caller:
    """A client that registers is nobody yet."""
    return portal_caller(calls, name=str(call.input["clientName"])[:64])


@CLIENT.reads("RegisterClient", asks=_needless("RegisterClient"), identify=_anybody)
def register(a: Authorised, view: View) -> Output:
    """Open to everybody, as AWS's is; nothing is kept of it."""
    given = a.input
    if given["clientType"] != "public":
        raise fault("InvalidClientMetadataException", "invalid_client_metadata", "The client type must be public")
    if given.get("entitledApplicationArn"):
        raise _bad("Bastide has no applications.")
    name = str(given["clientName"])
    if not 1 <= len(name) <= 256 or not name.isprintable():
        raise fault("InvalidClientMetadataException", "invalid_client_metadata", "Invalid client name")
    grants = [str(one) for one in given.get("grantTypes") or ()]
    if any(one not in _GRANTS for one in grants):
        raise fault("UnsupportedGrantTypeException", "unsupported_grant_type", "Unsupported grant type")
    scopes = [str(one) for one in given.get("scopes") or ()]
    if any(one != sign_in.SCOPE for one in scopes):
        raise fault("InvalidScopeException", "invalid_scope", f"The only scope here is {sign_in.SCOPE}")
    redirects = [str(one) for one in given.get("redirectUris") or ()]
    if len(redirects) > 10 or any(loopback(one) is None or len(one) > 200 for one in redirects):
        raise fault(
            "InvalidRedirectUriException", "invalid_redirect_uri", "Redirects lead to http://127.0.0.1, without a query"
        )
    if "authorization_code" in grants and not redirects:
        raise fault("InvalidRedirectUriException", "invalid_redirect_uri", "A redirect URI is required")
    if given.get("issuerUrl") is not None and not _ours(a, view, str(given["issuerUrl"])):
        raise _bad("Invalid issuer url provided")
    id, secret, expires = sign_in.register(a.calls.sealer, name, scopes, redirects, grants, a.now)
    url = a.engine(Portal).url
    return {
        "clientId": id,
        "clientSecret": secret,
        "clientIdIssuedAt": a.now // MICROS,
        "clientSecretExpiresAt": expires // MICROS,
        "authorizationEndpoint": f"{url}/authorize",
        "tokenEndpoint": f"{url}/token",
    }


def _ours(a: Authorised, view: View, url: str) -> bool:
    """Whether a start URL is this portal's: as AWS has it, or under one of the platform's own names."""
    here = instance(view)
    if here is not None and url.rstrip("/").removesuffix("/#") == here.start_url:
        return True
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme == "https" and parts.path.rstrip("/") == "/start" and host in a.engine(Portal).hosts


# -- device codes ------------------------------------------------------------------------------------------------------


def _client(calls: Calls, call: Call) -> Client:
    given = call.input
    return sign_in.proven(calls.sealer, str(given["clientId"]), str(given["clientSecret"]), call.request.at)


def _by_client(calls: Calls, view: View, call: Call) -> Caller:
    return portal_caller(calls, name=_client(calls, call).name[:64])


@CLIENT.operation("StartDeviceAuthorization", asks=_needless("StartDeviceAuthorization"), identify=_by_client)
def start(a: Authorised, tx: Transaction) -> Output:
    by = _client(a.calls, a.call)
    if by.grants and _DEVICE_GRANT not in by.grants:
        raise fault(
            "UnauthorizedClientException", "unauthorized_client", "The client did not register for device codes"
        )
    if not _ours(a, tx, str(a.input["startUrl"])):
        raise _bad("Invalid start url provided")
    portal = a.engine(Portal)
    portal.wait(a.request.source_ip, a.now)
    device, typed = sign_in.begin_device(tx, by, a.now)
    page = portal.device
    return {
        "deviceCode": device,
        "userCode": typed,
        "verificationUri": page,
        "verificationUriComplete": f"{page}?user_code={typed}",
        "expiresIn": sign_in.DEVICE_SECONDS,
        "interval": _INTERVAL,
    }


# -- tokens ------------------------------------------------------------------------------------------------------------


def _grant(view: View, call: Call, by: Client) -> Row | None:
    """The sign-in that a grant is of, as far as there is one; for the record."""
    given, now = call.input, call.request.at
    if given.get("refreshToken"):
        found = sign_in.of_refresh_token(view, str(given["refreshToken"]), by, now)
        return found[1] if found is not None else None
    kind, secret = (sign_in.CODE, given.get("code")) if given.get("code") else (sign_in.DEVICE, given.get("deviceCode"))
    row = view.get(kind, "", "", sign_in.digest(str(secret))) if secret else None
    return sign_in.signed_in(view, row.doc["sign_in"], now) if row is not None and row.doc["sign_in"] else None


def _by_grant(calls: Calls, view: View, call: Call) -> Caller:
    by = _client(calls, call)
    found = _grant(view, call, by)
    return portal_caller(calls, found.doc["user"] if found is not None else "", by.name[:64])


def _invalid_grant() -> Refused:
    return fault("InvalidGrantException", "invalid_grant", "Invalid grant provided")


@CLIENT.operation("CreateToken", asks=_needless("CreateToken"), identify=_by_grant)
def create_token(a: Authorised, tx: Transaction) -> Output:
    by = _client(a.calls, a.call)
    kind = a.input["grantType"]
    if kind == _DEVICE_GRANT:
        return _by_device(a, tx, by)
    if kind == "authorization_code":
        return _by_code(a, tx, by)
    if kind == "refresh_token":
        return _by_refresh(a, tx, by)
    raise fault("UnsupportedGrantTypeException", "unsupported_grant_type", f"Unsupported grant type {kind[:100]}")


def _slowly(a: Authorised, device: str) -> None:
    """Raises Refused (SlowDownException) for who asks again within the interval. Kept in memory: a refusal leaves nothing
    behind in the store."""
    polled = a.engine(Portal).polled
    last = polled.pop(device, 0)
    polled[device] = a.now
    while len(polled) > _MOST_POLLED:
        polled.popitem(last=False)
    if a.now - last < _INTERVAL * MICROS // 2:
        raise fault("SlowDownException", "slow_down", "The client asks too often")


def _by_device(a: Authorised, tx: Transaction, by: Client) -> Output:
    device = sign_in.digest(_required(a, "deviceCode"))
    row = tx.get(sign_in.DEVICE, "", "", device)
    if row is None or row.doc["client"] != by.digest:
        raise _invalid_grant()
    if a.now >= row.doc["expires"]:
        raise fault("ExpiredTokenException", "expired_token", "The device code has expired")
    if row.doc["state"] == "DENIED":
        raise fault("AccessDeniedException", "access_denied", "The person did not allow it")
    if row.doc["state"] == "PENDING":
        _slowly(a, device)
        raise fault("AuthorizationPendingException", "authorization_pending", "The person has not answered yet")
    held = sign_in.signed_in(tx, row.doc["sign_in"], a.now)
    if held is None:
        raise _invalid_grant()
    sign_in.spend_device(tx, row)
    return sign_in.issue(tx, by, held, row.doc["scopes"], a.now)


def _by_code(a: Authorised, tx: Transaction, by: Client) -> Output:
    if "authorization_code" not in by.grants:
        raise fault("UnauthorizedClientException", "unauthorized_client", "The client did not register for codes")
    row = tx.get(sign_in.CODE, "", "", sign_in.digest(_required(a, "code")))
    if row is None or row.doc["client"] != by.digest or a.now >= row.doc["expires"]:
        raise _invalid_grant()
    verifier = _required(a, "codeVerifier")
    told = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    held = sign_in.signed_in(tx, row.doc["sign_in"], a.now)
    same = hmac.compare_digest(told, row.doc["challenge"])
    if not same or _required(a, "redirectUri") != row.doc["redirect"] or held is None:
        raise _invalid_grant()
    tx.delete(row, keep=False)
    return sign_in.issue(tx, by, held, row.doc["scopes"], a.now)


def _by_refresh(a: Authorised, tx: Transaction, by: Client) -> Output:
    found = sign_in.of_refresh_token(tx, _required(a, "refreshToken"), by, a.now)
    if found is None:
        raise _invalid_grant()
    row, held = found
    tx.delete(row, keep=False)
    return sign_in.issue(tx, by, held, row.doc["scopes"], a.now)


def _required(a: Authorised, member: str) -> str:
    found = a.input.get(member)
    if not found:
        raise _bad(f"Missing {member}")
    return str(found)


def challenge(text: str) -> bool:
    """Whether a text is an S256 challenge."""
    return re.fullmatch(r"[A-Za-z0-9_-]{43}", text) is not None


def fits(by: Client, redirect: str) -> bool:
    """Whether a client registered a redirect. Its port is the program's to choose (RFC 8252, 7.3)."""
    asked = loopback(redirect)
    return asked is not None and any(loopback(one) == asked for one in by.redirects)
