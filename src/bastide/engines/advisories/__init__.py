"""Known vulnerabilities of packages, as the operator loads them: advisories in the OSV format, kept in one file that is
replaced whole. Nothing is asked of anybody outside.

Source: Open Source Vulnerability format 1.6, with its algorithm for whether a version is affected; CVSS 3.1 specification,
"Base metrics equations".
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_MOST_FILE: Final = 8 << 20
_MOST_FILES: Final = 2_000_000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,100}")
_CVE: Final = re.compile(r"CVE-\d{4}-\d{4,12}")
_LEVELS: Final = {
    "CRITICAL": "CRITICAL", "HIGH": "HIGH", "MODERATE": "MEDIUM", "MEDIUM": "MEDIUM", "LOW": "LOW",
    "NEGLIGIBLE": "INFORMATIONAL", "UNIMPORTANT": "INFORMATIONAL", "NONE": "INFORMATIONAL",
}  # fmt: skip


def scheme(kind: str) -> Callable[[str], Any]:
    """What makes versions of a kind of packages (deb, apk or pypi) comparable; it raises for what is none."""
    from univers.versions import AlpineLinuxVersion, DebianVersion, PypiVersion  # noqa: PLC0415 - only scans need it

    found: Callable[[str], Any] = {"deb": DebianVersion, "apk": AlpineLinuxVersion, "pypi": PypiVersion}[kind]
    return found


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability that a version has. name: the CVE if it has one. severity: AWS's word. fixed: the version that is
    not affected any more, empty where there is none."""

    name: str
    id: str
    severity: str
    score: float
    vector: str
    summary: str
    uri: str
    fixed: str
    published: str
    modified: str
    references: tuple[str, ...] = field(default=())


