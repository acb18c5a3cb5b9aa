"""Debugger: tensors are saved, rules really look at them, and the outcome stands with the job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.moved import until
from tests.platform import allow
from tests.stories.events.test_events import arrived, watched
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.plain import XGBOOST

RULES = "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest"
EVERY = {"save_interval": "1"}


def rule(title: str, name: str = "", image: str = RULES, **given: str) -> dict[str, Any]:
    """A rule as SDK v2 sends it."""
    return {
        "RuleConfigurationName": name or title,
        "RuleEvaluatorImage": image,
        "RuleParameters": {"rule_to_invoke": title, **given},
    }


def hook(workshop: Workshop, *collections: str, path: str = "") -> dict[str, Any]:
    return {
        "S3OutputPath": path or f"s3://{workshop.bucket}/debug",
        "CollectionConfigurations": [
            {"CollectionName": one, "CollectionParameters": EVERY} for one in collections or ("losses",)
        ],
    }


def verdicts(job: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and details of each rule."""
    return {
        one["RuleConfigurationName"]: (one["RuleEvaluationStatus"], one.get("StatusDetails", ""))
        for one in job["DebugRuleEvaluationStatuses"]
    }


def boost(workshop: Workshop, *rules: dict[str, Any], eta: str, **more: Any) -> str:
    """A built-in XGBoost over numbers that can be learned."""
    rows = "\n".join(f"{i % 7 * 3 + i % 3},{i % 7},{i % 3}" for i in range(200))
    workshop.s3.put_object(Bucket=workshop.bucket, Key="numbers/a.csv", Body=rows.encode())
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/numbers/"}
    return workshop.train(
        "",
        AlgorithmSpecification={"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
        HyperParameters={"num_round": "25", "eta": eta, "objective": "reg:squarederror", "max_depth": "3"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}, "ContentType": "text/csv"}],
        DebugHookConfig=hook(workshop, "losses", "feature_importance"),
        DebugRuleConfigurations=list(rules),
        **more,
    )


BOOSTS = """
import numpy as np
from xgboost import XGBRegressor
data = np.random.default_rng(1).normal(size=(50, 2))
XGBRegressor(learning_rate=0.0, n_estimators=12).fit(data, data @ [1.0, 2.0], eval_set=[(data, data[:, 0])], verbose=False)
"""


