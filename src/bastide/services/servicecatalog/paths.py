"""Who gets to which products, and by which way: the portfolios of an account and those shared with it, the principals that
they are for, and what binds a launch on the way.

Source: Service Catalog Administrator Guide, "Granting Access to Users", "Sharing and Importing Portfolios", "Using AWS
Service Catalog Constraints".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bastide.domain import Arn
from bastide.kernel import About, Asked, Authorised, Caller, Calls
from bastide.policy.matching import wildcards
from bastide.services.servicecatalog.noun import CONSTRAINT, CONTAINS, MOST, PORTFOLIO, PRODUCT, absent, invalid
from bastide.services.servicecatalog.tag_option import options_of
from bastide.store import Row, View

PRINCIPALS: Final = "servicecatalog:PrincipalOf"
"""``PORTFOLIO/TYPE/ARN``, in the account whose principal it is, of shared portfolios too."""
SHARE: Final = "servicecatalog:Share"
"""``PORTFOLIO/TYPE/WHO``, in the portfolio's account."""
OFFER: Final = "servicecatalog:Offer"
"""By portfolio, in the account that it was shared with; it counts once it was accepted."""
TO_NODE: Final = "servicecatalog:ToNode"
"""``NODE/PORTFOLIO`` below no account: shared with an organisation, a unit or an account of it, and accepted by that."""
TRUSTED: Final = "organizations:TrustedService"
BOUND: Final = "servicecatalog:ConstraintOf"
"""``PORTFOLIO/PRODUCT/CONSTRAINT``, in the portfolio's account."""
_ENTITIES: Final = {"user": ("iam:User", "UserId"), "role": ("iam:Role", "RoleId"), "group": ("iam:Group", "GroupId")}


@dataclass(frozen=True, slots=True)
class Shared:
    """A portfolio that an account may use though it is another's."""

    portfolio: str
    owner: str
    share: Mapping[str, Any]
    how: str
    """IMPORTED or AWS_ORGANIZATIONS."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way to a product. sources: the portfolios whose constraints bind, the nearest first: its own, and the shared one
    that a product of a local portfolio comes from."""

    id: str
    portfolio: Row
    product: Row
    sources: tuple[tuple[str, str], ...]
    share: Mapping[str, Any] | None = None
    launch: Row | None = None
    bound: tuple[Row, ...] = field(default=())

    @property
    def name(self) -> str:
        """The portfolio's name."""
        return str(self.portfolio.doc["DisplayName"])


def own(a: Authorised, view: View, id: str) -> Row:
    """A portfolio of the caller's account; raises ResourceNotFoundException."""
    row = PORTFOLIO.get(view, a.account, a.region, id)
    if row is None:
        raise absent("Portfolio", id)
    return row


def held(a: Authorised, view: View, id: str) -> Row:
    """A portfolio of the caller's account, or one that is shared with it; raises ResourceNotFoundException."""
    row = PORTFOLIO.get(view, a.account, a.region, id)
    if row is None:
        found = imported(a.calls, view, a.account, a.region).get(id)
        row = PORTFOLIO.get(view, found.owner, a.region, id) if found is not None else None
    if row is None:
        raise absent("Portfolio", id)
    return row


def nodes_of(calls: Calls, view: View, account: str) -> list[str]:
    """The organisation, the root and units above an account, and itself; nothing outside of an organisation."""
    place = calls.organisation.place(view, account)
    return [] if place is None else [place[0], *place[1].strip("/").split("/")[1:], account]


def _offers(view: View, account: str, region: str) -> Iterator[Row]:
    """What other accounts share with an account: all of it, for whoever offers much is not to hide what was accepted."""
    after: str | None = None
    while rows := view.scan(OFFER, account, region, after=after, limit=500):
        yield from rows
        after = rows[-1].name


def imported(calls: Calls, view: View, account: str, region: str) -> dict[str, Shared]:
    """The portfolios that are shared with an account and accepted: by it, or by the organisation for it."""
    found: dict[str, Shared] = {}
    for offer in _offers(view, account, region):
        share = view.get(SHARE, offer.doc["owner"], region, f"{offer.name}/ACCOUNT/{account}")
        if offer.doc["accepted"] and share is not None:
            found[offer.name] = Shared(offer.name, offer.doc["owner"], share.doc, "IMPORTED")
    if view.get(TRUSTED, "", "", "servicecatalog.amazonaws.com") is None:
        return found
    for node in nodes_of(calls, view, account):
        for row in view.scan(TO_NODE, "", region, prefix=f"{node}/", limit=MOST):
            owner, portfolio = row.doc["owner"], row.name.partition("/")[2]
            share = view.get(SHARE, owner, region, f"{portfolio}/{row.doc['type']}/{node}")
            if owner != account and share is not None:
                found[portfolio] = Shared(portfolio, owner, share.doc, "AWS_ORGANIZATIONS")
    return found


# -- principals --------------------------------------------------------------------------------------------------------


