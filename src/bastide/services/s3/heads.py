"""What an object carries beside its bytes, read from a request and shown in an answer; and conditional requests.

Source: S3 API Reference, PutObject, GetObject; S3 User Guide, "Working with object metadata", "Conditional requests";
RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from bastide.domain import MICROS, Instant, Refused
from bastide.services.s3 import encryption, lock
from bastide.services.s3.bucket import Bucket, not_implemented, refuse_grants

_HEADERS: Final = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "Expires")
_MOST_METADATA: Final = 2048
_MOST_TAGS: Final = 10
CHECKSUMS: Final = {
    "crc32": "ChecksumCRC32",
    "crc32c": "ChecksumCRC32C",
    "crc64nvme": "ChecksumCRC64NVME",
    "sha1": "ChecksumSHA1",
    "sha256": "ChecksumSHA256",
}
_UNSUPPORTED: Final = {
    "WebsiteRedirectLocation": "WebsiteRedirectLocation",
    "WriteOffsetBytes": "Appending to objects",
    "MFA": "MFA delete",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\u0100-\U0010ffff]")
"""What no header holds."""
_CHOSEN: Final = {
    "ResponseCacheControl": "CacheControl",
    "ResponseContentDisposition": "ContentDisposition",
    "ResponseContentEncoding": "ContentEncoding",
    "ResponseContentLanguage": "ContentLanguage",
    "ResponseContentType": "ContentType",
    "ResponseExpires": "Expires",
}


def refuse_unsupported(given: Mapping[str, Any]) -> None:
    """Raises NotImplemented for what would change the outcome and is not there."""
    for member in given:
        if member in _UNSUPPORTED and given[member] is not None:
            raise not_implemented(_UNSUPPORTED[member])
        if member.startswith("Checksum") and member[8:] in ("SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128"):
            raise not_implemented(f"The checksum algorithm {member[8:]}")
    if given.get("StorageClass", "STANDARD") != "STANDARD":
        raise not_implemented(f"The storage class {given['StorageClass']}")


def described(given: Mapping[str, Any], now: Instant) -> dict[str, Any]:
    """What a new object's row keeps of the request's headers; raises Refused."""
    refuse_unsupported(given)
    refuse_grants(dict(given))
    doc: dict[str, Any] = {}
    held = lock.asked_for(given, now)
    if held:
        doc["lock"] = held
    content = given.get("ContentType")
    if content:
        doc["type"] = content
    head = {name: given[name] for name in _HEADERS if given.get(name) is not None}
    if head:
        doc["head"] = head
    metadata = given.get("Metadata")
    if metadata:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
        if size > _MOST_METADATA:
            raise Refused(
                "MetadataTooLarge",
                "Your metadata headers exceed the maximum allowed metadata size",
                400,
                members={"Size": size, "MaxSizeAllowed": _MOST_METADATA},
            )
        doc["meta"] = dict(metadata)
    return doc


_NO_TAG: Final = re.compile(r"[^\w\s+\-=._:/@]")
"""Source: S3 User Guide, "Categorizing your objects using tags"."""


def header_tags(text: str | None) -> dict[str, str]:
    """The tags of an ``x-amz-tagging`` header; raises InvalidArgument and InvalidTag."""
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except (ValueError, UnicodeDecodeError):
        pairs = []
    if not pairs or len({key for key, _ in pairs}) != len(pairs) or any("=" in value for _, value in pairs):
        raise Refused(
            "InvalidArgument",
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
            "duplicates.",
            400,
            members={"ArgumentName": "x-amz-tagging", "ArgumentValue": text[:1024]},
        )
    return checked_tags(pairs)


def checked_tags(pairs: list[tuple[str, str]], most: int = _MOST_TAGS) -> dict[str, str]:
    """Tags within S3's limits; raises BadRequest and InvalidTag."""
    if len(pairs) > most:
        raise Refused("BadRequest", f"Object tags cannot be greater than {most}", 400)
    found: dict[str, str] = {}
    for key, value in pairs:
        if key in found:
            raise Refused("InvalidTag", "Cannot provide multiple Tags with the same key", 400)
        if not 0 < len(key) <= 128 or _NO_TAG.search(key) or key.lower().startswith("aws:"):
            raise Refused("InvalidTag", "The TagKey you have provided is invalid", 400, members={"TagKey": key[:128]})
        if len(value) > 256 or _NO_TAG.search(value):
            raise Refused("InvalidTag", "The TagValue you have provided is invalid", 400, members={"TagKey": key})
        found[key] = value
    return found


