"""Jobs that attack: their neighbour on the machine, the platform that serves them, and what is left when they are gone.

docs/threat-model.md, "a hostile job". Each attempt is made from inside, by a program that says what it got; what it would
have harmed is looked at from outside.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import waiting
from tests.platform import Account, Keys, Running, allow, below
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_job_network import ASK, said


def until(what: Callable[[], Any]) -> Any:
    """What comes at last: an object that is not there yet is no error."""

    def look() -> Any:
        try:
            return what()
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("NoSuchKey", "404"), error
            return None

    return waiting.until(look)


def left(running: Running) -> set[str]:
    """Mounts, processes, files, control groups, namespaces and sockets of the platform."""
    assert running.process is not None
    data, mine = str(running.data), str(running.process.pid)
    found = {line for line in Path("/proc/mounts").read_text().splitlines() if data in line}
    for folder in ("volumes", "lazy", "sandboxes"):
        inside = running.data / "run" / folder
        found |= {str(one) for one in inside.iterdir()} if inside.is_dir() else set()
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines()[1:]:
        pid, parent, command = line.split(None, 2)
        if parent == mine and "bastide" not in command:
            found.add(f"process {pid} {command[:80]}")
    for one in Path(f"/proc/{mine}/fd").iterdir():
        try:
            target = str(one.readlink())
        except OSError:
            continue
        if target.startswith(("net:[", "/dev/fuse")):
            found.add(target)
    mark = hashlib.sha256(os.fsencode((running.data / "run").resolve())).hexdigest()[:10]  # of this platform alone
    groups = (one for one in below(Path("/sys/fs/cgroup")) if f"{mark}-" in one.name)
    return found | {str(one) for one in groups if (one / "cgroup.procs").exists()}


@pytest.fixture
def clean(platform: Running) -> Iterator[None]:
    """Nothing is left behind that was not there."""
    before = left(platform)
    yield
    waiting.until(lambda: not left(platform) - before, told=lambda: left(platform) - before)


def handles(running: Running) -> int:
    assert running.process is not None
    return sum(1 for _ in Path(f"/proc/{running.process.pid}/fd").iterdir())


def checkpoints(shop: Workshop, prefix: str = "check") -> dict[str, Any]:
    return {"CheckpointConfig": {"S3Uri": f"s3://{shop.bucket}/{prefix}"}}


# What lives in one job to be found by another: sockets of every kind, shared memory, files, the way to its credentials.
HOLDS = """
import ctypes, threading, time
libc = ctypes.CDLL(None, use_errno=True)
held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
held[0].bind('\\0bastide-neighbour'), held[0].listen()
held[1].bind('/tmp/neighbour'), held[1].listen()
held.append(socket.create_server(('0.0.0.0', 5000)))
shared = libc.shmget(4242, 4096, 0o1666)
open('/dev/shm/neighbour', 'w').write('secret')
os.chmod('/dev/shm/neighbour', 0o666)
# As many connections as it may open, none of which says anything.
for port, count in ((80, 400), (443, 900)):
    for _ in range(count):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(('127.0.0.1', port))
        held.append(one)
open('/opt/ml/checkpoints/flooded', 'w').write('x')
time.sleep(3)
for one in held[3:]:
    one.close()
