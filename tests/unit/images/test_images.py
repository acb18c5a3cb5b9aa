"""Which image URIs mean what, and what the answer to an unknown one says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bastide.domain import Refused
from bastide.engines.images import ALGORITHMS, build, digest_of, environment, known, names, place_of, resolve

DIGEST = digest_of("scikit-learn").removeprefix("sha256:")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which all environments stand, as far as resolving looks."""
    for name in names():
        place = place_of(name, tmp_path)
        (place / f"toolkit-{environment._toolkit()}").mkdir(parents=True)
        told = {"base_prefix": "/opt/python", "variables": {"A": "b"}}
        (place / "environment.json").write_text(json.dumps(told))
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
    found = resolve(uri, root)
    assert (found.name, found.digest) == ("scikit-learn", f"sha256:{DIGEST}")
    assert [target for _, target in found.readonly] == ["/opt/environment", "/opt/bastide", "/opt/python"]
    assert found.variables == {"A": "b"}
    assert found.path.split(":")[0] == "/opt/environment/bin"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/mxnet-training:1.9.0-cpu-py38", "retired"),
        ("811284229777.dkr.ecr.us-east-1.amazonaws.com/xgboost:1", "use sagemaker-xgboost"),
        ("382416733822.dkr.ecr.us-east-1.amazonaws.com/ntm:1", "kmeans, knn, linear-learner"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3-gpu-py311", "no GPUs"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:1.13-cpu-py39", "2.8-cpu-py312"),
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
    assert (refusal.value.code, refusal.value.status) == ("ValidationException", 400)
    assert "bastide environments build scikit-learn" in refusal.value.message


def test_every_known_image_resolves(root: Path) -> None:
    assert len(known()) == len(set(known()))
    assert {resolve(uri, root).name for uri in known()} <= set(names())


def test_building_what_stands_changes_nothing(root: Path) -> None:
    said: list[str] = []
    before = sorted(root.rglob("*"))
    assert build("scikit-learn", root, said.append).digest == f"sha256:{DIGEST}"
    assert said == [f"scikit-learn: already built, sha256:{DIGEST}"]
    assert [p for p in sorted(root.rglob("*")) if p.name != ".building"] == before


def test_an_unknown_environment_is_not_built(tmp_path: Path) -> None:
    for name in ("mxnet", "../scikit-learn", "toolkit"):
        with pytest.raises(ValueError, match="scikit-learn"):
            build(name, tmp_path)


def test_a_change_of_the_toolkit_installs_nothing_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of("scikit-learn")
    monkeypatch.setattr(environment, "_toolkit", lambda: "another")
    environment.digest_of.cache_clear()
    try:
        with pytest.raises(Refused, match="bastide environments build scikit-learn"):
            resolve("sagemaker-scikit-learn:1.2-1", root)
        made = build("scikit-learn", root)
        assert made.digest != before
        tools = place_of("scikit-learn", root) / "toolkit-another"
        programs = {
            "train",
            "serve",
            "smspark-submit",
            "evaluate-rules",
            "model-monitor-analyzer",
            "groundtruth-merger",
            "clarify-processing",
        }
        assert {one.name for one in (tools / "bin").iterdir()} == programs
        assert (tools / "library" / "bastide_algorithms" / "recordio.py").is_file()
    finally:
        environment.digest_of.cache_clear()


def test_an_image_says_what_it_is_for(root: Path) -> None:
    assert resolve("pytorch-training:2.8-cpu-py312", root).serve == ()
    assert resolve("pytorch-inference:2.6-cpu-py312", root).train == ()
    assert resolve("sagemaker-spark-processing:3.5-cpu-py39-v1.0", root).process == ("smspark-submit",)
    learner = resolve("linear-learner:1", root)
    assert (learner.algorithm, learner.scripts, learner.name) == ("linear-learner", False, "scikit-learn")
    assert dict(learner.metrics).keys() >= {"train:objective_loss", "validation:binary_classification_accuracy"}


def test_every_algorithm_is_in_the_toolkit_and_every_pattern_is_one() -> None:
    folder = environment._TOOLKIT / "library" / "bastide_algorithms"
    told = (folder / "__init__.py").read_text()
    for algorithm in ALGORITHMS.values():
        assert f'"{algorithm.name}": "' in told
        assert all(re.compile(pattern).groups == 1 for _, pattern in algorithm.metrics)


@pytest.mark.parametrize("name", names())
def test_the_lock_pins_every_package_and_names_no_index(name: str) -> None:
    text = environment._lock(name).read_text()
    packages = [line for line in text.splitlines() if line[:1].isalpha()]
    own = {
        "lambda": {"awslambdaric", "boto3"},
        "codebuild": {"awscli", "pip", "pytest"},
        "notebook": {"jupyterlab", "ipykernel", "boto3", "awscli", "pip"},
    }
    needed = own.get(name, {"numpy", "pandas", "scipy", "uvicorn"})
    assert {line.partition("==")[0] for line in packages} >= needed
    assert all("==" in line for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index" not in text
