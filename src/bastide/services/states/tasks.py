"""Tasks under way: the call that each makes with the machine's role, the end of what a call began, and giving up.

A call of an operation that changes something leaves a receipt in that operation's own transaction: whoever takes the task
up after a crash finds the answer and does not call again.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from bastide.domain import Arn, Instant, Refused, timed_id
from bastide.engines.asl.frame import Frame
from bastide.engines.asl.interpreter import Interpreter
from bastide.engines.asl.problems import PERMISSIONS, RUNTIME, TASK_FAILED
from bastide.engines.asl.values import LARGEST, dumps, loads
from bastide.kernel import Bytes, Call, Caller, Request, Unforeseen
from bastide.protocol import codec
from bastide.services.states import integrations, keeping
from bastide.services.states.integrations import Target
from bastide.services.states.noun import PRINCIPAL
from bastide.services.states.sealing import Cipher
from bastide.store import Row, Taken, Transaction

if TYPE_CHECKING:
    from bastide.services.states.runner import Executions, Live

_log = logging.getLogger("bastide.states")
Mail = Callable[[Interpreter, Instant], Any]
ENDED: Final = ("Completed", "Failed", "Stopped", "FAULT", "STOPPED", *keeping.OVER)
GIVE_UP: Final = "states:GiveUp"
"""The outbox's topic of work that nobody wants the end of any more."""
ACTIVITY_TASK: Final = "states:ActivityTask"
"""Under ``ACCOUNT/ACTIVITY``: tasks that wait for a worker, oldest first."""
_JOBS: Final = {
    "CreateTrainingJob": ("TrainingJob", "DescribeTrainingJob", "StopTrainingJob", "TrainingJobName", "training-job"),
    "CreateTransformJob": ("TransformJob", "DescribeTransformJob", "StopTransformJob", "TransformJobName", "transform-job"),
    "CreateProcessingJob": (
        "ProcessingJob", "DescribeProcessingJob", "StopProcessingJob", "ProcessingJobName", "processing-job",
    ),
    "CreateHyperParameterTuningJob": (
        "HyperParameterTuningJob", "DescribeHyperParameterTuningJob", "StopHyperParameterTuningJob",
        "HyperParameterTuningJobName", "hyper-parameter-tuning-job",
    ),
}  # fmt: skip
TOPICS: Final = (*(f"sagemaker:{one[0]}" for one in _JOBS.values()), "codebuild:Build")

BY_MAP: Final[dict[str, Any]] = {}
"""What map runs do, which stand above this module: make, abort, step, child_over, forget, redrive, relaunch."""


class Failed(Exception):  # noqa: N818
    """A task's work failed."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


# -- what comes from outside ---------------------------------------------------------------------------------------------


def letter(told: dict[str, Any]) -> Mail:
    """What an inbox row says, to an interpreter."""
    serial = int(told["serial"])
    if told["kind"] == "success":
        return lambda m, now: m.succeeded(serial, now, loads(told["output"]), told["output"])
    if told["kind"] == "failure":
        return lambda m, now: m.failed(serial, now, told.get("error"), told.get("cause"))
    if told["kind"] == "map":
        return lambda m, now: m.run_over(serial, now, told)
    if told["kind"] == "taken":
        return lambda m, now: m.taken(serial, now, told.get("worker"))
    return lambda m, now: m.beaten(serial, now)


def put_letter(tx: Transaction, arn: str, cipher: Cipher, told: dict[str, Any]) -> None:
    """Puts something into an execution's inbox."""
    name = f"{arn}|{timed_id(tx.now)}"
    tx.insert(Row(keeping.INBOX, "", "", name, {"sealed": cipher.text(told)}), keep=False)


def callbacks(
    tx: Transaction, arn: str, m: Interpreter, effects: list[tuple[str, int]], cipher: Cipher, row: Row
) -> None:
    """Keeps, with a transition, which tasks others report about, which wait for a worker, and which jobs run."""
    for name, which in effects:
        if name == "end":
            forget(tx, arn, which)
            job = (row.doc.get("jobs") or {}).get(str(which))
            if job is not None:
                tx.emit(GIVE_UP, {**job, "execution": arn})
            continue
        frame = m.memory.frames.get(which)
        if frame is None or frame.call is None or "token" not in frame.call:
            continue
        held: dict[str, Any] = {}
        resource = frame.call["resource"]
        if ":activity:" in resource:
            where = Arn.parse(resource)
            queued = f"{tx.now:020d}|{arn}|{frame.serial}"
            doc = {"execution": arn, "serial": frame.serial, "sealed": cipher.text(frame.call), "key": cipher.wrapped}
            doc["machine"] = m.about.machine
            task = Row(ACTIVITY_TASK, f"{where.account}/{where.name}", where.region, queued, doc)
            tx.insert(task, keep=False)
            held["task"] = [task.account, task.region, task.name]
        with contextlib.suppress(Taken):
            tx.insert(Row(keeping.TOKEN, "", "", f"{arn}|{frame.serial}", held), keep=False)
    jobs = {
        str(frame.serial): frame.call["job"]
        for frame in m.memory.frames.values()
        if frame.phase == "task" and frame.call is not None and "job" in frame.call
    }
    if jobs or row.doc.get("jobs"):
        row.doc["jobs"] = jobs


