"""Organizations: the organisation, its units and accounts, and the policies that bind them."""

from __future__ import annotations

from dataclasses import replace

from bastide.domain import Arn
from bastide.kernel import Facts, Service
from bastide.services.organizations import account, delegation, handshake, organization, policy, unit
from bastide.services.organizations.noun import (
    ACCOUNT,
    HANDSHAKE,
    ORGANIZATION,
    POLICY,
    REQUEST,
    RESOURCE_POLICY,
    ROOT,
    SCOPES,
    UNIT,
)
from bastide.store import View

_KINDS = {"root": ROOT, "ou": UNIT, "account": ACCOUNT, "policy": POLICY, "resourcepolicy": RESOURCE_POLICY}
_SCOPES = (*SCOPES, (RESOURCE_POLICY.key, ""))


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Everything belongs to the management account, which the ARN names; AWS's own policies to whoever asks."""
    if arn.account == "aws":
        return Facts("", type=POLICY.name)
    if arn.type == "handshake":
        # It belongs to both sides alike; which side a caller is on, the handler finds out.
        return Facts("", type=HANDSHAKE.name)
    kind = _KINDS.get(arn.type)
    if kind is None:
        return None

    def load() -> Facts:
        row = kind.row(view, arn.resource.rpartition("/")[2])
        known = row is not None and row.doc["Arn"] == str(arn)
        return Facts(arn.account, row.tags if row is not None and known else {}, type=kind.name)

    found = view.memo(("organizations:facts", arn.account, arn.resource), _SCOPES, load)
    held = delegation.delegation(view)
    return found if held is None else replace(found, policy=held)


SERVICE = Service(
    "organizations",
    [ORGANIZATION, ROOT, UNIT, ACCOUNT, REQUEST, POLICY, RESOURCE_POLICY, HANDSHAKE],
    facts=facts,
)

__all__ = ["SERVICE", "account", "delegation", "facts", "handshake", "organization", "policy", "unit"]
