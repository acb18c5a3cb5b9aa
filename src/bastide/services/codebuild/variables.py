"""The variables of a build: the buildspec's, the project's, the request's, in that order, and what CodeBuild itself tells.

Values of parameters and secrets are fetched with the project's role, and are not to be seen in any log. Source: CodeBuild
User Guide, "Environment variables in build environments", "env/secrets-manager".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.workflow import Failed
from bastide.services.codebuild.buildspec import Buildspec
from bastide.services.codebuild.session import RoleSession

HIDDEN: Final = "***"
_SHORTEST: Final = 3
"""Characters of what is hidden: less would hide half of every line and tell the value by what is missing."""


@dataclass(slots=True)
class Variables:
    """values: by name. secrets: values that are hidden, the longest first, for who hides the short one first leaves the
    rest of the long one."""

    values: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def hide(self, value: str) -> None:
        """A value is not to be seen; neither is any line of it."""
        parts = {value, value.strip(), *(line.strip() for line in value.splitlines())}
        found = {*self.secrets, *(one for one in parts if len(one) >= _SHORTEST)}
        self.secrets = sorted(found, key=lambda one: (-len(one), one))

    def masked(self, text: str) -> str:
        """A text without what is hidden."""
        for secret in self.secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text


async def gather(session: RoleSession, spec: Buildspec, given: Sequence[Mapping[str, Any]]) -> Variables:
    """The variables, with the role's permissions; raises Failed. given: as EnvironmentVariable has them, later ones win."""
    wanted: dict[str, tuple[str, str]] = {}
    for name, value in spec.variables.items():
        wanted[name] = ("PLAINTEXT", value)
    for name, value in spec.parameters.items():
        wanted[name] = ("PARAMETER_STORE", value)
    for name, value in spec.secrets.items():
        wanted[name] = ("SECRETS_MANAGER", value)
    for one in given:
        wanted[one["name"]] = (one.get("type") or "PLAINTEXT", one["value"])
    found = Variables()
    for name, (kind, value) in wanted.items():
        text = value
        if kind == "PARAMETER_STORE":
            text = await _parameter(session, name, value)
        elif kind == "SECRETS_MANAGER":
            text = await _secret(session, name, value)
        if "\0" in text:
            raise Failed("CLIENT_ERROR", f"The value of the environment variable {name} holds a zero byte.")
        found.values[name] = text
        if kind != "PLAINTEXT":
            found.hide(text)
    return found


async def _parameter(session: RoleSession, name: str, value: str) -> str:
    try:
        told = await session.act("ssm", "GetParameter", {"Name": value, "WithDecryption": True})
    except Refused as refused:
        raise Failed(
            "CLIENT_ERROR",
            f"Parameter Store: the value of {name}, the parameter {value[:200]}, could not be read: {refused.code}: "
            f"{refused.message}",
        ) from None
    return str(told["Parameter"]["Value"])


async def _secret(session: RoleSession, name: str, value: str) -> str:
    """``secret-id:json-key:version-stage:version-id``; an ARN has colons of its own."""
    parts = value.split(":")
    if value.startswith("arn:"):
        parts = [":".join(parts[:7]), *parts[7:]]
    parts += [""] * (4 - len(parts))
    asked = {"SecretId": parts[0]}
    if parts[2]:
        asked["VersionStage"] = parts[2]
    if parts[3]:
        asked["VersionId"] = parts[3]
    try:
        told = await session.act("secretsmanager", "GetSecretValue", asked)
    except Refused as refused:
        raise Failed(
            "CLIENT_ERROR",
            f"Secrets Manager: the value of {name}, the secret {parts[0][:200]}, could not be read: {refused.code}: "
            f"{refused.message}",
        ) from None
    text = told.get("SecretString")
    if text is None:
        raise Failed("CLIENT_ERROR", f"Secrets Manager: the value of {name} is binary, which no variable can be.")
    if not parts[1]:
        return str(text)
    try:
        held = orjson.loads(text)[parts[1]]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        raise Failed("CLIENT_ERROR", f"Secrets Manager: the secret of {name} has no key {parts[1][:100]}.") from None
    return held if isinstance(held, str) else orjson.dumps(held).decode()