def forget(tx: Transaction, arn: str, serial: int) -> None:
    """Nobody reports about a task any more."""
    held = tx.get(keeping.TOKEN, "", "", f"{arn}|{serial}")
    if held is None:
        return
    tx.delete(held, keep=False)
    if "task" in held.doc:
        task = tx.get(ACTIVITY_TASK, *held.doc["task"])
        if task is not None:
            tx.delete(task, keep=False)


def forget_all(tx: Transaction, arn: str) -> None:
    """An execution is over: nobody reports to it any more, and what lies in its inbox is read by nobody."""
    for held in tx.scan(keeping.TOKEN, "", "", prefix=f"{arn}|", limit=10_000):
        forget(tx, arn, int(held.name.rpartition("|")[2]))
    for told in tx.scan(keeping.INBOX, "", "", prefix=f"{arn}|", limit=10_000):
        tx.delete(told, keep=False)


# -- calling -------------------------------------------------------------------------------------------------------------


async def make(runner: Executions, live: Live, frame: Frame) -> Mail | None:
    """Begins a task; gives what is to be told at once, None if that comes later. Raises Failed."""
    call, serial = dict(frame.call or {}), frame.serial
    if "map" in call:
        letter: Mail | None = await BY_MAP["make"](runner, live, frame)
        return letter
    resource = call["resource"]
    if ":activity:" in resource:
        return None
    if "job" in call:
        return await look(runner, live, frame)
    if frame.submitted:
        return None  # it waits for a token
    role, further = live.m.about.role, call.get("role") or ""
    try:
        caller = await runner.session(live.machine_arn, role, further)
    except Refused as refused:
        raise Failed(PERMISSIONS, f"The role {further or role} cannot be assumed: {refused.message}") from None
    given = loads(call["given"])
    if ":lambda:" in resource and ":function:" in resource:
        result = await _function(runner, live, caller, serial, resource, given)
        return lambda m, now: m.succeeded(serial, now, result)
    try:
        found = integrations.target(resource)
    except integrations.Unknown as unknown:
        raise Failed(RUNTIME, str(unknown)) from None
    if found.service == "stepfunctions" and found.operation == "StartExecution" and "Name" not in given:
        given = {**given, "Name": str(uuid5(NAMESPACE_URL, f"{live.arn}/{serial}"))}
    output = await act(runner, live, caller, serial, found, given)
    if found.sync:
        return _wait_for(runner, live, frame, found, given, output, further)
    if found.callback:
        return lambda m, now: m.submitted(serial, now, dumps(output))
    if found.service == "lambda" and found.operation == "Invoke" and not found.sdk:
        output = _invoked(output)
    if found.service == "events" and not found.sdk and output.get("FailedEntryCount"):
        raise Failed("EventBridge.FailedEntry", dumps(output))
    return lambda m, now: m.succeeded(serial, now, output)


