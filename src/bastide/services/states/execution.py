"""Executions of standard state machines: started, stopped, redriven, described, listed, their history.

Source: Step Functions API Reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bastide.domain import Refused, new_id
from bastide.engines.asl import Interpreter, Memory
from bastide.kernel import Authorised, Output, pages
from bastide.services.states import express, keeping, sealing, tasks
from bastide.services.states.holding import Machine
from bastide.services.states.machine import CONFIGURED
from bastide.services.states.machine import definition as definition_of
from bastide.services.states.noun import (
    ALIAS,
    EXECUTION,
    MACHINE,
    MAP,
    REVISION,
    RUN,
    VERSION,
    account_of,
    ask,
    check_name,
    execution,
    execution_arn,
    machine,
    machine_arn,
    own,
    parsed,
    split,
)
from bastide.services.states.runner import Executions, Live, begin_live
from bastide.services.states.sealing import Cipher
from bastide.services.states.starting import given_input, prepared
from bastide.store import Row, Transaction, View


async def _started(a: Authorised, output: Output) -> Output:
    runner = a.engine(Executions)
    live = a.staged.live
    if live is not None:
        runner.live[live.arn] = live
        runner.count(live.machine_arn, "ExecutionsStarted")
        if live.logs is not None:
            live.logs.add(live.m.events)
        live.m.events = []
        runner.drive(live)
    return output


@MACHINE.operation(
    "StartExecution", asks=[ask("StartExecution", "stateMachineArn", qualified=True)], before=prepared, after=_started
)
def start(a: Authorised, tx: Transaction) -> Output:
    given, found = a.input, a.staged
    found.live = None
    row = machine(a, tx, given["stateMachineArn"], standing=True)
    text = given_input(a)
    name = check_name(given["name"]) if given.get("name") else new_id()
    if found.machine.doc["type"] == "EXPRESS":
        live = express.begin(a, tx, row, found, name, text)
        found.live = live
        return {"executionArn": live.arn, "startDate": live.m.about.started}
    where = (f"{a.account}/{row.name}", a.region, name)
    held = tx.get(RUN, *where)
    if held is not None:
        return _again(a, tx, held, text)
    doc: dict[str, Any] = {
        "id": new_id(),
        "revision": found.revision,
        "role": found.machine.doc["roleArn"],
        "start": a.now // 1000 * 1000,
        "trace": given.get("traceHeader"),
    }
    if found.qualified is not None:
        base = machine_arn(a.account, a.region, row.name)
        if found.qualified.kind == ALIAS:
            doc["alias"] = f"{base}:{found.qualified.name}"
            number = next(way for way in found.qualified.doc["routing"])["number"]
            doc["version"] = f"{base}:{_number_of(tx, row, found.revision, number)}"
        else:
            doc["version"] = f"{base}:{found.qualified.doc['number']}"
    live = launch(a.engine(Executions), tx, keeping.new_row(where, doc), found.machine, found.cipher, text)
    found.live = live
    return {"executionArn": live.arn, "startDate": doc["start"]}


def _number_of(view: View, row: Row, revision: str, otherwise: int) -> int:
    """The number of the version that a revision is."""
    wanted = revision.rpartition("/")[2]
    for held in view.scan(VERSION, f"{row.account}/{row.name}", row.region, descending=True, limit=1000):
        if held.doc["revision"] == wanted:
            return int(held.doc["number"])
    return otherwise


def launch(
    runner: Executions,
    tx: Transaction,
    row: Row,
    machine: Machine,
    cipher: Cipher,
    text: str,
    *,
    at: list[str | int] | None = None,
) -> Live:
    """A new execution in a transaction; whoever called takes it up when that is on the disk."""
    about = runner.about(row, text)
    arn = execution_arn(row)
    m = Interpreter(machine.definition, Memory(), about, runner.evaluate, lambda f, s: runner.token(arn, s))
    m.begin(tx.now, at)
    keeping.keep(tx, row, m.memory, m.events, cipher, tx.now)
    tx.insert(row, keep=False)
    begin_live(tx, arn, {})
    keeping.status_event(tx, row, {"input": text})
    return runner.logged(Live(arn, row, machine, m, cipher))


def _again(a: Authorised, tx: Transaction, held: Row, text: str) -> Output:
    """The same start once more is found while it runs; something else under the name is refused."""
    arn = execution_arn(held)
    taken = Refused("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
    if held.status != "RUNNING":
        raise taken
    account, name = account_of(held)
    cipher = sealing.opened(a, tx, machine_arn(account, held.region, name), held.doc["key"])
    if keeping.input_of(tx, held, cipher) != text:
        raise taken
    return {"executionArn": arn, "startDate": held.doc["start"]}


def cipher_of(a: Authorised, view: View, row: Row) -> Cipher:
    """The cipher of an execution's data, for the caller; raises Refused."""
    account, name = account_of(row)
    return sealing.opened(a, view, machine_arn(account, row.region, name), row.doc["key"])


