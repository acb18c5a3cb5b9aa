"""Repositories: made, described, listed, changed, deleted; their upstreams, endpoints and public connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.indexes import PublicIndex
from bastide.engines.indexes.channels import Channels
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.kernel.address import Address
from bastide.services.codeartifact import sealing
from bastide.services.codeartifact.content import released
from bastide.services.codeartifact.noun import (
    PACKAGE,
    PUBLIC,
    REPOSITORY,
    VERSION,
    conflict,
    domain_of,
    find_repository,
    invalid,
    limit_of,
    name_of,
    repository_arn,
    repository_of,
    rows_below,
    supported,
    tags_given,
    this_domain,
    this_repository,
    without_none,
)
from bastide.store import Row, Transaction, View

_MOST_UPSTREAMS: Final = 10
_BY_ADMINISTRATOR: Final = "codeartifact:RepositoryOf"
"""Rows ``DOMAIN-OWNER/DOMAIN/REPOSITORY`` below the administrator's account, for its list."""


def _summary(row: Row) -> dict[str, Any]:
    return without_none(
        {
            "name": name_of(row),
            "administratorAccount": row.doc["administrator"],
            "domainName": row.name.partition("/")[0],
            "domainOwner": row.account,
            "arn": REPOSITORY.arn(row.account, row.region, row.name),
            "description": row.doc["description"],
            "createdTime": row.created,
        }
    )


def _shown(row: Row) -> Output:
    connections = [
        {"externalConnectionName": one, "packageFormat": "pypi" if one == PUBLIC else "conda", "status": "Available"}
        for one in row.doc["connections"]
    ]
    upstreams = [{"repositoryName": one} for one in row.doc["upstreams"]]
    return {"repository": {**_summary(row), "upstreams": upstreams, "externalConnections": connections}}


def _upstream_arns(asked: Asked) -> Iterable[str]:
    return [repository_arn(asked, str(one["repositoryName"])) for one in asked.input.get("upstreams") or ()]


_LINKED: Final = Ask(
    "codeartifact:AssociateWithDownstreamRepository",
    _upstream_arns,
    when=lambda asked: bool(asked.input.get("upstreams")),
)


def _upstreams(tx: View, domain: Row, name: str, given: Any) -> list[str]:
    """The upstreams of a repository; raises Refused for what is not there, twice, or upstream of itself."""
    wanted = [str(one["repositoryName"]) for one in given or ()]
    if len(wanted) > _MOST_UPSTREAMS:
        raise Refused("ServiceQuotaExceededException", f"A repository has {_MOST_UPSTREAMS} upstreams at most.", 402)
    if len(set(wanted)) < len(wanted):
        raise invalid("A repository is an upstream once.")
    seen: set[str] = set()
    ahead = list(wanted)
    while ahead:
        one = ahead.pop()
        if one == name:
            raise invalid(f"The repository {name} would be an upstream of itself.")
        if one not in seen:
            seen.add(one)
            ahead += find_repository(tx, domain, one).doc["upstreams"]
    return wanted


