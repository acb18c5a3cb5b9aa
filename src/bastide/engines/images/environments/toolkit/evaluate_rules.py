"""Evaluates Debugger's rules over the tensors that a training saves, while it saves them.

Runs in a sandbox of its own, beside the training's, and imports nothing of Bastide. ``/opt/training``, which it cannot
write to, has ``rules.json``, which names the rules, and a folder a host with copies of the plain files that the training
saved: nothing is believed of them but what their bytes are. One line of JSON a verdict goes to the output: rule, status,
details. It ends when the file ``ended`` has appeared there and everything has been read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append("/opt/bastide/library")

from bastide_debugger.layout import MODES, Broken, tensor
from bastide_debugger.rules import Evaluation

BASE = Path("/opt/training")
PAUSE = 0.3
MOST_JSON = 16 << 20
MOST_TENSORS = 256 << 20
"""Bytes of the tensors of one step."""
MOST_STEPS = 200_000


def read(folder: Path, relative: str, most: int) -> bytes:
    """A file. Raises FileNotFoundError, and Broken for a name that leads elsewhere and for too large a one."""
    if ".." in Path(relative).parts or Path(relative).is_absolute() or "\0" in relative:
        raise Broken(f"{relative[:200]!r} leads outside of the tensors")
    path = folder / relative
    if path.stat().st_size > most:
        raise Broken(f"{relative[:200]!r} is too large")
    return path.read_bytes()


def listed(folder: Path, relative: str) -> list[str]:
    """The JSON files below a folder, as paths relative to the tensors, sorted."""
    found = sorted(str(one.relative_to(folder)) for one in (folder / relative).rglob("*.json"))
    if len(found) > MOST_STEPS:
        raise Broken("there are too many steps")
    return found


class Tensors:
    """The tensors below a folder, step by step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[str] = set()
        self.collections: dict[str, frozenset[str]] = {}

    def fresh(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Mode, step and tensors of what was not read yet. Raises Broken."""
        new = [one for one in listed(self._folder, "index") if one not in self._read]
        if not new:
            return
        self._collect()
        for name in new:
            try:
                told = json.loads(read(self._folder, name, MOST_JSON))
                meta, payload = told["meta"], told["tensor_payload"]
                mode, step = str(meta["mode"]), int(meta["mode_step"])
                if mode not in MODES or not isinstance(payload, list):
                    raise Broken("an unknown mode")
                data = read(self._folder, str(meta["event_file_name"]), MOST_TENSORS) if payload else b""
                tensors = {
                    str(one["tensorname"]): tensor(data[int(one["start_idx"]) :][: int(one["length"])])
                    for one in payload
                }
            except FileNotFoundError:
                continue  # it is not there yet
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise Broken(f"the tensors of {name[:200]!r} cannot be read: {error}") from None
            self._read.add(name)
            yield mode, step, tensors

    def _collect(self) -> None:
        found: dict[str, set[str]] = {}
        for name in listed(self._folder, "collections"):
            try:
                told = json.loads(read(self._folder, name, MOST_JSON))
                for collection, held in told["collections"].items():
                    for one in held["tensor_names"]:
                        found.setdefault(str(one), set()).add(str(collection))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise Broken(f"the collections of {name[:200]!r} cannot be read: {error}") from None
        self.collections = {name: frozenset(held) for name, held in found.items()}


def say(name: str, status: str, details: str) -> None:
    """A verdict."""
    sys.stdout.write(json.dumps({"rule": name, "status": status, "details": details[:1024]}) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Until the training has ended."""
    told = json.loads((BASE / "rules.json").read_bytes())
    rules = [Evaluation(one["name"], one["rule"], one["parameters"]) for one in told["rules"]]
    every = [Tensors(BASE / one) for one in told["hosts"]]
    said: set[str] = set()
    while True:
        ended, broken = (BASE / "ended").exists(), ""
        try:
            for held in every:
                for mode, step, tensors in held.fresh():
                    for rule in rules:
                        rule.see(mode, step, tensors, held.collections)
        except Broken as error:
            broken = str(error)  # while the training writes, it may be a file that is half there
        if broken and ended:
            for rule in rules:
                if rule.name not in said:
                    say(rule.name, *(rule.ended() if rule.found else ("Error", f"ClientError: {broken}")))
            return 0
        for rule in rules:
            if not ended:
                rule.wait()
            if rule.name not in said and (rule.found or ended):
                said.add(rule.name)
                say(rule.name, *rule.ended())
        if ended or len(said) == len(rules):
            return 0
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.exit(main())
