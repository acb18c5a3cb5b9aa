"""`bastide pipelines`."""

from __future__ import annotations

import json

from tests.platform import Running
from tests.stories.commands.test_commands import bastide
from tests.stories.sagemaker.conftest import workshop_of
from tests.stories.sagemaker.pipelines import create, definition, furnish, over, process, start


def test_pipelines_and_where_an_execution_stands(platform: Running) -> None:
    shop = workshop_of(platform.account())
    furnish(shop)
    condition = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}
    fail = {"Name": "Enough", "Type": "Fail", "Arguments": {"ErrorMessage": "[red]enough\x1b[2J"}}
    check = {
        "Name": "Check", "Type": "Condition", "DependsOn": ["Make"],
        "Arguments": {"Conditions": [condition], "IfSteps": [fail], "ElseSteps": [process(shop, "Other", "")]},
    }  # fmt: skip
    create(shop, "lines", definition(process(shop, "Make", "print(1)"), check))
    create(shop, "never", definition(process(shop, "Make", "")))
    arn = start(shop, "lines")
    over(shop, arn)
    given = ["--account", shop.account.id]
    listed = bastide("pipelines", *given, data=platform.data).stdout
    assert "lines" in listed and "never" in listed and "Step failure" in listed
    told = json.loads(bastide("pipelines", "--json", *given, arn, data=platform.data).stdout)
    assert [(one["name"], one["status"], one["after"], one["branch"]) for one in told["steps"]] == [
        ("Make", "Succeeded", [], ""),
        ("Check", "Succeeded", ["Make"], ""),
        ("Enough", "Failed", ["Check"], "if"),
        ("Other", "", ["Check"], "else"),
    ]
    drawn = bastide("pipelines", *given, "lines", data=platform.data).stdout
    assert "✔ Make" in drawn and "if:  ✘ Enough" in drawn and "· Other" in drawn and "[red]enough" in drawn
    assert "\x1b" not in drawn
