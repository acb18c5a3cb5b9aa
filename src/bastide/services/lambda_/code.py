"""What functions and layers are made of: zip archives, looked through when they come, encrypted where they lie, unpacked
when something of them is to run.

An archive is hostile: what it says of itself is compared with what it holds, nothing is written outside of its folder, and
no link is followed. Source: Lambda Developer Guide, "Lambda quotas", "Working with .zip file archives".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import os
import posixpath
import stat
import zipfile
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import zips
from bastide.engines.artifacts import SMALL, Artifacts, Damaged
from bastide.engines.keys import RootKey, new_material
from bastide.engines.sandbox.folders import made_folder, top_of
from bastide.kernel import Authorised, Bytes, Calls
from bastide.services.lambda_.noun import PRINCIPAL, invalid
from bastide.store import Store

MOST_UNZIPPED: Final = 262_144_000
_MOST_ZIPPED: Final = 262_144_000
_MOST_ENTRIES: Final = 65_536
_CHUNK: Final = 1 << 20
_RESERVED: Final = ("environment", "bastide", "ml")
"""Below /opt, where layers lie, these are the platform's."""


@dataclass(frozen=True, slots=True)
class Code:
    """An archive that is kept. id, key: where, and what it is encrypted under, wrapped. size: of the archive; unzipped: of
    what is in it."""

    id: str
    key: str
    sha256: str
    size: int
    unzipped: int

    def kept(self) -> dict[str, Any]:
        """What a row keeps of it."""
        return {"id": self.id, "key": self.key, "unzipped": self.unzipped}


_PURPOSE: Final = b"lambda/code"


async def receive(a: Authorised, given: Mapping[str, Any], *, layer: bool = False) -> Code:
    """Takes the archive that a request brings or names, with the caller's own permissions; raises Refused."""
    if given.get("ImageUri"):
        raise invalid("Please do not provide ImageUri when the intended function PackageType is Zip.")
    if given.get("SourceKMSKeyArn"):
        raise invalid("SourceKMSKeyArn is not supported by Bastide yet.")
    if given.get("S3ObjectStorageMode") not in (None, "COPY"):
        raise invalid("S3ObjectStorageMode is COPY: code is always copied.")
    named = bool(given.get("S3Bucket") or given.get("S3Key"))
    if named and given.get("ZipFile"):
        raise invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if named:
        data = await _fetched(a, given)
    elif given.get("ZipFile"):
        data = bytes(given["ZipFile"])
    else:
        raise invalid("Please provide a source for function code.")
    unzipped = await asyncio.to_thread(look_through, data, layer=layer)
    return await keep(a.calls, data, unzipped)


async def keep(calls: Calls, data: bytes, unzipped: int) -> Code:
    """Writes an archive, encrypted."""
    key, artifacts = new_material(), calls.engine(Artifacts)
    written = await (
        artifacts.write_small(data, key) if len(data) <= SMALL else artifacts.write(Bytes(data).chunks(), key)
    )
    wrapped = base64.b64encode(calls.engine(RootKey).wrap(key, _PURPOSE)).decode()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return Code(written.id, wrapped, digest, len(data), unzipped)


async def content(calls: Calls, kept: Mapping[str, Any]) -> bytes:
    """The archive again; raises Refused if it is damaged at rest."""
    key = calls.engine(RootKey).unwrap(base64.b64decode(kept["key"]), _PURPOSE)
    try:
        return await calls.engine(Artifacts).read(kept["id"], key)
    except (Damaged, FileNotFoundError):
        raise Refused(
            "InvalidZipFileException", "The code is damaged at rest: update the function's code.", 502
        ) from None


async def drop(calls: Calls, id: str) -> None:
    """Forgets an archive."""
    await calls.engine(Artifacts).delete(id)


async def _fetched(a: Authorised, given: Mapping[str, Any]) -> bytes:
    if not (given.get("S3Bucket") and given.get("S3Key")):
        raise invalid("Please provide a source for function code: S3Bucket and S3Key belong together.")
    asked = {"Bucket": given["S3Bucket"], "Key": given["S3Key"]}
    if given.get("S3ObjectVersion"):
        asked["VersionId"] = given["S3ObjectVersion"]
    try:
        output = await a.calls.act(a.caller, "s3", "GetObject", asked, region=a.region, source=PRINCIPAL)
    except Refused as refused:
        if refused.code == "AccessDenied":
            raise Refused(
                "AccessDeniedException",
                "Your access has been denied by S3, please make sure your request credentials have permission to "
                f"GetObject for {asked['Bucket']}/{asked['Key']}. S3 Error Code: AccessDenied. S3 Error Message: "
                f"{refused.message}",
                403,
            ) from None
        raise invalid(
            f"Error occurred while GetObject. S3 Error Code: {refused.code}. S3 Error Message: {refused.message}"
        ) from None
    body, found = output["Body"], bytearray()
    try:
        if int(output.get("ContentLength") or 0) > _MOST_ZIPPED:
            raise invalid(f"The archive must be smaller than {_MOST_ZIPPED} bytes.")
        async for piece in body:
            found += piece
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    return bytes(found)


