"""What was recorded: looked up by its account, and delivered where a trail says."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow
from tests.stories.sns.test_topics import arrived, opened
from tests.stories.sqs.test_queues import made
from tests.waiting import until

SERVICE = "cloudtrail.amazonaws.com"


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def open_to_trails(account: Account, bucket: str, trail: str) -> None:
    """The bucket policy of CloudTrail's user guide, for one trail."""
    about = {"StringEquals": {"aws:SourceArn": trail}}
    objects = f"arn:aws:s3:::{bucket}/AWSLogs/{account.id}/*"
    acl = {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control", "aws:SourceArn": trail}}
    principal = {"Service": SERVICE}
    look = {"Action": "s3:GetBucketAcl", "Resource": f"arn:aws:s3:::{bucket}", "Condition": about}
    write = {"Action": "s3:PutObject", "Resource": objects, "Condition": acl}
    statements = [{"Effect": "Allow", "Principal": principal, **one} for one in (look, write)]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    account.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)


class Records:
    """A trail of an account, and what it delivered."""

    def __init__(
        self, account: Account, selectors: list[dict[str, Any]] | None = None, may_write: bool = True, name: str = "t"
    ) -> None:
        self.account, self.bucket, self.name = account, f"trail-{uuid.uuid4().hex[:12]}", name
        self.trail, self.s3 = account.client("cloudtrail"), account.client("s3")
        self.s3.create_bucket(Bucket=self.bucket)
        self.arn = self.trail.create_trail(Name=self.name, S3BucketName=self.bucket)["TrailARN"]
        if may_write:
            self.open()
        if selectors is not None:
            self.trail.put_event_selectors(TrailName=self.name, EventSelectors=selectors)
        self.trail.start_logging(Name=self.name)

    def open(self) -> None:
        open_to_trails(self.account, self.bucket, self.arn)

    def delivered(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for one in page.get("Contents", ()):
                assert one["Key"].startswith(f"AWSLogs/{self.account.id}/CloudTrail/us-east-1/20")
                assert one["Key"].endswith(".json.gz")
                body = self.s3.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read()
                found += json.loads(gzip.decompress(body))["Records"]
        return found

    def until(self, *names: str) -> list[dict[str, Any]]:
        """What was delivered once the named events are among it."""

        def look() -> list[dict[str, Any]] | None:
            found = self.delivered()
            return found if {one["eventName"] for one in found} >= set(names) else None

        told = until(look, told=lambda: (names, {one["eventName"] for one in self.delivered()}, self.status()))
        assert told is not None
        return told

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = self.trail.get_trail_status(Name=self.name)
        return told


def test_management_and_data_events_are_delivered(account: Account) -> None:
    s3, iam = account.client("s3"), account.client("iam")
    data, other = (f"{name}-{uuid.uuid4().hex[:12]}" for name in ("data", "other"))
    for bucket in (data, other):
        s3.create_bucket(Bucket=bucket)
    resource = {"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{data}/"]}
    selector = {"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": [resource]}
    records = Records(account, [selector])
    for bucket in (data, other):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.get_object(Bucket=bucket, Key="k")
    assert refused(s3.get_object, Bucket=data, Key="none") == "NoSuchKey"
    iam.create_user(UserName="made")
    assert refused(iam.create_user, UserName="made") == "EntityAlreadyExists"
    s3.delete_object(Bucket=data, Key="k")
    found = records.until("CreateUser", "PutObject", "GetObject", "DeleteObject", "StartLogging")
    objects = [one for one in found if one["eventCategory"] == "Data"]
    assert {part["ARN"].partition("/")[0] for one in objects for part in one["resources"]} == {f"arn:aws:s3:::{data}"}
    told = sorted((one["eventName"], one.get("errorCode", "")) for one in objects)
    assert told == [("DeleteObject", ""), ("GetObject", ""), ("GetObject", "NoSuchKey"), ("PutObject", "")]
    users = [one.get("errorCode", "") for one in found if one["eventName"] == "CreateUser"]
    assert sorted(users)[0] == "" and sorted(users)[1].startswith("EntityAlreadyExists") and len(users) == 2
    assert {one["recipientAccountId"] for one in found} == {account.id}
    ids = [one["eventID"] for one in found]
    assert len(ids) == len(set(ids))
    assert records.status()["IsLogging"] and "LatestDeliveryTime" in records.status()


