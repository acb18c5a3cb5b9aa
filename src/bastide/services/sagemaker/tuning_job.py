"""Hyperparameter tuning jobs: their operations.

Source: Amazon SageMaker API Reference; developer guide, "automatic-model-tuning".
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.tuning import Optimiser, count_of
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, each, fill, pages, regular, tags_of
from bastide.kernel.kind import Given
from bastide.protocol import codec
from bastide.services.sagemaker import job_network, tuning_trial
from bastide.services.sagemaker.asking import keys, passing, several, tagging
from bastide.services.sagemaker.session import check_role
from bastide.services.sagemaker.training_job import LONGEST, check, in_script_mode
from bastide.services.sagemaker.tuning_definition import (
    OBJECTIVE,
    definitions,
    epochs,
    objective,
    request,
    resources,
    space,
)
from bastide.store import Row, Transaction, View

TUNING_JOB: Final = Kind(
    "HyperParameterTuningJob",
    service="sagemaker",
    arn="hyper-parameter-tuning-job/{}",
    states=("InProgress", "Completed", "Failed", "Stopping", "Stopped"),
    missing=("ResourceNotFound", "Amazon SageMaker can't find a tuning job with the name {name}.", 400),
    taken=(
        "ResourceInUse",
        "Tuning job names must be unique within an AWS account and region, and a tuning job with this name already "
        "exists ({arn})",
        400,
    ),
)

MOST: Final = 750
"""Training jobs of a tuning job."""
_MOST_PARALLEL: Final = 100
_MOST_DEFINITIONS: Final = 10
_PARENTS: Final = "sagemaker:TuningParents"
_PARENTS_NEED: Final = ("Bayesian", "Random")
_ONE: Final = "TrainingJobDefinition."
_EACH: Final = "TrainingJobDefinitions."

_AGREED: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "OutputKmsKey": (("OutputDataConfig.KmsKeyId",), ""),
    "VolumeKmsKey": (("ResourceConfig.VolumeKmsKeyId", "HyperParameterTuningResourceConfig.VolumeKmsKeyId"), ""),
    "NetworkIsolation": (("EnableNetworkIsolation",), "false"),
    "InterContainerTrafficEncryption": (("EnableInterContainerTrafficEncryption",), "false"),
    "MaxRuntimeInSeconds": (("StoppingCondition.MaxRuntimeInSeconds",), str(LONGEST)),
}
"""Condition keys of one value: where they stand in a definition, and what counts where nothing does."""


def _read(definition: Any, paths: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for path in paths:
        here = definition
        for part in path.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        if here is not None and here != "":
            found.append(("true" if here else "false") if isinstance(here, bool) else str(here))
    return found


def _all(given: Any) -> list[Any]:
    return [one for one in (given.get("TrainingJobDefinition"), *(given.get("TrainingJobDefinitions") or ())) if one]


def _agreed(key: str) -> Given:
    """The value of a key that all definitions agree on; `_check_agreement` refuses those that do not."""
    paths, default = _AGREED[key]

    def given(asked: Asked) -> str | None:
        found = [_read(one, paths) or [default] for one in _all(asked.input)] or [[default]]
        return found[0][0] or None

    return given


def _every(*paths: str) -> Given:
    return several(*(f"{place}{path}" for path in paths for place in (_ONE, _EACH)))


def _first(path: str) -> Given:
    reads = [each(f"{place}{path}") for place in (_ONE, _EACH)]
    return lambda asked: next((found for read in reads if (found := read(asked))), None)


def _check_agreement(given: Any) -> None:
    """Raises Refused for definitions that differ in what a policy sees as one value: it would see the first one only."""
    for key, (paths, default) in _AGREED.items():
        if len({tuple(_read(one, paths) or [default]) for one in _all(given)}) > 1:
            raise Refused(
                "ValidationException",
                f"TrainingJobDefinitions must have the same {paths[0]}: policies see it once ({key}).",
            )


async def _before(a: Authorised) -> None:
    arn = TUNING_JOB.arn(a.account, a.region, a.input["HyperParameterTuningJobName"])
    where = {"account": a.account, "region": a.region, "source_arn": arn}
    for definition in definitions(a.input):
        await check_role(a.calls, definition["RoleArn"], **where)
        await job_network.check(a.calls, definition["RoleArn"], definition.get("VpcConfig"), **where)


_FILES: Final = "InputDataConfig.DataSource.FileSystemDataSource."


@TUNING_JOB.operation(
    "CreateHyperParameterTuningJob",
    asks=[
        Ask(
            "sagemaker:CreateHyperParameterTuningJob",
            TUNING_JOB.this,
            given=keys(
                FileSystemAccessMode=_every(f"{_FILES}FileSystemAccessMode"),
                FileSystemDirectoryPath=_every(f"{_FILES}DirectoryPath"),
                FileSystemId=_every(f"{_FILES}FileSystemId"),
                FileSystemType=_every(f"{_FILES}FileSystemType"),
                InstanceTypes_=_every(
                    "ResourceConfig.InstanceType",
                    "ResourceConfig.InstanceGroups.InstanceType",
                    "HyperParameterTuningResourceConfig.InstanceType",
                    "HyperParameterTuningResourceConfig.InstanceConfigs.InstanceType",
                ),
                VpcSubnets_=_every("VpcConfig.Subnets"),
                VpcSecurityGroupIds_=_every("VpcConfig.SecurityGroupIds"),
                **{key: _agreed(key) for key in _AGREED},
            ),
        ),
        passing(TUNING_JOB, f"{_ONE}RoleArn", f"{_EACH}RoleArn"),
        tagging(TUNING_JOB, "CreateHyperParameterTuningJob"),
    ],
    before=_before,
)
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    name = given["HyperParameterTuningJobName"]
    doc = deepcopy({key: value for key, value in given.items() if key not in ("Tags", "HyperParameterTuningJobName")})
    config = doc["HyperParameterTuningJobConfig"] = _configured(given)
    every = definitions(doc)
    if len(every) > _MOST_DEFINITIONS:
        raise Refused("ValidationException", f"A tuning job has at most {_MOST_DEFINITIONS} training job definitions.")
    _check_agreement(doc)
    _check_strategy(doc, every)
    tags = tags_of(a)
    watched: list[list[dict[str, str]]] = []
    for definition in every:
        one = request(doc, definition, f"{name}-001-00000000", {})
        environment = check(a, tx, one)
        own = () if environment is None or in_script_mode(one) else environment.metrics
        watched.append([{"Name": metric, "Regex": pattern} for metric, pattern in own])
        told = [metric["Name"] for metric in definition["AlgorithmSpecification"].get("MetricDefinitions") or ()]
        told += [metric for metric, _ in own]
        aim = objective(doc, definition)["MetricName"]
        if aim not in told:
            raise Refused(
                "ValidationException",
                f"The objective metric {aim} is neither among AlgorithmSpecification.MetricDefinitions nor one that the "
                "algorithm brings.",
            )
        # AWS shows what it tells each training job, and the SDK takes it out again when it attaches.
        definition["StaticHyperParameters"] = {**(definition.get("StaticHyperParameters") or {}), OBJECTIVE: aim}
    doc["_metrics"] = watched
    parents = _parents(a, tx, doc, every)
    doc["_execution"] = f"{TUNING_JOB.arn(a.account, a.region, name)}#{a.request.id}"
    if parents:
        tx.insert(Row(_PARENTS, a.account, a.region, name, {"trials": parents}), keep=False)
    doc["Strategy"], doc["ResourceLimits"] = config["Strategy"], config["ResourceLimits"]
    doc["TrainingJobStatusCounters"] = dict.fromkeys(
        ("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0
    )
    doc["ObjectiveStatusCounters"] = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    doc["ConsumedResources"] = {"RuntimeInSeconds": 0}
    TUNING_JOB.create(a, tx, name, doc, status="InProgress", tags=tags)
    return {"HyperParameterTuningJobArn": TUNING_JOB.arn(a.account, a.region, name)}


def _configured(given: Any) -> dict[str, Any]:
    """The configuration as it counts: with what Autotune chooses where nothing was said."""
    config = dict(given["HyperParameterTuningJobConfig"])
    if given.get("Autotune"):
        if config["Strategy"] in ("Bayesian", "Random"):
            config.setdefault("TrainingJobEarlyStoppingType", "Auto")
        criteria = dict(config.get("TuningJobCompletionCriteria") or {})
        criteria.setdefault("ConvergenceDetected", {"CompleteOnConvergence": "Enabled"})
        config["TuningJobCompletionCriteria"] = criteria
    return config


def _check_strategy(doc: Any, every: list[dict[str, Any]]) -> None:
    """Raises Refused for limits that contradict each other or the strategy."""
    config = doc["HyperParameterTuningJobConfig"]
    strategy, limits = config["Strategy"], config["ResourceLimits"]
    spaces = [space(doc, definition) for definition in every]
    most, parallel = limits.get("MaxNumberOfTrainingJobs"), limits["MaxParallelTrainingJobs"]
    if strategy == "Grid":
        if any(one.type != "Categorical" for each in spaces for one in each.parameters):
            raise Refused("ValidationException", "The strategy Grid searches CategoricalParameterRanges only.")
        count = sum(count_of(one) for one in spaces)
        if most not in (None, count):
            raise Refused(
                "ValidationException",
                f"MaxNumberOfTrainingJobs of this grid is {count}; leave it out or give that number.",
            )
        config["ResourceLimits"] = limits = {**limits, "MaxNumberOfTrainingJobs": count}
        most = count
    if most is None:
        criteria = config.get("TuningJobCompletionCriteria")
        if not limits.get("MaxRuntimeInSeconds") and not criteria:
            raise Refused(
                "ValidationException",
                "ResourceLimits needs MaxNumberOfTrainingJobs or MaxRuntimeInSeconds, or there must be "
                "TuningJobCompletionCriteria.",
            )
        most = MOST
    for value, allowed, what in (
        (most, MOST, "Number of training jobs"),
        (parallel, _MOST_PARALLEL, "Number of parallel training jobs"),
    ):
        if value > allowed:
            raise Refused("ResourceLimitExceeded", f"{what} of a tuning job is limited to {allowed}, not {value}.")
    if parallel > most:
        raise Refused(
            "ValidationException",
            f"MaxParallelTrainingJobs ({parallel}) must not be more than MaxNumberOfTrainingJobs ({most}).",
        )
    if strategy == "Bayesian" and (lacking := Optimiser.lacking()):
        raise Refused(
            "ValidationException",
            f"This platform has no Bayesian optimiser: install {lacking}, or use another Strategy.",
        )
    if strategy == "Hyperband":
        if config.get("TrainingJobEarlyStoppingType") == "Auto":
            raise Refused("ValidationException", "Hyperband stops by itself: TrainingJobEarlyStoppingType must be Off.")
        for definition in every:
            epochs(doc, definition)
    elif config.get("StrategyConfig"):
        raise Refused("ValidationException", "StrategyConfig belongs to the strategy Hyperband.")


def _parents(a: Authorised, view: View, doc: Any, every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the parents of a warm start found: trials by definition. Raises Refused for those that cannot be parents.

    Source: developer guide, "automatic-model-tuning-warm-start".
    """
    warm = doc.get("WarmStartConfig")
    if not warm:
        return []
    if doc["HyperParameterTuningJobConfig"]["Strategy"] not in _PARENTS_NEED:
        raise Refused("ValidationException", "A warm start needs the strategy Bayesian or Random.")
    if len(every) > 1:
        raise Refused("ValidationException", "A warm start needs a single TrainingJobDefinition.")
    found: list[dict[str, Any]] = []
    for one in warm["ParentHyperParameterTuningJobs"]:
        parent = TUNING_JOB.find(view, a.account, a.region, one.get("HyperParameterTuningJobName") or "")
        if parent.status not in tuning_trial.OVER:
            raise Refused("ValidationException", f"The parent {parent.name} is not over yet: {parent.status}.")
        theirs = definitions(parent.doc)
        if len(theirs) > 1 or objective(parent.doc, theirs[0]) != objective(doc, every[0]):
            raise Refused("ValidationException", f"The parent {parent.name} has another objective.")
        _alike(parent, theirs[0], every[0], doc, identical=warm["WarmStartType"] == "IdenticalDataAndAlgorithm")
        for row in tuning_trial.every(view, parent):
            trial = row.doc
            if trial.get("value") is not None:
                found.append(
                    {
                        "values": trial["values"],
                        "value": trial["value"],
                        "tuning": parent.name,
                        "number": trial["number"],
                    }
                )
    return found[-MOST:]


