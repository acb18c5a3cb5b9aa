"""Grants, told with boto3: the use of a key for one role, as long as it needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import REGION, Account, allow


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


DENIED = "AccessDeniedException"


@dataclass
class Held:
    """A key, its administrator's client, and a role without any policy."""

    account: Account
    kms: Any
    key: str
    role: str
    user: Any

    def grant(self, *operations: str, to: str = "", **more: Any) -> dict[str, str]:
        made: dict[str, str] = self.kms.create_grant(
            KeyId=self.key, GranteePrincipal=to or self.role, Operations=list(operations), **more
        )
        return made


@pytest.fixture
def held(account: Account) -> Held:
    kms = account.client("kms")
    role = account.role("Worker")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    return Held(account, kms, key, role, account.client("kms", account.as_role("Worker")))


def test_what_a_grant_gives_and_how_it_ends(held: Held) -> None:
    blob = held.kms.encrypt(KeyId=held.key, Plaintext=b"x")["CiphertextBlob"]
    assert refused(held.user.decrypt, CiphertextBlob=blob) == DENIED
    made = held.grant("Decrypt", "DescribeKey")
    assert held.user.decrypt(CiphertextBlob=blob, GrantTokens=[made["GrantToken"]])["Plaintext"] == b"x"
    assert held.user.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    held.user.describe_key(KeyId=held.key)
    assert refused(held.user.encrypt, KeyId=held.key, Plaintext=b"x") == DENIED
    assert refused(held.user.decrypt, CiphertextBlob=blob, GrantTokens=["nonsense"]) == "InvalidGrantTokenException"
    [shown] = held.kms.list_grants(KeyId=held.key)["Grants"]
    assert (shown["GrantId"], shown["GranteePrincipal"]) == (made["GrantId"], held.role)
    assert shown["Operations"] == ["Decrypt", "DescribeKey"]
    assert shown["IssuingAccount"] == f"arn:aws:iam::{held.account.id}:root"
    assert refused(held.user.revoke_grant, KeyId=held.key, GrantId=made["GrantId"]) == DENIED
    assert refused(held.user.retire_grant, KeyId=held.key, GrantId=made["GrantId"]) == DENIED
    held.kms.revoke_grant(KeyId=held.key, GrantId=made["GrantId"])
    assert refused(held.user.decrypt, CiphertextBlob=blob) == DENIED
    assert refused(held.kms.revoke_grant, KeyId=held.key, GrantId=made["GrantId"]) == "NotFoundException"
    assert held.kms.list_grants(KeyId=held.key)["Grants"] == []


def test_the_encryption_context_binds_it(held: Held) -> None:
    held.grant("Encrypt", Constraints={"EncryptionContextEquals": {"team": "risk", "Case": "1"}})
    held.grant("GenerateDataKey", Constraints={"EncryptionContextSubset": {"team": "risk"}})
    given: dict[str, Any] = {"KeyId": held.key, "Plaintext": b"x"}
    held.user.encrypt(**given, EncryptionContext={"team": "risk", "Case": "1"})
    for context in ({}, {"team": "risk"}, {"team": "risk", "case": "1"}, {"team": "risk", "Case": "1", "more": "1"}):
        assert refused(held.user.encrypt, **given, EncryptionContext=context) == DENIED
    made = {"KeyId": held.key, "KeySpec": "AES_256"}
    held.user.generate_data_key(**made, EncryptionContext={"team": "risk", "more": "1"})
    for context in ({}, {"team": "it"}, {"Team": "risk"}):
        assert refused(held.user.generate_data_key, **made, EncryptionContext=context) == DENIED


def test_explicit_denies_still_bind(held: Held) -> None:
    held.grant("Encrypt")
    given: dict[str, Any] = {"KeyId": held.key, "Plaintext": b"x"}
    held.user.encrypt(**given)
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "kms:Encrypt", "Resource": "*"}]}
    iam = held.account.client("iam")
    iam.put_role_policy(RoleName="Worker", PolicyName="no", PolicyDocument=json.dumps(deny))
    assert refused(held.user.encrypt, **given) == DENIED
    iam.delete_role_policy(RoleName="Worker", PolicyName="no")
    held.user.encrypt(**given)
    keys = held.account.platform.assume(held.role, held.account.keys, Policy=json.dumps(allow("s3:*")))
    assert refused(held.account.client("kms", keys).encrypt, **given) == DENIED, "a session policy limits it, too"
    held.kms.disable_key(KeyId=held.key)
    assert refused(held.user.encrypt, **given) == "DisabledException"


