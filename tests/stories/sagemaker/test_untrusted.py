"""Code that an organisation does not trust runs on a kernel of its own, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.sagemaker import serving
from tests.stories.sagemaker.conftest import Workshop
from tests.stories.sagemaker.test_own_images import ANSWER, PULL, said, train

TAG = "bastide:untrusted-code"
KERNEL = 'cat /proc/version; test "$1" != train || { echo made >/var-is-writable; echo weights >/opt/ml/model/w; }'
OWN = {"Entrypoint": ["program"], "Env": ["PATH=/usr/local/bin:/bin", "GREETING=all"], "User": "app"}


def distrust(account: Account, value: str = "true") -> None:
    account.platform.client("organizations").tag_resource(ResourceId=account.id, Tags=[{"Key": TAG, "Value": value}])


def lines(workshop: Workshop, job: dict[str, str]) -> list[str]:
    return said(workshop, "/aws/sagemaker/TrainingJobs", job["TrainingJobName"])


@pytest.mark.control("EXP-13")
def test_an_untrusted_container_trains_and_serves_on_a_kernel_of_its_own(workshop: Workshop, tmp_path: Path) -> None:
    account = workshop.account
    account.client("iam").put_role_policy(
        RoleName="Execution",
        PolicyName="pull",
        PolicyDocument=json.dumps(allow(*PULL, "ecr:GetAuthorizationToken")),
    )
    registry = Registry(account, tmp_path)
    uri = registry.create("team/own")
    program = f'{KERNEL}; test "$1" = train || exec nc -ll -p 8080 -e /usr/local/bin/answer'
    image = f"{uri}:one"
    answer = ANSWER.replace("seen $body", "$(cat /proc/version) $body")
    registry.push(image, [oci.system, oci.scripts(program=program, answer=answer)], OWN)
    host = Path("/proc/version").read_text().strip()
    trusted = train(workshop, image)
    assert trusted["TrainingJobStatus"] == "Completed", trusted.get("FailureReason")
    assert lines(workshop, trusted) == [host]

    with pytest.raises(ClientError, match="AccessDenied"):  # the account cannot say it of itself, nor take it back
        account.client("organizations").untag_resource(ResourceId=account.id, TagKeys=[TAG])
    distrust(account)
    job = train(workshop, image)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    [version] = lines(workshop, job)
    assert version.startswith("Linux version 4.4.0 ") and version != host
    packed = f"out/{job['TrainingJobName']}/output/model.tar.gz"
    assert workshop.s3.get_object(Bucket=workshop.bucket, Key=packed)["ContentLength"]

    name = workshop.name("own")
    serving.model(workshop, name, {"Image": image})
    ask = serving.serve(workshop, serving.config(workshop, name, serving.variant(name)), name)
    assert ask("row 1") == f"{version} row 1".encode()

    script = """
import os, urllib.request
print(open("/proc/version").read().strip(), open("/opt/ml/input/data/train/part/a.csv").read().split())
link = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
asked = urllib.request.Request(link, headers={"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]})
print(b"SecretAccessKey" in urllib.request.urlopen(asked).read())
"""
    found = workshop.trained(workshop.train(script))
    assert found["TrainingJobStatus"] == "Completed", found.get("FailureReason")
    assert lines(workshop, found)[-2:] == [f"{version} ['1,2', '3,4']", "True"]
    workshop.sagemaker.delete_endpoint(EndpointName=name)
