"""Executions of pipelines: their operations.

Source: Amazon SageMaker API Reference; developer guide, "Run a pipeline" and "Selective execution of pipeline steps".
"""

from __future__ import annotations

import asyncio
import re
import secrets
import string
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bastide.domain import Refused, iso
from bastide.kernel import Ask, Authorised, Output, fill, once, pages
from bastide.protocol import codec
from bastide.services.sagemaker import pipeline_events, pipeline_step, pipeline_version
from bastide.services.sagemaker import pipeline_language as language
from bastide.services.sagemaker.asking import passing, unsupported
from bastide.services.sagemaker.experiment import EXPERIMENT
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.pipeline_step import PIPELINE_EXECUTION
from bastide.services.sagemaker.pipeline_version import PIPELINE, VERSION_KEY, understood
from bastide.services.sagemaker.relation import TRIALS
from bastide.services.sagemaker.session import check_role
from bastide.services.sagemaker.trial import TRIAL
from bastide.store import Row, Transaction, View

RUNNING: Final = ("Executing", "Stopping")
_PAGE: Final = 500
_RUN: Final = "sagemaker:PipelineRun"
"""Rows ``PIPELINE|TIME|ID``: the executions of one pipeline as they began, without those of all others."""
_MOST_EXAMINED: Final = 1000
_LATEST: Final = 1 << 62
_ALPHABET: Final = string.ascii_lowercase + string.digits
_ENTITY: Final = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,119}")


def every(view: View, pipeline: Row) -> Iterator[Row]:
    """All executions of a pipeline."""
    prefix, after = f"{pipeline.name}/execution/", None
    while True:
        rows = view.scan(
            PIPELINE_EXECUTION.key, pipeline.account, pipeline.region, prefix=prefix, after=after, limit=_PAGE
        )
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].name


def running(view: View, pipeline: Row) -> bool:
    """Whether any execution of a pipeline runs."""
    where, prefix = (PIPELINE_EXECUTION.key, pipeline.account, pipeline.region), f"{pipeline.name}/execution/"
    return any(view.scan(*where, order="created", status=status, prefix=prefix, limit=1) for status in RUNNING)


def _run(row: Row) -> str:
    pipeline, _, id = row.name.split("/")
    return f"{pipeline}|{row.doc['_started']:020d}|{id}"


def last_run(view: View, pipeline: Row) -> int | None:
    """When the newest execution of a pipeline began."""
    where = (pipeline.account, pipeline.region)
    rows = view.scan(_RUN, *where, prefix=f"{pipeline.name}|", descending=True, limit=1)
    return int(rows[0].name.split("|")[1]) if rows else None


def forget(tx: Transaction, row: Row, event: str, request_id: str) -> None:
    """Removes an execution with all that is kept of it."""
    pipeline_step.forget(tx, row)
    run = tx.get(_RUN, row.account, row.region, _run(row))
    if run is not None:
        tx.delete(run, keep=False)
    PIPELINE_EXECUTION.remove(tx, row, event, request_id)


def move(tx: Transaction, row: Row, status: str, event: str, request_id: str = "") -> None:
    """Writes an execution's row with that status, and tells a change of it."""
    previous, row.status = row.status, status
    if status not in RUNNING:
        row.doc["_ended"] = tx.now
    if status != previous:
        pipeline_events.execution_moved(tx, row, previous)
    PIPELINE_EXECUTION.change(tx, row, event, request_id)


def text_of(view: View, row: Row) -> str:
    """The definition that an execution runs."""
    pipeline = PIPELINE.find(view, row.account, row.region, row.name.partition("/")[0])
    return str(pipeline_version.get(view, pipeline, row.doc["PipelineVersionId"]).doc["PipelineDefinition"])


def variables(row: Row, now: int) -> dict[str, str]:
    """What ``Execution.`` means."""
    pipeline, _, id = row.name.split("/")
    return {
        "StartDateTime": iso(row.doc["_started"]),
        "CurrentDateTime": iso(now),
        "PipelineName": pipeline,
        "PipelineArn": row.doc["PipelineArn"],
        "PipelineExecutionId": id,
        "PipelineExecutionArn": row.doc["PipelineExecutionArn"],
    }


# -- starting ----------------------------------------------------------------------------------------------------------


async def _before_start(a: Authorised) -> str:
    """The id that the execution will have; raises Refused if the role cannot be assumed for it."""
    with a.calls.store.reading() as view:
        pipeline = PIPELINE.named(a, view)
        text = pipeline_version.chosen(view, pipeline, a.input).doc["PipelineDefinition"]
    await asyncio.to_thread(understood, text)  # so that the transaction finds it understood
    id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    role = a.input.get("RoleArn") or pipeline.doc["RoleArn"]
    arn = PIPELINE_EXECUTION.arn(pipeline.account, pipeline.region, f"{pipeline.name}/execution/{id}")
    await check_role(a.calls, role, account=pipeline.account, region=pipeline.region, source_arn=arn)
    return id


