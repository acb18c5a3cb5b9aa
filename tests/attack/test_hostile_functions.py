"""Functions that attack: what they find of others, of the machine, of the platform, and what is left when they are gone."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.attack.test_hostile_jobs import clean
from tests.platform import Account, Running
from tests.stories.lambda_.conftest import Bench, bench_of
from tests.waiting import until

__all__ = ["clean"]

LOOKS = """
import contextlib, glob, json, os, socket, subprocess, threading, time, urllib.error, urllib.request
def api(method, path, body=b""):
    asked = urllib.request.Request("http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + path, body or None, method=method)
    try:
        return urllib.request.urlopen(asked, timeout=2).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
def written(path):
    try:
        with open(path, "w") as file: file.write("x")
        return True
    except OSError:
        return False
def handler(event, context):
    base = "/2018-06-01/runtime"
    match event["do"]:
        case "hide":
            with open("/tmp/secret", "w") as file: file.write("of another's")
            with open("/dev/shm/secret", "w") as file: file.write("of another's")
            return os.environ["AWS_SECRET_ACCESS_KEY"]
        case "look":
            processes = [open(f"/proc/{one}/cmdline").read() for one in os.listdir("/proc") if one.isdigit()]
            return {
                "tmp": os.listdir("/tmp") + os.listdir("/dev/shm"),
                "processes": len(processes),
                "written": [one for one in ("/var/task/x", "/var/runtime/x", "/opt/x", "/usr/x", "/etc/x") if written(one)],
                "host": [one for one in (event["data"], "/home", "/work", "/etc/shadow") if os.path.exists(one)],
                "user": os.getuid(),
                "environment": sorted(name for name in os.environ if "BASTIDE" in name),
            }
        case "api":
            return [
                api("POST", base + "/invocation/" + event["id"] + "/response", b"stolen"),
                api("POST", base + "/invocation/" + context.aws_request_id[::-1] + "/error", b"x"),
                api("POST", base + "/init/error", b"{}"),
                api("GET", "/elsewhere"),
            ]
        case "flood":
            held = []
            for _ in range(30):
                try:
                    one = socket.create_connection(("127.0.0.1", 9001), 1)
                    one.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
                    held.append(one)
                except OSError:
                    pass
            globals()["kept"] = held
            return len(held) > 0
        case "answer":
            api("POST", base + "/invocation/" + context.aws_request_id + "/response", b"\\"twice\\"")
            return "late"
        case "garbage":
            with socket.create_connection(("127.0.0.1", 9001), 1) as one:
                one.sendall(b"POST /2018-06-01/runtime/init/error HTTP/1.1\\r\\nContent-Length: 99999999999\\r\\n\\r\\n")
                with contextlib.suppress(OSError):  # it may have hung up by now
                    one.sendall(b"x" * 100000)
                    one.sendall(b"\\x00\\xff" * 1000)
            return "still here"
        case "fork":
            for _ in range(200):
                if os.fork() == 0:
                    time.sleep(600)
            return "forked"
        case "behind":
            def work():
                while True:
                    with open("/tmp/beat", "a") as file: file.write("x")
                    time.sleep(0.001)
            threading.Thread(target=work, daemon=True).start()
            return "begun"
        case "beat":
            return os.path.getsize("/tmp/beat")
"""


@pytest.fixture(scope="module")
def villain(platform: Running) -> tuple[Bench, str]:
    bench = bench_of(platform.account())
    return bench, bench.make(LOOKS, "villain", Timeout=10, MemorySize=256)


def test_a_function_finds_nothing_of_others(villain: tuple[Bench, str], platform: Running, clean: None) -> None:
    bench, name = villain
    other = bench.make(LOOKS, "victim")
    secret = bench.invoke(other, {"do": "hide"}).payload
    found = bench.invoke(name, {"do": "look", "data": str(platform.data)}).payload
    assert found["tmp"] == [] and found["written"] == [] and found["host"] == []
    assert found["processes"] <= 3 and found["user"] == 1000 and found["environment"] == []
    assert secret not in json.dumps(found)
    listed = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert secret not in listed, "credentials are in no argument"
    for one in (name, other):
        bench.client.update_function_configuration(FunctionName=one, Description="others are warm no more")
        bench.settled(one)


def test_the_runtime_api_takes_an_answer_once_and_for_its_own_event(villain: tuple[Bench, str]) -> None:
    bench, name = villain
    assert bench.invoke(name, {"do": "api", "id": str(uuid.uuid4())}).payload == [400, 400, 202, 404]
    assert bench.invoke(name, {"do": "answer"}).payload == "twice", "the first answer counts"
    assert bench.invoke(name, {"do": "garbage"}).payload == "still here"
    assert bench.invoke(name, {"do": "flood"}).payload is True
    assert bench.invoke(name, {"do": "garbage"}).payload == "still here"


def beats() -> int:
    """How often the thread has written, seen from outside."""
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            return (one / "root/tmp/beat").stat().st_size
    return 0


def test_nothing_runs_between_events(villain: tuple[Bench, str]) -> None:
    bench, name = villain
    assert bench.invoke(name, {"do": "behind"}).payload == "begun"
    until(lambda: bench.invoke(name, {"do": "beat"}).payload)

    def stands() -> int:
        before = beats()
        time.sleep(0.1)
        return before if beats() == before else 0

    still = until(stands)  # it is halted a moment after it has answered
    time.sleep(0.3)
    assert beats() == still, "a thread that writes every millisecond stands still"
    until(lambda: bench.invoke(name, {"do": "beat"}).payload > still)


def test_a_fork_bomb_ends_with_its_environment(villain: tuple[Bench, str], clean: None) -> None:
    bench, name = villain
    said = bench.invoke(name, {"do": "fork"})
    assert said.payload == "forked" or said.error
    bench.client.delete_function(FunctionName=name)


def test_another_accounts_code_is_not_taken(account: Account, neighbour: Account) -> None:
    mine, theirs = bench_of(account), bench_of(neighbour)
    s3, bucket = neighbour.client("s3"), f"theirs-{neighbour.id}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="code.zip", Body=b"x")
    from botocore.exceptions import ClientError

    given: dict[str, Any] = {"Runtime": "python3.11", "Handler": "index.handler", "FunctionName": "x"}
    with pytest.raises(ClientError, match="AccessDenied"):
        mine.client.create_function(**given, Role=mine.role, Code={"S3Bucket": bucket, "S3Key": "code.zip"})
    with pytest.raises(ClientError, match="AccessDenied"):
        mine.client.create_function(**given, Role=theirs.role, Code={"ZipFile": b"x"})
