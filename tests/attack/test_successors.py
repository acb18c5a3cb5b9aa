"""A role or user made anew under a name that a resource's policy speaks of is somebody else.

AWS keeps the unique id in the place of the ARN when a policy is written (IAM User Guide, "AWS JSON policy elements:
Principal").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Keys, allow


def _forget(account: Account, name: str) -> None:
    iam = account.client("iam")
    iam.delete_role_policy(RoleName=name, PolicyName="inline")
    iam.delete_role(RoleName=name)


def _bucket(account: Account, principal: str) -> tuple[Callable[[Keys], Any], Callable[[], str], Callable[[], Any]]:
    s3, name = account.client("s3"), f"heir-{account.id}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    text = json.dumps(allow("s3:GetObject", resource=f"arn:aws:s3:::{name}/*", Principal={"AWS": principal}))

    def put() -> Any:
        return s3.put_bucket_policy(Bucket=name, Policy=text)

    put()
    return (
        lambda keys: account.client("s3", keys).get_object(Bucket=name, Key="k"),
        lambda: str(s3.get_bucket_policy(Bucket=name)["Policy"]),
        put,
    )


def _key(account: Account, principal: str) -> tuple[Callable[[Keys], Any], Callable[[], str], Callable[[], Any]]:
    kms = account.client("kms")
    document = allow("kms:*", Principal={"AWS": account.id})
    document["Statement"].append(
        {"Effect": "Allow", "Action": "kms:Encrypt", "Resource": "*", "Principal": {"AWS": [principal]}}
    )
    arn = kms.create_key(Policy=json.dumps(document))["KeyMetadata"]["Arn"]
    return (
        lambda keys: account.client("kms", keys).encrypt(KeyId=arn, Plaintext=b"x"),
        lambda: str(kms.get_key_policy(KeyId=arn)["Policy"]),
        lambda: kms.put_key_policy(KeyId=arn, Policy=json.dumps(document)),
    )


def _secret(account: Account, principal: str) -> tuple[Callable[[Keys], Any], Callable[[], str], Callable[[], Any]]:
    secrets = account.client("secretsmanager")
    arn = secrets.create_secret(Name="heirloom", SecretString="x")["ARN"]
    text = json.dumps(allow("secretsmanager:DescribeSecret", Principal={"AWS": principal}))

    def put() -> Any:
        return secrets.put_resource_policy(SecretId=arn, ResourcePolicy=text)

    put()
    return (
        lambda keys: account.client("secretsmanager", keys).describe_secret(SecretId=arn),
        lambda: str(secrets.get_resource_policy(SecretId=arn)["ResourcePolicy"]),
        put,
    )


def _group(account: Account, principal: str) -> tuple[Callable[[Keys], Any], Callable[[], str], Callable[[], Any]]:
    sagemaker = account.client("sagemaker")
    arn = sagemaker.create_model_package_group(ModelPackageGroupName="heirs")["ModelPackageGroupArn"]
    text = json.dumps(allow("sagemaker:DescribeModelPackageGroup", resource=arn, Principal={"AWS": principal}))

    def put() -> Any:
        return sagemaker.put_model_package_group_policy(ModelPackageGroupName="heirs", ResourcePolicy=text)

    put()
    return (
        lambda keys: account.client("sagemaker", keys).describe_model_package_group(ModelPackageGroupName=arn),
        lambda: str(sagemaker.get_model_package_group_policy(ModelPackageGroupName="heirs")["ResourcePolicy"]),
        put,
    )


@pytest.mark.parametrize("made", [_bucket, _key, _secret, _group])
@pytest.mark.parametrize("across", [False, True])
def test_a_role_made_anew_inherits_nothing(account: Account, neighbour: Account, made: Any, across: bool) -> None:
    whose = neighbour if across else account
    narrow = allow("sts:GetCallerIdentity")
    wide = allow("s3:*", "kms:*", "secretsmanager:*", "sagemaker:*")
    arn = whose.role("heir", wide if across else narrow)
    first = whose.client("iam").get_role(RoleName="heir")["Role"]["RoleId"]
    use, policy, put = made(account, arn)
    use(whose.as_role("heir"))
    assert json.loads(policy())["Statement"][-1]["Principal"]["AWS"] in (arn, [arn])
    _forget(whose, "heir")
    whose.role("heir", wide if across else narrow)
    with pytest.raises(ClientError, match="AccessDenied"):
        use(whose.as_role("heir"))
    assert json.loads(policy())["Statement"][-1]["Principal"]["AWS"] in (first, [first])
    put()
    use(whose.as_role("heir"))


def test_the_session_of_a_role_made_anew_inherits_nothing(account: Account) -> None:
    """A session that is named is one of the role that was there, and no other of its sessions."""
    account.role("heir", allow("sts:GetCallerIdentity"))
    use, _, _ = _bucket(account, f"arn:aws:sts::{account.id}:assumed-role/heir/night")
    use(account.as_role("heir", "night"))
    with pytest.raises(ClientError, match="AccessDenied"):
        use(account.as_role("heir", "day"))
    _forget(account, "heir")
    account.role("heir", allow("sts:GetCallerIdentity"))
    with pytest.raises(ClientError, match="AccessDenied"):
        use(account.as_role("heir", "night"))


def _user(account: Account, name: str) -> Keys:
    iam = account.client("iam")
    iam.create_user(UserName=name)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return Keys(made["AccessKeyId"], made["SecretAccessKey"])


def test_a_user_goes_on_being_meant_under_another_name_and_nobody_else(account: Account) -> None:
    ana = _user(account, "ana")
    use, _, _ = _bucket(account, f"arn:aws:iam::{account.id}:user/ana")
    use(ana)
    account.client("iam").update_user(UserName="ana", NewUserName="anna")
    use(ana)
    with pytest.raises(ClientError, match="AccessDenied"):
        use(_user(account, "ana"))
    use(ana)


def test_a_denied_role_does_not_shed_the_denial_by_a_policy_of_others(account: Account) -> None:
    """NotPrincipal spares who was meant; a role made anew under that name is not spared."""
    arn = account.role("keeper", allow("s3:GetObject"))
    s3, name = account.client("s3"), f"kept-{account.id}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    spared = [arn, f"arn:aws:sts::{account.id}:assumed-role/keeper/test", account.id]
    document = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Deny",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{name}/*",
            "NotPrincipal": {"AWS": spared},
        },
    }
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps(document))
    account.client("s3", account.as_role("keeper")).get_object(Bucket=name, Key="k")
    _forget(account, "keeper")
    account.role("keeper", allow("s3:GetObject"))
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("s3", account.as_role("keeper")).get_object(Bucket=name, Key="k")
