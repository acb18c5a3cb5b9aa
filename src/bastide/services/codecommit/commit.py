"""Reading content: commits, folders, files, differences. Links within trees are told, never followed."""

from __future__ import annotations

from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import git
from bastide.kernel import Authorised, Output, pages
from bastide.services.codecommit.content import Opened, answer, looking
from bastide.services.codecommit.noun import REPOSITORY, asks, id_of, refused, specified

LARGEST_FILE: Final = 6 * 1024 * 1024
"""Of what the API gives and takes; git itself takes more. Source: AWS CodeCommit User Guide, "Quotas"."""
_MOST_COMMITS: Final = 100
_PAGE: Final = 1000
MODES: Final = {"NORMAL": "100644", "EXECUTABLE": "100755", "SYMLINK": "120000"}


def mode_name(mode: str) -> str:
    """A file's mode in CodeCommit's words."""
    if mode == "120000":
        return "SYMLINK"
    return "EXECUTABLE" if int(mode, 8) & 0o111 else "NORMAL"


def shown(commit: git.Commit) -> Output:
    """A commit as AWS shows it."""
    author, committer = (
        {"name": one.name, "email": one.email, "date": one.date} for one in (commit.author, commit.committer)
    )
    return {
        "commitId": commit.id, "treeId": commit.tree, "parents": list(commit.parents), "message": commit.message,
        "author": author, "committer": committer, "additionalData": commit.more,
    }  # fmt: skip


def path_given(given: Any, *, empty: bool = False) -> str:
    """A path of the call, without slashes around it; raises InvalidPathException."""
    text = str(given if given is not None else "")
    path = text.strip("/")
    if not path and empty:
        return ""
    if not text:
        raise refused("PathRequired", "A path is required.")
    if not git.legal_path(path):
        raise refused("InvalidPath", f"The specified path is not valid: {path[:200]}")
    return path


def commit_given(a: Authorised, here: Opened, given: Any) -> str:
    """The object that a specifier of the call means."""
    with a.calls.store.reading() as view:
        return specified(view, here.row, given)


async def _commit(a: Authorised, here: Opened) -> Output:
    id = id_of(a.input["commitId"], "InvalidCommitId")
    found = await here.copy.commit(id)
    if found is None:
        raise refused("CommitIdDoesNotExist", f"There is no commit {id}")
    return {"commit": shown(found)}


REPOSITORY.reads("GetCommit", asks=asks("GetCommit"), before=looking(_commit))(answer)


async def _commits(a: Authorised, here: Opened) -> Output:
    given = [str(one) for one in a.input["commitIds"]]
    if not given:
        raise refused("CommitIdsListRequired", "At least one commit ID is required.")
    if len(given) > _MOST_COMMITS:
        raise refused("CommitIdsLimitExceeded", f"{_MOST_COMMITS} commits at a time at most.")
    ids = [one.lower() for one in given if git.ID.fullmatch(one.lower())]
    found = dict(zip(ids, await here.copy.commits(ids), strict=True))
    errors = [
        {"commitId": one, "errorCode": "CommitIdDoesNotExistException", "errorMessage": f"There is no commit {one}"}
        for one in given
        if found.get(one.lower()) is None
    ]
    return {"commits": [shown(one) for one in found.values() if one is not None], "errors": errors}


REPOSITORY.reads("BatchGetCommits", asks=asks("BatchGetCommits"), before=looking(_commits))(answer)


async def _blob(a: Authorised, here: Opened) -> Output:
    id = id_of(a.input["blobId"], "InvalidBlobId", "blob ID")
    return {"content": (await read(here, id, "BlobIdDoesNotExist"))}


async def read(here: Opened, id: str, wrong: str = "FileDoesNotExist") -> bytes:
    """The bytes of a file that is not too large for the API."""
    found = await here.copy.kind(id)
    if found is None or found[1] != "blob":
        raise refused(wrong, f"There is no blob {id}")
    if found[2] > LARGEST_FILE:
        raise refused("FileTooLarge", f"A file of more than {LARGEST_FILE} bytes is read with git.")
    return (await here.copy.contents([id]))[0]


REPOSITORY.reads("GetBlob", asks=asks("GetBlob"), before=looking(_blob))(answer)


