"""Who makes the calls of a pipeline: its role, and for an action that names one, that role, taken on by the first.

Source: CodePipeline User Guide, "Create a pipeline that uses resources from another account".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Body, Caller, Calls, Output
from bastide.services.codepipeline.noun import PRINCIPAL
from bastide.store import Transaction

_SPARE: Final = 600 * MICROS
DENIED: Final = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation")


class Denied(Exception):  # noqa: N818
    """A role cannot be taken on; the message says which, and who was refused by whom."""


class Actor:
    """Calls other services for a pipeline (`arn`). role: the pipeline's. further: an action's own role, which the first
    takes on; its trust policy decides. name: of the session."""

    def __init__(
        self, calls: Calls, role: str, further: str, *, account: str, region: str, arn: str, name: str
    ) -> None:
        self.calls = calls
        self.role = role
        self.further = further
        self.account = account
        self.region = region
        self.arn = arn
        self.name = name
        self._caller: Caller | None = None

    async def caller(self) -> Caller:
        """Whoever acts; raises Denied if a role cannot be taken on."""
        held = self._caller
        if held is not None and held.session is not None and held.session.expires - _SPARE >= self.calls.clock():
            return held
        try:
            held = await self.calls.assume(
                PRINCIPAL, self.role, self.name, account=self.account, region=self.region, source_arn=self.arn
            )
        except Refused as refused:
            raise Denied(
                f"CodePipeline is not authorized to perform AssumeRole on the role {self.role}: {refused.message}"
            ) from None
        if self.further:
            try:
                held = await self.calls.chain(
                    held, self.further, self.name, region=self.region, source=PRINCIPAL, DurationSeconds=3600
                )
            except Refused as refused:
                raise Denied(
                    f"The pipeline's role {self.role} cannot assume the action's role {self.further}: {refused.message}"
                ) from None
        self._caller = held
        return held

    async def act(
        self,
        service: str,
        operation: str,
        given: Mapping[str, Any],
        *,
        also: Callable[[Transaction, Output], None] | None = None,
        body: Body | None = None,
    ) -> Output:
        """A call to another service, in its API's own names; raises Refused as it does, and Denied."""
        if (service, operation) not in self.calls.registry.operations:
            raise Refused("ConfigurationError", f"Bastide does not have the operation {service}:{operation}.")
        asked = {key: value for key, value in given.items() if value is not None}
        return await self.calls.act(
            await self.caller(), service, operation, asked, region=self.region, source=PRINCIPAL, also=also, body=body
        )

    async def seen(self, service: str, operation: str, given: Mapping[str, Any], *missing: str) -> Output | None:
        """The answer of a call that reads; None where it is refused with one of these codes or messages."""
        try:
            return await self.act(service, operation, given)
        except Refused as refused:
            if any(one in refused.code or one in refused.message for one in missing):
                return None
            raise

    async def credentials(self, policy: str) -> dict[str, str]:
        """Credentials of a session of the pipeline's role that can do no more than a policy says; raises Denied."""
        try:
            issued = await self.calls.issue(
                PRINCIPAL, self.role, self.name, account=self.account, region=self.region, source_arn=self.arn,
                Policy=policy,
            )  # fmt: skip
        except Refused as refused:
            raise Denied(f"The role {self.role} cannot be assumed: {refused.message}") from None
        return {
            "accessKeyId": issued["AccessKeyId"],
            "secretAccessKey": issued["SecretAccessKey"],
            "sessionToken": issued["SessionToken"],
        }
