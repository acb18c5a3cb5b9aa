"""An endpoint of SageMaker behind an API: straight, with a role, and by a function."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, allow
from tests.stories.apigateway.gateway import GATEWAY, api_of, function_uri
from tests.stories.lambda_.conftest import bench_of
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, variant

CODE = """
import boto3
def handler(event, context):
    runtime = boto3.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="e", Body=event["body"], ContentType="text/plain")
    return {"statusCode": 200, "headers": {"Content-Type": "text/plain"}, "body": answer["Body"].read().decode()}
"""


@pytest.mark.control("STG-10", lacking="the pipeline that puts it there")
@pytest.mark.control("DEP-05")
def test_the_production_endpoint_is_called_through_an_api(workshop: Workshop) -> None:
    account = workshop.account
    model(workshop, "m", container(workshop, "A"))
    serve(workshop, config(workshop, "c", variant("m")))
    invoke = f"arn:aws:sagemaker:{REGION}:{account.id}:endpoint/e"
    role = account.role("Gateway", allow("sagemaker:InvokeEndpoint", resource=invoke), trust=GATEWAY)
    api = api_of(account)
    uri = f"arn:aws:apigateway:{REGION}:runtime.sagemaker:path//endpoints/{{name}}/invocations"
    named = api.method(
        api.resource("endpoints", "{name}"), "POST", iam=True, type="AWS", uri=uri, credentials=role,
        requestParameters={"integration.request.path.name": "method.request.path.name",
                           "integration.request.header.Content-Type": "'text/plain'"},
    )  # fmt: skip
    variant_of = "method.response.header.x-variant"
    for code, more in (
        ("200", {"responseParameters": {
            variant_of: "integration.response.header.x-Amzn-Invoked-Production-Variant"}}),
        ("400", {"selectionPattern": "4..", "responseTemplates": {"application/json": "$input.json('$')"}}),
    ):  # fmt: skip
        parameters = {variant_of: False} if code == "200" else {}
        api.client.put_method_response(**named, statusCode=code, responseParameters=parameters)
        api.client.put_integration_response(**named, statusCode=code, **more)
    bench = bench_of(account)
    account.client("iam").put_role_policy(
        RoleName="functions", PolicyName="invoke", PolicyDocument=json.dumps(allow("sagemaker:InvokeEndpoint"))
    )
    function = f"arn:aws:lambda:{REGION}:{account.id}:function:{bench.make(CODE)}"
    account.client("lambda").add_permission(
        FunctionName=function, StatementId="api", Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:aws:execute-api:{REGION}:{account.id}:{api.id}/*/POST/function",
    )  # fmt: skip
    api.method(api.resource("function"), "POST", iam=True, type="AWS_PROXY", uri=function_uri(function))
    api.deploy()

    # The caller may call the API, and not the endpoint.
    arn = f"arn:aws:execute-api:{REGION}:{account.id}:{api.id}/prod/*"
    account.role("Caller", allow("execute-api:Invoke", resource=arn))
    keys = account.as_role("Caller")
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("sagemaker-runtime", keys).invoke_endpoint(EndpointName="e", Body=b"b")
    status, headers, body = api.call("/endpoints/e", "POST", b"b", keys)
    assert (status, body, headers["content-type"]) == (200, b"Ab", "text/plain")
    assert headers["x-variant"] == "AllTraffic"
    assert api.call("/function", "POST", b"c", keys)[::2] == (200, b"Ac")
    assert api.call("/endpoints/e", "POST", b"b")[0] == 403
    # The role may invoke this endpoint and no other, and says so by the response that is for it.
    status, _, body = api.call("/endpoints/other", "POST", b"b", keys)
    assert status == 400 and "sagemaker:InvokeEndpoint" in body["message"]
    account.client("iam").delete_role_policy(RoleName="Gateway", PolicyName="inline")
    assert api.call("/endpoints/e", "POST", b"b", keys)[0] == 400


@pytest.fixture
def workshop(account: Account) -> Iterator[Workshop]:
    made = workshop_of(account)
    yield made
    made.sagemaker.delete_endpoint(EndpointName="e")
