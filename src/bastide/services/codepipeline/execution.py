"""Executions of pipelines: begun, stopped, tried again, rolled back, shown, listed.

Source: CodePipeline API Reference; User Guide, "How pipeline executions work".
"""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Instant, Refused, timed_id
from bastide.kernel import Authorised, Output, once, pages
from bastide.services.codepipeline import telling
from bastide.services.codepipeline.noun import (
    EXECUTION,
    PIPELINE,
    RUNNING,
    Doc,
    ask,
    changed,
    declaration,
    execution_of,
    pipeline_of,
    place,
    put,
    stage_of,
    stage_row,
)
from bastide.store import Row, Transaction, View

BEGUN: Final = "codepipeline:Begun"
"""The outbox's topic: an execution is to run from here on."""
_MOST_AT_ONCE: Final = 50
_REVISIONS: Final = {
    "CodeCommit": ("COMMIT_ID",),
    "S3": ("S3_OBJECT_VERSION_ID", "S3_OBJECT_KEY"),
    "ECR": ("IMAGE_DIGEST",),
}


def begin(
    tx: Transaction,
    pipeline: Row,
    doc: Doc,
    *,
    trigger: Doc,
    now: Instant,
    variables: dict[str, str] | None = None,
    overrides: dict[str, Doc] | None = None,
    target: Row | None = None,
    stage: str = "",
) -> Row:
    """A new execution of a pipeline's current declaration. target, stage: of a rollback, which runs that stage alone with
    what another execution had."""
    held = target.doc if target is not None else {}
    given = {one["name"]: one.get("defaultValue") or "" for one in doc.get("variables") or ()}
    row = Row(
        EXECUTION,
        f"{pipeline.account}/{pipeline.name}",
        pipeline.region,
        timed_id(now),
        {
            "version": doc["version"],
            "mode": doc["executionMode"],
            "kind": "STANDARD" if target is None else "ROLLBACK",
            "trigger": trigger,
            "variables": held.get("variables") or {**given, **(variables or {})},
            "overrides": overrides or {},
            "started": now,
            "updated": now,
            "attempt": 1,
            "stages": {},
            "artifacts": dict(held.get("artifacts") or {}),
            "outputs": dict(held.get("outputs") or {}),
            "revisions": list(held.get("revisions") or ()),
        },
        "InProgress",
    )
    if target is not None:
        row.doc |= {"target": target.name, "only": stage}
    tx.insert(row, keep=False)
    telling.pipeline(tx, row, "InProgress")
    go_on(tx, row)
    return row


def go_on(tx: Transaction, row: Row) -> None:
    """Has the execution run, from where it stands."""
    account, pipeline, region = place(row)
    told = {"account": account, "region": region, "pipeline": pipeline, "execution": row.name}
    tx.emit(BEGUN, {**told, "attempt": row.doc["attempt"]})


def running(tx: View, account: str, region: str, pipeline: str) -> list[Row]:
    """Executions that are not over, oldest first; as many as may be at once."""
    found: list[Row] = []
    for status in RUNNING:
        found += tx.scan(EXECUTION, f"{account}/{pipeline}", region, order="created", status=status, limit=1000)
    return sorted(found, key=lambda row: row.name)


def cancel(tx: Transaction, pipeline: Row, now: Instant) -> None:
    """A pipeline was changed: what runs of the version before is not completed."""
    for row in running(tx, pipeline.account, pipeline.region, pipeline.name):
        row.doc["cancelled"] = True
        row.doc["updated"] = now
        put(tx, row)


def become(tx: Transaction, row: Row, status: str, now: Instant, reason: str = "") -> None:
    """An execution's new status, with its event; the row is written by whoever calls."""
    row.status = status
    row.doc["updated"] = now
    if reason:
        row.doc["reason"] = reason[:5000]
    else:
        row.doc.pop("reason", None)
    telling.pipeline(tx, row, status)


# -- start ---------------------------------------------------------------------------------------------------------------


def _variables(doc: Doc, given: list[Doc] | None) -> dict[str, str]:
    declared = {one["name"]: one for one in doc.get("variables") or ()}
    found: dict[str, str] = {}
    for one in given or ():
        if one["name"] not in declared:
            raise Refused("ValidationException", f"The pipeline does not declare the variable {one['name'][:128]}.")
        if one["name"] in found:
            raise Refused("ValidationException", f"The variable {one['name'][:128]} is given twice.")
        found[one["name"]] = one["value"]
    for name, one in declared.items():
        if name not in found and not one.get("defaultValue"):
            raise Refused("ValidationException", f"A value is needed for the variable {name}: it has no default.")
    return found


