"""A build from its row to its end: assume, provision, source, begin, commands, deliver, settle.

What a step holds (session, claim, volume, sandbox) lives in this process and ends with it. A platform that was started
again begins a build anew as long as none of its commands ran; one whose commands had begun is over with a FAULT that says
so, because running them twice is not what anybody asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from bastide.domain import MICROS, Refused
from bastide.engines.images import Container, Environment
from bastide.engines.placement import Claim, Placement
from bastide.engines.sandbox import Ended, Limits, Running, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.kernel import Calls
from bastide.services.codebuild import (
    archive,
    builder,
    buildspec,
    checking,
    delivering,
    image,
    network,
    objects,
    record,
    report,
    results,
    script,
    sources,
    variables,
)
from bastide.services.codebuild.buildspec import Buildspec
from bastide.services.codebuild.log import BuildLog
from bastide.services.codebuild.network import Network
from bastide.services.codebuild.noun import BUILD, PROJECT
from bastide.services.codebuild.project import default_key
from bastide.services.codebuild.record import context
from bastide.services.codebuild.script import HOME, Progress
from bastide.services.codebuild.session import RoleSession
from bastide.store import Row, Transaction

T = TypeVar("T")
_log = logging.getLogger("bastide.codebuild")

FLOW: Final = "codebuild"
STOPPED: Final = "STOPPED"
TIMED_OUT: Final = "TIMED_OUT"
FAULT: Final = "FAULT"
_SOURCE: Final = f"{HOME}/output/src/src"
_LOOK_SECONDS: Final = 0.5
_GRACE: Final = 5.0
_MOST_VALUE: Final = 10_000
_LOST: Final = (
    "The machine that the build ran on was lost while its commands ran. What they did outside of the build stands; "
    "RetryBuild runs them again."
)
_LINES_MESSAGE: Final = 600


@dataclass
class Work:
    """What a build holds in this process."""

    session: RoleSession
    name: str
    log: BuildLog | None = None
    claim: Claim | None = None
    network: Network | None = None
    environment: Environment | None = None
    folder: Path = Path()
    volume: bool = False
    images: Path | None = None
    running: Running | None = None
    spec: Buildspec | None = None
    mark: str = ""
    names: list[tuple[str, str]] = field(default_factory=list)

    @property
    def own(self) -> Path:
        """The build's own folder, `HOME` inside."""
        return self.folder / "build"

    @property
    def source(self) -> Path:
        """The folder of the primary source."""
        return self.own / "output/src/src"

    def text_of(self, relative: str, most: int) -> bytes | None:
        """The beginning of a file that the build left in its own folder."""
        try:
            top = archive.top_of(self.own)
        except OSError:
            return None
        try:
            return archive.text_of(top, relative, most)
        finally:
            os.close(top)


