"""Images of one's own as functions: found when a function is made, pulled by Lambda when it runs.

Lambda itself pulls, and the repository's policy lets it: where the repository is of the function's account and whoever
makes the function may change that policy, Lambda adds what it needs, as on AWS. Source: Lambda Developer Guide, "Create a
Lambda function using a container image", "Amazon ECR permissions".
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.engines.artifacts import Damaged
from bastide.engines.functions import Unavailable
from bastide.engines.images import Blob, Container, Containers, Unfit
from bastide.kernel import Authorised, Calls, service_caller
from bastide.services.lambda_.noun import PRINCIPAL, Named, invalid

_URI: Final = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)(?:\.[a-z0-9.-]+)?"
    r"(?::[0-9]{1,5})?/(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LISTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_SID: Final = "LambdaECRImageRetrievalPolicy"
_ACTIONS: Final = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a function is made of. digest: what its URI meant when the function was made."""

    uri: str
    account: str
    name: str
    digest: str

    def kept(self) -> dict[str, str]:
        """What a row keeps of it."""
        return {"uri": self.uri, "account": self.account, "name": self.name, "digest": self.digest}

    @property
    def resolved(self) -> str:
        """The URI with the digest."""
        return f"{self.uri.partition('@')[0].rpartition('/')[0]}/{self.name.rpartition('/')[2]}@{self.digest}"


async def find(a: Authorised, what: Named, uri: str) -> Image:
    """The image that a URI means now, which Lambda may pull; raises Refused."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise invalid(f"Source image {uri[:200]} is not valid. Provide a valid source image: one of ECR.")
    if match["region"] != what.region:
        raise invalid(f"Source image {uri[:200]} is of another region.")
    id = {"imageDigest": match["digest"]} if match["digest"] else {"imageTag": match["tag"] or "latest"}
    asked = {"registryId": match["account"], "repositoryName": match["name"], "imageIds": [id]}
    try:
        found = await _ask(a.calls, what, "BatchGetImage", asked)
    except Refused as refused:
        if refused.code != "AccessDeniedException" or match["account"] != a.account or not await _let_in(a, asked):
            raise _closed(refused) from None
        found = await _ask(a.calls, what, "BatchGetImage", asked)
    if not found["images"]:
        raise invalid(f"Source image {uri[:200]} does not exist. Provide a valid source image.")
    return Image(uri, match["account"], match["name"], str(found["images"][0]["imageId"]["imageDigest"]))


def _closed(refused: Refused) -> Refused:
    if refused.code == "RepositoryNotFoundException":
        return invalid(f"Source image is not valid: {refused.message}")
    return Refused(
        "AccessDeniedException",
        "Lambda does not have permission to access the ECR image. Check the ECR permissions: the repository's policy lets "
        f"{PRINCIPAL} do {' and '.join(_ACTIONS)}.",
        403,
    )


async def _ask(calls: Calls, what: Named, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    caller = service_caller(PRINCIPAL, what.account, what.function)
    return await calls.act(caller, "ecr", operation, dict(asked), region=what.region, source=PRINCIPAL)


async def _let_in(a: Authorised, asked: Mapping[str, Any]) -> bool:
    """Adds Lambda to the repository's policy, with the permissions of who asks; False where they do not reach."""
    where = {"registryId": asked["registryId"], "repositoryName": asked["repositoryName"]}
    document: dict[str, Any] = {"Version": "2012-10-17", "Statement": []}
    try:
        held = await a.calls.act(a.caller, "ecr", "GetRepositoryPolicy", dict(where), region=a.region, source=PRINCIPAL)
        document = json.loads(held["policyText"])
    except Refused as refused:
        if refused.code != "RepositoryPolicyNotFoundException":
            return False
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    statement = {
        "Sid": _SID,
        "Effect": "Allow",
        "Principal": {"Service": PRINCIPAL},
        "Action": _ACTIONS,
        "Condition": {"StringLike": {"aws:sourceArn": f"arn:aws:lambda:{a.region}:{a.account}:function:*"}},
    }
    document["Statement"] = [*(one for one in statements if one.get("Sid") != _SID), statement]
    put = {**where, "policyText": json.dumps(document)}
    try:
        await a.calls.act(a.caller, "ecr", "SetRepositoryPolicy", put, region=a.region, source=PRINCIPAL)
    except Refused:
        return False
    return True


