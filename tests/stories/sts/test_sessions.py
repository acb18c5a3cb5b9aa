"""Sessions of roles: who may take one on, what they may then, and when it ends."""

from __future__ import annotations

import datetime
import json
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, Keys, Running, allow


def refusal(work: Any, *args: Any, **given: Any) -> tuple[str, int]:
    """Code and status of a call that must be refused."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        work(*args, **given)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


DENIED = ("AccessDenied", 403)


def trusting(principal: Any, *actions: str, **more: Any) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": list(actions or ("sts:AssumeRole",)), **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(account: Account, name: str, trust: str, policy: dict[str, Any] | None = None, **more: Any) -> str:
    iam = account.client("iam")
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, **more)["Role"]["Arn"]
    if policy is not None:
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    return arn


def test_a_session(platform: Running, account: Account) -> None:
    arn = role(account, "Reader", trusting({"AWS": account.id}), allow("iam:GetRole"))
    answer = account.client("sts").assume_role(RoleArn=arn, RoleSessionName="me@x", DurationSeconds=900)
    given = answer["Credentials"]
    left = given["Expiration"] - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(seconds=880) < left <= datetime.timedelta(seconds=900)
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account.id}:assumed-role/Reader/me@x"
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    who = platform.client("sts", keys).get_caller_identity()
    assert (
        who["Arn"] == answer["AssumedRoleUser"]["Arn"] and who["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    )
    session = platform.client("iam", keys)
    session.get_role(RoleName="Reader")
    assert refusal(session.list_roles) == DENIED
    spoiled = Keys(keys.access_key, keys.secret, (keys.token or "")[:-4] + "AAAA")
    assert refusal(platform.client("iam", spoiled).get_role, RoleName="Reader")[1] == 403
    assert refusal(platform.client("iam", Keys(keys.access_key, keys.secret)).get_role, RoleName="Reader")[1] == 403


def test_the_session_ends_with_its_role(platform: Running, account: Account) -> None:
    trust = trusting({"AWS": account.id})
    arn = role(account, "Brief", trust, allow("iam:GetRole"))
    keys = platform.assume(arn, account.keys)
    session = platform.client("iam", keys)
    session.get_role(RoleName="Brief")
    iam = account.client("iam")
    iam.delete_role_policy(RoleName="Brief", PolicyName="p")
    assert refusal(session.get_role, RoleName="Brief") == DENIED
    iam.delete_role(RoleName="Brief")
    assert refusal(session.get_role, RoleName="Brief") == ("InvalidClientTokenId", 403)
    role(account, "Brief", trust, allow("iam:GetRole"))
    assert refusal(session.get_role, RoleName="Brief") == ("InvalidClientTokenId", 403)


def test_no_trust_and_no_role_look_the_same(account: Account) -> None:
    for nonsense in ("arn::iam::1:role/something", "arn:a:::something/role", "nothing-valid-in-here"):
        assert (
            refusal(account.client("sts").assume_role, RoleArn=nonsense, RoleSessionName="some")[0] == "ValidationError"
        )
    sts = account.client("sts")
    closed = role(account, "Closed", trusting({"Service": "sagemaker.amazonaws.com"}))
    told = []
    for arn in (closed, f"arn:aws:iam::{account.id}:role/Missing"):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            sts.assume_role(RoleArn=arn, RoleSessionName="me")
        message, _, sealed = caught.value.response["Error"]["Message"].partition(
            " Encoded authorization failure message: "
        )
        told.append((message.replace(arn, "ARN"), len(sealed)))
    assert told[0] == told[1]


@pytest.mark.control("ACC-01")
def test_both_accounts_must_agree(platform: Running, account: Account, neighbour: Account) -> None:
    open_to = role(account, "Open", trusting({"AWS": neighbour.id}))
    assert refusal(platform.assume, open_to, account.keys) == DENIED
    platform.assume(open_to, neighbour.keys)
    iam = neighbour.client("iam")
    iam.create_user(UserName="plain")
    made = iam.create_access_key(UserName="plain")["AccessKey"]
    plain = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    assert refusal(platform.assume, open_to, plain) == DENIED
    may = json.dumps(allow("sts:AssumeRole", resource=open_to))
    iam.put_user_policy(UserName="plain", PolicyName="p", PolicyDocument=may)
    platform.assume(open_to, plain)


def test_the_external_id(platform: Running, account: Account, neighbour: Account) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "42"}}
    arn = role(account, "Vendor", trusting({"AWS": neighbour.id}, Condition=condition))
    assert refusal(platform.assume, arn, neighbour.keys) == DENIED
    assert refusal(platform.assume, arn, neighbour.keys, ExternalId="43") == DENIED
    platform.assume(arn, neighbour.keys, ExternalId="42")


def test_session_tags(platform: Running, account: Account) -> None:
    tagged = [{"Key": "team", "Value": "risk"}]
    plain = role(account, "Plain", trusting({"AWS": account.id}))
    assert refusal(platform.assume, plain, account.keys, Tags=tagged) == DENIED
    by_tag = allow("iam:GetRole", Condition={"StringEquals": {"aws:PrincipalTag/team": "risk"}})
    both = ("sts:AssumeRole", "sts:TagSession")
    first = role(
        account,
        "First",
        trusting({"AWS": account.id}, *both),
        {**by_tag, "Statement": [*by_tag["Statement"], *allow("sts:*")["Statement"]]},
    )
    second = role(account, "Second", trusting({"AWS": account.id}, *both), by_tag)
    assert refusal(platform.client("iam", platform.assume(first, account.keys)).get_role, RoleName="First") == DENIED
    keys = platform.assume(first, account.keys, Tags=tagged, TransitiveTagKeys=["team"])
    platform.client("iam", keys).get_role(RoleName="First")
    # The tag is handed on, and cannot be changed on the way.
    chained = platform.assume(second, keys)
    platform.client("iam", chained).get_role(RoleName="First")
    assert (
        refusal(platform.assume, second, keys, Tags=[{"Key": "Team", "Value": "other"}])[0] == "InvalidParameterValue"
    )
    assert refusal(platform.assume, second, keys, DurationSeconds=3601)[0] == "ValidationError"
    lost = platform.assume(second, platform.assume(first, account.keys, Tags=tagged))
    assert refusal(platform.client("iam", lost).get_role, RoleName="First") == DENIED


def test_required_tags(platform: Running, account: Account) -> None:
    condition = {
        "StringEquals": {"aws:RequestTag/team": ["risk", "credit"]},
        "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]},
    }
    arn = role(account, "R", trusting({"AWS": account.id}, "sts:AssumeRole", "sts:TagSession", Condition=condition))
    platform.assume(arn, account.keys, Tags=[{"Key": "team", "Value": "risk"}])
    assert refusal(platform.assume, arn, account.keys) == DENIED
    assert refusal(platform.assume, arn, account.keys, Tags=[{"Key": "team", "Value": "ops"}]) == DENIED
    both = [{"Key": "team", "Value": "risk"}, {"Key": "more", "Value": "x"}]
    assert refusal(platform.assume, arn, account.keys, Tags=both) == DENIED


def test_source_identity(platform: Running, account: Account) -> None:
    plain = role(account, "Plain", trusting({"AWS": account.id}))
    assert refusal(platform.assume, plain, account.keys, SourceIdentity="alice") == DENIED
    named = trusting({"AWS": account.id}, "sts:AssumeRole", "sts:SetSourceIdentity")
    first = role(account, "First", named, allow("sts:*"))
    keys = platform.assume(first, account.keys, SourceIdentity="alice")
    second = role(
        account, "Second", named, allow("iam:GetRole", Condition={"StringEquals": {"aws:SourceIdentity": "alice"}})
    )
    platform.client("iam", platform.assume(second, keys)).get_role(RoleName="First")
    assert refusal(platform.assume, second, keys, SourceIdentity="bob") == DENIED
    assert refusal(platform.assume, plain, keys) == DENIED


def test_session_policies_narrow(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    arn = role(account, "Wide", trusting({"AWS": account.id}), allow("iam:*"))
    narrow = platform.assume(arn, account.keys, Policy=json.dumps(allow("iam:GetRole", "s3:*")))
    platform.client("iam", narrow).get_role(RoleName="Wide")
    assert refusal(platform.client("iam", narrow).list_roles) == DENIED
    managed = iam.create_policy(PolicyName="L", PolicyDocument=json.dumps(allow("iam:ListRoles")))["Policy"]["Arn"]
    listing = platform.assume(arn, account.keys, PolicyArns=[{"arn": managed}])
    platform.client("iam", listing).list_roles()
    assert refusal(platform.client("iam", listing).get_role, RoleName="Wide") == DENIED
    iam.delete_policy(PolicyArn=managed)
    assert refusal(platform.client("iam", listing).list_roles) == DENIED
    assert refusal(platform.assume, arn, account.keys, PolicyArns=[{"arn": managed}]) == ("ValidationError", 400)
    assert refusal(platform.assume, arn, account.keys, Policy="{}") == ("MalformedPolicyDocument", 400)
    sized = account.client("sts").assume_role(
        RoleArn=arn, RoleSessionName="me", Policy=json.dumps(allow("iam:GetRole"))
    )
    assert 0 < sized["PackedPolicySize"] <= 100


def test_how_long(account: Account) -> None:
    sts = account.client("sts", parameter_validation=False)
    arn = role(account, "Short", trusting({"AWS": account.id}))
    for seconds in (899, 3601, 43201):
        assert refusal(sts.assume_role, RoleArn=arn, RoleSessionName="me", DurationSeconds=seconds) == (
            "ValidationError",
            400,
        )


def test_contexts_come_from_identity_center_only(account: Account) -> None:
    closed = role(account, "R", trusting({"AWS": account.id}))
    arn = role(account, "S", trusting({"AWS": account.id}, "sts:AssumeRole", "sts:SetContext"))
    given = {
        "RoleArn": arn,
        "RoleSessionName": "me",
        "ProvidedContexts": [
            {"ProviderArn": "arn:aws:iam::aws:contextProvider/IdentityCenter", "ContextAssertion": "x.y.z"}
        ],
    }
    assert refusal(account.client("sts").assume_role, **given) == ("ValidationError", 400)
    assert refusal(account.client("sts").assume_role, **{**given, "RoleArn": closed}) == DENIED


def test_whose_key(platform: Running, account: Account) -> None:
    administrator = platform.administrator.access_key
    assert account.client("sts").get_access_key_info(AccessKeyId=administrator)["Account"] != account.id
    assert refusal(account.client("sts").get_access_key_info, AccessKeyId="AKIAAAAAAAAAAAAAAAAA") == (
        "ValidationError",
        400,
    )
