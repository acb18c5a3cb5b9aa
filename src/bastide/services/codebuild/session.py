"""The role of a project, for as long as a build needs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Caller, Calls, Output, service_caller
from bastide.services.codebuild.noun import PRINCIPAL, invalid

_SPARE: Final = 600 * MICROS
"""A session is renewed this long before it ends, so that no upload outlives it."""


class RoleSession:
    """Acts with a service role, for something in `account` (`source_arn`, the project's ARN, which the role's trust policy
    and the record see). The credentials stay in this process's memory, but for those that the build itself asks for; a role
    that is removed or no longer trusts CodeBuild ends the work. gateway: the VPC endpoint that calls of S3 go through; in
    vpc: there is none without."""

    def __init__(
        self, calls: Calls, role: str, *, account: str, region: str, source_arn: str, name: str = "AWSCodeBuild"
    ) -> None:
        self.calls = calls
        self.role = role
        self.account = account
        self.region = region
        self.source_arn = source_arn
        self.name = name
        self.gateway = ""
        self.in_vpc = False
        self._caller: Caller | None = None
        self._given: tuple[Instant, dict[str, str]] | None = None

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if the role cannot be assumed (any more)."""
        held = self._caller
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            held = await self.calls.assume(
                PRINCIPAL, self.role, self.name, account=self.account, region=self.region, source_arn=self.source_arn
            )
            self._caller = held
        return held

    async def act(self, service: str, operation: str, input: dict[str, Any], **more: Any) -> Output:
        """A call to another service; raises Refused as it does."""
        if service == "s3":
            if self.in_vpc and not self.gateway:
                raise Refused(
                    "EndpointUnreachable",
                    "the build's subnet has no way to S3: make a gateway VPC endpoint for S3 and name the subnet's route "
                    "table in it",
                )
            more["vpce"] = self.gateway
        return await self.calls.act(
            await self.caller(), service, operation, input, region=self.region, source=PRINCIPAL, **more
        )

    async def credentials(self) -> dict[str, str]:
        """Credentials of a session of the role for the build, in the form that AWS's clients ask a container's host for;
        raises Refused. They are renewed early enough that who asks always has some time."""
        held = self._given
        if held is None or held[0] - _SPARE < self.calls.clock():
            output = await self.calls.act(
                service_caller(PRINCIPAL, self.account, self.source_arn),
                "sts",
                "AssumeRole",
                {"RoleArn": self.role, "RoleSessionName": self.name, "DurationSeconds": 3600},
                region=self.region,
                source=PRINCIPAL,
            )
            issued = output["Credentials"]
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


async def check_role(calls: Calls, role: str, *, account: str, region: str, source_arn: str) -> None:
    """Raises Refused, as AWS does at once and not when a build begins, if the role cannot be assumed."""
    if not role.startswith(f"arn:aws:iam::{account}:role/"):
        raise invalid(f"Invalid service role: {role[:300]} is not the ARN of a role of this account.")
    try:
        await RoleSession(calls, role, account=account, region=region, source_arn=source_arn).caller()
    except Refused:
        raise invalid(
            f"CodeBuild is not authorized to perform: sts:AssumeRole on {role}. Please ensure that the role exists and "
            f"that its trust policy allows the service principal '{PRINCIPAL}' to assume it."
        ) from None
