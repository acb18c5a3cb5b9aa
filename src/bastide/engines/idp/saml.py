"""SAML 2.0: metadata of an identity provider, and the responses it signs.

Source: OASIS, "Assertions and Protocols for SAML V2.0" (core), "Profiles for SAML V2.0" 4.1.4, "Metadata for SAML V2.0";
IAM User Guide, "Configure SAML assertions for the authentication response". Nothing is read but the element that the
signature covers, parsed again from the very bytes that were signed (W3C, "XML Signature Best Practices", "see what is
signed"). No DTD is taken, so there are no entities; nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.verifier import SignatureConfiguration, XMLVerifier

from bastide.domain import MICROS, Instant
from bastide.engines.idp.rejected import Rejected

_PROTOCOL: Final = "{urn:oasis:names:tc:SAML:2.0:protocol}"
_ASSERTION: Final = "{urn:oasis:names:tc:SAML:2.0:assertion}"
_METADATA: Final = "{urn:oasis:names:tc:SAML:2.0:metadata}"
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_SUCCESS: Final = "urn:oasis:names:tc:SAML:2.0:status:Success"
_CONDITIONS: Final = frozenset(
    f"{_ASSERTION}{name}" for name in ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")
)
"""An assertion under a condition of another kind is not known to be valid (core, 2.5.1)."""
_BEARER: Final = "urn:oasis:names:tc:SAML:2.0:cm:bearer"

_METHODS: Final = frozenset(
    {
        SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
        SignatureMethod.SHA256_RSA_MGF1, SignatureMethod.SHA384_RSA_MGF1, SignatureMethod.SHA512_RSA_MGF1,
        SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512,
    }
)  # fmt: skip
_DIGESTS: Final = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_RSA_BITS: Final = 2048
_SKEW: Final = 60 * MICROS
"""How far ahead of ours a provider's clock may be."""
_REDEEM: Final = 5 * 60 * MICROS
"""AWS takes an assertion within five minutes of its issue."""


def parse(document: bytes) -> etree._Element:
    """The root of an XML document without a DTD; raises ValueError for anything else."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_pis=True
    )
    try:
        root = etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not well-formed XML (line {error.lineno})") from None
    told = root.getroottree().docinfo
    if told.doctype or told.internalDTD is not None or next(root.iter(etree.Entity), None) is not None:
        raise ValueError("a document type declaration is not taken")
    return root


def _text(element: etree._Element | None) -> str:
    """The whole text of an element without children; a comment within does not end it."""
    if element is None or any(isinstance(child.tag, str) for child in element):
        return ""
    return "".join(element.xpath("text()")).strip()


def _instant(text: str | None) -> Instant | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp() * MICROS)
    except (ValueError, OverflowError):
        raise ValueError(f"`{text[:40]}` is not a time") from None


# -- metadata ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself. certificates: those it signs with, DER in base64. valid_until: when the document
    ends by its own word, or the last of its certificates."""

    entity_id: str
    certificates: tuple[str, ...]
    valid_until: Instant

    @classmethod
    def parse(cls, document: str) -> Metadata:
        """Reads an EntityDescriptor with an IDPSSODescriptor; raises ValueError for anything else."""
        root = parse(document.encode())
        if root.tag != f"{_METADATA}EntityDescriptor":
            raise ValueError("the root element is not an EntityDescriptor")
        entity_id = (root.get("entityID") or "").strip()
        roles = root.findall(f"{_METADATA}IDPSSODescriptor")
        if not entity_id or len(entity_id) > 1024 or len(roles) != 1:
            raise ValueError("it needs an entityID and one IDPSSODescriptor")
        if not roles[0].findall(f"{_METADATA}SingleSignOnService"):
            raise ValueError("it needs a SingleSignOnService")
        certificates: dict[str, x509.Certificate] = {}
        for key in roles[0].findall(f"{_METADATA}KeyDescriptor"):
            if key.get("use", "signing") != "signing":
                continue
            for element in key.findall(f"{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate"):
                encoded, certificate = _certificate(_text(element))
                certificates[encoded] = certificate
        if not certificates:
            raise ValueError("it has no signing certificate")
        ends = [_instant(one.get("validUntil")) for one in (root, roles[0])]
        told = [one for one in ends if one is not None]
        last = max(int(one.not_valid_after_utc.timestamp() * MICROS) for one in certificates.values())
        return cls(entity_id, tuple(certificates), min([*told, last]))


