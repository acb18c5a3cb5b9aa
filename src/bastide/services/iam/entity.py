"""What IAM's entities have in common: names, paths, unique ids, quotas, tags, pages, and the size of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from bastide.domain import Refused, Tags, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Kind, Output, pages
from bastide.policy import Document, Form
from bastide.store import Row, Transaction, View

MOST_TAGS: Final = 50
_MOST_EXAMINED: Final = 2000
"""Rows a filtered page looks at before it hands out a marker instead."""

NEW_BOUNDARY: Final = "iam:PermissionsBoundary"


@lru_cache(4096)
def encoded(document: str) -> str:
    """A policy as IAM answers it: percent-encoded after RFC 3986 (IAM API reference, "GetRolePolicy")."""
    return quote(document, safe="")


def no_entity(message: str) -> Refused:
    """NoSuchEntity with IAM's status."""
    return Refused("NoSuchEntity", message, 404)


def limit(message: str) -> Refused:
    """LimitExceeded with IAM's status."""
    return Refused("LimitExceeded", message, 409)


def conflict(message: str) -> Refused:
    """DeleteConflict with IAM's status."""
    return Refused("DeleteConflict", message, 409)


def unspaced(document: str) -> int:
    """Characters of a document that count against its quota: white space does not (IAM User Guide, "IAM and AWS STS
    quotas")."""
    return len("".join(document.split()))


def checked(document: str, form: Form) -> str:
    """The text, if it is a policy; raises Refused (MalformedPolicyDocument)."""
    Document.parse(document, form)
    return document


TALLY: Final = "iam:Tally"
"""Rows that tell how many entities of a kind an account has, so that a quota costs the same however many there are."""
UNIQUE: Final = "iam:UniqueId"
"""Rows that tell the name of an entity that may be renamed, by its unique id."""


