"""The log of a state machine: lines of its executions' events, written with its role into a log group.

Source: Step Functions developer guide, "Using CloudWatch Logs to log execution history".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.engines.asl.interpreter import About
from bastide.engines.asl.values import dumps
from bastide.services.states.noun import PRINCIPAL

if TYPE_CHECKING:
    from bastide.services.states.runner import Executions

_log = logging.getLogger("bastide.states")
_FATAL: Final = ("ExecutionAborted", "ExecutionFailed", "ExecutionTimedOut")
_ERROR: Final = (
    *_FATAL, "ActivityFailed", "ActivityScheduleFailed", "ActivityTimedOut", "FailStateEntered", "LambdaFunctionFailed",
    "LambdaFunctionScheduleFailed", "LambdaFunctionStartFailed", "LambdaFunctionTimedOut", "MapIterationAborted",
    "MapIterationFailed", "MapRunAborted", "MapRunFailed", "MapStateAborted", "MapStateFailed", "ParallelStateAborted",
    "ParallelStateFailed", "TaskFailed", "TaskStartFailed", "TaskStateAborted", "TaskSubmitFailed", "TaskTimedOut",
    "WaitStateAborted", "EvaluationFailed",
)  # fmt: skip
LEVELS: Final[dict[str, tuple[str, ...] | None]] = {"ALL": None, "ERROR": _ERROR, "FATAL": _FATAL}
_DATA: Final = ("input", "output", "parameters", "cause", "error", "assignedVariables")
_LARGEST: Final = 245_000
_MOST_WAITING: Final = 5000


class Logs:
    """Lines of one execution, in a stream of the machine's own."""

    def __init__(self, runner: Executions, about: About, role: str, configuration: dict[str, Any]) -> None:
        self._runner = runner
        self._about = about
        self._role = role
        self._only = LEVELS[configuration["level"]]
        self._whole = bool(configuration.get("includeExecutionData"))
        arn = Arn.parse(configuration["destinations"][0]["cloudWatchLogsLogGroup"]["logGroupArn"])
        self._group = arn.resource.removeprefix("log-group:").removesuffix(":*")
        at = datetime.fromtimestamp(about.started / MICROS, UTC)
        self._stream = f"states/{about.machine_name}/{at:%Y-%m-%d-%H-%M}/{about.arn.rpartition(':')[2][:8]}"
        self._waiting: list[dict[str, Any]] = []
        self._task: asyncio.Task[None] | None = None
        self._denied = False
        self._made = False

    def add(self, events: list[dict[str, Any]]) -> None:
        """Takes events; writes those that the level has."""
        for event in events:
            if self._only is not None and event["type"] not in self._only:
                continue
            if self._denied or len(self._waiting) >= _MOST_WAITING:
                return
            details: dict[str, Any] = next((one for name, one in event.items() if name.endswith("EventDetails")), {})
            if not self._whole:
                details = {name: one for name, one in details.items() if name.removesuffix("Details") not in _DATA}
            line = {
                "id": str(event["id"]),
                "type": event["type"],
                "details": details,
                "redrive_count": str(self._runner_redrives()),
                "previous_event_id": str(event["previousEventId"]),
                "event_timestamp": str(event["timestamp"] // 1000),
                "execution_arn": self._about.arn,
            }
            text = dumps(line)
            if len(text.encode()) > _LARGEST:
                line["details"] = {
                    name: ({"truncated": True} if name.endswith("Details") else one)
                    for name, one in details.items()
                    if name not in _DATA
                }
                text = dumps(line)
            self._waiting.append({"timestamp": event["timestamp"] // 1000, "message": text})
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    def _runner_redrives(self) -> int:
        live = self._runner.live.get(self._about.arn)
        return live.m.memory.redrives if live is not None else 0

    async def _send(self) -> None:
        try:
            while self._waiting and not self._denied:
                batch, self._waiting = self._waiting[:500], self._waiting[500:]
                await self._put(batch)
        except Exception:
            _log.exception("lines of %s could not be logged", self._about.arn)
        finally:
            self._task = None

    async def _put(self, lines: list[dict[str, Any]]) -> None:
        where = {"logGroupName": self._group, "logStreamName": self._stream}
        region = self._about.region
        try:
            caller = await self._runner.session(self._about.machine, self._role)
            act = self._runner.calls.act
            if not self._made:
                try:
                    await act(caller, "logs", "CreateLogStream", where, region=region, source=PRINCIPAL)
                except Refused as refused:
                    if refused.code != "ResourceAlreadyExistsException":
                        raise
                self._made = True
            await act(caller, "logs", "PutLogEvents", {**where, "logEvents": lines}, region=region, source=PRINCIPAL)
        except Refused as refused:
            self._denied = True
            _log.warning("the log of %s is not written: %s", self._about.machine, refused.code)

    async def close(self) -> None:
        """Writes what is left."""
        task = self._task
        if task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await task