# -- stopping and redriving ----------------------------------------------------------------------------------------------


async def _stopped(a: Authorised, output: Output) -> Output:
    a.engine(Executions).stopped(a.input["executionArn"])
    return output


@EXECUTION.operation("StopExecution", asks=[ask("StopExecution", "executionArn")], after=_stopped)
def stop(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    if ":express:" in given["executionArn"]:
        raise Refused("InvalidArn", "StopExecution is not supported by EXPRESS state machines.")
    row = execution(a, tx, given["executionArn"])
    if row.status != "RUNNING":
        return {"stopDate": row.doc["stop"]}
    end(a, tx, row, given.get("error"), given.get("cause"))
    return {"stopDate": row.doc["stop"]}


def end(a: Authorised, tx: Transaction, row: Row, error: str | None, cause: str | None) -> None:
    """Ends an execution in its row."""
    runner = a.engine(Executions)
    cipher = cipher_of(a, tx, row)
    m = _interpreter(runner, tx, row, cipher, {})
    m.abort(tx.now, error, cause)
    keeping.keep(tx, row, m.memory, m.events, cipher, tx.now)
    tasks.callbacks(tx, execution_arn(row), m, m.effects, cipher, row)
    runner.ended(tx, row, m)
    tx.update(row, keep=False)
    live = runner.live.get(execution_arn(row))
    if live is not None and live.logs is not None:
        live.logs.add(m.events)
    runner.count(m.about.machine, "ExecutionsAborted")


def _interpreter(runner: Executions, view: View, row: Row, cipher: Cipher, definition: dict[str, Any]) -> Interpreter:
    text = keeping.input_of(view, row, cipher)
    arn = execution_arn(row)
    memory = Memory.read(cipher.read(row.doc["state"]))
    return Interpreter(definition, memory, runner.about(row, text), runner.evaluate, lambda f, s: runner.token(arn, s))


async def _redriven(a: Authorised, output: Output) -> Output:
    await a.engine(Executions).take_up(a.input["executionArn"])
    return output


async def _redrives(a: Authorised) -> Machine:
    with a.calls.store.reading() as view:
        row = execution(a, view, a.input["executionArn"])
    return await a.engine(Executions).machine(a.account, a.region, row.doc["revision"], row.doc["role"])


@EXECUTION.operation(
    "RedriveExecution", asks=[ask("RedriveExecution", "executionArn")], before=_redrives, after=_redriven
)
def redrive(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    row = execution(a, tx, given["executionArn"])
    token = given.get("clientToken")
    if token and row.doc.get("token") == token and row.doc.get("redriven"):
        return {"redriveDate": row.doc["redriven"]}
    status, reason = keeping.redrivable(row, tx.now)
    if status != "REDRIVABLE":
        raise Refused("ExecutionNotRedrivable", f"Execution is not redrivable: {reason or status}")
    runner, cipher = a.engine(Executions), cipher_of(a, tx, row)
    m = _interpreter(runner, tx, row, cipher, a.staged.definition)
    m.redrive(tx.now, a.staged.definition.get("TimeoutSeconds"))
    row.doc["token"] = token
    keeping.keep(tx, row, m.memory, m.events, cipher, tx.now)
    tasks.callbacks(tx, execution_arn(row), m, [], cipher, row)
    begin_live(tx, execution_arn(row), {})
    keeping.status_event(tx, row, {"input": m.about.text})
    tx.update(row, keep=False)
    runner.count(m.about.machine, "ExecutionsRedriven")
    return {"redriveDate": tx.now}


# -- reading -------------------------------------------------------------------------------------------------------------


@EXECUTION.reads("DescribeExecution", asks=[ask("DescribeExecution", "executionArn")])
def describe(a: Authorised, view: View) -> Output:
    given = a.input["executionArn"]
    if ":express:" in given:
        raise Refused(
            "InvalidArn", f"Invalid Arn: '{given[:300]}' is of an EXPRESS state machine, whose log tells of it."
        )
    row = execution(a, view, given)
    account, name = account_of(row)
    status, reason = keeping.redrivable(row, a.now)
    output: Output = {
        "executionArn": execution_arn(row),
        "stateMachineArn": machine_arn(account, row.region, name) + _label(row),
        "name": row.name,
        "status": row.status,
        "startDate": row.doc["start"],
        "stopDate": row.doc.get("stop"),
        "traceHeader": row.doc.get("trace"),
        "mapRunArn": row.doc.get("run"),
        "stateMachineVersionArn": row.doc.get("version"),
        "stateMachineAliasArn": row.doc.get("alias"),
        "redriveCount": row.doc.get("redrives", 0),
        "redriveDate": row.doc.get("redriven"),
        "redriveStatus": status,
        "redriveStatusReason": reason,
    }
    if a.input.get("includedData") == "METADATA_ONLY":
        output |= {"inputDetails": {"included": False}}
        if row.status == "SUCCEEDED":
            output |= {"outputDetails": {"included": False}}
        return output
    cipher = cipher_of(a, view, row)
    memory = cipher.read(row.doc["state"])
    output |= {"input": keeping.input_of(view, row, cipher), "inputDetails": {"included": True}}
    if memory["output"] is not None and row.status == "SUCCEEDED":
        output |= {"output": memory["output"], "outputDetails": {"included": True}}
    if row.status in ("FAILED", "ABORTED"):  # of one that timed out its status says it all
        output |= {"error": memory["error"], "cause": memory["cause"]}
    return output


def _label(row: Row) -> str:
    _, _, rest = row.account.partition("/")
    _, _, label = rest.partition(":")[0].partition("/")
    return f"/{label}" if label else ""


@EXECUTION.reads("DescribeStateMachineForExecution", asks=[ask("DescribeStateMachineForExecution", "executionArn")])
def describe_machine(a: Authorised, view: View) -> Output:
    row = execution(a, view, a.input["executionArn"])
    account, name = account_of(row)
    held = view.get(REVISION, account, row.region, row.doc["revision"])
    assert held is not None
    output: Output = {
        "stateMachineArn": machine_arn(account, row.region, name) + _label(row),
        "name": name,
        "updateDate": held.doc["at"],
        "revisionId": None if held.doc["revision"] == "INITIAL" else held.doc["revision"],
        "mapRunArn": row.doc.get("run"),
        "label": _label(row).removeprefix("/") or None,
    }
    output |= {member: held.doc[member] for member in CONFIGURED if member != "type"}
    if a.input.get("includedData") != "METADATA_ONLY":
        output["definition"] = definition_of(a, view, Row("", account, row.region, name, {}), held)
    return output


@EXECUTION.reads(
    "ListExecutions",
    asks=[
        replace(
            ask("ListExecutions", "stateMachineArn", qualified=True),
            when=lambda asked: bool(asked.input.get("stateMachineArn")) or not asked.input.get("mapRunArn"),
        ),
        replace(ask("ListExecutions", "mapRunArn"), when=lambda asked: bool(asked.input.get("mapRunArn"))),
    ],
)
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    if bool(given.get("stateMachineArn")) == bool(given.get("mapRunArn")):
        raise Refused("ValidationException", "Specify exactly one of stateMachineArn and mapRunArn.")
    limit = int(given.get("maxResults") or 100) or 100
    qualifier = ""
    if given.get("mapRunArn"):
        arn = own(a, parsed(given["mapRunArn"], "mapRun"))
        path, _, run = arn.name.partition(":")
        if view.get(MAP, f"{a.account}/{path}", a.region, run) is None:
            raise Refused("ResourceNotFound", f"Map Run not found: '{arn}'", members={"resourceName": str(arn)})
        where = f"{a.account}/{path}:{run[:23]}"
    else:
        row = machine(a, view, given["stateMachineArn"])
        if row.doc["type"] == "EXPRESS":
            raise Refused("StateMachineTypeNotSupported", "ListExecutions is not supported by EXPRESS state machines.")
        qualifier = split(given["stateMachineArn"])[2]
        where = f"{a.account}/{row.name}"
    status, after = given.get("statusFilter"), pages.position(a, given.get("nextToken"), code="InvalidToken")
    redriven = given.get("redriveFilter")
    found: list[Output] = []
    examined = 0
    while True:
        rows = view.scan(
            RUN, where, a.region, order="created", descending=True, status=status, limit=limit + 1,
            after=tuple(after) if after is not None else None,
        )  # fmt: skip
        for row in rows:
            if len(found) == limit or examined >= 1000:
                return {"executions": found, "nextToken": pages.seal(a, after)}
            examined += 1
            after = [row.created, row.name]
            again = row.doc.get("redrives", 0) > 0
            if redriven and again != (redriven == "REDRIVEN"):
                continue
            if qualifier and not str(row.doc.get("version" if qualifier.isdigit() else "alias")).endswith(
                f":{qualifier}"
            ):
                continue
            found.append(_summary(row))
        if len(rows) <= limit:
            return {"executions": found}


def _summary(row: Row) -> Output:
    account, name = account_of(row)
    return {
        "executionArn": execution_arn(row),
        "stateMachineArn": machine_arn(account, row.region, name) + _label(row),
        "name": row.name,
        "status": row.status,
        "startDate": row.doc["start"],
        "stopDate": row.doc.get("stop"),
        "mapRunArn": row.doc.get("run"),
        "itemCount": row.doc.get("items"),
        "stateMachineVersionArn": row.doc.get("version"),
        "stateMachineAliasArn": row.doc.get("alias"),
        "redriveCount": row.doc.get("redrives", 0),
        "redriveDate": row.doc.get("redriven"),
    }


@EXECUTION.reads("GetExecutionHistory", asks=[ask("GetExecutionHistory", "executionArn")])
def history(a: Authorised, view: View) -> Output:
    given = a.input
    if ":express:" in given["executionArn"]:
        raise Refused("InvalidArn", f"Invalid Arn: '{given['executionArn'][:300]}' is of an EXPRESS state machine.")
    row = execution(a, view, given["executionArn"])
    cipher = cipher_of(a, view, row)
    limit = min(int(given.get("maxResults") or 100) or 100, 1000)
    backwards = bool(given.get("reverseOrder"))
    last = int(row.doc["events"])
    at = pages.position(a, given.get("nextToken"), code="InvalidToken")
    at = int(at) if at is not None else (last if backwards else 1)
    low, high = (max(1, at - limit + 1), at) if backwards else (at, min(last, at + limit - 1))
    events = keeping.between(view, row, cipher, low, high)
    if backwards:
        events.reverse()
    if given.get("includeExecutionData") is False:
        events = [_bare(one) for one in events]
    more = low > 1 if backwards else high < last
    return {"events": events, "nextToken": pages.seal(a, low - 1 if backwards else high + 1) if more else None}


def _bare(event: dict[str, Any]) -> dict[str, Any]:
    """An event without the data that the execution carries."""
    hidden = ("input", "output", "parameters", "assignedVariables", "cause", "error")
    return {
        name: {key: value for key, value in one.items() if key not in hidden} if isinstance(one, dict) else one
        for name, one in event.items()
    }
