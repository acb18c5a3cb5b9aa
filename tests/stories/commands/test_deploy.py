"""`bastide deploy`: a plan first, then the stack, and the one cause when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from bastide.commands.cli import cli
from tests.platform import Account, Running, allow
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template


def _deploy(platform: Running, account: Account, *arguments: str) -> tuple[int, Any, str]:
    given = ["deploy", "--data", str(platform.data), "--account", account.id, *arguments]
    done = CliRunner().invoke(cli, given, env={"COLUMNS": "200"})
    told = json.loads(done.stdout.splitlines()[0]) if "--json" in arguments else done.stdout
    return done.exit_code, told, done.stderr


def test_it_plans_makes_changes_and_removes(platform: Running, account: Account, tmp_path: Path) -> None:
    stacks, file = Stacks(account), tmp_path / "team.json"
    body = {"A": parameter({"Ref": "Word"})}
    shape = {"Parameters": {"Word": {"Type": "String"}}, "Outputs": {"Name": {"Value": {"Ref": "A"}}}}
    file.write_text(template(body, **shape))
    code, plan, _ = _deploy(platform, account, str(file), "-p", "Word=one", "--json")
    assert code == 0 and [one["Action"] for one in plan["changes"]] == ["Add"] and plan["lacks"] == []
    assert not stacks.client.list_stacks(StackStatusFilter=["CREATE_COMPLETE", "REVIEW_IN_PROGRESS"])["StackSummaries"]
    code, told, _ = _deploy(platform, account, str(file), "-p", "Word=one", "--json", "--yes", "--tag", "team=red")
    assert code == 0 and told["status"] == "CREATE_COMPLETE" and stacks.value(told["outputs"]["Name"]) == "one"
    code, text, _ = _deploy(platform, account, str(file), "--yes")
    assert code == 0 and "Nothing is to be changed" in text
    file.write_text(template({**body, "Bad": nobody("A")}, **shape))
    code, _, why = _deploy(platform, account, str(file), "-p", "Word=two", "--yes")
    assert code == 1 and "UPDATE_ROLLBACK_COMPLETE, because of Bad (AWS::IAM::Policy)" in why
    assert "there-is-no-such-role cannot be found" in why
    code, told, _ = _deploy(platform, account, str(file), "--delete", "--yes", "--json")
    assert code == 0 and told["status"] == "DELETE_COMPLETE"


def test_what_is_lacking_is_told_before_anything_starts(platform: Running, account: Account, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(template({"A": parameter("a"), "B": {"Type": "AWS::KMS::Key", "Properties": {}}}))
    trust = {"Service": "cloudformation.amazonaws.com"}
    role = account.role(
        "stacks", allow("ssm:PutParameter", resource="arn:aws:ssm:*:*:parameter/only-some*"), trust=trust
    )
    code, plan, why = _deploy(platform, account, str(file), "--role", role, "--yes", "--json")
    assert code == 1 and "permissions are lacking" in why
    assert [(one["resource"], one["action"]) for one in plan["lacks"]] == [("B", "kms:CreateKey")]
    assert not Stacks(account).client.list_stacks(StackStatusFilter=["CREATE_COMPLETE"])["StackSummaries"]