class Entity(Kind):
    """A user, a group, a role, an instance profile or a managed policy.

    The row's name is the entity's in lower case, because IAM's names must differ in more than case; ``doc`` keeps the
    name and the ARN as they were given.
    """

    def __init__(
        self, name: str, missing: str, taken: str, *, most: int, plural: str = "", type: str = "", renamed: bool = False
    ) -> None:
        """missing, taken: messages with ``{name}``. most: of one account, the most that AWS raises its quota to.
        renamed: the entity may get another name, and is found by its unique id too."""
        super().__init__(name, service="iam", arn=f"{type or name.lower()}/{{}}", global_=True)
        self.told_missing = missing
        self.told_taken = taken
        self.most = most
        self.plural = plural or f"{name}s"
        self.renamed = renamed

    # -- names ---------------------------------------------------------------------------------------------------------

    def address(self, account: str, path: str, name: str) -> str:
        """The ARN with its path."""
        return f"arn:aws:iam::{account}:{self.type}{path[1:]}{name}"

    def address_of(self, view: View, account: str, name: str) -> str:
        """The ARN that an entity has, or would have without a path."""

        def load() -> str:
            row = self.held(view, account, name)
            return self.address(account, "/", name) if row is None else str(row.doc["Arn"])

        return view.memo((self.key, "arn", account, name), [(self.key, account)], load)

    def this(self, asked: Asked) -> Iterable[str]:
        """The ARN of the entity that the call names."""
        name = asked.input.get(self.named_by)
        return ("*",) if name is None else (self.address_of(asked.view, asked.call.account, str(name)),)

    def made(self, asked: Asked) -> Iterable[str]:
        """The ARN of the entity that the call would make."""
        name = str(asked.input[self.named_by])
        return (self.address(asked.call.account, asked.input.get("Path") or "/", name),)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def held(self, view: View, account: str, name: str) -> Row | None:
        """The row of that very name, or None."""
        row = view.get(self.key, account, "", name.lower())
        return row if row is not None and row.doc[self.named_by] == name else None

    def need(self, view: View, account: str, name: str) -> Row:
        """The row; raises Refused (NoSuchEntity)."""
        row = self.held(view, account, name)
        if row is None:
            raise no_entity(self.told_missing.format(name=name))
        return row

    def seen(self, view: View, account: str, name: str) -> Row:
        """The same, remembered while no entity of the account changes; not to be changed itself."""
        return view.memo(
            (self.key, "row", account, name), [(self.key, account)], lambda: self.need(view, account, name)
        )

    def asked_for(self, a: Authorised, view: View) -> Row:
        """The row that the call names, fresh, so that it may be changed."""
        return self.need(view, a.account, str(a.input[self.named_by]))

    def make(self, a: Authorised, tx: Transaction, doc: dict[str, Any], tags: Tags) -> Row:
        """A new row; raises Refused (EntityAlreadyExists, LimitExceeded), whatever the case of the names."""
        self._free(tx, a.account, doc[self.named_by])
        held = self.tally(tx, a.account)
        if held >= self.most:
            raise limit(f"Cannot exceed quota for {self.plural}PerAccount: {self.most}")
        row = self.create(a, tx, doc[self.named_by].lower(), doc, tags=tags)
        self._tell_tally(tx, a.account, held + 1)
        if self.renamed:
            self._index(tx, row)
        return row

    def _free(self, tx: Transaction, account: str, name: str) -> None:
        if tx.get(self.key, account, "", name.lower()) is not None:
            raise Refused("EntityAlreadyExists", self.told_taken.format(name=name), 409)

    def save(self, a: Authorised, tx: Transaction, row: Row) -> None:
        """Writes a changed row."""
        row.modified = a.now
        self.change(tx, row, a.operation.name, a.request.id)

    def remove(self, tx: Transaction, row: Row, event: str, request_id: str = "") -> None:
        """Removes a row, with history, and an event in the outbox."""
        held = self.tally(tx, row.account)
        super().remove(tx, row, event, request_id)
        self._tell_tally(tx, row.account, held - 1)
        index = tx.get(UNIQUE, row.account, "", self.id_of(row)) if self.renamed else None
        if index is not None:
            tx.delete(index, keep=False)

    def rename(self, a: Authorised, tx: Transaction, row: Row, name: str, path: str) -> Row:
        """The row under another name or path, with the unique id, tags and policies it had; raises Refused
        (EntityAlreadyExists)."""
        doc = {**row.doc, self.named_by: name, "Path": path, "Arn": self.address(row.account, path, name)}
        if name.lower() == row.name:
            row.doc = doc
            self.save(a, tx, row)
            return row
        self._free(tx, a.account, name)
        tx.delete(row, event=a.operation.name, request_id=a.request.id)
        moved = Row(self.key, row.account, "", name.lower(), doc, row.status, row.tags, created=row.created)
        tx.insert(moved, event=a.operation.name, request_id=a.request.id)
        self._emit(tx, moved, a.operation.name, a.request.id)
        self._index(tx, moved)
        return moved

    def id_of(self, row: Row) -> str:
        """The unique id: ``AIDA...``, ``AROA...``."""
        return str(row.doc[f"{self.name}Id"])

    def by_id(self, view: View, account: str, id: str) -> Row | None:
        """The row of that unique id, whatever its name is now, or None. For kinds that may be renamed."""
        index = view.get(UNIQUE, account, "", id)
        row = None if index is None else view.get(self.key, account, "", index.doc["name"])
        return row if row is not None and self.id_of(row) == id else None

    def _index(self, tx: Transaction, row: Row) -> None:
        index = tx.get(UNIQUE, row.account, "", self.id_of(row))
        if index is None:
            tx.insert(Row(UNIQUE, row.account, "", self.id_of(row), {"name": row.name}), keep=False)
        else:
            index.doc["name"] = row.name
            tx.update(index, keep=False)

    def tally(self, view: View, account: str) -> int:
        """How many the account has."""
        row = view.get(TALLY, account, "", self.name)
        if row is not None:
            return int(row.doc["count"])
        count, after = 0, ""
        while rows := view.scan(self.key, account, "", after=after, limit=500):
            count, after = count + len(rows), rows[-1].name
        return count

    def _tell_tally(self, tx: Transaction, account: str, count: int) -> None:
        row = tx.get(TALLY, account, "", self.name)
        if row is None:
            tx.insert(Row(TALLY, account, "", self.name, {"count": count}), keep=False)
        else:
            row.doc["count"] = count
            tx.update(row, keep=False)

    def _emit(self, tx: Transaction, row: Row, event: str, request_id: str) -> None:
        tx.emit(
            self.key,
            {
                "event": event,
                "arn": row.doc["Arn"],
                "account": row.account,
                "region": "",
                "name": row.doc[self.named_by],
                "status": "",
                "request_id": request_id,
            },
        )


