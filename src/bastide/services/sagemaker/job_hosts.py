"""The hosts of a job: their volumes and inputs, their sandboxes, and what becomes of them meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bastide.engines import images
from bastide.engines.placement.types import devices_of
from bastide.engines.sandbox import Limits, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.workflow import Failed, Run
from bastide.kernel import LogStream
from bastide.services.sagemaker import job_network
from bastide.services.sagemaker.host import Host, public
from bastide.services.sagemaker.job_kind import JobKind
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.session import RoleSession
from bastide.services.sagemaker.untrusted import failed
from bastide.store import Row

_log = logging.getLogger("bastide.sagemaker")

GIB: Final = 1 << 30
_LOOK_SECONDS: Final = 0.5


class JobHosts(JobKind):
    """What the steps of a job do with its hosts."""

    async def stage_host(self, run: Run, row: Row, host: Host, hosts: Sequence[Host], key: bytes) -> None:
        """A host's encrypted volume, and its share of the inputs in it; raises SandboxError, OSError and Failed."""
        session: RoleSession = run.held["session"]
        size = int(self.resources(row).get("VolumeSizeInGB") or 30) * GIB
        volumes = self.calls.engine(Volumes)
        host.place = self.place(run, host)
        await volumes.close(host.place)
        host.volume = True
        try:
            volume = await volumes.create(host.place, key, size, host.granted.node)
        except SandboxError as error:
            _log.error("no volume for %s: %s", run.id, error)
            raise
        ml = host.ml = volume / "ml"
        for folder in ("model", "output/data", "input/config", "input/data"):
            await asyncio.to_thread((ml / folder).mkdir, parents=True, exist_ok=True)
        for source in self.sources(row):
            if source.groups and host.group not in source.groups:
                continue
            await host.receive(self.calls, session, run.held["contents"][source.name], hosts)
        host.mirrors = await self.mirror(run, row, host)

    async def start(self, run: Run, row: Row, host: Host, hosts: Sequence[Host]) -> None:
        """A host's sandbox; raises SandboxError and Failed."""
        environment: images.Environment = run.held["environment"]
        grant = host.granted.grant
        epoch = run.held.get("epoch") or run.state["epoch"]
        host.log = LogStream(run.held["session"], self.log_group, f"{row.name}/{host.name}-{epoch}")
        network: job_network.Network = run.held["network"]
        namespace, _, addresses = job_network.peers(network, [one.name for one in hosts])[host.number]
        readonly = [(place, target) for _, place, target in host.lazy]
        if network.authority:
            trusted = host.ml.parent / "authority.pem"
            await asyncio.to_thread(public, trusted, network.authority)
            readonly.append((trusted, job_network.AUTHORITY))
        spec = Spec(
            name=host.place,
            image=environment,
            command=self.command(row, environment),
            workdir=host.ml,
            limits=Limits(grant.memory_bytes, grant.cpus),
            env={
                "LOKY_MAX_CPU_COUNT": str(max(1, int(grant.cpus))),
                **network.variables[host.number],
                **self.variables(row),
            },
            readonly=readonly,
            hostname=host.name,
            hosts=() if addresses else (host.name,),
            addresses=addresses,
            network=namespace,
            resolver=network.resolver,
            interface=host.interface,
            group=[one.place for one in hosts],
            gpus=grant.gpus,
            devices=devices_of(host.granted.gpus),
            untrusted=self.untrusted(row),
        )
        try:
            _, host.running = await asyncio.gather(host.log.open(), self.calls.engine(Sandboxes).start(spec))
        except ValueError as error:
            raise Failed("ClientError", str(error)) from None
        except SandboxError as error:
            self.unless_lost(run, [host])
            if spec.untrusted:
                raise failed(error) from error
            raise

    def usages(self, measures: Measures, row: Row, host: Host) -> Usages:
        """What a host uses, measured from now on."""
        assert host.running is not None
        memory = host.granted.grant.memory_bytes
        usages = Usages(measures, host.running, memory, host.ml, (("Host", f"{row.name}/{host.name}"),))
        usages.start()
        return usages

    def missing(self, run: Run, hosts: Sequence[Host]) -> str:
        """Why the job cannot go on: what it needs and has not any more. Empty while everything is there."""
        volumes = self.calls.engine(Volumes)
        left = (volumes.lost(host.place) for host in hosts if host.ml != Path())
        if why := next(filter(None, left), ""):
            return why
        network: job_network.Network = run.held["network"]
        whole = not network.joined or network.joined.stands()
        return "" if whole else "The network between its hosts of the job was lost."

    async def lost(self, run: Run, hosts: Sequence[Host]) -> None:
        """Returns when something of the job is gone under it."""
        while not self.missing(run, hosts):
            await asyncio.sleep(_LOOK_SECONDS)

    def unless_lost(self, run: Run, hosts: Sequence[Host]) -> None:
        """Raises Failed if something of the job is gone: what it said of its files and peers then is not its fault."""
        if why := self.missing(run, hosts):
            raise Failed("InternalServerError", f"{why.rstrip('.')}. Please try again.")

    def full(self, row: Row, what: str, content: str) -> Failed:
        """What a job says whose volume has no room."""
        size = self.resources(row).get("VolumeSizeInGB") or 30
        return Failed(
            "ClientError",
            f"{what}: the volume of {size} GB has no space left for {content}. Please use a larger VolumeSizeInGB.",
        )
