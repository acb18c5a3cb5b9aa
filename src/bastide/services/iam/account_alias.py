"""The account's alias, and its numbers and quotas."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, anything
from bastide.services.iam import trust
from bastide.services.iam.access_key import MOST_KEYS
from bastide.services.iam.attachment import GROUP_ATTACHED, INLINE, MOST_ATTACHED
from bastide.services.iam.entity import no_entity, sliced
from bastide.services.iam.group import GROUP, MOST_GROUPS
from bastide.services.iam.instance_profile import INSTANCE_PROFILE
from bastide.services.iam.policy import MOST_VERSIONS, POLICY
from bastide.services.iam.policy import QUOTA as POLICY_SIZE
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import ENABLED_DEVICE, USER
from bastide.store import Row, Transaction, View

ALIAS = Kind("AccountAlias", service="iam", arn="alias/{}", global_=True, tags=False)
"""One row an account, named "alias"."""
_TAKEN: Final = "iam:TakenAlias"
"""Rows under account "" named by the alias: no two accounts have the same."""
_NAME: Final = "alias"


def alias_of(view: View, account: str) -> str | None:
    """The account's alias, or None."""
    row = view.get(ALIAS.key, account, "", _NAME)
    return None if row is None else str(row.doc["alias"])


def _free(tx: Transaction, alias: str) -> None:
    taken = tx.get(_TAKEN, "", "", alias)
    if taken is not None:
        tx.delete(taken, keep=False)


@ALIAS.operation("CreateAccountAlias", asks=[Ask("iam:CreateAccountAlias", anything)])
def create(a: Authorised, tx: Transaction) -> Output:
    """Takes the place of the alias that the account had."""
    alias = str(a.input["AccountAlias"])
    taken = tx.get(_TAKEN, "", "", alias)
    if taken is not None:
        if taken.doc["account"] == a.account:
            return {}
        raise Refused("EntityAlreadyExists", f"The account alias {alias} already exists.", 409)
    row = tx.get(ALIAS.key, a.account, "", _NAME)
    if row is None:
        ALIAS.create(a, tx, _NAME, {"alias": alias})
    else:
        _free(tx, row.doc["alias"])
        row.doc["alias"] = alias
        ALIAS.change(tx, row, a.operation.name, a.request.id)
    tx.insert(Row(_TAKEN, "", "", alias, {"account": a.account}), keep=False)
    return {}


@ALIAS.operation("DeleteAccountAlias", asks=[Ask("iam:DeleteAccountAlias", anything)])
def delete(a: Authorised, tx: Transaction) -> Output:
    alias = str(a.input["AccountAlias"])
    row = tx.get(ALIAS.key, a.account, "", _NAME)
    if row is None or row.doc["alias"] != alias:
        raise no_entity(f"The account alias {alias} cannot be found.")
    _free(tx, alias)
    ALIAS.remove(tx, row, a.operation.name, a.request.id)
    return {}


@ALIAS.reads("ListAccountAliases", asks=[Ask("iam:ListAccountAliases", anything)])
def aliases(a: Authorised, view: View) -> Output:
    alias = alias_of(view, a.account)
    return sliced(a, "AccountAliases", [] if alias is None else [alias])


def _count(view: View, account: str, kind: str) -> int:
    """How many rows of a kind an account has, counted once after each change."""

    def load() -> int:
        count, after = 0, ""
        while rows := view.scan(kind, account, "", after=after, limit=500):
            count, after = count + len(rows), rows[-1].name
        return count

    return view.memo(("iam:count", kind, account), ((kind, account),), load)


def _versions(view: View, account: str) -> int:
    def load() -> int:
        count, after = 0, ""
        while rows := view.scan(POLICY.key, account, "", after=after, limit=500):
            count, after = count + sum(len(row.doc["versions"]) for row in rows), rows[-1].name
        return count

    return view.memo(("iam:versions", account), ((POLICY.key, account),), load)


@ALIAS.reads("GetAccountSummary", asks=[Ask("iam:GetAccountSummary", anything)])
def summary(a: Authorised, view: View) -> Output:
    """What does not exist here is counted as none: the root user's password and keys, certificates."""
    numbers: dict[str, Any] = {
        "Users": USER.tally(view, a.account),
        "UsersQuota": USER.most,
        "Groups": GROUP.tally(view, a.account),
        "GroupsQuota": GROUP.most,
        "GroupsPerUserQuota": MOST_GROUPS,
        "Roles": ROLE.tally(view, a.account),
        "RolesQuota": ROLE.most,
        "InstanceProfiles": INSTANCE_PROFILE.tally(view, a.account),
        "InstanceProfilesQuota": INSTANCE_PROFILE.most,
        "Policies": POLICY.tally(view, a.account),
        "PoliciesQuota": POLICY.most,
        "PolicySizeQuota": POLICY_SIZE,
        "PolicyVersionsInUse": _versions(view, a.account),
        "PolicyVersionsInUseQuota": POLICY.most * MOST_VERSIONS,
        "VersionsPerPolicyQuota": MOST_VERSIONS,
        "UserPolicySizeQuota": INLINE["User"],
        "GroupPolicySizeQuota": INLINE["Group"],
        "RolePolicySizeQuota": INLINE["Role"],
        "AssumeRolePolicySizeQuota": trust.QUOTA,
        "AttachedPoliciesPerUserQuota": MOST_ATTACHED,
        "AttachedPoliciesPerGroupQuota": GROUP_ATTACHED,
        "AttachedPoliciesPerRoleQuota": MOST_ATTACHED,
        "AccessKeysPerUserQuota": MOST_KEYS,
        "MFADevices": _count(view, a.account, "iam:MFADevice"),
        "MFADevicesInUse": _count(view, a.account, ENABLED_DEVICE),
        "Providers": _count(view, a.account, "iam:SAMLProvider") + _count(view, a.account, "iam:OpenIDConnectProvider"),
        "AccountMFAEnabled": 0,
        "AccountAccessKeysPresent": 0,
        "AccountPasswordPresent": 0,
        "AccountSigningCertificatesPresent": 0,
        "ServerCertificates": 0,
        "GlobalEndpointTokenVersion": 2,
    }
    return {"SummaryMap": numbers}
