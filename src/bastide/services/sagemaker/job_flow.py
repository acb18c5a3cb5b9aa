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
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines.lazy import LazyError
from bastide.engines.network import NetworkError
from bastide.engines.placement import Claim, Grant, Placement
from bastide.engines.sandbox import SandboxError
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Unforeseen
from bastide.services.sagemaker import archive, channels, job_network, job_record, own_image
from bastide.services.sagemaker.channels import together
from bastide.services.sagemaker.host import Host, all_or_first_failure, content_digests, last_sync
from bastide.services.sagemaker.job_hosts import JobHosts
from bastide.services.sagemaker.job_kind import Beside
from bastide.services.sagemaker.measuring import Measures
from bastide.services.sagemaker.metrics import Metrics
from bastide.services.sagemaker.outcome import OUT_OF_TIME, REASON, STOPPED, outcome_of, verdict
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.services.sagemaker.tuning_definition import OBJECTIVE
from bastide.services.sagemaker.untrusted import NO_PIPES
from bastide.services.sagemaker.volume_key import volume_key
from bastide.store import Row, Transaction

T = TypeVar("T")

_log = logging.getLogger("bastide.sagemaker")

_TAIL_LINES: Final = 20
_PAUSE: Final = 1.0
"""Seconds until a job is tried again after an internal error."""


class JobFlow(JobHosts):
    """The steps of a job that follow from what its kind says."""

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

    # -- the steps ---------------------------------------------------------------------------------------------------------

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
        if any(one.mode == channels.PIPE for one in self.sources(row)) and self.untrusted(row):
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
            await together([connecting, *(self.stage_host(run, row, host, hosts, key) for host in hosts)])
            told = job_network.peers(network, [one.name for one in hosts])
            for host, (_, interface, _) in zip(hosts, told, strict=True):
                host.interface = interface
                await asyncio.to_thread(self.configure, row, host, hosts, host.ml)
            run.held["digests"] = await asyncio.to_thread(content_digests, run.state["pinned"], hosts)
        except (OSError, Failed) as error:
            self.unless_lost(run, hosts)
            if isinstance(error, Failed) or error.errno != errno.ENOSPC:
                raise
            raise self.full(row, "Data download failed", "its inputs") from None

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
        try:
            await together(self.start(run, row, host, hosts) for host in hosts)
        except OSError:
            self.unless_lost(run, hosts)
            raise

    async def watch(self, run: Run) -> dict[str, Any]:
        """Until it ends. A spot job whose place others took waits in line again, and begins anew from its checkpoints."""

        async def watched(run: Run) -> None:
            try:
                run.held["watched"] = await self._watch(run)
            except (OSError, Unforeseen):
                self.unless_lost(run, run.held["hosts"])
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
        usages = [self.usages(measures, row, host) for host in hosts]
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
        lost = begin(self.lost(run, hosts))
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
        self.unless_lost(run, hosts)
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

    async def collect(self, run: Run) -> dict[str, Any]:
        """What the job made goes to S3; of a job that failed, nothing."""
        outcome = run.state["outcome"]
        if outcome["ending"] == "Ended" and not outcome["succeeded"]:
            return {}
        row = self.row(run)
        await self.show(run, "Uploading", "Uploading generated training model")
        try:
            delivered = await self.deliver(run, row, run.held["hosts"])
            self.unless_lost(run, run.held["hosts"])
            return {"delivered": delivered}
        except Refused as refused:
            self.unless_lost(run, run.held["hosts"])
            raise Failed("ClientError", f"Artifact upload failed: {_said(refused)}") from None
        except archive.Unfit as unfit:
            raise Failed("ClientError", f"Artifact upload failed: {unfit}") from None
        except (OSError, Unforeseen) as error:
            self.unless_lost(run, run.held["hosts"])
            if isinstance(error, Unforeseen) or error.errno != errno.ENOSPC:
                raise
            content = "the archive of what the job made beside it"
            raise self.full(row, "Artifact upload failed", content) from None

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


def _said(refused: Refused) -> str:
    return f"{refused.code}: {refused.message}"
