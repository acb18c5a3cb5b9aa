"""TestState: one state by itself, with its data shown at every stage; what it calls is called with the role, or mocked.

Source: Step Functions developer guide, "Testing state machines and states".
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.engines import asl
from bastide.engines.asl import About, Interpreter, Memory, mapping, working
from bastide.engines.asl.frame import CHILDREN, TASK, Frame
from bastide.engines.asl.problems import TOLERANCE, Problem
from bastide.engines.asl.values import dumps, loads
from bastide.kernel import Ask, Authorised, Output, anything
from bastide.protocol import codec
from bastide.services.states import integrations, sealing, tasks
from bastide.services.states.holding import Machine
from bastide.services.states.machine import lacking
from bastide.services.states.noun import MACHINE, machine_arn, passing
from bastide.services.states.runner import Executions, Live
from bastide.services.states.starting import given_input

_MOCKED: Final = ("Task", "Map", "Parallel")
_NAME: Final = "StateName"
"""What a state is called whose definition is its own."""
_WAITS: Final = (".sync", ".sync:2", ".waitForTaskToken")
_CONTEXT: Final[dict[str, dict[str, type]]] = {
    "Execution": {
        "Id": str, "Input": object, "Name": str, "RoleArn": str, "StartTime": str, "RedriveCount": int, "RedriveTime": str,
    },
    "State": {"EnteredTime": str, "Name": str, "RetryCount": int},
    "StateMachine": {"Id": str, "Name": str},
    "Task": {"Token": str},
}  # fmt: skip
"""What a context may have that is brought along."""
_TYPES: Final = {str: "a string", int: "a number"}
_SECONDS: Final = 300.0
_NUMBERS: Final = ("toleratedFailureCount", "toleratedFailurePercentage", "maxConcurrency", "errorDetails")


def _invalid(message: str) -> Refused:
    return Refused("ValidationException", message)


def _find(machine: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A state by its name, wherever it stands."""
    waiting: list[dict[str, Any]] = [machine]
    while waiting:
        here = waiting.pop()
        for own, state in (here.get("States") or {}).items():
            if own == name:
                return dict(state)
            waiting += [one for one in (state.get("ItemProcessor"), state.get("Iterator")) if isinstance(one, dict)]
            waiting += [one for one in state.get("Branches") or () if isinstance(one, dict)]
    return None


def _state(a: Authorised) -> tuple[str, dict[str, Any], str]:
    """The state that is tested, its name and its query language; raises Refused."""
    given, registry = a.input, a.calls.registry
    mocked = bool(given.get("mock"))
    lacks = None if mocked else lambda resource: lacking(registry, resource)
    try:
        definition = loads(given["definition"])
    except ValueError:
        definition = None
    if isinstance(definition, dict) and "States" in definition:
        wrong = asl.check(given["definition"], lacking=lacks)
        name = given.get("stateName")
        if not name:
            raise _invalid("stateName is needed where the definition is that of a state machine.")
        state = _find(definition, name) if not wrong else {}
        if state is None:
            raise _invalid("State not found in definition")
        language = definition.get("QueryLanguage") or "JSONPath"
    else:
        wrong = asl.check_state(definition, lacking=lacks)
        name, state, language = given.get("stateName") or _NAME, definition or {}, "JSONPath"
    if wrong:
        told = ", ".join(one.line() for one in wrong[:10])
        raise Refused("InvalidDefinition", f"Invalid State Machine Definition: '{told}'")
    return name, state, state.get("QueryLanguage") or language


class _Once(Interpreter):
    """One state, once. before: retries that it has behind it."""

    before = 0

    def context(self, frame: Frame) -> dict[str, Any]:
        """As a test has it: nothing is redriven, and there may be no role."""
        found = super().context(frame)
        if self.about.context is None:
            del found["Execution"]["RedriveCount"]
            found["Execution"]["RoleArn"] = self.about.role or None
        return found

    def about_retries(self) -> int:
        return self.before


