"""Dashboards: what is to be seen together. They belong to the account, not to a region.

Source: Amazon CloudWatch API Reference, PutDashboard, "Dashboard body structure and syntax".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, anything, pages, tags_of
from bastide.store import Transaction, View

DASHBOARD = Kind(
    "Dashboard",
    service="cloudwatch",
    arn="dashboard/{}",
    named_by="DashboardName",
    global_=True,
    tags=False,
    missing=("ResourceNotFound", "Dashboard {name} does not exist", 404),
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LONGEST: Final = 1 << 20
_TYPES: Final = ("metric", "text", "log", "alarm", "explorer", "custom")
_LISTED: Final = 1000


def _messages(body: str) -> list[dict[str, str]]:
    """What is wrong with a body; empty if nothing is."""
    try:
        held: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return [{"DataPath": "/", "Message": "The field DashboardBody must be a valid JSON object"}]
    widgets = held.get("widgets") if isinstance(held, dict) else None
    if not isinstance(widgets, list):
        return [{"DataPath": "/widgets", "Message": "Should be an array of widgets"}]
    found = []
    for number, one in enumerate(widgets):
        where = f"/widgets/{number}"
        if not isinstance(one, dict):
            found.append({"DataPath": where, "Message": "Should be an object"})
        elif one.get("type") not in _TYPES:
            found.append({"DataPath": f"{where}/type", "Message": f"Should be one of {', '.join(_TYPES)}"})
        elif not isinstance(one.get("properties"), dict):
            found.append({"DataPath": f"{where}/properties", "Message": "Should be an object"})
    return found


@DASHBOARD.operation("PutDashboard", asks=[Ask("cloudwatch:PutDashboard", DASHBOARD.this)])
def put(a: Authorised, tx: Transaction) -> Output:
    name, body = a.input["DashboardName"], a.input["DashboardBody"]
    if tags_of(a):
        raise Refused("InvalidParameterInput", "Tags of dashboards are not supported by Bastide yet.")
    if not _NAME.fullmatch(name):
        raise Refused(
            "InvalidParameterValue",
            "The value for field DashboardName contains invalid characters. It can only contain alphanumerics, dash (-) "
            "and underscore (_).\n",
        )
    messages = _messages(body) if len(body.encode()) <= _LONGEST else [{"DataPath": "/", "Message": "Is too long"}]
    if messages:
        members = {"dashboardValidationMessages": messages}
        raise Refused("InvalidParameterInput", "The dashboard body is invalid, see the messages.", members=members)
    row = DASHBOARD.get(tx, a.account, a.region, name)
    if row is None:
        DASHBOARD.create(a, tx, name, {"body": body})
    else:
        row.doc["body"] = body
        DASHBOARD.change(tx, row, a.operation.name, a.request.id)
    return {"DashboardValidationMessages": []}


@DASHBOARD.reads("GetDashboard", asks=[Ask("cloudwatch:GetDashboard", DASHBOARD.this)])
def get(a: Authorised, view: View) -> Output:
    row = DASHBOARD.find(view, a.account, a.region, a.input["DashboardName"])
    arn = DASHBOARD.arn(row.account, "", row.name)
    return {"DashboardArn": arn, "DashboardName": row.name, "DashboardBody": row.doc["body"]}


@DASHBOARD.reads("ListDashboards", asks=[Ask("cloudwatch:ListDashboards", anything)])
def listed(a: Authorised, view: View) -> Output:
    after = pages.position(a, a.input.get("NextToken"), code="InvalidParameterValue")
    prefix = a.input.get("DashboardNamePrefix") or ""
    rows = view.scan(DASHBOARD.key, a.account, "", prefix=prefix, after=after, limit=_LISTED + 1)
    output: Output = {
        "DashboardEntries": [
            {
                "DashboardName": row.name,
                "DashboardArn": DASHBOARD.arn(row.account, "", row.name),
                "LastModified": row.modified,
                "Size": len(row.doc["body"].encode()),
            }
            for row in rows[:_LISTED]
        ]
    }
    if len(rows) > _LISTED:
        output["NextToken"] = pages.seal(a, rows[_LISTED - 1].name)
    return output


def _each(asked: Asked) -> Iterable[str]:
    return [DASHBOARD.arn(asked.call.account, "", name) for name in asked.input["DashboardNames"]]


@DASHBOARD.operation("DeleteDashboards", asks=[Ask("cloudwatch:DeleteDashboards", _each)])
def delete(a: Authorised, tx: Transaction) -> Output:
    if not 0 < len(a.input["DashboardNames"]) <= 100:
        raise Refused("InvalidParameterValue", "Please name 1 to 100 dashboards.")
    for name in a.input["DashboardNames"]:
        DASHBOARD.remove(tx, DASHBOARD.find(tx, a.account, a.region, name), a.operation.name, a.request.id)
    return {}
