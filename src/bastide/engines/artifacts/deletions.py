"""What is deleted while a backup runs goes afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

HOLD = ".lock"
"""Suffix of the file beside the folder of objects whose lock says whether objects may go away."""


class Deletions:
    """One process's share of a lock that `deletions_held` takes alone. root: the folder of objects, there or not."""

    def __init__(self, root: Path) -> None:
        self._lock = os.open(root.with_name(root.name + HOLD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mutex = threading.Lock()
        self._deleters = 0

    @contextlib.contextmanager
    def sharing(self) -> Iterator[bool]:
        """Whether something may be deleted while this lasts.

        The descriptor is one for all threads, so the first to come takes the lock and the last to go lets go of it.
        """
        with self._mutex:
            may = self._deleters > 0
            if not may:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    may = True
            self._deleters += may
        try:
            yield may
        finally:
            with self._mutex:
                self._deleters -= may
                if may and self._deleters == 0:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Lets go of the lock's file."""
        os.close(self._lock)


@contextlib.contextmanager
def deletions_held(root: Path) -> Iterator[None]:
    """While this lasts no object of the platform whose folder of objects is `root` goes away, whatever process serves it
    and wherever they lie; what is deleted meanwhile goes afterwards. Ends with the process that holds it, however that
    ends."""
    lock = os.open(root.with_name(root.name + HOLD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
