"""Object Lock: what keeps a version from being deleted, and until when.

A version's row holds its lock under ``lock``: ``mode`` and ``until`` (a whole second, in microseconds) of its retention,
``hold`` for its legal hold. A bucket's row holds ``ObjectLock``: its default retention, empty if it has none. Time is the
platform's own clock, which no request can move. What is locked is refused where a version's bytes are given up
(`versions.release`), so that no way to it is forgotten.

Source: S3 User Guide, "Locking objects with Object Lock", "Object Lock considerations"; S3 API Reference, the operations
named.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from bastide.domain import MICROS, Instant, Refused, iso
from bastide.kernel import Asked, fills
from bastide.services.s3.asking import EVERY, Keys, keys_for
from bastide.services.s3.bucket import Bucket, lookup

GOVERNANCE: Final = "GOVERNANCE"
COMPLIANCE: Final = "COMPLIANCE"
MODES: Final = (GOVERNANCE, COMPLIANCE)
BYPASS: Final = "s3:BypassGovernanceRetention"
RETAINED: Final = ("s3:object-lock-retain-until-date", "s3:object-lock-remaining-retention-days")
_DAY: Final = 86400 * MICROS
_LAST: Final = 253_402_300_799 * MICROS
"""The last second that a date can name."""
_MOST_YEARS: Final = 100
_MOST_DAYS: Final = 36_500


def missing() -> Refused:
    """The refusal of anything about locks in a bucket that has none."""
    return Refused("InvalidRequest", "Bucket is missing Object Lock Configuration", 400)


def protected() -> Refused:
    """The refusal of what a lock forbids."""
    return Refused("AccessDenied", "Access Denied because object protected by object lock.", 403)


def malformed() -> Refused:
    """The refusal of a document that is none of S3's."""
    return Refused(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema", 400
    )


# -- what a version has ------------------------------------------------------------------------------------------------


def retained(doc: Mapping[str, Any], now: Instant) -> str:
    """The mode of the retention that holds a version now; "" if none does."""
    found = doc.get("lock")
    return str(found["mode"]) if found and found.get("until", 0) > now else ""


def refuse_locked(doc: Mapping[str, Any], now: Instant, *, bypass: bool = False) -> None:
    """Raises AccessDenied for a version that must not go. bypass: of retention in governance mode, and of that alone."""
    found = doc.get("lock")
    if not found:
        return
    mode = retained(doc, now)
    if found.get("hold") or (mode and not (bypass and mode == GOVERNANCE)):
        raise protected()


