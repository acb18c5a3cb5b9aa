"""Portfolios: made, changed, removed; who may use them and what is in them.

Source: Service Catalog API Reference, "CreatePortfolio", "AssociatePrincipalWithPortfolio" and their like.
"""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import Arn
from bastide.kernel import Authorised, Output, anything, once
from bastide.services.servicecatalog.noun import (
    CONTAINS,
    MOST,
    PORTFOLIO,
    PRODUCT,
    absent,
    ask,
    drop,
    every,
    given_tags,
    invalid,
    keep,
    named,
    new,
    retag,
    shown_tags,
    sliced,
    tags_of,
    used,
)
from bastide.services.servicecatalog.paths import PRINCIPALS, entity, held, imported, own, product_of
from bastide.services.servicecatalog.tag_option import options_of
from bastide.store import Row, Transaction, View

SHARES: Final = "servicecatalog:Share"
CONSTRAINTS: Final = "servicecatalog:ConstraintOf"
_MEMBERS: Final = ("DisplayName", "Description", "ProviderName")
_PATTERN: Final = re.compile(r"arn:aws:iam:::(user|group|role)/[\w+=,.@*?/-]{1,512}")
_MOST_PATTERNS: Final = 10


def shown(row: Row) -> Output:
    """A portfolio."""
    told = {name: row.doc[name] for name in _MEMBERS if row.doc.get(name)}
    return {**told, "Id": row.name, "ARN": PORTFOLIO.arn(row.account, row.region, row.name), "CreatedTime": row.created}


