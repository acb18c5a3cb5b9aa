"""A base image that gets old: it is built anew by the clock, or told of. Tests move the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bastide.kernel import Caller
from bastide.landing.blueprint import default, parse
from bastide.landing.rendering import rendered
from tests.moved import Moved, moved, until
from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.ecr.test_scanning import debian

_GOOD = """ARG REGISTRY
FROM $REGISTRY/public/debian:12
USER 4711
"""
_BAD = "FROM scratch\n"
_MORE = '    slim: {from: "public/debian:12", line: v3}\n  framework:\n'


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    for one in moved(tmp_path_factory.mktemp("aged")):
        one.found()
        yield one


class Shop:
    """The base level of the hierarchy alone, in one account, from the landing zone's own templates."""

    def __init__(self, timed: Moved, folder: Path) -> None:
        self.timed, self.account = timed, timed.account("shared-services")
        self.id = self.account.id
        self.registry = Registry(self.account, folder)
        self.ecr = self.account.client("ecr")
        kms, iam = self.account.client("kms"), self.account.client("iam")
        self.account.client("s3").create_bucket(Bucket=f"bank-images-{self.id}")
        trust = {"Service": ["events.amazonaws.com", "scheduler.amazonaws.com"]}
        starts = allow("codepipeline:StartPipelineExecution")
        self.account.role("PipelineStarter", starts, trust=trust, Path="/bank/")
        organization = timed.client("organizations").describe_organization()["Organization"]["Id"]
        signing = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
        known = {
            "SharedServicesAccount": self.id, "OrganizationId": organization, "SigningKeyArn": signing,
            "ModelKeyArn": kms.create_key()["KeyMetadata"]["Arn"],
        }  # fmt: skip
        text = default().replace("  images: off ", "  images: on ").replace("  framework:\n", _MORE)
        templates = {one.name: one for one in rendered(parse(text))}
        stacks = Stacks(self.account)
        for name in ("imagery", "imagery-base"):
            one = templates[f"bank-landing-{name}"]
            given = [{"ParameterKey": key, "ParameterValue": known[key]} for key in one.parameters]
            told = stacks.create(name, one.body, Parameters=given)
            assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story(name)
        document = iam.get_role(RoleName="bank-BaseImageRole")["Role"]["AssumeRolePolicyDocument"]
        mine = {"Effect": "Allow", "Principal": {"AWS": self.id}, "Action": "sts:AssumeRole"}
        document["Statement"].append(mine)
        iam.update_assume_role_policy(RoleName="bank-BaseImageRole", PolicyDocument=json.dumps(document))
        arn = f"arn:aws:iam::{self.id}:role/service-role/bank-BaseImageRole"
        self.builder = timed.assume(arn, self.account.keys)

    def push(self, name: str, password: str, *layers: Any) -> str:
        """Pushes an image, with a password that was asked for before."""
        found = self.uris[name.rpartition(":")[0]]
        folder = self.registry.folder / name.replace("/", "-").replace(":", "-")
        digest = oci.layout(folder, layers, {"User": "4711"})
        words = [
            "copy",
            "DEST",
            "--dest-tls-verify=false",
            f"oci:{folder}",
            f"docker://{found}:{name.rpartition(':')[2]}",
        ]
        done = self.registry.skopeo(*words, password=password)
        assert done.returncode == 0, done.stderr
        return digest

    def ready(self) -> None:
        """Code and public image, while nothing starts but by the clock; and where repositories are."""
        found = self.ecr.describe_repositories()["repositories"]
        self.uris = {one["repositoryName"]: one["repositoryUri"] for one in found}
        events = self.account.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        put = [
            {"filePath": f"{name}/Dockerfile", "fileContent": text.encode()}
            for name, text in (("debian", _GOOD), ("slim", _BAD))
        ]
        code = self.account.client("codecommit")
        code.create_commit(repositoryName="bank-base-images", branchName="main", putFiles=put)
        self.push("public/debian:12", self.registry.password(), debian(), oci.system)

    def runs(self, pipeline: str) -> list[dict[str, Any]]:
        found = self.account.client("codepipeline").list_pipeline_executions(pipelineName=pipeline)
        return list(found["pipelineExecutionSummaries"])


