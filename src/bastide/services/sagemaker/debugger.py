"""Debugger beside a training job: its tensors go to S3 while it runs, and its rules are evaluated over them.

The evaluation runs in a sandbox of its own, which sees copies of what was stored and cannot write to them. The training
waits for neither it nor S3, and nothing that goes wrong here is the training's failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.placement import Grant, Placement
from bastide.engines.sandbox import Limits, Running, SandboxError, Sandboxes, Spec
from bastide.kernel import Bytes, Calls
from bastide.services.sagemaker import debug_rule, objects
from bastide.services.sagemaker.archive import Unfit
from bastide.services.sagemaker.host import Host
from bastide.services.sagemaker.mirror import Mirror
from bastide.services.sagemaker.session import RoleSession
from bastide.services.sagemaker.training_job import TRAINING_JOB
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_SECONDS: Final = 1.0
_MEMORY: Final = 1 << 30
_PATIENCE: Final = 60.0
"""Seconds that an evaluation may go on when the training has ended."""
_TRIES: Final = 5
_AGAIN: Final = 0.2
"""How often, and after how many seconds, what failed is tried again when the training has ended."""
_INSIDE: Final = "/opt/training"
_LAST: Final = "training_job_end.ts"
"""SageMaker writes it when no more tensors come; smdebug's readers wait for it."""


def part(placement: Placement, doc: Any) -> list[Grant]:
    """What a job books for the evaluation of its rules."""
    return [placement.part(_MEMORY, 1.0)] if doc.get("DebugRuleConfigurations") else []


