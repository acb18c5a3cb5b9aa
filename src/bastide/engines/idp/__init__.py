"""Identity providers outside of the platform: what they say of themselves, and whether what they assert is theirs.

`Metadata` and `verify_response` are SAML 2.0; `Issuers` and `verify_token` are OpenID Connect. Nothing here knows who may
do what: a verified assertion says who somebody is.
"""

from bastide.engines.idp.issuers import Issuers
from bastide.engines.idp.rejected import Rejected
from bastide.engines.idp.saml import Assertion, Metadata, verify_response
from bastide.engines.idp.tokens import Claims, issuer_of, verify_token

__all__ = [
    "Assertion",
    "Claims",
    "Issuers",
    "Metadata",
    "Rejected",
    "issuer_of",
    "verify_response",
    "verify_token",
]
