"""What happened, as EventBridge tells it: written into the outbox in the transaction that makes it so.

Source: EventBridge User Guide, "AWS service event metadata".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bastide.domain import Instant, iso, new_id
from bastide.store import Transaction

EVENTS: Final = "events:Event"
"""The outbox's topic of events for an account's default bus."""
DETAIL_TYPES: Final = {
    "AwsApiCall": "AWS API Call via CloudTrail",
    "AwsServiceEvent": "AWS Service Event via CloudTrail",
}
"""By the eventType of an entry of the record."""


def tell(
    tx: Transaction,
    *,
    account: str,
    region: str,
    source: str,
    detail_type: str,
    resources: Sequence[str],
    detail: Mapping[str, Any],
    at: Instant | None = None,
) -> None:
    """Puts an event into the outbox; it reaches the account's default bus after the commit. `source`: ``aws.sagemaker``."""
    tx.emit(
        EVENTS,
        {
            "version": "0",
            "id": new_id(),
            "detail-type": detail_type,
            "source": source,
            "account": account,
            "time": iso(tx.now if at is None else at),
            "region": region,
            "resources": list(resources),
            "detail": dict(detail),
        },
    )


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the record as an event, for whom it was recorded for. What its decision saw stays in the record."""
    more = {name: value for name, value in (record.get("additionalEventData") or {}).items() if name != "bastide"}
    detail = {name: value for name, value in record.items() if name != "additionalEventData"}
    if more:
        detail["additionalEventData"] = more
    return {
        "version": "0",
        "id": record["eventID"],
        "detail-type": DETAIL_TYPES.get(record["eventType"], DETAIL_TYPES["AwsServiceEvent"]),
        "source": "aws." + record["eventSource"].partition(".")[0],
        "account": record["recipientAccountId"],
        "time": record["eventTime"],
        "region": record["awsRegion"],
        "resources": [],
        "detail": detail,
    }
