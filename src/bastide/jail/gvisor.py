# Plain system calls, and paths inside the sandbox that are the job's own.
# ruff: noqa: PTH102, PTH119, PTH123, S108
"""A job on a kernel of its own: the launcher becomes gVisor's runsc instead of bubblewrap.

What runs then, all within the job's control groups: ``unshare``, which dies with the platform and takes the rest along;
in its process namespace ``runsc run``, its kernel (the "Sentry", in an empty root, under a filter of its own) and its file
server (the "gofer", whose root is the job's and nothing else). They are the job's user, the root of a namespace where
there is nobody else but nobody, and who can do nothing outside. What the job's programs call never reaches the machine's
kernel as they call it.

So the job's files belong to gVisor's root. The job itself lives in a user namespace that gVisor has, in which its user has
the number that its image names, and no privileges. (With a second user of the machine for it, files could not be made on
file systems that look who makes them, as gocryptfs does.)

The bundle, in which the variables are, and runsc's state lie in the launcher's own mount namespace, in memory, and go with
it. Source: OCI Runtime Specification 1.0.2; ``runsc flags``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from bastide.jail.namespaces import (
    CLONE_NEWNET,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    die_with_parent,
    mount,
    rule_a_namespace,
    unshare,
)

RUNSC: Final = "/usr/bin/runsc"
_UNSHARE: Final = "/usr/bin/unshare"
_STARTER: Final = "/usr/bin/busybox"
_NOBODY: Final = 65534
TOOLS: Final = "/run/.bastide"
"""Where in the job's root the programs are that start it: an image may have none."""

# The first process inside. Its standard input is the status socket: on it it says "running", is told when to send signals
# to all the others, and says "ended" before it ends with the command's exit code; nobody else inside keeps it. The command
# is its child, as bubblewrap has it, so that signals do to it what they do to any process, and what the shell would say of
# its end is not taken for the job's own words. What the job prints goes by a pipe of gVisor's own, because into one of the
# machine a program may write but a part, and those that count on the kernel for the rest lose it. At the end whoever is
# left is ended before the pipe is emptied.
_WATCH: Final = (
    "while read -r word; do case $word in stop) kill -TERM -1; kill -CONT -1;; thaw) kill -CONT -1;; "
    "freeze) kill -STOP -1; kill -CONT $relay;; esac; done"
)
_OUTPUT: Final = "/run/.output"
FIRST: Final = (
    "exec 3<&0 4>&1 </dev/null >/dev/null 2>&1; find=$1; user=$2; group=$3; folder=$4; shift 4; "
    '[ -d "$folder" ] || mkdir -p "$folder"; cd "$folder" || exit 126; unset OLDPWD; '
    f"mkfifo -m 600 {_OUTPUT}; (trap '' TERM INT HUP; exec cat <{_OUTPUT} >&4 3<&- 4>&-) & relay=$!; "
    f"exec 5>{_OUTPUT} 4>&-; rm {_OUTPUT}; ({_WATCH}) <&3 3<&- 5>&- & echo running >&3; "
    f"(exec 3<&- >&5 2>&5 5>&-; exec {TOOLS}/ld.so --library-path {TOOLS} {TOOLS}/unshare --map-user=$user "
    f'--map-group=$group -- {TOOLS}/sh -c "$find" "$@"); code=$?; exec 5>&-; kill -STOP -1; '
    "for one in /proc/[0-9]*; do case ${one#/proc/} in 1|$relay) ;; *) kill -KILL ${one#/proc/};; esac; done; "
    "kill -CONT $relay; wait $relay; echo ended >&3; exit $code"
)


