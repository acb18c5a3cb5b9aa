"""APIs from OpenAPI documents: what they say is what is called, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, Running, allow
from tests.stories.apigateway.gateway import GATEWAY, Api, function_uri
from tests.stories.cloudformation.stacks import Stacks, template
from tests.stories.lambda_.conftest import Bench, bench_of

CODE = """
import json
def handler(event, context):
    return {"statusCode": 200, "body": json.dumps([event["httpMethod"], event["resource"], event["pathParameters"]])}
"""
Doc = dict[str, Any]


@pytest.fixture(scope="module")
def mine(platform: Running) -> Account:
    return platform.account()


@pytest.fixture(scope="module")
def arn(mine: Account) -> str:
    """A function that any API of the account may call."""
    bench = bench_of(mine)
    name = bench.make(CODE)
    source = f"arn:aws:execute-api:{REGION}:{mine.id}:*"
    bench.client.add_permission(
        FunctionName=name, StatementId="api", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com",
        SourceArn=source,
    )  # fmt: skip
    return f"arn:aws:lambda:{REGION}:{mine.id}:function:{name}"


def behind(arn: str, **more: Any) -> Doc:
    """What stands behind a method: the function."""
    return {"type": "aws_proxy", "httpMethod": "POST", "uri": function_uri(arn), **more}


def document(arn: str, **more: Any) -> Doc:
    """An API of two methods, one of which asks for a signature; OpenAPI 3."""
    told = {"x-amazon-apigateway-integration": behind(arn), "responses": {"200": {"description": "OK"}}}
    return {
        "openapi": "3.0.1", "info": {"title": "shop", "version": "7", "description": "d"},
        "paths": {
            "/open/{id}": {"get": told, "parameters": [{"name": "id", "in": "path", "required": True}]},
            "/closed": {"post": {**told, "security": [{"iam": []}]}},
        },
        "components": {
            "securitySchemes": {
                "iam": {
                    "type": "apiKey", "name": "Authorization", "in": "header",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            }
        },
        **more,
    }  # fmt: skip


def imported(account: Account, body: Any, **more: Any) -> Api:
    """A new API of a document."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = account.client("apigateway").import_rest_api(body=text, **more)
    return Api(account, made["id"], made["rootResourceId"])


def test_a_document_becomes_an_api_is_merged_and_replaced(mine: Account, arn: str) -> None:
    api = imported(mine, document(arn))
    api.deploy()
    held = api.client.get_rest_api(restApiId=api.id)
    assert (held["name"], held["version"], held["description"]) == ("shop", "7", "d")
    assert api.call("/open/7")[::2] == (200, ["GET", "/open/{id}", {"id": "7"}])
    assert api.call("/closed", "POST")[0] == 403
    assert api.call("/closed", "POST", keys=mine.keys)[::2] == (200, ["POST", "/closed", None])
    paths = {one["path"]: one["id"] for one in api.client.get_resources(restApiId=api.id)["items"]}
    assert set(paths) == {"/", "/open", "/open/{id}", "/closed"}
    method = api.client.get_method(restApiId=api.id, resourceId=paths["/open/{id}"], httpMethod="GET")
    assert method["requestParameters"] == {"method.request.path.id": True}
    # Merged: what was there stays; YAML, OpenAPI 2, a base path that goes before.
    yaml = f"""
swagger: 2.0
basePath: /v1
info: {{title: more}}
paths:
  /any/{{proxy+}}:
    x-amazon-apigateway-any-method:
      x-amazon-apigateway-integration: {{type: AWS_PROXY, httpMethod: post, uri: '{function_uri(arn)}'}}
"""
    api.client.put_rest_api(
        restApiId=api.id, mode="merge", body=yaml.encode(), parameters={"basepath": "prepend"}
    )  # fmt: skip
    api.deploy()
    assert api.call("/v1/any/a/b", "PUT")[2] == ["PUT", "/v1/any/{proxy+}", {"proxy": "a/b"}]
    assert api.call("/open/7")[0] == 200
    assert api.client.get_rest_api(restApiId=api.id)["name"] == "shop"
    # Replaced: what the document does not have is gone; the policy stays with whoever gave it.
    replaced = document(arn)
    del replaced["paths"]["/open/{id}"]
    replaced["x-amazon-apigateway-policy"] = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
        ],
    }
    api.client.put_rest_api(restApiId=api.id, mode="overwrite", body=json.dumps(replaced).encode())
    api.deploy()
    assert {one["path"] for one in api.client.get_resources(restApiId=api.id)["items"]} == {"/", "/closed"}
    assert api.call("/closed", "POST", keys=mine.keys)[0] == 403
    api.client.put_rest_api(restApiId=api.id, mode="overwrite", body=json.dumps(document(arn)).encode())
    assert "Deny" in api.client.get_rest_api(restApiId=api.id)["policy"]


