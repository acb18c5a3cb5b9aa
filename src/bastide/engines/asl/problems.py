"""How a state goes wrong: what a person reads in the history, and what Retry and Catch look at.

Source: AWS Step Functions developer guide, "Handling errors in Step Functions workflows"; Amazon States Language, "Errors".
"""

from __future__ import annotations

from typing import Final

RUNTIME: Final = "States.Runtime"
QUERY: Final = "States.QueryEvaluationError"
TIMEOUT: Final = "States.Timeout"
HEARTBEAT: Final = "States.HeartbeatTimeout"
LIMIT: Final = "States.DataLimitExceeded"
INTRINSIC: Final = "States.IntrinsicFailure"
NO_MATCH: Final = "States.NoChoiceMatched"
TASK_FAILED: Final = "States.TaskFailed"
PERMISSIONS: Final = "States.Permissions"
TOLERANCE: Final = "States.ExceedToleratedFailureThreshold"
READER: Final = "States.ItemReaderFailed"
WRITER: Final = "States.ResultWriterFailed"
_NEVER_BY_ALL: Final = (RUNTIME, LIMIT)
_NOT_OF_THE_TASK: Final = (TIMEOUT, HEARTBEAT, *_NEVER_BY_ALL)


class Problem(Exception):  # noqa: N818 - an outcome that the owner may have planned for
    """A state fails with an error name and a cause; either may be None, as a Fail state leaves them out.

    place: the field in which an expression failed, ``Output/answer``. evaluation: it was an expression of JSONata, which
    the history tells in an event of its own.
    """

    def __init__(self, error: str | None, cause: str | None, *, place: str = "", evaluation: bool = False) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause
        self.place = place
        self.evaluation = evaluation


def matches(problem: Problem, names: list[str]) -> bool:
    """Whether a Retry or Catch that names these errors is meant."""
    error = problem.error or ""
    for name in names:
        if name == error or (name == TIMEOUT and error == HEARTBEAT):
            return True
        if name == "States.ALL" and error not in _NEVER_BY_ALL:
            return True
        if name == TASK_FAILED and error not in _NOT_OF_THE_TASK:
            return True
    return False
