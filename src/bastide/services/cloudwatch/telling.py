"""Actions of alarms that tell somebody: topics and functions.

Source: CloudWatch User Guide, "Notifying users on alarm changes", "Lambda alarm actions"; SNS Developer Guide, "Example
cases for access control" (the owner's services may publish under the default policy, by ``aws:SourceOwner``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Arn, Instant, Refused, iso
from bastide.kernel import Calls, service_caller
from bastide.kernel.deliveries import Deliveries
from bastide.kernel.outbox import Outbox
from bastide.services.cloudwatch.alarm import ALARM
from bastide.services.cloudwatch.state import ACTION
from bastide.store import Transaction

_log = logging.getLogger("bastide.cloudwatch")
_KIND: Final = "cloudwatch:Telling"
_TOPICS: Final = "cloudwatch.amazonaws.com"
_FUNCTIONS: Final = "lambda.alarms.cloudwatch.amazonaws.com"
_MOST_ATTEMPTS: Final = 10
_FINAL: Final = ("AuthorizationError", "AccessDenied", "NotFound", "ResourceNotFound", "Invalid", "KMS")
_REGIONS: Final = {
    "us-east-1": "US East (N. Virginia)", "us-east-2": "US East (Ohio)", "us-west-2": "US West (Oregon)",
    "eu-central-1": "EU (Frankfurt)", "eu-west-1": "EU (Ireland)", "ap-southeast-2": "Asia Pacific (Sydney)",
}  # fmt: skip


class Telling:
    """Tells topics and functions what alarms ask them to be told."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._deliveries = Deliveries(calls, _KIND, self._attempt, self._pause, self._give_up)

    def subscribe(self, outbox: Outbox) -> None:
        """Hears what alarms ask for."""
        outbox.subscribe(ACTION, self._heard)

    def start(self) -> None:
        """Tells from now on, with what an earlier run left."""
        self._deliveries.start()

    async def close(self) -> None:
        """Ends; what is not told waits for the next start."""
        await self._deliveries.close()

    async def _heard(self, body: dict[str, Any]) -> None:
        if Arn.parse(body["action"]).service not in ("sns", "lambda"):
            return

        def work(tx: Transaction) -> Any:
            row = ALARM.get(tx, body["account"], body["region"], body["name"])
            doc = {**body, "configuration": _shown(row.doc) if row is not None else {}}
            return self._deliveries.put(tx, f"{body['at']:020d}/{body['alarm']}/{body['action']}", doc)

        self._deliveries.wake([await self._calls.store.write(work)])

    async def _attempt(self, doc: dict[str, Any]) -> None:
        action = Arn.parse(doc["action"])
        if action.service == "sns":
            subject = f'{doc["state"]}: "{doc["name"]}" in {_REGIONS.get(doc["region"], doc["region"])}'
            given: dict[str, Any] = {
                "TopicArn": doc["action"], "Subject": subject.encode("ascii", "replace").decode()[:100],
                "Message": orjson.dumps(message(doc)).decode(),
            }  # fmt: skip
            await self._act(_TOPICS, "sns", "Publish", given, doc)
            return
        given = {"FunctionName": doc["action"], "InvocationType": "Event", "Payload": orjson.dumps(_event(doc))}
        await self._act(_FUNCTIONS, "lambda", "Invoke", given, doc)

    async def _act(self, who: str, service: str, operation: str, given: dict[str, Any], doc: dict[str, Any]) -> None:
        if (service, operation) not in self._calls.registry.operations:
            raise Refused("ResourceNotFound", f"There is no {service}.")
        await self._calls.act(
            service_caller(who, doc["account"], doc["alarm"]), service, operation, given, region=doc["region"],
            source=who, context={"aws:sourceowner": doc["account"]},
        )  # fmt: skip

    def _pause(self, doc: dict[str, Any], refused: Refused, _: Instant) -> float | None:
        if refused.code.startswith(_FINAL) or doc["attempts"] >= _MOST_ATTEMPTS:
            return None
        return float(2 ** doc["attempts"])

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        _log.warning("the alarm %s could not tell %s: %s", doc["alarm"], doc["action"], refused)


def _shown(doc: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in doc.items() if name[0] != "_" and not name.startswith("State")}


def _stamp(at: Instant) -> str:
    return f"{iso(at, fraction=True)[:-4]}+0000"


def _named(statistic: str) -> str:
    return "SAMPLE_COUNT" if statistic == "SampleCount" else statistic.upper()


def message(doc: Mapping[str, Any]) -> dict[str, Any]:
    """What a topic is told."""
    held = doc["configuration"]
    told: dict[str, Any] = {
        "AlarmName": doc["name"], "AlarmDescription": held.get("AlarmDescription"), "AWSAccountId": doc["account"],
        "AlarmConfigurationUpdatedTimestamp": _stamp(held.get("AlarmConfigurationUpdatedTimestamp") or doc["at"]),
        "NewStateValue": doc["state"], "NewStateReason": doc["reason"], "StateChangeTime": _stamp(doc["at"]),
        "Region": _REGIONS.get(doc["region"], doc["region"]), "AlarmArn": doc["alarm"], "OldStateValue": doc["previous"],
        **{name: held.get(name) or [] for name in ("OKActions", "AlarmActions", "InsufficientDataActions")},
    }  # fmt: skip
    if "AlarmRule" in held:
        return told | {"AlarmRule": held["AlarmRule"]}
    members = ("MetricName", "Namespace", "Unit", "Period", "EvaluationPeriods", "DatapointsToAlarm", "ComparisonOperator",
               "Threshold", "TreatMissingData", "EvaluateLowSampleCountPercentile", "Metrics")  # fmt: skip
    trigger = {name: held[name] for name in members if name in held}
    if "MetricName" in held:
        plain = "Statistic" in held
        trigger["StatisticType"] = "Statistic" if plain else "ExtendedStatistic"
        trigger["Statistic"] = _named(held["Statistic"]) if plain else held.get("ExtendedStatistic")
        trigger.setdefault("EvaluateLowSampleCountPercentile", "")
        trigger.setdefault("Unit", None)
        pairs = held.get("Dimensions") or []
        trigger["Dimensions"] = [{"value": one["Value"], "name": one["Name"]} for one in pairs]
    return told | {"Trigger": trigger}


def _event(doc: Mapping[str, Any]) -> dict[str, Any]:
    """What a function is told."""
    state = {"value": doc["state"], "reason": doc["reason"], "timestamp": _stamp(doc["at"])}
    return {
        "source": "aws.cloudwatch", "alarmArn": doc["alarm"], "accountId": doc["account"], "time": _stamp(doc["at"]),
        "region": doc["region"],
        "alarmData": {
            "alarmName": doc["name"], "state": state, "previousState": {"value": doc["previous"]},
            "configuration": {"description": doc["configuration"].get("AlarmDescription")},
        },
    }  # fmt: skip
