"""Projects: kept, changed, listed, refused; and who else starts builds of them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.codebuild.conftest import CODEBUILD, ENVIRONMENT, MAY, Bench, spec

SPEC = spec(build=["echo $SAID"])


def test_projects_are_kept_changed_listed_and_deleted(bench: Bench) -> None:
    client = bench.client
    tags = [{"key": "team", "value": "red"}]
    made = [bench.project(SPEC, name=f"p{number}", tags=tags) for number in range(3)]
    assert client.list_projects()["projects"] == made
    assert client.list_projects(sortBy="CREATED_TIME", sortOrder="DESCENDING")["projects"] == made[::-1]
    changed = client.update_project(name="p1", description="other", timeoutInMinutes=7)["project"]
    assert (changed["description"], changed["timeoutInMinutes"], changed["tags"]) == ("other", 7, tags)
    assert changed["source"]["buildspec"] == SPEC and changed["environment"]["computeType"] == "BUILD_GENERAL1_SMALL"
    found = client.batch_get_projects(names=["p1", "nobody"])
    assert (found["projects"][0]["arn"], found["projectsNotFound"]) == (changed["arn"], ["nobody"])
    with pytest.raises(ClientError) as taken:
        bench.project(SPEC, name="p1")
    assert taken.value.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    client.delete_project(name="p1")
    assert client.list_projects()["projects"] == ["p0", "p2"]
    with pytest.raises(ClientError) as missing:
        bench.start("p1")
    assert missing.value.response["Error"]["Code"] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"source": {"type": "GITHUB", "location": "https://github.com/a/b"}}, "nothing outside of the platform"),
        ({"source": {"type": "NO_SOURCE"}}, "requires a valid yaml"),
        ({"source": {"type": "S3", "location": "bucket"}}, "a bucket and an object key"),
        ({"environment": {**ENVIRONMENT, "image": "ubuntu:latest"}}, "nor one of this platform's ECR"),
        ({"environment": {**ENVIRONMENT, "type": "WINDOWS_SERVER_2022_CONTAINER"}}, "LINUX_CONTAINER is"),
        ({"environment": {**ENVIRONMENT, "computeType": "BUILD_LAMBDA_1GB"}}, "computeType"),
        ({"environment": {**ENVIRONMENT, "certificate": "bucket/key"}}, "certificate"),
        ({"artifacts": {"type": "CODEPIPELINE"}}, "both of the type CODEPIPELINE"),
        ({"artifacts": {"type": "S3", "location": "b", "name": "n", "path": "../up"}}, "plain"),
        ({"cache": {"type": "LOCAL", "modes": ["LOCAL_SOURCE_CACHE"]}}, "LOCAL"),
        ({"badgeEnabled": True}, "badgeEnabled"),
        ({"buildBatchConfig": {"serviceRole": "r"}}, "buildBatchConfig"),
        ({"autoRetryLimit": 2}, "autoRetryLimit"),
        ({"vpcConfig": {"vpcId": "vpc-1", "subnets": ["subnet-1"], "securityGroupIds": ["sg-1"]}}, "vpcConfig"),
    ],
)
def test_what_would_have_no_effect_is_refused(bench: Bench, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ClientError) as refused:
        bench.project(SPEC, **more)
    error = refused.value.response["Error"]
    assert error["Code"] == "InvalidInputException" and says in error["Message"], error


@pytest.mark.control("SVR-06", lacking="Glue")
def test_a_role_is_passed_and_trusts_codebuild(bench: Bench, account: Account) -> None:
    other = account.role("other", allow("s3:*"), trust={"Service": "lambda.amazonaws.com"})
    with pytest.raises(ClientError, match="not authorized to perform: sts:AssumeRole"):
        bench.project(SPEC, serviceRole=other)
    maker = account.platform.assume(account.role("maker", allow("codebuild:*")), account.keys)
    with pytest.raises(ClientError) as denied:
        Bench(account, bench.role, account.client("codebuild", maker)).project(SPEC)
    assert "iam:PassRole" in denied.value.response["Error"]["Message"]


def test_policies_know_which_project_builds(bench: Bench, account: Account) -> None:
    asking = spec(build=["aws iam list-users --query 'length(Users)' || echo refused"])
    project = f"arn:aws:codebuild:us-east-1:{account.id}:project/this"
    where = {"codebuild:ProjectArn": project, "codebuild:BuildArn": f"{project.replace('project', 'build')}:*"}
    may = allow("iam:ListUsers", Condition={"ArnLike": where})
    may["Statement"] += allow(*MAY)["Statement"]
    role = account.role("by-project", may, trust=CODEBUILD)
    builds = [bench.start(bench.project(asking, name=name, serviceRole=role)) for name in ("this", "that")]
    assert [bench.said(bench.over(id))[-1] for id in builds] == ["0", "refused"]


def test_a_guardrail_sees_what_a_project_asks_for(account: Account, bench: Bench) -> None:
    unprivileged = {
        "Effect": "Deny",
        "Action": ["codebuild:CreateProject", "codebuild:UpdateProject"],
        "Resource": "*",
        "Condition": {"Bool": {"codebuild:environment.privilegedMode": "true"}},
    }
    no_override = {
        "Effect": "Deny",
        "Action": "codebuild:StartBuild",
        "Resource": "*",
        "Condition": {"Bool": {"codebuild:source.buildspec": "true"}},
    }
    policy = allow("codebuild:*", "iam:PassRole")
    policy["Statement"] += [unprivileged, no_override]
    held = Bench(
        account,
        bench.role,
        account.client("codebuild", account.platform.assume(account.role("dev", policy), account.keys)),
    )
    name = held.project(SPEC)
    for wrong in (
        lambda: held.project(SPEC, environment={**ENVIRONMENT, "privilegedMode": True}),
        lambda: held.start(name, buildspecOverride=spec(build=["env"])),
    ):
        with pytest.raises(ClientError) as denied:
            wrong()
        assert denied.value.response["Error"]["Code"] == "AccessDeniedException"


def test_a_stack_makes_a_project_that_a_state_machine_and_a_rule_build(bench: Bench) -> None:
    account = bench.account
    states = {"Service": "states.amazonaws.com"}
    may = allow("codebuild:StartBuild", "codebuild:StopBuild", "codebuild:BatchGetBuilds")
    runner = account.role("runner", may, trust=states)
    caller = account.role("caller", may, trust={"Service": "events.amazonaws.com"})
    project = {
        "Type": "AWS::CodeBuild::Project",
        "Properties": {
            "Name": "stacked",
            "ServiceRole": bench.role,
            "Source": {"Type": "NO_SOURCE", "BuildSpec": SPEC},
            "Artifacts": {"Type": "NO_ARTIFACTS"},
            "Environment": {
                "Type": "LINUX_CONTAINER",
                "Image": ENVIRONMENT["image"],
                "ComputeType": "BUILD_GENERAL1_SMALL",
                "EnvironmentVariables": [{"Name": "SAID", "Value": "stack"}],
            },
            "Tags": [{"Key": "team", "Value": "red"}],
        },
    }
    group = {
        "Type": "AWS::CodeBuild::ReportGroup",
        "Properties": {"Type": "TEST", "ExportConfig": {"ExportConfigType": "NO_EXPORT"}},
    }
    template = {
        "Resources": {"Project": project, "Group": group},
        "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Project", "Arn"]}}, "Name": {"Value": {"Ref": "Project"}}},
    }
    stacks = account.client("cloudformation")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    [stack] = stacks.describe_stacks(StackName="s")["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    assert outputs == {"Name": "stacked", "Arn": f"arn:aws:codebuild:us-east-1:{account.id}:project/stacked"}
    assert len(bench.client.list_report_groups()["reportGroups"]) == 1
    # A state machine waits for its build.
    variable = {"Name": "SAID", "Value": "machine", "Type": "PLAINTEXT"}
    step = {
        "Type": "Task",
        "Resource": "arn:aws:states:::codebuild:startBuild.sync",
        "Parameters": {"ProjectName": "stacked", "EnvironmentVariablesOverride": [variable]},
        "End": True,
    }
    machines = account.client("stepfunctions")
    definition = json.dumps({"StartAt": "Build", "States": {"Build": step}})
    machine = machines.create_state_machine(name="m", definition=definition, roleArn=runner)["stateMachineArn"]
    execution = machines.start_execution(stateMachineArn=machine)["executionArn"]
    while (told := machines.describe_execution(executionArn=execution))["status"] == "RUNNING":
        time.sleep(0.1)
    assert told["status"] == "SUCCEEDED", told
    output = json.loads(told["output"])["Build"]
    assert output["BuildStatus"] == "SUCCEEDED"
    assert bench.said(bench.get(output["Id"])) == ["machine"]
    # A rule starts another one, with what its input says.
    events = account.client("events")
    events.put_rule(Name="r", EventPattern=json.dumps({"source": ["mine"]}))
    given = json.dumps({"environmentVariablesOverride": [{"name": "SAID", "value": "rule", "type": "PLAINTEXT"}]})
    events.put_targets(Rule="r", Targets=[{"Id": "t", "Arn": outputs["Arn"], "RoleArn": caller, "Input": given}])
    events.put_events(Entries=[{"Source": "mine", "DetailType": "d", "Detail": "{}"}])
    while len(found := bench.client.list_builds()["ids"]) < 2:
        time.sleep(0.1)
    build = bench.over(found[0])
    assert (bench.said(build), build["initiator"].partition("/")[0]) == (["rule"], "caller")
    stacks.delete_stack(StackName="s")
    stacks.get_waiter("stack_delete_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    assert bench.client.list_projects()["projects"] == []


def test_a_stack_refuses_webhooks(bench: Bench) -> None:
    properties = {
        "ServiceRole": bench.role,
        "Source": {"Type": "NO_SOURCE", "BuildSpec": SPEC},
        "Artifacts": {"Type": "NO_ARTIFACTS"},
        "Environment": {
            "Type": "LINUX_CONTAINER",
            "Image": ENVIRONMENT["image"],
            "ComputeType": "BUILD_GENERAL1_SMALL",
        },
        "Triggers": {"Webhook": True},
    }
    template = {"Resources": {"P": {"Type": "AWS::CodeBuild::Project", "Properties": properties}}}
    stacks = bench.account.client("cloudformation")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps(template), OnFailure="DO_NOTHING")
    while (told := stacks.describe_stacks(StackName="s")["Stacks"][0])["StackStatus"] == "CREATE_IN_PROGRESS":
        time.sleep(0.1)
    events = stacks.describe_stack_events(StackName="s")["StackEvents"]
    assert told["StackStatus"] == "CREATE_FAILED"
    assert any("webhooks are not supported" in one.get("ResourceStatusReason", "") for one in events)


def test_a_project_of_a_pipeline_is_started_by_nobody_else(bench: Bench) -> None:
    name = bench.project(SPEC, source={"type": "CODEPIPELINE"}, artifacts={"type": "CODEPIPELINE"})
    with pytest.raises(ClientError, match="by its pipeline alone"):
        bench.start(name, sourceLocationOverride=f"{bench.bucket}/key")
