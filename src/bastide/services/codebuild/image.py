"""What a build runs in: the environment that Bastide brings, or an image of one's own, pulled with the project's role.

Every blob's address is asked for with that role, also of an image that is here already. Source: CodeBuild User Guide,
"Amazon ECR sample for CodeBuild".
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.artifacts import Damaged
from bastide.engines.images import Blob, Container, Containers, Unfit
from bastide.engines.workflow import Failed
from bastide.services.codebuild import checking
from bastide.services.codebuild.session import RoleSession

ENVIRONMENT: Final = "codebuild"
_URI: Final = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)(?:\.[a-z0-9.-]+)?"
    r"(?::[0-9]{1,5})?/(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LISTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def owner(uri: str) -> str:
    """The account whose registry an image is of; empty for one of CodeBuild's own."""
    match = _URI.fullmatch(uri)
    return match["account"] if match is not None else ""


async def environment(session: RoleSession, uri: str) -> images.Environment:
    """What an image means; raises Failed."""
    if checking.managed(uri):
        try:
            return images.located(ENVIRONMENT)
        except Refused as refused:
            raise Failed("BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE", refused.message) from None
    match = _URI.fullmatch(uri)
    if match is None:
        raise Failed("BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE", f"The image {uri[:200]} is none of this platform's ECR.")
    if shutil.which("busybox", path="/usr/bin") is None:
        raise Failed("FAULT", "This machine cannot run images of your own yet: see bastide doctor.")
    id: dict[str, str] = {"imageTag": match["tag"] or "latest"}
    if match["digest"]:
        id = {"imageDigest": match["digest"]}
    return await _Pull(session, uri, match["account"], match["name"]).container(id)


class _Pull:
    def __init__(self, session: RoleSession, uri: str, account: str, name: str) -> None:
        self._session = session
        self._uri = uri
        self._where = {"registryId": account, "repositoryName": name}
        self._containers = session.calls.engine(Containers)

    def _failed(self, why: str) -> Failed:
        return Failed(
            "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE",
            f"Unable to pull the image {self._uri[:300]} with the service role {self._session.role}: {why}",
        )

    async def _ask(self, operation: str, **given: Any) -> dict[str, Any]:
        try:
            return await self._session.act("ecr", operation, {**self._where, **given})
        except Refused as refused:
            raise self._failed(f"{refused.code}: {refused.message}") from None

    async def _manifest(self, id: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """Digest and content of a manifest; of a list the one for this machine."""
        output = await self._ask("BatchGetImage", imageIds=[id])
        if output["failures"] or not output["images"]:
            raise self._failed("ImageNotFoundException: there is no such image")
        held = output["images"][0]
        told: dict[str, Any] = orjson.loads(held["imageManifest"])
        if held["imageManifestMediaType"] not in _LISTS:
            return str(held["imageId"]["imageDigest"]), told
        here = _MACHINES.get(platform.machine(), platform.machine())
        for one in told["manifests"]:
            kind = one.get("platform") or {}
            if (kind.get("os"), kind.get("architecture")) == ("linux", here) and one.get("mediaType") not in _LISTS:
                return await self._manifest({"imageDigest": one["digest"]})
        raise self._failed(f"it has no image for linux/{here}")

    async def _blob(self, described: dict[str, Any]) -> Blob:
        digest = str(described["digest"])
        url = (await self._ask("GetDownloadUrlForLayer", layerDigest=digest))["downloadUrl"]

        async def open() -> tuple[int, AsyncIterator[bytes]]:
            return await self._containers.downloads.open(url)

        return Blob(digest, str(described.get("mediaType") or ""), open)

    async def container(self, id: dict[str, str]) -> Container:
        """The image, unpacked."""
        digest, told = await self._manifest(id)
        config, *layers = [await self._blob(one) for one in (told["config"], *told["layers"])]
        try:
            return await self._containers.get(self._where["repositoryName"], digest, config, layers)
        except Unfit as unfit:
            raise self._failed(str(unfit)) from None
        except Refused as refused:
            raise self._failed(f"{refused.code}: {refused.message}") from None
        except Damaged:
            raise self._failed("one of its layers is damaged at rest: push it again") from None
