"""Images of one's own, by their URI in ECR: checked when a job is asked for, pulled with its role when it runs.

``ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG``, or the same behind the platform's own address, as ``repositoryUri`` says.
The account must be one of this platform's; every other URI means one of the environments that Bastide brings.
Source: SageMaker developer guide, "your-algorithms-training-algo-dockerfile", "sagemaker-roles".
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines import images
from bastide.engines.artifacts import Damaged
from bastide.engines.images import Blob, Container, Containers, Unfit
from bastide.engines.network import Joined, Networks
from bastide.engines.workflow import Failed
from bastide.kernel import Authorised, Calls
from bastide.services.sagemaker.session import SAGEMAKER, RoleSession
from bastide.store import View

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
PORT: Final = 8080
"""Where a container that serves listens (developer guide, "your-algorithms-inference-code")."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image in a registry of this platform."""

    account: str
    region: str
    name: str
    tag: str
    digest: str

    def id(self, digest: str = "") -> dict[str, str]:
        """The imageId; digest: what the tag was found to mean before."""
        if digest or (self.digest and not self.tag):
            return {"imageDigest": digest or self.digest}
        found = {"imageTag": self.tag or "latest"}
        return {**found, "imageDigest": self.digest} if self.digest else found


def named(calls: Calls, view: View, uri: str, account: str) -> Named | None:
    """What a URI names in a registry of this platform; None if it means something else."""
    match = _URI.fullmatch(uri) if len(uri) <= 255 else None
    if match is None:
        return None
    owner = match["account"]
    if owner not in (account, calls.home) and calls.organisation.place(view, owner) is None:
        return None
    return Named(owner, match["region"], match["name"], match["tag"] or "", match["digest"] or "")


def check(a: Authorised, view: View, uri: str) -> images.Environment | None:
    """The environment that a URI means, None for an image of one's own; raises Refused for one of another region, and for
    one that nobody has."""
    found = named(a.calls, view, uri, a.account)
    if found is None:
        return images.resolve(uri)
    if found.region != a.region:
        raise Refused("ValidationException", f"The image {uri} is in {found.region}: it must be in {a.region}.")
    return None


def served(calls: Calls, account: str, container: dict[str, Any]) -> str:
    """The digest that a model's container is served from."""
    with calls.store.reading() as view:
        if named(calls, view, container["Image"], account) is not None:
            return str(container["ImageDigest"])
    return images.resolve(container["Image"]).digest


def digest_of(a: Authorised, view: View, uri: str) -> str:
    """The digest that a URI means now, looked up with the caller's own permissions; raises Refused."""
    found = named(a.calls, view, uri, a.account)
    if found is None:
        return images.resolve(uri).digest
    check(a, view, uri)
    asked = {"registryId": found.account, "repositoryName": found.name, "imageIds": [found.id()]}
    try:
        output = a.forward(view, "ecr", "BatchGetImage", asked, SAGEMAKER)
    except Refused as refused:
        raise Refused("ValidationException", f"Could not access the image {uri}: {refused.message}") from None
    if output["failures"]:
        raise Refused(
            "ValidationException", f"The image {uri} does not exist: {output['failures'][0]['failureReason']}"
        )
    return str(output["images"][0]["imageId"]["imageDigest"])