def shown(doc: dict[str, Any], tags: Mapping[str, str], bucket: Bucket) -> dict[str, Any]:
    """What answers about an object say, apart from its length and its checksums."""
    found: dict[str, Any] = {
        "AcceptRanges": "bytes",
        "LastModified": doc["t"],
        "ETag": f'"{doc["etag"]}"',
        "ContentType": doc.get("type", "binary/octet-stream"),
        "Metadata": doc.get("meta", {}),
    }
    found.update(encryption.shown(doc))
    head = doc.get("head")
    if head:
        found.update(head)
    if bucket.versioning:
        found["VersionId"] = doc["v"]
    if tags:
        found["TagCount"] = len(tags)
    return found


def checksums(doc: dict[str, Any]) -> dict[str, Any]:
    """The checksums of the whole object."""
    sums = doc.get("sums")
    if not sums:
        return {}
    found: dict[str, Any] = {CHECKSUMS[name]: value for name, value in sums.items() if name in CHECKSUMS}
    found["ChecksumType"] = doc.get("sumtype", "FULL_OBJECT")
    return found


def chosen(given: Mapping[str, Any], *, anonymous: bool) -> dict[str, Any]:
    """Headers that the reader asks the answer to have instead."""
    found = {_CHOSEN[name]: given[name] for name in _CHOSEN if given.get(name) is not None}
    if found and anonymous:
        raise Refused(
            "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.", 400
        )
    for name, value in found.items():
        if isinstance(value, str) and _UNWRITABLE.search(value):
            raise Refused(
                "InvalidArgument",
                "Header value cannot be represented using ISO-8859-1.",
                400,
                members={"ArgumentName": name, "ArgumentValue": value[:1024]},
            )
    return found


# -- conditions --------------------------------------------------------------------------------------------------------


def _names(text: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match names the ETag."""
    return any(
        one == "*" or one.removeprefix("W/").strip('"') == etag for one in (part.strip() for part in text.split(","))
    )


def _failed(condition: str) -> Refused:
    return Refused(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        412,
        members={"Condition": condition},
    )


def check_read(given: Mapping[str, Any], doc: dict[str, Any], prefix: str = "", *, copying: bool = False) -> None:
    """Raises PreconditionFailed or NotModified. prefix: ``CopySource`` for the source of a copy."""
    match, none = given.get(f"{prefix}IfMatch"), given.get(f"{prefix}IfNoneMatch")
    since, unless = given.get(f"{prefix}IfModifiedSince"), given.get(f"{prefix}IfUnmodifiedSince")
    if match is None and none is None and since is None and unless is None:
        return
    etag, said = doc["etag"], "x-amz-copy-source-" if prefix else ""
    modified = doc["t"] // MICROS * MICROS
    if match is not None:
        if not _names(match, etag):
            raise _failed(said + "If-Match")
    elif unless is not None and modified > unless:
        raise _failed(said + "If-Unmodified-Since")
    if none is not None:
        if _names(none, etag):
            raise _failed(said + "If-None-Match") if copying else _not_modified(doc)
    elif since is not None and modified <= since:
        raise _failed(said + "If-Modified-Since") if copying else _not_modified(doc)


def _not_modified(doc: dict[str, Any]) -> Refused:
    return Refused("NotModified", "Not Modified", 304, kept={"headers": [("etag", f'"{doc["etag"]}"')]})


def check_write(given: Mapping[str, Any], doc: dict[str, Any] | None, key: str) -> None:
    """Raises PreconditionFailed, or NoSuchKey for If-Match on a key that has no object. doc: None too for a marker."""
    match, none = given.get("IfMatch"), given.get("IfNoneMatch")
    if none is not None:
        if none != "*":
            raise not_implemented("If-None-Match with anything but * on a write")
        if doc is not None:
            raise _failed("If-None-Match")
    if match is not None:
        if doc is None:
            raise Refused("NoSuchKey", "The specified key does not exist.", 404, members={"Key": key})
        if not _names(match, doc["etag"]):
            raise _failed("If-Match")


def span(text: str | None, size: int) -> tuple[int, int] | None:
    """First byte and byte behind the last of a single range; None for the whole (several ranges and nonsense too).

    Raises InvalidRange.
    """
    if not text:
        return None
    found = _RANGE.fullmatch(text.strip())
    if found is None or (not found[1] and not found[2]):
        return None
    if found[1]:
        start = int(found[1])
        end = int(found[2]) + 1 if found[2] else size
        if found[2] and end <= start:
            return None
    else:
        start, end = max(0, size - int(found[2])), size
        if not int(found[2]):
            start = size
    if start >= size:
        raise Refused(
            "InvalidRange",
            "The requested range is not satisfiable",
            416,
            members={"ActualObjectSize": size, "RangeRequested": text[:256]},
        )
    return start, min(end, size)
