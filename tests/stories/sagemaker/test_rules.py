"""Rules that nothing would evaluate are refused; what only says where tensors would go is kept."""

from __future__ import annotations

import botocore.exceptions
import pytest

from tests.stories.sagemaker.conftest import Workshop


def test_rules_that_cannot_be_evaluated_are_refused(workshop: Workshop) -> None:
    rule = {
        "RuleConfigurationName": "LossNotDecreasing",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": "LossNotDecreasing"},
    }
    for member in ("DebugRuleConfigurations", "ProfilerRuleConfigurations"):
        with pytest.raises(botocore.exceptions.ClientError, match=f"{member} is not supported"):
            workshop.train("pass", **{member: [rule]})
    hook = {"S3OutputPath": f"s3://{workshop.bucket}/tensors"}
    name = workshop.train("pass", DebugHookConfig=hook, ProfilerConfig={"DisableProfiler": True})
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed"
    assert job["DebugHookConfig"] == hook
    assert "DebugRuleEvaluationStatuses" not in job
