"""Data scientists launch products without the rights to make what is in them, and what they get is as it should be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import HOME, Running, allow
from tests.stories.servicecatalog.catalog import LAUNCH, USER, Catalog, Person, template


@dataclass
class Place:
    """A catalog with one product, launched by a role, and who may launch it."""

    catalog: Catalog
    portfolio: str
    product: str
    version: str
    role: str
    person: Person


@pytest.fixture(scope="module")
def place(platform: Running) -> Place:
    account = platform.account()
    catalog = Catalog(account)
    portfolio = catalog.portfolio(Tags=[{"Key": "dept", "Value": "mortgages"}])
    product, version = catalog.product(template(), portfolio)
    role = catalog.launch_role()
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": role})
    catalog.principal(portfolio, account.role("Scientist", USER))
    return Place(catalog, portfolio, product, version, role, Person(account, account.as_role("Scientist", "ann")))


@pytest.mark.control("SSV-01")
def test_a_product_with_two_versions_is_listed_with_its_parameters(place: Place) -> None:
    second = place.catalog.version(place.product, template(Description="again"))
    client = place.person.client
    found = client.search_products()["ProductViewSummaries"]
    assert place.product in [one["ProductId"] for one in found]
    told = client.describe_product(Id=place.product)
    names = [one["Name"] for one in told["ProvisioningArtifacts"]]
    assert [one for one in names if one in ("v1", "v2")] == ["v1", "v2"]
    asked = client.describe_provisioning_parameters(ProductId=place.product, ProvisioningArtifactId=second)
    parameters = {one["ParameterKey"]: one for one in asked["ProvisioningArtifactParameters"]}
    assert parameters["Size"]["ParameterConstraints"]["AllowedValues"] == ["small", "large"]
    assert parameters["Size"]["DefaultValue"] == "small"
    assert [one["Type"] for one in asked["ConstraintSummaries"]] == ["LAUNCH"]
    [way] = client.list_launch_paths(ProductId=place.product)["LaunchPathSummaries"]
    assert (way["Name"], way["Tags"]) == ("ML", [{"Key": "dept", "Value": "mortgages"}])

    other = Person(place.catalog.account, _role(place, "Stranger"))
    assert not other.client.search_products()["ProductViewSummaries"]
    for refused in (
        lambda: other.client.describe_product(Id=place.product),
        lambda: other.client.list_launch_paths(ProductId=place.product)["LaunchPathSummaries"][0],
        lambda: other.provision(place.product, place.version, "mine"),
    ):
        with pytest.raises((ClientError, IndexError)) as error:
            refused()
        assert isinstance(error.value, IndexError) or "ResourceNotFoundException" in str(error.value)
    for body in ("{", "Resources: {}", json.dumps({"Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": 5}}})):
        with pytest.raises(ClientError) as told_:
            place.catalog.version(place.product, body)
        assert told_.value.response["Error"]["Code"] == "InvalidParametersException"


def _role(place: Place, name: str) -> object:
    place.catalog.account.role(name, USER)
    return place.catalog.account.as_role(name)


@pytest.mark.control("SSV-02", "TAG-05")
def test_the_launch_role_makes_what_the_person_may_not(place: Place) -> None:
    person, account = place.person, place.catalog.account
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("sagemaker", person.keys).create_model_package_group(ModelPackageGroupName="risk")
    with pytest.raises(ClientError, match="AccessDenied"):
        account.client("cloudformation", person.keys).create_stack(StackName="s", TemplateBody=template())
    tags = [{"Key": key, "Value": f"the-{key}"} for key in ("owner-name", "owner-id", "environment", "project")]
    told = person.provision(place.product, place.version, "risk", Tags=tags)
    assert told["RecordDetail"]["Status"] == "SUCCEEDED", told
    assert told["RecordDetail"]["LaunchRoleArn"] == place.role
    outputs = {one["OutputKey"]: one["OutputValue"] for one in told["RecordOutputs"]}
    assert outputs["Name"] == "risk" and ":stack/SC-" in outputs["CloudformationStackARN"]
    sagemaker = account.client("sagemaker")
    group = sagemaker.describe_model_package_group(ModelPackageGroupName="risk")
    found = {one["Key"]: one["Value"] for one in sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]}
    assert {key: found[key] for key in ("dept", "owner-name", "owner-id", "environment", "project")} == {
        "dept": "mortgages", **{one["Key"]: one["Value"] for one in tags},
    }  # fmt: skip
    told = person.client.describe_provisioned_product(Name="risk")["ProvisionedProductDetail"]
    assert (told["Status"], told["LaunchRoleArn"]) == ("AVAILABLE", place.role)
    with pytest.raises(ClientError, match="DuplicateResourceException"):
        person.provision(place.product, place.version, "risk")
    trail = account.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "ProvisionProduct"}]
    )
    written = [json.loads(one["CloudTrailEvent"])["requestParameters"] for one in trail["Events"]]
    assert {one["provisioningParameters"] for one in written if one} == {"HIDDEN_DUE_TO_SECURITY_REASONS"}

    asked = person.client.update_provisioned_product(
        ProvisionedProductName="risk",
        ProvisioningParameters=[{"Key": "Name", "UsePreviousValue": True}, {"Key": "Size", "Value": "large"}],
    )
    assert person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
    with pytest.raises(ClientError, match="RESOURCE_UPDATE"):
        person.client.update_provisioned_product(
            ProvisionedProductName="risk",
            ProvisioningParameters=[{"Key": "Name", "UsePreviousValue": True}],
            Tags=[{"Key": "x", "Value": "y"}],
        )
    asked = person.client.terminate_provisioned_product(ProvisionedProductName="risk")
    assert person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
    with pytest.raises(ClientError, match="ValidationException"):
        sagemaker.describe_model_package_group(ModelPackageGroupName="risk")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        person.client.describe_provisioned_product(Name="risk")
    types = [one["RecordType"] for one in person.client.list_record_history()["RecordDetails"]]
    assert types[:3] == ["TERMINATE_PROVISIONED_PRODUCT", "UPDATE_PROVISIONED_PRODUCT", "PROVISION_PRODUCT"]


@pytest.mark.control("SSV-02")
def test_what_is_refused_before_anything_is_made(place: Place) -> None:
    catalog, person = place.catalog, place.person

    def held() -> list[str]:
        return sorted(one["Id"] for one in person.client.scan_provisioned_products()["ProvisionedProducts"])

    before = held()
    other = catalog.version(place.product, template(), "old")
    catalog.client.update_provisioning_artifact(ProductId=place.product, ProvisioningArtifactId=other, Active=False)
    rules = {"Rules": {"Small": {"Assertions": [{"Assert": {"Fn::Equals": [{"Ref": "Size"}, "small"]},
                                                 "AssertDescription": "only small ones"}]}}}  # fmt: skip
    constraint = catalog.constrain(place.portfolio, place.product, "TEMPLATE", rules)
    options = [
        catalog.client.create_tag_option(Key="environment", Value=value)["TagOptionDetail"]["Id"]
        for value in ("dev", "test")
    ]
    for one in options:
        catalog.client.associate_tag_option_with_resource(ResourceId=place.portfolio, TagOptionId=one)
    dev = {"Tags": [{"Key": "environment", "Value": "dev"}]}
    size = {"ProvisioningParameters": [{"Key": "Name", "Value": "n"}, {"Key": "Size", "Value": "large"}]}
    wrong = {"ProvisioningParameters": [{"Key": "Name", "Value": "n"}, {"Key": "Size", "Value": "huge"}]}
    try:
        for version, more, words in (
            (other, dev, "not active"),
            (place.version, {**dev, **size}, "only small ones"),
            (place.version, {**dev, **wrong}, "Size"),
            (place.version, {"Tags": [{"Key": "environment", "Value": "prod"}]}, "one of: dev, test"),
            (place.version, {}, "must be chosen"),
            (place.version, {**dev, "PathId": "lpv2-none"}, "Launch path"),
            (place.version, {**dev, "ProvisioningPreferences": {"StackSetRegions": ["us-east-1"]}}, "STACKSET"),
        ):
            with pytest.raises(ClientError, match=words):
                person.provision(place.product, version, "n", **more)
        asked = person.client.describe_provisioning_parameters(
            ProductId=place.product, ProvisioningArtifactId=place.version
        )
        assert asked["TagOptions"] == [{"Key": "environment", "Values": ["dev", "test"]}]
        assert json.loads(asked["UsageInstructions"][0]["Value"]) == rules["Rules"]
    finally:
        catalog.client.delete_constraint(Id=constraint)
        for one in options:
            catalog.client.disassociate_tag_option_from_resource(ResourceId=place.portfolio, TagOptionId=one)
    assert held() == before


@pytest.mark.control("SSV-03")
def test_guardrails_bind_the_launch_role(place: Place, platform: Running) -> None:
    account = place.catalog.account
    deny = {"Effect": "Deny", "Action": "sagemaker:CreateModelPackageGroup", "Resource": "*",
            "Condition": {"Null": {"aws:RequestTag/owner": "true"}}}  # fmt: skip
    organizations = platform.client("organizations")
    policy = organizations.create_policy(
        Name=f"owner-{account.id}", Description="", Type="SERVICE_CONTROL_POLICY",
        Content=json.dumps({"Version": "2012-10-17", "Statement": [deny]}),
    )["Policy"]["PolicySummary"]["Id"]  # fmt: skip
    organizations.attach_policy(PolicyId=policy, TargetId=account.id)
    try:
        told = place.person.provision(place.product, place.version, "bare")
    finally:
        organizations.detach_policy(PolicyId=policy, TargetId=account.id)
    assert told["RecordDetail"]["Status"] == "FAILED"
    [error] = told["RecordDetail"]["RecordErrors"]
    assert "sagemaker:CreateModelPackageGroup" in error["Description"], error
    client = place.person.client
    assert client.describe_provisioned_product(Name="bare")["ProvisionedProductDetail"]["Status"] == "ERROR"
    asked = client.terminate_provisioned_product(ProvisionedProductName="bare")
    assert place.person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"
    owned = place.person.provision(place.product, place.version, "owned", Tags=[{"Key": "owner", "Value": "ann"}])
    assert owned["RecordDetail"]["Status"] == "SUCCEEDED", owned


def test_a_launch_role_that_does_not_trust_the_catalog(place: Place) -> None:
    catalog, account = place.catalog, place.catalog.account
    portfolio = catalog.portfolio("untrusted")
    product, version = catalog.product(template(), portfolio, name="untrusted")
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": account.role("Closed", allow(*LAUNCH))})
    catalog.principal(portfolio, "arn:aws:iam:::role/Scien*", "IAM_PATTERN")
    told = place.person.provision(product, version, "closed")
    assert told["RecordDetail"]["Status"] == "FAILED"
    assert "trust policy" in told["RecordDetail"]["RecordErrors"][0]["Description"]
    # Whoever sets a launch role must be allowed to pass it.
    account.role("Author", USER)
    client = account.client("servicecatalog", account.as_role("Author"))
    given = {"PortfolioId": place.portfolio, "ProductId": place.product, "Type": "LAUNCH"}
    with pytest.raises(ClientError, match="iam:PassRole"):
        client.create_constraint(**given, Parameters=json.dumps({"LocalRoleName": "Launch"}))
    with pytest.raises(ClientError, match="iam:PassRole"):
        catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": f"arn:aws:iam::{HOME}:role/Launch"})


def test_without_a_launch_constraint_the_person_launches(place: Place) -> None:
    catalog, account = place.catalog, place.catalog.account
    portfolio = catalog.portfolio("own")
    product, version = catalog.product(template(), portfolio, name="own")
    may = allow("servicecatalog:*", *LAUNCH, "sagemaker:*ModelPackageGroup*", "sagemaker:AddTags")
    for name, policy, status in (("Maker", may, "SUCCEEDED"), ("Looker", USER, "FAILED")):
        catalog.principal(portfolio, account.role(name, policy))
        told = Person(account, account.as_role(name)).provision(
            product, version, name.lower(), Tags=[{"Key": "owner", "Value": "x"}]
        )
        assert told["RecordDetail"]["Status"] == status, told
    assert "cloudformation:CreateStack" in told["RecordDetail"]["RecordErrors"][0]["Description"]


def test_levels_say_whose_products_a_policy_speaks_of(place: Place) -> None:
    account, client = place.catalog.account, place.person.client
    account.role("Own")  # AWS's policy for end users: what is somebody's own, servicecatalog:userLevel
    policy = "arn:aws:iam::aws:policy/AWSServiceCatalogEndUserFullAccess"
    account.client("iam").attach_role_policy(RoleName="Own", PolicyArn=policy)
    mine = place.person.provision(place.product, place.version, "level", Tags=[{"Key": "owner", "Value": "ann"}])
    place.catalog.principal(place.portfolio, f"arn:aws:iam::{account.id}:role/Own")
    person = Person(account, account.as_role("Own"))
    theirs = person.provision(place.product, place.version, "theirs", Tags=[{"Key": "owner", "Value": "own"}])
    assert theirs["RecordDetail"]["Status"] == "SUCCEEDED", theirs
    own = person.client
    assert [one["Name"] for one in own.scan_provisioned_products()["ProvisionedProducts"]] == ["theirs"]
    for refused in (
        lambda: own.describe_provisioned_product(Name="level"),
        lambda: own.terminate_provisioned_product(ProvisionedProductName="level"),
        lambda: own.scan_provisioned_products(AccessLevelFilter={"Key": "Account", "Value": "self"}),
        lambda: own.describe_record(Id=mine["RecordDetail"]["RecordId"]),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    colleague = account.client("servicecatalog", account.as_role("Scientist", "bob"))
    names = lambda **given: [one["Name"] for one in colleague.scan_provisioned_products(**given)["ProvisionedProducts"]]  # noqa: E731
    assert names() == []
    assert "level" in names(AccessLevelFilter={"Key": "Role", "Value": "self"})
    found = client.search_provisioned_products(Filters={"SearchQuery": ["name:level"]})["ProvisionedProducts"]
    assert [one["Name"] for one in found] == ["level"]


def test_a_plan_tells_what_a_launch_would_make(place: Place) -> None:
    account, client = place.catalog.account, place.person.client
    given = {
        "PlanType": "CLOUDFORMATION", "ProductId": place.product, "ProvisioningArtifactId": place.version,
        "ProvisionedProductName": "planned", "ProvisioningParameters": [{"Key": "Name", "Value": "planned"}],
    }  # fmt: skip

    def planned(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
        id = client.create_provisioned_product_plan(**given | more, PlanName=name)["PlanId"]

        def look() -> Any:
            told = client.describe_provisioned_product_plan(PlanId=id)
            return told if told["ProvisionedProductPlanDetails"]["Status"] != "CREATE_IN_PROGRESS" else None

        return id, until(look)

    owner = {"Tags": [{"Key": "owner", "Value": "ann"}]}
    id, told = planned("first", **owner)
    assert told["ProvisionedProductPlanDetails"]["Status"] == "CREATE_SUCCESS", told
    [change] = told["ResourceChanges"]
    assert (change["Action"], change["ResourceType"]) == ("ADD", "AWS::SageMaker::ModelPackageGroup")
    made = account.client("sagemaker").list_model_package_groups(NameContains="planned")
    assert not made["ModelPackageGroupSummaryList"]
    with pytest.raises(ClientError, match="being changed"):
        client.terminate_provisioned_product(ProvisionedProductName="planned")
    client.delete_provisioned_product_plan(PlanId=id)
    until(lambda: not client.list_provisioned_product_plans()["ProvisionedProductPlans"])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.describe_provisioned_product(Name="planned")

    id, _ = planned("second", **owner)
    record = client.execute_provisioned_product_plan(PlanId=id)["RecordDetail"]["RecordId"]
    assert place.person.settled(record)["RecordDetail"]["Status"] == "SUCCEEDED"
    with pytest.raises(ClientError, match="InvalidStateException"):
        client.execute_provisioned_product_plan(PlanId=id)
    large = [{"Key": "Name", "UsePreviousValue": True}, {"Key": "Size", "Value": "large"}]
    id, told = planned("third", ProvisioningParameters=large)
    assert [one["Action"] for one in told["ResourceChanges"]] == ["MODIFY"], told
    record = client.execute_provisioned_product_plan(PlanId=id)["RecordDetail"]["RecordId"]
    told = place.person.settled(record)["RecordDetail"]
    assert (told["Status"], told["RecordType"]) == ("SUCCEEDED", "UPDATE_PROVISIONED_PRODUCT")
    assert client.describe_provisioned_product(Name="planned")["ProvisionedProductDetail"]["Status"] == "AVAILABLE"
