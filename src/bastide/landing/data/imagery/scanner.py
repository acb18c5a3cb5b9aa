"""Examines an image before it is pushed, and stops a build. Any other program may stand in its place.

    scanner.py IMAGE LAYER...    LAYER: digests of the contents that the image's layers are to begin with

Refused are: other layers, a user that is root, programs that give their users more rights, private keys, and packages of
dpkg with vulnerabilities that the source's folder `known` tells of, as files in the OSV format.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
MOST = 4 << 20
KNOWN = Path(os.environ.get("CODEBUILD_SRC_DIR", "."), "known")
STATUS, RELEASES = "var/lib/dpkg/status", ("etc/os-release", "usr/lib/os-release")


def older(version: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "lt", other], check=False).returncode == 0


def packages(status: str) -> Iterator[tuple[str, str, str]]:
    """Name, source and version of what is installed."""
    for paragraph in status.split("\n\n"):
        told: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.M))
        if told.get("Status", "").endswith(" installed") and "Version" in told:
            source, _, version = (told.get("Source") or told["Package"]).partition(" ")
            yield told["Package"], source, version.strip("()") or told["Version"]


def vulnerable(files: dict[str, str]) -> Iterator[str]:
    """What is known of the packages of an image. files: what its layers leave at a few places."""
    release = next((files[one] for one in RELEASES if one in files), "")
    told = dict(re.findall(r"^([A-Z_]+)=\"?([^\"\n]*)", release, re.M))
    system = f"{told.get('ID', '').title()}:{told.get('VERSION_ID', '')}"
    held = list(packages(files.get(STATUS, "")))
    for file in sorted(KNOWN.glob("*.json")):
        advisory = json.loads(file.read_text())
        for one in advisory.get("affected", ()):
            if f"{one['package']['ecosystem']}:".startswith(f"{system}:"):
                for name, source, version in held:
                    if source == one["package"]["name"] and within(version, one.get("ranges", ())):
                        yield f"{name} {version} has {advisory['id']}"


def within(version: str, ranges: list[dict[str, Any]]) -> bool:
    """Whether a version lies in one of OSV's ranges."""
    for one in ranges:
        hit = False
        for event in one["events"]:
            if "introduced" in event and (event["introduced"] == "0" or not older(version, event["introduced"])):
                hit = True
            if "fixed" in event and not older(version, event["fixed"]):
                hit = False
        if hit:
            return True
    return False


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
    files: dict[str, str] = {}
    for number, layer in enumerate(manifest["layers"]):
        with tarfile.open(blob(layer["digest"])) as tar:
            for one in tar:
                place = one.name.removeprefix("./")
                if place in (STATUS, *RELEASES) and one.isfile() and one.size < MOST * 16:
                    files[place] = tar.extractfile(one).read().decode(errors="replace")  # type: ignore[union-attr]
                if number < len(below):
                    continue
                if one.isfile() and one.mode & 0o6000:
                    found.append(f"{one.name} gives its users more rights")
                content = tar.extractfile(one) if one.isfile() and one.size < MOST else None
                if content is not None and KEY.search(content.read()):
                    found.append(f"{one.name} has a private key")
    found += vulnerable(files)
    subprocess.run(["rm", "-rf", str(layout)], check=True)
    for why in found:
        print(f"finding: {why}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