async def _test(a: Authorised) -> Output:
    given = a.input
    name, state, language = await asyncio.to_thread(_state, a)
    mock, configuration = given.get("mock") or {}, given.get("stateConfiguration") or {}
    _check_mock(state, mock, configuration)
    if mock and given.get("revealSecrets"):
        raise _invalid("TestState does not support RevealSecrets when a mock is specified.")
    text = given_input(a)
    runner, now = a.engine(Executions), a.calls.clock()
    machine = new_id()
    where = machine_arn(a.account, a.region, machine)
    execution = f"arn:aws:states:{a.region}:{a.account}:express:{machine}:{new_id()}"
    about = About(
        execution,
        execution.rpartition(":")[2],
        given.get("roleArn") or "",
        now,
        where,
        machine,
        loads(text),
        text,
        a.region,
    )
    if given.get("context"):
        about.context = _context(given["context"], state)
    definition = {"QueryLanguage": language, "StartAt": name, "States": {name: state}}
    token = ((about.context or {}).get("Task") or {}).get("Token")
    m = _Once(definition, Memory(), about, runner.evaluate, lambda f, s: token or runner.token(execution, s), once=True)
    m.before = int(configuration.get("retrierRetryCount") or 0)
    m.trace = {}
    names = _object(given["variables"], "variables") if given.get("variables") else {}
    m.begin(now, names=names)
    m.memory.ends = 0
    [frame] = m.memory.frames.values()
    raw = {id(frame.input): text}
    await asyncio.to_thread(m.advance, now)
    if m.memory.status == "RUNNING":
        live = Live(execution, None, Machine(definition, {}), m, sealing.plain(a.calls, where))
        await _work(a, runner, live, frame, mock, configuration, raw)
    return _told(m, frame, given, text, raw)


def _object(text: str, member: str) -> dict[str, Any]:
    try:
        found = loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _invalid(f"{member} must be a JSON object.")
    return found


def _context(text: str, state: dict[str, Any]) -> dict[str, Any]:
    """A context object that is brought along; raises Refused (ValidationException)."""

    def wrong(what: str) -> Refused:
        return _invalid(f"Invalid Context object provided: {what}")

    found = _object(text, "context")
    for name, inner in found.items():
        if name == "Map":
            raise wrong("'Map' field is not supported when mocking a Context object")
        if name not in _CONTEXT:
            raise wrong(f"Field '{name}' is not allowed")
        if not isinstance(inner, dict):
            raise wrong(f"{name} must be an object")
        for own, value in inner.items():
            wanted = _CONTEXT[name].get(own)
            if wanted is None:
                raise wrong(f"Field '{own}' is not allowed")
            if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
                raise wrong(f"{name}.{own} must be {_TYPES.get(wanted, 'an object')}")
    resource = str(state.get("Resource") or "")
    if "Task" in found and not resource.endswith(_WAITS) and ":activity:" not in resource:
        raise wrong(
            "Context object contains 'Task' when state is not a Task state with a '.sync' or '.waitForTaskToken' service "
            "integration pattern"
        )
    return found


def _check_mock(state: dict[str, Any], mock: dict[str, Any], configuration: dict[str, Any]) -> None:
    if not mock:
        if configuration.get("mapIterationFailureCount") is not None:
            raise _invalid("TestState does not support MapIterationFailureCount when a mock is not specified.")
        if state["Type"] in ("Map", "Parallel"):
            raise Refused(
                "InvalidDefinition",
                "TestState API does not support Map or Parallel states. Supported state types include: "
                "[Task, Wait, Pass, Succeed, Fail, Choice]",
            )
        return
    if state["Type"] not in _MOCKED:
        raise _invalid(f"State type '{state['Type']}' is not supported when a mock is specified")
    if (mock.get("result") is None) == (mock.get("errorOutput") is None):
        raise _invalid("A test mock should have only one of the following fields: [result, errorOutput].")
    if mock.get("result") is None:
        return
    try:
        result = loads(mock["result"])
    except ValueError:
        raise _invalid("Mocked result must be valid JSON.") from None
    if state["Type"] in ("Map", "Parallel"):
        if state["Type"] == "Map" and "ResultWriter" in state:
            if not isinstance(result, dict):
                raise _invalid("Mocked result must be a JSON object.")
            return
        if not isinstance(result, list):
            raise _invalid("Mocked result must be an array.")
        if int(configuration.get("mapIterationFailureCount") or 0) > len(result):
            raise _invalid("Map iteration failure count must be less than or equal to the number of Map iterations")
        if state["Type"] == "Parallel" and len(result) != len(state["Branches"]):
            raise _invalid("Mocked result must contain the same number of items as number of Parallel branches.")
        return
    mode = mock.get("fieldValidationMode") or "STRICT"
    if mode != "NONE":
        _check_result(state["Resource"], result, mode == "STRICT")


