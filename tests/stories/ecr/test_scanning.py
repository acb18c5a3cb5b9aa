"""Images scanned: what their layers hold, against advisories that the operator loads."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.platform import PROGRAM, Account, Running
from tests.stories.ecr import oci
from tests.stories.ecr.registry import Registry

_STATUS = """Package: libssl3
Status: install ok installed
Source: openssl
Version: 3.0.11-1~deb12u1
Architecture: amd64
Description: a library
 folded
 Version: 9.9

Package: removed
Status: deinstall ok config-files
Version: 1.0

Package: bash
Status: install ok installed
Version: 5.2.15-2+b2
"""


def debian(**more: str) -> oci.Layer:
    """A layer with dpkg's database, an os-release and what else there is to be, by path."""

    def put(tar: tarfile.TarFile) -> None:
        oci.entry(tar, "usr/lib/os-release", b'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n')
        oci.entry(tar, "var/lib/dpkg/status", _STATUS.encode())
        for path, text in more.items():
            oci.entry(tar, path, text.encode())

    return put


def files(**given: str) -> oci.Layer:
    def put(tar: tarfile.TarFile) -> None:
        for path, text in given.items():
            oci.entry(tar, path, text.encode())

    return put


def advisory(id: str, ecosystem: str, name: str, fixed: str, **more: Any) -> dict[str, Any]:
    event = [{"introduced": "0"}, {"fixed": fixed}] if fixed else [{"introduced": "0"}]
    return {
        "id": id, "modified": "2026-01-01T00:00:00Z", "summary": f"{name} is broken",
        "affected": [
            {"package": {"ecosystem": ecosystem, "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": event}]}
        ],
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}], **more,
    }  # fmt: skip


