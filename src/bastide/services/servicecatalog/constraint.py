"""Constraints: what binds launches of a product from a portfolio.

Source: Service Catalog API Reference, "CreateConstraint"; Administrator Guide, "Using AWS Service Catalog Constraints".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import templates
from bastide.kernel import Ask, Asked, Authorised, Output, anything, once
from bastide.services.servicecatalog.noun import (
    CONSTRAINT,
    CONTAINS,
    MOST,
    PRINCIPAL,
    PRODUCT,
    absent,
    ask,
    drop,
    invalid,
    keep,
    named,
    new,
    sliced,
)
from bastide.services.servicecatalog.paths import BOUND, held, own
from bastide.store import Row, Transaction, View

_ROLE: Final = re.compile(r"arn:aws:iam::\d{12}:role/[\w+=,.@/-]{1,512}")
_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}")
_TOPIC: Final = re.compile(r"arn:aws:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}")
_LOUD: Final = {"Version": "2.0", "Properties": {"TagUpdateOnProvisionedProduct": "ALLOWED"}}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise invalid("Parameters is a JSON object.")
    return found


def _launch(a: Authorised, given: Mapping[str, Any]) -> None:
    if len(given) != 1 or next(iter(given)) not in ("RoleArn", "LocalRoleName"):
        raise invalid('A LAUNCH constraint has {"RoleArn": ...} or {"LocalRoleName": ...}.')
    [(how, value)] = given.items()
    pattern = _ROLE if how == "RoleArn" else _NAME
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise invalid(f"{how} is not the {'ARN' if how == 'RoleArn' else 'name'} of a role.")
    if how == "RoleArn" and value.split(":")[4] != a.account:
        raise invalid("RoleArn is of another account; for portfolios that are shared there is LocalRoleName.")


def _checked(a: Authorised, type: str, text: str) -> dict[str, Any]:
    given = _parsed(text)
    if type == "LAUNCH":
        _launch(a, given)
    elif type == "NOTIFICATION":
        topics = given.get("NotificationArns")
        if set(given) != {"NotificationArns"} or not isinstance(topics, list) or not 1 <= len(topics) <= 5:
            raise invalid('A NOTIFICATION constraint has {"NotificationArns": [one to five topics]}.')
        if not all(isinstance(one, str) and _TOPIC.fullmatch(one) for one in topics):
            raise invalid("NotificationArns are ARNs of topics.")
    elif type == "TEMPLATE":
        if set(given) != {"Rules"}:
            raise invalid('A TEMPLATE constraint has {"Rules": {...}}, as templates write them.')
        try:
            templates.rules.check_declared(given["Rules"])
        except Refused as refused:
            raise invalid(refused.message) from None
    elif type == "RESOURCE_UPDATE":
        forbidden = {"Version": "2.0", "Properties": {"TagUpdateOnProvisionedProduct": "NOT_ALLOWED"}}
        if given not in (_LOUD, forbidden):
            raise invalid(f"A RESOURCE_UPDATE constraint is {orjson.dumps(_LOUD).decode()}, or NOT_ALLOWED.")
    elif type == "STACKSET":
        raise invalid("STACKSET constraints are not supported by Bastide yet: products are launched as stacks.")
    else:
        raise invalid("Type is LAUNCH, NOTIFICATION, RESOURCE_UPDATE or TEMPLATE.")
    return given


def _passed(asked: Asked) -> Iterable[str]:
    """The launch role that a constraint gives; whoever may not pass it may not have others launch with it."""
    text = asked.input.get("Parameters")
    given = _parsed(text) if text else {}
    name = given.get("LocalRoleName")
    role = given.get("RoleArn") or (f"arn:aws:iam::{asked.call.account}:role/{name}" if name else None)
    return (role,) if isinstance(role, str) else ()


PASS_ROLE: Final = Ask("iam:PassRole", _passed, given={"iam:PassedToService": lambda _: PRINCIPAL})


def shown(row: Row) -> Output:
    """A constraint."""
    doc = row.doc
    told = {name: doc[name] for name in ("Type", "Description", "ProductId", "PortfolioId") if doc.get(name)}
    return {**told, "ConstraintId": row.name, "Owner": row.account}


def _whole(row: Row) -> Output:
    text = orjson.dumps(row.doc["Parameters"]).decode()
    return {"ConstraintDetail": shown(row), "ConstraintParameters": text, "Status": "AVAILABLE"}


@CONSTRAINT.operation("CreateConstraint", asks=[*ask("CreateConstraint", named(PRODUCT, "ProductId")), PASS_ROLE])
def create(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    portfolio, product, type = own(a, tx, given["PortfolioId"]), given["ProductId"], given["Type"]
    if tx.get(CONTAINS, a.account, a.region, f"{portfolio.name}/{product}") is None:
        raise absent("Product", f"{product} in the portfolio {portfolio.name}")
    parameters = _checked(a, type, given["Parameters"])

    def make() -> Output:
        rows = _of(a, tx, portfolio, product)
        if len(rows) == MOST:
            raise Refused("LimitExceededException", f"A product of a portfolio has at most {MOST} constraints.")
        if type in ("LAUNCH", "RESOURCE_UPDATE") and any(one.doc["Type"] == type for one in rows):
            raise Refused("DuplicateResourceException", f"The product has a {type} constraint in this portfolio.")
        doc = {
            "Type": type, "Description": given.get("Description"), "Parameters": parameters, "ProductId": product,
            "PortfolioId": portfolio.name,
        }  # fmt: skip
        row = CONSTRAINT.create(a, tx, new("cons"), doc)
        keep(a, tx, BOUND, f"{portfolio.name}/{product}/{row.name}", {})
        return _whole(row)

    return once(a, tx, given.get("IdempotencyToken"), make, code="InvalidParametersException")


def _of(a: Authorised, view: View, portfolio: Row, product: str = "") -> list[Row]:
    prefix = f"{portfolio.name}/{product}/" if product else f"{portfolio.name}/"
    names = view.scan(BOUND, portfolio.account, a.region, prefix=prefix, limit=MOST * 10)
    rows = (CONSTRAINT.get(view, portfolio.account, a.region, one.name.rpartition("/")[2]) for one in names)
    return [row for row in rows if row is not None]


@CONSTRAINT.operation("UpdateConstraint", asks=[*ask("UpdateConstraint", anything), PASS_ROLE])
def update(a: Authorised, tx: Transaction) -> Output:
    row = CONSTRAINT.find(tx, a.account, a.region, a.input["Id"])
    if a.input.get("Description") is not None:
        row.doc["Description"] = a.input["Description"]
    if a.input.get("Parameters") is not None:
        row.doc["Parameters"] = _checked(a, row.doc["Type"], a.input["Parameters"])
    CONSTRAINT.change(tx, row, a.operation.name, a.request.id)
    return _whole(row)


@CONSTRAINT.operation("DeleteConstraint", asks=ask("DeleteConstraint", anything))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = CONSTRAINT.find(tx, a.account, a.region, a.input["Id"])
    beside = tx.get(BOUND, a.account, a.region, f"{row.doc['PortfolioId']}/{row.doc['ProductId']}/{row.name}")
    if beside is not None:
        drop(a, tx, beside)
    CONSTRAINT.remove(tx, row, a.operation.name, a.request.id)
    return {}


@CONSTRAINT.reads("DescribeConstraint", asks=ask("DescribeConstraint", anything))
def describe(a: Authorised, view: View) -> Output:
    return _whole(CONSTRAINT.find(view, a.account, a.region, a.input["Id"]))


@CONSTRAINT.reads("ListConstraintsForPortfolio", asks=ask("ListConstraintsForPortfolio", anything))
def listed(a: Authorised, view: View) -> Output:
    rows = _of(a, view, held(a, view, a.input["PortfolioId"]), a.input.get("ProductId") or "")
    return sliced(a, "ConstraintDetails", [(row.name, shown(row)) for row in rows])
