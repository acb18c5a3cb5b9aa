"""Deployments and stages: what of an API can be called, and under which name.

Source: Amazon API Gateway REST API reference, "CreateDeployment", "CreateStage".
"""

from __future__ import annotations

import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Authorised, Output
from bastide.services.apigateway.access_log import checked
from bastide.services.apigateway.noun import (
    AUTHORIZER,
    DEPLOYMENT,
    MODEL,
    MOST,
    RESOURCE,
    REST_API,
    STAGE,
    VALIDATOR,
    absent,
    api,
    ask,
    bad,
    new,
    paged,
    parts,
    patched,
    unsupported,
)
from bastide.services.apigateway.rest_api import log_role, tags_given
from bastide.store import Row, Transaction, View

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._~:/?#&=,-]*")
_MOST_STAGES: Final = 10
_CACHES: Final = ("cacheClusterEnabled", "cacheClusterSize", "canarySettings", "tracingEnabled", "documentationVersion")


def _variables(given: dict[str, str] | None) -> dict[str, str]:
    found = dict(given or {})
    for key, value in found.items():
        if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", key) or not _VALUE.fullmatch(value):
            raise bad(f"Stage variable {key[:64]} has a name or value that is not allowed.")
    return found


# -- deployments -------------------------------------------------------------------------------------------------------


def _shown(row: Row, *, summary: bool = True) -> Output:
    told: Output = {"id": row.name.partition("/")[2], "createdDate": row.created}
    if row.doc.get("description"):
        told["description"] = row.doc["description"]
    if summary:
        told["apiSummary"] = {
            one["path"]: {
                name: {"authorizationType": method["authorizationType"], "apiKeyRequired": False}
                for name, method in one["methods"].items()
            }
            for one in row.doc["resources"]
            if one["methods"]
        }
    return told


@REST_API.operation("CreateDeployment", asks=ask("POST", "/restapis/{restApiId}/deployments"))
def create(a: Authorised, tx: Transaction) -> Output:
    row, given = api(a, tx), a.input
    unsupported(given, *_CACHES[:4])
    rows = tx.scan(RESOURCE, a.account, a.region, prefix=f"{row.name}/", limit=MOST)
    resources = [{"id": one.name.partition("/")[2], **one.doc} for one in rows]
    methods = [method for one in resources for method in one["methods"].values()]
    if not methods:
        raise bad("The REST API doesn't contain any methods")
    if not all("methodIntegration" in one for one in methods):
        raise bad("No integration defined for method")
    doc = {
        "description": given.get("description"), "resources": resources,
        "models": {one.name.partition("/")[2]: one.doc["schema"] for one in parts(tx, row, MODEL)},
        "validators": {one.name.partition("/")[2]: one.doc for one in parts(tx, row, VALIDATOR)},
        "authorizers": {one.name.partition("/")[2]: one.doc for one in parts(tx, row, AUTHORIZER)},
    }  # fmt: skip
    made = Row(DEPLOYMENT, a.account, a.region, f"{row.name}/{new(6)}", doc)
    tx.insert(made, event=a.operation.name, request_id=a.request.id)
    made.created = tx.now
    if given.get("stageName"):
        held = tx.get(STAGE, a.account, a.region, f"{row.name}/{given['stageName']}")
        if held is None:
            variables = _variables(given.get("variables"))
            _stage(a, tx, row, given["stageName"], made, given.get("stageDescription"), variables)
        else:
            held.doc["deploymentId"] = made.name.partition("/")[2]
            tx.update(held, event=a.operation.name, request_id=a.request.id)
    return _shown(made, summary=False)


def _deployment(a: Authorised, view: View, id: str) -> Row:
    found = view.get(DEPLOYMENT, a.account, a.region, f"{api(a, view).name}/{id}")
    if found is None:
        raise absent("Deployment")
    return found


@REST_API.reads("GetDeployment", asks=ask("GET", "/restapis/{restApiId}/deployments/{deploymentId}"))
def get(a: Authorised, view: View) -> Output:
    return _shown(_deployment(a, view, a.input["deploymentId"]), summary="apisummary" in (a.input.get("embed") or ()))


@REST_API.reads("GetDeployments", asks=ask("GET", "/restapis/{restApiId}/deployments"))
def listed(a: Authorised, view: View) -> Output:
    rows = view.scan(DEPLOYMENT, a.account, a.region, prefix=f"{api(a, view).name}/", limit=1000)
    return paged(a, [(row.name, _shown(row, summary=False)) for row in rows])


def _stages(a: Authorised, view: View, row: Row) -> list[Row]:
    return view.scan(STAGE, a.account, a.region, prefix=f"{row.name}/", limit=_MOST_STAGES)


