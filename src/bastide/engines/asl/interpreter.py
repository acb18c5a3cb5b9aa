"""Takes an execution from one transition to the next. It knows time and tokens as it is given them, and does nothing
itself: what is to be done elsewhere (calls, runs of a distributed map) stands in the frames as `call`, and is told as an
effect.

`advance` works until everything waits for something or enough was done at once; `succeeded`, `failed` and their kin tell
how what was under way ended. After each, `events` are new lines of history, and whoever keeps them keeps the memory with
them, in one piece: then a process that dies takes nothing along.

Source: Amazon States Language; Step Functions API Reference, HistoryEvent; what the recorded histories of the service show.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Instant
from bastide.engines.asl import mapping, working
from bastide.engines.asl.frame import CHILDREN, ENTER, OVER, READY, RETRY, TASK, WAIT, WORK, Frame, Memory
from bastide.engines.asl.problems import HEARTBEAT, LIMIT, RUNTIME, TIMEOUT, Problem, matches
from bastide.engines.asl.scope import Evaluate, Scope
from bastide.engines.asl.values import LARGEST, bounded, dumps, stamp

MOST_EVENTS: Final = 25_000
_LONGEST_DELAY: Final = 31_622_400
_AT_ONCE: Final = 200
_ERROR: Final = 256
_CAUSE: Final = 32768
_VARIABLES: Final = 10 << 20
_BYTES_AT_ONCE: Final = 4 << 20
_WORK: Final = {**working.WORK, "Map": mapping.begin}


@dataclass(slots=True)
class About:
    """What an execution is: what the context object tells of it. input: parsed."""

    arn: str
    name: str
    role: str
    started: Instant
    machine: str
    machine_name: str
    input: Any
    text: str
    region: str = ""
    context: dict[str, Any] | None = None
    """A context object to show instead (TestState)."""


class Interpreter:
    """One execution. token: a task's token, of its frame and the event that schedules it."""

    def __init__(
        self,
        definition: dict[str, Any],
        memory: Memory,
        about: About,
        evaluate: Evaluate,
        token: Callable[[int, int], str],
        *,
        once: bool = False,
        most_events: int = MOST_EVENTS,
    ) -> None:
        """once: only the first state is worked (TestState)."""
        self.definition = definition
        self.memory = memory
        self.about = about
        self.evaluate = evaluate
        self.token = token
        self.once = once
        self.most_events = most_events
        self.events: list[dict[str, Any]] = []
        self.effects: list[tuple[str, int]] = []
        """``call`` and a frame's id for something to be begun; ``end`` and a serial for something not wanted any more."""
        self.next_state: str | None = None
        self.trace: dict[str, Any] | None = None
        self.caught: int | None = None
        self.now: Instant = 0
        self._told = 0
        """Characters of data in the events of this go."""
        self._ready: deque[int] = deque(one.id for one in memory.frames.values() if one.phase in READY)

    # -- what one sees ---------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether `advance` would do something now."""
        return bool(self._ready) and self.memory.status == "RUNNING"

    def due(self) -> Instant | None:
        """When something will be due of itself."""
        times = [at for frame in self.memory.frames.values() for at in frame.times()]
        if self.memory.ends:
            times.append(self.memory.ends)
        return min(times, default=None) if self.memory.status == "RUNNING" else None

    def machine(self, frame: Frame) -> dict[str, Any]:
        """The states that a frame runs in."""
        found: Any = self.definition
        for key in frame.at:
            found = found[key]
        return dict(found) if not isinstance(found, dict) else found

    def state(self, frame: Frame) -> dict[str, Any]:
        """The state that a frame stands in."""
        found: dict[str, Any] = self.machine(frame)["States"][frame.state]
        return found

    def jsonata(self, state: dict[str, Any]) -> bool:
        """Whether a state's query language is JSONata."""
        language = state.get("QueryLanguage") or self.definition.get("QueryLanguage") or "JSONPath"
        return bool(language == "JSONata")

    def names(self, frame: Frame) -> dict[str, Any]:
        """Variables that a frame sees: its own, and those around it."""
        if not frame.parent:
            return frame.names
        return {**self.names(self.memory.frames[frame.parent]), **frame.names}

    def context(self, frame: Frame) -> dict[str, Any]:
        """The context object."""
        about = self.about
        if about.context is not None:
            return about.context
        state: dict[str, Any] = {"Name": frame.state, "EnteredTime": stamp(frame.entered_at)}
        if self.state(frame)["Type"] in ("Task", "Parallel", "Map"):
            state["RetryCount"] = frame.retried
        execution = {
            "Id": about.arn,
            "Input": about.input,
            "StartTime": stamp(about.started),
            "Name": about.name,
            "RoleArn": about.role,
            "RedriveCount": self.memory.redrives,
        }
        if self.memory.redriven_at:
            execution["RedriveTime"] = stamp(self.memory.redriven_at)
        found: dict[str, Any] = {
            "Execution": execution,
            "StateMachine": {"Id": about.machine, "Name": about.machine_name},
            "State": state,
        }
        item, up = frame.item, frame
        while item is None and up.parent:
            up = self.memory.frames[up.parent]
            item = up.item
        if item is not None:
            found["Map"] = {"Item": item}
        if frame.call is not None and "token" in frame.call:
            found["Task"] = {"Token": frame.call["token"]}
        return found

    def scope(self, frame: Frame, **states: Any) -> Scope:
        """What the expressions of a frame's state see."""
        return Scope(
            frame.state,
            frame.entered,
            self.jsonata(self.state(frame)),
            self.names(frame),
            lambda: self.context(frame),
            self.evaluate,
            {"input": frame.input, **states},
        )

    def note(self, stage: str, value: Any) -> None:
        """Keeps what a state's data are at a stage, for whoever inspects it."""
        if self.trace is not None:
            self.trace[stage] = value

    # -- history ---------------------------------------------------------------------------------------------------------

    def event(self, type: str, prev: int, details: dict[str, Any] | None = None, key: str = "") -> int:
        """Adds a line to the history; its id. Raises Problem when there are as many as there may be."""
        memory = self.memory
        if memory.events >= self.most_events - 1 and not type.startswith("Execution"):
            raise Problem(RUNTIME, f"The execution reached the maximum number of history events ({self.most_events}).")
        memory.events += 1
        told: dict[str, Any] = {
            "id": memory.events,
            "previousEventId": prev,
            "timestamp": self.now,
            "type": type,
        }
        if details is not None:
            told[key or f"{type[0].lower()}{type[1:]}EventDetails"] = details
        self.events.append(told)
        return memory.events

    def begin(self, now: Instant, at: list[str | int] | None = None, names: dict[str, Any] | None = None) -> None:
        """The first event, and the first frame. at: where the states stand, of a distributed map's child."""
        self.now = now
        self.event(
            "ExecutionStarted",
            0,
            {"input": self.about.text, "inputDetails": {"truncated": False}, "roleArn": self.about.role},
        )
        frame = self._frame(0, 0, at or [], self.about.input, 0)
        frame.text = self.about.text
        frame.names = names or {}
        seconds = self.machine(frame).get("TimeoutSeconds")
        if seconds:
            self.memory.ends = now + int(seconds) * MICROS

    def _frame(self, parent: int, index: int, at: list[str | int], input: Any, prev: int) -> Frame:
        self.memory.last_frame += 1
        frame = Frame(self.memory.last_frame, parent, index, at, "", input, prev)
        frame.state = self.machine(frame)["StartAt"]
        self.memory.frames[frame.id] = frame
        self._ready.append(frame.id)
        return frame

    def child(self, parent: Frame, index: int, at: list[str | int], input: Any, prev: int) -> Frame:
        """A branch or an iteration of a frame's state."""
        parent.running += 1
        return self._frame(parent.id, index, [*parent.at, "States", parent.state, *at], input, prev)

    # -- going on --------------------------------------------------------------------------------------------------------

    def advance(self, now: Instant, most: int = _AT_ONCE) -> None:
        """Does what is ready, at most so many events of it."""
        self.now = max(self.now, now)
        self._overdue()
        until, self._told = self.memory.events + most, 0
        while self._ready and self.memory.status == "RUNNING" and self.memory.events < until:
            if self._told > _BYTES_AT_ONCE:
                return
            frame = self.memory.frames.get(self._ready.popleft())
            if frame is None or frame.phase not in READY:
                continue
            self._guarded(frame, Interpreter._step)
            if self.once:
                return

    def _guarded(self, frame: Frame, work: Callable[..., None], *given: Any) -> None:
        try:
            work(self, frame, *given)
        except Problem as problem:
            self._problem(frame, problem)
        except RecursionError:
            self._problem(frame, Problem(RUNTIME, f"The data of the state '{frame.state}' is nested too deeply."))

    def _problem(self, frame: Frame, problem: Problem) -> None:
        try:
            self._failed(frame, problem)
        except Problem as second:  # of a Catch that cannot be followed, or a history that is full
            self._end_failed(frame.prev, second)

    def _step(self, frame: Frame) -> None:
        state = self.state(frame)
        if frame.phase == ENTER:
            self._entered(frame, state)
        frame.phase = WORK
        _WORK[state["Type"]](self, frame, state)

    def _entered(self, frame: Frame, state: dict[str, Any]) -> None:
        frame.fresh()
        frame.tries, frame.retried = {}, 0
        frame.before, frame.entered_at = frame.prev, self.now
        text = frame.text if frame.text is not None else dumps(frame.input)
        self._told += len(text)
        frame.entered = self.event(
            f"{state['Type']}StateEntered",
            frame.prev,
            {"name": frame.state, "input": text, "inputDetails": {"truncated": False}},
            "stateEnteredEventDetails",
        )
        frame.prev = frame.entered

    def _overdue(self) -> None:
        memory = self.memory
        if memory.status != "RUNNING":
            return
        if memory.ends and memory.ends <= self.now:
            self._end("TIMED_OUT", "ExecutionTimedOut", 0, {"error": TIMEOUT}, error=TIMEOUT)
            return
        for frame in list(memory.frames.values()):
            if memory.status != "RUNNING" or frame.id not in memory.frames:
                continue
            if frame.phase == RETRY and frame.due <= self.now:
                frame.phase = WORK
                self._ready.append(frame.id)
            elif frame.phase == WAIT and frame.due <= self.now:
                self._guarded(frame, working.waited)
            elif frame.phase == TASK and (
                late := [one for one in (frame.ends, frame.beats) if one and one <= self.now]
            ):
                name = TIMEOUT if frame.ends in late else HEARTBEAT
                self._guarded(frame, working.timed_out, Problem(name, None))

    # -- leaving a state -------------------------------------------------------------------------------------------------

    def leave(
        self, frame: Frame, state: dict[str, Any], output: Any, following: str | None, assigned: dict[str, Any] | None
    ) -> None:
        """The state has an output: variables are assigned, it is told, and the next one is entered or the line ends."""
        text = frame.text if output is frame.input and frame.text is not None else bounded(dumps(output), frame.state)
        self._told += len(text)
        details: dict[str, Any] = {"name": frame.state, "output": text, "outputDetails": {"truncated": False}}
        if assigned:
            frame.names = {**frame.names, **assigned}
            details["assignedVariables"] = {name: dumps(value) for name, value in assigned.items()}
            details["assignedVariablesDetails"] = {"truncated": False}
            held = sum(map(len, details["assignedVariables"].values()))
            if held > LARGEST or (held and len(dumps(frame.names)) > _VARIABLES):
                raise Problem(
                    LIMIT, f"The variables that the state '{frame.state}' assigns exceed the limit of their size."
                )
        frame.prev = self.event(f"{state['Type']}StateExited", frame.prev, details, "stateExitedEventDetails")
        frame.fresh()
        frame.tries, frame.retried = {}, 0
        frame.input, frame.text = output, text if output is frame.input else None
        if self.once:
            self.next_state = following
            self.memory.status, self.memory.output = "SUCCEEDED", text
            return
        if following is not None:
            frame.state, frame.phase = following, ENTER
            self._ready.append(frame.id)
            return
        if frame.parent:
            del self.memory.frames[frame.id]
            parent = self.memory.frames[frame.parent]
            parent.running -= 1
            self._guarded(parent, mapping.finished if self.state(parent)["Type"] == "Map" else working.joined, frame)
            return
        self.memory.status, self.memory.output = "SUCCEEDED", text
        frame.phase = OVER
        self.event("ExecutionSucceeded", frame.prev, {"output": text, "outputDetails": {"truncated": False}})

    # -- failing ---------------------------------------------------------------------------------------------------------

    def _failed(self, frame: Frame, problem: Problem) -> None:
        """Looks for whoever planned for it: the state's own Retry and Catch, then those of the states around it."""
        if problem.evaluation:
            details: dict[str, Any] = {"error": problem.error, "cause": problem.cause, "state": frame.state}
            if problem.place:
                details["location"] = problem.place[:_ERROR]
            frame.prev = self.event("EvaluationFailed", frame.before, details)
        if problem.error == RUNTIME:
            self._end_failed(frame.prev, problem)
            return
        here = frame
        while True:
            state = self.state(here)
            if self._retry(here, state, problem):
                return
            if state["Type"] in ("Map", "Parallel"):
                here.prev = self.event(f"{state['Type']}StateFailed", here.prev)
            if self._catch(here, state, problem):
                return
            if not here.parent:
                break
            above = self.memory.frames[here.parent]
            if self.state(above)["Type"] == "Map":
                details = {"name": above.state, "index": here.index}
                self.event("MapIterationFailed", here.prev, details)
            above.prev = here.prev
            here.phase = OVER
            self._abandon(above)
            here = above
        self._end_failed(here.prev, problem)

    def _abandon(self, above: Frame) -> None:
        """What else runs below a frame is given up; it stays remembered until the frame's state goes on."""
        for frame in list(self.memory.frames.values()):
            if frame.phase == OVER or not self._below(frame, above):
                continue
            if frame.phase == TASK:
                self.effects.append(("end", frame.serial))
            if frame.phase in (TASK, WAIT, CHILDREN):
                self.event(f"{self.state(frame)['Type']}StateAborted", frame.prev)
                if frame.parent == above.id and self.state(above)["Type"] == "Map":
                    details = {"name": above.state, "index": frame.index}
                    self.event("MapIterationAborted", frame.prev, details)
            frame.phase = OVER

    def _below(self, frame: Frame, above: Frame) -> bool:
        while frame.parent:
            if frame.parent == above.id:
                return True
            frame = self.memory.frames[frame.parent]
        return False

    def forget_below(self, above: Frame) -> None:
        """Removes all frames below one."""
        for frame in [one for one in self.memory.frames.values() if self._below(one, above)]:
            if frame.phase == TASK:
                self.effects.append(("end", frame.serial))
            frame.phase = "gone"
        gone = [one.id for one in self.memory.frames.values() if one.phase == "gone"]
        for id_ in gone:
            del self.memory.frames[id_]

    def _retry(self, frame: Frame, state: dict[str, Any], problem: Problem) -> bool:
        for place, retrier in enumerate(state.get("Retry") or ()):
            if not matches(problem, retrier["ErrorEquals"]):
                continue
            tried = frame.tries.get(str(place), 0)
            most = retrier.get("MaxAttempts", 3)
            if tried + self.about_retries() >= most:
                self.note("errorDetails", {"retryIndex": place})
                return False
            if self.once:
                frame.tries[str(place)] = tried + 1
            delay = min(
                float(retrier.get("IntervalSeconds", 1))
                * float(retrier.get("BackoffRate", 2.0)) ** min(tried + self.about_retries(), 1000),
                float(retrier.get("MaxDelaySeconds", _LONGEST_DELAY)),
                float(_LONGEST_DELAY),
            )
            if retrier.get("JitterStrategy") == "FULL":
                delay = random.uniform(0, delay)  # noqa: S311 - to spread load
            self.forget_below(frame)
            tries, retried = {**frame.tries, str(place): tried + 1}, frame.retried + 1
            frame.fresh()
            frame.tries, frame.retried = tries, retried
            frame.phase, frame.due = RETRY, self.now + int(delay * MICROS)
            self.note("errorDetails", {"retryIndex": place, "retryBackoffIntervalSeconds": int(delay)})
            if self.once:
                self.memory.status, self.memory.error, self.memory.cause = "RETRIABLE", problem.error, problem.cause
            return True
        return False

    def about_retries(self) -> int:
        """Retries that were before this execution saw any (TestState's retrierRetryCount)."""
        return 0

    def _catch(self, frame: Frame, state: dict[str, Any], problem: Problem) -> bool:
        for place, catcher in enumerate(state.get("Catch") or ()):
            if not matches(problem, catcher["ErrorEquals"]):
                continue
            told = {"Error": problem.error or "", "Cause": problem.cause or ""}
            self.forget_below(frame)
            scope = self.scope(frame, errorOutput=told)
            if scope.jsonata:
                output = scope.query(catcher["Output"], f"Catch[{place}]/Output") if "Output" in catcher else told
                assigned = scope.query(catcher["Assign"], "Assign") if "Assign" in catcher else None
            else:
                output = scope.placed(catcher.get("ResultPath", "$"), frame.input, told)
                assigned = scope.template(catcher["Assign"], told) if "Assign" in catcher else None
            self.caught = place
            if self.once:
                self.memory.status, self.next_state = "CAUGHT_ERROR", catcher["Next"]
                self.memory.error, self.memory.cause, self.memory.output = problem.error, problem.cause, dumps(output)
                self.note("errorDetails", {"catchIndex": place})
                return True
            self.leave(frame, state, output, catcher["Next"], assigned)
            return True
        return False

    def _end_failed(self, prev: int, problem: Problem) -> None:
        self.memory.runtime = problem.error == RUNTIME
        details = {"error": problem.error, "cause": problem.cause}
        told = {name: value for name, value in details.items() if value is not None}
        self._end("FAILED", "ExecutionFailed", prev, told, error=problem.error, cause=problem.cause)

    def _end(
        self,
        status: str,
        event: str,
        prev: int,
        details: dict[str, Any],
        *,
        error: str | None = None,
        cause: str | None = None,
    ) -> None:
        memory = self.memory
        memory.status, memory.error, memory.cause = status, error, cause
        for frame in memory.frames.values():
            if frame.phase == TASK:
                self.effects.append(("end", frame.serial))
            if frame.phase != CHILDREN:
                frame.phase = OVER
        self.event(event, prev, details)

    # -- from outside ----------------------------------------------------------------------------------------------------

    def abort(self, now: Instant, error: str | None, cause: str | None) -> None:
        """Somebody stops it."""
        self.now = max(self.now, now)
        told = {name: value for name, value in (("error", error), ("cause", cause)) if value is not None}
        self._end("ABORTED", "ExecutionAborted", 0, told, error=error, cause=cause)

    def too_large(self) -> None:
        """What it remembers is more than anybody keeps."""
        cause = "The data of the execution's branches and iterations together exceed the limit of their size."
        self._end_failed(0, Problem(LIMIT, cause))
        self.memory.frames.clear()

    def redrive(self, now: Instant, seconds: int | None) -> None:
        """It goes on from the states in which it failed, was stopped or ran out of time."""
        self.now = max(self.now, now)
        memory = self.memory
        memory.status, memory.error, memory.cause, memory.output = "RUNNING", None, None, None
        memory.redrives, memory.redriven_at, memory.runtime = memory.redrives + 1, now, False
        memory.ends = now + seconds * MICROS if seconds else 0
        self.event("ExecutionRedriven", 0, {"redriveCount": memory.redrives})
        for frame in list(memory.frames.values()):
            if any(one.parent == frame.id for one in memory.frames.values()):
                frame.phase = CHILDREN if frame.phase == OVER else frame.phase
            elif frame.phase in (OVER, CHILDREN) and not mapping.again(frame):
                self.anew(frame)
        for frame in memory.frames.values():
            if frame.phase == CHILDREN:
                frame.running = sum(one.parent == frame.id for one in memory.frames.values())

    def anew(self, frame: Frame) -> None:
        """A frame's state is entered once more."""
        frame.phase = ENTER
        self._ready.append(frame.id)

    def under_way(self, serial: int) -> Frame | None:
        """The frame whose task an event scheduled, if that task is still under way."""
        if self.memory.status != "RUNNING":
            return None
        for frame in list(self.memory.frames.values()):  # a thread may be at work on it
            if frame.phase == TASK and frame.serial == serial:
                return frame
        return None

    def succeeded(self, serial: int, now: Instant, result: Any, text: str | None = None) -> bool:
        """A task has a result; False if nobody waits for it any more."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            self._guarded(frame, working.task_succeeded, result, text)
        return frame is not None

    def failed(self, serial: int, now: Instant, error: str | None, cause: str | None) -> bool:
        """A task failed; False if nobody waits for it any more."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            told = None if error is None else error[:_ERROR], None if cause is None else cause[:_CAUSE]
            self._guarded(frame, working.task_failed, Problem(*told))
        return frame is not None

    def submitted(self, serial: int, now: Instant, output: str) -> bool:
        """A call was taken, and what it began goes on."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            self._guarded(frame, working.task_submitted, output)
        return frame is not None

    def taken(self, serial: int, now: Instant, worker: str | None) -> bool:
        """A worker has an activity's task."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            self._guarded(frame, working.activity_taken, worker)
        return frame is not None

    def beaten(self, serial: int, now: Instant) -> bool:
        """A task gives a sign of life."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None and frame.beat:
            frame.beats = now + frame.beat * MICROS
        return frame is not None

    def run_over(self, serial: int, now: Instant, told: dict[str, Any]) -> None:
        """A distributed map's run is over: its status, and its output or its error and cause."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            self._guarded(frame, mapping.run_over, told)

    def started(self, serial: int, now: Instant, type: str, details: dict[str, Any], key: str = "") -> None:
        """An event of a task under way: of a distributed map's run."""
        self.now = max(self.now, now)
        frame = self.under_way(serial)
        if frame is not None:
            frame.prev = self.event(type, frame.prev, details, key)
