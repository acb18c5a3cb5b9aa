"""Repositories: made, shown, listed, changed, deleted, tagged."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn
from bastide.engines import git
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Ask, Asked, Authorised, Output, anything, pages
from bastide.kernel.address import Address
from bastide.services.codecommit import sealing
from bastide.services.codecommit.noun import (
    NAMED,
    PACK,
    REFERENCE,
    REPOSITORY,
    arn_of,
    asks,
    branch,
    branch_name,
    checked_name,
    checked_texts,
    find,
    named,
    refused,
    repository,
    rows_of,
)
from bastide.services.codecommit.pull_request import of_repository
from bastide.store import Row, Transaction, View

_MOST_TAGS: Final = 50
_MOST_AT_ONCE: Final = 100
_PAGE: Final = 1000
_MOST: Final = 5000
"""Repositories of an account in a region, as AWS's quota can be raised to."""
_TEXTS: Final = (("repositoryDescription", 1000, "InvalidRepositoryDescription"),)


def shown(a: Authorised, row: Row) -> Output:
    """A repository as AWS shows it. There is no address for SSH."""
    found: Output = {
        "accountId": row.account,
        "repositoryId": row.doc["id"],
        "repositoryName": row.name,
        "repositoryDescription": row.doc.get("description"),
        "defaultBranch": row.doc.get("default"),
        "lastModifiedDate": row.modified,
        "creationDate": row.doc["created"],
        "cloneUrlHttp": f"{a.engine(Address).url}/v1/repos/{row.name}",
        "Arn": arn_of(row),
        "kmsKeyId": row.doc["kms"],
    }
    return {key: value for key, value in found.items() if value is not None}


def _tags(given: Mapping[str, Any] | None, before: Mapping[str, str]) -> dict[str, str]:
    tags = {**before, **{str(key): str(value) for key, value in (given or {}).items()}}
    for key, value in (given or {}).items():
        if str(key).lower().startswith("aws:"):
            raise refused("InvalidSystemTagUsage", "Tags whose keys begin with aws: are the system's.")
        if not 1 <= len(str(key)) <= 128 or len(str(value)) > 256:
            raise refused("InvalidTagsMap", "A tag's key has 1 to 128 characters, its value 256 at most.")
    if len(tags) > _MOST_TAGS:
        raise refused("TooManyTags", f"A repository has {_MOST_TAGS} tags at most.")
    return tags


