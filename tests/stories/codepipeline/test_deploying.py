"""What actions do elsewhere: stacks in each mode, stack sets, functions that report; and what conditions decide."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import PROGRAM, REGION, Account, allow
from tests.stories.cloudformation.stacks import nobody, parameter
from tests.stories.codepipeline.releases import Releases, action, approval, stage, until
from tests.stories.ec2.conftest import Vpc, make_vpc
from tests.stories.ecr.test_repositories import manifest, upload
from tests.stories.lambda_.conftest import bench_of

PARAMETERS = {"V": {"Type": "String", "Default": "none"}, "W": {"Type": "String", "Default": "none"}}


def _template(**more: Any) -> dict[str, Any]:
    return {
        "Parameters": PARAMETERS,
        "Resources": {"P": parameter({"Ref": "V"}), "Q": parameter({"Ref": "W"}), **more},
        "Outputs": {"Name": {"Value": {"Ref": "P"}}},
    }


def _stack(mode: str, role: str, **more: str) -> dict[str, Any]:
    configuration = {"ActionMode": mode, "StackName": "site", "RoleArn": role, "Capabilities": "CAPABILITY_IAM", **more}
    if mode != "DELETE_ONLY":
        configuration["TemplatePath"] = "Code::template.json"
    return action(mode.title().replace("_", ""), "Deploy", "CloudFormation", configuration, inputArtifacts=["Code"])


def _values(account: Account) -> list[str]:
    ssm = account.client("ssm")
    found = [ssm.get_parameter(Name=one["Name"])["Parameter"] for one in ssm.describe_parameters()["Parameters"]]
    return sorted(one["Value"] for one in found)


@pytest.fixture
def stack_role(account: Account) -> str:
    return account.role("Stack", allow("ssm:*", "iam:*"), trust={"Service": "cloudformation.amazonaws.com"})


@pytest.mark.control("PEX-03")
def test_stacks_in_every_mode(account: Account, releases: Releases, stack_role: str) -> None:
    overrides = {
        "V": {"Fn::GetParam": ["Code", "values.json", "v"]},
        "W": {"Fn::GetArtifactAtt": ["Code", "ObjectKey"]},
    }
    configuration = {"Parameters": {"V": "configured"}, "Tags": {"team": "alpha"}}
    files = {"template.json": _template(), "values.json": {"v": "given"}, "configuration.json": configuration}
    releases.commit(files)
    more = {"ParameterOverrides": json.dumps(overrides), "TemplateConfiguration": "Code::configuration.json"}
    change = {"ChangeSetName": "next", **more}
    executes = _stack("CHANGE_SET_EXECUTE", stack_role, ChangeSetName="next")
    executes |= {"runOrder": 2, "namespace": "site"}
    name = releases.made(
        stage("Change", _stack("CHANGE_SET_REPLACE", stack_role, **change), executes),
        stage("Replace", _stack("REPLACE_ON_FAILURE", stack_role, **more)),
    )
    id = releases.newest(name)
    assert releases.get(name, id)["status"] == "Succeeded", releases.actions(name, id)
    key = releases.actions(name, id)["Source"]["output"]["outputArtifacts"][0]["s3location"]["key"]
    assert _values(account) == sorted(["given", key])
    [stack] = account.client("cloudformation").describe_stacks(StackName="site")["Stacks"]
    assert stack["Tags"] == [{"Key": "team", "Value": "alpha"}]
    assert releases.actions(name, id)["ChangeSetExecute"]["output"]["outputVariables"]["Name"].startswith("site-P-")
    # Nothing to change is no failure; a failing change is told with its first cause, and undone.
    assert releases.ran(name)["status"] == "Succeeded"
    releases.commit({**files, "template.json": _template(N=nobody())})
    id = releases.started(name)
    assert releases.over(name, id)["status"] == "Failed"
    message = releases.error(name, id, "ChangeSetExecute")["message"]
    assert "UPDATE_ROLLBACK_COMPLETE" in message and "N (AWS::IAM::Policy)" in message
    gone = releases.made(stage("Away", _stack("DELETE_ONLY", stack_role)))
    assert releases.get(gone, releases.newest(gone))["status"] == "Succeeded"
    assert _values(account) == []
    # A first creation that fails leaves a stack that only REPLACE_ON_FAILURE gets past.
    plain = releases.made(stage("Make", _stack("CREATE_UPDATE", stack_role)))
    assert "ROLLBACK_COMPLETE" in releases.error(plain, releases.newest(plain), "CreateUpdate")["message"]
    releases.commit({**files, "template.json": _template()})
    id = releases.started(plain)
    assert "REPLACE_ON_FAILURE" in releases.error(plain, releases.over(plain, id) and id, "CreateUpdate")["message"]
    replaced = releases.made(stage("Make", _stack("REPLACE_ON_FAILURE", stack_role)))
    assert releases.get(replaced, releases.newest(replaced))["status"] == "Succeeded"
    assert _values(account) == ["none", "none"]


def test_stack_sets_and_images(account: Account, neighbour: Account, releases: Releases) -> None:
    policy = json.dumps(allow("ecr:DescribeImages"))
    account.client("iam").put_role_policy(RoleName="Pipeline", PolicyName="images", PolicyDocument=policy)
    trust = {"Service": "cloudformation.amazonaws.com"}
    account.role("AWSCloudFormationStackSetAdministrationRole", allow("sts:AssumeRole"), trust=trust)
    administrator = f"arn:aws:iam::{account.id}:role/AWSCloudFormationStackSetAdministrationRole"
    for one in (account, neighbour):
        one.role("AWSCloudFormationStackSetExecutionRole", allow("*"), trust={"AWS": administrator})
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="team/base")
    layers = [upload(ecr, "team/base", data) for data in (b"{}", b"layer")]
    given = {"repositoryName": "team/base", "imageTag": "one", "imageManifest": manifest(*layers, size=5)}
    digest = ecr.put_image(**given)["image"]["imageId"]["imageDigest"]
    releases.commit({"template.json": _template(), "values.json": [{"ParameterKey": "V", "ParameterValue": "set"}]})
    where = {"StackSetName": "base", "DeploymentTargets": f"{account.id}, {neighbour.id}", "Regions": "us-east-1"}
    base = action(
        "Set", "Deploy", "CloudFormationStackSet",
        {**where, "TemplatePath": "Code::template.json", "Parameters": "Code::values.json"}, inputArtifacts=["Code"],
    )  # fmt: skip
    own = json.dumps([{"ParameterKey": "W", "ParameterValue": "#{image.ImageDigest}"}])
    alone = {**where, "DeploymentTargets": neighbour.id, "ParameterOverrides": own}
    more = action("Alone", "Deploy", "CloudFormationStackInstances", alone, runOrder=2)
    image = action(
        "Image", "Source", "ECR", {"RepositoryName": "team/base", "ImageTag": "one"},
        outputArtifacts=["Image"], namespace="image",
    )  # fmt: skip
    declared = releases.declared(stage("Sets", base, more), name="sets")
    declared["stages"][0]["actions"].append(image)
    releases.client.create_pipeline(pipeline=declared)
    id = releases.newest("sets")
    assert releases.over("sets", id)["status"] == "Succeeded", releases.actions("sets", id)
    detail = json.loads(releases.artifact("sets", id, "Image")["imageDetail.json"])
    assert (detail["ImageDigest"], detail["ImageTags"]) == (digest, ["one"])
    assert detail["ImageURI"].endswith(f"/team/base@{digest}")
    assert _values(account) == ["none", "set"]
    assert _values(neighbour) == sorted(["set", digest])
    # The set is changed with the next commit, what an account has of its own stays; a missing image is told.
    releases.commit({"template.json": _template(R=parameter("more")), "values.json": []})
    assert releases.ran("sets")["status"] == "Succeeded"
    assert _values(account) == ["more", "none", "none"] and digest in _values(neighbour)
    ecr.batch_delete_image(repositoryName="team/base", imageIds=[{"imageTag": "one"}])
    id = releases.started("sets")
    assert releases.over("sets", id)["status"] == "Failed"
    assert "team/base:one cannot be read" in releases.error("sets", id, "Image")["message"]


FUNCTION = """
import boto3, json, os, urllib.request
def ask(path, body=None):
    with urllib.request.urlopen(os.environ["TICKETS"] + path, body, timeout=3) as answer:
        return json.loads(answer.read())
