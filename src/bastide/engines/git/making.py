"""Commits made of edits: one run of ``git fast-import`` writes files, folders and the commit into a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bastide.engines.git.copies import Intake


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of a path. content: what the file holds then; id: or an object that is there; neither: it is gone.
    mode: as git has it."""

    path: str
    mode: str = "100644"
    content: bytes | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who makes a commit, and when (seconds since 1970, UTC)."""

    name: str
    email: str
    at: int

    def line(self) -> bytes:
        """As git writes it. What would end the name or the address is left out, as git does."""
        name, email = ("".join(c for c in one if c not in "<>\n\r\0").strip() for one in (self.name, self.email))
        return f"{name} <{email}> {self.at} +0000".encode()


def _quoted(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


def _data(raw: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(raw), raw)


def _stream(parents: Sequence[str], edits: Sequence[Edit], author: Signed, message: str) -> Iterator[bytes]:
    yield b"feature done\ncommit refs/heads/made\nmark :1\n"
    yield b"author %s\ncommitter %s\n" % (author.line(), author.line())
    yield _data(message.encode())
    if parents:
        yield f"from {parents[0]}\n".encode()
    for parent in parents[1:]:
        yield f"merge {parent}\n".encode()
    for edit in sorted(edits, key=lambda one: bool(one.id or one.content is not None)):
        if edit.content is not None:
            yield b"M %s inline %s\n%s" % (edit.mode.encode(), _quoted(edit.path), _data(edit.content))
        elif edit.id:
            yield b"M %s %s %s\n" % (edit.mode.encode(), edit.id.encode(), _quoted(edit.path))
        else:
            yield b"D %s\n" % _quoted(edit.path)
    yield b'\nget-mark :1\nls :1 ""\ndone\n'


async def commit(
    intake: Intake, parents: Sequence[str], edits: Sequence[Edit], author: Signed, message: str
) -> tuple[str, str]:
    """A commit whose tree is the first parent's with the edits done: its id and its tree's. Its objects are in the intake.

    Paths are checked by whoever asks (`names.legal_path`). Raises GitError, Damaged for what fsck does not take.
    """
    strictly = any("gitmodules" in edit.path.lower() or "~" in edit.path for edit in edits)
    said = await intake.write(_stream(parents, edits, author, message), strictly=strictly)
    id, _, tree = said.partition("\n")
    return id, tree.split()[2]
