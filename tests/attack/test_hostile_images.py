"""Images that attack: by what lies in their layers, by what they say of themselves, and by what they start.

docs/threat-model.md, "a hostile image". What would have been harmed is looked at from outside.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attack.test_hostile_jobs import left, until
from tests.platform import Account, Running, allow
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry, canonical
from tests.stories.ecr.test_access import get
from tests.stories.sagemaker.conftest import Workshop, workshop_of
from tests.stories.sagemaker.test_own_images import PULL, said, train

CONFIG = {"Env": ["PATH=/usr/local/bin:/bin"]}


@pytest.fixture
def victim(account: Account, tmp_path: Path) -> Iterator[tuple[Workshop, Registry, Path]]:
    """A workshop whose role may pull, its registry, and a folder of the machine that must stay as it is."""
    shop = workshop_of(account)
    account.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="pull", PolicyDocument=json.dumps(allow(*PULL, "ecr:GetAuthorizationToken"))
    )
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    (outside / "kept").write_text("kept")
    registry = tmp_path / "registry"
    registry.mkdir()
    yield shop, Registry(account, registry), outside
    assert [one.name for one in outside.iterdir()] == ["kept"] and (outside / "kept").read_text() == "kept"


def layer(*given: tuple[Any, ...]) -> oci.Layer:
    """Entries (name, content), links (name, target, kind) and nodes (name, kind, major, minor)."""

    def put(tar: tarfile.TarFile) -> None:
        for one in given:
            if len(one) == 4:
                oci.entry(tar, one[0], type=one[1], devmajor=one[2], devminor=one[3], mode=0o4666)
            elif len(one) == 3:
                oci.link(tar, *one)
            else:
                oci.entry(tar, *one)

    return put


def test_layers_that_reach_out_harm_nobody(victim: tuple[Workshop, Registry, Path]) -> None:
    shop, registry, outside = victim
    uri, up = registry.create("hostile"), "../" * 12
    refused = {"dots": layer((".wh...", b"")), "whiteout": layer((f"{up}{str(outside)[1:]}/.wh.kept", b""))}
    for name, one in refused.items():
        registry.push(f"{uri}:{name}", [oci.system, oci.scripts(train="echo ran"), one], CONFIG)
        job = train(shop, f"{uri}:{name}")
        assert job["TrainingJobStatus"] == "Failed" and "cannot be used" in job["FailureReason"], (name, job)
    # What a link leads to is looked up inside the image, whoever goes over it: layers, whiteouts, mounts, the job.
    links = layer(
        (f"{str(outside)[1:]}/here", b"of the image"),
        ("out", str(outside), tarfile.SYMTYPE),
        ("up", f"{up}{str(outside)[1:]}", tarfile.SYMTYPE),
        ("opt", str(outside), tarfile.SYMTYPE),
        ("etc/hosts", str(outside / "kept"), tarfile.SYMTYPE),
        ("root", "/proc/1/root", tarfile.SYMTYPE),
        ("disk", tarfile.BLKTYPE, 254, 0),
        ("mem", tarfile.CHRTYPE, 1, 1),
    )

    def setuid(tar: tarfile.TarFile) -> None:
        oci.entry(tar, "bin/become", Path(oci.BUSYBOX).read_bytes(), 0o6755)
        oci.entry(tar, "bin/id", Path(oci.BUSYBOX).read_bytes(), 0o6755)

    over = layer(("out/new", b"x"), ("out/.wh.kept", b""), ("up/.wh..wh..opq", b""), ("up/other", b"x"))
    script = f"""
