"""Types of API Gateway."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.templates import text
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import calls_of

_SERVICE: Final = "apigateway"


def _refuse(r: Resource, *names: str) -> None:
    for name in names:
        if r.get(name):
            raise Refused("ValidationError", f"{name} is not supported yet; please leave it out.")


def _replace(path: str, value: Any) -> dict[str, str]:
    if value is None or value == "":
        return {"op": "remove", "path": path}
    return {"op": "replace", "path": path, "value": str(value)}


def _truth(value: Any) -> str:
    return "true" if value in (True, "true") else "false"


async def _retag(r: Resource, arn: str) -> None:
    before = {one["Key"] for one in r.old.get("Tags") or ()}
    after = {one["Key"]: one["Value"] for one in r.tags()}
    if before - set(after):
        await r.do("UntagResource", {"resourceArn": arn, "tagKeys": sorted(before - set(after))})
    if after:
        await r.do("TagResource", {"resourceArn": arn, "tags": after})


# -- APIs --------------------------------------------------------------------------------------------------------------

_IDLE: Final = ("CloneFrom", "MinimumCompressionSize")
_API: Final = (
    "Name", "Description", "Version", "BinaryMediaTypes", "EndpointConfiguration", "DisableExecuteApiEndpoint",
    "SecurityPolicy", "EndpointAccessMode",
)  # fmt: skip
_MOST_BODY: Final = 1 << 20


def _api_arn(r: Resource) -> str:
    return f"arn:aws:apigateway:{r.stack.region}::/restapis/{r.physical}"


async def _body(r: Resource) -> bytes:
    """The OpenAPI document, of the template or from S3; empty if there is none."""
    given, place = r.get("Body"), r.get("BodyS3Location")
    if given:
        return text(given).encode() if isinstance(given, str) else orjson.dumps(given)
    if not place:
        return b""
    asked = {"Bucket": place.get("Bucket"), "Key": place.get("Key")}
    if place.get("Version"):
        asked["VersionId"] = place["Version"]
    if place.get("ETag"):
        asked["IfMatch"] = place["ETag"]
    told = await r.read("GetObject", asked, service="s3")
    found = b""
    try:
        async for piece in told["Body"]:
            found += piece
            if len(found) > _MOST_BODY:
                raise Refused("ValidationError", f"BodyS3Location has more than {_MOST_BODY} bytes.")
    finally:
        await told["Body"].aclose()
    return found


async def _import(r: Resource, body: bytes, key: str) -> None:
    """Puts what a document says into the API, and what the template says of it over that."""
    mode = r.get("Mode") or "overwrite"
    asked: dict[str, Any] = {"restApiId": r.physical, "mode": mode, "body": body}
    if r.get("Parameters"):
        asked["parameters"] = {name: str(one) for name, one in r.get("Parameters").items()}
    if r.get("FailOnWarnings") in (True, "true"):
        asked["failOnWarnings"] = True
    await r.do("PutRestApi", asked, key=key)
    patches = [_replace(f"/{name[0].lower()}{name[1:]}", r.get(name)) for name in _TOLD if r.get(name)]
    if r.get("Policy"):
        patches.append(_replace("/policy", document(r.get("Policy"))))
    elif r.old.get("Policy"):
        patches.append(_replace("/policy", None))
    if patches:
        await r.do("UpdateRestApi", {"restApiId": r.physical, "patchOperations": patches}, key=key)


_TOLD: Final = ("Name", "Description", "Version")


async def _api(r: Resource) -> None:
    _refuse(r, *_IDLE)
    body = await _body(r)
    asked = {**r.only(*_API), "tags": {one["Key"]: one["Value"] for one in r.tags()}}
    if body:
        asked.setdefault("Name", r.name(100))
    if r.get("ApiKeySourceType"):
        asked["apiKeySource"] = r.get("ApiKeySourceType")
    if r.get("Policy"):
        asked["policy"] = document(r.get("Policy"))
    made = await r.do("CreateRestApi", asked, key="create")
    r.thing.physical = made["id"]
    r.thing.attributes = {"RestApiId": made["id"], "RootResourceId": made["rootResourceId"]}
    if body:
        try:
            await _import(r, body, "import")
        except Refused:
            await r.drop("DeleteRestApi", {"restApiId": r.physical})
            r.thing.physical = ""
            raise


async def _update_api(r: Resource) -> None:
    _refuse(r, *_IDLE)
    body = await _body(r)
    if body:
        await _import(r, body, f"import/{r.run}"[:60])
    else:
        patches = [_replace(f"/{name[0].lower()}{name[1:]}", r.get(name)) for name in _TOLD]
        patches.append(_replace("/policy", document(r.get("Policy")) if r.get("Policy") else None))
        await r.do("UpdateRestApi", {"restApiId": r.physical, "patchOperations": patches}, key="update")
    closed = [_replace("/disableExecuteApiEndpoint", _truth(r.get("DisableExecuteApiEndpoint")))]
    await r.do("UpdateRestApi", {"restApiId": r.physical, "patchOperations": closed}, key="closed")
    await _retag(r, _api_arn(r))


async def _delete_api(r: Resource) -> None:
    await r.drop("DeleteRestApi", {"restApiId": r.physical})


# -- resources and methods ---------------------------------------------------------------------------------------------


async def _resource(r: Resource) -> None:
    made = await r.do("CreateResource", r.only("RestApiId", "ParentId", "PathPart"), key="create")
    r.thing.physical = made["id"]
    r.thing.attributes = {"ResourceId": made["id"]}


async def _delete_resource(r: Resource) -> None:
    await r.drop("DeleteResource", {"restApiId": r.get("RestApiId"), "resourceId": r.physical})


_METHOD: Final = (
    "ApiKeyRequired", "AuthorizationScopes", "AuthorizerId", "OperationName", "RequestModels", "RequestParameters",
    "RequestValidatorId",
)  # fmt: skip


def _named(r: Resource) -> dict[str, Any]:
    return {
        "restApiId": r.get("RestApiId"), "resourceId": r.get("ResourceId"), "httpMethod": r.get("HttpMethod"),
    }  # fmt: skip


async def _put_method(r: Resource, key: str) -> None:
    named = _named(r)
    asked = {**named, "authorizationType": r.get("AuthorizationType") or "NONE", **r.only(*_METHOD)}
    await r.do("PutMethod", asked, key=key)
    for one in r.get("MethodResponses") or ():
        await r.do("PutMethodResponse", {**named, **one}, key=f"{key}/{one['StatusCode']}")
    integration = dict(r.get("Integration") or {})
    if integration:
        responses: Sequence[dict[str, Any]] = integration.pop("IntegrationResponses", None) or ()
        await r.do("PutIntegration", {**named, **integration}, key=key)
        for one in responses:
            await r.do("PutIntegrationResponse", {**named, **one}, key=f"{key}/{one['StatusCode']}")
    r.thing.physical = f"{named['restApiId']}|{named['resourceId']}|{named['httpMethod']}"


async def _method(r: Resource) -> None:
    await _put_method(r, "create")


async def _update_method(r: Resource) -> None:
    await _put_method(r, f"update/{r.run}"[:60])


async def _delete_method(r: Resource) -> None:
    await r.drop("DeleteMethod", _named(r))


# -- deployments and stages --------------------------------------------------------------------------------------------


async def _deployment(r: Resource) -> None:
    _refuse(r, "StageDescription", "DeploymentCanarySettings")
    made = await r.do("CreateDeployment", r.only("RestApiId", "Description", "StageName"), key="create")
    r.thing.physical = made["id"]
    r.thing.attributes = {"DeploymentId": made["id"]}


async def _delete_deployment(r: Resource) -> None:
    named = {"restApiId": r.get("RestApiId")}
    if r.get("StageName"):
        stage = await r.seen("GetStage", {**named, "stageName": r.get("StageName")})
        if stage is not None and stage["deploymentId"] == r.physical:
            await r.drop("DeleteStage", {**named, "stageName": r.get("StageName")})
    await r.drop("DeleteDeployment", {**named, "deploymentId": r.physical})


_STAGE_IDLE: Final = (
    "CacheClusterEnabled", "CacheClusterSize", "CanarySetting", "ClientCertificateId", "DocumentationVersion",
    "MethodSettings", "TracingEnabled",
)  # fmt: skip


def _stage_named(r: Resource) -> dict[str, Any]:
    return {"restApiId": r.get("RestApiId"), "stageName": r.get("StageName")}


def _log(r: Resource) -> list[dict[str, str]]:
    log = r.get("AccessLogSetting")
    if not log:
        return [{"op": "remove", "path": "/accessLogSettings"}] if r.old.get("AccessLogSetting") else []
    names = ("DestinationArn", "Format")
    return [_replace(f"/accessLogSettings/{name[0].lower()}{name[1:]}", log.get(name)) for name in names]


async def _stage(r: Resource) -> None:
    _refuse(r, *_STAGE_IDLE)
    tags = {one["Key"]: one["Value"] for one in r.tags()}
    asked = {**_stage_named(r), **r.only("DeploymentId", "Description", "Variables"), "tags": tags}
    await r.do("CreateStage", asked, key="create")
    r.thing.physical = str(r.get("StageName"))
    if _log(r):
        await r.do("UpdateStage", {**_stage_named(r), "patchOperations": _log(r)}, key="log")


async def _update_stage(r: Resource) -> None:
    _refuse(r, *_STAGE_IDLE)
    before, after = dict(r.old.get("Variables") or {}), dict(r.get("Variables") or {})
    patches = [_replace("/deploymentId", r.get("DeploymentId")), _replace("/description", r.get("Description"))]
    patches += [_replace(f"/variables/{name}", after.get(name)) for name in sorted({*before, *after})]
    await r.do("UpdateStage", {**_stage_named(r), "patchOperations": patches + _log(r)}, key="update")
    arn = f"arn:aws:apigateway:{r.stack.region}::/restapis/{r.get('RestApiId')}/stages/{r.physical}"
    await _retag(r, arn)


async def _delete_stage(r: Resource) -> None:
    await r.drop("DeleteStage", _stage_named(r))


# -- what requests are to have, and who says who may call ---------------------------------------------------------------


async def _model(r: Resource) -> None:
    name = str(r.get("Name") or re.sub(r"[^A-Za-z0-9]", "", r.name(100)))
    schema = r.get("Schema")
    asked = {
        **r.only("RestApiId", "Description"),
        "name": name,
        "contentType": r.get("ContentType") or "application/json",
    }
    await r.do("CreateModel", {**asked, "schema": document(schema) if schema else "{}"}, key="create")
    r.thing.physical = name


async def _update_model(r: Resource) -> None:
    patches = [_replace("/description", r.get("Description")), _replace("/schema", document(r.get("Schema") or {}))]
    asked = {"restApiId": r.get("RestApiId"), "modelName": r.physical, "patchOperations": patches}
    await r.do("UpdateModel", asked, key=f"update/{r.run}"[:60])


async def _delete_model(r: Resource) -> None:
    await r.drop("DeleteModel", {"restApiId": r.get("RestApiId"), "modelName": r.physical})


async def _validator(r: Resource) -> None:
    made = await r.do("CreateRequestValidator", r.properties, key="create")
    r.thing.physical = made["id"]
    r.thing.attributes = {"RequestValidatorId": made["id"]}


async def _update_validator(r: Resource) -> None:
    names = ("ValidateRequestBody", "ValidateRequestParameters")
    patches = [_replace(f"/{name[0].lower()}{name[1:]}", _truth(r.get(name))) for name in names]
    asked = {"restApiId": r.get("RestApiId"), "requestValidatorId": r.physical, "patchOperations": patches}
    await r.do("UpdateRequestValidator", asked, key=f"update/{r.run}"[:60])


async def _delete_validator(r: Resource) -> None:
    await r.drop("DeleteRequestValidator", {"restApiId": r.get("RestApiId"), "requestValidatorId": r.physical})


_AUTHORIZER: Final = (
    "Name", "Type", "AuthType", "AuthorizerUri", "AuthorizerCredentials", "IdentitySource", "IdentityValidationExpression",
    "AuthorizerResultTtlInSeconds",
)  # fmt: skip


async def _authorizer(r: Resource) -> None:
    made = await r.do("CreateAuthorizer", r.properties, key="create")
    r.thing.physical = made["id"]
    r.thing.attributes = {"AuthorizerId": made["id"]}


async def _update_authorizer(r: Resource) -> None:
    patches = [_replace(f"/{name[0].lower()}{name[1:]}", r.get(name)) for name in _AUTHORIZER if r.changed(name)]
    asked = {"restApiId": r.get("RestApiId"), "authorizerId": r.physical, "patchOperations": patches}
    await r.do("UpdateAuthorizer", asked, key=f"update/{r.run}"[:60])


async def _delete_authorizer(r: Resource) -> None:
    await r.drop("DeleteAuthorizer", {"restApiId": r.get("RestApiId"), "authorizerId": r.physical})


# -- the account -------------------------------------------------------------------------------------------------------


async def _account(r: Resource) -> None:
    patch = _replace("/cloudwatchRoleArn", r.get("CloudWatchRoleArn"))
    await r.do("UpdateAccount", {"patchOperations": [patch]}, key=f"put/{r.run}"[:60])
    r.thing.physical = r.thing.physical or r.name(64)
    r.thing.attributes = {"Id": r.physical}


async def _keep_account(_: Resource) -> None:
    """What the account's APIs log with stays, as on AWS."""


