"""What others say of an action that waits for them: an approver, a function.

Source: CodePipeline API Reference, PutApprovalResult, PutJobSuccessResult, PutJobFailureResult, GetJobDetails.
"""

from __future__ import annotations

from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.codepipeline.noun import (
    CHANGED,
    JOB,
    PIPELINE,
    Doc,
    ask,
    declaration,
    execution,
    pipeline_of,
    put,
    stage_of,
)
from bastide.services.codepipeline.variables import LONGEST
from bastide.store import Row, Transaction, View


def _record(view: View, doc: Doc) -> tuple[Row | None, Doc | None]:
    """The execution and the action's record that a token or a job is about; None if the action was begun anew."""
    row = execution(view, doc["account"], doc["region"], doc["pipeline"], doc["execution"])
    if row is None:
        return None, None
    record = row.doc["stages"].get(doc["stage"], {}).get("actions", {}).get(doc["action"])
    return row, record if record is not None and record["id"] == doc["id"] else None


@PIPELINE.operation("PutApprovalResult", asks=[ask("PutApprovalResult", "pipelineName", "stageName", "actionName")])
def approve(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    pipeline = pipeline_of(a, tx)
    doc = declaration(tx, a.account, a.region, pipeline.name, pipeline.doc["version"])
    assert doc is not None
    stage = stage_of(doc, given["stageName"])
    if given["actionName"] not in [one["name"] for one in stage["actions"]]:
        raise Refused(
            "ActionNotFoundException",
            f"The stage {stage['name']} of the pipeline {pipeline.name} has no action {given['actionName']}.",
        )
    held = tx.get(JOB, "", "", given["token"])
    named = (a.account, a.region, pipeline.name, given["stageName"], given["actionName"], "approval")
    places = ("account", "region", "pipeline", "stage", "action", "kind")
    if held is None or tuple(held.doc[one] for one in places) != named:
        raise Refused("InvalidApprovalTokenException", "Invalid approval token")
    row, record = _record(tx, held.doc)
    if row is None or record is None or record["status"] != "InProgress" or "approval" in record:
        raise Refused("ApprovalAlreadyCompletedException", "The approval action has already been approved or rejected.")
    record["approval"] = {
        "status": given["result"]["status"], "summary": given["result"]["summary"], "by": a.caller.arn, "at": a.now,
    }  # fmt: skip
    record["by"] = a.caller.arn
    put(tx, row)
    tx.emit(CHANGED, {"pipeline": PIPELINE.arn(a.account, a.region, pipeline.name)})
    return {"approvedAt": a.now}


# -- jobs ----------------------------------------------------------------------------------------------------------------


def _job(a: Authorised, view: View) -> Row:
    """A job of the caller's account; raises JobNotFoundException."""
    row = view.get(JOB, "", "", a.input["jobId"])
    if row is None or row.doc["kind"] != "job" or a.account not in row.doc["accounts"]:
        raise Refused("JobNotFoundException", f"The job {a.input['jobId']} cannot be found.")
    return row


def _report(a: Authorised, tx: Transaction, result: Doc) -> Output:
    row = _job(a, tx)
    execution_, record = _record(tx, row.doc)
    at_work = record is not None and record["status"] == "InProgress"
    if row.doc.get("result") is not None or execution_ is None or not (at_work or _in_rule(execution_, row.doc)):
        raise Refused("InvalidJobStateException", f"The job {row.name} is over, or its action is.")
    row.doc["result"] = result
    tx.update(row, keep=False)
    tx.emit(CHANGED, {"pipeline": PIPELINE.arn(row.doc["account"], row.doc["region"], row.doc["pipeline"])})
    return {}


def _in_rule(row: Row, doc: Doc) -> bool:
    """Whether a job is that of a rule which waits for it."""
    for held in (row.doc["stages"].get(doc["stage"], {}).get("conditions") or {}).values():
        record = held["rules"].get(doc["action"])
        if record is not None and record["id"] == doc["id"]:
            return bool(record["status"] == "InProgress")
    return False


@PIPELINE.operation("PutJobSuccessResult", asks=[Ask("codepipeline:PutJobSuccessResult", anything)])
def succeeded(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    if given.get("currentRevision"):
        raise Refused("ValidationException", "currentRevision is for source actions of one's own, which are not there.")
    variables = given.get("outputVariables") or {}
    if sum(len(name) + len(value.encode()) for name, value in variables.items()) > LONGEST:
        raise Refused(
            "OutputVariablesSizeExceededException", f"Output variables have at most {LONGEST} bytes together."
        )
    details: dict[str, Any] = given.get("executionDetails") or {}
    token = given.get("continuationToken")
    result: Doc = {
        "failed": False, "outputs": variables, "summary": details.get("summary"),
        "external": details.get("externalExecutionId"),
    }  # fmt: skip
    return _report(a, tx, {**result, "again": token} if token else result)


@PIPELINE.operation("PutJobFailureResult", asks=[Ask("codepipeline:PutJobFailureResult", anything)])
def failed(a: Authorised, tx: Transaction) -> Output:
    details = a.input["failureDetails"]
    result = {
        "failed": True, "type": details["type"], "message": details["message"],
        "external": details.get("externalExecutionId"),
    }  # fmt: skip
    return _report(a, tx, result)


@PIPELINE.reads("GetJobDetails", asks=[Ask("codepipeline:GetJobDetails", anything)])
def details(a: Authorised, view: View) -> Output:
    """Without the credentials: the function got them with its job, and a question is no reason to give out others."""
    row = _job(a, view)
    doc = row.doc
    _, record = _record(view, doc)
    found: dict[str, Any] = {
        "pipelineContext": {
            "pipelineName": doc["pipeline"],
            "stage": {"name": doc["stage"]},
            "action": {"name": doc["action"], "actionExecutionId": doc["id"]},
            "pipelineArn": PIPELINE.arn(doc["account"], doc["region"], doc["pipeline"]),
            "pipelineExecutionId": doc["execution"],
        },
    }
    if record is not None:
        found["actionConfiguration"] = {"configuration": record["resolved"]}
    if doc.get("continuation"):
        found["continuationToken"] = doc["continuation"]
    return {"jobDetails": {"id": row.name, "accountId": doc["account"], "data": found}}
