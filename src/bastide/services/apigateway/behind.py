"""What stands behind methods: functions, which get the whole request, and endpoints of SageMaker.

Source: API Gateway Developer Guide, "Lambda proxy integrations", "AWS integrations", "Request and response data mapping".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import orjson

from bastide.domain import Refused
from bastide.kernel import Authorised, Caller, Output, service_caller
from bastide.protocol.patterns import strangers
from bastide.services.apigateway.method import ENDPOINT, LAMBDA, mocked
from bastide.services.apigateway.noun import GATEWAY, execute_arn

if TYPE_CHECKING:
    from bastide.services.apigateway.calling import Matched

_SECRET: Final = frozenset({"authorization", "x-amz-security-token"})
"""What signs a call is the caller's, and not for what stands behind; what somebody else brings is for that."""
_HEADERS: Final = {
    "content-type": "ContentType",
    "accept": "Accept",
    "x-amzn-sagemaker-custom-attributes": "CustomAttributes",
    "x-amzn-sagemaker-target-model": "TargetModel",
    "x-amzn-sagemaker-target-variant": "TargetVariant",
    "x-amzn-sagemaker-target-container-hostname": "TargetContainerHostname",
    "x-amzn-sagemaker-inference-id": "InferenceId",
}
_TOLD: Final = {
    "content-type": "ContentType",
    "x-amzn-invoked-production-variant": "InvokedProductionVariant",
    "x-amzn-sagemaker-custom-attributes": "CustomAttributes",
}


class Unanswered(Exception):  # noqa: N818 - an answer, too
    """What stands behind did not answer as it should: what the caller is told instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def error(status: int, message: str) -> Output:
    """An answer of API Gateway's own."""
    body = orjson.dumps({"message": message})
    return {"StatusCode": status, "Headers": [["content-type", "application/json"]], "Body": body}


async def ask(a: Authorised, found: Matched, about: Mapping[str, str]) -> Output:
    """Asks what stands behind a method; raises Unanswered."""
    integration = found.method["methodIntegration"]
    if integration["type"] == "AWS_PROXY":
        return await _function(a, found, integration, about)
    if integration["type"] == "MOCK":
        return _mock(a, found.method, integration)
    return await _endpoint(a, found, integration)


async def _who(a: Authorised, found: Matched, integration: Mapping[str, Any]) -> Caller:
    """The integration's role, or API Gateway itself, for the method."""
    api, stage = found.api, found.stage.name.partition("/")[2]
    arn = execute_arn(api, f"{stage}/{found.method['httpMethod'].replace('ANY', '*')}{found.resource['path']}")
    role = integration.get("credentials")
    if not role:
        return service_caller(GATEWAY, api.account, arn)
    return await a.calls.assume(
        GATEWAY, role, "BackplaneAssumeRoleSession", account=api.account, region=api.region, source_arn=arn
    )


# -- functions ---------------------------------------------------------------------------------------------------------


