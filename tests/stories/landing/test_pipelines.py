"""Pipelines of the catalogue: engineers launch them, and what starts, registers and releases is what the templates say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bastide.landing.pipelines import PIPELINES, TICKETS
from tests.listening import Heard, listening
from tests.platform import Account, allow
from tests.stories.apigateway.gateway import Api
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.landing.serving import PARTS, asking, deployable
from tests.stories.landing.zone import DENIED, Zone, landing, refused
from tests.stories.sagemaker.conftest import archive as packed
from tests.stories.sagemaker.test_metrics import sums
from tests.stories.sagemaker.test_own_images import ANSWER, SERVE

AUTHOR = {"authorName": "Ada", "email": "ada@bank.example"}
OWN = {"Owner": "ada", "Project": "mortgage"}


def _until(look: Callable[[], Any], seconds: float = 240) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.1)
    return found


class Desk:
    """Somebody of Shared Services, by default an MLOps engineer, at the catalogue; and a repository to begin with."""

    def __init__(self, zone: Zone, who: str = "MLOps") -> None:
        self.keys = zone.person("shared-services", who)
        self.catalog = zone.platform.client("servicecatalog", self.keys)
        self.pipelines = zone.platform.client("codepipeline", self.keys)
        self.shared: Account = zone.account("shared-services")
        found = self.catalog.search_products()["ProductViewSummaries"]
        self.products = {one["Name"]: one["ProductId"] for one in found}

    def launch(self, product: str, **parameters: str) -> dict[str, Any]:
        """The record of a launch, settled."""
        id_ = self.products[product]
        version = self.catalog.describe_product(Id=id_)["ProvisioningArtifacts"][0]["Id"]
        given = [{"Key": key, "Value": value} for key, value in {**OWN, **parameters}.items()]
        return self.settled(
            self.catalog.provision_product(
                ProductId=id_,
                ProvisioningArtifactId=version,
                ProvisioningParameters=given,
                ProvisionedProductName=f"{product}-{parameters['Name']}",
            )
        )

    def settled(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record that nothing happens to any more."""
        id_ = record["RecordDetail"]["RecordId"]

        def look() -> Any:
            told = self.catalog.describe_record(Id=id_)
            return told if told["RecordDetail"]["Status"] in ("SUCCEEDED", "FAILED") else None

        found: dict[str, Any] = _until(look)
        return found

    def stands(self, product: str, **parameters: str) -> dict[str, str]:
        """The outputs of a launch that must go well."""
        told = self.launch(product, **parameters)
        assert told["RecordDetail"]["Status"] == "SUCCEEDED", told["RecordDetail"]["RecordErrors"]
        return {one["OutputKey"]: one["OutputValue"] for one in told["RecordOutputs"]}

    def commit(self, files: dict[str, str], **more: Any) -> str:
        """A commit on main of the repository; its id."""
        code = self.shared.client("codecommit")
        branches = code.list_branches(repositoryName="bank-paths")["branches"]
        if branches:
            head = code.get_branch(repositoryName="bank-paths", branchName="main")["branch"]["commitId"]
            more["parentCommitId"] = head
        put = [{"filePath": name, "fileContent": text.encode()} for name, text in files.items()]
        asked = {"repositoryName": "bank-paths", "branchName": "main", "putFiles": put, **AUTHOR, **more}
        id_: str = code.create_commit(commitMessage="x", **asked)["commitId"]
        return id_

    def run_of(self, pipeline: str, commit: str) -> Any:
        """The execution of a commit, once it ended."""
        found = self.pipelines.list_pipeline_executions(pipelineName=pipeline)["pipelineExecutionSummaries"]
        mine = [one for one in found if any(r.get("revisionId") == commit for r in one["sourceRevisions"])]
        return next((one for one in mine if one["status"] != "InProgress"), None)

    def why(self, pipeline: str, execution: str) -> list[Any]:
        """What its actions said."""
        told = self.pipelines.list_action_executions(pipelineName=pipeline, filter={"pipelineExecutionId": execution})[
            "actionExecutionDetails"
        ]
        return [(one["actionName"], one.get("output", {}).get("executionResult", {})) for one in told]

    def lines(self, function: str) -> list[str]:
        """What a function logged."""
        logs = self.shared.client("logs")
        name = f"/aws/lambda/{function}"
        if not logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]:
            return []
        return [one["message"] for one in logs.filter_log_events(logGroupName=name)["events"]]


