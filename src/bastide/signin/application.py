"""The sign-in pages: who comes is sent to the identity provider, and says then what a client may have.

Everything between two requests is sealed and bound to the browser: what the provider is to answer in one cookie, the
sign-in in another, and in every form the sign-in that it was made for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines.idp import Rejected
from bastide.frontdoor import Listener
from bastide.kernel import Calls
from bastide.services.identity_center import Portal, oidc, people, portal, sign_in
from bastide.services.identity_center.instance import instance
from bastide.services.identity_center.user import USER
from bastide.signin import pages
from bastide.signin.pages import Page
from bastide.signin.record import entry
from bastide.signin.relying import Relying, Unreachable, Withdrawn
from bastide.signin.request import Visit, answer, visit
from bastide.store import Row, Transaction
from bastide.store.identities import Provider

_log = logging.getLogger("bastide.signin")
_ROOT: Final = "/_bastide/signin"
_COOKIE: Final = "__Host-bastide-signin"
_FLOW: Final = "__Host-bastide-flow"
_KEPT: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_FORM_SECONDS: Final = 600
_ROUNDS: Final = 20
"""Looks for whose turn it is, in the time after which it is somebody's turn again."""
_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_MOST_STATE: Final = 1024


def known_host(scope: dict[str, Any], hosts: tuple[str, ...]) -> bool:
    """Whether a request is for the platform itself, not for a bucket's virtual host, and neither was signed nor brings a
    file to S3."""
    named = dict(scope["headers"])
    if named.get(b"content-type", b"").startswith(b"multipart/"):
        return False
    host = named.get(b"host", b"").decode("latin-1")
    name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
    signed = b"authorization" in named or b"X-Amz-" in scope["query_string"]
    return not signed and name.lower() in (*hosts, "127.0.0.1", "[::1]", "localhost")