def _check_result(resource: str, result: Any, strict: bool) -> None:
    """Holds a mocked result against the operation's model; raises ValidationException."""
    try:
        found = integrations.target(resource)
    except integrations.Unknown:
        return
    if found.sync or found.callback:
        return
    try:
        shape = codec(found.service).operations[found.operation].output_shape
    except Exception:
        return
    if found.service == "lambda" and not found.sdk and isinstance(result, dict):  # of an optimised one that is any JSON
        result = {name: value for name, value in result.items() if name != "Payload"}
    if shape is not None:
        _fits(shape, result, "", strict)


def _fits(shape: Any, value: Any, name: str, strict: bool) -> None:
    def wrong(what: str) -> Refused:
        return _invalid(f"Mock result schema validation error: {what}")

    kind = shape.type_name
    if value is None:
        return
    if kind == "structure":
        if not isinstance(value, dict):
            raise wrong(f"Field '{name}' must be an object" if name else "Mock result must be an object")
        members = {one[:1].upper() + one[1:]: one for one in shape.members}
        for own, one in value.items():
            if own in members:
                _fits(shape.members[members[own]], one, own, strict)
        for one in shape.required_members if strict else ():
            if one[:1].upper() + one[1:] not in value:
                raise wrong(f"Required field '{one[:1].upper() + one[1:]}' is missing")
    elif kind == "list":
        if not isinstance(value, list):
            raise wrong(f"Field '{name}' must be an array")
        for one in value:
            _fits(shape.member, one, name, strict)
    elif kind == "map":
        if not isinstance(value, dict):
            raise wrong(f"Field '{name}' must be an object")
        for one in value.values():
            _fits(shape.value, one, name, strict)
    elif kind in ("string", "character", "blob", "timestamp"):
        if not isinstance(value, str):
            raise wrong(f"Field '{name}' must be a string")
        if getattr(shape, "enum", None) and value not in shape.enum:
            raise wrong(f"Field '{name}' is not an expected value")
        if len(value) < int(shape.metadata.get("min") or 0):
            raise wrong(f"Field '{name}' is smaller than the minimum length")
    elif kind == "boolean":
        if not isinstance(value, bool):
            raise wrong(f"Field '{name}' must be a boolean")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(f"Field '{name}' must be a number")
    elif value < shape.metadata.get("min", value):
        raise wrong(f"Field '{name}' is less than the minimum value")
    elif value > shape.metadata.get("max", value):
        raise wrong(f"Field '{name}' exceeds the maximum value")


def _tolerates(m: Interpreter, configuration: dict[str, Any], iterations: int) -> bool:
    """Whether as many iterations may fail as are said to have: a map that names no threshold is not judged."""
    failed = int(configuration.get("mapIterationFailureCount") or 0)
    trace = m.trace or {}
    count, share = trace.get("toleratedFailureCount"), trace.get("toleratedFailurePercentage")
    if count is not None and failed > count:
        return False
    return share is None or not iterations or failed * 100 <= share * iterations


