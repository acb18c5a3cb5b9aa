"""Uploads in parts, ended: completed, which copies no bytes but writes down which parts make the object, or given up.

Source: S3 API Reference, CompleteMultipartUpload, AbortMultipartUpload; S3 User Guide, "Uploading and copying objects using
multipart upload", "Checking object integrity".
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output, fills
from bastide.services.s3 import encryption, heads, lifecycle, notification
from bastide.services.s3.asking import Keys, keys, object_asked
from bastide.services.s3.bucket import Bucket, bucket_of, not_implemented
from bastide.services.s3.object import (
    CONDITIONS,
    _check_write,
    clear,
    etag_of,
    given_keys,
    stage_nothing,
)
from bastide.services.s3.upload import OF_THE_UPLOAD, PART, UPLOAD, of_the_upload, upload_name, upload_of
from bastide.services.s3.versions import MANIFEST, Garbage, current, place
from bastide.sigv4 import checksums
from bastide.store import Row, Transaction, View

_OF_UPLOADS: Final = ("by", "t", "said", "algorithm", "sumtype")
"""What an upload's row keeps and its object does not. said: the condition keys that it began with and that its parts
have."""
_LEAST_PART: Final = 5 * 1024 * 1024
_MOST_BYTES: Final = 5 * 1024**4


@fills(*OF_THE_UPLOAD, *(key for _, key in CONDITIONS))
def _completing(asked: Asked) -> Keys:
    return given_keys(asked, CONDITIONS, of_the_upload(asked, True))


def _parts(tx: View, bucket: Bucket, key: str, id: str) -> dict[int, Row]:
    """All parts of an upload."""
    found: dict[int, Row] = {}
    prefix = f"{upload_name(bucket, key, id)}\0"
    after: str | None = None
    while True:
        rows = tx.scan(PART.key, bucket.account, bucket.region, prefix=prefix, after=after, limit=1000)
        for row in rows:
            found[int(row.name[-5:])] = row
        if len(rows) < 1000:
            return found
        after = rows[-1].name


def _whole_sum(given: dict[str, Any], upload: dict[str, Any], chosen: list[Row]) -> dict[str, str]:
    """The checksum of the object from those of its parts; raises BadDigest."""
    algorithm = upload.get("algorithm")
    if not algorithm:
        return {}
    claimed = given.get(heads.CHECKSUMS[algorithm])
    if upload["sumtype"] == "COMPOSITE":
        raw = b"".join(base64.b64decode(row.doc["sums"][algorithm]) for row in chosen)
        found = f"{base64.b64encode(checksums.digest(algorithm, raw)).decode()}-{len(chosen)}"
    else:
        found = base64.b64encode(
            checksums.combined(
                algorithm, [(base64.b64decode(row.doc["sums"][algorithm]), row.doc["size"]) for row in chosen]
            )
        ).decode()
    if claimed and claimed.partition("-")[0] != found.partition("-")[0]:
        raise Refused("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.", 400)
    return {algorithm: found}


def _same_way(given: dict[str, Any], upload: dict[str, Any], listed: list[dict[str, Any]]) -> None:
    """Raises InvalidRequest unless an upload is completed with the checksums that it was begun with."""
    kind, algorithm = upload.get("sumtype"), upload.get("algorithm")
    if given.get("ChecksumType") not in (None, kind):
        raise Refused(
            "InvalidRequest",
            f"The upload was created using the {kind or 'null'} checksum mode. The complete request must use the same "
            "checksum mode.",
            400,
        )
    if kind == "COMPOSITE" and algorithm:
        for one in listed:
            if one.get(heads.CHECKSUMS[algorithm]) is None:
                raise Refused(
                    "InvalidRequest",
                    f"The upload was created using a {algorithm} checksum. The complete request must include the checksum "
                    f"for each part. It was missing for part {one.get('PartNumber')} in the request.",
                    400,
                )


def _chosen(given: dict[str, Any], rows: dict[int, Row], upload: dict[str, Any]) -> list[Row]:
    """The parts that make the object; raises MalformedXML, InvalidPart, InvalidPartOrder, EntityTooSmall."""
    listed = (given.get("MultipartUpload") or {}).get("Parts") or []
    if not listed:
        raise Refused("InvalidRequest", "You must specify at least one part", 400)
    _same_way(given, upload, listed)
    chosen: list[Row] = []
    last = 0
    for one in listed:
        number = int(one.get("PartNumber") or 0)
        if number <= last:
            raise Refused(
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
                400,
                members={"UploadId": given["UploadId"]},
            )
        last = number
        row = rows.get(number)
        etag = str(one.get("ETag") or "").strip('"')
        sums = row.doc.get("sums") or {} if row is not None else {}
        wrong = any(
            one.get(member) is not None and (sums.get(name) != one[member] or name != upload.get("algorithm"))
            for name, member in heads.CHECKSUMS.items()
        )
        if row is None or etag != row.doc["etag"] or wrong:
            raise Refused(
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag.",
                400,
                members={"PartNumber": number, "ETag": etag, "UploadId": given["UploadId"]},
            )
        chosen.append(row)
    for number, row in enumerate(chosen[:-1], 1):
        if row.doc["size"] < _LEAST_PART:
            raise Refused(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                400,
                members={
                    "ProposedSize": row.doc["size"],
                    "MinSizeAllowed": _LEAST_PART,
                    "PartNumber": number,
                    "ETag": row.doc["etag"],
                },
            )
    return chosen


@UPLOAD.operation(
    "CompleteMultipartUpload",
    asks=[Ask("s3:PutObject", object_asked, more=_completing)],
    data=True,
    before=stage_nothing,
    after=clear,
)
def complete(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    key = given["Key"]
    bucket = bucket_of(a, tx)
    mark = _mark(given)
    again = current(tx, bucket, key)
    if again is not None and again.doc.get("up") == mark:
        return _completed(
            bucket, key, again.doc, again.tags, again.doc["v"] if bucket.versioning == "Enabled" else None
        )
    upload = upload_of(a, tx, bucket)
    # Whoever completes an upload must be able to use its key, as whoever reads the object (S3 User Guide, "KMS").
    # A key that the customer sends is not needed again: the parts were written with it.
    if upload.doc["sse"] != encryption.CUSTOMER or encryption.customer_key(a) is not None:
        encryption.open_key(a, tx, bucket, key, upload.doc)
    _check_write(given, tx, bucket, key)
    if given.get("IfMatch") is not None and again is not None and again.doc["t"] > upload.created:
        raise Refused(
            "ConditionalRequestConflict",
            "The conditional request cannot succeed due to a conflicting operation against this resource.",
            409,
            members={"Condition": "If-Match", "Key": key},
        )
    rows = _parts(tx, bucket, key, given["UploadId"])
    chosen = _chosen(given, rows, upload.doc)
    size = sum(row.doc["size"] for row in chosen)
    if size > _MOST_BYTES:
        raise Refused("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.", 400)
    wanted = given.get("MpuObjectSize")
    if wanted is not None and int(wanted) != size:
        raise Refused("InvalidRequest", f"The object size {wanted} does not match the parts' {size}.", 400)
    doc = {name: value for name, value in upload.doc.items() if name not in _OF_UPLOADS}
    sums = _whole_sum(given, upload.doc, chosen)
    if sums:
        doc |= {"sums": sums, "sumtype": upload.doc["sumtype"]}
    etags = b"".join(bytes.fromhex(row.doc["etag"]) for row in chosen)
    md5 = hashlib.md5(etags, usedforsecurity=False).hexdigest()
    doc |= {"size": size, "etag": f"{etag_of(doc['sse'], md5)}-{len(chosen)}", "mf": secrets.token_hex(16), "up": mark}
    kept = [
        {"n": int(row.name[-5:]), **{name: row.doc[name] for name in ("id", "size", "k", "sums") if name in row.doc}}
        for row in chosen
    ]
    tx.insert(Row(MANIFEST.key, bucket.account, bucket.region, doc["mf"], {"parts": kept}), keep=False)
    garbage: Garbage = a.staged.garbage
    used = {row.name for row in chosen}
    for row in rows.values():
        if row.name not in used:
            garbage.ids.append(row.doc["id"])
        tx.delete(row, keep=False)
    tx.delete(upload, keep=False)
    id = place(tx, bucket, key, doc, upload.tags, a.now, garbage)
    notification.happened(a, tx, bucket, "ObjectCreated:CompleteMultipartUpload", key, doc, id)
    return _completed(bucket, key, doc, upload.tags, id)


def _mark(given: dict[str, Any]) -> str:
    """What an object keeps of how it was completed, so that whoever did not hear the answer may ask for it again."""
    listed = (given.get("MultipartUpload") or {}).get("Parts") or []
    parts = [f"{one.get('PartNumber')}:{str(one.get('ETag') or '').strip(chr(34))}" for one in listed]
    return hashlib.sha256("\n".join([str(given["UploadId"]), *parts]).encode("utf-8", "surrogatepass")).hexdigest()


def _completed(bucket: Bucket, key: str, doc: dict[str, Any], tags: dict[str, str], id: str | None) -> Output:
    output: Output = {
        "Location": f"/{bucket.name}/{key}",
        "Bucket": bucket.name,
        "Key": key,
        "ETag": f'"{doc["etag"]}"',
        **(encryption.shown(doc) if doc["sse"] != encryption.CUSTOMER else {}),
        **heads.checksums(doc),
        **lifecycle.shown(bucket, key, tags, doc),
    }
    if id is not None:
        output["VersionId"] = id
    return output


@UPLOAD.operation(
    "AbortMultipartUpload",
    asks=[Ask("s3:AbortMultipartUpload", object_asked, more=keys)],
    data=True,
    before=stage_nothing,
    after=clear,
)
def abort(a: Authorised, tx: Transaction) -> Output:
    bucket = bucket_of(a, tx)
    upload = upload_of(a, tx, bucket)
    if a.input.get("IfMatchInitiatedTime") is not None:
        raise not_implemented("IfMatchInitiatedTime")
    give_up(tx, bucket, upload, a.staged.garbage)
    return {}


def give_up(tx: Transaction, bucket: Bucket, upload: Row, garbage: Garbage) -> None:
    """Removes an upload and its parts."""
    key, _, id = upload.name[len(bucket.name) + 1 :].partition("\0")
    for row in _parts(tx, bucket, key, id).values():
        garbage.ids.append(row.doc["id"])
        tx.delete(row, keep=False)
    tx.delete(upload, keep=False)


def abandon(tx: Transaction, bucket: Bucket, garbage: Garbage) -> None:
    """Aborts every upload in a bucket that is about to go."""
    for kind in (PART.key, UPLOAD.key):
        while rows := tx.scan(kind, bucket.account, bucket.region, prefix=f"{bucket.name}/", limit=1000):
            for row in rows:
                if kind == PART.key:
                    garbage.ids.append(row.doc["id"])
                tx.delete(row, keep=False)
