"""Deployment groups: the role that deploys, how, what stops it, and whom to tell.

Source: CodeDeploy API Reference, "CreateDeploymentGroup"; User Guide, "Create a deployment group".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.codedeploy.config import DEFAULT, routing
from bastide.services.codedeploy.noun import (
    APPLICATION,
    GROUP,
    PRINCIPAL,
    Doc,
    application,
    ask,
    checked_name,
    group,
    groups,
    invalid,
    listed,
    named,
    tags_given,
    unsupported,
)
from bastide.store import Row, Transaction, View

_MOST: Final = 1000
_ELSEWHERE: Final = (
    "ec2TagFilters", "onPremisesInstanceTagFilters", "autoScalingGroups", "blueGreenDeploymentConfiguration",
    "loadBalancerInfo", "ec2TagSet", "ecsServices", "onPremisesTagSet", "ec2DeploymentOptions", "terminationHookEnabled",
)  # fmt: skip
"""Members that are for servers and ECS services."""
STYLE: Final = {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"}
TRIGGERS: Final = (
    "DeploymentStart", "DeploymentSuccess", "DeploymentFailure", "DeploymentStop", "DeploymentRollback",
)  # fmt: skip
ROLLBACKS: Final = ("DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST")


# -- what is given -------------------------------------------------------------------------------------------------------


def alarms(given: Any) -> Doc:
    """An alarm configuration; raises Refused."""
    held = dict(given or {})
    names = [str(one.get("name") or "") for one in held.get("alarms") or ()]
    if len(names) > 10:
        raise invalid("AlarmsLimitExceeded", "A deployment group has at most 10 alarms.")
    if any(not 1 <= len(one) <= 255 for one in names):
        raise invalid("InvalidAlarmConfig", "An alarm has a name of 1 to 255 characters.")
    return {
        "enabled": bool(held.get("enabled")), "ignorePollAlarmFailure": bool(held.get("ignorePollAlarmFailure")),
        "alarms": [{"name": one} for one in dict.fromkeys(names)],
    }  # fmt: skip


def rollback(given: Any) -> Doc:
    """When a deployment is taken back by itself; raises Refused."""
    held = dict(given or {})
    events = list(held.get("events") or ())
    if any(one not in ROLLBACKS for one in events) or (held.get("enabled") and not events):
        raise invalid(
            "InvalidAutoRollbackConfig", f"autoRollbackConfiguration.events are some of {', '.join(ROLLBACKS)}."
        )
    return {"enabled": bool(held.get("enabled")), "events": events}


def _triggers(given: Any) -> list[Doc]:
    found: list[Doc] = []
    for one in given or ():
        target, name = str(one.get("triggerTargetArn") or ""), str(one.get("triggerName") or "")
        try:
            topic = Arn.parse(target)
        except ValueError:
            topic = None
        if topic is None or topic.service != "sns" or not name:
            raise invalid(
                "InvalidTriggerConfig", "A trigger has a triggerName, and a triggerTargetArn of an SNS topic."
            )
        events = list(one.get("triggerEvents") or ())
        if not events or any(event not in TRIGGERS for event in events):
            raise invalid(
                "InvalidTriggerConfig",
                f"triggerEvents are some of {', '.join(TRIGGERS)}; a function's deployment has no instances.",
            )
        found.append({"triggerName": name, "triggerTargetArn": target, "triggerEvents": events})
    if len({one["triggerName"] for one in found}) < len(found) or len(found) > 10:
        raise invalid(
            "TriggerTargetsLimitExceeded", "A deployment group has at most 10 triggers, each of its own name."
        )
    return found


def _doc(view: View, a: Authorised, given: Mapping[str, Any], held: Mapping[str, Any] | None) -> Doc:
    """A group as it is to be: what is given, else what it had."""
    unsupported(given, "InvalidInput", *_ELSEWHERE)
    if given.get("outdatedInstancesStrategy") not in (None, "UPDATE"):
        raise invalid("InvalidInput", "outdatedInstancesStrategy is not for the compute platform Lambda.")
    if given.get("deploymentStyle") not in (None, {}, STYLE):
        raise invalid(
            "InvalidDeploymentStyle", "The deploymentStyle of functions is BLUE_GREEN and WITH_TRAFFIC_CONTROL."
        )
    doc = dict(held or {"id": str(uuid.uuid4()), "deploymentConfigName": DEFAULT})
    if given.get("deploymentConfigName"):
        doc["deploymentConfigName"] = given["deploymentConfigName"]
    routing(view, a.account, a.region, doc["deploymentConfigName"])
    if given.get("serviceRoleArn"):
        doc["serviceRoleArn"] = given["serviceRoleArn"]
    for member, read in _MEMBERS.items():
        if held is None or given.get(member) is not None:
            doc[member] = read(given.get(member))
    return doc


_MEMBERS: Final = {
    "alarmConfiguration": alarms, "autoRollbackConfiguration": rollback, "triggerConfigurations": _triggers,
}  # fmt: skip


async def _trusted(a: Authorised) -> None:
    """Raises InvalidRoleException where CodeDeploy cannot take the role on."""
    role = a.input.get("serviceRoleArn")
    if not role:
        if a.operation.name == "CreateDeploymentGroup":
            raise invalid("RoleRequired", "serviceRoleArn is needed.")
        return
    if not str(role).startswith(f"arn:aws:iam::{a.account}:role/"):
        raise invalid("InvalidRole", "serviceRoleArn is the ARN of a role of this account.")
    try:
        await a.calls.assume(PRINCIPAL, role, "CodeDeploy", account=a.account, region=a.region)
    except Refused:
        raise invalid(
            "InvalidRole",
            f"CodeDeploy cannot assume {role}: let it be there, and its trust policy allow sts:AssumeRole to {PRINCIPAL}.",
        ) from None


def _role(asked: Asked) -> Iterable[str]:
    given = asked.input.get("serviceRoleArn")
    return [str(given)] if given else []


def _passing(member: str) -> Ask:
    about = groups(member)
    return Ask(
        "iam:PassRole", _role,
        given={
            "iam:PassedToService": lambda _: PRINCIPAL, "iam:AssociatedResourceArn": lambda asked: next(iter(about(asked))),
        },
    )  # fmt: skip


# -- operations ----------------------------------------------------------------------------------------------------------


def shown(row: Row, platform: str = "Lambda") -> Output:
    """A deployment group."""
    doc, (first, _, name) = row.doc, row.name.partition("/")
    told: Output = {
        "applicationName": first, "deploymentGroupId": doc["id"], "deploymentGroupName": name,
        "computePlatform": platform, "deploymentStyle": STYLE, "outdatedInstancesStrategy": "UPDATE",
        **{member: doc[member] for member in ("deploymentConfigName", "serviceRoleArn", *_MEMBERS)},
    }  # fmt: skip
    for member, key in (
        ("targetRevision", "_revision"), ("lastAttemptedDeployment", "_attempted"), ("lastSuccessfulDeployment", "_good"),
    ):  # fmt: skip
        if doc.get(key):
            told[member] = doc[key]
    return told


@GROUP.operation(
    "CreateDeploymentGroup",
    asks=[*ask("CreateDeploymentGroup", groups()), _passing("deploymentGroupName")],
    before=_trusted,
)
def create(a: Authorised, tx: Transaction) -> Output:
    first = application(a, tx)
    name = checked_name(a.input.get("deploymentGroupName"), "DeploymentGroup", "deploymentGroupName")
    if len(tx.scan(GROUP.key, a.account, a.region, prefix=f"{first.name}/", limit=_MOST)) == _MOST:
        raise invalid("DeploymentGroupLimitExceeded", f"An application has at most {_MOST} deployment groups.")
    doc = _doc(tx, a, a.input, None)
    GROUP.create(a, tx, f"{first.name}/{name}", doc, tags=tags_given(a.input.get("tags")))
    return {"deploymentGroupId": doc["id"]}


@GROUP.operation(
    "UpdateDeploymentGroup",
    asks=[*ask("UpdateDeploymentGroup", groups("currentDeploymentGroupName")), _passing("currentDeploymentGroupName")],
    before=_trusted,
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = group(a, tx, "currentDeploymentGroupName")
    if a.input.get("newDeploymentGroupName") not in (None, a.input["currentDeploymentGroupName"]):
        raise invalid("InvalidInput", "newDeploymentGroupName is not supported by Bastide: make another group.")
    row.doc = _doc(tx, a, a.input, row.doc)
    GROUP.change(tx, row, a.operation.name, a.request.id)
    return {"hooksNotCleanedUp": []}


@GROUP.reads("GetDeploymentGroup", asks=ask("GetDeploymentGroup", groups()))
def get(a: Authorised, view: View) -> Output:
    return {"deploymentGroupInfo": shown(group(a, view))}


@GROUP.reads("BatchGetDeploymentGroups", asks=ask("BatchGetDeploymentGroups", groups("deploymentGroupNames")))
def batch(a: Authorised, view: View) -> Output:
    first, names = application(a, view), a.input.get("deploymentGroupNames") or ()
    if len(names) > 100:
        raise invalid("BatchLimitExceeded", "At most 100 deployment groups at a time.")
    rows = [GROUP.get(view, a.account, a.region, f"{first.name}/{one}") for one in names]
    missing = [str(one) for one, row in zip(names, rows, strict=True) if row is None]
    told: Output = {"deploymentGroupsInfo": [shown(row) for row in rows if row is not None]}
    if missing:
        told["errorMessage"] = f"No Deployment Group found for name: {', '.join(missing)}"
    return told


@GROUP.reads("ListDeploymentGroups", asks=ask("ListDeploymentGroups", named(APPLICATION, "applicationName")))
def list_(a: Authorised, view: View) -> Output:
    first = application(a, view)
    rows, token = listed(a, view, GROUP.key, prefix=f"{first.name}/")
    return {"applicationName": first.name, "deploymentGroups": [row.name.partition("/")[2] for row in rows], **token}


@GROUP.operation("DeleteDeploymentGroup", asks=ask("DeleteDeploymentGroup", groups()))
def delete(a: Authorised, tx: Transaction) -> Output:
    """A deployment that is on its way fails, as its group is gone."""
    first = checked_name(a.input.get("applicationName"), "Application", "applicationName")
    name = checked_name(a.input.get("deploymentGroupName"), "DeploymentGroup", "deploymentGroupName")
    row = GROUP.get(tx, a.account, a.region, f"{first}/{name}")
    if row is not None:
        GROUP.remove(tx, row, a.operation.name, a.request.id)
    return {"hooksNotCleanedUp": []}


def attempted(tx: Transaction, deployment: Row) -> None:
    """Keeps with a group what was last deployed, and how that ended."""
    doc = deployment.doc
    row = GROUP.get(tx, deployment.account, deployment.region, f"{doc['applicationName']}/{doc['deploymentGroupName']}")
    if row is None:
        return
    told = {"deploymentId": deployment.name, "status": deployment.status, "createTime": doc["createTime"]}
    if doc.get("completeTime"):
        told["endTime"] = doc["completeTime"]
    row.doc["_attempted"] = told
    row.doc["_revision"] = doc["revision"]
    if deployment.status == "Succeeded":
        row.doc["_good"] = told
    tx.update(row, keep=False)
