"""What was asked for of functions is taken up once it is on the disk."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.functions import Functions
from bastide.kernel import Calls
from bastide.kernel.outbox import Outbox
from bastide.services.lambda_.host import ENVIRONMENT
from bastide.services.lambda_.noun import FUNCTION, LATEST
from bastide.store import Transaction

_CHANGES: Final = ("UpdateFunctionCode", "UpdateFunctionConfiguration")


def subscribe(outbox: Outbox, calls: Calls) -> None:
    """New functions become Active, changes Successful; environments of before get no more events."""

    async def heard(body: dict[str, Any]) -> None:
        if body["event"] in _CHANGES:
            calls.engine(Functions).forget(f"{body['arn']}:{LATEST}|")
        if body["event"] not in (*_CHANGES, "CreateFunction", "VersionPublished"):
            return
        lacking = ""
        try:
            images.located(ENVIRONMENT)
        except Refused as refused:
            lacking = refused.message

        def settle(tx: Transaction) -> None:
            row = FUNCTION.get(tx, body["account"], body["region"], body["name"])
            if row is None or (row.status != "Pending" and row.doc.get("LastUpdateStatus") != "InProgress"):
                return
            row.doc["LastUpdateStatus"] = "Successful"
            if row.status == "Pending" or not lacking:
                row.status = "Failed" if lacking else "Active"
            if lacking:
                row.doc |= {"StateReason": lacking, "StateReasonCode": "InternalError"}
            FUNCTION.change(tx, row, "FunctionSettled")

        await calls.store.write(settle)

    outbox.subscribe(FUNCTION.key, heard)
