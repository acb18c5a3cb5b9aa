"""A run that is killed is taken up by the next one; what a landing zone made is gone when it is destroyed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bastide.landing.blueprint import default
from tests.platform import HOME, PROGRAM, Account, Running
from tests.stories.landing.zone import landing


@pytest.mark.control("ACC-15", lacking="cost figures")
def test_killed_taken_up_and_taken_away(tmp_path: Path) -> None:
    platform = Running(tmp_path / "data")
    platform.start()
    try:
        _story(platform, tmp_path / "landing.yaml")
    finally:
        platform.stop()


def _story(platform: Running, file: Path) -> None:
    text = default().replace("name: bank ", "name: till ")
    endpoints = "endpoints: [sagemaker.api, sagemaker.runtime, sts, kms, logs, monitoring, ecr.api, ecr.dkr, ssm]"
    assert endpoints in text
    parts = "{packages: off, products: off, code: off, builds: off, pipelines: off}"
    premises = (
        "{ranges: [10.200.0.0/16], accounts: [test], direct-connect: {location: Bastide, bandwidth: 1Gbps, vlan: 7}}"
    )
    text = text.replace("premises: {} ", f"premises: {{centre: {premises}}} ")
    head, _, rest = text.replace(endpoints, "endpoints: [sts]").partition("delivery:")
    file.write_text(f"{head}delivery: {parts}\n\nguardrails:{rest.partition('guardrails:')[2]}")
    began = subprocess.Popen(
        [*PROGRAM, "landing", "apply", "--data", str(platform.data), "--yes", str(file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert began.stdout is not None
    for line in began.stdout:  # until the accounts are there and the first stacks are being made in them
        if "till-landing-roles" in line:
            break
    began.kill()
    began.wait()
    began.stdout.close()
    code, told, why = landing(platform, "apply", str(file), "--yes", "--json")
    assert code == 0 and len(told["accounts"]) == 6 and told["enrolled"] == [], why
    listed = platform.client("organizations").list_accounts()["Accounts"]
    assert len(listed) == 7  # none was made twice
    # What is in a bucket keeps everything from being removed, until told so.
    code, _, why = landing(platform, "destroy", str(file), "--yes")
    assert code == 1 and "nothing was removed" in why and "--empty-buckets" in why
    code, told, why = landing(platform, "destroy", str(file), "--yes", "--json", "--empty-buckets")
    assert code == 0 and set(told["left"]) == {one["Name"] for one in listed if one["Id"] != HOME}, why
    organizations = platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    assert organizations.list_organizational_units_for_parent(ParentId=root)["OrganizationalUnits"] == []
    assert len(organizations.list_accounts_for_parent(ParentId=root)["Accounts"]) == 7
    for type_ in ("SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY", "TAG_POLICY"):
        assert not [one for one in organizations.list_policies(Filter=type_)["Policies"] if not one["AwsManaged"]]
    assert platform.client("cloudtrail").describe_trails()["trailList"] == []
    for one in listed:
        if one["Id"] == HOME:
            continue
        account = Account(platform, one["Id"], one["Name"])
        assert account.client("s3").list_buckets()["Buckets"] == []
        assert account.client("ec2").describe_vpcs()["Vpcs"] == []
        assert account.client("directconnect").describe_connections()["connections"] == []
        assert account.client("ssm").describe_parameters()["Parameters"] == []
        roles = [
            role["RoleName"] for role in account.client("iam").list_roles()["Roles"] if "/aws-" not in role["Path"]
        ]
        assert [name for name in roles if not name.startswith("stacksets-exec-")] == ["OrganizationAccountAccessRole"]
    code, _, why = landing(platform, "destroy", str(file), "--yes")
    assert code == 1 and "there is no landing zone till" in why
