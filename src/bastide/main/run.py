"""`bastide init` and `bastide up`: the commands that are no clients."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import ipaddress
import json
import logging
import os
import re
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bastide.commands import DATA_OPTION
from bastide.domain import wall
from bastide.engines.artifacts import Place, PlaceError, Unavailable
from bastide.engines.cluster import ClusterError
from bastide.engines.keys import RootKey, SourceError, create_keyring, open_root, rotate_root
from bastide.engines.mail import Mail
from bastide.engines.outgoing import Outgoing, Unreachable, checked
from bastide.frontdoor import Listener
from bastide.frontdoor.receive import server_context
from bastide.frontdoor.tunnel import Tunnel
from bastide.main import authority
from bastide.main.compose import Platform
from bastide.main.endpoints import Attaching, Doors
from bastide.main.loop import Loop
from bastide.main.objects import leave_place, set_owner, take_place
from bastide.main.options import OBJECTS_OPTION
from bastide.services.iam.bootstrap import bootstrap
from bastide.store import SqliteStore, Transaction
from bastide.store.directory import REGIONS, Configuration, DataDirectory, legal_account, sync_folder, write_private

_DRAIN_SECONDS = 25


_SOURCE_OPTION = click.option(
    "--root-key-source",
    "source",
    default="file",
    show_default=True,
    help="Where the root key is: file (DATA/root.key), environment:NAME, descriptor:NUMBER, "
    "pkcs11:token=LABEL;object=LABEL?module-path=FILE (its PIN in BASTIDE_PKCS11_PIN) or "
    "kms:KEY-ARN?endpoint-url=URL&ca-bundle=FILE.",
)
_PR_SET_DUMPABLE = 4


def _close_to_others() -> None:
    """No core dump holds this process's memory, and no process of the same user reads it (prctl(2), ptrace(2))."""
    most = 1 if resource.getrlimit(resource.RLIMIT_CORE)[1] else 0  # 1 is what jobs are to have, see their limits
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise click.ClickException("this machine does not let a process keep its memory to itself")


@click.command()
@DATA_OPTION
@click.option("--account-id", "account", help="Id of the management account, twelve digits; a random one if left out.")
@click.option(
    "--region", "regions", multiple=True, help="A region that exists; the first is the default. May be repeated."
)
@click.option("--host", "hosts", multiple=True, help="A name that clients call the platform by, beside localhost.")
@_SOURCE_OPTION
@OBJECTS_OPTION
def init(
    data: Path, account: str | None, regions: tuple[str, ...], hosts: tuple[str, ...], source: str, objects: str
) -> None:
    """Make a new platform: its keys, its authority and its first administrator.

    Everything is written below the data directory, readable by you alone. The administrator's credentials are meant to be
    replaced by federated people; `bastide credentials` shows how to use them.
    """
    directory = DataDirectory(data)
    if directory.configuration.exists():
        raise click.ClickException(f"{data} holds a platform already; `bastide up --data {data}` starts it")
    if account is None:
        account = str(secrets.randbelow(9 * 10**11) + 10**11)
    if not legal_account(account):
        raise click.ClickException(f"`{account}` is not an account id: it needs twelve digits")
    os.umask(0o077)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    data.chmod(0o700)
    configuration = Configuration(account, regions or REGIONS, ("localhost", *hosts), objects=objects)
    _close_to_others()
    try:
        owner = take_place(objects)
    except PlaceError as error:
        raise click.ClickException(str(error)) from None
    try:
        root = create_keyring(directory.root, source)
    except (SourceError, OSError) as error:
        with contextlib.suppress(PlaceError, OSError):
            leave_place(objects)
        raise click.ClickException(str(error)) from None
    authority.create(directory.tls, configuration.hosts, configuration.regions)
    access_key, secret = asyncio.run(_bootstrap(directory, account, root, owner))
    write_private(
        directory.administrator,
        json.dumps({"AccessKeyId": access_key, "SecretAccessKey": secret, "Account": account}, indent=2).encode(),
    )
    # Last, so that a platform whose making was interrupted is not taken for whole.
    directory.save(configuration)
    sync_folder(data.absolute().parent)
    click.echo(f"A new platform stands in {data}")
    click.echo(f"  management account  {account}")
    click.echo(f"  default region      {configuration.regions[0]}")
    click.echo(f"  administrator       {directory.administrator} (mode 0600)")
    click.echo(f"  authority           {directory.authority}")
    if objects:
        click.echo(f"  objects             {Place.parse(objects)}")
    click.echo(f"Start it with: bastide up --data {data}")


