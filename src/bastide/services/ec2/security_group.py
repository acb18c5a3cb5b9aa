"""Security groups and their rules: what may come in, what may go out. Nothing else passes.

A rule names networks, another group of the VPC, or the prefix list of a gateway service. IPv6 networks are kept and match
nothing: there is no IPv6 here. Source: Amazon VPC User Guide, "Security group rules", "Amazon VPC quotas".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bastide.domain import Refused, Tags
from bastide.kernel import Authorised, Output
from bastide.services.ec2 import noun
from bastide.services.ec2.noun import ask, checked_tags, creating, describes, invalid, missing
from bastide.services.ec2.nouns import NETWORK_INTERFACE, SECURITY_GROUP, SECURITY_GROUP_RULE, VPC
from bastide.services.ec2.places import lists
from bastide.store import Row, Transaction, View

_MOST_RULES: Final = 60
"""A group and direction; AWS's default quota."""
_MOST_GROUPS: Final = 500
_PORTS: Final = 65535
_PROTOCOLS: Final = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}
_NAMED: Final = frozenset({"tcp", "udp", "icmp", "icmpv6", "-1"})
_NAME: Final = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}")
_PEERS: Final = ("Cidr", "Cidr6", "Group", "Prefix")


def new_group(
    a: Authorised,
    tx: Transaction,
    vpc: str,
    name: str,
    description: str,
    *,
    tags: Tags | None = None,
    own: bool = False,
) -> Row:
    """A new group that lets everything out. own: and everything in that comes from the group itself."""
    row = SECURITY_GROUP.put(
        a, tx, SECURITY_GROUP.new_id(), {"VpcId": vpc, "GroupName": name, "Description": description}, [vpc], tags
    )
    everywhere = {"Protocol": "-1", "From": -1, "To": -1, "Cidr": "0.0.0.0/0"}
    _put_rule(a, tx, row, everywhere, egress=True, tags={})
    if own:
        _put_rule(a, tx, row, {"Protocol": "-1", "From": -1, "To": -1, "Group": row.name}, egress=False, tags={})
    return row


def _put_rule(a: Authorised, tx: Transaction, group: Row, rule: dict[str, Any], *, egress: bool, tags: Tags) -> Row:
    inside = [group.name]
    if rule.get("Group"):
        inside.append(f"refers/{rule['Group']}")
    doc = {**rule, "GroupId": group.name, "VpcId": group.doc["VpcId"], "Egress": egress}
    return SECURITY_GROUP_RULE.put(a, tx, SECURITY_GROUP_RULE.new_id(), doc, inside, dict(tags))


def rules_of(view: View, group: Row, *, egress: bool) -> list[Row]:
    """The rules of a group in one direction."""
    found = SECURITY_GROUP_RULE.inside(view, group.account, group.region, group.name)
    return [row for row in found if row.doc["Egress"] is egress]


def drop_group(a: Authorised, tx: Transaction, group: Row) -> None:
    """Removes a group with its rules."""
    for rule in SECURITY_GROUP_RULE.inside(tx, a.account, a.region, group.name):
        SECURITY_GROUP_RULE.drop(a, tx, rule)
    SECURITY_GROUP.drop(a, tx, group)


