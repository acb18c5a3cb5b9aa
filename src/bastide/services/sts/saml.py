"""AssumeRoleWithSAML: taking on a role with a signed response of a SAML 2.0 identity provider.

Source: STS API reference, "AssumeRoleWithSAML"; IAM User Guide, "Configure SAML assertions for the authentication
response", "Available keys for SAML-based AWS STS federation", "Pass session tags in AWS STS".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from bastide.domain import Refused
from bastide.engines.idp import Assertion, Metadata, Rejected, verify_response
from bastide.kernel import Authorised, Call, Caller, Calls, Output
from bastide.services.sts import role as roles
from bastide.services.sts.federated import (
    Identity,
    asks,
    identify,
    not_authorised,
    refused,
    role_of_call,
    taken_on,
)
from bastide.services.sts.session import SESSION
from bastide.store import View

_PROVIDER: Final = "iam:SAMLProvider"
_OURS: Final = "https://aws.amazon.com/SAML/Attributes/"
_AUDIENCES: Final = ("https://signin.aws.amazon.com/saml", "urn:amazon:webservices")
_RECIPIENTS: Final = re.compile(
    r"https://([a-z]{2}(-[a-z]+)+-[0-9]+\.)?signin\.aws\.amazon\.com(/platform)?/saml(/acs/[A-Za-z0-9]+)?"
)
_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_FORMATS: Final = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
_SHORTEST: Final = 900
_LONGEST: Final = 43_200

_PERSON: Final = "urn:oid:1.3.6.1.4.1.5923.1.1.1."
_ORGANISATION: Final = "urn:oid:1.3.6.1.4.1.5923.1.2.1."
_MANY: Final = {
    f"{_PERSON}1": "edupersonaffiliation", f"{_PERSON}2": "edupersonnickname", f"{_PERSON}7": "edupersonentitlement",
    f"{_PERSON}4": "edupersonorgunitdn", f"{_PERSON}9": "edupersonscopedaffiliation",
    f"{_PERSON}10": "edupersontargetedid", f"{_PERSON}11": "edupersonassurance",
    f"{_ORGANISATION}2": "eduorghomepageuri", f"{_ORGANISATION}3": "eduorgidentityauthnpolicyuri",
    f"{_ORGANISATION}4": "eduorglegalname", f"{_ORGANISATION}5": "eduorgsuperioruri",
    f"{_ORGANISATION}6": "eduorgwhitepagesuri", "urn:oid:2.5.4.3": "cn",
}  # fmt: skip
"""Attributes of eduPerson and eduOrg that become condition keys of several values."""
_ONE: Final = {
    f"{_PERSON}3": "edupersonorgdn", f"{_PERSON}5": "edupersonprimaryaffiliation",
    f"{_PERSON}6": "edupersonprincipalname", f"{_PERSON}8": "edupersonprimaryorgunitdn",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name": "name",
    "http://schemas.xmlsoap.org/claims/CommonName": "commonname",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname": "givenname",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname": "surname",
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress": "mail",
    "http://schemas.microsoft.com/ws/2008/06/identity/claims/primarygroupsid": "primarygroupsid",
    "urn:oid:2.5.4.4": "surname", "urn:oid:2.5.4.42": "givenname", "urn:oid:2.5.4.41": "name",
    "urn:oid:2.5.4.45": "x500uniqueidentifier", "urn:oid:0.9.2342.19200300.100.1.1": "uid",
    "urn:oid:0.9.2342.19200300.100.1.3": "mail", "urn:oid:0.9.2342.19200300.100.1.45": "organizationstatus",
}  # fmt: skip
"""Attributes that become condition keys of one value."""


async def _verified(calls: Calls, call: Call) -> None:
    """Who the response says calls, once the provider's key has verified it; raises Refused."""
    role = role_of_call(call)
    provider = str(call.input["PrincipalArn"])
    prefix = f"arn:aws:iam::{role.account}:saml-provider/"
    name = provider.removeprefix(prefix)
    if not re.fullmatch(r"arn:aws:iam::[0-9]{12}:saml-provider/[\w.-]{1,128}", provider, re.ASCII):
        raise roles.invalid(f"{provider} is invalid")
    with calls.store.reading() as view:
        # Role and provider belong to one account.
        row = view.get(_PROVIDER, role.account, "", name) if provider.startswith(prefix) else None
    if row is None:
        raise Refused("InvalidIdentityToken", "Specified provider doesn't exist")
    doc = row.doc
    metadata = Metadata(doc["entity_id"], tuple(doc["certificates"]), doc["valid_until"])
    try:
        # A thread: the largest response takes longer than others should wait.
        assertion = await asyncio.to_thread(
            verify_response,
            str(call.input["SAMLAssertion"]),
            metadata,
            audiences=_AUDIENCES,
            recipients=_RECIPIENTS,
            now=call.request.at,
        )
    except Rejected as rejected:
        raise refused(rejected) from None
    call.prepared = _identity(assertion, str(role), role.account, provider, name)


