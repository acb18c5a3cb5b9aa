"""The processing jobs that an execution of a monitoring schedule is.

Source: developer guide, "model-monitor-byoc-contract-inputs", "model-monitor-model-quality-merge"; names and places as
SageMaker's own jobs have them.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import Instant, iso
from bastide.services.sagemaker import monitoring_times
from bastide.services.sagemaker.monitoring_definition import CLARIFY, MERGED, MERGER, Monitoring

_BASE: Final = "/opt/ml/processing"
_PREFIXES: Final = {
    "DataQuality": "data-quality-monitoring",
    "ModelQuality": "model-quality-monitoring",
    "ModelBias": "model-bias-monitoring",
    "ModelExplainability": "model-explainability-monitoring",
}
_LONGEST: Final = 63
_ATTRIBUTES: Final = {
    "FeaturesAttribute": "features_attribute",
    "InferenceAttribute": "inference_attribute",
    "ProbabilityAttribute": "probability_attribute",
    "ProbabilityThresholdAttribute": "probability_threshold_attribute",
    "ExcludeFeaturesAttribute": "exclude_features_attribute",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Something to read. below: where it lies below the folder of its kind. hour: of which it is (or day, of several).
    manifest: it names what is to be read."""

    uri: str
    below: str
    hour: str
    manifest: bool = False


@dataclass(frozen=True, slots=True)
class Occasion:
    """An execution: of which schedule, for when, and from when to when it looks. id: tells it from all others."""

    schedule: str
    id: str
    region: str
    at: Instant
    start: Instant
    end: Instant

    def name(self, prefix: str) -> str:
        """A job's name, the same whenever it is asked for."""
        minute = re.sub(r"[^0-9]", "", iso(self.at)[:16])
        digest = hashlib.sha256(self.id.encode()).hexdigest()[:24]
        return f"{prefix}-{minute}-{digest}"[:_LONGEST]


def job_name(one: Monitoring, occasion: Occasion) -> str:
    """The name of the job that analyses."""
    return occasion.name(_PREFIXES[one.type])


def merge_name(occasion: Occasion) -> str:
    """The name of the job that merges."""
    return occasion.name("groundtruth-merge")


def merged(one: Monitoring, occasion: Occasion) -> str:
    """Where merged data lies."""
    base = f"{one.output['S3Uri'].rstrip('/')}/merge"
    return base if one.endpoint else f"{base}/{occasion.schedule}"


def _input(name: str, uri: str, folder: str, *, manifest: bool = False, **more: Any) -> dict[str, Any]:
    given = {
        "S3Uri": uri, "LocalPath": folder, "S3DataType": "ManifestFile" if manifest else "S3Prefix",
        "S3InputMode": "File", "S3CompressionType": "None", "S3DataDistributionType": "FullyReplicated", **more,
    }  # fmt: skip
    return {"InputName": name, "AppManaged": False, "S3Input": given}


def _places(name: str, folder: str, places: Iterable[Place], **more: Any) -> list[dict[str, Any]]:
    return [
        _input(f"{name}_{number}", place.uri, f"{folder.rstrip('/')}/{place.below}", manifest=place.manifest, **more)
        for number, place in enumerate(places, 1)
    ]


def _job(one: Monitoring, name: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ProcessingJobName": name,
        "RoleArn": one.role,
        "ProcessingResources": {"ClusterConfig": dict(one.cluster)},
        "StoppingCondition": {"MaxRuntimeInSeconds": one.seconds},
        **more,
    }
    if one.network:
        found["NetworkConfig"] = dict(one.network)
    return found


def _outputs(one: Monitoring, uri: str, folder: str, mode: str) -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": folder, "S3UploadMode": mode}
    key = one.outputs.get("KmsKeyId")
    return {
        "Outputs": [{"OutputName": "result", "AppManaged": False, "S3Output": target}],
        **({"KmsKeyId": key} if key else {}),
    }


def merge(one: Monitoring, occasion: Occasion, captured: Sequence[Place], truth: Sequence[Place]) -> dict[str, Any]:
    """The input of CreateProcessingJob for the job that puts captured data and ground truth together."""
    told = {} if one.endpoint else {"dataset_format": orjson.dumps(_written(one)).decode()}
    folders = {"dataset_source": f"{_BASE}/input_data", "ground_truth_source": f"{_BASE}/groundtruth"}
    output = f"{_BASE}/output"
    return _job(
        one,
        merge_name(occasion),
        AppSpecification={"ImageUri": MERGER.format(occasion.region)},
        ProcessingInputs=[
            *_places("groundtruth_input", folders["ground_truth_source"], truth),
            *_places("endpoint_input", folders["dataset_source"], captured),
        ],
        ProcessingOutputConfig=_outputs(one, merged(one, occasion), output, "EndOfJob"),
        Environment={
            **told,
            **folders, "output_path": output, "start_time": iso(occasion.start), "end_time": iso(occasion.end),
        },
    )  # fmt: skip