# -- tags --------------------------------------------------------------------------------------------------------------


def new_tags(a: Authorised) -> Tags:
    """The tags of a Create call; raises Refused (InvalidInput, LimitExceeded)."""
    tags = tag_map(a.input.get("Tags"), code="InvalidInput")
    _few(tags)
    return tags


def _few(tags: Tags) -> None:
    if len({key.lower() for key in tags}) != len(tags):
        raise Refused("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if len(tags) > MOST_TAGS:
        raise limit(f"The number of tags has reached the maximum limit: {MOST_TAGS}.")


def with_tags(kind: Any, row_of: Callable[[Authorised, View], Row], about: Callable[[Asked], Iterable[str]]) -> None:
    """Declares Tag, Untag and ListTags of a kind."""
    name = kind.name

    def tag(a: Authorised, tx: Transaction) -> Output:
        row = row_of(a, tx)
        added = tag_map(a.input["Tags"], code="InvalidInput")
        lower = {key.lower() for key in added}
        row.tags = {key: value for key, value in row.tags.items() if key.lower() not in lower} | added
        _few(row.tags)
        kind.save(a, tx, row)
        return {}

    def untag(a: Authorised, tx: Transaction) -> Output:
        row = row_of(a, tx)
        gone = {str(key).lower() for key in a.input["TagKeys"]}
        row.tags = {key: value for key, value in row.tags.items() if key.lower() not in gone}
        kind.save(a, tx, row)
        return {}

    def tags(a: Authorised, view: View) -> Output:
        return sliced(a, "Tags", tag_list(row_of(a, view).tags))

    kind.operation(f"Tag{name}", asks=[Ask(f"iam:Tag{name}", about)])(tag)
    kind.operation(f"Untag{name}", asks=[Ask(f"iam:Untag{name}", about)])(untag)
    kind.reads(f"List{name}Tags", asks=[Ask(f"iam:List{name}Tags", about)])(tags)


# -- pages -------------------------------------------------------------------------------------------------------------


def _size(a: Authorised) -> int:
    return int(a.input.get("MaxItems") or 100)


def sliced(a: Authorised, member: str, found: Sequence[Any]) -> Output:
    """A page of a list that is at hand whole."""
    start = int(pages.position(a, a.input.get("Marker"), code="ValidationError") or 0)
    end = start + _size(a)
    output: Output = {member: list(found[start:end]), "IsTruncated": end < len(found)}
    if end < len(found):
        output["Marker"] = pages.seal(a, end)
    return output


def paged(
    a: Authorised,
    view: View,
    kind: str,
    member: str,
    show: Callable[[Row], Any],
    *,
    prefix: str = "",
    wanted: Callable[[Row], bool] = lambda row: True,
    first: Sequence[Any] = (),
) -> Output:
    """A page of the caller's account's rows, in the order of their names. first: what comes before them, as shown."""
    size = _size(a)
    after = pages.position(a, a.input.get("Marker"), code="ValidationError")
    found: list[Any] = []
    if first and not isinstance(after, str):
        start = int(after or 0)
        found += first[start : start + size]
        if start + len(found) < len(first):
            return {member: found, "IsTruncated": True, "Marker": pages.seal(a, start + len(found))}
        after = ""
    examined = 0
    while True:
        rows = view.scan(kind, a.account, "", prefix=prefix, after=after, limit=min(size + 1, 500))
        for row in rows:
            if len(found) == size:
                return {member: found, "IsTruncated": True, "Marker": pages.seal(a, after)}
            after = row.name
            examined += 1
            if wanted(row):
                found.append(show(row))
        if len(rows) < min(size + 1, 500):
            return {member: found, "IsTruncated": False}
        if examined >= _MOST_EXAMINED:
            return {member: found, "IsTruncated": True, "Marker": pages.seal(a, after)}


def below(kind: Entity) -> Callable[[Asked], Iterable[str]]:
    """What a list of a kind is about: the entities below the path that the call names."""
    return lambda asked: (f"arn:aws:iam::{asked.call.account}:{kind.type[:-1]}{asked.input.get('PathPrefix') or '/'}",)


def below_path(a: Authorised) -> Callable[[Row], bool]:
    """Whether an entity's path begins as the call wants."""
    prefix = str(a.input.get("PathPrefix") or "/")
    return lambda row: str(row.doc["Path"]).startswith(prefix)
