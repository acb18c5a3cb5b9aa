"""Executions of runbooks, as they are asked for and looked at.

Source: Systems Manager API Reference, "StartAutomationExecution", "GetAutomationExecution".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused, new_id
from bastide.engines.templates import text
from bastide.kernel import Ask, Asked, Authorised, Calls, Kind, Output, anything, each, once, pages, standing
from bastide.services.ssm import document, runbook
from bastide.services.ssm.document import DOCUMENT
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "ssm.amazonaws.com"
EXECUTION: Final = Kind(
    "AutomationExecution", service="ssm", arn="automation-execution/{}", named_by="AutomationExecutionId",
    missing=("AutomationExecutionNotFoundException", "There is no automation execution {name}.", 400), tags=False,
)  # fmt: skip
OVER: Final = ("Success", "Failed", "Cancelled", "TimedOut")
STOPPING: Final = "Cancelling"
_PURPOSE: Final = "ssm:automation"
_PAGE: Final = 50
_REFUSED: Final = (
    "TargetParameterName", "Targets", "TargetMaps", "MaxConcurrency", "MaxErrors", "TargetLocations", "Tags",
    "AlarmConfiguration", "TargetLocationsURL",
)  # fmt: skip


def seal(calls: Calls, value: Any) -> str:
    """What an execution is given and finds: it may hold secrets."""
    return calls.sealer.seal(orjson.dumps(value), _PURPOSE)


def opened(calls: Calls, sealed: str) -> Any:
    """What was sealed."""
    return orjson.loads(calls.sealer.open(sealed, _PURPOSE))


def system(row: Row) -> dict[str, Any]:
    """What runbooks may ask of the execution itself."""
    return {
        "automation:EXECUTION_ID": row.name, "global:REGION": row.region, "global:ACCOUNT_ID": row.account,
    }  # fmt: skip


def lookup(parameters: Mapping[str, Any], outputs: Mapping[str, Any], fixed: Mapping[str, Any]) -> Callable[[str], Any]:
    """What a name in double braces means; raises Refused."""

    def find(name: str) -> Any:
        for held in (fixed, parameters, outputs):
            if name in held:
                return held[name]
        raise Refused("InvalidReference", f"{name} is no parameter, and no output of an earlier step.")

    return find


# -- starting ----------------------------------------------------------------------------------------------------------


def _document(asked: Asked) -> tuple[Row, Row] | None:
    try:
        row = document.found(asked.view, asked.call.account, asked.call.region, str(asked.input["DocumentName"]))
        return row, document.version(asked.view, row, asked.input.get("DocumentVersion"))
    except Refused:
        return None


def _this_document(asked: Asked) -> Iterable[str]:
    """The document, and the execution, which has no id yet."""
    given, account, region = str(asked.input["DocumentName"]), asked.call.account, asked.call.region
    named = given if given.startswith("arn:") else DOCUMENT.arn(account, region, given)
    return (named, EXECUTION.arn(account, region, "*"))


def _role(asked: Asked) -> Iterable[str]:
    held = _document(asked)
    if held is None:
        return ()
    try:
        role = _assumed(runbook.read(held[1].doc["content"]), asked.input.get("Parameters") or {})
    except Refused:
        return ()  # refused for it, as soon as it is handled
    return (role,) if role else ()


def _assumed(raw: Mapping[str, Any], told: Mapping[str, list[str]]) -> str:
    """The role that a runbook runs as, empty for whoever starts it; raises Refused."""
    given = runbook.given(raw, told)
    return text(runbook.filled(raw.get("assumeRole") or "", lookup(given, {}, {}))).strip()


@EXECUTION.operation(
    "StartAutomationExecution",
    asks=[
        Ask(
            "ssm:StartAutomationExecution", _this_document,
            given={"ssm:DocumentVersion": each("DocumentVersion"), "ssm:DocumentType": lambda _: "Automation"},
        ),
        Ask("iam:PassRole", _role, given={"iam:PassedToService": lambda _: PRINCIPAL}),
    ],
)  # fmt: skip
def start(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    for name in _REFUSED:
        if given.get(name):
            raise Refused("ValidationException", f"{name} is not supported by Bastide yet; please leave it out.")
    if given.get("Mode") == "Interactive":
        raise Refused("ValidationException", "Mode: executions are Auto; Bastide has no interactive ones.")

    def make() -> Output:
        try:
            row = document.found(tx, a.account, a.region, given["DocumentName"])
        except Refused as refused:
            raise Refused("AutomationDefinitionNotFoundException", refused.message) from None
        try:
            held = document.version(tx, row, given.get("DocumentVersion"))
        except Refused as refused:
            raise Refused("AutomationDefinitionVersionNotFoundException", refused.message) from None
        raw = runbook.read(held.doc["content"])
        told = given.get("Parameters") or {}
        parameters, role = runbook.given(raw, told), _assumed(raw, told)
        who = {} if role else standing.kept(a.caller)
        if who is None:
            raise Refused("ValidationException", "An automation without a role needs a caller with credentials.")
        doc = {
            "document": row.name, "version": str(held.doc["number"]), "content": held.doc["content"], "role": role,
            "who": who, "by": a.caller.arn, "at": raw["mainSteps"][0]["name"], "began": tx.now,
            "state": seal(a.calls, {"parameters": parameters, "outputs": {}, "steps": []}),
        }  # fmt: skip
        execution = EXECUTION.create(a, tx, new_id(), doc, status="InProgress")
        return {"AutomationExecutionId": execution.name}

    return once(a, tx, given.get("ClientToken"), make, code="IdempotentParameterMismatch")


@EXECUTION.operation("StopAutomationExecution", asks=[Ask("ssm:StopAutomationExecution", EXECUTION.this)])
def stop(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("Type") == "Complete":
        raise Refused("ValidationException", "Type: executions are stopped with Cancel; Complete is not supported yet.")
    row = EXECUTION.find(tx, a.account, a.region, a.input["AutomationExecutionId"])
    if row.status in OVER:
        raise Refused("InvalidAutomationStatusUpdateException", f"The execution {row.name} is over: {row.status}.")
    row.status = STOPPING
    EXECUTION.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- looking -----------------------------------------------------------------------------------------------------------


def listed(value: Any) -> list[str]:
    """A value as lists of texts show it."""
    parts = value if isinstance(value, list) else [value]
    return [orjson.dumps(one).decode() if isinstance(one, dict | list) else text(one) for one in parts]


def _brief(a: Authorised, row: Row) -> Output:
    doc = row.doc
    told: Output = {
        "AutomationExecutionId": row.name, "DocumentName": doc["document"], "DocumentVersion": doc["version"],
        "AutomationExecutionStatus": row.status, "ExecutionStartTime": doc["began"], "Mode": "Auto",
        "ExecutedBy": doc["by"],
        "Outputs": {name: listed(one) for name, one in opened(a.calls, doc["outputs"]).items()} if "outputs" in doc else {},
    }  # fmt: skip
    for member, value in (
        ("ExecutionEndTime", doc.get("ended")), ("FailureMessage", doc.get("failure")),
    ):  # fmt: skip
        if value:
            told[member] = value
    if row.status not in OVER:
        told["CurrentStepName"] = doc["at"]
    return told


@EXECUTION.reads("GetAutomationExecution", asks=[Ask("ssm:GetAutomationExecution", EXECUTION.this)])
def get(a: Authorised, view: View) -> Output:
    row = EXECUTION.find(view, a.account, a.region, a.input["AutomationExecutionId"])
    state = opened(a.calls, row.doc["state"])
    return {
        "AutomationExecution": {
            **_brief(a, row), "StepExecutions": state["steps"], "StepExecutionsTruncated": False,
            "Parameters": {name: listed(one) for name, one in state["parameters"].items()},
        }
    }  # fmt: skip


@EXECUTION.reads("DescribeAutomationStepExecutions", asks=[Ask("ssm:DescribeAutomationStepExecutions", EXECUTION.this)])
def steps(a: Authorised, view: View) -> Output:
    if a.input.get("Filters"):
        raise Refused("InvalidFilterKey", "Filters of steps are not supported by Bastide yet.")
    row = EXECUTION.find(view, a.account, a.region, a.input["AutomationExecutionId"])
    found = opened(a.calls, row.doc["state"])["steps"]
    return {"StepExecutions": list(reversed(found)) if a.input.get("ReverseOrder") else found}


def _wanted(a: Authorised, row: Row) -> bool:
    for one in a.input.get("Filters") or ():
        key, values = one["Key"], one["Values"]
        if key == "DocumentNamePrefix":
            fits = any(row.doc["document"].startswith(value) for value in values)
        elif key == "ExecutionStatus":
            fits = row.status in values
        elif key == "ExecutionId":
            fits = row.name in values
        else:
            raise Refused(
                "InvalidFilterKey", f"{key} is not supported: DocumentNamePrefix, ExecutionStatus, ExecutionId."
            )
        if not fits:
            return False
    return True


@EXECUTION.reads("DescribeAutomationExecutions", asks=[Ask("ssm:DescribeAutomationExecutions", anything)])
def executions(a: Authorised, view: View) -> Output:
    limit = int(a.input.get("MaxResults") or _PAGE)
    after = pages.position(a, a.input.get("NextToken"))
    rows = view.scan(
        EXECUTION.key, a.account, a.region, order="created", descending=True, after=tuple(after) if after else None,
        limit=limit + 1,
    )  # fmt: skip
    told = [{**_brief(a, row), "AutomationType": "Local"} for row in rows[:limit] if _wanted(a, row)]
    last = rows[limit - 1] if len(rows) > limit else None
    return {
        "AutomationExecutionMetadataList": told,
        **({"NextToken": pages.seal(a, [last.created, last.name])} if last is not None else {}),
    }
