"""KMS: symmetric keys that encrypt, under key policies that have the first word.

Source: AWS KMS API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.kms import cipher
from bastide.services.kms.alias import ALIAS
from bastide.services.kms.key import KEY, facts

SERVICE = Service("kms", kinds=[KEY, ALIAS], facts=facts)

__all__ = ["SERVICE", "cipher"]
