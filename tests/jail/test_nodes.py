"""Sandboxes on a node: the agent itself, and all that is said to it sealed, without Ray in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.cluster import Answering, Asking
from bastide.engines.images import Environment
from bastide.engines.sandbox import Limits, SandboxError, Spec
from bastide.engines.sandbox.drivers.bubblewrap import Bubblewrap
from bastide.engines.sandbox.drivers.gocryptfs import Gocryptfs
from bastide.engines.sandbox.drivers.remote import Spread
from bastide.main.agent import Agent

SECRET = bytes(range(32))
GIB = 1 << 30


class Near:
    """Nodes of this machine, each an agent in this process."""

    def __init__(self, folder: Path, *names: str, lease: float = 15.0) -> None:
        self.folder = folder
        self.agents = {name: Agent(SECRET, folder, lease) for name in names}
        self.asking: dict[str, Asking] = {}
        self.gone: set[str] = set()
        self.carried: list[bytes] = []

    async def start(self) -> None:
        for name, agent in self.agents.items():
            await agent.start()

            async def carry(content: bytes, name: str = name) -> bytes:
                if name in self.gone:
                    raise ConnectionError("its agent ended")
                self.carried.append(content)
                return await self.agents[name](content)

            self.asking[name] = Asking(carry, SECRET)
            await self.asking[name].open()

    async def call(
        self, node: str, name: str, told: Mapping[str, Any], data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        return await self.asking[node].call(name, told, data)

    def address(self, node: str) -> str:
        return "127.0.0.1"

    def name(self, node: str) -> str:
        return node

    async def close(self) -> None:
        for agent in self.agents.values():
            await agent.close()


def spec(environment: Environment, name: str, workdir: Path, script: str, **more: Any) -> Spec:
    limits = Limits(more.pop("memory", 256 << 20), 1.0, 64, 1024)
    return Spec(name, environment, ["python3", "-c", script], workdir, limits, **more)


def played(
    tmp_path: Path, story: Callable[[Spread, Near], Awaitable[None]], names: Sequence[str] = ("one",), **more: Any
) -> None:
    """Runs a story with nodes, and sees that nothing of it is left."""

    async def whole() -> None:
        near = Near(tmp_path / "nodes", *names, **more)
        await near.start()
        here = tmp_path / "here"
        here.mkdir()
        spread = Spread(Bubblewrap(here), Gocryptfs(here / "volumes"), near)
        try:
            await story(spread, near)
        finally:
            await spread.close_all()
            await near.close()

    asyncio.run(whole())
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert list((tmp_path / "nodes").iterdir()) == []


def test_code_that_is_not_trusted_is_not_sent_to_a_node(tmp_path: Path, environment: Environment) -> None:
    async def story(spread: Spread, near: Near) -> None:
        place = await spread.create("job-1", os.urandom(32), GIB, "one")
        (place / "ml").mkdir()
        said = len(near.carried)
        with pytest.raises(SandboxError, match="runs on no node"):
            await spread.start(spec(environment, "job-1", place / "ml", "print(1)", untrusted=True))
        assert len(near.carried) == said

    played(tmp_path, story)


def test_a_sandbox_on_a_node_has_its_files_its_limits_and_nothing_else(
    tmp_path: Path, environment: Environment
) -> None:
    script = """
import os, json
from pathlib import Path
print('said', open('/opt/ml/input/data/train/a.csv').read(), os.environ['SECRET'])
print(json.dumps({'hosts': sorted(os.listdir('/')), 'pids': [p for p in os.listdir('/proc') if p.isdecimal()],
    'net': os.listdir('/sys/class/net') if os.path.exists('/sys/class/net') else []}))
