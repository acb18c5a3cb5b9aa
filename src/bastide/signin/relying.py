"""The platform as client of an OIDC provider: authorization code with PKCE, ID tokens verified, refreshed to learn whether
the provider still vouches.

Source: OpenID Connect Core 1.0 (3.1.3.7: what to check of an ID token), Discovery 1.0, Back-Channel Logout 1.0 (2.6);
RFC 7636; RFC 9207.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import orjson

from bastide.domain import MICROS, Clock, wall
from bastide.engines.idp import Rejected, issuer_of, verify_token
from bastide.services.identity_center.people import Person
from bastide.store.identities import Provider

_SECONDS: Final = 10.0
_MOST_BYTES: Final = 1024 * 1024
_KNOWN_SECONDS: Final = 600.0
_AGAIN_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 1.0
"""After a provider did not answer: so long nobody else waits for it."""
_LOGOUT_SECONDS: Final = 300
_LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"


_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="identity-provider")
"""Of their own: whoever comes may have a provider asked, and one that is slow must not keep others' threads."""


class Unreachable(Exception):  # noqa: N818
    """The provider does not answer as one should; the text is for the log and the page."""


class Withdrawn(Exception):  # noqa: N818
    """The provider vouches no more."""


def challenge(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636, 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _context(provider: Provider) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=provider.authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def fetch(
    provider: Provider, url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a GET, or of a POST of `form`. Blocks; follows no redirect; raises Unreachable."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Unreachable(f"{url} is not an https address")
    sent = {"accept": "application/json", **(headers or {})}
    body = None
    if form is not None:
        body = urlencode(form).encode()
        sent["content-type"] = "application/x-www-form-urlencoded"
    try:
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=_SECONDS, context=_context(provider)
        )
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET" if form is None else "POST", path, body, sent)
            answer = connection.getresponse()
            raw = answer.read(_MOST_BYTES + 1)
        finally:
            connection.close()
        told = orjson.loads(raw) if len(raw) <= _MOST_BYTES else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{parts.hostname} did not answer: {type(error).__name__}") from None
    if not isinstance(told, dict):
        raise Unreachable(f"{parts.hostname} did not answer with a JSON object")
    return answer.status, told


@dataclass(slots=True)
class Relying:
    """A client of one provider. What the provider says of itself is remembered for ten minutes."""

    provider: Provider
    secret: str
    redirect: str
    clock: Clock = wall
    _told: dict[str, Any] = field(default_factory=dict)
    _keys: list[dict[str, Any]] = field(default_factory=list)
    _at: float = 0.0
    _keys_at: float = 0.0
    _failed_at: float = -_PAUSE_SECONDS
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Whoever comes may have the provider asked about itself: one asks, the others wait for what it learns."""

    async def metadata(self) -> dict[str, Any]:
        """The provider's configuration; raises Unreachable."""
        async with self._one:
            return await self._metadata()

    async def _fetch(self, url: str) -> tuple[int, dict[str, Any]]:
        if time.monotonic() - self._failed_at < _PAUSE_SECONDS:
            raise Unreachable("the provider did not answer a moment ago")
        try:
            return await asyncio.get_running_loop().run_in_executor(_THREADS, fetch, self.provider, url)
        except Unreachable:
            self._failed_at = time.monotonic()
            raise

    async def _metadata(self) -> dict[str, Any]:
        if not self._told or time.monotonic() - self._at > _KNOWN_SECONDS:
            url = self.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
            status, told = await self._fetch(url)
            if status != 200 or told.get("issuer") != self.provider.issuer:
                raise Unreachable(f"{url} does not describe {self.provider.issuer}")
            self._told, self._at = told, time.monotonic()
        return self._told

    async def _find_keys(self, *, anew: bool = False) -> list[dict[str, Any]]:
        async with self._one:
            age = time.monotonic() - self._keys_at
            if not self._keys or age > _KNOWN_SECONDS or (anew and age > _AGAIN_SECONDS):
                told = await self._metadata()
                _, found = await self._fetch(str(told.get("jwks_uri")))
                keys = found.get("keys")
                self._keys = [one for one in keys if isinstance(one, dict)] if isinstance(keys, list) else []
                self._keys_at = time.monotonic()
            return self._keys

    async def leads_to(self, state: str, nonce: str, verifier: str) -> str:
        """Where to send a person who signs in; raises Unreachable."""
        told = await self.metadata()
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": self.redirect,
            "scope": " ".join(self.provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        address = str(told.get("authorization_endpoint"))
        if urlsplit(address).scheme != "https":
            raise Unreachable("the provider's authorization endpoint is not an https address")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"

    async def _token(self, form: dict[str, str]) -> dict[str, Any]:
        told = await self.metadata()
        headers = {}
        if self.secret:
            pair = f"{quote(self.provider.client_id, safe='')}:{quote(self.secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form = {**form, "client_id": self.provider.client_id}
        endpoint = str(told.get("token_endpoint"))
        status, answer = await asyncio.get_running_loop().run_in_executor(
            _THREADS, fetch, self.provider, endpoint, form, headers
        )
        if status != 200:
            error = str(answer.get("error"))[:100]
            if status in (400, 401) and error == "invalid_grant":
                raise Withdrawn
            raise Unreachable(f"the provider refused the exchange: {status} {error}")
        return answer

    async def exchange(self, code: str, verifier: str, nonce: str) -> tuple[Person, str]:
        """The person behind an authorization code, and the provider's refresh token if it gave one.

        Raises Unreachable, Withdrawn, or Rejected."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect,
            "code_verifier": verifier,
        }
        answer = await self._token(form)
        claims = await self._claims(str(answer.get("id_token") or ""))
        if not hmac.compare_digest(str(claims.get("nonce") or "").encode(), nonce.encode()):
            raise Rejected("invalid", "The ID token answers another request.")
        return self._person(claims), str(answer.get("refresh_token") or "")

    async def again(self, refresh: str, subject: str) -> tuple[str, Person | None]:
        """Asks the provider whether it still vouches for a subject; the refresh token to ask with next time, and the
        person as the provider knows them now, if it says.

        Raises Withdrawn if not, Unreachable if it does not say."""
        answer = await self._token({"grant_type": "refresh_token", "refresh_token": refresh})
        person = None
        if answer.get("id_token"):
            person = self._person(await self._claims(str(answer["id_token"])))
            if person.subject != subject:
                raise Withdrawn
        return str(answer.get("refresh_token") or refresh), person

    async def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that the provider made for this platform; raises Unreachable or Rejected."""
        issuer, named = issuer_of(token)
        if issuer != self.provider.issuer:
            raise Rejected("invalid", "The issuer of the token is not the provider's.")
        keys = await self._find_keys()
        if named and all(one.get("kid") != named for one in keys):
            keys = await self._find_keys(anew=True)
        told = verify_token(token, keys, issuer=issuer, clients=(self.provider.client_id,), now=self.clock())
        if self.provider.client_id not in told.audiences:
            raise Rejected("invalid", "The token is for another client.")
        return dict(told.claims)

    async def logged_out(self, token: str) -> str:
        """The subject that a logout token is about; raises Unreachable or Rejected."""
        claims = await self._claims(token)
        events = claims.get("events")
        old = claims["iat"] * MICROS < self.clock() - _LOGOUT_SECONDS * MICROS
        if not isinstance(events, dict) or _LOGOUT not in events or "nonce" in claims or old:
            raise Rejected("invalid", "The token is no logout token.")
        return str(claims["sub"])

    def _person(self, claims: dict[str, Any]) -> Person:
        provider = self.provider
        attributes: dict[str, Any] = {}
        for path, claim in provider.claims.items():
            value = claims.get(claim)
            if isinstance(value, str) and value and path != "UserName":
                here = attributes
                *above, last = path.split("/") if "/" in path else path.split(".")
                for part in above:
                    here = here.setdefault(part, {})
                here[last] = value[:1024]
        email = claims.get("email")
        vouched = claims.get("email_verified") is True or provider.trust_email
        name = claims.get(provider.claims.get("UserName", "preferred_username")) or email or claims["sub"]
        groups = claims.get(provider.groups)
        listed = groups if isinstance(groups, list) else [groups]
        return Person(
            issuer=provider.issuer,
            subject=claims["sub"],
            name=str(name)[:128],
            email=email if isinstance(email, str) and vouched else "",
            attributes=attributes,
            # Where groups come from the provider, a claim left out says that there are none.
            groups=[one for one in listed if isinstance(one, str) and one] if provider.groups else None,
        )
