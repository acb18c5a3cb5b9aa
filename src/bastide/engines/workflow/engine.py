"""Takes up what is due, runs it step by step, and keeps every transition."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from bastide.domain import MICROS, Clock, Instant, Refused
from bastide.engines.workflow.flow import Failed, Failure, Flow, Run, Step, Wait
from bastide.engines.workflow.points import reach
from bastide.store import Store, Transaction

_FAR: Instant = 1 << 62
_LONGEST_BACK_OFF = 60

_log = logging.getLogger("bastide.workflow")


class _Lost(Exception):  # noqa: N818
    """Somebody else has the lease: nothing more may be written."""


class _Driven:
    """An execution that this process runs."""

    __slots__ = ("lost", "run", "task")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.lost = False


def _free(found: dict[str, Any]) -> None:
    """Nobody has the execution, and what a process held for it is let go of."""
    found["owner"], found["lease"], found["doc"]["process"] = "", 0, ""


class Workflows:
    """Runs flows. One instance a process; several processes may share a store, each with its own instance."""

    def __init__(self, store: Store, clock: Clock, flows: Iterable[Flow] = (), *, lease_seconds: float = 30.0) -> None:
        """lease_seconds: how long after a process fell silent another takes over what it ran."""
        self.owner = uuid.uuid4().hex
        self._store = store
        self._clock = clock
        self._lease = int(lease_seconds * MICROS)
        self._flows: dict[str, Flow] = {}
        self._driven: dict[str, _Driven] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.add(*flows)

    def add(self, *flows: Flow) -> None:
        """Further flows; before `run`."""
        for flow in flows:
            if flow.name in self._flows:
                raise ValueError(f"there are two flows {flow.name}")
            self._flows[flow.name] = flow

    # -- starting and telling ------------------------------------------------------------------------------------------

    def start(self, tx: Transaction, flow: str, id: str, state: dict[str, Any]) -> bool:
        """Starts an execution in a transaction of yours; `wake` when that is on the disk. An id that is there already
        is found, running or ended, and left alone: then the answer is False."""
        if tx.execution(id) is not None:
            return False
        first = self._flows[flow].steps[0].name
        doc = {"state": state, "failure": None, "signals": {}, "process": "", "tries": 0}
        tx.put_execution(
            {
                "id": id,
                "flow": flow,
                "status": "Running",
                "step": first,
                "due": tx.now,
                "owner": "",
                "lease": 0,
                "doc": doc,
            }
        )
        tx.add_step(id, first, "Started", {})
        return True

    async def begin(self, flow: str, id: str, state: dict[str, Any]) -> bool:
        """`start` in a transaction of its own."""
        begun = await self._store.write(lambda tx: self.start(tx, flow, id, state))
        self.wake()
        return begun

    async def signal(self, id: str, name: str) -> bool:
        """Tells an execution something, once; one that waits is taken up. False if it has ended or never was."""

        def work(tx: Transaction) -> bool:
            found = tx.execution(id)
            if found is None or found["status"] != "Running":
                return False
            if name not in found["doc"]["signals"]:
                found["doc"]["signals"][name] = tx.now
                tx.add_step(id, found["step"], "Signalled", {"signal": name})
            found["due"] = min(found["due"], tx.now)
            tx.put_execution(found)
            return True

        known = await self._store.write(work)
        driven = self._driven.get(id)
        if known and driven is not None:
            driven.run.tell({name: self._clock()})
        self.wake()
        return known

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """For a store that one process owns: what an earlier process had leased is free at once. Before `run`; returns
        how many executions go on."""

        def work(tx: Transaction) -> int:
            running = tx.executions(due=_FAR, limit=1_000_000)
            for found in running:
                if found["owner"]:
                    tx.put_execution({**found, "owner": "", "lease": 0})
            return len(running)

        return await self._store.write(work)

    def run(self) -> None:
        """Begins taking up what is due, until `close`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._taking_up()), loop.create_task(self._renewing())]

    async def _taking_up(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                until = await self._take_up()
            except Exception:
                _log.exception("workflows wait: the store did not answer")
                until = self._clock() + MICROS
            with contextlib.suppress(TimeoutError):
                seconds = max(0.0, (until - self._clock()) / MICROS)
                await asyncio.wait_for(self._wake.wait(), min(seconds, 3600.0))

    async def _take_up(self) -> Instant:
        """Takes what is due; returns when something else will be."""
        now = self._clock()
        with self._store.reading() as view:
            mine = len(self._driven)
            waiting = view.executions(due=now, limit=mine + 100)
            ahead = view.executions(due=_FAR, limit=mine + 100)
        claimed = [e["id"] for e in waiting if e["id"] not in self._driven and e["flow"] in self._flows]
        if claimed:
            for found in await self._store.write(lambda tx: self._claim(tx, claimed)):
                self._drive(found)
            return now  # there may be more
        others = [e for e in ahead if e["id"] not in self._driven and e["flow"] in self._flows]
        free = [max(int(e["due"]), int(e["lease"])) for e in others]
        if len(ahead) == mine + 100:
            free.append(int(ahead[-1]["due"]))
        return max(min(free, default=now + 3600 * MICROS), now + 1000)

    def _claim(self, tx: Transaction, ids: list[str]) -> list[dict[str, Any]]:
        taken = []
        for id_ in ids:
            found = tx.execution(id_)
            if found is None or found["status"] != "Running" or found["lease"] > tx.now or found["due"] > tx.now:
                continue
            doc = found["doc"]
            step = self._flows[found["flow"]].step(found["step"])
            if step.again_from and doc["process"] != self.owner:
                tx.add_step(id_, found["step"], "TakenUp", {"again_from": step.again_from})
                found["step"] = step.again_from
            doc["process"] = self.owner
            found["owner"], found["lease"] = self.owner, tx.now + self._lease
            tx.put_execution(found)
            taken.append(found)
        return taken

    def _drive(self, found: dict[str, Any]) -> None:
        doc = found["doc"]
        failure = Failure(**doc["failure"]) if doc["failure"] else None
        run = Run(found["id"], doc["state"], failure, doc["signals"], self._clock)
        driven = _Driven(run)
        self._driven[run.id] = driven
        driven.task = asyncio.get_running_loop().create_task(
            self._driving(driven, self._flows[found["flow"]], found["step"]), name=f"workflow {run.id}"
        )

    async def _driving(self, driven: _Driven, flow: Flow, name: str) -> None:
        run = driven.run
        try:
            while name:
                name = await self._step(run, flow, flow.step(name))
        except _Lost:
            _log.warning("the execution %s has another owner now", run.id)
        except asyncio.CancelledError:
            if not driven.lost:
                await asyncio.shield(self._give_back(run.id))
            raise
        except Exception:
            # The store did not take a transition. The lease ends by itself, and the step is repeated.
            _log.exception("the execution %s stands still until its lease ends", run.id)
        finally:
            try:
                if flow.drop is not None:
                    await flow.drop(run)
            except Exception:
                _log.exception("the execution %s left something behind", run.id)
            finally:
                del self._driven[run.id]
                self.wake()

    async def _step(self, run: Run, flow: Flow, step: Step) -> str:
        """Runs a step and keeps how it ended; returns the next, empty when there is nothing more to do now."""
        run.works.clear()
        reach(f"{flow.name}/{step.name}:before")
        result: dict[str, Any] = {}
        failure: Failure | None = None
        try:
            result = await step.run(run) or {}
        except Wait as wait:
            return await self._wait(run, step, wait.until)
        except Failed as failed:
            failure = Failure(step.name, failed.code, failed.message, True)
        except Refused as refused:
            failure = Failure(step.name, refused.code, refused.message, True)
        except Exception as error:
            _log.exception("the step %s of %s failed", step.name, run.id)
            failure = Failure(step.name, type(error).__name__, str(error), False)
        reach(f"{flow.name}/{step.name}:after")
        if failure is not None and step.always:
            return await self._retry(run, step, failure)
        works = [] if failure is not None else list(run.works)
        following = flow.after(step.name, failed=failure is not None or run.failure is not None)

        def transition(found: dict[str, Any], tx: Transaction) -> None:
            doc = found["doc"]
            doc["state"].update(result)
            doc["tries"] = 0
            if failure is not None:
                doc["failure"] = asdict(failure)
            for work in works:
                work(tx)
            told = {} if failure is None else {"code": failure.code, "message": failure.message[:1000]}
            tx.add_step(run.id, step.name, "Succeeded" if failure is None else "Failed", told)
            if not following:
                found["status"] = "Succeeded" if doc["failure"] is None else "Failed"
                found["owner"], found["lease"] = "", 0
            else:
                found["step"] = following
                found["lease"] = tx.now + self._lease

        await self._transition(run, transition)
        run.state.update(result)
        if failure is not None:
            run.failure = failure
        return following

    async def _transition(self, run: Run, change: Callable[[dict[str, Any], Transaction], None]) -> None:
        """Changes the execution's row if it is still ours; raises _Lost otherwise."""

        def work(tx: Transaction) -> dict[str, Instant]:
            found = tx.execution(run.id)
            if found is None or found["owner"] != self.owner or found["status"] != "Running":
                raise _Lost
            change(found, tx)
            tx.put_execution(found)
            signals: dict[str, Instant] = found["doc"]["signals"]
            return signals

        run.tell(await self._store.write(work))

    async def _wait(self, run: Run, step: Step, until: Instant) -> str:
        known = set(run._signals)

        def change(found: dict[str, Any], tx: Transaction) -> None:
            missed = set(found["doc"]["signals"]) - known
            found["due"] = tx.now if missed else until
            _free(found)
            tx.add_step(run.id, step.name, "Waits", {"until": until})

        await self._transition(run, change)
        return ""

    async def _retry(self, run: Run, step: Step, failure: Failure) -> str:
        def change(found: dict[str, Any], tx: Transaction) -> None:
            doc = found["doc"]
            doc["tries"] += 1
            found["due"] = tx.now + min(1 << min(doc["tries"] - 1, 6), _LONGEST_BACK_OFF) * MICROS
            _free(found)
            tx.add_step(run.id, step.name, "TriedAgain", {"code": failure.code, "message": failure.message[:1000]})

        await self._transition(run, change)
        return ""

    async def _give_back(self, id_: str) -> None:
        """This process will not go on with it; whoever is there may at once."""

        def work(tx: Transaction) -> None:
            found = tx.execution(id_)
            if found is not None and found["owner"] == self.owner:
                _free(found)
                tx.put_execution(found)

        with contextlib.suppress(Exception):
            await self._store.write(work)

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lease / MICROS / 3)
            if not self._driven:
                continue
            try:
                signals, lost = await self._store.write(self._renew)
            except Exception:
                _log.exception("leases could not be renewed")
                continue
            for id_ in lost:
                driven = self._driven.get(id_)
                if driven is not None and driven.task is not None:
                    driven.lost = True
                    driven.task.cancel()
            for id_, told in signals.items():
                if id_ in self._driven:
                    self._driven[id_].run.tell(told)

    def _renew(self, tx: Transaction) -> tuple[dict[str, dict[str, Instant]], list[str]]:
        signals: dict[str, dict[str, Instant]] = {}
        lost = []
        for id_ in list(self._driven):
            found = tx.execution(id_)
            if found is None or found["status"] != "Running":
                continue  # its task is about to find its end
            if found["owner"] == self.owner:
                signals[id_] = found["doc"]["signals"]
                tx.put_execution({**found, "lease": tx.now + self._lease})
            elif found["owner"]:
                lost.append(id_)
        return signals, lost

    # -- the end -------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many executions this process runs now."""
        return len(self._driven)

    async def close(self) -> None:
        """Takes up nothing more and gives back what runs: its next owner repeats the step it was in."""
        self._closing = True
        self.wake()
        for task in self._tasks:
            task.cancel()
        driven = [one.task for one in self._driven.values() if one.task is not None]
        for task in driven:
            task.cancel()
        await asyncio.gather(*self._tasks, *driven, return_exceptions=True)
