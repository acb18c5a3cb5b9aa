"""The first program of a notebook instance: root, to whom ec2-user is somebody else. Clones the repositories, runs the
lifecycle scripts, and sees to it that Jupyter runs.

What it says goes out as lines of JSON: ``log`` and ``line`` of a script or of Jupyter; ``begin`` and ``over`` (with
``status``) of a script; ``failed``, why the instance cannot be used. How long a script may take, others watch.
"""

from __future__ import annotations

import array
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ORDER = Path("/opt/ml/notebook.json")
HOME = Path("/home/ec2-user")
FILES = HOME / "SageMaker"
TOOLS = Path("/run/notebook")
USER = {"user": 1000, "group": 1000, "extra_groups": []}
PYTHON = "/opt/environment/bin/python3"
_LONGEST = 32 * 1024
_PROFILE = """for one in /etc/profile.d/*.sh; do [ -r "$one" ] && . "$one"; done
unset one
"""
_SAYING = threading.Lock()
_stopping = threading.Event()


def say(**told: Any) -> None:
    """One line out."""
    with _SAYING:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def follow(process: subprocess.Popen[bytes], log: str) -> None:
    """Hands on what a program prints, also what it leaves running prints."""

    def read() -> None:
        assert process.stdout is not None
        while line := process.stdout.readline(_LONGEST):
            say(log=log, line=line.decode("utf-8", "replace").rstrip("\n"))

    threading.Thread(target=read, daemon=True).start()


def surroundings(user: bool) -> dict[str, str]:
    """The environment of root or of ec2-user."""
    found = dict(os.environ)
    name, home = ("ec2-user", str(HOME)) if user else ("root", "/root")
    return found | {"HOME": home, "USER": name, "LOGNAME": name, "SHELL": "/bin/bash"}


def fail(why: str) -> None:
    """Says why the instance cannot be used, and ends."""
    say(failed=why[:900])
    sys.exit(1)


