"""What time does: a source that is looked at, and an approval that nobody gives, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bastide.services.codepipeline import Bells
from tests.moved import Moved, moved, until
from tests.stories.codepipeline.releases import approval, releases_of, stage


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("later"))


def test_a_source_is_looked_at_and_an_approval_ends_after_a_week(later: Moved) -> None:
    later.found()
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
