"""`bastide login`: a person signs in with a browser, and AWS clients get short-lived credentials.

Authorization code with PKCE, answered on loopback (RFC 8252), or a device code for machines without a browser (RFC 8628).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import os
import secrets
import shlex
import sys
import time
import webbrowser
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import boto3
import botocore
import botocore.config
import botocore.exceptions
import click

from bastide.commands.client import Platform
from bastide.commands.options import DATA_OPTION
from bastide.store.directory import write_private

_SCOPE: Final = "sso:account:access"
_CALLBACK: Final = "/oauth/callback"
_WAIT_SECONDS: Final = 600
_EARLY_SECONDS: Final = 120
"""Tokens and credentials that end this soon are renewed already."""
_DONE: Final = b"""<!doctype html><meta charset="utf-8"><title>Bastide</title>
<p style="font:16px system-ui;margin:4rem auto;max-width:30rem">You can close this page and go back to your terminal."""


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "bastide" / "login"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@dataclass(slots=True)
class _Kept:
    """A file of the cache, readable by its owner alone."""

    path: Path

    def read(self) -> dict[str, Any]:
        """What it holds; nothing if it cannot be trusted or read."""
        try:
            with self.path.open() as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.getuid() or status.st_mode & 0o077:
                    return {}
                told = json.load(file)
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def write(self, told: dict[str, Any]) -> None:
        """Keeps it."""
        write_private(self.path, json.dumps(told).encode())

    def forget(self) -> None:
        """Removes it."""
        self.path.unlink(missing_ok=True)


class _Portal:
    """The access portal of one platform, and what is kept of it on this machine."""

    def __init__(self, url: str, bundle: str | None, region: str) -> None:
        self.url = url.rstrip("/")
        self.bundle = bundle
        self.region = region
        self._name = hashlib.sha256(self.url.encode()).hexdigest()[:24]
        self.kept = _Kept(_cache() / f"{self._name}.json")

    def client(self, service: str) -> Any:
        """A client that signs nothing."""
        return boto3.session.Session().client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            verify=self.bundle or True,
            config=botocore.config.Config(
                signature_version=botocore.UNSIGNED, retries={"max_attempts": 1, "mode": "standard"}, connect_timeout=5
            ),
        )

    def credentials_file(self, account: str, role: str) -> _Kept:
        """Where a role's credentials are kept."""
        name = hashlib.sha256(f"{account}/{role}".encode()).hexdigest()[:24]
        return _Kept(self.kept.path.with_name(f"{self._name}-{name}.json"))

    def forget(self) -> None:
        """Removes everything that is kept of this portal."""
        for path in self.kept.path.parent.glob(f"{self._name}*.json"):
            path.unlink(missing_ok=True)

    # -- signing in ----------------------------------------------------------------------------------------------------

    def token(self) -> str | None:
        """An access token that still lasts, renewed if need be; None when somebody has to sign in."""
        kept = self.kept.read()
        if kept.get("expires", 0) > time.time() + _EARLY_SECONDS:
            return str(kept["access"])
        if not kept.get("refresh"):
            return None
        try:
            answer = self.client("sso-oidc").create_token(
                grantType="refresh_token",
                clientId=kept["client"],
                clientSecret=kept["secret"],
                refreshToken=kept["refresh"],
            )
        except botocore.exceptions.ClientError:
            # Another program on this machine may have renewed it in this moment.
            again = self.kept.read()
            return str(again["access"]) if again.get("expires", 0) > time.time() + _EARLY_SECONDS else None
        return self._keep(answer, kept["client"], kept["secret"])

    def _keep(self, answer: dict[str, Any], client: str, secret: str) -> str:
        self.kept.write(
            {
                "access": answer["accessToken"],
                "expires": time.time() + answer["expiresIn"],
                "refresh": answer.get("refreshToken", ""),
                "client": client,
                "secret": secret,
            }
        )
        return str(answer["accessToken"])

    def by_browser(self, *, browser: bool) -> str:
        """Signs in with a browser on this machine; raises ClickException when it does not come about."""
        server = _Callback()
        try:
            api = self.client("sso-oidc")
            registered = api.register_client(
                clientName="bastide login",
                clientType="public",
                grantTypes=["authorization_code", "refresh_token"],
                redirectUris=[f"http://127.0.0.1{_CALLBACK}"],
                scopes=[_SCOPE],
            )
            state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
            query = {
                "response_type": "code",
                "client_id": registered["clientId"],
                "redirect_uri": server.url,
                "state": state,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
                "scopes": _SCOPE,
            }
            address = f"{self.url}/authorize?{urlencode(query)}"
            click.echo("Sign in with your browser at:", err=True)
            click.echo(address, err=True)
            if browser:
                webbrowser.open_new_tab(address)
            code = server.wait(state)
            answer = api.create_token(
                grantType="authorization_code",
                clientId=registered["clientId"],
                clientSecret=registered["clientSecret"],
                code=code,
                redirectUri=server.url,
                codeVerifier=verifier,
            )
        finally:
            server.close()
        return self._keep(answer, registered["clientId"], registered["clientSecret"])

    def by_device(self) -> str:
        """Signs in with a browser anywhere; raises ClickException when it does not come about."""
        api = self.client("sso-oidc")
        registered = api.register_client(clientName="bastide login", clientType="public", scopes=[_SCOPE])
        id, secret = registered["clientId"], registered["clientSecret"]
        started = api.start_device_authorization(clientId=id, clientSecret=secret, startUrl=f"{self.url}/start")
        click.echo("Open this page with any browser:", err=True)
        click.echo(started["verificationUriComplete"], err=True)
        click.echo(f"It must show this code: {started['userCode']}", err=True)
        interval, until = started["interval"], time.monotonic() + started["expiresIn"]
        while time.monotonic() < until:
            try:
                answer = api.create_token(
                    grantType="urn:ietf:params:oauth:grant-type:device_code",
                    clientId=id,
                    clientSecret=secret,
                    deviceCode=started["deviceCode"],
                )
                return self._keep(answer, id, secret)
            except api.exceptions.AuthorizationPendingException:
                pass
            except api.exceptions.SlowDownException:
                interval += 5
            except api.exceptions.AccessDeniedException:
                raise click.ClickException("the sign-in was denied in the browser") from None
            time.sleep(interval)
        raise click.ClickException("nobody signed in within ten minutes")

    # -- credentials ---------------------------------------------------------------------------------------------------

    def account(self, token: str, given: str) -> str:
        """The id of an account, given by id or by name; raises ClickException."""
        if len(given) == 12 and given.isdigit():
            return given
        pages = self.client("sso").get_paginator("list_accounts").paginate(accessToken=token)
        match = [one["accountId"] for page in pages for one in page["accountList"] if one["accountName"] == given]
        if len(match) != 1:
            raise click.ClickException(f"you are assigned to no account named `{given}`, or to several")
        return str(match[0])

    def credentials(self, token: str, account: str, role: str) -> dict[str, Any]:
        """A session of a role, as GetRoleCredentials gives it; the kept one while it lasts."""
        kept = self.credentials_file(account, role)
        held = kept.read()
        if held.get("expiration", 0) / 1000 > time.time() + _EARLY_SECONDS:
            return held
        answer = self.client("sso").get_role_credentials(accountId=account, roleName=role, accessToken=token)
        found: dict[str, Any] = answer["roleCredentials"]
        kept.write(found)
        return found