told = {'given': credentials(), 'token': os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'], 'shared': shared}
open('/opt/ml/checkpoints/draft', 'w').write(json.dumps(told))
os.rename('/opt/ml/checkpoints/draft', '/opt/ml/checkpoints/told.json')
time.sleep(60)
"""
STEALS = """
import ctypes, glob
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_ssize_t
found = {}
def attempt(name, do):
    try:
        found[name] = str(do())[:100]
    except Exception:
        pass
def unix(address):
    one = socket.socket(socket.AF_UNIX)
    one.connect(address)
    return 'connected'
def shared():
    where = libc.shmget(4242, 4096, 0)
    assert where >= 0
    return where
def replayed():
    asked = urllib.request.Request(os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI'])
    asked.add_header('Authorization', os.environ['OF_ANOTHER'])
    return urllib.request.urlopen(asked, timeout=5).read()
attempt('abstract', lambda: unix('\\0bastide-neighbour'))
attempt('path', lambda: unix('/tmp/neighbour'))
attempt('port', lambda: socket.create_connection(('127.0.0.1', 5000), 1))
for address in ('10.77.0.1', '10.77.0.2', '10.78.0.1', '169.254.170.2', '169.254.169.254'):
    attempt(address, lambda: socket.create_connection((address, 80), 0.3))
attempt('shared memory', shared)
attempt('/dev/shm', lambda: open('/dev/shm/neighbour').read())
attempt('token', replayed)
attempt('processes', lambda: [one for one in glob.glob('/proc/[0-9]*/environ')
    if b'AWS_CONTAINER' in open(one, 'rb').read() and one.split('/')[2] not in (str(os.getpid()), str(os.getppid()), '1')
    and b'OF_ANOTHER' not in open(one, 'rb').read()][0])
attempt('kernel log', lambda: open('/dev/kmsg').read(1))
attempt('host', lambda: open('/proc/1/root/root.key').read())
"""


@pytest.mark.usefixtures("clean")
def test_a_job_floods_the_platform_is_robbed_by_its_neighbour_and_ends_with_its_sessions(
    platform: Running, account: Account
) -> None:
    shop = workshop_of(account)
    iam = account.client("iam")
    taken = allow("sts:AssumeRole", "sts:GetCallerIdentity")
    iam.put_role_policy(RoleName="Execution", PolicyName="on", PolicyDocument=json.dumps(taken))
    second = account.role("Second", allow("s3:*"), trust={"AWS": shop.role})
    before = handles(platform)
    victim = shop.train(ASK + HOLDS, **checkpoints(shop))
    until(lambda: shop.s3.head_object(Bucket=shop.bucket, Key="check/flooded"))
    most = 0
    for _ in range(4):
        assert shop.sagemaker.describe_training_job(TrainingJobName=victim)["TrainingJobStatus"] == "InProgress"
        most = max(most, handles(platform))
    assert most < before + 400, (before, most)
    told = json.loads(until(lambda: shop.s3.get_object(Bucket=shop.bucket, Key="check/told.json"))["Body"].read())
    assert told["shared"] >= 0
    stolen = said(shop, STEALS, Environment={"OF_ANOTHER": told["token"]})
    assert stolen == {}
    given = told["given"]
    keys = Keys(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
    sts, s3 = account.client("sts", keys), account.client("s3", keys, signature_version="s3v4")
    assert ":assumed-role/Execution/" in sts.get_caller_identity()["Arn"]
    on = sts.assume_role(RoleArn=second, RoleSessionName="on")["Credentials"]
    further = account.client("s3", Keys(on["AccessKeyId"], on["SecretAccessKey"], on["SessionToken"]))
    asked = {"Bucket": shop.bucket, "Key": "check/told.json"}
    further.get_object(**asked)
    link = s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=3000)
    context = ssl.create_default_context(cafile=platform.authority)
    assert urllib.request.urlopen(link, context=context).status == 200
    shop.sagemaker.stop_training_job(TrainingJobName=victim)
    assert shop.trained(victim)["TrainingJobStatus"] == "Stopped"
    for refused in (sts.get_caller_identity, lambda: s3.get_object(**asked), lambda: further.get_object(**asked)):
        with pytest.raises(ClientError) as error:
            refused()
        assert error.value.response["Error"]["Code"] in ("InvalidClientTokenId", "InvalidAccessKeyId", "InvalidToken")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link, context=context)
    # The role itself is as it was: the next job has its own session.
    again = said(shop, f"found = {{'read': call('s3', '/{shop.bucket}/check/flooded')[0]}}")
    assert again == {"read": 200}
    log = (platform.data.parent / "up.log").read_text()
    assert "in admit" not in log  # who is turned away does not fill the log
