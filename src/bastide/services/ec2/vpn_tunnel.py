"""The tunnels of a VPN connection: their options, how the engine speaks them, and what the device at the other end is told.

Source: Amazon EC2 API Reference, VpnTunnelOptionsSpecification; AWS Site-to-Site VPN User Guide, "Tunnel options for your
Site-to-Site VPN connection" (values and defaults).
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.etree import ElementTree

from bastide.domain import Refused
from bastide.engines.network import Ipsec, Tunnel
from bastide.kernel import Authorised, Output
from bastide.kernel.identity import Sealer
from bastide.services.ec2.address_noun import OF, new_address
from bastide.services.ec2.noun import invalid
from bastide.store import Row, Transaction

PURPOSE: Final = "ec2:vpn"
"""What the keys are sealed for."""
_KEY: Final = re.compile(r"(?!0)[A-Za-z0-9._]{8,64}")
_INSIDE: Final = ipaddress.IPv4Network("169.254.0.0/16")
_RESERVED: Final = tuple(
    ipaddress.IPv4Network(f"169.254.{one}/30")
    # AWS's own, and those that links have here.
    for one in ("0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "169.252", "171.0", "172.0", "173.0")
)
_CIPHERS: Final = {
    "AES128": "aes128", "AES256": "aes256", "AES128-GCM-16": "aes128gcm16", "AES256-GCM-16": "aes256gcm16",
}  # fmt: skip
_HASHES: Final = {"SHA1": "sha1", "SHA2-256": "sha256", "SHA2-384": "sha384", "SHA2-512": "sha512"}
_GROUPS: Final = {
    2: "modp1024", 5: "modp1536", 14: "modp2048", 15: "modp3072", 16: "modp4096", 17: "modp6144", 18: "modp8192",
    19: "ecp256", 20: "ecp384", 21: "ecp521", 22: "modp1024s160", 23: "modp2048s224", 24: "modp2048s256",
}  # fmt: skip
_VERSIONS: Final = {"ikev1": 1, "ikev2": 2}
_LISTS: Final[Mapping[str, tuple[tuple[Any, ...], tuple[Any, ...]]]] = {
    # What may be given, and what is taken if nothing is.
    "Phase1EncryptionAlgorithms": (tuple(_CIPHERS), tuple(_CIPHERS)),
    "Phase2EncryptionAlgorithms": (tuple(_CIPHERS), tuple(_CIPHERS)),
    "Phase1IntegrityAlgorithms": (tuple(_HASHES), tuple(_HASHES)),
    "Phase2IntegrityAlgorithms": (tuple(_HASHES), tuple(_HASHES)),
    "Phase1DHGroupNumbers": (tuple(one for one in _GROUPS if one != 5), tuple(one for one in _GROUPS if one != 5)),
    "Phase2DHGroupNumbers": (tuple(_GROUPS), tuple(_GROUPS)),
    "IKEVersions": (tuple(_VERSIONS), tuple(_VERSIONS)),
}
_NUMBERS: Final = {
    # Least, most, and what it is if nothing is given.
    "Phase1LifetimeSeconds": (900, 28800, 28800), "Phase2LifetimeSeconds": (900, 3600, 3600),
    "RekeyMarginTimeSeconds": (60, 1800, 270), "RekeyFuzzPercentage": (0, 100, 100), "DPDTimeoutSeconds": (30, 3600, 30),
}  # fmt: skip
_CHOICES: Final = {"DPDTimeoutAction": ("clear", "none", "restart"), "StartupAction": ("add", "start")}
_KNOWN: Final = {*_LISTS, *_NUMBERS, *_CHOICES, "PreSharedKey", "TunnelInsideCidr"}
_COUNT: Final = 2


def made(a: Authorised, tx: Transaction, connection: str, given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tunnels of a new connection, with addresses of this side's and sealed keys; raises Refused."""
    asked = [dict(one) for one in given]
    if len(asked) > _COUNT:
        raise invalid(f"A VPN connection has {_COUNT} tunnels.")
    found: list[dict[str, Any]] = []
    taken: set[ipaddress.IPv4Network] = set()
    for options in [*asked, *({} for _ in range(_COUNT - len(asked)))]:
        one = _checked(options)
        inside = _inside(str(options.get("TunnelInsideCidr") or ""), taken)
        taken.add(inside)
        key = str(options.get("PreSharedKey") or "") or _new_key()
        if not _KEY.fullmatch(key):
            raise invalid(
                "The pre-shared key has to have between 8 and 64 letters, digits, '.' and '_', and not to begin with 0."
            )
        found.append(
            {
                **one,
                "TunnelInsideCidr": str(inside),
                "Outside": new_address(a, tx, connection),
                "Key": a.calls.sealer.seal(key.encode(), PURPOSE),
            }
        )
    return found


