"""Retry policies: after which failure a step is tried again, when, and how often.

Source: SageMaker developer guide, "Retry policy for pipeline steps".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bastide.services.sagemaker.pipeline_language.expression import Malformed

SERVICE_FAULT: Final = "Step.SERVICE_FAULT"
THROTTLING: Final = "Step.THROTTLING"
EXCEPTIONS: Final = (
    SERVICE_FAULT,
    THROTTLING,
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
)
MOST_ATTEMPTS: Final = 20
_LONGEST_MINUTES: Final = 14_400
_LONGEST_INTERVAL: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """exceptions: what it is about. interval: seconds before the first retry, times `rate` before each further one.
    attempts: at most so many retries; minutes: none after so long. One of the two is None."""

    exceptions: frozenset[str]
    interval: float = 1.0
    rate: float = 2.0
    attempts: int | None = 5
    minutes: int | None = None

    def pause(self, retries: int, seconds: float) -> float | None:
        """Seconds until the next try after so many retries and `seconds` since the step began; None: no more."""
        if self.attempts is not None and retries >= self.attempts:
            return None
        pause = min(self.interval * self.rate**retries, _LONGEST_INTERVAL)
        if self.minutes is not None and seconds + pause > self.minutes * 60:
            return None
        return pause


_DEFAULT: Final = Policy(frozenset({SERVICE_FAULT, THROTTLING}), attempts=3)
"""The guide: both are retried, whether a step says so or not."""


def policy_for(policies: Sequence[Policy], exception: str) -> Policy | None:
    """The first policy about an exception."""
    return next((one for one in (*policies, _DEFAULT) if exception in one.exceptions), None)


def policies(given: Any, what: str) -> tuple[Policy, ...]:
    """Reads RetryPolicies; raises Malformed."""
    if not isinstance(given, list) or len(given) > len(EXCEPTIONS):
        raise Malformed(f"RetryPolicies of {what} is a list, one policy an exception.")
    return tuple(_policy(one, what) for one in given)


def _policy(given: Any, what: str) -> Policy:
    if not isinstance(given, dict):
        raise Malformed(f"RetryPolicies of {what} are objects.")
    named = given.get("ExceptionType")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not named or any(one not in EXCEPTIONS for one in named):
        raise Malformed(f"ExceptionType in RetryPolicies of {what} is a list of {', '.join(EXCEPTIONS)}.")
    attempts, minutes = given.get("MaxAttempts"), given.get("ExpireAfterMin")
    if attempts is not None and minutes is not None:
        raise Malformed(f"A retry policy of {what} has MaxAttempts or ExpireAfterMin, not both.")
    if attempts is None and minutes is None:
        attempts = 5
    return Policy(
        frozenset(named),
        _number(given.get("IntervalSeconds", 1), 0, _LONGEST_INTERVAL, "IntervalSeconds", what),
        _number(given.get("BackoffRate", 2.0), 0, 100, "BackoffRate", what),
        None if attempts is None else int(_number(attempts, 1, MOST_ATTEMPTS, "MaxAttempts", what)),
        None if minutes is None else int(_number(minutes, 0, _LONGEST_MINUTES, "ExpireAfterMin", what)),
    )


def _number(given: Any, least: float, most: float, name: str, what: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise Malformed(f"{name} in RetryPolicies of {what} is a number.")
    if not least <= given <= most:
        raise Malformed(f"{name} in RetryPolicies of {what} is between {least:g} and {most:g}.")
    return float(given)