async def _file(a: Authorised, here: Opened) -> Output:
    path = path_given(a.input["filePath"])
    commit = await here.commit(commit_given(a, here, a.input.get("commitSpecifier")))
    found = await here.copy.entry(commit.id, path)
    if found is None or found.kind not in ("file", "link"):
        raise refused("FileDoesNotExist", f"There is no file {path} in {commit.id}")
    raw = await read(here, found.id)
    return {
        "commitId": commit.id, "blobId": found.id, "filePath": path, "fileMode": mode_name(found.mode),
        "fileSize": len(raw), "fileContent": raw,
    }  # fmt: skip


REPOSITORY.reads("GetFile", asks=asks("GetFile"), before=looking(_file))(answer)


async def _folder(a: Authorised, here: Opened) -> Output:
    path = path_given(a.input["folderPath"], empty=True)
    commit = await here.commit(commit_given(a, here, a.input.get("commitSpecifier")))
    found = await here.copy.folder(commit.id, path)
    if found is None:
        raise refused("FolderDoesNotExist", f"There is no folder {path} in {commit.id}")
    output: Output = {
        "commitId": commit.id, "folderPath": path, "treeId": found[0], "subFolders": [], "files": [],
        "symbolicLinks": [], "subModules": [],
    }  # fmt: skip
    for one in found[1]:
        where = {"absolutePath": one.path, "relativePath": one.path.rpartition("/")[2]}
        where = {key: value.encode("utf-8", "replace").decode() for key, value in where.items()}
        if one.kind == "tree":
            output["subFolders"].append({"treeId": one.id, **where})
        elif one.kind == "commit":
            output["subModules"].append({"commitId": one.id, **where})
        else:
            kind = "symbolicLinks" if one.kind == "link" else "files"
            output[kind].append({"blobId": one.id, "fileMode": mode_name(one.mode), **where})
    return output


REPOSITORY.reads("GetFolder", asks=asks("GetFolder"), before=looking(_folder))(answer)


# -- differences ---------------------------------------------------------------------------------------------------------


def _side(entry: git.Entry | None, path: str) -> Output | None:
    if entry is None:
        return None
    where = f"{path}/{entry.path}" if path and entry.path else path or entry.path
    return {"blobId": entry.id, "path": where.encode("utf-8", "replace").decode(), "mode": entry.mode}


async def _tree(here: Opened, commit: str, path: str) -> str:
    if not path:
        return f"{commit}^{{tree}}"
    found = await here.copy.folder(commit, path)
    if found is None:
        raise refused("PathDoesNotExist", f"There is no folder {path} in {commit}")
    return found[0]


async def _differences(a: Authorised, here: Opened) -> Output:
    start = int(pages.position(a, a.input.get("NextToken"), code="InvalidContinuationTokenException") or 0)
    limit = int(a.input.get("MaxResults") or _PAGE)
    if not 1 <= limit <= _PAGE:
        raise refused("InvalidMaxResults", f"MaxResults is a number from 1 to {_PAGE}.")
    after = await here.commit(commit_given(a, here, a.input["afterCommitSpecifier"]))
    path = path_given(a.input.get("afterPath"), empty=True)
    old_path = path_given(a.input.get("beforePath"), empty=True)
    old: str | None = None
    if a.input.get("beforeCommitSpecifier"):
        before = await here.commit(commit_given(a, here, a.input["beforeCommitSpecifier"]))
        old = await _tree(here, before.id, old_path)
    try:
        found = await here.copy.changes(old, await _tree(here, after.id, path))
    except git.GitError as error:
        raise Refused("InvalidPathException", str(error)[:200]) from None
    differences = []
    for one in found[start : start + limit]:
        kind = "M" if one.before and one.after else "A" if one.after else "D"
        sides = {"beforeBlob": _side(one.before, old_path), "afterBlob": _side(one.after, path)}
        differences.append({**{key: side for key, side in sides.items() if side is not None}, "changeType": kind})
    token = pages.seal(a, start + limit) if len(found) > start + limit else None
    return {"differences": differences, "NextToken": token}


REPOSITORY.reads("GetDifferences", asks=asks("GetDifferences"), before=looking(_differences))(answer)