class _Callback:
    """A listener on loopback that hears one answer."""

    def __init__(self) -> None:
        heard: dict[str, str] = {}
        self._heard = heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                found = {name: values[0] for name, values in parse_qs(parts.query).items() if len(values) == 1}
                mine = parts.path == _CALLBACK and "state" in found
                self.send_response(200 if mine else 404)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("cache-control", "no-store")
                self.end_headers()
                self.wfile.write(_DONE if mine else b"")
                if mine and not heard:
                    heard.update(found)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing: the line would hold the code."""

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._server.timeout = 1
        self.url = f"http://127.0.0.1:{self._server.server_port}{_CALLBACK}"

    def wait(self, state: str) -> str:
        """The code that answers `state`; raises ClickException."""
        until = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < until:
            self._server.handle_request()
            if not self._heard:
                continue
            if not hmac.compare_digest(self._heard["state"].encode(), state.encode()):
                self._heard.clear()  # somebody else's: ours is still to come
                continue
            if "code" not in self._heard:
                raise click.ClickException(f"the sign-in failed: {self._heard.get('error', 'no code')}")
            return self._heard["code"]
        raise click.ClickException("nobody signed in within ten minutes")

    def close(self) -> None:
        """Listens no more."""
        self._server.server_close()


def _portal(data: Path, url: str | None, bundle: str | None, region: str | None) -> _Portal:
    """The portal at an address, or of the platform in the data directory."""
    if url is None:
        platform = Platform(data)
        return _Portal(platform.url, str(platform.directory.authority), region or platform.region)
    if urlsplit(url).scheme != "https":
        raise click.ClickException("people sign in over TLS only; give the https address")
    return _Portal(url, bundle, region or "us-east-1")


def _print(shape: str, held: dict[str, Any], portal: _Portal) -> None:
    expires = datetime.fromtimestamp(held["expiration"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {
        "AccessKeyId": held["accessKeyId"],
        "SecretAccessKey": held["secretAccessKey"],
        "SessionToken": held["sessionToken"],
        "Expiration": expires,
    }
    if shape == "process":
        click.echo(json.dumps({"Version": 1, **told}))
    elif shape == "json":
        click.echo(json.dumps({**told, "Region": portal.region, "EndpointUrl": portal.url, "CaBundle": portal.bundle}))
    else:
        lines = {
            "AWS_ACCESS_KEY_ID": told["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": told["SecretAccessKey"],
            "AWS_SESSION_TOKEN": told["SessionToken"],
            "AWS_REGION": portal.region,
            "AWS_DEFAULT_REGION": portal.region,
            "AWS_ENDPOINT_URL": portal.url,
            **({"AWS_CA_BUNDLE": portal.bundle} if portal.bundle else {}),
        }
        for name, value in lines.items():
            click.echo(f"export {name}={shlex.quote(str(value))}")


@click.command()
@DATA_OPTION
@click.option("--endpoint-url", "url", envvar="AWS_ENDPOINT_URL", help="The platform's https address.")
@click.option(
    "--ca-bundle", "bundle", envvar="AWS_CA_BUNDLE", help="The authority that the platform's certificate is of."
)
@click.option("--region", envvar="AWS_REGION", help="The region to name to clients.")
@click.option("--account", help="Name or id of an account.")
@click.option("--role", help="Name of a permission set that you are assigned there.")
@click.option("--device", is_flag=True, help="Sign in with a browser on another machine.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--logout", is_flag=True, help="End the sign-in, and forget what is kept of it.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["env", "json", "process"]),
    default="env",
    show_default=True,
    help="env: lines for `eval`; json: for programs; process: AWS's credential_process form, which never asks anybody.",
)
def login(
    data: Path,
    url: str | None,
    bundle: str | None,
    region: str | None,
    account: str | None,
    role: str | None,
    device: bool,
    no_browser: bool,
    logout: bool,
    shape: str,
) -> None:
    """Sign in as yourself, and get short-lived credentials.

    \b
    bastide login                                                 sign in, and list what you are assigned
    eval "$(bastide login --account production --role Auditor)"   become somebody there
    credential_process = bastide login --account ID --role NAME --format process

    What is kept lies below ~/.cache/bastide/login, readable by you alone, and is renewed while the sign-in lasts.
    """
    if (account is None) != (role is None):
        raise click.ClickException("--account and --role belong together")
    portal = _portal(data, url, bundle, region)
    if logout:
        token = portal.token()
        if token is not None:
            portal.client("sso").logout(accessToken=token)
        portal.forget()
        click.echo("You are signed out. Credentials that were given out last until they expire.")
        return
    token = portal.token()
    if token is None and shape == "process":
        click.echo(f"you are not signed in; run `bastide login` for {portal.url}", err=True)
        sys.exit(1)
    if token is None:
        token = portal.by_device() if device else portal.by_browser(browser=not no_browser)
    if account is not None and role is not None:
        try:
            held = portal.credentials(token, portal.account(token, account), role)
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "UnauthorizedException":
                raise
            portal.forget()  # ended before its time: by the person, by an administrator or by the provider
            raise click.ClickException("the sign-in has ended; run `bastide login` again") from None
        _print(shape, held, portal)
        return
    api = portal.client("sso")
    for page in api.get_paginator("list_accounts").paginate(accessToken=token):
        for one in page["accountList"]:
            roles = api.get_paginator("list_account_roles").paginate(accessToken=token, accountId=one["accountId"])
            names = ", ".join(found["roleName"] for part in roles for found in part["roleList"])
            click.echo(f"{one['accountId']}  {one['accountName']}  {names}")
