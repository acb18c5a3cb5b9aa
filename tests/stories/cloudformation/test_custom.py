"""Resources that a function makes, from a template that brings the function."""

from __future__ import annotations

from typing import Any

import pytest

from tests.platform import Account
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template

CODE = """
import cfnresponse, boto3, json

def handler(event, context):
    asked = event["ResourceProperties"]
    print(json.dumps({key: event[key] for key in event if key != "ResponseURL"}))
    if asked.get("Fail") == event["RequestType"]:
        cfnresponse.send(event, context, cfnresponse.FAILED, {}, "failed", reason="it was told to fail")
        return
    told = {"Doubled": int(asked["Number"]) * 2, "Was": event.get("OldResourceProperties", {}).get("Number", "")}
    cfnresponse.send(event, context, cfnresponse.SUCCESS, told, "thing-" + asked.get("Name", "one"))
"""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def _body(number: int, *, more: dict[str, Any] | None = None, **asked: Any) -> str:
    logs = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    return template(
        {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"AssumeRolePolicyDocument": TRUST, "ManagedPolicyArns": [logs]},
            },
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.11",
                    "Handler": "index.handler",
                    "Timeout": 20,
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"ZipFile": CODE},
                },
            },
            "Thing": {
                "Type": "Custom::Thing",
                "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, "Number": number, **asked},
            },
            "After": parameter({"Fn::Sub": "${Thing} ${Thing.Doubled} ${Thing.Was}"}),
            **(more or {}),
        }
    )


@pytest.fixture
def stacks(account: Account) -> Stacks:
    return Stacks(account)


def test_a_function_makes_changes_and_removes(stacks: Stacks) -> None:
    made = stacks.create("s", _body(21))
    assert made["StackStatus"] == "CREATE_COMPLETE", [one for one in stacks.story("s") if "FAILED" in one[1]]
    physical = stacks.physical("s")
    assert physical["Thing"] == "thing-one" and stacks.value(physical["After"]) == "thing-one 42 "
    assert stacks.update("s", _body(4, Name="two"))["StackStatus"] == "UPDATE_COMPLETE", stacks.story("s")
    assert stacks.value(physical["After"]) == "thing-two 8 21"
    assert ("Thing", "DELETE_COMPLETE", "") in stacks.story("s")
    failing = _body(5, Name="two", Fail="Update")
    assert stacks.update("s", failing)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stacks.story("s")
    assert any("it was told to fail" in reason for _, _, reason in stacks.story("s"))
    worse = _body(6, Name="two", more={"Bad": nobody("After")})
    assert stacks.update("s", worse)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.value(physical["After"]) == "thing-two 8 21"
    id = stacks.delete("s")["StackId"]
    assert stacks.get(id)["StackStatus"] == "DELETE_COMPLETE", stacks.story(id)
