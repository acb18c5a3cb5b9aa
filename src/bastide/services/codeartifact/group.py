"""Package groups: patterns of packages of a domain, and how versions of what matches may come into its repositories.

A package belongs to the group with the most specific pattern; what that one leaves to INHERIT its parent says, and so on up
to ``/*``, which every domain has. Source: CodeArtifact User Guide, "Package group definition syntax and matching behavior",
"Package group origin controls".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, pages
from bastide.services.codeartifact.noun import (
    DOMAIN,
    GROUP,
    PACKAGE,
    REPOSITORY,
    conflict,
    domain_of,
    find_repository,
    group_name,
    group_pattern,
    invalid,
    limit_of,
    missing,
    normal,
    owner,
    rows_below,
    tags_given,
    this_domain,
    this_group,
    without_none,
)
from bastide.store import Row, Transaction, View

TYPES: Final = ("EXTERNAL_UPSTREAM", "INTERNAL_UPSTREAM", "PUBLISH")
ROOT: Final = "/*"
_PATTERN: Final = re.compile(r"/\*|/(?:pypi|generic)/(?:\*|[^/*$~#]*/?[^/*$~#]*[*$~])")
_MOST_ALLOWED: Final = 500
_MOST_GROUPS: Final = 1000
Groups = Mapping[str, Row]


# -- patterns ------------------------------------------------------------------------------------------------------------


def path_of(format: str, namespace: str, name: str) -> str:
    """A package as patterns see it."""
    return f"/{format}/{namespace}/{normal(name) if format == 'pypi' else name}"


def path_of_row(package: Row) -> str:
    """The same of a package's row."""
    return "/" + package.name.split("/", 2)[2]


def covers(pattern: str, path: str, kind: str = "$") -> bool:
    """Whether a pattern matches a path, or (kind is how it ends) all that another pattern matches."""
    start, how = pattern[:-1], pattern[-1]
    if how == "*":
        return path.startswith(start)
    if how == "~":
        rest = path.removeprefix(start)
        return path.startswith(start) and (kind != "*" if not rest else not rest[0].isalnum())
    return path == start and kind == "$"


def _groups(view: View, domain: Row) -> Groups:
    """A domain's groups by their patterns."""
    return {group_pattern(row): row for row in rows_below(view, GROUP, domain, f"{domain.name}/")}


def _chain(groups: Groups, path: str, kind: str = "$") -> list[Row]:
    """The groups that cover a path, the most specific first: each begins as the path does, so that their number does not
    count."""
    found = []
    for end in range(len(path), 0, -1):
        for pattern in (f"{path[:end]}{how}" for how in "$~*"):
            if pattern in groups and covers(pattern, path, kind):
                found.append(groups[pattern])
    return found


def _parents(groups: Groups, row: Row) -> list[Row]:
    pattern = group_pattern(row)
    return [one for one in _chain(groups, pattern[:-1], pattern[-1]) if one.name != row.name]


def _deciding(chain: list[Row], type: str) -> Row | None:
    return next((row for row in chain if row.doc["restrictions"][type]["mode"] != "INHERIT"), None)


def allows(view: View, domain: Row, path: str, repository: str, *types: str) -> bool:
    """Whether versions of a package may come into a repository in these ways, as its groups have it."""
    chain = _chain(_groups(view, domain), path)
    for type in types:
        row = _deciding(chain, type)
        how = row.doc["restrictions"][type] if row is not None else {"mode": "ALLOW"}
        if how["mode"] == "BLOCK" or (
            how["mode"] == "ALLOW_SPECIFIC_REPOSITORIES" and repository not in how["repositories"]
        ):
            return False
    return True


# -- the noun ------------------------------------------------------------------------------------------------------------


def found_root(tx: Transaction, domain: Row, event: str, request: str) -> None:
    """The group of everything, which a new domain has."""
    doc = {"contactInfo": "", "description": "", "restrictions": {type: {"mode": "ALLOW"} for type in TYPES}}
    row = Row(GROUP.key, domain.account, domain.region, group_name(domain.name, ROOT), doc)
    GROUP.insert(tx, row, event, request)


def _reference(row: Row) -> dict[str, str]:
    return {"arn": GROUP.arn(row.account, row.region, row.name), "pattern": group_pattern(row)}


def _summary(groups: Groups, domain: Row, row: Row) -> dict[str, Any]:
    parents = _parents(groups, row)
    restrictions = {}
    for type in TYPES:
        own = row.doc["restrictions"][type]
        deciding = _deciding([row, *parents], type)
        told: dict[str, Any] = {"mode": own["mode"]}
        told["effectiveMode"] = deciding.doc["restrictions"][type]["mode"] if deciding is not None else "ALLOW"
        if deciding is not None and deciding.name != row.name:
            told["inheritedFrom"] = _reference(deciding)
        if own["mode"] == "ALLOW_SPECIFIC_REPOSITORIES":
            told["repositoriesCount"] = len(own["repositories"])
        restrictions[type] = told
    return without_none(
        {
            **_reference(row),
            "domainName": domain.name,
            "domainOwner": domain.account,
            "createdTime": row.created,
            "contactInfo": row.doc["contactInfo"] or None,
            "description": row.doc["description"] or None,
            "originConfiguration": {"restrictions": restrictions},
            "parent": _reference(parents[0]) if parents else None,
        }
    )


