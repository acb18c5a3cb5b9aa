"""ListSecrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.secretsmanager.secret import SECRET, described, gone, invalid
from bastide.store import Row, View

_MOST_EXAMINED: Final = 1000
"""Rows a filtered page looks at before it hands out a token instead."""
_WORDS: Final = re.compile(r"[/_+=.@\s-]+")


def _begins(text: str, value: str) -> bool:
    """Case counts only in names and descriptions that are looked for by their beginning, as in AWS."""
    return text.startswith(value)


def _words_begin(text: str, value: str) -> bool:
    """Each word that is looked for begins one of the description's."""
    words = text.split()
    return all(any(word.startswith(part) for word in words) for part in value.split())


def _texts(row: Row, key: str) -> list[str]:
    if key == "name":
        return [row.name]
    if key == "description":
        return [row.doc["Description"]]
    if key == "tag-key":
        return list(row.tags)
    if key == "tag-value":
        return list(row.tags.values())
    if key == "all":
        words = [row.name, row.doc["Description"], *row.tags, *row.tags.values()]
        return [part.lower() for text in words for part in (text, *_WORDS.split(text))]
    raise invalid(f"The filter key {key} is not supported by Bastide yet.")


def _test(key: str, values: list[str]) -> Callable[[Row], bool]:
    wanted = [(value[1:], False) if value.startswith("!") else (value, True) for value in values]
    begins = _words_begin if key == "description" else _begins
    if key == "all":
        wanted = [(value.lower(), positive) for value, positive in wanted]

    def test(row: Row) -> bool:
        texts = _texts(row, key)
        return any(any(begins(text, value) for text in texts) is positive for value, positive in wanted)

    return test


@SECRET.reads("ListSecrets", asks=[Ask("secretsmanager:ListSecrets", anything)])
def listed(a: Authorised, view: View) -> Output:
    tests = [_test(str(one["Key"]), [str(value) for value in one["Values"]]) for one in a.input.get("Filters") or ()]
    if a.input.get("SortBy") not in (None, "name", "created-date"):
        raise invalid(f"Sorting by {a.input['SortBy']} is not supported by Bastide yet.")
    order: Any = "name" if a.input.get("SortBy") == "name" else "created"
    size = int(a.input.get("MaxResults") or 100)
    after = pages.position(a, a.input.get("NextToken"), code="InvalidNextTokenException")
    found: list[Output] = []
    examined = 0
    while examined < _MOST_EXAMINED:
        rows = view.scan(
            SECRET.key,
            a.account,
            a.region,
            order=order,
            descending=a.input.get("SortOrder") == "desc",
            after=tuple(after) if isinstance(after, list) else after,
            limit=size + 1,
        )
        for row in rows:
            if len(found) == size:
                return {"SecretList": found, "NextToken": pages.seal(a, after)}
            examined += 1
            after = row.name if order == "name" else [row.created, row.name]
            if row.doc.get("deletes") and (not a.input.get("IncludePlannedDeletion") or gone(row, a.now)):
                continue
            if all(test(row) for test in tests):
                stages = {id: one["stages"] for id, one in row.doc["versions"].items() if one["stages"]}
                found.append(described(row) | ({"SecretVersionsToStages": stages} if stages else {}))
        if len(rows) <= size:
            return {"SecretList": found}
    return {"SecretList": found, "NextToken": pages.seal(a, after)}
