"""What a call has to be delivered: rows of its transaction, and word of them when they are on the disk."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.kernel import Authorised, Output
from bastide.kernel.deliveries import Deliveries
from bastide.store import Row, Transaction

SEALED: Final = "sns/message"
"""What messages that wait are sealed for."""


class Sender(Deliveries):
    """Deliveries of messages, as subscriptions and publishing know them; composed with the engines."""


async def room(_: Authorised) -> list[Any]:
    """Where a call's deliveries are noted, until they are on the disk."""
    return []


async def woken(a: Authorised, output: Output) -> Output:
    """What a call has to be delivered is on the disk."""
    a.engine(Sender).wake(a.staged)
    return output


def deliver(a: Authorised, tx: Transaction, topic: Row, row: Row, sealed: str, *, name: str, lane: str = "") -> None:
    """Puts a delivery to a subscription."""
    doc: dict[str, Any] = {
        "account": topic.account, "subscription": [row.account, row.region, row.name], "sealed": sealed,
    }  # fmt: skip
    a.staged.append(a.engine(Sender).put(tx, name, {**doc, "lane": lane} if lane else doc))


def seal(a: Authorised, content: dict[str, Any]) -> str:
    """A content (JSON) as it waits on the disk."""
    return a.calls.sealer.seal(orjson.dumps(content), SEALED)
