"""Entries of the record for what happens on pages and not through an API.

Source: CloudTrail User Guide, "AWS Management Console sign-in events" and IAM Identity Center User Guide, "Sign-in events".
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import iso, timed_id
from bastide.signin.request import Visit
from bastide.store import Event

_SOURCE: Final = "signin.amazonaws.com"


def entry(
    visit: Visit, home: str, name: str, *, user: str = "", shown: str = "", told: dict[str, Any], error: str = ""
) -> Event:
    """One entry. user: the identity store's id. told: what happened, without secrets."""
    at = visit.now
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IdentityCenterUser", "accountId": home, "onBehalfOf": {"userId": user}}
        if user
        else {"type": "Unknown", "principalId": "", "accountId": home},
        "eventTime": iso(at),
        "eventSource": _SOURCE,
        "eventName": name,
        "awsRegion": "us-east-1",
        "sourceIPAddress": visit.received.source_ip,
        "userAgent": visit.headers.get("user-agent", "")[:512],
        "requestParameters": None,
        "responseElements": None,
        "serviceEventDetails": {**told, name: "Failure" if error else "Success"},
        "requestID": visit.received.id,
        "eventID": timed_id(at),
        "readOnly": False,
        "eventType": "AwsServiceEvent",
        "managementEvent": True,
        "eventCategory": "Management",
        "recipientAccountId": home,
    }
    if error:
        record |= {"errorCode": "AccessDenied", "errorMessage": error}
    return Event(
        home, at, record["eventID"], name, _SOURCE, shown, "", False, "Management", "AccessDenied" if error else "",
        visit.received.id, (), orjson.dumps(record, default=str),
    )  # fmt: skip
