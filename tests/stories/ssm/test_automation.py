"""Runbooks: what they do, as whom, and what stops them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.waiting import until

SSM = {"Service": "ssm.amazonaws.com"}


def step(name: str, action: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A step of a runbook."""
    return {"name": name, "action": f"aws:{action}", "inputs": inputs, **more}


def runbook(*steps: dict[str, Any], **more: Any) -> str:
    """A runbook's text."""
    return json.dumps({"schemaVersion": "0.3", **more, "mainSteps": list(steps)})


PUT = {"Service": "ssm", "Api": "PutParameter", "Type": "String", "Overwrite": True}
GET = {"Service": "ssm", "Api": "GetParameter"}
VALUE = {"PropertySelector": "$.Parameter.Value"}
BOOK = runbook(
    step("write", "executeAwsApi", {**PUT, "Name": "{{ Name }}", "Value": "{{ Value }} of {{ automation:EXECUTION_ID }}"},
         outputs=[{"Name": "Version", "Selector": "$.Version", "Type": "Integer"}]),
    step("choose", "branch", {"Choices": [
        {"NextStep": "nowhere", "Variable": "{{ write.Version }}", "NumericGreater": 1},
        {"NextStep": "check", "Not": {"Variable": "{{ Value }}", "StringEquals": "other"}},
    ], "Default": "nowhere"}),
    step("nowhere", "assertAwsResourceProperty", {**GET, "Name": "{{ Name }}", **VALUE, "DesiredValues": ["no"]},
         isEnd=True),
    step("check", "waitForAwsResourceProperty", {**GET, "Name": "{{ Flag }}", **VALUE, "DesiredValues": ["go"]},
         timeoutSeconds=60),
    step("rest", "sleep", {"Duration": "PT1S"}),
    step("read", "executeAwsApi", {"Service": "ssm", "Api": "get_parameters", "Names": ["{{ Name }}"]},
         outputs=[{"Name": "Found", "Selector": "$.Parameters[*].Value", "Type": "StringList"}]),
    description="Writes and reads", assumeRole="{{ Role }}", outputs=["read.Found"],
    parameters={
        "Name": {"type": "String", "allowedPattern": "[a-z]+"}, "Value": {"type": "String", "default": "one"},
        "Flag": {"type": "String", "default": "flag"}, "Role": {"type": "String", "default": ""},
    },
)  # fmt: skip


def ended(ssm: Any, id: str) -> dict[str, Any]:
    """An execution that is over."""

    def look() -> dict[str, Any] | None:
        held: dict[str, Any] = ssm.get_automation_execution(AutomationExecutionId=id)["AutomationExecution"]
        over = held["AutomationExecutionStatus"] in ("Success", "Failed", "Cancelled", "TimedOut")
        return held if over else None

    found: dict[str, Any] = until(look)
    return found


