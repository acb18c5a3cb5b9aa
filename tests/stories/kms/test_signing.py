"""Key pairs and HMAC keys, told with boto3; what they make is checked by another library, outside."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import botocore.exceptions
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from tests.platform import Account, allow

CURVES = {
    "ECC_NIST_P256": ("ECDSA_SHA_256", "secp256r1"),
    "ECC_NIST_P384": ("ECDSA_SHA_384", "secp384r1"),
    "ECC_NIST_P521": ("ECDSA_SHA_512", "secp521r1"),
    "ECC_SECG_P256K1": ("ECDSA_SHA_256", "secp256k1"),
}


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


@pytest.fixture
def kms(account: Account) -> Any:
    return account.client("kms")


def made(kms: Any, spec: str, usage: str) -> str:
    return str(kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"])


def test_rsa_signs(kms: Any) -> None:
    for spec, bits in (("RSA_2048", 2048), ("RSA_3072", 3072), ("RSA_4096", 4096)):
        key = made(kms, spec, "SIGN_VERIFY")
        shown = kms.get_public_key(KeyId=key)
        public = load_der_public_key(shown["PublicKey"])
        assert isinstance(public, rsa.RSAPublicKey)
        assert (public.key_size, shown["KeySpec"], shown["KeyUsage"]) == (bits, spec, "SIGN_VERIFY")
        assert shown["SigningAlgorithms"] == kms.describe_key(KeyId=key)["KeyMetadata"]["SigningAlgorithms"]
        for algorithm in shown["SigningAlgorithms"]:
            size = algorithm[-3:]
            given = {"KeyId": key, "SigningAlgorithm": algorithm}
            hashed = getattr(hashes, f"SHA{size}")()
            way = padding.PSS(padding.MGF1(hashed), hashed.digest_size) if "PSS" in algorithm else padding.PKCS1v15()
            signature = kms.sign(Message=b"text", **given)["Signature"]
            public.verify(signature, b"text", way, hashed)
            digest = hashlib.new(f"sha{size}", b"text").digest()
            assert kms.verify(Message=digest, MessageType="DIGEST", Signature=signature, **given)["SignatureValid"]
            other = kms.sign(Message=digest, MessageType="DIGEST", **given)["Signature"]
            assert kms.verify(Message=b"text", Signature=other, **given)["SigningAlgorithm"] == algorithm
            assert refused(kms.verify, Message=b"texT", Signature=signature, **given) == "KMSInvalidSignatureException"
            assert refused(kms.sign, Message=digest + b"x", MessageType="DIGEST", **given) == "ValidationException"


def test_curves_sign(kms: Any) -> None:
    for spec, (algorithm, curve) in CURVES.items():
        key = made(kms, spec, "SIGN_VERIFY")
        public = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
        assert isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == curve
        given = {"KeyId": key, "SigningAlgorithm": algorithm}
        signature = kms.sign(Message=b"text", **given)["Signature"]
        public.verify(signature, b"text", ec.ECDSA(getattr(hashes, f"SHA{algorithm[-3:]}")()))
        kms.verify(Message=b"text", Signature=signature, **given)
        spoiled = signature[:-1] + bytes([signature[-1] ^ 1])
        for wrong in (spoiled, b"x", signature + b"\0"):
            assert refused(kms.verify, Message=b"text", Signature=wrong, **given) == "KMSInvalidSignatureException"
        wrong_one = {**given, "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
        assert refused(kms.sign, Message=b"text", **wrong_one) == "InvalidKeyUsageException"
    assert refused(kms.sign, KeyId=key, SigningAlgorithm="ECDSA_SHA_384", Message=b"x") == "InvalidKeyUsageException"


def test_rsa_encrypts(kms: Any) -> None:
    key, other = (made(kms, "RSA_2048", "ENCRYPT_DECRYPT") for _ in range(2))
    public = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(public, rsa.RSAPublicKey)
    for algorithm, hashed, most in (
        ("RSAES_OAEP_SHA_1", hashes.SHA1(), 214),
        ("RSAES_OAEP_SHA_256", hashes.SHA256(), 190),
    ):
        given = {"KeyId": key, "EncryptionAlgorithm": algorithm}
        outside = public.encrypt(b"text", padding.OAEP(padding.MGF1(hashed), hashed, None))
        assert kms.decrypt(CiphertextBlob=outside, **given)["Plaintext"] == b"text"
        blob = kms.encrypt(Plaintext=b"x" * most, **given)["CiphertextBlob"]
        assert kms.decrypt(CiphertextBlob=blob, **given)["Plaintext"] == b"x" * most
        assert refused(kms.encrypt, Plaintext=b"x" * (most + 1), **given) == "ValidationException"
        assert refused(kms.encrypt, Plaintext=b"x", EncryptionContext={"a": "b"}, **given) == "ValidationException"
        assert refused(kms.decrypt, CiphertextBlob=blob, **{**given, "KeyId": other}) == "InvalidCiphertextException"
        assert refused(kms.decrypt, CiphertextBlob=b"nonsense", **given) == "InvalidCiphertextException"
        assert refused(kms.decrypt, CiphertextBlob=blob, EncryptionAlgorithm=algorithm) == "ValidationException"
    assert refused(kms.decrypt, CiphertextBlob=blob) == "InvalidCiphertextException"
    assert refused(kms.encrypt, KeyId=key, Plaintext=b"x") == "InvalidKeyUsageException"
    assert refused(kms.generate_data_key, KeyId=key, KeySpec="AES_256") == "InvalidKeyUsageException"
    assert refused(kms.sign, KeyId=key, Message=b"x", SigningAlgorithm="RSASSA_PSS_SHA_256") == (
        "InvalidKeyUsageException"
    )
    symmetric = kms.create_key()["KeyMetadata"]["Arn"]
    moved = kms.re_encrypt(
        CiphertextBlob=blob, SourceKeyId=key, SourceEncryptionAlgorithm="RSAES_OAEP_SHA_256", DestinationKeyId=symmetric,
        DestinationEncryptionContext={"a": "b"},
    )  # fmt: skip
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"a": "b"})["Plaintext"] == b"x" * 190
    assert refused(kms.encrypt, KeyId=symmetric, Plaintext=b"x", EncryptionAlgorithm="RSAES_OAEP_SHA_1") == (
        "InvalidKeyUsageException"
    )


def test_codes(kms: Any) -> None:
    for size in ("224", "256", "384", "512"):
        key, algorithm = made(kms, f"HMAC_{size}", "GENERATE_VERIFY_MAC"), f"HMAC_SHA_{size}"
        given = {"KeyId": key, "MacAlgorithm": algorithm, "Message": b"text"}
        code = kms.generate_mac(**given)["Mac"]
        assert len(code) == int(size) // 8
        assert kms.verify_mac(Mac=code, **given)["MacValid"]
        assert refused(kms.verify_mac, Mac=code, **{**given, "Message": b"x"}) == "KMSInvalidMacException"
        assert refused(kms.verify_mac, Mac=code[:-1], **given) == "KMSInvalidMacException"
    assert refused(kms.generate_mac, **{**given, "MacAlgorithm": "HMAC_SHA_256"}) == "InvalidKeyUsageException"
    assert refused(kms.get_public_key, KeyId=key) == "UnsupportedOperationException"
    symmetric = kms.create_key()["KeyMetadata"]["KeyId"]
    assert refused(kms.generate_mac, **{**given, "KeyId": symmetric}) == "InvalidKeyUsageException"
    assert refused(kms.get_public_key, KeyId=symmetric) == "UnsupportedOperationException"
    assert refused(kms.encrypt, KeyId=key, Plaintext=b"x") == "InvalidKeyUsageException"
    assert hmac.compare_digest(code, kms.generate_mac(**given)["Mac"])


def test_data_key_pairs(kms: Any) -> None:
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    for spec in ("RSA_2048", *CURVES):
        pair = kms.generate_data_key_pair(KeyId=key, KeyPairSpec=spec, EncryptionContext={"a": "b"})
        private = load_der_private_key(pair["PrivateKeyPlaintext"], None)
        assert private.public_key() == load_der_public_key(pair["PublicKey"])
        opened = kms.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"], EncryptionContext={"a": "b"})
        assert opened["Plaintext"] == pair["PrivateKeyPlaintext"]
    hidden = kms.generate_data_key_pair_without_plaintext(KeyId=key, KeyPairSpec="ECC_NIST_P256")
    assert "PrivateKeyPlaintext" not in hidden and hidden["KeyPairSpec"] == "ECC_NIST_P256"
    assert refused(kms.generate_data_key_pair, KeyId=key, KeyPairSpec="SM2") == "UnsupportedOperationException"
    signer = made(kms, "ECC_NIST_P256", "SIGN_VERIFY")
    assert refused(kms.generate_data_key_pair, KeyId=signer, KeyPairSpec="RSA_2048") == "InvalidKeyUsageException"


def test_random(kms: Any) -> None:
    one, other = (kms.generate_random(NumberOfBytes=1024)["Plaintext"] for _ in range(2))
    assert len(one) == 1024 and one != other
    assert refused(kms.generate_random) == "ValidationException"
    assert refused(kms.generate_random, NumberOfBytes=8, CustomKeyStoreId="cks-1234567890") == (
        "CustomKeyStoreNotFoundException"
    )


def test_what_is_not_made(kms: Any) -> None:
    for given, code in (
        ({"KeySpec": "SM2", "KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException"),
        ({"KeySpec": "ML_DSA_44", "KeyUsage": "SIGN_VERIFY"}, "UnsupportedOperationException"),
        ({"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}, "UnsupportedOperationException"),
        ({"MultiRegion": True}, "UnsupportedOperationException"),
        ({"Origin": "AWS_CLOUDHSM", "CustomKeyStoreId": "cks-1234567890"}, "UnsupportedOperationException"),
        ({"KeySpec": "RSA_2048"}, "ValidationException"),
        ({"KeyUsage": "SIGN_VERIFY"}, "ValidationException"),
        ({"KeySpec": "ECC_NIST_P256", "KeyUsage": "ENCRYPT_DECRYPT"}, "ValidationException"),
        ({"KeySpec": "HMAC_256", "KeyUsage": "SIGN_VERIFY"}, "ValidationException"),
        (
            {"KeySpec": "RSA_2048", "CustomerMasterKeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
            "ValidationException",
        ),
    ):
        assert refused(kms.create_key, **given) == code, given


def test_a_disabled_pair_signs_nothing(kms: Any) -> None:
    key = made(kms, "ECC_NIST_P256", "SIGN_VERIFY")
    signature = kms.sign(KeyId=key, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
    kms.disable_key(KeyId=key)
    given = {"KeyId": key, "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert refused(kms.sign, **given) == "DisabledException"
    assert refused(kms.verify, Signature=signature, **given) == "DisabledException"
    assert refused(kms.get_public_key, KeyId=key) == "DisabledException"


def test_conditions(account: Account, kms: Any) -> None:
    rsa_key, mac_key = made(kms, "RSA_2048", "SIGN_VERIFY"), made(kms, "HMAC_256", "GENERATE_VERIFY_MAC")
    plain = kms.create_key()["KeyMetadata"]["Arn"]
    only = {
        "kms:SigningAlgorithm": "RSASSA_PSS_SHA_256",
        "kms:MessageType": "RAW",
        "kms:KeySpec": "RSA_2048",
        "kms:KeyUsage": "SIGN_VERIFY",
        "kms:KeyOrigin": "AWS_KMS",
    }
    pairs = allow("kms:GenerateDataKeyPair", Condition={"StringEquals": {"kms:DataKeyPairSpec": "ECC_NIST_P256"}})
    macs = allow("kms:GenerateMac", Condition={"StringEquals": {"kms:MacAlgorithm": "HMAC_SHA_512"}})
    policy = allow("kms:Sign", Condition={"StringEquals": only})
    policy["Statement"] += pairs["Statement"] + macs["Statement"]
    account.role("signer", policy)
    signer = account.client("kms", account.as_role("signer"))
    given = {"KeyId": rsa_key, "Message": b"x", "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    signer.sign(**given)
    for change in ({"SigningAlgorithm": "RSASSA_PSS_SHA_512"}, {"MessageType": "DIGEST", "Message": b"x" * 32}):
        assert refused(signer.sign, **{**given, **change}) == "AccessDeniedException"
    assert refused(signer.verify, Signature=b"x", **given) == "AccessDeniedException"
    signer.generate_data_key_pair(KeyId=plain, KeyPairSpec="ECC_NIST_P256")
    assert refused(signer.generate_data_key_pair, KeyId=plain, KeyPairSpec="RSA_2048") == "AccessDeniedException"
    assert refused(signer.generate_mac, KeyId=mac_key, Message=b"x", MacAlgorithm="HMAC_SHA_256") == (
        "AccessDeniedException"
    )


def test_grants_of_a_pair(account: Account, kms: Any) -> None:
    key = made(kms, "ECC_NIST_P256", "SIGN_VERIFY")
    role = account.role("grantee")
    grantee = account.client("kms", account.as_role("grantee"))
    given = {"KeyId": key, "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert refused(grantee.sign, **given) == "AccessDeniedException"
    kms.create_grant(KeyId=key, GranteePrincipal=role, Operations=["Sign", "GetPublicKey"])
    signature = grantee.sign(**given)["Signature"]
    assert grantee.get_public_key(KeyId=key)["PublicKey"]
    assert refused(grantee.verify, Signature=signature, **given) == "AccessDeniedException"
    for wrong in (
        {"Operations": ["Encrypt"]},
        {"Operations": ["Sign"], "Constraints": {"EncryptionContextEquals": {"a": "b"}}},
    ):
        assert refused(kms.create_grant, KeyId=key, GranteePrincipal=role, **wrong) == "ValidationException"
