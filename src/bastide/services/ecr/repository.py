"""Repositories: making, describing and deleting them, their tags, and whether their images' tags may move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Facts, Kind, Output, pages
from bastide.kernel.address import Address
from bastide.policy import Attached, Document, Form
from bastide.services.ecr import registry_policy, sealing
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
SCAN: Final = Kind("ImageScan", service="ecr", arn="image-scan/{}", tags=False, history=False)
"""Rows ``REPOSITORY@DIGEST``: what a scan found last."""
PREVIEW: Final = Kind("LifecyclePreview", service="ecr", arn="lifecycle-preview/{}", tags=False, history=False)
"""Rows ``REPOSITORY``: what a lifecycle policy would do, as it was asked last."""
LIFECYCLES: Final = "ecr:LifecycleIndex"
"""Rows of no account: ARNs of repositories with a lifecycle policy."""
DUE: Final = "ecr:ScanDue"
"""Rows of no account, ``ACCOUNT|REGION|REPOSITORY@DIGEST``: images that are to be scanned."""
_HOLDER: Final = "ecr:Holder"
"""Rows of no account, ``ACCOUNT|REGION``: where there are repositories."""

_NAME: Final = re.compile(r"(?=.{2,256}\Z)(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_MUTABLE: Final = ("MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION")
_MOST_FILTERS: Final = 5
_MOST_WILDCARDS: Final = 2
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


def enlisted(tx: Transaction, index: str, name: str) -> None:
    """Puts a name into an index."""
    if tx.get(index, "", "", name) is None:
        tx.insert(Row(index, "", "", name, {}), keep=False)


def unlisted(tx: Transaction, index: str, name: str) -> None:
    """Takes a name out of an index."""
    held = tx.get(index, "", "", name)
    if held is not None:
        tx.delete(held, keep=False)


def arn_of(row: Row) -> str:
    """A repository's ARN."""
    return REPOSITORY.arn(row.account, row.region, row.name)


def facts(view: View, where: Arn, _: str) -> Facts | None:
    """Whose a repository is, also one that is not there yet, its tags, and what its policy and its registry's say."""
    if where.type != "repository":
        return None
    row = REPOSITORY.get(view, where.account, where.region, where.resource.removeprefix("repository/"))
    above = registry_policy.policy(view, where.account, where.region)
    own, doc = row.doc if row is not None else {}, above.doc if above is not None else {}
    text = registry_policy.together(str(own.get("policy") or ""), str(doc.get("policy") or ""))
    named = f"policies of the registry and of {where}" if doc else f"policy of {where}"
    policy = Attached(Document.parse_cached(text, Form.RESOURCE), named) if text else None
    return Facts(
        where.account, row.tags if row is not None else {}, policy, type="Repository", text=text,
        principals={**doc.get("principals", {}), **own.get("principals", {})},
    )  # fmt: skip


# -- making --------------------------------------------------------------------------------------------------------------


def _tags(given: Any, before: Mapping[str, str]) -> dict[str, str]:
    tags = {**before, **tag_map(given, code="InvalidTagParameterException")}
    if len(tags) > _MOST_TAGS:
        raise Refused("TooManyTagsException", f"A repository may have {_MOST_TAGS} tags at most.")
    return tags


def _mutability(given: Mapping[str, Any]) -> dict[str, Any]:
    """Whether tags may move, and the filters of those for which it is the other way round."""
    wanted = str(given.get("imageTagMutability") or "MUTABLE")
    filters = [str(one["filter"]) for one in given.get("imageTagMutabilityExclusionFilters") or ()]
    if wanted not in _MUTABLE:
        raise invalid(f"imageTagMutability is one of {', '.join(_MUTABLE)}.")
    if wanted.endswith("_WITH_EXCLUSION") != bool(filters):
        raise invalid(
            "imageTagMutabilityExclusionFilters belong to IMMUTABLE_WITH_EXCLUSION and MUTABLE_WITH_EXCLUSION."
        )
    if len(filters) > _MOST_FILTERS or any(one.count("*") > _MOST_WILDCARDS for one in filters):
        raise invalid(f"there are at most {_MOST_FILTERS} filters, each with {_MOST_WILDCARDS} wildcards at most.")
    return {"imageTagMutability": wanted, "filters": filters}


def immutable(repository: Row, tag: str) -> bool:
    """Whether a tag of a repository may not move."""
    excluded = any(wildcard(one).fullmatch(tag) for one in repository.doc.get("filters") or ())
    return str(repository.doc["imageTagMutability"]).startswith("IMMUTABLE") != excluded


def wildcard(pattern: str) -> re.Pattern[str]:
    """A filter of the type WILDCARD: ``*`` stands for any characters."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


def _shown_mutability(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"imageTagMutability": row.doc["imageTagMutability"]}
    if row.doc.get("filters"):
        found["imageTagMutabilityExclusionFilters"] = [
            {"filterType": "WILDCARD", "filter": one} for one in row.doc["filters"]
        ]
    return found


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
    if REPOSITORY.get(tx, a.account, a.region, name) is not None:
        raise Refused(
            "RepositoryAlreadyExistsException",
            f"The repository with name '{name}' already exists in the registry with id '{a.account}'",
        )
    doc: dict[str, Any] = {
        **_mutability(given),
        "scanOnPush": bool((given.get("imageScanningConfiguration") or {}).get("scanOnPush")),
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
        **_shown_mutability(row),
        "imageScanningConfiguration": {"scanOnPush": bool(row.doc.get("scanOnPush"))},
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
    for kind, mark in ((IMAGE, "@"), (TAG, ":"), (LAYER, "@"), (UPLOAD, "@"), (SCAN, "@")):
        for one in rows_of(tx, kind, row, mark):
            a.staged.extend(one.doc.get("parts", ()))
            kind.remove(tx, one, a.operation.name, a.request.id)
    preview = PREVIEW.get(tx, row.account, row.region, row.name)
    if preview is not None:
        PREVIEW.remove(tx, preview, a.operation.name, a.request.id)
    unlisted(tx, LIFECYCLES, arn_of(row))
    REPOSITORY.remove(tx, row, a.operation.name, a.request.id)
    return output


@REPOSITORY.operation("PutImageTagMutability", asks=[Ask("ecr:PutImageTagMutability", this)])
def put_mutability(a: Authorised, tx: Transaction) -> Output:
    row = named(a, tx)
    row.doc |= _mutability(a.input)
    REPOSITORY.change(tx, row, a.operation.name, a.request.id)
    return {"registryId": row.account, "repositoryName": row.name, **_shown_mutability(row)}


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
