"""Debugger's rules as a request configures them: which there are, and what they take.

Source: developer guide, "debugger-built-in-rules", "debugger-built-in-actions"; API reference, DebugHookConfig and
DebugRuleConfiguration.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from typing import Any, Final

from bastide.domain import Refused
from bastide.engines import images
from bastide.services.sagemaker.asking import lacking
from bastide.services.sagemaker.objects import split

IMAGE: Final = "sagemaker-debugger-rules"
_TENSORS: Final = {"collection_names": "", "tensor_regex": ""}
_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "AllZero": {**_TENSORS, "threshold": 100.0},
    "DeadRelu": {"tensor_regex": "", "threshold_inactivity": 1.0, "threshold_layer": 50.0},
    "ExplodingTensor": {**_TENSORS, "only_nan": False},
    "FeatureImportanceOverweight": {"tensor_regex": "", "threshold": 0.8, "nfeatures": 3},
    "LossNotDecreasing": {
        **_TENSORS,
        "use_losses_collection": True,
        "num_steps": 10,
        "diff_percent": 0.1,
        "increase_threshold_percent": 5.0,
        "mode": "GLOBAL",
    },
    "Overfit": {"tensor_regex": "", "start_step": 0, "patience": 1, "ratio_threshold": 0.1},
    "Overtraining": {"tensor_regex": "", "patience_train": 5, "patience_validation": 10, "delta": 0.01},
    "StalledTrainingRule": {"threshold": 1800, "stop_training_on_fire": False, "training_job_name_prefix": ""},
    "TensorVariance": {**_TENSORS, "max_threshold": 10.0, "min_threshold": 1e-05},
    "UnchangedTensor": {**_TENSORS, "num_steps": 3, "rtol": 1e-05, "atol": 1e-08, "equal_nan": False},
    "VanishingGradient": {"threshold": 1e-07},
    "WeightUpdateRatio": {"num_steps": 1, "large_threshold": 10.0, "small_threshold": 1e-08, "epsilon": 1e-09},
}
_PATTERNS: Final = ("tensor_regex",)
_MODES: Final = ("TRAIN", "EVAL", "PREDICT", "GLOBAL")
_OWN: Final = ("rule_to_invoke", "action_json")
_NO_FOLDERS: Final = ("input", "model", "code", "checkpoints")


def check(given: Any) -> None:
    """Raises Refused for a hook, or rules, that could not do what they say."""
    hook, rules = given.get("DebugHookConfig"), given.get("DebugRuleConfigurations") or ()
    if hook is not None:
        split(hook["S3OutputPath"])
        tensors_of(given)
        _numbers(hook)
    if rules and hook is None:
        raise Refused("ValidationException", "DebugRuleConfigurations need a DebugHookConfig, which has tensors saved.")
    names = [one["RuleConfigurationName"] for one in rules]
    if len(set(names)) < len(names):
        raise Refused("ValidationException", "The RuleConfigurationNames of DebugRuleConfigurations must be unique.")
    for one in rules:
        lacking(one, "S3OutputPath", "LocalPath")
        if known(one):
            parameters(one)
            stops(one, given.get("TrainingJobName", ""))


def tensors_of(doc: Any) -> str:
    """Where a job saves its tensors, relative to ``/opt/ml``. Raises Refused for a path that leads elsewhere."""
    path = posixpath.normpath(doc["DebugHookConfig"].get("LocalPath") or "/opt/ml/output/tensors")
    below = path.removeprefix("/opt/ml/")
    taken = below.split("/")[0] in _NO_FOLDERS or below in ("output", "output/data", "output/failure")
    if below == path or taken or below.startswith("output/data/"):
        raise Refused(
            "ValidationException",
            "DebugHookConfig.LocalPath must be below /opt/ml, and not in its input, model, code, checkpoints or "
            "output/data.",
        )
    return below


def _numbers(hook: Any) -> None:
    """Raises Refused for steps that are no numbers."""
    settings = [hook.get("HookParameters") or {}]
    settings += [one.get("CollectionParameters") or {} for one in hook.get("CollectionConfigurations") or ()]
    for name, value in ((name, value) for one in settings for name, value in one.items()):
        setting = name.rpartition(".")[2]
        pattern = {"save_steps": r"[0-9]+(\s*,\s*[0-9]+)*"}.get(setting, r"[0-9]+")
        if setting in ("save_interval", "start_step", "end_step", "save_steps") and not re.fullmatch(pattern, value):
            raise Refused("ValidationException", f"DebugHookConfig: {name} is {value!r}, which is no number of a step.")


def known(rule: Any) -> bool:
    """Whether a rule's image is the one that Bastide has. Of another one the evaluation ends in an error."""
    return image_of(rule) == IMAGE


