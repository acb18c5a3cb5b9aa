"""Has events handled: by whom, within which limits, and what is measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.functions import Full, Functions, Invocation, Launched, Outcome, Unavailable
from bastide.engines.telemetry import Dimensions, Meter
from bastide.kernel import Calls
from bastide.services.lambda_ import alias, concurrency, variables
from bastide.services.lambda_.host import Hosts, key_of
from bastide.services.lambda_.noun import LATEST, Named, alias_row, is_number, resolved
from bastide.services.lambda_.session import RoleSession
from bastide.store import View

_NAMESPACE: Final = "AWS/Lambda"
_MOST_SESSIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What an event is for. version: which one handles it; doc: its configuration. reserved: the function's own share of
    concurrency; unreserved: what the account has beside all shares."""

    what: Named
    version: str
    doc: Mapping[str, Any]
    reserved: int | None
    unreserved: int


def target(calls: Calls, view: View, what: Named) -> Target:
    """Which version of a function handles an event now; raises Refused for one that is not there or not ready."""
    row, doc, version = resolved(view, what)
    if what.qualifier not in ("", LATEST) and not is_number(what.qualifier):
        held = alias_row(view, what, what.qualifier)
        assert held is not None
        chosen = alias.routed(held)
        if chosen != version:
            row, doc, version = resolved(view, Named(what.account, what.region, what.name, chosen))
    if row.status == "Pending":
        raise Refused(
            "ResourceConflictException",
            "The operation cannot be performed at this time. The function is currently in the following state: Pending",
            409,
        )
    if row.status == "Failed":
        raise Refused("ResourceConflictException", str(row.doc.get("StateReason") or "The function is Failed."), 409)
    shares = concurrency.reserved(view, what.account, what.region)
    unreserved = concurrency.account_limit(calls) - sum(shares.values())
    return Target(what, version, doc, shares.get(what.name), unreserved)


class Runner:
    """Handles events; an engine of the platform."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._hosts = Hosts(calls)
        self._sessions: dict[tuple[str, str], RoleSession] = {}

    def session(self, what: Named, role: str) -> RoleSession:
        """The function's role as the platform itself acts with it."""
        key = (what.function, role)
        found = self._sessions.pop(key, None)
        if found is None:
            found = RoleSession(
                self._calls, role, what.name, account=what.account, region=what.region, source_arn=what.function
            )
        self._sessions[key] = found
        if len(self._sessions) > _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        return found

    async def run(self, to: Target, call: Invocation) -> Outcome:
        """What comes of an event. Raises Refused as Lambda does where nothing of the function ran."""
        what, doc = to.what, to.doc
        held = doc.get("_variables")
        try:
            # Who disabled the key, or took it from the role, ends what runs with it: warm environments, too.
            role = await self.session(what, str(doc["Role"])).caller() if held and "key" in held else None
        except Refused:
            raise Refused(
                "KMSAccessDeniedException",
                "Lambda was unable to assume the function's role to decrypt its variables.",
                502,
            ) from None
        given = (
            await variables.for_role(self._calls, role, what.region, what.function, held)
            if role is not None and held is not None
            else variables.own(self._calls, held)
        )

        async def launch() -> Launched:
            return await self._hosts.launch(what, to.version, doc, given)

        account = f"{what.account}/{what.region}"
        groups: tuple[str, ...] = (what.function,)
        limits: tuple[int, ...] = (to.reserved if to.reserved is not None else to.unreserved,)
        if to.reserved is None:
            groups, limits = (*groups, account), (*limits, to.unreserved)
        functions = self._calls.engine(Functions)
        try:
            outcome = await functions.invoke(key_of(what, to.version, doc), launch, call, groups=groups, limits=limits)
        except Full as full:
            self._count(to, Throttles=1.0)
            raise concurrency.throttled(own=full.reserved and to.reserved is not None) from None
        except Unavailable as unavailable:
            raise Refused("ServiceException", str(unavailable), 500) from None
        self._count(to, Invocations=1.0, Errors=float(bool(outcome.error)))
        self._count(to, "Milliseconds", Duration=outcome.milliseconds)
        self._count(to, ConcurrentExecutions=float(functions.flying(what.function) + 1))
        return outcome

    def _count(self, to: Target, unit: str = "Count", **values: float) -> None:
        what, meter = to.what, self._calls.engine(Meter)
        name = ("FunctionName", what.name)
        places: list[Dimensions] = [(), (name,)]
        resource = f"{what.name}:{what.qualifier}" if what.qualifier else what.name
        places.append((name, ("Resource", resource)))
        if what.qualifier and what.qualifier != to.version:  # an alias may share its events between two
            places.append((("ExecutedVersion", to.version), name, ("Resource", resource)))
        for metric, value in values.items():
            for place in places:
                meter.record(what.account, what.region, _NAMESPACE, place, metric, value, unit)
