"""``python -m tests.bench.hosting``: what InvokeEndpoint costs over the bare model server.

The same server in its sandbox is asked twice, in turn: through the platform (signed, decided, recorded, all data captured)
and straight at its unix socket. One model answers a constant, another takes 5 ms of CPU for each answer, with one worker:
the first shows what a call costs, the second how much of such a server's throughput is left. Peers that are
installed below ``.bench/`` (see ``peers/``) serve the second model beside it. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import measure, signing
from .hosting_peers import PEERS
from .measure import Sample, middle
from .servers import Bastide
from .workload import BARE_INVOCATION, IMAGE, INVOCATION, VARIETIES, Stage, answers_ping, set_up

BUSY = "import time\nuntil = time.thread_time() + 0.005\nwhile time.thread_time() < until: pass\n"
MODELS = {"constant": "pass\n", "5 ms": BUSY}
CLIENTS = (1, 8)
SCRIPT = """
def model_fn(folder):
    return None
def transform_fn(model, body, content_type, accept):
{body}    return "1.0", "text/plain"
"""


def deploy(stage: Stage, name: str, body: str) -> None:
    """An endpoint whose model runs `body` for every answer, with everything captured."""
    script = SCRIPT.format(body="".join(f"    {line}\n" for line in body.splitlines())).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(script)
        archive.addfile(entry, io.BytesIO(script))
    key = f"served/{name}.tar.gz"
    signing.client("s3", stage.admin).put_object(Bucket=stage.bucket, Key=key, Body=packed.getvalue())
    sagemaker = signing.client("sagemaker", stage.admin)
    container = {
        "Image": IMAGE,
        "ModelDataUrl": f"s3://{stage.bucket}/{key}",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=stage.role, PrimaryContainer=container)
    variant = {"VariantName": "only", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{stage.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], DataCaptureConfig=capture)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    while (status := sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]) == "Creating":
        time.sleep(0.1)
    if status != "InService":
        raise RuntimeError(f"the endpoint {name} is {status}")


def withdraw(stage: Stage, name: str) -> None:
    """Ends the endpoint."""
    sagemaker = signing.client("sagemaker", stage.admin)
    sagemaker.delete_endpoint(EndpointName=name)
    while any(one["EndpointName"] == name for one in sagemaker.list_endpoints()["Endpoints"]):
        time.sleep(0.1)


def compare(stage: Stage, name: str, repeats: int, seconds: float) -> dict[str, dict[int, Sample]]:
    """The same server through the platform and bare, in turn."""
    assert isinstance(stage.server, Bastide)
    path = stage.server.model_server_socket(answers_ping)
    if path is None:
        raise RuntimeError("no unix socket of the model server was found below the data folder")
    asked = {"EndpointName": name, "ContentType": "text/csv", "Body": INVOCATION}
    found: dict[str, dict[int, list[Sample]]] = {"bare": {}, "through": {}}
    for _ in range(repeats):
        for clients in CLIENTS:
            shape: dict[str, Any] = {"clients": clients, "seconds": seconds, "warm": 4 * clients}
            bare = {**shape, "requests": [BARE_INVOCATION], "unix": str(path)}
            found["bare"].setdefault(clients, []).append(measure.play(stage.server, bare))
            requests = signing.prepare("sagemaker-runtime", "invoke_endpoint", stage.user, [asked] * VARIETIES)
            through = {**shape, "requests": requests, "port": stage.user.port}
            found["through"].setdefault(clients, []).append(measure.play(stage.server, through))
    return {way: {clients: middle(samples) for clients, samples in seen.items()} for way, seen in found.items()}


def main() -> None:
    """Runs it and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hosting", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--alone", action="store_true", help="without the servers of others")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    console = Console()
    home = Path(tempfile.mkdtemp(prefix="bench-hosting-"))
    server = Bastide(home)
    rows: dict[str, dict[str, dict[int, Sample]]] = {}
    try:
        admin = server.prepare()
        server.spawn()
        measure.first_answer(server, signing.prepare("sts", "get_caller_identity", admin, [{}])[0], admin.port)
        stage = set_up(server, admin)
        for number, (label, body) in enumerate(MODELS.items()):
            name = f"bench-{number}"
            deploy(stage, name, body)
            rows[label] = compare(stage, name, chosen.repeats, chosen.seconds)
            withdraw(stage, name)
        others = () if chosen.alone else PEERS
        peers = {
            peer.label: peer(home / peer.name).measured(CLIENTS, chosen.repeats, chosen.seconds) for peer in others
        }
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
    _print(console, rows, peers)
    if chosen.json:
        told = {
            label: {way: {str(n): one.__dict__ for n, one in seen.items()} for way, seen in ways.items()}
            for label, ways in rows.items()
        }
        chosen.json.write_text(json.dumps(told, indent=2) + "\n")


def _print(console: Console, rows: dict[str, Any], peers: dict[str, dict[int, Sample] | str]) -> None:
    table = Table(title="InvokeEndpoint over the bare model server, capture on")
    for title in (
        "model",
        "clients",
        "bare p50 ms",
        "through p50 ms",
        "added ms",
        "bare /s",
        "through /s",
        "kept",
        "added CPU ms",
    ):
        table.add_column(title, justify="right")
    for label, ways in rows.items():
        for clients, bare in ways["bare"].items():
            through = ways["through"][clients]
            figures = (bare.p50, through.p50, through.p50 - bare.p50)
            rates = (f"{bare.rate:.0f}", f"{through.rate:.0f}", f"{through.rate / bare.rate:.0%}")
            cpu = f"{through.cpu_ms - bare.cpu_ms:.2f}"
            table.add_row(label, str(clients), *(f"{one:.2f}" for one in figures), *rates, cpu)
    console.print(table)
    if not peers:
        return
    beside = Table(title="Others, the model of 5 ms, one worker")
    for title in ("server", "clients", "p50 ms", "/s"):
        beside.add_column(title, justify="right")
    for label, seen in peers.items():
        if isinstance(seen, str):
            beside.add_row(label, "", seen, "")
        else:
            for clients, one in seen.items():
                beside.add_row(label, str(clients), f"{one.p50:.2f}", f"{one.rate:.0f}")
    console.print(beside)


if __name__ == "__main__":
    main()