def _identity(assertion: Assertion, role: str, account: str, provider: str, name: str) -> Identity:
    attributes = assertion.attributes
    pairs = [tuple(part.strip() for part in one.split(",")) for one in attributes.get(f"{_OURS}Role", ())]
    if (role, provider) not in pairs and (provider, role) not in pairs:
        raise not_authorised("AssumeRoleWithSAML")
    session = _only(attributes, "RoleSessionName")
    if session is None:
        raise Refused("InvalidIdentityToken", "RoleSessionName is required in AuthnResponse")
    if not _NAME.fullmatch(session):
        raise Refused("InvalidIdentityToken", "RoleSessionName in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}")
    source_identity = _only(attributes, "SourceIdentity") or ""
    if source_identity and not _NAME.fullmatch(source_identity):
        raise Refused("InvalidIdentityToken", "SourceIdentity in AuthnResponse must match [a-zA-Z_0-9+=,.@-]{2,64}")
    tagged = f"{_OURS}PrincipalTag:"
    tags, transitive = roles.session_tags(
        [
            (key.removeprefix(tagged), _only(attributes, key.removeprefix(_OURS)) or "")
            for key in attributes
            if key.startswith(tagged)
        ],
        attributes.get(f"{_OURS}TransitiveTagKeys", ()),
        {},
        "InvalidIdentityToken",
    )
    digest = hashlib.sha1(f"{assertion.issuer}{account}/{name}".encode(), usedforsecurity=False).digest()
    qualifier = base64.b64encode(digest).decode()
    subject_type = assertion.format.removeprefix(_FORMATS)
    stays: dict[str, str | tuple[str, ...]] = {
        "saml:namequalifier": qualifier,
        "saml:sub": assertion.subject,
        "saml:sub_type": subject_type,
    }
    context: dict[str, str | tuple[str, ...]] = {
        **stays,
        "saml:aud": assertion.recipient,
        "saml:iss": assertion.issuer,
        "saml:doc": f"{account}/{name}",
    }
    for key, values in attributes.items():
        if key in _MANY and values:
            context[f"saml:{_MANY[key]}"] = values
        elif key in _ONE and len(values) == 1:
            context[f"saml:{_ONE[key]}"] = values[0]
    if len(attributes.get("urn:oid:2.5.4.3", ())) == 1:
        context["saml:commonname"] = attributes["urn:oid:2.5.4.3"][0]
    return Identity(
        Caller("Federated", account, provider, provider, f"{qualifier}:{assertion.subject}", assertion.subject),
        session,
        context,
        tags,
        transitive,
        source_identity,
        "",  # aws:FederatedProvider tells of OpenID Connect providers only
        stays,
        {
            "Subject": assertion.subject,
            "SubjectType": subject_type,
            "Issuer": assertion.issuer,
            "Audience": assertion.recipient,
            "NameQualifier": qualifier,
        },
        _duration(attributes),
        assertion.ends,
    )


def _only(attributes: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    """The one value of one of AWS's attributes, None without it; raises Refused (InvalidIdentityToken) for several."""
    values = attributes.get(f"{_OURS}{name}", ())
    if len(values) > 1:
        raise Refused("InvalidIdentityToken", f"{name} in AuthnResponse must have one value")
    return values[0] if values else None


def _duration(attributes: Mapping[str, tuple[str, ...]]) -> int | None:
    """SessionDuration: the most seconds that the provider grants."""
    told = _only(attributes, "SessionDuration")
    if told is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}", told, re.ASCII) or not _SHORTEST <= int(told) <= _LONGEST:
        raise Refused(
            "InvalidIdentityToken", f"SessionDuration in AuthnResponse must be from {_SHORTEST} to {_LONGEST} seconds"
        )
    return int(told)


@SESSION.reads(
    "AssumeRoleWithSAML", tells=True, prepare=_verified, identify=identify, asks=asks("sts:AssumeRoleWithSAML")
)
def assume_role_with_saml(a: Authorised, view: View) -> Output:
    return taken_on(a, view)
