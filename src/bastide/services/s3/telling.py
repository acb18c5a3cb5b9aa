"""Event notifications reach queues, topics and functions, in S3's own name: their policies decide.

Source: S3 User Guide, "Granting permissions to publish event notification messages to a destination", "Event notification
types and destinations".
"""

from __future__ import annotations

import logging
from typing import Any, Final

import orjson

from bastide.domain import Arn, Instant, Refused, iso, new_id
from bastide.kernel import Authorised, Calls, service_caller
from bastide.kernel.address import Address
from bastide.kernel.deliveries import Deliveries
from bastide.kernel.outbox import Outbox
from bastide.services.s3.bucket import Bucket, canonical_id
from bastide.store import Transaction

_log = logging.getLogger("bastide.s3")
TOPIC: Final = "s3:Notification"
_KIND: Final = "s3:Telling"
_PRINCIPAL: Final = "s3.amazonaws.com"
_MOST_ATTEMPTS: Final = 100
_LONGEST_PAUSE: Final = 300
_FINAL: Final = (
    "AuthorizationError", "AccessDenied", "NotFound", "ResourceNotFound", "QueueDoesNotExist", "Invalid", "KMS", "Kms",
)  # fmt: skip


async def _send(calls: Calls, account: str, bucket: str, destination: str, message: Any, *, dry: bool = False) -> None:
    """Sends once; raises Refused as the destination does. bucket: its ARN. dry: a function is only asked whether it would
    be invoked."""
    arn, text = Arn.parse(destination), orjson.dumps(message).decode()
    given: dict[str, Any]
    if arn.service == "sqs":
        operation = "SendMessage"
        given = {"QueueUrl": f"{calls.engine(Address).url}/{arn.account}/{arn.resource}", "MessageBody": text}
    elif arn.service == "sns":
        operation = "Publish"
        given = {"TopicArn": destination, "Message": text, "Subject": "Amazon S3 Notification"}
    else:
        operation = "Invoke"
        given = {
            "FunctionName": destination, "InvocationType": "DryRun" if dry else "Event", "Payload": text.encode(),
        }  # fmt: skip
    if (arn.service, operation) not in calls.registry.operations:
        raise Refused("ResourceNotFound", f"There is no {arn.service}.")
    caller = service_caller(_PRINCIPAL, account, bucket)
    await calls.act(caller, arn.service, operation, given, region=arn.region, source=_PRINCIPAL)


async def validate(a: Authorised, bucket: Bucket, destination: str) -> None:
    """Sends the test message that S3 sends to a new destination; raises Refused as that does."""
    test = {
        "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": f"{iso(a.now, fraction=True)[:-4]}Z",
        "Bucket": bucket.name, "RequestId": a.request.id, "HostId": canonical_id(bucket.account)[:16],
    }  # fmt: skip
    await _send(a.calls, bucket.account, bucket.arn, destination, test, dry=True)


class Notifications:
    """Delivers what the outbox tells of objects."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._deliveries = Deliveries(calls, _KIND, self._attempt, self._pause, self._give_up)

    def subscribe(self, outbox: Outbox) -> None:
        """Hears what happened to objects."""
        outbox.subscribe(TOPIC, self._heard)

    def start(self) -> None:
        """Delivers from now on, with what an earlier run left."""
        self._deliveries.start()

    async def close(self) -> None:
        """Ends; what is not delivered waits for the next start."""
        await self._deliveries.close()

    async def _heard(self, body: dict[str, Any]) -> None:
        if ":event-bus/" in body["destination"] or "bucket" not in body:
            return
        name = body.get("id") or new_id()

        def work(tx: Transaction) -> Any:
            return self._deliveries.put(tx, name, body)

        self._deliveries.wake([await self._calls.store.write(work)])

    async def _attempt(self, doc: dict[str, Any]) -> None:
        await _send(self._calls, doc["account"], doc["bucket"], doc["destination"], doc["message"])

    def _pause(self, doc: dict[str, Any], refused: Refused, _: Instant) -> float | None:
        if refused.code.startswith(_FINAL) or doc["attempts"] >= _MOST_ATTEMPTS:
            return None
        return float(min(2 ** min(doc["attempts"], 20), _LONGEST_PAUSE))

    async def _give_up(self, doc: dict[str, Any], refused: Refused) -> None:
        _log.warning("%s could not be told of %s: %s", doc["destination"], doc["bucket"], refused)