def test_selectors_choose(account: Account) -> None:
    s3, iam = account.client("s3"), account.client("iam")
    resource = {"Type": "AWS::S3::Object", "Values": ["arn:aws:s3"]}
    selector = {"ReadWriteType": "WriteOnly", "IncludeManagementEvents": False, "DataResources": [resource]}
    records = Records(account, [selector])
    data = f"data-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=data)
    iam.create_user(UserName="made")
    s3.put_object(Bucket=data, Key="k", Body=b"x")
    s3.get_object(Bucket=data, Key="k")
    s3.delete_object(Bucket=data, Key="k")
    found = records.until("PutObject", "DeleteObject")
    assert {one["eventName"] for one in found} == {"PutObject", "DeleteObject"}
    shown = records.trail.get_event_selectors(TrailName="t")["EventSelectors"]
    assert shown[0]["DataResources"] == [resource]


def test_a_bucket_that_does_not_let_it_write_is_told_and_nothing_is_lost(account: Account) -> None:
    records = Records(account, may_write=False)
    account.client("iam").create_user(UserName="made")
    until(lambda: records.status().get("LatestDeliveryError") == "AccessDenied", told=records.status)
    assert records.delivered() == []
    records.open()
    records.until("CreateUser", "StartLogging")
    until(lambda: "LatestDeliveryError" not in records.status(), told=records.status)


def test_stop_logging_stops_delivery_and_not_the_record(account: Account) -> None:
    records, iam = Records(account), account.client("iam")
    iam.create_user(UserName="before")
    # What happened before the stop is delivered, the stop itself too: nobody hides by stopping at once.
    records.trail.stop_logging(Name="t")
    iam.create_user(UserName="between")
    assert not records.status()["IsLogging"]
    records.until("StopLogging", "CreateUser")
    records.trail.start_logging(Name="t")
    iam.create_user(UserName="after")
    iam.create_role(RoleName="mark", AssumeRolePolicyDocument=_trust(account))
    found = records.until("CreateRole")
    users = [one["requestParameters"]["userName"] for one in found if one["eventName"] == "CreateUser"]
    assert sorted(users) == ["after", "before"]
    looked = _all(account, "EventName", "CreateUser")
    assert [json.loads(one["CloudTrailEvent"])["requestParameters"]["userName"] for one in looked] == [
        "after",
        "between",
        "before",
    ]