async def examine(
    store: Store, root: RootKey, artifacts: Artifacts, kinds: Sequence[str], holder: str
) -> AsyncIterator[tuple[str, str]]:
    """Reads every archive that a row of these kinds names; of each its name, and what is wrong with it."""
    with store.reading() as view:
        holders = [row.name.partition("|") for row in view.scan(holder, "", "", limit=1_000_000)]
        rows = [row for kind in kinds for a, _, r in holders for row in view.scan(kind, a, r, limit=1_000_000)]
    for row in rows:
        if not row.doc.get("_code"):
            continue  # an image, which the registry keeps
        name, kept, wrong = f"{row.kind} {row.account}/{row.region}/{row.name}", row.doc["_code"], ""
        try:
            key = root.unwrap(base64.b64decode(kept["key"]), _PURPOSE)
            digest = hashlib.sha256(await artifacts.read(kept["id"], key)).digest()
            wrong = "" if base64.b64encode(digest).decode() == row.doc["CodeSha256"] else "it is another archive"
        except FileNotFoundError:
            wrong = "its archive is gone"
        except (Damaged, ValueError) as error:
            wrong = f"its archive is damaged: {error}"
        yield name, wrong


# -- archives ------------------------------------------------------------------------------------------------------------


def look_through(data: bytes, *, layer: bool = False) -> int:
    """The bytes that an archive holds; raises Refused for one that cannot be unpacked as it is."""
    try:
        return _walk(data, None, layer=layer)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, OSError):
        raise invalid("Could not unzip uploaded file. Please check your file, then try to upload again.") from None


def unpack(data: bytes, folder: Path, *, layer: bool = False) -> None:
    """Unpacks an archive that was looked through into a folder of ours, over what is there: a link that an earlier one
    made is replaced, and never written through."""
    top = top_of(folder)
    try:
        _walk(data, top, layer=layer)
    finally:
        os.close(top)


def _walk(data: bytes, top: int | None, *, layer: bool) -> int:
    size, files, links = 0, 0, dict[str, str]()
    seen: dict[str, bool] = {}
    with zips.opened(io.BytesIO(data), _MOST_ENTRIES) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise invalid(f"The archive has more than {_MOST_ENTRIES} entries.")
        for entry in entries:
            name = _plain(entry.filename, layer)
            mode = entry.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if entry.is_dir():
                _noted(seen, name, True)
                if top is not None:
                    os.close(_folder(top, name))
                continue
            if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                raise invalid(f"The archive's entry {name[:200]} is neither a file nor a folder nor a link.")
            if entry.flag_bits & 1:
                raise invalid("Could not unzip uploaded file: it is encrypted.")
            _noted(seen, name, False)
            files += 1
            room = MOST_UNZIPPED - size
            if kind == stat.S_IFLNK:
                links[name] = _target(archive, entry, name)
                continue
            links.pop(name, None)
            with archive.open(entry) as source:
                size += _written(source, top, name, mode, room)
    if not files:
        raise invalid("Uploaded file must be a non-empty zip")
    for name in seen:
        # Nothing lies behind a link: what would be written through one is written nowhere.
        if any(part in links for part in _above(name)):
            raise invalid(f"The archive's entry {name[:200]} lies behind a link.")
    for name, target in links.items() if top is not None else ():
        assert top is not None
        above, last = _folder(top, posixpath.dirname(name)), posixpath.basename(name)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=above)
            os.symlink(target, last, dir_fd=above)
        finally:
            os.close(above)
    return size


def _plain(given: str, layer: bool) -> str:
    """An entry's path, relative; raises Refused for one that leads elsewhere."""
    parts = given.rstrip("/").split("/")
    if (
        given.startswith("/")
        or "\\" in given
        or any(
            part in ("", ".", "..") or len(os.fsencode(part)) > 255 or any(ord(char) < 32 for char in part)
            for part in parts
        )
    ):
        raise invalid(f"The archive's entry {given[:200]!r} has no path below the archive's folder.")
    if layer and parts[0] in _RESERVED:
        raise invalid(f"/opt/{parts[0]} is the platform's: name the layer's folder otherwise.")
    return "/".join(parts)


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _noted(seen: dict[str, bool], name: str, folder: bool) -> None:
    """Raises Refused for what is both a file and a folder."""
    for one in _above(name):
        if not seen.setdefault(one, True):
            raise invalid(f"The archive's entry {one[:200]} is a file and a folder.")
    if seen.setdefault(name, folder) != folder:
        raise invalid(f"The archive's entry {name[:200]} is a file and a folder.")


def _target(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> str:
    if entry.file_size > 4096:
        raise invalid(f"The archive's link {name[:200]} is too long.")
    with archive.open(entry) as source:
        target = os.fsdecode(source.read(4097))
    led = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if not target or "\0" in target or target.startswith("/") or led.split("/")[0] == "..":
        raise invalid(f"The archive's link {name[:200]} leads out of the archive.")
    return target


def _folder(top: int, name: str) -> int:
    """A descriptor of a folder, made if it is not there, that everybody may read."""
    return made_folder(top, name, replacing=True, mode=0o755)


def _written(source: Any, top: int | None, name: str, mode: int, room: int) -> int:
    """Reads an entry, into its file if there is a folder; bytes, bounded."""
    size, handle = 0, -1
    if top is not None:
        above, last = _folder(top, posixpath.dirname(name)), posixpath.basename(name)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=above)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(last, flags, 0o600, dir_fd=above)
        finally:
            os.close(above)
    try:
        while piece := source.read(_CHUNK):
            size += len(piece)
            if size > room:
                raise invalid(f"Unzipped size must be smaller than {MOST_UNZIPPED} bytes")
            if handle >= 0:
                os.write(handle, piece)
        if handle >= 0:
            os.fchmod(handle, 0o755 if mode & 0o111 else 0o644)
    finally:
        if handle >= 0:
            os.close(handle)
    return size
