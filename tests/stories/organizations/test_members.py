"""Members: what they may be let do, how they leave, are closed, and are invited."""

from __future__ import annotations

import json
from typing import Any

from tests.platform import HOME, Account, Keys, Running, allow
from tests.stories.organizations.tree import SCP, Tree, code, document, refusal

SERVICE = "guardduty.amazonaws.com"


def delegate(tree: Tree, account: Account, *actions: str, resource: Any = "*", **more: Any) -> None:
    principal = {"AWS": f"arn:aws:iam::{account.id}:root"}
    tree.org.put_resource_policy(Content=json.dumps(allow(*actions, resource=resource, Principal=principal, **more)))


def test_a_delegated_administrator_reads(tree: Tree, account: Account, neighbour: Account) -> None:
    org = account.client("organizations")
    given = {"AccountId": account.id, "ServicePrincipal": SERVICE}
    assert code(tree.org.register_delegated_administrator, **given) == "ConstraintViolationException"
    tree.org.enable_aws_service_access(ServicePrincipal=SERVICE)
    assert SERVICE in [
        one["ServicePrincipal"]
        for one in tree.org.list_aws_service_access_for_organization()["EnabledServicePrincipals"]
    ]
    assert code(org.list_accounts) == "AccessDeniedException"
    tree.org.register_delegated_administrator(**given)
    assert code(tree.org.register_delegated_administrator, **given) == "AccountAlreadyRegisteredException"
    listed = tree.org.list_delegated_administrators(ServicePrincipal=SERVICE)["DelegatedAdministrators"]
    assert [one["Id"] for one in listed] == [account.id]
    assert account.id in [one["Id"] for one in tree.org.list_delegated_administrators()["DelegatedAdministrators"]]
    services = tree.org.list_delegated_services_for_account(AccountId=account.id)["DelegatedServices"]
    assert [one["ServicePrincipal"] for one in services] == [SERVICE]
    assert org.list_accounts(MaxResults=1)["Accounts"]
    assert org.describe_account(AccountId=neighbour.id)["Account"]["Id"] == neighbour.id
    assert org.list_policies_for_target(TargetId=neighbour.id, Filter=SCP)["Policies"]
    # It reads, and for what else it does its own administrator has to allow, too.
    assert code(org.create_organizational_unit, ParentId=tree.root, Name="x") == "AccessDeniedException"
    assert code(org.attach_policy, PolicyId="p-FullAWSAccess", TargetId=account.id) == "AccessDeniedException"
    account.role("Nobody")
    nobody = account.client("organizations", account.as_role("Nobody"))
    assert code(nobody.describe_account, AccountId=neighbour.id) == "AccessDeniedException"
    assert code(neighbour.client("organizations").list_accounts) == "AccessDeniedException"
    removal = {"AccountId": account.id}
    assert code(tree.org.remove_account_from_organization, **removal) == "ConstraintViolationException"
    assert code(tree.org.disable_aws_service_access, ServicePrincipal=SERVICE) == "ConstraintViolationException"
    tree.org.deregister_delegated_administrator(**given)
    assert code(org.list_accounts) == "AccessDeniedException"
    assert code(tree.org.deregister_delegated_administrator, **given) == "AccountNotRegisteredException"
    assert code(tree.org.list_delegated_services_for_account, **removal) == "AccountNotRegisteredException"
    tree.org.disable_aws_service_access(ServicePrincipal=SERVICE)
    master = {"AccountId": HOME, "ServicePrincipal": SERVICE}
    assert code(tree.org.register_delegated_administrator, **master) == "ConstraintViolationException"


