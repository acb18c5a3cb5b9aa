"""Identity and Access Management: users, roles, access keys, policies."""

from bastide.kernel import Service
from bastide.services.iam import oidc_provider, saml_provider, simulation
from bastide.services.iam.access_key import ACCESS_KEY
from bastide.services.iam.facts import facts
from bastide.services.iam.mfa import DEVICE
from bastide.services.iam.policy import POLICY
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER

SERVICE = Service(
    "iam", [USER, ROLE, POLICY, ACCESS_KEY, DEVICE, saml_provider.PROVIDER, oidc_provider.PROVIDER], facts=facts
)

__all__ = ["SERVICE", "simulation"]