def _certificate(text: str) -> tuple[str, x509.Certificate]:
    try:
        der = base64.b64decode("".join(text.split()), validate=True)
        found = x509.load_der_x509_certificate(der)
        key = found.public_key()
    except Exception:
        raise ValueError("a signing certificate cannot be read") from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _RSA_BITS:
            raise ValueError(f"a signing key is shorter than {_RSA_BITS} bits")
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a signing key is neither RSA nor of an elliptic curve")
    return base64.b64encode(der).decode(), found


# -- responses -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a provider asserts of somebody. format: of the subject's name, as written. recipient: the address it was
    meant for. ends: when the provider's own session ends, None if it does not say. attributes: values by name."""

    issuer: str
    subject: str
    format: str
    recipient: str
    ends: Instant | None
    attributes: Mapping[str, tuple[str, ...]]


def verify_response(
    encoded: str, metadata: Metadata, *, audiences: Sequence[str], recipients: re.Pattern[str], now: Instant
) -> Assertion:
    """The assertion in a response (base64), if the provider signed it for us and it is in force.

    The signature may stand on the response or on the assertion. Raises Rejected.
    """
    try:
        document = base64.b64decode("".join(encoded.split()), validate=True)
        root = parse(document)
    except (ValueError, binascii.Error):
        raise Rejected("invalid", "Invalid base64 SAMLResponse, or not a SAML response.") from None
    if root.tag != f"{_PROTOCOL}Response" or root.get("Version") != "2.0":
        raise Rejected("invalid", "The document is not a SAML 2.0 response.")
    if root.get("Destination") and not recipients.fullmatch(root.get("Destination", "")):
        raise Rejected("invalid", "The response was sent to another destination.")
    status = root.find(f"{_PROTOCOL}Status/{_PROTOCOL}StatusCode")
    if status is None or status.get("Value") != _SUCCESS:
        raise Rejected("refused", "The identity provider reported that authentication failed.")
    assertion = _signed(root, document, metadata, now)
    try:
        return _read(assertion, metadata, audiences, recipients, now)
    except ValueError as error:
        raise Rejected("invalid", f"The SAML assertion is not valid: {error}.") from None


def _signed(root: etree._Element, document: bytes, metadata: Metadata, now: Instant) -> etree._Element:
    """The assertion as it was signed; raises Rejected.

    A response holds one assertion and its signatures, each where it belongs. Whatever else is hidden in the document, a
    second assertion or a signature elsewhere, is how signatures are wrapped.
    """
    invalid = Rejected("invalid", "Response signature invalid")
    assertions = list(root.iter(f"{_ASSERTION}Assertion"))
    if next(root.iter(f"{_ASSERTION}EncryptedAssertion"), None) is not None:
        raise Rejected("invalid", "Encrypted assertions are not supported.")
    if len(assertions) != 1 or assertions[0].getparent() is not root:
        raise Rejected("invalid", "A SAML response must hold one assertion.")
    held = assertions[0]
    signatures = list(root.iter(f"{_DS}Signature"))
    places = [one.getparent() for one in signatures]
    if not places or any(place is not root and place is not held for place in places) or len(places) > 2:
        raise invalid
    if len(places) == 2 and places[0] is places[1]:
        raise invalid
    on = held if any(place is held for place in places) else root
    if not on.get("ID"):
        raise invalid
    config = SignatureConfiguration(
        location=f"./{_ASSERTION}Assertion/" if on is held else "./",
        signature_methods=_METHODS,
        digest_algorithms=_DIGESTS,
        verification_time=datetime.fromtimestamp(now / MICROS, UTC),
    )
    at = datetime.fromtimestamp(now / MICROS, UTC)
    if now >= metadata.valid_until:
        raise Rejected("invalid", "The metadata of the SAML provider has expired.")
    for encoded in metadata.certificates:
        certificate = x509.load_der_x509_certificate(base64.b64decode(encoded))
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            continue
        try:
            found = XMLVerifier().verify(document, x509_cert=certificate, expect_config=config, id_attribute="ID")
        except Exception:  # noqa: S112 - whatever is wrong with it, it is not signed by this key
            continue
        signed = None if isinstance(found, list) else found.signed_xml
        if signed is None or signed.tag != on.tag or signed.get("ID") != on.get("ID"):
            continue
        if on is held:
            return signed
        inside = signed.findall(f"{_ASSERTION}Assertion")
        if len(inside) == 1:
            return inside[0]
    raise invalid


