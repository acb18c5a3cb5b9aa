"""Commits made by the API: PutFile, DeleteFile, CreateCommit."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import MICROS, Refused
from bastide.engines import git
from bastide.kernel import Authorised, Output
from bastide.services.codecommit import content
from bastide.services.codecommit.commit import LARGEST_FILE, MODES, mode_name, path_given
from bastide.services.codecommit.content import STAGED, Opened, Staged
from bastide.services.codecommit.moving import Move, move
from bastide.services.codecommit.noun import (
    HEADS,
    REFERENCE,
    branch,
    branch_name,
    id_of,
    moves,
    named,
    reference,
    references,
    refused,
)
from bastide.store import Transaction, View

_MOST_FILES: Final = 100
_MOST_BYTES: Final = 20 * 1024 * 1024
_MOST_MESSAGE: Final = 10 * 1024
_MOST_NAME: Final = 256


def signed(a: Authorised, name: str = "name") -> git.Signed:
    """Who the call says makes the commit; who calls if it does not say."""
    who, email = str(a.input.get(name) or a.caller.name), str(a.input.get("email") or "")
    if len(who) > _MOST_NAME:
        raise refused("NameLengthExceeded", f"A name has {_MOST_NAME} characters at most.")
    if len(email) > _MOST_NAME or any(c in email for c in "<>\n\r\0"):
        raise refused("InvalidEmail", "The email address is too long or has characters that it cannot have.")
    return git.Signed(who, email, a.now // MICROS)


def message(a: Authorised, otherwise: str) -> str:
    """The commit's message."""
    text = str(a.input.get("commitMessage") or otherwise)
    if len(text.encode("utf-8", "replace")) > _MOST_MESSAGE:
        raise refused("CommitMessageLengthExceeded", f"A commit message has {_MOST_MESSAGE} bytes at most.")
    return text


def whole_folders(a: Authorised) -> None:
    """Raises Refused for the member that has no effect here."""
    if a.input.get("keepEmptyFolders"):
        raise Refused(
            "ValidationException", "keepEmptyFolders is not supported by Bastide yet; git has no empty folders."
        )


@dataclass(slots=True)
class _Work:
    """The branch that a call commits to: its name, where it stands, and the files there."""

    name: str
    parent: str
    files: dict[str, git.Entry]
    edits: dict[str, git.Edit]

    def put(self, edit: git.Edit) -> None:
        """Adds an edit; raises SamePathRequestException for a second one of a path."""
        if edit.path in self.edits:
            raise refused("SamePathRequest", f"{edit.path} is changed twice.")
        self.edits[edit.path] = edit

    def existing(self, path: str) -> git.Entry:
        """The file at a path; raises FileDoesNotExistException."""
        found = self.files.get(path)
        if found is None or found.kind == "commit":
            raise refused("FileDoesNotExist", f"There is no file {path}")
        return found

    def check(self) -> None:
        """Raises Refused for files that would lie where folders are, and folders where files are."""
        after = {path for path in self.files if path not in self.edits}
        made = {path for path, edit in self.edits.items() if edit.content is not None or edit.id}
        after |= made
        folders = {"/".join(parts[:n]) for parts in (path.split("/") for path in after) for n in range(1, len(parts))}
        for path in made:
            if path in folders:
                raise refused("FileNameConflictsWithDirectoryName", f"{path} is a folder.")
            parts = path.split("/")
            for above in ("/".join(parts[:n]) for n in range(1, len(parts) + 1)):
                if above != path and above in after:
                    if above in self.files and self.files[above].kind == "commit":
                        raise refused("FilePathConflictsWithSubmodulePath", f"{above} is a submodule.")
                    raise refused("DirectoryNameConflictsWithFileName", f"{above} is a file.")


def _size(raw: bytes) -> bytes:
    if len(raw) > LARGEST_FILE:
        raise refused("FileContentSizeLimitExceeded", f"A file has {LARGEST_FILE} bytes at most; push it with git.")
    return raw


def _standing(a: Authorised, view: View) -> tuple[str, str]:
    """The branch of the call and its commit, empty in an empty repository; raises Refused where the parent is not it."""
    row = named(a, view)
    name = branch_name(a.input["branchName"])
    given = a.input.get("parentCommitId")
    if reference(view, row, HEADS + name) is None and not references(view, row, HEADS):
        return name, ""
    tip = str(branch(view, row, name).doc["object"])
    if not given:
        raise refused("ParentCommitIdRequired", f"The parent commit is required: {name} stands at {tip}")
    if id_of(given, "InvalidParentCommitId") != tip:
        raise refused(
            "ParentCommitIdOutdated", f"The parent commit is not the tip of {name} (any more), which is {tip}"
        )
    return name, tip


async def _made(a: Authorised, plan: Any, author: str, otherwise: str) -> Staged:
    """Makes the commit that a call is about. plan: fills in the edits."""
    whole_folders(a)
    with a.calls.store.reading() as view:
        name, tip = _standing(a, view)
    async with content.staging(a, lambda view: named(a, view)) as (here, intake, staged):
        work = _Work(name, tip, await here.copy.files(tip) if tip else {}, {})
        await plan(a, here, work)
        await asyncio.to_thread(work.check)
        before = await here.copy.commit(tip) if tip else None
        parents = [tip] if tip else []
        try:
            commit, tree = await git.commit(
                intake, parents, list(work.edits.values()), signed(a, author), message(a, otherwise)
            )
        except git.Damaged as error:
            raise refused("InvalidPath", f"git does not take the commit: {str(error)[:300]}") from None
        if before is not None and before.tree == tree:
            raise refused("NoChange", "The commit would change nothing.")
        staged.found = (work, commit, tree)
    return staged