def analysis(one: Monitoring, occasion: Occasion, data: Sequence[Place]) -> dict[str, Any]:
    """The input of CreateProcessingJob for the job that analyses."""
    inputs = []
    told: dict[str, str] = {
        "publish_cloudwatch_metrics": "Enabled",
        **one.environment,
        "dataset_format": orjson.dumps(_format(one)).decode(),
        "dataset_source": one.source["LocalPath"],
        "output_path": one.output["LocalPath"],
        "start_time": iso(occasion.start),
        "end_time": iso(occasion.end),
        "metric_time": iso(occasion.start),
        "sagemaker_monitoring_schedule_name": occasion.schedule,
    }
    if one.endpoint:
        told["sagemaker_endpoint_name"] = one.endpoint
    if one.type == "ModelQuality":
        told["analysis_type"] = "MODEL_QUALITY"
        if one.application.get("ProblemType"):
            told["problem_type"] = one.application["ProblemType"]
    for member, variable in _ATTRIBUTES.items():
        if one.source.get(member) not in (None, ""):
            told[variable] = str(one.source[member])
    for file, name, folder in (("constraints", "constraints", "constraints"), ("statistics", "baseline", "stats")):
        if file in one.baseline:
            place = f"{_BASE}/baseline/{folder}"
            inputs.append(_input(name, one.baseline[file], place))
            told[f"baseline_{file}"] = f"{place}/{posixpath.basename(one.baseline[file])}"
    for member, variable, folder in (
        ("RecordPreprocessorSourceUri", "record_preprocessor_script", "preprocessing"),
        ("PostAnalyticsProcessorSourceUri", "post_analytics_processor_script", "postprocessing"),
    ):
        if one.application.get(member):
            place, uri = f"{_BASE}/code/{folder}", one.application[member]
            inputs.append(_input(f"{variable}_input", uri, place))
            told[variable] = f"{place}/{posixpath.basename(uri)}"
    application = {"ImageUri": one.application["ImageUri"]}
    if one.type in CLARIFY:
        inputs.append(_input("analysis_config", one.application["ConfigUri"], f"{_BASE}/input/config"))
    for member in ("ContainerEntrypoint", "ContainerArguments"):
        if one.application.get(member):
            application[member] = one.application[member]
    how = {"S3DataDistributionType": one.source.get("S3DataDistributionType") or "FullyReplicated"}
    target = one.output
    return _job(
        one,
        job_name(one, occasion),
        AppSpecification=application,
        ProcessingInputs=[*inputs, *_places("endpoint_input", one.source["LocalPath"], data, **how)],
        ProcessingOutputConfig=_outputs(
            one, results(one, occasion), target["LocalPath"], target.get("S3UploadMode") or "Continuous"
        ),
        Environment=told,
    )


def results(one: Monitoring, occasion: Occasion) -> str:
    """Where an execution's reports lie."""
    parts = (one.output["S3Uri"].rstrip("/"), one.endpoint, occasion.schedule, monitoring_times.folder(occasion.at))
    return "/".join(part for part in parts if part)


def _written(one: Monitoring) -> Mapping[str, Any]:
    """The format of what transform jobs read and wrote."""
    given = one.source["DatasetFormat"]
    if "Csv" in given:
        return {"csv": {"header": bool((given["Csv"] or {}).get("Header"))}}
    if "Json" in given:
        return {"json": {"line": bool((given["Json"] or {}).get("Line"))}}
    return {"parquet": {}}


def _format(one: Monitoring) -> Mapping[str, Any]:
    if not one.endpoint and one.type not in MERGED:
        return _written(one)
    indexes = ["endpointInput", "endpointOutput"] if one.endpoint else ["batchTransformOutput"]
    kind = "sagemakerMergeJson" if one.type in MERGED else "sagemakerCaptureJson"
    return {kind: {"captureIndexNames": indexes[1:] if one.type == "ModelQuality" and one.endpoint else indexes}}
