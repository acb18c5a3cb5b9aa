"""The policies that AWS brings, as far as Bastide brings them: only those whose text is known in full.

A document lies beside this module as a file of the policy's name and is read when it is asked for; ``index.json`` holds
path, default version, and creation and last change in seconds of each. Earlier versions are not kept. An ARN that is not
here does not exist.

Source: AWS Managed Policy Reference Guide, the pages of the policies.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import orjson

from bastide.domain import MICROS, Instant

ADMINISTRATOR: Final = "arn:aws:iam::aws:policy/AdministratorAccess"
_FOLDER: Final = Path(__file__).parent
_OF_SERVICES: Final = "/aws-service-role/"


@dataclass(frozen=True)
class Managed:
    """A policy of AWS's. version: the default version, the only one at hand; created and updated: of AWS's."""

    name: str
    path: str
    version: str
    created: Instant
    updated: Instant
    description: str = ""

    @property
    def arn(self) -> str:
        """Its ARN, the same in every account."""
        return f"arn:aws:iam::aws:policy{self.path}{self.name}"

    @property
    def id(self) -> str:
        """An id in the form of AWS's, always the same."""
        return f"ANPA{base64.b32encode(hashlib.sha256(self.name.encode()).digest()).decode()[:17]}"

    @property
    def of_service(self) -> bool:
        """Whether it is for service-linked roles only."""
        return self.path == _OF_SERVICES

    @cached_property
    def document(self) -> str:
        """The text of the default version."""
        return (_FOLDER / f"{self.name}.json").read_text("utf-8")


def _index() -> Mapping[str, Managed]:
    listed = orjson.loads((_FOLDER / "index.json").read_bytes())
    found = [
        Managed(name, path, version, created * MICROS, updated * MICROS, *more)
        for name, (path, version, created, updated, *more) in listed.items()
    ]
    return {one.arn: one for one in found}


MANAGED: Final = _index()
"""By ARN, in the order of the names."""
