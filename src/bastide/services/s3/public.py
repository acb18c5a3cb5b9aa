"""Which bucket policies are public, and what "restrict public buckets" makes of them.

A policy is public unless every statement that allows something is held to fixed values: a named principal, or a condition
on where or who. Source: S3 User Guide, "Blocking public access to your Amazon S3 storage", "The meaning of 'public'".
"""

from __future__ import annotations

import ipaddress
import json
from functools import lru_cache
from typing import Any, Final

_FIXING: Final = frozenset(
    {
        "aws:principalorgid", "aws:principalorgpaths", "aws:principalaccount", "aws:principalarn", "aws:sourcearn",
        "aws:sourceaccount", "aws:sourceorgid", "aws:sourceorgpaths", "aws:sourcevpc", "aws:sourcevpce",
        "aws:sourceowner", "aws:sourceip", "aws:userid", "aws:vpcsourceip", "aws:username",
        "s3:x-amz-server-side-encryption-aws-kms-key-id", "s3:dataaccesspointarn", "s3:dataaccesspointaccount",
    }
)  # fmt: skip
_POSITIVE: Final = frozenset(
    {"stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike", "ipaddress"}
)
_WIDEST: Final = {4: 8, 6: 32}
"""Prefix lengths of the widest range of addresses that still is "where"; wider ones are public (the same page)."""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _anybody(statement: dict[str, Any]) -> bool:
    if "NotPrincipal" in statement:
        return True
    principal = statement.get("Principal")
    if principal == "*":
        return True
    return isinstance(principal, dict) and "*" in _list(principal.get("AWS", []))


def _wide(text: str) -> bool:
    """Whether a value of a condition on addresses is a range so wide that it fixes nothing, however it is written."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return True
    return network.prefixlen < _WIDEST[network.version]


def _fixed(statement: dict[str, Any]) -> bool:
    """Whether some condition ties a statement to fixed values."""
    for operator, block in (statement.get("Condition") or {}).items():
        if operator.lower() not in _POSITIVE:
            continue
        for key, wanted in block.items():
            values = [str(one) for one in _list(wanted)]
            wild = any(char in one for one in values for char in "*?$")
            wide = operator.lower() == "ipaddress" and any(_wide(one) for one in values)
            if key.lower() in _FIXING and values and not wild and not wide:
                return True
    return False


@lru_cache(4096)
def is_public(text: str) -> bool:
    """Whether a bucket policy is public; `text` has been checked."""
    return any(
        statement.get("Effect") == "Allow" and _anybody(statement) and not _fixed(statement)
        for statement in _list(json.loads(text)["Statement"])
    )


@lru_cache(4096)
def restricted(text: str, bucket: str, account: str) -> str:
    """A public policy as it holds while public buckets are restricted: for the owner's account and for services only."""
    document = json.loads(text)
    outside = {
        "Sid": "RestrictPublicBuckets",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {
            "StringNotEquals": {"aws:PrincipalAccount": account},
            "Bool": {"aws:PrincipalIsAWSService": "false"},
        },
    }
    document["Statement"] = [*_list(document["Statement"]), outside]
    return json.dumps(document)
