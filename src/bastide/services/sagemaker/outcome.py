"""How a job ended, and what its row says of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bastide.domain import MICROS
from bastide.engines.sandbox import Ended
from bastide.engines.workflow import Run
from bastide.services.sagemaker import archive
from bastide.services.sagemaker.host import Host

REASON: Final = 1024
"""Characters of a reason."""
STOPPED: Final = "Stopped"
OUT_OF_TIME: Final = {"MaxRuntimeExceeded": STOPPED, "MaxWaitTimeExceeded": STOPPED}
"""Secondary statuses with the status that goes with them."""
_INTERNAL: Final = "InternalServerError: We encountered an internal error. Please try again."


def outcome_of(ended: Sequence[Ended], first: int | None, ending: str, decided: Host) -> dict[str, Any]:
    """first: which host failed first, None if none did."""
    one = ended[decided.number]
    last = [text for line in decided.tail if (text := line.decode("utf-8", "replace").strip())]
    return {
        "ending": ending,
        "host": decided.name,
        "exit_code": one.exit_code,
        "oom": one.oom,
        "seconds": max(each.seconds for each in ended),
        "cpu_seconds": sum(each.cpu_seconds or 0.0 for each in ended),
        "peak_bytes": max(each.peak_bytes or 0 for each in ended),
        "succeeded": ending == "Ended" and first is None,
        "tail": last[-1][:REASON] if last else "",
    }


def verdict(run: Run) -> tuple[str, str]:
    """Last status, and why it failed if it did."""
    failure, outcome = run.failure, run.state.get("outcome")
    if failure is not None:
        if failure.code == STOPPED or failure.code in OUT_OF_TIME:
            return failure.code, ""
        return "Failed", f"{failure.code}: {failure.message}" if failure.foreseen else _INTERNAL
    assert outcome is not None
    if outcome["ending"] != "Ended":
        return outcome["ending"], ""
    if outcome["succeeded"]:
        return "Completed", ""
    if outcome.get("faults"):
        return "Failed", f"ClientError: {outcome['faults'][0]}"
    code = outcome["exit_code"]
    if outcome["oom"]:
        text = "OutOfMemoryError: the job used more memory than its instance type has. Please use a larger one"
    else:
        text = outcome.get("failure") or outcome["tail"] or "The program ended without saying why"
        # Toolkits write this when they did not see why; the last line often tells.
        text = text.replace('ErrorMessage ""', f'ErrorMessage "{outcome["tail"]}"')
    behind = f", exit code: {137 if code is None else code}"
    return "Failed", f"AlgorithmError: {text[: REASON - len(behind) - 16]}{behind}"


def seconds_between(start: int | None, end: int) -> int:
    """Whole seconds, rounded up, at least one; none without a start."""
    return 0 if start is None else max(1, -(-(end - start) // MICROS))


def text_of(base: Path, folder: str, name: str, most: int) -> str:
    """The beginning of a small file that a job left; empty if there is none or it is no plain file in a plain folder."""
    try:
        path = archive.plain_folder(base, folder) / name
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, archive.Unfit):
        return ""
    with os.fdopen(handle, "rb") as file:
        try:
            return file.read(most).decode("utf-8", "replace").strip()
        except OSError:
            return ""
