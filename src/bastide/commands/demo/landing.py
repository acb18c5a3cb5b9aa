"""The second act: the bank comes under one file, and a commit finds its way to production by itself.

Nothing here reaches into the platform: the landing zone is applied as `bastide landing apply` does, people sign in and act
in the roles that their groups give them, and between the push and the endpoint only pipelines, stacks and a state machine
act.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from bastide.commands import why
from bastide.commands.demo.asking import ask
from bastide.commands.demo.data import PROTECTED, TARGET, Applications, applications
from bastide.commands.demo.people import People
from bastide.commands.demo.picture import Picture, Step
from bastide.commands.demo.push import push
from bastide.commands.demo.story import SAME, Story
from bastide.commands.demo.telling import StoryError
from bastide.commands.demo.zone import GROUP, Delivery, changed, cloud
from bastide.commands.live import Reader
from bastide.landing import applying
from bastide.landing.blueprint import default, read
from bastide.landing.delivery import example

_FILES = resources.files("bastide.commands.demo") / "delivery"
_SCRIPTS = resources.files("bastide.commands.demo") / "scripts"
_TEAM = "mortgage"
ENDPOINT = f"bank-{_TEAM}"
_TRAINING, _DEPLOYMENT = f"bank-{_TEAM}-training", f"bank-{_TEAM}-deployment"
_HELD_OUT = 5  # every fifth row; as split.py has it with --by-position
_PEOPLE = {
    "ada": f"{_TEAM}-data-scientists",
    "dana": "data-engineers",
    "otto": "mlops-engineers",
    "rita": "model-risk-managers",
    "paul": "model-approvers",
    "iris": "auditors",
}


def tell(story: Story, folder: Path) -> None:
    """Tells it on the platform of the first act; raises StoryError, botocore's errors, or what applying raises.

    folder: where the landing zone's file is written.
    """
    telling = story.telling
    telling.act("The second act: from a commit to production")
    telling.chapter("One file says what the bank is, and makes it so")
    delivery = _stand(story, folder)
    telling.chapter("The data engineer publishes, MLOps pushes a commit")
    _publish(delivery)
    telling.chapter("Where the commit is")
    _train(delivery)
    telling.chapter("The evidence is read, the wrong hands are refused, the right ones approve")
    _approve(delivery)
    telling.chapter("The release")
    _release(delivery)
    telling.chapter("Production answers")
    _answer(delivery)
    _recorded(delivery)


# -- the landing zone --------------------------------------------------------------------------------------------------


def _stand(story: Story, folder: Path) -> Delivery:
    bank, telling = story.bank, story.telling
    telling.say("landing.yaml names accounts, units, networks, teams and their people; the rest follows from it")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "landing.yaml"
    file.write_text(changed(default()))
    (folder / "loan-desk.yaml").write_text((_FILES / "loan-desk.yaml").read_text())
    blueprint = read(file)
    stands: set[tuple[str, str]] = set()
    with telling.waiting(
        "landing.yaml is applied: accounts, guardrails, networks, keys, roles, people, pipelines"
    ) as show:

        def progress(what: str, account: str, status: str) -> None:
            if status.endswith("_COMPLETE"):
                stands.add((what, account))
            show(f"{len(stands)} stacks stand, {what} in {account}")

        report = applying.apply(blueprint, cloud(bank, blueprint), progress)
    telling.done(
        f"{len(report.stacks)} CloudFormation stacks in {len(report.accounts) + 1} accounts; the {len(report.enrolled)} "
        "accounts that the first act founded by hand are enrolled"
    )
    people = People(bank.desk.platform, report.accounts)
    with telling.waiting(
        f"{', '.join(_PEOPLE)} sign in at the company's identity provider, each once, with a device code"
    ):
        people.join(_PEOPLE)
    steps = [
        Step("Source", "shared-services", "the commit is read"),
        Step("Build", "shared-services", "what was committed is checked"),
        Step("Stack", "test", "the training's stack is launched, by Role B"),
        Step("Train", "test", "data prepared, trained, evaluated, registered"),
        Step("Model", "shared-services", "the version is approved"),
        Step("Release", "shared-services", "the release is approved"),
        Step("Deploy", "production", "the endpoint's stack is launched, by Role C"),
        Step("Endpoint", "production", "answers"),
    ]
    return Delivery(story, blueprint, people, Picture(telling, steps), before=frozenset(story.attempts))


# -- what is committed -------------------------------------------------------------------------------------------------


def _publish(delivery: Delivery) -> None:
    story, telling = delivery.story, delivery.story.telling
    scripts = {"split.py": (_SCRIPTS / "split.py").read_bytes(), "sourcedir.tar.gz": _sourcedir()}
    code = hashlib.sha256(b"".join(scripts.values())).hexdigest()[:16]
    lake = delivery.be("s3", "dana", "DataEngineer", "data-management")
    bucket = f"bank-published-{delivery.ids['data-management']}"
    lake.put_object(Bucket=bucket, Key=f"{_TEAM}/data/applications.csv", Body=applications())
    for name, content in scripts.items():
        lake.put_object(Bucket=bucket, Key=f"{_TEAM}/code/{code}/{name}", Body=content)
    telling.done(f"the applications, and the scripts {code}, are published to the team by data-management")
    scientist = delivery.people.be("ada", f"DataScientist-{_TEAM}", "data-science")
    story.refuse(
        "the data scientist reads them without a job",
        lambda: story.client("s3", scientist).get_object(Bucket=bucket, Key=f"{_TEAM}/data/applications.csv"),
        "s3:GetObject",
    )
    team = next(one for one in delivery.blueprint.teams if one.name == _TEAM)
    files = example(delivery.blueprint, team)
    words = {"<CODE>": code, "<DATA_MANAGEMENT>": delivery.ids["data-management"]}
    files["train.yaml"] = _filled((_FILES / "train.yaml").read_text(), words)
    files["buildspec.yaml"] = (_FILES / "buildspec.yaml").read_text()
    otto = delivery.people.be("otto", "MLOps", "shared-services")
    delivery.commit = push(story.bank.desk.platform, otto, f"bank-{_TEAM}", "otto", files)
    telling.done(f"`git push` of {', '.join(files)}: commit {delivery.commit[:12]} is on main of bank-{_TEAM}")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _sourcedir() -> bytes:
    """The scripts of the training job, packed the same way each time, so that their digest is theirs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("learn.py", "train.py", "inference.py", "evaluate.py"):
            content = (_SCRIPTS / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


# -- on its way --------------------------------------------------------------------------------------------------------

_STATES = {"InProgress": "runs", "Succeeded": "done"}


def _train(delivery: Delivery) -> None:
    """Follows the training pipeline with MLOps's rights, and the jobs in Test with the data scientist's."""
    picture, story = delivery.picture, delivery.story
    pipelines = delivery.be("codepipeline", "otto", "MLOps")
    ada = delivery.be("sagemaker", "ada", f"TestReader-{_TEAM}", "test")

    def run() -> str | None:
        found = pipelines.list_pipeline_executions(pipelineName=_TRAINING)["pipelineExecutionSummaries"]
        mine = (one for one in found if any(r.get("revisionId") == delivery.commit for r in one["sourceRevisions"]))
        return next((str(one["pipelineExecutionId"]) for one in mine), None)

    def ended() -> str | None:
        # Before its actions are: so the last look finds them all ended.
        found = pipelines.get_pipeline_execution(pipelineName=_TRAINING, pipelineExecutionId=execution)
        for one in _actions(pipelines, _TRAINING, execution):
            _moved(picture, one["actionName"], one)
        jobs = ada.list_training_jobs()["TrainingJobSummaries"]
        if jobs and picture.steps["Train"].state == "runs":
            picture.move("Train", "runs", f"training job {jobs[0]['TrainingJobStatus']}, in a sealed sandbox")
        status = str(found["pipelineExecution"]["status"])
        return status if status != "InProgress" else None

    with picture.moving():
        execution = delivery.until("the push starts the training pipeline", run)
        status = delivery.until("the training pipeline", ended)
        if status == "Succeeded":
            picture.move("Model", "asks", "version 1 waits for its approval")
    story.check(
        status == "Succeeded", f"the training pipeline is {status}: {_failure(pipelines, _TRAINING, execution)}"
    )
    story.telling.done("nobody but the pipeline touched it; it acts in Test as roles that only it may take on")


def _actions(pipelines: Any, name: str, execution: str) -> list[dict[str, Any]]:
    found = pipelines.list_action_executions(pipelineName=name, filter={"pipelineExecutionId": execution})
    return list(reversed(found["actionExecutionDetails"]))  # the latest comes first


def _moved(picture: Picture, name: str, action: Mapping[str, Any]) -> None:
    """Raises StoryError for an action that failed."""
    state = _STATES.get(action["status"])
    if state is None:
        raise StoryError(f"{action['stageName']}/{action['actionName']} is {action['status']}: {_why(action)}")
    took = (action["lastUpdateTime"] - action["startTime"]).total_seconds()
    done = {"Train": "data prepared, trained, evaluated, registered"}.get(name, "") if state == "done" else ""
    picture.move(name, state, done, took)


def _why(action: Mapping[str, Any]) -> str:
    told = action.get("output", {}).get("executionResult", {})
    return str(told.get("externalExecutionSummary") or told.get("errorDetails") or "it does not say why")


def _failure(pipelines: Any, name: str, execution: str) -> str:
    return "; ".join(_why(one) for one in _actions(pipelines, name, execution) if one["status"] == "Failed")


def _approve(delivery: Delivery) -> None:
    story, telling = delivery.story, delivery.story.telling
    rita = delivery.be("sagemaker", "rita", "ModelRiskManager")
    [version] = rita.list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    delivery.package = version["ModelPackageArn"]
    told = rita.describe_model_package(ModelPackageName=delivery.package)
    evidence = told["CustomerMetadataProperties"]
    delivery.training = evidence["training-job"]
    story.check(
        told["ModelPackageDescription"] == f"commit {delivery.commit}",
        f"the version does not name its commit: {told.get('ModelPackageDescription')}",
    )
    _read_log(delivery)
    telling.done(
        f"the data scientist reads the training's log in test: {len(delivery.features)} features, the protected attribute "
        f"`{PROTECTED}` is none of them"
    )
    telling.done(
        f"{delivery.package.rpartition(':')[2]} is registered by the pipeline, from commit {delivery.commit[:12]}: AUC "
        f"{float(evidence['auc']):.3f}, the groups' denial rates differ by {float(evidence['denial-rate-difference']):+.1%}"
    )
    approval = {"ModelPackageArn": delivery.package, "ModelApprovalStatus": "Approved"}
    mlops = delivery.be("sagemaker", "otto", "MLOps")
    story.refuse(
        "MLOps, who pushed it, approves the model",
        lambda: mlops.update_model_package(**approval),
        "sagemaker:UpdateModelPackage",
    )
    story.refuse(
        "the model risk manager approves it alone",
        lambda: rita.update_model_package(**approval),
        "sagemaker:UpdateModelPackage",
    )
    approver = delivery.be("sagemaker", "paul", "ModelApprover")
    approver.update_model_package(**approval, ApprovalDescription="Evidence read; the difference is to be watched")
    telling.done("the approver approves version 1")
    delivery.picture.move("Model", "done", "version 1 is Approved")


def _read_log(delivery: Delivery) -> None:
    """The data scientist reads the training's log in Test: what the model answered to the held-out applications."""
    logs = delivery.be("logs", "ada", f"TestReader-{_TEAM}", "test")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{delivery.training}/")["logStreams"]
    stream = streams[0]["logStreamName"]

    def lines() -> list[str] | None:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
            if not page["events"]:
                return found if any(one.startswith("denial_rate_difference=") for one in found) else None
            found += [one["message"] for one in page["events"]]
            token = {"nextToken": page["nextForwardToken"]}

    for line in delivery.until("the training's log has its last line", lines):
        name, _, value = line.rstrip(";").partition("=")
        if name == "answers":
            delivery.answers += [float(one) for one in value.split(",")]
        elif name == "features":
            delivery.features = value.split(",")
    delivery.story.check(
        PROTECTED not in delivery.features and TARGET not in delivery.features and len(delivery.features) > 0,
        f"these are not the features that the model may have: {delivery.features}",
    )


def _release(delivery: Delivery) -> None:
    story, telling, picture = delivery.story, delivery.story.telling, delivery.picture
    mlops = delivery.be("codepipeline", "otto", "MLOps")
    approver = delivery.be("codepipeline", "paul", "ModelApprover")
    asked = {"name": _DEPLOYMENT, "variables": [{"name": "ModelPackage", "value": delivery.package}]}
    story.refuse(
        "the approver starts a release",
        lambda: approver.start_pipeline_execution(**asked),
        "codepipeline:StartPipelineExecution",
    )
    execution = mlops.start_pipeline_execution(**asked)["pipelineExecutionId"]
    telling.done("MLOps starts the release of version 1, and it stops for an approval")

    def waiting() -> str | None:
        stage = mlops.get_pipeline_state(name=_DEPLOYMENT)["stageStates"][1]
        if stage.get("latestExecution", {}).get("pipelineExecutionId") != execution:
            return None
        token: str | None = stage["actionStates"][0].get("latestExecution", {}).get("token")
        return token

    answer = {
        "pipelineName": _DEPLOYMENT,
        "stageName": "Approve",
        "actionName": "Release",
        "token": delivery.until("the release asks for its approval", waiting),
        "result": {"summary": "ticket 42", "status": "Approved"},
    }
    request = story.refuse(
        "MLOps approves its own release", lambda: mlops.put_approval_result(**answer), "codepipeline:PutApprovalResult"
    )
    _explain(delivery, request)
    shared = story.bank.client("s3", "shared-services")
    bucket = f"bank-artifacts-{delivery.ids['shared-services']}"
    key = shared.list_objects_v2(Bucket=bucket, MaxKeys=1)["Contents"][0]["Key"]
    story.refuse(
        "the administrator of shared-services opens what the pipelines hand on",
        lambda: shared.get_object(Bucket=bucket, Key=key),
        "s3:GetObject",
    )
    picture.move("Release", "asks", "ticket 42 waits for its approval")
    approver.put_approval_result(**answer)

    def ended() -> str | None:
        # Before its actions are: so the last look finds them all ended.
        found = mlops.get_pipeline_execution(pipelineName=_DEPLOYMENT, pipelineExecutionId=execution)
        for one in _actions(mlops, _DEPLOYMENT, execution):
            if one["actionName"] == "Stack":
                _moved(picture, "Deploy", one)
        status = str(found["pipelineExecution"]["status"])
        return status if status != "InProgress" else None

    with picture.moving():
        picture.move("Release", "done", "ticket 42 is approved, by the approver")
        status = delivery.until("the deployment pipeline", ended)
        if status == "Succeeded":
            picture.move("Endpoint", "runs", "the loan desk asks it, by its API")
            _ask(delivery)
    story.check(status == "Succeeded", f"the release is {status}: {_failure(mlops, _DEPLOYMENT, execution)}")


def _explain(delivery: Delivery, request: str) -> None:
    """What `bastide why` says of a refusal in shared-services to whoever may read all policies."""
    telling, platform = delivery.story.telling, delivery.story.bank.desk.platform
    inside = platform.inside(delivery.ids["shared-services"])
    found = delivery.until("the refusal is recorded", lambda: why.find(platform, inside, request))
    telling.say(f"`bastide why {request}`, asked by the bank's administrators:")
    for question in why.explained(found, Reader(platform, platform.inside))["questions"]:
        for change in question.get("nearest", ()):
            telling.aside(f"what would have allowed it: {change['change']}")
            if change["who"]:
                telling.aside(f"who can: {change['who']}")


# -- the endpoint ------------------------------------------------------------------------------------------------------


def _held_out(features: list[str]) -> Applications:
    """Every fifth application of the file, as the preparation in Test writes it."""
    rows = list(csv.DictReader(io.StringIO(applications().decode())))[_HELD_OUT - 1 :: _HELD_OUT]
    answers = {"yes": "1", "no": "0"}
    return Applications(
        [",".join(answers.get(row[one], row[one]) for one in features) for row in rows],
        [row[TARGET] == "yes" for row in rows],
    )


def _ask(delivery: Delivery) -> None:
    bank = delivery.story.bank
    delivery.asked = _held_out(delivery.features)
    stack = bank.client("cloudformation", "production").describe_stacks(StackName=f"bank-serve-{_TEAM}")["Stacks"][0]
    [api] = [one["OutputValue"] for one in stack["Outputs"] if one["OutputKey"] == "Api"]
    desk = bank.be("loan-desk", "LoanOrigination")
    began = time.monotonic()
    delivery.told = ask(bank.desk.platform, desk, api, delivery.asked.lines)["probability"]
    delivery.picture.move("Endpoint", "done", f"answered the loan desk in {time.monotonic() - began:.2f} s")


def _answer(delivery: Delivery) -> None:
    story, telling, bank = delivery.story, delivery.story.telling, delivery.story.bank
    asked, found = delivery.asked, delivery.told
    story.check(len(found) == len(delivery.answers) == len(asked.lines), "answers are missing")
    furthest = max(abs(one - other) for one, other in zip(found, delivery.answers, strict=True))
    story.check(furthest <= SAME, f"the endpoint's answers are not the evaluation's: they differ by {furthest:g}")
    telling.done(
        f"{len(found)} applications of the loan desk answered by the API; all equal to what the evaluation in Test "
        f"predicted (largest difference {furthest:.1e})"
    )
    production = bank.client("sagemaker", "production")
    mlops = delivery.people.be("otto", "MLOps", "shared-services")
    story.refuse(
        "MLOps asks the endpoint that it released",
        lambda: story.client("sagemaker-runtime", mlops).invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="text/csv", Body=asked.lines[0].encode()
        ),
    )
    story.refuse(
        "the administrator of production takes the endpoint away by hand",
        lambda: production.delete_endpoint(EndpointName=ENDPOINT),
        "service control policy",
    )


