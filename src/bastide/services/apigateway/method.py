"""Methods of resources and what stands behind them.

Behind a method stands a Lambda function (AWS_PROXY) or an endpoint of SageMaker (AWS, ``runtime.sagemaker``). Anything else
would reach nothing, and is refused. Source: Amazon API Gateway REST API reference, "PutMethod", "PutIntegration".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output, each, member
from bastide.protocol.patterns import strangers
from bastide.services.apigateway.noun import (
    AUTHORIZER,
    GATEWAY,
    MODEL,
    REST_API,
    VALIDATOR,
    absent,
    ask,
    bad,
    resource,
    unsupported,
)
from bastide.store import Row, Transaction, View

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "ANY")
LAMBDA: Final = re.compile(
    r"arn:aws:apigateway:([a-z0-9-]+):lambda:path/2015-03-31/functions/(arn:aws:lambda:[a-z0-9-]+:\d{12}:function:[^/]+)/invocations"
)
ENDPOINT: Final = re.compile(r"arn:aws:apigateway:([a-z0-9-]+):runtime\.sagemaker:path//?endpoints/([^/]+)/invocations")
_WHOLE: Final = ("$input.json('$')", '$input.json("$")', "$input.body")
"""Mapping templates that change nothing; there is no language for others here."""
_SOURCE: Final = re.compile(r"'[^']*'|method\.request\.(header|querystring|path)\.[A-Za-z0-9_.:-]+")
_PARAMETER: Final = re.compile(r"method\.request\.(header|querystring|path)\.[^\s.][^\s]{0,255}")
_TARGET: Final = re.compile(r"integration\.request\.(header|path)\.[A-Za-z0-9_.:-]+")
_ANSWER: Final = re.compile(r"'[^']*'|integration\.response\.header\.[A-Za-z0-9-]+")
_HEADER: Final = re.compile(r"method\.response\.header\.[A-Za-z0-9-]+")
_CODE: Final = re.compile(r"[1-5]\d\d")
_PATH: Final = "/restapis/{restApiId}/resources/{resourceId}/methods/{httpMethod}"
_LONGEST: Final = 29_000


def _method(a: Authorised, view: View) -> tuple[Row, dict[str, Any]]:
    row = resource(a, view)
    found = row.doc["methods"].get(a.input["httpMethod"])
    if found is None:
        raise absent("Method")
    return row, found


def _save(a: Authorised, tx: Transaction, row: Row) -> None:
    tx.update(row, event=a.operation.name, request_id=a.request.id)


# -- methods -----------------------------------------------------------------------------------------------------------


_REQUEST: Final = {
    "apigateway:Request/RouteAuthorizationType": each("authorizationType"),
    "apigateway:Request/ApiKeyRequired": each("apiKeyRequired"),
}


@REST_API.operation("PutMethod", asks=ask("PUT", _PATH, _REQUEST))
def put(a: Authorised, tx: Transaction) -> Output:
    row, found = resource(a, tx), method_of(a.input)
    _checked_parts(a, tx, found)
    row.doc["methods"][a.input["httpMethod"]] = found
    _save(a, tx, row)
    return found


def method_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A method as it is kept; raises BadRequestException."""
    if given["httpMethod"] not in METHODS:
        raise bad(f"httpMethod is one of {', '.join(METHODS)}.")
    if given["authorizationType"] not in ("NONE", "AWS_IAM", "CUSTOM"):
        raise bad("authorizationType is NONE, AWS_IAM or CUSTOM: there are no user pools in Bastide.")
    if (given["authorizationType"] == "CUSTOM") != bool(given.get("authorizerId")):
        raise bad(
            "Invalid authorizer ID specified. An authorizerId is for the authorizationType CUSTOM, which needs one."
        )
    unsupported(given, "apiKeyRequired", "authorizationScopes")
    found: dict[str, Any] = {
        "httpMethod": given["httpMethod"], "authorizationType": given["authorizationType"], "apiKeyRequired": False,
        "requestParameters": dict(given.get("requestParameters") or {}), "methodResponses": {},
    }  # fmt: skip
    if given.get("operationName"):
        found["operationName"] = given["operationName"]
    for name in ("authorizerId", "requestValidatorId", "requestModels"):
        if given.get(name):
            found[name] = dict(given[name]) if name == "requestModels" else given[name]
    parameters = found["requestParameters"]
    if any(not _PARAMETER.fullmatch(one) for one in parameters):
        raise bad(
            "requestParameters are method.request.header.NAME, .querystring.NAME or .path.NAME, and true or false."
        )
    return found


def _checked_parts(a: Authorised, view: View, method: Mapping[str, Any]) -> None:
    """Raises BadRequestException where what a method names is not there."""
    for kind, names, what in (
        (AUTHORIZER, [method.get("authorizerId")], "authorizer"),
        (VALIDATOR, [method.get("requestValidatorId")], "request validator"),
        (MODEL, list((method.get("requestModels") or {}).values()), "model"),
    ):
        for name in names:
            if name and view.get(kind, a.account, a.region, f"{a.input['restApiId']}/{name}") is None:
                raise bad(f"Invalid {what} identifier specified: {str(name)[:64]}")


