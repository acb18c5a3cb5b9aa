"""Tags of every noun of SageMaker."""

from __future__ import annotations

from bastide.domain import Arn, Refused, tag_map
from bastide.kernel import Ask, Authorised, Kind, Output, member, pages
from bastide.kernel.regular import tags_shown
from bastide.services.sagemaker.pipeline_step import PIPELINE_EXECUTION
from bastide.services.sagemaker.pipeline_version import PIPELINE
from bastide.store import Row, Transaction, View

TAGS = Kind("Tags", service="sagemaker", arn="tags/{}", named_by="ResourceArn", tags=False)
"""Not a noun: what the three operations hang on."""

_MOST = 50


def _row(a: Authorised, view: View) -> tuple[Kind, Row]:
    given = str(a.input["ResourceArn"])
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise Refused("ValidationException", f"Invalid ARN: {given[:200]}") from None
    kind = a.calls.registry.kind(arn) if arn.service == "sagemaker" else None
    if kind is PIPELINE and "/execution/" in arn.resource:
        kind = PIPELINE_EXECUTION
    if kind is None or kind is TAGS or not kind.tags:
        raise Refused("ValidationException", f"`{given[:200]}` is not the ARN of something that has tags.")
    if arn.account != a.account or arn.region != a.region:
        raise Refused("ValidationException", "The resource is in another account or region.")
    return kind, kind.find(view, *kind.locate(given, a.account, a.region))


@TAGS.operation("AddTags", asks=[Ask("sagemaker:AddTags", member("ResourceArn"))])
def add(a: Authorised, tx: Transaction) -> Output:
    kind, row = _row(a, tx)
    row.tags = {**row.tags, **tag_map(a.input["Tags"])}
    if len(row.tags) > _MOST:
        raise Refused("ValidationException", f"A resource may have at most {_MOST} tags.")
    kind.change(tx, row, a.operation.name, a.request.id)
    return {"Tags": tags_shown(row)}


@TAGS.operation("DeleteTags", asks=[Ask("sagemaker:DeleteTags", member("ResourceArn"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    kind, row = _row(a, tx)
    row.tags = {key: value for key, value in row.tags.items() if key not in a.input["TagKeys"]}
    kind.change(tx, row, a.operation.name, a.request.id)
    return {}


@TAGS.reads("ListTags", asks=[Ask("sagemaker:ListTags", member("ResourceArn"))])
def listed(a: Authorised, view: View) -> Output:
    _, row = _row(a, view)
    limit = int(a.input.get("MaxResults") or _MOST)
    start = int(pages.position(a, a.input.get("NextToken")) or 0)
    every = tags_shown(row)
    more = pages.seal(a, start + limit) if len(every) > start + limit else None
    return {"Tags": every[start : start + limit], "NextToken": more}
