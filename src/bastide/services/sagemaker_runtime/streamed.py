"""InvokeEndpointWithResponseStream: the answer as the server gives it, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from bastide.engines.serving import Lost, Serving
from bastide.kernel import Ask, Authorised, Output
from bastide.protocol import eventstream
from bastide.services.sagemaker_runtime.invocation import (
    INVOCATION,
    answered,
    arn_of,
    call_of,
    endpoint,
    found,
    refused,
    worded,
)
from bastide.store import View


async def _invoke(a: Authorised, output: Output) -> Output:
    arn = arn_of(a.account, a.region, a.input["EndpointName"])
    with worded(a):
        answer, pieces, variant = await a.engine(Serving).stream(arn, call_of(a))
        if not 200 <= answer.status < 300:
            answer.body = b"".join([piece async for piece in pieces])
            raise refused(a, answer)
    return {"Body": _events(pieces), **answered(answer, variant)}


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield eventstream.event("PayloadPart", piece)
    except Lost as lost:
        told = {"Message": f"The server of the endpoint broke its answer off: {lost}.", "ErrorCode": "StreamBroken"}
        yield eventstream.exception("ModelStreamError", orjson.dumps(told))


@INVOCATION.reads(
    "InvokeEndpointWithResponseStream",
    asks=[Ask("sagemaker:InvokeEndpointWithResponseStream", endpoint)],
    data=True,
    after=_invoke,
)
def invoke(a: Authorised, view: View) -> Output:
    found(a, view)
    return {}
