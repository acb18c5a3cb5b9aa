"""What EventBridge is told of packages' versions.

Source: CodeArtifact User Guide, "CodeArtifact event format and example".
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

import orjson

from bastide.domain import new_id
from bastide.kernel.happened import tell
from bastide.services.codeartifact.noun import PACKAGE
from bastide.store import Row, Transaction

_TYPE: Final = "CodeArtifact Package Version State Change"


def revise(version: Row) -> None:
    """Gives a version the revision that its assets and what is known of it make."""
    doc = version.doc
    told = orjson.dumps([version.name, doc["assets"], doc["facts"], doc["born"]], option=orjson.OPT_SORT_KEYS)
    doc["revision"] = base64.b64encode(hashlib.sha256(told).digest()).decode()


def told(
    tx: Transaction,
    version: Row,
    how: str,
    administrator: str,
    *,
    added: int = 0,
    removed: int = 0,
    status: bool = False,
) -> None:
    """Tells of a version that was Created, Updated or Deleted: the domain's owner, and the repository's administrator."""
    domain, repository, format, namespace, name, number = version.name.split("/", 5)
    version.doc["sequence"] = int(version.doc.get("sequence", 0)) + 1
    detail = {
        "domainName": domain,
        "domainOwner": version.account,
        "repositoryName": repository,
        "repositoryAdministrator": administrator,
        "packageFormat": format,
        "packageNamespace": namespace or None,
        "packageName": name,
        "packageVersion": number,
        "packageVersionState": version.status,
        "packageVersionRevision": version.doc["revision"],
        "changes": {
            "assetsAdded": added,
            "assetsRemoved": removed,
            "metadataUpdated": how == "Created",
            "assetsUpdated": 0,
            "statusChanged": status,
        },
        "operationType": how,
        "sequenceNumber": version.doc["sequence"],
        "eventDeduplicationId": new_id(),
    }
    package = PACKAGE.arn(version.account, version.region, version.name.rpartition("/")[0])
    for account in dict.fromkeys((version.account, administrator)):
        tell(
            tx, account=account, region=version.region, source="aws.codeartifact", detail_type=_TYPE, resources=[package],
            detail=detail,
        )  # fmt: skip
