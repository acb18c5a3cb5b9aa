"""How calls move from the servers that answer to those that are to: at once, a canary first, in steps, batch by batch.

Source: SageMaker developer guide, "Blue/Green Deployments", "Rolling deployments", "Auto-Rollback Configuration and
Monitoring". Unlike on AWS a rolling deployment keeps the old servers to its end, so that to roll back is to turn the calls
around.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines.serving import Serving
from bastide.engines.workflow import Failed, Run
from bastide.kernel import Calls
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.session import RoleSession

_LOOK_SECONDS: Final = 0.5
_ALARM_SECONDS: Final = 10 * MICROS
_LONGEST: Final = 14_400


Tell = Callable[[str, str, float], Awaitable[None]]
"""Told what a deployment is at: a status of VariantStatus, its message, and the share of calls that goes there."""


class Shift:
    """The calls of one endpoint on their way to the execution `run`, which serves `plan`."""

    def __init__(
        self, calls: Calls, run: Run, arn: str, plan: dict[str, Any], deployment: dict[str, Any], tell: Tell
    ) -> None:
        self._tell = tell
        self._calls = calls
        self._run = run
        self._arn = arn
        self._plan = plan
        self._policy = deployment.get("BlueGreenUpdatePolicy") or deployment.get("RollingUpdatePolicy") or {}
        self._rolling = "RollingUpdatePolicy" in deployment
        self._alarms = [
            str(one["AlarmName"]) for one in (deployment.get("AutoRollbackConfiguration") or {}).get("Alarms") or ()
        ]
        self._looked = 0
        self._until = run.clock() + int(self._policy.get("MaximumExecutionTimeoutInSeconds") or _LONGEST) * MICROS

    async def through(self) -> None:
        """Until all calls go there, and have gone well for as long as was asked; raises Failed, and then the others answer
        all calls again."""
        serving = self._calls.engine(Serving)
        try:
            await self._check(first=True)
            for share in self._shares():
                await self._tell("ActivatingTraffic", f"{share:.0%} of the calls go to the new servers.", share)
                serving.shift(self._arn, self._run.id, share)
                await self._bake(self._interval(), share)
            await self._bake(int(self._policy.get("TerminationWaitInSeconds") or 0), 1.0)
        except BaseException:
            serving.shift(self._arn, self._run.id, 0.0)
            raise

    async def _bake(self, seconds: int, share: float) -> None:
        if seconds:
            watched = f"the alarms {', '.join(self._alarms)} are watched" if self._alarms else "no alarms are watched"
            await self._tell("Baking", f"For {seconds} s {watched}.", share)
        await self._wait(seconds)

    def _interval(self) -> int:
        if self._rolling:
            return int(self._policy.get("WaitIntervalInSeconds") or 0)
        return int((self._policy.get("TrafficRoutingConfiguration") or {}).get("WaitIntervalInSeconds") or 0)

    def _shares(self) -> Sequence[float]:
        """The shares of calls that go there, one after another."""
        count = sum(int(one.get("InitialInstanceCount") or 1) for one in self._plan["variants"])
        if self._rolling:
            step = _share(self._policy["MaximumBatchSize"], count)
        else:
            routing = self._policy.get("TrafficRoutingConfiguration") or {"Type": "ALL_AT_ONCE"}
            if routing["Type"] == "CANARY":
                return (_share(routing["CanarySize"], count), 1.0)
            if routing["Type"] == "ALL_AT_ONCE":
                return (1.0,)
            step = _share(routing["LinearStepSize"], count)
        steps = math.ceil(1.0 / step - 1e-9)
        return [min(1.0, step * number) for number in range(1, steps)] + [1.0]

    async def _wait(self, seconds: int) -> None:
        until = self._run.clock() + seconds * MICROS
        while self._run.clock() < until:
            await self._check()
            await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, (until - self._run.clock()) / MICROS)))
        if seconds:
            await self._check(first=True)

    async def _check(self, *, first: bool = False) -> None:
        now = self._run.clock()
        if now > self._until:
            raise Failed(
                "Endpoint", "The deployment was rolled back: it took longer than MaximumExecutionTimeoutInSeconds."
            )
        if not self._alarms or not (first or now - self._looked >= _ALARM_SECONDS):
            return
        self._looked = now
        where = {key: self._run.state[key] for key in ("account", "region")}
        variant = self._plan["variants"][0]
        model = MODEL.arn(where["account"], where["region"], variant["ModelName"])
        session = RoleSession(self._calls, variant["role"], **where, source_arn=model)
        try:
            told = await session.act("cloudwatch", "DescribeAlarms", {"AlarmNames": self._alarms})
        except Refused as refused:
            raise Failed(
                "Endpoint",
                "The deployment was rolled back: its alarms cannot be read with the role of the model "
                f"({refused.code}: {refused.message}).",
            ) from None
        found = {
            str(one["AlarmName"]): one.get("StateValue")
            for member in ("MetricAlarms", "CompositeAlarms")
            for one in told.get(member) or ()
        }
        for name in self._alarms:
            if name not in found:
                raise Failed("Endpoint", f"The deployment was rolled back: there is no alarm {name}.")
            if found[name] == "ALARM":
                raise Failed("Endpoint", f"The deployment was rolled back: the alarm {name} is in the state ALARM.")


def _share(size: dict[str, Any], count: int) -> float:
    """A CapacitySize as a share of calls."""
    value = int(size["Value"])
    share = value / 100 if size["Type"] == "CAPACITY_PERCENT" else value / max(1, count)
    return min(1.0, max(0.01, share))
