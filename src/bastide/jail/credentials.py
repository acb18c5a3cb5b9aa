# Plain system calls, as in all that starts without site-packages.
"""Starts a program whose threads change each for itself who they are: ``python -I -S credentials.py PROGRAM [WORD ...]``.

To the kernel a user id is a thread's own; libc makes it the whole process's, by a signal that has every other thread do
the same. gocryptfs, written in a language whose runtime asks libc, means the thread's own: while it made a file as the
job's user, what it did meanwhile for others was done as that user, too. Permissions were refused for a moment and files
belonged to the wrong one. Here that signal (SIGSETXID, nptl(7)) cannot be sent, which libc takes for a thread that has
ended, and the change stays where it was made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bastide.jail import seccomp

PROGRAM: Final = str(Path(__file__).resolve())

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2  # linux/prctl.h, linux/seccomp.h
_SIGSETXID: Final = 33
_KEPT: Final = seccomp.Row("tgkill", 234, 131, errno.ESRCH, "see above", (2, 0xFFFFFFFF, (_SIGSETXID,)))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main() -> NoReturn:
    """Become the program. Raises OSError when the filter cannot be set, and ValueError on an unknown architecture."""
    found = seccomp.assemble(os.uname().machine, (_KEPT,), newest=None)
    told = _Filter(len(found) // 8, found)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(told), 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl PR_SET_SECCOMP: {os.strerror(number)}")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606


if __name__ == "__main__":
    main()