def test_the_delegation_policy_lets_members_manage_policies(tree: Tree, account: Account, neighbour: Account) -> None:
    org, unit = account.client("organizations"), tree.unit()
    assert code(tree.org.describe_resource_policy) == "ResourcePolicyNotFoundException"
    text = document("Deny", "s3:ListAllMyBuckets")
    given = {"Name": f"p-{account.id}", "Description": "", "Type": SCP, "Content": text}
    assert code(org.create_policy, **given) == "AccessDeniedException"
    only = {"StringEquals": {"organizations:PolicyType": SCP}}
    delegate(tree, account, "organizations:CreatePolicy", "organizations:AttachPolicy", Condition=only)
    try:
        made = org.create_policy(**given)["Policy"]["PolicySummary"]["Id"]
        org.attach_policy(PolicyId=made, TargetId=unit)
        assert code(org.create_policy, **{**given, "Type": "TAG_POLICY"}) == "AccessDeniedException"
        assert code(org.detach_policy, PolicyId=made, TargetId=unit) == "AccessDeniedException"
        assert code(neighbour.client("organizations").create_policy, **given) == "AccessDeniedException"
        here = f"arn:aws:organizations::{HOME}:ou/{tree.id}/{unit}"
        policies = f"arn:aws:organizations::{HOME}:policy/*"
        delegate(tree, account, "organizations:DetachPolicy", resource=[here, policies])
        org.detach_policy(PolicyId=made, TargetId=unit)
        assert code(org.detach_policy, PolicyId="p-FullAWSAccess", TargetId=account.id) == "AccessDeniedException"
        managed = "arn:aws:organizations::aws:policy/service_control_policy/p-FullAWSAccess"
        delegate(tree, account, "organizations:DetachPolicy", resource=[here, managed])
        assert code(org.detach_policy, PolicyId="p-FullAWSAccess", TargetId=unit) == "ConstraintViolationException"
        shown = tree.org.describe_resource_policy()["ResourcePolicy"]
        assert shown["ResourcePolicySummary"]["Arn"].startswith(f"arn:aws:organizations::{HOME}:resourcepolicy/")
        for wrong in ("organizations:*", "organizations:MoveAccount"):
            bad = json.dumps(allow(wrong, Principal={"AWS": account.id}))
            assert code(tree.org.put_resource_policy, Content=bad) == "InvalidInputException"
        everybody = {"Principal": "*"}, {"Principal": {"AWS": "*"}}, {"NotPrincipal": {"AWS": account.id}}
        for who in everybody:
            bad = json.dumps(allow("organizations:CreatePolicy", **who))
            assert code(tree.org.put_resource_policy, Content=bad) == "InvalidInputException"
        assert code(tree.org.put_resource_policy, Content="{}") == "InvalidInputException"
        assert code(org.delete_resource_policy) == "AccessDeniedException"
    finally:
        tree.org.delete_resource_policy()
    assert code(org.attach_policy, PolicyId=made, TargetId=unit) == "AccessDeniedException"


def test_a_closed_account_does_nothing_and_gives_nothing(
    platform: Running, tree: Tree, account: Account, neighbour: Account
) -> None:
    account.client("iam").create_user(UserName="u")
    made = account.client("iam").create_access_key(UserName="u")["AccessKey"]
    user = platform.client("sts", Keys(made["AccessKeyId"], made["SecretAccessKey"]))
    policy = json.dumps(allow("kms:*", Principal={"AWS": [account.id, neighbour.id]}))
    key = account.client("kms").create_key(Policy=policy)["KeyMetadata"]["Arn"]
    user.get_caller_identity()
    neighbour.client("kms").describe_key(KeyId=key)
    assert code(account.client("organizations").close_account, AccountId=account.id) == "AccessDeniedException"
    tree.org.close_account(AccountId=account.id)
    assert tree.org.describe_account(AccountId=account.id)["Account"]["Status"] == "SUSPENDED"
    for refused in (refusal(account.client("iam").list_users), refusal(user.get_caller_identity)):
        assert refused[0].startswith("AccessDenied") and f"{account.id} is suspended" in refused[1]
    for refused in (
        refusal(neighbour.client("kms").describe_key, KeyId=key),
        refusal(platform.assume, f"arn:aws:iam::{account.id}:role/OrganizationAccountAccessRole"),
    ):
        assert refused[0].startswith("AccessDenied") and "suspended" not in refused[1]
    assert code(tree.org.close_account, AccountId=account.id) == "AccountAlreadyClosedException"
    assert code(tree.org.close_account, AccountId=HOME) == "ConstraintViolationException"
    assert code(tree.org.remove_account_from_organization, AccountId=account.id) == "ConstraintViolationException"


