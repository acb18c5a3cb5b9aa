"""Packages of a repository, and how further versions of one may come into it."""

from __future__ import annotations

from typing import Any

from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.codeartifact import sealing
from bastide.services.codeartifact.content import released
from bastide.services.codeartifact.noun import (
    PACKAGE,
    VERSION,
    domain_of,
    limit_of,
    name_of,
    package_name,
    package_of,
    repository_of,
    rows_below,
    supported,
    this_package,
    this_repository,
    without_none,
)
from bastide.services.codeartifact.telling import told
from bastide.store import Row, Transaction, View


def _summary(row: Row, word: str) -> dict[str, Any]:
    _, _, format, namespace, name = row.name.split("/", 4)
    return without_none(
        {
            "format": format,
            "namespace": namespace or None,
            word: name,
            "originConfiguration": {"restrictions": row.doc["restrictions"]},
        }
    )


@PACKAGE.reads("DescribePackage", asks=[Ask("codeartifact:DescribePackage", this_package)])
def describe(a: Authorised, view: View) -> Output:
    return {"package": _summary(package_of(a, view, repository_of(a, view)), "name")}


@PACKAGE.reads("ListPackages", asks=[Ask("codeartifact:ListPackages", this_repository)])
def listed(a: Authorised, view: View) -> Output:
    repository, limit = repository_of(a, view), limit_of(a)
    given, after = a.input, pages.position(a, a.input.get("nextToken"))
    prefix = f"{repository.name}/"
    if given.get("format"):
        prefix += f"{given['format']}/"
        if given.get("namespace"):
            prefix += f"{given['namespace']}/"
    rows = view.scan(PACKAGE.key, repository.account, repository.region, prefix=prefix, after=after, limit=limit + 1)
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    shown = []
    for row in rows[:limit]:
        one, ways = _summary(row, "package"), row.doc["restrictions"]
        wanted = (
            str(one["package"]).startswith(str(given.get("packagePrefix") or ""))
            and given.get("namespace") in (None, one.get("namespace"))
            and all(given.get(way) in (None, ways[way]) for way in ("publish", "upstream"))
        )
        if wanted:
            shown.append(one)
    return {"packages": shown, "nextToken": token}


@PACKAGE.operation(
    "PutPackageOriginConfiguration", asks=[Ask("codeartifact:PutPackageOriginConfiguration", this_package)]
)
def put_origin(a: Authorised, tx: Transaction) -> Output:
    """Also of a package that is not there yet: so a name is kept before anybody has it."""
    repository = repository_of(a, tx)
    supported(str(a.input["format"]))
    ways = {way: a.input["restrictions"][way] for way in ("publish", "upstream")}
    name = package_name(a.input, name_of(repository))
    row = PACKAGE.get(tx, repository.account, repository.region, name)
    if row is None:
        row = Row(PACKAGE.key, repository.account, repository.region, name, {"restrictions": ways})
        PACKAGE.insert(tx, row, a.operation.name, a.request.id)
    else:
        row.doc["restrictions"] = ways
        PACKAGE.change(tx, row, a.operation.name, a.request.id)
    return {"originConfiguration": {"restrictions": ways}}


async def _nothing(_: Authorised) -> list[str]:
    return []


async def _forget(a: Authorised, output: Output) -> Output:
    await sealing.drop(a.calls, a.staged or [])
    return output


@PACKAGE.operation(
    "DeletePackage", asks=[Ask("codeartifact:DeletePackage", this_package)], before=_nothing, after=_forget
)
def delete(a: Authorised, tx: Transaction) -> Output:
    repository, domain = repository_of(a, tx), domain_of(a, tx)
    row = package_of(a, tx, repository)
    for version in rows_below(tx, VERSION, domain, f"{row.name}/"):
        a.staged += released(tx, domain, version)
        told(tx, version, "Deleted", repository.doc["administrator"], removed=len(version.doc["assets"]))
        VERSION.remove(tx, version, a.operation.name, a.request.id)
    PACKAGE.remove(tx, row, a.operation.name, a.request.id)
    return {"deletedPackage": _summary(row, "package")}
