"""Runs executions: takes what is ready from transition to transition, keeps each with its history in one transaction, makes
the calls, waits.

One runner a process. An execution in memory is a copy of its row: whoever changes the row meanwhile (StopExecution) wins,
and the copy is dropped. A call is made once its event is on the disk; a call that changes something leaves its answer in
the transaction in which it does, so that a process which dies in between does not make it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable
from typing import Any, Final

from bastide.domain import MICROS, Arn, Instant, Refused
from bastide.engines.asl.confined import Confined
from bastide.engines.asl.frame import Frame, Memory
from bastide.engines.asl.interpreter import About, Interpreter
from bastide.engines.asl.values import loads
from bastide.engines.telemetry import Meter
from bastide.engines.workflow import reach
from bastide.kernel import Calls
from bastide.kernel.outbox import Outbox
from bastide.services.states import keeping, tasks
from bastide.services.states.holding import Holding, Machine
from bastide.services.states.logs import Logs
from bastide.services.states.noun import RUN, account_of, execution_arn, machine_arn, place
from bastide.services.states.sealing import Cipher
from bastide.services.states.tasks import Failed
from bastide.store import Row, Stale, Taken, Transaction

_log = logging.getLogger("bastide.states")
_MOST_CALLS: Final = 512
_SLICE: Final = 200
_PAUSE_SECONDS: Final = 15.0
_IDLE: Final = 60 * MICROS
Mail = Callable[[Interpreter, Instant], Any]
AGAIN: Final[list[Callable[[Executions, Row], Any]]] = []
"""How an express execution is begun anew, which stands above this module."""


class Live:
    """An execution in this process. row: None of an express one, which is kept nowhere."""

    def __init__(self, arn: str, row: Row | None, machine: Machine, m: Interpreter, cipher: Cipher) -> None:
        self.arn = arn
        self.row = row
        self.machine = machine
        self.m = m
        self.cipher = cipher
        self.mail: list[Mail] = []
        self.letters: list[str] = []
        """Names of inbox rows whose content is applied, to be removed with the next transaction."""
        self.flying: dict[int, asyncio.Task[None]] = {}
        self.task: asyncio.Task[None] | None = None
        self.resumed: set[int] = set()
        self.begun: set[int] = set()
        self.dropped = False
        self.over = asyncio.Event()
        self.logs: Logs | None = None

    @property
    def machine_arn(self) -> str:
        return self.m.about.machine


class Executions(Holding):
    """The runner, an engine behind the port of this name."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self.live: dict[str, Live] = {}
        self.evaluate = Confined()
        self.jobs: dict[str, tuple[str, int]] = {}
        """What a task waits for the end of: ARN of a job or an execution, and who waits."""
        self.activities = asyncio.Condition()
        self._due: list[tuple[Instant, str]] = []
        self._more = asyncio.Event()
        self._room = asyncio.Semaphore(_MOST_CALLS)
        self._timer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asides: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._kept = 0
        """Transactions of executions in this process: where the crash tests end it."""

    # -- beginning and ending --------------------------------------------------------------------------------------------

    def subscribe(self, outbox: Outbox) -> None:
        """Jobs whose ends tasks wait for."""
        for topic in tasks.TOPICS:
            outbox.subscribe(topic, self._heard)
        outbox.subscribe(tasks.GIVE_UP, self._given_up)

    async def _given_up(self, job: dict[str, Any]) -> None:
        self.aside(tasks.stop(self, job))

    async def _heard(self, body: dict[str, Any]) -> None:
        if body["arn"] in self.jobs and (body["status"] in tasks.ENDED or body["event"].startswith("Delete")):
            self.job_over(body["arn"])

    def job_over(self, arn: str) -> None:
        """What a task waits for has ended."""
        waiting = self.jobs.pop(arn, None)
        if waiting is None:
            return
        live = self.live.get(waiting[0])
        frame = live.m.under_way(waiting[1]) if live is not None else None
        if live is not None and frame is not None:
            self._fly(live, frame, tasks.look)
        elif live is None:
            self.aside(self.take_up(waiting[0]))

    async def start(self) -> None:
        """Takes up what an earlier process left."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.create_task(self._timing())
        after: str | None = None
        while True:
            with self.calls.store.reading() as view:
                rows = view.scan(keeping.LIVE, "", "", after=after, limit=500)
            for row in rows:
                self.aside(self.resume(row))
            if len(rows) < 500:
                return
            after = rows[-1].name

    async def resume(self, live: Row) -> None:
        """An execution that an earlier process ran goes on; an express one from its beginning."""
        if "express" in live.doc:
            await AGAIN[0](self, live)
            return
        await self.take_up(live.name)

    def soon(self, work: Callable[..., Any], *given: Any) -> None:
        """Has the event loop do something next; also from the thread on which transitions are made."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(work, *given)

    def aside(self, work: Any) -> asyncio.Task[Any]:
        """Does something beside."""
        task = asyncio.get_running_loop().create_task(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)
        task.add_done_callback(_tell_fault)
        return task

    async def close(self) -> None:
        """Stops; whatever runs is taken up by the next start."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        lives = list(self.live.values())
        stopping = [one for live in lives for one in (live.task, *live.flying.values()) if one is not None]
        for task in (*stopping, *self._asides):
            task.cancel()
        await asyncio.gather(*stopping, *self._asides, return_exceptions=True)
        for live in lives:
            if live.logs is not None:
                await live.logs.close()
        self.evaluate.close()

    # -- taking up -------------------------------------------------------------------------------------------------------

    async def take_up(self, arn: str) -> None:
        """Reads an execution from its row, if it is not in memory, and goes on with it."""
        if arn in self.live or self._closing:
            if arn in self.live:
                self.drive(self.live[arn])
            return
        with self.calls.store.reading() as view:
            row = view.get(RUN, *place(arn))
        if row is None or row.status != "RUNNING":
            return
        try:
            live = await self._load(arn, row)
        except Refused as refused:
            _log.warning("the execution %s stands still, its key cannot be used: %s", arn, refused.code)
            self._later(arn, self.calls.clock() + int(_PAUSE_SECONDS * MICROS))
            return
        if arn in self.live:
            return
        self.live[arn] = live
        self._letters(live)
        for frame in live.m.memory.frames.values():
            if frame.phase == "task":
                live.resumed.add(frame.serial)
                self._begin(live, frame)
        self.drive(live)

    async def _load(self, arn: str, row: Row) -> Live:
        account, name = account_of(row)
        where = machine_arn(account, row.region, name)
        machine = await self.machine(account, row.region, row.doc["revision"], row.doc["role"])
        configuration = machine.doc["encryptionConfiguration"]
        seconds = int(configuration.get("kmsDataKeyReusePeriodSeconds") or 300)
        cipher = await self.cipher(where, row.doc["role"], row.doc["key"], seconds)
        with self.calls.store.reading() as view:
            text = keeping.input_of(view, row, cipher)
        memory = Memory.read(cipher.read(row.doc["state"]))
        about = self.about(row, text)
        m = Interpreter(machine.definition, memory, about, self.evaluate, lambda f, s: self.token(arn, s))
        return self.logged(Live(arn, row, machine, m, cipher))

    def about(self, row: Row, text: str) -> About:
        """What the context object tells of an execution."""
        account, name = account_of(row)
        where = machine_arn(account, row.region, name)
        arn = execution_arn(row)
        return About(arn, row.name, row.doc["role"], row.doc["start"], where, name, loads(text), text, row.region)

    def token(self, arn: str, serial: int) -> str:
        """The token of a task, which nobody else can make."""
        return self.calls.sealer.seal(f"{arn}|{serial}".encode(), "states-task")

    def logged(self, live: Live) -> Live:
        """With what writes its log, if its machine has one."""
        configuration = live.machine.doc.get("loggingConfiguration") or {}
        if configuration.get("level", "OFF") != "OFF" and configuration.get("destinations"):
            live.logs = Logs(self, live.m.about, live.machine.doc["roleArn"], configuration)
        return live

    # -- going on --------------------------------------------------------------------------------------------------------

    def poke(self, arn: str) -> None:
        """Something lies in an execution's inbox."""
        live = self.live.get(arn)
        if live is None:
            self.aside(self.take_up(arn))
            return
        self._letters(live)
        self.drive(live)

    def _letters(self, live: Live) -> None:
        with self.calls.store.reading() as view:
            rows = view.scan(keeping.INBOX, "", "", prefix=f"{live.arn}|", limit=1000)
        for row in rows:
            if row.name not in live.letters:
                live.letters.append(row.name)
                live.mail.append(tasks.letter(live.cipher.read(row.doc["sealed"])))

    def drive(self, live: Live) -> None:
        """Goes on with an execution, unless that is being done."""
        if live.task is None and not live.dropped and not self._closing:
            live.task = asyncio.get_running_loop().create_task(self._driving(live), name=f"execution {live.arn}")

    async def _driving(self, live: Live) -> None:
        m = live.m
        try:
            while not live.dropped:
                mail, live.mail = live.mail, []
                if live.machine.heavy:
                    await asyncio.to_thread(self._slice, live, mail)
                else:
                    self._slice(live, mail)
                events, m.events = m.events, []
                effects, m.effects = m.effects, []
                if events or effects or mail:
                    try:
                        await self._keep(live, events, effects)
                    except keeping.TooLarge:
                        m.too_large()
                        events, effects = events + m.events, effects + m.effects
                        m.events, m.effects = [], []
                        await self._keep(live, events, effects)
                self._after(live, events, effects)
                if m.memory.status != "RUNNING":
                    await self._over(live)
                    return
                if not m.busy and not live.mail:
                    break
            due = m.due()
            if due is not None:
                self._later(live.arn, due)
            self._rest(live, due)
        except _Lost:
            self.drop(live)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("the execution %s stands still for a while", live.arn)
            self.drop(live)
            self._later(live.arn, self.calls.clock() + int(_PAUSE_SECONDS * MICROS))
        finally:
            live.task = None
            if live.mail and not live.dropped and m.memory.status == "RUNNING":
                self.drive(live)

    def _slice(self, live: Live, mail: list[Mail]) -> None:
        now = self.calls.clock()
        for letter in mail:
            letter(live.m, now)
        live.m.advance(now, _SLICE)

    async def _keep(self, live: Live, events: list[dict[str, Any]], effects: list[tuple[str, int]]) -> None:
        if live.row is None:
            return
        m, letters = live.m, list(live.letters)
        waiting = {frame.serial for frame in m.memory.frames.values() if frame.phase == "task"}
        done = live.begun - waiting if m.memory.status == "RUNNING" else set(live.begun)
        self._kept += 1
        number = self._kept
        reach(f"states/{number}:before")

        def work(tx: Transaction) -> Row:
            assert live.row is not None
            row = tx.get(RUN, live.row.account, live.row.region, live.row.name)
            if row is None or row.generation != live.row.generation:
                raise _Lost
            keeping.keep(tx, row, m.memory, events, live.cipher, tx.now)
            for name in letters:
                held = tx.get(keeping.INBOX, "", "", name)
                if held is not None:
                    tx.delete(held, keep=False)
            tasks.callbacks(tx, live.arn, m, effects, live.cipher, row)
            for serial in done:
                tx.drop_blob(keeping.receipt(row, serial))
            if m.memory.status != "RUNNING":
                self.ended(tx, row, m)
            try:
                tx.update(row, keep=False)
            except Stale:
                raise _Lost from None
            return row

        live.row = await self.calls.store.write(work)
        live.letters = [name for name in live.letters if name not in letters]
        live.begun -= done
        reach(f"states/{number}:after")

    def ended(self, tx: Transaction, row: Row, m: Interpreter) -> None:
        """An execution is over: it runs no more, and EventBridge is told."""
        held = tx.get(keeping.LIVE, "", "", execution_arn(row))
        if held is not None:
            tx.delete(held, keep=False)
        tasks.forget_all(tx, execution_arn(row))
        if m.memory.status == "SUCCEEDED":
            m.memory.frames.clear()
        memory = m.memory
        told = {"input": m.about.text, "output": memory.output, "error": memory.error, "cause": memory.cause}
        keeping.status_event(tx, row, told)
        if row.doc.get("run"):
            tasks.BY_MAP["child_over"](tx, row, m)

    def _after(self, live: Live, events: list[dict[str, Any]], effects: list[tuple[str, int]]) -> None:
        if live.logs is not None:
            live.logs.add(events)
        for name, which in effects:
            if name == "end":
                flying = live.flying.pop(which, None)
                if flying is not None:
                    flying.cancel()
                tasks.give_up(self, live, which)
            elif name == "call" and (frame := live.m.memory.frames.get(which)) is not None and frame.phase == "task":
                self._begin(live, frame)
        if any(event["type"] == "ActivityScheduled" for event in events):
            self.aside(self._tell_workers())

    async def _tell_workers(self) -> None:
        async with self.activities:
            self.activities.notify_all()

    def _begin(self, live: Live, frame: Frame) -> None:
        live.begun.add(frame.serial)
        self._fly(live, frame, tasks.make)

    def _fly(self, live: Live, frame: Frame, work: Any) -> None:
        serial = frame.serial
        flying = asyncio.get_running_loop().create_task(self._flying(live, frame, serial, work))
        live.flying[serial] = flying

        def gone(done: asyncio.Task[None]) -> None:
            if live.flying.get(serial) is done:
                del live.flying[serial]

        flying.add_done_callback(gone)

    async def _flying(self, live: Live, frame: Frame, serial: int, work: Any) -> None:
        letter: Mail | None
        try:
            async with self._room:
                letter = await work(self, live, frame)
        except Failed as failed:
            error, cause = failed.error, failed.cause
            letter = lambda m, now: m.failed(serial, now, error, cause)  # noqa: E731
        except asyncio.CancelledError:
            raise
        except Exception as fault:
            _log.exception("a task of %s failed", live.arn)
            said = f"An internal error occurred ({type(fault).__name__})."
            letter = lambda m, now: m.failed(serial, now, "States.TaskFailed", said)  # noqa: E731
        if letter is not None:
            self.post(live, letter)

    def post(self, live: Live, letter: Mail) -> None:
        """Tells an execution something of this process."""
        live.mail.append(letter)
        self.drive(live)

    async def _over(self, live: Live) -> None:
        self.drop(live)
        self.measure(live)
        if live.logs is not None:
            self.aside(live.logs.close())
        self.job_over(live.arn)
        if live.row is not None and live.row.doc.get("run"):
            self.aside(tasks.BY_MAP["step"](self, live.row.doc["run"]))
        if live.row is None:
            await self.forget_express(live.arn)

    async def forget_express(self, arn: str) -> None:
        """Nothing is kept of an express execution that is over."""

        def work(tx: Transaction) -> None:
            held = tx.get(keeping.LIVE, "", "", arn)
            if held is not None:
                tx.delete(held, keep=False)

        with self.calls.store.reading() as view:
            known = view.get(keeping.LIVE, "", "", arn)
        if known is not None:
            await self.calls.store.write(work)

    def measure(self, live: Live) -> None:
        """Metrics of an execution that is over. Source: developer guide, "Step Functions metrics"."""
        status = live.m.memory.status
        name = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "TIMED_OUT": "TimedOut", "ABORTED": "Aborted"}[status]
        self.count(live.machine_arn, f"Executions{name}")
        took = (live.m.now - live.m.about.started) / 1000
        self.count(live.machine_arn, "ExecutionTime", took, "Milliseconds")

    def count(self, machine: str, name: str, value: float = 1.0, unit: str = "Count") -> None:
        """One value of a state machine's metrics."""
        arn = Arn.parse(machine)
        meter = self.calls.engine(Meter)
        meter.record(arn.account, arn.region, "AWS/States", (("StateMachineArn", machine),), name, value, unit)

    def drop(self, live: Live) -> None:
        """It is in memory no more."""
        live.dropped = True
        if self.live.get(live.arn) is live:
            del self.live[live.arn]
        for flying in list(live.flying.values()):
            if flying is not asyncio.current_task():
                flying.cancel()
        live.over.set()

    def stopped(self, arn: str) -> None:
        """Somebody ended it in its row."""
        live = self.live.get(arn)
        if live is not None:
            for frame in list(live.m.memory.frames.values()):
                if frame.phase == "task":
                    tasks.give_up(self, live, frame.serial)
            self.drop(live)
            if live.logs is not None:
                self.aside(live.logs.close())
        self.job_over(arn)

    # -- time ------------------------------------------------------------------------------------------------------------

    def _rest(self, live: Live, due: Instant | None) -> None:
        """What only waits, and for long, is a row and no more."""
        if live.row is None or live.flying or live.mail or any(one[0] == live.arn for one in self.jobs.values()):
            return
        if due is None or due > self.calls.clock() + _IDLE:
            self.drop(live)

    def _later(self, arn: str, due: Instant) -> None:
        heapq.heappush(self._due, (due, arn))
        self._more.set()

    async def _timing(self) -> None:
        while True:
            self._more.clear()
            now = self.calls.clock()
            while self._due and self._due[0][0] <= now:
                _, arn = heapq.heappop(self._due)
                live = self.live.get(arn)
                if live is not None:
                    self.drive(live)
                else:
                    self.aside(self.take_up(arn))
            wait = min((self._due[0][0] - now) / MICROS, 1.0) if self._due else 1.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), max(wait, 0.001))


class _Lost(Exception):  # noqa: N818
    """The row was changed by somebody else."""


def _tell_fault(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("something beside executions failed", exc_info=error)


def begin_live(tx: Transaction, arn: str, doc: dict[str, Any]) -> None:
    """An execution runs from now on, whatever process dies."""
    with contextlib.suppress(Taken):
        tx.insert(Row(keeping.LIVE, "", "", arn, doc), keep=False)
