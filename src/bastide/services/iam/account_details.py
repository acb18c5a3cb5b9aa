"""Everything that an account's users, groups, roles and policies are, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.services.iam import attachment
from bastide.services.iam.group import GROUP, groups_of
from bastide.services.iam.group import shown as group_shown
from bastide.services.iam.instance_profile import profiles_of
from bastide.services.iam.instance_profile import shown as profile_shown
from bastide.services.iam.managed import MANAGED
from bastide.services.iam.policy import MANAGED_USE, POLICY, brought, brought_version, version_of
from bastide.services.iam.policy import shown as policy_shown
from bastide.services.iam.role import ROLE
from bastide.services.iam.role import shown as role_shown
from bastide.services.iam.user import USER
from bastide.services.iam.user import shown as user_shown
from bastide.store import Row, View


def _without(shown: Output, *members: str) -> Output:
    """What this operation does not tell is left out."""
    return {name: value for name, value in shown.items() if name not in members}


def _user(a: Authorised, view: View, row: Row) -> Output:
    found = {
        **user_shown(row, whole=True),
        "GroupList": [group.doc["GroupName"] for group in groups_of(view, row)],
        "AttachedManagedPolicies": attachment.attached(row.doc),
    }
    if row.doc["inline"]:
        found["UserPolicyList"] = attachment.inline(row.doc)
    return found


def _group(a: Authorised, view: View, row: Row) -> Output:
    return {
        **group_shown(row),
        "GroupPolicyList": attachment.inline(row.doc),
        "AttachedManagedPolicies": attachment.attached(row.doc),
    }


def _role(a: Authorised, view: View, row: Row) -> Output:
    return {
        **_without(role_shown(a, view, row, whole=True), "Description", "MaxSessionDuration"),
        "InstanceProfileList": [profile_shown(a, view, one, whole=False) for one in profiles_of(view, row)],
        "RolePolicyList": attachment.inline(row.doc),
        "AttachedManagedPolicies": attachment.attached(row.doc),
    }


def _policy(a: Authorised, view: View, row: Row) -> Output:
    newest = sorted(row.doc["versions"], key=lambda name: -int(name[1:]))
    return {
        **_without(policy_shown(row, whole=True), "Tags"),
        "PolicyVersionList": [version_of(row, name, whole=True) for name in newest],
    }


def _managed(a: Authorised, view: View, row: Row) -> Output:
    managed = MANAGED[row.name]
    return {
        **brought(view, a.account, managed, whole=True),
        "PolicyVersionList": [brought_version(managed, whole=True)],
    }


Show = Callable[[Authorised, View, Row], Output]
_STAGES: Final[tuple[tuple[str, str, str, Show], ...]] = (
    ("User", USER.key, "UserDetailList", _user),
    ("Group", GROUP.key, "GroupDetailList", _group),
    ("Role", ROLE.key, "RoleDetailList", _role),
    ("LocalManagedPolicy", POLICY.key, "Policies", _policy),
    ("AWSManagedPolicy", MANAGED_USE, "Policies", _managed),
)
"""In the order they are told in. Of the policies that AWS brings, those that the account uses."""


@USER.reads("GetAccountAuthorizationDetails", asks=[Ask("iam:GetAccountAuthorizationDetails", anything)])
def details(a: Authorised, view: View) -> Output:
    size = int(a.input.get("MaxItems") or 100)
    wanted = set(a.input.get("Filter") or (name for name, *_ in _STAGES))
    stage, after = pages.position(a, a.input.get("Marker"), code="ValidationError") or (0, "")
    output: Output = {member: [] for _, _, member, _ in _STAGES}
    left = size
    for number in range(stage, len(_STAGES)):
        name, kind, member, show = _STAGES[number]
        if name not in wanted:
            continue
        rows = view.scan(kind, a.account, "", after=after if number == stage else "", limit=left + 1)
        output[member] += [show(a, view, row) for row in rows[:left]]
        if len(rows) > left:
            behind = rows[left - 1].name if left else (after if number == stage else "")
            return {**output, "IsTruncated": True, "Marker": pages.seal(a, [number, behind])}
        left -= len(rows)
    return {**output, "IsTruncated": False}
