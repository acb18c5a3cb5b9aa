"""OpenID Connect providers: identity providers known by the address of their issuer.

Source: IAM API reference, "CreateOpenIDConnectProvider"; IAM User Guide, "Create an OpenID Connect (OIDC) identity provider
in IAM". Beyond AWS: an address may have a port; and for development an issuer on this machine may speak plain HTTP, if the
provider carries the tag ``bastide:development`` = ``true`` (and while the platform listens on loopback only).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from bastide.domain import Refused, tag_list
from bastide.kernel import Ask, Asked, Authorised, Output, anything
from bastide.services.iam.entity import limit, new_tags, with_tags
from bastide.services.iam.provider import Provider
from bastide.store import Transaction, View

PROVIDER = Provider(
    "OpenIDConnectProvider",
    arn="oidc-provider/{}",
    named_by="OpenIDConnectProviderArn",
    told_missing="OpenIDConnect Provider not found for arn {arn}",
    told_taken="Provider with the ARN {arn} already exists.",
)
DEVELOPMENT: Final = "bastide:development"
_MOST_CLIENTS: Final = 100
_MOST_THUMBPRINTS: Final = 5
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PREFIXES: Final = frozenset({"aws", "saml", "sts", "iam"})
"""Names whose condition keys (``NAME:sub``) could be taken for others."""
_NETLOC: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()+,;=@-]*)*")


def _invalid(message: str) -> Refused:
    return Refused("InvalidInput", message)


def _parts(url: str) -> tuple[str, str]:
    """Scheme and the rest, which names the provider; raises Refused (InvalidInput)."""
    scheme, _, name = url.partition("://")
    try:
        split = urlsplit(url)
        host, _ = split.hostname, split.port
    except ValueError:
        raise _invalid("Invalid Open ID Connect Provider URL") from None
    if scheme not in ("https", "http") or not _NETLOC.fullmatch(split.netloc) or not _PATH.fullmatch(split.path):
        raise _invalid("Invalid Open ID Connect Provider URL: it must begin with https:// and have no query parameters")
    if split.query or split.fragment or name != split.netloc + split.path:
        raise _invalid("Invalid Open ID Connect Provider URL: it must begin with https:// and have no query parameters")
    if name in _PREFIXES:
        raise _invalid("Invalid Open ID Connect Provider URL: its condition keys would be AWS's own")
    if scheme == "http" and host not in _LOOPBACK:
        raise _invalid("Invalid Open ID Connect Provider URL: it must begin with https://")
    return scheme, name


def _thumbprints(given: Sequence[str]) -> list[str]:
    """Checked; raises Refused (InvalidInput, LimitExceeded)."""
    if len(given) > _MOST_THUMBPRINTS:
        raise limit(f"Thumbprint list must contain at most {_MOST_THUMBPRINTS} entries.")
    if not all(re.fullmatch(r"[0-9A-Fa-f]{40}", one) for one in given):
        raise _invalid("A thumbprint is the SHA-1 of a certificate: 40 hexadecimal digits.")
    return [one.lower() for one in dict.fromkeys(given)]


def _made(asked: Asked) -> Iterable[str]:
    return (PROVIDER.arn(asked.call.account, "", str(asked.input["Url"]).partition("://")[2] or "*"),)


@PROVIDER.operation(
    "CreateOpenIDConnectProvider",
    asks=[
        Ask("iam:CreateOpenIDConnectProvider", _made),
        Ask("iam:TagOpenIDConnectProvider", _made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    scheme, name = _parts(str(a.input["Url"]))
    tags = new_tags(a)
    if scheme == "http" and tags.get(DEVELOPMENT) != "true":
        raise _invalid(f"An issuer that speaks plain HTTP is for development: please tag it {DEVELOPMENT}=true.")
    PROVIDER.room(a, tx)
    clients = list(dict.fromkeys(str(one) for one in a.input.get("ClientIDList") or ()))
    if len(clients) > _MOST_CLIENTS:
        raise limit(f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {_MOST_CLIENTS}")
    doc = {"scheme": scheme, "clients": clients, "thumbprints": _thumbprints(a.input.get("ThumbprintList") or ())}
    row = PROVIDER.create(a, tx, name, doc, tags=tags)
    output: Output = {"OpenIDConnectProviderArn": PROVIDER.arn(a.account, "", row.name)}
    if row.tags:
        output["Tags"] = tag_list(row.tags)
    return output


@PROVIDER.reads("GetOpenIDConnectProvider", asks=[Ask("iam:GetOpenIDConnectProvider", PROVIDER.this)])
def get(a: Authorised, view: View) -> Output:
    row = PROVIDER.asked_for(a, view)
    output: Output = {
        "Url": row.name,  # without its scheme, as AWS shows it
        "ClientIDList": row.doc["clients"],
        "ThumbprintList": row.doc["thumbprints"],
        "CreateDate": row.created,
    }
    if row.tags:
        output["Tags"] = tag_list(row.tags)
    return output


@PROVIDER.operation("DeleteOpenIDConnectProvider", asks=[Ask("iam:DeleteOpenIDConnectProvider", PROVIDER.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """Sessions that began at the provider go on to their end, as in AWS; none begins any more."""
    PROVIDER.remove(tx, PROVIDER.asked_for(a, tx), a.operation.name, a.request.id)
    return {}


@PROVIDER.reads("ListOpenIDConnectProviders", asks=[Ask("iam:ListOpenIDConnectProviders", anything)])
def providers(a: Authorised, view: View) -> Output:
    rows = PROVIDER.all(a, view)
    return {"OpenIDConnectProviderList": [{"Arn": PROVIDER.arn(a.account, "", row.name)} for row in rows]}


@PROVIDER.operation(
    "AddClientIDToOpenIDConnectProvider", asks=[Ask("iam:AddClientIDToOpenIDConnectProvider", PROVIDER.this)]
)
def add_client(a: Authorised, tx: Transaction) -> Output:
    row = PROVIDER.asked_for(a, tx)
    client = str(a.input["ClientID"])
    if client not in row.doc["clients"]:
        if len(row.doc["clients"]) >= _MOST_CLIENTS:
            raise limit(f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {_MOST_CLIENTS}")
        row.doc["clients"].append(client)
        PROVIDER.save(a, tx, row)
    return {}


@PROVIDER.operation(
    "RemoveClientIDFromOpenIDConnectProvider", asks=[Ask("iam:RemoveClientIDFromOpenIDConnectProvider", PROVIDER.this)]
)
def remove_client(a: Authorised, tx: Transaction) -> Output:
    row = PROVIDER.asked_for(a, tx)
    client = str(a.input["ClientID"])
    if client in row.doc["clients"]:
        row.doc["clients"].remove(client)
        PROVIDER.save(a, tx, row)
    return {}


@PROVIDER.operation(
    "UpdateOpenIDConnectProviderThumbprint", asks=[Ask("iam:UpdateOpenIDConnectProviderThumbprint", PROVIDER.this)]
)
def update_thumbprints(a: Authorised, tx: Transaction) -> Output:
    row = PROVIDER.asked_for(a, tx)
    row.doc["thumbprints"] = _thumbprints(a.input["ThumbprintList"])
    PROVIDER.save(a, tx, row)
    return {}


with_tags(PROVIDER, PROVIDER.asked_for, PROVIDER.this)
