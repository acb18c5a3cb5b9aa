"""Experiments: what trials belong to."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything, regular, tags_of
from bastide.services.sagemaker.asking import tagging
from bastide.services.sagemaker.listing import listed
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.relation import TRIALS
from bastide.store import Transaction, View


def experimental(name: str, arn: str) -> Kind:
    """A noun of SageMaker Experiments: missing and taken as its clients expect it."""
    return Kind(
        name,
        service="sagemaker",
        arn=f"{arn}/{{}}",
        missing=("ResourceNotFound", "{what} '{name}' does not exist.", 400),
        taken=(
            "ValidationException",
            "{what} names must be unique within an AWS account and region. {what} with name ({name}) already exists.",
            400,
        ),
    )


EXPERIMENT: Final = experimental("Experiment", "experiment")


@EXPERIMENT.operation(
    "CreateExperiment",
    asks=[Ask("sagemaker:CreateExperiment", EXPERIMENT.this), tagging(EXPERIMENT, "CreateExperiment")],
)
def create(a: Authorised, tx: Transaction) -> Output:
    name = a.input["ExperimentName"]
    doc: dict[str, Any] = {"DisplayName": a.input.get("DisplayName") or name, "CreatedBy": who(a)}
    if a.input.get("Description"):
        doc["Description"] = a.input["Description"]
    EXPERIMENT.create(a, tx, name, doc, tags=tags_of(a))
    return {"ExperimentArn": EXPERIMENT.arn(a.account, a.region, name)}


regular(EXPERIMENT, "Describe")


@EXPERIMENT.reads("ListExperiments", asks=[Ask("sagemaker:ListExperiments", anything)])
def every(a: Authorised, view: View) -> Output:
    return listed(a, view, EXPERIMENT)


@EXPERIMENT.operation("UpdateExperiment", asks=[Ask("sagemaker:UpdateExperiment", EXPERIMENT.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = EXPERIMENT.named(a, tx)
    row.doc |= {member: a.input[member] for member in ("DisplayName", "Description") if a.input.get(member)}
    row.doc["LastModifiedBy"] = who(a)
    EXPERIMENT.change(tx, row, a.operation.name, a.request.id)
    return {"ExperimentArn": EXPERIMENT.arn(row.account, row.region, row.name)}


@EXPERIMENT.operation("DeleteExperiment", asks=[Ask("sagemaker:DeleteExperiment", EXPERIMENT.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = EXPERIMENT.named(a, tx)
    if TRIALS.rights(tx, row.account, row.region, row.name, limit=1):
        raise Refused(
            "ValidationException", f"The experiment {row.name} has trials. Please delete them first (ListTrials)."
        )
    EXPERIMENT.remove(tx, row, a.operation.name, a.request.id)
    return {"ExperimentArn": EXPERIMENT.arn(row.account, row.region, row.name)}
