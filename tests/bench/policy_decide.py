"""What a decision costs: `python -m tests.bench.policy_decide`.

A principal with 200 statements of two conditions each, a boundary, three levels of service control
policies and a resource policy; warm.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/Scientist"
TIMES = 2000


def _attached(form: Form, *statements: dict[str, Any]) -> Attached:
    return Attached(Document.parse(json.dumps({"Version": "2012-10-17", "Statement": statements}), form), "bench")


def _statement(index: int, action: str) -> dict[str, Any]:
    return {
        "Effect": "Deny" if index % 10 == 9 else "Allow",
        "Action": [action, f"sagemaker:Describe{index}"],
        "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:training-job/team-{index}-*",
        "Condition": {
            "StringEquals": {"aws:PrincipalTag/team": f"team{index}"},
            "Bool": {"aws:SecureTransport": "true"},
        },
    }


def layers(same: bool) -> Layers:
    """same: all 200 statements concern the action that is asked; else each its own."""
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    guard = {
        "Effect": "Deny",
        "Action": ["sagemaker:CreateTrainingJob", "sagemaker:CreateProcessingJob"],
        "Resource": "*",
        "Condition": {"Null": {"sagemaker:VolumeKmsKey": "true"}},
    }
    actions = ["sagemaker:CreateTrainingJob" if same or index == 150 else f"sagemaker:A{index}" for index in range(200)]
    return Layers(
        identity=[_attached(Form.IDENTITY, *(_statement(index, action) for index, action in enumerate(actions)))],
        boundary=_attached(Form.BOUNDARY, {"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"}),
        session=None,
        resource=_attached(
            Form.RESOURCE,
            {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sagemaker:*", "Resource": "*"},
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sagemaker:*",
                "Resource": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
        ),
        scps=[
            [_attached(Form.SCP, everything)],
            [_attached(Form.SCP, everything, guard)],
            [_attached(Form.SCP, everything)],
        ],
        rcps=[],
    )


def request() -> Request:
    """A CreateTrainingJob that is allowed."""
    return Request(
        Principal("AssumedRole", ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/Scientist/ann", ROLE),
        "sagemaker:CreateTrainingJob",
        f"arn:aws:sagemaker:eu-central-1:{ACCOUNT}:training-job/team-150-x",
        ACCOUNT,
        context(
            {
                "aws:PrincipalTag/team": "team150",
                "aws:SecureTransport": "true",
                "sagemaker:VolumeKmsKey": f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1",
            }
        ),
    )


def median(same: bool) -> float:
    """Microseconds of a warm decision."""
    asked, policies = request(), layers(same)
    assert decide(asked, policies).allowed
    taken = []
    for _ in range(TIMES):
        before = time.perf_counter_ns()
        decide(asked, policies)
        taken.append(time.perf_counter_ns() - before)
    return statistics.median(taken) / 1000


if __name__ == "__main__":
    print(
        f"200 statements of two conditions, three SCP levels, boundary, resource policy: {median(False):.1f} us a decision"
    )
    print(f"the same, all 200 statements concern the action: {median(True):.1f} us a decision")
