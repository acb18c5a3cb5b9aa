"""Debugger tells a training that learns nothing from one that does, and says so with the job."""

import pathlib

import boto3
import sagemaker
from sagemaker.debugger import CollectionConfig, Rule, rule_configs
from sagemaker.xgboost import XGBoost

SCRIPT = """
import argparse
import numpy as np
import xgboost

read = argparse.ArgumentParser()
read.add_argument("--eta", type=float)
eta = read.parse_args().eta
data = np.random.default_rng(1).normal(size=(300, 4))
matrix = xgboost.DMatrix(data, label=data @ [1.0, 2.0, 3.0, 4.0])
model = xgboost.train({"eta": eta, "max_depth": 3}, matrix, 25, evals=[(matrix, "train")])
model.save_model("/opt/ml/model/xgboost-model")
"""
pathlib.Path("train.py").write_text(SCRIPT)
session = sagemaker.Session()


def judged(eta):
    """What the rules found, and the files of tensors."""
    estimator = XGBoost(
        entry_point="train.py",
        framework_version="1.7-1",
        instance_type="ml.m5.large",
        instance_count=1,
        role=sagemaker.get_execution_role(),
        hyperparameters={"eta": eta},
        rules=[
            Rule.sagemaker(
                rule_configs.loss_not_decreasing(),
                rule_parameters={"num_steps": "5"},
                collections_to_save=[CollectionConfig("losses", {"save_interval": "1"})],
            ),
            Rule.sagemaker(rule_configs.exploding_tensor(), rule_parameters={"collection_names": "losses"}),
        ],
    )
    estimator.fit()
    bucket, _, prefix = estimator.latest_job_debugger_artifacts_path().removeprefix("s3://").partition("/")
    held = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
    keys = [one["Key"] for one in held["Contents"]]
    assert any(one.endswith(".tfevents") for one in keys), keys
    return {
        one["RuleConfigurationName"]: one["RuleEvaluationStatus"]
        for one in estimator.latest_training_job.rule_job_summary()
    }


assert judged(0.0) == {"LossNotDecreasing": "IssuesFound", "ExplodingTensor": "NoIssuesFound"}
assert judged(0.3) == {"LossNotDecreasing": "NoIssuesFound", "ExplodingTensor": "NoIssuesFound"}