@pytest.fixture(scope="module")
def desk(zone: Zone) -> Desk:
    made = Desk(zone)
    code = made.shared.client("codecommit")
    with suppress(code.exceptions.RepositoryNameExistsException):  # tests of other modules may stand in between
        code.create_repository(repositoryName="bank-paths")
    return made


@pytest.mark.control("SSV-02", "SSV-03")
@pytest.mark.control("DEP-07")
@pytest.mark.control("DEP-03")
def test_engineers_launch_pipelines_that_they_may_not_make(zone: Zone, desk: Desk) -> None:
    assert set(desk.products) == set(PIPELINES)
    # Whoever has no part of the portfolio finds nothing: data scientists of another account; the auditor may not even look.
    scientist = zone.platform.client("servicecatalog", zone.person("data-science", "DataScientist-mortgage"))
    assert [one["Name"] for one in scientist.search_products()["ProductViewSummaries"]] == ["experiment-bucket"]
    product = desk.products["training-pipeline"]
    refused("ResourceNotFoundException", scientist.describe_product, Id=product)
    auditor = zone.platform.client("servicecatalog", zone.person("shared-services", "Auditor"))
    refused(DENIED, auditor.search_products)
    # An engineer makes no pipeline, stack or role by hand, and passes none.
    body = json.dumps({"Resources": {"T": {"Type": "AWS::SNS::Topic"}}})
    stacks = zone.platform.client("cloudformation", desk.keys)
    refused(DENIED, stacks.create_stack, StackName="mine", TemplateBody=body)
    mine = desk.pipelines.get_pipeline(name="bank-mortgage-training")["pipeline"]
    refused(DENIED, desk.pipelines.create_pipeline, pipeline={**mine, "name": "bank-mine"})
    refused(DENIED, desk.pipelines.update_pipeline, pipeline=mine)
    given = {"Name": "paths", "Repository": "bank-paths", "Trigger": "schedule", "Schedule": "cron(0 3 * * ? *)"}
    with pytest.raises(desk.catalog.exceptions.InvalidParametersException):
        desk.launch("training-pipeline", **{**given, "Trigger": "whenever"})
    failed = desk.launch("training-pipeline", **{**given, "Name": "never", "Schedule": "cron(a b c d e f)"})
    assert failed["RecordDetail"]["Status"] == "FAILED", failed
    assert "ScheduleExpression" in str(failed["RecordDetail"]["RecordErrors"])

    made = desk.stands("training-pipeline", **given)
    name = made["Pipeline"]
    told = desk.pipelines.get_pipeline(name=name)
    assert told["pipeline"]["roleArn"] == zone.pipeline_role("CodePipelineRoleA")
    tags = desk.pipelines.list_tags_for_resource(resourceArn=told["metadata"]["pipelineArn"])["tags"]
    wanted = {"owner": "ada", "project": "mortgage", "environment": "production"}
    assert wanted.items() <= {one["key"]: one["value"] for one in tags}.items()
    events = desk.shared.client("events")
    rule = events.describe_rule(Name=f"{name}-schedule")
    assert (rule["State"], rule["ScheduleExpression"]) == ("ENABLED", "cron(0 3 * * ? *)")
    [target] = events.list_targets_by_rule(Rule=f"{name}-schedule")["Targets"]
    assert target["Arn"] == told["metadata"]["pipelineArn"] and target["RoleArn"].endswith("/PipelineStarter")
    refused("ResourceNotFoundException", events.describe_rule, Name=f"{name}-change")
    refused(DENIED, zone.platform.client("events", desk.keys).disable_rule, Name=f"{name}-schedule")
    refused(DENIED, desk.pipelines.delete_pipeline, name=name)
    # With a project a pipeline from end to end builds first; what its owner takes away is gone.
    more = {"Name": "built", "Repository": "bank-paths", "Deployment": "bank-paths-deployment"}
    built = desk.stands("end-to-end-pipeline", **more, Build="bank-mortgage")["Pipeline"]
    stages = desk.pipelines.get_pipeline(name=built)["pipeline"]["stages"]
    assert [one["name"] for one in stages] == ["Source", "Build", "Train", "Release"]
    record = desk.catalog.terminate_provisioned_product(ProvisionedProductName="end-to-end-pipeline-built")
    assert desk.settled(record)["RecordDetail"]["Status"] == "SUCCEEDED"
    refused("PipelineNotFoundException", desk.pipelines.get_pipeline, name=built)


