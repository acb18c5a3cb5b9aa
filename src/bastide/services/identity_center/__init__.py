"""IAM Identity Center: people, what they are assigned, and how they sign in. One product, four of AWS's APIs."""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.identity_center.assignment import ASSIGNMENT
from bastide.services.identity_center.group import GROUP
from bastide.services.identity_center.instance import INSTANCE, facts
from bastide.services.identity_center.member import MEMBERSHIP
from bastide.services.identity_center.oidc import CLIENT, Portal
from bastide.services.identity_center.permission_set import PERMISSION_SET
from bastide.services.identity_center.portal import PORTAL
from bastide.services.identity_center.sign_in import stands
from bastide.services.identity_center.user import USER

SERVICES: tuple[Service, ...] = (
    Service("identitystore", [USER, GROUP, MEMBERSHIP], facts=facts),
    Service("sso", [PORTAL]),
    Service("sso-admin", [INSTANCE, PERMISSION_SET, ASSIGNMENT], facts=facts, prefix="sso"),
    Service("sso-oidc", [CLIENT], prefix="sso"),
)

__all__ = ["SERVICES", "Portal", "stands"]
