"""Types of Service Catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.regular import calls_of

_SERVICE: Final = "servicecatalog"


def _token(r: Resource) -> dict[str, str]:
    return {"IdempotencyToken": r.name(128)}


def _changed_tags(r: Resource) -> dict[str, Any]:
    """AddTags and RemoveTags, from the tags that were to those that are."""
    before = {one["Key"] for one in r.old.get("Tags") or ()}
    after = r.tags()
    gone = sorted(before - {one["Key"] for one in after})
    return {**({"AddTags": after} if after else {}), **({"RemoveTags": gone} if gone else {})}


def _refuse(r: Resource, *names: str) -> None:
    for name in names:
        if r.get(name):
            raise Refused("ValidationError", f"{name} is not supported yet; please leave it out.")


# -- portfolios --------------------------------------------------------------------------------------------------------

_PORTFOLIO: Final = ("DisplayName", "Description", "ProviderName")


async def _portfolio(r: Resource) -> None:
    asked = {**r.only(*_PORTFOLIO), "Tags": r.tags(), **_token(r)}
    r.thing.physical = (await r.do("CreatePortfolio", asked, key="create"))["PortfolioDetail"]["Id"]
    r.thing.attributes = {"Id": r.physical, "PortfolioName": r.get("DisplayName")}


async def _update_portfolio(r: Resource) -> None:
    await r.do("UpdatePortfolio", {"Id": r.physical, **r.only(*_PORTFOLIO), **_changed_tags(r)}, key="update")
    r.thing.attributes["PortfolioName"] = r.get("DisplayName")


async def _delete_portfolio(r: Resource) -> None:
    await r.drop("DeletePortfolio", {"Id": r.physical})


# -- products ----------------------------------------------------------------------------------------------------------

_PRODUCT: Final = (
    "Name", "Owner", "Description", "Distributor", "SupportDescription", "SupportEmail", "SupportUrl",
)  # fmt: skip


def _key(given: dict[str, Any]) -> str:
    """What a version is matched by: its template and its name."""
    return orjson.dumps([given.get("Info"), given.get("Name")], option=orjson.OPT_SORT_KEYS).decode()


def _version(given: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in given.items() if one is not None}


def _wanted(r: Resource) -> list[dict[str, Any]]:
    found = list(r.get("ProvisioningArtifactParameters") or ())
    if not found:
        raise Refused("ValidationError", "ProvisioningArtifactParameters must be given.")
    if len({_key(one) for one in found}) != len(found):
        raise Refused("ValidationError", "Two of ProvisioningArtifactParameters have the same name and template.")
    return found


def _tell(r: Resource, held: dict[str, str]) -> None:
    names = [str(orjson.loads(key)[1] or id) for key, id in held.items()]
    r.thing.attributes = {
        "Id": r.physical, "ProductName": r.get("Name"), "ProvisioningArtifactIds": ",".join(held.values()),
        "ProvisioningArtifactNames": ",".join(names), "_versions": held,
    }  # fmt: skip


async def _add(r: Resource, given: dict[str, Any], key: str) -> str:
    token = hashlib.sha256(f"{r.name(128)}/{r.run}/{key}".encode()).hexdigest()
    asked = {"ProductId": r.physical, "Parameters": _version(given), "IdempotencyToken": token}
    made = await r.do("CreateProvisioningArtifact", asked, key=hashlib.sha256(key.encode()).hexdigest()[:20])
    return str(made["ProvisioningArtifactDetail"]["Id"])


async def _product(r: Resource) -> None:
    _refuse(r, "SourceConnection")
    first, *more = _wanted(r)
    asked = {
        **r.only(*_PRODUCT), "ProductType": r.get("ProductType") or "CLOUD_FORMATION_TEMPLATE", "Tags": r.tags(),
        "ProvisioningArtifactParameters": _version(first), **_token(r),
    }  # fmt: skip
    made = await r.do("CreateProduct", asked, key="create")
    r.thing.physical = made["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
    held = {_key(first): made["ProvisioningArtifactDetail"]["Id"]}
    for one in more:
        held[_key(one)] = await _add(r, one, _key(one))
    _tell(r, held)


async def _update_product(r: Resource) -> None:
    """Versions are matched by template and name: others are made, and those that are gone are removed."""
    if r.changed(*_PRODUCT, "Tags"):
        await r.do("UpdateProduct", {"Id": r.physical, **r.only(*_PRODUCT), **_changed_tags(r)}, key="update")
    before: dict[str, str] = dict(r.thing.attributes.get("_versions") or {})
    texts = {_key(one): one.get("Description") for one in r.old.get("ProvisioningArtifactParameters") or ()}
    anew = bool(r.get("ReplaceProvisioningArtifacts")) and r.changed(*_PRODUCT, "ProvisioningArtifactParameters")
    held: dict[str, str] = {}
    for one in _wanted(r):
        key = _key(one)
        if key not in before or anew:
            held[key] = await _add(r, one, key)
            continue
        held[key] = before[key]
        if texts.get(key) != one.get("Description"):
            named = {"ProductId": r.physical, "ProvisioningArtifactId": held[key]}
            await r.do("UpdateProvisioningArtifact", {**named, "Description": one.get("Description") or ""})
    for id in before.values():
        if id not in held.values():
            await r.drop("DeleteProvisioningArtifact", {"ProductId": r.physical, "ProvisioningArtifactId": id})
    _tell(r, held)


async def _delete_product(r: Resource) -> None:
    await r.drop("DeleteProduct", {"Id": r.physical})


# -- what belongs together ---------------------------------------------------------------------------------------------


def _pair(
    name: str, make: str, take: str, members: tuple[str, ...], *, key: tuple[str, ...], extra: tuple[str, ...] = ()
) -> Type:
    """A type of something that binds two others. key: what it is known by; members: what take needs."""

    async def create(r: Resource) -> None:
        await r.do(make, {**r.only(*members, *extra)}, key="create")
        r.thing.physical = "|".join(str(r.get(one)) for one in key)

    async def delete(r: Resource) -> None:
        await r.drop(take, r.only(*members))

    return Type(f"AWS::ServiceCatalog::{name}", _SERVICE, create, delete, None, None, calls_of(_SERVICE, [make, take]))


async def _share(r: Resource) -> None:
    named = r.only("PortfolioId", "AccountId")
    await r.do("CreatePortfolioShare", {**named, **r.only("ShareTagOptions")}, key="create")
    r.thing.physical = f"{r.get('PortfolioId')}|{r.get('AccountId')}"


async def _update_share(r: Resource) -> None:
    options = {"ShareTagOptions": bool(r.get("ShareTagOptions"))}
    await r.do("UpdatePortfolioShare", {**r.only("PortfolioId", "AccountId"), **options}, key="update")


async def _unshare(r: Resource) -> None:
    await r.drop("DeletePortfolioShare", r.only("PortfolioId", "AccountId"))


async def _accept(r: Resource) -> None:
    await r.do("AcceptPortfolioShare", r.only("PortfolioId"), key="create")
    r.thing.physical = str(r.get("PortfolioId"))


async def _reject(r: Resource) -> None:
    await r.drop("RejectPortfolioShare", r.only("PortfolioId"))


# -- constraints -------------------------------------------------------------------------------------------------------


def _constraint(name: str, type: str, parameters: Callable[[Resource], dict[str, Any]]) -> Type:
    def text(r: Resource) -> str:
        return orjson.dumps(parameters(r)).decode()

    async def create(r: Resource) -> None:
        asked = {**r.only("PortfolioId", "ProductId", "Description"), "Type": type, "Parameters": text(r), **_token(r)}
        r.thing.physical = (await r.do("CreateConstraint", asked, key="create"))["ConstraintDetail"]["ConstraintId"]
        r.thing.attributes = {"Id": r.physical}

    async def update(r: Resource) -> None:
        asked = {"Id": r.physical, "Description": r.get("Description") or "", "Parameters": text(r)}
        await r.do("UpdateConstraint", asked, key="update")

    async def delete(r: Resource) -> None:
        await r.drop("DeleteConstraint", {"Id": r.physical})

    names = ("CreateConstraint", "UpdateConstraint", "DeleteConstraint")
    return Type(f"AWS::ServiceCatalog::{name}", _SERVICE, create, delete, update, None, calls_of(_SERVICE, names))


def _rules(r: Resource) -> dict[str, Any]:
    given = r.get("Rules")
    try:
        held = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError:
        raise Refused("ValidationError", "Rules is not JSON.") from None
    return {"Rules": held.get("Rules", held) if isinstance(held, dict) else held}


def _tag_update(r: Resource) -> dict[str, Any]:
    return {
        "Version": "2.0",
        "Properties": {"TagUpdateOnProvisionedProduct": r.get("TagUpdateOnProvisionedProduct")},
    }


# -- TagOptions --------------------------------------------------------------------------------------------------------


async def _option(r: Resource) -> None:
    r.thing.physical = (await r.do("CreateTagOption", r.only("Key", "Value"), key="create"))["TagOptionDetail"]["Id"]
    r.thing.attributes = {"Id": r.physical}
    if r.get("Active") is False:
        await _update_option(r)


async def _update_option(r: Resource) -> None:
    active = r.get("Active")
    await r.do("UpdateTagOption", {"Id": r.physical, "Active": active is not False}, key="update")


async def _delete_option(r: Resource) -> None:
    await r.drop("DeleteTagOption", {"Id": r.physical})


# -- provisioned products ----------------------------------------------------------------------------------------------

_LAUNCH: Final = (
    "ProductId", "ProductName", "ProvisioningArtifactId", "ProvisioningArtifactName", "PathId", "PathName",
)  # fmt: skip


async def _settled(r: Resource, id: str) -> None:
    """Waits for a record; raises Refused for one that failed."""
    last: dict[str, Any] = {}

    async def done() -> bool:
        last.update(await r.read("DescribeRecord", {"Id": id}))
        return last["RecordDetail"]["Status"] in ("SUCCEEDED", "FAILED")

    await r.until(done)
    if last["RecordDetail"]["Status"] == "FAILED":
        told = " ".join(one.get("Description", "") for one in last["RecordDetail"].get("RecordErrors") or ())
        raise Refused("NotStabilized", f"The record {id} FAILED: {told[:1000]}")
    outputs = {one["OutputKey"]: one["OutputValue"] for one in last.get("RecordOutputs") or ()}
    r.thing.attributes = {
        "ProvisionedProductId": r.physical, "RecordId": id,
        "CloudformationStackArn": outputs.pop("CloudformationStackARN", ""),
        **{f"Outputs.{key}": value for key, value in outputs.items()},
    }  # fmt: skip


def _parameters(r: Resource) -> dict[str, Any]:
    given = r.get("ProvisioningParameters") or []
    return {"ProvisioningParameters": [{"Key": one["Key"], "Value": str(one["Value"])} for one in given]}


async def _provision(r: Resource) -> None:
    _refuse(r, "ProvisioningPreferences")
    asked = {
        **r.only(*_LAUNCH, "NotificationArns"), **_parameters(r), "Tags": r.tags(), "ProvisionToken": r.name(128),
        "ProvisionedProductName": r.name(128, given=r.get("ProvisionedProductName")),
    }  # fmt: skip
    made = (await r.do("ProvisionProduct", asked, key="create"))["RecordDetail"]
    r.thing.physical = made["ProvisionedProductId"]
    r.thing.attributes = {"ProvisionedProductId": r.physical}
    await _settled(r, made["RecordId"])


async def _reprovision(r: Resource) -> None:
    _refuse(r, "ProvisioningPreferences")
    token = hashlib.sha256(f"{r.name(128)}/{r.run}/{r.key}".encode()).hexdigest()
    asked = {"ProvisionedProductId": r.physical, **r.only(*_LAUNCH), **_parameters(r), "UpdateToken": token}
    if r.changed("Tags"):
        asked["Tags"] = r.tags()
    made = (await r.do("UpdateProvisionedProduct", asked, key="update"))["RecordDetail"]
    await _settled(r, made["RecordId"])


async def _terminate(r: Resource) -> None:
    if not r.physical:
        return
    if await r.seen("DescribeProvisionedProduct", {"Id": r.physical}) is None:
        return
    token = hashlib.sha256(f"{r.name(128)}/{r.run}/{r.key}".encode()).hexdigest()
    asked = {"ProvisionedProductId": r.physical, "TerminateToken": token}
    made = (await r.do("TerminateProvisionedProduct", asked, key="terminate"))["RecordDetail"]
    await _settled(r, made["RecordId"])


def _type(name: str, create: Any, delete: Any, update: Any, calls: tuple[str, ...], named: str = "") -> Type:
    made = f"AWS::ServiceCatalog::{name}"
    return Type(made, _SERVICE, create, delete, update, None, calls_of(_SERVICE, calls), named=named)


TYPES: Final = (
    _type("Portfolio", _portfolio, _delete_portfolio, _update_portfolio,
          ("CreatePortfolio", "UpdatePortfolio", "DeletePortfolio")),
    _type("CloudFormationProduct", _product, _delete_product, _update_product,
          ("CreateProduct", "UpdateProduct", "DeleteProduct", "CreateProvisioningArtifact",
           "UpdateProvisioningArtifact", "DeleteProvisioningArtifact")),
    _pair("PortfolioPrincipalAssociation", "AssociatePrincipalWithPortfolio", "DisassociatePrincipalFromPortfolio",
          ("PortfolioId", "PrincipalARN", "PrincipalType"), key=("PrincipalARN", "PortfolioId")),
    _pair("PortfolioProductAssociation", "AssociateProductWithPortfolio", "DisassociateProductFromPortfolio",
          ("PortfolioId", "ProductId"), key=("PortfolioId", "ProductId"), extra=("SourcePortfolioId",)),
    _pair("TagOptionAssociation", "AssociateTagOptionWithResource", "DisassociateTagOptionFromResource",
          ("TagOptionId", "ResourceId"), key=("TagOptionId", "ResourceId")),
    _type("PortfolioShare", _share, _unshare, _update_share,
          ("CreatePortfolioShare", "UpdatePortfolioShare", "DeletePortfolioShare")),
    _type("AcceptedPortfolioShare", _accept, _reject, None, ("AcceptPortfolioShare", "RejectPortfolioShare")),
    _constraint("LaunchRoleConstraint", "LAUNCH", lambda r: r.only("RoleArn", "LocalRoleName")),
    _constraint("LaunchTemplateConstraint", "TEMPLATE", _rules),
    _constraint("LaunchNotificationConstraint", "NOTIFICATION", lambda r: r.only("NotificationArns")),
    _constraint("ResourceUpdateConstraint", "RESOURCE_UPDATE", _tag_update),
    _type("TagOption", _option, _delete_option, _update_option,
          ("CreateTagOption", "UpdateTagOption", "DeleteTagOption")),
    _type("CloudFormationProvisionedProduct", _provision, _terminate, _reprovision,
          ("ProvisionProduct", "UpdateProvisionedProduct", "TerminateProvisionedProduct", "DescribeRecord",
           "DescribeProvisionedProduct")),
)  # fmt: skip
"""The types of Service Catalog."""