def parents_of(view: View, row: Row) -> list[dict[str, Any]]:
    """The parents' trials that a tuning job began with: values, value, and whose they were."""
    found = view.get(_PARENTS, row.account, row.region, row.name)
    return [] if found is None else list(found.doc["trials"])


def _alike(parent: Row, theirs: Any, ours: Any, doc: Any, *, identical: bool) -> None:
    def names(given: Any, definition: Any) -> set[str]:
        searched = {one.name for one in space(given, definition).parameters}
        return (searched | set(definition.get("StaticHyperParameters") or {})) - {OBJECTIVE}

    def data(definition: Any) -> Any:
        return [(one["ChannelName"], one["DataSource"]) for one in definition.get("InputDataConfig") or ()]

    told: tuple[tuple[str, Callable[[], Any], Callable[[], Any]], ...] = (
        ("hyperparameters", lambda: names(parent.doc, theirs), lambda: names(doc, ours)),
    )
    if identical:
        told += (
            ("input data", lambda: data(theirs), lambda: data(ours)),
            (
                "algorithm",
                lambda: theirs["AlgorithmSpecification"].get("TrainingImage"),
                lambda: ours["AlgorithmSpecification"].get("TrainingImage"),
            ),
        )
    for what, before, now in told:
        if before() != now():
            raise Refused("ValidationException", f"The parent {parent.name} has other {what}.")


