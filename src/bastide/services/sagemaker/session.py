"""A role's session, for as long as a job or an endpoint needs one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused
from bastide.kernel import Caller, Calls, Output, service_caller

SAGEMAKER: Final = "sagemaker.amazonaws.com"
_SPARE = 600 * MICROS  # a session is renewed this long before it ends, so that no upload outlives it


class RoleSession:
    """Acts with a role's permissions, for something in `account` (`source_arn`, its ARN, which the role's trust policy and
    the record see). The credentials stay in this process's memory; the role is assumed anew before they end, so that a
    role that was removed or no longer trusts us ends the work. gateway: the VPC endpoint that calls of S3 go through."""

    def __init__(self, calls: Calls, role_arn: str, *, account: str, region: str, source_arn: str = "") -> None:
        self.calls = calls
        self.source_arn = source_arn
        self.role_arn = role_arn
        self.account = account
        self.region = region
        self.gateway = ""
        self._caller: Caller | None = None
        self._given: tuple[Instant, dict[str, str]] | None = None

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if the role cannot be assumed (any more)."""
        held = self._caller
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            held = await self.calls.assume(
                SAGEMAKER,
                self.role_arn,
                "SageMaker",
                account=self.account,
                region=self.region,
                source_arn=self.source_arn,
            )
            self._caller = held
        return held

    async def act(self, service: str, operation: str, input: dict[str, Any], **more: Any) -> Output:
        """A call to another service; raises Refused as it does."""
        if service == "s3":
            more["vpce"] = self.gateway
        return await self.calls.act(
            await self.caller(), service, operation, input, region=self.region, source=SAGEMAKER, **more
        )

    async def credentials(self) -> dict[str, str]:
        """Credentials of a session of the role for code that is not ours, in the form that AWS's clients ask a container's
        host for; raises Refused. They are renewed early enough that who asks always has some time."""
        held = self._given
        if held is None or held[0] - _SPARE < self.calls.clock():
            output = await self.calls.act(
                service_caller(SAGEMAKER, self.account, self.source_arn),
                "sts",
                "AssumeRole",
                {"RoleArn": self.role_arn, "RoleSessionName": "SageMaker", "DurationSeconds": 3600},
                region=self.region,
                source=SAGEMAKER,
            )
            issued = output["Credentials"]
            ends = datetime.fromtimestamp(issued["Expiration"] / MICROS, UTC)
            told = {
                "RoleArn": self.role_arn,
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


def cannot_assume(role_arn: str) -> Refused:
    """What AWS says of a role that SageMaker may not take on."""
    return Refused(
        "ValidationException",
        f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
        f"'{SAGEMAKER}' to assume the role.",
    )


async def check_role(calls: Calls, role_arn: str, *, account: str, region: str, source_arn: str) -> None:
    """Raises Refused, as AWS does at once and not when the work begins, if the role cannot be assumed."""
    if f":{account}:" not in role_arn:
        raise Refused("ValidationException", "Cross-account pass role is not allowed.")
    try:
        await RoleSession(calls, role_arn, account=account, region=region, source_arn=source_arn).caller()
    except Refused:
        raise cannot_assume(role_arn) from None
