"""A function behind an API: who may call it, and what it and the caller get."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import PROGRAM, REGION, Account, Running, allow
from tests.stories.apigateway.gateway import GATEWAY, Api, api_of, function_uri
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.cloudformation.stacks import template as stack
from tests.stories.ec2.conftest import make_vpc
from tests.stories.lambda_.conftest import bench_of

CODE = """
import base64, json, time
def handler(event, context):
    what = event["path"].rpartition("/")[2]
    if what == "fails":
        raise ValueError("secret")
    if what == "slow":
        time.sleep(2)
    if what == "nonsense":
        return "nonsense"
    if what == "misshapen":
        return {"statusCode": 200, "headers": ["x"]}
    if what == "binary":
        return {"statusCode": 203, "body": base64.b64encode(b"\\xff\\x00").decode(), "isBase64Encoded": True,
                "headers": {"Content-Type": "image/x"}, "multiValueHeaders": {"X-Many": ["a", "b"]}}
    return {"statusCode": 201, "headers": {"X-Told": "yes"}, "body": json.dumps(event)}
"""


@dataclass
class Place:
    """An API with a function behind it."""

    account: Account
    api: Api
    arn: str

    def let_in(self) -> None:
        """The function's own policy lets the API call it."""
        self.account.client("lambda").add_permission(
            FunctionName=self.arn, StatementId="api", Action="lambda:InvokeFunction",
            Principal="apigateway.amazonaws.com",
            SourceArn=f"arn:aws:execute-api:{REGION}:{self.account.id}:{self.api.id}/prod/*",
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(platform: Running) -> Place:
    account = platform.account()
    bench = bench_of(account)
    name = bench.make(CODE)
    arn = f"arn:aws:lambda:{REGION}:{account.id}:function:{name}"
    api = api_of(account)
    behind = {"type": "AWS_PROXY", "uri": function_uri(arn)}
    api.method(api.resource("open", "{what}"), "GET", **behind)
    api.method(api.resource("all", "{rest+}"), "ANY", **behind)
    api.method(api.resource("closed"), "POST", iam=True, **behind)
    api.method(api.resource("late", "{what}"), "GET", timeoutInMillis=50, **behind)
    api.client.create_stage(
        restApiId=api.id, stageName="prod", deploymentId=api.client.create_deployment(restApiId=api.id)["id"],
        variables={"colour": "red"},
    )  # fmt: skip
    made = Place(account, api, arn)
    made.let_in()
    return made


def test_a_function_must_let_the_api_in(place: Place) -> None:
    place.account.client("lambda").remove_permission(FunctionName=place.arn, StatementId="api")
    status, _, body = place.api.call("/open/x")
    assert (status, body) == (500, {"message": "Internal server error"})
    place.let_in()
    status, headers, event = place.api.call("/open/x?q=1&q=2", headers={"X-One": "1", "User-Agent": "me"})
    assert (status, headers["x-told"]) == (201, "yes")
    assert (event["httpMethod"], event["resource"], event["path"]) == ("GET", "/open/{what}", "/open/x")
    assert event["pathParameters"] == {"what": "x"} and event["stageVariables"] == {"colour": "red"}
    assert event["queryStringParameters"] == {"q": "2"} and event["multiValueQueryStringParameters"] == {
        "q": ["1", "2"]
    }
    assert event["headers"]["x-one"] == "1" and event["body"] is None
    context = event["requestContext"]
    assert (context["accountId"], context["apiId"], context["stage"]) == (place.account.id, place.api.id, "prod")
    assert (context["identity"]["userAgent"], context["identity"]["userArn"]) == ("me", None)

    bearer = {"Authorization": "Bearer of-its-own"}
    assert place.api.call("/open/x", headers=bearer)[2]["headers"]["authorization"] == "Bearer of-its-own"
    assert place.api.call("/closed", "POST", headers=bearer)[0] == 403
    status, headers, body = place.api.call("/open/binary")
    assert (status, headers["content-type"], body) == (203, "image/x", b"\xff\x00")
    status, _, event = place.api.call("/all/a/b%20c", "PUT", b'{"a": 1}', host=True)
    assert (status, event["pathParameters"], event["body"]) == (201, {"rest": "a/b c"}, '{"a": 1}')
    for what in ("fails", "nonsense", "misshapen"):
        assert place.api.call(f"/open/{what}")[::2] == (502, {"message": "Internal server error"})
    assert place.api.call("/late/slow")[::2] == (504, {"message": "Endpoint request timed out"})
    for path, method in (("/none", "GET"), ("/open/x", "POST"), ("/open/x/y", "GET"), ("/", "GET")):
        assert place.api.call(path, method)[::2] == (403, {"message": "Missing Authentication Token"}), path
    assert place.api.call("/open/x", stage="test")[0] == 403


def test_a_method_with_iam_is_called_by_whom_a_policy_allows(place: Place, neighbour: Account) -> None:
    account, api = place.account, place.api
    arn = f"arn:aws:execute-api:{REGION}:{account.id}:{api.id}/prod/POST/closed"
    account.role("May", allow("execute-api:Invoke", resource=arn))
    account.role("MayNot", allow("execute-api:Invoke", resource=arn.replace("POST", "GET")))
    status, _, event = api.call("/closed", "POST", b"x", account.as_role("May"))
    assert status == 201 and event["requestContext"]["identity"]["userArn"].endswith(":assumed-role/May/test")
    assert not {"authorization", "x-amz-security-token"} & set(event["headers"])
    assert api.call("/closed", "POST", b"x", account.as_role("May"), host=True)[0] == 201
    keys = account.as_role("MayNot")
    status, headers, body = api.call("/closed", "POST", b"x", keys, headers={"X-Api-Key": "hush"})
    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert "execute-api:Invoke" in body["message"]
    with sqlite3.connect(f"file:{account.platform.data / 'bastide.db'}?mode=ro", uri=True) as store:
        # One statement: between two the record may have moved from the new ones to the others.
        asked = " UNION ALL ".join(f"SELECT body FROM {one} WHERE request_id=?1" for one in ("event", "event_new"))
        rows = store.execute(asked, (headers["x-amzn-requestid"],)).fetchall()
    store.close()
    record = json.dumps([json.loads(row[0]) for row in rows])
    assert "execute-api:Invoke" in record
    assert str(keys.token) not in record and "hush" not in record and "Signature=" not in record
    assert api.call("/closed", "POST", b"x")[0] == 403
    neighbour.role("May", allow("execute-api:Invoke"))
    # What is another account's and what is not there are told apart by nobody.
    nothing = Api(account, "a" * 10, "")
    for keys in (neighbour.as_role("May"), None):
        refusals = [one.call("/closed", "POST", b"x", keys)[::2] for one in (api, nothing)]
        assert refusals == [(403, {"message": "Missing Authentication Token"})] * 2

    other = neighbour.client("apigateway")
    for refused in (
        lambda: other.get_rest_api(restApiId=api.id),
        lambda: other.delete_rest_api(restApiId=api.id),
        lambda: other.put_method(
            restApiId=api.id, resourceId=api.root, httpMethod="GET", authorizationType="NONE"
        ),
        lambda: other.create_deployment(restApiId=api.id, stageName="mine"),
    ):  # fmt: skip
        with pytest.raises(ClientError, match="Invalid API identifier"):
            refused()
    with pytest.raises(ClientError, match="Invalid API identifier"):
        other.get_rest_api(restApiId=nothing.id)
    neighbour.role("Red", allow("apigateway:GET", Condition={"StringEquals": {"aws:ResourceTag/team": "red"}}))
    red, mine = neighbour.client("apigateway", neighbour.as_role("Red")), api.client
    mine.tag_resource(resourceArn=f"arn:aws:apigateway:{REGION}::/restapis/{api.id}", tags={"team": "red"})
    for id in (api.id, nothing.id):
        with pytest.raises(ClientError, match="not authorized"):
            red.get_rest_api(restApiId=id)

    def policy(*statements: dict[str, Any]) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        api.client.update_rest_api(
            restApiId=api.id, patchOperations=[{"op": "replace", "path": "/policy", "value": document}]
        )

    everybody = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
    theirs = {**everybody, "Principal": {"AWS": f"arn:aws:iam::{neighbour.id}:role/May"}}
    try:
        policy(theirs)
        assert api.call("/closed", "POST", b"x", neighbour.as_role("May"))[0] == 201
        assert api.call("/open/x")[0] == 403  # nobody is named there
        far = {"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
        policy(everybody, {**everybody, **far})
        assert api.call("/open/x")[0] == 201
        assert api.call("/closed", "POST", b"x")[0] == 403  # it still asks for a signature
        far["Condition"] = {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
        policy(everybody, {**everybody, **far})
        assert api.call("/open/x")[0] == 403
        with pytest.raises(ClientError, match="Invalid policy document"):
            policy({**everybody, "Effect": "Perhaps"})
        assert f":{api.id}/*" in api.client.get_rest_api(restApiId=api.id)["policy"]
    finally:
        api.client.update_rest_api(restApiId=api.id, patchOperations=[{"op": "remove", "path": "/policy"}])


def test_a_stage_is_what_was_deployed(place: Place) -> None:
    api = place.api
    named = {"restApiId": api.id, "stageName": "prod"}
    first = api.client.get_stage(**named)["deploymentId"]
    new = api.resource("new")
    api.method(new, "GET", type="AWS_PROXY", uri=function_uri(place.arn))
    assert api.call("/new")[0] == 403
    second = api.client.create_deployment(restApiId=api.id)["id"]
    move = {"op": "replace", "path": "/deploymentId"}
    api.client.update_stage(**named, patchOperations=[{**move, "value": second}])
    assert api.call("/new")[0] == 201
    with pytest.raises(ClientError, match="Active stages"):
        api.client.delete_deployment(restApiId=api.id, deploymentId=second)
    api.client.update_stage(**named, patchOperations=[{**move, "value": first}])
    assert api.call("/new")[0] == 403
    closed = {"op": "replace", "path": "/disableExecuteApiEndpoint"}
    api.client.update_rest_api(restApiId=api.id, patchOperations=[{**closed, "value": "true"}])
    assert api.call("/open/x")[::2] == (403, {"message": "Forbidden"})
    api.client.update_rest_api(restApiId=api.id, patchOperations=[{**closed, "value": "false"}])
    assert api.call("/open/x")[0] == 201


def test_access_logs_tell_who_called(place: Place) -> None:
    account, api = place.account, place.api
    logs = account.client("logs")
    logs.create_log_group(logGroupName="calls")
    group = f"arn:aws:logs:{REGION}:{account.id}:log-group:calls"
    wanted = [
        {"op": "replace", "path": "/accessLogSettings/destinationArn", "value": group},
        {"op": "replace", "path": "/accessLogSettings/format",
         "value": '{"id": "$context.requestId", "path": "$context.path", "status": "$context.status", '
                  '"who": "$context.identity.userArn"}'},
    ]  # fmt: skip
    named = {"restApiId": api.id, "stageName": "prod"}
    role = {"op": "replace", "path": "/cloudwatchRoleArn"}
    api.client.update_account(patchOperations=[{**role, "value": ""}])  # another test's stack may have set one
    with pytest.raises(ClientError, match="CloudWatch Logs role"):
        api.client.update_stage(**named, patchOperations=wanted)
    with pytest.raises(ClientError, match="permissions set to API Gateway"):
        api.client.update_account(patchOperations=[{**role, "value": account.role("Untrusted", allow("logs:*"))}])
    api.client.update_account(patchOperations=[{**role, "value": account.role("Logs", allow("logs:*"), trust=GATEWAY)}])
    api.client.update_stage(**named, patchOperations=wanted)
    account.role("Caller", allow("execute-api:Invoke"))
    _, headers, _ = api.call("/closed", "POST", b"", account.as_role("Caller"))
    [event] = logs.filter_log_events(logGroupName="calls")["events"]
    told = json.loads(event["message"])
    assert told["id"] == headers["x-amzn-requestid"]
    assert (told["path"], told["status"]) == ("/prod/closed", "201")
    assert told["who"].endswith(":assumed-role/Caller/test")


def test_what_would_reach_nothing_is_refused(place: Place) -> None:
    api, account = place.api, place.account
    named = {"restApiId": api.id, "resourceId": api.resource("refused"), "httpMethod": "GET"}
    for given, words in (
        ({"authorizationType": "COGNITO_USER_POOLS"}, "no user pools"),
        ({"authorizationType": "CUSTOM"}, "authorizer ID"),
        ({"authorizationType": "NONE", "apiKeyRequired": True}, "apiKeyRequired"),
    ):
        with pytest.raises(ClientError, match=words):
            api.client.put_method(**named, **given)
    api.client.put_method(**named, authorizationType="NONE")
    sagemaker = f"arn:aws:apigateway:{REGION}:runtime.sagemaker:path//endpoints/e/invocations"
    role = account.role("Integrates", allow("sagemaker:InvokeEndpoint"), trust=GATEWAY)
    post = {"integrationHttpMethod": "POST"}
    for given, words in (
        ({"type": "MOCK", "requestTemplates": {"application/json": "$input"}}, "mapping language"),
        ({"type": "MOCK", "requestTemplates": {"application/json": "{}"}}, "statusCode"),
        ({"type": "HTTP_PROXY", "uri": "https://example.com", **post}, "type HTTP_PROXY"),
        ({"type": "AWS_PROXY", "uri": sagemaker, **post}, "functions/FUNCTION-ARN"),
        ({"type": "AWS", "uri": sagemaker, **post}, "needs credentials"),
        (
            {"type": "AWS", "uri": sagemaker, "credentials": role, **post,
             "requestTemplates": {"application/json": '#set($x = 1){"a": $x}'}},
            "mapping language",
        ),
    ):  # fmt: skip
        with pytest.raises(ClientError, match=words):
            api.client.put_integration(**named, **given)
    with pytest.raises(ClientError, match="No integration defined"):
        api.client.create_deployment(restApiId=api.id)
    account.role("Author", allow("apigateway:*"))
    author = account.client("apigateway", account.as_role("Author"))
    with pytest.raises(ClientError, match="iam:PassRole"):
        author.put_integration(**named, type="AWS", uri=sagemaker, credentials=role, **post)
    with pytest.raises(ClientError, match="edge locations"):
        api.client.create_rest_api(name="edge", endpointConfiguration={"types": ["EDGE"]})
    api.client.delete_resource(restApiId=api.id, resourceId=named["resourceId"])
    private = api_of(account, "private", endpointConfiguration={"types": ["PRIVATE"]})
    private.method(private.root, "GET", type="AWS_PROXY", uri=function_uri(place.arn))
    private.deploy()
    assert private.call("/")[0] == 403


def test_an_api_is_a_stack(place: Place) -> None:
    account, stacks = place.account, Stacks(place.account)

    def body(what: str) -> str:
        def type(name: str, properties: dict[str, Any], *depends: str) -> dict[str, Any]:
            return {"Type": f"AWS::ApiGateway::{name}", "Properties": properties, "DependsOn": list(depends)}

        api, tags = {"RestApiId": {"Ref": "Api"}}, [{"Key": "what", "Value": what}]
        behind = {"Type": "AWS_PROXY", "IntegrationHttpMethod": "POST", "Uri": function_uri(place.arn)}
        logs = [{"PolicyName": "p", "PolicyDocument": allow("logs:*")}]
        trust = {"Effect": "Allow", "Principal": GATEWAY, "Action": "sts:AssumeRole"}
        call = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
        resources = {
            "Api": type("RestApi", {
                "Name": what, "Tags": tags, "EndpointConfiguration": {"Types": ["REGIONAL"]},
                "Policy": {"Version": "2012-10-17", "Statement": [call]},
            }),
            "Path": type("Resource", {
                **api, "ParentId": {"Fn::GetAtt": ["Api", "RootResourceId"]}, "PathPart": "{what}",
            }),
            "Get": type("Method", {**api, "ResourceId": {"Ref": "Path"}, "HttpMethod": "GET", "Integration": behind}),
            f"Deployed{what}": type("Deployment", {**api, "Description": what}, "Get"),
            "Role": {"Type": "AWS::IAM::Role", "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}, "Policies": logs,
            }},
            "Account": type("Account", {"CloudWatchRoleArn": {"Fn::GetAtt": ["Role", "Arn"]}}),
            "Log": {"Type": "AWS::Logs::LogGroup"},
            "Stage": type("Stage", {
                **api, "StageName": "live", "DeploymentId": {"Ref": f"Deployed{what}"}, "Variables": {"what": what},
                "AccessLogSetting": {"DestinationArn": {"Fn::GetAtt": ["Log", "Arn"]}, "Format": "$context.requestId"},
                "Tags": tags,
            }, "Account"),
            "Lets": {"Type": "AWS::Lambda::Permission", "Properties": {
                "FunctionName": place.arn, "Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com",
                "SourceArn": {"Fn::Sub": "arn:aws:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/live/GET/*"},
            }},
        }  # fmt: skip
        return stack(resources, Outputs={"Api": {"Value": {"Ref": "Api"}}})

    told = stacks.create("api", body("One"))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story("api")
    api = Api(account, stacks.outputs("api")["Api"], "")
    status, _, event = api.call("/x", stage="live")
    assert (status, event["stageVariables"]) == (201, {"what": "One"})
    told = stacks.update("api", body("Two"))
    assert told["StackStatus"] == "UPDATE_COMPLETE", stacks.story("api")
    assert stacks.outputs("api")["Api"] == api.id
    assert api.call("/x", stage="live")[2]["stageVariables"] == {"what": "Two"}
    found = api.client.get_rest_api(restApiId=api.id)
    assert (found["name"], found["tags"]["what"]) == ("Two", "Two")
    assert api.client.get_stage(restApiId=api.id, stageName="live")["tags"]["what"] == "Two"
    assert len(api.client.get_deployments(restApiId=api.id)["items"]) == 1
    assert stacks.delete("api")["StackStatus"] == "DELETE_COMPLETE", stacks.story("api")
    assert api.call("/x", stage="live")[0] == 403
    bad = {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": "n", "Body": {"openapi": "3.0.1"}}}
    assert stacks.create("bad", stack({"A": bad}))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("info.title is needed" in reason for _, _, reason in stacks.story("bad"))


@pytest.mark.control("NET-04")
def test_a_private_api_is_called_through_an_endpoint_of_its_vpc_alone(place: Place) -> None:
    account, vpc = place.account, make_vpc(place.account)
    endpoint = vpc.interface("execute-api")["VpcEndpointId"]
    call = {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/*"}
    inside = {**call, "Condition": {"StringEquals": {"aws:SourceVpce": endpoint}}}
    api = api_of(
        account, "private", endpointConfiguration={"types": ["PRIVATE"], "vpcEndpointIds": [endpoint]},
        policy=json.dumps({"Version": "2012-10-17", "Statement": [inside]}),
    )  # fmt: skip
    api.method(api.resource("{what}"), "GET", type="AWS_PROXY", uri=function_uri(place.arn))
    api.deploy()
    account.client("lambda").add_permission(
        FunctionName=place.arn, StatementId="private", Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:aws:execute-api:{REGION}:{account.id}:{api.id}/prod/GET/*",
    )  # fmt: skip

    def ask() -> str:
        running = account.platform
        url = f"https://{api.id}.execute-api.{REGION}.amazonaws.com/prod/x"
        return subprocess.run(
            [*PROGRAM, "network", "run", "--data", str(running.data), "--account", account.id, "--subnet", vpc.subnet,
             "--", "curl", "-s", "--max-time", "5", "--cacert", running.authority, url],
            env={"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": account.keys.access_key,
                 "AWS_SECRET_ACCESS_KEY": account.keys.secret, "AWS_SESSION_TOKEN": str(account.keys.token)},
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    assert json.loads(ask())["path"] == "/x"
    assert api.call("/x", host=True)[0] == 403
    deny = {"Version": "2012-10-17", "Statement": [{**call, "Resource": "*", "Action": "execute-api:Other"}]}
    vpc.ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, PolicyDocument=json.dumps(deny))
    assert (
        json.loads(ask())["message"] == "Missing Authentication Token"
    )  # as of no API: who did not sign learns nothing
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
