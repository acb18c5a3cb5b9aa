"""Runs a Spark application the way AWS's Spark image does: ``smspark-submit [OPTIONS] APPLICATION [ARGUMENTS]``.

Runs inside the sandbox and imports nothing of Bastide. The application runs in Spark's local mode on the job's processors
and memory; over several instances there is no cluster. Options are those of the SageMaker SDK's PySparkProcessor and
SparkJarProcessor. ``/opt/ml/processing/input/conf/configuration.json``, in EMR's classification format, is read for its
``spark-defaults``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

CONFIGURATION = Path("/opt/ml/processing/input/conf/configuration.json")
RESOURCES = Path("/opt/ml/config/resourceconfig.json")


def defaults() -> dict[str, str]:
    """Properties of the job's configuration. Raises ValueError for one that is none."""
    if not CONFIGURATION.is_file():
        return {}
    told = json.loads(CONFIGURATION.read_text())
    found: dict[str, str] = {}
    for one in told if isinstance(told, list) else [told]:
        if one["Classification"] != "spark-defaults":
            raise ValueError(f"the classification {one['Classification']} is not there, only spark-defaults")
        found |= {str(name): str(value) for name, value in one.get("Properties", {}).items()}
    return found


def main() -> int:
    """Becomes Spark's own spark-submit; returns an exit status where it does not get so far."""
    read = argparse.ArgumentParser(prog="smspark-submit", allow_abbrev=False)
    for name in ("class", "jars", "py-files", "files", "local-spark-event-logs-dir"):
        read.add_argument(f"--{name}")
    read.add_argument("--verbose", "-v", action="store_true")
    read.add_argument("application")
    read.add_argument("arguments", nargs=argparse.REMAINDER)
    given = read.parse_args()
    hosts = json.loads(RESOURCES.read_text()).get("hosts", []) if RESOURCES.is_file() else []
    if len(hosts) > 1:
        sys.stderr.write("Spark runs on one instance here: use InstanceCount 1.\n")
        return 1
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        sys.stderr.write("There is no Spark in this environment.\n")
        return 1
    home = Path(next(iter(spec.submodule_search_locations)))
    try:
        properties = defaults()
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"{CONFIGURATION.name}: {error}\n")
        return 1
    memory = 0
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()).isdigit():
            memory = int(text)
    memory = min(memory or 1 << 62, int(os.environ.get("BASTIDE_MEMORY_BYTES") or 2 << 30))
    properties.setdefault("spark.master", f"local[{os.environ.get('LOKY_MAX_CPU_COUNT', '1')}]")
    properties.setdefault("spark.driver.memory", f"{max(512, memory // (1 << 20) * 6 // 10)}m")
    properties |= {
        "spark.ui.enabled": "false",
        "spark.driver.host": "localhost",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    if given.local_spark_event_logs_dir:
        Path(given.local_spark_event_logs_dir).mkdir(parents=True, exist_ok=True)
        logs = given.local_spark_event_logs_dir
        properties |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{logs}"}
    command = [str(home / "bin" / "spark-submit")]
    for name, value in properties.items():
        command += ["--conf", f"{name}={value}"]
    for name in ("class", "jars", "py_files", "files"):
        if value := getattr(given, name):
            command += [f"--{name.replace('_', '-')}", ",".join(_every(value))]
    if given.verbose:
        command.append("--verbose")
    environment = {**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
    os.execve(command[0], [*command, given.application, *given.arguments], environment)  # noqa: S606
    return 1


def _every(paths: str) -> list[str]:
    """Each of the paths; of a folder its files, as the SDK passes one."""
    found: list[str] = []
    for one in paths.split(","):
        path = Path(one.removeprefix("file://"))
        found += sorted(str(p) for p in path.iterdir() if p.is_file()) if path.is_dir() else [one]
    return found


if __name__ == "__main__":
    sys.exit(main())
