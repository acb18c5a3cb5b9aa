"""Images written by hand: an OCI layout needs no builder, and hostile layers no permission of one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BUSYBOX = "/usr/bin/busybox"
PROGRAMS = (
    "sh cat echo ls id mkdir cp touch sleep env hostname grep printf kill nc chmod mount mknod unshare wget dd wc od tr "
    "test yes head rm chown su ps ln stat cut dpkg"
)
Layer = Callable[[tarfile.TarFile], None]


def entry(tar: tarfile.TarFile, name: str, content: bytes = b"", mode: int = 0o644, **more: Any) -> None:
    """One entry as it is told, however wrong."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    """A symbolic or hard link."""
    entry(tar, name, type=kind, linkname=target)


def system(tar: tarfile.TarFile) -> None:
    """A small system: busybox under the names that scripts use."""
    entry(tar, "bin/busybox", Path(BUSYBOX).read_bytes(), 0o755)
    for name in PROGRAMS.split():
        link(tar, f"bin/{name}", "busybox")
    entry(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:4711:4712:app:/home/app:/bin/sh\n")
    entry(tar, "etc/group", b"root:x:0:\napp:x:4712:\n")


def scripts(**files: str) -> Layer:
    """Programs in /usr/local/bin."""

    def put(tar: tarfile.TarFile) -> None:
        for name, text in files.items():
            entry(tar, f"usr/local/bin/{name}", f"#!/bin/sh\n{text}\n".encode(), 0o755)

    return put


def packed(layer: Layer) -> tuple[bytes, str]:
    """A layer's bytes, and the digest of them unpacked."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        layer(tar)
    return gzip.compress(plain.getvalue(), 6, mtime=0), f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"


def layout(folder: Path, layers: Sequence[Layer | tuple[bytes, str]], config: Mapping[str, Any] | None = None) -> str:
    """Writes an image as an OCI layout; the digest of its manifest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    told, diffs = [], []
    for layer in layers:
        data, diff = packed(layer) if callable(layer) else layer
        digest, size = blob(data)
        told.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
        diffs.append(diff)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    whole = {
        "architecture": machine,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"created_by": "tests"} for _ in diffs],  # builders go on from it
    }
    digest, size = blob(json.dumps(whole).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        "layers": told,
    }
    digest, size = blob(json.dumps(manifest).encode())
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": manifest["mediaType"], "digest": digest, "size": size}],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return digest
