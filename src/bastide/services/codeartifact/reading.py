"""What package managers read over a repository's endpoint: projects, the files of one, and one file.

On AWS `codeartifact:ReadFromRepository` is a permission and CloudTrail's name of such a request. What an upstream has
is kept in the repository that was asked; what comes from the public repository is taken over at its first use, with the
hash that it had then, into the repository with the connection, too. Source: CodeArtifact User Guide, "Working with upstream
repositories", "Requesting package versions from external connections".
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.indexes import PublicFile, PublicIndex
from bastide.engines.outgoing import Unreachable
from bastide.kernel import Ask, Authorised, Calls, Output
from bastide.services.codeartifact import channel, content, group, pypi, sealing
from bastide.services.codeartifact.noun import (
    PACKAGE,
    PUBLIC,
    READER,
    VERSION,
    domain_of,
    find_domain,
    missing,
    name_of,
    repository_of,
    rows_below,
    this_repository,
)
from bastide.services.codeartifact.publish import add
from bastide.services.codeartifact.search import Found, reachable, search
from bastide.services.codeartifact.telling import revise, told
from bastide.services.codeartifact.version import copied
from bastide.store import Row, Transaction, View

_log = logging.getLogger("bastide.packages")
METADATA: Final = ".metadata"


def _found(a: Authorised, view: View) -> tuple[Row, Row, str, Found]:
    domain, repository = domain_of(a, view), repository_of(a, view)
    path = group.path_of("pypi", "", pypi.checked_name(str(a.input["package"])))
    return domain, repository, path, search(view, domain, repository, path)


async def _public(a: Authorised, project: str) -> list[PublicFile]:
    """What the public repository offers, as far as it is a distribution of the project. Without an answer there is nothing:
    what was taken over before is there all the same."""
    try:
        found = await a.engine(PublicIndex).files(project)
    except Unreachable as failed:
        _log.warning("%s could not be asked for %s: %s", PUBLIC, project, failed)
        return []
    kept = []
    for one in found:
        try:
            pypi.of_file(one.name)
        except Refused:
            continue
        if pypi.of_file(one.name)[0] == project:
            kept.append(one)
    return kept


async def _before(a: Authorised) -> Any:
    if a.input.get("format") == "conda":
        return await channel.listed(a)
    if a.input.get("package") is None:
        return []
    with a.calls.store.reading() as view:
        domain, _, path, found = _found(a, view)
    project = path.rpartition("/")[2]
    public = await _public(a, project) if found.connected is not None else []
    if a.input.get("asset") is None:
        return public
    name = str(a.input["asset"]).removesuffix(METADATA)
    if name not in found.assets() and found.connected is not None:
        wanted = next((one for one in public if one.name == name), None)
        if wanted is not None and found.open_to(pypi.of_file(name)[1]):
            await _take_over(a, domain, found.connected, wanted)
    await _retain(a, name)
    return public


async def _take_over(a: Authorised, domain: Row, connected: Row, file: PublicFile) -> None:
    """A public file comes into the repository with the connection."""
    number = pypi.of_file(file.name)[1]
    try:
        chunks = a.engine(PublicIndex).content(file)
        staged = await content.stage(a.calls, domain, chunks, file.name, file.project, sha256=file.sha256)
    except (Unreachable, FileNotFoundError) as failed:
        raise missing("asset", file.name, f"{file.name} could not be got from {PUBLIC}: {failed}") from None
    key = f"{connected.name}/pypi//{file.project}/{number}"
    facts = staged.facts or pypi.Facts(file.project, number, requires_python=file.requires_python)
    origin = {
        "originType": "EXTERNAL",
        "domainEntryPoint": {"repositoryName": name_of(connected), "externalConnectionName": PUBLIC},
    }

    def work(tx: Transaction) -> None:
        version = VERSION.get(tx, domain.account, domain.region, key)
        if version is not None and file.name in version.doc["assets"]:
            staged.unused = staged.files()  # somebody was faster
            return
        add(
            tx, domain, connected, key, file.name, staged, facts,
            status="Published", origin=origin, now=a.now, request=a.request.id, yanked=file.yanked,
        )  # fmt: skip

    try:
        await a.calls.store.write(work)
    except BaseException:
        await sealing.drop(a.calls, staged.files())
        raise
    await sealing.drop(a.calls, staged.unused)


async def _retain(a: Authorised, name: str) -> None:
    """What was asked for stays in the repository that was asked, also if its upstream is gone one day."""

    def kept_elsewhere(view: View) -> tuple[Row, Row, Row | None, Row | None]:
        domain, repository, _, found = _found(a, view)
        row, _ = found.assets().get(name, (None, None))
        if row is None or row.name.startswith(f"{repository.name}/"):
            return domain, repository, None, None
        own = found.versions[row.name.rpartition("/")[2]][0]
        return domain, repository, row, own if own.name.startswith(f"{repository.name}/") else None

    with a.calls.store.reading() as view:
        if kept_elsewhere(view)[2] is None:
            return

    def work(tx: Transaction) -> None:
        domain, repository, row, own = kept_elsewhere(tx)
        if row is None:
            return
        if own is None:
            copied(tx, domain, repository, row, "PackageVersionRetained", a.request.id)
            return
        content.again(tx, domain, row, name)
        own.doc["assets"][name] = row.doc["assets"][name]
        revise(own)
        told(tx, own, "Updated", repository.doc["administrator"], added=1)
        VERSION.change(tx, own, "PackageVersionRetained", a.request.id)

    await a.calls.store.write(work)


@READER.reads(
    "ReadFromRepository",
    asks=[Ask("codeartifact:ReadFromRepository", this_repository)],
    before=_before,
)
def read(a: Authorised, view: View) -> Output:
    domain, repository = domain_of(a, view), repository_of(a, view)
    if a.input.get("format") == "conda":
        return {"packages": a.staged}
    if a.input.get("package") is None:
        names = set()
        for row in reachable(view, repository):
            names |= {one.name.split("/")[4] for one in rows_below(view, PACKAGE, domain, f"{row.name}/pypi/")}
        return {"packages": sorted(names)}
    _, _, path, found = _found(a, view)
    files = _files(found, a.staged)
    asset = a.input.get("asset")
    if asset is not None:
        name = str(asset).removesuffix(METADATA)
        files = [one for one in files if one["name"] == name]
    if not files:
        raise missing(
            "package" if asset is None else "asset", str(asset or a.input["package"]),
            f"The repository {name_of(repository)} has no {asset or path.rpartition('/')[2]}.",
        )  # fmt: skip
    return {"files": files}


def _files(found: Found, public: list[PublicFile]) -> list[dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for name, (row, held) in found.assets().items():
        number = row.name.rpartition("/")[2]
        files[name] = {
            "name": name,
            "version": number,
            "status": found.versions[number][0].status,
            "sha256": held["sha256"],
            "size": held["size"],
            "requiresPython": held.get("requires_python", ""),
            "metadata": held.get("metadata", ""),
            "published": held["added"],
        }
    for one in public if found.connected is not None else ():
        number = pypi.of_file(one.name)[1]
        if found.open_to(number):
            told = {
                "name": one.name,
                "version": number,
                "status": "Unlisted" if one.yanked else "Published",
                "sha256": one.sha256,
                "requiresPython": one.requires_python,
                "metadata": "",
            }
            files.setdefault(one.name, told)
    return list(files.values())


async def bytes_of(
    calls: Calls, account: str, region: str, domain_name: str, sha256: str
) -> tuple[int, AsyncIterator[bytes]]:
    """Size and bytes of a content that ReadFromRepository told of; raises Refused."""
    with calls.store.reading() as view:
        domain = find_domain(view, account, region, domain_name)
        held = content.held(view, domain, sha256)
    return int(held["size"]), await sealing.content(calls, domain, held)
