"""Short ways to models and endpoints that answer with what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive
from tests.waiting import until  # noqa: F401 - stories of endpoints take it from here

SCRIPT = b"""
import os, time
def model_fn(folder): return open(folder + '/m.txt').read()
def transform_fn(model, body, kind, accept):
    if isinstance(body, bytes): return body, 'application/octet-stream'
    if body == 'die': os._exit(3)
    if body == 'hang': time.sleep(3600)
    if body == 'bad': raise ValueError('x')
    if body == 'slow': time.sleep(1.5)
    if body == 'nap': time.sleep(0.3)
    if body == 'env': return os.environ.get('GREETING', ''), 'text/plain'
    if body == 'stream': return pieces(model), 'text/plain'
    if body == 'broken': return broken(model), 'text/plain'
    if kind == 'text/csv': return body, 'text/csv'
    return model + body, 'text/plain'
def pieces(model):
    for n in range(4):
        yield model + str(n)
        time.sleep(0.3)
def broken(model):
    yield model
    raise ValueError('x')
"""
PROGRAM = {"SAGEMAKER_PROGRAM": "inference.py"}


def data(workshop: Workshop, key: str, text: bytes, script: bytes = SCRIPT) -> str:
    """A model's archive in S3; its URI."""
    packed = archive(**{"m.txt": text, "code/inference.py": script})
    workshop.s3.put_object(Bucket=workshop.bucket, Key=key, Body=packed)
    return f"s3://{workshop.bucket}/{key}"


def container(workshop: Workshop, text: str, script: bytes = SCRIPT, **more: Any) -> dict[str, Any]:
    """A container that puts `text` before what it gets."""
    url = data(workshop, f"models/{text}.tar.gz", text.encode(), script)
    return {"Image": IMAGE, "ModelDataUrl": url, "Environment": PROGRAM, **more}


def variant(model: str, name: str = "AllTraffic", **more: Any) -> dict[str, Any]:
    """A production variant."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.t2.medium",
        "InitialInstanceCount": 1,
        "VolumeSizeInGB": 1,
        **more,
    }


def model(workshop: Workshop, name: str, *containers: dict[str, Any], **more: Any) -> str:
    """A model of one container or of several."""
    what = {"PrimaryContainer": containers[0]} if len(containers) == 1 else {"Containers": list(containers)}
    workshop.sagemaker.create_model(ModelName=name, ExecutionRoleArn=workshop.role, **what, **more)
    return name


def config(workshop: Workshop, name: str, *variants: dict[str, Any], **more: Any) -> str:
    """An endpoint configuration."""
    workshop.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=list(variants), **more)
    return name


def serve(workshop: Workshop, configuration: str, name: str = "e") -> Callable[..., Any]:
    """An endpoint in service; what invokes it and gives the answer's body."""
    workshop.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=configuration)
    found = workshop.endpoint(name, "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found["FailureReason"]
    runtime = workshop.account.client("sagemaker-runtime")

    def invoke(body: bytes = b"", **more: Any) -> bytes:
        asked = {"ContentType": "text/plain", **more}
        answer: bytes = runtime.invoke_endpoint(EndpointName=name, Body=body, **asked)["Body"].read()
        return answer

    return invoke