@REST_API.operation("DeleteDeployment", asks=ask("DELETE", "/restapis/{restApiId}/deployments/{deploymentId}"))
def delete(a: Authorised, tx: Transaction) -> Output:
    found = _deployment(a, tx, a.input["deploymentId"])
    if any(one.doc["deploymentId"] == a.input["deploymentId"] for one in _stages(a, tx, api(a, tx))):
        raise bad("Active stages pointing to this deployment must be moved or deleted")
    tx.delete(found, event=a.operation.name, request_id=a.request.id)
    return {}


# -- stages ------------------------------------------------------------------------------------------------------------


def shown(row: Row) -> Output:
    """A stage."""
    doc = row.doc
    told = {name: doc[name] for name in ("description", "variables", "accessLogSettings") if doc.get(name)}
    return {
        **told, "deploymentId": doc["deploymentId"], "stageName": row.name.partition("/")[2],
        "tags": dict(row.tags), "cacheClusterEnabled": False, "cacheClusterStatus": "NOT_AVAILABLE",
        "tracingEnabled": False,
        "createdDate": row.created, "lastUpdatedDate": row.modified,
    }  # fmt: skip


def _stage(
    a: Authorised,
    tx: Transaction,
    row: Row,
    name: str,
    deployment: Row,
    description: Any,
    variables: dict[str, str],
    tags: dict[str, str] | None = None,
) -> Row:
    if not _NAME.fullmatch(name):
        raise bad("Stage name only allows a-zA-Z0-9_-.")
    if tx.get(STAGE, a.account, a.region, f"{row.name}/{name}") is not None:
        raise Refused("ConflictException", "Stage already exists", 409)
    if len(_stages(a, tx, row)) == _MOST_STAGES:
        raise Refused("LimitExceededException", f"An API has at most {_MOST_STAGES} stages.", 429)
    doc = {"deploymentId": deployment.name.partition("/")[2], "description": description, "variables": variables}
    made = Row(STAGE, a.account, a.region, f"{row.name}/{name}", doc, tags=tags or {})
    tx.insert(made, event=a.operation.name, request_id=a.request.id)
    made.created = made.modified = tx.now
    return made


@REST_API.operation("CreateStage", asks=ask("POST", "/restapis/{restApiId}/stages"))
def create_stage(a: Authorised, tx: Transaction) -> Output:
    given = a.input
    unsupported(given, *_CACHES)
    deployment = _deployment(a, tx, given["deploymentId"])
    variables = _variables(given.get("variables"))
    name, tags = given["stageName"], tags_given(a)
    return shown(_stage(a, tx, api(a, tx), name, deployment, given.get("description"), variables, tags))


def _named(a: Authorised, view: View) -> Row:
    found = view.get(STAGE, a.account, a.region, f"{api(a, view).name}/{a.input['stageName']}")
    if found is None:
        raise absent("stage")
    return found


_PATH: Final = "/restapis/{restApiId}/stages/{stageName}"


@REST_API.reads("GetStage", asks=ask("GET", _PATH))
def get_stage(a: Authorised, view: View) -> Output:
    return shown(_named(a, view))


@REST_API.reads("GetStages", asks=ask("GET", "/restapis/{restApiId}/stages"))
def list_stages(a: Authorised, view: View) -> Output:
    wanted = a.input.get("deploymentId")
    rows = _stages(a, view, api(a, view))
    return {"item": [shown(row) for row in rows if wanted in (None, row.doc["deploymentId"])]}


@REST_API.operation("UpdateStage", asks=ask("PATCH", _PATH))
def update_stage(a: Authorised, tx: Transaction) -> Output:
    row = _named(a, tx)
    log: dict[str, str] = dict(row.doc.get("accessLogSettings") or {})

    def deployment(_: str, value: str | None) -> None:
        _deployment(a, tx, value or "")
        row.doc["deploymentId"] = value

    def description(_: str, value: str | None) -> None:
        row.doc["description"] = value

    def variable(name: str, value: str | None) -> None:
        variables = dict(row.doc.get("variables") or {})
        variables.pop(name, None)
        row.doc["variables"] = variables if value is None else variables | _variables({name: value})

    def logged(name: str) -> Any:
        def change(_: str, value: str | None) -> None:
            log.pop(name, None)
            if value is not None:
                log[name] = value

        return change

    patched(
        a,
        {
            "/deploymentId": deployment, "/description": description, "/variables/": variable,
            "/accessLogSettings/destinationArn": logged("destinationArn"),
            "/accessLogSettings/format": logged("format"), "/accessLogSettings": lambda _, __: log.clear(),
        },
    )  # fmt: skip
    if log:
        checked(log, a.account, a.region)
        if not log_role(tx, a.account, a.region):
            raise bad("CloudWatch Logs role ARN must be set in account settings to enable logging")
    row.doc["accessLogSettings"] = log or None
    tx.update(row, event=a.operation.name, request_id=a.request.id)
    return shown(row)


@REST_API.operation("DeleteStage", asks=ask("DELETE", _PATH))
def delete_stage(a: Authorised, tx: Transaction) -> Output:
    tx.delete(_named(a, tx), event=a.operation.name, request_id=a.request.id)
    return {}
