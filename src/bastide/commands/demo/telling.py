"""How the story is told: numbered chapters and a spinner for people, plain lines where nobody watches."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_POLL_SECONDS = 0.3
_Found = TypeVar("_Found")


class StoryError(click.ClickException):
    """A step did not do what it says."""


class Telling:
    """Where the story is written to."""

    def __init__(self) -> None:
        self.console = Console(emoji=False, highlight=False)
        if not self.console.is_terminal:
            self.console = Console(emoji=False, highlight=False, width=160)
        self.began = time.monotonic()
        self._chapter = 0

    def act(self, title: str) -> None:
        """Opens the next part of the story."""
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}[/]", style="cyan", align="left")

    def chapter(self, title: str) -> None:
        """Opens the next one."""
        self._chapter += 1
        at = f"[dim]{time.monotonic() - self.began:4.0f} s[/]"
        self.console.print(f"\n[bold cyan]{self._chapter}. {escape(title)}[/]  {at}", soft_wrap=True)

    def say(self, text: str) -> None:
        """One short sentence."""
        self.console.print(f"   {escape(text)}", soft_wrap=True)

    def aside(self, text: str) -> None:
        """Something beside the story: a log line, a statement."""
        for line in text.splitlines():
            self.console.print(f"[dim]   | {escape(line)}[/]", soft_wrap=True)

    def done(self, text: str) -> None:
        """Something that went as it should."""
        self.console.print(f"   [green]ok[/] {escape(text)}", soft_wrap=True)

    def refused(self, attempt: str, code: str, message: str) -> None:
        """A rule that held, in AWS's words, less the encoded message at their end."""
        message = message.partition(" Encoded authorization failure message:")[0]
        self.console.print(f"   [yellow]refused[/] {escape(attempt)}", soft_wrap=True)
        self.console.print(f"           [yellow]{escape(code)}[/]: {escape(message)}", soft_wrap=True)

    def failed(self, text: str) -> None:
        """The end of a story that went wrong."""
        self.console.print(f"\n[bold red]the demo failed:[/] {escape(text)}", soft_wrap=True)

    def table(self, title: str, headings: list[str], rows: list[list[str]]) -> None:
        """Rows under headings."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(escape(one) for one in row))
        self.console.print()
        self.console.print(table)

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Shows that something goes on, and how long it took; yields a function that says what it is at."""
        began = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"   ... {escape(text)}", soft_wrap=True)
            yield lambda _: None
        else:
            with self.console.status(f"{escape(text)}", spinner="dots") as status:
                yield lambda at: status.update(f"{escape(text)}  [dim]{at}, {time.monotonic() - began:.0f} s[/]")
        self.done(f"{text} [{time.monotonic() - began:.1f} s]")

    def until(self, text: str, poll: Callable[[], tuple[str, _Found | None]], seconds: float) -> _Found:
        """Asks until there is something; poll tells what it is at, and what it found.

        Raises StoryError after `seconds`.
        """
        deadline = time.monotonic() + seconds
        with self.waiting(text) as show:
            while True:
                at, found = poll()
                if found is not None:
                    return found
                if time.monotonic() > deadline:
                    raise StoryError(f"{text}: not within {seconds:.0f} s (it stood at {at})")
                show(at)
                time.sleep(_POLL_SECONDS)

    def further(self, data: Path, pid: int | None, *, running: bool) -> None:
        """How to look on."""
        where = f"--data {shlex.quote(str(data))}"
        self.console.print("\n[bold]To look further[/]")
        lines: list[tuple[str, str]] = []
        if shutil.which("bastide") is None:
            lines += [
                (f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH", "bastide and aws are there")
            ]
        if not running:
            lines += [("bastide demo --keep", f"tells it again and leaves the platform running in ./{data}")]
        lines += [
            (f"bastide status {where}", "accounts, jobs, models, endpoints"),
            (f"bastide inventory {where}", "every endpoint traced to its registered version"),
            (f"bastide why {where} REQUEST-ID", "why a call was refused, what would have allowed it (ids above)"),
            (
                f'eval "$(bastide credentials {where} --account data-science --role DataScientist)"',
                "be the data scientist",
            ),
            ("aws sagemaker list-training-jobs", "any AWS client works now"),
            (f'eval "$(bastide credentials {where} --account production)"', "be production's administrator"),
            ("aws sagemaker list-endpoints", ""),
            ("aws cloudtrail lookup-events --max-results 5", ""),
            (f'eval "$(bastide credentials {where} --account shared-services)"', "where code and pipelines are"),
            ("aws codepipeline get-pipeline-state --name bank-mortgage-training", "where a commit is"),
            (f"bastide landing drift {shlex.quote(str(data / 'landing' / 'landing.yaml'))} {where}", "changed by hand"),
        ]
        if pid is not None:
            lines += [
                (f"kill {pid}", f"stops it; `bastide up {where} --development-identity-provider` starts it again")
            ]
        for command, meaning in lines:
            self.console.print(f"   {escape(command)}" + (f"   [dim]# {meaning}[/]" if meaning else ""), soft_wrap=True)
