"""What tells topics and queues by itself: alarms, buckets."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import Account
from tests.stories.events.test_events import arrived as arrived_at_rule
from tests.stories.events.test_events import watched
from tests.stories.sns.test_topics import arrived, opened
from tests.stories.sqs.test_queues import arn_of, bodies, made

S3 = {"Service": "s3.amazonaws.com"}


def test_an_alarm_tells_its_topics(account: Account) -> None:
    sns, client = account.client("sns"), account.client("cloudwatch")
    topic, url = sns.create_topic(Name="alarms")["TopicArn"], made(account.client("sqs"))
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, url, topic), Attributes=raw)
    client.put_metric_alarm(
        AlarmName="a", Namespace="n", MetricName=uuid.uuid4().hex, Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore", AlarmActions=[topic],
        Dimensions=[{"Name": "d", "Value": "v"}],
    )  # fmt: skip
    client.set_alarm_state(AlarmName="a", StateValue="OK", StateReason="x")
    client.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="test")
    [one] = arrived(account, url)
    told = json.loads(one["Body"])
    assert (told["AlarmName"], told["NewStateValue"], told["OldStateValue"]) == ("a", "ALARM", "OK")
    assert told["NewStateReason"] == "test" and told["Trigger"]["Dimensions"] == [{"value": "v", "name": "d"}]
    # A policy that names nobody lets the account's alarms in no longer.
    policy = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sns:Publish",
        "Resource": topic,
    }
    text = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=text)
    client.set_alarm_state(AlarmName="a", StateValue="OK", StateReason="x")
    client.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="again")
    assert bodies(account.client("sqs"), url, WaitTimeSeconds=1) == []


def test_a_bucket_tells_queues_and_topics_that_let_it(account: Account) -> None:
    s3, sqs, sns = account.client("s3"), account.client("sqs"), account.client("sns")
    bucket, url, heard = f"tells-{account.id}", made(sqs), made(sqs)
    s3.create_bucket(Bucket=bucket)
    arn, topic = arn_of(sqs, url), sns.create_topic(Name="objects")["TopicArn"]
    said: dict[str, Any] = {"QueueConfigurations": [{"Id": "q", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    with pytest.raises(ClientError, match="Unable to validate"):
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=said)
    for service, place, action in (("sqs", arn, "sqs:SendMessage"), ("sns", topic, "sns:Publish")):
        statement = {
            "Effect": "Allow", "Principal": S3, "Action": action, "Resource": place,
            "Condition": {
                "ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"}, "StringEquals": {"aws:SourceAccount": account.id},
            },
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        if service == "sqs":
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        else:
            sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=opened(account, heard, topic), Attributes=raw)
    said["TopicConfigurations"] = [{"Id": "t", "TopicArn": topic, "Events": ["s3:ObjectRemoved:*"]}]
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=said)
    s3.put_object(Bucket=bucket, Key="a.csv", Body=b"12345")
    s3.delete_object(Bucket=bucket, Key="a.csv")
    test, made_ = [json.loads(one["Body"]) for one in arrived(account, url, 2)]
    assert (test["Event"], test["Bucket"]) == ("s3:TestEvent", bucket)
    [record] = made_["Records"]
    assert (record["eventName"], record["s3"]["object"]["key"]) == ("ObjectCreated:Put", "a.csv")
    gone = [json.loads(one["Body"]) for one in arrived(account, heard, 2)]
    assert gone[1]["Records"][0]["eventName"] == "ObjectRemoved:Delete"


def test_keys_parameters_images_and_alarms_tell_what_happens_to_them(account: Account) -> None:
    watched(account, "told", {"source": ["aws.kms", "aws.ssm", "aws.ecr", "aws.cloudwatch"]})
    kms, ssm, ecr, alarms = (account.client(name) for name in ("kms", "ssm", "ecr", "cloudwatch"))
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.rotate_key_on_demand(KeyId=key)
    ssm.put_parameter(Name="/p", Value="a-value-of-mine", Type="String", Description="d")
    ssm.put_parameter(Name="/p", Value="2", Overwrite=True)
    ssm.delete_parameter(Name="/p")
    given = {
        "Namespace": "n", "MetricName": "m", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
    }  # fmt: skip
    alarms.put_metric_alarm(AlarmName="a", **given)
    alarms.delete_alarms(AlarmNames=["a"])
    ecr.create_repository(repositoryName="repo")
    index = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [],
    }  # fmt: skip
    image = ecr.put_image(repositoryName="repo", imageManifest=json.dumps(index), imageTag="t")["image"]["imageId"]
    ecr.batch_delete_image(repositoryName="repo", imageIds=[{"imageTag": "t"}])
    wanted = [
        ("KMS CMK Rotation", key), ("Parameter Store Change", "Create"), ("Parameter Store Change", "Update"),
        ("Parameter Store Change", "Delete"), ("CloudWatch Alarm Configuration Change", "create"),
        ("CloudWatch Alarm Configuration Change", "delete"), ("ECR Image Action", "PUSH"), ("ECR Image Action", "DELETE"),
    ]  # fmt: skip

    def told() -> list[tuple[str, str]]:
        found = [(one["detail-type"], one["detail"]) for one in arrived_at_rule(account, "told")]
        names = ("key-id", "operation", "action-type")
        return [(kind, next(detail[name] for name in names if name in detail)) for kind, detail in found]

    until(lambda: len(told()) == len(wanted))
    assert sorted(told()) == sorted(wanted)
    assert "a-value-of-mine" not in str(arrived_at_rule(account, "told"))
    pushed = next(one for one in arrived_at_rule(account, "told") if one["detail"].get("action-type") == "PUSH")
    assert (pushed["detail"]["image-digest"], pushed["detail"]["image-tag"]) == (image["imageDigest"], "t")