@REPOSITORY.operation(
    "CreateRepository",
    asks=[
        *asks("CreateRepository"),
        Ask("codecommit:TagResource", repository(), when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = checked_name(str(a.input["repositoryName"]))
    checked_texts(a, _TEXTS)
    if REPOSITORY.get(tx, a.account, a.region, name) is not None:
        raise refused("RepositoryNameExists", f"Repository named {name} already exists")
    if tx.count(REPOSITORY.key, a.account, a.region, before="\U0010ffff", limit=_MOST) >= _MOST:
        raise refused("RepositoryLimitExceeded", f"An account has {_MOST} repositories at most.")
    id = str(uuid.uuid4())
    doc = {"id": id, "created": a.now, **sealing.founded(a, tx, id, str(a.input.get("kmsKeyId") or ""))}
    if a.input.get("repositoryDescription"):
        doc["description"] = a.input["repositoryDescription"]
    row = REPOSITORY.create(a, tx, name, doc, tags=_tags(a.input.get("tags"), {}))
    tx.insert(Row(NAMED, a.account, a.region, id, {"name": name}), keep=False)
    a.touched.append(arn_of(row))
    return {"repositoryMetadata": shown(a, row)}


@REPOSITORY.reads("GetRepository", asks=asks("GetRepository"))
def get(a: Authorised, view: View) -> Output:
    return {"repositoryMetadata": shown(a, named(a, view))}


@REPOSITORY.reads("BatchGetRepositories", asks=asks("BatchGetRepositories", "repositoryNames"))
def get_several(a: Authorised, view: View) -> Output:
    names = [checked_name(str(one)) for one in a.input["repositoryNames"]]
    if not names:
        raise refused("RepositoryNamesRequired", "At least one repository name is required.")
    if len(names) > _MOST_AT_ONCE:
        raise refused("MaximumRepositoryNamesExceeded", f"{_MOST_AT_ONCE} repositories at a time at most.")
    rows = {name: REPOSITORY.get(view, a.account, a.region, name) for name in names}
    errors = [
        {
            "repositoryName": name,
            "errorCode": "RepositoryDoesNotExistException",
            "errorMessage": f"{name} does not exist",
        }
        for name, row in rows.items()
        if row is None
    ]
    return {
        "repositories": [shown(a, row) for row in rows.values() if row is not None],
        "repositoriesNotFound": [one["repositoryName"] for one in errors],
        "errors": errors,
    }


@REPOSITORY.reads("ListRepositories", asks=[Ask("codecommit:ListRepositories", anything)])
def listed(a: Authorised, view: View) -> Output:
    by, order = str(a.input.get("sortBy") or "repositoryName"), str(a.input.get("order") or "ascending")
    rows = rows_of(view, REPOSITORY.key, a.account, a.region, "")
    rows.sort(
        key=lambda row: (row.modified if by == "lastModifiedDate" else 0, row.name), reverse=order == "descending"
    )
    start = int(pages.position(a, a.input.get("nextToken"), code="InvalidContinuationTokenException") or 0)
    found = [{"repositoryName": row.name, "repositoryId": row.doc["id"]} for row in rows[start : start + _PAGE]]
    token = pages.seal(a, start + _PAGE) if len(rows) > start + _PAGE else None
    return {"repositories": found, "nextToken": token}


@REPOSITORY.operation("UpdateRepositoryDescription", asks=asks("UpdateRepositoryDescription"))
def describe(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    checked_texts(a, _TEXTS)
    row.doc["description"] = a.input.get("repositoryDescription") or None
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


@REPOSITORY.operation("UpdateRepositoryName", asks=asks("UpdateRepositoryName", "oldName"))
def rename(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx, "oldName")
    name = checked_name(str(a.input["newName"]))
    if REPOSITORY.get(tx, a.account, a.region, name) is not None:
        raise refused("RepositoryNameExists", f"Repository named {name} already exists")
    REPOSITORY.remove(tx, row, a.operation.name, a.request.id)
    REPOSITORY.create(a, tx, name, row.doc, tags=row.tags)
    held = tx.get(NAMED, a.account, a.region, row.doc["id"])
    assert held is not None
    held.doc["name"] = name
    tx.update(held, keep=False)
    return {}


@REPOSITORY.operation("UpdateRepositoryEncryptionKey", asks=asks("UpdateRepositoryEncryptionKey"))
def encrypt(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    before = row.doc["kms"]
    row.doc |= sealing.moved(a, tx, row, str(a.input["kmsKeyId"]))
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {"repositoryId": row.doc["id"], "kmsKeyId": row.doc["kms"], "originalKmsKeyId": before}


@REPOSITORY.operation("UpdateDefaultBranch", asks=asks("UpdateDefaultBranch"))
def set_default(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    name = branch_name(a.input["defaultBranchName"])
    branch(tx, row, name)
    row.doc["default"] = name
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


# -- deleting ------------------------------------------------------------------------------------------------------------


async def _nothing(_: Authorised) -> dict[str, Any]:
    return {"files": [], "id": ""}


async def _forget(a: Authorised, output: Output) -> Output:
    for file in a.staged["files"]:
        await a.engine(Artifacts).delete(file)
    if a.staged["id"]:
        await a.engine(git.Git).forget(a.staged["id"])
    return output


@REPOSITORY.operation("DeleteRepository", asks=asks("DeleteRepository"), before=_nothing, after=_forget)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = REPOSITORY.get(tx, a.account, a.region, checked_name(str(a.input["repositoryName"])))
    if row is None:
        return {}
    id = row.doc["id"]
    a.staged["id"] = id
    for pack in rows_of(tx, PACK, "", "", f"{id}/"):
        a.staged["files"].append(pack.name.rpartition("/")[2])
        tx.delete(pack, keep=False)
    for one in rows_of(tx, REFERENCE.key, row.account, row.region, f"{id}/"):
        tx.delete(one, keep=False)
    for kind, below in of_repository(tx, row):
        kind.remove(tx, below, a.operation.name, a.request.id)
    held = tx.get(NAMED, row.account, row.region, id)
    if held is not None:
        tx.delete(held, keep=False)
    REPOSITORY.remove(tx, row, a.operation.name, a.request.id)
    return {"repositoryId": id}


# -- tags ----------------------------------------------------------------------------------------------------------------


def _by_arn(asked: Asked) -> Iterable[str]:
    return (str(asked.input["resourceArn"]),)


def _tagged(a: Authorised, view: View) -> Row:
    given = str(a.input["resourceArn"])
    try:
        where = Arn.parse(given)
    except ValueError:
        where = None
    if where is None or where.service != "codecommit" or given != REPOSITORY.arn(a.account, a.region, where.resource):
        raise refused("InvalidResourceArn", "resourceArn is the ARN of a repository of this account and region.")
    return find(view, a.account, a.region, where.resource)


@REPOSITORY.operation("TagResource", asks=[Ask("codecommit:TagResource", _by_arn)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = _tags(a.input["tags"], row.tags)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


@REPOSITORY.operation("UntagResource", asks=[Ask("codecommit:UntagResource", _by_arn)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


@REPOSITORY.reads("ListTagsForResource", asks=[Ask("codecommit:ListTagsForResource", _by_arn)])
def tags(a: Authorised, view: View) -> Output:
    return {"tags": dict(_tagged(a, view).tags)}
