"""``python -m tests.bench``: measures Bastide, ministack (checks off and on) and moto_server side by side."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from . import measure, report, signing, workload
from .measure import Sample, middle
from .servers import BENCH, PRODUCTS, Bare, Bastide, Server
from .workload import Stage

CLIENTS = (1, 16)


@dataclass(frozen=True)
class Plan:
    """How much is measured: repetitions, seconds a measurement, sizes of the lists."""

    repeats: int
    seconds: float
    sizes: tuple[int, ...]
    jobs: tuple[int, ...]


@dataclass
class Findings:
    """Everything that was measured, by row and product; what :mod:`report` prints and ``--json`` writes."""

    machine: dict[str, Any]
    plan: Plan
    labels: dict[str, str]
    versions: dict[str, str]
    checks: dict[str, str] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: dict[str, dict[str, dict[int, Sample]]] = field(default_factory=dict)
    lists: dict[str, dict[str, dict[int, Sample]]] = field(default_factory=dict)
    listed: dict[str, dict[str, dict[int, int]]] = field(default_factory=dict)
    creates: dict[str, Sample] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    resident: dict[str, int] = field(default_factory=dict)
    first_line: dict[str, float] = field(default_factory=dict)
    many_jobs: dict[str, tuple[int, float]] = field(default_factory=dict)
    invoke: dict[str, Sample] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Run:
    """One whole run over the chosen products, a method a group of rows."""

    def __init__(self, servers: list[type[Server]], plan: Plan, console: Console, home: Path) -> None:
        self.kinds = servers
        self.plan = plan
        self.console = console
        self.home = home
        self.stages: dict[str, Stage] = {}
        self.findings = Findings(
            machine(), plan, {kind.name: kind.label for kind in servers}, {kind.name: "" for kind in servers}
        )

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        self.console.print(f"[dim]{text}[/dim]", highlight=False)

    def attempt(self, name: str, row: str, step: Callable[[], None]) -> None:
        """One measurement; a failure is kept for the end, where it makes the run fail, and the others go on."""
        try:
            step()
        except Exception as error:
            message = f"{self.findings.labels[name]}: {row}: {error}"
            if message not in self.findings.failures:
                self.findings.failures.append(message)
                self.console.print(f"[red]{message}[/red]", highlight=False, markup=True)

    def interleaved(self, noun: str, row: str, step: Callable[[Stage, int], None]) -> None:
        """``step`` for each product in turn, and that as often as the plan says: drift then hits all alike."""
        for repeat in range(self.plan.repeats):
            for name, stage in self.stages.items():
                if noun not in stage.missing:
                    self.attempt(name, row, lambda stage=stage, repeat=repeat: step(stage, repeat))

    def cold_starts(self) -> None:
        times: dict[str, list[float]] = {}
        servers = {kind.name: kind(self.home / f"{kind.name}-cold") for kind in self.kinds}
        for _ in range(self.plan.repeats):
            for name, server in servers.items():
                self.attempt(
                    name,
                    "cold start",
                    lambda name=name, server=server: times.setdefault(name, []).append(measure.cold_start(server)),
                )
        self.findings.cold = {name: median(seen) for name, seen in times.items()}

    def start(self) -> None:
        """Starts all servers and sets them up."""
        for kind in self.kinds:
            server = kind(self.home / kind.name)
            self.attempt(kind.name, "start", lambda server=server: self._start(server))
        self.findings.missing = {name: stage.missing for name, stage in self.stages.items()}

    def _start(self, server: Server) -> None:
        admin = server.prepare()
        server.spawn()
        self.stages[server.name] = stage = Stage(server, admin, admin)
        request = signing.prepare("sts", "get_caller_identity", admin, [{}])[0]
        measure.first_answer(server, request, admin.port)
        stage = workload.set_up(server, admin)
        self.stages[server.name] = stage
        self.findings.failures += stage.broken
        if not {"user", "role"} & set(stage.missing):
            self.findings.checks[server.name] = workload.check_refusals(stage)
        assert server.tree is not None
        self.findings.resident[server.name] = server.tree.resident()

    def calls(self) -> None:
        for operation in workload.OPERATIONS:
            self.say(f"{operation.title} ...")
            samples: dict[tuple[str, int], list[Sample]] = {}

            def step(stage: Stage, _repeat: int, operation=operation, samples=samples) -> None:
                for clients in CLIENTS:
                    sample = measure.calls(stage, operation, clients, self.plan.seconds)
                    samples.setdefault((stage.server.name, clients), []).append(sample)

            self.interleaved(operation.noun, operation.title, step)
            self._keep(self.findings.calls, operation.title, samples)
        self._over_tls()

    def _over_tls(self) -> None:
        operation = workload.OPERATIONS[0]
        title = f"{operation.title}, TLS"
        samples: dict[tuple[str, int], list[Sample]] = {}

        def step(stage: Stage, _repeat: int) -> None:
            endpoint = stage.server.secure(stage.user)
            if endpoint is None:
                return
            for clients in CLIENTS:
                sample = measure.calls(stage, operation, clients, self.plan.seconds, endpoint)
                samples.setdefault((stage.server.name, clients), []).append(sample)

        self.interleaved(operation.noun, title, step)
        self._keep(self.findings.calls, title, samples)

    def _keep(
        self,
        table: dict[str, dict[str, dict[int, Sample]]],
        row: str,
        samples: dict[tuple[str, int], list[Sample]],
    ) -> None:
        for (name, clients), seen in samples.items():
            table.setdefault(row, {}).setdefault(name, {})[clients] = middle(seen)

    def lists(self) -> None:
        """ListModels and ListTrainingJobs with more and more stored."""
        for size in sorted({*self.plan.sizes, *self.plan.jobs}):
            if size in self.plan.sizes:
                self.say(f"ListModels of {size:,} ...")
                for name, stage in self.stages.items():
                    if "models" not in stage.missing:
                        self.attempt(
                            name, f"CreateModel to {size}", lambda stage=stage, size=size: self._models(stage, size)
                        )
                self._list(workload.LIST_MODELS, size, lambda stage: stage.models)
            self.say(f"ListTrainingJobs of {size:,} ...")
            for name, stage in self.stages.items():
                if "job" not in stage.missing and (size in self.plan.jobs or not stage.server.runs_code):
                    self.attempt(
                        name, f"CreateTrainingJob to {size}", lambda stage=stage, size=size: self._jobs(stage, size)
                    )
            self._list(workload.LIST_JOBS, size, lambda stage: stage.jobs)

    def _models(self, stage: Stage, size: int) -> None:
        inputs = [workload.model_input(stage, number) for number in range(stage.models, size)]
        self.findings.creates[stage.server.name] = measure.once_each(stage, "sagemaker", "create_model", inputs)
        stage.models = size

    def _jobs(self, stage: Stage, size: int) -> None:
        more = size - stage.jobs
        if stage.server.runs_code and size > _MOST_RUN:
            # Each would really train, which is not what a list is measured for: rows of ended jobs are copied instead.
            stage.server.copy_jobs(size)
            stage.jobs = size
            return
        inputs = [workload.job_input(stage, f"bench-job-{number:05d}") for number in range(stage.jobs, size)]
        began = time.perf_counter()
        measure.once_each(stage, "sagemaker", "create_training_job", inputs)
        stage.jobs = size
        if stage.server.runs_code:
            workload.wait_for_jobs(stage, 60 + 3.0 * more)
            self.findings.many_jobs[stage.server.name] = (more, time.perf_counter() - began)

    def _list(self, operation: workload.Operation, size: int, stored: Callable[[Stage], int]) -> None:
        samples: dict[tuple[str, int], list[Sample]] = {}

        def step(stage: Stage, _repeat: int) -> None:
            if stored(stage) != size:
                return
            sample = measure.calls(stage, operation, 1, self.plan.seconds)
            samples.setdefault((stage.server.name, size), []).append(sample)

        self.interleaved(operation.noun, f"{operation.title} of {size}", step)
        self._keep(self.findings.lists, operation.title, samples)
        for name, _ in samples:
            stage = self.stages[name]
            answer = getattr(signing.client(operation.service, stage.user), operation.method)(MaxResults=100)
            count = len(answer.get("Models", answer.get("TrainingJobSummaries", [])))
            self.findings.listed.setdefault(operation.title, {}).setdefault(name, {})[size] = count

    def code(self) -> None:
        """What only a platform that runs code can show."""
        for name, stage in self.stages.items():
            if not stage.server.runs_code:
                continue
            self.say("CreateTrainingJob to the first line of user code ...")
            lines: list[float] = []
            if "job" not in stage.missing:
                for number in range(self.plan.repeats):
                    self.attempt(
                        name,
                        "first line of user code",
                        lambda lines=lines, stage=stage, number=number: lines.append(
                            workload.first_line(stage, number)
                        ),
                    )
            if lines:
                self.findings.first_line[name] = median(lines)
            if "bucket" not in stage.missing:
                self.say("InvokeEndpoint ...")
                self.attempt(name, "InvokeEndpoint", lambda stage=stage: self._invoke(stage))

    def _invoke(self, stage: Stage) -> None:
        assert isinstance(stage.server, Bastide)
        workload.serve(stage)
        path = stage.server.model_server_socket(workload.answers_ping)
        if path is None:
            self.findings.failures.append("Bastide: no unix socket of the model server found below its data folder")
        through: dict[int, list[Sample]] = {}
        bare: dict[int, list[Sample]] = {}
        for _ in range(self.plan.repeats):
            for clients in CLIENTS:
                sample = measure.calls(stage, workload.INVOKE, clients, self.plan.seconds)
                through.setdefault(clients, []).append(sample)
                if path is not None:
                    spec = {
                        "requests": [workload.BARE_INVOCATION],
                        "unix": str(path),
                        "clients": clients,
                        "seconds": self.plan.seconds,
                        "warm": 4 * clients,
                    }
                    bare.setdefault(clients, []).append(measure.play(stage.server, spec))
        for kind, seen in (("InvokeEndpoint", through), ("bare", bare)):
            for clients, samples in seen.items():
                self.findings.invoke[f"{kind} {clients}"] = middle(samples)

    def all(self) -> Findings:
        """Everything, the servers stopped at the end whatever happens."""
        for kind in self.kinds:
            self.findings.versions[kind.name] = kind(self.home / kind.name).version()
        try:
            self.say("cold starts ...")
            self.cold_starts()
            self.say("starting and setting up ...")
            self.start()
            self.calls()
            self.code()
            self.lists()
        finally:
            for stage in self.stages.values():
                stage.server.stop()
        self.findings.machine["load_after"] = os.getloadavg()[0]
        return self.findings


def chosen(only: str | None, console: Console) -> list[type[Server]]:
    """The products to measure, installed; one that cannot run is left out, or an error where it was asked for."""
    names = only.split(",") if only else [kind.name for kind in PRODUCTS]
    known: dict[str, type[Server]] = {kind.name: kind for kind in (*PRODUCTS, Bare)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"--only knows {', '.join(known)}, not {', '.join(unknown)}")
    kinds = []
    for name in names:
        kind = known[name]
        server = kind(BENCH / "run")
        console.print(f"[dim]installing {kind.label} ...[/dim]", highlight=False)
        server.install()
        why = server.available()
        if why:
            raise SystemExit(f"{kind.label} cannot run: {why}\nMeasure the others with --only.")
        kinds.append(kind)
    return kinds


_MOST_RUN = 200
"""Training jobs that are made by running them."""


def main() -> int:
    """Parses the command line, measures, prints; 1 where anything that was measured failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="A,B", help=f"products, of {','.join(kind.name for kind in PRODUCTS)}")
    parser.add_argument("--quick", action="store_true", help="one short repetition of everything, lists to 1,000")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to FILE as well")
    parser.add_argument("--repeats", type=int, help="repetitions, of which medians are shown (3; quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds a measurement (2; quick 0.5)")
    parser.add_argument(
        "--jobs",
        metavar="N,N",
        help="stored training jobs at which ListTrainingJobs of Bastide is measured (100,1000,10000; quick 20)",
    )
    chose = parser.parse_args()
    quick = chose.quick
    plan = Plan(
        repeats=chose.repeats or (1 if quick else 3),
        seconds=chose.seconds or (0.5 if quick else 2.0),
        sizes=(100, 1000) if quick else (100, 1000, 10000),
        jobs=tuple(int(size) for size in chose.jobs.split(","))
        if chose.jobs
        else ((20,) if quick else (100, 1000, 10000)),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    console = Console(stderr=True)
    kinds = chosen(chose.only, console)
    home = BENCH / "run" / str(os.getpid())
    home.mkdir(parents=True, mode=0o700)
    try:
        findings = Run(kinds, plan, console, home).all()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if chose.json:
        chose.json.write_text(json.dumps(asdict(findings), indent=1) + "\n")
    report.show(findings)
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
