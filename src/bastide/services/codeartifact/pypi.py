"""Python distributions: what their names say, and what is written in a wheel. Everything hostile until parsed.

Source: PEP 427 and 625 (names), PEP 440 (versions), PEP 503 (names compared), PEP 658 (metadata beside a wheel), Core
metadata specifications.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_version,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from bastide.domain import Refused
from bastide.engines import zips
from bastide.services.codeartifact.noun import invalid, normal

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,250}")
_MOST_METADATA: Final = 4 << 20
_MOST_ENTRIES: Final = 200_000
_MOST_TEXT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What a distribution says of itself, as far as it is shown."""

    name: str
    version: str
    summary: str = ""
    home: str = ""
    license: str = ""
    readme: str = ""
    requires_python: str = ""
    requires: tuple[str, ...] = field(default=())

    def kept(self) -> dict[str, Any]:
        """As a version's row has it."""
        return {
            "summary": self.summary, "home": self.home, "license": self.license, "readme": self.readme,
            "requires": list(self.requires),
        }  # fmt: skip


def checked_name(name: str) -> str:
    """A project's name in its normal form; raises ValidationException."""
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise invalid("The name of a Python project has letters, digits and . _ - between them.")
    return normal(name)


def checked_version(version: str) -> str:
    """A version in its normal form; raises ValidationException."""
    try:
        if len(version) > 200:
            raise InvalidVersion
        return str(Version(version))
    except InvalidVersion:
        raise invalid(f"{version[:100]!r} is not a version as Python packages have them (PEP 440).") from None


def of_file(filename: str) -> tuple[str, str]:
    """Normal name and version that the name of a distribution's file says; raises ValidationException."""
    if not _FILE.fullmatch(filename) or ".." in filename:
        raise invalid("The name of the file is not one of a Python distribution.")
    try:
        if filename.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(filename)
        elif filename.endswith((".tar.gz", ".zip")):
            name, version = parse_sdist_filename(filename)
        else:
            raise InvalidSdistFilename
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        raise invalid(f"{filename!r} is not the name of a wheel (.whl) or a source distribution (.tar.gz).") from None
    return str(name), str(version)


def check_file(filename: str, name: str, version: str) -> None:
    """Raises ValidationException unless the file is one of that version of that project."""
    told, at = of_file(filename)
    if told != normal(name) or canonicalize_version(at) != canonicalize_version(version):
        raise invalid(f"The file {filename!r} is not one of {name} {version}.")


def metadata_of_wheel(file: IO[bytes], filename: str) -> bytes:
    """The METADATA of a wheel, unparsed; raises ValidationException for what is no wheel. Blocks."""
    name, version = of_file(filename)
    try:
        with zips.opened(file, _MOST_ENTRIES) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise invalid(f"The wheel has more than {_MOST_ENTRIES} files.")
            found = [
                one for one in entries if one.filename.endswith(".dist-info/METADATA") and one.filename.count("/") == 1
            ]
            if len(found) != 1:
                raise invalid("A wheel has one *.dist-info/METADATA.")
            told, _, at = found[0].filename.partition("/")[0].removesuffix(".dist-info").rpartition("-")
            if normal(told) != name or canonicalize_version(at) != canonicalize_version(version):
                raise invalid(f"The wheel {filename!r} holds the metadata of another: {found[0].filename[:200]!r}.")
            with archive.open(found[0]) as opened:
                raw = opened.read(_MOST_METADATA + 1)
    except Refused:
        raise
    except Exception:  # zipfile raises whatever a hostile archive makes it raise
        raise invalid(f"{filename!r} cannot be read as a wheel.") from None
    if len(raw) > _MOST_METADATA:
        raise invalid(f"The METADATA of a wheel has {_MOST_METADATA} bytes at most.")
    return raw


def facts_of(raw: bytes, filename: str) -> Facts:
    """What METADATA says; raises ValidationException if that is of another project than the file's name."""
    told, _ = parse_email(raw)
    name, version = str(told.get("name") or ""), str(told.get("version") or "")
    check_file(filename, checked_name(name), checked_version(version))
    return _facts(told, name, version)


def facts_of_form(fields: Mapping[str, list[str]]) -> Facts:
    """What an upload's form says, in the words that uploading tools use."""

    def one(name: str) -> str:
        return (fields.get(name) or [""])[0]

    told = {
        "summary": one("summary"), "home_page": one("home_page"), "license": one("license"),
        "license_expression": one("license_expression"), "description": one("description"),
        "requires_python": one("requires_python"), "requires_dist": fields.get("requires_dist") or [],
    }  # fmt: skip
    return _facts(told, checked_name(one("name")), checked_version(one("version")))


def _facts(told: Mapping[str, Any], name: str, version: str) -> Facts:
    python = str(told.get("requires_python") or "")[:200]
    try:
        SpecifierSet(python)
    except InvalidSpecifier:
        python = ""
    urls = told.get("project_urls") or {}
    home = str(told.get("home_page") or next(iter(urls.values()), ""))[:1000]
    return Facts(
        normal(name),
        str(Version(version)),
        str(told.get("summary") or "")[:1000],
        home if home.startswith(("https://", "http://")) else "",
        str(told.get("license_expression") or told.get("license") or "")[:200],
        str(told.get("description") or "")[:_MOST_TEXT],
        python,
        tuple(str(one)[:500] for one in (told.get("requires_dist") or ())[:500]),
    )


def dependencies(requires: list[str]) -> list[dict[str, str]]:
    """Requirements as ListPackageVersionDependencies shows them; what cannot be read is left out."""
    found = []
    for text in requires:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        kind = "extra" if one.marker is not None and "extra" in str(one.marker) else "regular"
        found.append(
            {"package": normal(one.name), "dependencyType": kind, "versionRequirement": str(one.specifier) or "*"}
        )
    return found


def newest(versions: list[str]) -> list[str]:
    """Versions, the highest first; those that are none last."""

    def place(text: str) -> tuple[int, Any, str]:
        try:
            return (1, Version(text), text)
        except InvalidVersion:
            return (0, Version("0"), text)

    return sorted(versions, key=place, reverse=True)
