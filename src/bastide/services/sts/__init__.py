"""Security Token Service: who am I, and sessions of roles."""

from bastide.kernel import Service
from bastide.services.sts.session import SESSION

SERVICE = Service("sts", [SESSION])
