"""The hierarchy of images: public, base, framework, application; who builds each level, and what rebuilds it.

A base image stands on a public one, a framework on a base, a team's image on either. Each level has a repository of code, a
build project with a role of its own, and pipelines: source, build (which examines before it pushes), scan, after which the
stable tag moves. What is promoted starts the pipelines of what stands on it; teams get it with their next commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from bastide.landing.blueprint import DATA, Blueprint, Image, Team
from bastide.landing.guardrails import document
from bastide.landing.words import camel, filled, source, words

Template = dict[str, Any]
Tags = Sequence[dict[str, str]]
_SHARED: Final = "${SharedServicesAccount}"
REBUILT: Final = "rate(28 days)"
"""How old a base image gets, at most, before it is built anew."""
OLDEST: Final = 30
"""Days after which the rule says that one is too old."""
_RESCANNED: Final = "rate(1 day)"


def central(blueprint: Blueprint) -> Template:
    """Repositories of public images; roles that all pipelines of images share."""
    made: Template = {}
    public = sorted({one.base for one in blueprint.images if one.level == "base"})
    for name in sorted({one.rpartition(":")[0] for one in public}):
        tags = [one.rpartition(":")[2] for one in public if one.rpartition(":")[0] == name]
        made[camel(f"image-{name}")] = _held(blueprint, name, tags, "public", "<DEPLOYING_ROLE>")
    made |= _role("ImagePipeline", "<NAME>-ImagePipelineRole", "codepipeline", "pipeline")
    made |= _role("ImageRescanner", "<NAME>-ImageRescanner", "scheduler", "rescanner")
    made |= _role("Signatures", "<NAME>-SignatureRole", "lambda", "signatures")
    made["Verifier"] = _function("<NAME>-signatures", "Refuses images that no build has signed", "Signatures")
    made |= _role("ImageAges", "<NAME>-ImageAgesRole", "lambda", "ages")
    made["Ages"] = _function("<NAME>-image-ages", "Judges how old images are", "ImageAges")
    made["AgesAsked"] = {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "FunctionName": {"Ref": "Ages"},
            "Action": "lambda:InvokeFunction",
            "Principal": "config.amazonaws.com",
            "SourceAccount": _SHARED,
        },
    }
    bases = [f"{one.repository}:{one.line}" for one in blueprint.images if one.level == "base"]
    made["AgeRule"] = {
        "Type": "AWS::Config::ConfigRule",
        "DependsOn": ["AgesAsked"],
        "Properties": {
            "ConfigRuleName": "<NAME>-image-ages",
            "Description": f"Base images are built anew within {OLDEST} days",
            "InputParameters": {"days": str(OLDEST), "images": " ".join(bases)},
            "Source": {
                "Owner": "CUSTOM_LAMBDA",
                "SourceIdentifier": {"Fn::GetAtt": ["Ages", "Arn"]},
                "SourceDetails": [
                    {
                        "EventSource": "aws.config",
                        "MessageType": "ScheduledNotification",
                        "MaximumExecutionFrequency": "TwentyFour_Hours",
                    }
                ],
            },
        },
    }
    return _finished(blueprint, made)


def level(blueprint: Blueprint, name: str) -> Template:
    """Base or framework: repositories, and what builds, judges and promotes their images."""
    made = _workshop(name)
    for image in blueprint.images:
        if image.level == name:
            made |= _repository(blueprint, image) | _line(blueprint, image)
    return _finished(blueprint, made)


def application(blueprint: Blueprint, team: Team) -> Template:
    """What builds a team's images: on a push, and on nothing else."""
    name = f"<NAME>-{team.name}-images"
    variables = {**_vetted(blueprint), "IMAGES": " ".join(f"{team.name}/{one}" for one in team.images)}
    made = _workshop(team.name, team.tags)
    made["Pipeline"] = _pipeline(name, team.name, variables, ("build", "scan"), team.tags)
    made["Push"] = _rule(f"{name}-push", "A commit starts the build", _commit(team.name), [name])
    return _finished(blueprint, made)


def roles(blueprint: Blueprint) -> Iterator[tuple[str, Template]]:
    """The roles by their logical names: `statements` with what they are for, and what each `cannot` do."""
    held = source("imagery")
    own = {one.level: one.repository for one in reversed(blueprint.images)}
    own |= {team.name: f"{team.name}/{team.images[0]}" for team in blueprint.teams if team.images}
    kinds = [("ImagePipeline", "pipeline", ""), ("ImageRescanner", "rescanner", ""), ("Signatures", "signatures", "")]
    kinds.append(("ImageAges", "ages", ""))
    for logical, kind, level in (*kinds, *((f"Builder{camel(one)}", "builder", one) for one in own)):
        given = {**_words(blueprint), "LEVEL": level, "OWN": own.get(level, "")}
        yield logical, filled({"statements": held[kind], "cannot": held["cannot"][kind]}, given)


