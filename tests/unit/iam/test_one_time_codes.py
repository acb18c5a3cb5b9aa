"""One-time codes against the published vectors."""

from __future__ import annotations

import pytest

from bastide.services.iam.mfa import code_at

SEED = b"12345678901234567890"


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
        (2000000000, "279037"), (20000000000, "353130"),
    ],
)  # fmt: skip
def test_rfc_6238_appendix_b(at: int, code: str) -> None:
    """The appendix has eight digits; ours are its last six."""
    assert code_at(SEED, at // 30) == code


def test_rfc_4226_appendix_d() -> None:
    found = [code_at(SEED, count) for count in range(10)]
    assert found == [
        "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489",
    ]  # fmt: skip
