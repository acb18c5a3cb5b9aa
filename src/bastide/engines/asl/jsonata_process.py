"""Evaluates JSONata in a process of its own, which is killed when it takes too long: see `confined`.

Started by path, with nothing but what it imports here; it gives up all privileges and has little memory.
"""

from __future__ import annotations

import importlib
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import orjson

_MEMORY = 1 << 30
_NOBODY = 65534


def _read(length: int) -> bytes:
    found = b""
    while len(found) < length:
        piece = os.read(0, length - len(found))
        if not piece:
            sys.exit(0)
        found += piece
    return found


def _write(data: bytes) -> None:
    view = memoryview(struct.pack(">I", len(data)) + data)
    while view:
        view = view[os.write(1, view) :]


def main() -> None:
    """Requests and answers, one at a time, until the pipe is closed."""
    sys.path.insert(0, str(Path(__file__).parent))
    core = importlib.import_module("expression_core")  # beside this file, without the package around it

    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        text, names = orjson.loads(_read(struct.unpack(">I", _read(4))[0]))
        answer: dict[str, Any]
        try:
            found = core.evaluate(text, names)
            answer = {"nothing": True} if found is core.NOTHING else {"value": found}
            told = orjson.dumps(answer)
        except core.Wrong as wrong:
            told = orjson.dumps({"wrong": str(wrong)})
        except (MemoryError, RecursionError, TypeError, ValueError) as error:
            told = orjson.dumps({"wrong": f"the result cannot be held: {type(error).__name__}"})
        _write(told)


if __name__ == "__main__":
    main()
