"""Secrets read as parameters: ``/aws/reference/secretsmanager/NAME`` is the secret NAME, read by the caller.

Source: Systems Manager User Guide, "Referencing AWS Secrets Manager secrets from Parameter Store parameters".
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.kernel import Authorised, Output
from bastide.services.ssm.parameter import arn
from bastide.store import View

_BELOW: Final = "/aws/reference/secretsmanager/"
_PRINCIPAL: Final = "ssm.amazonaws.com"
_VERSION: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def referenced(name: str) -> bool:
    """Whether a name means a secret."""
    return name.startswith(_BELOW)


def read(a: Authorised, view: View, given: str) -> Output:
    """The structure Parameter of a secret; raises Refused (ParameterNotFound, AccessDeniedException, ...)."""
    if not a.input.get("WithDecryption"):
        raise Refused("ValidationException", "WithDecryption flag must be True for retrieving a Secret Manager secret.")
    name, colon, version = given.removeprefix(_BELOW).partition(":")
    asked: dict[str, Any] = {"SecretId": name}
    if colon:
        asked["VersionId" if _VERSION.fullmatch(version) else "VersionStage"] = version
    try:
        found = a.forward(view, "secretsmanager", "GetSecretValue", asked, _PRINCIPAL)
    except Refused as refused:
        if refused.code != "ResourceNotFoundException":
            raise
        where = arn(a.account, a.region, _BELOW + name)
        raise Refused(
            "ParameterNotFound",
            f"An error occurred (ParameterNotFound) when referencing Secrets Manager: Secret {where} not found.",
            kept=refused.kept,
        ) from None
    value = found.get("SecretString")
    if value is None:
        raise Refused("ValidationException", f"The secret {name} is binary; only strings can be read as parameters.")
    source = {
        "ARN": found["ARN"], "name": found["Name"], "versionId": found["VersionId"], "secretString": value,
        "versionStages": found["VersionStages"], "createdDate": found["CreatedDate"] // MICROS,
    }  # fmt: skip
    shown: Output = {
        "Name": _BELOW + name, "Type": "SecureString", "Value": value, "Version": 0,
        "SourceResult": json.dumps(source), "LastModifiedDate": found["CreatedDate"], "ARN": found["ARN"],
    }  # fmt: skip
    return shown | ({"Selector": colon + version} if colon else {})