async def act(
    runner: Executions, live: Live | None, caller: Caller, serial: int, found: Target, given: Any, *, region: str = ""
) -> Any:
    """Makes a call; gives its output as JSON has it. Raises Failed as AWS's SDK names the error."""
    calls = runner.calls
    operation = calls.registry.operation(found.service, found.operation)
    if operation is None:
        raise Failed(RUNTIME, f"{found.service}:{found.operation} does not exist in Bastide.")
    shapes = codec(found.service).operations[found.operation]
    now = calls.clock()
    request = Request(timed_id(now), now, PRINCIPAL, PRINCIPAL, True, str(codec(found.service).protocol))
    where = region or (live.m.about.region if live is not None else "")
    try:
        params = integrations.into(shapes.input_shape, given) if shapes.input_shape is not None else {}
    except ValueError as error:
        raise Failed(RUNTIME, f"An error occurred while executing the state: {error}") from None
    body = None
    if shapes.streaming_input and shapes.streaming_input in params:
        body = Bytes(params.pop(shapes.streaming_input))
    token = shapes.idempotency_member
    if token and token not in params and live is not None:
        params[token] = str(uuid5(NAMESPACE_URL, f"{live.arn}/{serial}"))
    try:
        shapes.validate(params)
        kept = await _received(runner, live, serial)
        if kept is not None:
            return kept
        also = (
            _receipt(live, serial, shapes.output_shape, found.sdk) if operation.mutates and live is not None else None
        )
        region_of = "us-east-1" if operation.global_ else where
        call = Call(operation, params, caller, caller.account, region_of, request, body)
        call.also = also
        output = await calls.run(call)
    except Refused as refused:
        raise Failed(found.error(refused), found.cause(refused, request.id, _status(found, refused))) from None
    except Unforeseen:
        raise Failed(f"{found.prefix}.{found.prefix}Exception", f"An internal error occurred. ({request.id})") from None
    if shapes.streaming_output:
        output = {**output, shapes.streaming_output: await _drained(output.get(shapes.streaming_output))}
    told = integrations.outof(shapes.output_shape, output, sdk=found.sdk) if shapes.output_shape is not None else {}
    if not found.sdk and found.service != "events":
        told |= {"SdkHttpMetadata": {"HttpStatusCode": 200}, "SdkResponseMetadata": {"RequestId": request.id}}
    return told


def _status(found: Target, refused: Refused) -> int:
    shape = codec(found.service).error_shape(refused.code)
    told = (shape.metadata.get("error") or {}).get("httpStatusCode") if shape is not None else None
    return int(told or refused.status)


async def _drained(body: Any) -> bytes:
    """A streamed answer, as much of it as fits into a payload and a little more."""
    if body is None or isinstance(body, (bytes, bytearray)):
        return bytes(body or b"")
    found = bytearray()
    try:
        async for piece in body:
            found += piece
            if len(found) > LARGEST:
                break
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return bytes(found)


def _receipt(live: Live, serial: int, shape: Any, sdk: bool) -> Callable[[Transaction, dict[str, Any]], None] | None:
    row = live.row
    if row is None:
        return None
    name = keeping.receipt(row, serial)

    def keep(tx: Transaction, output: dict[str, Any]) -> None:
        plain = {key: value for key, value in output.items() if not hasattr(value, "__aiter__")}
        told = integrations.outof(shape, plain, sdk=sdk) if shape is not None else {}
        tx.drop_blob(name)
        tx.put_blob(name, live.cipher.seal(told))

    return keep


async def _received(runner: Executions, live: Live | None, serial: int) -> Any:
    """The answer of a call that an earlier process made."""
    if live is None or live.row is None or serial not in live.resumed:
        return None
    with runner.calls.store.reading() as view:
        kept = view.blob(keeping.receipt(live.row, serial))
    return None if kept is None else live.cipher.open(kept)


async def _function(runner: Executions, live: Live, caller: Caller, serial: int, resource: str, given: Any) -> Any:
    """A Lambda function named by its ARN: the result is what it gives."""
    found = Target("lambda", "Invoke", False, 0, False, "lambda")
    output = await act(runner, live, caller, serial, found, {"FunctionName": resource, "Payload": given})
    return _invoked(output, plain=True)["Payload"]


def _invoked(output: dict[str, Any], *, plain: bool = False) -> dict[str, Any]:
    """Lambda's answer; raises Failed for a function that failed. plain: with what it says as it wrote it."""
    text, raw = output.get("Payload"), ""
    if isinstance(text, str):
        raw = text
        with contextlib.suppress(ValueError):
            raw = base64.b64decode(text, validate=True).decode()
        output = {**output, "Payload": integrations.payload(raw)}
    if output.get("FunctionError"):
        told = output.get("Payload")
        name = told.get("errorType") if isinstance(told, dict) else None
        raise Failed(str(name or "Lambda.Unknown"), raw if plain and isinstance(told, dict) else dumps(told))
    return output


# -- waiting for what was begun ------------------------------------------------------------------------------------------


