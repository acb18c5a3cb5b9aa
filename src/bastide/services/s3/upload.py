"""Uploads in parts. Every part is a file under a key of its own, wrapped by the upload's key; completing an upload copies
no bytes, it writes down which parts make the object.

Source: S3 API Reference, CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload, ...; S3 User Guide,
"Uploading and copying objects using multipart upload".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from awscrt import checksums as crt

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, fills
from bastide.services.s3 import encryption, heads, lifecycle, lock, notification
from bastide.services.s3.asking import EVERY, Keys, bucket_asked, keys, keys_for, object_asked
from bastide.services.s3.at_rest import write
from bastide.services.s3.bucket import BUCKET, Bucket, bucket_of, canonical_id, lookup, not_implemented
from bastide.services.s3.copying import (
    copied,
    source_asked,
    source_bucket,
    source_keys,
    source_version_keys,
    unversioned,
    versioned,
)
from bastide.services.s3.listing import behind, encoder, gather, walk
from bastide.services.s3.object import (
    BEGINNING,
    CONDITIONS,
    CREATES,
    CUSTOMER,
    ENCRYPTED,
    LOCKING,
    Staged,
    _check_write,
    clear,
    content,
    etag_of,
    find_version,
    given_keys,
    stage_nothing,
    tagging,
    tags_brought,
    undo,
    write_body,
    writing_keys,
)
from bastide.services.s3.versions import MANIFEST, Garbage, check_key, current, place
from bastide.store import Row, Transaction, View

UPLOAD = Kind("Upload", service="s3", arn="upload/{}", tags=False, history=False)
PART = Kind("Part", service="s3", arn="part/{}", tags=False, history=False)

_OF_UPLOADS: Final = ("by", "t", "said", "algorithm", "sumtype")
"""What an upload's row keeps and its object does not. said: the condition keys that it began with and that its parts
have."""
_LEAST_PART: Final = 5 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_MOST_BYTES: Final = 5 * 1024**4
_SIZES: Final = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}


def _name(bucket: Bucket, key: str, id: str) -> str:
    return f"{bucket.name}/{key}\0{id}"


def _part_name(bucket: Bucket, key: str, id: str, number: int) -> str:
    return f"{bucket.name}/{key}\0{id}\0{number:05d}"


def _upload(a: Authorised, view: View, bucket: Bucket) -> Row:
    id = a.input["UploadId"]
    row = None
    if "\0" not in id and "\0" not in a.input["Key"]:
        row = view.get(UPLOAD.key, bucket.account, bucket.region, _name(bucket, a.input["Key"], id))
    if row is None:
        raise Refused(
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
            "completed.",
            404,
            members={"UploadId": id[:1024]},
        )
    return row


# -- create ------------------------------------------------------------------------------------------------------------


async def _stage_create(a: Authorised) -> Staged:
    given = a.input
    key = given["Key"]
    check_key(key)
    staged = Staged(heads.described(given, a.now), heads.header_tags(given.get("Tagging")))
    algorithm = given.get("ChecksumAlgorithm")
    kind = given.get("ChecksumType")
    if algorithm:
        lower = str(algorithm).lower()
        if lower not in _SIZES:
            raise not_implemented(f"The checksum algorithm {algorithm}")
        if kind is None:
            kind = "FULL_OBJECT" if lower == "crc64nvme" else "COMPOSITE"
        if (kind == "FULL_OBJECT" and lower in ("sha1", "sha256")) or (kind == "COMPOSITE" and lower == "crc64nvme"):
            raise Refused(
                "InvalidRequest",
                f"The {kind} checksum type cannot be used with the {lower} checksum algorithm.",
                400,
            )
        staged.doc |= {"algorithm": lower, "sumtype": kind}
    elif kind:
        raise Refused(
            "InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            400,
        )  # fmt: skip
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        lock.check(bucket, staged.doc)
    _, kept = encryption.new_key(a, bucket, key, encryption.wanted(a, bucket))
    staged.asked = a.events[mark:]
    staged.doc.update(kept)
    return staged


@fills(*BEGINNING)
def _beginning(asked: Asked) -> Keys:
    return writing_keys(asked, False)


@UPLOAD.operation(
    "CreateMultipartUpload",
    asks=[
        Ask("s3:PutObject", object_asked, more=_beginning),
        Ask("s3:PutObjectTagging", object_asked, more=tags_brought, when=tagging),
        *LOCKING,
    ],
    data=True,
    before=_stage_create,
)
def create(a: Authorised, tx: Transaction) -> Output:
    staged: Staged = a.staged
    a.events += staged.asked
    key = a.input["Key"]
    bucket = bucket_of(a, tx)
    id = secrets.token_urlsafe(48)
    staged.doc["by"] = a.caller.arn
    staged.doc["said"] = {key: str(a.input[member]) for member, key in ENCRYPTED if a.input.get(member)}
    staged.doc["t"] = a.now
    tx.insert(
        Row(UPLOAD.key, bucket.account, bucket.region, _name(bucket, key, id), staged.doc, tags=staged.tags), keep=False
    )
    output: Output = {
        "Bucket": bucket.name,
        "Key": key,
        "UploadId": id,
        **encryption.shown(staged.doc),
        **lifecycle.abort_shown(bucket, key, a.now),
    }
    if "algorithm" in staged.doc:
        output["ChecksumAlgorithm"] = staged.doc["algorithm"].upper()
        output["ChecksumType"] = staged.doc["sumtype"]
    return output


# -- parts -------------------------------------------------------------------------------------------------------------


def _numbered(a: Authorised) -> int:
    number = int(a.input["PartNumber"])
    if not 1 <= number <= _MOST_PARTS:
        raise Refused(
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            400,
            members={"ArgumentName": "partNumber", "ArgumentValue": number},
        )
    return number


def _key_of(a: Authorised, view: View, bucket: Bucket, row: Row) -> bytes:
    return encryption.open_key(a, view, bucket, a.input["Key"], row.doc)


def _part_etag(upload: Row, upload_key: bytes, md5: str) -> str:
    """A part's ETag: as an object's it tells nobody a digest of what is under KMS or a customer's key; but a part that is
    sent again, as clients do, has the one that it had."""
    if upload.doc["sse"] == "AES256":
        return md5
    return hmac.digest(upload_key, md5.encode(), "sha256").hex()[:32]


def _stage(staged: Staged, upload: Row, upload_key: bytes, data_key: bytes) -> None:
    written = staged.written
    assert written is not None
    wrapped = engine.encrypt(upload_key, "part", 1, data_key, {})
    staged.doc = {
        "id": written.id,
        "size": written.size,
        "k": base64.b64encode(wrapped).decode(),
        "etag": _part_etag(upload, upload_key, written.md5),
        "md5": written.md5,
    }


async def _stage_part(a: Authorised) -> Staged:
    heads.refuse_unsupported(a.input)
    _numbered(a)
    staged = Staged()
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        upload = _upload(a, view, bucket)
        upload_key = _key_of(a, view, bucket, upload)
    staged.asked = a.events[mark:]
    data_key = engine.new_material()
    staged.written = await write_body(a, data_key)
    _stage(staged, upload, upload_key, data_key)
    sums = dict(a.call.body.checksums()) if a.call.body is not None else {}
    wanted = upload.doc.get("algorithm")
    if wanted and wanted not in sums:
        await a.engine(Artifacts).delete(staged.written.id)
        given = next(iter(sums), "null")
        raise Refused(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {wanted}, actual checksum Type: {given}",
            400,
        )
    if sums:
        staged.doc["sums"] = sums
    return staged


def _place_part(a: Authorised, tx: Transaction) -> tuple[Row, dict[str, Any]]:
    staged: Staged = a.staged
    a.events += staged.asked
    bucket = bucket_of(a, tx)
    upload = _upload(a, tx, bucket)
    name = _part_name(bucket, a.input["Key"], a.input["UploadId"], _numbered(a))
    doc = staged.doc
    doc["t"] = a.now

    def there(view: View) -> bool:
        row = view.get(PART.key, bucket.account, bucket.region, name)
        return row is not None and row.doc["id"] == doc["id"]

    staged.placed = there
    row = tx.get(PART.key, bucket.account, bucket.region, name)
    if row is None:
        tx.insert(Row(PART.key, bucket.account, bucket.region, name, doc), keep=False)
    else:
        staged.garbage.ids.append(row.doc["id"])
        row.doc = doc
        tx.update(row, keep=False)
    return upload, doc


_OF_THE_UPLOAD: Final = (*EVERY, *(key for _, key in ENCRYPTED), CUSTOMER[1], CREATES)


def _of_the_upload(asked: Asked, creates: bool) -> Keys:
    """Parts carry no word on encryption: what was said when the upload began holds for them, so that a policy that demands
    it does not stop them."""
    given = asked.call.input
    bucket = lookup(asked.view, given["Bucket"])
    found = given_keys(asked, (CUSTOMER,), keys_for(asked, bucket))
    found[CREATES.lower()] = "true" if creates else "false"
    id, key = str(given["UploadId"]), str(given["Key"])
    if bucket is not None and "\0" not in id and "\0" not in key:
        row = asked.view.get(UPLOAD.key, bucket.account, bucket.region, _name(bucket, key, id))
        if row is not None:
            found.update(row.doc.get("said") or {})
    return found


@fills(*_OF_THE_UPLOAD)
def _part_keys(asked: Asked) -> Keys:
    return _of_the_upload(asked, False)


@fills(*_OF_THE_UPLOAD, "s3:x-amz-copy-source")
def _part_copy_keys(asked: Asked) -> Keys:
    return copied(asked, _of_the_upload(asked, False))


@fills(*_OF_THE_UPLOAD, *(key for _, key in CONDITIONS))
def _completing(asked: Asked) -> Keys:
    return given_keys(asked, CONDITIONS, _of_the_upload(asked, True))


@PART.operation(
    "UploadPart",
    asks=[Ask("s3:PutObject", object_asked, more=_part_keys)],
    data=True,
    before=_stage_part,
    after=clear,
    undo=undo,
)
def put(a: Authorised, tx: Transaction) -> Output:
    upload, doc = _place_part(a, tx)
    output: Output = {"ETag": f'"{doc["etag"]}"', **encryption.shown(upload.doc)}
    for name, value in (doc.get("sums") or {}).items():
        output[heads.CHECKSUMS[name]] = value
    return output


async def _stage_part_copy(a: Authorised) -> Staged:
    given = a.input
    _numbered(a)
    staged = Staged()
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        upload = _upload(a, view, bucket)
        if upload.doc.get("algorithm"):
            raise not_implemented("UploadPartCopy for an upload with a checksum algorithm")
        source, key, id = source_bucket(view, given)
        row = find_version(a, view, source, key, id)
        heads.check_read(given, row.doc, "CopySource", copying=True)
        size = row.doc["size"]
        text = given.get("CopySourceRange")
        span = heads.span(text, size)
        if text and span is not None and not text.endswith("-") and int(text.rpartition("-")[2]) >= size:
            raise Refused("InvalidRange", f"Range specified is not valid for source object of size: {size}", 416)
        if given.get("CopySourceRange") and span is None:
            raise Refused(
                "InvalidArgument",
                "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
                "zero-based offsets of the first and last bytes to copy",
                400,
            )
        stream = content(a, view, source, key, row.doc, span, "CopySource")
        upload_key = _key_of(a, view, bucket, upload)
    staged.asked = a.events[mark:]
    data_key = engine.new_material()
    staged.written = await write(a, stream, data_key)
    _stage(staged, upload, upload_key, data_key)
    staged.more = row.doc["v"] if source.versioning else None
    return staged


@PART.operation(
    "UploadPartCopy",
    asks=[
        Ask("s3:PutObject", object_asked, more=_part_copy_keys),
        Ask("s3:GetObject", source_asked, more=source_keys, when=unversioned),
        Ask("s3:GetObjectVersion", source_asked, more=source_version_keys, when=versioned),
    ],
    data=True,
    before=_stage_part_copy,
    after=clear,
    undo=undo,
)
def put_copy(a: Authorised, tx: Transaction) -> Output:
    upload, doc = _place_part(a, tx)
    output: Output = {
        "CopyPartResult": {"ETag": f'"{doc["etag"]}"', "LastModified": doc["t"]},
        **encryption.shown(upload.doc),
    }
    if a.staged.more is not None:
        output["CopySourceVersionId"] = a.staged.more
    return output


# -- complete ----------------------------------------------------------------------------------------------------------


def _parts(tx: View, bucket: Bucket, key: str, id: str) -> dict[int, Row]:
    """All parts of an upload."""
    found: dict[int, Row] = {}
    prefix = f"{_name(bucket, key, id)}\0"
    after: str | None = None
    while True:
        rows = tx.scan(PART.key, bucket.account, bucket.region, prefix=prefix, after=after, limit=1000)
        for row in rows:
            found[int(row.name[-5:])] = row
        if len(rows) < 1000:
            return found
        after = rows[-1].name


def _digest(algorithm: str, data: bytes) -> bytes:
    if algorithm == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    if algorithm == "crc32c":
        return int(crt.crc32c(data)).to_bytes(4, "big")
    digest: bytes = hashlib.new(algorithm, data, usedforsecurity=False).digest()
    return digest


def _whole_sum(given: dict[str, Any], upload: dict[str, Any], chosen: list[Row]) -> dict[str, str]:
    """The checksum of the object from those of its parts; raises BadDigest."""
    algorithm = upload.get("algorithm")
    if not algorithm:
        return {}
    claimed = given.get(heads.CHECKSUMS[algorithm])
    if upload["sumtype"] == "COMPOSITE":
        raw = b"".join(base64.b64decode(row.doc["sums"][algorithm]) for row in chosen)
        found = f"{base64.b64encode(_digest(algorithm, raw)).decode()}-{len(chosen)}"
    else:
        found = base64.b64encode(_combined(algorithm, chosen)).decode()
    if claimed and claimed.partition("-")[0] != found.partition("-")[0]:
        raise Refused("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.", 400)
    return {algorithm: found}


_POLYNOMIALS: Final = {"crc32": (0xEDB88320, 32), "crc32c": (0x82F63B78, 32), "crc64nvme": (0x9A6C9329AC4BC9B5, 64)}


def _times(one: int, other: int, polynomial: int, bits: int) -> int:
    """The product of two polynomials over GF(2) modulo a CRC's, bits reflected."""
    product = 0
    top = 1 << (bits - 1)
    while one:
        if one & top:
            product ^= other
        one = (one << 1) & ((1 << bits) - 1)
        other = (other >> 1) ^ (polynomial if other & 1 else 0)
    return product


