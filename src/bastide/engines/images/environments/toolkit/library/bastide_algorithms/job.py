"""A training job of a built-in algorithm: what it is told, what it reads, what it says."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bastide_algorithms import Unfit, module_of, parameters
from bastide_algorithms.tables import Rules, Table, channel


def say(line: str) -> None:
    """A line of the job's log."""
    print(line, flush=True)  # noqa: T201


@dataclass
class Job:
    """base: ``/opt/ml``. given: the hyperparameters' values. channels: as inputdataconfig.json tells them."""

    base: Path
    given: dict[str, Any]
    channels: dict[str, Any]
    host: str = "algo-1"

    @property
    def model(self) -> Path:
        """Where the model is left."""
        return self.base / "model"

    def table(self, name: str, rules: Rules, *, required: bool = False) -> Table | None:
        """A channel's records, None where the job has no such channel. Raises Unfit."""
        if name not in self.channels:
            if required:
                raise Unfit(f"The channel {name} is required.")
            return None
        return channel(self.base / "input" / "data" / name, str(self.channels[name].get("ContentType") or ""), rules)

    def train(self, rules: Rules, *, labelled: bool = True) -> Table:
        """The channel train. Raises Unfit where it is missing, or its labels are."""
        found = self.table("train", rules, required=True)
        assert found is not None
        if labelled and found.labels is None:
            raise Unfit("The records of the channel train have no labels.")
        width = self.given.get("feature_dim")
        if width and found.width != width:
            raise Unfit(f"feature_dim is {width}, but the records have {found.width} features.")
        return found

    def quality(self, part: str, name: str, value: float, kind: str = "loss") -> None:
        """A metric, as AWS's algorithms print it."""
        say(f"#quality_metric: host={self.host}, {part} {name} <{kind}>={float(value)!r}")


def keep(folder: Path, told: dict[str, Any], **arrays: Any) -> None:
    """A model: what it is told in words, and its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    np.savez(folder / "model.npz", **{name: np.asarray(value) for name, value in arrays.items()})


def kept(folder: Path, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model as it was kept. Raises RuntimeError for another algorithm's."""
    told = json.loads((folder / "model.json").read_text())
    if told.get("algorithm") != algorithm:
        raise RuntimeError(f"the model is of {told.get('algorithm')}, not of {algorithm}")
    with np.load(folder / "model.npz", allow_pickle=False) as arrays:
        return told, {name: arrays[name] for name in arrays.files}


def run(name: str, base: Path) -> int:
    """Trains; the exit status: 0, or 2 where what was sent does not fit, with the reason in the file ``failure``."""
    module = module_of(name)
    config = base / "input" / "config"

    def told(file: str) -> Any:
        path = config / file
        return json.loads(path.read_text()) if path.exists() else {}

    try:
        given = parameters.read(module.PARAMETERS, module.WITHOUT_EFFECT, told("hyperparameters.json"))
        resources = told("resourceconfig.json")
        job = Job(base, given, told("inputdataconfig.json"), resources.get("current_host", "algo-1"))
        if len(resources.get("hosts") or [1]) > 1:
            raise Unfit("Built-in algorithms train on one instance.")
        job.model.mkdir(parents=True, exist_ok=True)
        say(f"{name}: training on {os.environ.get('LOKY_MAX_CPU_COUNT', '1')} processors with {json.dumps(given)}")
        module.train(job)
    except Unfit as unfit:
        say(f"ClientError: {unfit}")
        (base / "output").mkdir(parents=True, exist_ok=True)
        (base / "output" / "failure").write_text(f"ClientError: {unfit}"[:1024])
        return 2
    return 0
