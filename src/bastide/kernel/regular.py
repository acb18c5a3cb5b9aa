"""Regular operations: Describe, List, Delete and the tags of a noun, from the API's model and what the kernel keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bastide.domain import Refused, tag_list, tag_map
from bastide.kernel import pages
from bastide.kernel.call import Authorised
from bastide.kernel.kind import Ask, Kind, Output, anything
from bastide.protocol import codec
from bastide.store import Row, Transaction, View

_MOST_EXAMINED = 1000
"""Rows a filtered page looks at before it hands out a token instead; keeps the cost of a page bounded."""


def fill(kind: Kind, shape: Any, row: Row) -> dict[str, Any]:
    """The members of an output shape, by name, from what was given at creation and what the kernel keeps."""
    found: dict[str, Any] = {}
    doc = row.doc
    for name in shape.members:
        if name in doc:
            found[name] = doc[name]
        elif name == kind.named_by:
            found[name] = row.name
        elif name == f"{kind.name}Arn":
            found[name] = kind.arn(row.account, row.region, row.name)
        elif name == "CreationTime":
            found[name] = row.created
        elif name == "LastModifiedTime":
            found[name] = row.modified
        elif row.status and name in (f"{kind.name}Status", "Status"):
            found[name] = row.status
    return found


def regular(kind: Kind, *names: str, descending: bool = False, plural: str = "", tagged: bool = False) -> None:
    """Declares regular operations of `kind`: any of Describe, List, Delete. descending: the list's default order."""
    prefix = kind.arn_service
    for name in names:
        if name == "Describe":
            _describe(kind, prefix)
        elif name == "List":
            _list(kind, prefix, plural or f"{kind.name}s", descending)
        elif name == "Delete":
            _delete(kind, prefix)
        else:
            raise ValueError(f"`{name}` is not a regular operation")


def _describe(kind: Kind, prefix: str) -> None:
    operation = f"Describe{kind.name}"

    def handle(a: Authorised, view: View) -> Output:
        return fill(kind, codec(kind.service).operations[operation].output_shape, kind.named(a, view))

    kind.reads(operation, asks=[Ask(f"{prefix}:{operation}", kind.this)])(handle)


def _delete(kind: Kind, prefix: str) -> None:
    operation = f"Delete{kind.name}"

    def handle(a: Authorised, tx: Transaction) -> Output:
        kind.remove(tx, kind.named(a, tx), operation, a.request.id)
        return {}

    kind.operation(operation, asks=[Ask(f"{prefix}:{operation}", kind.this)])(handle)


def _list(kind: Kind, prefix: str, plural: str, descending: bool) -> None:
    operation = f"List{plural}"

    def handle(a: Authorised, view: View) -> Output:
        shape = codec(kind.service).operations[operation].output_shape
        member = next(name for name, one in shape.members.items() if one.type_name == "list")
        summary = shape.members[member].member
        rows, token = page(kind, a, view, descending=descending)
        return {member: [fill(kind, summary, row) for row in rows], "NextToken": token}

    kind.reads(operation, asks=[Ask(f"{prefix}:{operation}", anything)])(handle)


def page(
    kind: Kind,
    a: Authorised,
    view: View,
    *,
    descending: bool = False,
    most: int = 100,
    keep: Callable[[Row], bool] = lambda _: True,
) -> tuple[list[Row], str | None]:
    """One page of the caller's own resources as SageMaker's lists sort and filter them, and the token for the next.
    keep: a further filter."""
    asked = a.input
    limit = int(asked.get("MaxResults") or 10)
    order = "name" if asked.get("SortBy") == "Name" else "created"
    way = asked.get("SortOrder")
    backwards = descending if way is None else way == "Descending"
    status = asked.get("StatusEquals")
    contains = str(asked.get("NameContains") or "").lower()
    after = pages.position(a, asked.get("NextToken"))
    found: list[Row] = []
    examined = 0
    while True:
        rows = view.scan(
            kind.key,
            a.account,
            kind.region(a.region),
            order="name" if order == "name" else "created",
            descending=backwards,
            after=tuple(after) if isinstance(after, list) else after,
            status=status if status and order == "created" else None,
            created_from=asked.get("CreationTimeAfter") if order == "created" else None,
            created_to=asked.get("CreationTimeBefore") if order == "created" else None,
            limit=min(limit, most) + 1,
        )
        for row in rows:
            if len(found) == limit:
                return found, pages.seal(a, after)
            examined += 1
            after = row.name if order == "name" else [row.created, row.name]
            if contains and contains not in row.name.lower():
                continue
            if status and row.status != status:
                continue
            if (
                not asked.get("CreationTimeAfter", row.created)
                <= row.created
                <= asked.get("CreationTimeBefore", row.created)
            ):
                continue
            if row.modified < asked.get("LastModifiedTimeAfter", 0):
                continue
            if row.modified > asked.get("LastModifiedTimeBefore", row.modified) or not keep(row):
                continue
            found.append(row)
        if len(rows) <= min(limit, most):
            return found, None
        if examined >= _MOST_EXAMINED:
            return found, pages.seal(a, after)


def tags_of(a: Authorised, code: str = "ValidationException") -> dict[str, str]:
    """The tags a Create call brings; raises Refused for duplicates, reserved keys, or more than 50."""
    tags = tag_map(a.input.get("Tags"), code=code)
    if len(tags) > 50:
        raise Refused(code, "A resource may have at most 50 tags.")
    return tags


def tags_shown(row: Row) -> list[dict[str, str]]:
    """A row's tags as AWS lists them."""
    return tag_list(row.tags)
