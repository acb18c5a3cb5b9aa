"""``python -m tests.bench.jobs [--jobs N]``: many short training jobs queue and run, and the API answers meanwhile.

Starts a platform of its own, creates N jobs of a second each as fast as it answers, and describes jobs all the while.
Says p50 and p99 of DescribeTrainingJob with nothing to do and under load, how long a CreateTrainingJob took, how many jobs
ended a second, and, with nothing else running, the time from CreateTrainingJob to the first line of user code beside what
two interpreters need to start (the image's `train` starts the script's). Ends non-zero if a job did not complete, or if an
answer was wrong; nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.workload import MARK
from tests.platform import Running
from tests.stories.sagemaker.conftest import Workshop, workshop_of

SCRIPT = f"import time\nprint({MARK!r}, time.time(), flush=True)\ntime.sleep(1)"
LINE = SCRIPT.rpartition("\n")[0]
OVER = ("Completed", "Failed", "Stopped")


class Asker(threading.Thread):
    """Describes a job again and again until told to stop."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        self.client, self.name_asked, self.took = client, name, list[float]()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            began = time.perf_counter()
            found = self.client.describe_training_job(TrainingJobName=self.name_asked)
            self.took.append((time.perf_counter() - began) * 1000)
            assert found["TrainingJobName"] == self.name_asked
            self.over.wait(0.01)


def asked(client: Any, name: str, seconds: float) -> list[float]:
    """Milliseconds of each call in a time."""
    asker = Asker(client, name)
    asker.start()
    time.sleep(seconds)
    asker.over.set()
    asker.join()
    return asker.took


def first_line(workshop: Workshop) -> float:
    """Milliseconds from the sending of CreateTrainingJob to the first line, which prints the clock."""
    given = workshop.train(LINE)  # uploads the code, too: measured from the job's own creation below
    job = workshop.trained(given)
    assert job["TrainingJobStatus"] == "Completed", job
    request = {key: job[key] for key in (
        "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition",
        "HyperParameters",
    )}  # fmt: skip
    name = workshop.name("line")
    sent = time.time()
    workshop.sagemaker.create_training_job(TrainingJobName=name, **request)
    workshop.trained(name)
    logs = workshop.account.client("logs")
    events = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")[
        "events"
    ]
    marked = next(one["message"] for one in events if one["message"].startswith(MARK))
    return (float(marked.split()[-1]) - sent) * 1000


def interpreter() -> float:
    """Milliseconds that an interpreter takes to its first line."""
    began = time.time()
    printed = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    return (float(printed.stdout) - began) * 1000


def per_hundred(values: list[float], hundredth: int) -> str:
    return f"{sorted(values)[min(len(values) - 1, len(values) * hundredth // 100)]:.1f} ms"


def main() -> int:
    """Measures; returns 0 if everything that was asked for happened."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--jobs", type=int, default=200)
    words.add_argument("--lines", type=int, default=7, help="how often the first line is timed")
    chosen = words.parse_args()
    table = Table("what", "figure")
    with tempfile.TemporaryDirectory(prefix="bastide-jobs-") as folder:
        platform = Running(Path(folder) / "data")
        platform.start()
        try:
            platform.found()
            workshop = workshop_of(platform.account())
            lines = [first_line(workshop) for _ in range(chosen.lines)]
            bare = [interpreter() for _ in range(chosen.lines)]
            table.add_row("CreateTrainingJob to the first line, median", f"{statistics.median(lines):.0f} ms")
            table.add_row("of which two interpreters' start", f"{2 * statistics.median(bare):.0f} ms")
            first = workshop.train(SCRIPT)
            workshop.trained(first)
            asking = workshop.account.client("sagemaker")
            idle = asked(asking, first, 3)
            job = workshop.sagemaker.describe_training_job(TrainingJobName=first)
            request = {key: job[key] for key in (
                "AlgorithmSpecification", "RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition",
                "HyperParameters",
            )}  # fmt: skip
            asker = Asker(asking, first)
            asker.start()
            began, creating, names = time.monotonic(), [], []
            for number in range(chosen.jobs):
                at = time.perf_counter()
                names.append(f"load-{number}")
                workshop.sagemaker.create_training_job(TrainingJobName=names[-1], **request)
                creating.append((time.perf_counter() - at) * 1000)
            while workshop.sagemaker.list_training_jobs(StatusEquals="InProgress", MaxResults=1)[
                "TrainingJobSummaries"
            ]:
                time.sleep(0.5)
            seconds = time.monotonic() - began
            asker.over.set()
            asker.join()
            ends = [
                workshop.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] for name in names
            ]
            if ends.count("Completed") < chosen.jobs:
                print((Path(folder) / "up.log").read_text()[-4000:])
        finally:
            platform.stop()
    table.add_row(
        "DescribeTrainingJob, nothing else running: p50, p99", f"{per_hundred(idle, 50)}, {per_hundred(idle, 99)}"
    )
    table.add_row(
        f"DescribeTrainingJob while {chosen.jobs} jobs queue and run: p50, p99",
        f"{per_hundred(asker.took, 50)}, {per_hundred(asker.took, 99)} ({len(asker.took)} calls)",
    )
    table.add_row("CreateTrainingJob meanwhile: p50, p99", f"{per_hundred(creating, 50)}, {per_hundred(creating, 99)}")
    table.add_row("jobs of one second ended", f"{chosen.jobs} in {seconds:.0f} s, {chosen.jobs / seconds:.1f} a second")
    table.add_row("of them completed", str(ends.count("Completed")))
    Console(width=120).print(table)
    return 0 if ends.count("Completed") == chosen.jobs else 1


if __name__ == "__main__":
    sys.exit(main())
