"""Types of machine learning, containers, and of the organisation."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.services.cloudformation.resource import Resource, Type
from bastide.services.cloudformation.types.identity import document
from bastide.services.cloudformation.types.regular import Tagging, calls_of, regular, retag

_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# -- SageMaker ---------------------------------------------------------------------------------------------------------


def _sagemaker(noun: str, *, most: int = 63, ref: str = "", attributes: tuple[str, ...] = (), **more: Any) -> Type:
    arn = f"{noun}Arn"
    return regular(
        f"AWS::SageMaker::{noun}",
        "sagemaker",
        create=f"Create{noun}",
        delete=f"Delete{noun}",
        read=f"Describe{noun}",
        key=(f"{noun}Name",),
        ref=ref or arn,
        named=f"{noun}Name",
        most=most,
        attributes={arn: arn, **{name: name for name in attributes}},
        tagging=Tagging("AddTags", "DeleteTags", "ResourceArn", arn),
        arn=arn,
        **more,
    )


async def _endpoint_gone(r: Resource) -> bool:
    return await r.seen("DescribeEndpoint", {"EndpointName": r.fact("EndpointName")}) is None


async def _in_service(r: Resource) -> bool:
    told = await r.read("DescribeEndpoint", {"EndpointName": r.fact("EndpointName")})
    status = told["EndpointStatus"]
    if status in ("Failed", "RollingBack", "UpdateRollbackFailed"):
        raise Refused("NotStabilized", f"The endpoint is {status}: {told.get('FailureReason', '')}")
    if status == "InService" and told["EndpointConfigName"] != r.get("EndpointConfigName"):
        # An update that failed: who answered before answers still, under the configuration of before.
        raise Refused("NotStabilized", f"The endpoint was not updated: {told.get('FailureReason', '')}")
    return bool(status == "InService")


async def _endpoint_update(r: Resource) -> None:
    if r.old and r.changed("EndpointConfigName", "DeploymentConfig"):
        more = r.only(
            "EndpointConfigName", "RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "DeploymentConfig",
            "RetainDeploymentConfig",
        )  # fmt: skip
        await r.do("UpdateEndpoint", {"EndpointName": r.fact("EndpointName"), **more}, key="update")
    if r.old and not await _in_service(r):
        await r.until(lambda: _in_service(r))


async def _group_policy(r: Resource) -> None:
    named = {"ModelPackageGroupName": r.fact("ModelPackageGroupName")}
    if r.changed("ModelPackageGroupPolicy"):
        if r.get("ModelPackageGroupPolicy") is not None:
            text = document(r.get("ModelPackageGroupPolicy"))
            await r.do("PutModelPackageGroupPolicy", {**named, "ResourcePolicy": text})
        else:
            await r.drop("DeleteModelPackageGroupPolicy", named)


async def _create_card(r: Resource) -> None:
    asked = {**r.only("ModelCardName", "ModelCardStatus", "SecurityConfig"), "Content": _content(r)}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    made = await r.do("CreateModelCard", asked, key="create")
    r.thing.physical = str(r.get("ModelCardName"))
    r.thing.attributes = {"ModelCardArn": made["ModelCardArn"], "ModelCardName": r.physical}


def _content(r: Resource) -> str:
    """A card's content: a text with ``model_overview`` in the API, a structure with ``ModelOverview`` in templates."""
    return document(_snake(r.get("Content")))


