"""What every part of the catalog shares: its nouns, their ids, who calls, and how far what they provisioned is theirs.

Source: Service Catalog API Reference and Administrator Guide.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bastide.domain import Refused, Tags, tag_list, tag_map
from bastide.kernel import Ask, Asked, Authorised, Caller, Kind, Output, fills, pages
from bastide.kernel.context import tag_keys
from bastide.kernel.kind import About
from bastide.store import Row, Transaction, View

PRINCIPAL: Final = "servicecatalog.amazonaws.com"
SERVICE: Final = "servicecatalog"
_MISSING: Final = ("ResourceNotFoundException", "{what} {name} not found.", 400)
_TAKEN: Final = ("DuplicateResourceException", "{what} {name} exists already.", 400)


def _kind(name: str, arn: str, arn_service: str = SERVICE, *, tags: bool = False) -> Kind:
    return Kind(
        name,
        service=SERVICE,
        arn=arn,
        arn_service=arn_service,
        named_by="Id",
        tags=tags,
        missing=_MISSING,
        taken=_TAKEN,
    )


PORTFOLIO: Final = _kind("Portfolio", "portfolio/{}", "catalog", tags=True)
PRODUCT: Final = _kind("Product", "product/{}", "catalog", tags=True)
CONSTRAINT: Final = _kind("Constraint", "constraint/{}")
TAG_OPTION: Final = _kind("TagOption", "tagoption/{}")
PROVISIONED: Final = _kind("ProvisionedProduct", "stack/{}")
"""Rows are named by the id; the ARN has the name before it (`arn_of`)."""
RECORD: Final = _kind("Record", "record/{}")
PLAN: Final = _kind("ProvisionedProductPlan", "plan/{}")
ACTION: Final = _kind("ServiceAction", "action/{}")
ARTIFACT: Final = "servicecatalog:ProvisioningArtifact"
"""``PRODUCT/ARTIFACT``, in the product's account; the template is sealed."""
CONTAINS: Final = "servicecatalog:Contains"
"""``PORTFOLIO/PRODUCT``, in the portfolio's account: what a portfolio has, and from which shared portfolio it came."""
NAMED: Final = "servicecatalog:Named"
"""Which provisioned product has a name."""
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
MOST: Final = 100
"""Portfolios, products, principals of a portfolio (Service Catalog, "Quotas")."""
_PAGE: Final = 20


def new(prefix: str) -> str:
    """An id as the catalog makes them: ``port-`` and thirteen letters and digits."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(13))}"


def invalid(message: str) -> Refused:
    """InvalidParametersException."""
    return Refused("InvalidParametersException", message)


def absent(what: str, name: str) -> Refused:
    """ResourceNotFoundException."""
    return Refused("ResourceNotFoundException", f"{what} {name} not found.")


def used(message: str) -> Refused:
    """ResourceInUseException."""
    return Refused("ResourceInUseException", message)


def tags_of(a: Authorised) -> Tags:
    """The tags that a request brings; raises InvalidParametersException."""
    tags = tag_map(a.input.get("Tags"), code="InvalidParametersException")
    if len(tags) > 50:
        raise invalid("A resource may have at most 50 tags.")
    return tags


def retag(a: Authorised, row: Row) -> None:
    """Changes a row's tags as AddTags and RemoveTags say."""
    gone = set(a.input.get("RemoveTags") or ())
    kept = {key: value for key, value in row.tags.items() if key not in gone}
    row.tags = kept | tag_map(a.input.get("AddTags"), code="InvalidParametersException")
    if len(row.tags) > 50:
        raise invalid("A resource may have at most 50 tags.")


@fills("aws:RequestTag/${TagKey}", "aws:TagKeys")
def given_tags(asked: Asked) -> dict[str, str | Sequence[str]]:
    """The tags that AddTags brings, and the keys that it and RemoveTags name."""
    added = tag_map(asked.input.get("AddTags"), code="InvalidParametersException")
    found: dict[str, str | Sequence[str]] = {**tag_keys("aws:RequestTag/", added.items())}
    keys = [*added, *(asked.input.get("RemoveTags") or ())]
    return found | ({"aws:TagKeys": keys} if keys else {})


def shown_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as they are listed."""
    return tag_list(tags)


def keep(a: Authorised, tx: Transaction, kind: str, name: str, doc: dict[str, Any], *, account: str = "") -> None:
    """Writes a row that only says how two things belong together; one that is there is left alone."""
    where = account or a.account
    if tx.get(kind, where, a.region, name) is None:
        tx.insert(Row(kind, where, a.region, name, doc), event=a.operation.name, request_id=a.request.id)


def drop(a: Authorised, tx: Transaction, row: Row) -> None:
    """Takes such a row away."""
    tx.delete(row, event=a.operation.name, request_id=a.request.id)


# -- questions ---------------------------------------------------------------------------------------------------------


def named(kind: Kind, member: str) -> About:
    """The ARN of what a member names, in the caller's account: also of what was shared with it, for that is how policies of
    the account speak of it. Whoever names nothing asks for all."""

    def about(asked: Asked) -> Iterable[str]:
        given = asked.input.get(member)
        return (kind.arn(asked.call.account, asked.call.region, str(given) if given else "*"),)

    return about


def every(kind: Kind) -> About:
    """All of a kind in the caller's account: what is to be made has no id yet."""
    return lambda asked: (kind.arn(asked.call.account, asked.call.region, "*"),)