def prepare(base: str, told: Mapping[str, Any]) -> None:
    """In the root that is being laid out at `base`: places for the bundle and for runsc's state, and the programs that
    start the job. The machine's own system, as the job is to see it, is made read-only."""
    if not os.access(RUNSC, os.X_OK):
        raise FileNotFoundError(f"{RUNSC} is not there: apt-get install runsc")
    if told["devices"]:
        raise ValueError("gVisor passes no GPU through")
    for name in ("bundle", "state"):
        os.mkdir(f"{base}/{name}", 0o700)
        os.chown(f"{base}/{name}", told["user"], told["user"])
    os.mkdir(f"{base}/tools")
    for name, source in (("sh", os.path.realpath(_STARTER)), ("unshare", _UNSHARE), *_libraries()):
        target = f"{base}/tools/{name}"
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o755))
        mount(source, target, None, MS_BIND)
        mount("none", target, None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_RDONLY)
    if not told["root"]:
        jail = f"{base}/jail"
        mount(jail, jail, None, MS_BIND | MS_REC)
        mount("none", jail, None, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_RDONLY)


def _libraries() -> list[tuple[str, str]]:
    """The machine's C library and the loader of programs, which this process runs by, too."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        loaded = {line.split(maxsplit=5)[-1].strip() for line in file}
    found = []
    for name, pattern in (("ld.so", "ld-linux"), ("libc.so.6", "libc.so.6")):
        paths = [path for path in loaded if path.startswith("/") and os.path.basename(path).startswith(pattern)]
        if not paths:
            raise FileNotFoundError(f"the machine's {name} was not found")
        found.append((name, paths[0]))
    return found


def become(
    told: Mapping[str, Any], binds: Sequence[tuple[str, str, bool]], command: Sequence[str], channel: int
) -> NoReturn:
    """Become the job; see `launcher.launch`. binds: source, path inside, whether read-only. channel: the descriptor of the
    status socket.

    told["gvisor"]: nobody: a user of the machine for the one who inside is nobody. limits: rlimit names with values, of the
    job's programs, as their kernel has them.
    """
    _write_bundle(told, binds, command)
    # Not one open file for both: then writes into the full pipe came back from gVisor undone instead of waiting.
    again = os.open("/proc/self/fd/1", os.O_WRONLY)
    os.dup2(again, 2)
    os.close(again)
    if not told["network"]:  # its own is in its kernel; runsc is spoken to by a socket of the namespace it is in
        unshare(CLONE_NEWNET)
    rule_a_namespace({0: told["user"], _NOBODY: told["gvisor"]["nobody"]})
    die_with_parent(told["parent"])
    os.dup2(channel, 0)
    os.set_inheritable(channel, False)  # it tells of a failure until the very end
    os.closerange(channel + 1, 4096)
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", RUNSC, "--root=/state"]
    words += ["--platform=ptrace", f"--network={'host' if told['network'] else 'none'}", "--ignore-cgroups"]
    # Of what is bound into it, the job may make and open sockets and FIFOs, as it may without gVisor.
    words += ["--host-uds=all", "--host-fifo=open", "run", "--bundle=/bundle", f"job-{os.getpid()}"]
    os.execve(_UNSHARE, words, {"PATH": "/usr/bin:/bin"})  # noqa: S606


def _write_bundle(told: Mapping[str, Any], binds: Sequence[tuple[str, str, bool]], command: Sequence[str]) -> None:
    size = f"size={int(told['scratch_bytes'])}"
    scratch = [
        {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777", size]}
        for path in ("/dev/shm", "/tmp", "/run")
    ]
    bound = [
        {"destination": target, "type": "bind", "source": source,
         "options": ["rbind", "nosuid", "nodev", "ro" if readonly else "rw"]}
        for source, target, readonly in binds
    ]  # fmt: skip
    kinds = ["pid", "ipc", "uts", "mount", *([] if told["network"] else ["network"])]
    bundle = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in told["environment"].items()],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [
                {"type": name, "soft": value, "hard": value} for name, value in told["gvisor"]["limits"].items()
            ],
        },
        # What may be written lies with the mounts: runsc itself cannot make one read-only that the launcher made.
        "root": {"path": "/jail", "readonly": False},
        "hostname": told["hostname"],
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            *scratch,
            *bound,
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }
    handle = os.open("/bundle/config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchown(handle, told["user"], told["user"])
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(bundle, file)
