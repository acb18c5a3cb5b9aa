"""Map states: items, iterations inline, and what a distributed run is asked for.

A distributed map's run is a task to the interpreter: whoever runs it reads items, runs children, and gives the results.
Source: Amazon States Language, "Map State"; Step Functions developer guide, "Using Map state in Distributed mode".
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from bastide.engines.asl import working
from bastide.engines.asl.frame import CHILDREN, TASK, Frame
from bastide.engines.asl.problems import LIMIT, QUERY, RUNTIME, Problem
from bastide.engines.asl.scope import Scope, is_expression
from bastide.engines.asl.values import bounded, dumps, loads, number

if TYPE_CHECKING:
    from bastide.engines.asl.interpreter import Interpreter

MOST_INLINE: Final = 40
"""Iterations of an inline map that run at a time."""
_MOST_BYTES: Final = 64 << 20
_WHOLE: Final = re.compile(r"-?\d{1,9}\Z")
_DECIMAL: Final = re.compile(r"-?\d{1,9}(\.\d{1,9})?\Z")


def processor(state: dict[str, Any]) -> dict[str, Any]:
    """The states of an iteration."""
    found: dict[str, Any] = state.get("ItemProcessor") or state["Iterator"]
    return found


def distributed(state: dict[str, Any]) -> bool:
    """Whether each item is an execution of its own."""
    return bool((processor(state).get("ProcessorConfig") or {}).get("Mode") == "DISTRIBUTED")


def begin(m: Interpreter, frame: Frame, state: dict[str, Any]) -> None:
    """Finds the items, and begins."""
    scope = m.scope(frame)
    value = frame.input if scope.jsonata else working.effective(m, frame, state, scope)
    frame.effective = value
    if distributed(state):
        _begin_run(m, frame, state, scope, value)
        return
    items = found_items(m, state, scope, value)
    width, *_ = limits(m, state, scope, value)
    frame.prev = m.event("MapStateStarted", frame.prev, {"length": len(items)})
    frame.items, frame.results = items, [None] * len(items)
    frame.width = min(width or MOST_INLINE, MOST_INLINE)
    frame.phase = CHILDREN
    if not items:
        m.event("MapStateSucceeded", frame.prev)
        working.exited(m, frame, [])
        return
    started = frame.prev
    for _ in range(min(frame.width, len(items))):
        _iterate(m, frame, state, started)


def found_items(m: Interpreter, state: dict[str, Any], scope: Scope, value: Any) -> list[Any]:
    """What is iterated over, of the state's own data; raises Problem."""
    if scope.jsonata:
        if "Items" not in state:
            items = value
            if isinstance(items, dict) and distributed(state):
                return [{"key": key, "value": one} for key, one in items.items()]
            if not isinstance(items, list):
                cause = f"{scope.prefix}Map state input must be an array but was: {dumps(items)[:10_000]}"
                raise Problem(QUERY, cause, evaluation=True)
            return items
        given = state["Items"]
        wanted = "array" if is_expression(given) else ""
        found = scope.query(given, "Items", "" if distributed(state) else wanted)
        if isinstance(found, dict) and distributed(state):
            return [{"key": key, "value": one} for key, one in found.items()]
        if not isinstance(found, list):
            found = scope.query(given, "Items", "array")
        bounded(dumps(found), "Items")
        return list(found)
    path = state.get("ItemsPath", "$")
    found = scope.path(path, value, "ItemsPath")
    if not isinstance(found, list):
        if m.once:
            raise Problem(RUNTIME, f'Reference path "{path.replace("$$", "$", 1)}" must point to array.')
        raise scope.runtime(f'Reference path "{path}" must point to array.')
    m.note("afterItemsPath", found)
    return found


def limits(m: Interpreter, state: dict[str, Any], scope: Scope, value: Any) -> tuple[int, int, float | None]:
    """How many at a time (0: as many as may), how many may fail, which share of them may; raises Problem."""
    width = _limit(m, state, scope, value, "MaxConcurrency") or 0
    count = _limit(m, state, scope, value, "ToleratedFailureCount")
    share = _limit(m, state, scope, value, "ToleratedFailurePercentage")
    for name, one in (("MaxConcurrency", width), ("ToleratedFailureCount", count)):
        if one is not None and one < 0:
            raise scope.runtime(f"{name} cannot be negative.")
    if share is not None and not 0 <= share <= 100:
        raise scope.runtime("ToleratedFailurePercentage must be between 0 and 100.")
    if not scope.jsonata or m.trace is not None:
        for name, key, one in (
            ("MaxConcurrency", "maxConcurrency", width),
            ("ToleratedFailureCount", "toleratedFailureCount", count),
            ("ToleratedFailurePercentage", "toleratedFailurePercentage", None if share is None else float(share)),
        ):
            if name in state or f"{name}Path" in state or key == "maxConcurrency":
                m.note(key, one)
    return int(width), int(count or 0), share if share is not None else (None if count is not None else 0.0)


