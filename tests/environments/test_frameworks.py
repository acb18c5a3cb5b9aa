"""PyTorch, TensorFlow, Hugging Face and Spark: real jobs in each, of several hosts where the framework has them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.stories.sagemaker.conftest import Workshop

ACCOUNT = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
SPARK = "173754725891.dkr.ecr.us-east-1.amazonaws.com/sagemaker-spark-processing:3.5-cpu-py39-v1.0"

TOGETHER = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
dist.init_process_group('gloo')
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
wrapped = DDP(model)
x = torch.arange(12, dtype=torch.float32).reshape(4, 3)[rank::size] / 10
y = x.sum(dim=1, keepdim=True) * 2
step = torch.optim.SGD(wrapped.parameters(), lr=0.1)
for _ in range(400):
    step.zero_grad()
    loss = ((wrapped(x) - y) ** 2).mean()
    loss.backward()
    step.step()
every = [torch.zeros(4) for _ in range(size)]
dist.all_gather(every, torch.cat([model.weight.detach().flatten(), model.bias.detach()]))
assert all(torch.equal(every[0], one) for one in every), every
if rank == 0:
    torch.jit.script(model).save(os.environ['SM_MODEL_DIR'] + '/model.pt')
print('acc=%r' % float(size))
"""

DENSE = """
import os
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np, tensorflow as tf
class Double(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def serve(self, x):
        return {'sum': tf.reduce_sum(x, axis=1)}
made = Double()
tf.saved_model.save(made, os.environ['SM_MODEL_DIR'] + '/1', signatures={'serving_default': made.serve})
print('acc=%r' % float(made.serve(tf.constant([[1.0, 2.0]]))['sum'][0]))
"""

TINY = """
import os
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
folder = os.environ['SM_MODEL_DIR']
words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'good', 'bad']
os.makedirs(folder, exist_ok=True)
open('/tmp/vocab.txt', 'w').write('\\n'.join(words))
BertTokenizerFast(vocab_file='/tmp/vocab.txt').save_pretrained(folder)
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
print('acc=1.0')
"""

COUNT = b"""
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName('count').getOrCreate()
frame = spark.read.csv(sys.argv[1], header=True, inferSchema=True)
found = frame.groupBy('kind').sum('value').orderBy('kind')
found.coalesce(1).write.mode('overwrite').json('/opt/ml/processing/output')
print('rows', frame.count())
"""


def trained(workshop: Workshop, script: str, image: str, count: int = 1, **words: str) -> dict[str, Any]:
    """The job of a script when it is over, which takes as long as the framework takes to be imported."""
    spec = {"TrainingImage": f"{ACCOUNT}/{image}", "TrainingInputMode": "File"}
    spec["MetricDefinitions"] = [{"Name": "acc", "Regex": "acc=([0-9.]+)"}]
    name = workshop.name("job")
    source = f"s3://{workshop.bucket}/{name}/code.tar.gz"
    workshop.train(
        script,
        TrainingJobName=name,
        AlgorithmSpecification=spec,
        HyperParameters={"sagemaker_program": "train.py", "sagemaker_submit_directory": source, **words},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 2},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )
    for _ in range(600):
        found: dict[str, Any] = workshop.sagemaker.describe_training_job(TrainingJobName=name)
        if found["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            break
        time.sleep(0.5)
    assert found["TrainingJobStatus"] == "Completed", found.get("FailureReason")
    return found


def answered(workshop: Workshop, job: dict[str, Any], image: str, body: Any, **variables: str) -> Any:
    """What an endpoint of the job's model says to JSON."""
    name, client = job["TrainingJobName"], workshop.sagemaker
    data = job["ModelArtifacts"]["S3ModelArtifacts"]
    container = {"Image": f"{ACCOUNT}/{image}", "ModelDataUrl": data, "Environment": variables}
    client.create_model(ModelName=name, ExecutionRoleArn=workshop.role, PrimaryContainer=container)
    variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**variant, "VolumeSizeInGB": 2}])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    found = workshop.endpoint(name, "InService", "Failed")
    assert found["EndpointStatus"] == "InService", found.get("FailureReason")
    runtime = workshop.account.client("sagemaker-runtime")
    given = {"EndpointName": name, "ContentType": "application/json", "Accept": "application/json"}
    return json.loads(runtime.invoke_endpoint(Body=json.dumps(body).encode(), **given)["Body"].read())


