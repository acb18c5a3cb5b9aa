"""Deployments: asked for, stopped, shown, and told by functions how a check went.

What happens to one by itself: `deployer`. Source: CodeDeploy API Reference, "CreateDeployment", "StopDeployment",
"GetDeploymentTarget", "PutLifecycleEventHookExecutionStatus".
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Final

from bastide.domain import Instant
from bastide.kernel import Authorised, Output
from bastide.services.codedeploy import group as groups_
from bastide.services.codedeploy import telling
from bastide.services.codedeploy.application import register
from bastide.services.codedeploy.appspec import EVENTS, back, content, located, read
from bastide.services.codedeploy.config import DEFAULT, routing
from bastide.services.codedeploy.noun import (
    DEPLOYMENT,
    GROUP,
    OVER,
    PLATFORM,
    RUNNING,
    Doc,
    ask,
    deployment,
    group,
    groups,
    invalid,
    listed,
    of_deployments,
    unsupported,
)
from bastide.store import Row, Transaction, View

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_CREATORS: Final = {"cloudformation.amazonaws.com": "CloudFormation"}
_SHOWN: Final = (
    "applicationName", "deploymentGroupName", "deploymentConfigName", "previousRevision", "revision", "errorInformation",
    "createTime", "startTime", "completeTime", "description", "creator", "autoRollbackConfiguration", "rollbackInfo",
    "overrideAlarmConfiguration",
)  # fmt: skip


def where(row: Row) -> str:
    """The name of the row that has a deployment looked at."""
    return f"{row.account}/{row.region}/{row.name}"


# -- begun and ended -----------------------------------------------------------------------------------------------------


def begin(tx: Transaction, within: Row, doc: Doc, *, event: str, request: str = "") -> Row:
    """A new deployment of a group."""
    id = "d-" + "".join(secrets.choice(_ALPHABET) for _ in range(9))
    first, _, name = within.name.partition("/")
    doc = {
        "applicationName": first, "deploymentGroupName": name, "createTime": tx.now, "_role": within.doc["serviceRoleArn"],
        "_triggers": within.doc["triggerConfigurations"], "_phase": "begin", "_share": 0, "_untold": [],
        "_events": {one: {"status": "Pending"} for one in EVENTS}, "_hook": None, "_within": within.doc["id"],
        **({"previousRevision": within.doc["_revision"]} if within.doc.get("_revision") else {}), **doc,
    }  # fmt: skip
    row = Row(DEPLOYMENT.key, within.account, within.region, id, doc, "Created")
    DEPLOYMENT.insert(tx, row, event, request)
    tx.insert(Row(RUNNING, "", "", where(row), {}), keep=False)
    register(tx, row, doc["revision"], used=name)
    groups_.attempted(tx, row)
    return row


def end(tx: Transaction, row: Row, status: str, code: str = "", message: str = "", *, back_by: str = "") -> Row | None:
    """Ends a deployment; what takes it back, if that is wanted. back_by: the event of autoRollbackConfiguration that this
    is, or ``always``."""
    doc = row.doc
    row.status, doc["completeTime"], doc["_hook"] = status, tx.now, None
    if code:
        doc["errorInformation"] = {"code": code, "message": message[:2000]}
    for one in doc["_events"].values():
        if one["status"] == "InProgress":
            one |= {"status": "Succeeded" if status == "Succeeded" else "Failed", "end": tx.now}
        elif one["status"] == "Pending":
            one["status"] = "Skipped"
    telling.state(tx, row, {"Succeeded": "Success", "Failed": "Failure", "Stopped": "Stop"}[status])
    groups_.attempted(tx, row)
    taken = _taken_back(tx, row, back_by) if back_by else None
    DEPLOYMENT.change(tx, row, f"Deployment{status}")
    return taken


def _taken_back(tx: Transaction, row: Row, by: str) -> Row | None:
    """The deployment that takes another back, None where nobody wants that or nothing can be."""
    doc, automatic = row.doc, row.doc["autoRollbackConfiguration"]
    if doc.get("creator") == "codeDeployRollback" or not doc.get("_spec"):
        return None
    if by != "always" and not (automatic["enabled"] and by in automatic["events"]):
        return None
    within = GROUP.get(tx, row.account, row.region, f"{doc['applicationName']}/{doc['deploymentGroupName']}")
    if within is None:
        return None
    message = f"Deployment {row.name} is taken back: {doc['errorInformation']['message']}"[:1000]
    told = {"rollbackTriggeringDeploymentId": row.name, "rollbackMessage": message}
    revision = located({"revisionType": "AppSpecContent", "appSpecContent": {"content": back(doc["_spec"])}})
    made = begin(
        tx, within,
        {
            "deploymentConfigName": DEFAULT, "revision": revision, "creator": "codeDeployRollback",
            "description": message[:256], "autoRollbackConfiguration": {"enabled": False, "events": []},
            "_alarms": groups_.alarms(None), "_routing": {"type": "AllAtOnce"}, "rollbackInfo": told,
        },
        event="Rollback",
    )  # fmt: skip
    doc["rollbackInfo"] = {**told, "rollbackDeploymentId": made.name}
    telling.trigger(tx, row, "DeploymentRollback")
    return made


@DEPLOYMENT.operation("CreateDeployment", asks=ask("CreateDeployment", groups()))
def create(a: Authorised, tx: Transaction) -> Output:
    given, within = a.input, group(a, tx)
    unsupported(
        given, "InvalidInput", "targetInstances", "ignoreApplicationStopFailures", "updateOutdatedInstancesOnly",
        "ec2DeploymentOptions",
    )  # fmt: skip
    if given.get("fileExistsBehavior") not in (None, "DISALLOW") or given.get("deploymentMode") not in (
        None,
        "STANDARD",
    ):
        raise invalid("InvalidInput", "fileExistsBehavior and deploymentMode are not for the compute platform Lambda.")
    last = within.doc.get("_attempted")
    held = DEPLOYMENT.get(tx, a.account, a.region, last["deploymentId"]) if last else None
    if held is not None and held.status not in OVER:
        name = within.name.partition("/")[2]
        raise invalid(
            "DeploymentLimitExceeded", f"The Deployment Group '{name}' already has an active Deployment '{held.name}'"
        )
    revision = located(given.get("revision"))
    text = content(revision)
    spec = read(text) if text is not None else None
    config = given.get("deploymentConfigName") or within.doc["deploymentConfigName"]
    doc: Doc = {
        "deploymentConfigName": config, "revision": revision,
        "creator": _CREATORS.get(a.request.source_ip, "user"),
        "autoRollbackConfiguration": groups_.rollback(
            given.get("autoRollbackConfiguration") or within.doc["autoRollbackConfiguration"]
        ),
        "_alarms": groups_.alarms(given.get("overrideAlarmConfiguration") or within.doc["alarmConfiguration"]),
        "_routing": routing(tx, a.account, a.region, config),
    }  # fmt: skip
    if spec is not None:
        doc["_spec"] = spec
    if given.get("overrideAlarmConfiguration"):
        doc["overrideAlarmConfiguration"] = doc["_alarms"]
    if given.get("description"):
        doc["description"] = given["description"]
    return {"deploymentId": begin(tx, within, doc, event=a.operation.name, request=a.request.id).name}


@DEPLOYMENT.operation("StopDeployment", asks=ask("StopDeployment", of_deployments("deploymentId")))
def stop(a: Authorised, tx: Transaction) -> Output:
    row = deployment(a, tx)
    if row.status in OVER:
        raise invalid("DeploymentAlreadyCompleted", f"The deployment {row.name} has already completed.")
    wanted = a.input.get("autoRollbackEnabled")
    by = "always" if wanted else "DEPLOYMENT_STOP_ON_REQUEST" if wanted is None else ""
    end(tx, row, "Stopped", "MANUAL_STOP", "The deployment was stopped by somebody who asked for it.", back_by=by)
    return {"status": "Succeeded", "statusMessage": "No more commands will be scheduled for execution."}


# -- what functions say --------------------------------------------------------------------------------------------------


@DEPLOYMENT.operation(
    "PutLifecycleEventHookExecutionStatus",
    asks=ask("PutLifecycleEventHookExecutionStatus", of_deployments("deploymentId")),
)
def put_hook(a: Authorised, tx: Transaction) -> Output:
    row, status = deployment(a, tx), a.input.get("status")
    given = str(a.input.get("lifecycleEventHookExecutionId") or "")
    if status not in ("Succeeded", "Failed"):
        raise invalid("InvalidLifecycleEventHookExecutionStatus", "The status of a check is Succeeded or Failed.")
    name = next((one for one, id in (row.doc.get("_hooks") or {}).items() if hmac.compare_digest(id, given)), None)
    if name is None:
        raise invalid("InvalidLifecycleEventHookExecutionId", "No check of this deployment has this id.")
    event = row.doc["_events"][name]
    if row.status in OVER or event["status"] != "InProgress":
        raise invalid("LifecycleEventAlreadyCompleted", f"{name} of {row.name} is over: {event['status']}.")
    event |= {"status": status, "end": tx.now}
    DEPLOYMENT.change(tx, row, a.operation.name, a.request.id)
    return {"lifecycleEventHookExecutionId": given}


# -- shown ---------------------------------------------------------------------------------------------------------------


def shown(row: Row) -> Output:
    """A deployment."""
    doc = row.doc
    counts = dict.fromkeys(("Pending", "InProgress", "Succeeded", "Failed", "Skipped", "Ready"), 0)
    counts[_target_status(row)] += 1
    return {
        "deploymentId": row.name, "status": row.status, "computePlatform": PLATFORM,
        "deploymentStyle": groups_.STYLE, "deploymentOverview": counts,
        **{member: doc[member] for member in _SHOWN if doc.get(member) is not None},
    }  # fmt: skip


def _target_status(row: Row) -> str:
    return {"Created": "Pending", "Stopped": "Skipped" if not row.doc["_share"] else "Failed"}.get(
        row.status, row.status
    )


@DEPLOYMENT.reads("GetDeployment", asks=ask("GetDeployment", of_deployments("deploymentId")))
def get(a: Authorised, view: View) -> Output:
    return {"deploymentInfo": shown(deployment(a, view))}


@DEPLOYMENT.reads("BatchGetDeployments", asks=ask("BatchGetDeployments", of_deployments("deploymentIds")))
def batch(a: Authorised, view: View) -> Output:
    ids = a.input.get("deploymentIds") or ()
    if len(ids) > 25:
        raise invalid("BatchLimitExceeded", "At most 25 deployments at a time.")
    rows = [DEPLOYMENT.get(view, a.account, a.region, str(one)) for one in ids]
    return {"deploymentsInfo": [shown(row) for row in rows if row is not None]}


@DEPLOYMENT.reads("ListDeployments", asks=ask("ListDeployments", groups()))
def list_(a: Authorised, view: View) -> Output:
    given = a.input
    if given.get("deploymentGroupName") and not given.get("applicationName"):
        raise invalid("ApplicationNameRequired", "applicationName is needed with deploymentGroupName.")
    if given.get("externalId"):
        raise invalid("InvalidExternalId", "externalId is not supported by Bastide: no deployment has one.")
    if given.get("deploymentGroupName"):
        group(a, view)
    statuses, times = given.get("includeOnlyStatuses") or (), given.get("createTimeRange") or {}

    def keep(row: Row) -> bool:
        doc = row.doc
        return (
            all(given.get(one) in (None, doc[one]) for one in ("applicationName", "deploymentGroupName"))
            and (not statuses or row.status in statuses)
            and (times.get("start") or 0) <= doc["createTime"] <= (times.get("end") or doc["createTime"])
        )

    rows, token = listed(a, view, DEPLOYMENT.key, created=True, keep=keep)
    return {"deployments": [row.name for row in rows], **token}


# -- the target ----------------------------------------------------------------------------------------------------------


def _started(a: Authorised, view: View) -> Row:
    row = deployment(a, view)
    if not row.doc.get("_spec"):
        raise invalid("DeploymentNotStarted", f"The deployment {row.name} has not started.")
    return row


def _target_id(row: Row) -> str:
    spec = row.doc["_spec"]
    return f"{spec['function'].rpartition(':function:')[2].partition(':')[0]}:{spec['alias']}"


def _target(row: Row) -> Output:
    doc, spec, id = row.doc, row.doc["_spec"], _target_id(row)
    at: Instant = doc.get("completeTime") or row.modified or doc["createTime"]
    told: dict[str, Any] = {
        "deploymentId": row.name, "targetId": id, "status": _target_status(row), "lastUpdatedAt": at,
        "targetArn": f"arn:aws:lambda:{row.region}:{row.account}:function:{id}",
        "lifecycleEvents": [_event(name, doc["_events"][name]) for name in EVENTS],
        "lambdaFunctionInfo": {
            "functionName": id.partition(":")[0], "functionAlias": spec["alias"], "currentVersion": spec["current"],
            "targetVersion": spec["target"], "targetVersionWeight": doc["_share"] / 100,
        },
    }  # fmt: skip
    return {"deploymentTargetType": "LambdaTarget", "lambdaTarget": told}


def _event(name: str, event: Doc) -> Output:
    told: Output = {"lifecycleEventName": name, "status": event["status"]}
    if event.get("start"):
        told["startTime"] = event["start"]
    if event.get("end"):
        told["endTime"] = event["end"]
    if event.get("message"):
        told["diagnostics"] = {"errorCode": "ScriptFailed", "message": event["message"], "scriptName": name}
    return told


_ASK: Final = of_deployments("deploymentId")


@DEPLOYMENT.reads("GetDeploymentTarget", asks=ask("GetDeploymentTarget", _ASK))
def target(a: Authorised, view: View) -> Output:
    row = _started(a, view)
    if not a.input.get("targetId"):
        raise invalid("DeploymentTargetIdRequired", "targetId is needed.")
    if a.input["targetId"] != _target_id(row):
        raise invalid("DeploymentTargetDoesNotExist", f"The target of {row.name} is {_target_id(row)}.")
    return {"deploymentTarget": _target(row)}


@DEPLOYMENT.reads("BatchGetDeploymentTargets", asks=ask("BatchGetDeploymentTargets", _ASK))
def batch_targets(a: Authorised, view: View) -> Output:
    row = _started(a, view)
    return {"deploymentTargets": [_target(row)] if _target_id(row) in (a.input.get("targetIds") or ()) else []}


@DEPLOYMENT.reads("ListDeploymentTargets", asks=ask("ListDeploymentTargets", _ASK))
def list_targets(a: Authorised, view: View) -> Output:
    row, filters = _started(a, view), a.input.get("targetFilters") or {}
    wanted = filters.get("TargetStatus")
    return {"targetIds": [_target_id(row)] if not wanted or _target_status(row) in wanted else []}
