"""The whole demo, once, as a person would start it where nobody watches: `bastide demo`."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bastide.commands.demo.data import Applications
from bastide.commands.demo.organisation import document
from bastide.commands.demo.telling import StoryError


@dataclass(frozen=True)
class Told:
    """A run of the demo."""

    status: int
    output: str
    left: list[Path]

    def line(self, pattern: str) -> re.Match[str]:
        """The first line in which the pattern is found."""
        found = re.search(pattern, self.output)
        assert found is not None, f"nothing like {pattern!r} in:\n{self.output}"
        return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run for all tests, whichever process they are in; whatever it leaves in its temporary folder is seen."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, said = base / "demo", base / "demo.json"
    with (base / "demo.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not said.exists():
            folder.mkdir()
            ran = subprocess.run(
                [sys.executable, "-m", "bastide", "demo"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
                check=False,
                env={**os.environ, "TMPDIR": str(folder)},
            )
            said.write_text(json.dumps([ran.returncode, ran.stdout]))
    status, output = json.loads(said.read_text())
    return Told(status, output, sorted(folder.iterdir()))


def test_the_demo_does_what_it_says(told: Told) -> None:
    assert told.status == 0, told.output
    assert "the demo failed" not in told.output
    assert told.left == []
    told.line(r"The platform has been stopped and removed\.")


def test_data_is_real_and_the_protected_attribute_is_no_feature(told: Told) -> None:
    told.line(r"2,380 real mortgage applications")
    features = told.line(r"features: (.+)")[1].split(", ")
    assert len(features) == 12
    assert "afam" not in features
    assert "deny" not in features


def test_training_is_sealed_measured_and_encrypted(told: Told) -> None:
    auc = float(told.line(r"validation:auc = (0\.\d+), read from the job's log")[1])
    assert 0.7 < auc < 0.9
    told.line(r"s3://mortgage-models-\d{12}/models/\S+/output/model\.tar\.gz: [\d,]+ bytes under arn:aws:kms:")


def test_what_breaks_the_rules_is_refused_and_explained(told: Told) -> None:
    told.line(r"refused training without VolumeKmsKeyId")
    told.line(
        r"explicit deny in a service control policy.*arn:aws:organizations::\d+:policy/o-\w+/service_control_policy/p-\w+"
    )
    told.line(r"(?s)`bastide why \S+`, asked by the auditor.*\"JobsNeedACustomerKeyForTheirVolumes\"")
    told.line(r"asked by the data scientist: you may not read that policy")
    told.line(r"refused the data scientist approves her own model")
    told.line(r"refused the data scientist reads production's decisions")
    told.line(r"refused the model risk manager approves alone")


def test_the_evidence_is_registered_with_the_model(told: Told) -> None:
    difference = told.line(r"difference ([+-]\d+\.\d)%")[1]
    registered = told.line(
        r"reads the evidence from the other account: AUC (0\.\d+), denial rate difference (-?0\.\d+)"
    )
    assert float(registered[2]) * 100 == pytest.approx(float(difference), abs=0.06)
    told.line(r"model-package/mortgage-denial/1 is version 1, PendingManualApproval")


@pytest.mark.control("INV-01", "INV-05")
def test_production_serves_the_registered_version_and_nothing_else(told: Told) -> None:
    told.line(r"refused MLOps deploys a bare archive, past the registry")
    told.line(r"refused the administrator of test uses the version that was opened to production")
    told.line(r"ok endpoint mortgage-denial in production starts from \S+model-package/mortgage-denial/1")
    told.line(r"476 held-out applications answered; all equal to the model's own predictions")


@pytest.mark.control("AUD-02")
def test_the_record_names_who_what_when_and_why(told: Told) -> None:
    """Session, issuer, source, parameters, error and the absence of secrets are checked by the story itself."""
    told.line(r"Management events, from each account's LookupEvents")
    told.line(r"Data events, from the trail's files")
    told.line(r"ada as DataScientist")
    told.line(r"\d+ management events of the story in 5 accounts, \d+ data events in the trail")


@pytest.mark.control("ACC-13")
@pytest.mark.control("DEP-06")
@pytest.mark.control("STG-09", lacking="data set's version and image's digest")
@pytest.mark.control("STG-10", lacking="a rejection, a wrong token and a second approval")
def test_a_commit_finds_its_way_to_production(told: Told) -> None:
    told.line(r"\d+ CloudFormation stacks in 7 accounts; the 4 accounts .* are enrolled")
    commit = told.line(r"`git push` of .*: commit ([0-9a-f]{12}) is on main")[1]
    for station in ("Source in shared-services", "Build in shared-services", "Stack in test", "Train in test"):
        told.line(rf"ok {station}")
    evidence = told.line(
        rf"model-package/mortgage-decision/1 is registered .* from commit {commit}: AUC (0\.\d+), .* ([+-]\d+\.\d)%"
    )
    assert 0.7 < float(evidence[1]) < 0.9
    assert abs(float(evidence[2])) < 50
    told.line(r"ok Deploy in production")
    told.line(
        r"476 applications of the loan desk answered by the API; all equal to what the evaluation in Test predicted"
    )
    told.line(r"production +│ CreateEndpoint +│ AWSCloudFormation as StackRole +│ made")


@pytest.mark.control("ACC-13")
@pytest.mark.control("DAT-08")
def test_the_wrong_hands_are_refused_on_the_way(told: Told) -> None:
    for attempt in (
        "the data scientist reads them without a job",
        "MLOps, who pushed it, approves the model",
        "the model risk manager approves it alone",
        "the approver starts a release",
        "MLOps approves its own release",
        "the administrator of shared-services opens what the pipelines hand on",
        "MLOps asks the endpoint that it released",
        "the administrator of production takes the endpoint away by hand",
    ):
        told.line(rf"refused {attempt}")
    told.line(r"PutApprovalResult +│ otto as MLOps +│ refused")


def test_a_policy_with_a_placeholder_left_is_not_attached() -> None:
    with pytest.raises(StoryError, match="<ROLE_ARN>"):
        document("person")


def test_an_application_has_neither_target_nor_protected_attribute() -> None:
    read = Applications.read(b"deny,a,b,afam\n1,0.5,2,1\n0,0.25,3,0\n", ["b", "a"])
    assert read.lines == ["2,0.5", "3,0.25"]
    assert read.denied == [True, False]


def test_data_needs_keep(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bastide", "demo", "--data", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "--keep" in ran.stderr


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o700)
    (kept / "mine").write_text("mine")
    ran = subprocess.run(
        [sys.executable, "-m", "bastide", "demo", "--keep", "--data", str(kept)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "not empty" in ran.stderr
    assert (kept / "mine").read_text() == "mine"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
