"""`bastide backup` and `bastide restore`: a whole platform at one point in time, in one sealed file.

A backup is a tar archive in frames, each AES-256-GCM under a key derived from the root key: without the root key, which it
does not hold, it is noise. It is taken while the platform serves. The database's snapshot is the point in time; the
files that it names cannot go away meanwhile (`engines.artifacts.deletions_held`), and the journal's segments are taken
before and after it, so that no entry that was moved in between is missed (an entry's id keeps it from being there twice).

Objects are in the archive wherever they lie, as they lie: sealed. A restore may put them elsewhere, below the data
directory or into another place of a store; never into the place of the platform that was backed up: that may still live.

Beside each archive lies a small file with the same name and ``.safe``: the shards of customers' keys, without which the
archive gives no data under them, and the keyring that the root key opens. A restore takes any archive with the newest
safe: what was destroyed since is in no archive any more. Older safes are for the owner to destroy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import re
import shutil
import struct
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import apsw
import click
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

import bastide
from bastide.commands import DATA_OPTION
from bastide.engines.artifacts import Copies, Place, PlaceError, Unavailable, deletions_held
from bastide.engines.keys import RootKey, Safe, SourceError, open_ring, open_root, ring_of
from bastide.main import tracks
from bastide.main.objects import leave_place, open_copies, owner_of, set_owner, take_place
from bastide.main.options import OBJECTS_OPTION
from bastide.services import codeartifact, codecommit, ecr, lambda_, s3
from bastide.store import SqliteStore, database
from bastide.store.directory import Configuration, DataDirectory, write_private
from bastide.store.schema import MIGRATIONS

_MAGIC: Final = b"BASTIDE-BACKUP-1"
_FRAME: Final = 1024 * 1024
_HEAD: Final = struct.Struct(">16s16s8s")
_SIZE: Final = struct.Struct(">I?")
_NAME: Final = re.compile(
    r"manifest\.json|bastide\.(json|db)|administrator\.json|tls/[a-z]+\.(pem|key)|journal/[0-9]+\.journal"
    r"|objects/[0-9a-f]{2}/[0-9a-f]{32}|tracking/[0-9a-f]{32}|identity-provider\.json|development-(people\.json|identity-provider\.key)"
)
"""What may lie in a backup: nothing that a restore writes elsewhere."""


class Unreadable(Exception):  # noqa: N818
    """The file is no backup, was changed or cut short, or is of another root key."""


# -- the sealed file ---------------------------------------------------------------------------------------------------


def _fingerprint(root: RootKey) -> bytes:
    """Tells which root key a backup needs, and nothing else of it."""
    return root.derive("backup/fingerprint")[:8]


def _aad(number: int, last: bool) -> bytes:
    return struct.pack(">Q?", number, last)


class _Sealing(io.RawIOBase):
    """Writes frames; the last one says that it is the last, so that a file cut short is no backup."""

    def __init__(self, file: BinaryIO, root: RootKey) -> None:
        salt = os.urandom(16)
        self._file = file
        self._cipher = AESGCM(root.derive("backup/" + salt.hex()))
        self._held = bytearray()
        self._number = 0
        file.write(_HEAD.pack(_MAGIC, salt, _fingerprint(root)))

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        while len(self._held) > _FRAME:
            self._frame(bytes(self._held[:_FRAME]), False)
            del self._held[:_FRAME]
        return len(data)

    def _frame(self, plain: bytes, last: bool) -> None:
        sealed = self._cipher.encrypt(struct.pack(">IQ", 0, self._number), plain, _aad(self._number, last))
        self._file.write(_SIZE.pack(len(sealed), last) + sealed)
        self._number += 1

    def finish(self) -> None:
        """Writes what is left."""
        self._frame(bytes(self._held), True)


class _Opening(io.RawIOBase):
    """Reads frames; raises Unreadable."""

    def __init__(self, file: BinaryIO, root: RootKey) -> None:
        head = file.read(_HEAD.size)
        if len(head) != _HEAD.size or not head.startswith(_MAGIC):
            raise Unreadable("this file is no backup of Bastide")
        _, salt, fingerprint = _HEAD.unpack(head)
        if fingerprint != _fingerprint(root):
            raise Unreadable("this backup was made under another root key")
        self._file = file
        self._cipher = AESGCM(root.derive("backup/" + salt.hex()))
        self._held = b""
        self._number = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held and not self._ended:
            self._held = self._frame()
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _frame(self) -> bytes:
        size = self._file.read(_SIZE.size)
        if len(size) != _SIZE.size:
            raise Unreadable("the backup is cut short")
        length, last = _SIZE.unpack(size)
        sealed = self._file.read(length) if length <= _FRAME + 16 else b""
        try:
            plain = self._cipher.decrypt(struct.pack(">IQ", 0, self._number), sealed, _aad(self._number, last))
        except (InvalidTag, ValueError):
            raise Unreadable("the backup is damaged or cut short") from None
        self._number += 1
        self._ended = last
        if last and self._file.read(1):
            raise Unreadable("something follows the end of the backup")
        return plain


# -- taking ------------------------------------------------------------------------------------------------------------


def _named(copy: Path) -> tuple[set[str], str]:
    """The objects that a snapshot names, without those that it keeps inside itself, and the word of their place."""
    store = SqliteStore(copy)
    try:
        with store.reading() as view:
            named = (
                s3.files(view)
                | ecr.files(view)
                | lambda_.files(view)
                | codeartifact.files(view)
                | codecommit.files(view)
            )
            return {id.hex() for id in named if view.blob(id.hex()) is None}, owner_of(view)
    finally:
        store.close()


def _segments(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.journal")):
        try:
            found[path.name] = path.read_bytes()
        except FileNotFoundError:
            continue  # moved into the database meanwhile
    return found


def take(
    directory: DataDirectory,
    root: RootKey,
    target: BinaryIO,
    told: Callable[[int, int], None] = lambda done, whole: None,
) -> dict[str, Any]:
    """Writes a backup of the platform in `directory`; returns its manifest. root: the platform's key. told: bytes
    of objects done, and in all. What MLflow's servers hold is as of a moment a little later, each as of one.

    Raises FileNotFoundError when an object that the database names is missing, and apsw.Error when a page of the database
    is not what was written: the platform itself is damaged then; Unkept when runs cannot be read; PlaceError and OSError
    when the store of its objects does not serve.
    """
    sealing = _Sealing(target, root)
    with (
        deletions_held(directory.objects),  # no other backup runs now
        _cleared(directory.root),
        tempfile.TemporaryDirectory(prefix=".backup-", dir=directory.root) as folder,
        tarfile.open(fileobj=sealing, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        before = _segments(directory.journal)
        copy = Path(folder) / "bastide.db"
        database.copy(directory.database, copy)
        taken = time.time()
        after = _segments(directory.journal)
        named, owner = _named(copy)
        ids = sorted(named)
        copies = open_copies(directory, directory.load(), owner)
        found = copies.sizes()
        if missing := named - found.keys():
            raise FileNotFoundError(errno.ENOENT, "the object is missing", min(missing))
        sizes = [found[id] for id in ids]
        manifest = {
            "version": bastide.__version__,
            "schema": len(MIGRATIONS),
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(taken)),
            "account": directory.load().account,
            "objects": len(ids),
            "bytes": (whole := sum(sizes)),
        }
        _add(archive, "manifest.json", json.dumps(manifest, indent=2).encode())
        archive.add(copy, "bastide.db", filter=_bare)
        for number, content in enumerate((*before.values(), *after.values()), 1):
            _add(archive, f"journal/{number}.journal", content)
        people = (directory.identity_provider, directory.development_people, directory.development_key)
        for path in (directory.administrator, *people, *sorted(directory.tls.iterdir())):
            if path.is_file():
                archive.add(path, str(path.relative_to(directory.root)), filter=_bare)
        done = 0
        for id, size in zip(ids, sizes, strict=True):
            member = _bare(tarfile.TarInfo(f"objects/{id[:2]}/{id}"))
            member.size = size
            with copies.reading(id) as file:
                archive.addfile(member, file)
            done += size
            told(done, whole)
        for id, content in tracks.read(directory, copy, root, Path(folder) / "volumes"):
            _add(archive, f"tracking/{id}", content)
        archive.add(directory.configuration, "bastide.json", filter=_bare)
    sealing.finish()
    return manifest


def safe_of(directory: DataDirectory, root: RootKey) -> bytes:
    """What a restore needs beside an archive and the root key."""
    held = {"keyring": ring_of(directory.root).decode(), "shards": Safe(directory.safe, root).sealed().decode()}
    return json.dumps(held).encode()


@contextlib.contextmanager
def _cleared(folder: Path) -> Iterator[None]:
    """Without the snapshot that a killed backup may have left."""
    for left in folder.glob(".backup-*"):
        tracks.unmount(left / "volumes")
        shutil.rmtree(left)
    yield


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = _bare(tarfile.TarInfo(name))
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


# -- bringing back -----------------------------------------------------------------------------------------------------


def bring_back(
    source: BinaryIO, safe: bytes, key: Path | None, directory: DataDirectory, objects: str = "", owner: str = ""
) -> dict[str, Any]:
    """Makes the platform of a backup in an empty directory; returns the manifest. safe: what `safe_of` gave, then or later.
    key: the root key's file, if it is in one. objects, owner: where its objects shall lie, and the word by which that
    place was taken for it.

    The configuration comes last, so that what was interrupted is not taken for a platform. Raises Unreadable,
    SourceError, PermissionError or ValueError for the root key, RuntimeError for a backup of a newer program, PlaceError
    and OSError for the store of objects.
    """
    try:
        held = json.loads(safe)
        ring, shards = str(held["keyring"]).encode(), str(held["shards"]).encode()
    except (ValueError, KeyError, TypeError):
        raise Unreadable("the file of the safe is none") from None
    try:
        root = open_ring(ring, key)
    except SourceError as error:
        raise Unreadable(str(error)) from None
    manifest: dict[str, Any] = {}
    copies = open_copies(directory, Configuration("", objects=objects), owner)
    with tarfile.open(fileobj=io.BufferedReader(_Opening(source, root), _FRAME), mode="r|") as archive:
        for member, file in _members(archive):
            if member.name == "manifest.json":
                manifest = json.load(file)
                if manifest["schema"] > len(MIGRATIONS):
                    raise RuntimeError(
                        f"this backup is of Bastide {manifest['version']}: use that program or a newer one"
                    )
                continue
            if member.name.startswith("objects/"):
                copies.bring(member.name[-32:], file, member.size)
                continue
            path = directory.root / member.name
            if member.name.startswith("tracking/"):
                with tempfile.TemporaryDirectory(prefix=".restore-", dir=directory.root) as folder:
                    tracks.lay(directory, root, member.name[-32:], file, Path(folder) / "volumes")
                continue
            if path == directory.configuration:
                _complete(directory, copies)
                _settle(directory.database, owner)
                Safe(directory.safe, root).fill(shards)
                if ring:
                    write_private(directory.root / "root.json", ring)
                if key is not None:
                    write_private(directory.root_key, key.read_bytes())
                told = {**json.load(file), "objects": objects}
                write_private(path, json.dumps(told, indent=2).encode())
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, file)
    if not directory.configuration.exists():
        raise Unreadable("the backup ends before its configuration")
    os.sync()
    return manifest


def _members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    for member in archive:
        file = archive.extractfile(member) if member.isreg() else None
        if file is None or _NAME.fullmatch(member.name) is None:
            raise Unreadable(f"the backup holds `{member.name}`, which belongs to no platform")
        yield member, file  # type: ignore[misc]  # what extractfile gives reads bytes


def _write(path: Path, file: BinaryIO) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(file, target, _FRAME)
        target.flush()
        os.fsync(target.fileno())


def _settle(path: Path, owner: str) -> None:
    """Has the database know its new place."""
    store = SqliteStore(path)
    try:
        asyncio.run(store.write(lambda tx: set_owner(tx, owner)))
    finally:
        store.close()


def _complete(directory: DataDirectory, copies: Copies) -> None:
    """Raises Unreadable unless the database is sound and every object that it names is there."""
    told = database.damage(directory.database)
    missing = _named(directory.database)[0] - copies.sizes().keys()
    if told or missing:
        raise Unreadable("; ".join(["the backup is not whole", *told, f"{len(missing)} objects are missing"]))


# -- commands ----------------------------------------------------------------------------------------------------------


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal,
    )


@click.command()
@DATA_OPTION
@click.argument("target", type=click.Path(path_type=Path))
def backup(data: Path, target: Path) -> None:
    """Write a backup of the whole platform to the file TARGET, while it serves, and its safe to TARGET.safe.

    The file holds accounts, policies, keys, objects and the record as of one moment, sealed under the root key. It does
    not hold the root key (DATA/root.key): keep that elsewhere. Without it the backup is useless, to you as to others.

    The safe holds what customers' keys need beside the root key. Any backup is restored with the newest safe: keep that
    one and destroy the older ones, so that a key that was destroyed since can be had from no backup.
    """
    directory = DataDirectory(data)
    if not directory.configuration.exists():
        raise click.ClickException(f"{data} holds no platform")
    if target.exists():
        raise click.ClickException(f"{target} exists already; a backup replaces nothing")
    try:
        root = open_root(directory.root)
    except (SourceError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    beside = target.with_name(f"{target.name}.safe")
    draft = target.with_name(f".{target.name}.partial")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file, _progress() as shown:
            task = shown.add_task("backup", total=None)
            manifest = take(directory, root, file, lambda done, whole: shown.update(task, completed=done, total=whole))
            file.flush()
            os.fsync(file.fileno())
        # After the archive: a key that came to be meanwhile is in neither or in both, one that was destroyed in neither.
        write_private(beside, safe_of(directory, root))
        draft.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except FileNotFoundError as error:
        raise click.ClickException(f"the platform is damaged: {error.filename} is missing") from None
    except (apsw.Error, database.Damaged) as error:
        raise click.ClickException(f"the platform is damaged, see `bastide verify`: {error}") from None
    except (PlaceError, Unavailable, tracks.Unkept) as error:
        raise click.ClickException(str(error)) from None
    finally:
        draft.unlink(missing_ok=True)
    click.echo(
        f"{target}: the platform as of {manifest['taken']}, {manifest['objects']} files, {target.stat().st_size} bytes"
    )
    click.echo(f"{beside}: the safe, which a restore of this backup and of older ones needs; destroy older safes.")
    click.echo("The root key is in neither. Keep a copy of it apart from the backup.")


@click.command()
@DATA_OPTION
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--root-key",
    "key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The root key's file of the platform that was backed up (mode 0600), if its root key is in a file.",
)
@click.option(
    "--safe", "safe", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The newest safe of the platform; SOURCE.safe if left out.",
)  # fmt: skip
@OBJECTS_OPTION
def restore(data: Path, source: Path, key: Path | None, safe: Path | None, objects: str) -> None:
    """Bring the platform of the backup SOURCE back, into a data directory that is empty or not there yet.

    Its objects come to lie where --object-store says, wherever they lay before; below DATA if left out.
    """
    safe = safe or source.with_name(f"{source.name}.safe")
    if not safe.is_file():
        raise click.ClickException(f"there is no {safe}: a restore needs the platform's safe (--safe)")
    directory = DataDirectory(data)
    if data.exists() and any(data.iterdir()):
        raise click.ClickException(f"{data} is not empty; a restore replaces nothing")
    os.umask(0o077)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        owner = take_place(objects)
    except PlaceError as error:
        raise click.ClickException(str(error)) from None
    try:
        with source.open("rb") as file:
            manifest = bring_back(file, safe.read_bytes(), key, directory, objects, owner)
    except (
        Unreadable, tracks.Unkept, PlaceError, Unavailable, PermissionError, ValueError, RuntimeError, tarfile.TarError,
    ) as error:  # fmt: skip
        _clear(data.iterdir())
        with contextlib.suppress(PlaceError, OSError):
            leave_place(objects)
        raise click.ClickException(str(error)) from None
    where = f", objects in {Place.parse(objects)}" if objects else ""
    click.echo(f"{data}: the platform as of {manifest['taken']}, {manifest['objects']} files{where}")
    click.echo(f"Start it with: bastide up --data {data}")


def _clear(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
