"""A bill of materials: what a scan saw in an image, as CycloneDX 1.6 in JSON.

Source: CycloneDX specification 1.6; Package URL specification, types deb, apk and pypi.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any
from urllib.parse import quote

from bastide import __version__
from bastide.domain import Refused, iso
from bastide.services.ecr.repository import SCAN, TAG, arn_of, find
from bastide.store import View


def of(view: View, account: str, region: str, name: str, reference: str) -> dict[str, Any]:
    """The document of an image, by digest or tag; raises ScanNotFoundException where no scan came to its end."""
    repository = find(view, account, region, name)
    digest = reference
    if not reference.startswith("sha256:"):
        tag = TAG.get(view, account, region, f"{name}:{reference}")
        digest = tag.doc["digest"] if tag is not None else ""
    scan = SCAN.get(view, account, region, f"{name}@{digest}")
    if scan is None or not scan.doc.get("packages"):
        raise Refused(
            "ScanNotFoundException", f"No scan has seen what the image {reference[:128]} of {name} consists of.", 404
        )
    system = scan.doc["distribution"]
    components = [_component(one, system) for one in scan.doc["packages"]]
    refs = {one["bom-ref"] for one in components}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in scan.doc.get("findings") or ():
        known = found.setdefault(
            (one["name"], one["id"]),
            {
                "id": one["name"],
                "source": {"name": "OSV", "url": one["uri"]},
                "ratings": [{"severity": _SEVERITY.get(one["severity"], "unknown")}],
                "description": one["summary"],
                "affects": [],
            },
        )
        ref = _url(one["kind"], one["package"], one["version"], system)
        if ref in refs:
            known["affects"].append({"ref": ref})
    where = arn_of(repository)
    serial = uuid.UUID(bytes=hashlib.sha256(f"{where}@{digest}".encode()).digest()[:16], version=4)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": iso(scan.doc["completed"]),
            "tools": {"components": [{"type": "application", "name": "bastide", "version": __version__}]},
            "component": {
                "type": "container",
                "bom-ref": f"{name}@{digest}",
                "name": name,
                "version": digest,
                "properties": [{"name": "aws:ecr:repository", "value": where}],
            },
        },
        "components": components,
        "vulnerabilities": list(found.values()),
    }


_SEVERITY = {"CRITICAL": "critical", "HIGH": "high", "MEDIUM": "medium", "LOW": "low", "INFORMATIONAL": "info"}


def _component(one: list[str], system: list[str]) -> dict[str, Any]:
    kind, name, version, source, _, path = one
    url = _url(kind, name, version, system)
    told: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
    if source and source != name:
        told["properties"] = [{"name": "source", "value": source}]
    if path:
        told["evidence"] = {"occurrences": [{"location": path}]}
    return told


def _url(kind: str, name: str, version: str, system: list[str]) -> str:
    space = f"{quote(system[0])}/" if kind != "pypi" and system[0] else ""
    distribution = f"?distro={quote(system[0])}-{quote(system[1])}" if space and system[1] else ""
    return f"pkg:{kind}/{space}{quote(name)}@{quote(version)}{distribution}"
