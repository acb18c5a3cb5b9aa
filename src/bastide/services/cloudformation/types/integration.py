"""Types of functions, state machines, topics, queues, schedules and streams."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.templates import text
from bastide.services.cloudformation.fetching import fetched
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular, retag

# -- Lambda ------------------------------------------------------------------------------------------------------------

_LAMBDA_TAGS: Final = Tagging("TagResource", "UntagResource", "Resource", "Arn")
_CODE: Final = ("Code", "Architectures")
_NOT_CONFIGURED: Final = {
    "Code", "Architectures", "FunctionName", "PackageType", "Tags", "ReservedConcurrentExecutions", "CodeSigningConfigArn",
    "RuntimeManagementConfig", "RecursiveLoop", "FunctionScalingConfig", "PublishToLatestPublished", "TenancyConfig",
}  # fmt: skip
_RESPONSE: Final = '''"""Answers CloudFormation from a function of a custom resource."""
import json
import urllib.request

SUCCESS = "SUCCESS"
FAILED = "FAILED"


def send(event, context, responseStatus, responseData, physicalResourceId=None, noEcho=False, reason=None):
    answer = {
        "Status": responseStatus,
        "Reason": reason or "See the details in CloudWatch Log Stream: " + context.log_stream_name,
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "NoEcho": noEcho,
        "Data": responseData,
    }
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), method="PUT")
    with urllib.request.urlopen(request) as told:
        print("Status code:", told.status)
'''
"""The module that functions which stand in a template may import (CloudFormation User Guide, "cfn-response module")."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def _code(r: Resource) -> dict[str, Any]:
    """The function's code as the API takes it; what stands in the template becomes an archive with one file."""
    given = dict(r.get("Code"))
    source = given.pop("ZipFile", None)
    if source is not None:
        name = "index.js" if str(r.get("Runtime", "")).startswith("nodejs") else "index.py"
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text(source))
            if "cfnresponse" in text(source) and name.endswith(".py"):
                archive.writestr(zipfile.ZipInfo("cfnresponse.py", _EPOCH), _RESPONSE)
        given["ZipFile"] = held.getvalue()
    return given


async def _active(r: Resource) -> bool:
    told = await r.read("GetFunction", {"FunctionName": r.physical})
    held = told["Configuration"]
    if held.get("State") == "Failed" or held.get("LastUpdateStatus") == "Failed":
        why = held.get("StateReason") or held.get("LastUpdateStatusReason") or ""
        raise Refused("NotStabilized", f"The function {r.physical} did not become active: {why}")
    return bool(held.get("State", "Active") == "Active" and held.get("LastUpdateStatus", "Successful") == "Successful")


