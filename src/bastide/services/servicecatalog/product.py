"""Products and their versions. Source: Service Catalog API Reference, "CreateProduct", "CreateProvisioningArtifact"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import templates
from bastide.engines.templates import text
from bastide.kernel import Authorised, Calls, Output, anything, once
from bastide.services.servicecatalog import fetching
from bastide.services.servicecatalog.noun import (
    ARTIFACT,
    CONTAINS,
    MOST,
    PORTFOLIO,
    PRODUCT,
    absent,
    ask,
    every,
    given_tags,
    invalid,
    named,
    new,
    retag,
    shown_tags,
    sliced,
    tags_of,
    used,
)
from bastide.services.servicecatalog.paths import held, imported, paths, product_named, product_of, products
from bastide.services.servicecatalog.tag_option import options_of
from bastide.store import Row, Transaction, View

_MEMBERS: Final = (
    "Name", "Owner", "Description", "Distributor", "SupportDescription", "SupportEmail", "SupportUrl",
)  # fmt: skip
_PURPOSE: Final = "servicecatalog:template"


def view_of(row: Row, *, path: bool = False) -> Output:
    """A product as end users see it."""
    doc = row.doc
    told = {
        "Id": f"prodview-{row.name[5:]}", "ProductId": row.name, "Name": doc["Name"], "Owner": doc["Owner"],
        "Type": "CLOUD_FORMATION_TEMPLATE", "HasDefaultPath": path, "ShortDescription": doc.get("Description"),
    }  # fmt: skip
    return told | {name: doc[name] for name in _MEMBERS[3:] if doc.get(name)}


def detail_of(row: Row) -> Output:
    """A product as administrators see it."""
    return {
        "ProductViewSummary": view_of(row), "Status": "AVAILABLE", "CreatedTime": row.created,
        "ProductARN": PRODUCT.arn(row.account, row.region, row.name),
    }  # fmt: skip


def artifact_of(row: Row) -> Output:
    """A version."""
    doc = row.doc
    return {
        "Id": row.name.partition("/")[2], "Name": doc["Name"], "Description": doc.get("Description"),
        "Type": "CLOUD_FORMATION_TEMPLATE", "CreatedTime": row.created, "Active": doc["Active"],
        "Guidance": doc["Guidance"],
    }  # fmt: skip


def brief(row: Row, *, guidance: bool = True) -> Output:
    """A version as lists tell it."""
    told = {"Id": row.name.partition("/")[2], "Name": row.doc["Name"], "CreatedTime": row.created}
    told["Description"] = row.doc.get("Description")
    return told | ({"Guidance": row.doc["Guidance"]} if guidance else {})


def artifacts(view: View, product: Row) -> list[Row]:
    """A product's versions, in the order in which they were made."""
    rows = view.scan(ARTIFACT, product.account, product.region, prefix=f"{product.name}/", limit=MOST)
    return sorted(rows, key=lambda row: (row.created, row.name))


def body_of(calls: Calls, artifact: Row) -> str:
    """A version's template."""
    return calls.sealer.open(artifact.doc["template"], _PURPOSE).decode()


def _own(a: Authorised, view: View, id: str) -> Row:
    row = PRODUCT.get(view, a.account, a.region, id)
    if row is None:
        raise absent("Product", id)
    return row


def artifact_named(view: View, product: Row, given: Mapping[str, Any], *, id: str, name: str) -> Row:
    """The version that a call names by id or name; raises Refused."""
    if bool(given.get(id)) == bool(given.get(name)):
        raise invalid(f"Please give either {id} or {name}.")
    if given.get(id):
        row = view.get(ARTIFACT, product.account, product.region, f"{product.name}/{given[id]}")
        if row is None:
            raise absent("Provisioning artifact", given[id])
        return row
    found = [row for row in artifacts(view, product) if row.doc["Name"] == given[name]]
    if not found:
        raise absent("Provisioning artifact", given[name])
    if len(found) > 1:
        raise invalid(f"Several versions have the name {given[name]}; please give {id}.")
    return found[0]


# -- making ------------------------------------------------------------------------------------------------------------


async def _before_create(a: Authorised) -> Any:
    if a.input["ProductType"] != "CLOUD_FORMATION_TEMPLATE":
        raise invalid("ProductType: products are CLOUD_FORMATION_TEMPLATE; Bastide has no other kind.")
    if a.input.get("SourceConnection"):
        raise invalid("SourceConnection is not supported by Bastide yet; please give ProvisioningArtifactParameters.")
    if not a.input.get("ProvisioningArtifactParameters"):
        raise invalid("ProvisioningArtifactParameters must be given.")
    return await fetching.template(a, a.input["ProvisioningArtifactParameters"])


