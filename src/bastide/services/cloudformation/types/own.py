"""CloudFormation's own types: stacks in stacks, conditions that wait for a signal, and resources that a function makes.

Source: CloudFormation User Guide, "Custom resources", "Wait conditions", "Nested stacks".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Refused
from bastide.services.cloudformation.acting import Principal
from bastide.services.cloudformation.macros import MACRO
from bastide.services.cloudformation.record import SIGNAL, active, arn_of, opened
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.signals import address, meant
from bastide.services.cloudformation.types.regular import nothing
from bastide.store import Row, Transaction

_LONGEST_WAIT: Final = 3600
_MOST_DATA: Final = 4096


@dataclass(frozen=True, slots=True)
class Parent:
    """The stack that another one is made for: its ARN and that of the outermost, and who acts."""

    arn: str
    root: str
    principal: Principal


# -- stacks in stacks --------------------------------------------------------------------------------------------------


def _parent(r: Resource) -> Parent:
    return Parent(r.stack.arn, r.stack.root, r.actor.principal)


def _asked(r: Resource) -> dict[str, Any]:
    given = r.get("Parameters") or {}
    told = [
        {"ParameterKey": key, "ParameterValue": ",".join(map(str, one)) if isinstance(one, list) else str(one)}
        for key, one in given.items()
    ]
    return {
        "TemplateURL": r.get("TemplateURL"),
        "Parameters": told,
        "Tags": r.tags(),
        "Capabilities": list(r.stack.capabilities),
        "NotificationARNs": list(r.get("NotificationARNs") or ()),
    }


async def _settled(r: Resource, good: tuple[str, ...]) -> None:
    last: list[Row | None] = [None]

    async def settled() -> bool:
        with r.calls.store.reading() as view:
            last[0] = active(view, r.stack.account, r.stack.region, r.physical)
        return last[0] is None or not last[0].status.endswith("_IN_PROGRESS")

    await r.until(settled)
    row = last[0]
    if row is None or row.status not in good:
        why = "it is gone" if row is None else row.doc.get("reason") or row.doc.get("cause") or row.status
        raise Refused("NotStabilized", f"Embedded stack {r.physical} was not successfully made: {why}")
    for name, one in row.doc.get("outputs", {}).items():
        r.thing.attributes[f"Outputs.{name}"] = opened(r.calls, one["value"])


async def _create_stack(r: Resource) -> None:
    asked = {"StackName": r.name(128), **_asked(r), **r.only("TimeoutInMinutes")}
    r.thing.physical = (await r.do("CreateStack", asked, key="create", prepared=_parent(r)))["StackId"]
    await _settled(r, ("CREATE_COMPLETE",))


async def _update_stack(r: Resource) -> None:
    try:
        await r.do("UpdateStack", {"StackName": r.physical, **_asked(r)}, key="update", prepared=_parent(r))
    except Refused as refused:
        if "No updates are to be performed" not in refused.message:
            raise
    await _settled(r, ("UPDATE_COMPLETE", "CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"))
    with r.calls.store.reading() as view:
        row = active(view, r.stack.account, r.stack.region, r.physical)
    if row is not None and row.status == "UPDATE_ROLLBACK_COMPLETE" and f"{r.key}/UpdateStack:update" in r.journal:
        raise Refused(
            "NotStabilized",
            f"Embedded stack {r.physical} was not successfully updated: {row.doc.get('cause') or row.status}",
        )


async def _delete_stack(r: Resource) -> None:
    with r.calls.store.reading() as view:
        row = active(view, r.stack.account, r.stack.region, r.physical)
    if row is None or row.status == "DELETE_COMPLETE":
        return
    await r.do("DeleteStack", {"StackName": arn_of(row)}, key="delete", prepared=_parent(r))
    await _settled(r, ("DELETE_COMPLETE",))


# -- waiting -----------------------------------------------------------------------------------------------------------


async def _handle(r: Resource) -> None:
    r.thing.physical = address(r.calls, r.stack, r.logical, f"handle-{r.name(64)}", days=7)
    r.thing.attributes = {"Id": r.name(64)}


def _signals(r: Resource, logical: str) -> list[dict[str, Any]]:
    prefix = f"{r.stack.uuid}/{logical}/"
    with r.calls.store.reading() as view:
        rows = view.scan(SIGNAL, r.stack.account, r.stack.region, prefix=prefix, order="name", limit=200)
    return [opened(r.calls, row.doc["sealed"]) for row in rows]


async def _wait(r: Resource) -> None:
    """Waits for as many signals as were asked, each with another UniqueId."""
    how = (r.thing.attributes.get("_creation") or {}).get("ResourceSignal") or {}
    count = int(r.get("Count") or how.get("Count") or 1)
    seconds = int(r.get("Timeout") or _duration(how.get("Timeout")) or 300)
    stack, source = meant(r.calls, str(r.get("Handle"))) if r.get("Handle") else (r.stack.name, r.logical)
    if stack != r.stack.name:
        raise Refused("ValidationError", "Handle must be a Ref to a WaitConditionHandle of this stack.")
    r.thing.physical = r.name(128)
    began = r.calls.clock()

    async def enough() -> bool:
        found = {}
        for one in _signals(r, source):
            if one.get("Status") == "FAILURE":
                raise Refused(
                    "WaitConditionFailed",
                    f"WaitCondition received failed message: '{one.get('Reason', '')}' for uniqueId: {one.get('UniqueId')}",
                )
            found[str(one.get("UniqueId"))] = one.get("Data", "")
        if len(found) >= count:
            r.thing.attributes["Data"] = orjson.dumps(found).decode()
            return True
        if r.calls.clock() > began + min(seconds, 12 * _LONGEST_WAIT) * MICROS:
            raise Refused(
                "WaitConditionTimedOut",
                f"WaitCondition timed out. Received {len(found)} conditions when expecting {count}",
            )
        return False

    await r.until(enough)


def _duration(value: Any) -> int:
    """Seconds of an ISO 8601 duration such as ``PT5M``."""
    if not isinstance(value, str) or not value.startswith("PT"):
        return 0
    found, number = 0, ""
    for char in value[2:]:
        if char.isdecimal():
            number += char
        else:
            found += int(number or 0) * {"H": 3600, "M": 60, "S": 1}.get(char, 0)
            number = ""
    return found


# -- what a function makes ---------------------------------------------------------------------------------------------


def _texts(value: Any) -> Any:
    """Properties as a function gets them: every scalar is a text."""
    if isinstance(value, dict):
        return {key: _texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


async def _ask(r: Resource, kind: str) -> dict[str, Any]:
    """Sends a function, or a topic, a request, and waits for the answer; raises Refused for a failure or silence."""
    token = str(r.properties["ServiceToken"])
    told = f"{r.stack.arn}/{r.logical}/{r.run}/{r.key}/{kind}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    request = f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
    event: dict[str, Any] = {
        "RequestType": kind,
        "ServiceToken": token,
        "ResponseURL": address(r.calls, r.stack, r.logical, request),
        "StackId": r.stack.arn,
        "RequestId": request,
        "LogicalResourceId": r.logical,
        "ResourceType": r.thing.type,
        "ResourceProperties": _texts(r.properties),
    }
    if kind != "Create":
        event["PhysicalResourceId"] = r.physical
    if kind == "Update":
        event["OldResourceProperties"] = _texts(r.old)
    if token.startswith("arn:aws:sns:"):
        message = {"TopicArn": token, "Subject": "AWS CloudFormation custom resource request"}
        await r.do("Publish", {**message, "Message": orjson.dumps(event).decode()}, service="sns", key=request)
    elif ":function:" in token:
        asked = {"FunctionName": token, "InvocationType": "Event", "Payload": orjson.dumps(event)}
        await r.do("Invoke", asked, service="lambda", key=request)
    else:
        raise Refused("ValidationError", "ServiceToken must be the ARN of a function or a topic.")
    began = r.calls.clock()
    seconds = min(int(r.properties.get("ServiceTimeout") or _LONGEST_WAIT), _LONGEST_WAIT)
    answer: list[dict[str, Any]] = []

    async def answered() -> bool:
        answer[:] = _signals(r, f"{r.logical}/{request}")
        if not answer and r.calls.clock() > began + seconds * MICROS:
            raise Refused(
                "NotStabilized",
                "CloudFormation did not receive a response from your Custom Resource. Please check "
                f"your logs for requestId [{request}].",
            )
        return bool(answer)

    await r.until(answered)
    found = answer[0]
    if found.get("Status") != "SUCCESS":
        raise Refused(
            "CustomResourceFailed",
            "Received response status [FAILED] from custom resource. Message returned: "
            f"{str(found.get('Reason', ''))[:1000]} (RequestId: {request})",
        )
    return found


def _learned(r: Resource, answer: dict[str, Any]) -> None:
    data = answer.get("Data")
    if data is not None and not isinstance(data, dict):
        raise Refused("CustomResourceFailed", "Invalid PhysicalResourceId or Data: Data must be a mapping.")
    physical = answer.get("PhysicalResourceId")
    if not isinstance(physical, str) or not physical or len(physical) > 1024:
        raise Refused("CustomResourceFailed", "Invalid PhysicalResourceId: the function answered without one.")
    if len(orjson.dumps(data)) > _MOST_DATA:
        raise Refused("CustomResourceFailed", "Response object is too long.")
    r.thing.physical = physical
    r.thing.attributes = {str(key): one for key, one in (data or {}).items()}


async def _create_custom(r: Resource) -> None:
    _learned(r, await _ask(r, "Create"))


async def _update_custom(r: Resource) -> None:
    _learned(r, await _ask(r, "Update"))


async def _delete_custom(r: Resource) -> None:
    await _ask(r, "Delete")


# -- macros ------------------------------------------------------------------------------------------------------------


async def _keep_macro(r: Resource) -> None:
    for name in ("LogGroupName", "LogRoleARN"):
        if r.get(name):
            raise Refused(
                "ValidationError", f"{name} is not supported by Bastide yet; functions have logs of their own."
            )
    name = str(r.get("Name"))
    doc = {"function": str(r.get("FunctionName")), "stack": r.stack.name, "logical": r.logical}

    def work(tx: Transaction) -> None:
        held = tx.get(MACRO, r.stack.account, r.stack.region, name)
        if held is None:
            tx.insert(Row(MACRO, r.stack.account, r.stack.region, name, doc))
        elif (held.doc["stack"], held.doc["logical"]) == (r.stack.name, r.logical):
            held.doc = doc
            tx.update(held)
        else:
            raise Refused("AlreadyExists", f"There is a macro {name} already, of the stack {held.doc['stack']}.")

    await r.calls.store.write(work)
    r.thing.physical = name


async def _forget_macro(r: Resource) -> None:
    def work(tx: Transaction) -> None:
        held = tx.get(MACRO, r.stack.account, r.stack.region, r.physical)
        if held is not None and held.doc["stack"] == r.stack.name:
            tx.delete(held)

    await r.calls.store.write(work)


CUSTOM: Final = Type("AWS::CloudFormation::CustomResource", "lambda", _create_custom, _delete_custom, _update_custom)
"""The type of custom resources, whatever they are called."""
_STACK: Final = (
    ("cloudformation", "CreateStack"),
    ("cloudformation", "UpdateStack"),
    ("cloudformation", "DeleteStack"),
)
TYPES: Final = (
    CUSTOM,
    Type("AWS::CloudFormation::Stack", "cloudformation", _create_stack, _delete_stack, _update_stack, calls=_STACK),
    Type(
        "AWS::CloudFormation::Macro",
        "cloudformation",
        _keep_macro,
        _forget_macro,
        _keep_macro,
        calls=(("lambda", "Invoke"),),
    ),
    Type("AWS::CloudFormation::WaitConditionHandle", "cloudformation", _handle, nothing),
    Type("AWS::CloudFormation::WaitCondition", "cloudformation", _wait, nothing, nothing),
)
"""CloudFormation's own types."""
