"""Messages are signed, so that who gets one over HTTP can tell that the platform sent it.

Source: Amazon SNS Developer Guide, "Verifying the signatures of Amazon SNS messages".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_SIGNED: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_ASKED: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


class Signer:
    """certificate: PEM of the platform's signing certificate. key: its private key, PEM. url: where clients reach the
    platform."""

    def __init__(self, certificate: bytes, key: bytes, url: str) -> None:
        private = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)  # our own
        assert isinstance(private, rsa.RSAPrivateKey)
        self._key = private
        self.certificate = certificate
        self.path = f"/SimpleNotificationService-{hashlib.sha256(certificate).hexdigest()[:32]}.pem"
        self.url = f"{url}{self.path}"

    def __repr__(self) -> str:
        return "Signer(...)"

    def signed(self, message: Mapping[str, Any], version: str) -> dict[str, Any]:
        """A message with its signature; version: 1 is SHA1withRSA, 2 SHA256withRSA."""
        names = _SIGNED if message["Type"] == "Notification" else _ASKED
        text = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
        digest = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303 - what version 1 is
        signature = self._key.sign(text.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), digest)
        return {
            **message,
            "SignatureVersion": version,
            "Signature": base64.b64encode(signature).decode(),
            "SigningCertURL": self.url,
        }
