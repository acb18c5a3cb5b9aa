"""Trust policies, and whom they name.

A user or a role in a trust policy is kept by its unique id beside the ARN that was written. So the policy goes on naming
that very user or role: under its new name when it is renamed, and nobody once it is gone, whoever is made under its name
later. Source: IAM User Guide, "AWS JSON policy elements: Principal" ("IAM transforms the ARN to the role's unique
principal ID when you save the policy").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.kernel import Authorised
from bastide.policy import Document, Form
from bastide.services.iam.entity import checked, limit, unspaced
from bastide.services.iam.user import USER
from bastide.store import Row, View

QUOTA: Final = 4096
"""Characters of a trust policy without white space: the most that AWS raises its quota of 2,048 to."""
ROLE_ROWS: Final = "iam:Role"

Change = Callable[[str], str]


def written(a: Authorised, view: View, document: str) -> dict[str, Any]:
    """What is kept of a trust policy: its text, and the unique ids of the users and roles in it by ARN.

    Raises Refused (MalformedPolicyDocument, LimitExceeded), also for a principal that does not exist.
    """
    if unspaced(document) > QUOTA:
        raise limit(f"Cannot exceed quota for ACLSizePerRole: {QUOTA}")
    checked(document, Form.TRUST)
    ids: dict[str, str] = {}
    for name in _named(json.loads(document)):
        if name == "*":
            continue
        if name.isdigit():
            arn = Arn("iam", "", name, "root")
        else:
            arn = Arn.parse(name) if name.startswith("arn:aws:") else Arn("", "", "", "")
        if not _exists(a, view, arn.account):
            raise _nobody(name)
        if arn.type in ("user", "role", "assumed-role"):
            id = _id(view, arn, name)
            if id is None:
                raise _nobody(name)
            ids[name] = id
    return {"trust": document, "principals": ids}


def accounts(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The accounts whose users and roles the trust policy of a role names."""
    return tuple(dict.fromkeys(arn.split(":")[4] for arn in doc.get("principals", ())))


def shown(view: View, doc: Mapping[str, Any]) -> str:
    """The trust policy as it is answered: who was renamed under the new ARN, who is gone as a unique id."""
    return _rewritten(doc, {arn: _present(view, arn, id) or id for arn, id in doc.get("principals", {}).items()})


def compiled(view: View, doc: Mapping[str, Any]) -> Document:
    """The trust policy as it is decided by: who is gone is nobody."""
    return Document.parse_cached(
        _rewritten(
            doc, {arn: _present(view, arn, id) or _none(arn, id) for arn, id in doc.get("principals", {}).items()}
        ),
        Form.TRUST,
    )


def _nobody(name: str) -> Refused:
    return Refused("MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{name}"')


def _none(arn: str, id: str) -> str:
    """A principal that nobody is: no user or role has a name with an exclamation mark in it."""
    return f"arn:aws:iam::{arn.split(':')[4]}:role/!{id}"


def _exists(a: Authorised, view: View, account: str) -> bool:
    if account in (a.account, a.calls.home):
        return True
    if a.calls.organisation.place(view, account) is not None:
        return True
    # An account that left the organisation is still one: every account has a role from its beginning.
    return bool(view.scan(ROLE_ROWS, account, "", limit=1))


def _listed(statement: Any) -> Any:
    principal = statement.get("Principal")
    return principal.get("AWS", ()) if isinstance(principal, dict) else ()


def _statements(document: Any) -> list[Any]:
    held = document["Statement"]
    return held if isinstance(held, list) else [held]


def _named(document: Any) -> Iterable[str]:
    """What a checked trust policy names under AWS."""
    for statement in _statements(document):
        names = _listed(statement)
        yield from (names,) if isinstance(names, str) else names


def _row(view: View, arn: Arn) -> Row | None:
    """The user or role of an ARN, the role of a session's."""
    if arn.type == "user":
        row = USER.held(view, arn.account, arn.resource.rpartition("/")[2])
    else:
        name = arn.resource.split("/")[1] if arn.type == "assumed-role" else arn.resource.rpartition("/")[2]
        row = view.get(ROLE_ROWS, arn.account, "", name.lower())
        if row is not None and row.doc["RoleName"] != name:
            row = None
    if row is None or (arn.type != "assumed-role" and row.doc["Arn"] != str(arn)):
        return None
    return row


def _id(view: View, arn: Arn, name: str) -> str | None:
    row = _row(view, arn)
    if row is None:
        return None
    if arn.type == "assumed-role":
        return f"{row.doc['RoleId']}:{name.rpartition('/')[2]}"
    return str(row.doc["UserId" if arn.type == "user" else "RoleId"])


def _present(view: View, name: str, id: str) -> str | None:
    """The ARN that a unique id has now, or None if it is gone."""
    arn = Arn.parse(name)
    if _id(view, arn, name) == id:
        return name
    if arn.type == "user":
        row = USER.by_id(view, arn.account, id)
        return None if row is None else str(row.doc["Arn"])
    return None


def _rewritten(doc: Mapping[str, Any], names: Mapping[str, str]) -> str:
    text = str(doc["trust"])
    if all(name == now for name, now in names.items()):
        return text
    document = json.loads(text)
    for statement in _statements(document):
        listed = _listed(statement)
        if isinstance(listed, str):
            statement["Principal"]["AWS"] = names.get(listed, listed)
        elif listed:
            statement["Principal"]["AWS"] = [names.get(one, one) for one in listed]
    return json.dumps(document)
