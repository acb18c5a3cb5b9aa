"""The service catalogue: what data scientists may launch though they may not make it."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from bastide.landing.blueprint import DATA, Blueprint
from bastide.landing.words import camel, filled, words

Template = dict[str, Any]
PRODUCTS: Final = ("experiment-bucket",)
_BUCKET: Final = "<NAME>-products-${SharedServicesAccount}"


def _body(name: str, blueprint: Blueprint) -> str:
    text = (DATA / "products" / f"{name}.yaml").read_text()
    return re.sub("<NAME>", blueprint.name, text)


def _key(name: str, blueprint: Blueprint) -> str:
    """Where a product's template lies: by its content, so that another one is another version."""
    return f"{name}-{hashlib.sha256(_body(name, blueprint).encode()).hexdigest()[:16]}.yaml"


def uploads(blueprint: Blueprint) -> dict[tuple[str, str], str]:
    """The products' templates, by bucket and key, which are there before the products."""
    bucket = str(filled(_BUCKET, words(blueprint)))
    return {(bucket, _key(name, blueprint)): _body(name, blueprint) for name in PRODUCTS}


def portfolio(blueprint: Blueprint) -> Template:
    """In Shared Services: products, offered to Data Science, launched there by a role of that account."""
    made: Template = {
        "Portfolio": {
            "Type": "AWS::ServiceCatalog::Portfolio",
            "Properties": {"DisplayName": f"{blueprint.name}-data-science", "ProviderName": blueprint.name},
        },
        "Share": {
            "Type": "AWS::ServiceCatalog::PortfolioShare",
            "Properties": {"PortfolioId": {"Ref": "Portfolio"}, "AccountId": {"Ref": "DataScienceAccount"}},
        },
    }
    for name in PRODUCTS:
        word, key = camel(name), _key(name, blueprint)
        url = f"https://{_BUCKET}.s3.<HOME>.amazonaws.com/{key}"
        made[word] = {
            "Type": "AWS::ServiceCatalog::CloudFormationProduct",
            "Properties": {
                "Name": name,
                "Owner": blueprint.name,
                "ProvisioningArtifactParameters": [{"Name": key[-21:-5], "Info": {"LoadTemplateFromURL": url}}],
            },
        }
        made[f"{word}In"] = {
            "Type": "AWS::ServiceCatalog::PortfolioProductAssociation",
            "Properties": {"PortfolioId": {"Ref": "Portfolio"}, "ProductId": {"Ref": word}},
        }
        made[f"{word}Launch"] = {
            "Type": "AWS::ServiceCatalog::LaunchRoleConstraint",
            "DependsOn": [f"{word}In"],
            "Properties": {
                "PortfolioId": {"Ref": "Portfolio"},
                "ProductId": {"Ref": word},
                "LocalRoleName": "<NAME>-LaunchRole",
            },
        }
    outputs = {"Portfolio": {"Value": {"Ref": "Portfolio"}}}
    found: Template = filled({"Resources": made, "Outputs": outputs}, words(blueprint))
    return found


def accepted(blueprint: Blueprint) -> Template:
    """In Data Science: the offer, and whose it is."""
    people = "arn:aws:iam:::role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_DataScientist-*"
    return {
        "Resources": {
            "Accepted": {
                "Type": "AWS::ServiceCatalog::AcceptedPortfolioShare",
                "Properties": {"PortfolioId": {"Ref": "Portfolio"}},
            },
            "Scientists": {
                "Type": "AWS::ServiceCatalog::PortfolioPrincipalAssociation",
                "DependsOn": ["Accepted"],
                "Properties": {
                    "PortfolioId": {"Ref": "Portfolio"},
                    "PrincipalARN": people,
                    "PrincipalType": "IAM_PATTERN",
                },
            },
        }
    }
