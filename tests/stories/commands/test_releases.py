"""`bastide releases`."""

from __future__ import annotations

import json

from tests.platform import Running
from tests.stories.codepipeline.releases import action, approval, releases_of, stage, until
from tests.stories.commands.test_commands import bastide


def test_where_each_commit_is(platform: Running) -> None:
    releases = releases_of(platform.account())
    given = ["--account", releases.account.id]
    version = releases.commit({"README": "next"})
    configuration = {"BucketName": "there-is-no-such-bucket", "Extract": "true"}
    copy = action("Copy", "Deploy", "S3", configuration, inputArtifacts=["Code"])
    name = releases.made(stage("Review", approval()), stage("Publish", copy), wait=False)
    first = releases.newest(name)
    releases.waits(name, "Review")
    second = releases.started(name)
    until(lambda: releases.stages(name)["Review"].get("inboundExecution"))
    shown = json.loads(bastide("releases", name, "--json", *given, data=platform.data).stdout)
    told = shown["stages"][1]
    assert [one["execution"] for one in told["waiting"]] == [second] and told["in"]["execution"] == first
    assert sorted(shown["running"]) == sorted([first, second])
    lines = bastide("releases", name, *given, data=platform.data).stdout.splitlines()
    assert any("⋯" in line and version[:12] in line for line in lines)
    assert any("Ask" in line and "waits for somebody's approval" in line for line in lines)
    releases.answer(name, "Review")
    releases.over(name, first)
    releases.answer(name, "Review")
    releases.over(name, second)
    drawn = bastide("releases", name, "--watch", *given, data=platform.data).stdout
    assert "s3://there-is-no-such-bucket/README cannot be written" in "".join(drawn.split("\n"))
    [row] = json.loads(bastide("releases", "--json", *given, data=platform.data).stdout)
    assert (row["name"], row["status"], row["revision"]) == (name, "Failed", version[:12])
