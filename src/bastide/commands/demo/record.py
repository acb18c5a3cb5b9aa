"""The end of the story: the record, read as the auditor would: each account's event history, and the trail's files."""

from __future__ import annotations

import datetime
import gzip
import json
from collections import Counter
from typing import Any

from bastide.commands.client import Credentials
from bastide.commands.demo.organisation import ACCOUNTS, FOUNDER, Bank
from bastide.commands.demo.telling import StoryError, Telling

_DELIVERY_SECONDS = 20.0
# What a job's session and the founding do by the dozen tells nobody anything.
_NOISE = {
    "CreateLogGroup",
    "CreateLogStream",
    "PutLogEvents",
    "PutMetricData",
    "GenerateDataKey",
    "Decrypt",
    "CreateGrant",
}
_KINDS = {"scp": "service control policy", "identity": "identity-based policy", "resource": "resource-based policy"}
_READS = ("Describe", "List", "Get", "Lookup", "Head")


def show(bank: Bank, telling: Telling, began: float, attempts: dict[str, str]) -> None:
    """Shows it; raises StoryError if a refusal is missing from the record, or names nobody."""
    iris = bank.people["iris"]
    managed: dict[str, list[dict[str, Any]]] = {}
    for name in ACCOUNTS:
        auditor = bank.desk.assume(iris, f"arn:aws:iam::{bank.ids[name]}:role/Auditor", "iris")
        managed[name] = _history(bank, auditor, began, attempts)
    managed["management"] = _history(bank, iris, began, attempts)
    seen = {one["requestID"] for events in managed.values() for one in events}
    waited_for = set(attempts) - seen

    def poll() -> tuple[str, list[dict[str, Any]] | None]:
        records = _delivered(bank, iris)
        left = waited_for - {one["requestID"] for one in records}
        reads = [one for one in records if _is_archive_read(bank, one)]
        return f"{len(records)} events", records if not left and reads else None

    delivered = telling.until("the auditor reads the trail's files", poll, _DELIVERY_SECONDS)
    data = [one for one in delivered if one["eventCategory"] == "Data" and not _founding(bank, one)]
    _happened(bank, telling, managed)
    _data_events(bank, telling, data)
    _refused(bank, telling, managed, data, attempts)
    _whole(bank, [*(one for events in managed.values() for one in events), *data], attempts)
    total = sum(map(len, managed.values()))
    telling.say("")
    telling.say(
        f"{total} management events of the story in {len(managed)} accounts, {len(data)} data events in the "
        f"trail, {len(attempts)} attempts refused and recorded"
    )


def _whole(bank: Bank, events: list[dict[str, Any]], attempts: dict[str, str]) -> None:
    """Every event says who, what, when and from where, a refusal why, and none gives a secret away."""
    secrets = [one.secret for one in (*bank.people.values(), *bank.inside.values(), bank.administrator)]
    secrets += [one.token for one in bank.inside.values() if one.token]
    for one in events:
        identity = one["userIdentity"]
        whole = all(one[key] for key in ("eventName", "eventTime", "eventSource", "sourceIPAddress", "requestID"))
        if identity["type"] == "AssumedRole":
            whole = whole and identity["arn"].count("/") == 2 and identity["sessionContext"]["sessionIssuer"]["arn"]
        if one["requestID"] in attempts:
            whole = whole and identity["type"] == "AssumedRole" and one["errorCode"] and one["userAgent"]
            whole = whole and one["requestParameters"]
        if not whole:
            raise StoryError(f"an event does not say who, what, when and from where: {json.dumps(one)}")
        text = json.dumps(one)
        if any(secret in text for secret in secrets):
            raise StoryError(f"the event {one['eventID']} ({one['eventName']}) gives a secret away")


def _history(bank: Bank, signer: Credentials, began: float, attempts: dict[str, str]) -> list[dict[str, Any]]:
    """An account's management events of the story, the oldest first, without the founding."""
    start = datetime.datetime.fromtimestamp(began, datetime.UTC)
    pages = bank.desk.client("cloudtrail", signer).get_paginator("lookup_events").paginate(StartTime=start)
    found = [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]
    return [one for one in reversed(found) if one["requestID"] in attempts or not _founding(bank, one)]


def _founding(bank: Bank, one: dict[str, Any]) -> bool:
    """Start times are told in whole seconds, so the founding's last ones are found too."""
    identity = one["userIdentity"]
    by_hand = str(identity.get("arn", "")) == bank.administrator_arn or str(identity.get("arn", "")).endswith(
        f"/{FOUNDER}"
    )
    return by_hand or identity.get("invokedBy") == "organizations.amazonaws.com"


