"""What each type of state does.

Source: Amazon States Language, "State Types"; Step Functions API Reference, HistoryEvent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bastide.domain import MICROS
from bastide.engines.asl import choice
from bastide.engines.asl.frame import CHILDREN, TASK, WAIT, Frame
from bastide.engines.asl.problems import NO_MATCH, QUERY, Problem
from bastide.engines.asl.scope import Scope
from bastide.engines.asl.values import bounded, dumps, instant, number, small

if TYPE_CHECKING:
    from bastide.engines.asl.interpreter import Interpreter

LONGEST: Final = 99_999_999
_LAMBDA: Final = ":lambda:"
CALLBACK: Final = ".waitForTaskToken"

State = dict[str, Any]


def following(state: State) -> str | None:
    """The state behind one; None at the end of a line."""
    return None if state.get("End") else state.get("Next")


def effective(m: Interpreter, frame: Frame, state: State, scope: Scope) -> Any:
    """The input behind InputPath."""
    value = scope.path(state.get("InputPath", "$"), frame.input, "InputPath")
    m.note("afterInputPath", value)
    return value


def _exit(m: Interpreter, frame: Frame, state: State, result: Any, has_result: bool = True) -> None:
    """From a result to the output: ResultSelector, ResultPath, OutputPath, or Output; and Assign."""
    if m.jsonata(state):
        scope = m.scope(frame, result=result) if has_result else m.scope(frame)
        output = scope.query(state["Output"], "Output") if "Output" in state else result
        assigned = scope.query(state["Assign"], "Assign") if "Assign" in state else None
    else:
        scope = m.scope(frame)
        if "ResultSelector" in state:
            result = scope.template(state["ResultSelector"], result)
        m.note("afterResultSelector", result)
        placed = scope.placed(state.get("ResultPath", "$"), frame.input, result)
        m.note("afterResultPath", placed)
        output = scope.path(state.get("OutputPath", "$"), placed, "OutputPath")
        assigned = scope.template(state["Assign"], result) if "Assign" in state else None
    m.leave(frame, state, output, following(state), assigned)


def _plain_exit(
    m: Interpreter, frame: Frame, state: State, scope: Scope, value: Any, to: str | None, how: State
) -> None:
    """Of states without a result. how: whose Assign and Output count, a choice's rule or the state itself."""
    if scope.jsonata:
        source = how if "Output" in how else state
        output = scope.query(source["Output"], "Output") if "Output" in source else frame.input
        assigned = scope.query(how["Assign"], "Assign") if "Assign" in how else None
    else:
        output = scope.path(state.get("OutputPath", "$"), value, "OutputPath")
        assigned = scope.template(how["Assign"], value) if "Assign" in how else None
    m.leave(frame, state, output, to, assigned)


# -- states that need nobody ---------------------------------------------------------------------------------------------


def _pass(m: Interpreter, frame: Frame, state: State) -> None:
    if m.jsonata(state):
        _exit(m, frame, state, frame.input, has_result=False)
        return
    scope = m.scope(frame)
    value = scope.path(state.get("InputPath", "$"), frame.input, "InputPath")
    filled = scope.template(state["Parameters"], value) if "Parameters" in state else value
    if "Result" in state:
        m.note("result", state["Result"])
        result = state["Result"]
    else:
        m.note("afterInputPath", value)
        m.note("afterParameters", filled)
        result = filled
    _exit(m, frame, state, result)


def _choice(m: Interpreter, frame: Frame, state: State) -> None:
    scope = m.scope(frame)
    value = frame.input if scope.jsonata else effective(m, frame, state, scope)
    for place, rule in enumerate(state["Choices"]):
        if scope.jsonata:
            held = rule["Condition"]
            holds = scope.query(held, f"Choices[{place}]/Condition", "boolean") if isinstance(held, str) else held
        else:
            holds = choice.holds(rule, value, scope)
        if holds:
            _plain_exit(m, frame, state, scope, value, rule["Next"], rule)
            return
    if "Default" not in state:
        raise Problem(
            NO_MATCH,
            f"{scope.prefix}Failed to transition out of the state. The state does not point to a next state.",
        )
    _plain_exit(m, frame, state, scope, value, state["Default"], state)