# -- pulling -------------------------------------------------------------------------------------------------------------


class _Pull:
    def __init__(self, calls: Calls, what: Named, kept: Mapping[str, str]) -> None:
        self._calls = calls
        self._what = what
        self._where = {"registryId": kept["account"], "repositoryName": kept["name"]}

    async def _manifest(self, digest: str) -> tuple[str, dict[str, Any]]:
        """Digest and content of a manifest; of a list the one for this machine."""
        asked = {**self._where, "imageIds": [{"imageDigest": digest}]}
        images = (await _ask(self._calls, self._what, "BatchGetImage", asked))["images"]
        if not images:
            raise Unavailable("The function's image is gone from its repository.")
        told: dict[str, Any] = orjson.loads(images[0]["imageManifest"])
        if images[0]["imageManifestMediaType"] not in _LISTS:
            return digest, told
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        for one in told["manifests"]:
            kind = one.get("platform") or {}
            if (kind.get("os"), kind.get("architecture")) == ("linux", machine) and one.get("mediaType") not in _LISTS:
                return await self._manifest(str(one["digest"]))
        raise Unavailable(f"The function's image has none for linux/{machine}.")

    async def _blob(self, described: Mapping[str, Any]) -> Blob:
        asked = {**self._where, "layerDigest": described["digest"]}
        url = (await _ask(self._calls, self._what, "GetDownloadUrlForLayer", asked))["downloadUrl"]

        async def open() -> tuple[int, AsyncIterator[bytes]]:
            return await self._calls.engine(Containers).downloads.open(url)

        return Blob(str(described["digest"]), str(described.get("mediaType") or ""), open)

    async def container(self, digest: str) -> Container:
        own, told = await self._manifest(digest)
        config, *layers = [await self._blob(one) for one in (told["config"], *told["layers"])]
        return await self._calls.engine(Containers).get(self._where["repositoryName"], own, config, layers)


async def container(calls: Calls, what: Named, kept: Mapping[str, str]) -> Container:
    """The image, unpacked; asked for anew each time, so that a policy that changed counts. Raises Unavailable, Refused."""
    if shutil.which("busybox", path="/usr/bin") is None:
        raise Unavailable("This machine cannot run images yet: see bastide doctor.")
    try:
        return await _Pull(calls, what, kept).container(kept["digest"])
    except Unfit as unfit:
        raise Unavailable(f"The function's image cannot be used: {unfit}.") from None
    except Damaged:
        raise Unavailable("One of the image's layers is damaged at rest: push it again.") from None
    except Refused as refused:
        raise _closed(refused) from None


def configured(given: Mapping[str, Any]) -> dict[str, Any]:
    """ImageConfig as it is kept."""
    found = {name: given[name] for name in ("EntryPoint", "Command", "WorkingDirectory") if given.get(name)}
    folder = str(found.get("WorkingDirectory") or "/")
    if not folder.startswith("/") or any(part in (".", "..") for part in folder.split("/")):
        raise invalid("ImageConfig: WorkingDirectory is an absolute path.")
    return found


def command(image: Container, given: Mapping[str, Any]) -> list[str]:
    """What starts: the image's own entrypoint and command, or those that the function has instead."""
    found = [*(given.get("EntryPoint") or image.entrypoint), *(given.get("Command") or image.arguments)]
    if not found:
        raise Unavailable("The image has neither an entrypoint nor a command, and the function names none.")
    return found
