"""A function's role, for as long as something of the function needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Caller, Calls, Output, service_caller
from bastide.services.lambda_.noun import PRINCIPAL

_SPARE: Final = 300 * MICROS
_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of a session of the role: what AWS's clients look for in the environment, and until when it is good."""

    variables: Mapping[str, str]
    until: Instant


class RoleSession:
    """Acts with a function's role; its trust policy and the record see which function it is for. The credentials stay in
    this process's memory, but for those that the function itself is given."""

    def __init__(self, calls: Calls, role: str, name: str, *, account: str, region: str, source_arn: str) -> None:
        self.calls = calls
        self.role = role
        self.account = account
        self.region = region
        self.source_arn = source_arn
        self._name = name
        self._caller: Caller | None = None

    async def begin(self) -> Credentials:
        """Takes on the role; raises Refused. The same session acts for the function from then on."""
        try:
            output = await self.calls.act(
                service_caller(PRINCIPAL, self.account, self.source_arn),
                "sts",
                "AssumeRole",
                {"RoleArn": self.role, "RoleSessionName": self._name, "DurationSeconds": _SECONDS},
                region=self.region,
                source=PRINCIPAL,
            )
        except Refused:
            raise cannot_assume() from None
        issued = output["Credentials"]
        held, _ = self.calls.sessions.read(issued["SessionToken"], issued["AccessKeyId"], self.calls.clock())
        with self.calls.store.reading() as view:
            self._caller = self.calls.directory.by_session(view, held)
        if self._caller is None:
            raise cannot_assume()
        given = {
            "AWS_ACCESS_KEY_ID": issued["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": issued["SecretAccessKey"],
            "AWS_SESSION_TOKEN": issued["SessionToken"],
        }
        return Credentials(given, int(issued["Expiration"]))

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if the role cannot be assumed (any more)."""
        held = self._caller
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            await self.begin()
        assert self._caller is not None
        return self._caller

    async def act(self, service: str, operation: str, input: dict[str, Any], **more: Any) -> Output:
        """A call to another service; raises Refused as it does."""
        return await self.calls.act(
            await self.caller(), service, operation, input, region=self.region, source=PRINCIPAL, **more
        )


def cannot_assume() -> Refused:
    """What AWS says of a role that Lambda may not take on."""
    return Refused(
        "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.", 400
    )
