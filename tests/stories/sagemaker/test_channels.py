"""Inputs of jobs: files, files that are fetched when read, streams; manifests, shards and orders."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import allow
from tests.stories.sagemaker.conftest import IMAGE, Workshop

KEEP = "open('/opt/ml/model/found.json', 'w').write(json.dumps(found))"


def channel(shop: Workshop, key: str, mode: str = "", **more: Any) -> dict[str, Any]:
    """A channel `train` of what lies at the key. `S3...` and `AttributeNames` go to the source."""
    source = {name: more.pop(name) for name in list(more) if name.startswith(("S3", "Attribute"))}
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{shop.bucket}/{key}", **source}
    found = {"ChannelName": "train", "DataSource": {"S3DataSource": source}, **more}
    return {**found, "InputMode": mode} if mode else found


def fill(shop: Workshop, **objects: bytes) -> None:
    """Objects below `in/`; `_` in a name stands for a dot."""
    for name, content in objects.items():
        shop.s3.put_object(Bucket=shop.bucket, Key=f"in/{name.replace('_', '.')}", Body=content)


def found(shop: Workshop, script: str, *channels: dict[str, Any], **more: Any) -> Any:
    """What a script leaves in its variable `found`."""
    name = shop.train(f"import glob, json, os\n{script}\n{KEEP}", InputDataConfig=list(channels), **more)
    job = shop.trained(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    packed = shop.s3.get_object(Bucket=shop.bucket, Key=f"out/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        file = tar.extractfile("found.json")
        assert file is not None
        return json.load(file)


STREAM = "found = [open(f'/opt/ml/input/data/train_{n}', 'rb').read().decode('latin-1') for n in range(EPOCHS)]"


def test_what_is_read_fast_is_fetched_when_it_is_read(workshop: Workshop) -> None:
    big = bytes(range(256)) * 40_000  # more than two blocks
    fill(workshop, a_csv=b"1,2\n", big_bin=big)
    workshop.s3.put_object(Bucket=workshop.bucket, Key="in/deep/er.txt", Body=b"")
    script = """
base = '/opt/ml/input/data/train'
found = {'names': sorted(os.path.relpath(os.path.join(r, f), base) for r, _, fs in os.walk(base) for f in fs)}
found['size'] = os.path.getsize(base + '/big.bin')
with open(base + '/big.bin', 'rb') as file:
    file.seek(9_000_001)
    found['middle'] = list(file.read(3))
    file.seek(0)
    import hashlib
    found['whole'] = hashlib.sha256(file.read()).hexdigest()
import mmap
with open(base + '/big.bin', 'rb') as file:
    found['mapped'] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[5_000_000]
for act in (lambda: open(base + '/new', 'w'), lambda: open(base + '/a.csv', 'a'), lambda: os.unlink(base + '/a.csv')):
    try:
        act()
        found['written'] = True
    except OSError as error:
        found['refused'] = error.errno
"""
    told = found(workshop, script, channel(workshop, "in/", "FastFile"))
    assert told == {
        "names": ["a.csv", "big.bin", "deep/er.txt"],
        "size": len(big),
        "middle": [9_000_001 % 256, 9_000_002 % 256, 9_000_003 % 256],
        "whole": hashlib.sha256(big).hexdigest(),
        "mapped": 5_000_000 % 256,
        "refused": 30,
    }


def test_a_stream_comes_epoch_by_epoch_and_as_fast_as_it_is_read(workshop: Workshop) -> None:
    fill(workshop, a=b"first ", b=b"second ", c=b"x" * 3_000_000)
    script = """
import stat
base = '/opt/ml/input/data'
found = {'fifo': stat.S_ISFIFO(os.stat(base + '/train_0').st_mode), 'there': os.listdir(base)}
whole = open(base + '/train_0', 'rb').read()
found['first'] = [whole[:13].decode(), len(whole)]
with open(base + '/train_1', 'rb') as early:
    found['second'] = early.read(6).decode()
found['third'] = len(open(base + '/train_2', 'rb').read())
found['gone'] = os.path.exists(base + '/train_0')
"""
    told = found(workshop, script, channel(workshop, "in/", "Pipe"))
    assert told == {
        "fifo": True,
        "there": ["train_0"],
        "first": ["first second ", 3_000_013],
        "second": "first ",
        "third": 3_000_013,
        "gone": False,
    }


def test_streams_are_unpacked_and_wrapped_in_records(workshop: Workshop) -> None:
    fill(workshop, a=gzip.compress(b"one") + gzip.compress(b" two"), b=gzip.compress(b"four"))
    script = STREAM.replace("EPOCHS", "1")
    plain = found(workshop, script, channel(workshop, "in/", "Pipe", CompressionType="Gzip"))
    assert plain == ["one twofour"]
    records = found(
        workshop, script, channel(workshop, "in/", "Pipe", CompressionType="Gzip", RecordWrapperType="RecordIO")
    )
    magic = (0xCED7230A).to_bytes(4, "little")
    expected = magic + (7).to_bytes(4, "little") + b"one two\0" + magic + (4).to_bytes(4, "little") + b"four"
    assert records[0].encode("latin-1") == expected


def test_an_augmented_manifest_streams_its_attributes(workshop: Workshop) -> None:
    fill(workshop, one=b"picture", two=b"image")
    lines = [
        {"source-ref": f"s3://{workshop.bucket}/in/one", "label": 1, "note": "unasked"},
        {"source-ref": f"s3://{workshop.bucket}/in/two", "label": "cat"},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    workshop.s3.put_object(Bucket=workshop.bucket, Key="lists/a.manifest", Body=text.encode())
    told = channel(
        workshop,
        "lists/a.manifest",
        "Pipe",
        S3DataType="AugmentedManifestFile",
        AttributeNames=["source-ref", "label"],
    )
    assert found(workshop, STREAM.replace("EPOCHS", "1"), told) == ["picture1imagecat"]
    wrapped = found(workshop, STREAM.replace("EPOCHS", "1"), {**told, "RecordWrapperType": "RecordIO"})[0]
    records, rest = [], wrapped.encode("latin-1")
    while rest:
        length = int.from_bytes(rest[4:8], "little")
        records.append(rest[8 : 8 + length])
        rest = rest[8 + length + -length % 4 :]
    assert records == [b"picture", b"1", b"image", b"cat"]


def test_a_manifest_names_the_objects(workshop: Workshop) -> None:
    fill(workshop, a=b"a", b=b"b", c=b"c")
    workshop.s3.put_object(Bucket=workshop.bucket, Key="in/sub/d", Body=b"d")
    listed = [{"prefix": f"s3://{workshop.bucket}/in/"}, "c", "sub/d"]
    workshop.s3.put_object(Bucket=workshop.bucket, Key="lists/m.json", Body=json.dumps(listed).encode())
    script = """