def until_of(at: Instant, now: Instant) -> Instant:
    """A retain-until date as it is kept: whole seconds, rounded up, so that what answers say is never less than what holds.

    Raises InvalidArgument for one that has passed.
    """
    at = -(-at // MICROS) * MICROS
    if at <= now:
        raise Refused("InvalidArgument", "The retain until date must be in the future!", 400)
    if at > _LAST:
        raise Refused("InvalidArgument", "The retain until date must be before the year 10000.", 400)
    return at


def asked_for(given: Mapping[str, Any], now: Instant) -> dict[str, Any]:
    """The lock that a request's headers ask for a new version; raises InvalidArgument."""
    mode, until = given.get("ObjectLockMode"), given.get("ObjectLockRetainUntilDate")
    hold = given.get("ObjectLockLegalHoldStatus")
    found: dict[str, Any] = {}
    if mode is not None or until is not None:
        if mode is None or until is None:
            raise Refused(
                "InvalidArgument",
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
                400,
            )
        if mode not in MODES:
            raise Refused("InvalidArgument", "Unknown wormMode directive.", 400)
        found |= {"mode": mode, "until": until_of(until, now)}
    if hold is not None:
        if hold not in ("ON", "OFF"):
            raise Refused("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'", 400)
        found["hold"] = hold == "ON"
    return found


def check(bucket: Bucket, doc: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for a lock in a bucket that has no Object Lock."""
    if doc.get("lock") and bucket.lock is None:
        raise missing()


def settle(bucket: Bucket, doc: dict[str, Any], now: Instant) -> None:
    """Gives a new version the bucket's default retention unless it brings its own; raises InvalidRequest as `check`.

    An object that was uploaded in parts is retained from its completion, which is the later of the two moments.
    """
    check(bucket, doc)
    default = bucket.lock
    if not default or doc.get("dm") or "mode" in doc.get("lock", ()):
        return
    doc["lock"] = {**doc.get("lock", {}), "mode": default["Mode"], "until": _after(now, default)}


def _after(now: Instant, default: Mapping[str, Any]) -> Instant:
    now = -(-now // MICROS) * MICROS
    if "Days" in default:
        return now + int(default["Days"]) * _DAY
    start = datetime.datetime.fromtimestamp(now // MICROS, datetime.UTC)
    year = start.year + int(default["Years"])
    try:
        end = start.replace(year=year)
    except ValueError:  # 29 February
        end = start.replace(year=year, month=3, day=1)
    return int(end.timestamp()) * MICROS


def shown(doc: Mapping[str, Any], *, retention: bool, hold: bool) -> dict[str, Any]:
    """What the answers about an object say of its lock to those who may read its retention and its legal hold."""
    found = doc.get("lock") or {}
    output: dict[str, Any] = {}
    if retention and "mode" in found:
        output |= {"ObjectLockMode": found["mode"], "ObjectLockRetainUntilDate": found["until"]}
    if hold and "hold" in found:
        output["ObjectLockLegalHoldStatus"] = "ON" if found["hold"] else "OFF"
    return output


# -- what a retention becomes ------------------------------------------------------------------------------------------


def weakens(doc: Mapping[str, Any], wanted: Mapping[str, Any], now: Instant) -> bool:
    """Whether a version under governance would be held less, or otherwise, by the retention that is wanted."""
    return retained(doc, now) == GOVERNANCE and (
        wanted.get("Mode") != GOVERNANCE or int(wanted.get("RetainUntilDate") or 0) < doc["lock"]["until"] - MICROS + 1
    )


def change(doc: dict[str, Any], wanted: Mapping[str, Any], now: Instant, *, bypass: bool) -> None:
    """Gives a version another retention, or none for an empty one; raises MalformedXML, InvalidArgument, AccessDenied."""
    mode, until = wanted.get("Mode"), wanted.get("RetainUntilDate")
    if (mode is None) != (until is None) or (mode is not None and mode not in MODES):
        raise malformed()
    end = 0 if until is None else until_of(until, now)
    held = retained(doc, now)
    if held == COMPLIANCE and (mode != COMPLIANCE or end < doc["lock"]["until"]):
        raise protected()
    if weakens(doc, wanted, now) and not bypass:
        raise protected()
    found = {name: value for name, value in (doc.get("lock") or {}).items() if name == "hold"}
    if mode is not None:
        found |= {"mode": mode, "until": end}
    if found:
        doc["lock"] = found
    else:
        doc.pop("lock", None)


# -- what a bucket has -------------------------------------------------------------------------------------------------


def default_of(wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The default retention of an Object Lock configuration; raises MalformedXML, InvalidRetentionPeriod."""
    if not wanted or wanted.get("ObjectLockEnabled") != "Enabled":
        raise malformed()
    rule = wanted.get("Rule")
    if rule is None:
        return {}
    default = rule.get("DefaultRetention") or {}
    mode, days, years = default.get("Mode"), default.get("Days"), default.get("Years")
    if mode not in MODES or (days is None) == (years is None):
        raise malformed()
    length, most = (int(days), _MOST_DAYS) if days is not None else (int(years or 0), _MOST_YEARS)
    if length < 1:
        raise Refused("InvalidRetentionPeriod", "Default retention period must be a positive integer value.", 400)
    if length > most:
        raise Refused("InvalidRetentionPeriod", f"Default retention period must not exceed {most}.", 400)
    return {"Mode": mode, "Days" if years is None else "Years": length}


# -- condition keys ----------------------------------------------------------------------------------------------------


def retention_keys(mode: Any, until: Any, now: Instant, found: Keys) -> Keys:
    """Adds the condition keys of a retention that is asked for."""
    if mode:
        found["s3:object-lock-mode"] = str(mode)
    if until:
        found["s3:object-lock-retain-until-date"] = iso(until)
        found["s3:object-lock-remaining-retention-days"] = str(max(0, (until - now) // _DAY))
    return found


@fills(*EVERY, "s3:object-lock-mode", *RETAINED)
def retaining(asked: Asked) -> Keys:
    """Condition keys of a question about a retention, of a new version or of one that is there."""
    given = asked.input
    found = keys_for(asked, lookup(asked.view, given["Bucket"]))
    wanted = given.get("Retention") or {}
    mode = wanted.get("Mode") or given.get("ObjectLockMode")
    until = wanted.get("RetainUntilDate") or given.get("ObjectLockRetainUntilDate")
    return retention_keys(mode, until, asked.call.request.at, found)


@fills(*EVERY, "s3:object-lock-legal-hold")
def holding(asked: Asked) -> Keys:
    """The same about a legal hold."""
    given = asked.input
    found = keys_for(asked, lookup(asked.view, given["Bucket"]))
    status = (given.get("LegalHold") or {}).get("Status") or given.get("ObjectLockLegalHoldStatus")
    if status:
        found["s3:object-lock-legal-hold"] = str(status)
    return found


def brings_retention(asked: Asked) -> bool:
    """Whether a new version is to be retained by the request's own headers."""
    return bool(asked.input.get("ObjectLockMode") or asked.input.get("ObjectLockRetainUntilDate"))


def brings_hold(asked: Asked) -> bool:
    """Whether the request says something of a new version's legal hold."""
    return bool(asked.input.get("ObjectLockLegalHoldStatus"))
