"""MLflow's REST API as SageMaker's tracking servers have it, on the wire.

botocore has no model of it, so one of our own says which requests there are: an operation for each action of the Service
Authorization Reference, "Amazon SageMaker with MLflow", at the path that MLflow's REST API has for it. What is said in
query and body is MLflow's, and goes on as it came; the path goes on written anew, so that what was asked about is what is
done. Source: MLflow's REST API; the plugin sagemaker-mlflow, which signs for ``sagemaker-mlflow`` and names the server in
a header.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes, urlencode

from bastide.domain import Refused
from bastide.protocol.codec import SPECIAL, Codec
from bastide.protocol.head import Head
from bastide.protocol.operation import OperationCodec

_ID: Final = rb"(?:tr-|m-)?[0-9a-f]{32}"  # of traces and logged models: no word that another path has in its place
_KEY: Final = rb"[^/]{1,2000}"

_ALSO: Final = (
    ("GET", "/api/2.0/mlflow/experiments/search", "SearchExperiments"),
    ("GET", "/api/2.0/mlflow/metrics/get-history-bulk-interval", "GetMetricHistory"),
    ("GET", "/api/2.0/mlflow/registered-models/get-latest-versions", "GetLatestModelVersions"),
    ("GET", "/api/2.0/mlflow/traces", "SearchTraces"),
    ("GET", "/api/2.0/mlflow/traces/{MlflowId}/info", "GetTraceInfo"),
    ("POST", "/api/2.0/mlflow/traces", "StartTrace"),
    ("POST", "/api/2.0/mlflow/traces/delete-traces", "DeleteTraces"),
    ("PATCH", "/api/2.0/mlflow/traces/{MlflowId}/tags", "SetTraceTag"),
    ("DELETE", "/api/2.0/mlflow/traces/{MlflowId}/tags", "DeleteTraceTag"),
)
"""Other paths of the same actions, of MLflow's earlier clients."""


def _pattern(path: str) -> re.Pattern[bytes]:
    text = re.escape(path).encode()
    return re.compile(
        text.replace(rb"\{MlflowId\}", b"(?P<MlflowId>%s)" % _ID).replace(rb"\{Key\}", b"(?P<Key>%s)" % _KEY)
    )


class _Operation(OperationCodec):
    def parse(self, protocol: str, head: Head, body: bytes) -> dict[str, Any]:
        service = self.service
        assert isinstance(service, TrackingCodec)
        _, found, path = service.find(head) or ("", None, "")
        assert found is not None, "it was routed here"
        given: dict[str, Any] = {"Method": head.method, "Path": path, "Query": urlencode(head.query), "Body": body}
        given |= {name: unquote_to_bytes(raw).decode() for name, raw in found.groupdict().items()}
        for member, header in (
            ("TrackingServerArn", "x-mlflow-sm-tracking-server-arn"),
            ("ContentType", "content-type"),
        ):
            if header in head.headers:
                given[member] = head.headers[header]
        return given


class TrackingCodec(Codec):
    """The service ``sagemaker-mlflow``."""

    compiled = _Operation

    @cached_property
    def _known(self) -> list[tuple[str, re.Pattern[bytes], str, str]]:
        https = ((name, self.model.operation_model(name).http) for name in self.model.operation_names)
        own = [(http["method"], http["requestUri"], name) for name, http in https]
        return [(method, _pattern(path), path, name) for method, path, name in (*own, *_ALSO)]

    def find(self, head: Head) -> tuple[str, re.Match[bytes], str] | None:
        """The operation that a request line means, what its labels are, and the path as it is to be sent on."""
        for method, pattern, path, name in self._known:
            found = pattern.fullmatch(head.raw_path) if method == head.method else None
            if found is None:
                continue
            for label, raw in found.groupdict().items():
                plain = unquote_to_bytes(raw)
                try:
                    text = plain.decode()
                except UnicodeDecodeError:
                    return None
                if "/" in text or text in (".", ".."):
                    return None
                path = path.replace(f"{{{label}}}", quote(text, safe=""))  # noqa: PLW2901
            return name, found, path
        return None

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        found = self.find(head)
        if found is None:
            raise Refused(
                "UnknownOperationException", "No action of sagemaker-mlflow is for this request of MLflow's REST API.",
                404, kept={"protocol": self.protocol},
            )  # fmt: skip
        return found[0], self.protocol


SPECIAL["sagemaker-mlflow"] = TrackingCodec
