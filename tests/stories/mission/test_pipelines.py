"""Pipelines as the paper has them: run in another account by a role of it, and held to its rules."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tests.platform import Account, allow
from tests.stories.codebuild.conftest import CODEBUILD, MAY, bench_of, spec
from tests.stories.sagemaker.conftest import workshop_of
from tests.stories.sagemaker.pipelines import (
    create,
    definition,
    furnish,
    over,
    process,
    reasons,
    refused,
    start,
    steps,
)


@pytest.mark.control("STG-08")
@pytest.mark.control("PIP-02", lacking="stacks, and VPC settings")
def test_another_account_s_role_runs_a_pipeline_that_keeps_the_rules(account: Account, neighbour: Account) -> None:
    test, shared = workshop_of(account), workshop_of(neighbour)
    furnish(test)
    neighbour.role("Build", allow("sts:AssumeRole", "sagemaker:*", "iam:PassRole"))
    builder = neighbour.role("Builder", allow(*MAY, "sts:AssumeRole"), trust=CODEBUILD)
    trust = {"AWS": [f"arn:aws:iam::{neighbour.id}:role/Build", builder]}
    role = account.role("Pipelines", allow("sagemaker:*", "iam:PassRole"), trust=trust)
    build = neighbour.as_role("Build")
    given: dict[str, Any] = {"PipelineName": "p", "RoleArn": test.role}
    told = definition(process(test, "Prepare", "print(1)"))
    shared.sagemaker = neighbour.client("sagemaker", build)
    # Without taking on the role: neither its resources nor its roles.
    assert "AccessDenied" in refused(
        shared.sagemaker.describe_pipeline, PipelineName=f"arn:aws:sagemaker:us-east-1:{account.id}:pipeline/p"
    )
    answer = refused(shared.sagemaker.create_pipeline, **given, PipelineDefinition=json.dumps(told))
    assert "iam:PassRole" in answer or "Cross-account" in answer
    rule = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": ["sagemaker:CreateProcessingJob", "sagemaker:CreateTrainingJob"],
                "Resource": "*",
                "Condition": {"Null": {f"aws:RequestTag/{key}": "true"}},
            }
            for key in ("owner", "environment", "project")
        ],
    }
    account.client("iam").put_role_policy(RoleName="Execution", PolicyName="tags", PolicyDocument=json.dumps(rule))
    test.sagemaker = account.client("sagemaker", account.platform.assume(role, build))
    create(test, "p", told)
    arn = start(test, "p")
    assert over(test, arn)["PipelineExecutionStatus"] == "Failed"
    assert "with an explicit deny" in steps(test, arn)["Prepare"]["FailureReason"]
    tags = [{"Key": key, "Value": "v"} for key in ("owner", "environment", "project")]
    told["Steps"][0]["Arguments"]["Tags"] = tags
    # A build of Shared Services makes the definition, takes the role on, and runs it there.
    bench = bench_of(neighbour)
    take = f"aws sts assume-role --role-arn {role} --role-session-name build --output text"
    take += " --query Credentials.[AccessKeyId,SecretAccessKey,SessionToken]"
    made = bench.build(
        spec(
            build=[
                f"set -- $({take}) && export AWS_ACCESS_KEY_ID=$1 AWS_SECRET_ACCESS_KEY=$2 AWS_SESSION_TOKEN=$3",
                f"aws sagemaker update-pipeline --pipeline-name p --role-arn {test.role} "
                f"--pipeline-definition {shlex.quote(json.dumps(told))}",
                "RUN=$(aws sagemaker start-pipeline-execution --pipeline-name p --query PipelineExecutionArn --output text "
                "--pipeline-parameters Name=Raw,Value=s3://raw)",
            ],
            env={"exported-variables": ["RUN"]},
        ),
        serviceRole=builder,
    )
    assert made["buildStatus"] == "SUCCEEDED", "\n".join(bench.lines(made))
    [arn] = [one["value"] for one in made["exportedEnvironmentVariables"]]
    done = over(test, arn)
    assert done["PipelineExecutionStatus"] == "Succeeded", reasons(test, arn)
    assert done["CreatedBy"]["IamIdentity"]["Arn"].startswith(f"arn:aws:sts::{account.id}:assumed-role/Pipelines/")
    step = steps(test, arn)["Prepare"]  # what a graph is drawn of
    assert step["StepStatus"] == "Succeeded" and step["StartTime"] < step["EndTime"]
    job = step["Metadata"]["ProcessingJob"]["Arn"]
    assert job.rpartition("/")[2].startswith(f"pipelines-{arn.rpartition('/')[2]}-Prepare-")
    assert test.sagemaker.list_tags(ResourceArn=job)["Tags"] == tags
