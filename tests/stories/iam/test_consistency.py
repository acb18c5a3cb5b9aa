"""Whatever is done in whatever order: what is listed from one side is what is listed from the other."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastide.services.iam.managed import ADMINISTRATOR
from tests.platform import Account, Running, allow
from tests.stories.iam.test_entities import TRUST

NAMES = st.sampled_from(["a", "B", "b", "c"])
KINDS = st.sampled_from(["user", "group", "role"])
READ = "arn:aws:iam::aws:policy/IAMReadOnlyAccess"
POLICIES = st.sampled_from(["own", READ])
STEPS = st.one_of(
    st.tuples(st.just("create"), KINDS, NAMES),
    st.tuples(st.just("delete"), KINDS, NAMES),
    st.tuples(st.just("rename"), st.sampled_from(["user", "group"]), NAMES, NAMES),
    st.tuples(st.just("attach"), KINDS, NAMES, POLICIES),
    st.tuples(st.just("detach"), KINDS, NAMES, POLICIES),
    st.tuples(st.just("join"), NAMES, NAMES),
    st.tuples(st.just("leave"), NAMES, NAMES),
    st.tuples(st.just("bound"), st.sampled_from(["user", "role"]), NAMES, POLICIES),
    st.tuples(st.just("unbound"), st.sampled_from(["user", "role"]), NAMES),
)


def do(iam: Any, own: str, step: tuple[str, ...]) -> None:
    """One step; that it may be refused is part of it."""
    what, kind, *rest = step
    label = kind.capitalize()
    if what == "create":
        more = {"AssumeRolePolicyDocument": TRUST} if kind == "role" else {}
        getattr(iam, f"create_{kind}")(**{f"{label}Name": rest[0]}, **more)
    elif what == "delete":
        getattr(iam, f"delete_{kind}")(**{f"{label}Name": rest[0]})
    elif what == "rename":
        getattr(iam, f"update_{kind}")(**{f"{label}Name": rest[0], f"New{label}Name": rest[1]})
    elif what in ("attach", "detach"):
        arn = own if rest[1] == "own" else rest[1]
        getattr(iam, f"{what}_{kind}_policy")(**{f"{label}Name": rest[0]}, PolicyArn=arn)
    elif what == "join":
        iam.add_user_to_group(UserName=kind, GroupName=rest[0])
    elif what == "leave":
        iam.remove_user_from_group(UserName=kind, GroupName=rest[0])
    elif what == "bound":
        arn = own if rest[1] == "own" else rest[1]
        getattr(iam, f"put_{kind}_permissions_boundary")(**{f"{label}Name": rest[0]}, PermissionsBoundary=arn)
    else:
        getattr(iam, f"delete_{kind}_permissions_boundary")(**{f"{label}Name": rest[0]})


def both_sides(account: Account, own: str) -> None:
    iam = account.client("iam")
    whole = iam.get_account_authorization_details()
    users, groups, roles = whole["UserDetailList"], whole["GroupDetailList"], whole["RoleDetailList"]
    summary = iam.get_account_summary()["SummaryMap"]
    assert [summary[name] for name in ("Users", "Groups", "Roles", "Policies")] == [
        len(users),
        len(groups),
        len(roles),
        1,
    ]
    for group in groups:
        members = {one["UserName"] for one in iam.get_group(GroupName=group["GroupName"])["Users"]}
        assert members == {one["UserName"] for one in users if group["GroupName"] in one["GroupList"]}
    listed = {"User": users, "Group": groups, "Role": roles}
    attached: dict[str, int] = {}
    for arn in (own, READ):
        for usage in ("PermissionsPolicy", "PermissionsBoundary"):
            found = iam.list_entities_for_policy(PolicyArn=arn, PolicyUsageFilter=usage)
            uses = 0
            for kind, entities in listed.items():
                having = {
                    one[f"{kind}Id"]
                    for one in entities
                    if (
                        any(policy["PolicyArn"] == arn for policy in one["AttachedManagedPolicies"])
                        if usage == "PermissionsPolicy"
                        else one.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn") == arn
                    )
                }
                assert {one[f"{kind}Id"] for one in found[f"Policy{kind}s"]} == having, (arn, usage, kind)
                uses += len(having)
            attached[arn] = attached.get(arn, 0) + uses
            shown = iam.get_policy(PolicyArn=arn)["Policy"]
            counted = "AttachmentCount" if usage == "PermissionsPolicy" else "PermissionsBoundaryUsageCount"
            assert shown[counted] == uses, (arn, usage)
    used = {one["Arn"] for one in iam.list_policies(OnlyAttached=True)["Policies"]}
    assert used == {arn for arn, uses in attached.items() if uses} | {ADMINISTRATOR}


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=10, max_size=40))
def test_indexes_never_part_from_what_they_index(platform: Running, steps: list[tuple[str, ...]]) -> None:
    account = platform.account()
    iam = account.client("iam")
    own = iam.create_policy(PolicyName="own", PolicyDocument=json.dumps(allow("s3:*")))["Policy"]["Arn"]
    for kind in ("user", "group", "role"):
        for name in ("a", "B"):
            do(iam, own, ("create", kind, name))
    for step in steps:
        try:
            do(iam, own, step)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("EntityAlreadyExists", "NoSuchEntity", "DeleteConflict"), error
    both_sides(account, own)
