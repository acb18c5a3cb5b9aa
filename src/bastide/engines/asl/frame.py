"""What an execution remembers between two transitions: plain data, which whoever keeps it writes as JSON.

Each branch and each iteration that runs is a frame, a line of states with an end of its own; the first has no parent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bastide.domain import Instant

ENTER = "enter"
"""The state is to be entered."""
WORK = "work"
"""The state was entered, and is to do its work (again)."""
WAIT = "wait"
"""A Wait state, until `due`."""
RETRY = "retry"
"""A state that failed and is tried again at `due`."""
TASK = "task"
"""A task is under way somewhere else."""
CHILDREN = "children"
"""Branches or iterations run."""
OVER = "over"
"""It failed for good, or was given up; a redrive enters its state anew."""
READY = (ENTER, WORK)


@dataclass(slots=True)
class Frame:
    """A line of states. at: where its states stand in the definition. text: the input as it was written, while nobody has
    changed it. prev: the event before the next one. serial: the event that scheduled the task under way."""

    id: int
    parent: int
    index: int
    at: list[str | int]
    state: str
    input: Any
    prev: int
    text: str | None = None
    phase: str = ENTER
    names: dict[str, Any] = field(default_factory=dict)
    item: dict[str, Any] | None = None
    entered: int = 0
    before: int = 0
    entered_at: Instant = 0
    due: Instant = 0
    ends: Instant = 0
    beat: int = 0
    beats: Instant = 0
    tries: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    serial: int = 0
    call: dict[str, Any] | None = None
    submitted: bool = False
    effective: Any = None
    items: list[Any] | None = None
    results: list[Any] | None = None
    next: int = 0
    running: int = 0
    width: int = 0

    def fresh(self) -> None:
        """Forgets what a state knew of its work."""
        self.due = self.ends = self.beats = self.beat = self.serial = self.next = self.running = self.width = 0
        self.call = self.items = self.results = self.effective = None
        self.submitted = False

    def times(self) -> list[Instant]:
        """When something is due of itself."""
        if self.phase in (WAIT, RETRY):
            return [self.due]
        if self.phase == TASK:
            return [one for one in (self.ends, self.beats) if one]
        return []


@dataclass(slots=True)
class Memory:
    """All of an execution's frames, and how it stands. status: RUNNING, or how it ended."""

    events: int = 0
    frames: dict[int, Frame] = field(default_factory=dict)
    last_frame: int = 0
    status: str = "RUNNING"
    output: str | None = None
    error: str | None = None
    cause: str | None = None
    redrives: int = 0
    redriven_at: Instant = 0
    ends: Instant = 0
    runtime: bool = False
    """It ended by an error of ours or of the definition, and cannot be redriven."""

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "frames"}
        found["frames"] = [asdict_shallow(one) for one in self.frames.values()]
        return found

    @classmethod
    def read(cls, told: dict[str, Any]) -> Memory:
        """What `told` wrote."""
        frames = {one["id"]: Frame(**one) for one in told["frames"]}
        return cls(**{**told, "frames": frames})


def asdict_shallow(frame: Frame) -> dict[str, Any]:
    """A frame's fields, those that say something, without copying what they hold."""
    return {
        name: value
        for name in Frame.__slots__
        if (value := getattr(frame, name)) or name in ("id", "parent", "index", "at", "state", "input", "prev", "names")
    }


__all__ = ["CHILDREN", "ENTER", "OVER", "READY", "RETRY", "TASK", "WAIT", "WORK", "Frame", "Memory"]
