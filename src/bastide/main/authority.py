"""The platform's own certificate authority, and the certificate its listeners show."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bastide.store.directory import write_private

_YEARS = datetime.timedelta(days=3650)
_SERVER = datetime.timedelta(days=397)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Bastide"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _server(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    common: str,
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _SERVER)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def certificate(folder: Path, common: str, hosts: Sequence[str]) -> tuple[bytes, bytes]:
    """A new server certificate for `hosts` with its chain, and its key, in PEM; the key is nowhere else."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    made = _server(ca, ca_key, key, common, [x509.DNSName(host) for host in hosts])
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem) + ca.public_bytes(pem), _private(key)


def signing(folder: Path) -> tuple[bytes, bytes]:
    """The certificate that messages are signed with, with its chain, and its key, in PEM; made when there is none yet, or
    it will not be good for long."""
    chain, own = folder / "messages.pem", folder / "messages.key"
    now = datetime.datetime.now(datetime.UTC)
    if chain.exists() and own.exists():
        held = x509.load_pem_x509_certificate(chain.read_bytes())
        if held.not_valid_after_utc - now > datetime.timedelta(days=30):
            return chain.read_bytes(), own.read_bytes()
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name("sns.amazonaws.com"))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _SERVER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(own, private)
    write_private(chain, made.public_bytes(pem) + ca.public_bytes(pem))
    return chain.read_bytes(), private


def _names(hosts: Sequence[str], regions: Sequence[str]) -> list[x509.GeneralName]:
    """The platform's own, those of buckets, and those of notebook instances."""
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys([*hosts, socket.gethostname()]):
        below = ["*", "*.s3", *(f"*.notebook.{region}" for region in regions)]
        names += [x509.DNSName(host), *(x509.DNSName(f"{one}.{host}") for one in below)]
    return names + [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]


def renew(folder: Path, hosts: Sequence[str], regions: Sequence[str]) -> None:
    """Makes ``server.pem`` and its key anew if it lacks a name that the platform is called by now, or ends soon."""
    names = _names(hosts, regions)
    held = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    shown = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = held.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if set(names) <= set(shown) and left > datetime.timedelta(days=30):
        return
    _serve(folder, hosts[0], names)


def _serve(folder: Path, common: str, names: Sequence[x509.GeneralName]) -> None:
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    server = _server(ca, ca_key, key, common, names)
    pem = serialization.Encoding.PEM
    write_private(folder / "server.key", _private(key))
    write_private(folder / "server.pem", server.public_bytes(pem) + ca.public_bytes(pem))


def create(folder: Path, hosts: Sequence[str], regions: Sequence[str]) -> None:
    """Makes ``ca.pem``, ``ca.key``, ``server.pem`` and ``server.key`` below `folder`, keys with mode 0600."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = (
        x509.CertificateBuilder()
        .subject_name(_name("Bastide platform authority"))
        .issuer_name(_name("Bastide platform authority"))
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _private(ca_key))
    write_private(folder / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))
    _serve(folder, hosts[0], _names(hosts, regions))
