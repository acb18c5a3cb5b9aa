"""Types of parameters, secrets, logs, alarms, events, trails and scaling."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, at, calls_of, regular, retag

# -- parameters and secrets --------------------------------------------------------------------------------------------


async def _create_parameter(r: Resource) -> None:
    name = r.name(512, given=r.get("Name"))
    asked = {**r.but("Tags", "Name"), "Name": name}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    await r.do("PutParameter", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {"Type": r.get("Type"), "Value": r.get("Value"), "Name": name}


async def _update_parameter(r: Resource) -> None:
    fields = ("Type", "Value", "Description", "AllowedPattern", "Tier", "Policies", "DataType")
    if r.changed(*fields):
        await r.do("PutParameter", {"Name": r.physical, "Overwrite": True, **r.only(*fields)}, key="update")
        r.thing.attributes = {**r.thing.attributes, "Type": r.get("Type"), "Value": r.get("Value")}
    before = {one["Key"]: one["Value"] for one in r.tags()}
    had = r.old.get("Tags") or {}
    kind = {"ResourceType": "Parameter", "ResourceId": r.physical}
    had = {one["Key"]: one["Value"] for one in had} if isinstance(had, list) else dict(had)
    gone = sorted(set(had) - set(before))
    if gone:
        await r.do("RemoveTagsFromResource", {**kind, "TagKeys": gone})
    if before and before != had:
        await r.do("AddTagsToResource", {**kind, "Tags": r.tags()})


async def _delete_parameter(r: Resource) -> None:
    await r.drop("DeleteParameter", {"Name": r.physical})


async def _read_parameter(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("GetParameter", {"Name": r.physical})
    if told is None:
        return None
    return {"Type": told["Parameter"]["Type"], "Value": told["Parameter"]["Value"]}


async def _generated(r: Resource) -> dict[str, Any]:
    given = r.get("GenerateSecretString")
    if given is None:
        return r.only("SecretString")
    how = {name: one for name, one in given.items() if name not in ("SecretStringTemplate", "GenerateStringKey")}
    password = (await r.read("GetRandomPassword", how))["RandomPassword"]
    if "SecretStringTemplate" not in given:
        return {"SecretString": password}
    try:
        held = orjson.loads(given["SecretStringTemplate"])
    except orjson.JSONDecodeError:
        raise Refused("ValidationError", "GenerateSecretString.SecretStringTemplate is not JSON.") from None
    if not isinstance(held, dict) or not given.get("GenerateStringKey"):
        raise Refused("ValidationError", "A SecretStringTemplate is a JSON object and needs a GenerateStringKey.")
    return {"SecretString": orjson.dumps({**held, given["GenerateStringKey"]: password}).decode()}


async def _create_secret(r: Resource) -> None:
    if r.get("ReplicaRegions") or r.get("Type"):
        raise Refused("ValidationError", "Bastide's secrets have no ReplicaRegions and no Type yet; leave it out.")
    asked = {"Name": r.name(127, given=r.get("Name")), **r.only("Description", "KmsKeyId"), **await _generated(r)}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    made = await r.do("CreateSecret", asked, key="create")
    r.thing.physical = made["ARN"]
    r.thing.attributes = {"Id": made["ARN"]}


async def _update_secret(r: Resource) -> None:
    named = {"SecretId": r.physical}
    asked = r.only("Description", "KmsKeyId") if r.changed("Description", "KmsKeyId") else {}
    if r.changed("SecretString", "GenerateSecretString"):
        asked = {**asked, **await _generated(r)}
    if asked:
        await r.do("UpdateSecret", {**named, **asked}, key="update")
    await retag(r, Tagging("TagResource", "UntagResource", "SecretId", "Ref"))


async def _delete_secret(r: Resource) -> None:
    await r.drop("DeleteSecret", {"SecretId": r.physical, "ForceDeleteWithoutRecovery": True})


async def _put_secret_policy(r: Resource) -> None:
    asked = {"SecretId": r.get("SecretId"), "ResourcePolicy": document(r.get("ResourcePolicy"))}
    await r.do("PutResourcePolicy", {**asked, **r.only("BlockPublicPolicy")})
    r.thing.physical = str(r.get("SecretId"))
    r.thing.attributes = {"Id": r.physical}


async def _delete_secret_policy(r: Resource) -> None:
    await r.drop("DeleteResourcePolicy", {"SecretId": r.get("SecretId")})


# -- logs and alarms ---------------------------------------------------------------------------------------------------


async def _group_settings(r: Resource) -> None:
    named = {"logGroupName": r.physical or r.fact("LogGroupName")}
    lacking = [
        name
        for name in (
            "DataProtectionPolicy",
            "FieldIndexPolicies",
            "DeletionProtectionEnabled",
            "ResourcePolicyDocument",
        )
        if r.get(name)
    ]
    if lacking or r.get("LogGroupClass") not in (None, "STANDARD"):
        raise Refused(
            "ValidationError", f"Bastide's log groups do not have {', '.join(lacking) or 'other classes'} yet."
        )
    if r.changed("RetentionInDays"):
        if r.get("RetentionInDays"):
            await r.do("PutRetentionPolicy", {**named, "retentionInDays": r.get("RetentionInDays")})
        else:
            await r.drop("DeleteRetentionPolicy", named)
    if r.old and r.changed("KmsKeyId"):
        if r.get("KmsKeyId"):
            await r.do("AssociateKmsKey", {**named, "kmsKeyId": r.get("KmsKeyId")})
        else:
            await r.drop("DisassociateKmsKey", named)


_GROUP: Final = regular(
    "AWS::Logs::LogGroup", "logs", create="CreateLogGroup", delete="DeleteLogGroup", key={"logGroupName": "LogGroupName"},
    ref="LogGroupName", named="LogGroupName", most=512, tags="tags", after=_group_settings,
    leave=("RetentionInDays", "DataProtectionPolicy", "FieldIndexPolicies", "DeletionProtectionEnabled", "LogGroupClass",
           "ResourcePolicyDocument", "BearerTokenAuthenticationEnabled"),
    more=("PutRetentionPolicy", "DeleteRetentionPolicy", "AssociateKmsKey"),
)  # fmt: skip


async def _create_group(r: Resource) -> None:
    await _GROUP.create(r)
    r.thing.attributes["Arn"] = f"arn:aws:logs:{r.stack.region}:{r.stack.account}:log-group:{r.physical}:*"


async def _update_group(r: Resource) -> None:
    await _group_settings(r)
    arn = str(r.thing.attributes["Arn"]).removesuffix(":*")
    r.thing.attributes["_arn"] = arn
    before = {one["Key"]: one["Value"] for one in r.old.get("Tags") or ()}
    after = {one["Key"]: one["Value"] for one in r.tags()}
    if set(before) - set(after):
        await r.do("UntagResource", {"resourceArn": arn, "tagKeys": sorted(set(before) - set(after))})
    if after and after != before:
        await r.do("TagResource", {"resourceArn": arn, "tags": after})


async def _read_group(r: Resource) -> dict[str, Any] | None:
    told = await r.read("DescribeLogGroups", {"logGroupNamePrefix": r.physical})
    for one in told.get("logGroups") or ():
        if one["logGroupName"] == r.physical:
            return {"RetentionInDays": one.get("retentionInDays")} if "RetentionInDays" in r.properties else {}
    return None


def _alarm(noun: str, create: str) -> Type:
    return regular(
        f"AWS::CloudWatch::{noun}", "cloudwatch", create=create, delete="DeleteAlarms", put=True, named="AlarmName",
        most=255,
        key=(), delete_key={"AlarmNames": "AlarmName"}, ref="AlarmName", after=_alarm_arn,
        tagging=Tagging("TagResource", "UntagResource", "ResourceARN", "Arn"), arn="Arn",
    )  # fmt: skip


async def _alarm_arn(r: Resource) -> None:
    name = r.physical or r.fact("AlarmName")
    r.thing.attributes["Arn"] = f"arn:aws:cloudwatch:{r.stack.region}:{r.stack.account}:alarm:{name}"


# -- events ------------------------------------------------------------------------------------------------------------


async def _put_rule(r: Resource) -> None:
    name = r.thing.attributes.get("RuleName") or r.name(64, given=r.get("Name"))
    asked: dict[str, Any] = {
        "Name": name,
        **r.only("Description", "EventBusName", "RoleArn", "ScheduleExpression", "State"),
    }
    if r.get("EventPattern") is not None:
        asked["EventPattern"] = document(r.get("EventPattern"))
    tags = r.tags()
    if tags and not r.old:
        asked["Tags"] = tags
    made = await r.do("PutRule", asked, key="put")
    r.thing.physical = name
    r.thing.attributes = {"Arn": made["RuleArn"], "RuleName": name}
    await _targets(r)
    if r.old:
        await retag(r, Tagging("TagResource", "UntagResource", "ResourceARN", "Arn"))


async def _targets(r: Resource) -> None:
    named = {"Rule": r.physical, **r.only("EventBusName")}
    before = {one["Id"]: one for one in r.old.get("Targets") or ()}
    after = {one["Id"]: one for one in r.get("Targets") or ()}
    gone = sorted(set(before) - set(after))
    if gone:
        _all_taken(await r.do("RemoveTargets", {**named, "Ids": gone}))
    new = [one for id, one in after.items() if before.get(id) != one]
    if new:
        _all_taken(await r.do("PutTargets", {**named, "Targets": new}))


def _all_taken(answer: dict[str, Any]) -> None:
    for one in answer.get("FailedEntries") or ():
        raise Refused(str(one.get("ErrorCode")), str(one.get("ErrorMessage")))


async def _delete_rule(r: Resource) -> None:
    bus = r.only("EventBusName")
    told = await r.seen("ListTargetsByRule", {"Rule": r.physical, **bus})
    if told is None:
        return
    ids = [one["Id"] for one in told.get("Targets") or ()]
    if ids:
        _all_taken(await r.do("RemoveTargets", {"Rule": r.physical, **bus, "Ids": ids}))
    await r.drop("DeleteRule", {"Name": r.physical, **bus})


async def _read_rule(r: Resource) -> dict[str, Any] | None:
    told = await r.seen("DescribeRule", {"Name": r.physical, **r.only("EventBusName")})
    if told is None:
        return None
    names = ("Description", "ScheduleExpression", "State", "RoleArn")
    found: dict[str, Any] = {name: told.get(name) for name in names if name in r.properties}
    if "EventPattern" in r.properties and told.get("EventPattern"):
        found["EventPattern"] = orjson.loads(told["EventPattern"])
    return found


async def _bus_policy(r: Resource) -> None:
    named = {"Name": r.physical or r.fact("Name")}
    lacking = [name for name in ("EventSourceName", "DeadLetterConfig", "LogConfig") if r.get(name)]
    if lacking:
        raise Refused("ValidationError", f"Bastide's event buses do not have {', '.join(lacking)} yet; leave it out.")
    if r.changed("Policy"):
        bus = {"EventBusName": named["Name"]}
        if r.get("Policy") is not None:
            await r.do("PutPermission", {**bus, "Policy": document(r.get("Policy"))})
        else:
            await r.drop("RemovePermission", {**bus, "RemoveAllPermissions": True})


async def _put_statement(r: Resource) -> None:
    bus = {"EventBusName": r.get("EventBusName") or "default"}
    statement = r.get("Statement")
    if statement is not None:
        held = await r.seen("DescribeEventBus", {"Name": bus["EventBusName"]})
        policy = orjson.loads(at(held, "Policy") or '{"Version":"2012-10-17","Statement":[]}')
        kept = [one for one in policy["Statement"] if one.get("Sid") != r.get("StatementId")]
        policy["Statement"] = [*kept, {**statement, "Sid": r.get("StatementId")}]
        await r.do("PutPermission", {**bus, "Policy": document(policy)}, key="put")
    else:
        await r.do("PutPermission", {**bus, **r.only("Action", "Principal", "StatementId", "Condition")})
    r.thing.physical = f"{bus['EventBusName']}|{r.get('StatementId')}"


async def _remove_statement(r: Resource) -> None:
    bus = {"EventBusName": r.get("EventBusName") or "default"}
    await r.drop("RemovePermission", {**bus, "StatementId": r.get("StatementId")})


# -- trails and scaling ------------------------------------------------------------------------------------------------


async def _trail(r: Resource) -> None:
    name = r.physical or r.fact("TrailName")
    if r.get("InsightSelectors") or r.get("AdvancedEventSelectors") or r.get("AggregationConfigurations"):
        raise Refused("ValidationError", "Bastide's trails have EventSelectors only; leave the others out.")
    if r.changed("EventSelectors") and r.get("EventSelectors"):
        await r.do("PutEventSelectors", {"TrailName": name, **r.only("EventSelectors")})
    if r.changed("IsLogging"):
        await r.do("StartLogging" if r.get("IsLogging") else "StopLogging", {"Name": name})


async def _register(r: Resource) -> None:
    asked = r.only(
        "ServiceNamespace", "ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState"
    )
    await r.do("RegisterScalableTarget", asked, key="register")
    r.thing.physical = "|".join(str(r.get(name)) for name in _SCALED)
    r.thing.attributes = {"Id": r.physical}
    named = {name: r.get(name) for name in _SCALED}
    before = {one["ScheduledActionName"]: one for one in r.old.get("ScheduledActions") or ()}
    after = {one["ScheduledActionName"]: one for one in r.get("ScheduledActions") or ()}
    for name in sorted(set(before) - set(after)):
        await r.drop("DeleteScheduledAction", {**named, "ScheduledActionName": name})
    for name, one in after.items():
        if before.get(name) != one:
            await r.do("PutScheduledAction", {**named, **one})


async def _deregister(r: Resource) -> None:
    await r.drop("DeregisterScalableTarget", {name: r.get(name) for name in _SCALED})


def _scaled(r: Resource) -> dict[str, Any]:
    target = str(r.get("ScalingTargetId") or "").split("|")
    if len(target) == 3:
        return dict(zip(_SCALED, target, strict=True))
    return {name: r.get(name) for name in _SCALED}


async def _put_scaling(r: Resource) -> None:
    asked = {**_scaled(r), **r.only("PolicyName", "PolicyType", "StepScalingPolicyConfiguration")}
    if r.get("PredictiveScalingPolicyConfiguration"):
        raise Refused(
            "ValidationError", "PredictiveScalingPolicyConfiguration is not supported; track a target instead."
        )
    if r.get("TargetTrackingScalingPolicyConfiguration"):
        asked["TargetTrackingScalingPolicyConfiguration"] = r.get("TargetTrackingScalingPolicyConfiguration")
    made = await r.do("PutScalingPolicy", asked, key="put")
    r.thing.physical = made["PolicyARN"]
    r.thing.attributes = {"Arn": made["PolicyARN"]}


async def _delete_scaling(r: Resource) -> None:
    await r.drop("DeleteScalingPolicy", {**_scaled(r), **r.only("PolicyName")})


_SCALED: Final = ("ResourceId", "ScalableDimension", "ServiceNamespace")
_SECRET: Final = ["CreateSecret", "DeleteSecret", "UpdateSecret", "GetRandomPassword", "TagResource"]
TYPES: Final = (
    Type("AWS::SSM::Parameter", "ssm", _create_parameter, _delete_parameter, _update_parameter, _read_parameter,
         calls_of("ssm", ["PutParameter", "DeleteParameter", "AddTagsToResource"]), named="Name",
         mark=lambda r: f"arn:aws:ssm:{r.stack.region}:{r.stack.account}:parameter/{r.physical.removeprefix('/')}"),
    Type("AWS::SecretsManager::Secret", "secretsmanager", _create_secret, _delete_secret, _update_secret, None,
         calls_of("secretsmanager", _SECRET), named="Name", mark=lambda r: r.physical),
    Type("AWS::SecretsManager::ResourcePolicy", "secretsmanager", _put_secret_policy, _delete_secret_policy,
         _put_secret_policy, None, calls_of("secretsmanager", ["PutResourcePolicy", "DeleteResourcePolicy"])),
    Type("AWS::Logs::LogGroup", "logs", _create_group, _GROUP.delete, _update_group, _read_group, _GROUP.calls,
         named="LogGroupName",
         mark=lambda r: f"arn:aws:logs:{r.stack.region}:{r.stack.account}:log-group:{r.physical}"),
    regular("AWS::Logs::LogStream", "logs", create="CreateLogStream", delete="DeleteLogStream",
    named="LogStreamName", most=512,
            key=("LogGroupName", "LogStreamName"), ref="LogStreamName", tags=""),
    regular("AWS::Logs::MetricFilter", "logs", create="PutMetricFilter", delete="DeleteMetricFilter", put=True, tags="",
            named="FilterName", most=512, key=("LogGroupName", "FilterName"), ref="FilterName"),
    regular("AWS::Logs::ResourcePolicy", "logs", create="PutResourcePolicy", delete="DeleteResourcePolicy", put=True,
    tags="",
            key=("PolicyName",), ref="PolicyName"),
    _alarm("Alarm", "PutMetricAlarm"),
    _alarm("CompositeAlarm", "PutCompositeAlarm"),
    regular("AWS::CloudWatch::Dashboard", "cloudwatch", create="PutDashboard", delete="DeleteDashboards", put=True, tags="",
            named="DashboardName", most=255, key=("DashboardName",), delete_key={"DashboardNames": "DashboardName"},
            ref="DashboardName"),
    Type("AWS::Events::Rule", "events", _put_rule, _delete_rule, _put_rule, _read_rule,
         calls_of("events", ["PutRule", "DeleteRule", "PutTargets", "RemoveTargets"]), frozenset({"EventBusName"}),
         lambda r: str(r.thing.attributes["Arn"]), named="Name"),
    regular("AWS::Events::EventBus", "events", create="CreateEventBus", delete="DeleteEventBus", read="DescribeEventBus",
            key=("Name",), ref="Name", attributes={"Arn": "EventBusArn", "Name": "Name"}, after=_bus_policy,
            leave=("Policy", "EventSourceName", "DeadLetterConfig", "LogConfig"),
            tagging=Tagging("TagResource", "UntagResource", "ResourceARN", "Arn"), more=("PutPermission",), arn="Arn",
            replaces=("Description", "KmsKeyIdentifier")),
    regular("AWS::Events::Archive", "events", create="CreateArchive", delete="DeleteArchive", update="UpdateArchive",
            tags="", key=("ArchiveName",), ref="ArchiveName", named="ArchiveName", most=48,
            rename={"SourceArn": "EventSourceArn"},
            attributes={"Arn": "ArchiveArn"}, update_leave=("EventSourceArn",)),
    regular("AWS::Events::Connection", "events", create="CreateConnection", delete="DeleteConnection", tags="",
            update="UpdateConnection", key=("Name",), ref="Name", named="Name", most=64, read="DescribeConnection",
            attributes={"Arn": "ConnectionArn", "SecretArn": "SecretArn"}),
    regular("AWS::Events::ApiDestination", "events", create="CreateApiDestination", delete="DeleteApiDestination", tags="",
            update="UpdateApiDestination", key=("Name",), ref="Name", named="Name", most=64,
            attributes={"Arn": "ApiDestinationArn"}),
    Type("AWS::Events::EventBusPolicy", "events", _put_statement, _remove_statement, _put_statement, None,
         calls_of("events", ["PutPermission", "RemovePermission"])),
    regular("AWS::CloudTrail::Trail", "cloudtrail", create="CreateTrail", delete="DeleteTrail", update="UpdateTrail",
            named="TrailName", most=128, key={"Name": "TrailName"}, ref="TrailName",
            rename={"TrailName": "Name", "KMSKeyId": "KmsKeyId",
            "EnableLogFileValidation": "EnableLogFileValidation"}, tags="TagsList",
            leave=("IsLogging", "EventSelectors", "InsightSelectors", "AdvancedEventSelectors",
            "AggregationConfigurations"),
            attributes={"Arn": "TrailARN", "SnsTopicArn": "SnsTopicARN"}, after=_trail,
            tagging=Tagging("AddTags", "RemoveTags", "ResourceId", "Arn", "TagsList", "TagsList"),
            more=("StartLogging", "StopLogging", "PutEventSelectors")),
    Type("AWS::ApplicationAutoScaling::ScalableTarget", "application-autoscaling", _register, _deregister, _register, None,
         calls_of("application-autoscaling", ["RegisterScalableTarget", "DeregisterScalableTarget", "PutScheduledAction"])),
    Type("AWS::ApplicationAutoScaling::ScalingPolicy", "application-autoscaling", _put_scaling, _delete_scaling,
    _put_scaling,
         None, calls_of("application-autoscaling", ["PutScalingPolicy", "DeleteScalingPolicy"])),
)  # fmt: skip
"""Types of parameters, secrets, logs, alarms, events, trails and scaling."""
