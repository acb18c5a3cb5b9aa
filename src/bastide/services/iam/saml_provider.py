"""SAML providers: identity providers known by their metadata document.

Source: IAM API reference, "CreateSAMLProvider"; IAM User Guide, "Create a SAML identity provider in IAM".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bastide.domain import Refused, tag_list
from bastide.engines.idp import Metadata
from bastide.kernel import Ask, Asked, Authorised, Output, anything, unique_id
from bastide.services.iam.entity import new_tags, with_tags
from bastide.services.iam.provider import Provider
from bastide.store import Transaction, View

PROVIDER = Provider(
    "SAMLProvider",
    arn="saml-provider/{}",
    named_by="SAMLProviderArn",
    told_missing="Manifest not found for arn {arn}",
    told_taken="SAML provider {arn} already exists.",
)
_MOST_CHARACTERS: Final = 1_000_000
"""Of a metadata document; AWS takes ten times as many, no identity provider writes as many."""


def _described(a: Authorised) -> dict[str, Any]:
    """What is kept of the metadata document; raises Refused (InvalidInput)."""
    for name in ("AssertionEncryptionMode", "AddPrivateKey", "RemovePrivateKey"):
        if a.input.get(name):
            raise Refused("InvalidInput", f"{name} is not supported by Bastide: assertions are signed, not encrypted.")
    document = str(a.input["SAMLMetadataDocument"])
    if len(document) > _MOST_CHARACTERS:
        raise Refused("InvalidInput", f"The metadata document is longer than {_MOST_CHARACTERS} characters.")
    try:
        metadata = Metadata.parse(document)
    except ValueError as error:
        raise Refused("InvalidInput", f"Could not parse metadata: {error}") from None
    if metadata.valid_until <= a.now:
        raise Refused("InvalidInput", "The metadata document, or its last signing certificate, has expired.")
    return {
        "document": document,
        "entity_id": metadata.entity_id,
        "certificates": list(metadata.certificates),
        "valid_until": metadata.valid_until,
    }


def _made(asked: Asked) -> Iterable[str]:
    return (PROVIDER.arn(asked.call.account, "", str(asked.input["Name"])),)


@PROVIDER.operation(
    "CreateSAMLProvider",
    asks=[
        Ask("iam:CreateSAMLProvider", _made),
        Ask("iam:TagSAMLProvider", _made, when=lambda asked: bool(asked.input.get("Tags"))),
    ],
)
def create(a: Authorised, tx: Transaction) -> Output:
    PROVIDER.room(a, tx)
    doc = {**_described(a), "uuid": unique_id("SAMLSP", 20)}
    row = PROVIDER.create(a, tx, str(a.input["Name"]), doc, tags=new_tags(a))
    output: Output = {"SAMLProviderArn": PROVIDER.arn(a.account, "", row.name)}
    if row.tags:
        output["Tags"] = tag_list(row.tags)
    return output


@PROVIDER.reads("GetSAMLProvider", asks=[Ask("iam:GetSAMLProvider", PROVIDER.this)])
def get(a: Authorised, view: View) -> Output:
    row = PROVIDER.asked_for(a, view)
    output: Output = {
        "SAMLProviderUUID": row.doc["uuid"],
        "SAMLMetadataDocument": row.doc["document"],
        "CreateDate": row.created,
        "ValidUntil": row.doc["valid_until"],
    }
    if row.tags:
        output["Tags"] = tag_list(row.tags)
    return output


@PROVIDER.operation("UpdateSAMLProvider", asks=[Ask("iam:UpdateSAMLProvider", PROVIDER.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    row = PROVIDER.asked_for(a, tx)
    if a.input.get("SAMLMetadataDocument") is None:
        raise Refused("InvalidInput", "Please give a SAMLMetadataDocument.")
    row.doc.update(_described(a))
    PROVIDER.save(a, tx, row)
    return {"SAMLProviderArn": PROVIDER.arn(a.account, "", row.name)}


@PROVIDER.operation("DeleteSAMLProvider", asks=[Ask("iam:DeleteSAMLProvider", PROVIDER.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """Sessions that began at the provider go on to their end, as in AWS; none begins any more."""
    PROVIDER.remove(tx, PROVIDER.asked_for(a, tx), a.operation.name, a.request.id)
    return {}


@PROVIDER.reads("ListSAMLProviders", asks=[Ask("iam:ListSAMLProviders", anything)])
def providers(a: Authorised, view: View) -> Output:
    return {
        "SAMLProviderList": [
            {
                "Arn": PROVIDER.arn(a.account, "", row.name),
                "ValidUntil": row.doc["valid_until"],
                "CreateDate": row.created,
            }
            for row in PROVIDER.all(a, view)
        ]
    }


with_tags(PROVIDER, PROVIDER.asked_for, PROVIDER.this)
