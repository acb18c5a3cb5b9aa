"""Pipelines: a definition, and the role that runs it.

Source: Amazon SageMaker API Reference; developer guide, "Pipelines".
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
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


async def _before(a: Authorised) -> tuple[str, Definition | Refused] | None:
    """The definition's text, from the request or from S3, where it is read with the caller's own permissions; and what it
    means, or why it is none: whoever makes a pipeline whose name is taken is told that first."""
    place, text = a.input.get("PipelineDefinitionS3Location"), a.input.get("PipelineDefinition")
    if place and text:
        raise Refused(
            "ValidationException", "Please give a PipelineDefinition or a PipelineDefinitionS3Location, not both."
        )
    text = await _fetched(a, place) if place else text
    if text is None:
        return None
    try:
        return text, await asyncio.to_thread(understood, text)
    except Refused as refused:
        return text, refused


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


def _check(a: Authorised, definition: Definition | Refused) -> None:
    """Raises Refused for what is no definition, and for steps that call a service which is not there."""
    if isinstance(definition, Refused):
        raise definition
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
    given = a.input
    name = given["PipelineName"]

    def make() -> Output:
        _own_role(a)
        if a.staged is None:
            raise Refused(
                "ValidationException", "PipelineDefinition is needed, or a PipelineDefinitionS3Location that has it."
            )
        text, definition = a.staged
        doc: dict[str, Any] = {member: given[member] for member in _OWN if given.get(member) is not None}
        doc |= {"PipelineDisplayName": given.get("PipelineDisplayName") or name, "CreatedBy": who(a)}
        doc["LastModifiedBy"] = who(a)
        row = Row(PIPELINE.key, a.account, a.region, name, doc)
        if PIPELINE.get(tx, a.account, a.region, name) is None:  # a name that is taken is what the SDK looks for first
            _check(a, definition)
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
    given, row = a.input, PIPELINE.named(a, tx)
    _own_role(a)
    row.doc |= {member: given[member] for member in _OWN if given.get(member) is not None}
    row.doc["LastModifiedBy"] = who(a)
    if a.staged is not None:
        text, definition = a.staged
        _check(a, definition)
        if pipeline_version.get(tx, row, row.doc["_latest"]).doc["PipelineDefinition"] != text:
            pipeline_version.add(a, tx, row, text)
    pipeline_version.name_it(row, row.doc["_latest"], given.get("PipelineVersionAliases"))
    PIPELINE.change(tx, row, a.operation.name, a.request.id)
    return {"PipelineArn": PIPELINE.arn(row.account, row.region, row.name), "PipelineVersionId": row.doc["_latest"]}


_AT_ONCE: Final = 100
"""Executions that one transaction removes: nobody else waits long for it."""


async def _before_delete(a: Authorised) -> None:
    """Removes the executions of a pipeline that may go, but for the last ones."""

    def work(tx: Transaction) -> bool:
        row = PIPELINE.get(tx, a.account, a.region, a.input["PipelineName"])
        if row is None or pipeline_execution.running(tx, row):
            return False
        oldest = list(islice(pipeline_execution.every(tx, row), 2 * _AT_ONCE))
        if len(oldest) <= _AT_ONCE:
            return False
        for one in oldest[:_AT_ONCE]:
            pipeline_execution.forget(tx, one, a.operation.name, a.request.id)
        return True

    while await a.calls.store.write(work):
        pass


@PIPELINE.operation("DeletePipeline", asks=[Ask("sagemaker:DeletePipeline", PIPELINE.this)], before=_before_delete)
def delete(a: Authorised, tx: Transaction) -> Output:
    """With all its executions, as the API has it; the jobs they ran stay."""

    def make() -> Output:
        row = PIPELINE.named(a, tx)
        if pipeline_execution.running(tx, row):
            raise Refused(
                "ConflictException",
                f"The pipeline {row.name} has executions that run. Please stop them first (StopPipelineExecution).",
            )
        for one in list(pipeline_execution.every(tx, row)):
            pipeline_execution.forget(tx, one, a.operation.name, a.request.id)
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
    found["LastRunTime"] = pipeline_execution.last_run(view, row)
    return found


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
            {**fill(PIPELINE, summary, row), "LastExecutionTime": pipeline_execution.last_run(view, row)}
            for row in shown
        ],
        "NextToken": None if last is None else pages.seal(a, last.name if by_name else [last.created, last.name]),
    }
