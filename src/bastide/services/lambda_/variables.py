"""Environment variables at rest.

Without a KMS key of one's own they are under a key of the platform's. With one (`KMSKeyArn`) they are under a data key that
the caller has KMS encrypt, and the function's role gets a grant to decrypt it, for this function's encryption context
alone; who may not decrypt does not see them, and where the key is disabled nothing runs. Source: Lambda Developer Guide,
"Securing Lambda environment variables"; the encryption context as CloudTrail shows it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.keys import new_material
from bastide.kernel import Authorised, Caller, Calls, Output
from bastide.services.lambda_.noun import PRINCIPAL, invalid
from bastide.store import Transaction, View

_CONTEXT: Final = "aws:lambda:FunctionArn"
_PURPOSE: Final = "lambda/variables"
_MOST: Final = 4096
_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
_RESERVED: Final = frozenset(
    {
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    }
)  # fmt: skip
"""Lambda Developer Guide, "Defined runtime environment variables"."""
_WORDS: Final = {
    "DisabledException": ("KMSDisabledException", 502),
    "KMSInvalidStateException": ("KMSInvalidStateException", 502),
    "NotFoundException": ("KMSNotFoundException", 502),
}
_KEY: Final = re.compile(r"arn:aws:kms:[a-z0-9-]+:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+")


def check(variables: Mapping[str, str]) -> None:
    """Raises Refused for variables that no function may have."""
    reserved = sorted(_RESERVED & variables.keys())
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            f"contains reserved keys that are currently not supported for modification. Reserved keys used in this "
            f"request: {', '.join(reserved)}"
        )
    for name, value in variables.items():
        if "\0" in value:
            raise invalid(f"The environment variable {name[:100]!r} has a zero byte in it.")
        if not _NAME.fullmatch(name):
            raise invalid(
                f"The environment variable {name[:100]!r} has letters, digits and _, and begins with a letter."
            )
    size = len(orjson.dumps(dict(variables)))
    if size > _MOST:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have provided "
            f"exceeded the 4KB limit. String measured: {orjson.dumps(sorted(variables)).decode()[:1000]}"
        )


def _via(region: str) -> str:
    return f"lambda.{region}.amazonaws.com"


def sealed(a: Authorised, tx: Transaction, arn: str, role: str, key: str, variables: Mapping[str, str]) -> Any:
    """What a row keeps of variables; arn: the function's. Raises Refused where the key cannot be used."""
    plain = orjson.dumps(dict(variables))
    if not key:
        return {"sealed": a.calls.sealer.seal(plain, _PURPOSE)}
    if not _KEY.fullmatch(key):
        raise invalid("KMSKeyArn is the ARN of a KMS key or of an alias.")
    context, data = {_CONTEXT: arn}, new_material()
    try:
        made = a.forward(
            tx, "kms", "Encrypt", {"KeyId": key, "Plaintext": data, "EncryptionContext": context}, PRINCIPAL,
            kms__ViaService=_via(a.region),
        )  # fmt: skip
        granted = {
            "KeyId": made["KeyId"],
            "GranteePrincipal": role,
            "Operations": ["Decrypt", "RetireGrant"],
            "Constraints": {"EncryptionContextEquals": context},
            # The same name and the same grant are one grant, however often variables change.
            "Name": f"lambda-{hashlib.sha256(f'{arn} {role}'.encode()).hexdigest()[:32]}",
        }
        a.forward(tx, "kms", "CreateGrant", granted, PRINCIPAL, kms__ViaService=_via(a.region))
    except Refused as refused:
        if refused.code == "AccessDeniedException":
            raise
        raise invalid(
            f"Lambda was unable to configure access to your environment variables because the KMS key is invalid: "
            f"{refused.message} ({refused.code})"
        ) from None
    wrapped = base64.b64encode(made["CiphertextBlob"]).decode()
    return {
        "key": made["KeyId"],
        "wrapped": wrapped,
        "sealed": base64.b64encode(engine.encrypt(data, arn, 1, plain, context)).decode(),
    }


def _opened(arn: str, kept: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, str]:
    held: dict[str, str] = orjson.loads(
        engine.decrypt(made["Plaintext"], base64.b64decode(kept["sealed"]), {_CONTEXT: arn})
    )
    return held


def _asked(arn: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    return {"CiphertextBlob": base64.b64decode(kept["wrapped"]), "EncryptionContext": {_CONTEXT: arn}}


def own(calls: Calls, kept: Mapping[str, Any] | None) -> dict[str, str]:
    """Variables under the platform's own key."""
    if kept is None:
        return {}
    held: dict[str, str] = orjson.loads(calls.sealer.open(kept["sealed"], _PURPOSE))
    return held


def opened(a: Authorised, view: View, arn: str, kept: Mapping[str, Any]) -> dict[str, str]:
    """The variables, for the caller; raises Refused as KMS does."""
    if "key" not in kept:
        return own(a.calls, kept)
    return _opened(
        arn, kept, a.forward(view, "kms", "Decrypt", _asked(arn, kept), PRINCIPAL, kms__ViaService=_via(a.region))
    )


def shown(a: Authorised, view: View, arn: str, kept: Mapping[str, Any] | None) -> Output | None:
    """The member Environment of an answer: the variables, or why the caller does not see them."""
    if kept is None:
        return None
    try:
        return {"Variables": opened(a, view, arn, kept)}
    except Refused as refused:
        message = (
            f"Lambda was unable to decrypt your environment variables because the KMS access was denied. Please check "
            f"your KMS permissions. KMS Exception: {refused.code} KMS Message: {refused.message}"
        )
        return {"Error": {"ErrorCode": refused.code, "Message": message}}


async def for_role(calls: Calls, role: Caller, region: str, arn: str, kept: Mapping[str, Any]) -> dict[str, str]:
    """Variables under a key of one's own, for a session of the function's role; raises Refused in Lambda's words."""
    context = {"kms:viaservice": _via(region)}
    where = kept["key"].split(":")[3]
    try:
        made = await calls.act(
            role, "kms", "Decrypt", _asked(arn, kept), region=where, source=PRINCIPAL, context=context
        )
    except Refused as refused:
        code, status = _WORDS.get(refused.code, ("KMSAccessDeniedException", 502))
        raise Refused(
            code,
            "Lambda was unable to decrypt the environment variables because KMS access was denied. Please check the "
            f"function's KMS key settings. KMS Exception: {refused.code} KMS Message: {refused.message}",
            status,
        ) from None
    return _opened(arn, kept, made)
