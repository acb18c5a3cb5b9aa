"""The IAM authorization cases, all of them."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import iam


def test_no_case_fails(conformance: Path) -> None:
    passed, failed = iam.run(conformance / "iam", verbose=True)
    assert failed == 0
    assert passed > 1400


def test_nothing_is_allowed_that_should_be_denied(conformance: Path) -> None:
    wrongly = [
        case["id"]
        for case in iam.cases(conformance / "iam")
        if case["expect"] != "Allowed" and iam.outcome(case) == "Allowed"
    ]
    assert wrongly == []


def test_every_disagreement_is_about_a_case_that_exists_and_still_disagrees(conformance: Path) -> None:
    known = {case["id"]: case for case in iam.cases(conformance / "iam")}
    for name, outcome in iam.disagreements().items():
        assert iam.outcome(known[name]).split(":")[0] == outcome
        assert known[name]["expect"] != outcome
