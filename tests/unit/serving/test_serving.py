"""The serving engine over real servers: the toolkit's, as plain processes without a sandbox."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bastide.engines import images
from bastide.engines.serving import (
    Answer,
    Container,
    Instance,
    Invocation,
    NotReady,
    OnDemand,
    Serving,
    Slow,
    Throttled,
    Variant,
    server,
)
from bastide.engines.serving.server import Supervised, Unhealthy

SERVE = Path(images.__file__).parent / "environments" / "toolkit" / "serve.py"
SCRIPT = """
import os, time, threading
def model_fn(folder):
    size = os.path.join(folder, 'size')
    held = b'x' * int(open(size).read()) if os.path.exists(size) else b''
    return held, open(os.path.join(folder, 'm.txt')).read()
def transform_fn(model, body, kind, accept):
    if body == 'slow': time.sleep(0.5)
    if body == 'pid': return str(os.getpid()), 'text/plain'
    return model[1] + body, 'text/plain'
"""


class Started:
    """A plain process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def wait(self) -> object:
        return await self.process.wait()

    async def stop(self, grace: float) -> None:
        if self.process.returncode is None:
            self.process.terminate() if grace else self.process.kill()
        await self.process.wait()


class Bench:
    """Instances in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closed = 0
        self.made = 0

    def model(self, name: str, size: int = 0) -> Path:
        folder = self.folder / name
        (folder / "code").mkdir(parents=True)
        (folder / "m.txt").write_text(name)
        (folder / "code" / "inference.py").write_text(SCRIPT)
        if size:
            (folder / "size").write_text(str(size))
        return folder

    def instance(self, text: str = "A", **more: Any) -> Instance:
        self.made += 1
        base = self.folder / f"base-{self.made}"
        base.mkdir()
        self.model(f"base-{self.made}/model").joinpath("m.txt").write_text(text)
        path = base / "s"
        environment = {
            **os.environ,
            "SAGEMAKER_BASE_DIR": str(base),
            "SAGEMAKER_PROGRAM": "inference.py",
            "BASTIDE_SERVE_SOCKET": str(path),
            **more.pop("env", {}),
        }

        async def launch() -> Started:
            return Started(await asyncio.create_subprocess_exec(sys.executable, str(SERVE), env=environment))

        async def close() -> None:
            self.closed += 1

        return Instance([Container("primary", launch, path, **more)], close)


def on(work: Callable[[Bench, Serving], Awaitable[None]], folder: Path) -> None:
    async def run() -> None:
        serving = Serving(folder / "sockets")
        try:
            await work(Bench(folder), serving)
        finally:
            await serving.close()
            await asyncio.sleep(0.1)  # the loop closes what was closed

    asyncio.run(run())


def call(body: bytes = b"", **more: Any) -> Invocation:
    return Invocation([("content-type", "text/plain")], body, **more)


@pytest.mark.parametrize(("fails", "comes_up"), [(1, True), (2, False)])
def test_a_server_that_ends_before_it_answers_is_started_once_again(tmp_path: Path, fails: int, comes_up: bool) -> None:
    async def work(bench: Bench, serving: Serving) -> None:
        made = bench.instance()
        program = bench.folder / "base-1" / "model" / "code" / "inference.py"
        count = bench.folder / "starts"
        failing = f"import os\nwith open({str(count)!r}, 'a') as told: told.write('x')\n"
        failing += f"if os.path.getsize({str(count)!r}) <= {fails}: os._exit(3)\n"
        program.write_text(failing + SCRIPT)
        server = Supervised("v", made.containers[0], 20)
        try:
            if comes_up:
                await server.start()
                assert server.ready and count.read_text() == "xx"
            else:
                with pytest.raises(Unhealthy, match="ended before it answered"):
                    await server.start()
                assert count.read_text() == "xx"
        finally:
            await server.close(0)

    on(work, tmp_path)


def test_servers_on_demand_come_for_calls_and_go_when_idle(tmp_path: Path) -> None:
    async def work(bench: Bench, serving: Serving) -> None:
        async def grow() -> Instance:
            return bench.instance()

        demand = OnDemand(grow, most=2, idle_seconds=0.3)
        await serving.bring("k", "o", [Variant("v", 1.0, on_demand=demand)])
        serving.shift("k", "o", 1.0)
        assert bench.made == 1  # it was shown that it can
        answers = await asyncio.gather(*(serving.invoke("k", call(b"slow")) for _ in range(3)), return_exceptions=True)
        assert sum(isinstance(one, Throttled) for one in answers) == 1
        assert [one[0].body for one in answers if isinstance(one, tuple)] == [b"Aslow", b"Aslow"]
        async with asyncio.timeout(60):
            while bench.closed < bench.made:
                await asyncio.sleep(0.05)
        assert serving.servers("k", "v") == 0
        # From nothing, a call starts one again.
        made = bench.made
        answer, _ = await serving.invoke("k", call(b"x"))
        assert answer.body == b"Ax" and bench.made == made + 1

    on(work, tmp_path)


def test_a_server_without_memory_gives_up_the_model_that_was_asked_for_least_lately(tmp_path: Path) -> None:
    class Source:
        def __init__(self, bench: Bench) -> None:
            self.bench = bench
            self.forgotten: list[str] = []

        async def fetch(self, name: str) -> tuple[str, str]:
            folder = self.bench.folder / name
            return name, str(folder if folder.exists() else self.bench.model(name, 120 << 20))

        async def forget(self, id: str) -> None:
            self.forgotten.append(id)

    async def work(bench: Bench, serving: Serving) -> None:
        source = Source(bench)
        room = {"SAGEMAKER_MULTI_MODEL": "true", "BASTIDE_MEMORY_BYTES": str(380 << 20)}
        await serving.bring("k", "o", [Variant("v", 1.0, [bench.instance(env=room, models=source)])])
        serving.shift("k", "o", 1.0)

        async def ask(model: str) -> bytes:
            answer, _ = await serving.invoke("k", call(b"x", model=model))
            assert answer.status == 200, answer.body
            return answer.body

        assert await asyncio.gather(*(ask("a") for _ in range(3))) == [b"ax"] * 3  # loaded once, for all
        assert await ask("b") == b"bx"
        assert await ask("a") == b"ax"
        assert await ask("c") == b"cx"  # there is room for two
        assert source.forgotten in (["c", "b"], ["b"])
        assert await ask("b") == b"bx"
        assert "a" in source.forgotten

    on(work, tmp_path)


def test_calls_under_way_are_answered_by_the_server_that_goes(tmp_path: Path) -> None:
    async def work(bench: Bench, serving: Serving) -> None:
        await serving.bring("k", "old", [Variant("v", 1.0, [bench.instance("A")])])
        serving.shift("k", "old", 1.0)
        serving.settle("k", "old")
        under_way = asyncio.create_task(serving.invoke("k", call(b"slow")))
        await serving.bring("k", "new", [Variant("v", 1.0, [bench.instance("B")])])
        answer, _ = await serving.invoke("k", call(b"x"))
        assert answer.body == b"Ax"  # no call goes to who has not been given any
        serving.shift("k", "new", 1.0)
        under_way_too = asyncio.create_task(serving.invoke("k", call(b"slow")))
        serving.settle("k", "new")
        assert (await under_way)[0].body == b"Aslow" and (await under_way_too)[0].body == b"Bslow"
        # Who fails to take over is taken away, and the others answer.
        await serving.bring("k", "third", [Variant("v", 1.0, [bench.instance("C")])])
        serving.shift("k", "third", 0.5)
        await serving.remove("k", "third")
        answers = [await serving.invoke("k", call(b"x")) for _ in range(8)]
        assert {one.body for one, _ in answers} == {b"Bx"}

    on(work, tmp_path)


def test_who_is_to_take_over_may_come_up_first(tmp_path: Path) -> None:
    """After a restart both come up at once; the one that answers must not end the one that is to."""

    async def work(bench: Bench, serving: Serving) -> None:
        await serving.bring("k", "new", [Variant("v", 1.0, [bench.instance("B")])])
        await serving.bring("k", "old", [Variant("v", 1.0, [bench.instance("A")])])
        serving.shift("k", "old", 1.0)
        serving.settle("k", "old", beside="new")
        assert (await serving.invoke("k", call(b"x")))[0].body == b"Ax"
        serving.shift("k", "new", 1.0)
        serving.settle("k", "new")
        assert (await serving.invoke("k", call(b"x")))[0].body == b"Bx"

    on(work, tmp_path)


def test_a_change_of_count_keeps_the_servers_that_are_there(tmp_path: Path) -> None:
    async def work(bench: Bench, serving: Serving) -> None:
        async def pids(count: int) -> set[bytes]:
            answers = await asyncio.gather(*(serving.invoke("k", call(b"pid")) for _ in range(4 * count)))
            return {answer.body for answer, _ in answers}

        await serving.bring("k", "one", [Variant("v", 1.0, [bench.instance()])])
        serving.shift("k", "one", 1.0)
        first = await pids(1)
        await serving.bring("k", "two", [Variant("v", 1.0, [bench.instance()], keep=1)])
        serving.shift("k", "two", 1.0)
        serving.settle("k", "two")
        both = await pids(2)
        assert first < both and len(both) == 2
        await serving.bring("k", "three", [Variant("v", 1.0, keep=1)])
        serving.shift("k", "three", 1.0)
        serving.settle("k", "three")
        assert await pids(1) == first
        await serving.remove("k", "three")
        with pytest.raises(NotReady):
            await serving.invoke("k", call())

    on(work, tmp_path)


def test_who_watches_is_told_of_every_call(tmp_path: Path) -> None:
    seen: list[tuple[str, int, bool]] = []

    class Watching:
        def answered(
            self,
            variant: str,
            call: Invocation,
            outcome: Answer | BaseException,
            seconds: float,
            servers: int,
            shadow: bool,
        ) -> None:
            assert isinstance(outcome, Answer) and 0 < seconds < 300 and servers == 1
            seen.append((variant, outcome.status, shadow))

    async def work(bench: Bench, serving: Serving) -> None:
        variants = [Variant("v", 1.0, [bench.instance()]), Variant("s", 1.0, [bench.instance("S")], shadow=True)]
        await serving.bring("k", "o", variants, observer=Watching())
        serving.shift("k", "o", 1.0)
        await serving.invoke("k", call(b"x"))
        async with asyncio.timeout(60):
            while len(seen) < 2:
                await asyncio.sleep(0.02)

    on(work, tmp_path)
    assert sorted(seen) == [("s", 200, True), ("v", 200, False)]


def test_a_server_that_hangs_is_found_out_by_its_pings_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_PING_EVERY", 0.1)
    monkeypatch.setattr(server, "_PING_SECONDS", 0.2)
    told: list[str] = []

    async def tell(line: str) -> None:
        told.append(line)

    async def work(bench: Bench, serving: Serving) -> None:
        await serving.bring("k", "o", [Variant("v", 1.0, [bench.instance(tell=tell)])])
        serving.shift("k", "o", 1.0)
        first = int((await serving.invoke("k", call(b"pid")))[0].body)
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(Slow):
            await serving.invoke("k", call(b"x", seconds=0.2))
        async with asyncio.timeout(60):
            while len(told) < 2:
                await asyncio.sleep(0.05)
        second = int((await serving.invoke("k", call(b"pid")))[0].body)
        assert second != first and not Path(f"/proc/{first}").exists()

    on(work, tmp_path)
    assert "answered none of 3 pings; it is started again" in told[0] and "answers again" in told[1]