def test_leaving_and_coming_back(platform: Running, tree: Tree, account: Account) -> None:
    org = account.client("organizations")
    unit = tree.unit()
    tree.move(account, unit)
    bars = tree.bind(unit, document("Deny", "organizations:LeaveOrganization", "iam:ListUsers"))
    assert "service control policy" in refusal(org.leave_organization)[1]
    tree.free(unit, bars)
    tree.org.attach_policy(PolicyId=bars, TargetId=account.id)
    assert code(org.leave_organization) == "AccessDeniedException"
    tree.free(account.id, bars)
    org.leave_organization()
    assert code(org.describe_organization) == "AWSOrganizationsNotInUseException"
    assert code(tree.org.describe_account, AccountId=account.id) == "AccountNotFoundException"
    assert not tree.org.list_targets_for_policy(PolicyId=bars)["Targets"]
    tree.org.delete_organizational_unit(OrganizationalUnitId=unit)
    account.client("iam").list_users()
    assert code(platform.client("organizations").leave_organization) == "MasterCannotLeaveOrganizationException"
    assert code(tree.org.remove_account_from_organization, AccountId=HOME) == "MasterCannotLeaveOrganizationException"

    invited = {"Target": {"Id": f"{account.name}@example.com", "Type": "EMAIL"}, "Notes": "please"}
    first = tree.org.invite_account_to_organization(**invited)["Handshake"]
    assert (first["State"], first["Action"]) == ("OPEN", "INVITE")
    assert code(tree.org.invite_account_to_organization, **invited) == "DuplicateHandshakeException"
    assert org.describe_handshake(HandshakeId=first["Id"])["Handshake"]["State"] == "OPEN"
    assert code(tree.org.accept_handshake, HandshakeId=first["Id"]) == "AccessDeniedException"
    assert code(org.cancel_handshake, HandshakeId=first["Id"]) == "AWSOrganizationsNotInUseException"
    stranger = platform.account().client("organizations")
    for call in (stranger.accept_handshake, stranger.describe_handshake, stranger.decline_handshake):
        assert code(call, HandshakeId=first["Id"]) == "HandshakeNotFoundException"
    org.decline_handshake(HandshakeId=first["Id"])
    assert code(org.decline_handshake, HandshakeId=first["Id"]) == "HandshakeAlreadyInStateException"
    assert code(org.accept_handshake, HandshakeId=first["Id"]) == "InvalidHandshakeTransitionException"
    by_id = {"Target": {"Id": account.id, "Type": "ACCOUNT"}}
    second = tree.org.invite_account_to_organization(**by_id)["Handshake"]["Id"]
    tree.org.cancel_handshake(HandshakeId=second)
    third = tree.org.invite_account_to_organization(**by_id)["Handshake"]["Id"]
    assert {one["Id"] for one in org.list_handshakes_for_account()["Handshakes"]} == {first["Id"], second, third}
    assert third in {
        one["Id"]
        for page in tree.org.get_paginator("list_handshakes_for_organization").paginate()
        for one in page["Handshakes"]
    }
    org.accept_handshake(HandshakeId=third)
    again = tree.org.describe_account(AccountId=account.id)["Account"]
    assert (again["JoinedMethod"], again["Status"], again["Name"]) == ("INVITED", "ACTIVE", account.name)
    assert code(tree.org.invite_account_to_organization, **by_id) == "HandshakeConstraintViolationException"
    nobody = {"Target": {"Id": "000000000001", "Type": "ACCOUNT"}}
    assert code(tree.org.invite_account_to_organization, **nobody) == "InvalidInputException"


def test_units_are_renamed_and_requests_are_listed(tree: Tree, account: Account) -> None:
    one, other = tree.unit(), tree.unit()
    named = tree.org.describe_organizational_unit(OrganizationalUnitId=other)["OrganizationalUnit"]["Name"]
    rename = tree.org.update_organizational_unit
    assert code(rename, OrganizationalUnitId=one, Name=named) == "DuplicateOrganizationalUnitException"
    rename(OrganizationalUnitId=other, Name=f"{named}-new")
    assert rename(OrganizationalUnitId=one, Name=named)["OrganizationalUnit"]["Name"] == named
    pages = tree.org.get_paginator("list_create_account_status").paginate(States=["SUCCEEDED"])
    assert account.id in [one["AccountId"] for page in pages for one in page["CreateAccountStatuses"]]