def _combined(algorithm: str, chosen: list[Row]) -> bytes:
    """The CRC of all parts together: each step moves the CRC so far along by the next part's length."""
    polynomial, bits = _POLYNOMIALS[algorithm]
    total = 0
    for row in chosen:
        shift = 1 << (bits - 1)
        square = 1 << (bits - 9)  # x^8: one byte
        length = row.doc["size"]
        while length:
            if length & 1:
                shift = _times(shift, square, polynomial, bits)
            square = _times(square, square, polynomial, bits)
            length >>= 1
        part = int.from_bytes(base64.b64decode(row.doc["sums"][algorithm]), "big")
        total = _times(total, shift, polynomial, bits) ^ part
    return total.to_bytes(bits // 8, "big")


def _chosen(given: dict[str, Any], rows: dict[int, Row]) -> list[Row]:
    """The parts that make the object; raises MalformedXML, InvalidPart, InvalidPartOrder, EntityTooSmall."""
    listed = (given.get("MultipartUpload") or {}).get("Parts") or []
    if not listed:
        raise Refused(
            "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema",
            400,
        )  # fmt: skip
    chosen: list[Row] = []
    last = 0
    for one in listed:
        number = int(one.get("PartNumber") or 0)
        if number <= last:
            raise Refused(
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
                400,
            )
        last = number
        row = rows.get(number)
        etag = str(one.get("ETag") or "").strip('"')
        sums = row.doc.get("sums") or {} if row is not None else {}
        wrong = any(
            one.get(member) is not None and sums.get(name, one[member]) != one[member]
            for name, member in heads.CHECKSUMS.items()
        )
        if row is None or etag != row.doc["etag"] or wrong:
            raise Refused(
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag.",
                400,
                members={"PartNumber": number, "ETag": etag},
            )
        chosen.append(row)
    for row in chosen[:-1]:
        if row.doc["size"] < _LEAST_PART:
            raise Refused(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                400,
                members={"ProposedSize": row.doc["size"], "MinSizeAllowed": _LEAST_PART},
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
    upload = _upload(a, tx, bucket)
    # Whoever completes an upload must be able to use its key, as whoever reads the object (S3 User Guide, "KMS").
    # A key that the customer sends is not needed again: the parts were written with it.
    if upload.doc["sse"] != encryption.CUSTOMER or encryption.customer_key(a) is not None:
        encryption.open_key(a, tx, bucket, key, upload.doc)
    _check_write(given, tx, bucket, key)
    rows = _parts(tx, bucket, key, given["UploadId"])
    chosen = _chosen(given, rows)
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
    md5 = hashlib.md5(b"".join(bytes.fromhex(row.doc["md5"]) for row in chosen), usedforsecurity=False).hexdigest()
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
    upload = _upload(a, tx, bucket)
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


# -- lists -------------------------------------------------------------------------------------------------------------


@UPLOAD.reads("ListParts", asks=[Ask("s3:ListMultipartUploadParts", object_asked, more=keys)], data=True)
def list_parts(a: Authorised, view: View) -> Output:
    given = a.input
    bucket = bucket_of(a, view)
    upload = _upload(a, view, bucket)
    limit = min(int(given["MaxParts"]) if given.get("MaxParts") is not None else 1000, 1000)
    marker = int(given.get("PartNumberMarker") or 0)
    prefix = f"{upload.name}\0"
    rows = view.scan(
        PART.key, bucket.account, bucket.region, prefix=prefix, after=f"{prefix}{marker:05d}", limit=limit + 1
    )
    parts: list[dict[str, Any]] = []
    for row in rows[:limit]:
        one: dict[str, Any] = {
            "PartNumber": int(row.name[-5:]),
            "LastModified": row.doc["t"],
            "ETag": f'"{row.doc["etag"]}"',
            "Size": row.doc["size"],
        }
        for name, value in (row.doc.get("sums") or {}).items():
            one[heads.CHECKSUMS[name]] = value
        parts.append(one)
    owner = {"ID": canonical_id(bucket.account)}
    output: Output = {
        "Bucket": bucket.name,
        "Key": given["Key"],
        "UploadId": given["UploadId"],
        "PartNumberMarker": marker,
        "MaxParts": limit,
        "IsTruncated": len(rows) > limit,
        "Parts": parts,
        "Initiator": {"ID": upload.doc["by"]},
        "Owner": owner,
        "StorageClass": "STANDARD",
        **lifecycle.abort_shown(bucket, given["Key"], upload.doc["t"]),
    }
    if len(rows) > limit and parts:
        output["NextPartNumberMarker"] = parts[-1]["PartNumber"]
    if "algorithm" in upload.doc:
        output |= {"ChecksumAlgorithm": upload.doc["algorithm"].upper(), "ChecksumType": upload.doc["sumtype"]}
    return output


def _key(name: str) -> str:
    return name.partition("\0")[0]


@BUCKET.reads("ListMultipartUploads", asks=[Ask("s3:ListBucketMultipartUploads", bucket_asked, more=keys)])
def list_uploads(a: Authorised, view: View) -> Output:
    given = a.input
    bucket = bucket_of(a, view)
    prefix, delimiter = given.get("Prefix") or "", given.get("Delimiter") or ""
    limit = min(int(given["MaxUploads"]) if given.get("MaxUploads") is not None else 1000, 1000)
    marker, id = given.get("KeyMarker") or "", given.get("UploadIdMarker")
    head = f"{bucket.name}/"
    after: str | None = None
    at: str | None = None
    if marker and delimiter and marker.endswith(delimiter) and marker.startswith(prefix):
        at = behind(head + marker)
    elif marker:
        after, at = (_name(bucket, marker, id), None) if id else (None, f"{head}{marker}\1")

    def start(after: str | None, at: str | None, first: int) -> Iterator[Row]:
        return walk(view, UPLOAD.key, bucket, prefix, after=after, at=at, first=first)

    page = gather(start, head, prefix, delimiter, limit, after, at, key_of=_key)
    encode: Callable[[str], str] = encoder(given)
    owner = {"ID": canonical_id(bucket.account)}
    uploads: list[dict[str, Any]] = []
    for row in page.entries:
        key, _, upload_id = row.name[len(head) :].partition("\0")
        uploads.append(
            {
                "Key": encode(key),
                "UploadId": upload_id,
                "Initiated": row.doc["t"],
                "StorageClass": "STANDARD",
                "Owner": owner,
                "Initiator": {"ID": row.doc["by"]},
            }
        )
    output: Output = {
        "Bucket": bucket.name,
        "KeyMarker": encode(marker),
        "UploadIdMarker": id or "",
        "Prefix": encode(prefix),
        "MaxUploads": limit,
        "IsTruncated": page.truncated,
        "Uploads": uploads,
        "CommonPrefixes": [{"Prefix": encode(one)} for one in page.prefixes],
    }
    if delimiter:
        output["Delimiter"] = encode(delimiter)
    if given.get("EncodingType"):
        output["EncodingType"] = given["EncodingType"]
    if page.truncated:
        output["NextKeyMarker"] = encode(page.last)
        if uploads and not (page.prefixes and page.prefixes[-1] == page.last):
            output["NextUploadIdMarker"] = uploads[-1]["UploadId"]
    return output
