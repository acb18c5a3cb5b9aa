"""Finding resources by their tags. Every page is a walk along an index of tags; where several filters have to hold, the
first leads and a page ends early, with a token, when it has looked at enough.

Source: AWS Resource Groups Tagging API Reference, GetResources, GetTagKeys, GetTagValues.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Final

from bastide.domain import tag_list
from bastide.kernel import Ask, Authorised, Kind, Output, anything, pages
from bastide.services.resourcegroupstaggingapi.noun import (
    HOME,
    TAGGED,
    arn_of,
    here,
    invalid,
    kinds,
    place,
    resource,
    type_of,
)
from bastide.store import Row, View

_EXPIRED: Final = "PaginationTokenExpiredException"
_EXAMINED: Final = 1000
"""Rows a page looks at before it hands out a token instead."""
_STEP: Final = 100
_NAMES: Final = 500
"""Keys and values of one page."""
_ALONE: Final = ("TagFilters", "ResourceTypeFilters", "ResourcesPerPage", "TagsPerPage", "PaginationToken")


def _rows(a: Authorised, view: View, kind: Kind, after: str, key: str | None, value: str | None) -> Iterator[Row]:
    account, region = place(a, kind)
    while True:
        rows = view.tagged(kind.key, account, region, key=key, value=value, after=after, limit=_STEP)
        yield from rows
        if len(rows) < _STEP:
            return
        after = rows[-1].name


def _led(a: Authorised, view: View, kind: Kind, after: str, leader: dict[str, Any] | None) -> Iterator[Row]:
    """A kind's rows by name that the leading filter lets pass."""
    if leader is None:
        return _rows(a, view, kind, after, None, None)
    values = list(dict.fromkeys(leader.get("Values") or ())) or [None]
    walks = [_rows(a, view, kind, after, leader["Key"], value) for value in values]
    return heapq.merge(*walks, key=lambda row: row.name.encode())


def _passes(row: Row, filters: list[dict[str, Any]]) -> bool:
    for one in filters:
        value = row.tags.get(one["Key"])
        if value is None or (one.get("Values") and value not in one["Values"]):
            return False
    return True


def _wanted(a: Authorised) -> Callable[[Kind], bool]:
    types = a.input.get("ResourceTypeFilters") or ()
    for type in types:
        service, colon, noun = type.partition(":")
        if not service or (colon and not noun):
            raise invalid(f"The resource type filter `{type[:256]}` is not of the form service or service:type.")
    names = frozenset(types)
    return lambda kind: not names or bool(names & {type_of(kind), kind.arn_service})


def _filters(a: Authorised) -> list[dict[str, Any]]:
    filters = a.input.get("TagFilters") or []
    for one in filters:
        if not one.get("Key"):
            raise invalid("Every tag filter needs a key.")
        if len(one.get("Values") or ()) > 20:
            raise invalid("A tag filter takes up to 20 values.")
    # One whose values are given leads to fewer resources than one that only wants the key.
    return sorted(filters, key=lambda one: not one.get("Values"))


def _limits(a: Authorised) -> tuple[int, int]:
    resources = a.input.get("ResourcesPerPage")
    tags = a.input.get("TagsPerPage")
    if resources is not None and not 1 <= resources <= 100:
        raise invalid("ResourcesPerPage must be from 1 to 100.")
    if tags is not None and (not 100 <= tags <= 500 or tags % 100):
        raise invalid("TagsPerPage must be a multiple of 100 from 100 to 500.")
    return int(resources or 100), int(tags or 0)


def _shown(a: Authorised, view: View, kind: Kind, row: Row) -> Output:
    shown: Output = {"ResourceARN": arn_of(kind, row), "Tags": tag_list(row.tags)}
    if a.input.get("IncludeComplianceDetails"):
        keys, values = a.calls.organisation.tag_faults(view, a.account, row.tags)
        shown["ComplianceDetails"] = {
            "NoncompliantKeys": keys,
            "KeysWithNoncompliantValues": values,
            "ComplianceStatus": not (keys or values),
        }
    return shown


