"""Lists as experiments and lineage have them: newest first, by CreatedAfter and CreatedBefore."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.kernel import Authorised, Kind, Output, fill, pages
from bastide.protocol import codec
from bastide.store import Row, View

_MOST_EXAMINED: Final = 1000


def listed(
    a: Authorised,
    view: View,
    kind: Kind,
    *,
    among: Iterable[str] | None = None,
    keep: Callable[[Row], bool] = lambda _: True,
    show: Callable[[Row], dict[str, Any]] = lambda _: {},
) -> Output:
    """A page of the operation's output. among: names to choose from instead of all there are (few: they are sorted here).
    keep: a filter. show: members of a summary beside those that `fill` finds."""
    members = codec(kind.service).operations[a.operation.name].output_shape.members
    name = next(one for one, shape in members.items() if shape.type_name == "list")
    rows, token = _page(a, view, kind, among, keep)
    return {name: [{**fill(kind, members[name].member, row), **show(row)} for row in rows], "NextToken": token}


def _page(
    a: Authorised, view: View, kind: Kind, among: Iterable[str] | None, keep: Callable[[Row], bool]
) -> tuple[list[Row], str | None]:
    given = a.input
    limit = int(given.get("MaxResults") or 10)
    by_name = given.get("SortBy") == "Name"
    backwards = given.get("SortOrder", "Descending") == "Descending"
    since, until = given.get("CreatedAfter"), given.get("CreatedBefore")
    after = pages.position(a, given.get("NextToken"))
    found: list[Row] = []

    def place(row: Row) -> Any:
        return row.name if by_name else [row.created, row.name]

    if among is not None:
        rows = [row for one in among if (row := kind.get(view, a.account, a.region, one)) is not None and keep(row)]
        rows = [row for row in rows if (since or 0) <= row.created <= (until or row.created)]
        rows.sort(key=place, reverse=backwards)
        for row in rows:
            if after is not None and (place(row) >= after if backwards else place(row) <= after):
                continue
            if len(found) == limit:
                return found, pages.seal(a, place(found[-1]))
            found.append(row)
        return found, None
    examined = 0
    while True:
        rows = view.scan(
            kind.key, a.account, a.region, order="name" if by_name else "created", descending=backwards,
            after=tuple(after) if isinstance(after, list) else after,
            created_from=since, created_to=until, limit=limit + 1,
        )  # fmt: skip
        for row in rows:
            if len(found) == limit or examined >= _MOST_EXAMINED:
                return found, pages.seal(a, after)
            examined += 1
            after = place(row)
            if keep(row):
                found.append(row)
        if len(rows) <= limit:
            return found, None
