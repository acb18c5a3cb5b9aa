"""Step caching: how long a result may be used again, and which arguments count.

Source: SageMaker developer guide, "Caching pipeline steps" and "Default cache key attributes by pipeline step type".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.services.sagemaker.pipeline_language.expression import Malformed

_DURATION: Final = re.compile(
    r"P?(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,7})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?",
    re.IGNORECASE,
)
_SECONDS: Final = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)
_DEFINITION: Final = (
    "AlgorithmSpecification",
    "HyperParameterRanges",
    "InputDataConfig",
    "StaticHyperParameters",
    "TuningObjective",
)
_COUNT: Final[Mapping[str, tuple[str, ...]]] = {
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "Training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
    "Tuning": ("HyperParameterTuningJobConfig", "TrainingJobDefinition", "TrainingJobDefinitions"),
    "Transform": ("DataProcessing", "Environment", "ModelName", "TransformInput"),
    # The guide lists none for the first two, of checks all: whatever they are given counts.
    "Lambda": (),
    "Callback": (),
    "QualityCheck": (),
    "ClarifyCheck": (),
}
CACHEABLE: Final = frozenset(_COUNT)


def lifetime(text: Any) -> int:
    """Seconds of an ExpireAfter (``P30d``, ``PT1H``, ``30dT5h``, in either case); raises Malformed."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or not any(found.groups()):
        raise Malformed(f"ExpireAfter `{str(text)[:100]}` is no duration; write P30D or PT12H.")
    return sum(int(count or 0) * seconds for count, seconds in zip(found.groups(), _SECONDS, strict=True))


def key(type: str, arguments: Mapping[str, Any], function: str = "") -> str:
    """What is the same for two runs of a step of which one may stand for the other. function: whom it calls."""
    counts = _COUNT[type]
    told = {name: one for name, one in arguments.items() if not counts or name in counts}
    if isinstance(told.get("TrainingJobDefinition"), dict):
        told["TrainingJobDefinition"] = {
            name: one for name, one in told["TrainingJobDefinition"].items() if name in _DEFINITION
        }
    return hashlib.sha256(orjson.dumps([type, function, told], option=orjson.OPT_SORT_KEYS)).hexdigest()