def _trust(account: Account) -> str:
    principal = {"AWS": f"arn:aws:iam::{account.id}:root"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _all(account: Account, key: str, value: str, **more: Any) -> list[dict[str, Any]]:
    pages = account.client("cloudtrail").get_paginator("lookup_events")
    wanted = [{"AttributeKey": key, "AttributeValue": value}]
    return [event for page in pages.paginate(LookupAttributes=wanted, **more) for event in page["Events"]]


def test_lookups_by_each_attribute(account: Account) -> None:
    account.role("auditee", allow("iam:CreateUser", "iam:GetUser"))
    iam = account.client("iam", account.as_role("auditee", session="carol"))
    iam.create_user(UserName="one")
    iam.get_user(UserName="one")
    account.client("iam").create_user(UserName="two")
    made = _all(account, "EventName", "CreateUser")
    assert [one["EventName"] for one in made] == ["CreateUser", "CreateUser"]
    assert [one["EventName"] for one in _all(account, "Username", "carol")] == ["GetUser", "CreateUser"]
    arn = f"arn:aws:iam::{account.id}:user/one"
    for name in (arn, "one"):
        assert {one["EventName"] for one in _all(account, "ResourceName", name)} == {"GetUser", "CreateUser"}
    assert _all(account, "EventId", made[0]["EventId"]) == made[:1]
    assert _all(account, "EventId", str(uuid.uuid4())) == []
    reads, writes = ({one["EventName"] for one in _all(account, "ReadOnly", text)} for text in ("true", "false"))
    assert "GetUser" in reads and "CreateUser" in writes and not reads & writes
    sources = {one["EventSource"] for one in _all(account, "EventSource", "iam.amazonaws.com")}
    assert sources == {"iam.amazonaws.com"}
    key = made[0]["AccessKeyId"]
    assert {one["AccessKeyId"] for one in _all(account, "AccessKeyId", key)} == {key}
    trail = account.client("cloudtrail")
    two = [{"AttributeKey": "EventName", "AttributeValue": "x"}, {"AttributeKey": "Username", "AttributeValue": "x"}]
    assert refused(trail.lookup_events, LookupAttributes=two) == "InvalidLookupAttributesException"


def test_lookups_in_a_span_of_time(account: Account) -> None:
    iam, trail = account.client("iam"), account.client("cloudtrail")
    iam.create_user(UserName="early")
    time.sleep(2.1)
    middle = datetime.now(UTC).replace(microsecond=0)
    iam.create_user(UserName="late")

    def users(**span: datetime) -> list[str]:
        found = _all(account, "EventName", "CreateUser", **span)
        return [json.loads(one["CloudTrailEvent"])["requestParameters"]["userName"] for one in found]

    assert users(StartTime=middle) == ["late"]
    assert users(EndTime=middle) == ["early"]
    assert users(StartTime=middle - timedelta(minutes=1), EndTime=middle + timedelta(minutes=1)) == ["late", "early"]
    assert users(StartTime=middle + timedelta(hours=1)) == []
    span = {"StartTime": middle, "EndTime": middle - timedelta(seconds=1)}
    assert refused(trail.lookup_events, **span) == "InvalidTimeRangeException"


def test_pages_hold_each_event_once_while_more_come(account: Account) -> None:
    iam, trail = account.client("iam"), account.client("cloudtrail")
    for number in range(23):
        iam.create_user(UserName=f"u{number}")
    found: list[str] = []
    wanted = [{"AttributeKey": "EventName", "AttributeValue": "CreateUser"}]
    token: dict[str, str] = {}
    while True:
        page = trail.lookup_events(LookupAttributes=wanted, MaxResults=5, **token)
        assert len(page["Events"]) <= 5
        found += [json.loads(one["CloudTrailEvent"])["requestParameters"]["userName"] for one in page["Events"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
        iam.create_user(UserName=f"more{len(found)}")
    assert found == [f"u{number}" for number in reversed(range(23))]
    everything = [
        one["EventId"]
        for page in trail.get_paginator("lookup_events").paginate(PaginationConfig={"PageSize": 7})
        for one in page["Events"]
    ]
    assert len(everything) == len(set(everything)) >= 27


def test_a_token_serves_whom_and_what_it_was_given_for(account: Account, neighbour: Account) -> None:
    trail = account.client("cloudtrail")
    for _ in range(3):
        account.client("iam").list_users()
    wanted = [{"AttributeKey": "EventName", "AttributeValue": "ListUsers"}]
    token = trail.lookup_events(LookupAttributes=wanted, MaxResults=1)["NextToken"]
    trail.lookup_events(LookupAttributes=wanted, MaxResults=1, NextToken=token)
    account.role("reader", allow("cloudtrail:LookupEvents"))
    other = [{"AttributeKey": "EventName", "AttributeValue": "CreateUser"}]
    for client, attributes, text in (
        (neighbour.client("cloudtrail"), wanted, token),
        (account.client("cloudtrail", account.as_role("reader")), wanted, token),
        (trail, other, token),
        (trail, wanted, token[:-4] + "AAAA"),
        (trail, wanted, "nonsense"),
    ):
        given = {"LookupAttributes": attributes, "MaxResults": 1, "NextToken": text}
        assert refused(client.lookup_events, **given) == "InvalidNextTokenException"


def test_a_neighbour_sees_nothing(account: Account, neighbour: Account) -> None:
    account.client("iam").create_user(UserName="mine")
    made = _all(account, "EventName", "CreateUser")[0]
    assert _all(neighbour, "EventId", made["EventId"]) == []
    assert _all(neighbour, "EventName", "CreateUser") == []
    pages = neighbour.client("cloudtrail").get_paginator("lookup_events").paginate()
    seen = [json.loads(one["CloudTrailEvent"]) for page in pages for one in page["Events"]]
    assert seen and {one["recipientAccountId"] for one in seen} == {neighbour.id}
    account.role("blind", allow("s3:ListAllMyBuckets"))
    blind = account.client("cloudtrail", account.as_role("blind"))
    assert refused(blind.lookup_events) == "AccessDeniedException"


def test_each_file_is_told_to_a_topic_and_each_event_to_a_log_group(account: Account) -> None:
    sns, sqs, logs = account.client("sns"), account.client("sqs"), account.client("logs")
    trail, iam, s3 = account.client("cloudtrail"), account.client("iam"), account.client("s3")
    topic, url = sns.create_topic(Name="files")["TopicArn"], made(sqs)
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, url, topic), Attributes=raw)
    logs.create_log_group(logGroupName="calls")
    group = f"arn:aws:logs:us-east-1:{account.id}:log-group:calls:*"
    writes = allow("logs:CreateLogStream", "logs:PutLogEvents", resource=group)
    role = account.role("Trail", writes, trust={"Service": SERVICE})
    records = Records(account)
    own = {"CloudWatchLogsLogGroupArn": group, "CloudWatchLogsRoleArn": role}
    for wrong in (
        {"SnsTopicName": "no topic"},
        {**own, "CloudWatchLogsLogGroupArn": "calls"},
        {**own, "KmsKeyId": "k"},
    ):
        code = refused(trail.update_trail, Name="t", **wrong)
        assert code.startswith(("InvalidSnsTopicName", "InvalidCloudWatchLogsLogGroup", "UnsupportedOperation"))
    changed = trail.update_trail(Name="t", SnsTopicName="files", **own)
    assert (changed["SnsTopicARN"], changed["CloudWatchLogsRoleArn"]) == (topic, role)
    iam.create_user(UserName="seen")

    def lines() -> list[dict[str, Any]]:
        found = logs.filter_log_events(logGroupName="calls", filterPattern="{ $.eventName = CreateUser }")["events"]
        return [json.loads(one["message"]) for one in found]

    until(lines)
    [line] = lines()
    assert line["requestParameters"] == {"userName": "seen"}
    [stream] = logs.describe_log_streams(logGroupName="calls")["logStreams"]
    assert stream["logStreamName"] == f"{account.id}_CloudTrail_us-east-1"
    # The topic's policy does not know CloudTrail, which the trail's status says; the files go on coming.
    until(lambda: records.status().get("LatestNotificationError"))
    assert records.status()["LatestNotificationError"] == "AuthorizationError"
    statement = {
        "Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sns:Publish", "Resource": topic,
        "Condition": {"StringEquals": {"aws:SourceArn": records.arn}},
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    told = json.loads(arrived(account, url)[0]["Body"])
    assert told["s3Bucket"] == records.bucket
    body = s3.get_object(Bucket=records.bucket, Key=told["s3ObjectKey"][0])["Body"].read()
    assert json.loads(gzip.decompress(body))["Records"]
    until(lambda: "LatestNotificationTime" in records.status())
    status = records.status()
    assert "LatestNotificationError" not in status and "LatestCloudWatchLogsDeliveryTime" in status
    # A role that may no more stops the lines alone.
    iam.delete_role_policy(RoleName="Trail", PolicyName=iam.list_role_policies(RoleName="Trail")["PolicyNames"][0])
    until(lambda: records.status().get("LatestCloudWatchLogsDeliveryError"))
    assert records.status()["LatestCloudWatchLogsDeliveryError"] == "AccessDeniedException"
    trail.update_trail(Name="t", SnsTopicName="", CloudWatchLogsLogGroupArn="", CloudWatchLogsRoleArn="")
    assert not {"SnsTopicARN", "CloudWatchLogsRoleArn"} & set(trail.get_trail(Name="t")["Trail"])
