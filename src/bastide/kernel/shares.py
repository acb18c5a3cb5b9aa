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
"""Rows ``ARN\\0SHARE`` under no account: Actions; Principals, those that take part: an account that accepted an invitation
(``111122223333``), an account as long as it is of an organisation (``111122223333@o-x/``), a path (``o-x/r-y/``)."""


def granted(view: View, region: str, arn: str = "") -> Iterator[Row]:
    """The rows of a region, or of one resource."""
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
    for row in granted(view, arn.region, str(arn)):
        allowed = {"Effect": "Allow", "Action": row.doc["Actions"], "Resource": "*"}
        for one in row.doc["Principals"]:
            account, _, path = one.rpartition("@") if one.endswith("/") else (one, "", "")
            inside = {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": [f"{path}*"]}} if path else {}
            whom = {"AWS": account} if account else "*"
            statements.append({**allowed, "Principal": whom, **({"Condition": inside} if inside else {})})
    if not statements:
        return None
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return Attached(Document.parse_cached(text, Form.RESOURCE), f"resource shares of {arn}")


def takes_part(principals: list[str], account: str, path: str) -> bool:
    """Whether an account is among those that a share names. path: where it stands, ``o-x/r-y/``; empty outside."""
    for one in principals:
        whom, _, where = one.rpartition("@") if one.endswith("/") else (one, "", "")
        if whom in ("", account) and path.startswith(where):
            return True
    return False


def shared(view: View, region: str, account: str, path: str) -> list[str]:
    """The ARNs of what is shared with an account."""
    found = {
        row.name.partition("\0")[0]: None
        for row in granted(view, region)
        if takes_part(row.doc["Principals"], account, path)
    }
    return list(found)


def is_shared(view: View, arn: Arn) -> bool:
    """Whether a resource is in any share."""
    return bool(view.scan(GRANTED, "", arn.region, prefix=f"{arn}\0", limit=1))
