"""Parameters: how they are named, kept and encrypted.

A parameter is one row with its newest version; earlier versions lie in rows of their own, so that reading one costs the
same however long its history. A SecureString is encrypted by KMS for the caller, with the encryption context that AWS uses
(``PARAMETER_ARN``): who may not use the key cannot write or read it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Arn, Instant, Refused
from bastide.engines import keys as engine
from bastide.kernel import Asked, Authorised, Facts, Kind
from bastide.kernel.happened import tell
from bastide.store import Row, Transaction, View

PARAMETER = Kind("Parameter", service="ssm", arn="parameter/{}", named_by="Name")
VERSION: Final = "ssm:ParameterVersion"
"""Rows of earlier versions, named ``NAME:0000000001``: no parameter's name has a colon."""
_PRINCIPAL: Final = "ssm.amazonaws.com"
_MANAGED: Final = "alias/aws/ssm"
_NAME: Final = re.compile(r"[a-zA-Z0-9_.\-/]+")
_LONGEST: Final = 1011
"""Characters of the ARN's part behind ``parameter`` that names may have (API Reference, "PutParameter")."""
_DEEPEST: Final = 15
_DIRECT: Final = 4096
"""Bytes that KMS encrypts itself; longer values are encrypted under a data key."""


def not_found(name: str = "") -> Refused:
    """ParameterNotFound."""
    return Refused("ParameterNotFound", f"The parameter {name} does not exist." if name else "")


def address(asked: Asked, name: str) -> str:
    """The ARN of a parameter that a caller names, without version or label: ``/a/b`` and ``parameter/a/b`` have one
    slash between them. An ARN is taken as it is."""
    if name.startswith("arn:"):
        head, _, selector = name.partition(":parameter")
        return f"{head}:parameter{selector.partition(':')[0]}"
    return arn(asked.call.account, asked.call.region, name.partition(":")[0])


def arn(account: str, region: str, name: str) -> str:
    """The ARN of a parameter."""
    return f"arn:aws:ssm:{region}:{account}:parameter/{name.removeprefix('/')}"


def this(asked: Asked) -> Iterable[str]:
    """The ARN of the parameter that the call names."""
    return (address(asked, str(asked.input["Name"])),)


def these(asked: Asked) -> Iterable[str]:
    """The ARNs of the parameters that the call names."""
    return [address(asked, str(name)) for name in asked.input["Names"]]


def located(a: Authorised, given: str) -> tuple[str, str, str, str]:
    """Account, region, name and selector (``:3``, ``:label`` or nothing) of what a caller names.

    Raises Refused (ValidationException) for what cannot be a name.
    """
    if given.startswith("arn:"):
        try:
            found = Arn.parse(given)
        except ValueError:
            raise _illegal(given) from None
        path, colon, selector = found.resource.removeprefix("parameter").partition(":")
        if found.service != "ssm" or found.type != "parameter" or found.region != a.region:
            raise _illegal(given)
        name = path if path.count("/") > 1 else path.removeprefix("/")
        if arn(found.account, found.region, name) != given.removesuffix(colon + selector):
            raise _illegal(given)
        return found.account, found.region, legal(name), colon + selector
    name, colon, selector = given.partition(":")
    return a.account, a.region, legal(name), colon + selector


def _illegal(given: str) -> Refused:
    return Refused(
        "ValidationException", f"Parameter name: {given[:300]!r} is not the name or ARN of a parameter here."
    )


def legal(name: str) -> str:
    """The name; raises Refused for one that no parameter can have."""
    deep = "/" in name and not name.startswith("/")
    if (
        deep
        or not _NAME.fullmatch(name)
        or "//" in name
        or (name.endswith("/") and name != "/")
        or len(name) > _LONGEST
    ):
        raise Refused(
            "ValidationException",
            'Parameter name: can\'t be prefixed with "ssm" (case-insensitive). If formed as a path, it can consist of '
            "sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following "
            "3 symbols .-_" + (" A name with slashes begins with one." if deep else ""),
        )
    return name


def new_name(name: str) -> str:
    """The name of a parameter to be made; reserved prefixes and deep hierarchies are refused."""
    legal(name)
    first = name.removeprefix("/").partition("/")[0].lower()
    if first.startswith(("aws", "ssm")):
        raise Refused(
            "ValidationException", f'No access to reserved parameter name: {name}. "aws" and "ssm" are reserved.'
        )
    if name.count("/") > _DEEPEST:
        raise Refused(
            "HierarchyLevelLimitExceededException", f"Hierarchies may have {_DEEPEST} levels at most; see {name}."
        )
    return name


# -- rows --------------------------------------------------------------------------------------------------------------


def expired(row: Row, now: Instant) -> bool:
    """Whether the parameter's expiration is past: it is gone then, though its row may not be swept yet."""
    at = row.doc.get("expires")
    return at is not None and at <= now


def held(a: Authorised, view: View, account: str, region: str, name: str) -> Row | None:
    """The row of a parameter that is there, or None."""
    row = view.get(PARAMETER.key, account, region, name)
    return None if row is None or expired(row, a.now) else row


def found(a: Authorised, view: View, given: str) -> tuple[Row, str]:
    """The row of a parameter that the call names, and the selector; raises ParameterNotFound."""
    account, region, name, selector = located(a, given)
    row = held(a, view, account, region, name)
    if row is None:
        raise not_found()
    return row, selector


def version_name(name: str, version: int) -> str:
    """The name of an earlier version's row."""
    return f"{name}:{version:010d}"


