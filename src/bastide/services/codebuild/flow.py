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
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.images import Container
from bastide.engines.placement import Placement
from bastide.engines.sandbox import SandboxError, Volumes
from bastide.engines.workflow import Failed, Flow, Run, Step
from bastide.services.codebuild import (
    archive,
    builder,
    buildspec,
    checking,
    image,
    network,
    objects,
    record,
    script,
    sources,
    variables,
)
from bastide.services.codebuild.collecting import Collecting
from bastide.services.codebuild.commanding import Commanding
from bastide.services.codebuild.log import BuildLog
from bastide.services.codebuild.network import Network
from bastide.services.codebuild.noun import BUILD, PROJECT
from bastide.services.codebuild.record import context
from bastide.services.codebuild.session import RoleSession
from bastide.services.codebuild.steps import (
    FAULT,
    LOST,
    SOURCE,
    STOPPED,
    TIMED_OUT,
    Work,
)
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.codebuild")

FLOW: Final = "codebuild"


class BuildFlow(Commanding, Collecting):
    """The steps of a build."""

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

    async def assume(self, run: Run) -> dict[str, Any]:
        """Credentials of the service role, for this attempt only."""
        if "begun" in run.state:
            raise Failed(FAULT, LOST)
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
        targets = self._targets(doc, work.spec)
        work.names = [(id, made.name) for id, _, made in targets if made is not None and made.name]
        held.values = {**await asyncio.to_thread(builder.prepare, work.own, work.images), **held.values}
        run.held["values"] = held.values
        work.mark = f"\x1e{secrets.token_hex(16)}"
        managed = not isinstance(work.environment, Container)
        await asyncio.to_thread(script.write, work.own, work.spec, work.mark, SOURCE, work.names, prepare=managed)

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
