"""What time does by itself to images, scans, and the tokens of package managers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bastide.services.ecr import image
from tests.moved import Moved, moved, until
from tests.platform import Account, allow
from tests.stories.codeartifact.packages import Shelf
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry
from tests.stories.ecr.test_lifecycle import policy, push, rule
from tests.stories.ecr.test_repositories import manifest, upload
from tests.stories.ecr.test_scanning import advisory, debian, findings, load


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    yield from moved(tmp_path_factory.mktemp("moved"))


def held(timed: Moved, name: str) -> set[str]:
    """Digests of a repository's images, read from the store: no signature is good while the clock is moved."""
    rows = timed.look(lambda view: view.scan("ecr:Image", "111122223333", "us-east-1", prefix=f"{name}@"))
    return {one.name.rpartition("@")[2] for one in rows}


def test_images_expire_by_the_platform_s_clock(timed: Moved) -> None:
    ecr = timed.client("ecr")
    ecr.create_repository(repositoryName="app")
    text = policy(
        rule(1, "tagged", "imageCountMoreThan", 1, tagPrefixList=["stable"]), rule(2, "any", "sinceImagePushed", 14)
    )
    old = push(ecr, "app", b"old", "stable-1")
    new = push(ecr, "app", b"new", "stable-2")
    bare = push(ecr, "app", b"bare")
    ecr.put_lifecycle_policy(repositoryName="app", lifecyclePolicyText=text)
    with timed.days_later(13):
        until(lambda: held(timed, "app") == {new, bare})
    with timed.days_later(15):
        until(lambda: held(timed, "app") == {new})
    assert ecr.get_lifecycle_policy(repositoryName="app")["lastEvaluatedAt"]
    with pytest.raises(ecr.exceptions.LayersNotFoundException):
        ecr.get_download_url_for_layer(
            repositoryName="app", layerDigest=f"sha256:{hashlib.sha256(b'old').hexdigest()}"
        )  # its layers are gone, too
    until(lambda: _expired(timed) == [(old, 1), (bare, 2)])
    until(lambda: [one["image-digest"] for one in _told(timed, "ECR Image Action") if _is_delete(one)] == [old, bare])


def _expired(timed: Moved) -> list[tuple[str, int]]:
    """What the record says of images that expired: digests, and the priorities of the rules."""
    kept = timed.look(lambda view: [orjson.loads(one.body) for one in view.events_after(0, limit=1000)])
    told = [one["serviceEventDetails"] for one in kept if one["eventName"] == "PolicyExecutionEvent"]
    return [
        (
            one["lifecycleEventImageActions"][0]["lifecycleEventImage"]["digest"],
            one["lifecycleEventPolicy"]["rulePriority"],
        )
        for one in told
    ]


def _told(timed: Moved, kind: str) -> list[dict[str, Any]]:
    return [one["detail"] for one in list(timed.told) if one.get("detail-type") == kind]


def _is_delete(detail: dict[str, Any]) -> bool:
    return bool(detail["action-type"] == "DELETE")


@pytest.mark.control("IMG-09", lacking="a pipeline that stops at a threshold")
def test_a_daily_scan_finds_what_has_become_known(timed: Moved, tmp_path: Path) -> None:
    account = Account(timed, "111122223333", "home", timed.administrator)
    ecr = timed.client("ecr")
    ecr.create_repository(repositoryName="aged", imageScanningConfiguration={"scanOnPush": True})
    data, _ = oci.packed(debian())
    layers = [upload(ecr, "aged", one) for one in (b"{}", data)]
    put = {"repositoryName": "aged", "imageTag": "v1", "imageManifest": manifest(*layers, size=len(data))}
    digest = ecr.put_image(**put)["image"]["imageId"]["imageDigest"]
    assert findings(ecr, "aged", digest)["imageScanFindings"]["findings"] == []
    load(timed, tmp_path / "known", advisory("DEBIAN-CVE-2026-0009", "Debian:12", "openssl", "3.0.11-1~deb12u2"))
    trust = {"Service": "scheduler.amazonaws.com"}
    role = account.role("Rescanner", allow("ecr:StartImageScan"), trust=trust)
    asked = json.dumps({"RepositoryName": "aged", "ImageId": {"ImageTag": "v1"}})
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:ecr:startImageScan", "RoleArn": role, "Input": asked}
    timed.client("scheduler").create_schedule(
        Name="daily", ScheduleExpression="rate(1 day)", FlexibleTimeWindow={"Mode": "OFF"}, Target=target
    )

    def found() -> bool:
        rows = timed.look(lambda view: view.scan("ecr:ImageScan", account.id, "us-east-1", prefix="aged@"))
        return any("CVE-2026-0009" in json.dumps(one.doc, default=str) for one in rows)

    assert not found()
    with timed.days_later(1.1):
        until(found)


