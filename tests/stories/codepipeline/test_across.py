"""The paper's release: stacks and state machines of another account, under its roles, bucket and key; and each of the three
taken away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import REGION, Account, Running, allow
from tests.stories.codepipeline.releases import Releases, action, approval, stage, zipped
from tests.stories.mission.test_pipeline_roles import Pipeline, pipeline

__all__ = ["pipeline"]

MACHINE = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}


def _template(text: str = "one") -> dict[str, Any]:
    """What the paper's template makes, without its jobs: a state machine of a definition in the artifact bucket."""
    properties = {
        "StateMachineName": "SM-train-Step_Function",
        "RoleArn": {"Ref": "StateMachineRoleArn"},
        "DefinitionS3Location": {"Bucket": {"Ref": "DefinitionBucket"}, "Key": {"Ref": "DefinitionKey"}},
        "DefinitionSubstitutions": {"text": text},
    }
    return {
        "Parameters": {one: {"Type": "String"} for one in ("DefinitionBucket", "DefinitionKey", "StateMachineRoleArn")},
        "Resources": {"MyStateMachine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}},
        "Outputs": {"StateMachineARN": {"Value": {"Ref": "MyStateMachine"}}},
    }