class Debugger:
    """Of one attempt of a job."""

    def __init__(self, calls: Calls, session: RoleSession, row: Row, hosts: Sequence[Host], most_bytes: int) -> None:
        self._calls = calls
        self._session = session
        self._row = row
        self._hosts = hosts
        self._rules = list(row.doc.get("DebugRuleConfigurations") or ())
        self._tensors = debug_rule.tensors_of(row.doc)
        bucket, base = objects.split(row.doc["DebugHookConfig"]["S3OutputPath"])
        self._bucket = bucket
        self._base = "/".join(one for one in (base.strip("/"), row.name, "debug-output") if one)
        self._key = row.doc["OutputDataConfig"].get("KmsKeyId") or None
        more: dict[str, Any] = {"deletes": False, "most_bytes": most_bytes, "kms_key": self._key}
        self._mirrors = [Mirror(session, bucket, self._base, host.ml, self._tensors, **more) for host in hosts]
        self._running: Running | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = 0
        self._ending = asyncio.Event()
        before = row.doc.get("DebugRuleEvaluationStatuses") or ()
        self._told = {one["RuleConfigurationName"] for one in before if one["RuleEvaluationStatus"] != "InProgress"}
        # On the volume, and out of the job's sight. What is read lies apart from what the evaluation may write to.
        self._copies, self._own = (hosts[0].ml.parent / one for one in ("tensors", "rules"))
        self._copied: dict[tuple[str, str], Any] = {}

    def start(self) -> None:
        """Begins to follow the job, which is about to run."""
        self._tasks = [asyncio.create_task(self._follow())]

    async def _follow(self) -> None:
        for one in self._rules:
            if not debug_rule.known(one):
                image = debug_rule.image_of(one)
                await self._tell(
                    one, "Error", f"ClientError: Unknown image of rules {image!r}: custom rules are not run."
                )
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _SECONDS)
                return
            if await self._sync() and self._stored():
                await self._evaluate()

    def _stored(self) -> bool:
        return any(mirror.stored for mirror in self._mirrors)

    def _open(self) -> list[dict[str, Any]]:
        """The rules of which nothing is known yet."""
        return [one for one in self._rules if one["RuleConfigurationName"] not in self._told]

    async def _sync(self, *, last: bool = False) -> bool:
        """Makes S3 as the folders are. What goes wrong is tried again; the last time, the rules say what it was."""
        why = ""
        try:
            for mirror in self._mirrors:
                await mirror.sync()
            if self._rules:
                await asyncio.to_thread(self._copy)
        except Refused as refused:
            where = f"s3://{self._bucket}/{self._base}"
            why = f"ClientError: the tensors cannot be stored: {refused.code}: {refused.message} ({where})"
        except (Unfit, OSError) as error:
            why = f"ClientError: the tensors cannot be stored: {error}"
        if why and last:
            for one in self._open():
                await self._tell(one, "Error", why)
        return not why

    def _copy(self) -> None:
        """Lays what was stored where the evaluation reads it: collections and events before what names them."""
        for host, mirror in zip(self._hosts, self._mirrors, strict=True):
            for name, seen in sorted(mirror.stored.items()):
                if self._copied.get((host.name, name)) == seen:
                    continue
                target = self._copies / host.name / name
                self._opened(target.parent)
                fresh = self._copies / "fresh"
                with contextlib.suppress(FileNotFoundError), os.fdopen(mirror.open(name), "rb") as file:
                    with fresh.open("wb") as copy:
                        shutil.copyfileobj(file, copy)
                    fresh.chmod(0o644)
                    fresh.replace(target)
                self._copied[host.name, name] = seen

    def _opened(self, folder: Path) -> None:
        """Makes a folder of the copies, which the evaluation's user may read."""
        if folder != self._copies.parent and not folder.is_dir():
            self._opened(folder.parent)
            folder.mkdir()
            folder.chmod(0o755)

    async def _evaluate(self, *, last: bool = False) -> None:
        """Starts the evaluation of those rules that are open, if none runs; what goes wrong is tried again, but for the
        last time. One that ended before its rules were judged begins anew, a few times."""
        wanted = [one for one in self._open() if debug_rule.known(one)]
        if not wanted or self._begun == _TRIES or not all(one.done() for one in self._tasks[1:]):
            return
        if self._running is not None:
            await self._running.wait()
            self._running = None
        try:
            spec = await asyncio.to_thread(self._spec, wanted)
            self._running = await self._calls.engine(Sandboxes).start(spec)
        except (Refused, SandboxError, OSError, ValueError) as error:
            _log.warning("the rules of %s are not evaluated: %s", self._row.name, error)
            for one in wanted if last else ():
                await self._tell(one, "Error", "InternalServerError: the evaluation could not be started.")
            return
        self._begun += 1
        self._tasks.append(asyncio.create_task(self._listen(self._running)))

    def _spec(self, wanted: Sequence[Any]) -> Spec:
        self._own.mkdir(exist_ok=True)
        self._opened(self._copies)
        rules = [
            {
                "name": one["RuleConfigurationName"],
                "rule": debug_rule.title(one),
                "parameters": debug_rule.parameters(one),
            }
            for one in wanted
        ]
        told = {"rules": rules, "hosts": [host.name for host in self._hosts]}
        place = self._copies / "rules.json"
        place.write_bytes(orjson.dumps(told))
        place.chmod(0o644)
        return Spec(
            name=f"{self._hosts[0].place}-rules",
            image=debug_rule.evaluator(),
            command=["evaluate-rules"],
            workdir=self._own,
            limits=Limits(_MEMORY, 1.0, processes=64),
            readonly=[(self._copies, _INSIDE)],
        )

    async def _listen(self, running: Running) -> None:
        """Verdicts as they come."""
        named = {one["RuleConfigurationName"]: one for one in self._rules}
        async for line in running.lines():
            try:
                told = orjson.loads(line)
                rule, status, details = named[told["rule"]], str(told["status"]), str(told["details"])
            except (ValueError, KeyError, TypeError):
                _log.warning("the evaluation of %s says: %s", self._row.name, line[:200])
                continue
            if status in ("IssuesFound", "NoIssuesFound", "Error"):
                await self._tell(rule, status, details)

    async def _tell(self, rule: Any, status: str, details: str) -> None:
        """Writes a verdict, the first of a rule, onto the job's row; then acts as the rule says."""
        name = rule["RuleConfigurationName"]
        if name in self._told:
            return
        self._told.add(name)

        def work(tx: Transaction) -> None:
            row = TRAINING_JOB.find(tx, self._row.account, self._row.region, self._row.name)
            if judged(row, name, status, details, tx.now):
                TRAINING_JOB.change(tx, row, "DebugRuleEvaluated")

        await self._calls.store.write(work)
        if status == "IssuesFound" and debug_rule.stops(rule, self._row.name):
            try:
                await self._session.act("sagemaker", "StopTrainingJob", {"TrainingJobName": self._row.name})
            except Refused as refused:
                _log.warning("the rule %s does not stop %s: %s", name, self._row.name, refused.code)

    async def finish(self) -> None:
        """The training has ended: the last tensors are stored and looked at. Raises nothing that is not ours."""
        try:
            # Not cancelled: an evaluation that is just being started would be nobody's.
            self._ending.set()
            await asyncio.gather(self._tasks[0], return_exceptions=True)
            stored = False
            for left in reversed(range(_TRIES)):
                if stored := await self._sync(last=not left):
                    break
                await asyncio.sleep(_AGAIN)
            if stored:
                if self._stored():
                    with contextlib.suppress(Refused):
                        await self._end()
                await self._judge()
        finally:
            await self.abandon()

    async def _end(self) -> None:
        asked = {"Bucket": self._bucket, "Key": f"{self._base}/{_LAST}"}
        if self._key:
            asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._key}
        await self._session.act("s3", "PutObject", asked, body=Bytes(b""))

    async def _judge(self) -> None:
        """Has the evaluation come to its end."""
        for left in reversed(range(_TRIES)):
            await self._evaluate(last=not left)
            if self._running is not None or not self._open():
                break
            await asyncio.sleep(_AGAIN)
        if self._running is not None:
            await asyncio.to_thread((self._copies / "ended").touch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.gather(*self._tasks[1:])
                    await self._running.wait()
        for one in self._open():
            await self._tell(one, "Error", "InternalServerError: the evaluation did not come to its end.")

    async def abandon(self) -> None:
        """Ends what runs."""
        if self._running is not None:
            await self._running.stop(0)
        for one in self._tasks:
            one.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def judged(row: Row, name: str, status: str, details: str, now: int) -> bool:
    """Writes a rule's verdict onto a row; False if it has one."""
    for one in row.doc.get("DebugRuleEvaluationStatuses") or ():
        if one["RuleConfigurationName"] == name and one["RuleEvaluationStatus"] == "InProgress":
            one |= {"RuleEvaluationStatus": status, "StatusDetails": details[:1024], "LastModifiedTime": now}
            return True
    return False


def leave(row: Row, now: int) -> None:
    """A job that ends has no rule that is still evaluated."""
    status = "Stopped" if row.status == "Stopped" else "Error"
    for one in row.doc.get("DebugRuleEvaluationStatuses") or ():
        judged(row, one["RuleConfigurationName"], status, "The training job ended before the rule was evaluated.", now)
