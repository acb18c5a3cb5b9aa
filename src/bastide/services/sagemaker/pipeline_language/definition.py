"""A definition as it was understood: parameters, and steps in the order in which they can run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from bastide.services.sagemaker.pipeline_language import caching, condition, retrying
from bastide.services.sagemaker.pipeline_language.expression import Malformed, Reference, expression, known, references

VERSION: Final = "2020-12-01"
MOST_BYTES: Final = 1 << 20
MOST_STEPS: Final = 50
_MOST_PARAMETERS: Final = 200
_DEEPEST: Final = 64
_MOST_CHARACTERS: Final = 1024
"""Of a parameter's value, as the API has it."""
_NAME: Final = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_MOST_INTEGER: Final = 1 << 63
_TYPES: Final = {"String": str, "Integer": int, "Float": float, "Boolean": bool}
JOBS: Final = ("Processing", "Training", "Tuning", "Transform")
RESOURCES: Final = ("Model", "RegisterModel", "EndpointConfig", "Endpoint")
CHECKS: Final[Mapping[str, tuple[str, ...]]] = {
    "QualityCheck": ("DATA_QUALITY", "MODEL_QUALITY"),
    "ClarifyCheck": ("DATA_BIAS", "MODEL_BIAS", "MODEL_EXPLAINABILITY"),
}
"""Types of steps that check, and of what they check."""
TYPES: Final = (*JOBS, *RESOURCES, *CHECKS, "Condition", "Fail", "Callback", "Lambda")
_CHECK_MEMBERS: Final = (
    "CheckType", "ModelPackageGroupName", "SkipCheck", "FailOnViolation", "RegisterNewBaseline",
    "SuppliedBaselineStatistics", "SuppliedBaselineConstraints", "ModelName",
)  # fmt: skip
_LACKING: Final = {
    "EMR": "there is no EMR",
    "EMRServerless": "there is no EMR Serverless",
    "AutoML": "there is no AutoML",
    "InferenceComponent": "there are no inference components",
    "Lineage": "lineage is recorded by itself; use the lineage operations for more",
    "NotebookJob": "write it as the Training step that the SDK makes of it",
    "Job": "run it as a Training or a Processing step",
    "ForEach": "write one step an item",
    "Cleanup": "delete what is left by its operation",
    "Athena": "there is no Athena",
}
_OUTPUT_TYPES: Final = ("String", "Integer", "Float", "Boolean")
_MEMBERS: Final = frozenset(
    {"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps", "CachingConfig"}
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """default: of its type, None if it has none. allowed: EnumValues."""

    name: str
    type: str
    default: Any = None
    allowed: tuple[Any, ...] = ()

    def read(self, text: str) -> Any:
        """A value as the API brings it; raises Malformed."""
        what = f"The value of the parameter {self.name}"
        if len(text) > _MOST_CHARACTERS:
            raise Malformed(f"{what} has more than {_MOST_CHARACTERS} characters.")
        value: Any = text
        try:
            if self.type == "Integer":
                value = int(text) if _INTEGER.fullmatch(text) else None
                if value is None or not -_MOST_INTEGER <= value < _MOST_INTEGER:
                    raise ValueError
            elif self.type == "Float":
                value = float(text)
                if not math.isfinite(value):
                    raise ValueError
            elif self.type == "Boolean":
                value = {"true": True, "false": False}[text.lower()]
        except (ValueError, KeyError):
            raise Malformed(f"{what} is no {self.type}: `{text[:100]}`.") from None
        return self.allow(value)

    def allow(self, value: Any) -> Any:
        """The value, if it is one of those allowed; raises Malformed."""
        if self.allowed and value not in self.allowed:
            choices = ", ".join(str(one) for one in self.allowed)[:500]
            raise Malformed(f"The value of the parameter {self.name} is not one of its EnumValues: {choices}.")
        return value


@dataclass(frozen=True, slots=True)
class PropertyFile:
    """A JSON file among the outputs of a processing step."""

    name: str
    output: str
    path: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step. arguments: unresolved; of a condition they are none. after: the steps that it waits for; reads: those of them
    whose results it uses. parent: the condition that it stands in, and whether among its IfSteps. keep: seconds for which
    its result may be used again, None if it is not cached. calls: the function's ARN or the queue's URL, unresolved.
    outputs: what it returns by name, and of which type. check: what a step that checks says of that, unresolved."""

    name: str
    type: str
    arguments: Any
    after: frozenset[str]
    reads: frozenset[str] = frozenset()
    display: str = ""
    description: str = ""
    parent: tuple[str, bool] | None = None
    conditions: Any = None
    keep: int | None = None
    retries: tuple[retrying.Policy, ...] = ()
    files: Mapping[str, PropertyFile] = field(default_factory=dict)
    calls: Any = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    check: Any = None

    @property
    def open(self) -> Iterator[Any]:
        """All values of the step that may have expressions."""
        yield self.arguments
        if self.calls is not None:
            yield self.calls
        if self.check is not None:
            yield self.check
        if self.conditions is not None:
            yield from condition.operands(self.conditions)


@dataclass(frozen=True, slots=True)
class Definition:
    """steps: by name, as they are written; those of a condition behind it. experiment: PipelineExperimentConfig,
    unresolved, None if nothing is to be recorded."""

    parameters: Mapping[str, Parameter]
    steps: Mapping[str, Step]
    experiment: Mapping[str, Any] | None

    def values(self, given: Mapping[str, str], inherited: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all parameters: given, inherited from another execution, or their defaults; raises Malformed."""
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise Malformed(
                f"The pipeline has no parameter {unknown[0][:100]}. Please give those of its definition only."
            )
        found: dict[str, Any] = {}
        for name, one in self.parameters.items():
            if name in given:
                found[name] = one.read(given[name])
            elif name in inherited:
                found[name] = one.allow(inherited[name])
            elif one.default is not None:
                found[name] = one.default
            else:
                raise Malformed(f"The parameter {name} has no default: please give its value in PipelineParameters.")
        return found


def parse(text: str, shapes: Mapping[str, Any] | None = None) -> Definition:
    """Reads a definition; raises Malformed. shapes: by step type, the shape that its properties have."""
    if len(text.encode()) > MOST_BYTES:
        raise Malformed(f"A pipeline definition has at most {MOST_BYTES} bytes.")
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The pipeline definition is no JSON: {error}.") from None
    if not isinstance(given, dict):
        raise Malformed("The pipeline definition is no JSON object.")
    _shallow(given)
    if given.get("Version") != VERSION:
        raise Malformed(f"The pipeline definition needs the Version {VERSION}.")
    unknown = sorted(set(given) - _MEMBERS)
    if unknown:
        raise Malformed(f"The pipeline definition has an unknown member {unknown[0][:100]}.")
    for member in ("MlflowConfig", "CachingConfig"):
        if given.get(member):
            raise Malformed(f"{member} of a pipeline definition is not supported by Bastide yet; please leave it out.")
    parameters = _parameters(given.get("Parameters"))
    steps: dict[str, Step] = {}
    written = given.get("Steps")
    if not isinstance(written, list) or not written:
        raise Malformed("The pipeline definition needs Steps, a list of at least one.")
    for one in written:
        _step(one, None, steps)
    experiment = given.get("PipelineExperimentConfig")
    if experiment is not None:
        _experiment(experiment, parameters)
    for name, one in steps.items():
        steps[name] = _check_references(one, parameters, steps, shapes or {})
    _acyclic(steps)
    return Definition(parameters, steps, experiment or None)


def _shallow(given: Any) -> None:
    level: list[Any] = [given]
    for _ in range(_DEEPEST):
        level = [
            one
            for value in level
            for one in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return
    raise Malformed(f"The pipeline definition is nested more than {_DEEPEST} deep.")


def _parameters(given: Any) -> dict[str, Parameter]:
    if given is None:
        return {}
    if not isinstance(given, list) or len(given) > _MOST_PARAMETERS:
        raise Malformed(f"Parameters is a list of at most {_MOST_PARAMETERS}.")
    found: dict[str, Parameter] = {}
    for one in given:
        name = one.get("Name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9\-_]{1,256}", name):
            raise Malformed("Each of the Parameters needs a Name of letters, digits, - and _.")
        if name in found:
            raise Malformed(f"There are two parameters {name}.")
        type = one.get("Type")
        if type not in _TYPES:
            raise Malformed(f"The parameter {name} has no Type out of {', '.join(_TYPES)}.")
        allowed = one.get("EnumValues")
        if allowed is not None and (not isinstance(allowed, list) or not allowed):
            raise Malformed(f"EnumValues of the parameter {name} is a list of at least one.")
        choices = tuple(_typed(value, type, f"An EnumValue of the parameter {name}") for value in allowed or ())
        made = Parameter(name, type, None, choices)
        if one.get("DefaultValue") is not None:
            default = made.allow(_typed(one["DefaultValue"], type, f"The DefaultValue of the parameter {name}"))
            made = Parameter(name, type, default, choices)
        found[name] = made
    return found


def _typed(value: Any, type: str, what: str) -> Any:
    if type == "Float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, _TYPES[type]) or (type == "Integer" and isinstance(value, bool)):
        raise Malformed(f"{what} is no {type}.")
    if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
        raise Malformed(f"{what} has more than {_MOST_CHARACTERS} characters.")
    return value


def _experiment(given: Any, parameters: Mapping[str, Parameter]) -> None:
    if not isinstance(given, dict) or not given.get("ExperimentName"):
        raise Malformed("PipelineExperimentConfig needs an ExperimentName; null records no experiment.")
    for one in references(given):
        if one.where == "Steps":
            raise Malformed("PipelineExperimentConfig may name Parameters and Execution, not Steps.")
        if one.where == "Parameters" and one.name not in parameters:
            raise Malformed(f"PipelineExperimentConfig refers to the parameter {one.name[:100]}, which is not there.")


def _step(given: Any, parent: tuple[str, bool] | None, steps: dict[str, Step]) -> None:
    name = given.get("Name") if isinstance(given, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed("Each step needs a Name of at most 64 letters, digits, - and _.")
    if name in steps:
        raise Malformed(f"There are two steps {name}. Please give each a name of its own.")
    if len(steps) >= MOST_STEPS:
        raise Malformed(f"A pipeline has at most {MOST_STEPS} steps.")
    type = given.get("Type")
    if type not in TYPES:
        why = _LACKING.get(type) if isinstance(type, str) else None
        if why is not None:
            raise Malformed(f"The step {name} has the Type {type}, which Bastide has not: {why}.")
        raise Malformed(f"The step {name} has an unknown Type; it is one of {', '.join(TYPES)}.")
    arguments = given.get("Arguments", {} if type in ("Callback", "Lambda") else None)
    if not isinstance(arguments, dict) or expression(arguments):
        raise Malformed(f"The step {name} needs Arguments, an object.")
    conditions = None
    if type == "Condition":
        conditions, arguments, below = arguments.get("Conditions"), {}, arguments
        condition.check(conditions, name)
    if type == "Fail":
        arguments = {"ErrorMessage": arguments.get("ErrorMessage", "")}
    steps[name] = Step(
        name,
        type,
        arguments,
        _depends(given, name, parent),
        frozenset(),
        _text(given, "DisplayName", 256, name),
        _text(given, "Description", 3072, name),
        parent,
        conditions,
        _keep(given, name, type),
        retrying.policies(given["RetryPolicies"], name) if given.get("RetryPolicies") else (),
        _files(given, name, type),
        _calls(given, name, type),
        _outputs(given, name, type),
        _check(given, name, type),
    )
    if type == "Condition":
        for member, branch in (("IfSteps", True), ("ElseSteps", False)):
            inner = below.get(member) or []
            if not isinstance(inner, list):
                raise Malformed(f"{member} of the step {name} is a list.")
            for one in inner:
                _step(one, (name, branch), steps)


def _text(given: Mapping[str, Any], member: str, most: int, name: str) -> str:
    text = given.get(member) or ""
    if not isinstance(text, str) or len(text) > most:
        raise Malformed(f"{member} of the step {name} is a text of at most {most} characters.")
    return text


def _depends(given: Mapping[str, Any], name: str, parent: tuple[str, bool] | None) -> frozenset[str]:
    named = given.get("DependsOn") or []
    if not isinstance(named, list) or any(not isinstance(one, str) for one in named):
        raise Malformed(f"DependsOn of the step {name} is a list of steps' names.")
    return frozenset(named) | ({parent[0]} if parent is not None else set())


def _keep(given: Mapping[str, Any], name: str, type: str) -> int | None:
    cache = given.get("CacheConfig")
    if cache is None:
        return None
    if not isinstance(cache, dict) or not isinstance(cache.get("Enabled"), bool):
        raise Malformed(f"CacheConfig of the step {name} needs Enabled, true or false.")
    if not cache["Enabled"]:
        return None
    if type not in caching.CACHEABLE:
        raise Malformed(
            f"The step {name} cannot be cached: that is for {', '.join(sorted(caching.CACHEABLE))}, not for {type}."
        )
    if cache.get("ExpireAfter") is None:
        raise Malformed(f"CacheConfig of the step {name} needs ExpireAfter, such as P30D.")
    return caching.lifetime(cache["ExpireAfter"])


def _files(given: Mapping[str, Any], name: str, type: str) -> dict[str, PropertyFile]:
    files = given.get("PropertyFiles") or []
    if files and type != "Processing":
        raise Malformed(f"PropertyFiles are for steps of the Type Processing; {name} is a {type}.")
    found: dict[str, PropertyFile] = {}
    for one in files if isinstance(files, list) else [None]:
        parts = ("PropertyFileName", "OutputName", "FilePath")
        told = [str(one.get(key) or "") if isinstance(one, dict) else "" for key in parts]
        if any(not 0 < len(part) <= 1024 for part in told):
            raise Malformed(f"PropertyFiles of the step {name} need PropertyFileName, OutputName and FilePath.")
        if told[0] in found:
            raise Malformed(f"The step {name} has two property files {told[0]}.")
        found[told[0]] = PropertyFile(*told)
    return found


def _calls(given: Mapping[str, Any], name: str, type: str) -> Any:
    member = {"Lambda": "FunctionArn", "Callback": "SqsQueueUrl"}.get(type)
    if member is None:
        return None
    called = given.get(member)
    if not (isinstance(called, str) and called) and not expression(called):
        raise Malformed(f"The step {name} needs a {member}.")
    return called


def _outputs(given: Mapping[str, Any], name: str, type: str) -> dict[str, str]:
    outputs = given.get("OutputParameters") or []
    if type not in ("Lambda", "Callback") or not outputs:
        return {}
    found: dict[str, str] = {}
    for one in outputs if isinstance(outputs, list) else [None]:
        told = one.get("OutputName") if isinstance(one, dict) else None
        of = one.get("OutputType", "String") if isinstance(one, dict) else None
        if not isinstance(told, str) or not 0 < len(told) <= 256 or of not in _OUTPUT_TYPES:
            raise Malformed(
                f"OutputParameters of the step {name} need an OutputName and an OutputType ({', '.join(_OUTPUT_TYPES)})."
            )
        found[told] = of
    if len(found) > 50:
        raise Malformed(f"The step {name} has more than 50 OutputParameters.")
    return found


def _check(given: Mapping[str, Any], name: str, type: str) -> dict[str, Any] | None:
    if type not in CHECKS:
        return None
    found = {member: given[member] for member in _CHECK_MEMBERS if given.get(member) is not None}
    if found.get("CheckType") not in CHECKS[type]:
        raise Malformed(f"The step {name} needs a CheckType out of {', '.join(CHECKS[type])}.")
    return found


# -- references --------------------------------------------------------------------------------------------------------


def _check_references(
    step: Step, parameters: Mapping[str, Parameter], steps: Mapping[str, Step], shapes: Mapping[str, Any]
) -> Step:
    """The step with all that it waits for."""
    reads: set[str] = set()
    for one in step.after:
        if one not in steps:
            raise Malformed(f"The step {step.name} depends on {one[:100]}, which is no step of this pipeline.")
    for value in step.open:
        for meant in references(value):
            if meant.where == "Parameters" and meant.name not in parameters:
                raise Malformed(f"The step {step.name} refers to the parameter {meant.name[:100]}, which is not there.")
            if meant.where == "Steps":
                _check_property(step, meant, steps, shapes)
                reads.add(meant.name)
    if step.name in step.after | reads:
        raise Malformed(f"The step {step.name} depends on itself.")
    return replace(step, after=step.after | reads, reads=frozenset(reads))


def _check_property(step: Step, meant: Reference, steps: Mapping[str, Step], shapes: Mapping[str, Any]) -> None:
    other = steps.get(meant.name)
    if other is None:
        raise Malformed(f"The step {step.name} refers to {meant.name}, which is no step of this pipeline.")
    what = f"The step {step.name} refers to {meant.name}.{'.'.join(str(one) for one in meant.path)[:200]}"
    if meant.path[0] == "PropertyFiles":
        if meant.file not in other.files:
            raise Malformed(f"{what}, but that step has no such property file.")
    elif other.type in ("Lambda", "Callback"):
        if meant.path[0] != "OutputParameters" or len(meant.path) != 2 or meant.path[1] not in other.outputs:
            raise Malformed(f"{what}: of a {other.type} step there are its OutputParameters['NAME'] only.")
    elif other.type in ("Condition", "Fail"):
        raise Malformed(f"{what}: a {other.type} step has no properties.")
    elif other.type in shapes and not known(shapes[other.type], meant.path):
        raise Malformed(f"{what}, which is no property of a {other.type} step.")


def _acyclic(steps: Mapping[str, Step]) -> None:
    waiting = {name: set(one.after) for name, one in steps.items()}
    while free := [name for name, after in waiting.items() if not after]:
        for name in free:
            del waiting[name]
        for after in waiting.values():
            after.difference_update(free)
    if waiting:
        raise Malformed(f"Steps wait for each other in a circle: {' -> '.join(_circle(waiting))}. Please break it.")


def _circle(waiting: Mapping[str, Iterable[str]]) -> list[str]:
    path = [min(waiting)]
    while True:
        following = min(one for one in waiting[path[-1]] if one in waiting)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
