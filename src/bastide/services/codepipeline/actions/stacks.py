"""Deploy actions for CloudFormation: a stack, or a change set of one, as the action's mode says.

Source: CodePipeline User Guide, "AWS CloudFormation deploy action reference"; CloudFormation User Guide, "Continuous
delivery with CodePipeline", "Using parameter override functions with CodePipeline pipelines".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Bytes
from bastide.kernel.address import Address
from bastide.services.codepipeline.artifacts import located, new_key, sealed, zipped
from bastide.services.codepipeline.work import ActionFailed, Work, cause

_MOST_BODY: Final = 51_200
_MOST_TEMPLATE: Final = 1_048_576
_MOST_DOCUMENT: Final = 51_200
_NOT_THERE: Final = ("does not exist",)
_BROKEN: Final = (
    "CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED",
)  # fmt: skip
_GOOD: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_BUSY: Final = "_IN_PROGRESS"
_SAME: Final = ("No updates are to be performed",)
_EMPTY: Final = ("didn't contain changes", "No updates are to be performed")

Stack = dict[str, Any]


async def deploy(work: Work) -> str:
    """Until the stack or its change set stands as the mode wants it."""
    mode = work.configuration["ActionMode"]
    if mode == "DELETE_ONLY":
        return await _delete(work)
    if mode == "CHANGE_SET_REPLACE":
        return await _change_set(work)
    if mode == "CHANGE_SET_EXECUTE":
        return await _execute(work)
    return await _create_or_update(work, replace=mode == "REPLACE_ON_FAILURE")


# -- looking -------------------------------------------------------------------------------------------------------------


async def _stack(work: Work, name: str) -> Stack | None:
    """The stack, None if it is not there."""
    told = await work.actor.seen("cloudformation", "DescribeStacks", {"StackName": name}, *_NOT_THERE)
    found: Stack | None = told["Stacks"][0] if told and told.get("Stacks") else None
    return found


async def _settled(work: Work, id: str) -> Stack:
    """The stack, once nothing is in progress any more."""

    async def look() -> Stack | None:
        try:
            found = await _stack(work, id)
        except Refused as refused:
            raise cause(refused, f"The stack {id} cannot be followed") from None
        if found is None:
            return {"StackStatus": "DELETE_COMPLETE", "StackId": id}
        return None if found["StackStatus"].endswith(_BUSY) and found["StackStatus"] != "REVIEW_IN_PROGRESS" else found

    return await work.until(look, id)


async def _why(work: Work, id: str) -> str:
    """The first cause of a stack's last failure, as its events have it."""
    try:
        told = await work.actor.act("cloudformation", "DescribeStackEvents", {"StackName": id})
    except Refused:
        return ""
    reason = ""
    for event in told.get("StackEvents") or ():  # newest first
        if event.get("PhysicalResourceId") == event.get("StackId"):
            status = str(event.get("ResourceStatus"))
            if reason and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"):
                break
            continue
        if str(event.get("ResourceStatus", "")).endswith("_FAILED"):
            text = event.get("ResourceStatusReason") or ""
            if "cancelled" not in text:
                reason = f"{event['LogicalResourceId']} ({event['ResourceType']}): {text}"
    return reason


async def _good(work: Work, stack: Stack) -> None:
    """Raises ActionFailed unless the stack stands as it was wanted."""
    if stack["StackStatus"] in _GOOD:
        return
    why = await _why(work, stack["StackId"]) or stack.get("StackStatusReason") or "no event tells why"
    name = stack["StackId"].partition(":stack/")[2].partition("/")[0]
    raise ActionFailed("JobFailed", f"The stack {name} is {stack['StackStatus']}: {why[:3500]}")


def _published(work: Work, stack: Stack) -> dict[str, str]:
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs") or ()}
    work.publish(**outputs)
    return outputs


async def _write(work: Work, document: Mapping[str, Any]) -> None:
    """The output artifact: a file of JSON."""
    name = work.configuration.get("OutputFileName")
    for one in work.declared["outputArtifacts"]:
        if name:
            await work.put(one["name"], zipped({name: json.dumps(document, indent=1).encode()}))


# -- what goes in --------------------------------------------------------------------------------------------------------


