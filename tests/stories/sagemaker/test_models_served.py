"""Models of several containers, containers of several models, and data that is no archive."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive
from tests.stories.sagemaker.serving import PROGRAM, SCRIPT, config, container, data, model, serve, until, variant

CODE = (
    SCRIPT
    + b"""
import json
def transform_fn(model, body, kind, accept):
    if body == 'bad': raise ValueError('x')
    return json.dumps([model, body, kind, accept]), 'application/json'
"""
)


def test_a_pipeline_passes_each_answer_on(workshop: Workshop) -> None:
    first = container(workshop, "1")
    first["Environment"] = {**PROGRAM, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"}
    last = container(workshop, "2", CODE, ContainerHostname="judge")
    model(workshop, "pipeline", first, last)
    shown = workshop.sagemaker.describe_model(ModelName="pipeline")
    assert [one.get("ContainerHostname") for one in shown["Containers"]] == [None, "judge"]
    assert "PrimaryContainer" not in shown
    invoke = serve(workshop, config(workshop, "pipeline", variant("pipeline")))
    # The answer's content type is the next request's, and Accept is for the last container alone.
    assert invoke(b"x", Accept="application/json") == b'["2", "1x", "text/plain", "application/json"]'
    with pytest.raises(ClientError, match="from container-1 with message") as refused:
        invoke(b"bad")
    assert refused.value.response["OriginalStatusCode"] == 500
    with pytest.raises(ClientError, match="Direct"):
        invoke(b"x", TargetContainerHostname="judge")
    found = workshop.sagemaker.describe_endpoint(EndpointName="e")
    assert len(found["ProductionVariants"][0]["DeployedImages"]) == 2
    with pytest.raises(ClientError, match="occurs twice"):
        twice = [{**first, "ContainerHostname": "one"}, {**last, "ContainerHostname": "one"}]
        model(workshop, "twice", *twice)
    with pytest.raises(ClientError, match="less than or equal to 15"):
        model(workshop, "many", *([first] * 16))


def test_containers_are_invoked_directly_by_name(workshop: Workshop) -> None:
    direct = {"InferenceExecutionConfig": {"Mode": "Direct"}}
    one, two = container(workshop, "1"), container(workshop, "2")
    with pytest.raises(ClientError, match="ContainerHostname is needed"):
        model(workshop, "direct", one, two, **direct)
    named = [{**one, "ContainerHostname": "left"}, {**two, "ContainerHostname": "right"}]
    model(workshop, "direct", *named, **direct)
    invoke = serve(workshop, config(workshop, "direct", variant("direct")))
    assert invoke(b"x", TargetContainerHostname="left") == b"1x"
    assert invoke(b"x", TargetContainerHostname="right") == b"2x"
    with pytest.raises(ClientError, match="TargetContainerHostname is needed"):
        invoke(b"x")
    with pytest.raises(ClientError, match="no container middle"):
        invoke(b"x", TargetContainerHostname="middle")


def test_several_models_behind_one_endpoint_are_loaded_when_asked_for(workshop: Workshop) -> None:
    for name in ("a", "b"):
        data(workshop, f"many/{name}.tar.gz", name.encode())
    workshop.s3.put_object(Bucket=workshop.bucket, Key="many/broken.tar.gz", Body=archive(nothing=b""))
    prefix = f"s3://{workshop.bucket}/many/"
    many = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": prefix, "Environment": PROGRAM}
    model(workshop, "many", many)
    invoke = serve(workshop, config(workshop, "many", variant("many")))
    assert invoke(b"x", TargetModel="a.tar.gz") == b"ax"
    assert invoke(b"x", TargetModel="/b.tar.gz") == b"bx"
    # One that comes later is served too; one that is not there, or cannot be loaded, is said to be so.
    with pytest.raises(ClientError, match="Failed to download model data") as refused:
        invoke(b"x", TargetModel="c.tar.gz")
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    data(workshop, "many/c.tar.gz", b"c")
    assert invoke(b"x", TargetModel="c.tar.gz") == b"cx"
    with pytest.raises(ClientError, match="could not be loaded") as refused:
        invoke(b"x", TargetModel="broken.tar.gz")
    assert refused.value.response["Error"]["Code"] == "ModelError"
    for name in ("../models/A.tar.gz", "many/../a.tar.gz"):
        with pytest.raises(ClientError, match="is not the name of an archive"):
            invoke(b"x", TargetModel=name)
    with pytest.raises(ClientError, match="TargetModel is needed"):
        invoke(b"x")
    # The end of one model is no other's, and it comes back.
    with pytest.raises(ClientError, match="The process of the model ended"):
        invoke(b"die", TargetModel="a.tar.gz")
    assert invoke(b"x", TargetModel="b.tar.gz") == b"bx"
    assert until(lambda: invoke(b"x", TargetModel="a.tar.gz")) == b"ax"


def test_who_may_invoke_which_of_several_models_is_the_policies_business(workshop: Workshop) -> None:
    data(workshop, "many/a.tar.gz", b"a")
    data(workshop, "many/secret.tar.gz", b"s")
    prefix = f"s3://{workshop.bucket}/many/"
    many = {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": prefix, "Environment": PROGRAM}
    model(workshop, "many", many)
    serve(workshop, config(workshop, "many", variant("many")))
    condition = {"StringEquals": {"sagemaker:TargetModel": "a.tar.gz"}}
    workshop.account.role("Caller", allow("sagemaker:InvokeEndpoint", Condition=condition))
    caller = workshop.account.client("sagemaker-runtime", workshop.account.as_role("Caller"))
    asked = {"EndpointName": "e", "Body": b"x", "ContentType": "text/plain"}
    assert caller.invoke_endpoint(**asked, TargetModel="a.tar.gz")["Body"].read() == b"ax"
    for more in ({"TargetModel": "secret.tar.gz"}, {}):
        with pytest.raises(ClientError, match="not authorized"):
            caller.invoke_endpoint(**asked, **more)


@pytest.mark.control("SVR-05", lacking="batch transform")
def test_a_models_files_come_as_they_are_with_the_models_role(workshop: Workshop) -> None:
    for key, body in (("m.txt", b"plain"), ("code/inference.py", SCRIPT)):
        workshop.s3.put_object(Bucket=workshop.bucket, Key=f"plain/{key}", Body=body)
    source = {"S3Uri": f"s3://{workshop.bucket}/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    plain = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}, "Environment": PROGRAM}
    model(workshop, "plain", plain)
    packed = {"S3Uri": data(workshop, "gz.tar.gz", b"gz"), "S3DataType": "S3Object", "CompressionType": "Gzip"}
    model(workshop, "gz", {**plain, "ModelDataSource": {"S3DataSource": packed}})
    invoke = serve(workshop, config(workshop, "both", variant("plain", "Plain"), variant("gz", "Gz")))
    assert invoke(b"x", TargetVariant="Plain") == b"plainx"
    assert invoke(b"x", TargetVariant="Gz") == b"gzx"
    for wrong in (
        {**source, "CompressionType": "Gzip"},
        {**source, "S3Uri": source["S3Uri"].rstrip("/")},
        {**source, "ManifestS3Uri": source["S3Uri"]},
    ):
        with pytest.raises(ClientError, match="ValidationException"):
            model(workshop, "wrong", {**plain, "ModelDataSource": {"S3DataSource": wrong}})
    # The role decides: one that may not read the files serves nothing, whoever asked for the endpoint.
    blind = workshop.account.role("Blind", allow("logs:*"), trust={"Service": "sagemaker.amazonaws.com"})
    workshop.sagemaker.create_model(ModelName="blind", ExecutionRoleArn=blind, PrimaryContainer=plain)
    config(workshop, "blind", variant("blind"))
    workshop.sagemaker.create_endpoint(EndpointName="blind", EndpointConfigName="blind")
    assert "AccessDenied" in workshop.endpoint("blind", "Failed", "InService")["FailureReason"]