def test_a_grantee_gives_on_no_more_than_it_has(held: Held) -> None:
    other = held.account.role("Other")
    constraint = {"EncryptionContextSubset": {"team": "risk"}}
    held.grant("CreateGrant", "Encrypt", Constraints=constraint)
    given: dict[str, Any] = {"KeyId": held.key, "GranteePrincipal": other}
    create = held.user.create_grant
    assert refused(create, **given, Operations=["Decrypt"], Constraints=constraint) == DENIED
    assert refused(create, **given, Operations=["Encrypt", "Decrypt"], Constraints=constraint) == DENIED
    assert refused(create, **given, Operations=["Encrypt"]) == DENIED
    looser = {"EncryptionContextSubset": {"more": "1"}}
    assert refused(create, **given, Operations=["Encrypt"], Constraints=looser) == DENIED
    create(**given, Operations=["Encrypt"], Constraints={"EncryptionContextEquals": {"team": "risk", "more": "1"}})
    user = held.account.client("kms", held.account.as_role("Other"))
    user.encrypt(KeyId=held.key, Plaintext=b"x", EncryptionContext={"team": "risk", "more": "1"})
    assert refused(user.encrypt, KeyId=held.key, Plaintext=b"x", EncryptionContext={"team": "risk"}) == DENIED


def test_retiring(held: Held, neighbour: Account) -> None:
    keeper = neighbour.role("Keeper")
    theirs = neighbour.client("kms", neighbour.as_role("Keeper"))
    ids = [held.grant("Encrypt", RetiringPrincipal=keeper) for _ in range(3)]
    plain = held.grant("Encrypt")
    listed = {"RetiringPrincipal": keeper}
    assert refused(theirs.list_retirable_grants, **listed) == DENIED
    pages = neighbour.client("kms").get_paginator("list_retirable_grants").paginate(**listed, Limit=2)
    assert {one["GrantId"] for page in pages for one in page["Grants"]} == {one["GrantId"] for one in ids}
    assert refused(held.kms.list_retirable_grants, **listed) == "NotFoundException"
    theirs.retire_grant(GrantToken=ids[0]["GrantToken"])
    theirs.retire_grant(KeyId=held.key, GrantId=ids[1]["GrantId"])
    assert refused(theirs.retire_grant, KeyId=held.key, GrantId=plain["GrantId"]) == DENIED
    assert refused(theirs.encrypt, KeyId=held.key, Plaintext=b"x") == DENIED, "it may retire it and nothing else"
    assert refused(held.user.retire_grant, GrantToken=ids[2]["GrantToken"]) == DENIED
    held.kms.retire_grant(GrantToken=ids[2]["GrantToken"])
    assert refused(held.kms.retire_grant, GrantToken=ids[2]["GrantToken"]) == "InvalidGrantTokenException"
    own = held.grant("RetireGrant", "Encrypt")
    assert refused(held.user.retire_grant, KeyId=held.key, GrantId=plain["GrantId"]) == DENIED
    held.user.retire_grant(KeyId=held.key, GrantId=own["GrantId"])
    assert refused(held.kms.retire_grant, KeyId=held.key) == "ValidationException"
    both = {"KeyId": held.key, "GrantId": plain["GrantId"], "GrantToken": plain["GrantToken"]}
    assert refused(held.kms.retire_grant, **both) == "ValidationException"


def test_a_role_of_another_account_and_one_that_was_made_anew(held: Held, neighbour: Account) -> None:
    there = neighbour.role("Guest")
    guest = neighbour.client("kms", neighbour.as_role("Guest"))
    given: dict[str, Any] = {"KeyId": held.key, "Plaintext": b"x"}
    assert refused(guest.encrypt, **given) == DENIED
    held.grant("Encrypt", to=there)
    guest.encrypt(**given)
    iam = neighbour.client("iam")
    iam.delete_role(RoleName="Guest")
    neighbour.role("Guest")
    assert refused(neighbour.client("kms", neighbour.as_role("Guest")).encrypt, **given) == DENIED
    # A grant to the account is passed on by its administrators.
    held.grant("Encrypt", to=f"arn:aws:iam::{neighbour.id}:root")
    neighbour.client("kms").encrypt(**given)
    assert refused(neighbour.client("kms", neighbour.as_role("Guest")).encrypt, **given) == DENIED


