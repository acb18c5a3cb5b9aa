"""APIs from OpenAPI documents: made, merged into one that stands, or put in its place.

Source: Amazon API Gateway REST API reference, "ImportRestApi", "PutRestApi".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.apigateway.authorizer import MOST as MOST_AUTHORIZERS
from bastide.services.apigateway.authorizer import authorizer_of
from bastide.services.apigateway.method import (
    integration_of,
    integration_response_of,
    method_of,
    response_of,
)
from bastide.services.apigateway.model import model_of, validator_of
from bastide.services.apigateway.noun import (
    AUTHORIZER,
    GATEWAY,
    MODEL,
    MOST,
    RESOURCE,
    REST_API,
    VALIDATOR,
    api,
    ask,
    bad,
    new,
    parts,
)
from bastide.services.apigateway.openapi import MODELS, Plan, plan
from bastide.services.apigateway.rest_api import checked_policy, child, endpoint_of, made, shown
from bastide.store import Row, Transaction

Doc = dict[str, Any]
_QUERY: Final = ("mode", "failonwarnings")
"""Members of their own that stand among the parameters, all of which are the address's."""


class _Body:
    """A document, compared by what is in it: it is read once, and asked about several times."""

    def __init__(self, body: bytes, parameters: Mapping[str, str]) -> None:
        self.body, self.parameters = body, dict(parameters)
        self._key = (hashlib.sha256(body).digest(), tuple(sorted(self.parameters.items())))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Body) and self._key == other._key


@lru_cache(maxsize=8)
def _read(given: _Body) -> Plan:
    return plan(given.body, given.parameters)


def _plan(input: Mapping[str, Any]) -> Plan:
    """What a call's document says; raises BadRequestException. Nobody changes it."""
    given = {name: one for name, one in (input.get("parameters") or {}).items() if name not in _QUERY}
    return _read(_Body(bytes(input.get("body") or b""), given))


def _roles(asked: Asked) -> Iterable[str]:
    try:
        return _read(_Body(bytes(asked.input.get("body") or b""), {})).roles()
    except Refused:
        return ()  # the handler says what is wrong with it


_PASS_ROLES: Final = Ask("iam:PassRole", _roles, given={"iam:PassedToService": lambda _: GATEWAY})


def _warned(a: Authorised, found: Plan) -> None:
    if found.warnings and a.input.get("failOnWarnings"):
        raise bad("Warnings found during import: " + " ".join(found.warnings)[:1500])


@REST_API.operation("ImportRestApi", asks=[*ask("POST", "/restapis"), _PASS_ROLES])
def import_(a: Authorised, tx: Transaction) -> Output:
    found = _plan(a.input)
    _warned(a, found)
    row = made(a, tx, {"name": found.name}, {})
    _apply(a, tx, row, found, overwrite=True)
    return {**shown(row), **({"warnings": list(found.warnings)} if found.warnings else {})}


@REST_API.operation("PutRestApi", asks=[*ask("PUT", "/restapis/{restApiId}"), _PASS_ROLES])
def put(a: Authorised, tx: Transaction) -> Output:
    row, found = api(a, tx), _plan(a.input)
    _warned(a, found)
    _apply(a, tx, row, found, overwrite=a.input.get("mode") == "overwrite")
    return {**shown(row), **({"warnings": list(found.warnings)} if found.warnings else {})}


# -- the plan, carried out -----------------------------------------------------------------------------------------------


def _apply(a: Authorised, tx: Transaction, row: Row, found: Plan, *, overwrite: bool) -> None:
    """Makes an API what a plan says, beside what it has or in place of it; raises Refused."""
    doc = row.doc
    if overwrite:
        doc |= {"name": found.name, "description": found.description or None, "version": found.version or None}
        doc["binaryMediaTypes"] = found.binary
    elif found.binary:
        doc["binaryMediaTypes"] = list(dict.fromkeys([*doc["binaryMediaTypes"], *found.binary]))
    if found.endpoint:
        doc["endpoint"] = endpoint_of(found.endpoint)
    if found.policy:  # who may call stays as it is, unless the document says otherwise
        checked_policy(row, tx, found.policy)
    _resources(a, tx, row, found, overwrite, _parts(a, tx, row, found, overwrite))
    REST_API.change(tx, row, a.operation.name, a.request.id)


