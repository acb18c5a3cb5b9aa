"""CodeArtifact: domains and repositories of packages, sealed under the domain's key, their policies asked at every install
and upload.

The endpoint that pip, uv and twine speak to is `bastide.registry`, which calls these operations.
Source: AWS CodeArtifact API Reference and User Guide.
"""

from __future__ import annotations

from bastide.kernel import Service
from bastide.services.codeartifact import domain as _domain  # declares the operations on domains
from bastide.services.codeartifact import package as _package  # declares the operations on packages
from bastide.services.codeartifact import policy as _policy  # declares the policies
from bastide.services.codeartifact import repository as _repository  # declares the operations on repositories
from bastide.services.codeartifact.channel import bytes_of_package
from bastide.services.codeartifact.examine import examine
from bastide.services.codeartifact.noun import (
    CONTENT,
    DOMAIN,
    GROUP,
    HOLDER,
    PACKAGE,
    READER,
    REPOSITORY,
    VERSION,
    facts,
)
from bastide.services.codeartifact.publish import Upload
from bastide.services.codeartifact.pypi import check_file, facts_of_form, of_file
from bastide.services.codeartifact.reading import METADATA, bytes_of
from bastide.services.codeartifact.token import caller_of
from bastide.store import View

__all__ = [
    "METADATA",
    "SERVICE",
    "Upload",
    "bytes_of",
    "bytes_of_package",
    "caller_of",
    "check_file",
    "examine",
    "facts_of_form",
    "files",
    "of_file",
]

SERVICE = Service("codeartifact", kinds=[DOMAIN, REPOSITORY, GROUP, PACKAGE, VERSION, CONTENT, READER], facts=facts)


def files(view: View) -> set[bytes]:
    """The ids of the files that contents are in. Reads all rows once: for a start, or a backup."""
    used: set[bytes] = set()
    after: str | None = None
    while holders := view.scan(HOLDER, "", "", after=after, limit=1000):
        for holder in holders:
            account, _, region = holder.name.partition("|")
            behind: str | None = None
            while rows := view.scan(CONTENT.key, account, region, after=behind, limit=1000):
                used.update(bytes.fromhex(row.doc["file"]) for row in rows)
                behind = rows[-1].name
        after = holders[-1].name
    return used


del _domain, _package, _policy, _repository