def _limit(m: Interpreter, state: dict[str, Any], scope: Scope, value: Any, name: str) -> Any:
    whole = name != "ToleratedFailurePercentage"
    if f"{name}Path" in state:
        path = state[f"{name}Path"]
        try:
            given = scope.find(path, value)
        except KeyError:
            raise scope.runtime(f"The {name}Path field does not reference an input value: {path}") from None
        if isinstance(given, str) and (_WHOLE if whole else _DECIMAL).match(given):
            given = int(given) if whole else float(given)
        if not number(given) or (whole and given != int(given)):
            shown = given if isinstance(given, str) else dumps(given)
            kind = "integer" if whole else "float"
            raise scope.runtime(f'The {name}Path field refers to value "{shown}" which is not a valid {kind}: {path}')
        return given
    given = state.get(name)
    if scope.jsonata and is_expression(given):
        return scope.query(given, name, "number")
    return given


def selected(m: Interpreter, frame: Frame, state: dict[str, Any], item: Any, told: dict[str, Any]) -> Any:
    """What an iteration is given of its item. told: the context object's ``Map.Item``."""
    held, frame.item = frame.item, told
    try:
        scope = m.scope(frame)
        if scope.jsonata:
            return scope.query(state["ItemSelector"], "ItemSelector") if "ItemSelector" in state else item
        template = state.get("ItemSelector", state.get("Parameters"))
        return item if template is None else scope.template(template, frame.effective)
    finally:
        frame.item = held


def _iterate(m: Interpreter, frame: Frame, state: dict[str, Any], prev: int) -> None:
    assert frame.items is not None
    index = frame.next
    frame.next += 1
    item = frame.items[index]
    told = {"Index": index, "Value": item}
    given = selected(m, frame, state, item, told)
    if given is not item:
        bounded(dumps(given), frame.state)
    started = m.event("MapIterationStarted", prev, {"name": frame.state, "index": index})
    where: list[str | int] = ["ItemProcessor" if "ItemProcessor" in state else "Iterator"]
    m.child(frame, index, where, given, started).item = told


def finished(m: Interpreter, frame: Frame, iteration: Frame) -> None:
    """An iteration has come to its end."""
    assert frame.items is not None and frame.results is not None
    done = m.event("MapIterationSucceeded", iteration.prev, {"name": frame.state, "index": iteration.index})
    frame.results[iteration.index] = iteration.input
    if frame.next < len(frame.items):
        frame.prev = iteration.prev
        _iterate(m, frame, m.state(frame), iteration.prev)
        return
    frame.prev = done
    if frame.running:
        return
    results = frame.results
    m.event("MapStateSucceeded", done)
    working.exited(m, frame, results)


# -- distributed ---------------------------------------------------------------------------------------------------------


def _begin_run(m: Interpreter, frame: Frame, state: dict[str, Any], scope: Scope, value: Any) -> None:
    """Asks for the items to be read, or for the run itself where they are at hand."""
    if "ItemReader" in state:
        frame.call = {"map": "read", "reader": arguments(state["ItemReader"], scope, value, "ItemReader")}
        limits(m, state, scope, value)
        frame.phase, frame.serial = TASK, frame.entered * 100_000 + frame.retried
        m.effects.append(("call", frame.id))
        return
    items = found_items(m, state, scope, value)
    run(m, frame, state, scope, value, items)


def read(m: Interpreter, frame: Frame, items: list[Any]) -> None:
    """The items of an ItemReader are there: as the run begins."""
    state = m.state(frame)
    run(m, frame, state, m.scope(frame), frame.effective, items)


