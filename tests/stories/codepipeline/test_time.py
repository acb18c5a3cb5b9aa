"""What time does: a source that is looked at, an approval that nobody gives, rules that are due. Tests move the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from bastide.services.codepipeline import Bells
from tests.moved import Moved, moved, until
from tests.platform import allow
from tests.stories.codepipeline.releases import approval, releases_of, stage


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    for one in moved(tmp_path_factory.mktemp("later")):
        one.found()
        yield one


def test_a_source_is_looked_at_and_an_approval_ends_after_a_week(later: Moved) -> None:
    releases = releases_of(later.account())
    declared = releases.declared(stage("Review", approval()), name="polled")
    del declared["stages"][0]["actions"][0]["configuration"]["PollForSourceChanges"]  # on AWS, too, this means: look
    releases.client.create_pipeline(pipeline=declared)
    first = releases.newest("polled")
    releases.waits("polled", "Review")

    def ended(wanted: str) -> bool:
        kind = "CodePipeline Pipeline Execution State Change"
        told = [one["detail"] for one in later.told if one["detail-type"] == kind]
        return any(one["execution-id"] == first and one["state"] == wanted for one in told)

    def executions() -> list[dict[str, str]]:
        found: list[dict[str, str]] = releases.client.list_pipeline_executions(pipelineName="polled")[
            "pipelineExecutionSummaries"
        ]
        return found

    later.running.poller.seconds = 0.05
    later.running.poller.last = None
    until(lambda: later.running.poller.last is not None)
    version = releases.commit({"README": "changed"})
    later.running.poller.last = None
    until(lambda: len(executions()) == 2)
    assert executions()[0]["trigger"] == {"triggerType": "PollForSourceChanges", "triggerDetail": "Source"}
    second = executions()[0]["pipelineExecutionId"]
    arn = releases.client.get_pipeline(name="polled")["metadata"]["pipelineArn"]
    with later.days_later(8):
        later.loop.call_soon_threadsafe(later.running.calls.engine(Bells).ring, arn)  # instead of when it looks next
        until(lambda: ended("FAILED"))
    assert "timed out" in releases.error("polled", first, "Ask")["message"]
    releases.within("polled", "Review", second)
    releases.waits("polled", "Review")
    [revision] = releases.get("polled", second)["artifactRevisions"]
    assert revision["revisionId"] == version
    # The same revision, looked at again, starts nothing.
    later.running.poller.last = None
    until(lambda: later.running.poller.last is not None)
    assert len(executions()) == 2


@pytest.mark.control("DEP-07")
def test_rules_start_it_when_they_are_due(later: Moved) -> None:
    account = later.account()
    releases, events = releases_of(account), account.client("events")
    releases.client.create_pipeline(pipeline=releases.declared(stage("Review", approval()), name="timed"))
    arn = releases.client.get_pipeline(name="timed")["metadata"]["pipelineArn"]
    starter = account.role(
        "Starter", allow("codepipeline:StartPipelineExecution", resource=arn), trust={"Service": "events.amazonaws.com"}
    )
    due = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(hours=3)
    for name, when, state in (
        ("often", "rate(1 minute)", "ENABLED"), ("daily", f"cron({due.minute} {due.hour} * * ? *)", "ENABLED"),
        ("off", "rate(1 minute)", "DISABLED"),
    ):  # fmt: skip
        events.put_rule(Name=name, ScheduleExpression=when, State=state)
        events.put_targets(Rule=name, Targets=[{"Id": "p", "Arn": arn, "RoleArn": starter}])
    for text in ("rate(1 minutes)", "rate(0 minutes)", "cron(0 3 * * *)", "cron(61 3 * * ? *)"):
        with pytest.raises(ClientError, match="ValidationException"):
            events.put_rule(Name="wrong", ScheduleExpression=text)

    def rules() -> Counter[str]:
        """How many executions each rule started; those are told as they begin."""
        kind = "CodePipeline Pipeline Execution State Change"
        told = [one["detail"] for one in later.told if one["detail-type"] == kind]
        runs = {one["execution-id"]: one["execution-trigger"] for one in told if one["pipeline"] == "timed"}
        return Counter(one["trigger-detail"].rpartition("/")[2] for one in runs.values())

    for days, wanted in ((90 / 86400, Counter(often=1)), ((3 * 3600 + 90) / 86400, Counter(often=2, daily=1))):
        with later.days_later(days):
            until(lambda wanted=wanted: rules() >= wanted)  # type: ignore[misc]
    assert set(rules()) >= {"often", "daily"} and rules()["off"] == 0 and rules()["daily"] == 1
    found = releases.client.list_pipeline_executions(pipelineName="timed")["pipelineExecutionSummaries"]
    [at] = [one["startTime"] for one in found if one["trigger"]["triggerDetail"].endswith("/daily")]
    assert due <= at < due + timedelta(hours=1)
