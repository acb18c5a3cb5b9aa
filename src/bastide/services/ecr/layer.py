"""Layers: uploaded in parts, kept once a repository under their digest, given out by an address that holds for an hour."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from bastide.domain import MICROS, Refused
from bastide.kernel import Ask, Authorised, Calls, Output
from bastide.kernel.address import Address
from bastide.services.ecr import sealing
from bastide.services.ecr.repository import LAYER, UPLOAD, find, invalid, named, this
from bastide.store import Row, Transaction, View

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
PART_BYTES: Final = 10 * 1024 * 1024
_SMALLEST_PART: Final = 5 * 1024 * 1024
_MOST_PARTS: Final = 4200
_MOST_BYTES: Final = 42 << 30
"""Of a layer: 4,200 parts (Amazon ECR User Guide, "Service quotas")."""
_MOST_UPLOADS: Final = 1000
_HOUR: Final = 3600 * MICROS
_DAY: Final = 24 * _HOUR
_TICKET: Final = "ecr/layer"


def _refused(code: str, message: str) -> Refused:
    return Refused(code, message)


def layer(view: View, repository: Row, digest: str) -> Row | None:
    """A repository's layer."""
    return LAYER.get(view, repository.account, repository.region, f"{repository.name}@{digest}")


# -- uploading -----------------------------------------------------------------------------------------------------------


async def _new_key(a: Authorised) -> str:
    with a.calls.store.reading() as view:
        repository = named(a, view)
    return (await sealing.new_key(a.calls, repository))[1]


async def _forget_stale(a: Authorised, output: Output) -> Output:
    """Uploads that nobody went on with for a day are given up, when the next one begins."""
    gone: list[str] = []
    with a.calls.store.reading() as view:
        repository = named(a, view)
        rows = view.scan(
            UPLOAD.key, repository.account, repository.region, prefix=f"{repository.name}@", limit=_MOST_UPLOADS
        )
        stale = [row.name for row in rows if row.modified < a.now - _DAY]

    def work(tx: Transaction) -> None:
        gone.clear()
        for name in stale:
            row = UPLOAD.get(tx, repository.account, repository.region, name)
            if row is not None and row.modified < a.now - _DAY:
                gone.extend(row.doc["parts"])
                UPLOAD.remove(tx, row, "LayerUploadGivenUp")

    if stale:
        await a.calls.store.write(work)
    for part in gone:
        await sealing.drop(a, part)
    return output


