"""What Resource Access Manager shares, as other services see it: a policy of the resource, and what an account may see.

Services that have something to share ask here; the rows are RAM's, one for each resource of a share, written when the
share changes. A share is a resource's policy: whoever it names may do what the permission says, if their own policies allow
it. Source: RAM User Guide, "How resource sharing works", "AWS RAM managed permissions".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from bastide.domain import Arn
from bastide.policy import Attached, Document, Form
from bastide.store import Row, View

GRANTED: Final = "ram:Granted"
"""Rows ``ARN\\0SHARE`` under no account: Principals (account ids that take part, and paths of an organisation, which end in
``/``), Actions."""


def _granted(view: View, region: str, arn: str = "") -> Iterator[Row]:
    after: str | None = None
    prefix = f"{arn}\0" if arn else ""
    while True:
        rows = view.scan(GRANTED, "", region, prefix=prefix, after=after, limit=200)
        yield from rows
        if len(rows) < 200:
            return
        after = rows[-1].name


def policy(view: View, arn: Arn) -> Attached | None:
    """The policy that shares give a resource; None for one that is not shared."""
    return view.memo(("shares:policy", str(arn)), [(GRANTED, "")], lambda: _policy(view, arn))


def _policy(view: View, arn: Arn) -> Attached | None:
    statements: list[dict[str, Any]] = []
    for row in _granted(view, arn.region, str(arn)):
        allowed = {"Effect": "Allow", "Action": row.doc["Actions"], "Resource": "*"}
        accounts = [one for one in row.doc["Principals"] if not one.endswith("/")]
        paths = [one for one in row.doc["Principals"] if one.endswith("/")]
        if accounts:
            statements.append({**allowed, "Principal": {"AWS": accounts}})
        if paths:
            inside = {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": [f"{one}*" for one in paths]}}
            statements.append({**allowed, "Principal": "*", "Condition": inside})
    if not statements:
        return None
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return Attached(Document.parse_cached(text, Form.RESOURCE), f"resource shares of {arn}")


def takes_part(principals: list[str], account: str, path: str) -> bool:
    """Whether an account is among those that a share names. path: where it stands, ``o-x/r-y/``; empty outside."""
    return any(one == account or (one.endswith("/") and path.startswith(one)) for one in principals)


def shared(view: View, region: str, account: str, path: str) -> list[str]:
    """The ARNs of what is shared with an account."""
    found = {
        row.name.partition("\0")[0]: None
        for row in _granted(view, region)
        if takes_part(row.doc["Principals"], account, path)
    }
    return list(found)


def is_shared(view: View, arn: Arn) -> bool:
    """Whether a resource is in any share."""
    return bool(view.scan(GRANTED, "", arn.region, prefix=f"{arn}\0", limit=1))
