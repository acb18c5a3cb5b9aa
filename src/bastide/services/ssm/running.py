"""Executions of runbooks: step by step, as the runbook's role or whoever started it, taken up again after any end of the
process.

A call that changes something is noted in the transaction in which it happens, so that none is made twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Instant, Refused, iso
from bastide.engines.templates import text
from bastide.engines.workflow import Flow, Run, Step, Wait, Workflows, reach
from bastide.kernel import Caller, Calls, Operation, Output, standing
from bastide.kernel.happened import tell
from bastide.kernel.outbox import Outbox
from bastide.protocol import codec
from bastide.protocol.named import named, service_of
from bastide.services.ssm import runbook
from bastide.services.ssm.automation import EXECUTION, OVER, PRINCIPAL, STOPPING, lookup, opened, seal, system
from bastide.store import Row, Transaction

FLOW: Final = "ssm-automation"
_SPARE: Final = 300 * MICROS
_PAUSE: Final = MICROS
_LONGEST_PAUSE: Final = 10 * MICROS
_LONGEST_WAIT: Final = 3600
_MOST_MESSAGE: Final = 2000
_MOST_BYTES: Final = 256 << 10


class _Fault(Exception):  # noqa: N818 - an outcome
    def __init__(self, message: str, status: str = "Failed") -> None:
        super().__init__(message)
        self.message, self.status = message, status


class Execution:
    """One execution, as a process has it."""

    def __init__(self, calls: Calls, row: Row) -> None:
        self.calls, self.row = calls, row
        self.raw = runbook.read(row.doc["content"])
        self.names = [one["name"] for one in self.raw["mainSteps"]]
        self.steps: dict[str, Mapping[str, Any]] = {one["name"]: one for one in self.raw["mainSteps"]}
        self._caller: Caller | None = None
        self._learn(row)

    def _learn(self, row: Row) -> None:
        self.row = row
        self.state: dict[str, Any] = opened(self.calls, row.doc["state"])

    @property
    def step(self) -> Mapping[str, Any]:
        """The step that is next."""
        return self.steps[self.row.doc["at"]]

    def lookup(self, name: str) -> Any:
        """What a name in double braces means; raises Refused."""
        return lookup(self.state["parameters"], self.state["outputs"], system(self.row))(name)

    async def caller(self) -> Caller:
        """Whoever acts; raises Refused."""
        doc, held = self.row.doc, self._caller
        if not doc["role"]:
            return standing.caller_of(
                self.calls, doc["who"], expired="The session that the automation was started with has expired.",
                gone="Whoever started the automation has no valid credentials any more.",
            )  # fmt: skip
        if held is None or held.session is None or held.session.expires - _SPARE < self.calls.clock():
            self._caller = held = await self.calls.assume(
                PRINCIPAL, doc["role"], f"Automation-{self.row.name}", account=self.row.account, region=self.row.region,
                source_arn=EXECUTION.arn(self.row.account, self.row.region, self.row.name),
            )  # fmt: skip
        return held

    # -- what is kept --------------------------------------------------------------------------------------------------

    def current(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """The record of the step that is next, if it began."""
        last = state["steps"][-1] if state["steps"] else None
        return last if last is not None and last["StepStatus"] == "InProgress" else None

    async def begun(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Notes that a step begins; its record."""
        found = self.current(self.state)
        if found is not None:
            return found
        step = self.step

        def work(tx: Transaction) -> Row:
            row = EXECUTION.find(tx, self.row.account, self.row.region, self.row.name)
            state = opened(self.calls, row.doc["state"])
            told = {
                "StepName": step["name"], "Action": step["action"], "StepStatus": "InProgress",
                "ExecutionStartTime": tx.now, "StepExecutionId": f"{row.name}-{len(state['steps']) + 1}",
                "OnFailure": str(step.get("onFailure") or "Abort"), "MaxAttempts": int(step.get("maxAttempts") or 1),
                "Inputs": {name: _shown(one) for name, one in inputs.items()}, "Outputs": {},
            }  # fmt: skip
            if step.get("timeoutSeconds"):
                told["TimeoutSeconds"] = int(step["timeoutSeconds"])
            state["steps"].append(told)
            row.doc["state"] = seal(self.calls, state)
            EXECUTION.change(tx, row, "StepBegun")
            return row

        self._learn(await self.calls.store.write(work))
        return self.state["steps"][-1]  # type: ignore[no-any-return]

    def done(
        self,
        tx: Transaction,
        *,
        outputs: Mapping[str, Any] | None = None,
        goes_on: str = "",
        fault: _Fault | None = None,
    ) -> Row:
        """Notes how a step ended, and what is next; in a transaction."""
        step = self.step
        row = EXECUTION.find(tx, self.row.account, self.row.region, self.row.name)
        state = opened(self.calls, row.doc["state"])
        told = self.current(state)
        assert told is not None
        told["StepStatus"], told["ExecutionEndTime"] = (fault.status if fault else "Success"), tx.now
        for name, value in (outputs or {}).items():
            state["outputs"][f"{step['name']}.{name}"] = value
            told["Outputs"][name] = _listed(value)
        following = goes_on
        if fault is not None:
            told["FailureMessage"] = fault.message[:_MOST_MESSAGE]
            how = str(step.get("onFailure") or "Abort")
            if how == "Abort":
                row.doc["failure"] = f"Step {step['name']} failed: {fault.message}"[:_MOST_MESSAGE]
                row.doc["end"] = fault.status
            else:
                following = how.removeprefix("step:") if how.startswith("step:") else ""
                if str(step.get("isCritical", True)).lower() != "false":
                    row.doc["bad"] = f"Step {step['name']} failed: {fault.message}"[:_MOST_MESSAGE]
        ends = str(step.get("isEnd", False)).lower() == "true"
        if "end" not in row.doc:
            at = self.names.index(step["name"]) + 1
            after = following or str(step.get("nextStep") or "") or (self.names[at] if at < len(self.names) else "")
            if not after or (ends and not following):
                row.doc["end"] = "Failed" if row.doc.get("bad") else "Success"
                if row.doc.get("bad"):
                    row.doc["failure"] = row.doc["bad"]
            else:
                row.doc["at"] = after
        row.doc.pop("tries", None)
        row.doc["state"] = seal(self.calls, state)
        EXECUTION.change(tx, row, "StepEnded")
        return row

    async def end(self, **more: Any) -> None:
        """The same, in a transaction of its own."""
        self._learn(await self.calls.store.write(lambda tx: self.done(tx, **more)))

    # -- calls ---------------------------------------------------------------------------------------------------------

    def operation(self, inputs: Mapping[str, Any]) -> Operation:
        """What Service and Api name; raises Refused."""
        registry = self.calls.registry
        name = text(inputs["Service"]).lower()
        service = name if name in registry.services else service_of(name.replace("-", ""), tuple(registry.services))
        api = "".join(part[:1].upper() + part[1:] for part in text(inputs["Api"]).replace("-", "_").split("_"))
        found = registry.operation(service, api) if service else None
        if found is None or found.inside:
            raise Refused("InvalidInput", f"Bastide has no operation {text(inputs['Service'])}:{text(inputs['Api'])}.")
        if found.identify is not None or (found.service == "s3" and found.before):
            raise Refused("InvalidInput", f"{found.name} is not supported: it needs no signature, or brings a stream.")
        return found

    async def call(self, inputs: Mapping[str, Any], *, ending: bool = False) -> tuple[Any, bool]:
        """Calls an API; what it answers as JSON has it, and whether the step is over with that. ending: notes the step's
        end in the call's transaction, if it changes something."""
        held = self.operation(inputs)
        more = {
            name: one
            for name, one in inputs.items()
            if name not in ("Service", "Api", "PropertySelector", "DesiredValues")
        }
        given = named(held.service, held.name, more)
        output_shape = codec(held.service).operations[held.name].output_shape
        ended: list[Row] = []

        def also(tx: Transaction, output: Output) -> None:
            ended[:] = [self.done(tx, outputs=self.outputs(_told(output_shape, output)))]

        output = await self.calls.act(
            await self.caller(), held.service, held.name, given, region=self.row.region, source=PRINCIPAL,
            via=() if self.row.doc["role"] else (PRINCIPAL,), also=also if ending and held.mutates else None,
        )  # fmt: skip
        reach(f"{FLOW}/{held.name}:called")
        if ended:
            self._learn(ended[0])
        return _told(output_shape, output), bool(ended)

    def outputs(self, answer: Any) -> dict[str, Any]:
        """The outputs that the step declares, of an answer; raises Refused."""
        found: dict[str, Any] = {}
        for one in self.step.get("outputs") or ():
            found[one["Name"]] = runbook.selected(answer, one["Selector"])
        if answer is not None and len(orjson.dumps(found)) > _MOST_BYTES:
            raise Refused("OutputTooLarge", f"Outputs of a step have at most {_MOST_BYTES} bytes.")
        return {name: value for name, value in found.items() if value is not None}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _listed(value: Any) -> list[str]:
    return [_shown(one) for one in value] if isinstance(value, list) else [_shown(value)]


