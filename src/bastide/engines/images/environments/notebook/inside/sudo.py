"""``sudo`` of a notebook instance: ``sudo [-u USER] [-EHinS] [NAME=VALUE ...] COMMAND [WORD ...]``.

Root becomes whom it names. ec2-user has commands run as root by the instance's first program, if the instance gives root
access; nobody gains privileges by a program's permissions in here.
"""

from __future__ import annotations

import array
import json
import os
import pwd
import signal
import socket
import sys
from pathlib import Path

PLACE = "/run/notebook/sudo.sock"
_KEPT = ("TERM", "LANG", "LC_ALL", "DISPLAY")


def fail(text: str, status: int = 1) -> None:
    """Says why not."""
    sys.stderr.write(f"sudo: {text}\n")
    sys.exit(status)


def read(words: list[str]) -> tuple[str, bool, bool, list[str]]:
    """The user, whether the environment is kept, whether a login shell is meant, the rest."""
    user, keep, login = "root", False, False
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if word in ("-u", "--user"):
            if not words:
                fail("-u needs a user")
            user = words.pop(0)
        elif word.startswith("--user="):
            user = word.partition("=")[2]
        elif word == "--preserve-env":
            keep = True
        elif word in ("--login", "--set-home", "--non-interactive", "--stdin"):
            login = login or word == "--login"
        elif not word.startswith("--") and set(word[1:]) <= set("EHinSsk"):
            keep, login = keep or "E" in word, login or "i" in word or "s" in word
        elif not word.startswith("--") and word[1] == "u":
            user = word[2:]
        else:
            fail(f"{word} is not supported by this sudo")
    return user, keep, login, words


def by_another(command: list[str], environment: dict[str, str]) -> int:
    """Has root run it; its status."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(PLACE)
    except OSError:
        fail("ec2-user is not in the sudoers file: the notebook instance does not give root access.")
    handles = array.array("i", [0, 1, 2])
    asked = json.dumps({"command": command, "environment": environment, "folder": str(Path.cwd())}).encode() + b"\n"
    sent = connection.sendmsg([asked], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
    connection.sendall(asked[sent:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, lambda caught, _: connection.sendall(bytes([caught])))
    told = b""
    while not told.endswith(b"\n"):
        more = connection.recv(65536)
        if not more:
            return 1
        told += more
    answer = json.loads(told)
    if "error" in answer:
        fail(f"{command[0]}: {answer['error']}")
    status = int(answer["status"])
    return status if status >= 0 else 128 - status


def main() -> None:
    """Does as it is asked."""
    name, keep, login, words = read(sys.argv[1:])
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return fail(f"unknown user {name}")
    given = {}
    while words and "=" in words[0].split("/")[0]:
        key, _, value = words.pop(0).partition("=")
        given[key] = value
    if login:
        words = ["/bin/bash", "-l", *(["-c", 'exec "$@"', "sudo", *words] if words else [])]
    if not words:
        fail("usage: sudo [-u user] [-EHi] [NAME=VALUE ...] command ...")
    mine = os.geteuid()
    who = {"HOME": user.pw_dir, "USER": name, "LOGNAME": name, "SHELL": "/bin/bash"}
    if mine not in (0, user.pw_uid):
        kept = dict(os.environ) if keep else {one: os.environ[one] for one in _KEPT if one in os.environ}
        sys.exit(by_another(words, {**kept, **who, **given}))
    if mine != user.pw_uid:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    if login:
        os.chdir(user.pw_dir)
    try:
        os.execvpe(words[0], words, {**os.environ, **who, **given})  # noqa: S606
    except OSError as error:
        fail(f"{words[0]}: {error.strerror}", 127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
