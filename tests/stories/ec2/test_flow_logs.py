"""Flow logs: lines of what really crossed an interface, accepted and rejected."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

from botocore.exceptions import ClientError

from tests.platform import REGION, allow
from tests.stories.ec2.conftest import Science
from tests.waiting import until

HTTPS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}


def test_flows_are_written_as_groups_decided_on_them(science: Science) -> None:
    vpc, inside = science.vpc, science.inside
    ec2, account = vpc.ec2, vpc.account
    role = account.role("flows", allow("logs:*"), trust={"Service": "vpc-flow-logs.amazonaws.com"})
    bucket = f"flows-{uuid.uuid4().hex[:10]}"
    s3 = account.client("s3")
    s3.create_bucket(Bucket=bucket)
    guard = ec2.create_security_group(VpcId=vpc.id, GroupName="watched", Description="lets HTTPS in")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=guard, IpPermissions=[{**HTTPS, "IpRanges": [{"CidrIp": vpc.cidr}]}])
    endpoint = vpc.interface("sts", SecurityGroupIds=[guard])
    held = ec2.describe_network_interfaces(NetworkInterfaceIds=endpoint["NetworkInterfaceIds"])["NetworkInterfaces"][0]
    there, served = held["PrivateIpAddress"], held["NetworkInterfaceId"]
    mine = science.interface
    here = ec2.describe_network_interfaces(NetworkInterfaceIds=[mine])["NetworkInterfaces"][0]["PrivateIpAddress"]
    to_group = ec2.create_flow_logs(
        ResourceIds=[vpc.id],
        ResourceType="VPC",
        TrafficType="ALL",
        LogGroupName="/flows",
        DeliverLogsPermissionArn=role,
    )["FlowLogIds"][0]
    to_bucket = ec2.create_flow_logs(
        ResourceIds=[served], ResourceType="NetworkInterface", TrafficType="REJECT", LogDestinationType="s3",
        LogDestination=f"arn:aws:s3:::{bucket}/net",
    )["FlowLogIds"][0]  # fmt: skip

    assert inside.one("sts", "get_caller_identity")[0] == ""
    assert inside.lost(("connect", there, {"port": 444}))

    def lines() -> list[list[str]]:
        try:
            found = account.client("logs").filter_log_events(logGroupName="/flows")["events"]
        except ClientError:
            return []
        return [one["message"].split() for one in found]

    def flow(interface: str, source: str, target: str, port: str, action: str) -> Any:
        for one in lines():
            if one[2:5] == [interface, source, target] and port in one[5:7] and one[12] == action:
                return one
        return None

    out = until(lambda: flow(mine, here, there, "443", "ACCEPT"))
    assert (out[0], out[1], out[7], out[13]) == ("2", account.id, "6", "OK") and int(out[8]) >= 3 and int(out[9]) > 300
    until(lambda: flow(served, here, there, "443", "ACCEPT"))
    until(lambda: flow(mine, there, here, "443", "ACCEPT"))
    # The client's groups let the second out; those of the endpoint did not let it in.
    until(lambda: flow(mine, here, there, "444", "ACCEPT"))
    rejected = until(lambda: flow(served, here, there, "444", "REJECT"))
    assert int(rejected[8]) >= 1
    assert flow(mine, here, there, "444", "REJECT") is None and flow(served, here, there, "444", "ACCEPT") is None

    # Into a bucket only where its policy lets the service.
    def status() -> str:
        return str(ec2.describe_flow_logs(FlowLogIds=[to_bucket])["FlowLogs"][0]["DeliverLogsStatus"])

    until(lambda: status() == "FAILED")
    statement = {
        "Effect": "Allow", "Principal": {"Service": "delivery.logs.amazonaws.com"}, "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/net/AWSLogs/{account.id}/*",
        "Condition": {"StringEquals": {"aws:SourceAccount": account.id}},
    }  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert inside.lost(("connect", there, {"port": 445}))
    key = until(lambda: s3.list_objects_v2(Bucket=bucket).get("Contents"))[0]["Key"]
    assert key.startswith(f"net/AWSLogs/{account.id}/vpcflowlogs/{REGION}/") and to_bucket in key
    text = gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).decode().splitlines()
    assert text[0].startswith("version account-id interface-id srcaddr")
    assert all(one.split()[2] == served and one.split()[12] == "REJECT" for one in text[1:]) and len(text) > 1
    until(lambda: status() == "SUCCESS")
    assert ec2.delete_flow_logs(FlowLogIds=[to_group, to_bucket])["Unsuccessful"] == []
    assert ec2.describe_flow_logs()["FlowLogs"] == []