@SECURITY_GROUP.does(
    "CreateSecurityGroup",
    asks=creating(
        SECURITY_GROUP, "CreateSecurityGroup", ask("CreateSecurityGroup", VPC.ids("VpcId")),
        ec2__Vpc=lambda asked: (
            VPC.arn(asked.call.account, asked.call.region, asked.input["VpcId"]) if asked.input.get("VpcId") else None
        ),
    ),
)  # fmt: skip
def create(a: Authorised, tx: Transaction) -> Output:
    given, description = a.input["GroupName"], a.input["Description"]
    if not a.input.get("VpcId"):
        raise Refused("VPCIdNotSpecified", "No default VPC for this user")
    vpc = VPC.held(a, tx, a.input["VpcId"])
    if not _NAME.fullmatch(given) or given.startswith("sg-"):
        raise invalid(
            f"Value ({given[:64]}) for parameter GroupName is invalid. Character sets beyond ASCII not supported."
        )
    if not _NAME.fullmatch(description):
        raise invalid("Value for parameter GroupDescription is invalid. Character sets beyond ASCII not supported.")
    if given == "default":
        raise invalid("Cannot use reserved security group name: default")
    others = SECURITY_GROUP.inside(tx, a.account, a.region, vpc.name)
    if any(other.doc["GroupName"] == given for other in others):
        raise Refused("InvalidGroup.Duplicate", f"The security group '{given}' already exists for VPC '{vpc.name}'")
    if len(others) >= _MOST_GROUPS:
        raise Refused("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
    row = new_group(a, tx, vpc.name, given, description)
    arn = SECURITY_GROUP.arn(a.account, a.region, row.name)
    return {"GroupId": row.name, "Tags": noun.tags_shown(row), "SecurityGroupArn": arn}


def _vpc_of(a: Authorised, view: View) -> Iterable[str]:
    row = SECURITY_GROUP.get(view, a.account, a.region, str(a.input.get("GroupId") or ""))
    return [] if row is None else [row.doc["VpcId"]]


@SECURITY_GROUP.does("DeleteSecurityGroup", asks=[ask("DeleteSecurityGroup", SECURITY_GROUP.one("GroupId"))])
def delete(a: Authorised, tx: Transaction) -> Output:
    if not a.input.get("GroupId"):
        raise missing("groupId")
    row = SECURITY_GROUP.held(a, tx, a.input["GroupId"])
    if row.doc["GroupName"] == "default":
        raise Refused("CannotDelete", f'the specified group: "{row.name}" name: "default" cannot be deleted by a user')
    refers = SECURITY_GROUP_RULE.inside(tx, a.account, a.region, f"refers/{row.name}")
    if NETWORK_INTERFACE.any_inside(tx, a.account, a.region, row.name) or any(
        one.doc["GroupId"] != row.name for one in refers
    ):
        raise Refused("DependencyViolation", f"resource {row.name} has a dependent object")
    drop_group(a, tx, row)
    return {"Return": True, "GroupId": row.name}


def _permissions(view: View, row: Row, *, egress: bool) -> list[Output]:
    grouped: dict[tuple[Any, ...], Output] = {}
    for rule in rules_of(view, row, egress=egress):
        doc = rule.doc
        ported = doc["Protocol"] in ("tcp", "udp", "icmp", "icmpv6")
        key = (doc["Protocol"], doc["From"], doc["To"])
        held = grouped.setdefault(
            key,
            {
                "IpProtocol": doc["Protocol"],
                "FromPort": doc["From"] if ported else None,
                "ToPort": doc["To"] if ported else None,
                "IpRanges": [],
                "Ipv6Ranges": [],
                "PrefixListIds": [],
                "UserIdGroupPairs": [],
            },
        )
        told = {"Description": doc.get("Description")}
        if doc.get("Cidr"):
            held["IpRanges"].append({"CidrIp": doc["Cidr"], **told})
        elif doc.get("Cidr6"):
            held["Ipv6Ranges"].append({"CidrIpv6": doc["Cidr6"], **told})
        elif doc.get("Prefix"):
            held["PrefixListIds"].append({"PrefixListId": doc["Prefix"], **told})
        else:
            held["UserIdGroupPairs"].append({"GroupId": doc["Group"], "UserId": row.account, **told})
    return list(grouped.values())


def _shown(a: Authorised, view: View, row: Row) -> Output:
    return {
        "GroupId": row.name,
        "GroupName": row.doc["GroupName"],
        "Description": row.doc["Description"],
        "VpcId": row.doc["VpcId"],
        "OwnerId": row.account,
        "SecurityGroupArn": SECURITY_GROUP.arn(row.account, row.region, row.name),
        "IpPermissions": _permissions(view, row, egress=False),
        "IpPermissionsEgress": _permissions(view, row, egress=True),
        "Tags": noun.tags_shown(row),
    }


def _of_rules(member: str, *, egress: bool) -> noun.Field:
    def read(view: View, row: Row) -> Iterable[str]:
        return [str(one.doc[member]) for one in rules_of(view, row, egress=egress) if one.doc.get(member) is not None]

    return read


describes(
    SECURITY_GROUP, "DescribeSecurityGroups", "SecurityGroups", "GroupIds", _shown,
    {
        "group-id": noun.name, "group-name": noun.doc("GroupName"), "vpc-id": noun.doc("VpcId"),
        "owner-id": noun.owner, "description": noun.doc("Description"),
        "ip-permission.cidr": _of_rules("Cidr", egress=False),
        "ip-permission.protocol": _of_rules("Protocol", egress=False),
        "ip-permission.from-port": _of_rules("From", egress=False),
        "ip-permission.to-port": _of_rules("To", egress=False),
        "ip-permission.group-id": _of_rules("Group", egress=False),
        "ip-permission.prefix-list-id": _of_rules("Prefix", egress=False),
        "egress.ip-permission.cidr": _of_rules("Cidr", egress=True),
        "egress.ip-permission.protocol": _of_rules("Protocol", egress=True),
        "egress.ip-permission.from-port": _of_rules("From", egress=True),
        "egress.ip-permission.to-port": _of_rules("To", egress=True),
        "egress.ip-permission.group-id": _of_rules("Group", egress=True),
        "egress.ip-permission.prefix-list-id": _of_rules("Prefix", egress=True),
    },
    ("GroupNames",),
)  # fmt: skip


# -- rules -------------------------------------------------------------------------------------------------------------


def _protocol(given: Any) -> str:
    text = str(given or "").lower()
    text = _PROTOCOLS.get(text, text)
    if text in _NAMED:
        return text
    if re.fullmatch(r"\d{1,3}", text) and int(text) < 256:
        return str(int(text))
    raise invalid(f"Invalid value '{text[:32]}' for IP protocol. Unknown protocol.")


def _ports(protocol: str, given: Mapping[str, Any]) -> tuple[int, int]:
    first, last = given.get("FromPort"), given.get("ToPort")
    if protocol in ("tcp", "udp"):
        if first is None or last is None:
            raise missing("fromPort and toPort")
        if (first, last) == (-1, -1):
            return 0, _PORTS
        if not 0 <= first <= last <= _PORTS:
            raise invalid(f"Invalid {protocol.upper()} port range ({first}:{last}).")
        return int(first), int(last)
    if protocol in ("icmp", "icmpv6"):
        first, last = -1 if first is None else first, -1 if last is None else last
        if not (-1 <= first <= 255 and -1 <= last <= 255) or (first == -1 and last != -1):
            raise invalid(f"ICMP type ({first}) or code ({last}) out of range.")
        return int(first), int(last)
    return -1, -1


def _network(text: str, *, six: bool) -> str:
    try:
        if "/" not in text:
            raise ValueError
        return str((ipaddress.IPv6Network if six else ipaddress.IPv4Network)(text, strict=False))
    except ValueError:
        raise invalid(f"CIDR block {text[:64]} is malformed") from None


def _peer(a: Authorised, view: View, group: Row, given: Mapping[str, Any]) -> str:
    """The id of the group that a rule refers to; it lies in the same VPC."""
    id = given.get("GroupId")
    if not id:
        raise missing("groupId")
    if given.get("UserId") not in (None, a.account):
        raise Refused("InvalidGroup.NotFound", f"The security group '{id}' does not exist")
    found = SECURITY_GROUP.held(a, view, id)
    if found.doc["VpcId"] != group.doc["VpcId"]:
        raise Refused("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
    return found.name


def _asked_rules(a: Authorised, view: View, group: Row) -> list[dict[str, Any]]:
    """The rules that a call describes, one for each peer."""
    permissions = list(a.input.get("IpPermissions") or ())
    if a.input.get("SourceSecurityGroupName") or a.input.get("SourceSecurityGroupOwnerId"):
        raise invalid("Groups of a VPC are named by their ids, in IpPermissions.")
    if a.input.get("IpProtocol") is not None or a.input.get("CidrIp") is not None:
        if permissions:
            raise Refused("InvalidParameterCombination", "Use IpPermissions, or the parameters of one rule, not both.")
        permissions = [{**a.input, "IpRanges": [{"CidrIp": a.input.get("CidrIp") or ""}]}]
    found: list[dict[str, Any]] = []
    for one in permissions:
        protocol = _protocol(one.get("IpProtocol"))
        first, last = _ports(protocol, one)
        base = {"Protocol": protocol, "From": first, "To": last}
        peers: list[tuple[str, str, Mapping[str, Any]]] = []
        peers += [("Cidr", _network(str(p.get("CidrIp") or ""), six=False), p) for p in one.get("IpRanges") or ()]
        peers += [("Cidr6", _network(str(p.get("CidrIpv6") or ""), six=True), p) for p in one.get("Ipv6Ranges") or ()]
        peers += [("Group", _peer(a, view, group, p), p) for p in one.get("UserIdGroupPairs") or ()]
        for pair in one.get("PrefixListIds") or ():
            id = str(pair.get("PrefixListId") or "")
            if id not in lists(a):
                raise Refused("InvalidPrefixListId.NotFound", f"The prefix list ID '{id[:64]}' does not exist")
            peers.append(("Prefix", id, pair))
        found += [{**base, kind: value, "Description": p.get("Description")} for kind, value, p in peers]
    if not found:
        raise Refused(
            "MissingParameter", "Missing source specification: include source security group or CIDR information"
        )
    return found


def _same(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    return (rule["Protocol"], rule["From"], rule["To"], *(rule.get(peer) for peer in _PEERS))


def _told(rule: Mapping[str, Any]) -> str:
    peer = next(str(rule[one]) for one in _PEERS if rule.get(one))
    what = "ALL" if rule["Protocol"] == "-1" else rule["Protocol"].upper()
    ports = f", from port: {rule['From']}, to port: {rule['To']}" if rule["Protocol"] in ("tcp", "udp") else ""
    return f"peer: {peer}, {what}{ports}, ALLOW"


def _rule_shown(a: Authorised, view: View, row: Row) -> Output:
    doc = row.doc
    return {
        "SecurityGroupRuleId": row.name,
        "SecurityGroupRuleArn": SECURITY_GROUP_RULE.arn(row.account, row.region, row.name),
        "GroupId": doc["GroupId"],
        "GroupOwnerId": row.account,
        "IsEgress": doc["Egress"],
        "IpProtocol": doc["Protocol"],
        "FromPort": doc["From"],
        "ToPort": doc["To"],
        "CidrIpv4": doc.get("Cidr"),
        "CidrIpv6": doc.get("Cidr6"),
        "PrefixListId": doc.get("Prefix"),
        "ReferencedGroupInfo": {"GroupId": doc["Group"], "UserId": row.account, "VpcId": doc["VpcId"]}
        if doc.get("Group")
        else None,
        "Description": doc.get("Description"),
        "Tags": noun.tags_shown(row),
    }


def _group(a: Authorised, view: View) -> Row:
    if not a.input.get("GroupId"):
        raise missing("groupId")
    return SECURITY_GROUP.held(a, view, a.input["GroupId"])


def _authorises(action: str, *, egress: bool) -> None:
    asks = [ask(action, SECURITY_GROUP.one("GroupId")), creating(SECURITY_GROUP_RULE, action)[-1]]

    @SECURITY_GROUP.does(action, asks=asks, settles=_vpc_of)
    def authorise(a: Authorised, tx: Transaction) -> Output:
        group = _group(a, tx)
        tags = checked_tags(noun.tag_specification(a, SECURITY_GROUP_RULE.resource).items())
        wanted = _asked_rules(a, tx, group)
        have = {_same(row.doc) for row in rules_of(tx, group, egress=egress)}
        if len({_same(one) for one in wanted}) < len(wanted):
            raise invalid("The same permission must not appear multiple times")
        for one in wanted:
            if _same(one) in have:
                raise Refused("InvalidPermission.Duplicate", f'the specified rule "{_told(one)}" already exists')
        if len(have) + len(wanted) > _MOST_RULES:
            raise Refused(
                "RulesPerSecurityGroupLimitExceeded",
                "The maximum number of rules per security group has been reached.",
            )
        made = [_put_rule(a, tx, group, one, egress=egress, tags=tags) for one in wanted]
        return {"Return": True, "SecurityGroupRules": [_rule_shown(a, tx, row) for row in made]}


def _revokes(action: str, *, egress: bool) -> None:
    @SECURITY_GROUP.does(action, asks=[ask(action, SECURITY_GROUP.one("GroupId"))], settles=_vpc_of)
    def revoke(a: Authorised, tx: Transaction) -> Output:
        group = _group(a, tx)
        have = rules_of(tx, group, egress=egress)
        ids = a.input.get("SecurityGroupRuleIds")
        if ids:
            by_id = {row.name: row for row in have}
            for id in ids:
                if id not in by_id:
                    raise Refused(
                        "InvalidSecurityGroupRuleId.NotFound", f"The security group rule ID '{id[:64]}' does not exist"
                    )
            chosen = [by_id[id] for id in dict.fromkeys(ids)]
        else:
            by_content = {_same(row.doc): row for row in have}
            chosen = []
            for one in _asked_rules(a, tx, group):
                found = by_content.pop(_same(one), None)
                if found is None:
                    raise Refused(
                        "InvalidPermission.NotFound", "The specified rule does not exist in this security group."
                    )
                chosen.append(found)
        for row in chosen:
            SECURITY_GROUP_RULE.drop(a, tx, row)
        shown = []
        for row in chosen:
            told = _rule_shown(a, tx, row)
            told["ReferencedGroupId"] = (told.pop("ReferencedGroupInfo") or {}).get("GroupId")
            shown.append({key: told.get(key) for key in _REVOKED})
        return {"Return": True, "RevokedSecurityGroupRules": shown}


_REVOKED: Final = (
    "SecurityGroupRuleId", "GroupId", "IsEgress", "IpProtocol", "FromPort", "ToPort", "CidrIpv4", "CidrIpv6",
    "PrefixListId", "ReferencedGroupId", "Description",
)  # fmt: skip
_authorises("AuthorizeSecurityGroupIngress", egress=False)
_authorises("AuthorizeSecurityGroupEgress", egress=True)
_revokes("RevokeSecurityGroupIngress", egress=False)
_revokes("RevokeSecurityGroupEgress", egress=True)

describes(
    SECURITY_GROUP_RULE, "DescribeSecurityGroupRules", "SecurityGroupRules", "SecurityGroupRuleIds", _rule_shown,
    {"group-id": noun.doc("GroupId"), "security-group-rule-id": noun.name},
)  # fmt: skip