async def _create_function(r: Resource) -> None:
    lacking = [one for one in ("RuntimeManagementConfig", "RecursiveLoop", "FunctionScalingConfig") if r.get(one)]
    if lacking:
        raise Refused("ValidationError", f"Bastide's functions do not have {', '.join(lacking)} yet; leave it out.")
    name = r.name(64, given=r.get("FunctionName"))
    asked = {
        **r.but("Code", "FunctionName", "Tags", "ReservedConcurrentExecutions"),
        "FunctionName": name,
        "Code": _code(r),
    }
    tags = r.tags()
    if tags:
        asked["Tags"] = {one["Key"]: one["Value"] for one in tags}
    made = await r.do("CreateFunction", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {"Arn": made["FunctionArn"], "FunctionName": name}
    await r.until(lambda: _active(r))
    if r.get("ReservedConcurrentExecutions") is not None:
        await _concurrency(r)


async def _concurrency(r: Resource) -> None:
    named = {"FunctionName": r.physical}
    if r.get("ReservedConcurrentExecutions") is None:
        await r.drop("DeleteFunctionConcurrency", named)
    else:
        await r.do("PutFunctionConcurrency", {**named, **r.only("ReservedConcurrentExecutions")})


async def _update_function(r: Resource) -> None:
    named = {"FunctionName": r.physical}
    if r.changed(*_CODE):
        await r.do("UpdateFunctionCode", {**named, **_code(r), **r.only("Architectures")}, key="code")
        await r.until(lambda: _active(r))
    before = {name: one for name, one in r.old.items() if name not in _NOT_CONFIGURED}
    now = {name: one for name, one in r.properties.items() if name not in _NOT_CONFIGURED}
    if before != now:
        gone = {"Environment": {"Variables": {}}, "Layers": [], "Description": ""}
        asked = {**{name: gone[name] for name in gone if name in before}, **now}
        await r.do("UpdateFunctionConfiguration", {**named, **asked}, key="configuration")
        await r.until(lambda: _active(r))
    if r.changed("ReservedConcurrentExecutions"):
        await _concurrency(r)
    before_tags = {one["Key"]: one["Value"] for one in r.old.get("Tags") or ()}
    after_tags = {one["Key"]: one["Value"] for one in r.tags()}
    arn = {"Resource": r.fact("Arn")}
    if set(before_tags) - set(after_tags):
        await r.do("UntagResource", {**arn, "TagKeys": sorted(set(before_tags) - set(after_tags))})
    if after_tags and after_tags != before_tags:
        await r.do("TagResource", {**arn, "Tags": after_tags})


async def _delete_function(r: Resource) -> None:
    await r.drop("DeleteFunction", {"FunctionName": r.physical})


async def _read_function(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("GetFunction", {"FunctionName": r.physical})
    if told is None:
        return None
    held = told["Configuration"]
    names = ("Description", "Handler", "MemorySize", "Role", "Runtime", "Timeout")
    return {name: held[name] for name in names if name in held and name in r.properties}


async def _publish_version(r: Resource) -> None:
    made = await r.do("PublishVersion", r.only("FunctionName", "CodeSha256", "Description"), key="create")
    arn = made["FunctionArn"]
    if not arn.endswith(f":{made['Version']}"):
        arn = f"{arn}:{made['Version']}"
    r.thing.physical = arn
    r.thing.attributes = {"FunctionArn": arn, "Version": made["Version"]}
    if r.get("ProvisionedConcurrencyConfig"):
        raise Refused("ValidationError", "ProvisionedConcurrencyConfig is not supported on versions; leave it out.")


async def _delete_version(r: Resource) -> None:
    await r.drop("DeleteFunction", {"FunctionName": r.get("FunctionName"), "Qualifier": r.fact("Version")})


async def _create_alias(r: Resource) -> None:
    made = await r.do("CreateAlias", _alias(r), key="create")
    r.thing.physical = made["AliasArn"]
    r.thing.attributes = {"AliasArn": made["AliasArn"]}


def _alias(r: Resource) -> dict[str, Any]:
    if r.get("ProvisionedConcurrencyConfig"):
        raise Refused("ValidationError", "ProvisionedConcurrencyConfig is not supported on aliases; leave it out.")
    asked = r.only("FunctionName", "Name", "FunctionVersion", "Description")
    weights = (r.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or []
    if weights:
        told = {one["FunctionVersion"]: one["FunctionWeight"] for one in weights}
        asked["RoutingConfig"] = {"AdditionalVersionWeights": told}
    elif r.old.get("RoutingConfig"):
        asked["RoutingConfig"] = {"AdditionalVersionWeights": {}}
    return asked


async def _update_alias(r: Resource) -> None:
    await r.do("UpdateAlias", _alias(r), key="update")


async def _delete_alias(r: Resource) -> None:
    await r.drop("DeleteAlias", r.only("FunctionName", "Name"))


async def _permit(r: Resource) -> None:
    sid = r.name(100)
    await r.do("AddPermission", {**r.properties, "StatementId": sid}, key="create")
    r.thing.physical = sid
    r.thing.attributes = {"Id": sid}


async def _forbid(r: Resource) -> None:
    asked = {"StatementId": r.physical}
    name, _, qualifier = str(r.get("FunctionName")), "", ""
    match = re.fullmatch(r"(.*:function:[^:]+):([^:]+)", name)
    if match:
        name, qualifier = match[1], match[2]
    await r.drop("RemovePermission", {"FunctionName": name, **asked, **({"Qualifier": qualifier} if qualifier else {})})


async def _create_layer(r: Resource) -> None:
    asked = {**r.but("LayerName"), "LayerName": r.name(64, given=r.get("LayerName"))}
    made = await r.do("PublishLayerVersion", asked, key="create")
    r.thing.physical = made["LayerVersionArn"]
    r.thing.attributes = {
        "LayerVersionArn": made["LayerVersionArn"],
        "_name": asked["LayerName"],
        "_version": made["Version"],
    }


async def _delete_layer(r: Resource) -> None:
    await r.drop("DeleteLayerVersion", {"LayerName": r.fact("_name"), "VersionNumber": r.fact("_version")})


async def _invoke_config(r: Resource) -> None:
    await r.do("PutFunctionEventInvokeConfig", r.properties, key="put")
    r.thing.physical = f"{r.get('FunctionName')}|{r.get('Qualifier')}"


async def _no_invoke_config(r: Resource) -> None:
    await r.drop("DeleteFunctionEventInvokeConfig", r.only("FunctionName", "Qualifier"))


LAMBDA: Final = (
    Type(
        "AWS::Lambda::Function", "lambda", _create_function, _delete_function, _update_function, _read_function,
        calls_of("lambda", ["CreateFunction", "DeleteFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration",
        "GetFunction"]),
        named="FunctionName", mark=lambda r: str(r.fact("Arn")),
    ),
    Type(
        "AWS::Lambda::Version", "lambda", _publish_version, _delete_version, None, None,
        calls_of("lambda", ["PublishVersion", "DeleteFunction"]),
        frozenset({"FunctionName", "CodeSha256", "Description", "ProvisionedConcurrencyConfig"}),
    ),
    Type(
        "AWS::Lambda::Alias", "lambda", _create_alias, _delete_alias, _update_alias, None,
        calls_of("lambda", ["CreateAlias", "UpdateAlias", "DeleteAlias"]), frozenset({"FunctionName", "Name"}),
    ),
    Type(
        "AWS::Lambda::Permission", "lambda", _permit, _forbid, None, None,
        calls_of("lambda", ["AddPermission", "RemovePermission"]),
    ),
    Type(
        "AWS::Lambda::LayerVersion", "lambda", _create_layer, _delete_layer, None, None,
        calls_of("lambda", ["PublishLayerVersion", "DeleteLayerVersion"]),
    ),
    Type(
        "AWS::Lambda::EventInvokeConfig", "lambda", _invoke_config, _no_invoke_config, _invoke_config, None,
        calls_of("lambda", ["PutFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig"]),
    ),
    regular(
        "AWS::Lambda::EventSourceMapping", "lambda", create="CreateEventSourceMapping", delete="DeleteEventSourceMapping",
        update="UpdateEventSourceMapping", key={"UUID": "Id"}, ref="Id", attributes={"Id": "UUID",
        "EventSourceMappingArn": "EventSourceMappingArn"}, tags="", update_leave=("EventSourceArn", "StartingPosition",
        "StartingPositionTimestamp", "SelfManagedEventSource", "Topics", "Queues"),
    ),
)  # fmt: skip

# -- Step Functions ----------------------------------------------------------------------------------------------------

_STATES_TAGS: Final = Tagging("TagResource", "UntagResource", "resourceArn", "Arn", "tags", "tagKeys")


async def _definition(r: Resource) -> str:
    """The definition, wherever it lies, with its ``${names}`` filled in; raises Refused."""
    if r.get("DefinitionString") is not None:
        source = document(r.get("DefinitionString"))
    elif r.get("Definition") is not None:
        source = document(r.get("Definition"))
    elif r.get("DefinitionS3Location") is not None:
        where = r.get("DefinitionS3Location")
        source = (await fetched(r.actor, where["Bucket"], where["Key"], where.get("Version", ""))).decode(
            "utf-8", "replace"
        )
    else:
        raise Refused(
            "ValidationError", "A state machine needs a Definition, a DefinitionString or a DefinitionS3Location."
        )
    held = r.get("DefinitionSubstitutions") or {}

    def replaced(match: re.Match[str]) -> str:
        return text(held[match[1]]) if match[1] in held else match[0]

    return re.sub(r"\$\{([A-Za-z0-9_]+)\}", replaced, source)


_DEFINED: Final = ("Definition", "DefinitionString", "DefinitionS3Location", "DefinitionSubstitutions")
_MACHINE: Final = {"RoleArn": "roleArn", "LoggingConfiguration": "loggingConfiguration",
                   "TracingConfiguration": "tracingConfiguration", "EncryptionConfiguration":
                   "encryptionConfiguration"}  # fmt: skip


async def _create_machine(r: Resource) -> None:
    name = r.name(80, given=r.get("StateMachineName"))
    asked = {
        "name": name,
        "definition": await _definition(r),
        **{_MACHINE[one]: r.get(one) for one in _MACHINE if r.get(one)},
    }
    if r.get("StateMachineType"):
        asked["type"] = r.get("StateMachineType")
    tags = r.tags()
    if tags:
        asked["tags"] = tags
    made = await r.do("CreateStateMachine", asked, key="create")
    r.thing.physical = made["stateMachineArn"]
    r.thing.attributes = {"Arn": r.physical, "Name": name}
    await _revision(r)


async def _revision(r: Resource) -> None:
    told = await r.read("DescribeStateMachine", {"stateMachineArn": r.physical})
    r.thing.attributes["StateMachineRevisionId"] = told.get("revisionId") or "INITIAL"


async def _update_machine(r: Resource) -> None:
    if r.changed(*_DEFINED, *_MACHINE):
        asked = {"definition": await _definition(r), **{_MACHINE[one]: r.get(one) for one in _MACHINE if r.get(one)}}
        await r.do("UpdateStateMachine", {"stateMachineArn": r.physical, **asked}, key="update")
        await _revision(r)
    await retag(r, _STATES_TAGS)


async def _delete_machine(r: Resource) -> None:
    named = {"stateMachineArn": r.physical}
    await r.drop("DeleteStateMachine", named)

    async def gone() -> bool:
        return await r.seen("DescribeStateMachine", named) is None

    await r.until(gone)


async def _read_machine(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeStateMachine", {"stateMachineArn": r.physical})
    if told is None or told.get("status") == "DELETING":
        return None
    found: dict[str, Any] = {"RoleArn": told["roleArn"]}
    if "DefinitionString" in r.properties and not r.get("DefinitionSubstitutions"):
        same = _parsed(told["definition"]) == _parsed(document(r.get("DefinitionString")))
        found["DefinitionString"] = r.get("DefinitionString") if same else told["definition"]
    return found


def _parsed(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


async def _create_machine_alias(r: Resource) -> None:
    asked = {"name": r.name(80, given=r.get("Name")), "routingConfiguration": _routes(r), **_described(r)}
    made = await r.do("CreateStateMachineAlias", asked, key="create")
    r.thing.physical = made["stateMachineAliasArn"]
    r.thing.attributes = {"Arn": r.physical}


def _described(r: Resource) -> dict[str, Any]:
    return {"description": r.get("Description")} if r.get("Description") else {}


def _routes(r: Resource) -> list[dict[str, Any]]:
    if r.get("DeploymentPreference"):
        held = r.get("DeploymentPreference")
        if held.get("Type") != "ALL_AT_ONCE":
            raise Refused("ValidationError", "DeploymentPreference: aliases are shifted ALL_AT_ONCE here.")
        return [{"stateMachineVersionArn": held["StateMachineVersionArn"], "weight": 100}]
    return [
        {"stateMachineVersionArn": one["StateMachineVersionArn"], "weight": one["Weight"]}
        for one in r.get("RoutingConfiguration") or ()
    ]


async def _update_machine_alias(r: Resource) -> None:
    asked = {"stateMachineAliasArn": r.physical, "routingConfiguration": _routes(r), **_described(r)}
    await r.do("UpdateStateMachineAlias", asked, key="update")


async def _delete_machine_alias(r: Resource) -> None:
    await r.drop("DeleteStateMachineAlias", {"stateMachineAliasArn": r.physical})


_NAMES: Final = [f"{verb}StateMachine" for verb in ("Create", "Delete", "Update", "Describe")]
STATES: Final = (
    Type(
        "AWS::StepFunctions::StateMachine", "stepfunctions", _create_machine, _delete_machine, _update_machine,
        _read_machine,
        calls_of("stepfunctions", _NAMES), named="StateMachineName", mark=lambda r: r.physical,
    ),
    regular(
        "AWS::StepFunctions::Activity", "stepfunctions", create="CreateActivity", delete="DeleteActivity",
        key={"activityArn": "Arn"}, ref="Arn", attributes={"Arn": "activityArn"}, named="Name", most=80, tags="tags",
        tagging=_STATES_TAGS,
    ),
    regular(
        "AWS::StepFunctions::StateMachineVersion", "stepfunctions", create="PublishStateMachineVersion",
        delete="DeleteStateMachineVersion", key={"stateMachineVersionArn": "Arn"}, ref="Arn",
        attributes={"Arn": "stateMachineVersionArn"}, tags="",
        rename={"StateMachineRevisionId": "revisionId"},
        replaces=("StateMachineArn", "StateMachineRevisionId", "Description"),
    ),
    Type(
        "AWS::StepFunctions::StateMachineAlias", "stepfunctions", _create_machine_alias, _delete_machine_alias,
        _update_machine_alias, None,
        calls_of("stepfunctions", ["CreateStateMachineAlias", "UpdateStateMachineAlias", "DeleteStateMachineAlias"]),
    ),
)  # fmt: skip

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
    r.thing.physical = r.name(128)
    r.thing.attributes = {"Id": r.physical}


async def _no_topic_policy(r: Resource) -> None:
    """What a topic has when nobody gave it a policy: its owner may do everything (SNS Developer Guide)."""
    for arn in r.get("Topics"):
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
    r.thing.physical = r.name(128)
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
TYPES: Final = (*LAMBDA, *STATES, *MESSAGES, *SCHEDULES)
"""Types of functions, state machines, topics, queues, schedules and streams."""
