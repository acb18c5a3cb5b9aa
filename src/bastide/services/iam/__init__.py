"""Identity and Access Management: users, groups, roles, instance profiles, access keys, policies."""

from bastide.kernel import Service
from bastide.services.iam import account_details, oidc_provider, policy_use, saml_provider, simulation
from bastide.services.iam.access_key import ACCESS_KEY
from bastide.services.iam.account_alias import ALIAS
from bastide.services.iam.credential_report import CREDENTIAL_REPORT
from bastide.services.iam.facts import facts
from bastide.services.iam.group import GROUP
from bastide.services.iam.instance_profile import INSTANCE_PROFILE
from bastide.services.iam.last_accessed import ADVISOR
from bastide.services.iam.mfa import DEVICE
from bastide.services.iam.policy import POLICY
from bastide.services.iam.role import ROLE
from bastide.services.iam.service_credential import CREDENTIAL
from bastide.services.iam.service_linked import TASK
from bastide.services.iam.user import USER

SERVICE = Service(
    "iam",
    [
        USER, GROUP, ROLE, POLICY, INSTANCE_PROFILE, ACCESS_KEY, DEVICE, saml_provider.PROVIDER, oidc_provider.PROVIDER,
        ALIAS, TASK, CREDENTIAL_REPORT, ADVISOR, CREDENTIAL,
    ],
    facts=facts,
)  # fmt: skip

__all__ = ["SERVICE", "account_details", "policy_use", "simulation"]
