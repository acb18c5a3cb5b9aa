"""Pipelines: definitions run as real jobs, in their order, with the pipeline's role; what ran is used again, retried,
selected and stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop, archive
from tests.stories.sagemaker.pipelines import (
    LOCAL,
    OUTPUT,
    create,
    definition,
    furnish,
    get,
    given,
    governed,
    join,
    made,
    over,
    process,
    reasons,
    refused,
    start,
    steps,
    train,
    wait_for,
)
from tests.stories.sagemaker.test_guardrails import RESOURCES
from tests.stories.sagemaker.test_job_role import policy
from tests.stories.sagemaker.test_tuning import code, config
from tests.stories.sagemaker.test_tuning import definition as searched


@pytest.fixture
def shop(workshop: Workshop) -> Iterator[Workshop]:
    """A workshop with rows, whose role may run pipelines."""
    furnish(workshop)
    yield workshop


@pytest.mark.control("STG-07", lacking="Airflow's operators, which run at length only: make sdk")
@pytest.mark.control("EXP-18", "PIP-05")
def test_a_definition_runs_as_real_jobs_and_its_second_run_hits_the_cache(shop: Workshop) -> None:
    client = shop.sagemaker
    pipeline = create(shop, "lines", governed(shop), Tags=[{"Key": "team", "Value": "risk"}])
    arn = start(shop, "lines", parameters={"Rate": "0.5"})
    done = over(shop, arn)
    assert done["PipelineExecutionStatus"] == "Succeeded", reasons(shop, arn)
    assert arn.startswith(f"{pipeline}/execution/") and done["PipelineArn"] == pipeline
    found = steps(shop, arn)
    assert list(found)[:4] == ["Prepare", "Train", "Judge", "Check"]
    assert set(found) == {"Prepare", "Train", "Judge", "Check", "Model", "Register-RegisterModel"}
    assert found["Check"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    for first, then in (("Prepare", "Train"), ("Train", "Judge"), ("Judge", "Check"), ("Check", "Model")):
        assert found[first]["EndTime"] <= found[then]["StartTime"]
    team = [{"Key": "team", "Value": "risk"}]
    assert client.list_tags(ResourceArn=arn)["Tags"] == client.list_tags(ResourceArn=pipeline)["Tags"] == team
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "kept", "Value": "yes"}])
    assert len(client.list_tags(ResourceArn=arn)["Tags"]) == 2
    id = arn.rpartition("/")[2]
    job = client.describe_training_job(
        TrainingJobName=found["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    assert job["TrainingJobName"].startswith(f"pipelines-{id}-Train-")
    assert job["HyperParameters"]["rate"] == "0.5"
    assert job["ExperimentConfig"] == {"ExperimentName": "lines", "TrialName": id, "TrialComponentDisplayName": "Train"}
    assert client.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [{"Key": "team", "Value": "risk"}]
    package = client.describe_model_package(
        ModelPackageName=found["Register-RegisterModel"]["Metadata"]["RegisterModel"]["Arn"]
    )
    [container] = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == job["ModelArtifacts"]["S3ModelArtifacts"]
    assert package["MetadataProperties"]["GeneratedBy"] == arn
    components = client.list_trial_components(TrialName=id)["TrialComponentSummaries"]
    assert sorted(one["DisplayName"] for one in components) == ["Judge", "Prepare", "Train"]
    artifact = client.list_artifacts(SourceUri=package["ModelPackageArn"])["ArtifactSummaries"][0]["ArtifactArn"]
    above = client.query_lineage(StartArns=[artifact], Direction="Ascendants")["Vertices"]
    assert f"s3://{shop.bucket}/raw/" in str(client.list_artifacts(MaxResults=100)["ArtifactSummaries"])
    assert job["TrainingJobName"] in str(above) and found["Prepare"]["Metadata"]["ProcessingJob"]["Arn"].rpartition(
        "/"
    )[2] in str(above)
    rows = [
        shop.s3.get_object(Bucket=shop.bucket, Key=f"run/{one}/{one}.csv")["Body"].read()
        for one in ("train", "validation", "test")
    ]
    assert [len(one.splitlines()) for one in rows] == [70, 20, 10]
    # Again: nothing that is cached runs, the condition decides anew, and with a bound that nothing keeps the run fails.
    again = start(shop, "lines", parameters={"Rate": "0.5", "Most": "-1"})
    assert over(shop, again)["FailureReason"] == "Step failure: One or multiple steps failed."
    second = steps(shop, again)
    assert (
        second["Prepare"]["CacheHitResult"] == second["Train"]["CacheHitResult"] == {"SourcePipelineExecutionArn": arn}
    )
    assert second["Train"]["Metadata"] == found["Train"]["Metadata"]
    assert "CacheHitResult" not in second["Judge"] and second["Judge"]["Metadata"] != found["Judge"]["Metadata"]
    assert second["TooBad"]["FailureReason"] == "error above -1.0" and "Model" not in second
    assert len(client.list_training_jobs()["TrainingJobSummaries"]) == 1
    # What the role may not do fails the step that needs it, and what comes behind it does not begin.
    shop.account.client("iam").put_role_policy(
        RoleName="Execution",
        PolicyName="no",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Deny", "Action": "sagemaker:CreateTrainingJob", "Resource": "*"}],
            }
        ),
    )
    third = start(shop, "lines")
    assert over(shop, third)["PipelineExecutionStatus"] == "Failed"
    found = steps(shop, third)
    assert set(found) == {"Prepare", "Train"}
    assert (
        "sagemaker:CreateTrainingJob" in found["Train"]["FailureReason"]
        and "explicit deny" in found["Train"]["FailureReason"]
    )
    # Without any input nothing trains.
    nothing = start(shop, "lines", parameters={"Raw": f"s3://{shop.bucket}/nothing/"})
    assert over(shop, nothing)["PipelineExecutionStatus"] == "Failed"
    found = steps(shop, nothing)
    assert set(found) == {"Prepare"} and "no objects found" in found["Prepare"]["FailureReason"]
    # Told and searched.
    assert [
        one["PipelineExecutionArn"]
        for one in client.list_pipeline_executions(PipelineName="lines")["PipelineExecutionSummaries"]
    ] == [nothing, third, again, arn]
    assert {
        one["Name"]: one["Value"]
        for one in client.list_pipeline_parameters_for_execution(PipelineExecutionArn=again)["PipelineParameters"]
    }["Most"] == "-1.0"
    [hit] = client.search(
        Resource="PipelineExecution",
        SearchExpression={"Filters": [{"Name": "PipelineExecutionStatus", "Value": "Succeeded"}]},
    )["Results"]
    assert hit["PipelineExecution"]["PipelineExecutionArn"] == arn
    [hit] = client.search(Resource="Pipeline", SearchExpression={"Filters": [{"Name": "Tags.team", "Value": "risk"}]})[
        "Results"
    ]
    assert hit["Pipeline"]["PipelineArn"] == pipeline


@pytest.mark.control("STG-07", lacking="Airflow's operators, which run at length only: make sdk")
@pytest.mark.control("EXP-18")
def test_what_is_no_definition_is_refused_with_what_to_change(shop: Workshop) -> None:
    client = shop.sagemaker
    first, second = process(shop, "First", ""), process(shop, "Second", "", DependsOn=["First"])
    circle = [{**first, "DependsOn": ["Second"]}, second]
    unknown = {**first, "Type": "Teleport"}
    cases: dict[str, Any] = {
        "First -> Second -> First": definition(*circle),
        "unknown Type; it is one of": definition(unknown),
        "needs a CheckType out of DATA_BIAS": definition({**first, "Type": "ClarifyCheck"}),
        "which Bastide has not: there is no EMR": definition({**first, "Type": "EMR"}),
        "refers to Nothing, which is no step": definition({
            **first, "Arguments": {"RoleArn": get("Steps.Nothing.ProcessingJobName")}}),
        "which is no property of a Processing step": definition(first, {
            **second, "Arguments": {"RoleArn": get("Steps.First.ModelArtifacts.S3ModelArtifacts")}}),
        "refers to the parameter Nobody": definition({**first, "Arguments": {"RoleArn": get("Parameters.Nobody")}}),
        "two steps First": definition(first, first),
        "needs Steps": definition(),
        "needs the Version 2020-12-01": {**definition(first), "Version": "2019-01-01"},
        "nested more than 64 deep": json.loads('{"a":' * 80 + "1" + "}" * 80),
        "is no JSON": "{",
        "ExpireAfter `soon` is no duration": definition({**first, "CacheConfig": {"Enabled": True, "ExpireAfter": "soon"}}),
        "at most 50 steps": definition(*({**first, "Name": f"S{number}"} for number in range(51))),
    }  # fmt: skip
    for words, told in cases.items():
        text = told if isinstance(told, str) else json.dumps(told)
        answer = refused(client.create_pipeline, PipelineName="p", PipelineDefinition=text, RoleArn=shop.role)
        assert answer.startswith("ValidationException") and words in answer
    assert client.list_pipelines()["PipelineSummaries"] == []
    arn = create(shop, "p", definition(first))
    assert "already exists" in refused(
        client.create_pipeline, PipelineName="p", PipelineDefinition="{}", RoleArn=shop.role
    )
    for words, parameters in (
        ("no default: please give its value", {}),
        ("no parameter Nobody", {"Nobody": "1", "Raw": "x"}),
        ("is no Integer", {"Count": "one", "Raw": "x"}),
        ("not one of its EnumValues: 0.25, 0.5", {"Rate": "0.75", "Raw": "x"}),
    ):
        listed = [{"Name": key, "Value": value} for key, value in parameters.items()]
        assert words in refused(client.start_pipeline_execution, PipelineName="p", PipelineParameters=listed)
    missing = f"{arn}/execution/aaaaaaaaaaaa"
    for call in (client.describe_pipeline_execution, client.stop_pipeline_execution, client.retry_pipeline_execution,
                 client.list_pipeline_execution_steps, client.describe_pipeline_definition_for_execution):  # fmt: skip
        assert refused(call, PipelineExecutionArn=missing).startswith("ResourceNotFound")
    assert refused(client.describe_pipeline, PipelineName="q").startswith("ResourceNotFound")
    assert refused(client.send_pipeline_execution_step_success, CallbackToken="a" * 10).startswith("ResourceNotFound")
    client.delete_pipeline(PipelineName="p")
    assert client.list_pipelines()["PipelineSummaries"] == []


def test_who_may_run_what_as_whom(shop: Workshop) -> None:
    """Passing the role is asked of whoever creates, updates or names another one; so is reading a definition in S3."""
    account, told = shop.account, json.dumps(definition(process(shop, "A", "print(1)")))
    account.role("Maker", allow("sagemaker:*"))
    maker = account.client("sagemaker", account.as_role("Maker"))
    given = {"PipelineName": "p", "RoleArn": shop.role}
    assert "iam:PassRole" in refused(maker.create_pipeline, **given, PipelineDefinition=told)
    place = {"Bucket": shop.bucket, "ObjectKey": "p.json"}
    shop.s3.put_object(Bucket=shop.bucket, Key="p.json", Body=told.encode())
    account.role("Passer", allow("sagemaker:*", "iam:PassRole"))
    passer = account.client("sagemaker", account.as_role("Passer"))
    assert "cannot be read" in refused(passer.create_pipeline, **given, PipelineDefinitionS3Location=place)
    shop.sagemaker.create_pipeline(**given, PipelineDefinitionS3Location=place)
    assert shop.sagemaker.describe_pipeline(PipelineName="p")["PipelineDefinition"] == told
    account.role("Starter", allow("sagemaker:StartPipelineExecution", "sagemaker:DescribePipelineExecution"))
    starter = account.client("sagemaker", account.as_role("Starter"))
    values = [{"Name": "Raw", "Value": "x"}]
    assert "iam:PassRole" in refused(
        starter.start_pipeline_execution, PipelineName="p", PipelineParameters=values, RoleArn=shop.role
    )
    token = "t" * 32
    arns = {
        starter.start_pipeline_execution(PipelineName="p", PipelineParameters=values, ClientRequestToken=token)[
            "PipelineExecutionArn"
        ]
        for _ in range(2)
    }
    [arn] = arns
    assert over(shop, arn)["PipelineExecutionStatus"] == "Succeeded", reasons(shop, arn)
    assert refused(
        starter.start_pipeline_execution, PipelineName="p", PipelineParameters=values * 2, ClientRequestToken=token
    ).startswith("ConflictException")
    # A role that SageMaker may take on for this pipeline's executions only; and one that nobody may take on.
    trust = {
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole",
            "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:*:{account.id}:pipeline/p/*"}},
        }],
    }  # fmt: skip
    iam = account.client("iam")
    narrow = iam.create_role(RoleName="Narrow", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    shop.sagemaker.update_pipeline(PipelineName="p", RoleArn=narrow)
    arn = start(shop, "p")
    assert over(shop, arn)["PipelineExecutionStatus"] == "Failed"
    assert "sagemaker:CreateProcessingJob" in steps(shop, arn)["A"]["FailureReason"]
    create(shop, "q", json.loads(told))
    shop.sagemaker.update_pipeline(PipelineName="q", RoleArn=narrow)
    assert "Could not assume role" in refused(
        shop.sagemaker.start_pipeline_execution, PipelineName="q", PipelineParameters=values
    )


def test_steps_run_beside_each_other_stop_and_are_retried_and_selected(shop: Workshop) -> None:
    client = shop.sagemaker
    waits = f"import os, sys, time\ntime.sleep(100 if os.path.exists('{LOCAL}/raw/slow') else 0)\nprint('through')"
    raw = given("raw", get("Parameters.Raw"))
    out = made("made", f"s3://{shop.bucket}/made")
    fails = f"import os, sys\nsys.exit('no luck' if os.path.exists('{LOCAL}/raw/unlucky') else 0)"
    told = definition(
        process(shop, "Make", f"open('{LOCAL}/made/a', 'w').write('a')", outputs=[out]),
        process(shop, "Slow", waits, raw),
        process(shop, "Picky", fails, raw, given("made", get(f"Steps.Make.{OUTPUT.format('made')}"))),
        process(shop, "Last", "print(1)", DependsOn=["Picky", "Slow"]),
    )  # fmt: skip
    create(shop, "p", told, ParallelismConfiguration={"MaxParallelExecutionSteps": 2})
    shop.s3.put_object(Bucket=shop.bucket, Key="raw/slow", Body=b"x")
    arn = start(shop, "p")
    wait_for(shop, arn, "Picky", "Succeeded")
    found = steps(shop, arn)
    assert found["Slow"]["StepStatus"] == "Executing" and "Last" not in found
    assert found["Make"]["EndTime"] <= found["Picky"]["StartTime"]  # the third found room when the first had ended
    slow = found["Slow"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
    assert refused(client.retry_pipeline_execution, PipelineExecutionArn=arn).startswith("ValidationException")
    assert refused(client.delete_pipeline, PipelineName="p").startswith("ConflictException")
    client.update_pipeline_execution(PipelineExecutionArn=arn, PipelineExecutionDisplayName="mine")
    client.stop_pipeline_execution(PipelineExecutionArn=arn)
    done = over(shop, arn)
    assert (done["PipelineExecutionStatus"], done["PipelineExecutionDisplayName"]) == ("Stopped", "mine")
    assert {name: one["StepStatus"] for name, one in steps(shop, arn).items()} == {
        "Make": "Succeeded", "Slow": "Stopped", "Picky": "Succeeded",
    }  # fmt: skip
    assert client.describe_processing_job(ProcessingJobName=slow)["ProcessingJobStatus"] == "Stopped"
    shop.s3.delete_object(Bucket=shop.bucket, Key="raw/slow")
    client.retry_pipeline_execution(PipelineExecutionArn=arn)
    done = over(shop, arn)
    again = steps(shop, arn)
    assert done["PipelineExecutionStatus"] == "Succeeded" and again["Last"]["StepStatus"] == "Succeeded"
    assert again["Make"] == found["Make"] and again["Slow"]["Metadata"] != found["Slow"]["Metadata"]
    # Another execution fails, nothing new begins; a selective one runs what was chosen, with what the other one made.
    shop.s3.put_object(Bucket=shop.bucket, Key="raw/unlucky", Body=b"x")
    failed = start(shop, "p")
    assert over(shop, failed)["PipelineExecutionStatus"] == "Failed"
    found = steps(shop, failed)
    assert "no luck" in found["Picky"]["FailureReason"] and "Last" not in found
    shop.s3.delete_object(Bucket=shop.bucket, Key="raw/unlucky")
    chosen = [{"StepName": "Picky"}, {"StepName": "Last"}]
    values = [{"Name": "Raw", "Value": f"s3://{shop.bucket}/raw/"}]
    assert "give the SourcePipelineExecutionArn" in refused(
        client.start_pipeline_execution, PipelineName="p", PipelineParameters=values,
        SelectiveExecutionConfig={"SelectedSteps": chosen},
    )  # fmt: skip
    config = {"SelectedSteps": chosen, "SourcePipelineExecutionArn": failed}
    arn = client.start_pipeline_execution(PipelineName="p", SelectiveExecutionConfig=config)["PipelineExecutionArn"]
    assert over(shop, arn)["PipelineExecutionStatus"] == "Succeeded", reasons(shop, arn)
    found = steps(shop, arn)
    assert set(found) == {"Make", "Picky", "Last"}
    assert found["Make"]["SelectiveExecutionResult"] == {"SourcePipelineExecutionArn": failed}
    client.delete_pipeline(PipelineName="p")
    assert refused(client.describe_pipeline_execution, PipelineExecutionArn=arn).startswith("ResourceNotFound")


def test_versions_keep_what_ran_and_have_aliases(shop: Workshop) -> None:
    client, told = shop.sagemaker, [definition(process(shop, name, "print(1)")) for name in "AB"]
    pipeline = create(shop, "p", told[0], PipelineVersionAliases=["stable"])
    updated = client.update_pipeline(PipelineName="p", PipelineDefinition=json.dumps(told[1]), PipelineDescription="d")
    assert updated["PipelineVersionId"] == 2
    assert client.update_pipeline(PipelineName="p", PipelineDescription="e")["PipelineVersionId"] == 2
    newest, first = (
        client.describe_pipeline(PipelineName="p"),
        client.describe_pipeline(PipelineName=pipeline, PipelineVersionAlias="stable"),
    )
    assert json.loads(newest["PipelineDefinition"]) == told[1] and json.loads(first["PipelineDefinition"]) == told[0]
    arns = [start(shop, "p", PipelineVersionId=1), start(shop, "p")]
    assert [list(steps(shop, arn)) for arn in arns if over(shop, arn)] == [["A"], ["B"]]
    assert (
        json.loads(
            client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arns[0])["PipelineDefinition"]
        )
        == told[0]
    )
    client.update_pipeline_version(
        PipelineArn=pipeline,
        PipelineVersionId=2,
        PipelineVersionDisplayName="two",
        PipelineVersionAliasOperations={"Add": ["stable"]},
    )
    listed = client.list_pipeline_versions(PipelineName="p")["PipelineVersionSummaries"]
    members = ("PipelineVersionId", "PipelineVersionAliases", "LastExecutionPipelineExecutionArn")
    assert [tuple(one[member] for member in members) for one in listed] == [
        (2, ["stable"], arns[1]), (1, [], arns[0]),
    ]  # fmt: skip
    assert [
        one["PipelineExecutionArn"]
        for one in client.list_pipeline_executions(PipelineName="p", PipelineVersionAlias="stable")[
            "PipelineExecutionSummaries"
        ]
    ] == [arns[1]]
    assert refused(client.describe_pipeline, PipelineName="p", PipelineVersionId=3).startswith("ResourceNotFound")


SERVER = b"""
import os
def model_fn(folder): return open(os.path.join(folder, 'word')).read()
def input_fn(body, kind): return body
def predict_fn(data, word): return word
def output_fn(answer, accept): return answer, 'text/plain'
"""


@pytest.mark.control("EXP-18")
def test_an_endpoint_is_deployed_and_updated_in_place(shop: Workshop) -> None:
    """The second run updates what the first one made; caches, conditions and jobs apart, deployment is a step too."""
    for word in ("first", "second"):
        packed = archive(**{"code/inference.py": SERVER, "word": word.encode()})
        shop.s3.put_object(Bucket=shop.bucket, Key=f"{word}.tar.gz", Body=packed)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": join(f"s3://{shop.bucket}", join(get("Parameters.Raw"), ".tar.gz", on="")),
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    variant = {"VariantName": "v", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1, "VolumeSizeInGB": 1}
    told = definition(
        {"Name": "M", "Type": "Model", "Arguments": {"ExecutionRoleArn": shop.role, "PrimaryContainer": container}},
        {"Name": "C", "Type": "EndpointConfig", "Arguments": {
            "ProductionVariants": [{**variant, "ModelName": get("Steps.M.ModelName")}]}},
        {"Name": "E", "Type": "Endpoint", "Arguments": {
            "EndpointName": "live", "EndpointConfigName": get("Steps.C.EndpointConfigName")}},
    )  # fmt: skip
    create(shop, "p", told)
    runtime = shop.account.client("sagemaker-runtime")
    for word in ("first", "second"):
        arn = start(shop, "p", parameters={"Raw": word})
        assert over(shop, arn)["PipelineExecutionStatus"] == "Succeeded", reasons(shop, arn)
        body = runtime.invoke_endpoint(EndpointName="live", Body=b"x", ContentType="text/plain")["Body"].read()
        assert body.decode() == word
    assert [one["EndpointName"] for one in shop.sagemaker.list_endpoints()["Endpoints"]] == ["live"]


TRIAL = """
import argparse, os, shutil
parser = argparse.ArgumentParser()
parser.add_argument('--at', type=float)
x = parser.parse_known_args()[0].at
print(f'loss={x * x:.6f};')
os.makedirs('/opt/ml/model/code')
text = "def model_fn(f): return open(f + '/x').read()\\ndef input_fn(b, k): return b\\n"
text += "def predict_fn(d, m): return m\\ndef output_fn(p, a): return p, 'text/plain'\\n"
open('/opt/ml/model/code/inference.py', 'w').write(text)
open('/opt/ml/model/x', 'w').write(str(x))
"""


@pytest.mark.control("GRD-05", "EXP-18")
def test_jobs_of_a_pipeline_are_held_to_the_guardrails_of_its_role(shop: Workshop, mission: Path) -> None:
    """Also: the best trial of a tuning step becomes a model that a transform step uses."""
    iam, key = shop.account.client("iam"), shop.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    guardrail = json.dumps(policy(mission, "22-guardrail-job-volume-encryption.json"))
    iam.put_role_policy(RoleName="Execution", PolicyName="guardrail", PolicyDocument=guardrail)
    shop.s3.put_object(Bucket=shop.bucket, Key="in/a.csv", Body=b"1\n")
    shop.s3.put_object(Bucket=shop.bucket, Key="ready/train.csv", Body=b"1,2\n2,4\n")
    container = {
        "Image": IMAGE,
        "ModelDataUrl": join(
            f"s3://{shop.bucket}/out", get("Steps.Tune.TrainingJobSummaries[0].TrainingJobName"), "output/model.tar.gz"
        ),
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }

    def four(name: Any, **volume: str) -> dict[str, Any]:
        trial = searched(shop, static={"sagemaker_submit_directory": code(shop, TRIAL)})
        trial["HyperParameterTuningResourceConfig"] |= volume
        prepare, fit = process(shop, "Prepare", "print(1)"), train(shop, f"s3://{shop.bucket}/ready/")
        prepare["Arguments"]["ProcessingResources"]["ClusterConfig"] |= volume
        fit["Arguments"]["ResourceConfig"] = {**RESOURCES, **volume}
        tune = {"HyperParameterTuningJobConfig": config(most=2), "TrainingJobDefinition": trial}
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{shop.bucket}/in/"}
        transform = {
            "ModelName": name,
            "TransformInput": {"DataSource": {"S3DataSource": source}},
            "TransformOutput": {"S3OutputPath": f"s3://{shop.bucket}/scored", "KmsKeyId": key},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1, **volume},
        }
        model = {"ExecutionRoleArn": shop.role, "PrimaryContainer": container}
        told = {"Tune": ("Tuning", tune), "Model": ("Model", model), "Score": ("Transform", transform)}
        more = [{"Name": one, "Type": type, "Arguments": given} for one, (type, given) in told.items()]
        return definition(prepare, fit, *more)

    create(shop, "open", four("any"))
    arn = start(shop, "open")
    assert over(shop, arn)["PipelineExecutionStatus"] == "Failed"
    found = steps(shop, arn)
    assert set(found) == {"Prepare", "Train", "Tune", "Score"}
    for one in found.values():
        assert one["StepStatus"] == "Failed" and "with an explicit deny" in one["FailureReason"]
    create(shop, "sealed", four(get("Steps.Model.ModelName"), VolumeKmsKeyId=key))
    arn = start(shop, "sealed")
    assert over(shop, arn)["PipelineExecutionStatus"] == "Succeeded", reasons(shop, arn)
    tuning = steps(shop, arn)["Tune"]["Metadata"]["TuningJob"]["Arn"].rpartition("/")[2]
    best = shop.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)["BestTrainingJob"]
    scored = shop.s3.get_object(Bucket=shop.bucket, Key="scored/a.csv.out")["Body"].read().decode()
    assert scored == str(float(best["TunedHyperParameters"]["at"]))
