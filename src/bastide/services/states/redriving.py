"""Runs of distributed Map states, redriven with the execution that began them: of their children, who did not succeed.

A standard child goes on where it stood, an express one begins anew; those that were never started are started. What was
still running when the run failed or was stopped is stopped first. A run that failed by the size of its data or at
run time is not redriven: a new one begins.

Source: Step Functions Developer Guide, "Redriving Map Runs in Step Functions executions".
"""

from __future__ import annotations

from typing import Final

from bastide.engines.asl import Frame, Interpreter, Memory
from bastide.engines.asl.problems import LIMIT, RUNTIME
from bastide.services.states import distributing, keeping, tasks
from bastide.services.states.holding import Machine
from bastide.services.states.noun import RUN, execution_arn, place
from bastide.services.states.runner import Executions, Live, begin_live
from bastide.services.states.sealing import Cipher
from bastide.services.states.tasks import Failed, Mail
from bastide.store import Row, Transaction

_MOST: Final = 1000
_LONGEST: Final = 24_999
"""Events of a child that can be redriven."""
_LOOKED_AT: Final = 500
_PIECE: Final = 100
_FAILED: Final = ("failed", "timedOut", "aborted")


async def redrive(runner: Executions, live: Live, frame: Frame) -> Mail:
    """Has a frame's run go on; what the execution is then told. Raises Failed."""
    assert frame.call is not None
    serial, job = frame.serial, frame.call["job"]
    arn, times = job["arn"], job["redrives"]
    if times > _MOST:
        raise Failed(RUNTIME, f"The Map Run has been redriven {_MOST} times.")
    with runner.calls.store.reading() as view:
        row = distributing.find(view, arn)
    if row is not None and row.doc.get("redrives", 0) < times:
        await distributing.abort(runner, arn, times - 1)
    async with distributing.lock(arn):
        done = await _redriven(runner, live, arn, times)

    def tell(m: Interpreter, now: int) -> None:
        held = m.under_way(serial)
        if held is None or held.call is None:
            return
        if not done:
            held.call = None
            m.anew(held)
            return
        held.call = {name: one for name, one in held.call.items() if name != "redrive"}
        m.started(serial, now, "MapRunRedriven", {"mapRunArn": arn, "redriveCount": times})
        runner.soon(lambda: runner.aside(distributing.step(runner, arn)))

    return tell


async def _redriven(runner: Executions, live: Live, arn: str, times: int) -> bool:
    """Whether the run goes on, and not a new one begins."""
    store = runner.calls.store
    with store.reading() as view:
        row = distributing.find(view, arn)
    if row is None or row.status == "SUCCEEDED" or row.doc.get("error") in (LIMIT, RUNTIME):
        return False
    if row.doc.get("redrives", 0) >= times:
        return True  # before a crash
    await distributing.stop_children(runner, row)
    if row.doc["type"] == "EXPRESS":
        await _cleared(runner, row, live.cipher)

    def work(tx: Transaction) -> None:
        held, parent = distributing.find(tx, arn), tx.get(RUN, *place(live.arn))
        if held is None or parent is None or parent.status != "RUNNING":
            return
        doc, items = held.doc, held.doc["items_of"]
        express = doc["type"] == "EXPRESS"
        held.status = "RUNNING"
        doc |= {"redrives": times, "redriven": tx.now, "walk": 0, "lost": [0, 0], "error": None}
        doc["waiting"] = 0 if express else sum(doc[one] for one in _FAILED)
        doc["items_waiting"] = 0 if express else sum(items[one] for one in _FAILED)
        if express:
            doc["next"] = doc["succeeded"]
        doc |= dict.fromkeys(_FAILED, 0)
        items |= dict.fromkeys(_FAILED, 0)
        doc.pop("stop", None)
        tx.update(held, keep=False)

    await store.write(work)
    return True


async def _cleared(runner: Executions, row: Row, cipher: Cipher) -> None:
    """Forgets what express children gave that did not succeed."""
    for first in range(0, row.doc["children"], _PIECE):

        def work(tx: Transaction, first: int = first) -> None:
            for index in range(first, min(first + _PIECE, row.doc["children"])):
                where = distributing.blob(row.name, "out", index)
                kept = tx.blob(where)
                if kept is not None and cipher.open(kept)["Status"] != "SUCCEEDED":
                    tx.drop_blob(where)

        await runner.calls.store.write(work)


def relaunch(runner: Executions, tx: Transaction, arn: str, machine: Machine, cipher: Cipher, most: int) -> list[str]:
    """Has at most so many standard children go on, in the order of their items; their ARNs, to be taken up."""
    row = distributing.find(tx, arn)
    if row is None or row.status != "RUNNING":
        return []
    doc, found = row.doc, list[str]()
    last = min(doc["next"], doc["walk"] + _LOOKED_AT)
    while len(found) < most and doc["waiting"] and doc["walk"] < last:
        index = doc["walk"]
        doc["walk"] += 1
        child = tx.get(RUN, *distributing.child_place(row, index))
        if child is None or child.status not in keeping.OVER[1:]:
            continue
        items = doc["items"][index] if doc.get("items") else 1
        doc["waiting"] -= 1
        doc["items_waiting"] -= items
        if child.doc["events"] >= _LONGEST:
            distributing.count(row, child.status, index)
            doc["lost"] = [doc["lost"][0] + 1, doc["lost"][1] + items]
        else:
            found.append(_again(runner, tx, child, machine, cipher))
    if doc["walk"] >= doc["next"]:
        doc["waiting"] = doc["items_waiting"] = 0
    tx.update(row, keep=False)
    return found


def _again(runner: Executions, tx: Transaction, child: Row, machine: Machine, cipher: Cipher) -> str:
    """A child goes on where it stood."""
    arn, text = execution_arn(child), keeping.input_of(tx, child, cipher)
    memory = Memory.read(cipher.read(child.doc["state"]))
    about = runner.about(child, text)
    m = Interpreter(machine.definition, memory, about, runner.evaluate, lambda f, s: runner.token(arn, s))
    if memory.status == "RUNNING":
        m.abort(child.doc["stop"], None, None)  # what was stopped with its run was not told
    m.redrive(tx.now, None)
    keeping.keep(tx, child, m.memory, m.events, cipher, tx.now)
    begin_live(tx, arn, {})
    keeping.status_event(tx, child, {"input": text})
    tx.update(child, keep=False)
    return arn


tasks.BY_MAP.update(redrive=redrive, relaunch=relaunch)