def _type(name: str, create: Any, delete: Any, update: Any, *calls: str, replaces: Sequence[str] = ()) -> Type:
    made = f"AWS::ApiGateway::{name}"
    return Type(made, _SERVICE, create, delete, update, None, calls_of(_SERVICE, calls), frozenset(replaces))


TYPES: Final = (
    _type("RestApi", _api, _delete_api, _update_api, "CreateRestApi", "UpdateRestApi", "DeleteRestApi", "PutRestApi",
          "TagResource", "UntagResource", replaces=("EndpointConfiguration", "BinaryMediaTypes")),
    _type("Resource", _resource, _delete_resource, None, "CreateResource", "DeleteResource"),
    _type("Method", _method, _delete_method, _update_method, "PutMethod", "PutMethodResponse", "PutIntegration",
          "PutIntegrationResponse", "DeleteMethod"),
    _type("Deployment", _deployment, _delete_deployment, None, "CreateDeployment", "DeleteDeployment", "GetStage",
          "DeleteStage"),
    _type("Stage", _stage, _delete_stage, _update_stage, "CreateStage", "UpdateStage", "DeleteStage", "TagResource",
          "UntagResource"),
    _type("Model", _model, _delete_model, _update_model, "CreateModel", "UpdateModel", "DeleteModel"),
    _type("RequestValidator", _validator, _delete_validator, _update_validator, "CreateRequestValidator",
          "UpdateRequestValidator", "DeleteRequestValidator"),
    _type("Authorizer", _authorizer, _delete_authorizer, _update_authorizer, "CreateAuthorizer", "UpdateAuthorizer",
          "DeleteAuthorizer"),
    _type("Account", _account, _keep_account, _account, "UpdateAccount"),
)  # fmt: skip
"""The types of API Gateway."""
