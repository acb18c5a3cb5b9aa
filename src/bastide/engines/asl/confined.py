"""Where expressions are evaluated: harmless ones in place, all others in processes that can be killed.

A hostile expression has a process with little memory and no privileges, two seconds, and nothing to look at but what it
was given. Calls block; who has other things to do makes them on a thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import orjson

from bastide.engines.asl import expression_core as core

SECONDS: Final = 3.0
_MOST: Final = 2
_LARGEST_ANSWER: Final = 8 << 20
_PROGRAM: Final = Path(__file__).with_name("jsonata_process.py")


class Confined:
    """Evaluates expressions; processes are started when the first needs one."""

    def __init__(self) -> None:
        self._free: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_MOST)
        self._closed = False

    def __call__(self, text: str, names: dict[str, Any]) -> Any:
        """What an expression gives, or `core.NOTHING`; raises core.Wrong."""
        if core.harmless(text):
            return core.evaluate(text, names)
        with self._room:
            return self._asked(text, names)

    def _asked(self, text: str, names: dict[str, Any]) -> Any:
        with self._lock:
            if self._closed:
                raise core.Wrong("the platform is being stopped")
            process = self._free.pop() if self._free else None
        if process is None:
            process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/"
            )
            os.set_blocking(process.stdin.fileno(), False)  # type: ignore[union-attr]
        try:
            told = self._exchange(process, orjson.dumps([text, names]))
        except (OSError, TimeoutError, ValueError):
            self._end(process)
            raise core.Wrong(
                f"the expression took more than {SECONDS:.0f} seconds, or more memory than it may"
            ) from None
        if not self._kept(process):
            self._end(process)
        answer = orjson.loads(told)
        if "wrong" in answer:
            raise core.Wrong(answer["wrong"])
        return core.NOTHING if "nothing" in answer else answer["value"]

    def _kept(self, process: subprocess.Popen[bytes]) -> bool:
        with self._lock:
            if not self._closed:
                self._free.append(process)
            return not self._closed

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes) -> bytes:
        until = time.monotonic() + SECONDS
        into, out = process.stdin.fileno(), process.stdout.fileno()  # type: ignore[union-attr]
        view = memoryview(struct.pack(">I", len(data)) + data)
        while view:
            if not select.select([], [into], [], max(0.0, until - time.monotonic()))[1]:
                raise TimeoutError
            view = view[os.write(into, view) :]
        found, wanted = b"", 4
        while len(found) < wanted:
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            piece = os.read(out, 1 << 20)
            if not piece:
                raise OSError
            found += piece
            if wanted == 4 and len(found) >= 4:
                wanted += struct.unpack(">I", found[:4])[0]
                if wanted > _LARGEST_ANSWER:
                    raise ValueError
        return found[4:]

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def close(self) -> None:
        """Ends the processes."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for process in free:
            self._end(process)
