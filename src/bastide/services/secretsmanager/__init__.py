"""Secrets Manager: secrets in versions, encrypted under a KMS key, with policies of their own.

Rotation needs functions, replication a second region's platform: both are absent, not pretended.
Source: AWS Secrets Manager API Reference and User Guide.
"""

from bastide.kernel import Service
from bastide.services.secretsmanager import listing, password, policy, value, version
from bastide.services.secretsmanager.secret import SECRET, facts

SERVICE = Service("secretsmanager", [SECRET], facts=facts)

__all__ = ["SERVICE", "listing", "password", "policy", "value", "version"]
