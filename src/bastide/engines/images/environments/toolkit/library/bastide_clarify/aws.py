"""Requests to AWS from inside a job, with the role's credentials: signed as "Signature Version 4" has it.

The environment holds no SDK; what a job of Clarify's needs are a few calls of one protocol. Source: IAM user
guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import ssl
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import Any

from bastide_monitor import Unfit

SECONDS = 90
MOST_ANSWER = 256 << 20


class Denied(Unfit):
    """What AWS answered in place of what was asked for. code: its name of the error."""

    def __init__(self, what: str, status: int, body: bytes) -> None:
        try:
            told = json.loads(body)
            self.code = str(told.get("__type") or told.get("Code") or status).rpartition("#")[2]
            why = str(told.get("message") or told.get("Message") or "")
        except (ValueError, AttributeError):
            self.code, why = str(status), body[:300].decode("utf-8", "replace")
        super().__init__(f"{what} was refused: {self.code}: {why}")


class Session:
    """The role of the job."""

    def __init__(self) -> None:
        self.region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._trust = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)

    def api(self, operation: str, **given: Any) -> dict[str, Any]:
        """An operation of SageMaker. Raises Denied, and Unfit where AWS is not reached."""
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"SageMaker.{operation}"}
        body = self._send(operation, "POST", "api.sagemaker", "sagemaker", "/", headers, json.dumps(given).encode())
        found: dict[str, Any] = json.loads(body or b"{}")
        return found

    def invoke(self, endpoint: str, body: bytes, content: str, accept: str, more: dict[str, str]) -> bytes:
        """An endpoint's answer. Raises Denied, and Unfit where AWS is not reached."""
        path = f"/endpoints/{urllib.parse.quote(endpoint, safe='')}/invocations"
        headers = {"content-type": content, "accept": accept, **more}
        return self._send("InvokeEndpoint", "POST", "runtime.sagemaker", "sagemaker", path, headers, body)

    def object(self, uri: str) -> bytes:
        """An object of S3. Raises Denied, and Unfit where AWS is not reached."""
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
            raise Unfit(f"{uri[:200]!r} is no S3 URI of an object.")
        path = f"/{parts.netloc}{urllib.parse.quote(parts.path, safe='/-_.~')}"
        return self._send("GetObject", "GET", "s3", "s3", path, {}, b"")

    def _credentials(self) -> dict[str, str]:
        where, token = (
            os.environ.get(f"AWS_CONTAINER_{one}") for one in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN")
        )
        if not where:
            raise Unfit("The job has no credentials: a predictor needs EnableNetworkIsolation to be false.")
        asked = urllib.request.Request(where, headers={"Authorization": token or ""})  # noqa: S310 the platform's own
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310
            found: dict[str, str] = json.load(answer)
        return found

    def _send(
        self, what: str, method: str, host: str, service: str, path: str, headers: dict[str, str], body: bytes
    ) -> bytes:
        endpoint = urllib.parse.urlsplit(
            os.environ.get("AWS_ENDPOINT_URL") or f"https://{host}.{self.region}.amazonaws.com"
        )
        try:
            held = self._credentials()
            signed = self._signed(method, endpoint.netloc, service, path, headers, body, held)
            connection = http.client.HTTPSConnection(endpoint.netloc, timeout=SECONDS, context=self._trust)
            try:
                connection.request(method, path, body, signed)
                answer = connection.getresponse()
                found = answer.read(MOST_ANSWER)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unfit(f"{what}: AWS is not reached: {error}") from None
        if answer.status >= 300:
            raise Denied(what, answer.status, found)
        return found

    def _signed(
        self,
        method: str,
        host: str,
        service: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        held: dict[str, str],
    ) -> dict[str, str]:
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        told = {**headers, "host": host, "x-amz-date": at, "x-amz-content-sha256": digest}
        if held.get("Token"):
            told["x-amz-security-token"] = held["Token"]
        names = ";".join(sorted(told))
        lines = "".join(f"{name}:{told[name].strip()}\n" for name in sorted(told))
        canonical = path if service == "s3" else urllib.parse.quote(path, safe="/-_.~")
        asked = "\n".join([method, canonical, "", lines, names, digest])
        scope = f"{at[:8]}/{self.region}/{service}/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(asked.encode()).hexdigest()])
        key = f"AWS4{held['SecretAccessKey']}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={held['AccessKeyId']}/{scope}"
        told["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
        return {name: value for name, value in told.items() if name != "host"}
