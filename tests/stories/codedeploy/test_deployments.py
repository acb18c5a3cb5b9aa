"""Aliases are led from one version to the next: checked by functions, by the clock, watched by alarms, and taken back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.services.codedeploy.noun import DEPLOYMENT, OVER
from tests.moved import Moved, moved, until
from tests.platform import Account, Keys, allow
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.lambda_.conftest import LAMBDA, Bench
from tests.stories.sqs.test_queues import made

DEPLOYS = {"Service": "codedeploy.amazonaws.com"}
MANAGED = "arn:aws:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda"
CHECK = """
import boto3, os
def handler(event, context):
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"], lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=os.environ["STATUS"])
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    for one in moved(tmp_path_factory.mktemp("deployments")):
        one.found()
        one.running.deployer.seconds = 0.05
        yield one


class Site:
    """An account with a function of two versions, an application, and functions that check."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.client, self.lambda_ = account.client("codedeploy"), account.client("lambda")
        self.role = account.role("Deploys", trust=DEPLOYS)
        account.client("iam").attach_role_policy(RoleName="Deploys", PolicyArn=MANAGED)
        self.bench = Bench(
            account, account.role("Functions", allow("logs:*", "codedeploy:*"), trust=LAMBDA), self.lambda_
        )
        self.client.create_application(applicationName="app", computePlatform="Lambda")
        for name, status in (("good", "Succeeded"), ("bad", "Failed")):
            more = {"Environment": {"Variables": {"STATUS": status}}, "Timeout": 300}
            self.bench.make(CHECK, f"CodeDeployHook_{name}", **more)
        self.bench.make("def handler(event, context): return context.function_version", "f")
        for number in (1, 2):
            self.lambda_.update_function_configuration(FunctionName="f", Description=str(number))
            self.bench.settled("f")
            assert self.lambda_.publish_version(FunctionName="f")["Version"] == str(number)

    def again(self) -> None:
        """Clients of a platform that was started again."""
        self.client, self.lambda_ = self.account.client("codedeploy"), self.account.client("lambda")

    def group(self, name: str, config: str = "CodeDeployDefault.LambdaCanary10Percent5Minutes", **more: Any) -> None:
        """A deployment group, and the alias of its name, at version 1."""
        self.lambda_.create_alias(FunctionName="f", Name=name, FunctionVersion="1")
        self.client.create_deployment_group(
            applicationName="app",
            deploymentGroupName=name,
            deploymentConfigName=config,
            serviceRoleArn=self.role,
            **more,
        )

    def deploy(self, group: str, hooks: Any = (), **more: Any) -> str:
        resource = {"Name": "f", "Alias": group, "CurrentVersion": "1", "TargetVersion": "2"}
        spec = {
            "version": 0.0, "Resources": [{"f": {"Type": "AWS::Lambda::Function", "Properties": resource}}],
            "Hooks": list(hooks),
        }  # fmt: skip
        content = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(spec)}}
        given = {"applicationName": "app", "deploymentGroupName": group, "revision": content, **more}
        return str(self.client.create_deployment(**given)["deploymentId"])

    def get(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_deployment(deploymentId=id)["deploymentInfo"]
        return found

    def over(self, id: str) -> dict[str, Any]:
        return until(lambda: found if (found := self.get(id))["status"] in OVER else None)

    def target(self, id: str) -> dict[str, Any]:
        [name] = self.client.list_deployment_targets(deploymentId=id)["targetIds"]
        found: dict[str, Any] = self.client.get_deployment_target(deploymentId=id, targetId=name)["deploymentTarget"]
        return dict(found["lambdaTarget"])

    def alias(self, name: str) -> tuple[str, dict[str, float]]:
        found = self.lambda_.get_alias(FunctionName="f", Name=name)
        return found["FunctionVersion"], found.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})

    def shifted(self, id: str, name: str, share: float) -> None:
        """The first share is given."""
        until(lambda: self.alias(name)[1], told=lambda: self.get(id))
        assert self.alias(name) == ("1", {"2": share})
        assert self.get(id)["status"] == "InProgress"


@pytest.fixture(scope="module")
def site(here: Moved) -> Site:
    return Site(here.account())


def _status(here: Moved, site: Site, id: str) -> str:
    """How a deployment stands, while nothing may be called."""
    row = here.look(lambda view: DEPLOYMENT.get(view, site.account.id, "us-east-1", id))
    assert row is not None
    return row.status if row.status in OVER else ""


@pytest.mark.control("DEP-07")
def test_a_canary_is_checked_waits_and_becomes_the_version(here: Moved, site: Site) -> None:
    account, sqs, sns = site.account, site.account.client("sqs"), site.account.client("sns")
    topic, url = sns.create_topic(Name="deployed")["TopicArn"], made(sqs)
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    lets = allow("sqs:SendMessage", resource=queue)
    lets["Statement"][0]["Principal"] = {"Service": "sns.amazonaws.com"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(lets)})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    trigger = {"triggerName": "t", "triggerTargetArn": topic, "triggerEvents": ["DeploymentStart", "DeploymentSuccess"]}
    site.group("canary", triggerConfigurations=[trigger], tags=[{"Key": "team", "Value": "red"}])
    hooks = [{"BeforeAllowTraffic": "CodeDeployHook_good"}, {"AfterAllowTraffic": "CodeDeployHook_good"}]
    id = site.deploy("canary", hooks, description="d")
    with pytest.raises(site.client.exceptions.DeploymentLimitExceededException, match=id):
        site.deploy("canary")
    site.shifted(id, "canary", 0.1)
    assert site.target(id)["lambdaFunctionInfo"]["targetVersionWeight"] == 0.1
    events = [(one["lifecycleEventName"], one["status"]) for one in site.target(id)["lifecycleEvents"]]
    assert events == [
        ("BeforeAllowTraffic", "Succeeded"), ("AllowTraffic", "InProgress"), ("AfterAllowTraffic", "Pending"),
    ]  # fmt: skip
    # An alias really splits what is invoked: with 40 events at a half each has some.
    site.lambda_.update_alias(FunctionName="f", Name="canary", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    answers = {site.bench.invoke("f:canary").version for _ in range(40)}
    assert answers == {"1", "2"}
    seen: list[str] = []

    def heard() -> bool:
        for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", ()):
            seen.append(json.loads(json.loads(one["Body"])["Message"])["status"])
        return len(seen) == 2

    with here.days_later(6 / 1440):  # less than signatures may be off; whatever is told then is due then, too
        told = site.over(id)
        until(heard)
    assert (told["status"], told["creator"], told["description"]) == ("Succeeded", "user", "d")
    assert told["deploymentOverview"]["Succeeded"] == 1
    assert site.alias("canary") == ("2", {})
    assert {one["status"] for one in site.target(id)["lifecycleEvents"]} == {"Succeeded"}
    info = site.client.get_deployment_group(applicationName="app", deploymentGroupName="canary")["deploymentGroupInfo"]
    assert info["lastSuccessfulDeployment"]["deploymentId"] == id
    used = site.client.list_application_revisions(applicationName="app", deployed="include")["revisions"]
    assert told["revision"] in used
    assert sorted(seen) == ["CREATED", "SUCCEEDED"]

    def states() -> list[str]:
        mine = [one["detail"] for one in here.told if one.get("source") == "aws.codedeploy"]
        return [one["state"] for one in mine if one["deploymentId"] == id]

    until(lambda: states() == ["START", "SUCCESS"], told=states)
    # Every call was the group's role's own.
    trail = account.client("cloudtrail")
    looked = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "UpdateAlias20150331"}]}
    found = until(lambda: [json.loads(one["CloudTrailEvent"]) for one in trail.lookup_events(**looked)["Events"]])
    by = {one["userIdentity"]["arn"].rpartition("/")[0] for one in found}
    assert f"arn:aws:sts::{account.id}:assumed-role/Deploys" in by


@pytest.mark.control("DEP-07")
def test_an_alarm_or_a_check_takes_it_back(here: Moved, site: Site) -> None:
    watch = site.account.client("cloudwatch")
    for name in ("errors", "quiet"):
        watch.put_metric_alarm(
            AlarmName=name, Namespace="Shop", MetricName=name, Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
        )  # fmt: skip
    back = {"enabled": True, "events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"]}
    alarms = {"enabled": True, "alarms": [{"name": "errors"}, {"name": "quiet"}]}
    site.group("watched", alarmConfiguration=alarms, autoRollbackConfiguration=back)
    id = site.deploy("watched")
    site.shifted(id, "watched", 0.1)
    watch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a test")
    told = site.over(id)
    assert (told["status"], told["errorInformation"]["code"]) == ("Stopped", "ALARM_ACTIVE")
    assert "Activated alarms: errors" in told["errorInformation"]["message"]
    taken = site.over(told["rollbackInfo"]["rollbackDeploymentId"])
    assert (taken["status"], taken["creator"]) == ("Succeeded", "codeDeployRollback")
    assert taken["rollbackInfo"]["rollbackTriggeringDeploymentId"] == id
    assert site.alias("watched") == ("1", {})
    # One that begins while an alarm is active gives the new version nothing.
    before = site.lambda_.get_alias(FunctionName="f", Name="watched")["RevisionId"]
    assert site.over(site.deploy("watched", autoRollbackConfiguration={"enabled": False}))["status"] == "Stopped"
    assert site.lambda_.get_alias(FunctionName="f", Name="watched")["RevisionId"] == before
    watch.set_alarm_state(AlarmName="errors", StateValue="OK", StateReason="a test")
    told = site.over(site.deploy("watched", [{"BeforeAllowTraffic": "CodeDeployHook_bad"}]))
    assert (told["status"], told["errorInformation"]["code"]) == ("Failed", "HOOK_EXECUTION_FAILURE")
    assert site.over(told["rollbackInfo"]["rollbackDeploymentId"])["status"] == "Succeeded"
    assert site.alias("watched") == ("1", {})
    # A function whose name the role's policy does not have is not invoked.
    told = site.over(site.deploy("watched", [{"BeforeAllowTraffic": "f"}]))
    assert "not authorized to perform: lambda:InvokeFunction" in told["errorInformation"]["message"]
    assert site.client.list_deployments(
        applicationName="app", deploymentGroupName="watched", includeOnlyStatuses=["Failed"]
    )["deployments"][0] == told["deploymentId"]  # fmt: skip


def test_somebody_stops_one_and_steps_are_as_large_as_was_said(here: Moved, site: Site) -> None:
    routing = {"type": "TimeBasedLinear", "timeBasedLinear": {"linearPercentage": 40, "linearInterval": 10}}
    site.client.create_deployment_config(
        deploymentConfigName="slowly", computePlatform="Lambda", trafficRoutingConfig=routing
    )
    site.group("linear", "slowly")
    with pytest.raises(site.client.exceptions.DeploymentConfigInUseException):
        site.client.delete_deployment_config(deploymentConfigName="slowly")
    id = site.deploy("linear")
    site.shifted(id, "linear", 0.4)

    def share() -> int:
        found = here.look(lambda view: DEPLOYMENT.get(view, site.account.id, "us-east-1", id))
        return int(found.doc["_share"])  # type: ignore[union-attr]

    with here.days_later(11 / 1440):
        until(lambda: share() == 80)
    assert site.alias("linear") == ("1", {"2": 0.8})
    site.client.stop_deployment(deploymentId=id, autoRollbackEnabled=True)
    told = site.over(id)
    assert (told["status"], told["errorInformation"]["code"]) == ("Stopped", "MANUAL_STOP")
    assert site.over(told["rollbackInfo"]["rollbackDeploymentId"])["status"] == "Succeeded"
    assert site.alias("linear") == ("1", {})
    with pytest.raises(site.client.exceptions.DeploymentAlreadyCompletedException):
        site.client.stop_deployment(deploymentId=id)
    # A check that never answers ends after an hour; without a rollback everything stays.
    site.bench.make("def handler(event, context): pass", "CodeDeployHook_silent")
    id = site.deploy("linear", [{"BeforeAllowTraffic": "CodeDeployHook_silent"}])
    until(lambda: site.target(id)["lifecycleEvents"][0]["status"] == "InProgress")
    with pytest.raises(site.client.exceptions.InvalidLifecycleEventHookExecutionIdException):
        site.client.put_lifecycle_event_hook_execution_status(
            deploymentId=id, lifecycleEventHookExecutionId=uuid.uuid4().hex, status="Succeeded"
        )
    with here.days_later(61 / 1440):
        until(lambda: _status(here, site, id))
    told = site.get(id)
    assert (told["status"], told["errorInformation"]["code"]) == ("Failed", "TIMEOUT")
    assert "rollbackInfo" not in told


def _served(site: Site, text: str, hook: str) -> str:
    """A function whose alias CodeDeploy leads, as the Serverless Application Model has it."""
    bad = {"PreTraffic": hook} if hook else {}
    preference = {"Type": "Canary10Percent5Minutes", "Hooks": bad, "Role": site.role}
    function = {
        "Type": "AWS::Serverless::Function",
        "Properties": {
            "Runtime": "python3.11", "Handler": "index.handler", "Role": site.bench.role, "AutoPublishAlias": "live",
            "InlineCode": f"def handler(event, context): return {text!r}", "DeploymentPreference": preference,
        },
    }  # fmt: skip
    output = {"Value": {"Ref": "F"}}
    return template({"F": function}, Transform="AWS::Serverless-2016-10-31", Outputs={"F": output})


@pytest.mark.control("DEP-07")
def test_a_stack_leads_its_alias_and_goes_back_when_that_fails(here: Moved, site: Site) -> None:
    stacks, more = Stacks(site.account), {"Capabilities": ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]}

    def asked(change: str, text: str, hook: str = "") -> None:
        getattr(stacks.client, f"{change}_stack")(StackName="served", TemplateBody=_served(site, text, hook), **more)

    asked("create", "one")
    assert stacks.settled("served")["StackStatus"] == "CREATE_COMPLETE", stacks.story("served")
    name = f"{stacks.outputs('served')['F']}:live"
    asked("update", "two", "CodeDeployHook_good")
    physical = stacks.physical("served")
    app = physical["ServerlessDeploymentApplication"]
    named = {"applicationName": app, "deploymentGroupName": physical["FDeploymentGroup"]}
    id = until(lambda: site.client.list_deployments(**named)["deployments"])[0]
    until(lambda: site.client.get_deployment(deploymentId=id)["deploymentInfo"]["status"] == "InProgress")
    told = site.get(id)
    assert (told["creator"], told["applicationName"]) == ("CloudFormation", app)
    until(lambda: site.target(id)["lambdaFunctionInfo"]["targetVersionWeight"] == 0.1)
    assert stacks.get("served")["StackStatus"] == "UPDATE_IN_PROGRESS"
    with here.days_later(6 / 1440):
        until(lambda: _status(here, site, id))
    assert stacks.settled("served")["StackStatus"] == "UPDATE_COMPLETE", stacks.story("served")
    assert site.bench.invoke(name).payload == "two"
    asked("update", "three", "CodeDeployHook_bad")
    assert stacks.settled("served")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", stacks.story("served")
    assert any("did not let BeforeAllowTraffic pass" in reason for _, _, reason in stacks.story("served"))
    assert site.bench.invoke(name).payload == "two"
    assert stacks.delete("served")["StackStatus"] == "DELETE_COMPLETE", stacks.story("served")
    assert app not in site.client.list_applications()["applications"]


@pytest.mark.control("IAM-04")
def test_what_is_refused(account: Account) -> None:
    client, here = account.client("codedeploy"), {"applicationName": "app"}
    for platform in ({}, {"computePlatform": "ECS"}, {"computePlatform": "Server"}):
        with pytest.raises(ClientError, match="no servers and no ECS services"):
            client.create_application(applicationName="other", **platform)
    client.create_application(**here, computePlatform="Lambda")
    nobody = account.role("Nobody", trust=LAMBDA)
    role = account.role("Deploys", trust=DEPLOYS)
    group = {**here, "deploymentGroupName": "g"}
    with pytest.raises(client.exceptions.InvalidRoleException, match=r"codedeploy\.amazonaws\.com"):
        client.create_deployment_group(**group, serviceRoleArn=nobody)
    for more in (
        {"ec2TagFilters": [{"Key": "a", "Value": "b", "Type": "KEY_AND_VALUE"}]}, {"autoScalingGroups": ["a"]},
        {"ecsServices": [{"serviceName": "s", "clusterName": "c"}]},
    ):  # fmt: skip
        with pytest.raises(ClientError, match=f"{next(iter(more))} is not for the compute platform Lambda"):
            client.create_deployment_group(**group, serviceRoleArn=role, **more)
    client.create_deployment_group(**group, serviceRoleArn=role)
    # Who may do everything with deployments, and pass no role, makes no group.
    account.role("Nearly", allow("codedeploy:*"))
    nearly: Keys = account.as_role("Nearly")
    with pytest.raises(ClientError, match="iam:PassRole"):
        account.client("codedeploy", nearly).create_deployment_group(
            **here, deploymentGroupName="mine", serviceRoleArn=role
        )
    # A policy of one group is none of another.
    arn = f"arn:aws:codedeploy:us-east-1:{account.id}:deploymentgroup:app/other"
    account.role("Other", allow("codedeploy:*", resource=arn))
    with pytest.raises(ClientError, match="deploymentgroup:app/g"):
        account.client("codedeploy", account.as_role("Other")).get_deployment_group(**group)
    resource = {"Name": "f", "Alias": "live", "CurrentVersion": "1", "TargetVersion": "2"}
    for content, why in (
        ("{" * 100_000, "nested deeper"),
        ("a: &a [x]\nb: *a", "aliases"),
        ("version: 0.0\nResources: []", "exactly one"),
        (json.dumps({"version": 0.0, "Resources": [{"f": {"Type": "AWS::ECS::Service"}}]}), "AWS::Lambda::Function"),
        (
            json.dumps(
                {
                    "version": 0.0,
                    "Resources": [{"f": {"Type": "AWS::Lambda::Function", "Properties": {**resource, "Alias": "a b"}}}],
                }
            ),
            "Alias",
        ),
    ):
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
        with pytest.raises(client.exceptions.InvalidRevisionException, match=why):
            client.create_deployment(**group, revision=revision)
    with pytest.raises(client.exceptions.InvalidRevisionException, match="GitHub"):
        client.create_deployment(
            **group,
            revision={"revisionType": "GitHub", "gitHubLocation": {"repository": "a/b", "commitId": "0" * 40}},
        )
