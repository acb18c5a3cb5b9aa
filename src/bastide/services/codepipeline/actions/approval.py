"""Approval actions: somebody is asked, and the execution waits for what they say.

Source: CodePipeline User Guide, "Manual approval action reference", "JSON data format for manual approval notifications".
"""

from __future__ import annotations

import json
from typing import Any

from bastide.domain import Refused, iso, new_id
from bastide.services.codepipeline.noun import JOB
from bastide.services.codepipeline.work import ActionFailed, Work, cause
from bastide.store import Row, Taken, Transaction


async def approve(work: Work) -> str:
    """Until somebody approves or rejects it."""
    if "token" not in work.record:
        token = new_id()
        await work.calls.store.write(lambda tx: _ask(tx, work, token))
        work.record["token"] = token
    if work.configuration.get("NotificationArn") and not work.record.get("notified"):
        await _notify(work)

    async def look() -> dict[str, Any] | None:
        record = work.row().doc["stages"][work.stage]["actions"][work.declared["name"]]
        found: dict[str, Any] | None = record.get("approval")
        return found

    told = await work.until(look)
    if told["status"] == "Rejected":
        raise ActionFailed("JobFailed", f"Rejected by {told['by']}: {told['summary']}")
    return str(told["summary"])


def _ask(tx: Transaction, work: Work, token: str) -> None:
    doc = {
        "account": work.account, "region": work.region, "pipeline": work.pipeline, "execution": work.execution,
        "stage": work.stage, "action": work.declared["name"], "id": work.id, "kind": "approval",
    }  # fmt: skip
    try:
        tx.insert(Row(JOB, "", "", token, doc), keep=False)
    except Taken:
        return
    work.noted(tx, {"token": token, "ticket": token})


async def _notify(work: Work) -> None:
    given = work.configuration
    topic = work.arn_in(given["NotificationArn"])
    approval = {
        "pipelineName": work.pipeline,
        "stageName": work.stage,
        "actionName": work.declared["name"],
        "token": work.record["token"],
        "expires": f"{iso(work.ends)[:16]}Z",
        "externalEntityLink": given.get("ExternalEntityLink"),
        "customData": given.get("CustomData"),
    }
    message = {
        "region": work.region,
        "approval": {key: value for key, value in approval.items() if value is not None},
    }
    subject = f"APPROVAL NEEDED: AWS CodePipeline {work.pipeline} for action {work.declared['name']}"
    asked = {"TopicArn": str(topic), "Subject": subject[:100], "Message": json.dumps(message)}
    try:
        await work.begin("sns", "Publish", asked, lambda _: {"notified": True})
    except Refused as refused:
        raise cause(refused, f"The notification to {topic} cannot be sent") from None
