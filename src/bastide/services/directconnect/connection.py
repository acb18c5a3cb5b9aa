"""Connections: a port that a circuit ends at. The circuit itself is a record, and what the operator declares of it."""

from __future__ import annotations

import re
from typing import Final

from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.directconnect.noun import (
    CONNECTION,
    any_or,
    interfaces,
    new_id,
    paged,
    refuse,
    tags_of,
    tags_shown,
    up,
    wrong,
)
from bastide.store import Row, Transaction, View

_HERE: Final = "Bastide"
_CODE: Final = re.compile(r"[A-Za-z0-9-]{2,32}")
_BANDWIDTHS: Final = ("1Gbps", "10Gbps", "100Gbps", "400Gbps")


def shown(a: Authorised, row: Row) -> Output:
    """A connection as it is described."""
    return {
        "ownerAccount": row.account,
        "connectionId": row.name,
        "connectionName": row.doc["Name"],
        "connectionState": "available" if up(a, row.name) else "pending",
        "region": row.region,
        "location": row.doc["Location"],
        "bandwidth": row.doc["Bandwidth"],
        "hasLogicalRedundancy": "no",
        "jumboFrameCapable": False,
        "macSecCapable": False,
        "tags": tags_shown(row),
    }


@CONNECTION.reads("DescribeLocations", asks=[Ask("directconnect:DescribeLocations", anything)])
def locations(a: Authorised, view: View) -> Output:
    one = {
        "locationCode": _HERE, "locationName": "The machine that Bastide runs on", "region": a.region,
        "availablePortSpeeds": ["1G", "10G", "100G", "400G"], "availableProviders": [],
    }  # fmt: skip
    return {"locations": [one]}


@CONNECTION.operation("CreateConnection", asks=[Ask("directconnect:CreateConnection", anything)])
def create(a: Authorised, tx: Transaction) -> Output:
    refuse(a.input, "lagId", "requestMACSec", "providerName", "billingMode")
    location = str(a.input["location"])  # one of AWS's is as good: where a circuit ends, the operator declares
    if not _CODE.fullmatch(location):
        raise wrong(f"The location {location[:64]} does not exist.")
    if a.input["bandwidth"] not in _BANDWIDTHS:
        raise wrong(f"A dedicated connection has a bandwidth of {', '.join(_BANDWIDTHS)}.")
    doc = {"Name": a.input["connectionName"], "Location": location, "Bandwidth": a.input["bandwidth"]}
    row = CONNECTION.create(a, tx, new_id("dxcon"), doc, tags=tags_of(a.input))
    return {**shown(a, row), "connectionState": "requested"}


@CONNECTION.reads("DescribeConnections", asks=[Ask("directconnect:DescribeConnections", any_or(CONNECTION))])
def describe(a: Authorised, view: View) -> Output:
    if a.input.get("connectionId"):
        return {"connections": [shown(a, CONNECTION.named(a, view))]}
    return paged(a, view, CONNECTION, "connections", lambda row: shown(a, row))


@CONNECTION.operation("UpdateConnection", asks=[Ask("directconnect:UpdateConnection", CONNECTION.this)])
def update(a: Authorised, tx: Transaction) -> Output:
    refuse(a.input, "encryptionMode")
    row = CONNECTION.named(a, tx)
    if a.input.get("connectionName"):
        row.doc["Name"] = a.input["connectionName"]
        CONNECTION.change(tx, row, a.operation.name, a.request.id)
    return shown(a, row)


@CONNECTION.operation("DeleteConnection", asks=[Ask("directconnect:DeleteConnection", CONNECTION.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    row = CONNECTION.named(a, tx)
    if interfaces(tx, row.name):
        raise wrong(f"The connection {row.name} has virtual interfaces; delete them first.")
    told = {**shown(a, row), "connectionState": "deleting"}
    CONNECTION.remove(tx, row, a.operation.name, a.request.id)
    return told