_MADE = (
    ("test", "CreateStateMachine", "StackRole"),
    ("test", "CreateTrainingJob", "StateMachineRole"),
    ("shared-services", "CreateModelPackage", "StateMachineRole"),
    ("production", "CreateEndpoint", "StackRole"),
)
_REFUSED = (
    ("shared-services", "UpdateModelPackage"),
    ("shared-services", "StartPipelineExecution"),
    ("shared-services", "PutApprovalResult"),
    ("production", "DeleteEndpoint"),
)


def _recorded(delivery: Delivery) -> None:
    """The auditor asks each account's record who made what on the way, and who was refused."""
    story, rows = delivery.story, []
    mine = set(story.attempts) - delivery.before

    def events(account: str, name: str) -> list[dict[str, Any]]:
        trail = delivery.be("cloudtrail", "iris", "Auditor", account)
        asked = [{"AttributeKey": "EventName", "AttributeValue": name}]
        found = trail.lookup_events(LookupAttributes=asked)["Events"]
        return [json.loads(one["CloudTrailEvent"]) for one in found]

    for account, name, role in _MADE:

        def made(account: str = account, name: str = name, role: str = role) -> dict[str, Any] | None:
            return next((o for o in events(account, name) if not o.get("errorCode") and _issuer(o) == role), None)

        found = delivery.until(f"the record of {account} has {name} by {role}", made)
        rows.append([account, name, f"{found['userIdentity']['arn'].rpartition('/')[2]} as {role}", "made"])
    for account, name in _REFUSED:

        def refused(account: str = account, name: str = name) -> list[dict[str, Any]] | None:
            return [one for one in events(account, name) if one["requestID"] in mine] or None

        for one in reversed(delivery.until(f"the record of {account} has the refused {name}", refused)):
            who = f"{one['userIdentity']['arn'].rpartition('/')[2]} as {_issuer(one)}"
            rows.append([account, name, who, f"refused: {story.attempts[one['requestID']]}"])
    story.telling.table("As the auditor reads it in each account's record", ["account", "what", "who", "how"], rows)


def _issuer(record: Mapping[str, Any]) -> str:
    name = str(record["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("userName", ""))
    if name.startswith("AWSReservedSSO_"):  # followed by the permission set and a suffix
        return name.removeprefix("AWSReservedSSO_").rpartition("_")[0]
    return name
