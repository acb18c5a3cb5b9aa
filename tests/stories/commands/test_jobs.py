"""`bastide jobs` and `bastide logs`."""

from __future__ import annotations

import json

from tests.platform import Running
from tests.stories.commands.test_commands import bastide
from tests.stories.sagemaker.conftest import Workshop, workshop_of


def test_jobs_and_their_lines(platform: Running) -> None:
    shop: Workshop = workshop_of(platform.account())
    given = ["--account", shop.account.id]
    name = shop.train("import time\nprint('hello', flush=True)\ntime.sleep(1)\nprint('\\x1b[2J bye')")
    told = bastide("logs", "-f", name, *given, data=platform.data)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert "hello" in lines
    assert any(line.endswith(" bye") for line in lines)
    assert "\x1b" not in told.stdout
    broken = shop.train("raise ValueError('boom')")
    shop.trained(broken)
    rows = json.loads(bastide("jobs", "--format", "json", *given, data=platform.data).stdout)
    assert [(row["name"], row["kind"], row["status"], row["secondary"]) for row in rows] == [
        (broken, "training", "Failed", "Failed"),
        (name, "training", "Completed", "Completed"),
    ]
    assert "boom" in rows[0]["reason"]
    assert rows[1]["ran"] >= 1
    table = bastide("jobs", *given, data=platform.data).stdout
    assert name in table and "boom" in table
    missing = bastide("logs", "nobody", *given, data=platform.data)
    assert missing.returncode != 0 and "there is no job named `nobody`" in missing.stderr
