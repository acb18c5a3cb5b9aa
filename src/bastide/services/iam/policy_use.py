"""Which users, groups and roles use a managed policy."""

from __future__ import annotations

from typing import Any, Final

from bastide.kernel import Ask, Authorised, Output
from bastide.services.iam.entity import Entity, paged
from bastide.services.iam.group import GROUP
from bastide.services.iam.policy import POLICY, USE, named, this
from bastide.services.iam.role import ROLE
from bastide.services.iam.user import USER
from bastide.store import Row, View

_KINDS: Final[dict[str, Entity]] = {kind.name: kind for kind in (USER, GROUP, ROLE)}


def used_by(view: View, use: Row) -> Row | None:
    """The entity of a row of uses."""
    _, _, kind, name = use.name.split(" ")
    return view.get(_KINDS[kind].key, use.account, "", name)


@POLICY.reads("ListEntitiesForPolicy", asks=[Ask("iam:ListEntitiesForPolicy", this)])
def entities(a: Authorised, view: View) -> Output:
    arn = str(a.input["PolicyArn"])
    named(a, view)
    usage, only = a.input.get("PolicyUsageFilter"), a.input.get("EntityFilter")
    prefix = f"{arn} {usage} " if usage else f"{arn} "
    if usage and only:
        prefix += f"{only} "
    below = str(a.input.get("PathPrefix") or "/")

    def wanted(use: Row) -> bool:
        row = used_by(view, use)
        return (
            row is not None and (not only or use.name.split(" ")[2] == only) and str(row.doc["Path"]).startswith(below)
        )

    page = paged(a, view, USE, "uses", lambda use: use, prefix=prefix, wanted=wanted)
    output: dict[str, Any] = {"PolicyGroups": [], "PolicyUsers": [], "PolicyRoles": []}
    for use in page.pop("uses"):
        kind, row = _KINDS[use.name.split(" ")[2]], used_by(view, use)
        assert row is not None
        one = {kind.named_by: row.doc[kind.named_by], f"{kind.name}Id": kind.id_of(row)}
        if one not in output[f"Policy{kind.name}s"]:  # as a policy and as a boundary
            output[f"Policy{kind.name}s"].append(one)
    return {**output, **page}