def _wait(m: Interpreter, frame: Frame, state: State) -> None:
    scope = m.scope(frame)
    value = frame.input if scope.jsonata else effective(m, frame, state, scope)
    if "Timestamp" in state or "TimestampPath" in state:
        until = _timestamp(state, scope, value)
    else:
        until = m.now + _seconds(state, scope, value) * MICROS
    frame.effective = value
    if until <= m.now or m.once:
        waited(m, frame)
        return
    frame.phase, frame.due = WAIT, until


def _timestamp(state: State, scope: Scope, value: Any) -> int:
    given = state.get("Timestamp")
    if "TimestampPath" in state:
        path = state["TimestampPath"]
        try:
            given = scope.find(path, value)
        except KeyError:
            raise scope.runtime(f"The TimestampPath parameter does not reference an input value: {path}") from None
        said = f"{path} == {given if isinstance(given, str) else dumps(given)}"
        name = "TimestampPath"
    else:
        given = scope.query(given, "Timestamp", "string") if scope.jsonata else given
        name, said = "Timestamp", str(given)
    at = instant(given)
    if at is None:
        what = "ISO-8601 extended offset date-time format string"
        if scope.jsonata:
            cause = f"{scope.prefix}The Timestamp field cannot be parsed as an {what}: {said}"
            raise Problem(QUERY, cause, place="Timestamp", evaluation=True)
        raise scope.runtime(f"The {name} parameter does not reference a valid {what}: {said}")
    return at


def _seconds(state: State, scope: Scope, value: Any) -> int:
    if "SecondsPath" in state:
        path = state["SecondsPath"]
        try:
            given = scope.find(path, value)
        except KeyError:
            raise scope.runtime(f"The SecondsPath parameter does not reference an input value: {path}") from None
        said = f"{path} == {dumps(given)}"
        name = "SecondsPath"
    else:
        given = state.get("Seconds")
        given = scope.query(given, "Seconds", "number") if scope.jsonata else given
        name, said = "Seconds", dumps(given)
    if name == "SecondsPath" and number(given):
        if given != int(given):
            raise scope.runtime(f"The SecondsPath parameter cannot be parsed as a long value: {said}")
        if given < 0:
            raise scope.runtime(f"The SecondsPath parameter references a negative value: {said}")
    if not number(given) or given != int(given) or not 0 <= given <= LONGEST:
        cause = f"The {name} parameter references an invalid value, expected an integer from 0 to {LONGEST}: {said}"
        if scope.jsonata:
            raise Problem(QUERY, scope.prefix + cause, place="Seconds", evaluation=True)
        raise scope.runtime(cause)
    return int(given)


def waited(m: Interpreter, frame: Frame) -> None:
    """A Wait state's time has come."""
    state = m.state(frame)
    _plain_exit(m, frame, state, m.scope(frame), frame.effective, following(state), state)


def _succeed(m: Interpreter, frame: Frame, state: State) -> None:
    scope = m.scope(frame)
    value = frame.input if scope.jsonata else effective(m, frame, state, scope)
    _plain_exit(m, frame, state, scope, value, None, state)


def _fail(m: Interpreter, frame: Frame, state: State) -> None:
    scope = m.scope(frame)
    found: list[str | None] = []
    if not scope.jsonata:
        m.note("afterInputPath", frame.input)
    for name in ("Error", "Cause"):
        if scope.jsonata:
            found.append(scope.query(state[name], name, "string") if name in state else None)
            continue
        given = state.get(name)
        if f"{name}Path" in state:
            text = state[f"{name}Path"]
            try:
                given = (
                    scope.intrinsic(text, frame.input, f"{name}Path")
                    if text[:1] != "$"
                    else scope.find(text, frame.input)
                )
            except KeyError:
                raise scope.runtime(
                    f"The JSONPath '{text}' specified for the field '{name}Path' could not be found in the input "
                    f"'{dumps(frame.input)}'"
                ) from None
            if not isinstance(given, str):
                raise scope.runtime(f"The {name}Path field refers to a value that is not a string: {text}")
        found.append(given)
    raise Problem(found[0], found[1])


# -- tasks ---------------------------------------------------------------------------------------------------------------


