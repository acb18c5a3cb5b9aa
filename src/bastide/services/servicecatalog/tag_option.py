"""TagOptions: the values that tags of what is provisioned may have. Source: Administrator Guide, "AWS Service Catalog
TagOption Library"."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Asked, Authorised, Output, anything
from bastide.services.servicecatalog.noun import (
    PORTFOLIO,
    PRODUCT,
    TAG_OPTION,
    absent,
    ask,
    drop,
    invalid,
    keep,
    new,
    sliced,
    used,
)
from bastide.store import Row, Transaction, View

OPTION_OF: Final = "servicecatalog:TagOptionOf"
"""``RESOURCE/TAGOPTION``, and the other way round."""
_MOST: Final = 25
_MOST_OPTIONS: Final = 2000


def shown(row: Row) -> Output:
    """A TagOption."""
    doc = row.doc
    return {"Key": doc["Key"], "Value": doc["Value"], "Active": doc["Active"], "Id": row.name, "Owner": row.account}


def options_of(view: View, account: str, region: str, resource: str) -> list[Output]:
    """The TagOptions of a portfolio or product."""
    rows = view.scan(OPTION_OF, account, region, prefix=f"{resource}/", limit=_MOST)
    held = [TAG_OPTION.get(view, account, region, row.name.rpartition("/")[2]) for row in rows]
    return [shown(row) for row in held if row is not None]


def _unique(a: Authorised, view: View, key: str, value: str) -> None:
    rows = view.scan(TAG_OPTION.key, a.account, a.region, limit=_MOST_OPTIONS)
    if len(rows) == _MOST_OPTIONS:
        raise Refused("LimitExceededException", f"An account has at most {_MOST_OPTIONS} TagOptions.")
    if any((row.doc["Key"], row.doc["Value"]) == (key, value) for row in rows):
        raise Refused("DuplicateResourceException", f"There is a TagOption {key}={value} already.")


@TAG_OPTION.operation("CreateTagOption", asks=ask("CreateTagOption", anything))
def create(a: Authorised, tx: Transaction) -> Output:
    key, value = a.input["Key"], a.input["Value"]
    if key.lower().startswith("aws:"):
        raise invalid(f"The tag key `{key}` begins with the reserved prefix aws:. Please choose another key.")
    _unique(a, tx, key, value)
    row = TAG_OPTION.create(a, tx, new("tag"), {"Key": key, "Value": value, "Active": True})
    return {"TagOptionDetail": shown(row)}


@TAG_OPTION.reads("DescribeTagOption", asks=ask("DescribeTagOption", anything))
def describe(a: Authorised, view: View) -> Output:
    return {"TagOptionDetail": shown(TAG_OPTION.find(view, a.account, a.region, a.input["Id"]))}


@TAG_OPTION.operation("UpdateTagOption", asks=ask("UpdateTagOption", anything))
def update(a: Authorised, tx: Transaction) -> Output:
    row = TAG_OPTION.find(tx, a.account, a.region, a.input["Id"])
    if a.input.get("Value") not in (None, row.doc["Value"]):
        _unique(a, tx, row.doc["Key"], a.input["Value"])
        row.doc["Value"] = a.input["Value"]
    if a.input.get("Active") is not None:
        row.doc["Active"] = a.input["Active"]
    TAG_OPTION.change(tx, row, a.operation.name, a.request.id)
    return {"TagOptionDetail": shown(row)}


@TAG_OPTION.operation("DeleteTagOption", asks=ask("DeleteTagOption", anything))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = TAG_OPTION.find(tx, a.account, a.region, a.input["Id"])
    if tx.scan(OPTION_OF, a.account, a.region, prefix=f"{row.name}/", limit=1):
        raise used(f"The TagOption {row.name} is associated with resources.")
    TAG_OPTION.remove(tx, row, a.operation.name, a.request.id)
    return {}


@TAG_OPTION.reads("ListTagOptions", asks=ask("ListTagOptions", anything))
def listed(a: Authorised, view: View) -> Output:
    wanted = {key: value for key, value in (a.input.get("Filters") or {}).items() if value is not None}
    rows = view.scan(TAG_OPTION.key, a.account, a.region, limit=_MOST_OPTIONS)
    found = [(row.name, shown(row)) for row in rows if all(row.doc.get(key) == value for key, value in wanted.items())]
    return sliced(a, "TagOptionDetails", found, on="PageToken")


# -- what they are for -------------------------------------------------------------------------------------------------


def _resource(asked: Asked) -> list[str]:
    given = str(asked.input["ResourceId"])
    kind = PRODUCT if given.startswith("prod-") else PORTFOLIO
    return [kind.arn(asked.call.account, asked.call.region, given)]


def _both(a: Authorised, view: View) -> tuple[str, str]:
    resource, option = a.input["ResourceId"], a.input["TagOptionId"]
    kind = PRODUCT if resource.startswith("prod-") else PORTFOLIO
    if kind.get(view, a.account, a.region, resource) is None:
        raise absent("Resource", resource)
    if TAG_OPTION.get(view, a.account, a.region, option) is None:
        raise absent("TagOption", option)
    return resource, option


@TAG_OPTION.operation("AssociateTagOptionWithResource", asks=ask("AssociateTagOptionWithResource", _resource))
def associate(a: Authorised, tx: Transaction) -> Output:
    resource, option = _both(a, tx)
    if tx.get(OPTION_OF, a.account, a.region, f"{resource}/{option}") is not None:
        raise Refused("DuplicateResourceException", f"The TagOption {option} is associated with {resource} already.")
    if len(tx.scan(OPTION_OF, a.account, a.region, prefix=f"{resource}/", limit=_MOST)) == _MOST:
        raise Refused("LimitExceededException", f"A resource has at most {_MOST} TagOptions.")
    keep(a, tx, OPTION_OF, f"{resource}/{option}", {})
    keep(a, tx, OPTION_OF, f"{option}/{resource}", {})
    return {}


@TAG_OPTION.operation("DisassociateTagOptionFromResource", asks=ask("DisassociateTagOptionFromResource", _resource))
def disassociate(a: Authorised, tx: Transaction) -> Output:
    resource, option = a.input["ResourceId"], a.input["TagOptionId"]
    for name in (f"{resource}/{option}", f"{option}/{resource}"):
        row = tx.get(OPTION_OF, a.account, a.region, name)
        if row is None:
            raise absent("TagOption", f"{option} of {resource}")
        drop(a, tx, row)
    return {}


@TAG_OPTION.reads("ListResourcesForTagOption", asks=ask("ListResourcesForTagOption", anything))
def resources(a: Authorised, view: View) -> Output:
    option = TAG_OPTION.find(view, a.account, a.region, a.input["TagOptionId"])
    wanted = a.input.get("ResourceType")
    if wanted not in (None, "Portfolio", "Product"):
        raise invalid("ResourceType is Portfolio or Product.")
    found: list[tuple[str, dict[str, Any]]] = []
    for one in view.scan(OPTION_OF, a.account, a.region, prefix=f"{option.name}/", limit=1000):
        id = one.name.partition("/")[2]
        kind = PRODUCT if id.startswith("prod-") else PORTFOLIO
        row = kind.get(view, a.account, a.region, id)
        if row is not None and wanted in (None, kind.name):
            told = {
                "Id": id, "ARN": kind.arn(row.account, row.region, id), "CreatedTime": row.created,
                "Name": row.doc.get("Name") or row.doc.get("DisplayName"), "Description": row.doc.get("Description"),
            }  # fmt: skip
            found.append((id, told))
    return sliced(a, "ResourceDetails", found, on="PageToken")