async def template(work: Work) -> dict[str, str]:
    """TemplateBody, or TemplateURL of a template that is too long for it."""
    artifact, path = located(work.configuration["TemplatePath"])
    data = await work.file(artifact, path, _MOST_TEMPLATE)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ActionFailed("ConfigurationError", f"The template {path[:200]} is not UTF-8.") from None
    if len(data) <= _MOST_BODY:
        return {"TemplateBody": text}
    bucket = str(work.store["location"])
    if "template" not in work.record:
        await work.note(template=new_key(work.pipeline, "template"))
    key = work.record["template"]
    asked = {"Bucket": bucket, "Key": key, **sealed(work.store)}
    await work.begin("s3", "PutObject", asked, lambda _: {}, body=Bytes(data))
    return {"TemplateURL": f"{work.calls.engine(Address).url}/{bucket}/{key}"}


async def document(work: Work, text: str, what: str) -> dict[str, Any]:
    """A JSON object of a file in an artifact; raises ActionFailed."""
    artifact, path = located(text)
    try:
        found = json.loads(await work.file(artifact, path, _MOST_DOCUMENT))
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ActionFailed("ConfigurationError", f"{what} {text[:200]} is no JSON object.") from None
    return found


async def _parameter(work: Work, value: Any) -> str:
    """The value of an override: a text, or what a function finds in an artifact."""
    if isinstance(value, Mapping) and len(value) == 1:
        [(function, given)] = value.items()
        if function == "Fn::GetArtifactAtt" and isinstance(given, list) and len(given) == 2:
            held = work.located(str(given[0]))
            found = {
                "BucketName": held["bucket"],
                "ObjectKey": held["key"],
                "URL": f"{work.calls.engine(Address).url}/{held['bucket']}/{held['key']}",
            }
            if given[1] in found:
                return str(found[given[1]])
        if function == "Fn::GetParam" and isinstance(given, list) and len(given) == 3:
            held = await document(work, f"{given[0]}::{given[1]}", "Fn::GetParam:")
            if str(given[2]) not in held:
                raise ActionFailed("ConfigurationError", f"Fn::GetParam: {given[1]} has no key {given[2]}.")
            return _text(held[str(given[2])])
        raise ActionFailed(
            "ConfigurationError", f"ParameterOverrides: {function} is no function of it, or used wrongly."
        )
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, list) else json.dumps(value)


