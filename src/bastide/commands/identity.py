"""`bastide identity`: which identity provider people sign in at, and the people of the development one."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from bastide.commands.options import DATA_OPTION
from bastide.engines.keys import SourceError, open_root
from bastide.store.directory import DataDirectory
from bastide.store.identities import (
    CLAIMS,
    Invented,
    Provider,
    hashed,
    load_people,
    new_subject,
    save_people,
)

_LEAST_PASSWORD = 12


def _directory(data: Path) -> DataDirectory:
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform; make one with `bastide init --data {data}`")
    return directory


@click.group()
def identity() -> None:
    """Connect the identity provider that people sign in at. See docs/signing-in.md."""


def _discover(issuer: str, authority: str) -> dict[str, Any]:
    """What a provider says of itself; raises ClickException."""
    parts = urlsplit(issuer)
    if parts.scheme != "https" or not parts.hostname:
        raise click.ClickException("an issuer is an https address")
    context = ssl.create_default_context(cafile=authority or None)
    try:
        connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=10, context=context)
        connection.request("GET", parts.path.rstrip("/") + "/.well-known/openid-configuration")
        told = json.loads(connection.getresponse().read(1024 * 1024))
        connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise click.ClickException(f"{issuer} does not answer as an OIDC provider: {error}") from None
    if not isinstance(told, dict) or told.get("issuer") != issuer:
        raise click.ClickException(f"{issuer} calls itself otherwise; give the issuer exactly as it does")
    if "S256" not in told.get("code_challenge_methods_supported", ["S256"]):
        raise click.ClickException(f"{issuer} does not know PKCE with S256")
    return told


@identity.command()
@DATA_OPTION
@click.option("--issuer", required=True, help="The provider's issuer, exactly as it writes it.")
@click.option("--client-id", required=True, help="What the provider calls this platform.")
@click.option(
    "--client-secret-file",
    "secret_file",
    type=click.File(),
    help="Where the client secret stands; `-` reads it from standard input. A public client has none.",
)
@click.option("--scope", "scopes", multiple=True, help="A scope to ask for; may be repeated.")
@click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="ATTRIBUTE=CLAIM",
    help="Which claim an attribute of the identity store is taken from, as UserName=email; may be repeated.",
)
@click.option(
    "--groups-claim", "groups", default="groups", show_default=True, help="The claim with groups; may be empty."
)
@click.option(
    "--provision/--no-provision", default=True, show_default=True, help="Whether unknown people are made users."
)
@click.option("--trust-email", is_flag=True, help="Take addresses that the provider does not call verified, too.")
@click.option(
    "--authority", type=click.Path(exists=True, dir_okay=False), default="", help="A PEM file to trust instead."
)
@click.option("--recheck", default=300, show_default=True, help="Seconds after which the provider is asked again.")
def connect(
    data: Path,
    issuer: str,
    client_id: str,
    secret_file: Any,
    scopes: tuple[str, ...],
    claims: tuple[str, ...],
    groups: str,
    provision: bool,
    trust_email: bool,
    authority: str,
    recheck: int,
) -> None:
    """Let people sign in at an OIDC provider (authorization code with PKCE)."""
    directory = _directory(data)
    pairs = dict(one.split("=", 1) for one in claims if "=" in one)
    if len(pairs) != len(claims):
        raise click.ClickException("a claim is written ATTRIBUTE=CLAIM")
    authority = str(Path(authority).absolute()) if authority else ""
    _discover(issuer, authority)
    secret = secret_file.read().strip() if secret_file is not None else ""
    try:
        sealed = open_root(directory.root).seal(secret.encode(), "identity-provider") if secret else ""
    except (SourceError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    asked = scopes or ("openid", "profile", "email", "offline_access")
    provider = Provider(
        issuer, client_id, sealed, asked, {**CLAIMS, **pairs}, groups, provision, trust_email, authority, recheck
    )
    provider.save(directory.identity_provider)
    click.echo(f"People sign in at {issuer}")
    click.echo("Tell the provider of these addresses, with the platform's own name and port:")
    click.echo("  redirect            https://HOST:PORT/_bastide/signin/callback")
    click.echo("  back-channel logout https://HOST:PORT/_bastide/signin/back-channel-logout")


@identity.command()
@DATA_OPTION
def disconnect(data: Path) -> None:
    """Let nobody sign in any more. Who is signed in stays so until the sign-in ends."""
    _directory(data).identity_provider.unlink(missing_ok=True)
    click.echo("No identity provider is connected")


@identity.command()
@DATA_OPTION
def show(data: Path) -> None:
    """Show which identity provider is connected."""
    provider = Provider.load(_directory(data).identity_provider)
    if provider is None:
        raise click.ClickException("no identity provider is connected; `bastide identity connect` does that")
    click.echo(f"issuer     {provider.issuer}")
    click.echo(f"client     {provider.client_id}" + (" (with a secret)" if provider.sealed_secret else " (public)"))
    click.echo(f"scopes     {' '.join(provider.scopes)}")
    click.echo(f"groups     {provider.groups or '(not taken from the provider)'}")
    click.echo(f"provision  {'yes' if provider.provision else 'no'}")
    for attribute, claim in provider.claims.items():
        click.echo(f"claim      {attribute} = {claim}")


@identity.group()
def user() -> None:
    """People of the development identity provider."""


@user.command("add")
@DATA_OPTION
@click.argument("name")
@click.option("--email", default="", help="Address; NAME@example.com if left out.")
@click.option("--given-name", default="")
@click.option("--family-name", default="")
@click.option("--group", "groups", multiple=True, help="A group; may be repeated.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="A further claim; may be repeated.")
@click.option(
    "--password-stdin", "piped", is_flag=True, help="Read the password from standard input instead of asking for it."
)
def add(
    data: Path,
    name: str,
    email: str,
    given_name: str,
    family_name: str,
    groups: tuple[str, ...],
    claims: tuple[str, ...],
    piped: bool,
) -> None:
    """Add somebody, or change everything about them. They stay who they are."""
    directory = _directory(data)
    if not name.isprintable() or " " in name or not 0 < len(name) <= 128:
        raise click.ClickException("a name has 1 to 128 characters and no spaces")
    if piped:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if len(password) < _LEAST_PASSWORD:
        raise click.ClickException(f"a password needs at least {_LEAST_PASSWORD} characters")
    people = load_people(directory.development_people)
    before = people.get(name)
    people[name] = Invented(
        before.subject if before is not None else new_subject(),
        hashed(password),
        email or f"{name}@example.com",
        given_name or name.capitalize(),
        family_name or "Example",
        list(groups),
        claims=dict(one.split("=", 1) for one in claims if "=" in one),
    )
    save_people(directory.development_people, people)
    click.echo(f"{name} can sign in at the development identity provider")


def _change(data: Path, name: str, work: Callable[[dict[str, Invented]], object]) -> None:
    path = _directory(data).development_people
    people = load_people(path)
    if name not in people:
        raise click.ClickException(f"there is nobody called {name}")
    work(people)
    save_people(path, people)


@user.command("groups")
@DATA_OPTION
@click.argument("name")
@click.argument("groups", nargs=-1)
def set_groups(data: Path, name: str, groups: tuple[str, ...]) -> None:
    """Put somebody into exactly these groups."""
    _change(data, name, lambda people: setattr(people[name], "groups", list(groups)))
    click.echo(f"{name} is in {', '.join(groups) or 'no group'}")


@user.command("disable")
@DATA_OPTION
@click.argument("name")
def disable(data: Path, name: str) -> None:
    """Let somebody sign in no more; their sessions end within seconds."""
    _change(data, name, lambda people: setattr(people[name], "disabled", True))
    click.echo(f"{name} is disabled")


@user.command("enable")
@DATA_OPTION
@click.argument("name")
def enable(data: Path, name: str) -> None:
    """Let somebody sign in again."""
    _change(data, name, lambda people: setattr(people[name], "disabled", False))
    click.echo(f"{name} is enabled")


@user.command("remove")
@DATA_OPTION
@click.argument("name")
def remove(data: Path, name: str) -> None:
    """Forget somebody; their sessions end within seconds."""
    _change(data, name, lambda people: people.pop(name))
    click.echo(f"{name} is gone")


@user.command("list")
@DATA_OPTION
def list_people(data: Path) -> None:
    """Show who there is."""
    for name, one in load_people(_directory(data).development_people).items():
        click.echo(f"{name}  {one.email}  {','.join(one.groups)}" + ("  (disabled)" if one.disabled else ""))
