"""The workflow engine: crashes at every point, one owner at a time, waits that cost a row."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bastide.domain import MICROS, wall
from bastide.engines.workflow import Failed, Flow, Run, Step, Wait, Workflows
from bastide.store.sqlite import SqliteStore

STEPS = ("one", "two", "three", "settle")


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = wall()

    def __call__(self) -> int:
        return self.at


async def _ended(store: SqliteStore, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            with store.reading() as view:
                found = view.execution(id)
            if found is not None and found["status"] != "Running":
                return found
            await asyncio.sleep(0.005)


def _writing(path: Path, name: str) -> Any:
    async def step(run: Run) -> dict[str, Any]:
        with path.open("a") as file:
            file.write(f"{name}\n")
        return {name: len(run.state)}

    return step


def tiny(path: Path, **again: str) -> Flow:
    steps = [Step(n, _writing(path, n), always=n == "settle", again_from=again.get(n, "")) for n in STEPS]
    return Flow("tiny", steps)


def test_steps_run_in_order_and_their_history_stands(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        flows = Workflows(store, wall, [tiny(tmp_path / "log")])
        flows.run()
        assert await flows.begin("tiny", "a", {"given": 1})
        assert not await flows.begin("tiny", "a", {"given": 2})
        found = await _ended(store, "a")
        assert found["status"] == "Succeeded"
        assert found["doc"]["state"] == {"given": 1, "one": 1, "two": 2, "three": 3, "settle": 4}
        with store.reading() as view:
            history = [(s["step"], s["event"]) for s in view.steps("a")]
        assert history == [("one", "Started"), *((name, "Succeeded") for name in STEPS)]
        await flows.close()
        store.close()

    asyncio.run(story())
    assert (tmp_path / "log").read_text().split() == list(STEPS)


def test_a_failure_is_handed_to_the_steps_that_always_run(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        seen: list[Any] = []

        async def refuse(run: Run) -> None:
            raise Failed("ClientError", "no such key")

        async def never(run: Run) -> None:
            seen.append("never")

        async def settle(run: Run) -> None:
            assert run.failure is not None
            seen.append((run.failure.step, run.failure.code, run.failure.message, run.failure.foreseen))

        flows = Workflows(
            store, wall, [Flow("f", [Step("stage", refuse), Step("run", never), Step("settle", settle, always=True)])]
        )
        flows.run()
        await flows.begin("f", "a", {})
        assert (await _ended(store, "a"))["status"] == "Failed"
        assert seen == [("stage", "ClientError", "no such key", True)]
        await flows.close()
        store.close()

    asyncio.run(story())


def test_a_step_that_always_runs_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    async def story() -> None:
        time = Time()
        store = SqliteStore(tmp_path / "db", time)
        tries = 0

        async def settle(run: Run) -> None:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise Failed("Busy", "later")

        flows = Workflows(store, time, [Flow("f", [Step("settle", settle, always=True)])])
        flows.run()
        await flows.begin("f", "a", {})
        for expected in range(1, 4):
            while tries < expected or flows.running:  # until it is on the disk when it is to be tried again
                await asyncio.sleep(0.002)
            assert tries == expected
            time.at += 5 * MICROS
            flows.wake()
        assert (await _ended(store, "a"))["status"] == "Succeeded"
        await flows.close()
        store.close()

    asyncio.run(story())


def test_waiting_is_a_row_and_a_signal_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        time = Time()
        store = SqliteStore(tmp_path / "db", time)

        async def until_told(run: Run) -> dict[str, Any]:
            if run.asked("go"):
                return {"told": True}
            if run.clock() >= run.state["until"]:
                return {"told": False}
            raise Wait(run.state["until"])

        flows = Workflows(store, time, [Flow("f", [Step("wait", until_told)])])
        flows.run()
        until = time.at + 3600 * MICROS
        await asyncio.gather(*(flows.begin("f", f"e{n}", {"until": until}) for n in range(500)))
        async with asyncio.timeout(60):
            while True:
                with store.reading() as view:
                    if all(len(view.steps(f"e{n}")) == 2 for n in range(500)) and not flows.running:
                        break
                await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) < 8
        assert await flows.signal("e7", "go")
        assert (await _ended(store, "e7"))["doc"]["state"]["told"] is True
        assert not await flows.signal("e7", "go")
        assert not await flows.signal("nobody", "go")
        time.at = until
        flows.wake()
        assert (await _ended(store, "e499"))["doc"]["state"]["told"] is False
        await flows.close()
        store.close()

    asyncio.run(story())


def test_a_running_step_hears_a_signal(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        begun = asyncio.Event()

        async def work(run: Run) -> dict[str, Any]:
            begun.set()
            await run.signalled("stop")
            return {"stopped": True}

        flows = Workflows(store, wall, [Flow("f", [Step("work", work)])])
        flows.run()
        await flows.begin("f", "a", {})
        await begun.wait()
        await flows.signal("a", "stop")
        assert (await _ended(store, "a"))["doc"]["state"] == {"stopped": True}
        await flows.close()
        store.close()

    asyncio.run(story())


def test_two_owners_never_run_the_same_execution_and_the_loser_writes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        time = Time()
        store = SqliteStore(tmp_path / "db", time)
        running: list[str] = []
        gates = {"first": asyncio.Event(), "second": asyncio.Event()}

        def owner(name: str) -> Workflows:
            async def work(run: Run) -> dict[str, Any]:
                running.append(name)
                await gates[name].wait()
                return {"by": name}

            async def after(run: Run) -> dict[str, Any]:
                running.append(f"{name} after")
                return {}

            return Workflows(store, time, [Flow("f", [Step("work", work), Step("after", after)])], lease_seconds=3000)

        first, second = owner("first"), owner("second")
        first.run()
        second.run()
        await first.begin("f", "a", {})
        while not running:
            await asyncio.sleep(0.002)
        taken = running[0]
        other = "second" if taken == "first" else "first"
        for flows in (first, second):
            flows.wake()
        await asyncio.sleep(0.05)
        assert running == [taken]
        # The owner falls silent for longer than its lease; the other takes over; then the silent one wakes up.
        time.at += 3001 * MICROS
        for flows in (first, second):
            flows.wake()
        while running != [taken, other]:
            await asyncio.sleep(0.002)
        gates[taken].set()
        await asyncio.sleep(0.05)
        assert running == [taken, other]
        gates[other].set()
        assert (await _ended(store, "a"))["doc"]["state"] == {"by": other}
        assert running == [taken, other, f"{other} after"]
        await first.close()
        await second.close()
        store.close()

    asyncio.run(story())


def test_closing_gives_back_and_lets_go(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "db")
        begun = asyncio.Event()
        dropped: list[Any] = []

        async def prepare(run: Run) -> None:
            run.held["sandbox"] = "s"

        async def work(run: Run) -> None:
            begun.set()
            await asyncio.sleep(100)

        async def drop(run: Run) -> None:
            dropped.append(run.held.pop("sandbox"))

        flow = Flow("f", [Step("prepare", prepare), Step("work", work, again_from="prepare")], drop)
        flows = Workflows(store, wall, [flow])
        flows.run()
        await flows.begin("f", "a", {})
        await begun.wait()
        await flows.close()
        assert dropped == ["s"]
        with store.reading() as view:
            found = view.execution("a")
        assert found is not None and (found["owner"], found["step"]) == ("", "work")
        store.close()

    asyncio.run(story())


_CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2])))
from test_workflow import tiny, _ended
from bastide.domain import wall
from bastide.engines.workflow import Workflows
from bastide.store.sqlite import SqliteStore

async def main(folder):
    store = SqliteStore(folder / "db")
    flows = Workflows(store, wall, [tiny(folder / "log", three="two")])
    await flows.recover()
    flows.run()
    await flows.begin("tiny", "a", {})
    await _ended(store, "a")
    await flows.close()
    store.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("point", [f"tiny/{step}:{when}" for step in STEPS for when in ("before", "after")])
def test_a_crash_at_any_point_is_gone_on_from(tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path), str(Path(__file__).parent)]
    died = subprocess.run(command, env={**os.environ, "BASTIDE_TEST_KILL_AT": point}, timeout=30, check=False)
    assert died.returncode == -signal.SIGKILL
    subprocess.run(command, timeout=30, check=True)
    step, _, when = point.removeprefix("tiny/").partition(":")
    done = (tmp_path / "log").read_text().split()
    # A step whose end was not kept is repeated; `three` uses what `two` held, so that a new process goes on from there.
    place = STEPS.index(step)
    expected = [
        *STEPS[:place],
        *([step] if when == "after" else []),
        *(["two"] if step == "three" else []),
        *STEPS[place:],
    ]
    assert done == expected
    store = SqliteStore(tmp_path / "db")
    with store.reading() as view:
        found = view.execution("a")
    assert found is not None and found["status"] == "Succeeded"
    store.close()
