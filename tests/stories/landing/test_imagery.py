"""The hierarchy of images: a public image becomes a base, the base a framework, the framework a team's image, which trains
and serves; what is not as it should be stays where it is, and a patch comes through. With BASTIDE_IMAGERY=all also a patch
of the public image, and age (`make imagery`)."""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bastide.landing.imagery import program
from tests.platform import PROGRAM, Keys
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.ecr.test_scanning import _STATUS as STATUS
from tests.stories.ecr.test_scanning import advisory, debian, files
from tests.stories.landing.end_to_end import EndToEnd, verified
from tests.stories.landing.zone import DENIED, Zone, refused

_HARDENED = """ARG REGISTRY
FROM $REGISTRY/public/debian:12
RUN chmod -R go-w /etc && echo hardened > /etc/hardened
USER 4711
"""
_FRAMEWORK = """ARG REGISTRY
FROM $REGISTRY/base/debian:v12
USER root
RUN mkdir -p /opt/framework && echo 3.11 > /opt/framework/version
USER app
"""
_PATCHED = """ARG REGISTRY
FROM $REGISTRY/public/debian:12
COPY patches /patches
RUN mkdir -p /var/lib/dpkg/info && dpkg -i /patches/*.deb && rm -r /patches
RUN chmod -R go-w /etc && echo hardened > /etc/hardened
USER 4711
"""
_TEAM = """ARG REGISTRY
FROM $REGISTRY/framework/python:v3.11
COPY run.sh answer.sh /opt/
ENTRYPOINT ["/bin/sh", "/opt/run.sh"]
"""
_RUN = r"""
case "$1" in
train)
  wget -T 5 -O /tmp/image https://registry-1.docker.io/v2/ && exit 1
  echo "no public registry; framework $(cat /opt/framework/version)"
  cp /opt/framework/version /opt/ml/model/version ;;
serve) exec nc -ll -p 8080 -e /opt/answer.sh ;;
esac
"""
_ANSWER = r"""#!/bin/sh
read -r line
while read -r header && test "$(printf %s "$header" | tr -d '\r')"; do :; done
said="framework $(cat /opt/framework/version)"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#said}" "$said"
"""
_STEAL = json.dumps(
    {"version": "0.2", "phases": {"build": {"commands": ["aws sts get-caller-identity && echo stolen"]}}}
)
_OWN = {"buildspec.yml": _STEAL, "training/Dockerfile": _TEAM, "training/run.sh": _RUN, "training/answer.sh": _ANSWER}
_FOREIGN = "FROM docker.io/library/python:3.11\nUSER app\n"
_ASIDE = {"training/Containerfile": "FROM scratch\n"}
"""What builders prefer, were they not told which file was looked at."""
_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"
_PUBLIC_PATCHED = "3.0.11-1~deb12u2"


