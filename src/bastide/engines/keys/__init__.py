"""Key material: wrapped by a root key, used for envelopes. The back end of KMS, of objects and of session tokens."""

from bastide.engines.keys.envelope import decrypt, encrypt, key_of, new_material
from bastide.engines.keys.root import RootKey, create_root
from bastide.engines.keys.safe import Gone, Safe
from bastide.engines.keys.sources import SourceError, create_keyring, open_ring, open_root, ring_of, rotate_root

__all__ = [
    "Gone", "RootKey", "Safe", "SourceError", "create_keyring", "create_root", "decrypt", "encrypt", "key_of",
    "new_material", "open_ring", "open_root", "ring_of", "rotate_root",
]  # fmt: skip
