"""The loop that looks after all scalable targets: it compares their load with what it is to be, and changes their counts.

It acts with the service-linked role of the target's account, so the record shows who scaled. A minute in which more came
in than the target allows counts at once, without waiting for three of them; a variant shrinks after fifteen minutes that
were all below nine tenths of the target, as on AWS. Source: User Guide, "Target tracking scaling policies".
"""

from __future__ import annotations

import math
import uuid
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Caller, Calls, Rounds
from bastide.services.application_autoscaling.activity import end, remember
from bastide.services.application_autoscaling.policy import POLICY, STEPS, TRACKING
from bastide.services.application_autoscaling.schedule import ACTION, following
from bastide.services.application_autoscaling.stepping import Stepping
from bastide.services.application_autoscaling.target import PRINCIPAL, REGISTERED, TARGET, check
from bastide.store import Row, Transaction

_LOOK_SECONDS: Final = 2.0
_MINUTE: Final = 60 * MICROS
_QUIET_MINUTES: Final = 15
_BELOW: Final = 0.9
_COOLDOWN: Final = 300
_METRICS: Final = "AWS/SageMaker"


class Scaler(Rounds):
    """One a platform. Needs the engine Meter."""

    seconds = _LOOK_SECONDS

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._callers: dict[str, Caller] = {}
        self._steps = Stepping(calls)

    async def heard(self, event: dict[str, Any]) -> None:
        """An alarm asks for an action; see `cloudwatch.state.ACTION`."""
        await self._steps.heard(event)

    async def round(self) -> None:
        """See the base."""
        await self.each(REGISTERED, self._look)

    async def _look(self, target: str) -> None:
        account, region, name = target.split("/")
        now = self._calls.clock()
        with self._calls.store.reading() as view:
            row = TARGET.get(view, account, region, name)
            if row is None:
                return
            hanging = {
                kind.name: [
                    one for one in view.scan(kind.key, account, region, limit=1000) if one.name.startswith(f"{name}/")
                ]
                for kind in (POLICY, ACTION)
            }
            endpoint, variant = check(row.doc)
            found = view.get("sagemaker:Endpoint", account, region, endpoint)
        shapes = (found.doc.get("ProductionVariants") or ()) if found is not None else ()
        shape = next((one for one in shapes if one["VariantName"] == variant), None)
        if found is None or found.status != "InService" or shape is None or "CurrentInstanceCount" not in shape:
            return
        if not row.doc["SuspendedState"]["ScheduledScalingSuspended"]:
            for action in hanging["ScheduledAction"]:
                if action.doc["_due"] is not None and action.doc["_due"] <= now:
                    await self._bounds(action, row, now)
        current = int(shape["CurrentInstanceCount"])
        if row.doc.get("_activity"):
            await self._ended(row, current, str(found.doc.get("FailureReason") or ""))
        kinds: dict[str, list[Row]] = {TRACKING: [], STEPS: []}
        for policy in hanging["ScalingPolicy"]:
            kinds[policy.doc["PolicyType"]].append(policy)
        wanted, why = self._wanted(row, kinds[TRACKING], current, now)
        for policy in kinds[STEPS]:
            stepped = await self._steps.follow(row, policy, current, await self._caller(row))
            # The larger of several capacities counts, as for several tracking policies; a step down waits for its turn.
            if stepped is not None and (wanted == current or stepped[0] > wanted):
                wanted, why = stepped
        if wanted != current:
            await self._scale(row, current, wanted, why)

    async def _ended(self, target: Row, current: int, failure: str) -> None:
        """The endpoint is in service again: what was begun is done, or is not."""
        held = target.doc["_activity"]
        if current == held["wanted"]:
            status, message = "Successful", f"{_set(current)} Change successfully fulfilled by sagemaker."
        else:
            status, message = "Failed", f"{_set(held['wanted'])} The endpoint has {current}: {failure or 'it changed'}"

        def work(tx: Transaction) -> None:
            row = TARGET.get(tx, target.account, target.region, target.name)
            if row is not None and (row.doc.get("_activity") or {}).get("name") == held["name"]:
                del row.doc["_activity"]
                tx.update(row, event="Scaled", keep=False)
                end(tx, row, held["name"], status, message)

        await self._calls.store.write(work)

    async def _bounds(self, action: Row, target: Row, now: Instant) -> None:
        """Gives the target the bounds of a scheduled action."""

        def work(tx: Transaction) -> None:
            held = ACTION.get(tx, action.account, action.region, action.name)
            row = TARGET.get(tx, target.account, target.region, target.name)
            if held is None or row is None or held.doc["_due"] != action.doc["_due"]:
                return
            row.doc |= held.doc["ScalableTargetAction"]
            # A bound alone moves the other with it.
            if row.doc["MinCapacity"] > row.doc["MaxCapacity"]:
                other = "MaxCapacity" if "MinCapacity" in held.doc["ScalableTargetAction"] else "MinCapacity"
                row.doc[other] = row.doc["MinCapacity" if other == "MaxCapacity" else "MaxCapacity"]
            held.doc["_due"] = following(held.doc, now)
            tx.update(held, event="Scheduled", keep=False)
            TARGET.change(tx, row, "ScheduledAction")
            target.doc.update(row.doc)

        await self._calls.store.write(work)

    def _wanted(self, target: Row, policies: list[Row], current: int, now: Instant) -> tuple[int, str]:
        """How many instances there should be, and why."""
        doc = target.doc
        least, most = int(doc["MinCapacity"]), int(doc["MaxCapacity"])
        if not least <= current <= most:
            bound = "minimum" if current < least else "maximum"
            return min(most, max(least, current)), f"{bound} capacity was set to {least if current < least else most}"
        endpoint, variant = check(doc)
        outs: list[tuple[int, str]] = []
        ins: list[int] = []
        for policy in policies:
            config = policy.doc["TargetTrackingScalingPolicyConfiguration"]
            value = float(config["TargetValue"])
            sums = self._sums(target, (("EndpointName", endpoint), ("VariantName", variant)), now)
            this = now // _MINUTE
            load = max((total for minute, total in sums.items() if minute >= this - 1), default=0.0)
            name = policy.doc["PolicyName"]
            last_out = int(doc.get("_out") or 0)
            if load > value:
                cooldown = int(config.get("ScaleOutCooldown", _COOLDOWN)) * MICROS
                # What came in before the last change was an answer to other servers.
                if now - last_out >= max(cooldown, _MINUTE):
                    why = f"{load:.0f} invocations per instance and minute are more than {value:g} (policy {name})"
                    outs.append((math.ceil(current * load / value), why))
                else:
                    outs.append((current, ""))
                continue
            if config.get("DisableScaleIn"):
                ins.append(current)
                continue
            cooldown = int(config.get("ScaleInCooldown", _COOLDOWN)) * MICROS
            last = max(last_out, int(doc.get("_in") or 0), target.created)
            quiet = now - last >= max(cooldown, _QUIET_MINUTES * _MINUTE)
            highest = max(sums.values(), default=0.0)
            fewer = max(1, math.ceil(current * highest / value))
            ins.append(fewer if quiet and highest < _BELOW * value else current)
        suspended = doc["SuspendedState"]
        if outs and not suspended["DynamicScalingOutSuspended"]:
            wanted, why = max(outs)
            return min(most, max(current, wanted)), why
        if ins and not outs and not suspended["DynamicScalingInSuspended"]:
            return max(least, min(current, max(ins))), "the load was low for fifteen minutes"
        return current, ""

    def _sums(self, target: Row, dimensions: Dimensions, now: Instant) -> dict[int, float]:
        """The load of an instance in the last quarter of an hour and the minute that runs: by minute since 1970."""
        end = now // _MINUTE + 1
        told = self._calls.engine(Meter).read(
            target.account,
            target.region,
            _METRICS,
            dimensions,
            "InvocationsPerInstance",
            (end - 1 - _QUIET_MINUTES) * 60,
            end * 60,
            60,
        )
        return {at // 60: summary.total for periods in told.values() for at, summary in periods.items()}

    async def _scale(self, target: Row, current: int, wanted: int, why: str) -> None:
        account, region = target.account, target.region
        endpoint, variant = check(target.doc)
        began = self._calls.clock()
        desired = [{"VariantName": variant, "DesiredInstanceCount": wanted}]
        status, message = "InProgress", f"{_set(wanted)} Waiting for change to be fulfilled by sagemaker."
        try:
            caller = await self._caller(target)
            asked = {"EndpointName": endpoint, "DesiredWeightsAndCapacities": desired}
            operation = "UpdateEndpointWeightsAndCapacities"
            await self._calls.act(caller, "sagemaker", operation, asked, region=region, source=PRINCIPAL)
        except Refused as refused:
            status, message = (
                "Failed",
                f"Failed to set desired instance count to {wanted}. Reason: {refused.message}"[:1000],
            )
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "Description": f"Setting desired instance count to {wanted}.",
            "Cause": why[:1000],
            "StartTime": began,
            "StatusCode": status,
            "StatusMessage": message,
        }
        if status == "Failed":
            activity["EndTime"] = self._calls.clock()

        def work(tx: Transaction) -> None:
            row = TARGET.get(tx, account, region, target.name)
            if row is None:
                return
            name = remember(tx, row, activity)
            if status != "Failed":
                row.doc["_activity"] = {"name": name, "wanted": wanted}
            row.doc["_out" if wanted > current else "_in"] = began
            tx.update(row, event="Scaled", keep=False)

        await self._calls.store.write(work)

    async def _caller(self, target: Row) -> Caller:
        held = self._callers.get(target.account)
        if held is None or held.session is None or held.session.expires - 10 * _MINUTE < self._calls.clock():
            held = await self._calls.assume(
                PRINCIPAL,
                target.doc["RoleARN"],
                "AutoScaling-UpdateDesiredCapacity",
                account=target.account,
                region=target.region,
                source_arn=target.doc["ScalableTargetARN"],
            )
            self._callers[target.account] = held
        return held


def _set(count: int) -> str:
    return f"Successfully set desired instance count to {count}."
