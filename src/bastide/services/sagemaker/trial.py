"""Trials: the runs of an experiment, each a set of trial components."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, anything, regular, tags_of
from bastide.services.sagemaker.asking import tagging
from bastide.services.sagemaker.experiment import EXPERIMENT, experimental
from bastide.services.sagemaker.listing import listed
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.relation import COMPONENTS, TRIALS
from bastide.store import Row, Transaction, View

TRIAL: Final = experimental("Trial", "experiment-trial")
_MOST_TRIALS: Final = 10_000
"""Trials of one experiment: a list of them is sorted as a whole."""


def _both(asked: Asked) -> Iterable[str]:
    """As AWS documents it: the experiment, too, is asked about."""
    return (*TRIAL.this(asked), *EXPERIMENT.this(asked))


@TRIAL.operation("CreateTrial", asks=[Ask("sagemaker:CreateTrial", _both), tagging(TRIAL, "CreateTrial")])
def create(a: Authorised, tx: Transaction) -> Output:
    name, experiment = a.input["TrialName"], EXPERIMENT.named(a, tx)
    doc: dict[str, Any] = {"CreatedBy": who(a)}
    if a.input.get("MetadataProperties"):
        doc["MetadataProperties"] = a.input["MetadataProperties"]
    doc["DisplayName"] = a.input.get("DisplayName") or name
    doc["ExperimentName"] = experiment.name
    _full(tx, experiment)
    TRIAL.create(a, tx, name, doc, tags=tags_of(a))
    TRIALS.add(tx, a.account, a.region, experiment.name, name)
    return {"TrialArn": TRIAL.arn(a.account, a.region, name)}


def _full(tx: Transaction, experiment: Row) -> None:
    here = TRIALS.rights(tx, experiment.account, experiment.region, experiment.name, limit=_MOST_TRIALS)
    if len(here) >= _MOST_TRIALS:
        raise Refused(
            "ResourceLimitExceeded",
            f"The experiment {experiment.name} has {_MOST_TRIALS} trials, the most it may have.",
        )


def of_job(a: Authorised, tx: Transaction, experiment: Row, job: str) -> Row:
    """The trial of a job that names an experiment and no trial."""
    name = f"{job}-aws-trial"[:120]
    row = TRIAL.create(
        a, tx, name, {"DisplayName": name, "ExperimentName": experiment.name, "CreatedBy": who(a)}
    )  # fmt: skip
    TRIALS.add(tx, a.account, a.region, experiment.name, name)
    return row


regular(TRIAL, "Describe")


@TRIAL.reads("ListTrials", asks=[Ask("sagemaker:ListTrials", anything)])
def every(a: Authorised, view: View) -> Output:
    among = None
    if a.input.get("ExperimentName"):
        experiment = EXPERIMENT.find(view, a.account, a.region, a.input["ExperimentName"])
        among = TRIALS.rights(view, a.account, a.region, experiment.name)
    if a.input.get("TrialComponentName"):
        with_it = COMPONENTS.lefts(view, a.account, a.region, a.input["TrialComponentName"])
        among = with_it if among is None else sorted(set(among) & set(with_it))
    return listed(a, view, TRIAL, among=among)


@TRIAL.operation("UpdateTrial", asks=[Ask("sagemaker:UpdateTrial", TRIAL.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = TRIAL.named(a, tx)
    row.doc["DisplayName"] = a.input.get("DisplayName") or row.doc["DisplayName"]
    row.doc["LastModifiedBy"] = who(a)
    TRIAL.change(tx, row, a.operation.name, a.request.id)
    return {"TrialArn": TRIAL.arn(row.account, row.region, row.name)}


@TRIAL.operation("DeleteTrial", asks=[Ask("sagemaker:DeleteTrial", TRIAL.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = TRIAL.named(a, tx)
    if COMPONENTS.rights(tx, row.account, row.region, row.name, limit=1):
        raise Refused(
            "ValidationException",
            f"The trial {row.name} has components. Please take them out first (DisassociateTrialComponent).",
        )
    TRIALS.drop(tx, row.account, row.region, row.doc["ExperimentName"], row.name)
    TRIAL.remove(tx, row, a.operation.name, a.request.id)
    return {"TrialArn": TRIAL.arn(row.account, row.region, row.name)}
