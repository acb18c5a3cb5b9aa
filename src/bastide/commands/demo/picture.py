"""Where a commit is: a picture that moves on a terminal, and lines, one a change, where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bastide.commands.demo.telling import Telling

_MARKS = {"waits": "[dim]○[/]", "runs": "[bold yellow]●[/]", "asks": "[bold magenta]◆[/]", "done": "[green]✓[/]"}
_WIDTH = 12


@dataclass
class Step:
    """A station on the way. state: waits, runs, asks (for a person) or done."""

    name: str
    account: str
    says: str
    state: str = "waits"
    note: str = ""
    began: float = 0.0
    took: float = 0.0


class Picture:
    """The stations in their order, each with where it stands and what it is at."""

    def __init__(self, telling: Telling, steps: list[Step]) -> None:
        self._telling = telling
        self.steps = {one.name: one for one in steps}
        self._live: Live | None = None

    @contextmanager
    def moving(self) -> Iterator[None]:
        """On a terminal, it stays in sight and moves while this goes on; then it stands still above what follows."""
        if not self._telling.console.is_terminal:
            yield
            return
        self._live = Live(get_renderable=self._drawn, console=self._telling.console, refresh_per_second=8)
        try:
            with self._live:
                yield
        finally:
            self._live = None

    def move(self, name: str, state: str, note: str = "", took: float | None = None) -> None:
        """A station's state, and what it is at; "" leaves the note. took: seconds, where the station says it itself.

        A station that the picture does not have is not drawn.
        """
        step, now = self.steps.get(name), time.monotonic()
        if step is None:
            return
        changed = step.state != state
        if changed and step.state == "waits":
            step.began = now
        if changed and state == "done":
            step.took = now - step.began if took is None else took
        step.state, step.note = state, note or step.note
        if changed and not self._telling.console.is_terminal and state != "waits":
            seconds = f" [{step.took:.1f} s]" if state == "done" else ""
            what = {"runs": "...", "asks": "asks", "done": "ok"}[state]
            self._telling.say(f"{what} {name} in {step.account}: {step.note or step.says}{seconds}")

    def _drawn(self) -> Table:
        table = Table(box=None, padding=(0, 1), show_header=False)
        for one in self.steps.values():
            if one.state == "done":
                took = f"{one.took:.1f} s"
            else:
                took = f"{time.monotonic() - one.began:.0f} s" if one.state != "waits" else ""
            style = "dim" if one.state == "waits" else "none" if one.state == "done" else "bold"
            table.add_row(
                f"  {_MARKS[one.state]}",
                f"[{style}]{one.name:{_WIDTH}}[/]",
                f"[cyan]{one.account}[/]" if one.state != "waits" else f"[dim]{one.account}[/]",
                f"[{style}]{escape(one.note or one.says)}[/]",
                f"[dim]{took}[/]",
            )
        return table
