"""Lambda's types."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.templates import text
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types import deployments
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular

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
    policy, before = r.thing.attributes.get("_update"), str(r.old.get("FunctionVersion"))
    asked = _alias(r)
    if r.key == "undo":  # at once, as it was, whatever a deployment had made of it
        await deployments.end_shift(r)
        asked.setdefault("RoutingConfig", {"AdditionalVersionWeights": {}})
    elif policy and r.changed("FunctionVersion"):
        await deployments.shift(r, policy, before)
    await r.do("UpdateAlias", asked, key="update")


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


TYPES: Final = (
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
"""Lambda's types."""
