"""Where versions of a package come from: a repository, its upstreams in their order, and the public repository behind them.

Private beats public. Where any repository on the way holds the package as one of its own (its origin configuration blocks
upstreams, as it does from the first publication on), no version from outside is seen, whichever repository is asked and in
whatever order its upstreams stand: who registers the name of a private package in public reaches nobody. AWS decides that
in each repository alone; here the strictest on the way counts. Source: CodeArtifact User Guide, "Working with upstream
repositories", "Editing package origin controls", "Dependency substitution attacks".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bastide.services.codeartifact import group
from bastide.services.codeartifact.noun import PACKAGE, PUBLIC, REPOSITORY, VERSION, name_of, rows_below
from bastide.store import Row, View

_MOST: Final = 25
"""Repositories that are looked at (CodeArtifact User Guide, "Quotas")."""

OFFERED: Final = ("Published", "Unlisted")
"""States of versions whose files are given out; Unlisted ones are found by whoever names the version."""


@dataclass(slots=True)
class Found:
    """versions: by name, as each repository has it, the first first: that one decides, and of a version from outside the
    others add the files that it has not taken over yet. connected: the repository over whose connection the
    public one may be asked, None if nobody may. private: whether somebody on the way holds it as their own."""

    versions: dict[str, list[Row]] = field(default_factory=dict)
    connected: Row | None = None
    private: bool = False

    def assets(self) -> dict[str, tuple[Row, dict[str, Any]]]:
        """All files that are given out, by name: the version's row that brings it, and what the row keeps of it."""
        found: dict[str, tuple[Row, dict[str, Any]]] = {}
        for rows in self.versions.values():
            if rows[0].status not in OFFERED:
                continue
            for row in rows if outside(rows[0]) else rows[:1]:
                if outside(row) == outside(rows[0]):
                    for name, held in row.doc["assets"].items():
                        found.setdefault(name, (row, held))
        return found

    def open_to(self, number: str) -> bool:
        """Whether a version may get files from outside: none that is somebody's own, or was taken away on purpose."""
        rows = self.versions.get(number)
        return not rows or (rows[0].status in OFFERED and outside(rows[0]))


def outside(version: Row) -> bool:
    """Whether a version came from the public repository."""
    return bool(version.doc["origin"]["originType"] == "EXTERNAL")


def reachable(view: View, repository: Row, path: str = "") -> list[Row]:
    """A repository and those that it reaches, in the order in which they are asked. path: of a package, which is not looked
    for behind a repository that keeps it to itself."""
    found: list[Row] = []

    def walk(row: Row) -> None:
        if len(found) >= _MOST or any(one.name == row.name for one in found):
            return
        found.append(row)
        if path and restriction(package_in(view, row, path), "upstream") == "BLOCK":
            return
        domain = row.name.partition("/")[0]
        for name in row.doc["upstreams"]:
            upstream = REPOSITORY.get(view, row.account, row.region, f"{domain}/{name}")
            if upstream is not None:
                walk(upstream)

    walk(repository)
    return found


def package_in(view: View, repository: Row, path: str) -> Row | None:
    """A package of a repository, by its path (`group.path_of`)."""
    return PACKAGE.get(view, repository.account, repository.region, repository.name + path)


def restriction(package: Row | None, way: str) -> str:
    """ALLOW or BLOCK. way: publish, upstream."""
    return str(package.doc["restrictions"][way]) if package is not None else "ALLOW"


def search(view: View, domain: Row, repository: Row, path: str) -> Found:
    """All versions of a package that a repository gives out."""
    found = Found()
    order = [(row, package_in(view, row, path)) for row in reachable(view, repository, path)]
    found.private = any(restriction(package, "upstream") == "BLOCK" for _, package in order)
    internal = group.allows(view, domain, path, name_of(repository), "INTERNAL_UPSTREAM")
    external = group.allows(view, domain, path, name_of(repository), "EXTERNAL_UPSTREAM")
    for row, package in order:
        mine = row.name == repository.name
        kept = restriction(package, "upstream") == "BLOCK"
        for version in rows_below(view, VERSION, domain, f"{row.name}{path}/") if package is not None else ():
            if outside(version) and found.private and not kept:
                continue
            if not mine and not (external if outside(version) else internal):
                continue
            found.versions.setdefault(version.name.rpartition("/")[2], []).append(version)
        if (
            found.connected is None
            and PUBLIC in row.doc["connections"]
            and not found.private
            and external
            and group.allows(view, domain, path, name_of(row), "EXTERNAL_UPSTREAM")
        ):
            found.connected = row
    return found
