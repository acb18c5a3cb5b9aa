"""Targets of rules: what may be one, and what each needs.

Source: Amazon EventBridge API Reference, Target; User Guide, "Event bus targets", "Input transformation".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import Arn, Refused
from bastide.kernel import Authorised

_KEPT: Final = (
    "Id", "Arn", "RoleArn", "Input", "InputPath", "InputTransformer", "RetryPolicy", "DeadLetterConfig", "SqsParameters",
    "SageMakerPipelineParameters", "HttpParameters",
)  # fmt: skip
RESERVED: Final = frozenset(
    {
        "aws.events.event.json", "aws.events.event", "aws.events.rule-arn", "aws.events.rule-name",
        "aws.events.event.ingestion-time",
    }
)  # fmt: skip
PLACEHOLDER: Final = re.compile(r"<([A-Za-z0-9._-]+)>")
_PATH: Final = re.compile(r"\$((\.[\w-]+)|(\['[^']{1,200}'\])|(\[\d{1,6}\]))*")
_MOST_PATHS: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """What a target can be. operation: the call that delivers to it. role: it needs RoleArn; it may have one where that is
    None. elsewhere: it may be of another account."""

    begins: str
    operation: tuple[str, str]
    role: bool | None
    elsewhere: bool = True


PLACES: Final[dict[str, tuple[Place, ...]]] = {
    "logs": (Place("log-group:", ("logs", "PutLogEvents"), False, elsewhere=False),),
    "events": (
        Place("event-bus/", ("events", "PutEvents"), True),
        Place("api-destination/", ("events", "CreateApiDestination"), True, elsewhere=False),
    ),
    "lambda": (Place("function:", ("lambda", "Invoke"), None),),
    "sns": (Place("", ("sns", "Publish"), None),),
    "sqs": (Place("", ("sqs", "SendMessage"), None),),
    "states": (Place("stateMachine:", ("stepfunctions", "StartExecution"), True),),
    "codebuild": (Place("project/", ("codebuild", "StartBuild"), True, elsewhere=False),),
    "sagemaker": (Place("pipeline/", ("sagemaker", "StartPipelineExecution"), True),),
    "firehose": (Place("deliverystream/", ("firehose", "PutRecord"), True),),
    "codepipeline": (Place("", ("codepipeline", "StartPipelineExecution"), True),),
}
"""By the service of a target's ARN; `ways` has a way to each."""


def _wrong(text: str) -> Refused:
    return Refused("ValidationException", text)


def place_of(a: Authorised, text: str) -> tuple[Arn, Place]:
    """What an ARN names; raises ValidationException for what cannot be a target here."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise _wrong(f"Parameter {text[:200]} is not valid. Reason: Provided Arn is not in correct format.") from None
    for place in PLACES.get(arn.service, ()):
        if not arn.resource.startswith(place.begins):
            continue
        if place.operation not in a.calls.registry.operations:
            break
        if arn.account != a.account and not place.elsewhere:
            raise _wrong(f"{text} is of another account.")
        return arn, place
    raise _wrong(
        f"{text[:200]} cannot be a target in Bastide yet, so nothing could be delivered to it. Targets are functions, "
        "state machines, pipelines, build projects, topics, queues, log groups, event buses and API destinations."
    )


def _dead_letters(held: Mapping[str, Any] | None, a: Authorised) -> None:
    text = (held or {}).get("Arn")
    if not text:
        return
    try:
        arn = Arn.parse(text)
    except ValueError:
        arn = Arn("", "", "", "")
    if arn.service != "sqs" or arn.region != a.region or arn.resource.endswith(".fifo"):
        raise _wrong(f"DeadLetterConfig: {text[:200]} is not the ARN of a standard queue of this region.")


def _transformer(one: Mapping[str, Any]) -> None:
    change = one["InputTransformer"]
    paths = change.get("InputPathsMap") or {}
    if len(paths) > _MOST_PATHS:
        raise _wrong(f"InputPathsMap has at most {_MOST_PATHS} entries.")
    for name, path in paths.items():
        if name.lower().startswith("aws") or not re.fullmatch(r"[A-Za-z0-9._-]{1,256}", name):
            raise _wrong(f"InputPathsMap of target {one['Id']} has an invalid name: {name[:100]}.")
        if not _PATH.fullmatch(path):
            raise _wrong(f"InputPathsMap of target {one['Id']} has an invalid JSON path: {path[:100]}.")
    for name in PLACEHOLDER.findall(change["InputTemplate"]):
        if name not in paths and name not in RESERVED:
            raise _wrong(f"InputTemplate for target {one['Id']} contains invalid placeholder {name[:100]}.")


def checked(a: Authorised, one: dict[str, Any]) -> dict[str, Any]:
    """A target as it is kept; raises ValidationException."""
    for member, value in one.items():
        if value is not None and member not in _KEPT:
            raise _wrong(f"{member} of a target is not supported by Bastide yet.")
    arn, place = place_of(a, one["Arn"])
    if arn.region != a.region and (arn.service, place.begins) != ("events", "event-bus/"):
        raise _wrong("Targets are of the rule's region; only event buses may be of another one.")
    if place.role and not one.get("RoleArn"):
        raise _wrong(f"RoleArn is required for target {one['Arn']}.")
    if one.get("RoleArn") and place.role is False:
        raise _wrong(f"RoleArn is not supported for target {one['Arn']}: its resource policy decides.")
    if sum(bool(one.get(member)) for member in ("Input", "InputPath", "InputTransformer")) > 1:
        raise _wrong(f"Only one of Input, InputPath, or InputTransformer must be provided for target {one['Id']}.")
    if one.get("Input"):
        try:
            orjson.loads(one["Input"])
        except orjson.JSONDecodeError:
            raise _wrong(f"JSON syntax error in input for target {one['Id']}.") from None
    if one.get("InputPath") and not _PATH.fullmatch(one["InputPath"]):
        raise _wrong(f"Invalid InputPath for target {one['Id']}.")
    if one.get("InputTransformer"):
        _transformer(one)
    fifo = arn.service == "sqs" and arn.resource.endswith(".fifo")
    if fifo != bool((one.get("SqsParameters") or {}).get("MessageGroupId")):
        raise _wrong("SqsParameters with MessageGroupId are needed for FIFO queues, and for these only.")
    for member, service in (("SageMakerPipelineParameters", "sagemaker"), ("HttpParameters", "events")):
        if one.get(member) and arn.service != service:
            raise _wrong(f"{member} is not supported for target {one['Arn']}.")
    _dead_letters(one.get("DeadLetterConfig"), a)
    return {member: one[member] for member in _KEPT if one.get(member) is not None}
