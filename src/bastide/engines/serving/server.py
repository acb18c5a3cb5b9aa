"""One server of a variant: its containers under supervision, and the way of a call through them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bastide.engines.serving.client import Answer, Body, Client, Lost
from bastide.engines.serving.models import Loaded, Models, NoModel

_log = logging.getLogger("bastide.serving")

_PING_SECONDS: Final = 2.0
_PING_EVERY: Final = 10.0
_MOST_MISSED: Final = 3
_LONGEST_BACK_OFF: Final = 60.0
MOST_ANSWER: Final = 25 << 20
_ONLY_LAST: Final = frozenset(("accept",))


class Unhealthy(Exception):  # noqa: N818
    """A server did not come up; `variant` says whose."""

    def __init__(self, variant: str, why: str) -> None:
        super().__init__(f"{variant}: {why}")
        self.variant = variant
        self.why = why


class Ended(Unhealthy):
    """Its process ended before it was well."""


class NotReady(Exception):  # noqa: N818
    """There is no such variant or container (missing), or none of its servers is up."""

    def __init__(self, missing: str = "") -> None:
        super().__init__(missing or "not ready")
        self.missing = missing


class Loading(Exception):  # noqa: N818
    """What is to answer is being started or loaded still."""


class Slow(Exception):  # noqa: N818
    """A container did not answer in time; `container` says which."""

    def __init__(self, container: str) -> None:
        super().__init__(container)
        self.container = container


class Process(Protocol):
    """A started server."""

    async def wait(self) -> object:
        """Until it is gone."""
        ...

    async def stop(self, grace: float) -> None:
        """Asks it to end, and ends it after `grace` seconds."""
        ...


@dataclass(slots=True)
class Container:
    """A program of an instance. name: what errors and callers call it. launch: starts it, also again. socket: where it will
    listen. tell: takes a line that its owner is to read. models: where its models come from, if it has several;
    keep: they stay loaded. most: bytes of an answer. ping: the path that answers 200 while it is well."""

    name: str
    launch: Callable[[], Awaitable[Process]]
    socket: Path
    tell: Callable[[str], Awaitable[None]] | None = None
    models: Models | None = None
    keep: bool = True
    most: int = MOST_ANSWER
    ping: str = "/ping"


@dataclass(slots=True)
class Instance:
    """A server as it is deployed: containers, which a call walks through in their order. close: frees what they used, after
    their last end."""

    containers: Sequence[Container]
    close: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Invocation:
    """A call. variant, model, container: which ones are meant, if it says so. session: the one it belongs to. seconds:
    until the answer. at: when it came in (microseconds, wall). id: what its caller calls it.
    pieces: a body that is sent as it comes, in place of `body`."""

    headers: Sequence[tuple[str, str]]
    body: bytes
    variant: str | None = None
    model: str | None = None
    container: str | None = None
    session: str | None = None
    seconds: float = 60.0
    at: int = 0
    id: str | None = None
    began: float = field(default=0.0)
    pieces: AsyncIterator[bytes] | None = None

    @property
    def content(self) -> Body:
        """What is sent."""
        return self.body if self.pieces is None else self.pieces


class Supervised:
    """A container, started again when it falls or answers no ping."""

    def __init__(self, variant: str, container: Container, seconds: float) -> None:
        self.variant = variant
        self.container = container
        self.client = Client(container.socket, container.most)
        self.loaded = Loaded(self.client, container.models, container.keep) if container.models is not None else None
        self.ready = False
        self._seconds = seconds
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Until it is well for the first time; raises Unhealthy. From then on it is supervised."""
        try:
            await self._begin()
        except Ended:
            # As SageMaker does, it is started again; whoever ends a second time ends for a reason of its own.
            _log.warning("%s: a server ended before it answered; it is started again", self.variant)
            await self._begin()
        name = f"server {self.container.socket}"
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=name)

    async def _begin(self) -> None:
        self._process = await self.container.launch()
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(self._seconds):
                pause = 0.01
                while not await self._well():
                    if ended.done():
                        raise Ended(self.variant, "its server ended before it answered")
                    await asyncio.wait({ended}, timeout=pause)
                    pause = min(pause * 1.5, 0.05)
        except TimeoutError:
            raise Unhealthy(self.variant, f"its server was not well within {self._seconds:.0f} s") from None
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
        self.ready = True

    async def _well(self) -> bool:
        try:
            answer = await self.client.request("GET", self.container.ping, (), b"", seconds=_PING_SECONDS)
        except (Lost, TimeoutError):
            return False
        return answer.status == 200

    async def _until_down(self, process: Process) -> str:
        """Why it has to be started again."""
        ended = asyncio.ensure_future(process.wait())
        missed = 0
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=_PING_EVERY)
                if done:
                    return "ended"
                missed = 0 if await self._well() else missed + 1
                self.ready = self.ready or not missed
                if missed >= _MOST_MISSED:
                    return f"answered none of {missed} pings"
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _supervise(self) -> None:
        back_off = 1.0
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            why = await self._until_down(self._process)
            self.ready = False
            self.client.close()
            if self.loaded is not None:
                self.loaded.clear()
            await self._process.stop(0)
            if loop.time() - began > _LONGEST_BACK_OFF:
                back_off = 1.0
            await self._tell(f"The server of {self.container.name} {why}; it is started again in {back_off:.0f} s.")
            while True:
                await asyncio.sleep(back_off)
                back_off = min(back_off * 2, _LONGEST_BACK_OFF)
                try:
                    await self._begin()
                    await self._tell(f"The server of {self.container.name} answers again.")
                    break
                except Exception as error:
                    _log.warning("a server of %s did not come up again: %s", self.variant, error)
                    why = error.why if isinstance(error, Unhealthy) else "it could not be started"
                    await self._tell(
                        f"The server of {self.container.name} did not come up: {why}. The next try is in {back_off:.0f} s."
                    )
                    if self._process is not None:
                        await self._process.stop(0)

    async def _tell(self, line: str) -> None:
        _log.warning("%s: %s", self.variant, line)
        if self.container.tell is not None:
            try:
                await self.container.tell(line)
            except Exception:
                _log.exception("a line for the log of %s was lost", self.variant)

    async def close(self, grace: float) -> None:
        self.ready = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.client.close()
        if self.loaded is not None:
            self.loaded.clear()
        process, self._process = self._process, None
        if process is not None:
            await process.stop(grace)


