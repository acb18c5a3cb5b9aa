"""How a build stands: its phases, each told as an event when it ends, and what is measured of it.

Source: CodeBuild User Guide, "Build notifications input format reference", "CodeBuild CloudWatch metrics"; API Reference,
BuildPhase.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bastide.domain import MICROS, Instant
from bastide.engines.telemetry import Meter
from bastide.kernel import Calls
from bastide.kernel.happened import tell
from bastide.services.codebuild.noun import BUILD, BUILD_OF
from bastide.services.codebuild.project import default_key
from bastide.store import Row, Transaction, View

IN_PROGRESS: Final = "IN_PROGRESS"
SUCCEEDED: Final = "SUCCEEDED"
OVER: Final = ("SUCCEEDED", "FAILED", "FAULT", "TIMED_OUT", "STOPPED")
_MOST_MESSAGE: Final = 2000
_NAMESPACE: Final = "AWS/CodeBuild"
_METRICS: Final = {
    "SUBMITTED": "SubmittedDuration",
    "QUEUED": "QueuedDuration",
    "PROVISIONING": "ProvisioningDuration",
    "DOWNLOAD_SOURCE": "DownloadSourceDuration",
    "INSTALL": "InstallDuration",
    "PRE_BUILD": "PreBuildDuration",
    "BUILD": "BuildDuration",
    "POST_BUILD": "PostBuildDuration",
    "UPLOAD_ARTIFACTS": "UploadArtifactsDuration",
    "FINALIZING": "FinalizingDuration",
}


def context(code: str, message: str) -> dict[str, str]:
    """Why a phase ended as it did."""
    return {"statusCode": code, "message": message[:_MOST_MESSAGE]}


def begin(row: Row, phase: str, now: Instant) -> None:
    """A phase begins."""
    row.doc["phases"].append({"phaseType": phase, "startTime": now})
    row.doc["currentPhase"] = phase


def end(
    tx: Transaction, row: Row, status: str, now: Instant, contexts: Sequence[dict[str, str]] = ()
) -> dict[str, Any] | None:
    """The phase that runs is over, and told; None if none runs."""
    phases: list[dict[str, Any]] = row.doc["phases"]
    if not phases or "endTime" in phases[-1] or phases[-1]["phaseType"] == "COMPLETED":
        return None
    phase = phases[-1]
    phase |= {
        "phaseStatus": status,
        "endTime": now,
        "durationInSeconds": max(0, now - phase["startTime"]) // MICROS,
        "contexts": list(contexts),
    }
    arn = BUILD.arn(row.account, row.region, row.name)
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.codebuild",
        detail_type="CodeBuild Build Phase Change",
        resources=[arn],
        detail={
            "completed-phase": phase["phaseType"],
            "project-name": row.doc["projectName"],
            "build-id": arn,
            "completed-phase-context": _contexts(phase),
            "additional-information": _information(row),
            "completed-phase-status": status,
            "completed-phase-duration-seconds": phase["durationInSeconds"],
            "version": "1",
            "completed-phase-start": _time(phase["startTime"]),
            "completed-phase-end": _time(now),
        },
    )
    return phase


def told(tx: Transaction, row: Row) -> None:
    """The build's status is told."""
    arn = BUILD.arn(row.account, row.region, row.name)
    last = row.doc["phases"][-1] if row.doc["phases"] else {}
    tell(
        tx,
        account=row.account,
        region=row.region,
        source="aws.codebuild",
        detail_type="CodeBuild Build State Change",
        resources=[arn],
        detail={
            "build-status": row.status,
            "project-name": row.doc["projectName"],
            "build-id": arn,
            "additional-information": _information(row),
            "current-phase": row.doc["currentPhase"],
            "current-phase-context": _contexts(last),
            "version": "1",
        },
    )


def _contexts(phase: dict[str, Any]) -> str:
    """As the events write them: ``[code: message]``."""
    return f"[{', '.join(_text(one) for one in phase.get('contexts') or ())}]"


def _text(one: dict[str, str]) -> str:
    return f"{one['statusCode']}: {one['message']}"


