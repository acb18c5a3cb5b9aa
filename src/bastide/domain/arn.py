"""Amazon Resource Names."""

from __future__ import annotations

from dataclasses import dataclass

PARTITION = "aws"


@dataclass(frozen=True, slots=True)
class Arn:
    """An ARN in its six parts: ``arn:partition:service:region:account:resource``.

    Source: IAM User Guide, "Identify AWS resources with Amazon Resource Names (ARNs)".
    """

    service: str
    region: str
    account: str
    resource: str
    partition: str = PARTITION

    @classmethod
    def parse(cls, text: str) -> Arn:
        """Reads an ARN; raises ValueError if it does not have six parts or does not begin with ``arn``."""
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn" or not parts[1] or not parts[2] or not parts[5]:
            raise ValueError(f"`{text[:200]}` is not an ARN")
        return cls(parts[2], parts[3], parts[4], parts[5], parts[1])

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def type(self) -> str:
        """What stands before the first slash or colon of the resource: ``training-job`` of ``training-job/x``."""
        for index, char in enumerate(self.resource):
            if char in "/:":
                return self.resource[:index]
        return self.resource

    @property
    def name(self) -> str:
        """What stands behind the first slash or colon of the resource: ``x`` of ``training-job/x``."""
        for index, char in enumerate(self.resource):
            if char in "/:":
                return self.resource[index + 1 :]
        return ""
