"""Activities, whose tasks workers fetch; and what workers and others who hold a token report.

Source: Step Functions API Reference, GetActivityTask, SendTaskSuccess and their kin.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.engines.asl.values import LARGEST, loads
from bastide.kernel import Ask, Authorised, Kind, Output, anything, pages
from bastide.services.states import keeping, sealing, tasks
from bastide.services.states.noun import (
    ACTIVITY,
    RUN,
    account_of,
    ask,
    check_name,
    machine_arn,
    named,
    own,
    parsed,
    place,
    tags,
)
from bastide.services.states.runner import Executions
from bastide.services.states.tasks import ACTIVITY_TASK
from bastide.store import Row, Transaction, View

CALLBACK: Final = Kind("TaskToken", service="stepfunctions", arn_service="states", arn="taskToken:{}", tags=False)
"""Not a noun: what the operations of whoever holds a token hang on."""
_POLL_SECONDS: Final = 60.0
_ARN: Final = named(ACTIVITY)


def _activity(a: Authorised, view: View) -> Row:
    given = a.input["activityArn"]
    arn = own(a, parsed(given, "activity"))
    row = ACTIVITY.get(view, arn.account, arn.region, arn.name)
    if row is None:
        raise Refused("ActivityDoesNotExist", f"Activity Does Not Exist: '{given}'")
    return row


@ACTIVITY.operation(
    "CreateActivity",
    asks=[
        Ask("states:CreateActivity", _ARN),
        Ask("states:TagResource", _ARN, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = check_name(a.input["name"])
    arn = ACTIVITY.arn(a.account, a.region, name)
    configuration = sealing.check(a.input.get("encryptionConfiguration"))
    if configuration["type"] == sealing.CUSTOMER:
        raise Refused(
            "InvalidEncryptionConfiguration",
            "Invalid Encryption Configuration: 'an activity's input is kept under the key of the state machine that it "
            "comes from; a key of the activity's own is not supported by Bastide'",
        )
    held = ACTIVITY.get(tx, a.account, a.region, name)
    if held is None:
        held = Row(
            ACTIVITY.key,
            a.account,
            a.region,
            name,
            {"encryptionConfiguration": configuration},
            "",
            tags(a.input.get("tags")),
        )
        ACTIVITY.insert(tx, held, a.operation.name, a.request.id)
    return {"activityArn": arn, "creationDate": held.created}


@ACTIVITY.reads("DescribeActivity", asks=[ask("DescribeActivity", "activityArn")])
def describe(a: Authorised, view: View) -> Output:
    row = _activity(a, view)
    return {
        "activityArn": ACTIVITY.arn(row.account, row.region, row.name),
        "name": row.name,
        "creationDate": row.created,
        "encryptionConfiguration": row.doc["encryptionConfiguration"],
    }


@ACTIVITY.operation("DeleteActivity", asks=[ask("DeleteActivity", "activityArn")])
def delete(a: Authorised, tx: Transaction) -> Output:
    arn = own(a, parsed(a.input["activityArn"], "activity"))
    row = ACTIVITY.get(tx, arn.account, arn.region, arn.name)
    if row is not None:
        ACTIVITY.remove(tx, row, a.operation.name, a.request.id)
    return {}


@ACTIVITY.reads("ListActivities", asks=[Ask("states:ListActivities", anything)])
def listed(a: Authorised, view: View) -> Output:
    limit = int(a.input.get("maxResults") or 100) or 100
    after = pages.position(a, a.input.get("nextToken"), code="InvalidToken")
    rows = view.scan(ACTIVITY.key, a.account, a.region, after=after, limit=limit + 1)
    shown = rows[:limit]
    return {
        "activities": [
            {
                "activityArn": ACTIVITY.arn(row.account, row.region, row.name),
                "name": row.name,
                "creationDate": row.created,
            }
            for row in shown
        ],
        "nextToken": pages.seal(a, shown[-1].name) if len(rows) > limit else None,
    }


# -- workers -------------------------------------------------------------------------------------------------------------


def _waiting(a: Authorised, view: View) -> Row | None:
    row = _activity(a, view)
    found = view.scan(ACTIVITY_TASK, f"{row.account}/{row.name}", row.region, limit=1)
    return found[0] if found else None


async def _poll(a: Authorised) -> None:
    runner = a.engine(Executions)
    until = asyncio.get_running_loop().time() + _POLL_SECONDS
    while True:
        with a.calls.store.reading() as view:
            if _waiting(a, view) is not None:
                return
        left = until - asyncio.get_running_loop().time()
        if left <= 0:
            return
        async with runner.activities:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runner.activities.wait(), min(left, 5.0))


async def _poked(a: Authorised, output: Output) -> Output:
    token = a.input.get("taskToken") or output.get("taskToken")
    if token:
        told = a.calls.sealer.open(token, "states-task").decode()
        a.engine(Executions).poke(told.rpartition("|")[0])
    return output


@ACTIVITY.operation("GetActivityTask", asks=[ask("GetActivityTask", "activityArn")], before=_poll, after=_poked)
def get_task(a: Authorised, tx: Transaction) -> Output:
    task = _waiting(a, tx)
    if task is None:
        return {"taskToken": None}
    arn, serial = task.doc["execution"], int(task.doc["serial"])
    cipher = sealing.opened(a, tx, task.doc["machine"], task.doc["key"])
    call = cipher.read(task.doc["sealed"])
    told = {"kind": "taken", "serial": serial, "worker": a.input.get("workerName")}
    tasks.put_letter(tx, arn, cipher, told)
    tx.delete(task, keep=False)
    return {"taskToken": call["token"], "input": call["given"]}


def _held(a: Authorised, tx: Transaction) -> tuple[str, int, Row, Row]:
    """The execution and the task that a token is of, if somebody waits for it still; raises Refused."""
    invalid = Refused("InvalidToken", "Invalid Token: 'Invalid token'")
    try:
        arn, _, serial = a.calls.sealer.open(a.input["taskToken"], "states-task").decode().rpartition("|")
        where = place(arn)
    except (ValueError, Refused):
        raise invalid from None
    parsed_arn = Arn.parse(arn)
    if parsed_arn.account != a.account or parsed_arn.region != a.region:
        raise invalid
    token = tx.get(keeping.TOKEN, "", "", f"{arn}|{serial}")
    row = tx.get(RUN, *where)
    if row is None:
        raise Refused("TaskDoesNotExist", "Task Does Not Exist: 'Task does not exist'")
    if token is None or row.status != "RUNNING":
        raise Refused("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
    return arn, int(serial), token, row


def _report(a: Authorised, tx: Transaction, told: dict[str, Any]) -> Output:
    arn, serial, _, row = _held(a, tx)
    account, name = account_of(row)
    cipher = sealing.opened(a, tx, machine_arn(account, row.region, name), row.doc["key"])
    tasks.put_letter(tx, arn, cipher, {**told, "serial": serial})
    if told["kind"] != "beat":
        tasks.forget(tx, arn, serial)
    return {}


@CALLBACK.operation("SendTaskSuccess", asks=[Ask("states:SendTaskSuccess", anything)], after=_poked)
def succeed(a: Authorised, tx: Transaction) -> Output:
    _held(a, tx)
    output = a.input["output"]
    try:
        loads(output)
    except ValueError:
        raise Refused("InvalidOutput", "Invalid Output: 'The output is not valid JSON'") from None
    if len(output.encode("utf-8", "surrogatepass")) > LARGEST:
        raise Refused("InvalidOutput", f"Invalid Output: 'The output has more than {LARGEST} bytes'")
    return _report(a, tx, {"kind": "success", "output": output})


@CALLBACK.operation("SendTaskFailure", asks=[Ask("states:SendTaskFailure", anything)], after=_poked)
def fail(a: Authorised, tx: Transaction) -> Output:
    return _report(a, tx, {"kind": "failure", "error": a.input.get("error"), "cause": a.input.get("cause")})


@CALLBACK.operation("SendTaskHeartbeat", asks=[Ask("states:SendTaskHeartbeat", anything)], after=_poked)
def beat(a: Authorised, tx: Transaction) -> Output:
    return _report(a, tx, {"kind": "beat"})
