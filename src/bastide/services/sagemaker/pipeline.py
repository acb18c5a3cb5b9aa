"""Pipelines: a definition, and the role that runs it.

Source: Amazon SageMaker API Reference; developer guide, "Pipelines".
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything, fill, once, pages, tags_of
from bastide.protocol import codec
from bastide.services.sagemaker import pipeline_execution, pipeline_step, pipeline_version
from bastide.services.sagemaker.asking import passing, tagging
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.pipeline_language import MOST_BYTES, Definition
from bastide.services.sagemaker.pipeline_version import PIPELINE, VERSION_KEY, understood
from bastide.services.sagemaker.session import SAGEMAKER
from bastide.store import Row, Transaction, View

__all__ = ["PIPELINE"]

_OWN: Final = ("PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration")
_NEEDS: Final = {"Callback": ("sqs", "SendMessage"), "Lambda": ("lambda", "Invoke")}


async def _before(a: Authorised) -> str | None:
    """The definition's text, from the request or from S3, where it is read with the caller's own permissions."""
    place, text = a.input.get("PipelineDefinitionS3Location"), a.input.get("PipelineDefinition")
    if place and text:
        raise Refused(
            "ValidationException", "Please give a PipelineDefinition or a PipelineDefinitionS3Location, not both."
        )
    return await _fetched(a, place) if place else text


async def _fetched(a: Authorised, place: dict[str, str]) -> str:
    given = {"Bucket": place["Bucket"], "Key": place["ObjectKey"]}
    if place.get("VersionId"):
        given["VersionId"] = place["VersionId"]
    where = f"s3://{place['Bucket']}/{place['ObjectKey']}"
    try:
        output = await a.calls.act(a.caller, "s3", "GetObject", given, region=a.region, source=SAGEMAKER)
    except Refused as refused:
        raise Refused(
            "ValidationException", f"The pipeline definition {where} cannot be read: {refused.message}"
        ) from None
    body, found = output["Body"], bytearray()
    try:
        async for piece in body:
            found += piece
            if len(found) > MOST_BYTES:
                raise Refused("ValidationException", f"{where} has more than {MOST_BYTES} bytes.")
    finally:
        if hasattr(body, "aclose"):
            with contextlib.suppress(Exception):
                await body.aclose()
    try:
        return found.decode()
    except UnicodeDecodeError:
        raise Refused("ValidationException", f"{where} is no text in UTF-8.") from None


def _check(a: Authorised, definition: Definition) -> None:
    """Raises Refused for steps that call a service which is not there."""
    for step in definition.steps.values():
        needed = _NEEDS.get(step.type)
        if needed is not None and a.calls.registry.operation(*needed) is None:
            raise Refused(
                "ValidationException",
                f"The step {step.name} has the Type {step.type}, which is not supported by Bastide yet: there is no "
                f"{needed[0]}.",
            )


def _own_role(a: Authorised) -> None:
    role = a.input.get("RoleArn")
    if role and f":{a.account}:" not in role:
        raise Refused("ValidationException", "Cross-account pass role is not allowed.")


@PIPELINE.operation(
    "CreatePipeline",
    asks=[
        Ask("sagemaker:CreatePipeline", PIPELINE.this),
        passing(PIPELINE, "RoleArn"),
        tagging(PIPELINE, "CreatePipeline"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given, text = a.input, a.staged
    name = given["PipelineName"]

    def make() -> Output:
        _own_role(a)
        if text is None:
            raise Refused(
                "ValidationException", "PipelineDefinition is needed, or a PipelineDefinitionS3Location that has it."
            )
        doc: dict[str, Any] = {member: given[member] for member in _OWN if given.get(member) is not None}
        doc |= {"PipelineDisplayName": given.get("PipelineDisplayName") or name, "CreatedBy": who(a)}
        doc["LastModifiedBy"] = who(a)
        row = Row(PIPELINE.key, a.account, a.region, name, doc)
        if PIPELINE.get(tx, a.account, a.region, name) is None:  # a name that is taken is what the SDK looks for first
            _check(a, understood(text))
            pipeline_version.add(a, tx, row, text)
            pipeline_version.name_it(row, row.doc["_latest"], given.get("PipelineVersionAliases"))
        PIPELINE.create(a, tx, name, doc, status="Active", tags=tags_of(a))
        return {"PipelineArn": PIPELINE.arn(a.account, a.region, name)}

    return once(a, tx, given.get("ClientRequestToken"), make)


@PIPELINE.operation(
    "UpdatePipeline",
    asks=[Ask("sagemaker:UpdatePipeline", PIPELINE.this), passing(PIPELINE, "RoleArn")],
    before=_before,
)
def update(a: Authorised, tx: Transaction) -> Output:
    """Another definition is another version; what runs goes on with its own."""
    given, text = a.input, a.staged
    row = PIPELINE.named(a, tx)
    _own_role(a)
    row.doc |= {member: given[member] for member in _OWN if given.get(member) is not None}
    row.doc["LastModifiedBy"] = who(a)
    if text is not None:
        _check(a, understood(text))
        if pipeline_version.get(tx, row, row.doc["_latest"]).doc["PipelineDefinition"] != text:
            pipeline_version.add(a, tx, row, text)
    pipeline_version.name_it(row, row.doc["_latest"], given.get("PipelineVersionAliases"))
    PIPELINE.change(tx, row, a.operation.name, a.request.id)
    return {"PipelineArn": PIPELINE.arn(row.account, row.region, row.name), "PipelineVersionId": row.doc["_latest"]}


@PIPELINE.operation("DeletePipeline", asks=[Ask("sagemaker:DeletePipeline", PIPELINE.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """With all its executions, as the API has it; the jobs they ran stay."""

    def make() -> Output:
        row = PIPELINE.named(a, tx)
        executions = list(pipeline_execution.every(tx, row))
        running = [one for one in executions if one.status in pipeline_execution.RUNNING]
        if running:
            raise Refused(
                "ConflictException",
                f"The pipeline {row.name} has executions that run. Please stop them first (StopPipelineExecution).",
            )
        for one in executions:
            pipeline_step.forget(tx, one)
            pipeline_step.PIPELINE_EXECUTION.remove(tx, one, a.operation.name, a.request.id)
        pipeline_step.forget_cached(tx, row)
        pipeline_version.forget(tx, row)
        PIPELINE.remove(tx, row, a.operation.name, a.request.id)
        return {"PipelineArn": PIPELINE.arn(row.account, row.region, row.name)}

    return once(a, tx, a.input.get("ClientRequestToken"), make)


@PIPELINE.reads("DescribePipeline", asks=[Ask("sagemaker:DescribePipeline", PIPELINE.this, given=VERSION_KEY)])
def describe(a: Authorised, view: View) -> Output:
    row = PIPELINE.named(a, view)
    version = pipeline_version.chosen(view, row, a.input)
    found = fill(PIPELINE, codec("sagemaker").operations["DescribePipeline"].output_shape, row)
    for member in ("PipelineDefinition", "PipelineVersionDisplayName", "PipelineVersionDescription"):
        if member in version.doc:
            found[member] = version.doc[member]
    found["PipelineVersionAliases"] = pipeline_version.aliases(row, version.doc["PipelineVersionId"])
    found["LastRunTime"] = _last_run(view, row)
    return found


def _last_run(view: View, row: Row) -> int | None:
    last = pipeline_execution.latest(view, row)
    return None if last is None else last.created


@PIPELINE.reads("ListPipelines", asks=[Ask("sagemaker:ListPipelines", anything)])
def listed(a: Authorised, view: View) -> Output:
    given = a.input
    if given.get("ManagedBy") == "AWS":
        return {"PipelineSummaries": []}  # nobody but customers makes pipelines here
    limit = int(given.get("MaxResults") or 10)
    by_name = given.get("SortBy") == "Name"
    after = pages.position(a, given.get("NextToken"))
    rows = view.scan(
        PIPELINE.key,
        a.account,
        a.region,
        order="name" if by_name else "created",
        descending=given.get("SortOrder", "Descending") == "Descending",
        prefix=given.get("PipelineNamePrefix") or "",
        after=tuple(after) if isinstance(after, list) else after,
        created_from=given.get("CreatedAfter"),
        created_to=given.get("CreatedBefore"),
        limit=limit + 1,
    )
    summary = codec("sagemaker").operations["ListPipelines"].output_shape.members["PipelineSummaries"].member
    shown = rows[:limit]
    last = shown[-1] if len(rows) > limit else None
    return {
        "PipelineSummaries": [
            {**fill(PIPELINE, summary, row), "LastExecutionTime": _last_run(view, row)} for row in shown
        ],
        "NextToken": None if last is None else pages.seal(a, last.name if by_name else [last.created, last.name]),
    }
