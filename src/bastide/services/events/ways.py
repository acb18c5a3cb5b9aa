"""The ways to targets: each is a call of another service, with the target's role, or by EventBridge itself where the
target's own policy decides.

Source: EventBridge User Guide, "Using identity-based policies", "Using resource-based policies".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused, iso
from bastide.kernel import Caller, Calls, service_caller
from bastide.kernel.address import Address
from bastide.protocol import codec, named
from bastide.services.events.bus import FORWARDED
from bastide.services.events.shaping import at, shaped

PRINCIPAL: Final = "events.amazonaws.com"
_MOST_HOPS: Final = 3

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parcel:
    """An event on its way to a target of a rule (ARN)."""

    calls: Calls
    event: Event
    target: dict[str, Any]
    rule: str
    hops: int
    since: int

    @property
    def arn(self) -> Arn:
        """The target."""
        return Arn.parse(self.target["Arn"])

    def text(self) -> str:
        """What the target is given."""
        return shaped(self.event, self.target, rule=self.rule, ingested=iso(self.since))

    async def caller(self) -> Caller:
        """Who calls: the target's role, or EventBridge for the rule."""
        own = Arn.parse(self.rule)
        role = self.target.get("RoleArn")
        if not role:
            return service_caller(PRINCIPAL, own.account, self.rule)
        return await self.calls.assume(
            PRINCIPAL, role, "events", account=own.account, region=own.region, source_arn=self.rule
        )

    async def act(self, service: str, operation: str, given: dict[str, Any], **more: Any) -> Any:
        """The call."""
        caller = await self.caller()
        return await self.calls.act(caller, service, operation, given, region=self.arn.region, source=PRINCIPAL, **more)

    def token(self) -> str:
        """The same for every attempt: what was begun by one is not begun again by the next."""
        told = f"{self.event['id']} {self.rule} {self.target['Id']}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]


class _There(Exception):  # noqa: N818
    """It was made by an attempt before."""


