"""The image side of SageMaker's training contract in script mode: runs the user's script the way AWS's images do.

Runs inside the sandbox on the environment's Python and imports nothing of Bastide. What is read, written and passed
follows the developer guide (your-algorithms-training-algo) and the variables that the SageMaker training toolkit
documents (ENVIRONMENT_VARIABLES.md). A source at ``s3://.../name.tar.gz`` has been staged by the platform as
``/opt/ml/input/source/name.tar.gz``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
REASON_LENGTH = 1024  # what DescribeTrainingJob's FailureReason shows of the file
TAIL = 64 * 1024
STEERING = {"_tuning_objective_metric"}  # sent by tuning jobs, not meant for the script
LIBRARY = "/opt/bastide/library"
PORT = 7777  # of the first host, where the others meet it
# How SDKs ask for several processes; both start the script by torchrun.
TORCHRUN = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")
NOT_THERE = (
    "sagemaker_mpi_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_distributed_dataparallel_enabled",
)
MODULES = {
    "scikit-learn": "sagemaker_sklearn_container.training:main",
    "xgboost": "sagemaker_xgboost_container.training:main",
    "pytorch": "sagemaker_pytorch_container.training:main",
    "tensorflow": "sagemaker_tensorflow_container.training:main",
    "huggingface": "sagemaker_pytorch_container.training:main",
}
PACKAGES = {
    "xgboost": ("xgboost-cpu", "xgboost"),
    "pytorch": ("torch",),
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "huggingface": ("transformers",),
}
INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")


class TrainingError(Exception):
    """The job as sent cannot run; the message is for who sent it."""


def read_json(path: Path) -> Any:
    """What the file says, an empty object when there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainingError(f"{path} is not JSON: {error}") from None


def decoded(value: Any) -> Any:
    """A hyperparameter: SDK v2 sends JSON inside the string, v3 and the CLI send it raw."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def source_folder(submitted: str, code: Path) -> Path:
    """The folder with the user's source; an archive is unpacked into ``code``."""
    if submitted.startswith("s3://"):
        path = BASE / "input" / "source" / submitted.rstrip("/").rsplit("/", 1)[1]
    else:
        path = Path(submitted.removeprefix("file://"))
    if path.is_dir():
        return path
    if not path.is_file():
        raise TrainingError(f"sagemaker_submit_directory names {submitted}, which is not there")
    unpack(path, code)
    return code


