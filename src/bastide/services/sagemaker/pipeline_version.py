"""Versions of a pipeline: each definition it ever had.

A version is a row that is no resource: ``PIPELINE|NUMBER``, with the definition's text. What runs names the version that
it runs, so that nothing changes under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, pages
from bastide.protocol import codec
from bastide.services.sagemaker import pipeline_check
from bastide.services.sagemaker import pipeline_language as language
from bastide.services.sagemaker.asking import keys
from bastide.services.sagemaker.model_package_group import who
from bastide.store import Row, Transaction, View

PIPELINE: Final = Kind(
    "Pipeline",
    service="sagemaker",
    arn="pipeline/{}",
    states=("Active",),
    missing=("ResourceNotFound", "Pipeline '{arn}' does not exist.", 400),
    taken=(
        "ValidationException",
        "Pipeline names must be unique within an AWS account and region. Pipeline with name ({name}) already exists.",
        400,
    ),
)
"""Beside what the API shows a row keeps `_latest`, the newest version's number, and `_aliases`, versions by alias."""

_KIND: Final = "sagemaker:PipelineVersion"
_PAGE: Final = 500
_MOST_ALIASES: Final = 10
VERSION_KEY: Final = keys(PipelineVersionId="PipelineVersionId")

_DESCRIBES: Final[Mapping[str, str]] = {
    "Processing": "DescribeProcessingJob",
    "Training": "DescribeTrainingJob",
    "Tuning": "DescribeHyperParameterTuningJob",
    "Transform": "DescribeTransformJob",
    "Model": "DescribeModel",
    "RegisterModel": "DescribeModelPackage",
    "EndpointConfig": "DescribeEndpointConfig",
    "Endpoint": "DescribeEndpoint",
}


class _Tuned:
    """A tuning step's properties: those of the job, and its trials."""

    type_name = "structure"

    def __init__(self) -> None:
        operations = codec("sagemaker").operations
        listed = operations["ListTrainingJobsForHyperParameterTuningJob"].output_shape.members
        told = operations["DescribeHyperParameterTuningJob"].output_shape.members
        self.members = {**told, "TrainingJobSummaries": listed["TrainingJobSummaries"]}


class _Checked:
    """What a step that checks has: where baselines lie."""

    type_name = "structure"

    def __init__(self, files: Iterable[str]) -> None:
        text = codec("sagemaker").operations["DescribeProcessingJob"].output_shape.members["RoleArn"]
        self.members = {
            f"{what}{file}": text for what in ("CalculatedBaseline", "BaselineUsedForDriftCheck") for file in files
        }


@lru_cache(1)
def _shapes() -> dict[str, Any]:
    found: dict[str, Any] = {
        type: codec("sagemaker").operations[name].output_shape for type, name in _DESCRIBES.items()
    }
    checked = {type: _Checked(pipeline_check.files(type)) for type in language.CHECKS}
    return {**found, "Tuning": _Tuned(), **checked}


def properties(type: str) -> Any:
    """The shape of what steps of a type have as properties."""
    return _shapes()[type]


def understood(text: str) -> language.Definition:
    """A definition; raises Refused for what is none."""
    try:
        return _parsed(text)
    except language.Malformed as error:
        raise Refused("ValidationException", str(error)) from None


@lru_cache(32)
def _parsed(text: str) -> language.Definition:
    return language.parse(text, _shapes())


# -- rows --------------------------------------------------------------------------------------------------------------


def _name(pipeline: str, number: int) -> str:
    return f"{pipeline}|{number:010d}"


def get(view: View, pipeline: Row, number: int) -> Row:
    """A version; raises Refused."""
    row = view.get(_KIND, pipeline.account, pipeline.region, _name(pipeline.name, number)) if number > 0 else None
    if row is None:
        raise Refused("ResourceNotFound", f"The pipeline {pipeline.name} has no version {number}.")
    return row


def add(a: Authorised, tx: Transaction, pipeline: Row, text: str) -> None:
    """The next version. The caller writes the pipeline's row."""
    number = int(pipeline.doc.get("_latest", 0)) + 1
    pipeline.doc["_latest"] = number
    doc = {"PipelineVersionId": number, "PipelineDefinition": text, "CreatedBy": who(a), "LastModifiedBy": who(a)}
    tx.insert(Row(_KIND, pipeline.account, pipeline.region, _name(pipeline.name, number), doc), keep=False)


def every(view: View, pipeline: Row) -> Iterator[Row]:
    """All versions, oldest first."""
    prefix, after = f"{pipeline.name}|", None
    while True:
        rows = view.scan(_KIND, pipeline.account, pipeline.region, prefix=prefix, after=after, limit=_PAGE)
        yield from rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].name