def _wait_for(
    runner: Executions, live: Live, frame: Frame, found: Target, given: Any, output: Any, further: str
) -> Mail | None:
    serial = frame.serial
    if found.service == "stepfunctions":
        job = {"arn": output["ExecutionArn"], "operation": "StartExecution", "name": output["ExecutionArn"]}
    elif found.service == "codebuild":
        job = {"arn": output["Build"]["Arn"], "operation": "StartBuild", "name": output["Build"]["Id"]}
    else:
        _, _, _, name, type_ = _JOBS[found.operation]
        about = live.m.about
        account = Arn.parse(about.arn).account
        job = {
            "arn": f"arn:aws:sagemaker:{about.region}:{account}:{type_}/{given[name]}",
            "operation": found.operation,
            "name": given[name],
        }
    job |= {"form": found.sync, "role": live.m.about.role, "further": further, "machine": live.machine_arn}
    runner.jobs[job["arn"]] = (live.arn, serial)

    def tell(m: Interpreter, now: Instant) -> None:
        held = m.under_way(serial)
        if held is not None and held.call is not None:
            held.call["job"] = job
        m.submitted(serial, now, dumps(output))
        # It may be over already: whoever looks finds out.
        if held is not None:
            runner.soon(runner._fly, live, held, look)

    return tell


async def look(runner: Executions, live: Live, frame: Frame) -> Mail | None:
    """Asks how a job stands that a task waits for; gives the end, if it is one. Raises Failed for a job that failed."""
    serial, job = frame.serial, (frame.call or {}).get("job")
    if job is None:
        return None
    runner.jobs[job["arn"]] = (live.arn, serial)
    caller = await _session(runner, job)
    if job["operation"] == "StartExecution":
        given: dict[str, Any] = {"ExecutionArn": job["arn"]}
        found = Target("stepfunctions", "DescribeExecution", False, 0, False, "states")
        told = await act(runner, None, caller, serial, found, given, region=live.m.about.region)
        status, good = told["Status"], "SUCCEEDED"
    elif job["operation"] == "StartBuild":
        found = Target("codebuild", "BatchGetBuilds", False, 0, False, "codebuild")
        builds = await act(runner, None, caller, serial, found, {"Ids": [job["name"]]}, region=live.m.about.region)
        if not builds["Builds"]:
            raise Failed(TASK_FAILED, f"The build {job['name']} is gone.")
        told = {"Build": builds["Builds"][0]}
        status, good = told["Build"]["BuildStatus"], "SUCCEEDED"
    else:
        kind, describe, _, name, _ = _JOBS[job["operation"]]
        found = Target("sagemaker", describe, False, 0, False, "sagemaker")
        told = await act(runner, None, caller, serial, found, {name: job["name"]}, region=live.m.about.region)
        status, good = told[f"{kind}Status"], "Completed"
    for member in ("SdkHttpMetadata", "SdkResponseMetadata"):
        told.pop(member, None)
    if status not in ENDED:
        return None
    runner.jobs.pop(job["arn"], None)
    if job["form"] == 2:
        for member in ("Input", "Output"):
            if isinstance(told.get(member), str):
                told[member] = loads(told[member])
    if status != good:
        raise Failed(TASK_FAILED, dumps(told))
    return lambda m, now: m.succeeded(serial, now, told)


async def _session(runner: Executions, job: dict[str, Any]) -> Caller:
    try:
        return await runner.session(job["machine"], job["role"], job.get("further", ""))
    except Refused as refused:
        raise Failed(PERMISSIONS, f"The role {job['role']} cannot be assumed: {refused.message}") from None


def give_up(runner: Executions, live: Live, serial: int) -> None:
    """Nobody waits for a task any more."""
    for arn, waiting in list(runner.jobs.items()):
        if waiting == (live.arn, serial):
            del runner.jobs[arn]


async def stop(runner: Executions, job: dict[str, Any]) -> None:
    """Stops what a task began and nobody wants any more; told at least once."""
    arn, given = Arn.parse(job["arn"]), {}
    if job["operation"] == "StartExecution":
        found, given = Target("stepfunctions", "StopExecution", False, 0, False, "states"), {"ExecutionArn": job["arn"]}
    elif job["operation"] == "MapRun":
        await BY_MAP["abort"](runner, job["arn"], job.get("redrives", 0))
        return
    elif job["operation"] == "StartBuild":
        found, given = Target("codebuild", "StopBuild", False, 0, False, "codebuild"), {"Id": job["name"]}
    else:
        _, _, operation, name, _ = _JOBS[job["operation"]]
        found, given = Target("sagemaker", operation, False, 0, False, "sagemaker"), {name: job["name"]}
    try:
        caller = await _session(runner, job)
        await act(runner, None, caller, 0, found, given, region=arn.region)
    except Failed as failed:
        _log.warning("%s, begun by %s, could not be stopped: %s", job["arn"], job.get("execution"), failed.error)
