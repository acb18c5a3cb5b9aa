"""One template in many accounts: as roles that were made for it, and as the organisation's trust."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import HOME, Account, Running, allow
from tests.stories.cloudformation.stacks import Stacks, nobody, parameter, template
from tests.waiting import until

BODY = template({"P": parameter({"Ref": "V"})}, Parameters={"V": {"Type": "String", "Default": "v"}})


def _done(client: Any, name: str, id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = client.describe_stack_set_operation(StackSetName=name, OperationId=id)[
            "StackSetOperation"
        ]
        return told if told["Status"] not in ("RUNNING", "STOPPING", "QUEUED") else None

    found = until(look)
    assert found is not None
    return found


def _values(account: Account) -> list[str]:
    ssm = account.client("ssm")
    names = [one["Name"] for one in ssm.describe_parameters()["Parameters"]]
    # At once, and not one by one: they come and go meanwhile.
    return [one["Value"] for one in ssm.get_parameters(Names=names)["Parameters"]] if names else []


def _execution(account: Account, administrator: Account) -> None:
    admin = f"arn:aws:iam::{administrator.id}:role/AWSCloudFormationStackSetAdministrationRole"
    account.role("AWSCloudFormationStackSetExecutionRole", allow("*"), trust={"AWS": admin})


def test_roles_of_ones_own(platform: Running, account: Account, neighbour: Account) -> None:
    stacks, third = Stacks(account), platform.account()
    execution = "arn:aws:iam::*:role/AWSCloudFormationStackSetExecutionRole"
    trust = {"Service": "cloudformation.amazonaws.com"}
    account.role(
        "AWSCloudFormationStackSetAdministrationRole", allow("sts:AssumeRole", resource=execution), trust=trust
    )
    for one in (account, neighbour):
        _execution(one, account)
    client = stacks.client
    client.create_stack_set(StackSetName="base", TemplateBody=BODY)
    where = {"StackSetName": "base", "Regions": ["us-east-1"]}
    both = {**where, "Accounts": [account.id, neighbour.id]}
    assert _done(client, "base", client.create_stack_instances(**both)["OperationId"])["Status"] == "SUCCEEDED"
    assert _values(account) == _values(neighbour) == ["v"]
    told = client.list_stack_instances(StackSetName="base")["Summaries"]
    assert {one["Account"]: one["Status"] for one in told} == {account.id: "CURRENT", neighbour.id: "CURRENT"}
    one = {**where, "Accounts": [neighbour.id], "ParameterOverrides": [{"ParameterKey": "V", "ParameterValue": "own"}]}
    assert _done(client, "base", client.update_stack_instances(**one)["OperationId"])["Status"] == "SUCCEEDED"
    assert _values(neighbour) == ["own"] and _values(account) == ["v"]
    changed = json.loads(BODY)
    changed["Resources"]["Q"] = parameter("q")
    id = client.update_stack_set(StackSetName="base", TemplateBody=json.dumps(changed))["OperationId"]
    assert _done(client, "base", id)["Status"] == "SUCCEEDED"
    assert sorted(_values(neighbour)) == ["own", "q"] and sorted(_values(account)) == ["q", "v"]
    # An account that trusts nobody is not reached, and says so; it costs the others nothing that they had.
    lost = client.create_stack_instances(**where, Accounts=[third.id])["OperationId"]
    assert _done(client, "base", lost)["Status"] == "FAILED"
    [result] = client.list_stack_set_operation_results(StackSetName="base", OperationId=lost)["Summaries"]
    assert result["Status"] == "FAILED" and "AWSCloudFormationStackSetExecutionRole" in result["StatusReason"]
    with pytest.raises(ClientError, match="not empty"):
        client.delete_stack_set(StackSetName="base")
    gone = {**where, "Accounts": [account.id, neighbour.id, third.id], "RetainStacks": False}
    assert _done(client, "base", client.delete_stack_instances(**gone)["OperationId"])["Status"] == "SUCCEEDED"
    client.delete_stack_set(StackSetName="base")
    assert _values(account) == _values(neighbour) == []


def test_the_organisations_trust(platform: Running) -> None:
    organizations, client = platform.client("organizations"), platform.client("cloudformation")
    root = organizations.list_roots()["Roots"][0]["Id"]
    unit = organizations.create_organizational_unit(ParentId=root, Name=f"u-{uuid.uuid4().hex[:8]}")
    unit_id = unit["OrganizationalUnit"]["Id"]
    name = f"base-{uuid.uuid4().hex[:8]}"
    first, second = platform.account(), platform.account()

    def move(account: Account, source: str, destination: str) -> None:
        organizations.move_account(AccountId=account.id, SourceParentId=source, DestinationParentId=destination)

    move(first, root, unit_id)
    auto = {"Enabled": True, "RetainStacksOnAccountRemoval": False}
    asked = {"StackSetName": name, "TemplateBody": BODY, "PermissionModel": "SERVICE_MANAGED", "AutoDeployment": auto}
    with pytest.raises(ClientError, match="enable organizations access"):
        client.create_stack_set(**asked)
    client.activate_organizations_access()
    try:
        client.create_stack_set(**asked)
        where = {"StackSetName": name, "Regions": ["us-east-1"]}
        unit_only = {"OrganizationalUnitIds": [unit_id]}
        id = client.create_stack_instances(**where, DeploymentTargets=unit_only)["OperationId"]
        assert _done(client, name, id)["Status"] == "SUCCEEDED"
        assert _values(first) == ["v"] and _values(second) == []
        for account, source, destination, wanted in ((second, root, unit_id, ["v"]), (first, unit_id, root, [])):
            move(account, source, destination)
            until(
                lambda account=account, wanted=wanted: _values(account) == wanted,
                told=lambda account=account: _values(account),
            )
        until(
            lambda: all(
                one["Status"] != "RUNNING" for one in client.list_stack_set_operations(StackSetName=name)["Summaries"]
            )
        )
        id = client.delete_stack_instances(**where, DeploymentTargets=unit_only, RetainStacks=False)["OperationId"]
        assert _done(client, name, id)["Status"] == "SUCCEEDED"
        assert _values(second) == []
        client.delete_stack_set(StackSetName=name)
    finally:
        client.deactivate_organizations_access()
    assert client.describe_organizations_access()["Status"] == "DISABLED"


def test_a_failure_beyond_what_is_tolerated_ends_it(account: Account, neighbour: Account) -> None:
    stacks = Stacks(account)
    execution = "arn:aws:iam::*:role/AWSCloudFormationStackSetExecutionRole"
    trust = {"Service": "cloudformation.amazonaws.com"}
    account.role(
        "AWSCloudFormationStackSetAdministrationRole", allow("sts:AssumeRole", resource=execution), trust=trust
    )
    for one in (account, neighbour):
        _execution(one, account)
    bad = template({"A": parameter("a"), "B": nobody("A")})
    stacks.client.create_stack_set(StackSetName="bad", TemplateBody=bad, Capabilities=["CAPABILITY_IAM"])
    where = {"StackSetName": "bad", "Regions": ["us-east-1"], "Accounts": [account.id, neighbour.id]}
    id = stacks.client.create_stack_instances(**where)["OperationId"]
    assert _done(stacks.client, "bad", id)["Status"] == "FAILED"
    results = stacks.client.list_stack_set_operation_results(StackSetName="bad", OperationId=id)["Summaries"]
    assert [one["Status"] for one in results] == ["FAILED", "CANCELLED"]
    assert "[B]" in results[0]["StatusReason"]
    assert HOME not in (account.id, neighbour.id)