async def _work(
    a: Authorised,
    runner: Executions,
    live: Live,
    frame: Frame,
    mock: dict[str, Any],
    configuration: dict[str, Any],
    raw: dict[int, str],
) -> None:
    """Has what the state waits for come."""
    m, now = live.m, a.calls.clock()
    kind = m.state(frame)["Type"]
    if kind == "Map" and frame.phase == TASK and (frame.call or {}).get("map") == "read":
        data = configuration.get("mapItemReaderData")
        if data is None:
            raise _invalid("stateConfiguration.mapItemReaderData is needed for a Map state with an ItemReader.")
        items = loads(data)
        m._guarded(frame, mapping.read, items if isinstance(items, list) else [items])
    if m.memory.status != "RUNNING":
        return
    if mock:
        if kind in ("Map", "Parallel"):
            for one in [one for one in m.memory.frames.values() if one.parent]:
                del m.memory.frames[one.id]
            if kind == "Parallel" and m.trace is not None:
                for stage in ("afterInputPath", "afterParameters"):
                    m.trace.pop(stage, None)
            frame.phase = CHILDREN
        if mock.get("errorOutput") is not None:
            told = mock["errorOutput"]
            if kind == "Task":
                m.failed(frame.serial, now, told.get("error"), told.get("cause"))
            else:
                m._problem(frame, Problem(told.get("error"), told.get("cause")))
            return
        result = loads(mock["result"])
        raw[id(result)] = mock["result"]
        m.trace = {**(m.trace or {}), "_kept": result}
        if kind == "Task":
            m.succeeded(frame.serial, now, result, mock["result"])
        elif kind == "Map" and not _tolerates(m, configuration, len(result)):
            m._problem(frame, Problem(TOLERANCE, "The specified tolerated failure threshold was exceeded"))
        else:
            m._guarded(frame, working.exited, result)
        return
    resource = m.state(frame)["Resource"]
    if resource.endswith(_WAITS) or ":activity:" in resource:
        raise _invalid("Tasks that wait for what they began, or for a token, are tested with a mock.")
    if not a.input.get("roleArn"):
        raise _invalid("roleArn is needed for a Task state without a mock.")
    try:
        letter = await asyncio.wait_for(tasks.make(runner, live, frame), _SECONDS)
    except tasks.Failed as failed:
        m.failed(frame.serial, a.calls.clock(), failed.error, failed.cause)
        return
    except TimeoutError:
        m.failed(frame.serial, a.calls.clock(), "States.Timeout", None)
        return
    if letter is not None:
        letter(m, a.calls.clock())


def _told(m: Interpreter, frame: Frame, given: dict[str, Any], text: str, raw: dict[int, str]) -> Output:
    memory, trace = m.memory, dict(m.trace or {})
    trace.pop("_kept", None)
    output: dict[str, Any] = {"status": memory.status, "error": memory.error, "cause": memory.cause}
    if memory.status in ("SUCCEEDED", "CAUGHT_ERROR"):
        output |= {"output": memory.output, "nextState": m.next_state}
        if memory.status == "SUCCEEDED" and id(frame.input) in raw:
            output["output"] = raw[id(frame.input)]
    if given.get("inspectionLevel") in ("DEBUG", "TRACE"):
        shown: dict[str, Any] = {"input": text}
        for stage, value in trace.items():
            shown[stage] = value if stage in _NUMBERS else raw.get(id(value)) or dumps(value)
        if given["inspectionLevel"] == "TRACE" and frame.names:
            shown["variables"] = dumps(frame.names)
        if "maxConcurrency" in shown:
            shown["maxConcurrency"] = int(shown["maxConcurrency"])
        output["inspectionData"] = shown
    return output


@MACHINE.reads(
    "TestState",
    asks=[
        Ask("states:TestState", anything),
        Ask("states:RevealSecrets", anything, when=lambda asked: bool(asked.input.get("revealSecrets"))),
        passing(),
    ],
    before=_test,
)
def test(a: Authorised, _: Any) -> Output:
    output: Output = a.staged
    return output
