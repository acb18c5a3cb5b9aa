"""APIs as tests make and call them: with boto3, and over plain HTTP."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from tests.platform import REGION, Account, Keys

GATEWAY = {"Service": "apigateway.amazonaws.com"}


def function_uri(arn: str) -> str:
    """What an integration names a function by."""
    return f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{arn}/invocations"


@dataclass
class Api:
    """One REST API."""

    account: Account
    id: str
    root: str

    def __post_init__(self) -> None:
        self.client = self.account.client("apigateway")

    def resource(self, *parts: str) -> str:
        """A resource below the root; its id."""
        here = self.root
        for part in parts:
            made = self.client.create_resource(restApiId=self.id, parentId=here, pathPart=part)
            here = made["id"]
        return here

    def method(self, resource: str, method: str = "ANY", *, iam: bool = False, **integration: Any) -> dict[str, str]:
        """A method and what stands behind it; what names it."""
        named = {"restApiId": self.id, "resourceId": resource, "httpMethod": method}
        self.client.put_method(**named, authorizationType="AWS_IAM" if iam else "NONE")
        self.client.put_integration(**named, integrationHttpMethod="POST", **integration)
        return named

    def deploy(self, stage: str = "prod") -> str:
        """A deployment's id."""
        made: str = self.client.create_deployment(restApiId=self.id, stageName=stage)["id"]
        return made

    def call(
        self, path: str, method: str = "GET", body: bytes = b"", keys: Keys | None = None, *, stage: str = "prod",
        host: bool = False, headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:  # fmt: skip
        """Status, headers and body (of JSON, what it says) of a call; signed if there are keys."""
        running = self.account.platform
        name = f"{self.id}.execute-api.{REGION}.amazonaws.com"
        where = f"/{stage}{path}" if host else f"/restapis/{self.id}/{stage}/_user_request_{path}"
        given = {**(headers or {}), **({"Host": name} if host else {})}
        netloc = urlsplit(running.url).netloc
        if keys is not None:
            url = f"https://{name if host else netloc}{where}"
            request = botocore.awsrequest.AWSRequest(method=method, url=url, data=body, headers=given)
            credentials = botocore.credentials.Credentials(keys.access_key, keys.secret, keys.token)
            botocore.auth.SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
            given = {key: one if isinstance(one, str) else one.decode() for key, one in request.headers.items()}
        context = ssl.create_default_context(cafile=running.authority)
        connection = http.client.HTTPSConnection(netloc, timeout=60, context=context)
        try:
            connection.request(method, where, body, given)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        told = {key.lower(): one for key, one in answer.getheaders()}
        return answer.status, told, json.loads(raw) if told.get("content-type") == "application/json" else raw


def api_of(account: Account, name: str = "api", **more: Any) -> Api:
    """A new REST API."""
    made = account.client("apigateway").create_rest_api(name=name, **more)
    return Api(account, made["id"], made["rootResourceId"])