async def wanted(work: Work) -> dict[str, Any]:
    """Parameters, tags, policy, capabilities and role, from the configuration and its files."""
    given = work.configuration
    held: dict[str, Any] = {}
    if given.get("TemplateConfiguration"):
        held = await document(work, given["TemplateConfiguration"], "The template configuration")
    unknown = set(held) - {"Parameters", "Tags", "StackPolicy"}
    if unknown:
        raise ActionFailed(
            "ConfigurationError", f"The template configuration has the unknown key {sorted(unknown)[0]}."
        )
    values = {str(name): _text(value) for name, value in (held.get("Parameters") or {}).items()}
    try:
        overrides = json.loads(given.get("ParameterOverrides") or "{}")
        if not isinstance(overrides, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ActionFailed("ConfigurationError", "ParameterOverrides is no JSON object.") from None
    for name, value in overrides.items():
        values[name] = await _parameter(work, value)
    found: dict[str, Any] = {
        "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
        "Capabilities": capabilities(given),
    }
    if held.get("Tags"):
        found["Tags"] = [{"Key": str(name), "Value": _text(value)} for name, value in held["Tags"].items()]
    if held.get("StackPolicy"):
        found["StackPolicyBody"] = json.dumps(held["StackPolicy"])
    if given.get("RoleArn"):
        found["RoleARN"] = given["RoleArn"]
    return found


def capabilities(given: Mapping[str, str]) -> list[str]:
    """As CloudFormation takes them; the configuration has them in one text."""
    return [one.strip() for one in (given.get("Capabilities") or "").replace(",", " ").split() if one.strip()]


# -- modes ---------------------------------------------------------------------------------------------------------------


async def _create_or_update(work: Work, *, replace: bool) -> str:
    name = work.configuration["StackName"]
    while "external" not in work.record:
        stack = await _stack(work, name)
        if stack is not None and stack["StackStatus"].endswith(_BUSY) and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
            await _settled(work, stack["StackId"])
            continue
        if stack is not None and stack["StackStatus"] in _BROKEN:
            if not replace:
                raise ActionFailed(
                    "JobFailed", f"The stack {name} is {stack['StackStatus']} and cannot be updated; delete it first, or "
                    "use the action mode REPLACE_ON_FAILURE.",
                )  # fmt: skip
            await _gone(work, stack["StackId"])
            continue
        new = stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"
        asked = {"StackName": name, **await template(work), **await wanted(work), "ClientRequestToken": work.id}
        try:
            await work.begin(
                "cloudformation",
                "CreateStack" if new else "UpdateStack",
                asked,
                lambda output: {"external": {"id": output["StackId"], "url": ""}},
            )
        except Refused as refused:
            if not new and any(one in refused.message for one in _SAME):
                assert stack is not None
                await work.note(external={"id": stack["StackId"], "url": ""})
                break
            raise cause(refused, f"The stack {name} cannot be {'created' if new else 'updated'}") from None
    stack = await _settled(work, work.record["external"]["id"])
    await _good(work, stack)
    await _write(work, _published(work, stack))
    return f"Stack {name} is {stack['StackStatus']}."


async def _gone(work: Work, id: str) -> None:
    asked = {"StackName": id, **_role(work)}
    if work.record.get("deleting") != id:
        await work.begin("cloudformation", "DeleteStack", asked, lambda _: {"deleting": id})
    stack = await _settled(work, id)
    if stack["StackStatus"] != "DELETE_COMPLETE":
        await _good(work, stack)


def _role(work: Work) -> dict[str, str]:
    role = work.configuration.get("RoleArn")
    return {"RoleARN": role} if role else {}


async def _delete(work: Work) -> str:
    name = work.configuration["StackName"]
    if "external" not in work.record:
        stack = await _stack(work, name)
        if stack is None:
            return f"There is no stack {name}."
        await work.note(external={"id": stack["StackId"], "url": ""})
    await _gone(work, work.record["external"]["id"])
    return f"Stack {name} is deleted."


async def _change_set(work: Work) -> str:
    name, change = work.configuration["StackName"], work.configuration["ChangeSetName"]
    if "external" not in work.record:
        stack = await _stack(work, name)
        if stack is not None and stack["StackStatus"].endswith(_BUSY) and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
            stack = await _settled(work, stack["StackId"])
        if stack is not None:
            named = {"StackName": stack["StackId"], "ChangeSetName": change}
            there = await work.actor.seen(
                "cloudformation", "DescribeChangeSet", named, "ChangeSetNotFound", *_NOT_THERE
            )
            if there is not None:
                await work.begin("cloudformation", "DeleteChangeSet", named, lambda _: {})
        new = stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"
        asked = {
            "StackName": name, "ChangeSetName": change, "ChangeSetType": "CREATE" if new else "UPDATE",
            **await template(work), **await wanted(work), "ClientToken": work.id,
        }  # fmt: skip
        asked.pop("StackPolicyBody", None)
        try:
            await work.begin(
                "cloudformation",
                "CreateChangeSet",
                asked,
                lambda output: {"external": {"id": output["Id"], "url": "", "stack": output["StackId"]}},
            )
        except Refused as refused:
            raise cause(refused, f"The change set {change} of the stack {name} cannot be created") from None
    id = work.record["external"]["id"]

    async def look() -> dict[str, Any] | None:
        told = await work.actor.act("cloudformation", "DescribeChangeSet", {"ChangeSetName": id})
        return None if told["Status"].endswith(("_IN_PROGRESS", "_PENDING")) else told

    ended = await work.until(look, work.record["external"]["stack"])
    why = str(ended.get("StatusReason") or "")
    if ended["Status"] != "CREATE_COMPLETE" and not any(one in why for one in _EMPTY):
        raise ActionFailed("JobFailed", f"The change set {change} is {ended['Status']}: {why}")
    await _write(work, {"changeSet": id, "stack": work.record["external"]["stack"]})
    return f"The change set {change} is created." if ended["Status"] == "CREATE_COMPLETE" else "There are no changes."


async def _execute(work: Work) -> str:
    name, change = work.configuration["StackName"], work.configuration["ChangeSetName"]
    named = {"StackName": name, "ChangeSetName": change}
    if "external" not in work.record:
        try:
            told = await work.actor.act("cloudformation", "DescribeChangeSet", named)
        except Refused as refused:
            raise cause(refused, f"The change set {change} of the stack {name} cannot be executed") from None
        stack = {"id": told["StackId"], "url": ""}
        why = str(told.get("StatusReason") or "")
        if told["Status"] == "FAILED" and any(one in why for one in _EMPTY):
            await work.note(external=stack)
        else:
            try:
                asked = {**named, "ClientRequestToken": work.id}
                await work.begin("cloudformation", "ExecuteChangeSet", asked, lambda _: {"external": stack})
            except Refused as refused:
                raise cause(refused, f"The change set {change} of the stack {name} cannot be executed") from None
    stack = await _settled(work, work.record["external"]["id"])
    await _good(work, stack)
    await _write(work, _published(work, stack))
    return f"Stack {name} is {stack['StackStatus']}."
