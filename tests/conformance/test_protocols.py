"""All public protocol cases that say something about a server pass."""

from __future__ import annotations

from pathlib import Path

from tests.conformance import protocols


def test_every_case_that_applies_passes(conformance: Path) -> None:
    passed, failed = protocols.run(conformance / "protocols")
    assert failed == 0
    assert passed > 700
