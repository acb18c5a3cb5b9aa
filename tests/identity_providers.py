"""Identity providers for tests: one that signs SAML responses, and a real OpenID Connect issuer over HTTPS."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml import methods
from signxml.signer import XMLSigner

_DAY = datetime.timedelta(days=1)
_NAMES = (
    'xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" '
    'xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
AWS = "https://aws.amazon.com/SAML/Attributes/"
RECIPIENT = "https://signin.aws.amazon.com/saml"


def certificate(
    common: str,
    key: Any,
    *,
    issuer: tuple[x509.Name, Any] | None = None,
    hosts: tuple[str, ...] = (),
    authority: bool = False,
    days: int = 30,
) -> x509.Certificate:
    """A certificate for `key`, signed by itself or by an issuer (name and key); `days` from now, or ago if negative."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    by, signing = issuer or (name, key)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * _DAY if days < 0 else now - _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if authority:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        built = built.add_extension(usage, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    if hosts:
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(signing, hashes.SHA256())


def pem(key: Any) -> bytes:
    """A private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _stamp(seconds: float) -> str:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class SamlProvider:
    """Signs responses with a key of its own."""

    def __init__(self, entity: str = "https://idp.example.com/saml", *, days: int = 30) -> None:
        self.entity = entity
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = certificate("idp", self.key, days=days)

    def metadata(self, more: str = "", *, certificates: list[x509.Certificate] | None = None) -> str:
        """Its metadata document; `more` are further attributes of the root."""
        keys = "".join(
            '<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>'
            + base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode()
            + "</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
            for one in ([self.certificate] if certificates is None else certificates)
        )
        return (
            '<?xml version="1.0"?><md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" '
            f'xmlns:ds="http://www.w3.org/2000/09/xmldsig#" entityID="{self.entity}" {more}>'
            '<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">'
            f'{keys}<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" '
            'Location="https://idp.example.com/sso"/></md:IDPSSODescriptor></md:EntityDescriptor>'
        ).ljust(1000)

    def assertion(
        self,
        attributes: dict[str, list[str]],
        *,
        subject: str = "alice@example.com",
        audience: str = RECIPIENT,
        recipient: str = RECIPIENT,
        issuer: str = "",
        issued: float = 0,
        begins: float = -5,
        ends: float = 240,
        confirmed: float | None = None,
        session_ends: float | None = None,
        id: str = "_assertion",
        condition: str = "",
    ) -> etree._Element:
        """An assertion without a signature; times in seconds from now."""
        told = "".join(
            f'<saml:Attribute Name="{escape(name)}">'
            + "".join(f"<saml:AttributeValue>{escape(value)}</saml:AttributeValue>" for value in values)
            + "</saml:Attribute>"
            for name, values in attributes.items()
        )
        until = _stamp(ends if confirmed is None else confirmed)
        session = "" if session_ends is None else f'SessionNotOnOrAfter="{_stamp(session_ends)}"'
        text = (
            f'<saml:Assertion {_NAMES} ID="{id}" Version="2.0" IssueInstant="{_stamp(issued)}">'
            f'<saml:Issuer>{issuer or self.entity}</saml:Issuer><ds:Signature Id="placeholder"></ds:Signature>'
            '<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">'
            f'{escape(subject)}</saml:NameID><saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">'
            f'<saml:SubjectConfirmationData NotOnOrAfter="{until}" Recipient="{recipient}"/>'
            "</saml:SubjectConfirmation></saml:Subject>"
            f'<saml:Conditions NotBefore="{_stamp(begins)}" NotOnOrAfter="{_stamp(ends)}"><saml:AudienceRestriction>'
            f"<saml:Audience>{audience}</saml:Audience></saml:AudienceRestriction>{condition}</saml:Conditions>"
            f'<saml:AuthnStatement AuthnInstant="{_stamp(issued)}" {session}><saml:AuthnContext/></saml:AuthnStatement>'
            f"<saml:AttributeStatement>{told}</saml:AttributeStatement></saml:Assertion>"
        )
        return etree.fromstring(text)

    def sign(self, element: etree._Element, algorithm: str = "rsa-sha256", digest: str = "sha256") -> etree._Element:
        """The element with an enveloped signature at its placeholder."""

        class Signer(XMLSigner):
            def check_deprecated_methods(self) -> None:
                """Old providers sign with SHA-1 all the same."""

        signer = Signer(
            method=methods.enveloped,
            signature_algorithm=algorithm,
            digest_algorithm=digest,
            c14n_algorithm="http://www.w3.org/2001/10/xml-exc-c14n#",
        )
        der = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return signer.sign(element, key=self.key, cert=der, reference_uri=element.get("ID"), id_attribute="ID")

    def response(
        self,
        assertion: etree._Element,
        *,
        signed: str = "assertion",
        status: str = "urn:oasis:names:tc:SAML:2.0:status:Success",
        destination: str = RECIPIENT,
        **more: str,
    ) -> etree._Element:
        """A response around an assertion. signed: "assertion", "response", "both" or "" for nothing."""
        if signed in ("assertion", "both"):
            assertion = self.sign(assertion, **more)
        else:
            self._drop(assertion)
        place = '<ds:Signature Id="placeholder"></ds:Signature>' if signed in ("response", "both") else ""
        root = etree.fromstring(
            f'<samlp:Response {_NAMES} ID="_response" Version="2.0" IssueInstant="{_stamp(0)}" Destination="{destination}">'
            f'<saml:Issuer>{self.entity}</saml:Issuer>{place}<samlp:Status><samlp:StatusCode Value="{status}"/>'
            "</samlp:Status></samlp:Response>"
        )
        root.append(assertion)
        return self.sign(root, **more) if place else root

    @staticmethod
    def _drop(element: etree._Element) -> None:
        for place in element.findall("{http://www.w3.org/2000/09/xmldsig#}Signature"):
            element.remove(place)

    def encoded(self, role: str, provider: str, session: str = "alice", **more: Any) -> str:
        """A good response for one role, base64; `attributes` come on top, the rest as `assertion` and `response`."""
        given = {
            f"{AWS}Role": [f"{role},{provider}"],
            f"{AWS}RoleSessionName": [session],
            **more.pop("attributes", {}),
        }
        outside = {
            name: more.pop(name) for name in ("signed", "status", "destination", "algorithm", "digest") if name in more
        }
        found = self.response(self.assertion({k: v for k, v in given.items() if v}, **more), **outside)
        return encode(found)


def encode(element: etree._Element) -> str:
    """A response as it is posted."""
    return base64.b64encode(etree.tostring(element)).decode()


@dataclass
class Issuer:
    """An OpenID Connect issuer on loopback: discovery document and keys over HTTPS, tokens signed with its keys.

    authority: certificate (name) and key that sign its certificate. What it answers can be spoiled: `answers` holds
    replacements by path, (status, headers, body)."""

    authority: tuple[x509.Certificate, Any]
    host: str = "localhost"
    path: str = "/oidc"
    plain: bool = False
    kid: str = "first"
    keys: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    def start(self, folder: Path) -> Issuer:
        """Starts to listen; files lie below `folder`."""
        self.keys.setdefault(self.kid, ec.generate_private_key(ec.SECP256R1()))
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                status, headers, body = issuer.answers.get(self.path) or issuer.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that does not believe us hangs up."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if not self.plain:
            key = ec.generate_private_key(ec.SECP256R1())
            by, signing = self.authority
            mine = certificate("issuer", key, issuer=(by.subject, signing), hosts=(self.host,))
            file = folder / f"issuer-{self.server.server_port}.pem"
            chain = [mine, by]
            file.write_bytes(pem(key) + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def name(self) -> str:
        """Its address without the scheme."""
        return f"{self.host}:{self.server.server_port}{self.path}"

    @property
    def url(self) -> str:
        return f"{'http' if self.plain else 'https'}://{self.name}"

    @property
    def thumbprint(self) -> str:
        """SHA-1 of the authority's certificate."""
        return hashlib.sha1(self.authority[0].public_bytes(serialization.Encoding.DER)).hexdigest()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """What it says at a path."""
        if path == f"{self.path}/.well-known/openid-configuration":
            told: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        elif path == f"{self.path}/keys":
            told = {"keys": [self.public(kid) for kid in self.keys]}
        else:
            return 404, {}, b"{}"
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def public(self, kid: str) -> dict[str, Any]:
        """One of its keys as JWK."""
        key = self.keys[kid]
        algorithm = jwt.get_algorithm_by_name("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}

    def token(self, *, kid: str = "", algorithm: str = "", key: Any = None, drop: str = "", **claims: Any) -> str:
        """A good token, unless told otherwise; `drop` leaves a claim out."""
        now = int(time.time())
        told: dict[str, Any] = {
            "iss": self.url, "sub": "alice", "aud": "bastide", "iat": now, "exp": now + 300, **claims,
        }  # fmt: skip
        told.pop(drop, None)
        kid = kid or self.kid
        signing = key if key is not None else self.keys[kid]
        algorithm = algorithm or ("RS256" if isinstance(signing, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(told, signing, algorithm=algorithm, headers={"kid": kid})


def own_authority() -> tuple[x509.Certificate, Any]:
    """A certificate authority that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate("nobody's authority", key, authority=True), key


def platform_authority(data: Path) -> tuple[x509.Certificate, Any]:
    """The authority of a platform, to sign an issuer's certificate with."""
    found = x509.load_pem_x509_certificate((data / "tls" / "ca.pem").read_bytes())
    return found, serialization.load_pem_private_key((data / "tls" / "ca.key").read_bytes(), None)
