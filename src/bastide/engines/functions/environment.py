"""One execution environment: begun, given one event after the other, stopped between them, ended."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from bastide.domain import MICROS, Clock, iso
from bastide.engines.functions.runtime import Answer, Event, InitFailed, Runtime

_log = logging.getLogger("bastide.functions")

_INIT_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 0.2
_TAIL: Final = 4096
_MIB: Final = 1 << 20


class Ended(Protocol):
    """How a program ended; a sandbox tells it."""

    @property
    def exit_code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def oom(self) -> bool: ...
    @property
    def peak_bytes(self) -> int | None: ...


class Usage(Protocol):
    """What a program uses."""

    @property
    def memory_bytes(self) -> int | None: ...


class Process(Protocol):
    """A program that runs; a sandbox's is one."""

    def lines(self) -> AsyncIterator[bytes]: ...
    def usage(self) -> Usage: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    async def wait(self) -> Ended: ...
    async def stop(self, grace: float) -> None: ...


@dataclass(slots=True)
class Launched:
    """What whoever invokes has started. tell: writes a line of log. close: frees what it holds, once it has ended. version:
    of the function, as its log says it. first: the log's first line. until: when its credentials are too old for another
    event, on the platform's clock. stands: whether what it lies
    on does. json: the platform's own lines are JSON."""

    process: Process
    runtime: Runtime
    tell: Callable[[str], None]
    close: Callable[[], Awaitable[None]]
    version: str
    memory_mib: int
    first: str
    until: int
    stands: Callable[[], bool]
    json: bool = False