class Advisories:
    """path: of the file, which is there once something was loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> str:
        """Names what is known now, empty if nothing is; another one after every load that changed something."""
        try:
            told = self._path.stat()
        except FileNotFoundError:
            return ""
        return f"{told.st_ino}-{told.st_mtime_ns}"

    def updated(self) -> int:
        """When something was loaded last, in microseconds; 0 if nothing was."""
        try:
            return self._path.stat().st_mtime_ns // 1000
        except FileNotFoundError:
            return 0

    def affecting(
        self, kind: str, ecosystems: Sequence[str], packages: Sequence[tuple[str, str]]
    ) -> list[list[Finding]]:
        """What is known of each of some packages: names as advisories have them, and versions. kind: deb, apk or pypi.
        Blocks."""
        if not self._path.exists():
            return [[] for _ in packages]
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro&immutable=1", uri=True)) as db:
            return [self._of(db, kind, ecosystems, name, version) for name, version in packages]

    def _of(
        self, db: sqlite3.Connection, kind: str, ecosystems: Sequence[str], name: str, version: str
    ) -> list[Finding]:
        found: dict[str, Finding] = {}
        rows = db.execute(
            "SELECT a.body FROM affects f JOIN advisory a ON a.id = f.id "
            "WHERE f.name = ? AND f.ecosystem IN (SELECT value FROM json_each(?))",
            (name, json.dumps(list(ecosystems))),
        )
        for (body,) in rows:
            one = json.loads(body)
            for affected in one["affected"]:
                if affected["name"] != name or affected["ecosystem"] not in ecosystems:
                    continue
                fixed = affecting(scheme(kind), affected, version)
                if fixed is not None:
                    finding = _finding(one, affected, fixed)
                    found.setdefault(finding.name, finding)
        return sorted(found.values(), key=lambda one: one.name)

    # -- loading -------------------------------------------------------------------------------------------------------

    def load(self, source: Path) -> tuple[int, list[str]]:
        """Takes advisories over: files of one each, and archives of such files. How many, and what was passed over.

        What was there stays, a newer version of it replaces it, and one that was withdrawn goes. Blocks.
        """
        passed: list[str] = []
        count = 0
        with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
            new = Path(file.name)
        try:
            if self._path.exists():
                shutil.copyfile(self._path, new)
            with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
                db.executescript(
                    "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                    "CREATE TABLE IF NOT EXISTS advisory (id TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;"
                    "CREATE TABLE IF NOT EXISTS affects (name TEXT, ecosystem TEXT, id TEXT,"
                    " PRIMARY KEY (name, ecosystem, id)) WITHOUT ROWID; BEGIN"
                )
                for where, raw in _documents(source, passed):
                    try:
                        count += _put(db, json.loads(raw))
                    except (ValueError, KeyError, TypeError, AttributeError):
                        passed.append(f"{where}: not an advisory in the OSV format")
                db.execute("COMMIT")
            with new.open("rb+") as written:
                os.fsync(written.fileno())
            if count:
                new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)
        return count, passed


def _documents(source: Path, passed: list[str]) -> Iterator[tuple[str, bytes]]:
    paths = sorted(one for one in source.rglob("*") if one.is_file()) if source.is_dir() else [source]
    count = 0
    for path in paths:
        if path.suffix == ".json":
            if path.stat().st_size > _MOST_FILE:
                passed.append(f"{path.name}: larger than any advisory")
                continue
            yield path.name, path.read_bytes()
        elif path.suffix == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    for entry in archive.infolist():
                        count += 1
                        if count > _MOST_FILES or entry.file_size > _MOST_FILE:
                            passed.append(f"{path.name}: {entry.filename[:100]}: larger than any advisory")
                        elif entry.filename.endswith(".json"):
                            yield entry.filename, archive.read(entry)
            except zipfile.BadZipFile:
                passed.append(f"{path.name}: not an archive")


def _put(db: sqlite3.Connection, told: dict[str, Any]) -> int:
    id = str(told["id"])
    if not _ID.fullmatch(id):
        raise ValueError("not an id")
    held = db.execute("SELECT body FROM advisory WHERE id = ?", (id,)).fetchone()
    modified = str(told.get("modified") or "")
    if held is not None and json.loads(held[0])["modified"] > modified:
        return 0
    db.execute("DELETE FROM affects WHERE id = ?", (id,))
    db.execute("DELETE FROM advisory WHERE id = ?", (id,))
    if told.get("withdrawn"):
        return 1
    affected = []
    for one in told.get("affected") or ():
        package = one.get("package") or {}
        name, ecosystem = str(package.get("name") or ""), str(package.get("ecosystem") or "")
        if ecosystem == "PyPI":
            name = re.sub(r"[-_.]+", "-", name).lower()
        ranges = [
            [{str(key): str(value)[:200] for key, value in event.items()} for event in range["events"]]
            for range in one.get("ranges") or ()
            if range.get("type") in ("ECOSYSTEM", "SEMVER")
        ]
        versions = [str(version)[:200] for version in one.get("versions") or ()]
        urgency = str((one.get("ecosystem_specific") or {}).get("urgency") or "")[:50]
        severity = _severities(one)
        affected.append(
            {
                "name": name,
                "ecosystem": ecosystem,
                "ranges": ranges,
                "versions": versions,
                "urgency": urgency,
                **severity,
            }
        )
    names = [id.removeprefix("DEBIAN-"), *map(str, told.get("aliases") or ()), *map(str, told.get("upstream") or ())]
    known = [one for one in names if _CVE.fullmatch(one)]
    body = {
        "id": id,
        "name": known[0] if known else id,
        "modified": modified,
        "published": str(told.get("published") or ""),
        "summary": str(told.get("summary") or told.get("details") or "")[:1000],
        "level": str((told.get("database_specific") or {}).get("severity") or "")[:50],
        "references": [str(one.get("url") or "")[:500] for one in (told.get("references") or ())[:20]],
        **_severities(told),
        "affected": affected,
    }
    db.execute("INSERT INTO advisory VALUES (?, ?)", (id, json.dumps(body)))
    pairs = {(one["name"], one["ecosystem"], id) for one in affected}
    db.executemany("INSERT INTO affects VALUES (?, ?, ?)", sorted(pairs))
    return 1


def _severities(told: Mapping[str, Any]) -> dict[str, str]:
    found = {str(one.get("type")): str(one.get("score"))[:200] for one in told.get("severity") or ()}
    return {"vector": found.get("CVSS_V3", ""), "word": found.get("Ubuntu", "")}


# -- whether a version is affected -----------------------------------------------------------------------------------------


def affecting(read: Callable[[str], Any], affected: Mapping[str, Any], version: str) -> str | None:
    """The version that fixes it, empty if none does; None if the version is not affected, or is none."""
    try:
        here = read(version)
    except Exception:  # whatever a library makes of a hostile version
        return None
    hit, fixes = version in affected["versions"], []
    for events in affected["ranges"]:
        inside = False
        for kind, at in _sorted(read, events):
            before = at is None or not here < at  # of Alpine's versions only < is the library's own
            if kind == "introduced" and before:
                inside = True
            elif kind == "fixed":
                if before:
                    inside = False
                else:
                    fixes.append(at)
            elif kind == "last_affected" and at is not None and at < here:
                inside = False
        hit = hit or inside
    if not hit:
        return None
    return str(min(fixes).string) if fixes else ""


def _sorted(read: Callable[[str], Any], events: Sequence[Mapping[str, str]]) -> list[tuple[str, Any]]:
    """Events in order of their versions; None is before all others."""
    found: list[tuple[str, Any]] = []
    for event in events:
        for kind, text in event.items():
            if kind not in ("introduced", "fixed", "last_affected"):
                continue
            try:
                found.append((kind, None if text == "0" else read(text)))
            except Exception:  # noqa: S112 - a version that cannot be read bounds nothing
                continue
    first = [one for one in found if one[1] is None]
    rest = [one for one in found if one[1] is not None]
    rest.sort(key=lambda one: one[1])
    return first + rest


def _finding(one: Mapping[str, Any], affected: Mapping[str, Any], fixed: str) -> Finding:
    vector = affected["vector"] or one["vector"]
    score = base_score(vector)
    word = affected["word"] or one["word"] or affected["urgency"].rstrip("*") or one["level"]
    severity = level(score) if score >= 0 else _LEVELS.get(word.upper(), "UNDEFINED")
    uri = f"https://osv.dev/vulnerability/{one['id']}"
    return Finding(
        one["name"], one["id"], severity, max(score, 0.0), vector if score >= 0 else "", one["summary"], uri, fixed,
        one["published"], one["modified"], tuple(url for url in one["references"] if url.startswith("https://")),
    )  # fmt: skip


def level(score: float) -> str:
    """A base score's severity (CVSS 3.1, "Qualitative severity rating scale")."""
    for least, word in ((9.0, "CRITICAL"), (7.0, "HIGH"), (4.0, "MEDIUM"), (0.1, "LOW")):
        if score >= least:
            return word
    return "INFORMATIONAL"


_WEIGHTS: Final = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2}, "AC": {"L": 0.77, "H": 0.44}, "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0}, "I": {"H": 0.56, "L": 0.22, "N": 0.0}, "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}  # fmt: skip
_PRIVILEGES: Final = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def base_score(vector: str) -> float:
    """The base score of a CVSS 3 vector; -1 for what is none."""
    if not vector.startswith(("CVSS:3.0/", "CVSS:3.1/")):
        return -1
    told = dict(part.partition(":")[::2] for part in vector.split("/")[1:])
    try:
        scope = told["S"]
        weight = {metric: values[told[metric]] for metric, values in _WEIGHTS.items()}
        privileges = _PRIVILEGES[scope][told["PR"]]
    except KeyError:
        return -1
    sub = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 6.42 * sub if scope == "U" else 7.52 * (sub - 0.029) - 3.25 * (sub - 0.02) ** 15
    if impact <= 0:
        return 0.0
    exploitability = 8.22 * weight["AV"] * weight["AC"] * privileges * weight["UI"]
    total = impact + exploitability if scope == "U" else 1.08 * (impact + exploitability)
    return _up(min(total, 10))


def _up(value: float) -> float:
    """To one digit, upwards, as the specification's appendix A has it."""
    whole = round(value * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10
