"""Timestamps as the protocols write them, from and to integer microseconds since 1970 UTC.

The three formats are ``iso8601`` (RFC 3339), ``rfc822`` (IMF-fixdate of RFC 9110) and ``unixTimestamp`` (seconds).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, date
from email.utils import parsedate_to_datetime
from typing import Any

from bastide.protocol.head import Malformed

MICROS = 1_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_LEAST = -62_135_596_800
_MOST = 253_402_300_799
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_HTTP = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4}) "
    r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? GMT",
    re.ASCII,
)
_SECONDS = re.compile(r"[+-]?\d{1,12}(\.\d{1,12})?([eE][+-]?\d{1,2})?", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NO_TIMESTAMP = "Timestamp must be in one of the formats of the model"


def _micros(year: int, month: int, day: int, hour: int, minute: int, second: int, fraction: str | None) -> int:
    if hour > 23 or minute > 59 or second > 59:
        raise Malformed(_NO_TIMESTAMP)
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        raise Malformed(_NO_TIMESTAMP) from None
    micros = int((fraction + "000000")[:6]) if fraction else 0
    return (days * 86400 + hour * 3600 + minute * 60 + second) * MICROS + micros


def from_iso(text: str) -> int:
    """Microseconds of an RFC 3339 time; a bare date is its midnight UTC."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise Malformed(_NO_TIMESTAMP)
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    at = _micros(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), fraction)
    if zone and zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            raise Malformed(_NO_TIMESTAMP)
        offset = (hours * 3600 + minutes * 60) * MICROS
        at += offset if zone[0] == "-" else -offset
    return at


def from_http(text: str) -> int:
    """Microseconds of an HTTP date; the obsolete forms of RFC 9110 5.6.7 are read as well."""
    found = _HTTP.fullmatch(text)
    if found is None:
        try:
            parsed = parsedate_to_datetime(text[:64])
        except (ValueError, TypeError, IndexError, OverflowError):
            raise Malformed(_NO_TIMESTAMP) from None
        zone = parsed.utcoffset()
        offset = int(zone.total_seconds()) if zone is not None else 0
        naive = parsed.replace(tzinfo=UTC)
        days = naive.toordinal() - _EPOCH
        return (days * 86400 + naive.hour * 3600 + naive.minute * 60 + naive.second - offset) * MICROS
    day, month, year, hour, minute, second, fraction = found.groups()
    return _micros(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), fraction)


def from_seconds(seconds: float) -> int:
    """Microseconds of a number of seconds; refuses what is outside the years 1 to 9999, and NaN."""
    if not _LEAST <= seconds <= _MOST:
        raise Malformed(_NO_TIMESTAMP)
    if type(seconds) is int:
        return seconds * MICROS
    return round(seconds * MICROS)


def from_seconds_text(text: str) -> int:
    """Microseconds of a decimal number of seconds."""
    if _SECONDS.fullmatch(text) is None:
        raise Malformed(_NO_TIMESTAMP)
    return from_seconds(float(text))


def to_iso(at: int) -> str:
    """RFC 3339 in UTC; the fraction is left out where there is none, else has three or six digits."""
    seconds, micros = divmod(at, MICROS)
    t = time.gmtime(seconds)
    whole = f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}"
    if not micros:
        return whole + "Z"
    if micros % 1000:
        return f"{whole}.{micros:06d}Z"
    return f"{whole}.{micros // 1000:03d}Z"


def to_http(at: int) -> str:
    """IMF-fixdate, whole seconds."""
    t = time.gmtime(at // MICROS)
    return f"{_DAYS[t[6]]}, {t[2]:02d} {_MONTHS[t[1] - 1]} {t[0]:04d} {t[3]:02d}:{t[4]:02d}:{t[5]:02d} GMT"


def to_seconds(at: int) -> int | float:
    """Seconds, an int where nothing is lost."""
    return at // MICROS if at % MICROS == 0 else at / MICROS


def to_seconds_text(at: int) -> str:
    """Seconds in decimal."""
    return str(to_seconds(at))


TEXT_READERS: dict[str, Callable[[str], int]] = {
    "iso8601": from_iso,
    "rfc822": from_http,
    "unixtimestamp": from_seconds_text,
}
TEXT_WRITERS: dict[str, Callable[[int], str]] = {
    "iso8601": to_iso,
    "rfc822": to_http,
    "unixtimestamp": to_seconds_text,
}


def form(shape: Any, default: str) -> str:
    """The format of a timestamp shape: ``iso8601``, ``rfc822`` or ``unixtimestamp``."""
    return str(shape.serialization.get("timestampFormat", default)).lower()