regular(TUNING_JOB, "List", descending=True)


@TUNING_JOB.reads(
    "DescribeHyperParameterTuningJob", asks=[Ask("sagemaker:DescribeHyperParameterTuningJob", TUNING_JOB.this)]
)
def describe(a: Authorised, view: View) -> Output:
    """With the training jobs' ResourceConfig, however it was told, and the metrics that an algorithm brings: the SDK reads
    both when it attaches."""
    row = TUNING_JOB.named(a, view)
    found = fill(TUNING_JOB, codec("sagemaker").operations["DescribeHyperParameterTuningJob"].output_shape, row)
    metrics = row.doc.get("_metrics") or [[]] * len(definitions(row.doc))
    if "TrainingJobDefinition" in found:
        found["TrainingJobDefinition"] = _shown(found["TrainingJobDefinition"], metrics[0])
    if "TrainingJobDefinitions" in found:
        found["TrainingJobDefinitions"] = list(map(_shown, found["TrainingJobDefinitions"], metrics))
    return found


def _shown(definition: Any, metrics: list[dict[str, str]]) -> dict[str, Any]:
    algorithm = definition["AlgorithmSpecification"]
    if metrics:
        algorithm = {**algorithm, "MetricDefinitions": metrics}
    return {**definition, "AlgorithmSpecification": algorithm, "ResourceConfig": resources(definition)}