@pytest.mark.control("EXP-14")
def test_a_training_that_learns_nothing_is_told_from_one_that_does(workshop: Workshop) -> None:
    importance = rule("FeatureImportanceOverweight", threshold="1.1")
    rules = (rule("LossNotDecreasing"), importance, rule("LossNotDecreasing", "Custom", "x/my-rules:1"))
    bad = boost(workshop, *rules, eta="0")
    good = boost(workshop, rule("LossNotDecreasing"), importance, eta="0.1")
    script = workshop.train(
        BOOSTS,
        AlgorithmSpecification={"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
        DebugHookConfig={"S3OutputPath": f"s3://{workshop.bucket}/debug"},  # as SDK v2 sends it unasked: every tenth
        DebugRuleConfigurations=[rule("LossNotDecreasing")],
    )
    job = workshop.trained(bad)
    found = verdicts(job)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")  # the rules leave it as it is
    status, details = found["LossNotDecreasing"]
    assert status == "IssuesFound" and "at step 10" in details and "train-rmse" in details, details
    assert found["Custom"] == ("Error", "ClientError: Unknown image of rules 'my-rules': custom rules are not run.")
    assert ":processing-job/" in job["DebugRuleEvaluationStatuses"][0]["RuleEvaluationJobArn"]
    job = workshop.trained(good)
    assert verdicts(job) == {
        "LossNotDecreasing": ("NoIssuesFound", "25 saved steps were looked at"),
        "FeatureImportanceOverweight": ("NoIssuesFound", "25 saved steps were looked at"),
    }
    status, details = verdicts(workshop.trained(script))["LossNotDecreasing"]  # no line of it speaks of the debugger
    assert status == "IssuesFound" and "validation_0-rmse" in details
    held = workshop.s3.list_objects_v2(Bucket=workshop.bucket, Prefix=f"debug/{good}/debug-output/")["Contents"]
    keys = {one["Key"].split("/debug-output/")[1] for one in held}
    assert "index/000000000/000000000024_worker_0.json" in keys and "training_job_end.ts" in keys
    index = json.loads(
        workshop.s3.get_object(
            Bucket=workshop.bucket, Key=f"debug/{good}/debug-output/index/000000000/000000000024_worker_0.json"
        )["Body"].read()
    )
    assert "train-rmse" in [one["tensorname"] for one in index["tensor_payload"]]
    assert index["meta"]["event_file_name"] in keys


SCRIPT = """
import time, numpy as np
from bastide_debugger import Hook
hook = Hook.of_job()
for step in range(6):
    hook.save_all({
        'losses': {'loss': 1 / (step + 1)},
        'weights': {'w': np.ones(4) * (1 if FAULTY else step + 1)},
        'gradients': {'g': np.full((2, 2), 0.0 if FAULTY else 0.1, 'float32')},
        'relu_output': {'layer_relu_output': np.eye(4)[:, :2] * (0 if FAULTY else 1)},
        'others': {'o': np.array([1.0, float('nan') if FAULTY and step == 4 else 2.0])},
    }, step)
    hook.save('losses', {'loss': 1 / (step + 1) + (step if FAULTY else 0)}, step, mode='EVAL')
"""
OF_ARRAYS = (
    rule("WeightUpdateRatio"), rule("VanishingGradient"), rule("DeadRelu"), rule("Overfit"), rule("Overtraining"),
    rule("ExplodingTensor", only_nan="True", collection_names="others"), rule("AllZero", tensor_regex="^g$"),
    rule("UnchangedTensor", collection_names="weights"),
    rule("TensorVariance", collection_names="weights", min_threshold="-1"), rule("StalledTrainingRule", threshold="600"),
)  # fmt: skip


@pytest.mark.control("EXP-14")
def test_rules_look_at_arrays_that_a_script_saves(workshop: Workshop) -> None:
    given: dict[str, Any] = {
        "DebugHookConfig": hook(workshop, "losses", "weights", "gradients", "relu_output", "others"),
        "DebugRuleConfigurations": list(OF_ARRAYS),
    }
    faulty = workshop.train(SCRIPT.replace("FAULTY", "True"), **given)
    healthy = workshop.train(SCRIPT.replace("FAULTY", "False"), **given)
    found = verdicts(workshop.trained(faulty))
    fine = {"TensorVariance", "StalledTrainingRule", "Overtraining"}
    assert {name for name, (status, _) in found.items() if status != "IssuesFound"} == fine, found
    assert "at step 4" in found["ExplodingTensor"][1]
    assert {status for status, _ in verdicts(workshop.trained(healthy)).values()} == {"NoIssuesFound"}


FLAT = """
import time
from bastide_debugger import Hook
hook = Hook.of_job()
for step in range(1000):
    hook.save('losses', {'loss': 1.0}, step)
    time.sleep(0.1)
"""


@pytest.mark.control("EXP-14")
def test_a_rule_stops_its_training_while_it_runs_and_eventbridge_is_told(workshop: Workshop) -> None:
    account = workshop.account
    watched(account, "rules", {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Training Job State Change"]})
    policy = allow("s3:*", "logs:*", "sagemaker:StopTrainingJob")
    workshop.role = account.role("Stopping", policy, trust={"Service": "sagemaker.amazonaws.com"})
    stop = '[{\\"name\\": \\"stoptraining\\"}]'  # as SDK v2 sends it
    name = workshop.train(
        FLAT,
        DebugHookConfig=hook(workshop),
        DebugRuleConfigurations=[rule("LossNotDecreasing", action_json=stop, num_steps="3"), rule("Overfit")],
    )
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Stopped", job.get("FailureReason")
    assert verdicts(job)["LossNotDecreasing"][0] == "IssuesFound"

    def told() -> list[list[str]]:
        return [
            [rule["RuleEvaluationStatus"] for rule in one["detail"]["DebugRuleEvaluationStatuses"]]
            for one in arrived(account, "rules")
            if one["detail"]["TrainingJobStatus"] == "InProgress"
        ]

    until(lambda: ["IssuesFound", "InProgress"] in told())


@pytest.mark.control("EXP-14")
def test_an_evaluation_that_ended_too_soon_begins_anew(workshop: Workshop) -> None:
    rules = [rule("LossNotDecreasing", num_steps="25")]
    code = FLAT.replace("range(1000)", "range(60)")
    name = workshop.train(code, DebugHookConfig=hook(workshop), DebugRuleConfigurations=rules)
    data = os.fsencode(workshop.account.platform.data)

    def evaluations() -> list[int]:
        return [
            int(one.name)
            for one in Path("/proc").glob("[0-9]*")
            if b"/bin/evaluate-rules" in read(one / "cmdline") and data in read(one / "mountinfo")
        ]

    until(evaluations)
    for one in evaluations():
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    assert verdicts(workshop.trained(name))["LossNotDecreasing"][0] == "IssuesFound"


def read(path: Path) -> bytes:
    """Of a process that may end meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


HOSTILE = """
import json, os
base = '/opt/ml/output/tensors/index/000000000'
os.makedirs(base)
os.symlink('/etc/passwd', base + '/000000000000_worker_0.json')
os.mkfifo(base + '/000000000001_worker_0.json')
where = {'mode': 'TRAIN', 'mode_step': 0, 'event_file_name': '../../../etc/passwd'}
told = {'meta': where, 'tensor_payload': [{'tensorname': 'loss', 'start_idx': 0, 'length': 9}]}
open(base + '/000000000002_worker_0.json', 'w').write(json.dumps(told))
"""


@pytest.mark.control("EXP-14")
def test_what_cannot_be_evaluated_says_so_and_leaves_the_training_alone(workshop: Workshop) -> None:
    rules = [rule("LossNotDecreasing")]
    save = "from bastide_debugger import Hook\nHook.of_job().save('losses', {'loss': 1.0}, 0)"
    beyond = hook(workshop, path="s3://somebody-elses-bucket/debug")
    names = {
        "NoSuchBucket": workshop.train(save, DebugHookConfig=beyond, DebugRuleConfigurations=rules),
        "saved no tensor": workshop.train("pass", DebugHookConfig=hook(workshop), DebugRuleConfigurations=rules),
        "leads outside": workshop.train(HOSTILE, DebugHookConfig=hook(workshop), DebugRuleConfigurations=rules),
    }
    for why, name in names.items():
        job = workshop.trained(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        status, details = verdicts(job)["LossNotDecreasing"]
        assert status == "Error" and why in details, (why, status, details)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (rule("SimilarAcrossRuns"), "The rule SimilarAcrossRuns .* is not supported"),
        (rule("", "Nameless"), "without the parameter rule_to_invoke"),
        (rule("Overfit", patience="many"), "patience is not 'many'"),
        (rule("Overfit", pace="1"), "has no parameter pace"),
        (rule("AllZero", tensor_regex="("), "tensor_regex is not"),
        (rule("Overfit", action_json='[{"name": "email"}]'), "the action email is not supported"),
        ({**rule("Overfit"), "S3OutputPath": "s3://b/c"}, "S3OutputPath is not supported"),
    ],
)
def test_rules_that_nothing_would_evaluate_are_refused(workshop: Workshop, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=f"ValidationException.*{said}"):
        workshop.train("pass", DebugHookConfig=hook(workshop), DebugRuleConfigurations=[given])
