"""Provisioned products, and the records of what was done to them.

Source: Service Catalog API Reference, "ProvisionProduct", "TerminateProvisionedProduct", "DescribeRecord".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Asked, Authorised, Calls, Output, anything, once
from bastide.services.servicecatalog.acting import kept
from bastide.services.servicecatalog.noun import (
    NAMED,
    PROVISIONED,
    RECORD,
    absent,
    arn_of,
    ask,
    check_level,
    invalid,
    is_level,
    levels,
    listed_levels,
    new,
    newest,
    owner,
    shown_tags,
    sliced,
)
from bastide.services.servicecatalog.order import Order, ordered
from bastide.services.servicecatalog.paths import paths, product_named
from bastide.store import Row, Transaction, View

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}")
_PURPOSE: Final = "servicecatalog:order"
ACTED: Final = "EXECUTE_PROVISIONED_PRODUCT_SERVICE_ACTION"
_PROVISION, _UPDATE, _TERMINATE = "PROVISION_PRODUCT", "UPDATE_PROVISIONED_PRODUCT", "TERMINATE_PROVISIONED_PRODUCT"
_SHOWN: Final = (
    "ProductId", "ProvisioningArtifactId", "LastRecordId", "LastProvisioningRecordId",
    "LastSuccessfulProvisioningRecordId", "StatusMessage", "IdempotencyToken",
)  # fmt: skip


def seal(calls: Calls, value: Any) -> str:
    """Values that a launch brings and gives: they may hold secrets."""
    return calls.sealer.seal(orjson.dumps(value), _PURPOSE)


def opened(calls: Calls, sealed: str) -> Any:
    """What was sealed."""
    return orjson.loads(calls.sealer.open(sealed, _PURPOSE))


# -- finding -----------------------------------------------------------------------------------------------------------


def _lookup(view: View, account: str, region: str, given: Mapping[str, Any]) -> Row | None:
    id = given.get("ProvisionedProductId") or given.get("Id")
    name = given.get("ProvisionedProductName") or given.get("Name")
    if not id and name:
        held = view.get(NAMED, account, region, name)
        id = held.doc["id"] if held is not None else None
    return PROVISIONED.get(view, account, region, id) if id else None


def asked_product(asked: Asked) -> Row | None:
    """The provisioned product that a call names, None if there is none."""
    return _lookup(asked.view, asked.call.account, asked.call.region, asked.input)


def found(a: Authorised, view: View) -> Row:
    """The provisioned product that a call names by id or name; raises Refused."""
    given = a.input
    id = given.get("ProvisionedProductId") or given.get("Id")
    name = given.get("ProvisionedProductName") or given.get("Name")
    if bool(id) == bool(name):
        raise invalid("Please give either the id or the name of the provisioned product.")
    row = _lookup(view, a.account, a.region, given)
    if row is None:
        raise absent("Provisioned product", str(id or name))
    return row


# -- records -----------------------------------------------------------------------------------------------------------


def shown_record(row: Row) -> Output:
    """A record."""
    doc = row.doc
    shown_ = {
        "RecordId": row.name, "Status": row.status, "CreatedTime": row.created, "UpdatedTime": row.modified,
        "ProvisionedProductType": "CFN_STACK", "RecordErrors": doc.get("errors", []),
        "RecordTags": [{"Key": key, "Value": value} for key, value in doc.get("tags", {}).items()],
    }  # fmt: skip
    names = (
        "ProvisionedProductName", "ProvisionedProductId", "RecordType", "ProductId", "ProvisioningArtifactId", "PathId",
        "LaunchRoleArn",
    )  # fmt: skip
    return shown_ | {name: doc[name] for name in names if doc.get(name)}


def begin(
    a: Authorised, tx: Transaction, row: Row, type: str, *, id: str, role: str, order: Order | None = None, **more: Any
) -> Row:
    """A new record of a provisioned product; its work begins once it is on the disk."""
    doc: dict[str, Any] = {
        "ProvisionedProductName": row.doc["Name"], "ProvisionedProductId": row.name, "RecordType": type,
        "ProductId": row.doc["ProductId"], "ProvisioningArtifactId": row.doc["ProvisioningArtifactId"],
        "PathId": row.doc["PathId"], "LaunchRoleArn": role, "owner": owner(a.caller),
        "who": {} if role else kept(a.caller), "tags": order.tags if order is not None else {}, **more,
    }  # fmt: skip
    if order is not None:
        doc["ProductId"], doc["PathId"] = order.path.product.name, order.path.id
        doc["ProvisioningArtifactId"] = order.artifact.name.partition("/")[2]
        doc["order"] = seal(a.calls, order.asked())
        doc["values"] = seal(a.calls, order.parameters)
    return RECORD.create(a, tx, id, doc, status="CREATED")


def told(tx: Transaction, record: Row) -> Output:
    """A record that was just made, as an operation answers it."""
    detail = shown_record(record)
    return {"RecordDetail": {**detail, "CreatedTime": tx.now, "UpdatedTime": tx.now}}


# -- provisioning ------------------------------------------------------------------------------------------------------


@PROVISIONED.operation("ProvisionProduct", asks=ask("ProvisionProduct", product_named("ProductId", "ProductName")))
def provision(a: Authorised, tx: Transaction) -> Output:
    name = a.input["ProvisionedProductName"]
    if not _NAME.fullmatch(name):
        raise invalid("ProvisionedProductName begins with a letter or digit; letters, digits, . _ and - follow.")

    def make() -> Output:
        order = ordered(a, tx)
        if tx.get(NAMED, a.account, a.region, name) is not None:
            raise Refused("DuplicateResourceException", f"There is a provisioned product {name} already.")
        id, record = new("pp"), new("rec")
        doc: dict[str, Any] = {
            "Name": name, "owner": owner(a.caller), "ProductId": order.path.product.name,
            "ProvisioningArtifactId": order.artifact.name.partition("/")[2], "PathId": order.path.id,
            "LaunchRoleArn": order.role, "LastRecordId": record, "LastProvisioningRecordId": record,
            "IdempotencyToken": a.input["ProvisionToken"], "tags": order.tags, "stack": "",
            "ProductName": order.path.product.doc["Name"], "ProvisioningArtifactName": order.artifact.doc["Name"],
        }  # fmt: skip
        row = PROVISIONED.create(a, tx, id, doc, status="UNDER_CHANGE")
        tx.insert(Row(NAMED, a.account, a.region, name, {"id": id}), keep=False)
        return told(tx, begin(a, tx, row, _PROVISION, id=record, role=order.role, order=order))

    return once(a, tx, a.input["ProvisionToken"], make, code="InvalidParametersException")


def changing(a: Authorised, tx: Transaction, row: Row, record: str) -> None:
    """Has a provisioned product change; raises Refused while it does."""
    if row.status in ("UNDER_CHANGE", "PLAN_IN_PROGRESS"):
        raise invalid(f"The provisioned product {row.name} is being changed; please wait until it is AVAILABLE.")
    row.status = "UNDER_CHANGE"
    row.doc["LastRecordId"] = record
    PROVISIONED.change(tx, row, a.operation.name, a.request.id)


@PROVISIONED.operation(
    "UpdateProvisionedProduct", asks=ask("UpdateProvisionedProduct", anything, given=levels(asked_product))
)
def update(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        row = found(a, tx)
        if not row.doc["stack"] or row.status == "ERROR":
            raise invalid(f"The provisioned product {row.name} failed; please terminate it and provision again.")
        given = dict(a.input)
        if not given.get("ProductId") and not given.get("ProductName"):
            given["ProductId"] = row.doc["ProductId"]
        if not given.get("ProvisioningArtifactId") and not given.get("ProvisioningArtifactName"):
            given["ProvisioningArtifactId"] = row.doc["ProvisioningArtifactId"]
        stays = not given.get("PathId") and not given.get("PathName")
        if stays and any(one.id == row.doc["PathId"] for one in paths(a, tx, row.doc["ProductId"])):
            given["PathId"] = row.doc["PathId"]
        order = ordered(a, tx, given=given, earlier=opened(a.calls, row.doc["values"]), tags=row.doc["tags"])
        if order.path.product.name != row.doc["ProductId"]:
            raise invalid("A provisioned product is updated to versions of its own product only.")
        record = new("rec")
        changing(a, tx, row, record)
        return told(tx, begin(a, tx, row, _UPDATE, id=record, role=order.role, order=order, stack=row.doc["stack"]))

    return once(a, tx, a.input["UpdateToken"], make, code="InvalidParametersException")


@PROVISIONED.operation(
    "TerminateProvisionedProduct", asks=ask("TerminateProvisionedProduct", anything, given=levels(asked_product))
)
def terminate(a: Authorised, tx: Transaction) -> Output:
    def make() -> Output:
        row, record = found(a, tx), new("rec")
        changing(a, tx, row, record)
        more = {
            "stack": row.doc["stack"], "retain": bool(a.input.get("RetainPhysicalResources")),
            "ignore": bool(a.input.get("IgnoreErrors")),
        }  # fmt: skip
        return told(tx, begin(a, tx, row, _TERMINATE, id=record, role=row.doc["LaunchRoleArn"], **more))

    return once(a, tx, a.input["TerminateToken"], make, code="InvalidParametersException")


# -- looking -----------------------------------------------------------------------------------------------------------


def shown(row: Row) -> Output:
    """A provisioned product."""
    told = {name: row.doc[name] for name in _SHOWN if row.doc.get(name)}
    if row.doc.get("LaunchRoleArn"):
        told["LaunchRoleArn"] = row.doc["LaunchRoleArn"]
    return {
        **told, "Name": row.doc["Name"], "Arn": arn_of(row), "Type": "CFN_STACK", "Id": row.name, "Status": row.status,
        "CreatedTime": row.created,
    }  # fmt: skip


@PROVISIONED.reads(
    "DescribeProvisionedProduct", asks=ask("DescribeProvisionedProduct", anything, given=levels(asked_product))
)
def describe(a: Authorised, view: View) -> Output:
    return {"ProvisionedProductDetail": shown(found(a, view)), "CloudWatchDashboards": []}


@PROVISIONED.reads("ScanProvisionedProducts", asks=ask("ScanProvisionedProducts", anything, given=listed_levels()))
def scan(a: Authorised, view: View) -> Output:
    level = check_level(a)
    return newest(
        a, view, PROVISIONED, "ProvisionedProducts", lambda row: is_level(level, a.caller, row.doc), shown
    )  # fmt: skip


_SEARCHED: Final[dict[str, Callable[[Row], str]]] = {
    "arn": arn_of, "createdTime": lambda row: str(row.created), "id": lambda row: row.name,
    "lastRecordId": lambda row: row.doc["LastRecordId"], "idempotencyToken": lambda row: row.doc["IdempotencyToken"],
    "name": lambda row: row.doc["Name"], "physicalId": lambda row: row.doc["stack"],
    "productId": lambda row: row.doc["ProductId"], "productName": lambda row: row.doc.get("ProductName", ""),
    "provisioningArtifactId": lambda row: row.doc["ProvisioningArtifactId"],
    "provisioningArtifactName": lambda row: row.doc.get("ProvisioningArtifactName", ""),
    "status": lambda row: row.status, "type": lambda _: "CFN_STACK",
    "userArn": lambda row: row.doc["owner"]["UserArn"],
    "userArnSession": lambda row: row.doc["owner"]["UserArnSession"],
    "lastProvisioningRecordId": lambda row: row.doc["LastProvisioningRecordId"],
    "lastSuccessfulProvisioningRecordId": lambda row: row.doc.get("LastSuccessfulProvisioningRecordId", ""),
    "statusMessage": lambda row: row.doc.get("StatusMessage", ""),
    "tags": lambda row: " ".join(f"{key}:{value}" for key, value in row.doc["tags"].items()),
}  # fmt: skip


def _query(a: Authorised) -> list[tuple[str, str]]:
    """The conditions of a search: ``key:value``, or a word that is in any of them; raises InvalidParametersException."""
    wanted = []
    for member, values in (a.input.get("Filters") or {}).items():
        if member != "SearchQuery":
            raise invalid("The filter is SearchQuery.")
        for one in values:
            key, colon, value = str(one).partition(":")
            if colon and key not in _SEARCHED:
                raise invalid(f"{key} cannot be searched for.")
            wanted.append((key, value.strip("\"'")) if colon else ("", key))
    return wanted


def _hit(row: Row, wanted: list[tuple[str, str]]) -> bool:
    for key, value in wanted:
        values = [_SEARCHED[key](row)] if key else [read(row) for read in _SEARCHED.values()]
        text = value.rstrip("*").lower()
        if key and not value.endswith("*") and key != "tags":
            if not any(str(one).lower() == text for one in values):
                return False
        elif not any(text in str(one).lower() for one in values):
            return False
    return True


@PROVISIONED.reads("SearchProvisionedProducts", asks=ask("SearchProvisionedProducts", anything, given=listed_levels()))
def search(a: Authorised, view: View) -> Output:
    level, wanted = check_level(a), _query(a)
    by = a.input.get("SortBy")
    if by not in (None, "createdTime"):
        raise invalid("SortBy is not supported by Bastide yet: the newest come first.")

    def show(row: Row) -> Output:
        doc = row.doc
        told = {name: doc[name] for name in ("ProductName", "ProvisioningArtifactName") if doc.get(name)}
        more = {"UserArn": doc["owner"]["UserArn"], "UserArnSession": doc["owner"]["UserArnSession"]}
        whole = {key: value for key, value in shown(row).items() if key != "LaunchRoleArn"}
        return {**whole, **told, **more, "PhysicalId": doc["stack"], "Tags": shown_tags(doc["tags"])}

    return newest(
        a, view, PROVISIONED, "ProvisionedProducts",
        lambda row: is_level(level, a.caller, row.doc) and _hit(row, wanted), show,
    )  # fmt: skip


def _record(asked: Asked) -> Row | None:
    return RECORD.get(asked.view, asked.call.account, asked.call.region, str(asked.input.get("Id") or ""))


@RECORD.reads("DescribeRecord", asks=ask("DescribeRecord", anything, given=levels(_record)))
def describe_record(a: Authorised, view: View) -> Output:
    row = RECORD.find(view, a.account, a.region, a.input["Id"])
    outputs = opened(a.calls, row.doc["outputs"]) if row.doc.get("outputs") else []
    page = sliced(a, "RecordOutputs", [(one["OutputKey"], one) for one in outputs])
    return {**page, "RecordDetail": shown_record(row)}


@RECORD.reads("ListRecordHistory", asks=ask("ListRecordHistory", anything, given=listed_levels()))
def history(a: Authorised, view: View) -> Output:
    level, search = check_level(a), a.input.get("SearchFilter") or {}
    member = {"provisionedproduct": "ProvisionedProductId", "product": "ProductId", None: ""}
    if search.get("Key") not in member:
        raise invalid("SearchFilter: Key is provisionedproduct or product.")
    key = member[search.get("Key")]

    def wanted(row: Row) -> bool:
        return is_level(level, a.caller, row.doc) and (not key or row.doc[key] == search.get("Value"))

    return newest(a, view, RECORD, "RecordDetails", wanted, shown_record)


@PROVISIONED.reads("GetProvisionedProductOutputs", asks=ask("GetProvisionedProductOutputs", anything))
def outputs(a: Authorised, view: View) -> Output:
    row = found(a, view)
    record = RECORD.get(view, a.account, a.region, row.doc.get("LastSuccessfulProvisioningRecordId") or "")
    held = opened(a.calls, record.doc["outputs"]) if record is not None and record.doc.get("outputs") else []
    names = a.input.get("OutputKeys") or [one["OutputKey"] for one in held]
    unknown = [one for one in names if one not in {each["OutputKey"] for each in held}]
    if unknown:
        raise invalid(f"The provisioned product has no output {unknown[0]}.")
    return sliced(a, "Outputs", [(one["OutputKey"], one) for one in held if one["OutputKey"] in names])
