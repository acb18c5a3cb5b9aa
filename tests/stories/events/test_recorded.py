"""Calls that were recorded are events, for the rules that want them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import botocore.exceptions
import pytest

from tests.moved import until
from tests.platform import REGION, Account, allow
from tests.stories.cloudtrail.test_trail import Records
from tests.stories.events.test_targets import lets
from tests.stories.lambda_.conftest import bench_of
from tests.stories.sqs.test_queues import made

CALLS = "AWS API Call via CloudTrail"
READS = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
DETECTIVE = """
import boto3
sagemaker = boto3.client("sagemaker")
def handler(event, context):
    asked = event["detail"]["requestParameters"]
    if event["detail"]["eventName"] == "CreateModel" and "vpcConfig" not in asked:
        sagemaker.delete_model(ModelName=asked["modelName"])
"""


class Watched:
    """A queue that a rule sends to, and what came."""

    def __init__(self, account: Account, name: str, pattern: dict[str, Any], **more: str) -> None:
        self.sqs = account.client("sqs")
        self.url, self.found = made(self.sqs), list[dict[str, Any]]()
        events = account.client("events")
        source = events.put_rule(Name=name, EventPattern=json.dumps(pattern), **more)["RuleArn"]
        events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": lets(account, self.url, source)}])

    def names(self) -> list[str]:
        while held := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            self.found += [json.loads(one["Body"]) for one in held]
            for one in held:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=one["ReceiptHandle"])
        return [one["detail"]["eventName"] for one in self.found]


def test_a_recorded_call_reaches_the_rules_that_want_it(account: Account) -> None:
    iam, s3, events = account.client("iam"), account.client("s3"), account.client("events")
    users = {"eventSource": ["iam.amazonaws.com"], "eventName": [{"suffix": "User"}, {"suffix": "AccessKey"}]}
    named = Watched(account, "named", {"source": ["aws.iam"], "detail-type": [CALLS], "detail": users})
    every = Watched(account, "every", {"source": [{"prefix": "aws."}]})
    bucket = f"data-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    iam.create_user(UserName="one")
    with pytest.raises(botocore.exceptions.ClientError, match="EntityAlreadyExists"):
        iam.create_user(UserName="one")
    secret = iam.create_access_key(UserName="one")["AccessKey"]
    iam.get_user(UserName="one")
    iam.delete_access_key(UserName="one", AccessKeyId=secret["AccessKeyId"])
    until(lambda: "DeleteAccessKey" in named.names())
    assert sorted(named.names()) == ["CreateAccessKey", "CreateUser", "CreateUser", "DeleteAccessKey"]
    created, refused = (
        next(one for one in named.found if one["detail"].get("errorCode", "") == code)
        for code in ("", "EntityAlreadyExists")
    )
    assert (created["source"], created["detail-type"], created["account"]) == ("aws.iam", CALLS, account.id)
    assert created["detail"]["requestParameters"] == {"userName": "one"}
    assert created["detail"]["userIdentity"]["accountId"] == account.id
    assert refused["detail"]["responseElements"] is None
    told = json.dumps(named.found)
    assert secret["SecretAccessKey"] not in told and "questions" not in told  # nor what the decision saw
    # Who wants everything gets calls once a trail logs them, data events as the trail selects them; never what rules do.
    assert every.names() == []
    selector = {"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{bucket}/"]}
    selectors = [{"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": [selector]}]
    trails = [Records(account, selectors, name=name) for name in ("one", "two")]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.get_object(Bucket=bucket, Key="k")
    events.put_rule(Name="named", State=READS, EventPattern=json.dumps({"detail": {"eventName": ["GetUser"]}}))
    iam.get_user(UserName="one")
    iam.delete_user(UserName="one")
    until(lambda: {"PutObject", "PutRule", "DeleteUser"} <= set(every.names()))
    until(lambda: "GetUser" in named.names())
    for one in trails:  # each has its own copy, and rules are told once
        assert [told["eventName"] for told in one.until("PutObject", "DeleteUser")].count("PutObject") == 1
    assert every.names().count("PutObject") == 1
    assert named.names().count("GetUser") == 1  # the one before its state said so is not told
    assert not {"GetObject", "GetUser", "SendMessage", "CreateAccessKey"} & set(every.names())
    assert events.describe_rule(Name="named")["State"] == READS


@pytest.mark.control("MON-08")
def test_a_model_outside_of_a_vpc_is_found_and_removed(account: Account) -> None:
    bench, events, sagemaker = bench_of(account), account.client("events"), account.client("sagemaker")
    iam, role = account.client("iam"), account.role("Runs", allow("s3:*"), trust={"Service": "sagemaker.amazonaws.com"})
    iam.put_role_policy(
        RoleName=bench.role.rpartition("/")[2],
        PolicyName="controls",
        PolicyDocument=json.dumps(allow("sagemaker:DeleteModel")),
    )
    function = bench.make(DETECTIVE)
    wanted = {"eventSource": ["sagemaker.amazonaws.com"], "eventName": ["CreateTrainingJob", "CreateModel"]}
    pattern = {"source": ["aws.sagemaker"], "detail-type": [CALLS], "detail": wanted}
    rule = events.put_rule(Name="enforce", EventPattern=json.dumps(pattern), State="ENABLED")["RuleArn"]
    bench.client.add_permission(
        FunctionName=function, StatementId="e", Action="lambda:InvokeFunction", Principal="events.amazonaws.com",
        SourceArn=rule,
    )  # fmt: skip
    arn = f"arn:aws:lambda:{REGION}:{account.id}:function:{function}"
    events.put_targets(Rule="enforce", Targets=[{"Id": "f", "Arn": arn}])
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
    sagemaker.create_model(ModelName="open", ExecutionRoleArn=role, PrimaryContainer={"Image": image})
    until(lambda: not sagemaker.list_models()["Models"])
