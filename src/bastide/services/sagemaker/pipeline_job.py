"""What steps make: which operation makes it, what tells that it is over, and what the step then has as properties."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.kernel import Kind
from bastide.protocol import Head, codec
from bastide.services.sagemaker.endpoint import ENDPOINT
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.model_package import MODEL_PACKAGE
from bastide.services.sagemaker.pipeline_language import CHECKS
from bastide.services.sagemaker.processing_job import PROCESSING_JOB
from bastide.services.sagemaker.training_job import TRAINING_JOB
from bastide.services.sagemaker.transform_job import TRANSFORM_JOB
from bastide.services.sagemaker.tuning_job import TUNING_JOB
from bastide.store import Row

_ALPHABET: Final = string.ascii_letters + string.digits
_HEAD: Final = Head("POST", b"/", [], {})


@dataclass(frozen=True, slots=True)
class Made:
    """What a type of step makes. metadata: the member of a listed step that names it. named_by: the member of the request
    that does, empty for model packages, which get a number. longest: characters of the name. stop: what ends it before
    its time. good, bad: the statuses that it can end with; neither: it is there at once. told: whether its end is told by
    the outbox. recorded: whether its request takes an ExperimentConfig. update: what is called instead of its creation when
    there is one of the name that the arguments bring; without, such a name is but the beginning of the one that it gets."""

    kind: Kind
    metadata: str
    named_by: str
    longest: int = 63
    stop: str = ""
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    told: bool = True
    recorded: bool = False
    update: str = ""

    @property
    def create(self) -> str:
        """The operation that makes it."""
        return f"Create{self.kind.name}"

    @property
    def describe(self) -> str:
        """The operation that shows it."""
        return f"Describe{self.kind.name}"

    def described(self, name: str) -> dict[str, str]:
        """The input of `describe`. name: the name, of a model package its ARN."""
        return {self.named_by or "ModelPackageName": name}

    def ended(self, row: Row) -> str:
        """The status that it ended with; empty while it goes on."""
        if not self.good:
            return "Completed"
        return row.status if row.status in (*self.good, *self.bad) else ""


_BAD: Final = ("Failed", "Stopped")
MADE: Final[Mapping[str, Made]] = {
    "Processing": Made(
        PROCESSING_JOB, "ProcessingJob", "ProcessingJobName", stop="StopProcessingJob", good=("Completed",), bad=_BAD,
        recorded=True,
    ),
    **dict.fromkeys(CHECKS, Made(
        PROCESSING_JOB, "ProcessingJob", "ProcessingJobName", stop="StopProcessingJob", good=("Completed",), bad=_BAD,
        recorded=True,
    )),
    "Training": Made(
        TRAINING_JOB, "TrainingJob", "TrainingJobName", stop="StopTrainingJob", good=("Completed",), bad=_BAD,
        recorded=True,
    ),
    "Transform": Made(
        TRANSFORM_JOB, "TransformJob", "TransformJobName", stop="StopTransformJob", good=("Completed",), bad=_BAD,
        recorded=True,
    ),
    "Tuning": Made(
        TUNING_JOB, "TuningJob", "HyperParameterTuningJobName", longest=32, stop="StopHyperParameterTuningJob",
        good=("Completed",), bad=_BAD,
    ),
    "Model": Made(MODEL, "Model", "ModelName"),
    "RegisterModel": Made(MODEL_PACKAGE, "RegisterModel", ""),
    "EndpointConfig": Made(ENDPOINT_CONFIG, "EndpointConfig", "EndpointConfigName"),
    "Endpoint": Made(
        ENDPOINT, "Endpoint", "EndpointName", good=("InService",), bad=("Failed", "OutOfService"), told=False,
        update="UpdateEndpoint",
    ),
}  # fmt: skip


def name_for(made: Made, execution: str, step: str, given: Any) -> str:
    """The name of what a step makes: ``pipelines-EXECUTION-STEP-RANDOM``, or with the prefix that its arguments bring
    instead. execution: the id."""
    if made.update and isinstance(given, str) and given:
        return given
    random = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    front = f"{given}-{execution}" if isinstance(given, str) and given else f"pipelines-{execution}-{step}"
    front = re.sub(r"[^a-zA-Z0-9-]", "-", front)
    if (
        made.longest < 63
    ):  # names of tuning jobs are short: the execution's id and as much of the step as there is room for
        random = random[:4]
        front = re.sub(r"[^a-zA-Z0-9-]", "-", f"{execution}-{step}")
    return f"{front[: made.longest - len(random) - 1].strip('-')}-{random}"


def request(
    made: Made, operation: str, arguments: Mapping[str, Any], name: str, execution: Row, step: str
) -> dict[str, Any]:
    """The input of the operation that makes or updates it, as the API's model has it; raises Refused for arguments that it
    has not."""
    given = {key: value for key, value in arguments.items() if value is not None}
    if made.named_by:
        given[made.named_by] = name
    else:
        # The same request is answered with the same version.
        given["ClientToken"] = hashlib.sha256(name.encode()).hexdigest()[:36]
        given["MetadataProperties"] = {
            "GeneratedBy": execution.doc["PipelineExecutionArn"],
            **(given.get("MetadataProperties") or {}),
        }
    if made.recorded and "PipelineExperimentConfig" in execution.doc:
        given.setdefault(
            "ExperimentConfig",
            {**execution.doc["PipelineExperimentConfig"], "TrialComponentDisplayName": f"{step}"[:120]},
        )
    modelled = codec("sagemaker").operations[operation]
    parsed = modelled.parse("json", _HEAD, orjson.dumps(given))
    modelled.validate(parsed)
    return parsed
