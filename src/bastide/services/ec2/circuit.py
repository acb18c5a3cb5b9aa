"""What Direct Connect may ask of EC2: the gateways that circuits lead to (`kernel.circuits.Gateways`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bastide.domain import Refused
from bastide.engines.network import Transit, Vpc
from bastide.kernel import Authorised
from bastide.services.ec2.nouns import TRANSIT_ATTACHMENT, TRANSIT_GATEWAY, VPN_GATEWAY
from bastide.services.ec2.transit_attachment import drop_attachment, new_attachment
from bastide.services.ec2.transit_noun import CIRCUITS, transit
from bastide.services.ec2.transit_noun import gateway as transit_row
from bastide.store import Transaction, View

_MOST: Final = 500


class CircuitGateways:
    """See the port."""

    def kind(self, a: Authorised, view: View, id: str) -> str:
        if VPN_GATEWAY.get(view, a.account, a.region, id) is not None:
            return "virtualPrivateGateway"
        if TRANSIT_GATEWAY.get(view, a.account, a.region, id) is not None:
            return "transitGateway"
        raise Refused("DirectConnectClientException", f"There is no gateway {id[:64]} of this account and region.")

    def virtual(self, a: Authorised, view: View) -> list[str]:
        return [row.name for row in view.scan(VPN_GATEWAY.key, a.account, a.region, limit=_MOST)]

    def attach(self, a: Authorised, tx: Transaction, gateway: str, source: str) -> None:
        tgw = TRANSIT_GATEWAY.get(tx, a.account, a.region, gateway)
        if tgw is not None:
            new_attachment(a, tx, tgw, CIRCUITS, source, {"StaticOnly": False, "Subnets": []}, [source])

    def detach(self, a: Authorised, tx: Transaction, gateway: str, source: str) -> None:
        for row in TRANSIT_ATTACHMENT.inside(tx, a.account, a.region, source):
            if row.doc["Tgw"] == gateway:
                drop_attachment(a, tx, row)

    def concerned(self, view: View, region: str, id: str) -> Iterable[Vpc | Transit]:
        for one in transit(view, region, id):
            vgw = VPN_GATEWAY.get(view, one.account, region, id)
            if vgw is not None and vgw.doc["VpcId"]:
                yield Vpc(vgw.account, vgw.region, vgw.doc["VpcId"])
            elif vgw is None and transit_row(view, region, id) is None:
                continue
            yield one
