"""Objects through models: cut into payloads, asked, put together, and stored whole or not at all.

Nothing of it lies on a disk in between: what comes out of S3 is cut as it comes, and answers go into S3 as they come, in
their order. Source: SageMaker developer guide, "batch-transform", "batch-transform-errors", "your-algorithms-batch-code".
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.serving import Answer, Invocation, Loading, Lost, NotReady, Serving, Slow
from bastide.kernel import Bytes, LogStream
from bastide.services.sagemaker import objects
from bastide.services.sagemaker.session import RoleSession
from bastide.services.sagemaker.transform_data import Payload, Processing
from bastide.services.sagemaker.transform_fault import Fault
from bastide.services.sagemaker.transform_records import MIB, SPLITTERS, Unpacked

MOST_ANSWER: Final = 400 * MIB
_SMALL: Final = 1 << 20
_FIRST_PAUSE: Final = 0.25
_LOOK_SECONDS: Final = 0.1
_BACK_SECONDS: Final = 240.0
"""How long a server that fell may take to come back."""
_SHOWN: Final = 2000
_STREAMED: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Item:
    """An object of the input. path: below the output path, without ``.out``."""

    bucket: str
    key: str
    etag: str
    path: str

    @property
    def where(self) -> str:
        """As the job's log calls it."""
        return f"{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How payloads are made and asked. at_once: on their way into one instance. most: bytes of one, 0 to stream whole
    objects. single: of one record. seconds: for an answer. retries: after one that was none."""

    at_once: int
    most: int
    single: bool
    seconds: float
    retries: int


@dataclass(slots=True)
class Place:
    """One instance. name: the variant that it is of the job's deployment. log: of what goes wrong with data."""

    name: str
    log: LogStream
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class _Stream:
    """Answers on their way into an object. What goes wrong on the way is kept, and S3 told that the body ended."""

    length: int | None = None

    def __init__(self, begun: list[bytes], rest: AsyncIterator[bytes]) -> None:
        self._begun = begun
        self._rest = rest
        self.fault: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answers."""
        for piece in self._begun:
            yield piece
        self._begun = []
        try:
            async for piece in self._rest:
                yield piece
        except Exception as error:
            self.fault = error
            raise Refused("IncompleteBody", "The object could not be transformed to its end.", 400) from None

    def checksums(self) -> Mapping[str, str]:
        """None."""
        return {}


class Work:
    """What all objects of a job have in common."""

    def __init__(
        self, session: RoleSession, serving: Serving, arn: str, doc: dict[str, Any], settings: Settings, began: str
    ) -> None:
        """began: the job's start, as it is written beside inference ids."""
        self.session = session
        self.serving = serving
        self.arn = arn
        self.settings = settings
        self.processing = Processing(doc)
        self._began = began
        source, target = doc["TransformInput"], doc["TransformOutput"]
        self._split = SPLITTERS[source["SplitType"]]
        self._packed = source["CompressionType"] == "Gzip"
        answers = target.get("Accept") or (source.get("ContentType") if self.processing.writes else None)
        kinds = (("content-type", source.get("ContentType")), ("accept", answers))
        self._headers = [(name, value) for name, value in kinds if value]
        self._bucket, base = objects.split(target["S3OutputPath"])
        self._base = base.rstrip("/")
        self._kms = target.get("KmsKeyId") or ""
        self._etags: dict[str, str] = {}

    @property
    def stored(self) -> str:
        """A digest of all that was stored: SHA-256 over names and ETags."""
        return hashlib.sha256(orjson.dumps(sorted(self._etags.items()))).hexdigest()

    def target(self, item: Item) -> tuple[str, str]:
        """Bucket and key of what an object becomes."""
        return self._bucket, f"{self._base}/{item.path}.out" if self._base else f"{item.path}.out"

    async def transform(self, item: Item, place: Place) -> None:
        """One object through a model; raises Fault, and nothing of it is to be seen then."""
        if self.settings.most:
            await self._store(item, self._answers(item, place))
            return
        for turn in range(self.settings.retries + 1):
            try:
                async with place.slots:
                    await self._store(item, self._streamed(item, place))
                return
            except Fault as fault:
                if fault.code != "AlgorithmError" or turn == self.settings.retries:
                    raise
            await self._pause(turn, place)

    # -- out of S3, into S3 ------------------------------------------------------------------------------------------------

    async def _content(self, item: Item) -> AsyncIterator[bytes]:
        unpacked = Unpacked() if self._packed else None
        try:
            async for piece in objects.content(self.session, item.bucket, item.key, item.etag):
                if unpacked is None:
                    yield piece
                    continue
                for plain in unpacked.feed(piece):
                    yield plain
            for plain in unpacked.end() if unpacked is not None else ():
                yield plain
        except Refused as refused:
            raise Fault("ClientError", f"Data download failed: {refused.code}: {refused.message}") from None

    async def _store(self, item: Item, answers: AsyncIterator[bytes]) -> None:
        bucket, key = self.target(item)
        asked = {"Bucket": bucket, "Key": key}
        if self._kms:
            asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms}
        begun: list[bytes] = []
        size = 0
        body: _Stream | Bytes | None = None
        try:
            async for piece in answers:
                begun.append(piece)
                size += len(piece)
                if size > _SMALL:
                    body = _Stream(begun, answers)
                    break
            if body is None:
                body = Bytes(b"".join(begun))
            output = await self.session.act("s3", "PutObject", asked, body=body)
            self._etags[f"{bucket}/{key}"] = str(output.get("ETag", ""))
        except Refused as refused:
            fault = body.fault if isinstance(body, _Stream) else None
            if fault is not None:
                raise fault from None
            text = f"{refused.code}: {refused.message} (s3://{bucket}/{key})"
            raise Fault("ClientError", f"Output upload failed: {text}") from None
        finally:
            await answers.aclose()  # type: ignore[attr-defined]

    # -- through the model -------------------------------------------------------------------------------------------------

    async def _payloads(self, item: Item) -> AsyncIterator[bytes]:
        splitter = self._split(self.settings.most, single=self.settings.single)
        async for piece in self._content(item):
            for payload in splitter.feed(piece):
                yield payload
        for payload in splitter.end():
            yield payload

    async def _answers(self, item: Item, place: Place) -> AsyncIterator[bytes]:
        """Answers to an object's payloads, in their order, while later ones are being asked."""
        flying: deque[asyncio.Task[tuple[Payload, bytes]]] = deque()
        seed = hashlib.sha256(f"{self.arn} {item.where}".encode()).digest()
        count = 0
        processing = self.processing

        async def next_one() -> bytes:
            nonlocal count
            payload, answer = await flying[0]
            flying.popleft()
            if not processing.writes:
                return processing.finish(payload, answer, seed, count, self._began)[0]
            found, number = await asyncio.to_thread(processing.finish, payload, answer, seed, count, self._began)
            count += number
            return found

        try:
            async for body in self._payloads(item):
                await place.slots.acquire()
                asking = asyncio.ensure_future(self._ask(body, place))
                asking.add_done_callback(lambda _: place.slots.release())
                flying.append(asking)
                while flying and (flying[0].done() or len(flying) > self.settings.at_once):
                    yield await next_one()
            while flying:
                yield await next_one()
        finally:
            for one in flying:
                one.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _ask(self, body: bytes, place: Place) -> tuple[Payload, bytes]:
        """A payload and the model's answer to it."""
        processing = self.processing
        payload = await asyncio.to_thread(processing.prepare, body) if processing.reads else Payload(body)
        if len(payload.body) > self.settings.most:
            raise Fault("ClientError", "Too much data for max payload size, behind the input filter")
        turn = 0
        while True:
            call = Invocation(self._headers, payload.body, variant=place.name, seconds=self.settings.seconds)
            try:
                answer, _ = await self.serving.invoke(self.arn, call)
                _check(answer)
                return payload, answer.body
            except (Slow, Lost, NotReady, Loading, Fault) as error:
                fault = self._fault(error)
                if fault.code != "AlgorithmError" or turn >= self.settings.retries:
                    raise fault from None
            await self._pause(turn, place)
            turn += 1

    async def _streamed(self, item: Item, place: Place) -> AsyncIterator[bytes]:
        """MaxPayloadInMB 0: an object goes into the model as it comes, and its answer out."""
        content = self._content(item)
        call = Invocation(
            self._headers, b"", variant=place.name, seconds=self.settings.seconds, pieces=_pieces(content)
        )
        try:
            answer, pieces, _ = await self.serving.stream(self.arn, call)
            if not 200 <= answer.status < 300:
                detail = bytearray()
                async for piece in pieces:
                    detail += piece
                    if len(detail) > _SHOWN:
                        break
                answer.body = bytes(detail)
                _check(answer)
            async for piece in pieces:
                yield piece
        except (Slow, Lost, NotReady, Loading) as error:
            raise self._fault(error) from None
        finally:
            await content.aclose()  # type: ignore[attr-defined]

    def _fault(self, error: Exception) -> Fault:
        if isinstance(error, Fault):
            return error
        if isinstance(error, Slow):
            return Fault(
                "AlgorithmError",
                f"Model server did not respond to /invocations request within {self.settings.seconds:.0f} seconds",
            )
        return Fault("AlgorithmError", f"Unable to get response from algorithm: {error}")

    async def _pause(self, turn: int, place: Place) -> None:
        """A moment, and until the server is there again if it fell."""
        await asyncio.sleep(_FIRST_PAUSE * 2**turn)
        left = _BACK_SECONDS
        while not self.serving.servers(self.arn, place.name) and left > 0:
            await asyncio.sleep(_LOOK_SECONDS)
            left -= _LOOK_SECONDS


async def _pieces(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Not too large: what a slow model does not take waits in memory."""
    async for piece in content:
        for start in range(0, len(piece), _STREAMED):
            yield piece[start : start + _STREAMED]


def _check(answer: Answer) -> None:
    """Raises Fault for an answer that is none."""
    if 200 <= answer.status < 300:
        return
    detail = answer.body[:_SHOWN].decode("utf-8", "replace")
    if 400 <= answer.status < 500 and answer.status != 429:
        raise Fault("ClientError", f"The model answered {answer.status}: {detail[:300]}", detail)
    raise Fault("AlgorithmError", f"Bad HTTP status received from algorithm: {answer.status}: {detail[:300]}", detail)
