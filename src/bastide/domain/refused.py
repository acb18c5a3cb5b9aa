"""The one way to say no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """A call is refused with AWS's error code.

    code: the value of ``Error.Code`` that clients see. message: tells the person what to change; never holds a secret.
    status: HTTP status; when the operation's model declares the error, the model's status is used instead.
    members: further members of a modelled error structure. kept: what the record keeps beside it and the caller
    does not see (the deciding policy, for instance).
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        members: Mapping[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members: Mapping[str, Any] = members or {}
        self.kept: Mapping[str, Any] = kept or {}
