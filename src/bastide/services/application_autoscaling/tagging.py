"""Tags of scalable targets."""

from __future__ import annotations

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, member
from bastide.services.application_autoscaling.target import TARGET
from bastide.store import Row, Transaction, View

_MOST = 50


def _row(a: Authorised, view: View) -> Row:
    given = a.input["ResourceARN"]
    try:
        where = TARGET.locate(given, a.account, a.region)
    except Refused:
        where = ("", "", "")
    row = TARGET.get(view, *where) if where[:2] == (a.account, a.region) else None
    if row is None:
        raise Refused("ResourceNotFoundException", f"There is no scalable target {given[:300]}.")
    return row


@TARGET.operation("TagResource", asks=[Ask("application-autoscaling:TagResource", member("ResourceARN"))])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {**row.tags, **a.input["Tags"]}
    if len(row.tags) > _MOST:
        raise Refused("TooManyTagsException", f"A scalable target has at most {_MOST} tags.")
    TARGET.change(tx, row, a.operation.name, a.request.id)
    return {}


@TARGET.operation("UntagResource", asks=[Ask("application-autoscaling:UntagResource", member("ResourceARN"))])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    TARGET.change(tx, row, a.operation.name, a.request.id)
    return {}


@TARGET.reads("ListTagsForResource", asks=[Ask("application-autoscaling:ListTagsForResource", member("ResourceARN"))])
def listed(a: Authorised, view: View) -> Output:
    return {"Tags": dict(_row(a, view).tags)}
