"""Lineage: read off from what ran, from the code to the endpoint, and nobody's to forge; beside it what people add."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive, workshop_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRAIN = """
import os, pathlib, shutil
if __name__ == "__main__":
    data = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
    text = "".join(one.read_text() for one in sorted(data.rglob("*.csv")))
    pathlib.Path(os.environ["SM_MODEL_DIR"], "m.txt").write_text(text)
    code = pathlib.Path(os.environ["SM_MODEL_DIR"], "code")
    code.mkdir()
    shutil.copy(__file__, code / "train.py")
def model_fn(folder): return open(folder + "/m.txt").read()
def input_fn(body, kind): return body
def predict_fn(data, model): return model + data
def output_fn(prediction, accept): return prediction, "text/plain"
"""


def prepare(workshop: Workshop) -> str:
    """A processing job that writes the training data; its name."""
    script = "open('/opt/ml/processing/out/a.csv', 'w').write(open('/opt/ml/processing/in/raw.csv').read() + '5,6')"
    workshop.s3.put_object(Bucket=workshop.bucket, Key="raw/raw.csv", Body=b"1,2\n3,4\n")
    name = workshop.name("prepare")
    s3 = {"S3DataType": "S3Prefix", "S3InputMode": "File"}
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "-c", script]},
        ProcessingResources={
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.t3.medium", "VolumeSizeInGB": 1}
        },
        ProcessingInputs=[
            {
                "InputName": "raw",
                "S3Input": {"S3Uri": f"s3://{workshop.bucket}/raw", "LocalPath": "/opt/ml/processing/in", **s3},
            }
        ],
        ProcessingOutputConfig={
            "Outputs": [
                {
                    "OutputName": "train",
                    "S3Output": {
                        "S3Uri": f"s3://{workshop.bucket}/data",
                        "LocalPath": "/opt/ml/processing/out",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
    )
    waiter = workshop.sagemaker.get_waiter("processing_job_completed_or_stopped")
    waiter.config.delay = 0.1
    waiter.wait(ProcessingJobName=name)
    return name


def train(workshop: Workshop, **more: Any) -> dict[str, Any]:
    """A training job over what `prepare` wrote."""
    name = workshop.name("train")
    code = f"{name}/code.tar.gz"
    workshop.s3.put_object(Bucket=workshop.bucket, Key=code, Body=archive(train__py=TRAIN.encode()))
    workshop.sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        RoleArn=workshop.role,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/data/"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{workshop.bucket}/out"},
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        HyperParameters={
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"s3://{workshop.bucket}/{code}"',
        },
        Tags=[{"Key": "git-commit", "Value": COMMIT}],
        **more,
    )
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return job


def register(workshop: Workshop, url: str, group: str = "credit") -> str:
    """A version; its ARN."""
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"SAGEMAKER_PROGRAM": "train.py"}}
    arn: str = workshop.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/plain"],
            "SupportedResponseMIMETypes": ["text/plain"],
        },
    )["ModelPackageArn"]
    return arn


def status_of(workshop: Workshop, arn: str, name: str) -> dict[str, Any]:
    told = workshop.sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageStatusDetails"]
    found: dict[str, Any] = next(one for one in told["ValidationStatuses"] if one["Name"] == name)
    return found


@pytest.mark.control("LIN-01")
@pytest.mark.control("LIN-07")
def test_an_endpoint_leads_back_to_code_data_image_and_commit(workshop: Workshop) -> None:
    client = workshop.sagemaker
    prepared = prepare(workshop)
    job = train(workshop)
    client.create_model_package_group(ModelPackageGroupName="credit")
    arn = register(workshop, job["ModelArtifacts"]["S3ModelArtifacts"])
    assert status_of(workshop, arn, "Lineage") == {"Name": "Lineage", "Status": "Completed"}
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    client.create_model(
        ModelName="m",
        ExecutionRoleArn=workshop.role,
        PrimaryContainer={"ModelPackageName": arn},
    )
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.t2.medium", "VolumeSizeInGB": 1}
    client.create_endpoint_config(
        EndpointConfigName="c", ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )  # fmt: skip
    endpoint = client.create_endpoint(EndpointName="e", EndpointConfigName="c")["EndpointArn"]
    served = workshop.endpoint("e", "InService", "Failed")
    assert served["EndpointStatus"] == "InService", served["FailureReason"]

    [context] = client.list_contexts(SourceUri=endpoint)["ContextSummaries"]
    assert context["ContextType"] == "Endpoint"
    found = client.query_lineage(StartArns=[context["ContextArn"]], Direction="Ascendants", IncludeEdges=True)
    by_type: dict[str, list[str]] = {}
    for vertex in found["Vertices"]:
        by_type.setdefault(vertex["Type"], []).append(vertex["Arn"])
    assert set(by_type) == {
        "ModelDeployment", "SageMakerModel", "ModelPackage", "Model", "Image", "Code", "DataSet",
        "SageMakerTrainingJob", "SageMakerProcessingJob",
    }  # fmt: skip
    [trained] = by_type["SageMakerTrainingJob"]
    assert trained.endswith(f"{job['TrainingJobName']}-aws-training-job")
    # What the processing job wrote is what the training job read: one artifact, because the content is the same.
    datasets = {client.describe_artifact(ArtifactArn=one)["Source"]["SourceUri"]: one for one in by_type["DataSet"]}
    assert set(datasets) == {f"s3://{workshop.bucket}/raw", f"s3://{workshop.bucket}/data"}
    bare = client.query_lineage(StartArns=[context["ContextArn"]], Direction="Ascendants", IncludeEdges=False)
    assert bare["Edges"] == []
    edges = {(one["SourceArn"], one["DestinationArn"]): one["AssociationType"] for one in found["Edges"]}
    written = datasets[f"s3://{workshop.bucket}/data"]
    assert edges[(by_type["SageMakerProcessingJob"][0], written)] == "Produced"
    assert edges[(written, trained)] == "ContributedTo"
    assert by_type["SageMakerProcessingJob"][0].endswith(f"{prepared}-aws-processing-job")
    [code] = by_type["Code"]
    told = client.describe_artifact(ArtifactArn=code)
    assert told["MetadataProperties"]["CommitId"] == COMMIT
    assert {one["SourceIdType"] for one in told["Source"]["SourceTypes"]} == {"Custom", "S3ETag"}
    [image] = {client.describe_artifact(ArtifactArn=one)["Source"]["SourceUri"] for one in by_type["Image"]}
    assert image == IMAGE
    [model] = by_type["Model"]
    told = client.describe_artifact(ArtifactArn=model)
    assert told["MetadataProperties"]["GeneratedBy"] == job["TrainingJobArn"] and "CreatedBy" not in told
    # Downwards, with filters: who is affected by this data?
    down = client.query_lineage(
        StartArns=[written], Direction="Descendants", Filters={"LineageTypes": ["Context"]}
    )["Vertices"]  # fmt: skip
    assert {one["Type"] for one in down} == {"Endpoint", "ModelGroup"}
    one_step = client.query_lineage(StartArns=[written], Direction="Descendants", MaxDepth=1)["Vertices"]
    assert [one["Arn"] for one in one_step] == [trained]
    [approval] = client.list_actions(ActionType="Approval")["ActionSummaries"]
    told = client.describe_action(ActionName=approval["ActionName"])["Properties"]
    assert told["ModelApprovalStatus"] == "Approved" and told["DecidedBy"].startswith("arn:aws:sts:")
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.query_lineage(StartArns=[context["ContextArn"] + "-nothing"])


@pytest.mark.control("LIN-01")
def test_what_nobody_made_here_says_so_and_a_guardrail_refuses_it(workshop: Workshop) -> None:
    client = workshop.sagemaker
    prepare(workshop)
    job = train(workshop)
    client.create_model_package_group(ModelPackageGroupName="credit")
    url = job["ModelArtifacts"]["S3ModelArtifacts"]
    known = register(workshop, url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    workshop.s3.put_object(Bucket=bucket, Key=key, Body=archive(m__txt=b"swapped"))
    unknown = register(workshop, url)
    told = status_of(workshop, unknown, "Lineage")
    assert told["Status"] == "Failed" and "no job of this platform made" in told["FailureReason"]
    approve = allow("sagemaker:UpdateModelPackage", "sagemaker:DescribeModelPackage")
    approve["Statement"].append(
        {
            "Effect": "Deny",
            "Action": "sagemaker:UpdateModelPackage",
            "Resource": "*",
            "Condition": {
                "StringEquals": {"sagemaker:ModelApprovalStatus": "Approved"},
                "StringNotEquals": {"bastide:LineageStatus": "Complete"},
            },
        }
    )
    workshop.account.role("Approver", approve)
    approver = workshop.account.client("sagemaker", workshop.account.as_role("Approver"))
    with pytest.raises(ClientError, match="explicit deny"):
        approver.update_model_package(ModelPackageArn=unknown, ModelApprovalStatus="Approved")
    approver.update_model_package(ModelPackageArn=unknown, ModelApprovalStatus="Rejected")
    approver.update_model_package(ModelPackageArn=known, ModelApprovalStatus="Approved")


@pytest.mark.control("LIN-03")
def test_people_add_their_own_and_forge_nothing(workshop: Workshop) -> None:
    client = workshop.sagemaker
    prepare(workshop)
    job = train(workshop)
    [component] = client.list_trial_components(SourceArn=job["TrainingJobArn"])["TrialComponentSummaries"]
    here = component["TrialComponentArn"]
    source = {"SourceUri": "s3://b/k", "SourceTypes": [{"SourceIdType": "MD5Hash", "Value": "x"}]}
    mine = client.create_artifact(ArtifactName="a", Source=source, ArtifactType="DataSet", Properties={"a": "1"})[
        "ArtifactArn"
    ]
    with pytest.raises(ClientError, match="already exists"):
        client.create_artifact(Source=source, ArtifactType="DataSet")
    other = client.create_artifact(Source={"SourceUri": "s3://b/other"}, ArtifactType="DataSet")["ArtifactArn"]
    context = client.create_context(
        ContextName="c", ContextType="Project", Source={"SourceUri": "https://example.com"}
    )["ContextArn"]  # fmt: skip
    action = client.create_action(ActionName="act", ActionType="Review", Source={"SourceUri": "s3://b/k"})["ActionArn"]
    client.add_association(SourceArn=mine, DestinationArn=action, AssociationType="ContributedTo")
    client.add_association(SourceArn=action, DestinationArn=context)
    client.add_association(SourceArn=here, DestinationArn=action, AssociationType="AssociatedWith")
    with pytest.raises(ClientError, match="already exists"):
        client.add_association(SourceArn=action, DestinationArn=context)
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.add_association(SourceArn=mine, DestinationArn=context[:-1] + "nothing")
    for forged in (
        {"SourceArn": mine, "DestinationArn": here, "AssociationType": "ContributedTo"},
        {"SourceArn": here, "DestinationArn": mine, "AssociationType": "Produced"},
    ):
        with pytest.raises(ClientError, match="read off"):
            client.add_association(**forged)
    [into] = client.list_associations(DestinationArn=action, SourceType="DataSet")["AssociationSummaries"]
    assert (into["SourceArn"], into["SourceName"], into["AssociationType"]) == (mine, "a", "ContributedTo")
    assert into["CreatedBy"]["IamIdentity"]["Arn"]
    kinds = client.query_lineage(StartArns=[context], Direction="Ascendants", Filters={"Types": ["DataSet"]})
    assert mine in [one["Arn"] for one in kinds["Vertices"]] and other not in str(kinds)

    [recorded] = client.list_associations(DestinationArn=here, SourceType="DataSet")["AssociationSummaries"]
    assert "CreatedBy" not in recorded
    with pytest.raises(ClientError, match="it stays"):
        client.delete_association(SourceArn=recorded["SourceArn"], DestinationArn=here)
    for change in (client.delete_artifact, client.update_artifact):
        with pytest.raises(ClientError, match="recorded by the service"):
            change(ArtifactArn=recorded["SourceArn"])
    # A claim to the same source is another artifact, with its author's name on it.
    claimed = client.create_artifact(
        Source=client.describe_artifact(ArtifactArn=recorded["SourceArn"])["Source"], ArtifactType="DataSet"
    )["ArtifactArn"]  # fmt: skip
    assert claimed != recorded["SourceArn"]

    client.update_artifact(ArtifactArn=mine, Properties={"b": "2"}, PropertiesToRemove=["a"])
    assert client.describe_artifact(ArtifactArn=mine)["Properties"] == {"b": "2"}
    client.update_action(ActionName="act", Status="Completed")
    assert client.describe_action(ActionName="act")["Status"] == "Completed"
    assert [one["ArtifactArn"] for one in client.list_artifacts(SourceUri="s3://b/k")["ArtifactSummaries"]] == [mine]
    with pytest.raises(ClientError, match="has associations"):
        client.delete_artifact(ArtifactArn=mine)
    client.delete_association(SourceArn=mine, DestinationArn=action)
    client.delete_artifact(Source=source)
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.describe_artifact(ArtifactArn=mine)


@pytest.mark.control("INV-03", "INV-04")
def test_a_central_registry_knows_where_a_version_of_another_account_came_from(
    account: Account, neighbour: Account
) -> None:
    maker, central = workshop_of(account), workshop_of(neighbour)
    prepare(maker)
    job = train(maker)
    central.sagemaker.create_model_package_group(ModelPackageGroupName="credit")
    group = f"arn:aws:sagemaker:us-east-1:{neighbour.id}:model-package-group/credit"
    url = job["ModelArtifacts"]["S3ModelArtifacts"]
    with pytest.raises(ClientError, match="not authorized"):
        register(maker, url, group)
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"},
        "Action": ["sagemaker:CreateModelPackage"],
        "Resource": f"arn:aws:sagemaker:us-east-1:{neighbour.id}:model-package/credit/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    central.sagemaker.put_model_package_group_policy(ModelPackageGroupName="credit", ResourcePolicy=policy)
    arn = register(maker, url, group)
    assert status_of(central, arn, "Lineage")["Status"] == "Completed"
    [package] = central.sagemaker.list_artifacts(SourceUri=arn)["ArtifactSummaries"]
    found = central.sagemaker.query_lineage(StartArns=[package["ArtifactArn"]], Direction="Ascendants")["Vertices"]
    [origin] = [one for one in found if one["LineageType"] == "TrialComponent"]
    assert origin["Arn"].split(":")[4] == account.id and job["TrainingJobName"] in origin["Arn"]
    # Two registries, one name, no clash; and nobody reads the other's.
    maker.sagemaker.create_model_package_group(ModelPackageGroupName="credit")
    assert register(maker, url) != arn
    with pytest.raises(ClientError, match="not authorized"):
        maker.sagemaker.describe_model_package(ModelPackageName=arn)