GUARD = """
import json
def handler(event, context):
    token = event["authorizationToken"]
    if token == "nobody":
        raise Exception("Unauthorized")
    effect = "Allow" if token == "friend" else "Deny"
    statement = {"Effect": effect, "Action": "execute-api:Invoke", "Resource": event["methodArn"].rpartition("/")[0] + "/*"}
    return {"principalId": token, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
            "context": {"level": 7}}
"""


@pytest.mark.control("IAM-04")
def test_requests_are_checked_and_a_function_says_who_may_call(mine: Account, arn: str) -> None:
    """Models, validators, an authorizer and a mock, as a document has them."""
    bench = Bench(mine, f"arn:aws:iam::{mine.id}:role/functions", mine.client("lambda"))
    name = bench.make(GUARD)
    bench.client.add_permission(
        FunctionName=name, StatementId="api", Action="lambda:InvokeFunction", Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:aws:execute-api:{REGION}:{mine.id}:*/authorizers/*",
    )  # fmt: skip
    guard = function_uri(f"arn:aws:lambda:{REGION}:{mine.id}:function:{name}")
    method = {
        "x-amazon-apigateway-integration": behind(arn), "responses": {}, "security": [{"guard": []}],
        "x-amazon-apigateway-request-validator": "all",
        "parameters": [
            {"name": "q", "in": "query", "required": True, "type": "string"},
            {"name": "body", "in": "body", "schema": {"$ref": "#/definitions/Order"}},
        ],
    }  # fmt: skip
    cors = {
        "responses": {"200": {"description": "", "headers": {"Access-Control-Allow-Origin": {"type": "string"}}}},
        "x-amazon-apigateway-integration": {
            "type": "mock", "requestTemplates": {"application/json": '{"statusCode": 200}'},
            "responses": {
                "default": {
                    "statusCode": "200",
                    "responseParameters": {"method.response.header.Access-Control-Allow-Origin": "'*'"},
                    "responseTemplates": {"application/json": "{}"},
                }
            },
        },
    }  # fmt: skip
    body = {
        "swagger": "2.0", "info": {"title": "orders"},
        "paths": {"/orders": {"post": method, "options": cors}},
        "definitions": {
            "Item": {
                "type": "object", "required": ["id"],
                "properties": {"id": {"type": "string", "pattern": "^i-[0-9]+$"}},
            },
            "Order": {"type": "array", "items": {"$ref": "#/definitions/Item"}, "maxItems": 2},
        },
        "x-amazon-apigateway-request-validators": {
            "all": {"validateRequestBody": True, "validateRequestParameters": True}
        },
        "securityDefinitions": {
            "guard": {
                "type": "apiKey", "name": "X-Token", "in": "header", "x-amazon-apigateway-authtype": "custom",
                "x-amazon-apigateway-authorizer": {
                    "type": "token", "authorizerUri": guard, "identityValidationExpression": "[a-z]+",
                },
            }
        },
    }  # fmt: skip
    body["x-amazon-apigateway-gateway-responses"] = {
        "UNAUTHORIZED": {
            "statusCode": "418", "responseParameters": {"gatewayresponse.header.X-Why": "'no token'"},
            "responseTemplates": {"application/json": '{"said": $context.error.messageString, "id": "$context.requestId"}'},
        },
        "MISSING_AUTHENTICATION_TOKEN": {"statusCode": 404},
        "BAD_REQUEST_PARAMETERS": {"responseTemplates": {"text/plain": "$context.error.message"}},
    }  # fmt: skip
    api = imported(mine, body)
    api.deploy()

    def asked(token: str | None, told: Any = (), path: str = "/orders?q=1") -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **({"X-Token": token} if token is not None else {})}
        return api.call(path, "POST", json.dumps(told).encode(), headers=headers)[::2]

    for token in (None, "NOT-LOWER", "nobody"):
        status, told = asked(token)
        assert (status, told["said"]) == (418, "Unauthorized") and len(told["id"]) == 36
    assert api.call("/orders?q=1", "POST")[1]["x-why"] == "no token"
    status, headers, told = api.call("/nowhere", keys=mine.keys)
    assert (status, told) == (404, {"message": "Missing Authentication Token"})
    assert headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert asked("foe") == (403, {"message": "User is not authorized to access this resource"})
    assert asked("friend", [{"id": "i-1"}])[0] == 200
    for wrong in ({}, [{"id": "x"}], [{}], [{"id": "i-1"}] * 3, None):
        assert asked("friend", wrong) == (400, {"message": "Invalid request body"}), wrong
    assert asked("friend", [], "/orders") == (400, b"Missing required request parameters: [q]")
    shown = {one["responseType"]: one for one in api.client.get_gateway_responses(restApiId=api.id, limit=50)["items"]}
    assert [one for one, told in shown.items() if not told["defaultResponse"]] == [
        "BAD_REQUEST_PARAMETERS", "MISSING_AUTHENTICATION_TOKEN", "UNAUTHORIZED",
    ]  # fmt: skip
    for type, more, why in (
        ("INVALID_SIGNATURE", {}, "before it is known"),
        ("DEFAULT_4XX", {"responseTemplates": {"text/plain": "#set($x = 1)"}}, "text"),
        ("DEFAULT_4XX", {"responseParameters": {"gatewayresponse.header.X": "method.request.header.X"}}, "a text"),
    ):
        with pytest.raises(ClientError, match=why):
            api.client.put_gateway_response(restApiId=api.id, responseType=type, **more)
    status, headers, told = api.call("/orders", "OPTIONS")
    assert (status, headers["access-control-allow-origin"], told) == (200, "*", {})
    [authorizer] = api.client.get_authorizers(restApiId=api.id)["items"]
    assert (authorizer["type"], authorizer["identitySource"]) == ("TOKEN", "method.request.header.X-Token")
    assert {one["name"] for one in api.client.get_models(restApiId=api.id)["items"]} == {"Item", "Order"}
    # The function is asked once about a token: its right to be called may go meanwhile.
    bench.client.remove_permission(FunctionName=name, StatementId="api")
    assert asked("friend", [{"id": "i-1"}])[0] == 200
    assert asked("stranger") == (500, {"message": "Internal server error"})
    for schema, why in (('{"type": "thing"}', "not known"), ('{"pattern": "(a*)*\\\\1"}', "cannot be checked")):
        with pytest.raises(ClientError, match=why):
            api.client.create_model(restApiId=api.id, name="Bad", contentType="application/json", schema=schema)


@pytest.mark.control("IAM-04")
def test_who_imports_passes_the_roles_that_the_document_names(mine: Account, arn: str) -> None:
    role = mine.role("Behind", allow("lambda:InvokeFunction"), trust=GATEWAY)
    body = document(arn)
    body["paths"]["/closed"]["post"]["x-amazon-apigateway-integration"] = behind(arn, credentials=role)
    mine.role("Imports", allow("apigateway:*"))
    theirs = mine.client("apigateway", mine.as_role("Imports"))
    with pytest.raises(ClientError, match="iam:PassRole"):
        theirs.import_rest_api(body=json.dumps(body).encode())
    api = theirs.import_rest_api(body=json.dumps(document(arn)).encode())["id"]
    with pytest.raises(ClientError, match="iam:PassRole"):
        theirs.put_rest_api(restApiId=api, body=json.dumps(body).encode())


def test_what_has_no_effect_or_means_harm_is_refused_and_nothing_is_made(mine: Account, arn: str) -> None:
    client = mine.client("apigateway")
    before = len(client.get_rest_apis(limit=500)["items"])

    def changed(**more: Any) -> Doc:
        return document(arn, **more)

    def method(**more: Any) -> Doc:
        body = document(arn)
        body["paths"]["/closed"]["post"] |= more
        return body

    ring = {"$ref": "#/components/securitySchemes/iam"}
    cases: list[tuple[Any, str]] = [
        (b"{", "malformed"),
        (b"\xff", "UTF-8"),
        (b"[" * 200_000, "nested deeper"),
        (b"a: &a [x]\nb: [*a, *a]", "aliases"),
        (b" " * (1 << 20) + b"{}", "bytes"),
        ({"openapi": "3.0.1", "paths": {}}, "info.title"),
        (changed(openapi="4.0"), "3.x"),
        (changed(components={"securitySchemes": {"iam": ring}}), "leads back to itself"),
        (changed(**{"x-amazon-apigateway-cors": {"allowOrigins": ["*"]}}), "HTTP APIs"),
        (changed(**{"x-amazon-apigateway-minimum-compression-size": 5}), "compressed"),
        (method(**{"x-amazon-apigateway-integration": {"type": "http", "uri": "https://x"}}), "HTTP"),
        (method(**{"x-amazon-apigateway-integration": None}), "No integration"),
        (method(security=[{"nobody": []}]), "no security scheme nobody"),
        (method(**{"x-amazon-apigateway-unheard-of": 1}), "not known"),
        (changed(paths={f"/{number}": {} for number in range(400)}), "at most 300 resources"),
        (changed(paths={"/a/{b}": {}, "/a/{c}": {}}), "only one is allowed"),
        (changed(paths={"/a b": {}}), "path part"),
    ]
    for body, why in cases:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        with pytest.raises(client.exceptions.BadRequestException if "300" not in why else ClientError, match=why):
            client.import_rest_api(body=text)
    assert len(client.get_rest_apis(limit=500)["items"]) == before


def test_a_stack_has_an_api_of_a_body_and_changes_it(mine: Account, arn: str) -> None:
    stacks = Stacks(mine)

    def body(**more: Any) -> str:
        api = {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Body": document(arn, **more)}}
        deployed = {
            "Type": "AWS::ApiGateway::Deployment",
            "Properties": {"RestApiId": {"Ref": "Api"}, "StageName": "prod", "Description": json.dumps(more)},
        }
        return template({"Api": api, "Deployed": deployed}, Outputs={"Id": {"Value": {"Ref": "Api"}}})

    assert stacks.create("shop", body())["StackStatus"] == "CREATE_COMPLETE", stacks.story("shop")
    api = Api(mine, stacks.outputs("shop")["Id"], "")
    assert api.call("/open/1")[0] == 200
    wrong = {"/open": {"get": {"x-amazon-apigateway-integration": {"type": "http", "uri": "https://x"}}}}
    assert stacks.update("shop", body(paths=wrong))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert api.call("/open/1")[0] == 200
    told = {"get": {"x-amazon-apigateway-integration": behind(arn)}}
    assert stacks.update("shop", body(paths={"/other": told}))["StackStatus"] == "UPDATE_COMPLETE", stacks.story("shop")
    assert (api.call("/open/1")[0], api.call("/other")[0]) == (403, 200)
    assert stacks.delete("shop")["StackStatus"] == "DELETE_COMPLETE"
