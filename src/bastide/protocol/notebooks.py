"""SageMaker's model, with what browsers ask of a notebook instance: ``OpenNotebookInstance`` (with an address that was made
for them) and ``UseNotebookInstance`` (with what they got for it) are no operations of the API, and no request means them.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from botocore.model import ServiceModel

from bastide.protocol.codec import SPECIAL, Codec
from bastide.protocol.head import Head

INSIDE: Final = ("OpenNotebookInstance", "UseNotebookInstance")


def _extended(model: Any) -> ServiceModel:
    described = copy.copy(model._service_description)
    described["operations"] = dict(described["operations"])
    described["shapes"] = {**described["shapes"], "NothingOutput": {"type": "structure", "members": {}}}
    for name in INSIDE:
        described["operations"][name] = {
            "name": name,
            "http": {"method": "POST", "requestUri": "/"},
            "input": {"shape": "DescribeNotebookInstanceInput"},
            "output": {"shape": "NothingOutput"},
        }
    return ServiceModel(described, model.service_name)


class Notebooks(Codec):
    """The codec; no request on the wire means what is inside."""

    def _served(self, model: ServiceModel) -> ServiceModel:
        return _extended(model)

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        """As the other services; what is inside is not known here."""
        if head.headers.get("x-amz-target", "").rpartition(".")[2] in INSIDE:
            headers = {**head.headers, "x-amz-target": f"{self.target_prefix}."}
            head = Head(head.method, head.raw_path, head.query, headers, head.host)
        return super().route(head, body)


SPECIAL["sagemaker"] = Notebooks