def _delivered(bank: Bank, signer: Credentials) -> list[dict[str, Any]]:
    s3 = bank.desk.client("s3", signer)
    records: list[dict[str, Any]] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bank.log_bucket, Prefix="AWSLogs/"):
        for one in page.get("Contents", ()):
            content = s3.get_object(Bucket=bank.log_bucket, Key=one["Key"])["Body"].read()
            records += json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)["Records"]
    return records


def _is_archive_read(bank: Bank, one: dict[str, Any]) -> bool:
    """Production's model role fetched the model across accounts."""
    return (
        one["eventName"] == "GetObject"
        and "ModelExecutionRole" in str(one["userIdentity"].get("arn", ""))
        and any(f"{bank.model_bucket}/models/" in resource["ARN"] for resource in one["resources"])
    )


def _who(bank: Bank, one: dict[str, Any]) -> str:
    identity = one["userIdentity"]
    arn = str(identity.get("arn") or identity.get("invokedBy") or "nobody")
    if ":assumed-role/" in arn:
        role, _, session = arn.partition(":assumed-role/")[2].partition("/")
        account = bank.name(arn.split(":")[4])
        return f"{session} as {role}" if session in (*bank.people, FOUNDER) else f"{role} of {account}"
    return arn.rpartition("/")[2]


def _is_refusal(one: dict[str, Any]) -> bool:
    return str(one.get("errorCode", "")).startswith("AccessDenied")


def _outcome(one: dict[str, Any]) -> str:
    return "ok" if "errorCode" not in one else f"{'refused' if _is_refusal(one) else 'error'}: {one['errorCode']}"


def _what(one: dict[str, Any]) -> str:
    resources = [str(resource["ARN"]) for resource in one["resources"]]
    return resources[0].split(":", 5)[-1] if resources else ""


def _happened(bank: Bank, telling: Telling, managed: dict[str, list[dict[str, Any]]]) -> None:
    rows: list[tuple[str, list[str]]] = []
    counted: Counter[tuple[str, str, str, str, str]] = Counter()
    first: dict[tuple[str, str, str, str, str], str] = {}
    for account, events in managed.items():
        for one in events:
            if one["eventName"] in _NOISE or (one["eventName"].startswith(_READS) and not _is_refusal(one)):
                continue
            outcome = _outcome(one)
            key = (account, _who(bank, one), one["eventName"], _what(one), outcome)
            counted[key] += 1
            if key not in first:
                first[key] = one["eventTime"]
    for key, at in first.items():
        times = f" x{counted[key]}" if counted[key] > 1 else ""
        account, who, event, what, outcome = key
        rows.append((at, [at[11:19], account, who, event + times, what, outcome]))
    telling.table(
        "Management events, from each account's LookupEvents (reads and log lines left out)",
        ["at", "account", "who", "what", "on", "outcome"],
        [row for _, row in sorted(rows, key=lambda one: one[0])],
    )


def _data_events(bank: Bank, telling: Telling, data: list[dict[str, Any]]) -> None:
    counted: Counter[tuple[str, str, str, str]] = Counter()
    told: set[str] = set()
    for one in data:
        # An event across accounts is delivered for both; it happened once.
        if one.get("sharedEventID", one["eventID"]) in told:
            continue
        told.add(one.get("sharedEventID", one["eventID"]))
        what = _what(one)
        if bank.log_bucket in what:
            continue
        outcome = _outcome(one)
        counted[(_who(bank, one), one["eventName"], what, outcome)] += 1
    telling.table(
        "Data events, from the trail's files",
        ["who", "what", "on", "times", "outcome"],
        [[who, event, what, str(times), outcome] for (who, event, what, outcome), times in counted.items()],
    )


def _refused(
    bank: Bank,
    telling: Telling,
    managed: dict[str, list[dict[str, Any]]],
    data: list[dict[str, Any]],
    attempts: dict[str, str],
) -> None:
    records = {one["requestID"]: one for events in (*managed.values(), data) for one in events if "errorCode" in one}
    rows = []
    for request, attempt in attempts.items():
        one = records.get(request)
        if one is None:
            raise StoryError(f"the refusal of `{attempt}` ({request}) is not in the record")
        decisive = next(
            question
            for question in one["additionalEventData"]["bastide"]["questions"]
            if question["verdict"] != "Allowed"
        )
        source = str(decisive.get("policy") or "")
        guardrail = next((name for name, arn in bank.guardrails.items() if arn == source), None)
        kind = _KINDS.get(decisive.get("layer", ""), decisive.get("layer", "policy"))
        if decisive["verdict"] == "ExplicitlyDenied":
            place = f"guardrail {guardrail}" if guardrail else source
            reason = f"denied by {kind}: {place}, statement {decisive.get('sid') or decisive.get('statement')}"
        else:
            reason = f"no {kind} allows it"
        rows.append([attempt, _who(bank, one), reason, request])
    telling.table("Refused, and why", ["attempt", "who", "why", "request"], rows)
