"""What shares and invitations have in common: their rows, what can be shared, and what other services are told of a share.

Source: RAM API Reference; RAM User Guide, "Shareable AWS resources", "AWS RAM managed permissions".
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Arn, Refused
from bastide.domain.arn import PARTITION
from bastide.kernel import Authorised, Facts, Kind, shares
from bastide.store import Row, Transaction, View

SHARE: Final = Kind(
    "ResourceShare", service="ram", arn="resource-share/{}", named_by="resourceShareArn",
    missing=("UnknownResourceException", "ResourceShare {arn} could not be found.", 400),
    fills=("ram:ResourceShareName", "ram:AllowsExternalPrincipals", "ram:ResourceTag/${TagKey}"),
)  # fmt: skip
INVITATION: Final = Kind(
    "ResourceShareInvitation", service="ram", arn="resource-share-invitation/{}", named_by="resourceShareInvitationArn",
    tags=False, fills=("ram:ShareOwnerAccountId", "ram:ResourceShareName"),
)  # fmt: skip
"""Rows under no account: both sides see them."""
TRUSTED: Final = "organizations:TrustedService"
SERVICE: Final = "ram.amazonaws.com"
_ACCOUNT: Final = re.compile(r"\d{12}")


@dataclass(frozen=True, slots=True)
class Shareable:
    """A type of resource. kind: of its rows. actions: what its one permission lets others do."""

    type: str
    kind: str
    prefix: str
    permission: str
    actions: tuple[str, ...]

    @property
    def permission_arn(self) -> str:
        """Of the permission that AWS manages."""
        return f"arn:aws:ram::aws:permission/{self.permission}"


TYPES: Final = (
    Shareable(
        "ec2:TransitGateway",
        "ec2:TransitGateway",
        "transit-gateway/",
        "AWSRAMDefaultPermissionTransitGateway",
        (
            "ec2:CreateTransitGatewayVpcAttachment",
            "ec2:DeleteTransitGatewayVpcAttachment",
            "ec2:DescribeTransitGateways",
        ),
    ),
)


def malformed(message: str) -> Refused:
    """InvalidParameterException."""
    return Refused("InvalidParameterException", message)


def resource(a: Authorised, view: View, text: str) -> tuple[Shareable, Arn]:
    """What an ARN names that is the caller's and can be shared; raises Refused."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise Refused("MalformedArnException", f"The resource ARN {text[:256]} is not valid.") from None
    for one in TYPES:
        if arn.service == one.kind.partition(":")[0] and arn.resource.startswith(one.prefix):
            name = arn.resource.removeprefix(one.prefix)
            held = view.get(one.kind, arn.account, arn.region, name)
            if arn.partition != PARTITION or arn.account != a.account or arn.region != a.region or held is None:
                raise malformed(f"The resource {text[:256]} does not exist in this account and region.")
            return one, arn
    kinds = ", ".join(one.type for one in TYPES)
    raise malformed(f"The resource {text[:256]} is of a type that cannot be shared here; what can: {kinds}.")