def _artifact(a: Authorised, tx: Transaction, product: str, given: Mapping[str, Any], body: str, url: str) -> Row:
    id = new("pa")
    doc = {
        "Name": given.get("Name") or id, "Description": given.get("Description"), "Active": True, "Guidance": "DEFAULT",
        "template": a.calls.sealer.seal(body.encode(), _PURPOSE), "url": url,
    }  # fmt: skip
    row = Row(ARTIFACT, a.account, a.region, f"{product}/{id}", doc)
    tx.insert(row, event=a.operation.name, request_id=a.request.id)
    row.created = tx.now
    return row


@PRODUCT.operation("CreateProduct", asks=ask("CreateProduct", every(PRODUCT)), before=_before_create)
def create(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        if len(tx.scan(PRODUCT.key, a.account, a.region, limit=MOST * 5)) == MOST * 5:
            raise Refused("LimitExceededException", f"An account has at most {MOST * 5} products here.")
        doc = {name: a.input[name] for name in _MEMBERS if a.input.get(name)}
        row = PRODUCT.create(a, tx, new("prod"), doc, tags=tags_of(a))
        row.created = tx.now
        version = _artifact(a, tx, row.name, a.input["ProvisioningArtifactParameters"], *a.staged)
        return {
            "ProductViewDetail": detail_of(row), "ProvisioningArtifactDetail": artifact_of(version),
            "Tags": shown_tags(row.tags),
        }  # fmt: skip

    return once(a, tx, a.input.get("IdempotencyToken"), make, code="InvalidParametersException")


@PRODUCT.operation("UpdateProduct", asks=ask("UpdateProduct", named(PRODUCT, "Id"), more=given_tags))
def update(a: Authorised, tx: Transaction) -> Output:
    if a.input.get("SourceConnection"):
        raise invalid("SourceConnection is not supported by Bastide yet.")
    row = _own(a, tx, a.input["Id"])
    row.doc |= {name: a.input[name] for name in _MEMBERS if a.input.get(name) is not None}
    retag(a, row)
    PRODUCT.change(tx, row, a.operation.name, a.request.id)
    return {"ProductViewDetail": detail_of(row), "Tags": shown_tags(row.tags)}


@PRODUCT.operation("DeleteProduct", asks=ask("DeleteProduct", named(PRODUCT, "Id")))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _own(a, tx, a.input["Id"])
    for one in tx.scan(PORTFOLIO.key, a.account, a.region, limit=MOST):
        if tx.get(CONTAINS, a.account, a.region, f"{one.name}/{row.name}") is not None:
            raise used(f"The product {row.name} is in the portfolio {one.name}; please disassociate it first.")
    if options_of(tx, a.account, a.region, row.name):
        raise used(f"The product {row.name} has TagOptions; please remove them first.")
    for version in artifacts(tx, row):
        tx.delete(version, event=a.operation.name, request_id=a.request.id)
    PRODUCT.remove(tx, row, a.operation.name, a.request.id)
    return {}


async def _before_artifact(a: Authorised) -> Any:
    return await fetching.template(a, a.input["Parameters"])


@PRODUCT.operation(
    "CreateProvisioningArtifact", asks=ask("CreateProvisioningArtifact", named(PRODUCT, "ProductId")),
    before=_before_artifact,
)  # fmt: skip
def create_artifact(a: Authorised, tx: Transaction) -> Output:
    product = _own(a, tx, a.input["ProductId"])

    def make() -> Output:
        if len(artifacts(tx, product)) == MOST:
            raise Refused("LimitExceededException", f"A product has at most {MOST} versions.")
        row = _artifact(a, tx, product.name, a.input["Parameters"], *a.staged)
        return {
            "ProvisioningArtifactDetail": artifact_of(row), "Info": {"TemplateUrl": row.doc["url"]},
            "Status": "AVAILABLE",
        }  # fmt: skip

    return once(a, tx, a.input.get("IdempotencyToken"), make, code="InvalidParametersException")


@PRODUCT.operation("UpdateProvisioningArtifact", asks=ask("UpdateProvisioningArtifact", named(PRODUCT, "ProductId")))
def update_artifact(a: Authorised, tx: Transaction) -> Output:
    product = _own(a, tx, a.input["ProductId"])
    row = artifact_named(tx, product, a.input, id="ProvisioningArtifactId", name="")
    for name in ("Name", "Description", "Active", "Guidance"):
        if a.input.get(name) is not None:
            row.doc[name] = a.input[name]
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return {
        "ProvisioningArtifactDetail": artifact_of(row), "Info": {"TemplateUrl": row.doc["url"]}, "Status": "AVAILABLE"
    }  # fmt: skip


@PRODUCT.operation("DeleteProvisioningArtifact", asks=ask("DeleteProvisioningArtifact", named(PRODUCT, "ProductId")))
def delete_artifact(a: Authorised, tx: Transaction) -> Output:
    product = _own(a, tx, a.input["ProductId"])
    row = artifact_named(tx, product, a.input, id="ProvisioningArtifactId", name="")
    if len(artifacts(tx, product)) == 1:
        raise used("It is the product's only version; a product has at least one.")
    tx.delete(row, event=a.operation.name, request_id=a.request.id)
    return {}


# -- as administrators see it ------------------------------------------------------------------------------------------


def _by(a: Authorised, view: View) -> Row:
    id, name = a.input.get("Id"), a.input.get("Name")
    if bool(id) == bool(name):
        raise invalid("Please give either Id or Name.")
    if id:
        return product_of(a, view, id)
    rows = view.scan(PRODUCT.key, a.account, a.region, limit=MOST * 5)
    found = [row for row in rows if row.doc["Name"] == name]
    if not found:
        raise absent("Product", str(name))
    return found[0]


@PRODUCT.reads("DescribeProductAsAdmin", asks=ask("DescribeProductAsAdmin", product_named("Id", "Name")))
def describe_as_admin(a: Authorised, view: View) -> Output:
    row = _by(a, view)
    source = a.input.get("SourcePortfolioId")
    if source:
        portfolio = held(a, view, source)
        if view.get(CONTAINS, portfolio.account, a.region, f"{source}/{row.name}") is None:
            raise absent("Product", row.name)
    told: Output = {
        "ProductViewDetail": detail_of(row), "Budgets": [],
        "ProvisioningArtifactSummaries": [brief(one, guidance=False) for one in artifacts(view, row)],
    }  # fmt: skip
    if row.account == a.account:
        told |= {"Tags": shown_tags(row.tags), "TagOptions": options_of(view, a.account, a.region, row.name)}
    return told


@PRODUCT.reads("SearchProductsAsAdmin", asks=ask("SearchProductsAsAdmin", anything))
def search_as_admin(a: Authorised, view: View) -> Output:
    portfolio = a.input.get("PortfolioId")
    if portfolio:
        row = held(a, view, portfolio)
        inside = view.scan(CONTAINS, row.account, a.region, prefix=f"{row.name}/", limit=MOST * 5)
        rows = [PRODUCT.get(view, one.doc["owner"], a.region, one.doc["product"]) for one in inside]
    else:
        rows = [*view.scan(PRODUCT.key, a.account, a.region, limit=MOST * 5)]
        if a.input.get("ProductSource") != "ACCOUNT":
            for shared in imported(a.calls, view, a.account, a.region).values():
                inside = view.scan(CONTAINS, shared.owner, a.region, prefix=f"{shared.portfolio}/", limit=MOST * 5)
                rows += [PRODUCT.get(view, one.doc["owner"], a.region, one.doc["product"]) for one in inside]
    unique = {row.name: row for row in rows if row is not None}
    found = [(key, detail_of(row)) for key, row in ordered(a, view, filtered(a, list(unique.values())))]
    return sliced(a, "ProductViewDetails", found)


@PRODUCT.reads("ListProvisioningArtifacts", asks=ask("ListProvisioningArtifacts", named(PRODUCT, "ProductId")))
def list_artifacts(a: Authorised, view: View) -> Output:
    row = product_of(a, view, a.input["ProductId"])
    return {"ProvisioningArtifactDetails": [artifact_of(one) for one in artifacts(view, row)]}


@PRODUCT.reads(
    "DescribeProvisioningArtifact",
    asks=ask("DescribeProvisioningArtifact", product_named("ProductId", "ProductName")),
)
def describe_artifact(a: Authorised, view: View) -> Output:
    given = a.input
    if given.get("ProductId"):
        product = product_of(a, view, given["ProductId"])
    elif given.get("ProductName"):
        rows = view.scan(PRODUCT.key, a.account, a.region, limit=MOST * 5)
        found = [row for row in rows if row.doc["Name"] == given["ProductName"]]
        if not found:
            raise absent("Product", given["ProductName"])
        product = found[0]
    else:
        raise invalid("Please give either ProductId or ProductName.")
    row = artifact_named(view, product, given, id="ProvisioningArtifactId", name="ProvisioningArtifactName")
    told: Output = {"ProvisioningArtifactDetail": artifact_of(row), "Status": "AVAILABLE"}
    told["Info"] = {"TemplateUrl": row.doc["url"]}
    if given.get("Verbose"):
        told["Info"]["CloudFormationTemplate"] = body_of(a.calls, row)
    if given.get("IncludeProvisioningArtifactParameters"):
        told["ProvisioningArtifactParameters"] = parameters_of(fetching.read(body_of(a.calls, row)))
    return told


def parameters_of(template: templates.Template) -> list[Output]:
    """A template's parameters as the catalog tells them."""
    hidden = templates.parameters.hidden(template.parameters)
    found = []
    for name, one in template.parameters.items():
        limits: Output = {
            key: text(one[key])
            for key in ("AllowedPattern", "ConstraintDescription", "MaxLength", "MinLength", "MaxValue", "MinValue")
            if key in one
        }
        if one.get("AllowedValues"):
            limits["AllowedValues"] = [text(value) for value in one["AllowedValues"]]
        told: Output = {
            "ParameterKey": name, "ParameterType": one["Type"], "IsNoEcho": name in hidden,
            "ParameterConstraints": limits,
        }  # fmt: skip
        if "Default" in one and name not in hidden:
            told["DefaultValue"] = text(one["Default"])
        if one.get("Description"):
            told["Description"] = text(one["Description"])
        found.append(told)
    return found


# -- as end users see it -----------------------------------------------------------------------------------------------


def filtered(a: Authorised, rows: list[Row]) -> list[Row]:
    """Products as a search's filters have them; raises InvalidParametersException."""
    for key, values in (a.input.get("Filters") or {}).items():
        words = [str(one).lower() for one in values]
        members = {"FullTextSearch": _MEMBERS[:4], "Owner": ("Owner",)}.get(key)
        if key == "ProductType":
            rows = [row for row in rows if "cloud_formation_template" in words]
        elif key == "SourceProductId":
            raise invalid("The filter SourceProductId is not supported by Bastide yet: products are not copied.")
        elif members is None:
            raise invalid(f"{key} is no filter.")
        elif key == "Owner":
            rows = [row for row in rows if str(row.doc["Owner"]).lower() in words]
        else:
            rows = [
                row
                for row in rows
                if all(any(w in str(row.doc.get(m) or "").lower() for m in (*members, "SupportEmail")) for w in words)
            ]
    return rows


def ordered(a: Authorised, view: View, rows: list[Row]) -> list[tuple[str, Row]]:
    """Products as a search sorts them, each with a key that sorts so."""
    by = a.input.get("SortBy")
    keys = {
        None: lambda row: row.name, "Title": lambda row: f"{row.doc['Name']}\n{row.name}",
        "CreationDate": lambda row: f"{row.created:020d}{row.name}",
        "VersionCount": lambda row: f"{len(artifacts(view, row)):05d}{row.name}",
    }  # fmt: skip
    found = sorted(rows, key=keys[by], reverse=a.input.get("SortOrder") == "DESCENDING")
    return [(f"{number:05d}", row) for number, row in enumerate(found)]


@PRODUCT.reads("SearchProducts", asks=ask("SearchProducts", anything))
def search(a: Authorised, view: View) -> Output:
    ways = products(a, view)
    rows = filtered(a, [found[0].product for found in ways.values()])
    shown = [(key, view_of(row, path=len(ways[row.name]) == 1)) for key, row in ordered(a, view, rows)]
    output = sliced(a, "ProductViewSummaries", shown)
    owners: dict[str, int] = {}
    for row in rows:
        owners[row.doc["Owner"]] = owners.get(row.doc["Owner"], 0) + 1
    output["ProductViewAggregations"] = {
        "Owner": [{"Value": owner, "ApproximateCount": count} for owner, count in sorted(owners.items())],
        "ProductType": [{"Value": "CLOUD_FORMATION_TEMPLATE", "ApproximateCount": len(rows)}] if rows else [],
    }
    return output


def _described(view: View, row: Row, *, path: bool) -> Output:
    versions = [brief(one) for one in artifacts(view, row) if one.doc["Active"]]
    return {"ProductViewSummary": view_of(row, path=path), "ProvisioningArtifacts": versions}


@PRODUCT.reads("DescribeProduct", asks=ask("DescribeProduct", product_named("Id", "Name")))
def describe(a: Authorised, view: View) -> Output:
    id, name = a.input.get("Id"), a.input.get("Name")
    if bool(id) == bool(name):
        raise invalid("Please give either Id or Name.")
    ways = paths(a, view, id) if id else [one for one in paths(a, view) if one.product.doc["Name"] == name]
    if not ways:
        raise absent("Product", str(id or name))
    mine = [one for one in ways if one.product.name == ways[0].product.name]
    told = _described(view, ways[0].product, path=len(mine) == 1)
    return {**told, "Budgets": [], "LaunchPaths": [{"Id": one.id, "Name": one.name} for one in mine]}


@PRODUCT.reads("DescribeProductView", asks=ask("DescribeProductView", anything))
def describe_view(a: Authorised, view: View) -> Output:
    id = f"prod-{a.input['Id'].removeprefix('prodview-')}"
    ways = paths(a, view, id)
    if not ways:
        raise absent("Product view", a.input["Id"])
    return _described(view, ways[0].product, path=len(ways) == 1)
