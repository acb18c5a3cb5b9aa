"""Who makes the calls of a stack: its service role, or whoever asked, with the session that they had.

Source: CloudFormation User Guide, "CloudFormation service role"; IAM User Guide, "aws:CalledVia".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Body, Caller, Calls, Output
from bastide.kernel.standing import caller_of, kept
from bastide.services.cloudformation.shaping import shaped
from bastide.store import Transaction

CLOUDFORMATION: Final = "cloudformation.amazonaws.com"
_SPARE = 300 * MICROS
_NAME: Final = "AWSCloudFormation"

Principal = dict[str, Any]
"""Who acts, as it is kept: ``{"roles": [ARN, ...]}``, ``{"user": access key}`` or ``{"session": its fields}``. No secret is
in it. roles: each is taken on by the one before it, the first by `service`, which is CloudFormation if nothing is said."""


def as_role(role: str) -> Principal:
    """A service role."""
    return {"roles": [role]}


def principal(caller: Caller) -> Principal:
    """Whoever asked, to be kept; raises Refused for who has no credentials that could be used later."""
    found = kept(caller)
    if found is None:
        raise Refused("ValidationError", "A stack needs a caller with credentials, or a role.")
    return found


class Actor:
    """Calls other services for one stack (`arn`). What it is asked is the service's own member names; values are converted
    as the API's model has them."""

    def __init__(self, calls: Calls, principal: Principal, *, account: str, region: str, arn: str) -> None:
        self.calls = calls
        self.principal = principal
        self.account = account
        self.region = region
        self.arn = arn
        self._caller: Caller | None = None

    @property
    def via(self) -> tuple[str, ...]:
        """With a service role the calls are the role's own, and were forwarded by nobody."""
        return () if "roles" in self.principal else (CLOUDFORMATION,)

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if a role cannot be assumed, or the session or user is there no more."""
        if "roles" in self.principal:
            return await self._roles()
        return caller_of(
            self.calls,
            self.principal,
            expired="The session that the stack acts with has expired; use a role (RoleARN).",
            gone="Whoever asked for the stack has no valid credentials any more.",
        )

    async def _roles(self) -> Caller:
        """The last of the roles; the first trusts the service, and each further one the one before."""
        held = self._caller
        if held is not None and held.session is not None and held.session.expires - _SPARE >= self.calls.clock():
            return held
        service = self.principal.get("service", CLOUDFORMATION)
        role = ""
        held = None
        try:
            for role in self.principal["roles"]:
                if held is None:
                    held = await self.calls.assume(
                        service, role, _NAME, account=self.account, region=self.region, source_arn=self.arn
                    )
                else:
                    held = await self.calls.chain(
                        held, role, _NAME, region=self.region, source=CLOUDFORMATION, DurationSeconds=3600
                    )
        except Refused:
            raise Refused("ValidationError", f"Role {role} is invalid or cannot be assumed") from None
        assert held is not None
        self._caller = held
        return held

    async def act(
        self,
        service: str,
        operation: str,
        input: Mapping[str, Any],
        *,
        region: str = "",
        also: Callable[[Transaction, Output], None] | None = None,
        body: Body | None = None,
        prepared: Any = None,
    ) -> Output:
        """A call to another service; raises Refused as it does, and for an input that the model does not know."""
        if (service, operation) not in self.calls.registry.operations:
            raise Refused("ValidationError", f"Bastide does not have the operation {service}:{operation}.")
        given = shaped(service, operation, input)
        return await self.calls.act(
            await self.caller(),
            service,
            operation,
            given,
            region=region or self.region,
            source=CLOUDFORMATION,
            via=self.via,
            also=also,
            body=body,
            prepared=prepared,
        )
