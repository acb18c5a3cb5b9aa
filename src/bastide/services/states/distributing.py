"""Runs of distributed Map states: their children, each an execution of its own.

The row of a run counts; inputs and results are sealed blobs, by number. Whoever takes a run up (`step`) starts children
until as many run as may, and when none is left tells the execution that began it.

Source: Step Functions API Reference, DescribeMapRun; developer guide, "Using Map state in Distributed mode".
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from bastide.domain import Arn, Refused, iso
from bastide.engines.asl import About, Frame, Interpreter, Memory, mapping
from bastide.engines.asl.problems import PERMISSIONS, TOLERANCE
from bastide.engines.asl.values import LARGEST, dumps, loads
from bastide.services.states import keeping, reading, tasks
from bastide.services.states.execution import launch
from bastide.services.states.holding import Machine
from bastide.services.states.noun import (
    MAP,
    MAP_RUN,
    RUN,
    account_of,
    execution_arn,
    machine_arn,
    parsed,
)
from bastide.services.states.runner import Executions, Live
from bastide.services.states.sealing import Cipher
from bastide.services.states.tasks import Failed, Mail
from bastide.store import Row, Transaction, View

RUNS_OF: Final = "states:MapRunOf"
"""Under an execution's ARN: its runs."""
_MOST_AT_ONCE: Final = 200
_PIECE: Final = 100
STATES: Final = {"SUCCEEDED": "succeeded", "FAILED": "failed", "TIMED_OUT": "timedOut", "ABORTED": "aborted"}
_locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()


def run_arn(row: Row) -> str:
    """The ARN of a run."""
    account, _, path = row.account.partition("/")
    return MAP_RUN.arn(account, row.region, f"{path}:{row.name}")


def find(view: View, given: str) -> Row | None:
    """The row of a run that an ARN names, or None; raises InvalidArn."""
    arn = parsed(given, "mapRun")
    path, _, run = arn.name.partition(":")
    return view.get(MAP, f"{arn.account}/{path}", arn.region, run)


def blob(run: str, what: str, number: int) -> str:
    """Where a run's inputs and express results are kept."""
    return f"states/map/{run}/{what}/{number:06d}"


# -- beginning -----------------------------------------------------------------------------------------------------------


async def make(runner: Executions, live: Live, frame: Frame) -> Mail | None:
    """Reads the items of a Map state, or begins its run. Raises Failed."""
    call, serial = dict(frame.call or {}), frame.serial
    about = live.m.about
    if call["map"] == "read":
        try:
            caller = await runner.session(live.machine_arn, about.role)
        except Refused as refused:
            raise Failed(PERMISSIONS, f"The role {about.role} cannot be assumed: {refused.message}") from None
        found = await reading.items(runner, caller, about.region, call["reader"])
        return lambda m, now: _read(m, serial, now, found)
    if "redrive" in call:
        redriven: Mail = await tasks.BY_MAP["redrive"](runner, live, frame)
        return redriven
    if "job" in call:
        runner.aside(step(runner, call["job"]["arn"]))
        return None
    row = await _begun(runner, live, frame, call)
    arn = run_arn(row)
    job = {"arn": arn, "operation": "MapRun", "machine": live.machine_arn, "role": about.role}

    def tell(m: Interpreter, now: int) -> None:
        held = m.under_way(serial)
        if held is None or held.call is None:
            return
        held.call = {"map": "run", "job": job}
        m.started(serial, now, "MapRunStarted", {"mapRunArn": arn})
        runner.soon(lambda: runner.aside(step(runner, arn)))

    return tell


def _read(m: Interpreter, serial: int, now: int, found: list[Any]) -> None:
    frame = m.under_way(serial)
    if frame is not None:
        m.now = max(m.now, now)
        m._guarded(frame, mapping.read, found)