def unpack(archive: Path, folder: Path) -> None:
    """Unpack without letting the archive reach outside the folder (Python's filter "data", PEP 706)."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainingError(f"{archive.name} cannot be unpacked: {error}") from None


def arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """``--name value`` in the order of names; names of one letter as ``-n value``, as the training toolkit does."""
    words = []
    for name in sorted(hyperparameters):
        value = hyperparameters[name]
        words.append(f"-{name}" if len(name) == 1 else f"--{name}")
        words.append("" if value is None else json.dumps(value) if isinstance(value, dict | list) else str(value))
    return words


def variables(program: str, folder: Path, user: Mapping[str, Any], words: list[str]) -> dict[str, str]:
    """The SM_* variables."""
    config = BASE / "input" / "config"
    resources, channels = read_json(config / "resourceconfig.json"), read_json(config / "inputdataconfig.json")
    host = resources.get("current_host", "algo-1")
    hosts = resources.get("hosts", [host])
    groups = resources.get("instance_groups", [])
    group = resources.get("current_group_name", "homogeneousCluster")
    mine = next((g.get("hosts", hosts) for g in groups if g.get("instance_group_name") == group), hosts)
    paths = {
        "input_dir": BASE / "input",
        "input_config_dir": config,
        "model_dir": BASE / "model",
        "output_dir": BASE / "output",
        "output_data_dir": BASE / "output" / "data",
        "output_intermediate_dir": BASE / "output" / "intermediate",
    }
    told: dict[str, Any] = {
        **{name: str(path) for name, path in paths.items()},
        "channels": sorted(channels),
        "channel_input_dirs": {name: str(BASE / "input" / "data" / name) for name in sorted(channels)},
        "hps": dict(user),
        "hyperparameters": dict(user),
        "user_args": words,
        "user_entry_point": program,
        "module_name": Path(program).stem,
        "module_dir": str(folder),
        "job_name": os.environ.get("TRAINING_JOB_NAME", ""),
        "current_host": host,
        "hosts": hosts,
        "master_hostname": hosts[0],
        "is_master": host == hosts[0],
        "current_instance_type": resources.get("current_instance_type", "local"),
        "current_instance_group": group,
        "current_instance_group_hosts": mine,
        "instance_groups": [g.get("instance_group_name") for g in groups],
        "is_hetero": len(groups) > 1,
        "network_interface_name": resources.get("network_interface_name", "lo"),
        "num_cpus": int(os.environ.get("LOKY_MAX_CPU_COUNT", "0")) or len(os.sched_getaffinity(0)),
        "num_gpus": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "num_neurons": 0,
        "resource_config": resources,
        "input_data_config": channels,
        "log_level": 20,
        "framework_module": "",
        "framework_params": {},
        "additional_framework_parameters": {},
    }
    found = {}
    for name, value in told.items():
        if name in {"channel_input_dirs", "hyperparameters", "is_master", "additional_framework_parameters"}:
            continue
        found[f"SM_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    for name, path in told["channel_input_dirs"].items():
        found[f"SM_CHANNEL_{name.upper()}"] = path
    for name, value in user.items():
        found[f"SM_HP_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    found["SM_TRAINING_ENV"] = json.dumps(told)
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return found


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, bytes]:
    """Run to the end, passing output on as it comes; the exit status (negative: a signal) and the output's end.

    The platform stops a job by a SIGTERM to each of its processes, and from outside the sandbox, where a sender has no
    number here: the script has got that one itself. A SIGTERM from somebody inside is passed on.
    """
    watched = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)

    child = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=unblock,  # noqa: PLW1509 - there is one thread at this point
    )
    assert child.stdout is not None
    tail = bytearray()
    reader = threading.Thread(target=relay, args=(child.stdout.fileno(), tail), daemon=True)
    reader.start()
    while child.poll() is None:
        told = signal.sigtimedwait(watched, 1.0)
        if told is not None and told.si_signo != signal.SIGCHLD and told.si_pid != 0:
            child.send_signal(told.si_signo)
    reader.join(5)
    return child.returncode, bytes(tail)


def relay(source: int, tail: bytearray) -> None:
    """Pass output on and remember its end."""
    while piece := os.read(source, 65536):
        view = memoryview(piece)
        while view:
            view = view[os.write(1, view) :]
        tail += piece
        del tail[:-TAIL]


def reason(status: int, command: list[str], tail: bytes) -> str:
    """What to tell: the exit status, the error, and as much of the last traceback as there is room for."""
    text = tail.decode(errors="replace").strip()
    at = text.rfind("Traceback (most recent call last)")
    trace = text[at:] if at >= 0 else "\n".join(text.splitlines()[-5:])
    error = trace.splitlines()[-1][:300] if trace else ""
    head = (
        f'ExecuteUserScriptError:\nExitCode {status}\nErrorMessage "{error}"\nCommand "{shlex.join(command)[:200]}"\n'
    )
    return head + trace[-(REASON_LENGTH - len(head)) :]


def fail(text: str) -> None:
    """Leave the reason where the platform looks, unless the script has left its own."""
    path = BASE / "output" / "failure"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def install(wanted: Path, folder: Path) -> Path:
    """What requirements.txt names and the environment lacks, from the index that the job names or the folder ``wheels``
    of the source: there is no other, since jobs do not reach the internet."""
    packages, told = BASE / "code.packages", BASE / "code.packages.json"
    pip = ["python3", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    index = [] if any(os.environ.get(name) for name in INDEXES) else ["--no-index"]
    wheels = ["--find-links", str(folder / "wheels")] if (folder / "wheels").is_dir() else []
    status, tail = run(
        [*pip, *index, *wheels, "--dry-run", "--report", str(told), "-r", str(wanted)], folder, os.environ
    )
    missing = [] if status else [one["metadata"] for one in read_json(told).get("install", [])]
    if missing:
        exact = [f"{one['name']}=={one['version']}" for one in missing]
        command = [*pip, *index, *wheels, "--no-deps", "--target", str(packages), *exact]
        status, tail = run(command, folder, os.environ)
    if status:
        why = "\n".join(line for line in tail.decode(errors="replace").splitlines() if line.startswith("ERROR"))[-500:]
        raise TrainingError(
            "requirements.txt names packages that this environment lacks, and they could not be installed. Jobs do not "
            "reach the internet: put wheels into the folder wheels of the source, or name an index that the job reaches in "
            f"PIP_INDEX_URL. {why}"
        )
    return packages


def launcher(framework: str, values: Mapping[str, Any], environment: dict[str, str]) -> list[str]:
    """What starts the script: Python, or torchrun on each host where the job asks for it."""
    asked = [name for name in TORCHRUN if str(values.get(name, "")).lower() == "true"]
    for name in NOT_THERE:
        if str(values.get(name, "")).lower() == "true":
            raise TrainingError(
                f"{name} is not there; for several hosts use torch_distributed, or libraries of your own"
            )
    hosts, host = json.loads(environment["SM_HOSTS"]), environment["SM_CURRENT_HOST"]
    if framework in {"pytorch", "huggingface"}:
        environment.setdefault("MASTER_ADDR", hosts[0])
        environment.setdefault("MASTER_PORT", str(PORT))
        if environment["SM_NETWORK_INTERFACE_NAME"] != "lo":
            for library in ("GLOO", "NCCL"):
                environment.setdefault(f"{library}_SOCKET_IFNAME", environment["SM_NETWORK_INTERFACE_NAME"])
    if not asked:
        return ["python3"]
    if framework not in {"pytorch", "huggingface"}:
        raise TrainingError(f"{asked[0]} needs an image of PyTorch")
    each = max(1, int(environment["SM_NUM_GPUS"]))
    command = ["python3", "-m", "torch.distributed.run", "--nnodes", str(len(hosts)), "--nproc_per_node", str(each)]
    return [*command, "--node_rank", str(hosts.index(host)), "--master_addr", hosts[0], "--master_port", str(PORT)]


def built_in(algorithm: str) -> int:
    """Trains a built-in algorithm."""
    sys.path.append(LIBRARY)
    return int(importlib.import_module("bastide_algorithms.job").run(algorithm, BASE))


def train(framework: str, algorithm: str) -> int:
    """The exit status of the script, 128 + signal when a signal ended it."""
    hyperparameters = read_json(BASE / "input" / "config" / "hyperparameters.json")
    values = {name: decoded(value) for name, value in hyperparameters.items()}
    program = str(values.get("sagemaker_program") or os.environ.get("SAGEMAKER_PROGRAM") or "")
    submitted = str(values.get("sagemaker_submit_directory") or os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or "")
    if algorithm and not program:
        return built_in(algorithm)
    if not program:
        raise TrainingError("this image trains in script mode: the hyperparameter sagemaker_program is missing")
    code = BASE / "code"
    folder = source_folder(submitted, code) if submitted else code
    script = (folder / program).resolve()
    if not script.is_relative_to(folder.resolve()) or not script.is_file():
        raise TrainingError(f"sagemaker_program names {program}, which is not in the source")
    for name in ("model", "output/data", "output/intermediate"):
        (BASE / name).mkdir(parents=True, exist_ok=True)
    user = {n: v for n, v in values.items() if not n.startswith("sagemaker_") and n not in STEERING}
    words = arguments(user)
    environment = {**os.environ, **variables(program, folder, user, words)}
    environment["SM_FRAMEWORK_MODULE"] = MODULES.get(framework, "")
    wanted = folder / "requirements.txt"
    if wanted.is_file():
        environment["PYTHONPATH"] += f"{os.pathsep}{install(wanted, folder)}"
    hooked = (BASE / "input" / "config" / "debughookconfig.json").is_file()
    if hooked:
        environment["PYTHONPATH"] += f"{os.pathsep}{LIBRARY}"  # bastide_debugger
    runner = ["/bin/sh"] if script.suffix == ".sh" else launcher(framework, values, environment)
    if hooked and framework == "xgboost" and runner == ["python3"]:
        runner += ["-m", "bastide_debugger.start"]
    command = [*runner, str(script.relative_to(folder.resolve())), *words]
    sys.stdout.write(f"Invoking {shlex.join(command)}\n")
    sys.stdout.flush()
    status, tail = run(command, folder, environment)
    if status < 0:
        status = 128 - status
    if status not in {0, 128 + signal.SIGTERM}:
        fail(reason(status, command, tail))
    return status


def version(framework: str) -> str:
    """The framework's release that really runs, whatever the tag says."""
    for name in PACKAGES.get(framework, (framework,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    return framework


def main() -> int:
    """The exit status; a job that cannot run says why and ends with 1."""
    read = argparse.ArgumentParser(prog="train", allow_abbrev=False)
    read.add_argument("--framework", default="scikit-learn")
    read.add_argument("--algorithm", default="")
    given, _ = read.parse_known_args()
    sys.stdout.write(f"Environment: {version(given.framework)}, Python {sys.version.split()[0]}\n")
    sys.stdout.flush()
    try:
        return train(given.framework, given.algorithm)
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        fail(str(error)[:REASON_LENGTH])
        return 1
    except Exception as error:
        traceback.print_exc()
        fail(f"{type(error).__name__}: {error}"[:REASON_LENGTH])
        return 1


if __name__ == "__main__":
    sys.exit(main())
