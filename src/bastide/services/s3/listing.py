"""Lists of objects and versions: walks along the names, whose cost is that of the page.

A delimiter folds what lies behind it into one common prefix; the walk then goes on behind the prefix, not through it.
Source: S3 API Reference, ListObjectsV2, ListObjects, ListObjectVersions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, pages
from bastide.services.s3.asking import bucket_asked, listing
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, canonical_id, not_implemented
from bastide.services.s3.heads import CHECKSUMS
from bastide.services.s3.versions import NULL, OBJECT, VERSION, current, sequence_of, version, version_name
from bastide.store import Row, View

_MOST: Final = 1000
_MOST_EXAMINED: Final = 20_000
"""Rows that one page looks at, delete markers included, before it hands out a token instead."""


def behind(prefix: str) -> str:
    """The least text that is greater than everything that begins with `prefix`."""
    last = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if last == 0xD800 else min(last, 0x10FFFF))


def walk(
    view: View, kind: str, bucket: Bucket, prefix: str, *, after: str | None, at: str | None, first: int
) -> Iterator[Row]:
    """Rows by name below ``bucket/prefix``, behind `after` or from `at` on; `first`: how many are read at first."""
    head = f"{bucket.name}/{prefix}"
    count = first
    while True:
        rows = view.scan(kind, bucket.account, bucket.region, prefix=head, after=after, at_or_after=at, limit=count)
        yield from rows
        if len(rows) < count:
            return
        after, at = rows[-1].name, None
        count = min(1000, count * 4)


@dataclass(slots=True)
class Page:
    """A page as it is gathered. last: what the next page goes on behind, a key or a common prefix."""

    entries: list[Row] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""
    truncated: bool = False


def gather(
    start: Callable[[str | None, str | None, int], Iterator[Row]],
    head: str,
    prefix: str,
    delimiter: str,
    limit: int,
    after: str | None,
    at: str | None,
    *,
    key_of: Callable[[str], str] = str,
    markers: bool = False,
) -> Page:
    """Walks until a page is full. start(after, at, first) begins a walk; head is ``bucket/``; markers keeps delete
    markers."""
    page = Page()
    if limit == 0:
        return page
    examined = 0
    going = True
    while going:
        going = False
        for row in start(after, at, 4 if delimiter else min(limit + 1, 1000)):
            examined += 1
            full = len(page.entries) + len(page.prefixes) == limit
            if not markers and row.doc.get("dm"):
                if examined >= _MOST_EXAMINED:
                    page.last, page.truncated = key_of(row.name[len(head) :]), True
                    return page
                continue
            if full:
                page.truncated = True
                return page
            key = key_of(row.name[len(head) :])
            if delimiter:
                cut = key.find(delimiter, len(prefix))
                if cut >= 0:
                    page.last = key[: cut + len(delimiter)]
                    page.prefixes.append(page.last)
                    after, at = None, behind(head + page.last)
                    going = True
                    break
            page.last = key
            page.entries.append(row)
    return page


def _folded(marker: str, prefix: str, delimiter: str) -> bool:
    """Whether a marker is a common prefix, which is not listed again."""
    if not delimiter or not marker.startswith(prefix):
        return False
    cut = marker.find(delimiter, len(prefix))
    return cut >= 0 and cut + len(delimiter) == len(marker)


def _limit(given: Mapping[str, Any], member: str) -> int:
    wanted = given.get(member)
    if wanted is None:
        return _MOST
    if wanted < 0:
        raise Refused(
            "InvalidArgument",
            f"Argument {member} must be an integer between 0 and 2147483647",
            400,
            members={"ArgumentName": member, "ArgumentValue": wanted},
        )
    return min(int(wanted), _MOST)


def encoder(given: Mapping[str, Any]) -> Callable[[str], str]:
    """How keys are written: as they are, or percent-encoded if asked for."""
    return quote if given.get("EncodingType") == "url" else str


def _refuse_optional(given: Mapping[str, Any]) -> None:
    if given.get("OptionalObjectAttributes"):
        raise not_implemented("OptionalObjectAttributes")


def _objects(view: View, bucket: Bucket, prefix: str, delimiter: str, limit: int, marker: str) -> Page:
    head = f"{bucket.name}/"
    after: str | None = None
    at: str | None = None
    if _folded(marker, prefix, delimiter):
        at = behind(head + marker)
    elif marker:
        after = head + marker

    def start(after: str | None, at: str | None, first: int) -> Iterator[Row]:
        return walk(view, OBJECT.key, bucket, prefix, after=after, at=at, first=first)

    return gather(start, head, prefix, delimiter, limit, after, at)


def _entry(row: Row, head: int, encode: Callable[[str], str]) -> dict[str, Any]:
    doc = row.doc
    found = {
        "Key": encode(row.name[head:]),
        "LastModified": doc["t"],
        "ETag": f'"{doc["etag"]}"',
        "Size": doc["size"],
        "StorageClass": "STANDARD",
    }
    return found | _summed(doc)


def _summed(doc: Mapping[str, Any]) -> dict[str, Any]:
    """Which checksums an object has."""
    sums = doc.get("sums")
    if not sums:
        return {}
    algorithms = [CHECKSUMS[one][8:] for one in sums]
    return {"ChecksumAlgorithm": algorithms, "ChecksumType": doc.get("sumtype", "FULL_OBJECT")}


@BUCKET.reads("ListObjectsV2", asks=[Ask("s3:ListBucket", bucket_asked, more=listing)])
def list_v2(a: Authorised, view: View) -> Output:
    given = a.input
    _refuse_optional(given)
    bucket = bucket_of(a, view)
    prefix, delimiter = given.get("Prefix") or "", given.get("Delimiter") or ""
    limit = _limit(given, "MaxKeys")
    token = given.get("ContinuationToken")
    marker = str(pages.position(a, token or None, code="InvalidArgument") or given.get("StartAfter") or "")
    page = _objects(view, bucket, prefix, delimiter, limit, marker)
    encode = encoder(given)
    head = len(bucket.name) + 1
    contents = [_entry(row, head, encode) for row in page.entries]
    if given.get("FetchOwner"):
        owner = {"ID": canonical_id(bucket.account)}
        for one in contents:
            one["Owner"] = owner
    output: Output = {
        "Name": bucket.name,
        "Prefix": encode(prefix),
        "MaxKeys": limit,
        "KeyCount": len(contents) + len(page.prefixes),
        "IsTruncated": page.truncated,
        "Contents": contents,
        "CommonPrefixes": [{"Prefix": encode(one)} for one in page.prefixes],
    }
    if delimiter:
        output["Delimiter"] = encode(delimiter)
    if given.get("EncodingType"):
        output["EncodingType"] = given["EncodingType"]
    if token is not None:
        output["ContinuationToken"] = token
    if given.get("StartAfter"):
        output["StartAfter"] = encode(given["StartAfter"])
    if page.truncated:
        output["NextContinuationToken"] = pages.seal(a, page.last)
    return output


@BUCKET.reads("ListObjects", asks=[Ask("s3:ListBucket", bucket_asked, more=listing)])
def list_v1(a: Authorised, view: View) -> Output:
    given = a.input
    _refuse_optional(given)
    bucket = bucket_of(a, view)
    prefix, delimiter = given.get("Prefix") or "", given.get("Delimiter") or ""
    limit = _limit(given, "MaxKeys")
    marker = given.get("Marker") or ""
    page = _objects(view, bucket, prefix, delimiter, limit, marker)
    encode = encoder(given)
    head = len(bucket.name) + 1
    owner = {"ID": canonical_id(bucket.account)}
    output: Output = {
        "Name": bucket.name,
        "Prefix": encode(prefix),
        "Marker": encode(marker),
        "MaxKeys": limit,
        "IsTruncated": page.truncated,
        "Contents": [{**_entry(row, head, encode), "Owner": owner} for row in page.entries],
        "CommonPrefixes": [{"Prefix": encode(one)} for one in page.prefixes],
    }
    if delimiter:
        output["Delimiter"] = encode(delimiter)
    if given.get("EncodingType"):
        output["EncodingType"] = given["EncodingType"]
    if page.truncated and (delimiter or not page.entries):
        output["NextMarker"] = encode(page.last)
    return output


# -- versions ----------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    return name.partition("\0")[0]


def _version_start(
    view: View, bucket: Bucket, key: str, id: str | None
) -> tuple[tuple[str | None, str | None], tuple[str | None, str | None]]:
    """Where both walks go on behind a version: (after, at) of the current ones and of the older ones.

    The version may be gone by now (whoever deletes page by page has deleted it): its id tells where it stood. Where the
    null version stood nothing tells; then the key's versions are listed from the first on, and none is missed.
    """
    name = f"{bucket.name}/{key}"
    if not id:
        return (name, None), (None, f"{name}\1")
    row = current(view, bucket, key)
    if id == NULL:
        found = version(view, bucket, key, id, row)
        if found is None:
            return (None, name), (None, name)
        place = int(found.doc["n"])
    else:
        place = sequence_of(id, "version-id-marker")
    passed = row is None or row.doc["n"] >= place
    return (name, None) if passed else (None, name), (version_name(bucket.name, key, place), None)


@BUCKET.reads("ListObjectVersions", asks=[Ask("s3:ListBucketVersions", bucket_asked, more=listing)])
def list_versions(a: Authorised, view: View) -> Output:
    given = a.input
    _refuse_optional(given)
    bucket = bucket_of(a, view)
    prefix, delimiter = given.get("Prefix") or "", given.get("Delimiter") or ""
    limit = _limit(given, "MaxKeys")
    marker, id = given.get("KeyMarker") or "", given.get("VersionIdMarker")
    if id and not marker:
        raise Refused("InvalidArgument", "A version-id marker cannot be specified without a key marker.", 400)
    head = f"{bucket.name}/"
    places: dict[str, tuple[str | None, str | None]] = {}
    at: str | None = None
    if _folded(marker, prefix, delimiter):
        at = behind(head + marker)
    elif marker:
        places[OBJECT.key], places[VERSION.key] = _version_start(view, bucket, marker, id)

    def start(after: str | None, at: str | None, first: int) -> Iterator[Row]:
        begun = []
        for kind in (OBJECT.key, VERSION.key):
            where = places.pop(kind, (None, None)) if at is None else (None, at)
            begun.append(walk(view, kind, bucket, prefix, after=where[0], at=where[1], first=first))
        return heapq.merge(*begun, key=lambda row: row.name)

    page = gather(start, head, prefix, delimiter, limit, None, at, key_of=_key, markers=True)
    encode = encoder(given)
    owner = {"ID": canonical_id(bucket.account)}
    versions: list[dict[str, Any]] = []
    deleted: list[dict[str, Any]] = []
    for row in page.entries:
        doc = row.doc
        one: dict[str, Any] = {
            "Key": encode(_key(row.name[len(head) :])),
            "VersionId": doc["v"],
            "IsLatest": row.kind == OBJECT.key,
            "LastModified": doc["t"],
            "Owner": owner,
        }
        if doc.get("dm"):
            deleted.append(one)
        else:
            one |= {"ETag": f'"{doc["etag"]}"', "Size": doc["size"], "StorageClass": "STANDARD"}
            versions.append(one | _summed(doc))
    output: Output = {
        "Name": bucket.name,
        "Prefix": encode(prefix),
        "KeyMarker": encode(marker),
        "VersionIdMarker": id or "",
        "MaxKeys": limit,
        "IsTruncated": page.truncated,
        "Versions": versions,
        "DeleteMarkers": deleted,
        "CommonPrefixes": [{"Prefix": encode(one)} for one in page.prefixes],
    }
    if delimiter:
        output["Delimiter"] = encode(delimiter)
    if given.get("EncodingType"):
        output["EncodingType"] = given["EncodingType"]
    if page.truncated:
        output["NextKeyMarker"] = encode(page.last)
        if not page.prefixes or page.prefixes[-1] != page.last:
            output["NextVersionIdMarker"] = page.entries[-1].doc["v"]
    return output
