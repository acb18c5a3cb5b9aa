"""Keys of objects: every object has its own, wrapped by KMS (SSE-KMS), by its bucket's key (SSE-S3), or by a key that the
customer sends with each request and that is kept nowhere (SSE-C).

KMS is called for the caller, with ``kms:ViaService``: who may not use the key cannot read or write the object.
Source: S3 User Guide, "Using server-side encryption with AWS KMS keys", "Protecting data with server-side encryption",
"Using server-side encryption with customer-provided keys (SSE-C)".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.kernel import Authorised
from bastide.services.s3.asking import object_arn
from bastide.services.s3.bucket import Bucket, not_implemented, own_key
from bastide.store import View

PRINCIPAL: Final = "s3.amazonaws.com"
MANAGED: Final = "alias/aws/s3"
CUSTOMER: Final = "customer"
_CODES: Final = {"AccessDeniedException": ("AccessDenied", 403)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How an object is to be encrypted. sse: "AES256", "aws:kms" or `CUSTOMER`."""

    sse: str
    kms_key: str = ""
    context: dict[str, str] | None = None
    bucket_key: bool = False
    customer: bytes = field(default=b"", repr=False)


def customer_key(a: Authorised, prefix: str = "") -> bytes | None:
    """The key that a request brings for SSE-C, None if it brings none; raises Refused for one that is not whole.

    prefix: "CopySource" for that of a copy's source.
    """
    algorithm, text, digest = (a.input.get(f"{prefix}SSECustomer{one}") for one in ("Algorithm", "Key", "KeyMD5"))
    if algorithm is None and text is None and digest is None:
        return None
    if not a.request.secure:
        raise Refused(
            "InvalidRequest",
            "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.",
        )
    must = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if algorithm is None:
        raise Refused("InvalidArgument", f"{must} a valid encryption algorithm.")
    if algorithm != "AES256":
        raise Refused(
            "InvalidEncryptionAlgorithmError",
            "The encryption request you specified is not valid. Supported value: AES256.",
        )
    if text is None:
        raise Refused("InvalidArgument", f"{must} an appropriate secret key.")
    if digest is None:
        raise Refused("InvalidArgument", f"{must} the client calculated MD5 of the secret key.")
    try:
        key = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise Refused("InvalidArgument", "The secret key was invalid for the specified algorithm.")
    if not hmac.compare_digest(_md5(key).encode(), str(digest).encode()):
        raise Refused("InvalidArgument", "The calculated MD5 hash of the key did not match the hash that was provided.")
    return key


def _md5(key: bytes) -> str:
    return base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()


def wanted(a: Authorised, bucket: Bucket) -> Wanted:
    """What the request asks for, else what the bucket's default is; raises InvalidArgument."""
    given = a.input
    sse, key = given.get("ServerSideEncryption"), given.get("SSEKMSKeyId")
    customer = customer_key(a)
    if customer is not None:
        if sse is not None or key:
            raise Refused(
                "InvalidArgument",
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
            )
        return Wanted(CUSTOMER, customer=customer)
    if sse is None:
        if key or given.get("SSEKMSEncryptionContext"):
            raise Refused(
                "InvalidArgument",
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : "
                "aws:kms",
                400,
            )
        if bucket.sse == "AES256":
            return Wanted("AES256")
        chosen = given.get("BucketKeyEnabled")
        return Wanted("aws:kms", bucket.kms_key, None, bucket.bucket_key if chosen is None else bool(chosen))
    if sse == "AES256":
        if key or given.get("SSEKMSEncryptionContext"):
            raise Refused(
                "InvalidArgument",
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : "
                "aws:kms",
                400,
            )
        return Wanted("AES256")
    if sse != "aws:kms":
        raise not_implemented(f"Encryption by {sse}")
    chosen = given.get("BucketKeyEnabled")
    if not key and bucket.sse == "aws:kms":
        key = bucket.kms_key
    return Wanted(
        "aws:kms",
        str(key or ""),
        _context(given.get("SSEKMSEncryptionContext")),
        bucket.bucket_key if chosen is None else bool(chosen),
    )