@dataclass(frozen=True, slots=True)
class Invocation:
    """An event for a function. id: of the request. seconds: how long it may take. arn: as it was invoked."""

    id: str
    payload: bytes
    arn: str
    seconds: int
    client: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. error: ``Unhandled``, or empty. tail: the last 4 KB of what was logged. milliseconds: how long it
    took, without what it took to begin."""

    payload: bytes
    error: str
    tail: bytes
    milliseconds: float
    init_milliseconds: float = 0.0


class Unavailable(Exception):  # noqa: N818
    """No environment could be had, and nothing of the function ran. The message is for whoever invokes."""


class Environment:
    """Handles one event at a time. `usable` says whether it can have another."""

    def __init__(self, launched: Launched, clock: Clock) -> None:
        self._launched = launched
        self._clock = clock
        self._begun = time.perf_counter()
        self._init: float | None = None
        self._tail: deque[bytes] | None = None
        self._tail_size = 0
        self._peak = 0
        self._frozen = False
        self._over = self._late = False
        self.idle_since = 0.0
        loop = asyncio.get_running_loop()
        launched.tell(launched.first)
        self._reading = loop.create_task(self._read())
        self._ended: asyncio.Task[Ended] = loop.create_task(launched.process.wait())

    @property
    def usable(self) -> bool:
        """Whether it stands and its credentials are good for another event."""
        launched = self._launched
        return not self._over and not self._ended.done() and self._clock() < launched.until and launched.stands()

    async def _read(self) -> None:
        async for line in self._launched.process.lines():
            # AWS's runtime client parts the lines of one error by carriage returns where it has no log of its own.
            self._say(line.decode("utf-8", "replace").rstrip("\r").replace("\r", "\n"))

    def _say(self, text: str) -> None:
        self._launched.tell(text)
        if self._tail is not None:
            raw = text.encode() + b"\n"
            self._tail.append(raw)
            self._tail_size += len(raw)
            while self._tail_size - len(self._tail[0]) >= _TAIL:
                self._tail_size -= len(self._tail.popleft())

    # -- events ----------------------------------------------------------------------------------------------------------

    async def handle(self, call: Invocation) -> Outcome:
        """What comes of an event. Whatever goes wrong in the function is an outcome; the environment may be over then."""
        self._tail, self._tail_size = deque(), 0
        self.thaw()
        init = 0.0
        failed: Answer | None = None
        began = time.perf_counter()
        if self._init is None:
            failed = await self._initialise(call)
            init, began = (self._init or 0.0), time.perf_counter()
        self._tell(
            f"START RequestId: {call.id} Version: {self._launched.version}",
            "platform.start",
            {"requestId": call.id, "version": self._launched.version},
        )
        answer = failed or await self._run(call)
        spent = (time.perf_counter() - began) * 1000
        if not self._over:
            await self._settle()
        await self._printed()
        ended = self._ended.done() and not self._ended.cancelled()
        used = self._ended.result().peak_bytes if ended else self._launched.process.usage().memory_bytes
        self._peak = max(self._peak, used or 0)
        status = "timeout" if self._late else "error" if answer.failed and self._over else "success"
        if not self._launched.json:
            self._say(f"END RequestId: {call.id}")
        self._tell(self._report(call, spent, init), "platform.report", self._measured(call, spent, init, status))
        tail, self._tail = b"".join(self._tail)[-_TAIL:], None
        return Outcome(answer.payload, "Unhandled" if answer.failed else "", tail, spent, init)

    async def _initialise(self, call: Invocation) -> Answer | None:
        """Until the runtime asks for an event; an answer if that never comes."""
        try:
            async with asyncio.timeout(_INIT_SECONDS + call.seconds):
                ended = await self._or_end(self._launched.runtime.asks())
        except TimeoutError:
            return await self._slow(call)
        except InitFailed as failed:
            self._over = True
            return Answer(_with_id(failed.payload, call.id), True)
        self._init = (time.perf_counter() - self._begun) * 1000
        return None if ended is None else self._gone(call, ended)

    async def _run(self, call: Invocation) -> Answer:
        now = self._clock()
        event = Event(call.id, call.payload, (now + call.seconds * MICROS) // 1000, call.arn, call.client)
        answer: Answer | None = None

        async def put() -> None:
            nonlocal answer
            answer = await self._launched.runtime.put(event)

        try:
            async with asyncio.timeout(call.seconds):
                ended = await self._or_end(put())
        except TimeoutError:
            return await self._slow(call)
        if answer is not None:
            return answer
        assert ended is not None
        return self._gone(call, ended)

    async def _or_end(self, work: Awaitable[None]) -> Ended | None:
        """Does something, or tells how the program ended meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return None
            return self._ended.result()
        finally:
            task.cancel()

    async def _slow(self, call: Invocation) -> Answer:
        self._over = self._late = True
        await self._launched.process.stop(0)
        said = f"Task timed out after {call.seconds:.2f} seconds"
        self._say(f"{iso(self._clock(), fraction=True)} {call.id} {said}")
        return Answer(_failure("Sandbox.Timedout", f"RequestId: {call.id} Error: {said}"), True)

    def _gone(self, call: Invocation, ended: Ended) -> Answer:
        """The program ended and had not answered."""
        self._over = True
        if ended.oom or ended.exit_code is None or ended.signal == 9:
            why = "Runtime exited with error: signal: killed"
        elif ended.signal is not None:
            why = f"Runtime exited with error: signal: {ended.signal}"
        elif ended.exit_code:
            why = f"Runtime exited with error: exit status {ended.exit_code}"
        else:
            why = "Runtime exited without providing a reason"
        self._say(f"RequestId: {call.id} Error: {why}\nRuntime.ExitError")
        return Answer(_failure("Runtime.ExitError", f"RequestId: {call.id} Error: {why}"), True)

    async def _settle(self) -> None:
        """Until the runtime asks for another event: so what it printed before has been printed."""
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                if await self._or_end(self._launched.runtime.asks()) is not None:
                    self._over = True
        except TimeoutError:
            self._over = True  # it does something else, and nobody waits for that

    async def _printed(self) -> None:
        if self._ended.done():
            await asyncio.wait({self._reading}, timeout=1.0)
            return
        for _ in range(3):  # what lies in the pipe is read, cut into lines, and told
            await asyncio.sleep(0)

    def _tell(self, text: str, kind: str, record: dict[str, Any]) -> None:
        """A line of the platform's own, as the function wants its log (Lambda Developer Guide, "Structured JSON logs")."""
        if self._launched.json:
            told = {"time": f"{iso(self._clock(), fraction=True)[:-4]}Z", "type": kind, "record": record}
            text = orjson.dumps(told).decode()
        self._say(text)

    def _measured(self, call: Invocation, spent: float, init: float, status: str) -> dict[str, Any]:
        metrics = {
            "durationMs": round(spent, 3),
            "billedDurationMs": math.ceil(spent + init),
            "memorySizeMB": self._launched.memory_mib,
            "maxMemoryUsedMB": math.ceil(self._peak / _MIB),
        }
        if init:
            metrics["initDurationMs"] = round(init, 3)
        return {"requestId": call.id, "metrics": metrics, "status": status}

    def _report(self, call: Invocation, spent: float, init: float) -> str:
        words = [
            f"REPORT RequestId: {call.id}",
            f"Duration: {spent:.2f} ms",
            f"Billed Duration: {math.ceil(spent + init)} ms",
            f"Memory Size: {self._launched.memory_mib} MB",
            f"Max Memory Used: {math.ceil(self._peak / _MIB)} MB",
        ]
        if init:
            words.append(f"Init Duration: {init:.2f} ms")
        return "\t".join(words) + "\t"

    # -- between events --------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Nothing of it runs until it is thawed."""
        if not self._frozen:
            self._frozen = True
            self._launched.process.freeze()

    def thaw(self) -> None:
        """It runs again."""
        if self._frozen:
            self._frozen = False
            self._launched.process.thaw()

    async def end(self) -> None:
        """Ends it, and frees what it held. Asking twice is fine."""
        self._over = True
        try:
            await self._launched.process.stop(0)
            await asyncio.wait({self._reading, self._ended}, timeout=2.0)
        finally:
            self._reading.cancel()
            self._launched.runtime.close()
            try:
                await self._launched.close()
            except Exception:
                _log.exception("an execution environment could not be cleared away")


def _failure(type: str, message: str) -> bytes:
    return orjson.dumps({"errorType": type, "errorMessage": message})


def _with_id(payload: bytes, id: str) -> bytes:
    """An error of a runtime's beginning, with the id of the request that met it."""
    try:
        told = orjson.loads(payload)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        return _failure("Runtime.Unknown", f"RequestId: {id} Error: the runtime could not begin")
    if told.get("requestId") == "":
        told["requestId"] = id
    return orjson.dumps(told)
