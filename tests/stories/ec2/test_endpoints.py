"""Endpoints as a client inside a VPC meets them: real names, real packets."""

from __future__ import annotations

import ipaddress

import pytest

from tests.stories.ec2.conftest import Vpc

@pytest.mark.control("NET-04")
def test_a_call_succeeds_through_an_endpoint_and_cannot_connect_without(vpc: Vpc) -> None:
    made = vpc.interface("sts")
    (code, answer), (_, addresses) = vpc.asks(
        ("sts", "get_caller_identity"), ("resolve", "sts.us-east-1.amazonaws.com")
    )
    assert not code, answer
    assert answer["Account"] == vpc.account.id
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(vpc.cidr) for one in addresses)
    vpc.ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])
    (code, _), = vpc.asks(("sts", "get_caller_identity"))
    assert code == "ConnectTimeoutError"