def _time(at: Instant) -> str:
    """``Sep 1, 2017 4:14:21 PM``."""
    found = datetime.fromtimestamp(at // MICROS, UTC)
    return f"{found:%b} {found.day}, {found.year} {int(f'{found:%I}')}:{found:%M:%S %p}"


def _information(row: Row) -> dict[str, Any]:
    doc = row.doc
    environment = doc["environment"]
    found: dict[str, Any] = {
        "artifact": {
            "md5sum": (doc.get("artifacts") or {}).get("md5sum", ""),
            "sha256sum": (doc.get("artifacts") or {}).get("sha256sum", ""),
            "location": (doc.get("artifacts") or {}).get("location", ""),
        },
        "environment": {
            "image": environment["image"],
            "privileged-mode": environment["privilegedMode"],
            "compute-type": environment["computeType"],
            "type": environment["type"],
            "environment-variables": [
                # Values may be anything; a bus need not carry them.
                {"name": one["name"], "type": one.get("type") or "PLAINTEXT"}
                for one in environment["environmentVariables"]
            ],
        },
        "timeout-in-minutes": doc["timeoutInMinutes"],
        "build-complete": row.status in OVER,
        "build-number": doc["buildNumber"],
        "initiator": doc["initiator"],
        "build-start-time": _time(doc["startTime"]),
        "source": {"type": doc["source"]["type"], "location": doc["source"].get("location", "")},
        "logs": {
            "group-name": doc["logs"].get("groupName", ""),
            "stream-name": doc["logs"].get("streamName", ""),
            "deep-link": doc["logs"].get("deepLink", ""),
        },
        "phases": [
            {
                "phase-type": one["phaseType"],
                "start-time": _time(one["startTime"]),
                **(
                    {
                        "phase-status": one["phaseStatus"],
                        "end-time": _time(one["endTime"]),
                        "duration-in-seconds": one["durationInSeconds"],
                        "phase-context": [_text(c) for c in one.get("contexts") or ()],
                    }
                    if "endTime" in one
                    else {}
                ),
            }
            for one in doc["phases"]
        ],
    }
    if doc.get("sourceVersion"):
        found["source-version"] = doc["sourceVersion"]
    return found


def shown(row: Row) -> dict[str, Any]:
    """A build as the API has it."""
    doc = {key: value for key, value in row.doc.items() if not key.startswith("_")}
    return {
        **doc,
        "encryptionKey": doc.get("encryptionKey") or default_key(row.account, row.region),
        "id": row.name,
        "arn": BUILD.arn(row.account, row.region, row.name),
        "buildStatus": row.status,
        "buildComplete": row.status in OVER,
    }


def running(view: View, account: str, region: str, project: str, most: int) -> int:
    """How many builds of a project are not over, counted up to `most`."""
    found = 0
    for one in view.scan(BUILD.key, account, region, order="created", status=IN_PROGRESS, limit=1000):
        if one.doc["projectName"] == project:
            found += 1
            if found >= most:
                break
    return found


def index(row: Row) -> Row:
    """The row by which a build is found below its project."""
    project = row.doc["projectName"]
    return Row(BUILD_OF, f"{row.account}/{project}", row.region, f"{row.doc['startTime']:020d}|{row.name}", {})


def measure(calls: Calls, row: Row) -> None:
    """What a build that is over took, of its project and of all."""
    meter = calls.engine(Meter)
    counts = {"Builds": 1.0, "SucceededBuilds": float(row.status == SUCCEEDED)}
    counts["FailedBuilds"] = float(row.status in ("FAILED", "FAULT", "TIMED_OUT"))
    seconds = {"Duration": max(0, row.doc["endTime"] - row.doc["startTime"]) / MICROS}
    for phase in row.doc["phases"]:
        name = _METRICS.get(phase["phaseType"])
        if name and "endTime" in phase:
            seconds[name] = max(0, phase["endTime"] - phase["startTime"]) / MICROS
    for dimensions in ((), (("ProjectName", row.doc["projectName"]),)):
        for unit, values in (("Count", counts), ("Seconds", seconds)):
            for name, value in values.items():
                if unit == "Count" and not value:
                    continue
                meter.record(row.account, row.region, _NAMESPACE, dimensions, name, value, unit)


__all__ = [
    "IN_PROGRESS", "OVER", "SUCCEEDED", "begin", "context", "end", "index", "measure", "running", "shown", "told",
]  # fmt: skip
