"""Domains: what packages are kept in, under one key."""

from __future__ import annotations

from typing import Any

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.codeartifact import sealing
from bastide.services.codeartifact.group import found_root
from bastide.services.codeartifact.noun import (
    CONTENT,
    DOMAIN,
    GROUP,
    HOLDER,
    REPOSITORY,
    conflict,
    domain_of,
    find_domain,
    limit_of,
    missing,
    rows_below,
    shown_tags,
    tags_given,
    this_domain,
    without_none,
)
from bastide.store import Row, Transaction, View


def _arn(row: Row) -> str:
    return DOMAIN.arn(row.account, row.region, row.name)


def _summary(row: Row) -> dict[str, Any]:
    return without_none(
        {
            "name": row.name,
            "owner": row.account,
            "arn": _arn(row),
            "status": "Active",
            "createdTime": row.created,
            "encryptionKey": row.doc["key"] or None,
        }
    )


def _shown(view: View, row: Row) -> Output:
    repositories = view.count(
        REPOSITORY.key, row.account, row.region, at_or_after=f"{row.name}/", before=f"{row.name}0", limit=1_000_000
    )
    size = sum(one.doc["size"] for one in rows_below(view, CONTENT, row, f"{row.name}/"))
    return {"domain": {**_summary(row), "repositoryCount": repositories, "assetSizeBytes": size}}


def _made(asked: Any) -> list[str]:
    return [DOMAIN.arn(asked.call.account, asked.call.region, str(asked.input["domain"]))]


@DOMAIN.operation(
    "CreateDomain",
    asks=[
        Ask("codeartifact:CreateDomain", anything),
        Ask("codeartifact:TagResource", _made, when=lambda asked: bool(asked.input.get("tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = str(a.input["domain"])
    if DOMAIN.get(tx, a.account, a.region, name) is not None:
        raise conflict("domain", name, f"A domain with the name {name} already exists in the account {a.account}.")
    key = sealing.founded(a, tx, DOMAIN.arn(a.account, a.region, name))
    row = DOMAIN.create(a, tx, name, {"key": key}, tags=tags_given(a.input.get("tags"), {}))
    found_root(tx, row, a.operation.name, a.request.id)
    holder = f"{a.account}|{a.region}"
    if tx.get(HOLDER, "", "", holder) is None:
        tx.insert(Row(HOLDER, "", "", holder, {}), keep=False)
    return _shown(tx, row)


@DOMAIN.reads("DescribeDomain", asks=[Ask("codeartifact:DescribeDomain", this_domain)])
def describe(a: Authorised, view: View) -> Output:
    return _shown(view, domain_of(a, view))


@DOMAIN.reads("ListDomains", asks=[Ask("codeartifact:ListDomains", anything)])
def listed(a: Authorised, view: View) -> Output:
    after, limit = pages.position(a, a.input.get("nextToken")), limit_of(a)
    rows = view.scan(DOMAIN.key, a.account, a.region, after=after, limit=limit + 1)
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    return {"domains": [_summary(row) for row in rows[:limit]], "nextToken": token}


@DOMAIN.operation("DeleteDomain", asks=[Ask("codeartifact:DeleteDomain", this_domain)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = domain_of(a, tx)
    if tx.scan(REPOSITORY.key, row.account, row.region, prefix=f"{row.name}/", limit=1):
        raise conflict(
            "domain", row.name, f"The domain {row.name} cannot be deleted because it still has repositories."
        )
    output = _shown(tx, row)
    for group in rows_below(tx, GROUP, row, f"{row.name}/"):
        GROUP.remove(tx, group, a.operation.name, a.request.id)
    DOMAIN.remove(tx, row, a.operation.name, a.request.id)
    output["domain"]["status"] = "Deleted"
    return output


# -- tags of everything that has some ------------------------------------------------------------------------------------


def _by_arn(asked: Any) -> list[str]:
    return [str(asked.input["resourceArn"])]


def _tagged(a: Authorised, view: View) -> tuple[Any, Row]:
    given = str(a.input["resourceArn"])
    try:
        where = Arn.parse(given)
    except ValueError:
        raise Refused("ValidationException", "resourceArn is not an ARN.") from None
    kind = {"domain": DOMAIN, "repository": REPOSITORY, "package-group": GROUP}.get(where.type)
    name = where.resource.partition("/")[2]
    if where.service != "codeartifact" or kind is None or given != kind.arn(where.account, a.region, name):
        raise Refused(
            "ValidationException", "resourceArn is not that of a domain, repository or package group of this region."
        )
    find_domain(view, where.account, where.region, name.partition("/")[0])
    row = kind.get(view, where.account, where.region, name)
    if row is None:
        raise missing(where.type, name, f"Resource not found: {given}")
    return kind, row


@DOMAIN.operation("TagResource", asks=[Ask("codeartifact:TagResource", _by_arn)])
def tag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged(a, tx)
    row.tags = tags_given(a.input["tags"], row.tags)
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@DOMAIN.operation("UntagResource", asks=[Ask("codeartifact:UntagResource", _by_arn)])
def untag(a: Authorised, tx: Transaction) -> Output:
    kind, row = _tagged(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@DOMAIN.reads("ListTagsForResource", asks=[Ask("codeartifact:ListTagsForResource", _by_arn)])
def tags(a: Authorised, view: View) -> Output:
    return {"tags": shown_tags(_tagged(a, view)[1])}