def image_of(rule: Any) -> str:
    """The repository of a rule's image."""
    return str(rule["RuleEvaluatorImage"]).rpartition("/")[2].partition(":")[0].partition("@")[0]


def title(rule: Any) -> str:
    """Which built-in rule it is."""
    return str((rule.get("RuleParameters") or {}).get("rule_to_invoke") or "")


def parameters(rule: Any) -> dict[str, Any]:
    """All parameters of a rule, with their types. Raises Refused, naming the rule, for what it is not."""
    name, told = title(rule), rule["RuleConfigurationName"]
    if name not in _PARAMETERS:
        what = f"The rule {name}" if name else "A rule without the parameter rule_to_invoke"
        raise Refused(
            "ValidationException",
            f"{what} ({told}) is not supported by Bastide yet. Its rules are: {', '.join(sorted(_PARAMETERS))}.",
        )
    found = dict(_PARAMETERS[name])
    for key, text in (rule.get("RuleParameters") or {}).items():
        if key in _OWN:
            continue
        if key not in found:
            raise Refused("ValidationException", f"The rule {name} ({told}) has no parameter {key}.")
        try:
            found[key] = _value(key, text, found[key])
        except (ValueError, re.error, OverflowError, RecursionError):
            raise Refused("ValidationException", f"The rule {name} ({told}): {key} is not {text!r}.") from None
    if name == "StalledTrainingRule" and found["stop_training_on_fire"] and found["training_job_name_prefix"]:
        raise Refused(
            "ValidationException",
            f"The rule {name} ({told}): leave training_job_name_prefix out: it stops the training job that it is of.",
        )
    return found


def _value(key: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _no(text)
    if isinstance(default, int):
        return max(0, int(text))
    if isinstance(default, float):
        number = float(text)
        return _no(text) if math.isnan(number) else number
    if key == "mode":
        mode = text.upper()
        return mode if mode in _MODES else _no(text)
    if key in _PATTERNS:
        for one in text.split(","):
            re.compile(one)
    return text


def _no(text: str) -> Any:
    raise ValueError(text)


def stops(rule: Any, job: str) -> bool:
    """Whether a rule stops its training job when its condition is met. Raises Refused for other actions."""
    given = (rule.get("RuleParameters") or {}).get("action_json")
    stall = title(rule) == "StalledTrainingRule" and parameters(rule)["stop_training_on_fire"]
    if not given:
        return bool(stall)
    told = rule["RuleConfigurationName"]
    try:
        # SDK v2 sends it with its quotes escaped.
        found = json.loads(given.replace('\\"', '"'))
        actions = [dict(one) for one in (found if isinstance(found, list) else [found])]
    except (ValueError, TypeError):
        raise Refused("ValidationException", f"The rule {told}: action_json is no list of actions.") from None
    for one in actions:
        if one.get("name") != "stoptraining":
            raise Refused(
                "ValidationException",
                f"The rule {told}: the action {one.get('name')} is not supported by Bastide yet; stoptraining is.",
            )
        if job and not job.startswith(str(one.get("training_job_prefix") or job)):
            raise Refused(
                "ValidationException", f"The rule {told}: the action stoptraining stops the training job that it is of."
            )
    return bool(actions) or bool(stall)


def evaluator() -> images.Environment:
    """The environment that rules are evaluated in."""
    return images.resolve("sagemaker-scikit-learn:1.4-2")


def statuses(rules: Any, account: str, region: str, job: str, now: int) -> list[dict[str, Any]]:
    """What a job's row says of its rules at first. The ARN names the evaluation: it is a part of the training job here, and
    no processing job of its own."""
    found = []
    for number, one in enumerate(rules, 1):
        words = re.sub(r"[^A-Za-z0-9]+", "-", one["RuleConfigurationName"]).strip("-")[:24].strip("-") or "rule"
        name = f"{job[:30].rstrip('-')}-{words}-{number}"
        arn = f"arn:aws:sagemaker:{region}:{account}:processing-job/{name}"
        found.append(
            {
                "RuleConfigurationName": one["RuleConfigurationName"],
                "RuleEvaluationJobArn": arn,
                "RuleEvaluationStatus": "InProgress",
                "LastModifiedTime": now,
            }
        )
    return found
