"""How Direct Connect and the gateways of EC2 know of each other: what leads to a gateway, and what is attached to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from bastide.store import Row, Transaction, View

if TYPE_CHECKING:
    from bastide.kernel.call import Authorised

_LEADS: Final = "directconnect:Leads"
"""Rows ``TARGET/SOURCE`` under no account: interfaces of a connection; interfaces, and Direct Connect gateways, of a
gateway. They say whose the source is, and where; of an interface its connection, of a gateway the prefixes."""
_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Circuit:
    """A virtual interface and the connection it is of. by: the Direct Connect gateway between it and the gateway, if there
    is one. prefixes: what of this side the other one is told of; all if empty."""

    interface: str
    connection: str
    by: str = ""
    prefixes: tuple[str, ...] = ()


class Gateways(Protocol):
    """The gateways that circuits lead to, of the caller's account and region."""

    def kind(self, a: Authorised, view: View, id: str) -> str:
        """``virtualPrivateGateway`` or ``transitGateway``; raises Refused."""
        ...

    def virtual(self, a: Authorised, view: View) -> list[str]:
        """The virtual private gateways."""
        ...

    def attach(self, a: Authorised, tx: Transaction, gateway: str, source: str) -> None:
        """A Direct Connect gateway is attached to a gateway from now on."""
        ...

    def detach(self, a: Authorised, tx: Transaction, gateway: str, source: str) -> None:
        """It is not any more."""
        ...

    def concerned(self, view: View, region: str, id: str) -> Iterable[Any]:
        """Whose packets go another way when something else leads to a gateway, as the network engine names them."""
        ...


def lead(tx: Transaction, target: str, source: str, doc: dict[str, Any]) -> None:
    """A source leads to a target from now on."""
    tx.insert(Row(_LEADS, "", "", f"{target}/{source}", doc), keep=False)


def unlead(tx: Transaction, target: str, source: str) -> None:
    """It does not any more."""
    held = tx.get(_LEADS, "", "", f"{target}/{source}")
    if held is not None:
        tx.delete(held, keep=False)


def sources(view: View, target: str) -> dict[str, dict[str, Any]]:
    """What leads to a target, by id."""
    rows = view.scan(_LEADS, "", "", prefix=f"{target}/", limit=_MOST)
    return {row.name.partition("/")[2]: row.doc for row in rows}


def circuits(view: View, gateway: str) -> list[Circuit]:
    """The circuits that lead to a gateway of a VPC, or to a transit gateway."""
    found: list[Circuit] = []
    for id, doc in sources(view, gateway).items():
        if "Connection" in doc:
            found.append(Circuit(id, doc["Connection"]))
            continue
        found += [
            Circuit(one, below["Connection"], id, tuple(doc["Prefixes"])) for one, below in sources(view, id).items()
        ]
    return found
