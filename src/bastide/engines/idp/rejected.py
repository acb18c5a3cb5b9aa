"""Why an assertion is not believed."""

from __future__ import annotations

from typing import Literal

Why = Literal["invalid", "expired", "refused", "unreachable"]


class Rejected(Exception):  # noqa: N818 - as a refusal, an answer
    """why: "invalid" (not what it pretends to be, or not for us), "expired", "refused" (the provider itself says no) or
    "unreachable" (the provider's keys could not be got). The message may be shown to whoever brought the assertion."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message
