"""Models and request validators: what a request is to have before anything behind a method is asked.

Source: Amazon API Gateway REST API reference, "CreateModel", "CreateRequestValidator"; Developer Guide, "Request validation
for REST APIs".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.apigateway import json_schema
from bastide.services.apigateway.noun import (
    MODEL,
    MOST,
    REST_API,
    VALIDATOR,
    api,
    ask,
    bad,
    new,
    paged,
    part,
    parts,
    patched,
)
from bastide.store import Row, Transaction, View

_NAME: Final = re.compile(r"[A-Za-z0-9]{1,128}")
_MOST_SCHEMA: Final = 400 * 1024
_DEEPEST: Final = 128


# -- models --------------------------------------------------------------------------------------------------------------


def model_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A model as it is kept; raises BadRequestException."""
    if not _NAME.fullmatch(given["name"]):
        raise bad("Model name must be alphanumeric.")
    return {
        "id": new(6), "description": given.get("description") or "", "schema": _schema(given.get("schema")),
        "contentType": given.get("contentType") or "application/json",
    }  # fmt: skip


def _schema(text: str | None) -> str:
    text = text or "{}"
    if len(text.encode()) > _MOST_SCHEMA:
        raise bad(f"A model has at most {_MOST_SCHEMA} bytes.")
    if re.sub(r'"(?:[^"\\]|\\.)*"', "", text).count("{") > 20_000:
        raise bad("Invalid model specified: it has too many parts.")
    try:
        found = orjson.loads(text)
        json_schema.check(found)
    except orjson.JSONDecodeError:
        raise bad("Invalid model specified: Model schema must be a valid JSON document") from None
    except (json_schema.Wrong, RecursionError) as wrong:
        raise bad(f"Invalid model specified: Validation Result: {str(wrong)[:200]}") from None
    return text


def model_shown(row: Row) -> Output:
    """A model."""
    told = {name: one for name, one in row.doc.items() if one}
    return {**told, "name": row.name.partition("/")[2]}


@REST_API.operation("CreateModel", asks=ask("POST", "/restapis/{restApiId}/models"))
def create(a: Authorised, tx: Transaction) -> Output:
    row, name = api(a, tx), str(a.input["name"])
    doc = model_of(a.input)
    if tx.get(MODEL, a.account, a.region, f"{row.name}/{name}") is not None:
        raise Refused("ConflictException", f"Model name already exists for this REST API: {name}", 409)
    if len(parts(tx, row, MODEL)) == MOST:
        raise Refused("LimitExceededException", f"An API has at most {MOST} models.", 429)
    made = Row(MODEL, a.account, a.region, f"{row.name}/{name}", doc)
    tx.insert(made, event=a.operation.name, request_id=a.request.id)
    return model_shown(made)


@REST_API.reads("GetModel", asks=ask("GET", "/restapis/{restApiId}/models/{modelName}"))
def get(a: Authorised, view: View) -> Output:
    if a.input.get("flatten"):
        raise bad("flatten is not supported by Bastide; please leave it out.")
    return model_shown(part(a, view, MODEL, "modelName", "Model"))


@REST_API.reads("GetModels", asks=ask("GET", "/restapis/{restApiId}/models"))
def listed(a: Authorised, view: View) -> Output:
    return paged(a, [(row.name, model_shown(row)) for row in parts(view, api(a, view), MODEL)])


@REST_API.operation("UpdateModel", asks=ask("PATCH", "/restapis/{restApiId}/models/{modelName}"))
def update(a: Authorised, tx: Transaction) -> Output:
    row = part(a, tx, MODEL, "modelName", "Model")

    def schema(_: str, value: str | None) -> None:
        row.doc["schema"] = _schema(value)

    def description(_: str, value: str | None) -> None:
        row.doc["description"] = value or ""

    patched(a, {"/schema": schema, "/description": description})
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return model_shown(row)


@REST_API.operation("DeleteModel", asks=ask("DELETE", "/restapis/{restApiId}/models/{modelName}"))
def delete(a: Authorised, tx: Transaction) -> Output:
    tx.delete(part(a, tx, MODEL, "modelName", "Model"), event=a.operation.name, request_id=a.request.id)
    return {}


# -- validators ----------------------------------------------------------------------------------------------------------

_CHECKS: Final = ("validateRequestBody", "validateRequestParameters")