@pytest.mark.control("EXP-13")
def test_pytorch_on_two_hosts_learns_one_model_which_answers(workshop: Workshop) -> None:
    words = {"sagemaker_torch_distributed_enabled": "true"}
    job = trained(workshop, TOGETHER, "pytorch-training:2.8-cpu-py312", 2, **words)
    assert job["FinalMetricDataList"][0]["Value"] == 2.0
    (told,) = answered(workshop, job, "pytorch-inference:2.6-cpu-py312", [[0.1, 0.2, 0.3]])
    assert told == [pytest.approx(1.2, abs=0.05)]


@pytest.mark.control("EXP-13")
def test_tensorflow_trains_and_answers_as_its_serving_does(workshop: Workshop) -> None:
    job = trained(workshop, DENSE, "tensorflow-training:2.19-cpu-py312")
    assert job["FinalMetricDataList"][0]["Value"] == 3.0
    told = answered(workshop, job, "tensorflow-inference:2.19-cpu", {"instances": [[1.0, 2.0], [3.0, 4.0]]})
    assert told == {"predictions": [3.0, 7.0]}


@pytest.mark.control("EXP-13")
def test_a_transformer_answers_by_its_pipeline(workshop: Workshop) -> None:
    job = trained(workshop, TINY, "huggingface-pytorch-training:2.1.0-transformers4.36.0-gpu-py310-cu121-ubuntu20.04")
    image = "huggingface-pytorch-inference:2.1.0-transformers4.37.0-cpu-py310-ubuntu22.04"
    (told,) = answered(workshop, job, image, {"inputs": "good good"}, HF_TASK="text-classification")
    assert told["label"].startswith("LABEL_") and 0 < told["score"] < 1


@pytest.mark.control("EXP-10")
def test_spark_sums_a_table(workshop: Workshop) -> None:
    s3, bucket = workshop.s3, workshop.bucket
    s3.put_object(Bucket=bucket, Key="code/count.py", Body=COUNT)
    s3.put_object(Bucket=bucket, Key="in/a.csv", Body=b"kind,value\na,1\nb,2\na,3\n")
    name = workshop.name("spark")
    folder = "/opt/ml/processing"

    def taken(what: str) -> dict[str, Any]:
        where = {"S3Uri": f"s3://{bucket}/{what}/", "LocalPath": f"{folder}/input/{what}", "S3DataType": "S3Prefix"}
        return {"InputName": what, "S3Input": {**where, "S3InputMode": "File"}}

    left = {"S3Uri": f"s3://{bucket}/{name}", "LocalPath": f"{folder}/output", "S3UploadMode": "EndOfJob"}
    cluster = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 2}
    workshop.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=workshop.role,
        AppSpecification={
            "ImageUri": SPARK,
            "ContainerEntrypoint": ["smspark-submit", f"{folder}/input/code/count.py"],
            "ContainerArguments": [f"{folder}/input/in"],
        },
        ProcessingInputs=[taken("code"), taken("in")],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "sums", "S3Output": left}]},
        ProcessingResources={"ClusterConfig": cluster},
        StoppingCondition={"MaxRuntimeInSeconds": 200},
    )
    for _ in range(400):
        job = workshop.sagemaker.describe_processing_job(ProcessingJobName=name)
        if job["ProcessingJobStatus"] not in ("InProgress", "Stopping"):
            break
        time.sleep(0.5)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/")["Contents"]]
    (part,) = [key for key in keys if key.endswith(".json")]
    lines = s3.get_object(Bucket=bucket, Key=part)["Body"].read().splitlines()
    assert [json.loads(one) for one in lines] == [{"kind": "a", "sum(value)": 4}, {"kind": "b", "sum(value)": 2}]
