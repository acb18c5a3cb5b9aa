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
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import orjson

from bastide.domain import MICROS, Refused
from bastide.engines import images
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Ended, Limits, Running, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Calls, Kind
from bastide.services.sagemaker import archive, digest, job_record, objects
from bastide.services.sagemaker.joblog import JobLog
from bastide.services.sagemaker.measuring import Measures, Usages
from bastide.services.sagemaker.metrics import Metrics
from bastide.services.sagemaker.session import RoleSession, cannot_assume
from bastide.store import Row, Transaction

T = TypeVar("T")

_log = logging.getLogger("bastide.sagemaker")

GIB: Final = 1 << 30
HOST: Final = "algo-1"
_REASON: Final = 1024
_TAIL_LINES: Final = 20
_LOOK_SECONDS: Final = 0.5
_STOPPED: Final = "Stopped"
_INTERNAL: Final = "InternalServerError: We encountered an internal error. Please try again."


@dataclass(frozen=True, slots=True)
class Source:
    """Something to fetch before the job runs. prefix: everything under the key, otherwise the one object. target: where,
    below ``/opt/ml``."""

    name: str
    bucket: str
    key: str
    target: str
    prefix: bool = True


class JobFlow(ABC):
    """What a kind of job says of itself, and the steps that follow from it. `name` is the flow's name."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    log_group: ClassVar[str]

    def __init__(self, calls: Calls, grace_seconds: float) -> None:
        self.calls = calls
        self.grace = grace_seconds

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

    @abstractmethod
    def configure(self, row: Row, ml: Path) -> None:
        """Writes what the job finds below ``/opt/ml`` beside its inputs."""

    @abstractmethod
    def command(self, row: Row, environment: images.Environment) -> Sequence[str]: ...

    @abstractmethod
    def variables(self, row: Row) -> Mapping[str, str]: ...

    @abstractmethod
    async def deliver(self, run: Run, row: Row, ml: Path) -> dict[str, Any]:
        """Uploads what the job made; returns what its row then says."""

    @abstractmethod
    def ended(self, row: Row, ml: Path, outcome: dict[str, Any]) -> None:
        """Adds to the outcome what the job left in its folder."""

    def secondary(self, row: Row, status: str, message: str, now: int) -> bool:
        """Shows a step to whoever describes the job; False if there is nothing to show."""
        return False

    @abstractmethod
    def finish(self, row: Row, status: str, run: Run, now: int) -> None:
        """Fills the row's last members."""

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
                raise Failed(_STOPPED, "The job was stopped before it ran.")
            return task.result()
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    @staticmethod
    def place(run: Run) -> str:
        """The name of the job's volume and sandbox."""
        return f"job-{hashlib.sha256(run.id.encode()).hexdigest()[:24]}"

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def assume(self, run: Run) -> dict[str, Any]:
        """Credentials of the execution role, for this attempt only."""
        row = self.row(run)
        session = RoleSession(self.calls, row.doc["RoleArn"], account=row.account, region=row.region, source_arn=run.id)
        try:
            await session.caller()
        except Refused:
            raise Failed("ClientError", cannot_assume(row.doc["RoleArn"]).message) from None
        run.held["session"] = session
        return {}

    async def reserve(self, run: Run) -> dict[str, Any]:
        """A claim on the machine; jobs wait here in line."""
        row = self.row(run)
        placement = self.calls.engine(Placement)
        claim = await self.unless_stopped(run, placement.claim(run.id, self.resources(row)["InstanceType"]))
        run.held["claim"] = claim
        return {"started": run.state.get("started") or run.clock()}

    async def pin(self, run: Run) -> dict[str, Any]:
        """Digests of image and data, recorded before use. A repeated attempt must find the same."""
        row = self.row(run)
        environment = images.resolve(self.image(row))
        run.held["environment"] = environment
        session: RoleSession = run.held["session"]
        manifest: dict[str, list[objects.Entry]] = {}
        pinned: dict[str, Any] = {"image": environment.digest, "sources": {}}

        async def look() -> None:
            for source in self.sources(row):
                where = f"s3://{source.bucket}/{source.key}"
                try:
                    entries = await objects.listing(session, source.bucket, source.key)
                except Refused as refused:
                    raise Failed("ClientError", f"Data download failed: {_said(refused)} ({where})") from None
                if not source.prefix:
                    entries = [one for one in entries if one.key == source.key]
                if not entries:
                    raise Failed("ClientError", f"Data download failed: no objects found at {where}")
                manifest[source.name] = entries
                told = orjson.dumps([[one.key, one.etag, one.size] for one in entries])
                pinned["sources"][source.name] = {
                    "uri": where,
                    "objects": len(entries),
                    "bytes": sum(one.size for one in entries),
                    "sha256": hashlib.sha256(told).hexdigest(),
                }

        await self.unless_stopped(run, look())
        earlier = run.state.get("pinned")
        if earlier is not None and earlier != pinned:
            raise Failed("ClientError", "Image or input data changed while the job was being taken up again.")
        run.held["manifest"] = manifest
        return {"pinned": pinned, "epoch": run.state.get("epoch") or run.clock() // 1000}

    async def stage(self, run: Run) -> dict[str, Any]:
        """The encrypted volume, and the inputs in it."""
        row = self.row(run)
        await self.show(run, "Downloading", "Downloading input data")
        return {"digests": await self.unless_stopped(run, self._stage(run, row))}

    async def _stage(self, run: Run, row: Row) -> dict[str, dict[str, str]]:
        session: RoleSession = run.held["session"]
        resources = self.resources(row)
        key = await volume_key(session, resources.get("VolumeKmsKeyId"))
        size = int(resources.get("VolumeSizeInGB") or 30) * GIB
        volumes = self.calls.engine(Volumes)
        name = self.place(run)
        await volumes.close(name)
        run.held["volume"] = name
        try:
            volume = await volumes.create(name, key, size)
        except SandboxError as error:
            _log.error("no volume for %s: %s", run.id, error)
            raise
        ml = volume / "ml"
        run.held["ml"] = ml
        for folder in ("model", "output/data", "input/config", "input/data"):
            await asyncio.to_thread((ml / folder).mkdir, parents=True, exist_ok=True)
        digests = {}
        for source in self.sources(row):
            base = ml / source.target
            await asyncio.to_thread(base.mkdir, parents=True, exist_ok=True)
            staged, got = [], {}
            for entry in run.held["manifest"][source.name]:
                if entry.key.endswith("/") and not entry.size:
                    continue  # what consoles make to show a folder
                name = objects.relative_name(entry.key, source.key)
                target = objects.below(base, name)
                staged.append((name, target))
                try:
                    got = await objects.fetch(session, source.bucket, entry.key, target, etag=entry.etag)
                except FileExistsError:
                    raise Failed(
                        "ClientError", f"Data download failed: two objects want to be {target.name}."
                    ) from None
                except Refused as refused:
                    where = f"s3://{source.bucket}/{entry.key}"
                    raise Failed("ClientError", f"Data download failed: {_said(refused)} ({where})") from None
            digests[source.name] = {"sha256": await asyncio.to_thread(digest.of_files, staged)}
            if len(staged) == 1:
                digests[source.name] |= {"etag": got["ETag"].strip('"'), "version": got["VersionId"]}
        await asyncio.to_thread(self.configure, row, ml)
        return digests

    async def run(self, run: Run) -> dict[str, Any]:
        """The sandbox."""
        if run.asked("stop"):
            raise Failed(_STOPPED, "The job was stopped before it ran.")
        row = self.row(run)
        claim: Claim = run.held["claim"]
        environment: images.Environment = run.held["environment"]
        log = JobLog(run.held["session"], self.log_group, f"{row.name}/{HOST}-{run.state['epoch']}")
        run.held["log"] = log
        await log.open()
        spec = Spec(
            name=self.place(run),
            image=environment,
            command=self.command(row, environment),
            workdir=run.held["ml"],
            limits=Limits(claim.grant.memory_bytes, claim.grant.cpus),
            env={"LOKY_MAX_CPU_COUNT": str(max(1, int(claim.grant.cpus))), **self.variables(row)},
            hostname=HOST,
            hosts=(HOST,),
        )
        await self.show(run, "Training", "Training image download completed. Training in progress.")
        sandboxes = self.calls.engine(Sandboxes)
        try:
            run.held["running"] = await sandboxes.start(spec)
        except ValueError as error:
            raise Failed("ClientError", str(error)) from None
        return {"begun": run.clock()}

    async def watch(self, run: Run) -> dict[str, Any]:
        """Lines and metrics until it ends, or its time, or until somebody stops it."""
        row = self.row(run)
        running: Running = run.held["running"]
        log: JobLog = run.held["log"]
        measures = Measures(run.held["session"], self.log_group)
        measures.start()
        run.held["measures"] = measures
        limits = run.held["claim"].grant
        usages = Usages(measures, running, limits.memory_bytes, run.held["ml"], (("Host", f"{row.name}/{HOST}"),))
        usages.start()
        metrics = Metrics(
            row.doc.get("AlgorithmSpecification", {}).get("MetricDefinitions") or (),
            run.clock,
            lambda name, value: measures.add(name, value, "None", ((f"{self.kind.name}Name", row.name),)),
        )
        await metrics.start()
        run.held["metrics"] = metrics
        tail: list[bytes] = []

        async def read() -> None:
            async for line in running.lines():
                metrics.feed(line)
                tail.append(line)
                del tail[:-_TAIL_LINES]
                await log.write(line)

        reading = asyncio.ensure_future(read())
        waiting = asyncio.ensure_future(running.wait())
        stop = asyncio.ensure_future(run.signalled("stop"))
        lost = asyncio.ensure_future(self._lost(run))
        try:
            most = int(row.doc.get("StoppingCondition", {}).get("MaxRuntimeInSeconds") or 86400)
            done, _ = await asyncio.wait({waiting, stop, lost}, timeout=most, return_when=asyncio.FIRST_COMPLETED)
            ending = "Ended"
            if lost in done:
                await running.stop(0)
            elif waiting not in done:
                ending = _STOPPED if stop in done else "MaxRuntimeExceeded"
                await running.stop(self.grace)
            ended = await waiting
            await reading
        finally:
            for one in (reading, waiting, stop, lost):
                one.cancel()
            usages.close()
            await asyncio.gather(reading, waiting, stop, lost, return_exceptions=True)
        usages.ended(ended)
        await log.close()
        self._unless_lost(run)
        outcome = self._outcome(ended, ending, tail)
        await asyncio.to_thread(self.ended, row, run.held["ml"], outcome)
        found = await metrics.close()
        await measures.close()
        return {"outcome": outcome, "metrics": found, "courses": metrics.courses}

    async def _lost(self, run: Run) -> None:
        """Returns when the job's volume is gone under it."""
        volumes = self.calls.engine(Volumes)
        while volumes.stands(run.held["volume"]):
            await asyncio.sleep(_LOOK_SECONDS)

    def _unless_lost(self, run: Run) -> None:
        """Raises Failed if the job's volume is gone: what the job said of its files then is not the job's fault."""
        if not self.calls.engine(Volumes).stands(run.held["volume"]):
            raise Failed(
                "InternalServerError", "The encrypted volume of the job was lost while it ran. Please try again."
            )

    @staticmethod
    def _outcome(ended: Ended, ending: str, tail: Sequence[bytes]) -> dict[str, Any]:
        last = [text for line in tail if (text := line.decode("utf-8", "replace").strip())]
        return {
            "ending": ending,
            "exit_code": ended.exit_code,
            "oom": ended.oom,
            "seconds": ended.seconds,
            "cpu_seconds": ended.cpu_seconds,
            "peak_bytes": ended.peak_bytes,
            "succeeded": ending == "Ended" and ended.exit_code == 0,
            "tail": last[-1][:_REASON] if last else "",
        }

    async def collect(self, run: Run) -> dict[str, Any]:
        """What the job made goes to S3; of a job that failed, nothing."""
        outcome = run.state["outcome"]
        if outcome["ending"] == "Ended" and not outcome["succeeded"]:
            return {}
        row = self.row(run)
        await self.show(run, "Uploading", "Uploading generated training model")
        try:
            return {"delivered": await self.deliver(run, row, run.held["ml"])}
        except Refused as refused:
            raise Failed("ClientError", f"Artifact upload failed: {_said(refused)}") from None
        except archive.Unfit as unfit:
            raise Failed("ClientError", f"Artifact upload failed: {unfit}") from None
        except OSError as error:
            self._unless_lost(run)
            if error.errno != errno.ENOSPC:
                raise
            size = self.resources(row).get("VolumeSizeInGB")
            text = f"the volume of {size} GB has no space left for the archive of what the job made beside it"
            raise Failed(
                "ClientError", f"Artifact upload failed: {text}. Please use a larger VolumeSizeInGB."
            ) from None

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status, whatever happened; what was held is let go of."""
        await self.drop(run)
        now = run.clock()

        def work(tx: Transaction) -> None:
            row = self.kind.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status not in ("InProgress", "Stopping"):
                return
            status, reason = self._verdict(run)
            if reason:
                row.doc["FailureReason"] = reason[:_REASON]
            self.finish(row, status, run, now)
            row.status = {"MaxRuntimeExceeded": _STOPPED}.get(status, status)
            self.kind.change(tx, row, f"{self.kind.name}StateChange")
            job_record.ended(tx, self.kind, row, run)

        run.also(work)
        return {"ended": now}

    @staticmethod
    def _verdict(run: Run) -> tuple[str, str]:
        """Last status, and why it failed if it did."""
        failure, outcome = run.failure, run.state.get("outcome")
        if failure is not None:
            if failure.code == _STOPPED:
                return _STOPPED, ""
            return "Failed", f"{failure.code}: {failure.message}" if failure.foreseen else _INTERNAL
        assert outcome is not None
        if outcome["ending"] != "Ended":
            return outcome["ending"], ""
        if outcome["succeeded"]:
            return "Completed", ""
        code = outcome["exit_code"]
        if outcome["oom"]:
            text = "OutOfMemoryError: the job used more memory than its instance type has. Please use a larger one"
        else:
            text = outcome.get("failure") or outcome["tail"] or "The program ended without saying why"
        behind = f", exit code: {137 if code is None else code}"
        return "Failed", f"AlgorithmError: {text[: _REASON - len(behind) - 16]}{behind}"

    async def drop(self, run: Run) -> None:
        """Ends what runs and frees what is held; bears repeating."""
        held = run.held
        running: Running | None = held.pop("running", None)
        if running is not None:
            await running.stop(0)
        metrics: Metrics | None = held.pop("metrics", None)
        if metrics is not None:
            with contextlib.suppress(Exception):
                await metrics.close()
        measures: Measures | None = held.pop("measures", None)
        if measures is not None:
            measures.abandon()
        log: JobLog | None = held.pop("log", None)
        if log is not None:
            await log.abandon()
        volume = held.pop("volume", None)
        if volume is not None:
            await self.calls.engine(Volumes).close(volume)
        claim: Claim | None = held.pop("claim", None)
        if claim is not None:
            self.calls.engine(Placement).release(claim)
        session: RoleSession | None = held.pop("session", None)
        if session is not None:
            session.end()


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


def seconds_between(start: int | None, end: int) -> int:
    """Whole seconds, rounded up, at least one; none without a start."""
    return 0 if start is None else max(1, -(-(end - start) // MICROS))


def text_of(base: Path, folder: str, name: str, most: int) -> str:
    """The beginning of a small file that a job left; empty if there is none or it is no plain file in a plain folder."""
    try:
        path = archive.plain_folder(base, folder) / name
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, archive.Unfit):
        return ""
    with os.fdopen(handle, "rb") as file:
        try:
            return file.read(most).decode("utf-8", "replace").strip()
        except OSError:
            return ""
