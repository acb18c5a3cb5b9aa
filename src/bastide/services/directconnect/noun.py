"""What connections, virtual interfaces and gateways have in common.

A circuit is laid by people: a connection is `pending` until the platform's operator declares where it ends (`links.json`,
docs/network.md), and `available` from then on. Nothing here speaks BGP: what would be announced is what is declared.

Source: AWS Direct Connect API Reference and User Guide.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bastide.domain import Arn, Refused, Tags
from bastide.engines.network import Networks, Transit, Vpc
from bastide.engines.network.links import Links
from bastide.kernel import Asked, Authorised, Kind, Output, pages
from bastide.kernel.circuits import sources
from bastide.store import Row, View

_MISSING: Final = ("DirectConnectClientException", "{what} {name} does not exist.", 400)
CONNECTION: Final = Kind(
    "Connection", service="directconnect", arn="dxcon/{}", named_by="connectionId", missing=_MISSING
)
INTERFACE: Final = Kind(
    "VirtualInterface", service="directconnect", arn="dxvif/{}", named_by="virtualInterfaceId", missing=_MISSING
)
GATEWAY: Final = Kind(
    "DirectConnectGateway", service="directconnect", arn="dx-gateway/{}", named_by="directConnectGatewayId",
    global_=True, missing=_MISSING,
)  # fmt: skip


def new_id(prefix: str) -> str:
    """An id as Direct Connect makes them: ``dxcon-fg1234ab``."""
    return f"{prefix}-f{secrets.token_hex(4)}"


def wrong(message: str) -> Refused:
    """DirectConnectClientException."""
    return Refused("DirectConnectClientException", message)


def refuse(given: Mapping[str, Any], *members: str) -> None:
    """Raises Refused for what would have no effect here."""
    for one in members:
        if given.get(one) not in (None, False, "", [], {}, 0):
            raise wrong(f"{one} is not supported by Bastide: it would have no effect.")


def tags_of(given: Mapping[str, Any], before: Tags | None = None) -> Tags:
    """Tags as a call brings them, over those from before."""
    found: Tags = dict(before or {})
    seen: set[str] = set()
    for one in given.get("tags") or ():
        key = str(one["key"])
        if key in seen:
            raise Refused("DuplicateTagKeysException", f"The tag key {key} is given twice.")
        if key.lower().startswith("aws:"):
            raise wrong("Tag keys that begin with aws: are reserved.")
        seen.add(key)
        found[key] = str(one.get("value") or "")
    if len(found) > 50:
        raise Refused("TooManyTagsException", "A resource has at most 50 tags.")
    return found


def tags_shown(row: Row) -> list[Output]:
    """As they are listed."""
    return [{"key": key, "value": value} for key, value in sorted(row.tags.items())]


def any_or(kind: Kind, member: str = "") -> Any:
    """The ARN of the one that a call names; of all if it names none."""
    name = member or kind.named_by

    def about(asked: Asked) -> Iterable[str]:
        given = asked.input.get(name)
        return (kind.arn(asked.call.account, asked.call.region, str(given)) if given else "*",)

    return about


def paged(a: Authorised, view: View, kind: Kind, member: str, show: Callable[[Row], Output]) -> Output:
    """A page of the caller's own."""
    size = min(int(a.input.get("maxResults") or 100), 100)
    after = pages.position(a, a.input.get("nextToken"), code="DirectConnectClientException")
    rows = view.scan(kind.key, a.account, kind.region(a.region), after=after, limit=size + 1)
    more = {"nextToken": pages.seal(a, rows[size - 1].name)} if len(rows) > size else {}
    return {member: [show(row) for row in rows[:size]], **more}


def interfaces(view: View, target: str) -> list[Row]:
    """The virtual interfaces of a connection or a gateway."""
    found = [
        INTERFACE.get(view, doc["Account"], doc["Region"], id)
        for id, doc in sources(view, target).items()
        if "Connection" in doc
    ]
    return [row for row in found if row is not None]


def settling(read: Any) -> dict[str, Any]:
    """Of an operation: networks whose packets go another way afterwards do so when the call is answered."""

    async def before(a: Authorised) -> list[Vpc | Transit]:
        with a.calls.store.reading() as view:
            return list(read(a, view))

    async def after(a: Authorised, output: Output) -> Output:
        for one in a.staged:
            await a.engine(Networks).settle(one)
        return output

    return {"before": before, "after": after}


def up(a: Authorised, connection: str) -> bool:
    """Whether the operator declared where a connection's circuit ends."""
    return a.engine(Links).find(connection) is not None


def located(a: Authorised, view: View, arn: str) -> tuple[Kind, Row]:
    """The resource of an ARN; raises Refused for another account's, or none."""
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        raise wrong(f"{arn[:200]} is no ARN.") from None
    for kind in (CONNECTION, INTERFACE, GATEWAY):
        if parsed.service == "directconnect" and parsed.resource.startswith(kind.type):
            account, region, name = kind.locate(arn, a.account, a.region)
            if account == a.account:
                return kind, kind.find(view, account, region, name)
    raise wrong(f"{arn[:200]} does not exist.")
