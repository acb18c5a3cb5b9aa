"""Published versions: a configuration and its code, as they were.

Source: AWS Lambda API Reference, PublishVersion, ListVersionsByFunction.
"""

from __future__ import annotations

import copy
from typing import Any

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.lambda_ import configuration as config
from bastide.services.lambda_.noun import (
    FUNCTION,
    LATEST,
    VERSION,
    Named,
    find,
    limit_of,
    matches,
    named,
    this,
    version_key,
    version_row,
)
from bastide.store import Row, Transaction, View

_FUNCTIONS_OWN = ("_next", "_policies", "_reserved", "_events", "_told", "LastUpdateStatus")
"""What a function has and its versions have not."""


def publish(a: Authorised, tx: Transaction, what: Named, row: Row, text: str | None) -> Output:
    """A version of the function as it is now: the newest one again, if nothing has changed since; its description."""
    number = int(row.doc["_next"])
    before = version_row(tx, what, str(row.doc.get("_published") or 0))
    if before is not None and before.doc["_build"] == row.doc["_build"]:
        return config.shown(a, tx, row, before.doc, f"{what.function}:{before.doc['Version']}")
    doc: dict[str, Any] = {name: copy.deepcopy(value) for name, value in row.doc.items() if name not in _FUNCTIONS_OWN}
    doc["Version"] = str(number)
    if text:
        doc["Description"] = text
    config.touch(a, doc, built=False)
    tx.insert(Row(VERSION, what.account, what.region, version_key(what.name, number), doc), keep=False)
    row.doc["_next"], row.doc["_published"] = number + 1, number
    FUNCTION.change(tx, row, "VersionPublished", a.request.id)
    return config.shown(a, tx, row, doc, f"{what.function}:{number}")


@FUNCTION.operation("PublishVersion", asks=[Ask("lambda:PublishVersion", this)])
def publish_version(a: Authorised, tx: Transaction) -> Output:
    what, given = named(a), a.input
    config.unsupported(given)
    row = find(tx, what)
    config.settled(row)
    matches(given.get("RevisionId"), row.doc["RevisionId"])
    if given.get("CodeSha256") and given["CodeSha256"] != row.doc["CodeSha256"]:
        raise Refused(
            "InvalidParameterValueException",
            f"CodeSHA256 ({given['CodeSha256']}) is different from current CodeSHA256 in $LATEST "
            f"({row.doc['CodeSha256']}). Please try again with the CodeSHA256 in $LATEST.",
        )
    return publish(a, tx, what, row, given.get("Description"))


@FUNCTION.reads("ListVersionsByFunction", asks=[Ask("lambda:ListVersionsByFunction", this)])
def listed(a: Authorised, view: View) -> Output:
    what, limit = named(a), limit_of(a)
    row = find(view, what)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    found = []
    if after is None:
        found.append(config.shown(a, view, row, row.doc, f"{what.function}:{LATEST}"))
    room = limit - len(found)
    rows = view.scan(VERSION, what.account, what.region, prefix=f"{what.name}:", after=after, limit=room + 1)
    found += [config.shown(a, view, row, one.doc, f"{what.function}:{one.doc['Version']}") for one in rows[:room]]
    output: Output = {"Versions": found}
    if len(rows) > room:
        output["NextMarker"] = pages.seal(a, rows[room - 1].name if room else f"{what.name}:")
    return output
