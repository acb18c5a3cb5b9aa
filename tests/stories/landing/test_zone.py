"""What stands after `bastide landing apply`: organisation, guardrails, people, and the record."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bastide.commands.cli import cli
from tests.platform import HOME, allow
from tests.stories.landing import rehearsal
from tests.stories.landing.zone import DENIED, Zone, landing, refused


@pytest.mark.control("ACC-15", lacking="cost figures")
def test_it_is_planned_made_and_left_alone(zone: Zone) -> None:
    assert zone.plan["changes"] and zone.plan["refused"] == [] and zone.plan["faults"] == []
    names = {"log-archive", "shared-services", "data-management", "data-science", "test", "production"}
    assert set(zone.plan["accounts"]["created"]) == set(zone.ids) == names
    gains = {one["who"] for one in zone.plan["access"] if one["gains"]}
    assert {"CrossAccountRoleB in test", "MLOps in shared-services", "DataScientist-mortgage in data-science"} <= gains
    assert {one["what"] for one in zone.applied["stacks"]} == {"created"}
    assert {one["what"] for one in zone.again["stacks"]} == {"unchanged"} and zone.again["moved"] == []
    code, plan, _ = landing(zone.platform, "plan", str(zone.file))
    assert code == 0 and "Everything is as the blueprint says." in plan and "Nobody gains or loses access" in plan
    # Any client's way: an endpoint, and credentials of the environment.
    keys, more = zone.platform.administrator, {"AWS_CA_BUNDLE": zone.platform.authority, "COLUMNS": "200"}
    given = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret, **more}
    asked = ["landing", "plan", str(zone.file), "--json", "--endpoint-url", zone.platform.url]
    done = CliRunner().invoke(cli, asked, env=given)
    assert done.exit_code == 0 and json.loads(done.stdout)["changes"] is False, done.output
    # A member makes no accounts and removes nobody; what it was given with is there.
    member = zone.account("test").client("organizations")
    refused(DENIED, member.create_account, AccountName="mine", Email="mine@bank.example")
    refused(DENIED, member.remove_account_from_organization, AccountId=zone.ids["production"])
    told = zone.account("log-archive").client("ssm").get_parameter(Name="/bank/tags")["Parameter"]["Value"]
    assert told == "owner,environment,project"


@pytest.mark.control("ACC-16")
def test_units_bind_what_is_below_them(zone: Zone) -> None:
    organizations = zone.platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    units = organizations.list_organizational_units_for_parent(ParentId=root)["OrganizationalUnits"]
    [workloads] = [one["Id"] for one in units if one["Name"] == "Workloads"]
    refused(
        "OrganizationalUnitNotEmptyException", organizations.delete_organizational_unit, OrganizationalUnitId=workloads
    )
    # An account that exists is enrolled by moving it below a unit: the policies of the units above bind it at once.
    guest = zone.platform.account()
    sqs = guest.client("sqs")
    given = {"AccountId": guest.id, "DestinationParentId": workloads}
    refused("SourceParentNotFoundException", organizations.move_account, SourceParentId="r-0000", **given)
    trails = guest.client("cloudtrail")
    sqs.create_queue(QueueName="before")
    refused("TrailNotFoundException", trails.stop_logging, Name="none")
    organizations.move_account(SourceParentId=root, **given)
    assert "service control policy" in refused(DENIED, guest.client("organizations").leave_organization)
    organizations.move_account(AccountId=guest.id, SourceParentId=workloads, DestinationParentId=root)
    refused("TrailNotFoundException", trails.stop_logging, Name="none")


@pytest.mark.control("ACC-05")
def test_an_account_that_exists_is_enrolled(zone: Zone) -> None:
    """As one in which pipelines are rehearsed."""
    guest = zone.platform.account()
    organizations = zone.platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    file = zone.file.with_name("enrolling.yaml")
    line = f'  sandbox: {{id: "{guest.id}", unit: Workloads}}'
    file.write_text(zone.file.read_text().replace("\nteams:", f"\n{line}\n\nteams:"))
    code, plan, why = landing(zone.platform, "plan", str(file), "--json")
    assert code == 0 and plan["accounts"] == {"created": [], "enrolled": ["sandbox"]}, why
    assert {one["who"] for one in plan["access"]} == {"Auditor in sandbox", "SecurityEngineer in sandbox"}
    ssm = guest.client("ssm")

    def baseline() -> bool:
        return any(one["Name"] == "/bank/tags" for one in ssm.describe_parameters()["Parameters"])

    try:
        code, told, why = landing(zone.platform, "apply", str(file), "--yes", "--json")
        assert code == 0 and told["enrolled"] == told["moved"] == ["sandbox"], why
        assert {one["name"] for one in told["stacks"] if one["what"] != "unchanged"} == {"bank-landing-people"}
        refused(DENIED, guest.client("organizations").leave_organization)
        _until(baseline)
        # One template makes and runs a pipeline in the lower account and in Shared Services, and leaves nothing in Test.
        assert [rehearsal.runs(one) for one in (guest, zone.account("shared-services"))] == [["SUCCEEDED"]] * 2
        machines = zone.account("test").client("stepfunctions").list_state_machines()["stateMachines"]
        assert "rehearsal" not in {one["name"] for one in machines}
        guest.role("Rehearses", allow("*"))
        keys, shared = guest.as_role("Rehearses"), zone.account("shared-services")
        lower, models = zone.platform.client("s3", keys), zone.bucket("models", "shared-services")
        lower.put_object(Bucket=f"rehearsal-{guest.id}", Key="x", Body=b"x")
        for bucket in (models, f"rehearsal-{shared.id}"):
            refused(DENIED, lower.put_object, Bucket=bucket, Key="x", Body=b"x")
        contributor = {"RoleArn": zone.arn("shared-services", "CodeContributor"), "RoleSessionName": "rehearses"}
        refused(DENIED, zone.platform.client("sts", keys).assume_role, **contributor)
        images = zone.platform.client("ecr", keys)
        asked = {"registryId": shared.id, "repositoryName": "mortgage/training"}
        refused(DENIED, images.put_image, **asked, imageManifest="{}", imageTag="x")
        who = zone.centre.session(zone.token, guest, "Auditor")
        assert zone.platform.client("iam", who).list_roles()["Roles"]
    finally:
        parent = organizations.list_parents(ChildId=guest.id)["Parents"][0]["Id"]
        if parent != root:
            organizations.move_account(AccountId=guest.id, SourceParentId=parent, DestinationParentId=root)
        code, told, why = landing(zone.platform, "apply", str(zone.file), "--yes", "--json")
        assert code == 0, why
    _until(lambda: not baseline())  # what leaves a unit leaves its baseline


def _until(look: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.1)


@pytest.mark.control("ACC-14")
@pytest.mark.control("TAG-05")
@pytest.mark.control("ACC-13")
@pytest.mark.control("TAG-07", lacking="what serves")
def test_guardrails_stop_administrators(zone: Zone) -> None:
    science, production, logs = zone.account("data-science"), zone.account("production"), zone.account("log-archive")
    sagemaker = science.client("sagemaker")
    tags = [{"Key": key, "Value": "experiment"} for key in ("owner", "environment", "project")]
    key, role = zone.key("data-science", "datascience"), zone.arn("data-science", "TrainingRole")
    good = {
        "TrainingJobName": "t", "RoleArn": role, "Tags": tags, "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True,
        "AlgorithmSpecification": {"TrainingImage": "bastide/scikit-learn", "TrainingInputMode": "File"},
        "VpcConfig": {"Subnets": ["subnet-0"], "SecurityGroupIds": ["sg-0"]},
        "OutputDataConfig": {"S3OutputPath": f"s3://{zone.bucket('models', 'shared-services')}/x"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, "VolumeKmsKeyId": key},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }  # fmt: skip
    bare = {name: value for name, value in good["ResourceConfig"].items() if name != "VolumeKmsKeyId"}
    wrong = [
        {"Tags": tags[1:]},
        {"ResourceConfig": bare},
        {"ResourceConfig": {**good["ResourceConfig"], "InstanceType": "ml.p4d.24xlarge"}},
        {"EnableNetworkIsolation": False},
        {"EnableInterContainerTrafficEncryption": False},
        {"VpcConfig": None},
    ]
    for one in wrong:
        asked = {name: value for name, value in {**good, **one}.items() if value is not None}
        assert "service control policy" in refused(DENIED, sagemaker.create_training_job, **asked), one
    # What keeps to them gets as far as the network that it names.
    refused("ValidationException", sagemaker.create_training_job, **good)
    refused(DENIED, sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="c", Tags=tags[:1])
    # Production is deployed to by the stack role alone, whoever asks, and keeps its tags.
    served = production.client("sagemaker")
    refused(DENIED, served.create_endpoint, EndpointName="e", EndpointConfigName="c", Tags=tags)
    refused(DENIED, served.update_endpoint, EndpointName="e", EndpointConfigName="c")
    refused(DENIED, served.delete_endpoint, EndpointName="e")
    # The role that deploys may take tags away; nobody else may, not even with everything allowed.
    production.role(
        "Helper", {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    )
    helper = zone.platform.assume(f"arn:aws:iam::{production.id}:role/Helper", production.keys)
    endpoint = f"arn:aws:sagemaker:us-east-1:{production.id}:endpoint/e"
    asked = {"ResourceArn": endpoint, "TagKeys": ["owner"]}
    refused(DENIED, zone.platform.client("sagemaker", helper).delete_tags, **asked)
    for service, call, given in (
        (
            "s3",
            "put_public_access_block",
            {"Bucket": zone.bucket("models", "shared-services"), "PublicAccessBlockConfiguration": {}},
        ),
        ("iam", "put_role_policy", {"RoleName": "StackRole", "PolicyName": "more", "PolicyDocument": "{}"}),
        ("cloudformation", "delete_stack", {"StackName": "bank-landing-platform"}),
        ("organizations", "leave_organization", {}),
    ):
        refused(DENIED, getattr(zone.platform.client(service, helper), call), **given)
    # Other Regions, and the root user.
    refused(DENIED, science.client("sqs", region="eu-central-1").create_queue, QueueName="q")
    bucket = zone.bucket("logs", "log-archive")
    logs.role("Helper", {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    held = zone.platform.assume(f"arn:aws:iam::{logs.id}:role/Helper", logs.keys)
    refused(DENIED, zone.platform.client("s3", held).delete_bucket_policy, Bucket=bucket)


@pytest.mark.control("ACC-14")
def test_controls_are_enabled_on_units_through_control_towers_own_api(zone: Zone) -> None:
    tower, organizations = zone.platform.client("controltower"), zone.platform.client("organizations")
    production = zone.account("production")
    unit = organizations.list_parents(ChildId=production.id)["Parents"][0]["Id"]
    told = organizations.describe_organizational_unit(OrganizationalUnitId=unit)["OrganizationalUnit"]["Arn"]
    control = "arn:aws:controltower:us-east-1::control/AWS-GR_DISALLOW_VPC_INTERNET_ACCESS"
    asked = {"controlIdentifier": control, "targetIdentifier": told}
    ec2 = production.client("ec2")

    def policies() -> list[str]:
        found = organizations.list_policies_for_target(TargetId=unit, Filter="SERVICE_CONTROL_POLICY")["Policies"]
        return [one["Name"] for one in found if one["Name"].startswith("aws-guardrails-")]

    # A member may not, nor is it for accounts or roots, nor for what is no control or no unit.
    refused("AccessDeniedException", production.client("controltower").enable_control, **asked)
    account = organizations.describe_account(AccountId=production.id)["Account"]["Arn"]
    root = organizations.list_roots()["Roots"][0]["Arn"]
    for target in (account, root):
        refused("ValidationException", tower.enable_control, **{**asked, "targetIdentifier": target})
    for wrong in ({"controlIdentifier": f"{control}S"}, {"targetIdentifier": f"{told[:-1]}_"}, {"parameters": [
        {"key": "AllowedRegions", "value": ["us-east-1"]}]}):  # fmt: skip
        refused(("ValidationException", "ResourceNotFoundException"), tower.enable_control, **{**asked, **wrong})
    assert policies() == []
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.delete_internet_gateway(InternetGatewayId=gateway)

    made = tower.enable_control(**asked, tags={"owner": "security"})
    done = tower.get_control_operation(operationIdentifier=made["operationIdentifier"])["controlOperation"]
    assert (done["status"], done["operationType"]) == ("SUCCEEDED", "ENABLE_CONTROL")
    refused("ConflictException", tower.enable_control, **asked)
    [listed] = tower.list_enabled_controls(targetIdentifier=told)["enabledControls"]
    assert (listed["arn"], listed["controlIdentifier"]) == (made["arn"], control)
    assert tower.list_tags_for_resource(resourceArn=made["arn"])["tags"] == {"owner": "security"}
    # Each account of the unit is bound by it, its administrator, too; those of other units are not.
    assert len(policies()) == 1
    assert "service control policy" in refused(DENIED, ec2.create_internet_gateway)
    other = zone.account("test").client("ec2")
    gateway = other.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    other.delete_internet_gateway(InternetGatewayId=gateway)
    # A second one goes into the same policy; what is taken out of it by hand is put back.
    networks = {**asked, "controlIdentifier": control.replace("VPC_INTERNET_ACCESS", "VPN_CONNECTIONS")}
    second = tower.enable_control(**networks)["arn"]
    details = tower.get_enabled_control(enabledControlIdentifier=second)["enabledControlDetails"]
    assert details["statusSummary"]["status"] == "SUCCEEDED" and len(policies()) == 1
    assert "service control policy" in refused(
        DENIED, ec2.create_customer_gateway, Type="ipsec.1", BgpAsn=65000, IpAddress="203.0.113.7"
    )
    [policy] = organizations.list_policies_for_target(TargetId=unit, Filter="SERVICE_CONTROL_POLICY")["Policies"][-1:]
    organizations.detach_policy(PolicyId=policy["Id"], TargetId=unit)
    assert policies() == []
    tower.reset_enabled_control(enabledControlIdentifier=second)
    assert len(policies()) == 1
    tower.disable_control(enabledControlIdentifier=second)
    assert "service control policy" in refused(DENIED, ec2.create_internet_gateway)
    tower.disable_control(**asked)
    refused("ResourceNotFoundException", tower.disable_control, **asked)
    assert policies() == [] and tower.list_enabled_controls()["enabledControls"] == []
    kinds = [one["operationType"] for one in tower.list_control_operations()["controlOperations"]]
    assert kinds == ["ENABLE_CONTROL", "ENABLE_CONTROL", "RESET_ENABLED_CONTROL", "DISABLE_CONTROL", "DISABLE_CONTROL"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.delete_internet_gateway(InternetGatewayId=gateway)


@pytest.mark.control("ACC-09")
def test_what_is_production_s_data_is_guarded_in_data_science(zone: Zone) -> None:
    science, bucket = zone.account("data-science"), zone.bucket("data", "data-science")
    prepare = zone.platform.client("s3", zone.service("data-science", zone.arn("data-science", "ProcessingRole")))
    prepare.put_object(Bucket=bucket, Key="mortgage/real.csv", Body=b"1,2")
    assert prepare.head_object(Bucket=bucket, Key="mortgage/real.csv")["SSEKMSKeyId"] == zone.key(
        "data-science", "datascience"
    )
    own = science.client("s3")
    assert all(own.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    # A bucket outside, open to all of Data Science; and who may do everything that guardrails let anybody do.
    guest = zone.platform.account()
    outside = f"outside-{guest.id}"
    guest.client("s3").create_bucket(Bucket=outside)
    everybody = allow(
        "s3:*", resource=f"arn:aws:s3:::{outside}/*", Principal={"AWS": f"arn:aws:iam::{science.id}:root"}
    )
    guest.client("s3").put_bucket_policy(Bucket=outside, Policy=json.dumps(everybody))
    science.role("Anything", allow("*"))
    science.role("Keyless", allow("s3:*"))
    anything, keyless = (zone.platform.client("s3", science.as_role(name)) for name in ("Anything", "Keyless"))
    anything.put_object(Bucket=outside, Key="before", Body=b"x")
    zone.platform.client("organizations").remove_account_from_organization(AccountId=guest.id)
    real = {"Bucket": bucket, "Key": "mortgage/real.csv"}
    assert "service control policy" in refused(DENIED, anything.put_object, Bucket=outside, Key="x", Body=b"1,2")
    refused(DENIED, anything.copy_object, Bucket=outside, Key="x", CopySource=real)
    public = json.dumps(allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*", Principal="*"))
    refused(DENIED, anything.put_bucket_policy, Bucket=bucket, Policy=public)
    refused(DENIED, anything.delete_public_access_block, Bucket=bucket)
    assert "kms" in refused(DENIED, keyless.get_object, **real)
    # What is read is on record, with who read it.
    logs, kept = zone.account("log-archive").client("s3"), zone.bucket("logs", "log-archive")
    assert prepare.get_object(**real)["Body"].read() == b"1,2"

    def recorded() -> bool:
        pages = logs.get_paginator("list_objects_v2").paginate(Bucket=kept)
        names = [one["Key"] for page in pages for one in page.get("Contents", ()) if f"/{science.id}/" in one["Key"]]
        for name in sorted(set(names) - looked):
            looked.add(name)
            told = json.loads(gzip.decompress(logs.get_object(Bucket=kept, Key=name)["Body"].read()))["Records"]
            reads = [one for one in told if one["eventName"] == "GetObject" and "errorCode" not in one]
            mine = [one for one in reads if one["requestParameters"]["key"] == real["Key"]]
            if any(":assumed-role/ProcessingRole/" in one["userIdentity"]["arn"] for one in mine):
                return True
        return False

    looked: set[str] = set()
    _until(recorded)


def test_the_record_is_written_into_an_account_of_its_own(zone: Zone) -> None:
    s3, bucket = zone.account("log-archive").client("s3"), zone.bucket("logs", "log-archive")
    for _ in range(900):
        found = s3.list_objects_v2(Bucket=bucket).get("Contents", ())
        if any(f"/{zone.ids['test']}/" in one["Key"] for one in found):
            break
        time.sleep(0.1)
    assert any(f"/{zone.ids['test']}/" in one["Key"] for one in found), [one["Key"] for one in found]
    name = found[0]["Key"]
    auditor = zone.platform.client("s3", zone.person("log-archive", "Auditor"))
    assert auditor.get_object(Bucket=bucket, Key=name)["Body"].read()
    refused(DENIED, auditor.delete_object, Bucket=bucket, Key=name)
    refused(DENIED, s3.delete_object, Bucket=bucket, Key=name)  # nor does its administrator


@pytest.mark.control("ACC-11")
@pytest.mark.control("PER-03", "PER-06", lacking="their part that pipelines have")
def test_people_do_their_part_and_no_more(zone: Zone) -> None:
    shared = zone.ids["shared-services"]
    group = f"arn:aws:sagemaker:us-east-1:{shared}:model-package-group/mortgage-denial"
    risk, approver, mlops = (
        zone.platform.client("sagemaker", zone.person("shared-services", name))
        for name in ("ModelRiskManager", "ModelApprover", "MLOps")
    )
    for one in (risk, approver, mlops):
        assert (
            one.describe_model_package_group(ModelPackageGroupName="mortgage-denial")["ModelPackageGroupArn"] == group
        )
    package = f"arn:aws:sagemaker:us-east-1:{shared}:model-package/mortgage-denial/999"
    asked = {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}
    for one in (risk, mlops):
        refused(DENIED, one.update_model_package, **asked)
    refused(
        ("ValidationException", "ResourceNotFound"), approver.update_model_package, **asked
    )  # there is no such version
    reader = zone.platform.client("sagemaker", zone.person("test", "TestReader-mortgage"))
    assert reader.list_training_jobs()["TrainingJobSummaries"] is not None
    refused(DENIED, reader.stop_training_job, TrainingJobName="t")
    refused(DENIED, reader.delete_model, ModelName="m")
    scientist = zone.person("data-science", "DataScientist-mortgage")
    told = zone.platform.client("ssm", scientist).get_parameters_by_path(Path="/bank/network")["Parameters"]
    assert {one["Name"] for one in told} == {f"/bank/network/{name}" for name in ("vpc", "subnets", "security-group")}
    refused(
        DENIED,
        zone.platform.client("sts", scientist).assume_role,
        RoleArn=zone.arn("data-science", "NotebookRole"),
        RoleSessionName="thief",
    )
    team = zone.platform.client("s3", scientist)
    mine = zone.bucket("team-mortgage", "data-science")
    team.put_object(Bucket=mine, Key="x", Body=b"x")
    assert team.get_object(Bucket=mine, Key="x")["Body"].read() == b"x"
    refused(DENIED, team.get_object, Bucket=zone.bucket("data", "data-science"), Key="x")


def test_every_policy_is_valid_by_access_analyzer(zone: Zone) -> None:
    from bastide.policy import Form
    from tests.unit.landing.zone import world

    kinds = {Form.IDENTITY: "IDENTITY_POLICY", Form.SCP: "SERVICE_CONTROL_POLICY", Form.RCP: "RESOURCE_CONTROL_POLICY"}
    analyzer, wrong = zone.platform.client("accessanalyzer"), []
    documents = {one.source: one for actor in world().actors.values() for one in actor.identity} | {
        one.attached.source: one.attached for one in world().policies.values()
    }
    documents |= {one.source: one for levels in world().guards.values() for each in levels.values() for one in each}
    for source, one in documents.items():
        told = analyzer.validate_policy(
            policyDocument=json.dumps(world().raw[source]), policyType=kinds.get(one.document.form, "RESOURCE_POLICY")
        )["findings"]
        wrong += [
            (source, each["findingType"], each["findingDetails"]) for each in told if each["findingType"] == "ERROR"
        ]
    assert wrong == []


def test_what_was_changed_by_hand_is_found(zone: Zone) -> None:
    code, told, _ = landing(zone.platform, "drift", str(zone.file), "--json")
    assert (code, told) == (0, []), json.dumps(told)
    organizations, test = zone.platform.client("organizations"), zone.account("test")
    [policy] = [
        one
        for one in organizations.list_policies(Filter="SERVICE_CONTROL_POLICY")["Policies"]
        if one["Name"] == "bank-production-scp"
    ]
    unit = organizations.list_parents(ChildId=zone.ids["production"])["Parents"][0]["Id"]
    organizations.detach_policy(PolicyId=policy["Id"], TargetId=unit)
    s3, bucket = test.client("s3"), zone.bucket("data", "test")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    root, home = (
        organizations.list_roots()["Roots"][0]["Id"],
        organizations.list_parents(ChildId=test.id)["Parents"][0]["Id"],
    )
    organizations.move_account(AccountId=test.id, SourceParentId=home, DestinationParentId=root)
    # The premises of the blueprint: a tunnel to them, and where it leads.
    ec2 = zone.account("data-science").client("ec2")
    [link] = ec2.describe_vpn_connections()["VpnConnections"]
    [device] = ec2.describe_customer_gateways()["CustomerGateways"]
    [table] = ec2.describe_route_tables(Filters=[{"Name": "association.main", "Values": ["false"]}])["RouteTables"]
    [way] = [one for one in table["Routes"] if one.get("GatewayId") == link["VpnGatewayId"]]
    assert (device["IpAddress"], way["DestinationCidrBlock"]) == ("203.0.113.10", "10.200.0.0/16")
    route = {"VpnConnectionId": link["VpnConnectionId"], "DestinationCidrBlock": "10.200.0.0/16"}
    ec2.delete_vpn_connection_route(**route)
    try:
        code, told, _ = landing(zone.platform, "drift", str(zone.file), "--json")
        found = {(one["where"], one["what"].partition(" (")[0]) for one in told}
        assert code == 1
        assert found == {
            ("organisation", "policy bank-production-scp"), ("organisation", "account test"),
            ("test", "bank-landing-platform: TestDataBucket"),
            ("data-science", "bank-landing-premises: OfficeRoute0"),
        }, told  # fmt: skip
    finally:
        ec2.create_vpn_connection_route(**route)
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        organizations.attach_policy(PolicyId=policy["Id"], TargetId=unit)
    # What no stack says, the next run puts back.
    code, told, why = landing(zone.platform, "apply", str(zone.file), "--yes", "--json")
    assert code == 0 and told["moved"] == ["test"], why
    assert HOME not in zone.ids.values()


def test_a_plan_refuses_by_the_rules_name(zone: Zone) -> None:
    own = zone.file.with_name("open.yaml")
    own.write_text("Resources:\n  Open: {Type: AWS::S3::Bucket}\n  Fine: {Type: AWS::SNS::Topic}\n")
    file = zone.file.with_name("with-open.yaml")
    file.write_text(
        zone.file.read_text().replace("templates: []", "templates: [{account: test, name: open, file: open.yaml}]")
    )
    code, told, _ = landing(zone.platform, "plan", str(file), "--json")
    assert code == 1
    assert {one["rule"] for one in told["refused"]} == {"bucket-encryption", "bucket-versions", "public-buckets"}
    code, _, why = landing(zone.platform, "apply", str(file), "--yes")
    assert code == 1 and "Open: rule bucket-encryption: BucketEncryption has no default of aws:kms" in why
    file.write_text(zone.file.read_text().replace("unit: Workloads/Test", "unit: Workloads/Tests"))
    code, _, why = landing(zone.platform, "plan", str(file))
    assert code == 1 and f"{file}:" in why and "accounts.test.unit: there is no unit `Workloads/Tests`" in why
    with pytest.raises(ClientError, match="does not exist"):
        zone.account("test").client("cloudformation").describe_stacks(StackName="bank-landing-own-open")


@pytest.mark.control("NET-02", "NET-03")
def test_networks_are_joined_at_shared_services_only(zone: Zone) -> None:
    hub = zone.account("shared-services").client("ec2")
    stacks = zone.account("shared-services").client("cloudformation")
    outputs = stacks.describe_stacks(StackName="bank-landing-transit")["Stacks"][0]["Outputs"]
    told = {one["OutputKey"]: one["OutputValue"] for one in outputs}

    def ways(table: str) -> set[str]:
        found = hub.search_transit_gateway_routes(
            TransitGatewayRouteTableId=told[table], Filters=[{"Name": "state", "Values": ["active"]}]
        )["Routes"]
        return {one["DestinationCidrBlock"] for one in found}

    spokes = {"10.20.0.0/16", "10.30.0.0/16", "10.40.0.0/16", "10.50.0.0/16"}
    assert ways("SpokeTable") == {"10.10.0.0/16"} and ways("HubTable") == spokes
    for name in ("data-management", "data-science", "test", "production"):
        ec2 = zone.account(name).client("ec2")
        routes = [one for table in ec2.describe_route_tables()["RouteTables"] for one in table["Routes"]]
        assert {one["DestinationCidrBlock"] for one in routes if one.get("TransitGatewayId")} == {"10.10.0.0/16"}
        assert not any(one.get("DestinationCidrBlock") == "0.0.0.0/0" for one in routes)
        refused(
            (*DENIED, "InvalidTransitGatewayID.NotFound"),
            ec2.delete_transit_gateway,
            TransitGatewayId=told["TransitGateway"],
        )


@pytest.mark.control("ACC-03", "SSV-01", "TAG-05")
def test_a_scientist_launches_what_a_scientist_may_not_make(zone: Zone) -> None:
    person = zone.person("data-science", "DataScientist-mortgage")
    catalog, s3 = zone.platform.client("servicecatalog", person), zone.platform.client("s3", person)
    [product] = catalog.search_products()["ProductViewSummaries"]
    version = catalog.describe_product(Id=product["ProductId"])["ProvisioningArtifacts"][0]["Id"]
    name = f"bank-experiment-churn-{zone.ids['data-science']}"
    refused(DENIED, s3.create_bucket, Bucket=name)
    given = {"Name": "churn", "Owner": "ada", "Project": "mortgage"}
    record = catalog.provision_product(
        ProductId=product["ProductId"], ProvisioningArtifactId=version, ProvisionedProductName="churn",
        ProvisioningParameters=[{"Key": key, "Value": value} for key, value in given.items()],
    )["RecordDetail"]["RecordId"]  # fmt: skip
    until = time.monotonic() + 60
    while (told := catalog.describe_record(Id=record)["RecordDetail"])["Status"] not in ("SUCCEEDED", "FAILED"):
        assert time.monotonic() < until, told
        time.sleep(0.1)
    assert told["Status"] == "SUCCEEDED", told
    made = zone.account("data-science").client("s3")
    tags = {one["Key"]: one["Value"] for one in made.get_bucket_tagging(Bucket=name)["TagSet"]}
    assert {"owner": "ada", "project": "mortgage", "environment": "experiment"}.items() <= tags.items()
    rule = made.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == zone.key("data-science", "datascience")
    product_id = product["ProductId"]
    refused(DENIED, catalog.update_product, Id=product_id, Name="mine")
    refused(DENIED, catalog.create_portfolio, DisplayName="mine", ProviderName="me")
    other = zone.account("test").client("servicecatalog")  # an account without the share
    refused("ResourceNotFoundException", other.describe_product, Id=product_id)
