"""Gateway responses: how an API words what API Gateway itself refuses or cannot have answered.

Source: API Gateway Developer Guide, "Gateway responses for REST APIs", "Gateway response types"; Amazon API Gateway REST
API reference, "PutGatewayResponse".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.kernel import Authorised, Output
from bastide.services.apigateway.noun import GATEWAY_RESPONSE, REST_API, absent, api, ask, bad, paged, parts, patched
from bastide.store import Row, Transaction, View

STATUSES: Final[Mapping[str, str]] = {
    "ACCESS_DENIED": "403", "API_CONFIGURATION_ERROR": "500", "AUTHORIZER_CONFIGURATION_ERROR": "500",
    "AUTHORIZER_FAILURE": "500", "BAD_REQUEST_BODY": "400", "BAD_REQUEST_PARAMETERS": "400", "DEFAULT_4XX": "",
    "DEFAULT_5XX": "", "INTEGRATION_FAILURE": "504", "INTEGRATION_TIMEOUT": "504", "MISSING_AUTHENTICATION_TOKEN": "403",
    "REQUEST_TOO_LARGE": "413", "THROTTLED": "429", "UNAUTHORIZED": "401",
}  # fmt: skip
"""Types, and the status of each if nothing else is said."""
_ELSEWHERE: Final = {
    "EXPIRED_TOKEN": "a signature is refused before it is known which API is called",
    "INVALID_SIGNATURE": "a signature is refused before it is known which API is called",
    "INVALID_API_KEY": "there are no API keys", "QUOTA_EXCEEDED": "there are no usage plans",
    "RESOURCE_NOT_FOUND": "what is not there is a MISSING_AUTHENTICATION_TOKEN",
    "UNSUPPORTED_MEDIA_TYPE": "no media type is refused", "WAF_FILTERED": "there is no web application firewall",
}  # fmt: skip
_PLAIN: Final = {"application/json": '{"message":$context.error.messageString}'}
_HEADER: Final = re.compile(r"gatewayresponse\.header\.[A-Za-z0-9-]{1,128}")
_WORD: Final = re.compile(r"\$context\.([A-Za-z.]*[A-Za-z])")
_KNOWN: Final = frozenset(
    {"error.message", "error.messageString", "error.responseType", "requestId", "apiId", "stage", "httpMethod"}
)
_MOST: Final = 100_000


def response_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A gateway response as it is kept; raises BadRequestException."""
    type, status = str(given["responseType"]), given.get("statusCode")
    if type in _ELSEWHERE:
        raise bad(f"The gateway response {type} is not supported by Bastide: {_ELSEWHERE[type]}.")
    if type not in STATUSES:
        raise bad(f"Invalid gateway response type: {type[:64]}.")
    if status and not re.fullmatch(r"[1-5]\d\d", str(status)):
        raise bad("statusCode is a status code.")
    parameters, templates = dict(given.get("responseParameters") or {}), dict(given.get("responseTemplates") or {})
    for name, value in parameters.items():
        if not _HEADER.fullmatch(name) or not re.fullmatch(r"'[^'\r\n]*'", value):
            raise bad("responseParameters are gatewayresponse.header.NAME, and 'a text' each in Bastide.")
    for text in templates.values():
        unknown = [one for one in _WORD.findall(text) if one not in _KNOWN]
        if unknown or "#" in text or "$" in _WORD.sub("", text) or len(text) > _MOST:
            raise bad(
                f"responseTemplates: a text, in which of variables only $context.{' .'.join(sorted(_KNOWN))} stand."
            )
    return {"statusCode": str(status or ""), "responseParameters": parameters, "responseTemplates": templates}