def _overrides(doc: Doc, given: list[Doc] | None) -> dict[str, Doc]:
    sources = {one["name"]: one for one in doc["stages"][0]["actions"]}
    found: dict[str, Doc] = {}
    for one in given or ():
        name, kind = one["actionName"], one["revisionType"]
        action = sources.get(name)
        if action is None:
            raise Refused("ValidationException", f"The pipeline has no source action {name[:100]}.")
        provider = action["actionTypeId"]["provider"]
        if kind not in _REVISIONS[provider]:
            raise Refused("ValidationException", f"{kind} is no revision of a source from {provider}.")
        if kind == "S3_OBJECT_KEY" and action["configuration"].get("AllowOverrideForS3ObjectKey") != "true":
            raise Refused("ValidationException", f"The action {name} does not have AllowOverrideForS3ObjectKey.")
        held = found.setdefault(name, {})
        if kind in held:
            raise Refused("ValidationException", f"The revision of the action {name} is given twice.")
        held[kind] = one["revisionValue"]
    return found


@PIPELINE.operation("StartPipelineExecution", asks=[ask("StartPipelineExecution", "name")])
def start(a: Authorised, tx: Transaction) -> Output:
    """Started by an event or a schedule, the trigger is that of the rule; by anybody else, of who called."""
    given = a.input
    row = PIPELINE.named(a, tx)

    def make() -> Output:
        doc = declaration(tx, a.account, a.region, row.name, row.doc["version"])
        assert doc is not None
        variables, overrides = _variables(doc, given.get("variables")), _overrides(doc, given.get("sourceRevisions"))
        if doc["executionMode"] != "SUPERSEDED" and (len(running(tx, a.account, a.region, row.name)) >= _MOST_AT_ONCE):
            raise Refused(
                "ConcurrentPipelineExecutionsLimitExceededException",
                f"The pipeline has reached the limit of {_MOST_AT_ONCE} concurrent executions.",
            )
        by_event = a.request.source_ip in ("events.amazonaws.com", "scheduler.amazonaws.com")
        rule = a.caller.session.work if by_event and a.caller.session is not None else ""
        kind = "CloudWatchEvent" if by_event else "StartPipelineExecution"
        trigger = {"type": kind, "detail": rule or a.caller.arn}
        made = begin(tx, row, doc, trigger=trigger, now=a.now, variables=variables, overrides=overrides)
        return {"pipelineExecutionId": made.name}

    return once(a, tx, given.get("clientRequestToken"), make, code="ConflictException")


# -- stop, retry, roll back ----------------------------------------------------------------------------------------------


@PIPELINE.operation("StopPipelineExecution", asks=[ask("StopPipelineExecution", "pipelineName")])
def stop(a: Authorised, tx: Transaction) -> Output:
    """abandon: what runs is left to itself; otherwise what runs is waited for, and nothing more begins."""
    pipeline = pipeline_of(a, tx)
    try:
        row = execution_of(a, tx)
    except Refused as refused:
        raise Refused("PipelineExecutionNotStoppableException", refused.message) from None
    if row.status not in RUNNING:
        raise Refused(
            "PipelineExecutionNotStoppableException", f"The execution {row.name} is {row.status} and cannot be stopped."
        )
    held, abandon = row.doc.get("stop"), bool(a.input.get("abandon"))
    if held is not None and (held["abandon"] or not abandon):
        raise Refused("DuplicatedStopRequestException", f"The execution {row.name} is already being stopped.")
    row.doc["stop"] = {"abandon": abandon, "reason": a.input.get("reason") or "", "by": a.caller.arn}
    if row.status != "Stopping":
        become(tx, row, "Stopping", a.now)
    put(tx, row)
    changed(tx, pipeline)
    return {"pipelineExecutionId": row.name}


def _latest(a: Authorised, tx: Transaction, row: Row, stage: str) -> None:
    """Raises Refused unless the execution is the last one that came into the stage, and nobody is in it."""
    if row.doc["mode"] == "PARALLEL":
        return
    held = stage_row(tx, a.account, a.region, a.input["pipelineName"], stage)
    if held.doc.get("last") != row.name or held.doc["held"] not in ("", row.name):
        raise Refused(
            "NotLatestPipelineExecutionException",
            f"The execution {row.name} is not the latest one in the stage {stage}: {held.doc.get('last')} came after it.",
        )


