"""Keys, told with boto3: what they encrypt, who may use them, how they end."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


@pytest.fixture
def kms(account: Account) -> Any:
    return account.client("kms")


def test_only_the_same_key_and_context_open_it(kms: Any) -> None:
    one, other = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    blob = kms.encrypt(KeyId=one, Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext={"a": "b"})
    assert (opened["Plaintext"], opened["KeyId"]) == (b"x", one)
    assert refused(kms.decrypt, CiphertextBlob=blob) == "InvalidCiphertextException"
    assert refused(kms.decrypt, CiphertextBlob=blob, EncryptionContext={"a": "c"}) == "InvalidCiphertextException"
    changed = blob[:-1] + bytes([blob[-1] ^ 1])
    assert refused(kms.decrypt, CiphertextBlob=changed, EncryptionContext={"a": "b"}) == "InvalidCiphertextException"
    assert refused(kms.decrypt, CiphertextBlob=b"nonsense") == "InvalidCiphertextException"
    assert refused(kms.decrypt, CiphertextBlob=blob, EncryptionContext={"a": "b"}, KeyId=other) == (
        "IncorrectKeyException"
    )
    again = kms.re_encrypt(CiphertextBlob=blob, SourceEncryptionContext={"a": "b"}, DestinationKeyId=other)
    assert kms.decrypt(CiphertextBlob=again["CiphertextBlob"])["KeyId"] == other


def test_data_keys(kms: Any) -> None:
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    assert len(made["Plaintext"]) == 32
    assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"] == made["Plaintext"]
    hidden = kms.generate_data_key_without_plaintext(KeyId=key, NumberOfBytes=16)
    assert len(kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == 16
    assert refused(kms.generate_data_key, KeyId=key) == "ValidationException"


def test_a_key_has_four_names(kms: Any, account: Account) -> None:
    key = kms.create_key(Description="d")["KeyMetadata"]
    kms.create_alias(AliasName="alias/one", TargetKeyId=key["KeyId"])
    alias = f"arn:aws:kms:us-east-1:{account.id}:alias/one"
    for name in (key["KeyId"], key["Arn"], "alias/one", alias):
        assert kms.describe_key(KeyId=name)["KeyMetadata"]["KeyId"] == key["KeyId"]
    assert refused(kms.create_alias, AliasName="alias/one", TargetKeyId=key["KeyId"]) == "AlreadyExistsException"
    other = kms.create_key()["KeyMetadata"]
    kms.update_alias(AliasName="alias/one", TargetKeyId=other["KeyId"])
    assert kms.describe_key(KeyId="alias/one")["KeyMetadata"]["Arn"] == other["Arn"]
    kms.delete_alias(AliasName="alias/one")
    assert refused(kms.describe_key, KeyId="alias/one") == "NotFoundException"
    assert refused(kms.describe_key, KeyId="00000000-0000-0000-0000-000000000000") == "NotFoundException"


def test_states(kms: Any) -> None:
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    assert refused(kms.encrypt, KeyId=key, Plaintext=b"x") == "DisabledException"
    kms.enable_key(KeyId=key)
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert refused(kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=6) == "ValidationException"
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert refused(kms.decrypt, CiphertextBlob=blob) == "KMSInvalidStateException"
    kms.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_the_key_policy_has_the_first_word(account: Account, neighbour: Account, kms: Any) -> None:
    role = account.role("user", allow("kms:*"))
    me = f"arn:aws:iam::{account.id}:role/OrganizationAccountAccessRole"

    def policy(*who: str) -> str:
        grant = {"Effect": "Allow", "Principal": {"AWS": list(who)}, "Action": "kms:*", "Resource": "*"}
        return json.dumps({"Version": "2012-10-17", "Statement": [grant]})

    key = kms.create_key(Policy=policy(me))["KeyMetadata"]["Arn"]
    user = account.client("kms", account.as_role("user"))
    assert refused(user.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    kms.put_key_policy(KeyId=key, Policy=policy(me, role))
    user.encrypt(KeyId=key, Plaintext=b"x")
    assert refused(kms.put_key_policy, KeyId=key, Policy=policy(role)) == "MalformedPolicyDocumentException"
    assert refused(kms.put_key_policy, KeyId=key, Policy="{}") == "MalformedPolicyDocumentException"
    other = neighbour.client("kms")
    assert refused(other.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"
    kms.put_key_policy(KeyId=key, Policy=policy(me, f"arn:aws:iam::{neighbour.id}:root"))
    blob = other.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert other.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_the_context_is_a_condition(account: Account, kms: Any) -> None:
    key = kms.create_key()["KeyMetadata"]["Arn"]
    only = {"StringEquals": {"kms:EncryptionContext:team": "risk"}}
    account.role("risk", allow("kms:Encrypt", resource=key, Condition=only))
    risk = account.client("kms", account.as_role("risk"))
    risk.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"team": "risk"})
    assert refused(risk.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext={"team": "it"}) == "AccessDeniedException"
    assert refused(risk.encrypt, KeyId=key, Plaintext=b"x") == "AccessDeniedException"


def test_aws_managed_keys_are_nobodys_to_manage(account: Account, kms: Any) -> None:
    found = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    assert found["KeyManager"] == "AWS"
    assert refused(kms.encrypt, KeyId=found["Arn"], Plaintext=b"x") == "AccessDeniedException"
    for call in (kms.disable_key, kms.schedule_key_deletion):
        assert refused(call, KeyId=found["KeyId"]) == "AccessDeniedException"


def test_tags_and_lists(kms: Any) -> None:
    key = kms.create_key(Tags=[{"TagKey": "a", "TagValue": "1"}])["KeyMetadata"]["KeyId"]
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "b", "TagValue": "2"}])
    kms.untag_resource(KeyId=key, TagKeys=["a"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "b", "TagValue": "2"}]
    others = {kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(3)}
    found: list[str] = []
    for page in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}):
        found += [one["KeyId"] for one in page["Keys"]]
    assert others | {key} <= set(found) and len(found) == len(set(found))