def validator_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """A validator as it is kept."""
    return {"name": given.get("name") or "", **{name: bool(given.get(name)) for name in _CHECKS}}


def validator_shown(row: Row) -> Output:
    """A validator."""
    return {**row.doc, "id": row.name.partition("/")[2]}


@REST_API.operation("CreateRequestValidator", asks=ask("POST", "/restapis/{restApiId}/requestvalidators"))
def create_validator(a: Authorised, tx: Transaction) -> Output:
    row = api(a, tx)
    if len(parts(tx, row, VALIDATOR)) == MOST:
        raise Refused("LimitExceededException", f"An API has at most {MOST} request validators.", 429)
    made = Row(VALIDATOR, a.account, a.region, f"{row.name}/{new(6)}", validator_of(a.input))
    tx.insert(made, event=a.operation.name, request_id=a.request.id)
    return validator_shown(made)


_ONE: Final = "/restapis/{restApiId}/requestvalidators/{requestValidatorId}"
_WHAT: Final = ("requestValidatorId", "Request Validator")


@REST_API.reads("GetRequestValidator", asks=ask("GET", _ONE))
def get_validator(a: Authorised, view: View) -> Output:
    return validator_shown(part(a, view, VALIDATOR, *_WHAT))


@REST_API.reads("GetRequestValidators", asks=ask("GET", "/restapis/{restApiId}/requestvalidators"))
def list_validators(a: Authorised, view: View) -> Output:
    return paged(a, [(row.name, validator_shown(row)) for row in parts(view, api(a, view), VALIDATOR)])


@REST_API.operation("UpdateRequestValidator", asks=ask("PATCH", _ONE))
def update_validator(a: Authorised, tx: Transaction) -> Output:
    row = part(a, tx, VALIDATOR, *_WHAT)

    def put(name: str) -> Any:
        def change(_: str, value: str | None) -> None:
            row.doc[name] = value == "true" if name in _CHECKS else value or ""

        return change

    patched(a, {f"/{name}": put(name) for name in ("name", *_CHECKS)})
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return validator_shown(row)


@REST_API.operation("DeleteRequestValidator", asks=ask("DELETE", _ONE))
def delete_validator(a: Authorised, tx: Transaction) -> Output:
    tx.delete(part(a, tx, VALIDATOR, *_WHAT), event=a.operation.name, request_id=a.request.id)
    return {}


# -- requests ------------------------------------------------------------------------------------------------------------


def fault(method: Mapping[str, Any], deployment: Mapping[str, Any], given: Mapping[str, Any], path: Any) -> str:
    """What a request lacks that its method's validator asks for, empty if nothing. given: the call; path: the variables of
    its path, by name."""
    checks = (deployment.get("validators") or {}).get(method.get("requestValidatorId"))
    if checks is None:
        return ""
    if checks["validateRequestParameters"]:
        held = {
            "path": {name for name, value in path.items() if value}, "querystring": {one[0] for one in given["Query"]},
            "header": {one[0].lower() for one in given["Headers"] if one[1]},
        }  # fmt: skip
        missing = []
        for name, needed in method["requestParameters"].items():
            _, _, place, what = name.split(".", 3)
            if needed and (what.lower() if place == "header" else what) not in held[place]:
                missing.append(what)
        if missing:
            return f"Missing required request parameters: [{', '.join(sorted(missing))}]"
    if checks["validateRequestBody"] and not _body_fits(method.get("requestModels") or {}, deployment, given):
        return "Invalid request body"
    return ""


def _body_fits(wanted: Mapping[str, str], deployment: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    content = next((one[1] for one in given["Headers"] if one[0].lower() == "content-type"), "application/json")
    name = wanted.get(content.partition(";")[0].strip().lower())
    if name is None:
        return True
    schemas = {one: orjson.loads(text) for one, text in (deployment.get("models") or {}).items()}
    if name not in schemas:
        return False
    body = bytes(given.get("Body") or b"")
    if _deep(body):
        return False
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return json_schema.fits(value, schemas[name], schemas)


def _deep(body: bytes) -> bool:
    """Whether JSON is nested deeper than anybody's is."""
    depth = most = 0
    for found in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', body):
        piece = found[0]
        if piece in b"[{":
            depth += 1
            most = max(most, depth)
        elif piece in b"]}":
            depth -= 1
    return most > _DEEPEST