def script(name: str, content: str) -> None:
    """Runs a lifecycle script as root, from a file, so that it may say which interpreter it is for."""
    place = TOOLS / name
    place.write_bytes(base64.b64decode(content))
    place.chmod(0o700)
    say(begin=name)
    try:
        process = subprocess.Popen(
            [str(place)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd="/",
            env=surroundings(user=False), start_new_session=True,
        )  # fmt: skip
    except OSError as error:  # without a first line it is a shell's
        if error.errno != 8:
            fail(f"{name} could not be run: {error.strerror}")
        process = subprocess.Popen(
            ["/bin/sh", str(place)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd="/", env=surroundings(user=False), start_new_session=True,
        )  # fmt: skip
    follow(process, f"LifecycleConfig{name}")
    status = process.wait()
    time.sleep(0.05)  # what it said last
    say(over=name, status=status)
    if status:
        sys.exit(1)


def clone(one: dict[str, str]) -> None:
    """A repository, as ec2-user, unless its folder is there from an earlier start."""
    folder = FILES / one["folder"]
    if folder.is_symlink() or folder.exists():
        return
    environment = surroundings(user=True) | {"GIT_TERMINAL_PROMPT": "0"}
    options: list[str] = []
    if one.get("username"):
        kept = HOME / ".git-credentials"
        line = f"https://{one['username']}:{one['password']}@{one['host']}\n"
        with kept.open("a") as file:
            file.write(line)
        kept.chmod(0o600)
        os.chown(kept, 1000, 1000)
        set_ = ["git", "config", "--global", f"credential.https://{one['host']}.helper", "store"]
        subprocess.run(set_, check=True, env=environment, **USER)
    elif one["codecommit"]:
        options = ["-c", "credential.helper=", "-c", "credential.UseHttpPath=true"]
        options += ["-c", "credential.helper=!aws codecommit credential-helper --ignore-host-check $@"]
    branch = ["--branch", one["branch"]] if one.get("branch") else []
    command = ["git", *options, "clone", "--quiet", *branch, "--", one["url"], str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, env=environment, cwd=FILES, **USER)
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        fail(f"The repository {one['url']} could not be cloned: {said[-500:]}")


class Sudo(threading.Thread):
    """Runs commands as root for ec2-user, who cannot become root: nobody gains privileges in here."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = str(TOOLS / "sudo.sock")
        self._server.bind(place)
        Path(place).chmod(0o666)
        self._server.listen(16)

    def run(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            handles = array.array("i")
            size = handles.itemsize
            data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(3 * size))
            for level, kind, held in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    handles.frombytes(held[: len(held) - len(held) % size])
            try:
                while not data.endswith(b"\n") and len(data) < 1 << 20:
                    more = connection.recv(1 << 16)
                    if not more:
                        return
                    data += more
                asked = json.loads(data)
                inside = surroundings(user=False) | asked["environment"]
                process = subprocess.Popen(
                    asked["command"], stdin=handles[0], stdout=handles[1], stderr=handles[2], cwd=asked["folder"],
                    env=inside, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                connection.sendall(json.dumps({"error": f"{error}"}).encode() + b"\n")
                return
            finally:
                for handle in handles:
                    os.close(handle)
            threading.Thread(target=self._signals, args=(connection, process), daemon=True).start()
            connection.sendall(json.dumps({"status": process.wait()}).encode() + b"\n")

    @staticmethod
    def _signals(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                word = connection.recv(1)
            except OSError:
                return
            if not word:
                break
            if process.poll() is None:
                os.killpg(process.pid, word[0])
        if process.poll() is None:  # whoever waited for it is gone
            os.killpg(process.pid, signal.SIGHUP)


def prepare(order: dict[str, Any]) -> None:
    """What the system has beside what every sandbox sees."""
    TOOLS.mkdir(mode=0o755)
    (TOOLS / "bin").mkdir()
    sudo = TOOLS / "bin" / "sudo"
    sudo.write_text(f'#!/bin/sh\nexec {PYTHON} -I -S /opt/notebook/sudo.py "$@"\n')
    sudo.chmod(0o755)
    Path("/etc/profile.d").mkdir(exist_ok=True)
    Path("/etc/profile").write_text(_PROFILE)
    path = Path("/etc/profile.d/notebook.sh")
    path.write_text(f"export PATH={os.environ['PATH']}\n")
    if order["instead"]:
        shown, there = order["instead"]
        Path("/etc/gitconfig").write_text(f'[url "{there}"]\n\tinsteadOf = {shown}\n')
    # What asks whether to look for news: nothing leads there.
    settings = Path("/etc/jupyter/labconfig")
    settings.mkdir(parents=True, exist_ok=True)
    told = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (settings / "page_config.json").write_text(json.dumps(told))
    shutil.rmtree(HOME / "lost+found", ignore_errors=True)
    for folder in (HOME, FILES):
        os.chown(folder, 1000, 1000)
        folder.chmod(0o755)


def jupyter(order: dict[str, Any]) -> list[str]:
    """The command of the server, for a login shell: so that it knows what the scripts set."""
    server = ["/opt/environment/bin/jupyter-lab", "--no-browser", f"--ServerApp.sock={order['socket']}"]
    server += [f"--ServerApp.root_dir={FILES}", "--IdentityProvider.token=", "--ServerApp.allow_remote_access=True"]
    server += ["--ServerApp.quit_button=False", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    server += [
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--FileContentsManager.delete_to_trash=False",
    ]
    server += ["--ServerApp.terminado_settings=shell_command=['/bin/bash', '-l']", "--ServerApp.log_level=WARN"]
    if order["default"] and (FILES / order["default"]).is_dir():
        server += [f"--FileContentsManager.preferred_dir={FILES / order['default']}"]
    return ["/bin/bash", "-lc", 'exec "$@"', "jupyter", *server]


def main() -> None:
    """Does not return before Jupyter has ended for good."""
    order = json.loads(ORDER.read_bytes())
    ORDER.unlink()
    signal.signal(signal.SIGTERM, lambda *_: _stopping.set())
    prepare(order)
    for one in order["repositories"]:
        clone(one)
    for name, content in order["scripts"]:
        script(name, content)
    if order["root"]:
        Sudo().start()
    socket_ = Path(order["socket"])
    os.chown(socket_.parent, 1000, 1000)
    while not _stopping.is_set():
        socket_.unlink(missing_ok=True)
        began = time.monotonic()
        process = subprocess.Popen(
            jupyter(order), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=FILES,
            env=surroundings(user=True), start_new_session=True, **USER,
        )  # fmt: skip
        follow(process, "jupyter.log")
        status = process.wait()
        if not _stopping.is_set():
            say(log="jupyter.log", line=f"Jupyter ended with status {status}; it is started again.")
            if time.monotonic() - began < 5:
                time.sleep(5)


if __name__ == "__main__":
    main()