class BuildFlow:
    """The steps of a build."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow; an execution's id is the build's ARN."""

        def again(name: str, function: Any) -> Step:
            return Step(name, function, again_from="assume")

        return Flow(
            FLOW,
            [
                Step("assume", self.assume),
                again("provision", self.provision),
                again("source", self.source),
                again("begin", self.begin),
                again("commands", self.commands),
                again("deliver", self.deliver),
                Step("settle", self.settle, always=True),
            ],
            drop=self.drop,
        )

    # -- the row -----------------------------------------------------------------------------------------------------------

    def row(self, run: Run) -> Row:
        """The build as it stands."""
        with self.calls.store.reading() as view:
            return BUILD.find(view, run.state["account"], run.state["region"], run.state["name"])

    async def phase(
        self,
        run: Run,
        following: str,
        status: str = record.SUCCEEDED,
        contexts: tuple[dict[str, str], ...] = (),
        **more: Any,
    ) -> None:
        """The phase that runs is over, the following one begins; `more` becomes of the row."""

        def work(tx: Transaction) -> dict[str, Any] | None:
            row = BUILD.find(tx, run.state["account"], run.state["region"], run.state["name"])
            if row.status != record.IN_PROGRESS:
                return None
            over = record.end(tx, row, status, tx.now, contexts)
            record.begin(row, following, tx.now)
            row.doc.update(more)
            BUILD.change(tx, row, "BuildPhaseChange")
            return over

        over = await self.calls.store.write(work)
        held: Work | None = run.held.get("work")
        if held is not None and held.log is not None and over is not None:
            await self._told(held.log, over)
            await held.log.say(f"Entering phase {following}")

    @staticmethod
    async def _told(log: BuildLog, phase: Mapping[str, Any]) -> None:
        await log.say(f"Phase complete: {phase['phaseType']} State: {phase['phaseStatus']}")
        for one in phase["contexts"] or [{"statusCode": "", "message": ""}]:
            await log.say(f"Phase context status code: {one['statusCode']} Message: {one['message']}")

    async def _while(self, run: Run, work: Coroutine[Any, Any, T]) -> T:
        """`work`, given up when the build is stopped or has taken too long; raises Failed."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(run.signalled("stop"))
        try:
            await asyncio.wait({task, stop}, timeout=self._left(run), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stop.done():
                raise Failed(STOPPED, "The build was stopped.")
            raise Failed(TIMED_OUT, self._too_long(run))
        finally:
            for one in (task, stop):
                one.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _left(self, run: Run) -> float:
        """Seconds until the build has taken too long: waiting in line, and from then on."""
        doc = self.row(run).doc
        if "started" in run.state:
            since, minutes = run.state["started"], doc["timeoutInMinutes"]
        else:
            since, minutes = doc["startTime"], doc["queuedTimeoutInMinutes"]
        return max(0.0, float(minutes) * 60 - (run.clock() - int(since)) / MICROS)

    def _too_long(self, run: Run) -> str:
        doc = self.row(run).doc
        if "started" in run.state:
            return f"Build has timed out: it took more than {doc['timeoutInMinutes']} minutes."
        return f"Build has timed out: it waited in line for more than {doc['queuedTimeoutInMinutes']} minutes."

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def assume(self, run: Run) -> dict[str, Any]:
        """Credentials of the service role, for this attempt only."""
        if "begun" in run.state:
            raise Failed(FAULT, _LOST)
        row = self.row(run)
        await self.calls.store.write(lambda tx: self._anew(tx, run))
        project = row.doc["projectName"]
        session = RoleSession(
            self.calls,
            row.doc["serviceRole"],
            account=row.account,
            region=row.region,
            source_arn=PROJECT.arn(row.account, row.region, project),
            name=f"AWSCodeBuild-{row.name.rpartition(':')[2]}",
        )
        run.held["work"] = Work(session, f"build-{hashlib.sha256(run.id.encode()).hexdigest()[:24]}")
        try:
            await session.caller()
        except Refused as refused:
            raise Failed(
                "CLIENT_ERROR",
                f"CodeBuild is not authorized to perform: sts:AssumeRole on {session.role}: {refused.message}",
            ) from None
        network.go_by_vpc(session, row.doc["vpcConfig"])
        return {}

    def _anew(self, tx: Transaction, run: Run) -> None:
        """What an attempt left that did not come as far as the commands is taken back."""
        row = BUILD.find(tx, run.state["account"], run.state["region"], run.state["name"])
        if row.status == record.IN_PROGRESS and len(row.doc["phases"]) > 2:
            row.doc["phases"] = row.doc["phases"][:1]
            record.begin(row, "QUEUED", row.doc["startTime"])
            BUILD.change(tx, row, "BuildTakenUp")

    async def provision(self, run: Run) -> dict[str, Any]:
        """A claim on the machine, in the order of asking; then the volume, the network and the image."""
        row, work = self.row(run), self._work(run)
        compute = checking.COMPUTE[row.doc["environment"]["computeType"]]
        placement = self.calls.engine(Placement)
        granted = placement.part(compute.memory, compute.cpus)
        work.claim = await self._while(run, placement.claim(run.id, granted, here=True))
        started = run.clock()
        run.state["started"] = started  # for the time that is left; kept with what the step returns
        await self.phase(run, "PROVISIONING")
        await self._while(run, self._provisioned(run, row, work))
        return {"started": started}

    def _work(self, run: Run) -> Work:
        work: Work = run.held["work"]
        return work

    async def _provisioned(self, run: Run, row: Row, work: Work) -> None:
        compute = checking.COMPUTE[row.doc["environment"]["computeType"]]
        volumes = self.calls.engine(Volumes)
        await volumes.close(work.name)
        work.volume = True
        try:
            work.folder = await volumes.create(work.name, os.urandom(32), compute.disk)
            if row.doc["environment"]["privilegedMode"]:
                work.images = await volumes.system(work.name, compute.disk // 2)
        except SandboxError as error:
            _log.error("no volume for %s: %s", run.id, error)
            raise Failed(FAULT, f"The build's disk could not be made: {error}") from None
        for folder in ("ml", "log", "work", "build/home", "build/output/src/src", "build/python"):
            await asyncio.to_thread((work.folder / folder).mkdir, parents=True)
        logs = row.doc["logs"]
        copy = work.folder / "log" / "build.gz" if "s3LogsArn" in logs else None
        work.log = BuildLog(work.session, logs.get("groupName", ""), logs.get("streamName", ""), copy)
        await work.log.open()
        work.network = Network()
        await network.connect(work.session, work.network, run.id, row.doc["vpcConfig"])
        uri = row.doc["environment"]["image"]
        await work.log.say(f"Running on {uri}, compute type {row.doc['environment']['computeType']}")
        work.environment = await image.environment(work.session, uri)
        if not isinstance(work.environment, Container):
            await work.log.say(
                f"Bastide brings its own environment in place of {uri}: Python {buildspec.PYTHON}, pip, pytest, git and "
                f"the AWS CLI ({work.environment.digest})"
            )

    async def source(self, run: Run) -> dict[str, Any]:
        """The sources, the buildspec and the variables."""
        row, work = self.row(run), self._work(run)
        more: dict[str, Any] = {}
        if work.network is not None and work.network.interface is not None:
            subnet, interface = work.network.interface
            more["networkInterface"] = {"subnetId": subnet, "networkInterfaceId": interface}
        await self.phase(run, "DOWNLOAD_SOURCE", **more)
        resolved = await self._while(run, self._sourced(row, work))
        return {"resolved": resolved}

    async def _sourced(self, row: Row, work: Work) -> str:
        doc, disk = row.doc, checking.COMPUTE[row.doc["environment"]["computeType"]].disk
        packed = work.folder / "work" / "source"
        resolved = await sources.get(
            work.session, doc["source"], doc.get("sourceVersion") or "", work.source, packed, most=disk
        )
        if doc["source"]["type"] == "CODECOMMIT":
            await sources.history(work.session, doc["source"], work.own / "output" / "history")
        versions = {one["sourceIdentifier"]: one["sourceVersion"] for one in doc["secondarySourceVersions"]}
        for one in doc["secondarySources"]:
            identifier = one["sourceIdentifier"]
            place = work.own / "output" / f"src_{identifier}" / "src"
            await asyncio.to_thread(place.mkdir, parents=True)
            await sources.get(work.session, one, versions.get(identifier, ""), place, packed, most=disk)
        text = await sources.buildspec(work.session, doc["source"], work.source)
        try:
            work.spec = buildspec.read(text)
        except buildspec.Wrong as wrong:
            raise Failed("YAML_FILE_ERROR", f"{wrong}.") from None
        self._fits(doc, work.spec)
        await self._cached(row, work, packed, disk)
        return resolved

    @staticmethod
    def _cache_place(row: Row) -> tuple[str, str]:
        """Bucket and key of a project's cache; empty without one."""
        cache = row.doc["cache"]
        if cache["type"] != "S3":
            return "", ""
        bucket, _, prefix = cache["location"].removeprefix("arn:aws:s3:::").strip("/").partition("/")
        name = f"{row.doc['projectName']}/{row.doc['_cache']}.zip"
        return bucket, f"{prefix}/{name}" if prefix else name

    async def _cached(self, row: Row, work: Work, packed: Path, most: int) -> None:
        """What an earlier build kept, into the folder of the source; a build does without what is not there."""
        bucket, key = self._cache_place(row)
        assert work.spec is not None and work.log is not None
        if not bucket or not work.spec.cache:
            return
        try:
            await objects.fetch(work.session, {"Bucket": bucket, "Key": key}, packed, most=most)
            await asyncio.to_thread(archive.unpack, packed, work.source, most_bytes=most)
            await work.log.say(f"Restored the cache from s3://{bucket}/{key}")
        except Refused as refused:
            await work.log.say(f"Unable to restore the cache from s3://{bucket}/{key}: {refused.code}")
        except archive.Unfit as unfit:
            await work.log.say(f"Unable to restore the cache from s3://{bucket}/{key}: {unfit}")
        finally:
            await asyncio.to_thread(packed.unlink, missing_ok=True)

    async def _keep(self, row: Row, work: Work, most: int) -> None:
        """Keeps what the buildspec's cache names; that it cannot be stored is said in the log."""
        bucket, key = self._cache_place(row)
        assert work.spec is not None and work.log is not None
        if not bucket or not work.spec.cache:
            return
        packed = work.folder / "work" / "cache.zip"
        try:
            top, beside = archive.top_of(work.source), archive.top_of(packed.parent)
            try:
                files = await asyncio.to_thread(archive.select, top, "", work.spec.cache)
                await asyncio.to_thread(archive.pack, top, files, packed, most_bytes=most)
                kms_key = self._kms_key(row, row.doc["encryptionKey"])
                await objects.store(work.session, bucket, key, beside, packed.name, kms_key)
            finally:
                os.close(top)
                os.close(beside)
        except (Refused, archive.Unfit) as error:
            await work.log.say(f"Unable to store the cache at s3://{bucket}/{key}: {error}")

    @staticmethod
    def _fits(doc: Mapping[str, Any], spec: Buildspec) -> None:
        """Raises Failed where project and buildspec do not go together."""
        wanted = {one["artifactIdentifier"] for one in doc["_secondaryArtifacts"]}
        if lacking := sorted(wanted - set(spec.secondary)):
            raise Failed(
                "CLIENT_ERROR",
                f"The buildspec has no secondary artifact {lacking[0]}, for which the project has a place.",
            )
        if doc["_artifacts"]["type"] == "S3" and spec.artifacts is None:
            raise Failed("CLIENT_ERROR", "The project has a place for artifacts, and the buildspec has no artifacts.")

    async def begin(self, run: Run) -> dict[str, Any]:
        """Everything is there; from here on commands may have run."""
        row, work = self.row(run), self._work(run)
        await self._while(run, self._prepared(run, row, work))
        return {"begun": run.clock()}

    async def _prepared(self, run: Run, row: Row, work: Work) -> None:
        assert work.spec is not None and work.log is not None
        doc = row.doc
        given = doc["environment"]["environmentVariables"]
        work.log.variables = held = await variables.gather(work.session, work.spec, given)
        targets = [("", doc["_artifacts"], work.spec.artifacts)]
        targets += [
            (one["artifactIdentifier"], one, work.spec.secondary[one["artifactIdentifier"]])
            for one in doc["_secondaryArtifacts"]
        ]
        work.names = [(id, made.name) for id, _, made in targets if made is not None and made.name]
        held.values = {**await asyncio.to_thread(builder.prepare, work.own, work.images), **held.values}
        run.held["values"] = held.values
        work.mark = f"\x1e{secrets.token_hex(16)}"
        managed = not isinstance(work.environment, Container)
        await asyncio.to_thread(script.write, work.own, work.spec, work.mark, _SOURCE, work.names, prepare=managed)

    def _variables(self, run: Run, row: Row, work: Work) -> dict[str, str]:
        assert work.environment is not None and work.network is not None
        doc, id = row.doc, row.name.rpartition(":")[2]
        values: dict[str, str] = run.held["values"]
        path = work.environment.path
        if not isinstance(work.environment, Container):
            path = f"{HOME}/python/bin:{HOME}/bin:{path}:/usr/sbin:/sbin"
        own = {
            "AWS_DEFAULT_REGION": row.region,
            "AWS_REGION": row.region,
            "CODEBUILD_BUILD_ARN": run.id,
            "CODEBUILD_BUILD_ID": row.name,
            "CODEBUILD_BUILD_IMAGE": doc["environment"]["image"],
            "CODEBUILD_BUILD_NUMBER": str(doc["buildNumber"]),
            "CODEBUILD_INITIATOR": doc["initiator"],
            "CODEBUILD_KMS_KEY_ID": doc["encryptionKey"],
            "CODEBUILD_LOG_PATH": doc["logs"].get("streamName", id),
            "CODEBUILD_PROJECT_ARN": work.session.source_arn,
            "CODEBUILD_RESOLVED_SOURCE_VERSION": run.state.get("resolved", ""),
            "CODEBUILD_SOURCE_REPO_URL": doc["source"].get("location", ""),
            "CODEBUILD_SOURCE_VERSION": doc.get("sourceVersion") or run.state.get("resolved", ""),
            "CODEBUILD_SRC_DIR": _SOURCE,
            "CODEBUILD_START_TIME": str(doc["startTime"] // 1000),
        }
        for one in doc["secondarySources"]:
            identifier = one["sourceIdentifier"]
            own[f"CODEBUILD_SRC_DIR_{identifier}"] = f"{HOME}/output/src_{identifier}/src"
        made = script.variables({**work.network.variables, **values, **own}, path=path)
        # A shell that looks for its functions here would run what a variable says.
        return {name: value for name, value in made.items() if not name.startswith("BASH_FUNC")}

    async def commands(self, run: Run) -> dict[str, Any]:
        """The sandbox, until its program has ended."""
        row, work = self.row(run), self._work(run)
        assert work.spec is not None and work.environment is not None and work.log is not None
        assert work.claim is not None and work.network is not None
        await self._started(run, row, work)
        progress = Progress(work.spec, work.mark)
        ended = await self._watched(run, work, progress)
        if not progress.over:
            raise await self._broken(run, work, progress, ended)
        failing = sorted(progress.failures)
        stopping = [n for n in failing if work.spec.phases[n].failing != "CONTINUE"]
        names = [work.spec.phases[n].name for n in stopping]
        exported = await asyncio.to_thread(self._exported, work)
        called = {id: self._called(work, number) for number, (id, _) in enumerate(work.names)}
        upload = not stopping or (names == ["build"] and not work.spec.phases[stopping[0]].failing)
        # A phase that failed and was gone on from shows in the build's status: green would say that nothing was wrong.
        return {"failed": bool(failing), "upload": upload, "exported": exported, "called": called}

    async def _started(self, run: Run, row: Row, work: Work) -> None:
        assert work.environment is not None and work.network is not None and work.claim is not None
        grant = work.claim.places[0].grant
        trusted = work.folder / "work" / "authority.pem"
        await asyncio.to_thread(trusted.write_bytes, work.network.authority)
        await asyncio.to_thread(trusted.chmod, 0o644)
        owners = {row.account, image.owner(row.doc["environment"]["image"]) or row.account}
        with self.calls.store.reading() as view:
            untrusted = any(self.calls.organisation.untrusted(view, one) for one in owners)
        privileged = bool(row.doc["environment"]["privilegedMode"])
        if privileged and untrusted:
            raise Failed(
                "CLIENT_ERROR",
                "privilegedMode: this code is not trusted (the organisation's tag bastide:untrusted-code) and runs under "
                "gVisor alone, where no images are built.",
            )
        if privileged and (lacks := builder.lacking()):
            raise Failed(FAULT, f"This machine cannot build images: it lacks {lacks}.")
        spec = Spec(
            name=work.name,
            image=work.environment,
            command=["/bin/sh", f"{HOME}/scripts/build.sh"],
            workdir=work.folder / "ml",
            limits=Limits(grant.memory_bytes, grant.cpus),
            env=self._variables(run, row, work),
            writable=[(work.own, HOME), *([(work.images, f"{HOME}/images")] if work.images is not None else [])],
            readonly=[(trusted, network.AUTHORITY)],
            hostname="build",
            hosts=("build", *work.network.hosts),
            network=work.network.namespace,
            resolver=work.network.resolver,
            untrusted=untrusted,
            privileged=privileged,
        )
        try:
            work.running = await self.calls.engine(Sandboxes).start(spec)
        except ValueError as error:
            raise Failed("CLIENT_ERROR", f"The build could not be started: {error}") from None
        except SandboxError as error:
            if untrusted:
                error = SandboxError(f"this code is not trusted and runs under gVisor alone, which failed: {error}")
            raise Failed(FAULT, f"The build's sandbox could not be made: {error}") from None

    async def _watched(self, run: Run, work: Work, progress: Progress) -> Ended:
        assert work.running is not None
        reading = asyncio.ensure_future(self._read(run, work, progress))
        waiting = asyncio.ensure_future(work.running.wait())
        lost = asyncio.ensure_future(self._lost(work))
        try:
            both = asyncio.gather(reading, waiting)
            try:
                await self._while(run, _first(both, lost))
            except Failed:
                await work.running.stop(_GRACE)
                await asyncio.gather(both, return_exceptions=True)
                raise
            if not both.done():
                await work.running.stop(0)
                await asyncio.gather(both, return_exceptions=True)
                raise Failed(FAULT, self.calls.engine(Volumes).lost(work.name) or _LOST)
            _, ended = both.result()
            return ended
        finally:
            for one in (reading, waiting, lost):
                one.cancel()
            await asyncio.gather(reading, waiting, lost, return_exceptions=True)

    async def _lost(self, work: Work) -> None:
        while not self.calls.engine(Volumes).lost(work.name):
            await asyncio.sleep(_LOOK_SECONDS)

    async def _read(self, run: Run, work: Work, progress: Progress) -> None:
        assert work.running is not None and work.log is not None
        async for line in work.running.lines():
            heard = progress.hear(line)
            if heard is None:
                await work.log.write(line)
                continue
            word, first, _ = heard
            if word == "begin":
                await self._phase_begins(run, work, progress, first)
            elif word == "command":
                await work.log.say(f"Running command {progress.command}")
            elif word == "ended" and heard[2]:
                await work.log.say(f"Command did not exit successfully: exit status {heard[2]}")
            elif word == "end":
                run.held["contexts"] = self._contexts(work, progress, first)

    async def _phase_begins(self, run: Run, work: Work, progress: Progress, number: int) -> None:
        """The phase before is over: DOWNLOAD_SOURCE, or one of the commands' own. Phases without commands are passed
        through, as AWS shows them."""
        name = progress.spec.phases[number].name
        await self._through(run, name.upper())

    async def _through(self, run: Run, upto: str) -> None:
        order = ["INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD", "UPLOAD_ARTIFACTS"]
        while True:
            here = self.row(run).doc["currentPhase"]
            at = order.index(here) if here in order else -1
            if here == upto or at >= order.index(upto):
                return
            contexts: tuple[dict[str, str], ...] = run.held.pop("contexts", ())
            status = "FAILED" if contexts else record.SUCCEEDED
            await self.phase(run, order[at + 1], status, contexts)

    def _contexts(self, work: Work, progress: Progress, number: int) -> tuple[dict[str, str], ...]:
        failure = progress.failures.get(number)
        if failure is None:
            return ()
        assert work.log is not None
        command = work.log.variables.masked(failure.command)
        text = f"Error while executing command: {command[:_LINES_MESSAGE]}. Reason: exit status {failure.code}"
        return (context("COMMAND_EXECUTION_ERROR", text),)

    async def _broken(self, run: Run, work: Work, progress: Progress, ended: Ended) -> Failed:
        """Why the program ended before its end."""
        if ended.oom:
            return Failed(
                "COMMAND_EXECUTION_ERROR",
                "The build used more memory than its compute type has, and was ended. Please use a larger one.",
            )
        if ended.exit_code is None:
            return Failed(FAULT, "The sandbox of the build was killed while it ran.")
        if progress.phase < 0:
            return Failed("BUILD_CONTAINER_ERROR", f"The image could not run the build: exit status {ended.exit_code}.")
        return Failed("COMMAND_EXECUTION_ERROR", f"The build ended its own shell: exit status {ended.exit_code}.")

    def _exported(self, work: Work) -> list[dict[str, str]]:
        assert work.spec is not None and work.log is not None
        held, found = work.log.variables, []
        hidden = {*work.spec.secrets, *work.spec.parameters}
        for number, name in enumerate(work.spec.exported):
            raw = work.text_of(f"scripts/exported{number}", _MOST_VALUE) or b""
            value = held.masked(raw.decode("utf-8", "replace"))
            found.append({"name": name, "value": "***" if name in hidden else value})
        return found

    @staticmethod
    def _called(work: Work, number: int) -> str:
        raw = work.text_of(f"scripts/named{number}", 1024) or b""
        text = raw.decode("utf-8", "replace").strip()
        return text if checking.plain(text) and not any(ord(char) < 32 for char in text) else ""

    async def deliver(self, run: Run) -> dict[str, Any]:
        """Reports, artifacts and the cache."""
        row, work = self.row(run), self._work(run)
        state = run.state
        if state["upload"]:
            await self._through(run, "UPLOAD_ARTIFACTS")
        made = await self._while(run, self._delivered(run, row, work)) if state["upload"] else {}
        if not state["upload"]:
            await self._while(run, self._reported(run, work))
        return {"delivered": made, "reports": run.held.get("reports", [])}

    async def _delivered(self, run: Run, row: Row, work: Work) -> dict[str, Any]:
        assert work.spec is not None and work.log is not None
        await self._reported(run, work)
        doc, found = row.doc, dict[str, Any]()
        disk = checking.COMPUTE[doc["environment"]["computeType"]].disk
        targets = [("", doc["_artifacts"], work.spec.artifacts)]
        targets += [
            (one["artifactIdentifier"], one, work.spec.secondary[one["artifactIdentifier"]])
            for one in doc["_secondaryArtifacts"]
        ]
        for id, target, wanted in targets:
            if target["type"] != "S3" or wanted is None:
                continue
            key = "" if target.get("encryptionDisabled") else doc["encryptionKey"]
            found[id] = await delivering.deliver(
                work.session,
                target,
                wanted,
                work.source,
                work.folder / "work" / "artifact.zip",
                name=run.state["called"].get(id, ""),
                id=row.name.rpartition(":")[2],
                kms_key=self._kms_key(row, key),
                most=disk,
            )
            await work.log.say(f"Uploaded artifacts to {found[id]['location']}")
        if not run.state["failed"]:
            await self._keep(row, work, disk)
        return found

    @staticmethod
    def _kms_key(row: Row, key: str) -> str:
        """What objects are encrypted under; the key that AWS manages is the bucket's own way."""
        return "" if key == default_key(row.account, row.region) else key

    async def _reported(self, run: Run, work: Work) -> None:
        """A report that cannot be made fails the build, as on AWS."""
        assert work.spec is not None and work.log is not None
        arns: list[str] = run.held.setdefault("reports", [])
        for wanted in work.spec.reports:
            kind = buildspec.FORMATS[wanted.format]
            try:
                found = await asyncio.to_thread(self._results, work, wanted, kind)
            except (results.Unreadable, archive.Unfit) as wrong:
                await work.log.say(f"Error while preparing the report {wanted.group}: {wrong}")
                raise Failed("CLIENT_ERROR", f"The report {wanted.group} cannot be made: {wrong}.") from None
            if found is None:
                await work.log.say(
                    f"No matching report paths found for {wanted.group}: {', '.join(wanted.files)[:500]}"
                )
                continue
            try:
                arns.append(await report.put(work.session, wanted.group, kind, run.id, found))
            except Refused as refused:
                raise Failed(
                    "CLIENT_ERROR", f"The report {wanted.group} cannot be made: {refused.code}: {refused.message}"
                ) from None

    @staticmethod
    def _results(work: Work, wanted: buildspec.Report, kind: str) -> Any:
        top = archive.top_of(work.source)
        try:
            files = archive.select(top, wanted.base, wanted.files)
            if not files:
                return None
            read: Any = results.cases if kind == "TEST" else results.coverage
            found: list[Any] = []
            left = results.MOST_TOGETHER
            for name, path in files:
                content = archive.text_of(top, path, results.MOST_BYTES + 1) or b""
                left -= len(content)
                if left < 0:
                    raise results.Unreadable(f"its files together are longer than {results.MOST_TOGETHER} bytes")
                try:
                    found += read(content)
                except results.Unreadable as wrong:
                    raise results.Unreadable(f"{name[:200]}: {wrong}") from None
            return found
        finally:
            os.close(top)

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status, whatever happened; what was held is let go of."""
        failure, state = run.failure, run.state
        status, contexts = record.SUCCEEDED, tuple[dict[str, str], ...](run.held.pop("contexts", ()))
        phase_status = "FAILED" if contexts else record.SUCCEEDED
        if failure is not None:
            code, message = failure.code, failure.message
            if not failure.foreseen:
                code, message = FAULT, "An internal error occurred while the build ran."
            status = code if code in (STOPPED, TIMED_OUT, FAULT) else "FAILED"
            label = {STOPPED: "", TIMED_OUT: "BUILD_TIMED_OUT", FAULT: "INTERNAL_SERVICE_ERROR"}.get(code, code)
            work: Work | None = run.held.get("work")
            if work is not None and work.log is not None:
                message = work.log.variables.masked(message)
            phase_status, contexts = status, () if code == STOPPED else (context(label, message),)
        elif state["failed"]:
            status = "FAILED"
        await self._last_lines(run, phase_status, contexts)
        await self.drop(run)
        await self._unplug(run)

        def work_of(tx: Transaction) -> None:
            row = BUILD.get(tx, state["account"], state["region"], state["name"])
            if row is None or row.status != record.IN_PROGRESS:
                return
            self._over(tx, run, row, status, phase_status, contexts)

        run.also(work_of)
        return {"status": status}

    def _over(
        self,
        tx: Transaction,
        run: Run,
        row: Row,
        status: str,
        phase_status: str,
        contexts: tuple[dict[str, str], ...],
    ) -> None:
        state, doc = run.state, row.doc
        record.end(tx, row, phase_status, tx.now, contexts)
        record.begin(row, "FINALIZING", tx.now)
        record.end(tx, row, record.SUCCEEDED, tx.now)
        record.begin(row, "COMPLETED", tx.now)
        doc["endTime"] = tx.now
        if state.get("resolved"):
            doc["resolvedSourceVersion"] = state["resolved"]
        doc["exportedEnvironmentVariables"] = state.get("exported") or []
        doc["reportArns"] = state.get("reports") or []
        for id, made in (state.get("delivered") or {}).items():
            held = [one for one in doc["secondaryArtifacts"] if one.get("artifactIdentifier") == id]
            (held[0] if id else doc["artifacts"]).update(made)
        doc.pop("_stopping", None)
        row.status = status
        BUILD.change(tx, row, "BuildStateChange")
        record.told(tx, row)
        record.measure(self.calls, row)
        if not record.running(tx, row.account, row.region, doc["projectName"], 1):
            # Sessions are the project's, as on AWS: those of a build end with the last one that runs.
            self.calls.directory.end_sessions(tx, PROJECT.arn(row.account, row.region, doc["projectName"]))

    async def _last_lines(self, run: Run, status: str, contexts: tuple[dict[str, str], ...]) -> None:
        """The log's last lines, and the log's copy in S3; that it cannot be stored is said where logs are."""
        work: Work | None = run.held.get("work")
        if work is None or work.log is None:
            return
        row = self.row(run)
        current = {"phaseType": row.doc["currentPhase"], "phaseStatus": status, "contexts": list(contexts)}
        log = work.log
        with contextlib.suppress(OSError):
            await self._told(log, current)
        with contextlib.suppress(Exception):
            await log.close()
        place = row.doc["logs"].get("s3LogsArn", "").removeprefix("arn:aws:s3:::")
        if not place or not work.volume or not log.whole:
            return
        bucket, _, key = place.partition("/")
        plain = row.doc["logs"]["s3Logs"].get("encryptionDisabled")
        try:
            top = archive.top_of(work.folder / "log")
            try:
                kms_key = "" if plain else self._kms_key(row, row.doc["encryptionKey"])
                await objects.store(work.session, bucket, key, top, "build.gz", kms_key)
            finally:
                os.close(top)
        except Refused as refused:
            _log.warning("the log of %s could not be stored: %s", run.id, refused.code)
        except (OSError, archive.Unfit) as error:
            if getattr(error, "errno", None) != errno.ENOENT:
                _log.warning("the log of %s could not be stored: %s", run.id, error)

    async def _unplug(self, run: Run) -> None:
        """Removes the network interface of the build. A role that may not leaves it, as on AWS."""
        row = self.row(run)
        if not row.doc["vpcConfig"]:
            return
        arn = PROJECT.arn(row.account, row.region, row.doc["projectName"])
        session = RoleSession(
            self.calls, row.doc["serviceRole"], account=row.account, region=row.region, source_arn=arn
        )
        try:
            await network.clean(session, run.id)
        except Refused as refused:
            _log.warning("the network interface of %s is left: %s", run.id, refused.code)

    async def drop(self, run: Run) -> None:
        """Ends what runs and frees what is held; bears repeating."""
        work: Work | None = run.held.pop("work", None)
        if work is None:
            return
        if work.running is not None:
            await work.running.stop(0)
        if work.log is not None:
            await work.log.abandon()
        if work.network is not None:
            await work.network.close()
        if work.volume:
            await self.calls.engine(Volumes).close(work.name)
        if work.claim is not None:
            self.calls.engine(Placement).release(work.claim)
        work.session.end()


async def _first(*waiting: asyncio.Future[Any]) -> None:
    """Until one of them is over."""
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