def forget(tx: Transaction, pipeline: Row) -> None:
    """Removes them all."""
    for row in list(every(tx, pipeline)):
        tx.delete(row, keep=False)


def ran(tx: Transaction, pipeline: Row, number: int, execution: str) -> None:
    """Keeps which execution was the last of a version."""
    row = get(tx, pipeline, number)
    row.doc["LastExecutionPipelineExecutionArn"] = execution
    tx.update(row, keep=False)


def chosen(view: View, pipeline: Row, given: Mapping[str, Any]) -> Row:
    """The version that a request means by id or alias, otherwise the newest; raises Refused."""
    number, alias = given.get("PipelineVersionId"), given.get("PipelineVersionAlias")
    if number is not None and alias is not None:
        raise Refused("ValidationException", "Please give a PipelineVersionId or a PipelineVersionAlias, not both.")
    if alias is not None:
        number = (pipeline.doc.get("_aliases") or {}).get(alias)
        if number is None:
            raise Refused("ResourceNotFound", f"The pipeline {pipeline.name} has no version with the alias {alias}.")
    return get(view, pipeline, int(pipeline.doc["_latest"] if number is None else number))


def aliases(pipeline: Row, number: int) -> list[str]:
    """The aliases of a version."""
    return sorted(alias for alias, of in (pipeline.doc.get("_aliases") or {}).items() if of == number)


def name_it(pipeline: Row, number: int, added: Any, removed: Any = ()) -> None:
    """Gives aliases to a version, whoever had them, and takes some from it. The caller writes the pipeline's row."""
    held = dict(pipeline.doc.get("_aliases") or {})
    for alias in removed or ():
        if held.get(alias) != number:
            raise Refused("ValidationException", f"The version {number} has no alias {alias}.")
        del held[alias]
    held.update(dict.fromkeys(added or (), number))
    if sum(of == number for of in held.values()) > _MOST_ALIASES:
        raise Refused("ValidationException", f"A version has at most {_MOST_ALIASES} aliases.")
    pipeline.doc["_aliases"] = held


# -- operations --------------------------------------------------------------------------------------------------------


@PIPELINE.reads("ListPipelineVersions", asks=[Ask("sagemaker:ListPipelineVersions", PIPELINE.this)])
def listed(a: Authorised, view: View) -> Output:
    given, pipeline = a.input, PIPELINE.named(a, view)
    rows = [
        row
        for row in every(view, pipeline)
        if given.get("CreatedAfter", 0) <= row.created <= given.get("CreatedBefore", row.created)
    ]
    if given.get("SortOrder", "Descending") == "Descending":
        rows.reverse()
    start = int(pages.position(a, given.get("NextToken")) or 0)
    end = start + int(given.get("MaxResults") or 10)
    arn = PIPELINE.arn(pipeline.account, pipeline.region, pipeline.name)
    return {
        "PipelineVersionSummaries": [
            {
                "PipelineArn": arn,
                "CreationTime": row.created,
                "PipelineVersionAliases": aliases(pipeline, row.doc["PipelineVersionId"]),
                **{key: row.doc[key] for key in _SUMMARY if key in row.doc},
            }
            for row in rows[start:end]
        ],
        "NextToken": pages.seal(a, end) if len(rows) > end else None,
    }


_SUMMARY: Final = (
    "PipelineVersionId",
    "PipelineVersionDescription",
    "PipelineVersionDisplayName",
    "LastExecutionPipelineExecutionArn",
)


def _of_arn(asked: Any) -> tuple[str, ...]:
    return (str(asked.input["PipelineArn"]),)


@PIPELINE.operation("UpdatePipelineVersion", asks=[Ask("sagemaker:UpdatePipelineVersion", _of_arn, given=VERSION_KEY)])
def update(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    pipeline = PIPELINE.find(tx, *PIPELINE.locate(given["PipelineArn"], a.account, a.region))
    number = int(given["PipelineVersionId"])
    row = get(tx, pipeline, number)
    for member in ("PipelineVersionDisplayName", "PipelineVersionDescription"):
        if given.get(member) is not None:
            row.doc[member] = given[member]
    row.doc["LastModifiedBy"] = who(a)
    tx.update(row, keep=False)
    operations = given.get("PipelineVersionAliasOperations") or {}
    name_it(pipeline, number, operations.get("Add"), operations.get("Remove"))
    PIPELINE.change(tx, pipeline, a.operation.name, a.request.id)
    return {"PipelineArn": given["PipelineArn"], "PipelineVersionId": number}
