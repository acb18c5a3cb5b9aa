"""Tags of trails. Source: CloudTrail API Reference, AddTags, RemoveTags, ListTags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Refused, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.cloudtrail.trail import TRAIL
from bastide.store import Row, Transaction, View

_MOST: Final = 50
_BAD_TAG: Final = "InvalidTagParameterException"


def _this(asked: Asked) -> Iterable[str]:
    return (str(asked.input["ResourceId"]),)


def _these(asked: Asked) -> Iterable[str]:
    return [str(one) for one in asked.input["ResourceIdList"]]


def _row(a: Authorised, view: View, given: str) -> Row:
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise Refused("CloudTrailARNInvalidException", "The trail's ARN is not valid.") from None
    if arn.service != "cloudtrail" or arn.type != "trail":
        raise Refused("ResourceTypeNotSupportedException", "Bastide has tags of trails.")
    row = TRAIL.get(view, arn.account, arn.region, arn.name)
    if row is None or row.account != a.account or TRAIL.arn(row.account, row.region, row.name) != given:
        raise Refused("ResourceNotFoundException", f"Unknown resource: {given[:300]}")
    return row


@TRAIL.operation("AddTags", asks=[Ask("cloudtrail:AddTags", _this)])
def add(a: Authorised, tx: Transaction) -> Output:
    """More tags for a trail."""
    row = _row(a, tx, str(a.input["ResourceId"]))
    row.tags = {**row.tags, **tag_map(a.input["TagsList"], code=_BAD_TAG)}
    if len(row.tags) > _MOST:
        raise Refused("TagsLimitExceededException", f"A trail may have at most {_MOST} tags.")
    TRAIL.change(tx, row, a.operation.name, a.request.id)
    return {}


@TRAIL.operation("RemoveTags", asks=[Ask("cloudtrail:RemoveTags", _this)])
def remove(a: Authorised, tx: Transaction) -> Output:
    """Fewer tags; values, where given, do not matter."""
    row = _row(a, tx, str(a.input["ResourceId"]))
    gone = {str(one["Key"]) for one in a.input["TagsList"]}
    row.tags = {key: value for key, value in row.tags.items() if key not in gone}
    TRAIL.change(tx, row, a.operation.name, a.request.id)
    return {}


@TRAIL.reads("ListTags", asks=[Ask("cloudtrail:ListTags", _these)])
def listed(a: Authorised, view: View) -> Output:
    """The tags of up to 20 trails."""
    ids = [str(one) for one in a.input["ResourceIdList"]]
    if len(ids) > 20:
        raise Refused("ResourceNotFoundException", "ListTags takes up to 20 resources.")
    found: list[dict[str, Any]] = [{"ResourceId": one, "TagsList": tag_list(_row(a, view, one).tags)} for one in ids]
    return {"ResourceTagList": found}