def _number(m: Interpreter, state: State, scope: Scope, value: Any, name: str) -> int:
    """TimeoutSeconds and HeartbeatSeconds, 0 if there is none."""
    given: Any = state.get(name)
    if f"{name}Path" in state:
        path = state[f"{name}Path"]
        try:
            given = scope.find(path, value)
        except KeyError:
            steps = "".join(f"['{step}']" for step in path.split(".")[1:])
            raise scope.runtime(f"Invalid path '{path}' : No results for path: ${steps}") from None
        if not number(given) or given != int(given) or given <= 0:
            raise scope.runtime(f"The {name}Path field refers to a value that is not a positive integer: {path}")
    elif scope.jsonata and given is not None:
        given = scope.query(given, name, "number")
        if given <= 0 or given != int(given):
            raise Problem(
                QUERY, f"{scope.prefix}The field '{name}' must be a positive integer.", place=name, evaluation=True
            )
    return min(int(given or 0), LONGEST)


def kind_of(resource: str) -> tuple[str, str]:
    """What a task's resource is: Task with resource type and resource, Lambda or Activity with its ARN."""
    parts = resource.split(":")
    if len(parts) >= 7 and parts[2] == "states" and parts[5] == "activity":
        return "Activity", resource
    if len(parts) >= 7 and parts[2] == "lambda" and parts[5] == "function":
        return "LambdaFunction", resource
    rest = parts[5:]
    return (f"{rest[0]}:{rest[1]}", ":".join(rest[2:])) if rest[:1] == ["aws-sdk"] else (rest[0], ":".join(rest[1:]))


def _task(m: Interpreter, frame: Frame, state: State) -> None:
    resource = state["Resource"]
    kind, name = kind_of(resource)
    serial = m.memory.events + 1
    frame.call = {"resource": resource}
    if resource.endswith(CALLBACK) or kind == "Activity":
        frame.call["token"] = m.token(frame.id, serial)
    scope = m.scope(frame)
    credentials = state.get("Credentials")
    if scope.jsonata:
        given = scope.query(state["Arguments"], "Arguments") if "Arguments" in state else frame.input
        if "Arguments" not in state and kind not in ("LambdaFunction", "Activity"):
            given = {}
        m.note("afterArguments", given)
        credentials = scope.query(credentials, "Credentials") if credentials else None
        value: Any = frame.input
    else:
        value = effective(m, frame, state, scope)
        given = scope.template(state["Parameters"], value) if "Parameters" in state else value
        if "Parameters" not in state and kind not in ("LambdaFunction", "Activity"):
            given = {}
        m.note("afterParameters", given)
        credentials = scope.template(credentials, value) if credentials else None
    text = bounded(dumps(given), frame.state)
    frame.call["given"] = text
    seconds, beat = (_number(m, state, scope, value, one) for one in ("TimeoutSeconds", "HeartbeatSeconds"))
    times = {"timeoutInSeconds": seconds} if seconds else {}
    if beat and kind != "LambdaFunction":
        times["heartbeatInSeconds"] = beat
    details: dict[str, Any]
    if kind in ("LambdaFunction", "Activity"):
        details = {"resource": resource, "input": text, "inputDetails": {"truncated": False}, **times}
    else:
        details = {"resourceType": kind, "resource": name, "region": m.about.region, "parameters": text, **times}
    if credentials:
        frame.call["role"] = credentials.get("RoleArn") if isinstance(credentials, dict) else None
        if not isinstance(frame.call["role"], str):
            raise scope.runtime("The field 'Credentials' must have the ARN of a role as RoleArn.")
        details["taskCredentials"] = {"roleArn": frame.call["role"]}
    frame.serial = frame.prev = m.event(f"{_word(kind)}Scheduled", frame.prev, details)
    if kind != "Activity":
        told = None if kind == "LambdaFunction" else {"resourceType": kind, "resource": name}
        frame.prev = m.event(f"{_word(kind)}Started", frame.prev, told)
    frame.phase = TASK
    frame.ends = m.now + seconds * MICROS if seconds else 0
    frame.beat, frame.beats = beat, m.now + beat * MICROS if beat else 0
    m.effects.append(("call", frame.id))


def _word(kind: str) -> str:
    return kind if kind in ("LambdaFunction", "Activity") else "Task"


