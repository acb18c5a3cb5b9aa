"""Who makes a stack's calls, and what comes with them: roles, sessions, nested stacks, signals, the AWS CLI."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Keys, Running, allow
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template

ROLE = {"Service": "cloudformation.amazonaws.com"}


@pytest.fixture
def stacks(account: Account) -> Stacks:
    return Stacks(account)


def _user(account: Account, name: str, *policies: dict[str, Any]) -> Keys:
    iam = account.client("iam")
    iam.create_user(UserName=name)
    for number, policy in enumerate(policies):
        iam.put_user_policy(UserName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Keys(key["AccessKeyId"], key["SecretAccessKey"])


def test_a_role_may_what_its_passer_may_not(stacks: Stacks) -> None:
    account = stacks.account
    role = account.role("stacks", allow("ssm:*"), trust=ROLE)
    other = account.role("other", allow("ssm:*"), trust={"Service": "sagemaker.amazonaws.com"})
    keys = _user(account, "deployer", allow("cloudformation:*"), allow("iam:PassRole", resource=[role, other]))
    mine = Stacks(account, keys)
    assert mine.create("own", template({"A": parameter("a")}))["StackStatus"] == "ROLLBACK_COMPLETE"
    [reason] = [reason for name, status, reason in mine.story("own") if status == "CREATE_FAILED"]
    assert "ssm:PutParameter" in reason
    made = mine.create("s", template({"A": parameter("a")}), RoleARN=role)
    assert made["StackStatus"] == "CREATE_COMPLETE" and made["RoleARN"] == role
    assert mine.update("s", template({"A": parameter("b")}))["StackStatus"] == "UPDATE_COMPLETE"
    with pytest.raises(ClientError, match="cannot be assumed"):
        mine.create("t", template({"A": parameter("a")}), RoleARN=other)
    refused = account.role("refused", allow("ssm:*"), trust=ROLE)
    with pytest.raises(ClientError, match="iam:PassRole"):
        mine.create("t", template({"A": parameter("a")}), RoleARN=refused)
    events = account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "PutParameter"}]
    )["Events"]
    told = [json.loads(one["CloudTrailEvent"])["userIdentity"] for one in events]
    assert any(one["arn"].endswith("assumed-role/stacks/AWSCloudFormation") for one in told)
    assert any(one.get("invokedBy") == "cloudformation.amazonaws.com" and one["userName"] == "deployer" for one in told)


def test_without_a_role_the_calls_are_the_callers_by_way_of_cloudformation(stacks: Stacks) -> None:
    only = allow("ssm:*", Condition={"StringEquals": {"aws:CalledViaFirst": "cloudformation.amazonaws.com"}})
    keys = _user(stacks.account, "deployer", allow("cloudformation:*"), only)
    with pytest.raises(ClientError, match="ssm:PutParameter"):
        stacks.account.client("ssm", keys).put_parameter(Name="x", Value="v", Type="String")
    assert Stacks(stacks.account, keys).create("s", template({"A": parameter("a")}))["StackStatus"] == "CREATE_COMPLETE"
    stacks.account.role("deployers", allow("cloudformation:*", "ssm:*"))
    session = stacks.account.as_role("deployers")
    assert (
        Stacks(stacks.account, session).create("t", template({"A": parameter("a")}))["StackStatus"] == "CREATE_COMPLETE"
    )


def _bucket(account: Account, **objects: str) -> str:
    name = f"templates-{account.id}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=name)
    for key, body in objects.items():
        s3.put_object(Bucket=name, Key=key, Body=body.encode())
    return name


def test_stacks_in_stacks(stacks: Stacks) -> None:
    child = template(
        {"P": parameter({"Ref": "V"})},
        Parameters={"V": {"Type": "String"}},
        Outputs={"Name": {"Value": {"Ref": "P"}}},
    )
    bucket = _bucket(stacks.account, child=child, bad=template({"A": parameter("a"), "B": nobody("A")}))

    def nested(value: str, **more: Any) -> dict[str, Any]:
        url = f"https://{bucket}.s3.us-east-1.amazonaws.com/child"
        properties = {"TemplateURL": url, "Parameters": {"V": value}}
        return {"Type": "AWS::CloudFormation::Stack", "Properties": properties, **more}

    body = {"Child": nested("one"), "After": parameter({"Fn::GetAtt": ["Child", "Outputs.Name"]})}
    assert stacks.create("top", template(body))["StackStatus"] == "CREATE_COMPLETE", stacks.story("top")
    physical = stacks.physical("top")
    inner = stacks.physical(physical["Child"])["P"]
    assert stacks.value(physical["After"]) == inner and stacks.value(inner) == "one"
    held = stacks.get(physical["Child"])
    assert held["ParentId"] == held["RootId"] == stacks.get("top")["StackId"]
    body["Child"] = nested("two")
    assert stacks.update("top", template(body))["StackStatus"] == "UPDATE_COMPLETE", stacks.story("top")
    assert stacks.value(inner) == "two"
    body["Child"] = nested("three")
    body["Bad"] = nobody("Child")
    assert stacks.update("top", template(body))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.value(inner) == "two"
    bad = {
        "Type": "AWS::CloudFormation::Stack",
        "Properties": {"TemplateURL": f"https://{bucket}.s3.amazonaws.com/bad"},
    }
    assert stacks.create("worse", template({"Bad": bad}))["StackStatus"] == "ROLLBACK_COMPLETE"
    [reason] = [reason for name, status, reason in stacks.story("worse") if status == "CREATE_FAILED"]
    assert "Embedded stack" in reason and "[B]" in reason
    gone = stacks.delete("top")
    assert gone["StackStatus"] == "DELETE_COMPLETE" and stacks.value(inner) is None


def test_pieces_and_loops(stacks: Stacks) -> None:
    bucket = _bucket(stacks.account, piece=json.dumps({"Included": parameter("i")}))
    body = template(
        {
            "Fn::Transform": {"Name": "AWS::Include", "Parameters": {"Location": f"s3://{bucket}/piece"}},
            "Fn::ForEach::All": ["Name", ["a", {"Ref": "More"}], {"P${Name}": parameter({"Fn::Sub": "is-${Name}"})}],
            "Many": parameter({"Fn::ToJsonString": {"n": {"Fn::Length": ["x", "y"]}}}),
        },
        Transform="AWS::LanguageExtensions",
        Parameters={"More": {"Type": "String", "Default": "b"}},
    )
    ask = {"StackName": "s", "TemplateBody": body}
    with pytest.raises(ClientError, match="CAPABILITY_AUTO_EXPAND"):
        stacks.client.create_stack(**ask)
    stacks.client.create_stack(**ask, Capabilities=["CAPABILITY_AUTO_EXPAND"])
    assert stacks.settled("s")["StackStatus"] == "CREATE_COMPLETE"
    physical = stacks.physical("s")
    assert set(physical) == {"Included", "Pa", "Pb", "Many"}
    assert stacks.value(physical["Pb"]) == "is-b" and stacks.value(physical["Many"]) == '{"n":2}'
    processed = stacks.client.get_template(StackName="s", TemplateStage="Processed")["TemplateBody"]
    assert set(processed["Resources"]) == set(physical)


def _answer(platform: Running, url: str, body: dict[str, Any]) -> int:
    context = ssl.create_default_context(cafile=platform.authority)
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_condition_waits_for_its_signals(platform: Running, stacks: Stacks) -> None:
    def body(name: str, count: int = 2, timeout: int = 60) -> str:
        properties = {"Handle": {"Ref": "Handle"}, "Timeout": timeout, "Count": count}
        return template(
            {
                "Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
                "Url": parameter({"Ref": "Handle"}),
                "Wait": {"Type": "AWS::CloudFormation::WaitCondition", "DependsOn": "Url", "Properties": properties},
                "After": parameter({"Fn::GetAtt": ["Wait", "Data"]}),
            }
        )

    def url(name: str) -> str:
        for _ in range(200):
            held = stacks.client.describe_stack_resources(StackName=name)["StackResources"]
            found = {one["LogicalResourceId"]: one for one in held}
            if found.get("Wait", {}).get("ResourceStatus") == "CREATE_IN_PROGRESS":
                value = stacks.value(found["Url"]["PhysicalResourceId"])
                assert value is not None
                return value
        raise AssertionError("the condition does not wait")

    stacks.client.create_stack(StackName="good", TemplateBody=body("good"))
    address = url("good")
    assert _answer(platform, address[:-4] + "AAAA", {"Status": "SUCCESS"}) == 403
    assert _answer(platform, address, {"no": "status"}) == 400
    for unique in ("1", "1", "2"):
        assert _answer(platform, address, {"Status": "SUCCESS", "UniqueId": unique, "Data": f"d{unique}"}) == 200
    assert stacks.settled("good")["StackStatus"] == "CREATE_COMPLETE"
    assert json.loads(stacks.value(stacks.physical("good")["After"]) or "") == {"1": "d1", "2": "d2"}
    stacks.client.create_stack(StackName="bad", TemplateBody=body("bad"))
    address = url("bad")
    assert _answer(platform, address, {"Status": "FAILURE", "UniqueId": "1", "Reason": "it broke"}) == 200
    assert stacks.settled("bad")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("it broke" in reason for _, _, reason in stacks.story("bad"))
    stacks.client.create_stack(StackName="late", TemplateBody=body("late", timeout=1))
    assert stacks.settled("late")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("timed out" in reason for _, _, reason in stacks.story("late"))
    stacks.client.create_stack(StackName="away", TemplateBody=body("away"))
    url("away")
    stacks.client.delete_stack(StackName="away")
    gone = stacks.client.list_stacks(StackStatusFilter=["DELETE_COMPLETE", "DELETE_IN_PROGRESS", "CREATE_IN_PROGRESS"])
    [id] = [one["StackId"] for one in gone["StackSummaries"] if one["StackName"] == "away"]
    assert stacks.reached(id, "DELETE_COMPLETE")
    assert any(reason == "Resource creation cancelled" for _, _, reason in stacks.story(id))


def test_an_update_that_is_cancelled_is_undone(stacks: Stacks) -> None:
    wait = {"Type": "AWS::CloudFormation::WaitCondition", "Properties": {"Handle": {"Ref": "H"}, "Timeout": 600}}
    stacks.create("s", template({"A": parameter("a")}))
    handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    body = template({"A": parameter("b"), "H": handle, "W": {**wait, "DependsOn": "A"}})
    stacks.client.update_stack(StackName="s", TemplateBody=body)
    stacks.client.cancel_update_stack(StackName="s")
    assert stacks.settled("s")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.value(stacks.physical("s")["A"]) == "a"


def test_a_rollback_that_fails_goes_on_when_the_cause_is_gone(stacks: Stacks) -> None:
    account = stacks.account
    role = account.role("stacks", allow("ssm:*"), trust=ROLE)
    stacks.create("s", template({"A": parameter("a")}), RoleARN=role)
    deny = allow("ssm:*")
    deny["Statement"].append({"Effect": "Deny", "Action": "ssm:PutParameter", "Resource": "*"})
    handle = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
    wait = {
        "Type": "AWS::CloudFormation::WaitCondition",
        "DependsOn": "A",
        "Properties": {"Handle": {"Ref": "H"}, "Timeout": 600},
    }
    stacks.client.update_stack(StackName="s", TemplateBody=template({"A": parameter("b"), "H": handle, "W": wait}))
    for _ in range(200):
        if ("W", "CREATE_IN_PROGRESS", "") in stacks.story("s"):
            break
    iam = account.client("iam")
    iam.put_role_policy(RoleName="stacks", PolicyName="inline", PolicyDocument=json.dumps(deny))
    stacks.client.cancel_update_stack(StackName="s")
    assert stacks.settled("s")["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    iam.put_role_policy(RoleName="stacks", PolicyName="inline", PolicyDocument=json.dumps(allow("ssm:*")))
    stacks.client.continue_update_rollback(StackName="s")
    assert stacks.settled("s")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.value(stacks.physical("s")["A"]) == "a" and set(stacks.physical("s")) == {"A"}


def test_the_aws_cli_deploys_packages_and_waits(platform: Running, stacks: Stacks, tmp_path: Path) -> None:
    keys = stacks.account.keys
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token or "",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": platform.url,
        "AWS_CA_BUNDLE": platform.authority,
    }

    def aws(*arguments: str) -> str:
        program = [sys.executable, "-m", "awscli", "cloudformation", *arguments]
        done = subprocess.run(
            program, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    bucket = _bucket(stacks.account)
    (tmp_path / "child.json").write_text(template({"P": parameter("child")}))
    child = {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "child.json"}}
    (tmp_path / "top.json").write_text(template({"Child": child}))
    aws("package", "--template-file", "top.json", "--s3-bucket", bucket, "--output-template-file", "packaged.yaml")
    # The CLI's own waiter sleeps 30 seconds where a stack is not there at once: what it would wait for is asked here.
    aws("deploy", "--template-file", "packaged.yaml", "--stack-name", "cli", "--no-execute-changeset")
    [change_set] = stacks.client.list_change_sets(StackName="cli")["Summaries"]
    aws("execute-change-set", "--change-set-name", change_set["ChangeSetId"])
    assert stacks.settled("cli")["StackStatus"] == "CREATE_COMPLETE"
    aws("wait", "stack-create-complete", "--stack-name", "cli")
    told = aws("deploy", "--template-file", "packaged.yaml", "--stack-name", "cli", "--no-fail-on-empty-changeset")
    assert "No changes to deploy" in told
    id = stacks.delete("cli")["StackId"]
    aws("wait", "stack-delete-complete", "--stack-name", id)


def test_a_serverless_template_becomes_functions_and_roles(stacks: Stacks) -> None:
    body = template(
        {
            "Hello": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "Handler": "index.handler",
                    "Runtime": "python3.11",
                    "InlineCode": "def handler(e, c): pass",
                },
            }
        },
        Transform="AWS::Serverless-2016-10-31",
    )
    asked = {
        "TemplateBody": body,
        "ChangeSetType": "CREATE",
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    }
    stacks.client.create_change_set(StackName="s", ChangeSetName="c", **asked)
    told = stacks.client.describe_change_set(StackName="s", ChangeSetName="c")["Changes"]
    assert {one["ResourceChange"]["ResourceType"] for one in told} == {"AWS::Lambda::Function", "AWS::IAM::Role"}
    wrong = json.loads(body)
    del wrong["Resources"]["Hello"]["Properties"]["Runtime"]
    stacks.client.create_change_set(StackName="t", ChangeSetName="c", **{**asked, "TemplateBody": json.dumps(wrong)})
    failed = stacks.client.describe_change_set(StackName="t", ChangeSetName="c")
    assert failed["Status"] == "FAILED" and "Runtime" in failed["StatusReason"]


def test_topics_are_told(stacks: Stacks) -> None:
    sns, sqs = stacks.account.client("sns"), stacks.account.client("sqs")
    topic = sns.create_topic(Name="told")["TopicArn"]
    queue = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    stacks.create("s", template({"A": parameter("a")}), NotificationARNs=[topic])
    told: list[str] = []
    for _ in range(20):
        got = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        told += [one["Body"] for one in got.get("Messages", ())]
        if any("ResourceStatus='CREATE_COMPLETE'" in one and "LogicalResourceId='s'" in one for one in told):
            break
    assert any("LogicalResourceId='A'" in one and "ResourceType='AWS::SSM::Parameter'" in one for one in told), told
    assert any("ResourceStatus='CREATE_COMPLETE'" in one and "LogicalResourceId='s'" in one for one in told), told
