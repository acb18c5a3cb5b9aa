"""From a commit to Production: the two pipelines of a team, which the roles of the landing zone carry across accounts."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stories.landing.zone import DENIED, Zone, landing, refused


def _until(look: Callable[[], Any], seconds: float = 180) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.1)
    return found


@pytest.mark.control("ACC-02", "ACC-04", "ACC-10", "XAC-02", "XAC-04", "XAC-05", "XAC-07", "DAT-08", "ACC-13", "DEP-03")
@pytest.mark.control("ACC-12")
@pytest.mark.control("PIP-01", "PIP-02", "STG-09", "TAG-06")
@pytest.mark.control("TAG-07", lacking="images, of which AWS's own one serves here")
def test_a_commit_trains_is_registered_approved_and_serves(zone: Zone, tmp_path: Path) -> None:
    """The example that `bastide landing example` writes, committed: nothing but the two pipelines moves it on."""
    code, _, why = landing(zone.platform, "example", str(zone.file), "mortgage", str(tmp_path))
    assert code == 0, why
    rows = "".join(f"{number % 2},{number % 2}.{number},{number}\n" for number in range(60))
    prepare = zone.platform.client("s3", zone.service("test", zone.arn("test", "ProcessingRole")))
    prepare.put_object(Bucket=zone.bucket("data", "test"), Key="mortgage/train/a.csv", Body=rows.encode())
    shared = zone.account("shared-services")
    code, pipelines = shared.client("codecommit"), shared.client("codepipeline")
    files = [{"filePath": one.name, "fileContent": one.read_bytes()} for one in sorted(tmp_path.iterdir())]
    asked = {"repositoryName": "bank-mortgage", "branchName": "main", "commitMessage": "first", "putFiles": files}
    commit = code.create_commit(**asked)["commitId"]

    # The push starts the training pipeline by itself.
    def trained(commit: str) -> tuple[str, str]:
        """How the run of a commit ended, and what its actions said."""

        def over() -> Any:
            runs = pipelines.list_pipeline_executions(pipelineName="bank-mortgage-training")[
                "pipelineExecutionSummaries"
            ]
            mine = (one for one in runs if any(r.get("revisionId") == commit for r in one["sourceRevisions"]))
            return next((one for one in mine if one["status"] != "InProgress"), None)

        ended = _until(over)
        actions = pipelines.list_action_executions(
            pipelineName="bank-mortgage-training", filter={"pipelineExecutionId": ended["pipelineExecutionId"]}
        )["actionExecutionDetails"]
        return ended["status"], str([one.get("output", {}).get("executionResult") for one in actions])

    status, said = trained(commit)
    assert status == "Succeeded", said
    # In Test Role B came, the stack role made the state machine, which ran; its tags are those of the template.
    test = zone.account("test")
    arn = f"arn:aws:states:us-east-1:{test.id}:stateMachine:bank-train-mortgage"
    states = test.client("stepfunctions")
    [ran] = states.list_executions(stateMachineArn=arn)["executions"]
    assert ran["status"] == "SUCCEEDED"
    held = states.describe_execution(executionArn=ran["executionArn"])
    assert json.loads(held["input"]) == {"commit": commit}
    [job] = test.client("sagemaker").list_training_jobs(NameContains=ran["name"])["TrainingJobSummaries"]
    assert job["TrainingJobStatus"] == "Completed"
    tags = {one["key"]: one["value"] for one in states.list_tags_for_resource(resourceArn=arn)["tags"]}
    assert {"owner": "mortgage", "environment": "test", "project": "mortgage"}.items() <= tags.items()
    trail = test.client("cloudtrail")

    def callers(name: str) -> set[str]:
        events = trail.lookup_events(LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": name}])["Events"]
        told = [json.loads(one["CloudTrailEvent"])["userIdentity"] for one in events]
        return {one.get("sessionContext", {}).get("sessionIssuer", {}).get("userName", "") for one in told}

    _until(lambda: "CrossAccountRoleB" in callers("CreateStack") and "StackRole" in callers("CreateStateMachine"))
    # Nobody reads the run's artifacts: they are the services'.
    bucket = zone.bucket("artifacts", "shared-services")
    stored = shared.client("s3").list_objects_v2(Bucket=bucket, Prefix="bank-mortgage-tra")["Contents"]
    key = stored[0]["Key"]
    for keys in (shared.keys, zone.person("shared-services", "MLOps"), zone.person("shared-services", "Auditor")):
        refused(DENIED, zone.platform.client("s3", keys).get_object, Bucket=bucket, Key=key)

    # The version is registered in Shared Services, and says from which commit; it waits for an approver, who is not MLOps.
    registry = shared.client("sagemaker")
    listed = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
    [version] = [one for one in listed if one.get("ModelPackageDescription") == f"commit {commit}"]
    package = version["ModelPackageArn"]
    stack = zone.platform.client("sagemaker", zone.service("production", zone.arn("production", "StackRole")))
    assert stack.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"] == "PendingManualApproval"
    stranger = zone.account("data-management").client("sagemaker")
    refused(DENIED, stranger.describe_model_package, ModelPackageName=package)
    _says_what_it_is_made_of(zone, package, commit, job["TrainingJobName"], rows)
    # The same commit once more, while the first version goes its way.
    revision = {"actionName": "Source", "revisionType": "COMMIT_ID", "revisionValue": commit}
    training = {"name": "bank-mortgage-training", "sourceRevisions": [revision]}
    mlops_keys, approver_keys = (zone.person("shared-services", name) for name in ("MLOps", "ModelApprover"))
    mlops = zone.platform.client("codepipeline", mlops_keys)
    second = mlops.start_pipeline_execution(**training)["pipelineExecutionId"]
    approval = {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}
    refused(DENIED, zone.platform.client("sagemaker", mlops_keys).update_model_package, **approval)
    zone.platform.client("sagemaker", approver_keys).update_model_package(**approval)

    # Release: MLOps starts it and cannot approve it; the approver approves and could not start it.
    approver = zone.platform.client("codepipeline", approver_keys)
    other = zone.platform.client("codepipeline", zone.person("data-science", "DataScientist-mortgage"))
    name = "bank-mortgage-deployment"
    asked = {"name": name, "variables": [{"name": "ModelPackage", "value": package}]}
    for one in (approver, other):
        refused((*DENIED, "PipelineNotFoundException"), one.start_pipeline_execution, **asked)
    began = mlops.start_pipeline_execution(**asked)["pipelineExecutionId"]

    def waiting() -> Any:
        stage = pipelines.get_pipeline_state(name=name)["stageStates"][1]
        if stage.get("latestExecution", {}).get("pipelineExecutionId") != began:
            return None
        return stage["actionStates"][0].get("latestExecution", {}).get("token")

    answer = {
        "pipelineName": name, "stageName": "Approve", "actionName": "Release", "token": _until(waiting),
        "result": {"summary": "ticket 42", "status": "Approved"},
    }  # fmt: skip
    refused(DENIED, mlops.put_approval_result, **answer)
    approver.put_approval_result(**answer)

    release = {"pipelineName": name, "pipelineExecutionId": began}
    assert _over(pipelines, release)["status"] == "Succeeded", pipelines.get_pipeline_state(name=name)["stageStates"]
    production = zone.account("production").client("sagemaker")
    endpoint = production.describe_endpoint(EndpointName="bank-mortgage")
    assert endpoint["EndpointStatus"] == "InService"
    tags = {one["Key"]: one["Value"] for one in production.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]}
    assert {"owner": "mortgage", "environment": "production", "project": "mortgage"}.items() <= tags.items()
    bucket, _, key = (
        shared.client("sagemaker")
        .describe_model_package(ModelPackageName=package)["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
        .removeprefix("s3://")
        .partition("/")
    )
    tags = {
        one["Key"]: one["Value"] for one in shared.client("s3").get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    }
    assert tags == {"owner": "mortgage", "environment": "production", "project": "mortgage"}
    [context] = production.list_contexts(SourceUri=endpoint["EndpointArn"])["ContextSummaries"]
    graph = production.query_lineage(StartArns=[context["ContextArn"]], Direction="Ascendants")
    [origin] = production.list_artifacts(SourceUri=package)["ArtifactSummaries"]
    assert origin["ArtifactArn"] in {one["Arn"] for one in graph["Vertices"]}
    # It answers the function's role, and nobody takes it away by hand.
    function = zone.service("production", zone.arn("production", "FunctionRole"))
    asking = zone.platform.client("sagemaker-runtime", function)
    told = asking.invoke_endpoint(EndpointName="bank-mortgage", ContentType="text/csv", Body=b"1.5,5")["Body"].read()
    assert 0 <= float(told) <= 1
    invoking = zone.platform.client("sagemaker-runtime", mlops_keys)
    refused(DENIED, invoking.invoke_endpoint, EndpointName="bank-mortgage", ContentType="text/csv", Body=b"1.5,5")
    refused(DENIED, production.delete_endpoint, EndpointName="bank-mortgage")
    roles = {
        pipelines.get_pipeline(name=f"bank-mortgage-{kind}")["pipeline"]["roleArn"]
        for kind in ("training", "deployment")
    }
    assert roles == {zone.pipeline_role("CodePipelineRoleA"), zone.pipeline_role("CodePipelineRoleA2")}

    # The same inputs made the same: another job, equal metrics, and so a version that tells the same of itself.
    run = {"pipelineName": "bank-mortgage-training", "pipelineExecutionId": second}
    assert _over(pipelines, run)["status"] == "Succeeded"
    made = [_described(registry, one["ModelPackageArn"]) for one in _versions(registry, f"commit {commit}")]
    assert len({one.pop("training-job") for one in made}) == 2 and made[0] == made[1], made
    refused(
        "StageNotRetryableException", mlops.retry_stage_execution, **run, stageName="Train", retryMode="ALL_ACTIONS"
    )
    _the_project_s_own(zone)

    # Another training without a registration, and one on a data set that is not there: its run fails and says which.
    def again(parent: str, **parameters: str) -> str:
        told = json.loads((tmp_path / "train.json").read_bytes())
        put = [{"filePath": "train.json", "fileContent": json.dumps({**told, "Parameters": parameters}).encode()}]
        asked = {"repositoryName": "bank-mortgage", "branchName": "main", "parentCommitId": parent, "putFiles": put}
        return str(code.create_commit(**asked)["commitId"])

    unknown = again(commit, Dataset="mortgage/nowhere/")
    status, said = trained(unknown)
    assert status == "Failed" and f"no objects found at s3://{zone.bucket('data', 'test')}/mortgage/nowhere/" in said, (
        said
    )
    silent = again(unknown, Register="off")
    status, said = trained(silent)
    assert status == "Succeeded", said
    after = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
    described = {one.get("ModelPackageDescription") for one in after}
    assert f"commit {commit}" in described and not {f"commit {unknown}", f"commit {silent}"} & described
    # Guardrails, and not the template, see to it: without a tag, without the network's settings, no job is made.
    text = (tmp_path / "train.yaml").read_text()
    start = text.index("                      VpcConfig: {", text.index("TrainingJobName"))
    text = text[:start] + text[text.index("\n", start) + 1 :]
    text = text.replace("                        - {Key: owner, Value: mortgage}\n", "", 1)  # the other job's
    put = [{"filePath": "train.yaml", "fileContent": text.encode()}]
    asked = {"repositoryName": "bank-mortgage", "branchName": "main", "parentCommitId": silent, "putFiles": put}
    dropped = code.create_commit(**asked)["commitId"]
    status, said = trained(dropped)
    assert status == "Failed" and "explicit deny" in said, said
    assert not _versions(registry, f"commit {dropped}")


def _over(pipelines: Any, run: dict[str, str]) -> dict[str, Any]:
    def look() -> Any:
        told = pipelines.get_pipeline_execution(**run)["pipelineExecution"]
        return told if told["status"] != "InProgress" else None

    found: dict[str, Any] = _until(look)
    return found


def _versions(registry: Any, description: str) -> list[dict[str, Any]]:
    listed = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
    return [one for one in listed if one.get("ModelPackageDescription") == description]


def _described(registry: Any, package: str) -> dict[str, str]:
    told = registry.describe_model_package(ModelPackageName=package)
    found: dict[str, str] = told["CustomerMetadataProperties"]
    return found


def _says_what_it_is_made_of(zone: Zone, package: str, commit: str, job: str, rows: str) -> None:
    """Commit, data, job, metrics, image; and who may not register, and what is no model."""
    told = zone.account("shared-services").client("sagemaker").describe_model_package(ModelPackageName=package)
    known = told["CustomerMetadataProperties"]
    one = f"{hashlib.sha256(rows.encode()).hexdigest()}  ./a.csv\n"
    assert known["commit"] == commit and known["data-sha256"] == hashlib.sha256(one.encode()).hexdigest()
    assert known["training-job"] == f"arn:aws:sagemaker:us-east-1:{zone.ids['test']}:training-job/{job}"
    assert 0 < float(known["train-logloss"]) < 1
    [container] = told["InferenceSpecification"]["Containers"]
    assert container["ImageDigest"].startswith("sha256:") and told["ModelApprovalStatus"] == "PendingManualApproval"
    registry = zone.account("shared-services").client("sagemaker")
    [artifact] = registry.list_artifacts(SourceUri=package)["ArtifactSummaries"]
    graph = registry.query_lineage(StartArns=[artifact["ArtifactArn"]], Direction="Ascendants", IncludeEdges=True)
    component = f"arn:aws:sagemaker:us-east-1:{zone.ids['test']}:experiment-trial-component/{job}-aws-training-job"
    assert {"Image", "Model", "SageMakerTrainingJob"} <= {one["Type"] for one in graph["Vertices"]}
    assert component in {one["Arn"] for one in graph["Vertices"]}
    graph = zone.account("test").client("sagemaker").query_lineage(StartArns=[component], Direction="Ascendants")
    assert "DataSet" in {one["Type"] for one in graph["Vertices"]}
    group = f"arn:aws:sagemaker:us-east-1:{zone.ids['shared-services']}:model-package-group/mortgage-denial"
    specification = {**told["InferenceSpecification"], "Containers": [{"Image": container["Image"]}]}
    asked = {"ModelPackageGroupName": group, "InferenceSpecification": specification}
    for role in ("ProcessingRole", "TrainingRole"):
        client = zone.platform.client("sagemaker", zone.service("test", zone.arn("test", role)))
        refused(DENIED, client.create_model_package, **asked)
    workflow = zone.platform.client("sagemaker", zone.service("test", zone.arn("test", "StateMachineRole")))
    specification["Containers"][0]["ModelDataUrl"] = container["ModelDataUrl"].replace("model.tar.gz", "none.tar.gz")
    assert "Could not access model data" in refused("ValidationException", workflow.create_model_package, **asked)


def _the_project_s_own(zone: Zone) -> None:
    """Everything that a run is made of and makes is found by its project, in each of the three accounts."""
    wanted = {
        "shared-services": {"codepipeline", "codecommit", "codebuild"},
        "test": {"states:stateMachine", "sagemaker:processing-job", "sagemaker:training-job"},
        "production": {"sagemaker:model", "sagemaker:endpoint-config", "sagemaker:endpoint", "lambda:function"},
    }
    for account, kinds in wanted.items():
        client = zone.account(account).client("resourcegroupstaggingapi")
        pages = client.get_paginator("get_resources").paginate(TagFilters=[{"Key": "project", "Values": ["mortgage"]}])
        found = [one for page in pages for one in page["ResourceTagMappingList"]]
        arns = [one["ResourceARN"].split(":") for one in found]
        names = {arn[2] for arn in arns} | {f"{arn[2]}:{arn[5].partition('/')[0]}" for arn in arns}
        assert kinds <= names, (account, sorted(names))
        for one in found:
            assert {"owner", "environment"} <= {tag["Key"] for tag in one["Tags"]}, one
