"""What a workflow is made of, and what a step sees while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bastide.domain import Clock, Instant
from bastide.store import Transaction


class Failed(Exception):  # noqa: N818 - an outcome, not a fault of ours
    """A step ends the execution with a reason that its owner may read. code: whose fault, as the service words it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Wait(Exception):  # noqa: N818 - a request to the engine
    """Raised by a step that is to be run again at `until` (or when a signal comes); meanwhile it is only a row."""

    def __init__(self, until: Instant) -> None:
        super().__init__(str(until))
        self.until = until


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an execution failed: in which step, and code and message of the reason. foreseen: somebody planned for it;
    otherwise the message is for the operator's eyes only."""

    step: str
    code: str
    message: str
    foreseen: bool


class Run:
    """An execution as its steps see it.

    id: the execution's. state: JSON, what it was started with and what its steps returned; a step changes it by what it
    returns. failure: why it failed, for the steps that run whatever happened. held: things of this process (a session, a
    sandbox), gone when the process is.
    """

    def __init__(
        self, id: str, state: dict[str, Any], failure: Failure | None, signals: dict[str, Instant], clock: Clock
    ) -> None:
        self.id = id
        self.state = state
        self.failure = failure
        self.held: dict[str, Any] = {}
        self.clock = clock
        self._signals = signals
        self._events: dict[str, asyncio.Event] = {}
        self.works: list[Callable[[Transaction], None]] = []

    def also(self, work: Callable[[Transaction], None]) -> None:
        """Does `work` in the transaction in which this step ends, if it ends well. The work may run more than once."""
        self.works.append(work)

    def asked(self, signal: str) -> bool:
        """Whether the signal has come."""
        return signal in self._signals

    async def signalled(self, signal: str) -> None:
        """Until the signal comes."""
        if signal not in self._signals:
            await self._events.setdefault(signal, asyncio.Event()).wait()

    def tell(self, signals: dict[str, Instant]) -> None:
        """The engine has learned of signals."""
        self._signals.update(signals)
        for name in signals:
            if name in self._events:
                self._events[name].set()


StepFunction = Callable[[Run], Awaitable["dict[str, Any] | None"]]


@dataclass(frozen=True, slots=True)
class Step:
    """A step. run: must be safe to repeat, for a step that a process died in is repeated; what it returns is merged into
    the state. always: runs whatever happened before, and is tried again until it succeeds. again_from: it uses what
    earlier steps hold in their process; another process that takes the execution up goes on from that step instead.
    """

    name: str
    run: StepFunction
    always: bool = False
    again_from: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """Steps in their order. drop: lets go of what a run holds in this process, however it left; must bear repeating."""

    name: str
    steps: Sequence[Step]
    drop: Callable[[Run], Awaitable[None]] | None = None
    index: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for place, step in enumerate(self.steps):
            if step.name in self.index:
                raise ValueError(f"the flow {self.name} has two steps {step.name}")
            self.index[step.name] = place
            if step.again_from and step.again_from not in self.index:
                raise ValueError(f"{step.name} goes on from {step.again_from}, which is not before it")

    def step(self, name: str) -> Step:
        """The step of that name."""
        return self.steps[self.index[name]]

    def after(self, name: str, failed: bool) -> str:
        """The step behind, or after a failure the next that always runs; empty at the end."""
        for step in self.steps[self.index[name] + 1 :]:
            if step.always or not failed:
                return step.name
        return ""