def _told(shape: Any, value: Any) -> Any:
    """An answer as JSON has it: moments in ISO 8601, bytes in base64, no streams."""
    if shape is None or value is None:
        return {} if shape is None else None
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return {
            name: _told(shape.members[name], one)
            for name, one in value.items()
            if name in shape.members and one is not None and not hasattr(one, "__aiter__")
        }
    if kind == "list":
        return [_told(shape.member, one) for one in value]
    if kind == "map":
        return {key: _told(shape.value, one) for key, one in value.items()}
    if kind == "timestamp" and isinstance(value, int):
        return iso(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _moment(given: Any) -> Instant:
    try:
        at = datetime.fromisoformat(text(given))
    except ValueError:
        raise Refused("InvalidInput", f"{text(given)[:64]} is no moment such as 2030-01-01T00:00:00Z.") from None
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * MICROS)


class Automation:
    """The workflow of executions."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def flow(self) -> Flow:
        """The workflow."""
        return Flow(FLOW, [Step("run", self.run), Step("end", self.end, always=True)])

    def _row(self, run: Run) -> Row:
        state = run.state
        with self._calls.store.reading() as view:
            return EXECUTION.find(view, state["account"], state["region"], state["execution"])

    async def run(self, run: Run) -> dict[str, Any]:
        """Does step after step until there is no more."""
        execution = Execution(self._calls, self._row(run))
        while "end" not in execution.row.doc:
            if self._row(run).status == STOPPING:
                return {"cancelled": True}
            await self._step(execution)
        return {}

    async def _step(self, execution: Execution) -> None:
        step = execution.step
        try:
            inputs = runbook.filled(step["inputs"], execution.lookup)
            begun = await execution.begun(inputs)
            await self._act(execution, str(step["action"]), inputs, begun)
        except Wait:
            raise
        except _Fault as fault:
            await self._failed(execution, fault)
        except Refused as refused:
            await self._failed(execution, _Fault(f"{refused.code}: {refused.message}"))
        except (KeyError, TypeError, ValueError, AttributeError):
            await self._failed(execution, _Fault("The inputs of the step are not as its action needs them."))

    async def _failed(self, execution: Execution, fault: _Fault) -> None:
        tries = execution.row.doc.get("tries", 0) + 1
        if fault.status == "Failed" and tries < int(execution.step.get("maxAttempts") or 1):

            def again(tx: Transaction) -> Row:
                row = EXECUTION.find(tx, execution.row.account, execution.row.region, execution.row.name)
                row.doc["tries"] = tries
                EXECUTION.change(tx, row, "TriedAgain")
                return row

            execution._learn(await self._calls.store.write(again))
            raise Wait(self._calls.clock() + tries * _PAUSE)
        if execution.current(execution.state) is None:
            await execution.begun({})
        await execution.end(fault=fault)

    async def _act(self, execution: Execution, action: str, inputs: dict[str, Any], begun: Mapping[str, Any]) -> None:
        if action == "aws:executeAwsApi":
            answer, ended = await execution.call(inputs, ending=True)
            if not ended:
                await execution.end(outputs=execution.outputs(answer))
        elif action in ("aws:waitForAwsResourceProperty", "aws:assertAwsResourceProperty"):
            await self._property(execution, inputs, begun, waits=action.startswith("aws:wait"))
        elif action == "aws:sleep":
            await self._sleep(execution, inputs, begun["ExecutionStartTime"])
        elif action == "aws:branch":
            await execution.end(goes_on=runbook.chosen(inputs))
        else:
            await self._invoke(execution, inputs)

    async def _property(
        self, execution: Execution, inputs: dict[str, Any], begun: Mapping[str, Any], *, waits: bool
    ) -> None:
        wanted = [text(one).lower() for one in inputs["DesiredValues"]]
        answer, _ = await execution.call(inputs)
        found = runbook.selected(answer, inputs["PropertySelector"])
        if found is not None and text(found).lower() in wanted:
            await execution.end(outputs=execution.outputs(answer))
            return
        told = f"{inputs['PropertySelector']} is {text(found)[:200] if found is not None else 'not there'}"
        if not waits:
            raise _Fault(f"{told}, not one of {', '.join(wanted)}.")
        now, since = self._calls.clock(), int(begun["ExecutionStartTime"])
        limit = int(execution.step.get("timeoutSeconds") or _LONGEST_WAIT)
        if now >= since + limit * MICROS:
            raise _Fault(f"After {limit} seconds {told}, not one of {', '.join(wanted)}.", "TimedOut")
        raise Wait(now + min(max(_PAUSE, (now - since) // 4), _LONGEST_PAUSE))

    async def _sleep(self, execution: Execution, inputs: dict[str, Any], since: Instant) -> None:
        if "Duration" in inputs:
            until = since + runbook.seconds(inputs["Duration"]) * MICROS
        else:
            until = _moment(inputs["Timestamp"])
        if self._calls.clock() < until:
            raise Wait(until)
        await execution.end()

    async def _invoke(self, execution: Execution, inputs: dict[str, Any]) -> None:
        payload = inputs.get("Payload", inputs.get("InputPayload"))
        given = {
            "FunctionName": text(inputs["FunctionName"]),
            "InvocationType": text(inputs.get("InvocationType") or "RequestResponse"),
            "Payload": b"" if payload is None else payload.encode() if isinstance(payload, str) else orjson.dumps(payload),
        }  # fmt: skip
        if inputs.get("Qualifier"):
            given["Qualifier"] = text(inputs["Qualifier"])
        output = await self._calls.act(
            await execution.caller(), "lambda", "Invoke", given, region=execution.row.region, source=PRINCIPAL,
            via=() if execution.row.doc["role"] else (PRINCIPAL,),
        )  # fmt: skip
        body, told = output.get("Payload"), b""
        if isinstance(body, bytes):
            told = body
        elif body is not None:
            async for piece in body:
                told += piece
                if len(told) > _MOST_BYTES:
                    raise _Fault(f"The function's answer has more than {_MOST_BYTES} bytes.")
        if output.get("FunctionError"):
            raise _Fault(f"The function failed: {told.decode(errors='replace')[:800]}")
        text_ = told.decode(errors="replace")
        try:
            answer = {"Payload": orjson.loads(told or b"null")}
        except orjson.JSONDecodeError:
            answer = {"Payload": text_}
        await execution.end(
            outputs={"StatusCode": output.get("StatusCode", 200), "Payload": text_, **execution.outputs(answer)}
        )

    async def end(self, run: Run) -> None:
        """Writes how it ended."""
        failure = run.failure

        def work(tx: Transaction) -> None:
            row = EXECUTION.find(tx, run.state["account"], run.state["region"], run.state["execution"])
            if row.status in OVER:
                return
            doc, state = row.doc, opened(self._calls, row.doc["state"])
            if failure is not None:
                row.status = "Failed"
                doc["failure"] = failure.message[:_MOST_MESSAGE] if failure.foreseen else "An internal error occurred."
            elif run.state.get("cancelled"):
                row.status = "Cancelled"
            else:
                row.status = doc["end"]
            for one in state["steps"]:
                if one["StepStatus"] == "InProgress":
                    one["StepStatus"], one["ExecutionEndTime"] = row.status, tx.now
            doc["state"] = seal(self._calls, state)
            wanted = runbook.read(doc["content"]).get("outputs") or ()
            names = [one for one in wanted if isinstance(one, str)]
            doc["outputs"] = seal(
                self._calls, {name: state["outputs"][name] for name in names if name in state["outputs"]}
            )
            doc["ended"] = tx.now
            EXECUTION.change(tx, row, "Ended")
            tell(
                tx, account=row.account, region=row.region, source="aws.ssm",
                detail_type="EC2 Automation Execution Status-change Notification",
                resources=[EXECUTION.arn(row.account, row.region, row.name)],
                detail={
                    "ExecutionId": row.name, "Definition": doc["document"], "DefinitionVersion": doc["version"],
                    "Status": row.status, "StartTime": iso(doc["began"]), "EndTime": iso(tx.now), "Time": iso(tx.now),
                    "ExecutedBy": doc["by"],
                },
            )  # fmt: skip

        await self._calls.store.write(work)


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """An execution begins once it is on the disk, and is woken when it is to stop."""

    async def execution(body: dict[str, Any]) -> None:
        id = f"{body['account']}/ssm/{body['name']}"
        if body["event"] == "StartAutomationExecution":
            where = {"account": body["account"], "region": body["region"], "execution": body["name"]}
            await workflows.begin(FLOW, id, where)
        elif body["event"] == "StopAutomationExecution":
            await workflows.signal(id, "stop")

    outbox.subscribe(EXECUTION.key, execution)