@pytest.mark.control("DEP-04", "TAG-07")
@pytest.mark.control("DEP-08", "DEP-09")
def test_a_change_of_the_folder_registers_a_model(zone: Zone, desk: Desk, tmp_path: Path) -> None:
    """The trigger `custom`: a function looks at the commit, starts the pipeline or does not, and says why."""
    models, archive = zone.bucket("models", "shared-services"), f"{zone.ids['test']}/bought/model.tar.gz"
    training = zone.platform.client("s3", zone.service("test", zone.arn("test", "TrainingRole")))
    training.put_object(Bucket=models, Key=archive, Body=packed(weights__txt=b"bought"))
    registry_of = Registry(desk.shared, tmp_path)
    [repository] = registry_of.ecr.describe_repositories(repositoryNames=["mortgage/inference"])["repositories"]
    digest = registry_of.push(
        f"{repository['repositoryUri']}:7.1",
        [oci.system, oci.scripts(program=SERVE, answer=ANSWER)],
        {"Entrypoint": ["program"], "Env": ["PATH=/usr/local/bin:/bin"]},
    )
    given = {"Name": "paths", "Repository": "bank-paths", "Trigger": "custom", "Folder": "models/"}
    # The file that says what is registered lies beside the code; the pipeline begins when the folder changes.
    made = desk.stands("registration-pipeline", **given)
    name, chooser = made["Pipeline"], "bank-paths-registration-chooser"
    asked = {"archive": archive, "repository": "mortgage/inference", "tag": "7.1", "description": "bought"}
    docs = desk.commit({"README.md": "docs", "register.json": json.dumps(asked)})
    _until(lambda: any(docs in one and "is not started" in one for one in desk.lines(chooser)))
    model = desk.commit({"models/bought.md": "first"})
    ran = _until(lambda: desk.run_of(name, model))
    assert ran["status"] == "Succeeded", desk.why(name, ran["pipelineExecutionId"])
    _until(lambda: any(model in one and "models/bought.md changed" in one for one in desk.lines(chooser)))
    registry = desk.shared.client("sagemaker")
    found = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
    [version] = [one for one in found if one.get("ModelPackageDescription", "").startswith("bought")]
    told = registry.describe_model_package(ModelPackageName=version["ModelPackageArn"])
    [container] = told["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == f"s3://{models}/{archive}" and container["Image"].endswith(f"@{digest}")
    assert told["ModelApprovalStatus"] == "PendingManualApproval"
    deployable(zone, version["ModelPackageArn"], models, archive)
    functions, rule = desk.shared.client("lambda"), f"{name}-look"
    functions.put_function_event_invoke_config(FunctionName=chooser, MaximumRetryAttempts=0)
    # Without the permission the function is not asked, and the rule counts that; who may not start the pipeline says so.
    [let] = json.loads(functions.get_policy(FunctionName=chooser)["Policy"])["Statement"]
    functions.remove_permission(FunctionName=chooser, StatementId=let["Sid"])
    unheard = desk.commit({"models/bought.md": "second"})
    watch = desk.shared.client("cloudwatch")
    _until(lambda: sums(watch, "AWS/Events", "FailedInvocations", {"RuleName": rule}, "Sum"))
    source = let["Condition"]["ArnLike"]["AWS:SourceArn"]
    functions.add_permission(
        FunctionName=chooser,
        StatementId="again",
        Action=let["Action"],
        Principal="events.amazonaws.com",
        SourceArn=source,
    )
    iam, starter = desk.shared.client("iam"), {"RoleName": "PipelineChooser", "PolicyName": "no"}
    no = allow("codepipeline:StartPipelineExecution")
    no["Statement"][0]["Effect"] = "Deny"
    iam.put_role_policy(**starter, PolicyDocument=json.dumps(no))
    try:
        weak = desk.commit({"models/bought.md": "third"})
        _until(lambda: any("AccessDenied" in one for one in desk.lines(chooser)))
    finally:
        iam.delete_role_policy(**starter)
    assert not any(unheard in one for one in desk.lines(chooser))
    ran_for = desk.pipelines.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]
    assert not any(r.get("revisionId") in (unheard, weak) for one in ran_for for r in one["sourceRevisions"])
    # An archive that is not there, started by hand: the run fails, and nothing is registered.
    desk.commit({"register.json": json.dumps({**asked, "archive": "nowhere.tar.gz"})})
    scientist = zone.platform.client("codepipeline", zone.person("data-science", "DataScientist-mortgage"))
    refused((*DENIED, "PipelineNotFoundException"), scientist.start_pipeline_execution, name=name)
    once = {"name": name, "clientRequestToken": "0a1b2c3d"}
    began = desk.pipelines.start_pipeline_execution(**once)["pipelineExecutionId"]
    assert desk.pipelines.start_pipeline_execution(**once)["pipelineExecutionId"] == began
    refused("PipelineNotFoundException", desk.pipelines.start_pipeline_execution, name="bank-none")

    def ended() -> Any:
        told = desk.pipelines.get_pipeline_execution(pipelineName=name, pipelineExecutionId=began)["pipelineExecution"]
        return told if told["status"] != "InProgress" else None

    assert _until(ended)["status"] == "Failed"
    assert "S3" in str(desk.why(name, began))
    # Nor is an image that is not there registered, nor into a group that the role may not write to.
    desk.commit({"register.json": json.dumps({**asked, "tag": "none"})})
    began = desk.pipelines.start_pipeline_execution(name=name)["pipelineExecutionId"]
    assert _until(ended)["status"] == "Failed" and "Image" in str(desk.why(name, began))
    desk.commit({"register.json": json.dumps(asked)})
    no = allow("sagemaker:CreateModelPackage")
    no["Statement"][0]["Effect"] = "Deny"
    iam.put_role_policy(RoleName="RegistrationRole", PolicyName="no", PolicyDocument=json.dumps(no))
    try:
        began = desk.pipelines.start_pipeline_execution(name=name)["pipelineExecutionId"]
        assert _until(ended)["status"] == "Failed" and "sagemaker:CreateModelPackage" in str(desk.why(name, began))
    finally:
        iam.delete_role_policy(RoleName="RegistrationRole", PolicyName="no")
    after = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
    assert not [one for one in after if one["ModelPackageVersion"] > version["ModelPackageVersion"] and
                one.get("ModelPackageDescription", "").startswith("bought")]  # fmt: skip


