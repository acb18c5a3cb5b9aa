"""What this machine can do for sandboxes, found out by trying, and how to get what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from bastide.jail import cgroups, gvisor, seccomp

STARTER: Final = Path("/usr/bin/busybox")
LAUNCHER: Final = str(Path(__file__).parent)
# The user that a trial runs as; no account of the machine has it.
_TRIAL_USER: Final = 1_899_999_999


class Finding(NamedTuple):
    """One thing that was looked at. remedy: what to do when it is not ok. required: jobs cannot run without it."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def probe() -> list[Finding]:
    """Look at everything a sandbox needs or can use. Takes some hundreds of milliseconds; changes nothing."""
    found = [_privileges(), _filter(), _program("bwrap", "bubblewrap", "--disable-userns", "--help")]
    found += [_program("gocryptfs", "gocryptfs"), _program("fusermount3", "fuse3"), _fuse(), _cgroups()]
    found.append(_sandbox() if all(f.ok for f in found[:3]) else _not_tried())
    found += [_networks(), _tunnels(), _containers(), _gvisor(), _gpu()]
    return found


def _privileges() -> Finding:
    return Finding(
        "privileges",
        os.geteuid() == 0,
        f"running as uid {os.geteuid()}",
        "start the platform as root: it gives each job a user of its own and keeps none of its privileges in a job",
    )


def _filter() -> Finding:
    machine = os.uname().machine
    try:
        size = len(seccomp.assemble(machine)) // 8
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except ValueError as error:
        return Finding("seccomp", False, str(error), "run on x86_64 or aarch64")
    except OSError as error:
        return Finding("seccomp", False, str(error), "use a kernel with CONFIG_SECCOMP_FILTER")
    return Finding(
        "seccomp",
        {"errno", "kill_process"} <= set(actions),
        f"{size} instructions for {machine}; the kernel offers {' '.join(actions)}",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    )


def _program(name: str, package: str, needs: str = "", ask: str = "") -> Finding:
    remedy = f"apt-get install {package}"
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, "not found", remedy)
    told = _said([path, "-version" if name == "gocryptfs" else "--version"])
    line = told.splitlines()[0].split(";")[0] if told else path
    if needs and needs not in _said([path, ask]):
        return Finding(name, False, f"{line} has no {needs}", f"{remedy} (a version with {needs}, 0.8 or later)")
    return Finding(name, True, line, remedy)


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()


def _fuse() -> Finding:
    remedy = "load the kernel module fuse (modprobe fuse) and let the platform open /dev/fuse"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding("fuse", False, f"/dev/fuse: {error.strerror}", remedy)
    return Finding("fuse", True, "/dev/fuse opens", remedy)


def _cgroups() -> Finding:
    remedy = "give the platform a writable cgroup tree with the controllers memory, pids and cpu"
    kind = cgroups.version()
    group = cgroups.create(f"probe-{os.getpid()}", memory_bytes=64 << 20, processes=8, cpus=1.0)
    group.remove()
    missing = sorted({"memory", "pids", "cpu"} - group.limited)
    if missing:
        falls = "; process limits stand in (less exact: a limit per process, not per job)"
        return Finding("cgroups", False, f"{kind}, no limit for {', '.join(missing)}{falls}", remedy, required=False)
    return Finding("cgroups", True, f"{kind}: memory, pids, cpu", remedy)


def _not_tried() -> Finding:
    return Finding("sandbox", False, "not tried, because something it needs is missing", "see above")


def _sandbox() -> Finding:
    remedy = (
        "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1 (Debian), "
        "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap (Ubuntu)"
    )
    why = _trial({}, {"RLIMIT_NPROC": 16})
    return Finding(
        "sandbox", not why, why or "a trial job ran with all namespaces, as a user without privileges", remedy
    )