def policies(blueprint: Blueprint) -> Iterator[list[Template]]:
    """The statements of each repository's policy, with what they are for."""
    public = sorted({one.base.rpartition(":")[0] for one in blueprint.images if one.level == "base"})
    told = [(name, "public", "<DEPLOYING_ROLE>") for name in public]
    told += [(one.repository, "repository", _writer(one.level)) for one in blueprint.images]
    for name, kind, writer in told:
        found: list[Template] = filled(source("imagery")[kind], {**_words(blueprint), "OWN": name, "WRITER": writer})
        yield found


def _words(blueprint: Blueprint) -> dict[str, Any]:
    return {**words(blueprint), "ECR": f"arn:aws:ecr:<HOME>:{_SHARED}:repository"}


def _vetted(blueprint: Blueprint) -> dict[str, str]:
    """What teams' images may stand on, and what they may not have."""
    return {
        "FROM": " ".join(f"{one.repository}:{one.line}" for one in reversed(blueprint.images)),
        "STOP_AT": " ".join(blueprint.stops["application"]),
        "SIGNING_KEY": f"alias/{blueprint.name}-signing",
    }


def steps(blueprint: Blueprint) -> list[Template]:
    """The stages of a product that builds the image ${Image} of the team ${Team} out of the artifact Source."""
    told = {**_vetted(blueprint), "IMAGES": "${Team}/${Image}"}
    told |= {"BRANCH": "#{SourceVariables.BranchName}", "COMMIT": "#{SourceVariables.CommitId}"}
    made = []
    for step in ("build", "scan"):
        given = [{"name": key, "value": value} for key, value in {**told, "STEP": step}.items()]
        asked = {"ProjectName": "<NAME>-${Team}-images", "EnvironmentVariables": json.dumps(given)}
        bills = {"OutputArtifacts": [{"Name": "Bills"}]} if step == "scan" else {}
        source_ = [{"Name": "Source"}]
        made.append(_stage(step.capitalize(), "Build", "CodeBuild", asked, InputArtifacts=source_, **bills))
    return made


def _finished(blueprint: Blueprint, resources: Template) -> Template:
    """With its words, and the programs, which are taken as they are."""
    found: Template = filled({"Resources": resources}, _words(blueprint))
    for one in found["Resources"].values():
        if one["Type"] == "AWS::CodeBuild::Project":
            one["Properties"]["Source"]["BuildSpec"] = _buildspec()
        elif one["Type"] == "AWS::Lambda::Function":
            name = "ages.py" if one["Properties"]["FunctionName"].endswith("-ages") else "signatures.py"
            one["Properties"]["Code"] = {"ZipFile": program(name)}
    return found


def _tags(level: str) -> list[dict[str, str]]:
    return [{"Key": "team", "Value": level}]


def _writer(level: str) -> str:
    """The role that builds a level's, or a team's, images."""
    return f"service-role/<NAME>-{camel(level)}ImageRole"


def _repository(blueprint: Blueprint, image: Image) -> Template:
    held = _held(blueprint, image.repository, [image.line], "repository", _writer(image.level))
    return {camel(f"image-{image.repository}"): held}


def _held(blueprint: Blueprint, name: str, stable: list[str], policy: str, writer: str) -> Template:
    """A repository in which stable tags move and all others stay; it scans on push."""
    told = filled(document(source("imagery")[policy]), {**words(blueprint), "WRITER": writer})
    filters = [
        {"ImageTagMutabilityExclusionFilterType": "WILDCARD", "ImageTagMutabilityExclusionFilterValue": one}
        for one in stable
    ]
    return {
        "Type": "AWS::ECR::Repository",
        "Properties": {
            "RepositoryName": name,
            "ImageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "ImageTagMutabilityExclusionFilters": filters,
            "ImageScanningConfiguration": {"ScanOnPush": True},
            "EncryptionConfiguration": {"EncryptionType": "KMS", "KmsKey": "${ModelKeyArn}"},
            "RepositoryPolicyText": told,
            "EmptyOnDelete": True,
            "Tags": [{"Key": "CreatedBy", "Value": "SageMaker"}, *_tags(name.partition("/")[0])],
        },
    }


def _role(logical: str, name: str, service: str, policy: str, path: str = "/service-role/", **given: str) -> Template:
    statement = {
        "Sid": "TheService",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": ["sts:AssumeRole"],
        "Condition": {"StringEquals": {"aws:SourceAccount": _SHARED}},
    }
    statements = source("imagery")[policy]
    if given:
        text = json.dumps(statements)
        for word, value in given.items():
            text = text.replace(f"<{word}>", value)
        statements = json.loads(text)
    return {
        logical: {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": name,
                "Path": path,
                "AssumeRolePolicyDocument": document([statement]),
                "Policies": [{"PolicyName": "part", "PolicyDocument": document(statements)}],
            },
        }
    }


