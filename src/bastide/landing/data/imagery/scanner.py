"""Examines an image before it is pushed, and stops a build. Any other program may stand in its place.

    scanner.py IMAGE LAYER...    LAYER: digests of the contents that the image's layers are to begin with

Refused are: other layers, a user that is root, programs that give their users more rights, private keys.
"""

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
MOST = 4 << 20


def main(image: str, *below: str) -> int:
    layout = Path("/tmp/examined")
    subprocess.run(["buildah", "push", "-q", image, f"oci:{layout}"], check=True, stdout=subprocess.DEVNULL)

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(entry["digest"]).read_text())
    held: dict[str, Any] = json.loads(blob(manifest["config"]["digest"]).read_text())
    found = []
    diffs = held["rootfs"]["diff_ids"]
    if diffs[: len(below)] != list(below):
        found.append("its layers do not begin with those of what it is built on")
    if (held.get("config") or {}).get("User", "").split(":")[0] in ("", "root", "0"):
        found.append("its user is root")
    for layer in manifest["layers"][len(below) :]:
        with tarfile.open(blob(layer["digest"])) as tar:
            for one in tar:
                if one.isfile() and one.mode & 0o6000:
                    found.append(f"{one.name} gives its users more rights")
                content = tar.extractfile(one) if one.isfile() and one.size < MOST else None
                if content is not None and KEY.search(content.read()):
                    found.append(f"{one.name} has a private key")
    subprocess.run(["rm", "-rf", str(layout)], check=True)
    for why in found:
        print(f"finding: {why}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