def test_a_name_makes_it_once(held: Held) -> None:
    first = held.grant("Encrypt", Name="job")
    assert held.grant("Encrypt", Name="job")["GrantId"] == first["GrantId"]
    assert held.grant("Encrypt", "Decrypt", Name="job")["GrantId"] != first["GrantId"]
    assert held.grant("Encrypt")["GrantId"] != held.grant("Encrypt")["GrantId"]
    held.kms.revoke_grant(KeyId=held.key, GrantId=first["GrantId"])
    assert held.grant("Encrypt", Name="job")["GrantId"] != first["GrantId"]
    pages = held.kms.get_paginator("list_grants").paginate(KeyId=held.key, Limit=2)
    assert len({one["GrantId"] for page in pages for one in page["Grants"]}) == 4
    other = held.account.role("Other")
    one = held.grant("Decrypt", to=other)["GrantId"]
    assert [x["GrantId"] for x in held.kms.list_grants(KeyId=held.key, GranteePrincipal=other)["Grants"]] == [one]
    assert [x["GrantId"] for x in held.kms.list_grants(KeyId=held.key, GrantId=one)["Grants"]] == [one]
    assert refused(held.kms.list_grants, KeyId=held.key, GrantId="no") == "InvalidGrantIdException"


def test_what_cannot_be_granted(held: Held) -> None:
    create = held.kms.create_grant
    given: dict[str, Any] = {"KeyId": held.key, "GranteePrincipal": held.role}
    for wrong in (
        given | {"Operations": ["Sign"]},
        given | {"Operations": []},
        {"KeyId": held.key, "Operations": ["Encrypt"]},
        given | {"Operations": ["Encrypt"], "GranteeServicePrincipal": "s3.amazonaws.com"},
        given | {"Operations": ["DescribeKey"], "Constraints": {"EncryptionContextSubset": {"a": "b"}}},
        given
        | {
            "Operations": ["Encrypt"],
            "Constraints": {"EncryptionContextSubset": {"a": "b"}, "EncryptionContextEquals": {"a": "b"}},
        },
        given | {"Operations": ["Encrypt"], "Constraints": {"EncryptionContextSubset": {"a\n": "b"}}},
        {"KeyId": held.key, "GranteeServicePrincipal": "s3.amazonaws.com", "Operations": ["Encrypt"]},
    ):
        assert refused(create, **wrong) == "ValidationException"
    for name in ("nonsense", held.role + "-no", f"arn:aws:s3:::{held.account.id}"):
        wrong = {"KeyId": held.key, "GranteePrincipal": name, "Operations": ["Encrypt"]}
        assert refused(create, **wrong) == "InvalidArnException"
    assert refused(create, **given, Operations=["Encrypt"], DryRun=True) == "DryRunOperationException"
    managed = held.kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]["Arn"]
    assert refused(create, KeyId=managed, GranteePrincipal=held.role, Operations=["Encrypt"]) == DENIED
    assert held.kms.list_grants(KeyId=held.key)["Grants"] == []


@pytest.mark.parametrize(
    ("key", "wanted", "wrong"),
    [
        ("kms:GrantOperations", ["Encrypt"], {"Operations": ["Encrypt", "Decrypt"]}),
        ("kms:GranteePrincipal", "ROLE", {"GranteePrincipal": "OTHER"}),
        ("kms:RetiringPrincipal", "ROLE", {"RetiringPrincipal": "OTHER"}),
        (
            "kms:GrantConstraintType",
            "EncryptionContextSubset",
            {"Constraints": {"EncryptionContextEquals": {"a": "b"}}},
        ),
        ("kms:EncryptionContext:a", "b", {"Constraints": {"EncryptionContextSubset": {"a": "c"}}}),
        ("kms:GrantIsForAWSResource", "false", None),
        ("kms:GrantIsForAWSResource", "true", {}),
    ],
)
def test_conditions_of_making_one(held: Held, key: str, wanted: Any, wrong: dict[str, Any] | None) -> None:
    other = held.account.role("Other")
    names = {"ROLE": held.role, "OTHER": other}
    operator = "ForAllValues:StringEquals" if key == "kms:GrantOperations" else "StringEquals"
    wanted = names.get(wanted, wanted) if isinstance(wanted, str) else wanted
    only = {operator: {key: wanted}}
    held.account.role("Granter", allow("kms:CreateGrant", Condition=only))
    granter = held.account.client("kms", held.account.as_role("Granter"))
    given: dict[str, Any] = {
        "KeyId": held.key,
        "GranteePrincipal": held.role,
        "RetiringPrincipal": held.role,
        "Operations": ["Encrypt"],
        "Constraints": {"EncryptionContextSubset": {"a": "b"}},
    }
    if wrong != {}:
        granter.create_grant(**given)
    if wrong is not None:
        changed = {name: names.get(value, value) if isinstance(value, str) else value for name, value in wrong.items()}
        assert refused(granter.create_grant, **given | changed) == DENIED


