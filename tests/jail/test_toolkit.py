"""The image side of the container contracts, run in sandboxes as jobs and endpoints run it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
import tarfile
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bastide.engines.sandbox import Limits

ROOM = Limits(memory_bytes=1 << 30, cpus=2.0, processes=128)


def job(work: Path, script: str, hyperparameters: dict[str, str], *, packed: bool = True, **files: str) -> None:
    """Lay out /opt/ml as the platform does for a training job in script mode."""
    config = work / "input" / "config"
    config.mkdir(parents=True)
    (work / "input" / "data" / "train").mkdir(parents=True)
    (work / "input" / "data" / "train" / "x.csv").write_text("1,2\n")
    source = work / "input" / "data" / "code"
    source.mkdir()
    content = {"main.py": textwrap.dedent(script), **files}
    if packed:
        with tarfile.open(source / "sourcedir.tar.gz", "w:gz") as archive:
            for name, text in content.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
    else:
        for name, text in content.items():
            (source / name).write_text(text)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "inputdataconfig.json").write_text(json.dumps({"train": {"TrainingInputMode": "File"}, "code": {}}))
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.m5.large"}
    (config / "resourceconfig.json").write_text(json.dumps({**hosts, "network_interface_name": "eth0"}))


SOURCE = "/opt/ml/input/data/code/sourcedir.tar.gz"
V2 = {"sagemaker_program": '"main.py"', "sagemaker_submit_directory": f'"{SOURCE}"'}
V3 = {"sagemaker_program": "main.py", "sagemaker_submit_directory": "/opt/ml/input/data/code"}


@pytest.mark.parametrize("style", ["v2", "v3"])
def test_script_mode(cell: Any, style: str) -> None:
    work = cell.workdir()
    script = """
    import json, os, sys
    import helper
    print(json.dumps({"args": sys.argv[1:], "cwd": os.getcwd(), "helper": helper.X,
                      "sm": {k: v for k, v in os.environ.items() if k.startswith("SM_")}}))
    open(os.path.join(os.environ["SM_MODEL_DIR"], "m"), "w").write("model")
    """
    own = {"max-depth": "3", "C": "0.5", "name": '"a b"', "flag": "true", "grid": "[1, 2]"}
    steering = V2 if style == "v2" else V3
    job(work, script, {**steering, **own, "sagemaker_region": "x"}, packed=style == "v2", **{"helper.py": "X = 7"})
    told = cell.run(cell.environment.train, workdir=work, env={"TRAINING_JOB_NAME": "t-1"})
    assert told.ended.exit_code == 0, told.text
    seen = json.loads(told.lines[-1])
    wanted = ["-C", "0.5", "--flag", "True", "--grid", "[1, 2]", "--max-depth", "3", "--name", "a b"]
    assert seen["args"] == wanted
    assert seen["helper"] == 7
    assert seen["cwd"] == ("/opt/ml/code" if style == "v2" else "/opt/ml/input/data/code")
    sm = seen["sm"]
    assert sm["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert json.loads(sm["SM_CHANNELS"]) == ["code", "train"]
    assert json.loads(sm["SM_HPS"]) == {"C": 0.5, "flag": True, "grid": [1, 2], "max-depth": 3, "name": "a b"}
    assert (sm["SM_HP_MAX-DEPTH"], sm["SM_HP_NAME"]) == ("3", "a b")
    assert (sm["SM_OUTPUT_DATA_DIR"], sm["SM_CURRENT_HOST"]) == ("/opt/ml/output/data", "algo-1")
    assert (json.loads(sm["SM_HOSTS"]), sm["SM_NUM_GPUS"], sm["SM_NUM_CPUS"]) == (["algo-1"], "0", "2")
    assert json.loads(sm["SM_TRAINING_ENV"])["job_name"] == "t-1"
    assert (work / "model" / "m").read_text() == "model"
    assert not (work / "output" / "failure").exists()


def test_a_source_from_s3_is_taken_from_where_it_was_staged(cell: Any) -> None:
    work = cell.workdir()
    job(work, "print('from s3')", {**V2, "sagemaker_submit_directory": '"s3://bucket/job/source/sourcedir.tar.gz"'})
    (work / "input" / "source").mkdir()
    (work / "input" / "data" / "code" / "sourcedir.tar.gz").rename(work / "input" / "source" / "sourcedir.tar.gz")
    assert cell.run(cell.environment.train, workdir=work).lines[-1] == "from s3"


def test_a_failure_says_why(cell: Any) -> None:
    work = cell.workdir()
    job(work, "def f():\n    raise ValueError('the data has no column deny')\nprint('begun')\nf()\n", V2)
    told = cell.run(cell.environment.train, workdir=work)
    assert told.ended.exit_code == 1
    assert "begun" in told.lines
    failure = (work / "output" / "failure").read_text()
    assert failure.startswith("ExecuteUserScriptError:\nExitCode 1\n")
    assert 'ErrorMessage "ValueError: the data has no column deny"' in failure
    assert "line 2, in f" in failure
    assert len(failure) <= 1024


def test_a_scripts_own_failure_is_kept(cell: Any) -> None:
    work = cell.workdir()
    job(work, "import sys\nopen('/opt/ml/output/failure', 'w').write('mine')\nsys.exit(3)\n", V2)
    assert cell.run(cell.environment.train, workdir=work).ended.exit_code == 3
    assert (work / "output" / "failure").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sagemaker_program": '"other.py"'}, "sagemaker_program names other.py"),
        ({"sagemaker_program": '"../../config/x.py"'}, "not in the source"),
        ({"sagemaker_program": ""}, "sagemaker_program is missing"),
        ({"sagemaker_submit_directory": '"/opt/ml/input/data/code/none.tar.gz"'}, "which is not there"),
        ({"sagemaker_submit_directory": '"/opt/ml/input/data/train/x.csv"'}, "cannot be unpacked"),
    ],
)
def test_what_cannot_run_says_so(cell: Any, change: dict[str, str], why: str) -> None:
    work = cell.workdir()
    job(work, "print('ran')", {**V2, **change})
    told = cell.run(cell.environment.train, workdir=work)
    assert told.ended.exit_code == 1
    assert why in (work / "output" / "failure").read_text()
    assert "ran" not in told.lines
    assert "Traceback" not in told.text


@pytest.mark.parametrize("evil", ["../planted", "/opt/ml/model/planted", "link"])
def test_an_archive_does_not_reach_out(cell: Any, evil: str) -> None:
    work = cell.workdir()
    job(work, "print('ran')", V2)
    with tarfile.open(work / "input" / "data" / "code" / "sourcedir.tar.gz", "w:gz") as archive:
        if evil == "link":
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/opt/ml/model"
            archive.addfile(link)
        entry = tarfile.TarInfo("link/planted" if evil == "link" else evil)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    told = cell.run(cell.environment.train, workdir=work)
    assert told.ended.exit_code == 1
    assert not list(work.glob("planted"))
    assert not list((work / "model").glob("*")) if (work / "model").exists() else True


def test_stopping_lets_the_script_save_once(cell: Any) -> None:
    work = cell.workdir()
    script = """
    import signal, sys, time
    def stop(*_):
        print("saving", flush=True)
        open("/opt/ml/model/m", "a").write("x")
        time.sleep(0.3)
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("up", flush=True)
    while True: time.sleep(0.05)
    """
    job(work, script, V2)

    async def story() -> tuple[list[bytes], Any]:
        running = await cell.driver.start(cell.spec(cell.environment.train, workdir=work))
        lines = []
        stopping = None
        async for line in running.lines():
            lines.append(line)
            if line == b"up":
                stopping = asyncio.create_task(running.stop(10))
        assert stopping is not None
        await stopping
        return lines, await running.wait()

    lines, ended = asyncio.run(story())
    assert lines.count(b"saving") == 1
    assert ended.exit_code == 0
    assert (work / "model" / "m").read_text() == "x"


def test_a_killed_script_is_told_by_its_signal(cell: Any) -> None:
    work = cell.workdir()
    job(work, "import os\nos.kill(os.getpid(), 9)", V2)
    assert cell.run(cell.environment.train, workdir=work).ended.exit_code == 137
    assert "ExitCode 137" in (work / "output" / "failure").read_text()


def test_an_entry_point_of_its_own(cell: Any) -> None:
    """SDK v3 and processing jobs bring their command."""
    work = cell.workdir()
    code = work / "processing" / "input" / "code"
    code.mkdir(parents=True)
    (code / "split.py").write_text("import sys, pandas; print(sys.argv[1:], sys.prefix)")
    told = cell.run(["python3", "/opt/ml/processing/input/code/split.py", "--a", "1"], workdir=work, limits=ROOM)
    assert told.lines == ["['--a', '1'] /opt/environment"]
    told = cell.run(["/bin/bash", "-c", "python3 -m pip --version | cut -d' ' -f1; command -v python3"], workdir=work)
    assert told.lines == ["pip", "/opt/environment/bin/python3"]


# --- hosting ---------------------------------------------------------------------------------------------------------


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("endpoint", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self.path))


def ask(path: Path, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, str, bytes]:
    connection = Connection(path)
    try:
        connection.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type", ""), answer.read()
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def serving(cell: Any, work: Path, folder: Path, **env: str) -> AsyncIterator[tuple[Any, Path, list[bytes]]]:
    """An endpoint's container that answers /ping."""
    folder.mkdir(exist_ok=True)
    path = folder / "serve.sock"
    spec = cell.spec(
        cell.environment.serve,
        workdir=work,
        limits=ROOM,
        writable=[(folder, "/run/bastide")],
        env={"BASTIDE_SERVE_SOCKET": "/run/bastide/serve.sock", **env},
    )
    running = await cell.driver.start(spec)
    log: list[bytes] = []

    async def read() -> None:
        async for line in running.lines():
            log.append(line)

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(60):
            while not reading.done():
                with contextlib.suppress(OSError):
                    if (await asyncio.to_thread(ask, path, "GET", "/ping"))[0] == 200:
                        break
                await asyncio.sleep(0.02)
        yield running, path, log
    finally:
        await running.stop(10)
        await reading


