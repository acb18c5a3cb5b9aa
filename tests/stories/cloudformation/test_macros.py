"""Macros: functions that change templates before they are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks, parameter, template

CODE = """
import json

def handler(event, context):
    told = {"requestId": event["requestId"], "status": "success"}
    fragment, word = event["fragment"], event["params"].get("Word")
    if word == "fail":
        return {**told, "status": "failure", "errorMessage": "it says no"}
    if word == "raise":
        raise ValueError(word)
    if word == "tell":
        fragment["Resources"]["P"]["Properties"]["Value"] = json.dumps(event)
        return {**told, "fragment": fragment}
    if word == "list":
        return {**told, "fragment": [word]}
    if word == "role":
        fragment["Resources"]["R"] = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "more"}}
        return {**told, "fragment": fragment}
    if not isinstance(fragment, dict) or not fragment:
        return {**told, "fragment": "made of " + str(word)}
    return {**told, "fragment": json.loads(json.dumps(fragment).replace("<here>", str(word) + " <here>"))}
"""


@pytest.fixture(name="stacks")
def fixture_stacks(account: Account) -> Stacks:
    """An account with the macro Say."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    properties = {
        "Runtime": "python3.12", "Handler": "index.handler", "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"ZipFile": CODE},
    }  # fmt: skip
    resources = {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}},
        },
        "Function": {"Type": "AWS::Lambda::Function", "Properties": properties},
        "Macro": {
            "Type": "AWS::CloudFormation::Macro",
            "Properties": {"Name": "Say", "FunctionName": {"Fn::GetAtt": ["Function", "Arn"]}},
        },
    }
    stacks = Stacks(account)
    told = stacks.create("macros", template(resources, Outputs={"Name": {"Value": {"Ref": "Macro"}}}))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story("macros")
    assert stacks.outputs("macros") == {"Name": "Say"}
    return stacks


def _say(word: Any) -> dict[str, Any]:
    return {"Name": "Say", "Parameters": {"Word": word}}


BOTH: dict[str, Any] = {"Capabilities": ["CAPABILITY_AUTO_EXPAND", "CAPABILITY_NAMED_IAM"]}


def test_macros_change_templates(stacks: Stacks) -> None:
    client = stacks.client

    def processed(name: str, body: str, **more: Any) -> dict[str, Any]:
        client.create_stack(StackName=name, TemplateBody=body, **BOTH, **more)
        assert stacks.settled(name)["StackStatus"] == "CREATE_COMPLETE", stacks.story(name)
        told = client.get_template(StackName=name, TemplateStage="Processed")
        assert client.get_template(StackName=name)["TemplateBody"] == json.loads(body)
        found: dict[str, Any] = told["TemplateBody"]
        return found

    # The innermost first, in the order that is written; then those over the whole template.
    inner = parameter("<here>")
    inner["Properties"]["Fn::Transform"] = [_say("one"), _say({"Ref": "Word"})]
    more = {"Parameters": {"Word": {"Type": "String", "Default": "two"}}}
    body = template({"P": inner}, Transform=[_say("three"), "Say", _say("role")], **more)
    found = processed("order", body)
    assert found["Resources"]["P"]["Properties"] == {"Type": "String", "Value": "one two three None <here>"}
    assert "R" in found["Resources"] and "Transform" not in found
    # A macro that stands alone gives the value; functions come as they are written.
    found = processed("alone", template({"P": parameter({"Fn::Transform": _say("x")})}))
    assert found["Resources"]["P"]["Properties"]["Value"] == "made of x"
    found = processed("tell", template({"P": parameter("v")}, Transform=_say("tell"), **more))
    event = json.loads(found["Resources"]["P"]["Properties"]["Value"])
    assert event["transformId"] == f"{stacks.account.id}::Say" and event["accountId"] == stacks.account.id
    assert event["params"] == {"Word": "tell"} and event["templateParameterValues"] == {"Word": "two"}
    assert set(event["fragment"]) == {"AWSTemplateFormatVersion", "Parameters", "Resources"}


def test_macros_that_fail(stacks: Stacks, account: Account) -> None:
    client, id = stacks.client, f"{account.id}::Say"

    def refused(body: str, client: Any = client, **more: Any) -> str:
        with pytest.raises(ClientError) as caught:
            client.create_stack(StackName="s", TemplateBody=body, **{**BOTH, **more})
        return str(caught.value.response["Error"]["Message"])

    whole = {"P": parameter("v")}
    unseen = refused(template(whole, Transform="Say"), Capabilities=["CAPABILITY_IAM"])
    assert unseen == "Requires capabilities : [CAPABILITY_AUTO_EXPAND]"
    assert "No transform named" in refused(template(whole, Transform="Nobody"))
    assert refused(template(whole, Transform=_say("fail"))) == f"Transform {id} failed with: it says no"
    assert refused(template(whole, Transform=_say("raise"))) == f"Received malformed response from transform {id}"
    assert "unsupported structure" in refused(template(whole, Transform=_say("list")))
    # A change set says so itself.
    client.create_change_set(
        StackName="s", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=template(whole, Transform=_say("fail"))
    )
    told = client.describe_change_set(StackName="s", ChangeSetName="c")
    assert (told["Status"], told["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert told["StatusReason"] == f"Transform {id} failed with: it says no"
    # Whoever may not call the function has no macro.
    account.role("Maker", allow("cloudformation:*", "ssm:*"))
    maker = account.client("cloudformation", account.as_role("Maker"))
    message = refused(template(whole, Transform=_say("x")), maker)
    assert "lambda:InvokeFunction" in message
    assert stacks.delete("macros")["StackStatus"] == "DELETE_COMPLETE"
    assert "No transform named" in refused(template(whole, Transform="Say"))