def test_conditions_of_the_other_operations(held: Held) -> None:
    """Each key of a request is in the context with its value: a condition on it lets pass, on another it does not."""
    account, kms = held.account, held.kms
    kms.create_alias(AliasName="alias/here", TargetKeyId=held.key)
    alias = f"arn:aws:kms:{REGION}:{account.id}:alias/here"
    encrypt: tuple[str, dict[str, Any]] = ("encrypt", {"KeyId": alias, "Plaintext": b"x"})
    policy = kms.get_key_policy(KeyId=held.key)["Policy"]
    cases: list[tuple[str, str, str, tuple[str, dict[str, Any]]]] = [
        ("kms:CallerAccount", account.id, "000000000000", encrypt),
        ("kms:RequestAlias", "alias/here", "alias/there", encrypt),
        ("kms:KeySpec", "SYMMETRIC_DEFAULT", "RSA_2048", encrypt),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT", "SIGN_VERIFY", encrypt),
        ("kms:KeyOrigin", "AWS_KMS", "EXTERNAL", encrypt),
        ("kms:MultiRegion", "false", "true", encrypt),
        ("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_1", encrypt),
        ("kms:RequestAlias", "alias/here", "alias/there", ("describe_key", {"KeyId": alias})),
        (
            "kms:BypassPolicyLockoutSafetyCheck",
            "false",
            "true",
            ("put_key_policy", {"KeyId": held.key, "Policy": policy}),
        ),
    ]
    iam = account.client("iam")
    account.role("Tester")
    tester = account.client("kms", account.as_role("Tester"))

    def under(condition: dict[str, Any]) -> None:
        text = json.dumps(allow("kms:*", Condition=condition))
        iam.put_role_policy(RoleName="Tester", PolicyName="p", PolicyDocument=text)

    for key, right, wrong, (name, given) in cases:
        under({"StringEquals": {key: right}})
        getattr(tester, name)(**given)
        under({"StringEquals": {key: wrong}})
        assert refused(getattr(tester, name), **given) == DENIED, key
    for right, wrong in ((["alias/here"], ["alias/there"]),):
        under({"ForAnyValue:StringEquals": {"kms:ResourceAliases": right}})
        tester.encrypt(KeyId=held.key, Plaintext=b"x")
        under({"ForAnyValue:StringEquals": {"kms:ResourceAliases": wrong}})
        assert refused(tester.encrypt, KeyId=held.key, Plaintext=b"x") == DENIED
    under({"ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/here"]}})
    kms.delete_alias(AliasName="alias/here")
    assert refused(tester.encrypt, KeyId=held.key, Plaintext=b"x") == DENIED
    blob = kms.encrypt(KeyId=held.key, Plaintext=b"x")["CiphertextBlob"]
    under({"Bool": {"kms:ReEncryptOnSameKey": "true"}})
    tester.re_encrypt(CiphertextBlob=blob, DestinationKeyId=held.key)
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    assert refused(tester.re_encrypt, CiphertextBlob=blob, DestinationKeyId=other) == DENIED
    via = {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}
    iam.put_role_policy(RoleName="Tester", PolicyName="s3", PolicyDocument=json.dumps(allow("s3:*")))
    under(via)
    s3, bucket = account.client("s3", account.as_role("Tester")), f"via-{account.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=held.key)
    assert refused(tester.encrypt, KeyId=held.key, Plaintext=b"x") == DENIED
    under({"StringEquals": {"kms:ScheduleKeyDeletionPendingWindowInDays": "30"}})
    assert refused(tester.schedule_key_deletion, KeyId=other, PendingWindowInDays=7) == DENIED
    tester.schedule_key_deletion(KeyId=other)


def test_what_does_not_reach_across_accounts(held: Held, neighbour: Account) -> None:
    them = allow("kms:*", Principal={"AWS": [held.account.id, neighbour.id]})
    held.kms.put_key_policy(KeyId=held.key, Policy=json.dumps(them))
    theirs = neighbour.client("kms")
    theirs.describe_key(KeyId=held.key)
    for call in (theirs.disable_key, theirs.get_key_policy, theirs.schedule_key_deletion, theirs.list_resource_tags):
        assert refused(call, KeyId=held.key) == DENIED
