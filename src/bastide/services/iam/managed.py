"""The policies that AWS brings, as far as Bastide brings them: only those whose text is known in full.

Source: AWS Managed Policy Reference Guide, the pages of the policies. An ARN that is not here does not exist.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

ADMINISTRATOR: Final = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass(frozen=True, slots=True)
class Managed:
    """A policy of AWS's. created: of AWS's, in seconds."""

    name: str
    arn: str
    id: str
    description: str
    document: str


def _policy(name: str, description: str, *statements: dict[str, Any]) -> Managed:
    digest = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()
    return Managed(
        name,
        f"arn:aws:iam::aws:policy/{name}",
        f"ANPA{digest[:17]}",
        description,
        json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=4),
    )


_ALL: Final = (
    _policy(
        "AdministratorAccess",
        "Provides full access to AWS services and resources.",
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
    ),
    _policy(
        "AWSDenyAll",
        "Deny all access.",
        {"Sid": "DenyAll", "Effect": "Deny", "Action": ["*"], "Resource": "*"},
    ),
    _policy(
        "IAMReadOnlyAccess",
        "Provides read only access to IAM via the AWS Management Console.",
        {
            "Effect": "Allow",
            "Action": [
                "iam:GenerateCredentialReport",
                "iam:GenerateServiceLastAccessedDetails",
                "iam:Get*",
                "iam:List*",
                "iam:SimulateCustomPolicy",
                "iam:SimulatePrincipalPolicy",
            ],
            "Resource": "*",
        },
    ),
)

MANAGED: Final[dict[str, Managed]] = {one.arn: one for one in _ALL}
"""By ARN."""
