"""A catalog, as tests ask for it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.platform import Account, Keys, allow
from tests.waiting import until

SERVICE = {"Service": "servicecatalog.amazonaws.com"}
LAUNCH = (
    "cloudformation:CreateStack", "cloudformation:UpdateStack", "cloudformation:DeleteStack",
    "cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents", "cloudformation:TagResource",
    "cloudformation:*ChangeSet",
)  # fmt: skip
"""What every launch role needs (Administrator Guide, "Launch Constraints")."""
USER = allow("servicecatalog:*", "sts:GetCallerIdentity")


def template(**more: Any) -> str:
    """A group of models, named, with an owner: what a data scientist may not make."""
    properties = {"ModelPackageGroupName": {"Ref": "Name"}, "Tags": [{"Key": "size", "Value": {"Ref": "Size"}}]}
    return json.dumps(
        {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": "A group of models",
            "Parameters": {
                "Name": {"Type": "String", "AllowedPattern": "[a-z0-9-]+"},
                "Size": {"Type": "String", "AllowedValues": ["small", "large"], "Default": "small"},
            },
            "Resources": {"Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": properties}},
            "Outputs": {"Name": {"Value": {"Ref": "Name"}, "Description": "The group"}},
            **more,
        }
    )


def project_template() -> str:
    """The same as SageMaker's projects launch it: with the project's name and id."""
    body = json.loads(template())
    names = ("SageMakerProjectName", "SageMakerProjectId")
    body["Parameters"] |= {name: {"Type": "String"} for name in names}
    tags = [{"Key": name, "Value": {"Ref": name}} for name in names]
    body["Resources"]["Group"]["Properties"]["Tags"] = tags
    return json.dumps(body)


@dataclass
class Catalog:
    """The administrator's side of one account's catalog."""

    account: Account
    bucket: str = field(default_factory=lambda: f"templates-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.client = self.account.client("servicecatalog")
        self.account.client("s3").create_bucket(Bucket=self.bucket)

    def url(self, body: str) -> str:
        """Where a template lies."""
        key = f"{uuid.uuid4().hex}.json"
        self.account.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body.encode())
        return f"https://{self.bucket}.s3.us-east-1.amazonaws.com/{key}"

    def portfolio(self, name: str = "ML", **more: Any) -> str:
        """A portfolio's id."""
        told = self.client.create_portfolio(DisplayName=name, ProviderName="Platform", **more)
        id: str = told["PortfolioDetail"]["Id"]
        return id

    def product(self, body: str, *portfolios: str, name: str = "models", **more: Any) -> tuple[str, str]:
        """A product and its version, in portfolios."""
        told = self.client.create_product(
            Name=name, Owner="Platform", ProductType="CLOUD_FORMATION_TEMPLATE",
            ProvisioningArtifactParameters={"Name": "v1", "Info": {"LoadTemplateFromURL": self.url(body)}}, **more,
        )  # fmt: skip
        id = told["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
        for one in portfolios:
            self.client.associate_product_with_portfolio(ProductId=id, PortfolioId=one)
        return id, told["ProvisioningArtifactDetail"]["Id"]

    def version(self, product: str, body: str, name: str = "v2") -> str:
        """Another version."""
        told = self.client.create_provisioning_artifact(
            ProductId=product, Parameters={"Name": name, "Info": {"LoadTemplateFromURL": self.url(body)}}
        )
        id: str = told["ProvisioningArtifactDetail"]["Id"]
        return id

    def constrain(self, portfolio: str, product: str, type: str, parameters: Any) -> str:
        """A constraint's id."""
        told = self.client.create_constraint(
            PortfolioId=portfolio, ProductId=product, Type=type, Parameters=json.dumps(parameters)
        )
        id: str = told["ConstraintDetail"]["ConstraintId"]
        return id

    def launch_role(self, name: str = "Launch", *more: str) -> str:
        """A role that may make groups of models, and that the catalog may take on."""
        policy = allow(*LAUNCH, "sagemaker:*ModelPackageGroup*", "sagemaker:*Tags", *more)
        return self.account.role(name, policy, trust=SERVICE)

    def principal(self, portfolio: str, arn: str, type: str = "IAM") -> None:
        """Lets a principal use a portfolio."""
        self.client.associate_principal_with_portfolio(PortfolioId=portfolio, PrincipalARN=arn, PrincipalType=type)


@dataclass
class Person:
    """The end user's side."""

    account: Account
    keys: Keys

    def __post_init__(self) -> None:
        self.client = self.account.client("servicecatalog", self.keys)

    def provision(self, product: str, version: str, name: str, **more: Any) -> dict[str, Any]:
        """The record of a launch, settled."""
        given = {"ProvisioningParameters": [{"Key": "Name", "Value": name}], **more}
        told = self.client.provision_product(
            ProductId=product, ProvisioningArtifactId=version, ProvisionedProductName=name, **given
        )
        return self.settled(told["RecordDetail"]["RecordId"])

    def settled(self, record: str) -> dict[str, Any]:
        """A record that nothing happens to any more."""
        found: dict[str, Any] = until(
            lambda: (
                told
                if (told := self.client.describe_record(Id=record))["RecordDetail"]["Status"] in ("SUCCEEDED", "FAILED")
                else None
            )
        )
        return found