@pytest.fixture
def tickets(zone: Zone) -> Iterator[Heard]:
    """A system of tickets: what it is told, it keeps."""
    with listening(zone.platform.data / "tls") as heard:
        yield heard


@pytest.mark.control(
    "DEP-01", lacking="an image that the same run builds; it takes two approvals, of version and release"
)
@pytest.mark.control("DEP-05")
@pytest.mark.control("DEP-06")
@pytest.mark.control("STG-10", "ACC-04", "XAC-06")
@pytest.mark.control("STG-11", lacking="a function as an action, which CodePipeline's own tests show")
@pytest.mark.control("STG-09", "PIP-01", "PIP-02", lacking="what the story of a commit shows beside it")
@pytest.mark.control("TAG-06", lacking="builds and jobs")
def test_a_commit_ends_in_production_after_a_ticket(zone: Zone, desk: Desk, tickets: Heard, tmp_path: Path) -> None:
    code, _, why = landing(zone.platform, "example", str(zone.file), "mortgage", str(tmp_path))
    assert code == 0, why
    rows = "".join(f"{number % 2},{number % 2}.{number},{number}\n" for number in range(60))
    prepare = zone.platform.client("s3", zone.service("test", zone.arn("test", "ProcessingRole")))
    prepare.put_object(Bucket=zone.bucket("data", "test"), Key="mortgage/train/a.csv", Body=rows.encode())
    desk.shared.role("Tickets", allow("execute-api:Invoke"))
    desk.shared.role("Other", allow("execute-api:Invoke", "codepipeline:PutApprovalResult"))
    system = f"arn:aws:iam::{desk.shared.id}:role/Tickets"
    # Whose answers count is said by those who approve; an engineer could otherwise approve what an engineer committed.
    approvers = Desk(zone, "ModelApprover")
    assert set(approvers.products) == {TICKETS}
    given = {"Name": "tickets", "Webhook": tickets.url, "System": system}
    shown = approvers.stands(TICKETS, **given)
    told = approvers.catalog.search_provisioned_products()["ProvisionedProducts"][0]
    for call in (desk.catalog.update_provisioned_product, desk.catalog.terminate_provisioned_product):
        refused(DENIED, call, ProvisionedProductId=told["Id"])
    stolen = {"ProductId": approvers.products[TICKETS], "ProvisioningArtifactId": told["ProvisioningArtifactId"]}
    refused("ResourceNotFoundException", desk.catalog.provision_product, **stolen, ProvisionedProductName="mine")
    api = Api(desk.shared, shown["Api"], "")
    desk.commit({"notes.md": "of the same release"}, authorName="Eve", email="eve@bank.example")
    # The subscription is confirmed by whoever serves the webhook, with the address that it was told.
    [asked] = _until(lambda: tickets.of("SubscriptionConfirmation"))
    desk.shared.client("sns").confirm_subscription(TopicArn=asked["TopicArn"], Token=asked["Token"])
    common = {"Name": "paths", "Repository": "bank-paths"}
    made = desk.stands("deployment-pipeline", **common, Trigger="demand")
    deployment = made["Pipeline"]
    made = desk.stands("end-to-end-pipeline", **common, Trigger="source", Deployment=deployment, Pause="1")
    name = made["Pipeline"]
    roles = [desk.pipelines.get_pipeline(name=one)["pipeline"]["roleArn"] for one in (name, deployment)]
    assert roles == [zone.pipeline_role("CodePipelineRoleA"), zone.pipeline_role("CodePipelineRoleA2")]

    commit = desk.commit({one.name: one.read_text() for one in tmp_path.iterdir()})
    registry = desk.shared.client("sagemaker")

    def registered() -> Any:
        if ran := desk.run_of(name, commit):
            raise AssertionError(desk.why(name, ran["pipelineExecutionId"]))
        found = registry.list_model_packages(ModelPackageGroupName="mortgage-denial")["ModelPackageSummaryList"]
        return next((one for one in found if one.get("ModelPackageDescription") == f"commit {commit}"), None)

    package = _until(registered)["ModelPackageArn"]
    approver = zone.person("shared-services", "ModelApprover")
    assert not desk.lines("bank-tickets-answer")
    approval = {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}
    refused(DENIED, zone.platform.client("sagemaker", desk.keys).update_model_package, **approval)
    zone.platform.client("sagemaker", approver).update_model_package(**approval)

    # The webhook is told, with the token; a change set stands in Production, and nothing of it is made yet.
    def asks() -> Any:
        told = [json.loads(one["Message"])["approval"] for one in tickets.of("Notification")]
        return next((one for one in told if one["pipelineName"] == deployment and commit in one["customData"]), None)

    ticket = _until(asks)
    production = zone.account("production")
    stacks, serving = production.client("cloudformation"), production.client("sagemaker")
    assert stacks.describe_stacks(StackName="bank-serve-paths")["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert not serving.list_endpoints(NameContains="bank-paths")["Endpoints"]
    # Who committed, and who has no part in it, approves nothing: refused by policy, by the API's and by the function.
    named = {key: ticket[key] for key in ("pipelineName", "stageName", "actionName", "token")}
    result = {"summary": "me", "status": "Approved"}
    refused(DENIED, desk.pipelines.put_approval_result, **named, result=result)
    answer = {**named, "ticket": "CHG42", "approver": "bob@bank.example", "status": "Approved"}

    def answered(keys: Any, **more: str) -> tuple[int, Any]:
        status, _, body = api.call("/answers", "POST", json.dumps({**answer, **more}).encode(), keys, stage="live")
        return status, body

    may = desk.shared.as_role("Tickets")
    assert answered(None)[0] == 403
    assert answered(desk.shared.as_role("Other"))[0] == 403
    assert answered(desk.shared.keys)[0] == 403
    functions = zone.platform.client("lambda", desk.keys)
    refused(DENIED, functions.invoke, FunctionName=shown["Function"], Payload=b"{}")
    for author in (AUTHOR["email"], "Eve@bank.example"):  # of its newest commit, and of one before it
        status, body = answered(may, approver=author)
        assert status == 403 and "committed" in body["message"]
    assert answered(may, token="00000000-0000-0000-0000-000000000000") == (
        409, {"message": "InvalidApprovalTokenException"},
    )  # fmt: skip
    assert answered(may) == (200, {"ticket": "CHG42", "status": "Approved"})

    ran = _until(lambda: desk.run_of(name, commit))
    assert ran["status"] == "Succeeded", (
        desk.why(name, ran["pipelineExecutionId"]), desk.pipelines.get_pipeline_state(name=deployment)["stageStates"],
    )  # fmt: skip
    assert answered(may)[0] in (404, 409), "a second answer finds nothing that waits"
    # In Production: an endpoint behind a function behind an API, which callers sign for.
    told = stacks.describe_stacks(StackName="bank-serve-paths")["Stacks"][0]
    assert told["StackStatus"] == "CREATE_COMPLETE" and told["RoleARN"] == zone.arn("production", "StackRole")
    [output] = told["Outputs"]
    front = Api(production, output["OutputValue"], "")
    asked = {"path": "/predictions", "method": "POST", "body": b"1.5,5", "stage": "live"}
    assert front.call(**asked)[0] == 403
    assert front.call(**asked, keys=desk.keys)[0] == 403
    status, _, body = front.call(**asked, keys=production.keys)
    assert status == 200 and 0 <= float(body) <= 1, body
    endpoint = serving.describe_endpoint(EndpointName="bank-paths")
    held = {one["Key"]: one["Value"] for one in serving.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]}
    assert {"owner": "mortgage", "environment": "production", "project": "mortgage"}.items() <= held.items()
    function = production.client("lambda").get_function(FunctionName="bank-paths")
    assert {"owner": "mortgage", "project": "mortgage"}.items() <= function["Tags"].items()
    refused(DENIED, functions.invoke, FunctionName=function["Configuration"]["FunctionArn"], Payload=b"{}")
    # Another release, which the ticket turns down: the run fails, and Production stays as it is.
    seen = {ticket["token"]}

    def release(version: str, status: str) -> tuple[str, str]:
        """How a release of a version ended that the ticket answered, and why."""
        asked = {"name": deployment, "variables": [{"name": "ModelPackage", "value": version}]}
        began = desk.pipelines.start_pipeline_execution(**asked)["pipelineExecutionId"]

        def token() -> Any:
            if told := ended():
                raise AssertionError((told, desk.why(deployment, began)))
            told = [json.loads(one["Message"])["approval"] for one in tickets.of("Notification")]
            mine = [one["token"] for one in told if one["pipelineName"] == deployment and one["token"] not in seen]
            return mine[0] if mine else None

        def ended() -> Any:
            run = {"pipelineName": deployment, "pipelineExecutionId": began}
            told = desk.pipelines.get_pipeline_execution(**run)["pipelineExecution"]["status"]
            return told if told != "InProgress" else None

        seen.add(found := _until(token))
        assert answered(may, token=found, status=status)[0] == 200
        return _until(ended), str(desk.why(deployment, began))

    how, because = release(package, "Rejected")
    assert how == "Failed" and "CHG42 by bob@bank.example" in because
    assert stacks.describe_stacks(StackName="bank-serve-paths")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    # A version that nobody approved is not deployed, whatever a ticket says; approved, it takes the first one's place.
    first = serving.describe_endpoint(EndpointName="bank-paths")["EndpointConfigName"]
    made_of = registry.describe_model_package(ModelPackageName=package)["InferenceSpecification"]
    for one in made_of["Containers"]:
        one.pop("ModelDataETag", None)
    second = registry.create_model_package(
        ModelPackageGroupName="mortgage-denial",
        InferenceSpecification=made_of,
        ModelApprovalStatus="PendingManualApproval",
    )["ModelPackageArn"]
    how, because = release(second, "Approved")
    assert how == "Failed" and "not Approved" in because
    assert serving.describe_endpoint(EndpointName="bank-paths")["EndpointConfigName"] == first
    assert front.call(**asked, keys=production.keys)[0] == 200
    zone.platform.client("sagemaker", approver).update_model_package(
        ModelPackageArn=second, ModelApprovalStatus="Approved"
    )
    # Who asks while one version takes the other's place is answered all the time.
    with asking(lambda: front.call(**asked, keys=production.keys)[0]) as answers:
        how, because = release(second, "Approved")
    assert how == "Succeeded", because
    assert answers and set(answers) == {200}, answers
    new = serving.describe_endpoint(EndpointName="bank-paths")["EndpointConfigName"]
    assert new != first and front.call(**asked, keys=production.keys)[0] == 200
    # One that does not come up is not kept: the stack goes back, and the endpoint answers from what it had.
    broken = f"{zone.ids['test']}/broken/model.tar.gz"
    training = zone.platform.client("s3", zone.service("test", zone.arn("test", "TrainingRole")))
    place = {"Bucket": zone.bucket("models", "shared-services"), "Key": broken}
    training.put_object(**place, Body=b"no model")
    workflow = zone.platform.client("s3", zone.service("test", zone.arn("test", "StateMachineRole")))
    workflow.put_object_tagging(**place, Tagging={"TagSet": PARTS})
    url = f"s3://{zone.bucket('models', 'shared-services')}/{broken}"
    made_of["Containers"] = [{"Image": one["Image"], "ModelDataUrl": url} for one in made_of["Containers"]]
    third = registry.create_model_package(
        ModelPackageGroupName="mortgage-denial", InferenceSpecification=made_of, ModelApprovalStatus="Approved"
    )["ModelPackageArn"]
    how, because = release(third, "Approved")
    assert how == "Failed" and "bank-serve-paths" in because, because
    _until(
        lambda: stacks.describe_stacks(StackName="bank-serve-paths")["Stacks"][0]["StackStatus"].endswith("COMPLETE")
    )
    told = stacks.describe_stacks(StackName="bank-serve-paths")["Stacks"][0]["StackStatus"]
    assert told == "UPDATE_ROLLBACK_COMPLETE"
    endpoint = serving.describe_endpoint(EndpointName="bank-paths")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", new)
    assert front.call(**asked, keys=production.keys)[0] == 200
