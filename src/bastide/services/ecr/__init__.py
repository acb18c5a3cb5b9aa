"""ECR: repositories of container images, their layers encrypted, their policies asked at every push and pull.

The registry's own protocol (docker, podman, skopeo) is `bastide.registry`, which calls these operations.
Source: Amazon ECR API Reference and User Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.ecr import image as _image  # declares the operations on images
from bastide.services.ecr import lifecycle as _lifecycle  # declares the operations on lifecycle policies
from bastide.services.ecr import policy as _policy  # declares the policies of repositories
from bastide.services.ecr import sbom
from bastide.services.ecr.examine import examine
from bastide.services.ecr.layer import PART_BYTES, Downloads, bucket
from bastide.services.ecr.registry_policy import REGISTRY
from bastide.services.ecr.repository import IMAGE, LAYER, PREVIEW, REPOSITORY, SCAN, TAG, UPLOAD, facts, holders
from bastide.services.ecr.token import TOKEN, caller_of
from bastide.services.ecr.upkeep import Upkeep
from bastide.store import View

__all__ = ["PART_BYTES", "SERVICE", "Downloads", "Upkeep", "bucket", "caller_of", "examine", "files", "sbom"]

SERVICE = Service("ecr", kinds=[REPOSITORY, IMAGE, TAG, LAYER, UPLOAD, TOKEN, SCAN, REGISTRY, PREVIEW], facts=facts)


def files(view: View) -> set[bytes]:
    """The ids of the files that layers are in. Reads all rows once: for a start, or a backup."""
    used: set[bytes] = set()
    for account, region in holders(view):
        for kind in (LAYER, UPLOAD):
            after: str | None = None
            while rows := view.scan(kind.key, account, region, after=after, limit=1000):
                for row in rows:
                    used.update(bytes.fromhex(id) for id in row.doc["parts"])
                after = rows[-1].name
    return used


del _image, _lifecycle, _policy