def handler(event, context):
    job, client = event["CodePipeline.job"], boto3.client("codepipeline")
    data, number = job["data"], job["data"].get("continuationToken")
    try:
        if number is None:
            number, status = ask("/tickets", job["id"].encode())["number"], "open"
        else:
            status = ask(f"/tickets/{number}")["status"]
    except OSError as error:
        why = {"type": "JobFailed", "message": f"the tickets cannot be reached: {error}"}
        return client.put_job_failure_result(jobId=job["id"], failureDetails=why)
    if status == "refused":
        why = {"type": "JobFailed", "message": f"{number} was refused", "externalExecutionId": number}
        return client.put_job_failure_result(jobId=job["id"], failureDetails=why)
    details = {"externalExecutionId": number, "summary": f"{number} is {status}"}
    if status == "open":
        return client.put_job_success_result(jobId=job["id"], continuationToken=number, executionDetails=details)
    keys = data["artifactCredentials"]
    s3 = boto3.client("s3", aws_access_key_id=keys["accessKeyId"], aws_secret_access_key=keys["secretAccessKey"],
                      aws_session_token=keys["sessionToken"])
    where = data["inputArtifacts"][0]["location"]["s3Location"]
    size = len(s3.get_object(Bucket=where["bucketName"], Key=where["objectKey"])["Body"].read())
    try:
        s3.list_objects_v2(Bucket=where["bucketName"])
        size = -1
    except Exception:
        pass
    where = data["outputArtifacts"][0]["location"]["s3Location"]
    s3.put_object(Bucket=where["bucketName"], Key=where["objectKey"], Body=b"made by a function")
    told = {"Ticket": number, "Size": str(size)}
    client.put_job_success_result(jobId=job["id"], outputVariables=told, executionDetails=details)
