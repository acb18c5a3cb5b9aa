"""The environments of all functions: how many may run, which are warm, when one is let go of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from bastide.domain import Clock
from bastide.engines.functions.environment import Environment, Invocation, Launched, Outcome

_log = logging.getLogger("bastide.functions")

_ROUND_SECONDS: Final = 5.0
Launch = Callable[[], Awaitable[Launched]]


class Full(Exception):  # noqa: N818
    """As many events of it are being handled as may be. reserved: by the function's own limit."""

    def __init__(self, *, reserved: bool) -> None:
        super().__init__("too many at once")
        self.reserved = reserved


class Functions:
    """Handles events. `key` says what may be reused for what: an environment of one key never sees an event of another.

    idle_seconds: how long an environment waits for another event. most_idle: how many wait, of all functions together.
    """

    def __init__(self, clock: Clock, *, idle_seconds: float = 300.0, most_idle: int = 64) -> None:
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._most_idle = most_idle
        self._idle: dict[str, list[Environment]] = {}
        self._busy: set[Environment] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._flying: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to let go of what waits too long."""
        self._task = asyncio.get_running_loop().create_task(self._reap(), name="functions")

    async def close(self) -> None:
        """Ends all environments, whatever they do."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for one in [*self._busy, *(one for many in self._idle.values() for one in many)]:
            self._end(one)
        self._idle.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    def flying(self, group: str) -> int:
        """How many events of a group are being handled now."""
        return self._flying[group]

    async def invoke(
        self, key: str, launch: Launch, call: Invocation, *, groups: tuple[str, ...], limits: tuple[int, ...]
    ) -> Outcome:
        """What comes of an event, in an environment that is warm or made by `launch`.

        groups, limits: how many events of each group may be handled at once; the first is the function's own. Raises Full,
        and what `launch` raises.
        """
        for number, (group, limit) in enumerate(zip(groups, limits, strict=True)):
            if self._flying[group] >= limit:
                raise Full(reserved=number == 0)
        self._flying.update(groups)
        environment: Environment | None = None
        try:
            environment = self._take(key)
            if environment is None:
                environment = Environment(await launch(), self._clock)
                self._busy.add(environment)
            return await environment.handle(call)
        except BaseException:
            if environment is not None:
                self._busy.discard(environment)
                self._end(environment)
                environment = None
            raise
        finally:
            self._flying.subtract(groups)
            for group in groups:
                if not self._flying[group]:
                    del self._flying[group]
            if environment is not None:
                self._give(key, environment)

    def _take(self, key: str) -> Environment | None:
        waiting = self._idle.get(key, [])
        while waiting:
            found = waiting.pop()
            if not waiting:
                self._idle.pop(key, None)
            if found.usable:
                self._busy.add(found)
                return found
            self._end(found)
        return None

    def _give(self, key: str, environment: Environment) -> None:
        self._busy.discard(environment)
        if self._closed or not environment.usable:
            self._end(environment)
            return
        environment.freeze()
        environment.idle_since = time.monotonic()
        self._idle.setdefault(key, []).append(environment)
        if sum(map(len, self._idle.values())) > self._most_idle:
            self.spare()

    def spare(self) -> bool:
        """Ends the environment that has waited longest; False if none waits."""
        found = min(
            ((one.idle_since, key, one) for key, many in self._idle.items() for one in many),
            key=lambda told: told[0],
            default=None,
        )
        if found is None:
            return False
        self._drop(found[1], found[2])
        return True

    def forget(self, prefix: str) -> None:
        """Ends the environments that wait under keys that begin so: nobody asks for these any more."""
        for key in [one for one in self._idle if one.startswith(prefix)]:
            for environment in self._idle.pop(key):
                self._end(environment)

    def _drop(self, key: str, environment: Environment) -> None:
        many = self._idle[key]
        many.remove(environment)
        if not many:
            del self._idle[key]
        self._end(environment)

    def _end(self, environment: Environment) -> None:
        task = asyncio.get_running_loop().create_task(environment.end())
        self._ending.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an execution environment could not be ended", exc_info=error)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            oldest = time.monotonic() - self._idle_seconds
            for key, many in list(self._idle.items()):
                for environment in list(many):
                    if environment.idle_since < oldest or not environment.usable:
                        self._drop(key, environment)
