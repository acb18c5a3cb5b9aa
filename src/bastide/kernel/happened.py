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