def version_of(view: View, row: Row, version: int) -> dict[str, Any] | None:
    """What a version was, or None."""
    if version == row.doc["Version"]:
        return row.doc
    earlier = view.get(VERSION, row.account, row.region, version_name(row.name, version))
    return None if earlier is None else earlier.doc


def remove(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes a parameter away with its versions."""
    while earlier := tx.scan(VERSION, row.account, row.region, prefix=f"{row.name}:", limit=100):
        for one in earlier:
            tx.delete(one, keep=False)
    PARAMETER.remove(tx, row, a.operation.name, a.request.id)
    told(tx, row, "Delete")


def told(tx: Transaction, row: Row, operation: str) -> None:
    """Tells EventBridge of a change. Source: Systems Manager User Guide, "Reference: Amazon EventBridge event patterns and
    types for Systems Manager"."""
    detail = {"operation": operation, "name": row.name, "type": row.doc["Type"]}
    if row.doc.get("Description"):
        detail["description"] = row.doc["Description"]
    tell(
        tx, account=row.account, region=row.region, source="aws.ssm", detail_type="Parameter Store Change",
        resources=[arn(row.account, row.region, row.name)], detail=detail,
    )  # fmt: skip


def facts(view: View, where: Arn, action: str) -> Facts | None:
    """Whose a parameter is, and its tags. ``parameter/a`` is the ARN of both ``a`` and, as a path, ``/a``."""
    if where.type != "parameter":
        return None
    path = where.resource.removeprefix("parameter")
    for name in (path, path.removeprefix("/")):
        row = view.get(PARAMETER.key, where.account, where.region, name)
        if row is not None:
            return Facts(where.account, row.tags, type="Parameter")
    return Facts(where.account, type="Parameter")


# -- values ------------------------------------------------------------------------------------------------------------


def _kms(a: Authorised, view: View, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        return a.forward(view, "kms", operation, given, _PRINCIPAL, kms__ViaService=f"ssm.{a.region}.amazonaws.com")
    except Refused as refused:
        if refused.code == "NotFoundException":
            raise Refused("InvalidKeyId", refused.message, kept=refused.kept) from None
        if refused.code in ("DisabledException", "KMSInvalidStateException", "InvalidKeyUsageException"):
            raise Refused("InvalidKeyId", f"{refused.message} ({refused.code})", kept=refused.kept) from None
        raise


def sealed(a: Authorised, tx: Transaction, where: str, value: str, key: str) -> dict[str, str]:
    """What a row keeps of a SecureString: the ciphertext, a wrapped data key for a long one, and the key's id as given."""
    context = {"PARAMETER_ARN": where}
    raw = value.encode()
    if len(raw) <= _DIRECT:
        made = _kms(a, tx, "Encrypt", {"KeyId": key, "Plaintext": raw, "EncryptionContext": context})
        return {"secret": base64.b64encode(made["CiphertextBlob"]).decode(), "KeyId": key}
    made = _kms(a, tx, "GenerateDataKey", {"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context})
    blob = engine.encrypt(made["Plaintext"], where, 1, raw, context)
    return {
        "secret": base64.b64encode(blob).decode(),
        "wrapped": base64.b64encode(made["CiphertextBlob"]).decode(),
        "KeyId": key,
    }


def opened(a: Authorised, view: View, where: str, doc: dict[str, Any]) -> str:
    """The value of a SecureString; raises Refused as KMS does for the caller."""
    context = {"PARAMETER_ARN": where}
    blob = base64.b64decode(doc["secret"])
    if "wrapped" not in doc:
        made = _kms(a, view, "Decrypt", {"CiphertextBlob": blob, "EncryptionContext": context})
        return bytes(made["Plaintext"]).decode()
    wrapped = base64.b64decode(doc["wrapped"])
    made = _kms(a, view, "Decrypt", {"CiphertextBlob": wrapped, "EncryptionContext": context})
    return engine.decrypt(made["Plaintext"], blob, context).decode()


def key_for(given: str | None) -> str:
    """The key that a SecureString is encrypted under: the account's own for this service unless one is named."""
    return given or _MANAGED


def shown(
    a: Authorised, view: View, row: Row, doc: dict[str, Any], *, decrypt: bool, selector: str = ""
) -> dict[str, Any]:
    """The structure Parameter."""
    where = arn(row.account, row.region, row.name)
    secret = doc["Type"] == "SecureString"
    told: dict[str, Any] = {
        "Name": row.name,
        "Type": doc["Type"],
        "Value": (opened(a, view, where, doc) if decrypt else doc["secret"]) if secret else doc["Value"],
        "Version": doc["Version"],
        "LastModifiedDate": doc["at"],
        "ARN": where,
        "DataType": doc["DataType"],
    }
    if selector:
        told["Selector"] = selector
    return told


def described(row: Row, doc: dict[str, Any]) -> dict[str, Any]:
    """The structure ParameterMetadata, without the value and the ARN."""
    told: dict[str, Any] = {"Name": row.name, "LastModifiedDate": doc["at"], "LastModifiedUser": doc["by"]}
    for member in ("Type", "KeyId", "Description", "AllowedPattern", "Version", "Tier", "DataType"):
        if doc.get(member):
            told[member] = doc[member]
    told["Policies"] = [
        {name: policy[name] for name in ("PolicyType", "PolicyText", "PolicyStatus")}
        for policy in doc.get("Policies", ())
    ]
    return told