def _compliant(shown: Output) -> bool:
    return bool(shown["ComplianceDetails"]["ComplianceStatus"])


@TAGGED.reads("GetResources", asks=[Ask("tag:GetResources", anything)])
def get_resources(a: Authorised, view: View) -> Output:
    """The account's resources of the region that have tags, filtered by tags and types, or those of a list of ARNs."""
    leave_out = bool(a.input.get("ExcludeCompliantResources"))
    if leave_out and not a.input.get("IncludeComplianceDetails"):
        raise invalid("ExcludeCompliantResources needs IncludeComplianceDetails.")
    named = a.input.get("ResourceARNList")
    if named:
        if any(a.input.get(one) for one in _ALONE):
            raise invalid("ResourceARNList cannot be given together with filters or pages.")
        some = [resource(a, view, arn) for arn in dict.fromkeys(named)]
        found = [_shown(a, view, kind, row) for kind, row in some if row.tags]
        return {
            "ResourceTagMappingList": [one for one in found if not (leave_out and _compliant(one))],
            "PaginationToken": "",
        }
    most, most_tags = _limits(a)
    filters, wanted = _filters(a), _wanted(a)
    start = pages.position(a, a.input.get("PaginationToken"), code=_EXPIRED) or ["", ""]
    found = []
    tags = examined = 0
    last = start
    for kind in kinds(a):
        if kind.key < start[0] or not wanted(kind):
            continue
        after = start[1] if kind.key == start[0] else ""
        for row in _led(a, view, kind, after, filters[0] if filters else None):
            full = len(found) == most or (most_tags and found and tags + len(row.tags) > most_tags)
            if full or examined == _EXAMINED:
                return {"ResourceTagMappingList": found, "PaginationToken": pages.seal(a, last)}
            examined += 1
            last = [kind.key, row.name]
            if not here(a, row) or not _passes(row, filters):
                continue
            shown = _shown(a, view, kind, row)
            if not (leave_out and _compliant(shown)):
                found.append(shown)
                tags += len(row.tags)
    return {"ResourceTagMappingList": found, "PaginationToken": ""}


# -- keys and values -------------------------------------------------------------------------------------------------


def _places(a: Authorised) -> list[tuple[str, str]]:
    """Where tags that the caller may see are kept. What has no region, buckets included, counts for the home region."""
    found = [(a.account, a.region)]
    if a.region == HOME:
        found.append((a.account, ""))
        if a.account == a.calls.home:
            found.append(("", ""))
    return found


def _names(a: Authorised, member: str, lists: list[list[str]]) -> Output:
    """A page of the names of several ordered lists of at most _NAMES + 1 each."""
    names = list(dict.fromkeys(heapq.merge(*lists, key=str.encode)))
    shown = names[:_NAMES]
    return {member: shown, "PaginationToken": pages.seal(a, shown[-1]) if len(names) > _NAMES else ""}


@TAGGED.reads("GetTagKeys", asks=[Ask("tag:GetTagKeys", anything)])
def get_tag_keys(a: Authorised, view: View) -> Output:
    """The keys that the account's resources of the region are tagged with."""
    after = pages.position(a, a.input.get("PaginationToken"), code=_EXPIRED) or ""
    return _names(a, "TagKeys", [view.tag_keys(*where, after=after, limit=_NAMES + 1) for where in _places(a)])


@TAGGED.reads("GetTagValues", asks=[Ask("tag:GetTagValues", anything)])
def get_tag_values(a: Authorised, view: View) -> Output:
    """The values that they have under one key."""
    after = pages.position(a, a.input.get("PaginationToken"), code=_EXPIRED)
    key = a.input["Key"]
    return _names(a, "TagValues", [view.tag_values(*where, key, after=after, limit=_NAMES + 1) for where in _places(a)])
