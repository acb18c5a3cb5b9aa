"""Who launches: the launch role, or without a launch constraint whoever asked, with the session that they had.

Source: Service Catalog Administrator Guide, "AWS Service Catalog Launch Constraints".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines import templates
from bastide.kernel import Caller, Calls, Output, standing
from bastide.services.servicecatalog.noun import PRINCIPAL, invalid
from bastide.store import Transaction

_SPARE: Final = 300 * MICROS


def kept(caller: Caller) -> dict[str, Any]:
    """Whoever asked, to be kept: no secret is in it."""
    found = standing.kept(caller)
    if found is None:
        raise invalid("A product without a launch constraint needs a caller with credentials.")
    return found


class Actor:
    """Calls CloudFormation for one provisioned product (`arn`)."""

    def __init__(self, calls: Calls, role: str, who: Mapping[str, Any], *, account: str, region: str, arn: str) -> None:
        self._calls = calls
        self._role, self._who = role, who
        self._account, self._region, self._arn = account, region, arn
        self._caller: Caller | None = None

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused."""
        if self._role:
            return await self._assumed()
        return standing.caller_of(
            self._calls,
            self._who,
            expired="The session that the product was launched with has expired.",
            gone="Whoever launched the product has no valid credentials any more.",
        )

    async def _assumed(self) -> Caller:
        held = self._caller
        if held is None or held.session is None or held.session.expires - _SPARE < self._calls.clock():
            try:
                held = await self._calls.assume(
                    PRINCIPAL, self._role, "servicecatalog", account=self._account, region=self._region,
                    source_arn=self._arn,
                )  # fmt: skip
            except Refused as refused:
                raise Refused(
                    "AccessDenied",
                    f"Service Catalog cannot assume the launch role {self._role}: it must exist and its trust policy must "
                    f"allow {PRINCIPAL}. {refused.message}",
                    403,
                ) from None
            self._caller = held
        return held

    async def act(
        self,
        operation: str,
        input: dict[str, Any],
        also: Callable[[Transaction, Output], None] | None = None,
        *,
        service: str = "cloudformation",
    ) -> Output:
        """A call to CloudFormation, or another service; raises Refused as it does."""
        return await self._calls.act(
            await self.caller(), service, operation, input, region=self._region, source=PRINCIPAL,
            via=() if self._role else (PRINCIPAL,), also=also, prepared=templates.STORED,
        )  # fmt: skip
