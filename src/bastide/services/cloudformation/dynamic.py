"""Dynamic references: values of Systems Manager and Secrets Manager, filled in when a resource is made and never kept.

Source: CloudFormation User Guide, "Get values stored in other services using dynamic references".
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.acting import Actor

_REFERENCE: Final = re.compile(r"\{\{resolve:(ssm|ssm-secure|secretsmanager):([^{}]{1,1024})\}\}")
_ANY: Final = "{{resolve:"


class Dynamic:
    """Fills references in, with whoever acts for a stack; each is looked up once an operation."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._known: dict[str, str] = {}

    async def filled(self, value: Any) -> Any:
        """A tree with its references filled in; raises Refused."""
        if isinstance(value, str):
            return await self._text(value) if _ANY in value else value
        if isinstance(value, list):
            return [await self.filled(one) for one in value]
        if isinstance(value, dict):
            return {key: await self.filled(one) for key, one in value.items()}
        return value

    async def _text(self, value: str) -> str:
        found, at = "", 0
        for match in _REFERENCE.finditer(value):
            found += value[at : match.start()] + await self._looked_up(match[1], match[2])
            at = match.end()
        found += value[at:]
        if at == 0:
            raise Refused("ValidationError", "A dynamic reference is {{resolve:ssm|ssm-secure|secretsmanager:...}}.")
        return found

    async def _looked_up(self, store: str, reference: str) -> str:
        key = f"{store}:{reference}"
        if key not in self._known:
            self._known[key] = await (
                self._secret(reference) if store == "secretsmanager" else self._parameter(reference, store)
            )
        return self._known[key]

    async def _parameter(self, reference: str, store: str) -> str:
        secure = store == "ssm-secure"
        try:
            asked = {"Name": reference, "WithDecryption": secure}
            told = (await self._actor.act("ssm", "GetParameter", asked))["Parameter"]
        except Refused as refused:
            if refused.code != "ParameterNotFound":
                raise
            raise Refused(
                "ValidationError", f"Unable to fetch parameters [{reference}] from parameter store for this account."
            ) from None
        if (told["Type"] == "SecureString") != secure:
            raise Refused(
                "ValidationError",
                f"The parameter {reference} is {'not ' if secure else ''}a SecureString; use "
                f"ssm{'' if secure else '-secure'}.",
            )
        return str(told["Value"])

    async def _secret(self, reference: str) -> str:
        if reference.startswith("arn:"):
            parts = reference.split(":")
            id, more = ":".join(parts[:7]), parts[7:]
        else:
            id, *more = reference.split(":")
        kind, member, stage, version = (*more, "", "", "", "")[:4]
        if kind not in ("", "SecretString"):
            raise Refused("ValidationError", "A secret's reference asks for its SecretString.")
        asked = {"SecretId": id}
        if stage:
            asked["VersionStage"] = stage
        if version:
            asked["VersionId"] = version
        text = (await self._actor.act("secretsmanager", "GetSecretValue", asked)).get("SecretString")
        if text is None:
            raise Refused("ValidationError", f"The secret {id} has no text.")
        if not member:
            return str(text)
        try:
            held = orjson.loads(text)
        except orjson.JSONDecodeError:
            held = None
        if not isinstance(held, dict) or member not in held:
            raise Refused("ValidationError", f"Could not find a value associated with JSONKey in SecretString of {id}.")
        return str(held[member])
