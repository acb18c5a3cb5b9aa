"""Enabled controls and operations as rows, and who may speak for the organisation."""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import Refused, timed_id
from bastide.kernel import Authorised, Kind, Output
from bastide.services.controltower.controls import wrong
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "controltower.amazonaws.com"
CONTROL: Final = Kind(
    "EnabledControl", service="controltower", arn="enabledcontrol/{}", named_by="enabledControlIdentifier",
    missing=("ResourceNotFoundException", "There is no enabled control {arn}.", 404),
)  # fmt: skip
OPERATION: Final = Kind(
    "ControlOperation", service="controltower", arn="operation/{}", named_by="operationIdentifier", tags=False,
    history=False, missing=("ResourceNotFoundException", "There is no operation {name}.", 404),
)  # fmt: skip
"""Ids of later ones sort later."""
AT: Final = "controltower:At"
"""Rows ``UNIT/CONTROL`` of the account, of no region: where a control is enabled already."""
POLICY: Final = "controltower:Policy"
"""Rows named by a unit, of the account and no region: the policy that holds the unit's controls."""
_UNIT: Final = re.compile(r"arn:aws:organizations::\d{12}:ou/o-[a-z0-9]{4,32}/(ou-[0-9a-z]{4,32}-[a-z0-9]{8,32})")


def management(a: Authorised) -> None:
    """Raises AccessDeniedException for a call from any account but the organisation's management account."""
    if a.account != a.calls.home:
        raise Refused("AccessDeniedException", "Control Tower is for the organisation's management account alone.", 403)


def unit(a: Authorised, view: View, arn: str) -> str:
    """The id of the unit that an ARN names, looked up with the caller's permissions; raises Refused."""
    match = _UNIT.fullmatch(arn)
    if match is None:
        raise wrong(f"The target {arn[:256]} is not an organizational unit: controls are enabled on units.")
    asked = {"OrganizationalUnitId": match[1]}
    try:
        found = a.forward(view, "organizations", "DescribeOrganizationalUnit", asked, PRINCIPAL)
    except Refused as refused:
        if refused.code != "OrganizationalUnitNotFoundException":
            raise
        found = {"OrganizationalUnit": {"Arn": ""}}
    if found["OrganizationalUnit"]["Arn"] != arn:
        raise Refused("ResourceNotFoundException", f"There is no organizational unit {arn[:256]}.", 404)
    return match[1]


def begun(a: Authorised, tx: Transaction, kind: str, row: Row) -> str:
    """An operation that is done already: what it does is in the same transaction; its id."""
    id = timed_id(a.now)
    doc: dict[str, Any] = {
        "operationType": kind,
        "startTime": a.now,
        "endTime": a.now,
        "controlIdentifier": row.doc["Control"],
        "targetIdentifier": row.doc["Target"],
        "enabledControlIdentifier": CONTROL.arn(row.account, row.region, row.name),
    }
    OPERATION.create(a, tx, id, doc, status="SUCCEEDED")
    return id


def operation_shown(row: Row) -> Output:
    """An operation as it is described."""
    return {**row.doc, "operationIdentifier": row.name, "status": row.status}
