"""Uploads in parts. Every part is a file under a key of its own, wrapped by the upload's key; completing an upload copies
no bytes, it writes down which parts make the object.

Source: S3 API Reference, CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload, ...; S3 User Guide,
"Uploading and copying objects using multipart upload".
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import keys as engine
from bastide.engines.artifacts import Artifacts
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, fills
from bastide.services.s3 import encryption, heads, lifecycle, lock
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
    CREATES,
    CUSTOMER,
    ENCRYPTED,
    LOCKING,
    Staged,
    clear,
    given_keys,
    tagging,
    tags_brought,
    undo,
    write_body,
    writing_keys,
)
from bastide.services.s3.reading import content, find_version
from bastide.services.s3.versions import check_key
from bastide.store import Row, Transaction, View

UPLOAD = Kind("Upload", service="s3", arn="upload/{}", tags=False, history=False)
PART = Kind("Part", service="s3", arn="part/{}", tags=False, history=False)

_MOST_PARTS: Final = 10_000
_SIZES: Final = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}


def upload_name(bucket: Bucket, key: str, id: str) -> str:
    return f"{bucket.name}/{key}\0{id}"


def _part_name(bucket: Bucket, key: str, id: str, number: int) -> str:
    return f"{bucket.name}/{key}\0{id}\0{number:05d}"


def upload_of(a: Authorised, view: View, bucket: Bucket) -> Row:
    id = a.input["UploadId"]
    row = None
    if "\0" not in id and "\0" not in a.input["Key"]:
        row = view.get(UPLOAD.key, bucket.account, bucket.region, upload_name(bucket, a.input["Key"], id))
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
    name = upload_name(bucket, key, id)
    tx.insert(Row(UPLOAD.key, bucket.account, bucket.region, name, staged.doc, tags=staged.tags), keep=False)
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


def _part_digest(upload: Row) -> str:
    """The digest that a part's ETag is made of: the MD5 where it is the ETag, else one that costs less."""
    return "md5" if upload.doc["sse"] == "AES256" else "sha256"


def _part_etag(upload: Row, upload_key: bytes, digest: str) -> str:
    """A part's ETag: as an object's it tells nobody a digest of what is under KMS or a customer's key; but a part that is
    sent again, as clients do, has the one that it had."""
    if upload.doc["sse"] == "AES256":
        return digest
    return hmac.digest(upload_key, digest.encode(), "sha256").hex()[:32]


def _stage(staged: Staged, upload: Row, upload_key: bytes, data_key: bytes) -> None:
    written = staged.written
    assert written is not None
    wrapped = engine.encrypt(upload_key, "part", 1, data_key, {})
    staged.doc = {
        "id": written.id,
        "size": written.size,
        "k": base64.b64encode(wrapped).decode(),
        "etag": _part_etag(upload, upload_key, written.digest),
    }


async def _stage_part(a: Authorised) -> Staged:
    heads.refuse_unsupported(a.input)
    _numbered(a)
    staged = Staged()
    mark = len(a.events)
    with a.calls.store.reading() as view:
        bucket = bucket_of(a, view)
        upload = upload_of(a, view, bucket)
        upload_key = _key_of(a, view, bucket, upload)
    staged.asked = a.events[mark:]
    data_key = engine.new_material()
    staged.written = await write_body(a, data_key, _part_digest(upload))
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
    upload = upload_of(a, tx, bucket)
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


OF_THE_UPLOAD: Final = (*EVERY, *(key for _, key in ENCRYPTED), CUSTOMER[1], CREATES)


def of_the_upload(asked: Asked, creates: bool) -> Keys:
    """Parts carry no word on encryption: what was said when the upload began holds for them, so that a policy that demands
    it does not stop them."""
    given = asked.call.input
    bucket = lookup(asked.view, given["Bucket"])
    found = given_keys(asked, (CUSTOMER,), keys_for(asked, bucket))
    found[CREATES.lower()] = "true" if creates else "false"
    id, key = str(given["UploadId"]), str(given["Key"])
    if bucket is not None and "\0" not in id and "\0" not in key:
        row = asked.view.get(UPLOAD.key, bucket.account, bucket.region, upload_name(bucket, key, id))
        if row is not None:
            found.update(row.doc.get("said") or {})
    return found


@fills(*OF_THE_UPLOAD)
def _part_keys(asked: Asked) -> Keys:
    return of_the_upload(asked, False)


@fills(*OF_THE_UPLOAD, "s3:x-amz-copy-source")
def _part_copy_keys(asked: Asked) -> Keys:
    return copied(asked, of_the_upload(asked, False))


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
        upload = upload_of(a, view, bucket)
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
    staged.written = await write(a, stream, data_key, _part_digest(upload))
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


# -- lists -------------------------------------------------------------------------------------------------------------


@UPLOAD.reads("ListParts", asks=[Ask("s3:ListMultipartUploadParts", object_asked, more=keys)], data=True)
def list_parts(a: Authorised, view: View) -> Output:
    given = a.input
    bucket = bucket_of(a, view)
    upload = upload_of(a, view, bucket)
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
    output["NextPartNumberMarker"] = parts[-1]["PartNumber"] if parts else 0
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
        after, at = (upload_name(bucket, marker, id), None) if id else (None, f"{head}{marker}\1")

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
