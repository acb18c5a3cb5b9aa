"""The corridor that every call walks, from whoever asks: the front door, another service, a workflow.

authorise -> handle -> record, in one transaction where something changes. There is no other way to a handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from bastide.domain import Clock, Refused, timed_id, wall
from bastide.kernel import audit
from bastide.kernel.authorise import authorise
from bastide.kernel.call import Authorised, Body, Call, Request
from bastide.kernel.identity import Caller, Directory, Network, Organisation, Sealer, Sessions, service_caller
from bastide.kernel.kind import Operation, Output, Prepare, Registry
from bastide.protocol import codec
from bastide.store import Event, Journal, Store, Transaction, View

T = TypeVar("T")


class Unforeseen(Exception):  # noqa: N818
    """A handler failed in a way nobody planned; the record has been written."""


class Calls:
    """Runs calls. `engines` maps a port to what was composed behind it."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        registry: Registry,
        directory: Directory,
        organisation: Organisation,
        network: Network,
        sessions: Sessions,
        sealer: Sealer,
        engines: Mapping[type, object],
        home: str,
        clock: Clock = wall,
    ) -> None:
        self.store = store
        self.journal = journal
        self.registry = registry
        self.directory = directory
        self.organisation = organisation
        self.network = network
        self.sessions = sessions
        self.sealer = sealer
        self.home = home
        self.clock = clock
        self._engines = engines

    def engine(self, port: type[T]) -> T:
        """What stands behind a port; raises KeyError if it was not composed."""
        return cast(T, self._engines[port])

    def source(self, operation: Operation) -> str:
        """CloudTrail's eventSource of an operation."""
        return self.registry.services[operation.service].event_source

    # -- running -------------------------------------------------------------------------------------------------------

    async def run(self, call: Call) -> Output:
        """Authorises, handles and records a call; returns its output once everything it did is on the disk.

        Raises Refused, after the refusal was recorded on the disk, and Unforeseen for a fault of ours.
        """
        operation = call.operation
        self.directory.used(call.caller, self.registry.services[operation.service].prefix, call.region, call.request.at)
        if operation.prepare is not None:
            await self._prepare(call, operation.prepare)
        if operation.before is None and operation.after is None:
            if operation.mutates:
                return await self._write(call, None)
            return await self._read(call)
        return await self._staged(call)

    async def _prepare(self, call: Call, prepare: Prepare) -> None:
        try:
            await prepare(self, call)
        except Refused as refused:
            await self.refuse(call, refused)
            raise
        except Exception as error:
            events: list[Event] = []
            failed = self._unforeseen(call, events, error)
            await self._record(events)
            raise failed from error

    async def _read(self, call: Call) -> Output:
        events: list[Event] = []
        a: Authorised | None = None
        with self.store.reading() as view:
            try:
                a = self._authorise(view, call, events)
                output = call.operation.handle(a, view)
                events += self._told(call, a, output, None)
            except Refused as refused:
                events += self._told(call, a, None, refused)
                failed: Exception = refused
            except Exception as error:
                failed = self._unforeseen(call, events, error)
            else:
                self.journal.append(events)
                return output
        await self._record(events)
        raise failed

    async def _write(self, call: Call, first: Authorised | None) -> Output:
        def work(tx: Transaction) -> tuple[Output | None, Exception | None]:
            events: list[Event] = []
            failed: Exception | None = None
            output: Output | None = None
            a: Authorised | None = None
            try:
                with tx.savepoint():
                    if first is not None and first.seen == tx.changes:
                        # Nothing was written since the questions were answered: the same answers, without asking.
                        a = first
                        a.events = events
                    else:
                        a = self._authorise(tx, call, events)
                        if first is not None:
                            a.staged = first.staged
                    output = call.operation.handle(a, tx)
                    if call.also is not None:
                        call.also(tx, output)
                    events += self._told(call, a, output, None)
            except Refused as refused:
                # What was allowed on the way is undone; that it was asked stays on record.
                events += self._told(call, a, None, refused)
                failed = refused
            except Exception as error:
                failed = self._unforeseen(call, events, error)
            tx.record(events)
            return output, failed

        output, failed = await self.store.write(work)
        if failed is not None:
            raise failed
        assert output is not None
        return output

    async def _staged(self, call: Call) -> Output:
        operation = call.operation
        events: list[Event] = []
        a: Authorised | None = None
        try:
            with self.store.reading() as view:
                a = self._authorise(view, call, events)
            if operation.before is not None:
                a.staged = await operation.before(a)
        except Refused as refused:
            events += self._told(call, a, None, refused)
            await self._record(events)
            raise
        except Exception as error:
            failed = self._unforeseen(call, events, error)
            await self._record(events)
            raise failed from error
        if operation.mutates:
            try:
                output = await self._write(call, a)
            except BaseException:
                if operation.undo is not None:
                    await operation.undo(a)
                raise
            return output if operation.after is None else await operation.after(a, output)
        try:
            with self.store.reading() as view:
                output = operation.handle(a, view)
            if operation.after is not None:
                output = await operation.after(a, output)
        except Refused as refused:
            await self._record(events + self._told(call, a, None, refused))
            raise
        except Exception as error:
            failed = self._unforeseen(call, events, error)
            await self._record(events)
            raise failed from error
        self.journal.append(events + self._told(call, a, output, None))
        return output

    def _authorise(self, view: View, call: Call, events: list[Event]) -> Authorised:
        if call.operation.identify is not None:
            call.caller = call.operation.identify(self, view, call)
            call.account = call.caller.account
        a = authorise(self, view, call)
        a.events = events
        a.seen = view.changes
        return a

    def _told(self, call: Call, a: Authorised | None, output: Output | None, refused: Refused | None) -> list[Event]:
        return audit.entries(
            call,
            self.source(call.operation),
            self.home,
            questions=a.questions if a is not None else (),
            touched=a.touched if a is not None else (),
            output=output,
            refused=refused,
        )

    def _unforeseen(self, call: Call, events: list[Event], error: Exception) -> Exception:
        events += self._told(call, None, None, Refused("InternalFailure", "An internal error occurred.", 500))
        found = Unforeseen(f"{call.operation.service}:{call.operation.name} {call.request.id}")
        found.__cause__ = error
        return found

    async def _record(self, events: Sequence[Event]) -> None:
        if events:
            await self.store.write(lambda tx: tx.record(events))

    async def refuse(self, call: Call, refused: Refused) -> None:
        """Records a call that was refused before its questions could be asked; on the disk when this returns."""
        await self._record(self._told(call, None, None, refused))

    # -- one service calls another ---------------------------------------------------------------------------------------

    def forward(
        self,
        a: Authorised,
        view: View,
        service: str,
        operation: str,
        input: dict[str, Any],
        via: str,
        context: Mapping[str, str | tuple[str, ...]],
        *,
        caller: Caller | None = None,
    ) -> Output:
        """Calls another service for `a`'s caller within the same view (see `Authorised.forward`).

        caller: a service acting by itself instead (`service_caller`), in the account that it names.
        """
        held = self.registry.operations[service, operation]
        call = Call(
            held,
            input,
            caller or a.caller,
            caller.account if caller is not None else a.account,
            a.region,
            replace(a.request, via=(*a.request.via, via), protocol=self._protocol(service)),
            context={key.replace("__", ":").lower(): value for key, value in context.items()},
        )
        try:
            inner = self._authorise(view, call, a.events)
            output = held.handle(inner, view)
        except Refused as refused:
            a.events += self._told(call, None, None, refused)
            raise
        a.events += self._told(call, inner, output, None)
        return output

    async def act(
        self,
        caller: Caller,
        service: str,
        operation: str,
        input: dict[str, Any],
        *,
        region: str,
        source: str,
        body: Body | None = None,
        context: Mapping[str, str | tuple[str, ...]] | None = None,
        vpce: str = "",
        via: tuple[str, ...] = (),
        prepared: Any = None,
        also: Callable[[Transaction, Output], None] | None = None,
    ) -> Output:
        """A call by `caller` that came over no wire: a workflow acting with a role's session, a service by itself.

        source: the service on whose behalf, which the record names as address. vpce: the VPC endpoint whose way it is to
        go. via: services that forward the caller's own session, as ``aws:CalledVia``. prepared, also: as the call's
        (`Call`); what changes nothing knows no `also`. Raises Refused as the operation does.
        """
        held = self.registry.operations[service, operation]
        now = self.clock()
        request = Request(timed_id(now), now, source, source, True, self._protocol(service), vpce=vpce, via=via)
        where = "us-east-1" if held.global_ else region
        given = dict(context or {})
        return await self.run(
            Call(held, input, caller, caller.account, where, request, body, given, prepared=prepared, also=also)
        )

    async def issue(
        self,
        service: str,
        role_arn: str,
        session_name: str,
        *,
        account: str,
        region: str,
        seconds: int = 3600,
        source_arn: str = "",
        **more: Any,
    ) -> Output:
        """Credentials, as STS has them, of a session of a role that trusts a service, which takes it on for something in
        `account` (`source_arn`, if it has a name). more: further members of AssumeRole.

        Raises Refused when the role's trust policy does not let it.
        """
        output = await self.act(
            service_caller(service, account, source_arn),
            "sts",
            "AssumeRole",
            {"RoleArn": role_arn, "RoleSessionName": session_name, "DurationSeconds": seconds, **more},
            region=region,
            source=service,
        )
        issued: Output = output["Credentials"]
        return issued

    async def assume(
        self,
        service: str,
        role_arn: str,
        session_name: str,
        *,
        account: str,
        region: str,
        seconds: int = 3600,
        source_arn: str = "",
    ) -> Caller:
        """The same; returns the session's caller."""
        where = {"account": account, "region": region, "source_arn": source_arn}
        return self.holder(await self.issue(service, role_arn, session_name, seconds=seconds, **where), role_arn)

    async def chain(
        self, first: Caller, role_arn: str, session_name: str, *, region: str, source: str, **more: Any
    ) -> Caller:
        """Takes on a further role with a session's caller; returns the new session's. source: the service on whose behalf.
        more: further members of AssumeRole.

        Raises Refused when the first may not, or the role's trust policy does not let it.
        """
        asked = {"RoleArn": role_arn, "RoleSessionName": session_name, **more}
        output = await self.act(first, "sts", "AssumeRole", asked, region=region, source=source)
        return self.holder(output["Credentials"], role_arn)

    def holder(self, issued: Mapping[str, Any], role_arn: str) -> Caller:
        """Whoever holds credentials that STS issued for a role; raises Refused when the role is gone meanwhile."""
        session, _ = self.sessions.read(issued["SessionToken"], issued["AccessKeyId"], self.clock())
        with self.store.reading() as view:
            caller = self.directory.by_session(view, session)
        if caller is None:
            raise Refused("AccessDenied", f"The role {role_arn} is gone.", 403)
        return caller

    @staticmethod
    def _protocol(service: str) -> str:
        return str(codec(service).protocol)
