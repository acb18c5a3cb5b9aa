"""What a tuning job's request says: ranges, objectives, and the training jobs that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.tuning import Parameter, Space

OBJECTIVE: Final = "_tuning_objective_metric"
"""The hyperparameter that tells a training job what it is compared by."""
_OF_CHILD: Final = (
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "Environment",
)
_MOST_RANGES: Final = 30
_EPOCHS: Final = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
_MOST_EPOCHS: Final = 20_000
_NEAR: Final = 10
"""How far around a hint's value Autotune searches, as a factor."""

Definition = Mapping[str, Any]


def definitions(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The training job definitions of a request; raises Refused unless there is one, or several with names."""
    one, several = given.get("TrainingJobDefinition"), given.get("TrainingJobDefinitions")
    if bool(one) == bool(several):
        raise _invalid("A tuning job has a TrainingJobDefinition, or TrainingJobDefinitions.")
    if one:
        return [one]
    names = [each.get("DefinitionName") for each in several or ()]
    if None in names or len(set(names)) < len(names):
        raise _invalid("Each of several TrainingJobDefinitions needs a DefinitionName of its own.")
    return list(several or ())


def ranges(given: Mapping[str, Any], definition: Definition) -> Mapping[str, Any]:
    """The ranges of a definition: its own, or those of the whole tuning job."""
    found: Mapping[str, Any] = (
        definition.get("HyperParameterRanges") or given["HyperParameterTuningJobConfig"].get("ParameterRanges") or {}
    )
    return found


def objective(given: Mapping[str, Any], definition: Definition) -> Mapping[str, str]:
    """Type and MetricName of a definition's objective; raises Refused if there is none."""
    found = definition.get("TuningObjective") or given["HyperParameterTuningJobConfig"].get(
        "HyperParameterTuningJobObjective"
    )
    if not found:
        raise _invalid("A tuning job needs a HyperParameterTuningJobObjective, or each definition a TuningObjective.")
    return found  # type: ignore[no-any-return]


def minimises(given: Mapping[str, Any], definition: Definition) -> bool:
    """Whether less is better."""
    return objective(given, definition)["Type"] == "Minimize"


def space(given: Mapping[str, Any], definition: Definition) -> Space:
    """What is searched; raises Refused for ranges that are none."""
    told = ranges(given, definition)
    made: list[Parameter] = []
    try:
        for type in ("Integer", "Continuous"):
            for one in told.get(f"{type}ParameterRanges") or ():
                made.append(
                    Parameter.of(one["Name"], type, one["MinValue"], one["MaxValue"], one.get("ScalingType", "Auto"))
                )
    except ValueError as error:
        raise _invalid(f"{error}.") from None
    for one in told.get("CategoricalParameterRanges") or ():
        if len(set(one["Values"])) < len(one["Values"]):
            raise _invalid(f"The Values of {one['Name']} must be different.")
        made.append(Parameter(one["Name"], "Categorical", values=tuple(one["Values"])))
    for one in told.get("AutoParameters") or ():
        if not given.get("Autotune"):
            raise _invalid("AutoParameters need Autotune.")
        made.append(hinted(one["Name"], one["ValueHint"]))
    names = [one.name for one in made]
    if not made or len(made) > _MOST_RANGES:
        raise _invalid(f"A tuning job searches 1 to {_MOST_RANGES} hyperparameters, this one {len(made)}.")
    static = definition.get("StaticHyperParameters") or {}
    twice = sorted({name for name in names if names.count(name) > 1 or name in static or name == OBJECTIVE})
    if twice:
        raise _invalid(f"The hyperparameter {twice[0]} occurs twice, or is static and searched.")
    return Space(tuple(made))


def hinted(name: str, hint: str) -> Parameter:
    """Autotune's range around a value that somebody would have taken: a factor of ten either way, by orders of magnitude.
    Raises Refused for a hint that is no positive number."""
    try:
        value = int(hint)
        return Parameter.of(name, "Integer", str(max(1, value // _NEAR)), str(value * _NEAR), "Logarithmic")
    except ValueError:
        pass
    try:
        number = float(hint)
        return Parameter.of(name, "Continuous", repr(number / _NEAR), repr(number * _NEAR), "Logarithmic")
    except ValueError:
        raise _invalid(
            f"The ValueHint of {name} must be a number above 0; give others as CategoricalParameterRanges."
        ) from None


def resources(definition: Definition) -> dict[str, Any]:
    """The ResourceConfig of the training jobs: as one client sends it or the other. Of several InstanceConfigs the first
    is taken, as they stand in the order of preference and this machine has them all."""
    plain, tuned = definition.get("ResourceConfig"), definition.get("HyperParameterTuningResourceConfig")
    if bool(plain) == bool(tuned):
        raise _invalid("A definition has a ResourceConfig, or a HyperParameterTuningResourceConfig.")
    if plain:
        return dict(plain)
    assert tuned is not None
    direct = [name for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB") if tuned.get(name)]
    if tuned.get("InstanceConfigs"):
        if direct:
            raise _invalid(f"HyperParameterTuningResourceConfig has InstanceConfigs or {direct[0]}, not both.")
        found = dict(tuned["InstanceConfigs"][0])
    else:
        found = {name: tuned[name] for name in direct}
    if tuned.get("VolumeKmsKeyId"):
        found["VolumeKmsKeyId"] = tuned["VolumeKmsKeyId"]
    return found


def request(
    given: Mapping[str, Any], definition: Definition, name: str, values: Mapping[str, str], tags: Sequence[Any] = ()
) -> dict[str, Any]:
    """CreateTrainingJob's input for a trial."""
    found = {key: definition[key] for key in _OF_CHILD if key in definition}
    found["TrainingJobName"] = name
    found["AlgorithmSpecification"] = dict(definition["AlgorithmSpecification"])
    found["ResourceConfig"] = resources(definition)
    found["HyperParameters"] = {
        **(definition.get("StaticHyperParameters") or {}),
        **values,
        OBJECTIVE: objective(given, definition)["MetricName"],
    }
    if tags:
        found["Tags"] = list(tags)
    return found


def child(tuning: str, created: int, number: int) -> str:
    """The name of a trial's training job, from 0; as SageMaker words it, and the same whenever it is asked."""
    digest = hashlib.sha256(f"{tuning}/{created}/{number}".encode()).hexdigest()
    return f"{tuning}-{number + 1:03d}-{digest[:8]}"


def epochs(given: Mapping[str, Any], definition: Definition) -> tuple[int, int]:
    """Hyperband's least and most epochs; raises Refused where they are not told.

    Source: API reference, "HyperbandStrategyConfig".
    """
    config = (given["HyperParameterTuningJobConfig"].get("StrategyConfig") or {}).get("HyperbandStrategyConfig") or {}
    static = definition.get("StaticHyperParameters") or {}
    told = config.get("MaxResource") or next((static[name] for name in _EPOCHS if name in static), None)
    try:
        most = int(str(told).strip('"'))
    except ValueError:
        raise _invalid(
            "Hyperband needs HyperbandStrategyConfig.MaxResource, or the number of epochs among the "
            f"StaticHyperParameters ({', '.join(_EPOCHS)})."
        ) from None
    least = int(config.get("MinResource") or 1)
    if not least < most <= _MOST_EPOCHS:
        raise _invalid(f"MaxResource must be more than MinResource, and at most {_MOST_EPOCHS}.")
    return least, most


def _invalid(message: str) -> Refused:
    return Refused("ValidationException", message)
