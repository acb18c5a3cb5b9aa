"""Objects, read: their bytes, what they carry, what they were uploaded in.

Source: S3 API Reference, GetObject, HeadObject, GetObjectAttributes.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.artifacts import Artifacts, Damaged, unseal
from bastide.kernel import Ask, Authorised, Call, Output
from bastide.kernel.authorise import authorise
from bastide.services.s3 import encryption, heads, lifecycle, lock
from bastide.services.s3.asking import given_version, no_version, object_asked
from bastide.services.s3.at_rest import read
from bastide.services.s3.bucket import Bucket, bucket_of
from bastide.services.s3.object import existing, existing_version
from bastide.services.s3.versions import MANIFEST, OBJECT, current, version
from bastide.store import Row, View

_MOST_PARTS: Final = 1000
"""On a page of GetObjectAttributes."""


def no_such_key(a: Authorised, view: View, bucket: Bucket, key: str, *, marker: str | None = None) -> Refused:
    """What is said of a key that has no object: that there is none, to those who may list the bucket; to others that
    they may not (S3 API Reference, GetObject, "Permissions")."""
    listing = a.calls.registry.operations["s3", "HeadBucket"]
    try:
        authorise(a.calls, view, Call(listing, {"Bucket": bucket.name}, a.caller, a.account, a.region, a.request))
    except Refused as refused:
        return Refused("AccessDenied", refused.message, 403, kept={"questions": list(a.questions)})
    sent = [("x-amz-delete-marker", "true"), ("x-amz-version-id", marker)] if marker else []
    return Refused("NoSuchKey", "The specified key does not exist.", 404, members={"Key": key}, kept={"headers": sent})


def find_version(a: Authorised, view: View, bucket: Bucket, key: str, id: str | None) -> Row:
    """The version that is asked for; raises NoSuchKey, NoSuchVersion, MethodNotAllowed, or AccessDenied for those who may
    not know."""
    row = current(view, bucket, key)
    if not id:
        if row is None:
            raise no_such_key(a, view, bucket, key)
        if row.doc.get("dm"):
            raise no_such_key(a, view, bucket, key, marker=row.doc["v"])
        return row
    found = version(view, bucket, key, id, row)
    if found is None:
        refused = no_such_key(a, view, bucket, key)
        if refused.code == "NoSuchKey":
            raise Refused(
                "NoSuchVersion",
                "The specified version does not exist.",
                404,
                members={"Key": key, "VersionId": id},
            )
        raise refused
    if found.doc.get("dm"):
        raise Refused(
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
            405,
            members={"Method": "GET", "ResourceType": "DeleteMarker"},
            kept={"headers": [("x-amz-delete-marker", "true"), ("x-amz-version-id", id), ("allow", "DELETE")]},
        )
    return found


def _read(a: Authorised, view: View) -> tuple[Bucket, Row, Output, tuple[int, int] | None]:
    given = a.input
    heads.refuse_unsupported(given)
    instead = heads.chosen(given, anonymous=a.caller.kind == "Anonymous")
    bucket = bucket_of(a, view)
    row = find_version(a, view, bucket, given["Key"], given.get("VersionId"))
    doc = row.doc
    heads.check_read(given, doc)
    output = heads.shown(doc, row.tags, bucket)
    if "lock" in doc:
        output.update(
            lock.shown(doc, retention=_may(a, view, "GetObjectRetention"), hold=_may(a, view, "GetObjectLegalHold"))
        )
    if row.kind == OBJECT.key:
        output.update(lifecycle.shown(bucket, given["Key"], row.tags, doc))
    if instead:
        output.update(instead)
    size = doc["size"]
    sums = doc
    if given.get("PartNumber") is not None:
        span, sums = _part(view, bucket, doc, given, output)
    else:
        span = heads.span(given.get("Range"), size)
    if given.get("ChecksumMode") == "ENABLED" and "sums" in sums and (span is None or sums is not doc):
        output.update(heads.checksums(sums))
    if span is None:
        output["ContentLength"] = size
    else:
        output["ContentLength"] = span[1] - span[0]
        output["ContentRange"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    return bucket, row, output, span


def _may(a: Authorised, view: View, operation: str) -> bool:
    """Whether the caller may ask another operation about the same version."""
    given = {name: a.input[name] for name in ("Bucket", "Key", "VersionId") if a.input.get(name)}
    single = a.calls.registry.operations["s3", operation]
    try:
        authorise(a.calls, view, Call(single, given, a.caller, a.account, a.region, a.request))
    except Refused:
        return False
    return True


def _parts_of(view: View, bucket: Bucket, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts that an object was uploaded in; none if it came in one piece."""
    row = view.get(MANIFEST.key, bucket.account, bucket.region, doc["mf"]) if "mf" in doc else None
    return list(row.doc["parts"]) if row is not None else []


def _part(
    view: View, bucket: Bucket, doc: dict[str, Any], given: Mapping[str, Any], output: Output
) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    """The bytes of the part that is asked for, None for all of an object without any, and what has their checksums; adds
    how many parts there are. An object that came in one piece is its own part 1. Raises InvalidRequest, InvalidPartNumber.
    """
    if given.get("Range"):
        raise Refused("InvalidRequest", "Cannot specify both Range header and partNumber query parameter", 400)
    number = int(given["PartNumber"])
    parts = _parts_of(view, bucket, doc)
    numbers = [int(part.get("n", at)) for at, part in enumerate(parts, 1)] or [1]
    if number not in numbers:
        raise Refused(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            416,
            members={"ActualPartCount": len(numbers), "PartNumberRequested": number},
        )
    if not parts:
        return ((0, doc["size"]) if doc["size"] else None), doc
    output["PartsCount"] = len(parts)
    at = numbers.index(number)
    start = sum(part["size"] for part in parts[:at])
    part = parts[at]
    end = start + part["size"]
    sums = {"sums": part["sums"], "sumtype": doc.get("sumtype", "FULL_OBJECT")} if part.get("sums") else {}
    return ((start, end) if end > start else None), sums


