"""A job from its row to its end: the steps that training and processing have in common.

assume, reserve, pin, stage, run, watch, collect, settle. What a step holds (session, claim, volume, sandbox) lives in this
process and ends with it; a platform that was started again goes on from `assume`, with what was pinned.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines import images
from bastide.engines.lazy import LazyError
from bastide.engines.network import NetworkError
from bastide.engines.placement import Claim, Grant, Placement
from bastide.engines.placement.types import devices_of
from bastide.engines.sandbox import Limits, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Calls, Kind, LogStream, Unforeseen
from bastide.services.sagemaker import archive, channels, digest, job_network, job_record, own_image
from bastide.services.sagemaker.channels import Source, together
from bastide.services.sagemaker.host import Host, all_or_first_failure, last_sync, public
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.metrics import Metrics
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.outcome import OUT_OF_TIME, REASON, STOPPED, outcome_of, verdict
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.services.sagemaker.tuning_definition import OBJECTIVE
from bastide.services.sagemaker.untrusted import NO_PIPES, failed, untrusted
from bastide.store import Row, Transaction

T = TypeVar("T")

_log = logging.getLogger("bastide.sagemaker")

GIB: Final = 1 << 30
HOMOGENEOUS: Final = "homogeneousCluster"
_TAIL_LINES: Final = 20
_LOOK_SECONDS: Final = 0.5
_PAUSE: Final = 1.0
"""Seconds until a job is tried again after an internal error."""


class Beside(Protocol):
    """What goes on beside a job that runs."""

    def start(self) -> None:
        """Begins; the job's programs have begun."""

    async def finish(self) -> None:
        """The job's programs have ended, and their folders are still there. Does not raise for what the job did."""

    async def abandon(self) -> None:
        """Ends at once; also after `finish`."""


