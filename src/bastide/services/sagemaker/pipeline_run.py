"""One step of an execution, from its beginning to its end, with the pipeline's role.

Everything that is decided is on the disk before anything follows from it; whoever takes the step up after a crash goes on
from there. What a step makes has a name before it is made, so that it is made once. A queue gets its message and a function
its call at least once, as queues and functions do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Refused, iso
from bastide.engines.workflow import Run, reach
from bastide.kernel import Calls, Output, Unforeseen
from bastide.services.sagemaker import (
    pipeline_callback,
    pipeline_check,
    pipeline_events,
    pipeline_step,
    pipeline_values,
)
from bastide.services.sagemaker import pipeline_language as language
from bastide.services.sagemaker.model_package_group import MODEL_PACKAGE_GROUP
from bastide.services.sagemaker.pipeline_job import MADE, Made, name_for, request
from bastide.services.sagemaker.pipeline_step import PIPELINE_EXECUTION
from bastide.services.sagemaker.pipeline_version import properties
from bastide.services.sagemaker.session import RoleSession
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.sagemaker")

_LOOK_SECONDS: Final = 30.0
"""How often it is looked whether something is over whose end is told."""
_OFTEN_SECONDS: Final = 1.0
_MOST_PAYLOAD: Final = 6 << 20
_CALLBACK_SECONDS: Final = 7 * 86400
_MOST_TRIALS: Final = 50
_EXCEPTIONS: Final[Mapping[str, str]] = {
    "ThrottlingException": "Step.THROTTLING",
    "Throttling": "Step.THROTTLING",
    "TooManyRequestsException": "Step.THROTTLING",
    "ResourceLimitExceeded": "SageMaker.RESOURCE_LIMIT",
}
_JOB_EXCEPTIONS: Final = (
    ("InternalServerError", "SageMaker.JOB_INTERNAL_ERROR"),
    ("CapacityError", "SageMaker.CAPACITY_ERROR"),
)


class _Fault(Exception):  # noqa: N818 - the pipeline's, not ours
    """The step cannot go on: why, and which exception retry policies call it."""

    def __init__(self, reason: str, exception: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.exception = exception


class _Halted(Exception):  # noqa: N818
    """The execution is being stopped."""


class StepRun:
    """A step on its way. run: the workflow's; session: the pipeline's role."""

    def __init__(self, calls: Calls, run: Run, session: RoleSession, step: language.Step) -> None:
        self.calls = calls
        self.run = run
        self.session = session
        self.step = step
        self.row: Row
        self.execution: Row

    async def go(self) -> None:
        """Until it is over."""
        await self._take_up()
        while self.row.status not in pipeline_step.OVER:
            try:
                await self._wait_for_retry()
                await self._attempt()
            except _Halted:
                await self._unexpect()
                await self._move("Stopped")
            except _Fault as fault:
                await self._unexpect()
                if not await self._again(fault):
                    await self._fail(fault.reason)
            except language.Unresolved as error:
                await self._unexpect()
                await self._fail(f"ClientError: {error}")
        await self._measured()

    # -- rows --------------------------------------------------------------------------------------------------------------

    async def _take_up(self) -> None:
        state = self.run.state

        def work(tx: Transaction) -> tuple[Row, Row, bool]:
            execution = PIPELINE_EXECUTION.find(tx, state["account"], state["region"], state["name"])
            row = pipeline_step.get(tx, execution, self.step.name)
            return execution, row or pipeline_step.begin(tx, execution, self.step), row is None

        self.execution, self.row, new = await self.calls.store.write(work)
        if new:
            now = self.row.doc["StartTime"]
            pipeline_events.measure(self.calls, self.execution, "", now, now, self.step.name)

    async def _move(
        self, status: str, also: Callable[[Transaction], None] | None = None, /, drop: tuple[str, ...] = (), **doc: Any
    ) -> None:
        """Writes what is known now; `also` happens in the same transaction."""

        def work(tx: Transaction) -> Row:
            row = pipeline_step.get(tx, self.execution, self.step.name)
            assert row is not None
            row.doc |= doc
            for member in drop:
                row.doc.pop(member, None)
            pipeline_step.move(tx, self.execution, row, status)
            if also is not None:
                also(tx)
            return row

        self.row = await self.calls.store.write(work)

    async def _fail(self, reason: str, **doc: Any) -> None:
        await self._move("Failed", FailureReason=reason[:1024], **doc)

    async def _succeed(self, **doc: Any) -> None:
        reach("pipeline/end:before")
        row = self.row

        def also(tx: Transaction) -> None:
            if "_key" in row.doc and "CacheHitResult" not in doc:
                found = pipeline_step.get(tx, self.execution, self.step.name)
                assert found is not None
                pipeline_step.remember(tx, self.execution, found)

        await self._move("Succeeded", also, **doc)
        reach("pipeline/end:after")

    async def _measured(self) -> None:
        doc = self.row.doc
        pipeline_events.measure(
            self.calls, self.execution, self.row.status, doc["StartTime"], doc["EndTime"], self.step.name
        )

    # -- trying again ------------------------------------------------------------------------------------------------------

    async def _again(self, fault: _Fault) -> bool:
        """Whether the step is to be tried again; then it is written down when."""
        policy = language.policy_for(self.step.retries, fault.exception)
        if policy is None or self.run.asked("stop"):
            return False
        now, doc = self.run.clock(), self.row.doc
        pause = policy.pause(doc["AttemptCount"] - 1, (now - doc["StartTime"]) / MICROS)
        if pause is None:
            return False
        await self._move(
            "Starting",
            drop=("_name", "_arguments", "_arn", "_key", "Metadata"),
            AttemptCount=doc["AttemptCount"] + 1,
            _retry_at=now + int(pause * MICROS),
        )
        return True

    async def _wait_for_retry(self) -> None:
        until = self.row.doc.get("_retry_at", 0)
        while (left := until - self.run.clock()) > 0:
            await self._signalled("stop", seconds=min(left / MICROS, _LOOK_SECONDS))
            self._unless_stopped()

    def _unless_stopped(self) -> None:
        if self.run.asked("stop"):
            raise _Halted

    async def _signalled(self, *names: str, seconds: float) -> None:
        """Until one of the signals comes, or some time went by."""
        waiting = [asyncio.ensure_future(self.run.signalled(name)) for name in names]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    # -- values ------------------------------------------------------------------------------------------------------------

    async def _scope(self) -> language.Scope:
        """What the step's expressions may ask for, with the documents that they ask for."""
        definition: language.Definition = self.run.held["definition"]
        return await pipeline_values.scope(
            self.calls, self.session, self.execution, definition, self.step, self.run.clock()
        )

    async def _act(self, service: str, operation: str, given: dict[str, Any]) -> Output:
        """A call with the role; raises _Fault."""
        try:
            return await self.session.act(service, operation, given)
        except Refused as refused:
            raise self._refused(service, operation, refused) from None
        except Unforeseen:
            _log.exception("%s:%s for a pipeline failed", service, operation)
            raise _Fault("InternalServerError: We encountered an internal error.", "Step.SERVICE_FAULT") from None

    @staticmethod
    def _refused(service: str, operation: str, refused: Refused) -> _Fault:
        exception = _EXCEPTIONS.get(refused.code, "Step.SERVICE_FAULT" if refused.status >= 500 else "")
        reason = f"ClientError: Failed to invoke {service}:{operation}. Error Details: {refused.message}"
        return _Fault(reason, exception)

    # -- types -------------------------------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        if self.step.type in MADE:
            await self._make(MADE[self.step.type])
        else:
            await {
                "Condition": self._decide,
                "Fail": self._give_up,
                "Lambda": self._invoke,
                "Callback": self._call_back,
            }[self.step.type]()

    async def _decide(self) -> None:
        self._unless_stopped()
        outcome = language.holds(self.step.conditions, await self._scope())
        await self._succeed(Metadata={"Condition": {"Outcome": str(outcome)}}, _outcome=outcome)

    async def _give_up(self) -> None:
        self._unless_stopped()
        message = str(language.resolve(self.step.arguments, await self._scope())["ErrorMessage"])[:3072]
        await self._fail(message or "The pipeline came to a Fail step.", Metadata={"Fail": {"ErrorMessage": message}})

    async def _found(self, arguments: Any, function: str = "") -> bool:
        """Ends the step with an earlier result, if it may be used again; notes the key otherwise."""
        if self.step.keep is None or "_key" in self.row.doc:
            return False
        key = language.key(self.step.type, arguments, function)
        since = self.run.clock() - self.step.keep * MICROS
        with self.calls.store.reading() as view:
            held = pipeline_step.remembered(view, self.execution, self.step.name, key, since)
        if held is None:
            await self._move(self.row.status, _key=key)
            return False
        found = {member: held[member] for member in ("Metadata", "_described", "_outputs") if member in held}
        await self._succeed(CacheHitResult={"SourcePipelineExecutionArn": held["execution"]}, **found)
        return True

    # -- jobs and other resources ------------------------------------------------------------------------------------------

    async def _make(self, made: Made) -> None:
        if "_arn" not in self.row.doc and not await self._launch(made):
            return
        name = self.row.doc["_made"]
        row, ended = await self._over(made, name)
        if ended not in made.good and made.good:
            if self.run.asked("stop") and ended == "Stopped":
                raise _Halted
            reason = str(row.doc.get("FailureReason") or f"The {made.metadata} ended as {ended}.")
            exception = next((one for start, one in _JOB_EXCEPTIONS if reason.startswith(start)), "")
            raise _Fault(reason if reason.startswith("ClientError") else f"ClientError: {reason}", exception)
        described = await self._act("sagemaker", made.describe, made.described(name))
        if self.step.type == "Tuning":
            described["TrainingJobSummaries"] = await self._trials(name, described)
        asked = self.row.doc.get("_asked")
        if asked and described.get("EndpointConfigName") != asked:
            raise _Fault(f"ClientError: The endpoint {name} went back to {described.get('EndpointConfigName')}.")
        if self.step.check is not None:
            await self._check(described)
            return
        await self._unexpect()
        await self._succeed(_described=_plain(properties(self.step.type), described))

    async def _check(self, described: Mapping[str, Any]) -> None:
        """The end of a step that checks, whose job is over."""
        check, baseline = self.row.doc["_check"], self.row.doc["_baseline"]
        found = pipeline_check.properties(self.step.type, check, baseline, described)
        told = pipeline_check.metadata(self.step.type, check, self.row.doc["_arn"], found, described)
        await self._unexpect()
        if pipeline_check.violated(described) and check["FailOnViolation"]:
            await self._move(self.row.status, Metadata=told)
            report = told[self.step.type]["ViolationReport"]
            raise _Fault(f"ClientError: The check found violations of its baseline, which {report} lists.")
        await self._succeed(_described=found, Metadata=told)

    async def _unexpect(self) -> None:
        """Nobody is to tell the execution of what this step made any more."""
        made, name = MADE.get(self.step.type), self.row.doc.get("_name")
        if made is not None and name is not None:
            arn = self._planned(made, name)
            await self.calls.store.write(lambda tx: pipeline_step.unexpect(tx, self.execution, arn))

    async def _launch(self, made: Made) -> bool:
        """Makes what the step is for; False if the step is over without."""
        self._unless_stopped()
        resumed = "_name" in self.row.doc
        if not resumed and not await self._plan(made):
            return False
        planned, arguments = self.row.doc["_name"], self.row.doc["_arguments"]
        operation = made.update if self.row.doc["_update"] else made.create
        arn = self._planned(made, planned)
        try:
            given = request(made, operation, arguments, planned, self.execution, self.step.name)
        except Refused as refused:
            raise self._refused("sagemaker", operation, refused) from None
        if made.named_by:
            try:
                await self._act("sagemaker", operation, given)
            except _Fault:
                if not (resumed and self._held(made, planned) is not None):
                    raise
            name = planned
        else:
            arn = name = await self._register(given)
        reach("pipeline/launch:after")
        metadata = {made.metadata: {"Arn": arn}}
        if self.step.check is not None:
            metadata = pipeline_check.metadata(self.step.type, self.row.doc["_check"], arn, {})
        asked = {"_asked": given["EndpointConfigName"]} if made.update else {}
        await self._move("Executing", drop=("_arguments",), _arn=arn, _made=name, Metadata=metadata, **asked)
        return True

    def _planned(self, made: Made, name: str) -> str:
        return made.kind.arn(self.execution.account, self.execution.region, name)

    def _held(self, made: Made, name: str) -> Row | None:
        with self.calls.store.reading() as view:
            return made.kind.get(view, self.execution.account, self.execution.region, name)

    async def _plan(self, made: Made) -> bool:
        """Writes down what is about to be made, and under which name; False if the step is over without."""
        scope = await self._scope()
        arguments = language.resolve(self.step.arguments, scope)
        more: dict[str, Any] = {}
        if self.step.check is not None:
            check = pipeline_check.settled(language.resolve(self.step.check, scope), self.step.name)
            more = {"_check": check, "_baseline": await pipeline_check.baseline(self._act, check)}
            arguments = pipeline_check.arguments(arguments, check, more["_baseline"])
        if await self._found({**arguments, **more}):
            return False
        if more:
            id = f"{self.execution.name.rpartition('/')[2]}-{self.step.name}"
            arguments = await pipeline_check.asking(self.session, arguments, more["_check"], id)
        id = self.execution.name.rpartition("/")[2]
        name = name_for(made, id, self.step.name, arguments.get(made.named_by))
        arn = self._planned(made, name)
        await self._move(
            self.row.status,
            lambda tx: pipeline_step.expect(tx, self.execution, arn),
            _name=name,
            _arguments=arguments,
            _update=bool(made.update) and self._held(made, name) is not None,
            **more,
        )
        reach("pipeline/intend:after")
        return True

    async def _register(self, given: dict[str, Any]) -> str:
        """A model package; a group of this account is made if there is none, as the guide has it."""
        group = str(given.get("ModelPackageGroupName") or "")

        def lacking() -> bool:
            with self.calls.store.reading() as view:
                return MODEL_PACKAGE_GROUP.get(view, self.execution.account, self.execution.region, group) is None

        if group and not group.startswith("arn:") and lacking():
            try:
                await self._act("sagemaker", "CreateModelPackageGroup", {"ModelPackageGroupName": group})
            except _Fault:
                if lacking():  # nobody was faster
                    raise
        return str((await self._act("sagemaker", "CreateModelPackage", given))["ModelPackageArn"])

    async def _over(self, made: Made, name: str) -> tuple[Row, str]:
        """Until what was made is over; stops it when the execution is stopped. Its row and last status."""
        if not made.named_by:
            return self.row, "Completed"
        arn = self.row.doc["_arn"]
        while True:
            row = self._held(made, name)
            if row is None:
                raise _Fault(f"ClientError: {arn} was deleted while the step waited for it.")
            ended = made.ended(row)
            if ended:
                return row, ended
            stopping = self.run.asked("stop")
            if stopping and self.row.status != "Stopping":
                await self._move("Stopping")
                await self._stop(made, name)
            names = (arn,) if stopping else (arn, "stop")
            seconds = _LOOK_SECONDS if made.told and not stopping else _OFTEN_SECONDS
            await self._signalled(*names, seconds=seconds)

    async def _stop(self, made: Made, name: str) -> None:
        if not made.stop:
            return
        try:
            await self._act("sagemaker", made.stop, made.described(name))
        except _Fault as fault:
            # It ended meanwhile, or the role may not: then the step waits for its end.
            _log.info("%s is not stopped: %s", name, fault.reason)

    async def _trials(self, name: str, described: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The best trials of a tuning job, the best first."""
        aim = (described.get("BestTrainingJob") or {}).get("FinalHyperParameterTuningJobObjectiveMetric") or {}
        given = {
            "HyperParameterTuningJobName": name,
            "SortBy": "FinalObjectiveMetricValue",
            "SortOrder": "Ascending" if aim.get("Type") == "Minimize" else "Descending",
            "MaxResults": _MOST_TRIALS,
        }
        found = await self._act("sagemaker", "ListTrainingJobsForHyperParameterTuningJob", given)
        return list(found["TrainingJobSummaries"])

    # -- functions and queues ----------------------------------------------------------------------------------------------

    async def _invoke(self) -> None:
        self._unless_stopped()
        scope = await self._scope()
        arguments = language.resolve(self.step.arguments, scope)
        function = str(language.resolve(self.step.calls, scope))
        if await self._found(arguments, function):
            return
        await self._move("Executing", Metadata={"Lambda": {"Arn": function}})
        payload = orjson.dumps(arguments)
        given = {"FunctionName": function, "InvocationType": "RequestResponse", "Payload": payload}
        output = await self._act("lambda", "Invoke", given)
        told = await _bytes(output.get("Payload"))
        if output.get("FunctionError"):
            raise _Fault(f"ClientError: The Lambda function failed: {told.decode(errors='replace')[:800]}")
        try:
            answer = orjson.loads(told or b"null")
            outputs = pipeline_callback.typed(
                self.step.outputs, answer if isinstance(answer, dict) else {}, "the Lambda function's answer"
            )
        except orjson.JSONDecodeError:
            raise _Fault("ClientError: The Lambda function's answer is no JSON.") from None
        except language.Malformed as error:
            raise _Fault(f"ClientError: {error}") from None
        await self._succeed(
            _outputs=outputs, Metadata={"Lambda": {"Arn": function, "OutputParameters": _listed(outputs)}}
        )

    async def _call_back(self) -> None:
        doc = self.row.doc
        if "_sent" not in doc:
            self._unless_stopped()
            scope = await self._scope()
            arguments = language.resolve(self.step.arguments, scope)
            queue = str(language.resolve(self.step.calls, scope))
            if await self._found(arguments, queue):
                return
            if "_token" not in doc:
                token = pipeline_callback.new_token()
                await self._move(
                    "Starting",
                    lambda tx: pipeline_callback.expect(tx, self.execution, self.step.name, token, self.step.outputs),
                    _token=token,
                    Metadata={"Callback": {"CallbackToken": token, "SqsQueueUrl": queue}},
                )
            await self._send(queue, "Executing", arguments)
            await self._move("Executing", _sent=self.run.clock())
        await self._answered()

    async def _send(self, queue: str, status: str, arguments: Any = None) -> None:
        body = {
            "token": self.row.doc["_token"],
            "pipelineExecutionArn": self.execution.doc["PipelineExecutionArn"],
            "status": status,
            **({} if arguments is None else {"arguments": arguments}),
        }
        given = {"QueueUrl": queue, "MessageBody": orjson.dumps(body).decode()}
        await self._act("sqs", "SendMessage", given)

    async def _answered(self) -> None:
        """Until somebody answers. Whoever is stopped asks the other side to stop, and waits for the answer, as the guide
        has it."""
        token, callback = self.row.doc["_token"], self.row.doc["Metadata"]["Callback"]
        until = self.row.doc["_sent"] + _CALLBACK_SECONDS * MICROS
        while True:
            with self.calls.store.reading() as view:
                answer = pipeline_callback.answer(view, self.execution, token)
            if answer is not None or self.run.clock() >= until:
                break
            stopping = self.run.asked("stop")
            if stopping and self.row.status != "Stopping":
                await self._move("Stopping")
                await self._send(callback["SqsQueueUrl"], "Stopping")
            await self._signalled(token, *(() if stopping else ("stop",)), seconds=_LOOK_SECONDS)
        await self.calls.store.write(lambda tx: pipeline_callback.forget(tx, self.execution, token))
        if self.run.asked("stop"):
            raise _Halted
        if answer is None:
            raise _Fault("ClientError: Nobody answered the callback within 7 days.")
        if "reason" in answer:
            raise _Fault(f"ClientError: {answer['reason']}")
        outputs = answer["outputs"]
        await self._succeed(_outputs=outputs, Metadata={"Callback": {**callback, "OutputParameters": _listed(outputs)}})


def _listed(outputs: Mapping[str, Any]) -> list[dict[str, str]]:
    def text(value: Any) -> str:
        return ("true" if value else "false") if isinstance(value, bool) else str(value)

    return [{"Name": name, "Value": text(value)[:1024]} for name, value in outputs.items()]


async def _bytes(body: Any) -> bytes:
    """What a function answered, in whichever form its service hands it on."""
    if isinstance(body, str):
        return body.encode()
    if body is None or isinstance(body, bytes | bytearray | memoryview):
        return bytes(body or b"")
    found = bytearray()
    pieces: AsyncIterator[bytes] = body
    async for piece in pieces:
        found += piece
        if len(found) > _MOST_PAYLOAD:
            raise _Fault(f"ClientError: The Lambda function's answer has more than {_MOST_PAYLOAD} bytes.")
    return bytes(found)


def _plain(shape: Any, value: Any) -> Any:
    """A described resource as JSON keeps it and others ask for it: times as texts, without what is not there."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        members = shape.members
        return {key: _plain(members[key], one) for key, one in value.items() if one is not None and key in members}
    if kind == "map" and isinstance(value, dict):
        return {key: _plain(shape.value, one) for key, one in value.items() if one is not None}
    if kind == "list" and isinstance(value, list | tuple):
        return [_plain(shape.member, one) for one in value]
    if kind == "timestamp" and isinstance(value, int):
        return iso(value)
    return value if isinstance(value, str | int | float | bool) else str(value)
