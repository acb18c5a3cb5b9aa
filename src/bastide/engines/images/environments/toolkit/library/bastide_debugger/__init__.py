"""Saves what a training computes where Debugger's rules read it.

A script in an environment of Bastide's does, wherever the job has a DebugHookConfig::

    from bastide_debugger import Hook
    hook = Hook.of_job()                                   # None where the job has none
    hook.save("losses", {"train-loss": loss}, step)        # numbers or arrays; PyTorch's tensors, too
    hook.save("losses", {"loss": loss}, step, mode="EVAL")

A collection that the job does not ask for is not saved, and one that it does, at its steps only. XGBoost needs no line:
see `bastide_debugger.boosting`. What goes wrong with saving never ends a training; it is said once.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bastide_debugger.layout import MODES, record

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
ALWAYS = ("losses",)
"""Collections that are saved when the job names none."""
_STEP = "012"


def configuration(base: Path = BASE) -> dict[str, Any] | None:
    """The job's DebugHookConfig; None where it has none."""
    try:
        found: dict[str, Any] = json.loads((base / "input/config/debughookconfig.json").read_bytes())
    except FileNotFoundError:
        return None
    return found


class Hook:
    """Saves tensors, in the steps that the configuration names. always, interval: what it does not say. worker: the
    name of who saves, of several."""

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        always: tuple[str, ...] = ALWAYS,
        interval: int = 500,
        worker: str = "worker_0",
    ) -> None:
        self.folder = Path(config.get("LocalPath") or BASE / "output" / "tensors")
        self.worker = worker
        self._interval = interval
        self._common = dict(config.get("HookParameters") or {})
        given = config.get("CollectionConfigurations") or []
        asked = {one["CollectionName"]: dict(one.get("CollectionParameters") or {}) for one in given}
        self.asked: dict[str, dict[str, str]] = asked or {name: {} for name in always}
        self._names: dict[str, set[str]] = {name: set() for name in self.asked}
        self._step = -1
        self._silent = False

    @classmethod
    def of_job(cls, **more: Any) -> Hook | None:
        """As the job that runs has it."""
        config = configuration()
        if config is None:
            return None
        return cls(config, **more)

    def wants(self, collection: str, step: int, mode: str = "TRAIN") -> bool:
        """Whether a collection is saved in a step. Source: developer guide, "debugger-configure-tensor-collections"."""
        if collection not in self.asked:
            return False
        told = {**self._common, **self.asked[collection]}

        def read(name: str) -> str | None:
            found = told.get(f"{mode.lower()}.{name}", told.get(name))
            return None if found is None else str(found)

        steps = read("save_steps")
        if steps:
            return step in {int(one) for one in steps.split(",") if one.strip()}
        first, last = int(read("start_step") or 0), read("end_step")
        if step < first or (last and step >= int(last)):
            return False
        return (step - first) % max(1, int(read("save_interval") or self._interval)) == 0

    def save(self, collection: str, tensors: Mapping[str, Any], step: int, mode: str = "TRAIN") -> None:
        """Saves a collection's tensors of a step, if they are wanted."""
        self.save_all({collection: tensors}, step, mode)

    def save_all(self, collections: Mapping[str, Mapping[str, Any]], step: int, mode: str = "TRAIN") -> None:
        """As `save`, of several collections; a step of a mode is saved by one call."""
        try:
            wanted = {name: held for name, held in collections.items() if self.wants(name, step, mode)}
            every = {name: value for held in wanted.values() for name, value in held.items()}
            if every:
                self._write(wanted, every, step, mode)
        except Exception as error:
            if not self._silent:
                sys.stderr.write(f"Debugger: tensors are not saved: {type(error).__name__}: {error}\n")
            self._silent = True

    def _write(
        self, wanted: Mapping[str, Mapping[str, Any]], every: Mapping[str, Any], mode_step: int, mode: str
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"the mode is one of {', '.join(MODES)}")
        step = self._step = max(self._step + 1, mode_step)
        number = format(step, _STEP)
        told, records, at = [], [], 0
        for name, value in every.items():
            plain = value.detach().cpu().numpy() if hasattr(value, "detach") else value
            made = record(name, plain, step, mode, mode_step)
            told.append({"tensorname": name, "start_idx": at, "length": len(made)})
            records.append(made)
            at += len(made)
        events = f"events/{number}/{number}_{self.worker}.tfevents"
        self._put(events, b"".join(records))
        meta = {"mode": mode, "mode_step": mode_step, "event_file_name": events}
        index = {"meta": meta, "tensor_payload": told, "shape_payload": []}
        fresh = False
        for collection, held in wanted.items():
            fresh |= not self._names[collection].issuperset(held)
            self._names[collection].update(held)
        if fresh:
            self._put(f"collections/000000000/{self.worker}_collections.json", json.dumps(self._told()).encode())
        self._put(f"index/{format(step // 1000, '09')}/{number}_{self.worker}.json", json.dumps(index).encode())

    def _told(self) -> dict[str, Any]:
        found = {}
        for name, held in self._names.items():
            regexes = [one for one in self.asked[name].get("include_regex", "").split(",") if one]
            found[name] = {
                "name": name, "include_regex": regexes, "tensor_names": sorted(held),
                "reduction_config": None, "save_config": None, "save_histogram": False,
            }  # fmt: skip
        return {"collections": found, "_meta": {"num_workers": 1}}

    def _put(self, relative: str, content: bytes) -> None:
        """A file that is there whole or not at all, and whose making is not among the tensors."""
        target = self.folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.folder.parent / f".{self.folder.name}-{os.getpid()}"
        fresh.write_bytes(content)
        fresh.replace(target)


def matching(patterns: str, name: str) -> bool:
    """Whether one of several patterns, with commas between them, is found in a name."""
    return any(re.search(one.strip(), name) for one in patterns.split(",") if one.strip())
