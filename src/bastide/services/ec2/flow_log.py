"""Flow logs of VPCs, subnets and interfaces: which flows the groups let pass and which they did not, as the kernel counted.

Source: VPC User Guide, "Logging IP traffic using VPC Flow Logs". Lines are of the default format. What is counted and not
yet written is lost when the platform ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from bastide.domain import MICROS, Arn, Refused
from bastide.engines.network import Vpc
from bastide.kernel import Ask, Asked, Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import Noun, ask, creating, invalid, sliced, unsupported
from bastide.services.ec2.nouns import FLOW_LOG, NETWORK_INTERFACE, SUBNET, VPC
from bastide.store import Row, Transaction, View

OF: Final = "ec2:FlowLogOf"
"""Rows ``ACCOUNT/REGION/ID`` under no account."""
PRINCIPAL: Final = "vpc-flow-logs.amazonaws.com"
FORMAT: Final = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status}"
)
_KINDS: Final[dict[str, Noun]] = {"VPC": VPC, "Subnet": SUBNET, "NetworkInterface": NETWORK_INTERFACE}
_LOGS, _S3 = "cloud-watch-logs", "s3"


def _watched(asked: Asked) -> Iterable[str]:
    call = asked.call
    kind = _KINDS.get(str(call.input.get("ResourceType")))
    for id in call.input.get("ResourceIds") or ():
        yield "*" if kind is None else kind.arn(call.account, call.region, str(id))


def _passed(asked: Asked) -> Iterable[str]:
    role = asked.input.get("DeliverLogsPermissionArn")
    return (str(role),) if role else ()


def _vpc_of(view: View, account: str, region: str, id: str) -> str:
    for kind in _KINDS.values():
        row = kind.get(view, account, region, id) if id.startswith(f"{kind.prefix}-") else None
        if row is not None:
            return row.name if kind is VPC else str(row.doc["VpcId"])
    return ""


def _of_resources(a: Authorised, view: View) -> list[str | Vpc]:
    found = [_vpc_of(view, a.account, a.region, str(id)) for id in a.input["ResourceIds"]]
    return [one for one in found if one]


def _of_logs(a: Authorised, view: View) -> list[str | Vpc]:
    rows = [FLOW_LOG.get(view, a.account, a.region, str(id)) for id in a.input["FlowLogIds"]]
    return [row.doc["VpcId"] for row in rows if row is not None]


def _destination(a: Authorised) -> dict[str, str]:
    """Where lines go; raises Refused."""
    kind = str(a.input.get("LogDestinationType") or _LOGS)
    to = str(a.input.get("LogDestination") or "")
    role = str(a.input.get("DeliverLogsPermissionArn") or "")
    group = str(a.input.get("LogGroupName") or "")
    if kind == _LOGS:
        if to:
            try:
                arn = Arn.parse(to)
            except ValueError:
                raise invalid(f"LogDestination: {to[:256]} is no ARN of a log group.") from None
            group = arn.resource.removeprefix("log-group:").removesuffix(":*")
            if arn.service != "logs" or arn.account != a.account or arn.region != a.region:
                raise invalid("LogDestination: the log group has to be of this account and region.")
        if not group or not role:
            raise noun.missing("LogGroupName" if not group else "DeliverLogsPermissionArn")
        return {"Type": kind, "Group": group, "Role": role}
    if kind != _S3:
        raise Refused("UnsupportedOperation", f"Flow logs are written to {_LOGS} and {_S3}.")
    if not to.startswith("arn:aws:s3:::"):
        raise invalid("LogDestination: the ARN of a bucket has to be given.")
    bucket, _, prefix = to.removeprefix("arn:aws:s3:::").partition("/")
    return {"Type": kind, "Bucket": bucket, "Prefix": prefix.strip("/")}


@FLOW_LOG.does(
    "CreateFlowLogs",
    asks=[
        *creating(FLOW_LOG, "CreateFlowLogs", ask("CreateFlowLogs", _watched)),
        Ask(
            "iam:PassRole",
            _passed,
            given={
                "iam:PassedToService": lambda _: PRINCIPAL,
                "iam:AssociatedResourceArn": lambda asked: list(FLOW_LOG.new(asked)),
            },
        ),
    ],
    settles=_of_resources,
)
def create(a: Authorised, tx: Transaction) -> Output:
    noun.capable(a)
    unsupported(a, "DeliverCrossAccountRole", "TagFieldSpecifications")
    kind = _KINDS.get(str(a.input["ResourceType"]))
    if kind is None:
        raise Refused("UnsupportedOperation", f"Flow logs are of {', '.join(_KINDS)}.")
    traffic = str(a.input.get("TrafficType") or "")
    if traffic not in ("ACCEPT", "REJECT", "ALL"):
        raise noun.missing("TrafficType")
    if str(a.input.get("LogFormat") or FORMAT) != FORMAT:
        raise Refused("UnsupportedOperation", f"Lines are of the default format: {FORMAT}")
    interval = int(a.input.get("MaxAggregationInterval") or 600)
    if interval not in (60, 600):
        raise invalid(f"Value ({interval}) for parameter maxAggregationInterval is invalid.")
    options = a.input.get("DestinationOptions") or {}
    if options.get("FileFormat", "plain-text") != "plain-text" or any(
        options.get(one) for one in ("HiveCompatiblePartitions", "PerHourPartition")
    ):
        raise Refused("UnsupportedOperation", "Files are plain text, a folder a day.")
    to = _destination(a)
    made: list[str] = []
    failed: list[Output] = []
    for id in dict.fromkeys(str(one) for one in a.input["ResourceIds"]):
        row = kind.get(tx, a.account, a.region, id)
        if row is None:
            code, message, _ = kind.missing
            failed.append({"ResourceId": id, "Error": {"Code": code, "Message": message.format(name=id)}})
            continue
        vpc = _vpc_of(tx, a.account, a.region, id)
        doc = {"ResourceId": id, "VpcId": vpc, "Traffic": traffic, "To": to, "Interval": interval, "Error": ""}
        held = FLOW_LOG.put(a, tx, FLOW_LOG.new_id(), doc, [vpc])
        tx.insert(Row(OF, "", "", f"{a.account}/{a.region}/{held.name}", {}), keep=False)
        made.append(held.name)
    return {"FlowLogIds": made, "Unsuccessful": failed, "ClientToken": a.input.get("ClientToken")}


def _shown(row: Row) -> Output:
    to = row.doc["To"]
    shown: dict[str, Any] = {
        "FlowLogId": row.name,
        "FlowLogStatus": "ACTIVE",
        "ResourceId": row.doc["ResourceId"],
        "TrafficType": row.doc["Traffic"],
        "LogDestinationType": to["Type"],
        "LogFormat": FORMAT,
        "MaxAggregationInterval": row.doc["Interval"],
        "CreationTime": row.created // MICROS * MICROS,
        "DeliverLogsStatus": "FAILED" if row.doc["Error"] else "SUCCESS",
        "Tags": noun.tags_shown(row),
    }
    if row.doc["Error"]:
        shown["DeliverLogsErrorMessage"] = row.doc["Error"]
    if to["Type"] == _LOGS:
        shown |= {"LogGroupName": to["Group"], "DeliverLogsPermissionArn": to["Role"]}
    else:
        shown["LogDestination"] = f"arn:aws:s3:::{to['Bucket']}" + (f"/{to['Prefix']}" if to["Prefix"] else "")
    return shown


@FLOW_LOG.tells("DescribeFlowLogs", asks=[ask("DescribeFlowLogs", noun.anything)])
def describe(a: Authorised, view: View) -> Output:
    a.input["Filters"] = a.input.get("Filter") or ()
    chosen = noun.filters(
        a,
        {
            "flow-log-id": noun.name,
            "resource-id": noun.doc("ResourceId"),
            "traffic-type": noun.doc("Traffic"),
            "log-destination-type": lambda view, row: row.doc["To"]["Type"],
            "log-group-name": lambda view, row: row.doc["To"].get("Group"),
            "deliver-log-status": lambda view, row: "FAILED" if row.doc["Error"] else "SUCCESS",
        },
    )
    named = [str(one) for one in a.input.get("FlowLogIds") or ()]
    if named:
        rows = [FLOW_LOG.held(a, view, id) for id in dict.fromkeys(named)]
    else:
        rows = view.scan(FLOW_LOG.key, a.account, a.region, limit=1000)
    return sliced(a, "FlowLogs", [_shown(row) for row in rows if chosen(view, row)])


@FLOW_LOG.does("DeleteFlowLogs", asks=[ask("DeleteFlowLogs", FLOW_LOG.ids("FlowLogIds"))], settles=_of_logs)
def delete(a: Authorised, tx: Transaction) -> Output:
    failed: list[Output] = []
    for id in dict.fromkeys(str(one) for one in a.input["FlowLogIds"]):
        row = FLOW_LOG.get(tx, a.account, a.region, id)
        if row is None:
            code, message, _ = FLOW_LOG.missing
            failed.append({"ResourceId": id, "Error": {"Code": code, "Message": message.format(name=id)}})
            continue
        drop_log(a, tx, row)
    return {"Unsuccessful": failed}


def drop_log(a: Authorised, tx: Transaction, row: Row) -> None:
    """Ends a flow log."""
    held = tx.get(OF, "", "", f"{row.account}/{row.region}/{row.name}")
    if held is not None:
        tx.delete(held, keep=False)
    FLOW_LOG.drop(a, tx, row)


def covers(row: Row, interface: Row) -> bool:
    """Whether a flow log is of an interface."""
    return row.doc["ResourceId"] in (interface.name, interface.doc["SubnetId"], interface.doc["VpcId"])


def watched(view: View, vpc: Vpc, interfaces: Iterable[Row]) -> Iterator[str]:
    """The interfaces of a VPC that flow logs are of."""
    logs = FLOW_LOG.inside(view, vpc.account, vpc.region, vpc.id)
    for one in interfaces if logs else ():
        if any(covers(row, one) for row in logs):
            yield one.name
