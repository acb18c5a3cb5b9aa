"""The IAM authorization cases, all of them."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import iam
from tests.reference import decider


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


def test_the_reference_decides_the_cases_as_they_say(conformance: Path) -> None:
    """What the engine is held against on generated policies is itself held against the cases."""
    wrong = []
    for case in iam.cases(conformance / "iam"):
        asked = iam.request(case)
        who = asked.principal
        question = decider.Question(
            kind=who.kind,
            account=who.account,
            arn=who.arn,
            role=who.principal_arn if who.kind == "AssumedRole" else "",
            action=case["action"],
            resource=case["resource"],
            resource_account=case["account"],
            context=case["context"],
            identity=case.get("identity") or [],
            boundary=case.get("boundary"),
            session=[case["session"]] if case.get("session") else None,
            resource_policy=case.get("resource_policy"),
            scps=case.get("scps") or [],
            rcps=case.get("rcps") or [],
            resource_kind=iam.resource_kind(case),
        )
        if decider.verdict(question) != case["expect"]:
            wrong.append(case["id"])
    assert wrong == []
