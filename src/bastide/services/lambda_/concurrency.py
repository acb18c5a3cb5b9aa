"""How many events are handled at once: of an account, and of a function that has its own share.

Source: AWS Lambda API Reference, PutFunctionConcurrency, GetAccountSettings; Lambda Developer Guide, "Understanding Lambda
function scaling".
"""

from __future__ import annotations

from typing import Final

from bastide.domain import Refused
from bastide.engines.placement import Placement
from bastide.kernel import Ask, Authorised, Calls, Output, anything
from bastide.services.lambda_.code import MOST_UNZIPPED
from bastide.services.lambda_.noun import FUNCTION, find, invalid, named, this
from bastide.store import Transaction, View

_ACCOUNT: Final = 1000
_UNRESERVED: Final = 100
_MOST_CODE: Final = 80_530_636_800
_DIRECT: Final = 52_428_800


def account_limit(calls: Calls) -> int:
    """Of every account; ``lambda/concurrent-executions`` of the configuration's quotas."""
    found = calls.engine(Placement).quota("lambda", "concurrent-executions")
    return _ACCOUNT if found is None else found


def reserved(view: View, account: str, region: str) -> dict[str, int]:
    """The functions that have a share of their own."""

    def load() -> dict[str, int]:
        found: dict[str, int] = {}
        after: str | None = None
        while True:
            rows = view.scan(FUNCTION.key, account, region, after=after, limit=500)
            found.update({row.name: int(row.doc["_reserved"]) for row in rows if "_reserved" in row.doc})
            if len(rows) < 500:
                return found
            after = rows[-1].name

    return view.memo(("lambda:reserved", account, region), ((FUNCTION.key, account),), load)


@FUNCTION.operation("PutFunctionConcurrency", asks=[Ask("lambda:PutFunctionConcurrency", this)])
def put(a: Authorised, tx: Transaction) -> Output:
    what, wanted = named(a), int(a.input["ReservedConcurrentExecutions"])
    row = find(tx, what)
    others = sum(value for name, value in reserved(tx, what.account, what.region).items() if name != what.name)
    most = account_limit(a.calls)
    least = min(_UNRESERVED, most // 10)
    if most - others - wanted < least:
        raise invalid(
            f"Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
            f"its minimum value of [{least}]."
        )
    row.doc["_reserved"] = wanted
    FUNCTION.change(tx, row, a.operation.name, a.request.id)
    return {"ReservedConcurrentExecutions": wanted}


@FUNCTION.reads("GetFunctionConcurrency", asks=[Ask("lambda:GetFunctionConcurrency", this)])
def get(a: Authorised, view: View) -> Output:
    row = find(view, named(a))
    return {"ReservedConcurrentExecutions": row.doc["_reserved"]} if "_reserved" in row.doc else {}


@FUNCTION.operation("DeleteFunctionConcurrency", asks=[Ask("lambda:DeleteFunctionConcurrency", this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = find(tx, named(a))
    if row.doc.pop("_reserved", None) is not None:
        FUNCTION.change(tx, row, a.operation.name, a.request.id)
    return {}


@FUNCTION.reads("GetAccountSettings", asks=[Ask("lambda:GetAccountSettings", anything)])
def settings(a: Authorised, view: View) -> Output:
    count, size = 0, 0
    after: str | None = None
    while rows := view.scan(FUNCTION.key, a.account, a.region, after=after, limit=500):
        count, size = count + len(rows), size + sum(int(row.doc["CodeSize"]) for row in rows)
        after = rows[-1].name
    most = account_limit(a.calls)
    held = sum(reserved(view, a.account, a.region).values())
    return {
        "AccountLimit": {
            "TotalCodeSize": _MOST_CODE,
            "CodeSizeUnzipped": MOST_UNZIPPED,
            "CodeSizeZipped": _DIRECT,
            "ConcurrentExecutions": most,
            "UnreservedConcurrentExecutions": most - held,
        },
        "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
    }


def throttled(*, own: bool) -> Refused:
    """TooManyRequestsException."""
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded" if own else "ConcurrentInvocationLimitExceeded"
    return Refused("TooManyRequestsException", "Rate Exceeded.", 429, members={"Reason": reason, "Type": "User"})
