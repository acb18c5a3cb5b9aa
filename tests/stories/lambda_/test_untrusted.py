"""Functions of an account that is not trusted."""

from __future__ import annotations

from pathlib import Path

from tests.stories.lambda_.conftest import Bench

CODE = """
import os, time
seen = []
def handler(event, context):
    seen.append(event)
    open("/tmp/x", "w").write("x")
    return [open("/proc/version").read().strip(), seen, os.listdir("/tmp")]
"""


def test_they_have_a_kernel_of_their_own_that_waits_between_events(bench: Bench) -> None:
    tags = [{"Key": "bastide:untrusted-code", "Value": "true"}]
    bench.account.platform.client("organizations").tag_resource(ResourceId=bench.account.id, Tags=tags)
    name = bench.make(CODE)
    for number in range(3):
        version, seen, there = bench.invoke(name, number).payload
        assert version.startswith("Linux version 4.4.0 ") and version != Path("/proc/version").read_text().strip()
        assert seen == list(range(number + 1)) and there == ["x"], "it is the same environment"
