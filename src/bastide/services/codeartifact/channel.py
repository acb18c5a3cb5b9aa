"""Conda channels behind a repository: what the operator's mirrors list, over the connections of the repository and of
those that it reaches. AWS has no conda in CodeArtifact; here a channel hangs on an external connection as the public index
of Python packages does, and is read with the same tokens and the same permission. Nothing is published to it, and nothing
of it is kept in the domain: what a repository gives out, it has from the mirror each time, compared with its hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from bastide.domain import Refused
from bastide.engines.indexes.channels import Channels, pieces
from bastide.kernel import Authorised, Calls
from bastide.services.codeartifact.noun import PUBLIC, missing, name_of, repository_of
from bastide.services.codeartifact.search import reachable


async def listed(a: Authorised) -> dict[str, dict[str, Any]]:
    """The packages of a subdir, by file name, each with its `channel`; with an asset, that one. Where several channels
    have a package of one name the first on the way has it, as conda's strict channel priority."""
    with a.calls.store.reading() as view:
        repository = repository_of(a, view)
        channels = [one for row in reachable(view, repository) for one in row.doc["connections"] if one != PUBLIC]
    if not channels:
        raise missing(
            "repository", name_of(repository), f"The repository {name_of(repository)} leads to no conda channel."
        )
    mirrors, subdir, asset = a.engine(Channels), str(a.input["namespace"]), a.input.get("asset")
    found: dict[str, dict[str, Any]] = {}
    for channel in (one.removeprefix("public:") for one in channels):
        taken = {one["name"] for one in found.values()}
        for name, record in (await asyncio.to_thread(mirrors.packages, channel, subdir)).items():
            if record["name"] not in taken:
                found[name] = {**record, "channel": channel}
    if asset is None:
        return found
    if asset not in found:
        raise missing("asset", str(asset), f"The repository {name_of(repository)} has no {subdir}/{asset}.")
    return {str(asset): found[str(asset)]}


async def bytes_of_package(calls: Calls, record: dict[str, Any]) -> AsyncIterator[bytes]:
    """The bytes of a package that `listed` told of; raises Refused where they are gone, or others."""
    try:
        file = await asyncio.to_thread(calls.engine(Channels).opened, record["channel"], record["sha256"])
    except OSError as error:
        raise Refused("ResourceNotFoundException", f"The package cannot be given out: {error}.", 404) from None
    return pieces(file)
