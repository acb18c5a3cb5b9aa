"""Versions of packages: listed, described, read, copied, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, pages
from bastide.services.codeartifact import content, group, pypi, sealing
from bastide.services.codeartifact.noun import (
    PACKAGE,
    VERSION,
    conflict,
    domain_of,
    find_repository,
    find_version,
    invalid,
    limit_of,
    missing,
    name_of,
    package_arn,
    package_name,
    package_of,
    repository_arn,
    repository_of,
    rows_below,
    this_package,
    without_none,
)
from bastide.services.codeartifact.publish import ensure_package
from bastide.services.codeartifact.search import restriction
from bastide.services.codeartifact.telling import told
from bastide.store import Row, Transaction, View

_MOST: Final = 100
_STATES: Final = ("Published", "Unlisted", "Archived")


def _head(version: Row) -> dict[str, Any]:
    _, _, format, namespace, name, number = version.name.split("/", 5)
    return without_none({"format": format, "namespace": namespace or None, "package": name, "version": number})


def _of(a: Authorised, view: View) -> Row:
    return find_version(view, package_of(a, view, repository_of(a, view)), str(a.input["packageVersion"]))


# -- reading -------------------------------------------------------------------------------------------------------------


@VERSION.reads("DescribePackageVersion", asks=[Ask("codeartifact:DescribePackageVersion", this_package)])
def describe(a: Authorised, view: View) -> Output:
    row = _of(a, view)
    head, facts = _head(row), row.doc["facts"]
    name = head.pop("package")
    return {
        "packageVersion": without_none(
            {
                **head,
                "packageName": name,
                "displayName": name,
                "summary": facts.get("summary") or None,
                "homePage": facts.get("home") or None,
                "licenses": [{"name": facts["license"]}] if facts.get("license") else None,
                "publishedTime": row.doc["born"],
                "revision": row.doc["revision"],
                "status": row.status,
                "origin": row.doc["origin"],
            }
        )
    }


@VERSION.reads("ListPackageVersions", asks=[Ask("codeartifact:ListPackageVersions", this_package)])
def listed(a: Authorised, view: View) -> Output:
    package, limit = package_of(a, view, repository_of(a, view)), limit_of(a)
    rows = {one.name.split("/", 5)[5]: one for one in rows_below(view, VERSION, package, f"{package.name}/")}
    if a.input.get("sortBy") == "PUBLISHED_TIME":
        names = sorted(rows, key=lambda one: (-rows[one].doc["born"], one))
    else:
        names = pypi.newest(list(rows))
    wanted = [
        one
        for one in names
        if a.input.get("status") in (None, rows[one].status)
        and a.input.get("originType") in (None, rows[one].doc["origin"]["originType"])
    ]
    after = pages.position(a, a.input.get("nextToken"))
    begin = wanted.index(after) + 1 if after in wanted else 0
    page = wanted[begin : begin + limit]
    token = pages.seal(a, page[-1]) if begin + limit < len(wanted) else None
    head = _head(rows[names[0]]) if names else {"format": a.input["format"], "package": a.input["package"]}
    shown = [
        {
            "version": one,
            "revision": rows[one].doc["revision"],
            "status": rows[one].status,
            "origin": rows[one].doc["origin"],
        }
        for one in page
    ]
    published = next((one for one in pypi.newest(list(rows)) if rows[one].status == "Published"), None)
    head.pop("version", None)
    return without_none({**head, "defaultDisplayVersion": published, "versions": shown, "nextToken": token})


@VERSION.reads("ListPackageVersionAssets", asks=[Ask("codeartifact:ListPackageVersionAssets", this_package)])
def listed_assets(a: Authorised, view: View) -> Output:
    row, domain, limit = _of(a, view), domain_of(a, view), limit_of(a)
    after = pages.position(a, a.input.get("nextToken"))
    names = [one for one in sorted(row.doc["assets"]) if after is None or one > after]
    token = pages.seal(a, names[limit - 1]) if len(names) > limit else None
    assets = []
    for name in names[:limit]:
        held = content.held(view, domain, row.doc["assets"][name]["sha256"])
        assets.append({"name": name, "size": held["size"], "hashes": held["hashes"]})
    return {**_head(row), "versionRevision": row.doc["revision"], "assets": assets, "nextToken": token}


@VERSION.reads(
    "ListPackageVersionDependencies", asks=[Ask("codeartifact:ListPackageVersionDependencies", this_package)]
)
def listed_dependencies(a: Authorised, view: View) -> Output:
    row = _of(a, view)
    found = pypi.dependencies(row.doc["facts"].get("requires", []))
    return {**_head(row), "versionRevision": row.doc["revision"], "dependencies": found}


@VERSION.reads("GetPackageVersionReadme", asks=[Ask("codeartifact:GetPackageVersionReadme", this_package)])
def readme(a: Authorised, view: View) -> Output:
    row = _of(a, view)
    text = row.doc["facts"].get("readme")
    if not text:
        raise missing("package-version", str(a.input["packageVersion"]), "The package version has no readme.")
    return {**_head(row), "versionRevision": row.doc["revision"], "readme": text}


async def _open(a: Authorised, output: Output) -> Output:
    with a.calls.store.reading() as view:
        domain = domain_of(a, view)
        held = content.held(view, domain, output.pop("_sha256"))
    stream = await sealing.content(a.calls, domain, held)
    return {**output, "asset": stream}


@VERSION.reads("GetPackageVersionAsset", asks=[Ask("codeartifact:GetPackageVersionAsset", this_package)], after=_open)
def get_asset(a: Authorised, view: View) -> Output:
    row, name = _of(a, view), str(a.input["asset"])
    wanted = a.input.get("packageVersionRevision")
    if wanted is not None and wanted != row.doc["revision"]:
        raise conflict("package-version", str(a.input["packageVersion"]), "The version has another revision by now.")
    held = row.doc["assets"].get(name)
    if held is None or row.status in ("Archived", "Disposed"):
        raise missing("asset", name, f"Asset not found. asset: {name}, the version is {row.status}")
    return {
        "_sha256": held["sha256"],
        "assetName": name,
        "packageVersion": row.name.split("/", 5)[5],
        "packageVersionRevision": row.doc["revision"],
    }


# -- what becomes of several ---------------------------------------------------------------------------------------------


def _each(a: Authorised, tx: Transaction, package: Row, work: Callable[[Row], str | tuple[str, str]]) -> Output:
    """Does something to each version of the call. work: the status that it then has, or code and message of a failure."""
    versions = [str(one) for one in a.input.get("versions") or a.input.get("versionRevisions") or ()]
    if not versions:
        raise invalid("versions names one version at least.")
    if len(versions) > _MOST:
        raise invalid(f"At most {_MOST} versions are named.")
    done: dict[str, Any] = {}
    failed: dict[str, Any] = {}
    revisions = a.input.get("versionRevisions") or {}
    expected = a.input.get("expectedStatus")
    for given in dict.fromkeys(versions):
        try:
            row = find_version(tx, package, given)
        except Refused:
            failed[given] = {"errorCode": "NOT_FOUND", "errorMessage": "The package version does not exist."}
            continue
        if expected is not None and row.status != expected:
            failed[given] = {"errorCode": "MISMATCHED_STATUS", "errorMessage": f"Its status is {row.status}."}
        elif given in revisions and revisions[given] != row.doc["revision"]:
            failed[given] = {"errorCode": "MISMATCHED_REVISION", "errorMessage": "It has another revision."}
        else:
            revision = row.doc["revision"]
            ended = work(row)
            if isinstance(ended, tuple):
                failed[given] = {"errorCode": ended[0], "errorMessage": ended[1]}
            else:
                done[given] = {"revision": revision, "status": ended}
    return {"successfulVersions": done, "failedVersions": failed}


async def _nothing(_: Authorised) -> list[str]:
    return []


async def _forget(a: Authorised, output: Output) -> Output:
    await sealing.drop(a.calls, a.staged or [])
    return output


@VERSION.operation(
    "DeletePackageVersions",
    asks=[Ask("codeartifact:DeletePackageVersions", this_package)],
    before=_nothing,
    after=_forget,
)
def delete(a: Authorised, tx: Transaction) -> Output:
    repository, domain = repository_of(a, tx), domain_of(a, tx)

    def work(row: Row) -> str:
        a.staged += content.released(tx, domain, row)
        told(tx, row, "Deleted", repository.doc["administrator"], removed=len(row.doc["assets"]))
        VERSION.remove(tx, row, a.operation.name, a.request.id)
        return "Deleted"

    return _each(a, tx, package_of(a, tx, repository), work)


@VERSION.operation(
    "DisposePackageVersions",
    asks=[Ask("codeartifact:DisposePackageVersions", this_package)],
    before=_nothing,
    after=_forget,
)
def dispose(a: Authorised, tx: Transaction) -> Output:
    """Takes the assets of versions away and keeps what is known of them: nothing else is ever published as that version."""
    repository, domain = repository_of(a, tx), domain_of(a, tx)

    def work(row: Row) -> str | tuple[str, str]:
        if row.status == "Disposed":
            return "NOT_ALLOWED", "It is disposed already."
        a.staged += content.released(tx, domain, row)
        removed = len(row.doc["assets"])
        row.doc["assets"], row.status = {}, "Disposed"
        told(tx, row, "Updated", repository.doc["administrator"], removed=removed, status=True)
        VERSION.change(tx, row, a.operation.name, a.request.id)
        return "Disposed"

    return _each(a, tx, package_of(a, tx, repository), work)


@VERSION.operation("UpdatePackageVersionsStatus", asks=[Ask("codeartifact:UpdatePackageVersionsStatus", this_package)])
def update_status(a: Authorised, tx: Transaction) -> Output:
    repository, target = repository_of(a, tx), str(a.input["targetStatus"])
    if target not in _STATES:
        raise invalid(f"targetStatus is one of {', '.join(_STATES)}.")

    def work(row: Row) -> str | tuple[str, str]:
        if row.status == "Disposed":
            return "NOT_ALLOWED", "A disposed version stays so."
        if row.status != target:
            row.status = target
            told(tx, row, "Updated", repository.doc["administrator"], status=True)
            VERSION.change(tx, row, a.operation.name, a.request.id)
        return target

    return _each(a, tx, package_of(a, tx, repository), work)


# -- copying -------------------------------------------------------------------------------------------------------------


def _destination(asked: Asked) -> Iterable[str]:
    name = str(asked.input["destinationRepository"])
    return (package_arn(asked, name), repository_arn(asked, name))


def _source(asked: Asked) -> Iterable[str]:
    return (repository_arn(asked, str(asked.input["sourceRepository"])),)


@VERSION.operation(
    "CopyPackageVersions",
    asks=[
        Ask("codeartifact:CopyPackageVersions", _destination),
        Ask("codeartifact:ReadFromRepository", _source),
    ],
    before=_nothing,
    after=_forget,
)
def copy(a: Authorised, tx: Transaction) -> Output:
    """Copies versions between repositories of a domain: what they are made of is in the domain once."""
    domain, given = domain_of(a, tx), a.input
    source = find_repository(tx, domain, str(given["sourceRepository"]))
    target = find_repository(tx, domain, str(given["destinationRepository"]))
    if source.name == target.name:
        raise invalid("sourceRepository and destinationRepository are two.")
    if given.get("includeFromUpstream"):
        raise invalid("includeFromUpstream is not supported by Bastide; copy from the upstream itself.")
    package = package_of(a, tx, source)
    name = package_name(given, name_of(target))
    path = group.path_of_row(package)
    over = bool(given.get("allowOverwrite"))

    def work(row: Row) -> str | tuple[str, str]:
        held = PACKAGE.get(tx, domain.account, domain.region, name)
        internal = row.doc["origin"]["originType"] == "INTERNAL"
        way = "INTERNAL_UPSTREAM" if internal else "EXTERNAL_UPSTREAM"
        closed = not internal and restriction(held, "upstream") == "BLOCK"
        if closed or not group.allows(tx, domain, path, name_of(target), way):
            return "NOT_ALLOWED", "The origin configuration of the package in the destination does not let it in."
        if row.status not in ("Published", "Unlisted"):
            return "NOT_ALLOWED", f"It is {row.status}."
        before = VERSION.get(tx, domain.account, domain.region, f"{name}/{row.name.split('/', 5)[5]}")
        if before is not None:
            same = before.doc["revision"] == row.doc["revision"]
            if same:
                return before.status
            if not over:
                return "ALREADY_EXISTS", "The destination has the version, with other assets."
            a.staged += content.released(tx, domain, before)
            VERSION.remove(tx, before, a.operation.name, a.request.id)
        copied(tx, domain, target, row, a.operation.name, a.request.id)
        return row.status

    return _each(a, tx, package, work)


def copied(tx: Transaction, domain: Row, target: Row, version: Row, event: str, request: str) -> Row:
    """A version in another repository of its domain, with its origin and its revision."""
    _, _, rest = version.name.split("/", 2)
    key = f"{target.name}/{rest}"
    internal = version.doc["origin"]["originType"] == "INTERNAL"
    ensure_package(tx, key.rpartition("/")[0], domain, internal, request)
    content.again(tx, domain, version)
    doc = {name: value for name, value in version.doc.items() if name not in ("sequence", "_told")}
    row = Row(VERSION.key, domain.account, domain.region, key, doc, version.status, created=version.created)
    told(tx, row, "Created", target.doc["administrator"], added=len(doc["assets"]), status=True)
    VERSION.insert(tx, row, event, request)
    return row
