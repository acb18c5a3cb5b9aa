"""Targets of schedules: templated ones, and any operation that changes something.

Source: EventBridge Scheduler User Guide, "Using templated targets", "Using universal targets", "Context attributes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused, iso
from bastide.kernel import Calls, Operation, Registry
from bastide.kernel.address import Address
from bastide.protocol import named, service_of

_UNIVERSAL: Final = re.compile(r"arn:aws:scheduler:::aws-sdk:([a-z0-9-]{1,64}):([A-Za-z0-9]{1,128})")
_KEPT: Final = (
    "Arn", "RoleArn", "DeadLetterConfig", "RetryPolicy", "Input", "EventBridgeParameters", "SageMakerPipelineParameters",
    "SqsParameters",
)  # fmt: skip
_TEMPLATES: Final = {
    "lambda": ("function:", "lambda", "Invoke"), "sqs": ("", "sqs", "SendMessage"), "sns": ("", "sns", "Publish"),
    "states": ("stateMachine:", "stepfunctions", "StartExecution"), "events": ("event-bus/", "events", "PutEvents"),
    "sagemaker": ("pipeline/", "sagemaker", "StartPipelineExecution"),
    "firehose": ("deliverystream/", "firehose", "PutRecord"),
    "codepipeline": ("", "codepipeline", "StartPipelineExecution"),
}  # fmt: skip
_CONTEXT: Final = re.compile(r"<aws\.scheduler\.(schedule-arn|scheduled-time|execution-id|attempt-number)>")
_EMPTY: Final = {"version": "0"}


def _wrong(text: str) -> Refused:
    return Refused("ValidationException", text)


def _universal(registry: Registry, text: str) -> Operation | None:
    found = _UNIVERSAL.fullmatch(text)
    if found is None:
        return None
    service = service_of(found[1], tuple(registry.services))
    operation = registry.operation(service, found[2][:1].upper() + found[2][1:]) if service else None
    if operation is None:
        raise _wrong(f"{text} names no operation that Bastide has.")
    if not operation.mutates or operation.identify is not None or (operation.service == "s3" and operation.before):
        raise _wrong(f"{text} is not supported: a schedule calls operations that change something, without a stream.")
    return operation


def checked(registry: Registry, given: Mapping[str, Any], region: str) -> dict[str, Any]:
    """A target as it is kept; raises ValidationException."""
    for member, value in given.items():
        if value is not None and member not in _KEPT:
            raise _wrong(f"{member} of a target is not supported by Bastide yet.")
    held = {member: given[member] for member in _KEPT if given.get(member) is not None}
    dead = (held.get("DeadLetterConfig") or {}).get("Arn")
    if dead and (not dead.startswith("arn:aws:sqs:") or dead.endswith(".fifo")):
        raise _wrong("DeadLetterConfig names a standard queue.")
    operation = _universal(registry, given["Arn"])
    if operation is not None:
        _given(operation, held, {})
        return held
    try:
        arn = Arn.parse(given["Arn"])
    except ValueError:
        raise _wrong(f"Provided Arn is not in correct format: {given['Arn'][:200]}.") from None
    template = _TEMPLATES.get(arn.service)
    if template is None or not arn.resource.startswith(template[0]) or template[1:] not in registry.operations:
        raise _wrong(f"{arn} cannot be a target in Bastide yet, so nothing could be delivered to it.")
    if arn.region != region:
        raise _wrong("A target is of the schedule's region.")
    fifo = arn.service == "sqs" and arn.resource.endswith(".fifo")
    if fifo != bool((held.get("SqsParameters") or {}).get("MessageGroupId")):
        raise _wrong("SqsParameters with MessageGroupId are needed for FIFO queues, and for these only.")
    for member, service in (("EventBridgeParameters", "events"), ("SageMakerPipelineParameters", "sagemaker")):
        if member in held and arn.service != service:
            raise _wrong(f"{member} is not supported for target {arn}.")
    if arn.service == "events" and "EventBridgeParameters" not in held:
        raise _wrong("EventBridgeParameters are needed for an event bus.")
    if arn.service in ("states", "lambda", "events") and held.get("Input"):
        try:
            orjson.loads(_CONTEXT.sub("0", held["Input"]))
        except orjson.JSONDecodeError:
            raise _wrong(f"Input is to be JSON for target {arn}.") from None
    return held


def text(target: Mapping[str, Any], about: Mapping[str, str]) -> str:
    """What a target is given; about: the context attributes of this invocation."""
    return _CONTEXT.sub(lambda found: about.get(found[1], found[0]), str(target.get("Input") or ""))


def _given(operation: Operation, target: Mapping[str, Any], about: Mapping[str, str]) -> dict[str, Any]:
    try:
        value = orjson.loads(text(target, about) or "{}")
    except orjson.JSONDecodeError:
        raise _wrong("Input of a universal target is a JSON object: the operation's parameters.") from None
    return named(operation.service, operation.name, value)


def call(calls: Calls, doc: Mapping[str, Any]) -> tuple[str, str, dict[str, Any], str]:
    """Service, operation, input and region of what an invocation calls."""
    target, about = doc["target"], context(doc)
    own = Arn.parse(doc["schedule"])
    operation = _universal(calls.registry, target["Arn"])
    if operation is not None:
        return operation.service, operation.name, _given(operation, target, about), own.region
    arn, told = Arn.parse(target["Arn"]), text(target, about)
    _, service, name = _TEMPLATES[arn.service]
    given: dict[str, Any]
    if service == "lambda":
        given = {"FunctionName": str(arn), "InvocationType": "Event", "Payload": told.encode() or b"{}"}
    elif service == "sqs":
        given = {"QueueUrl": queue_url(calls, arn), "MessageBody": told or orjson.dumps(_EMPTY).decode()}
        group = (target.get("SqsParameters") or {}).get("MessageGroupId")
        if group:
            given |= {"MessageGroupId": group, "MessageDeduplicationId": doc["id"]}
    elif service == "sns":
        given = {"TopicArn": str(arn), "Message": told or orjson.dumps(_EMPTY).decode()}
    elif service == "stepfunctions":
        given = {"stateMachineArn": str(arn), "name": doc["id"], "input": told or "{}"}
    elif service == "sagemaker":
        held = (target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList") or []
        given = {"PipelineName": arn.name, "ClientRequestToken": doc["id"]}
        if held:
            given["PipelineParameters"] = [{"Name": one["Name"], "Value": one["Value"]} for one in held]
    elif service == "codepipeline":
        given = {"name": arn.resource, "clientRequestToken": doc["id"]}
    elif service == "firehose":
        given = {"DeliveryStreamName": arn.name, "Record": {"Data": told.encode()}}
    else:
        held = target["EventBridgeParameters"]
        entry = {
            "Source": held["Source"], "DetailType": held["DetailType"], "Detail": told or "{}", "EventBusName": str(arn),
            "Resources": [doc["schedule"]],
        }  # fmt: skip
        given = {"Entries": [entry]}
    return service, name, given, arn.region


def context(doc: Mapping[str, Any]) -> dict[str, str]:
    """The context attributes of an invocation."""
    return {
        "schedule-arn": doc["schedule"],
        "scheduled-time": iso(doc["at"]),
        "execution-id": doc["id"],
        "attempt-number": str(doc.get("attempts", 1)),
    }


def queue_url(calls: Calls, arn: Arn) -> str:
    """The URL of a queue."""
    return f"{calls.engine(Address).url}/{arn.account}/{arn.resource}"