def saved_model(cell: Any, work: Path, name: str = "model.joblib") -> None:
    (work / "model").mkdir()
    told = cell.python(
        f"""
        import joblib, numpy as np
        from sklearn.linear_model import LinearRegression
        x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        joblib.dump(LinearRegression().fit(x, [1.0, 3.0, 4.0]), "/opt/ml/model/{name}")
        """,
        workdir=work,
        limits=ROOM,
    )
    assert told.ended.exit_code == 0, told.text


def test_a_model_without_a_script(cell: Any, tmp_path: Path) -> None:
    work = cell.workdir()
    saved_model(cell, work)

    async def story() -> None:
        async with serving(cell, work, tmp_path / "s") as (running, path, log):

            def call(*a: Any, **k: Any) -> Any:
                return asyncio.to_thread(ask, path, *a, **k)

            post = ("POST", "/invocations")
            status, kind, body = await call(*post, b"[[1, 1], [0, 0]]", Content_Type="application/json")
            assert (status, kind) == (200, "application/json")
            assert [round(v, 5) for v in json.loads(body)] == [6.0, 1.0]
            status, kind, body = await call(*post, b"1,1\n0,0\n", Content_Type="text/csv", Accept="text/csv")
            assert (status, kind) == (200, "text/csv")
            assert [round(float(v), 5) for v in body.split()] == [6.0, 1.0]
            status, kind, _ = await call(*post, b"1,1\n", Content_Type="text/csv", Accept="application/x-npy")
            assert (status, kind) == (200, "application/x-npy")
            refusals = [
                (b"x", {"Content_Type": "application/xml"}, 415),
                (b"x", {}, 415),
                (b"{", {"Content_Type": "application/json"}, 400),
                (b"", {"Content_Type": "text/csv"}, 400),
                (b"a,b\n", {"Content_Type": "text/csv"}, 400),
                (b"\xff\xfe", {"Content_Type": "application/json"}, 400),
                (b"not npy", {"Content_Type": "application/x-npy"}, 400),
                (b"[[1, 1]]", {"Content_Type": "application/json", "Accept": "image/png"}, 406),
                (b"[[1, 1, 1]]", {"Content_Type": "application/json"}, 500),
            ]
            for body, headers, wanted in refusals:
                status, kind, text = await call(*post, body, **headers)
                assert (status, kind.partition(";")[0]) == (wanted, "text/plain"), (body, text)
                assert b"Traceback" not in text
                assert len(text) < 200
            assert (await call("GET", "/invocations"))[0] == 405
            assert (await call("GET", "/else"))[0] == 404
            assert (await call("GET", "/ping"))[0] == 200
            await running.stop(10)
            ended = await running.wait()
            assert ended.exit_code == 0, log
            assert ended.seconds < 60

    asyncio.run(story())