def _moved(a: Authorised, tx: Transaction) -> tuple[_Work, str, str]:
    staged: Staged = a.staged
    work, commit, tree = staged.found
    row = named(a, tx)
    _standing(a, tx)
    content.name(a, tx, staged)
    move(a, tx, row, [Move(HEADS + work.name, work.parent, commit)])
    return work, commit, tree


def _blob(edit: git.Edit) -> str:
    if edit.content is None:
        return edit.id
    return hashlib.sha1(b"blob %d\0" % len(edit.content) + edit.content, usedforsecurity=False).hexdigest()


# -- one file ------------------------------------------------------------------------------------------------------------


async def _put(a: Authorised, here: Opened, work: _Work) -> None:
    path = path_given(a.input["filePath"])
    held = work.files.get(path)
    given = a.input.get("fileMode")
    mode = MODES[str(given)] if given else held.mode if held is not None and held.kind == "file" else "100644"
    edit = git.Edit(path, mode, _size(bytes(a.input["fileContent"])))
    if held is not None and (held.id, held.mode) == (_blob(edit), mode):
        raise refused("SameFileContent", f"{path} has that content.")
    work.put(edit)


async def _putting(a: Authorised) -> Staged:
    return await _made(a, _put, "name", f"Added {path_given(a.input['filePath'])}")


@REFERENCE.operation("PutFile", asks=moves("PutFile", "branchName"), before=_putting, **STAGED)
def put_file(a: Authorised, tx: Transaction) -> Output:
    work, commit, tree = _moved(a, tx)
    return {"commitId": commit, "blobId": _blob(next(iter(work.edits.values()))), "treeId": tree}


async def _delete(a: Authorised, here: Opened, work: _Work) -> None:
    path = path_given(a.input["filePath"])
    work.existing(path)
    work.put(git.Edit(path))


async def _deleting(a: Authorised) -> Staged:
    return await _made(a, _delete, "name", f"Deleted {path_given(a.input['filePath'])}")


@REFERENCE.operation("DeleteFile", asks=moves("DeleteFile", "branchName"), before=_deleting, **STAGED)
def delete_file(a: Authorised, tx: Transaction) -> Output:
    work, commit, tree = _moved(a, tx)
    path = next(iter(work.edits))
    return {"commitId": commit, "blobId": work.files[path].id, "treeId": tree, "filePath": path}


# -- several -------------------------------------------------------------------------------------------------------------


async def _several(a: Authorised, here: Opened, work: _Work) -> None:
    given = a.input
    puts, gone, modes = (given.get(one) or [] for one in ("putFiles", "deleteFiles", "setFileModes"))
    if not puts and not gone and not modes:
        raise refused("FileEntryRequired", "A commit changes at least one file.")
    if len(puts) + len(gone) + len(modes) > _MOST_FILES:
        raise refused("MaximumFileEntriesExceeded", f"A commit made by the API changes {_MOST_FILES} files at most.")
    moved: list[str] = []
    total = 0
    for one in puts:
        path, source, raw = path_given(one["filePath"]), one.get("sourceFile"), one.get("fileContent")
        if (source is None) == (raw is None):
            name = "SourceFileOrContentRequired" if raw is None else "FileContentAndSourceFileSpecified"
            raise refused(name, f"{path} needs either fileContent or sourceFile.")
        if raw is not None:
            total += len(raw)
            mode = MODES[str(one.get("fileMode") or "NORMAL")]
            work.put(git.Edit(path, mode, _size(bytes(raw))))
            continue
        assert source is not None
        held = work.existing(path_given(source["filePath"]))
        mode = MODES[str(one["fileMode"])] if one.get("fileMode") else held.mode
        work.put(git.Edit(path, mode, id=held.id))
        if source.get("isMove"):
            moved.append(held.path)
    if total > _MOST_BYTES:
        raise refused("FolderContentSizeLimitExceeded", f"A commit made by the API has {_MOST_BYTES} bytes at most.")
    for path in [*moved, *(path_given(one["filePath"]) for one in gone)]:
        work.existing(path)
        work.put(git.Edit(path))
    for one in modes:
        path = path_given(one["filePath"])
        mode = MODES[str(one["fileMode"])]
        edit = work.edits.get(path)
        if edit is not None and (edit.content is not None or edit.id):
            work.edits[path] = git.Edit(path, mode, edit.content, edit.id)
        else:
            work.put(git.Edit(path, mode, id=work.existing(path).id))


async def _committing(a: Authorised) -> Staged:
    return await _made(a, _several, "authorName", "")


@REFERENCE.operation("CreateCommit", asks=moves("CreateCommit", "branchName"), before=_committing, **STAGED)
def create(a: Authorised, tx: Transaction) -> Output:
    work, commit, tree = _moved(a, tx)
    output: Output = {"commitId": commit, "treeId": tree, "filesAdded": [], "filesUpdated": [], "filesDeleted": []}
    for path, edit in sorted(work.edits.items()):
        held = work.files.get(path)
        if edit.content is None and not edit.id:
            assert held is not None
            told = {"absolutePath": path, "blobId": held.id, "fileMode": mode_name(held.mode)}
            output["filesDeleted"].append(told)
        else:
            told = {"absolutePath": path, "blobId": _blob(edit), "fileMode": mode_name(edit.mode)}
            output["filesUpdated" if held is not None else "filesAdded"].append(told)
    return output