async def _to_logs(parcel: Parcel) -> None:
    """A stream of its own for each event, as EventBridge does; the account's resource policy of Logs decides."""
    group = parcel.arn.resource.removeprefix("log-group:").removesuffix(":*")
    where = {"logGroupName": group, "logStreamName": parcel.event["id"]}
    with contextlib.suppress(_There):
        try:
            await parcel.act("logs", "CreateLogStream", where)
        except Refused as refused:
            if refused.code == "ResourceAlreadyExistsException":
                raise _There from None
            raise
    line = {"timestamp": parcel.calls.clock() // 1000, "message": parcel.text()}
    await parcel.act("logs", "PutLogEvents", {**where, "logEvents": [line]})


async def _to_bus(parcel: Parcel) -> None:
    """With the target's role; the other bus's policy decides, too. An event goes on a few times, and then no more."""
    if parcel.hops >= _MOST_HOPS:
        raise Refused("HopDetected", f"The event has been sent on {_MOST_HOPS} times.")
    event = parcel.event
    sent = {**event, "_hops": parcel.hops + 1}
    entry = {"Source": event["source"], "DetailType": event["detail-type"], "Detail": json.dumps(event["detail"])}
    answer = await parcel.act(
        "events",
        "PutEvents",
        {"Entries": [entry | {"EventBusName": parcel.target["Arn"]}]},
        context={FORWARDED: orjson.dumps(sent).decode()},
    )
    [one] = answer["Entries"]
    if "ErrorCode" in one:
        raise Refused(one["ErrorCode"], one["ErrorMessage"])


async def _to_function(parcel: Parcel) -> None:
    given = {
        "FunctionName": parcel.target["Arn"], "InvocationType": "Event", "Payload": parcel.text().encode(),
    }  # fmt: skip
    await parcel.act("lambda", "Invoke", given)


async def _to_topic(parcel: Parcel) -> None:
    given = {"TopicArn": parcel.target["Arn"], "Message": parcel.text()}
    if parcel.arn.resource.endswith(".fifo"):
        given |= {"MessageGroupId": "events", "MessageDeduplicationId": parcel.token()}
    await parcel.act("sns", "Publish", given)


async def _to_queue(parcel: Parcel) -> None:
    arn = parcel.arn
    given = {"QueueUrl": queue_url(parcel.calls, arn), "MessageBody": parcel.text()}
    group = (parcel.target.get("SqsParameters") or {}).get("MessageGroupId")
    if group:
        given |= {"MessageGroupId": group, "MessageDeduplicationId": parcel.token()}
    await parcel.act("sqs", "SendMessage", given)


def queue_url(calls: Calls, arn: Arn) -> str:
    """The URL of a queue."""
    return f"{calls.engine(Address).url}/{arn.account}/{arn.resource}"


async def _to_state_machine(parcel: Parcel) -> None:
    given = {"stateMachineArn": parcel.target["Arn"], "name": parcel.token(), "input": parcel.text()}
    try:
        await parcel.act("stepfunctions", "StartExecution", given)
    except Refused as refused:
        if refused.code != "ExecutionAlreadyExists":  # an attempt before began it, and it has ended since
            raise


async def _to_pipeline(parcel: Parcel) -> None:
    listed = (parcel.target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList") or []
    parameters = []
    for one in listed:
        value = at(parcel.event, one["Value"]) if one["Value"].startswith("$.") else one["Value"]
        parameters.append({"Name": one["Name"], "Value": value if isinstance(value, str) else json.dumps(value)})
    given: dict[str, Any] = {"PipelineName": parcel.arn.name, "ClientRequestToken": parcel.token()}
    if parameters:
        given["PipelineParameters"] = parameters
    await parcel.act("sagemaker", "StartPipelineExecution", given)


async def _to_stream(parcel: Parcel) -> None:
    given = {"DeliveryStreamName": parcel.arn.name, "Record": {"Data": parcel.text().encode()}}
    await parcel.act("firehose", "PutRecord", given)


async def _to_release(parcel: Parcel) -> None:
    """What a written or transformed input says of variables and revisions is given on; an event as it is says none."""
    given: dict[str, Any] = {}
    if parcel.target.get("InputTransformer") or parcel.target.get("Input"):
        try:
            told = orjson.loads(parcel.text())
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise Refused(
                "InvalidInput", "The input of a release is an object that may have variables and sourceRevisions."
            )
        given = {member: told[member] for member in ("variables", "sourceRevisions") if member in told}
    given |= {"name": parcel.arn.resource, "clientRequestToken": parcel.token()}
    asked = named("codepipeline", "StartPipelineExecution", given)
    await parcel.act("codepipeline", "StartPipelineExecution", asked)


async def _to_project(parcel: Parcel) -> None:
    """Starts a build; what the target's input says are parameters of StartBuild."""
    given: dict[str, Any] = {}
    if any(parcel.target.get(member) for member in ("Input", "InputPath", "InputTransformer")):
        told = orjson.loads(parcel.text())
        if not isinstance(told, dict):
            raise Refused(
                "InvalidInputException", "The input of a build project is an object with parameters of StartBuild."
            )
        given = told
    given |= {"projectName": parcel.arn.resource.removeprefix("project/"), "idempotencyToken": parcel.token()}
    codec("codebuild").operations["StartBuild"].validate(given)
    await parcel.act("codebuild", "StartBuild", given)


WAYS: Final[dict[str, Callable[[Parcel], Awaitable[None]]]] = {
    "logs": _to_logs, "events": _to_bus, "lambda": _to_function, "sns": _to_topic, "sqs": _to_queue,
    "states": _to_state_machine, "sagemaker": _to_pipeline, "firehose": _to_stream,
    "codebuild": _to_project, "codepipeline": _to_release,
}  # fmt: skip
"""By the service of a target's ARN. API destinations have a way of their own (`api_destination`)."""


async def deliver(parcel: Parcel) -> None:
    """Delivers to a target once; raises Refused as what stands behind it does."""
    await WAYS[parcel.arn.service](parcel)
