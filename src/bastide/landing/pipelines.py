"""Pipelines as products: MLOps engineers launch them in Shared Services, though none of them may make a pipeline.

A product's template is written in `data/pipelines`: what is its own in a file of its name, what all pipelines have (the
triggers) in `common.yaml`. A role of the account launches it, and gives it roles that stand already.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from bastide.landing import imagery
from bastide.landing.blueprint import Blueprint
from bastide.landing.words import camel, filled, source, templated, words

Template = dict[str, Any]
IMAGES: Final = "image-pipeline"
"""Only where the landing zone has images."""
PIPELINES: Final = ("end-to-end-pipeline", "training-pipeline", "registration-pipeline", "deployment-pipeline", IMAGES)
TICKETS: Final = "release-tickets"
PRODUCTS: Final = (*PIPELINES, TICKETS)
_BUCKET: Final = "<NAME>-products-${SharedServicesAccount}"
_TOLD: Final = {
    "artifact-key": "ArtifactKeyArn",
    "image-key": "ModelKeyArn",
    "test": "TestAccount",
    "production": "ProductionAccount",
}
"""What templates look up below ``/NAME/pipelines/``, by what the landing zone calls it."""
_SOURCE: Final = {
    "Name": "Source",
    "Actions": [
        {
            "Name": "Source",
            "ActionTypeId": {"Category": "Source", "Owner": "AWS", "Provider": "CodeCommit", "Version": "1"},
            "RunOrder": 1,
            "Namespace": "SourceVariables",
            "OutputArtifacts": [{"Name": "Source"}],
            "Configuration": {
                "RepositoryName": "${Repository}", "BranchName": "${Branch}", "PollForSourceChanges": "false",
            },
        }
    ],
}  # fmt: skip


def offered(blueprint: Blueprint) -> bool:
    """Whether the landing zone has them."""
    return {"products", "pipelines"} <= set(blueprint.delivery)


def template(name: str, blueprint: Blueprint) -> Template:
    """A product's template, as it lies in the catalogue."""
    common, own = source("pipelines/common"), source(f"pipelines/{name}")
    models = tuple(model for team in blueprint.teams for model in team.models) or ("none",)
    teams = tuple(team.name for team in blueprint.teams if team.images) or ("none",)
    given = {
        **words(blueprint), "PIPELINE": name.removesuffix("-pipeline"), "GROUPS": models, "FIRST_GROUP": models[0],
        "TEAMS": teams, "FIRST_TEAM": teams[0],
    }  # fmt: skip
    parts = {
        "<TAGS>": common["Resources"]["Pipeline"]["Properties"]["Tags"],
        "<TRAIN>": source("pipelines/training-pipeline")["Stages"][0]["Actions"],
        "<TRAIN_WITH_IMAGE>": _with_image(source("pipelines/training-pipeline")["Stages"][0]["Actions"]),
        "<STEPS>": imagery.steps(blueprint),
        "<SIGNATURE>": imagery.signature(1) if "images" in blueprint.delivery else None,
    }
    made: Template = {}
    for section in ("Parameters", "Conditions", "Resources", "Outputs"):
        shared = common.get(section, {}) if name in PIPELINES else {}
        if found := {**shared, **own.get(section, {})}:
            made[section] = found
    if name in PIPELINES:
        pipeline = made["Resources"]["Pipeline"]
        role = f"arn:aws:iam::${{AWS::AccountId}}:role/service-role/<NAME>-{own['Role']}"
        own = _put(own, parts)
        more = {key: own[key] for key in ("Variables",) if key in own}
        more |= {"ArtifactStore": own["Store"]} if "Store" in own else {}
        properties = {**pipeline["Properties"], "RoleArn": role, "Stages": [_SOURCE, *own["Stages"]], **more}
        made["Resources"] = {**made["Resources"], "Pipeline": {**pipeline, "Properties": properties}}
        if "Store" in own:
            made["Parameters"] = {key: one for key, one in made["Parameters"].items() if key != "ArtifactKey"}
    told = templated(filled(_put(made, parts), given))
    return {"AWSTemplateFormatVersion": "2010-09-09", "Description": own["Description"], **told}


