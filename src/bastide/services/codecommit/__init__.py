"""AWS CodeCommit: git repositories, pull requests and their approval."""

from bastide.kernel import Service
from bastide.services.codecommit import approval_template, branch, comment, commit, merge, remote, repository, writing
from bastide.services.codecommit.approval import RULE
from bastide.services.codecommit.noun import COMMENT, PACK, PULL_REQUEST, REFERENCE, REPOSITORY, TEMPLATE, facts
from bastide.services.codecommit.remote import Command, Fetch, Push
from bastide.services.codecommit.trigger import Triggers
from bastide.store import View

SERVICE = Service("codecommit", [REPOSITORY, REFERENCE, PULL_REQUEST, RULE, TEMPLATE, COMMENT], facts=facts)


def files(view: View) -> set[bytes]:
    """The ids of the files that packs are in. Reads all their rows once: for a start, or a backup."""
    used: set[bytes] = set()
    after: str | None = None
    while rows := view.scan(PACK, "", "", after=after, limit=1000):
        used.update(bytes.fromhex(row.name.rpartition("/")[2]) for row in rows)
        after = rows[-1].name
    return used


del approval_template, branch, comment, commit, merge, remote, repository, writing

__all__ = ["SERVICE", "Command", "Fetch", "Push", "Triggers", "files"]