def again(tx: Transaction, row: Row, now: Instant) -> None:
    """An execution that had ended goes on."""
    row.doc["attempt"] += 1
    row.doc.pop("stop", None)
    row.status = "InProgress"
    row.doc["updated"] = now
    row.doc.pop("reason", None)
    telling.pipeline(tx, row, "Resumed")
    put(tx, row)
    go_on(tx, row)


def prepare_retry(stage: Doc, mode: str, how: str) -> None:
    """A stage's actions as they are before they are tried again: those that failed, or all of them, are to begin anew.
    How they came out before stays on record."""
    for name, record in list(stage["actions"].items()):
        if mode == "ALL_ACTIONS" or record["status"] != "Succeeded":
            stage.setdefault("before", []).append({**record, "action": name})
            del stage["actions"][name]
    conditions = stage.get("conditions") or {}
    for moment, held in list(conditions.items()):
        if moment != "beforeEntry" or held["status"] not in ("Succeeded", "Overridden"):
            del conditions[moment]
    word = "auto" if how == "AutomatedStageRetry" else "manual"
    stage[word] = stage.get(word, 0) + 1
    stage["retried"] = how
    stage["status"] = "InProgress"


@PIPELINE.operation("RetryStageExecution", asks=[ask("RetryStageExecution", "pipelineName", "stageName")])
def retry(a: Authorised, tx: Transaction) -> Output:
    pipeline = pipeline_of(a, tx)
    name = a.input["stageName"]
    current = declaration(tx, a.account, a.region, pipeline.name, pipeline.doc["version"])
    assert current is not None
    stage_of(current, name)
    try:
        row = execution_of(a, tx)
    except Refused as refused:
        raise Refused("NotLatestPipelineExecutionException", refused.message) from None
    stage = row.doc["stages"].get(name)
    if stage is None or stage["status"] not in ("Failed", "Stopped") or row.status not in ("Failed", "Stopped"):
        told = "was never there" if stage is None else f"is {stage['status']} there"
        raise Refused(
            "StageNotRetryableException",
            f"The stage {name} cannot be retried: the execution {row.name} {told}, and a failed or stopped one is.",
        )
    if row.doc["version"] != pipeline.doc["version"]:
        raise Refused(
            "StageNotRetryableException",
            f"The stage {name} cannot be retried: the pipeline was changed since the execution {row.name} began.",
        )
    _latest(a, tx, row, name)
    prepare_retry(stage, a.input["retryMode"], "ManualStageRetry")
    again(tx, row, a.now)
    return {"pipelineExecutionId": row.name}


def roll_back(tx: Transaction, pipeline: Row, doc: Doc, stage: str, target: Row, trigger: Doc, now: Instant) -> Row:
    """Begins the execution that brings a stage back; raises Refused for a target that it cannot be."""
    wrong = ""
    if stage == doc["stages"][0]["name"]:
        wrong = "the source stage cannot be rolled back"
    elif doc["executionMode"] == "PARALLEL":
        wrong = "a pipeline in PARALLEL mode does not roll back"
    elif target.doc["kind"] != "STANDARD":
        wrong = f"the execution {target.name} is a rollback itself"
    elif (target.doc["stages"].get(stage) or {}).get("status") != "Succeeded":
        wrong = f"the execution {target.name} did not succeed in the stage"
    if wrong:
        raise Refused("UnableToRollbackStageException", f"The stage {stage} cannot be rolled back: {wrong}.")
    if target.doc["version"] != doc["version"]:
        raise Refused(
            "PipelineExecutionOutdatedException",
            f"The execution {target.name} was of another version of the pipeline's structure.",
        )
    return begin(tx, pipeline, doc, trigger=trigger, now=now, target=target, stage=stage)


@PIPELINE.operation("RollbackStage", asks=[ask("RollbackStage", "pipelineName", "stageName")])
def rollback(a: Authorised, tx: Transaction) -> Output:
    """A new execution that runs the stage alone, with the revisions, artifacts and variables of another one."""
    pipeline = pipeline_of(a, tx)
    doc = declaration(tx, a.account, a.region, pipeline.name, pipeline.doc["version"])
    assert doc is not None
    stage_of(doc, a.input["stageName"])
    if doc["pipelineType"] != "V2":
        raise Refused("UnableToRollbackStageException", "Stages of pipelines of type V1 are not rolled back.")
    target = execution_of(a, tx, "targetPipelineExecutionId")
    trigger = {"type": "ManualRollback", "detail": a.caller.arn}
    made = roll_back(tx, pipeline, doc, a.input["stageName"], target, trigger, a.now)
    return {"pipelineExecutionId": made.name}


