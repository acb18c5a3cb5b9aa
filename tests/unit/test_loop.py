"""Programs that the platform's event loop starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bastide.main.loop import Loop
from tests.waiting import SECONDS


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """On a loop of its own, which leaves no descriptor open."""

    async def counted() -> Any:
        await shell("cat", b"what a loop opens once")
        before = _descriptors()
        found = await work()
        ends = time.monotonic() + SECONDS
        while _descriptors() > before and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        assert _descriptors() <= before
        return found

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(counted())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def shell(text: str, given: bytes | None = None, **more: Any) -> tuple[int | None, bytes, bytes]:
    how: dict[str, Any] = {"stdin": DEVNULL if given is None else PIPE, "stdout": PIPE, "stderr": PIPE, **more}
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", text, **how)
    out, beside = await process.communicate(given)
    return process.returncode, out, beside or b""


def test_what_goes_in_and_comes_out() -> None:
    async def work() -> None:
        assert await shell("cat; echo beside >&2; exit 3", b"x" * 3_000_000) == (3, b"x" * 3_000_000, b"beside\n")
        assert await shell("echo one; echo two >&2", stderr=STDOUT) == (0, b"one\ntwo\n", b"")
        assert await shell("exit 0", b"nobody reads it" * 100_000) == (0, b"", b"")
        assert await shell("pwd", cwd="/usr") == (0, b"/usr\n", b"")
        told = await asyncio.gather(*(shell(f"echo {number}") for number in range(30)))
        assert told == [(0, f"{number}\n".encode(), b"") for number in range(30)]

    run(work)


def test_an_empty_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_PLATFORM", "secret")

    async def work() -> bytes:
        process = await asyncio.create_subprocess_exec("/usr/bin/env", env={}, stdout=PIPE)
        return (await process.communicate())[0]

    assert run(work) == b""


def test_who_is_ended_by_a_signal_says_so_and_what_it_said_can_still_be_read() -> None:
    async def work() -> None:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "echo here; exec sleep 600", stdout=PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"here\n"
        process.kill()
        assert await process.wait() == -signal.SIGKILL == process.returncode
        assert await process.stdout.read() == b""
        with pytest.raises(ProcessLookupError):
            process.terminate()

    run(work)


def test_an_end_is_learnt_of_though_nobody_reads_what_was_said() -> None:
    async def work() -> None:
        much = "import sys; sys.stdout.write('x' * 5_000_000)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", much, stdout=PIPE)
        assert process.stdout is not None
        assert await process.stdout.readexactly(10) == b"x" * 10
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        while await process.stdout.read(1 << 16):
            pass

    run(work)


def test_descriptors_are_passed_and_no_other_is() -> None:
    async def work() -> None:
        here, there = os.pipe()
        kept, _also = os.pipe()
        list_ = f"import os, sys; os.write({there}, b'passed'); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", list_, stdin=DEVNULL, stdout=PIPE, pass_fds=(there,)
        )
        told, _ = await process.communicate()
        assert os.read(here, 100) == b"passed" and str(kept) not in told.decode().strip("[]\n").split(", ")
        for one in (here, there, kept, _also):
            os.close(one)

    run(work)


@pytest.mark.parametrize("program", ["/nonexistent/program", "no-such-program"])
def test_what_is_not_there_is_an_error(program: str) -> None:
    async def work() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec(program, stdin=PIPE, stdout=PIPE)

    run(work)


def test_what_is_written_to_who_has_ended_is_lost() -> None:
    async def work() -> None:
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        assert await process.wait() == 0 and process.stdin is not None and process.stdout is not None
        assert await process.stdout.read() == b""
        for _ in range(3):
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                process.stdin.write(b"too late")
                await process.stdin.drain()
        process.stdin.close()

    run(work)


def test_who_waits_may_give_up() -> None:
    async def work() -> None:
        process = await asyncio.create_subprocess_exec("/bin/sleep", "600", stdin=PIPE)
        waits: Awaitable[int] = process.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waits, 0.05)
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    run(work)