class Story:
    """What is done in Shared Services, and what came of it."""

    def __init__(self, zone: Zone, folder: Path) -> None:
        self.zone, self.folder = zone, folder
        self.account = zone.account("shared-services")
        self.registry = Registry(self.account, folder)
        self.ecr, self.pipelines = self.account.client("ecr"), self.account.client("codepipeline")
        self.code = self.account.client("codecommit")
        self.heads: dict[str, str] = {}

    def uri(self, name: str) -> str:
        [found] = self.ecr.describe_repositories(repositoryNames=[name])["repositories"]
        return str(found["repositoryUri"])

    def commit(self, level: str, *, branch: str = "main", **files: str | bytes) -> str:
        repository = f"bank-{level}-images"
        put = [
            {
                "filePath": name,
                "fileContent": held.encode() if isinstance(held, str) else held,
                "fileMode": "EXECUTABLE",
            }
            for name, held in files.items()
        ]
        asked: dict[str, Any] = {"repositoryName": repository, "branchName": branch, "putFiles": put}
        if level in self.heads:
            asked["parentCommitId"] = self.heads[level]
        self.heads[level] = self.code.create_commit(**asked)["commitId"]
        return self.heads[level]

    def runs(self, pipeline: str) -> list[dict[str, Any]]:
        """Newest first."""
        found = self.pipelines.list_pipeline_executions(pipelineName=pipeline)["pipelineExecutionSummaries"]
        return list(found)

    def over(self, pipeline: str, count: int) -> dict[str, Any]:
        """The newest run, when there are so many and all are over."""
        self.until(lambda: len(self.runs(pipeline)) >= count)
        self.until(lambda: all(one["status"] != "InProgress" for one in self.runs(pipeline)))
        return self.runs(pipeline)[0]

    def ended(self, pipeline: str, count: int, status: str, stage: str = "") -> str:
        """Checks how the newest run ended, and in which stage; what that stage's build has said."""
        run = self.over(pipeline, count)
        actions = self.pipelines.list_action_executions(
            pipelineName=pipeline, filter={"pipelineExecutionId": run["pipelineExecutionId"]}
        )["actionExecutionDetails"]
        said = {one["stageName"]: self.log(one) for one in actions}
        assert run["status"] == status, "\n".join(said.values())[-3000:]
        if status == "Failed":
            [broken] = [one["stageName"] for one in actions if one["status"] == "Failed"]
            assert broken == stage, said[broken]
            return said[broken]
        return "\n".join(said.values())

    def log(self, action: dict[str, Any]) -> str:
        build = action.get("output", {}).get("executionResult", {}).get("externalExecutionId", "")
        if ":" not in build:
            return json.dumps(action.get("output", {}), default=str)
        [told] = self.account.client("codebuild").batch_get_builds(ids=[build])["builds"]
        asked = {"logGroupName": told["logs"]["groupName"], "logStreamName": told["logs"]["streamName"]}
        events = self.account.client("logs").get_log_events(**asked, startFromHead=True)["events"]
        return "\n".join(one["message"] for one in events)

    def until(self, look: Callable[[], Any], seconds: float = 240) -> Any:
        until = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < until, {
                one["name"]: [each["status"] for each in self.runs(one["name"])]
                for one in self.pipelines.list_pipelines()["pipelines"]
            }
            time.sleep(0.2)
        return found

    def images(self, name: str) -> dict[str, str]:
        """Digests by tags, without signatures."""
        found = self.ecr.describe_images(repositoryName=name)["imageDetails"]
        told = {tag: one["imageDigest"] for one in found for tag in one.get("imageTags", ())}
        return {tag: digest for tag, digest in told.items() if not tag.endswith(".sig")}

    def config(self, reference: str, keys: Keys | None = None) -> dict[str, Any]:
        done = self.registry.skopeo("inspect", "ONE", "--config", f"docker://{reference}", keys=keys)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def verify(self, reference: str) -> subprocess.CompletedProcess[str]:
        """The pipelines' own program, on an image by name: the way back to a public one."""
        host = self.uri("base/debian").rpartition("/base/")[0]
        file = self.folder / "imagery.py"
        file.write_text(program("imagery.py").replace("https://{REGISTRY}/v2/", f"https://{_rooted(host)}"))
        known = {
            "REGISTRY": host,
            "PASSWORD": self.registry.password(),
            "SSL_CERT_FILE": self.account.platform.authority,
        }
        words = [sys.executable, "-I", str(file), "verify", reference]
        return subprocess.run(words, env=os.environ | known, capture_output=True, text=True, timeout=60, check=False)

    def load(self, *known: dict[str, Any]) -> None:
        folder = self.folder / "known"
        folder.mkdir(exist_ok=True)
        for one in known:
            (folder / f"{one['id']}.json").write_text(json.dumps(one))
        words = [*PROGRAM, "advisories", "load", "--data", str(self.account.platform.data), str(folder)]
        subprocess.run(words, capture_output=True, check=True, timeout=60)


def _rooted(host: str) -> str:
    """Where a registry under a path answers: HOST/v2/PATH/."""
    name, _, path = host.partition("/")
    return f"{name}/v2/{path}/" if path else f"{name}/v2/"


