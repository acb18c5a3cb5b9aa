"""Invoke actions: a function's job, an execution of a state machine.

Source: CodePipeline User Guide, "AWS Lambda action reference", "AWS Step Functions invoke action reference", "Invoke an
AWS Lambda function in a pipeline".
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.services.codepipeline.artifacts import zipped
from bastide.services.codepipeline.noun import JOB
from bastide.services.codepipeline.work import ActionFailed, TimedOut, Work, cause
from bastide.store import Row, Taken, Transaction

_MOST_INPUT: Final = 262_144
_FAILED: Final = ("FAILED", "TIMED_OUT", "ABORTED")
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a function that wants to go on is called again."""


# -- Lambda --------------------------------------------------------------------------------------------------------------


async def function(work: Work) -> str:
    """A function gets a job, and the action is over when it reports about it. The call itself may come twice after a
    crash, as events for functions may; a job has one result."""
    if "job" not in work.record:
        job = new_id()
        await work.calls.store.write(lambda tx: _open(tx, work, job))
        work.record["job"] = job
    round = 0
    while True:
        held = _job(work)
        if held.get("result") is None and work.record.get("called") != held["round"]:
            await _call(work, held)
        told = await work.until(lambda: _result(work))
        if told.get("again"):
            # What it knows already is to be seen while it waits: a ticket's number.
            await work.note(external={"id": told.get("external") or work.record["job"]}, summary=told.get("summary"))
            await work.pause(_PAUSES[min(round, len(_PAUSES) - 1)])
            round += 1
            await work.calls.store.write(lambda tx: _reopen(tx, work))
            continue
        break
    external = told.get("external") or work.record["job"]
    await work.note(external={"id": external})
    if told["failed"]:
        raise ActionFailed(told["type"], told["message"])
    for one in work.declared["inputArtifacts"]:
        await work.verify(one["name"])  # it read them by itself: what it says counts if they are still what they were
    for one in work.declared["outputArtifacts"]:
        await work.adopt(one["name"])
    work.publish(**(told.get("outputs") or {}))
    return str(told.get("summary") or "")


def _job(work: Work) -> dict[str, Any]:
    with work.calls.store.reading() as view:
        row = view.get(JOB, "", "", work.record["job"])
    if row is None:
        raise ActionFailed("SystemUnavailable", "The job is gone.")
    return row.doc


def _open(tx: Transaction, work: Work, job: str) -> None:
    doc = {
        "account": work.account, "region": work.region, "pipeline": work.pipeline, "execution": work.execution,
        "stage": work.stage, "action": work.declared["name"], "id": work.id, "kind": "job", "round": 1,
        "accounts": sorted({work.account, *([work.actor.further.split(":")[4]] if work.actor.further else [])}),
    }  # fmt: skip
    try:
        tx.insert(Row(JOB, "", "", job, doc), keep=False)
    except Taken:
        return
    work.noted(tx, {"job": job})


def _reopen(tx: Transaction, work: Work) -> None:
    row = tx.get(JOB, "", "", work.record["job"])
    if row is not None and (row.doc.get("result") or {}).get("again"):
        row.doc["continuation"] = row.doc.pop("result")["again"]
        row.doc["round"] += 1
        tx.update(row, keep=False)


async def _result(work: Work) -> dict[str, Any] | None:
    found: dict[str, Any] | None = _job(work).get("result")
    return found


async def _call(work: Work, job: dict[str, Any]) -> None:
    given = work.configuration
    name = given["FunctionName"]
    told = {"CodePipeline.job": {"id": work.record["job"], "accountId": work.account, "data": await data(work, job)}}
    asked = {"FunctionName": name, "InvocationType": "Event", "Payload": json.dumps(told).encode()}
    try:
        await work.actor.act("lambda", "Invoke", asked)
    except Refused as refused:
        raise cause(refused, f"The function {name} cannot be invoked") from None
    await work.note(called=job["round"])