Path('/opt/ml/model/deep').mkdir()
Path('/opt/ml/model/deep/m.bin').write_bytes(b'm' * 3_000_000)
os.symlink('/etc/shadow', '/opt/ml/model/link')
os.mkfifo('/opt/ml/model/fifo')
print('x' * 300_000)
"""

    async def story(spread: Spread, near: Near) -> None:
        place = await spread.create("job-1", os.urandom(32), GIB, "one")
        ml = place / "ml"
        (ml / "input/data/train").mkdir(parents=True)
        (ml / "model").mkdir()
        (ml / "input/data/train/a.csv").write_bytes(b"the rows")
        running = await spread.start(spec(environment, "job-1", ml, script, env={"SECRET": "of the job"}))
        lines = [line async for line in running.lines()]
        ended = await running.wait()
        assert (ended.exit_code, ended.oom) == (0, False), lines
        assert lines[0] == b"said the rows of the job"
        assert len(json.loads(lines[1])["pids"]) <= 3
        assert b"".join(lines[2:]) == b"x" * 300_000
        assert (ml / "model/deep/m.bin").read_bytes() == b"m" * 3_000_000
        assert (ml / "model/link").is_symlink()
        assert not (ml / "model/fifo").exists()
        assert spread.lost("job-1") == ""
        whole = b"".join(near.carried)
        assert b"the rows" not in whole and b"of the job" not in whole

    played(tmp_path, story)


def test_the_limit_of_memory_holds_on_a_node(tmp_path: Path, environment: Environment) -> None:
    async def story(spread: Spread, near: Near) -> None:
        ml = await spread.create("job-1", os.urandom(32), GIB, "one") / "ml"
        ml.mkdir()
        running = await spread.start(spec(environment, "job-1", ml, "b'x' * (1 << 30)", memory=128 << 20))
        [_ async for _ in running.lines()]
        ended = await running.wait()
        assert ended.oom or ended.exit_code not in (0, None)

    played(tmp_path, story)


def test_a_node_that_is_lost_is_named_and_one_that_hears_nothing_ends_its_jobs(
    tmp_path: Path, environment: Environment
) -> None:
    async def story(spread: Spread, near: Near) -> None:
        ml = await spread.create("job-1", os.urandom(32), GIB, "one") / "ml"
        ml.mkdir()
        running = await spread.start(spec(environment, "job-1", ml, "print('on', flush=True)\nwhile True: pass"))
        near.gone.add("one")
        assert (await running.wait()).exit_code is None
        assert spread.lost("job-1") == "The node one was lost while the job was on it: its agent ended"
        async with asyncio.timeout(60):
            while near.agents["one"].holds:
                await asyncio.sleep(0.05)

    played(tmp_path, story, lease=1.0)


def test_hosts_on_two_nodes_reach_each_other_and_their_platform_but_nobody_else(
    tmp_path: Path, environment: Environment
) -> None:
    script = """
import socket, sys, time, urllib.request
me, other = sys.argv[1:] if len(sys.argv) > 1 else (socket.gethostname(), '')
print('eth', socket.if_nameindex())
if me == 'algo-1':
    s = socket.create_server(('10.77.0.1', 5000)); s.settimeout(60)
    c, a = s.accept(); print('from', a[0], c.recv(100).decode())
else:
    end = time.time() + 60
    while True:
        try: c = socket.create_connection(('algo-1', 5000), 2); break
        except OSError:
            if time.time() > end: raise
            time.sleep(.1)
    c.sendall(b'hello')
print(urllib.request.urlopen('http://127.0.0.1/x').read().decode())
for port in (22, 6379):
    try: socket.create_connection(('192.0.2.2', port), 1); print('REACHED')
    except OSError as e: print('no')
