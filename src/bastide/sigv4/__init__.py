"""AWS Signature Version 4: header, presigned and chunked, and the checksums of bodies."""

from bastide.sigv4.checksums import Checksums, digest
from bastide.sigv4.chunked import Chunked
from bastide.sigv4.signature import Presented, payload_hash_wanted, read, signing_key, verify

__all__ = ["Checksums", "Chunked", "Presented", "digest", "payload_hash_wanted", "read", "signing_key", "verify"]