def entity(view: View, arn: Arn) -> str | None:
    """The unique id of the user, role or group of an ARN, None if nobody has it."""
    kind = _ENTITIES.get(arn.type)
    row = view.get(kind[0], arn.account, "", arn.resource.rpartition("/")[2].lower()) if kind is not None else None
    if kind is None or row is None or row.doc["Arn"] != str(arn):
        return None
    return str(row.doc[kind[1]])


def _known_as(view: View, caller: Caller) -> set[tuple[str, str]]:
    """ARNs and unique ids that principals of a portfolio mean this caller by: its own, and those of its groups."""
    session = caller.session
    found = {(caller.principal_arn, session.role_id if session is not None else caller.user_id)}
    if caller.kind != "User":
        return found
    row = view.get("iam:User", caller.account, "", caller.principal_arn.rpartition("/")[2].lower())
    mine = set(row.doc.get("groups", ())) if row is not None else set()
    for group in view.scan("iam:Group", caller.account, "", limit=500) if mine else ():
        if group.doc["GroupId"] in mine:
            found.add((group.doc["Arn"], group.doc["GroupId"]))
    return found


def _matches(pattern: str, arn: str) -> bool:
    parts = arn.split(":")
    return wildcards(pattern)(":".join([*parts[:4], "", *parts[5:]]))


def granted(view: View, caller: Caller, portfolio: Row, share: Mapping[str, Any] | None, region: str) -> bool:
    """Whether a portfolio is for the caller."""
    known = _known_as(view, caller)
    for row in view.scan(PRINCIPALS, caller.account, region, prefix=f"{portfolio.name}/", limit=MOST):
        if row.doc["type"] == "IAM":
            if (row.doc["arn"], row.doc["id"]) in known:
                return True
        elif any(_matches(row.doc["arn"], arn) for arn, _ in known):
            return True
    if share is None or not share.get("principals"):
        return False
    patterns = view.scan(PRINCIPALS, portfolio.account, region, prefix=f"{portfolio.name}/IAM_PATTERN/", limit=MOST)
    return any(_matches(row.doc["arn"], arn) for row in patterns for arn, _ in known)


# -- products ----------------------------------------------------------------------------------------------------------


def product_named(id: str, name: str) -> About:
    """The ARN of the product that a call names in one of two members; of all that its name may mean, for what is denied of
    a product is denied whatever it is called by. Whoever names nothing asks for all."""

    def about(asked: Asked) -> Iterable[str]:
        call, given = asked.call, asked.input.get(id)
        found = [str(given)] if given else _called(asked.view, call.account, call.region, asked.input.get(name))
        return [PRODUCT.arn(call.account, call.region, one) for one in found or ("*",)]

    return about


def _called(view: View, account: str, region: str, name: str | None) -> list[str]:
    """The products of a name, of an account and of whatever may be shared with it."""
    if not name:
        return []
    rows: list[Row | None] = [*view.scan(PRODUCT.key, account, region, limit=MOST * 5)]
    shared = [(one.doc["owner"], one.name) for one in _offers(view, account, region)]
    shared += [(one.doc["owner"], one.name.partition("/")[2]) for one in view.scan(TO_NODE, "", region, limit=MOST * 5)]
    for owner, portfolio in dict.fromkeys(shared):
        inside = view.scan(CONTAINS, owner, region, prefix=f"{portfolio}/", limit=MOST * 5)
        rows += [PRODUCT.get(view, one.doc["owner"], region, one.doc["product"]) for one in inside]
    return sorted({row.name for row in rows if row is not None and row.doc["Name"] == name})


def product_of(a: Authorised, view: View, id: str) -> Row:
    """A product of the caller's account, or of a portfolio that is shared with it: for administrators. Raises
    ResourceNotFoundException."""
    row = PRODUCT.get(view, a.account, a.region, id)
    if row is not None:
        return row
    for one in imported(a.calls, view, a.account, a.region).values():
        if view.get(CONTAINS, one.owner, a.region, f"{one.portfolio}/{id}") is not None:
            row = PRODUCT.get(view, one.owner, a.region, id)
            if row is not None:
                return row
    raise absent("Product", id)


def _portfolios(a: Authorised, view: View) -> Iterator[tuple[Row, Shared | None]]:
    for row in view.scan(PORTFOLIO.key, a.account, a.region, limit=MOST):
        yield row, None
    for one in imported(a.calls, view, a.account, a.region).values():
        found = PORTFOLIO.get(view, one.owner, a.region, one.portfolio)
        if found is not None:
            yield found, one


