"""A scan: the layers of an image are read, unsealed only in memory, and its packages held against the advisories.

What waits is a row, so a process that ends in the middle begins it again. What an image consists of never changes, so it is
read once; when the advisories change, its packages are held against them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.advisories import Advisories
from bastide.engines.artifacts import Damaged
from bastide.engines.images.inventory import Inventory, Package, System
from bastide.engines.images.layers import Unfit
from bastide.kernel import Calls
from bastide.services.ecr import scanning, sealing
from bastide.services.ecr.layer import layer
from bastide.services.ecr.repository import DUE, IMAGE, REPOSITORY, SCAN, holders, rows_of, unlisted
from bastide.store import Row, Transaction

_log = logging.getLogger("bastide.ecr")
_MOST_FINDINGS: Final = 5000
_SEVERITIES: Final = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNDEFINED", "INFORMATIONAL")


class _Pulled(io.RawIOBase):
    """A stream of the loop's as a file that a thread reads."""

    def __init__(self, stream: AsyncGenerator[bytes, None]) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._held:

            async def more() -> bytes:
                return await anext(self._stream, b"")

            self._held = memoryview(asyncio.run_coroutine_threadsafe(more(), self._loop).result())
        size = min(len(into), len(self._held))
        into[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


async def _look(calls: Calls, repository: Row, image: Row) -> dict[str, Any]:
    """What an image consists of, as a scan's row keeps it; raises Unfit, Refused, Damaged, OSError."""
    told = orjson.loads(image.doc["manifest"])
    inventory = Inventory()
    for one in told["layers"]:
        with calls.store.reading() as view:
            row = layer(view, repository, one["digest"])
        if row is None:
            raise Unfit("a layer is gone")
        key = await sealing.open_key(calls, repository, row.doc["key"])
        stream = sealing.content(calls, row.doc["parts"], key)
        source = io.BufferedReader(_Pulled(stream), 1 << 18)  # type: ignore[arg-type]
        try:
            await asyncio.to_thread(inventory.put, source, str(one.get("mediaType") or ""), row.doc["size"])
        finally:
            with contextlib.suppress(RuntimeError):  # the thread is in it: it reads to the end of what is left
                await stream.aclose()  # type: ignore[attr-defined]
    packages = await asyncio.to_thread(inventory.packages)
    system = inventory.system
    if not packages:
        raise Unfit("")
    return {
        "packages": [[one.kind, one.name, one.version, one.source, one.source_version, one.path] for one in packages],
        "system": system.name or f"{system.id} {system.version}".strip(),
        "distribution": [system.id, system.version],
    }


def ecosystems(kind: str, system: System) -> list[str]:
    """What the OSV format calls the distribution that a package is of."""
    major, minor = [*system.version.split("."), ""][:2]
    found = {
        "debian": [f"Debian:{major}"],
        "ubuntu": [f"Ubuntu:{system.version}:LTS", f"Ubuntu:{system.version}"],
        "alpine": [f"Alpine:v{major}.{minor}"],
        "wolfi": ["Wolfi"],
        "chainguard": ["Chainguard"],
    }.get(system.id, [])
    return ["PyPI"] if kind == "pypi" else found


def judged(advisories: Advisories, doc: dict[str, Any], now: int) -> list[dict[str, Any]]:
    """What is known of the packages of an image, the worst first. Blocks."""
    seen = {(one["name"], one["package"]): one["seen"] for one in doc.get("findings") or ()}
    system = System(*doc["distribution"])
    found = []
    for kind in ("deb", "apk", "pypi"):
        packages = [Package(*one) for one in doc["packages"] if one[0] == kind]
        known = ecosystems(kind, system)
        if not packages or not known:
            continue
        asked = [(one.source, one.source_version) for one in packages]
        for package, findings in zip(packages, advisories.affecting(kind, known, asked), strict=True):
            for one in findings:
                found.append(
                    {
                        "kind": kind,
                        "package": package.name,
                        "version": package.version,
                        "path": package.path,
                        "name": one.name,
                        "id": one.id,
                        "severity": one.severity,
                        "score": one.score,
                        "vector": one.vector,
                        "summary": one.summary[:500],
                        "uri": one.uri,
                        "fixed": one.fixed,
                        "published": one.published,
                        "modified": one.modified,
                        "references": list(one.references[:5]),
                        "seen": seen.get((one.name, package.name), now),
                    }
                )
    found.sort(key=lambda one: (_SEVERITIES.index(one["severity"]), -one["score"], one["name"], one["package"]))
    return found[:_MOST_FINDINGS]


class Scanner:
    """Scans what waits, one image at a time, and follows the advisories where a registry wants it."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._followed: str | None = None

    async def round(self) -> None:
        """Everything that waits now."""
        while True:
            with self._calls.store.reading() as view:
                waiting = [row.name for row in view.scan(DUE, "", "", limit=50)]
            for name in waiting:
                await self._scan(name)
            if not waiting:
                break
        version = self._calls.engine(Advisories).version()
        if self._followed is None or version != self._followed:
            await self._follow(version)
            self._followed = version

    async def _scan(self, name: str) -> None:
        account, region, key = name.split("|", 2)
        calls, (repository_name, _, _) = self._calls, key.rpartition("@")
        with calls.store.reading() as view:
            repository = REPOSITORY.get(view, account, region, repository_name)
            image = IMAGE.get(view, account, region, key)
            scan = SCAN.get(view, account, region, key)
        found: dict[str, Any] = {}
        if repository is not None and image is not None and scan is not None:
            advisories = calls.engine(Advisories)
            version = advisories.version()
            try:
                if not scan.doc.get("packages"):
                    found |= await _look(calls, repository, image)
                now = calls.clock()
                doc = {**scan.doc, **found}
                found["findings"] = await asyncio.to_thread(judged, advisories, doc, now)
                found |= {
                    "state": "COMPLETE", "why": "", "completed": now, "updated": advisories.updated(),
                    "advisories": version,
                }  # fmt: skip
            except Unfit as unfit:
                state = "FAILED" if str(unfit) else "UNSUPPORTED_IMAGE"
                found = {"state": state, "why": f"The image could not be read: {unfit}" if str(unfit) else ""}
            except Refused as refused:
                found = {"state": "FAILED", "why": f"A layer could not be opened: {refused.message}"[:500]}
            except (Damaged, OSError):
                _log.exception("an image of %s could not be scanned", repository.name)
                found = {"state": "FAILED", "why": "A layer could not be read."}
            except Exception:
                _log.exception("an image of %s could not be scanned", repository.name)
                found = {"state": "FAILED", "why": "The scan failed."}

        def work(tx: Transaction) -> None:
            unlisted(tx, DUE, name)
            row, held = SCAN.get(tx, account, region, key), IMAGE.get(tx, account, region, key)
            if row is None or held is None or repository is None or not found:
                return
            row.doc |= found
            SCAN.change(tx, row, "ScanEnded")
            scanning.told(tx, repository, held, row)

        await calls.store.write(work)

    # -- following the advisories --------------------------------------------------------------------------------------

    async def _follow(self, version: str) -> None:
        with self._calls.store.reading() as view:
            repositories = [
                row
                for account, region in holders(view)
                if scanning.enhanced(view, account, region)
                for row in view.scan(REPOSITORY.key, account, region, limit=100_000)
                if scanning.frequency(view, row)[0] == "CONTINUOUS_SCAN"
            ]
        for repository in repositories:
            with self._calls.store.reading() as view:
                names = [row.name for row in rows_of(view, SCAN, repository) if row.doc.get("packages")]
            for name in names:
                await self._again(repository, name, version)

    async def _again(self, repository: Row, name: str, version: str) -> None:
        advisories, where = self._calls.engine(Advisories), (repository.account, repository.region, name)
        with self._calls.store.reading() as view:
            scan = SCAN.get(view, *where)
        if scan is None or scan.doc.get("advisories") == version:
            return
        now = self._calls.clock()
        findings = await asyncio.to_thread(judged, advisories, scan.doc, now)

        def work(tx: Transaction) -> None:
            row, image = SCAN.get(tx, *where), IMAGE.get(tx, *where)
            if row is None or image is None:
                return
            changed = _known(row.doc["findings"]) != _known(findings)
            row.doc |= {
                "findings": findings, "completed": now, "updated": advisories.updated(), "advisories": version,
            }  # fmt: skip
            SCAN.change(tx, row, "ScanFollowed")
            if changed:
                scanning.told(tx, repository, image, row)

        await self._calls.store.write(work)


def _known(findings: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {(one["name"], one["package"], one["version"], one["severity"], one["fixed"]) for one in findings}
