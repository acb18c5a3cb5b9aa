"""What a job leaves by itself: its trial component, in the transactions in which it begins and ends."""

from __future__ import annotations

import math
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.workflow import Run
from bastide.kernel import Authorised, Kind
from bastide.services.sagemaker import lineage, lineage_record, trial
from bastide.services.sagemaker.experiment import EXPERIMENT
from bastide.services.sagemaker.model_package_group import who
from bastide.services.sagemaker.relation import SOURCES
from bastide.services.sagemaker.trial import TRIAL
from bastide.services.sagemaker.trial_component import JOBS_OWN, MAPS, METRIC_KEY, TRIAL_COMPONENT, join, series, write
from bastide.store import Row, Transaction

_ENDINGS: Final = dict(zip(("TrainingJob", "ProcessingJob", "TransformJob"), JOBS_OWN, strict=True))


def component_name(kind: Kind, job: str) -> str:
    """The component's name, which clients look up."""
    return f"{job}{_ENDINGS[kind.name]}"


def begin(a: Authorised, tx: Transaction, kind: Kind, row: Row) -> None:
    """The component of a job that was just made, in the experiment and trial that its request names.

    Raises Refused where they do not exist.
    """
    component = _make(tx, kind, row)
    given = row.doc.get("ExperimentConfig") or {}
    if given.get("TrialComponentDisplayName"):
        component.doc["DisplayName"] = given["TrialComponentDisplayName"]
        tx.update(component, keep=False)
    if given.get("RunName"):
        told = TRIAL_COMPONENT.find(tx, row.account, row.region, given["RunName"])
        first, last = (TRIAL_COMPONENT.arn(row.account, row.region, one.name) for one in (told, component))
        lineage.associate(tx, row.account, row.region, first, last, "AssociatedWith", CreatedBy=who(a))
    if given.get("ExperimentName"):
        experiment = EXPERIMENT.find(tx, row.account, row.region, given["ExperimentName"])
    if given.get("TrialName"):
        found = TRIAL.find(tx, row.account, row.region, given["TrialName"])
        if given.get("ExperimentName", found.doc["ExperimentName"]) != found.doc["ExperimentName"]:
            raise Refused(
                "ValidationException", f"The trial {found.name} is not of the experiment {given['ExperimentName']}."
            )
        join(tx, found, component.name)
    elif given.get("ExperimentName"):
        join(tx, trial.of_job(a, tx, experiment, row.name), component.name)