async def _begun(runner: Executions, live: Live, frame: Frame, call: dict[str, Any]) -> Row:
    about = live.m.about
    run = str(uuid5(NAMESPACE_URL, f"{live.arn}/map/{frame.serial}"))
    account = Arn.parse(about.arn).account
    inputs: list[str] = call["inputs"]
    counts = [1] * len(inputs)
    if "batcher" in call:
        inputs, counts = _batched(inputs, call["batcher"])
    state = live.m.state(frame)
    where = "ItemProcessor" if "ItemProcessor" in state else "Iterator"
    doc = {
        "execution": live.arn,
        "serial": frame.serial,
        "machine": about.machine,
        "revision": live.row.doc["revision"] if live.row is not None else "",
        "role": about.role,
        "at": [*frame.at, "States", frame.state, where],
        "type": call["type"],
        "width": call["width"],
        "count": call["count"],
        "share": call["share"],
        "writer": live.cipher.text(call.get("writer")),
        "key": live.cipher.wrapped,
        "children": len(inputs),
        "items": counts if "batcher" in call else None,
        "next": 0,
        "start": runner.calls.clock(),
        "succeeded": 0,
        "failed": 0,
        "timedOut": 0,
        "aborted": 0,
        "items_of": {"succeeded": 0, "failed": 0, "timedOut": 0, "aborted": 0},
    }
    row = Row(MAP, f"{account}/{about.machine_name}/{call['label']}", about.region, run, doc, "RUNNING")

    def work(tx: Transaction) -> Row:
        held = tx.get(MAP, row.account, row.region, run)
        if held is not None:
            return held
        tx.insert(row, keep=False)
        tx.insert(Row(RUNS_OF, live.arn, row.region, run, {"arn": run_arn(row)}), keep=False)
        for place in range(0, len(inputs), _PIECE):
            tx.put_blob(blob(run, "in", place // _PIECE), live.cipher.seal(inputs[place : place + _PIECE]))
        return row

    return await runner.calls.store.write(work)


def _batched(inputs: list[str], how: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Inputs of children that are given several items each, and how many each has."""
    most, largest = how.get("items") or len(inputs) or 1, min(how.get("bytes") or LARGEST, LARGEST)
    head = f'"BatchInput":{dumps(how["input"])},' if "input" in how else ""
    found: list[str] = []
    counts: list[int] = []
    batch: list[str] = []
    size = base = len(head) + 12
    for one in [*inputs, None]:
        length = 0 if one is None else len(one.encode()) + 1
        if batch and (one is None or len(batch) >= most or size + length > largest):
            found.append("{" + head + '"Items":[' + ",".join(batch) + "]}")
            counts.append(len(batch))
            batch, size = [], base
        if one is not None:
            batch.append(one)
            size += length
    return found, counts


# -- going on ------------------------------------------------------------------------------------------------------------


def lock(arn: str) -> asyncio.Lock:
    """Held by whoever goes on with a run."""
    found = _locks.get(arn)
    if found is None:
        found = _locks[arn] = asyncio.Lock()
    return found


async def step(runner: Executions, arn: str) -> None:
    """Starts what may start of a run; ends it when all of it is over."""
    async with lock(arn):
        await _step(runner, arn)


async def _step(runner: Executions, arn: str) -> None:
    while True:
        with runner.calls.store.reading() as view:
            row = find(view, arn)
        if row is None or row.status != "RUNNING":
            return
        doc = row.doc
        account, name = account_of(row)
        machine = await runner.machine(account, row.region, doc["revision"], doc["role"])
        seconds = int(machine.doc["encryptionConfiguration"].get("kmsDataKeyReusePeriodSeconds") or 300)
        cipher = await runner.cipher(machine_arn(account, row.region, name), doc["role"], doc["key"], seconds)
        if _exceeded(doc):
            await _end(runner, row, cipher, "FAILED")
            return
        over = sum(int(doc[one]) for one in STATES.values())
        if doc["type"] == "EXPRESS":
            await _express(runner, row, machine, cipher)
            return
        if over == doc["children"]:
            await _end(runner, row, cipher, "SUCCEEDED")
            return
        waiting = doc.get("waiting", 0)
        room = min(doc["width"] or _MOST_AT_ONCE, _MOST_AT_ONCE) - (doc["next"] - over - waiting)
        if waiting and room > 0:
            for child in await runner.calls.store.write(
                lambda tx: tasks.BY_MAP["relaunch"](runner, tx, arn, machine, cipher, min(room, 50))  # noqa: B023
            ):
                await runner.take_up(child)
            continue
        most = min(room, doc["children"] - doc["next"], 50)
        if most <= 0:
            return
        for live in await runner.calls.store.write(lambda tx: _launch(runner, tx, arn, machine, cipher, most)):  # noqa: B023
            runner.live[live.arn] = live
            runner.drive(live)


def _exceeded(doc: dict[str, Any]) -> bool:
    items = doc["items_of"] if doc.get("items") else {one: doc[one] for one in STATES.values()}
    failed = items["failed"] + items["timedOut"] + items["aborted"]
    total = sum(doc["items"]) if doc.get("items") else doc["children"]
    if not failed:
        return False
    by_count = failed > doc["count"] if doc["count"] or doc["share"] is None else False
    by_share = doc["share"] is not None and 100.0 * failed / max(total, 1) > doc["share"]
    return by_count or by_share


def input_at(view: View, row: Row, cipher: Cipher, index: int) -> str:
    """A child's input."""
    piece = view.blob(blob(row.name, "in", index // _PIECE))
    assert piece is not None
    return str(cipher.open(piece)[index % _PIECE])


def child_place(row: Row, index: int) -> tuple[str, str, str]:
    """Where a child's row is."""
    name = f"{row.name[:24]}{index:012x}"
    return f"{row.account}:{row.name[:23]}", row.region, name


def _launch(runner: Executions, tx: Transaction, arn: str, machine: Machine, cipher: Cipher, most: int) -> list[Live]:
    row = find(tx, arn)
    if row is None or row.status != "RUNNING":
        return []
    doc, lives = row.doc, []
    for index in range(doc["next"], min(doc["next"] + most, doc["children"])):
        where = child_place(row, index)
        told = {
            "id": f"{row.name}-{index}",
            "revision": doc["revision"],
            "role": doc["role"],
            "start": tx.now,
            "run": arn,
            "index": index,
            "at": doc["at"],
            "items": doc["items"][index] if doc.get("items") else None,
        }
        text = input_at(tx, row, cipher, index)
        lives.append(launch(runner, tx, keeping.new_row(where, told), machine, cipher, text, at=doc["at"]))
    doc["next"] = min(doc["next"] + most, doc["children"])
    tx.update(row, keep=False)
    return lives


def child_over(tx: Transaction, row: Row, m: Interpreter) -> None:
    """Counts a child that is over, in the transaction in which it ends, and keeps what it gave."""
    run = find(tx, row.doc["run"])
    if run is None:
        return
    count(run, m.memory.status, row.doc["index"])
    tx.update(run, keep=False)


def count(run: Row, status: str, index: int) -> None:
    """Counts a child that is over."""
    name = STATES[status]
    run.doc[name] += 1
    run.doc["items_of"][name] += run.doc["items"][index] if run.doc.get("items") else 1


async def _express(runner: Executions, row: Row, machine: Machine, cipher: Cipher) -> None:
    """All of a run's express children: in memory, each result kept when it is there."""
    doc, arn = row.doc, run_arn(row)
    room = asyncio.Semaphore(min(doc["width"] or _MOST_AT_ONCE, _MOST_AT_ONCE))
    failed = asyncio.Event()

    async def one(index: int) -> None:
        async with room:
            if failed.is_set():
                return
            with runner.calls.store.reading() as view:
                if view.blob(blob(row.name, "out", index)) is not None:
                    return
                text = input_at(view, row, cipher, index)
            told = await _child(runner, row, machine, cipher, index, text)

            def work(tx: Transaction) -> bool:
                run = find(tx, arn)
                if run is None or run.status != "RUNNING":
                    return True
                tx.put_blob(blob(row.name, "out", index), cipher.seal(told))
                count(run, told["Status"], index)
                run.doc["next"] = max(run.doc["next"], index + 1)
                tx.update(run, keep=False)
                return _exceeded(run.doc)

            if await runner.calls.store.write(work):
                failed.set()

    await asyncio.gather(*(one(index) for index in range(doc["children"])))
    with runner.calls.store.reading() as view:
        held = find(view, arn)
    if held is not None and held.status == "RUNNING":
        await _end(runner, held, cipher, "FAILED" if _exceeded(held.doc) else "SUCCEEDED")


async def _child(
    runner: Executions, row: Row, machine: Machine, cipher: Cipher, index: int, text: str
) -> dict[str, Any]:
    account, name = account_of(row)
    _, region, child = child_place(row, index)
    path = row.account.partition("/")[2]
    arn = f"arn:aws:states:{region}:{account}:express:{path}:{child}:{child}"
    now = runner.calls.clock()
    about = About(arn, child, row.doc["role"], now, machine_arn(account, region, name), name, loads(text), text, region)
    m = Interpreter(machine.definition, Memory(), about, runner.evaluate, lambda f, s: runner.token(arn, s))
    m.begin(now, row.doc["at"])
    m.memory.ends = now + 300 * 1_000_000
    live = Live(arn, None, machine, m, cipher)
    runner.live[arn] = live
    runner.drive(live)
    await live.over.wait()
    return _told(arn, child, m, now, row)


def _told(arn: str, name: str, m: Interpreter, start: int, row: Row) -> dict[str, Any]:
    memory = m.memory
    found: dict[str, Any] = {
        "ExecutionArn": arn,
        "Input": m.about.text,
        "InputDetails": {"Included": True},
        "Name": name,
        "StartDate": iso(start),
        "StateMachineArn": f"{m.about.machine}/{row.account.rpartition('/')[2]}",
        "Status": memory.status,
        "StopDate": iso(m.now),
    }
    if memory.output is not None:
        found |= {"Output": memory.output, "OutputDetails": {"Included": True}}
    return found | {key: one for key, one in (("Error", memory.error), ("Cause", memory.cause)) if one is not None}


def _results(view: View, row: Row, cipher: Cipher) -> list[dict[str, Any]]:
    """What the children gave, in their order; of those that were not started, their inputs."""
    found: list[dict[str, Any]] = []
    for index in range(row.doc["children"]):
        if row.doc["type"] == "EXPRESS":
            kept = view.blob(blob(row.name, "out", index))
            told = cipher.open(kept) if kept is not None else None
        else:
            child = view.get(RUN, *child_place(row, index))
            told = None
            if child is not None:
                memory = cipher.read(child.doc["state"])
                told = {
                    "ExecutionArn": execution_arn(child),
                    "Input": keeping.input_of(view, child, cipher),
                    "InputDetails": {"Included": True},
                    "Name": child.name,
                    "RedriveCount": child.doc.get("redrives", 0),
                    "StartDate": iso(child.doc["start"]),
                    "StateMachineArn": f"{row.doc['machine']}/{row.account.rpartition('/')[2]}",
                    "Status": child.status,
                }
                if child.doc.get("stop"):
                    told["StopDate"] = iso(child.doc["stop"])
                for key, name in (("Output", "output"), ("Error", "error"), ("Cause", "cause")):
                    if memory[name] is not None:
                        told[key] = memory[name]
        found.append(told or {"Input": input_at(view, row, cipher, index), "Status": "PENDING"})
    return found


async def _end(runner: Executions, row: Row, cipher: Cipher, status: str) -> None:
    """The run is over: results are written, and the execution that began it is told."""
    doc, arn = row.doc, run_arn(row)
    with runner.calls.store.reading() as view:
        results = _results(view, row, cipher)
    writer = cipher.read(doc["writer"]) if doc["writer"] else None
    told: dict[str, Any] = {"kind": "map", "serial": doc["serial"], "status": status, "arn": arn}
    succeeded = [one for one in results if one["Status"] == "SUCCEEDED"]
    written = 0
    try:
        if writer is not None and writer.get("Resource"):
            caller = await runner.session(doc["machine"], doc["role"])
            groups = {
                "SUCCEEDED": succeeded,
                "FAILED": [one for one in results if one["Status"] in ("FAILED", "TIMED_OUT", "ABORTED")],
                "PENDING": [one for one in results if one["Status"] in ("PENDING", "RUNNING")],
            }
            found: Any = await reading.written(runner, caller, row.region, writer, arn, groups)
            written = len(results)
        elif writer is not None and writer["config"]:
            found = reading.shaped(succeeded, writer["config"])
        else:
            found = [loads(one["Output"]) for one in succeeded]
        told["output"] = dumps(found)
    except Failed as failed:
        status = told["status"] = "FAILED"
        told |= {"error": failed.error, "cause": failed.cause}
    except Refused as refused:
        status = told["status"] = "FAILED"
        told |= {"error": PERMISSIONS, "cause": refused.message}
    if status == "FAILED" and "error" not in told:
        told |= {"error": TOLERANCE, "cause": "The specified tolerated failure threshold was exceeded"}

    def work(tx: Transaction) -> bool:
        held = find(tx, arn)
        if held is None or held.status != "RUNNING":
            return False
        held.status, held.doc["stop"], held.doc["written"] = status, tx.now, written
        held.doc["error"] = told.get("error")
        tx.update(held, keep=False)
        tasks.put_letter(tx, doc["execution"], cipher, told)
        return True

    if await runner.calls.store.write(work):
        runner.poke(doc["execution"])
        if status == "FAILED":
            await stop_children(runner, row)


async def abort(runner: Executions, arn: str, redrives: int | None = None) -> None:
    """Nobody wants a run's results any more. redrives: how often it had been redriven when that was so."""

    def work(tx: Transaction) -> Row | None:
        held = find(tx, arn)
        if held is None or held.status != "RUNNING" or redrives not in (None, held.doc.get("redrives", 0)):
            return None
        held.status, held.doc["stop"] = "ABORTED", tx.now
        tx.update(held, keep=False)
        return held

    row = await runner.calls.store.write(work)
    if row is not None:
        await stop_children(runner, row)


async def forget(runner: Executions, execution: str, region: str) -> None:
    """Removes the runs of an execution, with their children."""
    store = runner.calls.store
    with store.reading() as view:
        held = view.scan(RUNS_OF, execution, region, limit=1000)
    for one in held:
        arn = one.doc["arn"]
        await abort(runner, arn)
        with store.reading() as view:
            row = find(view, arn)
        if row is None:
            continue
        where, _, _ = child_place(row, 0)
        while True:
            with store.reading() as view:
                children = view.scan(RUN, where, region, limit=200)
            if not children:
                break

            def work(tx: Transaction, children: list[Row] = children) -> None:
                for child in children:
                    current = tx.get(RUN, child.account, child.region, child.name)
                    if current is not None:
                        keeping.forget(tx, current)

            await store.write(work)

        def last(tx: Transaction, row: Row = row, name: str = one.name) -> None:
            for place in range(row.doc["children"]):
                tx.drop_blob(blob(row.name, "out", place))
                if place % _PIECE == 0:
                    tx.drop_blob(blob(row.name, "in", place // _PIECE))
            for kind, account, key in ((MAP, row.account, row.name), (RUNS_OF, execution, name)):
                current = tx.get(kind, account, region, key)
                if current is not None:
                    tx.delete(current, keep=False)

        await store.write(last)


async def stop_children(runner: Executions, row: Row) -> None:
    """Stops what still runs of a run that is over, and counts it."""
    where, region, _ = child_place(row, 0)
    if row.doc["type"] == "EXPRESS":
        prefix = f":express:{row.account.partition('/')[2]}:{row.name[:23]}"
        for live in [one for one in runner.live.values() if prefix in one.arn]:
            runner.drop(live)
        return
    while True:
        with runner.calls.store.reading() as view:
            running = view.scan(RUN, where, region, order="created", status="RUNNING", limit=100)
        if not running:
            return

        def work(tx: Transaction, running: list[Row] = running) -> list[str]:
            ended = []
            run = find(tx, run_arn(row))
            for one in running:
                held = tx.get(RUN, one.account, one.region, one.name)
                if held is None or held.status != "RUNNING":
                    continue
                held.status, held.doc["stop"] = "ABORTED", tx.now
                tasks.forget_all(tx, execution_arn(held))
                for job in (held.doc.get("jobs") or {}).values():
                    tx.emit(tasks.GIVE_UP, {**job, "execution": execution_arn(held)})
                tx.update(held, keep=False)
                live = tx.get(keeping.LIVE, "", "", execution_arn(held))
                if live is not None:
                    tx.delete(live, keep=False)
                ended.append(execution_arn(held))
                if run is not None:
                    count(run, "ABORTED", held.doc["index"])
            if run is not None:
                tx.update(run, keep=False)
            return ended

        for arn in await runner.calls.store.write(work):
            runner.stopped(arn)


tasks.BY_MAP.update(make=make, abort=abort, step=step, child_over=child_over, forget=forget)