class Server:
    """One instance that answers."""

    def __init__(self, variant: str, instance: Instance, healthy_seconds: float, *, direct: bool = False) -> None:
        """direct: a call goes to the one container that it names, and not through all."""
        self.variant = variant
        self.flying = 0
        self.leaving = False
        self.idle_since = 0.0
        self._direct = direct
        self._instance = instance
        self._containers = [Supervised(variant, one, healthy_seconds) for one in instance.containers]
        self._only = self._containers[0] if len(self._containers) == 1 else None
        self._free = asyncio.Event()
        self._free.set()

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        if self.leaving:
            return False
        return self._only.ready if self._only is not None else all(one.ready for one in self._containers)

    async def start(self) -> None:
        """Until all containers are well; raises Unhealthy, and whatever `launch` raises."""
        tasks = [asyncio.ensure_future(one.start()) for one in self._containers]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def take(self) -> None:
        """A call is on its way to it."""
        self.flying += 1
        self._free.clear()

    def give(self) -> None:
        """The call is over."""
        self.flying -= 1
        if not self.flying:
            self.idle_since = asyncio.get_running_loop().time()
            self._free.set()

    def _path(self, call: Invocation) -> list[Supervised]:
        if self._direct:
            if call.container is None:
                raise NotReady(
                    "TargetContainerHostname is needed: the containers of this endpoint are invoked directly."
                )
            found = [one for one in self._containers if one.container.name == call.container]
            if not found:
                raise NotReady(f"The endpoint has no container {call.container}.")
            return found
        if call.container is not None:
            raise NotReady("TargetContainerHostname is for models whose InferenceExecutionConfig is Direct.")
        return self._containers

    async def call(self, call: Invocation) -> Answer:
        """The answer of the last container, or of the first that refuses. Raises Lost, Slow, NotReady,
        Loading, NoModel and NotLoaded."""
        only = self._only
        if only is not None and not self._direct and call.container is None:
            return await self._ask(only, call.headers, call.content, call, call.seconds)
        loop = asyncio.get_running_loop()
        until = loop.time() + call.seconds
        headers, body, answer = call.headers, call.content, Answer()
        path = self._path(call)
        for one in path:
            told = _for(headers, last=one is path[-1])
            answer = await self._ask(one, told, body, call, until - loop.time())
            if not 200 <= answer.status < 300:
                break
            body, headers = answer.body, _onwards(call.headers, answer)
        return answer

    async def _ask(
        self, one: Supervised, headers: Sequence[tuple[str, str]], body: Body, call: Invocation, seconds: float
    ) -> Answer:
        try:
            if one.loaded is not None:
                if call.model is None:
                    raise NoModel("TargetModel is needed: the endpoint serves several models.")
                assert isinstance(body, bytes)
                found = await one.loaded.invoke(call.model, headers, body, seconds=seconds)
                if found is None:
                    raise Loading
                answer = found
            else:
                if call.model is not None:
                    raise NoModel("TargetModel is for endpoints that serve several models.")
                answer = await one.client.request("POST", "/invocations", headers, body, seconds=seconds)
        except Lost as lost:
            lost.container = one.container.name
            if lost.unsent and one.ready:
                one.ready = False  # until it answers a ping, or is started again
                _log.warning("a server of %s is not asked for now: %s", self.variant, lost)
            raise
        except TimeoutError:
            raise Slow(one.container.name) from None
        answer.container = one.container.name
        return answer

    async def get(self, path: str, seconds: float) -> Answer:
        """What its first container says of itself. Raises Lost and TimeoutError."""
        return await self._containers[0].client.request("GET", path, (), b"", seconds=seconds)

    async def stream(self, call: Invocation) -> tuple[Answer, AsyncIterator[bytes]]:
        """Like `call`, with the body of the last container's answer in pieces."""
        loop = asyncio.get_running_loop()
        until = loop.time() + call.seconds
        headers, body = call.headers, call.content
        path = self._path(call)
        for one in path[:-1]:
            answer = await self._ask(one, _for(headers, last=False), body, call, until - loop.time())
            if not 200 <= answer.status < 300:
                return answer, _whole(answer.body)
            body, headers = answer.body, _onwards(call.headers, answer)
        last = path[-1]
        if last.loaded is not None:
            raise NoModel("Endpoints that serve several models do not stream.")
        try:
            answer, pieces = await last.client.stream(
                "POST", "/invocations", headers, body, seconds=max(0.001, until - loop.time())
            )
        except Lost as lost:
            lost.container = last.container.name
            raise
        except TimeoutError:
            raise Slow(last.container.name) from None
        answer.container = last.container.name
        return answer, pieces

    async def close(self, grace: float, drain: float = 0.0) -> None:
        """Ends it: at once for new calls, after those that are being answered, for which it waits `drain` seconds."""
        self.leaving = True
        if drain and self.flying:
            try:
                async with asyncio.timeout(drain):
                    await self._free.wait()
            except TimeoutError:
                _log.warning("a server of %s ends while calls wait for it", self.variant)
        await asyncio.gather(*(one.close(grace) for one in self._containers), return_exceptions=True)
        await self._instance.close()


def _for(headers: Sequence[tuple[str, str]], *, last: bool) -> Sequence[tuple[str, str]]:
    """What the caller accepts is the last container's business; those before it answer in their own way."""
    return headers if last else [one for one in headers if one[0] not in _ONLY_LAST]


def _onwards(headers: Sequence[tuple[str, str]], answer: Answer) -> list[tuple[str, str]]:
    """The headers for the next container: the answer's content type is its request's."""
    rest = [one for one in headers if one[0] != "content-type"]
    kind = answer.headers.get("content-type")
    return [*rest, ("content-type", kind)] if kind else rest


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body
