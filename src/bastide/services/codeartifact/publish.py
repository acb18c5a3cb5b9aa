"""Publishing: an asset comes into a version, and is never another one under its name.

Over the API it is an asset of a generic package, as on AWS; over a repository's endpoint a distribution of a project,
whose form `Upload` tells (`bastide.registry`). Source: CodeArtifact API Reference, PublishPackageVersion; User Guide,
"Overview of generic packages".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output
from bastide.services.codeartifact import content, group, pypi, sealing
from bastide.services.codeartifact.noun import (
    PACKAGE,
    VERSION,
    canonical,
    conflict,
    domain_of,
    invalid,
    name_of,
    package_name,
    repository_of,
    supported,
    this_package,
)
from bastide.services.codeartifact.search import restriction
from bastide.services.codeartifact.telling import revise, told
from bastide.store import Row, Transaction, View

_MOST_ASSETS: Final = 150
_PLAIN: Final = re.compile(r"(?!\.{1,2}\Z)[^#/\s]+")


@dataclass(slots=True)
class Upload:
    """What a form said that came over a repository's endpoint. facts: of the project; sha256: of the file, if told."""

    facts: pypi.Facts
    sha256: str = ""


def _checked(a: Authorised, view: View) -> tuple[Row, Row, str]:
    """Domain, repository and the version's row name; raises Refused for whatever may not be published."""
    domain, repository = domain_of(a, view), repository_of(a, view)
    format, upload = str(a.input["format"]), a.call.prepared
    supported(format)
    if format != "generic" and not isinstance(upload, Upload):
        raise invalid("PublishPackageVersion takes packages of the format generic; use twine or uv for pypi.")
    for member in ("package", "packageVersion", "namespace"):
        if a.input.get(member) is not None and not _PLAIN.fullmatch(str(a.input[member])):
            raise invalid(f"{member} is not a name that a package has.")
    asset = str(a.input["assetName"])
    name = package_name(a.input, name_of(repository))
    package = PACKAGE.get(view, domain.account, domain.region, name)
    path = "/" + name.split("/", 2)[2]
    if restriction(package, "publish") == "BLOCK" or not group.allows(
        view, domain, path, name_of(repository), "PUBLISH"
    ):
        raise conflict(
            "package", str(a.input["package"]),
            f"Versions of the package {a.input['package']} may not be published to this repository: its origin "
            "configuration, or its package group's, blocks publishing.",
        )  # fmt: skip
    key = f"{name}/{canonical(format, str(a.input['packageVersion']))}"
    version = VERSION.get(view, domain.account, domain.region, key)
    if version is not None:
        if asset in version.doc["assets"]:
            raise conflict(
                "asset", asset,
                f"The asset {asset} of version {a.input['packageVersion']} exists already; assets are never replaced.",
            )  # fmt: skip
        if format == "generic" and version.status != "Unfinished":
            raise conflict(
                "package-version", str(a.input["packageVersion"]),
                f"The version is {version.status}; assets can be added to one that is Unfinished.",
            )  # fmt: skip
        if version.status in ("Archived", "Disposed") or version.doc["origin"]["originType"] != "INTERNAL":
            raise conflict(
                "package-version", str(a.input["packageVersion"]),
                f"The version is {version.status} and came from {version.doc['origin']['originType']}; no asset can be "
                "added to it.",
            )  # fmt: skip
        if len(version.doc["assets"]) >= _MOST_ASSETS:
            raise Refused("ServiceQuotaExceededException", f"A version has {_MOST_ASSETS} assets at most.", 402)
    return domain, repository, key


async def _receive(a: Authorised) -> content.Staged:
    with a.calls.store.reading() as view:
        domain, _, _ = _checked(a, view)
    body, upload = a.call.body, a.call.prepared
    if body is None:
        raise invalid("The call brings no asset.")
    wanted = upload.sha256 if upload is not None else str(a.input["assetSHA256"])
    project = upload.facts.name if upload is not None else ""
    return await content.stage(a.calls, domain, body.chunks(), str(a.input["assetName"]), project, sha256=wanted)