def _find(a: Authorised, view: View, domain: Row) -> Row:
    pattern = str(a.input["packageGroup"])
    row = GROUP.get(view, domain.account, domain.region, group_name(domain.name, pattern))
    if row is None:
        raise missing("package-group", pattern, f"Package group not found. pattern: {pattern}")
    return row


@GROUP.operation(
    "CreatePackageGroup",
    asks=[
        Ask("codeartifact:CreatePackageGroup", this_domain),
        Ask("codeartifact:TagResource", this_group, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    domain, pattern = domain_of(a, tx), str(a.input["packageGroup"])
    if not _PATTERN.fullmatch(pattern):
        raise invalid(
            "A pattern is /*, or /FORMAT/* (pypi or generic), or /FORMAT/NAMESPACE/NAME with * (prefix), ~ (word boundary) "
            "or $ (exactly) at its end."
        )
    name = group_name(domain.name, pattern)
    groups = _groups(tx, domain)
    if pattern in groups:
        raise conflict("package-group", pattern, f"A package group with the pattern {pattern} exists already.")
    if len(groups) >= _MOST_GROUPS:
        raise Refused("ServiceQuotaExceededException", f"A domain has {_MOST_GROUPS} package groups at most here.", 402)
    doc = {
        "contactInfo": str(a.input.get("contactInfo") or ""),
        "description": str(a.input.get("description") or ""),
        "restrictions": {type: {"mode": "INHERIT"} for type in TYPES},
    }
    tags = tags_given(a.input.get("tags"), {})
    row = Row(GROUP.key, domain.account, domain.region, name, doc, "", tags, created=a.now)
    GROUP.insert(tx, row, a.operation.name, a.request.id)
    return {"packageGroup": _summary(groups, domain, row)}


@GROUP.reads("DescribePackageGroup", asks=[Ask("codeartifact:DescribePackageGroup", this_group)])
def describe(a: Authorised, view: View) -> Output:
    domain = domain_of(a, view)
    return {"packageGroup": _summary(_groups(view, domain), domain, _find(a, view, domain))}


@GROUP.operation("UpdatePackageGroup", asks=[Ask("codeartifact:UpdatePackageGroup", this_group)])
def update(a: Authorised, tx: Transaction) -> Output:
    domain = domain_of(a, tx)
    row = _find(a, tx, domain)
    for member in ("contactInfo", "description"):
        if a.input.get(member) is not None:
            row.doc[member] = str(a.input[member])
    GROUP.change(tx, row, a.operation.name, a.request.id)
    return {"packageGroup": _summary(_groups(tx, domain), domain, row)}


@GROUP.operation("DeletePackageGroup", asks=[Ask("codeartifact:DeletePackageGroup", this_group)])
def delete(a: Authorised, tx: Transaction) -> Output:
    domain = domain_of(a, tx)
    row = _find(a, tx, domain)
    if group_pattern(row) == ROOT:
        raise invalid("The root package group of a domain cannot be deleted.")
    output = {"packageGroup": _summary(_groups(tx, domain), domain, row)}
    GROUP.remove(tx, row, a.operation.name, a.request.id)
    return output


@GROUP.operation(
    "UpdatePackageGroupOriginConfiguration",
    asks=[Ask("codeartifact:UpdatePackageGroupOriginConfiguration", this_group)],
)
def restrict(a: Authorised, tx: Transaction) -> Output:
    domain = domain_of(a, tx)
    row = _find(a, tx, domain)
    held = row.doc["restrictions"]
    for type, mode in (a.input.get("restrictions") or {}).items():
        if mode == "INHERIT" and group_pattern(row) == ROOT:
            raise invalid("The root package group has no parent to inherit from.")
        before = held[type].get("repositories", [])
        held[type] = {"mode": mode, **({"repositories": before} if mode == "ALLOW_SPECIFIC_REPOSITORIES" else {})}
    told: dict[str, dict[str, list[str]]] = {}
    for member, word in (("addAllowedRepositories", "ADDED"), ("removeAllowedRepositories", "REMOVED")):
        for one in a.input.get(member) or ():
            type, name = one["originRestrictionType"], str(one["repositoryName"])
            if held[type]["mode"] != "ALLOW_SPECIFIC_REPOSITORIES":
                raise invalid(f"{type} of the group is not ALLOW_SPECIFIC_REPOSITORIES.")
            allowed = held[type]["repositories"]
            if word == "ADDED" and name not in allowed:
                find_repository(tx, domain, name)
                allowed.append(name)
                if len(allowed) > _MOST_ALLOWED:
                    raise Refused(
                        "ServiceQuotaExceededException", f"{_MOST_ALLOWED} repositories are allowed at most.", 402
                    )
            elif word == "REMOVED" and name in allowed:
                allowed.remove(name)
            told.setdefault(type, {}).setdefault(word, []).append(name)
    GROUP.change(tx, row, a.operation.name, a.request.id)
    return {"packageGroup": _summary(_groups(tx, domain), domain, row), "allowedRepositoryUpdates": told}


# -- lists ---------------------------------------------------------------------------------------------------------------


def _page(a: Authorised, names: list[str]) -> tuple[list[str], str | None]:
    after, limit = pages.position(a, a.input.get("nextToken")), limit_of(a)
    rest = [one for one in sorted(names) if after is None or one > after]
    return rest[:limit], pages.seal(a, rest[limit - 1]) if len(rest) > limit else None


@GROUP.reads("ListPackageGroups", asks=[Ask("codeartifact:ListPackageGroups", this_domain)])
def listed(a: Authorised, view: View) -> Output:
    domain, prefix = domain_of(a, view), str(a.input.get("prefix") or "")
    groups = _groups(view, domain)
    rows = {row.name: row for row in groups.values()}
    names, token = _page(a, [row.name for pattern, row in groups.items() if pattern.startswith(prefix)])
    return {"packageGroups": [_summary(groups, domain, rows[name]) for name in names], "nextToken": token}


@GROUP.reads("ListSubPackageGroups", asks=[Ask("codeartifact:ListSubPackageGroups", this_group)])
def listed_below(a: Authorised, view: View) -> Output:
    domain = domain_of(a, view)
    parent = _find(a, view, domain)
    groups = _groups(view, domain)
    rows = {row.name: row for row in groups.values()}
    below = [name for name, row in rows.items() if [one.name for one in _parents(groups, row)[:1]] == [parent.name]]
    names, token = _page(a, below)
    return {"packageGroups": [_summary(groups, domain, rows[name]) for name in names], "nextToken": token}


@GROUP.reads("ListAllowedRepositoriesForGroup", asks=[Ask("codeartifact:ListAllowedRepositoriesForGroup", this_group)])
def listed_allowed(a: Authorised, view: View) -> Output:
    row = _find(a, view, domain_of(a, view))
    names, token = _page(a, row.doc["restrictions"][a.input["originRestrictionType"]].get("repositories", []))
    return {"allowedRepositories": names, "nextToken": token}


@GROUP.reads("ListAssociatedPackages", asks=[Ask("codeartifact:ListAssociatedPackages", this_group)])
def listed_packages(a: Authorised, view: View) -> Output:
    domain, pattern = domain_of(a, view), str(a.input["packageGroup"])
    preview = bool(a.input.get("preview"))
    if not preview:
        _find(a, view, domain)
    found, groups = set(), _groups(view, domain)
    for repository in rows_below(view, REPOSITORY, domain, f"{domain.name}/"):
        for package in rows_below(view, PACKAGE, domain, f"{repository.name}/"):
            path = path_of_row(package)
            if covers(pattern, path) if preview else group_pattern(_chain(groups, path)[0]) == pattern:
                found.add(path)
    names, token = _page(a, list(found))
    return {"packages": [_package(path) for path in names], "nextToken": token}


def _package(path: str) -> dict[str, Any]:
    _, format, namespace, name = path.split("/", 3)
    return without_none(
        {"format": format, "namespace": namespace or None, "package": name, "associationType": "STRONG"}
    )


def _group_of(asked: Asked) -> list[str]:
    """The group that a package belongs to, which the question is about."""
    given = asked.input
    name = str(given["domain"])
    domain = DOMAIN.get(asked.view, owner(asked), asked.call.region, name)
    path = path_of(str(given["format"]), str(given.get("namespace") or ""), str(given["package"]))
    chain = _chain(_groups(asked.view, domain), path) if domain is not None else []
    row = chain[0].name if chain else group_name(name, ROOT)
    return [GROUP.arn(owner(asked), asked.call.region, row)]


@GROUP.reads("GetAssociatedPackageGroup", asks=[Ask("codeartifact:GetAssociatedPackageGroup", _group_of)])
def associated(a: Authorised, view: View) -> Output:
    domain = domain_of(a, view)
    path = path_of(str(a.input["format"]), str(a.input.get("namespace") or ""), str(a.input["package"]))
    groups = _groups(view, domain)
    return {"packageGroup": _summary(groups, domain, _chain(groups, path)[0]), "associationType": "STRONG"}
