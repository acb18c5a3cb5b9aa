"""AssumeRoleWithWebIdentity: taking on a role with an ID token of an OpenID Connect provider.

Source: STS API reference, "AssumeRoleWithWebIdentity"; IAM User Guide, "Pass session tags in AWS STS" (session tags with
AssumeRoleWithWebIdentity), "Available keys for AWS OIDC federation", "Monitor and control actions taken with
assumed roles".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines.idp import Claims, Issuers, Rejected, issuer_of, verify_token
from bastide.kernel import Authorised, Call, Caller, Calls, Output
from bastide.services.sts import role as roles
from bastide.services.sts.federated import Identity, asks, identify, refused, role_of_call, taken_on
from bastide.services.sts.session import SESSION
from bastide.store import View

_PROVIDER: Final = "iam:OpenIDConnectProvider"
_TAGS: Final = "https://aws.amazon.com/tags"
_SOURCE_IDENTITY: Final = "https://aws.amazon.com/source_identity"
_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


async def _verified(calls: Calls, call: Call) -> None:
    """Who the token says calls, once the issuer's own key has verified it; raises Refused."""
    if call.input.get("ProviderId"):
        raise roles.invalid("ProviderId must be left out for OpenID Connect; OAuth 2.0 access tokens are not taken.")
    arn = role_of_call(call)
    token = str(call.input["WebIdentityToken"])
    try:
        issuer, kid = issuer_of(token)
        scheme, _, name = issuer.partition("://")
        with calls.store.reading() as view:
            row = view.get(_PROVIDER, arn.account, "", name) if name else None
        marked = row is not None and (scheme == "https" or row.tags.get("bastide:development") == "true")
        if row is None or row.doc["scheme"] != scheme or not marked:
            raise Refused("InvalidIdentityToken", f"No OpenIDConnect provider found in your account for {issuer[:200]}")
        keys = await calls.engine(Issuers).keys(issuer, row.doc["thumbprints"], kid)
        claims = verify_token(token, keys, issuer=issuer, clients=row.doc["clients"], now=call.request.at)
    except Rejected as rejected:
        raise refused(rejected) from None
    call.prepared = _identity(call, arn.account, name, claims)


def _identity(call: Call, account: str, name: str, claims: Claims) -> Identity:
    provider = f"arn:aws:iam::{account}:oidc-provider/{name}"
    prefix = name.lower()
    keys: dict[str, str | tuple[str, ...]] = {
        f"{prefix}:aud": claims.audience,
        f"{prefix}:sub": claims.subject,
    }
    if claims.claims.get("azp") is not None:
        keys[f"{prefix}:oaud"] = claims.audiences
    methods = claims.claims.get("amr")
    if isinstance(methods, list) and methods and all(isinstance(one, str) for one in methods):
        keys[f"{prefix}:amr"] = tuple(methods)
    tags, transitive = _tags(claims.claims)
    source_identity = claims.claims.get(_SOURCE_IDENTITY, "")
    if source_identity != "" and not (isinstance(source_identity, str) and _NAME.fullmatch(source_identity)):
        raise Refused("InvalidIdentityToken", "The source identity in the token is not one.")
    who = f"{provider}:{claims.audience}:{claims.subject}"
    return Identity(
        Caller("Federated", account, provider, provider, who, claims.subject),
        str(call.input["RoleSessionName"]),
        {**keys, "aws:federatedprovider": provider},
        tags,
        transitive,
        source_identity,
        provider,
        keys,
        {
            "SubjectFromWebIdentityToken": claims.subject,
            "Audience": claims.audience,
            "Provider": claims.issuer,
        },
    )


def _tags(claims: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Session tags of a token: the claim ``https://aws.amazon.com/tags``, or the same flattened into several claims."""
    malformed = Refused("InvalidIdentityToken", f"The claim {_TAGS} is not as session tags are passed.")
    told = claims.get(_TAGS)
    if told is None:
        told = {
            "principal_tags": {
                name.removeprefix(f"{_TAGS}/principal_tags/"): value
                for name, value in claims.items()
                if name.startswith(f"{_TAGS}/principal_tags/")
            },
            "transitive_tag_keys": claims.get(f"{_TAGS}/transitive_tag_keys", []),
        }
    if not isinstance(told, dict):
        raise malformed
    principal, transitive = told.get("principal_tags", {}), told.get("transitive_tag_keys", [])
    if not isinstance(principal, dict) or not isinstance(transitive, list):
        raise malformed
    pairs = []
    for key, value in principal.items():
        # A tag has one value; AWS writes it as a list of one.
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(one, str):
            raise malformed
        pairs.append((key, one))
    if not all(isinstance(key, str) for key in transitive):
        raise malformed
    return roles.session_tags(pairs, transitive, {}, "InvalidIdentityToken")


@SESSION.reads(
    "AssumeRoleWithWebIdentity",
    tells=True,
    prepare=_verified,
    identify=identify,
    asks=asks("sts:AssumeRoleWithWebIdentity"),
)
def assume_role_with_web_identity(a: Authorised, view: View) -> Output:
    return taken_on(a, view)
