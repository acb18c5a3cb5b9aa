"""A job of Model Monitor: what it is told by its environment, what it leaves.

Developer guide, "model-monitor-byoc-contract-inputs", "model-monitor-byoc-contract-outputs" and
"model-monitor-byoc-cloudwatch".
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bastide_monitor import Unfit
from bastide_monitor.records import Dataset, handler, parsed

MOST_DOCUMENT = 256 << 20
FAILED = 255
_NAME = re.compile(r"[^\x20-\x7e]")


def say(line: str) -> None:
    """A line of the job's log."""
    print(line, flush=True)  # noqa: T201


class Job:
    """given: the environment's variables. base: ``/opt/ml``."""

    def __init__(self, given: Mapping[str, str], base: Path) -> None:
        self.given = given
        self.base = base
        self.output = Path(self.needed("output_path"))
        hosts = (self.json(base / "config" / "resourceconfig.json") or {}).get("hosts") or []
        if len(hosts) > 1:
            raise Unfit("The analysis runs on one instance here: use InstanceCount 1.")

    def needed(self, name: str) -> str:
        """A variable. Raises Unfit where it is missing."""
        found = self.given.get(name, "")
        if not found:
            raise Unfit(f"The environment variable {name} is needed.")
        return found

    def dataset(self) -> Dataset:
        """The records that the job is about. Raises Unfit."""
        told = parsed(self.needed("dataset_format"), "The environment variable dataset_format")
        script = self.given.get("record_preprocessor_script")
        return Dataset(
            Path(self.needed("dataset_source")),
            told,
            self.given.get("start_time"),
            self.given.get("end_time"),
            handler(Path(script), "preprocess_handler") if script else None,
        )

    def document(self, name: str) -> dict[str, Any] | None:
        """A baseline's file, by the variable that says where it lies; None without one. Raises Unfit."""
        where = self.given.get(name)
        if not where:
            return None
        path = Path(where)
        if path.is_dir():
            path = path / f"{name.removeprefix('baseline_')}.json"
        if not path.is_file():
            raise Unfit(f"{name}: there is no file at {path}.")
        found = self.json(path)
        if not isinstance(found, dict):
            raise Unfit(f"{name}: {path.name} is not a JSON object.")
        return found

    def json(self, path: Path) -> Any:
        """A file of JSON, None if there is none. Raises Unfit."""
        if not path.is_file():
            return None
        if path.stat().st_size > MOST_DOCUMENT:
            raise Unfit(f"{path.name} is larger than {MOST_DOCUMENT >> 20} MiB.")
        return parsed(path.read_text("utf-8", "replace"), path.name)

    def write(self, name: str, told: Any) -> None:
        """A report."""
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / name).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def measure(self, found: Iterable[tuple[str, Any]], **about: str) -> None:
        """Metrics, where the job is to publish some: each a number, or what CloudWatch calls StatisticValues.

        about: further dimensions.
        """
        if self.given.get("publish_cloudwatch_metrics") != "Enabled":
            return
        folder = self.base / "output" / "metrics" / "cloudwatch"
        folder.mkdir(parents=True, exist_ok=True)
        at = (
            self.given.get("metric_time")
            or self.given.get("start_time")
            or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        endpoint, schedule = (
            self.given.get("sagemaker_endpoint_name"),
            self.given.get("sagemaker_monitoring_schedule_name"),
        )
        dimensions = [
            {"Name": name, "Value": value}
            for name, value in (("Endpoint", endpoint), ("MonitoringSchedule", schedule), *about.items())
            if value
        ]
        with (folder / "cloudwatch_metrics.jsonl").open("a", encoding="utf-8") as file:
            for name, value in found:
                what = {"StatisticValues": value} if isinstance(value, dict) else {"Value": value}
                told = {"MetricName": _NAME.sub("_", name)[:255], "Timestamp": at, "Dimensions": dimensions, **what}
                file.write(json.dumps(told) + "\n")


def main(given: Mapping[str, str], base: Path, analyse: Callable[[Job], int | None]) -> int:
    """Runs an analysis; the exit status. What went wrong, or how it went, is in ``output/message``."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    message, status = "", 0
    try:
        job = Job(given, base)
        found = analyse(job)
        if script := given.get("post_analytics_processor_script"):
            process = handler(Path(script), "postprocess_handler")
            try:
                process()  # type: ignore[call-arg]
            except Exception as error:
                raise Unfit(f"postprocess_handler failed: {type(error).__name__}: {error}") from error
        if found:
            message = f"CompletedWithViolations: Job completed successfully with {found} violations."
        elif found == 0:
            message = "Completed: Job completed successfully with no violations."
        else:
            message = "Completed: Job completed successfully."
    except Unfit as unfit:
        if unfit.__cause__ is not None:
            traceback.print_exception(unfit.__cause__, file=sys.stdout)
        message, status = f"Error: {unfit}", FAILED
    except OSError as error:
        message, status = f"Error: {error.strerror}: {error.filename or ''}", FAILED
    except Exception as error:  # a fault of ours, or something that nobody thought of: it is told as well
        traceback.print_exc(file=sys.stdout)
        message, status = f"Error: {type(error).__name__}: {error}", FAILED
    say(message)
    (base / "output").mkdir(parents=True, exist_ok=True)
    (base / "output" / "message").write_text(message[:1024], "utf-8")
    return status
