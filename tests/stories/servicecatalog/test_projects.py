"""Projects of SageMaker: products of the catalog, launched by its launch role, with the project's name and id."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.cloudformation.stacks import Stacks
from tests.stories.cloudformation.stacks import template as stack
from tests.stories.servicecatalog.catalog import Catalog, project_template
from tests.waiting import until

ROLE = "AmazonSageMakerServiceCatalogProductsLaunchRole"


def _settled(client: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: (
            None
            if (told := client.describe_project(ProjectName=name))["ProjectStatus"].endswith("InProgress")
            else told
        )
    )
    return found


def test_a_project_is_a_product_that_the_launch_role_makes(account: Account) -> None:
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, version = catalog.product(project_template(), portfolio)
    catalog.launch_role(ROLE)
    catalog.constrain(portfolio, product, "LAUNCH", {"LocalRoleName": ROLE})
    details = {
        "ProductId": product,
        "ProvisioningParameters": [{"Key": "Name", "Value": "churn-models"}],
    }
    account.role("Engineer", allow("sagemaker:*Project*", "sagemaker:AddTags", "servicecatalog:*"))
    client = account.client("sagemaker", account.as_role("Engineer"))
    given = {"ProjectName": "churn", "ServiceCatalogProvisioningDetails": details}
    with pytest.raises(ClientError, match="not found"):  # the portfolio is not for them yet
        client.create_project(**given)
    assert not client.list_projects()["ProjectSummaryList"]
    for name in ("Engineer", "OrganizationAccountAccessRole", "Half"):
        if name == "Half":
            account.role(name, allow("sagemaker:*Project*", "servicecatalog:Describe*"))
        catalog.principal(portfolio, f"arn:aws:iam::{account.id}:role/{name}")
    half = account.client("sagemaker", account.as_role("Half"))
    with pytest.raises(ClientError, match="servicecatalog:ProvisionProduct"):
        half.create_project(**given)
    made = client.create_project(**given, Tags=[{"Key": "dept", "Value": "risk"}])
    told = _settled(client, "churn")
    assert told["ProjectStatus"] == "CreateCompleted", told
    assert told["ServiceCatalogProvisioningDetails"]["ProvisioningArtifactId"] == version
    sagemaker = account.client("sagemaker")
    group = sagemaker.describe_model_package_group(ModelPackageGroupName="churn-models")
    tags = {one["Key"]: one["Value"] for one in sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]}
    assert (tags["SageMakerProjectName"], tags["SageMakerProjectId"]) == ("churn", made["ProjectId"])
    assert (tags["sagemaker:project-name"], tags["dept"]) == ("churn", "risk")
    assert sagemaker.list_tags(ResourceArn=made["ProjectArn"])["Tags"] == [{"Key": "dept", "Value": "risk"}]
    with pytest.raises(ClientError, match="already exists"):
        client.create_project(**given)
    update = {"ProvisioningParameters": [{"Key": "Size", "Value": "large"}]}
    client.update_project(ProjectName="churn", ServiceCatalogProvisioningUpdateDetails=update)
    assert _settled(client, "churn")["ProjectStatus"] == "UpdateCompleted"
    client.delete_project(ProjectName="churn")
    with pytest.raises(ClientError, match="does not exist"):
        _settled(client, "churn")
    assert not sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]

    # The same by a stack; and one that fails says why.
    stacks = Stacks(account)
    body = {"Type": "AWS::SageMaker::Project", "Properties": given}
    assert stacks.create("project", stack({"P": body}))["StackStatus"] == "CREATE_COMPLETE", stacks.story("project")
    client.create_project(**given | {"ProjectName": "again"})  # its group is there already
    told = _settled(client, "again")
    assert told["ProjectStatus"] == "CreateFailed"
    assert "churn-models" in told["ServiceCatalogProvisionedProductDetails"]["ProvisionedProductStatusMessage"]
    assert stacks.delete("project")["StackStatus"] == "DELETE_COMPLETE", stacks.story("project")