def run(m: Interpreter, frame: Frame, state: dict[str, Any], scope: Scope, value: Any, items: list[Any]) -> None:
    """Asks for a run of a distributed map. Of what a reader finds, the history does not tell how many they are."""
    frame.prev = m.event("MapStateStarted", frame.prev, {"length": 0 if "ItemReader" in state else len(items)})
    width, count, share = limits(m, state, scope, value)
    call: dict[str, Any] = {"map": "run", "width": width, "count": count, "share": share}
    call["label"] = state.get("Label") or str(uuid.uuid5(uuid.NAMESPACE_OID, frame.state))
    if "ItemBatcher" in state:
        call["batcher"] = batcher(state["ItemBatcher"], scope, value)
    if "ResultWriter" in state:
        call["writer"] = arguments(state["ResultWriter"], scope, value, "ResultWriter")
    call["type"] = (processor(state).get("ProcessorConfig") or {}).get("ExecutionType", "STANDARD")
    inputs: list[str] = []
    size = 0
    for index, item in enumerate(items):
        told = {"Index": index, "Value": item}
        if isinstance(item, dict) and set(item) == {"key", "value"} and isinstance(item["key"], str):
            told = {"Index": index, "Key": item["key"], "Value": item["value"]}
        inputs.append(bounded(dumps(selected(m, frame, state, item, told)), frame.state))
        size += len(inputs[-1])
        if size > _MOST_BYTES:
            raise Problem(LIMIT, f"The items of the state '{frame.state}' have more than {_MOST_BYTES} bytes.")
    call["inputs"] = inputs
    frame.call, frame.phase, frame.serial = call, TASK, m.memory.events
    m.effects.append(("call", frame.id))


def arguments(given: dict[str, Any], scope: Scope, value: Any, field: str) -> dict[str, Any]:
    """A reader's or writer's configuration with its paths and expressions filled in."""
    found: dict[str, Any] = {"Resource": given.get("Resource", "")}
    if scope.jsonata:
        found["given"] = scope.query(given.get("Arguments") or {}, f"{field}/Arguments")
        config = scope.query(given.get("ReaderConfig") or given.get("WriterConfig") or {}, f"{field}/ReaderConfig")
    else:
        found["given"] = scope.template(given.get("Parameters") or {}, value)
        config = dict(given.get("ReaderConfig") or given.get("WriterConfig") or {})
        for name in [one for one in config if one.endswith("Path")]:
            config[name[:-4]] = scope.path(config.pop(name), value, name)
    found["config"] = config
    return found


def batcher(given: dict[str, Any], scope: Scope, value: Any) -> dict[str, Any]:
    """How items are put together: ``items``, ``bytes``, ``input``."""
    found: dict[str, Any] = {}
    for name, key in (("MaxItemsPerBatch", "items"), ("MaxInputBytesPerBatch", "bytes")):
        one: Any = given.get(name)
        if f"{name}Path" in given:
            one = scope.path(given[f"{name}Path"], value, f"{name}Path")
        elif scope.jsonata and one is not None:
            one = scope.query(one, f"ItemBatcher/{name}", "number")
        if one is not None:
            if not number(one) or one <= 0:
                raise scope.runtime(f"{name} must be a positive number.")
            found[key] = int(one)
    if "BatchInput" in given:
        held = given["BatchInput"]
        found["input"] = scope.query(held, "ItemBatcher/BatchInput") if scope.jsonata else scope.template(held, value)
    return found


def again(frame: Frame) -> bool:
    """Of a frame that is redriven: asks for its run to be redriven, too; whether it has one."""
    call = frame.call
    if call is None or call.get("map") != "run" or "job" not in call:
        return False
    job = {**call["job"], "redrives": call["job"].get("redrives", 0) + 1}
    frame.call, frame.phase = {**call, "job": job, "redrive": True}, TASK
    return True


def run_over(m: Interpreter, frame: Frame, told: dict[str, Any]) -> None:
    """A distributed run is over; its results are the state's. told: status, and output, or error and cause."""
    if told["status"] != "SUCCEEDED":
        details = {"error": told["error"], "cause": told["cause"]}
        frame.prev = m.event("MapRunFailed", frame.prev, details)
        frame.phase = CHILDREN
        raise Problem(told["error"], told["cause"])
    result = loads(told["output"])
    done = m.event("MapRunSucceeded", frame.prev)
    m.event("MapStateSucceeded", done)
    if not frame.before:
        frame.prev = done  # of a map that is the first state the recorded histories go on from here
    frame.phase = CHILDREN
    working.exited(m, frame, result)
