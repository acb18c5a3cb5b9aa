"""Tags of enabled controls."""

from __future__ import annotations

from collections.abc import Iterable

from bastide.domain import Refused, tag_map
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.controltower.controls import wrong
from bastide.services.controltower.noun import CONTROL, management
from bastide.store import Row, Transaction, View


def _tagged(asked: Asked) -> Iterable[str]:
    return (str(asked.input["resourceArn"]),)


def _row(a: Authorised, view: View) -> Row:
    management(a)
    account, region, name = CONTROL.locate(str(a.input["resourceArn"]), a.account, a.region)
    if not str(a.input["resourceArn"]).startswith("arn:") or account != a.account:
        raise Refused("ResourceNotFoundException", f"{a.input['resourceArn']} does not exist or has no tags.", 404)
    return CONTROL.find(view, account, region, name)


@CONTROL.operation("TagResource", asks=[Ask("controltower:TagResource", _tagged)])
def tag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {**row.tags, **tag_map([{"Key": key, "Value": value} for key, value in a.input["tags"].items()])}
    if len(row.tags) > 50:
        raise wrong("A resource has at most 50 tags.")
    CONTROL.change(tx, row, a.operation.name, a.request.id)
    return {}


@CONTROL.operation("UntagResource", asks=[Ask("controltower:UntagResource", _tagged)])
def untag(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["tagKeys"]}
    CONTROL.change(tx, row, a.operation.name, a.request.id)
    return {}


@CONTROL.reads("ListTagsForResource", asks=[Ask("controltower:ListTagsForResource", _tagged)])
def tags(a: Authorised, view: View) -> Output:
    return {"tags": dict(_row(a, view).tags)}
