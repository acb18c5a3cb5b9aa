"""Tags of parameters and documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused, Tags, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.ssm.document import DOCUMENT
from bastide.services.ssm.document import found as document
from bastide.services.ssm.parameter import PARAMETER, address, found
from bastide.store import Row, Transaction, View

_MOST: Final = 50


def _few(tags: Tags) -> Tags:
    if len(tags) > _MOST:
        raise Refused("TooManyTagsError", f"It may have {_MOST} tags at most.")
    return tags


def new_tags(a: Authorised) -> Tags:
    """The tags of a new parameter; raises Refused."""
    return _few(tag_map(a.input.get("Tags")))


def _this(asked: Asked) -> Iterable[str]:
    if asked.input.get("ResourceType") == "Document":
        name = str(asked.input["ResourceId"])
        return (name if name.startswith("arn:") else DOCUMENT.arn(asked.call.account, asked.call.region, name),)
    return (address(asked, str(asked.input["ResourceId"])),)


_GIVEN: Final = {
    "ssm:DocumentType": lambda asked: "Automation" if asked.input.get("ResourceType") == "Document" else None
}


def _row(a: Authorised, view: View) -> Row:
    if a.input["ResourceType"] == "Document":
        try:
            return document(view, a.account, a.region, a.input["ResourceId"])
        except Refused as refused:
            raise Refused("InvalidResourceId", refused.message) from None
    if a.input["ResourceType"] != "Parameter":
        raise Refused("InvalidResourceType", "Bastide has tags of the resource types Parameter and Document.")
    try:
        row, selector = found(a, view, a.input["ResourceId"])
    except Refused:
        row, selector = None, ""
    if row is None or selector or row.account != a.account:
        raise Refused("InvalidResourceId", "The resource ID is not valid. Verify that you entered the correct ID.")
    return row


@PARAMETER.operation("AddTagsToResource", asks=[Ask("ssm:AddTagsToResource", _this, given=_GIVEN)])
def add(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = _few({**row.tags, **tag_map(a.input["Tags"])})
    (DOCUMENT if row.kind == DOCUMENT.key else PARAMETER).change(tx, row, a.operation.name, a.request.id)
    return {}


@PARAMETER.operation("RemoveTagsFromResource", asks=[Ask("ssm:RemoveTagsFromResource", _this, given=_GIVEN)])
def remove(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    (DOCUMENT if row.kind == DOCUMENT.key else PARAMETER).change(tx, row, a.operation.name, a.request.id)
    return {}


@PARAMETER.reads("ListTagsForResource", asks=[Ask("ssm:ListTagsForResource", _this, given=_GIVEN)])
def listed(a: Authorised, view: View) -> Output:
    return {"TagList": tag_list(_row(a, view).tags)}
