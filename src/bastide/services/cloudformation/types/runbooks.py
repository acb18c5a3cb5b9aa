"""Documents of Systems Manager, and the self-service actions of Service Catalog that run them."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import calls_of


def _content(r: Resource) -> dict[str, Any]:
    for name in ("Attachments", "Requires", "VersionName"):
        if r.get(name):
            raise Refused("ValidationError", f"{name} is not supported yet; please leave it out.")
    given = r.get("Content")
    text = given if isinstance(given, str) else orjson.dumps(given).decode()
    return {"Content": text, **r.only("DocumentFormat", "TargetType")}


async def _document(r: Resource) -> None:
    name = r.name(128, given=r.get("Name"))
    asked = {"Name": name, **_content(r), **r.only("DocumentType"), "Tags": r.tags()}
    await r.do("CreateDocument", asked, key="create")
    r.thing.physical = name


async def _update_document(r: Resource) -> None:
    """A new version, which is the default one from then on."""
    if r.changed("Content", "DocumentFormat", "TargetType"):
        asked = {"Name": r.physical, "DocumentVersion": "$LATEST", **_content(r)}
        made = await r.do("UpdateDocument", asked, key="update")
        number = made["DocumentDescription"]["DocumentVersion"]
        await r.do("UpdateDocumentDefaultVersion", {"Name": r.physical, "DocumentVersion": number}, key="default")
    before = {one["Key"] for one in r.old.get("Tags") or ()}
    after = r.tags()
    gone = sorted(before - {one["Key"] for one in after})
    named = {"ResourceType": "Document", "ResourceId": r.physical}
    if gone:
        await r.do("RemoveTagsFromResource", {**named, "TagKeys": gone})
    if after and r.changed("Tags"):
        await r.do("AddTagsToResource", {**named, "Tags": after})


async def _delete_document(r: Resource) -> None:
    await r.drop("DeleteDocument", {"Name": r.physical})


def _definition(r: Resource) -> dict[str, Any]:
    return {"Definition": {one["Key"]: one["Value"] for one in r.get("Definition") or ()}}


async def _action(r: Resource) -> None:
    asked = {**r.only("Name", "DefinitionType", "Description"), **_definition(r), "IdempotencyToken": r.name(128)}
    made = await r.do("CreateServiceAction", asked, key="create")
    r.thing.physical = made["ServiceActionDetail"]["ServiceActionSummary"]["Id"]
    r.thing.attributes = {"Id": r.physical}


async def _update_action(r: Resource) -> None:
    asked = {"Id": r.physical, **r.only("Name"), "Description": r.get("Description") or "", **_definition(r)}
    await r.do("UpdateServiceAction", asked, key="update")


async def _delete_action(r: Resource) -> None:
    await r.drop("DeleteServiceAction", {"Id": r.physical})


_OF: Final = ("ProductId", "ProvisioningArtifactId", "ServiceActionId")


async def _associate(r: Resource) -> None:
    await r.do("AssociateServiceActionWithProvisioningArtifact", r.only(*_OF), key="create")
    r.thing.physical = "|".join(str(r.get(one)) for one in _OF)


async def _disassociate(r: Resource) -> None:
    await r.drop("DisassociateServiceActionFromProvisioningArtifact", r.only(*_OF))


_SERVICE: Final = "servicecatalog"
TYPES: Final = (
    Type("AWS::SSM::Document", "ssm", _document, _delete_document, _update_document, None,
         calls_of("ssm", ("CreateDocument", "UpdateDocument", "UpdateDocumentDefaultVersion", "DeleteDocument",
                          "AddTagsToResource", "RemoveTagsFromResource"))),
    Type("AWS::ServiceCatalog::ServiceAction", _SERVICE, _action, _delete_action, _update_action, None,
         calls_of(_SERVICE, ("CreateServiceAction", "UpdateServiceAction", "DeleteServiceAction"))),
    Type("AWS::ServiceCatalog::ServiceActionAssociation", _SERVICE, _associate, _disassociate, None, None,
         calls_of(_SERVICE, ("AssociateServiceActionWithProvisioningArtifact",
                             "DisassociateServiceActionFromProvisioningArtifact"))),
)  # fmt: skip
"""The types of runbooks and actions."""
