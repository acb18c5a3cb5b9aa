"""Code that an organisation does not trust runs on a kernel of its own, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.platform import PROGRAM, Running, allow, below
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.sagemaker import serving
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_own_images import ANSWER, PULL, said, train

TAG = "bastide:untrusted-code"
KERNEL = 'cat /proc/version; test "$1" != train || { echo made >/var-is-writable; echo weights >/opt/ml/model/w; }'
OWN = {"Entrypoint": ["program"], "Env": ["PATH=/usr/local/bin:/bin", "GREETING=all"], "User": "app"}


def say(platform: Running, id: str, value: str) -> None:
    """The management account says of an account, a unit or the root whether code is trusted."""
    tags = [{"Key": TAG, "Value": "false" if value == "trusted" else value}]
    platform.client("organizations").tag_resource(ResourceId=id, Tags=tags)


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
    organizations = account.platform.client("organizations")
    root = organizations.list_roots()["Roots"][0]["Id"]
    unit = organizations.create_organizational_unit(ParentId=root, Name=workshop.name("tenants"))["OrganizationalUnit"]
    say(account.platform, unit["Id"], "certainly")
    organizations.move_account(AccountId=account.id, SourceParentId=root, DestinationParentId=unit["Id"])
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
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{workshop.bucket}/data/"}}
    piped = workshop.train(
        script, InputDataConfig=[{"ChannelName": "train", "InputMode": "Pipe", "DataSource": source}]
    )
    assert "Pipe" in workshop.trained(piped)["FailureReason"]
    workshop.sagemaker.delete_endpoint(EndpointName=name)

    say(account.platform, account.id, "trusted")  # the nearest word counts
    again = train(workshop, image)
    assert again["TrainingJobStatus"] == "Completed" and lines(workshop, again) == [host]
    say(account.platform, account.id, "true")
    account.client("organizations").leave_organization()  # which does not get it out of this
    gone = train(workshop, image)
    assert gone["TrainingJobStatus"] == "Completed" and lines(workshop, gone) == [version]


def test_without_gvisor_such_code_does_not_run(tmp_path: Path) -> None:
    hidden = 'mount --bind /dev/null /usr/bin/runsc; exec "$@"'
    program = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hidden, "sh", *PROGRAM]
    platform = Running(tmp_path / "data", program=program)
    platform.start()
    try:
        platform.found()
        workshop = workshop_of(platform.account())
        say(platform, platform.client("organizations").list_roots()["Roots"][0]["Id"], "true")
        job = workshop.trained(workshop.train("open('/opt/ml/model/ran', 'w')"))
        assert job["FailureReason"].startswith("InternalServerError: This code is not trusted"), job["FailureReason"]
        assert "bastide:untrusted-code" in job["FailureReason"]
        assert "/usr/bin/runsc is not there: apt-get install runsc" in job["FailureReason"]
        serving.model(workshop, "m", serving.container(workshop, "one"))
        configuration = serving.config(workshop, "m", serving.variant("m"))
        workshop.sagemaker.create_endpoint(EndpointName="m", EndpointConfigName=configuration)
        failed = workshop.endpoint("m", "InService", "Failed")
        assert failed["EndpointStatus"] == "Failed" and "apt-get install runsc" in failed["FailureReason"]
        assert not [one for one in below(tmp_path / "data" / "run") if one.name in ("state.json", "clear", "image")]
    finally:
        platform.stop()
