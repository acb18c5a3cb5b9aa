"""Pages: positions in a list, sealed so that only who was given one can use it, for the list it was given for."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from bastide.domain import Refused
from bastide.kernel.call import Authorised

_NOT_FILTERS = frozenset(
    {
        "NextToken", "nextToken", "Marker", "ContinuationToken", "PaginationToken", "StartAfter",
        "MaxResults", "maxResults", "MaxItems", "MaxKeys", "Limit", "limit", "FetchOwner", "EncodingType",
        "ResourcesPerPage", "TagsPerPage", "PageToken", "PageSize",
    }
)  # fmt: skip
"""Members that say where a page begins, how long it is and how it is written: they may differ from page to page."""


def _bound_to(a: Authorised) -> str:
    filters = {key: value for key, value in a.input.items() if key not in _NOT_FILTERS}
    told = orjson.dumps(
        [a.caller.principal_arn, a.account, a.region, a.operation.service, a.operation.name, filters],
        option=orjson.OPT_SORT_KEYS,
        default=str,
    )
    return hashlib.sha256(told).hexdigest()[:32]


def seal(a: Authorised, position: Any) -> str:
    """A token for going on behind `position` (JSON)."""
    return a.calls.sealer.seal(orjson.dumps([_bound_to(a), position]), "page")


def position(a: Authorised, token: str | None, *, code: str = "ValidationException") -> Any:
    """The position a token stands for, None without one; raises Refused for a foreign or stale token."""
    if not token:
        return None
    try:
        bound, found = orjson.loads(a.calls.sealer.open(token, "page"))
    except (ValueError, Refused):
        bound, found = "", None
    if bound != _bound_to(a):
        raise Refused(code, "The pagination token is not valid for this request. Please start again without it.")
    return found
