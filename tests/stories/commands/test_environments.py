"""`bastide environments`: what images mean, and building it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from bastide.commands.cli import cli
from bastide.engines.images import digest_of, names


def said(*words: str) -> str:
    found = CliRunner().invoke(cli, ["environments", *words])
    assert found.exit_code == 0, found.output
    return found.output


def test_environments_are_listed_and_shown(tmp_path: Path) -> None:
    listed = json.loads(said("list", "--json"))
    assert [one["name"] for one in listed] == names()
    here = {one["name"]: one for one in listed}
    # `make setup` has built these two.
    for name in ("scikit-learn", "xgboost"):
        assert here[name]["built"] and here[name]["bytes"] > 1 << 20
        assert here[name]["digest"] == digest_of(name)
    assert here["scikit-learn"]["algorithms"] == ["kmeans", "knn", "linear-learner", "pca", "randomcutforest"]
    assert "sagemaker-xgboost:1.7-1" in here["xgboost"]["images"]
    shown = json.loads(said("show", "xgboost", "--json"))
    assert shown["packages"]["xgboost-cpu"].startswith("3.")
    assert "built" in said("show", "xgboost") and "scikit-learn" in said("list")
    elsewhere = json.loads(said("list", "--json", "--root", str(tmp_path)))
    assert not any(one["built"] for one in elsewhere)
    assert "bastide environments build spark" in said("show", "spark", "--root", str(tmp_path))


def test_what_stands_is_not_built_again() -> None:
    assert said("build", "scikit-learn") == f"scikit-learn: already built, {digest_of('scikit-learn')}\n"
    refused = CliRunner().invoke(cli, ["environments", "build", "mxnet"])
    assert refused.exit_code == 2 and "mxnet" in refused.output