class SignIn:
    """The ASGI application of the pages. `takes` says which requests are its own."""

    inside = False

    def __init__(self, calls: Calls, place: Portal, file: Path, development: Relying | None = None) -> None:
        """file: where the identity provider is configured; read anew when it changes. development: the provider that
        comes along, instead."""
        self.calls = calls
        self.place = place
        self._file = file
        self._development = development
        self._read_at: int | None = None
        self._connected: Relying | None = None
        self._watch: asyncio.Task[None] | None = None
        self._pages: dict[tuple[str, str], Callable[[Visit], Awaitable[Page]]] = {
            ("GET", "/start"): self._home,
            ("GET", _ROOT): self._home,
            ("POST", f"{_ROOT}/out"): self._out,
            ("GET", "/authorize"): self._authorize,
            ("POST", "/authorize"): self._authorized,
            ("GET", f"{_ROOT}/device"): self._device,
            ("POST", f"{_ROOT}/device"): self._device_answered,
            ("GET", f"{_ROOT}/callback"): self._callback,
            ("POST", f"{_ROOT}/back-channel-logout"): self._back_channel,
        }

    # -- the way in ----------------------------------------------------------------------------------------------------

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for one of the pages. Who signed a request, or names a bucket by its host, means S3."""
        path = scope["path"]
        if path not in ("/start", "/authorize") and path != _ROOT and not path.startswith(f"{_ROOT}/"):
            return False
        return known_host(scope, self.place.hosts)

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Listener) -> None:
        """Answers one request."""
        method = scope["method"]
        try:
            asked = await visit(scope, source, listener, self.calls.clock)
            page = await self._answer(asked, listener)
        except Refused as refused:
            page = pages.trouble("That did not work", refused.message, refused.status)
        except Exception:
            _log.exception("a sign-in page failed")
            page = pages.trouble("That did not work", "An internal error occurred. Please try again.", 500)
        await answer(send, page, method)

    async def _answer(self, asked: Visit, listener: Listener) -> Page:
        if asked.method == "HEAD" and asked.path == "/start":
            return self._as_aws_names_it()
        method = "GET" if asked.method == "HEAD" else asked.method
        work = self._pages.get((method, asked.path))
        if work is None:
            return pages.trouble("Not found", "There is no such page.", 404)
        if not listener.secure or asked.host.lower() != urlsplit(self.place.url).netloc:
            # Cookies belong to one name; and no secret may travel in the clear.
            if method != "GET":
                return pages.trouble("Wrong address", f"Please sign in at {self.place.url}/start.", 403)
            return pages.redirect(self.place.url + asked.target)
        if method == "POST" and asked.path != f"{_ROOT}/back-channel-logout":
            site = asked.headers.get("sec-fetch-site", "same-origin")
            if asked.headers.get("origin", self.place.url) != self.place.url or site != "same-origin":
                return pages.trouble("Not from here", "This form was sent from another site.", 403)
        return await work(asked)

    def _as_aws_names_it(self) -> Page:
        """AWS's command line asks a start URL that is not AWS's own where it leads, and goes on with that name."""
        with self.calls.store.reading() as view:
            here = instance(view)
        if here is None:
            return pages.trouble("Not ready", "There is no organization yet.", 404)
        return pages.redirect(here.start_url)

    # -- who is there --------------------------------------------------------------------------------------------------

    def provider(self) -> Relying | None:
        """The identity provider that people sign in at, as the file says now."""
        if self._development is not None:
            return self._development
        try:
            at = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            self._read_at, self._connected = None, None
            return None
        if at != self._read_at:
            try:
                told = Provider.load(self._file)
                secret = ""
                if told is not None and told.sealed_secret:
                    secret = self.calls.sealer.open(told.sealed_secret, "identity-provider").decode()
            except ValueError:
                _log.exception("%s cannot be read: nobody can sign in", self._file)
                told, secret = None, ""
            redirect = f"{self.place.url}{_ROOT}/callback"
            self._connected = Relying(told, secret, redirect) if told is not None else None
            self._read_at = at
        return self._connected

    def _signed_in(self, asked: Visit) -> Row | None:
        id, _, secret = asked.cookies.get(_COOKIE, "").partition(".")
        if not id or not secret:
            return None
        with self.calls.store.reading() as view:
            return sign_in.of_browser(view, id, secret, asked.now)

    def _name(self, held: Row) -> str:
        with self.calls.store.reading() as view:
            row = USER.row(view, held.doc["user"])
        return str(row.doc["UserName"]) if row is not None else ""

    async def _begin(self, asked: Visit) -> Page:
        """Sends a person to the provider; they come back to where they wanted to go."""
        relying = self.provider()
        if relying is None:
            return pages.trouble(
                "Nobody can sign in yet",
                "No identity provider is connected. An administrator connects one with `bastide identity connect`.",
                503,
            )
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        expires = asked.now + _FORM_SECONDS * MICROS
        told = orjson.dumps([state, nonce, verifier, asked.target, expires])
        try:
            address = await relying.leads_to(state, nonce, verifier)
        except Unreachable as problem:
            _log.warning("the identity provider is not reachable: %s", problem)
            return pages.trouble("The identity provider does not answer", "Please try again in a while.", 503)
        sealed = self.calls.sealer.seal(told, "signin/flow")
        return pages.redirect(address, f"{_FLOW}={sealed}; Max-Age={_FORM_SECONDS}; {_KEPT}")

    async def _callback(self, asked: Visit) -> Page:
        """The provider has answered."""
        failed = pages.trouble("The sign-in failed", "Please start again from your program or from the portal.", 403)
        try:
            told = orjson.loads(self.calls.sealer.open(asked.cookies.get(_FLOW, ""), "signin/flow"))
            state, nonce, verifier, wanted, expires = told
        except ValueError:
            return failed
        relying = self.provider()
        if relying is None or asked.now >= expires:
            return failed
        if not hmac.compare_digest(asked.query.get("state", "").encode(), state.encode()):
            return failed
        if asked.query.get("iss", relying.provider.issuer) != relying.provider.issuer or not asked.query.get("code"):
            await self._record(asked, "UserAuthentication", error=f"{asked.query.get('error', 'no code')}"[:100])
            return failed
        try:
            person, refresh = await relying.exchange(asked.query["code"], verifier, nonce)
        except (Unreachable, Rejected, Withdrawn) as problem:
            _log.warning("a sign-in failed: %s %s", type(problem).__name__, problem)
            await self._record(asked, "UserAuthentication", error=f"{type(problem).__name__}: {problem}")
            return failed
        return await self._welcome(asked, relying, person, refresh, wanted)

    async def _welcome(self, asked: Visit, relying: Relying, person: people.Person, refresh: str, wanted: str) -> Page:
        provider = relying.provider

        def work(tx: Transaction) -> tuple[str, str]:
            here = instance(tx)
            if here is None:
                raise Refused("AccessDeniedException", "There is no organization yet.", 403)
            with tx.savepoint():
                user = people.welcome(tx, here, person, asked.now, provision=provider.provision)
            begun = sign_in.begin(tx, self.calls.sealer, user.name, provider.issuer, person.subject, refresh, asked.now)
            told = {"CredentialType": "EXTERNAL_IDP", "IdentityProvider": provider.issuer, "SignInId": begun[0]}
            tx.record([self._entry(asked, "UserAuthentication", user.name, user.doc["UserName"], told)])
            return begun

        try:
            id, secret = await self.calls.store.write(work)
        except Refused as refused:
            await self._record(asked, "UserAuthentication", error=refused.message, shown=person.name)
            return pages.trouble("You cannot sign in here", refused.message, 403)
        return pages.redirect(
            wanted,
            f"{_COOKIE}={id}.{secret}; Max-Age={sign_in.SIGN_IN_SECONDS}; {_KEPT}",
            f"{_FLOW}=; Max-Age=0; {_KEPT}",
        )

    # -- forms ---------------------------------------------------------------------------------------------------------

    def _form(self, asked: Visit, purpose: str, held: Row, content: Any) -> str:
        """What a form carries: for what it is, for which sign-in, and what it is about."""
        told = orjson.dumps([purpose, held.name, content, asked.now + _FORM_SECONDS * MICROS])
        return self.calls.sealer.seal(told, "signin/form")

    def _filled(self, asked: Visit, purpose: str) -> tuple[Row, Any]:
        """The sign-in of who sent a form, and what it is about; raises Refused for a form that was not theirs."""
        held = self._signed_in(asked)
        try:
            kind, whose, content, expires = orjson.loads(
                self.calls.sealer.open(asked.form.get("token", ""), "signin/form")
            )
        except ValueError:
            kind, whose, content, expires = "", "", None, 0
        if held is None or kind != purpose or whose != held.name or asked.now >= expires:
            raise Refused("AccessDenied", "This page has expired. Please start again.", 403)
        return held, content

    # -- the portal ----------------------------------------------------------------------------------------------------

    async def _home(self, asked: Visit) -> Page:
        held = self._signed_in(asked)
        if held is None:
            return await self._begin(asked)
        user = held.doc["user"]
        with self.calls.store.reading() as view:
            found = [(one, portal.roles(view, user, one["accountId"])) for one in portal.accounts(view, user)]
        return pages.home(self._name(held), found, self._form(asked, "out", held, None), self.place.url)

    async def _out(self, asked: Visit) -> Page:
        held, _ = self._filled(asked, "out")

        def work(tx: Transaction) -> None:
            sign_in.end(tx, held.name)
            tx.record([self._entry(asked, "UserSignOut", held.doc["user"], "", {"SignInId": held.name})])

        await self.calls.store.write(work)
        page = pages.page("You are signed out", '<p><a href="/start">Sign in again</a></p>')
        page.headers.append(("set-cookie", f"{_COOKIE}=; Max-Age=0; {_KEPT}"))
        return page

    # -- device codes --------------------------------------------------------------------------------------------------

    async def _device(self, asked: Visit) -> Page:
        typed = asked.query.get("user_code", "")
        if not typed:
            return pages.type_code()
        held = self._signed_in(asked)
        if held is None:
            return await self._begin(asked)
        with self.calls.store.reading() as view:
            waiting = sign_in.by_typed(view, typed, asked.now)
        if waiting is None:
            return pages.type_code("No program waits with this code. Codes are good for ten minutes, and once.")
        letters = "".join(one for one in typed.upper() if one.isalpha())
        token = self._form(asked, "device", held, waiting.name)
        return pages.confirm(waiting.doc["name"], self._name(held), token, code=f"{letters[:4]}-{letters[4:]}")

    async def _device_answered(self, asked: Visit) -> Page:
        held, device = self._filled(asked, "device")
        allowed = asked.form.get("answer") == "allow"

        def work(tx: Transaction) -> bool:
            current = sign_in.signed_in(tx, held.name, asked.now)
            heard = current is not None and sign_in.answer_device(tx, device, held.name, asked.now, allowed=allowed)
            if heard:
                told = {"SignInId": held.name, "Answer": "allowed" if allowed else "denied", "Flow": "device"}
                tx.record([self._entry(asked, "AuthorizeClient", held.doc["user"], "", told)])
            return heard

        if not await self.calls.store.write(work):
            return pages.trouble("Too late", "The program does not wait any more. Please start it again.")
        if not allowed:
            return pages.page("Denied", "<p>The program was given nothing. You can close this page.</p>")
        return pages.page(
            "Access allowed", "<p>The program has what it asked for. You can close this page and go back to it.</p>"
        )

    # -- authorization codes -------------------------------------------------------------------------------------------

    def _client(self, asked: Visit) -> tuple[sign_in.Client, str]:
        """The client and where it listens; raises Refused, because nobody may be sent to an address that it did not
        register."""
        by = sign_in.client(self.calls.sealer, asked.query.get("client_id", ""), asked.now)
        to = asked.query.get("redirect_uri", "")
        if not oidc.fits(by, to):
            raise Refused("InvalidRequestException", "The program did not register the address it listens at.")
        return by, to

    @staticmethod
    def _fault(asked: Visit, by: sign_in.Client) -> str:
        """OAuth's error for a request that is not complete; empty if it is."""
        query = asked.query
        if query.get("response_type") != "code":
            return "unsupported_response_type"
        if "authorization_code" not in by.grants:
            return "unauthorized_client"
        challenge = query.get("code_challenge", "")
        if query.get("code_challenge_method") != "S256" or not oidc.challenge(challenge):
            return "invalid_request"
        if len(query.get("state", "")) > _MOST_STATE:
            return "invalid_request"
        asked_for = (query.get("scopes") or query.get("scope") or sign_in.SCOPE).split()
        return "" if set(asked_for) <= set(by.scopes or (sign_in.SCOPE,)) else "invalid_scope"

    @staticmethod
    def _back(to: str, state: str, **told: str) -> Page:
        return pages.redirect(f"{to}?{urlencode({**told, **({'state': state} if state else {})})}")

    async def _authorize(self, asked: Visit) -> Page:
        by, to = self._client(asked)
        state = asked.query.get("state", "")[:_MOST_STATE]
        fault = self._fault(asked, by)
        if fault:
            return self._back(to, state, error=fault)
        held = self._signed_in(asked)
        if held is None:
            return await self._begin(asked)
        content = [by.digest, to, asked.query["code_challenge"], list(by.scopes), state]
        token = self._form(asked, "authorize", held, content)
        parts = urlsplit(to)
        return pages.confirm(by.name, self._name(held), token, forms=f"{parts.scheme}://{parts.netloc}")

    async def _authorized(self, asked: Visit) -> Page:
        held, content = self._filled(asked, "authorize")
        by, to, challenge, scopes, state = content
        allowed = asked.form.get("answer") == "allow"

        def work(tx: Transaction) -> str:
            if sign_in.signed_in(tx, held.name, asked.now) is None:
                return ""
            told = {"SignInId": held.name, "Answer": "allowed" if allowed else "denied", "Flow": "code"}
            tx.record([self._entry(asked, "AuthorizeClient", held.doc["user"], "", told)])
            return sign_in.new_code(tx, by, to, challenge, scopes, held.name, asked.now) if allowed else ""

        code = await self.calls.store.write(work)
        return self._back(to, state, code=code) if code else self._back(to, state, error="access_denied")

    # -- what the provider says later ----------------------------------------------------------------------------------

    async def _back_channel(self, asked: Visit) -> Page:
        """The provider ends somebody's sessions (OpenID Connect Back-Channel Logout)."""
        relying = self.provider()
        try:
            if relying is None:
                raise Rejected("invalid", "No provider is connected.")
            subject = await relying.logged_out(asked.form.get("logout_token", ""))
        except (Rejected, Unreachable) as problem:
            told = orjson.dumps({"error": "invalid_request", "error_description": str(problem)})
            return Page(told.decode(), 400, kind="application/json")
        await self._take_back(relying.provider.issuer, subject, asked)
        return Page("{}", kind="application/json")

    async def _take_back(self, issuer: str, subject: str, asked: Visit | None) -> None:
        now = self.calls.clock()

        def work(tx: Transaction) -> None:
            user = people.known_as(tx, issuer, subject)
            if user is None:
                return
            ended = sign_in.take_back(tx, user, now)
            if asked is not None:
                tx.record([self._entry(asked, "UserSignOut", user, "", {"SignIns": ended, "By": issuer})])

        await self.calls.store.write(work)

    def start(self) -> None:
        """Begins to ask the provider, every while, whether it still vouches for who is signed in."""
        self._watch = asyncio.create_task(self._watching())

    async def close(self) -> None:
        """Ends it."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def _watching(self) -> None:
        asked_at: dict[str, float] = {}
        while True:
            relying = self.provider()
            often = relying.provider.recheck / _ROUNDS if relying is not None else 1.0
            await asyncio.sleep(min(max(often, _SHORTEST_PAUSE), _LONGEST_PAUSE))
            try:
                await self._round(asked_at)
            except Exception:
                _log.exception("the identity provider could not be asked about who is signed in")

    async def _round(self, asked_at: dict[str, float]) -> None:
        """Asks about every sign-in whose turn it is. A provider that does not answer changes nothing: sign-ins end by
        themselves."""
        relying = self.provider()
        if relying is None:
            return
        now, after = time.monotonic(), ""
        seen: set[str] = set()
        while True:
            with self.calls.store.reading() as view:
                rows = view.scan(sign_in.SIGN_IN, "", "", after=after or None, limit=200)
            due = []
            for row in rows:
                after = row.name
                seen.add(row.name)
                turn = asked_at.setdefault(row.name, now) + relying.provider.recheck
                if now >= turn and row.doc["refresh"] and row.doc["issuer"] == relying.provider.issuer:
                    asked_at[row.name] = now
                    due.append(self._recheck(relying, row))
            await asyncio.gather(*due)
            if len(rows) < 200:
                break
        for gone in asked_at.keys() - seen:
            del asked_at[gone]

    async def _recheck(self, relying: Relying, row: Row) -> None:
        sealer = self.calls.sealer
        held = sealer.open(row.doc["refresh"], "sso-oidc/provider-token").decode()
        try:
            refresh, person = await relying.again(held, row.doc["subject"])
        except Withdrawn:
            await self._take_back(row.doc["issuer"], row.doc["subject"], None)
            return
        except (Unreachable, Rejected) as problem:
            _log.warning("the identity provider did not say whether it still vouches for somebody: %s", problem)
            return
        now = self.calls.clock()

        def work(tx: Transaction) -> None:
            here = instance(tx)
            if person is not None and here is not None:
                # What cannot be taken over must not lose the token to ask with next time.
                with contextlib.suppress(Refused), tx.savepoint():
                    people.welcome(tx, here, person, now, provision=False)
            current = tx.get(sign_in.SIGN_IN, "", "", row.name)
            if current is not None and refresh != held:
                current.doc["refresh"] = sealer.seal(refresh.encode(), "sso-oidc/provider-token")
                tx.update(current, keep=False)

        await self.calls.store.write(work)

    # -- the record ----------------------------------------------------------------------------------------------------

    def _entry(self, asked: Visit, name: str, user: str, shown: str, told: dict[str, Any]) -> Any:
        return entry(asked, self.calls.home, name, user=user, shown=shown, told=told)

    async def _record(self, asked: Visit, name: str, *, error: str, shown: str = "") -> None:
        found = entry(asked, self.calls.home, name, shown=shown, told={}, error=error)
        await self.calls.store.write(lambda tx: tx.record([found]))
