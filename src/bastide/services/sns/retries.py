"""How often a delivery is tried again. Source: Amazon SNS Developer Guide, "Message delivery retries"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused

DEFAULT: Final[Mapping[str, Any]] = {
    "minDelayTarget": 20, "maxDelayTarget": 20, "numRetries": 3, "numMaxDelayRetries": 0, "numNoDelayRetries": 0,
    "numMinDelayRetries": 0, "backoffFunction": "linear",
}  # fmt: skip
MAIL: Final[Mapping[str, Any]] = {
    **DEFAULT, "minDelayTarget": 10, "maxDelayTarget": 600, "numRetries": 50, "numMinDelayRetries": 2,
    "numMaxDelayRetries": 38, "backoffFunction": "exponential",
}  # fmt: skip
"""Of mail: fifty times over some six hours."""
_OURS: Final = (3, 2, 10)
"""Of what AWS itself runs (queues, functions): retries at once, after a second each, and with pauses that grow to 20."""
_OURS_IN_ALL: Final = 100_015
_LONGEST: Final = 3600
_MOST: Final = 100
_FUNCTIONS: Final = ("linear", "arithmetic", "geometric", "exponential")
_PART: Final = {True: "defaultHealthyRetryPolicy", False: "healthyRetryPolicy"}


def _wrong(text: str) -> Refused:
    return Refused("InvalidParameter", f"Invalid parameter: DeliveryPolicy: {text}")


def policy_of(text: str, *, topic: bool) -> dict[str, Any]:
    """A checked delivery policy, of a topic's ``http`` or of a subscription; raises InvalidParameter."""
    if not text:
        return {}
    try:
        held = json.loads(text)
        whole = held["http"] if topic else held
        retries = dict(whole.get(_PART[topic]) or {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _wrong("it is a JSON object" + (" with http" if topic else "")) from None
    known = {_PART[topic], "requestPolicy", "defaultRequestPolicy"} | (
        {"disableSubscriptionOverrides"} if topic else set()
    )
    if set(whole) - known or set(retries) - set(DEFAULT):
        raise _wrong("throttlePolicy and members that nobody knows are not supported")
    found = {**DEFAULT, **retries}
    numbers = [found[name] for name in DEFAULT if name != "backoffFunction"]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
        raise _wrong("its delays and numbers are whole numbers")
    if not 1 <= found["minDelayTarget"] <= found["maxDelayTarget"] <= _LONGEST:
        raise _wrong(f"1 <= minDelayTarget <= maxDelayTarget <= {_LONGEST}")
    named = found["numNoDelayRetries"] + found["numMinDelayRetries"] + found["numMaxDelayRetries"]
    if found["numRetries"] > _MOST or named > found["numRetries"] or found["backoffFunction"] not in _FUNCTIONS:
        raise _wrong(f"numRetries is at most {_MOST} and not less than the retries that are named one by one")
    request = whole.get("requestPolicy" if not topic else "defaultRequestPolicy") or {}
    if not isinstance(request, dict) or set(request) - {"headerContentType"}:
        raise _wrong("requestPolicy has headerContentType")
    content = request.get("headerContentType")
    if content is not None and not (isinstance(content, str) and content.isprintable() and len(content) < 100):
        raise _wrong("headerContentType is a media type")
    return {
        "retries": found,
        "content": content or "",
        "own": not (topic and whole.get("disableSubscriptionOverrides") is True),
    }


def effective(text: str | None) -> dict[str, Any]:
    """The delivery policy of a topic as GetTopicAttributes shows it."""
    held = policy_of(text or "", topic=True)
    return {
        "defaultHealthyRetryPolicy": dict(held.get("retries") or DEFAULT),
        "disableSubscriptionOverrides": not held.get("own", True),
        "defaultRequestPolicy": {"headerContentType": held.get("content") or "text/plain; charset=UTF-8"},
    }


def pause(policy: Mapping[str, Any] | None, attempts: int) -> float | None:
    """Seconds until the next attempt after so many; None when there is none. policy: of an address elsewhere."""
    if policy is None:
        at_once, seconds, growing = _OURS
        if attempts > _OURS_IN_ALL:
            return None
        if attempts <= at_once:
            return 0.0
        if attempts <= at_once + seconds:
            return 1.0
        return float(min(20, 1 + 19 * (attempts - at_once - seconds) // growing))
    if attempts > policy["numRetries"]:
        return None
    number, low, high = attempts, policy["minDelayTarget"], policy["maxDelayTarget"]
    if number <= policy["numNoDelayRetries"]:
        return 0.0
    number -= policy["numNoDelayRetries"]
    if number <= policy["numMinDelayRetries"]:
        return float(low)
    number -= policy["numMinDelayRetries"]
    growing = policy["numRetries"] - policy["numNoDelayRetries"]
    growing -= policy["numMinDelayRetries"] + policy["numMaxDelayRetries"]
    if number > growing:
        return float(high)
    share = number / max(1, growing)
    if policy["backoffFunction"] in ("geometric", "exponential"):
        return float(low * (high / low) ** share)
    if policy["backoffFunction"] == "arithmetic":
        return float(low + (high - low) * share * share)
    return float(low + (high - low) * share)