def load(platform: Running, folder: Path, *advisories: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for one in advisories:
        (folder / f"{one['id']}.json").write_text(json.dumps(one))
    words = [*PROGRAM, "advisories", "load", "--data", str(platform.data), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(str(len(advisories))), done.stdout + done.stderr


def findings(ecr: Any, name: str, digest: str, wanted: Any = None) -> dict[str, Any]:
    """What a scan found, once it ended (and its names are those that are wanted)."""
    for _ in range(300):
        try:
            told: dict[str, Any] = ecr.describe_image_scan_findings(
                repositoryName=name, imageId={"imageDigest": digest}
            )
        except ecr.exceptions.ScanNotFoundException:
            told = {}
        state = told.get("imageScanStatus", {}).get("status")
        if state not in (None, "IN_PROGRESS") and (wanted is None or wanted(told.get("imageScanFindings"))):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


@pytest.mark.control("IMG-09", lacking="a pipeline that stops at a threshold")
def test_a_pushed_image_is_scanned_and_the_patched_one_is_clean(
    platform: Running, registry: Registry, tmp_path: Path
) -> None:
    load(
        platform, tmp_path / "known",
        advisory("DEBIAN-CVE-2024-0001", "Debian:12", "openssl", "3.0.11-1~deb12u2"),
        advisory("DEBIAN-CVE-2024-0002", "Debian:12", "bash", "5.2.15-2"),
        advisory("DEBIAN-CVE-2024-0003", "Debian:11", "openssl", ""),
        advisory("GHSA-aaaa-bbbb-cccc", "PyPI", "Some_Library", "2.0", aliases=["CVE-2024-0004"], severity=[],
                 database_specific={"severity": "MODERATE"}),
    )  # fmt: skip
    ecr = registry.ecr
    uri = registry.create("team/app", imageScanningConfiguration={"scanOnPush": True})
    path = "usr/lib/python3/dist-packages/some_library-1.9.dist-info/METADATA"
    library = files(**{path: "Metadata-Version: 2.1\nName: some.library\nVersion: 1.9\n\nVersion: 3"})
    digest = registry.push(f"{uri}:one", [debian(), library])
    found = findings(ecr, "team/app", digest)
    assert found["imageScanStatus"]["status"] == "COMPLETE"
    told = found["imageScanFindings"]
    assert told["findingSeverityCounts"] == {"CRITICAL": 1, "MEDIUM": 1}
    first, second = told["findings"]
    attributes = {one["key"]: one["value"] for one in first["attributes"]}
    assert (first["name"], first["severity"]) == ("CVE-2024-0001", "CRITICAL")
    assert attributes["package_name"] == "libssl3" and attributes["package_version"] == "3.0.11-1~deb12u1"
    assert attributes["fixed_version"] == "3.0.11-1~deb12u2" and attributes["CVSS3_SCORE"] == "9.8"
    assert second["name"] == "CVE-2024-0004"
    shown = ecr.describe_images(repositoryName="team/app")["imageDetails"][0]
    assert shown["imageScanFindingsSummary"]["findingSeverityCounts"] == told["findingSeverityCounts"]

    # Patched in a later layer: one package is newer, the other was taken away.
    newer = _STATUS.replace("deb12u1", "deb12u2")
    gone = files(**{"var/lib/dpkg/status": newer, path.replace("METADATA", ".wh.METADATA"): ""})
    patched = registry.push(f"{uri}:two", [debian(), library, gone])
    found = findings(ecr, "team/app", patched)
    assert found["imageScanFindings"]["findings"] == [] and found["imageScanFindings"]["findingSeverityCounts"] == {}

    # A scan too soon, of what is not there, and of what was never scanned.
    with pytest.raises(ecr.exceptions.LimitExceededException):
        ecr.start_image_scan(repositoryName="team/app", imageId={"imageTag": "one"})
    with pytest.raises(ecr.exceptions.ImageNotFoundException):
        ecr.start_image_scan(repositoryName="team/app", imageId={"imageTag": "none"})
    ecr.put_image_scanning_configuration(repositoryName="team/app", imageScanningConfiguration={"scanOnPush": False})
    third = registry.push(f"{uri}:three", [debian(**{"etc/three": "3"})])
    with pytest.raises(ecr.exceptions.ScanNotFoundException):
        ecr.describe_image_scan_findings(repositoryName="team/app", imageId={"imageDigest": third})
    ecr.start_image_scan(repositoryName="team/app", imageId={"imageDigest": third})
    assert len(findings(ecr, "team/app", third)["imageScanFindings"]["findings"]) == 1

    # What the image consists of, for whoever may read its findings.
    bill = _bill(registry, "team/app", "one", registry.password())
    assert bill["bomFormat"] == "CycloneDX"
    purls = {one["purl"] for one in bill["components"]}
    assert {"pkg:deb/debian/bash@5.2.15-2%2Bb2?distro=debian-12", "pkg:pypi/some-library@1.9"} <= purls
    assert {one["id"] for one in bill["vulnerabilities"]} == {"CVE-2024-0001", "CVE-2024-0004"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _bill(registry, "team/app", "one", "nonsense")


def _bill(registry: Registry, name: str, reference: str, password: str) -> dict[str, Any]:
    account = registry.account
    url = f"{account.platform.http}/v2/{account.id}.dkr.ecr.us-east-1/{name}/sbom/{reference}"
    told = base64.b64encode(f"AWS:{password}".encode()).decode()
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Basic {told}"})) as answer:
        return dict(json.loads(answer.read()))


@pytest.mark.control("IMG-09", lacking="a pipeline that stops at a threshold")
def test_continuous_scanning_follows_the_advisories(platform: Running, registry: Registry, tmp_path: Path) -> None:
    ecr, queue = registry.ecr, registry.account.client("sqs")
    url = queue.create_queue(QueueName="scans")["QueueUrl"]
    arn = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
                 "Resource": arn}  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    queue.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events = registry.account.client("events")
    events.put_rule(Name="scans", EventPattern=json.dumps({"detail-type": ["ECR Image Scan"]}))
    events.put_targets(Rule="scans", Targets=[{"Id": "1", "Arn": arn}])
    with pytest.raises(ecr.exceptions.InvalidParameterException):
        ecr.put_registry_scanning_configuration(
            scanType="BASIC",
            rules=[
                {"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": [{"filter": "*", "filterType": "WILDCARD"}]}
            ],
        )
    rule = {"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": [{"filter": "prod/*", "filterType": "WILDCARD"}]}
    uri = registry.create("prod/app")
    early = registry.push(f"{uri}:early", [debian()])
    ecr.put_registry_scanning_configuration(scanType="ENHANCED", rules=[rule])
    assert findings(ecr, "prod/app", early)["imageScanStatus"]["status"] == "ACTIVE"  # what is there is looked at, too
    ecr.batch_delete_image(repositoryName="prod/app", imageIds=[{"imageDigest": early}])
    told = ecr.batch_get_repository_scanning_configuration(repositoryNames=["prod/app", "none"])
    assert told["scanningConfigurations"][0]["scanFrequency"] == "CONTINUOUS_SCAN" and len(told["failures"]) == 1
    apk = "P:busybox\nV:1.36.1-r2\no:busybox\n\nP:musl\nV:1.2.4-r2\n"
    layers = [files(**{"etc/os-release": "ID=alpine\nVERSION_ID=3.19.1\n", "lib/apk/db/installed": apk})]
    digest = registry.push(f"{uri}:one", layers)
    found = findings(ecr, "prod/app", digest)
    assert found["imageScanStatus"]["status"] == "ACTIVE" and found["imageScanFindings"]["enhancedFindings"] == []

    load(platform, tmp_path / "later", advisory("CVE-2025-0001", "Alpine:v3.19", "busybox", "1.36.1-r15"))
    found = findings(ecr, "prod/app", digest, lambda one: one["enhancedFindings"])
    one = found["imageScanFindings"]["enhancedFindings"][0]
    assert one["packageVulnerabilityDetails"]["vulnerabilityId"] == "CVE-2025-0001" and one["fixAvailable"] == "YES"
    package = one["packageVulnerabilityDetails"]["vulnerablePackages"][0]
    assert (package["name"], package["version"], package["fixedInVersion"]) == ("busybox", "1.36.1-r2", "1.36.1-r15")
    with pytest.raises(ecr.exceptions.ValidationException):
        ecr.start_image_scan(repositoryName="prod/app", imageId={"imageDigest": digest})
    heard: list[dict[str, Any]] = []
    while len(heard) < 3:
        answer = queue.receive_message(QueueUrl=url, WaitTimeSeconds=10, MaxNumberOfMessages=10)
        assert answer.get("Messages"), heard
        heard += [json.loads(message["Body"])["detail"] for message in answer["Messages"]]
    counts = [one["finding-severity-counts"].get("CRITICAL", 0) for one in heard if one["image-tags"] == ["one"]]
    assert sorted(counts) == [0, 1] and heard[0]["repository-name"] == "prod/app"


def test_hostile_layers_end_a_scan_and_nothing_else(platform: Running, registry: Registry) -> None:
    ecr = registry.ecr
    uri = registry.create("hostile", imageScanningConfiguration={"scanOnPush": True})

    def told(tar: tarfile.TarFile) -> None:
        long = "x" * 300
        text = f"Package: ../../etc\nVersion: 1\n\nPackage: {long}\nVersion: 1\n\nPackage: ok\nVersion: {long}\n\n"
        text += "Package: a b\nVersion: 1\n\nPackage: good\nVersion: 1.0\nSource: ../x (\x00)\n\n: \n\nVersion: 2\n"
        oci.entry(tar, "var/lib/dpkg/status", text.encode() + b"\xff\xfe\n")
        oci.link(tar, "etc/os-release", "/proc/self/environ")
        oci.entry(tar, "x.dist-info/METADATA", b"Name: \xff\nVersion: ;\n")

    found = findings(ecr, "hostile", registry.push(f"{uri}:told", [told]))
    assert found["imageScanStatus"]["status"] == "COMPLETE"
    bill = _bill(registry, "hostile", "told", registry.password())
    assert [one["name"] for one in bill["components"]] == ["good"]
    cases: dict[str, Any] = {
        "upwards": files(**{"../../var/lib/dpkg/status": _STATUS}),
        "nothing": files(**{"etc/hosts": "127.0.0.1"}),
        "bomb": lambda tar: oci.entry(tar, "var/lib/dpkg/status", bytes(90 << 20)),
    }
    states = {}
    for name, layer in cases.items():
        states[name] = findings(ecr, "hostile", registry.push(f"{uri}:{name}", [layer]), lambda _: True)
    assert states["nothing"]["imageScanStatus"]["status"] == "UNSUPPORTED_IMAGE"
    assert states["bomb"]["imageScanStatus"]["status"] == "FAILED"
    assert states["upwards"]["imageScanStatus"]["status"] == "FAILED"
    assert "leads upwards" in states["upwards"]["imageScanStatus"]["description"]


def test_scans_under_a_key_that_is_disabled_fail_and_say_so(registry: Registry, account: Account) -> None:
    kms, ecr = account.client("kms"), registry.ecr
    key = kms.create_key()["KeyMetadata"]["Arn"]
    uri = registry.create("sealed", encryptionConfiguration={"encryptionType": "KMS", "kmsKey": key})
    digest = registry.push(f"{uri}:one", [debian()])
    kms.disable_key(KeyId=key)
    ecr.start_image_scan(repositoryName="sealed", imageId={"imageDigest": digest})
    found = findings(ecr, "sealed", digest, lambda _: True)
    assert found["imageScanStatus"]["status"] == "FAILED" and "KMS" in found["imageScanStatus"]["description"]
