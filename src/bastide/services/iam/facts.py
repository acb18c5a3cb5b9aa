"""What a decision needs to know of IAM's resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bastide.domain import Arn
from bastide.kernel import Facts
from bastide.policy import Attached, Document, Form
from bastide.services.iam import trust
from bastide.services.iam.entity import Entity
from bastide.services.iam.group import GROUP
from bastide.services.iam.instance_profile import INSTANCE_PROFILE
from bastide.services.iam.managed import ADMINISTRATOR
from bastide.services.iam.policy import POLICY
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, View

_KINDS: Final[dict[str, Entity]] = {
    "role": ROLE,
    "user": USER,
    "group": GROUP,
    "policy": POLICY,
    "instance-profile": INSTANCE_PROFILE,
}

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
                {
                    "Sid": "StackSets",
                    "Effect": "Allow",
                    "Principal": {"Service": "member.org.stacksets.cloudformation.amazonaws.com"},
                    "Action": "iam:CreateRole",
                    "Resource": "arn:aws:iam::*:role/stacksets-exec-*",
                },
                {
                    "Sid": "StackSetsPolicy",
                    "Effect": "Allow",
                    "Principal": {"Service": "member.org.stacksets.cloudformation.amazonaws.com"},
                    "Action": "iam:AttachRolePolicy",
                    "Resource": "arn:aws:iam::*:role/stacksets-exec-*",
                    "Condition": {"ArnEquals": {"iam:PolicyARN": ADMINISTRATOR}},
                },
            ],
        },
        Form.RESOURCE,
    ),
    "the trust of an account in Organizations, Identity Center and StackSets",
)
"""Accounts are founded by Organizations, which gives them their first role (Organizations User Guide, "Creating a
member account"); Identity Center makes, changes and removes the roles under its own path, and no others. Nobody but the
platform itself acts as these services."""


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Owner, tags and policy of one of IAM's entities. A role's policy is its trust policy, for STS's questions."""
    kind = _KINDS.get(arn.type)
    if kind is None:
        return None
    if arn.account == "aws":
        return Facts("", type=kind.name)
    if kind is ROLE and action.startswith("sts:"):
        row, scopes = view.memo(
            ("iam:trusting", arn.account, arn.resource), ((ROLE.key, arn.account),), lambda: _trusting(view, arn)
        )
        return view.memo(("iam:trust", arn.account, arn.resource), scopes, lambda: _trust(view, arn, row))
    return view.memo(
        ("iam:facts", arn.account, arn.resource, action if action in _FOUNDING else ""),
        ((kind.key, arn.account),),
        lambda: _facts(view, kind, arn, action),
    )


def _row(view: View, kind: Entity, arn: Arn) -> Row | None:
    row = kind.held(view, arn.account, arn.resource.rpartition("/")[2])
    return row if row is not None and row.doc["Arn"] == str(arn) else None


def _facts(view: View, kind: Entity, arn: Arn, action: str) -> Facts:
    row = _row(view, kind, arn)
    return Facts(
        arn.account, {} if row is None else row.tags, _FOUNDER if action in _FOUNDING else None, type=kind.name
    )


def _trusting(view: View, arn: Arn) -> tuple[Row | None, Sequence[tuple[str, str]]]:
    """The role, and what its trust depends on: itself, and whether those it names are still there."""
    row = _row(view, ROLE, arn)
    named = () if row is None else trust.accounts(row.doc)
    return row, ((ROLE.key, arn.account), *((kind.key, account) for account in named for kind in (ROLE, USER)))


def _trust(view: View, arn: Arn, row: Row | None) -> Facts:
    if row is None:
        return Facts(arn.account, {}, None, "trust", ROLE.name)
    held = Attached(trust.compiled(view, row.doc), f"trust policy of {arn}")
    return Facts(arn.account, row.tags, held, "trust", ROLE.name)