def _refused(call: Any, **given: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def test_a_runbook_runs_as_its_role(account: Account) -> None:
    ssm = account.client("ssm")
    made = ssm.create_document(
        Name="book", DocumentType="Automation", Content=BOOK, Tags=[{"Key": "of", "Value": "us"}]
    )
    told = made["DocumentDescription"]
    assert (told["DocumentVersion"], told["SchemaVersion"], told["Owner"]) == ("1", "0.3", account.id)
    assert [one["Name"] for one in told["Parameters"]] == ["Name", "Value", "Flag", "Role"]
    role = account.role("Books", allow("ssm:PutParameter", "ssm:GetParameter*"), trust=SSM)
    account.role("Starter", allow("ssm:StartAutomationExecution", "ssm:GetAutomationExecution"))
    starter = account.client("ssm", account.as_role("Starter"))
    given = {"Name": ["first"], "Role": [role]}
    code, message = _refused(starter.start_automation_execution, DocumentName="book", Parameters=given)
    assert code == "AccessDeniedException" and "iam:PassRole" in message
    account.client("iam").put_role_policy(
        RoleName="Starter", PolicyName="pass",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role,
             "Condition": {"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}}}]}),
    )  # fmt: skip
    ssm.put_parameter(Name="flag", Type="String", Value="stay")
    id = starter.start_automation_execution(DocumentName="book", Parameters=given)["AutomationExecutionId"]

    def waits() -> bool:
        held = ssm.get_automation_execution(AutomationExecutionId=id)["AutomationExecution"]
        return bool(held.get("CurrentStepName") == "check")

    until(waits)
    ssm.put_parameter(Name="flag", Value="go", Overwrite=True)
    held = ended(ssm, id)
    assert held["AutomationExecutionStatus"] == "Success", held
    assert held["Outputs"] == {"read.Found": [f"one of {id}"]}
    assert [one["StepName"] for one in held["StepExecutions"]] == ["write", "choose", "check", "rest", "read"]
    assert ssm.get_parameter_history(Name="first")["Parameters"][0]["LastModifiedUser"].endswith(f"/Automation-{id}")
    # Without the role it is whoever starts it, who may not write.
    id = starter.start_automation_execution(DocumentName="book", Parameters={"Name": ["first"]})[
        "AutomationExecutionId"
    ]
    held = ended(ssm, id)
    assert held["AutomationExecutionStatus"] == "Failed" and "ssm:PutParameter" in held["FailureMessage"]
    # Another time the version is 2, so that it goes nowhere.
    id = ssm.start_automation_execution(DocumentName="book", Parameters={"Name": ["first"]})["AutomationExecutionId"]
    held = ended(ssm, id)
    assert held["AutomationExecutionStatus"] == "Failed" and "not one of no" in held["FailureMessage"]
    listed = ssm.describe_automation_executions(Filters=[{"Key": "ExecutionStatus", "Values": ["Success"]}])
    assert len(listed["AutomationExecutionMetadataList"]) == 1


def test_what_fails_is_gone_on_with_or_stopped(account: Account) -> None:
    ssm = account.client("ssm")
    lost = {"Service": "ssm", "Api": "GetParameter", "Name": "nobody"}
    book = runbook(
        step("a", "executeAwsApi", lost, onFailure="Continue", isCritical=False),
        step("b", "executeAwsApi", lost, onFailure="step:d"),
        step("c", "executeAwsApi", lost),
        step("d", "executeAwsApi", {**PUT, "Name": "d", "Value": "d"}),
    )
    ssm.create_document(Name="goes-on", DocumentType="Automation", Content=book)
    id = ssm.start_automation_execution(DocumentName="goes-on")["AutomationExecutionId"]
    held = ended(ssm, id)
    assert [(one["StepName"], one["StepStatus"]) for one in held["StepExecutions"]] == [
        ("a", "Failed"), ("b", "Failed"), ("d", "Success"),
    ]  # fmt: skip
    assert held["AutomationExecutionStatus"] == "Failed" and "Step b failed" in held["FailureMessage"]
    assert ssm.get_parameter(Name="d")["Parameter"]["Version"] == 1
    ssm.update_document(
        Name="goes-on", DocumentVersion="$LATEST", Content=runbook(step("s", "sleep", {"Duration": "P1D"}))
    )
    ssm.update_document_default_version(Name="goes-on", DocumentVersion="2")
    id = ssm.start_automation_execution(DocumentName="goes-on")["AutomationExecutionId"]
    until(lambda: ssm.describe_automation_step_executions(AutomationExecutionId=id)["StepExecutions"])
    ssm.stop_automation_execution(AutomationExecutionId=id, Type="Cancel")
    assert ended(ssm, id)["AutomationExecutionStatus"] == "Cancelled"
    assert (
        _refused(ssm.stop_automation_execution, AutomationExecutionId=id)[0] == "InvalidAutomationStatusUpdateException"
    )
    ssm.delete_document(Name="goes-on")
    assert (
        _refused(ssm.start_automation_execution, DocumentName="goes-on")[0] == "AutomationDefinitionNotFoundException"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSON not well-formed"),
        (json.dumps({"schemaVersion": "2.2", "mainSteps": []}), "schemaVersion 0.3"),
        (runbook(step("a", "runCommand", {})), "aws:executeAwsApi"),
        (runbook(step("a", "executeAwsApi", {"Service": "ssm"})), "lacks the input Api"),
        (runbook(step("a", "sleep", {"Duration": "PT1S"}, nextStep="b")), "goes on with b"),
        (runbook(step("a", "sleep", {"Duration": "PT1S"}, onCancel="step:b")), "onCancel"),
    ],
)
def test_documents_that_are_no_runbooks(account: Account, content: str, words: str) -> None:
    code, message = _refused(
        account.client("ssm").create_document, Name="none", DocumentType="Automation", Content=content
    )
    assert code.startswith("InvalidDocument") and words in message
