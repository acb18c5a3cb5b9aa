"""People sign in as they do: through their provider, on a page, with the clients they have."""

from __future__ import annotations

import pytest

from tests.platform import Account, allow
from tests.stories.identity_center.browser import Centre, refusal


@pytest.mark.control("IAM-03")
def test_a_person_gets_exactly_what_the_permission_set_says(
    centre: Centre, account: Account, neighbour: Account
) -> None:
    token = centre.token("ana")["accessToken"]
    ana = centre.known("ana")
    arn, name = centre.permission_set(allow("iam:ListUsers"))
    assert centre.accounts(token) == []
    assert centre.assign(account, arn, ana)["Status"] == "SUCCEEDED"
    assert centre.accounts(token) == [account.id]
    keys = centre.session(token, account, name)
    who = centre.platform.client("sts", keys).get_caller_identity()
    assert who["Account"] == account.id
    assert who["Arn"].startswith(f"arn:aws:sts::{account.id}:assumed-role/AWSReservedSSO_{name}_")
    assert who["Arn"].endswith("/ana") and who["UserId"].endswith(":ana")
    iam = centre.platform.client("iam", keys)
    iam.list_users()
    assert refusal(iam.list_roles) == "AccessDenied"
    sso = centre.unsigned("sso")
    _, other = centre.permission_set(allow("*"))
    for where, role in ((neighbour.id, name), (account.id, other), (account.id, "NoSuchSet"), ("1", name)):
        given = {"accessToken": token, "accountId": where, "roleName": role}
        assert refusal(sso.get_role_credentials, **given) == "ForbiddenException"
    assert refusal(sso.list_account_roles, accessToken=token, accountId=neighbour.id) == "ForbiddenException"
    assert refusal(sso.list_accounts, accessToken="aoa" + "x" * 60) == "UnauthorizedException"