def _new_key() -> str:
    letters = string.ascii_letters + string.digits
    return secrets.choice(string.ascii_letters) + "".join(secrets.choice(letters) for _ in range(31))


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    without = sorted(key for key, value in options.items() if key not in _KNOWN and value not in (None, False, [], {}))
    if without:
        raise Refused("UnsupportedOperation", f"Bastide's tunnels do not have {', '.join(without)}.")
    found: dict[str, Any] = {}
    for name, (allowed, usual) in _LISTS.items():
        values = [one.get("Value") for one in options.get(name) or ()]
        for value in values:
            if value not in allowed:
                raise invalid(f"Value ({str(value)[:64]}) for parameter {name} is invalid.")
        found[name] = list(dict.fromkeys(values)) or list(usual)
    for name, (least, most, default) in _NUMBERS.items():
        number = default if options.get(name) is None else int(options[name])
        if not least <= number <= most:
            raise invalid(f"Value ({number}) for parameter {name} is invalid. It lies between {least} and {most}.")
        found[name] = number
    if found["RekeyMarginTimeSeconds"] > found["Phase2LifetimeSeconds"] // 2:
        raise invalid("RekeyMarginTimeSeconds is at most half of Phase2LifetimeSeconds.")
    if found["Phase2LifetimeSeconds"] > found["Phase1LifetimeSeconds"]:
        raise invalid("Phase2LifetimeSeconds is at most Phase1LifetimeSeconds.")
    for name, words in _CHOICES.items():
        word = str(options.get(name) or words[0])
        if word not in words:
            raise invalid(f"Value ({word[:64]}) for parameter {name} is invalid.")
        found[name] = word
    if found["StartupAction"] == "start" and found["IKEVersions"] == ["ikev1"]:
        raise invalid("StartupAction start is for IKEv2.")
    return found