@REST_API.reads("GetMethod", asks=ask("GET", _PATH))
def get(a: Authorised, view: View) -> Output:
    return _method(a, view)[1]


@REST_API.operation("DeleteMethod", asks=ask("DELETE", _PATH))
def delete(a: Authorised, tx: Transaction) -> Output:
    row, _ = _method(a, tx)
    del row.doc["methods"][a.input["httpMethod"]]
    _save(a, tx, row)
    return {}


@REST_API.operation("PutMethodResponse", asks=ask("PUT", _PATH + "/responses/{statusCode}"))
def put_response(a: Authorised, tx: Transaction) -> Output:
    row, method = _method(a, tx)
    found = response_of(a.input)
    method["methodResponses"][found["statusCode"]] = found
    _save(a, tx, row)
    return dict(found)


def response_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's response as it is kept; raises BadRequestException."""
    unsupported(given, "responseModels")
    code, parameters = given["statusCode"], dict(given.get("responseParameters") or {})
    if not _CODE.fullmatch(code) or not all(_HEADER.fullmatch(one) for one in parameters):
        raise bad("A method response has a status code, and responseParameters method.response.header.NAME.")
    return {"statusCode": code, "responseParameters": parameters}


def _response(held: Mapping[str, Any], code: str) -> dict[str, Any]:
    if code not in held:
        raise absent("Response status code")
    return dict(held[code])


@REST_API.reads("GetMethodResponse", asks=ask("GET", _PATH + "/responses/{statusCode}"))
def get_response(a: Authorised, view: View) -> Output:
    return _response(_method(a, view)[1]["methodResponses"], a.input["statusCode"])


@REST_API.operation("DeleteMethodResponse", asks=ask("DELETE", _PATH + "/responses/{statusCode}"))
def delete_response(a: Authorised, tx: Transaction) -> Output:
    row, method = _method(a, tx)
    _response(method["methodResponses"], a.input["statusCode"])
    del method["methodResponses"][a.input["statusCode"]]
    _save(a, tx, row)
    return {}


# -- what stands behind them -------------------------------------------------------------------------------------------


def _behind(given: Mapping[str, Any], region: str) -> None:
    """Raises BadRequestException for what would reach nothing."""
    type, uri = given["type"], str(given.get("uri") or "")
    if type == "MOCK":
        return
    found = {"AWS_PROXY": LAMBDA, "AWS": ENDPOINT}.get(type)
    if found is None:
        raise bad(f"Integrations of type {type} are not supported by Bastide: AWS_PROXY, AWS and MOCK are.")
    match = found.fullmatch(uri)
    if match is None or match[1] != region:
        wanted = (
            f"arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/FUNCTION-ARN/invocations"
            if type == "AWS_PROXY"
            else f"arn:aws:apigateway:{region}:runtime.sagemaker:path//endpoints/NAME/invocations"
        )
        raise bad(f"The uri of an integration of type {type} is {wanted} in Bastide.")
    if given.get("integrationHttpMethod") != "POST":
        raise bad("integrationHttpMethod is POST for Lambda functions and for endpoints of SageMaker.")
    if type == "AWS" and not given.get("credentials"):
        raise bad("An integration with SageMaker needs credentials: the ARN of a role.")
    if given.get("credentials") and not str(given["credentials"]).startswith("arn:aws:iam::"):
        raise bad("credentials is the ARN of a role.")


def _templates(given: Mapping[str, Any], name: str, *, mock: bool = False) -> dict[str, str]:
    """Mapping templates as they are kept. mock: texts that are told as they stand."""
    found = dict(given.get(name) or {})
    if mock:
        if any("$" in str(one) or "#" in str(one) for one in found.values()):
            raise bad(f"{name}: Bastide has no mapping language; of a mock a template is a text without $ and #.")
        return found
    if any(str(one).strip() not in ("", *_WHOLE) for one in found.values()):
        raise bad(f"{name}: Bastide has no mapping language; {_WHOLE[0]} and $input.body pass a body on as it is.")
    return found


PASS_ROLE: Final = Ask("iam:PassRole", member("credentials"), given={"iam:PassedToService": lambda _: GATEWAY})


@REST_API.operation("PutIntegration", asks=[*ask("PUT", _PATH + "/integration"), PASS_ROLE])
def put_integration(a: Authorised, tx: Transaction) -> Output:
    row, method = _method(a, tx)
    found = method["methodIntegration"] = integration_of(a.input, a.region)
    _save(a, tx, row)
    return found


