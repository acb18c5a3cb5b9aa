"""SageMaker Runtime: invoking endpoints.

Source: Amazon SageMaker Runtime API Reference, InvokeEndpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.engines.serving import Answer, Lost, NotReady, Serving
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, Service, each
from bastide.services.sagemaker_runtime.invocations import Invocations
from bastide.store import View

_ENDPOINT_KEY: Final = "sagemaker:Endpoint"
_MOST_BYTES: Final = 6 * 1024 * 1024
_SECONDS: Final = 60.0
_HEADERS: Final = (
    ("ContentType", "content-type"),
    ("Accept", "accept"),
    ("CustomAttributes", "x-amzn-sagemaker-custom-attributes"),
    ("TargetVariant", "x-amzn-sagemaker-target-variant"),
    ("InferenceId", "x-amzn-sagemaker-inference-id"),
)
_UNSUPPORTED: Final = (
    "TargetModel",
    "TargetContainerHostname",
    "EnableExplanations",
    "InferenceComponentName",
    "SessionId",
    "PrefixAwareId",
)

INVOCATION = Kind(
    "Invocation",
    service="sagemaker-runtime",
    arn="invocation/{}",
    arn_service="sagemaker",
    named_by="EndpointName",
    tags=False,
)
"""Not a noun: what the operation hangs on."""


def _arn(account: str, region: str, name: str) -> str:
    return f"arn:aws:sagemaker:{region}:{account}:endpoint/{name}"


def _endpoint(asked: Asked) -> Iterable[str]:
    return (_arn(asked.call.account, asked.call.region, str(asked.input["EndpointName"])),)


async def _invoke(a: Authorised, output: Output) -> Output:
    given = a.input
    name = given["EndpointName"]
    headers = [(header, given[member]) for member, header in _HEADERS if given.get(member)]
    if any("\r" in value or "\n" in value for _, value in headers):
        raise Refused("ValidationError", "A header has one line.")
    endpoint = _arn(a.account, a.region, name)
    before = a.calls.clock()
    try:
        answer, variant = await a.engine(Serving).invoke(
            endpoint, given.get("TargetVariant"), headers, given["Body"], seconds=_SECONDS
        )
    except NotReady as not_ready:
        if not_ready.missing:
            raise Refused(
                "ValidationError", f"Variant {given.get('TargetVariant')} not found for endpoint {name}."
            ) from None
        raise Refused("ServiceUnavailable", "No server of the endpoint answers now. Please try again.", 503) from None
    except TimeoutError:
        raise _failed(
            a,
            0,
            "",
            "Your invocation timed out while waiting for a response from container primary. Review the endpoint's logs, "
            "resolve the issue, and try again.",
        ) from None
    except Lost as lost:
        raise _failed(a, 0, "", f"The server of the endpoint did not answer: {lost}.") from None
    if not 200 <= answer.status < 300:
        raise _refused(a, answer)
    # Until the model was asked; what is left to do is to write the answer.
    a.engine(Invocations).overhead(endpoint, variant, before - a.now)
    found: Output = {"Body": answer.body, "InvokedProductionVariant": variant}
    if "content-type" in answer.headers:
        found["ContentType"] = answer.headers["content-type"]
    if "x-amzn-sagemaker-custom-attributes" in answer.headers:
        found["CustomAttributes"] = answer.headers["x-amzn-sagemaker-custom-attributes"]
    return found


def _refused(a: Authorised, answer: Answer) -> Refused:
    said = answer.body[:2048].decode("utf-8", "replace")
    whose = "client" if 400 <= answer.status < 500 else "server"
    return _failed(
        a,
        answer.status,
        said,
        f'Received {whose} error ({answer.status}) from primary with message "{said}". See '
        f"/aws/sagemaker/Endpoints/{a.input['EndpointName']} in account {a.account} for more information.",
    )


def _failed(a: Authorised, status: int, said: str, message: str) -> Refused:
    group = f"/aws/sagemaker/Endpoints/{a.input['EndpointName']}"
    members = {
        "OriginalStatusCode": status,
        "OriginalMessage": said,
        "LogStreamArn": f"arn:aws:logs:{a.region}:{a.account}:log-group:{group}",
    }
    return Refused("ModelError", message, 424, members=members)


@INVOCATION.reads(
    "InvokeEndpoint",
    asks=[Ask("sagemaker:InvokeEndpoint", _endpoint, given={"sagemaker:TargetModel": each("TargetModel")})],
    data=True,
    after=_invoke,
)
def invoke(a: Authorised, view: View) -> Output:
    name = a.input["EndpointName"]
    row = view.get(_ENDPOINT_KEY, a.account, a.region, name)
    if row is None or row.status in ("Creating", "Failed"):
        raise Refused("ValidationError", f"Endpoint {name} of account {a.account} not found.")
    for member in _UNSUPPORTED:
        if a.input.get(member):
            raise Refused("ValidationError", f"{member} is not supported by Bastide yet.")
    if len(a.input["Body"]) > _MOST_BYTES:
        raise Refused("ValidationError", f"The body has more than {_MOST_BYTES} bytes.")
    return {}


__all__ = ["SERVICE", "Invocations"]

SERVICE = Service("sagemaker-runtime", kinds=[INVOCATION], prefix="sagemaker")
