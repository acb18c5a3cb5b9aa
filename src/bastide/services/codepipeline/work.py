"""An action at work: its place in an execution, what it is configured with, whom it calls as, and what it made.

What an action knows is in its record in the execution's row, before anything follows from it; whoever takes it up after a
crash goes on from there. A call that begins something elsewhere leaves what it answered in that call's own transaction, so
that it is made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from bastide.domain import MICROS, Arn, Refused
from bastide.engines.workflow import reach
from bastide.kernel import Bytes, Calls, Output
from bastide.services.codepipeline import artifacts
from bastide.services.codepipeline.acting import DENIED, Actor, Denied
from bastide.services.codepipeline.bells import Bells, Listener
from bastide.services.codepipeline.noun import Doc, arn_of, execution, place, put
from bastide.services.codepipeline.variables import outputs
from bastide.store import Row, Transaction

T = TypeVar("T")
FIRST: Final = 0.05
"""Seconds after which something is looked at for the first time; then ever less often."""
LONGEST: Final = 10.0


class ActionFailed(Exception):  # noqa: N818
    """The action fails with a cause that its owner may read. code: as JobFailed's failure types have it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TimedOut(ActionFailed):
    """The action has taken longer than it may."""


class Abandoned(Exception):  # noqa: N818
    """Nobody waits for the action any more."""


class Gone(Exception):  # noqa: N818
    """The pipeline was removed."""


def cause(refused: Refused, what: str = "") -> ActionFailed:
    """Why an action fails, of a call that was refused; without the encoded message, which the record of the call has."""
    told = (
        f"{what}: {plain(refused.message)} ({refused.code})" if what else f"{plain(refused.message)} ({refused.code})"
    )
    denied = refused.code in DENIED or refused.code.startswith(("AccessDenied", "KMS.", "Kms"))
    return ActionFailed("PermissionError" if denied else "ConfigurationError", told)


def plain(message: str) -> str:
    """A refusal's words for people."""
    return message.partition(" Encoded authorization failure message:")[0]


