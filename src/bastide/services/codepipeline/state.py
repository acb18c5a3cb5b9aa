"""How a pipeline stands, and what its actions and rules did.

Source: CodePipeline API Reference, GetPipelineState, ListActionExecutions, ListRuleExecutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bastide.kernel import Authorised, Output, pages
from bastide.services.codepipeline.declaration import MOMENTS
from bastide.services.codepipeline.noun import (
    EXECUTION,
    PIPELINE,
    Doc,
    ask,
    declaration,
    execution,
    execution_of,
    pipeline_of,
    place,
    stage_row,
)
from bastide.store import Row, View


def _row(view: View, pipeline: Row, id: str | None) -> Row | None:
    return execution(view, pipeline.account, pipeline.region, pipeline.name, id) if id else None


def _stage_status(row: Row, name: str) -> str:
    stage = row.doc["stages"].get(name)
    if stage is None:
        return row.status if row.status in ("Stopping", "Stopped", "Cancelled") else "InProgress"
    if stage["status"] == "InProgress" and row.status == "Stopping":
        return "Stopping"
    return str(stage["status"])


def _execution(row: Row, name: str) -> Doc:
    return {"pipelineExecutionId": row.name, "status": _stage_status(row, name), "type": row.doc["kind"]}


@PIPELINE.reads("GetPipelineState", asks=[ask("GetPipelineState", "name")])
def state(a: Authorised, view: View) -> Output:
    pipeline = PIPELINE.named(a, view)
    doc = declaration(view, pipeline.account, pipeline.region, pipeline.name, pipeline.doc["version"])
    assert doc is not None
    stages = []
    for number, stage in enumerate(doc["stages"]):
        held = stage_row(view, pipeline.account, pipeline.region, pipeline.name, stage["name"])
        stages.append(_stage(view, pipeline, stage, held.doc, first=number == 0))
    return {
        "pipelineName": pipeline.name,
        "pipelineVersion": pipeline.doc["version"],
        "stageStates": stages,
        "created": pipeline.created,
        "updated": pipeline.doc["updated"],
    }


def _stage(view: View, pipeline: Row, stage: Doc, held: Doc, *, first: bool) -> Doc:
    name = stage["name"]
    found: Doc = {"stageName": name}
    if not first:
        found["inboundTransitionState"] = {"enabled": held["enabled"]}
        if "by" in held:
            found["inboundTransitionState"] |= {"lastChangedBy": held["by"], "lastChangedAt": held["at"]}
            if not held["enabled"]:
                found["inboundTransitionState"]["disabledReason"] = held.get("reason") or ""
    waiting = [row for one in held["waiting"] if (row := _row(view, pipeline, one)) is not None]
    if waiting:
        found["inboundExecution"] = _execution(waiting[0], name)
        found["inboundExecutions"] = [_execution(row, name) for row in waiting]
    latest = _row(view, pipeline, held.get("last"))
    if latest is not None:
        found["latestExecution"] = _execution(latest, name)
    seen = held.get("seen") or {}
    actions = []
    for declared in stage["actions"]:
        one: Doc = {"actionName": declared["name"]}
        row = _row(view, pipeline, seen.get(declared["name"]))
        record = None if row is None else row.doc["stages"].get(name, {}).get("actions", {}).get(declared["name"])
        if record is not None:
            one["latestExecution"] = _latest(record)
            if record.get("revision"):
                change = {"revisionId": record["revision"], "revisionChangeId": record["revision"][:100]}
                one["currentRevision"] = {**change, "created": record["updated"]}
        actions.append(one)
    found["actionStates"] = actions
    if latest is not None:
        _more(found, stage, latest.doc["stages"].get(name) or {})
    return found


def _latest(record: Doc) -> Doc:
    external = record.get("external") or {}
    found = {
        "actionExecutionId": record["id"],
        "status": record["status"],
        "summary": record.get("summary"),
        "lastStatusChange": record["updated"],
        "token": record.get("token") if record["status"] == "InProgress" and "approval" not in record else None,
        "lastUpdatedBy": record.get("by"),
        "externalExecutionId": external.get("id"),
        "externalExecutionUrl": external.get("url") or None,
        "errorDetails": record.get("error"),
        "logStreamARN": record.get("log"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _more(found: Doc, stage: Doc, held: Doc) -> None:
    """Conditions, and how often the stage was tried again."""
    for moment in MOMENTS:
        conditions = (stage.get(moment) or {}).get("conditions")
        if not conditions:
            continue
        told = (held.get("conditions") or {}).get(moment)
        one: Doc = {"conditionStates": [{"ruleStates": _rules(conditions[0], told)}]}
        if told is not None:
            at = {"status": told["status"], "summary": told.get("summary")}
            one["latestExecution"] = at
            one["conditionStates"][0]["latestExecution"] = {**at, "lastStatusChange": told["updated"]}
        found[f"{moment}ConditionState"] = one
    if held.get("retried"):
        found["retryStageMetadata"] = {
            "autoStageRetryAttempt": held.get("auto") or None,
            "manualStageRetryAttempt": held.get("manual") or None,
            "latestRetryTrigger": held["retried"],
        }


def _rules(condition: Doc, told: Doc | None) -> list[Doc]:
    listed = []
    for rule in condition.get("rules") or ():
        record = ((told or {}).get("rules") or {}).get(rule["name"])
        one: Doc = {"ruleName": rule["name"]}
        if record is not None:
            one["latestExecution"] = {
                "ruleExecutionId": record["id"],
                "status": record["status"],
                "summary": record.get("summary"),
                "lastStatusChange": record["updated"],
                "errorDetails": record.get("error"),
            }
        listed.append(one)
    return listed


# -- what actions did ----------------------------------------------------------------------------------------------------

_MOST_ROUNDS: Final = 5
"""Looks of a page: executions that have nothing to show do not make it dear."""
Told = Callable[[View, Row], list[Doc]]


def _page(a: Authorised, view: View, told: Told) -> tuple[list[Doc], str | None]:
    """A page of what executions have, the newest execution first; an execution is never looked at for nothing more than
    its own entries."""
    pipeline = pipeline_of(a, view)
    given = a.input.get("filter") or {}
    id = given.get("pipelineExecutionId") or (given.get("latestInPipelineExecution") or {}).get("pipelineExecutionId")
    latest = (given.get("latestInPipelineExecution") or {}).get("startTimeRange") == "Latest"
    limit = int(a.input.get("maxResults") or 100)
    position = pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException") or [None, 0]
    after, skip = position
    if id:
        row = execution_of(a, view, id=id)
        every = told(view, row)
        if latest:
            every = [one for one in every if not one.pop("_before", False)]
        part = every[skip : skip + limit]
        more = len(every) > skip + limit
        return _plain(part), pages.seal(a, [None, skip + limit]) if more else None
    found: list[Doc] = []
    where = (EXECUTION, f"{a.account}/{pipeline.name}", a.region)
    for _ in range(_MOST_ROUNDS):
        rows = view.scan(
            *where, order="created", descending=True, after=tuple(after) if after else None, limit=min(limit, 100)
        )
        for row in rows:
            every = told(view, row)[skip:]
            room = limit - len(found)
            if len(every) > room:
                return _plain([*found, *every[:room]]), pages.seal(a, [after, skip + room])
            found += every
            after, skip = [row.created, row.name], 0
        if not rows:
            return _plain(found), None
    return _plain(found), pages.seal(a, [after, 0])


def _plain(every: list[Doc]) -> list[Doc]:
    for one in every:
        one.pop("_before", None)
    return every


def _located(row: Row, named: list[Mapping[str, Any]]) -> list[Doc]:
    held = row.doc["artifacts"]
    return [
        {"name": one["name"], "s3location": {"bucket": at["bucket"], "key": at["key"]}}
        for one in named
        if (at := held.get(one["name"])) is not None
    ]


def _records(row: Row) -> Iterator[tuple[str, str, Doc, bool]]:
    for stage, held in row.doc["stages"].items():
        for record in held.get("before") or ():
            yield stage, record["action"], record, True
        for name, record in held["actions"].items():
            yield stage, name, record, False


def _actions(view: View, row: Row) -> list[Doc]:
    account, pipeline, region = place(row)
    doc = declaration(view, account, region, pipeline, row.doc["version"])
    declared = {
        (stage["name"], one["name"]): one for stage in (doc or {}).get("stages", ()) for one in stage["actions"]
    }
    found = []
    for stage, name, record, before in _records(row):
        one = declared.get((stage, name))
        if one is None:
            continue
        external = record.get("external") or {}
        result = {
            "externalExecutionId": external.get("id"),
            "externalExecutionSummary": record.get("summary"),
            "externalExecutionUrl": external.get("url") or None,
            "errorDetails": record.get("error"),
            "logStreamARN": record.get("log"),
        }
        found.append(
            {
                "pipelineExecutionId": row.name,
                "actionExecutionId": record["id"],
                "pipelineVersion": row.doc["version"],
                "stageName": stage,
                "actionName": name,
                "startTime": record["started"],
                "lastUpdateTime": record["updated"],
                "updatedBy": record.get("by"),
                "status": record["status"],
                "input": {
                    "actionTypeId": one["actionTypeId"],
                    "configuration": one["configuration"],
                    "resolvedConfiguration": record["resolved"],
                    "roleArn": one.get("roleArn"),
                    "region": one.get("region") or region,
                    "inputArtifacts": _located(row, one["inputArtifacts"]),
                    "namespace": one.get("namespace"),
                },
                "output": {
                    "outputArtifacts": _located(row, one["outputArtifacts"]),
                    "executionResult": {key: value for key, value in result.items() if value is not None},
                    "outputVariables": record.get("outputs") or {},
                },
                "_before": before,
            }
        )
    return sorted(found, key=lambda one: -one["startTime"])


@PIPELINE.reads("ListActionExecutions", asks=[ask("ListActionExecutions", "pipelineName")])
def actions(a: Authorised, view: View) -> Output:
    found, token = _page(a, view, _actions)
    return {"actionExecutionDetails": found, "nextToken": token}


def _rule_executions(view: View, row: Row) -> list[Doc]:
    account, pipeline, region = place(row)
    doc = declaration(view, account, region, pipeline, row.doc["version"])
    found = []
    for stage in (doc or {}).get("stages", ()):
        held = (row.doc["stages"].get(stage["name"]) or {}).get("conditions") or {}
        for moment in MOMENTS:
            for condition in (stage.get(moment) or {}).get("conditions") or ():
                for rule in condition.get("rules") or ():
                    record = (held.get(moment) or {}).get("rules", {}).get(rule["name"])
                    if record is None:
                        continue
                    result = {
                        "externalExecutionSummary": record.get("summary") or None,
                        "errorDetails": record.get("error"),
                    }
                    found.append(
                        {
                            "pipelineExecutionId": row.name,
                            "ruleExecutionId": record["id"],
                            "pipelineVersion": row.doc["version"],
                            "stageName": stage["name"],
                            "ruleName": rule["name"],
                            "startTime": record["started"],
                            "lastUpdateTime": record["updated"],
                            "status": record["status"],
                            "input": {
                                "ruleTypeId": rule["ruleTypeId"],
                                "configuration": rule.get("configuration") or {},
                                "resolvedConfiguration": record["resolved"],
                                "roleArn": rule.get("roleArn"),
                                "region": rule.get("region") or region,
                            },
                            "output": {
                                "executionResult": {key: value for key, value in result.items() if value is not None}
                            },
                        }
                    )
    return sorted(found, key=lambda one: -one["startTime"])


@PIPELINE.reads("ListRuleExecutions", asks=[ask("ListRuleExecutions", "pipelineName")])
def rules(a: Authorised, view: View) -> Output:
    found, token = _page(a, view, _rule_executions)
    return {"ruleExecutionDetails": found, "nextToken": token}