"""
TICKETS = """
import http.server, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
class Desk(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        job = self.rfile.read(int(self.headers["content-length"])).decode()
        number = f"CHG{len(list(folder.glob('CHG*'))) + 1}"
        (folder / number).write_text(job)
        self.tell({"number": number})
    def do_GET(self):
        said = folder / f"said-{self.path.rpartition('/')[2]}"
        self.tell({"status": said.read_text() if said.exists() else "open"})
    def tell(self, told):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Desk)
print("serves", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def _tickets(vpc: Vpc, folder: Path) -> Iterator[str]:
    """A system of tickets with an address in a subnet and no other network; where it answers. What is in the file
    `said-NUMBER` of the folder is what it says of a ticket."""
    keys, known = vpc.account.keys, {one["NetworkInterfaceId"] for one in _interfaces(vpc)}
    environment = {
        "PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret,
        "AWS_SESSION_TOKEN": keys.token or "", "AWS_DEFAULT_REGION": REGION,
    }  # fmt: skip
    words = ["--data", str(vpc.account.platform.data), "--account", vpc.account.id, "--subnet", vpc.subnet]
    serving = subprocess.Popen(
        [*PROGRAM, "network", "run", *words, "--", sys.executable, "-c", TICKETS, str(folder)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert serving.stdout is not None and serving.stdout.readline() == "serves\n"
        [made] = [one for one in _interfaces(vpc) if one["NetworkInterfaceId"] not in known]
        yield f"http://{made['PrivateIpAddress']}:8080"
    finally:
        serving.terminate()
        serving.communicate(timeout=60)


def _interfaces(vpc: Vpc) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]
    return found


@pytest.mark.control("STG-11")
def test_a_release_waits_for_its_ticket(account: Account, releases: Releases, tmp_path: Path) -> None:
    """A function of the VPC asks a system of tickets that has an address there and nowhere else."""
    vpc = make_vpc(account)
    vpc.interface("codepipeline", PrivateDnsEnabled=True)
    vpc.ec2.create_vpc_endpoint(
        VpcId=vpc.id, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[vpc.main_table()]
    )
    bench = bench_of(account)
    policy = json.dumps(allow("codepipeline:PutJob*", "ec2:*"))
    account.client("iam").put_role_policy(RoleName="functions", PolicyName="reports", PolicyDocument=policy)
    given = {"FunctionName": "ticket", "UserParameters": "raise"}
    raise_ = action(
        "Ticket", "Invoke", "Lambda", given, inputArtifacts=["Code"], outputArtifacts=["Made"], namespace="ticket"
    )
    place = {"BucketName": releases.sources, "Extract": "true", "ObjectKey": "live/#{ticket.Ticket}"}
    release = action("Release", "Deploy", "S3", place, inputArtifacts=["Code"])

    def deployed() -> int:
        return int(releases.s3.list_objects_v2(Bucket=releases.sources, Prefix="live/")["KeyCount"])

    def raised(id: str, number: str) -> dict[str, Any]:
        """The action, once its ticket's number stands with the execution: nobody has answered it yet."""

        def look() -> dict[str, Any] | None:
            did = releases.actions(name, id).get("Ticket", {})
            told: dict[str, Any] = did.get("output", {}).get("executionResult", {})
            return told if told.get("externalExecutionId") == number else None

        told = until(look, 120, told=lambda: releases.actions(name, id))
        assert (
            releases.get(name, id)["status"] == "InProgress" and told["externalExecutionSummary"] == f"{number} is open"
        )
        return told

    with _tickets(vpc, tmp_path) as address:
        bench.make(
            FUNCTION, "ticket", Timeout=30, Environment={"Variables": {"TICKETS": address}},
            VpcConfig={"SubnetIds": [vpc.subnet], "SecurityGroupIds": [vpc.group]},
        )  # fmt: skip
        name = releases.made(stage("Ask", raise_), stage("Live", release), wait=False)
        id = releases.newest(name)
        raised(id, "CHG1")
        assert not deployed()
        (tmp_path / "said-CHG1").write_text("approved")
        assert releases.over(name, id, 120)["status"] == "Succeeded", releases.actions(name, id)
        did = releases.actions(name, id)["Ticket"]["output"]
        assert did["outputVariables"]["Ticket"] == "CHG1" and int(did["outputVariables"]["Size"]) > 0
        assert did["executionResult"]["externalExecutionId"] == "CHG1" and deployed() == 1
        job = (tmp_path / "CHG1").read_text()
        with pytest.raises(ClientError, match="InvalidJobState"):
            releases.client.put_job_success_result(jobId=job)
        # Refused, and out of reach: nothing is deployed.
        id = releases.started(name)
        raised(id, "CHG2")
        (tmp_path / "said-CHG2").write_text("refused")
        assert releases.over(name, id, 120)["status"] == "Failed"
        assert releases.error(name, id, "Ticket") == {"code": "JobFailed", "message": "CHG2 was refused"}
        # Its artifact is swapped while the function that has begun with it still asks: what it then says does not count.
        id = releases.started(name)
        raised(id, "CHG3")
        where = releases.actions(name, id)["Source"]["output"]["outputArtifacts"][0]["s3location"]
        os.mkfifo(tmp_path / "said-CHG3")
        with (tmp_path / "said-CHG3").open("w") as says:  # waits for who reads it
            releases.s3.put_object(Bucket=where["bucket"], Key=where["key"], Body=b"another")
            says.write("approved")
        assert releases.over(name, id, 120)["status"] == "Failed"
        assert releases.error(name, id, "Ticket")["code"] == "RevisionOutOfSync"
    id = releases.started(name)
    assert releases.over(name, id, 120)["status"] == "Failed"
    assert "the tickets cannot be reached" in releases.error(name, id, "Ticket")["message"] and deployed() == 1


def _rule(name: str, provider: str, **configuration: str) -> dict[str, Any]:
    type = {"category": "Rule", "owner": "AWS", "provider": provider, "version": "1"}
    return {"name": name, "ruleTypeId": type, "configuration": configuration}


def _when(result: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": [{"result": result, "rules": list(rules)}]}


def test_conditions_decide(account: Account, releases: Releases) -> None:
    cloudwatch = account.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="broken", MetricName="m", Namespace="n", Period=60, EvaluationPeriods=1, Threshold=1, Statistic="Sum",
        ComparisonOperator="GreaterThanThreshold", ActionsEnabled=False,
        TreatMissingData="ignore",  # it stays as it is set
    )  # fmt: skip
    check = _rule("Right", "VariableCheck", Variable="#{variables.To}", Value="live", Operator="EQ")
    name = releases.made(
        stage("Skipped", approval(), beforeEntry=_when("SKIP", check)),
        stage(
            "Guarded",
            approval(),
            beforeEntry=_when("FAIL", check, _rule("Open", "DeploymentWindow", Cron="* * * * * ? *")),
            onSuccess=_when("ROLLBACK", _rule("Calm", "CloudWatchAlarm", AlarmName="broken")),
        ),
        pipelineType="V2",
        variables=[{"name": "To", "defaultValue": "test"}],
    )
    id = releases.newest(name)
    stands = releases.stages(name)
    assert stands["Skipped"]["latestExecution"]["status"] == "Skipped"
    held = stands["Guarded"]["beforeEntryConditionState"]
    assert held["latestExecution"]["status"] == "Failed"
    assert (
        "'test' EQ 'live'" in held["conditionStates"][0]["ruleStates"][0]["latestExecution"]["errorDetails"]["message"]
    )
    assert "not met" in releases.get(name, id)["statusSummary"]
    given = {"pipelineName": name, "stageName": "Guarded", "pipelineExecutionId": id}
    with pytest.raises(ClientError, match="ConditionNotOverridable"):
        releases.client.override_stage_condition(**given, conditionType="ON_SUCCESS")

    def rules() -> set[str]:
        listed = releases.client.list_rule_executions(pipelineName=name, filter={"pipelineExecutionId": id})
        return {one["ruleExecutionId"] for one in listed["ruleExecutionDetails"] if one["stageName"] == "Guarded"}

    # Whoever tries the stage again has its conditions looked at again; whoever overrides them goes on.
    first = rules()
    releases.client.retry_stage_execution(**given, retryMode="FAILED_ACTIONS")
    assert releases.over(name, id)["status"] == "Failed" and not first & rules()
    releases.client.override_stage_condition(**given, conditionType="BEFORE_ENTRY")
    releases.answer(name, "Guarded")
    assert releases.over(name, id)["status"] == "Succeeded"
    # An alarm brings the stage back to what was good.
    cloudwatch.set_alarm_state(AlarmName="broken", StateValue="ALARM", StateReason="it burns")
    bad = releases.started(name, variables=[{"name": "To", "value": "live"}])
    for one in ("Skipped", "Guarded"):
        releases.within(name, one, bad)
        releases.answer(name, one)
    assert releases.over(name, bad)["status"] == "Failed"
    back = until(lambda: found if (found := releases.newest(name)) != bad else None)
    told = releases.get(name, back)
    assert (told["executionType"], told["rollbackMetadata"]) == (
        "ROLLBACK", {"rollbackTargetPipelineExecutionId": id},
    )  # fmt: skip
    assert told["trigger"] == {"triggerType": "AutomatedRollback", "triggerDetail": bad}
    listed = releases.client.list_rule_executions(pipelineName=name, filter={"pipelineExecutionId": bad})
    assert [one["status"] for one in listed["ruleExecutionDetails"] if one["ruleName"] == "Calm"] == ["Failed"]
    cloudwatch.set_alarm_state(AlarmName="broken", StateValue="OK", StateReason="it is out")
    # It comes back with the variables of then, which do not meet the conditions; those were overridden for another run.
    assert releases.over(name, back)["status"] == "Failed"
    with pytest.raises(ClientError, match="UnableToRollbackStage"):
        releases.client.rollback_stage(pipelineName=name, stageName="Guarded", targetPipelineExecutionId=back)


def test_a_stage_is_tried_again_by_itself_and_then_rolled_back_by_hand(releases: Releases) -> None:
    name = releases.made(stage("Review", approval(), onFailure={"result": "RETRY"}), pipelineType="V2", wait=False)
    first = releases.newest(name)
    releases.answer(name, "Review", "Rejected")
    releases.answer(name, "Review")
    assert releases.over(name, first)["status"] == "Succeeded"
    assert releases.stages(name)["Review"]["retryStageMetadata"] == {
        "autoStageRetryAttempt": 1, "latestRetryTrigger": "AutomatedStageRetry",
    }  # fmt: skip
    pages = releases.client.list_action_executions(pipelineName=name)["actionExecutionDetails"]
    assert [one["status"] for one in pages if one["actionName"] == "Ask"] == ["Succeeded", "Failed"]
    given = {"pipelineName": name, "stageName": "Review", "targetPipelineExecutionId": first}
    with pytest.raises(ClientError, match="source stage"):
        releases.client.rollback_stage(**{**given, "stageName": "Source"})
    back = releases.client.rollback_stage(**given)["pipelineExecutionId"]
    releases.answer(name, "Review")
    assert releases.over(name, back)["status"] == "Succeeded"
    assert set(releases.actions(name, back)) == {"Ask"}