class Work:
    """What the code of a provider works with. declared: the action as the pipeline has it; configuration: with its
    variables filled in; store: the artifact store; record: the action's record as it was read last."""

    def __init__(
        self,
        calls: Calls,
        bells: Bells,
        row: Row,
        stage: str,
        declared: Doc,
        store: Doc,
        actor: Actor,
        record: Doc,
        minutes: int,
    ) -> None:
        self.calls = calls
        self.bells = bells
        self.account, self.pipeline, self.region = place(row)
        self.arn = arn_of(row)
        self.execution = row.name
        self.stage = stage
        self.declared = declared
        self.store = store
        self.actor = actor
        self.record = record
        self.configuration: Mapping[str, str] = record["resolved"]
        self.ends = record["started"] + minutes * 60 * MICROS
        self.listener: Listener | None = None
        self.outputs: dict[str, str] = {}

    @property
    def id(self) -> str:
        """The action's execution id."""
        return str(self.record["id"])

    # -- the record --------------------------------------------------------------------------------------------------------

    def noted(self, tx: Transaction, known: Mapping[str, Any], extra: Callable[[Row], None] | None = None) -> None:
        """Puts what is known into the record, in a transaction of yours."""
        row = execution(tx, self.account, self.region, self.pipeline, self.execution)
        if row is None:
            return
        record = row.doc["stages"].get(self.stage, {}).get("actions", {}).get(self.declared["name"])
        if record is None or record["id"] != self.id:
            return
        record.update(known)
        record["updated"] = row.doc["updated"] = tx.now
        if extra is not None:
            extra(row)
        put(tx, row)

    async def note(self, **known: Any) -> None:
        """Keeps what is known now."""
        await self.calls.store.write(lambda tx: self.noted(tx, known))
        self.record.update(known)

    def row(self) -> Row:
        """The execution as it stands; raises Gone."""
        with self.calls.store.reading() as view:
            row = execution(view, self.account, self.region, self.pipeline, self.execution)
        if row is None:
            raise Gone
        return row

    async def begin(
        self,
        service: str,
        operation: str,
        given: Mapping[str, Any],
        tell: Callable[[Output], Mapping[str, Any]],
        *,
        body: Any = None,
        extra: Callable[[Row, Output], None] | None = None,
    ) -> None:
        """A call that changes something, once: what `tell` makes of its answer is in the record with it. Raises Refused."""
        reach(f"release/{operation}:before")
        told: dict[str, Any] = {}

        def also(tx: Transaction, output: Output) -> None:
            told.clear()
            told.update(tell(output))
            self.noted(tx, told, None if extra is None else lambda row: extra(row, output))

        await self.actor.act(service, operation, given, also=also, body=body)
        self.record.update(told)
        reach(f"release/{operation}:after")

    # -- waiting -----------------------------------------------------------------------------------------------------------

    async def pause(self, seconds: float) -> None:
        """Until something rings, or some time went by. Raises Abandoned when the execution is given up, and ActionFailed
        when the action's time is over."""
        assert self.listener is not None
        now = self.calls.clock()
        await self.listener.wait(max(0.0, min(seconds, (self.ends - now) / MICROS)))
        row = self.row()
        stop = row.doc.get("stop") or {}
        if row.doc.get("cancelled") or stop.get("abandon"):
            raise Abandoned
        if self.calls.clock() >= self.ends:
            raise TimedOut("JobFailed", "The action has taken longer than it may, and timed out.")

    async def until(self, look: Callable[[], Awaitable[T | None]], *keys: str) -> T:
        """What `look` finds, once it finds something. keys: names of what is waited for, which may ring."""
        assert self.listener is not None
        self.listener.hear(*keys)
        seconds = FIRST
        while True:
            self.listener.clear()
            found = await look()
            if found is not None:
                return found
            await self.pause(seconds)
            seconds = min(seconds * 1.7, LONGEST)

    # -- artifacts ---------------------------------------------------------------------------------------------------------

    def located(self, name: str) -> Doc:
        """Where an artifact lies, and its digest; raises ActionFailed."""
        held: Doc | None = self.row().doc["artifacts"].get(name)
        if held is None:
            raise ActionFailed(
                "ConfigurationError", f"There is no artifact {name}: nothing has made it in this execution."
            )
        return held

    async def _body(self, name: str, held: Doc) -> Any:
        try:
            output = await self.actor.act("s3", "GetObject", {"Bucket": held["bucket"], "Key": held["key"]})
        except Refused as refused:
            raise cause(refused, self._named(name, held)) from None
        return output["Body"]

    @staticmethod
    def _named(name: str, held: Doc) -> str:
        return f"The artifact {name} (s3://{held['bucket']}/{held['key']}) cannot be read"

    def _pinned(self, name: str, held: Doc, digest: str) -> None:
        if digest != held["sha256"]:
            raise ActionFailed(
                "RevisionOutOfSync",
                f"The artifact {name} (s3://{held['bucket']}/{held['key']}) is not what the action {held['by']} made: its "
                f"SHA-256 is {digest[:16]}..., and was {held['sha256'][:16]}....",
            )

    async def read(self, name: str) -> bytes:
        """An input artifact, whole and unchanged since it was made; raises ActionFailed. Whoever calls has `bells.room`."""
        if name not in [one["name"] for one in self.declared["inputArtifacts"]]:
            raise ActionFailed("ConfigurationError", f"{name[:100]} is no input artifact of the action.")
        held = self.located(name)
        try:
            data, digest = await artifacts.whole(await self._body(name, held))
        except artifacts.Broken as broken:
            raise ActionFailed("ConfigurationError", f"{self._named(name, held)}: {broken}.") from None
        self._pinned(name, held, digest)
        return data

    async def file(self, name: str, path: str, most: int) -> bytes:
        """A file of an input artifact; raises ActionFailed."""
        async with self.bells.room:
            data = await self.read(name)
            try:
                return await asyncio.to_thread(artifacts.member, data, path, most)
            except artifacts.Broken as broken:
                raise ActionFailed(
                    "ConfigurationError", f"{self._named(name, self.located(name))}: {broken}."
                ) from None

    async def verify(self, name: str) -> Doc:
        """Where an artifact lies that somebody else is to read, if it is unchanged; raises ActionFailed."""
        held = self.located(name)
        self._pinned(name, held, await artifacts.digest_of(await self._body(name, held)))
        return held

    async def place_for(self, name: str) -> tuple[str, str]:
        """Bucket and key that an output artifact of this action has, before it is there."""
        keys: dict[str, str] = dict(self.record.get("keys") or {})
        if name not in keys:
            keys[name] = artifacts.new_key(self.pipeline, name)
            await self.note(keys=keys)
        return str(self.store["location"]), keys[name]

    def _register(self, name: str, bucket: str, key: str, digest: str) -> Callable[[Row], None]:
        def work(row: Row) -> None:
            row.doc["artifacts"][name] = {
                "bucket": bucket, "key": key, "sha256": digest, "by": self.declared["name"],
            }  # fmt: skip

        return work

    async def put(self, name: str, body: artifacts.Piped | bytes) -> None:
        """Writes an output artifact, once; raises ActionFailed."""
        bucket, key = await self.place_for(name)
        if name in (self.record.get("made") or ()):
            return
        piped = body if isinstance(body, artifacts.Piped) else artifacts.Piped(Bytes(body).chunks(), len(body))
        made = [*(self.record.get("made") or ()), name]
        given = {"Bucket": bucket, "Key": key, "ContentType": "application/zip", **artifacts.sealed(self.store)}
        try:
            await self.begin(
                "s3",
                "PutObject",
                given,
                lambda _: {"made": made},
                body=piped,
                extra=lambda row, _: self._register(name, bucket, key, piped.digest)(row),
            )
        except Refused as refused:
            raise cause(refused, f"The artifact {name} cannot be written to s3://{bucket}/{key}") from None

    async def adopt(self, name: str, digest: str = "") -> None:
        """Pins an output artifact that somebody else wrote. digest: the SHA-256 that they tell of it."""
        bucket, key = await self.place_for(name)
        held = {"bucket": bucket, "key": key}
        found = await artifacts.digest_of(await self._body(name, held))
        if digest and digest != found:
            raise ActionFailed(
                "RevisionOutOfSync", f"The artifact {name} (s3://{bucket}/{key}) is not what was written there."
            )
        made = [*(self.record.get("made") or ()), name]
        register = self._register(name, bucket, key, found)
        await self.calls.store.write(lambda tx: self.noted(tx, {"made": made}, register))
        self.record["made"] = made

    async def revision(
        self, artifact: str, id: str, *, summary: str = "", url: str = "", created: int | None = None
    ) -> None:
        """Notes which revision of a source the execution runs with."""
        told = {"action": self.declared["name"], "artifact": artifact, "id": id, "summary": summary[:2048], "url": url,
                "created": created}  # fmt: skip

        def extra(row: Row) -> None:
            row.doc["revisions"] = [one for one in row.doc["revisions"] if one["action"] != told["action"]] + [told]

        await self.calls.store.write(lambda tx: self.noted(tx, {"revision": id}, extra))

    def publish(self, **values: Any) -> None:
        """Variables that the action gives to its namespace when it succeeds."""
        self.outputs.update(outputs(values))

    def arn_in(self, text: str) -> Arn:
        """An ARN of the configuration; raises ActionFailed."""
        try:
            return Arn.parse(text)
        except ValueError:
            raise ActionFailed("ConfigurationError", f"`{text[:200]}` is not an ARN.") from None


def denied(error: Denied) -> ActionFailed:
    """Why an action fails whose role cannot be taken on."""
    return ActionFailed("PermissionError", plain(str(error)))