def paths(a: Authorised, view: View, product: str = "") -> list[Path]:
    """The ways that the caller has to products, or to one."""
    found: list[Path] = []
    there = imported(a.calls, view, a.account, a.region)
    for portfolio, shared in _portfolios(a, view):
        share = shared.share if shared is not None else None
        if not granted(view, a.caller, portfolio, share, a.region):
            continue
        for held_ in view.scan(
            CONTAINS, portfolio.account, a.region, prefix=f"{portfolio.name}/{product}", limit=MOST * 5
        ):
            one = held_.doc
            if product and one["product"] != product:
                continue
            source = there.get(one["source"]) if one["source"] else None
            if one["source"] and (
                source is None
                or view.get(CONTAINS, source.owner, a.region, f"{source.portfolio}/{one['product']}") is None
            ):
                continue  # no longer shared, or no longer in there
            row = PRODUCT.get(view, one["owner"], a.region, one["product"])
            if row is None:
                continue
            sources = [(portfolio.account, portfolio.name)]
            if source is not None:
                sources.append((source.owner, source.portfolio))
            found.append(_path(a, view, portfolio, row, sources, share))
    return found


def _path(
    a: Authorised,
    view: View,
    portfolio: Row,
    product: Row,
    sources: Iterable[tuple[str, str]],
    share: Mapping[str, Any] | None,
) -> Path:
    launch: Row | None = None
    bound: list[Row] = []
    for account, name in sources:
        for held_ in view.scan(BOUND, account, a.region, prefix=f"{name}/{product.name}/", limit=MOST):
            row = CONSTRAINT.get(view, account, a.region, held_.name.rpartition("/")[2])
            if row is None:
                continue
            if row.doc["Type"] == "LAUNCH":
                launch = launch or row  # a local portfolio's own goes before the one that came along
            else:
                bound.append(row)
    digest = hashlib.sha256(f"{a.account}/{portfolio.name}/{product.name}".encode()).hexdigest()[:13]
    return Path(f"lpv2-{digest}", portfolio, product, tuple(sources), share, launch, tuple(bound))


def products(a: Authorised, view: View) -> dict[str, list[Path]]:
    """The products that the caller may launch, and the ways to each."""
    found: dict[str, list[Path]] = {}
    for path in paths(a, view):
        found.setdefault(path.product.name, []).append(path)
    return found


def chosen(a: Authorised, view: View, given: Mapping[str, Any]) -> Path:
    """The way that a call takes to the product that it names; raises Refused."""
    if bool(given.get("ProductId")) == bool(given.get("ProductName")):
        raise invalid("Please give either ProductId or ProductName.")
    if given.get("PathId") and given.get("PathName"):
        raise invalid("Please give either PathId or PathName.")
    if given.get("ProductId"):
        ways = paths(a, view, given["ProductId"])
    else:
        ways = [one for one in paths(a, view) if one.product.doc["Name"] == given["ProductName"]]
        if len({one.product.name for one in ways}) > 1:
            raise invalid(f"Several products have the name {given['ProductName']}; please give ProductId.")
    if not ways:
        raise absent("Product", given.get("ProductId") or given["ProductName"])
    if given.get("PathId"):
        ways = [one for one in ways if one.id == given["PathId"]]
    elif given.get("PathName"):
        ways = [one for one in ways if one.name == given["PathName"]]
    if not ways:
        raise absent("Launch path", given.get("PathId") or given["PathName"])
    if len(ways) > 1:
        told = ", ".join(f"{one.id} ({one.name})" for one in ways)
        raise invalid(f"The product has several launch paths; please give the PathId of one: {told}")
    return ways[0]


def role_of(path: Path, account: str) -> str:
    """The role that launches, empty without a launch constraint; raises InvalidParametersException for a role of another
    account: a portfolio that is shared names its launch role by LocalRoleName."""
    if path.launch is None:
        return ""
    given = path.launch.doc["Parameters"]
    role = given.get("RoleArn") or f"arn:aws:iam::{account}:role/{given['LocalRoleName']}"
    if role.split(":")[4] != account:
        raise invalid(
            f"The launch constraint {path.launch.name} names the role {role} of another account. A product that is shared "
            "is launched here by a role of this account: its constraint is to give LocalRoleName."
        )
    return str(role)


def option_values(a: Authorised, view: View, path: Path) -> dict[str, list[str]]:
    """The values that the TagOptions of a path allow, by key."""
    found: dict[str, list[str]] = {}
    for account, portfolio in path.sources:
        theirs = account != a.account
        share = path.share if path.share is not None else None
        if theirs and share is None:
            there = imported(a.calls, view, a.account, a.region).get(portfolio)
            share = there.share if there is not None else {}
        if theirs and not (share or {}).get("options"):
            continue
        for resource in (portfolio, path.product.name):
            for one in options_of(view, account, a.region, resource):
                values = found.setdefault(one["Key"], [])
                if one["Active"] and one["Value"] not in values:
                    values.append(one["Value"])
    return {key: sorted(values) for key, values in sorted(found.items()) if values}


def tags_on(path: Path) -> dict[str, str]:
    """The tags that a path brings: the portfolio's, and the product's before them."""
    return {**path.portfolio.tags, **path.product.tags}


def summaries(path: Path) -> list[dict[str, str]]:
    """The constraints of a path as they are summed up."""
    rows = ([path.launch] if path.launch is not None else []) + list(path.bound)
    return [{"Type": row.doc["Type"], "Description": row.doc.get("Description") or ""} for row in rows]