"""

    async def story(spread: Spread, near: Near) -> None:
        from bastide.engines.network import kernel

        addresses = {"algo-1": "10.77.0.1", "algo-2": "10.77.0.2"}
        servers, handles = [], []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nthe platform")
            await writer.drain()
            writer.close()

        async def host(number: int) -> list[bytes]:
            name = f"job-{number}"
            ml = await spread.create(name, os.urandom(32), GIB, ("one", "two")[number - 1]) / "ml"
            ml.mkdir()
            handle = kernel.new_namespace(forwards=False)
            handles.append(handle)
            kernel.lo_up(handle)
            servers.append(await asyncio.start_server(answer, sock=kernel.listening(handle, "127.0.0.1", 80)))
            running = await spread.start(
                spec(
                    environment, name, ml, script, hostname=f"algo-{number}", hosts=(), addresses=addresses,
                    network=kernel.shown(handle), interface="eth0", group=("job-1", "job-2"),
                )
            )  # fmt: skip
            lines = [line async for line in running.lines()]
            assert (await running.wait()).exit_code == 0, lines
            return lines

        first, second = await asyncio.gather(host(1), host(2))
        assert b"from 10.77.0.2 hello" in first
        for lines in (first, second):
            assert b"the platform" in lines
            assert lines[-2:] == [b"no", b"no"]
            assert b"eth0" in lines[0]
        for server in servers:
            server.close()
        for handle in handles:
            os.close(handle)

    played(tmp_path, story, ("one", "two"))


KILLED = """
import asyncio, os, sys, pathlib
from bastide.engines.cluster import Asking
from bastide.main.agent import Agent
async def main():
    agent = Agent(bytes(range(32)), pathlib.Path(sys.argv[1]))
    await agent.start()
    asking = Asking(agent, bytes(range(32)))
    await asking.open()
    await asking.call('open', {'name': 'job-1', 'size': 1 << 30}, os.urandom(32))
    print('open', flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_what_an_agent_left_that_was_killed_is_cleared_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"open\n"
        assert str(tmp_path) in Path("/proc/mounts").read_text()
        killed.kill()

    async def whole() -> None:
        other = Agent(SECRET, tmp_path)
        await other.start()
        assert len(list(tmp_path.iterdir())) == 1
        assert str(tmp_path) not in Path("/proc/mounts").read_text()
        await other.close()

    asyncio.run(whole())


def test_the_channel_believes_nobody_without_the_secret_and_nothing_twice() -> None:
    async def handler(name: str, told: Mapping[str, Any], data: bytes) -> tuple[Mapping[str, Any], bytes]:
        if name == "no":
            raise SandboxError("why")
        if name == "reset":
            raise ConnectionResetError(104, "a connection over there")
        return {"name": name, **told}, data

    async def whole() -> None:
        with pytest.raises(ConnectionError):
            await Asking(Answering(handler, SECRET), b"another secret").open()
        sent: list[bytes] = []
        end = Answering(handler, SECRET)

        async def carry(content: bytes) -> bytes:
            sent.append(content)
            return await end(content)

        asking = Asking(carry, SECRET)
        await asking.open()
        assert await asking.call("a", {"b": 1}, b"data") == ({"name": "a", "b": 1}, b"data")
        assert await end(sent[-1]) == b""
        assert await end(sent[0]) == b""  # an agent has one platform
        assert await end(b"") == b""
        changed = bytearray(sent[-1])
        changed[-1] ^= 1
        changed[7] = 99
        assert await end(bytes(changed)) == b""
        with pytest.raises(RuntimeError, match="why"):
            await asking.call("no", {})
        with pytest.raises(RuntimeError, match="over there"):
            await asking.call("reset", {})

    asyncio.run(whole())


def test_a_job_gets_sigterm_also_from_who_blocks_it(tmp_path: Path, environment: Environment) -> None:
    async def story(spread: Spread, near: Near) -> None:
        ml = await spread.create("job-1", os.urandom(32), GIB, "one") / "ml"
        ml.mkdir()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as Ray's threads do
        try:
            script = "import time\nprint('on', flush=True)\ntime.sleep(60)"
            running = await spread.start(spec(environment, "job-1", ml, script))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        lines = running.lines()
        assert await anext(lines) == b"on"
        async with asyncio.timeout(60):
            await running.stop(60)
        assert (await running.wait()).signal == signal.SIGTERM

    played(tmp_path, story)
