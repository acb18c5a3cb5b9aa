"""The identity store: its address, the questions about it, and names that only one may have.

Source: Identity Store API reference; attribute paths are the members' names with a small first letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from bastide.domain import Refused, new_id
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.kernel.kind import Handler
from bastide.services.identity_center.instance import Instance, administers, denied, instance, invalid
from bastide.store import Row, Taken, Transaction, View

TAKEN: Final = "identitystore:Taken"
"""Rows ``user/NAME``, ``email/ADDRESS``, ``group/NAME`` in lower case, and ``external/USER-OR-GROUP/ISSUER ID``: whose
it is."""


# -- the store ---------------------------------------------------------------------------------------------------------


def missing(type: str, id: str) -> Refused:
    """ResourceNotFoundException of the identity store."""
    return Refused(
        "ResourceNotFoundException", f"{type} not found.", 400, members={"ResourceType": type, "ResourceId": id}
    )


def taken(what: str) -> Refused:
    """ConflictException of the identity store."""
    return Refused(
        "ConflictException",
        f"Duplicate {what}.",
        400,
        members={"Reason": "UNIQUENESS_CONSTRAINT_VIOLATION"},
    )


def stored(a: Authorised, view: View) -> Instance:
    """The instance whose identity store the call names; raises Refused for anybody but its owner."""
    here = instance(view)
    if here is None or not administers(view, here, a.account):
        raise denied(a)
    given = a.input["IdentityStoreId"]
    if given not in (here.store, here.store_arn):
        raise missing("IDENTITY_STORE", given)
    return here


def in_store(work: Callable[[Authorised, Any, Instance], Output]) -> Handler:
    """A handler for the store's owner alone; it is given the instance."""
    return lambda a, view: work(a, view, stored(a, view))


def bare(id: str) -> str:
    """An id that was given as id or as ARN."""
    return id.rpartition("/")[2]


def _store(asked: Asked) -> Iterable[str]:
    here = instance(asked.view)
    given = str(asked.input["IdentityStoreId"])
    account = here.account if here is not None else asked.call.account
    return (given if given.startswith("arn:") else f"arn:aws:identitystore::{account}:identitystore/{given}",)


def _of(kind: str, read: Callable[[Asked], Iterable[str]]) -> Callable[[Asked], Iterable[str]]:
    return lambda asked: [f"arn:aws:identitystore:::{kind}/{bare(id)}" for id in read(asked)]


def one(member: str) -> Callable[[Asked], Iterable[str]]:
    """The id at a member of the input."""
    return lambda asked: (str(asked.input[member]),) if asked.input.get(member) else ()


def member_id(asked: Asked) -> Iterable[str]:
    """The user that a MemberId names."""
    found = (asked.input.get("MemberId") or {}).get("UserId")
    return () if found is None else (str(found),)


def every(_: Asked) -> Iterable[str]:
    """All of a kind."""
    return ("*",)


def ask(action: str, **about: Callable[[Asked], Iterable[str]]) -> list[Ask]:
    """The questions of an identity store operation: about the store, and about users, groups and memberships."""
    given = {"identitystore:IdentityStoreArn": lambda asked: next(iter(_store(asked)))}
    name = f"identitystore:{action}"
    return [
        Ask(name, _store, given=given),
        *(Ask(name, _of(kind, read), given=given) for kind, read in about.items()),
    ]


def revised(a: Authorised, row: Row) -> None:
    """Raises Refused if the call names a revision that is not the row's."""
    given = a.input.get("Revision")
    if given is not None and given != str(row.generation):
        raise Refused(
            "ConflictException",
            "The resource was changed since that revision.",
            400,
            members={"Reason": "CONCURRENT_MODIFICATION"},
        )


def new_resource_id(here: Instance) -> str:
    """An id as the identity store makes them."""
    return f"{here.store[2:]}-{new_id()}"


# -- names that only one may have --------------------------------------------------------------------------------------


def external(kind: str, issuer: str, id: str) -> str:
    """The name of the row that says whose external id it is."""
    return f"external/{kind}/{issuer} {id}"


def claim(tx: Transaction, id: str, before: dict[str, str], after: dict[str, str]) -> None:
    """Gives up the names that are held no more and takes the new ones; raises Refused (ConflictException)."""
    for name in before.keys() - after.keys():
        row = tx.get(TAKEN, "", "", name)
        if row is not None:
            tx.delete(row, keep=False)
    for name in after.keys() - before.keys():
        try:
            tx.insert(Row(TAKEN, "", "", name, {"id": id}), keep=False)
        except Taken:
            raise taken(after[name]) from None


def holder(view: View, name: str) -> str | None:
    """The id of whoever holds a name."""
    row = view.get(TAKEN, "", "", name)
    return None if row is None else str(row.doc["id"])


# -- attributes -------------------------------------------------------------------------------------------------------


def members(path: str) -> list[str]:
    """The members that an attribute path leads through: ``name.givenName`` is Name and GivenName, and
    ``aws:identitystore:enterprise.department`` is below Extensions."""
    if ":" in path:
        extension, *rest = path.split(".")
        return ["Extensions", extension, *rest]
    return [part[:1].upper() + part[1:] for part in path.split(".")]


def operate(doc: dict[str, Any], operations: Iterable[dict[str, Any]], known: Iterable[str]) -> dict[str, Any]:
    """The attributes after UpdateUser's or UpdateGroup's operations; raises Refused (ValidationException)."""
    doc = {**doc}
    for operation in operations:
        path = members(operation["AttributePath"])
        if path[0] not in known:
            raise invalid(f"The attribute {operation['AttributePath']} cannot be updated.")
        value = operation.get("AttributeValue")
        here = doc
        for part in path[:-1]:
            below = here.get(part)
            if below is not None and not isinstance(below, dict):
                raise invalid(f"The attribute {operation['AttributePath']} cannot be updated.")
            here[part] = {**(below or {})}
            here = here[part]
        if value is None:
            here.pop(path[-1], None)
        else:
            here[path[-1]] = _pascal(value) if ":" not in operation["AttributePath"] else value
    return doc


def _pascal(value: Any) -> Any:
    """A document as the API's members are written: clients write ``givenName`` and ``GivenName``."""
    if isinstance(value, dict):
        return {str(key)[:1].upper() + str(key)[1:]: _pascal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_pascal(one) for one in value]
    return value


def only_filter(a: Authorised, path: str) -> str | None:
    """The value of the one filter that a list may have; raises Refused for another attribute."""
    filters = a.input.get("Filters") or ()
    for one in filters:
        if one["AttributePath"].lower() != path.lower():
            raise invalid(f"Lists can be filtered by {path} only.")
        return str(one["AttributeValue"])
    return None


def alternate(a: Authorised, view: View, kind: str, paths: dict[str, str]) -> str | None:
    """The id behind an AlternateIdentifier. paths: attribute paths, and the first word of the rows that hold them."""
    given = a.input["AlternateIdentifier"]
    known = given.get("ExternalId")
    if known is not None:
        return holder(view, external(kind, known["Issuer"], known["Id"]))
    unique = given.get("UniqueAttribute")
    if unique is None:
        raise invalid("An alternate identifier is an external id or a unique attribute.")
    word = paths.get(unique["AttributePath"].lower())
    if word is None or not isinstance(unique["AttributeValue"], str):
        raise invalid(f"The attribute {unique['AttributePath']} is not unique.")
    return holder(view, f"{word}/{unique['AttributeValue'].lower()}")