@PORTFOLIO.operation("CreatePortfolio", asks=ask("CreatePortfolio", every(PORTFOLIO)))
def create(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        if len(tx.scan(PORTFOLIO.key, a.account, a.region, limit=MOST)) == MOST:
            raise invalid(f"An account has at most {MOST} portfolios.")
        doc = {name: a.input[name] for name in _MEMBERS if a.input.get(name)}
        row = PORTFOLIO.create(a, tx, new("port"), doc, tags=tags_of(a))
        return {"PortfolioDetail": {**shown(row), "CreatedTime": tx.now}, "Tags": shown_tags(row.tags)}

    return once(a, tx, a.input.get("IdempotencyToken"), make, code="InvalidParametersException")


@PORTFOLIO.operation("UpdatePortfolio", asks=ask("UpdatePortfolio", named(PORTFOLIO, "Id"), more=given_tags))
def update(a: Authorised, tx: Transaction) -> Output:
    row = own(a, tx, a.input["Id"])
    row.doc |= {name: a.input[name] for name in _MEMBERS if a.input.get(name) is not None}
    retag(a, row)
    PORTFOLIO.change(tx, row, a.operation.name, a.request.id)
    return {"PortfolioDetail": shown(row), "Tags": shown_tags(row.tags)}


@PORTFOLIO.operation("DeletePortfolio", asks=ask("DeletePortfolio", named(PORTFOLIO, "Id")))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = own(a, tx, a.input["Id"])
    for kind, what in ((CONTAINS, "products"), (PRINCIPALS, "principals"), (SHARES, "shares")):
        if tx.scan(kind, a.account, a.region, prefix=f"{row.name}/", limit=1):
            raise used(f"The portfolio {row.name} has {what}; please remove them first.")
    if options_of(tx, a.account, a.region, row.name):
        raise used(f"The portfolio {row.name} has TagOptions; please remove them first.")
    PORTFOLIO.remove(tx, row, a.operation.name, a.request.id)
    return {}


@PORTFOLIO.reads("DescribePortfolio", asks=ask("DescribePortfolio", named(PORTFOLIO, "Id")))
def describe(a: Authorised, view: View) -> Output:
    row = held(a, view, a.input["Id"])
    told: Output = {"PortfolioDetail": shown(row), "Budgets": []}
    if row.account == a.account:
        told |= {"Tags": shown_tags(row.tags), "TagOptions": options_of(view, a.account, a.region, row.name)}
    return told


@PORTFOLIO.reads("ListPortfolios", asks=ask("ListPortfolios", anything))
def listed(a: Authorised, view: View) -> Output:
    rows = view.scan(PORTFOLIO.key, a.account, a.region, limit=MOST)
    return sliced(a, "PortfolioDetails", [(row.name, shown(row)) for row in rows])


# -- who may use it ----------------------------------------------------------------------------------------------------


def _principal(a: Authorised, view: View) -> tuple[str, str, dict[str, Any]]:
    given, type = str(a.input["PrincipalARN"]), a.input.get("PrincipalType") or "IAM"
    if type == "IAM_PATTERN":
        if not _PATTERN.fullmatch(given):
            raise invalid(
                f"{given} is no pattern: it is arn:aws:iam:::role/NAME (or user, group), without an account, in which * "
                "and ? stand for any characters."
            )
        return type, given, {"type": type, "arn": given}
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise invalid(f"{given} is not the ARN of a user, group or role.") from None
    found = entity(view, arn)
    if arn.account != a.account or found is None:
        raise invalid(f"{given} is not a user, group or role of this account.")
    return type, given, {"type": type, "arn": given, "id": found}


@PORTFOLIO.operation(
    "AssociatePrincipalWithPortfolio", asks=ask("AssociatePrincipalWithPortfolio", named(PORTFOLIO, "PortfolioId"))
)
def associate_principal(a: Authorised, tx: Transaction) -> Output:
    row = held(a, tx, a.input["PortfolioId"])
    type, arn, doc = _principal(a, tx)
    there = tx.scan(PRINCIPALS, a.account, a.region, prefix=f"{row.name}/", limit=MOST)
    if len(there) == MOST or (
        type == "IAM_PATTERN" and sum(one.doc["type"] == type for one in there) >= _MOST_PATTERNS
    ):
        raise invalid("The portfolio has as many principals as it may have.")
    before = tx.get(PRINCIPALS, a.account, a.region, f"{row.name}/{type}/{arn}")
    if before is not None and before.doc != doc:  # the name is another's by now
        drop(a, tx, before)
    keep(a, tx, PRINCIPALS, f"{row.name}/{type}/{arn}", doc)
    return {}


@PORTFOLIO.operation(
    "DisassociatePrincipalFromPortfolio",
    asks=ask("DisassociatePrincipalFromPortfolio", named(PORTFOLIO, "PortfolioId")),
)
def disassociate_principal(a: Authorised, tx: Transaction) -> Output:
    held(a, tx, a.input["PortfolioId"])
    type = a.input.get("PrincipalType") or "IAM"
    found = tx.get(PRINCIPALS, a.account, a.region, f"{a.input['PortfolioId']}/{type}/{a.input['PrincipalARN']}")
    if found is None:
        raise absent("Principal", str(a.input["PrincipalARN"]))
    drop(a, tx, found)
    return {}


@PORTFOLIO.reads("ListPrincipalsForPortfolio", asks=ask("ListPrincipalsForPortfolio", named(PORTFOLIO, "PortfolioId")))
def list_principals(a: Authorised, view: View) -> Output:
    row = held(a, view, a.input["PortfolioId"])
    rows = view.scan(PRINCIPALS, a.account, a.region, prefix=f"{row.name}/", limit=MOST)
    found = [(one.name, {"PrincipalARN": one.doc["arn"], "PrincipalType": one.doc["type"]}) for one in rows]
    return sliced(a, "Principals", found)


# -- what is in it -----------------------------------------------------------------------------------------------------


@PRODUCT.operation("AssociateProductWithPortfolio", asks=ask("AssociateProductWithPortfolio", anything))
def associate_product(a: Authorised, tx: Transaction) -> Output:
    row, product, source = own(a, tx, a.input["PortfolioId"]), a.input["ProductId"], a.input.get("SourcePortfolioId")
    doc: dict[str, Any] = {"product": product, "owner": a.account, "source": ""}
    if PRODUCT.get(tx, a.account, a.region, product) is None:
        there = imported(a.calls, tx, a.account, a.region)
        of = [there[source]] if source in there else [] if source else list(there.values())
        found = next(
            (one for one in of if tx.get(CONTAINS, one.owner, a.region, f"{one.portfolio}/{product}") is not None), None
        )
        if found is None:
            raise absent("Product", product)
        if tx.scan(SHARES, a.account, a.region, prefix=f"{row.name}/", limit=1):
            raise invalid(f"The portfolio {row.name} is shared, and a shared product cannot be shared on.")
        doc |= {"owner": found.owner, "source": found.portfolio}
    elif source and tx.get(CONTAINS, a.account, a.region, f"{source}/{product}") is None:
        raise absent("Product", product)
    keep(a, tx, CONTAINS, f"{row.name}/{product}", doc)
    return {}


@PRODUCT.operation("DisassociateProductFromPortfolio", asks=ask("DisassociateProductFromPortfolio", anything))
def disassociate_product(a: Authorised, tx: Transaction) -> Output:
    row = own(a, tx, a.input["PortfolioId"])
    found = tx.get(CONTAINS, a.account, a.region, f"{row.name}/{a.input['ProductId']}")
    if found is None:
        raise absent("Product", a.input["ProductId"])
    if tx.scan(CONSTRAINTS, a.account, a.region, prefix=f"{row.name}/{a.input['ProductId']}/", limit=1):
        raise used("The product has constraints in this portfolio; please remove them first.")
    drop(a, tx, found)
    return {}


@PORTFOLIO.reads("ListPortfoliosForProduct", asks=ask("ListPortfoliosForProduct", named(PRODUCT, "ProductId")))
def portfolios_of(a: Authorised, view: View) -> Output:
    product_of(a, view, a.input["ProductId"])
    rows = view.scan(PORTFOLIO.key, a.account, a.region, limit=MOST)
    there = imported(a.calls, view, a.account, a.region)
    rows += [row for one in there.values() if (row := PORTFOLIO.get(view, one.owner, a.region, one.portfolio))]
    found = [
        (row.name, shown(row))
        for row in rows
        if view.get(CONTAINS, row.account, a.region, f"{row.name}/{a.input['ProductId']}") is not None
    ]
    return sliced(a, "PortfolioDetails", found)