async def _bootstrap(directory: DataDirectory, account: str, root: RootKey, owner: str) -> tuple[str, str]:
    store = SqliteStore(directory.database)

    def work(tx: Transaction) -> tuple[str, str]:
        set_owner(tx, owner)
        return bootstrap(tx, account, wall(), root)

    try:
        return await store.write(work)
    finally:
        store.close()


@click.command("rotate-root-key")
@DATA_OPTION
@_SOURCE_OPTION
def rotate_root_key(data: Path, source: str) -> None:
    """Have a new root key, of the same or another source, open the platform, which must be stopped.

    With `file` a new key takes the old one's place. The old root key opens backups only with a safe of its time: make a
    backup now, keep its safe, and destroy older ones.
    """
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform")
    os.umask(0o077)
    _close_to_others()
    try:
        directory.lock()
        rotate_root(directory.root, source)
    except (SourceError, RuntimeError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{data}: the root key now comes from `{source}`. Make a backup: its safe needs the new root key.")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"`{text}` is not HOST:PORT")
    return host.strip("[]"), int(port)


@click.command()
@DATA_OPTION
@click.option("--listen", default="127.0.0.1:4566", show_default=True, help="HOST:PORT of the TLS listener.")
@click.option("--http", "plain", help="HOST:PORT of a plain listener besides, on loopback only; marked as not secure.")
@click.option(
    "--deliver-to",
    "networks",
    multiple=True,
    help="A network beside the public ones that topics and API destinations may reach, as 10.1.0.0/16. May be repeated.",
)
@click.option(
    "--smtp",
    default="",
    help="A mail server, as smtp://[USER@]HOST[:PORT] or smtps://...; its user's password in BASTIDE_SMTP_PASSWORD.",
)
@click.option("--mail-from", "sender", default="", help="The address that letters are from.")
@click.option("--public-url", help="Where people reach it, as https://HOST:PORT, if not at the listener itself.")
@click.option(
    "--development-identity-provider",
    "development",
    is_flag=True,
    help="People sign in at a provider that comes along, for development only; on loopback only.",
)
@click.option(
    "--package-index",
    "package_index",
    default="",
    help="The simple pages of a public package index, which CodeArtifact's repositories may then be connected to as "
    "public:pypi; reached as --deliver-to has it.",
)
@click.option("--cluster", help="HOST:PORT of the Ray cluster whose nodes run jobs (docs/cluster.md).")
@click.option(
    "--log-level", default="warning", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
def up(
    data: Path,
    listen: str,
    plain: str | None,
    public_url: str | None,
    development: bool,
    cluster: str | None,
    log_level: str,
    networks: tuple[str, ...],
    smtp: str,
    sender: str,
    package_index: str,
) -> None:
    """Run the platform until it is told to stop (SIGTERM or Ctrl-C drain).

    Prints how enforcement stands, and one line `ready` with the URLs once it serves.
    """
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Whoever talks nonsense to a socket must not fill the log with it.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform; make one with `bastide init --data {data}`")
    address = _address(listen)
    loopback = _address(plain) if plain else None
    if public_url is not None and not _PUBLIC.fullmatch(public_url):
        raise click.ClickException(f"`{public_url}` is not https://HOST or https://HOST:PORT")
    if development and public_url is not None:
        raise click.ClickException("the development identity provider may be reached on loopback only")
    if development and address[0] not in _LOOPBACK:
        raise click.ClickException("the development identity provider may be reached on loopback only")
    if development and directory.identity_provider.exists():
        raise click.ClickException(
            "an identity provider is connected; `bastide identity disconnect` before using the development one"
        )
    if loopback is not None and loopback[0] not in _LOOPBACK:
        raise click.ClickException("the plain listener may stand on loopback only (127.0.0.1, ::1 or localhost)")
    if cluster is not None:
        _address(cluster)
    try:
        outgoing, mail = Outgoing(directory.authority, networks), Mail(smtp, sender)
        if package_index:
            checked(package_index)
    except (ValueError, Unreachable) as error:
        raise click.ClickException(str(error)) from None
    try:
        directory.lock()
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    os.umask(0o077)
    _close_to_others()
    try:
        root = open_root(directory.root)
        configuration = directory.load()
        authority.renew(directory.tls, configuration.hosts, configuration.regions)
    except (SourceError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    uvloop.run(
        _run(directory, root, address, loopback, public_url, development, outgoing, mail, cluster, package_index),
        loop_factory=Loop,
    )


_PUBLIC = re.compile(r"https://[a-z0-9.-]+(:[0-9]{1,5})?")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MOST_HEAD_BYTES = 128 * 1024
_HEAD_SECONDS = 30.0


class _Protocol(HttpToolsProtocol):
    """Tells the application which TLS version a connection speaks, and ends one whose request's head is endless, in
    bytes or in time: no application has seen such a request yet."""

    _head = 0
    _late: asyncio.TimerHandle | None = None
    _in_head = True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
            if self._head > _MOST_HEAD_BYTES:
                self.send_400_response("The request's head is too long.")
                return
        super().data_received(data)
        if self._in_head:
            if self._late is None:
                self._late = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        super().connection_lost(exc)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(_HEAD_SECONDS, transport.abort)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.app_state = {**self.app_state, "tls": tls.version() or "TLS"}


class _Server(uvicorn.Server):
    """A listener that leaves signals to the platform."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configured(application: Any) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        http=_Protocol,
        loop="none",
        lifespan="off",
        ws=Tunnel,
        interface="asgi3",
        access_log=False,
        server_header=False,
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        backlog=2048,
    )
    config.load()
    return config


def _server(application: Any, tls: DataDirectory | None) -> _Server:
    config = _configured(application)
    if tls is not None:
        config.ssl = server_context(str(tls.tls / "server.pem"), str(tls.tls / "server.key"))
    return _Server(config)


def _bind(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
    return bound


async def _run(
    directory: DataDirectory,
    root: RootKey,
    listen: tuple[str, int],
    plain: tuple[str, int] | None,
    public_url: str | None,
    development: bool,
    outgoing: Outgoing,
    mail: Mail,
    cluster: str | None,
    package_index: str,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sockets = [_bind(listen)] + ([_bind(plain)] if plain else [])
    ports = [one.getsockname()[1] for one in sockets]
    # People come by the name that was given at `init`, if one was.
    host = "localhost" if development else directory.load().hosts[-1]
    url = public_url or f"https://{host}:{ports[0]}"
    try:
        outgoing.ports.update(ports)
        platform = await Platform.start(
            directory, url, root=root, development=development, outgoing=outgoing, mail=mail, cluster=cluster,
            package_index=package_index,
        )  # fmt: skip
    except (PlaceError, Unavailable, ClusterError) as error:
        raise click.ClickException(str(error)) from None
    platform.issuers.loopback = all(ipaddress.ip_address(one.getsockname()[0]).is_loopback for one in sockets)
    door = platform.door()
    servers = [_server(door.at(Listener("public", True)), directory)]
    if plain:
        servers.append(_server(door.at(Listener("plain", False)), None))
    tasks = [asyncio.create_task(server.serve(sockets=[bound])) for server, bound in zip(servers, sockets, strict=True)]
    while not all(server.started for server in servers):
        await asyncio.sleep(0.005)
    doors = Doors(door, directory, servers[0], _Protocol, _configured)
    await platform.open_networks(doors)
    attaching = Attaching(platform.networks, directory.attaching)
    await attaching.start()
    url = f"https://localhost:{ports[0]}"
    extra = f"http://{_shown(plain[0])}:{ports[1]}" if plain else None
    write_private(
        directory.endpoint,
        json.dumps(
            {"url": url, "http": extra, "pid": os.getpid(), "region": platform.configuration.regions[0]}
        ).encode(),
    )
    for line in platform.enforcement(plain is not None):
        click.echo(line)
    gc.freeze()  # what stands by now stays
    click.echo(f"ready {url}" + (f" {extra}" if extra else ""))
    sys.stdout.flush()
    await stop.wait()
    click.echo("draining: no new connections, running calls finish, jobs are taken up at the next start")
    attaching.close()
    doors.close()
    for server in servers:
        server.should_exit = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while any(server.server_state.tasks for server in servers):
                await asyncio.sleep(0.02)
    # What is connected now is idle; waiting for its client to say goodbye over TLS would take half a minute.
    for server in servers:
        for connection in list(server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    await platform.close()
    directory.endpoint.unlink(missing_ok=True)
    click.echo("stopped")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
