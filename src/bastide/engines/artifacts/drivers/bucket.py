"""A place in an S3-compatible store, call by call. Blocks; safe to use from several threads.

Calls are tried four times, with growing pauses, on what may pass: 5xx, SlowDown, connections that fail or say nothing.
Every body's digest is signed, so that the store refuses what changed on the way. Objects are only ever made, never
replaced (If-None-Match), so a call that is made again after its answer was lost cannot do harm: what lies there by then is
looked at.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.session
import urllib3.exceptions

from bastide.engines.artifacts.place import Place, PlaceError
from bastide.engines.artifacts.sealing import Unavailable, legal_id

PART = 8 * 1024 * 1024
"""Bytes of a part, about; all but the last are equal, as some stores ask for it."""
READING = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.IncompleteReadError,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""What a body raises whose connection ends before it does."""

_TRIES = 4
_OWNER = "owner"
_SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_log = logging.getLogger(__name__)


class Bucket:
    """Objects below a place, by their ids.

    Everything here raises Unavailable when the store does not answer or refuses us.
    """

    def __init__(self, place: Place, connections: int = 16) -> None:
        self.place = place
        self._client = _client(place, connections)

    def _call(self, operation: str, **given: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.place.bucket, **given)
            return answer
        except botocore.exceptions.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("NoSuchKey", "NoSuchUpload", "InvalidRange", "PreconditionFailed") or (
                operation == "head_object" and status == 404
            ):
                raise
            raise self._unavailable(operation, f"{code} ({status})") from None
        except (botocore.exceptions.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unavailable(operation, type(error).__name__) from None

    def _told(self, operation: str, member: str, **given: Any) -> Any:
        answer = self._call(operation, **given)
        if member not in answer:
            raise self._unavailable(operation, f"no {member} in the answer")
        return answer[member]

    def _unavailable(self, operation: str, why: str) -> Unavailable:
        _log.warning("the store of objects, %s: %s of %s", self.place, why, operation)
        return Unavailable(f"the store of objects does not serve: {why}")

    def _key(self, id: str) -> str:
        return f"{self.place.prefix}{id}"

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, id: str, first: int = 0, end: int | None = None) -> tuple[Any, int]:
        """A body that begins at byte `first` and goes to `end` at most, and the size of the whole object.

        Raises FileNotFoundError; IndexError if there is no such byte; READING if the answer's head is not whole, which no
        parser of HTTP notices."""
        try:
            answer = self._call(
                "get_object", Key=self._key(id), Range=f"bytes={first}-{'' if end is None else end - 1}"
            )
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "InvalidRange":
                raise IndexError(first) from None
            raise FileNotFoundError(f"artifact {id} is gone") from None
        told = _SPAN.fullmatch(str(answer.get("ContentRange")))
        if told is not None:
            begin, last, whole = map(int, told.groups())
            length = last - begin + 1
            if begin == first and last + 1 == min(whole, end or whole) and answer.get("ContentLength") == length:
                return answer["Body"], whole
        answer["Body"].close()
        raise ConnectionError("the answer is not whole, or not to the range")

    def size(self, id: str) -> int:
        """Bytes of an object; raises FileNotFoundError."""
        try:
            return int(self._told("head_object", "ContentLength", Key=self._key(id)))
        except botocore.exceptions.ClientError:
            raise FileNotFoundError(f"artifact {id} is gone") from None

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Every object's id and size."""
        for key, size in self._names():
            id = key.removeprefix(self.place.prefix)
            if legal_id(id):
                yield id, size

    def _names(self) -> Iterator[tuple[str, int]]:
        after: dict[str, str] = {}
        while True:
            answer = self._call("list_objects_v2", Prefix=self.place.prefix, **after)
            for one in answer.get("Contents", ()):
                yield one["Key"], int(one["Size"])
            if not answer.get("IsTruncated"):
                return
            after = {"ContinuationToken": answer["NextContinuationToken"]}

    # -- writing -------------------------------------------------------------------------------------------------------

    def put(self, id: str, sealed: bytes) -> None:
        """Makes an object; raises FileExistsError if there is another one."""
        try:
            self._call("put_object", Key=self._key(id), Body=sealed, IfNoneMatch="*")
        except botocore.exceptions.ClientError:
            # An earlier try may have made it, whose answer was lost.
            if not self._is(id, sealed):
                raise FileExistsError(f"artifact {id} is there already") from None

    def _is(self, id: str, sealed: bytes) -> bool:
        try:
            body, size = self.get(id)
            with contextlib.closing(body):
                return size == len(sealed) and bool(body.read() == sealed)
        except IndexError:
            return False
        except Unavailable:
            raise
        except READING as error:
            raise self._unavailable("get_object", type(error).__name__) from None

    def begin(self, id: str) -> str:
        """An upload in parts; its id."""
        return str(self._told("create_multipart_upload", "UploadId", Key=self._key(id)))

    def part(self, id: str, upload: str, number: int, sealed: bytes | bytearray) -> str:
        """Sends a part; its ETag."""
        try:
            return str(
                self._told("upload_part", "ETag", Key=self._key(id), UploadId=upload, PartNumber=number, Body=sealed)
            )
        except botocore.exceptions.ClientError:
            raise self._unavailable("upload_part", "the upload is gone") from None

    def complete(self, id: str, upload: str, tags: Sequence[str], size: int) -> None:
        """Makes the object of its parts; raises FileExistsError. size: what it then has."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        try:
            self._call(
                "complete_multipart_upload",
                Key=self._key(id),
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except botocore.exceptions.ClientError:
            # An earlier try may have completed it; nobody else knows this upload.
            with contextlib.suppress(FileNotFoundError):
                if self.size(id) == size:
                    return
            raise FileExistsError(f"artifact {id} cannot be made of its parts") from None

    def abort(self, id: str, upload: str) -> None:
        """Ends an upload and forgets its parts; one that is gone is fine."""
        with contextlib.suppress(botocore.exceptions.ClientError):
            self._call("abort_multipart_upload", Key=self._key(id), UploadId=upload)

    def uploads(self) -> Iterator[tuple[str, str]]:
        """Uploads that nobody ended: the object's id, and the upload's."""
        after: dict[str, str] = {}
        while True:
            answer = self._call("list_multipart_uploads", Prefix=self.place.prefix, **after)
            for one in answer.get("Uploads", ()):
                id = str(one["Key"]).removeprefix(self.place.prefix)
                if legal_id(id):
                    yield id, str(one["UploadId"])
            if not answer.get("IsTruncated"):
                return
            after = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def delete(self, id: str) -> None:
        """Removes an object; one that is gone is fine."""
        with contextlib.suppress(botocore.exceptions.ClientError):
            self._call("delete_object", Key=self._key(id))

    def bring(self, id: str, sealed: BinaryIO, size: int) -> None:
        """Makes an object of what is read."""
        if size <= PART:
            self.put(id, sealed.read(size))
            return
        upload = self.begin(id)
        try:
            # Ten thousand parts are all that S3 takes.
            length = max(PART, -(-size // 9_000))
            tags: list[str] = []
            while piece := sealed.read(length):
                tags.append(self.part(id, upload, len(tags) + 1, piece))
            self.complete(id, upload, tags, size)
        except BaseException:
            with contextlib.suppress(Unavailable):
                self.abort(id, upload)
            raise

    # -- whose it is ---------------------------------------------------------------------------------------------------

    def claim(self, owner: str) -> None:
        """Takes the place for a platform; raises PlaceError if something lies there or the store cannot do its work."""
        with self._telling():
            found = next(self._names(), None) or next(self.uploads(), None)
            if found is not None:
                raise PlaceError(
                    f"{self.place} is not empty, it holds `{found[0]}`: each platform needs a prefix of its own"
                )
            self._mark(owner)
            if self._owner() != owner:
                raise PlaceError(f"{self.place} was taken by another platform at the same time")
            self._mark("nobody")
            if self._owner() == owner:
                return
            self.release()
            raise PlaceError(f"{self.place}: this store does not honour If-None-Match, so it might replace objects")

    def _mark(self, owner: str) -> None:
        with contextlib.suppress(botocore.exceptions.ClientError):  # there is one
            self._call("put_object", Key=f"{self.place.prefix}{_OWNER}", Body=owner.encode(), IfNoneMatch="*")

    def _owner(self) -> str:
        try:
            body = self._call("get_object", Key=f"{self.place.prefix}{_OWNER}")["Body"]
            with contextlib.closing(body):
                return str(body.read(1024).decode("ascii", "replace"))
        except botocore.exceptions.ClientError:
            return ""
        except Unavailable:
            raise
        except READING as error:
            raise self._unavailable("get_object", type(error).__name__) from None

    def release(self) -> None:
        """Undoes `claim`, for a platform that did not come to be."""
        self._call("delete_object", Key=f"{self.place.prefix}{_OWNER}")

    def check(self, owner: str) -> None:
        """Raises PlaceError unless the store answers and the place is `owner`'s."""
        with self._telling():
            found = self._owner()
        if found != owner:
            raise PlaceError(
                f"{self.place} holds {'another' if found else 'no'} platform's objects: "
                "a platform stays with the store that it was made with"
            )

    def reach(self) -> None:
        """Raises PlaceError unless the store answers and a platform has taken the place."""
        with self._telling():
            if not self._owner():
                raise PlaceError(f"{self.place} holds no platform's objects")

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            raise PlaceError(
                f"{self.place} cannot be used: {error.strerror}. Are the endpoint, its certificate (ca-bundle), the "
                "bucket and the credentials right, and does it run?"
            ) from None


