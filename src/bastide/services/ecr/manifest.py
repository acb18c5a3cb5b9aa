"""Manifests: what an image is made of. Source: OCI Image Format Specification 1.1, Docker Image Manifest V2 Schema 2."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bastide.domain import Refused
from bastide.services.ecr.layer import DIGEST

MOST_BYTES: Final = 4 * 1024 * 1024
OCI: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_LISTS: Final = (OCI_INDEX, DOCKER_LIST)


@dataclass(frozen=True, slots=True)
class Manifest:
    """blobs: digests of configuration and layers, and the bytes that each is said to have. children: the same of the
    manifests of a list. size: bytes of all layers. artifact: the type of artifact, or else the media type of the
    configuration. subject: the digest of the image that it is about (a signature, an SBOM), empty if it is about none."""

    digest: str
    media: str
    blobs: dict[str, int]
    children: dict[str, int]
    size: int
    artifact: str
    subject: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def _invalid(message: str) -> Refused:
    return Refused(
        "InvalidParameterException",
        f"Invalid parameter at 'imageManifest' failed to satisfy constraint: {message}",
    )


def _descriptors(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise _invalid("it does not have the form of a manifest")
    for one in given:
        if not DIGEST.fullmatch(str(one.get("digest"))) or not isinstance(one.get("size"), int) or one["size"] < 0:
            raise _invalid("a descriptor has a sha256 digest and a size")
    return given


def _sizes(descriptors: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in descriptors:
        if found.setdefault(one["digest"], one["size"]) != one["size"]:
            raise _invalid(f"{one['digest']} has two sizes")
    return found


def read(text: str, media: str | None) -> Manifest:
    """A manifest from its text; raises Refused for what is none. media: what the client says it is."""
    raw = text.encode()
    if len(raw) > MOST_BYTES:
        raise _invalid(f"it has more than {MOST_BYTES} bytes")
    try:
        told = orjson.loads(raw)
    except ValueError:
        raise _invalid("it is not JSON") from None
    if not isinstance(told, dict) or told.get("schemaVersion") != 2:
        raise _invalid("it is not a manifest of schema version 2")
    kind = str(media or told.get("mediaType") or (OCI_INDEX if "manifests" in told else OCI))
    if kind not in (OCI, OCI_INDEX, DOCKER, DOCKER_LIST) or told.get("mediaType", kind) != kind:
        raise _invalid(f"its media type {kind[:128]} is not one of images, or not the one that it says itself")
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    subject = _descriptors([told["subject"]])[0]["digest"] if told.get("subject") is not None else ""
    notes = told.get("annotations") or {}
    if not isinstance(notes, dict) or not all(isinstance(one, str) for one in notes.values()):
        raise _invalid("its annotations are texts")
    type = str(told.get("artifactType") or "")[:256]
    if kind in _LISTS:
        return Manifest(digest, kind, {}, _sizes(_descriptors(told.get("manifests"))), 0, type, subject, notes)
    config = _descriptors([told.get("config")])[0]
    layers = _descriptors(told.get("layers"))
    size = sum(one["size"] for one in layers)
    type = type or str(config.get("mediaType") or "")[:256]
    return Manifest(digest, kind, _sizes([config, *layers]), {}, size, type, subject, notes)
