"""Files of cases: read, decided, and refused with the place of the fault."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bastide.commands.cli import cli
from bastide.policy_testing.cases import Faulty, Skipped, read
from bastide.policy_testing.running import Answer, run

DOCUMENT = {
    "Version": "2012-10-17",
    "Statement": [
        {"Sid": "Read", "Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::<BUCKET>/*"},
        {"Sid": "Never", "Effect": "Deny", "Action": "s3:Put*", "Resource": "*"},
    ],
}
FILE = """
values: {BUCKET: bank}
policies:
  reader: reader.json
  inline:
    Version: "2012-10-17"
    Statement: {Effect: Allow, Action: "s3:*", Resource: "*", Condition: {Bool: {"aws:SecureTransport": true}}}
defaults:
  principal: arn:aws:iam::111122223333:user/ann
cases:
  - action: [s3:GetObject, s3:GetObjectTagging]
    resource: arn:aws:s3:::bank/a
    policies: {identity: reader}
    expect: {decision: allow, layer: identity, policy: reader, statement: Read}
  - name: in clear
    action: s3:GetObject
    resource: arn:aws:s3:::bank/a
    context: {aws:SecureTransport: false}
    policies: {identity: inline}
    expect: implicit-deny
  - name: over TLS
    action: s3:GetObject
    policies: {identity: inline}
    expect: allow
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reader.json").write_text(json.dumps(DOCUMENT))
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "a.policytest.yaml"
    path.write_text(text)
    return path


def test_cases_are_decided_and_statements_counted(folder: Path) -> None:
    report = run(read(written(folder, FILE)))
    assert [one.case.name for one in report.outcomes] == [
        "s3:GetObject on arn:aws:s3:::bank/a",
        "s3:GetObjectTagging on arn:aws:s3:::bank/a",
        "in clear",
        "over TLS",
    ]
    assert not report.failures and not report.gaps and not report.failed
    reached = {(one.policy, one.sid): (one.reached, one.passed) for one in report.coverage}
    assert reached == {
        ("reader", "Read"): (True, False),
        ("reader", "Never"): (False, True),
        ("inline", ""): (True, True),
    }


def test_what_a_file_wants_covered_is_a_failure(folder: Path) -> None:
    report = run(read(written(folder, "coverage: reached\n" + FILE)))
    assert report.failed and report.gaps == ["no case reaches statement 1 (Never) of `reader`"]
    report = run(read(written(folder, "coverage: both-ways\n" + FILE)))
    assert report.gaps == [
        "no case shows what statement 0 (Read) of `reader` does not apply to",
        "no case reaches statement 1 (Never) of `reader`",
    ]
    unused = FILE.replace("policies:\n", "policies:\n  idle: reader.json\n")
    assert (
        run(read(written(folder, "coverage: reached\n" + unused))).gaps[0] == "no case has the policy `idle` in force"
    )


@pytest.mark.parametrize(
    ("expect", "why"),
    [
        ("deny", "expected deny, got allow by identity `reader` statement 0 (Read)"),
        ("{decision: allow, layer: resource}", "expected the layer resource to decide"),
        ("{decision: allow, policy: inline}", "expected the policy inline to decide"),
        ("{decision: allow, statement: Never}", "expected the statement Never to decide"),
    ],
)
def test_an_answer_that_was_not_expected(folder: Path, expect: str, why: str) -> None:
    text = FILE.replace("{decision: allow, layer: identity, policy: reader, statement: Read}", expect)
    assert [why in one.why for one in run(read(written(folder, text))).failures] == [True, True]


