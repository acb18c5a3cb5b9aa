"""Jobs on a Ray cluster: where they run, what they reach, and what becomes of them when a machine is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from bastide.engines.cluster import token
from bastide.main.agent import sweep
from tests.cluster.conftest import (
    WAITS,
    Nodes,
    completed,
    lines_of,
    model_of,
    nodes_of,
    nothing_left,
    reaches,
    told_of,
)
from tests.platform import Running
from tests.stories.sagemaker.conftest import IMAGE, Workshop


def test_a_job_runs_on_a_node_sealed_in(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    running, nodes = cluster
    script = f"""
import json, os, socket
from pathlib import Path
reached = []
for host in ("127.0.0.1", {nodes.address!r}):
    for port in ({nodes.port}, 6379, 8265, 10001, 22):
        try:
            socket.create_connection((host, port), 1); reached.append([host, port])
        except OSError:
            pass
seen = [p for p in Path('/proc').iterdir() if p.name.isdecimal()]
words = {{p.name: (p / 'cmdline').read_bytes().decode(errors='replace') for p in seen}}
print(json.dumps({{"reached": reached, "ray": [k for k in os.environ if 'RAY' in k or 'BASTIDE_NODE' in k],
    "words": sorted(words.values()), "tmp": os.listdir('/tmp'), "rows": open('/opt/ml/input/data/train/part/a.csv').read(),
    "nodes": os.path.exists({str(nodes.folder)!r})}}), flush=True)
Path('/opt/ml/model/m.txt').write_text('the model')
print('acc=0.75')
"""
    shop.s3.put_object(Bucket=shop.bucket, Key="data/probe.py", Body=script.encode())
    algorithm = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "/opt/ml/input/data/train/probe.py"],
        "MetricDefinitions": [{"Name": "acc", "Regex": "acc=([0-9.]+)"}],
    }
    word = os.urandom(12).hex()
    name = shop.train(
        "", AlgorithmSpecification=algorithm, EnableNetworkIsolation=True, Environment={"SECRET_WORD": word}
    )
    job = completed(shop, name)
    assert nodes_of(job) < {"one", "two"}
    [[told]] = told_of(shop.account, name).values()
    assert (told["reached"], told["ray"], told["nodes"]) == ([], [], False)
    assert told["rows"] == "1,2\n3,4\n"
    assert not any("ray" in word for word in told["words"])  # type: ignore[attr-defined]
    assert model_of(shop, name) == ["m.txt"]
    assert job["FinalMetricDataList"][0]["Value"] == 0.75
    secret = nodes.secret.read_text().strip()
    logs = [one for one in Path("/tmp/ray/session_latest/logs").rglob("*") if one.is_file()]
    said = b"".join(one.read_bytes() for one in logs)
    said += subprocess.run(["ps", "-ewwo", "args"], capture_output=True, check=True).stdout
    assert b"NodeActor" in said
    assert not [one for one in (word, secret, token(bytes.fromhex(secret))) if one.encode() in said]
    nothing_left(running.data, nodes.folder)


def test_the_job_role_answers_on_a_node_too(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    script = """
import json, os, ssl, urllib.request
token = os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN']
asked = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'], headers={'Authorization': token})
with urllib.request.urlopen(asked) as answer:
    told = json.load(answer)
context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])
with urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'] + '/_bastide/health', context=context) as answer:
    health = json.load(answer)['status']
print(json.dumps({'key': told['AccessKeyId'][:4], 'role': told['RoleArn'], 'health': health}))
"""
    name = shop.train(script)
    completed(shop, name)
    [[told]] = told_of(shop.account, name).values()
    assert (told["key"], told["role"], told["health"]) == ("ASIA", shop.role, "ok")


def test_a_killed_platform_takes_its_jobs_on_nodes_up_again(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    running, nodes = cluster
    name = shop.train("import time\nprint('begun', flush=True)\ntime.sleep(4)\nprint('end')")
    reaches(shop, name, "Training")
    running.kill()
    nothing_left(nodes.folder)  # nodes clear themselves, whether or not the platform comes back
    running.launch()
    shop.sagemaker, shop.s3 = shop.account.client("sagemaker"), shop.account.client("s3")
    job = completed(shop, name)
    assert nodes_of(job) < {"one", "two"}
    assert [lines[-1] for lines in lines_of(shop.account, name).values()].count("end") >= 1
    nothing_left(running.data, nodes.folder)


def test_a_lost_node_fails_its_job_with_the_reason(cluster: tuple[Running, Nodes], shop: Workshop) -> None:
    running, nodes = cluster
    name = shop.train(WAITS)
    [where] = nodes_of(reaches(shop, name, "Training"))
    nodes.kill(where)
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Failed", job
    assert f"InternalServerError: The node {where} was lost while the job was on it" in job["FailureReason"]
    asyncio.run(sweep(nodes.folder / where))  # as a node does that begins on the machine
    nothing_left(running.data, nodes.folder)
