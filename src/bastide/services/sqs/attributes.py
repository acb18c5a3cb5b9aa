"""Attributes of queues: which there are, what they may be, what they are when nobody says.

Source: Amazon SQS API Reference, SetQueueAttributes, CreateQueue, GetQueueAttributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused

_RANGES: Final = {
    "DelaySeconds": (0, 900),
    "MaximumMessageSize": (1024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
}
DEFAULTS: Final = {
    "DelaySeconds": "0",
    "MaximumMessageSize": "1048576",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
}
FIFO_DEFAULTS: Final = {
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}
_WORDS: Final = {
    "ContentBasedDeduplication": ("true", "false"),
    "SqsManagedSseEnabled": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "FifoQueue": ("true",),
}
_FIFO_ONLY: Final = ("FifoQueue", *FIFO_DEFAULTS)
_ALSO: Final = ("Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId")
_MOST_SOURCES: Final = 10
REUSE: Final = "300"
"""KmsDataKeyReusePeriodSeconds where nobody says."""


def wrong(name: str, value: str, reason: str = "") -> Refused:
    """InvalidAttributeValue."""
    more = f" Reason: {reason}" if reason else ""
    return Refused("InvalidAttributeValue", f"Invalid value for the parameter {name}: {value[:200]}.{more}")


def parameter(name: str, value: object, reason: str = "") -> Refused:
    """InvalidParameterValue."""
    more = f" Reason: {reason}" if reason else ""
    return Refused("InvalidParameterValue", f"Value {str(value)[:200]} for parameter {name} is invalid.{more}")


def checked(given: Mapping[str, str], *, fifo: bool, new: bool) -> dict[str, str]:
    """The attributes as they are kept; empty ones are to be taken away. Raises Refused."""
    found: dict[str, str] = {}
    for name, said in given.items():
        value = said.lower() if name in _WORDS and said.lower() in ("true", "false") else said
        if name in _RANGES:
            low, high = _RANGES[name]
            if not (value.isascii() and value.isdigit() and len(value) < 12 and low <= int(value) <= high):
                raise wrong(name, value, f"It is a number from {low} to {high}.")
            found[name] = str(int(value))
        elif name in _WORDS:
            if name in _FIFO_ONLY and not fifo:
                high = name in ("DeduplicationScope", "FifoThroughputLimit")
                why = f"You can specify the {name} only when FifoQueue is set to true." if high else ""
                raise Refused("InvalidAttributeName", why or f"Unknown Attribute {name}. It is one of FIFO queues.")
            if name == "FifoQueue" and not new and value != "true":
                raise Refused(
                    "InvalidAttributeValue",
                    "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
                )
            if value not in _WORDS[name]:
                raise wrong(name, value, f"It is one of {', '.join(_WORDS[name])}.")
            found[name] = value
        elif name in _ALSO:
            found[name] = value
        else:
            raise Refused("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")
    return found


def whole(held: Mapping[str, str]) -> None:
    """Raises Refused for attributes that do not go together."""
    if held.get("FifoThroughputLimit") == "perMessageGroupId" and held.get("DeduplicationScope") != "messageGroup":
        raise wrong(
            "FifoThroughputLimit", "perMessageGroupId", "It is allowed only when DeduplicationScope is messageGroup."
        )
    if held.get("KmsMasterKeyId") and held.get("SqsManagedSseEnabled") == "true":
        raise wrong("SqsManagedSseEnabled", "true", "You can use one type of server-side encryption at one time.")


def redrive(text: str) -> tuple[Arn, int]:
    """The dead-letter queue and the number of receives of a RedrivePolicy; raises Refused."""
    try:
        held = json.loads(text)
        most = int(str(held.get("maxReceiveCount", 10)))
        arn = Arn.parse(str(held["deadLetterTargetArn"]))
        if set(held) - {"deadLetterTargetArn", "maxReceiveCount"} or arn.service != "sqs":
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise parameter(
            "RedrivePolicy", text, "It is a JSON object with deadLetterTargetArn and maxReceiveCount."
        ) from None
    if not 1 <= most <= 1000:
        raise parameter("RedrivePolicy", text, "Invalid value for maxReceiveCount: 1 to 1000.")
    return arn, most


def redrive_allow(text: str) -> dict[str, Any]:
    """A checked RedriveAllowPolicy; raises Refused."""
    try:
        held = json.loads(text)
        permission, sources = held["redrivePermission"], held.get("sourceQueueArns")
        known = permission in ("allowAll", "denyAll", "byQueue") and not set(held) - {
            "redrivePermission",
            "sourceQueueArns",
        }
        arns = sources is None or (
            isinstance(sources, list) and 1 <= len(sources) <= _MOST_SOURCES and all(Arn.parse(str(x)) for x in sources)
        )
        if not known or not arns or (permission == "byQueue") != (sources is not None):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise parameter(
            "RedriveAllowPolicy",
            text,
            "It has a redrivePermission of allowAll, denyAll or byQueue, and with byQueue 1 to 10 sourceQueueArns.",
        ) from None
    return dict(held)
