"""Step scaling policies follow their alarms: once when an alarm changes its state, and each minute that it stays there.

Source: Application Auto Scaling User Guide, "Step scaling policies overview", "Cooldown period"; CloudWatch User Guide,
"Alarm actions" (scaling actions are invoked again each minute).
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Caller, Calls
from bastide.services.application_autoscaling import step
from bastide.services.application_autoscaling.activity import remember
from bastide.services.application_autoscaling.policy import ACTIONS, POLICY, STEPS, alarms
from bastide.services.application_autoscaling.target import PRINCIPAL
from bastide.store import Row, Transaction

_AGAIN: Final = 60 * MICROS
_BEYOND: Final = 2
_MOST_POLICIES: Final = 1000


class Stepping:
    """What step scaling policies ask for."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def heard(self, event: dict[str, Any]) -> None:
        """Notes on the policy what an alarm asks for: on the disk before the alarm's event is forgotten. Twice is once."""
        arn, at = event["action"], event["at"]

        def work(tx: Transaction) -> None:
            for row in tx.scan(POLICY.key, event["account"], event["region"], limit=_MOST_POLICIES):
                if row.doc["PolicyARN"] != arn or row.doc["PolicyType"] != STEPS:
                    continue
                known = row.doc.setdefault("_heard", {})
                if known.get(event["name"], 0) < at:
                    known[event["name"]] = at
                    row.doc.setdefault("_asked", {})[event["name"]] = event["state"]
                    tx.update(row, event="Asked", keep=False)

        await self._calls.store.write(work)

    async def follow(self, target: Row, policy: Row, current: int, caller: Caller) -> tuple[int, str] | None:
        """How many instances the policy wants now, and why; None if nothing else than there are."""
        now = self._calls.clock()
        asked: dict[str, str] = dict(policy.doc.get("_asked") or {})
        with self._calls.store.reading() as view:
            found = {one.name: one for one in alarms(view, policy)}
        heard: dict[str, int] = dict(policy.doc.get("_heard") or {})
        due = {name: state for name, state in asked.items() if name in found}
        for name, alarm in found.items():
            acts = alarm.doc["ActionsEnabled"] and policy.doc["PolicyARN"] in (
                alarm.doc.get(ACTIONS[alarm.status]) or ()
            )
            if acts and name in heard and now - heard[name] >= _AGAIN:
                due.setdefault(name, alarm.status)
        if not due and not asked:
            return None
        wanted: tuple[int, str] | None = None
        told: dict[str, Any] | None = None
        last = policy.doc.get("_last") or {}
        for name, state in due.items():
            heard[name] = max(now, heard.get(name, 0))
            beyond = await self._beyond(found[name], policy, now, caller)
            why = f"monitor alarm {name} in state {state} triggered policy {policy.doc['PolicyName']}"
            capacity, reason = self._capacity(target, policy, current, beyond, last, now)
            if capacity is not None and (wanted is None or capacity > wanted[0]):
                wanted = (capacity, why)
            elif capacity is None and reason and name in asked:
                told = {"Cause": why, "NotScaledReasons": [{"Code": reason, **_bounds_of(target, reason, current)}]}
        await self._note(target, policy, asked, heard, (wanted[0], current) if wanted else None, told, now)
        return wanted

    async def _beyond(self, alarm: Row, policy: Row, now: Instant, caller: Caller) -> float | None:
        """How far the alarm's metric is from its threshold, as the service's role may read it; None if nobody knows."""
        doc = alarm.doc
        if "Threshold" not in doc:
            return None
        if "Metrics" in doc:
            queries = doc["Metrics"]
            period = max(int(one["MetricStat"]["Period"]) for one in queries if one.get("MetricStat"))
        else:
            metric = {key: doc[key] for key in ("Namespace", "MetricName", "Dimensions") if doc.get(key)}
            period = int(doc["Period"])
            stat = {"Metric": metric, "Period": period, "Stat": doc.get("Statistic") or doc["ExtendedStatistic"]}
            if doc.get("Unit"):
                stat["Unit"] = doc["Unit"]
            queries = [{"Id": "m", "MetricStat": stat}]
        periods = int(doc["EvaluationPeriods"])
        end = now // (period * MICROS) * period * MICROS
        asked = {"MetricDataQueries": queries, "EndTime": end, "StartTime": end - (periods + _BEYOND) * period * MICROS}
        try:
            told = await self._calls.act(
                caller, "cloudwatch", "GetMetricData", asked, region=alarm.region, source=PRINCIPAL
            )
        except Refused:
            return None
        values = [value for one in told["MetricDataResults"] for value in one["Values"]][:periods]
        if not values:
            return None
        return step.aggregated(policy.doc["StepScalingPolicyConfiguration"], values) - float(doc["Threshold"])

    @staticmethod
    def _capacity(
        target: Row, policy: Row, current: int, beyond: float | None, last: dict[str, Any], now: Instant
    ) -> tuple[int | None, str]:
        """The capacity to go to, or None and the code of the reason why not, if there is one to tell."""
        config = policy.doc["StepScalingPolicyConfiguration"]
        if beyond is None:
            return None, ""
        cooling = bool(last) and now - last["at"] < int(config.get("Cooldown", step.COOLDOWN)) * MICROS
        least, most = int(target.doc["MinCapacity"]), int(target.doc["MaxCapacity"])
        wanted = step.adjusted(config, current, beyond)
        if wanted is None:
            return None, ""
        if cooling and wanted > current and last["to"] > last["from"]:
            # What the last step out added counts as part of this one, while it cools down.
            wanted = max(current, step.adjusted(config, int(last["from"]), beyond) or 0)
            if wanted == current:
                return None, ""
        suspended = target.doc["SuspendedState"]
        bounded = min(most, max(least, wanted))
        if bounded > current:
            return (None, "") if suspended["DynamicScalingOutSuspended"] else (bounded, "")
        if bounded < current:
            cooling = cooling and last["to"] < last["from"]
            return (None, "") if cooling or suspended["DynamicScalingInSuspended"] else (bounded, "")
        if wanted > most:
            return None, "AlreadyAtMaxCapacity"
        return None, "AlreadyAtMinCapacity" if wanted < least else "AlreadyAtDesiredCapacity"

    async def _note(
        self,
        target: Row,
        policy: Row,
        asked: dict[str, str],
        heard: dict[str, int],
        moved: tuple[int, int] | None,
        told: dict[str, Any] | None,
        now: Instant,
    ) -> None:
        def work(tx: Transaction) -> None:
            row = POLICY.get(tx, policy.account, policy.region, policy.name)
            if row is None:
                return
            known = row.doc.setdefault("_heard", {})
            for name, at in heard.items():
                if known.get(name, 0) > at:
                    continue  # it was asked for anew meanwhile
                known[name] = at
                row.doc.get("_asked", {}).pop(name, None)
            for name in set(asked) - set(heard):
                row.doc.get("_asked", {}).pop(name, None)
            if moved is not None:
                row.doc["_last"] = {"at": now, "to": moved[0], "from": moved[1]}
            tx.update(row, event="Followed", keep=False)
            if told is not None and moved is None:
                activity = {
                    "ActivityId": str(uuid.uuid4()),
                    "Description": "Attempting to scale due to alarm triggered",
                    "StartTime": now,
                    "EndTime": now,
                    "StatusCode": "NotScaled",
                    **told,
                }
                remember(tx, target, activity)

        await self._calls.store.write(work)


def _bounds_of(target: Row, reason: str, current: int) -> dict[str, int]:
    bound = {"AlreadyAtMaxCapacity": "MaxCapacity", "AlreadyAtMinCapacity": "MinCapacity"}.get(reason)
    return {"CurrentCapacity": current, **({bound: int(target.doc[bound])} if bound else {})}