def _with_image(actions: list[Template]) -> list[Template]:
    """The actions that train: with the image that the run has had built, if it has."""
    stack, *others = actions
    given = stack["Configuration"]["ParameterOverrides"]
    tag = "#{SourceVariables.BranchName}-#{SourceVariables.CommitId}"
    image = f"${{AWS::AccountId}}.dkr.ecr.<HOME>.amazonaws.com/${{Image}}:{tag}"
    more = f'{given.removesuffix("}")}, "Image": "{image}"}}'
    configuration = {**stack["Configuration"], "ParameterOverrides": {"Fn::If": ["BuildsImage", more, given]}}
    return [{**stack, "Configuration": configuration}, *others]


def _put(value: Any, parts: dict[str, Any]) -> Any:
    """A tree with whole parts in the place of their names; an item that is None goes."""
    if isinstance(value, dict):
        return {key: _put(one, parts) for key, one in value.items()}
    if isinstance(value, list):
        return [one for each in value if (one := _put(each, parts)) is not None]
    return parts.get(value, value) if isinstance(value, str) else value


def _body(name: str, blueprint: Blueprint) -> str:
    return json.dumps(template(name, blueprint), indent=1)


def _version(name: str, blueprint: Blueprint) -> str:
    """By the template's content, so that another one is another version."""
    return hashlib.sha256(_body(name, blueprint).encode()).hexdigest()[:16]


def uploads(blueprint: Blueprint) -> dict[tuple[str, str], str]:
    """The templates by bucket and key; they are there before the products."""
    bucket = str(filled(_BUCKET, words(blueprint)))
    names = (*_offered(blueprint), TICKETS)
    return {(bucket, f"{name}-{_version(name, blueprint)}.json"): _body(name, blueprint) for name in names}


def _offered(blueprint: Blueprint) -> tuple[str, ...]:
    """The pipelines that there are."""
    return tuple(one for one in PIPELINES if one != IMAGES or "images" in blueprint.delivery)


def portfolio(blueprint: Blueprint) -> Template:
    """In Shared Services: pipelines for MLOps engineers; what takes tickets' answers for model approvers, because whoever
    launches it says whose answers count. A role of the account launches both."""
    made: Template = {}
    for key, value in _TOLD.items():
        made[f"Told{camel(key)}"] = {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Name": f"/<NAME>/pipelines/{key}", "Type": "String", "Value": {"Ref": value}},
        }
    offers = (("pipelines", "MLOps", _offered(blueprint)), ("tickets", "ModelApprover", (TICKETS,)))
    for name, people, products in offers:
        own = {"PortfolioId": {"Ref": camel(name)}}
        pattern = f"arn:aws:iam:::role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_{people}_*"
        made[camel(name)] = {
            "Type": "AWS::ServiceCatalog::Portfolio",
            "Properties": {"DisplayName": f"<NAME>-{name}", "ProviderName": "<NAME>"},
        }
        made[f"{camel(name)}For"] = {
            "Type": "AWS::ServiceCatalog::PortfolioPrincipalAssociation",
            "Properties": {**own, "PrincipalARN": pattern, "PrincipalType": "IAM_PATTERN"},
        }
        for product in products:
            made |= _product(product, own, blueprint)
    found: Template = filled({"Resources": made}, words(blueprint))
    return found


def _product(name: str, portfolio: Template, blueprint: Blueprint) -> Template:
    word, version = camel(name), _version(name, blueprint)
    both = {**portfolio, "ProductId": {"Ref": word}}
    url = f"https://{_BUCKET}.s3.<HOME>.amazonaws.com/{name}-{version}.json"
    return {
        word: {
            "Type": "AWS::ServiceCatalog::CloudFormationProduct",
            "Properties": {
                "Name": name,
                "Owner": "<NAME>",
                "Description": template(name, blueprint)["Description"],
                "ProvisioningArtifactParameters": [{"Name": version, "Info": {"LoadTemplateFromURL": url}}],
            },
        },
        f"{word}In": {"Type": "AWS::ServiceCatalog::PortfolioProductAssociation", "Properties": both},
        f"{word}Launch": {
            "Type": "AWS::ServiceCatalog::LaunchRoleConstraint",
            "DependsOn": [f"{word}In"],
            "Properties": {**both, "LocalRoleName": "<NAME>-PipelineLaunchRole"},
        },
    }
