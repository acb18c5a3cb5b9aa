"""Organizations: the organisation, its units and accounts, and the policies that bind them."""

from __future__ import annotations

from bastide.domain import Arn
from bastide.kernel import Facts, Service
from bastide.services.organizations import account, organization, policy, unit
from bastide.services.organizations.noun import ACCOUNT, ORGANIZATION, POLICY, REQUEST, ROOT, SCOPES, UNIT
from bastide.store import View

_KINDS = {"root": ROOT, "ou": UNIT, "account": ACCOUNT, "policy": POLICY}


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """Everything belongs to the management account, which the ARN names; AWS's own policies to whoever asks."""
    if arn.account == "aws":
        return Facts("", type=POLICY.name)
    kind = _KINDS.get(arn.type)
    if kind is None:
        return None

    def load() -> Facts:
        row = kind.row(view, arn.resource.rpartition("/")[2])
        known = row is not None and row.doc["Arn"] == str(arn)
        return Facts(arn.account, row.tags if row is not None and known else {}, type=kind.name)

    return view.memo(("organizations:facts", arn.account, arn.resource), SCOPES, load)


SERVICE = Service("organizations", [ORGANIZATION, ROOT, UNIT, ACCOUNT, REQUEST, POLICY], facts=facts)

__all__ = ["SERVICE", "account", "facts", "organization", "policy", "unit"]
