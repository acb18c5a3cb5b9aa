"""What leads from a commit to production: repositories of code and packages, builds, and the two pipelines of each team."""

from __future__ import annotations

from typing import Any, Final

from bastide.landing import imagery
from bastide.landing.blueprint import DATA, Blueprint, Team
from bastide.landing.guardrails import document
from bastide.landing.resources import policies
from bastide.landing.words import camel, filled, words

Template = dict[str, Any]


_EXAMPLE: Final = ("train.yaml", "train.json", "serve.yaml", "serve.json")


def example(blueprint: Blueprint, team: Team) -> dict[str, str]:
    """What a team may commit first: the stacks of its two pipelines, and their tags."""
    given = {
        "NAME": blueprint.name,
        "TEAM": team.name,
        "PROJECT": team.project,
        "MODEL": next(iter(team.models), "none"),
    }
    found = {}
    for name in _EXAMPLE:
        text = (DATA / "example" / name).read_text()
        for word, value in given.items():
            text = text.replace(f"<{word}>", value)
        found[name] = text
    return found


def delivery(blueprint: Blueprint) -> Template:
    """What stands in Shared Services once roles, keys and the artifact bucket are there."""
    made: Template = {"Resources": {}}
    if "packages" in blueprint.delivery:
        made["Resources"] |= _packages(blueprint)
    for team in blueprint.teams:
        if "code" in blueprint.delivery:
            made["Resources"] |= _code(blueprint, team)
        if "builds" in blueprint.delivery:
            made["Resources"] |= _builds(blueprint, team)
        if "pipelines" in blueprint.delivery:
            made["Resources"] |= _pipelines(blueprint, team)
    found: Template = filled(made, words(blueprint))
    return found


def _packages(blueprint: Blueprint) -> Template:
    """One index for all: packages of one's own before those of the public, which come by way of a store of their own."""
    [(_, _, domain)] = policies(blueprint, "domain")
    [(_, _, index)] = policies(blueprint, "index")
    name = {"Fn::GetAtt": ["PackageDomain", "Name"]}
    made: Template = {
        "PackageDomain": {
            "Type": "AWS::CodeArtifact::Domain",
            "Properties": {"DomainName": blueprint.name, "PermissionsPolicyDocument": document(domain["statements"])},
        },
        "Packages": {
            "Type": "AWS::CodeArtifact::Repository",
            "Properties": {
                "DomainName": name,
                "RepositoryName": "pypi",
                "Description": "What everybody installs from",
                "PermissionsPolicyDocument": document(index["statements"]),
            },
        },
    }
    if "public-packages" in blueprint.delivery:
        made["PublicPackages"] = {
            "Type": "AWS::CodeArtifact::Repository",
            "Properties": {
                "DomainName": name,
                "RepositoryName": "public",
                "Description": "What comes from outside",
                "ExternalConnections": ["public:pypi"],
            },
        }
        made["Packages"]["Properties"]["Upstreams"] = [{"Fn::GetAtt": ["PublicPackages", "Name"]}]
    return made


def _code(blueprint: Blueprint, team: Team) -> Template:
    return {
        f"Code{camel(team.name)}": {
            "Type": "AWS::CodeCommit::Repository",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "RepositoryName": f"{blueprint.name}-{team.name}",
                "RepositoryDescription": f"Code of {team.name}",
                "Tags": team.tags,
            },
        }
    }


def _builds(blueprint: Blueprint, team: Team) -> Template:
    role = f"arn:aws:iam::${{SharedServicesAccount}}:role/service-role/{blueprint.name}-BuildRole-{team.name}"
    return {
        f"Build{camel(team.name)}": {
            "Type": "AWS::CodeBuild::Project",
            "Properties": {
                "Name": f"{blueprint.name}-{team.name}",
                "Description": f"Builds and tests of {team.name}; its pipelines start them",
                "ServiceRole": role,
                "EncryptionKey": "${ArtifactKeyArn}",
                "Source": {"Type": "CODEPIPELINE", "BuildSpec": "buildspec.yaml"},
                "Artifacts": {"Type": "CODEPIPELINE"},
                "Environment": {
                    "Type": "LINUX_CONTAINER",
                    "ComputeType": "BUILD_GENERAL1_SMALL",
                    "Image": "aws/codebuild/standard:7.0",
                },
                "TimeoutInMinutes": 60,
                "Tags": team.tags,
            },
        }
    }


# -- pipelines -----------------------------------------------------------------------------------------------------------


def _action(
    name: str, category: str, provider: str, order: int, configuration: dict[str, Any], **more: Any
) -> dict[str, Any]:
    kind = {"Category": category, "Owner": "AWS", "Provider": provider, "Version": "1"}
    return {"Name": name, "ActionTypeId": kind, "RunOrder": order, "Configuration": configuration, **more}


def _source(blueprint: Blueprint, team: Team) -> dict[str, Any]:
    given = {"RepositoryName": f"{blueprint.name}-{team.name}", "BranchName": "main", "PollForSourceChanges": "false"}
    made = {"Namespace": "SourceVariables", "OutputArtifacts": [{"Name": "Source"}]}
    return {"Name": "Source", "Actions": [_action("Source", "Source", "CodeCommit", 1, given, **made)]}


