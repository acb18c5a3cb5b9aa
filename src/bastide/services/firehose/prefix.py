"""Names of objects. Source: Amazon Data Firehose Developer Guide, "Understand custom prefixes for Amazon S3 objects"."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from bastide.domain import MICROS, Instant, Refused

_EXPRESSION: Final = re.compile(r"!\{([^{}:]{1,40}):([^{}]{1,100})\}")
_LETTERS: Final[Mapping[str, str]] = {
    "yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "HH": "%H", "mm": "%M", "ss": "%S", "DDD": "%j",
}  # fmt: skip
_PART: Final = re.compile(r"yyyy|yy|MM|dd|HH|mm|ss|DDD|'([^']*)'|[^A-Za-z']+")
_LONGEST: Final = 1024


def _wrong(text: str) -> Refused:
    return Refused("InvalidArgumentException", text)


def _formatted(pattern: str, at: datetime) -> str:
    told, end = "", 0
    for found in _PART.finditer(pattern):
        if found.start() != end:
            break
        end = found.end()
        part = found[0]
        told += at.strftime(_LETTERS[part]) if part in _LETTERS else found[1] if found[1] is not None else part
    if end != len(pattern):
        raise _wrong(f"The timestamp {pattern} of a prefix has letters beside {', '.join(_LETTERS)}.")
    return told


def _filled(prefix: str, at: datetime, number: str) -> str:
    def fill(found: re.Match[str]) -> str:
        namespace, value = found[1], found[2]
        if namespace == "timestamp":
            return _formatted(value, at)
        if (namespace, value) == ("firehose", "random-string"):
            return hashlib.sha256(f"random {number}".encode()).hexdigest()[:11]
        raise _wrong(f"The expression {found[0]} is not supported in a prefix.")

    return _EXPRESSION.sub(fill, prefix)


def checked(prefix: str) -> None:
    """Raises InvalidArgumentException for what is no prefix."""
    if len(prefix) > _LONGEST:
        raise _wrong(f"A prefix has at most {_LONGEST} characters.")
    if "!{" in _EXPRESSION.sub("", prefix):
        raise _wrong("An expression of a prefix is !{namespace:value}.")
    _filled(prefix, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")), "0")


def key(name: str, version: int, to: Mapping[str, Any], number: str, arrived: Instant) -> str:
    """The key of the object that begins with the record of a number; the same whenever it is asked for."""
    at = datetime.fromtimestamp(arrived // MICROS, ZoneInfo(to.get("CustomTimeZone") or "UTC"))
    prefix = str(to.get("Prefix") or "")
    told = _filled(prefix, at, number)
    if "!{timestamp:" not in prefix:
        told += at.strftime("%Y/%m/%d/%H/")
    digest = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
    id = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
    gzip = ".gz" if to["CompressionFormat"] == "GZIP" else ""
    return f"{told}{name}-{version}-{at:%Y-%m-%d-%H-%M-%S}-{id}{to.get('FileExtension') or gzip}"
