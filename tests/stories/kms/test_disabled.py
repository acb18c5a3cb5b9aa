"""A key that is disabled is disabled everywhere, at once; enabled again, all is as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest

from tests.platform import Account, allow


@pytest.mark.control("ENC-09")
def test_disabling_bites_at_once(account: Account) -> None:
    kms, s3 = account.client("kms"), account.client("s3")
    secrets, ssm = account.client("secretsmanager"), account.client("ssm")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    bucket = f"disabled-{account.id}"
    s3.create_bucket(Bucket=bucket)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [{**rule, "BucketKeyEnabled": True}]}
    )
    s3.put_object(Bucket=bucket, Key="small", Body=b"x")
    s3.put_object(Bucket=bucket, Key="large", Body=b"x" * 300_000)
    secrets.create_secret(Name="word", SecretString="x", KmsKeyId=key)
    ssm.put_parameter(Name="/word", Value="x", Type="SecureString", KeyId=key)
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    uses: list[Callable[[], Any]] = [
        lambda: s3.get_object(Bucket=bucket, Key="small"),
        lambda: s3.get_object(Bucket=bucket, Key="large", Range="bytes=0-9"),
        lambda: s3.put_object(Bucket=bucket, Key="new", Body=b"x"),
        lambda: secrets.get_secret_value(SecretId="word"),
        lambda: secrets.put_secret_value(SecretId="word", SecretString="y"),
        lambda: ssm.get_parameter(Name="/word", WithDecryption=True),
        lambda: ssm.put_parameter(Name="/word", Value="y", Type="SecureString", KeyId=key, Overwrite=True),
        lambda: kms.decrypt(CiphertextBlob=blob),
        lambda: kms.generate_data_key(KeyId=key, KeySpec="AES_256"),
    ]
    for _ in range(2):
        for use in uses:
            use()
        kms.disable_key(KeyId=key)
        for number, use in enumerate(uses):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                use()
            assert refused.value.response["Error"]["Code"] in (
                "DisabledException", "KMS.DisabledException", "InvalidKeyId", "DecryptionFailure", "EncryptionFailure",
            ), (number, refused.value)  # fmt: skip
        kms.enable_key(KeyId=key)

    account.role("user", allow("kms:Encrypt"))
    user = account.client("kms", account.as_role("user"))
    user.encrypt(KeyId=key, Plaintext=b"x")
    outside = kms.get_key_policy(KeyId=key)["Policy"].replace(":root", ":role/user")
    for call, given, code in (
        (user.schedule_key_deletion, {}, "AccessDeniedException"),
        (user.decrypt, {"CiphertextBlob": blob}, "AccessDeniedException"),
        (kms.put_key_policy, {"Policy": outside}, "MalformedPolicyDocumentException"),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            call(KeyId=key, **given)
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.control("ENC-10")
def test_rotation_by_hand(account: Account) -> None:
    """On demand, and by pointing an alias elsewhere: what is new is under the new key, what is old still opens."""
    kms, s3 = account.client("kms"), account.client("s3")
    old, new = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    before = kms.encrypt(KeyId=old, Plaintext=b"x")["CiphertextBlob"]
    kms.rotate_key_on_demand(KeyId=old)
    after = kms.encrypt(KeyId=old, Plaintext=b"x")["CiphertextBlob"]
    ids = [kms.decrypt(CiphertextBlob=blob)["KeyMaterialId"] for blob in (before, after)]
    assert ids[0] != ids[1]
    moved = kms.re_encrypt(CiphertextBlob=before, DestinationKeyId=old)
    assert [moved["SourceKeyMaterialId"], moved["DestinationKeyMaterialId"]] == ids
    assert [one["RotationType"] for one in kms.list_key_rotations(KeyId=old)["Rotations"]] == ["ON_DEMAND"]
    for _ in range(24):
        kms.rotate_key_on_demand(KeyId=old)
    with pytest.raises(kms.exceptions.LimitExceededException):
        kms.rotate_key_on_demand(KeyId=old)
    shown = list(kms.get_paginator("list_key_rotations").paginate(KeyId=old, PaginationConfig={"PageSize": 10}))
    assert [len(page["Rotations"]) for page in shown] == [10, 10, 5]
    assert kms.decrypt(CiphertextBlob=before)["Plaintext"] == b"x"

    bucket = f"aliased-{account.id}"
    s3.create_bucket(Bucket=bucket)
    kms.create_alias(AliasName="alias/one", TargetKeyId=old)
    under = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/one"}
    s3.put_object(Bucket=bucket, Key="old", Body=b"x", **under)
    account.role("half", allow("kms:UpdateAlias", resource=[old, f"arn:aws:kms:us-east-1:{account.id}:alias/one"]))
    half = account.client("kms", account.as_role("half"))
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        half.update_alias(AliasName="alias/one", TargetKeyId=new)
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    kms.update_alias(AliasName="alias/one", TargetKeyId=new)
    s3.put_object(Bucket=bucket, Key="new", Body=b"x", **under)
    for name, key in (("old", old), ("new", new)):
        got = s3.get_object(Bucket=bucket, Key=name)
        assert (got["Body"].read(), got["SSEKMSKeyId"]) == (b"x", key)