def _read(
    assertion: etree._Element, metadata: Metadata, audiences: Sequence[str], recipients: re.Pattern[str], now: Instant
) -> Assertion:
    if assertion.get("Version") != "2.0":
        raise ValueError("its version is not 2.0")
    issuer = _text(assertion.find(f"{_ASSERTION}Issuer"))
    if issuer != metadata.entity_id:
        raise Rejected("invalid", "Issuer not present in specified provider")
    issued = _instant(assertion.get("IssueInstant"))
    if issued is None or issued > now + _SKEW:
        raise ValueError("its IssueInstant is missing or lies ahead")
    if now > issued + _REDEEM:
        raise Rejected("expired", "Token must be redeemed within 5 minutes of issuance")
    recipient = _confirmed(assertion, recipients, now)
    _in_force(assertion, audiences, now)
    name = assertion.find(f"{_ASSERTION}Subject/{_ASSERTION}NameID")
    subject = _text(name)
    if name is None or not subject or len(subject) > 255:
        raise ValueError("it has no NameID")
    statements = assertion.findall(f"{_ASSERTION}AuthnStatement")
    if not statements:
        raise ValueError("it has no AuthnStatement")
    ends = [end for one in statements if (end := _instant(one.get("SessionNotOnOrAfter"))) is not None]
    if any(end <= now for end in ends):
        raise Rejected("expired", "The session at the identity provider has ended.")
    attributes: dict[str, tuple[str, ...]] = {}
    for one in assertion.iterfind(f"{_ASSERTION}AttributeStatement/{_ASSERTION}Attribute"):
        values = tuple(_text(value) for value in one.findall(f"{_ASSERTION}AttributeValue"))
        key = one.get("Name") or ""
        attributes[key] = attributes.get(key, ()) + tuple(value for value in values if value)
    form = name.get("Format") or "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
    return Assertion(issuer, subject, form, recipient, min(ends) if ends else None, attributes)


def _confirmed(assertion: etree._Element, recipients: re.Pattern[str], now: Instant) -> str:
    """The recipient of the bearer confirmation that holds; raises Rejected, ValueError."""
    expired = False
    for one in assertion.iterfind(f"{_ASSERTION}Subject/{_ASSERTION}SubjectConfirmation"):
        data = one.find(f"{_ASSERTION}SubjectConfirmationData")
        if one.get("Method") != _BEARER or data is None:
            continue
        recipient, end = data.get("Recipient") or "", _instant(data.get("NotOnOrAfter"))
        begin = _instant(data.get("NotBefore"))
        if not recipients.fullmatch(recipient) or end is None or (begin is not None and begin > now + _SKEW):
            continue
        if end <= now:
            expired = True
            continue
        return recipient
    if expired:
        raise Rejected("expired", "The SAML assertion has expired.")
    raise ValueError("no bearer confirmation is addressed to this platform")


def _in_force(assertion: etree._Element, audiences: Sequence[str], now: Instant) -> None:
    conditions = assertion.find(f"{_ASSERTION}Conditions")
    if conditions is None:
        raise ValueError("it has no Conditions")
    begin, end = _instant(conditions.get("NotBefore")), _instant(conditions.get("NotOnOrAfter"))
    if begin is not None and begin > now + _SKEW:
        raise ValueError("it is not yet in force")
    if end is not None and end <= now:
        raise Rejected("expired", "The SAML assertion has expired.")
    if any(one.tag not in _CONDITIONS for one in conditions if isinstance(one.tag, str)):
        raise ValueError("it has a condition that is not understood")
    restrictions = conditions.findall(f"{_ASSERTION}AudienceRestriction")
    if not restrictions:
        raise ValueError("it names no audience")
    for one in restrictions:
        if not any(_text(audience) in audiences for audience in one.findall(f"{_ASSERTION}Audience")):
            raise ValueError("it is meant for another audience")
