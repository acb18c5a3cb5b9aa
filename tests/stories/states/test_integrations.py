"""What tasks call: functions, other machines, every service there is; and with whose permissions."""

from __future__ import annotations

import base64
import json

from tests.platform import Account, allow
from tests.stories.lambda_.conftest import LAMBDA, Bench
from tests.stories.states.conftest import STATES, Machines, machines_of

FUNCTION = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("boom")
    return {"doubled": event["n"] * 2}
"""


def test_functions(account: Account) -> None:
    bench = Bench(account, account.role("Function", allow("logs:*"), trust=LAMBDA), account.client("lambda"))
    name = bench.make(FUNCTION)
    arn = f"arn:aws:lambda:us-east-1:{account.id}:function:{name}"
    machines = machines_of(account, "lambda:InvokeFunction")
    invoke = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke"}
    found = machines.ran(
        {
            "A": {
                **invoke,
                "Parameters": {"FunctionName": name, "Payload.$": "$"},
                "OutputPath": "$.Payload",
                "Next": "B",
            },
            "B": {
                "Type": "Task",
                "Resource": arn,
                "Parameters": {"n.$": "$.doubled"},
                "ResultPath": "$.b",
                "Next": "C",
            },
            "C": {
                **invoke,
                "Parameters": {"FunctionName": arn, "Payload": {"fail": True}},
                "Catch": [{"ErrorEquals": ["ValueError"], "ResultPath": "$.c", "Next": "D"}],
                "End": True,
            },
            "D": {"Type": "Pass", "End": True},
        },
        {"n": 4},
    )
    assert found["status"] == "SUCCEEDED", (found["error"], found["cause"])
    assert (found["output"]["doubled"], found["output"]["b"]) == (8, {"doubled": 16})
    assert json.loads(found["output"]["c"]["Cause"])["errorMessage"] == "boom"
    types = machines.types(found["executionArn"])
    assert "LambdaFunctionSucceeded" in types and "TaskFailed" in types


def test_a_token_that_somebody_else_returns(machines: Machines) -> None:
    other = machines.made({"W": {"Type": "Wait", "Seconds": 600, "End": True}})
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.waitForTaskToken",
        "Parameters": {"StateMachineArn": other, "Input": {"token.$": "$$.Task.Token"}},
        "End": True,
    }
    arn = machines.started(machines.made({"T": task}))
    machines.until(arn, "TaskSubmitted")
    [child] = machines.states.list_executions(stateMachineArn=other)["executions"]
    told = json.loads(machines.states.describe_execution(executionArn=child["executionArn"])["input"])
    machines.states.send_task_success(taskToken=told["token"], output='{"yes": true}')
    assert machines.ended(arn)["output"] == {"yes": True}


def test_credentials_of_another_role(account: Account, neighbour: Account) -> None:
    """A task's role is taken on by the machine's role, not by the service: naming it is not enough."""
    machines = machines_of(account, "sts:AssumeRole")
    theirs = f"arn:aws:iam::{neighbour.id}:role/Theirs"
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:sts:getCallerIdentity",
        "Credentials": {"RoleArn": theirs},
        "End": True,
    }
    # A role that trusts Step Functions, and nobody of this account, is none that a machine here may use.
    neighbour.role("Theirs", allow("s3:*"), trust=STATES)
    found = machines.ran({"T": state})
    assert (found["status"], found["error"]) == ("FAILED", "States.Permissions")
    machine = machines.made({"T": state}, name="crossing")
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": machines.role}, "Action": "sts:AssumeRole",
             "Condition": {"StringEquals": {"sts:ExternalId": machine}}}
        ],
    }  # fmt: skip
    neighbour.client("iam").update_assume_role_policy(RoleName="Theirs", PolicyDocument=json.dumps(document))
    found = machines.ended(machines.started(machine))
    assert found["status"] == "SUCCEEDED", (found["error"], found["cause"])
    assert found["output"]["Account"] == neighbour.id


def test_any_operation_of_any_service(machines: Machines) -> None:
    account = machines.account
    role = account.role("Broad", allow("kms:*", "ssm:*", "s3:*", "secretsmanager:*"), trust=STATES)
    key = account.client("kms").create_key()["KeyMetadata"]["KeyId"]
    bucket = f"broad-{account.id}"

    def task(operation: str, following: str, **more: object) -> dict[str, object]:
        where = {"Next": following} if following else {"End": True}
        return {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{operation}", **where, **more}

    text = base64.b64encode(b"hello").decode()
    found = machines.ran(
        {
            "Seal": task("kms:encrypt", "Open", Parameters={"KeyId": key, "Plaintext": text}, ResultPath="$.sealed"),
            "Open": task("kms:decrypt", "Make", Parameters={"CiphertextBlob.$": "$.sealed.CiphertextBlob"},
                         ResultPath="$.opened"),
            "Make": task("s3:createBucket", "Put", Parameters={"Bucket": bucket}, ResultPath=None),
            "Put": task("s3:putObject", "Get", Parameters={"Bucket": bucket, "Key": "k", "Body": {"a": 1}},
                        ResultPath=None),
            "Get": task("s3:getObject", "Secret", Parameters={"Bucket": bucket, "Key": "k"}, ResultPath="$.got"),
            "Secret": task("secretsmanager:createSecret", "Missing", Parameters={"Name": "s", "SecretString": "x"},
                           ResultPath="$.secret"),
            "Missing": task("ssm:getParameter", "", Parameters={"Name": "nobody"},
                            Catch=[{"ErrorEquals": ["Ssm.ParameterNotFoundException"], "ResultPath": "$.e", "Next": "D"}]),
            "D": {"Type": "Pass", "End": True},
        },
        {},
        roleArn=role,
    )  # fmt: skip
    assert found["status"] == "SUCCEEDED", (found["error"], found["cause"])
    output = found["output"]
    assert output["opened"]["Plaintext"] == text
    assert json.loads(output["got"]["Body"]) == {"a": 1}
    assert output["got"]["LastModified"].endswith("Z")
    assert output["secret"]["Name"] == "s" and "SdkHttpMetadata" not in output["secret"]


def test_messages_and_events(account: Account) -> None:
    sqs, sns = account.client("sqs"), account.client("sns")
    queue = sqs.create_queue(QueueName="work")["QueueUrl"]
    topic = sns.create_topic(Name="news")["TopicArn"]
    machines = machines_of(account, "sqs:SendMessage", "sns:Publish", "events:PutEvents")
    entry = {"Source": "ours", "DetailType": "t", "Detail": {"of.$": "$$.Execution.Name"}, "EventBusName": "default"}
    arn = machines.started(
        machines.made(
            {
                "Tell": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::sns:publish",
                    "Parameters": {"TopicArn": topic, "Message": {"a": 1}},
                    "ResultPath": "$.told",
                    "Next": "Event",
                },
                "Event": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::events:putEvents",
                    "Parameters": {"Entries": [entry]},
                    "ResultPath": "$.event",
                    "Next": "Ask",
                },
                "Ask": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
                    "Parameters": {"QueueUrl": queue, "MessageBody": {"token.$": "$$.Task.Token"}},
                    "ResultPath": "$.answer",
                    "Next": "Nobody",
                },
                "Nobody": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::sqs:sendMessage",
                    "Parameters": {"QueueUrl": f"{queue}-none", "MessageBody": "x"},
                    "Catch": [{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.e", "Next": "End"}],
                    "Next": "End",
                },
                "End": {"Type": "Pass", "End": True},
            }
        )
    )
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20)["Messages"]
    token = json.loads(message["Body"])["token"]
    machines.states.send_task_success(taskToken=token, output='"fine"')
    found = machines.ended(arn)
    assert found["status"] == "SUCCEEDED", (found["error"], found["cause"])
    output = found["output"]
    assert output["answer"] == "fine" and output["told"]["MessageId"] and output["event"]["FailedEntryCount"] == 0
    assert output["e"]["Error"].startswith("SQS.")