def _function(name: str, says: str, role: str) -> Template:
    """A function of this package's program."""
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": name,
            "Description": says,
            "Runtime": "python3.12",
            "Handler": "index.handler",
            "Timeout": 60,
            "Role": {"Fn::GetAtt": [role, "Arn"]},
            "Environment": {
                "Variables": {
                    "REGISTRY": f"{_SHARED}.dkr.ecr.<HOME>.amazonaws.com",
                    "SIGNING_KEY": "${SigningKeyArn}",
                },
            },
            "Tags": _tags("images"),
        },
    }


def signature(order: int) -> Template:
    """The action of a pipeline that refuses a version whose images are not signed."""
    kind = {"Category": "Invoke", "Owner": "AWS", "Provider": "Lambda", "Version": "1"}
    asked = {"FunctionName": "<NAME>-signatures", "UserParameters": "#{variables.ModelPackage}"}
    return {"Name": "Signature", "ActionTypeId": kind, "RunOrder": order, "Configuration": asked}


def _workshop(level: str, tags: Tags = ()) -> Template:
    """Code, role and project of a level or a team. tags: those of a team."""
    name, word = f"<NAME>-{level}-images", camel(level)
    registry = f"{_SHARED}.dkr.ecr.<HOME>.amazonaws.com"
    return {
        f"Code{word}": {
            "Type": "AWS::CodeCommit::Repository",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "RepositoryName": name,
                "RepositoryDescription": f"Images of {level}, a folder each",
                "Tags": list(tags) or _tags(level),
            },
        },
        **_role(f"Builder{word}", _writer(level).rpartition("/")[2], "codebuild", "builder", LEVEL=level),
        f"Build{word}": {
            "Type": "AWS::CodeBuild::Project",
            "Properties": {
                "Name": name,
                "Description": f"Builds, judges and promotes images of {level}; its pipelines start it",
                "ServiceRole": {"Fn::GetAtt": [f"Builder{word}", "Arn"]},
                "EncryptionKey": "${ModelKeyArn}",
                "Source": {"Type": "CODEPIPELINE"},
                "Artifacts": {"Type": "CODEPIPELINE"},
                "Environment": {
                    "Type": "LINUX_CONTAINER",
                    "ComputeType": "BUILD_GENERAL1_SMALL",
                    "Image": "aws/codebuild/standard:7.0",
                    "PrivilegedMode": True,
                    "EnvironmentVariables": [{"Name": "REGISTRY", "Value": registry}],
                },
                "TimeoutInMinutes": 60,
                "Tags": list(tags) or _tags(level),
            },
        },
    }


def _buildspec() -> str:
    """The programs come with the project: what a team commits does not change how it is judged."""
    written = [f"cat > /tmp/{name} <<'END'\n{program(name)}END" for name in ("imagery.py", "scanner.py")]
    run = 'python3 -I /tmp/imagery.py "$STEP" $IMAGES'
    told = {
        "version": "0.2",
        "phases": {"pre_build": {"commands": written}, "build": {"commands": [run]}},
        "artifacts": {"files": ["bills/*"]},
    }
    return json.dumps(told)


def program(name: str) -> str:
    """The text of a program of the builds."""
    return (DATA / "imagery" / name).read_text()


# -- pipelines and what starts them -------------------------------------------------------------------------------------


def _line(blueprint: Blueprint, image: Image) -> Template:
    """An image's pipeline: a commit starts it, what it stands on, findings, and for a base its age."""
    name, word = f"<NAME>-{image.level}-{image.name}", camel(image.repository)
    stops = blueprint.stops[image.level]
    variables = {
        "FROM": image.base,
        "STOP_AT": " ".join(stops),
        "IMAGES": image.repository,
        "LINE": image.line,
        "RUN": "#{codepipeline.PipelineExecutionId}",
    }
    below, _, tag = image.base.rpartition(":")
    pushed = _told("ECR Image Action", {"action-type": ["PUSH"], "repository-name": [below], "image-tag": [tag]})
    made = {
        f"Pipeline{word}": _pipeline(name, image.level, variables, ("build", "scan")),
        f"Push{word}": _rule(f"{name}-push", "A commit starts the build", _commit(image.level), [name]),
        f"Below{word}": _rule(
            f"{name}-below", f"A new {image.base} starts the build of what stands on it", pushed, [name]
        ),
        f"Rescan{word}": _schedule(
            f"{name}-rescan",
            "Holds the image against what has become known",
            _RESCANNED,
            "arn:aws:scheduler:::aws-sdk:ecr:startImageScan",
            f"arn:aws:iam::{_SHARED}:role/service-role/<NAME>-ImageRescanner",
            Input=json.dumps({"RepositoryName": image.repository, "ImageId": {"ImageTag": image.line}}),
        ),
    }
    made[f"Failing{word}"] = {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmName": f"{name}-fails",
            "AlarmDescription": f"{image.repository} could not be built anew",
            "Namespace": "AWS/CodePipeline",
            "MetricName": "FailedPipelineExecutions",
            "Dimensions": [{"Name": "PipelineName", "Value": name}],
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
            "Threshold": 0,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "ignore",  # it stays until a build has ended well
        },
    }
    if stops:  # an image that was not promoted has no stable tag: it starts nothing, or it would for ever
        found = {
            "repository-name": [image.repository],
            "image-tags": [image.line],
            "$or": [{"finding-severity-counts": {one: [{"numeric": [">", 0]}]}} for one in stops],
        }
        says = "What has become known of the image starts its build"
        made[f"Found{word}"] = _rule(f"{name}-found", says, _told("ECR Image Scan", found), [name])
    if image.level == "base":
        starter = f"arn:aws:iam::{_SHARED}:role/<NAME>/PipelineStarter"
        made[f"Age{word}"] = _schedule(f"{name}-age", "No base image gets old", REBUILT, _arn(name), starter)
    return made


