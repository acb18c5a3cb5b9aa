"""An OIDC provider for development: a page with name and password, people in a file, everything else as the real ones.

It comes along with `bastide up --development-identity-provider`, on loopback only, and says on its page what it is.
Source: OpenID Connect Core 1.0, Discovery 1.0; RFC 6749, RFC 7636.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

import jwt
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bastide.domain import MICROS, Clock, Instant, Refused, wall
from bastide.frontdoor import Listener
from bastide.kernel import Sealer
from bastide.services.identity_center import Portal, oidc
from bastide.signin import pages
from bastide.signin.application import known_host
from bastide.signin.pages import Page
from bastide.signin.relying import Relying, challenge
from bastide.signin.request import Visit, answer, visit
from bastide.store.directory import DataDirectory, write_private
from bastide.store.identities import Invented, Provider, load_people, matches

ROOT: Final = "/_bastide/development-identity-provider"
_CLIENT: Final = "bastide"
_CODE_SECONDS: Final = 60
_TOKEN_SECONDS: Final = 600
_REFRESH_SECONDS: Final = 24 * 3600
_FORM_SECONDS: Final = 600
_MOST_KEPT: Final = 10_000
_TRIES: Final = 5
_LOCKED_SECONDS: Final = 30
_RECHECK_SECONDS: Final = 2


class DevelopmentProvider:
    """The provider's ASGI application, and the platform as its client."""

    inside = False

    def __init__(
        self, place: Portal, directory: DataDirectory, sealer: Sealer, secret: str, clock: Clock = wall
    ) -> None:
        """secret: the client secret that the platform has here."""
        self._place = place
        self._people = directory.development_people
        self._sealer = sealer
        self._secret = secret
        self._clock = clock
        self._key = _key(directory.development_key, sealer)
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = hashlib.sha256(public).hexdigest()[:16]
        self._codes: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._failed: OrderedDict[str, tuple[int, Instant]] = OrderedDict()
        self._authority = str(directory.authority)

    @property
    def issuer(self) -> str:
        """The provider's name."""
        return self._place.url + ROOT

    @property
    def _redirect(self) -> str:
        return f"{self._place.url}/_bastide/signin/callback"

    def relying(self) -> Relying:
        """The platform as this provider's client."""
        provider = Provider(self.issuer, _CLIENT, authority=self._authority, recheck=_RECHECK_SECONDS)
        return Relying(provider, self._secret, self._redirect)

    # -- the way in ----------------------------------------------------------------------------------------------------

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for the provider. Its clients may sign in with an Authorization header."""
        path = str(scope["path"])
        return path.startswith(f"{ROOT}/") and known_host(
            {**scope, "headers": [one for one in scope["headers"] if one[0] != b"authorization"]}, self._place.hosts
        )

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Listener) -> None:
        """Answers one request."""
        try:
            asked = await visit(scope, source, listener, self._clock)
            page = await self._answer(asked) if listener.secure else pages.trouble("Not found", "Only over TLS.", 404)
        except Refused as refused:
            page = pages.trouble("That did not work", refused.message, refused.status)
        await answer(send, page, scope["method"])

    async def _answer(self, asked: Visit) -> Page:
        path = (asked.method, asked.path.removeprefix(ROOT))
        if path == ("GET", "/.well-known/openid-configuration"):
            return _json(self._metadata())
        if path == ("GET", "/jwks"):
            return _json({"keys": [self._jwk()]})
        if path == ("GET", "/authorize"):
            return self._authorize(asked)
        if path == ("POST", "/authorize"):
            return await self._password(asked)
        if path == ("POST", "/token"):
            return self._token(asked)
        if path == ("GET", "/userinfo"):
            return self._userinfo(asked)
        return pages.trouble("Not found", "There is no such page.", 404)

    def _jwk(self) -> dict[str, Any]:
        told = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"kty": "RSA", "n": told["n"], "e": told["e"], "kid": self._key_id, "use": "sig", "alg": "RS256"}

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "authorization_response_iss_parameter_supported": True,
        }

    # -- the page ------------------------------------------------------------------------------------------------------

    def _authorize(self, asked: Visit) -> Page:
        query = asked.query
        if query.get("client_id") != _CLIENT or query.get("redirect_uri") != self._redirect:
            return pages.trouble("Unknown client", "Only this platform itself is a client here.")
        whole = query.get("response_type") == "code" and query.get("code_challenge_method") == "S256"
        if not whole or not oidc.challenge(query.get("code_challenge", "")) or "openid" not in query.get("scope", ""):
            return self._back(query.get("state", ""), error="invalid_request")
        told = {
            "state": query.get("state", ""),
            "nonce": query.get("nonce", ""),
            "challenge": query["code_challenge"],
            "expires": asked.now + _FORM_SECONDS * MICROS,
        }
        return pages.password("Bastide", self._sealer.seal(orjson.dumps(told), "development-provider/form"))

    def _back(self, state: str, **told: str) -> Page:
        return pages.redirect(f"{self._redirect}?{urlencode({**told, 'state': state, 'iss': self.issuer})}")

    async def _password(self, asked: Visit) -> Page:
        token = asked.form.get("token", "")
        try:
            told = orjson.loads(self._sealer.open(token, "development-provider/form"))
        except ValueError:
            told = {"expires": 0}
        if asked.now >= told["expires"]:
            return pages.trouble("Too late", "This page has expired. Please start again.")
        name = asked.form.get("username", "")
        tries, at = self._failed.get(name, (0, 0))
        if tries >= _TRIES and asked.now < at + _LOCKED_SECONDS * MICROS:
            return pages.password("Bastide", token, "Too many wrong passwords. Please wait half a minute.")
        person = load_people(self._people).get(name)
        kept = person.password if person is not None and not person.disabled else ""
        # Off the loop: it takes its time, on purpose, and takes it for names that nobody has, too.
        if not await asyncio.to_thread(matches, asked.form.get("password", ""), kept) or person is None:
            _remember(self._failed, name, (tries + 1 if tries < _TRIES else 1, asked.now))
            return pages.password("Bastide", token, "Name or password is wrong.")
        self._failed.pop(name, None)
        code = secrets.token_urlsafe(32)
        known = {**told, "name": name, "expires": asked.now + _CODE_SECONDS * MICROS}
        _remember(self._codes, hashlib.sha256(code.encode()).hexdigest(), known)
        return self._back(told["state"], code=code)

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _token(self, asked: Visit) -> Page:
        if not self._client(asked):
            return _json({"error": "invalid_client"}, 401)
        form, now = asked.form, asked.now
        if form.get("grant_type") == "authorization_code":
            code = self._codes.pop(hashlib.sha256(form.get("code", "").encode()).hexdigest(), None)
            verifier = challenge(form.get("code_verifier", ""))
            if (
                code is None
                or now >= code["expires"]
                or form.get("redirect_uri") != self._redirect
                or not hmac.compare_digest(verifier, code["challenge"])
            ):
                return _json({"error": "invalid_grant"}, 400)
            name, nonce = code["name"], code["nonce"]
            person = load_people(self._people).get(name)
        elif form.get("grant_type") == "refresh_token":
            nonce = ""
            name, person = self._of_refresh(form.get("refresh_token", ""), now)
        else:
            return _json({"error": "unsupported_grant_type"}, 400)
        if person is None or person.disabled:
            return _json({"error": "invalid_grant"}, 400)
        claims = {**self._claims(name, person), "iss": self.issuer, "aud": _CLIENT, "iat": now // MICROS}
        claims |= {"exp": now // MICROS + _TOKEN_SECONDS, **({"nonce": nonce} if nonce else {})}
        access = orjson.dumps([name, now + _TOKEN_SECONDS * MICROS])
        refresh = orjson.dumps([name, _version(person), now + _REFRESH_SECONDS * MICROS])
        return _json(
            {
                "access_token": self._sealer.seal(access, "development-provider/access"),
                "token_type": "Bearer",
                "expires_in": _TOKEN_SECONDS,
                "id_token": jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._key_id}),
                "refresh_token": self._sealer.seal(refresh, "development-provider/refresh"),
            }
        )

    def _client(self, asked: Visit) -> bool:
        scheme, _, pair = asked.headers.get("authorization", "").partition(" ")
        try:
            id, _, secret = base64.b64decode(pair, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        same = hmac.compare_digest(unquote(secret).encode(), self._secret.encode())
        return scheme.lower() == "basic" and id == _CLIENT and same

    def _of_refresh(self, token: str, now: Instant) -> tuple[str, Invented | None]:
        """Whose a refresh token is; nobody's, when the person has another password by now."""
        try:
            name, version, expires = orjson.loads(self._sealer.open(token, "development-provider/refresh"))
        except ValueError:
            return "", None
        person = load_people(self._people).get(name)
        if person is None or now >= expires or version != _version(person):
            return "", None
        return name, person

    @staticmethod
    def _claims(name: str, person: Invented) -> dict[str, Any]:
        return {
            **person.claims,
            "sub": person.subject,
            "preferred_username": name,
            "name": f"{person.given_name} {person.family_name}".strip() or name,
            "given_name": person.given_name,
            "family_name": person.family_name,
            "email": person.email,
            "email_verified": bool(person.email),
            "groups": person.groups,
        }

    def _userinfo(self, asked: Visit) -> Page:
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        try:
            name, expires = orjson.loads(self._sealer.open(token, "development-provider/access"))
        except ValueError:
            name, expires = "", 0
        person = load_people(self._people).get(name)
        if scheme.lower() != "bearer" or person is None or person.disabled or asked.now >= expires:
            page = _json({"error": "invalid_token"}, 401)
            page.headers.append(("www-authenticate", 'Bearer error="invalid_token"'))
            return page
        return _json(self._claims(name, person))


def _version(person: Invented) -> str:
    return hashlib.sha256(f"{person.subject} {person.password}".encode()).hexdigest()[:16]


def _remember(kept: OrderedDict[str, Any], name: str, value: Any) -> None:
    kept.pop(name, None)
    kept[name] = value
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


def _json(told: dict[str, Any], status: int = 200) -> Page:
    return Page(orjson.dumps(told).decode(), status, kind="application/json")


def _key(path: Path, sealer: Sealer) -> rsa.RSAPrivateKey:
    """What the provider signs with; made at its first start, sealed under the platform's root key."""
    purpose = "development-provider/key"
    try:
        raw = sealer.open(path.read_text(), purpose)
    except FileNotFoundError:
        key = rsa.generate_private_key(65537, 2048)
        raw = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, sealer.seal(raw, purpose).encode())
    found = serialization.load_der_private_key(raw, None)
    assert isinstance(found, rsa.RSAPrivateKey)
    return found