class _Pull:
    """A pull with a role: every blob's address is asked for, also of an image that is here already."""

    def __init__(self, session: RoleSession, uri: str, found: Named) -> None:
        self._session = session
        self._uri = uri
        self._where = {"registryId": found.account, "repositoryName": found.name}
        self._containers = session.calls.engine(Containers)

    async def _ask(self, operation: str, **given: Any) -> dict[str, Any]:
        try:
            return await self._session.act("ecr", operation, {**self._where, **given})
        except Refused as refused:
            raise self.failed(f"{refused.code}: {refused.message}") from None

    def failed(self, why: str) -> Failed:
        return Failed(
            "ClientError",
            f"Failed to pull the image {self._uri}. Please ensure that it exists and that the role "
            f"{self._session.role} may pull it. {why}",
        )

    async def manifest(self, id: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """Digest and content of a manifest; of a list the one for this machine."""
        output = await self._ask("BatchGetImage", imageIds=[id])
        if output["failures"]:
            raise self.failed(f"ImageNotFoundException: {output['failures'][0]['failureReason']}")
        image = output["images"][0]
        told: dict[str, Any] = orjson.loads(image["imageManifest"])
        if image["imageManifestMediaType"] not in _LISTS:
            return image["imageId"]["imageDigest"], told
        here = _MACHINES.get(platform.machine(), platform.machine())
        for one in told["manifests"]:
            kind = one.get("platform") or {}
            if kind.get("os") == "linux" and kind.get("architecture") == here and one.get("mediaType") not in _LISTS:
                return await self.manifest({"imageDigest": one["digest"]})
        raise self.failed(f"It has no image for linux/{here}.")

    async def blob(self, described: dict[str, Any]) -> Blob:
        """A blob that can be read."""
        digest = str(described["digest"])
        url = (await self._ask("GetDownloadUrlForLayer", layerDigest=digest))["downloadUrl"]

        async def open() -> tuple[int, AsyncIterator[bytes]]:
            return await self._containers.downloads.open(url)

        return Blob(digest, str(described.get("mediaType") or ""), open)

    async def container(self, id: dict[str, str]) -> Container:
        """The image, unpacked."""
        digest, told = await self.manifest(id)
        described = [told["config"], *told["layers"]]
        for start in range(0, len(described), 100):
            await self._ask(
                "BatchCheckLayerAvailability", layerDigests=[one["digest"] for one in described[start : start + 100]]
            )
        config, *layers = [await self.blob(one) for one in described]
        try:
            return await self._containers.get(self._where["repositoryName"], digest, config, layers)
        except Unfit as unfit:
            raise Failed("ClientError", f"The image {self._uri} cannot be used: {unfit}.") from None
        except Refused as refused:
            raise self.failed(f"{refused.code}: {refused.message}") from None
        except Damaged:
            raise self.failed("One of its layers is damaged at rest: push it again.") from None


def _named(session: RoleSession, uri: str) -> Named | None:
    with session.calls.store.reading() as view:
        return named(session.calls, view, uri, session.account)


async def digest_for_role(session: RoleSession, uri: str) -> str:
    """The same when a request is answered: raises Refused."""
    try:
        return await pin(session, uri)
    except Failed as failed:
        raise Refused("ValidationException", failed.message) from None


async def pin(session: RoleSession, uri: str) -> str:
    """The digest that a URI means now, for the role of the session; raises Failed."""
    found = _named(session, uri)
    if found is None:
        return images.resolve(uri).digest
    return (await _Pull(session, uri, found).manifest(found.id()))[0]


async def environment(session: RoleSession, uri: str, digest: str = "") -> images.Environment:
    """What a URI means, pulled with the session's role. digest: what it was found to mean before. Raises Failed, and
    Refused for an environment that is not there."""
    found = _named(session, uri)
    if found is None:
        return images.resolve(uri)
    if shutil.which("busybox", path="/usr/bin") is None:
        raise Failed("InternalServerError", "This machine cannot run containers of your own yet: see bastide doctor.")
    return await _Pull(session, uri, found).container(found.id(digest))


def command(environment: images.Environment, entrypoint: Any, arguments: Any, default: str) -> list[str]:
    """What starts, as `docker run` has it: the entrypoint, one's own or the image's, and arguments behind it. default: what
    SageMaker gives where there are none; empty for the image's own. Raises Failed if that is nothing."""
    if isinstance(environment, Container):
        own = [default] if default else environment.arguments
        found = [*(entrypoint or environment.entrypoint), *(arguments or ([] if entrypoint else own))]
    else:
        found = [*(entrypoint or (environment.train if default else environment.process)), *(arguments or ())]
    if not found:
        raise Failed("ClientError", "The image has neither an entrypoint nor a command, and the request names none.")
    return found


class Bridge:
    """A unix socket that leads to a container's port.

    namespace: the network that the container is in; for "" one of its own is made, where nobody else is.
    """

    def __init__(self, networks: Networks, path: Path, namespace: str = "", port: int = PORT) -> None:
        self._networks = networks
        self._path = path
        self._namespace = namespace
        self._port = port
        self._joined: Joined | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Makes the network where there is none; the namespace that the container is to be in."""
        if not self._namespace:
            self._joined = await self._networks.join(1, encrypted=False)
            self._namespace = self._joined.peers[0].namespace
        await asyncio.to_thread(self._path.unlink, missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        return self._namespace

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            made = await asyncio.to_thread(self._networks.connect, self._namespace, self._port)
            back, forth = await asyncio.open_connection(sock=made)
            ends.append(forth)
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        except OSError:
            pass  # it does not listen (yet), or has gone
        finally:
            for end in ends:
                end.close()

    async def close(self) -> None:
        """Takes it away; closing twice is fine."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._joined is not None:
            await self._joined.close()
            self._joined = None
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._path.unlink, missing_ok=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
