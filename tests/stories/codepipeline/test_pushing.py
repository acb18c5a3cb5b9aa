"""The paper's training pipeline, as it is printed, from a commit: accepted and read back, started by a push, and run with a
stack and a state machine in another account."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platform import REGION, allow
from tests.stories.cloudformation.stacks import parameter
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, spec
from tests.stories.codepipeline.releases import Releases, action, approval, stage, until
from tests.stories.codepipeline.test_across import MACHINE, _template
from tests.stories.lambda_.conftest import LAMBDA, Bench
from tests.stories.mission.test_pipeline_roles import Pipeline, pipeline
from tests.stories.sagemaker.test_metrics import sums
from tests.stories.sqs.test_queues import arn_of, bodies, made

__all__ = ["pipeline"]
MORE = {
    "PIPELINE_NAME": "train",
    "BRANCH_NAME": "main",
    "OUTPUT_FILE_NAME": "outputs.json",
    "CFN_TEMPLATE_FILE_NAME": "template.json",
    "TEMPLATE_CONFIGURATION_FILE_NAME": "configuration.json",
}


def _commit(pipeline: Pipeline, text: str, branch: str = "main", **more: str) -> str:
    """A commit by somebody in Shared Services; its id."""
    client = pipeline.shared.client("codecommit")
    parameters = {
        "DefinitionBucket": pipeline.bucket,
        "DefinitionKey": "machine.asl.json",
        "StateMachineRoleArn": f"arn:aws:iam::{pipeline.test.id}:role/Workflow",
    }
    files = {
        "template.json": json.dumps(_template(text)),
        "configuration.json": json.dumps({"Parameters": parameters}),
        **more,
    }
    given: dict[str, Any] = {
        "repositoryName": "repository-name",
        "branchName": branch,
        "commitMessage": f"change {text}",
    }
    branches = client.list_branches(repositoryName="repository-name")["branches"]
    if branches:
        base = branch if branch in branches else "main"
        held = client.get_branch(repositoryName="repository-name", branchName=base)["branch"]["commitId"]
        if branch not in branches:
            client.create_branch(repositoryName="repository-name", branchName=branch, commitId=held)
        given["parentCommitId"] = held
    puts = [{"filePath": path, "fileContent": one.encode()} for path, one in files.items()]
    found: str = client.create_commit(**given, putFiles=puts)["commitId"]
    return found


@pytest.fixture(scope="module")
def printed(pipeline: Pipeline) -> Releases:
    """The repository, and the pipeline of document 60, unchanged; its first execution is over."""
    shared, bucket = pipeline.shared, pipeline.bucket
    a = pipeline.client("s3", "CODEPIPELINE_ROLE_A", shared)
    sealed = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": pipeline.key}
    a.put_object(Bucket=bucket, Key="machine.asl.json", Body=json.dumps(MACHINE), **sealed)
    shared.client("codecommit").create_repository(repositoryName="repository-name")
    _commit(pipeline, "one")
    role = f"arn:aws:iam::{shared.id}:role/service-role/RoleA"
    found = Releases(shared, role, bucket, pipeline.key, bucket)
    found.s3 = a
    found.declaration = json.loads(pipeline.document("60", **MORE))
    found.client.create_pipeline(**found.declaration)
    found.first = found.newest("train")
    found.over("train", found.first)
    return found


@pytest.mark.control("PEX-01", "PEX-03", "PEX-04", "PIP-03", "STG-02", "STG-04")
def test_the_printed_declaration_is_accepted_read_back_and_runs(pipeline: Pipeline, printed: Releases) -> None:
    given = printed.declaration["pipeline"]
    read = printed.client.get_pipeline(name="train")["pipeline"]
    # AWS begins with version 1 whatever is given, and shows the defaults of what is not.
    assert read == {**given, "version": 1, "pipelineType": "V1", "executionMode": "SUPERSEDED"}
    id = printed.first
    assert printed.get("train", id)["status"] == "Succeeded", printed.actions("train", id)
    did = printed.actions("train", id)
    commit = did["Source"]["output"]["outputVariables"]["CommitId"]
    assert did["Source"]["output"]["outputVariables"]["CommitMessage"] == "change one"
    machine = f"arn:aws:states:{REGION}:{pipeline.test.id}:stateMachine:SM-train-Step_Function"
    run = did["invoke-Step-Function"]
    assert run["input"]["resolvedConfiguration"]["StateMachineArn"] == machine
    execution = run["output"]["executionResult"]["externalExecutionId"]
    told = pipeline.test.client("stepfunctions").describe_execution(executionArn=execution)
    assert (told["status"], json.loads(told["input"])) == ("SUCCEEDED", {"commit": commit})
    updated = printed.client.update_pipeline(pipeline=read)["pipeline"]
    assert updated == {**read, "version": 2}
    # The run says which commit it is of, and what it handed on is that commit's tree, whole and nothing else.
    assert [one["revisionId"] for one in printed.get("train", id)["artifactRevisions"]] == [commit]
    code, tree = pipeline.shared.client("codecommit"), {}
    for one in code.get_folder(repositoryName="repository-name", commitSpecifier=commit, folderPath="/")["files"]:
        asked = {"repositoryName": "repository-name", "commitSpecifier": commit, "filePath": one["absolutePath"]}
        tree[one["absolutePath"]] = code.get_file(**asked)["fileContent"]
    assert tree and printed.artifact("train", id, "Source") == tree
    # A branch, or a repository, that is not there; a repository that the role has no access to.
    code.create_repository(repositoryName="not-its-own")
    for repository, branch, says in (
        ("repository-name", "none", "BranchDoesNotExist"),
        ("nowhere", "main", ""),
        ("not-its-own", "main", "codecommit:"),
    ):
        wrong = json.loads(json.dumps(given)) | {"name": f"{repository}-{branch}"}
        wrong["stages"][0]["actions"][0]["configuration"] |= {"RepositoryName": repository, "BranchName": branch}
        printed.client.create_pipeline(pipeline=wrong)
        id = printed.newest(wrong["name"])
        assert printed.over(wrong["name"], id)["status"] == "Failed"
        assert says in str(printed.error(wrong["name"], id, "Source")), repository


@pytest.mark.control("PEX-02", "MON-02", "STG-01", "STG-02", "DEP-06", "DEP-09")
def test_a_push_starts_one_run_and_newer_pushes_supersede(pipeline: Pipeline, printed: Releases) -> None:
    shared = pipeline.shared
    events = shared.client("events")
    arn = f"arn:aws:codepipeline:{REGION}:{shared.id}:train"

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = printed.client.list_pipeline_executions(pipelineName="train")[
            "pipelineExecutionSummaries"
        ]
        return found

    before = len(runs())
    _commit(pipeline, "two")  # nothing listens
    starter = shared.role(
        "Starter", allow("codepipeline:StartPipelineExecution", resource=arn), trust={"Service": "events.amazonaws.com"}
    )
    pattern = {
        "source": ["aws.codecommit"],
        "detail-type": ["CodeCommit Repository State Change"],
        "resources": [f"arn:aws:codecommit:{REGION}:{shared.id}:repository-name"],
        "detail": {
            "event": ["referenceCreated", "referenceUpdated"],
            "referenceType": ["branch"],
            "referenceName": ["main"],
        },
    }
    events.put_rule(Name="push", EventPattern=json.dumps(pattern))
    # A role that may not start it: no run, and the rule counts what failed.
    powerless = shared.role("Powerless", allow("codepipeline:Get*"), trust={"Service": "events.amazonaws.com"})
    events.put_targets(Rule="push", Targets=[{"Id": "p", "Arn": arn, "RoleArn": powerless}])
    _commit(pipeline, "two and a half")
    watch = shared.client("cloudwatch")
    until(lambda: True if sums(watch, "AWS/Events", "FailedInvocations", {"RuleName": "push"}, "Sum") else None)
    events.put_targets(Rule="push", Targets=[{"Id": "p", "Arn": arn, "RoleArn": starter}])
    # A rule that is off: the same event reaches another rule, of any branch, and starts nothing.
    sqs = shared.client("sqs")
    heard, queue = watched(sqs)
    events.put_rule(Name="any", EventPattern=json.dumps({"source": ["aws.codecommit"]}))
    events.put_targets(Rule="any", Targets=[{"Id": "q", "Arn": queue}])
    events.disable_rule(Name="push")
    silent = _commit(pipeline, "in silence")
    told: list[str] = []

    def told_of(commit: str) -> bool | None:
        told.extend(json.loads(one)["detail"]["commitId"] for one in bodies(sqs, heard))
        return True if commit in told else None

    until(lambda: told_of(silent))
    events.enable_rule(Name="push")
    aside = _commit(pipeline, "aside", branch="other")  # another branch
    until(lambda: told_of(aside))
    commit = _commit(pipeline, "three")
    until(lambda: True if len(runs()) == before + 1 else None)
    newest = runs()[0]
    done = printed.over("train", newest["pipelineExecutionId"])
    assert (done["status"], done["trigger"]["triggerType"]) == ("Succeeded", "CloudWatchEvent")
    assert [one["revisionId"] for one in done["artifactRevisions"]] == [commit]
    assert len(runs()) == before + 1
    # While the way into the second stage is closed, the newest of the pushes is the one that waits.
    way = {"pipelineName": "train", "stageName": "Deploy_Training_Workflow", "transitionType": "Inbound"}
    printed.client.disable_stage_transition(**way, reason="a freeze")
    commits = [_commit(pipeline, text) for text in ("four", "five", "six")]
    until(lambda: True if len(runs()) == before + 4 else None)
    last, *others = runs()[:3]
    for one in others:
        assert printed.over("train", one["pipelineExecutionId"])["status"] == "Superseded"
    printed.client.enable_stage_transition(**way)
    done = printed.over("train", last["pipelineExecutionId"])
    assert done["status"] == "Succeeded"
    assert [one["revisionId"] for one in done["artifactRevisions"]] == [commits[-1]]


def watched(sqs: Any) -> tuple[str, str]:
    """A queue that events may be sent to: its address and ARN."""
    url = made(sqs)
    arn = arn_of(sqs, url)
    may = allow("sqs:SendMessage", resource=arn, Principal={"Service": "events.amazonaws.com"})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(may)})
    return url, arn


FUNCTION = """
import boto3
def handler(event, context):
    boto3.client("codepipeline").put_job_success_result(jobId=event["CodePipeline.job"]["id"])