@PIPELINE.operation(
    "StartPipelineExecution",
    asks=[
        Ask("sagemaker:StartPipelineExecution", PIPELINE.this, given=VERSION_KEY),
        passing(PIPELINE, "RoleArn"),
    ],
    before=_before_start,
)
def start(a: Authorised, tx: Transaction) -> Output:
    unsupported(a, "MlflowExperimentName")

    def make() -> Output:
        given, pipeline = a.input, PIPELINE.named(a, tx)
        version = pipeline_version.chosen(tx, pipeline, given)
        definition = understood(version.doc["PipelineDefinition"])
        name = f"{pipeline.name}/execution/{a.staged}"
        arn = PIPELINE_EXECUTION.arn(pipeline.account, pipeline.region, name)
        source = _source(a, tx, pipeline, given.get("SelectiveExecutionConfig"))
        doc: dict[str, Any] = {
            "PipelineArn": PIPELINE.arn(pipeline.account, pipeline.region, pipeline.name),
            "PipelineExecutionArn": arn,
            "PipelineExecutionDisplayName": given.get("PipelineExecutionDisplayName") or f"execution-{tx.now // 1000}",
            "PipelineVersionId": version.doc["PipelineVersionId"],
            "RoleArn": given.get("RoleArn") or pipeline.doc["RoleArn"],
            "CreatedBy": who(a),
            "LastModifiedBy": who(a),
            "_started": tx.now,
            "_round": 1,
            "_flow": f"{arn}#1",
        }
        for member in ("PipelineExecutionDescription", "SelectiveExecutionConfig"):
            if given.get(member):
                doc[member] = given[member]
        parallel = given.get("ParallelismConfiguration") or pipeline.doc.get("ParallelismConfiguration")
        if parallel:
            doc["ParallelismConfiguration"] = parallel
        texts = {one["Name"]: one["Value"] for one in given.get("PipelineParameters") or ()}
        try:
            doc["_values"] = definition.values(texts, source.doc["_values"] if source is not None else {})
        except language.Malformed as error:
            raise Refused("ValidationException", str(error)) from None
        doc["PipelineParameters"] = [{"Name": key, "Value": _text(value)} for key, value in doc["_values"].items()]
        row = Row(
            PIPELINE_EXECUTION.key, pipeline.account, pipeline.region, name, doc, "Executing", dict(pipeline.tags)
        )
        if definition.experiment is not None:
            _experiment(a, tx, row, definition)
        PIPELINE_EXECUTION.insert(tx, row, a.operation.name, a.request.id)
        tx.insert(Row(_RUN, row.account, row.region, _run(row), {}), keep=False)
        pipeline_events.execution_moved(tx, row, "")
        if given.get("SelectiveExecutionConfig"):
            _inherit(tx, row, definition, source)
        pipeline_version.ran(tx, pipeline, doc["PipelineVersionId"], arn)
        a.touched.append(arn)
        return {"PipelineExecutionArn": arn}

    return once(a, tx, a.input.get("ClientRequestToken"), make)


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _source(a: Authorised, view: View, pipeline: Row, config: Mapping[str, Any] | None) -> Row | None:
    """The execution whose results a selective one uses; raises Refused if it is another pipeline's or still runs."""
    arn = (config or {}).get("SourcePipelineExecutionArn")
    if not arn:
        return None
    row = PIPELINE_EXECUTION.find(view, *PIPELINE_EXECUTION.locate(arn, a.account, a.region))
    if (row.account, row.region, row.name.partition("/")[0]) != (pipeline.account, pipeline.region, pipeline.name):
        raise Refused("ValidationException", f"{arn} is no execution of the pipeline {pipeline.name}.")
    if row.status in RUNNING:
        raise Refused("ValidationException", f"{arn} still runs; the source of a selective execution has ended.")
    return row


def _inherit(tx: Transaction, row: Row, definition: language.Definition, source: Row | None) -> None:
    """Takes over the results that the selected steps use; raises Refused for those that are not there."""
    selected = {one["StepName"] for one in row.doc["SelectiveExecutionConfig"]["SelectedSteps"]}
    unknown = sorted(selected - set(definition.steps))
    if unknown:
        raise Refused("ValidationException", f"SelectedSteps names {unknown[0]}, which is no step of this pipeline.")
    needed = {one for name in selected for one in definition.steps[name].reads} - selected
    if not needed:
        return
    if source is None:
        raise Refused(
            "ValidationException",
            f"The selected steps use results of {', '.join(sorted(needed))}: please give the SourcePipelineExecutionArn "
            "of an execution that has them, or select these steps too.",
        )
    held = pipeline_step.every(tx, source)
    for name in sorted(needed):
        if name not in held or held[name].status != "Succeeded":
            raise Refused(
                "ValidationException",
                f"The step {name}, whose results the selected steps use, did not succeed in the source execution.",
            )
        pipeline_step.copy(tx, row, held[name])