def _many(pairs: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def event_of(a: Authorised, found: Matched, about: Mapping[str, str]) -> dict[str, Any]:
    """A call as functions get it; raises Unanswered."""
    given = a.input
    hidden = _SECRET if a.caller.kind != "Anonymous" else ()
    headers = [pair for pair in given["Headers"] if pair[0] not in hidden]
    queries, body = _many(given["Query"]), bytes(given.get("Body") or b"")
    binary = _is_binary(
        found.api.doc["binaryMediaTypes"], next((one[1] for one in headers if one[0] == "content-type"), "")
    )
    try:
        text = base64.b64encode(body).decode() if binary else body.decode()
    except UnicodeDecodeError:
        raise Unanswered(400, "The body is not UTF-8, and its type is none of the API's binary media types.") from None
    identity = {name.partition(".")[2]: value or None for name, value in about.items() if name.startswith("identity.")}
    context: dict[str, Any] = {name: value for name, value in about.items() if "." not in name}
    context |= {"identity": identity, "requestTimeEpoch": int(about["requestTimeEpoch"])}
    if a.staged.get("authorizer") is not None:
        context["authorizer"] = a.staged["authorizer"]
    return {
            "resource": found.resource["path"], "path": given["Path"], "httpMethod": given["Method"],
            "headers": {one[0]: one[1] for one in headers} or None, "multiValueHeaders": _many(headers) or None,
            "queryStringParameters": {name: values[-1] for name, values in queries.items()} or None,
            "multiValueQueryStringParameters": queries or None, "pathParameters": dict(found.variables) or None,
            "stageVariables": found.stage.doc.get("variables") or None, "requestContext": context,
            "body": (text or None), "isBase64Encoded": binary and bool(body),
        }  # fmt: skip


def _is_binary(types: Sequence[str], given: str) -> bool:
    kind = given.partition(";")[0].strip().lower()
    return any(one == "*/*" or one.lower() == kind for one in types)


async def _function(a: Authorised, found: Matched, integration: Mapping[str, Any], about: Mapping[str, str]) -> Output:
    match = LAMBDA.fullmatch(integration["uri"])
    assert match is not None, "it was checked when it was put there"
    asked = {
        "FunctionName": match[2],
        "InvocationType": "RequestResponse",
        "Payload": orjson.dumps(event_of(a, found, about)),
    }
    try:
        caller = await _who(a, found, integration)
        answer = await a.calls.act(caller, "lambda", "Invoke", asked, region=found.api.region, source=GATEWAY)
    except Refused as refused:
        raise Unanswered(429 if refused.status == 429 else 500, "Internal server error") from refused
    if answer.get("FunctionError"):
        raise Unanswered(502, "Internal server error")
    try:
        return _answered(orjson.loads(answer["Payload"]))
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        raise Unanswered(502, "Internal server error") from None  # malformed, as AWS words it


def _answered(told: Any) -> Output:
    """What a function answered, as it is to be sent; raises ValueError, TypeError, KeyError and
    AttributeError for what is no answer."""
    if not isinstance(told, dict) or set(told) - {
        "statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded", "cookies",
    }:  # fmt: skip
        raise ValueError("no answer")
    status = int(told.get("statusCode", 200))
    if not 200 <= status <= 599:
        raise ValueError("no status")
    headers: list[list[str]] = []
    many = dict(told.get("multiValueHeaders") or {})
    for name, value in (told.get("headers") or {}).items():
        if name not in many:
            headers.append([str(name), _plain(value)])
    headers += [[str(name), _plain(value)] for name, values in many.items() for value in values]
    body = told.get("body")
    if body is not None and not isinstance(body, str):
        raise ValueError("no body")
    data = base64.b64decode(body or "", validate=True) if told.get("isBase64Encoded") else (body or "").encode()
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(["content-type", "application/json"])
    return {"StatusCode": status, "Headers": headers, "Body": data}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise ValueError("no header")
    text = str(value)
    if "\r" in text or "\n" in text:
        raise ValueError("a header has one line")
    return text


# -- endpoints ---------------------------------------------------------------------------------------------------------


def _source(a: Authorised, found: Matched, source: str) -> str | None:
    """What a request parameter is filled from."""
    if source[0] == "'":
        return source[1:-1]
    _, _, place, name = source.split(".", 3)
    if place == "path":
        return found.variables.get(name)
    pairs = a.input["Headers"] if place == "header" else a.input["Query"]
    wanted = name.lower() if place == "header" else name
    return next((value for key, value in pairs if key == wanted), None)


def _asked(a: Authorised, found: Matched, integration: Mapping[str, Any]) -> dict[str, Any]:
    match = ENDPOINT.fullmatch(integration["uri"])
    assert match is not None, "it was checked when it was put there"
    name, headers = unquote(match[2]), {}
    content = next((value for key, value in a.input["Headers"] if key == "content-type"), None)
    if content:
        headers["content-type"] = content
    for target, source in integration["requestParameters"].items():
        value = _source(a, found, source)
        place, _, what = target.removeprefix("integration.request.").partition(".")
        if value is None:
            continue
        if place == "path":
            name = name.replace(f"{{{what}}}", value)
        else:
            headers[what.lower()] = value
    known = {_HEADERS[key]: value for key, value in headers.items() if key in _HEADERS}
    return {"EndpointName": name, "Body": bytes(a.input.get("Body") or b""), **known}


async def _endpoint(a: Authorised, found: Matched, integration: Mapping[str, Any]) -> Output:
    try:
        caller = await _who(a, found, integration)
    except Refused as refused:
        raise Unanswered(500, "Internal server error") from refused
    status, told, body = 200, {}, b""
    try:
        answer = await a.calls.act(
            caller, "sagemaker-runtime", "InvokeEndpoint", _asked(a, found, integration), region=found.api.region,
            source=GATEWAY,
        )  # fmt: skip
        told = {header: str(answer[member]) for header, member in _TOLD.items() if answer.get(member)}
        body = await _whole(answer.get("Body"))
    except Refused as refused:
        status, body = refused.status, orjson.dumps({"message": refused.message})
        told = {"content-type": "application/json"}
    return _mapped(integration, found.method, status, told, body)


async def _whole(body: Any) -> bytes:
    if body is None or isinstance(body, bytes | bytearray):
        return bytes(body or b"")
    return b"".join([piece async for piece in body])


def _mapped(
    integration: Mapping[str, Any], method: Mapping[str, Any], status: int, told: Mapping[str, str], body: bytes
) -> Output:
    """An endpoint's answer as the integration's responses have it; raises Unanswered where none is for it."""
    responses = list(integration["integrationResponses"].values())
    chosen = next((one for one in responses if _selects(one, status)), None) or next(
        (one for one in responses if not one.get("selectionPattern")), None
    )
    if chosen is None:
        raise Unanswered(500, "Internal server error")
    headers = [["content-type", told.get("content-type") or "application/json"]]
    for target, source in chosen["responseParameters"].items():
        name = target.removeprefix("method.response.header.")
        value = source[1:-1] if source[0] == "'" else told.get(source.rpartition(".")[2].lower())
        if value is not None:
            headers = [one for one in headers if one[0] != name.lower()] + [[name.lower(), value]]
    return {"StatusCode": int(chosen["statusCode"]), "Headers": headers, "Body": body}


def _mock(a: Authorised, method: Mapping[str, Any], integration: Mapping[str, Any]) -> Output:
    """What is said without asking anybody; raises Unanswered where nothing is."""
    given = next((one[1] for one in a.input["Headers"] if one[0] == "content-type"), "application/json")
    templates = integration["requestTemplates"]
    text = templates.get(given.partition(";")[0].strip().lower(), templates.get("application/json"))
    status = mocked(text) if text is not None else None
    if status is None:
        raise Unanswered(500, "Internal server error")
    responses = list(integration["integrationResponses"].values())
    usual = [one for one in responses if not one.get("selectionPattern")]
    told: Mapping[str, Any] = next((one for one in [*responses, *usual] if _selects(one, status) or one in usual), {})
    kinds = told.get("responseTemplates") or {}
    kind, body = next(iter(kinds.items())) if kinds else ("application/json", "")
    return _mapped(integration, method, status, {"content-type": kind}, body.encode())


def _selects(response: Mapping[str, Any], status: int) -> bool:
    pattern = response.get("selectionPattern")
    held = strangers(pattern) if pattern else None
    return held is not None and held(str(status))