def ask(operation: str, about: About, **more: Any) -> list[Ask]:
    """The one question of most operations."""
    return [Ask(f"servicecatalog:{operation}", about, **more)]


# -- whose a provisioned product is ------------------------------------------------------------------------------------


def owner(caller: Caller) -> dict[str, str]:
    """Who provisions, as it is kept."""
    session = caller.session
    return {
        "UserArn": caller.principal_arn,
        "UserArnSession": caller.arn,
        "UserId": caller.user_id,
        "RoleId": session.role_id if session is not None and session.kind == "role" else "",
    }


def is_level(level: str, caller: Caller, doc: Mapping[str, Any]) -> bool:
    """Whether a provisioned product or record is the caller's own at a level: User, Role or Account."""
    if level == "Account":
        return True
    mine = owner(caller)
    if level == "Role":
        return bool(mine["RoleId"]) and doc["owner"]["RoleId"] == mine["RoleId"]
    return bool(doc["owner"]["UserId"] == mine["UserId"])


LEVELS: Final = ("User", "Role", "Account")


def levels(find: Callable[[Asked], Row | None]) -> dict[str, Callable[[Asked], str | None]]:
    """The keys that say how far what a call names is the caller's own: ``self``, or nothing. Source: Administrator Guide,
    "Identity-based policy examples", "Example: provisioned product access"."""

    def reader(level: str) -> Callable[[Asked], str | None]:
        def read(asked: Asked) -> str | None:
            row = find(asked)
            if row is None:
                return "self"  # there is nothing; whoever may see their own learns that
            return "self" if is_level(level, asked.call.caller, row.doc) else None

        return read

    return {f"servicecatalog:{level.lower()}Level": reader(level) for level in LEVELS}


def level_of(input: Mapping[str, Any]) -> str:
    """The level that a list is asked at: the user's own without a filter."""
    return str((input.get("AccessLevelFilter") or {}).get("Key") or "User")


def listed_levels() -> dict[str, Callable[[Asked], str | None]]:
    """The same keys of a list: the level that is asked at, and no other."""

    def reader(level: str) -> Callable[[Asked], str | None]:
        return lambda asked: "self" if level_of(asked.input) == level else None

    return {f"servicecatalog:{level.lower()}Level": reader(level) for level in LEVELS}


def check_level(a: Authorised) -> str:
    """The level; raises InvalidParametersException for another value than ``self``."""
    given = a.input.get("AccessLevelFilter") or {}
    if given and given.get("Value", "self") != "self":
        raise invalid("AccessLevelFilter: the only value is self.")
    return level_of(a.input)


# -- pages -------------------------------------------------------------------------------------------------------------


def sliced(a: Authorised, member: str, found: Sequence[tuple[str, Output]], *, on: str = "NextPageToken") -> Output:
    """A page of a short list: entries by the name that they are ordered by."""
    limit = int(a.input.get("PageSize") or _PAGE)
    after = pages.position(a, a.input.get("PageToken"), code="InvalidParametersException")
    left = [one for one in sorted(found, key=lambda one: one[0]) if after is None or one[0] > after]
    output: Output = {member: [told for _, told in left[:limit]]}
    if len(left) > limit:
        output[on] = pages.seal(a, left[limit - 1][0])
    return output


def newest(
    a: Authorised, view: View, kind: Kind, member: str, wanted: Callable[[Row], bool], show: Callable[[Row], Output]
) -> Output:
    """A page of what there may be many of, newest first."""
    limit = int(a.input.get("PageSize") or _PAGE)
    after = pages.position(a, a.input.get("PageToken"), code="InvalidParametersException")
    found: list[Output] = []
    examined = 0
    while True:
        rows = view.scan(
            kind.key, a.account, a.region, order="created", descending=True,
            after=tuple(after) if after else None, limit=limit + 1,
        )  # fmt: skip
        for row in rows:
            if len(found) == limit or examined == 1000:
                return {member: found, "NextPageToken": pages.seal(a, after)}
            examined += 1
            after = [row.created, row.name]
            if wanted(row):
                found.append(show(row))
        if len(rows) <= limit:
            return {member: found}


def arn_of(row: Row) -> str:
    """A provisioned product's ARN."""
    return PROVISIONED.arn(row.account, row.region, f"{row.doc['Name']}/{row.name}")