def _experiment(a: Authorised, tx: Transaction, row: Row, definition: language.Definition) -> None:
    """The experiment and the trial that the definition names: made if they are not there, as jobs make theirs."""
    scope = language.Scope(row.doc["_values"], variables(row, tx.now), {})
    given = language.resolve(dict(definition.experiment or {}), scope)
    names = {"ExperimentName": given["ExperimentName"], "TrialName": given.get("TrialName") or row.name.split("/")[2]}
    for member, name in names.items():
        if not isinstance(name, str) or not _ENTITY.fullmatch(name):
            raise Refused(
                "ValidationException",
                f"The {member} of PipelineExperimentConfig becomes `{str(name)[:200]}`, which is no name of 1 to 120 "
                "letters, digits and hyphens.",
            )
    experiment, trial = names["ExperimentName"], names["TrialName"]
    if EXPERIMENT.get(tx, row.account, row.region, experiment) is None:
        EXPERIMENT.create(a, tx, experiment, {"DisplayName": experiment, "CreatedBy": who(a)})
    held = TRIAL.get(tx, row.account, row.region, trial)
    if held is None:
        TRIAL.create(a, tx, trial, {"DisplayName": trial, "ExperimentName": experiment, "CreatedBy": who(a)})
        TRIALS.add(tx, row.account, row.region, experiment, trial)
    elif held.doc["ExperimentName"] != experiment:
        raise Refused("ValidationException", f"The trial {trial} is of another experiment than {experiment}.")
    row.doc["PipelineExperimentConfig"] = names


# -- looking -----------------------------------------------------------------------------------------------------------


@PIPELINE_EXECUTION.reads(
    "DescribePipelineExecution", asks=[Ask("sagemaker:DescribePipelineExecution", PIPELINE_EXECUTION.this)]
)
def describe(a: Authorised, view: View) -> Output:
    row = PIPELINE_EXECUTION.named(a, view)
    found = fill(PIPELINE_EXECUTION, codec("sagemaker").operations["DescribePipelineExecution"].output_shape, row)
    pipeline = PIPELINE.get(view, row.account, row.region, row.name.partition("/")[0])
    if pipeline is not None:
        found["PipelineVersionAliases"] = pipeline_version.aliases(pipeline, row.doc["PipelineVersionId"])
    return found


@PIPELINE_EXECUTION.reads(
    "DescribePipelineDefinitionForExecution",
    asks=[Ask("sagemaker:DescribePipelineDefinitionForExecution", PIPELINE_EXECUTION.this)],
)
def definition_for(a: Authorised, view: View) -> Output:
    row = PIPELINE_EXECUTION.named(a, view)
    return {"PipelineDefinition": text_of(view, row), "CreationTime": row.created}


@PIPELINE_EXECUTION.reads(
    "ListPipelineParametersForExecution",
    asks=[Ask("sagemaker:ListPipelineParametersForExecution", PIPELINE_EXECUTION.this)],
)
def parameters(a: Authorised, view: View) -> Output:
    found = PIPELINE_EXECUTION.named(a, view).doc["PipelineParameters"]
    start = int(pages.position(a, a.input.get("NextToken")) or 0)
    end = start + int(a.input.get("MaxResults") or 100)
    return {"PipelineParameters": found[start:end], "NextToken": pages.seal(a, end) if len(found) > end else None}


@PIPELINE.reads("ListPipelineExecutions", asks=[Ask("sagemaker:ListPipelineExecutions", PIPELINE.this)])
def listed(a: Authorised, view: View) -> Output:
    given, pipeline = a.input, PIPELINE.named(a, view)
    limit = int(given.get("MaxResults") or 10)
    version = None
    if given.get("PipelineVersionAlias"):
        alias = {"PipelineVersionAlias": given["PipelineVersionAlias"]}
        version = pipeline_version.chosen(view, pipeline, alias).doc["PipelineVersionId"]
    since, until = given.get("CreatedAfter", 0), given.get("CreatedBefore", _LATEST)
    by_arn = given.get("SortBy") == "PipelineExecutionArn"
    after = pages.position(a, given.get("NextToken"))
    found: list[Row] = []
    examined = 0
    while True:
        rows = list(_along(view, pipeline, given, after, limit + 1, by_arn))
        for place, row in rows:
            if len(found) == limit or examined >= _MOST_EXAMINED:
                return _summaries(view, pipeline, found, pages.seal(a, after))
            examined += 1
            after = place
            if version in (None, row.doc["PipelineVersionId"]) and since <= row.doc["_started"] <= until:
                found.append(row)
        if len(rows) <= limit:
            return _summaries(view, pipeline, found, None)