FAULTS = {
    "cases: [": (1, "no YAML"),
    "": (1, "the file is empty"),
    "cases: {}": (1, "cases must be a list"),
    "casses: []": (1, "a file of cases has no `casses`"),
    "values: {a: b}\ncases: []": (1, "`a` is no placeholder"),
    "policies: {x: gone.json}\ncases: []": (1, "cannot be read"),
    "policies: {x: reader.json}\ncases: []": (1, "the placeholder <BUCKET> has no value"),
    "policies: {x: $NOT_SET_HERE/x.json}\ncases: []": (1, "NOT_SET_HERE is not set"),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n": (2, "a case needs `expect`"),
    "cases:\n- action: s3:GetObject\n  expect: allow\n": (2, "a case needs `principal`"),
    "cases:\n- action: s3:Get*\n  principal: anonymous\n  expect: allow\n": (2, "actions have no wildcards"),
    "cases:\n- action: s3:GetObject\n  principal: arn:aws:s3:::x\n  expect: allow\n": (3, "is not the ARN of a user"),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n  expect: maybe\n": (4, "expect is `maybe`"),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n  expect: allow\n  expcet: 1\n": (5, "has no `expcet`"),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n  expect: allow\n  policies: {identity: x}\n": (
        5,
        "no policy is named `x`",
    ),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n  expect: allow\n  policies: {boundry: x}\n": (
        5,
        "has no `boundry`",
    ),
    "cases:\n- action: s3:GetObject\n  principal: anonymous\n  expect: allow\n  context: {x: 1}\n": (
        5,
        "`x` is no condition key",
    ),
    "policies:\n  x: {Version: '2012-10-17', Statement: {Effect: Allow}}\n"
    "cases:\n- {action: s3:GetObject, principal: anonymous, expect: allow, policies: {identity: x}}\n": (
        4,
        "`x` is no identity policy",
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_told_with_its_line(folder: Path, text: str) -> None:
    line, why = FAULTS[text]
    with pytest.raises(Faulty) as caught:
        read(written(folder, text))
    assert str(caught.value).startswith(f"{folder / 'a.policytest.yaml'}:{line}: ") and why in str(caught.value)


def test_a_file_that_needs_what_is_not_there(folder: Path) -> None:
    with pytest.raises(Skipped):
        read(written(folder, "needs: ${NOT_SET_HERE:-nowhere}\n" + FILE))


def test_live_cases_are_asked_of_whoever_simulates(folder: Path) -> None:
    text = "cases:\n- {live: true, principal: arn:aws:iam::111122223333:role/x, action: s3:GetObject, expect: allow}\n"
    file = read(written(folder, text))
    assert "needs a running platform" in run(file).failures[0].why
    assert not run(file, lambda case: Answer("allow", "identity")).failures
    assert run(file, lambda case: Answer("explicit-deny", "scp")).failures


def test_the_command_and_its_formats(folder: Path) -> None:
    path = written(folder, "coverage: reached\n" + FILE)
    runner = CliRunner()
    done = runner.invoke(cli, ["policy", "test", str(folder)])
    assert done.exit_code == 1 and "4 of 4 cases as expected; 2 of 3 statements reached" in done.output
    done = runner.invoke(cli, ["policy", "test", str(path), "--format", "json"])
    [told] = json.loads(done.output)
    assert (told["passed"], told["failed"], len(told["coverage"])) == (4, 0, 3)
    suite = ElementTree.fromstring(runner.invoke(cli, ["policy", "test", str(path), "--format", "junit"]).output)[0]
    assert (suite.get("tests"), suite.get("failures")) == ("5", "1")
    written(folder, FILE)
    assert runner.invoke(cli, ["policy", "test", str(path)]).exit_code == 0
    assert runner.invoke(cli, ["policy", "test", str(path), "--coverage", "both-ways"]).exit_code == 1
    written(folder, "cases: 1")
    assert runner.invoke(cli, ["policy", "test", str(path)]).exit_code == 2


def test_the_plugin_is_there(request: pytest.FixtureRequest) -> None:
    """Without it the cases in tests/policies would be passed over; `make setup` installs it."""
    assert request.config.pluginmanager.has_plugin("bastide-policy")


def test_pytest_collects_files_of_cases(folder: Path) -> None:
    written(folder, "coverage: reached\n" + FILE.replace("expect: implicit-deny", "expect: allow"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=60)
    assert "3 passed" in done.stdout and "2 failed" in done.stdout, done.stdout + done.stderr
    assert "expected allow, got implicit-deny by identity" in done.stdout
    assert "no case reaches statement 1 (Never) of `reader`" in done.stdout


def test_the_pages_own_example_decides_as_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "policy-tools.md").read_text()
    [example] = re.findall(r"```yaml\n(description.*?)```", page, re.DOTALL)
    (folder / "policies").mkdir()
    (folder / "reader.json").rename(folder / "policies" / "reader.json")
    monkeypatch.setenv("DATA", str(folder))
    report = run(read(written(folder, example)), lambda case: Answer("allow", "identity"))
    assert len(report.outcomes) == 4 and not report.failures
