"""Actions that a pipeline can have: their providers, what is configured, how many artifacts go in and out.

Source: CodePipeline User Guide, "Action structure reference".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.codepipeline.noun import PIPELINE
from bastide.store import View


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of a configuration. values: the only ones there are; lacking: values that AWS has and Bastide has not, and
    why."""

    required: bool = False
    values: tuple[str, ...] = ()
    key: bool = False
    lacking: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionType:
    """A provider in a category. needs: the operations, by service, without which it is not there. minutes: how long an
    action may take unless it says otherwise."""

    category: str
    provider: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    settings: Mapping[str, Setting]
    needs: tuple[tuple[str, str], ...] = ()
    minutes: int = 60

    def id(self) -> dict[str, str]:
        """As the API names it."""
        return {"category": self.category, "owner": "AWS", "provider": self.provider, "version": "1"}


_NEEDED, _FREE = Setting(True), Setting()
_KEY: Final = Setting(True, key=True)
_BOOLEAN: Final = Setting(values=("true", "false"))
_BUILD: Final = {
    "ProjectName": _KEY,
    "PrimarySource": _FREE,
    "EnvironmentVariables": _FREE,
    "BatchEnabled": Setting(values=("false",), lacking={"true": "there are no batch builds"}),
    "CombineArtifacts": Setting(values=("false",), lacking={"true": "there are no batch builds"}),
}
_OPENING: Final = ("public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read")
_BUILDS: Final = (("codebuild", "StartBuild"), ("codebuild", "BatchGetBuilds"))
_SET: Final = {
    "StackSetName": _KEY,
    "DeploymentTargets": _FREE,
    "Regions": _FREE,
    "FailureTolerancePercentage": _FREE,
    "FailureToleranceCount": _FREE,
    "MaxConcurrentPercentage": _FREE,
    "MaxConcurrentCount": _FREE,
    "CallAs": Setting(values=("SELF", "DELEGATED_ADMIN")),
}
MODES: Final = (
    "CREATE_UPDATE", "CHANGE_SET_REPLACE", "CHANGE_SET_EXECUTE", "DELETE_ONLY", "REPLACE_ON_FAILURE",
)  # fmt: skip

_ALL: Final = (
    ActionType(
        "Source", "CodeCommit", (0, 0), (1, 1),
        {
            "RepositoryName": _KEY, "BranchName": _KEY, "PollForSourceChanges": _BOOLEAN,
            "OutputArtifactFormat": Setting(values=("CODE_ZIP", "CODEBUILD_CLONE_REF")),
        },
        (("codecommit", "UploadArchive"),),
    ),
    ActionType(
        "Source", "S3", (0, 0), (1, 1),
        {"S3Bucket": _KEY, "S3ObjectKey": _KEY, "PollForSourceChanges": _BOOLEAN, "AllowOverrideForS3ObjectKey": _BOOLEAN},
    ),
    ActionType("Source", "ECR", (0, 0), (1, 1), {"RepositoryName": _KEY, "ImageTag": _FREE}, (("ecr", "DescribeImages"),)),
    ActionType("Build", "CodeBuild", (1, 5), (0, 5), _BUILD, _BUILDS, 2160),
    ActionType("Test", "CodeBuild", (1, 5), (0, 5), _BUILD, _BUILDS, 2160),
    ActionType(
        "Approval", "Manual", (0, 0), (0, 0), {"NotificationArn": _FREE, "CustomData": _FREE, "ExternalEntityLink": _FREE},
        (), 10080,
    ),
    ActionType(
        "Deploy", "CloudFormation", (0, 10), (0, 1),
        {
            "ActionMode": Setting(True, MODES), "StackName": _KEY, "Capabilities": _FREE, "ChangeSetName": _FREE,
            "OutputFileName": _FREE, "ParameterOverrides": _FREE, "RoleArn": _FREE, "TemplateConfiguration": _FREE,
            "TemplatePath": _FREE,
        },
        (), 4320,
    ),
    ActionType(
        "Deploy", "CloudFormationStackSet", (1, 10), (0, 0),
        {
            **_SET, "TemplatePath": _NEEDED, "Description": _FREE, "Parameters": _FREE, "Capabilities": _FREE,
            "PermissionModel": Setting(values=("SELF_MANAGED", "SERVICE_MANAGED")), "AdministrationRoleArn": _FREE,
            "ExecutionRoleName": _FREE,
            "OrganizationsAutoDeployment": Setting(values=("Enabled", "Disabled", "EnabledWithStackRetention")),
        },
        (), 4320,
    ),
    ActionType(
        "Deploy", "CloudFormationStackInstances", (0, 10), (0, 0),
        {**_SET, "DeploymentTargets": _NEEDED, "Regions": _NEEDED, "ParameterOverrides": _FREE}, (), 4320,
    ),
    ActionType(
        "Deploy", "S3", (1, 1), (0, 0),
        {
            "BucketName": _KEY, "Extract": Setting(True, ("true", "false")), "ObjectKey": _FREE, "CacheControl": _FREE,
            "KMSEncryptionKeyARN": _FREE,
            "CannedACL": Setting(
                values=("private", "bucket-owner-full-control"),
                lacking=dict.fromkeys(_OPENING, "objects are not opened by ACLs"),
            ),
        },
        (), 90,
    ),
    ActionType(
        "Invoke", "Lambda", (0, 5), (0, 5), {"FunctionName": _KEY, "UserParameters": _FREE}, (("lambda", "Invoke"),), 1440
    ),
    ActionType(
        "Invoke", "StepFunctions", (0, 1), (0, 1),
        {
            "StateMachineArn": _KEY, "ExecutionNamePrefix": _FREE, "Input": _FREE,
            "InputType": Setting(values=("Literal", "FilePath")),
        },
        (("stepfunctions", "StartExecution"),), 10080,
    ),
)  # fmt: skip
TYPES: Final = {(one.category, one.provider): one for one in _ALL}
"""By category and provider."""


def found(a: Authorised, given: Mapping[str, str]) -> ActionType | None:
    """The type that an id names, None if it is not there, or what it calls is not."""
    held = TYPES.get((given["category"], given["provider"]))
    if held is None or given["owner"] != "AWS" or given["version"] != "1":
        return None
    return held if all(one in a.calls.registry.operations for one in held.needs) else None


@PIPELINE.reads("ListActionTypes", asks=[Ask("codepipeline:ListActionTypes", anything)])
def list_action_types(a: Authorised, view: View) -> Output:
    if a.input.get("actionOwnerFilter") not in (None, "AWS"):
        return {"actionTypes": []}
    return {
        "actionTypes": [
            {
                "id": one.id(),
                "settings": {},
                "actionConfigurationProperties": [
                    {"name": name, "required": held.required, "key": held.key, "secret": False, "type": "String"}
                    for name, held in one.settings.items()
                ],
                "inputArtifactDetails": _amounts(one.inputs),
                "outputArtifactDetails": _amounts(one.outputs),
            }
            for one in TYPES.values()
            if found(a, one.id())
        ]
    }


def _amounts(held: tuple[int, int]) -> dict[str, int]:
    return {"minimumCount": held[0], "maximumCount": held[1]}
