"""Service-linked roles: made for a service, trusted by it alone, with the policy that the service brings.

Nobody changes what they may do, and no service control policy binds them. Source: IAM User Guide, "Create a
service-linked role"; the pages on service-linked roles of each service's guide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bastide.domain import Refused
from bastide.kernel import Ask, Asked, Authorised, Kind, Output
from bastide.kernel.kind import each
from bastide.services.iam import attachment
from bastide.services.iam.entity import no_entity
from bastide.services.iam.last_use import LastUse
from bastide.services.iam.role import LINKED, ROLE, role_doc, shown
from bastide.store import Row, Transaction, View


@dataclass(frozen=True, slots=True)
class Linked:
    """What a service calls its role and lets it do. suffixed: a service may have several roles, told apart by suffix."""

    role: str
    policy: str
    suffixed: bool = False


SERVICES: Final = {
    "access-analyzer.amazonaws.com": Linked("AWSServiceRoleForAccessAnalyzer", "AccessAnalyzerServiceRolePolicy"),
    "autoscaling.amazonaws.com": Linked("AWSServiceRoleForAutoScaling", "AutoScalingServiceRolePolicy", True),
    "cloudtrail.amazonaws.com": Linked("AWSServiceRoleForCloudTrail", "CloudTrailServiceRolePolicy"),
    "codestar-notifications.amazonaws.com": Linked(
        "AWSServiceRoleForCodeStarNotifications", "AWSCodeStarNotificationsServiceRolePolicy"
    ),
    "config.amazonaws.com": Linked("AWSServiceRoleForConfig", "AWSConfigServiceRolePolicy"),
    "config-multiaccountsetup.amazonaws.com": Linked(
        "AWSServiceRoleForConfigMultiAccountSetup", "AWSConfigMultiAccountSetupPolicy"
    ),
    "elasticfilesystem.amazonaws.com": Linked(
        "AWSServiceRoleForAmazonElasticFileSystem", "AmazonElasticFileSystemServiceRolePolicy"
    ),
    "events.amazonaws.com": Linked("AWSServiceRoleForCloudWatchEvents", "CloudWatchEventsServiceRolePolicy"),
    "guardduty.amazonaws.com": Linked("AWSServiceRoleForAmazonGuardDuty", "AmazonGuardDutyServiceRolePolicy"),
    "member.org.stacksets.cloudformation.amazonaws.com": Linked(
        "AWSServiceRoleForCloudFormationStackSetsOrgMember", "CloudFormationStackSetsOrgMemberServiceRolePolicy"
    ),
    "mrk.kms.amazonaws.com": Linked(
        "AWSServiceRoleForKeyManagementServiceMultiRegionKeys",
        "AWSKeyManagementServiceMultiRegionKeysServiceRolePolicy",
    ),
    "organizations.amazonaws.com": Linked("AWSServiceRoleForOrganizations", "AWSOrganizationsServiceTrustPolicy"),
    "pullthroughcache.ecr.amazonaws.com": Linked(
        "AWSServiceRoleForECRPullThroughCache", "AWSECRPullThroughCache_ServiceRolePolicy"
    ),
    "replication.ecr.amazonaws.com": Linked("AWSServiceRoleForECRReplication", "ECRReplicationServiceRolePolicy"),
    "sagemaker.amazonaws.com": Linked(
        "AWSServiceRoleForAmazonSageMakerNotebooks", "AmazonSageMakerNotebooksServiceRolePolicy"
    ),
    "sagemaker.application-autoscaling.amazonaws.com": Linked(
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        "AWSApplicationAutoscalingSageMakerEndpointPolicy",
    ),
    "securityhub.amazonaws.com": Linked("AWSServiceRoleForSecurityHub", "AWSSecurityHubServiceRolePolicy"),
    "ssm.amazonaws.com": Linked("AWSServiceRoleForAmazonSSM", "AmazonSSMServiceRolePolicy"),
    "sso.amazonaws.com": Linked("AWSServiceRoleForSSO", "AWSSSOServiceRolePolicy"),
    "stacksets.cloudformation.amazonaws.com": Linked(
        "AWSServiceRoleForCloudFormationStackSetsOrgAdmin", "CloudFormationStackSetsOrgAdminServiceRolePolicy"
    ),
}
"""By the name that the service is trusted under."""

TASK = Kind("DeletionTask", service="iam", arn="task/{}", global_=True, tags=False, history=False)
"""Deletions of service-linked roles that were asked for."""


def _name(asked: Asked) -> str:
    service = SERVICES.get(str(asked.input["AWSServiceName"]))
    suffix = asked.input.get("CustomSuffix")
    return (service.role if service is not None else "*") + (f"_{suffix}" if suffix else "")


def _made(asked: Asked) -> Iterable[str]:
    return (ROLE.address(asked.call.account, f"{LINKED}{asked.input['AWSServiceName']}/", _name(asked)),)


@ROLE.operation(
    "CreateServiceLinkedRole",
    asks=[Ask("iam:CreateServiceLinkedRole", _made, given={"iam:AWSServiceName": each("AWSServiceName")})],
)
def create(a: Authorised, tx: Transaction) -> Output:
    principal = str(a.input["AWSServiceName"])
    service = SERVICES.get(principal)
    if service is None:
        raise Refused("InvalidInput", f"{principal} has no service-linked role, or Bastide does not know it.")
    if a.input.get("CustomSuffix") and not service.suffixed:
        raise Refused("InvalidInput", f"Custom suffix is not allowed for {principal}")
    name = _name(Asked(a.call, tx))
    if tx.get(ROLE.key, a.account, "", name.lower()) is not None:
        raise Refused(
            "InvalidInput",
            f"Service role name {name} has been taken in this account, please try a different suffix.",
        )
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}],
    }
    row = ROLE.make(a, tx, role_doc(a, tx, name, f"{LINKED}{principal}/", json.dumps(document)), {})
    attachment.add(a, tx, row, f"arn:aws:iam::aws:policy{LINKED}{service.policy}")
    ROLE.save(a, tx, row)
    return {"Role": shown(a, tx, row, whole=True)}


@ROLE.operation("DeleteServiceLinkedRole", asks=[Ask("iam:DeleteServiceLinkedRole", ROLE.this)])
def delete(a: Authorised, tx: Transaction) -> Output:
    """Deletes the role at once, so the task that AWS works off later has succeeded when it is answered."""
    row = ROLE.need(tx, a.account, str(a.input["RoleName"]))
    if not str(row.doc["Path"]).startswith(LINKED):
        raise no_entity(f"The role {row.doc['RoleName']} is not a service-linked role.")
    for arn in list(row.doc["attached"]):
        attachment.take(a, tx, row, arn)
    ROLE.remove(tx, row, a.operation.name, a.request.id)
    a.engine(LastUse).forget(tx, a.account, row.doc["RoleId"])
    task = f"task{row.doc['Path']}{row.doc['RoleName']}/{uuid.uuid4()}"
    tx.insert(Row(TASK.key, a.account, "", task, {"Status": "SUCCEEDED", "role": row.doc["Arn"]}), keep=False)
    return {"DeletionTaskId": task}


def _task(asked: Asked) -> Iterable[str]:
    row = asked.view.get(TASK.key, asked.call.account, "", str(asked.input["DeletionTaskId"]))
    return ("*" if row is None else str(row.doc["role"]),)


@TASK.reads("GetServiceLinkedRoleDeletionStatus", asks=[Ask("iam:GetServiceLinkedRoleDeletionStatus", _task)])
def status(a: Authorised, view: View) -> Output:
    row = view.get(TASK.key, a.account, "", str(a.input["DeletionTaskId"]))
    if row is None:
        raise no_entity(f"Deletion task {a.input['DeletionTaskId']} cannot be found.")
    return {"Status": row.doc["Status"]}
