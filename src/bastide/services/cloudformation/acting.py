"""Who makes the calls of a stack: its service role, or whoever asked, with the session that they had.

Source: CloudFormation User Guide, "CloudFormation service role"; IAM User Guide, "aws:CalledVia".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Body, Caller, Calls, Output, Session
from bastide.services.cloudformation.shaping import shaped
from bastide.store import Transaction

CLOUDFORMATION: Final = "cloudformation.amazonaws.com"
_SPARE = 300 * MICROS

Principal = dict[str, Any]
"""Who acts, as it is kept: ``{"role": ARN}``, ``{"user": access key}`` or ``{"session": its fields}``. No secret is
in it."""


def principal(caller: Caller) -> Principal:
    """Whoever asked, to be kept; raises Refused for who has no credentials that could be used later."""
    if caller.session is not None:
        return {"session": {name: getattr(caller.session, name) for name in Session.__slots__}}
    if caller.access_key:
        return {"user": caller.access_key}
    raise Refused("ValidationError", "A stack needs a caller with credentials, or a role.")


def _session(fields: Mapping[str, Any]) -> Session:
    known = dict(fields)
    for name in ("policies", "policy_arns", "transitive", "origin"):
        known[name] = tuple(known[name])
    known["keys"] = {
        key: value if isinstance(value, str) else tuple(value) for key, value in known.get("keys", {}).items()
    }
    return Session(**known)


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
        return () if "role" in self.principal else (CLOUDFORMATION,)

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused if the role cannot be assumed, or the session or user is there no more."""
        if "role" in self.principal:
            return await self._role()
        if "session" in self.principal:
            session = _session(self.principal["session"])
            if session.expires <= self.calls.clock():
                raise Refused(
                    "ExpiredToken", "The session that the stack acts with has expired; use a role (RoleARN).", 403
                )
            with self.calls.store.reading() as view:
                found = self.calls.directory.by_session(view, session)
        else:
            with self.calls.store.reading() as view:
                held = self.calls.directory.by_access_key(view, self.principal["user"])
            found = None if held is None else held[0]
        if found is None:
            raise Refused("AccessDenied", "Whoever asked for the stack has no valid credentials any more.", 403)
        return found

    async def _role(self) -> Caller:
        held = self._caller
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            role = self.principal["role"]
            try:
                held = await self.calls.assume(
                    CLOUDFORMATION,
                    role,
                    "AWSCloudFormation",
                    account=self.account,
                    region=self.region,
                    source_arn=self.arn,
                )
            except Refused:
                raise Refused("ValidationError", f"Role {role} is invalid or cannot be assumed") from None
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