def principal(a: Authorised, view: View, text: str, *, external: bool) -> tuple[str, bool]:
    """A principal as shares keep it (`shares.GRANTED`), and whether it is to be invited first; raises Refused for one that
    may not be named."""
    own = a.calls.organisation.place(view, a.account)
    trusted = view.get(TRUSTED, "", "", SERVICE) is not None
    if _ACCOUNT.fullmatch(text):
        if text == a.account:
            raise malformed(f"Principal ID {text} is the owner of the share.")
        place = a.calls.organisation.place(view, text)
        inside = own is not None and place is not None and own[0] == place[0]
        if not inside and not external:
            raise Refused(
                "OperationNotPermittedException", f"The share allows no principals outside of its organisation: {text}."
            )
        return (f"{text}@{own[0]}/", False) if inside and trusted and own is not None else (text, True)
    found = re.fullmatch(
        r"arn:aws:organizations::\d{12}:(?:organization/(o-[a-z0-9]+)|ou/(o-[a-z0-9]+)/(ou-[a-z0-9-]+))", text
    )
    if found is None:
        raise malformed(f"Principal ID {text[:256]} is malformed: an account, an OU's ARN or an organisation's.")
    if own is None or own[0] != (found[1] or found[2]):
        raise malformed(f"{text} is not of this account's organisation.")
    if not trusted:
        raise Refused(
            "OperationNotPermittedException",
            "The resource you are attempting to share can only be shared within your AWS Organization, and sharing "
            "with it is not enabled (EnableSharingWithAwsOrganization, by the management account).",
        )
    if found[1]:
        return f"{own[0]}/", False
    path = a.calls.organisation.place(view, found[3])
    if path is None:
        raise Refused("UnknownResourceException", f"OrganizationalUnit {found[3]} could not be found.")
    return f"{path[1]}{found[3]}/", False


def tell(tx: Transaction, share: Row) -> None:
    """Has other services know what a share says now."""
    arn = SHARE.arn(share.account, share.region, share.name)
    principals = [one["As"] for one in share.doc["Principals"].values() if one["Status"] == "ASSOCIATED"]
    wanted = share.doc["Resources"] if share.status == "ACTIVE" else {}
    for one in share.doc["Told"]:
        held = tx.get(shares.GRANTED, "", share.region, f"{one}\0{arn}")
        if held is not None:
            tx.delete(held, keep=False)
    for one, about in wanted.items():
        actions = list(next(each for each in TYPES if each.type == about["Type"]).actions)
        doc = {"Principals": principals, "Actions": actions}
        tx.insert(Row(shares.GRANTED, "", share.region, f"{one}\0{arn}", doc), keep=False)
    share.doc["Told"] = list(wanted)


def new_id() -> str:
    """The last part of an ARN."""
    return str(uuid.uuid4())


def facts(view: View, arn: Arn, action: str) -> Facts | None:
    """A share is its owner's; an invitation is of whoever is invited."""
    kind, _, id = arn.resource.partition("/")
    if kind == "resource-share-invitation":
        row = view.get(INVITATION.key, "", arn.region, id)
        if row is None:
            return Facts(arn.account, type=INVITATION.name)
        keys = {"ram:shareowneraccountid": row.doc["Sender"], "ram:resourcesharename": row.doc["Name"]}
        return Facts(row.doc["Receiver"], type=INVITATION.name, keys=keys)
    row = SHARE.get(view, arn.account, arn.region, id) if kind == "resource-share" else None
    if row is None:
        return Facts(arn.account, type=SHARE.name)
    keys = {
        "ram:resourcesharename": row.doc["Name"],
        "ram:allowsexternalprincipals": "true" if row.doc["External"] else "false",
        **{f"ram:resourcetag/{key.lower()}": value for key, value in row.tags.items()},
    }
    return Facts(arn.account, row.tags, type=SHARE.name, keys=keys)


def mine(a: Authorised, view: View) -> Row:
    """The share that a call names, of the caller's account and region; raises Refused."""
    given = str(a.input["resourceShareArn"])
    try:
        arn = Arn.parse(given)
    except ValueError:
        raise Refused("MalformedArnException", f"The ARN {given[:256]} is not valid.") from None
    name = arn.resource.removeprefix("resource-share/")
    if given != SHARE.arn(arn.account, arn.region, name):  # the question was about what policies write
        raise Refused("MalformedArnException", f"{given[:256]} is not the ARN of a resource share.")
    row = SHARE.find(view, arn.account, arn.region, name)
    if (row.account, row.region) != (a.account, a.region):
        raise Refused("OperationNotPermittedException", f"{given} is not this account's.")
    return row


def this(asked: Any) -> tuple[str, ...]:
    """The ARN that a call names."""
    return (str(asked.input.get("resourceShareArn") or "*"),)
