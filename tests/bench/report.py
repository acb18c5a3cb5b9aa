"""The tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .__main__ import Findings
    from .measure import Sample

WIDTH = 140
OURS = "bastide"
RIVAL = "ministack-auth"
NOTHING = "-"


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def show(findings: Findings) -> None:
    """Prints everything on standard output."""
    console = Console(width=WIDTH, highlight=False)
    machine = findings.machine
    console.print(
        f"\n[bold]{machine['time']}[/bold]  {machine['cores']} cores ({machine['cpu'] or 'unknown CPU'}), Linux "
        f"{machine['kernel']}, Python {machine['python']}; load average {machine['load_before']:.1f} before, "
        f"{machine.get('load_after', 0):.1f} after"
    )
    plan = findings.plan
    console.print(
        f"Medians of {plan.repeats} interleaved repetitions of {plan.seconds:g} s each, plain HTTP on loopback unless "
        "the row says TLS. CPU is user and system time of all processes of the server."
    )
    for name, label in findings.labels.items():
        checks = findings.checks.get(name, "not set up")
        resident = findings.resident.get(name, 0) / 2**20
        console.print(f"  {label} {findings.versions[name]}: {checks}; {resident:.0f} MiB resident after the set-up")
    _calls(console, findings)
    _ratios(console, findings)
    _lists(console, findings)
    _whole(console, findings)
    for failure in findings.failures:
        console.print(f"[bold red]FAILED[/bold red] {failure}", markup=True)


def _cells(one: Sample | None, many: Sample | None) -> list[str]:
    cells = []
    for figure in ("cpu_ms", "rate"):
        cells += [number(getattr(sample, figure)) if sample else NOTHING for sample in (one, many)]
    for sample in (one, many):
        cells += [number(sample.p50), number(sample.p99)] if sample else [NOTHING, NOTHING]
    return cells


def _calls(console: Console, findings: Findings) -> None:
    table = Table(
        title="Calls, with 1 and with 16 clients (CPU, p50 and p99 in ms)", title_justify="left", title_style="bold"
    )
    table.add_column("call", no_wrap=True)
    table.add_column("server", no_wrap=True)
    for heading in (
        "CPU ms\n1",
        "CPU ms\n16",
        "req/s\n1",
        "req/s\n16",
        "p50\n1",
        "p99\n1",
        "p50\n16",
        "p99\n16",
    ):
        table.add_column(heading, justify="right")
    from .workload import OPERATIONS

    nouns = {operation.title: operation.noun for operation in OPERATIONS}
    for title in [*nouns, f"{OPERATIONS[0].title}, TLS"]:
        row = findings.calls.get(title, {})
        shown = title
        for name, label in findings.labels.items():
            if name in row:
                table.add_row(shown, label, *_cells(row[name].get(1), row[name].get(16)))
            elif title in nouns:
                why = findings.missing.get(name, {}).get(nouns[title], "failed")
                table.add_row(shown, f"{label}: [dim]{why}[/dim]")
            else:
                continue
            shown = ""
        table.add_section()
    console.print(table)


def _ratios(console: Console, findings: Findings) -> None:
    if OURS not in findings.labels or RIVAL not in findings.labels:
        return
    table = Table(title=f"Bastide / {findings.labels[RIVAL]}", title_justify="left", title_style="bold")
    table.add_column("call", no_wrap=True)
    figures = [("CPU", "cpu_ms"), ("req/s", "rate"), ("p50", "p50"), ("p99", "p99")]
    for heading, _ in figures:
        for clients in (1, 16):
            table.add_column(f"{heading}\n{clients}", justify="right")
    for title, row in findings.calls.items():
        if OURS in row and RIVAL in row:
            table.add_row(
                title,
                *(
                    f"{getattr(row[OURS][clients], figure) / getattr(row[RIVAL][clients], figure):.2f}"
                    for _, figure in figures
                    for clients in (1, 16)
                ),
            )
    console.print(table)
    console.print("[dim]Below 1 is better for CPU, p50 and p99; above 1 for req/s.[/dim]")


def _lists(console: Console, findings: Findings) -> None:
    table = Table(
        title="A page of 100, by how many are stored (1 client; CPU and p50 in ms)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("call", no_wrap=True)
    table.add_column("server", no_wrap=True)
    sizes = sorted({*findings.plan.sizes, *findings.plan.jobs})
    for size in sizes:
        table.add_column(f"CPU\n{size:,}", justify="right")
        table.add_column(f"p50\n{size:,}", justify="right")
    table.add_column("p50 last/first\n(1 is flat)", justify="right")
    notes = []
    for title, noun in (("ListModels", "models"), ("ListTrainingJobs", "job")):
        shown = title
        for name, label in findings.labels.items():
            row = findings.lists.get(title, {}).get(name, {})
            if not row:
                why = findings.missing.get(name, {}).get(noun, "failed")
                table.add_row(shown, f"{label}: [dim]{why}[/dim]")
            else:
                cells = []
                for size in sizes:
                    sample = row.get(size)
                    cells += [number(sample.cpu_ms), number(sample.p50)] if sample else [NOTHING, NOTHING]
                full = [size for size in sorted(row) if size >= 100]  # below that a page is shorter
                flat = number(row[full[-1]].p50 / row[full[0]].p50) if len(full) > 1 else NOTHING
                table.add_row(shown, label, *cells, flat)
            shown = ""
            for size, count in findings.listed.get(title, {}).get(name, {}).items():
                if count > 100:
                    notes.append(f"{label} answers {title} with all {count:,} of {size:,}, whatever MaxResults says.")
        table.add_section()
    console.print(table)
    console.print(
        "[dim]A training job in Bastide is run, not noted down: up to 200 jobs were really run, beyond that the row of one "
        "that ran was copied in the database. The other products only keep a record of a job.[/dim]"
    )
    for note in notes:
        console.print(f"[dim]{note}[/dim]")


def _whole(console: Console, findings: Findings) -> None:
    table = Table(title="Whole things", title_justify="left", title_style="bold")
    table.add_column("what", no_wrap=True)
    for label in findings.labels.values():
        table.add_column(label, justify="right")

    def missing(name: str, noun: str) -> str:
        return findings.missing.get(name, {}).get(noun, "failed")

    names = list(findings.labels)
    table.add_row("cold start", *(_seconds(findings.cold.get(name)) for name in names))
    cells = []
    for name in names:
        made = findings.creates.get(name)
        cells.append(f"{number(made.rate)}/s, {number(made.cpu_ms)} ms CPU" if made else missing(name, "models"))
    table.add_row("CreateModel, 8 clients", *cells)
    cells = [_seconds(findings.first_line.get(name)) if name == OURS else "does not run" for name in names]
    table.add_row("CreateTrainingJob to first line of user code", *cells)
    cells = []
    for name in names:
        many = findings.many_jobs.get(name)
        cells.append(f"{many[0]} in {number(many[1])} s" if many else ("failed" if name == OURS else "does not run"))
    table.add_row("training jobs, from the first Create to all ended", *cells)
    for clients in (1, 16):
        through, bare = (findings.invoke.get(f"{kind} {clients}") for kind in ("InvokeEndpoint", "bare"))
        ours = "failed"
        if through:
            ours = f"{number(through.p50)} ms"
            ours += f" / {number(bare.p50)} ms = {through.p50 / bare.p50:.2f}" if bare else " / not found"
        cells = [ours if name == OURS else "does not run" for name in names]
        table.add_row(f"InvokeEndpoint / bare model server, p50, {clients} clients", *cells)
    console.print(table)


def _seconds(value: float | None) -> str:
    return f"{value * 1000:,.0f} ms" if value is not None else "failed"
