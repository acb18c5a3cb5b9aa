"""Git repositories: packs that lie sealed elsewhere, worked on by the ``git`` program in a sandbox."""

from bastide.engines.git.copies import MOST_OBJECTS, Busy, Copy, Git, Intake
from bastide.engines.git.making import Edit, Signed, commit
from bastide.engines.git.merging import Conflict, Merged, merge
from bastide.engines.git.names import legal_path, legal_reference
from bastide.engines.git.objects import ID, NOTHING, Change, Commit, Entry, Person
from bastide.engines.git.programs import Damaged, GitError, TooMuch

__all__ = [
    "ID",
    "MOST_OBJECTS",
    "NOTHING",
    "Busy",
    "Change",
    "Commit",
    "Conflict",
    "Copy",
    "Damaged",
    "Edit",
    "Entry",
    "Git",
    "GitError",
    "Intake",
    "Merged",
    "Person",
    "Signed",
    "TooMuch",
    "commit",
    "legal_path",
    "legal_reference",
    "merge",
]