async def _undo(a: Authorised) -> None:
    if a.staged is not None:
        await sealing.drop(a.calls, a.staged.files())


async def _forget(a: Authorised, output: Output) -> Output:
    await sealing.drop(a.calls, a.staged.unused)
    return output


@VERSION.operation(
    "PublishPackageVersion",
    asks=[Ask("codeartifact:PublishPackageVersion", this_package)],
    before=_receive,
    undo=_undo,
    after=_forget,
)
def publish(a: Authorised, tx: Transaction) -> Output:
    domain, repository, key = _checked(a, tx)
    staged: content.Staged = a.staged
    upload: Upload | None = a.call.prepared
    format, asset = str(a.input["format"]), str(a.input["assetName"])
    facts = staged.facts or (upload.facts if upload is not None else None)
    state = "Unfinished" if a.input.get("unfinished") else "Published"
    version = add(
        tx, domain, repository, key, asset, staged, facts,
        status=state, origin={"originType": "INTERNAL", "domainEntryPoint": {"repositoryName": name_of(repository)}},
        now=a.now, request=a.request.id,
    )  # fmt: skip
    shown = {"name": asset, "size": staged.asset.size, "hashes": staged.asset.hashes}
    return {
        "format": format,
        **({"namespace": a.input["namespace"]} if a.input.get("namespace") else {}),
        "package": key.split("/")[4],
        "version": key.split("/", 5)[5],
        "versionRevision": version.doc["revision"],
        "status": version.status,
        "asset": shown,
    }


def add(
    tx: Transaction, domain: Row, repository: Row, key: str, asset: str, staged: content.Staged,
    facts: pypi.Facts | None, *, status: str, origin: dict[str, Any], now: int, request: str = "", yanked: bool = False,
) -> Row:  # fmt: skip
    """An asset comes into a version, which is made if it is not there, and so is its package; all of it is told."""
    internal = origin["originType"] == "INTERNAL"
    ensure_package(tx, key.rpartition("/")[0], domain, internal, request)
    named = [content.named(tx, domain, one) for one in (staged.asset, staged.metadata) if one is not None]
    staged.unused = [file for file in named if file is not None]
    held: dict[str, Any] = {"sha256": staged.asset.sha256, "size": staged.asset.size, "added": now}
    if staged.metadata is not None:
        held["metadata"] = staged.metadata.sha256
    if facts is not None and facts.requires_python:
        held["requires_python"] = facts.requires_python
    version = VERSION.get(tx, domain.account, domain.region, key)
    administrator = str(repository.doc["administrator"])
    if version is None:
        doc = {
            "assets": {asset: held},
            "facts": facts.kept() if facts is not None else {},
            "origin": origin,
            "born": now,
        }
        version = Row(
            VERSION.key, domain.account, domain.region, key, doc, "Unlisted" if yanked else status, created=now
        )
        revise(version)
        told(tx, version, "Created", administrator, added=1, status=True)
        VERSION.insert(tx, version, "PackageVersionPublished", request)
        return version
    before = version.status
    version.doc["assets"][asset] = held
    if before == "Unfinished":
        version.status = status
    revise(version)
    told(tx, version, "Updated", administrator, added=1, status=version.status != before)
    VERSION.change(tx, version, "PackageVersionPublished", request)
    return version


def ensure_package(tx: Transaction, name: str, domain: Row, internal: bool, request: str = "") -> None:
    """A package's row. How its first version came decides how further ones may: who publishes keeps what is upstream out,
    who takes over keeps publications out."""
    if PACKAGE.get(tx, domain.account, domain.region, name) is None:
        ways = {"publish": "ALLOW", "upstream": "BLOCK"} if internal else {"publish": "BLOCK", "upstream": "ALLOW"}
        PACKAGE.insert(
            tx, Row(PACKAGE.key, domain.account, domain.region, name, {"restrictions": ways}), "PackageAdded", request
        )