def _snake(value: Any) -> Any:
    if isinstance(value, list):
        return [_snake(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {_WORD.sub("_", key).lower(): one if key == "CustomDetails" else _snake(one) for key, one in value.items()}


async def _update_card(r: Resource) -> None:
    # The API takes the one or the other.
    if r.changed("Content"):
        await r.do("UpdateModelCard", {"ModelCardName": r.physical, "Content": _content(r)})
    if r.changed("ModelCardStatus"):
        await r.do("UpdateModelCard", {"ModelCardName": r.physical, **r.only("ModelCardStatus")})
    await retag(r, Tagging("AddTags", "DeleteTags", "ResourceArn", "ModelCardArn"))


async def _delete_card(r: Resource) -> None:
    await r.drop("DeleteModelCard", {"ModelCardName": r.physical})


def _token(r: Resource) -> str:
    """The resource's own, of the length that SageMaker wants."""
    return hashlib.sha256(r.name(128).encode()).hexdigest()


async def _create_pipeline(r: Resource) -> None:
    name = str(r.get("PipelineName"))
    asked = {**r.but("PipelineDefinition", "Tags"), **_definition(r), "ClientRequestToken": _token(r)}
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    made = await r.do("CreatePipeline", asked, key="create")
    r.thing.physical = name
    r.thing.attributes = {"PipelineName": name, "Arn": made["PipelineArn"]}


def _definition(r: Resource) -> dict[str, Any]:
    given = r.get("PipelineDefinition")
    if "PipelineDefinitionBody" in given:
        return {"PipelineDefinition": document(given["PipelineDefinitionBody"])}
    where = given["PipelineDefinitionS3Location"]
    told = {"Bucket": where["Bucket"], "ObjectKey": where["Key"]}
    return {"PipelineDefinitionS3Location": {**told, **({"VersionId": where["Version"]} if "Version" in where else {})}}


async def _update_pipeline(r: Resource) -> None:
    if r.changed(
        "PipelineDefinition", "PipelineDescription", "PipelineDisplayName", "RoleArn", "ParallelismConfiguration"
    ):
        await r.do("UpdatePipeline", {**r.but("PipelineDefinition", "Tags"), **_definition(r)}, key="update")
    await retag(r, Tagging("AddTags", "DeleteTags", "ResourceArn", "Arn"))


async def _delete_pipeline(r: Resource) -> None:
    await r.drop("DeletePipeline", {"PipelineName": r.physical, "ClientRequestToken": _token(r)})


async def _server_ready(r: Resource) -> bool:
    told = await r.read("DescribeMlflowTrackingServer", {"TrackingServerName": r.fact("TrackingServerName")})
    if told["TrackingServerStatus"].endswith("Failed"):
        raise Refused("NotStabilized", f"The tracking server is {told['TrackingServerStatus']}.")
    return bool(told["TrackingServerStatus"] in ("Created", "Updated", "Started", "Stopped"))


async def _package_changes(r: Resource) -> None:
    if r.old and r.changed("ModelApprovalStatus", "ApprovalDescription", "CustomerMetadataProperties"):
        more = r.only("ModelApprovalStatus", "ApprovalDescription", "CustomerMetadataProperties")
        await r.do("UpdateModelPackage", {"ModelPackageArn": r.physical, **more}, key="update")


SAGEMAKER: Final = (
    _sagemaker("Model", attributes=("ModelName",)),
    _sagemaker("EndpointConfig", attributes=("EndpointConfigName",)),
    _sagemaker(
        "Endpoint", attributes=("EndpointName",), ready=_in_service, gone=_endpoint_gone, after=_endpoint_update,
        more=("UpdateEndpoint",),
        leave=("RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig"),
    ),
    _sagemaker(
        "ModelPackageGroup", leave=("ModelPackageGroupPolicy",), after=_group_policy,
        attributes=("ModelPackageGroupStatus",), more=("PutModelPackageGroupPolicy",),
    ),
    regular(
        "AWS::SageMaker::ModelPackage", "sagemaker", create="CreateModelPackage", delete="DeleteModelPackage",
        read="DescribeModelPackage", key={"ModelPackageName": "ModelPackageArn"}, ref="ModelPackageArn",
        attributes={"ModelPackageArn": "ModelPackageArn", "ModelPackageStatus": "ModelPackageStatus"},
        tagging=Tagging("AddTags", "DeleteTags", "ResourceArn", "ModelPackageArn"),
        after=_package_changes, more=("UpdateModelPackage",), arn="ModelPackageArn",
    ),
    Type(
        "AWS::SageMaker::ModelCard", "sagemaker", _create_card, _delete_card, _update_card, None,
        calls_of("sagemaker", ["CreateModelCard", "UpdateModelCard", "DeleteModelCard", "AddTags"]),
        mark=lambda r: str(r.thing.attributes["ModelCardArn"]),
    ),
    Type(
        "AWS::SageMaker::Pipeline", "sagemaker", _create_pipeline, _delete_pipeline, _update_pipeline, None,
        calls_of("sagemaker", ["CreatePipeline", "UpdatePipeline", "DeletePipeline"]),
        mark=lambda r: str(r.thing.attributes["Arn"]),
    ),
    regular(
        "AWS::SageMaker::MlflowTrackingServer", "sagemaker", create="CreateMlflowTrackingServer",
        delete="DeleteMlflowTrackingServer", update="UpdateMlflowTrackingServer", read="DescribeMlflowTrackingServer",
        key=("TrackingServerName",), ref="TrackingServerName", attributes={"TrackingServerArn": "TrackingServerArn"},
        tagging=Tagging("AddTags", "DeleteTags", "ResourceArn", "TrackingServerArn"), ready=_server_ready,
        update_leave=("RoleArn", "MlflowVersion"), replaces=("RoleArn", "MlflowVersion"), arn="TrackingServerArn",
    ),
)  # fmt: skip


# -- containers --------------------------------------------------------------------------------------------------------


async def _repository_settings(r: Resource) -> None:
    named = {"repositoryName": r.physical or r.fact("RepositoryName")}
    if r.changed("ImageTagMutability", "ImageTagMutabilityExclusionFilters"):
        mutability: dict[str, Any] = {"imageTagMutability": r.get("ImageTagMutability") or "MUTABLE"}
        if r.get("ImageTagMutabilityExclusionFilters"):
            mutability["imageTagMutabilityExclusionFilters"] = [
                {
                    "filterType": one["ImageTagMutabilityExclusionFilterType"],
                    "filter": one["ImageTagMutabilityExclusionFilterValue"],
                }
                for one in r.get("ImageTagMutabilityExclusionFilters")
            ]
        await r.do("PutImageTagMutability", {**named, **mutability})
    if r.old and r.changed("ImageScanningConfiguration"):
        wanted = bool((r.get("ImageScanningConfiguration") or {}).get("ScanOnPush"))
        await r.do("PutImageScanningConfiguration", {**named, "imageScanningConfiguration": {"scanOnPush": wanted}})
    if r.changed("LifecyclePolicy"):
        rules = r.get("LifecyclePolicy") or {}
        if rules.get("RegistryId") not in (None, r.stack.account):
            raise Refused("ValidationError", "LifecyclePolicy.RegistryId is the stack's own account.")
        if rules.get("LifecyclePolicyText"):
            text = document(rules["LifecyclePolicyText"])
            await r.do("PutLifecyclePolicy", {**named, "lifecyclePolicyText": text})
        elif r.old:
            await r.drop("DeleteLifecyclePolicy", named)
    if r.changed("RepositoryPolicyText"):
        if r.get("RepositoryPolicyText") is not None:
            await r.do("SetRepositoryPolicy", {**named, "policyText": document(r.get("RepositoryPolicyText"))})
        else:
            await r.drop("DeleteRepositoryPolicy", named)


async def _read_repository(r: Resource) -> dict[str, Any] | None:
    """As templates have it: they name the parts of a filter otherwise than the API does."""
    told = None if _REPOSITORY.read is None else await _REPOSITORY.read(r)
    if told is None or not told.get("ImageTagMutabilityExclusionFilters"):
        return told
    raw = await r.seen("DescribeRepositories", {"repositoryNames": [r.physical]})
    filters = [
        {
            "ImageTagMutabilityExclusionFilterType": one["filterType"],
            "ImageTagMutabilityExclusionFilterValue": one["filter"],
        }
        for one in (raw or {"repositories": [{}]})["repositories"][0].get("imageTagMutabilityExclusionFilters", ())
    ]
    return {**told, "ImageTagMutabilityExclusionFilters": filters}


async def _delete_repository(r: Resource) -> None:
    await r.drop("DeleteRepository", {"repositoryName": r.physical, "force": bool(r.get("EmptyOnDelete"))})


_REPOSITORY: Final = regular(
    "AWS::ECR::Repository", "ecr", create="CreateRepository", delete="DeleteRepository", read="DescribeRepositories",
    result="repositories.0", key={"repositoryNames": "RepositoryName"}, ref="RepositoryName", named="RepositoryName",
    most=256,
    lower=True, attributes={"Arn": "repository.repositoryArn", "RepositoryUri": "repository.repositoryUri"},
    leave=(
        "RepositoryPolicyText", "EmptyOnDelete", "LifecyclePolicy", "ImageTagMutability",
        "ImageTagMutabilityExclusionFilters",
    ),
    tagging=Tagging("TagResource", "UntagResource", "resourceArn", "Arn", "tags", "tagKeys"), after=_repository_settings,
    more=(
        "SetRepositoryPolicy", "PutImageTagMutability", "PutImageScanningConfiguration", "PutLifecyclePolicy",
        "DeleteLifecyclePolicy",
    ),
    arn="Arn",
)  # fmt: skip
ECR: Final = (
    Type(
        _REPOSITORY.name, "ecr", _REPOSITORY.create, _delete_repository, _REPOSITORY.update, _read_repository,
        _REPOSITORY.calls, _REPOSITORY.replaces, _REPOSITORY.mark, named="RepositoryName",
    ),
)  # fmt: skip

# -- the organisation --------------------------------------------------------------------------------------------------


async def _create_account(r: Resource) -> None:
    asked = r.only("AccountName", "Email", "RoleName")
    tags = r.tags()
    if tags:
        asked["Tags"] = tags
    began = (await r.do("CreateAccount", asked, key="create"))["CreateAccountStatus"]

    async def done() -> bool:
        told = await r.read("DescribeCreateAccountStatus", {"CreateAccountRequestId": began["Id"]})
        status = told["CreateAccountStatus"]
        if status["State"] == "FAILED":
            raise Refused("NotStabilized", f"The account was not made: {status.get('FailureReason')}")
        if status["State"] != "SUCCEEDED":
            return False
        r.thing.physical = status["AccountId"]
        return True

    await r.until(done)
    held = (await r.read("DescribeAccount", {"AccountId": r.physical}))["Account"]
    r.thing.attributes = {"AccountId": r.physical, "Arn": held["Arn"], "Status": held.get("Status", "ACTIVE")}
    await _place(r)


async def _place(r: Resource) -> None:
    wanted = r.get("ParentIds") or []
    if not wanted or not r.changed("ParentIds"):
        return
    now = (await r.read("ListParents", {"ChildId": r.physical}))["Parents"][0]["Id"]
    if now != wanted[0]:
        asked = {"AccountId": r.physical, "SourceParentId": now, "DestinationParentId": wanted[0]}
        await r.do("MoveAccount", asked, key=wanted[0])


async def _update_account(r: Resource) -> None:
    if r.changed("AccountName", "Email", "RoleName"):
        raise Refused("ValidationError", "AccountName, Email and RoleName of an account cannot be changed by a stack.")
    await _place(r)
    await retag(r, Tagging("TagResource", "UntagResource", "ResourceId", "Ref"))


async def _close_account(r: Resource) -> None:
    await r.drop("CloseAccount", {"AccountId": r.physical})


async def _policy_targets(r: Resource) -> None:
    named = {"PolicyId": r.physical or r.fact("Id")}
    before, after = set(r.old.get("TargetIds") or ()), set(r.get("TargetIds") or ())
    for one in sorted(before - after):
        await r.drop("DetachPolicy", {**named, "TargetId": one})
    for one in sorted(after - before):
        await r.do("AttachPolicy", {**named, "TargetId": one})


async def _policy_bare(r: Resource) -> None:
    told = await r.seen("ListTargetsForPolicy", {"PolicyId": r.physical})
    for one in (told or {}).get("Targets") or ():
        await r.drop("DetachPolicy", {"PolicyId": r.physical, "TargetId": one["TargetId"]})


async def _create_organization(r: Resource) -> None:
    made = (await r.do("CreateOrganization", r.only("FeatureSet"), key="create"))["Organization"]
    root = (await r.read("ListRoots", {}))["Roots"][0]["Id"]
    names = ("Arn", "Id", "ManagementAccountArn", "ManagementAccountEmail", "ManagementAccountId")
    told = {f"Master{name[10:]}": made.get(f"Master{name[10:]}") for name in names[2:]}
    r.thing.physical = made["Id"]
    r.thing.attributes = {"Arn": made["Arn"], "Id": made["Id"], "RootId": root}
    r.thing.attributes |= {name: told[f"Master{name[10:]}"] for name in names[2:]}


ORGANIZATIONS: Final = (
    Type(
        "AWS::Organizations::Account", "organizations", _create_account, _close_account, _update_account, None,
        calls_of("organizations", ["CreateAccount", "CloseAccount", "MoveAccount", "DescribeCreateAccountStatus"]),
    ),
    regular(
        "AWS::Organizations::OrganizationalUnit", "organizations", create="CreateOrganizationalUnit",
        delete="DeleteOrganizationalUnit", read="DescribeOrganizationalUnit", update="UpdateOrganizationalUnit",
        result="OrganizationalUnit", key={"OrganizationalUnitId": "Id"}, ref="Id", update_leave=("ParentId",),
        attributes={"Id": "OrganizationalUnit.Id", "Arn": "OrganizationalUnit.Arn"},
        tagging=Tagging("TagResource", "UntagResource", "ResourceId", "Id"),
    ),
    regular(
        "AWS::Organizations::Policy", "organizations", create="CreatePolicy", delete="DeletePolicy", update="UpdatePolicy",
        key={"PolicyId": "Id"}, ref="Id", attributes={"Id": "Policy.PolicySummary.Id", "Arn": "Policy.PolicySummary.Arn"},
        leave=("TargetIds",), update_leave=("Type",), after=_policy_targets, before_delete=_policy_bare,
        tagging=Tagging("TagResource", "UntagResource", "ResourceId", "Id"), more=("AttachPolicy", "DetachPolicy"),
        fixed={"Description": ""},
    ),
    regular(
        "AWS::Organizations::ResourcePolicy", "organizations", create="PutResourcePolicy", delete="DeleteResourcePolicy",
        put=True, key=(), ref="Id",
        attributes={"Id": "ResourcePolicy.ResourcePolicySummary.Id", "Arn": "ResourcePolicy.ResourcePolicySummary.Arn"},
    ),
)  # fmt: skip

# -- people ------------------------------------------------------------------------------------------------------------


async def _set_policies(r: Resource) -> None:
    named = {"InstanceArn": r.get("InstanceArn"), "PermissionSetArn": r.fact("PermissionSetArn")}
    before, after = set(r.old.get("ManagedPolicies") or ()), set(r.get("ManagedPolicies") or ())
    for arn in sorted(before - after):
        await r.drop("DetachManagedPolicyFromPermissionSet", {**named, "ManagedPolicyArn": arn})
    for arn in sorted(after - before):
        await r.do("AttachManagedPolicyToPermissionSet", {**named, "ManagedPolicyArn": arn})
    if r.changed("InlinePolicy"):
        if r.get("InlinePolicy"):
            text = document(r.get("InlinePolicy"))
            await r.do("PutInlinePolicyToPermissionSet", {**named, "InlinePolicy": text})
        else:
            await r.drop("DeleteInlinePolicyFromPermissionSet", named)
    old, new = (
        {(one["Name"], one.get("Path", "/")) for one in given.get("CustomerManagedPolicyReferences") or ()}
        for given in (r.old, r.properties)
    )
    for verb, pairs in (("Detach", old - new), ("Attach", new - old)):
        word = "From" if verb == "Detach" else "To"
        for name, path in sorted(pairs):
            asked = {**named, "CustomerManagedPolicyReference": {"Name": name, "Path": path}}
            await r.do(f"{verb}CustomerManagedPolicyReference{word}PermissionSet", asked)
    if r.changed("PermissionsBoundary"):
        if r.get("PermissionsBoundary"):
            await r.do("PutPermissionsBoundaryToPermissionSet", {**named, **r.only("PermissionsBoundary")})
        else:
            await r.drop("DeletePermissionsBoundaryFromPermissionSet", named)
    if r.old:
        await r.do("ProvisionPermissionSet", {**named, "TargetType": "ALL_PROVISIONED_ACCOUNTS"}, key="provision")


async def _assign(r: Resource) -> None:
    began = await r.do("CreateAccountAssignment", r.properties, key="create")
    await _assigned(r, began["AccountAssignmentCreationStatus"], "Creation")
    r.thing.physical = "|".join(str(r.get(name)) for name in _ASSIGNED)


async def _assigned(r: Resource, began: dict[str, Any], word: str) -> None:
    async def done() -> bool:
        asked = {"InstanceArn": r.get("InstanceArn"), f"AccountAssignment{word}RequestId": began["RequestId"]}
        told = await r.read(f"DescribeAccountAssignment{word}Status", asked)
        status = told[f"AccountAssignment{word}Status"]
        if status["Status"] == "FAILED":
            raise Refused("NotStabilized", f"The assignment failed: {status.get('FailureReason')}")
        return bool(status["Status"] == "SUCCEEDED")

    await r.until(done)


async def _unassign(r: Resource) -> None:
    began = await r.do("DeleteAccountAssignment", r.properties)
    await _assigned(r, began["AccountAssignmentDeletionStatus"], "Deletion")


_ASSIGNED: Final = ("InstanceArn", "TargetId", "TargetType", "PermissionSetArn", "PrincipalType", "PrincipalId")
_GROUP_NAMED: Final = ("IdentityStoreId", "GroupId")


def _attribute_update(member: str, path: str) -> Any:
    async def update(r: Resource) -> None:
        if r.changed(member):
            operations = [{"AttributePath": path, "AttributeValue": r.get(member)}]
            await r.do("UpdateGroup", {**{n: r.fact(n) for n in _GROUP_NAMED}, "Operations": operations})

    return update


async def _group_changes(r: Resource) -> None:
    if r.old:
        await _attribute_update("DisplayName", "displayName")(r)
        await _attribute_update("Description", "description")(r)


PEOPLE: Final = (
    regular(
        "AWS::SSO::PermissionSet", "sso-admin", create="CreatePermissionSet", delete="DeletePermissionSet",
        update="UpdatePermissionSet", key=("InstanceArn", "PermissionSetArn"), ref="PermissionSetArn",
        attributes={"PermissionSetArn": "PermissionSet.PermissionSetArn"}, rename={"RelayStateType": "RelayState"},
        leave=("ManagedPolicies", "InlinePolicy", "CustomerManagedPolicyReferences", "PermissionsBoundary"),
        update_leave=("Name",), after=_set_policies, more=("AttachManagedPolicyToPermissionSet", "ProvisionPermissionSet"),
    ),
    Type(
        "AWS::SSO::Assignment", "sso-admin", _assign, _unassign, None, None,
        calls_of("sso-admin", ["CreateAccountAssignment", "DeleteAccountAssignment"]), frozenset(_ASSIGNED),
    ),
    regular(
        "AWS::SSO::InstanceAccessControlAttributeConfiguration", "sso-admin",
        create="CreateInstanceAccessControlAttributeConfiguration",
        delete="DeleteInstanceAccessControlAttributeConfiguration",
        update="UpdateInstanceAccessControlAttributeConfiguration", key=("InstanceArn",), ref="InstanceArn", tags="",
        rename={"AccessControlAttributes": "InstanceAccessControlAttributeConfiguration"},
    ),
    regular(
        "AWS::IdentityStore::Group", "identitystore", create="CreateGroup", delete="DeleteGroup", read="DescribeGroup",
        key=_GROUP_NAMED, ref="GroupId", attributes={"GroupId": "GroupId"}, after=_group_changes, tags="",
        more=("UpdateGroup",),
    ),
    regular(
        "AWS::IdentityStore::GroupMembership", "identitystore", create="CreateGroupMembership",
        delete="DeleteGroupMembership",
        key=("IdentityStoreId", "MembershipId"), ref="MembershipId", attributes={"MembershipId": "MembershipId"}, tags="",
    ),
)  # fmt: skip
TYPES: Final = (*SAGEMAKER, *ECR, *ORGANIZATIONS, *PEOPLE)
"""Types of machine learning, containers, and of the organisation."""
