"""What was done about controls: each operation is over when its call is answered."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.controltower.noun import OPERATION, management, operation_shown
from bastide.store import Row, View

_FILTERS: Final = {
    "controlIdentifiers": "controlIdentifier", "targetIdentifiers": "targetIdentifier",
    "enabledControlIdentifiers": "enabledControlIdentifier", "controlOperationTypes": "operationType",
}  # fmt: skip


@OPERATION.reads("GetControlOperation", asks=[Ask("controltower:GetControlOperation", anything)])
def get(a: Authorised, view: View) -> Output:
    management(a)
    row = OPERATION.find(view, a.account, a.region, str(a.input["operationIdentifier"]))
    return {"controlOperation": operation_shown(row)}


def _meant(row: Row, wanted: dict[str, Any]) -> bool:
    said = all(row.doc[key] in wanted[name] for name, key in _FILTERS.items() if wanted.get(name))
    return said and row.status in (wanted.get("statuses") or [row.status])


@OPERATION.reads("ListControlOperations", asks=[Ask("controltower:ListControlOperations", anything)])
def listed(a: Authorised, view: View) -> Output:
    management(a)
    wanted, limit = a.input.get("filter") or {}, int(a.input.get("maxResults") or 100)
    after = pages.position(a, a.input.get("nextToken"))
    found: list[Row] = []
    while len(found) <= limit and (rows := view.scan(OPERATION.key, a.account, a.region, after=after, limit=500)):
        found += [row for row in rows if _meant(row, wanted)]
        after = rows[-1].name
    output: Output = {"controlOperations": [operation_shown(row) for row in found[:limit]]}
    if len(found) > limit:
        output["nextToken"] = pages.seal(a, found[limit - 1].name)
    return output
