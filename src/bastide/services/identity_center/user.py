"""Users of the identity store."""

from __future__ import annotations

from typing import Any, Final

import orjson

from bastide.domain import Instant, Refused
from bastide.kernel import Authorised, Output
from bastide.protocol import Head, codec
from bastide.services.identity_center.instance import Instance, Noun, invalid, paged
from bastide.services.identity_center.member import leave_all
from bastide.services.identity_center.store import (
    alternate,
    ask,
    bare,
    claim,
    every,
    external,
    holder,
    in_store,
    missing,
    new_resource_id,
    one,
    only_filter,
    operate,
    revised,
)
from bastide.store import Row, Transaction, View

USER: Final = Noun("User", service="identitystore", arn="user/{}")
_RESERVED: Final = frozenset({"administrator", "awsadministrators"})
ATTRIBUTES: Final = (
    "UserName", "Name", "DisplayName", "NickName", "ProfileUrl", "Emails", "Addresses", "PhoneNumbers", "UserType",
    "Title", "PreferredLanguage", "Locale", "Timezone", "Photos", "Website", "Birthdate", "Roles", "Extensions",
)  # fmt: skip


def _claims(doc: dict[str, Any]) -> dict[str, str]:
    """What nobody else may have of a user: name of the row, and what it is called."""
    found = {f"user/{doc['UserName'].lower()}": "UserName"}
    for email in doc.get("Emails", ()):
        if email.get("Value"):
            found[f"email/{email['Value'].lower()}"] = "Email"
    for known in doc.get("ExternalIds", ()):
        found[external("user", known["Issuer"], known["Id"])] = "ExternalId"
    return found


# -- a user ------------------------------------------------------------------------------------------------------------


def checked(doc: dict[str, Any]) -> dict[str, Any]:
    """A user's attributes, if the API would take them; raises Refused (ValidationException)."""
    if not doc.get("UserName"):
        raise invalid("UserName is a required attribute.")
    if doc["UserName"].lower() in _RESERVED:
        raise invalid(f"The user name {doc['UserName']} is reserved.")
    told = {name: doc[name] for name in ATTRIBUTES if doc.get(name) is not None}
    whole = {"IdentityStoreId": "d-0000000000", **told}
    operation = codec("identitystore").operations["CreateUser"]
    # UpdateUser's values are documents: only here it shows whether they are what the attributes hold.
    try:
        parsed = operation.parse("json", Head("POST", b"/", [], {}), orjson.dumps(whole))
    except (Refused, orjson.JSONEncodeError):
        parsed = None
    if parsed != whole:
        raise invalid("The attributes are not what a user has.")
    operation.validate(whole)
    return doc


def add(tx: Transaction, here: Instance, doc: dict[str, Any], now: Instant, event: str, request: str = "") -> Row:
    """A new user, enabled; raises Refused for one that the API would not take, or whose names are taken."""
    checked(doc)
    row = Row(USER.key, "", "", new_resource_id(here), doc, "ENABLED", created=now, modified=now)
    claim(tx, row.name, {}, _claims(doc))
    tx.insert(row, event=event, request_id=request)
    return row


def replace(tx: Transaction, row: Row, doc: dict[str, Any], now: Instant, event: str, request: str = "") -> None:
    """A user's attributes anew; raises Refused as `add` does."""
    checked(doc)
    claim(tx, row.name, _claims(row.doc), _claims(doc))
    row.doc = doc
    row.modified = now
    USER.change(tx, row, event, request)


def find(view: View, id: str) -> Row:
    """The row, fresh; raises Refused (ResourceNotFoundException)."""
    row = USER.row(view, bare(id))
    if row is None:
        raise missing("USER", bare(id))
    return row


def _shown(here: Instance, row: Row) -> Output:
    found = {name: row.doc[name] for name in (*ATTRIBUTES, "ExternalIds") if row.doc.get(name)}
    found.pop("Extensions", None)
    return {
        **found,
        "IdentityStoreId": here.store,
        "UserId": row.name,
        "UserArn": USER.arn("", "", row.name),
        "UserStatus": row.status,
        "Revision": str(row.generation),
        "CreatedAt": row.created,
        "UpdatedAt": row.modified,
    }


def _whole(a: Authorised, here: Instance, row: Row) -> Output:
    found = _shown(here, row)
    wanted = a.input.get("Extensions") or ()
    extensions = {name: value for name, value in row.doc.get("Extensions", {}).items() if name in wanted}
    return {**found, "Extensions": extensions} if extensions else found


def _named(here: Instance, row: Row) -> Output:
    return {
        "IdentityStoreId": here.store,
        "UserId": row.name,
        "UserArn": USER.arn("", "", row.name),
        "Revision": str(row.generation),
    }


def _create(a: Authorised, tx: Transaction, here: Instance) -> Output:
    doc = {name: a.input[name] for name in ATTRIBUTES if a.input.get(name) is not None}
    row = add(tx, here, doc, a.now, a.operation.name, a.request.id)
    a.touched.append(USER.arn("", "", row.name))
    return _named(here, USER.row(tx, row.name) or row)


def _describe(a: Authorised, view: View, here: Instance) -> Output:
    return _whole(a, here, find(view, a.input["UserId"]))


def _update(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, a.input["UserId"])
    revised(a, row)
    doc = operate(row.doc, a.input["Operations"], ATTRIBUTES)
    replace(tx, row, doc, a.now, a.operation.name, a.request.id)
    return _named(here, find(tx, row.name))


def _delete(a: Authorised, tx: Transaction, here: Instance) -> Output:
    row = find(tx, a.input["UserId"])
    revised(a, row)
    claim(tx, row.name, _claims(row.doc), {})
    leave_all(tx, row.name, a.operation.name)
    USER.drop(a, tx, row)
    return {}


def _list(a: Authorised, view: View, here: Instance) -> Output:
    name = only_filter(a, "UserName")
    if name is not None:
        id = holder(view, f"user/{name.lower()}")
        return {"Users": [_whole(a, here, find(view, id))] if id is not None else []}
    return paged(a, view, USER.key, "Users", lambda row: _whole(a, here, row))


def _id(a: Authorised, view: View, here: Instance) -> Output:
    id = alternate(a, view, "user", {"username": "user", "emails.value": "email"})
    if id is None:
        raise missing("USER", "")
    return {"IdentityStoreId": here.store, "UserId": id, "UserArn": USER.arn("", "", id)}


USER.operation("CreateUser", asks=ask("CreateUser"))(in_store(_create))
USER.reads("DescribeUser", asks=ask("DescribeUser", user=one("UserId")))(in_store(_describe))
USER.operation("UpdateUser", asks=ask("UpdateUser", user=one("UserId")))(in_store(_update))
USER.operation("DeleteUser", asks=ask("DeleteUser", user=one("UserId")))(in_store(_delete))
USER.reads("ListUsers", asks=ask("ListUsers", user=every))(in_store(_list))
USER.reads("GetUserId", asks=ask("GetUserId", user=every))(in_store(_id))
