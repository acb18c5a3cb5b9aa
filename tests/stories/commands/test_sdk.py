"""`bastide sdk`: the table that the SageMaker SDK takes the address of STS from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.platform import PROGRAM, Running


def _sdk(platform: Running, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "sdk", "--data", str(platform.data), "--home", str(home), *words],
        check=False,
        capture_output=True,
        text=True,
    )


def test_sts_of_every_region_is_here_and_telemetry_is_off(platform: Running, tmp_path: Path) -> None:
    assert _sdk(platform, tmp_path).returncode == 0
    assert _sdk(platform, tmp_path).returncode == 0  # again, after the platform has moved
    table = json.loads((tmp_path / ".aws" / "models" / "endpoints.json").read_text())
    host = urlsplit(platform.url).netloc
    for partition in table["partitions"]:
        regions = partition["services"]["sts"]["endpoints"]
        assert set(partition["regions"]) <= set(regions)
        assert {one["hostname"] for one in regions.values()} == {host}
        assert not any("variants" in one for one in regions.values())
    assert "TelemetryOptOut: true" in (tmp_path / ".config" / "sagemaker" / "config.yaml").read_text()
    assert _sdk(platform, tmp_path, "--undo").returncode == 0
    assert not (tmp_path / ".aws" / "models" / "endpoints.json").exists()


def test_what_others_made_is_left_alone(platform: Running, tmp_path: Path) -> None:
    table, settings = (
        tmp_path / ".aws" / "models" / "endpoints.json",
        tmp_path / ".config" / "sagemaker" / "config.yaml",
    )
    for file, text in ((table, "{}"), (settings, "SchemaVersion: '1.0'\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    refused = _sdk(platform, tmp_path)
    assert refused.returncode == 1 and "not of this command's making" in refused.stderr
    assert _sdk(platform, tmp_path, "--undo").returncode == 1
    assert table.read_text() == "{}"
    table.write_text("neither is this JSON")
    assert "not of this command's making" in _sdk(platform, tmp_path).stderr
    table.unlink()
    kept = _sdk(platform, tmp_path)
    assert kept.returncode == 0 and "TelemetryOptOut" in kept.stdout
    assert settings.read_text() == "SchemaVersion: '1.0'\n"
