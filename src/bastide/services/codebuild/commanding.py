"""A build's commands: the sandbox that they run in, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

from bastide.engines.images import Container
from bastide.engines.sandbox import Ended, Limits, SandboxError, Sandboxes, Spec, Volumes
from bastide.engines.workflow import Failed, Run
from bastide.services.codebuild import (
    builder,
    checking,
    image,
    network,
    script,
)
from bastide.services.codebuild.record import context
from bastide.services.codebuild.script import HOME, Progress
from bastide.services.codebuild.steps import (
    FAULT,
    GRACE,
    LINES_MESSAGE,
    LOOK_SECONDS,
    LOST,
    MOST_VALUE,
    SOURCE,
    Steps,
    Work,
)
from bastide.store import Row


class Commanding(Steps):
    """The step of a build in which its commands run."""

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
            "CODEBUILD_SRC_DIR": SOURCE,
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
                await work.running.stop(GRACE)
                await asyncio.gather(both, return_exceptions=True)
                raise
            if not both.done():
                await work.running.stop(0)
                await asyncio.gather(both, return_exceptions=True)
                raise Failed(FAULT, self.calls.engine(Volumes).lost(work.name) or LOST)
            _, ended = both.result()
            return ended
        finally:
            for one in (reading, waiting, lost):
                one.cancel()
            await asyncio.gather(reading, waiting, lost, return_exceptions=True)

    async def _lost(self, work: Work) -> None:
        while not self.calls.engine(Volumes).lost(work.name):
            await asyncio.sleep(LOOK_SECONDS)

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

    def _contexts(self, work: Work, progress: Progress, number: int) -> tuple[dict[str, str], ...]:
        failure = progress.failures.get(number)
        if failure is None:
            return ()
        assert work.log is not None
        command = work.log.variables.masked(failure.command)
        text = f"Error while executing command: {command[:LINES_MESSAGE]}. Reason: exit status {failure.code}"
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
            raw = work.text_of(f"scripts/exported{number}", MOST_VALUE) or b""
            value = held.masked(raw.decode("utf-8", "replace"))
            found.append({"name": name, "value": "***" if name in hidden else value})
        return found

    @staticmethod
    def _called(work: Work, number: int) -> str:
        raw = work.text_of(f"scripts/named{number}", 1024) or b""
        text = raw.decode("utf-8", "replace").strip()
        return text if checking.plain(text) and not any(ord(char) < 32 for char in text) else ""


async def _first(*waiting: asyncio.Future[Any]) -> None:
    """Until one of them is over."""
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
