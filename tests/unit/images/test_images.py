"""Which image URIs mean what, and what the answer to an unknown one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bastide.domain import Refused
from bastide.engines.images import build, digest_of, known, resolve
from bastide.engines.images.environment import names

DIGEST = digest_of("scikit-learn").removeprefix("sha256:")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which the environment stands, as far as resolving looks."""
    place = tmp_path / "scikit-learn" / DIGEST
    place.mkdir(parents=True)
    (place / "environment.json").write_text(json.dumps({"base_prefix": "/opt/python", "variables": {"A": "b"}}))
    return tmp_path


@pytest.mark.parametrize(
    "uri",
    [
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
        "141502667606.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3",
        "000000000000.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-scikit-learn:0.23-1-cpu-py3",
        "sagemaker-scikit-learn:0.20.0-cpu-py3",
        f"localhost:5000/sagemaker-scikit-learn:1.0-1-cpu-py3@sha256:{DIGEST}",
        f"sagemaker-scikit-learn@sha256:{DIGEST}",
    ],
)
def test_the_account_and_region_do_not_matter(root: Path, uri: str) -> None:
    environment = resolve(uri, root)
    assert (environment.name, environment.digest) == ("scikit-learn", f"sha256:{DIGEST}")
    assert [target for _, target in environment.readonly] == ["/opt/environment", "/opt/bastide", "/opt/python"]
    assert environment.variables == {"A": "b"}
    assert environment.path.split(":")[0] == "/opt/environment/bin"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", "sagemaker-scikit-learn"),
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:9.9-9-cpu-py3", "1.2-1-cpu-py3"),
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn", "1.2-1-cpu-py3"),
        (f"sagemaker-scikit-learn@sha256:{'0' * 64}", "digest"),
        (f"sagemaker-scikit-learn:1.2-1-cpu-py3@sha256:{'0' * 64}", DIGEST),
        ("../../etc/passwd", "form"),
        ("", "form"),
        ("a b", "form"),
        ("x" * 300, "form"),
        ("host/sagemaker-scikit-learn:1.2-1-cpu-py3\n", "form"),
    ],
)
def test_an_unknown_image_is_refused_and_the_known_are_named(root: Path, uri: str, says: str) -> None:
    with pytest.raises(Refused) as refusal:
        resolve(uri, root)
    assert refusal.value.code == "ValidationException"
    assert says in refusal.value.message


def test_an_environment_that_is_not_built_says_how(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        resolve("sagemaker-scikit-learn:1.2-1-cpu-py3", tmp_path)
    assert (refusal.value.code, refusal.value.status) == ("InternalFailure", 500)
    assert "python -m bastide.engines.images build scikit-learn" in refusal.value.message


def test_every_known_image_resolves(root: Path) -> None:
    assert len(known()) == 10
    assert {resolve(uri, root).name for uri in known()} <= set(names())


def test_building_what_stands_changes_nothing(root: Path) -> None:
    said: list[str] = []
    before = sorted(root.rglob("*"))
    assert build("scikit-learn", root, said.append).digest == f"sha256:{DIGEST}"
    assert said == [f"scikit-learn: already built, sha256:{DIGEST}"]
    assert [p for p in sorted(root.rglob("*")) if p.name != ".building"] == before


def test_an_unknown_environment_is_not_built(tmp_path: Path) -> None:
    for name in ("tensorflow", "../scikit-learn", "toolkit"):
        with pytest.raises(ValueError, match="scikit-learn"):
            build(name, tmp_path)


def test_the_lock_pins_every_package_and_names_no_index() -> None:
    from bastide.engines.images import environment

    text = environment._lock("scikit-learn").read_text()
    packages = [line for line in text.splitlines() if line[:1].isalpha()]
    assert {line.partition("==")[0] for line in packages} >= {"scikit-learn", "numpy", "pandas", "scipy", "uvicorn"}
    assert all("==" in line for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index" not in text