base = '/opt/ml/input/data/train'
found = {os.path.relpath(p, base): open(p).read() for p in glob.glob(base + '/**', recursive=True) if os.path.isfile(p)}
"""
    given = channel(workshop, "lists/m.json", S3DataType="ManifestFile")
    assert found(workshop, script, given) == {"c": "c", "sub/d": "d"}
    assert found(workshop, script, {**given, "InputMode": "FastFile"}) == {"c": "c", "sub/d": "d"}
    workshop.s3.put_object(Bucket=workshop.bucket, Key="lists/m.json", Body=b'["no prefix"]')
    job = workshop.trained(workshop.train("", InputDataConfig=[given]))
    assert job["TrainingJobStatus"] == "Failed"
    assert "a manifest is a JSON list that begins with" in job["FailureReason"]


def test_a_seed_gives_every_epoch_an_order_of_its_own(workshop: Workshop) -> None:
    fill(workshop, **{letter: letter.encode() for letter in "abcdefghijklmnop"})
    given = channel(workshop, "in/", "Pipe", ShuffleConfig={"Seed": 7})
    first = found(workshop, STREAM.replace("EPOCHS", "3"), given)
    assert all(sorted(epoch) == sorted("abcdefghijklmnop") for epoch in first)
    assert len(set(first)) == 3
    assert found(workshop, STREAM.replace("EPOCHS", "3"), given) == first


def test_one_object_by_its_name(workshop: Workshop) -> None:
    fill(workshop, a_csv=b"1")
    script = "found = os.listdir('/opt/ml/input/data/train')"
    assert found(workshop, script, channel(workshop, "in/a.csv", "FastFile")) == ["a.csv"]


def test_the_algorithms_mode_holds_where_a_channel_says_nothing(workshop: Workshop) -> None:
    fill(workshop, a=b"A")
    script = (
        STREAM.replace("EPOCHS", "1") + "\nfound.append(json.load(open('/opt/ml/input/config/inputdataconfig.json')))"
    )
    algorithm = {"TrainingImage": IMAGE, "TrainingInputMode": "Pipe"}
    told = found(workshop, script, channel(workshop, "in/"), AlgorithmSpecification=algorithm)
    assert told[0] == "A"
    assert told[1]["train"]["TrainingInputMode"] == "Pipe"


@pytest.mark.parametrize("mode", ["FastFile", "Pipe"])
def test_what_may_not_be_read_any_more_ends_the_job_with_the_true_reason(workshop: Workshop, mode: str) -> None:
    fill(workshop, a=b"a" * 200_000, b=b"b")
    from tests.stories.sagemaker.test_job_network import ASK

    script = f"""
{ASK}
import time
def wait():
    while call('s3', '/{workshop.bucket}/go')[0] != 200: time.sleep(0.1)
if '{mode}' == 'Pipe':
    file = open('/opt/ml/input/data/train_0', 'rb')
    print(file.read(10), flush=True)
    wait()
    print(len(file.read()), flush=True)
    time.sleep(100)
else:
    print(open('/opt/ml/input/data/train/a').read(1), flush=True)
    wait()
    open('/opt/ml/input/data/train/b').read()
"""
    name = workshop.train(f"import os\n{script}", InputDataConfig=[channel(workshop, "in/", mode)])
    logs = workshop.account.client("logs")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=name)["events"]:
                break
        except ClientError:
            pass
        time.sleep(0.05)
    policy = allow("s3:GetObject", resource=f"arn:aws:s3:::{workshop.bucket}/in/b")
    policy["Statement"][0]["Effect"] = "Deny"
    workshop.account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="no", PolicyDocument=json.dumps(policy)
    )
    workshop.s3.put_object(Bucket=workshop.bucket, Key="go", Body=b"")
    job = workshop.trained(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed: AccessDenied"), job["FailureReason"]
    assert job["FailureReason"].endswith(f"(s3://{workshop.bucket}/in/b)")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}, "needs the InputMode Pipe"),
        ({"S3DataType": "AugmentedManifestFile", "InputMode": "Pipe"}, "AttributeNames"),
        ({"CompressionType": "Gzip"}, "CompressionType needs"),
        ({"RecordWrapperType": "RecordIO", "InputMode": "FastFile"}, "RecordWrapperType needs"),
        ({"ShuffleConfig": {"Seed": 1}, "InputMode": "FastFile"}, "FastFile is not shuffled"),
    ],
)
def test_channels_that_contradict_themselves_are_refused(workshop: Workshop, more: dict[str, Any], why: str) -> None:
    with pytest.raises(ClientError, match=why):
        workshop.train("", InputDataConfig=[channel(workshop, "in/", **more)])
