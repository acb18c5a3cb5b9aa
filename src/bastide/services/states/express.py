"""Express executions: in memory only. An asynchronous one that a crash cut off begins anew, as AWS's run at least once; a
synchronous one runs at most once.

Source: Step Functions developer guide, "Choosing workflow type in Step Functions".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from bastide.domain import MICROS, Refused, new_id
from bastide.engines.asl import About, Interpreter, Memory
from bastide.engines.asl.values import loads
from bastide.kernel import Authorised, Output
from bastide.services.states import sealing
from bastide.services.states.holding import Machine
from bastide.services.states.noun import MACHINE, ask, check_name, machine, machine_arn
from bastide.services.states.runner import AGAIN, Executions, Live, begin_live
from bastide.services.states.starting import Start, given_input, prepared
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.states")
_LONGEST: Final = 300 * MICROS
_MOST_EVENTS: Final = 100_000
_LEFT_SECONDS: Final = 330.0


def _live(
    runner: Executions,
    machine_row: Row,
    found: Machine,
    cipher: sealing.Cipher,
    arn: str,
    name: str,
    text: str,
    now: int,
) -> Live:
    who = machine_arn(machine_row.account, machine_row.region, machine_row.name)
    about = About(
        arn,
        name,
        found.doc["roleArn"],
        now // 1000 * 1000,
        who,
        machine_row.name,
        loads(text),
        text,
        machine_row.region,
    )
    m = Interpreter(
        found.definition, Memory(), about, runner.evaluate, lambda f, s: runner.token(arn, s), most_events=_MOST_EVENTS
    )
    m.begin(now)
    m.memory.ends = min(m.memory.ends or now + _LONGEST, now + _LONGEST)
    return runner.logged(Live(arn, None, found, m, cipher))


def _arn(row: Row, name: str) -> str:
    return f"arn:aws:states:{row.region}:{row.account}:express:{row.name}:{name}:{new_id()}"


def begin(a: Authorised, tx: Transaction, row: Row, found: Start, name: str, text: str) -> Live:
    """An asynchronous execution; what begins it anew after a crash is kept."""
    live = _live(a.engine(Executions), row, found.machine, found.cipher, _arn(row, name), name, text, tx.now)
    sealed = found.cipher.text({"input": text, "name": name})
    doc = {"express": sealed, "key": found.cipher.wrapped, "revision": found.revision}
    begin_live(tx, live.arn, {**doc, "account": row.account, "region": row.region, "machine": row.name})
    return live


async def again(runner: Executions, held: Row) -> None:
    """Begins an asynchronous execution anew that an earlier process did not come to the end of."""
    doc = held.doc
    try:
        found = await runner.machine(doc["account"], doc["region"], doc["revision"])
        who = machine_arn(doc["account"], doc["region"], doc["machine"])
        cipher = await runner.cipher(who, found.doc["roleArn"], doc["key"], 300)
    except Refused as refused:
        _log.warning("the express execution %s is not begun anew: %s", held.name, refused.code)
        await runner.forget_express(held.name)
        return
    told = cipher.read(doc["express"])
    row = Row("", doc["account"], doc["region"], doc["machine"], {})
    live = _live(runner, row, found, cipher, held.name, told["name"], told["input"], runner.calls.clock())
    runner.live[live.arn] = live
    runner.drive(live)


async def _run(a: Authorised) -> Output:
    found = await prepared(a)
    if found.machine.doc["type"] != "EXPRESS":
        raise Refused("StateMachineTypeNotSupported", "This operation is not supported by this type of state machine")
    text = given_input(a)
    name = check_name(a.input["name"]) if a.input.get("name") else new_id()
    runner = a.engine(Executions)
    with a.calls.store.reading() as view:
        row = machine(a, view, a.input["stateMachineArn"], standing=True)
    live = _live(runner, row, found.machine, found.cipher, _arn(row, name), name, text, a.calls.clock())
    runner.live[live.arn] = live
    runner.count(live.machine_arn, "ExecutionsStarted")
    runner.drive(live)
    try:
        await asyncio.wait_for(live.over.wait(), _LEFT_SECONDS)
    finally:
        runner.drop(live)
    memory = live.m.memory
    took = max(1, (live.m.now - live.m.about.started) // 1000)
    output: dict[str, Any] = {
        "executionArn": live.arn,
        "stateMachineArn": live.machine_arn,
        "name": name,
        "startDate": live.m.about.started,
        "stopDate": live.m.now,
        "status": memory.status,
        "error": memory.error,
        "cause": memory.cause,
        "traceHeader": a.input.get("traceHeader"),
        "billingDetails": {
            "billedMemoryUsedInMB": 64,
            "billedDurationInMilliseconds": -(-took // 100) * 100,
        },
    }
    whole = a.input.get("includedData") != "METADATA_ONLY"
    output |= {"inputDetails": {"included": whole}} | ({"input": text} if whole else {})
    if memory.output is not None:
        output |= {"outputDetails": {"included": whole}} | ({"output": memory.output} if whole else {})
    return output


@MACHINE.reads("StartSyncExecution", asks=[ask("StartSyncExecution", "stateMachineArn", qualified=True)], before=_run)
def start_sync(a: Authorised, _: Any) -> Output:
    output: Output = a.staged
    return output


AGAIN.append(again)
