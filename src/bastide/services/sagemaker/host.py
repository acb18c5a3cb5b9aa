"""One host of a job: what it holds in this process while the job runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bastide.domain import Refused
from bastide.engines.lazy import Folders
from bastide.engines.placement import Grant, Place
from bastide.engines.sandbox import Ended, Running, Volumes
from bastide.engines.workflow import Failed
from bastide.kernel import Calls, LogStream
from bastide.services.sagemaker import channels, digest
from bastide.services.sagemaker.archive import Unfit
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.pipes import Pipe
from bastide.services.sagemaker.session import RoleSession


@dataclass
class Host:
    """number: from 0. type: its instance type. group: its instance group. place: the name of its volume and sandbox.
    ml: its ``/opt/ml``. lazy: names and places of FastFile inputs, and the paths they have inside. folders: descriptors of
    those that pipes are in. received: files of inputs, by the input's name. faults: why inputs could not be read. tail: the
    last lines. interface: the network's, by which it reaches the other hosts. granted: where it runs and
    what it may use."""

    number: int
    type: str
    group: str
    place: str = ""
    ml: Path = Path()
    volume: bool = False
    running: Running | None = None
    log: LogStream | None = None
    pipes: list[Pipe] = field(default_factory=list)
    folders: list[int] = field(default_factory=list)
    mirrors: list[Mirror] = field(default_factory=list)
    lazy: list[tuple[str, Path, str]] = field(default_factory=list)
    received: dict[str, list[channels.Received]] = field(default_factory=dict)
    faults: list[Failed] = field(default_factory=list)
    tail: list[bytes] = field(default_factory=list)

    interface: str = "lo"
    granted: Place = field(default_factory=lambda: Place(Grant(1.0, 1 << 30)))

    @property
    def name(self) -> str:
        """As SageMaker names it."""
        return f"algo-{self.number + 1}"

    async def receive(
        self, calls: Calls, session: RoleSession, content: channels.Content, hosts: Sequence[Host]
    ) -> None:
        """Gets its share of an input, as the input's mode has it; raises Failed."""
        source = content.source
        sharing = [one.number for one in hosts if not source.groups or one.group in source.groups]
        turn = sharing.index(self.number)
        base = self.ml / source.target
        if source.mode == channels.PIPE:
            await asyncio.to_thread(base.parent.mkdir, parents=True, exist_ok=True)
            folder = os.open(base.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.folders.append(folder)
            made = await asyncio.to_thread(Pipe, session, content, folder, base.name, turn, len(sharing))
            self.pipes.append(made)
            return
        await asyncio.to_thread(base.mkdir, parents=True, exist_ok=True)
        items = content.share(turn, len(sharing))
        if source.mode == channels.FILE:
            self.received[source.name] = await channels.stage(session, source, items, base)
            return
        lazy = channels.Lazy(session, items, self.faults)
        name = f"{self.place}-{len(self.lazy)}"
        folders = calls.engine(Folders)
        await folders.unmount(name)
        try:
            place = await folders.mount(name, lazy.files, lazy.read)
        except ValueError as error:
            raise Failed("ClientError", f"Data download failed: {error}.") from None
        self.lazy.append((name, place, f"/opt/ml/{source.target}"))

    async def wait(self) -> Ended:
        """Until its program is gone."""
        assert self.running is not None
        return await self.running.wait()

    async def stop(self, grace: float) -> None:
        """Ends its program, if there is one."""
        if self.running is not None:
            await self.running.stop(grace)

    async def clear(self, calls: Calls) -> None:
        """Frees what it holds; its program must be gone."""
        if self.log is not None:
            await self.log.abandon()
        for name, _, _ in self.lazy:
            await calls.engine(Folders).unmount(name)
        self.lazy.clear()
        while self.folders:
            with contextlib.suppress(OSError):
                os.close(self.folders.pop())
        if self.volume:
            await calls.engine(Volumes).close(self.place)
            self.volume = False


async def all_or_first_failure(hosts: Sequence[Host]) -> int | None:
    """Until every host ended well, or one did not: which."""

    async def ended(host: Host) -> int | None:
        return None if (await host.wait()).exit_code == 0 else host.number

    for one in asyncio.as_completed([ended(host) for host in hosts]):
        if (failed := await one) is not None:
            return failed
    return None


async def last_sync(hosts: Sequence[Host]) -> str:
    """What the job left goes to S3, also of one that failed: that is what checkpoints are for. Says what went wrong."""
    wrong = ""
    for mirror in (mirror for host in hosts for mirror in host.mirrors):
        try:
            await mirror.sync()
        except Refused as refused:
            wrong = f"Upload failed: {refused.code}: {refused.message}"
        except (Unfit, OSError) as error:
            wrong = f"Upload failed: {error}"
    return wrong


def public(path: Path, content: bytes) -> None:
    """A file that everybody may read."""
    path.write_bytes(content)
    path.chmod(0o644)


def content_digests(pinned: Mapping[str, Any], hosts: Sequence[Host]) -> dict[str, dict[str, str]]:
    """What each input was, by content; of one that is read while the job runs, by what its listing said of the content."""
    found: dict[str, dict[str, str]] = {}
    for name, told in pinned["sources"].items():
        got = {one.path: one for host in hosts for one in host.received.get(name, ())}
        if not any(name in host.received for host in hosts):
            found[name] = {"sha256": f"listing-sha256:{told['sha256']}"}
            continue
        found[name] = {"sha256": digest.of_files((path, one.place) for path, one in got.items())}
        if len(got) == 1:
            [one] = got.values()
            found[name] |= {"etag": one.etag.strip('"'), "version": one.version}
    return found
