"""`bastide node`: this machine as a node of a platform's cluster."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from bastide.commands import DATA_OPTION
from bastide.engines.cluster import token
from bastide.engines.placement.types import gpus_here
from bastide.main.agent import FOLDER, sweep
from bastide.store.directory import DataDirectory, secret_in

_KEEP: Final = 8
"""The part of its memory that a node keeps from jobs: an eighth."""
_OBJECTS: Final = 100 << 20
_LOOK_SECONDS: Final = 2.0
_END_SECONDS: Final = 30.0


@click.command()
@DATA_OPTION
@click.option("--join", help="HOST:PORT of the cluster; without it this machine begins one.")
@click.option("--port", default=6379, show_default=True, help="Where a cluster that begins here is to be joined.")
@click.option(
    "--secret",
    type=click.Path(path_type=Path),
    help="A copy of the platform's cluster.key. [default: DATA/cluster.key]",
)
@click.option("--address", help="The address by which the other nodes reach this machine.")
@click.option("--name", default=os.uname().nodename, show_default=True, help="What the node is called.")
@click.option(
    "--cpus", type=int, help="Processors for jobs; 0 for a machine that runs none. [default: all; 0 without --join]"
)
@click.option("--memory", type=float, help="GiB of memory for jobs. [default: seven eighths of the machine's]")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Where volumes of jobs are."
)
def node(
    data: Path,
    join: str | None,
    port: int,
    secret: Path | None,
    address: str | None,
    name: str,
    cpus: int | None,
    memory: float | None,
    folder: Path,
) -> None:
    """Make this machine a node of a Ray cluster that runs a platform's jobs, until it is told to stop.

    Everybody who has the secret, or Ray's token that is derived from it, is root on every node. Nodes speak to each other
    over many ports, without encryption: keep them in a network of their own. The platform's machine is a node as well.
    """
    key = (secret or DataDirectory(data).cluster_key).absolute()
    try:
        held = DataDirectory(data).cluster_secret() if secret is None else secret_in(key)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if importlib.util.find_spec("ray") is None:
        raise click.ClickException("Ray is not installed: pip install 'bastide[ray]'")
    if os.geteuid() != 0:
        raise click.ClickException("start the node as root: it mounts volumes and gives each job a user of its own")
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = int(memory * (1 << 30)) if memory else most - most // _KEEP
    found = (os.cpu_count() or 1 if join else 0) if cpus is None else cpus
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += [f"--address={join}"] if join else ["--head", f"--port={port}", "--include-dashboard=false"]
    command += [f"--num-cpus={found}", f"--num-gpus={len(gpus_here()) if found else 0}", f"--node-name={name}"]
    command += [f"--memory={room if found else 1}", f"--object-store-memory={_OBJECTS}"]
    command += [f"--node-ip-address={address}"] if address else []
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token(held),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Limits are the control groups'. Ray would end the agent, and with it every job of the node.
        "RAY_memory_monitor_refresh_ms": "0",
        "BASTIDE_NODE_SECRET": str(key),
        "BASTIDE_NODE_FOLDER": str(folder.absolute()),
    }
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    sys.exit(asyncio.run(_keep(command, environment, folder.absolute())))


async def _keep(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Runs Ray, and clears what agents leave that were killed, with their platform or their machine's Ray. Ray's status."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    await sweep(folder)
    ray = await asyncio.create_subprocess_exec(
        "/usr/bin/setpriv", "--pdeathsig", "TERM", "--", *command, env=environment, stdin=asyncio.subprocess.DEVNULL
    )  # fmt: skip

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            ray.terminate()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    ended = asyncio.create_task(ray.wait())
    while not ended.done():
        await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
        await sweep(folder)
    until = loop.time() + _END_SECONDS  # agents end a little after Ray
    while any(folder.iterdir()) and loop.time() < until:
        await asyncio.sleep(0.2)
        await sweep(folder)
    return ended.result()
