"""A role that a service acts with, for as long as something of its users' needs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bastide.domain import MICROS, Instant
from bastide.kernel.calls import Calls
from bastide.kernel.identity import Caller
from bastide.kernel.kind import Output


class RoleSession:
    """Acts with a role that trusts a service (its principal), for something in `account` (`source_arn`, which the role's
    trust policy and the record see). The credentials stay in this process's memory, but for those that `credentials` gives
    away; the role is assumed anew before they end, so that one that was removed or trusts the service no longer ends the
    work. name: the session's. gateway: the VPC endpoint that calls of S3 go through."""

    spare: Instant = 600 * MICROS
    """A session is renewed this long before it ends, so that no upload outlives it."""

    def __init__(
        self, calls: Calls, service: str, role: str, name: str, *, account: str, region: str, source_arn: str = ""
    ) -> None:
        self.calls = calls
        self.service = service
        self.role = role
        self.name = name
        self.account = account
        self.region = region
        self.source_arn = source_arn
        self.gateway = ""
        self._caller: Caller | None = None
        self._given: tuple[Instant, dict[str, str]] | None = None

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if the role cannot be assumed (any more)."""
        held = self._caller
        if held is None or held.session is None or held.session.expires - self.spare < self.calls.clock():
            held = self._caller = await self._assumed()
        return held

    async def _assumed(self) -> Caller:
        return await self.calls.assume(
            self.service, self.role, self.name, account=self.account, region=self.region, source_arn=self.source_arn
        )

    async def act(self, service: str, operation: str, input: dict[str, Any], **more: Any) -> Output:
        """A call to another service; raises Refused as it does."""
        if service == "s3":
            more["vpce"] = self.gateway
        return await self.calls.act(
            await self.caller(), service, operation, input, region=self.region, source=self.service, **more
        )

    async def credentials(self) -> dict[str, str]:
        """Credentials of a session of the role for code that is not ours, in the form that AWS's clients ask a container's
        host for; raises Refused. They are renewed early enough that who asks always has some time."""
        held = self._given
        if held is None or held[0] - self.spare < self.calls.clock():
            issued = await self.calls.issue(
                self.service, self.role, self.name, account=self.account, region=self.region, source_arn=self.source_arn
            )
            ends = datetime.fromtimestamp(issued["Expiration"] / MICROS, UTC)
            told = {
                "RoleArn": self.role,
                "AccessKeyId": issued["AccessKeyId"],
                "SecretAccessKey": issued["SecretAccessKey"],
                "Token": issued["SessionToken"],
                "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            held = self._given = (issued["Expiration"], told)
        return held[1]

    def end(self) -> None:
        """Forgets the credentials."""
        self._caller = self._given = None