def content(
    a: Authorised,
    view: View,
    bucket: Bucket,
    key: str,
    doc: dict[str, Any],
    span: tuple[int, int] | None,
    prefix: str = "",
) -> AsyncIterator[bytes]:
    """An object's bytes, or those of a range; raises Refused if the caller may not use the key.

    prefix: "CopySource" if the object is a copy's source.
    """
    data_key = encryption.open_key(a, view, bucket, key, doc, prefix)
    artifacts = a.engine(Artifacts)
    if "id" in doc:
        start, end = (0, None) if span is None else span
        if doc.get("in"):
            sealed = view.blob(doc["id"])
            if sealed is None:
                raise Damaged(f"artifact {doc['id']} is gone")
            return _whole(unseal(doc["id"], sealed, data_key, start, end))
        return read(artifacts, doc["id"], data_key, start, end)
    row = view.get(MANIFEST.key, bucket.account, bucket.region, doc["mf"])
    parts = row.doc["parts"] if row is not None else []
    return _joined(artifacts, data_key, parts, *(span or (0, doc["size"])))


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def part_key(data_key: bytes, blob: bytes) -> bytes:
    """The key of one part, which is wrapped by the key of its object."""
    return engine.decrypt(data_key, blob, {})


async def _joined(
    artifacts: Artifacts, data_key: bytes, parts: list[dict[str, Any]], start: int, end: int
) -> AsyncIterator[bytes]:
    at = 0
    for part in parts:
        below, above = max(start, at), min(end, at + part["size"])
        if below < above:
            key = part_key(data_key, base64.b64decode(part["k"]))
            async for piece in read(artifacts, part["id"], key, below - at, above - at):
                yield piece
        at += part["size"]


async def begin(a: Authorised, output: Output) -> Output:
    """Opens the file before the answer begins, so that what is deleted meanwhile is still read to its end."""
    stream = output["Body"]
    first = await anext(stream, None)
    output["Body"] = _from(first, stream)
    return output


async def _from(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        if first:
            yield first
        async for piece in rest:
            yield piece


@OBJECT.reads(
    "GetObject",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
    after=begin,
)
def get(a: Authorised, view: View) -> Output:
    bucket, row, output, span = _read(a, view)
    output["Body"] = content(a, view, bucket, a.input["Key"], row.doc, span)
    return output


@OBJECT.reads(
    "HeadObject",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
)
def head(a: Authorised, view: View) -> Output:
    bucket, row, output, _ = _read(a, view)
    sealed = row.doc["sse"] == encryption.CUSTOMER or encryption.customer_key(a) is not None
    if sealed or a.input.get("ChecksumMode") == "ENABLED":
        encryption.open_key(a, view, bucket, a.input["Key"], row.doc)
    return output


_ATTRIBUTES: Final = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


@OBJECT.reads(
    "GetObjectAttributes",
    asks=[
        Ask("s3:GetObject", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectAttributes", object_asked, more=existing, when=no_version),
        Ask("s3:GetObjectVersion", object_asked, more=existing_version, when=given_version),
        Ask("s3:GetObjectVersionAttributes", object_asked, more=existing_version, when=given_version),
    ],
    data=True,
)
def attributes(a: Authorised, view: View) -> Output:
    given = a.input
    bucket = bucket_of(a, view)
    doc = find_version(a, view, bucket, given["Key"], given.get("VersionId")).doc
    encryption.open_key(a, view, bucket, given["Key"], doc)
    wanted = given["ObjectAttributes"]
    output: Output = {"LastModified": doc["t"]}
    if bucket.versioning:
        output["VersionId"] = doc["v"]
    if "ETag" in wanted:
        output["ETag"] = doc["etag"]
    if "StorageClass" in wanted:
        output["StorageClass"] = "STANDARD"
    if "ObjectSize" in wanted:
        output["ObjectSize"] = doc["size"]
    if "Checksum" in wanted and doc.get("sums"):
        output["Checksum"] = heads.checksums(doc)
    if "ObjectParts" in wanted and "mf" in doc:
        output["ObjectParts"] = _page_of_parts(_parts_of(view, bucket, doc), given)
    return output


def _page_of_parts(parts: list[dict[str, Any]], given: Mapping[str, Any]) -> Output:
    limit, marker = given.get("MaxParts"), int(given.get("PartNumberMarker") or 0)
    most = _MOST_PARTS if limit is None else min(int(limit), _MOST_PARTS)
    if most < 0 or marker < 0:
        raise Refused("InvalidArgument", "max-parts and part-number-marker must be 0 or more", 400)
    numbered = [(int(part.get("n", at)), part) for at, part in enumerate(parts, 1)]
    behind = [one for one in numbered if one[0] > marker]
    page = [
        {
            "PartNumber": number,
            "Size": part["size"],
            **{heads.CHECKSUMS[name]: value for name, value in (part.get("sums") or {}).items()},
        }
        for number, part in behind[:most]
    ]
    return {
        "TotalPartsCount": len(parts),
        "PartNumberMarker": marker,
        "NextPartNumberMarker": page[-1]["PartNumber"] if page else marker,
        "MaxParts": most,
        "IsTruncated": len(behind) > most,
        "Parts": page,
    }
