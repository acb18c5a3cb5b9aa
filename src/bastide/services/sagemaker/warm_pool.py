"""Warm pools: the instances of a training job that has ended, kept for the next one like it.

What is kept is the booking on this machine, and nothing that the job had: the next one gets volumes, keys and sandboxes of
its own. A pool lives in one process and ends with it, as pools on AWS end when their instances are patched.

Source: developer guide, "train-warm-pools"; API reference, WarmPoolStatus and UpdateTrainingJob.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.placement import Claim, Placement
from bastide.engines.workflow import Flow, Run, Step
from bastide.kernel import Ask, Authorised, Calls, Output
from bastide.services.sagemaker.asking import keys, unsupported
from bastide.services.sagemaker.outcome import seconds_between
from bastide.services.sagemaker.relation import WARM
from bastide.services.sagemaker.training_job import AVAILABLE, TRAINING_JOB, keep_alive
from bastide.store import Row, Transaction

_LOOK_SECONDS: Final = 0.5
_ALIKE: Final = ("RoleArn", "VpcConfig", "EnableInterContainerTrafficEncryption", "EnableNetworkIsolation")
_ALIKE_RESOURCES: Final = ("InstanceType", "InstanceCount", "VolumeKmsKeyId", "VolumeSizeInGB")


def until(row: Row) -> int:
    """When a pool ends by itself."""
    return int(row.doc["TrainingEndTime"]) + keep_alive(row.doc) * MICROS


def alike(one: Any, other: Any) -> bool:
    """Whether a job runs on what another one left."""

    def told(doc: Any) -> list[Any]:
        config = doc.get("VpcConfig") or {}
        vpc = [sorted(config.get(name) or ()) for name in ("Subnets", "SecurityGroupIds")]
        resources = [doc["ResourceConfig"].get(name) for name in _ALIKE_RESOURCES]
        rules = bool(doc.get("DebugRuleConfigurations"))  # their evaluation is booked, too
        return [rules, *resources, vpc, *(doc.get(name) for name in _ALIKE if name != "VpcConfig")]

    return told(one) == told(other) and not other.get("EnableManagedSpotTraining")


def close(tx: Transaction, row: Row, status: str, **more: Any) -> None:
    """A pool that was available is that no longer."""
    retained = seconds_between(row.doc["TrainingEndTime"], tx.now)
    row.doc["WarmPoolStatus"] = {"Status": status, "ResourceRetainedBillableTimeInSeconds": retained, **more}
    WARM.drop(tx, row.account, row.region, AVAILABLE, row.name)


def available(row: Row) -> bool:
    """Whether the instances of a job are kept."""
    return (row.doc.get("WarmPoolStatus") or {}).get("Status") == AVAILABLE


class WarmPools:
    """The pools of this process, each by the ARN of the job that left it, and the flow that ends them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._held: dict[str, Claim] = {}

    @staticmethod
    def id_of(arn: str) -> str:
        """The execution that watches over a pool."""
        return f"{arn}/warm-pool"

    def flow(self) -> Flow:
        """Ends a pool when its time is over."""
        return Flow("warm-pool", [Step("keep", self.keep)])

    def retain(self, arn: str, claim: Claim) -> None:
        """Keeps the booking of a job that is ending."""
        handed = self._calls.engine(Placement).hand_over(claim, self.id_of(arn))
        if handed is not None:
            self._held[arn] = handed

    def leave(self, tx: Transaction, row: Row) -> None:
        """Says of a job that has ended what became of its instances."""
        arn = TRAINING_JOB.arn(row.account, row.region, row.name)
        kept = row.status == "Completed" and arn in self._held and keep_alive(row.doc) > 0
        status = AVAILABLE if kept else "Terminated"
        row.doc["WarmPoolStatus"] = {"Status": status, "ResourceRetainedBillableTimeInSeconds": 0}
        if kept:
            WARM.add(tx, row.account, row.region, AVAILABLE, row.name)

    async def take(self, row: Row, arn: str, *, here: bool = False) -> Claim | None:
        """The booking of a pool that fits a job, which then holds it; None if there is none. here: on the platform's own
        machine only."""
        where = TRAINING_JOB.arn(row.account, row.region, "")
        for left in [one for one in self._held if one.startswith(where)]:
            if here and any(place.node for place in self._held[left].places):
                continue

            def work(tx: Transaction, name: str = left.removeprefix(where)) -> bool:
                found = TRAINING_JOB.get(tx, row.account, row.region, name)
                if found is None or not available(found) or not alike(found.doc, row.doc) or until(found) <= tx.now:
                    return False
                close(tx, found, "Reused", ReusedByJob=row.name)
                TRAINING_JOB.change(tx, found, "WarmPoolReused")
                return True

            if await self._calls.store.write(work):
                return self._calls.engine(Placement).hand_over(self._held.pop(left), arn)
        return None

    async def keep(self, run: Run) -> dict[str, Any]:
        """Until the pool was taken, its time is over, or somebody ended it."""
        arn = run.id.removesuffix("/warm-pool")
        while True:
            with self._calls.store.reading() as view:
                row = TRAINING_JOB.find(view, run.state["account"], run.state["region"], run.state["name"])
            if not available(row) or arn not in self._held or until(row) <= run.clock():
                break
            await asyncio.sleep(_LOOK_SECONDS)

        def work(tx: Transaction) -> bool:
            found = TRAINING_JOB.find(tx, row.account, row.region, row.name)
            if available(found):
                close(tx, found, "Terminated")
                TRAINING_JOB.change(tx, found, "WarmPoolTerminated")
            return bool(found.doc["WarmPoolStatus"]["Status"] == "Terminated")

        if await self._calls.store.write(work) and (claim := self._held.pop(arn, None)) is not None:
            self._calls.engine(Placement).release(claim)
        return {}


@TRAINING_JOB.operation(
    "UpdateTrainingJob",
    asks=[
        Ask(
            "sagemaker:UpdateTrainingJob",
            TRAINING_JOB.this,
            given=keys(
                InstanceTypes_="ProfilerRuleConfigurations.InstanceType",
                KeepAlivePeriod="ResourceConfig.KeepAlivePeriodInSeconds",
                EnableRemoteDebug="RemoteDebugConfig.EnableRemoteDebug",
            ),
        )
    ],
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = TRAINING_JOB.named(a, tx)
    unsupported(a, "ProfilerRuleConfigurations", "RemoteDebugConfig.EnableRemoteDebug")
    profiler = a.input.get("ProfilerConfig")
    if profiler and not profiler.get("DisableProfiler"):
        raise Refused(
            "ValidationException",
            "ProfilerConfig is not supported by Bastide yet, except to disable the profiler: nothing is profiled.",
        )
    if profiler:
        if row.status != "InProgress":
            raise Refused("ValidationException", f"The training job is in status {row.status}: it cannot be updated.")
        row.doc["ProfilerConfig"] = profiler
    resources = a.input.get("ResourceConfig")
    if resources is not None:
        if not available(row):
            raise Refused(
                "ValidationException",
                "KeepAlivePeriodInSeconds can be updated while the warm pool is Available; that of the training job "
                f"is {(row.doc.get('WarmPoolStatus') or {}).get('Status', 'not there')}.",
            )
        row.doc["ResourceConfig"]["KeepAlivePeriodInSeconds"] = int(resources["KeepAlivePeriodInSeconds"])
        if until(row) <= tx.now:
            close(tx, row, "Terminated")
    TRAINING_JOB.change(tx, row, a.operation.name, a.request.id)
    return {"TrainingJobArn": TRAINING_JOB.arn(row.account, row.region, row.name)}