def _along(
    view: View, pipeline: Row, given: Mapping[str, Any], after: str | None, limit: int, by_arn: bool
) -> Iterator[tuple[str, Row]]:
    """Executions behind a place, each with its own; by time those within the request's bounds only."""
    where, backwards = (pipeline.account, pipeline.region), given.get("SortOrder", "Descending") == "Descending"
    if by_arn:
        prefix = f"{pipeline.name}/execution/"
        for row in view.scan(
            PIPELINE_EXECUTION.key, *where, prefix=prefix, descending=backwards, after=after, limit=limit
        ):
            yield row.name, row
        return
    least = f"{pipeline.name}|{given.get('CreatedAfter', 0):020d}"
    if after is None and backwards and given.get("CreatedBefore") is not None:
        after = f"{pipeline.name}|{given['CreatedBefore'] + 1:020d}"
    for run in view.scan(
        _RUN, *where, prefix=f"{pipeline.name}|", at_or_after=least, descending=backwards, after=after, limit=limit
    ):
        name = f"{pipeline.name}/execution/{run.name.rpartition('|')[2]}"
        yield run.name, PIPELINE_EXECUTION.find(view, *where, name)


def _summaries(view: View, pipeline: Row, rows: list[Row], token: str | None) -> Output:
    members = codec("sagemaker").operations["ListPipelineExecutions"].output_shape.members
    shape = members["PipelineExecutionSummaries"].member
    return {
        "PipelineExecutionSummaries": [
            {
                **fill(PIPELINE_EXECUTION, shape, row),
                "StartTime": row.doc["_started"],
                "PipelineExecutionFailureReason": row.doc.get("FailureReason"),
                "PipelineVersionAliases": pipeline_version.aliases(pipeline, row.doc["PipelineVersionId"]),
            }
            for row in rows
        ],
        "NextToken": token,
    }


# -- changing ----------------------------------------------------------------------------------------------------------


@PIPELINE_EXECUTION.operation(
    "StopPipelineExecution", asks=[Ask("sagemaker:StopPipelineExecution", PIPELINE_EXECUTION.this)]
)
def stop(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        row = PIPELINE_EXECUTION.named(a, tx)
        if row.status not in RUNNING:
            raise Refused("ValidationException", f"The pipeline execution has ended: it is {row.status}.")
        if row.status == "Executing":
            row.doc["LastModifiedBy"] = who(a)
            move(tx, row, "Stopping", a.operation.name, a.request.id)
        return {"PipelineExecutionArn": row.doc["PipelineExecutionArn"]}

    return once(a, tx, a.input.get("ClientRequestToken"), make)


@PIPELINE_EXECUTION.operation(
    "RetryPipelineExecution", asks=[Ask("sagemaker:RetryPipelineExecution", PIPELINE_EXECUTION.this)]
)
def retry(a: Authorised, tx: Transaction) -> Output:
    """What succeeded stays; what failed, was stopped or did not begin runs."""

    def make() -> Output:
        row = PIPELINE_EXECUTION.named(a, tx)
        if row.status not in ("Failed", "Stopped"):
            raise Refused(
                "ValidationException",
                f"Only executions that failed or were stopped can be retried; it is {row.status}.",
            )
        for one in pipeline_step.every(tx, row).values():
            if one.status != "Succeeded":
                pipeline_step.drop(tx, one)
        row.doc["_round"] += 1
        row.doc["_flow"] = f"{row.doc['PipelineExecutionArn']}#{row.doc['_round']}"
        for member in ("FailureReason", "_ended"):
            row.doc.pop(member, None)
        if a.input.get("ParallelismConfiguration"):
            row.doc["ParallelismConfiguration"] = a.input["ParallelismConfiguration"]
        row.doc["LastModifiedBy"] = who(a)
        move(tx, row, "Executing", a.operation.name, a.request.id)
        return {"PipelineExecutionArn": row.doc["PipelineExecutionArn"]}

    return once(a, tx, a.input.get("ClientRequestToken"), make)


@PIPELINE_EXECUTION.operation(
    "UpdatePipelineExecution", asks=[Ask("sagemaker:UpdatePipelineExecution", PIPELINE_EXECUTION.this)]
)
def update(a: Authorised, tx: Transaction) -> Output:
    row = PIPELINE_EXECUTION.named(a, tx)
    members = ("PipelineExecutionDisplayName", "PipelineExecutionDescription", "ParallelismConfiguration")
    row.doc |= {member: a.input[member] for member in members if a.input.get(member) is not None}
    row.doc["LastModifiedBy"] = who(a)
    PIPELINE_EXECUTION.change(tx, row, a.operation.name, a.request.id)
    return {"PipelineExecutionArn": row.doc["PipelineExecutionArn"]}