def _of(frame: Frame) -> tuple[str, dict[str, Any]]:
    """The first word of events of a frame's task, and what each tells."""
    if frame.call is None:
        return "Task", {}
    kind, name = kind_of(frame.call["resource"])
    return _word(kind), {} if kind in ("LambdaFunction", "Activity") else {"resourceType": kind, "resource": name}


def task_submitted(m: Interpreter, frame: Frame, output: str) -> None:
    """What a task called for has begun."""
    if frame.submitted:
        return
    frame.submitted = True
    _, told = _of(frame)
    details = {**told, "output": output, "outputDetails": {"truncated": False}}
    frame.prev = m.event("TaskSubmitted", frame.prev, details)


def activity_taken(m: Interpreter, frame: Frame, worker: str | None) -> None:
    """A worker has the task."""
    details = {"workerName": worker} if worker else {}
    frame.prev = m.event("ActivityStarted", frame.prev, details)
    if frame.beat:
        frame.beats = m.now + frame.beat * MICROS


def task_succeeded(m: Interpreter, frame: Frame, result: Any, text: str | None) -> None:
    """A task has a result."""
    state = m.state(frame)
    word, told = _of(frame)
    text = dumps(result) if text is None else text
    if not small(text):
        source = told.get("resourceType") or (frame.call or {}).get("resource", frame.state)
        try:
            bounded(text, source)
        except Problem as problem:
            task_failed(m, frame, problem)
    details = {**told, "output": text, "outputDetails": {"truncated": False}}
    frame.prev = m.event(f"{word}Succeeded", frame.prev, details)
    m.note("result", result)
    _exit(m, frame, state, result)


def task_failed(m: Interpreter, frame: Frame, problem: Problem) -> None:
    """Tells that a task failed, and lets it be handled."""
    if m.state(frame)["Type"] != "Map":
        word, told = _of(frame)
        details = {**told, "error": problem.error, "cause": problem.cause}
        said = {name: value for name, value in details.items() if value is not None}
        frame.prev = m.event(f"{word}Failed", frame.prev, said)
    frame.phase = CHILDREN if m.state(frame)["Type"] == "Map" else TASK
    raise problem


def timed_out(m: Interpreter, frame: Frame, problem: Problem) -> None:
    """Tells that a task took too long, or gave no sign of life."""
    m.effects.append(("end", frame.serial))
    if m.state(frame)["Type"] != "Map":
        word, told = _of(frame)
        frame.prev = m.event(f"{word}TimedOut", frame.prev, {**told, "error": problem.error})
    raise problem


# -- branches ------------------------------------------------------------------------------------------------------------


def _parallel(m: Interpreter, frame: Frame, state: State) -> None:
    scope = m.scope(frame)
    if scope.jsonata:
        given = scope.query(state["Arguments"], "Arguments") if "Arguments" in state else frame.input
    else:
        value = effective(m, frame, state, scope)
        given = scope.template(state["Parameters"], value) if "Parameters" in state else value
    if given is not frame.input:
        bounded(dumps(given), frame.state)
    started = m.event("ParallelStateStarted", frame.prev)
    frame.prev, frame.phase = started, CHILDREN
    branches = state["Branches"]
    frame.results = [None] * len(branches)
    for place in range(len(branches)):
        branch = m.child(frame, place, ["Branches", place], given, started)
        branch.text = frame.text if given is frame.input else None


def joined(m: Interpreter, frame: Frame, branch: Frame) -> None:
    """A branch has come to its end."""
    assert frame.results is not None
    frame.results[branch.index] = branch.input
    frame.prev = branch.prev
    if frame.running:
        return
    results = frame.results
    m.event("ParallelStateSucceeded", frame.prev)
    exited(m, frame, results)


def exited(m: Interpreter, frame: Frame, results: list[Any]) -> None:
    """A state with branches or iterations has its results."""
    bounded(dumps(results), frame.state)
    _exit(m, frame, m.state(frame), results)


WORK: Final = {
    "Pass": _pass,
    "Choice": _choice,
    "Wait": _wait,
    "Succeed": _succeed,
    "Fail": _fail,
    "Task": _task,
    "Parallel": _parallel,
}
"""By type of state, but for Map."""
