"""A function's role, for as long as something of the function needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bastide import kernel
from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Caller, Calls
from bastide.services.lambda_.noun import PRINCIPAL


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of a session of the role: what AWS's clients look for in the environment, and until when it is good."""

    variables: Mapping[str, str]
    until: Instant


class RoleSession(kernel.RoleSession):
    """Acts with a function's role; its trust policy and the record see which function it is for. The credentials stay in
    this process's memory, but for those that the function itself is given."""

    spare = 300 * MICROS

    def __init__(self, calls: Calls, role: str, name: str, *, account: str, region: str, source_arn: str) -> None:
        super().__init__(calls, PRINCIPAL, role, name, account=account, region=region, source_arn=source_arn)

    async def begin(self) -> Credentials:
        """Takes on the role; raises Refused. The same session acts for the function from then on."""
        try:
            issued = await self.calls.issue(
                PRINCIPAL, self.role, self.name, account=self.account, region=self.region, source_arn=self.source_arn
            )
            self._caller = self.calls.holder(issued, self.role)
        except Refused:
            raise cannot_assume() from None
        given = {
            "AWS_ACCESS_KEY_ID": issued["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": issued["SecretAccessKey"],
            "AWS_SESSION_TOKEN": issued["SessionToken"],
        }
        return Credentials(given, int(issued["Expiration"]))

    async def _assumed(self) -> Caller:
        await self.begin()
        assert self._caller is not None
        return self._caller


def cannot_assume() -> Refused:
    """What AWS says of a role that Lambda may not take on."""
    return Refused(
        "InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.", 400
    )
