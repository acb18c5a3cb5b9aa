"""`bastide verify`: everything that a platform keeps is read and compared with its checksums and seals."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import apsw
import click
from rich.console import Console
from rich.table import Table

from bastide.commands import DATA_OPTION
from bastide.engines.artifacts import Artifacts, PlaceError, deletions_held
from bastide.engines.keys import RootKey, Safe, SourceError, open_root
from bastide.main.objects import open_artifacts, owner_of
from bastide.services import codeartifact, codecommit, ecr, kms, lambda_, s3
from bastide.store import SqliteStore, View, database, journal
from bastide.store.directory import DataDirectory


@dataclass(frozen=True, slots=True)
class Finding:
    """What was read of one part. read: how many things. locked: how many could not be opened, because their key is their
    customer's or was destroyed; that is no damage. damage: a line each."""

    part: str
    read: int
    locked: int
    damage: list[str]


def findings(directory: DataDirectory, root: RootKey) -> list[Finding]:
    """Reads everything once; may be asked while the platform serves."""
    pages = directory.database.stat().st_size // 4096
    found = [Finding("database (pages)", pages, 0, database.damage(directory.database)), _record(directory)]
    for part, read in (
        ("keys (shards)", _shards),
        ("objects (versions)", _objects),
        ("functions (archives)", _archives),
        ("images (layers)", _layers),
        ("packages (contents)", _packages),
        ("repositories (packs)", _packs),
    ):
        try:
            found.append(read(directory, root))
        except (apsw.Error, database.Damaged, ValueError) as error:
            found.append(Finding(part, 0, 0, [f"what the database says of them cannot be read: {error}"]))
    return found


def _record(directory: DataDirectory) -> Finding:
    """Entries on their way into the database. What follows the last whole one may still be being written."""
    read, wrong = 0, []
    for path in sorted(directory.journal.glob("*.journal")):
        try:
            entries, damaged = journal.read(path.read_bytes())
        except FileNotFoundError:
            continue  # moved into the database meanwhile
        read += len(entries)
        if damaged:
            wrong.append(f"{path}: there are damaged entries between others")
    wrong += [f"{path}: entries were damaged" for path in sorted(directory.journal.glob("*.damaged"))]
    return Finding("audit journal (entries)", read, 0, wrong)


def _shards(directory: DataDirectory, root: RootKey) -> Finding:
    safe = Safe(directory.safe, root)
    ids = sorted(safe.ids())
    return Finding(
        "keys (shards)", len(ids), 0, [f"{directory.safe / id} is damaged" for id in ids if not safe.holds(id)]
    )


Opened = Callable[[View, bytes, dict[str, str]], bytes]
"""What KMS makes of a ciphertext, for who holds all keys."""
Walk = AsyncIterator[tuple[str, str, bool]]
"""Of what is kept: its name, what is wrong with it, and whether it could not be opened, its key being gone."""


def _objects(directory: DataDirectory, root: RootKey) -> Finding:
    async def walk(store: SqliteStore, artifacts: Artifacts, opened: Opened) -> Walk:
        async for one in s3.examine(store, root, artifacts, opened):
            yield one.name, one.trouble, bool(one.locked)

    return _read(directory, root, "objects (versions)", walk)


def _archives(directory: DataDirectory, root: RootKey) -> Finding:
    async def walk(store: SqliteStore, artifacts: Artifacts, opened: Opened) -> Walk:
        async for name, trouble in lambda_.examine(store, root, artifacts):
            yield name, trouble, False

    return _read(directory, root, "functions (archives)", walk)


def _layers(directory: DataDirectory, root: RootKey) -> Finding:
    return _read(directory, root, "images (layers)", lambda *found: ecr.examine(found[0], root, *found[1:]))


def _packages(directory: DataDirectory, root: RootKey) -> Finding:
    return _read(
        directory, root, "packages (contents)", lambda *found: codeartifact.examine(found[0], root, *found[1:])
    )


def _packs(directory: DataDirectory, root: RootKey) -> Finding:
    return _read(directory, root, "repositories (packs)", lambda *found: codecommit.examine(found[0], root, *found[1:]))


def _read(
    directory: DataDirectory, root: RootKey, part: str, walk: Callable[[SqliteStore, Artifacts, Opened], Walk]
) -> Finding:
    store = SqliteStore(directory.database)
    with store.reading() as view:
        owner = owner_of(view)
    artifacts = open_artifacts(directory, directory.load(), owner)
    safe = Safe(directory.safe, root)
    read = locked = 0
    wrong = []

    def opened(view: View, blob: bytes, context: dict[str, str]) -> bytes:
        return kms.opened(root, safe, view, blob, context)

    async def read_all() -> None:
        nonlocal read, locked
        async for name, trouble, closed in walk(store, artifacts, opened):
            read += 1
            locked += closed
            if trouble:
                wrong.append(f"{name}: {trouble}")

    try:
        with deletions_held(directory.objects):
            asyncio.run(read_all())
    finally:
        artifacts.close()
        store.close()
    return Finding(part, read, locked, wrong)


@click.command()
@DATA_OPTION
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify(data: Path, shape: str) -> None:
    """Read everything that the platform keeps, and tell what is damaged; also while it serves.

    Pages of the database, entries of the record, shards of keys, every byte of every version of every object,
    of every function's archive, of every image's layers, of every package and of every repository of code.
    Ends with 1 if something is damaged.
    """
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform")
    try:
        found = findings(directory, open_root(directory.root))
    except (SourceError, PlaceError, OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    if shape == "json":
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        table = Table(title="What the platform keeps")
        for heading in ("", "part", "read", "not openable", "damage"):
            table.add_column(heading, overflow="fold")
        for one in found:
            sign = "[red]damaged[/]" if one.damage else "[green]ok[/]"
            table.add_row(sign, one.part, str(one.read), str(one.locked or ""), "\n".join(one.damage))
        Console().print(table)
    if any(one.damage for one in found):
        sys.exit(1)