def _context(text: str | None) -> dict[str, str] | None:
    if not text:
        return None
    try:
        found = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise Refused(
            "InvalidArgument",
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which "
            "represents a string-string map",
            400,
        )
    if "aws:s3:arn" in found:
        raise Refused("InvalidArgument", "The encryption context may not have the key aws:s3:arn.", 400)
    return found


def _kms(a: Authorised, view: View, operation: str, input: dict[str, Any], bucket: Bucket) -> dict[str, Any]:
    try:
        return a.forward(view, "kms", operation, input, PRINCIPAL, kms__ViaService=f"s3.{bucket.region}.amazonaws.com")
    except Refused as refused:
        code, status = _CODES.get(refused.code, (f"KMS.{refused.code}", 400))
        raise Refused(code, refused.message, status, kept=refused.kept) from None


def new_key(a: Authorised, bucket: Bucket, key: str, how: Wanted) -> tuple[bytes, dict[str, Any]]:
    """A new object's key (32 bytes), and what its row keeps of it.

    Raises Refused as KMS does for the caller (``AccessDenied``, ``KMS.NotFoundException``, ...).
    """
    if how.sse == "AES256":
        plain = engine.new_material()
        blob = engine.encrypt(own_key(a, bucket), bucket.arn, 1, plain, {"aws:s3:arn": object_arn(bucket.name, key)})
        return plain, {"sse": "AES256", "k": base64.b64encode(blob).decode()}
    if how.sse == CUSTOMER:
        plain = engine.new_material()
        blob = engine.encrypt(how.customer, CUSTOMER, 1, plain, {"aws:s3:arn": object_arn(bucket.name, key)})
        return plain, {"sse": CUSTOMER, "k": base64.b64encode(blob).decode(), "ck": _md5(how.customer)}
    context = dict(how.context or {})
    context["aws:s3:arn"] = bucket.arn if how.bucket_key else object_arn(bucket.name, key)
    input = {"KeyId": how.kms_key or MANAGED, "KeySpec": "AES_256", "EncryptionContext": context}
    with a.calls.store.reading() as view:
        made = _kms(a, view, "GenerateDataKey", input, bucket)
    return made["Plaintext"], {
        "sse": "aws:kms",
        "k": base64.b64encode(made["CiphertextBlob"]).decode(),
        "kms": made["KeyId"],
        "ctx": context,
        **({"bk": True} if how.bucket_key else {}),
    }


def open_key(a: Authorised, view: View, bucket: Bucket, key: str, doc: dict[str, Any], prefix: str = "") -> bytes:
    """An object's key; raises Refused as KMS does for the caller, or unless the request brings the customer's key.

    prefix: "CopySource" if the object is a copy's source.
    """
    blob = base64.b64decode(doc["k"])
    customer = customer_key(a, prefix)
    if doc["sse"] == CUSTOMER:
        if customer is None:
            raise Refused(
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to "
                "retrieve the object.",
            )
        try:
            return engine.decrypt(customer, blob, {"aws:s3:arn": object_arn(bucket.name, key)})
        except Refused:
            raise Refused(
                "AccessDenied", "The key that was provided is not the one that the object was stored under.", 403
            ) from None
    if customer is not None:
        raise Refused("InvalidRequest", "The encryption parameters are not applicable to this object.")
    if doc["sse"] == "AES256":
        return engine.decrypt(own_key(a, bucket), blob, {"aws:s3:arn": object_arn(bucket.name, key)})
    input = {"CiphertextBlob": blob, "KeyId": doc["kms"], "EncryptionContext": doc["ctx"]}
    plain: bytes = _kms(a, view, "Decrypt", input, bucket)["Plaintext"]
    return plain


def shown(doc: dict[str, Any]) -> dict[str, Any]:
    """How an object is encrypted, as answers say it."""
    if doc["sse"] == "AES256":
        return {"ServerSideEncryption": "AES256"}
    if doc["sse"] == CUSTOMER:
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKeyMD5": doc["ck"]}
    found = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": doc["kms"]}
    if doc.get("bk"):
        found["BucketKeyEnabled"] = True
    return found
