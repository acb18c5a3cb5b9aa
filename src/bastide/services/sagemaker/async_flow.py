"""Asynchronous invocations: a request that lies in S3, an answer that will lie there.

Each is an execution of its own, in the database from the moment it was taken: what a crash interrupts is asked again.
Source: SageMaker developer guide, "Asynchronous inference"; API reference, InvokeEndpointAsync, AsyncInferenceConfig.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused, iso
from bastide.engines.serving import (
    Answer,
    Invocation,
    Loading,
    Lost,
    NoModel,
    NotLoaded,
    NotReady,
    Serving,
    Slow,
    Throttled,
)
from bastide.engines.workflow import Failed, Flow, Run, Step, Wait
from bastide.kernel import Bytes, Calls
from bastide.services.sagemaker import job_network, objects
from bastide.services.sagemaker.endpoint import ENDPOINT
from bastide.services.sagemaker.model import MODEL
from bastide.services.sagemaker.session import SAGEMAKER, RoleSession

_log = logging.getLogger("bastide.sagemaker")
_AGAIN: Final = MICROS
_AT_ONCE: Final = 4
_MOST_INPUT: Final = 256 << 20


class AsyncFlow:
    """The flow of asynchronous invocations."""

    name = "async-inference"

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._under_way: dict[str, int] = {}

    def flow(self) -> Flow:
        """The flow."""
        return Flow(self.name, [Step("answer", self.answer), Step("tell", self.tell, always=True)])

    def _session(self, run: Run) -> RoleSession:
        where = {key: run.state[key] for key in ("account", "region")}
        with self._calls.store.reading() as view:
            row = ENDPOINT.get(view, where["account"], where["region"], run.state["name"])
        if row is None or not row.doc.get("_plan"):
            raise Failed("ClientError", f"The endpoint {run.state['name']} is gone.")
        variant = row.doc["_plan"]["variants"][0]
        model = MODEL.arn(where["account"], where["region"], variant["ModelName"])
        session = RoleSession(self._calls, variant["role"], **where, source_arn=model)
        job_network.go_by_vpc(session, variant.get("vpc"), isolated=variant["isolated"])
        return session

    async def answer(self, run: Run) -> dict[str, Any]:
        """Fetches the request, asks a server, and writes its answer."""
        if run.clock() > run.state["until"]:
            raise Failed("ClientError", "The request waited longer than RequestTTLSeconds for a server.")
        session = self._session(run)
        arn = run.state["arn"]
        serving = self._calls.engine(Serving)
        if not serving.ready(arn):
            raise Wait(run.clock() + _AGAIN)
        config = run.state["config"]
        each = int((config.get("ClientConfig") or {}).get("MaxConcurrentInvocationsPerInstance") or _AT_ONCE)
        if self._under_way.get(arn, 0) >= each * max(1, serving.servers(arn, run.state["variant"])):
            raise Wait(run.clock() + _AGAIN // 4)
        self._under_way[arn] = self._under_way.get(arn, 0) + 1
        try:
            answer = await self._ask(run, session, serving)
        finally:
            self._under_way[arn] -= 1
            if not self._under_way[arn]:
                del self._under_way[arn]
        kind = answer.headers.get("content-type", "application/octet-stream")
        await self._put(session, run.state["output"], answer.body, kind, config)
        return {"content_type": kind}

    async def _ask(self, run: Run, session: RoleSession, serving: Serving) -> Answer:
        bucket, key = objects.split(run.state["input"])
        try:
            found = await session.act("s3", "GetObject", {"Bucket": bucket, "Key": key})
            body = await _whole(found["Body"])
        except Refused as refused:
            raise Failed(
                "ClientError", f"The input {run.state['input']} cannot be read ({refused.code}: {refused.message})."
            ) from None
        headers = [(name, value) for name, value in run.state["headers"]]
        call = Invocation(headers, body, seconds=float(run.state["seconds"]), at=run.clock(), id=run.state["inference"])
        try:
            answer, _ = await serving.invoke(run.state["arn"], call)
        except (NotReady, Loading, Throttled):
            raise Wait(run.clock() + _AGAIN) from None
        except Slow as slow:
            raise Failed(
                "ModelError", f"The container {slow.container} did not answer within {run.state['seconds']} s."
            ) from None
        except (Lost, NoModel, NotLoaded) as error:
            raise Failed("ModelError", f"The server of the endpoint did not answer: {error}.") from None
        if not 200 <= answer.status < 300:
            said = answer.body[:2048].decode("utf-8", "replace")
            raise Failed(
                "ModelError", f'Received error ({answer.status}) from {answer.container} with message "{said}".'
            )
        return answer

    async def _put(self, session: RoleSession, uri: str, body: bytes, kind: str, config: dict[str, Any]) -> None:
        bucket, key = objects.split(uri)
        asked = {"Bucket": bucket, "Key": key, "ContentType": kind}
        if config["OutputConfig"].get("KmsKeyId"):
            asked |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["OutputConfig"]["KmsKeyId"]}
        try:
            await session.act("s3", "PutObject", asked, body=Bytes(body))
        except Refused as refused:
            raise Failed("ClientError", f"{uri} cannot be written ({refused.code}: {refused.message}).") from None

    async def tell(self, run: Run) -> dict[str, Any]:
        """Writes why there is no answer, where the configuration has a place for that, and tells a topic how it ended; a
        topic may be told twice when the process ends in between."""
        failure = run.failure
        message = "" if failure is None else failure.message if failure.foreseen else "Internal server error."
        try:
            session = self._session(run)
        except Failed:
            return {}  # the endpoint is gone, and its role with it
        if failure is not None and run.state.get("failure"):
            with contextlib.suppress(Failed):  # nobody can be told there
                await self._put(session, run.state["failure"], message.encode(), "text/plain", run.state["config"])
        topics = run.state["config"]["OutputConfig"].get("NotificationConfig") or {}
        topic = topics.get("SuccessTopic" if failure is None else "ErrorTopic")
        if topic:
            told = {"TopicArn": topic, "Message": json.dumps(_notification(run, message))}
            try:
                await self._calls.act(
                    await session.caller(), "sns", "Publish", told, region=Arn.parse(topic).region, source=SAGEMAKER
                )
            except Refused as refused:
                _log.warning("%s could not be told of %s: %s", topic, run.id, refused.code)
        return {}


async def _whole(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    pieces: list[bytes] = []
    size = 0
    async for piece in body:
        size += len(piece)
        if size > _MOST_INPUT:
            raise Failed("ClientError", f"The input has more than {_MOST_INPUT} bytes.")
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join(pieces)


def _notification(run: Run, message: str) -> dict[str, Any]:
    state = run.state
    headers = dict(state["headers"])
    parameters = {
        "accept": headers.get("accept"),
        "contentType": headers.get("content-type"),
        "customAttributes": headers.get("x-amzn-sagemaker-custom-attributes"),
        "endpointName": state["name"],
        "inputLocation": state["input"],
    }
    told: dict[str, Any] = {
        "awsRegion": state["region"],
        "eventTime": iso(run.clock()),
        "receivedTime": iso(state["received"]),
        "invocationStatus": "Failed" if run.failure is not None else "Completed",
        "requestParameters": {name: value for name, value in parameters.items() if value},
        "inferenceId": state["inference"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if run.failure is None:
        told["responseParameters"] = {"contentType": state["content_type"], "outputLocation": state["output"]}
    else:
        told["failureReason"] = message
    return told