@pytest.mark.control("STG-03", "DEP-01", "DEP-02", "IMG-08")
@pytest.mark.control("IMG-01", "IMG-02", "IMG-03", "IMG-04", "IMG-05", "IMG-07", "IMG-09", "IMG-10", "IMG-12")
@pytest.mark.control("IMG-06", lacking="a second team with the same name and tag")
@pytest.mark.control("IMG-11", lacking="30 days by the clock; a rule that judges an image's age")
@pytest.mark.control("IMG-14", lacking="a push from another account")
@pytest.mark.timeout(900)  # the longest story, and longer in its long form
def test_from_a_public_image_to_a_teams_own(zone: Zone, tmp_path: Path) -> None:
    story = Story(zone, tmp_path)
    base, framework, team = "bank-base-debian", "bank-framework-python", "bank-mortgage-images"
    for name in (base, framework, team):  # each has begun when it was made, and found no code
        story.ended(name, 1, "Failed", "Source")

    # A framework is built on a base that is there, or not at all; what stands on nothing known is not even built.
    foreign = story.commit("mortgage", **{"training/Dockerfile": _FOREIGN})
    story.commit("framework", **{"python/Dockerfile": _FRAMEWORK})
    assert "base/debian v12 cannot be read: 404" in story.ended(framework, 2, "Failed", "Build")
    assert "what may be built on is $REGISTRY/ and one of" in story.ended(team, 2, "Failed", "Build")
    assert story.images("mortgage/training") == {}

    # A public image is brought in, its digest known; it is there before code, which then starts the base's pipeline, whose
    # promotion starts the framework's: nothing else does.
    public = story.registry.push(f"{story.uri('public/debian')}:12", [debian(), oci.system])
    story.ended(base, 2, "Failed", "Source")
    hardening = story.commit("base", **{"debian/Dockerfile": _HARDENED})
    said = story.ended(base, 3, "Succeeded")
    assert f"public/debian@{public}" in said and "has findings: {}" in said
    held = story.images("base/debian")
    [unique] = [tag for tag in held if tag.startswith(f"main-{hardening}-")]
    assert set(held) == {unique, "v12"} and held[unique] == held["v12"]
    labels = story.config(f"{story.uri('base/debian')}:v12")["config"]
    assert labels["User"] == "4711"
    assert labels["Labels"]["org.opencontainers.image.base.digest"] == public
    assert datetime.datetime.fromisoformat(labels["Labels"]["org.opencontainers.image.created"])
    story.ended(framework, 3, "Succeeded")
    runtime = story.images("framework/python")["v3.11"]
    labels = story.config(f"{story.uri('framework/python')}:v3.11")["config"]["Labels"]
    assert labels["org.opencontainers.image.base.digest"] == held["v12"]

    # A team's image: a tag of its commit, which leads back to the source.
    commit = story.commit("mortgage", **_OWN)
    said = story.ended(team, 3, "Succeeded")
    application = story.images("mortgage/training")
    assert set(application) == {f"main-{commit}"}
    assert "stolen" not in said, "what a team commits does not change how it is judged"
    way = [f"mortgage/training@{application[f'main-{commit}']}", f"framework/python@{runtime}"]
    way += [f"base/debian@{held['v12']}", f"public/debian@{public}"]
    assert "\n".join(way) in said
    config = story.config(f"{story.uri('mortgage/training')}:main-{commit}")["config"]
    assert config["Labels"]["org.opencontainers.image.revision"] == commit
    assert config["Labels"]["org.opencontainers.image.ref.name"] == "main"
    assert config["Labels"]["build"].startswith("bank-mortgage-images:") and config["User"] == "app"
    assert story.code.get_commit(repositoryName=team, commitId=commit)["commit"]["commitId"] == commit
    found = story.pipelines.list_action_executions(pipelineName=team)["actionExecutionDetails"]
    bills = next(one for one in found if one["stageName"] == "Scan")
    [stored] = bills["output"]["outputArtifacts"]
    place = {"Bucket": stored["s3location"]["bucket"], "Key": stored["s3location"]["key"]}
    packed = io.BytesIO(story.account.client("s3").get_object(**place)["Body"].read())
    bill = json.loads(zipfile.ZipFile(packed).read("bills/mortgage-training.json"))
    assert bill["bomFormat"] == "CycloneDX" and any(one["name"] == "bash" for one in bill["components"])
    workload = Workload(zone)

    # What becomes known of the base in use starts its build at once. That stops at its scan: it gets no stable tag, and
    # what is built on it is not built anew. A private key stops before the push. Both while other things are refused.
    filters = {"SCAN_ON_PUSH": "*", "CONTINUOUS_SCAN": "base/*"}
    rules = [
        {"scanFrequency": often, "repositoryFilters": [{"filter": name, "filterType": "WILDCARD"}]}
        for often, name in filters.items()
    ]
    story.ecr.put_registry_scanning_configuration(scanType="ENHANCED", rules=rules)
    before = story.runs(framework)
    story.load(advisory("DEBIAN-CVE-2026-0001", "Debian:12", "openssl", _PUBLIC_PATCHED))
    known = {"known/openssl.json": json.dumps(advisory("CVE-2026-0001", "Debian:12", "openssl", _PUBLIC_PATCHED))}
    wrong = {"training/key.pem": _KEY, "training/Dockerfile": _TEAM + "COPY key.pem /k\n", **_ASIDE}
    story.commit("mortgage", **wrong, **known)
    whole = EndToEnd(story, tmp_path / "example")
    story.code.create_branch(repositoryName=team, branchName="patch", commitId=foreign)
    lie = _refusals(story, commit)
    said = story.ended(team, 4, "Failed", "Build")
    assert "finding: k has a private key" in said
    assert "finding: libssl3 3.0.11-1~deb12u1 has CVE-2026-0001" in said  # before anything is pushed
    assert set(story.images("mortgage/training")) == {f"main-{commit}", "lie"}
    assert "has findings of CRITICAL" in story.ended(base, 4, "Failed", "Scan")
    assert story.images("base/debian")["v12"] == held["v12"] and len(story.images("base/debian")) == 3
    asked = {"repositoryName": "base/debian", "imageId": {"imageTag": "v12"}}
    [found] = story.ecr.describe_image_scan_findings(**asked)["imageScanFindings"]["enhancedFindings"]
    [package] = found["packageVulnerabilityDetails"]["vulnerablePackages"]
    assert (found["severity"], found["packageVulnerabilityDetails"]["vulnerabilityId"]) == ("CRITICAL", "CVE-2026-0001")
    assert (package["name"], package["version"]) == ("libssl3", "3.0.11-1~deb12u1")
    assert story.runs(framework) == before

    # The fix is committed: dpkg puts it into the base, whose stable tag moves; the framework is built on that, the team's
    # image with its next commit.
    story.commit("base", **{"debian/Dockerfile": _PATCHED, "debian/patches/libssl3.deb": _deb(tmp_path)})
    workload.ran()
    assert "has findings: {}" in story.ended(base, 5, "Succeeded")
    patched = _digest(story)
    assert patched != held["v12"]
    pushed = {one["imageDigest"]: one["imagePushedAt"] for one in story.ecr.describe_images(repositoryName="base/debian")[
        "imageDetails"
    ]}  # fmt: skip
    assert pushed[patched] > pushed[held["v12"]]
    story.config(f"{story.uri('base/debian')}@{held['v12']}")  # the old one is there still
    runs = story.runs(team)
    assert f"base/debian@{patched}" in story.ended(framework, len(before) + 1, "Succeeded")
    _starts_only_what_stands_on_it(story)
    assert story.runs(team) == runs and set(story.images("mortgage/training")) == {f"main-{commit}", "lie"}
    # Its next commit has the patch: one of a branch, which a pipeline from end to end takes on to Production.
    # What stood there before went no further than its image.
    whole.stopped()
    story.heads["mortgage"] = foreign
    commit = whole.committed(_TEAM, "patched")
    other = whole.unsigned(lie)
    said = story.ended(whole.images, 3, "Succeeded")
    assert f"base/debian@{patched}" in said and f"patch-{commit}" in story.images("mortgage/training")
    whole.arrives(commit, "patched", other)
    assert story.runs(team) == runs
    if os.environ.get("BASTIDE_IMAGERY") == "all":
        _at_length(story, public, patched)