def ended(tx: Transaction, kind: Kind, row: Row, run: Run) -> None:
    """Writes what came of a job onto its component; in the transaction in which the job ends."""
    component = TRIAL_COMPONENT.get(tx, row.account, row.region, component_name(kind, row.name)) or _make(tx, kind, row)
    doc = component.doc
    doc["Status"] = {"PrimaryStatus": row.status}
    if row.doc.get("FailureReason"):
        doc["Status"]["Message"] = row.doc["FailureReason"][:1024]
    began, over = (row.doc.get(f"{kind.name.removesuffix('Job')}{end}Time") for end in ("Start", "End"))
    doc |= {key: value for key, value in (("StartTime", began), ("EndTime", over)) if value is not None}
    made = (row.doc.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if made:
        doc["OutputArtifacts"] = {**doc["OutputArtifacts"], "SageMaker.ModelArtifact": {"Value": made}}
        doc["_own"]["OutputArtifacts"] = [*doc["_own"]["OutputArtifacts"], "SageMaker.ModelArtifact"]
    for metric, held in (run.state.get("courses") or {}).items():
        # What somebody claimed of it while the job ran gives way to what was read off.
        claimed = tx.get(METRIC_KEY, row.account, row.region, f"{component.name}|{metric}")
        if claimed is not None:
            tx.drop_log(series(row.account, row.region, component.name, metric))
        write(tx, component, metric, held, claimed)
        doc["_own"]["Metrics"] = [*doc["_own"]["Metrics"], metric]
    TRIAL_COMPONENT.change(tx, component, "TrialComponentStateChange")
    record = lineage_record.of_transform if kind.name == "TransformJob" else lineage_record.of_job
    record(tx, kind, row, component, run)


def _make(tx: Transaction, kind: Kind, row: Row) -> Row:
    arn = kind.arn(row.account, row.region, row.name)
    name = component_name(kind, row.name)
    doc: dict[str, Any] = {
        "DisplayName": name,
        "Source": {"SourceArn": arn, "SourceType": f"SageMaker{kind.name}"},
        "Status": {"PrimaryStatus": "InProgress"},
        **_PARTS[kind.name](row),
    }
    doc["_own"] = {member: sorted(doc[member]) for member in MAPS} | {"Metrics": []}
    found = Row(TRIAL_COMPONENT.key, row.account, row.region, name, doc)
    tx.insert(found, event="TrialComponentStateChange")
    SOURCES.add(tx, row.account, row.region, arn.lower(), name)
    return found


def _of_training(row: Row) -> dict[str, Any]:
    doc, resources = row.doc, row.doc["ResourceConfig"]
    inputs = {"SageMaker.ImageUri": {"Value": doc["AlgorithmSpecification"]["TrainingImage"]}}
    for channel in doc.get("InputDataConfig") or ():
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri")
        if uri:
            inputs[channel["ChannelName"]] = _artifact(uri, channel.get("ContentType"))
    return {
        "Parameters": _parameters(doc.get("HyperParameters") or {}, resources),
        "InputArtifacts": inputs,
        "OutputArtifacts": {},
    }


def _of_processing(row: Row) -> dict[str, Any]:
    doc, resources = row.doc, row.doc["ProcessingResources"]["ClusterConfig"]
    inputs = {"SageMaker.ImageUri": {"Value": doc["AppSpecification"]["ImageUri"]}}
    for one in doc.get("ProcessingInputs") or ():
        if one.get("S3Input"):
            inputs[one["InputName"]] = _artifact(one["S3Input"]["S3Uri"], None)
    outputs = {}
    for one in (doc.get("ProcessingOutputConfig") or {}).get("Outputs") or ():
        if one.get("S3Output"):
            outputs[one["OutputName"]] = _artifact(one["S3Output"]["S3Uri"], None)
    return {
        "Parameters": _parameters(doc.get("Environment") or {}, resources),
        "InputArtifacts": inputs,
        "OutputArtifacts": outputs,
    }


def _of_transform(row: Row) -> dict[str, Any]:
    doc = row.doc
    source, target = doc["TransformInput"], doc["TransformOutput"]
    inputs = {"SageMaker.ModelName": {"Value": doc["ModelName"]}}
    inputs["SageMaker.InputDataSet"] = _artifact(
        source["DataSource"]["S3DataSource"]["S3Uri"], source.get("ContentType")
    )
    return {
        "Parameters": _parameters(doc.get("Environment") or {}, doc["TransformResources"]),
        "InputArtifacts": inputs,
        "OutputArtifacts": {"SageMaker.OutputDataSet": _artifact(target["S3OutputPath"], target.get("Accept"))},
    }


_PARTS: Final = {"TrainingJob": _of_training, "ProcessingJob": _of_processing, "TransformJob": _of_transform}


def _artifact(uri: str, media: str | None) -> dict[str, Any]:
    return {"Value": uri, **({"MediaType": media} if media else {})}


def _parameters(given: dict[str, Any], resources: dict[str, Any]) -> dict[str, Any]:
    """Numbers as numbers, so that a search can compare them."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        text = str(value)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        found[name] = {"NumberValue": number} if math.isfinite(number) else {"StringValue": text[:2500]}
    for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB"):
        value = resources.get(name)
        if value is not None:
            key = "StringValue" if isinstance(value, str) else "NumberValue"
            found[f"SageMaker.{name}"] = {key: value if isinstance(value, str) else float(value)}
    return found
