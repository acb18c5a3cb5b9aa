"""KMS: keys that encrypt, sign and authenticate, under key policies that have the first word.

Source: AWS KMS API Reference and Developer Guide.
"""

from bastide.kernel import Service
from bastide.services.kms import cipher, grant, importing, key, rotation, signing
from bastide.services.kms.alias import ALIAS
from bastide.services.kms.keeper import Keeper, migrate, opened
from bastide.services.kms.noun import KEY, facts

SERVICE = Service("kms", kinds=[KEY, ALIAS, grant.NOUN], facts=facts)

__all__ = ["SERVICE", "Keeper", "cipher", "grant", "importing", "key", "migrate", "opened", "rotation", "signing"]