def _arn(pipeline: str) -> str:
    return f"arn:aws:codepipeline:<HOME>:{_SHARED}:{pipeline}"


def _told(kind: str, detail: Template) -> Template:
    return {"source": ["aws.ecr"], "detail-type": [kind], "detail": detail}


def _commit(level: str) -> Template:
    return {
        "source": ["aws.codecommit"],
        "detail-type": ["CodeCommit Repository State Change"],
        "resources": [f"arn:aws:codecommit:<HOME>:{_SHARED}:<NAME>-{level}-images"],
        "detail": {"event": ["referenceCreated", "referenceUpdated"], "referenceName": ["main"]},
    }


def _rule(name: str, says: str, pattern: Template, pipelines: Iterable[str]) -> Template:
    starter = f"arn:aws:iam::{_SHARED}:role/<NAME>/PipelineStarter"
    return {
        "Type": "AWS::Events::Rule",
        "Properties": {
            "Name": name,
            "Description": says,
            "EventPattern": pattern,
            "Targets": [{"Id": one.rpartition("-")[2], "Arn": _arn(one), "RoleArn": starter} for one in pipelines],
        },
    }


def _schedule(name: str, says: str, rate: str, target: str, role: Any, **more: Any) -> Template:
    return {
        "Type": "AWS::Scheduler::Schedule",
        "Properties": {
            "Name": name,
            "Description": says,
            "ScheduleExpression": rate,
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "Target": {"Arn": target, "RoleArn": role, **more},
        },
    }


def _pipeline(name: str, level: str, variables: dict[str, str], steps: Iterable[str], tags: Tags = ()) -> Template:
    told = {**variables, "BRANCH": "#{Source.BranchName}", "COMMIT": "#{Source.CommitId}"}
    code = {"RepositoryName": f"<NAME>-{level}-images", "BranchName": "main", "PollForSourceChanges": "false"}
    stages = [_stage("Source", "Source", "CodeCommit", code, Namespace="Source", OutputArtifacts=[{"Name": "Code"}])]
    for step in steps:
        given = [{"name": key, "value": value} for key, value in {**told, "STEP": step}.items()]
        asked = {"ProjectName": {"Ref": f"Build{camel(level)}"}, "EnvironmentVariables": json.dumps(given)}
        made = {"OutputArtifacts": [{"Name": "Bills"}]} if step == "scan" else {}
        stages.append(_stage(step.capitalize(), "Build", "CodeBuild", asked, InputArtifacts=[{"Name": "Code"}], **made))
    return {
        "Type": "AWS::CodePipeline::Pipeline",
        "DependsOn": [f"Code{camel(level)}"],
        "Properties": {
            "Name": name,
            "PipelineType": "V2",
            "ExecutionMode": "QUEUED",
            "RoleArn": f"arn:aws:iam::{_SHARED}:role/service-role/<NAME>-ImagePipelineRole",
            "ArtifactStore": {
                "Type": "S3",
                "Location": f"<NAME>-images-{_SHARED}",
                "EncryptionKey": {"Id": "${ModelKeyArn}", "Type": "KMS"},
            },
            "Stages": stages,
            "Tags": list(tags) or _tags(level),
        },
    }


def _stage(name: str, category: str, provider: str, configuration: Template, **more: Any) -> Template:
    kind = {"Category": category, "Owner": "AWS", "Provider": provider, "Version": "1"}
    action = {"Name": name, "ActionTypeId": kind, "RunOrder": 1, "Configuration": configuration, **more}
    return {"Name": name, "Actions": [action]}
