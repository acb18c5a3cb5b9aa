"""Repositories: making, describing and deleting them, their tags, and whether their images' tags may move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, pages
from bastide.kernel.address import Address
from bastide.policy import Attached, Document, Form
from bastide.services.ecr import sealing
from bastide.store import Row, Transaction, View

REPOSITORY: Final = Kind("Repository", service="ecr", arn="repository/{}", named_by="repositoryName")
IMAGE: Final = Kind("Image", service="ecr", arn="image/{}", tags=False, history=False)
"""Rows ``REPOSITORY@DIGEST``, below the registry's account."""
TAG: Final = Kind("ImageTag", service="ecr", arn="image-tag/{}", tags=False, history=False)
"""Rows ``REPOSITORY:TAG`` with the digest that the tag means."""
LAYER: Final = Kind("Layer", service="ecr", arn="layer/{}", tags=False, history=False)
"""Rows ``REPOSITORY@DIGEST``."""
UPLOAD: Final = Kind("LayerUpload", service="ecr", arn="layer-upload/{}", tags=False, history=False)
"""Rows ``REPOSITORY@ID``: layers that are not whole yet."""
_HOLDER: Final = "ecr:Holder"
"""Rows of no account, ``ACCOUNT|REGION``: where there are repositories."""

_NAME: Final = re.compile(r"(?=.{2,256}\Z)(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_MUTABLE: Final = ("MUTABLE", "IMMUTABLE")
_MOST_TAGS: Final = 50
_MOST_AT_ONCE: Final = 1000


def invalid(message: str) -> Refused:
    """InvalidParameterException."""
    return Refused("InvalidParameterException", f"Invalid parameter: {message}")


# -- what a call is about ------------------------------------------------------------------------------------------------


def registry(asked: Asked) -> str:
    """The registry, an account, that the call names; the caller's own if it names none."""
    return str(asked.input.get("registryId") or asked.call.account)


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the repository that the call names."""
    return (REPOSITORY.arn(registry(asked), asked.call.region, str(asked.input["repositoryName"])),)


def named(a: Authorised, view: View) -> Row:
    """The repository that the call names; raises RepositoryNotFoundException."""
    return find(view, str(a.input.get("registryId") or a.account), a.region, str(a.input["repositoryName"]))


def find(view: View, account: str, region: str, name: str) -> Row:
    """A repository; raises RepositoryNotFoundException."""
    row = REPOSITORY.get(view, account, region, name)
    if row is None:
        raise Refused(
            "RepositoryNotFoundException",
            f"The repository with name '{name}' does not exist in the registry with id '{account}'",
        )
    return row


def arn_of(row: Row) -> str:
    """A repository's ARN."""
    return REPOSITORY.arn(row.account, row.region, row.name)


def facts(view: View, where: Arn, _: str) -> Facts | None:
    """Whose a repository is, its tags and its policy."""
    if where.type != "repository":
        return None
    row = REPOSITORY.get(view, where.account, where.region, where.resource.removeprefix("repository/"))
    if row is None:
        return Facts(where.account, type="Repository")
    text = str(row.doc.get("policy") or "")
    policy = Attached(Document.parse_cached(text, Form.RESOURCE), f"policy of {where}") if text else None
    return Facts(
        where.account, row.tags, policy, type="Repository", text=text, principals=row.doc.get("principals", {})
    )


# -- making --------------------------------------------------------------------------------------------------------------


def _tags(given: Any, before: Mapping[str, str]) -> dict[str, str]:
    tags = {**before, **tag_map(given, code="InvalidTagParameterException")}
    if len(tags) > _MOST_TAGS:
        raise Refused("TooManyTagsException", f"A repository may have {_MOST_TAGS} tags at most.")
    return tags


def _mutability(given: Mapping[str, Any]) -> str:
    wanted = str(given.get("imageTagMutability") or "MUTABLE")
    if wanted not in _MUTABLE or given.get("imageTagMutabilityExclusionFilters"):
        raise invalid("exclusions from tag mutability are not supported by Bastide yet; use MUTABLE or IMMUTABLE.")
    return wanted


def _made(asked: Asked) -> Iterable[str]:
    return (REPOSITORY.arn(asked.call.account, asked.call.region, str(asked.input["repositoryName"])),)


@REPOSITORY.operation(
    "CreateRepository",
    asks=[
        Ask("ecr:CreateRepository", _made),
        Ask("ecr:TagResource", _made, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    name = str(given["repositoryName"])
    if not _NAME.fullmatch(name):
        raise invalid(
            f"'repositoryName' failed to satisfy constraint: '{name}' has lower case letters and digits, in parts joined "
            "by one of ._-/"
        )
    if str(given.get("registryId") or a.account) != a.account:
        raise invalid("a repository is made in the registry of the caller's own account.")
    if (given.get("imageScanningConfiguration") or {}).get("scanOnPush"):
        raise invalid("scanOnPush is not supported by Bastide yet.")
    if REPOSITORY.get(tx, a.account, a.region, name) is not None:
        raise Refused(
            "RepositoryAlreadyExistsException",
            f"The repository with name '{name}' already exists in the registry with id '{a.account}'",
        )
    doc: dict[str, Any] = {
        "imageTagMutability": _mutability(given),
        "encryptionConfiguration": sealing.founded(a, tx, REPOSITORY.arn(a.account, a.region, name)),
    }
    row = REPOSITORY.create(a, tx, name, doc, tags=_tags(given.get("tags"), {}))
    holder = f"{a.account}|{a.region}"
    if tx.get(_HOLDER, "", "", holder) is None:
        tx.insert(Row(_HOLDER, "", "", holder, {}), keep=False)
    a.touched.append(arn_of(row))
    return {"repository": shown(a, row)}


def holders(view: View) -> list[tuple[str, str]]:
    """Accounts and regions that have had repositories."""
    found: list[tuple[str, str]] = []
    after: str | None = None
    while rows := view.scan(_HOLDER, "", "", after=after, limit=1000):
        found += [(row.name.partition("|")[0], row.name.partition("|")[2]) for row in rows]
        after = rows[-1].name
    return found


def shown(a: Authorised, row: Row) -> Output:
    """A repository as AWS shows it."""
    host = a.engine(Address).host
    return {
        "repositoryArn": arn_of(row),
        "registryId": row.account,
        "repositoryName": row.name,
        "repositoryUri": f"{host}/{row.account}.dkr.ecr.{row.region}/{row.name}",
        "createdAt": row.created,
        "imageTagMutability": row.doc["imageTagMutability"],
        "imageScanningConfiguration": {"scanOnPush": False},
        "encryptionConfiguration": row.doc["encryptionConfiguration"],
    }


def _described(asked: Asked) -> Iterable[str]:
    names = asked.input.get("repositoryNames") or ("*",)
    return [REPOSITORY.arn(registry(asked), asked.call.region, str(name)) for name in names]


@REPOSITORY.reads("DescribeRepositories", asks=[Ask("ecr:DescribeRepositories", _described)])
def describe(a: Authorised, view: View) -> Output:
    account = str(a.input.get("registryId") or a.account)
    if not _ACCOUNT.fullmatch(account):
        raise invalid("registryId is an account.")
    names = a.input.get("repositoryNames")
    if names:
        if a.input.get("nextToken") or a.input.get("maxResults"):
            raise invalid("nextToken and maxResults cannot be used together with repositoryNames.")
        return {"repositories": [shown(a, find(view, account, a.region, str(name))) for name in names]}
    limit = min(int(a.input.get("maxResults") or 100), _MOST_AT_ONCE)
    after = pages.position(a, a.input.get("nextToken"), code="InvalidParameterException")
    rows = view.scan(REPOSITORY.key, account, a.region, after=after, limit=limit + 1)
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    return {"repositories": [shown(a, row) for row in rows[:limit]], "nextToken": token}


def rows_of(view: View, kind: Kind, repository: Row, mark: str = "@") -> list[Row]:
    """All rows of a kind that a repository has."""
    found: list[Row] = []
    prefix = f"{repository.name}{mark}"
    after: str | None = None
    while True:
        rows = view.scan(kind.key, repository.account, repository.region, prefix=prefix, after=after, limit=500)
        found += rows
        if len(rows) < 500:
            return found
        after = rows[-1].name


async def _forget(a: Authorised, output: Output) -> Output:
    for part in a.staged or ():
        await sealing.drop(a, part)
    return output


async def _nothing(_: Authorised) -> list[str]:
    return []


@REPOSITORY.operation("DeleteRepository", asks=[Ask("ecr:DeleteRepository", this)], before=_nothing, after=_forget)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    if tx.scan(IMAGE.key, row.account, row.region, prefix=f"{row.name}@", limit=1) and not a.input.get("force"):
        raise Refused(
            "RepositoryNotEmptyException",
            f"The repository with name '{row.name}' in registry with id '{row.account}' cannot be deleted because it "
            "still contains images",
        )
    output = {"repository": shown(a, row)}
    for kind, mark in ((IMAGE, "@"), (TAG, ":"), (LAYER, "@"), (UPLOAD, "@")):
        for one in rows_of(tx, kind, row, mark):
            a.staged.extend(one.doc.get("parts", ()))
            kind.remove(tx, one, a.operation.name, a.request.id)
    REPOSITORY.remove(tx, row, a.operation.name, a.request.id)
    return output


@REPOSITORY.operation("PutImageTagMutability", asks=[Ask("ecr:PutImageTagMutability", this)])
def put_mutability(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    row.doc["imageTagMutability"] = _mutability(a.input)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {
        "registryId": row.account,
        "repositoryName": row.name,
        "imageTagMutability": row.doc["imageTagMutability"],
    }


# -- tags ----------------------------------------------------------------------------------------------------------------


def _by_arn(asked: Asked) -> Iterable[str]:
    return (str(asked.input["resourceArn"]),)


def _tagged(a: Authorised, view: View) -> Row:
    given = str(a.input["resourceArn"])
    try:
        where = Arn.parse(given)
    except ValueError:
        raise invalid("resourceArn is not an ARN.") from None
    name = where.resource.removeprefix("repository/")
    if where.service != "ecr" or given != REPOSITORY.arn(where.account, a.region, name):
        raise invalid("resourceArn is not the ARN of a repository of this region.")
    return find(view, where.account, where.region, name)


@REPOSITORY.operation("TagResource", asks=[Ask("ecr:TagResource", _by_arn)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = _tags(a.input["tags"], row.tags)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


@REPOSITORY.operation("UntagResource", asks=[Ask("ecr:UntagResource", _by_arn)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {}


@REPOSITORY.reads("ListTagsForResource", asks=[Ask("ecr:ListTagsForResource", _by_arn)])
def tags(a: Authorised, view: View) -> Output:
    return {"tags": tag_list(_tagged(a, view).tags)}