def integration_of(given: Mapping[str, Any], region: str) -> dict[str, Any]:
    """What stands behind a method as it is kept; raises BadRequestException."""
    unsupported(
        given,
        "connectionId",
        "cacheNamespace",
        "cacheKeyParameters",
        "contentHandling",
        "tlsConfig",
        "integrationTarget",
    )
    if given.get("connectionType") not in (None, "INTERNET") or given.get("responseTransferMode") not in (
        None,
        "BUFFERED",
    ):
        raise bad("connectionType VPC_LINK and responseTransferMode STREAM are not supported by Bastide yet.")
    _behind(given, region)
    parameters = dict(given.get("requestParameters") or {})
    if parameters and given["type"] == "AWS_PROXY":
        raise bad("requestParameters: a function gets the whole request (AWS_PROXY).")
    for target, source in parameters.items():
        if not _TARGET.fullmatch(target) or not _SOURCE.fullmatch(source):
            raise bad(
                f"requestParameters: {target} is to be integration.request.header.NAME or .path.NAME, from 'a text' or "
                "method.request.header.NAME, .querystring.NAME or .path.NAME."
            )
    wait = given.get("timeoutInMillis") or _LONGEST
    if not 50 <= wait <= _LONGEST:
        raise bad("timeoutInMillis is 50 to 29000.")
    mock = given["type"] == "MOCK"
    found: dict[str, Any] = {
        "type": given["type"], "requestParameters": parameters,
        "requestTemplates": _templates(given, "requestTemplates", mock=mock), "timeoutInMillis": wait,
        "passthroughBehavior": given.get("passthroughBehavior") or "WHEN_NO_MATCH", "integrationResponses": {},
    }  # fmt: skip
    if not mock:
        return {**found, "httpMethod": "POST", "uri": given["uri"], **_lent(given)}
    if parameters or given.get("credentials"):
        raise bad("A mock has no requestParameters and no credentials: nothing is asked.")
    for text in found["requestTemplates"].values():
        if mocked(text) is None:
            raise bad('A mock\'s request template is {"statusCode": NUMBER}.')
    return found


def mocked(template: str) -> int | None:
    """The status that a mock's template says, None if it says none."""
    try:
        status = json.loads(template)["statusCode"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return status if isinstance(status, int) and 100 <= status <= 599 else None


def _lent(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"credentials": given["credentials"]} if given.get("credentials") else {}


def _integration(a: Authorised, view: View) -> tuple[Row, dict[str, Any], dict[str, Any]]:
    row, method = _method(a, view)
    if "methodIntegration" not in method:
        raise absent("Integration")
    return row, method, method["methodIntegration"]


@REST_API.reads("GetIntegration", asks=ask("GET", _PATH + "/integration"))
def get_integration(a: Authorised, view: View) -> Output:
    return _integration(a, view)[2]


@REST_API.operation("DeleteIntegration", asks=ask("DELETE", _PATH + "/integration"))
def delete_integration(a: Authorised, tx: Transaction) -> Output:
    row, method, _ = _integration(a, tx)
    del method["methodIntegration"]
    _save(a, tx, row)
    return {}


@REST_API.operation("PutIntegrationResponse", asks=ask("PUT", _PATH + "/integration/responses/{statusCode}"))
def put_integration_response(a: Authorised, tx: Transaction) -> Output:
    row, method, integration = _integration(a, tx)
    found = integration_response_of(a.input, method, integration)
    integration["integrationResponses"][found["statusCode"]] = found
    _save(a, tx, row)
    return found


def integration_response_of(
    given: Mapping[str, Any], method: Mapping[str, Any], integration: Mapping[str, Any]
) -> dict[str, Any]:
    """How an answer is told, as it is kept; raises BadRequestException."""
    unsupported(given, "contentHandling")
    if integration["type"] == "AWS_PROXY":
        raise bad("A function answers as it is (AWS_PROXY); there are no integration responses.")
    code, pattern = given["statusCode"], given.get("selectionPattern")
    declared = method["methodResponses"].get(code)
    if declared is None:
        raise bad(f"The method has no response {code}; PutMethodResponse makes it.")
    if pattern and (len(pattern) > 256 or strangers(pattern) is None):
        raise bad("selectionPattern is not a regular expression that can be checked.")
    parameters = dict(given.get("responseParameters") or {})
    for target, source in parameters.items():
        if target not in declared["responseParameters"] or not _ANSWER.fullmatch(source):
            raise bad(
                f"responseParameters: {target} is to be a header of the method's response, from 'a text' or "
                "integration.response.header.NAME."
            )
    return {
        "statusCode": code, "responseParameters": parameters,
        "responseTemplates": _templates(given, "responseTemplates", mock=integration["type"] == "MOCK"),
        **({"selectionPattern": pattern} if pattern else {}),
    }  # fmt: skip


@REST_API.reads("GetIntegrationResponse", asks=ask("GET", _PATH + "/integration/responses/{statusCode}"))
def get_integration_response(a: Authorised, view: View) -> Output:
    return _response(_integration(a, view)[2]["integrationResponses"], a.input["statusCode"])


@REST_API.operation("DeleteIntegrationResponse", asks=ask("DELETE", _PATH + "/integration/responses/{statusCode}"))
def delete_integration_response(a: Authorised, tx: Transaction) -> Output:
    row, _, integration = _integration(a, tx)
    _response(integration["integrationResponses"], a.input["statusCode"])
    del integration["integrationResponses"][a.input["statusCode"]]
    _save(a, tx, row)
    return {}