@PIPELINE.operation("OverrideStageCondition", asks=[ask("OverrideStageCondition", "pipelineName", "stageName")])
def override(a: Authorised, tx: Transaction) -> Output:
    """A condition that was not met counts as met, and the execution goes on."""
    pipeline = pipeline_of(a, tx)
    doc = declaration(tx, a.account, a.region, pipeline.name, pipeline.doc["version"])
    assert doc is not None
    name = a.input["stageName"]
    stage_of(doc, name)
    row = execution_of(a, tx)
    moment = {"BEFORE_ENTRY": "beforeEntry", "ON_SUCCESS": "onSuccess"}[a.input["conditionType"]]
    stage = row.doc["stages"].get(name) or {}
    held = (stage.get("conditions") or {}).get(moment)
    if held is None or held["status"] not in ("Failed", "Errored") or row.status != "Failed":
        raise Refused(
            "ConditionNotOverridableException",
            f"The execution {row.name} is not held by a condition of {a.input['conditionType']} of the stage {name}.",
        )
    _latest(a, tx, row, name)
    held |= {"status": "Overridden", "by": a.caller.arn, "updated": a.now}
    stage["status"] = "InProgress"
    again(tx, row, a.now)
    return {}


# -- show ----------------------------------------------------------------------------------------------------------------


def _trigger(row: Row) -> Doc:
    held = row.doc["trigger"]
    return {"triggerType": held["type"], "triggerDetail": held["detail"]}


def _common(row: Row) -> Doc:
    found: Doc = {
        "pipelineExecutionId": row.name,
        "status": row.status,
        "statusSummary": row.doc.get("reason"),
        "trigger": _trigger(row),
        "executionMode": row.doc["mode"],
        "executionType": row.doc["kind"],
    }
    if row.doc.get("target"):
        found["rollbackMetadata"] = {"rollbackTargetPipelineExecutionId": row.doc["target"]}
    return found


@PIPELINE.reads("GetPipelineExecution", asks=[ask("GetPipelineExecution", "pipelineName")])
def get(a: Authorised, view: View) -> Output:
    pipeline_of(a, view)
    row = execution_of(a, view)
    told = {
        **_common(row),
        "pipelineName": a.input["pipelineName"],
        "pipelineVersion": row.doc["version"],
        "artifactRevisions": [
            {
                "name": one["artifact"],
                "revisionId": one["id"],
                "revisionSummary": one.get("summary"),
                "created": one.get("created"),
                "revisionUrl": one.get("url"),
            }
            for one in row.doc["revisions"]
        ],
        "variables": [{"name": name, "resolvedValue": value} for name, value in row.doc["variables"].items()],
    }
    return {"pipelineExecution": told}


@PIPELINE.reads("ListPipelineExecutions", asks=[ask("ListPipelineExecutions", "pipelineName")])
def listed(a: Authorised, view: View) -> Output:
    """Newest first. A page looks at so many executions at most, and gives a token for the others."""
    pipeline_of(a, view)
    limit = int(a.input.get("maxResults") or 100)
    within = ((a.input.get("filter") or {}).get("succeededInStage") or {}).get("stageName")
    after = pages.position(a, a.input.get("nextToken"), code="InvalidNextTokenException")
    rows = view.scan(
        EXECUTION,
        f"{a.account}/{a.input['pipelineName']}",
        a.region,
        descending=True,
        order="created",
        after=tuple(after) if after else None,
        limit=limit + 1,
    )
    shown = [
        row for row in rows[:limit] if not within or (row.doc["stages"].get(within) or {}).get("status") == "Succeeded"
    ]
    summaries = []
    for row in shown:
        one: dict[str, Any] = {
            **_common(row),
            "startTime": row.doc["started"],
            "lastUpdateTime": row.doc["updated"],
            "sourceRevisions": [
                {
                    "actionName": held["action"],
                    "revisionId": held["id"],
                    "revisionSummary": held.get("summary"),
                    "revisionUrl": held.get("url"),
                }
                for held in row.doc["revisions"]
            ],
        }
        if row.doc.get("stop"):
            one["stopTrigger"] = {"reason": row.doc["stop"]["reason"]}
        summaries.append(one)
    last = rows[limit - 1] if len(rows) > limit else None
    return {
        "pipelineExecutionSummaries": summaries,
        "nextToken": None if last is None else pages.seal(a, [last.created, last.name]),
    }