def worded(
    answers: Mapping[str, Mapping[str, Any]], type: str, status: int, message: str, **about: str
) -> Output | None:
    """An error as an API words it; None where it does not. ``$context.requestId`` stands where nobody gave it.
    answers: by type, as a deployment has them."""
    usual = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
    held = answers.get(type) or answers.get(usual)
    if held is None:
        return None
    templates = held["responseTemplates"] or _PLAIN
    kind = "application/json" if "application/json" in templates else next(iter(templates))
    values = {
        **about, "error.message": message, "error.messageString": orjson.dumps(message).decode(),
        "error.responseType": type,
    }  # fmt: skip
    text = _WORD.sub(lambda found: values.get(found[1], found[0] if found[1] == "requestId" else ""), templates[kind])
    headers = [["content-type", kind]]
    headers += [[name.rpartition(".")[2], value[1:-1]] for name, value in held["responseParameters"].items()]
    return {"StatusCode": int(held["statusCode"] or status), "Headers": headers, "Body": text.encode()}


# -- operations ----------------------------------------------------------------------------------------------------------


def _shown(type: str, doc: Mapping[str, Any] | None) -> Output:
    held = doc or {"statusCode": "", "responseParameters": {}, "responseTemplates": _PLAIN}
    told: Output = {
        "responseType": type, "responseParameters": held["responseParameters"],
        "responseTemplates": held["responseTemplates"], "defaultResponse": doc is None,
    }  # fmt: skip
    status = held["statusCode"] or STATUSES[type]
    return {**told, **({"statusCode": status} if status else {})}


_ONE: Final = "/restapis/{restApiId}/gatewayresponses/{responseType}"


def _row(a: Authorised, view: View) -> Row | None:
    if a.input["responseType"] not in STATUSES:
        raise absent("Gateway response")
    return view.get(GATEWAY_RESPONSE, a.account, a.region, f"{api(a, view).name}/{a.input['responseType']}")


def _put(a: Authorised, tx: Transaction, doc: dict[str, Any]) -> Output:
    type, row = str(a.input["responseType"]), _row(a, tx)
    if row is None:
        made = Row(GATEWAY_RESPONSE, a.account, a.region, f"{api(a, tx).name}/{type}", doc)
        tx.insert(made, event=a.operation.name, request_id=a.request.id)
    else:
        row.doc = doc
        tx.update(row, event=a.operation.name, request_id=a.request.id)
    return _shown(type, doc)


@REST_API.operation("PutGatewayResponse", asks=ask("PUT", _ONE))
def put(a: Authorised, tx: Transaction) -> Output:
    return _put(a, tx, response_of(a.input))


@REST_API.operation("UpdateGatewayResponse", asks=ask("PATCH", _ONE))
def update(a: Authorised, tx: Transaction) -> Output:
    row, type = _row(a, tx), str(a.input["responseType"])
    doc: dict[str, Any] = {
        **(row.doc if row is not None else response_of({"responseType": type})),
        "responseType": type,
    }

    def status(_: str, value: str | None) -> None:
        doc["statusCode"] = value

    def member(name: str) -> Any:
        def change(key: str, value: str | None) -> None:
            held = dict(doc[name])
            key = key.replace("~1", "/").replace("~0", "~")
            held.pop(key, None)
            doc[name] = held if value is None else {**held, key: value}

        return change

    names = ("responseParameters", "responseTemplates")
    patched(a, {"/statusCode": status, **{f"/{name}/": member(name) for name in names}})
    return _put(a, tx, response_of(doc))


@REST_API.reads("GetGatewayResponse", asks=ask("GET", _ONE))
def get(a: Authorised, view: View) -> Output:
    row = _row(a, view)
    return _shown(str(a.input["responseType"]), row.doc if row is not None else None)


@REST_API.reads("GetGatewayResponses", asks=ask("GET", "/restapis/{restApiId}/gatewayresponses"))
def listed(a: Authorised, view: View) -> Output:
    held = {row.name.partition("/")[2]: row.doc for row in parts(view, api(a, view), GATEWAY_RESPONSE)}
    return paged(a, [(type, _shown(type, held.get(type))) for type in STATUSES])


@REST_API.operation("DeleteGatewayResponse", asks=ask("DELETE", _ONE))
def delete(a: Authorised, tx: Transaction) -> Output:
    row = _row(a, tx)
    if row is None:
        raise absent("Gateway response")
    tx.delete(row, event=a.operation.name, request_id=a.request.id)
    return {}
