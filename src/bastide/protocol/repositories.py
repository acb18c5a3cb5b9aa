"""AWS CodeCommit's model, with what git and other services ask of it: ``GitPull``, ``GitPush`` and ``UploadArchive`` are
actions of IAM and events of CloudTrail, and no operations of the API. Source: Service Authorization Reference, "AWS
CodeCommit".
"""

from __future__ import annotations

import copy
from typing import Any, Final

from botocore.model import ServiceModel

from bastide.protocol.codec import SPECIAL, Codec
from bastide.protocol.head import Head

_ARCHIVE: Final = {
    "input": {
        "repositoryName": "RepositoryName", "commitSpecifier": "CommitName", "format": "GitArchiveFormat",
    },
    "output": {
        "commitId": "ObjectId", "archive": "GitArchive", "message": "Message", "authorDate": "Date",
        "committerDate": "Date", "branchName": "BranchName",
    },
}  # fmt: skip
INSIDE: Final[dict[str, Any]] = {
    "GitPull": _ARCHIVE,
    "UploadArchive": _ARCHIVE,
    "GitPush": {"input": {"repositoryName": "RepositoryName", "references": "GitReferences"}, "output": {}},
}
_SHAPES: Final[dict[str, Any]] = {
    "GitArchiveFormat": {"type": "string", "enum": ["zip", "bundle"]},
    "GitArchive": {"type": "blob"},
    "GitReferences": {"type": "list", "member": {"shape": "ReferenceName"}},
}


def _extended(model: Any) -> ServiceModel:
    described = copy.copy(model._service_description)
    described["operations"] = dict(described["operations"])
    described["shapes"] = described["shapes"] | _SHAPES
    for name, shapes in INSIDE.items():
        operation: dict[str, Any] = {"name": name, "http": {"method": "POST", "requestUri": "/"}}
        for side in ("input", "output"):
            members = {member: {"shape": shape} for member, shape in shapes[side].items()}
            required = ["repositoryName"] if side == "input" else []
            described["shapes"][f"{name}{side.capitalize()}"] = {
                "type": "structure", "required": required, "members": members,
            }  # fmt: skip
            operation[side] = {"shape": f"{name}{side.capitalize()}"}
        described["operations"][name] = operation
    return ServiceModel(described, model.service_name)


class Repositories(Codec):
    """The codec; no request on the wire means what is inside."""

    def _served(self, model: ServiceModel) -> ServiceModel:
        return _extended(model)

    def route(self, head: Head, body: bytes | None) -> tuple[str, str]:
        """As the other services; what is inside is not known here."""
        target = head.headers.get("x-amz-target", "").rpartition(".")[2]
        if target in INSIDE:
            headers = {**head.headers, "x-amz-target": f"{self.target_prefix}."}
            head = Head(head.method, head.raw_path, head.query, headers, head.host)
        return super().route(head, body)


SPECIAL["codecommit"] = Repositories
