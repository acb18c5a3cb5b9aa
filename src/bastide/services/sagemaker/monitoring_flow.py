"""How an execution of a monitoring schedule runs: as processing jobs, with the role of what the schedule runs.

SageMaker makes the jobs by itself, under names that follow from the execution, so that each is made once; whoever made the
schedule or its definition was asked for their role, their network and their keys. What the jobs do, they do as that role,
and with it is looked what was captured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.workflow import Failed, Flow, Run, Step, Workflows, reach
from bastide.kernel import Calls, Output, Rounds, service_caller
from bastide.kernel.regular import tags_shown
from bastide.services.sagemaker import job_network, monitoring_execution, monitoring_times, objects
from bastide.services.sagemaker import monitoring_request as requests
from bastide.services.sagemaker.endpoint import ENDPOINT
from bastide.services.sagemaker.monitoring_definition import MERGED, Monitoring, defined
from bastide.services.sagemaker.monitoring_execution import DUE, FLOW, MONITORING_SCHEDULE
from bastide.services.sagemaker.monitoring_request import Occasion, Place
from bastide.services.sagemaker.processing_job import PROCESSING_JOB
from bastide.services.sagemaker.session import SAGEMAKER, RoleSession
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_LOOK_SECONDS: Final = 30.0
_AT_A_TIME: Final = 100
_MOST_PLACES: Final = 8
"""Hours that are named one by one; of more, whole days are read, as on AWS, and the analysis leaves out what it is not to
look at."""
_ENDED: Final = ("Completed", "Failed", "Stopped")
_VIOLATIONS: Final = "CompletedWithViolations"
_EMPTY: Final = "Job inputs had no data"
_INTERNAL: Final = "InternalServerError: We encountered an internal error. Please try again."


class Monitors(Rounds):
    """Begins what is due."""

    seconds = 0.5

    async def round(self) -> None:
        """See the base."""
        while await self._some() == _AT_A_TIME:
            pass

    async def _some(self) -> int:
        now = self._calls.clock()
        with self._calls.store.reading() as view:
            rows = view.scan(DUE, "", "", limit=_AT_A_TIME)
        due = [row.name for row in rows if int(row.name.partition("|")[0]) <= now]
        workflows, begun = self._calls.engine(Workflows), 0
        for name in due:
            try:
                await self._calls.store.write(partial(self._due, workflows, name))
                begun += 1
            except Exception:  # it keeps nobody else waiting
                _log.exception("%s is due and does not begin", name.partition("|")[2])
        if begun:
            workflows.wake()
        return begun

    @staticmethod
    def _due(workflows: Workflows, index: str, tx: Transaction) -> None:
        held = tx.get(DUE, "", "", index)
        if held is None:
            return
        account, region, name = MONITORING_SCHEDULE.locate(index.partition("|")[2], "", "")
        row = MONITORING_SCHEDULE.get(tx, account, region, name)
        if row is None or row.doc.get("_index") != index:
            tx.delete(held, keep=False)
            return
        monitoring_execution.begin(tx, workflows, row)


class MonitoringFlow:
    """The flow of executions."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def flow(self) -> Flow:
        """The flow."""
        return Flow(FLOW, [Step("work", self.work), Step("settle", self.settle, always=True)])

    # -- rows --------------------------------------------------------------------------------------------------------------

    def _row(self, run: Run) -> Row:
        with self.calls.store.reading() as view:
            return monitoring_execution.get(view, run.state["account"], run.state["region"], run.state["name"])

    async def _move(self, run: Run, status: str, **doc: Any) -> None:
        def work(tx: Transaction) -> None:
            row = monitoring_execution.get(tx, run.state["account"], run.state["region"], run.state["name"])
            row.status = status
            row.doc |= doc
            monitoring_execution.save(tx, row)

        await self.calls.store.write(work)

    def _schedule(self, row: Row) -> str:
        return MONITORING_SCHEDULE.arn(row.account, row.region, row.doc["_schedule"])

    # -- the steps ---------------------------------------------------------------------------------------------------------

    async def work(self, run: Run) -> dict[str, Any]:
        """Has captured data merged, if it is to be, and analysed."""
        row = self._row(run)
        doc = row.doc
        try:
            with self.calls.store.reading() as view:
                one = defined(view, row.account, row.region, doc.get("_type", ""), doc["_definition"])
            start, end = monitoring_times.window(
                doc.get("_config"), one.source, doc["ScheduledTime"], doc.get("_every", 0)
            )
            occasion = Occasion(doc["_schedule"], run.id, row.region, doc["ScheduledTime"], start, end)
            session = RoleSession(
                self.calls, one.role, account=row.account, region=row.region, source_arn=self._schedule(row)
            )
            isolated = bool((one.network or {}).get("EnableNetworkIsolation"))
            job_network.go_by_vpc(session, (one.network or {}).get("VpcConfig"), isolated=isolated)
            data = await self._captured(row, session, one, occasion)
            if one.type in MERGED:
                ended = await self._merge(run, row, session, one, occasion, data)
                if ended is not None:
                    return ended
                base = requests.merged(one, occasion)
                put = [Place(f"{base}/{place.below}", place.below, place.hour) for place in data]
                data = await self._there(session, put)
                if not data:
                    return {"status": "Failed", "reason": "No merged data: no captured record has ground truth."}
            job = await self._job(run, row, requests.analysis(one, occasion, data))
        except Refused as refused:
            raise Failed("ClientError", f"{refused.code}: {refused.message}") from None
        return self._outcome(job)

    async def settle(self, run: Run) -> dict[str, Any]:
        """The last status, whatever happened."""
        status, reason = run.state.get("status", "Failed"), run.state.get("reason", "")
        if run.failure is not None:
            one = run.failure
            reason = one.message if one.foreseen and one.message == _EMPTY else f"{one.code}: {one.message}"
            status, reason = "Failed", reason if one.foreseen else _INTERNAL
        await self._move(run, status, **({"FailureReason": reason[:1024]} if reason else {}))
        return {}

    @staticmethod
    def _outcome(job: Row) -> dict[str, Any]:
        """An execution's status and reason, of the job that it is."""
        if job.status == "Completed":
            found = str(job.doc.get("ExitMessage") or "").startswith(_VIOLATIONS)
            return {"status": _VIOLATIONS if found else "Completed", "reason": ""}
        return {"status": job.status, "reason": job.doc.get("FailureReason", "")}

    # -- data --------------------------------------------------------------------------------------------------------------

    async def _captured(self, row: Row, session: RoleSession, one: Monitoring, occasion: Occasion) -> list[Place]:
        """Where captured data lies; raises Failed if there is none."""
        wanted = _wanted(occasion)
        if one.endpoint:
            with self.calls.store.reading() as view:
                endpoint = ENDPOINT.find(view, row.account, row.region, one.endpoint)
            target = (endpoint.doc.get("DataCaptureConfig") or {}).get("DestinationS3Uri")
            if not target:
                raise Failed("ClientError", f"Data capture is not enabled for the endpoint {one.endpoint}.")
            base = f"{target.rstrip('/')}/{one.endpoint}"
            variants = await _folders(session, base)
            if len(variants) * len(wanted) > _MOST_PLACES:
                wanted = list(dict.fromkeys(hour[:10] for hour in wanted))
            places = [
                Place(f"{base}/{variant}/{hour}", f"{one.endpoint}/{variant}/{hour}", hour)
                for variant in variants
                for hour in wanted
            ]
            found = await self._there(session, places)
        else:
            found = await self._manifests(session, one, wanted)
        if not found:
            raise Failed("ClientError", _EMPTY)
        return found

    @staticmethod
    async def _manifests(session: RoleSession, one: Monitoring, wanted: Sequence[str]) -> list[Place]:
        """What batch transform jobs captured: a manifest each, of what went in for data, of what came out for models."""
        folder = "input" if one.type == "DataQuality" else "output"
        bucket, prefix = objects.split(one.source["DataCapturedDestinationS3Uri"])
        found = []
        for hour in wanted:
            below = "/".join(part for part in (prefix.strip("/"), folder, hour) if part)
            for number, entry in enumerate(await objects.listing(session, bucket, f"{below}/"), 1):
                found.append(Place(f"s3://{bucket}/{entry.key}", f"{hour}/{number}", hour, manifest=True))
        return found

    @staticmethod
    async def _there(session: RoleSession, places: Sequence[Place]) -> list[Place]:
        """Those of the places that have something."""
        found = []
        for place in places:
            bucket, prefix = objects.split(place.uri)
            asked = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/", "MaxKeys": 1}
            if (await session.act("s3", "ListObjectsV2", asked)).get("Contents"):
                found.append(place)
        return found

    # -- jobs --------------------------------------------------------------------------------------------------------------

    async def _merge(
        self, run: Run, row: Row, session: RoleSession, one: Monitoring, occasion: Occasion, data: Sequence[Place]
    ) -> dict[str, Any] | None:
        """Has captured data and ground truth put together; how the execution ended, if it did."""
        base = one.truth.rstrip("/")
        wanted = list(dict.fromkeys(place.hour for place in data))
        truth = await self._there(session, [Place(f"{base}/{hour}", hour, hour) for hour in wanted])
        if not truth:
            return {"status": "Failed", "reason": f"No merged data: there is no ground truth at {base} for the time."}
        job = await self._job(run, row, requests.merge(one, occasion, data, truth))
        return None if job.status == "Completed" else self._outcome(job)

    async def _job(self, run: Run, row: Row, given: dict[str, Any]) -> Row:
        """A job that has ended; made, if there is none of that name yet. Raises Refused."""
        name, arn = given["ProcessingJobName"], self._schedule(row)

        def ours(tx: Transaction, _: Output) -> None:
            job = PROCESSING_JOB.find(tx, row.account, row.region, name)
            job.doc |= {"MonitoringScheduleArn": arn, "_execution": run.id, "_namespace": row.doc["_namespace"]}
            tx.update(job, keep=False)

        job = self._held(row, name)
        if job is None:
            with self.calls.store.reading() as view:
                schedule = MONITORING_SCHEDULE.get(view, row.account, row.region, row.doc["_schedule"])
            tags = tags_shown(schedule) if schedule is not None else []
            caller = service_caller(SAGEMAKER, row.account, arn)
            await self.calls.act(
                caller, "sagemaker", "CreateProcessingJob", {**given, **({"Tags": tags} if tags else {})},
                region=row.region, source=SAGEMAKER, also=ours,
            )  # fmt: skip
            reach("monitoring/launch:after")
        elif job.doc.get("_execution") != run.id:
            raise Refused("ResourceInUse", f"There is another processing job {name}.")
        await self._move(run, "InProgress", ProcessingJobArn=PROCESSING_JOB.arn(row.account, row.region, name))
        while True:
            job = self._held(row, name)
            if job is None or job.status in _ENDED:
                break
            waiting = asyncio.ensure_future(run.signalled(name))
            await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
            waiting.cancel()
        if job is None:
            raise Failed("ClientError", f"The processing job {name} was deleted.")
        return job

    def _held(self, row: Row, name: str) -> Row | None:
        with self.calls.store.reading() as view:
            return PROCESSING_JOB.get(view, row.account, row.region, name)


def _wanted(occasion: Occasion) -> list[str]:
    """The hours that are looked at; of more than a month, none: they are too many to be named."""
    if occasion.end - occasion.start > 31 * 86400 * MICROS:
        raise Failed("ClientError", "The time to analyse is more than 31 days.")
    return list(monitoring_times.hours(occasion.start, occasion.end))


async def _folders(session: RoleSession, base: str) -> list[str]:
    """The names of the folders in a place of S3."""
    bucket, prefix = objects.split(base)
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/", "Delimiter": "/"}
    output = await session.act("s3", "ListObjectsV2", asked)
    return [one["Prefix"].rstrip("/").rpartition("/")[2] for one in output.get("CommonPrefixes") or ()]
