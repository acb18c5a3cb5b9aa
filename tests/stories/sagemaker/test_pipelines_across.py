"""Steps of pipelines that other services take part in: functions that are called, queues that get a token."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest

from bastide.engines import images
from tests.moved import until
from tests.platform import allow
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.pipelines import (
    create,
    definition,
    furnish,
    get,
    over,
    process,
    reasons,
    start,
    steps,
    wait_for,
)

FUNCTION = b"""
def handler(event, context):
    if event['rate'] > 1:
        raise ValueError('too much')
    return {'twice': event['rate'] * 2, 'fine': True, 'word': 'w'}
"""


def function(shop: Workshop) -> str:
    images.build("lambda")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", FUNCTION)
    role = shop.account.role("Function", allow("logs:*"), trust={"Service": "lambda.amazonaws.com"})
    client = shop.account.client("lambda")
    client.create_function(
        FunctionName="double",
        Runtime="python3.11",
        Handler="index.handler",
        Role=role,
        Code={"ZipFile": packed.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName="double", WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    arn: str = client.get_function(FunctionName="double")["Configuration"]["FunctionArn"]
    return arn


def grant(shop: Workshop, *actions: str) -> None:
    shop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="across", PolicyDocument=json.dumps(allow(*actions))
    )


def outputs(**types: str) -> list[dict[str, str]]:
    return [{"OutputName": name, "OutputType": type} for name, type in types.items()]


@pytest.mark.control("EXP-18")
def test_a_function_is_a_step_with_typed_outputs(workshop: Workshop) -> None:
    furnish(workshop)
    arn = function(workshop)
    call: dict[str, Any] = {
        "Name": "Double", "Type": "Lambda", "FunctionArn": arn, "Arguments": {"rate": get("Parameters.Rate")},
        "OutputParameters": outputs(twice="Float", fine="Boolean"),
        "CacheConfig": {"Enabled": True, "ExpireAfter": "P1D"},
    }  # fmt: skip
    value = get("Steps.Double.OutputParameters['twice']")
    check = {
        "Name": "Check", "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {"Type": "Equals", "LeftValue": value, "RightValue": 0.5},
                {"Type": "Equals", "LeftValue": get("Steps.Double.OutputParameters['fine']"), "RightValue": True},
            ],
            "IfSteps": [process(workshop, "Good", "print(1)")],
        },
    }  # fmt: skip
    create(workshop, "p", definition(call, check))
    first = start(workshop, "p")
    assert over(workshop, first)["PipelineExecutionStatus"] == "Failed"  # the role may not call it yet
    assert "lambda:Invoke" in steps(workshop, first)["Double"]["FailureReason"]
    grant(workshop, "lambda:InvokeFunction")
    for cached in (False, True):
        run = start(workshop, "p")
        assert over(workshop, run)["PipelineExecutionStatus"] == "Succeeded", reasons(workshop, run)
        found = steps(workshop, run)
        assert set(found) == {"Double", "Check", "Good"} and ("CacheHitResult" in found["Double"]) is cached
        told = {one["Name"]: one["Value"] for one in found["Double"]["Metadata"]["Lambda"]["OutputParameters"]}
        assert told == {"twice": "0.5", "fine": "true"}
    wrong = {**call, "OutputParameters": outputs(word="Integer"), "CacheConfig": {"Enabled": False}}
    dear = {**wrong, "Name": "Dear", "Arguments": {"rate": 2}, "OutputParameters": []}
    create(workshop, "q", definition(wrong, dear))
    run = start(workshop, "q")
    assert over(workshop, run)["PipelineExecutionStatus"] == "Failed"
    found = steps(workshop, run)
    assert "word is no Integer" in found["Double"]["FailureReason"] and "too much" in found["Dear"]["FailureReason"]


def test_a_step_is_tried_again_as_its_policy_says(workshop: Workshop) -> None:
    """A function that may not run now is called again until it may; or as often as is said."""
    furnish(workshop)
    arn, client = function(workshop), workshop.account.client("lambda")
    grant(workshop, "lambda:InvokeFunction")
    client.put_function_concurrency(FunctionName="double", ReservedConcurrentExecutions=0)
    patient = {"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 0.2, "BackoffRate": 1.0, "MaxAttempts": 20}
    call = {"Type": "Lambda", "FunctionArn": arn, "Arguments": {"rate": 1}}
    create(workshop, "p", definition({**call, "Name": "Patient", "RetryPolicies": [patient]}))
    create(workshop, "q", definition({**call, "Name": "Brief", "RetryPolicies": [{**patient, "MaxAttempts": 2}]}))
    runs = [start(workshop, "p"), start(workshop, "q")]
    assert over(workshop, runs[1])["PipelineExecutionStatus"] == "Failed"
    brief = steps(workshop, runs[1])["Brief"]
    assert brief["AttemptCount"] == 3 and "lambda:Invoke" in brief["FailureReason"]
    until(lambda: steps(workshop, runs[0])["Patient"]["AttemptCount"] > 1)
    client.delete_function_concurrency(FunctionName="double")
    assert over(workshop, runs[0])["PipelineExecutionStatus"] == "Succeeded", reasons(workshop, runs[0])


@pytest.mark.control("EXP-18")
def test_a_queue_gets_a_token_that_somebody_answers(workshop: Workshop) -> None:
    furnish(workshop)
    sqs, client = workshop.account.client("sqs"), workshop.sagemaker
    queue = sqs.create_queue(QueueName="asks")["QueueUrl"]
    grant(workshop, "sqs:SendMessage")
    ask = {
        "Name": "Ask", "Type": "Callback", "SqsQueueUrl": queue, "Arguments": {"rate": get("Parameters.Rate")},
        "OutputParameters": outputs(rows="Integer", uri="String"),
    }  # fmt: skip
    rows = get("Steps.Ask.OutputParameters['rows']")
    enough = {"Type": "GreaterThan", "LeftValue": rows, "RightValue": 5}
    check = {"Name": "Check", "Type": "Condition", "Arguments": {"Conditions": [enough], "IfSteps": []}}
    create(workshop, "p", definition(ask, check))

    def received(arn: str) -> dict[str, Any]:
        until(lambda: bool(messages) or bool(messages.extend(sqs.receive_message(QueueUrl=queue).get("Messages", []))))
        [message] = messages
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        messages.clear()
        told: dict[str, Any] = json.loads(message["Body"])
        assert told["pipelineExecutionArn"] == arn
        return told

    messages: list[Any] = []
    arn = start(workshop, "p")
    told = received(arn)
    assert told["arguments"] == {"rate": 0.25} and told["status"] == "Executing"
    callback = wait_for(workshop, arn, "Ask", "Executing")["Metadata"]["Callback"]
    assert callback["CallbackToken"] == told["token"] and callback["SqsQueueUrl"] == queue
    answer = client.send_pipeline_execution_step_success
    with pytest.raises(client.exceptions.ClientError, match="rows is no Integer"):
        answer(CallbackToken=told["token"], OutputParameters=[{"Name": "rows", "Value": "many"}])
    given = [{"Name": "rows", "Value": "7"}, {"Name": "uri", "Value": "s3://b/k"}]
    assert answer(CallbackToken=told["token"], OutputParameters=given)["PipelineExecutionArn"] == arn
    assert over(workshop, arn)["PipelineExecutionStatus"] == "Succeeded", reasons(workshop, arn)
    found = steps(workshop, arn)
    assert found["Ask"]["Metadata"]["Callback"]["OutputParameters"] == given
    assert found["Check"]["Metadata"]["Condition"]["Outcome"] == "True"
    with pytest.raises(client.exceptions.ResourceNotFound):
        answer(CallbackToken=told["token"], OutputParameters=given)

    arn = start(workshop, "p")
    client.send_pipeline_execution_step_failure(CallbackToken=received(arn)["token"], FailureReason="no rows")
    assert over(workshop, arn)["PipelineExecutionStatus"] == "Failed"
    assert steps(workshop, arn)["Ask"]["FailureReason"] == "ClientError: no rows"

    arn = start(workshop, "p")
    token = received(arn)["token"]
    wait_for(workshop, arn, "Ask", "Executing")
    client.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert received(arn) == {"token": token, "pipelineExecutionArn": arn, "status": "Stopping"}
    assert client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    client.send_pipeline_execution_step_failure(CallbackToken=token)
    assert over(workshop, arn)["PipelineExecutionStatus"] == "Stopped"


@pytest.mark.control("EXP-18")
def test_an_event_starts_a_pipeline_that_a_stack_made(workshop: Workshop) -> None:
    """With a value of the event as a parameter, by a role that EventBridge takes on."""
    furnish(workshop)
    told = definition({"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": get("Parameters.Raw")}})
    properties = {
        "PipelineName": "lines",
        "RoleArn": workshop.role,
        "PipelineDefinition": {"PipelineDefinitionBody": json.dumps(told)},
    }
    resources = {"Lines": {"Type": "AWS::SageMaker::Pipeline", "Properties": properties}}
    stacks = workshop.account.client("cloudformation")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps({"Resources": resources}))
    stacks.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    pipeline = workshop.sagemaker.describe_pipeline(PipelineName="lines")["PipelineArn"]
    starts = allow("sagemaker:StartPipelineExecution", resource=pipeline)
    role = workshop.account.role("Starts", starts, trust={"Service": "events.amazonaws.com"})
    events = workshop.account.client("events")
    events.put_rule(Name="begin", EventPattern=json.dumps({"source": ["mine"]}))
    parameters = {"PipelineParameterList": [{"Name": "Raw", "Value": "$.detail.where"}]}
    target = {"Id": "p", "Arn": pipeline, "RoleArn": role, "SageMakerPipelineParameters": parameters}
    assert events.put_targets(Rule="begin", Targets=[target])["FailedEntryCount"] == 0
    events.put_events(
        Entries=[{"Source": "mine", "DetailType": "t", "Detail": json.dumps({"where": "from the event"})}]
    )

    def runs() -> list[str]:
        listed = workshop.sagemaker.list_pipeline_executions(PipelineName="lines")["PipelineExecutionSummaries"]
        return [one["PipelineExecutionArn"] for one in listed]

    until(lambda: len(runs()) == 1)
    [arn] = runs()
    assert over(workshop, arn)["PipelineExecutionStatus"] == "Failed"
    assert steps(workshop, arn)["Stop"]["FailureReason"] == "from the event"
    stacks.delete_stack(StackName="s")
    until(lambda: workshop.sagemaker.list_pipelines()["PipelineSummaries"] == [])
