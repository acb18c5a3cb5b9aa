"""`bastide executions`."""

from __future__ import annotations

import json

from tests.platform import Running
from tests.stories.commands.test_commands import bastide
from tests.stories.states.conftest import machines_of


def test_where_an_execution_stands(platform: Running) -> None:
    machines = machines_of(platform.account())
    given = ["--account", machines.account.id]
    each = {"StartAt": "Item", "States": {"Item": {"Type": "Pass", "End": True}}}
    machine = machines.made(
        {
            "Each": {"Type": "Map", "ItemProcessor": each, "ResultPath": None, "Next": "Pause"},
            "Pause": {"Type": "Wait", "Seconds": 600, "Next": "Later"},
            "Later": {"Type": "Fail", "Error": "\x1b[2J", "Cause": "x"},
        },
        name="walk",
    )
    arn = machines.started(machine, [1, 2], name="one")
    machines.until(arn, "WaitStateEntered")
    rows = json.loads(bastide("executions", "--json", *given, data=platform.data).stdout)
    assert [(row["name"], row["machine"], row["status"]) for row in rows] == [("one", "walk", "RUNNING")]
    table = bastide("executions", "walk", *given, data=platform.data).stdout
    assert "one" in table and "RUNNING" in table
    lines = bastide("executions", "one", *given, data=platform.data).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["✓", "Each"], ["✓", "Item"], ["▶", "Pause"], ["·", "Later"]]
    assert lines[2].startswith("   ") and "x2" in lines[2]
    machines.states.stop_execution(executionArn=arn, error="Own")
    told = json.loads(bastide("executions", arn, "--json", *given, data=platform.data).stdout)
    assert (told["states"]["Pause"]["status"], told["error"]) == ("given up", "Own")
    missing = bastide("executions", "nobody", *given, data=platform.data)
    assert missing.returncode != 0 and "there is no standard state machine `nobody`" in missing.stderr
