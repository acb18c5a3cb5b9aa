"""Projects: how a build is to be made."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.codebuild import checking, conditions, network
from bastide.services.codebuild.buildspec import PYTHON
from bastide.services.codebuild.noun import (
    PROJECT,
    ask,
    batch,
    find,
    in_order,
    invalid,
    look_up,
    passing,
    projects,
    tags_of,
    tags_shown,
)
from bastide.services.codebuild.session import check_role
from bastide.store import Row, Transaction, View

_MOST: Final = 100


def shown(row: Row) -> dict[str, Any]:
    """A project as the API has it."""
    told = {key: value for key, value in row.doc.items() if not key.startswith("_")}
    told |= {
        "name": row.name,
        "arn": PROJECT.arn(row.account, row.region, row.name),
        "tags": tags_shown(row.tags),
        "badge": {"badgeEnabled": False},
        "projectVisibility": "PRIVATE",
    }
    told.setdefault("encryptionKey", default_key(row.account, row.region))
    return told


def default_key(account: str, region: str) -> str:
    """What artifacts are encrypted under unless a project says otherwise."""
    return f"arn:aws:kms:{region}:{account}:alias/aws/s3"


async def _before(a: Authorised) -> None:
    given = a.input
    role, config = given.get("serviceRole"), given.get("vpcConfig")
    with a.calls.store.reading() as view:
        row = PROJECT.get(view, a.account, a.region, given["name"])
    role = role or (row.doc["serviceRole"] if row is not None else None)
    if not role:
        return  # there is no such project: the handler says so
    arn = PROJECT.arn(a.account, a.region, given["name"])
    where = {"account": a.account, "region": a.region, "source_arn": arn}
    await check_role(a.calls, role, **where)
    await network.check(a.calls, role, checking.vpc(config), **where)


def _checked(a: Authorised, given: dict[str, Any]) -> dict[str, Any]:
    doc = checking.project(given)
    kinds = {one["type"] for one in (doc["source"], *doc["secondarySources"])}
    if "CODECOMMIT" in kinds and a.calls.registry.operation("codecommit", "GitPull") is None:
        raise invalid("Invalid project source: CodeCommit does not exist in Bastide.")
    return doc


@PROJECT.operation(
    "CreateProject",
    asks=[Ask("codebuild:CreateProject", projects("name"), more=conditions.PROJECT_KEYS), passing()],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    doc = _checked(a, a.input)
    doc |= {"created": tx.now, "lastModified": tx.now, "_builds": 0, "_cache": 0}
    row = PROJECT.create(a, tx, a.input["name"], doc, tags=tags_of(a))
    return {"project": shown(row)}


@PROJECT.operation(
    "UpdateProject",
    asks=[Ask("codebuild:UpdateProject", projects("name"), more=conditions.PROJECT_KEYS), passing()],
    before=_before,
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = find(a, tx, PROJECT, a.input["name"])
    before = {key: value for key, value in row.doc.items() if not key.startswith("_")}
    given = {**before, **{key: value for key, value in a.input.items() if value is not None and key != "tags"}}
    given["name"] = row.name
    if a.input.get("concurrentBuildLimit") == -1:
        given.pop("concurrentBuildLimit")
    row.doc = {
        **_checked(a, given),
        "created": row.doc["created"],
        "lastModified": tx.now,
        "_builds": row.doc["_builds"],
        "_cache": row.doc["_cache"],
    }
    if a.input.get("tags") is not None:
        row.tags = tags_of(a)
    PROJECT.change(tx, row, a.operation.name, a.request.id)
    return {"project": shown(row)}


@PROJECT.operation("DeleteProject", asks=[ask("DeleteProject", projects("name"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    # Who deletes what is not there has what is wanted; so does AWS. Builds stay.
    row = look_up(a, tx, PROJECT, a.input["name"])
    if row is not None:
        PROJECT.remove(tx, row, a.operation.name, a.request.id)
    return {}


@PROJECT.operation("InvalidateProjectCache", asks=[ask("InvalidateProjectCache", projects("projectName"))])
def invalidate_cache(a: Authorised, tx: Transaction) -> Output:
    row = find(a, tx, PROJECT, a.input["projectName"])
    row.doc["_cache"] += 1
    PROJECT.change(tx, row, a.operation.name, a.request.id)
    return {}


@PROJECT.reads("BatchGetProjects", asks=[ask("BatchGetProjects", projects("names"))])
def batch_get(a: Authorised, view: View) -> Output:
    if len(a.input["names"]) > _MOST:
        raise invalid(f"Invalid names: at most {_MOST} at a time.")
    there, missing = batch(a, view, PROJECT, a.input["names"], shown)
    return {"projects": there, "projectsNotFound": missing}


@PROJECT.reads("ListCuratedEnvironmentImages", asks=[Ask("codebuild:ListCuratedEnvironmentImages", anything)])
def curated(a: Authorised, view: View) -> Output:
    described = f"Bastide's environment of builds, Python {PYTHON}"
    linux = [{"name": name, "description": described, "versions": [name]} for name in checking.CURATED]
    languages = [{"language": one, "images": linux} for one in ("BASE", "PYTHON", "DOCKER")]
    return {"platforms": [{"platform": "AMAZON_LINUX", "languages": languages}]}


@PROJECT.reads("ListProjects", asks=[Ask("codebuild:ListProjects", anything)])
def list_(a: Authorised, view: View) -> Output:
    rows, token = in_order(a, view, PROJECT)
    return {"projects": [row.name for row in rows], "nextToken": token}
