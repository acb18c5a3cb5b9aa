"""The profiler's rules, which nothing would evaluate, are refused; its settings, which SDKs send unasked, are kept."""

from __future__ import annotations

import botocore.exceptions
import pytest

from tests.stories.sagemaker.conftest import Workshop


def test_rules_of_the_profiler_are_refused(workshop: Workshop) -> None:
    rule = {
        "RuleConfigurationName": "LossNotDecreasing",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": "LossNotDecreasing"},
    }
    with pytest.raises(botocore.exceptions.ClientError, match="ProfilerRuleConfigurations is not supported"):
        workshop.train("pass", ProfilerRuleConfigurations=[rule])
    with pytest.raises(botocore.exceptions.ClientError, match="DebugRuleConfigurations need a DebugHookConfig"):
        workshop.train("pass", DebugRuleConfigurations=[rule])
    hook = {"S3OutputPath": f"s3://{workshop.bucket}/tensors"}
    name = workshop.train("pass", DebugHookConfig=hook, ProfilerConfig={"DisableProfiler": True})
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Completed"
    assert job["DebugHookConfig"] == hook
    assert "DebugRuleEvaluationStatuses" not in job