"""


@pytest.mark.control("PIP-08", "XAC-03", "XAC-07")
@pytest.mark.control("STG-03", "DEP-02", "DEP-01", lacking="an image that is pushed, and production")
def test_everything_in_one_pipeline_by_the_printed_roles(pipeline: Pipeline, printed: Releases) -> None:
    """Role A starts builds of the project that its policy names, which read and write the artifacts as their own role; a
    function reports; stack and state machine are of another account."""
    shared = pipeline.shared
    iam = shared.client("iam")
    trust = {"Effect": "Allow", "Principal": CODEBUILD, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": trust})
    iam.update_assume_role_policy(RoleName="Build", PolicyDocument=document)
    iam.put_role_policy(RoleName="Build", PolicyName="builds", PolicyDocument=json.dumps(allow(*MAY, "kms:*")))
    shared.client("codebuild").create_project(
        name="build-project-name",
        source={"type": "CODEPIPELINE"},
        artifacts={"type": "CODEPIPELINE"},
        environment=ENVIRONMENT,
        serviceRole=f"arn:aws:iam::{shared.id}:role/service-role/Build",
    )
    bench = Bench(
        shared, shared.role("functions", allow("codepipeline:PutJob*", "logs:*"), trust=LAMBDA), shared.client("lambda")
    )
    bench.make(FUNCTION, "tell")
    iam.put_role_policy(RoleName="RoleA", PolicyName="tells", PolicyDocument=json.dumps(allow("lambda:InvokeFunction")))
    text = spec(build=["cp repository.bundle out"], artifacts={"files": ["out", "*.json"]})
    commit = _commit(pipeline, "built", **{"buildspec.yml": text})
    declared = json.loads(json.dumps(printed.declaration["pipeline"])) | {"name": "whole"}
    declared["stages"][0]["actions"][0]["configuration"]["OutputArtifactFormat"] = "CODEBUILD_CLONE_REF"
    built = {"inputArtifacts": ["SourceArtifact"], "outputArtifacts": ["Built"]}
    declared["stages"][1:1] = [
        stage("Build", action("Build", "Build", "CodeBuild", {"ProjectName": "build-project-name"}, **built)),
        stage("Tell", action("Tell", "Invoke", "Lambda", {"FunctionName": "tell"})),
    ]
    printed.client.create_pipeline(pipeline=declared)
    id = printed.newest("whole")
    assert printed.over("whole", id, 120)["status"] == "Succeeded", printed.actions("whole", id)
    assert set(printed.actions("whole", id)) == {
        "Source", "Build", "Tell", "deploy-cf-train-test-external", "invoke-Step-Function",
    }  # fmt: skip
    made = printed.artifact("whole", id, "Build")
    assert made["out"].startswith(b"# v2 git bundle") and commit.encode() in made["out"]
    # Without the key the next stage cannot read what the first one wrote. The key's policy names the role, so that either
    # of the two policies is enough: it goes from both.
    for number, put in (
        ("72", lambda text: iam.put_role_policy(RoleName="RoleA", PolicyName="its", PolicyDocument=text)),
        ("71", lambda text: shared.client("kms").put_key_policy(KeyId=pipeline.key, Policy=text)),
    ):
        policy = json.loads(pipeline.document(number))
        for statement in policy["Statement"]:
            statement["Action"] = [one for one in statement["Action"] if one != "kms:Decrypt"]
        put(json.dumps(policy))
    id = printed.started("whole")
    assert printed.over("whole", id)["status"] == "Failed"
    error = printed.error("whole", id, "Build")
    assert error["code"] == "PermissionError" and "kms:Decrypt" in error["message"]
    iam.put_role_policy(RoleName="RoleA", PolicyName="its", PolicyDocument=pipeline.document("72"))
    shared.client("kms").put_key_policy(KeyId=pipeline.key, Policy=pipeline.document("71"))


@pytest.mark.control("XAC-05")
@pytest.mark.control("XAC-06")
@pytest.mark.control("STG-10", lacking="the endpoint, the functions and the API before them")
def test_production_is_another_pipeline_with_another_role_and_an_approval(
    pipeline: Pipeline, printed: Releases
) -> None:
    shared, production = pipeline.shared, pipeline.production
    topic = shared.client("sns").create_topic(Name="release-approval-topic")["TopicArn"]
    iam = production.client("iam")
    iam.update_assume_role_policy(RoleName="Stack", PolicyDocument=pipeline.document("82", ACCOUNT_ID=production.id))
    objects = allow("s3:GetObject*", resource=f"arn:aws:s3:::{pipeline.bucket}/*")
    for name, document in (("makes", allow("ssm:*")), ("reads", objects)):
        iam.put_role_policy(RoleName="Stack", PolicyName=name, PolicyDocument=json.dumps(document))
    _commit(pipeline, "live", **{"live.json": json.dumps({"Resources": {"P": parameter("live")}})})
    configuration = {
        "ActionMode": "CREATE_UPDATE",
        "StackName": "stack-name",
        "RoleArn": f"arn:aws:iam::{production.id}:role/Stack",
        "TemplatePath": "SourceArtifact::live.json",
    }
    given = {"inputArtifacts": ["SourceArtifact"], "roleArn": f"arn:aws:iam::{production.id}:role/RoleC"}
    declared = json.loads(json.dumps(printed.declaration["pipeline"])) | {
        "name": "release", "roleArn": f"arn:aws:iam::{shared.id}:role/service-role/RoleA2",
    }  # fmt: skip
    declared["stages"][1:] = [
        stage("Approve", approval(configuration={"NotificationArn": topic})),
        stage("Deploy", action("Deploy", "Deploy", "CloudFormation", configuration, **given)),
    ]
    client = production.client("cloudformation")
    printed.client.create_pipeline(pipeline=declared)
    id = printed.newest("release")
    printed.answer("release", "Approve", "Rejected")
    assert printed.over("release", id)["status"] == "Failed"
    assert client.describe_stacks()["Stacks"] == []
    id = printed.started("release")
    printed.answer("release", "Approve")
    assert printed.over("release", id)["status"] == "Succeeded", printed.actions("release", id)
    assert [one["StackStatus"] for one in client.describe_stacks()["Stacks"]] == ["CREATE_COMPLETE"]
    roles = [printed.client.get_pipeline(name=one)["pipeline"]["roleArn"] for one in ("train", "release")]
    assert [one.rpartition("/")[2] for one in roles] == ["RoleA", "RoleA2"]
    # Neither does the other's work.
    crossed = declared | {
        "name": "crossed",
        "roleArn": roles[0],
        "stages": [declared["stages"][0], declared["stages"][2]],
    }
    printed.client.create_pipeline(pipeline=crossed)
    id = printed.newest("crossed")
    assert printed.over("crossed", id)["status"] == "Failed"
    error = printed.error("crossed", id, "Deploy")
    assert error["code"] == "PermissionError" and "RoleA cannot assume the action's role" in error["message"]
