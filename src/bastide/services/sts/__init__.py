"""Security Token Service: who am I, and sessions of roles and users."""

from bastide.kernel import Service
from bastide.services.sts import decoding, saml, user_session, web_identity
from bastide.services.sts.session import SESSION

SERVICE = Service("sts", [SESSION])

__all__ = ["SERVICE", "decoding", "saml", "user_session", "web_identity"]
