"""InvokeEndpoint, and what all invocations have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from bastide.domain import Refused
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
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, each
from bastide.store import Row, View

_ENDPOINT_KEY: Final = "sagemaker:Endpoint"
SECONDS: Final = 60.0
_HEADERS: Final = (
    ("ContentType", "content-type"),
    ("Accept", "accept"),
    ("CustomAttributes", "x-amzn-sagemaker-custom-attributes"),
    ("TargetVariant", "x-amzn-sagemaker-target-variant"),
    ("TargetContainerHostname", "x-amzn-sagemaker-target-container-hostname"),
    ("InferenceId", "x-amzn-sagemaker-inference-id"),
    ("SessionId", "x-amzn-sagemaker-session-id"),
)
_ANSWERED: Final = (
    ("ContentType", "content-type"),
    ("CustomAttributes", "x-amzn-sagemaker-custom-attributes"),
    ("NewSessionId", "x-amzn-sagemaker-new-session-id"),
    ("ClosedSessionId", "x-amzn-sagemaker-closed-session-id"),
)
_UNSUPPORTED: Final = ("EnableExplanations", "InferenceComponentName", "PrefixAwareId")

INVOCATION = Kind(
    "Invocation",
    service="sagemaker-runtime",
    arn="invocation/{}",
    arn_service="sagemaker",
    named_by="EndpointName",
    tags=False,
)
"""Not a noun: what the operations hang on."""


def arn_of(account: str, region: str, name: str) -> str:
    """The endpoint's ARN."""
    return f"arn:aws:sagemaker:{region}:{account}:endpoint/{name}"


def endpoint(asked: Asked) -> Iterable[str]:
    """The endpoint that a call names."""
    return (arn_of(asked.call.account, asked.call.region, str(asked.input["EndpointName"])),)


def sent(given: dict[str, Any]) -> list[tuple[str, str]]:
    """The headers of a call as the server gets them; raises Refused."""
    headers = [(header, str(given[member])) for member, header in _HEADERS if given.get(member)]
    if any("\r" in value or "\n" in value for _, value in headers):
        raise Refused("ValidationError", "A header has one line.")
    return headers


def call_of(a: Authorised) -> Invocation:
    """The call for the server; raises Refused."""
    given = a.input
    return Invocation(
        sent(given),
        given.get("Body") or b"",
        given.get("TargetVariant"),
        given.get("TargetModel"),
        given.get("TargetContainerHostname"),
        given.get("SessionId"),
        SECONDS,
        a.request.at,
        given.get("InferenceId"),
    )


def found(a: Authorised, view: View, *, asynchronous: bool = False) -> Row:
    """The endpoint's row, if it answers such calls; raises Refused."""
    name = a.input["EndpointName"]
    row = view.get(_ENDPOINT_KEY, a.account, a.region, name)
    if row is None or row.status in ("Creating", "Failed"):
        raise Refused("ValidationError", f"Endpoint {name} of account {a.account} not found.")
    for member in _UNSUPPORTED:
        if a.input.get(member):
            raise Refused("ValidationError", f"{member} is not supported by Bastide yet.")
    if bool(row.doc.get("AsyncInferenceConfig")) != asynchronous:
        which = "InvokeEndpointAsync" if not asynchronous else "InvokeEndpoint"
        raise Refused("ValidationError", f"Endpoint {name} does not answer {a.operation.name}: call {which}.")
    return row


@contextlib.contextmanager
def worded(a: Authorised) -> Iterator[None]:
    """Says what went wrong behind a call in the words of the API."""
    name = a.input["EndpointName"]
    try:
        yield
    except NotReady as not_ready:
        if not_ready.missing:
            raise Refused("ValidationError", f"Endpoint {name}: {not_ready.missing}") from None
        raise Refused("ServiceUnavailable", "No server of the endpoint answers now. Please try again.", 503) from None
    except Loading:
        raise Refused(
            "ModelNotReadyException", "The model is still being loaded. Please wait, and try your request again.", 429
        ) from None
    except Throttled:
        raise Refused(
            "ThrottlingException",
            "The endpoint answers as many invocations at once as its MaxConcurrency. Please try again.",
            429,
        ) from None
    except NoModel as no_model:
        raise Refused("ValidationError", str(no_model)) from None
    except NotLoaded as not_loaded:
        raise refused(a, not_loaded.answer) from None
    except Slow as slow:
        raise failed(
            a,
            0,
            "",
            f"Your invocation timed out while waiting for a response from container {slow.container}. Review the "
            "endpoint's logs, resolve the issue, and try again.",
        ) from None
    except Lost as lost:
        raise failed(
            a, 0, "", f"The server of the endpoint ({lost.container}) did not answer as it should: {lost}."
        ) from None


def answered(answer: Answer, variant: str) -> Output:
    """What the caller gets beside the body."""
    output: Output = {"InvokedProductionVariant": variant}
    for member, header in _ANSWERED:
        if header in answer.headers:
            output[member] = answer.headers[header]
    return output


def refused(a: Authorised, answer: Answer) -> Refused:
    """ModelError, of an answer that is none."""
    said = answer.body[:2048].decode("utf-8", "replace")
    whose = "client" if 400 <= answer.status < 500 else "server"
    return failed(
        a,
        answer.status,
        said,
        f'Received {whose} error ({answer.status}) from {answer.container} with message "{said}". See '
        f"/aws/sagemaker/Endpoints/{a.input['EndpointName']} in account {a.account} for more information.",
    )


def failed(a: Authorised, status: int, said: str, message: str) -> Refused:
    """ModelError."""
    group = f"/aws/sagemaker/Endpoints/{a.input['EndpointName']}"
    members = {
        "OriginalStatusCode": status,
        "OriginalMessage": said,
        "LogStreamArn": f"arn:aws:logs:{a.region}:{a.account}:log-group:{group}",
    }
    return Refused("ModelError", message, 424, members=members)


async def _invoke(a: Authorised, output: Output) -> Output:
    arn = arn_of(a.account, a.region, a.input["EndpointName"])
    with worded(a):
        answer, variant = await a.engine(Serving).invoke(arn, call_of(a))
    if not 200 <= answer.status < 300:
        raise refused(a, answer)
    return {"Body": answer.body, **answered(answer, variant)}


@INVOCATION.reads(
    "InvokeEndpoint",
    asks=[Ask("sagemaker:InvokeEndpoint", endpoint, given={"sagemaker:TargetModel": each("TargetModel")})],
    data=True,
    after=_invoke,
)
def invoke(a: Authorised, view: View) -> Output:
    found(a, view)
    return {}