@pytest.mark.control("IMG-11")
def test_a_base_that_got_old_is_built_anew_or_found_too_old(timed: Moved, tmp_path: Path) -> None:
    shop = Shop(timed, tmp_path)
    shop.ready()
    schedules, password = shop.account.client("scheduler"), shop.registry.password(shop.builder)
    root = f"arn:aws:iam::{shop.id}:root"
    caller = Caller("Root", shop.id, root, root, shop.id, "root")
    ages = [f"bank-base-{name}-age" for name in ("debian", "slim")]
    held = {name: schedules.get_schedule(Name=name) for name in ages}
    assert {one["ScheduleExpression"] for one in held.values()} == {"rate(28 days)"}
    until(
        lambda: all(one["status"] == "Failed" for name in ("debian", "slim") for one in shop.runs(f"bank-base-{name}"))
    )
    begun = {name: len(shop.runs(f"bank-base-{name}")) for name in ("debian", "slim")}

    # Thirty-one days ago the images were promoted, and their schedules made.
    with timed.days_later(-31):
        old = {
            name: shop.push(f"base/{name}", password, debian(), oci.scripts(old=name))
            for name in ("debian:v12", "slim:v3")
        }
        for name in ages:
            _inside(timed, caller, "DeleteSchedule", Name=name)
            made = {key: held[name][key] for key in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
            _inside(timed, caller, "CreateSchedule", **made)
    # The month is over: both begin by themselves. One is there, pushed now; the other could not be built.
    until(lambda: all(len(shop.runs(f"bank-base-{name}")) > begun[name] for name in begun), 120)
    until(lambda: all(shop.runs(f"bank-base-{name}")[0]["status"] != "InProgress" for name in begun), 120)
    ran = {name: shop.runs(f"bank-base-{name}")[0] for name in begun}
    assert ran["debian"]["status"] == "Succeeded", _said(shop.account, ran["debian"], "bank-base-debian")
    assert "schedule" in ran["debian"]["trigger"]["triggerDetail"], ran["debian"]["trigger"]
    [new] = shop.ecr.describe_images(repositoryName="base/debian", imageIds=[{"imageTag": "v12"}])["imageDetails"]
    ids = [{"imageDigest": old["debian:v12"]}]
    [before] = shop.ecr.describe_images(repositoryName="base/debian", imageIds=ids)["imageDetails"]
    assert new["imageDigest"] != before["imageDigest"]
    assert (new["imagePushedAt"] - before["imagePushedAt"]).days >= 30
    assert ran["slim"]["status"] == "Failed"
    watch = shop.account.client("cloudwatch")

    def alarms() -> set[str]:
        found = watch.describe_alarms(StateValue="ALARM")["MetricAlarms"]
        return {one["AlarmName"] for one in found}

    with timed.days_later(2 / 1440):  # alarms look at minutes that are over
        until(lambda: "bank-base-slim-fails" in alarms(), 180)
    # The rule says of each how old it is.
    rules = shop.account.client("config")
    rules.start_config_rules_evaluation(ConfigRuleNames=["bank-image-ages"])

    def judged() -> dict[str, str]:
        told = rules.get_compliance_details_by_config_rule(ConfigRuleName="bank-image-ages")["EvaluationResults"]
        return {
            one["EvaluationResultIdentifier"]["EvaluationResultQualifier"]["ResourceId"]: one["ComplianceType"]
            for one in told
        }

    until(lambda: judged() == {"base/debian": "COMPLIANT", "base/slim": "NON_COMPLIANT"}, 120)
    [whole] = rules.describe_compliance_by_config_rule(ConfigRuleNames=["bank-image-ages"])["ComplianceByConfigRules"]
    assert whole["Compliance"]["ComplianceType"] == "NON_COMPLIANT"


def _inside(timed: Moved, caller: Caller, operation: str, **given: Any) -> None:
    """A call that no signature is needed for: the platform's own."""
    work = timed.running.calls.act(caller, "scheduler", operation, given, region="us-east-1", source="test")
    asyncio.run_coroutine_threadsafe(work, timed.loop).result(60)


def _said(account: Account, run: dict[str, Any], pipeline: str) -> Any:
    asked = {"pipelineName": pipeline, "filter": {"pipelineExecutionId": run["pipelineExecutionId"]}}
    told = account.client("codepipeline").list_action_executions(**asked)["actionExecutionDetails"]
    return [(one["actionName"], one.get("output", {}).get("executionResult")) for one in told]