def _trial(gvisor: dict[str, object], limits: dict[str, int]) -> str:
    """The whole way of a job, with ``true`` as its command; why it did not go, empty if it did."""
    with tempfile.TemporaryDirectory(prefix="bastide-probe-") as scratch, tempfile.TemporaryFile() as told:
        words = {"parent": os.getpid(), "user": _TRIAL_USER, "group": {}, "own": [], "scratch": scratch, "person": []}
        more = {
            "readonly": [],
            "writable": [],
            "devices": [],
            "hostname": "probe",
            "hosts": ["probe"],
            "environment": {"PATH": "/bin"},
        }
        more |= {"network": "", "addresses": {}, "resolver": ""}
        image = {"root": "", "files": {}, "inside": [1000, 1000], "gvisor": gvisor, "privileged": 0}
        last = {"folder": "/", "command": ["/bin/true"], "limits": limits, "scratch_bytes": 1 << 20}
        told.write(json.dumps(words | more | image | last).encode())
        told.seek(0)
        ours, theirs = socket.socketpair()
        started = subprocess.Popen(
            [sys.executable, "-I", "-S", LAUNCHER, str(theirs.fileno())],
            stdin=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            env={},
        )
        theirs.close()
        try:
            output = started.communicate(timeout=20)[0].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
            output = "it hung"
        ours.setblocking(False)
        answer = ""
        with ours, contextlib.suppress(OSError):
            answer = ours.recv(4096).decode(errors="replace").strip()
    if started.returncode == 0 and answer.startswith("running"):
        return ""
    why = re.sub(r"\s+", " ", f"{answer} {output}").strip()[:300]
    return why or f"it ended with status {started.returncode}"


def _tunnels() -> Finding:
    packages = "charon-systemd libcharon-extra-plugins libstrongswan-standard-plugins"
    plugin = Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so")
    lacks = [
        name
        for name, there in (
            ("charon-systemd", shutil.which("charon-systemd", path="/usr/sbin:/usr/bin:/sbin:/bin") is not None),
            (str(plugin), plugin.exists()),
            ("/dev/net/tun", Path("/dev/net/tun").exists()),
        )
        if not there
    ]
    told = f"not found: {', '.join(lacks)}" if lacks else "strongSwan, with IPsec of its own, and TUN"
    return Finding("tunnels", not lacks, told, f"apt-get install {packages}, a kernel with TUN", False)


def _networks() -> Finding:
    """Without them VPC endpoints are refused; everything else works."""
    remedy = "apt-get install iproute2 nftables, a kernel with nf_tables and veth, and the platform started as root"
    search = "/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [name for name in ("ip", "nft", "nsenter") if shutil.which(name, path=search) is None]
    if missing:
        return Finding("networks", False, f"not found: {', '.join(missing)}", remedy, required=False)
    said = _said(["unshare", "--net", "sh", "-c", f"PATH={search}; {_TRIAL_NETWORK}"])
    return Finding("networks", not said, said[:300] or "iproute2 and nftables made a trial network", remedy, False)


_TRIAL_NETWORK: Final = (
    "ip link add trial0 type veth peer name trial1 && "
    "nft 'table ip t { chain c { type nat hook prerouting priority -100; ct state new accept; }; }'"
)


def _containers() -> Finding:
    """Without them containers of one's own are refused; everything else works."""
    remedy = "apt-get install busybox-static, and a kernel with overlayfs (modprobe overlay)"
    if not STARTER.exists():
        return Finding("containers", False, f"{STARTER} not found", remedy, required=False)
    if b"ld-linux" in STARTER.read_bytes()[:4096]:
        return Finding("containers", False, f"{STARTER} is not static", remedy, required=False)
    if not re.search(r"\boverlay$", Path("/proc/filesystems").read_text(), re.MULTILINE):
        return Finding("containers", False, "the kernel has no overlayfs", remedy, required=False)
    return Finding("containers", True, "images of your own run in the same sandbox, over overlayfs", remedy, False)


def _gvisor() -> Finding:
    """Without it code that an organisation does not trust is refused; everything else works."""
    remedy = "apt-get install runsc busybox-static (only for accounts with the tag bastide:untrusted-code)"
    if not os.access(gvisor.RUNSC, os.X_OK):
        return Finding("gvisor", False, f"{gvisor.RUNSC} not found", remedy, required=False)
    why = _trial({"nobody": _TRIAL_USER + 1, "limits": {}}, {})
    told = _said([gvisor.RUNSC, "--version"]).splitlines()
    return Finding("gvisor", not why, why or f"a trial job ran on a kernel of its own, by {told[0]}", remedy, False)


def _gpu() -> Finding:
    remedy = "install the vendor's driver (only for jobs that ask for a GPU)"
    nodes = sorted(str(p) for p in Path("/dev").glob("nvidia[0-9]*")) + [p for p in ("/dev/kfd",) if Path(p).exists()]
    return Finding("gpu", bool(nodes), ", ".join(nodes) or "none found", remedy, False)
