"""Users and roles that the policy of a resource names.

They are kept by their unique ids beside the ARNs that were written, so that the policy goes on naming those very users and
roles, and nobody who is made under their names later. A name that nobody has when the policy is written stays a name: AWS
refuses such a policy. Source: IAM User Guide, "AWS JSON policy elements: Principal" ("IAM transforms the ARN to the
principal's unique principal ID").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn
from bastide.kernel.identity import Caller
from bastide.kernel.kind import Facts
from bastide.policy import Attached, Document
from bastide.store import View

_ELEMENTS: Final = ("Principal", "NotPrincipal")


def kept(view: View, text: str) -> dict[str, str]:
    """The unique ids, by ARN, of the users and roles that a checked policy names, of a session those of its role."""
    found = {}
    for names in _lists(json.loads(text)):
        for name in names:
            id = _id(view, name)
            if id:
                found[name] = id
    return found


def shown(view: View, text: str, ids: Mapping[str, str]) -> str:
    """The policy as it is answered: whoever is gone under the unique id."""
    return _rewritten(text, {arn: _written(arn, id) for arn, id in ids.items() if _id(view, arn) != id})


def meant(facts: Facts, caller: Caller) -> Attached | None:
    """The policy of a resource as it is to be read for a caller: naming them if they are who was meant."""
    policy, ids = facts.policy, facts.principals
    if policy is None or not ids:
        return policy
    mine = caller.session.role_id if caller.session is not None else caller.user_id
    changed = {arn: _written(arn, id) for arn, id in ids.items() if _differs(arn, id, caller, mine)}
    if not changed:
        return policy
    return Attached(Document.parse_cached(_rewritten(facts.text, changed), policy.document.form), policy.source)


def _differs(arn: str, id: str, caller: Caller, mine: str) -> bool:
    """Whether the caller has the name and is not who was meant, or was meant and has another name by now."""
    if arn in (caller.arn, caller.principal_arn):
        return id != mine
    return id == mine and ":assumed-role/" not in arn


def _lists(document: Any) -> Iterable[list[str]]:
    """What a checked policy names under AWS."""
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for element in _ELEMENTS:
            principal = statement.get(element)
            names = principal.get("AWS", ()) if isinstance(principal, dict) else ()
            yield [names] if isinstance(names, str) else list(names)


def _id(view: View, name: str) -> str:
    """The unique id of the user or role of an ARN, "" of what is neither or not there."""
    if not name.startswith("arn:aws:"):
        return ""
    arn = Arn.parse(name)
    if arn.type not in ("user", "role", "assumed-role"):
        return ""
    kind, member = ("iam:User", "UserId") if arn.type == "user" else ("iam:Role", "RoleId")
    last = arn.resource.split("/")[1] if arn.type == "assumed-role" else arn.resource.rpartition("/")[2]
    row = view.get(kind, arn.account, "", last.lower())
    if row is None or (row.doc["Arn"] != name if arn.type != "assumed-role" else row.doc["RoleName"] != last):
        return ""
    return str(row.doc[member])


def _written(arn: str, id: str) -> str:
    """How a policy names who has a unique id. Of a role made anew no session is meant: nobody's name has a "!" in it."""
    return f"arn:aws:iam::{arn.split(':')[4]}:role/!{id}" if ":assumed-role/" in arn else id


def _rewritten(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    document = json.loads(text)
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for element in _ELEMENTS:
            principal = statement.get(element)
            listed = principal.get("AWS") if isinstance(principal, dict) else None
            if isinstance(listed, str):
                principal["AWS"] = names.get(listed, listed)
            elif listed:
                principal["AWS"] = [names.get(one, one) for one in listed]
    return json.dumps(document)
