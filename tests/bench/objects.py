"""``python -m tests.bench.objects``: what S3 and KMS do, beside moto_server, ministack and a bare ASGI server.

tests/bench/README.md says how each row is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import measure, signing, transfer, workload
from .__main__ import chosen, machine
from .measure import Sample, middle
from .report import number
from .servers import BENCH, PRODUCTS, Bare, Bastide, Endpoint, Server
from .workload import LARGE_BYTES, SMALL, Stage

KEYS = 1024
"""Small objects that are written and read in turn."""
CLIENTS = 16
PAGE = 1000
PLAIN = b"0123456789abcdef" * 64
MEGABYTE = 1e6
SIZES = (64 * 2**20, 1024 * 2**20)
"""Objects that memory is measured with."""
PEERS_SIZES = (64 * 2**20, 256 * 2**20)
"""The same for those that keep all in memory: there is other work on this machine."""


@dataclass(frozen=True)
class Plan:
    """Repetitions, seconds a measurement, transfers of 64 MiB, objects stored for lists (Bastide's and the peers')."""

    repeats: int
    seconds: float
    transfers: int
    listed: tuple[int, ...]
    peers_listed: tuple[int, ...]


@dataclass
class Findings:
    """What was measured: row, product, sample; what could not be, with what was said."""

    machine: dict[str, Any]
    plan: Plan
    labels: dict[str, str]
    versions: dict[str, str]
    checks: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, Sample]] = field(default_factory=dict)
    lists: dict[str, dict[str, dict[int, Sample]]] = field(default_factory=dict)
    memory: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)


Step = Callable[[Stage], Sample]


class Run:
    """One run; a method a table."""

    def __init__(self, kinds: list[type[Server]], plan: Plan, console: Console, home: Path) -> None:
        self.plan, self.console, self.home = plan, console, home
        self.kinds = kinds
        self.stages: dict[str, Stage] = {}
        self.encrypted: dict[str, str] = {}
        """Buckets whose objects are encrypted under the stage's key unless something else is said."""
        self.findings = Findings(
            machine(), plan, {kind.name: kind.label for kind in kinds}, {kind.name: "" for kind in kinds}
        )

    def attempt(self, name: str, row: str, step: Callable[[], None]) -> None:
        """A product that fails a row is shown so, and the others go on."""
        if row in self.findings.failed.get(name, {}):
            return
        try:
            step()
        except Exception as error:
            self.findings.failed.setdefault(name, {})[row] = str(error)[:500]
            self.console.print(f"[red]{self.findings.labels[name]}: {row}: {error}[/red]", highlight=False, markup=True)

    def start(self) -> None:
        for kind in self.kinds:
            self.findings.versions[kind.name] = kind(self.home / kind.name).version()
            self.attempt(kind.name, "start", lambda kind=kind: self._start(kind(self.home / kind.name)))

    def _start(self, server: Server) -> None:
        admin = server.prepare()
        server.spawn()
        self.stages[server.name] = stage = Stage(server, admin, admin, bucket="bench")
        if isinstance(server, Bare):
            measure.first_answer(server, b"GET / HTTP/1.1\r\nHost: bare\r\n\r\n", admin.port)
            self.encrypted[server.name] = "bench-encrypted"
            return
        request = signing.prepare("sts", "get_caller_identity", admin, [{}])[0]
        measure.first_answer(server, request, admin.port)
        self.stages[server.name] = stage = workload.set_up(server, admin, job=False)
        if stage.broken:
            raise RuntimeError("; ".join(stage.broken))
        self.findings.checks[server.name] = workload.check_refusals(stage)
        s3 = signing.client("s3", admin)
        bucket = f"{stage.bucket}-encrypted"
        s3.create_bucket(Bucket=bucket)
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": stage.key}
        s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": rule}]},
        )
        self.encrypted[server.name] = bucket

    def row(self, title: str, step: Step, *, only: type[Server] | None = None, lacks: str = "") -> None:
        """One row of samples, round and round the products, so that drift hits all alike."""
        self.console.print(f"[dim]{title} ...[/dim]", highlight=False)
        seen: dict[str, list[Sample]] = {}
        for _ in range(self.plan.repeats):
            for name, stage in self.stages.items():
                if (only and not isinstance(stage.server, only)) or lacks in stage.server.lacks:
                    continue
                self.attempt(name, title, lambda name=name, stage=stage: seen.setdefault(name, []).append(step(stage)))
        self.findings.rows[title] = {name: middle(samples) for name, samples in seen.items()}

    # -- rows ----------------------------------------------------------------------------------------------------------

    def large(self) -> None:
        """64 MiB through SSE-KMS, one transfer after another over one connection."""

        def bucket(stage: Stage) -> str:
            return self.encrypted[stage.server.name]

        def transfers(stage: Stage, method: str, to: Endpoint) -> Sample:
            body = workload.large() if method == "put_object" else b""
            given = [{"Bucket": bucket(stage), "Key": "large"}]
            return self._play(
                stage,
                signing.presign(method, to, given, body),
                to=to,
                count=self.plan.transfers,
                warm=1,
                body_length=None if body else LARGE_BYTES,
            )

        def signed(stage: Stage) -> Sample:
            if isinstance(stage.server, Bare):
                return transfers(stage, "put_object", stage.user)
            return measure.large(stage, workload.PUT_LARGE, self.plan.transfers)

        def over_tls(method: str) -> Step:
            return lambda stage: transfers(stage, method, _secure(stage))

        self.row("put 64 MiB, pre-signed", lambda stage: transfers(stage, "put_object", stage.user))
        self.row("put 64 MiB, its SHA-256 signed", signed)
        self.row("get 64 MiB, pre-signed", lambda stage: transfers(stage, "get_object", stage.user))
        self.row("put 64 MiB, pre-signed, TLS", over_tls("put_object"), only=Bastide)
        self.row("get 64 MiB, pre-signed, TLS", over_tls("get_object"), only=Bastide)

    def small(self) -> None:
        """1 KiB with 16 connections, and what each client gets of it, alone and beside a large upload."""

        def requests(stage: Stage, method: str) -> list[bytes]:
            given = [{"Bucket": stage.bucket, "Key": f"few/{one:04d}"} for one in range(KEYS)]
            return signing.presign(method, stage.user, given, SMALL if method == "put_object" else b"")

        def plain(method: str, warm: int) -> Step:
            return lambda stage: self._play(
                stage,
                requests(stage, method),
                clients=CLIENTS,
                warm=warm,
                seconds=self.plan.seconds,
                body_length=None if method == "put_object" else len(SMALL),
            )

        def beside(method: str) -> Step:
            def step(stage: Stage) -> Sample:
                given = [{"Bucket": self.encrypted[stage.server.name], "Key": "beside"}]
                big = {
                    "requests": signing.presign("put_object", stage.user, given, workload.large()),
                    "port": stage.user.port,
                    "clients": 1,
                    "seconds": self.plan.seconds + 1.5,
                }
                spec = {
                    "requests": requests(stage, method),
                    "port": stage.user.port,
                    "clients": CLIENTS,
                    "warm": CLIENTS,
                    "seconds": self.plan.seconds,
                }
                with measure.beside(big):
                    return measure.play(stage.server, spec)

            return step

        self.row("put 1 KiB, 16 clients", plain("put_object", KEYS))
        self.row("get 1 KiB, 16 clients", plain("get_object", 4 * CLIENTS))
        self.row("put 1 KiB, beside 64 MiB uploads", beside("put_object"))
        self.row("get 1 KiB, beside 64 MiB uploads", beside("get_object"))

    def kms(self) -> None:
        """Encrypt and Decrypt of 1 KiB."""

        def step(method: str, clients: int, secure: bool = False) -> Step:
            def asked(stage: Stage) -> Sample:
                given: dict[str, Any] = {"KeyId": stage.key, "Plaintext": PLAIN}
                if method == "decrypt":
                    made = signing.client("kms", stage.user).encrypt(**given)
                    given = {"CiphertextBlob": made["CiphertextBlob"]}
                to = _secure(stage) if secure else stage.user
                requests = signing.prepare("kms", method, to, [given] * workload.VARIETIES)
                seconds = self.plan.seconds / 2
                return self._play(stage, requests, to=to, clients=clients, warm=4 * clients, seconds=seconds)

            return asked

        for method in ("encrypt", "decrypt"):
            for clients in (1, CLIENTS):
                title = f"kms {method.capitalize()} 1 KiB, {clients} client{'s' if clients > 1 else ''}"
                self.row(title, step(method, clients), lacks="kms")
            self.row(f"kms {method.capitalize()} 1 KiB, 1 client, TLS", step(method, 1, True), only=Bastide)

    def _play(
        self,
        stage: Stage,
        requests: list[bytes],
        *,
        to: Endpoint | None = None,
        clients: int = 1,
        **more: Any,
    ) -> Sample:
        endpoint = to or stage.user
        spec = {"requests": requests, "port": endpoint.port, "ca": endpoint.ca, "clients": clients, **more}
        return measure.play(stage.server, spec)

    def lists(self) -> None:
        """Pages of 1,000 by how many objects the bucket has."""
        stored = dict.fromkeys(self.stages, 0)
        buckets: dict[str, str] = {}
        for size in sorted({*self.plan.listed, *self.plan.peers_listed}):
            for name, stage in self.stages.items():
                ours = isinstance(stage.server, Bastide)
                if "s3" in stage.server.lacks or size not in (self.plan.listed if ours else self.plan.peers_listed):
                    continue
                self.console.print(f"[dim]pages of {size:,} objects: {stage.server.label} ...[/dim]", highlight=False)
                bucket = buckets.setdefault(name, f"{stage.bucket}-many")
                self.attempt(
                    name,
                    "objects to list",
                    lambda stage=stage, bucket=bucket, size=size, name=name: self._fill(
                        stage, bucket, stored[name], size
                    ),
                )
                stored[name] = size
                if "objects to list" not in self.findings.failed.get(name, {}):
                    self._pages(name, stage, bucket, size)

    def _fill(self, stage: Stage, bucket: str, there: int, size: int) -> None:
        if not there:
            signing.client("s3", stage.admin).create_bucket(Bucket=bucket)
        keys = [_listed(one) for one in range(there, size)]
        first = keys[: max(0, PAGE - there)] if isinstance(stage.server, Bastide) else keys
        if first:
            requests = signing.presign(
                "put_object", stage.user, [{"Bucket": bucket, "Key": key} for key in first], b"x"
            )
            spec = {"requests": requests, "port": stage.user.port, "clients": 8, "count": len(requests)}
            measure.play(stage.server, spec)
        if isinstance(stage.server, Bastide):
            stage.server.copy_objects(bucket, keys[len(first) :])

    def _pages(self, name: str, stage: Stage, bucket: str, size: int) -> None:
        asked: dict[str, tuple[str, dict[str, Any]]] = {
            "first page of 1,000": ("list_objects_v2", {}),
            "100, nine tenths in": ("list_objects_v2", {"StartAfter": _listed(size * 9 // 10 - 1), "MaxKeys": 100}),
            "common prefixes, 1,000 at most": ("list_objects_v2", {"Prefix": "all/", "Delimiter": "/"}),
            "versions, 1,000": ("list_object_versions", {}),
        }
        for title, (method, given) in asked.items():

            def step(title: str = title, method: str = method, given: dict[str, Any] = given) -> None:
                requests = signing.prepare(
                    "s3", method, stage.user, [{"Bucket": bucket, "MaxKeys": PAGE, **given}] * 64
                )
                samples = [
                    self._play(stage, requests, seconds=self.plan.seconds / 2, warm=2) for _ in range(self.plan.repeats)
                ]
                row = self.findings.lists.setdefault(title, {}).setdefault(name, {})
                row[size] = middle(samples)

            self.attempt(name, f"{title} of {size:,}", step)

    def memory(self) -> None:
        """How far resident memory grows beyond where it stood, in MiB."""
        asked = (transfer.put, transfer.get, transfer.multipart, transfer.copy)
        for name, stage in self.stages.items():
            if "s3" in stage.server.lacks:
                continue
            self.console.print(f"[dim]memory: {stage.server.label} ...[/dim]", highlight=False)
            for size in SIZES if isinstance(stage.server, Bastide) else PEERS_SIZES:
                for ask in asked:

                    def step(ask: Any = ask, size: int = size, name: str = name, stage: Stage = stage) -> None:
                        tree = stage.server.tree
                        assert tree is not None
                        before = tree.resident()
                        tree.forget_peak()
                        ask(stage.admin, stage.bucket, size)
                        row = self.findings.memory.setdefault(ask.__name__, {}).setdefault(name, {})
                        row[size] = (tree.peak() - before) / 2**20

                    self.attempt(name, f"{ask.__name__} of {size >> 20} MiB", step)

    def all(self, wanted: set[str] | None = None) -> None:
        """Everything, or the wanted tables; the servers are stopped at the end whatever happens."""
        try:
            self.start()
            for step in (self.small, self.large, self.kms, self.lists, self.memory):
                if wanted is None or step.__name__ in wanted:
                    step()
        finally:
            for stage in self.stages.values():
                stage.server.stop()
            self.findings.machine["load_after"] = os.getloadavg()[0]


def _secure(stage: Stage) -> Endpoint:
    endpoint = stage.server.secure(stage.user)
    assert endpoint is not None
    return endpoint


def _listed(one: int) -> str:
    """A key: 100 of them share a prefix."""
    return f"all/{one // 100:05d}/{one % 100:02d}"


# -- what is shown -----------------------------------------------------------------------------------------------------


def show(findings: Findings) -> None:
    """Prints the tables."""
    console = Console(width=150, highlight=False)
    told = findings.machine
    console.print(
        f"\n[bold]S3 and KMS[/bold]  {told['time']}  {told['cores']} cores ({told['cpu'] or 'unknown CPU'}), Linux "
        f"{told['kernel']}, Python {told['python']}; load average {told['load_before']:.1f} before, "
        f"{told.get('load_after', 0):.1f} after"
    )
    for name, label in findings.labels.items():
        console.print(f"  {label} {findings.versions[name]}: {findings.checks.get(name, 'checks nothing')}")
    table = Table(title="Transfers and calls", title_justify="left", title_style="bold")
    for heading in ("row", "server"):
        table.add_column(heading, no_wrap=True)
    for heading in ("a second", "MB/s", "of bare", "p50 ms", "p99 ms", "CPU ms", "least/most served"):
        table.add_column(heading, justify="right")
    for title, row in findings.rows.items():
        shown = title
        bare = row.get(Bare.name) or _without_tls(findings, title).get(Bare.name)
        for name, label in findings.labels.items():
            sample = row.get(name)
            if sample is None:
                if name in row or title in findings.failed.get(name, {}):
                    table.add_row(shown, label, "failed")
                    shown = ""
                continue
            size = LARGE_BYTES if "MiB, " in title and "1 KiB" not in title else 0
            speed = f"{sample.rate * size / MEGABYTE:,.0f}" if size else ""
            share = f"{sample.rate / bare.rate:.0%}" if bare and name != Bare.name else ""
            fair = f"{sample.spread:.2f}" if "16 clients" in title or "beside" in title else ""
            cells = [number(sample.rate), speed, share, number(sample.p50), number(sample.p99), number(sample.cpu_ms)]
            table.add_row(shown, label, *cells, fair)
            shown = ""
        table.add_section()
    console.print(table)
    _show_lists(console, findings)
    _show_memory(console, findings)
    for name, rows in findings.failed.items():
        for row, said in rows.items():
            console.print(f"FAILED {findings.labels[name]}: {row}: {said}", markup=False)


def _without_tls(findings: Findings, title: str) -> dict[str, Sample]:
    return findings.rows.get(title.removesuffix(", TLS"), {})


def _show_lists(console: Console, findings: Findings) -> None:
    sizes = sorted({*findings.plan.listed, *findings.plan.peers_listed})
    table = Table(title="A page by what is stored (p50 in ms)", title_justify="left", title_style="bold")
    table.add_column("page", no_wrap=True)
    table.add_column("server", no_wrap=True)
    for size in sizes:
        table.add_column(f"of {size:,}", justify="right")
    for title, row in findings.lists.items():
        shown = title
        for name, samples in row.items():
            cells = [number(samples[size].p50) if size in samples else "" for size in sizes]
            table.add_row(shown, findings.labels[name], *cells)
            shown = ""
        table.add_section()
    console.print(table)
    console.print(
        "[dim]100 objects have a prefix in common: of 1,000 a page of common prefixes has 10, of 100,000 it has "
        "1,000.[/dim]"
    )


def _show_memory(console: Console, findings: Findings) -> None:
    if not findings.memory:
        return
    sizes = sorted({*SIZES, *PEERS_SIZES})
    table = Table(title="Growth of resident memory, MiB at the most", title_justify="left", title_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("server", no_wrap=True)
    for size in sizes:
        table.add_column(f"{size >> 20:,} MiB", justify="right")
    for title, row in findings.memory.items():
        shown = title
        for name, grown in row.items():
            cells = [f"{grown[size]:.0f}" if size in grown else "" for size in sizes]
            table.add_row(shown, findings.labels[name], *cells)
            shown = ""
        table.add_section()
    console.print(table)


def main() -> int:
    """Parses the command line, measures, prints; 1 where Bastide failed a row."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.objects", description=__doc__)
    names = ",".join(kind.name for kind in (*PRODUCTS, Bare))
    parser.add_argument("--only", metavar="A,B", default=names, help=f"products, of {names}")
    parser.add_argument("--quick", action="store_true", help="one short repetition of everything, lists of 10,000")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to FILE as well")
    parser.add_argument("--repeats", type=int, help="repetitions, of which medians are shown (2; quick 1)")
    parser.add_argument("--seconds", type=float, help="seconds a measurement (1; quick 0.5)")
    parser.add_argument("--rows", metavar="A,B", help="of small,large,kms,lists,memory", default="")
    chose = parser.parse_args()
    quick = chose.quick
    plan = Plan(
        repeats=chose.repeats or (1 if quick else 2),
        seconds=chose.seconds or (0.5 if quick else 1.0),
        transfers=2 if quick else 6,
        listed=(1000, 10_000) if quick else (1000, 10_000, 100_000),
        peers_listed=(1000,) if quick else (1000, 5000),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    console = Console(stderr=True)
    kinds = chosen(chose.only, console)
    home = BENCH / "run" / f"objects-{os.getpid()}"
    home.mkdir(parents=True, mode=0o700)
    run = Run(kinds, plan, console, home)
    findings = run.findings
    try:
        run.all(set(chose.rows.split(",")) if chose.rows else None)
    finally:
        # Also what was measured until somebody lost patience.
        shutil.rmtree(home, ignore_errors=True)
        if chose.json:
            chose.json.write_text(json.dumps(asdict(findings), indent=1) + "\n")
        show(findings)
    return 1 if Bastide.name in findings.failed else 0


if __name__ == "__main__":
    sys.exit(main())