@REPOSITORY.operation(
    "CreateRepository",
    asks=[
        Ask("codeartifact:CreateRepository", this_domain),
        _LINKED,
        Ask("codeartifact:TagResource", this_repository, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    domain, name = domain_of(a, tx), str(a.input["repository"])
    key = f"{domain.name}/{name}"
    if REPOSITORY.get(tx, domain.account, domain.region, key) is not None:
        raise conflict("repository", name, f"A repository with the name {name} exists in the domain {domain.name}.")
    doc = {
        "administrator": a.account,
        "description": a.input.get("description"),
        "upstreams": _upstreams(tx, domain, name, a.input.get("upstreams")),
        "connections": [],
    }
    tags = tags_given(a.input.get("tags"), {})
    row = Row(REPOSITORY.key, domain.account, domain.region, key, doc, "", tags, created=a.now)
    REPOSITORY.insert(tx, row, a.operation.name, a.request.id)
    tx.insert(Row(_BY_ADMINISTRATOR, a.account, a.region, f"{domain.account}/{key}", {}), keep=False)
    return _shown(row)


@REPOSITORY.reads("DescribeRepository", asks=[Ask("codeartifact:DescribeRepository", this_repository)])
def describe(a: Authorised, view: View) -> Output:
    return _shown(repository_of(a, view))


@REPOSITORY.operation("UpdateRepository", asks=[Ask("codeartifact:UpdateRepository", this_repository), _LINKED])
def update(a: Authorised, tx: Transaction) -> Output:
    row = repository_of(a, tx)
    if a.input.get("description") is not None:
        row.doc["description"] = a.input["description"]
    if a.input.get("upstreams") is not None:
        upstreams = _upstreams(tx, domain_of(a, tx), name_of(row), a.input["upstreams"])
        row.doc["upstreams"] = upstreams
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return _shown(row)


@REPOSITORY.reads("ListRepositories", asks=[Ask("codeartifact:ListRepositories", anything)])
def listed(a: Authorised, view: View) -> Output:
    """Those that the caller's account made, whoever's the domain is."""
    after, limit = pages.position(a, a.input.get("nextToken")), limit_of(a)
    prefix = str(a.input.get("repositoryPrefix") or "")
    found: list[Row] = []
    token = None
    while rows := view.scan(_BY_ADMINISTRATOR, a.account, a.region, after=after, limit=500):
        for one in rows:
            owner, _, name = one.name.partition("/")
            row = REPOSITORY.get(view, owner, a.region, name)
            if row is not None and name_of(row).startswith(prefix):
                if len(found) == limit:
                    return {"repositories": [_summary(row) for row in found], "nextToken": token}
                found.append(row)
                token = pages.seal(a, one.name)
        after = rows[-1].name
    return {"repositories": [_summary(row) for row in found]}


@REPOSITORY.reads("ListRepositoriesInDomain", asks=[Ask("codeartifact:ListRepositoriesInDomain", this_domain)])
def listed_in_domain(a: Authorised, view: View) -> Output:
    domain, limit = domain_of(a, view), limit_of(a)
    prefix = f"{domain.name}/{a.input.get('repositoryPrefix') or ''}"
    after = pages.position(a, a.input.get("nextToken"))
    rows = view.scan(REPOSITORY.key, domain.account, domain.region, prefix=prefix, after=after, limit=limit + 1)
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    wanted = a.input.get("administratorAccount")
    shown = [_summary(row) for row in rows[:limit] if wanted in (None, row.doc["administrator"])]
    return {"repositories": shown, "nextToken": token}


async def _nothing(_: Authorised) -> list[str]:
    return []


async def _forget(a: Authorised, output: Output) -> Output:
    await sealing.drop(a.calls, a.staged or [])
    return output


@REPOSITORY.operation(
    "DeleteRepository", asks=[Ask("codeartifact:DeleteRepository", this_repository)], before=_nothing, after=_forget
)
def delete(a: Authorised, tx: Transaction) -> Output:
    """Deletes a repository and what is in it; not one that another has as its upstream: whoever made one of that name
    later would be asked in its place."""
    row, name = repository_of(a, tx), str(a.input["repository"])
    domain = domain_of(a, tx)
    below = [one for one in rows_below(tx, REPOSITORY, domain, f"{domain.name}/") if name in one.doc["upstreams"]]
    if below:
        raise conflict(
            "repository",
            name,
            f"The repository {name} is an upstream of {name_of(below[0])}; take it away there first.",
        )
    for version in rows_below(tx, VERSION, domain, f"{row.name}/"):
        a.staged += released(tx, domain, version)
        VERSION.remove(tx, version, a.operation.name, a.request.id)
    for package in rows_below(tx, PACKAGE, domain, f"{row.name}/"):
        PACKAGE.remove(tx, package, a.operation.name, a.request.id)
    held = tx.get(_BY_ADMINISTRATOR, row.doc["administrator"], row.region, f"{row.account}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    REPOSITORY.remove(tx, row, a.operation.name, a.request.id)
    return _shown(row)


# -- the endpoint --------------------------------------------------------------------------------------------------------


def endpoint(a: Authorised, domain: Row, name: str) -> str:
    """Where package managers reach a repository: its host on AWS, from inside of a VPC, and a path here otherwise."""
    host = f"{domain.name}-{domain.account}.d.codeartifact.{domain.region}"
    if a.request.vpce:
        return f"https://{host}.amazonaws.com/pypi/{name}/"
    return f"{a.engine(Address).url}/_codeartifact/{host}/pypi/{name}/"


@REPOSITORY.reads("GetRepositoryEndpoint", asks=[Ask("codeartifact:GetRepositoryEndpoint", this_repository)])
def get_endpoint(a: Authorised, view: View) -> Output:
    repository_of(a, view)
    if a.input["format"] != "pypi":
        supported(str(a.input["format"]))
        raise invalid("Packages of the format generic have no endpoint; use PublishPackageVersion and their assets.")
    if a.input.get("endpointType") == "dualstack":
        raise invalid("endpointType dualstack is not supported by Bastide; leave it out.")
    return {"repositoryEndpoint": endpoint(a, domain_of(a, view), str(a.input["repository"]))}


# -- the public connection -----------------------------------------------------------------------------------------------


@REPOSITORY.operation(
    "AssociateExternalConnection", asks=[Ask("codeartifact:AssociateExternalConnection", this_repository)]
)
def associate(a: Authorised, tx: Transaction) -> Output:
    row, wanted = repository_of(a, tx), str(a.input["externalConnection"])
    channel = wanted.removeprefix("public:")
    if wanted != PUBLIC and (not wanted.startswith("public:") or not a.engine(Channels).there(channel)):
        raise invalid(
            f"externalConnection is {PUBLIC}, or public: and a conda channel that this platform's operator has loaded with "
            "`bastide packages load --channel CHANNEL FOLDER`; Bastide knows no other public repository."
        )
    if row.doc["connections"]:
        held = row.doc["connections"][0]
        raise conflict("repository", name_of(row), f"The repository has the external connection {held} already.")
    if wanted == PUBLIC and not a.engine(PublicIndex).there():
        raise invalid(
            f"This platform has no {PUBLIC}: its operator gives it one with `bastide packages load FOLDER`, or with "
            "`bastide up --package-index URL`."
        )
    row.doc["connections"] = [wanted]
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return _shown(row)


@REPOSITORY.operation(
    "DisassociateExternalConnection", asks=[Ask("codeartifact:DisassociateExternalConnection", this_repository)]
)
def disassociate(a: Authorised, tx: Transaction) -> Output:
    row, wanted = repository_of(a, tx), str(a.input["externalConnection"])
    if wanted not in row.doc["connections"]:
        raise invalid(f"The repository has no external connection {wanted}.")
    row.doc["connections"] = []
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return _shown(row)