@TUNING_JOB.operation(
    "StopHyperParameterTuningJob", asks=[Ask("sagemaker:StopHyperParameterTuningJob", TUNING_JOB.this)]
)
def stop(a: Authorised, tx: Transaction) -> Output:
    row = TUNING_JOB.named(a, tx)
    if row.status == "Stopping":
        return {}
    if row.status != "InProgress":
        raise Refused(
            "ValidationException", f"The request was rejected because the tuning job is in status {row.status}."
        )
    row.status = "Stopping"
    TUNING_JOB.change(tx, row, a.operation.name, a.request.id)
    return {}


@TUNING_JOB.operation(
    "DeleteHyperParameterTuningJob", asks=[Ask("sagemaker:DeleteHyperParameterTuningJob", TUNING_JOB.this)]
)
def delete(a: Authorised, tx: Transaction) -> Output:
    row = TUNING_JOB.get(tx, a.account, a.region, a.input["HyperParameterTuningJobName"])
    if row is None:
        return {}
    if row.status not in tuning_trial.OVER:
        raise Refused(
            "ValidationException", f"A tuning job in status {row.status} cannot be deleted; please stop it first."
        )
    tuning_trial.forget(tx, row)
    parents = tx.get(_PARENTS, row.account, row.region, row.name)
    if parents is not None:
        tx.delete(parents, keep=False)
    TUNING_JOB.remove(tx, row, a.operation.name, a.request.id)
    return {}


@TUNING_JOB.reads(
    "ListTrainingJobsForHyperParameterTuningJob",
    asks=[Ask("sagemaker:ListTrainingJobsForHyperParameterTuningJob", TUNING_JOB.this)],
)
def trials(a: Authorised, view: View) -> Output:
    row = TUNING_JOB.named(a, view)
    every = definitions(row.doc)
    found = [
        told
        for trial in tuning_trial.every(view, row)
        if (told := tuning_trial.summary(view, row, every[trial.doc["definition"]], trial.doc))
    ]
    status = a.input.get("StatusEquals")
    found = [one for one in found if status in (None, one["TrainingJobStatus"])]
    by = a.input.get("SortBy", "Name")
    if by == "FinalObjectiveMetricValue":
        # API reference: jobs without a value are left out when sorted by it.
        found = [one for one in found if "FinalHyperParameterTuningJobObjectiveMetric" in one]
        found.sort(key=lambda one: one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])
    else:
        member = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}[by]
        found.sort(key=lambda one: one[member])
    if a.input.get("SortOrder", "Ascending") == "Descending":
        found.reverse()
    start = int(pages.position(a, a.input.get("NextToken")) or 0)
    end = start + int(a.input.get("MaxResults") or 10)
    return {
        "TrainingJobSummaries": found[start:end],
        "NextToken": pages.seal(a, end) if len(found) > end else None,
    }