def _client(place: Place, connections: int) -> Any:
    if place.authority is not None and not place.authority.is_file():
        raise PlaceError(f"there is no file {place.authority} of certificates")
    session = botocore.session.Session()
    held: Mapping[str, str | None] = {}
    if place.credentials is not None:
        held = _credentials(place)
    elif session.get_credentials() is None:
        raise PlaceError(
            f"there are no credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file "
            "of them as `credentials`"
        )
    config = botocore.config.Config(
        retries={"total_max_attempts": _TRIES, "mode": "standard"},
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=connections,
        # A store that is not AWS's may know no checksums of its own; the signature holds the body's digest instead.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True, "addressing_style": "path" if place.endpoint else "auto"},
        ignore_configured_endpoint_urls=True,
        user_agent_extra="bastide",
    )
    make: Callable[..., Any] = session.create_client
    return make(
        "s3",
        region_name=place.region,
        endpoint_url=place.endpoint,
        verify=str(place.authority) if place.authority is not None else True,
        config=config,
        **held,
    )


def _credentials(place: Place) -> Mapping[str, str | None]:
    file = place.credentials
    assert file is not None
    try:
        if file.stat().st_mode & 0o077:
            raise PlaceError(f"others can read {file}: chmod 600 it")
        found = botocore.credentials.SharedCredentialProvider(str(file), "default").load()
    except (OSError, botocore.exceptions.BotoCoreError):
        found = None
    if found is None:
        raise PlaceError(f"{file} holds no credentials: [default], aws_access_key_id and aws_secret_access_key")
    return {
        "aws_access_key_id": found.access_key,
        "aws_secret_access_key": found.secret_key,
        "aws_session_token": found.token,
    }