@UPLOAD.operation(
    "InitiateLayerUpload", asks=[Ask("ecr:InitiateLayerUpload", this)], before=_new_key, after=_forget_stale
)
def initiate(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    where = (repository.account, repository.region)
    if len(tx.scan(UPLOAD.key, *where, prefix=f"{repository.name}@", limit=_MOST_UPLOADS)) >= _MOST_UPLOADS:
        raise Refused("LimitExceededException", f"A repository has {_MOST_UPLOADS} unfinished uploads at most.")
    id = str(uuid.uuid4())
    doc = {"parts": [], "sizes": [], "received": 0, "key": a.staged}
    tx.insert(Row(UPLOAD.key, *where, f"{repository.name}@{id}", doc), keep=False)
    return {"uploadId": id, "partSize": PART_BYTES}


def _upload(a: Authorised, view: View, repository: Row) -> Row:
    id = str(a.input["uploadId"])
    row = UPLOAD.get(view, repository.account, repository.region, f"{repository.name}@{id}")
    if row is None:
        raise _refused(
            "UploadNotFoundException",
            f"The upload with id '{id[:64]}' in the repository '{repository.name}' does not exist.",
        )
    return row


def _fits(a: Authorised, upload: Row) -> None:
    first, last = int(a.input["partFirstByte"]), int(a.input["partLastByte"])
    data: bytes = a.input["layerPartBlob"]
    received = int(upload.doc["received"])
    if first != received or last != first + len(data) - 1 or not 0 < len(data) <= PART_BYTES:
        raise Refused(
            "InvalidLayerPartException",
            f"The part {first}-{last} does not follow what was received: the next byte is {received}, and a part has "
            f"1 to {PART_BYTES} bytes.",
            members={"lastValidByteReceived": received - 1},
        )
    if len(upload.doc["parts"]) >= _MOST_PARTS:
        raise Refused("LimitExceededException", f"A layer has {_MOST_PARTS} parts at most.")


async def _receive(a: Authorised) -> str:
    with a.calls.store.reading() as view:
        repository = named(a, view)
        upload = _upload(a, view, repository)
        _fits(a, upload)
    key = await sealing.open_key(a.calls, repository, upload.doc["key"])
    return await sealing.store(a.calls, a.input["layerPartBlob"], key)


async def _undo(a: Authorised) -> None:
    if a.staged:
        await sealing.drop(a, a.staged)


@UPLOAD.operation("UploadLayerPart", asks=[Ask("ecr:UploadLayerPart", this)], before=_receive, undo=_undo)
def part(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    upload = _upload(a, tx, repository)
    _fits(a, upload)
    size = len(a.input["layerPartBlob"])
    upload.doc["parts"].append(a.staged)
    upload.doc["sizes"].append(size)
    upload.doc["received"] += size
    upload.modified = a.now
    UPLOAD.change(tx, upload, a.operation.name)
    return {
        "registryId": repository.account,
        "repositoryName": repository.name,
        "uploadId": a.input["uploadId"],
        "lastByteReceived": upload.doc["received"] - 1,
    }


async def _whole(a: Authorised) -> tuple[int, str]:
    """Which state of the upload was read, and the digest of all of it."""
    with a.calls.store.reading() as view:
        repository = named(a, view)
        upload = _upload(a, view, repository)
    if not upload.doc["parts"]:
        raise _refused("EmptyUploadException", "The upload has no parts.")
    key = await sealing.open_key(a.calls, repository, upload.doc["key"])
    seen = hashlib.sha256()
    async for piece in sealing.content(a.calls, upload.doc["parts"], key):
        seen.update(piece)
    return int(upload.doc["received"]), f"sha256:{seen.hexdigest()}"


@UPLOAD.operation("CompleteLayerUpload", asks=[Ask("ecr:CompleteLayerUpload", this)], before=_whole)
def complete(a: Authorised, tx: Transaction) -> Output:
    repository = named(a, tx)
    upload = _upload(a, tx, repository)
    received, digest = a.staged
    wanted = [str(one) for one in a.input["layerDigests"]]
    if received != upload.doc["received"] or digest not in wanted:
        raise _refused(
            "InvalidLayerException",
            f"The layer digest {wanted[0][:80]} does not match what was uploaded, which has the digest {digest}.",
        )
    if any(size < _SMALLEST_PART for size in upload.doc["sizes"][:-1]):
        raise _refused("LayerPartTooSmallException", f"A part that is not the last has {_SMALLEST_PART} bytes or more.")
    if layer(tx, repository, digest) is not None:
        raise _refused(
            "LayerAlreadyExistsException",
            f"The layer with digest '{digest}' already exists in the repository with name '{repository.name}'.",
        )
    doc = {"parts": upload.doc["parts"], "size": upload.doc["received"], "key": upload.doc["key"]}
    where = (repository.account, repository.region)
    tx.insert(Row(LAYER.key, *where, f"{repository.name}@{digest}", doc), keep=False)
    UPLOAD.remove(tx, upload, a.operation.name)
    return {
        "registryId": repository.account,
        "repositoryName": repository.name,
        "uploadId": a.input["uploadId"],
        "layerDigest": digest,
    }


# -- giving out ----------------------------------------------------------------------------------------------------------


@LAYER.reads("BatchCheckLayerAvailability", asks=[Ask("ecr:BatchCheckLayerAvailability", this)])
def check(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    layers, failures = [], []
    for given in a.input["layerDigests"]:
        digest = str(given)
        if not DIGEST.fullmatch(digest):
            failures.append(
                {
                    "layerDigest": digest,
                    "failureCode": "InvalidLayerDigest",
                    "failureReason": "A digest is sha256: and 64 hexadecimal digits.",
                }
            )
            continue
        row = layer(view, repository, digest)
        found: dict[str, Any] = {"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}
        if row is not None:
            found |= {"layerAvailability": "AVAILABLE", "layerSize": row.doc["size"]}
        layers.append(found)
    return {"layers": layers, "failures": failures}


@LAYER.reads("GetDownloadUrlForLayer", asks=[Ask("ecr:GetDownloadUrlForLayer", this)])
def download(a: Authorised, view: View) -> Output:
    repository = named(a, view)
    digest = str(a.input["layerDigest"])
    if not DIGEST.fullmatch(digest):
        raise invalid("layerDigest is sha256: and 64 hexadecimal digits.")
    if layer(view, repository, digest) is None:
        raise _refused(
            "LayersNotFoundException",
            f"The layer with digest '{digest}' does not exist in the repository with name '{repository.name}'.",
        )
    told = [repository.account, repository.region, repository.name, digest, a.now + _HOUR]
    ticket = a.calls.sealer.seal(orjson.dumps(told), _TICKET)
    base = f"{a.engine(Address).url}/v2/_layers"
    if a.request.vpce:
        # From inside a VPC layers come over its endpoint for S3, as on AWS.
        base = f"https://{bucket(a.region)}.s3.{a.region}.amazonaws.com"
    return {"downloadUrl": f"{base}/{ticket}", "layerDigest": digest}


def bucket(region: str) -> str:
    """The bucket that AWS has the layers of a region in (Amazon ECR User Guide, "Amazon ECR interface VPC endpoints")."""
    return f"prod-{region}-starport-layer-bucket"


class Downloads:
    """Gives out the layers whose addresses GetDownloadUrlForLayer told."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def open(self, url: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes of a layer; raises Refused for an address that is none, or no more."""
        ticket = url.rpartition("/")[2]
        try:
            account, region, name, digest, until = orjson.loads(self._calls.sealer.open(ticket, _TICKET))
        except (ValueError, Refused):
            raise Refused("AccessDenied", "The address of the layer is not valid.", 403) from None
        if self._calls.clock() >= until:
            raise Refused("AccessDenied", "Request has expired", 403)
        with self._calls.store.reading() as view:
            repository = find(view, account, region, name)
            row = layer(view, repository, digest)
        if row is None:
            raise Refused("NoSuchKey", "The layer does not exist any more.", 404)
        key = await sealing.open_key(self._calls, repository, row.doc["key"])
        return int(row.doc["size"]), sealing.content(self._calls, row.doc["parts"], key)
