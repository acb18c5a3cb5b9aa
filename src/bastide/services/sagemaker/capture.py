"""Captured data: requests and answers of an endpoint, in S3, for those who watch its model.

A call waits for nothing but a write to a sealed spool; from there segments go to S3 with the role of the model, a file
each,
under the segment's own name, so that what a crash interrupts is written again over itself. Source: SageMaker developer
guide, "Capture data from real-time endpoint"; API reference, DataCaptureConfig.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import random
import uuid
from typing import Any, Final

import orjson

from bastide.domain import Clock, Instant, Refused, iso
from bastide.engines.serving import Answer, Invocation
from bastide.engines.spool import Segment, Spool, Spools
from bastide.engines.workflow import Failed
from bastide.kernel import Bytes, Calls, LogStream
from bastide.services.sagemaker import job_network, objects
from bastide.services.sagemaker.session import RoleSession

_log = logging.getLogger("bastide.sagemaker")

_LOOK_SECONDS: Final = 0.5
_FIRST_LINGER: Final = 1.0
_LONGEST_LINGER: Final = 60.0
_ENOUGH: Final = 1 << 20
_MOST: Final = 64 << 20
_LONGEST_BACK_OFF: Final = 300.0
_CLOSING_SECONDS: Final = 15.0
_DEFAULT_TYPE: Final = "application/octet-stream"


def _types(config: dict[str, Any], member: str) -> frozenset[str]:
    return frozenset(one.lower() for one in (config.get("CaptureContentTypeHeader") or {}).get(member) or ())


class Line:
    """The captured data of one variant on its way into one place."""

    def __init__(self, spool: Spool, config: dict[str, Any]) -> None:
        self.spool = spool
        self.since = 0.0
        self.linger = _FIRST_LINGER
        self.sent = 0.0
        self.retry_at = 0.0
        self.back_off = 0.0
        self.sending = False
        self.told = 0
        self._share = int(config["InitialSamplingPercentage"]) / 100
        modes = {one["CaptureMode"] for one in config["CaptureOptions"]}
        both = "InputAndOutput" in modes
        self._input = both or "Input" in modes
        self._output = both or "Output" in modes
        self._csv = _types(config, "CsvContentTypes")
        self._json = _types(config, "JsonContentTypes")

    def take(self, call: Invocation, answer: Answer, now: Instant) -> None:
        """Keeps a call, or does not, as the sampling has it."""
        if self._share < 1.0 and random.random() >= self._share:  # noqa: S311
            return
        data: dict[str, Any] = {}
        if self._input:
            kind = next((value for name, value in call.headers if name == "content-type"), _DEFAULT_TYPE)
            data["endpointInput"] = self._shown(kind, "INPUT", call.body)
        if self._output:
            data["endpointOutput"] = self._shown(
                answer.headers.get("content-type", _DEFAULT_TYPE), "OUTPUT", answer.body
            )
        told = {"eventId": str(uuid.uuid4()), "inferenceTime": iso(now)}
        if call.id:
            told["inferenceId"] = call.id
        record = {"captureData": data, "eventMetadata": told, "eventVersion": "0"}
        if self.spool.put(orjson.dumps(record)) and not self.since:
            self.since = asyncio.get_running_loop().time()

    def _shown(self, kind: str, mode: str, body: bytes) -> dict[str, str]:
        """A body as it is written. Unless its content type was named as CSV or JSON it is base64, as on AWS."""
        plain = kind.partition(";")[0].strip().lower()
        encoding = "CSV" if plain in self._csv else "JSON" if plain in self._json else "BASE64"
        data = ""
        if encoding != "BASE64":
            try:
                data = body.decode()
            except UnicodeDecodeError:
                encoding = "BASE64"
        if encoding == "BASE64":
            data = base64.b64encode(body).decode()
        return {"observedContentType": kind, "mode": mode, "data": data, "encoding": encoding}


class Capture:
    """All lines of a platform, and the loop that sends them. Needs the engine Spools."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lines: dict[str, Line] = {}
        self._heads: dict[str, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def clock(self) -> Clock:
        """The platform's time."""
        return self._calls.clock

    def line(
        self,
        arn: str,
        where: dict[str, str],
        variant: str,
        role: str,
        model: str,
        config: dict[str, Any],
        vpc: dict[str, Any] | None = None,
    ) -> Line:
        """The line of a variant: opened, or the one that is there if it leads to the same place. model: for which the role
        is taken on. vpc: the VpcConfig by which data goes."""
        head = {"arn": arn, **where, "variant": variant, "role": role, "model": model, "config": config}
        if vpc:
            head["vpc"] = vpc
        name = hashlib.sha256(orjson.dumps(head, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        return self._opened(name, head)

    def _opened(self, name: str, head: dict[str, Any]) -> Line:
        line = self._lines.get(name)
        if line is None:
            spool = self._calls.engine(Spools).open(name, orjson.dumps(head), _MOST)
            line = self._lines[name] = Line(spool, head["config"])
            self._heads[name] = head
        return line

    def start(self) -> None:
        """Sends from now on, first what an earlier run left."""
        for name, head in self._calls.engine(Spools).left():
            self._opened(name, orjson.loads(head))
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Sends what there is; what cannot be sent now is sent after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await asyncio.gather(*self._sending, return_exceptions=True)
                await asyncio.gather(*(self._send(name, line) for name, line in self._lines.items()))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for name, line in list(self._lines.items()):
                now = loop.time()
                if line.sending or now < line.retry_at:
                    continue
                ripe = line.spool.written >= _ENOUGH or (line.since and now - line.since >= line.linger)
                if ripe or line.spool.backlog:
                    # What comes after a silence is there soon; what comes all the time, in few files.
                    quiet = now - line.sent > _LONGEST_LINGER
                    line.linger = _FIRST_LINGER if quiet else min(_LONGEST_LINGER, line.linger * 2)
                    line.sent = now
                    line.sending = True
                    task = loop.create_task(self._send(name, line))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)

    async def _send(self, name: str, line: Line) -> None:
        """Everything that waits in a line."""
        head = self._heads[name]
        loop = asyncio.get_running_loop()
        line.sending = True
        line.since = 0.0
        line.spool.cut()
        session = RoleSession(
            self._calls, head["role"], account=head["account"], region=head["region"], source_arn=head["model"]
        )
        why = ""
        try:
            job_network.go_by_vpc(session, head.get("vpc"), isolated=False)
            for segment in line.spool.waiting():
                await self._upload(session, head, line.spool, segment)
            line.back_off = 0.0
        except Refused as refused:
            why = f"{refused.code}: {refused.message}"
        except Failed as failed:
            why = failed.message
        except Exception:
            _log.exception("captured data of %s could not be sent", head["arn"])
            why = "internal error"
        finally:
            line.sending = False
        if why:
            first = not line.back_off
            line.back_off = min(_LONGEST_BACK_OFF, max(1.0, line.back_off * 2))
            line.retry_at = loop.time() + line.back_off
            if first:
                destination = head["config"]["DestinationS3Uri"]
                await self._tell(session, head, f"Captured data cannot be written to {destination}, it waits: {why}")
        if line.spool.dropped > line.told:
            count, line.told = line.spool.dropped - line.told, line.spool.dropped
            await self._tell(session, head, f"Captured data of {count} invocations was dropped: too much of it waits.")
        session.end()

    async def _upload(self, session: RoleSession, head: dict[str, Any], spool: Spool, segment: Segment) -> None:
        records = (await asyncio.to_thread(spool.records, segment))[1:]
        if records:
            config = head["config"]
            at = orjson.loads(records[0])["eventMetadata"]["inferenceTime"]
            bucket, prefix = objects.split(config["DestinationS3Uri"])
            folder = "/".join(part for part in (prefix.strip("/"), head["name"], head["variant"]) if part)
            day, clock = at[:10].replace("-", "/"), at[11:19].replace(":", "-")
            asked = {"Bucket": bucket, "Key": f"{folder}/{day}/{at[11:13]}/{clock[3:]}-000-{segment.id}.jsonl"}
            if config.get("KmsKeyId"):
                asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
            await session.act("s3", "PutObject", asked, body=Bytes(b"\n".join(records) + b"\n"))
        await asyncio.to_thread(spool.done, segment)

    async def _tell(self, session: RoleSession, head: dict[str, Any], line: str) -> None:
        """Writes a line to the endpoint's log, if the role may."""
        with contextlib.suppress(Refused):
            log = LogStream(session, f"/aws/sagemaker/Endpoints/{head['name']}", f"{head['variant']}/data-capture")
            await log.open()
            await log.write(line.encode())
            await log.close()