def _deb(folder: Path) -> bytes:
    """The package with the fix."""
    (folder / "deb/DEBIAN").mkdir(parents=True)
    told = {"Package": "libssl3", "Source": "openssl", "Version": _PUBLIC_PATCHED, "Architecture": "all"}
    told |= {"Maintainer": "Debian <debian@example.com>", "Description": "a library, mended"}
    (folder / "deb/DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in told.items()))
    (folder / "deb/usr/lib").mkdir(parents=True)
    (folder / "deb/usr/lib/libssl.so.3").write_text("mended")
    words = ["dpkg-deb", "-Zgzip", "--root-owner-group", "--build", str(folder / "deb"), str(folder / "libssl3.deb")]
    subprocess.run(words, capture_output=True, check=True, timeout=60)
    return (folder / "libssl3.deb").read_bytes()


def _starts_only_what_stands_on_it(story: Story) -> None:
    """Pushes to other images, and of other tags, start no framework."""
    events = story.account.client("events")
    pattern = events.describe_rule(Name="bank-framework-python-below")["EventPattern"]
    starts = {}
    for name, tag in (
        ("base/debian", "v12"),
        ("base/debian", "main-1"),
        ("base/other", "v12"),
        ("public/debian", "12"),
    ):
        detail = {"action-type": "PUSH", "result": "SUCCESS", "repository-name": name, "image-tag": tag}
        told = {"id": "1", "account": story.account.id, "source": "aws.ecr", "time": "2026-01-01T00:00:00Z",
                "region": "us-east-1", "resources": [], "detail-type": "ECR Image Action", "detail": detail}  # fmt: skip
        starts[name, tag] = events.test_event_pattern(EventPattern=pattern, Event=json.dumps(told))["Result"]
    assert [one for one, does in starts.items() if does] == [("base/debian", "v12")]


class Workload:
    """In Test: a job with the framework's image and a script of S3."""

    def __init__(self, zone: Zone) -> None:
        self.zone, self.account = zone, zone.account("test")
        registry = f"{zone.ids['shared-services']}.dkr.ecr.us-east-1.amazonaws.com"
        ssm = self.account.client("ssm")
        told = ssm.get_parameters_by_path(Path="/bank/network")["Parameters"]
        where = {one["Name"].rpartition("/")[2]: one["Value"] for one in told}
        vpc = {"Subnets": where["subnets"].split(","), "SecurityGroupIds": [where["security-group"]]}
        key = ssm.get_parameter(Name="/bank/key")["Parameter"]["Value"]
        tags = [{"Key": name, "Value": "test"} for name in ("owner", "environment", "project")]
        data, models = zone.bucket("data", "test"), zone.bucket("models", "shared-services")
        prepare = zone.platform.client("s3", zone.service("test", zone.arn("test", "ProcessingRole")))
        script = "test ! -e /opt/run.sh && echo script with framework $(cat /opt/framework/version)\n"
        prepare.put_object(Bucket=data, Key="imagery/run.sh", Body=script.encode())
        self.sagemaker = zone.platform.client("sagemaker", zone.service("test", zone.arn("test", "StateMachineRole")))
        job: dict[str, Any] = {
            "RoleArn": zone.arn("test", "TrainingRole"), "EnableNetworkIsolation": True, "VpcConfig": vpc, "Tags": tags,
            "EnableInterContainerTrafficEncryption": True,
            "OutputDataConfig": {"S3OutputPath": f"s3://{models}/{self.account.id}"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1,
                               "VolumeKmsKeyId": key},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        }  # fmt: skip
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{data}/imagery/"}}
        entry = ["/bin/sh", "/opt/ml/input/data/code/run.sh"]
        given = {"TrainingImage": f"{registry}/framework/python:v3.11", "TrainingInputMode": "File"}
        self.sagemaker.create_training_job(
            TrainingJobName="of-framework", AlgorithmSpecification={**given, "ContainerEntrypoint": entry},
            InputDataConfig=[{"ChannelName": "code", "DataSource": source}], **job,
        )  # fmt: skip

    def ran(self) -> None:
        """Waits for it, and looks at what it said."""
        while (job := self.sagemaker.describe_training_job(TrainingJobName="of-framework"))[
            "TrainingJobStatus"
        ] == "InProgress":
            time.sleep(0.1)
        group = {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamNamePrefix": "of-framework/"}
        lines = [one["message"] for one in self.account.client("logs").filter_log_events(**group)["events"]]
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
        assert "script with framework 3.11" in lines, lines


def _kept_out(done: subprocess.CompletedProcess[str]) -> None:
    told = done.stderr.lower()
    assert done.returncode != 0 and ("denied" in told or "403 (forbidden)" in told), done.stderr


def _refusals(story: Story, commit: str) -> str:
    """What is refused to whom; an image that lies, by its name."""
    zone, registry, ecr = story.zone, story.registry, story.ecr
    # Other namespaces: neither the team's builds nor an administrator of the account write into the central levels, and no
    # build writes into another one's; a stable tag is moved by its pipeline alone; nobody deletes.
    builder = zone.service("shared-services", zone.pipeline_role("MortgageImageRole"))
    central = zone.service("shared-services", zone.pipeline_role("FrameworkImageRole"))
    moved = f"docker://{story.uri('base/debian')}:v12"
    image = f"docker://{story.uri('framework/python')}:v3.11"
    for keys in (builder, central, story.account.keys):
        done = registry.skopeo("copy", "SRC", "DEST", image, moved, keys=keys)
        _kept_out(done)
    other = f"docker://{story.uri('mortgage/inference')}:x"
    done = registry.skopeo("copy", "SRC", "DEST", image, other, keys=central)
    _kept_out(done)
    for keys in (builder, central, story.account.keys):
        client = zone.platform.client("ecr", keys)
        given = {"repositoryName": "base/debian"}
        if keys is not story.account.keys:  # who deploys may empty a repository, and change what protects it
            refused(DENIED, client.batch_delete_image, **given, imageIds=[{"imageTag": "v12"}])
            refused(DENIED, client.put_image_tag_mutability, **given, imageTagMutability="MUTABLE")

    # A tag that is unique stays where it is.
    [held] = ecr.batch_get_image(repositoryName="mortgage/training", imageIds=[{"imageTag": f"main-{commit}"}])[
        "images"
    ]
    uri = story.uri("mortgage/training")
    lie = {
        "org.opencontainers.image.base.name": "base/debian:v12",
        "org.opencontainers.image.base.digest": _digest(story),
    }
    folder = {"config": {"User": "app", "Labels": lie}}
    story.registry.push(f"{uri}:lie", [debian(), oci.scripts(one="echo mine")], folder["config"], keys=builder)
    done = registry.skopeo("copy", "SRC", "DEST", f"docker://{uri}:lie", f"docker://{uri}:main-{commit}", keys=builder)
    assert done.returncode != 0 and "immutable" in done.stderr.lower(), done.stderr
    assert story.images("mortgage/training")[f"main-{commit}"] == held["imageId"]["imageDigest"]
    # It says that it stands on the base, and its layers do not.
    done = story.verify("mortgage/training:lie")
    assert done.returncode == 1 and "its layers do not begin with those" in done.stderr, done.stderr
    done = story.verify(f"mortgage/training:main-{commit}")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4, done.stderr
    # What was judged has the builds' signature, as openssl sees it; what was not has none, and no other image's will do.
    assert verified(story, "mortgage/training", f"main-{commit}") == ""
    assert "there is none" in verified(story, "mortgage/training", "lie")
    digests = (held["imageId"]["imageDigest"], story.images("mortgage/training")["lie"])
    tags = [f"docker://{uri}:{one.replace(':', '-')}.sig" for one in digests]
    done = registry.skopeo("copy", "SRC", "DEST", *tags, keys=builder)
    assert done.returncode == 0, done.stderr
    assert verified(story, "mortgage/training", "lie") == f"it is that of {digests[0]}"
    administrator = zone.account("shared-services").client("kms")
    asked = {"KeyId": "alias/bank-signing", "Message": b"mine", "SigningAlgorithm": "ECDSA_SHA_256"}
    refused(DENIED, administrator.sign, **asked)

    # Every account of the organisation pulls the central levels, with a policy of its own; teams' images are for the roles
    # that their policy names.
    training = zone.service("test", zone.arn("test", "TrainingRole"))
    data = zone.account("data-management")
    assert story.config(f"{story.uri('base/debian')}:v12", data.keys)["config"]["User"] == "4711"
    assert story.config(f"{uri}:main-{commit}", training)["config"]["User"] == "app"
    done = registry.skopeo("inspect", "ONE", f"docker://{uri}:main-{commit}", keys=data.keys)
    _kept_out(done)
    function = zone.platform.client("ecr", zone.service("production", zone.arn("production", "FunctionRole")))
    asked = {"registryId": story.account.id, "repositoryName": "base/debian", "imageIds": [{"imageTag": "v12"}]}
    refused(DENIED, function.batch_get_image, **asked)  # of the organisation, and without a policy of its own for it
    # A pull request that would have the build's role do something else is for others to merge, and starts nothing; nor does
    # an engineer start the build with another buildspec.
    notebook = zone.service("data-science", zone.arn("data-science", "NotebookRole"))
    contributor = zone.platform.assume(zone.arn("shared-services", "CodeContributor"), notebook)
    code, team = zone.platform.client("codecommit", contributor), "bank-mortgage-images"
    story.code.create_branch(repositoryName=team, branchName="steal", commitId=commit)
    put = {"repositoryName": team, "branchName": "steal", "filePath": "buildspec.yml", "fileContent": b"version: 0.2"}
    story.code.put_file(**put, parentCommitId=commit)
    target = {"repositoryName": team, "sourceReference": "steal", "destinationReference": "main"}
    made = code.create_pull_request(title="steal", targets=[target])["pullRequest"]
    refused(DENIED, code.merge_pull_request_by_fast_forward, pullRequestId=made["pullRequestId"], repositoryName=team)
    builds = zone.platform.client("codebuild", zone.person("shared-services", "MLOps"))
    given = {"projectName": team, "sourceTypeOverride": "NO_SOURCE", "buildspecOverride": _STEAL}
    refused(DENIED, builds.start_build, **given)
    return f"{story.account.id}.dkr.ecr.us-east-1.amazonaws.com/mortgage/training:lie"


def _digest(story: Story) -> str:
    return story.images("base/debian")["v12"]


def _at_length(story: Story, public: str, before: str) -> None:
    """A patched public image makes a new base, the new base a new framework; age makes one, too."""
    patch = files(**{"var/lib/dpkg/status": STATUS.replace("deb12u1", "deb12u2")})
    runs = len(story.runs("bank-framework-python"))
    builds = len(story.runs("bank-base-debian"))
    fixed = story.registry.push(f"{story.uri('public/debian')}:12", [debian(), oci.system, patch])
    assert fixed != public
    said = story.ended("bank-base-debian", builds + 1, "Succeeded")
    assert f"public/debian@{fixed}" in said
    after = _digest(story)
    assert after != before
    said = story.ended("bank-framework-python", runs + 1, "Succeeded")
    assert f"base/debian@{after}" in said
    # An alarm stood while a build had failed, and none had ended well since.
    history = {"AlarmName": "bank-base-debian-fails", "HistoryItemType": "StateUpdate"}
    watch = story.account.client("cloudwatch")
    told = story.until(lambda: watch.describe_alarm_history(**history)["AlarmHistoryItems"])
    assert any("to ALARM" in one["HistorySummary"] for one in told), told
    story.until(
        lambda: watch.describe_alarms(AlarmNames=[history["AlarmName"]])["MetricAlarms"][0]["StateValue"] == "OK"
    )
    # A base's age does, too: the schedule as it stands, with less patience.
    schedules, runs = story.account.client("scheduler"), len(story.runs("bank-base-debian"))
    held = schedules.get_schedule(Name="bank-base-debian-age")
    assert held["ScheduleExpression"] == "rate(28 days)"
    asked = {key: held[key] for key in ("Name", "FlexibleTimeWindow", "Target")}
    schedules.update_schedule(**asked, ScheduleExpression="rate(1 minute)")
    story.until(lambda: len(story.runs("bank-base-debian")) > runs)
    schedules.update_schedule(**asked, ScheduleExpression="rate(28 days)")
