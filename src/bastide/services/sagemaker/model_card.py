"""Model cards: what a model is for and how it may be used, in versions that nobody rewrites.

Source: API Reference, CreateModelCard, UpdateModelCard; developer guide, "model-cards".
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, fill, page, pages, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker.asking import tagging, unsupported
from bastide.services.sagemaker.model_package_group import who
from bastide.store import Row, Transaction, View

MODEL_CARD: Final = Kind(
    "ModelCard",
    service="sagemaker",
    arn="model-card/{}",
    missing=("ResourceNotFound", "ModelCard {arn} does not exist.", 400),
    taken=("ConflictException", "ModelCard {arn} already exists.", 400),
)
_VERSION_KEY: Final = "sagemaker:ModelCardVersion"
"""Rows ``CARD|NUMBER``, each as it was when the next one replaced it, and the newest as it is."""
_MOST_VERSIONS: Final = 10_000
_KEPT: Final = ("Content", "ModelCardStatus", "ModelCardVersion", "CreatedBy", "LastModifiedBy")


def _content(given: str) -> str:
    try:
        told = orjson.loads(given)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Refused("ValidationException", "Content must be a JSON object, as the model card's schema has it.")
    return given


def _name(card: str, version: int) -> str:
    return f"{card}|{version:06d}"


def _keep(tx: Transaction, row: Row) -> None:
    """Writes the row's content into its version."""
    name = _name(row.name, row.doc["ModelCardVersion"])
    doc: dict[str, Any] = {key: row.doc[key] for key in _KEPT if key in row.doc}
    held = tx.get(_VERSION_KEY, row.account, row.region, name)
    if held is None:
        tx.insert(Row(_VERSION_KEY, row.account, row.region, name, doc), keep=False)
    else:
        held.doc = doc
        tx.update(held, keep=False)


@MODEL_CARD.operation(
    "CreateModelCard",
    asks=[Ask("sagemaker:CreateModelCard", MODEL_CARD.this), tagging(MODEL_CARD, "CreateModelCard")],
)
def create(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "SecurityConfig.KmsKeyId")
    doc: dict[str, Any] = {
        "Content": _content(a.input["Content"]),
        "ModelCardStatus": a.input["ModelCardStatus"],
        "ModelCardVersion": 1,
        "CreatedBy": who(a),
    }
    name = a.input["ModelCardName"]
    _keep(tx, MODEL_CARD.create(a, tx, name, doc, tags=tags_of(a)))
    return {"ModelCardArn": MODEL_CARD.arn(a.account, a.region, name)}


def _described(row: Row, version: Row | None = None) -> Output:
    found = fill(MODEL_CARD, codec("sagemaker").operations["DescribeModelCard"].output_shape, row)
    found["ModelCardArn"] = MODEL_CARD.arn(row.account, row.region, row.name)
    if version is not None:
        found = {key: value for key, value in found.items() if key not in _KEPT} | version.doc
        found |= {"CreationTime": version.created, "LastModifiedTime": version.modified}
    return found


@MODEL_CARD.reads("DescribeModelCard", asks=[Ask("sagemaker:DescribeModelCard", MODEL_CARD.this)])
def describe(a: Authorised, view: View) -> Output:
    row = MODEL_CARD.named(a, view)
    wanted = a.input.get("ModelCardVersion")
    if wanted is None:
        found = _described(row)
    else:
        version = view.get(_VERSION_KEY, row.account, row.region, _name(row.name, wanted))
        if version is None:
            raise Refused("ResourceNotFound", f"The model card {row.name} has no version {wanted}.")
        found = _described(row, version)
    if a.input.get("IncludedData") == "MetadataOnly":
        found["Content"] = ""
    return found


@MODEL_CARD.operation("UpdateModelCard", asks=[Ask("sagemaker:UpdateModelCard", MODEL_CARD.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    content, status = a.input.get("Content"), a.input.get("ModelCardStatus")
    if content and status:
        raise Refused("ValidationException", "Content and ModelCardStatus cannot be updated in a single call.")
    row = MODEL_CARD.named(a, tx)
    row.doc["LastModifiedBy"] = who(a)
    if content:
        if row.doc["ModelCardStatus"] == "Archived":
            raise Refused("ValidationException", f"The model card {row.name} is archived: its content stays.")
        row.doc["Content"] = _content(content)
        row.doc["ModelCardVersion"] += 1
        if row.doc["ModelCardVersion"] > _MOST_VERSIONS:
            raise Refused("ResourceLimitExceeded", f"A model card has at most {_MOST_VERSIONS} versions.")
    elif status:
        row.doc["ModelCardStatus"] = status
    _keep(tx, row)
    MODEL_CARD.change(tx, row, a.operation.name, a.request.id)
    return {"ModelCardArn": MODEL_CARD.arn(row.account, row.region, row.name)}


@MODEL_CARD.reads("ListModelCards", asks=[Ask("sagemaker:ListModelCards", anything)])
def listed(a: Authorised, view: View) -> Output:
    rows, token = page(MODEL_CARD, a, view)
    members = codec("sagemaker").operations["ListModelCards"].output_shape.members
    summary, status = members["ModelCardSummaries"].member, a.input.get("ModelCardStatus")
    found = [fill(MODEL_CARD, summary, row) for row in rows if not status or row.doc["ModelCardStatus"] == status]
    return {"ModelCardSummaries": found, "NextToken": token}


@MODEL_CARD.reads("ListModelCardVersions", asks=[Ask("sagemaker:ListModelCardVersions", MODEL_CARD.this)])
def versions(a: Authorised, view: View) -> Output:
    given = a.input
    row = MODEL_CARD.named(a, view)
    backwards = given.get("SortOrder") == "Descending"
    limit = int(given.get("MaxResults") or 10)
    after = pages.position(a, given.get("NextToken"))
    rows = view.scan(
        _VERSION_KEY, row.account, row.region, prefix=f"{row.name}|", descending=backwards, after=after, limit=limit + 1
    )
    found = []
    for one in rows[:limit]:
        if given.get("ModelCardStatus") and one.doc["ModelCardStatus"] != given["ModelCardStatus"]:
            continue
        if (
            not given.get("CreationTimeAfter", one.created)
            <= one.created
            <= given.get("CreationTimeBefore", one.created)
        ):
            continue
        found.append(
            {
                "ModelCardName": row.name,
                "ModelCardArn": MODEL_CARD.arn(row.account, row.region, row.name),
                "ModelCardStatus": one.doc["ModelCardStatus"],
                "ModelCardVersion": one.doc["ModelCardVersion"],
                "CreationTime": one.created,
                "LastModifiedTime": one.modified,
            }
        )
    token = pages.seal(a, rows[limit - 1].name) if len(rows) > limit else None
    return {"ModelCardVersionSummaryList": found, "NextToken": token}


@MODEL_CARD.operation("DeleteModelCard", asks=[Ask("sagemaker:DeleteModelCard", MODEL_CARD.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = MODEL_CARD.named(a, tx)
    while rows := tx.scan(_VERSION_KEY, row.account, row.region, prefix=f"{row.name}|"):
        for one in rows:
            tx.delete(one, keep=False)
    MODEL_CARD.remove(tx, row, a.operation.name, a.request.id)
    return {}