def _parts(a: Authorised, tx: Transaction, row: Row, found: Plan, overwrite: bool) -> dict[str, dict[str, str]]:
    """Models, validators and authorizers; the ids of the latter two by their names."""
    if found.answers:
        raise bad(
            "x-amazon-apigateway-gateway-responses is not supported by Bastide yet: its own errors are as they are."
        )
    ids: dict[str, dict[str, str]] = {}
    for kind, wanted, read in (
        (MODEL, found.models, model_of),
        (VALIDATOR, found.validators, validator_of),
        (AUTHORIZER, found.authorizers, lambda one: authorizer_of(one, a.region)),
    ):
        held = {one.doc.get("name") or one.name.partition("/")[2]: one for one in parts(tx, row, kind)}
        if overwrite:
            for name in [one for one in held if one not in wanted]:
                tx.delete(held.pop(name), event=a.operation.name, request_id=a.request.id)
        if len({*held, *wanted}) > (MOST if kind != AUTHORIZER else MOST_AUTHORIZERS):
            raise bad("The document has more models, validators or authorizers than an API may have.")
        for name, given in wanted.items():
            doc = read({**given, **({"schema": _own(row, given["schema"])} if kind == MODEL else {})})
            there = held.get(name)
            if there is not None:
                there.doc = doc
                tx.update(there, event=a.operation.name, request_id=a.request.id)
                continue
            id = name if kind == MODEL else new(6)
            held[name] = Row(kind, a.account, a.region, f"{row.name}/{id}", doc)
            tx.insert(held[name], event=a.operation.name, request_id=a.request.id)
        ids[kind] = {name: one.name.partition("/")[2] for name, one in held.items()}
    return ids


def _own(row: Row, schema: str) -> str:
    """A schema whose references lead to the API's own models."""
    return schema.replace(f"{MODELS}/", f"https://apigateway.amazonaws.com/restapis/{row.name}/models/")


def _method(a: Authorised, given: Doc, ids: Mapping[str, Mapping[str, str]]) -> Doc:
    """A method of a plan as an API keeps it. ids: of validators and authorizers, by name."""
    given = dict(given)
    if given.get("validator"):
        given["requestValidatorId"] = ids[VALIDATOR][given["validator"]]
    if given.get("authorizer"):
        given["authorizerId"], given["authorizationScopes"] = ids[AUTHORIZER][given["authorizer"]], given["scopes"]
    held = method_of(given)
    for one in given["responses"]:
        held["methodResponses"][one["statusCode"]] = response_of(one)
    behind = given["integration"]
    held["methodIntegration"] = integration_of(behind, a.region)
    if behind["type"] != "AWS_PROXY":  # a function answers as it is
        for one in behind["answers"]:
            held["methodResponses"].setdefault(
                one["statusCode"], response_of({"statusCode": one["statusCode"], "responseParameters": {}})
            )
            answer = integration_response_of(one, held, held["methodIntegration"])
            held["methodIntegration"]["integrationResponses"][answer["statusCode"]] = answer
    return held


def _resources(
    a: Authorised, tx: Transaction, row: Row, found: Plan, overwrite: bool, ids: Mapping[str, Mapping[str, str]]
) -> None:
    rows = {one.doc["path"]: one for one in tx.scan(RESOURCE, a.account, a.region, prefix=f"{row.name}/", limit=MOST)}
    if overwrite:
        wanted = {"/"}
        for path in found.paths:
            parts = path.strip("/").split("/")
            wanted |= {"/" + "/".join(parts[:number]) for number in range(1, len(parts) + 1)}
        for path in [one for one in rows if one not in wanted]:
            tx.delete(rows.pop(path), event=a.operation.name, request_id=a.request.id)
        for one in rows.values():
            one.doc["methods"] = {}
    for path, methods in found.paths.items():
        here = rows["/"]
        for part in [one for one in path.split("/") if one]:
            below = f"{here.doc['path'].rstrip('/')}/{part}"
            if below not in rows:
                rows[below] = child(a, tx, row, here, part, list(rows.values()))
            here = rows[below]
        for verb, given in methods.items():
            try:
                here.doc["methods"][verb] = _method(a, given, ids)
            except Refused as refused:
                raise Refused(refused.code, f"{verb} {path}: {refused.message}", refused.status) from None
    for one in rows.values():
        tx.update(one, event=a.operation.name, request_id=a.request.id)
