"""``python -m tests.bench.releases [--actions N] [--rounds N]``: what a pipeline itself costs.

Measured from what the platform tells of it: from before a commit is sent (PutFile, a rule with the pipeline as target) to
the start of the execution that it starts, and to the start of its first action; and between the starts of actions that
follow each other, each of which copies one small file. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.platform import Running, allow
from tests.stories.codepipeline.releases import Releases, action, releases_of, stage, until


def _execution(releases: Releases, name: str, before: str) -> str:
    return until(lambda: found if (found := releases.newest(name)) != before else None)


def measured(releases: Releases, actions: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by what was measured."""
    copies = [
        action(
            f"Copy{number}", "Deploy", "S3",
            {"BucketName": releases.sources, "Extract": "true", "ObjectKey": f"out/{number}"},
            inputArtifacts=["Code"], runOrder=number + 1,
        )
        for number in range(actions)
    ]  # fmt: skip
    name = releases.made(stage("Copies", *copies))
    account, events = releases.account, releases.account.client("events")
    arn = releases.client.get_pipeline(name=name)["metadata"]["pipelineArn"]
    role = account.role("Starts", allow("codepipeline:*"), trust={"Service": "events.amazonaws.com"})
    repositories = account.client("codecommit")
    repositories.create_repository(repositoryName="code")
    pattern = {"source": ["aws.codecommit"], "detail": {"referenceName": ["main"], "event": ["referenceUpdated"]}}
    events.put_rule(Name="starts", EventPattern=json.dumps(pattern))
    commit = repositories.put_file(repositoryName="code", branchName="main", filePath="f", fileContent=b"0")["commitId"]
    events.put_targets(Rule="starts", Targets=[{"Id": "p", "Arn": arn, "RoleArn": role}])
    found: dict[str, list[float]] = {"commit to execution": [], "commit to its first action": [], "an action": []}
    for _ in range(rounds):
        before = releases.newest(name)
        sent = datetime.now(UTC)
        commit = repositories.put_file(
            repositoryName="code",
            branchName="main",
            filePath="f",
            fileContent=str(sent).encode(),
            parentCommitId=commit,
        )["commitId"]
        id = _execution(releases, name, before)
        assert releases.over(name, id, 300)["status"] == "Succeeded"
        summaries = releases.client.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"]
        started = next(one["startTime"] for one in summaries if one["pipelineExecutionId"] == id)
        did = releases.actions(name, id)
        found["commit to execution"].append((started - sent).total_seconds() * 1000)
        found["commit to its first action"].append((did["Source"]["startTime"] - sent).total_seconds() * 1000)
        starts = [did[f"Copy{number}"]["startTime"] for number in range(actions)]
        found["an action"] += [(later - one).total_seconds() * 1000 for one, later in itertools.pairwise(starts)]
        time.sleep(0.2)
    return found


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        platform = Running(Path(place) / "data")
        platform.start()
        try:
            platform.found()
            found = measured(releases_of(platform.account()), asked.actions, asked.rounds)
        finally:
            platform.stop()
    table = Table("what", "median ms", "slowest ms", title=f"{asked.rounds} executions of {asked.actions + 1} actions")
    for what, took in found.items():
        table.add_row(what, f"{median(took):.0f}", f"{max(took):.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