SCRIPT = """
import json, os, joblib
def model_fn(folder):
    assert folder == "/opt/ml/model"
    return joblib.load(os.path.join(folder, "weights.bin"))
def input_fn(body, content_type):
    assert content_type == "application/json", content_type
    return json.loads(body)["rows"]
def predict_fn(rows, model):
    if rows == "slow":
        import time
        while not os.path.exists("/opt/ml/model/go"): time.sleep(0.02)
        return [0]
    return model.predict(rows)
def output_fn(prediction, accept):
    return json.dumps({"deny": [float(p) for p in prediction], "pid": os.getpid()}), "application/json"
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_users_functions(cell: Any, tmp_path: Path, workers: str) -> None:
    work = cell.workdir()
    saved_model(cell, work, "weights.bin")
    (work / "model" / "code").mkdir()
    (work / "model" / "code" / "inference.py").write_text(SCRIPT)

    async def story() -> None:
        env = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
        async with serving(cell, work, tmp_path / "s", SAGEMAKER_MODEL_SERVER_WORKERS=workers, **env) as (_, path, log):
            post = ("POST", "/invocations")
            told = await asyncio.to_thread(ask, path, *post, b'{"rows": [[1, 1]]}', Content_Type="application/json")
            assert told[0] == 200, log
            assert round(json.loads(told[2])["deny"][0], 5) == 6.0
            told = await asyncio.to_thread(ask, path, *post, b'{"other": 1}', Content_Type="application/json")
            assert told == (400, "text/plain; charset=utf-8", b"input_fn failed: KeyError")
            slow = asyncio.to_thread(ask, path, *post, b'{"rows": "slow"}', Content_Type="application/json")
            waiting = asyncio.create_task(slow)
            await asyncio.sleep(0.2)
            assert (await asyncio.to_thread(ask, path, "GET", "/ping"))[0] == 200
            assert not waiting.done()
            (work / "model" / "go").touch()
            assert (await waiting)[0] == 200
            (work / "model" / "go").unlink()
        assert any(b"KeyError" in line for line in log)  # the log has what the caller has not

    asyncio.run(story())


def test_a_model_that_cannot_be_loaded_never_answers(cell: Any, tmp_path: Path) -> None:
    work = cell.workdir()
    (work / "model").mkdir()

    async def story() -> None:
        async with serving(cell, work, tmp_path / "s") as (running, path, log):
            ended = await running.wait()
            assert ended.exit_code == 1
            assert b"The model could not be loaded." in log
            with pytest.raises(OSError):
                ask(path, "GET", "/ping")

    asyncio.run(story())