id -u; test -u /bin/id && echo "WORKED setuid"
for one in /disk /mem {outside}/kept /root/etc/shadow; do test -e $one && echo "WORKED $one"; done
rm -rf /out/kept /up/kept {outside}/* 2>/dev/null; (echo x >{outside}/mine) 2>/dev/null
ls /opt/ml/input >/dev/null && echo done
"""
    registry.push(f"{uri}:links", [oci.system, links, setuid, over, oci.scripts(train=script)], CONFIG)
    job = train(shop, f"{uri}:links")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert said(shop, "/aws/sagemaker/TrainingJobs", job["TrainingJobName"]) == ["1000", "done"]


def test_what_lies_about_itself_is_not_taken(victim: tuple[Workshop, Registry, Path]) -> None:
    shop, registry, _ = victim
    uri = registry.create("liar")
    digest = registry.push(f"{uri}:one", [oci.system, oci.scripts(train="echo ran")], CONFIG)
    base, password = f"/v2/{uri.partition('/')[2]}", registry.password()
    manifest = json.loads(get(registry, f"{base}/manifests/one", password)[2])
    other = "sha256:" + "0" * 64

    def put(reference: str, **changed: Any) -> tuple[int, bytes]:
        text = json.dumps({**manifest, **changed}).encode()
        status, _, body = get(registry, f"{base}/manifests/{reference}", password, "PUT", text)
        return status, body

    first, *rest = manifest["layers"]
    for changed in (
        {"layers": [{**first, "size": first["size"] + 1}, *rest]},
        {"layers": [{**first, "size": 1 << 62}, *rest]},
        {"layers": [{**first, "size": -1}, *rest]},
        {"layers": [{**first, "digest": other}, *rest]},
        {"layers": [{**first, "digest": "sha256:../../../../etc/shadow"}, *rest]},
        {"layers": [first, {**first, "size": 1}, *rest]},
        {"config": {**manifest["config"], "size": 1}},
        {"layers": [{**first, "digest": other, "urls": ["http://169.254.169.254/"]}, *rest]},
    ):
        status, body = put("two", **changed)
        assert 400 <= status < 500, (changed, status, body)
    assert put(other)[0] == 400, "a digest that is not the manifest's"
    # A layer that is not what it says: nothing comes of it.
    _, head, _ = get(registry, f"{base}/blobs/uploads/", password, "POST", b"")
    where = head["location"].replace(registry.account.platform.url, "")
    mark = "&" if "?" in where else "?"
    status, _, body = get(registry, f"{where}{mark}digest={other}", password, "PUT", b"not that")
    assert status == 400 and b"DIGEST_INVALID" in body, (status, body)
    assert get(registry, f"{base}/blobs/{other}", password)[0] == 404
    assert [one["imageDigest"] for one in registry.ecr.list_images(repositoryName="liar")["imageIds"]] == [digest]

    # A configuration that names other layers than there are, and a bomb, fail the job that wants them.
    packed, _ = oci.packed(oci.scripts(train="echo ran"))
    bomb = gzip.compress(bytes(128 << 20), 9)
    for name, one, why in (
        ("other", (packed, other), "not the one that its configuration names"),
        ("bomb", (bomb, f"sha256:{hashlib.sha256(bytes(128 << 20)).hexdigest()}"), "unpacks to more than"),
    ):
        registry.push(f"{uri}:{name}", [oci.system, one], CONFIG)
        job = train(shop, f"{uri}:{name}")
        assert job["TrainingJobStatus"] == "Failed" and why in job["FailureReason"], job["FailureReason"]


HOLDS = """
echo secret >/var-secret; echo secret >/dev/shm/secret
nc -ll -p 5000 -e /bin/echo robbed &
mkdir -p /opt/ml/checkpoints; echo up >/opt/ml/checkpoints/up
i=0; while test $i -lt 600; do test -e /var-changed && exit 9; sleep 0.1; i=$((i+1)); done
"""


def test_an_entrypoint_reaches_neither_host_nor_neighbours_nor_the_internet(
    victim: tuple[Workshop, Registry, Path], platform: Running, neighbour: Account
) -> None:
    shop, registry, outside = victim
    uri = registry.create("entry")
    port = platform.url.rpartition(":")[2]
    attempts = [
        f"cat {platform.data}/root.key", f"ls {platform.data}", f"ls {outside}", "cat /var-secret", "cat /dev/shm/secret",
        "cat /proc/1/environ | grep AWS_SECRET", "ls /proc | grep -v '[0-9]' | grep bastide",
        "nc -w 1 127.0.0.1 5000 </dev/null | grep robbed", f"nc -w 1 127.0.0.1 {port} </dev/null",
        "nc -w 1 169.254.169.254 80 </dev/null", "nc -w 1 8.8.8.8 53 </dev/null", "nc -w 1 10.77.0.2 5000 </dev/null",
        "wget -q -T 1 -O - http://169.254.169.254/latest/meta-data/", "wget -q -T 1 -O - http://example.com/",
        "mount -t proc proc /mnt", "unshare -Um true", "mknod /d b 254 0", "chown 0:0 /opt/ml",
        "echo x >/proc/sys/kernel/core_pattern", "echo x >/sys/fs/cgroup/cgroup.procs", "ls /run/bastide/api.sock",
    ]  # fmt: skip
    tried = "\n".join(
        f"printf '%s' {base64.b64encode(one.encode()).decode()} | base64 -d >/tmp/try; "
        f'if (trap "" TERM; . /tmp/try) >/dev/null 2>&1; then echo "WORKED: $(cat /tmp/try)"; fi'
        for one in [*attempts, "cat /etc/passwd"]
    )
    steals = f"{tried}\necho changed >/var-changed\necho done"
    image = [oci.system, layer(("bin/base64", "busybox", tarfile.SYMTYPE)), oci.scripts(hold=HOLDS, steal=steals)]
    registry.push(f"{uri}:one", image, CONFIG)
    where = canonical(shop.account.id, "entry:one")
    assert train(shop, where, algorithm={"ContainerEntrypoint": ["id"]})["TrainingJobStatus"] == "Completed"
    before = left(platform)  # the unpacked image among it, which stays
    held = shop.train(
        "",
        AlgorithmSpecification={
            "TrainingImage": where, "TrainingInputMode": "File", "ContainerEntrypoint": ["hold"],
        },
        HyperParameters={},
        CheckpointConfig={"S3Uri": f"s3://{shop.bucket}/check"},
    )  # fmt: skip
    until(lambda: shop.s3.head_object(Bucket=shop.bucket, Key="check/up"))
    # The same image for both: what it unpacked to is shared, and what one writes over it is not.
    job = train(shop, where, algorithm={"ContainerEntrypoint": ["steal"]})
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert said(shop, "/aws/sagemaker/TrainingJobs", job["TrainingJobName"]) == ["WORKED: cat /etc/passwd", "done"]
    # Another account's role does not come by an image that is unpacked here already.
    folder = outside.parent / "theirs"
    folder.mkdir()
    theirs = workshop_of(neighbour)
    neighbour.client("iam").put_role_policy(
        RoleName="Execution", PolicyName="pull", PolicyDocument=json.dumps(allow("ecr:*"))
    )
    refused = train(theirs, where)
    assert refused["TrainingJobStatus"] == "Failed" and "AccessDeniedException" in refused["FailureReason"]
    assert shop.sagemaker.describe_training_job(TrainingJobName=held)["TrainingJobStatus"] == "InProgress"
    shop.sagemaker.stop_training_job(TrainingJobName=held)
    assert shop.trained(held)["TrainingJobStatus"] == "Stopped"

    def more() -> set[str]:
        try:
            return left(platform) - before
        except FileNotFoundError:  # control groups of other platforms come and go while it looks
            return {"?"}

    until(lambda: not more())
