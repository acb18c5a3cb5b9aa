"""Somebody else's identity provider: authorization code with PKCE, refresh, back-channel logout, and lies if asked to."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.identity_providers import Issuer

CLIENT, SECRET = "bastide", "a client secret"


@dataclass
class Provider(Issuer):
    """claims: of whoever comes. spoil: what the next ID token says instead. gone: it vouches for nobody any more."""

    claims: dict[str, Any] = field(default_factory=dict)
    spoil: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshed: int = 0
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Whom a refresh token was given for."""

    def start(self, folder: Path) -> Provider:
        super().start(folder)
        provider = self

        def do_post(handler: Any) -> None:
            provider._post(handler)

        self.server.RequestHandlerClass.do_POST = do_post  # type: ignore[attr-defined]
        return self

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(path)
        if parts.path == f"{self.path}/.well-known/openid-configuration":
            told = {
                "issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token",
                "authorization_endpoint": f"{self.url}/authorize",
            }  # fmt: skip
            return 200, {}, json.dumps(told).encode()
        if parts.path == f"{self.path}/authorize":
            asked = dict(parse_qsl(parts.query))
            code = secrets.token_urlsafe(16)
            self.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            return 303, {"Location": f"{asked['redirect_uri']}?{back}"}, b""
        return super().answer(path)

    def _post(self, handler: Any) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"])).decode()
        pair = base64.b64decode(handler.headers.get("authorization", "Basic ").partition(" ")[2]).decode()
        status, told = self._token(dict(parse_qsl(body)), pair)
        raw = json.dumps(told).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def _token(self, form: dict[str, str], pair: str) -> tuple[int, dict[str, Any]]:
        if pair != f"{CLIENT}:{SECRET.replace(' ', '%20')}":
            return 401, {"error": "invalid_client"}
        nonce, claims = None, self.claims
        if form["grant_type"] == "refresh_token":
            self.refreshed += 1
            if self.gone:
                return 400, {"error": "invalid_grant"}
            held = self.known[form["refresh_token"]]
            if held.get("sub") != claims.get("sub"):  # somebody else has come meanwhile
                claims = held
        else:
            asked = self.codes.pop(form["code"], {})
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
            if challenge.rstrip("=") != asked.get("code_challenge") or form["redirect_uri"] != asked["redirect_uri"]:
                return 400, {"error": "invalid_grant"}
            nonce = asked["nonce"]
        again = secrets.token_urlsafe(16)
        self.known[again] = claims
        told = {"aud": CLIENT, **({"nonce": nonce} if nonce else {}), **claims, **self.spoil}
        return 200, {"id_token": self.token(**told), "refresh_token": again, "access_token": "x"}

    def logout_token(self, subject: str, **other: Any) -> str:
        """What it sends when it ends somebody's sessions."""
        event = {"http://schemas.openid.net/event/backchannel-logout": {}}
        return self.token(**{"aud": CLIENT, "sub": subject, "events": event, "jti": secrets.token_hex(8), **other})


def settled(work: Any, seconds: float = 60.0) -> bool:
    """Whether it comes to hold within a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if work():
            return True
        threading.Event().wait(0.2)
    return False