class JobFlow(ABC):
    """What a kind of job says of itself, and the steps that follow from it. `name` is the flow's name."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    log_group: ClassVar[str]

    def __init__(self, calls: Calls, grace_seconds: float) -> None:
        self.calls = calls
        self.grace = grace_seconds
        self.live: dict[str, Metrics] = {}
        """What running jobs told of themselves so far, by their ARN."""

    def flow(self) -> Flow:
        """The flow."""

        def again(step: str, function: Any) -> Step:
            return Step(step, function, again_from="assume")

        return Flow(
            self.name,
            [
                Step("assume", self.assume),
                again("reserve", self.reserve),
                again("pin", self.pin),
                again("stage", self.stage),
                again("run", self.run),
                again("watch", self.watch),
                again("collect", self.collect),
                Step("settle", self.settle, always=True),
            ],
            drop=self.drop,
        )

    # -- what a kind of job says -------------------------------------------------------------------------------------------

    @abstractmethod
    def image(self, row: Row) -> str: ...

    @abstractmethod
    def resources(self, row: Row) -> dict[str, Any]:
        """InstanceType, VolumeSizeInGB, VolumeKmsKeyId."""

    @abstractmethod
    def sources(self, row: Row) -> list[Source]: ...

    def hosts(self, row: Row) -> list[Host]:
        """The job's hosts, none of them there yet."""
        resources = self.resources(row)
        groups = resources.get("InstanceGroups") or [{"InstanceGroupName": HOMOGENEOUS, **resources}]
        made: list[Host] = []
        for group in groups:
            for _ in range(int(group.get("InstanceCount") or 1)):
                made.append(Host(len(made), group["InstanceType"], group["InstanceGroupName"]))
        return made

    @abstractmethod
    def configure(self, row: Row, host: Host, hosts: Sequence[Host], ml: Path) -> None:
        """Writes what the job finds below ``/opt/ml`` of a host beside its inputs."""

    @abstractmethod
    def command(self, row: Row, environment: images.Environment) -> Sequence[str]: ...

    @abstractmethod
    def variables(self, row: Row) -> Mapping[str, str]: ...

    @abstractmethod
    async def deliver(self, run: Run, row: Row, hosts: Sequence[Host]) -> dict[str, Any]:
        """Uploads what the job made; returns what its row then says."""

    @abstractmethod
    def ended(self, row: Row, ml: Path, outcome: dict[str, Any]) -> None:
        """Adds to the outcome what the job left in the folder of the host that decided it."""

    def bound(self, row: Row) -> str:
        """What of the job only the platform's own machine can do; empty for a job that a cluster's node can run."""
        config, isolated, _ = self.network(row)
        if config and not isolated:
            return "VpcConfig"
        if self.further(row):
            return "DebugRuleConfigurations"
        with self.calls.store.reading() as view:
            if own_image.named(self.calls, view, self.image(row), row.account) is not None:
                return "an image of one's own"
        if self._untrusted(row):
            return "code that is not trusted"
        modes = sorted({one.mode for one in self.sources(row) if one.mode != channels.FILE})
        return modes[0] if modes else "EnableManagedSpotTraining" if self.spot(row) else self.follows(row)

    def follows(self, row: Row) -> str:
        """The member by which S3 is to follow folders of the job while it runs; empty if there is none."""
        return ""

    def spot(self, row: Row) -> bool:
        """Whether others may take the job's place."""
        return False

    async def mirror(self, run: Run, row: Row, host: Host) -> list[Mirror]:
        """Folders of a host that S3 is to follow while the job runs, as they are to be when it begins."""
        return []

    def further(self, row: Row) -> list[Grant]:
        """What is booked beside the hosts."""
        return []

    def beside(self, run: Run, row: Row, hosts: Sequence[Host]) -> Beside | None:
        """What is to go on while the job runs."""
        return None

    @abstractmethod
    def network(self, row: Row) -> tuple[Any, bool, bool]:
        """VpcConfig, EnableNetworkIsolation, EnableInterContainerTrafficEncryption."""

    def secondary(self, row: Row, status: str, message: str, now: int) -> bool:
        """Shows a step to whoever describes the job; False if there is nothing to show."""
        return False

    @abstractmethod
    def finish(self, row: Row, status: str, run: Run, now: int) -> None:
        """Fills the row's last members."""

    def over(self, tx: Transaction, row: Row, run: Run) -> None:  # noqa: B027 - most kinds have nothing more
        """What else a job that has its last status leaves."""

    # -- rows --------------------------------------------------------------------------------------------------------------

    def row(self, run: Run) -> Row:
        """The job as it stands."""
        with self.calls.store.reading() as view:
            return self.kind.find(view, run.state["account"], run.state["region"], run.state["name"])

    async def show(self, run: Run, status: str, message: str) -> None:
        """Shows where the job is, unless it is being stopped."""

        def work(tx: Transaction) -> None:
            row = self.kind.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status == "InProgress" and self.secondary(row, status, message, tx.now):
                self.kind.change(tx, row, f"{self.kind.name}StateChange")

        await self.calls.store.write(work)

    @staticmethod
    async def unless_stopped(run: Run, work: Coroutine[Any, Any, T]) -> T:
        """`work`, given up when the job is stopped."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(run.signalled("stop"))
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Failed(STOPPED, "The job was stopped before it ran.")
            return task.result()
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    @staticmethod
    def place(run: Run, host: Host) -> str:
        """The name of a host's volume and sandbox."""
        name = f"job-{hashlib.sha256(run.id.encode()).hexdigest()[:24]}"
        return name if host.number == 0 else f"{name}-{host.number + 1}"

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def assume(self, run: Run) -> dict[str, Any]:
        """Credentials of the execution role, for this attempt only."""
        row = self.row(run)
        session = RoleSession(self.calls, row.doc["RoleArn"], account=row.account, region=row.region, source_arn=run.id)
        try:
            await session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(row.doc["RoleArn"]).message) from None
        config, isolated, _ = self.network(row)
        job_network.go_by_vpc(session, config, isolated=isolated)
        run.held["session"] = session
        return {}

    async def reserve(self, run: Run) -> dict[str, Any]:
        """A claim on the machine; jobs wait here in line."""
        row = self.row(run)
        placement = self.calls.engine(Placement)
        types: list[str | Grant] = [*(host.type for host in self.hosts(row)), *self.further(row)]
        here = bool(self.bound(row))
        if why := await placement.busy(*types, here=here):
            await self.show(run, "Pending", f"Pending: waiting for {why}")
        interrupt = asyncio.Event()
        claiming = placement.claim(run.id, *types, yields=interrupt.set if self.spot(row) else None, here=here)
        try:
            async with asyncio.timeout(self._wait_left(run, row)):
                run.held["claim"] = await self.unless_stopped(run, claiming)
        except TimeoutError:
            raise Failed("MaxWaitTimeExceeded", "There was no room in time.") from None
        run.held["interrupt"] = interrupt
        return {"started": run.state.get("started") or run.clock()}

    @staticmethod
    def _wait_left(run: Run, row: Row) -> float | None:
        """Seconds until a spot job has waited and run for too long together."""
        most = row.doc.get("StoppingCondition", {}).get("MaxWaitTimeInSeconds")
        return None if not most else max(0.0, most - (run.clock() - row.created) / MICROS)

    async def pin(self, run: Run) -> dict[str, Any]:
        """Digests of image and data, recorded before use. A repeated attempt must find the same."""
        row = self.row(run)
        session: RoleSession = run.held["session"]
        if any(one.mode == channels.PIPE for one in self.sources(row)) and self._untrusted(row):
            raise Failed("ClientError", f"TrainingInputMode Pipe: {NO_PIPES}")
        earlier = run.state.get("pinned")
        pulling = own_image.environment(session, self.image(row), earlier["image"] if earlier else "")
        environment = run.held["environment"] = await self.unless_stopped(run, pulling)
        contents: dict[str, channels.Content] = {}
        pinned: dict[str, Any] = {"image": environment.digest, "sources": {}}

        async def look() -> None:
            for source in self.sources(row):
                found = contents[source.name] = await channels.content(session, source)
                pinned["sources"][source.name] = {
                    "uri": source.where,
                    "objects": len(found.told),
                    "bytes": sum(size for _, _, size in found.told),
                    "sha256": hashlib.sha256(orjson.dumps(found.told)).hexdigest(),
                }

        await self.unless_stopped(run, look())
        if earlier is not None and earlier != pinned:
            raise Failed("ClientError", "Image or input data changed while the job was being taken up again.")
        run.held["contents"] = contents
        return {"pinned": pinned, "epoch": run.state.get("epoch") or run.clock() // 1000}

    async def stage(self, run: Run) -> dict[str, Any]:
        """The encrypted volumes, and the inputs in them."""
        await self._persevere(run, self._staged)
        return {"digests": run.held["digests"]}

    async def _persevere(self, run: Run, *works: Callable[[Run], Awaitable[None]]) -> None:
        """Does the last of `works`; after an internal error all of them, with a new booking, as often as RetryStrategy
        says."""
        doing = works[-1:]
        while True:
            try:
                for work in doing:
                    await work(run)
                return
            except (SandboxError, NetworkError, LazyError, OSError, Failed) as error:
                if not self._again(run, error):
                    raise
            await self.show(run, "Restarting", "Restarting the training job after an internal error")
            await self.release(run)
            await self.unless_stopped(run, asyncio.sleep(_PAUSE))
            await self.reserve(run)
            doing = works

    def _again(self, run: Run, error: Exception) -> bool:
        """Whether the job is tried again after an error: one that was not its own, as often as RetryStrategy says."""
        if isinstance(error, Failed) and error.code != "InternalServerError":
            return False
        most = int((self.row(run).doc.get("RetryStrategy") or {}).get("MaximumRetryAttempts") or 0)
        tries: int = run.held.get("tries", 0) + 1
        run.held["tries"] = tries
        if tries <= most:
            _log.warning("%s is tried again: %s", run.id, error)
        return tries <= most

    async def _staged(self, run: Run) -> None:
        row = self.row(run)
        await self.show(run, "Downloading", "Downloading input data")
        await self.unless_stopped(run, self._stage(run, row))

    async def _stage(self, run: Run, row: Row) -> None:
        hosts = run.held["hosts"] = self.hosts(row)
        claim: Claim = run.held["claim"]
        for host, granted in zip(hosts, claim.places, strict=False):  # what is booked beside comes behind
            host.granted = granted
        key = await volume_key(run.held["session"], self.resources(row).get("VolumeKmsKeyId"))
        network = run.held["network"] = job_network.Network()
        config, isolated, encrypted = self.network(row)
        connecting = job_network.connect(
            run.held["session"], network, run.id, len(hosts), config, isolated=isolated, encrypted=encrypted
        )
        try:
            await together([connecting, *(self._stage_host(run, row, host, hosts, key) for host in hosts)])
            told = job_network.peers(network, [one.name for one in hosts])
            for host, (_, interface, _) in zip(hosts, told, strict=True):
                host.interface = interface
                await asyncio.to_thread(self.configure, row, host, hosts, host.ml)
            run.held["digests"] = await asyncio.to_thread(_digests, run.state["pinned"], hosts)
        except (OSError, Failed) as error:
            self._unless_lost(run, hosts)
            if isinstance(error, Failed) or error.errno != errno.ENOSPC:
                raise
            raise self._full(row, "Data download failed", "its inputs") from None

    async def _stage_host(self, run: Run, row: Row, host: Host, hosts: Sequence[Host], key: bytes) -> None:
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

    async def run(self, run: Run) -> dict[str, Any]:
        """The sandboxes."""
        await self._persevere(run, self._staged, self._begun)
        return {"begun": run.clock()}

    async def _begun(self, run: Run) -> None:
        if run.asked("stop"):
            raise Failed(STOPPED, "The job was stopped before it ran.")
        row = self.row(run)
        hosts: list[Host] = run.held["hosts"]
        nodes = sorted({host.granted.name for host in hosts if host.granted.name})
        where = f" It runs on {' and '.join(nodes)} of the cluster." if nodes else ""
        await self.show(run, "Training", f"Training image download completed. Training in progress.{where}")
        await together(self._start(run, row, host, hosts) for host in hosts)

    def _untrusted(self, row: Row) -> bool:
        return untrusted(self.calls, row.account, self.image(row))

    async def _start(self, run: Run, row: Row, host: Host, hosts: Sequence[Host]) -> None:
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
            untrusted=self._untrusted(row),
        )
        try:
            _, host.running = await asyncio.gather(host.log.open(), self.calls.engine(Sandboxes).start(spec))
        except ValueError as error:
            raise Failed("ClientError", str(error)) from None
        except SandboxError as error:
            self._unless_lost(run, [host])
            if spec.untrusted:
                raise failed(error) from error
            raise

    async def watch(self, run: Run) -> dict[str, Any]:
        """Until it ends. A spot job whose place others took waits in line again, and begins anew from its checkpoints."""

        async def watched(run: Run) -> None:
            try:
                run.held["watched"] = await self._watch(run)
            except (OSError, Unforeseen):
                self._unless_lost(run, run.held["hosts"])
                raise

        while True:
            await self._persevere(run, self._staged, self._begun, watched)
            found: dict[str, Any] = run.held["watched"]
            if found["outcome"]["ending"] != "Interrupted":
                return found
            await self.show(run, "Interrupted", "Training job interrupted: its capacity was needed by others")
            await self.release(run)
            await self.reserve(run)
            run.held["epoch"] = run.clock() // 1000
            await self.show(run, "Starting", "Starting the training job again, from its checkpoints")
            await self.stage(run)
            await self.run(run)

    async def _watch(self, run: Run) -> dict[str, Any]:
        row = self.row(run)
        hosts: list[Host] = run.held["hosts"]
        measures = run.held["measures"] = Measures(run.held["session"], self.log_group)
        measures.start()
        usages = [self._usages(measures, row, host) for host in hosts]
        beside = run.held["beside"] = self.beside(run, row, hosts)
        if beside is not None:
            beside.start()
        metrics = Metrics(
            row.doc.get("AlgorithmSpecification", {}).get("MetricDefinitions") or (),
            run.clock,
            lambda name, value: measures.add(name, value, "None", ((f"{self.kind.name}Name", row.name),)),
        )
        if "TuningJobArn" in row.doc:
            metrics.follow = row.doc["HyperParameters"][OBJECTIVE]
        self.live[run.id] = metrics
        await metrics.start()
        run.held["metrics"] = metrics

        async def read(host: Host) -> None:
            assert host.running is not None and host.log is not None
            async for line in host.running.lines():
                metrics.feed(line)
                host.tail.append(line)
                del host.tail[:-_TAIL_LINES]
                await host.log.write(line)

        def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
            return asyncio.ensure_future(work)

        reading = [begin(read(host)) for host in hosts]
        following = [begin(mirror.run()) for host in hosts for mirror in host.mirrors]
        feeding = [begin(pipe.run()) for host in hosts for pipe in host.pipes]
        waiting = begin(all_or_first_failure(hosts))
        stop = begin(run.signalled("stop"))
        interrupt = begin(run.held["interrupt"].wait())
        lost = begin(self._lost(run, hosts))
        began = run.clock()
        tasks = [*reading, *feeding, *following, waiting, stop, interrupt, lost]
        try:
            most = int(row.doc.get("StoppingCondition", {}).get("MaxRuntimeInSeconds") or 86400)
            most_now = most - run.held.get("ran", 0) / MICROS
            wait = self._wait_left(run, row)
            done, _ = await asyncio.wait(
                {waiting, stop, interrupt, lost, *feeding},
                timeout=max(0.0, most_now if wait is None else min(most_now, wait)),
                return_when=asyncio.FIRST_COMPLETED,
            )
            ending = "Ended"
            starved = [one.exception() for one in feeding if one.done() and not one.cancelled()]
            if starved and waiting not in done:
                await asyncio.gather(*(host.stop(0) for host in hosts))
                raise starved[0] or AssertionError("an input ended")
            if waiting not in done:
                ending = "MaxRuntimeExceeded" if wait is None or most_now <= wait else "MaxWaitTimeExceeded"
                ending = STOPPED if stop in done else "Interrupted" if interrupt in done else ending
            # Of those that are still there when one failed, none goes on alone, nor without its files.
            grace = 0.0 if ending == "Ended" or lost in done else self.grace
            await asyncio.gather(*(host.stop(grace) for host in hosts))
            ended = [await host.wait() for host in hosts]
            await asyncio.gather(*reading)
            for one in following:
                one.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            unsynced = await last_sync(hosts)
            run.held["ran"] = run.held.get("ran", 0) + run.clock() - began
        finally:
            for use in usages:
                use.close()
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for use, each in zip(usages, ended, strict=True):
            use.ended(each)
        self._unless_lost(run, hosts)
        first = waiting.result() if waiting.done() and not waiting.cancelled() else None
        decided = hosts[first or 0]
        last = ended[decided.number]
        if ending == "Ended" and last.exit_code is None and not last.oom:
            # No program inside reaches the one that was killed: it is the sandbox itself.
            raise Failed("InternalServerError", "The sandbox of the job was killed while it ran. Please try again.")
        outcome = outcome_of(ended, first, ending, decided)
        outcome["faults"] = [fault.message for host in hosts for fault in host.faults][:1]
        if beside is not None and ending != "Interrupted":
            await beside.finish()
        _, found, _ = await asyncio.gather(
            asyncio.gather(*(host.log.close() for host in hosts if host.log is not None)),
            metrics.close(),
            asyncio.to_thread(self.ended, row, decided.ml, outcome),
        )
        await measures.close()
        if unsynced and outcome["ending"] != "Interrupted":
            raise Failed("ClientError", unsynced)
        return {
            "outcome": outcome,
            "metrics": found,
            "courses": metrics.courses,
            "ran": run.held["ran"],
            "course": metrics.course,
        }

    def _usages(self, measures: Measures, row: Row, host: Host) -> Usages:
        assert host.running is not None
        memory = host.granted.grant.memory_bytes
        usages = Usages(measures, host.running, memory, host.ml, (("Host", f"{row.name}/{host.name}"),))
        usages.start()
        return usages

    def _missing(self, run: Run, hosts: Sequence[Host]) -> str:
        """Why the job cannot go on: what it needs and has not any more. Empty while everything is there."""
        volumes = self.calls.engine(Volumes)
        left = (volumes.lost(host.place) for host in hosts if host.ml != Path())
        if why := next(filter(None, left), ""):
            return why
        network: job_network.Network = run.held["network"]
        whole = not network.joined or network.joined.stands()
        return "" if whole else "The network between its hosts of the job was lost."

    async def _lost(self, run: Run, hosts: Sequence[Host]) -> None:
        """Returns when something of the job is gone under it."""
        while not self._missing(run, hosts):
            await asyncio.sleep(_LOOK_SECONDS)

    def _unless_lost(self, run: Run, hosts: Sequence[Host]) -> None:
        """Raises Failed if something of the job is gone: what it said of its files and peers then is not its fault."""
        if why := self._missing(run, hosts):
            raise Failed("InternalServerError", f"{why.rstrip('.')}. Please try again.")

    def _full(self, row: Row, what: str, content: str) -> Failed:
        size = self.resources(row).get("VolumeSizeInGB") or 30
        return Failed(
            "ClientError",
            f"{what}: the volume of {size} GB has no space left for {content}. Please use a larger VolumeSizeInGB.",
        )

    async def collect(self, run: Run) -> dict[str, Any]:
        """What the job made goes to S3; of a job that failed, nothing."""
        outcome = run.state["outcome"]
        if outcome["ending"] == "Ended" and not outcome["succeeded"]:
            return {}
        row = self.row(run)
        await self.show(run, "Uploading", "Uploading generated training model")
        try:
            delivered = await self.deliver(run, row, run.held["hosts"])
            self._unless_lost(run, run.held["hosts"])
            return {"delivered": delivered}
        except Refused as refused:
            self._unless_lost(run, run.held["hosts"])
            raise Failed("ClientError", f"Artifact upload failed: {_said(refused)}") from None
        except archive.Unfit as unfit:
            raise Failed("ClientError", f"Artifact upload failed: {unfit}") from None
        except (OSError, Unforeseen) as error:
            self._unless_lost(run, run.held["hosts"])
            if isinstance(error, Unforeseen) or error.errno != errno.ENOSPC:
                raise
            content = "the archive of what the job made beside it"
            raise self._full(row, "Artifact upload failed", content) from None

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status, whatever happened; what was held is let go of."""
        await self.drop(run)
        await self._unplug(run)
        now = run.clock()

        def work(tx: Transaction) -> None:
            row = self.kind.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status not in ("InProgress", "Stopping"):
                return
            self.calls.directory.end_sessions(tx, run.id)
            status, reason = verdict(run)
            if reason:
                row.doc["FailureReason"] = reason[:REASON]
            self.finish(row, status, run, now)
            row.status = OUT_OF_TIME.get(status, status)
            self.over(tx, row, run)
            self.kind.change(tx, row, f"{self.kind.name}StateChange")
            job_record.ended(tx, self.kind, row, run)

        run.also(work)
        return {"ended": now}

    async def _unplug(self, run: Run) -> None:
        """Removes the network interfaces of the job. A role that may not leaves them, as on AWS."""
        row = self.row(run)
        config, isolated, _ = self.network(row)
        if not config or isolated:
            return
        session = RoleSession(self.calls, row.doc["RoleArn"], account=row.account, region=row.region, source_arn=run.id)
        try:
            await job_network.clean(session, run.id)
        except Refused as refused:
            _log.warning("network interfaces of %s are left: %s", run.id, refused.code)

    async def drop(self, run: Run) -> None:
        """Ends what runs and frees what is held; bears repeating."""
        await self.release(run)
        session: RoleSession | None = run.held.pop("session", None)
        if session is not None:
            session.end()

    async def release(self, run: Run) -> None:
        """As `drop`, but the role's session is kept."""
        held = run.held
        hosts: list[Host] = held.pop("hosts", [])
        await asyncio.gather(*(host.stop(0) for host in hosts))
        beside: Beside | None = held.pop("beside", None)
        if beside is not None:
            await beside.abandon()
        metrics: Metrics | None = held.pop("metrics", None)
        if metrics is not None:
            self.live.pop(run.id, None)
            with contextlib.suppress(Exception):
                await metrics.close()
        measures: Measures | None = held.pop("measures", None)
        if measures is not None:
            measures.abandon()
        network: job_network.Network | None = held.pop("network", None)
        if network is not None:
            await network.close()
        for host in hosts:
            await host.clear(self.calls)
        claim: Claim | None = held.pop("claim", None)
        if claim is not None:
            self.calls.engine(Placement).release(claim)


def _digests(pinned: Mapping[str, Any], hosts: Sequence[Host]) -> dict[str, dict[str, str]]:
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


async def volume_key(session: RoleSession, kms_key: str | None) -> bytes:
    """The key of a volume: 32 bytes that only this process knows, from KMS where the request names a key. Raises Failed
    where the role may not use it."""
    if not kms_key:
        return os.urandom(32)
    try:
        via = {"kms:viaservice": f"sagemaker.{session.region}.amazonaws.com"}
        made = await session.act("kms", "GenerateDataKey", {"KeyId": kms_key, "KeySpec": "AES_256"}, context=via)
    except Refused as refused:
        raise Failed("ClientError", f"The volume's key cannot be used: {_said(refused)} ({kms_key})") from None
    key: bytes = made["Plaintext"]
    return key


def _said(refused: Refused) -> str:
    return f"{refused.code}: {refused.message}"
