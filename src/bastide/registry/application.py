"""The ASGI application of the registry: paths below ``/v2/``, and the layers' addresses.

What a request does, in ECR's operations, is what AWS's registry records of its clients: a push is InitiateLayerUpload,
UploadLayerPart, CompleteLayerUpload and PutImage, a pull BatchGetImage and GetDownloadUrlForLayer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import orjson

from bastide import policy
from bastide.domain import Refused
from bastide.frontdoor.receive import Listener, Received, receive
from bastide.kernel import Call, Caller, Calls, Request, Unforeseen
from bastide.policy import Attached, Document, Form, Layers
from bastide.registry import answers
from bastide.registry.answers import Answer
from bastide.services import ecr

_log = logging.getLogger("bastide.registry")

_HOST: Final = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+")
_FIRST: Final = re.compile(r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)")
_ROUTE: Final = re.compile(
    r"/v2/(?P<name>[a-z0-9._/-]{1,512}?)/"
    r"(?:(?P<tags>tags/list)|manifests/(?P<reference>[A-Za-z0-9_.:-]{1,160})|blobs/uploads/(?P<upload>[0-9a-f-]{36})?"
    r"|blobs/(?P<digest>sha256:[0-9a-f]{64})|referrers/(?P<subject>sha256:[0-9a-f]{64})"
    r"|sbom/(?P<bill>[A-Za-z0-9_.:-]{1,160}))"
)
_MOST_MANIFEST: Final = 4 * 1024 * 1024
_ANYBODY: Final = Attached(
    Document.parse(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]},
        Form.RESOURCE,
    ),
    "the layers' bucket, whose addresses are proofs of permission",
)


@dataclass(slots=True)
class _Asked:
    """A request of somebody who is known. account, region, name: the repository."""

    received: Received
    caller: Caller
    account: str
    region: str
    name: str
    base: str
    query: dict[str, str]
    told: dict[str, str | None] = field(default_factory=dict)


class RegistryPages:
    """Answers what is the registry's. hosts: the names that the platform answers to. regions: those that exist."""

    inside = True

    def __init__(self, calls: Calls, hosts: tuple[str, ...], regions: tuple[str, ...]) -> None:
        self._calls = calls
        self._hosts = frozenset({*hosts, "127.0.0.1", "[::1]", "localhost"})
        self._regions = regions
        self._downloads = ecr.Downloads(calls)
        self._layer_hosts = {f"{ecr.bucket(region)}.s3.{region}.amazonaws.com": region for region in regions}

    def takes(self, scope: dict[str, Any]) -> bool:
        """Whether a request is for the registry: no bucket is called ``v2``."""
        host = _host(scope)
        if host in self._layer_hosts:
            return True
        path: str = scope["path"]
        return (path == "/v2" or path.startswith("/v2/")) and (host in self._hosts or _HOST.fullmatch(host) is not None)

    async def serve(self, scope: dict[str, Any], source: Any, send: Any, listener: Listener) -> None:
        """Answers one request."""
        answer: Answer
        received: Received | None = None
        try:
            received = receive(scope, source, listener, self._calls.clock)
            answer = await self._answer(received, _host(scope))
        except Refused as refused:
            answer = answers.refused(refused)
        except Unforeseen:
            _log.exception("a request to the registry failed")
            answer = answers.trouble()
        except Exception:
            _log.exception("a request to the registry failed")
            answer = answers.trouble()
        close = received is None or (not received.finished and received.length != 0)
        await answers.send(send, answer, scope["method"], received.id if received else "", close=close)

    # -- the ways -----------------------------------------------------------------------------------

    async def _answer(self, received: Received, host: str) -> Answer:
        path = unquote(received.raw_path.decode("latin-1"))
        if host in self._layer_hosts:
            self._through_s3(received, self._layer_hosts[host])
            return await self._layer(received, path)
        if path.startswith("/v2/_layers/"):
            return await self._layer(received, path)
        given = received.named.get("authorization")
        if given is None:
            return answers.challenge()
        caller = ecr.caller_of(self._calls, given)
        if path.rstrip("/") == "/v2":
            return Answer(200, {}, b"{}")
        found = _ROUTE.fullmatch(path)
        if found is None:
            raise Refused("NotFound", "There is no such page of the registry.", 404)
        account, region, name, base = self._repository(found["name"], host)
        asked = _Asked(
            received, caller, account, region, name, f"/v2/{base}{name}", _query(received), found.groupdict()
        )
        for part, works in self._works().items():
            if asked.told[part] is not None or (part == "upload" and "/blobs/uploads/" in path):
                work = works.get(received.method)
                if work is None:
                    raise Refused("Unsupported", f"{received.method} is not supported there.", 405)
                return await work(asked)
        raise Refused("NotFound", "There is no such page of the registry.", 404)

    def _works(self) -> dict[str, dict[str, Callable[[_Asked], Awaitable[Answer]]]]:
        return {
            "tags": {"GET": self._tags},
            "reference": {"GET": self._manifest, "HEAD": self._manifest, "PUT": self._put, "DELETE": self._delete},
            "digest": {"GET": self._blob, "HEAD": self._head},
            "subject": {"GET": self._referrers},
            "bill": {"GET": self._bill},
            "upload": {"POST": self._begin, "PATCH": self._go_on, "PUT": self._finish, "GET": self._progress},
        }

    def _repository(self, name: str, host: str) -> tuple[str, str, str, str]:
        """Account, region and name of a repository, and what stands before its name in paths."""
        named = _HOST.fullmatch(host)
        if named is not None:
            return named["account"], self._known(named["region"]), name, ""
        first, _, rest = name.partition("/")
        named = _FIRST.fullmatch(first)
        if named is None or not rest:
            raise Refused(
                "RepositoryNotFoundException",
                "The name of a repository begins with ACCOUNT.dkr.ecr.REGION/ here, as its repositoryUri says.",
                404,
            )
        return named["account"], self._known(named["region"]), rest, f"{first}/"

    def _known(self, region: str) -> str:
        if region not in self._regions:
            raise Refused("RepositoryNotFoundException", f"The region {region} is not one of this platform's.", 404)
        return region

    async def _call(self, asked: _Asked, operation: str, **given: Any) -> dict[str, Any]:
        held = self._calls.registry.operations["ecr", operation]
        received = asked.received
        request = Request(
            received.id,
            received.at,
            received.source_ip,
            received.named.get("user-agent", "")[:512],
            received.listener.secure,
            "json",
            received.named.get("host", ""),
            received.tls,
            signed="header",
            vpce=received.listener.vpce,
        )
        input = {"registryId": asked.account, "repositoryName": asked.name, **given}
        call = Call(held, input, asked.caller, asked.caller.account, asked.region, request)
        return await self._calls.run(call)

    # -- manifests -----------------------------------------------------------------------------------

    async def _tags(self, asked: _Asked) -> Answer:
        names: list[str] = []
        token: str | None = None
        while True:
            more = {"nextToken": token} if token else {}
            output = await self._call(asked, "ListImages", filter={"tagStatus": "TAGGED"}, maxResults=1000, **more)
            names += [one["imageTag"] for one in output["imageIds"]]
            token = output.get("nextToken")
            if not token:
                break
        shown = sorted(name for name in names if name > asked.query.get("last", ""))
        most = asked.query.get("n", "")
        head: dict[str, str] = {"content-type": "application/json"}
        if most.isascii() and most.isdigit() and len(most) < 6 and int(most) < len(shown):
            shown = shown[: int(most)]
            if shown:
                head["link"] = f'<{asked.base}/tags/list?n={most}&last={shown[-1]}>; rel="next"'
        return Answer(200, head, orjson.dumps({"name": asked.name, "tags": shown}))

    async def _manifest(self, asked: _Asked) -> Answer:
        output = await self._call(asked, "BatchGetImage", imageIds=[_id(asked)])
        if output["failures"]:
            one = output["failures"][0]
            raise Refused("ImageNotFoundException", one["failureReason"], 404)
        image = output["images"][0]
        head = {
            "content-type": image["imageManifestMediaType"],
            "docker-content-digest": image["imageId"]["imageDigest"],
        }
        return Answer(200, head, image["imageManifest"].encode())

    async def _put(self, asked: _Asked) -> Answer:
        raw = await asked.received.body(_MOST_MANIFEST)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise Refused("InvalidParameterException", "The manifest is not UTF-8.") from None
        id = _id(asked)
        media = asked.received.named.get("content-type", "").partition(";")[0].strip()
        given: dict[str, Any] = {"imageManifest": text, **id, **({"imageManifestMediaType": media} if media else {})}
        digest = str(id.get("imageDigest") or "")
        try:
            digest = (await self._call(asked, "PutImage", **given))["image"]["imageId"]["imageDigest"]
        except Refused as refused:
            if refused.code != "ImageAlreadyExistsException":
                raise
            digest = digest or answers.digest_of(raw)
        head = {"location": f"{asked.base}/manifests/{digest}", "docker-content-digest": digest}
        if subject := answers.subject_of(raw):
            head["oci-subject"] = subject
        return Answer(201, head)

    async def _referrers(self, asked: _Asked) -> Answer:
        """What is about an image, as an index (OCI Distribution 1.1, "Listing Referrers")."""
        type = asked.query.get("artifactType", "")
        given: dict[str, Any] = {"subjectId": {"imageDigest": asked.told["subject"]}}
        if type:
            given["filter"] = {"artifactTypes": [type]}
        found: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            more = {"nextToken": token} if token else {}
            output = await self._call(asked, "ListImageReferrers", **given, **more)
            for one in output["referrers"]:
                shown = {name: one[name] for name in ("mediaType", "digest", "size", "artifactType") if one[name]}
                found.append({**shown, **({"annotations": one["annotations"]} if one["annotations"] else {})})
            token = output.get("nextToken")
            if not token:
                break
        index = {"schemaVersion": 2, "mediaType": answers.INDEX, "manifests": found}
        head = {"content-type": answers.INDEX, **({"oci-filters-applied": "artifactType"} if type else {})}
        return Answer(200, head, orjson.dumps(index))

    async def _bill(self, asked: _Asked) -> Answer:
        """What a scan saw in an image, as CycloneDX: for whoever may read its findings."""
        reference = str(asked.told["bill"])
        id = {"imageDigest": reference} if reference.startswith("sha256:") else {"imageTag": reference}
        await self._call(asked, "DescribeImageScanFindings", imageId=id, maxResults=1)
        with self._calls.store.reading() as view:
            told = ecr.sbom.of(view, asked.account, asked.region, asked.name, reference)
        return Answer(200, {"content-type": "application/vnd.cyclonedx+json"}, orjson.dumps(told))

    async def _delete(self, asked: _Asked) -> Answer:
        output = await self._call(asked, "BatchDeleteImage", imageIds=[_id(asked)])
        if output["failures"]:
            raise Refused("ImageNotFoundException", output["failures"][0]["failureReason"], 404)
        return Answer(202)

    # -- layers -----------------------------------------------------------------------------------

    async def _blob(self, asked: _Asked) -> Answer:
        output = await self._call(asked, "GetDownloadUrlForLayer", layerDigest=asked.told["digest"])
        where = str(output["downloadUrl"])
        if not asked.received.listener.vpce:
            where = where[where.index("/v2/_layers/") :]
        return Answer(307, {"location": where, "docker-content-digest": str(asked.told["digest"])})

    async def _head(self, asked: _Asked) -> Answer:
        size = await self._size(asked, str(asked.told["digest"]))
        if size is None:
            raise Refused("LayersNotFoundException", "The layer does not exist.", 404)
        head = {
            "content-type": "application/octet-stream",
            "docker-content-digest": str(asked.told["digest"]),
            "content-length": str(size),
        }
        return Answer(200, head)

    async def _size(self, asked: _Asked, digest: str) -> int | None:
        output = await self._call(asked, "BatchCheckLayerAvailability", layerDigests=[digest])
        found = output["layers"][0] if output["layers"] else {}
        return int(found["layerSize"]) if found.get("layerAvailability") == "AVAILABLE" else None

    async def _begin(self, asked: _Asked) -> Answer:
        """An upload begins. What another repository has is not taken over (`mount`): that would be a way to layers of a
        repository whose policy was not asked; the client uploads it, as the specification has it."""
        upload = str((await self._call(asked, "InitiateLayerUpload"))["uploadId"])
        if asked.query.get("digest"):
            asked.told["upload"] = upload
            return await self._finish(asked)
        return self._accepted(asked, upload, 0)

    def _accepted(self, asked: _Asked, upload: str, received: int) -> Answer:
        head = {
            "location": f"{asked.base}/blobs/uploads/{upload}?received={received}",
            "docker-upload-uuid": upload,
            "range": f"0-{max(0, received - 1)}",
        }
        return Answer(202, head)

    @staticmethod
    def _upload(asked: _Asked) -> tuple[str, int]:
        upload, begun = asked.told["upload"], asked.query.get("received", "0")
        if upload is None or not begun.isascii() or not begun.isdigit() or len(begun) > 15:
            raise Refused("UploadNotFoundException", "There is no such upload.", 404)
        return upload, int(begun)

    async def _take(self, asked: _Asked) -> tuple[str, int]:
        """The body, in parts; the upload and how much of it there is then."""
        upload, at = self._upload(asked)
        held = bytearray()

        async def put(data: bytes) -> None:
            nonlocal at
            given = {"partFirstByte": at, "partLastByte": at + len(data) - 1, "layerPartBlob": data}
            await self._call(asked, "UploadLayerPart", uploadId=upload, **given)
            at += len(data)

        while piece := await asked.received.more():
            held += piece
            while len(held) >= ecr.PART_BYTES:
                await put(bytes(held[: ecr.PART_BYTES]))
                del held[: ecr.PART_BYTES]
        if held:
            await put(bytes(held))
        return upload, at

    async def _go_on(self, asked: _Asked) -> Answer:
        return self._accepted(asked, *await self._take(asked))

    async def _progress(self, asked: _Asked) -> Answer:
        upload, at = self._upload(asked)
        answer = self._accepted(asked, upload, at)
        return Answer(204, answer.head)

    async def _finish(self, asked: _Asked) -> Answer:
        digest = asked.query.get("digest", "")
        upload, _ = await self._take(asked)
        try:
            await self._call(asked, "CompleteLayerUpload", uploadId=upload, layerDigests=[digest])
        except Refused as refused:
            if refused.code != "LayerAlreadyExistsException":
                raise
        return Answer(201, {"location": f"{asked.base}/blobs/{digest}", "docker-content-digest": digest})

    # -- what a layer's address leads to -----------------------------------------------------------------------------------

    async def _layer(self, received: Received, path: str) -> Answer:
        if received.method not in ("GET", "HEAD"):
            raise Refused("Unsupported", "A layer can be read only.", 405)
        size, content = await self._downloads.open(path)
        head = {"content-type": "application/octet-stream", "content-length": str(size)}
        return Answer(200, head, stream=content)

    def _through_s3(self, received: Received, region: str) -> None:
        """Raises Refused if the way is no endpoint for S3, or its policy does not let layers through."""
        vpce = received.listener.vpce
        with self._calls.store.reading() as view:
            endpoint = self._calls.network.endpoint(view, vpce) if vpce else None
        arn = f"arn:aws:s3:::{ecr.bucket(region)}/layer"
        if endpoint is None or "s3" not in endpoint.services:
            raise Refused("AccessDenied", "Layers come over an endpoint for S3.", 403)
        asked = policy.Request(policy.Principal("Anonymous", None, "", ""), "s3:GetObject", arn, None, {})
        layers = Layers((), None, None, _ANYBODY, (), (), endpoint=endpoint.policy, resource_kind="")
        if not policy.decide(asked, layers).allowed:
            raise Refused("AccessDenied", f"The policy of {vpce} does not allow s3:GetObject on {arn}.", 403)


def _host(scope: dict[str, Any]) -> str:
    found = str(dict(scope["headers"]).get(b"host", b"").decode("latin-1")).lower()
    return found.rsplit(":", 1)[0] if found.rpartition(":")[2].isdigit() else found


def _query(received: Received) -> dict[str, str]:
    found = {}
    for part in received.raw_query.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        found[unquote(name)] = unquote(value)
    return found


def _id(asked: _Asked) -> dict[str, str]:
    reference = str(asked.told["reference"])
    return {"imageDigest": reference} if reference.startswith("sha256:") else {"imageTag": reference}
