"""The programs, what the platform must have recorded of each, and what some still wait for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Program:
    """One file below ``programs``.

    name: ``v2/...`` or ``v3/...`` of the SageMaker SDK, or below the name of another client. calls: operations that it
    cannot do without, as the record names them. awaits: what it needs and Bastide has not: an operation, or ``OPERATION:
    words`` of the refusal of a member. short: in `make test`.
    """

    name: str
    calls: tuple[str, ...]
    awaits: tuple[str, ...] = ()
    short: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @property
    def environment(self) -> str:
        folder = self.name.partition("/")[0]
        return f"sagemaker-{folder}" if folder in ("v2", "v3") else folder


_SERVING = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint", "DeleteEndpoint")
_TRAINING = ("CreateTrainingJob", "DescribeTrainingJob")
_TUNING = (
    "CreateHyperParameterTuningJob",
    "DescribeHyperParameterTuningJob",
    "ListTrainingJobsForHyperParameterTuningJob",
)
_TRANSFORM = ("CreateTransformJob", "DescribeTransformJob")
_RUNS = ("CreateExperiment", "CreateTrial", "CreateTrialComponent", "AssociateTrialComponent", "UpdateTrialComponent")
_PIPELINE = (
    "CreatePipeline",
    "UpdatePipeline",
    "StartPipelineExecution",
    "ListPipelineExecutionSteps",
    "CreateProcessingJob",
    "CreateTrainingJob",
    "CreateModelPackage",
    "DeletePipeline",
)
_LINEAGE = ("CreateArtifact", "AddAssociation", "QueryLineage")

PROGRAMS = (
    Program("v2/default_bucket", ("GetCallerIdentity", "CreateBucket")),
    Program(
        "v2/sklearn_train_deploy",
        ("GetCallerIdentity", "GetRole", *_TRAINING, *_SERVING, "DeleteModel", "DeleteEndpointConfig"),
        short=True,
    ),
    Program("v2/processing", ("CreateProcessingJob", "DescribeProcessingJob", "GetLogEvents"), short=True),
    Program("v2/framework_processing", ("CreateProcessingJob", "DescribeProcessingJob")),
    Program("v2/registry", ("CreateModelPackage", "UpdateModelPackage", *_SERVING)),
    Program("v2/governed_training", (*_TRAINING, "CreateKey", "ListTags")),
    Program("v2/attach_and_stop", (*_TRAINING, "StopTrainingJob")),
    Program("v2/update_endpoint", (*_SERVING, "UpdateEndpoint")),
    Program("v2/training_analytics", (*_TRAINING, "GetMetricStatistics")),
    Program("v2/xgboost_estimator", (*_TRAINING, *_SERVING, "GetMetricStatistics")),
    Program("v2/builtin_algorithms", (*_TRAINING, *_TRANSFORM, *_SERVING)),
    Program("v2/tuner", _TUNING),
    Program("v2/debugger", _TRAINING),
    Program("v2/transformer", _TRANSFORM),
    Program("v2/experiments", _RUNS),
    Program("v2/lineage", (*_LINEAGE, "CreateAction", "CreateContext")),
    Program("v2/pipeline", _PIPELINE),
    Program("v2/async_inference", _SERVING),
    Program("v2/multi_model", _SERVING),
    Program("v2/data_capture", _SERVING),
    Program(
        "v2/monitor",
        (
            "CreateProcessingJob",
            "CreateDataQualityJobDefinition",
            "CreateMonitoringSchedule",
            "ListMonitoringExecutions",
            "UpdateMonitoringSchedule",
            *_SERVING,
        ),
    ),
    Program(
        "v2/model_monitors",
        ("CreateProcessingJob", "CreateModelBiasJobDefinition", "CreateModelExplainabilityJobDefinition", *_SERVING),
    ),
    Program(
        "v2/quality_check", ("CreatePipeline", "StartPipelineExecution", "CreateProcessingJob", "ListModelPackages")
    ),
    Program("v2/model_quality", ("CreateModelQualityJobDefinition", "CreateMonitoringSchedule", *_SERVING)),
    Program("v2/clarify", ("CreateProcessingJob", *_SERVING[1:])),
    Program("v2/clarify_check", ("CreatePipeline", "StartPipelineExecution", "CreateProcessingJob", "CreateModel")),
    Program("v3/default_bucket", ("GetCallerIdentity", "CreateBucket")),
    Program("v3/model_trainer", ("SimulatePrincipalPolicy", "GetRole", *_TRAINING, "GetLogEvents"), short=True),
    Program("v3/governed_training", (*_TRAINING, "CreateKey")),
    Program("v3/list_and_stop", (*_TRAINING, "ListTrainingJobs", "StopTrainingJob")),
    Program("v3/processing", ("CreateProcessingJob", "DescribeProcessingJob")),
    Program("v3/model_builder", ("CreateModelPackage", "UpdateModelPackage", *_SERVING), short=True),
    Program("v3/tuner", _TUNING[:2]),
    Program("v3/transformer", _TRANSFORM),
    Program("v3/experiments", _RUNS),
    Program("v3/lineage", _LINEAGE),
    Program("v3/pipeline", tuple(one for one in _PIPELINE if one != "UpdatePipeline")),
    Program("v3/async_inference", _SERVING),
    Program("airflow/orchestrate", ("CreateProcessingJob", *_TRAINING, "CreateModelPackage")),
    Program(
        "stepfunctions/workflow",
        ("CreateStateMachine", "StartExecution", "CreateProcessingJob", *_TRAINING, _TUNING[0], *_SERVING[:3]),
        short=True,
    ),
)
