"""Who may only look, by the paper's policy: every look of the registry works, and every change is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bastide.engines import images
from bastide.main.catalogue import SERVICES
from tests.platform import HOME, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop
from tests.stories.sagemaker.test_guardrails import RESOURCES, deployable, processing, refused, role, tags, variants
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.sagemaker.test_monitor_images import ANALYZER, CLARIFY
from tests.stories.sagemaker.test_transform import begin
from tests.stories.sagemaker.test_tuning import config, tune
from tests.stories.servicecatalog.catalog import Catalog, project_template


def _watching(workshop: Workshop, process: dict[str, Any]) -> dict[str, Any]:
    """A definition of each type of monitoring, and a schedule; what calls about them need."""
    place = {"S3Uri": f"s3://{workshop.bucket}/watched", "LocalPath": "/opt/ml/processing/out"}
    data = {
        "DataCapturedDestinationS3Uri": f"s3://{workshop.bucket}/captured", "LocalPath": "/opt/ml/processing/in",
        "DatasetFormat": {"Csv": {"Header": True}},
    }  # fmt: skip
    shared = {"JobDefinitionName": "watch", "JobResources": process["ProcessingResources"], "RoleArn": workshop.role}
    told: dict[str, Any] = dict(shared)
    truth = {"GroundTruthS3Input": {"S3Uri": f"s3://{workshop.bucket}/truth"}}
    for type, application, more in (
        ("DataQuality", {}, {}),
        ("ModelQuality", {"ProblemType": "Regression"}, truth),
        ("ModelBias", {"ConfigUri": f"s3://{workshop.bucket}/c.json"}, truth),
        ("ModelExplainability", {"ConfigUri": f"s3://{workshop.bucket}/c.json"}, {}),
    ):
        image = ANALYZER if type.endswith("Quality") else CLARIFY
        asked = {
            f"{type}AppSpecification": {"ImageUri": image, **application},
            f"{type}JobInput": {"BatchTransformInput": data, **more},
            f"{type}JobOutputConfig": {"MonitoringOutputs": [{"S3Output": place}]},
        }
        create = _method(workshop.sagemaker, f"Create{type}JobDefinition")
        create(**shared, **asked)
        told |= asked
    schedule = {
        "MonitoringScheduleName": "watch",
        "MonitoringScheduleConfig": {
            "ScheduleConfig": {"ScheduleExpression": "cron(0 0 ? * * *)"},
            "MonitoringJobDefinitionName": "watch",
            "MonitoringType": "DataQuality",
        },
    }
    workshop.sagemaker.create_monitoring_schedule(**schedule)
    return told | schedule


@pytest.mark.control("PRM-02")
def test_who_may_look_changes_nothing(workshop: Workshop, mission: Path) -> None:
    """Every operation of the registry, of things that exist."""
    deployable(workshop)
    admin = workshop.sagemaker
    admin.create_endpoint(EndpointName="e", EndpointConfigName="c")
    job = workshop.train("")
    process = processing(workshop)
    admin.create_processing_job(**process)
    admin.create_model_package_group(ModelPackageGroupName="g")
    elsewhere = {"AWS": f"arn:aws:iam::{HOME}:root"}
    statement = {"Effect": "Allow", "Principal": elsewhere, "Action": "sagemaker:DescribeModelPackage", "Resource": "*"}
    admin.put_model_package_group_policy(
        ModelPackageGroupName="g", ResourcePolicy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    container = {"Image": IMAGE}
    inference = {"Containers": [container], "SupportedContentTypes": ["a/b"], "SupportedResponseMIMETypes": ["a/b"]}
    package = admin.create_model_package(ModelPackageGroupName="g", InferenceSpecification=inference)["ModelPackageArn"]
    admin.create_experiment(ExperimentName="x")
    admin.create_trial(TrialName="t", ExperimentName="x")
    admin.create_trial_component(TrialComponentName="tc")
    admin.create_model_card(ModelCardName="card", Content="{}", ModelCardStatus="Draft")
    source = {"SourceUri": "s3://b/k"}
    artifact = admin.create_artifact(Source=source, ArtifactType="DataSet")["ArtifactArn"]
    admin.create_action(ActionName="a", ActionType="Review", Source=source)
    admin.create_context(ContextName="x", ContextType="Project", Source=source)
    images.build("mlflow")
    store = f"s3://{workshop.bucket}/mlflow"
    tracks = {"TrackingServerName": f"tracks-{workshop.account.id}"}
    admin.create_mlflow_tracking_server(**tracks, ArtifactStoreUri=store, RoleArn=workshop.role)
    books = {"CodeRepositoryName": "books", "NotebookInstanceLifecycleConfigName": "begins"}
    books |= {"NotebookInstanceName": "book", "InstanceType": "ml.t3.medium"}
    admin.create_code_repository(
        CodeRepositoryName="books", GitConfig={"RepositoryUrl": "https://example.com/books.git"}
    )
    admin.create_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName="begins")
    named_only = {name: books[name] for name in ("NotebookInstanceName", "InstanceType")}
    admin.create_notebook_instance(
        **named_only, RoleArn=workshop.role, KmsKeyId="alias/nobody"
    )  # it fails, and is there
    watching = _watching(workshop, process)
    step = {"Name": "s", "Type": "Fail", "Arguments": {"ErrorMessage": "x"}}
    definition = json.dumps({"Version": "2020-12-01", "Steps": [step]})
    lines: dict[str, Any] = {"PipelineName": "lines", "ClientRequestToken": "t" * 32}
    pipeline = admin.create_pipeline(**lines, PipelineDefinition=definition, RoleArn=workshop.role)["PipelineArn"]
    execution = admin.start_pipeline_execution(PipelineName="lines")["PipelineExecutionArn"]
    lines |= {"PipelineArn": pipeline, "PipelineVersionId": 1, "PipelineExecutionArn": execution}
    catalog = Catalog(workshop.account)
    portfolio = catalog.portfolio()
    catalog.principal(portfolio, f"arn:aws:iam::{workshop.account.id}:role/OrganizationAccountAccessRole")
    product, version = catalog.product(project_template(), portfolio)
    details = {"ProductId": product, "ProvisioningArtifactId": version}
    project: dict[str, Any] = {"ProjectName": "churn", "ServiceCatalogProvisioningDetails": details}
    given_for = [{"Key": "Name", "Value": "churn-models"}]
    admin.create_project(
        ProjectName="churn", ServiceCatalogProvisioningDetails={**details, "ProvisioningParameters": given_for}
    )
    tuning, transform = tune(workshop, config()), begin(workshop, workshop.name("transform"))
    named = {
        "ExperimentName": "x", "TrialName": "t", "TrialComponentName": "tc", "ModelCardName": "card", "Content": "{}",
        "ModelCardStatus": "Draft", "ArtifactArn": artifact, "ActionName": "a", "ContextName": "x", "Source": source,
        "ArtifactType": "DataSet", "ActionType": "Review", "ContextType": "Project", "SourceArn": artifact,
        "DestinationArn": artifact, "Resource": "Experiment", "ModelPackageArnList": [package],
        "TrainingJobName": job, "ProcessingJobName": process["ProcessingJobName"], "ModelPackageGroupName": "g",
        "ModelPackageName": package, "ModelName": "m", "EndpointConfigName": "c", "EndpointName": "e",
        "ResourceArn": package, "ModelPackageArn": package, "HyperParameterTuningJobName": tuning,
        "TransformJobName": transform, **tracks, "ArtifactStoreUri": store,
        **lines, **project, **books, "CallbackToken": "0" * 10,
    }  # fmt: skip
    looker = role(workshop.account, "Looker", look=policy(mission, "01-console-read-only.json"))
    narrow = role(workshop.account, "Narrow", look=allow("sagemaker:ListTrainingJobs", "sagemaker:DescribeTrainingJob"))
    service = next(one for one in SERVICES if one.name == "sagemaker")
    known = {one.name for kind in service.kinds for one in kind.operations if not one.inside}
    looks = {name for name in known if name.startswith(("List", "Describe", "Get"))}
    verbs = ("Create", "Update", "Delete", "Start", "Stop", "Put", "Add", "Associate", "Disassociate", "Retry", "Send")
    changes = {name for name in known if name.startswith(verbs)}
    beyond = {"Search", "QueryLineage", "BatchDescribeModelPackage"}  # looks, of which the policy says nothing
    assert known == looks | changes | beyond and len(looks) >= 16 and len(changes) >= 18
    described = admin.describe_transform_job(TransformJobName=transform)
    model = looker.meta.service_model

    def given(name: str) -> dict[str, Any]:
        members = model.operation_model(name).input_shape.required_members
        unnamed = {
            "AlgorithmSpecification": {"TrainingInputMode": "File"}, "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
            "ResourceConfig": RESOURCES, "StoppingCondition": {"MaxRuntimeInSeconds": 9}, "RoleArn": workshop.role,
            "ProcessingResources": process["ProcessingResources"], "AppSpecification": process["AppSpecification"],
            "ProductionVariants": variants(), "Tags": tags(a="b"), "TagKeys": ["a"], "ResourcePolicy": "{}",
            "ExecutionRoleArn": workshop.role, "HyperParameterTuningJobConfig": config(),
            "TransformInput": described["TransformInput"], "TransformOutput": described["TransformOutput"],
            "TransformResources": described["TransformResources"],
            "GitConfig": {"RepositoryUrl": "https://example.com/more.git"},
            "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredWeight": 1.0}], **watching,
        }  # fmt: skip
        return {one: named.get(one) or unnamed[one] for one in members}

    for name in sorted(looks):
        call = _method(looker, name)
        if name == "ListModelPackages":
            assert call(ModelPackageGroupName="g")["ModelPackageSummaryList"]
        assert call(**given(name))["ResponseMetadata"]["HTTPStatusCode"] == 200, name
        if name not in ("ListTrainingJobs", "DescribeTrainingJob"):
            refused(_method(narrow, name), **given(name))
    assert narrow.describe_training_job(TrainingJobName=job)["TrainingJobName"] == job
    for name in sorted(changes | beyond):
        assert f"sagemaker:{name}" in refused(_method(looker, name), **given(name))
    assert admin.list_tags(ResourceArn=package)["Tags"] == []
    until = time.monotonic() + 120
    while admin.describe_mlflow_tracking_server(**tracks)["TrackingServerStatus"] == "Creating":
        assert time.monotonic() < until
        time.sleep(0.1)
    admin.delete_mlflow_tracking_server(**tracks)


def _method(client: Any, operation: str) -> Callable[..., Any]:
    return next(
        getattr(client, method) for method, name in client.meta.method_to_api_mapping.items() if name == operation
    )