async def data(work: Work, job: dict[str, Any]) -> dict[str, Any]:
    """What a function is told of its job, with credentials for its artifacts and for nothing else."""
    given = work.configuration
    configuration = {key: given[key] for key in ("FunctionName", "UserParameters") if key in given}
    inputs, outputs = [], []
    for one in work.declared["inputArtifacts"]:
        held = await work.verify(one["name"])
        inputs.append(_located(one["name"], held["bucket"], held["key"], f"sha256:{held['sha256']}"))
    for one in work.declared["outputArtifacts"]:
        outputs.append(_located(one["name"], *await work.place_for(one["name"])))
    found: dict[str, Any] = {
        "actionConfiguration": {"configuration": configuration},
        "inputArtifacts": inputs,
        "outputArtifacts": outputs,
        "artifactCredentials": await work.actor.credentials(json.dumps(_policy(inputs, outputs))),
    }
    if work.store.get("encryptionKey"):
        found["encryptionKey"] = dict(work.store["encryptionKey"])
    if job.get("continuation"):
        found["continuationToken"] = job["continuation"]
    return found


def _located(name: str, bucket: str, key: str, revision: str | None = None) -> dict[str, Any]:
    where = {"type": "S3", "s3Location": {"bucketName": bucket, "objectKey": key}}
    return {"name": name, "revision": revision, "location": where}


def _policy(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the credentials of a job may do: read its inputs, write its outputs."""

    def arns(listed: list[dict[str, Any]]) -> list[str]:
        places = [one["location"]["s3Location"] for one in listed]
        return [f"arn:aws:s3:::{one['bucketName']}/{one['objectKey']}" for one in places]

    statements: list[dict[str, Any]] = []
    if inputs:
        statements.append({"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": arns(inputs)})
    if outputs:
        statements.append({"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": arns(outputs)})
    if statements:
        keys = {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey*"], "Resource": "*"}
        statements.append(keys)
    else:
        statements.append({"Effect": "Deny", "Action": "*", "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}


# -- Step Functions ------------------------------------------------------------------------------------------------------


async def machine(work: Work) -> str:
    """An execution of a state machine, until it ended; of an express one, once it is started."""
    given = work.configuration
    machine = given["StateMachineArn"]
    arn = work.arn_in(machine)
    if "external" not in work.record:
        try:
            told = await work.actor.act("stepfunctions", "DescribeStateMachine", {"stateMachineArn": machine})
            name = work.id if not given.get("ExecutionNamePrefix") else f"{given['ExecutionNamePrefix']}-{work.id}"
            asked = {"stateMachineArn": machine, "name": name[:80], "input": await _input(work)}
            express = told.get("type") == "EXPRESS"
            await work.begin(
                "stepfunctions",
                "StartExecution",
                asked,
                lambda output: {"external": {"id": output["executionArn"], "url": ""}, "express": express},
            )
        except Refused as refused:
            raise cause(refused, f"The state machine {arn.name} cannot be started") from None
    execution = work.record["external"]["id"]
    work.publish(StateMachineArn=machine, ExecutionArn=execution)
    if work.record.get("express"):
        return "Started."

    async def look() -> dict[str, Any] | None:
        try:
            told = await work.actor.act("stepfunctions", "DescribeExecution", {"executionArn": execution})
        except Refused as refused:
            raise cause(refused, f"The execution {execution} cannot be followed") from None
        return None if told["status"] == "RUNNING" else told

    try:
        ended = await work.until(look, execution)
    except TimedOut:
        with contextlib.suppress(Refused):
            told = {"executionArn": execution, "error": "TimedOut", "cause": "The pipeline's action has timed out."}
            await work.actor.act("stepfunctions", "StopExecution", told)
        raise
    if ended["status"] in _FAILED:
        why = ": ".join(str(ended[one]) for one in ("error", "cause") if ended.get(one)) or "no cause is told"
        raise ActionFailed("JobFailed", f"The execution {execution} ended as {ended['status']}: {why[:3000]}")
    for one in work.declared["outputArtifacts"]:
        output = str(ended.get("output") or "{}")
        await work.put(one["name"], zipped({"execution-output.json": output.encode()}))
    return "Succeeded."


async def _input(work: Work) -> str:
    given = work.configuration
    text = given.get("Input") or ""
    if given.get("InputType") == "FilePath":
        artifacts = work.declared["inputArtifacts"]
        if not artifacts or not text:
            raise ActionFailed("ConfigurationError", "InputType FilePath needs an input artifact and the file's path.")
        path = re.sub(rf"^{re.escape(artifacts[0]['name'])}::", "", text)
        data = await work.file(artifacts[0]["name"], path, _MOST_INPUT)
        text = data.decode("utf-8", "replace")
    text = text or "{}"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise ActionFailed("ConfigurationError", "The Input of the state machine is no JSON.") from None
    return text
