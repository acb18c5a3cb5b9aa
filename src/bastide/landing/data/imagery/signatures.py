"""Refuses images that the builds have not signed. An action of a pipeline: its UserParameters are the ARN of a version."""

import base64
import hashlib
import json
import os
import re
from typing import Any

import boto3

REGISTRY, KEY = os.environ["REGISTRY"], os.environ["SIGNING_KEY"]
OTHERS = r"[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com"


def payload(repository: str, digest: str) -> bytes:
    """What is signed, byte for byte as the builds write it: cosign's simple signing."""
    identity, image = {"docker-reference": f"{REGISTRY}/{repository}"}, {"docker-manifest-digest": digest}
    critical = {"identity": identity, "image": image, "type": "cosign container image signature"}
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def signed(repository: str, digest: str) -> bool:
    tag = {"imageTag": digest.replace(":", "-") + ".sig"}
    found = boto3.client("ecr").batch_get_image(repositoryName=repository, imageIds=[tag])["images"]
    text, kms = payload(repository, digest), boto3.client("kms")
    for layer in json.loads(found[0]["imageManifest"])["layers"] if found else ():
        if layer["digest"] != "sha256:" + hashlib.sha256(text).hexdigest():
            continue
        signature = base64.b64decode(layer.get("annotations", {}).get("dev.cosignproject.cosign/signature", ""))
        try:
            kms.verify(KeyId=KEY, Message=text, Signature=signature or b"none", SigningAlgorithm="ECDSA_SHA_256")
            return True
        except kms.exceptions.KMSInvalidSignatureException:
            continue
    return False


def fault(version: str) -> str:
    told = boto3.client("sagemaker").describe_model_package(ModelPackageName=version)
    for one in told["InferenceSpecification"]["Containers"]:
        host, _, rest = one["Image"].partition("/")
        repository, digest = re.split("[:@]", rest)[0], one.get("ImageDigest") or rest.partition("@")[2]
        if host != REGISTRY:
            if not re.fullmatch(OTHERS, host) or host[:12] == REGISTRY[:12]:
                return f"{one['Image']} is not written as this registry's images are"
            print(f"{one['Image']} is another account's: policies of roles say whether it is pulled")
        elif not signed(repository, digest):
            return f"{repository}@{digest} is not signed by the builds of this registry"
        else:
            print(f"{repository}@{digest} is signed")
    return ""


def handler(event: dict[str, Any], _: object) -> None:
    job, pipelines = event["CodePipeline.job"], boto3.client("codepipeline")
    try:
        why = fault(job["data"]["actionConfiguration"]["configuration"]["UserParameters"])
    except Exception as error:
        why = f"the signatures cannot be looked at: {error}"
    if why:
        print(why)
        failed = {"type": "JobFailed", "message": why[:2000]}
        pipelines.put_job_failure_result(jobId=job["id"], failureDetails=failed)
    else:
        pipelines.put_job_success_result(jobId=job["id"])
