"""A catalog that one account keeps and others launch from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, Running, allow
from tests.stories.servicecatalog.catalog import LAUNCH, SERVICE, USER, Catalog, Person, template


def _launch_role(account: Account) -> None:
    account.role("Launch", allow(*LAUNCH, "sagemaker:*ModelPackageGroup*", "sagemaker:*Tags"), trust=SERVICE)


@pytest.mark.control("ACC-03")
def test_a_portfolio_is_shared_and_accepted(platform: Running, account: Account, neighbour: Account) -> None:
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, version = catalog.product(template(), portfolio)
    catalog.constrain(portfolio, product, "LAUNCH", {"LocalRoleName": "Launch"})
    _launch_role(neighbour)
    scientist = neighbour.role("Scientist", USER)
    theirs = neighbour.client("servicecatalog")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        theirs.describe_product_as_admin(Id=product)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        theirs.accept_portfolio_share(PortfolioId=portfolio)

    catalog.client.create_portfolio_share(PortfolioId=portfolio, AccountId=neighbour.id)
    assert catalog.client.list_portfolio_access(PortfolioId=portfolio)["AccountIds"] == [neighbour.id]
    [share] = catalog.client.describe_portfolio_shares(PortfolioId=portfolio, Type="ACCOUNT")["PortfolioShareDetails"]
    assert not share["Accepted"]
    # It counts once it was accepted.
    given = {"PortfolioId": portfolio, "PrincipalARN": scientist, "PrincipalType": "IAM"}
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        theirs.associate_principal_with_portfolio(**given)
    theirs.accept_portfolio_share(PortfolioId=portfolio)
    [found] = theirs.list_accepted_portfolio_shares()["PortfolioDetails"]
    assert found["Id"] == portfolio
    theirs.associate_principal_with_portfolio(**given)

    person = Person(neighbour, neighbour.as_role("Scientist"))
    assert [one["ProductId"] for one in person.client.search_products()["ProductViewSummaries"]] == [product]
    for refused in (
        lambda: theirs.update_product(Id=product, Name="mine"),
        lambda: theirs.create_constraint(
            PortfolioId=portfolio, ProductId=product, Type="NOTIFICATION", Parameters='{"NotificationArns": []}'
        ),
        lambda: theirs.delete_portfolio(Id=portfolio),
        lambda: theirs.create_portfolio_share(PortfolioId=portfolio, AccountId=account.id),
    ):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            refused()
    neighbour.role("Reader", allow("servicecatalog:Search*", "servicecatalog:Describe*"))
    reader = neighbour.client("servicecatalog", neighbour.as_role("Reader"))
    for refused in (
        lambda: reader.update_product(Id=product, Name="mine"),
        lambda: reader.create_product(
            Name="n", Owner="o", ProductType="CLOUD_FORMATION_TEMPLATE",
            ProvisioningArtifactParameters={"Info": {"LoadTemplateFromURL": "https://b.s3.amazonaws.com/k"}},
        ),
    ):  # fmt: skip
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    told = person.provision(product, version, "risk")
    assert told["RecordDetail"]["Status"] == "SUCCEEDED", told
    assert neighbour.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert not account.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]

    # A local portfolio takes the product over, with the constraints that bind it.
    local = theirs.create_portfolio(DisplayName="Local", ProviderName="Us")["PortfolioDetail"]["Id"]
    theirs.associate_product_with_portfolio(ProductId=product, PortfolioId=local, SourcePortfolioId=portfolio)
    neighbour.role("Other", USER)
    theirs.associate_principal_with_portfolio(
        PortfolioId=local, PrincipalARN="arn:aws:iam:::role/Oth?r", PrincipalType="IAM_PATTERN"
    )
    other = Person(neighbour, neighbour.as_role("Other"))
    [way] = other.client.list_launch_paths(ProductId=product)["LaunchPathSummaries"]
    assert [one["Type"] for one in way["ConstraintSummaries"]] == ["LAUNCH"]
    with pytest.raises(ClientError, match="shared"):
        theirs.create_portfolio_share(PortfolioId=local, AccountId=account.id)

    catalog.client.delete_portfolio_share(PortfolioId=portfolio, AccountId=neighbour.id)
    for one in (person, other):
        assert not one.client.search_products()["ProductViewSummaries"]
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            one.provision(product, version, "again")
    # What is there stays, and can be taken away.
    asked = person.client.terminate_provisioned_product(ProvisionedProductName="risk")
    assert person.settled(asked["RecordDetail"]["RecordId"])["RecordDetail"]["Status"] == "SUCCEEDED"


def test_a_launch_role_of_the_sharing_account_launches_nothing_elsewhere(account: Account, neighbour: Account) -> None:
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, version = catalog.product(template(), portfolio)
    catalog.constrain(portfolio, product, "LAUNCH", {"RoleArn": catalog.launch_role()})
    catalog.client.create_portfolio_share(PortfolioId=portfolio, AccountId=neighbour.id, SharePrincipals=True)
    catalog.principal(portfolio, "arn:aws:iam:::role/Scientist", "IAM_PATTERN")
    neighbour.client("servicecatalog").accept_portfolio_share(PortfolioId=portfolio)
    neighbour.role("Scientist", USER)
    with pytest.raises(ClientError, match="LocalRoleName"):
        Person(neighbour, neighbour.as_role("Scientist")).provision(product, version, "risk")


@pytest.mark.control("ACC-03")
def test_a_delegated_account_shares_with_a_unit(platform: Running, account: Account, neighbour: Account) -> None:
    catalog = Catalog(account)
    portfolio = catalog.portfolio()
    product, _ = catalog.product(template(), portfolio)
    organizations = platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    unit = organizations.create_organizational_unit(ParentId=root, Name=f"u-{account.id}")["OrganizationalUnit"]["Id"]
    node = {"PortfolioId": portfolio, "OrganizationNode": {"Type": "ORGANIZATIONAL_UNIT", "Value": unit}}
    with pytest.raises(ClientError, match="OperationNotSupportedException"):
        catalog.client.create_portfolio_share(**node)
    platform.client("servicecatalog").enable_aws_organizations_access()
    organizations.register_delegated_administrator(
        AccountId=account.id, ServicePrincipal="servicecatalog.amazonaws.com"
    )
    token = catalog.client.create_portfolio_share(**node, SharePrincipals=True)["PortfolioShareToken"]
    assert catalog.client.describe_portfolio_share_status(PortfolioShareToken=token)["Status"] == "COMPLETED"
    catalog.principal(portfolio, "arn:aws:iam:::role/Scientist", "IAM_PATTERN")
    neighbour.role("Scientist", USER)
    person = Person(neighbour, neighbour.as_role("Scientist"))
    assert not person.client.search_products()["ProductViewSummaries"]
    organizations.move_account(AccountId=neighbour.id, SourceParentId=root, DestinationParentId=unit)
    assert [one["ProductId"] for one in person.client.search_products()["ProductViewSummaries"]] == [product]
    organizations.deregister_delegated_administrator(
        AccountId=account.id, ServicePrincipal="servicecatalog.amazonaws.com"
    )


def test_with_the_command_line(platform: Running, account: Account) -> None:
    def aws(*arguments: str) -> dict[str, object]:
        environment = {
            **os.environ, "AWS_ACCESS_KEY_ID": account.keys.access_key, "AWS_SECRET_ACCESS_KEY": account.keys.secret,
            "AWS_SESSION_TOKEN": str(account.keys.token), "AWS_ENDPOINT_URL": platform.url,
            "AWS_CA_BUNDLE": platform.authority, "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "",
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).with_name("aws")), "servicecatalog", *arguments, "--output", "json"],
            env=environment,
            capture_output=True,
            check=True,
        )
        found: dict[str, object] = json.loads(done.stdout or b"{}")
        return found

    made = aws("create-portfolio", "--display-name", "CLI", "--provider-name", "Us", "--tags", "Key=a,Value=b")
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    [found] = aws("list-portfolios")["PortfolioDetails"]  # type: ignore[misc]
    assert found["DisplayName"] == "CLI"
