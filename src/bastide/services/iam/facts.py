"""What a decision needs to know of IAM's resources."""

from __future__ import annotations

from typing import Final

from bastide.domain import Arn
from bastide.kernel import Facts
from bastide.policy import Attached, Document, Form
from bastide.services.iam.entity import Entity
from bastide.services.iam.managed import ADMINISTRATOR
from bastide.services.iam.policy import POLICY
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, View

_KINDS: Final[dict[str, Entity]] = {"role": ROLE, "user": USER, "policy": POLICY}

_RESERVED: Final = [
    "iam:CreateRole", "iam:DeleteRole", "iam:UpdateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy",
    "iam:AttachRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary",
    "iam:DeleteRolePermissionsBoundary",
]  # fmt: skip
"""What Identity Center does with the roles that permission sets become."""
_FOUNDING: Final = frozenset(_RESERVED)
_FOUNDER: Final = Attached(
    Document.parse(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "FirstRole",
                    "Effect": "Allow",
                    "Principal": {"Service": "organizations.amazonaws.com"},
                    "Action": "iam:CreateRole",
                    "Resource": "*",
                },
                {
                    "Sid": "FirstRolePolicy",
                    "Effect": "Allow",
                    "Principal": {"Service": "organizations.amazonaws.com"},
                    "Action": "iam:AttachRolePolicy",
                    "Resource": "*",
                    "Condition": {"ArnEquals": {"iam:PolicyARN": ADMINISTRATOR}},
                },
                {
                    "Sid": "PermissionSets",
                    "Effect": "Allow",
                    "Principal": {"Service": "sso.amazonaws.com"},
                    "Action": _RESERVED,
                    "Resource": "arn:aws:iam::*:role/aws-reserved/sso.amazonaws.com/*",
                },
            ],
        },
        Form.RESOURCE,
    ),
    "the trust of an account in organizations.amazonaws.com and sso.amazonaws.com",
)
"""Accounts are founded by Organizations, which gives them their first role (Organizations User Guide, "Creating a
member account"); Identity Center makes, changes and removes the roles under its own path, and no others. Nobody but the
platform itself acts as these services."""


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Owner, tags and policy of a role, user or policy. A role's policy is its trust policy, for STS's questions."""
    kind = _KINDS.get(arn.type)
    if kind is None:
        return None
    if arn.account == "aws":
        return Facts("", type=kind.name)
    sts = kind is ROLE and action.startswith("sts:")
    return view.memo(
        ("iam:facts", arn.account, arn.resource, action if action in _FOUNDING else sts),
        ((kind.key, arn.account),),
        lambda: _facts(view, kind, arn, action, sts),
    )


def _facts(view: View, kind: Entity, arn: Arn, action: str, sts: bool) -> Facts:
    row: Row | None = kind.held(view, arn.account, arn.resource.rpartition("/")[2])
    if row is None or row.doc["Arn"] != str(arn):
        row = None
    tags = {} if row is None else row.tags
    if sts:
        trust = None
        if row is not None:
            trust = Attached(Document.parse_cached(row.doc["trust"], Form.TRUST), f"trust policy of {arn}")
        return Facts(arn.account, tags, trust, "trust", kind.name)
    return Facts(arn.account, tags, _FOUNDER if action in _FOUNDING else None, type=kind.name)
