"""Resource shares: a transit gateway that other accounts see and may attach to, as far as the share goes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running, allow


def refused(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**given)
    return str(error.value.response["Error"]["Code"])


def gateways(account: Account) -> list[str]:
    return [one["TransitGatewayId"] for one in account.client("ec2").describe_transit_gateways()["TransitGateways"]]


def attaching(account: Account, gateway: str, **keys: Any) -> str:
    """What an attempt to attach meets: nothing exists to be attached, so the last refusal is that."""
    given = {"TransitGatewayId": gateway, "VpcId": "vpc-0123456789abcdef0", "SubnetIds": ["subnet-0123456789abcdef0"]}
    return refused(account.client("ec2", **keys).create_transit_gateway_vpc_attachment, **given)


@pytest.fixture
def sharing(platform: Running) -> Iterator[Any]:
    """Organizations, where RAM is not trusted to begin with."""
    organizations = platform.client("organizations")
    organizations.disable_aws_service_access(ServicePrincipal="ram.amazonaws.com")
    yield organizations
    platform.client("ram").enable_sharing_with_aws_organization()


@pytest.fixture
def owned(account: Account) -> tuple[Account, str, str]:
    made = account.client("ec2").create_transit_gateway()["TransitGateway"]
    return account, made["TransitGatewayId"], made["TransitGatewayArn"]


@pytest.mark.control("NET-02")
def test_who_is_invited_takes_part_once_it_accepts(
    platform: Running, sharing: Any, owned: tuple[Account, str, str]
) -> None:
    owner, gateway, arn = owned
    other, third = platform.account(), platform.account()
    ram = owner.client("ram")
    assert gateways(owner) == [gateway]
    assert attaching(owner, gateway) == "InvalidVpcID.NotFound"
    assert attaching(other, gateway) == "UnauthorizedOperation"
    share = ram.create_resource_share(name="net", resourceArns=[arn], principals=[other.id, third.id])["resourceShare"]
    associated = ram.get_resource_share_associations(associationType="PRINCIPAL")["resourceShareAssociations"]
    assert {(one["associatedEntity"], one["status"], one["external"]) for one in associated} == {
        (other.id, "ASSOCIATING", True), (third.id, "ASSOCIATING", True),
    }  # fmt: skip
    assert gateways(other) == []
    theirs = other.client("ram")
    invited = theirs.get_resource_share_invitations()["resourceShareInvitations"]
    assert [(one["resourceShareName"], one["senderAccountId"], one["status"]) for one in invited] == [
        ("net", owner.id, "PENDING")
    ]
    mine = invited[0]["resourceShareInvitationArn"]
    # An invitation is answered by whoever is invited, and nobody else.
    for stranger in (owner, third):
        code = refused(stranger.client("ram").accept_resource_share_invitation, resourceShareInvitationArn=mine)
        assert code == "AccessDeniedException"
    theirs.accept_resource_share_invitation(resourceShareInvitationArn=mine)
    again = refused(theirs.accept_resource_share_invitation, resourceShareInvitationArn=mine)
    assert again == "ResourceShareInvitationAlreadyAcceptedException"
    assert gateways(other) == [gateway]
    assert attaching(other, gateway) == "InvalidVpcID.NotFound"
    # The share lets the account; its own policies still decide who in it.
    other.role("reader", allow("ec2:Describe*"))
    assert attaching(other, gateway, keys=other.as_role("reader")) == "UnauthorizedOperation"
    # What the permission does not name stays the owner's.
    assert refused(other.client("ec2").delete_transit_gateway, TransitGatewayId=gateway) == (
        "InvalidTransitGatewayID.NotFound"
    )
    rejecting = third.client("ram").get_resource_share_invitations()["resourceShareInvitations"][0]
    third.client("ram").reject_resource_share_invitation(
        resourceShareInvitationArn=rejecting["resourceShareInvitationArn"]
    )
    assert attaching(third, gateway) == "UnauthorizedOperation"
    listed = theirs.list_resources(resourceOwner="OTHER-ACCOUNTS")["resources"]
    assert [(one["arn"], one["type"]) for one in listed] == [(arn, "ec2:TransitGateway")]
    assert (
        theirs.get_resource_shares(resourceOwner="OTHER-ACCOUNTS")["resourceShares"][0]["owningAccountId"] == owner.id
    )
    assert [one["id"] for one in ram.list_principals(resourceOwner="SELF")["principals"]] == [other.id]
    assert refused(theirs.delete_resource_share, resourceShareArn=share["resourceShareArn"]) == "AccessDeniedException"
    ram.disassociate_resource_share(resourceShareArn=share["resourceShareArn"], principals=[other.id])
    assert gateways(other) == []
    assert attaching(other, gateway) == "UnauthorizedOperation"


def test_an_organisation_and_its_units_take_part_without_invitation_where_it_is_enabled(
    platform: Running, sharing: Any, owned: tuple[Account, str, str]
) -> None:
    owner, gateway, arn = owned
    ram = owner.client("ram")
    root = sharing.list_roots()["Roots"][0]["Id"]
    unit = sharing.create_organizational_unit(ParentId=root, Name=f"shared-{uuid.uuid4().hex[:8]}")[
        "OrganizationalUnit"
    ]
    other = platform.account()
    given = {"name": "unit", "resourceArns": [arn], "principals": [unit["Arn"]]}
    assert refused(ram.create_resource_share, **given) == "OperationNotPermittedException"
    assert refused(ram.enable_sharing_with_aws_organization) == "OperationNotPermittedException"
    platform.client("ram").enable_sharing_with_aws_organization()
    share = ram.create_resource_share(**given)["resourceShare"]["resourceShareArn"]
    assert gateways(other) == []
    sharing.move_account(AccountId=other.id, SourceParentId=root, DestinationParentId=unit["Id"])
    assert gateways(other) == [gateway]
    assert attaching(other, gateway) == "InvalidVpcID.NotFound"
    sharing.move_account(AccountId=other.id, SourceParentId=unit["Id"], DestinationParentId=root)
    assert gateways(other) == []
    assert attaching(other, gateway) == "UnauthorizedOperation"
    organisation = sharing.describe_organization()["Organization"]["Arn"]
    ram.associate_resource_share(resourceShareArn=share, principals=[organisation])
    assert gateways(other) == [gateway]
    ram.delete_resource_share(resourceShareArn=share)
    assert gateways(other) == []
    account = ram.create_resource_share(name="account", resourceArns=[arn], principals=[other.id])["resourceShare"]
    assert attaching(other, gateway) == "InvalidVpcID.NotFound"
    assert other.client("ram").get_resource_share_invitations()["resourceShareInvitations"] == []
    assert refused(owner.client("ec2").delete_transit_gateway, TransitGatewayId=gateway) == "InvalidParameterValue"
    ram.delete_resource_share(resourceShareArn=account["resourceShareArn"])
    owner.client("ec2").delete_transit_gateway(TransitGatewayId=gateway)


def test_nothing_is_shared_that_is_not_the_owners_or_cannot_be(
    platform: Running, sharing: Any, owned: tuple[Account, str, str]
) -> None:
    owner, _, arn = owned
    other = platform.account()
    theirs = other.client("ram")
    bucket = "arn:aws:s3:::a-bucket"
    for wrong in (arn, bucket, arn[:-4] + "0000"):
        assert refused(theirs.create_resource_share, name="x", resourceArns=[wrong]) == "InvalidParameterException"
    assert refused(theirs.create_resource_share, name="x", resourceArns=["nonsense"]) == "MalformedArnException"
    ram = owner.client("ram")
    for principal, code in (
        (owner.id, "InvalidParameterException"),
        ("12", "InvalidParameterException"),
        ("999999999999", "OperationNotPermittedException"),
    ):
        given = {"name": "x", "principals": [principal], "allowExternalPrincipals": False}
        assert refused(ram.create_resource_share, **given) == code
    assert ram.get_resource_shares(resourceOwner="SELF")["resourceShares"] == []
