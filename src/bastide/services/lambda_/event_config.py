"""What becomes of events that are handled asynchronously: how often they are tried, how old they get, who is told.

Source: AWS Lambda API Reference, PutFunctionEventInvokeConfig; Lambda Developer Guide, "Capturing records of Lambda
asynchronous invocations".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.lambda_.noun import (
    FUNCTION,
    LATEST,
    Named,
    find,
    invalid,
    limit_of,
    named,
    resolved,
    this,
    this_qualified,
)
from bastide.store import Row, Transaction, View

_KINDS: Final = ("sqs", "sns", "lambda", "events")


def _checked(given: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"OnSuccess": {}, "OnFailure": {}}
    for which in found:
        target = ((given or {}).get(which) or {}).get("Destination")
        if not target:
            continue
        try:
            service = Arn.parse(target).service
        except ValueError:
            service = ""
        if service not in _KINDS:
            raise invalid(
                f"The provided destination config DestinationConfig({which}) is invalid: {target} is no queue of SQS, "
                "topic of SNS, function, or event bus."
            )
        found[which] = {"Destination": target}
    return found


def _place(a: Authorised, view: View) -> tuple[Named, Row, str]:
    what = named(a)
    row = find(view, what)
    if what.qualifier not in ("", LATEST):
        resolved(view, what)
    return what, row, what.qualifier or LATEST


def _shown(what: Named, qualifier: str, held: Mapping[str, Any]) -> Output:
    return {"FunctionArn": f"{what.function}:{qualifier}", **held}


def _missing(what: Named, qualifier: str) -> Refused:
    return Refused(
        "ResourceNotFoundException",
        f"The function {what.function}:{qualifier} doesn't have an EventInvokeConfig",
        404,
    )


def _kept(a: Authorised, tx: Transaction, before: Mapping[str, Any]) -> Output:
    what, row, qualifier = _place(a, tx)
    held = dict(before) | {"LastModified": a.now}
    for member in ("MaximumRetryAttempts", "MaximumEventAgeInSeconds"):
        if a.input.get(member) is not None:
            held[member] = int(a.input[member])
    if a.input.get("DestinationConfig") is not None or "DestinationConfig" not in held:
        held["DestinationConfig"] = _checked(a.input.get("DestinationConfig"))
    row.doc.setdefault("_events", {})[qualifier] = held
    FUNCTION.change(tx, row, a.operation.name, a.request.id)
    return _shown(what, qualifier, held)


@FUNCTION.operation("PutFunctionEventInvokeConfig", asks=[Ask("lambda:PutFunctionEventInvokeConfig", this_qualified)])
def put(a: Authorised, tx: Transaction) -> Output:
    return _kept(a, tx, {})


@FUNCTION.operation(
    "UpdateFunctionEventInvokeConfig", asks=[Ask("lambda:UpdateFunctionEventInvokeConfig", this_qualified)]
)
def update(a: Authorised, tx: Transaction) -> Output:
    what, row, qualifier = _place(a, tx)
    held = (row.doc.get("_events") or {}).get(qualifier)
    if held is None:
        raise _missing(what, qualifier)
    return _kept(a, tx, held)


@FUNCTION.reads("GetFunctionEventInvokeConfig", asks=[Ask("lambda:GetFunctionEventInvokeConfig", this_qualified)])
def get(a: Authorised, view: View) -> Output:
    what, row, qualifier = _place(a, view)
    held = (row.doc.get("_events") or {}).get(qualifier)
    if held is None:
        raise _missing(what, qualifier)
    return _shown(what, qualifier, held)


@FUNCTION.operation(
    "DeleteFunctionEventInvokeConfig", asks=[Ask("lambda:DeleteFunctionEventInvokeConfig", this_qualified)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    what, row, qualifier = _place(a, tx)
    if (row.doc.get("_events") or {}).pop(qualifier, None) is None:
        raise _missing(what, qualifier)
    FUNCTION.change(tx, row, a.operation.name, a.request.id)
    return {}


@FUNCTION.reads("ListFunctionEventInvokeConfigs", asks=[Ask("lambda:ListFunctionEventInvokeConfigs", this)])
def listed(a: Authorised, view: View) -> Output:
    what, limit = named(a), limit_of(a)
    row = find(view, what)
    after = pages.position(a, a.input.get("Marker"), code="InvalidParameterValueException")
    held = row.doc.get("_events") or {}
    names = sorted(name for name in held if after is None or name > after)
    output: Output = {"FunctionEventInvokeConfigs": [_shown(what, name, held[name]) for name in names[:limit]]}
    if len(names) > limit:
        output["NextMarker"] = pages.seal(a, names[limit - 1])
    return output


def of(row: Row, qualifier: str) -> dict[str, Any]:
    """What holds for events that came for a qualifier."""
    held: dict[str, Any] = (row.doc.get("_events") or {}).get(qualifier or LATEST) or {}
    return held
