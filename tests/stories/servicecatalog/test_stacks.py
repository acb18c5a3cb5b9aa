"""A whole catalog as a stack: made, changed, launched from, removed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.cloudformation.stacks import template as stack
from tests.stories.servicecatalog.catalog import LAUNCH, SERVICE, Catalog, template


def _ref(name: str) -> dict[str, Any]:
    return {"Ref": name}


def _catalog(urls: list[str], size: str, neighbour: str) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": SERVICE, "Action": "sts:AssumeRole"}],
    }
    policy = allow(*LAUNCH, "sagemaker:*ModelPackageGroup*", "sagemaker:*Tags")
    both = {"PortfolioId": _ref("Portfolio"), "ProductId": _ref("Product")}
    rules = f'{{"Size": {{"Assertions": [{{"Assert": {{"Fn::Equals": [{{"Ref": "Size"}}, "{size}"]}}}}]}}}}'
    launch = {
        "ProductId": _ref("Product"),
        "ProvisioningArtifactName": "v1",
        "ProvisioningParameters": [{"Key": "Name", "Value": "from-stack"}, {"Key": "Size", "Value": size}],
    }
    versions = [{"Name": f"v{n + 1}", "Info": {"LoadTemplateFromURL": url}} for n, url in enumerate(urls)]
    types: dict[str, tuple[str, dict[str, Any], list[str]]] = {
        "Portfolio": ("Portfolio", {"DisplayName": size, "ProviderName": "Us"}, []),
        "Shared": ("Portfolio", {"DisplayName": "shared", "ProviderName": "Us"}, []),
        "Product": (
            "CloudFormationProduct", {"Name": size, "Owner": "Us", "ProvisioningArtifactParameters": versions}, [],
        ),
        "In": ("PortfolioProductAssociation", both, []),
        "Administrator": (
            "PortfolioPrincipalAssociation",
            {
                "PortfolioId": _ref("Portfolio"),
                "PrincipalARN": "arn:aws:iam:::role/OrganizationAccountAccess*",
                "PrincipalType": "IAM_PATTERN",
            },
            [],
        ),
        "ByRole": ("LaunchRoleConstraint", {**both, "RoleArn": {"Fn::GetAtt": ["Launch", "Arn"]}}, ["In"]),
        # Without a word of "In", which it needs nonetheless.
        "Rules": ("LaunchTemplateConstraint", {**both, "Rules": rules}, []),
        "Told": ("LaunchNotificationConstraint", {**both, "NotificationArns": [_ref("Topic")]}, ["In"]),
        "Tags": ("ResourceUpdateConstraint", {**both, "TagUpdateOnProvisionedProduct": "ALLOWED"}, ["In"]),
        "Option": ("TagOption", {"Key": "environment", "Value": "dev"}, []),
        "Of": ("TagOptionAssociation", {"TagOptionId": _ref("Option"), "ResourceId": _ref("Portfolio")}, []),
        "Share": ("PortfolioShare", {"PortfolioId": _ref("Shared"), "AccountId": neighbour}, []),
        "Launched": (
            "CloudFormationProvisionedProduct", launch, ["ByRole", "Rules", "Told", "Tags", "Of", "Administrator"],
        ),
    }  # fmt: skip
    resources: dict[str, Any] = {
        name: {"Type": f"AWS::ServiceCatalog::{type}", "Properties": properties, "DependsOn": depends}
        for name, (type, properties, depends) in types.items()
    }
    resources["Topic"] = {"Type": "AWS::SNS::Topic"}
    role = {
        "AssumeRolePolicyDocument": trust,
        "Policies": [{"PolicyName": "launch", "PolicyDocument": {**policy}}],
    }
    role["Policies"].append({"PolicyName": "tell", "PolicyDocument": allow("sns:Publish")})  # type: ignore[attr-defined]
    resources["Launch"] = {"Type": "AWS::IAM::Role", "Properties": role}
    outputs = {
        "Group": {"Value": {"Fn::GetAtt": ["Launched", "Outputs.Name"]}},
        "Versions": {"Value": {"Fn::GetAtt": ["Product", "ProvisioningArtifactNames"]}},
    }
    return stack(resources, Outputs=outputs)


@pytest.mark.control("SSV-01")
def test_a_catalog_is_a_stack(account: Account, neighbour: Account) -> None:
    catalog, stacks = Catalog(account), Stacks(account)
    large = template(Description="again", Metadata={"Notes": "more than a request of CloudFormation may have" * 2000})
    urls = [catalog.url(template()), catalog.url(large)]
    told = stacks.create("catalog", _catalog(urls[:1], "small", neighbour.id))
    assert told["StackStatus"] == "CREATE_COMPLETE", stacks.story("catalog")
    assert stacks.outputs("catalog") == {"Group": "from-stack", "Versions": "v1"}
    sagemaker = account.client("sagemaker")

    def size() -> dict[str, str]:
        arn = sagemaker.describe_model_package_group(ModelPackageGroupName="from-stack")["ModelPackageGroupArn"]
        return {one["Key"]: one["Value"] for one in sagemaker.list_tags(ResourceArn=arn)["Tags"]}

    assert (size()["size"], size()["environment"]) == ("small", "dev")
    told = stacks.update("catalog", _catalog(urls, "large", neighbour.id))
    assert told["StackStatus"] == "UPDATE_COMPLETE", stacks.story("catalog")
    assert stacks.outputs("catalog")["Versions"] == "v1,v2"
    assert size()["size"] == "large"
    [share] = account.client("servicecatalog").describe_portfolio_shares(
        PortfolioId=stacks.physical("catalog")["Shared"], Type="ACCOUNT"
    )["PortfolioShareDetails"]
    assert (share["PrincipalId"], share["Accepted"]) == (neighbour.id, False)
    assert stacks.delete("catalog")["StackStatus"] == "DELETE_COMPLETE", stacks.story("catalog")
    assert not catalog.client.list_portfolios()["PortfolioDetails"]
    assert not catalog.client.search_products_as_admin()["ProductViewDetails"]
    assert not sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]


def test_a_constraint_that_is_none_stops_a_stack(account: Account) -> None:
    stacks = Stacks(account)
    portfolio = {"Type": "AWS::ServiceCatalog::Portfolio", "Properties": {"DisplayName": "P", "ProviderName": "Us"}}
    bad = {
        "Type": "AWS::ServiceCatalog::LaunchRoleConstraint",
        "Properties": {"PortfolioId": _ref("P"), "ProductId": "prod-abcdefghijklm", "LocalRoleName": "Launch"},
    }
    told = stacks.create("bad", stack({"P": portfolio, "C": bad}))
    assert told["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("not found" in reason for _, status, reason in stacks.story("bad") if status == "CREATE_FAILED")
    assert not account.client("servicecatalog").list_portfolios()["PortfolioDetails"]