def _inside(text: str, taken: set[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    if not text:
        while True:
            found = ipaddress.IPv4Network((int(_INSIDE[0]) + 4 * secrets.randbelow(1 << 14), 30))
            if found not in taken and found not in _RESERVED:
                return found
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError:
        found = _INSIDE
    if found.prefixlen != 30 or not found.subnet_of(_INSIDE) or found in _RESERVED or found in taken:
        raise invalid(f"The TunnelInsideCidr {text[:64]} is no free /30 of {_INSIDE}.")
    return found


def dropped(tx: Transaction, row: Row) -> None:
    """Gives the addresses of a connection that is about to go back."""
    for one in row.doc.get("Tunnels", ()):
        held = tx.get(OF, "", "", one["Outside"])
        if held is not None:
            tx.delete(held, keep=False)


def key_of(one: Mapping[str, Any], sealer: Sealer) -> str:
    """The pre-shared key of a tunnel."""
    return sealer.open(one["Key"], PURPOSE).decode()


def ipsec(row: Row, gateway: str, sealer: Sealer) -> Ipsec:
    """A connection as the engine speaks it."""
    return Ipsec(gateway, tuple(_tunnel(one, key_of(one, sealer)) for one in row.doc.get("Tunnels", ())))


def _tunnel(one: Mapping[str, Any], key: str) -> Tunnel:
    versions = one["IKEVersions"]
    return Tunnel(
        outside=one["Outside"],
        inside=str(ipaddress.IPv4Network(one["TunnelInsideCidr"])[1]),
        key=key,
        version=0 if len(versions) > 1 else _VERSIONS[versions[0]],
        ike=_proposals(one, "Phase1", prf=True),
        esp=_proposals(one, "Phase2", prf=False),
        ike_seconds=one["Phase1LifetimeSeconds"],
        esp_seconds=one["Phase2LifetimeSeconds"],
        margin=one["RekeyMarginTimeSeconds"],
        fuzz=one["RekeyFuzzPercentage"],
        dead_seconds=one["DPDTimeoutSeconds"],
        dead=one["DPDTimeoutAction"],
        starts=one["StartupAction"] == "start",
    )


def _proposals(one: Mapping[str, Any], phase: str, *, prf: bool) -> tuple[str, ...]:
    """All that is allowed, in strongSwan's words: ciphers with a tag of their own stand apart from the others."""
    ciphers = [_CIPHERS[each] for each in one[f"{phase}EncryptionAlgorithms"]]
    hashes = [_HASHES[each] for each in one[f"{phase}IntegrityAlgorithms"]]
    groups = [_GROUPS[each] for each in one[f"{phase}DHGroupNumbers"]]
    plain = [each for each in ciphers if not each.endswith("gcm16")]
    tagged = [each for each in ciphers if each.endswith("gcm16")]
    found: list[str] = []
    if plain:
        found.append("-".join([*plain, *hashes, *groups]))
    if tagged:
        found.append("-".join([*tagged, *(f"prf{each}" for each in hashes if prf), *groups]))
    return tuple(found)


def shown(one: Mapping[str, Any], key: str) -> Output:
    """A tunnel as Describe tells it."""
    return {
        "OutsideIpAddress": one["Outside"],
        "TunnelInsideCidr": one["TunnelInsideCidr"],
        "PreSharedKey": key,
        **{name: one[name] for name in _NUMBERS if name != "DPDTimeoutSeconds"},
        "DpdTimeoutSeconds": one["DPDTimeoutSeconds"],
        "DpdTimeoutAction": one["DPDTimeoutAction"],
        "StartupAction": one["StartupAction"],
        **{name: [{"Value": each} for each in one[name]] for name in _LISTS if name != "IKEVersions"},
        "IkeVersions": [{"Value": each} for each in one["IKEVersions"]],
    }


# -- what the device at the other end is told --------------------------------------------------------------------------


def _best(values: Iterable[Any], *wanted: Any) -> Any:
    held = list(values)
    return next((one for one in wanted if one in held), held[0])


def configuration(row: Row, gateway: str, sealer: Sealer) -> str:
    """``customerGatewayConfiguration``: XML, as AWS writes it. Of algorithms it names one of those that are taken; BGP is
    left out, for nobody here speaks it."""
    root = ElementTree.Element("vpn_connection", {"id": row.name})
    _put(root, "customer_gateway_id", row.doc["CustomerGatewayId"])
    kind = "vpn_gateway_id" if row.doc.get("Vgw") else "transit_gateway_id"
    _put(root, kind, row.doc.get("Vgw") or row.doc["Tgw"])
    _put(root, "vpn_connection_type", "ipsec.1")
    if row.doc["StaticOnly"]:
        _put(root, "vpn_connection_attributes", "NoBGPVPNConnection")
    for one in row.doc.get("Tunnels", ()):
        tunnel = ElementTree.SubElement(root, "ipsec_tunnel")
        inside = ipaddress.IPv4Network(one["TunnelInsideCidr"])
        for side, outside, within in (
            ("customer_gateway", gateway, inside[2]),
            ("vpn_gateway", one["Outside"], inside[1]),
        ):
            end = ElementTree.SubElement(tunnel, side)
            _put(ElementTree.SubElement(end, "tunnel_outside_address"), "ip_address", outside)
            address = ElementTree.SubElement(end, "tunnel_inside_address")
            _put(address, "ip_address", str(within))
            _put(address, "network_mask", str(inside.netmask))
            _put(address, "network_cidr", "30")
        for name, phase in (("ike", "Phase1"), ("ipsec", "Phase2")):
            made = ElementTree.SubElement(tunnel, name)
            cipher = str(_best(one[f"{phase}EncryptionAlgorithms"], "AES256", "AES128"))
            digest = str(_best(one[f"{phase}IntegrityAlgorithms"], "SHA2-256", "SHA1")).lower()
            if name == "ipsec":
                _put(made, "protocol", "esp")
            _put(made, "authentication_protocol", digest if name == "ike" else f"hmac-{digest}")
            _put(made, "encryption_protocol", _ciphered(cipher))
            _put(made, "lifetime", str(one[f"{phase}LifetimeSeconds"]))
            _put(made, "perfect_forward_secrecy", f"group{_best(one[f'{phase}DHGroupNumbers'], 14, 19)}")
            _put(made, "mode", "main" if name == "ike" else "tunnel")
            if name == "ike":
                _put(made, "pre_shared_key", key_of(one, sealer))
                continue
            _put(made, "clear_df_bit", "true")
            _put(made, "fragmentation_before_encryption", "true")
            _put(made, "tcp_mss_adjustment", "1360")
            dead = ElementTree.SubElement(made, "dead_peer_detection")
            _put(dead, "interval", str(max(one["DPDTimeoutSeconds"] // 3, 1)))
            _put(dead, "retries", "3")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _put(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


def _ciphered(name: str) -> str:
    size = name[3:6]
    return f"aes-{size}-gcm-16" if name.endswith("GCM-16") else f"aes-{size}-cbc"
