"""SageMaker: jobs that train and process, a registry of models with approvals, endpoints that answer.

Source: Amazon SageMaker API Reference and developer guide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bastide.domain import Arn
from bastide.engines.workflow import Flow, Workflows
from bastide.kernel import Calls, Facts, Kind, Service
from bastide.kernel.outbox import Outbox
from bastide.policy import Attached, Document, Form
from bastide.services.sagemaker import model_package, notebook_url, pipeline_flow, project, state_changes
from bastide.services.sagemaker.association import ASSOCIATION
from bastide.services.sagemaker.async_flow import AsyncFlow
from bastide.services.sagemaker.capture import Capture
from bastide.services.sagemaker.code_repository import CODE_REPOSITORY
from bastide.services.sagemaker.endpoint import ENDPOINT
from bastide.services.sagemaker.endpoint_config import ENDPOINT_CONFIG
from bastide.services.sagemaker.endpoint_flow import EndpointFlow
from bastide.services.sagemaker.entity import ACTION, ARTIFACT, CONTEXT
from bastide.services.sagemaker.experiment import EXPERIMENT
from bastide.services.sagemaker.metric_data import METRICS
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.model_card import MODEL_CARD
from bastide.services.sagemaker.model_package import MODEL_PACKAGE
from bastide.services.sagemaker.model_package_group import MODEL_PACKAGE_GROUP
from bastide.services.sagemaker.monitoring_definition import DEFINITIONS
from bastide.services.sagemaker.monitoring_flow import MonitoringFlow, Monitors
from bastide.services.sagemaker.monitoring_schedule import MONITORING_SCHEDULE
from bastide.services.sagemaker.notebook_host import Notebooks
from bastide.services.sagemaker.notebook_host import events as notebook_events
from bastide.services.sagemaker.notebook_instance import NOTEBOOK
from bastide.services.sagemaker.notebook_lifecycle_config import LIFECYCLE_CONFIG
from bastide.services.sagemaker.pipeline import PIPELINE
from bastide.services.sagemaker.pipeline_step import PIPELINE_EXECUTION
from bastide.services.sagemaker.processing_flow import ProcessingFlow
from bastide.services.sagemaker.processing_job import PROCESSING_JOB
from bastide.services.sagemaker.project import PROJECT
from bastide.services.sagemaker.search import SEARCH
from bastide.services.sagemaker.session import SAGEMAKER
from bastide.services.sagemaker.tagging import TAGS
from bastide.services.sagemaker.tracking_host import Trackers, events
from bastide.services.sagemaker.tracking_server import TRACKING_SERVER
from bastide.services.sagemaker.training_flow import TrainingFlow
from bastide.services.sagemaker.training_job import TRAINING_JOB
from bastide.services.sagemaker.transform_flow import TransformFlow
from bastide.services.sagemaker.transform_job import TRANSFORM_JOB
from bastide.services.sagemaker.trial import TRIAL
from bastide.services.sagemaker.trial_component import TRIAL_COMPONENT
from bastide.services.sagemaker.tuning_flow import TuningFlow
from bastide.services.sagemaker.tuning_job import TUNING_JOB
from bastide.services.sagemaker.tuning_trial import OVER
from bastide.services.sagemaker.warm_pool import WarmPools, available
from bastide.store import View

__all__ = [
    "METRICS",
    "SERVICE",
    "Capture",
    "Monitors",
    "Notebooks",
    "Trackers",
    "flows",
    "notebook_url",
    "recover",
    "subscribe",
]

_POOL_EVENTS = ("UpdateTrainingJob", "WarmPoolReused", "WarmPoolTerminated")
_ENDPOINT_EVENTS = ("CreateEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities", "DeleteEndpoint")


def _facts(view: View, arn: Arn, action: str) -> Facts | None:
    if arn.resource.startswith(MODEL_PACKAGE.type):
        return model_package.facts(view, arn)
    if arn.resource.startswith(PIPELINE_EXECUTION.type) and "/execution/" in arn.resource:
        return PIPELINE_EXECUTION.facts(view, arn)
    if action in ("sagemaker:CreateTrainingJob", "sagemaker:StopTrainingJob"):
        found = TRAINING_JOB.facts(view, arn) if arn.resource.startswith(TRAINING_JOB.type) else None
        return None if found is None else replace(found, policy=_TUNERS)
    if action == "sagemaker:CreateProcessingJob" and arn.resource.startswith(PROCESSING_JOB.type):
        found = PROCESSING_JOB.facts(view, arn)
        return None if found is None else replace(found, policy=_MONITORS)
    return None


_TUNERS = Attached(
    Document.parse(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "TuningJobs",
                    "Effect": "Allow",
                    "Principal": {"Service": SAGEMAKER},
                    "Action": ["sagemaker:CreateTrainingJob", "sagemaker:StopTrainingJob"],
                    "Resource": "*",
                    "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:*:*:hyper-parameter-tuning-job/*"}},
                }
            ],
        },
        Form.RESOURCE,
    ),
    "the trust of training jobs in tuning jobs",
)
"""SageMaker makes and stops the training jobs of tuning jobs by itself: whoever made the tuning job was asked for them, and
for the role that they get. Nobody but the platform itself acts as this service."""
_MONITORS = Attached(
    Document.parse(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "MonitoringSchedules",
                    "Effect": "Allow",
                    "Principal": {"Service": SAGEMAKER},
                    "Action": "sagemaker:CreateProcessingJob",
                    "Resource": "*",
                    "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:*:*:monitoring-schedule/*"}},
                }
            ],
        },
        Form.RESOURCE,
    ),
    "the trust of processing jobs in monitoring schedules",
)
"""The same of the processing jobs of monitoring schedules."""


SERVICE = Service(
    "sagemaker",
    kinds=[
        TRAINING_JOB,
        TUNING_JOB,
        PROCESSING_JOB,
        MONITORING_SCHEDULE,
        *DEFINITIONS.values(),
        MODEL_PACKAGE_GROUP,
        MODEL_PACKAGE,
        MODEL_CARD,
        MODEL,
        ENDPOINT_CONFIG,
        ENDPOINT,
        TRANSFORM_JOB,
        PIPELINE,
        PIPELINE_EXECUTION,
        PROJECT,
        EXPERIMENT,
        TRIAL,
        TRIAL_COMPONENT,
        TRACKING_SERVER,
        NOTEBOOK,
        LIFECYCLE_CONFIG,
        CODE_REPOSITORY,
        ARTIFACT,
        ACTION,
        CONTEXT,
        ASSOCIATION,
        SEARCH,
        TAGS,
    ],
    facts=_facts,
)


state_changes.follow(SERVICE.kinds)


def flows(calls: Calls, *, grace_seconds: float = 120.0) -> list[Flow]:
    """The workflows of jobs, tuning and endpoints. grace_seconds: between SIGTERM and the end of a job that is stopped.

    `calls` needs the engines Sandboxes, Volumes, Placement, Serving, Meter, Capture and Workflows by the time they run.
    """
    pools = WarmPools(calls)
    training = TrainingFlow(calls, grace_seconds, pools)
    return [
        pools.flow(),
        training.flow(),
        TuningFlow(calls, training).flow(),
        ProcessingFlow(calls, grace_seconds).flow(),
        MonitoringFlow(calls).flow(),
        EndpointFlow(calls).flow(),
        AsyncFlow(calls).flow(),
        TransformFlow(calls).flow(),
        pipeline_flow.PipelineFlow(calls).flow(),
    ]


def subscribe(outbox: Outbox, calls: Calls, workflows: Workflows) -> None:
    """What was asked for begins, and what was to stop is told, once the asking is on the disk."""

    async def job(body: dict[str, Any], flow: str, create: str, stop: str) -> None:
        if body["event"] == create:
            await workflows.begin(flow, body["arn"], {key: body[key] for key in ("account", "region", "name")})
        elif body["event"] == stop:
            await workflows.signal(body["arn"], "stop")

    async def training(body: dict[str, Any]) -> None:
        await job(body, "training", "CreateTrainingJob", "StopTrainingJob")
        if body["event"] in _POOL_EVENTS:
            return
        if body["status"] in OVER:
            with calls.store.reading() as view:
                row = TRAINING_JOB.get(view, body["account"], body["region"], body["name"])
                arn = None if row is None else row.doc.get("TuningJobArn")
                owner = None if arn is None else TUNING_JOB.get(view, *TUNING_JOB.locate(arn, "", ""))
            if owner is not None:
                await workflows.signal(owner.doc["_execution"], body["name"])
            if row is not None and available(row):
                where = {key: body[key] for key in ("account", "region", "name")}
                await workflows.begin("warm-pool", WarmPools.id_of(body["arn"]), where)

    async def tuning(body: dict[str, Any]) -> None:
        with calls.store.reading() as view:
            row = TUNING_JOB.get(view, body["account"], body["region"], body["name"])
        if row is None:
            return
        if body["event"] == "CreateHyperParameterTuningJob":
            where = {key: body[key] for key in ("account", "region", "name")}
            await workflows.begin("tuning", row.doc["_execution"], where)
        elif body["event"] == "StopHyperParameterTuningJob":
            await workflows.signal(row.doc["_execution"], "stop")

    async def processing(body: dict[str, Any]) -> None:
        await job(body, "processing", "CreateProcessingJob", "StopProcessingJob")
        if body["status"] not in ("InProgress", "Stopping"):
            with calls.store.reading() as view:
                row = PROCESSING_JOB.get(view, body["account"], body["region"], body["name"])
            if row is not None and "_execution" in row.doc:
                await workflows.signal(row.doc["_execution"], body["name"])

    async def transform(body: dict[str, Any]) -> None:
        await job(body, "transform", "CreateTransformJob", "StopTransformJob")

    async def endpoint(body: dict[str, Any]) -> None:
        if body["event"] not in _ENDPOINT_EVENTS:
            return
        with calls.store.reading() as view:
            row = ENDPOINT.get(view, body["account"], body["region"], body["name"])
        if row is None:
            return
        where = {key: body[key] for key in ("account", "region", "name")}
        if row.status == "Deleting":
            if not (row.doc.get("_live") and await workflows.signal(row.doc["_live"], "stop")):
                await _remove(calls, ENDPOINT, where)
        elif row.doc.get("_next"):
            asked = row.doc.get("_asked") or {"config": row.doc.get("_config", row.doc["EndpointConfigName"])}
            await workflows.begin("endpoint", row.doc["_next"], {**where, **asked})

    outbox.subscribe(TRAINING_JOB.key, training)
    outbox.subscribe(TUNING_JOB.key, tuning)
    outbox.subscribe(PROCESSING_JOB.key, processing)
    outbox.subscribe(TRANSFORM_JOB.key, transform)
    outbox.subscribe(ENDPOINT.key, endpoint)
    outbox.subscribe(TRACKING_SERVER.key, events(calls.engine(Trackers)))
    outbox.subscribe(NOTEBOOK.key, notebook_events(calls.engine(Notebooks)))
    pipeline_flow.subscribe(outbox, calls, workflows)
    project.subscribe(outbox, calls)


async def _remove(calls: Calls, kind: Kind, where: dict[str, str]) -> None:
    """Removes what nothing runs for."""

    def work(tx: Any) -> None:
        row = kind.get(tx, where["account"], where["region"], where["name"])
        if row is not None and row.status == "Deleting":
            kind.remove(tx, row, f"{kind.name}Deleted")

    await calls.store.write(work)


async def recover(calls: Calls) -> None:
    """Tracking servers stand again; what else ran is in executions, which the workflows take up."""
    calls.engine(Trackers).recover()
