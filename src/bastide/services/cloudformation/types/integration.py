"""Types of topics, queues, schedules and streams."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.templates import text
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular, retag

# -- topics and queues -------------------------------------------------------------------------------------------------

_TOPIC: Final = (
    "DisplayName", "KmsMasterKeyId", "FifoTopic", "ContentBasedDeduplication", "SignatureVersion", "TracingConfig",
    "ArchivePolicy", "FifoThroughputScope", "DataProtectionPolicy", "MaximumMessageSize",
)  # fmt: skip


def _attributes(r: Resource, names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        value = r.get(name)
        if value is not None:
            found[name] = document(value) if isinstance(value, dict) else text(value)
    return found


async def _create_topic(r: Resource) -> None:
    if r.get("DeliveryStatusLogging"):
        raise Refused("ValidationError", "DeliveryStatusLogging is not supported yet; leave it out.")
    name = r.name(250, given=r.get("TopicName"))
    if r.get("FifoTopic") and not name.endswith(".fifo"):
        name += ".fifo"
    asked: dict[str, Any] = {"Name": name, "Attributes": _attributes(r, _TOPIC)}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    r.thing.physical = (await r.do("CreateTopic", asked, key="create"))["TopicArn"]
    r.thing.attributes = {"TopicArn": r.physical, "TopicName": name}
    await _subscriptions(r)


async def _subscriptions(r: Resource) -> None:
    before = [(one["Protocol"], one["Endpoint"]) for one in r.old.get("Subscription") or ()]
    after = [(one["Protocol"], one["Endpoint"]) for one in r.get("Subscription") or ()]
    for protocol, endpoint in after:
        if (protocol, endpoint) not in before:
            await r.do("Subscribe", {"TopicArn": r.physical, "Protocol": protocol, "Endpoint": endpoint})
    gone = [one for one in before if one not in after]
    if gone:
        held = await r.read("ListSubscriptionsByTopic", {"TopicArn": r.physical})
        for one in held.get("Subscriptions") or ():
            if (one["Protocol"], one["Endpoint"]) in gone and one["SubscriptionArn"].startswith("arn:"):
                await r.drop("Unsubscribe", {"SubscriptionArn": one["SubscriptionArn"]})


async def _update_topic(r: Resource) -> None:
    for name in _TOPIC:
        if r.changed(name):
            value = _attributes(r, (name,)).get(name, "")
            asked = {"TopicArn": r.physical, "AttributeName": name, "AttributeValue": value}
            await r.do("SetTopicAttributes", asked)
    await _subscriptions(r)
    await retag(r, Tagging("TagResource", "UntagResource", "ResourceArn", "Ref"))


async def _delete_topic(r: Resource) -> None:
    await r.drop("DeleteTopic", {"TopicArn": r.physical})


_SUBSCRIPTION: Final = ("DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy",
                        "SubscriptionRoleArn", "ReplayPolicy")  # fmt: skip


async def _subscribe(r: Resource) -> None:
    if r.get("Region") not in (None, r.stack.region):
        raise Refused("ValidationError", "A subscription to a topic of another Region is not supported yet.")
    asked = {**r.only("TopicArn", "Protocol", "Endpoint"), "Attributes": _attributes(r, _SUBSCRIPTION)}
    made = await r.do("Subscribe", {**asked, "ReturnSubscriptionArn": True}, key="create")
    r.thing.physical = made["SubscriptionArn"]
    r.thing.attributes = {"Arn": r.physical}


async def _update_subscription(r: Resource) -> None:
    for name in _SUBSCRIPTION:
        if r.changed(name):
            value = _attributes(r, (name,)).get(name, "{}" if name.endswith("Policy") else "")
            asked = {"SubscriptionArn": r.physical, "AttributeName": name, "AttributeValue": value}
            await r.do("SetSubscriptionAttributes", asked)


async def _unsubscribe(r: Resource) -> None:
    await r.drop("Unsubscribe", {"SubscriptionArn": r.physical})


async def _topic_policy(r: Resource) -> None:
    value = document(r.get("PolicyDocument"))
    for arn in r.get("Topics"):
        await r.do("SetTopicAttributes", {"TopicArn": arn, "AttributeName": "Policy", "AttributeValue": value})
    await _default_topic_policy(r, [arn for arn in r.old.get("Topics") or () if arn not in r.get("Topics")])
    r.thing.physical = r.physical or r.name(128)
    r.thing.attributes = {"Id": r.physical}


async def _no_topic_policy(r: Resource) -> None:
    await _default_topic_policy(r, r.get("Topics"))


async def _default_topic_policy(r: Resource, topics: Iterable[str]) -> None:
    """What a topic has when nobody gave it a policy: its owner may do everything (SNS Developer Guide)."""
    for arn in topics:
        account = str(arn).split(":")[4]
        statement = {
            "Sid": "__default_statement_ID", "Effect": "Allow", "Principal": {"AWS": "*"}, "Resource": arn,
            "Action": ["SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission", "SNS:RemovePermission",
                       "SNS:DeleteTopic", "SNS:Subscribe", "SNS:ListSubscriptionsByTopic", "SNS:Publish"],
            "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
        }  # fmt: skip
        policy = document({"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]})
        await r.drop("SetTopicAttributes", {"TopicArn": arn, "AttributeName": "Policy", "AttributeValue": policy})


_QUEUE: Final = (
    "ContentBasedDeduplication", "DeduplicationScope", "DelaySeconds", "FifoQueue", "FifoThroughputLimit",
    "KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "MaximumMessageSize", "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds", "RedriveAllowPolicy", "RedrivePolicy", "SqsManagedSseEnabled", "VisibilityTimeout",
)  # fmt: skip
_QUEUE_DEFAULTS: Final = {
    "DelaySeconds": "0", "KmsDataKeyReusePeriodSeconds": "300", "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "0", "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
}  # fmt: skip


async def _create_queue(r: Resource) -> None:
    name = r.name(75, given=r.get("QueueName"))
    if r.get("FifoQueue") and not name.endswith(".fifo"):
        name += ".fifo"
    asked: dict[str, Any] = {"QueueName": name, "Attributes": _attributes(r, _QUEUE)}
    tags = r.tags()
    if tags:
        asked["tags"] = {one["Key"]: one["Value"] for one in tags}
    r.thing.physical = (await r.do("CreateQueue", asked, key="create"))["QueueUrl"]
    arn = f"arn:aws:sqs:{r.stack.region}:{r.stack.account}:{name}"
    r.thing.attributes = {"Arn": arn, "QueueName": name, "QueueUrl": r.physical}


async def _update_queue(r: Resource) -> None:
    changed = {name for name in _QUEUE if r.changed(name)}
    now = _attributes(r, _QUEUE)
    if changed:
        told = {name: now.get(name, _QUEUE_DEFAULTS.get(name, "")) for name in sorted(changed)}
        await r.do("SetQueueAttributes", {"QueueUrl": r.physical, "Attributes": told})
    before = {one["Key"]: one["Value"] for one in r.old.get("Tags") or ()}
    after = {one["Key"]: one["Value"] for one in r.tags()}
    if set(before) - set(after):
        await r.do("UntagQueue", {"QueueUrl": r.physical, "TagKeys": sorted(set(before) - set(after))})
    if after and after != before:
        await r.do("TagQueue", {"QueueUrl": r.physical, "Tags": after})


async def _delete_queue(r: Resource) -> None:
    await r.drop("DeleteQueue", {"QueueUrl": r.physical})


async def _queue_policy(r: Resource) -> None:
    value = document(r.get("PolicyDocument"))
    for url in r.get("Queues"):
        await r.do("SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": value}})
    for url in r.old.get("Queues") or ():
        if url not in r.get("Queues"):
            await r.drop("SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": ""}})
    r.thing.physical = r.physical or r.name(128)
    r.thing.attributes = {"Id": r.physical}


async def _no_queue_policy(r: Resource) -> None:
    for url in r.get("Queues"):
        await r.drop("SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": ""}})


MESSAGES: Final = (
    Type("AWS::SNS::Topic", "sns", _create_topic, _delete_topic, _update_topic, None,
         calls_of("sns", ["CreateTopic", "DeleteTopic", "SetTopicAttributes", "Subscribe"]), named="TopicName",
         mark=lambda r: r.physical),
    Type("AWS::SNS::Subscription", "sns", _subscribe, _unsubscribe, _update_subscription, None,
         calls_of("sns", ["Subscribe", "Unsubscribe", "SetSubscriptionAttributes"])),
    Type("AWS::SNS::TopicPolicy", "sns", _topic_policy, _no_topic_policy, _topic_policy, None,
         calls_of("sns", ["SetTopicAttributes"])),
    Type("AWS::SQS::Queue", "sqs", _create_queue, _delete_queue, _update_queue, None,
         calls_of("sqs", ["CreateQueue", "DeleteQueue", "SetQueueAttributes"]), named="QueueName",
         mark=lambda r: str(r.fact("Arn"))),
    Type("AWS::SQS::QueuePolicy", "sqs", _queue_policy, _no_queue_policy, _queue_policy, None,
         calls_of("sqs", ["SetQueueAttributes"])),
)  # fmt: skip

# -- schedules and streams ---------------------------------------------------------------------------------------------


async def _streaming(r: Resource) -> bool:
    told = await r.read("DescribeDeliveryStream", {"DeliveryStreamName": r.fact("DeliveryStreamName")})
    status = told["DeliveryStreamDescription"]["DeliveryStreamStatus"]
    if status.endswith("FAILED"):
        raise Refused("NotStabilized", f"The delivery stream is {status}.")
    return bool(status == "ACTIVE")


SCHEDULES: Final = (
    regular("AWS::Scheduler::Schedule", "scheduler", create="CreateSchedule", delete="DeleteSchedule",
    update="UpdateSchedule",
            key=("Name", "GroupName"), ref="Name", named="Name", most=64, tags="", attributes={"Arn": "ScheduleArn"},
            read="GetSchedule", replaces=("GroupName",)),
    regular("AWS::Scheduler::ScheduleGroup", "scheduler", create="CreateScheduleGroup", delete="DeleteScheduleGroup",
            key=("Name",), ref="Name", named="Name", most=64, attributes={"Arn": "ScheduleGroupArn"},
            tagging=Tagging("TagResource", "UntagResource", "ResourceArn", "Arn")),
    regular("AWS::KinesisFirehose::DeliveryStream", "firehose", create="CreateDeliveryStream",
    delete="DeleteDeliveryStream",
            key=("DeliveryStreamName",), ref="DeliveryStreamName", named="DeliveryStreamName", most=64,
            attributes={"Arn": "DeliveryStreamARN"}, ready=_streaming,
            tagging=Tagging("TagDeliveryStream", "UntagDeliveryStream", "DeliveryStreamName", "Ref")),
)  # fmt: skip
TYPES: Final = (*MESSAGES, *SCHEDULES)
"""Types of topics, queues, schedules and streams."""