def _stack(account: str, stack: str, template: str, role: str, **more: Any) -> dict[str, Any]:
    """Launches a template of the source in another account: the role acts there, the stack role makes what it says."""
    given = {
        "ActionMode": "CREATE_UPDATE",
        "StackName": stack,
        "TemplatePath": f"Source::{template}.yaml",
        "TemplateConfiguration": f"Source::{template}.json",
        "RoleArn": f"arn:aws:iam::${{{account}}}:role/<NAME>/StackRole",
    }
    acting = {"RoleArn": f"arn:aws:iam::${{{account}}}:role/<NAME>/{role}", "InputArtifacts": [{"Name": "Source"}]}
    return _action("Stack", "Deploy", "CloudFormation", 1, given, **acting, **more)


def _pipelines(blueprint: Blueprint, team: Team) -> Template:
    name, word = f"{blueprint.name}-{team.name}", camel(team.name)
    stages: list[dict[str, Any]] = [_source(blueprint, team)]
    if "builds" in blueprint.delivery:
        build = {"InputArtifacts": [{"Name": "Source"}], "OutputArtifacts": [{"Name": "Built"}]}
        made = _action("Build", "Build", "CodeBuild", 1, {"ProjectName": {"Ref": f"Build{word}"}}, **build)
        stages.append({"Name": "Build", "Actions": [made]})
    train = _stack(
        "TestAccount", f"{blueprint.name}-train-{team.name}", "train", "CrossAccountRoleB", Namespace="train"
    )
    machine = f"arn:aws:states:<HOME>:${{TestAccount}}:stateMachine:{blueprint.name}-train-{team.name}"
    started = {
        "StateMachineArn": machine,
        "InputType": "Literal",
        "Input": '{"commit": "#{SourceVariables.CommitId}"}',
    }
    role = {"RoleArn": "arn:aws:iam::${TestAccount}:role/<NAME>/CrossAccountRoleB"}
    run = _action("Train", "Invoke", "StepFunctions", 2, started, **role, InputArtifacts=[{"Name": "Source"}])
    stages.append({"Name": "Train", "Actions": [train, run]})
    asked = {"NotificationArn": "arn:aws:sns:<HOME>:${SharedServicesAccount}:<NAME>-release-approval"}
    asked["CustomData"] = f"May {team.name} go to production?"
    serve = _stack("ProductionAccount", f"{blueprint.name}-serve-{team.name}", "serve", "CrossAccountRoleC")
    serve["Configuration"]["ParameterOverrides"] = '{"ModelPackage": "#{variables.ModelPackage}"}'
    signed = [imagery.signature(1)] if "images" in blueprint.delivery else []
    serve["RunOrder"] = len(signed) + 1
    release = [
        _source(blueprint, team),
        {"Name": "Approve", "Actions": [_action("Release", "Approval", "Manual", 1, asked)]},
        {"Name": "Deploy", "Actions": [*signed, serve]},
    ]
    starter = "arn:aws:iam::${SharedServicesAccount}:role/<NAME>/PipelineStarter"
    training = f"arn:aws:codepipeline:<HOME>:${{SharedServicesAccount}}:{name}-training"
    return {
        f"Training{word}": _pipeline(f"{name}-training", "CodePipelineRoleA", stages, team),
        f"Deployment{word}": _pipeline(f"{name}-deployment", "CodePipelineRoleA2", release, team, "ModelPackage"),
        f"Push{word}": {
            "Type": "AWS::Events::Rule",
            "DependsOn": [f"Training{word}"],
            "Properties": {
                "Name": f"{name}-push",
                "Description": f"A commit on main of {team.name} starts its training",
                "EventPattern": {
                    "source": ["aws.codecommit"],
                    "detail-type": ["CodeCommit Repository State Change"],
                    "resources": [f"arn:aws:codecommit:<HOME>:${{SharedServicesAccount}}:{name}"],
                    "detail": {"event": ["referenceCreated", "referenceUpdated"], "referenceName": ["main"]},
                },
                "Targets": [{"Id": "training", "Arn": training, "RoleArn": starter}],
            },
        },
    }


def _pipeline(name: str, role: str, stages: list[dict[str, Any]], team: Team, *variables: str) -> dict[str, Any]:
    asked = [{"Name": one, "DefaultValue": "none", "Description": "To be given"} for one in variables]
    return {
        "Type": "AWS::CodePipeline::Pipeline",
        "Properties": {
            "Name": name,
            "PipelineType": "V2",
            "RoleArn": f"arn:aws:iam::${{SharedServicesAccount}}:role/service-role/<NAME>-{role}",
            "ArtifactStore": {
                "Type": "S3",
                "Location": "<ARTIFACTS>",
                "EncryptionKey": {"Id": "${ArtifactKeyArn}", "Type": "KMS"},
            },
            "Stages": stages,
            **({"Variables": asked} if asked else {}),
            "Tags": team.tags,
        },
    }
