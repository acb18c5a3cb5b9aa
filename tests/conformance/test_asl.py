"""State machine cases recorded from the real service: all pass but those with a reason in `asl_gaps.txt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import asl
from tests.platform import Account


@pytest.mark.control("EXP-19")
def test_every_case_passes_or_has_a_reason(conformance: Path, account: Account) -> None:
    passed, failed = asl.run(conformance / "asl", account=account, every=20)
    assert failed == 0
    assert passed > 150
