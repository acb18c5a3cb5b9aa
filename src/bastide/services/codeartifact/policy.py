"""Policies of domains and of repositories.

A revision, where one is given, has to be the policy's: nobody writes over what they have not seen. Source: CodeArtifact
User Guide, "Domain policies", "Repository policies".
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Kind, Output, principals
from bastide.policy import Document, Form
from bastide.services.codeartifact.noun import (
    DOMAIN,
    REPOSITORY,
    conflict,
    domain_of,
    invalid,
    missing,
    repository_of,
    this_domain,
    this_repository,
)
from bastide.store import Row, Transaction, View

_LONGEST: Final = 7168


def _check(text: str) -> None:
    """Raises ValidationException for what does not parse, or is about other services' actions."""
    try:
        Document.parse(text, Form.RESOURCE, max_bytes=_LONGEST)
    except Refused as refused:
        raise invalid(f"The policy document is not valid: {refused.message}") from None
    statements = json.loads(text)["Statement"]
    for one in statements if isinstance(statements, list) else [statements]:
        actions = one.get("Action", one.get("NotAction"))
        for action in [actions] if isinstance(actions, str) else actions:
            if action != "*" and not action.lower().startswith("codeartifact:"):
                raise invalid(f"The policy document is not valid: {action[:100]} is not an action of CodeArtifact.")


def _revision(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _told(view: View, kind: Kind, row: Row) -> Output:
    text = row.doc.get("policy")
    if not text:
        what = "domain" if kind is DOMAIN else "repository"
        raise missing(what, row.name, f"The {what} {row.name} has no policy.")
    arn = kind.arn(row.account, row.region, row.name)
    shown = principals.shown(view, text, row.doc["principals"])
    return {"policy": {"resourceArn": arn, "revision": _revision(text), "document": shown}}


def _seen(a: Authorised, row: Row) -> None:
    given, text = a.input.get("policyRevision"), row.doc.get("policy")
    if given is not None and (not text or given != _revision(text)):
        raise conflict("repository", row.name, "The policy has another revision than policyRevision says.")


def _put(a: Authorised, tx: Transaction, kind: Kind, row: Row) -> Output:
    text = str(a.input["policyDocument"])
    _check(text)
    _seen(a, row)
    row.doc["policy"], row.doc["principals"] = text, principals.kept(tx, text)
    kind.change(tx, row, a.operation.name, a.request.id)
    return _told(tx, kind, row)


def _delete(a: Authorised, tx: Transaction, kind: Kind, row: Row) -> Output:
    output = _told(tx, kind, row)
    _seen(a, row)
    del row.doc["policy"], row.doc["principals"]
    kind.change(tx, row, a.operation.name, a.request.id)
    return output


def _declare(kind: Kind, noun: str, about: Any, find: Any) -> None:
    put, get, drop = f"Put{noun}PermissionsPolicy", f"Get{noun}PermissionsPolicy", f"Delete{noun}PermissionsPolicy"
    kind.operation(put, asks=[Ask(f"codeartifact:{put}", about)])(lambda a, tx: _put(a, tx, kind, find(a, tx)))
    kind.reads(get, asks=[Ask(f"codeartifact:{get}", about)])(lambda a, view: _told(view, kind, find(a, view)))
    kind.operation(drop, asks=[Ask(f"codeartifact:{drop}", about)])(lambda a, tx: _delete(a, tx, kind, find(a, tx)))


_declare(DOMAIN, "Domain", this_domain, domain_of)
_declare(REPOSITORY, "Repository", this_repository, repository_of)
