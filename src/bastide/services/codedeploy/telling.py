"""What deployments tell: events for EventBridge, and messages to the topics of their group's triggers.

Source: CodeDeploy User Guide, "Monitoring deployments with Amazon CloudWatch Events", "JSON data formats for CodeDeploy
triggers".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant
from bastide.kernel.happened import tell
from bastide.services.codedeploy.noun import APPLICATION, GROUP
from bastide.store import Row, Transaction

_MOST: Final = 20
_WORDS: Final = {
    "DeploymentStart": "CREATED", "DeploymentSuccess": "SUCCEEDED", "DeploymentFailure": "FAILED",
    "DeploymentStop": "STOPPED", "DeploymentRollback": "ROLLBACK",
}  # fmt: skip


def state(tx: Transaction, row: Row, what: str) -> None:
    """A deployment's new state: Start, Success, Failure, Stop."""
    doc = row.doc
    first, name = doc["applicationName"], doc["deploymentGroupName"]
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.codedeploy",
        detail_type="CodeDeploy Deployment State-change Notification",
        resources=[
            APPLICATION.arn(row.account, row.region, first),
            GROUP.arn(row.account, row.region, f"{first}/{name}"),
        ],
        detail={
            "region": row.region, "deploymentId": row.name, "instanceGroupId": doc["_within"], "deploymentGroup": name,
            "state": what.upper(), "application": first,
        },
    )  # fmt: skip
    trigger(tx, row, f"Deployment{what}")


def trigger(tx: Transaction, row: Row, event: str) -> None:
    """Keeps what is to be published to the topics whose trigger wants this event; whoever calls writes the row."""
    doc = row.doc
    for one in doc["_triggers"]:
        if event in one["triggerEvents"]:
            told = {"topic": one["triggerTargetArn"], "name": one["triggerName"], "event": event, "at": tx.now}
            doc["_untold"] = [*doc["_untold"], told][-_MOST:]


def _time(at: Instant | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at / MICROS, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")


def message(row: Row, told: dict[str, Any]) -> dict[str, str]:
    """A trigger's message as SNS publishes it."""
    doc, status = row.doc, _WORDS[told["event"]]
    body = {
        "region": row.region, "accountId": row.account, "eventTriggerName": told["name"],
        "applicationName": doc["applicationName"], "deploymentId": row.name,
        "deploymentGroupName": doc["deploymentGroupName"], "createTime": _time(doc["createTime"]),
        "completeTime": _time(doc.get("completeTime")), "status": status,
    }  # fmt: skip
    if doc.get("rollbackInfo"):
        body["rollbackInformation"] = orjson.dumps(doc["rollbackInfo"]).decode()
    if doc.get("errorInformation"):
        error = doc["errorInformation"]
        body["errorInformation"] = orjson.dumps({"ErrorCode": error["code"], "ErrorMessage": error["message"]}).decode()
    subject = f"{status}: AWS CodeDeploy {row.name} in {row.region} to {doc['applicationName']}"
    text = orjson.dumps({key: one for key, one in body.items() if one is not None}).decode()
    return {"TopicArn": told["topic"], "Subject": subject[:100], "Message": text}
