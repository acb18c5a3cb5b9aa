"""One pipeline from a commit to Production: it has the image built that it trains with, asks once, and what is deployed is
signed by the build."""

from __future__ import annotations

import base64
import json
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.stories.landing.test_pipelines import Desk
from tests.stories.landing.zone import DENIED, landing, refused

if TYPE_CHECKING:
    from tests.stories.landing.test_imagery import Story

_RUN = r"""
case "$1" in
train)
  wget -T 5 -O /tmp/image https://registry-1.docker.io/v2/ && exit 1
  echo "no public registry; framework $(cat /opt/framework/version)"
  cat /opt/ml/input/data/train/* | wc -l > /opt/ml/model/rows ;;
serve) exec nc -ll -p 8080 -e /opt/answer.sh ;;
esac
"""
_ANSWER = r"""#!/bin/sh
read -r line
while read -r header && test "$(printf %s "$header" | tr -d '\r')"; do :; done
said="SAYS: framework $(cat /opt/framework/version), $(cat /opt/ml/model/rows) rows"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#said}" "$said"
"""
ROWS = "".join(f"{number % 2},{number % 2}.{number},{number}\n" for number in range(60))


class EndToEnd:
    """What an engineer launches of the catalogue for a branch of a team's images, and a run of it."""

    def __init__(self, story: Story, folder: Path) -> None:
        self.story, self.zone = story, story.zone
        self.desk = Desk(self.zone)
        self.production = self.zone.account("production")
        approver = self.zone.person("shared-services", "ModelApprover")
        self.approver = self.zone.platform.client("codepipeline", approver)
        folder.mkdir()
        code, _, why = landing(self.zone.platform, "example", str(self.zone.file), "mortgage", str(folder))
        assert code == 0, why
        files = {one.name: one.read_text() for one in folder.iterdir()}
        lines = files["train.yaml"].splitlines(keepends=True)
        files["train.yaml"] = "".join(one for one in lines if "train-logloss" not in one)  # that is XGBoost's
        serve = files["serve.yaml"]
        files["serve.yaml"] = serve[: serve.index("  Function:\n")]  # the endpoint alone
        self.files = files
        given = {"Name": "whole", "Repository": "bank-mortgage-images", "Branch": "patch"}
        self.images = self.desk.stands("image-pipeline", **given, Team="mortgage", Image="training")["Pipeline"]
        self.release = self.desk.stands("deployment-pipeline", **given, Version="release")["Pipeline"]
        more = {"Images": self.images, "Image": "mortgage/training", "Deployment": self.release, "Pause": "1"}
        told = self.desk.stands("end-to-end-pipeline", **given, **more, Trigger="source", Approval="release")
        self.name = told["Pipeline"]

    def committed(self, dockerfile: str, says: str) -> str:
        """A commit of the branch: image, training and serving; its id."""
        prepare = self.zone.platform.client("s3", self.zone.service("test", self.zone.arn("test", "ProcessingRole")))
        prepare.put_object(Bucket=self.zone.bucket("data", "test"), Key="mortgage/train/a.csv", Body=ROWS.encode())
        own = {"training/Dockerfile": dockerfile, "training/run.sh": _RUN, "training/answer.sh": _ANSWER}
        own["training/answer.sh"] = _ANSWER.replace("SAYS", says)
        return self.story.commit("mortgage", branch="patch", **self.files, **own)

    def asked(self, but: str = "") -> dict[str, str]:
        """The approval that the deployment pipeline waits for, another execution's than `but`."""

        def look() -> Any:
            [ran] = self.story.runs(self.name)[:1]
            assert not but or ran["status"] == "InProgress", self.desk.why(self.name, ran["pipelineExecutionId"])
            stages = self.desk.pipelines.get_pipeline_state(name=self.release)["stageStates"]
            stage = next(one for one in stages if one["stageName"] == "Approve")
            token = stage["actionStates"][0].get("latestExecution", {}).get("token")
            id = stage.get("latestExecution", {}).get("pipelineExecutionId", "")
            return (token, id) if token and id != but else None

        token, id = self.story.until(look)
        return {"token": token, "execution": id}

    def answer(self, asked: dict[str, str], status: str) -> None:
        """The approver's answer."""
        self.approver.put_approval_result(**self._answer(asked, status))

    def _answer(self, asked: dict[str, str], status: str) -> dict[str, Any]:
        where = {"pipelineName": self.release, "stageName": "Approve", "actionName": "Release", "token": asked["token"]}
        return {**where, "result": {"summary": "ticket 7", "status": status}}

    def over(self, pipeline: str, execution: str) -> tuple[str, str]:
        """How a run ended, and what its actions said."""
        run = {"pipelineName": pipeline, "pipelineExecutionId": execution}

        def look() -> Any:
            status = self.desk.pipelines.get_pipeline_execution(**run)["pipelineExecution"]["status"]
            return status if status != "InProgress" else None

        return self.story.until(look), str(self.desk.why(pipeline, execution))

    def unsigned(self, image: str) -> str:
        """An image that no build signed is registered and approved, and not deployed; the execution that tried to."""
        registry = self.desk.shared.client("sagemaker")
        version = registry.create_model_package(
            ModelPackageGroupName="mortgage-denial", ModelApprovalStatus="Approved",
            InferenceSpecification={"Containers": [{"Image": image}], "SupportedContentTypes": ["text/csv"],
                                    "SupportedResponseMIMETypes": ["text/csv"]},
        )["ModelPackageArn"]  # fmt: skip
        asked = {"name": self.release, "variables": [{"name": "ModelPackage", "value": version}]}
        began = self.desk.pipelines.start_pipeline_execution(**asked)["pipelineExecutionId"]
        self.answer(self.asked(), "Approved")
        how, why = self.over(self.release, began)
        assert how == "Failed" and "is not signed by the builds" in why, why
        self.untouched()
        return str(began)

    def stopped(self) -> None:
        """The run of what stood in the branch before: it went no further than its image."""
        [ran] = self.story.runs(self.name)[:1]
        how, why = self.over(self.name, ran["pipelineExecutionId"])
        assert how == "Failed" and "The image pipeline ended without an image" in why, why
        self.story.ended(self.images, 2, "Failed", "Build")
        self.untouched()

    def untouched(self) -> None:
        """Production has nothing of it."""
        assert not self.production.client("sagemaker").list_endpoints(NameContains="bank-whole")["Endpoints"]

    def arrives(self, commit: str, says: str, but: str) -> None:
        """The run of a commit goes on to Production: turned down first, then asked for again, by one answer."""
        asked = self.asked(but)
        [ran] = self.story.runs(self.name)[:1]
        assert ran["sourceRevisions"][0]["revisionId"] == commit
        run = {"pipelineName": self.name, "pipelineExecutionId": ran["pipelineExecutionId"]}
        refused(DENIED, self.desk.pipelines.put_approval_result, **self._answer(asked, "Approved"))
        self.answer(asked, "Rejected")
        refused("ApprovalAlreadyCompletedException", self.answer, asked, "Approved")
        how, why = self.over(self.name, ran["pipelineExecutionId"])
        assert how == "Failed" and "The deployment pipeline ended without a release" in why, why
        self.untouched()
        self.desk.pipelines.retry_stage_execution(**run, stageName="Release", retryMode="FAILED_ACTIONS")
        self.answer(self.asked(asked["execution"]), "Approved")
        how, why = self.over(self.name, ran["pipelineExecutionId"])
        assert how == "Succeeded", (why, self.desk.pipelines.get_pipeline_state(name=self.release)["stageStates"])
        # The answer is that of the commit: of its image, and of what it trained with it.
        asking = self.zone.platform.client(
            "sagemaker-runtime", self.zone.service("production", self.zone.arn("production", "FunctionRole"))
        )
        told = asking.invoke_endpoint(EndpointName="bank-whole", Body=b"1")["Body"].read().decode()
        assert told == f"{says}: framework 3.11, 60 rows"
        serving = self.production.client("sagemaker")
        config = serving.describe_endpoint(EndpointName="bank-whole")["EndpointConfigName"]
        [variant] = serving.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        package = serving.describe_model(ModelName=variant["ModelName"])["Containers"][0]["ModelPackageName"]
        version = self.desk.shared.client("sagemaker").describe_model_package(ModelPackageName=package)
        assert version["ModelPackageDescription"] == f"commit {commit}" and "release" in version["ApprovalDescription"]
        digest = self.story.images("mortgage/training")[f"patch-{commit}"]
        [container] = version["InferenceSpecification"]["Containers"]
        assert container["ImageDigest"] == digest
        test = self.zone.account("test")
        job = version["CustomerMetadataProperties"]["training-job"].rpartition("/")[2]
        given = test.client("sagemaker").describe_training_job(TrainingJobName=job)["AlgorithmSpecification"]
        assert given["TrainingImage"].endswith(f"/mortgage/training:patch-{commit}")
        group = {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamNamePrefix": f"{job}/"}
        said = [one["message"] for one in test.client("logs").filter_log_events(**group)["events"]]
        assert "no public registry; framework 3.11" in said, said


def verified(story: Story, repository: str, tag: str) -> str:
    """Fetches an image's signature with skopeo and checks it with openssl, as cosign's users do without cosign: why it is
    none, or nothing."""
    uri, folder = story.uri(repository), story.folder / f"signature-{tag[:10]}"
    told = story.registry.skopeo("inspect", "ONE", "--format", "{{.Digest}}", f"docker://{uri}:{tag}")
    digest = told.stdout.strip()
    done = story.registry.skopeo("copy", "SRC", f"docker://{uri}:{digest.replace(':', '-')}.sig", f"dir:{folder}")
    if done.returncode != 0:
        return f"there is none: {done.stderr}"
    [layer] = json.loads((folder / "manifest.json").read_text())["layers"]
    payload = folder / layer["digest"].removeprefix("sha256:")
    (folder / "signature").write_bytes(base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"]))
    public = story.account.client("kms").get_public_key(KeyId="alias/bank-signing")["PublicKey"]
    lines = "\n".join(textwrap.wrap(base64.b64encode(public).decode(), 64))
    (folder / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")

    def fits(file: Path) -> bool:
        words = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", str(file)]
        return subprocess.run(words, cwd=folder, capture_output=True, check=False, timeout=60).returncode == 0

    if not fits(payload):
        return "it is nobody's"
    tampered = folder / "tampered"
    tampered.write_bytes(payload.read_bytes().replace(b"sha256:", b"sha512:"))
    assert not fits(tampered)
    about = json.loads(payload.read_bytes())["critical"]
    if about["image"]["docker-manifest-digest"] != digest:
        return f"it is that of {about['image']['docker-manifest-digest']}"
    reference = f"{story.account.id}.dkr.ecr.us-east-1.amazonaws.com/{repository}"
    return "" if about["identity"]["docker-reference"] == reference else "it is another repository's"