def test_a_repository_that_is_full_says_so(timed: Moved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As AWS does at 20,000 images; by the API, and to whoever pushes."""
    monkeypatch.setattr(image, "_MOST_IMAGES", 2)
    ecr = timed.client("ecr")
    uri = ecr.create_repository(repositoryName="full")["repository"]["repositoryUri"]
    first = push(ecr, "full", b"one", "v1")
    push(ecr, "full", b"two", "v2")
    with pytest.raises(ecr.exceptions.LimitExceededException, match="maximum allowed number of images which is '2'"):
        push(ecr, "full", b"three", "v3")
    registry = Registry(Account(timed, "111122223333", "home", timed.administrator), tmp_path)
    oci.layout(tmp_path / "one", [oci.system])
    done = registry.skopeo("copy", "DEST", "--dest-tls-verify=false", f"oci:{tmp_path / 'one'}", f"docker://{uri}:v3")
    assert done.returncode != 0 and "maximum allowed number of images" in done.stderr, done.stderr
    ecr.batch_delete_image(repositoryName="full", imageIds=[{"imageDigest": first}])
    push(ecr, "full", b"three", "v3")


def test_a_token_ends_and_versions_are_told(timed: Moved) -> None:
    client: Any = timed.client("codeartifact")
    client.create_domain(domain="shared")
    client.create_repository(domain="shared", repository="own")
    shelf = Shelf(Account(timed, "111122223333", "home", timed.administrator), "shared", "own")
    short, long = shelf.token(durationSeconds=900), shelf.token()
    assert [shelf.ask("simple/", token=one)[0] for one in (short, long)] == [200, 200]
    with timed.days_later(1 / 24):
        assert [shelf.ask("simple/", token=one)[0] for one in (short, long)] == [401, 200]
    with timed.days_later(13 / 24):
        assert shelf.ask("simple/", token=long)[0] == 401
    content = b"a dataset"
    where = {"domain": "shared", "repository": "own", "format": "generic", "namespace": "team", "package": "set"}
    client.publish_package_version(
        **where, packageVersion="1", assetName="data", assetContent=content,
        assetSHA256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    client.update_package_versions_status(**where, versions=["1"], targetStatus="Archived")
    client.delete_package_versions(**where, versions=["1"])
    kind = "CodeArtifact Package Version State Change"
    until(lambda: len(_told(timed, kind)) >= 3)
    told = _told(timed, kind)
    assert [one["operationType"] for one in told] == ["Created", "Updated", "Deleted"]
    assert [one["packageVersionState"] for one in told] == ["Published", "Archived", "Archived"]
    assert told[0]["changes"]["assetsAdded"] == 1 and told[0]["packageNamespace"] == "team"


def test_a_start_sweeps_nothing_that_is_named(timed: Moved) -> None:
    ecr, client = timed.client("ecr"), timed.client("codeartifact")
    ecr.create_repository(repositoryName="kept")
    digest = push(ecr, "kept", b"layer" * 20_000, "one")
    client.create_domain(domain="kept")
    client.create_repository(domain="kept", repository="own")
    content = b"asset" * 20_000
    where = {"domain": "kept", "repository": "own", "format": "generic", "package": "set", "packageVersion": "1"}
    sha256 = hashlib.sha256(content).hexdigest()
    client.publish_package_version(**where, assetName="data", assetContent=content, assetSHA256=sha256)
    timed.stop()
    timed.start()
    client = timed.client("codeartifact")
    assert client.get_package_version_asset(**where, asset="data")["asset"].read() == content
    found = timed.client("ecr").batch_get_image(repositoryName="kept", imageIds=[{"imageTag": "one"}])
    assert found["images"][0]["imageId"]["imageDigest"] == digest
