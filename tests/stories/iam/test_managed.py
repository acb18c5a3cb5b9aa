"""Policies that AWS brings and policies of one's own: read, attached, decided by."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from typing import Any

import botocore
import pytest
from botocore.exceptions import ClientError

from bastide.main.catalogue import SERVICES
from bastide.services.iam.managed import ADMINISTRATOR
from tests.guard.test_guard import example
from tests.platform import Account, Running, allow
from tests.stories.iam.test_entities import TRUST, refusal, text, user
from tests.stories.sagemaker.conftest import Workshop, workshop_of

READ_ONLY = "arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"
LINKED = "arn:aws:iam::aws:policy/aws-service-role/AWSOrganizationsServiceTrustPolicy"


@pytest.fixture
def workshop(account: Account) -> Workshop:
    return workshop_of(account)


def answered(account: Account, client: Any, operation: str) -> str:
    """The error code of an operation asked with an example of its input, "" if it succeeds."""
    model = client.meta.service_model.operation_model(operation)
    given = example(model.input_shape, "", account.id) if model.input_shape is not None else {}
    try:
        getattr(client, botocore.xform_name(operation))(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


@pytest.mark.control("PRM-17")
def test_amazon_sagemaker_read_only_gives_its_rights_and_no_others(account: Account) -> None:
    iam = account.client("iam")
    shown = iam.get_policy(PolicyArn=READ_ONLY)["Policy"]
    version = iam.get_policy_version(PolicyArn=READ_ONLY, VersionId=shown["DefaultVersionId"])["PolicyVersion"]
    actions = {one for statement in version["Document"]["Statement"] for one in statement["Action"]}
    assert {"sagemaker:Describe*", "sagemaker:List*", "sagemaker:Search", "ecr:Describe*"} <= actions
    account.role("Reader")
    keys = account.as_role("Reader")
    clients = {name: account.client(name, keys) for name in ("sagemaker", "logs", "kms")}
    assert answered(account, clients["sagemaker"], "ListModels") == "AccessDeniedException"
    iam.attach_role_policy(RoleName="Reader", PolicyArn=READ_ONLY)
    seen = set()
    for service in SERVICES:
        if service.name not in clients:
            continue
        for operation in (one for kind in service.kinds for one in kind.operations if not one.inside):
            allowed = all(any(fnmatch(ask.action, pattern) for pattern in actions) for ask in operation.asks)
            code = answered(account, clients[service.name], operation.name)
            assert (code != "AccessDeniedException") == allowed, (operation.name, code)
            seen.add((service.name, allowed))
    assert seen == {("sagemaker", True), ("sagemaker", False), ("logs", False), ("kms", False)}
    iam.detach_role_policy(RoleName="Reader", PolicyArn=READ_ONLY)
    assert answered(account, clients["sagemaker"], "ListModels") == "AccessDeniedException"


@pytest.mark.control("PRM-17")
def test_a_new_default_version_takes_effect_and_a_sixth_is_refused(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    arn = iam.create_policy(PolicyName="Own", PolicyDocument=text("sagemaker:ListModels"))["Policy"]["Arn"]
    sagemaker = platform.client("sagemaker", user(account, "U"))
    iam.attach_user_policy(UserName="U", PolicyArn=arn)
    sagemaker.list_models()
    assert refusal(sagemaker.list_training_jobs) == ("AccessDeniedException", 400)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=text("sagemaker:ListTrainingJobs"))
    sagemaker.list_models()
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    sagemaker.list_training_jobs()
    assert refusal(sagemaker.list_models) == ("AccessDeniedException", 400)
    for _ in range(3):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=text("s3:*"))
    assert refusal(iam.create_policy_version, PolicyArn=arn, PolicyDocument=text("s3:*")) == ("LimitExceeded", 409)


@pytest.mark.control("PRM-17")
def test_a_policy_of_aws_is_not_edited(account: Account) -> None:
    iam = account.client("iam")
    for call, more in (
        (iam.create_policy_version, {"PolicyDocument": text("*"), "SetAsDefault": True}),
        (iam.set_default_policy_version, {"VersionId": "v1"}),
        (iam.delete_policy_version, {"VersionId": "v1"}),
        (iam.delete_policy, {}),
        (iam.tag_policy, {"Tags": [{"Key": "k", "Value": "v"}]}),
    ):
        assert refusal(call, PolicyArn=READ_ONLY, **more) == ("AccessDenied", 403)
    assert "sagemaker:*" not in json.dumps(
        iam.get_policy_version(PolicyArn=READ_ONLY, VersionId="v11")["PolicyVersion"]["Document"]
    )


def test_paths_versions_and_job_functions(account: Account) -> None:
    iam = account.client("iam")
    arn = "arn:aws:iam::aws:policy/job-function/DataScientist"
    shown = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (shown["Path"], shown["PolicyName"], shown["AttachmentCount"]) == ("/job-function/", "DataScientist", 0)
    assert shown["CreateDate"] < shown["UpdateDate"]
    [version] = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert version["VersionId"] == shown["DefaultVersionId"] != "v1" and version["IsDefaultVersion"]
    assert refusal(iam.get_policy_version, PolicyArn=arn, VersionId="v1") == ("NoSuchEntity", 404)
    functions = iam.list_policies(Scope="AWS", PathPrefix="/job-function/")["Policies"]
    assert {"Billing", "DataScientist", "NetworkAdministrator", "ViewOnlyAccess"} <= {
        one["PolicyName"] for one in functions
    }
    assert all(one["Path"] == "/job-function/" for one in functions)
    assert refusal(iam.get_policy, PolicyArn="arn:aws:iam::aws:policy/DataScientist") == ("NoSuchEntity", 404)


def test_which_policies_are_in_use_and_by_whom(account: Account) -> None:
    iam = account.client("iam")
    own = iam.create_policy(PolicyName="Own", PolicyDocument=text("s3:*"))["Policy"]["Arn"]
    for name in ("A", "B", "C"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, Path="/ml/" if name == "C" else "/")
        iam.attach_role_policy(RoleName=name, PolicyArn=READ_ONLY)
    iam.create_user(UserName="U", PermissionsBoundary=own)
    iam.create_group(GroupName="G")
    iam.attach_group_policy(GroupName="G", PolicyArn=READ_ONLY)
    assert iam.get_policy(PolicyArn=READ_ONLY)["Policy"]["AttachmentCount"] == 4
    used = {one["Arn"]: one for one in iam.list_policies(OnlyAttached=True)["Policies"]}
    assert set(used) == {READ_ONLY, ADMINISTRATOR, own}
    assert used[own]["PermissionsBoundaryUsageCount"] == 1
    assert [one["Arn"] for one in iam.list_policies(PolicyUsageFilter="PermissionsBoundary")["Policies"]] == [own]
    aws = iam.list_policies(Scope="AWS", PolicyUsageFilter="PermissionsPolicy")["Policies"]
    assert {one["Arn"] for one in aws} == {READ_ONLY, ADMINISTRATOR}

    found = iam.list_entities_for_policy(PolicyArn=READ_ONLY)
    assert [one["RoleName"] for one in found["PolicyRoles"]] == ["A", "B", "C"]
    assert [one["GroupName"] for one in found["PolicyGroups"]] == ["G"] and found["PolicyUsers"] == []
    assert found["PolicyRoles"][0]["RoleId"] == iam.get_role(RoleName="A")["Role"]["RoleId"]
    only = iam.list_entities_for_policy(PolicyArn=READ_ONLY, EntityFilter="Role", PathPrefix="/ml/")
    assert [one["RoleName"] for one in only["PolicyRoles"]] == ["C"] and only["PolicyGroups"] == []
    pages = iam.get_paginator("list_entities_for_policy").paginate(
        PolicyArn=READ_ONLY, PaginationConfig={"PageSize": 3}
    )
    assert [len(page["PolicyRoles"]) + len(page["PolicyGroups"]) for page in pages] == [3, 1]
    bounded = iam.list_entities_for_policy(PolicyArn=own, PolicyUsageFilter="PermissionsBoundary")["PolicyUsers"]
    assert [one["UserName"] for one in bounded] == ["U"]
    assert iam.list_entities_for_policy(PolicyArn=own, PolicyUsageFilter="PermissionsPolicy")["PolicyUsers"] == []
    assert refusal(iam.list_entities_for_policy, PolicyArn=f"{own}x") == ("NoSuchEntity", 404)

    for name in ("A", "B", "C"):
        iam.detach_role_policy(RoleName=name, PolicyArn=READ_ONLY)
    iam.detach_group_policy(GroupName="G", PolicyArn=READ_ONLY)
    assert iam.get_policy(PolicyArn=READ_ONLY)["Policy"]["AttachmentCount"] == 0
    assert {one["Arn"] for one in iam.list_policies(OnlyAttached=True)["Policies"]} == {ADMINISTRATOR, own}
    iam.delete_user(UserName="U")
    iam.delete_policy(PolicyArn=own)


def test_a_policy_of_aws_limits_sessions_and_entities(platform: Running, account: Account) -> None:
    iam = account.client("iam")
    arn = account.role("Wide", allow("sagemaker:*", "iam:ListRoles"))
    policies = [{"arn": READ_ONLY}]
    limited = platform.client("sagemaker", platform.assume(arn, account.keys, PolicyArns=policies))
    limited.list_models()
    assert refusal(limited.create_model_package_group, ModelPackageGroupName="g") == ("AccessDeniedException", 400)
    whole = platform.client("sagemaker", account.as_role("Wide"))
    whole.create_model_package_group(ModelPackageGroupName="g")
    iam.put_role_permissions_boundary(RoleName="Wide", PermissionsBoundary=READ_ONLY)
    whole.list_models()
    assert refusal(whole.delete_model_package_group, ModelPackageGroupName="g") == ("AccessDeniedException", 400)
    assert iam.get_policy(PolicyArn=READ_ONLY)["Policy"]["PermissionsBoundaryUsageCount"] == 1
    iam.delete_role_permissions_boundary(RoleName="Wide")
    whole.delete_model_package_group(ModelPackageGroupName="g")


def test_a_policy_for_services_is_for_their_own_roles_only(account: Account) -> None:
    iam = account.client("iam")
    iam.get_policy(PolicyArn=LINKED)
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST)
    assert refusal(iam.attach_role_policy, RoleName="R", PolicyArn=LINKED) == ("PolicyNotAttachable", 400)


def test_policies_have_a_size(account: Account) -> None:
    iam = account.client("iam")
    big = text(*[f"s3:Get{number:04}" for number in range(500)])
    spaced = json.dumps(allow("s3:GetObject")).replace(" ", " " * 2000)
    assert refusal(iam.create_policy, PolicyName="Big", PolicyDocument=big) == ("LimitExceeded", 409)
    iam.create_policy(PolicyName="Spaced", PolicyDocument=spaced)
    iam.create_user(UserName="U")
    half = text(*[f"s3:Get{number:04}" for number in range(80)])
    iam.put_user_policy(UserName="U", PolicyName="a", PolicyDocument=half)
    with pytest.raises(ClientError, match="Maximum policy size of 2048 bytes exceeded for user U"):
        iam.put_user_policy(UserName="U", PolicyName="b", PolicyDocument=half)
    iam.put_user_policy(UserName="U", PolicyName="a", PolicyDocument=text("s3:*"))
    iam.put_user_policy(UserName="U", PolicyName="b", PolicyDocument=half)


@pytest.mark.control("PRM-01")
def test_one_sagemaker_operation_is_allowed_and_every_other_is_refused(workshop: Workshop) -> None:
    account = workshop.account
    account.role("Trainer", allow("sagemaker:CreateTrainingJob", "iam:PassRole"))
    keys = account.as_role("Trainer")
    administrator, workshop.sagemaker = workshop.sagemaker, account.client("sagemaker", keys)
    name = workshop.train("print('trained')")
    assert administrator.describe_training_job(TrainingJobName=name)["TrainingJobName"] == name
    who = f"arn:aws:sts::{account.id}:assumed-role/Trainer/test"
    operations = {
        one.name: {ask.action for ask in one.asks}
        for service in SERVICES
        if service.name == "sagemaker"
        for kind in service.kinds
        for one in kind.operations
        if not one.inside
    }
    assert len(operations) > 30
    client = workshop.sagemaker
    for operation, actions in operations.items():
        if operation == "CreateTrainingJob":
            continue
        model = client.meta.service_model.operation_model(operation)
        given = example(model.input_shape, "", account.id) if model.input_shape is not None else {}
        method = next(py for py, api in client.meta.method_to_api_mapping.items() if api == operation)
        with pytest.raises(ClientError) as caught:
            getattr(client, method)(**given)
        error = caught.value.response["Error"]
        assert error["Code"] == "AccessDeniedException", operation
        found = re.fullmatch(
            f"User: {re.escape(who)} is not authorized to perform: (sagemaker:\\w+) "
            r"on resource: (?:\*|arn:aws:sagemaker:.*) "
            r"because no identity-based policy allows the \1 action Encoded authorization failure message: [\w.-]+",
            error["Message"],
        )
        assert found is not None and found[1] in actions, (operation, error["Message"])

    deny = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Action": "sagemaker:CreateTrainingJob", "Resource": "*"}],
    }
    account.client("iam").put_role_policy(RoleName="Trainer", PolicyName="deny", PolicyDocument=json.dumps(deny))
    with pytest.raises(ClientError) as caught:
        workshop.train("print('not trained')")
    message = caught.value.response["Error"]["Message"]
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    job = f"arn:aws:sagemaker:us-east-1:{account.id}:training-job/job-"
    assert message.startswith(
        f"User: {who} is not authorized to perform: sagemaker:CreateTrainingJob on resource: {job}"
    )
    assert "with an explicit deny in an identity-based policy" in message
